//! Who waits for whom about erasures: one erases at a time, backups keep it from beginning, and
//! whoever reads versions that no lookup leads to holds the overwriting off.

use std::sync::{Arc, Weak};

use super::World;
use crate::error::{Error, Result};
use crate::storage::fork;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{
    Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, this_thread, wait,
};

/// What erasures share with those who read beside them.
#[derive(Debug, Default)]
pub(super) struct Erasures {
    turns: Mutex<Turns>,
    turn_ended: Condvar,
    /// Held shared by who reads versions that no lookup leads to, and to overwrite exclusively.
    pub(super) overwriting: RwLock<()>,
    /// How many there were, the commit of the last one, and how many times something was overwritten.
    count: AtomicU64,
    last: AtomicU64,
    pub(super) overwritten: AtomicU64,
    /// Worlds that were replaced by a compaction; snapshots may read in them still.
    replaced: Mutex<Vec<Weak<World>>>,
}

/// There is one erasure at a time, and none while backups are made.
#[derive(Debug, Default)]
struct Turns {
    erasing: bool,
    /// Threads that make backups.
    backing_up: Vec<usize>,
}

/// The turn of one who erases.
pub(super) struct Turn<'a>(&'a Erasures);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.turns().erasing = false;
        self.0.turn_ended.notify_all();
    }
}

/// No erasure begins, and none is half done, as long as this lives.
pub(crate) struct NoErasure<'a> {
    erasures: &'a Erasures,
    fork_generation: u32,
}

impl Drop for NoErasure<'_> {
    fn drop(&mut self) {
        // In a forked child a thread that isn't there may hold the lock.
        if self.fork_generation != fork::generation() {
            return;
        }
        let own = this_thread();
        let threads = &mut self.erasures.turns().backing_up;
        if let Some(index) = threads.iter().position(|&thread| thread == own) {
            threads.swap_remove(index);
        }
        self.erasures.turn_ended.notify_all();
    }
}

impl Erasures {
    fn turns(&self) -> MutexGuard<'_, Turns> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until nobody erases or makes a backup; refused if this thread itself makes one.
    pub(super) fn turn(&self) -> Result<Turn<'_>> {
        let mut turns = self.turns();
        while turns.erasing || !turns.backing_up.is_empty() {
            if turns.backing_up.contains(&this_thread()) {
                return Err(Error::Busy {
                    what: "this thread makes a backup, whose end an erasure would wait for".into(),
                });
            }
            turns = wait(&self.turns, turns, &self.turn_ended);
        }
        turns.erasing = true;
        Ok(Turn(self))
    }

    /// Waits until nobody erases.
    pub(super) fn none(&self) -> NoErasure<'_> {
        let mut turns = self.turns();
        while turns.erasing {
            turns = wait(&self.turns, turns, &self.turn_ended);
        }
        turns.backing_up.push(this_thread());
        NoErasure {
            erasures: self,
            fork_generation: fork::generation(),
        }
    }

    /// Nothing is overwritten as long as this is held. Not for long, not twice in a thread, and not while
    /// waiting for the writer lock or a sync; what is held besides may be the writer lock, taken before.
    pub(super) fn hold_off(&self) -> RwLockReadGuard<'_, ()> {
        self.overwriting
            .read()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// A commit has erased a record: nobody sees it any more, whatever moment they look at.
    pub(super) fn add(&self, commit: u64) {
        self.last.store(commit, Ordering::Relaxed);
        self.count.fetch_add(1, Ordering::Release);
    }

    /// Whether there is one that commit `at` doesn't know of.
    pub(super) fn is_later_than(&self, at: u64) -> bool {
        self.last.load(Ordering::Relaxed) > at
    }

    /// How many there were, the last of them perhaps not finished.
    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    /// There were some more, in the database that this handle follows.
    pub(super) fn add_followed(&self, count: u64) {
        self.count.fetch_add(count, Ordering::Release);
    }

    /// Changes whenever something was overwritten. While [held off](Erasures::hold_off), it stays.
    pub(super) fn overwritten(&self) -> u64 {
        self.overwritten.load(Ordering::Acquire)
    }

    fn replaced(&self) -> MutexGuard<'_, Vec<Weak<World>>> {
        self.replaced.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a world is replaced. Under the writer lock.
    pub(super) fn add_replaced(&self, world: &Arc<World>) {
        let mut replaced = self.replaced();
        replaced.retain(|world| world.strong_count() > 0);
        replaced.push(Arc::downgrade(world));
    }

    /// The replaced worlds that are there still.
    pub(super) fn replaced_worlds(&self) -> Vec<Arc<World>> {
        self.replaced().iter().filter_map(Weak::upgrade).collect()
    }
}
