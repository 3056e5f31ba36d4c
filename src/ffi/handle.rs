//! Which handles are open.
//!
//! A C program may close a database, keep the pointer, and use it. For that to be an error code and
//! not a look into freed memory, a handle is a slot in a table that is never freed. Slots are used
//! again, the one that has been closed for the longest time first: a stale pointer is noticed until
//! there were as many opens as there are free slots.

use std::cell::UnsafeCell;
use std::ptr;

use super::failure::{Failure, Outcome};
use crate::db::Db;
use crate::error::Error;
use crate::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

/// A database. ourdb_open() makes the handle; ourdb_close() or ourdb_destroy() ends it.
pub struct ourdb {
    /// `OPEN`; `CHANGING`; otherwise closed, and then the number of the closing (0: never used).
    state: AtomicU64,
    db: UnsafeCell<Option<Db>>,
}

/// A number that memory of some other kind hardly holds.
const OPEN: u64 = 0x4f75_7244_422e_6f70;
/// One thread is opening or closing this handle.
const CHANGING: u64 = OPEN + 1;

// SAFETY: `db` is changed only by the thread that has moved `state` to `CHANGING`, and read only
// while `state` is `OPEN`. That no close runs beside a reader is what C promises to `borrow`.
// What readers share is a `Db`, which is `Sync`, and it may be closed by another thread than the
// one that opened it, because it is `Send`.
unsafe impl Sync for ourdb where Db: Send + Sync {}

const SLOTS: usize = if cfg!(ourdb_shuttle) { 2 } else { 64 };

struct Block {
    slots: [ourdb; SLOTS],
    next: AtomicPtr<Block>,
}

impl Block {
    const fn new() -> Block {
        Block {
            slots: [const {
                ourdb {
                    state: AtomicU64::new(0),
                    db: UnsafeCell::new(None),
                }
            }; SLOTS],
            next: AtomicPtr::new(ptr::null_mut()),
        }
    }
}

/// More are appended when so many handles are open at once. No lock: a child of `fork` may find
/// any lock held forever.
static FIRST: Block = Block::new();
static CLOSINGS: AtomicU64 = AtomicU64::new(0);

/// Makes a handle for `db`.
pub(super) fn issue(db: Db) -> *mut ourdb {
    let slot = claim();
    // SAFETY: `claim` moved the state to `CHANGING`, for this thread alone.
    unsafe { *slot.db.get() = Some(db) };
    slot.state.store(OPEN, Ordering::Release);
    ptr::from_ref(slot).cast_mut()
}

/// The database behind a handle.
///
/// # Safety
/// `handle` is NULL or came from [`issue`], and [`retire`] does not run beside during `'a`.
#[inline]
pub(super) unsafe fn borrow<'a>(handle: *const ourdb) -> Outcome<&'a Db> {
    // SAFETY: the caller promises the same.
    unsafe { peek(handle) }.ok_or_else(|| not_open(handle))
}

/// As [`borrow`], without the reason.
///
/// # Safety
/// As [`borrow`].
#[inline(always)]
pub(super) unsafe fn peek<'a>(handle: *const ourdb) -> Option<&'a Db> {
    if handle.is_null() || !handle.is_aligned() {
        return None;
    }
    // SAFETY: aligned, and slots live for ever.
    let slot = unsafe { &*handle };
    if slot.state.load(Ordering::Acquire) != OPEN {
        return None;
    }
    // SAFETY: the handle is open, so nobody writes here until `retire`, which is not beside us.
    unsafe { &*slot.db.get() }.as_ref()
}

/// Ends a handle, and gives the database back. Of two threads that try, one succeeds.
///
/// # Safety
/// `handle` is NULL or came from [`issue`], and no reference from [`borrow`] is in use.
pub(super) unsafe fn retire(handle: *mut ourdb) -> Outcome<Db> {
    if handle.is_null() || !handle.is_aligned() {
        return Err(not_open(handle));
    }
    // SAFETY: aligned, and slots live for ever.
    let slot = unsafe { &*handle };
    slot.state
        .compare_exchange(OPEN, CHANGING, Ordering::Acquire, Ordering::Relaxed)
        .map_err(|_| not_open(handle))?;
    // SAFETY: the state is `CHANGING`, by this thread alone.
    let db = unsafe { (*slot.db.get()).take() };
    let closing = CLOSINGS.fetch_add(1, Ordering::Relaxed) + 1;
    slot.state.store(closing, Ordering::Release);
    db.ok_or_else(|| not_open(handle))
}

