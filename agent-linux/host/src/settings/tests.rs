use super::*;
use proptest::prelude::*;

fn parse(text: &str) -> Settings {
    Settings::parse(text, Path::new("server.conf")).unwrap()
}

#[test]
fn lines_are_trimmed_and_later_ones_win() {
    let s = parse(
        "# comment\n\n  identity = n1.example.net \r\nidentity=n2\nplugin.x.y = a = b\nempty =\nnot a setting\n",
    );
    assert_eq!(s.get("identity"), Some("n2"));
    assert_eq!(s.get("plugin.x.y"), Some("a = b"));
    assert_eq!(s.get("empty"), None);
    assert_eq!(s.origin("identity"), Some((PathBuf::from("server.conf"), 4)));
    assert_eq!(s.keys().collect::<Vec<_>>(), ["identity", "plugin.x.y"]);
    assert_eq!(s.path_loaded(), Some(Path::new("server.conf")));
    let warnings: Vec<String> = s.warnings().iter().map(ToString::to_string).collect();
    assert_eq!(warnings, ["server.conf:7: the line is ignored: it has no '='"]);
}

#[test]
fn booleans_and_their_warning() {
    let s = parse("a = YES\nb = f\nc = on\n");
    assert!(s.bool("a", false));
    assert!(!s.bool("b", true));
    assert!(!s.bool("c", true));
    assert!(s.bool("unset", true));
    assert!(!s.bool("c", true));
    let warnings = s.warnings();
    assert_eq!(warnings.len(), 1, "the same finding is told once");
    assert_eq!(warnings[0].place, Some((PathBuf::from("server.conf"), 3)));
    assert_eq!(warnings[0].problem, Problem::NotBoolean);
}

#[test]
fn numbers_and_durations_name_file_and_line() {
    let s = parse("n = 12\nm = twelve\nd = 1h\ne = soon\n");
    assert_eq!(s.int("n", 0).unwrap(), 12);
    assert_eq!(s.int("m", 0).unwrap_err().to_string(), "server.conf:2: m is not a whole number");
    assert_eq!(s.int_or("m", 5), 5);
    assert_eq!(s.duration("d", Duration::ZERO).unwrap(), Duration::from_secs(3600));
    assert!(
        s.duration("e", Duration::ZERO)
            .unwrap_err()
            .to_string()
            .starts_with("server.conf:4: e is not usable")
    );
    assert_eq!(s.duration_or("e", Duration::from_secs(2)), Duration::from_secs(2));
    assert_eq!(s.warnings().len(), 2);
}

#[test]
fn lists_paths_and_prefixes() {
    let s = parse("l = a, b ,,c\nplugin.yaml=/a.yaml:/b.yaml\nplugin.yaml=/c.json\nplugin.scout.tags=x\n");
    assert_eq!(s.list("l"), ["a", "b", "c"]);
    assert_eq!(
        s.path_list("plugin.yaml"),
        [PathBuf::from("/a.yaml"), PathBuf::from("/b.yaml"), PathBuf::from("/c.json")]
    );
    assert_eq!(s.with_prefix("plugin.scout.").collect::<Vec<_>>(), [("tags", "x")]);
    assert!(s.list("unset").is_empty());
}

#[test]
fn home_is_expanded_only_at_the_front() {
    let home = PathBuf::from(std::env::var_os("HOME").unwrap());
    assert_eq!(expand_home("~/.choria/token"), home.join(".choria/token"));
    assert_eq!(expand_home("~user/x"), PathBuf::from("~user/x"));
    assert_eq!(expand_home("/a/~"), PathBuf::from("/a/~"));
}

#[test]
fn set_replaces_and_has_no_file() {
    let mut s = parse("a = 1\na = 2\n");
    s.set("a", "3");
    assert_eq!(s.get("a"), Some("3"));
    assert_eq!(s.origin("a"), None);
    s.remove("a");
    assert_eq!(s.get("a"), None);
}

#[test]
fn plugin_directory_is_read_with_prefixes() {
    let dir = tempfile::tempdir_in("/tmp").unwrap();
    std::fs::create_dir(dir.path().join("plugin.d")).unwrap();
    std::fs::write(dir.path().join("server.conf"), "identity=n1\nplugin.choria.use_srv=1\n").unwrap();
    std::fs::write(dir.path().join("plugin.d/choria.cfg"), "use_srv=0\n").unwrap();
    std::fs::write(dir.path().join("plugin.d/myco.conf"), "colour = red\n").unwrap();
    std::fs::write(dir.path().join("plugin.d/README"), "x=y\n").unwrap();
    let s = Settings::load(&dir.path().join("server.conf")).unwrap();
    assert!(!s.bool("plugin.choria.use_srv", true));
    assert_eq!(s.get("plugin.myco.colour"), Some("red"));
    assert_eq!(s.keys().count(), 3);
}

#[test]
fn unusable_files_are_errors_with_their_name() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("none.conf");
    assert!(Settings::load(&missing).unwrap_err().to_string().contains("none.conf"));
    let binary = dir.path().join("binary.conf");
    std::fs::write(&binary, [0xff, 0xfe]).unwrap();
    assert!(matches!(Settings::load(&binary), Err(SettingsError::NotText { .. })));
    let large = dir.path().join("large.conf");
    std::fs::write(&large, vec![b'#'; 1024 * 1024 + 1]).unwrap();
    assert!(matches!(Settings::load(&large), Err(SettingsError::TooLarge { .. })));
}

#[test]
fn issuers_have_valid_keys() {
    let key = "AB".repeat(32);
    let s = parse(&format!(
        "plugin.security.issuer.names = choria, dev\nplugin.security.issuer.choria.public = {key}\n\
         plugin.security.issuer.dev.public = {0}, {1}\n",
        "cd".repeat(32),
        "ef".repeat(32)
    ));
    let found = issuers(&s).unwrap();
    assert_eq!(found["choria"], key.to_lowercase());
    assert_eq!(found["dev"], "cd".repeat(32));
    assert_eq!(issuer_keys(&s).unwrap()["dev"].len(), 2);
    assert!(issuers(&parse("a=b")).unwrap().is_empty());
    let missing = parse("plugin.security.issuer.names = choria");
    assert!(issuers(&missing).unwrap_err().to_string().contains("plugin.security.issuer.choria.public"));
    let short = parse("plugin.security.issuer.names = choria\nplugin.security.issuer.choria.public = ab");
    assert!(issuers(&short).unwrap_err().to_string().starts_with("server.conf:2: "));
}

proptest! {
    #[test]
    fn any_text_parses_without_panic(text in "(?s).{0,400}") {
        let s = Settings::parse(&text, Path::new("x")).unwrap();
        for key in s.keys() {
            let _ = (s.bool(key, true), s.int_or(key, 0), s.list(key), s.path(key));
        }
    }

    #[test]
    fn what_is_written_is_read(key in "[a-z][a-z0-9._]{0,30}", value in "[!-~]([ -~]{0,40}[!-~])?") {
        let s = Settings::parse(&format!("{key} = {value}\n"), Path::new("x")).unwrap();
        prop_assert_eq!(s.get(&key), Some(value.as_str()));
    }
}
