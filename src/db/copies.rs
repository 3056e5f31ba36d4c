//! What a compaction has copied so far. Erasures reach into it: what they erase is gone from the copies
//! too when they return, and a compaction doesn't end before they do.

use std::ops::{Deref, DerefMut};

use crate::error::{Error, Result};
use crate::log::copy::Copy;
use crate::log::record::Kind;
use crate::lookup::Lookup;
use crate::planted::planted;
use crate::storage::fork;
use crate::sync::{Mutex, MutexGuard, PoisonError};

/// Data files that nobody reads yet, and what leads into them.
#[derive(Debug)]
pub(super) struct Copies {
    /// Versions of the base, and the log after it.
    pub(super) base: Copy,
    pub(super) log: Copy,
    pub(super) lookup: Lookup,
}

impl Copies {
    /// Overwrites the versions of a record that were copied already and that `commit` has erased.
    fn erase(&mut self, id: u32, commit: u64) -> Result<()> {
        let mut next = self.lookup.get(id).location();
        while !next.is_none() && !planted!(copies_not_erased) {
            let copy = match self.base.has(next.file) {
                true => &mut self.base,
                false => &mut self.log,
            };
            let head = copy.head(next)?;
            match head.kind {
                // The erasure itself, or set again since.
                _ if head.commit >= commit => {}
                Kind::Erase => break,
                Kind::Put => copy.erase(next, &head)?,
                // Also one that was overwritten before it was copied: those before it need not have been.
                _ => {}
            }
            next = head.previous;
        }
        Ok(())
    }

    /// Makes durable what was overwritten.
    fn sync_erased(&mut self) -> Result<()> {
        for copy in [&mut self.base, &mut self.log] {
            if copy.is_changed() {
                copy.sync()?;
            }
        }
        Ok(())
    }
}

/// Those of the compaction that is under way, if there is one. Held for the time of a record, a commit, a
/// sync or a checkpoint; and before the new files are those of the database, until they are.
#[derive(Debug, Default)]
pub(super) struct UnderWay(Mutex<Option<Copies>>);

impl UnderWay {
    fn lock(&self) -> MutexGuard<'_, Option<Copies>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A compaction begins with these.
    pub(super) fn begin(&self, copies: Copies) {
        *self.lock() = Some(copies);
    }

    /// A compaction has ended when this is dropped, be it by a panic.
    pub(super) fn until_dropped(&self) -> Ending<'_> {
        Ending {
            under_way: self,
            fork_generation: fork::generation(),
        }
    }

    /// For the compaction itself.
    pub(super) fn copies(&self) -> Held<'_> {
        Held(self.lock())
    }

    /// Overwrites the versions of records that commits have erased, durably. What of them isn't copied yet
    /// won't be. After a failure the copies may lack something, and a later sync need not say so: `failed`
    /// stops all writing before anybody else comes to them.
    pub(super) fn erase(
        &self,
        erased: &[(u32, u64)],
        failed: impl FnOnce(Error) -> Error,
    ) -> Result<()> {
        match &mut *self.lock() {
            None => Ok(()),
            Some(copies) => {
                let mut erased = erased.iter();
                (erased.try_for_each(|&(id, commit)| copies.erase(id, commit)))
                    .and_then(|()| copies.sync_erased())
                    .map_err(failed)
            }
        }
    }
}

/// Gives the copies up, if they were not handed over.
pub(super) struct Ending<'a> {
    under_way: &'a UnderWay,
    fork_generation: u32,
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        // In a forked child the lock may be held by a thread that isn't there.
        if self.fork_generation != fork::generation() {
            return;
        }
        let copies = self.under_way.lock().take();
        // Not under the lock: it removes files.
        drop(copies);
    }
}

/// The copies, as long as nobody else may change them.
pub(super) struct Held<'a>(MutexGuard<'a, Option<Copies>>);

impl Held<'_> {
    /// They are the database's from here on.
    pub(super) fn hand_over(mut self) -> Copies {
        match self.0.take() {
            Some(copies) => copies,
            None => unreachable!("they are handed over once"),
        }
    }
}

impl Deref for Held<'_> {
    type Target = Copies;

    fn deref(&self) -> &Copies {
        match &*self.0 {
            Some(copies) => copies,
            None => unreachable!("a compaction has copies until it ends"),
        }
    }
}

impl DerefMut for Held<'_> {
    fn deref_mut(&mut self) -> &mut Copies {
        match &mut *self.0 {
            Some(copies) => copies,
            None => unreachable!("a compaction has copies until it ends"),
        }
    }
}
