//! What a policy may ask about the request beyond its input: the filter, and the time.
//!
//! The functions `requires_filter`, `requires_fact_filter`, `requires_class_filter` and `requires_identity_filter` are
//! described in `docs/spec/05 §9.2`. On a request without any filter they are false, never an error.

use std::sync::{Arc, Mutex, PoisonError};

use regorus::{Engine, Value};

/// The filter of a request as policies see it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestFilter {
    pub facts: Vec<FactFilter>,
    pub classes: Vec<String>,
    pub identities: Vec<String>,
    /// True when the request carries at least one compound filter.
    pub compound: bool,
}

/// One fact comparison, for example `country == mt`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FactFilter {
    pub fact: String,
    /// One of `==`, `!=`, `<`, `<=`, `>`, `>=`, `=~`.
    pub operator: String,
    pub value: String,
}

impl RequestFilter {
    /// Any identity, class, fact or compound filter. Agent filters do not count: every request has one.
    pub fn is_set(&self) -> bool {
        !self.facts.is_empty() || !self.classes.is_empty() || !self.identities.is_empty() || self.compound
    }

    fn has_fact(&self, wanted: &str) -> bool {
        FactFilter::parse(wanted).is_some_and(|wanted| {
            self.facts.iter().any(|have| {
                have.fact == wanted.fact
                    && normal_operator(&have.operator) == wanted.operator
                    && have.value == wanted.value
            })
        })
    }
}

impl FactFilter {
    /// Reads `fact=value`, `fact>=value`, `fact=~/pattern/` and the like, with the operator in its normal form.
    pub fn parse(text: &str) -> Option<FactFilter> {
        let start = text.find(['=', '!', '<', '>'])?;
        let (fact, rest) = text.split_at_checked(start)?;
        // Longer operators first, or "<=" would be read as "<" and "=…".
        let operator = ["==", "=~", "=<", "=>", "!=", "<=", ">=", "<", ">", "="]
            .into_iter()
            .find(|o| rest.starts_with(o))?;
        let value = rest.strip_prefix(operator)?;
        let fact = fact.trim();
        (!fact.is_empty()).then(|| FactFilter {
            fact: fact.to_owned(),
            operator: normal_operator(operator).to_owned(),
            value: value.trim().to_owned(),
        })
    }
}

fn normal_operator(operator: &str) -> &str {
    match operator {
        "=" => "==",
        "=<" => "<=",
        "=>" => ">=",
        other => other,
    }
}

/// The circumstances of one evaluation.
#[derive(Debug, Clone, Default)]
pub struct Extensions {
    /// The request's filter; `None` where policies have no filter functions to ask (they then answer false).
    pub filter: Option<Arc<RequestFilter>>,
    /// `time.now_ns()`, fixed for the whole evaluation: nanoseconds since 1970.
    pub now_ns: i64,
}

/// Where the functions of one engine find the request under evaluation.
#[derive(Debug, Clone, Default)]
pub(super) struct RequestSlot(Arc<Mutex<Extensions>>);

impl RequestSlot {
    pub(super) fn fill(&self, ext: Extensions) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = ext;
    }

    pub(super) fn clear(&self) {
        self.fill(Extensions::default());
    }

    fn ask(&self, question: impl Fn(&RequestFilter) -> bool) -> Value {
        let ext = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Value::Bool(ext.filter.as_deref().is_some_and(question))
    }

    fn now_ns(&self) -> i64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).now_ns
    }
}

/// One text argument, or `None` when the policy passed something else (then the call is undefined).
pub(super) fn text_argument(arguments: &[Value]) -> Option<&str> {
    match arguments.first() {
        Some(Value::String(text)) => Some(text.as_ref()),
        _ => None,
    }
}

pub(super) fn register(engine: &mut Engine, slot: &RequestSlot) {
    let mut add = |name: &str, arity: u8, function: Box<dyn regorus::Extension>| {
        // Fails only for a name that is already taken, and each is added once to a fresh clone.
        let added = engine.add_extension(name.to_owned(), arity, function);
        debug_assert!(added.is_ok(), "extension {name} registered twice");
    };
    let s = slot.clone();
    add("requires_filter", 0, Box::new(move |_: Vec<Value>| Ok(s.ask(RequestFilter::is_set))));
    let s = slot.clone();
    add(
        "requires_fact_filter",
        1,
        Box::new(move |a: Vec<Value>| {
            Ok(text_argument(&a).map_or(Value::Undefined, |wanted| s.ask(|filter| filter.has_fact(wanted))))
        }),
    );
    let s = slot.clone();
    add(
        "requires_class_filter",
        1,
        Box::new(move |a: Vec<Value>| {
            Ok(text_argument(&a)
                .map_or(Value::Undefined, |w| s.ask(|f| f.classes.iter().any(|class| class == w))))
        }),
    );
    let s = slot.clone();
    add(
        "requires_identity_filter",
        1,
        Box::new(move |a: Vec<Value>| {
            Ok(text_argument(&a)
                .map_or(Value::Undefined, |w| s.ask(|f| f.identities.iter().any(|name| name == w))))
        }),
    );
    let s = slot.clone();
    add("time.now_ns", 0, Box::new(move |_: Vec<Value>| Ok(Value::from(s.now_ns()))));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fact_filters_are_compared_in_their_normal_form() {
        let filter = RequestFilter {
            facts: vec![
                FactFilter { fact: "country".into(), operator: "==".into(), value: "mt".into() },
                FactFilter { fact: "cpus".into(), operator: ">=".into(), value: "2".into() },
                FactFilter { fact: "os".into(), operator: "=~".into(), value: "/red/".into() },
            ],
            ..RequestFilter::default()
        };
        for wanted in ["country=mt", "country==mt", "cpus=>2", "cpus>=2", "os=~/red/"] {
            assert!(filter.has_fact(wanted), "{wanted}");
        }
        for wanted in ["country=de", "country!=mt", "cpus>2", "cpus", "", "=mt"] {
            assert!(!filter.has_fact(wanted), "{wanted}");
        }
    }
}
