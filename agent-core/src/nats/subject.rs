//! What may stand in a subject (`docs/spec/10` E8).

/// Longest subject we emit or accept.
pub const MAX_SUBJECT: usize = 1024;

/// One token: no dot, wildcard, blank or control byte.
#[must_use]
pub fn is_token(text: &str) -> bool {
    !text.is_empty() && !text.contains('.') && is_literal(text)
}

/// A subject without wildcards: tokens joined by dots, none empty.
#[must_use]
pub fn is_literal(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= MAX_SUBJECT
        && text.bytes().all(|byte| byte > b' ' && byte != 0x7f && byte != b'*' && byte != b'>')
        && text.split('.').all(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literal_subjects() {
        for good in ["a", "choria.node.n1.example.net", "$JS.API", "ü.x"] {
            assert!(is_literal(good), "{good}");
        }
        for bad in ["", ".", "a.", ".a", "a..b", "a b", "a\r\nPUB x", "a.*", "a.>", "a\t", "a\u{7f}"] {
            assert!(!is_literal(bad), "{bad}");
        }
        assert!(is_token("choria") && !is_token("a.b"));
    }
}
