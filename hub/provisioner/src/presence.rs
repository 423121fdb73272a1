//! What a broker in the same process can tell about names; with a broker elsewhere nobody can.

/// A live connection in the account of nodes that are no members yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its address, without the port.
    pub address: String,
    /// SHA-256, in hex, of the provisioning token it was admitted with.
    pub token_sha256: String,
}

/// The broker's view (`docs/spec/10` V1, V2, V4, V13).
pub trait Presence: Send + Sync {
    /// Candidates that are connected under this name, the newest last.
    fn candidates(&self, identity: &str) -> Vec<Candidate>;
    /// Whether a member of this name is connected.
    fn member_online(&self, identity: &str) -> bool;
}
