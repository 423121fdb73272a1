//! The credential store of the tests: one file of the host for each key, replaced by a rename.

use core::ffi::CStr;

use agent_embedded::board::{Key, Store, StoreFailed};

use crate::machine::{self, Mode};

/// In the folder that QEMU was started in.
#[derive(Debug)]
pub struct Files {
    /// Steps of writes until the power fails, for tests; `None`: it does not.
    left: Option<u8>,
}

impl Files {
    /// A file `store.cut` holds the number of the step at which the power fails.
    pub fn open() -> Files {
        let mut left = [0_u8];
        let found = machine::open(c"store.cut", Mode::Read).is_some_and(|file| {
            let read = machine::read_file(file, &mut left) == 1;
            machine::close(file);
            read
        });
        Files { left: found.then_some(left[0]) }
    }

    fn step(&mut self) {
        match &mut self.left {
            Some(0) => machine::exit(false),
            Some(left) => *left -= 1,
            None => {}
        }
    }
}

const fn name(key: Key) -> &'static CStr {
    match key {
        Key::Seed => c"store.seed",
        Key::ServerToken => c"store.jwt",
        Key::Config => c"store.config",
        Key::Committed => c"store.committed",
        Key::TimeFloor => c"store.floor",
    }
}

impl Store for Files {
    async fn get<'b>(&mut self, key: Key, buffer: &'b mut [u8]) -> Result<Option<&'b [u8]>, StoreFailed> {
        let Some(file) = machine::open(name(key), Mode::Read) else { return Ok(None) };
        let length = machine::read_file(file, buffer);
        let more = machine::read_file(file, &mut [0]) > 0;
        machine::close(file);
        if more {
            return Err(StoreFailed::TooLarge);
        }
        Ok(Some(buffer.get(..length).unwrap_or_default()))
    }

    async fn set(&mut self, key: Key, value: &[u8]) -> Result<(), StoreFailed> {
        let fresh = c"store.fresh";
        self.step();
        let file = machine::open(fresh, Mode::Write).ok_or(StoreFailed::Write)?;
        let written = machine::write_file(file, value);
        let complete = machine::close(file) && written;
        self.step();
        if complete && machine::rename(fresh, name(key)) {
            self.step();
            Ok(())
        } else {
            Err(StoreFailed::Write)
        }
    }

    async fn erase(&mut self, key: Key) -> Result<(), StoreFailed> {
        let Some(file) = machine::open(name(key), Mode::Read) else { return Ok(()) };
        machine::close(file);
        self.step();
        if machine::remove(name(key)) { Ok(()) } else { Err(StoreFailed::Write) }
    }
}
