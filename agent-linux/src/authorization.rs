//! May this caller run this action? (docs/spec/03 §8)
//!
//! Every doubt denies: an unknown provider, a missing policy, a policy that fails. The caller hears one fixed
//! sentence; the reason goes to the log with `reason=denied`.

mod action_policy;
mod token_policy;
mod turns;

use std::path::Path;
use std::rc::Rc;

use choria_host::Settings;
use choria_host::rego::RequestFilter;
use choria_host::settings::Problem;

pub use action_policy::PolicyFiles;
use token_policy::Ruling;
pub use turns::Turns;

/// The choices of `rpcauthprovider`.
const CHOICES: &str = "aaasvc, aaasvc_policy, action_policy";

/// Who decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Provider {
    /// `rpcauthorization = 0`, and always while provisioning.
    Off,
    /// The policy carried in the caller's token.
    Token,
    /// Policy files beside the configuration.
    Files(PolicyFiles),
    /// A provider this agent does not have: everything is denied. Holds its name.
    Unsupported(String),
}

impl Provider {
    /// Reads `rpcauthorization` (default on) and `rpcauthprovider` (default `action_policy`, as upstream).
    /// `directory` is that of the configuration file.
    pub fn from_settings(settings: &Settings, directory: &Path) -> Self {
        if !settings.bool("rpcauthorization", true) {
            return Provider::Off;
        }
        let name = settings.get("rpcauthprovider").unwrap_or("action_policy").to_ascii_lowercase();
        if matches!(name.as_str(), "aaasvc" | "aaasvc_policy") {
            return Provider::Token;
        }
        if name == "action_policy" {
            return Provider::Files(PolicyFiles::from_settings(settings, directory));
        }
        let problem = if name == "rego_policy" {
            Problem::Other(format!(
                "is '{name}', which this agent does not have, so every request is denied: use one of {CHOICES}"
            ))
        } else {
            Problem::NotOneOf(CHOICES)
        };
        settings.warn_about("rpcauthprovider", problem);
        Provider::Unsupported(name)
    }
}

/// What is asked. Everything comes from the verified envelope except `data`.
#[derive(Debug)]
pub struct Question<'a> {
    pub agent: &'a str,
    pub action: &'a str,
    /// The inputs: one JSON object.
    pub data: &'a [u8],
    pub caller: &'a str,
    pub sender: &'a str,
    pub collective: &'a str,
    pub ttl_seconds: u32,
    /// Unix nanoseconds.
    pub time_nanos: i64,
    /// The caller's token, verified.
    pub caller_token: &'a str,
    pub filter: RequestFilter,
    /// Facts and classes of this node, for policies that look at them.
    pub node: &'a dyn About,
}

/// What a policy may ask about the node.
pub trait About: std::fmt::Debug {
    /// One JSON object.
    fn facts(&self) -> Rc<[u8]>;
    fn classes(&self) -> Rc<[String]>;
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Allow,
    /// Holds the reason, for the log only.
    Deny(String),
}

impl Provider {
    /// Decides. The `discovery` agent is never asked about (docs/spec/03 §8). A policy that computes does so on a thread
    /// of its own: it may take its full time, and meanwhile the node serves others.
    pub async fn decide(&self, question: &Question<'_>, turns: &Turns) -> Verdict {
        match self {
            _ if question.agent == "discovery" => Verdict::Allow,
            Provider::Off => Verdict::Allow,
            Provider::Token => match token_policy::read(question) {
                Ruling::Settled(verdict) => verdict,
                Ruling::Computed(policy) => {
                    let turn = turns.of(question.caller).await;
                    let computed = tokio::task::spawn_blocking(move || {
                        let _turn = turn;
                        policy.decide()
                    });
                    let failed = |_| Verdict::Deny("the policy could not be evaluated".to_owned());
                    computed.await.unwrap_or_else(failed)
                }
            },
            Provider::Files(files) => files.decide(question),
            Provider::Unsupported(name) => {
                Verdict::Deny(format!("the authorization provider '{name}' is not available in this agent"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A node with the facts and classes given.
    #[derive(Debug, Default)]
    pub(super) struct Known {
        pub(super) facts: &'static str,
        pub(super) classes: Vec<String>,
    }

    impl About for Known {
        fn facts(&self) -> Rc<[u8]> {
            Rc::from(self.facts.as_bytes())
        }

        fn classes(&self) -> Rc<[String]> {
            Rc::from(self.classes.clone())
        }
    }

    #[test]
    fn only_what_is_known_can_allow() {
        let provider = |text: &str| {
            let settings = Settings::parse(text, Path::new("server.conf")).unwrap();
            Provider::from_settings(&settings, Path::new("/etc/choria"))
        };
        assert_eq!(provider("rpcauthorization = 0"), Provider::Off);
        assert_eq!(provider("rpcauthprovider = Aaasvc"), Provider::Token);
        assert!(matches!(provider(""), Provider::Files(_)));
        assert_eq!(provider("rpcauthprovider = none"), Provider::Unsupported("none".into()));
        let settings = Settings::parse("rpcauthprovider = none", Path::new("server.conf")).unwrap();
        Provider::from_settings(&settings, Path::new("/etc/choria"));
        assert!(
            settings.warnings()[0]
                .to_string()
                .starts_with("server.conf:1: rpcauthprovider has an unknown value")
        );
    }
}
