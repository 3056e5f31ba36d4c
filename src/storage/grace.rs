//! Grace periods: waiting until every thread that was reading has come out once.
//!
//! A thread marks in a slot of its own that it reads, and takes the mark away again; who wants to
//! free something takes away the way to it first, and then waits until each slot that was marked
//! has changed. That is RCU as in the Linux kernel or liburcu (Desnoyers et al., "User-Level
//! Implementations of Read-Copy Update", 2012).
//!
//! A reader's mark and what it reads next may be reordered by the processor, unless a fence stands
//! between the two, which would wait for all earlier loads: two reads that now wait for memory side
//! by side would wait one after the other. So the one who waits makes all threads execute the fence
//! instead, with membarrier(2). Where there is none, readers have the fence. And where there is none any
//! more, because the program has confined itself since, they have it from then on.

use std::cell::Cell;
use std::ptr;
use std::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU8, AtomicU64, Ordering, compiler_fence, fence,
};
use std::time::Duration;

/// On a cache line of its own, and the line that is fetched with it.
#[repr(align(128))]
struct Slot {
    /// Odd while the thread reads. Counts up, so that a change is noticed.
    mark: AtomicU64,
    taken: AtomicBool,
}

const SLOTS: usize = 64;

struct Block {
    slots: [Slot; SLOTS],
    next: AtomicPtr<Block>,
}

impl Block {
    const fn new() -> Block {
        Block {
            slots: [const {
                Slot {
                    mark: AtomicU64::new(0),
                    taken: AtomicBool::new(false),
                }
            }; SLOTS],
            next: AtomicPtr::new(ptr::null_mut()),
        }
    }
}

/// More are appended when so many threads read; none is ever freed. They belong to the process,
/// however many databases it has open.
static FIRST: Block = Block::new();

/// Who makes the fence between a reader's mark and what it reads next.
static FENCE: AtomicU8 = AtomicU8::new(READERS);
/// Each reader.
const READERS: u8 = 0;
/// The kernel, for all of them, when somebody waits.
const KERNEL: u8 = 1;
/// Each reader since a moment ago, when the kernel was found to refuse; and then for good.
const READERS_SOON: u8 = 2;
const READERS_AGAIN: u8 = 3;

/// After so long a mark has left its processor, with a fence or without: that takes it less than a
/// microsecond, and one that is interrupted does it at once.
const SETTLED: Duration = Duration::from_millis(10);

thread_local! {
    /// This thread's slot. Without a destructor, so that it costs no look whether that has run.
    static SLOT: Cell<*const Slot> = const { Cell::new(ptr::null()) };
    static RELEASE: Release = const { Release };
}

/// Gives the slot of a thread that ends to the next one.
struct Release;

impl Drop for Release {
    fn drop(&mut self) {
        let slot = SLOT.replace(ptr::null());
        // SAFETY: NULL, or a slot of a block, which lives for ever.
        if let Some(slot) = unsafe { slot.as_ref() } {
            slot.taken.store(false, Ordering::Release);
        }
    }
}

/// Asks the kernel for what [`wait`] uses. Called before the first handle is made.
pub(crate) fn register() {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    if !cfg!(ourdb_tsan) {
        const REGISTER_PRIVATE_EXPEDITED: libc::c_int = 1 << 4;
        // SAFETY: a system call without pointers.
        let result = unsafe { libc::syscall(libc::SYS_membarrier, REGISTER_PRIVATE_EXPEDITED, 0) };
        if result == 0 {
            let order = Ordering::SeqCst;
            let _ = FENCE.compare_exchange(READERS, KERNEL, order, order);
        }
    }
}

/// Makes every running thread of the process execute a full fence.
fn fence_everywhere() {
    let order = Ordering::SeqCst;
    fence(order);
    #[cfg(any(target_os = "linux", target_os = "android"))]
    if FENCE.load(order) == KERNEL {
        const PRIVATE_EXPEDITED: libc::c_int = 1 << 3;
        // SAFETY: a system call without pointers.
        let result = unsafe { libc::syscall(libc::SYS_membarrier, PRIVATE_EXPEDITED, 0) };
        if result == 0 {
            return;
        }
        // A filter of system calls (seccomp) may forbid it, since it was registered.
        let _ = FENCE.compare_exchange(KERNEL, READERS_SOON, order, order);
    }
    if FENCE.load(order) == READERS_SOON {
        std::thread::sleep(SETTLED);
        FENCE.store(READERS_AGAIN, order);
    }
    fence(order);
}

