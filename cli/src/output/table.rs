//! Tables with a rounded frame, and blocks of right-aligned labels (docs/spec/07 §2.8).

use super::harmless;

/// Cells are text; a column is right-aligned when all its cells are numbers.
#[derive(Debug, Default)]
pub(crate) struct Table {
    title: Option<String>,
    headers: Vec<String>,
    rows: Vec<Vec<String>>,
    ascii: bool,
    /// Columns of the terminal that it is printed on; files and pipes have no limit.
    limit: Option<usize>,
}

/// A column is not made narrower than this.
const NARROWEST: usize = 6;

struct Frame {
    top: [char; 3],
    middle: [char; 3],
    bottom: [char; 3],
    line: char,
    bar: char,
}

const ROUNDED: Frame =
    Frame {
        top: ['╭', '┬', '╮'], middle: ['├', '┼', '┤'], bottom: ['╰', '┴', '╯'], line: '─', bar: '│'
    };
const ASCII: Frame = Frame { top: ['+'; 3], middle: ['+'; 3], bottom: ['+'; 3], line: '-', bar: '|' };

impl Table {
    pub(crate) fn new(headers: &[&str]) -> Self {
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
            .iter()
            .find_map(|name| std::env::var(name).ok().filter(|v| !v.is_empty()));
        let ascii = locale.is_some_and(|text| !text.to_ascii_uppercase().contains("UTF") && text != "C.utf8");
        Table {
            headers: headers.iter().map(|text| (*text).to_owned()).collect(),
            ascii,
            limit: terminal_columns(),
            ..Table::default()
        }
    }

    #[must_use]
    pub(crate) fn title(mut self, title: impl Into<String>) -> Self {
        self.title = Some(title.into());
        self
    }

    /// As wide as its cells ask for: it is not printed on the terminal.
    #[must_use]
    pub(crate) fn unlimited(mut self) -> Self {
        self.limit = None;
        self
    }

    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    pub(crate) fn render(&self) -> String {
        let frame = if self.ascii { &ASCII } else { &ROUNDED };
        let columns = self.headers.len();
        let lines_of = |cell: &str| -> Vec<String> { harmless(cell).lines().map(str::to_owned).collect() };
        let rows: Vec<Vec<Vec<String>>> = self
            .rows
            .iter()
            .map(|row| row.iter().take(columns).map(|cell| lines_of(cell)).collect())
            .collect();
        let mut widths: Vec<usize> = (0..columns)
            .map(|column| {
                let header = self.headers.get(column).map_or(0, |text| width(text));
                let cells = rows.iter().filter_map(|row| row.get(column)).flatten().map(|line| width(line));
                cells.fold(header, usize::max)
            })
            .collect();
        if let Some(limit) = self.limit {
            squeeze(&mut widths, limit);
        }
        let inner = widths.iter().map(|width| width + 3).sum::<usize>().saturating_sub(1);
        if let (Some(title), Some(last)) = (&self.title, widths.last_mut()) {
            // a title that is wider than its table makes the last column wider
            *last += (width(title) + 2).saturating_sub(inner);
        }
        let numeric: Vec<bool> = (0..columns)
            .map(|column| {
                let mut cells = self.rows.iter().filter_map(|row| row.get(column)).peekable();
                cells.peek().is_some() && cells.all(|cell| cell.trim_end_matches('%').parse::<f64>().is_ok())
            })
            .collect();
        let rule = |ends: &[char; 3]| -> String {
            let spans: Vec<String> =
                widths.iter().map(|width| frame.line.to_string().repeat(width + 2)).collect();
            format!("{}{}{}\n", ends[0], spans.join(&ends[1].to_string()), ends[2])
        };
        let line = |cells: &[&str], numbers: bool| -> String {
            let mut out = String::new();
            for (column, size) in widths.iter().enumerate() {
                let text = shortened(cells.get(column).copied().unwrap_or_default(), *size);
                let text = text.as_ref();
                let pad = " ".repeat(size.saturating_sub(width(text)));
                let right = numbers && numeric.get(column).copied().unwrap_or_default();
                let cell = if right { format!("{pad}{text}") } else { format!("{text}{pad}") };
                out.push_str(&format!("{} {cell} ", frame.bar));
            }
            out.push(frame.bar);
            out.push('\n');
            out
        };
        let mut out = String::new();
        if let Some(title) = &self.title {
            let inner = widths.iter().map(|width| width + 3).sum::<usize>().saturating_sub(1);
            let left = (inner - width(title)) / 2;
            out.push_str(&format!(
                "{}{}{}\n",
                frame.top[0],
                frame.line.to_string().repeat(inner),
                frame.top[2]
            ));
            let right = inner - width(title) - left;
            out.push_str(&format!(
                "{}{}{title}{}{}\n",
                frame.bar,
                " ".repeat(left),
                " ".repeat(right),
                frame.bar
            ));
            out.push_str(&rule(&[frame.middle[0], frame.top[1], frame.middle[2]]));
        } else {
            out.push_str(&rule(&frame.top));
        }
        let headers: Vec<&str> = self.headers.iter().map(String::as_str).collect();
        out.push_str(&line(&headers, false));
        out.push_str(&rule(&frame.middle));
        for row in &rows {
            let height = row.iter().map(Vec::len).max().unwrap_or(1).max(1);
            for index in 0..height {
                let cells: Vec<&str> =
                    row.iter().map(|cell| cell.get(index).map(String::as_str).unwrap_or_default()).collect();
                out.push_str(&line(&cells, true));
            }
        }
        out.push_str(&rule(&frame.bottom));
        out
    }
}

