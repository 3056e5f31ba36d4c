//! The front: a database, as its users see it.
//!
//! One writer at a time, under a mutex; readers take no lock and make no system call. What a
//! commit changes is published in three steps. `appended` says that its bytes are in the log, the
//! lookup's entries lead to them, and `visible` says that readers may see it: at once, or with
//! [`Sync::Commit`] only when it is on disk. A reader that meets an entry
//! while the two counters differ follows the chain back to what is visible, so a commit of many
//! records becomes visible in one step.

mod apply;
mod auto_compact;
mod backups;
mod brake;
mod clears;
mod close;
mod compact;
mod copies;
mod deletions;
mod erase;
mod erasures;
mod extent;
mod find;
mod follow;
mod foreign;
mod idle;
mod open;
mod opening;
mod order;
mod overlay;
mod ranges;
mod read;
mod reads;
mod recover;
mod revert;
mod scan;
mod settle;
mod snapshot;
mod stats;
mod sync;
mod takeover;
mod ticker;
mod txn;
mod world;
mod write;
mod zeroed;

use std::ops::ControlFlow;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::location::Location;
use crate::log::segment::LogEnd;
use crate::options::{Limits, Options, Sync};
use crate::storage::{Lock, Reading, Storage, Swap, fork};
use crate::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use crate::sync::{Mutex, MutexGuard, OnceLock, PoisonError, lock_apart, this_thread, thread};
pub(crate) use backups::{check_untouched, open_copy, remove_leftovers};
pub(crate) use close::LOCK;
use erasures::Erasures;
pub(crate) use extent::{Extent, Part};
pub(crate) use follow::superseded;
pub(crate) use open::check_no_erasure;
pub use scan::{Order, Scan};
use snapshot::Snapshots;
pub use stats::Stats;
use sync::GroupSync;
use ticker::Ticker;
pub use txn::Txn;
pub(crate) use world::World;
use write::{Moment, Writer};

/// An open database. May be used by any number of threads at once.
///
/// Dropping it without [`close`](Db::close) is like the death of the process: nothing
/// acknowledged is lost, and the next opening reads the end of the log.
#[derive(Debug)]
pub struct Db {
    shared: Arc<Shared>,
    /// The threads that sync and compact in the background; they stop when this is dropped.
    tickers: Vec<Ticker>,
}

/// What the threads of one handle share.
#[derive(Debug)]
struct Shared {
    storage: Arc<dyn Storage>,
    world: Swap<World>,
    key_value: bool,
    read_only: bool,
    /// No files: nothing to leave in order.
    volatile: bool,
    limits: Limits,
    sync: Sync,
    fork_generation: u32,
    counters: Counters,
    snapshots: Snapshots,
    erasures: Erasures,
    writer: Mutex<Writer>,
    group: GroupSync,
    /// The thread of the compaction that is running; 0 if there is none.
    compactor: AtomicUsize,
    /// How many bytes of records compactions' threads have written.
    compactor_wrote: AtomicU64,
    copies: copies::UnderWay,
    /// How much [`idle::LongWork`] is under way.
    long_work: AtomicU32,
    /// For so many microseconds each commit waits before it takes the writer lock, while a compaction
    /// is about to overtake the writers.
    pause_us: AtomicU32,
    /// How it was opened, for a handle that follows a writer.
    options: Options,
    /// Why no more may be written.
    poisoned: OnceLock<Arc<str>>,
    /// Kept for the time that the handle is open.
    _lock: Option<Box<dyn Lock>>,
}

/// Read with every get, written with every commit: on a cache line of their own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Counters {
    /// The last commit whose records the lookup may lead to.
    appended: AtomicU64,
    /// The last commit that readers see.
    visible: AtomicU64,
    /// The id that the next insert gets.
    next_id: AtomicU64,
    /// Odd while the three of `visible`, `live` and `end` are changed, which belong together.
    version: AtomicU64,
    /// Live records as of `visible`.
    live: AtomicU64,
    /// Where the log ends as of `visible`, see [`LogEnd::to_word`].
    end: AtomicU64,
}

