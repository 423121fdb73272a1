//! Which versions a text such as `>= 1.2, < 2 || ^3` allows: the rules of Masterminds' constraints, which the network's
//! expressions use (docs/spec/01 §4.2).

use semver::{Prerelease, Version};

/// Longest constraint in bytes.
const MAX_CONSTRAINT: usize = 256;
const MAX_VERSION: usize = 128;

/// Whether a version meets a constraint. `None`: one of them is none.
pub(crate) fn meets(version: &str, constraint: &str) -> Option<bool> {
    if constraint.len() > MAX_CONSTRAINT || version.len() > MAX_VERSION {
        return None;
    }
    let version = Given::parse(version.trim())?;
    if version.wild_major || version.wild_minor && version.explicit || version.wild_patch && version.explicit
    {
        return None;
    }
    let mut met = false;
    for alternative in constraint.split("||") {
        let comparisons = comparisons(alternative)?;
        met |= comparisons.iter().all(|comparison| comparison.allows(&version.version));
    }
    Some(met)
}

/// A version in which parts may be missing, or be `x`, `X` or `*`.
#[derive(Debug)]
struct Given {
    version: Version,
    wild_major: bool,
    wild_minor: bool,
    wild_patch: bool,
    /// A wildcard was written, not only left out.
    explicit: bool,
}

impl Given {
    fn parse(text: &str) -> Option<Given> {
        let text = text.strip_prefix('v').unwrap_or(text);
        let (text, build) = text.split_once('+').map_or((text, None), |(text, build)| (text, Some(build)));
        if build.is_some_and(|build| semver::BuildMetadata::new(build).is_err()) {
            return None;
        }
        let (numbers, pre) = text.split_once('-').map_or((text, None), |(numbers, pre)| (numbers, Some(pre)));
        let mut parts = numbers.split('.');
        let (major, minor, patch) = (part(parts.next()?)?, parts.next(), parts.next());
        if parts.next().is_some() {
            return None;
        }
        let (minor, patch) = (minor.map(part), patch.map(part));
        let (minor, patch) = match (minor, patch) {
            (None, _) => (None, None),
            (Some(minor), None) => (minor?.into(), None),
            (Some(minor), Some(patch)) => (minor?.into(), patch?.into()),
        };
        let explicit =
            [Some(&major), minor.as_ref(), patch.as_ref()].into_iter().flatten().any(|part| part.is_none());
        let (minor, patch) = (minor.flatten(), patch.flatten());
        let mut version = Version::new(major.unwrap_or(0), minor.unwrap_or(0), patch.unwrap_or(0));
        if major.is_none() {
            version = Version::new(0, 0, 0);
        }
        if let Some(pre) = pre {
            version.pre = Prerelease::new(pre).ok().filter(|pre| !pre.is_empty())?;
        }
        Some(Given {
            version,
            wild_major: major.is_none(),
            wild_minor: minor.is_none(),
            wild_patch: patch.is_none(),
            explicit,
        })
    }
}

/// A number, or `Some(None)` for a wildcard.
#[allow(clippy::option_option)] // no part, a wildcard, a number
fn part(text: &str) -> Option<Option<u64>> {
    match text {
        "x" | "X" | "*" => Some(None),
        digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().ok().map(Some),
        _ => None,
    }
}

#[derive(Debug, Clone, Copy)]
enum Operator {
    Equal,
    NotEqual,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
    Tilde,
    Caret,
}

#[derive(Debug)]
struct Comparison {
    operator: Operator,
    given: Given,
}

/// Comparisons with commas or spaces between them, all of which must hold.
fn comparisons(text: &str) -> Option<Vec<Comparison>> {
    let spaced = text.replace(',', " ");
    let mut words: Vec<&str> = spaced.split_whitespace().collect();
    // `1.2 - 1.4` is a range
    if let [low, "-", high] = words.as_slice() {
        let compare = |operator, text: &str| Some(Comparison { operator, given: Given::parse(text)? });
        return Some(vec![compare(Operator::GreaterOrEqual, low)?, compare(Operator::LessOrEqual, high)?]);
    }
    if words.is_empty() {
        return None;
    }
    words.reverse();
    let mut comparisons = Vec::new();
    while let Some(word) = words.pop() {
        let end = word.find(|c: char| !"=!<>~^".contains(c)).unwrap_or(word.len());
        let (sign, rest) = word.split_at(end);
        let operator = match sign {
            "" | "=" => Operator::Equal,
            "!=" => Operator::NotEqual,
            ">" => Operator::Greater,
            ">=" | "=>" => Operator::GreaterOrEqual,
            "<" => Operator::Less,
            "<=" | "=<" => Operator::LessOrEqual,
            "~" | "~>" => Operator::Tilde,
            "^" => Operator::Caret,
            _ => return None,
        };
        let rest = if rest.is_empty() { words.pop()? } else { rest };
        comparisons.push(Comparison { operator, given: Given::parse(rest)? });
    }
    Some(comparisons)
}

