//! Which handles are open.
//!
//! A C program may close a database, keep the pointer, and use it. For that to be an error code and
//! not a look into freed memory, a handle is a slot in a table that is never freed. A slot is used
//! again once [`KEPT`] handles of its kind have been opened since it was closed: so long a stale
//! pointer is noticed. Each kind of handle has a table of its own.

use std::cell::UnsafeCell;
use std::ptr;

use super::failure::{Failure, Outcome};
use crate::db::Db;
use crate::error::Error;
use crate::sync::atomic::{AtomicPtr, AtomicU64, Ordering};
use crate::{Scan, Txn};

/// A database. ourdb_open() makes the handle; ourdb_close() or ourdb_destroy() ends it.
pub struct ourdb {
    slot: Slot<Db>,
}

/// A transaction or a snapshot. ourdb_txn_begin() or ourdb_txn_begin_at() makes the handle;
/// ourdb_txn_commit() or ourdb_txn_abort() ends it.
pub struct ourdb_txn {
    slot: Slot<Box<Of<Txn>>>,
}

/// An ordered scan. ourdb_iter_open() or ourdb_txn_iter_open() makes the handle;
/// ourdb_iter_close() ends it.
pub struct ourdb_iter {
    slot: Slot<Box<Of<Scanning>>>,
}

/// What belongs to a database, and the handle of that: a panic in the one poisons the other.
pub(super) struct Of<T> {
    pub(super) db: &'static ourdb,
    pub(super) it: T,
}

/// An open scan.
pub(super) struct Scanning {
    pub(super) scan: Scan,
    pub(super) keys_only: bool,
}

/// A kind of handle.
pub(super) trait Handle: Sized + 'static {
    /// What a handle stands for.
    type Content;
    /// The state of an open handle: a number that memory of some other kind hardly holds. That and
    /// the next one are not the state of a closed one.
    const OPEN: u64;
    /// How the argument is called, and what is said of one that is not open.
    const NAME: &'static str;
    const NOT_OPEN: &'static str;
    const NEW: Self;
    fn slot(&self) -> &Slot<Self::Content>;
    fn table() -> &'static Table<Self>;
}

/// The state of a handle that one thread is opening or closing.
const fn changing<H: Handle>() -> u64 {
    H::OPEN + 1
}

impl Handle for ourdb {
    type Content = Db;
    const OPEN: u64 = u64::from_be_bytes(*b"OurDB.db");
    const NAME: &'static str = "db";
    const NOT_OPEN: &'static str =
        "db is not an open database: it was closed, or it did not come from ourdb_open";
    const NEW: ourdb = ourdb { slot: Slot::NEW };

    #[inline(always)]
    fn slot(&self) -> &Slot<Db> {
        &self.slot
    }

    fn table() -> &'static Table<ourdb> {
        static TABLE: Table<ourdb> = Table::new();
        &TABLE
    }
}

// Transactions and scans come and go: what they are is in a box, so that looking through their
// slots for a free one touches little memory.

impl Handle for ourdb_txn {
    type Content = Box<Of<Txn>>;
    const OPEN: u64 = u64::from_be_bytes(*b"OurDB.tx");
    const NAME: &'static str = "txn";
    const NOT_OPEN: &'static str = "txn is not an open transaction: it was committed or aborted, or it did not come from ourdb_txn_begin";
    const NEW: ourdb_txn = ourdb_txn { slot: Slot::NEW };

    fn slot(&self) -> &Slot<Self::Content> {
        &self.slot
    }

    fn table() -> &'static Table<ourdb_txn> {
        static TABLE: Table<ourdb_txn> = Table::new();
        &TABLE
    }
}

impl Handle for ourdb_iter {
    type Content = Box<Of<Scanning>>;
    const OPEN: u64 = u64::from_be_bytes(*b"OurDB.it");
    const NAME: &'static str = "iter";
    const NOT_OPEN: &'static str =
        "iter is not an open iterator: it was closed, or it did not come from ourdb_iter_open";
    const NEW: ourdb_iter = ourdb_iter { slot: Slot::NEW };

    fn slot(&self) -> &Slot<Self::Content> {
        &self.slot
    }

    fn table() -> &'static Table<ourdb_iter> {
        static TABLE: Table<ourdb_iter> = Table::new();
        &TABLE
    }
}

