//! Tokens as a node sees them: compact JWTs signed by Ed25519, directly by an organization's issuer or through one chain
//! issuer (`docs/spec/01 §6`).
//!
//! Claims are decoded once into the caller's scratch; the policy a token may carry is measured but not kept, so that its
//! size costs receive buffer only (`docs/spec/08 §6.2`). What verification proved is a type: only [`Verifier`] makes a
//! [`Verified`].
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod agents;
mod chain;
mod claims;
mod compact;
mod kinds;
mod permissions;
mod proven;
mod reject;
mod verifier;

pub use agents::{AgentList, AgentsInvalid};
pub use chain::ChainIssuer;
pub use compact::decode_claims;
pub use kinds::{ClientClaims, Kind, ProvisioningClaims, ServerClaims};
pub use permissions::Permissions;
pub use proven::Proven;
pub use reject::Reject;
pub use verifier::{
    Issuer, Trust, Unverified, Verified, Verifier, peek_client, peek_provisioning, peek_server,
};
