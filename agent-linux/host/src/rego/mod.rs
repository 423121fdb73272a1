//! Rego policies from tokens and files, evaluated so that hostile text can only ever deny.
//!
//! Policies reach a signer or a node inside tokens, so the text is treated as an attacker's. Everything that could make
//! the interpreter run for ever, exhaust memory or overflow the stack is refused before it runs:
//!
//! * the text is at most [`MAX_POLICY_BYTES`], its brackets and its call graph are bounded ([`guard`]);
//! * Rego v1 is tried first; v0 only when nothing in the text looks like v1 ([`dialect`]);
//! * an evaluation ends after [`EVALUATION_LIMIT`]; builtins whose output can outgrow their input are capped ([`bounded`]);
//! * only exactly `true` allows. Undefined, a non-boolean, a conflict and every error deny, with the reason.
//!
//! Sources: `docs/spec/05 §9.2`, `docs/spec/10 §5.5 S11`.

use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use regorus::utils::limits::{ExecutionTimerConfig, PolicyLengthConfig};
use regorus::{Engine, Value};

mod bounded;
mod cache;
mod dialect;
mod guard;
mod request;
mod time;

pub use cache::PolicyCache;
pub use dialect::Dialect;
pub use request::{Extensions, FactFilter, RequestFilter};

use request::RequestSlot;

/// Largest policy text, bytes.
pub const MAX_POLICY_BYTES: usize = 64 * 1024;
/// Longest evaluation; after this the answer is "deny".
pub const EVALUATION_LIMIT: Duration = Duration::from_millis(200);
/// Prepared engines kept per policy. More callers at once only pay for a clone.
const IDLE_ENGINES: usize = 8;

/// Why a policy text cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    #[error("the policy is empty")]
    Empty,
    #[error("the policy is {size} bytes long; at most {MAX_POLICY_BYTES} are accepted")]
    TooLong { size: usize },
    #[error("the policy nests brackets {depth} levels deep; at most {limit} are accepted")]
    Nesting { depth: usize, limit: usize },
    #[error(
        "the policy's bracketed literals are too many and too deep to be parsed in bounded time; flatten them"
    )]
    NestingBudget,
    #[error("rule '{name}' refers to itself, directly or through other rules")]
    Recursion { name: String },
    #[error("the policy's rules and expressions nest {depth} levels deep; at most {limit} are accepted")]
    Depth { depth: usize, limit: usize },
    #[error("the policy refers to '{reference}': name one rule of the policy's own package instead")]
    WholePackage { reference: String },
    #[error("the policy uses '{name}', which is not available to policies")]
    Unavailable { name: String },
    #[error("the policy is not valid Rego v1: {v1}; it was not tried as Rego v0 because {why}")]
    OnlyV1 { v1: String, why: &'static str },
    #[error("the policy is neither valid Rego v1 ({v1}) nor valid Rego v0 ({v0})")]
    Neither { v1: String, v0: String },
    #[error("the policy cannot be read: {0}")]
    Lexical(String),
}

/// The outcome of one evaluation. A denial always says why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    Allow,
    Deny(String),
}

impl Decision {
    /// True only for [`Decision::Allow`].
    pub fn allowed(&self) -> bool {
        matches!(self, Decision::Allow)
    }
}

/// A checked, prepared policy. Cloning is cheap and shares the prepared engines.
#[derive(Clone)]
pub struct Policy {
    shared: Arc<Shared>,
}

struct Shared {
    dialect: Dialect,
    template: Mutex<Engine>,
    idle: Mutex<Vec<Prepared>>,
}

/// An engine with the slot that its request functions read.
struct Prepared {
    engine: Engine,
    slot: RequestSlot,
}

impl std::fmt::Debug for Policy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The text of a policy is not for logs: docs/spec/10 §10.
        f.debug_struct("Policy").field("dialect", &self.shared.dialect).finish_non_exhaustive()
    }
}

