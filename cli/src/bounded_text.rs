//! Text from a file or stdin that is not read further than its bound.

use std::io::Read;
use std::path::Path;

use crate::failure::{Doing, Failure};

/// The text of a file; `-` is stdin. `what` says what could not be read.
pub(crate) fn read(path: &Path, limit: u64, what: impl Fn() -> String) -> Result<String, Failure> {
    let mut text = String::new();
    let read = if path == Path::new("-") {
        std::io::stdin().lock().take(limit + 1).read_to_string(&mut text)
    } else {
        std::fs::File::open(path).doing(&what)?.take(limit + 1).read_to_string(&mut text)
    };
    let read = read.doing(&what)?;
    if u64::try_from(read).unwrap_or(u64::MAX) > limit {
        return Err(Failure::new(what()).because(format!("it is larger than {limit} bytes")));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_may_be_as_long_as_its_bound_and_no_longer() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "12345678").unwrap();
        let read = |limit| read(file.path(), limit, || String::from("cannot read"));
        assert_eq!(read(8).unwrap(), "12345678");
        assert_eq!(read(7).unwrap_err().exit_code(), 1);
    }
}
