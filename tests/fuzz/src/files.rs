//! Files that a person, a provisioner or a package puts on a node: settings, the provisioner's YAML, DDLs, action policies.

use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use agent_linux::authorization::{About, Provider, Question, Turns, Verdict};
use choria_host::Settings;
use choria_protocol::ddl::Ddl;
use choria_provisioner::ProvisionerConfig;

use crate::Target;
use crate::corpus::texts;
use crate::effort::within;
use crate::pieces::joined;

pub(crate) const TARGETS: &[Target] = &[
    Target {
        name: "config_kv",
        oracle: "what is read can be written and read again; every typed reading answers",
        run: config_kv,
        seeds: || {
            texts(&[
                "# comment\nidentity = n1.example.net\nplugin.choria.middleware_hosts = a:4222, b:4222\nloglevel=warn\n",
                "plugin.security.issuer.choria.public = 2948fe63b93079bfef6328d9349ac60b6a6f0c50cfa8b1c7a3a4d8e0c7d8d8aa\nregisterinterval = 300\n",
                "a=1\na=2\n = x\nkey\nb =\nttl = 1w2d\n",
                "plugin.choria.server.provision = yes\r\ncollectives = mcollective,uk_collective\r\n",
            ])
        },
        words: &[
            "plugin.",
            "plugin.security.issuer.",
            "= ",
            "\r\n",
            "#",
            "1h30m",
            "-1s",
            "true",
            "\u{85}",
            "\u{2028}",
        ],
        longest: 2048,
    },
    Target {
        name: "yaml_provisioner",
        oracle: "a configuration or one sentence, in bounded time, that never repeats the token or the password",
        run: yaml_provisioner,
        seeds: || {
            texts(&[
                "workers: 4\ninterval: 1m\nhelper: /usr/bin/helper\ntoken: t0psecret-SECRET-1\nfeatures:\n  jwt: true\njwt_verify_cert: 2948fe63\nsite: x\n",
                "helper: /bin/true\nbroker_provisioning_password: t0psecret-SECRET-1\nlifecycle_component: x\nunknown: [1,2]\n",
                "builtin:\n  configuration:\n    identity: x\ntoken: &t t0psecret-SECRET-1\nsite: *t\n",
                "a: &a [1,1]\nb: &b [*a,*a]\nc: &c [*b,*b]\nd: &d [*c,*c]\ne: [*d,*d]\n",
                "token: {x: t0psecret-SECRET-1}\n",
            ])
        },
        words: &[
            "token: ",
            "helper: ",
            "features:\n",
            "  ed25519: true\n",
            "&a ",
            "*a",
            "<<: ",
            "!!str ",
            "|\n",
            "server_claims_limits:\n",
            "known_names: refuse\n",
            "t0psecret-SECRET-1",
        ],
        longest: 2048,
    },
    Target {
        name: "ddl",
        oracle: "round trip; inputs and defaults are answered without panic and a default passes its own check",
        run: ddl,
        seeds: || {
            let mut seeds: Vec<Vec<u8>> = choria_protocol::ddl::builtin_names()
                .filter_map(choria_protocol::ddl::builtin)
                .filter_map(|ddl| serde_json::to_vec(&ddl).ok())
                .collect();
            seeds.push(DDL.as_bytes().to_vec());
            seeds
        },
        words: &[
            "\"$schema\":\"https://choria.io/schemas/mcorpc/ddl/v1/agent.json\"",
            "\"metadata\":",
            "\"actions\":[",
            "\"input\":",
            "\"type\":\"string\"",
            "\"validation\":",
            "\"maxlength\":",
            "\"default\":",
            "\"list\":",
            "shellsafe",
            "ipv4address",
            "\"optional\":true",
        ],
        longest: 8192,
    },
    Target {
        name: "action_policy",
        oracle: "comments change nothing; nothing allows unless a line says so; a naive reading of plain rules",
        run: action_policy,
        seeds: || {
            vec![
                joined(&[
                    "up=ann",
                    "ping",
                    "policy default deny\nallow\tup=ann admins\tping status\tos.family=RedHat\tapache\n",
                ]),
                joined(&["up=bob", "stop", "policy default allow\ndeny\tup=bob\t*\t*\t*\n"]),
                joined(&["up=ann", "ping", "allow\t*\t*\tcpus>=4\t/^apa/\n# allow\t*\t*\t*\t*\n"]),
                joined(&["up=ann", "ping", "deny\t*\t*\t!x or y\t*\nallow\t/ann/\tping\t*\t*\n"]),
            ]
        },
        words: &[
            "policy default ",
            "allow\t",
            "deny\t",
            "\t*\t*\t*\t*\n",
            "*",
            "/.*/",
            " and ",
            "not ",
            "\r\n",
            "# ",
        ],
        longest: 2048,
    },
];

