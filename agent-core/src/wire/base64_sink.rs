//! A sink that encodes what passes through it, so that nested layers are written straight into the output: the size of
//! the output is the final size, without a copy per layer (`docs/spec/08 §6.2`).

use crate::encoding::base64;
use crate::json::{Error, Sink};

/// Encodes into the sink behind it. [`Base64Sink::finish`] writes the last, padded group.
pub struct Base64Sink<'s> {
    inner: &'s mut dyn Sink,
    carry: heapless::Vec<u8, 3>,
}

impl<'s> Base64Sink<'s> {
    pub fn new(inner: &'s mut dyn Sink) -> Base64Sink<'s> {
        Base64Sink { inner, carry: heapless::Vec::new() }
    }

    pub fn finish(self) -> Result<(), Error> {
        if self.carry.is_empty() { Ok(()) } else { self.inner.put(&base64::group(&self.carry)) }
    }
}

impl Sink for Base64Sink<'_> {
    fn put(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let mut rest = bytes;
        if !self.carry.is_empty() {
            let wanted = 3_usize.saturating_sub(self.carry.len()).min(rest.len());
            let (head, tail) = rest.split_at_checked(wanted).ok_or(Error::NoSpace)?;
            self.carry.extend_from_slice(head).map_err(|_| Error::NoSpace)?;
            rest = tail;
            if self.carry.len() < 3 {
                return Ok(());
            }
            self.inner.put(&base64::group(&self.carry))?;
            self.carry.clear();
        }
        let groups = rest.chunks_exact(3);
        let tail = groups.remainder();
        for group in groups {
            self.inner.put(&base64::group(group))?;
        }
        self.carry.extend_from_slice(tail).map_err(|_| Error::NoSpace)
    }
}

impl core::fmt::Debug for Base64Sink<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Base64Sink").field("carry", &self.carry.len()).finish_non_exhaustive()
    }
}
