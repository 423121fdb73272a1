//! Refusing documents that two readers could read differently, at every depth.

use super::Error;
use super::scanner::{MAX_DEPTH, Scanner, Token};
use super::text::Text;

/// Checks a whole document: legal JSON, and in no object two names that are equal or differ only in case.
///
/// `names` is work space, one slot per name of all objects open at once; a document that needs more is refused with
/// [`Error::NoSpace`], which also bounds the work (names are compared pairwise within their object).
pub fn check_unambiguous(document: &[u8], names: &mut [u32]) -> Result<(), Error> {
    let mut scanner = Scanner::new(document);
    // First slot of the object open at each depth; arrays have an empty range.
    let mut starts = [0_usize; MAX_DEPTH as usize];
    let mut used = 0_usize;
    loop {
        match scanner.pull()? {
            Token::ObjectStart | Token::ArrayStart => {
                let level = usize::from(scanner.depth().saturating_sub(1));
                *starts.get_mut(level).ok_or(Error::TooDeep { at: scanner.position() })? = used;
            }
            Token::ObjectEnd | Token::ArrayEnd => {
                used = starts.get(usize::from(scanner.depth())).copied().unwrap_or(0);
            }
            Token::Key(key) => {
                let level = usize::from(scanner.depth().saturating_sub(1));
                let first = starts.get(level).copied().unwrap_or(used);
                let siblings = names.get(first..used).unwrap_or_default();
                if siblings
                    .iter()
                    .any(|at| name_at(document, *at).is_some_and(|other| other.folds_like(&key)))
                {
                    return Err(Error::Ambiguous { at: key.start() });
                }
                let slot = names.get_mut(used).ok_or(Error::NoSpace)?;
                *slot = u32::try_from(key.start()).map_err(|_| Error::NoSpace)?;
                used = used.saturating_add(1);
            }
            Token::End => return Ok(()),
            Token::String(_) | Token::Number(_) | Token::Bool(_) | Token::Null => {}
        }
    }
}

/// The name whose first byte after the quote stands at `start`.
fn name_at(document: &[u8], start: u32) -> Option<Text<'_>> {
    let quote = usize::try_from(start).ok()?.checked_sub(1)?;
    match Scanner::new(document.get(quote..)?).pull() {
        Ok(Token::String(text)) => Some(text),
        _ => None,
    }
}
