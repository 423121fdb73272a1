//! The credential store of the tests: one file of the host for each key, replaced by a rename.

use core::ffi::CStr;

use agent_embedded::board::{Key, Store, StoreFailed};
use device_qemu::{File, Mode};

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
        let found = File::open(c"store.cut", Mode::Read).is_some_and(|file| {
            let read = file.read(&mut left) == 1;
            file.close();
            read
        });
        Files { left: found.then_some(left[0]) }
    }

    fn step(&mut self) {
        match &mut self.left {
            Some(0) => device_qemu::exit(false),
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
        let Some(file) = File::open(name(key), Mode::Read) else { return Ok(None) };
        let length = file.read(buffer);
        let more = file.read(&mut [0]) > 0;
        file.close();
        if more {
            return Err(StoreFailed::TooLarge);
        }
        Ok(Some(buffer.get(..length).unwrap_or_default()))
    }

    async fn set(&mut self, key: Key, value: &[u8]) -> Result<(), StoreFailed> {
        let fresh = c"store.fresh";
        self.step();
        let file = File::open(fresh, Mode::Write).ok_or(StoreFailed::Write)?;
        let written = file.write(value);
        let complete = file.close() && written;
        self.step();
        if complete && device_qemu::rename(fresh, name(key)) {
            self.step();
            Ok(())
        } else {
            Err(StoreFailed::Write)
        }
    }

    async fn erase(&mut self, key: Key) -> Result<(), StoreFailed> {
        if !device_qemu::exists(name(key)) {
            return Ok(());
        }
        self.step();
        if device_qemu::remove(name(key)) { Ok(()) } else { Err(StoreFailed::Write) }
    }
}
