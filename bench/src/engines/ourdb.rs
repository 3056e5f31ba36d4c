//! OurDB through its C interface, from libourdb.so: what a C program pays is paid here. Ids are the
//! caller's (`OURDB_OPEN_KEY_VALUE`), as with the peers.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr::null_mut;

use crate::engine::{Durability, Engine, Failure, Outcome, Session, Setup, VALUE, Value, wrong};

/// The part of `include/ourdb.h` that is used.
mod c {
    use super::{c_char, c_int, c_void};

    pub const OK: c_int = 0;
    pub const NOT_FOUND: c_int = -1;
    pub const OPEN_KEY_VALUE: u32 = 1;
    pub const SYNC_OS: u32 = 0;
    pub const SYNC_COMMIT: u32 = 1;
    pub const ITER_KEYS: u32 = 2;

    #[repr(C)]
    #[derive(Default)]
    pub struct Options {
        pub size: usize,
        pub flags: u32,
        pub record_nr_max: u32,
        pub record_size_max: u32,
        pub file_size: u32,
        pub lookup: u32,
        pub sync: u32,
        pub sync_interval_ms: u32,
        pub io: u32,
        pub auto_compact_percent: u32,
        pub reserved: u32,
        pub auto_keep_versions: u64,
    }

    #[repr(C)]
    pub struct Record {
        pub id: u32,
        pub flags: u32,
        pub commit: u64,
        pub time_us: u64,
        pub data: *const u8,
        pub len: usize,
    }

    #[repr(C)]
    pub struct Records {
        pub items: *mut Record,
        pub count: usize,
        pub owner: *mut c_void,
    }

    #[repr(C)]
    pub struct Slice {
        pub data: *const u8,
        pub len: usize,
    }

    #[repr(C)]
    #[derive(Default)]
    pub struct Retention {
        pub size: usize,
        pub keep_versions: u64,
        pub keep_since_us: u64,
        pub keep_since_commit: u64,
    }

    unsafe extern "C" {
        pub fn ourdb_version() -> *const c_char;
        pub fn ourdb_errmsg() -> *const c_char;
        pub fn ourdb_options_init(options: *mut Options, size: usize) -> c_int;
        pub fn ourdb_open(
            path: *const c_char,
            options: *const Options,
            out: *mut *mut c_void,
        ) -> c_int;
        pub fn ourdb_close(db: *mut c_void) -> c_int;
        pub fn ourdb_set(db: *mut c_void, id: u32, data: *const u8, len: usize) -> c_int;
        pub fn ourdb_set_many(
            db: *mut c_void,
            ids: *const u32,
            values: *const Slice,
            count: usize,
        ) -> c_int;
        pub fn ourdb_get_into(
            db: *mut c_void,
            id: u32,
            out: *mut u8,
            cap: usize,
            len: *mut usize,
        ) -> c_int;
        pub fn ourdb_get_many(
            db: *mut c_void,
            ids: *const u32,
            count: usize,
            out: *mut Records,
        ) -> c_int;
        pub fn ourdb_delete(db: *mut c_void, id: u32) -> c_int;
        pub fn ourdb_above(db: *mut c_void, id: u32, out: *mut u32) -> c_int;
        pub fn ourdb_history(db: *mut c_void, id: u32, max: usize, out: *mut Records) -> c_int;
        pub fn ourdb_free_records(records: *mut Records);
        pub fn ourdb_iter_open(
            db: *mut c_void,
            lower: u32,
            upper: u32,
            flags: u32,
            out: *mut *mut c_void,
        ) -> c_int;
        pub fn ourdb_iter_next_many(iter: *mut c_void, max: usize, out: *mut Records) -> c_int;
        pub fn ourdb_iter_next_ids(
            iter: *mut c_void,
            ids: *mut u32,
            cap: usize,
            count: *mut usize,
        ) -> c_int;
        pub fn ourdb_iter_close(iter: *mut c_void);
        pub fn ourdb_retention_init(retention: *mut Retention, size: usize) -> c_int;
        pub fn ourdb_compact(
            db: *mut c_void,
            retention: *const Retention,
            progress: *const c_void,
            context: *mut c_void,
        ) -> c_int;
    }
}