/// Where a handle points. The state comes first in every kind, so that a pointer to a handle of
/// another kind is noticed too.
#[repr(C)]
pub(super) struct Slot<T> {
    /// `OPEN`; `changing()`; otherwise closed, and then how many handles had been opened by then (0:
    /// never used).
    state: AtomicU64,
    content: UnsafeCell<Option<T>>,
}

impl<T> Slot<T> {
    #[allow(
        clippy::declare_interior_mutable_const,
        reason = "it is what a table is made of, each time anew"
    )]
    const NEW: Slot<T> = Slot {
        state: AtomicU64::new(0),
        content: UnsafeCell::new(None),
    };
}

// SAFETY: `content` is changed only by the thread that has moved `state` to `changing()`, and used
// only while `state` is `OPEN`. That no close runs beside is what C promises to `borrow`. What
// threads share of a database is a `Db`, which is `Sync`; a transaction or scan is used by one
// thread at a time, which C promises to `borrow_mut`. And each may be ended by another thread than
// the one that began it, because it is `Send`.
unsafe impl<T: Send> Sync for Slot<T> {}

const _: () = {
    const fn shared<T: Sync>() {}
    shared::<Db>();
};

const SLOTS: usize = if cfg!(ourdb_shuttle) { 2 } else { 64 };
/// A closed slot is that of the next handle but so many, at the earliest.
const KEPT: u64 = SLOTS as u64;
/// So many blocks without a free slot are looked through for a handle, while most slots are in use. While
/// they aren't, the next free one may be further, but then there are many of them at once.
const LOOKED_THROUGH: usize = 8;

struct Block<H> {
    slots: [H; SLOTS],
    next: AtomicPtr<Block<H>>,
}

impl<H: Handle> Block<H> {
    const fn new() -> Block<H> {
        Block {
            slots: [const { H::NEW }; SLOTS],
            next: AtomicPtr::new(ptr::null_mut()),
        }
    }
}

/// The slots of a kind. There are more when so many handles are open at once. No lock: a child of
/// `fork` may find any lock held forever.
pub(super) struct Table<H> {
    first: Block<H>,
    opened: AtomicU64,
    closed: AtomicU64,
    blocks: AtomicU64,
    /// The block in which a slot was found last; NULL before. Only a hint where to begin: with many
    /// handles open, those before it are in use.
    hint: AtomicPtr<Block<H>>,
}

impl<H: Handle> Table<H> {
    const fn new() -> Table<H> {
        Table {
            first: Block::new(),
            opened: AtomicU64::new(0),
            closed: AtomicU64::new(0),
            blocks: AtomicU64::new(1),
            hint: AtomicPtr::new(ptr::null_mut()),
        }
    }

    /// Whether more than three of four slots are in use.
    fn is_nearly_full(&self) -> bool {
        let [opened, closed, blocks] =
            [&self.opened, &self.closed, &self.blocks].map(|count| count.load(Ordering::Relaxed));
        let open = opened.saturating_sub(closed);
        4 * open > 3 * blocks * SLOTS as u64
    }
}

/// Makes a handle for `content`.
pub(super) fn issue<H: Handle>(content: H::Content) -> *mut H {
    let handle = claim::<H>();
    let slot = handle.slot();
    // SAFETY: `claim` moved the state to `changing()`, for this thread alone.
    unsafe { *slot.content.get() = Some(content) };
    slot.state.store(H::OPEN, Ordering::Release);
    ptr::from_ref(handle).cast_mut()
}

/// What is behind a handle.
///
/// # Safety
/// `handle` is NULL or came from [`issue`], and neither [`retire`] nor [`borrow_mut`] runs beside
/// during `'a`.
#[inline]
pub(super) unsafe fn borrow<'a, H: Handle>(handle: *const H) -> Outcome<&'a H::Content> {
    // SAFETY: the caller promises the same.
    unsafe { peek(handle) }.ok_or_else(|| not_open(handle))
}

