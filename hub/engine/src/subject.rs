//! Subjects and subject patterns as bytes: validity, matching, containment, intersection.
//! Rules: `docs/spec/09 §A6`. Tokens are split on `.`; `*` and `>` are wildcards only as whole tokens.

/// Whether `subject` may be subscribed to: no empty token, `>` only last, no space, tab, CR, LF or FF.
pub fn valid_pattern(subject: &[u8]) -> bool {
    if subject.is_empty() {
        return false;
    }
    let mut tokens = subject.split(|b| *b == b'.').peekable();
    while let Some(token) = tokens.next() {
        if token.is_empty() || (token == b">" && tokens.peek().is_some()) {
            return false;
        }
        if token.iter().any(|b| matches!(b, b' ' | b'\t' | b'\r' | b'\n' | 0x0c)) {
            return false;
        }
    }
    true
}

/// Whether `subject` is a valid pattern without wildcard tokens.
pub fn valid_literal(subject: &[u8]) -> bool {
    valid_pattern(subject) && !has_wildcard(subject)
}

/// Whether `subject` stays one word for whoever reads it as text: UTF-8 without white space or control characters. The
/// protocol's own separators are not enough: clients close a connection over bytes that are no text, and some split at
/// more kinds of white space than we do.
pub fn is_word(subject: &[u8]) -> bool {
    subject.iter().all(u8::is_ascii_graphic)
        || std::str::from_utf8(subject)
            .is_ok_and(|text| !text.chars().any(|c| c.is_control() || c.is_whitespace()))
}

/// Whether any whole token of `subject` is `*` or `>`.
pub fn has_wildcard(subject: &[u8]) -> bool {
    // Most subjects hold neither byte; only the rest is split into tokens.
    memchr::memchr2(b'*', b'>', subject).is_some()
        && subject.split(|b| *b == b'.').any(|token| token == b"*" || token == b">")
}

/// Whether a published `subject` is matched by `pattern`. Wildcard tokens in `subject` are plain text here.
pub fn matches(pattern: &[u8], subject: &[u8]) -> bool {
    let mut subject_tokens = subject.split(|b| *b == b'.');
    for token in pattern.split(|b| *b == b'.') {
        match subject_tokens.next() {
            None => return false,
            Some(_) if token == b">" => return true,
            Some(other) if token == b"*" || token == other => {}
            Some(_) => return false,
        }
    }
    subject_tokens.next().is_none()
}

/// Whether every subject that `inner` can match is also matched by `outer`.
pub fn covers(outer: &[u8], inner: &[u8]) -> bool {
    let mut inner_tokens = inner.split(|b| *b == b'.');
    for token in outer.split(|b| *b == b'.') {
        match inner_tokens.next() {
            None => return false,
            Some(_) if token == b">" => return true,
            Some(b">") => return false,
            Some(_) if token == b"*" => {}
            Some(other) if token == other => {}
            Some(_) => return false,
        }
    }
    inner_tokens.next().is_none()
}

/// The pattern that matches exactly what both `a` and `b` match, if there is such a subject.
pub fn intersection(a: &[u8], b: &[u8]) -> Option<Vec<u8>> {
    let mut result = Vec::with_capacity(a.len().max(b.len()));
    let mut left = a.split(|byte| *byte == b'.');
    let mut right = b.split(|byte| *byte == b'.');
    loop {
        match (left.next(), right.next()) {
            (None, None) => return Some(result),
            (None, _) | (_, None) => return None,
            (Some(b">"), Some(token)) => {
                push_token(&mut result, token);
                right.for_each(|rest| push_token(&mut result, rest));
                return Some(result);
            }
            (Some(token), Some(b">")) => {
                push_token(&mut result, token);
                left.for_each(|rest| push_token(&mut result, rest));
                return Some(result);
            }
            (Some(b"*"), Some(token)) => push_token(&mut result, token),
            (Some(token), Some(b"*")) => push_token(&mut result, token),
            (Some(x), Some(y)) if x == y => push_token(&mut result, x),
            _ => return None,
        }
    }
}

/// Whether some subject is matched by both patterns.
pub fn overlaps(a: &[u8], b: &[u8]) -> bool {
    let mut left = a.split(|byte| *byte == b'.');
    let mut right = b.split(|byte| *byte == b'.');
    loop {
        match (left.next(), right.next()) {
            (None, None) => return true,
            (None, _) | (_, None) => return false,
            (Some(b">"), Some(_)) | (Some(_), Some(b">")) => return true,
            (Some(x), Some(y)) if x == y || x == b"*" || y == b"*" => {}
            _ => return false,
        }
    }
}

/// Rewrites `subject`, which `from` matches, into the shape of `to`: the tokens caught by the wildcards of
/// `from` fill the wildcards of `to` in order.
pub fn rewrite(from: &[u8], to: &[u8], subject: &[u8]) -> Vec<u8> {
    let mut caught = Vec::new();
    let mut tail: &[u8] = b"";
    let mut offset = 0usize;
    let mut tokens = subject.split(|b| *b == b'.');
    for token in from.split(|b| *b == b'.') {
        if token == b">" {
            tail = subject.get(offset..).unwrap_or_default();
            break;
        }
        let Some(text) = tokens.next() else { break };
        offset += text.len() + 1;
        if token == b"*" {
            caught.push(text);
        }
    }
    let mut caught = caught.into_iter();
    let mut result = Vec::with_capacity(to.len() + subject.len());
    for token in to.split(|b| *b == b'.') {
        match token {
            b">" => push_token(&mut result, tail),
            b"*" => push_token(&mut result, caught.next().unwrap_or_default()),
            literal => push_token(&mut result, literal),
        }
    }
    result
}

