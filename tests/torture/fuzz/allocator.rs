//! The allocator of this test program: the system's, with a count per thread, so that a test can
//! say how much memory a call took at most.

// A global allocator can't be had without.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    /// Bytes that this thread took and has not given back. Below zero where it gave back what
    /// another one took.
    static HELD: Cell<isize> = const { Cell::new(0) };
    /// The most that `HELD` has been since [`most_held`] began.
    static MOST: Cell<isize> = const { Cell::new(0) };
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Counts what is asked for, also if it can't be had.
fn take(bytes: usize) {
    let held = HELD.get().saturating_add_unsigned(bytes);
    HELD.set(held);
    MOST.set(MOST.get().max(held));
}

fn give_back(bytes: usize) {
    HELD.set(HELD.get().saturating_sub_unsigned(bytes));
}

// SAFETY: each call goes to the system's allocator as it came, and the counters, which are not
// allocated and are never destroyed, change nothing about it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        take(layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        take(layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        give_back(layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        take(size);
        give_back(layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// Calls `f`; and how many bytes it held at most at any one time, beyond what was held before.
pub(super) fn most_held<R>(f: impl FnOnce() -> R) -> (R, usize) {
    let before = HELD.get();
    MOST.set(before);
    let result = f();
    let most = MOST.get().saturating_sub(before);
    (result, usize::try_from(most).unwrap_or(0))
}

/// Calls `f` without counting what it takes.
pub(super) fn uncounted<R>(f: impl FnOnce() -> R) -> R {
    let before = (HELD.get(), MOST.get());
    let result = f();
    HELD.set(before.0);
    MOST.set(before.1);
    result
}

#[test]
fn memory_is_counted_also_where_there_is_none() {
    let (_, most) = most_held(|| drop((vec![0u8; 1000], vec![0u8; 500])));
    assert_eq!(most, 1500);
    let (_, most) = most_held(|| Vec::<u8>::new().try_reserve_exact(1 << 60).is_err());
    assert!(most >= 1 << 60, "{most}");
}