impl Comparison {
    fn allows(&self, version: &Version) -> bool {
        let given = &self.given;
        let bound = &given.version;
        // who asks for 1.2 does not mean a release candidate of 1.3
        if !version.pre.is_empty() && bound.pre.is_empty() {
            return false;
        }
        let whole = !(given.wild_minor || given.wild_patch);
        let (same_major, same_minor) = (version.major == bound.major, version.minor == bound.minor);
        let order = version.cmp_precedence(bound);
        match self.operator {
            Operator::Equal if given.wild_major => true,
            Operator::Equal if whole => order.is_eq(),
            Operator::Equal | Operator::Tilde => {
                let everything = given.wild_major || (whole && *bound == Version::new(0, 0, 0));
                everything || (order.is_ge() && same_major && (same_minor || given.wild_minor))
            }
            Operator::NotEqual if whole => order.is_ne(),
            Operator::NotEqual => !given.wild_major && (!same_major || (!given.wild_minor && !same_minor)),
            Operator::Greater if whole => order.is_gt(),
            Operator::Greater => {
                version.major > bound.major
                    || (same_major && !given.wild_minor && version.minor > bound.minor)
            }
            Operator::GreaterOrEqual => order.is_ge(),
            Operator::Less => order.is_lt(),
            Operator::LessOrEqual if whole => order.is_le(),
            Operator::LessOrEqual => {
                version.major < bound.major
                    || (same_major && (given.wild_minor || version.minor <= bound.minor))
            }
            Operator::Caret if order.is_lt() => false,
            Operator::Caret if bound.major > 0 || given.wild_minor => same_major || given.wild_major,
            Operator::Caret if bound.minor > 0 || given.wild_patch => same_major && same_minor,
            Operator::Caret => same_major && same_minor && version.patch == bound.patch,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::meets;

    #[test]
    fn versions_that_meet_a_constraint_and_that_do_not() {
        for (constraint, yes, no) in [
            ("1.2.3", &["1.2.3", "v1.2.3", "1.2.3+build"][..], &["1.2.4", "1.2.3-rc1"][..]),
            ("= 1.2", &["1.2.0", "1.2.9"], &["1.3.0", "1.1.9"]),
            ("1.x", &["1.0.0", "1.9"], &["2.0.0", "0.9.0"]),
            ("*", &["0.0.0", "7.1"], &["1.0.0-rc1"]),
            ("!= 1.2.3", &["1.2.4"], &["1.2.3"]),
            ("!= 1.2", &["1.3.0", "2"], &["1.2.0", "1.2.7"]),
            ("> 1.2.3", &["1.2.4", "2"], &["1.2.3", "1.2"]),
            ("> 1.2", &["1.3.0", "2"], &["1.2.9", "1.2"]),
            ("> 1", &["2.0.0"], &["1.9.9"]),
            (">=1.2", &["1.2.0", "1.2", "3"], &["1.1.9"]),
            ("=> 1.2", &["1.2.0"], &["1.1.9"]),
            ("< 2", &["1.9.9"], &["2.0.0", "2.1"]),
            ("<= 1.2", &["1.2.9", "1.0"], &["1.3.0", "2"]),
            ("<= 1.2.3", &["1.2.3"], &["1.2.4"]),
            ("~1.2.3", &["1.2.3", "1.2.9"], &["1.3.0", "1.2.2"]),
            ("~> 1.2", &["1.2.0", "1.2.9"], &["1.3.0"]),
            ("~1", &["1.0.0", "1.9.0"], &["2.0.0"]),
            ("^1.2.3", &["1.2.3", "1.9"], &["2.0.0", "1.2.2"]),
            ("^0.2.3", &["0.2.3", "0.2.9"], &["0.3.0", "1.0.0"]),
            ("^0.0.3", &["0.0.3"], &["0.0.4", "0.1.0"]),
            ("^0", &["0.0.0", "0.9.1"], &["1.0.0"]),
            (">= 1.2, < 2", &["1.2.0", "1.99.9"], &["2.0.0", "1.1.0"]),
            (">=1.2 <2", &["1.2.0"], &["2.0.0"]),
            ("< 1 || >= 2, < 3", &["0.9", "2.5"], &["1.5", "3"]),
            ("1.2 - 1.4.5", &["1.2.0", "1.4.5"], &["1.4.6", "1.1"]),
            (">= 1.2.3-beta.2", &["1.2.3-beta.11", "1.2.3"], &["1.2.3-beta.1", "1.2.3-alpha"]),
        ] {
            for version in yes {
                assert_eq!(meets(version, constraint), Some(true), "{version} and {constraint}");
            }
            for version in no {
                assert_eq!(meets(version, constraint), Some(false), "{version} and {constraint}");
            }
        }
    }

    #[test]
    fn what_is_neither_version_nor_constraint() {
        for (version, constraint) in [
            ("", "1"),
            ("one", "1"),
            ("1.2.3.4", "1"),
            ("1.x", "1"),
            ("*", "1"),
            ("1.2-", "1"),
            ("99999999999999999999", "1"),
            ("1", ""),
            ("1", ">="),
            ("1", "!1"),
            ("1", "1 ||"),
            ("1", "≥ 1"),
            ("1", &"1 ".repeat(200)),
        ] {
            assert_eq!(meets(version, constraint), None, "{version:?} and {constraint:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_answered(version in ".{0,20}", constraint in "[ -~≥]{0,30}") {
            let _answer = meets(&version, &constraint);
        }
    }
}
