//! Words that shipped firmware may not hold: what a panic would say, where its source is, and secrets.

use anyhow::{Result, bail, ensure};

use crate::image::elf;

/// What the library says in a panic, and what only a build machine knows.
const WORDS: [&str; 12] = [
    "panicked at",
    "called `Option::unwrap",
    "called `Result::unwrap",
    "index out of bounds",
    "out of range for slice",
    "attempt to ",
    "assertion `left",
    "assertion failed",
    "/rustc/",
    "/.cargo/",
    "/home/",
    "/root/",
];
/// What begins a key or a token.
const SECRETS: [&str; 2] = ["-----BEGIN", "eyJ"];
const BAKED: &str = ".baked";
/// Letters behind `eyJ` before it is a token.
const TOKEN: usize = 16;

/// Fails on a word that may not be there. The personalised section is not looked at: it holds a token by design.
pub(super) fn check(image: &[u8]) -> Result<()> {
    let baked = elf::section(image, BAKED).map(|(offset, size, _)| offset..offset.saturating_add(size)).ok();
    for section in elf::sections(image)? {
        ensure!(
            !section.name.starts_with(".defmt"),
            "section {}: the firmware logs to a debugger",
            section.name
        );
        if section.is_loaded() && section.name != BAKED {
            words(section.bytes)?;
        }
    }
    let symbols = b"_SEGGER_RTT\0";
    ensure!(
        !image.windows(symbols.len()).any(|bytes| bytes == symbols),
        "the firmware has a channel to a debugger (RTT)"
    );
    if let Some(section) = baked.and_then(|range| image.get(range)) {
        let is_blank = section.iter().all(|byte| *byte == 0xff);
        ensure!(
            is_blank || section.starts_with(b"CHOR"),
            "section {BAKED} is neither blank nor personalised"
        );
    }
    Ok(())
}

fn words(bytes: &[u8]) -> Result<()> {
    for text in printable(bytes) {
        if let Some((word, (_, after))) = WORDS.iter().find_map(|word| Some((word, text.split_once(word)?))) {
            bail!("'{word}', then '{}'", after.chars().take(40).collect::<String>());
        }
        for (at, _) in text.match_indices(".rs") {
            let path = text.get(..at).unwrap_or_default();
            let name = path.rsplit(|c: char| !c.is_ascii_alphanumeric() && !"/\\_-.".contains(c)).next();
            let name = name.unwrap_or_default();
            ensure!(name.len() < 3, "the path of a source: '{name}.rs'");
        }
        for secret in SECRETS {
            for (at, _) in text.match_indices(secret) {
                let rest = text.get(at + secret.len()..).unwrap_or_default();
                let letters =
                    rest.bytes().take_while(|b| b.is_ascii_alphanumeric() || b"-_".contains(b)).count();
                ensure!(secret != "eyJ" || letters < TOKEN, "a token");
                ensure!(secret == "eyJ", "'{secret}': a key or a certificate");
            }
        }
    }
    Ok(())
}

/// Stretches of six or more printable characters.
fn printable(bytes: &[u8]) -> impl Iterator<Item = &str> {
    let parts = bytes.split(|byte| !(0x20..0x7f).contains(byte)).filter(|part| part.len() >= 6);
    parts.filter_map(|part| std::str::from_utf8(part).ok())
}

#[cfg(test)]
mod tests {
    use super::words;

    #[test]
    fn what_may_not_be_there() {
        for (text, reason) in [
            ("\0\0src/main.rs\0", "the path of a source"),
            ("x.rs src/main.rs", "the path of a source"),
            ("eyJ no eyJhbGciOiJFZERTQSIsInR5cCI6", "a token"),
            ("x agent-core/src/json/text.rslibrary/core", "the path of a source"),
            ("\u{1}index out of bounds: the len is \0", "index out of bounds"),
            ("\0eyJhbGciOiJFZERTQSJ9.e30.c2ln\0", "a token"),
            ("\0-----BEGIN PRIVATE KEY-----\0", "-----BEGIN"),
            ("\0/root/.cargo/registry\0", "/.cargo/"),
        ] {
            let said = words(text.as_bytes()).unwrap_err().to_string();
            assert!(said.contains(reason), "{text:?}: {said}");
        }
        for text in ["\0eyJ is no token\0", "\0users\0x.rs\0", "\0the certificate is not pinned\0"] {
            assert!(words(text.as_bytes()).is_ok(), "{text:?}");
        }
    }
}