/// The slot that has been closed for the longest time, now `CHANGING`.
fn claim() -> &'static ourdb {
    loop {
        let mut oldest: Option<(&ourdb, u64)> = None;
        let mut block = &FIRST;
        loop {
            for slot in &block.slots {
                let state = slot.state.load(Ordering::Relaxed);
                if state < OPEN && oldest.is_none_or(|(_, closing)| state < closing) {
                    oldest = Some((slot, state));
                }
            }
            // SAFETY: NULL, or a block that `append` published and nobody frees.
            match unsafe { block.next.load(Ordering::Acquire).as_ref() } {
                Some(next) => block = next,
                None => break,
            }
        }
        match oldest {
            Some((slot, closing)) => {
                let claimed = slot.state.compare_exchange(
                    closing,
                    CHANGING,
                    Ordering::Acquire,
                    Ordering::Relaxed,
                );
                if claimed.is_ok() {
                    return slot;
                }
            }
            None => append(block),
        }
    }
}

/// Appends a block of free slots after the last; another thread may have been quicker.
fn append(last: &Block) {
    let new = Box::into_raw(Box::new(Block::new()));
    let appended =
        last.next
            .compare_exchange(ptr::null_mut(), new, Ordering::Release, Ordering::Relaxed);
    if appended.is_err() {
        // SAFETY: from `Box::into_raw` above, and not published.
        drop(unsafe { Box::from_raw(new) });
    }
}

#[cold]
fn not_open(handle: *const ourdb) -> Failure {
    let text = if handle.is_null() {
        "db is NULL"
    } else {
        "db is not an open database: it was closed, or it did not come from ourdb_open"
    };
    Error::invalid(text).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Options;

    fn in_memory() -> Db {
        Db::open(
            "",
            &Options {
                memory: true,
                ..Options::default()
            },
        )
        .unwrap()
    }

    /// One test, because both parts go through all slots.
    #[test]
    fn closed_handles_are_noticed_and_any_number_can_be_open() {
        // SAFETY: handles from `issue`, and nothing runs beside.
        unsafe {
            let stale = issue(in_memory());
            assert!(borrow(stale).is_ok());
            drop(retire(stale).unwrap());
            for _ in 0..SLOTS / 2 {
                let other = issue(in_memory());
                assert!(borrow(stale).is_err());
                assert!(retire(stale).is_err());
                drop(retire(other).unwrap());
            }

            let handles: Vec<_> = (0..3 * SLOTS).map(|_| issue(in_memory())).collect();
            for (index, &handle) in handles.iter().enumerate() {
                assert!(!handles[..index].contains(&handle));
                drop(retire(handle).unwrap());
            }
            assert!(handles.iter().all(|&handle| borrow(handle).is_err()));
        }
    }
}

/// What threads may do to each other here; for how, see `crate::sync` and tests/interleavings.
#[cfg(all(test, ourdb_shuttle))]
mod interleavings {
    use super::*;
    use crate::options::Options;
    use crate::sync::thread;

    const SCHEDULES: usize = 3000;

    /// A handle that goes from thread to thread, as in C.
    #[derive(Clone, Copy)]
    struct Handle(*mut ourdb);

    // SAFETY: handles may be used by any thread.
    unsafe impl Send for Handle {}

    impl Handle {
        /// A database in memory whose next id says whose it is.
        fn open(owner: u32) -> Handle {
            let options = Options {
                memory: true,
                record_nr_max: 100,
                ..Options::default()
            };
            let db = Db::open("", &options).unwrap();
            for _ in 0..owner {
                db.insert(b"").unwrap();
            }
            Handle(issue(db))
        }

        fn owner(self) -> Option<u64> {
            // SAFETY: a handle of `open`, which no model closes beside this.
            unsafe { borrow(self.0) }.ok()?.count().ok()
        }

        /// Whether this call was the one that closed it.
        fn close(self) -> bool {
            // SAFETY: a handle of `open`, of which no reference is in use.
            unsafe { retire(self.0) }.is_ok()
        }
    }

    fn explore(model: impl Fn() + Send + std::marker::Sync + Clone + 'static) {
        shuttle::check_random_with_seed(model.clone(), 1, SCHEDULES);
        shuttle::check_pct(model, SCHEDULES, 4);
    }

    /// One test, because both parts use the same slots.
    #[test]
    fn a_handle_is_of_one_thread_and_closed_once() {
        explore(|| {
            thread::scope(|scope| {
                for number in 0..3 {
                    scope.spawn(move || {
                        let first = Handle::open(number);
                        let second = Handle::open(number + 3);
                        assert_eq!(first.owner(), Some(number.into()));
                        assert!(first.close(), "somebody else closed it");
                        let third = Handle::open(number + 6);
                        assert_eq!(second.owner(), Some((number + 3).into()));
                        assert_eq!(third.owner(), Some((number + 6).into()));
                        assert!(second.close() && third.close(), "somebody else closed it");
                    });
                }
            });
        });
        explore(|| {
            let handle = Handle::open(1);
            let both = [(); 2].map(|()| thread::spawn(move || handle.close()));
            let closed = both.map(|thread| thread.join().unwrap());
            assert_ne!(closed[0], closed[1], "one closes it, and one does not");
            let next = Handle::open(2);
            assert_eq!(handle.owner(), None, "a closed handle is open");
            assert!(
                !handle.close() && next.close(),
                "a closed handle closes another"
            );
        });
    }
}
