//! Lines of comma-separated values (RFC 4180, with line feeds), as spreadsheets and `cut` read them.
//! Values are what they are: one that begins with `=` is not defused for spreadsheets, which would take it for a formula.

use super::harmless;

/// One line; a value with a comma, a quote or a line end in it stands in quotes.
pub(crate) fn line<T: AsRef<str>>(values: &[T]) -> String {
    let values: Vec<String> = values.iter().map(|value| quoted(&harmless(value.as_ref()))).collect();
    values.join(",") + "\n"
}

fn quoted(value: &str) -> String {
    if value.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", value.replace('"', "\"\""))
    } else {
        value.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::line;

    #[test]
    fn what_would_break_a_line_stands_in_quotes() {
        assert_eq!(
            line(&["n1", "a,b", "say \"x\"", "two\nlines", ""]),
            "n1,\"a,b\",\"say \"\"x\"\"\",\"two\nlines\",\n"
        );
        assert_eq!(line(&["\u{1b}[2J"]), "\\u{1b}[2J\n");
        assert_eq!(line(&["=1+1", "+1", "-1", "@x", "\tx"]), "=1+1,+1,-1,@x,\tx\n");
    }
}
