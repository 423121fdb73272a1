//! Words of the environment that take the place of a flag (docs/spec/07 §3.3).

use std::ffi::OsStr;

use clap::ValueEnum;

use crate::failure::Failure;

/// What a variable says; nothing when it is not set or empty. Words are those of the flag, letter by letter.
pub(crate) fn word<T: ValueEnum>(variable: &str) -> Result<Option<T>, Failure> {
    read(variable, std::env::var_os(variable).as_deref())
}

fn read<T: ValueEnum>(variable: &str, value: Option<&OsStr>) -> Result<Option<T>, Failure> {
    let Some(value) = value.filter(|value| !value.is_empty()) else { return Ok(None) };
    let known = value.to_str().and_then(|word| T::from_str(word, false).ok());
    known.map(Some).ok_or_else(|| {
        let known: Vec<String> = T::value_variants()
            .iter()
            .filter_map(|word| Some(word.to_possible_value()?.get_name().to_owned()))
            .collect();
        Failure::usage(format!("{variable} is {value:?}, which is not one of its values"))
            .hint(format!("it may be {}", known.join(", ")))
    })
}

#[cfg(test)]
mod tests {
    use super::read;
    use crate::output::form::Form;
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    #[test]
    fn a_word_is_known_or_the_variable_is_named() {
        let read = |text: &[u8]| read::<Form>("CHORIA_OUTPUT", Some(OsStr::from_bytes(text)));
        assert_eq!(read(b"csv").unwrap(), Some(Form::Csv));
        assert_eq!(read(b"").unwrap(), None);
        for text in [&b"xml"[..], b"CSV", b"csv ", b"\xff"] {
            let failure = read(text).unwrap_err();
            assert_eq!(failure.exit_code(), 2);
            assert!(failure.message().starts_with("CHORIA_OUTPUT is "), "{failure:?}");
        }
        assert_eq!(super::read::<Form>("CHORIA_OUTPUT", None).unwrap(), None);
    }
}
