//! Keys and tokens on hosts: Ed25519 seeds and public keys, RSA signers of older deployments, and the three kinds of
//! Choria token (client, server, provisioning) with their trust chain. Formats: docs/spec/01 §6; rules that go beyond
//! them: docs/spec/10 §5.1.
//!
//! * A token that has only been read is an [`Unverified`]; only a [`Verifier`] makes a [`Verified`]. Functions that need
//!   authority take the latter.
//! * The algorithm is chosen by the configured key's family, never by the token's header.
//! * Time comes in as an argument, in seconds since 1970; there is no leeway.

mod chain;
pub mod claims;
mod compact;
mod issuer;
mod json;
mod key;
pub mod ksuid;
pub mod names;
mod private_id;
mod provider;
mod published;
mod reject;
mod rsa;
mod signing_key;
mod vault;
mod verifier;

pub use chain::{ChainIssuerRef, TrustChain};
pub use claims::{ClientClaims, ProvisioningClaims, Purpose, ServerClaims};
pub use compact::{
    MAX_TOKEN, Unverified, is_ed25519_signed, peek_client, peek_provisioning, peek_server, purpose_of,
    read_purpose,
};
pub use issuer::{IssueError, Issuer};
pub use key::{Key, KeyError, NonceRefused, PublicKey, Seed, nonce_is_signable};
pub use private_id::{private_network_id, private_network_id_sha256};
pub use published::is_published_test_key;
pub use reject::Reject;
pub use rsa::{RsaPrivateKey, RsaPublicKey};
pub use signing_key::SigningKey;
pub use vault::{VaultError, VaultKey};
pub use verifier::{Verified, Verifier};
