//! Memory that crosses the boundary, and how it comes back.
//!
//! What goes out is a boxed slice, or one box that owns everything a list of records points into;
//! a vector would need its capacity to be freed.

use std::alloc::{self, Layout};
use std::cell::Cell;
use std::ffi::c_void;
use std::mem::ManuallyDrop;
use std::ptr;

use super::call::Blank;
use super::failure::{Failure, Outcome};
use crate::bytes::reserve_exact;
use crate::error::Error;
use crate::records::{Record, Records, State};

/// Bytes of the caller's, only read during the call.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ourdb_slice {
    /// The first byte; may be NULL when len is 0.
    pub data: *const u8,
    /// How many there are.
    pub len: usize,
}

/// Bytes of the library's. They are the caller's to keep until ourdb_free_buf(), and don't depend
/// on the database: they stay valid after it is closed.
#[repr(C)]
pub struct ourdb_buf {
    /// The first byte; not NULL after a success, also when the value is empty. After a failure
    /// NULL. No zero byte follows the last one.
    pub data: *mut u8,
    /// How many there are.
    pub len: usize,
}

/// ourdb_record.flags: this version is a deletion.
pub const OURDB_RECORD_DELETED: u32 = 1;
/// ourdb_record.flags: there is no such record (in the answer of ourdb_get_many()).
pub const OURDB_RECORD_MISSING: u32 = 2;
/// ourdb_record.flags, beside OURDB_RECORD_DELETED: what was there before was removed for good, by
/// ourdb_erase().
pub const OURDB_RECORD_ERASED: u32 = 4;

/// One version of one record.
#[repr(C)]
pub struct ourdb_record {
    /// The record's id.
    pub id: u32,
    /// 0: it holds a value. Otherwise OURDB_RECORD_DELETED, perhaps with OURDB_RECORD_ERASED, or
    /// OURDB_RECORD_MISSING.
    pub flags: u32,
    /// The number of the commit that wrote it; 0 if herolib did, or if it is missing.
    pub commit: u64,
    /// When: microseconds since the Unix epoch, never less than an earlier commit's. 0 if unknown
    /// (herolib keeps no times), or if it is missing.
    pub time_us: u64,
    /// The value; NULL if it is deleted or missing. An empty value is not NULL.
    pub data: *const u8,
    /// The value's length in bytes.
    pub len: usize,
}

/// A list of records. It is the caller's to keep until ourdb_free_records(), all of it together:
/// the items and the bytes that they point at. It doesn't depend on the database.
#[repr(C)]
pub struct ourdb_records {
    /// The records; NULL if there are none.
    pub items: *mut ourdb_record,
    /// How many there are.
    pub count: usize,
    /// The library's; leave it alone.
    pub owner: *mut c_void,
}

/// Frees the bytes, and sets data to NULL and len to 0, so that freeing twice does no harm.
///
/// A copy of the struct is not a second owner: free one of the two.
///
/// @param buf  as the library filled it; NULL and zeroed ones are fine
///
/// Cost: one free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ourdb_free_buf(buf: *mut ourdb_buf) {
    // SAFETY: NULL, or the caller's struct.
    let Some(buf) = (unsafe { buf.as_mut() }) else {
        return;
    };
    let ourdb_buf { data, len } = std::mem::replace(buf, ourdb_buf::BLANK);
    if len != 0 && !data.is_null() {
        // SAFETY: `From<Vec<u8>>` made it of a boxed slice of this length.
        drop(unsafe { Box::from_raw(ptr::slice_from_raw_parts_mut(data, len)) });
    }
}

/// Frees the items and all that they point at, and zeroes the struct, so that freeing twice does
/// no harm.
///
/// A copy of the struct is not a second owner: free one of the two.
///
/// @param records  as the library filled it; NULL and zeroed ones are fine
///
/// Cost: a few free(), however many records there are. A thread keeps one list of up to 256 KiB for
/// its next one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ourdb_free_records(records: *mut ourdb_records) {
    // SAFETY: NULL, or the caller's struct.
    let Some(records) = (unsafe { records.as_mut() }) else {
        return;
    };
    let ourdb_records { owner, .. } = std::mem::replace(records, ourdb_records::BLANK);
    if !owner.is_null() {
        // SAFETY: `List::finish` made it of a boxed `Owner`.
        List::free(unsafe { Box::from_raw(owner.cast::<Owner>()) });
    }
}

