//! Finds a toolchain that can build for microcontrollers (docs/spec/08 §1): rustup's own target where it is installed,
//! otherwise Debian's matching compiler and library source, otherwise one sentence that says what is missing.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::step;

/// Debian's compiler, its library source and the shared objects that both need, all from one source package.
const PACKAGES: [&str; 11] = [
    "rustc-web",
    "cargo-web",
    "rust-web-src",
    "libstd-rust-web-1.96",
    "libstd-rust-web-dev",
    "libllvm22",
    "libgit2-1.5",
    "libhttp-parser2.9",
    "libmbedcrypto7",
    "libmbedx509-1",
    "libmbedtls14",
];

#[derive(Debug)]
pub(crate) struct ToolchainMissing(String);

impl std::fmt::Display for ToolchainMissing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ToolchainMissing {}

/// A way to run cargo for a device target.
#[derive(Debug)]
pub(crate) enum Toolchain {
    /// rustup has the target's library: plain `cargo build --target`.
    Rustup,
    /// Debian's compiler builds the library from its own source.
    Debian { root: PathBuf, linker_folder: PathBuf },
}

impl Toolchain {
    /// Chooses a toolchain for `target`, unpacking Debian's into the cache when it is the only one to be had.
    pub(crate) fn find(target: &str) -> Result<Toolchain> {
        if rustup_has(target) {
            return Ok(Toolchain::Rustup);
        }
        let root = match std::env::var_os("EMBEDDED_RUST_ROOT") {
            Some(folder) => PathBuf::from(folder),
            None => step::cache()?.join("embedded-rust"),
        };
        if !root.join("usr/bin/rustc").exists() {
            unpack(&root).map_err(|error| {
                ToolchainMissing(format!(
                    "no library for {target}: run `rustup target add {target}`, or on Debian 12 let this task fetch \
                     `rustc-web` and `rust-web-src` with apt-get ({error:#})"
                ))
            })?;
        }
        Ok(Toolchain::Debian { root, linker_folder: linker_folder()? })
    }

    pub(crate) fn describe(&self) -> &'static str {
        match self {
            Toolchain::Rustup => "rustup target",
            Toolchain::Debian { .. } => "Debian rustc-web with -Zbuild-std=core",
        }
    }

    /// `cargo <verb> --target <target>` in `folder`, with build products below `products`.
    pub(crate) fn cargo(&self, verb: &str, target: &str, folder: &Path, products: &Path) -> Command {
        let mut command = match self {
            Toolchain::Rustup => Command::new("cargo"),
            Toolchain::Debian { root, linker_folder } => {
                let mut command = Command::new(root.join("usr/bin/cargo"));
                let path = std::env::var("PATH").unwrap_or_default();
                command
                    .env("RUSTC", root.join("usr/bin/rustc"))
                    .env("RUSTC_BOOTSTRAP", "1")
                    .env("LD_LIBRARY_PATH", root.join("usr/lib/x86_64-linux-gnu"))
                    .env("PATH", format!("{}:{path}", linker_folder.display()));
                command
            }
        };
        command.current_dir(folder).arg(verb).args(["--target", target]).env("CARGO_TARGET_DIR", products);
        // The host build's settings are not the device's.
        for name in ["RUSTC_WRAPPER", "RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "RUSTUP_TOOLCHAIN", "CARGO"] {
            command.env_remove(name);
        }
        if matches!(self, Toolchain::Debian { .. }) {
            command.arg("-Zbuild-std=core");
        }
        command
    }
}

impl Toolchain {
    /// What makes an image smaller where the compiler allows it: a panic ends in a fault without a word, 4 KiB less.
    pub(crate) fn shrink(&self, build: &mut Command, target: &str) {
        if matches!(self, Toolchain::Debian { .. }) {
            const FLAGS: [&str; 2] = ["-Cpanic=immediate-abort", "-Zunstable-options"];
            if target.contains('.') {
                // Cargo takes the dot in such a name for its own; those boards' linker scripts are in build.rs.
                build.env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\u{1f}"));
            } else {
                build.args(["--config", &format!("target.{target}.rustflags={FLAGS:?}")]);
            }
        }
    }
}

fn rustup_has(target: &str) -> bool {
    let sysroot = Command::new("rustc").args(["--print", "sysroot"]).output();
    sysroot.is_ok_and(|output| {
        let folder = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
        folder.join("lib/rustlib").join(target).join("lib").exists()
    })
}

/// The folder that holds `rust-lld`: every rustup toolchain brings one, and device targets ask for it by that name.
fn linker_folder() -> Result<PathBuf> {
    let sysroot = step::output(Command::new("rustc").args(["--print", "sysroot"]))?;
    let host = "x86_64-unknown-linux-gnu";
    let folder = Path::new(sysroot.trim()).join("lib/rustlib").join(host).join("bin");
    if folder.join("rust-lld").exists() {
        return Ok(folder);
    }
    Err(ToolchainMissing(format!("no rust-lld in {}: install Rust by rustup", folder.display())).into())
}

fn unpack(root: &Path) -> Result<()> {
    let staging = root.with_extension("partial");
    if staging.exists() {
        std::fs::remove_dir_all(&staging)?;
    }
    std::fs::create_dir_all(&staging)?;
    let mut download = Command::new("apt-get");
    download.arg("download").args(PACKAGES).current_dir(&staging);
    step::run("fetch Debian's Rust for devices", &mut download)?;
    let mut archives: Vec<PathBuf> = std::fs::read_dir(&staging)?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .collect();
    archives.sort();
    for archive in &archives {
        step::output(Command::new("dpkg").arg("-x").arg(archive).arg(&staging))?;
        std::fs::remove_file(archive)?;
    }
    std::fs::rename(&staging, root).with_context(|| format!("cannot put the toolchain at {}", root.display()))
}
