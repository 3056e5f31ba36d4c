//! Structs that begin with their size, as old and new callers agree on them.
//!
//! A later version of the library appends fields. So a caller's struct may be shorter than the
//! library's: what the caller doesn't know is zero. Or longer: then nothing may be asked for there. A
//! size that no version's struct can have is refused.

use std::mem::MaybeUninit;
use std::{ptr, slice};

use super::failure::Outcome;
use super::pointer;
use crate::error::Error;

/// A struct that begins with its size.
///
/// # Safety
/// It is `repr(C)`, its first field is `size: usize`, and zeroes are a value of it.
pub(super) unsafe trait Growing: Copy {
    const NAME: &'static str;
    /// The function that prepares it.
    const INIT: &'static str;
    /// What its size was in earlier headers.
    const EARLIER: &'static [usize] = &[];
}

/// A struct of a caller's is never longer; a size field that was not set usually is.
const LIMIT: usize = 4096;

fn check<T: Growing>(size: usize, name: &str) -> Outcome<()> {
    let is_this_or_later =
        (size_of::<T>()..=LIMIT).contains(&size) && size.is_multiple_of(align_of::<T>());
    if is_this_or_later || T::EARLIER.contains(&size) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "{name} is {size}, and sizeof({}) is {} (use {})",
        T::NAME,
        size_of::<T>(),
        T::INIT
    ))
    .into())
}

/// All zero, but for its size.
fn blank<T: Growing>(size: usize) -> T {
    let mut blank = MaybeUninit::<T>::zeroed();
    // SAFETY: `Growing` says that it begins with its size, and that all the rest may be zero.
    unsafe {
        blank.as_mut_ptr().cast::<usize>().write(size);
        blank.assume_init()
    }
}

/// Copies `from` to `to` as far as both reach, and zeroes the rest of `to`.
///
/// # Safety
/// They have so many bytes, and don't overlap.
unsafe fn copy(from: *const u8, from_size: usize, to: *mut u8, to_size: usize) {
    let both = from_size.min(to_size);
    // SAFETY: the caller promises that there are so many bytes.
    unsafe {
        ptr::copy_nonoverlapping(from, to, both);
        ptr::write_bytes(to.add(both), 0, to_size - both);
    }
}

/// Prepares a struct of the caller's: `value`, and the caller's size.
///
/// # Safety
/// Unless it is refused, `out` has `size` bytes that may be written.
pub(super) unsafe fn init<T: Growing>(
    out: *mut T,
    name: &str,
    size: usize,
    set: impl FnOnce(&mut T),
) -> Outcome<()> {
    pointer::check(out, name)?;
    check::<T>(size, "size")?;
    let mut value = blank::<T>(size);
    set(&mut value);
    // SAFETY: by the caller's word `out` has `size` bytes, and `value` is ours.
    unsafe {
        copy(
            ptr::from_ref(&value).cast(),
            size_of::<T>(),
            out.cast(),
            size,
        )
    };
    Ok(())
}

/// The caller's struct, with zeroes for what the caller doesn't know.
///
/// # Safety
/// Unless it is refused, `from` has as many bytes as its size says, if that is a possible size.
pub(super) unsafe fn read<T: Growing>(from: *const T, name: &str) -> Outcome<T> {
    pointer::check(from, name)?;
    // SAFETY: not NULL and aligned; that there are as many bytes is the caller's promise.
    let size = unsafe { from.cast::<usize>().read() };
    check::<T>(size, &format!("{name}->size"))?;
    let unknown = size.saturating_sub(size_of::<T>());
    // SAFETY: by its size the struct has these bytes.
    let unknown = unsafe { slice::from_raw_parts(from.cast::<u8>().add(size - unknown), unknown) };
    if unknown.iter().any(|&byte| byte != 0) {
        return Err(unknown_field(name));
    }
    let mut value = blank::<T>(size);
    // SAFETY: as above, and `value` is ours.
    unsafe {
        copy(
            from.cast(),
            size,
            ptr::from_mut(&mut value).cast(),
            size_of::<T>(),
        )
    };
    Ok(value)
}

/// A field is set that means nothing to this version.
pub(super) fn unknown_field(name: &str) -> super::failure::Failure {
    Error::incompatible(format!(
        "{name} has a field set that this version of the library does not know"
    ))
    .into()
}

