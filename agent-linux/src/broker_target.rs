//! Where brokers are: `host:port` lists and SRV names (docs/spec/01 §8.1, 04 §3).

use std::fmt;

/// Most brokers of one list.
pub const MAX_BROKERS: usize = 64;

/// One broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broker {
    pub host: String,
    pub port: u16,
}

impl fmt::Display for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "nats://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "nats://{}:{}", self.host, self.port)
        }
    }
}

/// Why a broker address is not usable. The address is shown without user and password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    #[error("'{0}' has no port: write host:port")]
    NoPort(String),
    #[error("'{0}' has no host: write host:port")]
    NoHost(String),
    #[error("'{0}' has a port that is not a number from 1 to 65535")]
    BadPort(String),
    #[error("'{address}' uses the scheme '{scheme}', which this agent does not speak: use nats or tls")]
    Scheme { address: String, scheme: String },
    #[error("no broker is listed")]
    Empty,
    #[error("more than {MAX_BROKERS} brokers are listed")]
    TooMany,
}

/// Where to look for brokers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Targets {
    /// These, in any order.
    Brokers(Vec<Broker>),
    /// The first of these SRV names that has records, else the fallback.
    Srv { names: Vec<String>, fallback: Option<Broker> },
}

/// Reads a comma separated list of `host:port` and `scheme://host:port`.
///
/// # Errors
/// The first entry that is not usable.
pub fn parse_list(text: &str) -> Result<Vec<Broker>, TargetError> {
    let brokers: Vec<Broker> = text
        .split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty())
        .map(parse)
        .collect::<Result<_, _>>()?;
    match brokers.len() {
        0 => Err(TargetError::Empty),
        1..=MAX_BROKERS => Ok(brokers),
        _ => Err(TargetError::TooMany),
    }
}

fn parse(text: &str) -> Result<Broker, TargetError> {
    let (scheme, rest) = text.split_once("://").unwrap_or(("nats", text));
    // A URL may carry user and password: they are neither used here nor shown.
    let address = rest.rsplit_once('@').map_or(rest, |(_, address)| address);
    let address = address.split(['/', '?']).next().unwrap_or_default();
    let shown = || address.chars().take(128).collect::<String>();
    if !matches!(scheme, "nats" | "tls") {
        return Err(TargetError::Scheme { address: shown(), scheme: scheme.chars().take(16).collect() });
    }
    let (host, port) = match address.strip_prefix('[') {
        Some(six) => {
            let (host, rest) = six.split_once(']').ok_or_else(|| TargetError::NoHost(shown()))?;
            (host, rest.strip_prefix(':').ok_or_else(|| TargetError::NoPort(shown()))?)
        }
        None => address.rsplit_once(':').ok_or_else(|| TargetError::NoPort(shown()))?,
    };
    if host.is_empty() || host.len() > 253 || host.contains(char::is_whitespace) {
        return Err(TargetError::NoHost(shown()));
    }
    let port: u16 =
        port.parse().ok().filter(|port| *port != 0).ok_or_else(|| TargetError::BadPort(shown()))?;
    Ok(Broker { host: host.to_owned(), port })
}

/// The targets of a provisioned node.
///
/// # Errors
/// An entry of `plugin.choria.middleware_hosts` that is not usable.
pub fn of_network(hosts: &str, use_srv: bool, domain: Option<&str>) -> Result<Targets, TargetError> {
    if !hosts.trim().is_empty() {
        return parse_list(hosts).map(Targets::Brokers);
    }
    let last_resort = Broker { host: "puppet".to_owned(), port: 4222 };
    match domain.filter(|_| use_srv) {
        Some(domain) => Ok(Targets::Srv {
            names: vec![
                format!("_mcollective-server._tcp.{domain}"),
                format!("_x-puppet-mcollective._tcp.{domain}"),
            ],
            fallback: Some(last_resort),
        }),
        None => Ok(Targets::Brokers(vec![last_resort])),
    }
}

/// The targets of a node that is being provisioned: exactly one of the two texts is not empty.
///
/// # Errors
/// An entry of `urls` that is not usable.
pub fn of_provisioning(urls: &str, domain: &str) -> Result<Targets, TargetError> {
    if urls.trim().is_empty() && !domain.trim().is_empty() {
        let names = vec![format!("_choria-provisioner._tcp.{}", domain.trim().trim_end_matches('.'))];
        return Ok(Targets::Srv { names, fallback: None });
    }
    parse_list(urls).map(Targets::Brokers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broker(host: &str, port: u16) -> Broker {
        Broker { host: host.to_owned(), port }
    }

    #[test]
    fn lists() {
        assert_eq!(
            parse_list("a:4222, nats://b.example.net:4223 ,tls://u:p@c:1,[::1]:5").unwrap(),
            [broker("a", 4222), broker("b.example.net", 4223), broker("c", 1), broker("::1", 5)]
        );
        assert_eq!(parse_list("a"), Err(TargetError::NoPort("a".into())));
        assert_eq!(parse_list(":4222"), Err(TargetError::NoHost(":4222".into())));
        assert_eq!(parse_list("a:0"), Err(TargetError::BadPort("a:0".into())));
        assert_eq!(parse_list("a:70000"), Err(TargetError::BadPort("a:70000".into())));
        assert_eq!(parse_list(" , "), Err(TargetError::Empty));
        let error = parse_list("wss://u:secret@a:1").unwrap_err();
        assert!(!error.to_string().contains("secret"), "{error}");
        assert_eq!(broker("::1", 5).to_string(), "nats://[::1]:5");
    }

    #[test]
    fn where_to_look() {
        let Targets::Srv { names, fallback } = of_network("", true, Some("example.net")).unwrap() else {
            panic!("expected SRV")
        };
        assert_eq!(names[0], "_mcollective-server._tcp.example.net");
        assert_eq!(fallback, Some(broker("puppet", 4222)));
        assert_eq!(of_network("", false, Some("x")).unwrap(), Targets::Brokers(vec![broker("puppet", 4222)]));
        assert_eq!(of_network("a:1", true, Some("x")).unwrap(), Targets::Brokers(vec![broker("a", 1)]));
        assert_eq!(
            of_provisioning("", "example.net.").unwrap(),
            Targets::Srv { names: vec!["_choria-provisioner._tcp.example.net".into()], fallback: None }
        );
        assert_eq!(of_provisioning("p:2", "").unwrap(), Targets::Brokers(vec![broker("p", 2)]));
        assert!(of_provisioning("p", "").is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,200}") {
            if let Ok(brokers) = parse_list(&text) {
                for broker in brokers {
                    proptest::prop_assert_eq!(parse(&broker.to_string()), Ok(broker));
                }
            }
        }
    }
}
