//! Provider `aaasvc`: the policy travels in the caller's token, as a list of actions or as Rego
//! (docs/spec/03 §8.2).

use std::sync::Arc;

use choria_host::rego::{Decision, Extensions, Policy, RequestFilter};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Question, Verdict};
use crate::node_token;

/// The rule a policy must define.
const RULE: &str = "data.io.choria.aaasvc.allow";

/// What a token says about a question.
#[derive(Debug)]
pub(super) enum Ruling {
    Settled(Verdict),
    /// A policy must be asked, which takes time.
    Computed(Box<Computation>),
}

/// A policy and its question, ready to be taken to another thread.
#[derive(Debug)]
pub(super) struct Computation {
    policy: String,
    input: Value,
    filter: RequestFilter,
}

pub(super) fn read(question: &Question<'_>) -> Ruling {
    let settled = |verdict| Ruling::Settled(verdict);
    let claims: Value = match node_token::claims(question.caller_token) {
        Ok(claims) => claims,
        Err(reason) => return settled(deny(format!("the caller's token cannot be read: {reason}"))),
    };
    let agents = claims.get("agents").and_then(Value::as_array).filter(|list| !list.is_empty());
    let policy = claims.get("opa_policy").and_then(Value::as_str).filter(|text| !text.is_empty());
    match (agents, policy) {
        (None, None) => settled(deny("no policy received in token".to_owned())),
        (Some(_), Some(_)) => settled(deny("the token holds both an action list and a policy".to_owned())),
        (Some(agents), None) => settled(by_list(agents, question.agent, question.action)),
        (None, Some(policy)) => by_rego(policy, &claims, question),
    }
}

fn deny(reason: String) -> Verdict {
    Verdict::Deny(reason)
}

/// `*`, `agent.*` and `agent.action`, in order: an entry of another form denies unless an earlier one allowed.
fn by_list(entries: &[Value], agent: &str, action: &str) -> Verdict {
    for entry in entries {
        let Some(entry) = entry.as_str() else {
            return deny("an entry of the action list is no text".to_owned());
        };
        if entry == "*" {
            return Verdict::Allow;
        }
        let mut parts = entry.split('.');
        let (Some(of_agent), Some(of_action), None) = (parts.next(), parts.next(), parts.next()) else {
            return deny("an entry of the action list is not of the form agent.action".to_owned());
        };
        if of_agent == agent && (of_action == "*" || of_action == action) {
            return Verdict::Allow;
        }
    }
    deny("the action list does not name this action".to_owned())
}

fn by_rego(text: &str, claims: &Value, question: &Question<'_>) -> Ruling {
    let data: Value = match serde_json::from_slice(question.data) {
        Ok(data @ Value::Object(_)) => data,
        _ => return Ruling::Settled(deny("the inputs are not a JSON object".to_owned())),
    };
    let time = Timestamp::from_nanosecond(i128::from(question.time_nanos)).unwrap_or(Timestamp::UNIX_EPOCH);
    let input = json!({
        "agent": question.agent,
        "action": question.action,
        "data": data,
        "sender": question.sender,
        "collective": question.collective,
        "ttl": question.ttl_seconds,
        "time": time.to_string(),
        "site": "server",
        "claims": claims,
    });
    Ruling::Computed(Box::new(Computation {
        policy: text.to_owned(),
        input,
        filter: question.filter.clone(),
    }))
}

