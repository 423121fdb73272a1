//! Which brokers to connect to (docs/spec/01 §8.1).

use choria_host::Settings;
use hickory_resolver::TokioResolver;

use crate::ClientError;

/// The last resort of every Choria program.
const LAST_RESORT: &str = "puppet:4222";
const SRV_NAMES: [&str; 2] = ["_mcollective-server._tcp", "_x-puppet-mcollective._tcp"];
const FEDERATION_SRV_NAMES: [&str; 2] =
    ["_mcollective-federation_server._tcp", "_x-puppet-mcollective_federation._tcp"];

/// How brokers are found; resolved again for every first connection.
#[derive(Debug, Clone, Default)]
pub struct BrokerSource {
    /// `host:port` or `scheme://host:port`; wins over DNS.
    pub hosts: Vec<String>,
    pub use_srv: bool,
    pub srv_domain: Option<String>,
    /// Federations to talk to; they have brokers of their own.
    pub federations: Vec<String>,
}

impl BrokerSource {
    pub(crate) fn from_settings(settings: &Settings) -> Self {
        let federations = settings.list("plugin.choria.federation.collectives");
        let hosts_key = if federations.is_empty() {
            "plugin.choria.middleware_hosts"
        } else {
            "plugin.choria.federation_middleware_hosts"
        };
        Self {
            hosts: settings.list(hosts_key),
            use_srv: settings.bool("plugin.choria.use_srv", true),
            srv_domain: settings.get("plugin.choria.srv_domain").map(str::to_owned),
            federations,
        }
    }

    /// URLs to try, at least one.
    ///
    /// # Errors
    /// An entry that is no address.
    pub async fn resolve(&self) -> Result<Vec<String>, ClientError> {
        if !self.hosts.is_empty() {
            return self.hosts.iter().map(|host| url(host)).collect();
        }
        if self.use_srv
            && let Some(domain) = self.domain()
        {
            let names = if self.federations.is_empty() { SRV_NAMES } else { FEDERATION_SRV_NAMES };
            for name in names {
                let found = lookup(&format!("{name}.{domain}")).await;
                if !found.is_empty() {
                    return found.iter().map(|host| url(host)).collect();
                }
            }
        }
        url(LAST_RESORT).map(|url| vec![url])
    }

    fn domain(&self) -> Option<String> {
        self.srv_domain.clone().or_else(host_domain).filter(|domain| !domain.is_empty())
    }
}

/// The part of our own host name behind the first dot.
fn host_domain() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    name.trim().split_once('.').map(|(_, domain)| domain.to_owned())
}

/// Targets of an SRV record as `host:port`, best priority first; empty when there is none.
async fn lookup(name: &str) -> Vec<String> {
    let Ok(resolver) = TokioResolver::builder_tokio().and_then(|builder| builder.build()) else {
        return Vec::new();
    };
    match resolver.srv_lookup(format!("{name}.")).await {
        Ok(answer) => {
            let mut targets: Vec<_> = answer
                .answers()
                .iter()
                .filter_map(|record| match &record.data {
                    hickory_resolver::proto::rr::RData::SRV(srv) => {
                        Some((srv.priority, u16::MAX - srv.weight, srv.target.to_utf8(), srv.port))
                    }
                    _ => None,
                })
                .collect();
            targets.sort();
            targets
                .into_iter()
                .map(|(_, _, host, port)| format!("{}:{port}", host.trim_end_matches('.')))
                .collect()
        }
        Err(error) => {
            tracing::debug!(name, %error, "no SRV record");
            Vec::new()
        }
    }
}

/// Gives an address its scheme and refuses what is no address.
fn url(host: &str) -> Result<String, ClientError> {
    let with_scheme = if host.contains("://") { host.to_owned() } else { format!("nats://{host}") };
    let (scheme, rest) = with_scheme.split_once("://").unwrap_or_default();
    let port = rest
        .rsplit_once(':')
        .and_then(|(host, port)| (!host.is_empty()).then(|| port.parse::<u16>().ok()))
        .flatten();
    if port.is_none_or(|port| port == 0) || !matches!(scheme, "nats" | "tls") {
        return Err(ClientError::NoBrokers(format!(
            "'{host}' in plugin.choria.middleware_hosts is no address; write host:port"
        )));
    }
    Ok(with_scheme)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        assert_eq!(url("broker:4222").unwrap(), "nats://broker:4222");
        assert_eq!(url("tls://[::1]:4222").unwrap(), "tls://[::1]:4222");
        for bad in ["broker", "broker:", ":4222", "broker:x", "http://broker:80", "broker:0", "broker:99999"]
        {
            assert!(url(bad).is_err(), "{bad}");
        }
    }
}
