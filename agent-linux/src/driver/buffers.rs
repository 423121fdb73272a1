//! Buffers that are only needed within one step and can be shared by all connections of a thread.

use std::cell::RefCell;
use std::rc::Rc;

/// Send buffer and scratch space. Borrowed for the length of one synchronous step, never across an await.
#[derive(Debug, Clone)]
pub struct Shared {
    inner: Rc<RefCell<Space>>,
}

#[derive(Debug)]
pub(super) struct Space {
    pub(super) tx: Vec<u8>,
    pub(super) scratch: Vec<u8>,
}

impl Shared {
    /// Room for messages of up to `message` bytes.
    #[must_use]
    pub fn new(message: usize) -> Shared {
        let size = message.saturating_add(8192);
        Shared { inner: Rc::new(RefCell::new(Space { tx: vec![0; size], scratch: vec![0; size] })) }
    }

    pub(super) fn with<T>(&self, work: impl FnOnce(&mut Space) -> T) -> T {
        work(&mut self.inner.borrow_mut())
    }
}
