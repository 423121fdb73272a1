//! Questions to a person (docs/spec/07 §2.10). Without a terminal the command ends and names the flag that answers.

use std::io::{BufRead, IsTerminal, Read, Write};

use choria_host::Secret;
use rustix::termios::{LocalModes, OptionalActions};

use crate::failure::{Code, Failure};

fn needs_terminal(question: &str, flag: &str) -> Failure {
    Failure::new(format!("{question}: there is no terminal to ask on"))
        .hint(format!("answer with {flag}"))
        .code(Code::NeedsAnswer)
}

fn interactive() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

/// Asks for a line of text; an empty answer takes the default.
pub(crate) fn text(label: &str, default: &str, flag: &str) -> Result<String, Failure> {
    if !interactive() {
        return Err(needs_terminal(label, flag));
    }
    let shown = if default.is_empty() { String::new() } else { format!("({default}) ") };
    super::note(&format!("? {label}:  {shown}"));
    let mut line = String::new();
    std::io::stdin().lock().take(4_096).read_line(&mut line)?;
    let line = line.trim();
    Ok(if line.is_empty() { default.to_owned() } else { line.to_owned() })
}

/// Asks for a secret; every character typed shows as a star.
pub(crate) fn secret(label: &str, flag: &str) -> Result<Secret, Failure> {
    if !interactive() {
        return Err(needs_terminal(label, flag));
    }
    super::note(&format!("? {label}:  "));
    let stdin = std::io::stdin();
    let before = rustix::termios::tcgetattr(&stdin).map_err(std::io::Error::from)?;
    let mut quiet = before.clone();
    quiet.local_modes.remove(LocalModes::ECHO | LocalModes::ICANON);
    rustix::termios::tcsetattr(&stdin, OptionalActions::Flush, &quiet).map_err(std::io::Error::from)?;
    let answer = read_stars();
    let restored = rustix::termios::tcsetattr(&stdin, OptionalActions::Flush, &before);
    super::note("\n");
    restored.map_err(std::io::Error::from)?;
    answer
}

fn read_stars() -> Result<Secret, Failure> {
    let mut typed: Vec<u8> = Vec::with_capacity(1_024);
    let mut stdin = std::io::stdin().lock();
    let mut err = std::io::stderr().lock();
    let mut byte = [0_u8; 1];
    while stdin.read(&mut byte)? == 1 {
        match byte[0] {
            b'\n' | b'\r' => break,
            4 if typed.is_empty() => break,
            8 | 127 => {
                // One character may be several bytes.
                while let Some(last) = typed.pop() {
                    if last & 0xc0 != 0x80 {
                        err.write_all(b"\x08 \x08")?;
                        break;
                    }
                }
            }
            other if typed.len() < 1_024 => {
                typed.push(other);
                if other & 0xc0 != 0x80 {
                    err.write_all(b"*")?;
                }
            }
            _ => {}
        }
        err.flush()?;
    }
    let text = String::from_utf8(typed).map_err(|_| Failure::new("what was typed is not UTF-8 text"))?;
    Ok(Secret::new(text))
}

/// Asks a question whose safe answer is no.
pub(crate) fn confirm(question: &str, flag: &str) -> Result<bool, Failure> {
    if !interactive() {
        return Err(needs_terminal(question, flag));
    }
    super::note(&format!("? {question} (y/N) "));
    let mut line = String::new();
    std::io::stdin().lock().take(64).read_line(&mut line)?;
    Ok(matches!(line.trim(), "y" | "Y" | "yes" | "Yes"))
}
