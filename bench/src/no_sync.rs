//! The functions that wait for a disk, in place of those of the C library: for every store in this
//! program, whether it is written in Rust or is a shared library. While syncing is off they do
//! nothing and succeed, so that no store pays for a promise that another one doesn't make.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use libc::{c_int, c_long, c_uint, c_void, off64_t, size_t};

static OFF: AtomicBool = AtomicBool::new(false);
static SYNCS: AtomicU64 = AtomicU64::new(0);

/// Switches syncing off, for as long as the process lives.
pub fn switch_off() {
    OFF.store(true, Ordering::Relaxed);
}

/// How often this process has been asked to sync, done or not.
pub fn count() -> u64 {
    SYNCS.load(Ordering::Relaxed)
}

/// Whether the call is to be made; counts it.
fn wanted() -> bool {
    SYNCS.fetch_add(1, Ordering::Relaxed);
    !OFF.load(Ordering::Relaxed)
}

/// The result of a system call as the C library gives it; `syscall` has set errno.
fn result(code: c_long) -> c_int {
    if code < 0 { -1 } else { 0 }
}

#[unsafe(no_mangle)]
extern "C" fn fsync(file: c_int) -> c_int {
    if !wanted() {
        return 0;
    }
    // SAFETY: takes a number and touches no memory.
    result(unsafe { libc::syscall(libc::SYS_fsync, file) })
}

#[unsafe(no_mangle)]
extern "C" fn fdatasync(file: c_int) -> c_int {
    if !wanted() {
        return 0;
    }
    // SAFETY: takes a number and touches no memory.
    result(unsafe { libc::syscall(libc::SYS_fdatasync, file) })
}

#[unsafe(no_mangle)]
extern "C" fn syncfs(file: c_int) -> c_int {
    if !wanted() {
        return 0;
    }
    // SAFETY: takes a number and touches no memory.
    result(unsafe { libc::syscall(libc::SYS_syncfs, file) })
}

#[unsafe(no_mangle)]
extern "C" fn msync(start: *mut c_void, len: size_t, flags: c_int) -> c_int {
    if !wanted() {
        return 0;
    }
    // SAFETY: writes pages to their file and changes no memory; the kernel checks the range.
    result(unsafe { libc::syscall(libc::SYS_msync, start, len, flags) })
}

#[unsafe(no_mangle)]
extern "C" fn sync_file_range(file: c_int, start: off64_t, len: off64_t, flags: c_uint) -> c_int {
    if !wanted() {
        return 0;
    }
    // SAFETY: takes numbers and touches no memory.
    result(unsafe { libc::syscall(libc::SYS_sync_file_range, file, start, len, flags) })
}
