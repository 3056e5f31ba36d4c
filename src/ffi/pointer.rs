//! Looks at pointers from C before they are used.

use std::ffi::{CStr, OsStr, c_char, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::slice;

use super::failure::Outcome;
use crate::error::Error;
use crate::options::RECORD_SIZE_LIMIT;

/// Whether it can point at a `T`, as far as that can be noticed.
#[inline(always)]
pub(super) fn is_sound<T>(pointer: *const T) -> bool {
    !pointer.is_null() && pointer.is_aligned()
}

/// Refuses what can't point at a `T`, naming the argument.
pub(super) fn check<T>(pointer: *const T, name: &str) -> Outcome<()> {
    if pointer.is_null() {
        return Err(Error::invalid(format!("{name} is NULL")).into());
    }
    if !pointer.is_aligned() {
        return Err(Error::invalid(format!("{name} is not aligned: {pointer:p}")).into());
    }
    Ok(())
}

/// The caller's array of `count` items; NULL is fine when there are none.
///
/// # Safety
/// Unless it is refused, `pointer` points at `count` items, unchanged during `'a`.
pub(super) unsafe fn array<'a, T>(pointer: *const T, count: usize, name: &str) -> Outcome<&'a [T]> {
    if count == 0 {
        return Ok(&[]);
    }
    check(pointer, name)?;
    if count > isize::MAX as usize / size_of::<T>() {
        return Err(Error::invalid(format!("{name}: no memory holds {count} items")).into());
    }
    // SAFETY: not NULL, aligned, and no longer than memory; the rest is the caller's promise.
    Ok(unsafe { slice::from_raw_parts(pointer, count) })
}

/// A value of the caller's; NULL is fine when it is empty.
///
/// # Safety
/// Unless it is refused, `data` points at `len` bytes, unchanged during `'a`.
pub(super) unsafe fn value<'a>(
    data: *const c_void,
    len: usize,
    name: impl FnOnce() -> String,
) -> Outcome<&'a [u8]> {
    if len == 0 {
        return Ok(&[]);
    }
    if data.is_null() {
        return Err(Error::invalid(format!("{} is NULL, and its length is {len}", name())).into());
    }
    // Before a slice is made of it: a length that was never meant must not be believed.
    if len > RECORD_SIZE_LIMIT as usize {
        return Err(Error::RecordTooLarge {
            what: "a value",
            len: len as u64,
            limit: RECORD_SIZE_LIMIT.into(),
            which: "of any database",
        }
        .into());
    }
    // SAFETY: not NULL, and bytes need no alignment; the rest is the caller's promise.
    Ok(unsafe { slice::from_raw_parts(data.cast(), len) })
}

/// A path: bytes up to the first zero, in whatever encoding the file system likes.
///
/// # Safety
/// Unless it is NULL, `path` is a C string, unchanged during `'a`.
pub(super) unsafe fn path<'a>(path: *const c_char, name: &str) -> Outcome<&'a Path> {
    check(path, name)?;
    // SAFETY: not NULL; the rest is the caller's promise.
    let bytes = unsafe { CStr::from_ptr(path) }.to_bytes();
    Ok(Path::new(OsStr::from_bytes(bytes)))
}
