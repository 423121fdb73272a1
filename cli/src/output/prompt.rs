//! Questions to a person (docs/spec/07 §2.10). Without a terminal, or with `--no-input`, the
//! command ends and names the flag that answers.

use std::io::{IsTerminal, Read, Write};

use choria_host::Secret;
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios};

use crate::failure::{Code, Failure};

/// The way to ask, which `--no-input` closes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Prompts {
    refused: bool,
}

impl Prompts {
    pub(crate) fn new(no_input: bool) -> Self {
        Prompts { refused: no_input }
    }

    /// Whether there is somebody to ask who may be asked.
    pub(crate) fn possible(self) -> bool {
        !self.refused && std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
    }

    /// Asks for a line of text; an empty answer takes the default.
    pub(crate) fn text(self, label: &str, default: &str, flag: &str) -> Result<String, Failure> {
        self.need(label, flag)?;
        let shown = if default.is_empty() { String::new() } else { format!("({default}) ") };
        let line = line(&format!("? {label}:  {shown}"))?;
        Ok(if line.is_empty() { default.to_owned() } else { line })
    }

    /// Asks a question whose safe answer is no.
    pub(crate) fn confirm(self, question: &str, flag: &str) -> Result<bool, Failure> {
        self.need(question, flag)?;
        let line = line(&format!("? {question} (y/N) "))?;
        Ok(matches!(line.as_str(), "y" | "Y" | "yes" | "Yes"))
    }

    /// Asks for a secret; every character typed shows as a star.
    pub(crate) fn secret(self, label: &str, flag: &str) -> Result<Secret, Failure> {
        self.need(label, flag)?;
        super::note(&format!("? {label}:  "));
        let answer = {
            let _modes = Modes::without(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG)?;
            read_stars()
        };
        super::note("\n");
        answer
    }

    fn need(self, question: &str, flag: &str) -> Result<(), Failure> {
        if self.possible() {
            return Ok(());
        }
        let why = if self.refused { "--no-input forbids to ask" } else { "there is no terminal to ask on" };
        Err(Failure::new(format!("{question}: {why}"))
            .hint(format!("answer with {flag}"))
            .code(Code::NeedsAnswer))
    }
}

fn line(shown: &str) -> Result<String, Failure> {
    super::note(shown);
    let _modes = Modes::without(LocalModes::ISIG)?;
    let mut typed = Vec::new();
    for byte in std::io::stdin().lock().take(4_096).bytes() {
        match byte? {
            CTRL_C => return Err(Failure::interrupted()),
            b'\n' => break,
            other => typed.push(other),
        }
    }
    Ok(String::from_utf8_lossy(&typed).trim().to_owned())
}

/// What Ctrl-C sends where it is a character.
const CTRL_C: u8 = 3;

/// The terminal in another mode for as long as this lives. Ctrl-C then is a character that ends the line: as a signal it
/// would not reach a thread that waits for an answer, or leave the terminal without echo.
struct Modes {
    before: Termios,
}

impl Modes {
    fn without(modes: LocalModes) -> Result<Self, Failure> {
        let before = rustix::termios::tcgetattr(std::io::stdin()).map_err(std::io::Error::from)?;
        let mut now = before.clone();
        now.local_modes.remove(modes);
        now.special_codes[SpecialCodeIndex::VEOL] = CTRL_C;
        rustix::termios::tcsetattr(std::io::stdin(), OptionalActions::Flush, &now)
            .map_err(std::io::Error::from)?;
        Ok(Modes { before })
    }
}

impl Drop for Modes {
    fn drop(&mut self) {
        // A terminal that is gone needs no mode.
        let _gone = rustix::termios::tcsetattr(std::io::stdin(), OptionalActions::Now, &self.before);
    }
}

fn read_stars() -> Result<Secret, Failure> {
    let mut typed: Vec<u8> = Vec::with_capacity(1_024);
    let mut stdin = std::io::stdin().lock();
    let mut err = std::io::stderr().lock();
    let mut byte = [0_u8; 1];
    while stdin.read(&mut byte)? == 1 {
        match byte[0] {
            b'\n' | b'\r' => break,
            CTRL_C => return Err(Failure::interrupted()),
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
