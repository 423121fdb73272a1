//! What the broker tells about itself beside the engine's monitoring: `/choria/` and Prometheus metrics, docs/spec/02
//! §6.1. Names are those of existing dashboards.

use nats_engine::Stats;
use prometheus::core::Collector;
use prometheus::{Encoder as _, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder};
use serde_json::{Value, json};

/// Version of this build.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Reads one number from the engine's counters.
type Source = fn(&Stats) -> u64;

/// The broker's metrics, filled from the engine's counters when somebody asks.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    identity: String,
    gauges: Vec<(IntGaugeVec, Source)>,
}

impl Metrics {
    /// Metrics labelled with this identity.
    pub fn new(identity: &str) -> Result<Metrics, prometheus::Error> {
        let registry = Registry::new();
        let sources: [(&str, &str, Source); 8] = [
            ("connections", "Connections at this moment", |s| s.connections as u64),
            ("total_connections", "Connections since the start", |s| s.total_connections),
            ("in_msgs", "Messages received", |s| s.in_msgs),
            ("out_msgs", "Messages sent", |s| s.out_msgs),
            ("in_bytes", "Bytes received", |s| s.in_bytes),
            ("out_bytes", "Bytes sent", |s| s.out_bytes),
            ("slow_consumers", "Connections cut because they did not read", |s| s.slow_consumers),
            ("subscriptions", "Subscriptions at this moment", |s| s.subscriptions as u64),
        ];
        let mut gauges = Vec::new();
        for (name, help, source) in sources {
            let gauge = IntGaugeVec::new(Opts::new(format!("choria_network_{name}"), help), &["identity"])?;
            register(&registry, &gauge)?;
            gauges.push((gauge, source));
        }
        let info = IntCounterVec::new(
            Opts::new("choria_build_info", "Build information"),
            &["version", "sha", "identity"],
        )?;
        info.with_label_values(&[VERSION, "", identity]).inc();
        register(&registry, &info)?;
        Ok(Metrics { registry, identity: identity.to_owned(), gauges })
    }

    /// The text that Prometheus scrapes.
    pub fn render(&self, stats: &Stats) -> Result<String, prometheus::Error> {
        for (gauge, source) in &self.gauges {
            let value = i64::try_from(source(stats)).unwrap_or(i64::MAX);
            gauge.with_label_values(&[self.identity.as_str()]).set(value);
        }
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        String::from_utf8(text).map_err(|e| prometheus::Error::Msg(e.to_string()))
    }

    /// The body of `/choria/`.
    pub fn summary(&self, config_file: &str, max_connections: usize) -> Value {
        json!({
            "identity": self.identity,
            "config_file": config_file,
            "build": {
                "version": VERSION, "sha": "", "build_date": "", "license": "Apache-2.0", "tls": true, "secure": true,
                "go": "", "max_broker_clients": max_connections,
            },
            "system": {
                "rss": resident_bytes(),
                "cpu_percent": 0.0,
                "cpu_cores": std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            },
        })
    }
}

fn register(
    registry: &Registry,
    metric: &(impl Collector + Clone + 'static),
) -> Result<(), prometheus::Error> {
    registry.register(Box::new(metric.clone()))
}

/// Resident memory of this process, bytes; 0 where the kernel does not tell.
fn resident_bytes() -> u64 {
    let kib = std::fs::read_to_string("/proc/self/status").ok().and_then(|text| field_kib(&text, "VmRSS:"));
    kib.unwrap_or(0).saturating_mul(1024)
}

/// Memory of this machine, bytes.
pub(crate) fn machine_bytes() -> Option<u64> {
    field_kib(&std::fs::read_to_string("/proc/meminfo").ok()?, "MemTotal:")?.checked_mul(1024)
}

fn field_kib(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name))?.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_have_the_names_of_existing_dashboards() {
        let metrics = Metrics::new("broker.example.net").unwrap();
        let text =
            metrics.render(&Stats { connections: 3, total_connections: 7, ..Stats::default() }).unwrap();
        assert!(text.contains("choria_network_connections{identity=\"broker.example.net\"} 3"), "{text}");
        assert!(
            text.contains("choria_network_total_connections{identity=\"broker.example.net\"} 7"),
            "{text}"
        );
        assert!(text.contains("choria_build_info{"), "{text}");
    }

    #[test]
    fn memory_is_read_where_the_kernel_tells() {
        assert_eq!(field_kib("MemTotal:       16 kB\n", "MemTotal:"), Some(16));
        assert_eq!(field_kib("MemTotal: many", "MemTotal:"), None);
    }
}
