//! Ordered scans.

use std::ffi::c_int;
use std::ptr;

use super::call::{Blank, answer, watched_of, with, with_part, with_part_mut};
use super::codes::OURDB_OK;
use super::failure::{Failure, Outcome};
use super::handle::{self, Of, Scanning, ourdb, ourdb_iter, ourdb_txn};
use super::memory::{List, ourdb_record, ourdb_records};
use super::pointer;
use crate::error::Error;
use crate::records::Record;
use crate::{Order, Scan};

/// ourdb_iter_open(), ourdb_txn_iter_open(): from the highest id down.
pub const OURDB_ITER_REVERSE: u32 = 1;
/// ourdb_iter_open(), ourdb_txn_iter_open(): ids only. The values are not read; of a record all but
/// its id is 0.
pub const OURDB_ITER_KEYS: u32 = 2;

/// What ourdb_iter_next_many() gives who doesn't say how many: ids alone have no bytes that would end it.
const MANY: usize = 65_536;

/// Opens a scan over the live records of a range of ids, in the order of the ids.
///
/// It sees the database as of this moment, whatever is committed meanwhile. Close it with
/// ourdb_iter_close(): until then the database can't be closed, and a compaction can't give back the
/// files that it reads.
///
/// @param db     the database
/// @param lower  the lowest id; 0 to begin with the first
/// @param upper  the highest id, itself included; UINT32_MAX to go up to the last. One below lower
///     makes a scan over nothing.
/// @param flags  0, or OURDB_ITER_REVERSE, OURDB_ITER_KEYS, combined with |
/// @param out    receives the iterator; NULL on failure
///
/// @return OURDB_OK, or
/// - OURDB_INVALID_ARGUMENT: an unknown flag
/// - a code that any read can return (see Errors)
///
/// Cost: one allocation, and no copy.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ourdb_iter_open(
    db: *const ourdb,
    lower: u32,
    upper: u32,
    flags: u32,
    out: *mut *mut ourdb_iter,
) -> c_int {
    // SAFETY: the caller's handle and pointer.
    unsafe {
        answer("ourdb_iter_open", out, "out", || {
            let home = handle::resolve(db)?;
            with(db, |db| {
                let order = order(flags)?;
                Ok(issue(home, db.scan(lower, upper, order)?, order))
            })
        })
    }
}

/// As ourdb_iter_open(), over what a transaction or snapshot sees: with the writes that the
/// transaction has made before this call, without later ones.
///
/// Of what the transaction itself has written, commit and time_us are 0: there is no commit yet. The
/// iterator doesn't need the transaction, and may be used after that has ended.
///
/// @param txn    the transaction
/// @param lower  the lowest id; 0 to begin with the first
/// @param upper  the highest id, itself included; UINT32_MAX to go up to the last. One below lower
///     makes a scan over nothing.
/// @param flags  0, or OURDB_ITER_REVERSE, OURDB_ITER_KEYS, combined with |
/// @param out    receives the iterator; NULL on failure
///
/// @return OURDB_OK, or
/// - OURDB_INVALID_ARGUMENT: an unknown flag
/// - a code that any read can return (see Errors)
///
/// Unless it is a snapshot, the transaction has read all ids from the end of the range at which the
/// iterator began to the record that was handed out last, and the rest of the range when the
/// iterator has said that it is over, or has handed out fewer than were asked for because it is.
/// What it doesn't come to doesn't count as read.
///
/// Cost: one allocation. The first write of the transaction after that copies what it wrote before.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ourdb_txn_iter_open(
    txn: *const ourdb_txn,
    lower: u32,
    upper: u32,
    flags: u32,
    out: *mut *mut ourdb_iter,
) -> c_int {
    // SAFETY: the caller's handle and pointer.
    unsafe {
        answer("ourdb_txn_iter_open", out, "out", || {
            with_part(txn, |txn| {
                let order = order(flags)?;
                Ok(issue(txn.db, txn.it.scan(lower, upper, order)?, order))
            })
        })
    }
}

fn order(flags: u32) -> Outcome<Order> {
    let unknown = flags & !(OURDB_ITER_REVERSE | OURDB_ITER_KEYS);
    if unknown != 0 {
        return Err(Error::invalid(format!("flags: unknown bits {unknown:#x}")).into());
    }
    Ok(Order {
        reverse: flags & OURDB_ITER_REVERSE != 0,
        keys_only: flags & OURDB_ITER_KEYS != 0,
    })
}

fn issue(db: &'static ourdb, scan: Scan, order: Order) -> *mut ourdb_iter {
    let it = Scanning {
        scan,
        keys_only: order.keys_only,
    };
    handle::issue(Box::new(Of { db, it }))
}

/// What goes out of a record. Of a scan for keys only the id counts.
#[inline(always)]
fn item(record: Record<'_>, keys_only: bool) -> ourdb_record {
    match keys_only {
        false => ourdb_record::new(record),
        true => ourdb_record {
            id: record.id,
            ..ourdb_record::BLANK
        },
    }
}

