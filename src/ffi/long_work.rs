//! Work over the whole database, which tells of its progress.

use std::ffi::{c_char, c_int, c_void};
use std::ops::ControlFlow;

use super::call::{finish, with};
use super::failure::{Failure, Outcome};
use super::handle::ourdb;
use super::pointer;
use super::sized::{self, Growing};
use crate::{Db, Retention};

/// Called now and then during long work, by the thread that asked for it.
///
/// It may use the database; to close it is OURDB_BUSY. It must return, and not by longjmp or a C++
/// exception.
///
/// @param context  what the caller gave
/// @param done     how much is done, in bytes
/// @param total    how much there is to do
///
/// @return 0 to go on; anything else stops the work, which then returns OURDB_CANCELLED
pub type ourdb_progress =
    Option<unsafe extern "C" fn(context: *mut c_void, done: u64, total: u64) -> c_int>;

/// Calls `progress`, if there is one.
///
/// # Safety
/// `progress` is NULL or may be called with `context`.
unsafe fn tell(
    progress: ourdb_progress,
    context: *mut c_void,
    done: u64,
    total: u64,
) -> ControlFlow<()> {
    // SAFETY: the caller promises the same.
    match progress.map(|progress| unsafe { progress(context, done, total) }) {
        None | Some(0) => ControlFlow::Continue(()),
        Some(_) => ControlFlow::Break(()),
    }
}

/// Runs `body`, which calls the caller's function: that can't close the database meanwhile.
///
/// # Safety
/// As of [`with`].
unsafe fn with_long<T>(db: *const ourdb, body: impl FnOnce(&Db) -> Outcome<T>) -> Outcome<T> {
    // SAFETY: the caller promises the same.
    unsafe {
        with(db, |db| {
            let _work = db.begin_long_work();
            body(db)
        })
    }
}

/// What a compaction keeps: every version that one of the rules keeps. Prepare it with
/// ourdb_retention_init(), then set what is wanted. A rule of 0 is switched off.
///
/// The newest version of a live record always stays, also with all rules off.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ourdb_retention {
    /// sizeof(ourdb_retention), as ourdb_retention_init() set it.
    pub size: usize,
    /// The last so many versions of each record, deletions counted; at first 1.
    pub keep_versions: u64,
    /// Versions whose time is this or later, in microseconds since the Unix epoch.
    pub keep_since_us: u64,
    /// Versions whose commit has this number or a higher one.
    pub keep_since_commit: u64,
}

// SAFETY: so it is declared, and all of it are numbers.
unsafe impl Growing for ourdb_retention {
    const NAME: &'static str = "ourdb_retention";
    const INIT: &'static str = "ourdb_retention_init";
}

/// Prepares a retention: keep_versions is 1, the other rules are off.
///
/// @param retention  to be filled
/// @param size       sizeof(ourdb_retention)
///
/// @return OURDB_OK, or
/// - OURDB_INVALID_ARGUMENT: retention is NULL, or size is one that no version's ourdb_retention
///   can have; nothing was written
///
/// Cost: none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ourdb_retention_init(
    retention: *mut ourdb_retention,
    size: usize,
) -> c_int {
    // SAFETY: the caller's struct, of the size that it says.
    let outcome = unsafe {
        sized::init(retention, "retention", size, |retention| {
            retention.keep_versions = Retention::default().keep_versions;
        })
    };
    finish("ourdb_retention_init", outcome)
}

/// Makes the data files shorter: writes what the retention keeps into new ones, and drops the rest
/// for good. A record of which no version is kept disappears.
///
/// Reads and writes of other threads and processes go on meanwhile. Transactions, snapshots and
/// iterators that are open keep what they see; their old data files are removed when the last of
/// them has ended. A crash on the way leaves the database as it was or compacted.
///
/// @param db         the database
/// @param retention  what to keep, from ourdb_retention_init(); only read during the call
/// @param progress   called every few MiB; may be NULL
/// @param context    handed to progress
///
/// @return OURDB_OK, or, and then nothing was changed:
/// - OURDB_BUSY: another compaction is at work, perhaps that of auto_compact_percent
/// - OURDB_CANCELLED: progress asked to stop
/// - OURDB_CORRUPT: something that was to be kept is damaged
/// - OURDB_INVALID_ARGUMENT: retention is NULL or was not prepared
/// - OURDB_INCOMPATIBLE: a rule is set that this version of the library doesn't know
/// - a code that any write can return (see Errors)
///
/// Cost: reads everything and writes what is kept, so for a while the disk holds both; and 8 bytes
/// of memory for each id in use, and 50 to 100 for each version that is kept of the record with the
/// most. Writers wait at its end only, while what they wrote last is taken over; before that it
/// waits for an erasure that is under way.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ourdb_compact(
    db: *mut ourdb,
    retention: *const ourdb_retention,
    progress: ourdb_progress,
    context: *mut c_void,
) -> c_int {
    // SAFETY: the caller's handle, struct, callback and context.
    finish("ourdb_compact", unsafe {
        with_long(db, |db| {
            let retention = sized::read(retention, "retention")?;
            let retention = Retention {
                keep_versions: retention.keep_versions,
                keep_since_us: retention.keep_since_us,
                keep_since_commit: retention.keep_since_commit,
            };
            Ok(db.compact(&retention, |done, total| {
                tell(progress, context, done, total)
            })?)
        })
    })
}

