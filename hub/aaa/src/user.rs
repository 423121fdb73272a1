//! One user of the user list, as its file says and as we use it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use choria_token::claims::ClientPermissions;
use serde::Deserialize;

/// Costs above this are refused: one login would take seconds of a core (docs/spec/10 §9).
pub(crate) const MAX_COST: u32 = 15;

/// A user record, `docs/spec/05 §4`. Unknown keys are ignored.
#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub struct UserRecord {
    pub username: String,
    /// A bcrypt hash.
    pub password: String,
    pub organization: String,
    pub acls: Vec<String>,
    pub opa_policy: String,
    pub opa_policy_file: Option<PathBuf>,
    pub properties: BTreeMap<String, String>,
    pub broker_permissions: ClientPermissions,
}

/// Hashes stay out of logs.
impl fmt::Debug for UserRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserRecord")
            .field("username", &self.username)
            .field("organization", &self.organization)
            .field("permissions", &self.broker_permissions)
            .finish_non_exhaustive()
    }
}

impl UserRecord {
    /// The caller id of this user's tokens.
    pub fn caller_id(&self) -> String {
        format!("up={}", self.username)
    }

    /// The organization, `choria` when none is set.
    pub fn org(&self) -> &str {
        if self.organization.is_empty() { "choria" } else { &self.organization }
    }

    /// Why this record cannot be used.
    pub(crate) fn problem(&self) -> Option<String> {
        if !choria_token::names::valid_caller_id(&self.caller_id()) {
            return Some("the name is empty or has characters that no caller id may have".to_owned());
        }
        if !choria_token::names::valid_org(self.org()) {
            return Some(format!("organization '{}' is no organization name", self.organization));
        }
        match bcrypt_cost(&self.password) {
            None => Some("the password is no bcrypt hash; make one with 'choria aaa crypt'".to_owned()),
            Some(cost) if cost > MAX_COST => {
                Some(format!("the password's cost is {cost}; at most {MAX_COST} is accepted"))
            }
            Some(_) => None,
        }
    }
}

/// The cost of a `$2a$`, `$2b$`, `$2x$` or `$2y$` hash of the right length.
pub(crate) fn bcrypt_cost(hash: &str) -> Option<u32> {
    let rest = ["$2a$", "$2b$", "$2x$", "$2y$"].into_iter().find_map(|prefix| hash.strip_prefix(prefix))?;
    let (cost, digest) = rest.split_once('$')?;
    let well_formed = digest.len() == 53
        && digest.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'/')
        && cost.len() == 2;
    cost.parse().ok().filter(|cost| well_formed && (4..=31).contains(cost))
}

/// A caller id as it appears in requests: `@` and `.` become `_` (docs/spec/05 §7.4 step 4).
pub(crate) fn request_caller(caller_id: &str) -> String {
    caller_id.replace(['@', '.'], "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_read_from_hashes() {
        let digest = "a".repeat(53);
        assert_eq!(bcrypt_cost(&format!("$2a$10${digest}")), Some(10));
        assert_eq!(bcrypt_cost(&format!("$2y$05${digest}")), Some(5));
        for bad in [
            "",
            "secret",
            "$2a$10$short",
            "$1$10$aaa",
            &format!("$2a$99${digest}"),
            &format!("$2a$-5${digest}"),
        ] {
            assert_eq!(bcrypt_cost(bad), None, "{bad}");
        }
    }

    #[test]
    fn odd_characters_of_a_caller_are_rewritten() {
        assert_eq!(request_caller("ginkgo=test@example.net"), "ginkgo=test_example_net");
    }
}
