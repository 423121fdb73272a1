//! What we send to a broker, written into a buffer of the caller.

use core::fmt::{self, Write as _};

use super::subject;
use crate::append::append;

/// The output buffer has no room, or a subject could not stand on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendError {
    NoRoom,
    BadSubject,
}

/// Collects operations in a borrowed buffer. An operation is written whole or not at all.
#[derive(Debug)]
pub struct Outgoing<'t> {
    buffer: &'t mut [u8],
    len: usize,
}

impl<'t> Outgoing<'t> {
    pub const fn new(buffer: &'t mut [u8]) -> Outgoing<'t> {
        Outgoing { buffer, len: 0 }
    }

    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    #[must_use]
    pub fn finish(self) -> &'t [u8] {
        let Outgoing { buffer, len } = self;
        let buffer: &'t [u8] = buffer;
        buffer.get(..len).unwrap_or_default()
    }

    pub fn ping(&mut self) -> Result<(), SendError> {
        self.whole(format_args!("PING\r\n"))
    }

    pub fn pong(&mut self) -> Result<(), SendError> {
        self.whole(format_args!("PONG\r\n"))
    }

    /// `subject` may end in a wildcard only where the caller built it; it is checked for blanks all the same.
    pub fn subscribe(&mut self, name: &str, group: Option<&str>, sid: u32) -> Result<(), SendError> {
        let clean = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte > b' ' && byte != 0x7f);
        match group {
            _ if !clean(name) => Err(SendError::BadSubject),
            Some(group) if !subject::is_token(group) => Err(SendError::BadSubject),
            Some(group) => self.whole(format_args!("SUB {name} {group} {sid}\r\n")),
            None => self.whole(format_args!("SUB {name} {sid}\r\n")),
        }
    }

    pub fn unsubscribe(&mut self, sid: u32) -> Result<(), SendError> {
        self.whole(format_args!("UNSUB {sid}\r\n"))
    }

    /// Publishes a payload that is at hand.
    pub fn publish(&mut self, to: &str, reply: Option<&str>, payload: &[u8]) -> Result<(), SendError> {
        let mark = self.len;
        let done = self.publish_head(to, reply, payload.len()).and_then(|()| {
            self.put(payload)?;
            self.put(b"\r\n")
        });
        if done.is_err() {
            self.len = mark;
        }
        done
    }

    /// The line before a payload of `size` bytes that the caller appends, with its CR LF.
    pub fn publish_head(&mut self, to: &str, reply: Option<&str>, size: usize) -> Result<(), SendError> {
        if !subject::is_literal(to) || reply.is_some_and(|reply| !subject::is_literal(reply)) {
            return Err(SendError::BadSubject);
        }
        match reply {
            Some(reply) => self.whole(format_args!("PUB {to} {reply} {size}\r\n")),
            None => self.whole(format_args!("PUB {to} {size}\r\n")),
        }
    }

    /// Publishes a payload that `render` writes in place. It gets the free part of the buffer and returns how much it
    /// used. Nothing is copied twice: the line before is written with room for the longest size and closed up after.
    pub fn publish_with<E>(
        &mut self,
        to: &str,
        render: impl FnOnce(&mut [u8]) -> Result<usize, E>,
    ) -> Result<(), PublishError<E>> {
        let mark = self.len;
        let done = self.publish_rendered(to, render);
        if done.is_err() {
            self.len = mark;
        }
        done
    }

    fn publish_rendered<E>(
        &mut self,
        to: &str,
        render: impl FnOnce(&mut [u8]) -> Result<usize, E>,
    ) -> Result<(), PublishError<E>> {
        if !subject::is_literal(to) {
            return Err(PublishError::Send(SendError::BadSubject));
        }
        // "PUB " subject " " size CR LF: the size is right-aligned behind spaces, which every broker skips.
        self.whole(format_args!("PUB {to} ")).map_err(PublishError::Send)?;
        let size_at = self.len;
        let payload_at = size_at.saturating_add(SIZE_DIGITS).saturating_add(2);
        let end = self.buffer.len().saturating_sub(2);
        let room = self.buffer.get_mut(payload_at..end).ok_or(PublishError::Send(SendError::NoRoom))?;
        let size = render(room).map_err(PublishError::Render)?;
        self.whole(format_args!("{size:>width$}\r\n", width = SIZE_DIGITS)).map_err(PublishError::Send)?;
        self.len = self.len.saturating_add(size);
        self.put(b"\r\n").map_err(PublishError::Send)
    }

    /// Appends bytes as they are, e.g. a CONNECT rendered elsewhere.
    pub fn put(&mut self, bytes: &[u8]) -> Result<(), SendError> {
        self.len = append(self.buffer, self.len, bytes).ok_or(SendError::NoRoom)?;
        Ok(())
    }

    pub(crate) fn whole(&mut self, arguments: fmt::Arguments<'_>) -> Result<(), SendError> {
        let mark = self.len;
        let done = Text { to: self }.write_fmt(arguments).map_err(|_| SendError::NoRoom);
        if done.is_err() {
            self.len = mark;
        }
        done
    }

    /// A JSON string with its quotes.
    pub(crate) fn json_string(&mut self, text: &str) -> Result<(), SendError> {
        self.put(b"\"")?;
        for character in text.chars() {
            match character {
                '"' => self.put(b"\\\"")?,
                '\\' => self.put(b"\\\\")?,
                control if control < ' ' => self.whole(format_args!("\\u{:04x}", u32::from(control)))?,
                other => self.put(other.encode_utf8(&mut [0; 4]).as_bytes())?,
            }
        }
        self.put(b"\"")
    }
}

/// Digits of the largest payload we publish.
const SIZE_DIGITS: usize = 8;

/// Why [`Outgoing::publish_with`] wrote nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublishError<E> {
    Send(SendError),
    Render(E),
}

struct Text<'w, 't> {
    to: &'w mut Outgoing<'t>,
}

impl fmt::Write for Text<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.to.put(text.as_bytes()).map_err(|_| fmt::Error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations() {
        let mut buffer = [0u8; 128];
        let mut out = Outgoing::new(&mut buffer);
        out.subscribe("c.node.n1", None, 1).unwrap();
        out.subscribe("c.broadcast.service.reg", Some("reg"), 2).unwrap();
        out.publish("a.b", None, b"hi").unwrap();
        out.publish_with("a.c", |room| {
            room[..3].copy_from_slice(b"xyz");
            Ok::<usize, ()>(3)
        })
        .unwrap();
        assert_eq!(
            core::str::from_utf8(out.finish()).unwrap(),
            "SUB c.node.n1 1\r\nSUB c.broadcast.service.reg reg 2\r\nPUB a.b 2\r\nhi\r\nPUB a.c        3\r\nxyz\r\n"
        );
    }

    #[test]
    fn nothing_is_written_by_halves() {
        for size in 0..20 {
            let mut buffer = [0u8; 20];
            let mut out = Outgoing::new(&mut buffer[..size]);
            if out.publish("a.b", None, b"0123456").is_err() {
                assert_eq!(out.len(), 0);
            }
        }
    }

    #[test]
    fn subjects_cannot_inject() {
        let mut buffer = [0u8; 128];
        let mut out = Outgoing::new(&mut buffer);
        for bad in ["a b", "a\r\nPUB x 0\r\n\r\n", "", "a..b", "a.*"] {
            assert_eq!(out.publish(bad, None, b""), Err(SendError::BadSubject), "{bad:?}");
        }
        assert_eq!(out.subscribe("a b", None, 1), Err(SendError::BadSubject));
        assert_eq!(out.len(), 0);
    }
}
