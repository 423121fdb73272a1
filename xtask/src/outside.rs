//! Programs from outside that the tests talk to, installed where they are missing: real peers that we did not write.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail};

use crate::step;

struct Program {
    name: &'static str,
    package: &'static str,
    why: &'static str,
}

const DEBIAN: [Program; 4] = [
    Program { name: "ruby", package: "ruby", why: "a provisioning helper as the users' guide has it" },
    Program { name: "kill", package: "procps", why: "signals to processes under test" },
    Program { name: "qemu-system-arm", package: "qemu-system-arm", why: "microcontrollers under test" },
    Program { name: "openssl", package: "openssl", why: "certificates and keys made by somebody else" },
];

/// Makes sure that every outside program is there.
pub(crate) fn install() -> Result<()> {
    let missing: Vec<&Program> = DEBIAN.iter().filter(|program| !on_path(program.name)).collect();
    if !missing.is_empty() {
        for program in &missing {
            eprintln!("installing {}: {}", program.package, program.why);
        }
        if !on_path("apt-get") {
            let names: Vec<&str> = missing.iter().map(|program| program.package).collect();
            bail!("the tests need {}: install them with this system's package manager", names.join(", "));
        }
        // A fresh machine has no package lists; a failed update still leaves old ones that may do.
        if let Err(error) = step::run("apt-get update", Command::new("apt-get").args(["update", "-qq"])) {
            eprintln!("xtask: warning: {error:#}");
        }
        let mut install = Command::new("apt-get");
        install
            .args(["install", "-y", "-qq", "--no-install-recommends"])
            .env("DEBIAN_FRONTEND", "noninteractive");
        install.args(missing.iter().map(|program| program.package));
        step::run("apt-get install", &mut install)?;
    }
    Ok(())
}

/// `cargo-deny`, built once into the cache.
pub(crate) fn cargo_deny() -> Result<PathBuf> {
    const VERSION: &str = "0.20.2";
    let tools = step::cache()?.join("tools");
    let program = tools.join("bin/cargo-deny");
    if !program.exists() {
        // A debug build compiles in half the time and the check takes a second either way.
        let mut install =
            step::cargo(&["install", "--locked", "--debug", "--quiet", "cargo-deny", "--version", VERSION]);
        install.arg("--root").arg(&tools).env_remove("CARGO_TARGET_DIR");
        step::run("install cargo-deny", &mut install)?;
    }
    Ok(program)
}

pub(crate) fn on_path(name: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(name).is_file()))
}