/// The wildcard tokens of a pattern in order: two patterns with the same shape can be rewritten into each other.
pub(crate) fn wildcard_shape(pattern: &[u8]) -> Vec<u8> {
    pattern.split(|b| *b == b'.').filter(|t| *t == b"*" || *t == b">").flatten().copied().collect()
}

fn push_token(result: &mut Vec<u8>, token: &[u8]) {
    if !result.is_empty() {
        result.push(b'.');
    }
    result.extend_from_slice(token);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_text_without_gaps() {
        for word in ["", "a.b", "a..b", "*.>", "$SYS.x", "gr\u{fc}n.\u{1f600}"] {
            assert!(is_word(word.as_bytes()), "{word}");
        }
        let gaps = ["a b", "a\rb", "a\u{1b}b", "a\u{7f}", "a\u{85}b", "a\u{a0}b", "a\u{2003}b", "a\0"];
        assert!(gaps.iter().all(|text| !is_word(text.as_bytes())));
        assert!(!is_word(b"a.\xff") && !is_word(b"\xc3"));
    }
    use proptest::prelude::*;

    #[test]
    fn validity_follows_the_table() {
        for good in ["a", "a.b", "*", ">", "a.*.>", "foo*", "f>o", "a.b*c", "$SYS.x"] {
            assert!(valid_pattern(good.as_bytes()), "{good}");
        }
        for bad in ["", ".", "a.", ".a", "a..b", ">.a", "a b", "a\tb", "a\r", "a.>.b"] {
            assert!(!valid_pattern(bad.as_bytes()), "{bad:?}");
        }
        assert!(!has_wildcard(b"foo*.f>o"));
        assert!(has_wildcard(b"foo.*"));
    }

    #[test]
    fn greater_than_needs_at_least_one_token() {
        assert!(!matches(b"a.>", b"a"));
        assert!(matches(b"a.>", b"a.b.c"));
        assert!(matches(b">", b"a"));
    }

    #[test]
    fn a_wider_wildcard_is_not_covered() {
        assert!(covers(b"*.reply.h.>", b"choria.reply.h.>"));
        assert!(covers(b"*.reply.h.>", b"*.reply.h.x"));
        assert!(!covers(b"choria.reply.h.>", b"*.reply.h.>"));
        assert!(!covers(b"a.*", b"a.>"));
        assert!(!covers(b"a.>", b"a"));
        assert!(covers(b">", b">"));
    }

    #[test]
    fn intersections_are_exact() {
        let both = |a: &str, b: &str| {
            intersection(a.as_bytes(), b.as_bytes()).map(|v| String::from_utf8_lossy(&v).into_owned())
        };
        assert_eq!(both("a.>", "a.*.c").as_deref(), Some("a.*.c"));
        assert_eq!(both("e.*.up", "e.one.*").as_deref(), Some("e.one.up"));
        assert_eq!(both("a", "b"), None);
        assert_eq!(both("a.>", "a"), None);
        assert_eq!(both(">", ">").as_deref(), Some(">"));
    }

    #[test]
    fn rewriting_fills_wildcards_in_order() {
        assert_eq!(rewrite(b"in.*.*.>", b"out.>", b"in.a.b.c.d"), b"out.c.d");
        assert_eq!(rewrite(b"in.*.*", b"*.x.*", b"in.a.b"), b"a.x.b");
        assert_eq!(rewrite(b"fixed", b"other.name", b"fixed"), b"other.name");
    }

    fn token() -> impl Strategy<Value = &'static str> {
        prop_oneof![Just("a"), Just("b"), Just("*"), Just("c")]
    }

    prop_compose! {
        fn pattern()(tokens in prop::collection::vec(token(), 1..5), tail in any::<bool>()) -> String {
            let mut text = tokens.join(".");
            if tail { text.push_str(".>"); }
            text
        }
    }

    prop_compose! {
        fn literal()(tokens in prop::collection::vec(prop_oneof![Just("a"), Just("b"), Just("c")], 1..6)) -> String {
            tokens.join(".")
        }
    }

    proptest! {
        #[test]
        fn containment_agrees_with_matching(outer in pattern(), inner in pattern(), subject in literal()) {
            let (o, i, s) = (outer.as_bytes(), inner.as_bytes(), subject.as_bytes());
            if covers(o, i) && matches(i, s) {
                prop_assert!(matches(o, s));
            }
            let both = matches(o, s) && matches(i, s);
            if both {
                prop_assert!(overlaps(o, i));
            }
            match intersection(o, i) {
                Some(common) => prop_assert_eq!(matches(&common, s), both),
                None => prop_assert!(!both),
            }
            prop_assert_eq!(overlaps(o, i), intersection(o, i).is_some());
        }
    }
}
