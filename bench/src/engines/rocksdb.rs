//! RocksDB, Debian's librocksdb, through its C interface. A write is in its log file before the call
//! returns. It has a Bloom filter, as its tuning guide advises for gets.

use std::ffi::{CStr, CString, c_char, c_double, c_int, c_uchar, c_void};
use std::ptr::{null, null_mut};

use super::CACHE;
use crate::engine::{
    Durability, Engine, Failure, Outcome, Session, Setup, Value, copy, id, key, wrong,
};

/// The part of `rocksdb/c.h` that is used; every handle is a `void *` here.
mod c {
    use super::{c_char, c_double, c_int, c_uchar, c_void};

    type Handle = *mut c_void;
    type Error = *mut *mut c_char;

    #[link(name = "rocksdb")]
    unsafe extern "C" {
        pub fn rocksdb_options_create() -> Handle;
        pub fn rocksdb_options_set_create_if_missing(options: Handle, yes: c_uchar);
        pub fn rocksdb_options_increase_parallelism(options: Handle, threads: c_int);
        pub fn rocksdb_options_set_block_based_table_factory(options: Handle, table: Handle);
        pub fn rocksdb_options_destroy(options: Handle);
        pub fn rocksdb_block_based_options_create() -> Handle;
        pub fn rocksdb_block_based_options_set_block_cache(table: Handle, cache: Handle);
        pub fn rocksdb_block_based_options_set_filter_policy(table: Handle, filter: Handle);
        pub fn rocksdb_block_based_options_destroy(table: Handle);
        pub fn rocksdb_cache_create_lru(bytes: usize) -> Handle;
        pub fn rocksdb_cache_destroy(cache: Handle);
        pub fn rocksdb_filterpolicy_create_bloom_full(bits: c_double) -> Handle;
        pub fn rocksdb_open_column_families(
            options: Handle,
            path: *const c_char,
            count: c_int,
            names: *const *const c_char,
            family_options: *const Handle,
            families: *mut Handle,
            error: Error,
        ) -> Handle;
        pub fn rocksdb_column_family_handle_destroy(family: Handle);
        pub fn rocksdb_close(db: Handle);
        pub fn rocksdb_writeoptions_create() -> Handle;
        pub fn rocksdb_writeoptions_set_sync(options: Handle, yes: c_uchar);
        pub fn rocksdb_writeoptions_destroy(options: Handle);
        pub fn rocksdb_readoptions_create() -> Handle;
        pub fn rocksdb_readoptions_destroy(options: Handle);
        pub fn rocksdb_put(
            db: Handle,
            options: Handle,
            key: *const u8,
            key_len: usize,
            value: *const u8,
            value_len: usize,
            error: Error,
        );
        pub fn rocksdb_delete(
            db: Handle,
            options: Handle,
            key: *const u8,
            key_len: usize,
            error: Error,
        );
        pub fn rocksdb_write(db: Handle, options: Handle, batch: Handle, error: Error);
        pub fn rocksdb_writebatch_create() -> Handle;
        pub fn rocksdb_writebatch_put(
            batch: Handle,
            key: *const u8,
            key_len: usize,
            value: *const u8,
            value_len: usize,
        );
        pub fn rocksdb_writebatch_destroy(batch: Handle);
        pub fn rocksdb_get_pinned(
            db: Handle,
            options: Handle,
            key: *const u8,
            key_len: usize,
            error: Error,
        ) -> Handle;
        pub fn rocksdb_batched_multi_get_cf(
            db: Handle,
            options: Handle,
            family: Handle,
            count: usize,
            keys: *const *const u8,
            key_lens: *const usize,
            values: *mut Handle,
            errors: *mut *mut c_char,
            sorted: bool,
        );
        pub fn rocksdb_pinnableslice_value(slice: Handle, len: *mut usize) -> *const u8;
        pub fn rocksdb_pinnableslice_destroy(slice: Handle);
        pub fn rocksdb_create_iterator(db: Handle, options: Handle) -> Handle;
        pub fn rocksdb_iter_seek(iter: Handle, key: *const u8, key_len: usize);
        pub fn rocksdb_iter_valid(iter: Handle) -> c_uchar;
        pub fn rocksdb_iter_next(iter: Handle);
        pub fn rocksdb_iter_key(iter: Handle, len: *mut usize) -> *const u8;
        pub fn rocksdb_iter_value(iter: Handle, len: *mut usize) -> *const u8;
        pub fn rocksdb_iter_get_error(iter: Handle, error: Error);
        pub fn rocksdb_iter_destroy(iter: Handle);
        pub fn rocksdb_compact_range(
            db: Handle,
            start: *const u8,
            start_len: usize,
            limit: *const u8,
            limit_len: usize,
        );
        pub fn rocksdb_free(memory: Handle);
    }
}

