//! Which version of the library this is.

use std::ffi::c_char;

/// Changes when a program written for an older version may have to be changed.
pub const OURDB_VERSION_MAJOR: u32 = 0;
/// Changes when something was added.
pub const OURDB_VERSION_MINOR: u32 = 1;
/// Changes when something was mended.
pub const OURDB_VERSION_PATCH: u32 = 0;
/// The version of this header in one number, to be compared in the preprocessor.
pub const OURDB_VERSION_NUMBER: u32 =
    OURDB_VERSION_MAJOR * 1000000 + OURDB_VERSION_MINOR * 1000 + OURDB_VERSION_PATCH;

// The header can only hold numbers, so they stand above; the package has the last word.
const _: () = {
    const fn is(number: u32, text: &str) -> bool {
        matches!(u32::from_str_radix(text, 10), Ok(parsed) if parsed == number)
    }
    assert!(is(OURDB_VERSION_MAJOR, env!("CARGO_PKG_VERSION_MAJOR")));
    assert!(is(OURDB_VERSION_MINOR, env!("CARGO_PKG_VERSION_MINOR")));
    assert!(is(OURDB_VERSION_PATCH, env!("CARGO_PKG_VERSION_PATCH")));
};

/// The version of the library that the program runs with.
///
/// @return for example "0.1.0"; static, not to be freed
///
/// Cost: none.
#[unsafe(no_mangle)]
pub extern "C" fn ourdb_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// The same as a number, to be compared with OURDB_VERSION_NUMBER, the version of the header that
/// the program was compiled with.
///
/// @return major * 1000000 + minor * 1000 + patch
///
/// Cost: none.
#[unsafe(no_mangle)]
pub extern "C" fn ourdb_version_number() -> u32 {
    OURDB_VERSION_NUMBER
}