/// Where empty values point. A pointer that is only not NULL (Rust's own for an empty slice is 1)
/// stops a Go program whose runtime finds it.
static NOTHING: u8 = 0;

impl Blank for ourdb_buf {
    const BLANK: ourdb_buf = ourdb_buf {
        data: ptr::null_mut(),
        len: 0,
    };
}

impl ourdb_buf {
    /// A copy of `value`.
    pub(super) fn copy_of(value: &[u8]) -> Outcome<ourdb_buf> {
        let mut bytes = Vec::new();
        reserve_exact(&mut bytes, value.len())?;
        bytes.extend_from_slice(value);
        ourdb_buf::of(bytes)
    }

    /// These bytes, which are given to the caller.
    pub(super) fn of(bytes: Vec<u8>) -> Outcome<ourdb_buf> {
        let (len, capacity) = (bytes.len(), bytes.capacity());
        if len == 0 {
            return Ok(ourdb_buf {
                data: (&raw const NOTHING).cast_mut(),
                len,
            });
        }
        let mut bytes = ManuallyDrop::new(bytes);
        let mut data = bytes.as_mut_ptr();
        if len != capacity {
            // What is freed is as long as it is said to be. `into_boxed_slice` would end the process
            // where there is no memory for the shorter one.
            let layout = Layout::array::<u8>(capacity).map_err(|_| no_memory(len))?;
            // SAFETY: the vector's own memory, of that layout, which nothing uses any more; `len` isn't 0.
            data = unsafe { alloc::realloc(data, layout, len) };
        }
        if data.is_null() {
            drop(ManuallyDrop::into_inner(bytes));
            return Err(no_memory(len));
        }
        Ok(ourdb_buf { data, len })
    }
}

fn no_memory(len: usize) -> Failure {
    let what = format!("{len} bytes for the caller").into();
    Error::OutOfMemory { what }.into()
}

impl Blank for ourdb_record {
    const BLANK: ourdb_record = ourdb_record {
        id: 0,
        flags: 0,
        commit: 0,
        time_us: 0,
        data: ptr::null(),
        len: 0,
    };
}

impl Blank for ourdb_records {
    const BLANK: ourdb_records = ourdb_records {
        items: ptr::null_mut(),
        count: 0,
        owner: ptr::null_mut(),
    };
}

/// Everything that an `ourdb_records` points into.
#[derive(Default)]
struct Owner {
    items: Vec<ourdb_record>,
    records: Records,
}

/// A thread keeps the last list that it freed for the next one, if that took no more bytes. Without
/// that each list of a long scan gets memory that was just given back to the system, and its pages
/// are cleared and mapped anew, which costs more than the records.
const MOST_KEPT: usize = 256 << 10;

thread_local! {
    static KEPT: Cell<Option<Box<Owner>>> = const { Cell::new(None) };
}

/// A list of records in the making.
pub(super) struct List(Box<Owner>);

impl List {
    /// An empty list.
    pub(super) fn new() -> List {
        // A thread that is ending has none any more.
        List(KEPT.try_with(Cell::take).ok().flatten().unwrap_or_default())
    }

    /// The records, to be filled in.
    pub(super) fn records(&mut self) -> &mut Records {
        &mut self.0.records
    }