/// Columns of the terminal behind stdout, if there is one.
fn terminal_columns() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
    Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
}

/// Makes the widest columns narrower until a table fits, or no column can give more.
fn squeeze(widths: &mut [usize], limit: usize) {
    let mut excess = (widths.iter().map(|width| width + 3).sum::<usize>() + 1).saturating_sub(limit);
    while excess > 0 {
        let Some(widest) = widths.iter_mut().max().filter(|width| **width > NARROWEST) else { return };
        *widest -= 1;
        excess -= 1;
    }
}

fn shortened(text: &str, columns: usize) -> std::borrow::Cow<'_, str> {
    if width(text) <= columns {
        return text.into();
    }
    let kept: String = text.chars().take(columns.saturating_sub(1)).collect();
    (kept + "…").into()
}

/// Columns that a text takes on a terminal; counting characters is right for the names and numbers shown here.
fn width(text: &str) -> usize {
    text.chars().count()
}

/// Lines of `label: value`, labels right-aligned so that the longest is indented by `indent`.
pub(crate) fn labels(pairs: &[(&str, String)], indent: usize) -> String {
    let longest = pairs.iter().map(|(label, _)| width(label)).max().unwrap_or(0) + indent;
    let mut out = String::new();
    for (label, value) in pairs {
        let mut lines = value.split('\n');
        let first = lines.next().unwrap_or_default();
        out.push_str(&format!("{label:>longest$}: {}\n", harmless(first)));
        for next in lines {
            out.push_str(format!("{:>longest$}  {}", "", harmless(next)).trim_end());
            out.push('\n');
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{Table, labels};

    #[test]
    fn a_table_in_a_frame() {
        let mut table = Table::new(&["Sender", "Count"]);
        table.ascii = false;
        table.row(vec!["n1.example.net".into(), "7".into()]);
        table.row(vec!["n2".into(), "12".into()]);
        let text = "\
╭────────────────┬───────╮
│ Sender         │ Count │
├────────────────┼───────┤
│ n1.example.net │     7 │
│ n2             │    12 │
╰────────────────┴───────╯
";
        assert_eq!(table.render(), text);
    }

    #[test]
    fn a_table_fits_its_terminal() {
        let mut table = Table::new(&["Sender", "N"]);
        (table.ascii, table.limit) = (false, Some(20));
        table.row(vec!["n1.example.net".into(), "7".into()]);
        let text = table.render();
        assert!(text.contains("│ n1.example.… │ 7 │"), "{text}");
        table.limit = Some(3);
        assert!(table.render().contains("│ n1.ex… │ 7 │"));
    }

    #[test]
    fn a_title_may_be_wider_than_its_table() {
        let mut table = Table::new(&["A", "N"]).title("Report for 22 nodes");
        table.ascii = true;
        table.row(vec!["x".into(), "7".into()]);
        let text = table.render();
        let widths: Vec<usize> = text.lines().map(str::len).collect();
        assert!(widths.iter().all(|width| *width == 23), "{text}");
    }

    #[test]
    fn labels_are_right_aligned() {
        let block = labels(&[("Identity", "n1".into()), ("Public Key", "ab\ncd".into())], 3);
        assert_eq!(block, "     Identity: n1\n   Public Key: ab\n               cd\n");
    }
}
