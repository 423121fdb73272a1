use super::*;
use crate::node_token::tests::token;
use crate::node_token::{ProvisioningClaims, ProvisioningToken};
use agent_core::provision::After;
use choria_host::{Secret, Settings};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

pub(crate) fn configured(dir: &Path, extra: &str) -> Node {
    std::fs::write(
        dir.join("facts.json"),
        r#"{"os":{"name":"Debian"},"cpus":2,"tags":["a","b"],"none":null}"#,
    )
    .unwrap();
    std::fs::write(dir.join("classes.txt"), "role::web\napache\n").unwrap();
    let text = format!(
        "identity = n1.example.net\nplugin.security.provider = choria\nplugin.security.choria.token_file = {0}/server.jwt\n\
         plugin.security.choria.seed_file = {0}/server.seed\nplugin.security.issuer.names = choria\n\
         plugin.security.issuer.choria.public = {1}\nplugin.yaml = {0}/facts.json\nclassesfile = {0}/classes.txt\n\
         rpcauthprovider = aaasvc\nplugin.choria.middleware_hosts = broker.example.net:4222\n\
         plugin.nats.pass = canary-password\n{extra}",
        dir.display(),
        "ab".repeat(32),
    );
    let path = dir.join("server.conf");
    let settings = Settings::parse(&text, &path).unwrap();
    node(ServerConfig::from_settings(&path, settings, "host", None).unwrap())
}

fn candidate(dir: &Path) -> Node {
    let claims = ProvisioningClaims {
        cht: "s3cret".into(),
        chu: "b:1".into(),
        v2: true,
        ..ProvisioningClaims::default()
    };
    let path = dir.join("provisioning.jwt");
    std::fs::write(&path, "aaa.bbb.ccc").unwrap();
    let found = ProvisioningToken { path, claims, text: Secret::new("aaa.bbb.ccc".into()) };
    let config = dir.join("server.conf");
    node(ServerConfig::provisioning(&config, Settings::empty(), "n1", &found).unwrap())
}

fn node(config: ServerConfig) -> Node {
    let rules = Rules::of(&config).unwrap();
    Node::new(config, rules)
}

struct Answer {
    code: u8,
    text: String,
    data: Value,
    reply: crate::driver::Answer,
}

