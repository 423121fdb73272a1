//! A batch of queued bytes on its way to the socket, in vectored writes.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::io::AsyncWrite;

use crate::client::Chunk;
use crate::stream::Stream;

/// Pieces given to one vectored write.
const MAX_SLICES: usize = 64;

/// Bytes taken from the queue and being written.
#[derive(Debug, Default)]
pub(super) struct Writing {
    pub(super) chunks: VecDeque<Chunk>,
    pub(super) tail: Vec<u8>,
    /// Written bytes of the first piece.
    pub(super) offset: usize,
    /// Written and not yet reported.
    pub(super) written: usize,
    /// Bytes of this batch, to tell busy from idle.
    pub(super) batch: usize,
    pub(super) flushing: bool,
    /// Bytes that left since `blocked_since`.
    pub(super) progress: usize,
    pub(super) blocked_since: Option<Instant>,
}

impl Writing {
    pub(super) fn remaining(&self) -> bool {
        self.flushing
    }

    /// Writes the batch; ready when all of it has left.
    pub(super) fn poll(&mut self, stream: &mut Stream, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        loop {
            let first = match self.chunks.front() {
                Some(chunk) => chunk.bytes(),
                None => self.tail.as_slice(),
            };
            let first = first.get(self.offset..).unwrap_or_default();
            if first.is_empty() {
                self.offset = 0;
                if self.chunks.pop_front().is_some() {
                    continue;
                }
                self.tail.clear();
                std::task::ready!(Pin::new(stream).poll_flush(cx))?;
                self.flushing = false;
                return Poll::Ready(Ok(()));
            }
            let written = if self.chunks.is_empty() {
                std::task::ready!(Pin::new(&mut *stream).poll_write(cx, first))?
            } else {
                let mut slices = [IoSlice::new(&[]); MAX_SLICES];
                let others = self.chunks.iter().skip(1).map(Chunk::bytes).chain([self.tail.as_slice()]);
                let mut count = 0;
                for (slice, bytes) in slices.iter_mut().zip(std::iter::once(first).chain(others)) {
                    *slice = IoSlice::new(bytes);
                    count += 1;
                }
                let slices = slices.get(..count).unwrap_or_default();
                std::task::ready!(Pin::new(&mut *stream).poll_write_vectored(cx, slices))?
            };
            if written == 0 {
                return Poll::Ready(Err(std::io::ErrorKind::WriteZero.into()));
            }
            self.written += written;
            self.advance(written);
        }
    }

    fn advance(&mut self, mut written: usize) {
        while let Some(chunk) = self.chunks.front() {
            let left = chunk.bytes().len().saturating_sub(self.offset);
            if written < left {
                self.offset += written;
                return;
            }
            written -= left;
            self.offset = 0;
            self.chunks.pop_front();
        }
        self.offset += written;
    }
}
