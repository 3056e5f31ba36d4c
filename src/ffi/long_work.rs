//! Work over the whole database, which tells of its progress.

use std::ffi::{c_int, c_void};
use std::ops::ControlFlow;

use super::call::{finish, with};
use super::failure::Failure;
use super::handle::ourdb;

/// Called now and then during long work, by the thread that asked for it.
///
/// It may use the database, but not close it. It must return, and not by longjmp or a C++ exception.
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
        with(db, |db| {
            let report = db.check(|done, total| tell(progress, context, done, total))?;
            if report.is_sound() {
                Ok(())
            } else {
                Err(Failure::Damaged(report))
            }
        })
    })
}
