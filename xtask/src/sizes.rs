//! `cargo xtask sizes`: bytes of what we ship, held to budgets.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::boards::{self, Board, Holds};
use crate::image::{self, elf};
use crate::{embedded::Toolchain, step};

pub(crate) const DEVICE_TARGET: &str = "thumbv7m-none-eabi";
/// What images have been, committed: a build that has grown by more than two per cent fails until the file says so.
const COMMITTED: &str = "agent-embedded/sizes.yaml";
/// The stand-alone agent of a Linux node, stripped.
const AGENT_LIMIT: u64 = 6 * 1024 * 1024;

/// Images that are no boards: their folder below `agent-embedded`, and their name.
const IMAGES: [(&str, &str); 2] = [("probe", "agent-core-probe"), ("conformance", "agent-core-conformance")];

/// What one image has been, bytes.
#[derive(serde::Deserialize)]
struct Committed {
    flash: u64,
    ram: u64,
    /// Held once it has been reached. A board has its budget in its board.yaml instead.
    #[serde(default)]
    must_flash: Option<u64>,
    #[serde(default)]
    must_ram: Option<u64>,
}

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only the device images: the Linux agent's optimised build takes minutes
    #[arg(long)]
    devices: bool,
}

impl Options {
    pub(crate) fn devices() -> Self {
        Options { devices: true }
    }
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let file = step::root().join(COMMITTED);
    let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let committed: BTreeMap<String, Committed> =
        serde_saphyr::from_str(&text).with_context(|| format!("cannot read {}", file.display()))?;
    println!("{:<22} {:>9} {:>9} {:>11} {:>9}", "bytes", "flash", "must be", "static RAM", "must be");
    let boards = boards::all()?;
    let mut measured = Vec::new();
    for (folder, name) in IMAGES {
        measured.push((name, sections(&device_image(folder, name)?, None)?, None));
    }
    for board in &boards {
        let program = board_image(board)?;
        let firmware = std::fs::read(&program)?;
        let baked = image::takes_images(&firmware, board).with_context(|| program.display().to_string())?;
        ensure!(
            board.memory_at(baked) == Some(Holds::Flash),
            "{}: section .baked is at {baked:#010x}, which is no flash",
            board.name
        );
        let image = sections(&program, Some(board))?;
        measured.push((&board.name, image, Some(board.budget)));
    }
    let mut grown = Vec::new();
    for (name, image, budget) in measured {
        let known = committed.get(name).with_context(|| format!("{COMMITTED} has no {name}"))?;
        let must_flash = budget.map(|budget| budget.flash).or(known.must_flash);
        let must_ram = budget.map(|budget| budget.ram).or(known.must_ram);
        let shown = |limit: Option<u64>| limit.map_or_else(|| "-".to_owned(), |bytes| bytes.to_string());
        println!(
            "{name:<22} {:>9} {:>9} {:>11} {:>9}",
            image.flash,
            shown(must_flash),
            image.ram,
            shown(must_ram)
        );
        for (what, now, then, must) in
            [("flash", image.flash, known.flash, must_flash), ("static RAM", image.ram, known.ram, must_ram)]
        {
            let must = must.unwrap_or(u64::MAX);
            if now > then + then / 50 {
                grown.push(format!("{name}: {what} was {then} and is {now}"));
            } else if then <= must && now > must {
                grown.push(format!("{name}: {what} must be {must} at most and is {now}"));
            }
        }
    }
    if !grown.is_empty() {
        bail!("{}; if that is meant, say so in {COMMITTED}", grown.join("; "));
    }
    if options.devices {
        return Ok(());
    }
    let agent = agent_binary()?;
    println!("{:<22} {agent:>9}", "choria-agent");
    if agent > AGENT_LIMIT {
        bail!("choria-agent has {agent} bytes, its limit is {AGENT_LIMIT}");
    }
    Ok(())
}

/// Builds the agent in its shipping profile and returns its size in bytes.
pub(crate) fn agent_binary() -> Result<u64> {
    let mut build = step::cargo(&[
        "build",
        "--locked",
        "--profile",
        "agent",
        "-p",
        "agent-linux",
        "--bin",
        "choria-agent",
    ]);
    step::run("choria-agent in its shipping profile", &mut build)?;
    let path = step::target_directory().join("agent/choria-agent");
    Ok(std::fs::metadata(&path).with_context(|| format!("cannot read {}", path.display()))?.len())
}

struct Image {
    flash: u64,
    ram: u64,
}

/// Builds the image in this folder below `agent-embedded`, for the Cortex-M3 of the tests.
pub(crate) fn device_image(folder: &str, name: &str) -> Result<PathBuf> {
    build(&step::root().join("agent-embedded").join(folder), name, DEVICE_TARGET, true)
}

/// Builds a board's firmware.
pub(crate) fn board_image(board: &Board) -> Result<PathBuf> {
    build(&board.folder(), &board.name, &board.target, board.shrink)
}

fn build(folder: &Path, name: &str, target: &str, shrink: bool) -> Result<PathBuf> {
    let toolchain = Toolchain::find(target)?;
    let products = step::target_directory().join("embedded");
    let mut build = toolchain.cargo("build", target, folder, &products);
    build.args(["--release", "--locked"]);
    if shrink {
        toolchain.shrink(&mut build, target);
    }
    step::run(&format!("image {name} ({})", toolchain.describe()), &mut build)?;
    Ok(products.join(target).join("release").join(name))
}

/// Adds up the loaded sections of a 32-bit little-endian ELF file. RAM is what lies in the board's RAM; without a board,
/// what can be written.
fn sections(path: &Path, board: Option<&Board>) -> Result<Image> {
    const WRITE: u32 = 1;
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    elf::check(&bytes).with_context(|| path.display().to_string())?;
    let mut image = Image { flash: 0, ram: 0 };
    for section in elf::sections(&bytes)?.iter().filter(|section| section.is_allocated()) {
        if section.is_loaded() {
            image.flash += u64::from(section.size);
        }
        let in_ram = match board {
            None => section.flags & WRITE != 0,
            Some(board) => match board.memory_at(section.address) {
                Some(holds) => holds == Holds::Ram,
                None => bail!(
                    "{}: section {} is at {:#010x}, where the board has no memory: which linker scripts were used?",
                    board.name,
                    section.name,
                    section.address
                ),
            },
        };
        // the chip's crate may declare all that is left as stack, and memory that is seen twice under a second address
        if in_ram && section.name != ".stack" && !section.name.ends_with("_dummy") {
            image.ram += u64::from(section.size);
        }
    }
    Ok(image)
}
