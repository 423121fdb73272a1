//! What of a corpus is committed: the inputs that the tests replay.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use agent_core::encoding::base64;
use anyhow::{Context, Result};

use crate::step;

/// Bytes of inputs that are kept of one target.
const ROOM: usize = 10 * 1024;
/// Longer inputs find little that shorter ones do not.
const LONGEST: usize = 2048;

/// Lets libFuzzer choose the inputs that together reach what the target's corpus reaches, and writes the smallest of them.
pub(super) fn write(program: &Path, target: &str) -> Result<()> {
    let folder = step::cache()?.join("fuzz").join(target);
    let corpus = folder.join("corpus");
    if !corpus.exists() {
        println!("{target:<20} has not been searched yet");
        return Ok(());
    }
    let chosen = tempfile::tempdir()?;
    let mut merge = Command::new(program);
    merge
        .env("CHORIA_FUZZ_TARGET", target)
        .args(["-merge=1", "-detect_leaks=0"])
        .args([chosen.path(), &corpus])
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    step::run(&format!("choose from the corpus of {target}"), &mut merge)?;
    let mut inputs = Vec::new();
    for entry in std::fs::read_dir(chosen.path())? {
        inputs.push(std::fs::read(entry?.path())?);
    }
    inputs.sort_by(|one, other| (one.len(), one).cmp(&(other.len(), other)));
    let all = inputs.len();
    let mut room = ROOM;
    inputs.retain(|input| {
        let fits = input.len() <= room.min(LONGEST);
        room = if fits { room.saturating_sub(input.len()) } else { 0 };
        fits
    });
    let mut text = String::new();
    for input in &inputs {
        let mut place = vec![0; base64::encoded_len(input.len())];
        let line = base64::encode_to_slice(input, &mut place).ok().context("an input is too long")?;
        writeln!(text, "{line}")?;
    }
    std::fs::create_dir_all(place())?;
    std::fs::write(place().join(target).with_extension("txt"), text)?;
    println!("{target:<20} {} of {all} inputs kept", inputs.len());
    Ok(())
}

fn place() -> PathBuf {
    step::root().join("tests/fuzz/corpus")
}
