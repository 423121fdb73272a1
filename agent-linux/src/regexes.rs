//! Regular expressions of callers and policies, bounded (docs/spec/10 N13).

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use agent_core::filter::Matcher;
use regex::Regex;

/// Largest pattern and largest compiled form, bytes.
const REGEX: usize = 64 * 1024;
/// After this no further pattern of the same filter is begun.
const FILTER_TIME: Duration = Duration::from_millis(50);
/// Patterns of a filter that are evaluated however busy the machine is.
const ALWAYS: u32 = 4;

/// RE2 syntax in time linear in the text; large patterns are refused.
#[derive(Debug, Clone, Copy)]
pub struct Regexes;

fn compiled(pattern: &str, ignore_case: bool) -> Option<Regex> {
    if pattern.len() > REGEX {
        return None;
    }
    regex::RegexBuilder::new(pattern)
        .case_insensitive(ignore_case)
        .size_limit(REGEX)
        .dfa_size_limit(REGEX)
        .nest_limit(64)
        .build()
        .ok()
}

impl Matcher for Regexes {
    const SUPPORTED: bool = true;

    fn matches(&self, pattern: &str, ignore_case: bool, text: &str) -> Option<bool> {
        Some(compiled(pattern, ignore_case)?.is_match(text))
    }
}

/// The patterns of one filter: thousands of small ones take no more time than one large one. What is not evaluated does
/// not match.
#[derive(Debug)]
pub(crate) struct OfOneFilter {
    begun: Instant,
    patterns: Cell<u32>,
    /// The last one: a pattern is held against every class.
    last: RefCell<Option<(String, bool, Option<Regex>)>>,
}

impl Default for OfOneFilter {
    fn default() -> Self {
        OfOneFilter { begun: Instant::now(), patterns: Cell::new(0), last: RefCell::new(None) }
    }
}

impl Matcher for OfOneFilter {
    const SUPPORTED: bool = true;

    fn matches(&self, pattern: &str, ignore_case: bool, text: &str) -> Option<bool> {
        let mut last = self.last.borrow_mut();
        let regex = match &*last {
            Some((known, case, regex)) if known == pattern && *case == ignore_case => regex,
            _ => {
                self.patterns.set(self.patterns.get().saturating_add(1));
                if self.patterns.get() > ALWAYS && self.begun.elapsed() >= FILTER_TIME {
                    return None;
                }
                let regex = compiled(pattern, ignore_case);
                &last.insert((pattern.to_owned(), ignore_case, regex)).2
            }
        };
        Some(regex.as_ref()?.is_match(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t_253_the_patterns_of_a_filter_share_its_time() {
        let filter = OfOneFilter::default();
        assert_eq!(filter.matches("^web", false, "web1"), Some(true));
        assert_eq!(filter.matches("^web", true, "WEB1"), Some(true));
        assert_eq!(filter.matches("^web", false, "WEB1"), Some(false));
        let started = std::time::Instant::now();
        let evaluated = (0..100_000)
            .filter(|n| filter.matches(&format!("^(x{n}|[y-z]{{1,200}})$"), false, "n1").is_some())
            .count();
        let took = started.elapsed();
        assert!(evaluated < 100_000, "no end");
        assert_eq!(filter.matches("^web", false, "web1"), None, "its time is over");
        assert!(took < std::time::Duration::from_secs(5), "{took:?}");
        choria_rows::row(
            253,
            "100 000 patterns in one filter",
            format!("{evaluated} evaluated, the rest match nothing, {took:?} (unoptimised)"),
        );
    }

    #[test]
    fn patterns_are_bounded() {
        let started = std::time::Instant::now();
        assert_eq!(Regexes.matches(r"web\d+\.\w+", false, "web12.example"), Some(true));
        assert_eq!(Regexes.matches("WEB", true, "web1"), Some(true));
        assert_eq!(Regexes.matches("WEB", false, "web1"), Some(false));
        assert_eq!(Regexes.matches("(a{1,1000}){1,1000}", false, "aaa"), None);
        assert_eq!(Regexes.matches(&"(".repeat(5000), false, "a"), None);
        assert_eq!(Regexes.matches(&"(".repeat(1000), false, "a"), None);
        assert_eq!(Regexes.matches("(?=x)", false, "x"), None);
        assert!(started.elapsed() < std::time::Duration::from_secs(5));
    }
}
