//! Randomness for keys, nonces and identifiers: the kernel's generator, nothing weaker.

/// Fills `buffer` from the kernel's generator.
///
/// If the kernel has none to give the process ends: a key or nonce made from anything else would be worse
/// than no process (docs/spec/10 §7). On Linux this happens only where the `getrandom` call is forbidden.
pub fn fill(buffer: &mut [u8]) {
    if let Err(error) = getrandom::fill(buffer) {
        tracing::error!(%error, "the kernel gives no random bytes; refusing to go on without them");
        std::process::abort();
    }
}

/// `N` random bytes.
pub fn array<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    fill(&mut bytes);
    bytes
}

/// A whole number in `[0, bound)`, for splays and jitter; 0 when `bound` is 0. The bias of the remainder is
/// below 2^-32 for every bound that fits in 32 bits, so not for keys.
pub fn below(bound: u32) -> u32 {
    if bound == 0 {
        return 0;
    }
    u32::try_from(u64::from_le_bytes(array()) % u64::from(bound)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_draws_differ() {
        assert_ne!(array::<32>(), array::<32>());
    }

    #[test]
    fn below_stays_below() {
        assert_eq!(below(0), 0);
        assert!((0..1000).all(|_| below(7) < 7));
    }
}
