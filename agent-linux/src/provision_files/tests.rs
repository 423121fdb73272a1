use super::*;
use agent_core::provision::Seed;
use std::os::unix::fs::MetadataExt;

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().mode() & 0o777
}

fn configure(files: &ProvisionFiles, settings: &str, args: &str, token: &str) -> Result<Stored, StoreError> {
    let args = Object::parse(args.as_bytes()).unwrap();
    files.perform(&Effect::Configure(Configuration {
        settings: Object::parse(settings.as_bytes()).unwrap(),
        args,
        server_jwt: token,
        shared_secret: None,
        action_policies: args.object("action_policies").unwrap(),
        opa_policies: args.object("opa_policies").unwrap(),
        request_id: "req1",
        caller: "up=p\nidentity=evil",
        sender: "prov",
    }))
}

#[test]
fn a_new_seed_and_then_a_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("server.conf");
    let files = ProvisionFiles::new(&config);
    std::fs::write(dir.path().join(TOKEN), "old").unwrap();
    assert_eq!(files.perform(&Effect::EraseToken).unwrap(), Stored::Done);
    assert!(!dir.path().join(TOKEN).exists());
    files.perform(&Effect::StoreSeed(Seed([7; 32]))).unwrap();
    assert_eq!(std::fs::read_to_string(dir.path().join(SEED)).unwrap(), "07".repeat(32));
    assert_eq!(mode(&dir.path().join(SEED)), 0o600);

    let stored = configure(
        &files,
        r#"{"identity":"n1","plugin.choria.server.provision":"0","empty":"","u":"a\u0041 = b"}"#,
        r#"{"action_policies":{"rpcutil.policy":"policy default allow\n"},"opa_policies":{"default.rego":"package x\n"}}"#,
        "a.b.c",
    );
    assert_eq!(stored.unwrap(), Stored::Lines(5));
    let text = std::fs::read_to_string(&config).unwrap();
    assert!(
        text.starts_with("# configuration file written in request req1 from up=p identity=evil (prov) at ")
    );
    let settings = Settings::load(&config).unwrap();
    assert_eq!((settings.get("identity"), settings.get("u")), (Some("n1"), Some("aA = b")));
    assert_eq!(settings.keys().count(), 3, "the caller's line break forged no setting");
    assert_eq!(std::fs::read_to_string(dir.path().join(TOKEN)).unwrap(), "a.b.c");
    assert_eq!((mode(&config), mode(&dir.path().join(TOKEN))), (0o600, 0o600));
    let policy = dir.path().join("policies/rpcutil.policy");
    assert_eq!((mode(&policy), mode(&dir.path().join("policies"))), (0o400, 0o700));
    assert!(dir.path().join("policies/rego/default.rego").exists());
    assert_eq!(files.perform(&Effect::CheckConfig).unwrap(), Stored::Done);

    // New action policies replace the whole directory.
    configure(&files, r#"{"a":"b"}"#, r#"{"action_policies":{"x.policy":"y"}}"#, "").unwrap();
    assert!(!policy.exists() && !dir.path().join("policies/rego").exists());
    // New Rego policies alone leave the others.
    configure(&files, r#"{"a":"b"}"#, r#"{"opa_policies":{"z.rego":"y"}}"#, "").unwrap();
    assert!(
        dir.path().join("policies/x.policy").exists() && dir.path().join("policies/rego/z.rego").exists()
    );
    let names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().flatten().map(|e| e.file_name()).collect();
    assert!(
        names.iter().all(|name| !name.to_string_lossy().starts_with('.')),
        "nothing is left over: {names:?}"
    );
}

#[test]
fn what_cannot_be_stored_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("server.conf");
    let files = ProvisionFiles::new(&config);
    std::fs::write(&config, "identity=before\n").unwrap();
    let error = configure(&files, r#"{"a":"b"}"#, r#"{"key":"-----BEGIN"}"#, "t").unwrap_err();
    assert!(error.to_string().contains("private keys"), "{error}");
    // A value that would read back differently.
    assert!(matches!(configure(&files, r##"{"#a":"b"}"##, "{}", "t"), Err(StoreError::NotReadable)));
    assert!(matches!(configure(&files, r#"{"a":"b\nc=d"}"#, "{}", "t"), Err(StoreError::NotReadable)));
    assert_eq!(std::fs::read_to_string(&config).unwrap(), "identity=before\n");
    assert!(!dir.path().join(TOKEN).exists());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    assert!(matches!(
        files.perform(&Effect::Update { repository: "https://x", version: "1" }),
        Err(StoreError::NoUpdate)
    ));
}

#[test]
fn a_linked_configuration_stays_a_link() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("volume")).unwrap();
    std::fs::write(dir.path().join("volume/server.conf"), "a=b\n").unwrap();
    let link = dir.path().join("server.conf");
    std::os::unix::fs::symlink("volume/server.conf", &link).unwrap();
    configure(&ProvisionFiles::new(&link), r#"{"identity":"n1"}"#, "{}", "t").unwrap();
    assert!(link.symlink_metadata().unwrap().is_symlink());
    assert_eq!(Settings::load(&dir.path().join("volume/server.conf")).unwrap().get("identity"), Some("n1"));
    assert!(dir.path().join(TOKEN).exists(), "beside the link, where settings expect it");
}

#[test]
fn reprovisioning_keeps_the_log_and_blocks_a_restart_by_hand() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("server.conf");
    let settings = Settings::parse(
        "logfile=/var/log/choria.log\nregistration=file_content\nplugin.choria.registration.file_content.data=/d\nidentity=n1\n",
        &config,
    )
    .unwrap();
    let files = ProvisionFiles::new(&config).kept_settings(&settings, false);
    files.perform(&Effect::Reprovision).unwrap();
    assert_eq!(
        std::fs::read_to_string(&config).unwrap(),
        "plugin.choria.server.provision=1\nloglevel=debug\nlogfile=/var/log/choria.log\nregistration=file_content\nplugin.choria.registration.file_content.data=/d\n"
    );
    assert!(matches!(files.perform(&Effect::CheckConfig), Err(StoreError::StillProvisioning(_))));
    let files = ProvisionFiles::new(&config).kept_settings(&settings, true);
    files.perform(&Effect::Reprovision).unwrap();
    assert!(!std::fs::read_to_string(&config).unwrap().contains("file_content"));
}
