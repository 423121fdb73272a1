//! The words of a `helper:` line: POSIX shell quoting without a shell.

/// Why a command line has no words.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum CommandLineError {
    #[error("the quote {0} is never closed")]
    Unclosed(char),
    #[error("it ends in a backslash")]
    TrailingBackslash,
    #[error("it is empty")]
    Empty,
}

/// Splits a line at unquoted white space. Single quotes keep everything; double quotes keep everything but `\"`,
/// `\\`, `\$` and `` \` ``; a backslash outside quotes keeps the next character. Nothing is expanded.
pub(crate) fn split(line: &str) -> Result<Vec<String>, CommandLineError> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        match character {
            ' ' | '\t' | '\r' | '\n' => words.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match characters.next() {
                        None => return Err(CommandLineError::Unclosed('\'')),
                        Some('\'') => break,
                        Some(other) => word.push(other),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match characters.next() {
                        None => return Err(CommandLineError::Unclosed('"')),
                        Some('"') => break,
                        Some('\\') => match characters.next() {
                            None => return Err(CommandLineError::Unclosed('"')),
                            Some(escaped @ ('"' | '\\' | '$' | '`')) => word.push(escaped),
                            Some(other) => word.extend(['\\', other]),
                        },
                        Some(other) => word.push(other),
                    }
                }
            }
            '\\' => match characters.next() {
                None => return Err(CommandLineError::TrailingBackslash),
                Some(escaped) => word.get_or_insert_default().push(escaped),
            },
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    if words.is_empty() { Err(CommandLineError::Empty) } else { Ok(words) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_as_a_shell_does() {
        for (line, words) in [
            ("/bin/helper", &["/bin/helper"][..]),
            ("  ruby  helper.rb\t-v ", &["ruby", "helper.rb", "-v"]),
            (r#"a 'b c' "d \" $e" f\ g"#, &["a", "b c", "d \" $e", "f g"]),
            (r#"a'b'"c" '' "\n""#, &["abc", "", r"\n"]),
        ] {
            assert_eq!(split(line).unwrap(), words, "{line}");
        }
        assert_eq!(split("  "), Err(CommandLineError::Empty));
        assert_eq!(split("a 'b"), Err(CommandLineError::Unclosed('\'')));
        assert_eq!(split("a \"b\\"), Err(CommandLineError::Unclosed('"')));
        assert_eq!(split("a\\"), Err(CommandLineError::TrailingBackslash));
    }
}
