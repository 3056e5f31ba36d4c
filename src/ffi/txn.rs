//! Transactions and snapshots.

use std::ffi::{c_int, c_void};

use super::call::{answer, finish, watched_of, with, with_part, with_part_mut};
use super::failure::Outcome;
use super::handle::{self, Of, ourdb, ourdb_txn};
use super::memory::ourdb_buf;
use super::{pointer, records};
use crate::Txn;
use crate::db::Db;
use crate::error::{Error, NotFound, Result};

/// ourdb_txn_begin(): a snapshot, for reading only.
pub const OURDB_TXN_READ_ONLY: u32 = 1;

/// Begins a transaction, or takes a snapshot.
///
/// It sees the database as of this moment, whatever others commit meanwhile, and its own writes.
/// Any number may be open at once, in any thread; none waits for another. End each one with
/// ourdb_txn_commit() or ourdb_txn_abort(): until then the database can't be closed, and a
/// compaction can't give back the files that it reads.
///
/// @param db     the database
/// @param flags  0, or OURDB_TXN_READ_ONLY: a snapshot, in which a write is OURDB_READ_ONLY
/// @param out    receives the transaction; NULL on failure
///
/// @return OURDB_OK, or
/// - OURDB_INVALID_ARGUMENT: an unknown flag
/// - OURDB_READ_ONLY: the database was opened for reading only, and gives snapshots only
/// - a code that any read can return (see Errors); OURDB_POISONED, unless it is a snapshot
///
/// Cost: one allocation, and no copy.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ourdb_txn_begin(
    db: *mut ourdb,
    flags: u32,
    out: *mut *mut ourdb_txn,
) -> c_int {
    let begin = |db: &Db| match flags {
        0 => db.begin(),
        OURDB_TXN_READ_ONLY => db.snapshot(),
        _ => {
            let unknown = flags & !OURDB_TXN_READ_ONLY;
            Err(Error::invalid(format!("flags: unknown bits {unknown:#x}")))
        }
    };
    // SAFETY: the caller's handle and pointer.
    unsafe { answer("ourdb_txn_begin", out, "out", || issue(db, begin)) }
}

/// Takes a snapshot of the past: of the database as it was right after a commit.
///
/// @param db      the database
/// @param commit  the commit number, from ourdb_stats.oldest_commit up to ourdb_last_commit(); the
///     last one gives the same as OURDB_TXN_READ_ONLY
/// @param out     receives the snapshot; NULL on failure
///
/// @return OURDB_OK, or
/// - OURDB_NOT_FOUND: the commit is beyond the last, or the past from that commit on was compacted
///   away
/// - a code that any read can return (see Errors)
///
/// Cost: as ourdb_txn_begin(). A read in it takes one step for each version that is newer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ourdb_txn_begin_at(
    db: *mut ourdb,
    commit: u64,
    out: *mut *mut ourdb_txn,
) -> c_int {
    // SAFETY: the caller's handle and pointer.
    unsafe {
        answer("ourdb_txn_begin_at", out, "out", || {
            issue(db, |db| db.snapshot_at(commit))
        })
    }
}

/// Makes a handle for the transaction that `begin` begins.
///
/// # Safety
/// As [`with`].
unsafe fn issue(
    db: *const ourdb,
    begin: impl FnOnce(&Db) -> Result<Txn>,
) -> Outcome<*mut ourdb_txn> {
    // SAFETY: the caller promises the same.
    unsafe {
        let home = handle::resolve(db)?;
        with(db, |db| {
            let it = begin(db)?;
            Ok(handle::issue(Box::new(Of { db: home, it })))
        })
    }
}

/// Commits a transaction: all that it wrote, in one commit, or nothing.
///
/// Whatever it returns, the transaction is gone, and its handle must not be used again. Iterators
/// that were opened on it stay open.
///
/// It is OURDB_CONFLICT exactly if a record that the transaction has read was changed by a commit
/// since the transaction began: whether the record was there or not, and whether it was read by id,
/// as a neighbour, by an iterator or in a count. A write without a read never conflicts, but for
/// this: ourdb_txn_set() in an incremental database and ourdb_txn_delete() in any see whether the
/// record is live, and conflict if that was changed. At the receiver of a change feed a record that
/// was set and erased since counts as changed, though its value never came there. After a conflict
/// begin a new transaction and do the work again.
///
/// A transaction that wrote nothing makes no commit, but tells in the same way whether what it has
/// read is still so. A snapshot is always OURDB_OK.
///
/// @param txn  the transaction
///
/// @return OURDB_OK, or, and then nothing of it was written:
/// - OURDB_CONFLICT: something that it has read was changed since
/// - OURDB_INVALID_ARGUMENT: txn is NULL or not an open transaction
/// - OURDB_RECORD_TOO_LARGE: what it wrote is over the 4 GiB of one commit
/// - a code that any write can return (see Errors)
///
/// Cost: one append to the log for each record that it wrote; where it has read, a look at each
/// version that was committed since it began; and one fsync with OURDB_SYNC_COMMIT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ourdb_txn_commit(txn: *mut ourdb_txn) -> c_int {
    let commit = || {
        // SAFETY: the caller's handle, and nothing runs beside.
        let Of { db, it } = *unsafe { handle::retire(txn) }?;
        watched_of(db, || Ok(it.commit()?))
    };
    finish("ourdb_txn_commit", commit())
}

