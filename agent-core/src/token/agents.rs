//! The list of agents a token allows (`docs/spec/03 §8.2`).

use crate::json::Value;

/// An entry of the list that is neither `*`, `agent.*` nor `agent.action`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AgentsInvalid;

/// The `agents` claim: a JSON list of `*`, `agent.*` and `agent.action`.
#[derive(Debug, Clone, Copy)]
pub struct AgentList<'s>(&'s [u8]);

impl<'s> AgentList<'s> {
    pub(super) fn over(raw: &'s [u8]) -> AgentList<'s> {
        AgentList(raw)
    }

    pub fn is_empty(&self) -> bool {
        self.elements().next().is_none()
    }

    /// Whether an entry allows the action. Entries count in order: one that is malformed ends the search, an earlier
    /// match wins.
    pub fn allows(&self, agent: &str, action: &str) -> Result<bool, AgentsInvalid> {
        for entry in self.elements() {
            let entry = entry.as_text().ok_or(AgentsInvalid)?;
            if entry.is("*") {
                return Ok(true);
            }
            let mut room = [0; 256];
            let entry = entry.unescape(&mut room).map_err(|_| AgentsInvalid)?;
            let (of_agent, of_action) = entry.split_once('.').ok_or(AgentsInvalid)?;
            if of_action.contains('.') {
                return Err(AgentsInvalid);
            }
            if of_agent == agent && (of_action == "*" || of_action == action) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn elements(&self) -> impl Iterator<Item = Value<'s>> + use<'s> {
        Value::parse(self.0).ok().and_then(|list| list.elements()).into_iter().flatten()
    }
}
