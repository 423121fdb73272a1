use super::*;
use crate::node_token::tests::token;
use crate::seed::NodeSeed;

const USABLE: fn(bool) -> Provisioning = |by_default| Provisioning::Usable { by_default };

fn bad(word: &str) -> Credentials {
    Credentials::Bad(match word {
        "seed_missing" => BadCredentials::SeedMissing("/s".into()),
        "key_mismatch" => {
            BadCredentials::Mismatch { seed: "/s".into(), token: "/t".into(), older: "/s".into() }
        }
        _ => BadCredentials::Expired { token: "/t".into(), at: None },
    })
}

fn seen(
    config: ConfigFile,
    option: Option<bool>,
    credentials: Credentials,
    cloned: bool,
    provisioning: Provisioning,
) -> Observed {
    Observed {
        config_path: "/c".into(),
        jwt_path: "/j".into(),
        config,
        provision_option: option,
        credentials,
        token_identity: Some(if cloned { "other" } else { "n1" }.into()),
        identity: "n1".into(),
        provisioning,
    }
}

/// `normal`, `warn`, `refuse`, or `provision` with the word, `-` where credentials are deleted, `=` where the
/// settings stay.
fn word(decision: &Decision) -> String {
    match decision {
        Decision::Normal { warning: None } => "normal".into(),
        Decision::Normal { warning: Some(_) } => "warn".into(),
        Decision::Refuse(_) => "refuse".into(),
        Decision::Provision { because, delete_credentials, keep_settings } => {
            let (d, k) = (if *delete_credentials { "-" } else { "" }, if *keep_settings { "=" } else { "" });
            format!("{d}{k}{}", because.word())
        }
    }
}

#[test]
fn t_264_the_whole_table() {
    use ConfigFile::{Broken, Missing, Read};
    use Credentials::{Good, NotUsed};
    let absent = || Provisioning::Absent;
    let unusable = || Provisioning::Unusable("no auth token".into());
    let broken = || Broken("not UTF-8".into());
    let rows: Vec<(Observed, &str)> = vec![
        // no configuration file
        (seen(Missing, None, NotUsed, false, USABLE(false)), "config_missing"),
        (seen(Missing, None, NotUsed, false, USABLE(true)), "config_missing"),
        (seen(Missing, None, NotUsed, false, absent()), "refuse"),
        (seen(Missing, None, NotUsed, false, unusable()), "refuse"),
        // one that cannot be read
        (seen(broken(), None, NotUsed, false, USABLE(true)), "config_broken"),
        (seen(broken(), None, NotUsed, false, USABLE(false)), "refuse"),
        (seen(broken(), None, NotUsed, false, absent()), "refuse"),
        // bad credentials force provisioning, also against the option and the token's default
        (seen(Read, None, bad("seed_missing"), false, USABLE(true)), "-seed_missing"),
        (seen(Read, Some(false), bad("seed_missing"), false, USABLE(false)), "-seed_missing"),
        (seen(Read, Some(false), bad("key_mismatch"), false, USABLE(false)), "-key_mismatch"),
        (seen(Read, None, bad("expired"), false, USABLE(false)), "-token_expired"),
        // and without a token nothing is deleted
        (seen(Read, None, bad("seed_missing"), false, absent()), "refuse"),
        (seen(Read, None, bad("key_mismatch"), false, unusable()), "refuse"),
        (seen(Read, None, bad("expired"), false, absent()), "warn"),
        (seen(Read, None, bad("expired"), true, absent()), "refuse"),
        // the option
        (seen(Read, Some(false), Good, false, USABLE(true)), "normal"),
        (seen(Read, Some(false), Good, false, USABLE(false)), "normal"),
        (seen(Read, Some(true), Good, false, USABLE(true)), "-asked"),
        (seen(Read, Some(true), Good, false, USABLE(false)), "=asked"),
        (seen(Read, None, Good, false, USABLE(true)), "-token_default"),
        (seen(Read, None, Good, false, USABLE(false)), "normal"),
        (seen(Read, Some(true), Good, false, absent()), "normal"),
        // a cloned image
        (seen(Read, None, Good, true, USABLE(false)), "=identity_mismatch"),
        (seen(Read, Some(false), Good, true, USABLE(false)), "refuse"),
        (seen(Read, None, Good, true, absent()), "refuse"),
        // other providers
        (seen(Read, None, NotUsed, false, absent()), "normal"),
    ];
    for (observed, expected) in rows {
        assert_eq!(word(&decide(&observed)), expected, "{observed:?}");
    }
    choria_rows::row(
        264,
        "a token of another identity, with and without a way to provision",
        "provisioning, refusal",
    );
}

