//! The rows of docs/spec/10 §14: which there are, which must hold, and what the tests said of them.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail, ensure};

use crate::step;

/// The packages of the work that are done, servers and microcontrollers: their gate rows must hold, their other rows hold or
/// are listed with the reason.
const SERVERS: &str = "1";
const DEVICES: &str = "2";

/// What the specification asks for.
pub(crate) struct Rows {
    /// All rows of the packages: number, and what the specification says is done.
    wanted: BTreeMap<u16, String>,
    gates: BTreeSet<u16>,
    /// Rows without a proof, with the reason.
    not_yet: BTreeMap<u16, String>,
}

/// What the tests said.
#[derive(Default)]
pub(crate) struct Proofs {
    /// Tried and seen, by row.
    seen: BTreeMap<u16, Vec<(String, String)>>,
    /// Tests with the row's number that failed.
    failed: BTreeMap<u16, Vec<String>>,
    /// The test whose output is being read.
    current: String,
    section: Section,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Section {
    #[default]
    Running,
    Successes,
    Failures,
}

impl Rows {
    pub(crate) fn load() -> Result<Rows> {
        let page = read("docs/spec/10-threat-model.md")?;
        let mut rows = Rows { wanted: BTreeMap::new(), gates: BTreeSet::new(), not_yet: BTreeMap::new() };
        for line in page.lines().filter(|line| line.starts_with('|')) {
            let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
            match cells.as_slice() {
                [SERVERS | DEVICES, gates] if gates.starts_with("T-") => rows.gates.extend(numbers(gates)?),
                [row, given, when, .., SERVERS | DEVICES] => {
                    if let Some(number) = number(row) {
                        rows.wanted.insert(number, format!("{given}: {when}"));
                    }
                }
                _ => {}
            }
        }
        ensure!(!rows.gates.is_empty(), "docs/spec/10 §14: there is no list of gate rows");
        for line in read("tests/rows/not-yet.txt")?.lines().filter(|line| !line.starts_with('#')) {
            let Some((row, reason)) = line.split_once(' ') else { continue };
            let number = number(row).with_context(|| format!("tests/rows/not-yet.txt: '{line}'"))?;
            rows.not_yet.insert(number, reason.trim().to_owned());
        }
        Ok(rows)
    }

    /// What the names of tests that prove a row contain.
    pub(crate) fn test_names(&self) -> Vec<String> {
        self.wanted.keys().chain(&self.gates).map(|number| format!("t_{number:03}_")).collect()
    }

