//! Reading a list of nodes: a file or stdin, and which form it has when nobody says (docs/spec/07 §6.1).

use std::path::Path;

use choria_client::discovery::flatfile::ListFormat;

use crate::bounded_text;
use crate::failure::Failure;

/// A list of a million names fits.
const LIMIT: u64 = 64 * 1024 * 1024;

/// The text of a list; `-` is stdin.
pub(crate) fn contents(path: &Path) -> Result<String, Failure> {
    bounded_text::read(path, LIMIT, || format!("cannot read the names of nodes from {}", path.display()))
}

/// The form of a list. Results of an earlier request are an object, lists of names are not.
pub(crate) fn guess(path: &Path, text: &str) -> ListFormat {
    let start = text.trim_start();
    if start.starts_with('{') {
        return ListFormat::Results;
    }
    match ListFormat::of_file(path) {
        ListFormat::Text if start.starts_with('[') => ListFormat::Json,
        by_name => by_name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_of_a_list() {
        assert_eq!(guess(Path::new("-"), r#"{"replies":[]}"#), ListFormat::Results);
        assert_eq!(guess(Path::new("-"), "[\"n1\"]"), ListFormat::Json);
        assert_eq!(guess(Path::new("nodes.yaml"), "- n1"), ListFormat::Yaml);
        assert_eq!(guess(Path::new("nodes"), "n1\n"), ListFormat::Text);
    }
}
