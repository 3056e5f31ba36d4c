//! One record at a time.

use std::ffi::{c_int, c_void};
use std::ptr;

use super::call::{answer, finish, with};
use super::codes::OURDB_OK;
use super::failure::{Failure, Outcome};
use super::handle::{self, ourdb};
use super::memory::ourdb_buf;
use super::pointer;
use crate::error::{Error, NotFound};

/// Stores a value under the next id. For incremental databases.
///
/// Ids begin at 1, and none is given out twice, also after its record was deleted.
///
/// @param db      the database
/// @param data    the value; may be NULL when len is 0
/// @param len     its length in bytes; 0 is a value like any other
/// @param out_id  receives the id; 0 on failure
///
/// @return OURDB_OK, or
/// - OURDB_WRONG_MODE: in this database the caller chooses the ids
/// - OURDB_RECORD_TOO_LARGE: len is over record_size_max
/// - OURDB_FULL: every id below record_nr_max has been given out
/// - a code that any write can return (see Errors)
///
/// Cost: one append to the log, as for ourdb_set().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ourdb_insert(
    db: *mut ourdb,
    data: *const c_void,
    len: usize,
    out_id: *mut u32,
) -> c_int {
    // SAFETY: the caller's handle, bytes and id.
    unsafe {
        answer("ourdb_insert", out_id, "out_id", || {
            with(db, |db| {
                Ok(db.insert(pointer::value(data, len, || "data".into())?)?)
            })
        })
    }
}

/// Stores a value under an id: a new version of the record, on top of those before.
///
/// In a key-value database any id below record_nr_max will do. In an incremental one the id must
/// hold a live record, so that set only overwrites.
///
/// @param db    the database
/// @param id    the record
/// @param data  the value; may be NULL when len is 0
/// @param len   its length in bytes; 0 is a value like any other
///
/// @return OURDB_OK, or
/// - OURDB_ID_OUT_OF_RANGE: id is not below record_nr_max
/// - OURDB_ID_NOT_ASSIGNED: incremental, and id holds no live record: never inserted, or deleted
/// - OURDB_RECORD_TOO_LARGE: len is over record_size_max
/// - a code that any write can return (see Errors)
///
/// Cost: one append to the log: the value is copied and its checksum taken, and nothing is
/// allocated. With OURDB_SYNC_COMMIT one fsync more, shared with other threads.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ourdb_set(
    db: *mut ourdb,
    id: u32,
    data: *const c_void,
    len: usize,
) -> c_int {
    // SAFETY: the caller's handle and bytes.
    finish("ourdb_set", unsafe {
        with(db, |db| {
            Ok(db.set(id, pointer::value(data, len, || "data".into())?)?)
        })
    })
}

/// Reads a record's value into memory of the library's.
///
/// @param db   the database
/// @param id   the record
/// @param out  receives the value, to be freed with ourdb_free_buf(); zeroed on failure. What it
///     held before is not freed.
///
/// @return OURDB_OK, or
/// - OURDB_NOT_FOUND: no live record has that id
/// - OURDB_ID_OUT_OF_RANGE: id is not below record_nr_max
/// - a code that any read can return (see Errors)
///
/// Cost: one look into the lookup, the checksum over the value, one allocation, one copy. No lock,
/// and no system call where data files are mapped.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ourdb_get(db: *const ourdb, id: u32, out: *mut ourdb_buf) -> c_int {
    // SAFETY: the caller's handle and struct.
    unsafe {
        answer("ourdb_get", out, "out", || {
            with(db, |db| db.get_with(id, ourdb_buf::copy_of)?)
        })
    }
}

/// Reads a record's value into the caller's memory. The fastest way to read one record.
///
/// @param db   the database
/// @param id   the record
/// @param buf  receives the value; only written on success. May be NULL when cap is 0, which asks
///     for the length alone.
/// @param cap  how many bytes buf holds
/// @param len  receives the value's length, on success and with OURDB_BUFFER_TOO_SMALL; otherwise 0
///
/// @return OURDB_OK, or
/// - OURDB_BUFFER_TOO_SMALL: the value is longer than cap; buf is untouched, *len is its length
/// - OURDB_NOT_FOUND: no live record has that id
/// - OURDB_ID_OUT_OF_RANGE: id is not below record_nr_max
/// - a code that any read can return (see Errors)
///
/// Cost: as ourdb_get(), without the allocation.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ourdb_get_into(
    db: *const ourdb,
    id: u32,
    buf: *mut c_void,
    cap: usize,
    len: *mut usize,
) -> c_int {
    // The way of nearly every read, outside of `with`, because nothing in it can panic. Each
    // instruction counts here: only so many fit the processor's window, and where two reads do,
    // they wait for memory at the same time.
    let copy = |value: &[u8]| {
        let fits = value.len() <= cap && !buf.is_null() && !len.is_null() && len.is_aligned();
        if fits {
            // SAFETY: by the caller's word `buf` has room for `cap` bytes, and a value that the
            // database holds is not the caller's buffer; `len` may be written.
            unsafe {
                ptr::copy_nonoverlapping(value.as_ptr(), buf.cast(), value.len());
                len.write(value.len());
            }
        }
        fits
    };
    // SAFETY: the caller's handle.
    if unsafe { handle::peek(db) }.and_then(|db| db.quick(id, copy)) == Some(true) {
        return OURDB_OK;
    }
    // SAFETY: the caller's handle and memory.
    unsafe {
        value_into("ourdb_get_into", buf, cap, len, |copy| {
            with(db, |db| db.get_with(id, copy)?)
        })
    }
}

