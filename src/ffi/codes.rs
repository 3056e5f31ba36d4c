//! The codes. They are appended to and never renumbered.

use std::ffi::{CStr, c_int};

/// Success.
pub const OURDB_OK: c_int = 0;
/// There is no live record with that id, no such neighbour, version, snapshot or database, or the
/// iteration is over.
pub const OURDB_NOT_FOUND: c_int = -1;
/// NULL where a pointer is needed, a handle that is not open, an unknown flag, an option that
/// can't be meant, a size field that was not set.
pub const OURDB_INVALID_ARGUMENT: c_int = -2;
/// Incremental mode: set of an id that holds no live record. Ids are given out by insert.
pub const OURDB_ID_NOT_ASSIGNED: c_int = -3;
/// The id is not below record_nr_max.
pub const OURDB_ID_OUT_OF_RANGE: c_int = -4;
/// The value is longer than record_size_max, or one commit is longer than 4 GiB.
pub const OURDB_RECORD_TOO_LARGE: c_int = -5;
/// No id, or no number for a data file, is left.
pub const OURDB_FULL: c_int = -6;
/// Something that the transaction has read was changed since. Nothing of it was written; begin it
/// again.
pub const OURDB_CONFLICT: c_int = -7;
/// The directory is open for writing already, in this process or in another.
pub const OURDB_LOCKED: c_int = -8;
/// A write on a handle that was opened for reading only, or in a snapshot.
pub const OURDB_READ_ONLY: c_int = -9;
/// A checksum or a structure is wrong: the files are damaged. The message names file and offset.
pub const OURDB_CORRUPT: c_int = -10;
/// A format, feature, mode or limit that does not fit the database or this library.
pub const OURDB_INCOMPATIBLE: c_int = -11;
/// The operating system failed: ourdb_errmsg() says at what, ourdb_os_error() gives errno.
pub const OURDB_IO: c_int = -12;
/// Disk or quota is full. Nothing was changed, and it goes away when space is freed.
pub const OURDB_NO_SPACE: c_int = -13;
/// Memory could not be had.
pub const OURDB_OUT_OF_MEMORY: c_int = -14;
/// Something is open or at work that forbids this: transactions or iterators when the database is
/// to be closed, another compaction.
pub const OURDB_BUSY: c_int = -15;
/// The caller's buffer is too small: it is untouched, and *len holds what is needed.
pub const OURDB_BUFFER_TOO_SMALL: c_int = -16;
/// An earlier write or sync failed. Reads go on; close and open again to write.
pub const OURDB_POISONED: c_int = -17;
/// The progress callback asked to stop. Nothing was changed.
pub const OURDB_CANCELLED: c_int = -18;
/// The handle was opened before fork(), and this is the child.
pub const OURDB_FORKED: c_int = -19;
/// ourdb_insert() or ourdb_next_id() on a key-value database.
pub const OURDB_WRONG_MODE: c_int = -20;
/// A bug in the library. It was stopped before it reached the caller; the handle is poisoned.
pub const OURDB_PANIC: c_int = -21;

/// A short text for any integer that C may pass.
pub(super) fn text(code: c_int) -> &'static CStr {
    match code {
        OURDB_OK => c"success",
        OURDB_NOT_FOUND => c"not found",
        OURDB_INVALID_ARGUMENT => c"invalid argument",
        OURDB_ID_NOT_ASSIGNED => c"id holds no live record, and ids are given out by insert",
        OURDB_ID_OUT_OF_RANGE => c"id is out of range",
        OURDB_RECORD_TOO_LARGE => c"value is too long",
        OURDB_FULL => c"no id or no data file number is left",
        OURDB_CONFLICT => c"conflict with another transaction",
        OURDB_LOCKED => c"database is open for writing already",
        OURDB_READ_ONLY => c"handle is read-only",
        OURDB_CORRUPT => c"database is damaged",
        OURDB_INCOMPATIBLE => c"database does not fit what was asked, or this library",
        OURDB_IO => c"input/output error",
        OURDB_NO_SPACE => c"no space left on device",
        OURDB_OUT_OF_MEMORY => c"out of memory",
        OURDB_BUSY => c"in use",
        OURDB_BUFFER_TOO_SMALL => c"buffer is too small",
        OURDB_POISONED => c"writing was stopped by an earlier failure",
        OURDB_CANCELLED => c"cancelled",
        OURDB_FORKED => c"handle belongs to the parent process",
        OURDB_WRONG_MODE => c"not possible in this mode of the database",
        OURDB_PANIC => c"internal error in OurDB",
        _ => c"unknown OurDB code",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn each_code_has_a_text_of_its_own_and_all_other_integers_have_one() {
        let texts: HashSet<_> = (OURDB_PANIC - 1..=OURDB_OK).map(text).collect();
        assert_eq!(texts.len(), 23);
        for unknown in [1, OURDB_PANIC - 1, c_int::MAX, c_int::MIN] {
            assert_eq!(text(unknown), c"unknown OurDB code");
        }
    }
}
