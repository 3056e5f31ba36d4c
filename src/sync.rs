//! The locks, atomics and threads of a handle.
//!
//! They are std's, except where a test needs to see what threads do with them:
//!
//! - with `--cfg ourdb_shuttle` they are shuttle's, which lets one thread run at a time, and chooses
//!   at each use of one of these which one that is (tests/interleavings);
//! - with `--cfg ourdb_tsan` they are made of std's in a way that ThreadSanitizer can follow. It knows
//!   only code that was compiled for it, and std comes compiled: what a thread waits for happens
//!   there. So none waits there; each asks again and again.
//!
//! What belongs to the process and not to a handle is std's always, and so is `Arc`.

use std::cell::Cell;
use std::ptr;
use std::sync::LockResult;
use std::time::Duration;

#[cfg(not(any(ourdb_shuttle, ourdb_tsan)))]
pub(crate) use std::sync::{Mutex, OnceLock};
#[cfg(not(ourdb_shuttle))]
pub(crate) use std::{
    sync::{Condvar, MutexGuard, PoisonError, RwLock, RwLockReadGuard, atomic},
    thread,
};

#[cfg(ourdb_shuttle)]
pub(crate) use shuttle::{
    sync::{Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, atomic},
    thread,
};
// One thread of the process runs all of shuttle's.
#[cfg(ourdb_shuttle)]
use shuttle::thread_local;

#[cfg(ourdb_tsan)]
pub(crate) use asking::Mutex;
#[cfg(any(ourdb_shuttle, ourdb_tsan))]
pub(crate) use seen::OnceLock;

/// Takes a lock that several threads may take for a moment each, again and again. Who finds it taken
/// stays away from it, longer each time, before it waits in line: so whoever has it takes it a few
/// times in a row, and what it changes under it stays in the cache of one processor.
pub(crate) fn lock_apart<T>(mutex: &Mutex<T>) -> LockResult<MutexGuard<'_, T>> {
    #[cfg(not(any(ourdb_shuttle, ourdb_tsan)))]
    {
        use std::sync::TryLockError;
        /// Some 6 µs in all.
        const ATTEMPTS: u32 = 7;

        for turns in (0..ATTEMPTS).map(|attempt| 1 << attempt) {
            match mutex.try_lock() {
                Ok(guard) => return Ok(guard),
                Err(TryLockError::Poisoned(error)) => return Err(error),
                Err(TryLockError::WouldBlock) => {
                    (0..turns).for_each(|_| std::hint::spin_loop());
                }
            }
        }
    }
    mutex.lock()
}

/// Gives the lock back until `condvar` is notified, or not quite so long.
pub(crate) fn wait<'a, T>(
    mutex: &'a Mutex<T>,
    guard: MutexGuard<'a, T>,
    condvar: &Condvar,
) -> MutexGuard<'a, T> {
    if cfg!(ourdb_tsan) {
        return pause(mutex, guard);
    }
    let waited = condvar.wait(guard);
    waited.unwrap_or_else(PoisonError::into_inner)
}

/// Gives the lock back until `condvar` is notified or the time is over, or not quite so long.
pub(crate) fn wait_timeout<'a, T>(
    mutex: &'a Mutex<T>,
    guard: MutexGuard<'a, T>,
    condvar: &Condvar,
    timeout: Duration,
) -> MutexGuard<'a, T> {
    // Shuttle knows no time either.
    if cfg!(any(ourdb_shuttle, ourdb_tsan)) {
        return pause(mutex, guard);
    }
    let waited = condvar.wait_timeout(guard, timeout);
    waited.unwrap_or_else(PoisonError::into_inner).0
}

/// Tells the threads that are alive apart; never 0. What std has for it allocates in a thread of C's, and
/// leaves that behind.
pub(crate) fn this_thread() -> usize {
    thread_local!(static PLACE: Cell<u8> = const { Cell::new(0) });
    PLACE.with(|place| ptr::from_ref(place).addr())
}

/// Does nothing for so long.
pub(crate) fn sleep(duration: Duration) {
    if cfg!(ourdb_shuttle) {
        thread::yield_now();
    } else {
        std::thread::sleep(duration);
    }
}

/// Gives the lock back and takes it again.
fn pause<'a, T>(mutex: &'a Mutex<T>, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    drop(guard);
    thread::yield_now();
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(ourdb_tsan)]
mod asking {
    use std::sync::{LockResult, MutexGuard, TryLockError};

    #[derive(Debug, Default)]
    pub(crate) struct Mutex<T>(std::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) const fn new(value: T) -> Mutex<T> {
            Mutex(std::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
            loop {
                match self.0.try_lock() {
                    Ok(guard) => return Ok(guard),
                    Err(TryLockError::Poisoned(error)) => return Err(error),
                    Err(TryLockError::WouldBlock) => std::thread::yield_now(),
                }
            }
        }
    }
}

#[cfg(any(ourdb_shuttle, ourdb_tsan))]
mod seen {
    use super::atomic::{AtomicBool, Ordering};

    /// std's, in which nothing waits the way it is used here, behind an atomic that is seen.
    #[derive(Debug)]
    pub(crate) struct OnceLock<T> {
        inner: std::sync::OnceLock<T>,
        is_set: AtomicBool,
    }

    impl<T> OnceLock<T> {
        pub(crate) const fn new() -> OnceLock<T> {
            OnceLock {
                inner: std::sync::OnceLock::new(),
                is_set: AtomicBool::new(false),
            }
        }

        pub(crate) fn get(&self) -> Option<&T> {
            if self.is_set.load(Ordering::Acquire) {
                self.inner.get()
            } else {
                None
            }
        }

        pub(crate) fn set(&self, value: T) -> Result<(), T> {
            self.inner.set(value)?;
            self.is_set.store(true, Ordering::Release);
            Ok(())
        }

        pub(crate) fn take(&mut self) -> Option<T> {
            self.is_set.store(false, Ordering::Relaxed);
            self.inner.take()
        }

        pub(crate) fn get_or_init(&self, init: impl FnOnce() -> T) -> &T {
            let value = self.inner.get_or_init(init);
            self.is_set.store(true, Ordering::Release);
            value
        }
    }
}
