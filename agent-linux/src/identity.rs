//! The name of this node (docs/spec/03 §14.3).

use std::path::Path;

/// Longest identity, in bytes.
pub const MAX_IDENTITY: usize = 255;

/// Whether a text may be an identity: dot separated labels of letters, digits, `-` and `_`, so that it is a
/// plain run of subject tokens and a plain file name.
pub fn is_valid(identity: &str) -> bool {
    !identity.is_empty()
        && identity.len() <= MAX_IDENTITY
        && identity.split('.').all(|label| {
            !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        })
}

/// Names the host in place of its host name: for several nodes on one host, as `choria lab` starts them [ours].
const OVERRIDE: &str = "CHORIA_IDENTITY";

/// The identity of a host that has none configured: `CHORIA_IDENTITY` of the environment, else its host name when that has at least two dots, else the
/// full name `/etc/hosts` gives it, else the host name as it is.
///
/// Upstream also asks DNS for the reverse name and then facter. Neither is asked here: a name that depends on
/// the network being up at boot would make the same node two nodes. Set `identity` where it matters.
pub fn of_host() -> String {
    if let Ok(name) = std::env::var(OVERRIDE)
        && is_valid(&name)
    {
        return name;
    }
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    from_names(&name, &std::fs::read_to_string(Path::new("/etc/hosts")).unwrap_or_default())
}

fn from_names(host: &str, hosts_file: &str) -> String {
    if host.matches('.').count() >= 2 {
        return host.to_owned();
    }
    let full = hosts_file.lines().find_map(|line| {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_whitespace();
        words.next()?;
        let canonical = words.next()?;
        let names_us = canonical == host || words.any(|alias| alias == host);
        (names_us && canonical.contains('.') && !canonical.starts_with("localhost")).then_some(canonical)
    });
    full.unwrap_or(host).to_owned()
}

/// The domain of an identity: everything behind its first dot.
pub fn domain_of(identity: &str) -> Option<&str> {
    identity.split_once('.').map(|(_, domain)| domain).filter(|domain| !domain.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names() {
        let hosts = "127.0.0.1 localhost\n# 10.0.0.9 n1.wrong.net n1\n10.0.0.1 n1.example.net n1 # us\n";
        assert_eq!(from_names("n1.a.b", hosts), "n1.a.b");
        assert_eq!(from_names("n1", hosts), "n1.example.net");
        assert_eq!(from_names("n2", hosts), "n2");
        assert_eq!(from_names("localhost", "127.0.0.1 localhost.localdomain localhost"), "localhost");
    }

    #[test]
    fn valid_ones() {
        for good in ["n1", "n1.example.net", "a_b-c.d"] {
            assert!(is_valid(good), "{good}");
        }
        let long = "a".repeat(256);
        for bad in ["", ".", "a..b", "a b", "*", ">", "../x", "n1/x", "ü", "a\nb", long.as_str()] {
            assert!(!is_valid(bad), "{bad}");
        }
        assert_eq!(domain_of("n1.example.net"), Some("example.net"));
        assert_eq!(domain_of("n1"), None);
    }
}
