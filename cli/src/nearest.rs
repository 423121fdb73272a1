//! What a mistyped word was probably meant to be (docs/spec/07 §2.5).

/// Edits that may lie between what was typed and what was meant.
const EDITS: usize = 2;
/// Longer words are not compared.
const LONGEST: usize = 64;

/// `did you mean 'ping'?`, where one of the known words is near.
pub(crate) fn did_you_mean<'a>(typed: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let (edits, word) = known.into_iter().map(|word| (distance(typed, word), word)).min()?;
    // A word of which nothing is left is no guess.
    (edits <= EDITS && edits < typed.chars().count()).then(|| format!("did you mean '{word}'?"))
}

/// Characters to insert, remove or replace to make one word of the other.
fn distance(a: &str, b: &str) -> usize {
    if a.len() > LONGEST || b.len() > LONGEST {
        return usize::MAX;
    }
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut next = vec![i + 1];
        let mut left = i + 1;
        for (&to, pair) in b.iter().zip(row.windows(2)) {
            let &[diagonal, above] = pair else { continue };
            left = (diagonal + usize::from(from != to)).min(above + 1).min(left + 1);
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_are_near() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(did_you_mean("pingg", ["info", "ping"]).as_deref(), Some("did you mean 'ping'?"));
        assert_eq!(did_you_mean("fct", ["fact"]).as_deref(), Some("did you mean 'fact'?"));
        assert_eq!(did_you_mean("restart", ["ping"]), None);
        assert_eq!(did_you_mean("x", ["ab"]), None);
        assert_eq!(did_you_mean("x", []), None);
    }
}