impl Policy {
    /// Checks and prepares a policy. Use [`Policy::cached`] where the same text arrives again and again.
    pub fn parse(text: &str) -> Result<Policy, PolicyError> {
        if text.trim().is_empty() {
            return Err(PolicyError::Empty);
        }
        if text.len() > MAX_POLICY_BYTES {
            return Err(PolicyError::TooLong { size: text.len() });
        }
        let signs = guard::scan(text)?;
        let (mut engine, dialect) = dialect::load(text, &signs, new_engine)?;
        guard::check_rules(&mut engine)?;
        bounded::register(&mut engine);
        time::register(&mut engine);
        Ok(Policy {
            shared: Arc::new(Shared { dialect, template: Mutex::new(engine), idle: Mutex::new(Vec::new()) }),
        })
    }

    /// As [`Policy::parse`], through a process-wide [`PolicyCache`]. Refusals are remembered too, so that a hostile
    /// text cannot be made to cost its parse again and again.
    pub fn cached(text: &str) -> Result<Policy, PolicyError> {
        cache::shared().get(text)
    }

    /// The dialect in which the text was read.
    pub fn dialect(&self) -> Dialect {
        self.shared.dialect
    }

    /// Evaluates `rule`, a full path such as `data.io.choria.aaasvc.allow`, on `input`.
    pub fn allow(&self, rule: &str, input: &serde_json::Value, ext: Extensions) -> Decision {
        let mut prepared = self.take();
        prepared.slot.fill(ext);
        prepared.engine.set_input(Value::from(input.clone()));
        match prepared.engine.eval_rule(rule.to_owned()) {
            Ok(value) => {
                let decision = decide(rule, &value);
                self.give_back(prepared);
                decision
            }
            // The engine's state after an error is not worth trusting: it is dropped.
            Err(error) => Decision::Deny(first_line(&error.to_string())),
        }
    }

    fn take(&self) -> Prepared {
        let idle = self.shared.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        idle.unwrap_or_else(|| {
            let mut engine = self.shared.template.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let slot = RequestSlot::default();
            request::register(&mut engine, &slot);
            Prepared { engine, slot }
        })
    }

    fn give_back(&self, mut prepared: Prepared) {
        prepared.slot.clear();
        prepared.engine.set_input(Value::Undefined);
        // Gathered prints of a policy are discarded, not written to our standard error.
        let _discarded = prepared.engine.take_prints();
        let mut idle = self.shared.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_ENGINES {
            idle.push(prepared);
        }
    }
}

fn new_engine() -> Engine {
    let mut engine = Engine::new();
    engine.set_strict_builtin_errors(false);
    engine.set_gather_prints(true);
    engine.set_execution_timer_config(ExecutionTimerConfig {
        limit: EVALUATION_LIMIT,
        // At every step: sixty squarings of a number are few steps, and each may take as long as all before it.
        check_interval: NonZeroU32::MIN,
    });
    engine.set_policy_length_config(PolicyLengthConfig {
        // A policy on one line is ugly, not dangerous: the byte limit bounds it.
        max_col: NonZeroU32::new(256 * 1024).unwrap_or(NonZeroU32::MIN),
        max_file_bytes: NonZeroUsize::new(MAX_POLICY_BYTES).unwrap_or(NonZeroUsize::MIN),
        max_lines: NonZeroUsize::new(MAX_POLICY_BYTES).unwrap_or(NonZeroUsize::MIN),
    });
    engine
}

fn decide(rule: &str, value: &Value) -> Decision {
    match value {
        Value::Bool(true) => Decision::Allow,
        Value::Bool(false) => Decision::Deny("the policy denies".to_owned()),
        Value::Undefined => Decision::Deny(format!("{rule} is undefined for this request")),
        _ => Decision::Deny(format!("{rule} is not a boolean")),
    }
}

/// The interpreter's messages are several lines with source excerpts; a log wants the one that says what happened.
fn first_line(message: &str) -> String {
    let line = message
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with("-->") && !line.starts_with('|'))
        .find(|line| line.contains("error"))
        .or_else(|| message.lines().map(str::trim).find(|line| !line.is_empty()))
        .unwrap_or("the policy failed");
    line.chars().filter(|c| !c.is_control()).take(256).collect()
}

#[cfg(test)]
mod tests;
