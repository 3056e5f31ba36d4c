//! The versions of a record.

use std::ffi::c_int;

use super::call::{answer, with};
use super::handle::ourdb;
use super::memory::{ourdb_buf, ourdb_records};

/// Reads the versions of a record, the newest first, deletions among them. The record may be
/// deleted by now.
///
/// A deletion is an item with OURDB_RECORD_DELETED in its flags and NULL as its data.
///
/// @param db   the database
/// @param id   the record
/// @param max  how many versions at most; 0: all
/// @param out  receives the versions, to be freed with ourdb_free_records(); zeroed on failure.
///     What it held before is not freed.
///
/// @return OURDB_OK, or
/// - OURDB_NOT_FOUND: the id never held a record
/// - OURDB_ID_OUT_OF_RANGE: id is not below record_nr_max
/// - OURDB_CORRUPT: one of the versions is damaged; a smaller max may still succeed
/// - a code that any read can return (see Errors)
///
/// Cost: one read for each version.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ourdb_history(
    db: *const ourdb,
    id: u32,
    max: usize,
    out: *mut ourdb_records,
) -> c_int {
    // SAFETY: the caller's handle and struct.
    unsafe {
        answer("ourdb_history", out, "out", || {
            with(db, |db| ourdb_records::new(db.history(id, max)?))
        })
    }
}

/// Reads the value that a record had as of a commit: the newest version that was not written after
/// it.
///
/// @param db      the database
/// @param id      the record
/// @param commit  the commit number, as in ourdb_record.commit or from ourdb_last_commit(); one
///     beyond the last asks for the current value
/// @param out     receives the value, to be freed with ourdb_free_buf(); zeroed on failure. What it
///     held before is not freed.
///
/// @return OURDB_OK, or
/// - OURDB_NOT_FOUND: the record did not exist yet, or was deleted, as of that commit
/// - OURDB_ID_OUT_OF_RANGE: id is not below record_nr_max
/// - a code that any read can return (see Errors)
///
/// Cost: one step for each version that is newer, and one read.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ourdb_get_version(
    db: *const ourdb,
    id: u32,
    commit: u64,
    out: *mut ourdb_buf,
) -> c_int {
    // SAFETY: the caller's handle and struct.
    unsafe {
        answer("ourdb_get_version", out, "out", || {
            with(db, |db| Ok(db.get_version(id, commit)?.into()))
        })
    }
}

/// Reads the value that a record had at a moment: the newest version that was not written after it.
///
/// @param db       the database
/// @param id       the record
/// @param time_us  the moment, in microseconds since the Unix epoch; one in the future asks for the
///     current value
/// @param out      receives the value, to be freed with ourdb_free_buf(); zeroed on failure. What
///     it held before is not freed.
///
/// @return OURDB_OK, or
/// - OURDB_NOT_FOUND: the record did not exist yet, or was deleted, at that moment
/// - OURDB_ID_OUT_OF_RANGE: id is not below record_nr_max
/// - a code that any read can return (see Errors)
///
/// Cost: as ourdb_get_version().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ourdb_get_at(
    db: *const ourdb,
    id: u32,
    time_us: u64,
    out: *mut ourdb_buf,
) -> c_int {
    // SAFETY: the caller's handle and struct.
    unsafe {
        answer("ourdb_get_at", out, "out", || {
            with(db, |db| Ok(db.get_at(id, time_us)?.into()))
        })
    }
}

/// The number of the last commit.
///
/// @param db   the database
/// @param out  receives the number; 0 if nothing was ever committed, and on failure
///
/// @return OURDB_OK, or
/// - a code that any function on a database can return (see Errors)
///
/// Cost: none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ourdb_last_commit(db: *const ourdb, out: *mut u64) -> c_int {
    // SAFETY: the caller's handle and number.
    unsafe {
        answer("ourdb_last_commit", out, "out", || {
            with(db, |db| Ok(db.last_commit()?))
        })
    }
}