/// Bits of the Bloom filter for each key.
const FILTER_BITS: c_double = 10.0;
/// Threads that flush and compact.
const BACKGROUND: c_int = 2;

struct RocksDb {
    db: *mut c_void,
    /// The column family "default", which only a get of many must be told.
    family: *mut c_void,
    write: *mut c_void,
    read: *mut c_void,
}

// SAFETY: "Multiple threads can invoke const methods on a DB without external synchronization", and
// puts and deletes as well; the options aren't changed any more.
unsafe impl Sync for RocksDb {}

/// Calls a function that may leave an error.
fn check<T>(call: impl FnOnce(*mut *mut c_char) -> T) -> Outcome<T> {
    let mut error = null_mut();
    let result = call(&mut error);
    if error.is_null() {
        return Ok(result);
    }
    // SAFETY: a text of the library's, which the caller frees.
    unsafe {
        let message = CStr::from_ptr(error).to_string_lossy().into_owned();
        c::rocksdb_free(error.cast());
        Err(Failure::Broken(message))
    }
}

/// That of the library's file, because no function of the C interface says it.
pub(super) fn version() -> String {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let file = maps
        .lines()
        .find_map(|line| line.split_once("librocksdb.so."));
    file.map_or("unknown", |(_, version)| version).to_owned()
}

pub(super) fn open(setup: &Setup) -> Outcome<Box<dyn Engine>> {
    let path = CString::new(setup.directory.as_os_str().as_encoded_bytes())?;
    // SAFETY: handles that were made here; an opened database keeps what it needs of options, cache
    // and table, which are destroyed afterwards, and owns the filter.
    unsafe {
        let (options, table) = (
            c::rocksdb_options_create(),
            c::rocksdb_block_based_options_create(),
        );
        let cache = c::rocksdb_cache_create_lru(CACHE);
        c::rocksdb_options_set_create_if_missing(options, 1);
        c::rocksdb_options_increase_parallelism(options, BACKGROUND);
        c::rocksdb_block_based_options_set_block_cache(table, cache);
        let filter = c::rocksdb_filterpolicy_create_bloom_full(FILTER_BITS);
        c::rocksdb_block_based_options_set_filter_policy(table, filter);
        c::rocksdb_options_set_block_based_table_factory(options, table);
        let (name, mut family) = (c"default".as_ptr(), null_mut());
        let db = check(|error| {
            c::rocksdb_open_column_families(
                options,
                path.as_ptr(),
                1,
                &name,
                &options,
                &mut family,
                error,
            )
        });
        c::rocksdb_options_destroy(options);
        c::rocksdb_block_based_options_destroy(table);
        c::rocksdb_cache_destroy(cache);
        let store = RocksDb {
            db: db?,
            family,
            write: c::rocksdb_writeoptions_create(),
            read: c::rocksdb_readoptions_create(),
        };
        c::rocksdb_writeoptions_set_sync(
            store.write,
            (setup.durability == Durability::Durable).into(),
        );
        Ok(Box::new(store))
    }
}

impl Engine for RocksDb {
    fn session(&self) -> Outcome<Box<dyn Session + '_>> {
        Ok(Box::new(self))
    }

    fn shared(&self) -> Option<&(dyn Engine + Sync)> {
        Some(self)
    }

    fn compact(&self) -> Outcome {
        // SAFETY: a database that is open; no limits are all keys.
        unsafe { c::rocksdb_compact_range(self.db, null(), 0, null(), 0) };
        Ok(())
    }

    fn close(self: Box<Self>) -> Outcome {
        // SAFETY: nobody else has them, and they are gone with `self`.
        unsafe {
            c::rocksdb_column_family_handle_destroy(self.family);
            c::rocksdb_close(self.db);
            c::rocksdb_writeoptions_destroy(self.write);
            c::rocksdb_readoptions_destroy(self.read);
        }
        Ok(())
    }
}

/// Copies a value and gives it back; false if there is none.
///
/// # Safety
///
/// It was got, or is null, and isn't used again.
unsafe fn take(slice: *mut c_void, out: &mut Value) -> Outcome<bool> {
    if slice.is_null() {
        return Ok(false);
    }
    let mut len = 0;
    // SAFETY: as the caller says; the bytes live until it is destroyed.
    unsafe {
        let data = c::rocksdb_pinnableslice_value(slice, &mut len);
        let outcome = copy(std::slice::from_raw_parts(data, len), out);
        c::rocksdb_pinnableslice_destroy(slice);
        outcome.map(|()| true)
    }
}

