//! What a node that waits to be provisioned may take of the broker (`docs/spec/10 §9`). Its token is a bearer token that
//! every blank machine has, so it gets what one enrolment needs and little more.

use choria_host::settings::{Settings, SettingsError};
use nats_engine::{Pace, Rate, SubjectPace};

/// Bytes of a lifecycle event.
const EVENT_BYTES: usize = 4096;

/// Limits of one waiting node's connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingLimits {
    /// Subscriptions of the connection: `plugin.choria.network.provisioning.max_subscriptions`, 16.
    pub subscriptions: usize,
    /// Connections of the account beyond which no other waiting node is let in: `….max_connections`, half of the
    /// broker's.
    pub connections: usize,
    /// `….message_rate`, 50 messages a second; `….message_burst`, 200 of them at once; `….byte_rate`, 2 MiB a second.
    /// Lifecycle events: one a second, five at once, 4 KiB each.
    pub pace: Pace,
}

impl WaitingLimits {
    /// The defaults, beside a broker that takes `max_connections`.
    pub fn of_broker(max_connections: usize) -> WaitingLimits {
        let lifecycle = SubjectPace {
            prefix: "choria.lifecycle.".to_owned(),
            messages: Rate { per_second: 1, burst: 5 },
            max_payload: EVENT_BYTES,
        };
        WaitingLimits {
            subscriptions: 16,
            connections: (max_connections / 2).max(1),
            pace: Pace {
                messages: Rate { per_second: 50, burst: 200 },
                bytes: Rate { per_second: 2 << 20, burst: 2 << 20 },
                subjects: vec![lifecycle],
            },
        }
    }

    /// The defaults, and what the settings change of them. None of them can be switched off.
    ///
    /// # Errors
    /// A value that is no number.
    pub fn from_settings(
        settings: &Settings,
        max_connections: usize,
    ) -> Result<WaitingLimits, SettingsError> {
        let mut limits = WaitingLimits::of_broker(max_connections);
        let number = |name: &str, default: usize| {
            let key = format!("plugin.choria.network.provisioning.{name}");
            let value = settings.int(&key, i64::try_from(default).unwrap_or(i64::MAX))?;
            Ok::<_, SettingsError>(usize::try_from(value).unwrap_or(0).max(1))
        };
        let rate = |name: &str, default: u32| {
            Ok::<_, SettingsError>(u32::try_from(number(name, default as usize)?).unwrap_or(u32::MAX))
        };
        limits.subscriptions = number("max_subscriptions", limits.subscriptions)?;
        limits.connections = number("max_connections", limits.connections)?;
        let (messages, bytes) = (&mut limits.pace.messages, &mut limits.pace.bytes);
        messages.per_second = rate("message_rate", messages.per_second)?;
        messages.burst = rate("message_burst", messages.burst)?;
        bytes.per_second = rate("byte_rate", bytes.per_second)?;
        bytes.burst = bytes.per_second;
        Ok(limits)
    }
}
