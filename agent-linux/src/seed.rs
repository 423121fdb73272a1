//! The node's own Ed25519 seed: 64 hex digits in a private file.

use std::path::{Path, PathBuf};

use agent_core::nonce::public_key;
use choria_host::private_file::{self, PrivateFileError};
use zeroize::Zeroizing;

/// Why a seed file is not usable.
#[derive(Debug, thiserror::Error)]
pub enum SeedError {
    #[error(transparent)]
    File(#[from] PrivateFileError),
    #[error("{} is not a seed: 64 hex digits of a random key are needed", path.display())]
    Malformed { path: PathBuf },
}

impl SeedError {
    /// Whether the file simply is not there.
    pub fn is_missing(&self) -> bool {
        matches!(self, SeedError::File(error) if error.is_missing())
    }
}

/// The 32 bytes of an Ed25519 private key; wiped when dropped, never printed.
pub struct NodeSeed {
    bytes: Zeroizing<[u8; 32]>,
    public_key: [u8; 32],
}

impl std::fmt::Debug for NodeSeed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NodeSeed(*****)")
    }
}

impl NodeSeed {
    /// A new seed from the kernel's generator.
    pub fn generate() -> Self {
        loop {
            if let Some(seed) = NodeSeed::from_bytes(choria_host::random::array()) {
                return seed;
            }
        }
    }

    /// A seed from its bytes; `None` for 32 zeros, which are no key.
    pub fn from_bytes(bytes: [u8; 32]) -> Option<Self> {
        let bytes = Zeroizing::new(bytes);
        Some(NodeSeed { public_key: public_key(&bytes)?, bytes })
    }

    /// Reads a seed file; surrounding white space is ignored.
    ///
    /// # Errors
    /// The file cannot be read or does not hold 64 hex digits.
    pub fn load(path: &Path) -> Result<Self, SeedError> {
        let text = private_file::read_secret(path)?;
        let mut bytes = Zeroizing::new([0u8; 32]);
        hex::decode_to_slice(text.expose(), bytes.as_mut_slice())
            .map_err(|_| SeedError::Malformed { path: path.to_path_buf() })?;
        NodeSeed::from_bytes(*bytes).ok_or_else(|| SeedError::Malformed { path: path.to_path_buf() })
    }

    /// Lower-case hex of the public key.
    pub fn public_key(&self) -> String {
        hex::encode(self.public_key)
    }

    /// The bytes, to lend to the session that proves them to the broker.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.bytes
    }

    /// The text of the seed file: 64 lower-case hex digits, no newline.
    pub(crate) fn file_text(&self) -> Zeroizing<String> {
        Zeroizing::new(hex::encode(self.bytes.as_slice()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_public_key_of_the_reference_seed() {
        let mut bytes = [0u8; 32];
        for (at, byte) in (0u8..).zip(bytes.iter_mut()) {
            *byte = at;
        }
        let seed = NodeSeed::from_bytes(bytes).unwrap();
        assert_eq!(seed.public_key(), "03a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8");
        assert_eq!(format!("{seed:?}"), "NodeSeed(*****)");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("server.seed");
        std::fs::write(&path, format!("{}\n", *seed.file_text())).unwrap();
        assert_eq!(NodeSeed::load(&path).unwrap().public_key(), seed.public_key());
        std::fs::write(&path, "00").unwrap();
        assert!(matches!(NodeSeed::load(&path), Err(SeedError::Malformed { .. })));
        assert!(NodeSeed::load(&dir.path().join("none")).unwrap_err().is_missing());
    }
}
