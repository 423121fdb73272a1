//! Hands the linker its scripts.

use std::path::PathBuf;

fn main() {
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    for (from, name) in [("memory.x", "memory.x"), ("../baked.x", "baked.x")] {
        std::fs::copy(from, out.join(name)).expect("a linker script");
        println!("cargo::rerun-if-changed={from}");
    }
    println!("cargo::rustc-link-search={}", out.display());
}
