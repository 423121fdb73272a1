//! Status codes and texts of an RPC reply (`docs/spec/03 §4`).

/// The `statuscode` of a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum StatusCode {
    Ok = 0,
    /// The action failed or was denied.
    Aborted = 1,
    UnknownAction = 2,
    MissingData = 3,
    InvalidData = 4,
    UnknownError = 5,
}

impl StatusCode {
    /// The number on the wire.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// Numbers above 5 do not exist on the wire; they count as [`StatusCode::UnknownError`].
    #[must_use]
    pub const fn from_number(number: u64) -> StatusCode {
        match number {
            0 => StatusCode::Ok,
            1 => StatusCode::Aborted,
            2 => StatusCode::UnknownAction,
            3 => StatusCode::MissingData,
            4 => StatusCode::InvalidData,
            _ => StatusCode::UnknownError,
        }
    }
}

/// Where the `statusmsg` of a [`Status`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatusText {
    Fixed(&'static str),
    /// In the [`super::ReplyWriter`] that made the status, next to the data.
    Written,
}

/// How a call ended. Made by its constructors, or by [`super::ReplyWriter::fail`] for a text with values in it.
#[must_use = "the status is the answer to the caller"]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    code: StatusCode,
    text: StatusText,
    silent: bool,
}

/// Text of a denial. The reason goes to the log, never to the caller.
pub const NOT_AUTHORIZED: &str = "You are not authorized to call this agent or action";

impl Status {
    /// Status 0, text `OK`.
    pub const fn ok() -> Status {
        Status::fixed(StatusCode::Ok, "OK")
    }

    /// A code with a text known at build time.
    pub const fn fixed(code: StatusCode, text: &'static str) -> Status {
        Status { code, text: StatusText::Fixed(text), silent: false }
    }

    /// Status 1 with a fixed text.
    pub const fn aborted(text: &'static str) -> Status {
        Status::fixed(StatusCode::Aborted, text)
    }

    /// Status 1, the text of a refused caller.
    pub const fn not_authorized() -> Status {
        Status::aborted(NOT_AUTHORIZED)
    }

    /// No reply at all: the caller learns nothing, not even that the node exists.
    pub const fn silent() -> Status {
        Status { code: StatusCode::Ok, text: StatusText::Fixed("OK"), silent: true }
    }

    pub(super) const fn written(code: StatusCode) -> Status {
        Status { code, text: StatusText::Written, silent: false }
    }

    #[must_use]
    pub const fn code(self) -> StatusCode {
        self.code
    }

    #[must_use]
    pub const fn text(self) -> StatusText {
        self.text
    }

    #[must_use]
    pub const fn is_silent(self) -> bool {
        self.silent
    }
}
