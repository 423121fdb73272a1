//! How a test says which row of docs/spec/10 §14 it proves, what it tried, and what it saw.
//!
//! The name of such a test contains the numbers of its rows (`t_014_a_token_of_two_kinds`), and it calls [`row`] once it has
//! asserted everything. `cargo xtask test security` runs these tests, collects what they said, and prints the table; a row
//! counts only if every test that has its number passed.
#![forbid(unsafe_code)]

use std::fmt::Display;

/// Says that row T-`number` holds: `tried` is what this test did (empty: what the row says), `seen` what came of it, with the
/// values it really met.
#[allow(clippy::print_stdout)] // the test harness captures it
pub fn row(number: u16, tried: impl Display, seen: impl Display) {
    println!("row T-{number:03} | {} | {}", one_line(&tried.to_string()), one_line(&seen.to_string()));
}

/// Hostile values do not break the table: control characters are escaped, and so is the column mark.
fn one_line(text: &str) -> String {
    let shown = text.chars().take(240);
    shown
        .flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] })
        .map(column)
        .collect()
}

fn column(c: char) -> char {
    if c == '|' { '¦' } else { c }
}
