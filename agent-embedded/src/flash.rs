//! The credential store on NOR flash (docs/spec/08 §7.6): a log of whole values on two erase pages or more.
//!
//! A value counts once all of it and its checksum are written, and the one before it stays readable until then. A removed
//! value is a record that says so, because not every flash lets a written word be written again.

use core::fmt;

use embedded_storage_async::nor_flash::NorFlash;
use sequential_storage::Error;
use sequential_storage::cache::{Cache, Uncached};
use sequential_storage::map::{MapConfig, MapStorage};
use zeroize::Zeroize as _;

use crate::board::{Key, Store, StoreFailed};

/// The largest value, 2 KiB, with its key and its mark, in whole words of any flash.
pub const ROOM: usize = 2112;
/// The key of what is written to push old records out.
const FILLER: u8 = 0;
const FILLER_BYTES: usize = 1024;

type Map<F> = MapStorage<u8, F, Cache<Uncached, Uncached, Uncached, u8>>;

/// Values in `range` of a flash.
pub struct FlashStore<'r, F: NorFlash> {
    map: Map<F>,
    room: &'r mut [u8; ROOM],
}

impl<F: NorFlash> fmt::Debug for FlashStore<'_, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FlashStore")
    }
}

impl<'r, F: NorFlash> FlashStore<'r, F> {
    /// `range`: bytes of `flash`, whole erase pages that nothing else uses. `None` where that is not so.
    pub fn new(
        flash: F,
        range: core::ops::Range<u32>,
        room: &'r mut [u8; ROOM],
    ) -> Option<FlashStore<'r, F>> {
        let config = MapConfig::try_new(range).ok()?;
        Some(FlashStore { map: MapStorage::new(flash, config, Cache::new_uncached()), room })
    }

    async fn write(&mut self, key: u8, value: Option<&[u8]>) -> Result<(), StoreFailed> {
        let written = self.map.store_item(self.room, &key, &value).await;
        self.room.zeroize();
        written.map_err(|error| match error {
            Error::ItemTooBig | Error::BufferTooSmall(_) | Error::SerializationError(_) => {
                StoreFailed::TooLarge
            }
            _ => StoreFailed::Write,
        })
    }

    /// Writes until every page has been erased: nothing that was removed can be read out of the flash.
    async fn push_out(&mut self) -> Result<(), StoreFailed> {
        let bytes = self.map.flash_range().len();
        for _ in 0..bytes.div_ceil(FILLER_BYTES) {
            self.write(FILLER, Some(&[0; FILLER_BYTES])).await?;
            // an erasure may take seconds and this is some of them: whoever waits for it feeds the watchdog
            embassy_futures::yield_now().await;
        }
        self.write(FILLER, None).await
    }
}

impl<F: NorFlash> Store for FlashStore<'_, F> {
    async fn get<'b>(&mut self, key: Key, buffer: &'b mut [u8]) -> Result<Option<&'b [u8]>, StoreFailed> {
        let found = self.map.fetch_item::<Option<&[u8]>>(self.room, &(key as u8)).await;
        let result = match found {
            Ok(Some(Some(value))) => match buffer.get_mut(..value.len()) {
                Some(place) => {
                    place.copy_from_slice(value);
                    Ok(Some(&*place))
                }
                None => Err(StoreFailed::TooLarge),
            },
            Ok(_) => Ok(None),
            Err(_) => Err(StoreFailed::Read),
        };
        self.room.zeroize();
        result
    }

    async fn set(&mut self, key: Key, value: &[u8]) -> Result<(), StoreFailed> {
        self.write(key as u8, Some(value)).await
    }

    async fn erase(&mut self, key: Key) -> Result<(), StoreFailed> {
        let found = self.map.fetch_item::<Option<&[u8]>>(self.room, &(key as u8)).await;
        let is_there = matches!(found, Ok(Some(Some(_))));
        let read = found.is_ok();
        self.room.zeroize();
        match (read, is_there) {
            (false, _) => return Err(StoreFailed::Read),
            // A removal that the power ended may have left an old seed behind its record.
            (true, false) if key != Key::Seed => return Ok(()),
            (true, false) => {}
            (true, true) => self.write(key as u8, None).await?,
        }
        // The seed goes last and is what must not be found later.
        if key == Key::Seed { self.push_out().await } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests;