/// Ends a transaction, and drops what it wrote. This is also the way to end a snapshot.
///
/// The transaction is gone, and its handle must not be used again. Iterators that were opened on it
/// stay open.
///
/// @param txn  the transaction; NULL, and one that has ended already, do nothing
///
/// Cost: frees memory.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ourdb_txn_abort(txn: *mut ourdb_txn) {
    // SAFETY: the caller's handle, and nothing runs beside.
    if let Ok(open) = unsafe { handle::retire(txn) } {
        let Of { db, it } = *open;
        let _ = watched_of(db, || {
            it.abort();
            Ok(())
        });
    }
}

/// As ourdb_insert(), in a transaction. The id is given out to no one else from now on, and is lost
/// if the transaction is not committed; but after a crash nobody knows of it.
///
/// @param txn     the transaction
/// @param data    the value; may be NULL when len is 0
/// @param len     its length in bytes; 0 is a value like any other
/// @param out_id  receives the id; 0 on failure
///
/// @return as ourdb_insert(); OURDB_READ_ONLY in a snapshot
///
/// Cost: one copy of the value, into memory.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ourdb_txn_insert(
    txn: *mut ourdb_txn,
    data: *const c_void,
    len: usize,
    out_id: *mut u32,
) -> c_int {
    // SAFETY: the caller's handle, bytes and id.
    unsafe {
        answer("ourdb_txn_insert", out_id, "out_id", || {
            with_part_mut(txn, |txn: &mut Txn| {
                Ok(txn.insert(pointer::value(data, len, || "data".into())?)?)
            })
        })
    }
}

/// As ourdb_set(), in a transaction. Of a record that is set more than once in a transaction the
/// last value counts, and becomes one version.
///
/// @param txn   the transaction
/// @param id    the record
/// @param data  the value; may be NULL when len is 0
/// @param len   its length in bytes; 0 is a value like any other
///
/// @return as ourdb_set(); OURDB_READ_ONLY in a snapshot
///
/// Cost: one copy of the value, into memory.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ourdb_txn_set(
    txn: *mut ourdb_txn,
    id: u32,
    data: *const c_void,
    len: usize,
) -> c_int {
    // SAFETY: the caller's handle and bytes.
    finish("ourdb_txn_set", unsafe {
        with_part_mut(txn, |txn: &mut Txn| {
            Ok(txn.set(id, pointer::value(data, len, || "data".into())?)?)
        })
    })
}

/// As ourdb_get(), in a transaction.
///
/// @param txn  the transaction
/// @param id   the record
/// @param out  receives the value, to be freed with ourdb_free_buf(); zeroed on failure. What it
///     held before is not freed.
///
/// @return as ourdb_get()
///
/// Cost: as ourdb_get(), and one step for each version that is newer than the snapshot.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ourdb_txn_get(
    txn: *const ourdb_txn,
    id: u32,
    out: *mut ourdb_buf,
) -> c_int {
    // SAFETY: the caller's handle and struct.
    unsafe {
        answer("ourdb_txn_get", out, "out", || {
            with_part(txn, |txn| txn.it.get_with(id, ourdb_buf::copy_of)?)
        })
    }
}

/// As ourdb_get_into(), in a transaction.
///
/// @param txn  the transaction
/// @param id   the record
/// @param buf  receives the value; only written on success. May be NULL when cap is 0, which asks
///     for the length alone.
/// @param cap  how many bytes buf holds
/// @param len  receives the value's length, on success and with OURDB_BUFFER_TOO_SMALL; otherwise 0
///
/// @return as ourdb_get_into()
///
/// Cost: as ourdb_txn_get(), without the allocation.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ourdb_txn_get_into(
    txn: *const ourdb_txn,
    id: u32,
    buf: *mut c_void,
    cap: usize,
    len: *mut usize,
) -> c_int {
    // SAFETY: the caller's handle and memory.
    unsafe {
        records::value_into("ourdb_txn_get_into", buf, cap, len, |copy| {
            with_part(txn, |txn| txn.it.get_with(id, copy)?)
        })
    }
}