/// As [`borrow`], without the reason.
///
/// # Safety
/// As [`borrow`].
#[inline(always)]
pub(super) unsafe fn peek<'a, H: Handle>(handle: *const H) -> Option<&'a H::Content> {
    if handle.is_null() || !handle.is_aligned() {
        return None;
    }
    // SAFETY: aligned, and slots live for ever.
    let slot = unsafe { &*handle }.slot();
    if slot.state.load(Ordering::Acquire) != H::OPEN {
        return None;
    }
    // SAFETY: the handle is open, so nobody writes here until `retire` or `borrow_mut`, which are
    // not beside us.
    unsafe { &*slot.content.get() }.as_ref()
}

/// What is behind a handle of one thread at a time, to be changed.
///
/// # Safety
/// `handle` is NULL or came from [`issue`], and nothing else uses it during `'a`.
#[inline]
pub(super) unsafe fn borrow_mut<'a, H: Handle>(handle: *mut H) -> Outcome<&'a mut H::Content> {
    // SAFETY: the caller promises the same.
    unsafe { peek_mut(handle) }.ok_or_else(|| not_open(handle))
}

/// As [`borrow_mut`], without the reason.
///
/// # Safety
/// As [`borrow_mut`].
#[inline(always)]
pub(super) unsafe fn peek_mut<'a, H: Handle>(handle: *mut H) -> Option<&'a mut H::Content> {
    // SAFETY: the caller promises the same.
    unsafe { peek(handle.cast_const()) }?;
    // SAFETY: `peek` has looked at the pointer; slots live for ever.
    let slot = unsafe { &*handle }.slot();
    // SAFETY: the handle is open, and nothing else uses it.
    unsafe { &mut *slot.content.get() }.as_mut()
}

/// The database's handle itself, which stays where it is for ever.
///
/// # Safety
/// As [`borrow`].
pub(super) unsafe fn resolve(handle: *const ourdb) -> Outcome<&'static ourdb> {
    // SAFETY: the caller promises the same.
    unsafe { borrow(handle) }?;
    // SAFETY: `borrow` has looked at the pointer; slots live for ever.
    Ok(unsafe { &*handle })
}

/// Ends a handle, and gives back what it stood for. Of two threads that try, one succeeds.
///
/// # Safety
/// `handle` is NULL or came from [`issue`], and no reference from [`borrow`] or [`borrow_mut`] is in
/// use.
pub(super) unsafe fn retire<H: Handle>(handle: *mut H) -> Outcome<H::Content> {
    if handle.is_null() || !handle.is_aligned() {
        return Err(not_open(handle));
    }
    // SAFETY: aligned, and slots live for ever.
    let slot = unsafe { &*handle }.slot();
    slot.state
        .compare_exchange(
            H::OPEN,
            changing::<H>(),
            Ordering::Acquire,
            Ordering::Relaxed,
        )
        .map_err(|_| not_open(handle))?;
    // SAFETY: the state is `changing()`, by this thread alone.
    let content = unsafe { (*slot.content.get()).take() };
    let table = H::table();
    let opened = table.opened.load(Ordering::Relaxed);
    slot.state.store(opened, Ordering::Release);
    table.closed.fetch_add(1, Ordering::Relaxed);
    content.ok_or_else(|| not_open(handle))
}

/// A slot that was closed long enough ago, now `changing()`.
fn claim<H: Handle>() -> &'static H {
    let table = H::table();
    let opened = table.opened.fetch_add(1, Ordering::Relaxed) + 1;
    // SAFETY: NULL, or a block that is the first or was published, and nobody frees.
    let hint = unsafe { table.hint.load(Ordering::Acquire).as_ref() };
    let begin = hint.unwrap_or(&table.first);
    let (mut block, mut looked_through) = (begin, 0);
    loop {
        if let Some(handle) = claim_in(block, opened) {
            let hint = ptr::from_ref(block).cast_mut();
            table.hint.store(hint, Ordering::Release);
            return handle;
        }
        looked_through += 1;
        // SAFETY: NULL, or a block that `insert_after` published and nobody frees.
        let next = unsafe { block.next.load(Ordering::Acquire).as_ref() };
        // Round to where it began.
        let next = next.unwrap_or(&table.first);
        let is_enough = looked_through >= LOOKED_THROUGH && table.is_nearly_full();
        if is_enough || ptr::eq(next, begin) {
            block = insert_after(block);
            table.blocks.fetch_add(1, Ordering::Relaxed);
        } else {
            block = next;
        }
    }
}

