//! Every target over its corpus and a few thousand changed inputs, with the project's own compiler and checks.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may fail")]

use std::time::Duration;

use choria_fuzz::replay::replay;
use choria_fuzz::targets;

/// Changed inputs per target, and the time after which a slow target has had enough of them.
const CHANGES: usize = 3000;
const ENOUGH: Duration = Duration::from_secs(4);

#[test]
fn t_374_no_target_breaks_on_its_corpus_or_near_it() {
    let mut said = Vec::new();
    for target in targets() {
        println!("{}: {}", target.name, target.oracle);
        let replayed = replay(target, CHANGES, ENOUGH).expect("the corpus can be read");
        assert!(replayed.seeds > 0, "{} has no corpus", target.name);
        said.push(format!("{}: {replayed}", target.name));
    }
    assert!(said.len() >= 38, "{} targets", said.len());
    choria_rows::row(374, "every fuzz target over corpus, kept findings and changed inputs", said.join("; "));
}

#[test]
fn names_are_distinct_and_words_are_words() {
    let mut names: Vec<&str> = targets().map(|target| target.name).collect();
    names.sort_unstable();
    let all = names.len();
    names.dedup();
    assert_eq!(names.len(), all);
    for target in targets() {
        assert!(target.longest > 0 && !target.oracle.is_empty());
        assert!(target.words.iter().all(|word| !word.is_empty() && word.len() < 128), "{}", target.name);
    }
}
