//! The front: a database, as its users see it.
//!
//! One writer at a time, under a mutex; readers take no lock and make no system call. What a
//! commit changes is published in three steps. `appended` says that its bytes are in the log, the
//! lookup's entries lead to them, and `visible` says that readers may see it: at once, or with
//! [`Sync::Commit`] only when it is on disk. A reader that meets an entry
//! while the two counters differ follows the chain back to what is visible, so a commit of many
//! records becomes visible in one step.

mod close;
mod extent;
mod open;
mod order;
mod read;
mod recover;
mod sync;
mod takeover;
mod write;

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::history::Chain;
use crate::location::Location;
use crate::log::Log;
use crate::log::record::{Head, Kind};
use crate::lookup::{Entry, Lookup};
use crate::options::{Limits, Sync};
use crate::storage::{Lock, Storage, fork};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
pub(crate) use extent::{Extent, Part};
use sync::{GroupSync, Ticker};
use write::Writer;

/// An open database. May be used by any number of threads at once.
///
/// Dropping it without [`close`](Db::close) is like the death of the process: nothing
/// acknowledged is lost, and the next opening reads the end of the log.
#[derive(Debug)]
pub struct Db {
    shared: Arc<Shared>,
    /// The thread of [`Sync::Interval`]; it stops when this is dropped.
    ticker: Option<Ticker>,
}

/// What the threads of one handle share.
#[derive(Debug)]
struct Shared {
    log: Log,
    lookup: Lookup,
    key_value: bool,
    read_only: bool,
    /// No files: nothing to leave in order.
    volatile: bool,
    limits: Limits,
    sync: Sync,
    fork_generation: u32,
    counters: Counters,
    writer: Mutex<Writer>,
    group: GroupSync,
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
    /// Live records as of `visible`.
    live: AtomicU64,
    /// The id that the next insert gets.
    next_id: AtomicU64,
}

impl Shared {
    fn storage(&self) -> &dyn Storage {
        &*self.log.storage
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

    fn writer(&self) -> MutexGuard<'_, Writer> {
        // A panic under the lock poisons the handle (see the C boundary); the state that it left
        // is only read from then on.
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[inline]
    fn check_id(&self, id: u32) -> Result<()> {
        if id < self.limits.record_nr_max {
            Ok(())
        } else {
            Err(Error::IdOutOfRange {
                id,
                limit: self.limits.record_nr_max,
            })
        }
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

    /// The newest version of `id` at or before commit `at`, deletions included.
    fn version_at(&self, id: u32, entry: Entry, at: u64) -> Result<Option<(Location, Head)>> {
        let mut chain = Chain::new(&self.log, id, entry);
        while let Some((location, head)) = chain.next()? {
            if head.commit <= at {
                return Ok(Some((location, head)));
            }
        }
        Ok(None)
    }

    /// The location of the live version of `id` that readers see now.
    #[inline]
    fn live_location(&self, id: u32) -> Result<Option<(Location, usize)>> {
        let entry = self.lookup.get(id);
        let visible = self.visible();
        if self.all_visible(visible) {
            return Ok(entry
                .is_live()
                .then(|| (entry.location(), entry.len_hint())));
        }
        let version = self.version_at(id, entry, visible)?;
        Ok(version
            .filter(|(_, head)| head.kind == Kind::Put)
            .map(|(location, head)| (location, head.len as usize)))
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

    /// Stops all further writing through this handle, for a reason that [`Error::Poisoned`] will
    /// tell. For a caller that found something wrong which the database can't know of.
    pub fn poison(&self, cause: &str) {
        self.shared.poison(cause);
    }
}
