//! Noticing `fork`.
//!
//! A forked child shares the parent's files and mappings but none of its threads and locks, so it
//! must not use a handle. A handler registered with `pthread_atfork` counts forks in the child; a
//! handle remembers the count at its opening, and comparing costs one load. The handler also
//! closes the child's copies of the lock files, so that a child that lives on doesn't keep the
//! database locked after its parent is gone, and takes away the marks of threads that were reading.

use std::os::fd::RawFd;
use std::sync::Once;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

use super::grace;

static GENERATION: AtomicU32 = AtomicU32::new(0);

/// Descriptors of locks held; -1 is a free place. When all are taken, further locks are not
/// entered, which only means that a child keeps them alive.
static LOCKS: [AtomicI32; 1024] = [const { AtomicI32::new(-1) }; 1024];

/// Changes in every forked child.
#[inline]
pub fn generation() -> u32 {
    GENERATION.load(Ordering::Relaxed)
}

/// Begins to count forks. Called before the first handle is made; further calls do nothing.
pub fn watch() {
    static REGISTER: Once = Once::new();
    REGISTER.call_once(|| {
        // SAFETY: the handler is a function of this library, which is never unloaded (it is
        // linked with nodelete), and does only what is safe between fork and exec.
        unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
    });
}

extern "C" fn in_child() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
    grace::forget_other_threads();
    for place in &LOCKS {
        let descriptor = place.swap(-1, Ordering::Relaxed);
        if descriptor >= 0 {
            // SAFETY: the descriptor belongs to a lock of the parent; in the child nobody uses
            // or closes it any more (see `os::OsLock`). close is async-signal-safe.
            unsafe { libc::close(descriptor) };
        }
    }
}

pub(super) fn remember_lock(descriptor: RawFd) {
    for place in &LOCKS {
        if place
            .compare_exchange(-1, descriptor, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
        {
            return;
        }
    }
}

/// Takes the descriptor out of the list; whether it was there.
pub(super) fn forget_lock(descriptor: RawFd) -> bool {
    LOCKS.iter().any(|place| {
        place
            .compare_exchange(descriptor, -1, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
    })
}
