//! Rows about provisioning on the device: what a configuration may say, and what a key signs.

use anyhow::Result;
use choria_conformance::Kind;
use serde_json::{Value, json};

use crate::bench::{Case, Cases, Line};
use crate::forge::key;
use crate::shot::{Caller, NANOS, READY, Shot, inbox, message, start};

const NONCE: &str = "0f8fad5bd9cb469fa16570867728950e";

fn begin(active: bool) -> Case {
    Case::new(Kind::Candidate).number(active.into()).bytes("s3cret")
}

fn call(ms: i64, action: &str, data: &Value, material: &[u8]) -> Case {
    let case = Case::new(Kind::Call).number(ms).bytes("provisioner").bytes(action);
    case.bytes(data.to_string()).bytes(material)
}

#[test]
fn a_device_is_born() -> Result<()> {
    let mut seed = [0_u8; 32];
    seed.iter_mut().zip(0..).for_each(|(to, from)| *to = from);
    let mut cases = Cases::default();
    cases.is("blank", begin(true), "unprovisioned");
    cases.begins("jwt", call(0, "jwt", &json!({"token":"s3cret"}), &seed), "status=0 OK data=");
    let asked = json!({"token":"s3cret","nonce":NONCE});
    let line = format!("erase seed={} status=0 OK data=", hex::encode(seed));
    cases.add(
        "gen25519",
        call(1, "gen25519", &asked, &seed),
        vec![Line::Begins(line), Line::Has(" state=keyed".into())],
    );
    let config = json!({"identity":"n1.example.net","plugin.choria.server.provision":"false"}).to_string();
    let configure = json!({"token":"s3cret","config":config,"server_jwt":"aaa.bbb.ccc","action_policies":{},"opa_policies":{}});
    cases.begins("configure", call(2, "configure", &configure, &[]), "configure=2 token=11:");
    let restart = call(3, "restart", &json!({"token":"s3cret","splay":1}), &[]);
    cases.add(
        "restart",
        restart,
        vec![
            Line::Begins("check status=0 OK ".into()),
            Line::Has(" after=Restart { delay_ms: 2000 }".into()),
        ],
    );
    cases.hold().map(drop)
}

/// Without an issuer in its image a candidate reads what its broker lets through; its agent asks for the access token.
#[test]
fn a_candidate_without_an_issuer_is_its_brokers_to_protect() -> Result<()> {
    let node = "provisioning.node.n1.example.net";
    let anybody = Caller { id: "provisioner".into(), key: key(5), token: "a.b.c".into() };
    let body = r#"{"agent":"choria_provision","action":"jwt","data":{"token":"x"}}"#;
    let asked = Shot::asking(&anybody, "req1", "choria_provision", body);
    let mut document: Value = serde_json::from_str(&asked.document)?;
    document["collective"] = "provisioning".into();
    let reply = inbox("provisioner", "req1").replacen("choria.", "provisioning.", 1);
    let asked = asked.with(|shot| {
        shot.document = document.to_string();
        shot.signature = b"insecure".to_vec();
        shot.headers = json!({"reply": reply});
        shot.subject = node.into();
    });
    let mut cases = Cases::default();
    cases.begins("start", start(false, &[], false, "nobody"), READY);
    cases.begins("the provisioner", asked.sent(), "call choria_provision#jwt by provisioner ");
    cases.is("again", asked.sent(), "dropped replayed ready");
    let elsewhere = asked.clone().with(|shot| shot.headers = json!({"reply": "choria.node.n2"}));
    cases.is("with an answer elsewhere", elsewhere.sent(), "dropped reply_refused ready");
    // one that knows its issuer hears none of this
    cases.begins(
        "start",
        start(false, &[("choria", key(1).verifying_key().to_bytes())], false, "nobody"),
        READY,
    );
    cases.is("a token that is none", asked.sent(), "dropped token_malformed ready");
    cases.hold().map(drop)
}

