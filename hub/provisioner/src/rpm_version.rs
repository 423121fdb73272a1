//! Whether two versions are the same in the eyes of RPM: what decides about an upgrade (`docs/spec/04 §9`).

/// Whether `a` and `b` name the same version. Separators do not count and leading zeros do not count;
/// a missing epoch is 0.
pub(crate) fn same(a: &str, b: &str) -> bool {
    let (epoch_a, rest_a) = epoch(a);
    let (epoch_b, rest_b) = epoch(b);
    let (version_a, release_a) = release(rest_a);
    let (version_b, release_b) = release(rest_b);
    let releases_agree = match (release_a, release_b) {
        (Some(a), Some(b)) => segments(a) == segments(b),
        // one side does not say: the version decides
        _ => true,
    };
    epoch_a == epoch_b && segments(version_a) == segments(version_b) && releases_agree
}

fn epoch(text: &str) -> (&str, &str) {
    match text.split_once(':') {
        Some((epoch, rest)) => (epoch.trim_start_matches('0'), rest),
        None => ("", text),
    }
}

fn release(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once('-') {
        Some((version, release)) => (version, Some(release)),
        None => (text, None),
    }
}

/// Runs of digits, runs of letters, and tildes.
fn segments(text: &str) -> Vec<&str> {
    let mut segments = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let kind = kind_of(first);
        let length =
            if kind == Kind::Tilde { 1 } else { rest.find(|c| kind_of(c) != kind).unwrap_or(rest.len()) };
        let Some((segment, tail)) = rest.split_at_checked(length) else { break };
        match kind {
            Kind::Digit => segments.push(segment.trim_start_matches('0')),
            Kind::Letter | Kind::Tilde => segments.push(segment),
            Kind::Separator => {}
        }
        rest = tail;
    }
    segments
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Digit,
    Letter,
    Tilde,
    Separator,
}

fn kind_of(character: char) -> Kind {
    match character {
        '0'..='9' => Kind::Digit,
        'a'..='z' | 'A'..='Z' => Kind::Letter,
        '~' => Kind::Tilde,
        _ => Kind::Separator,
    }
}

#[cfg(test)]
mod tests {
    use super::same;

    #[test]
    fn equality() {
        for (a, b, expected) in [
            ("0.29.4", "0.29.4", true),
            ("0.29.4", "0.29.04", true),
            ("0.29.4", "0_29_4", true),
            ("0.29.4", "0.29.5", false),
            ("0.29.4", "0.29.4~rc1", false),
            ("0.29.4", "0.29.4-1", true),
            ("0.29.4-1", "0.29.4-2", false),
            ("1:0.29.4", "0.29.4", false),
            ("0:0.29.4", "0.29.4", true),
            ("0.99.0.20221210", "0.99.0.20221211", false),
            ("1.0a", "1.0b", false),
            ("é1", "1", true),
        ] {
            assert_eq!(same(a, b), expected, "{a} {b}");
        }
    }
}
