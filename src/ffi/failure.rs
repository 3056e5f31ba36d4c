//! Why a call failed, from the engine's error to the code and the thread's message.
//!
//! `OURDB_NOT_FOUND` is an everyday answer, so a failure is only moved into place when it happens;
//! its text is made when somebody asks for it.

use std::cell::RefCell;
use std::ffi::{CString, c_char, c_int};

use super::codes::*;
use crate::check::CheckReport;
use crate::error::Error;

/// The result of everything on this side of the boundary.
pub(super) type Outcome<T> = Result<T, Failure>;

/// Why a call failed: what the engine says, and what only the boundary can say.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Engine(#[from] Error),
    #[error("the value is {needed} bytes long, and the buffer holds {given}")]
    BufferTooSmall { needed: usize, given: usize },
    #[error("the iteration is over")]
    Over,
    #[error("{0}")]
    Damaged(CheckReport),
    #[error("a bug in OurDB: {0}")]
    Panic(String),
}

impl Failure {
    /// The one place where an error gets its code. Without a `_` arm, so that an error without a
    /// code does not compile.
    fn code(&self) -> c_int {
        match self {
            Failure::Engine(error) => match error {
                Error::NotFound(_) => OURDB_NOT_FOUND,
                Error::InvalidArgument(_) => OURDB_INVALID_ARGUMENT,
                Error::IdNotAssigned { .. } => OURDB_ID_NOT_ASSIGNED,
                Error::IdOutOfRange { .. } => OURDB_ID_OUT_OF_RANGE,
                Error::RecordTooLarge { .. } => OURDB_RECORD_TOO_LARGE,
                Error::Full(_) => OURDB_FULL,
                Error::Conflict { .. } => OURDB_CONFLICT,
                Error::Busy { .. } => OURDB_BUSY,
                Error::Locked { .. } => OURDB_LOCKED,
                Error::ReadOnly { .. } => OURDB_READ_ONLY,
                Error::Corrupt { .. } => OURDB_CORRUPT,
                Error::Incompatible(_) => OURDB_INCOMPATIBLE,
                Error::Io { .. } => OURDB_IO,
                Error::NoSpace { .. } => OURDB_NO_SPACE,
                Error::OutOfMemory { .. } => OURDB_OUT_OF_MEMORY,
                Error::Poisoned { .. } => OURDB_POISONED,
                Error::Cancelled => OURDB_CANCELLED,
                Error::Forked => OURDB_FORKED,
                Error::WrongMode { .. } => OURDB_WRONG_MODE,
            },
            Failure::BufferTooSmall { .. } => OURDB_BUFFER_TOO_SMALL,
            Failure::Over => OURDB_NOT_FOUND,
            Failure::Damaged(_) => OURDB_CORRUPT,
            Failure::Panic(_) => OURDB_PANIC,
        }
    }

    /// errno, where the operating system was the cause.
    fn os_error(&self) -> Option<c_int> {
        match self {
            Failure::Engine(Error::Io { source, .. } | Error::NoSpace { source, .. }) => {
                source.raw_os_error()
            }
            _ => None,
        }
    }
}

/// What `ourdb_errmsg` and `ourdb_os_error` can tell a thread.
struct Last {
    /// The last failure, and the C function that it is of.
    failure: Option<(&'static str, Failure)>,
    /// The message that C has a pointer to. It stays until another one is asked for, and not only
    /// until the next failure: in `printf("%d %s", ourdb_get(...), ourdb_errmsg())` either call may
    /// come first.
    message: Option<CString>,
}

thread_local! {
    static LAST: RefCell<Last> = const { RefCell::new(Last { failure: None, message: None }) };
}

/// Keeps `failure` of the C function `function` for this thread, and gives its code.
pub(super) fn remember(function: &'static str, failure: Failure) -> c_int {
    let code = failure.code();
    // A thread that is ending has no thread-locals any more; the code still goes out.
    let _ = LAST.try_with(|last| last.borrow_mut().failure = Some((function, failure)));
    code
}

/// This thread's last failure in words; empty if there was none.
pub(super) fn message() -> *const c_char {
    let tell = |last: &RefCell<Last>| {
        let Last { failure, message } = &mut *last.borrow_mut();
        let text = match failure {
            Some((function, failure)) => format!("{function}: {failure}").replace('\0', "?"),
            None => String::new(),
        };
        let text = CString::new(text).unwrap_or_default();
        match message {
            Some(same) if *same == text => same.as_ptr(),
            _ => message.insert(text).as_ptr(),
        }
    };
    LAST.try_with(tell)
        .unwrap_or(c"the thread is ending, and its messages are gone".as_ptr())
}

/// errno of this thread's last failure; 0 if the operating system was not the cause.
pub(super) fn os_error() -> c_int {
    let errno = |last: &RefCell<Last>| last.borrow().failure.as_ref()?.1.os_error();
    LAST.try_with(errno).ok().flatten().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::NotFound;
    use std::ffi::CStr;
    use std::io;

    fn last_message() -> &'static str {
        // SAFETY: each test runs in its own thread and asks again after the next failure.
        unsafe { CStr::from_ptr(message()) }.to_str().unwrap()
    }

    #[test]
    fn the_last_failure_of_a_thread_stays_until_the_next() {
        assert_eq!((last_message(), os_error()), ("", 0));
        let refused = io::Error::from_raw_os_error(libc::EACCES);
        let failure = Error::from_io("open", "dir/0.db", refused).into();
        assert_eq!(remember("ourdb_open", failure), OURDB_IO);
        assert!(
            last_message().starts_with("ourdb_open: open dir/0.db: "),
            "{}",
            last_message()
        );
        assert_eq!(os_error(), libc::EACCES);
        std::thread::spawn(|| assert_eq!((last_message(), os_error()), ("", 0)))
            .join()
            .unwrap();

        let failure = Error::NotFound(NotFound::Record(7)).into();
        assert_eq!(remember("ourdb_get", failure), OURDB_NOT_FOUND);
        assert_eq!(
            (last_message(), os_error()),
            ("ourdb_get: no live record has id 7", 0)
        );
    }

    #[test]
    fn a_full_disk_has_an_errno_too() {
        let full = io::Error::from_raw_os_error(libc::ENOSPC);
        let failure = Error::from_io("write", "dir/0.db", full).into();
        assert_eq!(remember("ourdb_set", failure), OURDB_NO_SPACE);
        assert_eq!(os_error(), libc::ENOSPC);
    }

    #[test]
    fn a_zero_byte_does_not_cut_the_message() {
        remember("ourdb_open", Error::invalid("before\0after").into());
        assert_eq!(last_message(), "ourdb_open: before?after");
    }
}
