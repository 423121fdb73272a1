//! How outcomes are written: one line, whatever was in them.

use core::fmt;

use agent_core::ids::sha256;
use agent_core::json::{Error, Sink};

/// Bytes in hex.
pub(crate) struct Hex<'h>(pub(crate) &'h [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// SHA-256 of bytes that are too many for a line, and how many.
pub(crate) struct Digest<'d>(pub(crate) &'d [u8]);

impl fmt::Display for Digest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.0.len(), Hex(&sha256(self.0)))
    }
}

/// The same for what is written in pieces into a buffer; what does not fit says so.
pub(crate) struct Written<'w>(Result<&'w mut [u8], Error>);

impl<'w> Written<'w> {
    /// What `emit` writes into `room`.
    pub(crate) fn by(
        room: &'w mut [u8],
        emit: impl FnOnce(&mut dyn Sink) -> Result<(), Error>,
    ) -> Written<'w> {
        let mut sink = agent_core::json::SliceSink::new(room);
        Written(emit(&mut sink).and_then(|()| sink.finish()))
    }
}

impl fmt::Display for Written<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Ok(bytes) => Digest(bytes).fmt(f),
            Err(Error::NoSpace) => f.write_str("no-room"),
            Err(_) => f.write_str("error"),
        }
    }
}
