//! Times as bars, for `--graph` (docs/spec/07 §7.1).

use crate::fleet::Pong;

/// Replies per 50 ms, 15 rows high.
pub(super) fn histogram(pongs: &[Pong]) -> String {
    const BUCKET: u128 = 50;
    const ROWS: usize = 15;
    let mut buckets: Vec<usize> = Vec::new();
    for pong in pongs {
        let index = usize::try_from(pong.time.as_millis() / BUCKET).unwrap_or(0).min(59);
        if buckets.len() <= index {
            buckets.resize(index + 1, 0);
        }
        if let Some(count) = buckets.get_mut(index) {
            *count += 1;
        }
    }
    let highest = buckets.iter().copied().max().unwrap_or(1).max(1);
    let mut out = String::from("\n");
    let mut above = None;
    for row in (1..=ROWS).rev() {
        let count = highest * row / ROWS;
        // where rows are finer than nodes, a number stands once
        let label = if above == Some(count) || count == 0 { String::new() } else { count.to_string() };
        above = Some(count);
        let bars: String =
            buckets.iter().map(|count| if count * ROWS >= highest * row { '█' } else { ' ' }).collect();
        out.push_str(format!("{label:>6} ┤{bars}").trim_end());
        out.push('\n');
    }
    out.push_str("        Responses per 50ms\n");
    out
}

#[cfg(test)]
mod tests {
    use super::histogram;
    use crate::fleet::Pong;
    use std::time::Duration;

    #[test]
    fn bars_are_as_high_as_their_share() {
        let pong = |ms| Pong { identity: String::from("n"), time: Duration::from_millis(ms) };
        let text = histogram(&[pong(1), pong(2), pong(60), pong(1_000_000)]);
        let lines: Vec<&str> = text.lines().filter(|line| line.contains('█')).collect();
        assert_eq!(lines.len(), 15, "{text}");
        assert!(lines[0].ends_with("2 ┤█"), "{text}");
        let low = lines[14].split_once('┤').unwrap().1;
        assert!(low.starts_with("██ ") && low.ends_with('█') && low.chars().count() == 60, "{text}");
    }
}
