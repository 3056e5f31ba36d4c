//! Little-endian numbers out of bytes, and memory for many of them.

use crate::error::{Error, Result};

/// `N` bytes from `at`. Panics where there are not so many: the caller has checked the length.
#[inline]
pub(crate) fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0u8; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}

#[inline]
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array_at(bytes, at))
}

#[inline]
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

#[inline]
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, at))
}

/// Makes room for `count` more, and for some beyond them if more are to come; or says that there
/// is no memory for so many.
pub(crate) fn reserve<T>(vec: &mut Vec<T>, count: usize) -> Result<()> {
    vec.try_reserve(count).map_err(|_| no_memory::<T>(count))
}

/// Makes room for `count` more and no others.
pub(crate) fn reserve_exact<T>(vec: &mut Vec<T>, count: usize) -> Result<()> {
    vec.try_reserve_exact(count)
        .map_err(|_| no_memory::<T>(count))
}

/// The same items in no more memory than they need, if there is memory for that.
pub(crate) fn shrunk<T: Copy>(items: Vec<T>) -> Vec<T> {
    let mut copy = Vec::new();
    match reserve_exact(&mut copy, items.len()) {
        Ok(()) => {
            copy.extend_from_slice(&items);
            copy
        }
        Err(_) => items,
    }
}

fn no_memory<T>(count: usize) -> Error {
    Error::OutOfMemory {
        what: format!("room for {count} items of {} bytes", size_of::<T>()).into(),
    }
}

/// So many bytes, all zero.
pub(crate) fn zeroed(len: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reserve_exact(&mut bytes, len)?;
    bytes.resize(len, 0);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_nobody_has_is_a_failure() {
        assert!(reserve(&mut Vec::<u64>::new(), usize::MAX / 16).is_err());
        assert!(zeroed(isize::MAX as usize).is_err());
    }
}
