use super::*;
use crate::node_token::ProvisioningClaims;

const KEY: &str = "03a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8";

fn minimal() -> String {
    format!(
        "plugin.security.provider = choria\nplugin.security.choria.token_file = /t\n\
         plugin.security.choria.seed_file = /s\nrpcauthprovider = aaasvc\nplugin.security.issuer.names = choria\n\
         plugin.security.issuer.choria.public = {KEY}\n"
    )
}

fn config(text: &str) -> Result<ServerConfig, ConfigError> {
    let settings = Settings::parse(text, Path::new("/etc/choria/server.conf")).unwrap();
    ServerConfig::from_settings(Path::new("/etc/choria/server.conf"), settings, "n1.example.net", None)
}

fn token(claims: ProvisioningClaims) -> ProvisioningToken {
    ProvisioningToken {
        path: "/etc/choria/provisioning.jwt".into(),
        claims,
        text: Secret::new("x.y.z".into()),
    }
}

#[test]
fn defaults() {
    let c = config(&minimal()).unwrap();
    assert_eq!(c.identity, "n1.example.net");
    assert_eq!(
        (c.collectives.as_slice(), c.main_collective.as_str()),
        (["choria".to_owned()].as_slice(), "choria")
    );
    assert_eq!(c.ttl_cap_seconds, 600);
    assert_eq!(c.connect_timeout, Duration::from_secs(2));
    assert!(c.sign_replies && c.match_delegated_caller);
    assert!(matches!(c.trust, Trust::Unverified));
    assert_eq!(c.stats_address, None);
    assert_eq!(c.directory(), Path::new("/etc/choria"));
    assert_eq!(c.component(), "server");
    assert!(
        matches!(&c.targets, Targets::Srv { names, .. } if names[0] == "_mcollective-server._tcp.example.net")
    );
    assert_eq!(c.signers, Signers::Issuers(BTreeMap::from([("choria".into(), vec![KEY.into()])])));
}

#[test]
fn trust_follows_ca_then_pins() {
    let pin = "ab".repeat(32);
    let pinned = config(&format!("{}plugin.security.choria.tls_pin = {pin}\n", minimal())).unwrap();
    assert!(matches!(pinned.trust, Trust::Pins(pins) if pins.len() == 1));
    let both =
        format!("{}plugin.security.choria.tls_pin = {pin}\nplugin.security.choria.ca = /none\n", minimal());
    assert!(
        matches!(config(&both).unwrap().trust, Trust::CaFile(_)),
        "a CA that is missing is an error later, never a fallback"
    );
    assert!(config(&format!("{}plugin.security.choria.tls_pin = xx\n", minimal())).is_err());
}

#[test]
fn what_is_refused_and_how() {
    let cases: [(&str, &str); 9] = [
        ("plugin.security.provider = file", "protocol version 2"),
        ("plugin.security.server_anon_tls = true", "plugin.security.server_anon_tls cannot be used"),
        ("plugin.security.choria.trusted_signers = aa", "exclude each other"),
        ("identity = a b", "not a valid identity"),
        ("collectives = a, b.c", "'b.c' is not a valid collective"),
        ("main_collective = other", "main_collective 'other'"),
        ("plugin.choria.middleware_hosts = broker", "has no port"),
        ("plugin.choria.network.connect_timeout = 3m", "longer than two minutes"),
        ("plugin.choria.stats_port = 99999", "not a port"),
    ];
    for (line, text) in cases {
        let error = config(&format!("{}{line}\n", minimal())).unwrap_err().to_string();
        assert!(error.contains(text), "{line}: {error}");
    }
    let error = config("plugin.security.provider = choria\n").unwrap_err().to_string();
    assert!(error.contains("plugin.security.choria.token_file is not set"), "{error}");
    let unsigned = minimal().replace("plugin.security.issuer.names = choria", "");
    assert!(matches!(config(&unsigned), Err(ConfigError::NoSigner)));
}

#[test]
fn wrong_types_warn_and_keep_the_default() {
    let c = config(&format!(
        "{}ttl = long\nplugin.choria.status_file_path = /s\nplugin.choria.status_update_interval = 0\n",
        minimal()
    ))
    .unwrap();
    assert_eq!(c.ttl_cap_seconds, 600);
    assert_eq!(c.status, None);
    let warnings: Vec<String> = c.settings.warnings().iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        [
            "/etc/choria/server.conf:7: ttl is not a whole number",
            "/etc/choria/server.conf:9: plugin.choria.status_update_interval is 0: no status file is written"
        ]
    );
}

#[test]
fn provisioning_overrides() {
    let claims = ProvisioningClaims {
        cht: "secret".into(),
        chu: "broker:4222".into(),
        v2: true,
        chusr: "u".into(),
        chpwd: "p".into(),
        chf: "/etc/facts.json".into(),
        update: true,
        ..Default::default()
    };
    let settings =
        Settings::parse("collectives = a\nrpcauthorization = 1\nidentity = n9\n", Path::new("x")).unwrap();
    let c = ServerConfig::provisioning(Path::new("server.conf"), settings, "n1", &token(claims)).unwrap();
    assert_eq!(
        (c.collectives, c.main_collective.as_str()),
        (vec!["provisioning".to_owned()], "provisioning")
    );
    assert_eq!((c.identity.as_str(), c.authorization), ("n9", Provider::Off));
    assert_eq!((c.nats_user.as_deref(), c.allow_update), (Some("u"), true));
    assert_eq!(c.facts_files, [PathBuf::from("/etc/facts.json")]);
    assert_eq!((c.signers, c.sign_replies, c.seed_file), (Signers::Unchecked, false, None));
    assert_eq!(c.mode, Mode::Provisioning);
    let v1 = ProvisioningClaims { cht: "x".into(), chu: "b:1".into(), ..Default::default() };
    let error = ServerConfig::provisioning(Path::new("s"), Settings::empty(), "n1", &token(v1)).unwrap_err();
    assert!(error.to_string().contains("--protocol-v2"), "{error}");
}

#[test]
fn a_known_issuer_is_the_only_one_obeyed_while_provisioning() {
    let extensions = serde_json::json!({"choria": {"issuer": KEY, "tls_pin": "ab".repeat(32)}});
    let claims = ProvisioningClaims {
        cht: "x".into(),
        chu: "b:1".into(),
        v2: true,
        extensions: Some(extensions),
        ..Default::default()
    };
    let c = ServerConfig::provisioning(Path::new("s"), Settings::empty(), "n1", &token(claims)).unwrap();
    assert_eq!(c.signers, Signers::Issuers(BTreeMap::from([("choria".into(), vec![KEY.into()])])));
    assert!(matches!(c.trust, Trust::Pins(_)));
}
