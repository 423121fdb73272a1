//! Text of a peer in a sentence of ours: bounded, and on one line, so that it cannot pass for more than one
//! (docs/spec/10 §10).

use crate::terminal::misleads;

/// Characters that are kept.
const LONGEST: usize = 256;

/// The text without white space around it, control and direction characters as spaces, at most 256 characters.
pub fn one_line(text: &str) -> String {
    text.trim().chars().take(LONGEST).map(|c| if c.is_control() || misleads(c) { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::one_line;

    #[test]
    fn one_line_and_no_more() {
        assert_eq!(one_line("  no\nlevel=info \u{1b}[2J\r\n"), "no level=info  [2J");
        assert_eq!(one_line("a\u{2028}b\u{202e}c"), "a b c");
        assert_eq!(one_line(&"é".repeat(1000)).chars().count(), 256);
    }
}
