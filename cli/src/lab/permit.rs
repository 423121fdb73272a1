//! Whether the lab may run as root, and where it may listen.
//!
//! A lab needs no right that an ordinary user lacks, so on a person's machine root is refused (`docs/spec/10 §13`).
//! In a container or a CI job root is often the only user there is; there the lab says so and goes on.

use std::net::Ipv4Addr;
use std::path::Path;

use crate::failure::Failure;
use crate::output;

/// Lets go on, perhaps with a notice, or says why not.
pub(crate) fn check(allow_root: bool) -> Result<(), Failure> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let allowed = allow_root || std::env::var_os("CHORIA_LAB_ALLOW_ROOT").is_some_and(|value| value == "1");
    let reason = if allowed {
        "you allowed it"
    } else if std::env::var_os("CI").is_some_and(|value| !value.is_empty()) {
        "this is a CI job"
    } else if ["/.dockerenv", "/run/.containerenv"].iter().any(|path| Path::new(path).exists())
        || std::env::var_os("container").is_some()
    {
        "this is a container"
    } else if std::fs::read_to_string("/etc/passwd").is_ok_and(|users| !has_people(&users)) {
        "this machine has no other user"
    } else {
        return Err(Failure::new("the lab does not run as root, it needs none of root's rights").hint(
            "run it as an ordinary user; where root is the right user, give --allow-root or set CHORIA_LAB_ALLOW_ROOT=1",
        ));
    };
    output::note(&format!("Running the lab as root: {reason}.\n"));
    Ok(())
}

/// Refuses to open a lab to other machines by one slip (`docs/spec/10 §13`).
pub(crate) fn check_bind(bind: Ipv4Addr, insecure: bool) -> Result<(), Failure> {
    match (bind, insecure) {
        (Ipv4Addr::LOCALHOST, _) | (Ipv4Addr::UNSPECIFIED, true) => Ok(()),
        (Ipv4Addr::UNSPECIFIED, false) => {
            Err(Failure::new("a lab is for this machine only: its users have well-known passwords")
                .hint("to let other machines reach it all the same, add --insecure-lab"))
        }
        _ => Err(Failure::new(format!("a lab listens on 127.0.0.1 or on 0.0.0.0, not on {bind}"))),
    }
}

/// Whether any account of a password file is a person's.
fn has_people(users: &str) -> bool {
    users
        .lines()
        .filter_map(|line| line.split(':').nth(2)?.parse::<u32>().ok())
        .any(|id| (1000..60_000).contains(&id))
}

#[cfg(test)]
mod tests {
    use super::has_people;

    #[test]
    fn people() {
        let system = "root:x:0:0::/root:/bin/bash\ndaemon:x:1:1::/:/x\nnobody:x:65534:65534::/:/x\n";
        assert!(!has_people(system));
        assert!(has_people(&format!("{system}alice:x:1000:1000::/home/alice:/bin/bash\n")));
        assert!(!has_people("broken\n:::\n"));
    }
}
