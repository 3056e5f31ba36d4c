//! libmdbx, which crate mdbx-sys builds.

use std::ffi::{CStr, CString, c_int, c_uint, c_void};
use std::ptr::{null, null_mut};

use mdbx_sys as c;

use super::mapped_tree::{Api, Bytes, Go, READERS, check, durable, map_size, open};
use crate::engine::{Engine, Outcome, Setup};

struct Mdbx;

fn val(bytes: Bytes) -> c::MDBX_val {
    c::MDBX_val {
        iov_base: bytes.data.cast_mut().cast(),
        iov_len: bytes.len,
    }
}

fn bytes(val: &c::MDBX_val) -> Bytes {
    Bytes {
        data: val.iov_base.cast(),
        len: val.iov_len,
    }
}

// SAFETY: each is the function of libmdbx that took the place of LMDB's;
// `MDBX_NOSTICKYTHREADS` lets readers go from thread to thread.
unsafe impl Api for Mdbx {
    const NOT_FOUND: c_int = c::MDBX_NOTFOUND;

    unsafe fn open(setup: &Setup, writable_map: bool) -> Outcome<*mut c_void> {
        let path = CString::new(setup.directory.as_os_str().as_encoded_bytes())?;
        let map = if writable_map { c::MDBX_WRITEMAP } else { 0 };
        let sync = if durable(setup) {
            c::MDBX_SYNC_DURABLE
        } else {
            c::MDBX_UTTERLY_NOSYNC
        };
        let mut env = null_mut();
        // SAFETY: an environment that nobody else has yet.
        unsafe {
            check::<Mdbx>(c::mdbx_env_create(&mut env))?;
            let most = isize::try_from(map_size(setup))?;
            check::<Mdbx>(c::mdbx_env_set_geometry(env, -1, -1, most, -1, -1, -1))?;
            check::<Mdbx>(c::mdbx_env_set_option(
                env,
                c::MDBX_opt_max_readers,
                READERS.into(),
            ))?;
            let flags = c::MDBX_NOSTICKYTHREADS | map | sync;
            check::<Mdbx>(c::mdbx_env_open(env, path.as_ptr(), flags, 0o600))?;
        }
        Ok(env.cast())
    }

    unsafe fn close(env: *mut c_void) -> c_int {
        // SAFETY: as the caller says.
        unsafe { c::mdbx_env_close_ex(env.cast(), false) }
    }

    unsafe fn message(code: c_int) -> String {
        // SAFETY: a text that stays.
        unsafe { CStr::from_ptr(c::mdbx_strerror(code)) }
            .to_string_lossy()
            .into_owned()
    }

    unsafe fn begin(env: *mut c_void, read_only: bool, txn: *mut *mut c_void) -> c_int {
        // SAFETY: as the caller says.
        unsafe {
            c::mdbx_txn_begin_ex(
                env.cast(),
                null_mut(),
                if read_only { c::MDBX_TXN_RDONLY } else { 0 },
                txn.cast(),
                null_mut(),
            )
        }
    }

    unsafe fn commit(txn: *mut c_void) -> c_int {
        // SAFETY: as the caller says.
        unsafe { c::mdbx_txn_commit_ex(txn.cast(), null_mut()) }
    }

    unsafe fn abort(txn: *mut c_void) {
        // SAFETY: as the caller says.
        unsafe { c::mdbx_txn_abort_ex(txn.cast(), null_mut()) };
    }

    unsafe fn reset(txn: *mut c_void) {
        // SAFETY: as the caller says.
        unsafe { c::mdbx_txn_reset(txn.cast()) };
    }

    unsafe fn renew(txn: *mut c_void) -> c_int {
        // SAFETY: as the caller says.
        unsafe { c::mdbx_txn_renew(txn.cast()) }
    }

    unsafe fn open_table(txn: *mut c_void, table: *mut c_uint) -> c_int {
        // SAFETY: as the caller says; no name is the one table without.
        unsafe { c::mdbx_dbi_open(txn.cast(), null(), c::MDBX_CREATE, table) }
    }

    unsafe fn put(txn: *mut c_void, table: c_uint, key: Bytes, value: Bytes) -> c_int {
        // SAFETY: as the caller says.
        unsafe { c::mdbx_put(txn.cast(), table, &val(key), &mut val(value), 0) }
    }

    unsafe fn delete(txn: *mut c_void, table: c_uint, key: Bytes) -> c_int {
        // SAFETY: as the caller says.
        unsafe { c::mdbx_del(txn.cast(), table, &val(key), null()) }
    }

    unsafe fn get(txn: *mut c_void, table: c_uint, key: Bytes, value: &mut Bytes) -> c_int {
        let mut out = val(*value);
        // SAFETY: as the caller says.
        let code = unsafe { c::mdbx_get(txn.cast(), table, &val(key), &mut out) };
        *value = bytes(&out);
        code
    }

    unsafe fn open_cursor(txn: *mut c_void, table: c_uint, cursor: *mut *mut c_void) -> c_int {
        // SAFETY: as the caller says.
        unsafe { c::mdbx_cursor_open(txn.cast(), table, cursor.cast()) }
    }

    unsafe fn close_cursor(cursor: *mut c_void) {
        // SAFETY: as the caller says.
        unsafe { c::mdbx_cursor_close(cursor.cast()) }
    }

    unsafe fn go(cursor: *mut c_void, go: Go, key: &mut Bytes, value: &mut Bytes) -> c_int {
        let go = match go {
            Go::First => c::MDBX_FIRST,
            Go::Next => c::MDBX_NEXT,
            Go::From => c::MDBX_SET_RANGE,
        };
        let (mut key_out, mut value_out) = (val(*key), val(*value));
        // SAFETY: as the caller says.
        let code = unsafe { c::mdbx_cursor_get(cursor.cast(), &mut key_out, &mut value_out, go) };
        (*key, *value) = (bytes(&key_out), bytes(&value_out));
        code
    }
}

/// Pages are changed in the map, as in LMDB with a writable map.
pub(super) fn open_writable_map(setup: &Setup) -> Outcome<Box<dyn Engine>> {
    open::<Mdbx>(setup, true)
}