#[test]
fn t_145_t_147_configurations_that_reach_further() -> Result<()> {
    let mut cases = Cases::default();
    let settings = |document: &str| Case::new(Kind::Settings).bytes("config").bytes(document);
    let good = [r#"{"identity":"n1","a":"b c"}"#, r#"{"a":"x\ty"}"#, r#"{"plugin.x":"a=b"}"#];
    let bad = [
        r#"{"identity":"x\nplugin.choria.server.provision=1"}"#,
        r#"{"identity":"x\rplugin.choria.server.provision=1"}"#,
        r#"{"a":"x\u0000"}"#,
        r#"{"a":"x\u001b[2J"}"#,
        r#"{"a=b":"x"}"#,
        r#"{"a\nb":"x"}"#,
        r#"{"a\r":"x"}"#,
        r#"{"a\u0000":"x"}"#,
        r##"{"#a":"x"}"##,
        r#"{"":"x"}"#,
        r#"{"a":1}"#,
        r#"{"a":{"b":"c"}}"#,
        r#"{"a":["b"]}"#,
        r#"{"a":null}"#,
        r#"["a"]"#,
        r#"{"a":"b""#,
        "{}",
        "",
    ];
    for document in good {
        cases.begins(document, settings(document), "ok ");
    }
    for document in bad {
        cases.begins(document, settings(document), "refused ");
    }
    for (document, line) in [
        (r#"{"rpcutil.policy":"x"}"#, "ok 1"),
        (r#"{"../x.policy":"x"}"#, "refused "),
        (r#"{"a/b.policy":"x"}"#, "refused "),
        (r#"{".policy":"x"}"#, "refused "),
        (r#"{"a.policy":1}"#, "refused "),
    ] {
        cases.begins(document, Case::new(Kind::Settings).bytes(".policy").bytes(document), line);
    }
    // the same in requests: the agent touches nothing and has not gone on
    cases.is("blank", begin(true), "unprovisioned");
    for document in bad {
        let data = json!({"token":"s3cret","config":document,"server_jwt":"a.b.c"});
        let refused = vec![Line::Begins("status=1 ".into()), Line::Has(" state=locked".into())];
        cases.add(document, call(0, "configure", &data, &[]), refused);
    }
    for config in [json!(7), json!({"a":"b"}), json!(["a"])] {
        let data = json!({"token":"s3cret","config":config});
        cases.begins("no text", call(0, "configure", &data, &[]), "status=4 ");
    }
    let with_policy = json!({"token":"s3cret","config":good[0],"action_policies":{"../x.policy":"x"}});
    cases.begins("a policy elsewhere", call(0, "configure", &with_policy, &[]), "status=1 ");
    let with_key = json!({"token":"s3cret","config":good[0],"key":"-----BEGIN"});
    cases.begins(
        "a private key",
        call(0, "configure", &with_key, &[]),
        "status=1 private keys are not accepted",
    );
    let fits = json!({"token":"s3cret","config":good[0],"server_jwt":"a.b.c"});
    cases.begins("the control", call(0, "configure", &fits, &[]), "configure=2 token=5:");

    // a configuration of 2 MiB to a candidate that is connected
    let node = "provisioning.node.n1.example.net";
    cases.begins(
        "start",
        start(false, &[("choria", key(1).verifying_key().to_bytes())], false, "nobody"),
        READY,
    );
    let line = format!("oversize {node} {} ready", 2 << 20);
    cases.is("2 MiB", message(node, "", 2 << 20, NANOS), line);
    cases.hold()?;
    choria_rows::row(
        145,
        "values with line ends, names with =, CR, NUL and more: checked, and in configure; on the device",
        "refused, nothing is stored",
    );
    choria_rows::row(
        147,
        "numbers, objects, lists, null as values, no object; 2 MiB; on the device",
        "refused, nothing is stored; drained",
    );
    Ok(())
}

#[test]
fn t_150_t_241_nonces_that_are_more_than_that_and_inputs_of_other_types() -> Result<()> {
    let seed = [7; 32];
    let mut cases = Cases::default();
    cases.is("blank", begin(true), "unprovisioned");
    let long = "a".repeat(65);
    let absurd = "a".repeat(4000);
    for nonce in ["", "short", "eyJh.eyJi", "{\"a\":1}......", &long, "with space 12", &absurd] {
        let data = json!({"token":"s3cret","nonce":nonce});
        let line = format!(
            "status=1 The nonce must be 8 to 64 letters, digits, '-' and '_' data={}",
            crate::bench::digest("{}")
        );
        cases.begins(nonce, call(0, "gen25519", &data, &seed), line);
    }
    for (action, data) in [
        ("gen25519", json!({"token":"s3cret"})),
        ("gen25519", json!({"token":"s3cret","nonce":7})),
        ("gen25519", json!({"token":"s3cret","nonce":["x"]})),
        ("configure", json!({"token":"s3cret"})),
        ("configure", json!({"token":"s3cret","config":"x".repeat(4000)})),
        ("jwt", json!({"token":"x".repeat(600)})),
    ] {
        cases.begins(data.to_string(), call(0, action, &data, &seed), "status=1 ");
    }
    for (action, data) in [
        ("jwt", json!([])),
        ("jwt", json!({"token":7})),
        ("jwt", json!({"token":"\n".repeat(600)})),
        ("restart", json!({"token":"s3cret","splay":"soon"})),
        ("configure", json!({"token":"s3cret","config":7})),
        ("configure", json!({"token":"s3cret","config":"\n".repeat(4000)})),
    ] {
        let name = data.to_string().chars().take(60).collect::<String>();
        cases.begins(name, call(0, action, &data, &seed), "status=4 ");
    }
    let without = call(0, "gen25519", &json!({"token":"s3cret","nonce":NONCE}), &[]);
    cases.begins("no randomness", without, "status=1 No secure random numbers");
    // an input that no action reads
    let extra = json!({"token":"s3cret","nonce":NONCE,"more":[1,{"x":null}]});
    let good = format!("erase seed={} status=0 OK ", hex::encode(seed));
    cases.begins("one more input", call(0, "gen25519", &extra, &seed), good);
    cases.begins("an unknown action", call(0, "nonsense", &json!({}), &seed), "status=2 ");
    cases.hold()?;
    choria_rows::row(
        150,
        "gen25519 with a JWT, JSON, 65 characters, blanks, 4,000 characters; on the device",
        "status 1, no key is made",
    );
    choria_rows::row(
        241,
        "missing, wrong, over-long and additional inputs of a compiled agent; on the device",
        "status 1 or 4; what no action reads is not looked at",
    );
    Ok(())
}
