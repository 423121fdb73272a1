//! Text of a peer on the operator's terminal and in one-line messages.

use crate::Target;
use crate::corpus::texts;

pub(crate) const TARGETS: &[Target] = &[Target {
    name: "terminal_escape",
    oracle: "no control or direction characters but LF and TAB; plain text unchanged",
    run: terminal_escape,
    seeds: || {
        texts(&[
            "ok\u{1b}[2Jgone\r\u{7}\u{202e}txt\nnext\tcolumn",
            "\u{1b}]52;c;aGk=\u{7}",
            "\u{9b}31m\u{85}\u{61c}\u{2066}x",
            "plain text, ümläut, 漢字",
        ])
    },
    words: &["\u{1b}[", "\u{9b}", "\u{202e}", "\u{2066}", "\u{200f}", "\u{61c}", "\u{2028}", "\r\n"],
    longest: 1024,
}];

fn terminal_escape(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let shown = choria_host::terminal::harmless(&text);
    for c in shown.chars() {
        let direction = misleads(c);
        assert!(!direction && (!c.is_control() || c == '\n' || c == '\t'), "{c:?} reaches the terminal");
    }
    // Only the characters that it escapes are changed, and nothing is lost.
    let mut rest = shown.as_str();
    for c in text.chars() {
        let escaped = c.escape_unicode().to_string();
        let plain = c.to_string();
        rest = rest
            .strip_prefix(plain.as_str())
            .or_else(|| rest.strip_prefix(escaped.as_str()))
            .unwrap_or_else(|| panic!("{c:?} is missing"));
    }
    assert!(rest.is_empty());

    let line = choria_host::one_line(&text);
    assert!(line.chars().count() <= 256);
    assert!(!line.chars().any(|c| c.is_control() || misleads(c)), "{line:?} is more than one line");
}

/// Line separators and the characters of bidirectional text, as the Unicode standard lists them.
fn misleads(c: char) -> bool {
    let listed = [
        0x61c, 0x200e, 0x200f, 0x2028, 0x2029, 0x202a, 0x202b, 0x202c, 0x202d, 0x202e, 0x2066, 0x2067,
        0x2068, 0x2069,
    ];
    listed.contains(&u32::from(c))
}
