//! Life-cycle events of a node (`docs/spec/03 §12.1`).

use core::fmt::Write as _;

use crate::json::{self, Writer};
use crate::nats::Outgoing;
use crate::nats::sender::{PublishError, SendError};

/// First `alive` after a random whole number of minutes below this.
pub const ALIVE_SPLAY_MINUTES: u32 = 30;
/// Time between `alive` events, milliseconds.
pub const ALIVE_INTERVAL_MS: u64 = 30 * 60 * 1000;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind<'a> {
    Startup,
    Shutdown,
    Provisioned,
    Alive,
    Upgraded { new_version: &'a str },
}

impl Kind<'_> {
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Startup => "startup",
            Kind::Shutdown => "shutdown",
            Kind::Provisioned => "provisioned",
            Kind::Alive => "alive",
            Kind::Upgraded { .. } => "upgraded",
        }
    }
}

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Source<'a> {
    pub identity: &'a str,
    /// `server`, `provision_mode_server` or `service_host`.
    pub component: &'a str,
    pub version: &'a str,
    /// Send the bare event without its CloudEvents envelope (`plugin.choria.legacy_lifecycle_format`).
    pub legacy: bool,
}

/// An event does not fit the buffer or the component is no subject token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotPublished;

/// Writes one PUB. `id` is 16 random bytes, `unix_seconds` the time of the event.
pub fn publish(
    out: &mut Outgoing<'_>,
    kind: Kind<'_>,
    source: &Source<'_>,
    id: [u8; 16],
    unix_seconds: i64,
) -> Result<(), NotPublished> {
    let mut subject = heapless::String::<128>::new();
    write!(subject, "choria.lifecycle.event.{}.{}", kind.name(), source.component)
        .map_err(|_| NotPublished)?;
    let done: Result<(), PublishError<json::Error>> =
        out.publish_with(&subject, |room| render(room, kind, source, id, unix_seconds));
    done.map_err(|error| match error {
        PublishError::Send(SendError::NoRoom | SendError::BadSubject) | PublishError::Render(_) => {
            NotPublished
        }
    })
}

fn render(
    room: &mut [u8],
    kind: Kind<'_>,
    source: &Source<'_>,
    id: [u8; 16],
    unix_seconds: i64,
) -> Result<usize, json::Error> {
    let id = uuid(id);
    let mut schema = heapless::String::<64>::new();
    write!(schema, "io.choria.lifecycle.v1.{}", kind.name()).map_err(|_| json::Error::NoSpace)?;
    let mut w = Writer::over(room);
    if !source.legacy {
        w.begin_object();
        w.field_str("specversion", "1.0");
        w.field_str("id", &id);
        w.field_str("source", "io.choria.lifecycle");
        w.field_str("type", &schema);
        w.field_str("subject", source.identity);
        w.field_str("datacontenttype", "application/json");
        w.field_str("time", &rfc3339(unix_seconds));
        w.key("data");
    }
    w.begin_object();
    w.field_str("protocol", &schema);
    w.field_str("id", &id);
    w.field_str("identity", source.identity);
    w.field_str("component", source.component);
    w.field_i64("timestamp", unix_seconds);
    match kind {
        Kind::Startup | Kind::Alive => {
            w.field_str("version", source.version);
        }
        Kind::Upgraded { new_version } => {
            w.field_str("version", source.version);
            w.field_str("new_version", new_version);
        }
        Kind::Shutdown | Kind::Provisioned => {}
    }
    w.end_object();
    if !source.legacy {
        w.end_object();
    }
    w.finish().map(|written| written.len())
}

/// Version 4 text form of 16 random bytes.
#[must_use]
pub fn uuid(mut bytes: [u8; 16]) -> heapless::String<36> {
    let [_, _, _, _, _, _, version, _, variant, ..] = &mut bytes;
    *version = (*version & 0x0f) | 0x40;
    *variant = (*variant & 0x3f) | 0x80;
    let mut text = heapless::String::new();
    for (at, byte) in bytes.iter().enumerate() {
        let dash = if matches!(at, 4 | 6 | 8 | 10) { "-" } else { "" };
        // 36 characters always fit.
        if write!(text, "{dash}{byte:02x}").is_err() {
            break;
        }
    }
    text
}

/// `2024-05-01T10:00:00Z`; times outside the years 0 to 9999 become the nearest bound.
#[must_use]
pub fn rfc3339(unix_seconds: i64) -> heapless::String<32> {
    let seconds = unix_seconds.clamp(-62_167_219_200, 253_402_300_799);
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Days are counted from 0000-03-01, so that the leap day is the last of its year.
    let shifted = days.saturating_add(719_468);
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    let mut text = heapless::String::new();
    if write!(text, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z").is_err() {
        text.clear();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SOURCE: Source<'_> =
        Source { identity: "n1.example.net", component: "server", version: "0.1.0", legacy: false };

    fn sent(kind: Kind<'_>, source: Source<'_>) -> (std::string::String, serde_json::Value) {
        let mut buffer = [0u8; 1024];
        let mut out = Outgoing::new(&mut buffer);
        publish(&mut out, kind, &source, [0xaa; 16], 1_714_557_600).unwrap();
        let text = core::str::from_utf8(out.finish()).unwrap();
        let (head, body) = text.split_once("\r\n").unwrap();
        let words: std::vec::Vec<&str> = head.split_whitespace().collect();
        let body = body.strip_suffix("\r\n").unwrap();
        assert_eq!(words[2].parse::<usize>().unwrap(), body.len());
        (words[1].into(), serde_json::from_str(body).unwrap())
    }

    #[test]
    fn a_startup_event() {
        let (subject, event) = sent(Kind::Startup, SOURCE);
        assert_eq!(subject, "choria.lifecycle.event.startup.server");
        assert_eq!(
            event,
            serde_json::json!({"specversion":"1.0","id":"aaaaaaaa-aaaa-4aaa-aaaa-aaaaaaaaaaaa","source":"io.choria.lifecycle",
             "type":"io.choria.lifecycle.v1.startup","subject":"n1.example.net","datacontenttype":"application/json",
             "time":"2024-05-01T10:00:00Z",
             "data":{"protocol":"io.choria.lifecycle.v1.startup","id":"aaaaaaaa-aaaa-4aaa-aaaa-aaaaaaaaaaaa",
                     "identity":"n1.example.net","component":"server","timestamp":1714557600,"version":"0.1.0"}})
        );
    }

    #[test]
    fn bare_events() {
        let (subject, event) = sent(Kind::Shutdown, Source { legacy: true, ..SOURCE });
        assert_eq!(subject, "choria.lifecycle.event.shutdown.server");
        assert_eq!(event["protocol"], "io.choria.lifecycle.v1.shutdown");
        assert!(event.get("version").is_none());
    }

    #[test]
    fn dates() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(rfc3339(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(rfc3339(i64::MAX), "9999-12-31T23:59:59Z");
    }

    proptest! {
        #[test]
        fn no_time_panics(seconds in any::<i64>()) {
            prop_assert_eq!(rfc3339(seconds).len(), 20);
        }
    }
}
