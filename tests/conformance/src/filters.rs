//! Whether a node is meant, without regular expressions and without compound expressions, as on every device.

use core::fmt::Write;

use agent_core::filter::{
    FactFailure, Filter, NoExpressions, NoRegex, Node, fact_matches, parse_fact_expression,
};

use crate::Buffers;
use crate::case::{Fault, Fields};

/// Most agents and classes of a case.
const NAMES: usize = 16;

pub(crate) fn filter(
    fields: &mut Fields<'_>,
    buffers: &mut Buffers<'_>,
    out: &mut dyn Write,
) -> Result<(), Fault> {
    let (identity, agents) = (fields.text()?, fields.texts::<NAMES>()?);
    let (classes, facts, filter) = (fields.texts::<NAMES>()?, fields.bytes()?, fields.bytes()?);
    let node = Node { identity, agents: &agents, classes: &classes, facts };
    match Filter::parse(filter) {
        Ok(filter) => {
            let matches = filter.matches(&node, &NoRegex, &NoExpressions, buffers.scratch);
            let narrow = filter.is_restrictive();
            Ok(write!(out, "{} restrictive={narrow}", if matches { "match" } else { "no match" })?)
        }
        Err(error) => Ok(write!(out, "refused {error}")?),
    }
}

/// One letter for each value: it compares, it does not, the comparison fails, it needs regular expressions.
pub(crate) fn facts(
    fields: &mut Fields<'_>,
    buffers: &mut Buffers<'_>,
    out: &mut dyn Write,
) -> Result<(), Fault> {
    let (facts, path, operator) = (fields.bytes()?, fields.text()?, fields.text()?);
    for _ in 0..fields.size()? {
        let value = fields.text()?;
        out.write_char(match fact_matches(facts, path, operator, value, &NoRegex, buffers.scratch) {
            Ok(true) => 't',
            Ok(false) => 'f',
            Err(FactFailure::Pattern) => 'p',
            Err(_) => 'e',
        })?;
    }
    Ok(())
}

pub(crate) fn expression(fields: &mut Fields<'_>, out: &mut dyn Write) -> Result<(), Fault> {
    match parse_fact_expression(fields.text()?) {
        Some(found) => Ok(write!(out, "ok {:?} {:?} {:?}", found.fact, found.operator, found.value)?),
        None => Ok(write!(out, "refused")?),
    }
}