    /// The list as it goes out, each record as `item` makes it.
    pub(super) fn finish(
        mut self,
        item: impl Fn(Record<'_>) -> ourdb_record,
    ) -> Outcome<ourdb_records> {
        let Owner { items, records } = &mut *self.0;
        if records.is_empty() {
            return Ok(ourdb_records::BLANK);
        }
        // The items point into `records`, which stays where it is from here on.
        reserve_exact(items, records.len())?;
        items.extend(records.iter().map(item));
        let count = items.len();
        let owner = Box::into_raw(self.0);
        // SAFETY: just made, and not shared yet.
        let items = unsafe { (*owner).items.as_mut_ptr() };
        Ok(ourdb_records {
            items,
            count,
            owner: owner.cast(),
        })
    }

    /// Frees a list that has come back.
    fn free(mut owner: Box<Owner>) {
        let Owner { items, records } = &mut *owner;
        if size_of::<ourdb_record>() * items.capacity() + records.room() > MOST_KEPT {
            return;
        }
        items.clear();
        records.clear();
        let _ = KEPT.try_with(|kept| kept.set(Some(owner)));
    }
}

impl From<Records> for List {
    fn from(records: Records) -> List {
        List(Box::new(Owner {
            items: Vec::new(),
            records,
        }))
    }
}

impl ourdb_record {
    #[inline(always)]
    pub(super) fn new(record: Record<'_>) -> ourdb_record {
        let (flags, data) = match record.state {
            State::Live if record.value.is_empty() => (0, &raw const NOTHING),
            State::Live => (0, record.value.as_ptr()),
            State::Deleted => (OURDB_RECORD_DELETED, ptr::null()),
            State::Erased => (OURDB_RECORD_DELETED | OURDB_RECORD_ERASED, ptr::null()),
            State::Missing => (OURDB_RECORD_MISSING, ptr::null()),
        };
        ourdb_record {
            id: record.id,
            flags,
            commit: record.commit,
            time_us: record.time_us,
            data,
            len: record.value.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_value_points_somewhere_and_a_list_owns_all_it_points_at() {
        let mut records = Records::default();
        let values: [(State, u32, &[u8]); 5] = [
            (State::Live, 0, b""),
            (State::Live, 0, b"value"),
            (State::Deleted, OURDB_RECORD_DELETED, b""),
            (
                State::Erased,
                OURDB_RECORD_DELETED | OURDB_RECORD_ERASED,
                b"",
            ),
            (State::Missing, OURDB_RECORD_MISSING, b""),
        ];
        for (id, (state, _, value)) in (0..).zip(values) {
            records
                .push(Record {
                    id,
                    state,
                    commit: 8,
                    time_us: 9,
                    value,
                })
                .unwrap();
        }
        let mut list = List::from(records).finish(ourdb_record::new).unwrap();
        assert_eq!(list.count, values.len());
        // SAFETY: the list was just made, with so many items.
        let items = unsafe { std::slice::from_raw_parts(list.items, list.count) };
        for (item, (state, flags, value)) in items.iter().zip(values) {
            assert_eq!((item.flags, item.len), (flags, value.len()));
            if state == State::Live {
                // An address in the first page can't be a pointer, and Go says so.
                assert!(item.data.addr() >= 4096);
                // SAFETY: the item's bytes, which the list owns.
                let bytes = unsafe { std::slice::from_raw_parts(item.data, item.len) };
                assert_eq!(bytes, value);
            } else {
                assert!(item.data.is_null());
            }
        }
        for _ in 0..2 {
            // SAFETY: made above, and zeroed by the first call.
            unsafe { ourdb_free_records(&raw mut list) };
            assert!(list.items.is_null() && list.count == 0 && list.owner.is_null());
        }
    }

    #[test]
    fn buffers_are_freed_once() {
        for value in [&b""[..], b"value"] {
            let mut buf = ourdb_buf::copy_of(value).unwrap();
            assert!(buf.data.addr() >= 4096);
            assert_eq!(buf.len, value.len());
            for _ in 0..2 {
                // SAFETY: made above, and zeroed by the first call.
                unsafe { ourdb_free_buf(&raw mut buf) };
                assert!(buf.data.is_null() && buf.len == 0);
            }
        }
    }

    #[test]
    fn a_list_that_was_freed_is_the_next_one_unless_it_is_long() {
        let list_of = |len: usize| {
            let mut list = List::new();
            let record = Record {
                id: 1,
                state: State::Live,
                commit: 2,
                time_us: 3,
                value: &vec![7; len],
            };
            list.records().push(record).unwrap();
            list.finish(ourdb_record::new).unwrap()
        };
        let mut first = list_of(100);
        let owner = first.owner;
        // SAFETY: made above.
        unsafe { ourdb_free_records(&raw mut first) };
        let mut again = list_of(5);
        assert_eq!((again.owner, again.count), (owner, 1));
        // SAFETY: the list was just made, with one item.
        assert_eq!(unsafe { (*again.items).len }, 5);
        // Beside one that is out there is a second.
        let mut other = list_of(MOST_KEPT);
        assert_ne!(other.owner, owner);
        for list in [&mut again, &mut other] {
            // SAFETY: made above.
            unsafe { ourdb_free_records(list) };
        }
        let mut next = list_of(1);
        assert_eq!(next.owner, owner);
        // SAFETY: made above.
        unsafe { ourdb_free_records(&raw mut next) };
    }
}