impl Counters {
    /// Makes a moment the visible one. Under the writer lock.
    #[inline(always)]
    fn show(&self, moment: &Moment) {
        self.give_out_from(moment.next_id);
        let version = self.version.load(Ordering::Relaxed);
        self.version.store(version + 1, Ordering::Relaxed);
        // Who sees one of these sees that the version is odd, or even and later.
        self.live.store(moment.live, Ordering::Release);
        self.end
            .store(LogEnd::to_word(moment.end), Ordering::Release);
        self.visible.store(moment.commit, Ordering::Release);
        self.version.store(version + 2, Ordering::Release);
    }

    /// Ids below `next` are given out. Under the writer lock.
    fn give_out_from(&self, next: u64) {
        // By transactions, too, whatever becomes of them: a moment doesn't take that back.
        if next > self.next_id.load(Ordering::Relaxed) {
            self.next_id.store(next, Ordering::Release);
        }
    }

    /// The visible commit, the records that are live as of it, and where the log ends then.
    fn shown(&self) -> (u64, u64, Option<LogEnd>) {
        loop {
            let version = self.version.load(Ordering::Acquire);
            let live = self.live.load(Ordering::Acquire);
            let end = self.end.load(Ordering::Acquire);
            let visible = self.visible.load(Ordering::Acquire);
            if version.is_multiple_of(2) && self.version.load(Ordering::Acquire) == version {
                return (visible, live, LogEnd::from_word(end));
            }
            thread::yield_now();
        }
    }
}

impl Shared {
    /// What there is to read now, for as long as one call reads.
    #[inline(always)]
    fn read(&self) -> Reading<'_, World> {
        self.world.read()
    }

    /// Whether this is not a forked child of the process that opened the database.
    #[inline]
    fn is_own_process(&self) -> bool {
        self.fork_generation == fork::generation()
    }

    /// Every call begins with this.
    #[inline]
    fn check_process(&self) -> Result<()> {
        if self.is_own_process() {
            Ok(())
        } else {
            Err(Error::Forked)
        }
    }

    /// Whether long work goes on, by the answer of whom it has told how far it is. In a child that was
    /// forked there nothing does.
    fn go_on(&self, told: ControlFlow<()>) -> Result<()> {
        self.check_process()?;
        match told {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Error::Cancelled),
        }
    }

    fn check_poison(&self) -> Result<()> {
        match self.poisoned.get() {
            None => Ok(()),
            Some(cause) => Err(Error::Poisoned {
                cause: Arc::clone(cause),
            }),
        }
    }

    fn poison(&self, cause: &str) {
        // The first cause is the one to report.
        let _ = self.poisoned.set(cause.into());
    }

    /// Poisons the handle with `error`, and returns it.
    fn poison_with(&self, error: Error) -> Error {
        self.poison(&error.to_string());
        error
    }

    /// The writer lock. Who writes asks [`Shared::check_poison`] under it.
    fn writer(&self) -> MutexGuard<'_, Writer> {
        let writer = self.writer.lock();
        writer.unwrap_or_else(|error| self.after_panic(error))
    }

    /// Unless it is the compaction that waits, for itself: whom it tells of its progress may write.
    #[cold]
    fn pause(&self) {
        if self.compactor.load(Ordering::Relaxed) != this_thread() {
            brake::pause(&self.pause_us);
        }
    }

    /// The state that a panic under the lock left is only read from then on. The C boundary says so too,
    /// once it knows of the panic; who waited for the lock has it before.
    #[cold]
    fn after_panic<T>(&self, error: PoisonError<T>) -> T {
        self.poison("a bug in OurDB: a thread panicked while it wrote");
        error.into_inner()
    }

    /// The writer lock for a commit: after a pause, where a compaction asks for one.
    fn writer_to_commit(&self) -> MutexGuard<'_, Writer> {
        if self.pause_us.load(Ordering::Relaxed) != 0 {
            self.pause();
        }
        let writer = lock_apart(&self.writer);
        writer.unwrap_or_else(|error| self.after_panic(error))
    }

    #[inline]
    fn check_id(&self, id: u32) -> Result<()> {
        // A writer may have raised the limit while this handle follows.
        self.read().check_id(id)
    }

    #[inline]
    fn visible(&self) -> u64 {
        self.counters.visible.load(Ordering::Acquire)
    }

    /// Whether every entry of the lookup that was loaded before this call leads to a version that
    /// is visible as of `visible`.
    #[inline]
    fn all_visible(&self, visible: u64) -> bool {
        // A writer raises `appended` before it stores entries: who has seen an entry of a commit
        // sees `appended` at or past it.
        self.counters.appended.load(Ordering::Acquire) <= visible
    }

    /// The location of the live version of `id` that readers see now.
    #[inline]
    fn live_location(&self, world: &World, id: u32) -> Result<Option<Location>> {
        let entry = world.lookup.get(id);
        let visible = self.visible();
        if self.all_visible(visible) {
            return Ok(entry.is_live().then(|| entry.location()));
        }
        let version = world.live_at(id, entry, visible)?;
        Ok(version.map(|(location, _)| location))
    }
}

