//! The counters of `docs/spec/05 §11`. Label `site` is on all of them.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use prometheus::{
    Encoder as _, Histogram, HistogramOpts, IntCounter, IntCounterVec, Opts, Registry, TextEncoder,
};

use crate::error::AaaError;

/// Values of the `action` label; further ones are counted as `other` (docs/spec/10 S20).
const MAX_ACTIONS: usize = 1000;

/// All metrics of one process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    pub(crate) authenticator_errors: IntCounter,
    pub(crate) authenticator_time: Histogram,
    pub(crate) signer_errors: IntCounter,
    pub(crate) signer_allowed: IntCounter,
    pub(crate) signer_denied: IntCounter,
    pub(crate) signer_invalid_token: IntCounter,
    authorizer_allowed: IntCounterVec,
    authorizer_denied: IntCounterVec,
    pub(crate) authorizer_errors: IntCounterVec,
    pub(crate) auditor_errors: IntCounterVec,
    actions: Mutex<HashSet<String>>,
}

impl Metrics {
    /// Registers everything under `site`.
    ///
    /// # Errors
    /// A site that cannot be a label.
    pub fn new(site: &str) -> Result<Metrics, AaaError> {
        let registry = Registry::new();
        let opts = |name: &str, help: &str, label: Option<(&str, &str)>| {
            let opts = Opts::new(format!("choria_aaa_{name}"), help).const_label("site", site);
            label.into_iter().fold(opts, |opts, (name, value)| opts.const_label(name, value))
        };
        let counter = |name, help, label| -> Result<IntCounter, AaaError> {
            let counter = IntCounter::with_opts(opts(name, help, Some(label)))?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let vector = |name, help, labels: &[&str]| -> Result<IntCounterVec, AaaError> {
            let counter = IntCounterVec::new(opts(name, help, None), labels)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let time = Histogram::with_opts(
            HistogramOpts::from(opts(
                "authenticator_time",
                "Seconds a login took",
                Some(("authenticator", "userlist")),
            ))
            .buckets(vec![0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0]),
        )?;
        registry.register(Box::new(time.clone()))?;
        let build = IntCounter::with_opts(opts(
            "build_info",
            "The running version",
            Some(("version", env!("CARGO_PKG_VERSION"))),
        ))?;
        registry.register(Box::new(build))?;
        let signer = ("signer", "basicjwt");
        Ok(Metrics {
            authenticator_errors: counter(
                "authenticator_errors",
                "Failed logins",
                ("authenticator", "userlist"),
            )?,
            authenticator_time: time,
            signer_errors: counter("signer_errors", "Requests that could not be signed", signer)?,
            signer_allowed: counter("signer_allowed", "Requests that were signed", signer)?,
            signer_denied: counter("signer_denied", "Requests that were denied", signer)?,
            signer_invalid_token: counter("signer_invalid_token", "Requests with an unusable token", signer)?,
            authorizer_allowed: vector("authorizer_allowed", "Allowed actions", &["authorizer", "action"])?,
            authorizer_denied: vector("authorizer_denied", "Denied actions", &["authorizer", "action"])?,
            authorizer_errors: vector(
                "authorizer_errors",
                "Policies that could not be evaluated",
                &["authorizer"],
            )?,
            auditor_errors: vector("auditor_errors", "Audit records that were lost", &["auditor"])?,
            registry,
            actions: Mutex::default(),
        })
    }

    pub(crate) fn authorized(&self, authorizer: &str, action: &str, allowed: bool) {
        let action = self.bounded(action);
        let counter = if allowed { &self.authorizer_allowed } else { &self.authorizer_denied };
        counter.with_label_values(&[authorizer, action]).inc();
    }

    fn bounded<'a>(&self, action: &'a str) -> &'a str {
        let mut actions = self.actions.lock().unwrap_or_else(PoisonError::into_inner);
        if actions.contains(action) {
            return action;
        }
        if actions.len() >= MAX_ACTIONS || action.len() > 128 {
            return "other";
        }
        actions.insert(action.to_owned());
        action
    }

    /// The text that `/metrics` answers with.
    pub fn text(&self) -> Result<String, AaaError> {
        let mut buffer = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut buffer)?;
        Ok(String::from_utf8_lossy(&buffer).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t_199_action_labels_are_bounded() {
        let metrics = Metrics::new("test").expect("metrics");
        for i in 0..10_000 {
            metrics.authorized("opa", &format!("agent.{i}"), false);
        }
        let text = metrics.text().expect("text");
        let series = text.lines().filter(|line| line.starts_with("choria_aaa_authorizer_denied{")).count();
        assert!(series <= MAX_ACTIONS + 1, "{series}");
        assert!(text.contains("action=\"other\""));
        assert!(text.contains("choria_aaa_build_info{site=\"test\",version="));
        choria_rows::row(199, "10,000 action names", "the number of series stays under the bound");
    }
}
