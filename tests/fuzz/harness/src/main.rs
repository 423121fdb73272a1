//! libFuzzer's main: runs one target, named by `CHORIA_FUZZ_TARGET`. `cargo xtask fuzz` builds and drives it.
//!
//! `CHORIA_FUZZ_LIST=1` prints the targets and ends; `CHORIA_FUZZ_SEEDS=DIR` writes the target's seeds, its kept inputs and
//! its dictionary before libFuzzer looks at its corpus.
#![no_main]

use std::path::Path;
use std::sync::OnceLock;

use choria_fuzz::Target;

static TARGET: OnceLock<&'static Target> = OnceLock::new();

libfuzzer_sys::fuzz_target!(
    init: prepare(),
    |input: &[u8]| {
        if let Some(target) = TARGET.get() {
            (target.run)(input);
        }
    }
);

fn prepare() {
    if std::env::var_os("CHORIA_FUZZ_LIST").is_some() {
        for target in choria_fuzz::targets() {
            println!("{}\t{}\t{}", target.name, target.longest, target.oracle);
        }
        std::process::exit(0);
    }
    let name = std::env::var("CHORIA_FUZZ_TARGET").unwrap_or_default();
    let Some(target) = choria_fuzz::find(&name) else {
        eprintln!("CHORIA_FUZZ_TARGET names no target: {name:?}");
        std::process::exit(2);
    };
    TARGET.get_or_init(|| target);
    if let Some(folder) = std::env::var_os("CHORIA_FUZZ_SEEDS")
        && let Err(error) = write_seeds(target, Path::new(&folder))
    {
        eprintln!("cannot write the seeds of {name}: {error}");
        std::process::exit(2);
    }
}

fn write_seeds(target: &Target, folder: &Path) -> std::io::Result<()> {
    let corpus = folder.join("seeds");
    std::fs::create_dir_all(&corpus)?;
    for (number, seed) in (target.seeds)().iter().enumerate() {
        std::fs::write(corpus.join(format!("seed-{number:03}")), seed)?;
    }
    for (name, input) in choria_fuzz::corpus::kept(target.name)? {
        std::fs::write(corpus.join(name), input)?;
    }
    let word = |word: &&str| {
        let bytes: String = word.bytes().map(|byte| format!("\\x{byte:02x}")).collect();
        format!("\"{bytes}\"\n")
    };
    std::fs::write(folder.join("words"), target.words.iter().map(word).collect::<String>())
}
