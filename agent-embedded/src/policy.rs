//! May this caller run this action? (docs/spec/08 §7.4)
//!
//! A device reads the list of actions in the caller's token. It cannot evaluate a policy; where the image says so it takes
//! the word of the organization's delegated signer, who has.

use agent_core::rpc::Call;
use agent_core::token::peek_client;

/// `Err` holds the reason, for the log only; the caller hears one fixed sentence.
pub(crate) fn decide(call: &Call<'_>, trust_signer: bool, scratch: &mut [u8]) -> Result<(), &'static str> {
    // The gate has verified the token; this reads it once more.
    let token = peek_client(call.caller_token, scratch).map_err(|reject| reject.reason())?;
    let claims = token.claims();
    let agents = claims.agents.filter(|agents| !agents.is_empty());
    match (agents, claims.policy_bytes > 0) {
        (None, false) => Err("no policy received in token"),
        (Some(_), true) => Err("the token holds both an action list and a policy"),
        (Some(agents), false) => match agents.allows(call.agent, call.action) {
            Ok(true) => Ok(()),
            Ok(false) => Err("the action list does not name this action"),
            Err(_) => Err("an entry of the action list is not of the form agent.action"),
        },
        (None, true) if trust_signer && !call.signer_token.is_empty() => Ok(()),
        (None, true) => Err("device cannot evaluate rego"),
    }
}
