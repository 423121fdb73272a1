//! Making password hashes for the user list.

use crate::user::MAX_COST;

/// A cost that takes a server about a twentieth of a second.
pub const DEFAULT_COST: u32 = 10;

/// Why a password was not hashed.
#[derive(Debug, thiserror::Error)]
pub enum CryptError {
    #[error("the password is empty")]
    Empty,
    #[error("the password is longer than 72 bytes, of which bcrypt would ignore the rest")]
    TooLong,
    #[error("the cost is {0}; give between 4 and {MAX_COST}")]
    Cost(u32),
    #[error("bcrypt failed: {0}")]
    Failed(String),
}

/// The bcrypt hash of a password, as `choria aaa crypt` prints it.
///
/// # Errors
/// An empty or too long password, a cost outside 4 to 15.
pub fn crypt(password: &str, cost: u32) -> Result<String, CryptError> {
    if password.is_empty() {
        return Err(CryptError::Empty);
    }
    if password.len() > 72 {
        return Err(CryptError::TooLong);
    }
    if !(4..=MAX_COST).contains(&cost) {
        return Err(CryptError::Cost(cost));
    }
    bcrypt::hash(password, cost).map_err(|error| CryptError::Failed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_verify_and_bad_wishes_are_refused() {
        let hash = crypt("s3cret", 4).expect("a hash");
        assert!(bcrypt::verify("s3cret", &hash).expect("verified"));
        assert!(matches!(crypt("", 4), Err(CryptError::Empty)));
        assert!(matches!(crypt("x", 16), Err(CryptError::Cost(16))));
        assert!(matches!(crypt(&"x".repeat(73), 4), Err(CryptError::TooLong)));
    }
}
