//! Every refusal is one log line with its reason, and no line holds a credential.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test says what went wrong by stopping there"
)]

mod support;

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

use support::*;
use tracing::field::{Field, Visit};
use tracing::{Event, Metadata, Subscriber, span};

/// Keeps every event as one line of `field=value`.
#[derive(Debug, Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        write!(self.0, "{}={value:?} ", field.name()).unwrap();
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        write!(self.0, "{}={value} ", field.name()).unwrap();
    }
}

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("nats_engine")
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(format!("{} ", event.metadata().level()));
        event.record(&mut line);
        self.0.lock().unwrap().push(line.0);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

#[tokio::test]
async fn one_line_each_with_a_reason_and_no_secret() {
    let lines = Lines::default();
    tracing::subscriber::set_global_default(lines.clone()).unwrap();
    let (engine, address) = start().await;
    let secret = ",\"auth_token\":\"sesame-token\",\"jwt\":\"sesame-jwt\",\"sig\":\"sesame-sig\"";
    let cases = [
        (connect_line("main/a", secret).replace("\"pw\"", "\"sesame-pw\""), "password_bad"),
        (connect_line("", secret), "no_credentials"),
        (connect_line("main/late", secret), "token_expired"),
        (connect_line("nowhere/a", secret), "account_missing"),
        ("CONNECT {\"auth_token\":\"sesame\" \"x\"}\r\n".to_owned(), "connect_malformed"),
        (connect_line("main/a", ",\"sig\":\"sesame\",\"sig\":\"sesame\""), "connect_malformed"),
        (format!("CONNECT {{\"auth_token\":\"sesame{}\"}}\r\n", "x".repeat(70_000)), "line_too_long"),
        ("PUB sesame 0\r\n\r\n".to_owned(), "no_credentials"),
        ("CONNECT {\"auth_token\":\"sesame".to_owned(), "auth_timeout"),
    ];
    for (text, reason) in cases {
        lines.0.lock().unwrap().clear();
        let mut raw = Raw::open(address).await;
        raw.send(&text).await;
        raw.rest().await;
        let seen = lines.0.lock().unwrap().clone();
        let warnings: Vec<_> = seen.iter().filter(|line| line.starts_with("WARN")).collect();
        assert_eq!(warnings.len(), 1, "{seen:?}");
        assert!(warnings[0].contains(&format!("reason={reason} ")), "{warnings:?} wants {reason}");
        assert!(seen.iter().all(|line| !line.contains("sesame")), "{seen:?}");
    }
    lines.0.lock().unwrap().clear();
    let mut raw = Raw::user(address, "main/a", ",\"name\":\"x\\ny\"").await;
    raw.send(&connect_line("main/a", "")).await;
    raw.rest().await;
    let seen = lines.0.lock().unwrap().clone();
    let warning = seen.iter().find(|line| line.starts_with("WARN")).unwrap();
    assert!(warning.contains("reason=nonce_reused"), "{seen:?}");
    assert!(seen.iter().all(|line| !line.contains('\n')), "{seen:?}");
    engine.shutdown().await;
}