impl Db {
    /// Whether it was opened for reading only.
    pub fn is_read_only(&self) -> bool {
        self.shared.read_only
    }

    /// Whether this is a child process of the one that opened it, where it can't be used.
    pub fn is_forked(&self) -> bool {
        self.shared.check_process().is_err()
    }

    /// Whether long work goes on: see [`Shared::go_on`].
    pub(crate) fn go_on(&self, told: ControlFlow<()>) -> Result<()> {
        self.shared.go_on(told)
    }

    /// Stops all further writing through this handle, for a reason that [`Error::Poisoned`] will
    /// tell. For a caller that found something wrong which the database can't know of.
    pub fn poison(&self, cause: &str) {
        // In a forked child nothing is written anyway.
        if self.shared.is_own_process() {
            self.shared.poison(cause);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use super::*;
    use crate::{Options, Retention};

    #[test]
    fn after_a_panic_of_another_thread_under_the_lock_nothing_is_written() {
        let options = Options {
            key_value: true,
            memory: true,
            ..Options::default()
        };
        type Write = fn(&Db) -> Result<()>;
        let writes: [Write; 5] = [
            |db| db.set(1, b"two"),
            |db| db.delete(1),
            |db| db.clear(),
            |db| db.erase(1),
            |db| db.compact(&Retention::default(), |_, _| ControlFlow::Continue(())),
        ];
        for write in writes {
            let db = Db::open("", &options).unwrap();
            db.set(1, b"one").unwrap();
            let under_the_lock = || {
                let _writer = db.shared.writer();
                panic!("planted");
            };
            std::thread::scope(|threads| threads.spawn(under_the_lock).join().unwrap_err());
            let failure = write(&db).unwrap_err();
            assert!(matches!(failure, Error::Poisoned { .. }), "{failure}");
            db.get_with(1, |value| assert_eq!(value, b"one")).unwrap();
        }
    }

    #[test]
    fn a_compaction_does_not_brake_whom_it_tells_of_its_progress() {
        let options = Options {
            memory: true,
            key_value: true,
            record_size_max: 1 << 20,
            ..Options::default()
        };
        let db = Db::open("", &options).unwrap();
        let value = vec![7; 1 << 20];
        let write = |count| (0..count).for_each(|id| db.set(id, &value).unwrap());
        write(8);
        let mut left = 120;
        let told = |_, _| {
            write(left.min(4));
            left -= left.min(4);
            // Longer than it takes to see what a pause has brought.
            thread::sleep(std::time::Duration::from_millis(u64::from(left.min(5))));
            // At its end it has others pause, to have the lock.
            assert!(db.shared.pause_us.load(Ordering::Relaxed) < 1000);
            ControlFlow::Continue(())
        };
        db.compact(&Retention::default(), told).unwrap();
        assert_eq!((left, db.last_commit().unwrap()), (0, 128));
    }
}
