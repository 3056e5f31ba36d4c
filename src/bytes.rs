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

/// Gathers items, as long as there is memory for one more.
pub(crate) fn collected<T>(items: impl Iterator<Item = T>) -> Result<Vec<T>> {
    let mut collected = Vec::new();
    reserve_exact(&mut collected, items.size_hint().0)?;
    for item in items {
        reserve(&mut collected, 1)?;
        collected.push(item);
    }
    Ok(collected)
}

/// A copy of items, in no more memory than they need.
pub(crate) fn copied<T: Copy>(items: &[T]) -> Result<Vec<T>> {
    let mut copy = Vec::new();
    reserve_exact(&mut copy, items.len())?;
    copy.extend_from_slice(items);
    Ok(copy)
}

/// The same items in no more memory than they need, if there is memory for that.
pub(crate) fn shrunk<T: Copy>(items: Vec<T>) -> Vec<T> {
    copied(&items).unwrap_or(items)
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
