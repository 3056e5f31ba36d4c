//! The nearest live id.

use std::ffi::c_int;

use super::call::{answer, with};
use super::handle::ourdb;

/// The lowest id that holds a live record. The answer, as that of the other three, is of one moment.
///
/// @param db      the database
/// @param out_id  receives the id; 0 on failure
///
/// @return OURDB_OK, or
/// - OURDB_NOT_FOUND: there is no live record
/// - a code that any read can return (see Errors)
///
/// Cost: a few steps, never one for each id that is free.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ourdb_first(db: *const ourdb, out_id: *mut u32) -> c_int {
    // SAFETY: the caller's handle and id.
    unsafe {
        answer("ourdb_first", out_id, "out_id", || {
            with(db, |db| Ok(db.first()?))
        })
    }
}

/// The highest id that holds a live record.
///
/// @param db      the database
/// @param out_id  receives the id; 0 on failure
///
/// @return OURDB_OK, or
/// - OURDB_NOT_FOUND: there is no live record
/// - a code that any read can return (see Errors)
///
/// Cost: as ourdb_first().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ourdb_last(db: *const ourdb, out_id: *mut u32) -> c_int {
    // SAFETY: the caller's handle and id.
    unsafe {
        answer("ourdb_last", out_id, "out_id", || {
            with(db, |db| Ok(db.last()?))
        })
    }
}

/// The lowest id above a given one that holds a live record. To walk over all records, begin with
/// ourdb_first() and go on with this until it says OURDB_NOT_FOUND.
///
/// @param db      the database
/// @param id      any number, whether a record has it or not; itself never the answer
/// @param out_id  receives the id; 0 on failure
///
/// @return OURDB_OK, or
/// - OURDB_NOT_FOUND: no live record has a higher id
/// - a code that any read can return (see Errors)
///
/// Cost: as ourdb_first().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ourdb_above(db: *const ourdb, id: u32, out_id: *mut u32) -> c_int {
    // SAFETY: the caller's handle and id.
    unsafe {
        answer("ourdb_above", out_id, "out_id", || {
            with(db, |db| Ok(db.above(id)?))
        })
    }
}

/// The highest id below a given one that holds a live record.
///
/// @param db      the database
/// @param id      any number, whether a record has it or not; itself never the answer
/// @param out_id  receives the id; 0 on failure
///
/// @return OURDB_OK, or
/// - OURDB_NOT_FOUND: no live record has a lower id
/// - a code that any read can return (see Errors)
///
/// Cost: as ourdb_first().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ourdb_below(db: *const ourdb, id: u32, out_id: *mut u32) -> c_int {
    // SAFETY: the caller's handle and id.
    unsafe {
        answer("ourdb_below", out_id, "out_id", || {
            with(db, |db| Ok(db.below(id)?))
        })
    }
}
