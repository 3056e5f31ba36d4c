//! Who waits for whom about erasures: one erases at a time, backups and the ends of compactions keep it
//! from beginning, and whoever reads versions that no lookup leads to holds the overwriting off.

use std::sync::{Arc, Weak};

use super::World;
use crate::error::{Error, Result};
use crate::storage::{fork, grace};
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

/// Who holds the overwriting off for long gives way after so many bytes that he has read; each version
/// counts as that many more.
const AT_ONCE: u64 = if cfg!(ourdb_shuttle) { 1 } else { 1 << 20 };
const PER_VERSION: u64 = 1 << 8;

/// There is one erasure at a time, and none while backups are made and compactions end. Who erases all the
/// time lets those go first who waited for an erasure to end; backups that overlap all the time let one
/// erasure go first that waits for their ends.
#[derive(Debug, Default)]
struct Turns {
    erasing: bool,
    /// How many erasures have ended.
    ended: u64,
    /// How many wait to erase.
    erasers: usize,
    /// Threads that have it that there is none.
    without: Vec<usize>,
    /// How many wait for the end of an erasure: of the one that is under way, or is to go first.
    waiting: usize,
    /// How many of them it has ended for. They go before the next one.
    next: usize,
}

/// The turn of one who erases.
pub(super) struct Turn<'a>(&'a Erasures);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut turns = self.0.turns();
        turns.erasing = false;
        turns.ended += 1;
        turns.next = turns.waiting;
        drop(turns);
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
        let threads = &mut self.erasures.turns().without;
        if let Some(index) = threads.iter().position(|&thread| thread == own) {
            threads.swap_remove(index);
        }
        self.erasures.turn_ended.notify_all();
    }
}

/// Nothing is overwritten as long as this lives, but now and then between two versions.
pub(super) struct HeldOff<'a> {
    erasures: &'a Erasures,
    held_off: Option<RwLockReadGuard<'a, ()>>,
    /// See [`Erasures::overwritten`], as it was at first.
    overwritten: u64,
    left: u64,
}

impl HeldOff<'_> {
    /// So many bytes of a version were read: after some of them who waits to overwrite has its turn, before
    /// those who wait behind it with the writer lock. The copies of a compaction may be held: who overwrites
    /// doesn't wait for them until that is done.
    pub(super) fn go_on(&mut self, bytes: u64) {
        self.left = self.left.saturating_sub(bytes + PER_VERSION);
        if self.left == 0 {
            self.held_off = None;
            self.held_off = Some(self.erasures.hold_off());
            self.left = AT_ONCE;
        }
    }

    /// Whether anything was overwritten since it was begun.
    pub(super) fn is_overwritten(&self) -> bool {
        self.erasures.overwritten() != self.overwritten
    }
}

impl Erasures {
    fn turns(&self) -> MutexGuard<'_, Turns> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until nobody erases or makes a backup; refused if this thread itself makes one.
    pub(super) fn turn(&self) -> Result<Turn<'_>> {
        let mut turns = self.turns();
        // A compaction that ends tells nobody of it.
        if turns.without.contains(&this_thread()) {
            return Err(Error::Busy {
                what: "this thread makes a backup, whose end an erasure would wait for".into(),
            });
        }
        turns.erasers += 1;
        while turns.erasing || turns.next > 0 || !turns.without.is_empty() {
            turns = wait(&self.turns, turns, &self.turn_ended);
        }
        turns.erasers -= 1;
        turns.erasing = true;
        Ok(Turn(self))
    }

    /// Whether one is not finished yet.
    pub(super) fn is_under_way(&self) -> bool {
        self.turns().erasing
    }

    /// Waits until nobody erases, for who has it so for long, and others after him perhaps: one erasure goes
    /// first that waits already, unless it waits for this very thread. Refused within a read, for which it
    /// would wait.
    pub(super) fn none_for_long(&self) -> Result<NoErasure<'_>> {
        if grace::is_reading() {
            return Err(within_a_read());
        }
        let turns = self.turns();
        let lets_go_first = turns.erasers > 0 && !turns.without.contains(&this_thread());
        Ok(self.none_after(turns, lets_go_first))
    }

    /// Waits until nobody erases, for who has it so for a short time: an erasure that only waits stays
    /// behind, for it may wait for backups, for as long as those take, and one of them for this. Refused
    /// where the erasure waits for this thread.
    pub(super) fn none(&self) -> Result<NoErasure<'_>> {
        let turns = self.turns();
        if turns.erasing && grace::is_reading() {
            return Err(within_a_read());
        }
        Ok(self.none_after(turns, false))
    }

    /// Waits for the end of the erasure that is under way, or is to go first.
    fn none_after<'a>(
        &'a self,
        mut turns: MutexGuard<'a, Turns>,
        lets_go_first: bool,
    ) -> NoErasure<'a> {
        if turns.erasing || lets_go_first {
            let ended = turns.ended;
            turns.waiting += 1;
            while turns.ended == ended {
                turns = wait(&self.turns, turns, &self.turn_ended);
            }
            turns.waiting -= 1;
            turns.next -= 1;
        }
        turns.without.push(this_thread());
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

    /// As [`Erasures::hold_off`], for one who reads much.
    pub(super) fn hold_off_by_turns(&self) -> HeldOff<'_> {
        HeldOff {
            erasures: self,
            held_off: Some(self.hold_off()),
            overwritten: self.overwritten(),
            left: AT_ONCE,
        }
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

pub(super) fn within_a_read() -> Error {
    Error::Busy {
        what: "this thread is within a read, whose end an erasure would wait for".into(),
    }
}

#[cfg(all(test, not(ourdb_shuttle)))]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn who_erases_all_the_time_lets_those_go_first_who_want_none() {
        for _ in 0..100 {
            let erasures = Erasures::default();
            let order = Mutex::new(Vec::new());
            let note = |what| order.lock().expect("no panic").push(what);
            thread::scope(|scope| {
                let turn = erasures.turn().expect("a turn");
                scope.spawn(|| {
                    let none = erasures.none().expect("nobody reads");
                    note("none");
                    drop(none);
                });
                while erasures.turns().waiting == 0 {
                    thread::yield_now();
                }
                drop(turn);
                let _turn = erasures.turn().expect("the next turn");
                note("erasure");
            });
            let order = order.into_inner().expect("no panic");
            assert_eq!(order, ["none", "erasure"]);
        }
    }

    #[test]
    fn backups_that_overlap_let_an_erasure_go_first_that_waits() {
        for _ in 0..100 {
            let erasures = Erasures::default();
            let order = Mutex::new(Vec::new());
            let note = |what| order.lock().expect("no panic").push(what);
            thread::scope(|scope| {
                let first = erasures.none_for_long().expect("nobody reads");
                scope.spawn(|| {
                    let turn = erasures.turn().expect("a turn");
                    note("erasure");
                    drop(turn);
                });
                while erasures.turns().erasers == 0 {
                    thread::yield_now();
                }
                let second = scope.spawn(|| {
                    let _second = erasures.none_for_long().expect("nobody reads");
                    note("backup");
                });
                while erasures.turns().waiting == 0 && !second.is_finished() {
                    thread::yield_now();
                }
                // What the erasure waits for, or may wait for, has no need to wait for it.
                drop(erasures.none_for_long().expect("nobody reads"));
                let short = || drop(erasures.none().expect("nobody reads"));
                scope.spawn(short).join().expect("no panic");
                drop(first);
            });
            let order = order.into_inner().expect("no panic");
            assert_eq!(order, ["erasure", "backup"]);
        }
    }
}