impl RocksDb {
    /// Goes over the records from this one on until `visit` returns false.
    fn walk(&self, from: u32, visit: &mut dyn FnMut(u32, &[u8]) -> bool) -> Outcome {
        let start = key(from);
        // SAFETY: an iterator that is open until the end; what it lends is looked at before it goes
        // on.
        unsafe {
            let iter = c::rocksdb_create_iterator(self.db, self.read);
            c::rocksdb_iter_seek(iter, start.as_ptr(), start.len());
            let mut outcome = Ok(());
            while c::rocksdb_iter_valid(iter) != 0 {
                let (mut key_len, mut value_len) = (0, 0);
                let key = c::rocksdb_iter_key(iter, &mut key_len);
                let value = c::rocksdb_iter_value(iter, &mut value_len);
                match id(std::slice::from_raw_parts(key, key_len)) {
                    Ok(id) if visit(id, std::slice::from_raw_parts(value, value_len)) => {
                        c::rocksdb_iter_next(iter)
                    }
                    Ok(_) => break,
                    Err(failure) => {
                        outcome = Err(failure);
                        break;
                    }
                }
            }
            let error = check(|error| c::rocksdb_iter_get_error(iter, error));
            c::rocksdb_iter_destroy(iter);
            outcome.and(error)
        }
    }
}

impl Session for &RocksDb {
    fn set(&mut self, id: u32, value: &Value) -> Outcome {
        let key = key(id);
        // SAFETY: a database that is open; bytes that live during the call.
        check(|error| unsafe {
            c::rocksdb_put(
                self.db,
                self.write,
                key.as_ptr(),
                key.len(),
                value.as_ptr(),
                value.len(),
                error,
            );
        })
    }

    fn set_many(&mut self, ids: &[u32], values: &[Value]) -> Outcome {
        // SAFETY: a batch that is destroyed at the end and copies what it is given.
        unsafe {
            let batch = c::rocksdb_writebatch_create();
            for (&id, value) in ids.iter().zip(values) {
                let key = key(id);
                c::rocksdb_writebatch_put(
                    batch,
                    key.as_ptr(),
                    key.len(),
                    value.as_ptr(),
                    value.len(),
                );
            }
            let outcome = check(|error| c::rocksdb_write(self.db, self.write, batch, error));
            c::rocksdb_writebatch_destroy(batch);
            outcome
        }
    }

    fn get(&mut self, id: u32, out: &mut Value) -> Outcome<bool> {
        let key = key(id);
        // SAFETY: a database that is open; what is got is taken once.
        unsafe {
            take(
                check(|error| {
                    c::rocksdb_get_pinned(self.db, self.read, key.as_ptr(), key.len(), error)
                })?,
                out,
            )
        }
    }

    fn get_many(&mut self, ids: &[u32], out: &mut [Value]) -> Outcome {
        let keys: Vec<[u8; 4]> = ids.iter().map(|&id| key(id)).collect();
        let places: Vec<*const u8> = keys.iter().map(|key| key.as_ptr()).collect();
        let lens = vec![4; ids.len()];
        let mut values = vec![null_mut(); ids.len()];
        let mut errors = vec![null_mut(); ids.len()];
        // SAFETY: a database that is open; arrays of as many items as is said.
        unsafe {
            c::rocksdb_batched_multi_get_cf(
                self.db,
                self.read,
                self.family,
                ids.len(),
                places.as_ptr(),
                lens.as_ptr(),
                values.as_mut_ptr(),
                errors.as_mut_ptr(),
                false,
            );
        }
        for ((value, error), out) in values.into_iter().zip(errors).zip(out) {
            check(|place| {
                // SAFETY: the place of an error that `check` looks at.
                unsafe { *place = error }
            })?;
            // SAFETY: got above, and taken once.
            if !unsafe { take(value, out) }? {
                return Err(wrong("no record"));
            }
        }
        Ok(())
    }

    fn delete(&mut self, id: u32) -> Outcome {
        let key = key(id);
        // SAFETY: a database that is open; bytes that live during the call.
        check(|error| unsafe {
            c::rocksdb_delete(self.db, self.write, key.as_ptr(), key.len(), error)
        })
    }

    fn scan(&mut self, visit: &mut dyn FnMut(u32, &[u8]) -> bool) -> Outcome {
        self.walk(0, visit)
    }

    fn scan_keys(&mut self, visit: &mut dyn FnMut(u32) -> bool) -> Outcome {
        self.walk(0, &mut |id, _| visit(id))
    }

    fn above(&mut self, id: u32) -> Outcome<Option<u32>> {
        let Some(from) = id.checked_add(1) else {
            return Ok(None);
        };
        let mut above = None;
        self.walk(from, &mut |id, _| {
            above = Some(id);
            false
        })?;
        Ok(above)
    }
}
