//! A TCP socket that the reading and the writing half of a TLS connection share.
//!
//! Everything runs on one executor, so a cell is enough: it is borrowed while a future is polled, never over an await.

use core::cell::RefCell;
use core::future::{Future, poll_fn};
use core::pin::pin;
use core::task::Poll;

use embassy_net::tcp::{Error, TcpSocket};
use embedded_io_async::{ErrorType, Read, Write};

/// One socket, any number of users.
#[derive(Clone, Copy)]
pub(crate) struct Socket<'s, 'd>(&'s RefCell<TcpSocket<'d>>);

impl core::fmt::Debug for Socket<'_, '_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Socket")
    }
}

impl<'s, 'd> Socket<'s, 'd> {
    pub(crate) fn new(socket: &'s RefCell<TcpSocket<'d>>) -> Socket<'s, 'd> {
        Socket(socket)
    }

    /// Ready when bytes have arrived or the peer has closed. May be dropped and asked again: nothing is taken.
    pub(crate) async fn readable(&self) {
        poll_fn(|cx| {
            let socket = self.0.borrow();
            // embassy-net waits for bytes only, and a peer that is gone sends none
            if socket.may_recv() { pin!(socket.wait_read_ready()).poll(cx) } else { Poll::Ready(()) }
        })
        .await;
    }
}

impl ErrorType for Socket<'_, '_> {
    type Error = Error;
}

impl Read for Socket<'_, '_> {
    async fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        poll_fn(|cx| pin!(self.0.borrow_mut().read(buffer)).poll(cx)).await
    }
}

impl Write for Socket<'_, '_> {
    async fn write(&mut self, bytes: &[u8]) -> Result<usize, Error> {
        poll_fn(|cx| pin!(self.0.borrow_mut().write(bytes)).poll(cx)).await
    }

    async fn flush(&mut self) -> Result<(), Error> {
        // Bytes leave by themselves; waiting for their acknowledgement would only cost a round trip.
        Ok(())
    }
}
