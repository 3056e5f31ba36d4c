//! What readers read: the log, and the table that leads into it.
//!
//! A world is replaced as a whole, by a compaction or when a reader follows a writer. Who still
//! reads in the old one sees there what was true until then.

use std::borrow::Cow;

use super::clears::Clears;
use super::write::Stamp;
use crate::base;
use crate::error::{Error, NotFound, Result};
use crate::history::Chain;
use crate::location::Location;
use crate::log::Log;
use crate::log::kept::KeptIndex;
use crate::log::record::{Head, Kind};
use crate::log::segment::name;
use crate::lookup::{Entry, Lookup};
use crate::manifest::{Clear, TakenOver};
use crate::storage::{fork, remove_if_there};
use crate::sync::OnceLock;
use crate::sync::atomic::{AtomicU64, Ordering};

/// The data files of one generation, and the lookup over them.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) log: Log,
    pub(crate) lookup: Lookup,
    /// Ascending. A record that was live then is deleted since, without a record that says so.
    clears: Clears,
    /// The last commit before the log: versions without a commit, which herolib wrote, are from
    /// before the first clear after it, ...
    base: Stamp,
    /// ... or after an earlier one. Ascending.
    taken_over: Vec<TakenOver>,
    /// From this commit on every version is kept. Beyond the last commit in the middle of a
    /// difference that is being applied, which ends with it.
    oldest: AtomicU64,
    /// The versions before the log, for who asks for changes from then.
    pub(crate) kept: KeptIndex,
    /// How many bytes the compaction that made it has kept that were dead when it began. An opening can't
    /// tell.
    pub(super) kept_dead: Option<u64>,
    /// Its files are not the database's any more, and this process, before it forked, removes them.
    doomed: OnceLock<u32>,
}

impl World {
    /// Refuses ids that can't be.
    #[inline]
    pub(super) fn check_id(&self, id: u32) -> Result<()> {
        let limit = self.lookup.limit();
        if id < limit {
            Ok(())
        } else {
            Err(Error::IdOutOfRange { id, limit })
        }
    }

    pub(super) fn new(
        log: Log,
        lookup: Lookup,
        clears: Clears,
        base: Stamp,
        taken_over: Vec<TakenOver>,
        oldest: u64,
    ) -> World {
        World {
            log,
            lookup,
            clears,
            base,
            taken_over,
            oldest: AtomicU64::new(oldest),
            kept: KeptIndex::default(),
            kept_dead: None,
            doomed: OnceLock::new(),
        }
    }

    /// The last commit before the log. Of the beginning of all, number and time are 0.
    pub(crate) fn base(&self) -> Stamp {
        self.base
    }

    /// The commit from which on every version is kept.
    pub(crate) fn oldest(&self) -> u64 {
        self.oldest.load(Ordering::Acquire)
    }

    /// From commit `oldest` on every version will be kept. Under the writer lock.
    pub(super) fn raise_oldest(&self, oldest: u64) {
        self.oldest.fetch_max(oldest, Ordering::Release);
    }

    /// The first clear after a version of a record, and before the next newer one, if there is one.
    pub(crate) fn clear_between(
        &self,
        (location, head): (Location, &Head),
        newer: Option<(Location, &Head)>,
    ) -> Option<Clear> {
        let commit = self.dated(location, head).unwrap_or(head.commit);
        let clear = self.clears.first_after(commit)?;
        // What herolib wrote on top of ours is newer than any clear before it, and older than any
        // after it.
        let newer = newer.map(|(location, head)| match self.dated(location, head) {
            Some(commit) => commit.saturating_add(1),
            None => head.commit,
        });
        newer
            .is_none_or(|newer| clear.commit < newer)
            .then_some(clear)
    }

    /// The commit at which a version that has none is known to have been there.
    fn dated(&self, location: Location, head: &Head) -> Option<u64> {
        if head.commit != 0 {
            return None;
        }
        let Location { file, position } = location;
        let after = |part: &TakenOver| (part.file, part.end) <= (file, position);
        let part = self.taken_over.get(self.taken_over.partition_point(after));
        let part = part.filter(|part| part.file == file);
        Some(part.map_or(self.base.commit, |part| part.commit))
    }

    /// Whether the erasure at `location` is of a record that was live, or that a clear after commit `since`
    /// has deleted. Nothing may be overwritten meanwhile.
    pub(super) fn was_live(&self, since: u64, location: Location, erasure: &Head) -> Result<bool> {
        let Head { id, previous, .. } = *erasure;
        if previous.is_none() {
            return Ok(false);
        }
        let head = self.log.segment_of(previous)?.head(previous, id)?;
        let had_value = matches!(head.kind, Kind::Put | Kind::Erased);
        let clear = self.clear_between((previous, &head), Some((location, erasure)));
        Ok(had_value && clear.is_none_or(|clear| clear.commit > since))
    }

    /// Whether there is a clear after commit `commit`.
    pub(crate) fn is_cleared_after(&self, commit: u64) -> bool {
        self.clears.first_after(commit).is_some()
    }

    /// The clears, ascending.
    pub(super) fn clears(&self) -> &Clears {
        &self.clears
    }

    /// Notes a clear. Under the writer lock.
    pub(super) fn add_clear(&self, clear: Clear) {
        self.clears.push(clear);
    }

    /// Its files are not the database's any more: they are removed with its last owner.
    pub(super) fn end(&self) {
        let _ = self.doomed.set(fork::generation());
    }

    /// The newest version of `id` at or before commit `at`, deletions included.
    pub(crate) fn version_at(
        &self,
        id: u32,
        entry: Entry,
        at: u64,
    ) -> Result<Option<(Location, Head)>> {
        let mut chain = Chain::new(self, id, entry);
        while let Some((location, head)) = chain.next()? {
            if head.commit <= at {
                return Ok(Some((location, head)));
            }
        }
        Ok(None)
    }

    /// As [`World::version_at`], unless that is a deletion.
    pub(crate) fn live_at(
        &self,
        id: u32,
        entry: Entry,
        at: u64,
    ) -> Result<Option<(Location, Head)>> {
        let version = self.version_at(id, entry, at)?;
        Ok(version.filter(|(_, head)| head.kind == Kind::Put))
    }

    /// See [`Segment::value`].
    ///
    /// [`Segment::value`]: crate::log::segment::Segment::value
    pub(crate) fn value(&self, location: Location, head: &Head) -> Result<Cow<'_, [u8]>> {
        self.log.segment_of(location)?.value(location, head)
    }

    /// As [`World::value`]; `None` if another process has erased it since its head was read.
    pub(crate) fn value_if_there(
        &self,
        location: Location,
        head: &Head,
    ) -> Result<Option<Cow<'_, [u8]>>> {
        match self.value(location, head) {
            Err(Error::NotFound(NotFound::Record(_))) => Ok(None),
            value => value.map(Some),
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if self.doomed.get() != Some(&fork::generation()) {
            return;
        }
        let storage = &*self.log.storage;
        for segment in self.log.segments() {
            // One that stays is removed by the next opening.
            let _ = remove_if_there(storage, &name(segment.number));
        }
        let _ = remove_if_there(storage, &base::name(self.log.generation));
        // Not synced: nobody would hear of a failure, after which the kernel may not try the names of
        // other files again either.
    }
}
