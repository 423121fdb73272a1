//! Lifecycle events and the events of autonomous agents (docs/spec/03 §12.1, 06b §4).
//!
//! Peers publish CloudEvents; a setting of older servers sends the inner object alone. Both are read.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use thiserror::Error;

use crate::MAX_MESSAGE;

const LIFECYCLE_SOURCE: &str = "io.choria.lifecycle";

#[derive(Debug, Error)]
pub enum EventError {
    #[error("the event is {0} bytes; at most {MAX_MESSAGE} are accepted")]
    Oversize(usize),
    #[error("the event is not valid: {0}")]
    Json(#[from] serde_json::Error),
    #[error("the message is no event of a kind known here: {0}")]
    UnknownKind(String),
}

/// `startup`, `shutdown`, `alive` and their like.
#[derive(Debug, Clone, PartialEq)]
pub struct LifecycleEvent {
    /// `startup shutdown provisioned alive governor upgraded`, or one of a newer peer.
    pub event_type: String,
    /// UUID; the same in the envelope and inside.
    pub id: String,
    pub identity: String,
    /// `server`, `provision_mode_server`, `service_host` or the name of another program.
    pub component: String,
    /// Unix seconds.
    pub timestamp: i64,
    /// What the type adds: `version`, `new_version`, `governor`, `sequence`, `event_type`.
    pub extra: Map<String, Value>,
}

#[derive(Serialize, Deserialize)]
struct Inner {
    protocol: String,
    id: String,
    identity: String,
    component: String,
    timestamp: i64,
    #[serde(flatten)]
    extra: Map<String, Value>,
}

#[derive(Serialize, Deserialize)]
struct Envelope {
    specversion: String,
    id: String,
    source: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    subject: String,
    #[serde(default)]
    datacontenttype: String,
    #[serde(default)]
    time: String,
    data: Value,
}

impl LifecycleEvent {
    /// An event that happens now. `random` becomes its id.
    pub fn new(
        event_type: &str,
        component: &str,
        identity: &str,
        unix_seconds: i64,
        random: [u8; 16],
    ) -> Self {
        Self {
            event_type: event_type.to_owned(),
            id: uuid_v4(random),
            identity: identity.to_owned(),
            component: component.to_owned(),
            timestamp: unix_seconds,
            extra: Map::new(),
        }
    }

    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.extra.insert(name.to_owned(), value.into());
        self
    }

    /// The `version` that startup and alive events carry.
    pub fn version(&self) -> Option<&str> {
        self.extra.get("version").and_then(Value::as_str)
    }

    /// Where the event is published.
    pub fn subject(&self) -> String {
        crate::subjects::lifecycle(&self.event_type, &self.component)
    }

    /// The event as a CloudEvent.
    pub fn to_bytes(&self) -> Result<Vec<u8>, EventError> {
        let envelope = Envelope {
            specversion: "1.0".to_owned(),
            id: self.id.clone(),
            source: LIFECYCLE_SOURCE.to_owned(),
            kind: self.protocol(),
            subject: self.identity.clone(),
            datacontenttype: "application/json".to_owned(),
            time: rfc3339(self.timestamp),
            data: serde_json::to_value(self.inner())?,
        };
        Ok(crate::to_json(&envelope)?)
    }

    /// The inner object alone, as `plugin.choria.legacy_lifecycle_format` sends it.
    pub fn to_bare_bytes(&self) -> Result<Vec<u8>, EventError> {
        Ok(crate::to_json(&self.inner())?)
    }

    fn protocol(&self) -> String {
        format!("io.choria.lifecycle.v1.{}", self.event_type)
    }

    fn inner(&self) -> Inner {
        Inner {
            protocol: self.protocol(),
            id: self.id.clone(),
            identity: self.identity.clone(),
            component: self.component.clone(),
            timestamp: self.timestamp,
            extra: self.extra.clone(),
        }
    }

    fn from_inner(data: Value) -> Result<Self, EventError> {
        let inner: Inner = serde_json::from_value(data)?;
        let event_type =
            lifecycle_type(&inner.protocol).ok_or_else(|| EventError::UnknownKind(shown(&inner.protocol)))?;
        Ok(Self {
            event_type: event_type.to_owned(),
            id: inner.id,
            identity: inner.identity,
            component: inner.component,
            timestamp: inner.timestamp,
            extra: inner.extra,
        })
    }
}

/// `io.choria.lifecycle.v1.startup` or, from old peers, `choria:lifecycle:startup:1`.
fn lifecycle_type(protocol: &str) -> Option<&str> {
    protocol
        .strip_prefix("io.choria.lifecycle.v1.")
        .or_else(|| protocol.strip_prefix("choria:lifecycle:")?.strip_suffix(":1"))
        .filter(|event_type| !event_type.is_empty() && event_type.len() <= 64)
}

