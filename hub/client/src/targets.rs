//! How many of the discovered nodes are asked, and in which groups (docs/spec/07 §4.4).

use std::str::FromStr;

use crate::{ClientError, LimitMethod};

/// A number of nodes, or a share of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Amount {
    Nodes(usize),
    /// 1 to 100.
    Percent(u8),
}

impl FromStr for Amount {
    type Err = ClientError;

    fn from_str(text: &str) -> Result<Self, ClientError> {
        let bad = || ClientError::BadLimit { text: text.to_owned() };
        let trimmed = text.trim();
        match trimmed.strip_suffix('%') {
            Some(percent) => {
                let percent: u8 = percent.trim().parse().map_err(|_| bad())?;
                if (1..=100).contains(&percent) { Ok(Self::Percent(percent)) } else { Err(bad()) }
            }
            None => match trimmed.parse() {
                Ok(nodes) if nodes > 0 => Ok(Self::Nodes(nodes)),
                _ => Err(bad()),
            },
        }
    }
}

impl std::fmt::Display for Amount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Nodes(nodes) => write!(f, "{nodes}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

impl Amount {
    /// How many of `total` that is, rounded down.
    pub fn of(self, total: usize) -> usize {
        match self {
            Self::Nodes(nodes) => nodes.min(total),
            Self::Percent(percent) => total.saturating_mul(usize::from(percent)) / 100,
        }
    }
}

/// Keeps `limit` of the nodes: the first ones, or a random choice that a seed makes repeatable.
///
/// The random choice is a Fisher-Yates shuffle of the sorted identities driven by SplitMix64, the same in every
/// version.
///
/// # Errors
/// [`ClientError::NoTargetsLeft`] when nothing remains.
pub fn limit(
    mut nodes: Vec<String>,
    limit: Amount,
    method: LimitMethod,
    seed: u64,
) -> Result<Vec<String>, ClientError> {
    let count = limit.of(nodes.len());
    if count == 0 {
        return Err(ClientError::NoTargetsLeft(limit.to_string()));
    }
    if method == LimitMethod::Random {
        nodes.sort_unstable();
        shuffle(&mut nodes, seed);
    }
    nodes.truncate(count);
    Ok(nodes)
}

fn shuffle(nodes: &mut [String], seed: u64) {
    let mut state = seed;
    for last in (1..nodes.len()).rev() {
        let bound = u64::try_from(last).unwrap_or(u64::MAX).saturating_add(1);
        let chosen = usize::try_from(split_mix(&mut state) % bound).unwrap_or(0);
        nodes.swap(last, chosen);
    }
}

/// SplitMix64 by Steele, Lea and Flood.
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(count: usize) -> Vec<String> {
        (0..count).map(|n| format!("n{n}")).collect()
    }

    #[test]
    fn amounts() {
        for bad in ["", "0", "-1", "x", "0%", "101%", "1.5", "%"] {
            assert!(bad.parse::<Amount>().is_err(), "{bad}");
        }
        assert_eq!("10%".parse::<Amount>().unwrap().of(25), 2);
        assert_eq!("30".parse::<Amount>().unwrap().of(25), 25);
    }

    #[test]
    fn limits() {
        assert_eq!(limit(nodes(5), Amount::Nodes(2), LimitMethod::First, 1).unwrap(), ["n0", "n1"]);
        assert!(matches!(
            limit(nodes(5), Amount::Percent(10), LimitMethod::First, 1),
            Err(ClientError::NoTargetsLeft(_))
        ));
        let mut reversed = nodes(50);
        reversed.reverse();
        let one = limit(nodes(50), Amount::Nodes(10), LimitMethod::Random, 7).unwrap();
        assert_eq!(one, limit(reversed, Amount::Nodes(10), LimitMethod::Random, 7).unwrap());
        assert_ne!(one, limit(nodes(50), Amount::Nodes(10), LimitMethod::Random, 8).unwrap());
    }

    #[test]
    fn split_mix_is_the_published_generator() {
        // first outputs for seed 1234567, as published with the reference implementation
        let mut state = 1_234_567;
        assert_eq!(split_mix(&mut state), 6_457_827_717_110_365_317);
        assert_eq!(split_mix(&mut state), 3_203_168_211_198_807_973);
    }
}