/// Records of a scan that are asked for at once.
const SCAN_BATCH: usize = 1000;

struct OurDb {
    db: *mut c_void,
}

// SAFETY: "Every function on a database may be called from any thread at any time"; the handle is
// closed only by `close`, which owns it.
unsafe impl Sync for OurDb {}

/// A failure, unless the code is that of success.
fn check(code: c_int) -> Outcome {
    if code == c::OK {
        return Ok(());
    }
    // SAFETY: a text that is valid until the next call of this thread.
    let message = unsafe { CStr::from_ptr(c::ourdb_errmsg()) };
    Err(Failure::Broken(message.to_string_lossy().into_owned()))
}

pub(super) fn version() -> String {
    // SAFETY: a text that stays.
    unsafe { CStr::from_ptr(c::ourdb_version()) }
        .to_string_lossy()
        .into_owned()
}

pub(super) fn open(setup: &Setup) -> Outcome<Box<dyn Engine>> {
    let path = CString::new(setup.directory.as_os_str().as_encoded_bytes())?;
    let mut options = c::Options::default();
    let mut db = null_mut();
    // SAFETY: a struct of this size.
    check(unsafe { c::ourdb_options_init(&mut options, size_of::<c::Options>()) })?;
    options.flags = c::OPEN_KEY_VALUE;
    options.record_nr_max = setup.records.max(16_777_215);
    options.sync = match setup.durability {
        Durability::Os => c::SYNC_OS,
        Durability::Durable => c::SYNC_COMMIT,
    };
    // SAFETY: the pointers are good during the call.
    check(unsafe { c::ourdb_open(path.as_ptr(), &options, &mut db) })?;
    Ok(Box::new(OurDb { db }))
}

impl Engine for OurDb {
    fn session(&self) -> Outcome<Box<dyn Session + '_>> {
        Ok(Box::new(self))
    }

    fn shared(&self) -> Option<&(dyn Engine + Sync)> {
        Some(self)
    }

    fn compact(&self) -> Outcome {
        let mut retention = c::Retention::default();
        // SAFETY: a struct of this size; a database that is open; no callback.
        unsafe {
            check(c::ourdb_retention_init(
                &mut retention,
                size_of::<c::Retention>(),
            ))?;
            check(c::ourdb_compact(
                self.db,
                &retention,
                null_mut(),
                null_mut(),
            ))
        }
    }

    fn close(self: Box<Self>) -> Outcome {
        // SAFETY: nobody else has the handle, and it is gone with `self`.
        check(unsafe { c::ourdb_close(self.db) })
    }
}

/// Records that the library has allocated.
struct Records(c::Records);

impl Records {
    /// None, to be filled.
    fn new() -> Records {
        Records(c::Records {
            items: null_mut(),
            count: 0,
            owner: null_mut(),
        })
    }

    fn items(&self) -> &[c::Record] {
        if self.0.count == 0 {
            return &[];
        }
        // SAFETY: the library has filled in so many, which live until they are freed.
        unsafe { std::slice::from_raw_parts(self.0.items, self.0.count) }
    }
}

impl Drop for Records {
    fn drop(&mut self) {
        // SAFETY: filled by the library, or empty, which is allowed.
        unsafe { c::ourdb_free_records(&mut self.0) }
    }
}

impl c::Record {
    /// Its value; empty if it is a deletion.
    fn value(&self) -> &[u8] {
        if self.data.is_null() {
            return &[];
        }
        // SAFETY: as long as the records that it is one of.
        unsafe { std::slice::from_raw_parts(self.data, self.len) }
    }
}

