//! The users that may log in: inline, or from a file that is watched by its metadata.
//!
//! A changed file is parsed into a fresh list and swapped in only when all of it is good; until then the last good list
//! stays. Nothing of an old record can leak into a new one (docs/spec/10 S16).

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use crate::config::{UserlistConfig, read_bounded};
use crate::error::AaaError;
use crate::user::{UserRecord, bcrypt_cost, request_caller};

/// Cost of the dummy hash when there is no user to take it from.
const DEFAULT_COST: u32 = 10;

/// A checked list.
#[derive(Debug, Default)]
pub struct Users {
    by_name: HashMap<String, Arc<UserRecord>>,
    /// What an unknown user's password is compared with, so that the answer takes as long as for a known one.
    dummy_hash: String,
}

impl Users {
    /// Checks records: names usable as caller ids, none that look alike in requests, hashes of bearable cost.
    /// Of two records with the same name the first counts.
    ///
    /// # Errors
    /// [`AaaError::Users`] names the user.
    pub fn new(records: Vec<UserRecord>, origin: &str) -> Result<Users, AaaError> {
        let bad = |reason: String| AaaError::Users { origin: origin.to_owned(), reason };
        let mut by_name: HashMap<String, Arc<UserRecord>> = HashMap::new();
        let mut by_caller: HashMap<String, String> = HashMap::new();
        let mut costs: HashMap<u32, usize> = HashMap::new();
        for record in records {
            if let Some(problem) = record.problem() {
                return Err(bad(format!("user '{}': {problem}", record.username.escape_default())));
            }
            if by_name.contains_key(&record.username) {
                tracing::warn!(origin, user = record.username, "a second record of this user is ignored");
                continue;
            }
            let caller = request_caller(&record.caller_id());
            if let Some(other) = by_caller.insert(caller, record.username.clone()) {
                return Err(bad(format!(
                    "users '{other}' and '{}' look the same in requests, where '.' and '@' become '_'; rename one",
                    record.username
                )));
            }
            if let Some(cost) = bcrypt_cost(&record.password) {
                *costs.entry(cost).or_default() += 1;
            }
            by_name.insert(record.username.clone(), Arc::new(record));
        }
        let cost = costs
            .into_iter()
            .max_by_key(|(cost, count)| (*count, *cost))
            .map_or(DEFAULT_COST, |(cost, _)| cost);
        Ok(Users { by_name, dummy_hash: format!("$2b${cost:02}${}", ".".repeat(53)) })
    }

    /// The user of this exact name.
    pub fn get(&self, username: &str) -> Option<&Arc<UserRecord>> {
        self.by_name.get(username)
    }

    /// How many users there are.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    pub(crate) fn dummy_hash(&self) -> &str {
        &self.dummy_hash
    }
}

/// What tells one version of a file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Version {
    modified: (i64, i64),
    changed: (i64, i64),
    size: u64,
    inode: u64,
}

impl Version {
    fn of(path: &Path) -> std::io::Result<Version> {
        let meta = std::fs::metadata(path)?;
        Ok(Version {
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
            size: meta.size(),
            inode: meta.ino(),
        })
    }
}

/// The list in use, and the version of the file that was looked at last.
#[derive(Debug)]
pub struct Userlist {
    config: UserlistConfig,
    current: RwLock<Arc<Users>>,
    seen: Mutex<Option<Version>>,
}

impl Userlist {
    /// Loads the list for the first time.
    ///
    /// # Errors
    /// A list that cannot be used: there is no last good one yet.
    pub fn load(config: UserlistConfig) -> Result<Userlist, AaaError> {
        let (users, seen) = match &config.users_file {
            Some(path) => {
                let version = Version::of(path).ok();
                (read(path)?, version)
            }
            None => (Users::new(config.users.clone(), "in the configuration")?, None),
        };
        Ok(Userlist { config, current: RwLock::new(Arc::new(users)), seen: Mutex::new(seen) })
    }