/// All of [`ourdb_get_into`] and its like: `read` calls what it is given with the value.
///
/// # Safety
/// `buf` has room for `cap` bytes or is NULL; `len` is NULL or may be written.
#[inline(never)]
pub(super) unsafe fn value_into(
    function: &'static str,
    buf: *mut c_void,
    cap: usize,
    len: *mut usize,
    read: impl FnOnce(&mut dyn FnMut(&[u8]) -> Outcome<()>) -> Outcome<()>,
) -> c_int {
    if let Err(failure) = pointer::check(len, "len") {
        return finish(function, Err(failure));
    }
    let mut length = 0;
    let mut copy = |value: &[u8]| {
        length = value.len();
        if length > cap {
            return Err(Failure::BufferTooSmall {
                needed: length,
                given: cap,
            });
        }
        if length != 0 {
            // SAFETY: `buf` is not NULL, because `cap` is not 0, and by the caller's word it has
            // room for `cap` bytes; a value that the database holds is not the caller's buffer.
            unsafe { ptr::copy_nonoverlapping(value.as_ptr(), buf.cast(), length) };
        }
        Ok(())
    };
    let outcome = if buf.is_null() && cap != 0 {
        Err(Error::invalid(format!("buf is NULL, and cap is {cap}")).into())
    } else {
        read(&mut copy)
    };
    // SAFETY: not NULL and aligned; that it may be written is the caller's promise.
    unsafe { len.write(length) };
    finish(function, outcome)
}

/// Deletes a record. The deletion is a version too: the values before it stay in the history.
///
/// @param db  the database
/// @param id  the record
///
/// @return OURDB_OK, or
/// - OURDB_NOT_FOUND: no live record has that id
/// - OURDB_ID_OUT_OF_RANGE: id is not below record_nr_max
/// - a code that any write can return (see Errors)
///
/// Cost: one short append to the log, as for ourdb_set().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ourdb_delete(db: *mut ourdb, id: u32) -> c_int {
    // SAFETY: the caller's handle.
    finish("ourdb_delete", unsafe { with(db, |db| Ok(db.delete(id)?)) })
}

/// Asks whether a record is there.
///
/// @param db  the database
/// @param id  the record; any number will do, also one that is not below record_nr_max
///
/// @return OURDB_OK: a live record has that id. Or
/// - OURDB_NOT_FOUND: none has
/// - a code that any read can return (see Errors)
///
/// Cost: one look into the lookup; the value is not read.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ourdb_contains(db: *const ourdb, id: u32) -> c_int {
    // SAFETY: the caller's handle.
    finish("ourdb_contains", unsafe {
        with(db, |db| match db.contains(id)? {
            true => Ok(()),
            false => Err(Error::NotFound(NotFound::Record(id)).into()),
        })
    })
}

/// The id that the next ourdb_insert() will give out, if no other thread is quicker. For
/// incremental databases.
///
/// @param db      the database
/// @param out_id  receives the id; 0 on failure
///
/// @return OURDB_OK, or
/// - OURDB_WRONG_MODE: in this database the caller chooses the ids
/// - OURDB_FULL: every id below record_nr_max has been given out
/// - a code that any function on a database can return (see Errors)
///
/// Cost: none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ourdb_next_id(db: *const ourdb, out_id: *mut u32) -> c_int {
    // SAFETY: the caller's handle and id.
    unsafe {
        answer("ourdb_next_id", out_id, "out_id", || {
            with(db, |db| Ok(db.next_id()?))
        })
    }
}

/// How many live records there are.
///
/// @param db   the database
/// @param out  receives the number; 0 on failure
///
/// @return OURDB_OK, or
/// - a code that any function on a database can return (see Errors)
///
/// Cost: none; the number is kept.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ourdb_count(db: *const ourdb, out: *mut u64) -> c_int {
    // SAFETY: the caller's handle and number.
    unsafe { answer("ourdb_count", out, "out", || with(db, |db| Ok(db.count()?))) }
}