/// Fills the caller's struct, as far as the caller knows it, with what `body` gives; after a failure
/// of `body` with zeroes. The size stays as it is.
///
/// # Safety
/// As for [`read`], and the bytes may be written.
pub(super) unsafe fn fill<T: Growing>(
    out: *mut T,
    name: &str,
    body: impl FnOnce() -> Outcome<T>,
) -> Outcome<()> {
    pointer::check(out, name)?;
    // SAFETY: not NULL and aligned; that there are as many bytes is the caller's promise.
    let size = unsafe { out.cast::<usize>().read() };
    check::<T>(size, &format!("{name}->size"))?;
    let (value, outcome) = match body() {
        Ok(value) => (value, Ok(())),
        Err(failure) => (blank(size), Err(failure)),
    };
    // SAFETY: by its size the struct has these bytes, and `value` is ours.
    unsafe {
        copy(
            ptr::from_ref(&value).cast(),
            size_of::<T>(),
            out.cast(),
            size,
        );
        out.cast::<usize>().write(size);
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    #[repr(C)]
    #[derive(Clone, Copy, Debug, PartialEq)]
    struct Grown {
        size: usize,
        first: u64,
        second: u64,
    }

    const EARLIER: usize = size_of::<usize>() + 8;

    // SAFETY: so it is declared.
    unsafe impl Growing for Grown {
        const NAME: &'static str = "grown";
        const INIT: &'static str = "grown_init";
        const EARLIER: &'static [usize] = &[EARLIER];
    }

    /// A struct of a caller's, with something behind it that is not to be touched.
    fn caller(size: usize) -> [u64; 8] {
        let mut words = [7; 8];
        words[0] = size as u64;
        words
    }

    #[test]
    fn a_shorter_struct_is_filled_and_read_as_far_as_it_reaches() {
        let mut words = caller(0);
        let out = words.as_mut_ptr().cast::<Grown>();
        // SAFETY: there are 64 bytes.
        unsafe {
            init(out, "out", EARLIER, |grown| {
                (grown.first, grown.second) = (1, 2)
            })
            .unwrap();
            assert_eq!(words[..3], [EARLIER as u64, 1, 7]);
            let read = read(words.as_ptr().cast::<Grown>(), "out").unwrap();
            assert_eq!((read.first, read.second), (1, 0));
        }
        let mut words = caller(EARLIER);
        let grown = Grown {
            size: 0,
            first: 3,
            second: 4,
        };
        let out = words.as_mut_ptr().cast::<Grown>();
        // SAFETY: as above.
        unsafe { fill(out, "out", || Ok(grown)) }.unwrap();
        assert_eq!(words[..3], [EARLIER as u64, 3, 7]);
    }

    #[test]
    fn a_longer_struct_is_zeroed_and_must_ask_for_nothing_unknown() {
        let size = size_of::<Grown>() + 16;
        let mut words = caller(0);
        let out = words.as_mut_ptr().cast::<Grown>();
        // SAFETY: there are 64 bytes.
        unsafe {
            init(out, "out", size, |grown| grown.second = 2).unwrap();
            assert_eq!(words[..6], [size as u64, 0, 2, 0, 0, 7]);
            assert_eq!(
                read(words.as_ptr().cast::<Grown>(), "out").unwrap().second,
                2
            );
            words[4] = 1;
            assert!(read(words.as_ptr().cast::<Grown>(), "out").is_err());
        }
        let mut words = caller(size);
        let out = words.as_mut_ptr().cast::<Grown>();
        // SAFETY: as above.
        let failed = unsafe { fill(out, "out", || Err(Error::invalid("no").into())) };
        assert!(failed.is_err());
        assert_eq!(words[..6], [size as u64, 0, 0, 0, 0, 7]);
    }

    #[test]
    fn a_size_that_no_header_can_have_is_refused_and_nothing_is_touched() {
        let is_possible = |size: usize| {
            size == EARLIER
                || (size_of::<Grown>()..=LIMIT)
                    .step_by(8)
                    .any(|later| later == size)
        };
        let sizes = (0..=LIMIT + 8).chain([usize::MAX]);
        for size in sizes.filter(|&size| !is_possible(size)) {
            let mut words = caller(size);
            let out = words.as_mut_ptr().cast::<Grown>();
            // SAFETY: such a size is refused.
            unsafe {
                assert!(init(out, "out", size, |_| ()).is_err(), "{size}");
                assert!(read(out.cast_const(), "out").is_err(), "{size}");
                assert!(fill(out, "out", || panic!("it ran")).is_err(), "{size}");
            }
            assert_eq!(words, caller(size));
        }
    }
}
