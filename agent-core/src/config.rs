//! Configuration as lines of `key = value` (`docs/spec/03 §14.1`).
//!
//! Lines are trimmed of ASCII white space; blank lines, lines beginning with `#` and lines without a key or a value are passed over. The first
//! `=` splits. No quotes, no comments behind a value, no sections. The last line of a key wins.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use crate::json::integer;

/// A configuration text. Not shown by `Debug`, like its lines' values: it may hold passwords.
#[derive(Clone, Copy)]
pub struct Config<'a> {
    text: &'a str,
}

/// A line that says something.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Line<'a> {
    /// Counted from one.
    pub number: usize,
    pub key: &'a str,
    pub value: &'a str,
}

impl<'a> Config<'a> {
    pub fn new(text: &'a str) -> Config<'a> {
        Config { text }
    }

    /// The lines that say something, in order.
    pub fn lines(&self) -> impl Iterator<Item = Line<'a>> + use<'a> {
        (1_usize..).zip(self.text.lines()).filter_map(|(number, line)| {
            let line = line.trim_ascii();
            let (key, value) = line.split_once('=')?;
            let (key, value) = (key.trim_ascii_end(), value.trim_ascii_start());
            let says = !line.starts_with('#') && !key.is_empty() && !value.is_empty();
            says.then_some(Line { number, key, value })
        })
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&'a str> {
        self.lines().filter(|line| line.key == key).last().map(|line| line.value)
    }

    /// A boolean; anything that is neither yes nor no is no.
    pub fn bool(&self, key: &str, default: bool) -> bool {
        const YES: [&str; 5] = ["1", "yes", "true", "y", "t"];
        match self.get(key) {
            Some(value) => YES.iter().any(|yes| yes.eq_ignore_ascii_case(value)),
            None => default,
        }
    }

    /// A decimal number; a bad one leaves the default.
    pub fn int(&self, key: &str, default: i64) -> i64 {
        self.get(key).and_then(integer).unwrap_or(default)
    }

    /// The parts of a comma separated value, trimmed, without empty ones.
    pub fn list(&self, key: &str) -> impl Iterator<Item = &'a str> + use<'a> {
        self.get(key).unwrap_or_default().split(',').map(str::trim_ascii).filter(|part| !part.is_empty())
    }

    /// The keys that begin with `prefix`, without it, and their values; a repeated key comes repeatedly.
    pub fn with_prefix<'p>(&self, prefix: &'p str) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a, 'p> {
        self.lines().filter_map(move |line| Some((line.key.strip_prefix(prefix)?, line.value)))
    }
}

impl core::fmt::Debug for Config<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Config").field("bytes", &self.text.len()).finish_non_exhaustive()
    }
}

impl core::fmt::Debug for Line<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Line").field("number", &self.number).field("key", &self.key).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::{Config, Line};
    use std::vec::Vec;

    const TEXT: &str = "# a comment\n identity = n1.example.net \nlist=a, b ,,c\n\nnovalue =\n= nokey\njunk\n\
        plugin.x.url = https://h/?a=b#c\r\nflag = Yes\nidentity = n2\nbad = x1\nquoted = \"q\"";

    #[test]
    fn lines_follow_the_users_manual() {
        let config = Config::new(TEXT);
        assert_eq!(config.get("identity"), Some("n2"));
        assert_eq!(config.get("novalue"), None);
        assert_eq!(config.get("plugin.x.url"), Some("https://h/?a=b#c"));
        assert_eq!(config.get("quoted"), Some("\"q\""));
        assert_eq!(config.get("Identity"), None);
        assert!(config.bool("flag", false) && config.bool("absent", true) && !config.bool("bad", true));
        assert_eq!(config.int("bad", 7), 7);
        assert_eq!(config.list("list").collect::<Vec<_>>(), ["a", "b", "c"]);
        assert_eq!(config.with_prefix("plugin.").next(), Some(("x.url", "https://h/?a=b#c")));
        assert_eq!(config.lines().next(), Some(Line { number: 2, key: "identity", value: "n1.example.net" }));
    }
}
