//! What docs/spec/10 §11 and §6 ask of the source itself: no `unsafe`, lock files, no foreign sources, and few places that
//! sign.
#![allow(clippy::unwrap_used, clippy::panic)] // a file that cannot be read is a failed test

use std::path::{Path, PathBuf};
use std::process::Command;

/// The files with an `unsafe` block or attribute, each justified where it stands.
const UNSAFE: [&str; 6] = [
    "agent-embedded/boards/nucleo-h743zi/src/machine.rs",
    "agent-embedded/boards/qemu-lm3s/src/machine.rs",
    "agent-embedded/boards/qemu-mps2/src/machine.rs",
    "agent-embedded/conformance/src/machine.rs",
    "agent-embedded/firmware/src/machine.rs",
    "agent-embedded/qemu/src/machine.rs",
];

/// The files outside hub/token and agent-core that hand bytes to a key.
const SIGNERS: [&str; 5] = [
    "hub/aaa/src/signer.rs",
    "hub/client/src/login.rs",
    "hub/client/src/service.rs",
    "hub/client/src/signer.rs",
    "hub/provisioner/src/node_calls.rs",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn tracked(pattern: &str) -> Vec<String> {
    let output =
        Command::new("git").arg("-C").arg(root()).args(["ls-files", "--", pattern]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

/// The lines before a file's own tests, without comments and texts.
fn code(text: &str) -> Vec<&str> {
    let lines = text.lines().take_while(|line| line.trim() != "#[cfg(test)]");
    lines.filter(|line| !line.trim_start().starts_with("//") && !line.contains('"')).collect()
}

#[test]
fn t_369_the_source_is_as_it_says() {
    let sources = tracked("*.rs");
    assert!(sources.len() > 100, "{sources:?}");
    let holds = |path: &String, word: &str| code(&read(path)).iter().any(|line| line.contains(word));
    let with_unsafe: Vec<&String> = sources
        .iter()
        .filter(|path| holds(path, "unsafe {") || holds(path, "unsafe fn") || holds(path, "unsafe impl"))
        .collect();
    assert!(with_unsafe.iter().all(|path| UNSAFE.contains(&path.as_str())), "{with_unsafe:?}");

    let signers: Vec<&String> = sources
        .iter()
        .filter(|path| {
            path.contains("/src/") && !path.starts_with("hub/token") && !path.starts_with("agent-core")
        })
        .filter(|path| !path.starts_with("tests/") && !path.ends_with("tests.rs"))
        .filter(|path| holds(path, "seed.sign(") || holds(path, ".seed()") && holds(path, ".sign("))
        .collect();
    assert_eq!(signers, SIGNERS, "a new place signs: let it ask one of these");

    let manifests = tracked("*Cargo.toml");
    let workspaces: Vec<&String> =
        manifests.iter().filter(|path| read(path).lines().any(|line| line.trim() == "[workspace]")).collect();
    let locks = tracked("*Cargo.lock");
    for manifest in &workspaces {
        let lock = manifest.replace("Cargo.toml", "Cargo.lock");
        assert!(locks.contains(&lock), "{manifest} has no committed lock file");
        assert!(!read(&lock).contains("git+"), "{lock} takes something from outside the registry");
    }
    let deny = read("deny.toml");
    for banned in ["openssl-sys", "rsa", "serde_yaml", "rustls-pemfile", "dashmap", "aws-lc-sys"] {
        assert!(deny.contains(&format!("crate = \"{banned}\"")), "{banned} may come in");
    }
    let seen = format!(
        "{} files, {} with unsafe; {} workspaces with their lock files; {} files sign",
        sources.len(),
        UNSAFE.len(),
        workspaces.len(),
        SIGNERS.len()
    );
    choria_rows::row(
        369,
        "unsafe list, lock files, foreign sources, bans, callers of the signing primitive",
        seen,
    );
}
