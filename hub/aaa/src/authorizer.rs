//! May this caller do this? The two evaluators of `docs/spec/05 §9`, filled from the request envelope.
//!
//! Agent `discovery` is always allowed, whatever the authorizer; [`crate::signer`] decides that.

use std::sync::Arc;

use choria_host::rego::{self, Decision, Extensions, Policy, RequestFilter};
use choria_protocol::Request;
use choria_protocol::rpc::RpcRequest;
use choria_token::ClientClaims;
use serde_json::{Value, json};

use crate::config::AuthorizerKind;

const RULE: &str = "data.io.choria.aaasvc.allow";

/// What is to be decided.
#[derive(Debug)]
pub struct Question<'a> {
    pub claims: &'a ClientClaims,
    /// The claims once more, as policies see them.
    pub claims_json: &'a Value,
    pub request: &'a Request,
    pub body: &'a RpcRequest,
    pub site: &'a str,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Allow,
    Deny(String),
    /// The policy itself cannot be used. Denies as well.
    Error(String),
}

impl AuthorizerKind {
    /// The name in configuration, metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            AuthorizerKind::ActionList => "actionlist",
            AuthorizerKind::Opa => "opa",
        }
    }

    /// Decides. Opa takes up to 200 ms for a hostile policy and some 20 µs for an ordinary one.
    pub fn decide(self, question: &Question<'_>) -> Verdict {
        match self {
            AuthorizerKind::ActionList => {
                action_list(&question.claims.agents, &question.body.agent, &question.body.action)
            }
            AuthorizerKind::Opa => opa(question),
        }
    }
}

/// `*`, `agent.*` or `agent.action`, in order; the first that speaks of the agent and action allows. Anything else in
/// the list is an error, even when a later item would have matched.
pub fn action_list(allowed: &[String], agent: &str, action: &str) -> Verdict {
    for item in allowed {
        if item == "*" {
            return Verdict::Allow;
        }
        let parts = item.split_once('.').filter(|(_, rest)| !rest.contains('.'));
        let Some((item_agent, item_action)) = parts else {
            return Verdict::Error(format!("invalid agent policy: {}", item.escape_default()));
        };
        if item_agent == agent && (item_action == "*" || item_action == action) {
            return Verdict::Allow;
        }
    }
    Verdict::Deny("the action list does not allow it".to_owned())
}

fn opa(question: &Question<'_>) -> Verdict {
    let text = &question.claims.opa_policy;
    if text.is_empty() {
        return Verdict::Error("the token carries no policy".to_owned());
    }
    let policy = match Policy::cached(text) {
        Ok(policy) => policy,
        Err(error) => return Verdict::Error(error.to_string()),
    };
    let request = question.request;
    let input = json!({
        "agent": question.body.agent,
        "action": question.body.action,
        "data": question.body.data,
        "sender": request.sender,
        "collective": request.collective,
        "ttl": request.ttl,
        "time": rfc3339(request.time),
        "site": question.site,
        "claims": question.claims_json,
    });
    let ext =
        Extensions { filter: Some(Arc::new(filter_of(request))), now_ns: choria_host::clock::unix_nanos() };
    match policy.allow(RULE, &input, ext) {
        Decision::Allow => Verdict::Allow,
        Decision::Deny(reason) => Verdict::Deny(reason),
    }
}

fn rfc3339(nanoseconds: i64) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(nanoseconds)).map(|at| at.to_string()).unwrap_or_default()
}