/// Copies the database as it is now into another directory, with its whole history. Reads and
/// writes go on meanwhile, erasures wait; for one that waits already, this waits first. The copy
/// opens like any database, and is durable when this returns OURDB_OK.
///
/// A directory that holds an earlier backup of the same database is brought up to date: only what is
/// new is copied. If that is cut short, by a crash or by progress, the directory holds the earlier
/// backup still, or can be brought up to date by the next call.
///
/// @param db           the database; may be opened for reading only
/// @param destination  a directory that is absent, empty, or holds an earlier backup of this
///     database that nobody has written to or compacted since
/// @param progress     called every few MiB; may be NULL. Where db is open for reading only, and the
///     writer has erased what was being copied, it is copied again, and told anew. It must not
///     wait for a backup of another thread, which may wait for an erasure that waits for this one
/// @param context      handed to progress
///
/// @return OURDB_OK, or
/// - OURDB_INCOMPATIBLE: the directory holds something else, a backup that was written to since, or
///   one that goes further than db, or has another history: db was set back, has other commits than
///   the database that made the backup, or is a read-only handle that was not refreshed since
/// - OURDB_LOCKED: somebody has the backup open for writing
/// - OURDB_BUSY: db is open for reading only, and the files of the moment that it sees went with a
///   compaction or were replaced: call ourdb_refresh(). Or the writer erases quicker than it can be
///   copied
/// - OURDB_CANCELLED: progress asked to stop
/// - OURDB_INVALID_ARGUMENT: destination is NULL or empty
/// - OURDB_NO_SPACE: disk or quota is full there
/// - a code that any read can return (see Errors)
///
/// Cost: reads what is new and writes it, with a few syncs, and takes 8 bytes of memory per id
/// meanwhile, with OURDB_LOOKUP_DISK too; for what was taken over from herolib 24.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ourdb_backup(
    db: *const ourdb,
    destination: *const c_char,
    progress: ourdb_progress,
    context: *mut c_void,
) -> c_int {
    // SAFETY: the caller's handle, string, callback and context.
    finish("ourdb_backup", unsafe {
        with_long(db, |db| {
            let destination = pointer::path(destination, "destination")?;
            Ok(db.backup(destination, |done, total| {
                tell(progress, context, done, total)
            })?)
        })
    })
}

/// Reads every version of every record and verifies it: both checksums, that each version follows
/// the one before it, that commits follow each other, and that the lookup is what the log makes of
/// it. As of the moment of the call; reads and writes of other threads go on.
///
/// On a database that was opened with OURDB_OPEN_SALVAGE it names what was lost.
///
/// @param db        the database
/// @param progress  called every few MiB; may be NULL
/// @param context   handed to progress
///
/// @return OURDB_OK: nothing is damaged. Or
/// - OURDB_CORRUPT: something is; ourdb_errmsg() names each damaged place, one to a line, up to
///   1,000 of them: file, offset, and the record where it is known
/// - OURDB_CANCELLED: progress asked to stop
/// - OURDB_BUSY: a read-only handle, and the database was compacted, made anew or put back since:
///   ourdb_refresh() it
/// - a code that any read can return (see Errors)
///
/// Cost: reads all data files once; meanwhile 8 bytes of memory for each id in use.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ourdb_check(
    db: *const ourdb,
    progress: ourdb_progress,
    context: *mut c_void,
) -> c_int {
    // SAFETY: the caller's handle, callback and context.
    finish("ourdb_check", unsafe {
        with_long(db, |db| {
            let report = db.check(|done, total| tell(progress, context, done, total))?;
            if report.is_sound() {
                Ok(())
            } else {
                Err(Failure::Damaged(report))
            }
        })
    })
}