    /// The users, after a look at whether their file has changed.
    pub fn users(&self) -> Arc<Users> {
        if let Some(path) = &self.config.users_file {
            self.refresh(path);
        }
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn refresh(&self, path: &Path) {
        let version = match Version::of(path) {
            Ok(version) => Some(version),
            Err(error) => {
                tracing::error!(path = %path.display(), "user list not readable, keeping the last good one: {error}");
                return;
            }
        };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if *seen == version {
            return;
        }
        // A bad version is looked at once, not at every login; its alarm is this line.
        *seen = version;
        match read(path) {
            Ok(users) => {
                tracing::info!(path = %path.display(), users = users.len(), "user list loaded");
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(users);
            }
            Err(error) => {
                tracing::error!(path = %path.display(), "user list refused, keeping the last good one: {error}");
            }
        }
    }
}

fn read(path: &Path) -> Result<Users, AaaError> {
    let meta =
        std::fs::metadata(path).map_err(|source| AaaError::Read { path: path.to_path_buf(), source })?;
    if meta.mode() & 0o022 != 0 {
        return Err(AaaError::OpenFile { path: path.to_path_buf() });
    }
    let records: Vec<UserRecord> = serde_json::from_slice(&read_bounded(path)?)
        .map_err(|source| AaaError::Json { path: path.to_path_buf(), source })?;
    Users::new(records, &path.display().to_string())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::time::Duration;

    use super::*;

    const HASH: &str = "$2b$04$aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

    fn record(name: &str, extra: &str) -> String {
        format!(r#"{{"username":"{name}","password":"{HASH}"{extra}}}"#)
    }

    fn write(path: &Path, text: &str) {
        std::fs::write(path, text).expect("write");
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).expect("mode");
    }

    fn list(path: &Path) -> UserlistConfig {
        UserlistConfig {
            users: Vec::new(),
            users_file: Some(path.to_path_buf()),
            validity: Duration::from_secs(60),
            signing_key: "unused".into(),
            signing_token: None,
        }
    }

    fn directory(name: &str) -> std::path::PathBuf {
        let path = std::env::temp_dir().join(format!("choria-aaa-{name}-{}", std::process::id()));
        // of an earlier process with the same number
        drop(std::fs::remove_dir_all(&path));
        std::fs::create_dir_all(&path).expect("directory");
        path
    }

    #[test]
    fn t_194_names_that_look_alike_are_refused_and_the_last_good_list_stays() {
        let path = directory("alias").join("users.json");
        write(&path, &format!("[{}]", record("bob", "")));
        let users = Userlist::load(list(&path)).expect("a list");
        write(&path, &format!("[{},{},{}]", record("bob", ""), record("a.b", ""), record("a_b", "")));
        assert!(users.users().get("bob").is_some());
        assert!(users.users().get("a.b").is_none());
        let both = format!("[{},{}]", record("a.b", ""), record("a@b", ""));
        let parsed: Vec<UserRecord> = serde_json::from_str(&both).expect("json");
        assert!(matches!(Users::new(parsed, "test"), Err(AaaError::Users { .. })));
        choria_rows::row(194, "users a.b and a_b in one file", "refused, the last good list stays");
    }

    #[test]
    fn t_195_a_user_inherits_nothing_from_a_removed_one() {
        let path = directory("inherit").join("users.json");
        let admin = record("root", r#","broker_permissions":{"org_admin":true},"acls":["*"]"#);
        write(&path, &format!("[{admin},{}]", record("bob", "")));
        let users = Userlist::load(list(&path)).expect("a list");
        assert!(users.users().get("root").is_some_and(|u| u.broker_permissions.org_admin));
        write(&path, &format!("[{}]", record("bob", "")));
        let users = users.users();
        assert!(users.get("root").is_none());
        assert!(users.get("bob").is_some_and(|u| !u.broker_permissions.org_admin && u.acls.is_empty()));
        choria_rows::row(195, "org_admin at index 0 removed, next user lacks the key", "no inherited flag");
    }

    #[test]
    fn t_196_a_truncated_or_open_file_keeps_the_last_good_list() {
        let path = directory("truncated").join("users.json");
        write(&path, &format!("[{}]", record("bob", "")));
        let users = Userlist::load(list(&path)).expect("a list");
        write(&path, r#"[{"username":"eve""#);
        assert!(users.users().get("bob").is_some());
        write(&path, &format!("[{}]", record("eve", "")));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).expect("mode");
        assert!(users.users().get("bob").is_some() && users.users().get("eve").is_none());
        assert!(matches!(Userlist::load(list(&path)), Err(AaaError::OpenFile { .. })));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("mode");
        assert!(users.users().get("eve").is_some());
        choria_rows::row(196, "truncated file, world-writable file", "refused, the last good list stays");
    }

    #[test]
    fn the_first_of_two_records_counts_and_hashes_are_checked() {
        let parse = |text: &str| Users::new(serde_json::from_str(text).expect("json"), "test");
        let two = format!(
            "[{},{}]",
            record("bob", r#","organization":"one""#),
            record("bob", r#","organization":"two""#)
        );
        assert_eq!(
            parse(&two).expect("users").get("bob").map(|u| u.org().to_owned()),
            Some("one".to_owned())
        );
        for bad in [
            r#"[{"username":"bob","password":"secret"}]"#.to_owned(),
            format!(r#"[{{"username":"bob","password":"{}"}}]"#, HASH.replace("$04$", "$16$")),
            format!("[{}]", record("", "")),
            format!("[{}]", record("b b", "")),
            format!("[{}]", record("bob", r#","organization":"a.b""#)),
        ] {
            assert!(parse(&bad).is_err(), "{bad}");
        }
    }
}
