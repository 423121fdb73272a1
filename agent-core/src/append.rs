//! Copying bytes behind those that a buffer holds. The length of the place is visibly the length of the bytes: nothing is
//! left for the compiler to check, and so nothing that could panic.

/// Copies `bytes` to `at` and answers where they end; `None`, and nothing written, when they do not fit.
pub(crate) fn append(buffer: &mut [u8], at: usize, bytes: &[u8]) -> Option<usize> {
    buffer.get_mut(at..)?.get_mut(..bytes.len())?.copy_from_slice(bytes);
    at.checked_add(bytes.len())
}

#[cfg(test)]
mod tests {
    use super::append;

    #[test]
    fn whole_or_not_at_all() {
        let mut buffer = *b"......";
        assert_eq!(append(&mut buffer, 2, b"abcd"), Some(6));
        assert_eq!(append(&mut buffer, 3, b"wxyz"), None);
        assert_eq!(append(&mut buffer, 7, b""), None);
        assert_eq!(append(&mut buffer, usize::MAX, b"x"), None);
        assert_eq!(append(&mut buffer, 6, b""), Some(6));
        assert_eq!(&buffer, b"..abcd");
    }
}
