//! LMDB, Debian's liblmdb.

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::ptr::{null, null_mut};

use super::mapped_tree::{Api, Bytes, Go, READERS, check, durable, map_size, open};
use crate::engine::{Engine, Outcome, Setup};

/// The part of `lmdb.h` that is used.
mod c {
    use super::{c_char, c_int, c_uint, c_void};

    pub const NOT_FOUND: c_int = -30798;
    pub const NOSYNC: c_uint = 0x10000;
    pub const RDONLY: c_uint = 0x20000;
    pub const WRITEMAP: c_uint = 0x80000;
    pub const NOTLS: c_uint = 0x20_0000;
    pub const CREATE: c_uint = 0x40000;
    pub const FIRST: c_int = 0;
    pub const NEXT: c_int = 8;
    pub const SET_RANGE: c_int = 17;

    #[repr(C)]
    pub struct Val {
        pub size: usize,
        pub data: *const c_void,
    }

    #[link(name = "lmdb")]
    unsafe extern "C" {
        pub fn mdb_version(
            major: *mut c_int,
            minor: *mut c_int,
            patch: *mut c_int,
        ) -> *const c_char;
        pub fn mdb_strerror(code: c_int) -> *const c_char;
        pub fn mdb_env_create(env: *mut *mut c_void) -> c_int;
        pub fn mdb_env_set_mapsize(env: *mut c_void, size: usize) -> c_int;
        pub fn mdb_env_set_maxreaders(env: *mut c_void, readers: c_uint) -> c_int;
        pub fn mdb_env_open(
            env: *mut c_void,
            path: *const c_char,
            flags: c_uint,
            mode: c_uint,
        ) -> c_int;
        pub fn mdb_env_close(env: *mut c_void);
        pub fn mdb_txn_begin(
            env: *mut c_void,
            parent: *mut c_void,
            flags: c_uint,
            txn: *mut *mut c_void,
        ) -> c_int;
        pub fn mdb_txn_commit(txn: *mut c_void) -> c_int;
        pub fn mdb_txn_abort(txn: *mut c_void);
        pub fn mdb_txn_reset(txn: *mut c_void);
        pub fn mdb_txn_renew(txn: *mut c_void) -> c_int;
        pub fn mdb_dbi_open(
            txn: *mut c_void,
            name: *const c_char,
            flags: c_uint,
            table: *mut c_uint,
        ) -> c_int;
        pub fn mdb_put(
            txn: *mut c_void,
            table: c_uint,
            key: *mut Val,
            value: *mut Val,
            flags: c_uint,
        ) -> c_int;
        pub fn mdb_del(txn: *mut c_void, table: c_uint, key: *mut Val, value: *mut Val) -> c_int;
        pub fn mdb_get(txn: *mut c_void, table: c_uint, key: *mut Val, value: *mut Val) -> c_int;
        pub fn mdb_cursor_open(txn: *mut c_void, table: c_uint, cursor: *mut *mut c_void) -> c_int;
        pub fn mdb_cursor_close(cursor: *mut c_void);
        pub fn mdb_cursor_get(
            cursor: *mut c_void,
            key: *mut Val,
            value: *mut Val,
            go: c_int,
        ) -> c_int;
    }
}

struct Lmdb;

fn val(bytes: Bytes) -> c::Val {
    c::Val {
        size: bytes.len,
        data: bytes.data.cast(),
    }
}

fn bytes(val: &c::Val) -> Bytes {
    Bytes {
        data: val.data.cast(),
        len: val.size,
    }
}

// SAFETY: each is LMDB's function; `MDB_NOTLS` lets readers go from thread to thread.
unsafe impl Api for Lmdb {
    const NOT_FOUND: c_int = c::NOT_FOUND;

    unsafe fn open(setup: &Setup, writable_map: bool) -> Outcome<*mut c_void> {
        let path = CString::new(setup.directory.as_os_str().as_encoded_bytes())?;
        let map = if writable_map { c::WRITEMAP } else { 0 };
        let sync = if durable(setup) { 0 } else { c::NOSYNC };
        let mut env = null_mut();
        // SAFETY: an environment that nobody else has yet.
        unsafe {
            check::<Lmdb>(c::mdb_env_create(&mut env))?;
            check::<Lmdb>(c::mdb_env_set_mapsize(
                env,
                map_size(setup).next_multiple_of(4096),
            ))?;
            check::<Lmdb>(c::mdb_env_set_maxreaders(env, READERS))?;
            check::<Lmdb>(c::mdb_env_open(
                env,
                path.as_ptr(),
                c::NOTLS | map | sync,
                0o600,
            ))?;
        }
        Ok(env)
    }