/// As ourdb_delete(), in a transaction.
///
/// @param txn  the transaction
/// @param id   the record
///
/// @return as ourdb_delete(); OURDB_READ_ONLY in a snapshot
///
/// Cost: one look into the lookup.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ourdb_txn_delete(txn: *mut ourdb_txn, id: u32) -> c_int {
    // SAFETY: the caller's handle.
    finish("ourdb_txn_delete", unsafe {
        with_part_mut(txn, |txn: &mut Txn| Ok(txn.delete(id)?))
    })
}

/// As ourdb_contains(), in a transaction.
///
/// @param txn  the transaction
/// @param id   the record; any number will do, also one that is not below record_nr_max
///
/// @return as ourdb_contains()
///
/// Cost: as ourdb_txn_get(), but the value is not read.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ourdb_txn_contains(txn: *const ourdb_txn, id: u32) -> c_int {
    // SAFETY: the caller's handle.
    finish("ourdb_txn_contains", unsafe {
        with_part(txn, |txn| match txn.it.contains(id)? {
            true => Ok(()),
            false => Err(Error::NotFound(NotFound::Record(id)).into()),
        })
    })
}

/// As ourdb_first(), in a transaction.
///
/// @param txn     the transaction
/// @param out_id  receives the id; 0 on failure
///
/// @return as ourdb_first()
///
/// Cost: as ourdb_first(); one look more at each id on the way that was inserted since
/// the transaction or snapshot began; in a snapshot of the past at each that was not live then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ourdb_txn_first(txn: *const ourdb_txn, out_id: *mut u32) -> c_int {
    // SAFETY: the caller's handle and id.
    unsafe {
        answer("ourdb_txn_first", out_id, "out_id", || {
            with_part(txn, |txn| Ok(txn.it.first()?))
        })
    }
}

/// As ourdb_last(), in a transaction.
///
/// @param txn     the transaction
/// @param out_id  receives the id; 0 on failure
///
/// @return as ourdb_last()
///
/// Cost: as ourdb_txn_first().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ourdb_txn_last(txn: *const ourdb_txn, out_id: *mut u32) -> c_int {
    // SAFETY: the caller's handle and id.
    unsafe {
        answer("ourdb_txn_last", out_id, "out_id", || {
            with_part(txn, |txn| Ok(txn.it.last()?))
        })
    }
}

/// As ourdb_above(), in a transaction.
///
/// @param txn     the transaction
/// @param id      any number, whether a record has it or not; itself never the answer
/// @param out_id  receives the id; 0 on failure
///
/// @return as ourdb_above()
///
/// Cost: as ourdb_txn_first().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ourdb_txn_above(
    txn: *const ourdb_txn,
    id: u32,
    out_id: *mut u32,
) -> c_int {
    // SAFETY: the caller's handle and id.
    unsafe {
        answer("ourdb_txn_above", out_id, "out_id", || {
            with_part(txn, |txn| Ok(txn.it.above(id)?))
        })
    }
}

/// As ourdb_below(), in a transaction.
///
/// @param txn     the transaction
/// @param id      any number, whether a record has it or not; itself never the answer
/// @param out_id  receives the id; 0 on failure
///
/// @return as ourdb_below()
///
/// Cost: as ourdb_txn_first().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ourdb_txn_below(
    txn: *const ourdb_txn,
    id: u32,
    out_id: *mut u32,
) -> c_int {
    // SAFETY: the caller's handle and id.
    unsafe {
        answer("ourdb_txn_below", out_id, "out_id", || {
            with_part(txn, |txn| Ok(txn.it.below(id)?))
        })
    }
}

/// As ourdb_count(), in a transaction.
///
/// @param txn  the transaction
/// @param out  receives the number; 0 on failure
///
/// @return as ourdb_count(), or a code that any read can return (see Errors)
///
/// Cost: none in a transaction or snapshot of the present; in a snapshot of the past a walk over all
/// ids, the first time. After an erasure, in any of them, one walk more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ourdb_txn_count(txn: *const ourdb_txn, out: *mut u64) -> c_int {
    // SAFETY: the caller's handle and number.
    unsafe {
        answer("ourdb_txn_count", out, "out", || {
            with_part(txn, |txn| Ok(txn.it.count()?))
        })
    }
}
