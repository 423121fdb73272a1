//! Why connections end: the words monitoring shows and what the peer is told (`docs/spec/09 §A5`).

/// Why a connection was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloseReason {
    ClientClosed,
    AuthenticationTimeout,
    AuthenticationFailure,
    TlsHandshake,
    SlowConsumerPending,
    SlowConsumerDeadline,
    WriteError,
    ReadError,
    ParseError,
    PayloadTerminator,
    StaleConnection,
    ProtocolViolation,
    BadClientProtocolVersion,
    MaximumConnections,
    MaximumPayload,
    MaximumControlLine,
    ServerShutdown,
    AuthenticationExpired,
    MissingAccount,
    CredentialsRevoked,
    NoRespondersRequiresHeaders,
    Throttled,
    Kicked,
}

impl CloseReason {
    /// The words of monitoring and of disconnect events.
    pub fn text(self) -> &'static str {
        match self {
            CloseReason::ClientClosed => "Client Closed",
            CloseReason::AuthenticationTimeout => "Authentication Timeout",
            CloseReason::AuthenticationFailure => "Authentication Failure",
            CloseReason::TlsHandshake => "TLS Handshake Failure",
            CloseReason::SlowConsumerPending => "Slow Consumer (Pending Bytes)",
            CloseReason::SlowConsumerDeadline => "Slow Consumer (Write Deadline)",
            CloseReason::WriteError => "Write Error",
            CloseReason::ReadError => "Read Error",
            CloseReason::ParseError | CloseReason::PayloadTerminator => "Parse Error",
            CloseReason::StaleConnection => "Stale Connection",
            CloseReason::ProtocolViolation => "Protocol Violation",
            CloseReason::BadClientProtocolVersion => "Bad Client Protocol Version",
            CloseReason::MaximumConnections | CloseReason::Throttled => "Maximum Connections Exceeded",
            CloseReason::MaximumPayload => "Maximum Message Payload Exceeded",
            CloseReason::MaximumControlLine => "Maximum Control Line Exceeded",
            CloseReason::ServerShutdown => "Server Shutdown",
            CloseReason::AuthenticationExpired => "Authentication Expired",
            CloseReason::MissingAccount => "Missing Account",
            CloseReason::CredentialsRevoked => "Credentials Revoked",
            CloseReason::NoRespondersRequiresHeaders => "No Responders Requires Headers",
            CloseReason::Kicked => "Kicked",
        }
    }

    /// The `-ERR` text that goes before the close, if there is one.
    pub fn wire_error(self) -> Option<&'static str> {
        match self {
            CloseReason::AuthenticationTimeout => Some("Authentication Timeout"),
            CloseReason::AuthenticationFailure
            | CloseReason::MissingAccount
            | CloseReason::CredentialsRevoked => Some("Authorization Violation"),
            CloseReason::AuthenticationExpired => Some("User Authentication Expired"),
            CloseReason::PayloadTerminator => Some("Unknown Protocol Operation"),
            CloseReason::StaleConnection => Some("Stale Connection"),
            CloseReason::BadClientProtocolVersion => Some("invalid client protocol"),
            CloseReason::MaximumConnections => Some("maximum connections exceeded"),
            CloseReason::MaximumPayload => Some("Maximum Payload Violation"),
            CloseReason::MaximumControlLine => Some("maximum control line exceeded"),
            CloseReason::NoRespondersRequiresHeaders => Some("no responders requires headers support"),
            CloseReason::Throttled => Some("Connection throttling is active. Please try again later."),
            CloseReason::TlsHandshake => Some("Secure Connection - TLS Required"),
            CloseReason::ClientClosed
            | CloseReason::SlowConsumerPending
            | CloseReason::SlowConsumerDeadline
            | CloseReason::WriteError
            | CloseReason::ReadError
            | CloseReason::ParseError
            | CloseReason::ProtocolViolation
            | CloseReason::ServerShutdown
            | CloseReason::Kicked => None,
        }
    }

    /// The word for logs (`reason=`).
    pub fn log_reason(self) -> &'static str {
        match self {
            CloseReason::AuthenticationTimeout => "auth_timeout",
            CloseReason::AuthenticationFailure => "auth_failure",
            CloseReason::TlsHandshake => "tls_required",
            CloseReason::SlowConsumerPending | CloseReason::SlowConsumerDeadline => "slow_consumer",
            CloseReason::ParseError | CloseReason::PayloadTerminator | CloseReason::ProtocolViolation => {
                "protocol"
            }
            CloseReason::MaximumControlLine => "line_too_long",
            CloseReason::MaximumConnections | CloseReason::Throttled | CloseReason::MaximumPayload => "limit",
            CloseReason::AuthenticationExpired => "token_expired",
            CloseReason::MissingAccount => "account_missing",
            CloseReason::CredentialsRevoked => "revoked",
            CloseReason::StaleConnection => "stale",
            CloseReason::BadClientProtocolVersion | CloseReason::NoRespondersRequiresHeaders => {
                "connect_malformed"
            }
            CloseReason::ServerShutdown => "shutdown",
            CloseReason::Kicked => "kicked",
            CloseReason::ClientClosed | CloseReason::WriteError | CloseReason::ReadError => "closed",
        }
    }
}

/// An `-ERR` line.
pub(crate) fn error_line(text: &str) -> Vec<u8> {
    format!("-ERR '{text}'\r\n").into_bytes()
}

/// Bytes of a peer in double quotes, with everything that is not plain text escaped, as the wire's own error
/// texts have it.
pub(crate) fn quoted(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() + 2);
    text.push('"');
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' => text.push_str("\\\""),
                '\\' => text.push_str("\\\\"),
                '\n' => text.push_str("\\n"),
                '\r' => text.push_str("\\r"),
                '\t' => text.push_str("\\t"),
                c if c.is_ascii_control() => text.push_str(&format!("\\x{:02x}", u32::from(c))),
                c => text.push(c),
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text.push('"');
    text
}

/// Text for a log line: what could end the line or steer a terminal is escaped.
pub(crate) fn printable(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { line.extend(c.escape_unicode()) } else { line.push(c) }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoting_escapes_what_is_not_plain_text() {
        assert_eq!(quoted(b"a.b"), "\"a.b\"");
        assert_eq!(quoted(b"a\"\\\n\x01\xff"), r#""a\"\\\n\x01\xff""#);
        assert_eq!(printable("a\r\nb\u{1b}[31m"), r"a\u{d}\u{a}b\u{1b}[31m");
    }
}