    /// The table, and whether everything that must hold was seen.
    pub(crate) fn verdict(&self, proofs: &Proofs) -> (String, Result<()>) {
        let mut table: Vec<String> = Vec::new();
        let mut wrong = Vec::new();
        let all: BTreeSet<u16> =
            self.wanted.keys().chain(&self.gates).chain(proofs.seen.keys()).copied().collect();
        let (mut proven, mut gates_proven) = (0, 0);
        for number in all {
            let gate = self.gates.contains(&number);
            let mark = if gate { "gate" } else { "" };
            if let Some(tests) = proofs.failed.get(&number) {
                wrong.push(format!("T-{number:03} failed in {}", tests.join(", ")));
                table.push(format!("T-{number:03} {mark:<4} FAILED  {}", tests.join(", ")));
            } else if let Some(seen) = proofs.seen.get(&number) {
                proven += 1;
                gates_proven += usize::from(gate);
                let spec = self.wanted.get(&number).map_or("", String::as_str);
                for (index, (tried, seen)) in seen.iter().enumerate() {
                    let tried = if tried.is_empty() { spec } else { tried };
                    let name = if index == 0 { format!("T-{number:03} {mark:<4}") } else { " ".repeat(10) };
                    table.push(format!("{name} ok  {tried}  =>  {seen}"));
                }
                if self.not_yet.contains_key(&number) {
                    wrong.push(format!("T-{number:03} is proven, but tests/rows/not-yet.txt lists it"));
                }
            } else if gate {
                wrong.push(format!("T-{number:03} is a gate row and no test proves it"));
                table.push(format!("T-{number:03} {mark:<4} MISSING"));
            } else if let Some(reason) = self.not_yet.get(&number) {
                table.push(format!("T-{number:03} {mark:<4} --  not yet: {reason}"));
            } else {
                let what = self.wanted.get(&number).map_or("", String::as_str);
                wrong.push(format!("T-{number:03} has neither a proof nor a reason ({what})"));
            }
        }
        table.push(format!(
            "{proven} rows hold, {gates_proven} of {} gate rows, {} listed as not yet",
            self.gates.len(),
            self.not_yet.len()
        ));
        let verdict = if wrong.is_empty() { Ok(()) } else { Err(anyhow::anyhow!(wrong.join("\n"))) };
        (table.join("\n"), verdict)
    }
}

impl Proofs {
    /// Reads one line of a test run; whether a person wants to see it.
    pub(crate) fn line(&mut self, line: &str) -> bool {
        if line == "successes:" || line == "failures:" {
            self.section = if line == "successes:" { Section::Successes } else { Section::Failures };
        } else if line.starts_with("test result:") {
            self.section = Section::Running;
        } else if let Some(name) =
            line.strip_prefix("---- ").and_then(|line| line.strip_suffix(" stdout ----"))
        {
            name.clone_into(&mut self.current);
        } else if let Some(name) =
            line.strip_prefix("test ").and_then(|line| line.strip_suffix(" ... FAILED"))
        {
            for number in row_numbers(name) {
                self.failed.entry(number).or_default().push(name.to_owned());
            }
        } else if self.section == Section::Successes
            && let Some(said) = line.strip_prefix("row T-")
            && let Some((number, rest)) = said.split_once(" | ")
            && let (Ok(number), Some((tried, seen))) = (number.parse(), rest.split_once(" | "))
            && row_numbers(&self.current).contains(&number)
        {
            self.seen.entry(number).or_default().push((tried.to_owned(), seen.to_owned()));
        }
        self.section != Section::Successes
    }
}

/// The numbers in a test's name: `denials::t_001_t_002_forged_chains` has 1 and 2.
fn row_numbers(name: &str) -> Vec<u16> {
    let words: Vec<&str> = name.split("::").flat_map(|part| part.split('_')).collect();
    let pairs = words.iter().zip(words.iter().skip(1));
    let digits = pairs.filter_map(|(t, digits)| (*t == "t" && digits.len() == 3).then_some(digits));
    digits.filter_map(|digits| digits.parse().ok()).collect()
}

fn read(path: &str) -> Result<String> {
    std::fs::read_to_string(step::root().join(path)).with_context(|| path.to_owned())
}

fn number(cell: &str) -> Option<u16> {
    cell.strip_prefix("T-")?.parse().ok()
}

/// `T-001–003 T-009` is 1, 2, 3 and 9.
fn numbers(text: &str) -> Result<BTreeSet<u16>> {
    let mut numbers = BTreeSet::new();
    for word in text.split_whitespace() {
        let (first, last) = word.trim_start_matches("T-").split_once('–').unwrap_or((word, word));
        let (first, last) = (first.trim_start_matches("T-"), last.trim_start_matches("T-"));
        match (first.parse::<u16>(), last.parse::<u16>()) {
            (Ok(first), Ok(last)) => numbers.extend(first..=last),
            _ => bail!("docs/spec/10 §14: gate rows: '{word}' is no number"),
        }
    }
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_passing_test_said_of_its_own_rows_counts() {
        let mut proofs = Proofs::default();
        for line in [
            "test a::t_001_x ... ok",
            "test a::t_009_y ... FAILED",
            "successes:",
            "---- a::t_001_x stdout ----",
            "row T-001 | a forged chain | AV",
            "row T-009 | somebody else's row | AV",
            "successes:",
            "    a::t_001_x",
            "failures:",
            "---- a::t_009_y stdout ----",
            "row T-009 | none | AV",
            "test result: FAILED. 1 passed; 1 failed",
        ] {
            proofs.line(line);
        }
        assert_eq!(proofs.seen.keys().copied().collect::<Vec<_>>(), [1]);
        assert_eq!(proofs.failed.keys().copied().collect::<Vec<_>>(), [9]);
    }

    #[test]
    fn the_specification_has_127_gate_rows_in_247() {
        let rows = Rows::load().unwrap();
        assert_eq!(rows.gates.len(), 127);
        assert!(rows.gates.contains(&2) && rows.gates.contains(&370));
        assert_eq!(rows.wanted.len(), 247);
    }
}