/// Goes on to the next record.
///
/// @param iter  the iterator
/// @param out   receives the record; zeroed on failure. Its data belongs to the iterator, is valid
///     until the next call on that, and is not to be freed.
///
/// @return OURDB_OK, or
/// - OURDB_NOT_FOUND: the iteration is over, and stays so
/// - OURDB_CORRUPT: the next record is damaged
/// - a code that any read can return (see Errors)
///
/// Cost: less than a read by id, because the next records are fetched ahead; no allocation where
/// data files are mapped.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ourdb_iter_next(iter: *mut ourdb_iter, out: *mut ourdb_record) -> c_int {
    // SAFETY: the caller's handle, and nothing else uses it.
    let part = unsafe { handle::peek_mut(iter) };
    if let Some(part) = part
        && pointer::is_sound(out)
        && let Some(record) = part.it.scan.quick()
    {
        // SAFETY: not NULL and aligned; that it may be written is the caller's promise.
        unsafe { out.write(item(record, part.it.keys_only)) };
        return OURDB_OK;
    }
    // SAFETY: the caller's handle and struct.
    unsafe {
        answer("ourdb_iter_next", out, "out", || {
            with_part_mut(iter, |it: &mut Scanning| {
                let record = it.scan.next()?.ok_or(Failure::Over)?;
                Ok(item(record, it.keys_only))
            })
        })
    }
}

/// Goes on to the next records, many at once.
///
/// @param iter  the iterator
/// @param max   how many at most; 0: 65,536. A list ends in any case once its values have a
///     mebibyte, so only OURDB_NOT_FOUND says that no more are left.
/// @param out   receives the records, at least one, to be freed with ourdb_free_records(); zeroed on
///     failure. They are the caller's, and don't depend on the iterator. What it held before is not
///     freed.
///
/// @return OURDB_OK, or
/// - OURDB_NOT_FOUND: the iteration is over, and stays so
/// - OURDB_CORRUPT: one of the next records is damaged
/// - a code that any read can return (see Errors)
///
/// Cost: less for each than ourdb_iter_next() for a caller in another language; a few allocations
/// for all, and a copy of each value.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ourdb_iter_next_many(
    iter: *mut ourdb_iter,
    max: usize,
    out: *mut ourdb_records,
) -> c_int {
    let max = match max {
        0 => MANY,
        given => given,
    };
    // SAFETY: the caller's handle and struct.
    unsafe {
        answer("ourdb_iter_next_many", out, "out", || {
            with_part_mut(iter, |it: &mut Scanning| {
                let place = it.scan.place()?;
                let mut list = List::new();
                let read = it.scan.next_many_into(max, list.records());
                let taken = read.map_err(Failure::from).and_then(|()| {
                    if list.records().is_empty() {
                        return Err(Failure::Over);
                    }
                    list.finish(|record| item(record, it.keys_only))
                });
                if !matches!(taken, Ok(_) | Err(Failure::Over)) {
                    it.scan.go_back(place);
                }
                taken
            })
        })
    }
}

/// Goes on to the next records, of which the ids alone are wanted. The fastest way to go over many.
///
/// No value is read, with OURDB_ITER_KEYS or without. On one iterator it may take turns with
/// ourdb_iter_next() and ourdb_iter_next_many().
///
/// @param iter   the iterator
/// @param ids    receives the ids, at least one; untouched on failure
/// @param cap    how many ids has room for; not 0
/// @param count  receives how many there are; 0 on failure. Fewer than cap don't say that it is
///     over: only OURDB_NOT_FOUND does.
///
/// @return OURDB_OK, or
/// - OURDB_NOT_FOUND: the iteration is over, and stays so
/// - OURDB_INVALID_ARGUMENT: cap is 0
/// - OURDB_CORRUPT: what says whether the next record is there is damaged
/// - a code that any read can return (see Errors)
///
/// Cost: a few nanoseconds for each; nothing is allocated, unless the iterator is that of a
/// transaction.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ourdb_iter_next_ids(
    iter: *mut ourdb_iter,
    ids: *mut u32,
    cap: usize,
    count: *mut usize,
) -> c_int {
    // SAFETY: the caller's handle, array of `cap` ids, and count.
    unsafe {
        answer("ourdb_iter_next_ids", count, "count", || {
            with_part_mut(iter, |it: &mut Scanning| {
                pointer::check(ids, "ids")?;
                if cap == 0 {
                    return Err(Error::invalid("cap is 0").into());
                }
                let mut count = 0;
                while count < cap {
                    // Not straight into the caller's array, which may hold nothing yet.
                    let mut part = [0; 256];
                    let room = part.len().min(cap - count);
                    match it.scan.next_ids(&mut part[..room]) {
                        Ok(0) => break,
                        Ok(read) => {
                            ptr::copy_nonoverlapping(part.as_ptr(), ids.add(count), read);
                            count += read;
                        }
                        // Those before it are handed out first; the failure comes again.
                        Err(_) if count != 0 => break,
                        Err(error) => return Err(error.into()),
                    }
                }
                match count {
                    0 => Err(Failure::Over),
                    _ => Ok(count),
                }
            })
        })
    }
}

/// Closes an iterator. The record that ourdb_iter_next() gave last is gone with it.
///
/// @param iter  the iterator; NULL, and one that is closed already, do nothing
///
/// Cost: frees memory.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ourdb_iter_close(iter: *mut ourdb_iter) {
    // SAFETY: the caller's handle, and nothing runs beside.
    if let Ok(open) = unsafe { handle::retire(iter) } {
        let Of { db, it } = *open;
        let _ = watched_of(db, move || {
            let Scanning { scan: _scan, .. } = it;
            Ok(())
        });
    }
}