fn config_kv(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let origin = Path::new("fuzz.conf");
    let Ok(settings) = Settings::parse(&text, origin) else { return };
    let mut written = String::new();
    for key in settings.keys() {
        let value = settings.get(key).unwrap_or_else(|| panic!("{key:?} is named and has no value"));
        assert!(!value.contains(['\n', '\r']) && !key.contains(['\n', '\r', '=']), "{key:?}={value:?}");
        assert!(settings.origin(key).is_some_and(|(_, line)| line >= 1));
        written.push_str(&format!("{key} = {value}\n"));
        settings.bool(key, true);
        settings.list(key);
        settings.path_list(key);
        settings.path(key);
        let _whole = settings.int(key, 1);
        if let Ok(duration) = settings.duration(key, Duration::ZERO) {
            let shown = choria_host::duration::human(duration);
            assert!(!shown.is_empty() && shown.len() < 64, "{shown}");
        }
    }
    let again = Settings::parse(&written, origin).expect("what was read can be read again");
    for key in settings.keys() {
        assert_eq!(again.get(key), settings.get(key), "{key:?}");
    }
    for warning in settings.warnings().iter().chain(&again.warnings()) {
        let line = warning.to_string();
        assert!(!line.contains(['\n', '\r', '\u{1b}']), "{line:?}");
    }
    let _issuers = choria_host::settings::issuer_keys(&settings);
}

/// The value that no message may hold.
const SECRET: &str = "t0psecret-SECRET-1";

fn yaml_provisioner(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let origin = Path::new("/fuzz/provisioner.yaml");
    let result = within(Duration::from_secs(2), &text, || ProvisionerConfig::parse(text, origin));
    match result {
        Ok(config) => {
            assert!((1..=1024).contains(&config.workers) && (1..=10_000).contains(&config.in_flight));
            assert!(config.interval >= Duration::from_secs(60));
            let shown = format!("{config:?}");
            // Only where it stands as one of the two secrets; a site may call itself anything.
            if text.matches(SECRET).count() == 1
                && (config.token.is_some() || config.broker_password.is_some())
            {
                let elsewhere =
                    [config.site.as_str(), &config.upgrades_repository, &config.lifecycle_component];
                let is_secret = config.token.as_ref().is_some_and(|token| token.expose().contains(SECRET))
                    || config.broker_password.as_ref().is_some_and(|word| word.expose().contains(SECRET));
                if is_secret && elsewhere.iter().all(|text| !text.contains(SECRET)) {
                    assert!(!shown.contains(SECRET), "a secret is shown: {shown}");
                }
            }
        }
        Err(error) => {
            let said = error.to_string();
            assert!(said.len() < 4096, "{} bytes are no sentence", said.len());
            // As the value of its key, wherever else the file is broken.
            let as_secret = ["token", "broker_provisioning_password"].iter().any(|key| {
                text.lines().any(|line| {
                    line.strip_prefix(key).is_some_and(|rest| {
                        rest.trim_start_matches([':', ' ', '"', '\'']).starts_with(SECRET)
                    })
                })
            });
            if as_secret && text.matches(SECRET).count() == 1 {
                assert!(!said.contains(SECRET), "a secret is repeated: {said}");
            }
        }
    }
}

const DDL: &str = r#"{"$schema":"https://choria.io/schemas/mcorpc/ddl/v1/agent.json","metadata":{"name":"x","description":"d","author":"a","license":"l","version":"1.0.0","url":"u","timeout":10},"actions":[{"action":"go","description":"d","display":"always","input":{"name":{"prompt":"p","description":"d","type":"string","validation":"^[a-z]+$","maxlength":10,"optional":true,"default":"abc"},"n":{"prompt":"p","description":"d","type":"integer","default":1,"optional":true},"l":{"prompt":"p","description":"d","type":"list","list":["a","b"],"default":"a","optional":false}},"output":{"o":{"description":"d","display_as":"O","default":5}},"aggregate":[{"function":"summary","args":["o"]}]}]}"#;

