//! Regular expressions of callers and policies, bounded (docs/spec/10 N13).

use agent_core::filter::Matcher;

/// Largest pattern and largest compiled form, bytes.
const REGEX: usize = 64 * 1024;

/// RE2 syntax in time linear in the text; large patterns are refused.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Regexes;

impl Matcher for Regexes {
    const SUPPORTED: bool = true;

    fn matches(&self, pattern: &str, ignore_case: bool, text: &str) -> Option<bool> {
        if pattern.len() > REGEX {
            return None;
        }
        let regex = regex::RegexBuilder::new(pattern)
            .case_insensitive(ignore_case)
            .size_limit(REGEX)
            .dfa_size_limit(REGEX)
            .nest_limit(64)
            .build()
            .ok()?;
        Some(regex.is_match(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
