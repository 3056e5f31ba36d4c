//! Many records in one call.

use std::ffi::c_int;

use super::call::{answer, finish, with};
use super::failure::Outcome;
use super::handle::ourdb;
use super::memory::{List, ourdb_record, ourdb_records, ourdb_slice};
use super::pointer;
use crate::bytes::reserve_exact;

/// Stores values under the next ids, in order, in one commit. For incremental databases.
///
/// @param db       the database
/// @param values   the values; one of length 0 may have NULL as its data
/// @param count    how many; with 0 nothing happens, and values and out_ids may be NULL
/// @param out_ids  receives as many ids; untouched on failure
///
/// @return OURDB_OK: all are stored. Otherwise nothing is:
/// - OURDB_WRONG_MODE: in this database the caller chooses the ids
/// - OURDB_RECORD_TOO_LARGE: a value is over record_size_max, or all together over 4 GiB
/// - OURDB_FULL: not so many ids are left below record_nr_max
/// - a code that any write can return (see Errors)
///
/// Cost: less for each than ourdb_insert(), and one fsync for all with OURDB_SYNC_COMMIT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ourdb_insert_many(
    db: *mut ourdb,
    values: *const ourdb_slice,
    count: usize,
    out_ids: *mut u32,
) -> c_int {
    // SAFETY: the caller's handle, and arrays of `count` items.
    let outcome = unsafe {
        with(db, |db| {
            if count != 0 {
                pointer::check(out_ids, "out_ids")?;
            }
            let values = borrow_all(pointer::array(values, count, "values")?)?;
            for (index, id) in db.insert_many(&values)?.into_iter().enumerate() {
                out_ids.add(index).write(id);
            }
            Ok(())
        })
    };
    finish("ourdb_insert_many", outcome)
}

/// Stores values under ids in one commit, each by the rules of ourdb_set().
///
/// Of an id that is given twice the last value counts, and becomes one version.
///
/// @param db      the database
/// @param ids     the records
/// @param values  their values; one of length 0 may have NULL as its data
/// @param count   how many; with 0 nothing happens, and ids and values may be NULL
///
/// @return OURDB_OK: all are stored. Otherwise nothing is:
/// - OURDB_ID_OUT_OF_RANGE: an id is not below record_nr_max
/// - OURDB_ID_NOT_ASSIGNED: incremental, and an id holds no live record
/// - OURDB_RECORD_TOO_LARGE: a value is over record_size_max, or all together over 4 GiB
/// - a code that any write can return (see Errors)
///
/// Cost: less for each than ourdb_set(), and one fsync for all with OURDB_SYNC_COMMIT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ourdb_set_many(
    db: *mut ourdb,
    ids: *const u32,
    values: *const ourdb_slice,
    count: usize,
) -> c_int {
    // SAFETY: the caller's handle, and arrays of `count` items.
    let outcome = unsafe {
        with(db, |db| {
            let ids = pointer::array(ids, count, "ids")?;
            let values = borrow_all(pointer::array(values, count, "values")?)?;
            let mut records = Vec::new();
            reserve_exact(&mut records, count)?;
            records.extend(ids.iter().copied().zip(values));
            Ok(db.set_many(&records)?)
        })
    };
    finish("ourdb_set_many", outcome)
}

/// Reads many records, in the order asked, as of one moment.
///
/// A record that is not there is an item too: its flags are OURDB_RECORD_MISSING, its data is NULL.
/// So the item at an index always answers the id at that index, and a missing record is no failure.
///
/// @param db     the database
/// @param ids    the records; any number will do, also one that is not below record_nr_max
/// @param count  how many; with 0 the answer is empty, and ids and out may be NULL
/// @param out    receives as many items, to be freed with ourdb_free_records(); zeroed on failure.
///     What it held before is not freed.
///
/// @return OURDB_OK, or
/// - a code that any read can return (see Errors); a damaged record fails the whole call
///
/// Cost: less for each than ourdb_get(), because the records are fetched side by side, and a few
/// allocations for all.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ourdb_get_many(
    db: *const ourdb,
    ids: *const u32,
    count: usize,
    out: *mut ourdb_records,
) -> c_int {
    if count == 0 && out.is_null() {
        // SAFETY: the caller's handle.
        return finish("ourdb_get_many", unsafe { with(db, |_| Ok(())) });
    }
    // SAFETY: the caller's handle, array of `count` items, and struct.
    unsafe {
        answer("ourdb_get_many", out, "out", || {
            with(db, |db| {
                let mut list = List::new();
                db.get_many_into(pointer::array(ids, count, "ids")?, list.records())?;
                list.finish(ourdb_record::new)
            })
        })
    }
}

/// Deletes records in one commit. An id that is given twice is deleted once.
///
/// @param db     the database
/// @param ids    the records
/// @param count  how many; with 0 nothing happens, and ids may be NULL
///
/// @return OURDB_OK: all are deleted. Otherwise none is:
/// - OURDB_NOT_FOUND: no live record has one of the ids
/// - OURDB_ID_OUT_OF_RANGE: an id is not below record_nr_max
/// - a code that any write can return (see Errors)
///
/// Cost: less for each than ourdb_delete(), and one fsync for all with OURDB_SYNC_COMMIT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ourdb_delete_many(db: *mut ourdb, ids: *const u32, count: usize) -> c_int {
    // SAFETY: the caller's handle, and array of `count` items.
    let outcome = unsafe {
        with(db, |db| {
            Ok(db.delete_many(pointer::array(ids, count, "ids")?)?)
        })
    };
    finish("ourdb_delete_many", outcome)
}

/// Deletes every live record, in one commit. Each deletion is a version: the history stays, until
/// a compaction drops it. Ids are not given out again. In an empty database it does nothing.
///
/// @param db  the database
///
/// @return OURDB_OK, or
/// - a code that any write can return (see Errors)
///
/// Cost: one record of 40 bytes, however many there are, and a walk over the lookup. After 4,096
/// clears without a compaction, a deletion for each record.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ourdb_clear(db: *mut ourdb) -> c_int {
    // SAFETY: the caller's handle.
    finish("ourdb_clear", unsafe { with(db, |db| Ok(db.clear()?)) })
}

/// The values behind the caller's slices.
///
/// # Safety
/// Each slice is the caller's: NULL and 0, or so many bytes, unchanged during `'a`.
unsafe fn borrow_all<'a>(slices: &[ourdb_slice]) -> Outcome<Vec<&'a [u8]>> {
    let mut values = Vec::new();
    reserve_exact(&mut values, slices.len())?;
    for (index, slice) in slices.iter().enumerate() {
        let name = || format!("values[{index}].data");
        // SAFETY: the caller promises the same.
        values.push(unsafe { pointer::value(slice.data.cast(), slice.len, name) }?);
    }
    Ok(values)
}
