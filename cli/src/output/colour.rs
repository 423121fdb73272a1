//! Whether and how to colour, decided per stream (docs/spec/07 §2.6). Colour never carries meaning alone.

use std::io::IsTerminal;

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum When {
    Auto,
    Always,
    Never,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Paint {
    Red,
    Yellow,
    Green,
    Bright,
}

/// Colours for one stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Colour(bool);

impl Colour {
    /// For stdout. `configured` is the `color` setting of the client configuration.
    pub(crate) fn stdout(when: When, configured: bool) -> Self {
        Colour::stream(when, configured, std::io::stdout().is_terminal())
    }

    /// For stderr.
    pub(crate) fn stderr(when: When, configured: bool) -> Self {
        Colour::stream(when, configured, std::io::stderr().is_terminal())
    }

    /// For a stream that is a terminal or is none.
    pub(crate) fn stream(when: When, configured: bool, terminal: bool) -> Self {
        Colour(decide(when, configured, terminal))
    }

    pub(crate) fn is_on(self) -> bool {
        self.0
    }

    pub(crate) fn paint(self, paint: Paint, text: &str) -> String {
        if !self.0 {
            return text.to_owned();
        }
        let code = match paint {
            Paint::Red => "31",
            Paint::Yellow => "33",
            Paint::Green => "32",
            Paint::Bright => "1;97",
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }
}

fn decide(when: When, configured: bool, terminal: bool) -> bool {
    let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let zero = |name: &str| std::env::var_os(name).is_some_and(|value| value == "0");
    match when {
        When::Always => true,
        When::Never => false,
        When::Auto if set("CLICOLOR_FORCE") && !zero("CLICOLOR_FORCE") => true,
        When::Auto if set("NO_COLOR") || zero("CLICOLOR") => false,
        When::Auto => configured && terminal && std::env::var_os("TERM").is_none_or(|term| term != "dumb"),
    }
}
