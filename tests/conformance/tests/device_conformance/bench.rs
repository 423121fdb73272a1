//! Cases, and what must come of them on this machine and on the device in QEMU.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use choria_conformance::{Kind, Space, run};
use sha2::{Digest as _, Sha256};

/// Longest run of one file of cases on the device, seconds.
const LIMIT: &str = "240";
/// docs/spec/08 §8: the most that is left beside static RAM.
const STACK: usize = 20 * 1024;

/// One case, field by field in the order of [`Kind`]'s comment.
#[derive(Clone)]
pub(crate) struct Case(Vec<u8>);

impl Case {
    pub(crate) fn new(kind: Kind) -> Case {
        Case(vec![kind as u8])
    }

    #[must_use]
    pub(crate) fn bytes(mut self, field: impl AsRef<[u8]>) -> Case {
        let field = field.as_ref();
        self.0.extend(u32::try_from(field.len()).unwrap().to_le_bytes());
        self.0.extend(field);
        self
    }

    #[must_use]
    pub(crate) fn number(self, number: i64) -> Case {
        self.bytes(number.to_le_bytes())
    }

    #[must_use]
    pub(crate) fn texts<T: AsRef<[u8]>>(self, texts: &[T]) -> Case {
        let counted = self.number(i64::try_from(texts.len()).unwrap());
        texts.iter().fold(counted, Case::bytes)
    }

    /// Organizations with their issuers' keys; an empty name is a key that counts for every organization.
    #[must_use]
    pub(crate) fn trust(self, issuers: &[(&str, [u8; 32])]) -> Case {
        let counted = self.number(i64::try_from(issuers.len()).unwrap());
        issuers.iter().fold(counted, |case, (organization, key)| case.bytes(organization).bytes(key))
    }
}

/// What the line of a case must be.
pub(crate) enum Line {
    Is(String),
    /// The rest is compared between host and device only.
    Begins(String),
    Has(String),
    /// Neither this nor anything beside it.
    Lacks(String),
}

/// A file of cases.
#[derive(Default)]
pub(crate) struct Cases {
    file: Vec<u8>,
    expected: Vec<(String, Vec<Line>)>,
}

impl Cases {
    pub(crate) fn add(&mut self, name: impl Into<String>, case: Case, lines: Vec<Line>) {
        self.file.extend(u32::try_from(case.0.len()).unwrap().to_le_bytes());
        self.file.extend(case.0);
        self.expected.push((name.into(), lines));
    }

    /// The line must be this.
    pub(crate) fn is(&mut self, name: impl Into<String>, case: Case, line: impl Into<String>) {
        self.add(name, case, vec![Line::Is(line.into())]);
    }

    /// The line must begin with this.
    pub(crate) fn begins(&mut self, name: impl Into<String>, case: Case, line: impl Into<String>) {
        self.add(name, case, vec![Line::Begins(line.into())]);
    }

    /// Runs all on this machine and on the device: the same lines, and those that were expected.
    pub(crate) fn hold(self) -> Result<Vec<String>> {
        let host = self.on_host()?;
        for (line, (name, expected)) in host.iter().zip(&self.expected) {
            for expectation in expected {
                let (holds, text) = match expectation {
                    Line::Is(text) => (line == text, text),
                    Line::Begins(text) => (line.starts_with(text.as_str()), text),
                    Line::Has(text) => (line.contains(text.as_str()), text),
                    Line::Lacks(text) => (!line.contains(text.as_str()), text),
                };
                ensure!(holds, "{name}: '{line}' against '{text}'");
            }
        }
        let device = self.on_device()?;
        for ((ours, theirs), (name, _)) in host.iter().zip(&device).zip(&self.expected) {
            ensure!(ours == theirs, "{name}: the host says\n{ours}\nand the device\n{theirs}");
        }
        ensure!(host.len() == device.len(), "{} lines and {}", host.len(), device.len());
        Ok(host)
    }

    fn on_host(&self) -> Result<Vec<String>> {
        let mut lines = String::new();
        let mut rest = self.file.as_slice();
        let count = run(&mut Box::new(Space::new()), &mut rest, &mut lines);
        let lines: Vec<String> = lines.lines().map(str::to_owned).collect();
        let at = self.expected.get(lines.len()).map_or("the end", |(name, _)| name.as_str());
        ensure!(count.map(|count| count as usize) == Ok(self.expected.len()), "{count:?} at {at}");
        ensure!(
            lines.len() == self.expected.len(),
            "{} lines for {} cases",
            lines.len(),
            self.expected.len()
        );
        Ok(lines)
    }

    fn on_device(&self) -> Result<Vec<String>> {
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("cases"), &self.file)?;
        let mut command = Command::new("timeout");
        command.args([LIMIT, "qemu-system-arm", "-M", "lm3s6965evb", "-nographic", "-monitor", "none"]);
        command.args(["-serial", "null", "-semihosting-config", "enable=on,target=native", "-kernel"]);
        let ended = command.arg(image()?).current_dir(folder.path()).output()?;
        match ended.status.code() {
            Some(124) => bail!("the device was not done in {LIMIT} s"),
            Some(127) => bail!(
                "install QEMU with `apt-get install --no-install-recommends qemu-system-arm`: {ended:?}"
            ),
            _ => {}
        }
        let outcomes = std::fs::read_to_string(folder.path().join("outcomes")).unwrap_or_default();
        let mut lines: Vec<String> = outcomes.lines().map(str::to_owned).collect();
        let last = lines.pop().unwrap_or_default();
        ensure!(ended.status.success(), "the device ended with {} after {lines:?} {last}", ended.status);
        let (count, stack) = last.split_once(" cases, stack ").with_context(|| last.clone())?;
        ensure!(count.parse::<usize>()? == self.expected.len(), "the device has run {last}");
        ensure!(stack.parse::<usize>()? <= STACK, "the device has used {last}");
        eprintln!("the device has run {last} bytes");
        Ok(lines)
    }
}

/// The image that `cargo xtask qemu --build` has made, beside this test's own products.
fn image() -> Result<PathBuf> {
    let mut folder = std::env::current_exe()?;
    while folder.pop() {
        let path = folder.join("embedded/thumbv7m-none-eabi/release/agent-core-conformance");
        if path.exists() {
            return Ok(path);
        }
        if folder.ends_with("target") {
            break;
        }
    }
    bail!("there is no image with the cases' code: run `cargo xtask qemu --build` first")
}

/// What a line shows of bytes that are too many for it.
pub(crate) fn digest(bytes: impl AsRef<[u8]>) -> String {
    let bytes = bytes.as_ref();
    format!("{}:{}", bytes.len(), hex::encode(Sha256::digest(bytes)))
}

/// One of this project's golden vectors.
pub(crate) fn fixture(path: &str) -> Result<serde_json::Value> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures").join(path);
    let text = std::fs::read(&file).with_context(|| file.display().to_string())?;
    Ok(serde_json::from_slice(&text)?)
}

/// A file of upstream's own test data, which is not part of this repository.
pub(crate) fn upstream(path: &str) -> Option<String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/vectors").join(path);
    let text = std::fs::read_to_string(&file).ok();
    if text.is_none() {
        eprintln!("skipped: {} is absent", file.display());
    }
    text
}

pub(crate) fn key_of(hex_text: &str) -> [u8; 32] {
    hex::decode(hex_text.trim()).unwrap().try_into().unwrap()
}
