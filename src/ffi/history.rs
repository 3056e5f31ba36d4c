//! The versions of a record.

use std::ffi::c_int;

use super::call::{answer, finish, with};
use super::handle::ourdb;
use super::memory::{List, ourdb_buf, ourdb_record, ourdb_records};

/// Reads the versions of a record, the newest first, deletions among them. The record may be
/// deleted by now.
///
/// A deletion is an item with OURDB_RECORD_DELETED in its flags and NULL as its data; where
/// ourdb_erase() removed what was before, with OURDB_RECORD_ERASED as well. What a compaction has
/// dropped is not among them.
///
/// @param db   the database
/// @param id   the record
/// @param max  how many versions at most; 0: all
/// @param out  receives the versions, to be freed with ourdb_free_records(); zeroed on failure.
///     What it held before is not freed.
///
/// @return OURDB_OK, or
/// - OURDB_NOT_FOUND: the id never held a record, or a compaction has dropped all its versions
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
            with(db, |db| {
                List::from(db.history(id, max)?).finish(ourdb_record::new)
            })
        })
    }
}

/// Reads the value that a record had as of a commit: the newest version that was not written after
/// it. Where changes have left versions out (see ourdb_apply()), of those that are here.
///
/// @param db      the database
/// @param id      the record
/// @param commit  the commit number, as in ourdb_record.commit or from ourdb_last_commit(); one
///     beyond the last asks for the current value
/// @param out     receives the value, to be freed with ourdb_free_buf(); zeroed on failure. What it
///     held before is not freed.
///
/// @return OURDB_OK, or
/// - OURDB_NOT_FOUND: the record did not exist yet, or was deleted, as of that commit, or the
///   version was compacted away or erased
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
            with(db, |db| ourdb_buf::of(db.get_version(id, commit)?))
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
/// - OURDB_NOT_FOUND: the record did not exist yet, or was deleted, at that moment, or the version
///   was compacted away or erased
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
            with(db, |db| ourdb_buf::of(db.get_at(id, time_us)?))
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

/// Gives a record the value again that it had as of a commit: a new version, on top of those since.
/// A record that was deleted since comes back under its id, also in an incremental database.
///
/// @param db      the database
/// @param id      the record
/// @param commit  the commit number
///
/// @return OURDB_OK, or
/// - OURDB_NOT_FOUND: the record was not there as of that commit, the commit is beyond the last, or
///   the past from that commit on was compacted away
/// - OURDB_ID_OUT_OF_RANGE: id is not below record_nr_max
/// - OURDB_RECORD_TOO_LARGE: the value of then is longer than record_size_max is now
/// - a code that any write can return (see Errors)
///
/// Cost: as ourdb_get_version() and ourdb_set().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ourdb_revert(db: *mut ourdb, id: u32, commit: u64) -> c_int {
    // SAFETY: the caller's handle.
    finish("ourdb_revert", unsafe {
        with(db, |db| Ok(db.revert(id, commit)?))
    })
}

/// Makes all records again what they were as of a commit, in one new commit: what was changed since
/// gets its value of then, what was deleted since comes back, what is new since is deleted. Nothing
/// of the history is lost, and the next id stays what it is.
///
/// @param db      the database
/// @param commit  the commit number; 0 is before the first
///
/// @return OURDB_OK, or, and then nothing was changed:
/// - OURDB_NOT_FOUND: the commit is beyond the last, or the past from that commit on was compacted
///   away
/// - OURDB_RECORD_TOO_LARGE: what is to be written is over the 4 GiB of one commit, or a value of
///   then is longer than record_size_max is now
/// - a code that any write can return (see Errors)
///
/// Cost: a walk over all ids, and one append for each record that has changed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ourdb_revert_all(db: *mut ourdb, commit: u64) -> c_int {
    // SAFETY: the caller's handle.
    finish("ourdb_revert_all", unsafe {
        with(db, |db| Ok(db.revert_all(commit)?))
    })
}

/// Erases a record: deletes it, and removes the values of all its versions from the data files, so
/// that nobody can read them again, neither through the library nor in the files.
///
/// The history shows that it was erased: a version with OURDB_RECORD_DELETED and
/// OURDB_RECORD_ERASED. In a key-value database the id can be set again later.
///
/// Snapshots and iterators that are open don't keep what is erased. Copies of the directory and what
/// ourdb_changes() has given out are the caller's to look after; what it gives out from now on tells
/// a receiver to erase the record too, and a backup that is brought up to date erases it as well.
///
/// @param db  the database
/// @param id  the record, live or deleted
///
/// @return OURDB_OK: the values are gone, also from the disk, in whatever sync mode. Or
/// - OURDB_NOT_FOUND: the id never held a record, or there is nothing left to erase
/// - OURDB_ID_OUT_OF_RANGE: id is not below record_nr_max
/// - OURDB_BUSY: called by the progress function of ourdb_backup()
/// - a code that any write can return (see Errors)
///
/// After another failure the record may be erased in part, and nobody can read it any more: then
/// writes are OURDB_POISONED, and the next opening for writing does the rest.
///
/// Cost: one write for each version, and a few syncs; meanwhile 50 to 150 bytes of memory for each
/// version. It waits for backups that are being made, and goes before those that begin meanwhile.
/// Beside a compaction it erases what that has copied as well, and has it synced; at its end it
/// waits for that.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ourdb_erase(db: *mut ourdb, id: u32) -> c_int {
    // SAFETY: the caller's handle.
    finish("ourdb_erase", unsafe { with(db, |db| Ok(db.erase(id)?)) })
}
