//! The way in and out of every C function that can fail.

use std::ffi::c_int;
use std::ptr;

use super::codes::OURDB_OK;
use super::failure::{self, Failure, Outcome};
use super::handle::{self, Handle, Of, ourdb};
use super::{panics, pointer};
use crate::db::Db;

/// What an out parameter holds after a failure.
pub(super) trait Blank {
    const BLANK: Self;
}

impl Blank for u32 {
    const BLANK: u32 = 0;
}

impl Blank for u64 {
    const BLANK: u64 = 0;
}

impl Blank for usize {
    const BLANK: usize = 0;
}

impl<T> Blank for *mut T {
    const BLANK: *mut T = ptr::null_mut();
}

/// Runs `body`; a panic is a failure.
pub(super) fn guarded<T>(body: impl FnOnce() -> Outcome<T>) -> Outcome<T> {
    panics::catch(body).unwrap_or_else(|text| Err(Failure::Panic(text)))
}

/// Runs `body` on the database behind `db`; a panic is a failure, and poisons the database.
///
/// # Safety
/// `db` is NULL or came from `ourdb_open`, and no `ourdb_close` or `ourdb_destroy` runs beside.
pub(super) unsafe fn with<T>(db: *const ourdb, body: impl FnOnce(&Db) -> Outcome<T>) -> Outcome<T> {
    // SAFETY: the caller promises the same.
    let db = unsafe { handle::borrow(db) }?;
    watched(db, || body(db))
}

/// Runs `body` on a transaction or a scan; a panic is a failure, and poisons the database behind it.
///
/// # Safety
/// `handle` is NULL or came from [`handle::issue`], and nothing that ends or changes it runs beside.
pub(super) unsafe fn with_part<H, P, T>(
    handle: *const H,
    body: impl FnOnce(&Of<P>) -> Outcome<T>,
) -> Outcome<T>
where
    H: Handle<Content = Box<Of<P>>>,
{
    // SAFETY: the caller promises the same.
    let part = unsafe { handle::borrow(handle) }?;
    watched_of(part.db, || body(part))
}

/// As [`with_part`], to change it.
///
/// # Safety
/// `handle` is NULL or came from [`handle::issue`], and nothing else uses it.
pub(super) unsafe fn with_part_mut<H, P, T>(
    handle: *mut H,
    body: impl FnOnce(&mut P) -> Outcome<T>,
) -> Outcome<T>
where
    H: Handle<Content = Box<Of<P>>>,
{
    // SAFETY: the caller promises the same.
    let part = unsafe { handle::borrow_mut(handle) }?;
    watched_of(part.db, || body(&mut part.it))
}

/// Runs `body`, which belongs to the database behind the handle `db`; a panic is a failure, and
/// poisons that.
pub(super) fn watched_of<T>(db: &'static ourdb, body: impl FnOnce() -> Outcome<T>) -> Outcome<T> {
    // SAFETY: a handle; it stays open while something of it is, except in a forked child, where
    // whatever is asked of it is refused.
    match unsafe { handle::peek(db) } {
        Some(db) => watched(db, body),
        None => guarded(body),
    }
}

fn watched<T>(db: &Db, body: impl FnOnce() -> Outcome<T>) -> Outcome<T> {
    panics::catch(body).unwrap_or_else(|text| {
        // Nothing may be written from whatever state the panic left behind.
        let _ = panics::catch(|| db.poison(&text));
        Err(Failure::Panic(text))
    })
}

/// The code of `outcome`; a failure is kept as the last of the C function `function`.
pub(super) fn finish(function: &'static str, outcome: Outcome<()>) -> c_int {
    match outcome {
        Ok(()) => OURDB_OK,
        Err(failure) => failure::remember(function, failure),
    }
}

/// Runs `body`, which must not panic, and puts its answer into the argument `out` called `name`:
/// the answer, or zero. With no place for an answer `body` does not run.
///
/// # Safety
/// `out` is NULL or points at a `T` that may be written.
pub(super) unsafe fn answer<T: Blank>(
    function: &'static str,
    out: *mut T,
    name: &str,
    body: impl FnOnce() -> Outcome<T>,
) -> c_int {
    if let Err(failure) = pointer::check(out, name) {
        return failure::remember(function, failure);
    }
    let (answer, outcome) = match body() {
        Ok(answer) => (answer, Ok(())),
        Err(failure) => (T::BLANK, Err(failure)),
    };
    // SAFETY: not NULL and aligned; that it may be written is the caller's promise.
    unsafe { out.write(answer) };
    finish(function, outcome)
}

#[cfg(test)]
mod tests {
    use super::super::codes::*;
    use super::*;
    use crate::options::Options;
    use std::ffi::CStr;

    fn last_message() -> String {
        // SAFETY: a C string of this thread's, copied before the next call.
        unsafe { CStr::from_ptr(failure::message()) }
            .to_str()
            .unwrap()
            .to_owned()
    }

    #[test]
    fn a_panic_is_a_code_with_a_place_and_poisons_the_handle() {
        panics::keep_quiet();
        let options = Options {
            key_value: true,
            memory: true,
            ..Options::default()
        };
        let handle = handle::issue(Db::open("", &options).unwrap());
        let mut out = 7_u32;
        // SAFETY: an open handle, and a number that may be written.
        unsafe {
            let set = || with(handle, |db| Ok(db.set(1, b"value")?));
            assert_eq!(finish("set", set()), OURDB_OK);
            let code = answer("ask", &raw mut out, "out", || {
                with(handle, |_| -> Outcome<u32> { panic!("planted {}", 1 + 1) })
            });
            assert_eq!((code, out), (OURDB_PANIC, 0));
            let message = last_message();
            assert!(
                message.starts_with("ask: a bug in OurDB: planted 2 ("),
                "{message}"
            );
            assert!(message.contains("call.rs:"), "{message}");

            assert_eq!(finish("set", set()), OURDB_POISONED);
            assert!(last_message().contains("planted 2"), "{}", last_message());
            assert_eq!(
                finish("read", with(handle, |db| Ok(db.get_with(1, |_| ())?))),
                OURDB_OK
            );
            drop(handle::retire(handle));
        }
    }

    #[test]
    fn a_panic_without_a_handle_is_a_code() {
        let outcome = guarded(|| -> Outcome<()> { std::panic::panic_any(1) });
        assert_eq!(finish("open", outcome), OURDB_PANIC);
        assert!(
            last_message().contains("a panic without a text"),
            "{}",
            last_message()
        );
    }

    #[test]
    fn without_a_place_for_the_answer_nothing_happens() {
        let mut words = [7_u32; 2];
        let misaligned = (&raw mut words).cast::<u8>().wrapping_add(1).cast::<u32>();
        for place in [ptr::null_mut(), misaligned] {
            // SAFETY: such a place is refused.
            let code = unsafe { answer("ask", place, "out_id", || panic!("it ran")) };
            assert_eq!(code, OURDB_INVALID_ARGUMENT);
            assert!(
                last_message().starts_with("ask: out_id is "),
                "{}",
                last_message()
            );
        }
        assert_eq!(words, [7, 7]);
    }
}
