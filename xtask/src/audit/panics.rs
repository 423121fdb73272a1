//! Panics that are still called in an image (docs/spec/08 §6.1).

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, bail, ensure};

use super::calls::calls;
use super::names::{is_panic, is_passed_through, path};

/// Code that may call a panic, by the front of its name, and why no input leads there.
const TOLERATED: [(&str, &str); 3] = [
    (
        "core::str::pattern::CharSearcher",
        "the letter it looks for, in UTF-8: at most four bytes of an array of four, made from a constant",
    ),
    (
        "ed25519_compact::",
        "arrays of constant length; its hash keeps fewer than 128 bytes back and takes the rest block by block, so that no \
         index is made of what arrived",
    ),
    (
        "agent_core::ed25519::",
        "ed25519_compact, inlined; that file has no index of its own (clippy::indexing_slicing is denied there)",
    ),
];

/// Fails on a panic that is called from anywhere else; answers how many calls are tolerated.
pub(super) fn check(image: &[u8]) -> Result<usize> {
    judge(&calls(image)?)
}

fn judge(calls: &BTreeMap<String, Vec<String>>) -> Result<usize> {
    let by_path: Vec<(String, Vec<String>)> = calls
        .iter()
        .map(|(caller, called)| (path(caller), called.iter().map(|name| path(name)).collect()))
        .collect();
    // From the panics backwards, through code that only does what its callers ask for.
    let mut ends: BTreeSet<&str> =
        by_path.iter().map(|(name, _)| name.as_str()).filter(|name| is_panic(name)).collect();
    let mut unseen: BTreeSet<&str> = ends.clone();
    let (mut tolerated, mut found) = (BTreeSet::new(), BTreeSet::new());
    loop {
        let before = ends.len();
        for (caller, called) in by_path.iter().filter(|(caller, _)| !is_panic(caller)) {
            for name in called.iter().filter(|name| ends.contains(name.as_str())) {
                unseen.remove(name.as_str());
                if TOLERATED.iter().any(|(front, _)| caller.starts_with(front)) {
                    tolerated.insert((caller, name));
                } else if !is_passed_through(caller) {
                    found.insert(format!("{caller} calls {name}"));
                }
            }
        }
        let through = by_path.iter().filter(|(caller, called)| {
            is_passed_through(caller)
                && !TOLERATED.iter().any(|(front, _)| caller.starts_with(front))
                && called.iter().any(|name| ends.contains(name.as_str()))
        });
        let through: Vec<&str> = through.map(|(caller, _)| caller.as_str()).collect();
        ends.extend(through);
        if ends.len() == before {
            break;
        }
    }
    // What nobody calls is not linked: a panic without a caller means that calls were not understood.
    for (caller, called) in &by_path {
        if is_panic(caller) {
            called.iter().for_each(|name| {
                unseen.remove(name.as_str());
            });
        }
    }
    ensure!(unseen.is_empty(), "no caller found of {unseen:?}: its instructions were not understood");
    if !found.is_empty() {
        bail!("panics that input might reach:\n  {}", found.into_iter().collect::<Vec<_>>().join("\n  "));
    }
    Ok(tolerated.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: &str = "_RNvNtCs1_4core9panicking18panic_bounds_check";
    const SLICE: &str = "_RNvNtNtCs1_4core5slice5index16slice_index_fail";
    const INDEX: &str = "_RNvXs_NtNtCs1_4core5slice5index5index";
    const OURS: &str = "_RNvNtCs2_10agent_core4json5parse";
    const HASH: &str = "_RNvNtCs3_15ed25519_compact6sha5127load_be";

    fn judged(calls: &[(&str, &[&str])]) -> Result<usize> {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        judge(&calls.iter().map(|(caller, called)| ((*caller).to_owned(), owned(called))).collect())
    }

    #[test]
    fn whose_panic_it_is() {
        assert_eq!(judged(&[(OURS, &[HASH]), (HASH, &[BOUNDS]), (BOUNDS, &[])]).unwrap(), 1);
        let direct = judged(&[(OURS, &[BOUNDS]), (BOUNDS, &[])]).unwrap_err().to_string();
        assert!(
            direct.contains("agent_core::json::parse calls core::panicking::panic_bounds_check"),
            "{direct}"
        );
        let through = judged(&[(OURS, &[INDEX]), (INDEX, &[SLICE]), (SLICE, &[BOUNDS]), (BOUNDS, &[])]);
        assert!(
            through.unwrap_err().to_string().contains("agent_core::json::parse calls core::slice::index")
        );
        let unread = judged(&[(OURS, &[]), (BOUNDS, &[])]).unwrap_err().to_string();
        assert!(unread.contains("not understood"), "{unread}");
    }
}
