//! Where the client's settings are found (docs/spec/07 §3.1, §3.2).

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use choria_host::Settings;

use crate::ClientError;

const SYSTEM_FILES: [&str; 3] = [
    "/etc/choria/client.conf",
    "/usr/local/etc/choria/client.conf",
    "/etc/puppetlabs/mcollective/client.cfg",
];

/// Keys that a file lying about in a working directory may not set.
const GUARDED_PREFIXES: [&str; 3] = ["plugin.security.", "plugin.choria.security.", "plugin.login."];
const GUARDED_KEYS: [&str; 3] = ["logfile", "libdir", "plugin.choria.agent_provider.mcorpc.libdir"];

/// Reads the client's settings: the first file that exists, its `plugin.d`, project files, the environment.
///
/// `cli` is the file named on the command line. With no file anywhere the error lists every path tried.
pub fn discover(cli: Option<&Path>) -> Result<Settings, ClientError> {
    let environment =
        |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let named = cli.map(Path::to_owned).or_else(|| environment("CHORIA_CONFIG"));
    let main = match named {
        Some(file) => file,
        None => {
            let candidates =
                candidates(environment("HOME").as_deref(), environment("XDG_CONFIG_HOME").as_deref());
            match candidates.iter().find(|file| file.is_file()) {
                Some(found) => found.clone(),
                None => return Err(ClientError::NoConfiguration(candidates)),
            }
        }
    };
    let mut settings = Settings::load(&main)?;
    if let Ok(here) = std::env::current_dir() {
        let trusted = std::env::var("CHORIA_TRUST_PROJECT").is_ok_and(|value| value == "1");
        merge_project_files(&mut settings, &here, trusted)?;
    }
    settings.overlay_environment();
    Ok(settings)
}

fn candidates(home: Option<&Path>, config_home: Option<&Path>) -> Vec<PathBuf> {
    let mut files = Vec::new();
    if let Some(directory) = config_home.map(Path::to_owned).or_else(|| home.map(|home| home.join(".config")))
    {
        files.push(directory.join("choria/client.conf"));
    }
    if let Some(home) = home {
        files.extend([home.join(".choriarc"), home.join(".mcollective")]);
    }
    files.extend(SYSTEM_FILES.map(PathBuf::from));
    files
}

/// Merges `choria.conf` of the directory and its parents, outermost first, so that the nearest wins.
fn merge_project_files(settings: &mut Settings, directory: &Path, trusted: bool) -> Result<(), ClientError> {
    let mut directories: Vec<&Path> = directory.ancestors().collect();
    directories.reverse();
    for directory in directories {
        let file = directory.join("choria.conf");
        if !file.is_file() || settings.path_loaded() == Some(file.as_path()) {
            continue;
        }
        if let Some(who) = others_could_have_written(&file).or_else(|| others_could_have_written(directory)) {
            tracing::warn!(file = %file.display(), "project file ignored: {who}");
            continue;
        }
        let mut project = Settings::empty();
        project.merge_file(&file)?;
        let keys: Vec<String> = project.keys().map(str::to_owned).collect();
        for key in keys {
            if is_guarded(&key) && !trusted {
                tracing::warn!(
                    file = %file.display(), key,
                    "setting ignored: a project file may not set it unless CHORIA_TRUST_PROJECT=1"
                );
            } else if let Some(value) = project.get(&key) {
                settings.set(&key, value);
            }
        }
    }
    Ok(())
}

fn is_guarded(key: &str) -> bool {
    GUARDED_PREFIXES.iter().any(|prefix| key.starts_with(prefix))
        || GUARDED_KEYS.contains(&key)
        || key.ends_with(".command")
}

fn others_could_have_written(path: &Path) -> Option<String> {
    let metadata = std::fs::metadata(path).ok()?;
    let own = own_uid();
    if metadata.uid() != 0 && metadata.uid() != own {
        return Some(format!("{} belongs to another user", path.display()));
    }
    // a sticky directory such as /tmp lets others create files, but not replace ours; the file itself is checked too
    let sticky = metadata.is_dir() && metadata.mode() & 0o1000 != 0;
    (metadata.mode() & 0o002 != 0 && !sticky).then(|| format!("{} is writable by everyone", path.display()))
}

/// Our effective user id: the owner of our own entry in /proc.
fn own_uid() -> u32 {
    std::fs::metadata("/proc/self").map_or(u32::MAX, |metadata| metadata.uid())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_order_of_candidates() {
        let files = candidates(Some(Path::new("/home/a")), None);
        assert_eq!(files[0], Path::new("/home/a/.config/choria/client.conf"));
        assert_eq!(files[1], Path::new("/home/a/.choriarc"));
        assert_eq!(candidates(None, Some(Path::new("/x")))[0], Path::new("/x/choria/client.conf"));
    }

    #[test]
    fn t_283_project_files_cannot_weaken_security() {
        let directory = tempfile::tempdir().unwrap();
        let inner = directory.path().join("inner");
        std::fs::create_dir(&inner).unwrap();
        std::fs::write(directory.path().join("choria.conf"), "ttl = 10\ncolor = 0\n").unwrap();
        let hostile = "ttl = 20\nplugin.security.choria.ca = /evil\nplugin.choria.discovery.external.command = rm\nlogfile = /x\n";
        std::fs::write(inner.join("choria.conf"), hostile).unwrap();

        let mut settings = Settings::empty();
        merge_project_files(&mut settings, &inner, false).unwrap();
        assert_eq!(settings.get("ttl"), Some("20"));
        assert_eq!(settings.get("color"), Some("0"));
        for key in ["plugin.security.choria.ca", "plugin.choria.discovery.external.command", "logfile"] {
            assert_eq!(settings.get(key), None, "{key}");
        }
        merge_project_files(&mut settings, &inner, true).unwrap();
        assert_eq!(settings.get("plugin.security.choria.ca"), Some("/evil"));

        let file = inner.join("choria.conf");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o666)).unwrap();
        let mut settings = Settings::empty();
        merge_project_files(&mut settings, &inner, false).unwrap();
        assert_eq!(settings.get("ttl"), Some("10"));
        choria_rows::row(
            283,
            "a project file with plugin.security.*, a discovery command and a log file; one that others may write",
            "those keys are ignored; the whole file is",
        );
    }
}
