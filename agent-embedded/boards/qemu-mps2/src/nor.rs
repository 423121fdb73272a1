//! NOR flash that is a file of the host: pages of 4 KiB, words of four bytes, and bits that only an erasure sets again.

use device_qemu::{File, Mode};
use embedded_storage::nor_flash::{
    ErrorType, NorFlash, NorFlashError, NorFlashErrorKind, ReadNorFlash, check_erase, check_read, check_write,
};

const PAGE: usize = 4096;
const PAGES: usize = 4;
const WORD: usize = 4;

/// The file `flash.nor` in the folder that QEMU was started in.
#[derive(Debug)]
pub struct Nor(File);

/// The host did not do it, or it is not possible.
#[derive(Debug)]
pub struct Failed(NorFlashErrorKind);

impl NorFlashError for Failed {
    fn kind(&self) -> NorFlashErrorKind {
        self.0
    }
}

const OTHER: Failed = Failed(NorFlashErrorKind::Other);

impl Nor {
    /// All of it, in bytes.
    pub const RANGE: core::ops::Range<u32> = 0..(PAGE * PAGES) as u32;

    /// An erased one where there is none.
    pub fn open() -> Option<Nor> {
        let name = c"flash.nor";
        if !device_qemu::exists(name) {
            let fresh = c"flash.fresh";
            let file = File::open(fresh, Mode::Write)?;
            let erased = (0..PAGES).all(|_| file.write(&[0xff; PAGE]));
            if !(file.close() && erased && device_qemu::rename(fresh, name)) {
                return None;
            }
        }
        File::open(name, Mode::Update).map(Nor)
    }

    fn read_at(&self, at: u32, bytes: &mut [u8]) -> Result<(), Failed> {
        let whole = self.0.seek(at as usize) && self.0.read(bytes) == bytes.len();
        if whole { Ok(()) } else { Err(OTHER) }
    }

    fn write_at(&self, at: u32, bytes: &[u8]) -> Result<(), Failed> {
        if self.0.seek(at as usize) && self.0.write(bytes) { Ok(()) } else { Err(OTHER) }
    }
}

impl ErrorType for Nor {
    type Error = Failed;
}

impl ReadNorFlash for Nor {
    const READ_SIZE: usize = 1;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), Failed> {
        check_read(self, offset, bytes.len()).map_err(Failed)?;
        self.read_at(offset, bytes)
    }

    fn capacity(&self) -> usize {
        PAGE * PAGES
    }
}

impl NorFlash for Nor {
    const WRITE_SIZE: usize = WORD;
    const ERASE_SIZE: usize = PAGE;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), Failed> {
        check_erase(self, from, to).map_err(Failed)?;
        (from..to).step_by(PAGE).try_for_each(|page| self.write_at(page, &[0xff; PAGE]))
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), Failed> {
        check_write(self, offset, bytes.len()).map_err(Failed)?;
        for (at, word) in (offset..).step_by(WORD).zip(bytes.chunks(WORD)) {
            let mut held = [0; WORD];
            self.read_at(at, &mut held)?;
            held.iter_mut().zip(word).for_each(|(held, bits)| *held &= bits);
            self.write_at(at, &held)?;
        }
        Ok(())
    }
}