fn ask_as(node: &Node, claims: &Value, agent: &str, action: &str, data: &Value) -> Answer {
    let (token, data) = (token(claims), data.to_string());
    let call = Call {
        agent,
        action,
        data: data.as_bytes(),
        caller: "up=ann",
        request_id: "req1",
        sender: "cli",
        collective: "choria",
        ttl_seconds: 60,
        time_nanos: choria_host::clock::unix_nanos(),
        caller_token: &token,
        signer_token: "",
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let reply = runtime.block_on(node.call(&call, RequestFilter::default()));
    Answer {
        code: reply.code.number(),
        text: reply.text.clone(),
        data: serde_json::from_slice(&reply.data).unwrap(),
        reply,
    }
}

fn ask(node: &Node, agent: &str, action: &str, data: Value) -> Answer {
    ask_as(node, &json!({"callerid":"up=ann","agents":["*"]}), agent, action, &data)
}

#[test]
fn facts_and_settings() {
    let dir = tempfile::tempdir().unwrap();
    let node = configured(dir.path(), "");
    let fact = |path: &str| ask(&node, "rpcutil", "get_fact", json!({"fact": path})).data["value"].clone();
    assert_eq!((fact("os.name"), fact("cpus"), fact("tags.#")), (json!("Debian"), json!(2), json!(2)));
    assert_eq!(
        (fact("missing"), fact("none"), fact("os")),
        (Value::Null, Value::Null, json!({"name":"Debian"}))
    );
    assert_eq!(
        ask(&node, "rpcutil", "get_facts", json!({"facts":"cpus, os.name,x,cpus"})).data,
        json!({"values":{"cpus":2,"os.name":"Debian","x":null}})
    );
    let missing = ask(&node, "rpcutil", "get_fact", json!({}));
    assert_eq!((missing.code, missing.text.as_str()), (4, "Validation failed: input 'fact' is required"));
    let long = ask(&node, "rpcutil", "get_fact", json!({"fact":"x".repeat(600)}));
    assert_eq!(long.code, 4);
    let item = |key: &str| ask(&node, "rpcutil", "get_config_item", json!({"item": key}));
    assert_eq!(item("rpcauthprovider").data, json!({"item":"rpcauthprovider","value":"aaasvc"}));
    for absent in ["plugin.nats.pass", "no.such.key"] {
        let answer = item(absent);
        assert_eq!((answer.code, answer.text.as_str(), answer.data), (1, "Unknown key", json!({})));
    }
    let data = ask(&node, "rpcutil", "get_data", json!({"source":"config_item","query":"plugin.nats.pass"}));
    assert_eq!(data.data, json!({"present":false,"value":null}));
    assert_eq!(ask(&node, "rpcutil", "get_data", json!({"source":"nope"})).text, "Unknown data plugin");
}

#[test]
fn inventory_and_what_monitoring_sees() {
    let dir = tempfile::tempdir().unwrap();
    let node = configured(dir.path(), "");
    let inventory = ask(&node, "rpcutil", "inventory", json!({})).data;
    assert_eq!(inventory["agents"], json!(["choria_util", "discovery", "rpcutil"]));
    assert_eq!(inventory["classes"], json!(["apache", "role::web"]));
    assert_eq!((&inventory["facts"]["cpus"], &inventory["main_collective"]), (&json!(2), &json!("choria")));
    node.live_mut().connected_server = "nats://broker.example.net:4222".into();
    node.live_mut().counters.total = 7;
    let stats = ask(&node, "rpcutil", "daemon_stats", json!({})).data;
    assert_eq!((&stats["total"], &stats["pid"]), (&json!(7), &json!(std::process::id())));
    let info = ask(&node, "choria_util", "info", json!({})).data;
    assert_eq!(info["middleware_servers"], json!(["broker.example.net:4222"]));
    assert!(!info.to_string().contains("canary"));
    let status = node.status();
    assert!(status.tls_unverified && !status.provisioning_mode);
    assert_eq!((status.stats.total, status.token_expires.as_str()), (7, "0001-01-01T00:00:00Z"));
    let unknown = ask(&node, "rpcutil", "nope", json!({}));
    assert_eq!((unknown.code, unknown.text.as_str()), (2, "Unknown action nope for agent rpcutil"));
    assert!(ask(&node, "nope", "x", json!({})).reply.silent, "an agent that is not here says nothing");
}

/// Every output the published DDLs name is in our replies.
#[test]
fn replies_have_the_outputs_of_the_ddl() {
    let ddls = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors/schemas/ddl/agent");
    if !ddls.exists() {
        println!("skipped: {} is not there", ddls.display());
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let node = configured(dir.path(), "");
    for agent in ["rpcutil", "choria_util"] {
        let text = std::fs::read_to_string(ddls.join(format!("{agent}.json"))).unwrap();
        let ddl: Value = serde_json::from_str(&text).unwrap();
        for action in ddl["actions"].as_array().unwrap() {
            let name = action["action"].as_str().unwrap();
            let inputs =
                json!({"fact":"cpus","facts":"cpus","item":"identity","source":"choria","query":"x"});
            let answer = ask(&node, agent, name, inputs);
            if name.starts_with("machine_state") && name != "machine_states" || name == "machine_transition" {
                assert_eq!(answer.code, 1);
                continue;
            }
            assert_eq!(answer.code, 0, "{agent}.{name}: {}", answer.text);
            for output in action["output"].as_object().unwrap().keys() {
                assert!(answer.data.get(output).is_some(), "{agent}.{name} lacks {output}");
            }
        }
    }
}

#[test]
fn denials_are_told_apart_only_in_the_log_and_recorded_when_asked() {
    let dir = tempfile::tempdir().unwrap();
    let audit = dir.path().join("audit.log");
    let node = configured(
        dir.path(),
        &format!(
            "rpcaudit = 1\nplugin.rpcaudit.logfile = {}\nplugin.rpcaudit.log_denied = 1\n",
            audit.display()
        ),
    );
    for claims in
        [json!({}), json!({"agents":["rpcutil.inventory"]}), json!({"agents":["*"],"opa_policy":"x"})]
    {
        let answer = ask_as(&node, &claims, "rpcutil", "ping", &json!({}));
        assert_eq!((answer.code, answer.text.as_str(), answer.data), (1, NOT_AUTHORIZED, json!({})));
    }
    assert_eq!(ask(&node, "rpcutil", "ping", json!({"token":"canary"})).code, 0);
    let log = std::fs::read_to_string(audit).unwrap();
    assert_eq!((log.lines().count(), log.matches("\"outcome\":\"denied\"").count()), (4, 3));
    assert!(!log.contains("canary"));
}

#[test]
fn t_246_what_has_no_policy_is_denied() {
    let dir = tempfile::tempdir().unwrap();
    let node = configured(dir.path(), "rpcauthprovider = rego_policy\n");
    assert_eq!(ask(&node, "rpcutil", "ping", json!({})).text, NOT_AUTHORIZED);
    let node = configured(dir.path(), "rpcauthprovider = action_policy\n");
    assert_eq!(ask(&node, "rpcutil", "ping", json!({})).text, NOT_AUTHORIZED);
    std::fs::create_dir(dir.path().join("policies")).unwrap();
    let rule = "allow\tup=ann\tping\tos.name=debian\tapache\n";
    std::fs::write(dir.path().join("policies/rpcutil.policy"), rule).unwrap();
    assert_eq!(ask(&node, "rpcutil", "ping", json!({})).code, 0);
    assert_eq!(ask(&node, "rpcutil", "inventory", json!({})).text, NOT_AUTHORIZED);
    choria_rows::row(
        246,
        "action_policy without a file, a provider that does not exist",
        format!("status 1 '{NOT_AUTHORIZED}'; with a file its rule decides"),
    );
}

#[test]
fn a_candidate_is_provisioned() {
    let dir = tempfile::tempdir().unwrap();
    let node = candidate(dir.path());
    let step = |action: &str, data: Value| ask(&node, "choria_provision", action, data);
    assert_eq!(step("jwt", json!({"token":"wrong"})).text, "Incorrect provision token supplied");
    let jwt = step("jwt", json!({"token":"s3cret"}));
    assert_eq!((jwt.code, &jwt.data["jwt"]), (0, &json!("aaa.bbb.ccc")));
    assert_eq!(jwt.data["ecdh_public"].as_str().unwrap().len(), 64);
    let bad = step("gen25519", json!({"token":"s3cret","nonce":"eyJh.eyJi"}));
    assert_eq!(bad.code, 1);
    assert!(!dir.path().join("server.seed").exists());
    let key = step("gen25519", json!({"token":"s3cret","nonce":"0f8fad5bd9cb469fa16570867728950e"}));
    assert_eq!(key.code, 0, "{}", key.text);
    assert_eq!(key.data["directory"], json!(dir.path().display().to_string()));
    let seed = crate::seed::NodeSeed::load(&dir.path().join("server.seed")).unwrap();
    assert_eq!(key.data["public_key"], json!(seed.public_key()));
    assert_eq!(ask(&node, "rpcutil", "inventory", json!({})).data["agents"].as_array().unwrap().len(), 4);

    let config = json!({"identity":"n1","plugin.choria.server.provision":"0"}).to_string();
    let forged = json!({"a":"x\nplugin.choria.server.provision=1"}).to_string();
    assert_eq!(step("configure", json!({"token":"s3cret","config":forged})).code, 1);
    let everything = json!({"config":config,"token":"s3cret","ca":"","certificate":"","ssldir":"","key":"",
        "ecdh_public":"","action_policies":{},"opa_policies":{},"server_jwt":"h.p.s"});
    let done = step("configure", everything);
    let path: PathBuf = dir.path().join("server.conf");
    assert_eq!(done.data["message"], json!(format!("Wrote 3 lines to {}", path.display())), "{}", done.text);
    assert!(done.reply.announce_provisioned);
    assert_eq!(std::fs::read_to_string(dir.path().join("server.jwt")).unwrap(), "h.p.s");
    let restart = step("restart", json!({"token":"s3cret","splay":1}));
    assert_eq!(restart.data["message"], json!("Restarting Choria Server after 2s"));
    assert_eq!(restart.reply.after, Some(After::Restart { delay_ms: 2000 }));
    assert!(step("gencsr", json!({"token":"s3cret"})).text.contains("gen25519"));
}
