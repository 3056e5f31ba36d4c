//! What was committed, as bytes that another database can apply.

use std::ffi::{c_int, c_void};

use super::call::{answer, finish, with};
use super::handle::ourdb;
use super::memory::ourdb_buf;
use super::pointer;

/// Reads what was committed after a commit, as bytes for ourdb_apply() on another database: whole
/// commits, in order, each with its number and time.
///
/// To follow a database, begin with 0, or with the last commit of a backup, and go on with what
/// out_commit says until the answer is empty. The bytes carry checksums, mean the same on every
/// machine, and may be stored or sent as they are; ourdb_apply() takes one answer at a time.
///
/// After a compaction of the sender, changes from before it are a difference of states: the
/// versions that were kept, in the order of their commits, with their numbers and times, and at
/// its end the ids that are live then. A receiver in the middle of them is between two states; it
/// is at one again when it has applied all up to the commit of that compaction, which is its own
/// ourdb_stats.oldest_commit then, also if nothing was dropped. Its records have then the
/// versions that the sender has kept, and those that they had before; those that the sender has
/// no more are deleted with that commit. Until then it takes only what leads on to that: from the
/// sender that gave the part before, or from one that was compacted later. From there on it gets
/// changes as before.
///
/// @param db            the database; may be opened for reading only
/// @param since_commit  the last commit that the receiver has; 0: everything
/// @param max_bytes     the answer gets no longer, unless its first commit alone is, or the list of
///     live ids at the end of a difference; 0: no limit
/// @param out           receives the changes, to be freed with ourdb_free_buf(); its len is 0 if
///     there are none, also where since_commit is beyond the last commit. Zeroed on failure. What it
///     held before is not freed.
/// @param out_commit    receives the last commit among them; since_commit if there are none; 0 on
///     failure
///
/// @return OURDB_OK, or
/// - OURDB_INCOMPATIBLE: the database was taken over from herolib, and since_commit is before its
///   first own commit, or before a compaction: then copy the directory, once it has such a
///   commit, and go on from the copy. Or it was opened with OURDB_OPEN_SALVAGE, and this would be
///   a part of a difference
/// - OURDB_BUSY: a read-only handle, and the database was compacted, made anew or put back since:
///   ourdb_refresh() it
/// - a code that any read can return (see Errors)
///
/// Cost: reads the log from there on, and copies it. The first part of a difference reads the heads
/// of all versions that were kept, the last one looks at all ids, both once for all who ask; 16
/// bytes of memory for each of those versions, until the next compaction or the close.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ourdb_changes(
    db: *const ourdb,
    since_commit: u64,
    max_bytes: usize,
    out: *mut ourdb_buf,
    out_commit: *mut u64,
) -> c_int {
    const FUNCTION: &str = "ourdb_changes";
    if let Err(failure) = pointer::check(out_commit, "out_commit") {
        // SAFETY: the caller's struct.
        return unsafe { answer::<ourdb_buf>(FUNCTION, out, "out", || Err(failure)) };
    }
    let max_bytes = match max_bytes {
        0 => usize::MAX,
        given => given,
    };
    let mut last = 0;
    // SAFETY: the caller's handle and struct.
    let code = unsafe {
        answer(FUNCTION, out, "out", || {
            with(db, |db| {
                let (changes, commit) = db.changes(since_commit, max_bytes)?;
                let changes = ourdb_buf::of(changes)?;
                last = commit;
                Ok(changes)
            })
        })
    };
    // SAFETY: not NULL and aligned; that it may be written is the caller's promise.
    unsafe { out_commit.write(last) };
    code
}

/// Applies what ourdb_changes() gave out of another database. The commits come in with the numbers
/// and times that they have there.
///
/// The receiver is a database, of either mode, that nobody else writes to: an empty one, a backup of
/// the sender, or one that has applied what came before. What it has already is skipped, so applying
/// the same changes twice does no harm.
///
/// @param db       the database
/// @param changes  the bytes
/// @param len      how many; with 0 nothing happens, and changes may be NULL
///
/// @return OURDB_OK, or
/// - OURDB_INCOMPATIBLE: a commit before these is missing; or the database has commits of its own
///   (of which a difference knows only what shows in the records that are live at its end), or is
///   in the middle of a difference that they don't go on with
/// - OURDB_ID_OUT_OF_RANGE: an id among them is not below the database's record_nr_max
/// - OURDB_RECORD_TOO_LARGE: a value is longer than its record_size_max, or one commit writes
///   more than 4 GiB
/// - OURDB_CORRUPT: these are not the bytes that ourdb_changes() gave out
/// - OURDB_BUSY: called by the progress function of ourdb_backup(), and they erase something that is
///   not erased here yet, or have versions in them that were erased since
/// - a code that any write can return (see Errors)
///
/// After a failure the commits before the one that failed may be there, never a part of one:
/// ourdb_last_commit() says where to go on.
///
/// Cost: as ourdb_set_many() for each commit. The last part of a difference reads the heads of all
/// live records.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ourdb_apply(db: *mut ourdb, changes: *const c_void, len: usize) -> c_int {
    // SAFETY: the caller's handle and bytes.
    finish("ourdb_apply", unsafe {
        with(db, |db| {
            Ok(db.apply(pointer::array(changes.cast::<u8>(), len, "changes")?)?)
        })
    })
}
