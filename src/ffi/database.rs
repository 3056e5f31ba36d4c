//! Opening and ending a database.

use std::ffi::{c_char, c_int};
use std::path::Path;

use super::call::{answer, finish, guarded, with};
use super::failure::Outcome;
use super::handle::{self, ourdb};
use super::{options, panics, pointer};
use crate::db::Db;
use crate::error::Error;

/// Opens a database, or makes one.
///
/// A directory that V's or Go's OurDB wrote opens too (see herolib directories). After a crash the
/// database is put in order here: what was committed is there.
///
/// @param path     the directory: bytes as the file system likes them, ended by a zero byte.
///     Ignored with OURDB_OPEN_MEMORY, and may then be NULL.
/// @param options  from ourdb_options_init(), only read during the call. NULL: open what is there,
///     otherwise make an incremental database with the defaults.
/// @param out      receives the handle; NULL on failure
///
/// @return OURDB_OK, or
/// - OURDB_INVALID_ARGUMENT: path or out is NULL, path is empty, an unknown flag or value in the
///   options, flags that exclude each other, options not prepared by ourdb_options_init()
/// - OURDB_NOT_FOUND: no database is there, and OURDB_OPEN_MUST_EXIST or OURDB_OPEN_READ_ONLY was
///   given
/// - OURDB_LOCKED: it is open for writing already, in this process or in another
/// - OURDB_INCOMPATIBLE: it was made with another mode or format than is asked for or known; a
///   limit lower than what is stored; an option that this version of the library doesn't know; a
///   herolib directory without a lookup dump, and OURDB_OPEN_ADOPT was not given
/// - OURDB_CORRUPT: its files are damaged, and not in the way a crash leaves them
/// - OURDB_IO, OURDB_NO_SPACE, OURDB_OUT_OF_MEMORY, OURDB_PANIC
///
/// Cost: of a cleanly closed database the manifest and the lookup are read, not the data. After a
/// crash, what was written since the last checkpoint is read as well; with OURDB_LOOKUP_DISK the
/// whole log.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ourdb_open(
    path: *const c_char,
    options: *const options::ourdb_options,
    out: *mut *mut ourdb,
) -> c_int {
    let open = || {
        panics::keep_quiet();
        // SAFETY: NULL, or the caller's struct of the size that it says.
        let options = unsafe { options::read(options) }?;
        let path = if options.memory {
            Path::new("")
        } else {
            // SAFETY: NULL, or the caller's C string.
            unsafe { pointer::path(path, "path") }?
        };
        Ok(handle::issue(Db::open(path, &options)?))
    };
    // SAFETY: NULL, or the caller's to be written.
    unsafe { answer("ourdb_open", out, "out", || guarded(open)) }
}

/// Closes a database: makes everything durable, writes the checkpoint that makes the next open
/// fast and the lookup dump for herolib, and gives up the lock.
///
/// Whatever it returns, the handle is gone, and must not be used again, except for OURDB_BUSY. A
/// failure means that not everything may be durable; what was committed is recovered at the next
/// open as after a crash. Buffers and records that the library handed out stay valid until they are
/// freed.
///
/// No other function may run on this handle during the call.
///
/// @param db  the database; NULL does nothing and is OURDB_OK
///
/// @return OURDB_OK, or
/// - OURDB_INVALID_ARGUMENT: db is not an open handle; nothing was done
/// - OURDB_BUSY: transactions, snapshots or iterators of it are open, or this was called by the
///   progress function of long work on it; nothing was done, and the handle stays open
/// - OURDB_FORKED: this is a child of the process that opened it: the handle's memory was released,
///   and nothing on disk was touched
/// - OURDB_POISONED: an earlier write failed, so that no checkpoint could be written
/// - OURDB_IO, OURDB_NO_SPACE, OURDB_OUT_OF_MEMORY, OURDB_PANIC
///
/// Cost: syncs what is not on disk yet, and writes the lookup; the dump for herolib takes time by
/// the number of live records (OURDB_OPEN_NATIVE does without).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ourdb_close(db: *mut ourdb) -> c_int {
    if db.is_null() {
        return finish("ourdb_close", Ok(()));
    }
    let close = || {
        // SAFETY: the caller's handle, and nothing runs beside.
        check_idle(unsafe { handle::borrow(db) }?)?;
        // SAFETY: as above.
        Ok(unsafe { handle::retire(db) }?.close()?)
    };
    finish("ourdb_close", guarded(close))
}

