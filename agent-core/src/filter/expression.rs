//! Fact filters as people write them: `os.family=RedHat`, `cpus >= 4`, `name=/^web/` (`docs/spec/01 §4.1`).

/// A fact filter taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FactExpression<'e> {
    /// A fact path.
    pub fact: &'e str,
    /// One of `== != < > <= >= =~`.
    pub operator: &'static str,
    pub value: &'e str,
}

/// What people write and what it means, longer spellings first.
const SPELLINGS: [(&str, &str); 10] = [
    ("<=", "<="),
    (">=", ">="),
    ("=>", ">="),
    ("=<", "<="),
    ("<", "<"),
    (">", ">"),
    ("!=", "!="),
    ("=~", "=~"),
    ("==", "=="),
    ("=", "=="),
];

/// Takes a filter apart at its right-most operator; `None` when it is none.
pub fn parse_fact_expression(text: &str) -> Option<FactExpression<'_>> {
    let (mut at, mut last) = (0, None);
    while let Some(rest) = text.get(at..) {
        let Some(c) = rest.chars().next() else { break };
        match spelling(rest) {
            Some((spelled, operator)) => {
                last = Some((at, spelled.len(), operator));
                at = at.saturating_add(spelled.len());
            }
            None => at = at.saturating_add(c.len_utf8()),
        }
    }
    let (at, length, operator) = last?;
    let fact = text.get(..at)?.trim();
    let value = text.get(at.saturating_add(length)..)?.trim();
    let ends_in_operator = SPELLINGS.iter().any(|(spelled, _)| value.ends_with(spelled));
    if fact.is_empty() || value.is_empty() || spelling(fact).is_some() || ends_in_operator {
        return None;
    }
    let is_pattern = value.len() > 1 && value.starts_with('/') && value.ends_with('/');
    Some(FactExpression { fact, operator: if is_pattern { "=~" } else { operator }, value })
}

fn spelling(text: &str) -> Option<(&'static str, &'static str)> {
    SPELLINGS.into_iter().find(|(spelled, _)| text.starts_with(spelled))
}