fn filter_of(request: &Request) -> RequestFilter {
    let filter = &request.filter;
    RequestFilter {
        facts: filter
            .fact
            .iter()
            .map(|fact| rego::FactFilter {
                fact: fact.fact.clone(),
                operator: fact.operator.clone(),
                value: fact.value.clone(),
            })
            .collect(),
        classes: filter.cf_class.clone(),
        identities: filter.identity.clone(),
        compound: !filter.compound.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use choria_protocol::Filter;

    use super::*;

    fn list(items: &[&str]) -> Vec<String> {
        items.iter().map(|item| (*item).to_owned()).collect()
    }

    #[test]
    fn action_lists() {
        let ask = |items: &[&str]| action_list(&list(items), "rpcutil", "ping");
        assert_eq!(ask(&["*"]), Verdict::Allow);
        assert_eq!(ask(&["rpcutil.*"]), Verdict::Allow);
        assert_eq!(ask(&["nothing.*", "rpcutil.ping"]), Verdict::Allow);
        assert!(matches!(ask(&["nothing.*"]), Verdict::Deny(_)));
        assert!(matches!(ask(&["rpcutil.pin"]), Verdict::Deny(_)));
        assert!(matches!(ask(&["rpc*.ping", "*.ping"]), Verdict::Deny(_)));
        assert!(matches!(ask(&[]), Verdict::Deny(_)));
        for bad in [&["rpcutil"][..], &["rpcutil", "*"], &["rpcutil.ping.x", "rpcutil.ping"], &[""]] {
            assert!(matches!(ask(bad), Verdict::Error(_)), "{bad:?}");
        }
    }

    fn evaluate(policy: &str, change: impl FnOnce(&mut Request)) -> Verdict {
        let mut claims = ClientClaims { opa_policy: policy.to_owned(), ..ClientClaims::default() };
        claims.user_properties.insert("team".to_owned(), "ops".to_owned());
        let claims_json = serde_json::to_value(&claims).expect("json");
        let body = RpcRequest { agent: "myco".into(), action: "deploy".into(), data: serde_json::Map::new() };
        let mut request = Request {
            message: body.to_bytes().expect("a body"),
            id: "id".into(),
            sender: "some.node".into(),
            caller: "up=bob".into(),
            collective: "ginkgo".into(),
            agent: "myco".into(),
            ttl: 60,
            time: 1_714_564_800_000_000_000,
            filter: Filter::default(),
        };
        change(&mut request);
        let question = Question {
            claims: &claims,
            claims_json: &claims_json,
            request: &request,
            body: &body,
            site: "ginkgo",
        };
        AuthorizerKind::Opa.decide(&question)
    }

    #[test]
    fn policies_see_the_envelope_and_the_filter() {
        for open in ["allow", "allow if"] {
            let policy = format!(
                "package io.choria.aaasvc\ndefault allow = false\n{open} {{\n input.agent == \"myco\"\n input.action == \"deploy\"\n \
                 input.sender == \"some.node\"\n input.collective == \"ginkgo\"\n input.ttl == 60\n \
                 input.time == \"2024-05-01T12:00:00Z\"\n input.site == \"ginkgo\"\n \
                 input.claims.user_properties.team == \"ops\"\n requires_filter()\n requires_fact_filter(\"country=mt\")\n \
                 requires_class_filter(\"apache\")\n requires_identity_filter(\"some.node\")\n}}"
            );
            let filtered = |request: &mut Request| {
                request.filter.add_class("apache");
                request.filter.add_identity("some.node");
                if let Ok(fact) = choria_protocol::parse_fact_filter("country=mt") {
                    request.filter.add_fact(fact);
                }
            };
            assert_eq!(evaluate(&policy, filtered), Verdict::Allow);
            assert!(matches!(evaluate(&policy, |_| ()), Verdict::Deny(_)));
        }
    }

    #[test]
    fn t_211_filter_functions_on_a_request_without_filter() {
        let policy = "package io.choria.aaasvc\nallow if requires_filter()";
        assert!(matches!(evaluate(policy, |_| ()), Verdict::Deny(_)));
        choria_rows::row(211, "requires_filter() without a filter, at the signer", "false, denied");
    }

    #[test]
    fn t_205_a_policy_of_the_other_dialect_denies() {
        let policy = "package io.choria.aaasvc\nallow if { 1 == 2 }";
        assert!(matches!(evaluate(policy, |_| ()), Verdict::Deny(_)));
        assert!(matches!(evaluate("", |_| ()), Verdict::Error(_)));
        assert!(matches!(evaluate("package other\nallow := true", |_| ()), Verdict::Deny(_)));
        choria_rows::row(205, "allow if { 1 == 2 } without the import, at the signer", "denied");
    }
}