/// Refuses to end a database as long as something of it is open, or at work. In a forked child that is
/// nothing to wait for: its memory is released.
fn check_idle(db: &Db) -> Outcome<()> {
    if !db.is_forked() {
        db.check_idle()?;
    }
    Ok(())
}

/// Closes a database and removes its own files, and the directory if it is empty then and was opened
/// by its own name, not by a symbolic link. Files that are not the database's stay.
///
/// Whatever it returns, the handle is gone, except for OURDB_READ_ONLY and OURDB_BUSY.
///
/// No other function may run on this handle during the call.
///
/// @param db  the database
///
/// @return OURDB_OK, or
/// - OURDB_INVALID_ARGUMENT: db is NULL or not an open handle; nothing was done
/// - OURDB_READ_ONLY: it was opened for reading only; nothing was done, and the handle stays open
/// - OURDB_BUSY: transactions, snapshots or iterators of it are open, or this was called by the
///   progress function of long work on it; nothing was done, and the handle stays open
/// - OURDB_FORKED: this is a child of the process that opened it: the handle's memory was released,
///   and nothing on disk was touched
/// - OURDB_IO: a file could not be removed; some may be gone already
/// - OURDB_PANIC
///
/// Cost: removes each file.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ourdb_destroy(db: *mut ourdb) -> c_int {
    let destroy = || {
        // SAFETY: the caller's handle, and nothing runs beside.
        let open = unsafe { handle::borrow(db) }?;
        if open.is_read_only() && !open.is_forked() {
            return Err(Error::ReadOnly { action: "destroy" }.into());
        }
        check_idle(open)?;
        // SAFETY: as above; `open` is not used any more.
        Ok(unsafe { handle::retire(db) }?.destroy()?)
    };
    finish("ourdb_destroy", guarded(destroy))
}

/// Makes everything durable that was committed so far, in whatever sync mode.
///
/// @param db  the database; one that was opened for reading only has nothing to sync
///
/// @return OURDB_OK: everything that was committed before the call is on disk. Or
/// - a code that any write can return (see Errors); after OURDB_IO the handle is poisoned
///
/// Cost: one fsync, shared with other threads that ask at the same time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ourdb_sync(db: *mut ourdb) -> c_int {
    // SAFETY: the caller's handle.
    finish("ourdb_sync", unsafe { with(db, |db| Ok(db.sync()?)) })
}

/// Lets a handle that was opened for reading only see what was committed until now, by the writer in
/// this process or another. On a writer's handle it does nothing.
///
/// Between two calls such a handle sees one moment, whatever the writer does, also when the writer
/// compacts. Transactions, snapshots and iterators that are open keep the moment that they have.
///
/// @param db  the database
///
/// @return OURDB_OK, or, and then the handle sees what it saw before:
/// - OURDB_NOT_FOUND: the database was removed meanwhile
/// - OURDB_INCOMPATIBLE: another database is in the directory now, or this one was set back to
///   before what the handle has seen, also if it has gone on from there
/// - a code that any read can return (see Errors)
///
/// Cost: reads what was written since, and the header of each data file. After a compaction, or
/// where the files were replaced, as to open it again, and a data file up to what the handle has
/// seen, if the log has that still.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ourdb_refresh(db: *mut ourdb) -> c_int {
    // SAFETY: the caller's handle.
    finish("ourdb_refresh", unsafe { with(db, |db| Ok(db.refresh()?)) })
}
