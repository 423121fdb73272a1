//! Which Rego is this? A security decision, not a convenience.
//!
//! To a v0 reader `if` is an ordinary name, so `allow if { 1 == 2 }` reads there as two rules of which the first one
//! allows everything. Therefore v1 is tried first, and v0 only when the text carries no sign of v1 at all.

use regorus::Engine;

use super::{PolicyError, first_line, guard::Signs};

/// The dialect in which a policy was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    V0,
    V1,
}

pub(super) fn load(
    text: &str,
    signs: &Signs,
    new_engine: fn() -> Engine,
) -> Result<(Engine, Dialect), PolicyError> {
    let mut engine = new_engine();
    let v1 = match engine.add_policy("policy.rego".to_owned(), text.to_owned()) {
        Ok(_) => return Ok((engine, Dialect::V1)),
        Err(error) => first_line(&error.to_string()),
    };
    if let Some(why) = signs.v1 {
        return Err(PolicyError::OnlyV1 { v1, why });
    }
    let mut engine = new_engine();
    engine.set_rego_v0(true);
    match engine.add_policy("policy.rego".to_owned(), text.to_owned()) {
        Ok(_) => Ok((engine, Dialect::V0)),
        Err(error) => Err(PolicyError::Neither { v1, v0: first_line(&error.to_string()) }),
    }
}
