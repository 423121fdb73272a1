//! A progress bar on stderr, drawn only when that is a terminal (docs/spec/07 §2.7).

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use super::colour::{Colour, Paint};
use super::format;

const FRAME: Duration = Duration::from_millis(100);
const NARROWEST: usize = 35;
const WIDEST: usize = 80;

#[derive(Debug)]
pub(crate) struct Progress {
    drawn: bool,
    width: usize,
    total: usize,
    done: usize,
    started: Instant,
    last: Option<Instant>,
    colour: Colour,
}

impl Progress {
    /// A bar towards `total` steps. `title` takes its place where the terminal is too narrow for a bar.
    pub(crate) fn start(total: usize, wanted: bool, title: &str, colour: Colour) -> Self {
        let columns = columns();
        let terminal = std::io::stderr().is_terminal() && wanted && total > 0;
        let mut bar = Progress {
            drawn: terminal && columns.saturating_sub(30) >= NARROWEST,
            width: columns.saturating_sub(30).min(WIDEST),
            total,
            done: 0,
            started: Instant::now(),
            last: None,
            colour,
        };
        if bar.drawn {
            super::note("\n");
            bar.draw();
        } else if terminal {
            super::note(&format!("\n{title}\n\n"));
        }
        bar
    }

    pub(crate) fn advance(&mut self, done: usize) {
        self.done = done;
        if self.drawn && self.last.is_none_or(|last| last.elapsed() >= FRAME) {
            self.draw();
        }
    }

    /// Draws the last frame and leaves it on the screen.
    pub(crate) fn finish(&mut self) {
        if self.drawn {
            self.draw();
            self.drawn = false;
            super::note("\n\n");
        }
    }

    fn draw(&mut self) {
        self.last = Some(Instant::now());
        let total = self.total.max(1);
        let share = self.done.min(total);
        let elapsed = if self.done == 0 {
            String::from("---")
        } else {
            format::short(self.started.elapsed(), Duration::from_secs(1))
        };
        let filled = self.width * share / total;
        let mut bar = "=".repeat(filled);
        if filled < self.width {
            bar.push('>');
            bar.push_str(&"-".repeat(self.width - filled - 1));
        }
        let digits = total.to_string().len();
        let counter = format!("{:>digits$} / {}", self.done, self.total);
        let paint = if self.done >= self.total { Paint::Green } else { Paint::Red };
        let counter = self.colour.paint(paint, &counter);
        let frame = format!("\r{counter} {elapsed:>5} [{bar}] {:>3}%", share * 100 / total);
        let mut err = std::io::stderr().lock();
        drop(err.write_all(frame.as_bytes()).and_then(|()| err.flush()));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.finish();
    }
}

/// Columns of the terminal behind stderr; 80 when nobody knows.
fn columns() -> usize {
    rustix::termios::tcgetwinsize(std::io::stderr()).map_or(80, |size| usize::from(size.ws_col))
}
