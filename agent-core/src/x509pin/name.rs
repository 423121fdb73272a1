//! Whether a certificate is for the host that we dialled (RFC 6125, without the parts that went wrong).

/// Whom we want to talk to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerName<'n> {
    Dns(&'n str),
    Ip([u8; 4]),
}

impl ServerName<'_> {
    /// Whether one name of the certificate is this one. `tag` is that of a GeneralName.
    pub(super) fn is(&self, tag: u8, content: &[u8]) -> bool {
        match (self, tag) {
            (ServerName::Dns(wanted), 0x82) => dns(wanted.as_bytes(), content),
            (ServerName::Ip(wanted), 0x87) => content == wanted,
            _ => false,
        }
    }
}

/// Exactly, or with one wildcard in place of the whole first label, which must have two labels behind it.
fn dns(wanted: &[u8], presented: &[u8]) -> bool {
    if !is_host(wanted) {
        return false;
    }
    let Some(parent) = presented.strip_prefix(b"*.") else {
        return wanted.eq_ignore_ascii_case(presented);
    };
    if !parent.contains(&b'.') || parent.contains(&b'*') {
        return false;
    }
    let Some(dot) = wanted.iter().position(|byte| *byte == b'.') else { return false };
    let (label, rest) = wanted.split_at_checked(dot).unwrap_or_default();
    !label.is_empty() && rest.strip_prefix(b".").is_some_and(|rest| rest.eq_ignore_ascii_case(parent))
}

/// Labels of letters, digits, `-` and `_`, the last not a number: an address is no host name, and no wildcard covers a part of
/// one.
fn is_host(name: &[u8]) -> bool {
    let part = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let mut labels = name.split(|byte| *byte == b'.');
    let labelled = labels.clone().all(|label| !label.is_empty() && label.iter().all(part));
    labelled && labels.next_back().is_some_and(|last| !last.iter().all(u8::is_ascii_digit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let is = |wanted: &str, presented: &str| ServerName::Dns(wanted).is(0x82, presented.as_bytes());
        assert!(is("broker.example.net", "Broker.EXAMPLE.net") && is("broker.example.net", "*.example.net"));
        for (wanted, presented) in [
            ("broker.example.net", "example.net"),
            ("a.broker.example.net", "*.example.net"),
            ("example.net", "*.example.net"),
            (".example.net", "*.example.net"),
            ("broker.example.net", "*"),
            ("broker.net", "*.net"),
            ("broker.example.net", "b*.example.net"),
            ("broker.example.net", "*.*.net"),
            ("", ""),
            ("192.0.2.1", "*.0.2.1"),
            ("192.0.2.1", "192.0.2.1"),
            ("*.example.net", "*.example.net"),
            ("a..example.net", "*..example.net"),
            ("broker.example.net.", "broker.example.net."),
            ("broker.example.net", "broker.example.net\0"),
            ("broker.example.net", "broker.example.net."),
            ("broker.example.net", "broker.example.net\0.evil.org"),
            ("broker.example.net", "*broker.example.net"),
        ] {
            assert!(!is(wanted, presented), "{wanted} {presented}");
        }
        let address = ServerName::Ip([192, 0, 2, 1]);
        assert!(address.is(0x87, &[192, 0, 2, 1]));
        assert!(!address.is(0x87, &[192, 0, 2, 1, 255, 255, 255, 255]) && !address.is(0x82, b"192.0.2.1"));
    }
}