impl Computation {
    pub(super) fn decide(self) -> Verdict {
        let policy = match Policy::cached(&self.policy) {
            Ok(policy) => policy,
            Err(error) => return deny(format!("the policy in the token cannot be used: {error}")),
        };
        let extensions =
            Extensions { filter: Some(Arc::new(self.filter)), now_ns: choria_host::clock::unix_nanos() };
        match policy.allow(RULE, &self.input, extensions) {
            Decision::Allow => Verdict::Allow,
            Decision::Deny(reason) => deny(reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Known;
    use super::*;
    use crate::node_token::tests::token;

    fn decide(question: &Question<'_>) -> Verdict {
        match read(question) {
            Ruling::Settled(verdict) => verdict,
            Ruling::Computed(policy) => policy.decide(),
        }
    }

    fn ask(claims: &Value, agent: &str, action: &str, data: &str) -> Verdict {
        let token = token(claims);
        decide(&Question {
            agent,
            action,
            data: data.as_bytes(),
            caller: "up=ann",
            sender: "cli",
            collective: "choria",
            ttl_seconds: 60,
            time_nanos: 1_714_557_600_000_000_000,
            caller_token: &token,
            filter: RequestFilter { identities: vec!["n1".into()], ..RequestFilter::default() },
            node: &Known::default(),
        })
    }

    fn allowed(claims: &Value, agent: &str, action: &str) -> bool {
        ask(claims, agent, action, "{}") == Verdict::Allow
    }

    #[test]
    fn t_248_action_lists() {
        let list = |entries: Value| json!({"callerid":"up=ann","agents":entries});
        assert!(allowed(&list(json!(["*"])), "rpcutil", "ping"));
        assert!(allowed(&list(json!(["rpcutil.*"])), "rpcutil", "ping"));
        assert!(allowed(&list(json!(["other.x", "rpcutil.ping"])), "rpcutil", "ping"));
        assert!(!allowed(&list(json!(["rpcutil.inventory"])), "rpcutil", "ping"));
        assert!(!allowed(&list(json!(["puppet.*"])), "rpcutil", "ping"));
        assert!(!allowed(&list(json!(["*.ping"])), "rpcutil", "ping"));
        // A malformed entry before a match denies, after a match it is not reached.
        assert!(!allowed(&list(json!(["rpcutil", "rpcutil.ping"])), "rpcutil", "ping"));
        assert!(allowed(&list(json!(["rpcutil.ping", "a.b.c"])), "rpcutil", "ping"));
        assert!(!allowed(&list(json!([7, "*"])), "rpcutil", "ping"));
        choria_rows::row(248, "a malformed entry before and after a match", "denied, allowed");
    }

    #[test]
    fn t_247_exactly_one_policy() {
        let neither = json!({"callerid":"up=ann","agents":[],"opa_policy":""});
        assert_eq!(ask(&neither, "a", "b", "{}"), Verdict::Deny("no policy received in token".into()));
        let both = json!({"agents":["*"],"opa_policy":"package io.choria.aaasvc\ndefault allow := true"});
        assert!(!allowed(&both, "a", "b"));
        assert!(matches!(
            decide(&Question {
                agent: "a",
                action: "b",
                data: b"{}",
                caller: "",
                sender: "",
                collective: "",
                ttl_seconds: 1,
                time_nanos: 0,
                caller_token: "",
                filter: RequestFilter::default(),
                node: &Known::default()
            }),
            Verdict::Deny(_)
        ));
        choria_rows::row(247, "a list and a policy, neither, no token", "denied");
    }

    #[test]
    fn t_248_rego_sees_the_request() {
        let policy = "package io.choria.aaasvc\n\ndefault allow := false\n\nallow if {\n  input.agent == \"myco\"\n  input.action == \"deploy\"\n  input.data.component == \"frontend\"\n  input.claims.user_properties.group == \"admins\"\n  input.site == \"server\"\n  input.time == \"2024-05-01T10:00:00Z\"\n  requires_filter()\n  requires_identity_filter(\"n1\")\n}\n";
        let claims = json!({"callerid":"up=ann","opa_policy":policy,"user_properties":{"group":"admins"}});
        assert_eq!(ask(&claims, "myco", "deploy", r#"{"component":"frontend"}"#), Verdict::Allow);
        assert!(matches!(ask(&claims, "myco", "deploy", r#"{"component":"db"}"#), Verdict::Deny(_)));
        assert!(matches!(ask(&claims, "myco", "deploy", "[]"), Verdict::Deny(_)));
        let broken = json!({"opa_policy":"package io.choria.aaasvc\nallow if {"});
        assert!(matches!(ask(&broken, "myco", "deploy", "{}"), Verdict::Deny(_)));
        let elsewhere = json!({"opa_policy":"package other\nallow := true"});
        assert!(matches!(ask(&elsewhere, "myco", "deploy", "{}"), Verdict::Deny(_)));
        choria_rows::row(248, "a policy that does not compile, one of another package", "denied");
    }
}