/// A slot of one block.
fn claim_in<H: Handle>(block: &'static Block<H>, opened: u64) -> Option<&'static H> {
    block.slots.iter().find(|handle| {
        let state = &handle.slot().state;
        let closed = state.load(Ordering::Relaxed);
        let is_free = closed == 0 || (closed < H::OPEN && opened >= closed + KEPT);
        let claim = || {
            let (success, failure) = (Ordering::Acquire, Ordering::Relaxed);
            state.compare_exchange(closed, changing::<H>(), success, failure)
        };
        is_free && claim().is_ok()
    })
}

/// A new block of free slots, after another one.
fn insert_after<H: Handle>(block: &'static Block<H>) -> &'static Block<H> {
    let new = Box::into_raw(Box::new(Block::new()));
    let (success, failure) = (Ordering::AcqRel, Ordering::Acquire);
    let mut next = block.next.load(failure);
    loop {
        // SAFETY: nobody frees it.
        let inserted: &'static Block<H> = unsafe { &*new };
        inserted.next.store(next, Ordering::Relaxed);
        match block.next.compare_exchange(next, new, success, failure) {
            Ok(_) => return inserted,
            Err(other) => next = other,
        }
    }
}

#[cold]
fn not_open<H: Handle>(handle: *const H) -> Failure {
    if handle.is_null() {
        return Error::invalid(format!("{} is NULL", H::NAME)).into();
    }
    Error::invalid(H::NOT_OPEN).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A kind of handle that no other test opens meanwhile.
    struct Own {
        slot: Slot<()>,
    }

    impl Handle for Own {
        type Content = ();
        const OPEN: u64 = u64::from_be_bytes(*b"OurDB.xx");
        const NAME: &'static str = "own";
        const NOT_OPEN: &'static str = "own is not open";
        const NEW: Own = Own { slot: Slot::NEW };

        fn slot(&self) -> &Slot<()> {
            &self.slot
        }

        fn table() -> &'static Table<Own> {
            static TABLE: Table<Own> = Table::new();
            &TABLE
        }
    }

    /// One test, because all parts go through all slots.
    #[test]
    fn closed_handles_are_noticed_and_any_number_can_be_open() {
        // SAFETY: handles from `issue`, and nothing runs beside.
        unsafe {
            for open in [0, SLOTS - 1, 3 * SLOTS] {
                let others: Vec<*mut Own> = (0..open).map(|_| issue(())).collect();
                let stale: *mut Own = issue(());
                assert!(borrow(stale).is_ok());
                retire(stale).unwrap();
                for &other in &others {
                    retire(other).unwrap();
                }
                for _ in 1..KEPT {
                    let other: *mut Own = issue(());
                    assert!(borrow(stale).is_err());
                    assert!(retire(stale).is_err());
                    retire(other).unwrap();
                }
            }

            let handles: Vec<_> = (0..3 * SLOTS).map(|_| issue::<Own>(())).collect();
            for (index, &handle) in handles.iter().enumerate() {
                assert!(!handles[..index].contains(&handle));
                retire(handle).unwrap();
            }
            assert!(handles.iter().all(|&handle| borrow(handle).is_err()));
            let blocks = || {
                let block = &Own::table().first;
                std::iter::successors(Some(block), |&block| {
                    block.next.load(Ordering::Relaxed).as_ref()
                })
            };
            // Those that were open at once, and those that are kept.
            assert!(blocks().count() <= 3 + 2, "slots are used again");

            // Wherever closed ones are among very many, they are used again.
            const OPEN: usize = 400;
            let mut handles: Vec<_> = (0..OPEN * SLOTS).map(|_| issue::<Own>(())).collect();
            let most = blocks().count().max(OPEN * 4 / 3 + 2);
            for closed in [0, OPEN / 3, OPEN - 20] {
                for _ in 0..10 {
                    let range = closed * SLOTS..(closed + 20) * SLOTS;
                    for handle in &mut handles[range.clone()] {
                        retire(*handle).unwrap();
                    }
                    for handle in &mut handles[range] {
                        *handle = issue(());
                    }
                }
                for _ in 0..10 * SLOTS {
                    retire(issue::<Own>(())).unwrap();
                }
                let count = blocks().count();
                assert!(count <= most, "{count} blocks, {most} expected at most");
            }
            for handle in handles {
                retire(handle).unwrap();
            }
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
