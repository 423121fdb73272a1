//! What `cargo test` does with a target: every seed, every kept input, and changed copies of both.

use std::fmt;
use std::time::{Duration, Instant};

use crate::Target;
use crate::corpus::kept;
use crate::pieces::Choices;

/// What a replay did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Replayed {
    pub seeds: usize,
    pub kept: usize,
    pub changed: usize,
}

impl fmt::Display for Replayed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} seeds, {} kept inputs, {} changed", self.seeds, self.kept, self.changed)
    }
}

/// Runs a target over its seeds, its kept inputs and `changes` changed copies of them, the same ones each time; a slow target
/// does fewer of those when `enough` has passed.
///
/// # Panics
/// When the target's oracle does not hold.
///
/// # Errors
/// Kept inputs that cannot be read.
pub fn replay(target: &Target, changes: usize, enough: Duration) -> std::io::Result<Replayed> {
    let started = Instant::now();
    let mut inputs = (target.seeds)();
    let seeds = inputs.len();
    inputs.extend(kept(target.name)?.into_iter().map(|(_, input)| input));
    for input in &inputs {
        (target.run)(input);
    }
    (target.run)(b"");
    let mut choices = Choices::of(target.name.as_bytes());
    let mut changed = 0;
    while changed < changes && started.elapsed() < enough {
        changed += 1;
        let mut input = inputs[choices.below(inputs.len())].clone();
        for _ in 0..=choices.below(4) {
            change(&mut input, target, &inputs, &mut choices);
        }
        input.truncate(target.longest);
        (target.run)(&input);
    }
    Ok(Replayed { seeds, kept: inputs.len() - seeds, changed })
}

/// One change of the kinds that fuzzers make.
fn change(input: &mut Vec<u8>, target: &Target, inputs: &[Vec<u8>], choices: &mut Choices) {
    let at = choices.below(input.len() + 1);
    let interesting = [0, 1, b'"', b'\\', b'\n', b'{', b'[', b'.', 0x7f, 0x80, 0xff];
    match choices.below(7) {
        0 if at < input.len() => input[at] ^= 1 << choices.below(8),
        1 if at < input.len() => input[at] = interesting[choices.below(interesting.len())],
        2 => input.insert(at, interesting[choices.below(interesting.len())]),
        3 if at < input.len() => {
            let end = (at + 1 + choices.below(8)).min(input.len());
            input.drain(at..end);
        }
        4 if !target.words.is_empty() => {
            let word = target.words[choices.below(target.words.len())];
            input.splice(at..at, word.bytes());
        }
        5 => {
            // The end of another input.
            let other = &inputs[choices.below(inputs.len())];
            input.truncate(at);
            input.extend_from_slice(&other[choices.below(other.len() + 1)..]);
        }
        _ => {
            let end = (at + choices.below(32)).min(input.len());
            let copy = input[at..end].to_vec();
            input.splice(at..at, copy);
        }
    }
}