struct Disk {
    dir: tempfile::TempDir,
    seed: NodeSeed,
}

impl Disk {
    fn new() -> Self {
        Disk { dir: tempfile::tempdir().unwrap(), seed: NodeSeed::generate() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        private_file::write_private(&self.path(name), text.as_bytes()).unwrap();
    }

    fn provisioning_token(&self, by_default: bool) {
        self.write(
            "provisioning.jwt",
            &token(&serde_json::json!({"purpose":"choria_provisioning","cht":"x","chu":"b:1","v2":true,"chpd":by_default})),
        );
    }

    fn provisioned(&self, key: &str, identity: &str, exp: i64) {
        self.write("server.seed", &self.seed.file_text());
        self.write(
            "server.jwt",
            &token(&serde_json::json!({"purpose":"choria_server","identity":identity,"public_key":key,"exp":exp})),
        );
        self.write(
            "server.conf",
            &format!(
                "identity = n1\nplugin.security.provider = choria\nplugin.security.choria.token_file = {}\n\
                 plugin.security.choria.seed_file = {}\nplugin.security.issuer.names = choria\n\
                 plugin.security.issuer.choria.public = {}\nplugin.choria.server.provision = 0\n",
                self.path("server.jwt").display(),
                self.path("server.seed").display(),
                "ab".repeat(32),
            ),
        );
    }

    fn begin(&self) -> Result<ServerConfig, StartError> {
        begin(&self.path("server.conf"), Some(&self.path("provisioning.jwt")), "n1", 1000)
    }
}

#[test]
fn a_blank_node_provisions_and_a_configured_one_runs() {
    use crate::config::Mode;
    let disk = Disk::new();
    let error = disk.begin().unwrap_err().to_string();
    assert!(error.contains("was not found and provisioning is disabled"), "{error}");
    disk.provisioning_token(true);
    assert_eq!(disk.begin().unwrap().mode, Mode::Provisioning);
    disk.provisioned(&disk.seed.public_key(), "n1", 2000);
    let config = disk.begin().unwrap();
    assert_eq!(config.mode, Mode::Normal);
    assert!(config.provision_token.is_some(), "the agent stays on air for restart and reprovision");
}

#[test]
fn t_149_bad_credentials_are_removed_and_the_node_provisions() {
    let other = NodeSeed::generate().public_key();
    let disk = Disk::new();
    disk.provisioning_token(false);
    for (key, exp) in [(other.as_str(), 2000), (disk.seed.public_key().as_str(), 999)] {
        disk.provisioned(key, "n1", exp);
        assert_eq!(disk.begin().unwrap().mode, crate::config::Mode::Provisioning);
        assert!(!disk.path("server.seed").exists() && !disk.path("server.jwt").exists());
    }
    choria_rows::row(
        149,
        "a seed with the token of another key; an expired token",
        "provisioning mode, the pair is removed",
    );
}

#[test]
fn t_264_credentials_stay_when_nothing_can_replace_them() {
    let disk = Disk::new();
    disk.provisioned(&NodeSeed::generate().public_key(), "n1", 2000);
    let error = disk.begin().unwrap_err().to_string();
    assert!(error.contains("another key than the seed") && error.contains("older file"), "{error}");
    assert!(disk.path("server.seed").exists() && disk.path("server.jwt").exists());
    disk.provisioned(&disk.seed.public_key(), "n2", 2000);
    let error = disk.begin().unwrap_err().to_string();
    assert!(error.contains("identity n1 does not match caller n2 in JWT token"), "{error}");
    choria_rows::row(264, "a configured node n1 with the token of n2, no way to provision", error);
}

#[test]
fn the_token_is_looked_for_in_four_places() {
    let disk = Disk::new();
    let config = disk.path("server.conf");
    assert_eq!(find_provisioning_jwt(&config, Some(Path::new("/x"))), ("/x".into(), JwtPlace::Flag));
    assert_eq!(find_provisioning_jwt(&config, None).1, JwtPlace::System);
    disk.provisioning_token(true);
    assert_eq!(
        find_provisioning_jwt(&config, None),
        (disk.path("provisioning.jwt"), JwtPlace::BesideConfiguration)
    );
}
