//! What a code means, and what went wrong in words.

use std::ffi::{c_char, c_int};

use super::{codes, failure};

/// A short text for a code.
///
/// @param code  a code of this library, or any other integer
/// @return the text, in English and without a full stop; static, never NULL, not to be freed
///
/// Cost: none.
#[unsafe(no_mangle)]
pub extern "C" fn ourdb_strerror(code: c_int) -> *const c_char {
    codes::text(code).as_ptr()
}

/// The last failure of the calling thread in words: which function, and then what was asked,
/// which id, which file and offset, which limit, what the operating system said.
///
/// A call that succeeds leaves the message as it is, so ask only after a call has failed.
///
/// @return the message; "" if no call of this thread has failed. Never NULL. It belongs to the
///     library and is valid until this thread's next call.
///
/// Cost: the text is made when it is asked for; a failure that nobody asks about costs nothing.
#[unsafe(no_mangle)]
pub extern "C" fn ourdb_errmsg() -> *const c_char {
    failure::message()
}

/// errno of the last failure of the calling thread.
///
/// @return errno, if the operating system was the cause (OURDB_IO, OURDB_NO_SPACE); otherwise 0
///
/// Cost: none.
#[unsafe(no_mangle)]
pub extern "C" fn ourdb_os_error() -> c_int {
    failure::os_error()
}