fn ddl(input: &[u8]) {
    let Ok(ddl) = Ddl::parse(input) else { return };
    let written = serde_json::to_vec(&ddl).expect("a DDL can be written");
    let again = Ddl::parse(&written).expect("what was written can be read");
    assert_eq!(again, ddl);
    for action in &ddl.actions {
        assert_eq!(
            ddl.action(&action.name).map(|found| found.name.as_str()).ok(),
            Some(action.name.as_str())
        );
        let mut data = serde_json::Map::new();
        let _missing = action.validate(&data);
        action.fill_input_defaults(&mut data);
        assert!(data.keys().all(|name| action.input.contains_key(name)), "a default of no input");
        let _refused = action.validate(&data);
        let mut more = data.clone();
        action.fill_input_defaults(&mut more);
        assert_eq!(more, data, "defaults are filled once");
        action.fill_output_defaults(&mut data);
        let texts = action.input.keys().map(|name| (name.clone(), "-1.5e3 true".to_owned())).collect();
        let _texts = action.inputs_from_text(&texts);
    }
}

#[derive(Debug)]
struct Known;

impl About for Known {
    fn facts(&self) -> Rc<[u8]> {
        Rc::from(br#"{"os":{"family":"RedHat"},"cpus":4}"#.as_slice())
    }

    fn classes(&self) -> Rc<[String]> {
        Rc::from(vec!["apache".to_owned()])
    }
}

thread_local! {
    static RUNTIME: tokio::runtime::Runtime =
        tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    static FOLDER: tempfile::TempDir = {
        let folder = tempfile::tempdir().expect("a folder for policies");
        std::fs::create_dir(folder.path().join("policies")).expect("a folder for policies");
        std::fs::write(folder.path().join("policies/groups"), "admins up=ann up=bob\n").expect("a groups file");
        folder
    };
}

fn decide(policy: &str, caller: &str, action: &str) -> bool {
    FOLDER.with(|folder| {
        std::fs::write(folder.path().join("policies/rpcutil.policy"), policy).expect("a policy file");
        let settings =
            Settings::parse("rpcauthprovider = action_policy\n", Path::new("fuzz.conf")).expect("settings");
        let provider = Provider::from_settings(&settings, folder.path());
        assert!(matches!(provider, Provider::Files(_)));
        let question = Question {
            agent: "rpcutil",
            action,
            data: b"{}",
            caller,
            sender: "ws",
            collective: "choria",
            ttl_seconds: 60,
            time_nanos: 0,
            caller_token: "",
            filter: choria_host::rego::RequestFilter::default(),
            node: &Known,
        };
        RUNTIME.with(|runtime| runtime.block_on(provider.decide(&question, &Turns::default())))
            == Verdict::Allow
    })
}

fn action_policy(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let mut parts = text.splitn(3, '\0');
    let (caller, action, policy) = (
        parts.next().unwrap_or_default(),
        parts.next().unwrap_or_default(),
        parts.next().unwrap_or_default(),
    );
    let allowed = decide(policy, caller, action);
    let without_comments: Vec<&str> =
        policy.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()).collect();
    assert_eq!(decide(&without_comments.join("\n"), caller, action), allowed, "a comment decides");
    if !without_comments.iter().any(|line| line.contains("allow")) {
        assert!(!allowed, "nothing says allow");
    }
    // Rules of whole words only can be read by anybody.
    let word = |text: &str| {
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'=')
    };
    let mut verdict = false;
    for line in &without_comments {
        let columns: Vec<&str> = line.split('\t').collect();
        match columns.as_slice() {
            ["policy default deny"] => verdict = false,
            ["policy default allow"] => verdict = true,
            [what @ ("allow" | "deny"), callers, actions, "*", "*"]
                if (*callers == "*" || word(callers) && *callers != "admins")
                    && (*actions == "*" || word(actions)) =>
            {
                if (*callers == "*" || *callers == caller) && (*actions == "*" || *actions == action) {
                    assert_eq!(allowed, *what == "allow", "{line:?} decides for {caller:?} {action:?}");
                    return;
                }
            }
            _ => return,
        }
    }
    assert_eq!(allowed, verdict, "the default decides");
}
