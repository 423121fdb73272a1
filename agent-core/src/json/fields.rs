//! Sorting the members of one known layer: unknown names pass, repeated and case-variant ones end the document.

use super::Error;
use super::text::Text;

/// The names a layer knows, and which of them were seen. At most 32 names.
#[derive(Debug)]
pub struct Fields<'n> {
    names: &'n [&'n str],
    seen: u32,
}

impl<'n> Fields<'n> {
    pub fn new(names: &'n [&'n str]) -> Fields<'n> {
        Fields { names, seen: 0 }
    }

    /// The position of `key` among the known names, `None` when it is foreign. A reader that ignores case, as
    /// upstream's does, must not find another value than we do, so such names are refused, not skipped.
    pub fn place(&mut self, key: &Text<'_>) -> Result<Option<usize>, Error> {
        let Some(place) = self.names.iter().position(|name| key.folds_to(name)) else {
            return Ok(None);
        };
        let exact = self.names.get(place).is_some_and(|name| key.is(name));
        let bit = 1_u32.checked_shl(u32::try_from(place).unwrap_or(u32::MAX)).unwrap_or(0);
        if !exact || self.seen & bit != 0 {
            return Err(Error::Ambiguous { at: key.start() });
        }
        self.seen |= bit;
        Ok(Some(place))
    }
}
