//! Text in small letters, as filters compare it.

/// The characters in lower case: of every alphabet with feature `exact-facts`, of ASCII on a device, whose facts are its own.
#[cfg(feature = "exact-facts")]
pub(crate) fn lower(text: impl Iterator<Item = char>) -> impl Iterator<Item = char> {
    text.flat_map(char::to_lowercase)
}

#[cfg(not(feature = "exact-facts"))]
pub(crate) fn lower(text: impl Iterator<Item = char>) -> impl Iterator<Item = char> {
    text.map(|c| c.to_ascii_lowercase())
}
