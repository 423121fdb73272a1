//! The names that tokens carry into subjects and policies, docs/spec/10 K9 and docs/spec/00-decisions D19. Issuers
//! check them before signing, brokers again before believing.

/// Subjects longer than this are refused (docs/spec/10 §9).
const MAX_SUBJECT: usize = 1024;
/// Subjects of more tokens than this are refused (docs/spec/10 §9).
const MAX_SUBJECT_TOKENS: usize = 32;

/// A server's identity: labels of a host name (RFC 1123) joined by dots, 255 bytes at most.
pub fn valid_identity(name: &str) -> bool {
    (1..=255).contains(&name.len())
        && name.split('.').all(|label| {
            let bytes = label.as_bytes();
            let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
            bytes.len() <= 63
                && edge(bytes.first())
                && edge(bytes.last())
                && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')
        })
}

/// A collective (sub collective): 1 to 64 of `A-Z a-z 0-9 _ -`.
pub fn valid_collective(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

/// An organization (`ou`): as a collective.
pub fn valid_org(name: &str) -> bool {
    valid_collective(name)
}

/// A caller id: an optional kind (`up=`), then 1 to 255 bytes without control characters, spaces, `*`, `>` and `=`.
pub fn valid_caller_id(id: &str) -> bool {
    let name = match id.split_once('=') {
        None => id,
        Some((kind, name)) => {
            let mut bytes = kind.bytes();
            if !bytes.next().is_some_and(|b| b.is_ascii_lowercase())
                || !bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
            {
                return false;
            }
            name
        }
    };
    (1..=255).contains(&name.len())
        && !name.chars().any(|c| c <= ' ' || matches!(c, '\x7f' | '*' | '>' | '='))
}

/// A NATS subject, wildcards allowed as whole tokens: no empty token, no white space or control character, `>` only at
/// the end, at most 1 KiB and 32 tokens.
pub fn valid_subject(subject: &str) -> bool {
    if subject.is_empty() || subject.len() > MAX_SUBJECT || subject.split('.').count() > MAX_SUBJECT_TOKENS {
        return false;
    }
    let mut tokens = subject.split('.').peekable();
    while let Some(token) = tokens.next() {
        let wildcard = token == "*" || token == ">";
        if token.is_empty()
            || (token == ">" && tokens.peek().is_some())
            || (!wildcard && token.contains(['*', '>']))
            || token.chars().any(|c| c.is_whitespace() || c.is_control())
        {
            return false;
        }
    }
    true
}

/// Subjects that a token may not add to a connection's rights: the system account, the engine's own reply subjects,
/// what creates, changes or removes streams, and the wildcard for everything.
pub fn reserved_subject(subject: &str) -> bool {
    let mut tokens = subject.split('.');
    match tokens.next() {
        Some(">" | "$SYS" | "_R_" | "_GR_" | "$GR" | "$GNR" | "$NRG" | "$LDS" | "$SYSTEM") => true,
        // `*` may stand for any of these heads.
        Some("*") => {
            matches!(tokens.next(), Some(">" | "*" | "API" | "EVENT" | "REQ" | "SERVER" | "ACCOUNT"))
        }
        Some("$JS") => match tokens.next() {
            None | Some(">" | "*" | "EVENT") => true,
            Some("API") => match tokens.next() {
                None | Some(">" | "*" | "SERVER" | "META" | "ACCOUNT") => true,
                Some("STREAM") => !matches!(tokens.next(), Some("INFO" | "NAMES" | "LIST" | "MSG")),
                Some(_) => false,
            },
            Some(_) => false,
        },
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities() {
        let long = format!("{}.{}.{}.{}", "a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(63));
        assert_eq!(long.len(), 255);
        for good in ["n1.example.net", "n", "1", "a-b.c", "N1.Example.Net", &long] {
            assert!(valid_identity(good), "{good}");
        }
        for bad in [
            "",
            "*",
            "a.>",
            "a b",
            ".a",
            "a.",
            "a..b",
            "-a",
            "a-",
            "a_b",
            "a\nb",
            &"a".repeat(64),
            &"é".repeat(2),
        ] {
            assert!(!valid_identity(bad), "{bad:?}");
        }
        assert!(!valid_identity(&format!("{long}e")));
    }

    #[test]
    fn collectives() {
        for good in ["choria", "mcollective", "a_b-C9"] {
            assert!(valid_collective(good), "{good}");
        }
        for bad in ["", "*", "a.b", ">", "$JS", "a b", &"a".repeat(65)] {
            assert!(!valid_collective(bad), "{bad:?}");
        }
    }

    #[test]
    fn caller_ids_with_and_without_a_kind() {
        for good in ["choria", "provisioner_signer", "up=alice", "oidc=bob@example.net", "x509=a.b-c", "up=é"]
        {
            assert!(valid_caller_id(good), "{good}");
        }
        for bad in
            ["", "up=", "=x", "Up=x", "1p=x", "up=a=b", "a b", "up=*", "up=a.>", "a\r\nb", "a\0", "a\x7f"]
        {
            assert!(!valid_caller_id(bad), "{bad:?}");
        }
        assert!(!valid_caller_id(&"a".repeat(256)));
    }

    #[test]
    fn subjects() {
        for good in ["a", "a.b", "a.*.b", "a.>", ">", "*", "$KV.B.>"] {
            assert!(valid_subject(good), "{good}");
        }
        for bad in ["", ".", "a.", ".a", "a..b", "foo bar", "a.>.b", "a*", "a.b>", "a\tb", "a\r\nPUB x"] {
            assert!(!valid_subject(bad), "{bad:?}");
        }
        assert!(!valid_subject(&vec!["a"; 33].join(".")));
    }

    #[test]
    fn reserved_heads() {
        for bad in [
            ">",
            "$SYS.>",
            "$SYS.REQ.SERVER.PING",
            "$JS.>",
            "$JS.API.>",
            "$JS.API.STREAM.CREATE.X",
            "$JS.*.X",
            "_R_.x",
        ] {
            assert!(reserved_subject(bad), "{bad}");
        }
        for good in
            ["site.>", "$KV.B.>", "$JS.API.STREAM.INFO.X", "$JS.ACK.>", "$JS.API.CONSUMER.MSG.NEXT.A.B"]
        {
            assert!(!reserved_subject(good), "{good}");
        }
    }
}