/// Anything that `choria tool event` shows.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    Lifecycle(LifecycleEvent),
    /// A state change or watcher state of an autonomous agent.
    Machine(MachineEvent),
}

/// An event of an autonomous agent; `data` stays as the peer wrote it.
#[derive(Debug, Clone, PartialEq)]
pub struct MachineEvent {
    /// `io.choria.machine.v1.transition`, `io.choria.machine.watcher.exec.v1.state` and so on.
    pub kind: String,
    pub id: String,
    /// Identity of the node.
    pub identity: String,
    /// RFC 3339, as sent.
    pub time: String,
    pub data: Value,
}

impl Event {
    /// Reads an event in either form.
    pub fn parse(bytes: &[u8]) -> Result<Self, EventError> {
        if bytes.len() > MAX_MESSAGE {
            return Err(EventError::Oversize(bytes.len()));
        }
        let value: Value = serde_json::from_slice(bytes)?;
        let text = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default();
        if lifecycle_type(text("protocol")).is_some() {
            return LifecycleEvent::from_inner(value).map(Self::Lifecycle);
        }
        if text("specversion") != "1.0" {
            return Err(EventError::UnknownKind("neither a CloudEvent nor a lifecycle event".to_owned()));
        }
        let envelope: Envelope = serde_json::from_value(value)?;
        if envelope.source == LIFECYCLE_SOURCE {
            return LifecycleEvent::from_inner(envelope.data).map(Self::Lifecycle);
        }
        if !envelope.kind.starts_with("io.choria.machine.") {
            return Err(EventError::UnknownKind(shown(&envelope.kind)));
        }
        Ok(Self::Machine(MachineEvent {
            kind: envelope.kind,
            id: envelope.id,
            identity: envelope.subject,
            time: envelope.time,
            data: envelope.data,
        }))
    }
}

fn shown(text: &str) -> String {
    text.chars().take(64).flat_map(char::escape_default).collect()
}

fn uuid_v4(mut random: [u8; 16]) -> String {
    // version 4 and the variant bits, RFC 9562 §5.4
    let [_, _, _, _, _, _, version, _, variant, ..] = &mut random;
    *version = (*version & 0x0f) | 0x40;
    *variant = (*variant & 0x3f) | 0x80;
    let digits = hex::encode(random);
    let mut text = String::with_capacity(36);
    for (at, digit) in digits.chars().enumerate() {
        if matches!(at, 8 | 12 | 16 | 20) {
            text.push('-');
        }
        text.push(digit);
    }
    text
}

/// UTC with second resolution. Days to date after Howard Hinnant's `civil_from_days`.
fn rfc3339(unix_seconds: i64) -> String {
    let (days, second) = (unix_seconds.div_euclid(86_400), unix_seconds.rem_euclid(86_400));
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute) = (second / 3_600, second % 3_600 / 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{:02}Z", second % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifecycle_round_trip_in_both_forms() {
        let event = LifecycleEvent::new("startup", "server", "n1.example.net", 1_714_557_600, [7; 16])
            .with("version", "0.1.0");
        assert_eq!(event.subject(), "choria.lifecycle.event.startup.server");
        for bytes in [event.to_bytes().unwrap(), event.to_bare_bytes().unwrap()] {
            assert_eq!(Event::parse(&bytes).unwrap(), Event::Lifecycle(event.clone()));
        }
        let envelope: Value = serde_json::from_slice(&event.to_bytes().unwrap()).unwrap();
        assert_eq!(envelope["time"], "2024-05-01T10:00:00Z");
        assert_eq!(envelope["type"], "io.choria.lifecycle.v1.startup");
        assert_eq!(envelope["id"], "07070707-0707-4707-8707-070707070707");
        assert_eq!(envelope["data"]["version"], "0.1.0");
    }

    #[test]
    fn old_ids_and_machine_events_are_read() {
        let old = br#"{"protocol":"choria:lifecycle:alive:1","id":"x","identity":"n","component":"server","timestamp":1,"version":"0.2"}"#;
        let Event::Lifecycle(event) = Event::parse(old).unwrap() else { panic!("no lifecycle event") };
        assert_eq!((event.event_type.as_str(), event.version()), ("alive", Some("0.2")));
        let machine = br#"{"specversion":"1.0","id":"x","source":"io.choria.machine","type":"io.choria.machine.v1.transition","subject":"n1","time":"2024-05-01T10:00:00Z","data":{"to_state":"OK"}}"#;
        assert!(matches!(Event::parse(machine).unwrap(), Event::Machine(m) if m.identity == "n1"));
        assert!(Event::parse(b"{}").is_err() && Event::parse(b"[1").is_err());
    }

    #[test]
    fn dates() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(rfc3339(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(rfc3339(4_107_542_399), "2100-02-28T23:59:59Z");
        assert_eq!(rfc3339(4_107_542_400), "2100-03-01T00:00:00Z");
    }
}
