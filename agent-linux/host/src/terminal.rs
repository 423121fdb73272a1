//! Text of a peer for a person's eyes (docs/spec/10 C6).

/// Characters that show nothing and break the line, or turn the direction of what follows: a name with one reads as another.
pub(crate) fn misleads(c: char) -> bool {
    matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{61c}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The text with control characters, escape sequences and direction marks shown, not obeyed; line feeds and tabs stay.
pub fn harmless(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\t' => out.push(c),
            _ if c.is_control() || misleads(c) => out.extend(c.escape_unicode()),
            _ => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::harmless;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn plain_text_is_unchanged(text in "[ -~äöü漢字\\n\\t]{0,60}") {
            prop_assert_eq!(harmless(&text), text);
        }
    }
}
