//! What a board gives the agent: entropy, time, storage, a way to start anew and somewhere to say what happens.

use core::fmt;

use agent_core::rpc::ReplyWriter;

/// One board. Methods take `&self`: everything runs on one executor, and boards keep their peripherals in cells.
pub trait Board {
    /// Fills `buffer` with true random bytes, and never with anything less.
    ///
    /// # Errors
    /// The source failed its own test; no key may be made.
    fn random(&self, buffer: &mut [u8]) -> Result<(), NoEntropy>;

    /// Unix nanoseconds of a clock that is known to be right; `None` where there is none, and a time server is asked
    /// (docs/spec/08 §7.5).
    fn wall_nanos(&self) -> Option<i64>;

    /// Starts anew. A board without a reset spins until its watchdog bites.
    fn reset(&self) -> !;

    /// The main loop has made progress.
    fn feed_watchdog(&self) {}

    /// One line for whoever looks: a debugger's channel, a serial line.
    fn say(&self, line: fmt::Arguments<'_>);

    /// Facts of the board, members of an open JSON object, e.g. `out.uint("temperature", 21)`.
    fn facts(&self, out: &mut ReplyWriter<'_>);
}

/// The entropy source failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoEntropy;

/// What is kept over a restart (docs/spec/08 §7.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Key {
    /// 32 bytes.
    Seed = 1,
    /// Text of the server token, up to 2 KiB.
    ServerToken = 2,
    /// Lines of `key = value`, up to 2 KiB.
    Config = 3,
    /// Present when seed, token and configuration belong together. Written last, erased first.
    Committed = 4,
    /// The time that it certainly was, Unix seconds, eight bytes little endian. Stays when the device is sent back.
    TimeFloor = 5,
}

impl Key {
    /// All of them, in the order of their numbers.
    pub const ALL: [Key; 5] = [Key::Seed, Key::ServerToken, Key::Config, Key::Committed, Key::TimeFloor];
}

/// Storage that keeps whole values: after a power cut a key has its old value or its new one.
pub trait Store {
    /// The value of `key` at the front of `buffer`.
    ///
    /// # Errors
    /// Storage that cannot be read, or a value larger than `buffer`.
    #[allow(async_fn_in_trait, reason = "one executor, no Send bound")]
    async fn get<'b>(&mut self, key: Key, buffer: &'b mut [u8]) -> Result<Option<&'b [u8]>, StoreFailed>;

    /// Writes a value; durable when it returns.
    ///
    /// # Errors
    /// Full or failing storage; the old value stays.
    #[allow(async_fn_in_trait, reason = "one executor, no Send bound")]
    async fn set(&mut self, key: Key, value: &[u8]) -> Result<(), StoreFailed>;

    /// Removes a value, gone when it returns. A key that has none is no error.
    ///
    /// # Errors
    /// Failing storage.
    #[allow(async_fn_in_trait, reason = "one executor, no Send bound")]
    async fn erase(&mut self, key: Key) -> Result<(), StoreFailed>;
}

/// Storage failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreFailed {
    Read,
    Write,
    /// The value is larger than its place.
    TooLarge,
}

impl StoreFailed {
    /// For the reply of the action that wanted to store something.
    pub const fn message(self) -> &'static str {
        match self {
            StoreFailed::Read => "the device's storage cannot be read",
            StoreFailed::Write => "the device's storage cannot be written",
            StoreFailed::TooLarge => "too large for the device's storage",
        }
    }
}