    unsafe fn close(env: *mut c_void) -> c_int {
        // SAFETY: as the caller says.
        unsafe { c::mdb_env_close(env) };
        0
    }

    unsafe fn message(code: c_int) -> String {
        // SAFETY: a text that stays.
        unsafe { CStr::from_ptr(c::mdb_strerror(code)) }
            .to_string_lossy()
            .into_owned()
    }

    unsafe fn begin(env: *mut c_void, read_only: bool, txn: *mut *mut c_void) -> c_int {
        // SAFETY: as the caller says.
        unsafe { c::mdb_txn_begin(env, null_mut(), if read_only { c::RDONLY } else { 0 }, txn) }
    }

    unsafe fn commit(txn: *mut c_void) -> c_int {
        // SAFETY: as the caller says.
        unsafe { c::mdb_txn_commit(txn) }
    }

    unsafe fn abort(txn: *mut c_void) {
        // SAFETY: as the caller says.
        unsafe { c::mdb_txn_abort(txn) }
    }

    unsafe fn reset(txn: *mut c_void) {
        // SAFETY: as the caller says.
        unsafe { c::mdb_txn_reset(txn) }
    }

    unsafe fn renew(txn: *mut c_void) -> c_int {
        // SAFETY: as the caller says.
        unsafe { c::mdb_txn_renew(txn) }
    }

    unsafe fn open_table(txn: *mut c_void, table: *mut c_uint) -> c_int {
        // SAFETY: as the caller says; no name is the one table without.
        unsafe { c::mdb_dbi_open(txn, null(), c::CREATE, table) }
    }

    unsafe fn put(txn: *mut c_void, table: c_uint, key: Bytes, value: Bytes) -> c_int {
        // SAFETY: as the caller says.
        unsafe { c::mdb_put(txn, table, &mut val(key), &mut val(value), 0) }
    }

    unsafe fn delete(txn: *mut c_void, table: c_uint, key: Bytes) -> c_int {
        // SAFETY: as the caller says.
        unsafe { c::mdb_del(txn, table, &mut val(key), null_mut()) }
    }

    unsafe fn get(txn: *mut c_void, table: c_uint, key: Bytes, value: &mut Bytes) -> c_int {
        let mut out = val(*value);
        // SAFETY: as the caller says.
        let code = unsafe { c::mdb_get(txn, table, &mut val(key), &mut out) };
        *value = bytes(&out);
        code
    }

    unsafe fn open_cursor(txn: *mut c_void, table: c_uint, cursor: *mut *mut c_void) -> c_int {
        // SAFETY: as the caller says.
        unsafe { c::mdb_cursor_open(txn, table, cursor) }
    }

    unsafe fn close_cursor(cursor: *mut c_void) {
        // SAFETY: as the caller says.
        unsafe { c::mdb_cursor_close(cursor) }
    }

    unsafe fn go(cursor: *mut c_void, go: Go, key: &mut Bytes, value: &mut Bytes) -> c_int {
        let go = match go {
            Go::First => c::FIRST,
            Go::Next => c::NEXT,
            Go::From => c::SET_RANGE,
        };
        let (mut key_out, mut value_out) = (val(*key), val(*value));
        // SAFETY: as the caller says.
        let code = unsafe { c::mdb_cursor_get(cursor, &mut key_out, &mut value_out, go) };
        (*key, *value) = (bytes(&key_out), bytes(&value_out));
        code
    }
}

pub(super) fn version() -> String {
    let (mut major, mut minor, mut patch) = (0, 0, 0);
    // SAFETY: three places for numbers.
    unsafe { c::mdb_version(&mut major, &mut minor, &mut patch) };
    format!("{major}.{minor}.{patch}")
}

/// Pages are written to the file: LMDB's default.
pub(super) fn open_default(setup: &Setup) -> Outcome<Box<dyn Engine>> {
    open::<Lmdb>(setup, false)
}

/// Pages are changed in the map: faster, and a program's stray pointer can damage the database.
pub(super) fn open_writable_map(setup: &Setup) -> Outcome<Box<dyn Engine>> {
    open::<Lmdb>(setup, true)
}
