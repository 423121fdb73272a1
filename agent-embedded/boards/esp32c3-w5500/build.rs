//! Hands the linker its script.

use std::path::PathBuf;

fn main() {
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    std::fs::copy("flash.x", out.join("flash.x")).expect("a linker script");
    println!("cargo::rerun-if-changed=flash.x");
    println!("cargo::rustc-link-search={}", out.display());
}