impl OurDb {
    /// Calls `go_on` with an iterator until that returns what isn't a success, or false.
    fn iterate(&self, flags: u32, mut go_on: impl FnMut(*mut c_void) -> (c_int, bool)) -> Outcome {
        let mut iter = null_mut();
        // SAFETY: a database that is open.
        check(unsafe { c::ourdb_iter_open(self.db, 0, u32::MAX, flags, &mut iter) })?;
        let code = loop {
            let (code, is_wanted) = go_on(iter);
            if code != c::OK || !is_wanted {
                break code;
            }
        };
        let outcome = match code {
            c::NOT_FOUND => Ok(()),
            code => check(code),
        };
        // SAFETY: it is open, and isn't used again.
        unsafe { c::ourdb_iter_close(iter) };
        outcome
    }
}

impl Session for &OurDb {
    fn set(&mut self, id: u32, value: &Value) -> Outcome {
        // SAFETY: a database that is open; the value is only read during the call.
        check(unsafe { c::ourdb_set(self.db, id, value.as_ptr(), VALUE) })
    }

    fn set_many(&mut self, ids: &[u32], values: &[Value]) -> Outcome {
        let slices: Vec<_> = values
            .iter()
            .map(|value| c::Slice {
                data: value.as_ptr(),
                len: VALUE,
            })
            .collect();
        // SAFETY: as many values as ids, only read during the call.
        check(unsafe {
            c::ourdb_set_many(
                self.db,
                ids.as_ptr(),
                slices.as_ptr(),
                ids.len().min(slices.len()),
            )
        })
    }

    fn get(&mut self, id: u32, out: &mut Value) -> Outcome<bool> {
        let mut len = 0;
        // SAFETY: a database that is open; `out` has room for what is said.
        match unsafe { c::ourdb_get_into(self.db, id, out.as_mut_ptr(), VALUE, &mut len) } {
            c::OK if len == VALUE => Ok(true),
            c::OK => Err(wrong("the length of a value")),
            c::NOT_FOUND => Ok(false),
            code => check(code).map(|()| false),
        }
    }

    fn get_many(&mut self, ids: &[u32], out: &mut [Value]) -> Outcome {
        let mut records = Records::new();
        // SAFETY: a database that is open; so many ids.
        check(unsafe { c::ourdb_get_many(self.db, ids.as_ptr(), ids.len(), &mut records.0) })?;
        for (record, out) in records.items().iter().zip(out) {
            crate::engine::copy(record.value(), out)?;
        }
        Ok(())
    }

    fn delete(&mut self, id: u32) -> Outcome {
        // SAFETY: a database that is open.
        check(unsafe { c::ourdb_delete(self.db, id) })
    }

    fn scan(&mut self, visit: &mut dyn FnMut(u32, &[u8]) -> bool) -> Outcome {
        self.iterate(0, |iter| {
            let mut records = Records::new();
            // SAFETY: an iterator that is open, used by this thread alone.
            let code = unsafe { c::ourdb_iter_next_many(iter, SCAN_BATCH, &mut records.0) };
            let mut items = records.items().iter();
            (code, items.all(|record| visit(record.id, record.value())))
        })
    }

    fn scan_keys(&mut self, visit: &mut dyn FnMut(u32) -> bool) -> Outcome {
        let (mut ids, mut count) = ([0; SCAN_BATCH], 0);
        self.iterate(c::ITER_KEYS, |iter| {
            // SAFETY: an iterator that is open, used by this thread alone; room for so many.
            let code =
                unsafe { c::ourdb_iter_next_ids(iter, ids.as_mut_ptr(), SCAN_BATCH, &mut count) };
            (code, ids[..count].iter().all(|&id| visit(id)))
        })
    }

    fn above(&mut self, id: u32) -> Outcome<Option<u32>> {
        let mut above = 0;
        // SAFETY: a database that is open.
        match unsafe { c::ourdb_above(self.db, id, &mut above) } {
            c::OK => Ok(Some(above)),
            c::NOT_FOUND => Ok(None),
            code => check(code).map(|()| None),
        }
    }

    fn history(&mut self, id: u32, max: usize, visit: &mut dyn FnMut(&[u8])) -> Outcome {
        let mut records = Records::new();
        // SAFETY: a database that is open.
        check(unsafe { c::ourdb_history(self.db, id, max, &mut records.0) })?;
        records
            .items()
            .iter()
            .for_each(|record| visit(record.value()));
        Ok(())
    }
}
