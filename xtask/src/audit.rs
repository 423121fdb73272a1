//! `cargo xtask audit`: what linked firmware may not hold (docs/spec/08 §6.1, docs/spec/10 T-309): a panic that input could
//! reach, calls to a debugger, words of panics, paths of sources, secrets.

mod calls;
mod names;
mod panics;
mod texts;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::embedded::Toolchain;
use crate::image::elf;
use crate::{boards, sizes, step};

/// Boards whose storage, clock and console are a debugger's: those of the tests.
const DEBUGGED: [&str; 3] = ["qemu-lm3s", "qemu-lm3s-names", "qemu-mps2"];

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Look at this firmware only, instead of building agent-core and the boards
    #[arg(long)]
    elf: Option<PathBuf>,
    /// The firmware's board
    #[arg(long, requires = "elf", default_value = "")]
    board: String,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    match &options.elf {
        Some(path) => firmware(path, &options.board),
        None => all(),
    }
}

/// agent-core's panics, and every image as it is shipped.
pub(crate) fn all() -> Result<()> {
    let probe = with_panics()?;
    let tolerated =
        panics::check(&read(&probe)?).with_context(|| format!("{} (docs/spec/08 §6.1)", probe.display()))?;
    println!(
        "agent-core-probe: no panic that input could reach; {tolerated} calls of dependencies are explained"
    );
    for board in boards::all()?.iter().filter(|board| board.shrink) {
        firmware(&sizes::board_image(board)?, &board.name)?;
    }
    Ok(())
}

fn firmware(path: &Path, board: &str) -> Result<()> {
    let bytes = read(path)?;
    let context = || format!("{} is not fit to be shipped (docs/spec/10 T-309)", path.display());
    let debugger = calls::debugger_calls(&bytes).with_context(context)?;
    ensure!(
        debugger == 0 || DEBUGGED.contains(&board),
        "{}: {debugger} calls to a debugger (semihosting)",
        context()
    );
    texts::check(&bytes).with_context(context)?;
    println!(
        "{}: {debugger} calls to a debugger; no words of a panic, no paths, no secrets",
        path.file_name().unwrap_or_default().display()
    );
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    elf::check(&bytes).with_context(|| path.display().to_string())?;
    Ok(bytes)
}

/// The probe with its panics: shipped images end in a fault without a call, and show nothing. Optimised for speed, because
/// only what the compiler has inlined can it prove to be within bounds; the source is the same.
fn with_panics() -> Result<PathBuf> {
    let toolchain = Toolchain::find(sizes::DEVICE_TARGET)?;
    let products = step::target_directory().join("embedded-audit");
    let folder = step::root().join("agent-embedded/probe");
    let mut build = toolchain.cargo("build", sizes::DEVICE_TARGET, &folder, &products);
    build.args(["--release", "--locked"]).env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "3");
    step::run("agent-core with its panics", &mut build)?;
    Ok(products.join(sizes::DEVICE_TARGET).join("release/agent-core-probe"))
}