/// This thread reads, as long as it lives. One in another changes nothing.
#[derive(Debug)]
pub(super) struct Reading {
    /// NULL within another one.
    slot: *const Slot,
}

impl Reading {
    #[inline(always)]
    pub(super) fn begin() -> Reading {
        let mut slot = SLOT.get();
        if slot.is_null() {
            slot = claim();
        }
        // SAFETY: a slot of a block, which lives for ever.
        let mark = unsafe { &(*slot).mark };
        let value = mark.load(Ordering::Relaxed);
        if value % 2 == 1 {
            return Reading { slot: ptr::null() };
        }
        mark.store(value + 1, Ordering::Relaxed);
        if FENCE.load(Ordering::Relaxed) == KERNEL {
            compiler_fence(Ordering::SeqCst);
        } else {
            fence(Ordering::SeqCst);
        }
        Reading { slot }
    }
}

impl Drop for Reading {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: NULL, or a slot of a block, which lives for ever.
        if let Some(slot) = unsafe { self.slot.as_ref() } {
            // Only this thread changes it.
            let value = slot.mark.load(Ordering::Relaxed);
            slot.mark.store(value + 1, Ordering::Release);
        }
    }
}

#[cold]
fn claim() -> *const Slot {
    let mut block = &FIRST;
    loop {
        for slot in &block.slots {
            let free = !slot.taken.load(Ordering::Relaxed);
            if free && !slot.taken.swap(true, Ordering::Acquire) {
                let slot = ptr::from_ref(slot);
                SLOT.set(slot);
                // Where the thread is so far at its end that it can't be told of it, the slot stays
                // taken.
                let _ = RELEASE.try_with(|_| ());
                return slot;
            }
        }
        block = next(block);
    }
}

/// The block after `block`, appended if there is none.
fn next(block: &'static Block) -> &'static Block {
    let mut next = block.next.load(Ordering::Acquire);
    if next.is_null() {
        let new = Box::into_raw(Box::new(Block::new()));
        let appended =
            block
                .next
                .compare_exchange(ptr::null_mut(), new, Ordering::AcqRel, Ordering::Acquire);
        next = match appended {
            Ok(_) => new,
            Err(other) => {
                // SAFETY: from `Box::into_raw` above, and not published.
                drop(unsafe { Box::from_raw(new) });
                other
            }
        };
    }
    // SAFETY: published, and never freed.
    unsafe { &*next }
}

/// In a forked child: the threads of the parent are not here, and nobody would ever take away the
/// marks of those that were reading. Their slots are free. Async-signal-safe.
pub(super) fn forget_other_threads() {
    let own = SLOT.get();
    let mut block = Some(&FIRST);
    while let Some(slots) = block {
        for slot in slots.slots.iter().filter(|&slot| !ptr::eq(slot, own)) {
            slot.mark.store(0, Ordering::Relaxed);
            slot.taken.store(false, Ordering::Relaxed);
        }
        // SAFETY: NULL, or a block that was published, and never freed.
        block = unsafe { slots.next.load(Ordering::Acquire).as_ref() };
    }
}

/// Whether this thread reads, further up.
pub(crate) fn is_reading() -> bool {
    // SAFETY: NULL, or a slot of a block, which lives for ever.
    let own = unsafe { SLOT.get().as_ref() };
    own.is_some_and(|slot| slot.mark.load(Ordering::Relaxed) % 2 == 1)
}

/// Returns when every thread that was reading has come out. `false`, at once, if this thread
/// itself reads: it would wait for ever.
pub(crate) fn wait() -> bool {
    if is_reading() {
        return false;
    }
    fence_everywhere();
    let mut block = Some(&FIRST);
    while let Some(slots) = block {
        for slot in &slots.slots {
            let seen = slot.mark.load(Ordering::Acquire);
            let mut turns = 0u32;
            while seen % 2 == 1 && slot.mark.load(Ordering::Acquire) == seen {
                turns += 1;
                match turns {
                    0..64 => std::hint::spin_loop(),
                    64..128 => std::thread::yield_now(),
                    _ => std::thread::sleep(Duration::from_micros(50)),
                }
            }
        }
        // SAFETY: NULL, or a block that was published, and never freed.
        block = unsafe { slots.next.load(Ordering::Acquire).as_ref() };
    }
    true
}
