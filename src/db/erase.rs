//! Erasure: a record and all its versions are made unreadable, and their bytes overwritten.
//!
//! A record of its own in the log ends the chain of versions, for every reader, whatever moment it
//! looks at. When it is on disk, and nobody reads any more who found the way to an older version
//! before, the versions are overwritten in place, under a journal that the next opening finishes
//! should this one not. From the record in the log on there is no way back: a failure stops all
//! writing, so that no checkpoint can hide the record from the recovery that goes on with it.

use std::collections::HashMap;
use std::sync::Arc;

use super::erasures::{NoErasure, Turn, within_a_read};
use super::{Db, Shared, World};
use crate::bytes::reserve;
use crate::error::{Error, NotFound, Result};
use crate::hash::FixedHasher;
use crate::history::Circle;
use crate::location::Location;
use crate::log::erasure::{self, Journal, Target};
use crate::log::record::Kind;
use crate::log::tail::NewRecord;
use crate::lookup::Entry;
use crate::lookup::checkpoint::INDEX;
use crate::manifest::{Manifest, State};
use crate::planted::planted;
use crate::storage::{Storage, grace, remove_if_there};
use crate::sync::PoisonError;
use crate::sync::atomic::Ordering;

/// So many versions are in a journal at most, 52 bytes for each: after a crash it is read as a whole.
const MOST_JOURNALED: usize = 1 << 16;

/// An erasure that is in the log and not finished. Left so, it stops all writing.
struct Unfinished<'a>(&'a Shared);

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if planted!(unfinished_erasure_forgotten) {
            return;
        }
        self.0
            .poison("an erasure was not finished; the next opening does it");
    }
}

/// Whether the versions to be erased end before the one at a place, of that kind.
type IsEnd = fn(Location, Kind) -> bool;

/// The oldest and the newest of a record's versions that tell, in a part of the log, that what was before
/// them is erased.
pub(super) struct Erasing {
    pub(super) oldest: Location,
    pub(super) newest: Location,
}

/// What erasures make unreadable, and what is to be overwritten then.
pub(super) struct Unreadable {
    /// The world at that time, and those before it. Their files are there as long as they are.
    world: Arc<World>,
    replaced: Vec<Arc<World>>,
    /// What is to be overwritten in the files of the one and of the others.
    targets: Vec<Target>,
    replaced_targets: Vec<Target>,
    /// Which records are erased, and by which commits.
    erased: Vec<(u32, u64)>,
    /// `None`: where there are no files there is no crash either.
    journal: Option<Journal>,
}

impl Unreadable {
    /// Adds the versions of a record that another one, which that commit is going to append, says are
    /// erased; nothing, if they are already.
    pub(super) fn add(&mut self, record: &NewRecord<'_>, commit: u64) -> Result<()> {
        let NewRecord { kind, id, .. } = *record;
        // What was before an erased value is erased already. What was before an erasure is looked at again:
        // a copy that a reader made beside it need not have all of it overwritten.
        let is_end: IsEnd = match kind {
            Kind::Erase => is_erasure,
            _ => |_, kind| kind.ends_chain(),
        };
        reserve(&mut self.erased, 1)?;
        let newest = record.previous;
        let found = add_targets(&self.world, id, newest, is_end, &mut self.targets)?;
        if self.add_replaced(id, is_end)? || found {
            self.erased.push((id, commit));
        }
        self.reserve_journal()
    }

    /// Adds all versions of a record that is to be erased; the newest one. None, where a compaction has
    /// dropped the record and a snapshot that is still open reads it.
    fn add_whole(&mut self, id: u32) -> Result<Location> {
        let newest = self.world.lookup.get(id).location();
        if !newest.is_none() {
            let head = self.world.log.segment_of(newest)?.head(newest, id)?;
            if head.kind == Kind::Erase {
                return Err(Error::NotFound(NotFound::Record(id)));
            }
            add_targets(&self.world, id, newest, is_erasure, &mut self.targets)?;
        }
        self.add_replaced(id, is_erasure)?;
        if newest.is_none() && self.replaced_targets.is_empty() {
            return Err(Error::NotFound(NotFound::History(id)));
        }
        Ok(newest)
    }

    /// Adds those that have come on top of the one that was the newest; the newest one now. There are none
    /// in the worlds before.
    fn add_newer(&mut self, id: u32, known: Location, storage: &dyn Storage) -> Result<Location> {
        let newest = self.world.lookup.get(id).location();
        let before = self.targets.len();
        let is_known = |location, _| location == known;
        add_targets(&self.world, id, newest, is_known, &mut self.targets)?;
        erasure::check_writable(storage, &self.targets[before..])?;
        Ok(newest)
    }

    fn add_replaced(&mut self, id: u32, is_end: IsEnd) -> Result<bool> {
        let mut found = false;
        for world in &self.replaced {
            let newest = world.lookup.get(id).location();
            found |= add_targets(world, id, newest, is_end, &mut self.replaced_targets)?;
        }
        Ok(found)
    }

    /// Whether nothing is erased.
    pub(super) fn is_empty(&self) -> bool {
        self.erased.is_empty()
    }

    /// Which records are erased, and by which commits, beyond those when it had this length.
    pub(super) fn erased_since(&self, (_, _, erased): (usize, usize, usize)) -> &[(u32, u64)] {
        &self.erased[erased..]
    }

    /// How much is to be overwritten, in the world of now and in those before, and of how many records.
    pub(super) fn len(&self) -> (usize, usize, usize) {
        let targets = (self.targets.len(), self.replaced_targets.len());
        (targets.0, targets.1, self.erased.len())
    }

    /// Leaves what was there when it had this length.
    pub(super) fn truncate(&mut self, (targets, replaced, erased): (usize, usize, usize)) {
        self.targets.truncate(targets);
        self.replaced_targets.truncate(replaced);
        self.erased.truncate(erased);
    }

    fn reserve_journal(&mut self) -> Result<()> {
        match &mut self.journal {
            Some(journal) => journal.reserve(self.targets.len().min(MOST_JOURNALED)),
            None => Ok(()),
        }
    }

    fn sort(&mut self) {
        sort(&mut self.targets);
        sort(&mut self.replaced_targets);
    }
}

impl Db {
    /// Waits for the erasure that is under way, and has others wait.
    pub(crate) fn without_erasures(&self) -> Result<NoErasure<'_>> {
        self.shared.check_process()?;
        // It may be this read that it waits for.
        match grace::is_reading() {
            true => Err(within_a_read()),
            false => self.shared.erasures.none(),
        }
    }

    /// As [`Db::without_erasures`], for who may take long.
    pub(crate) fn without_erasures_for_long(&self) -> Result<NoErasure<'_>> {
        self.shared.check_process()?;
        self.shared.erasures.none_for_long()
    }

    /// Erases a record: it and all its versions become unreadable at once, for snapshots and scans
    /// that are open, too, and their bytes are overwritten with zeros in every data file before
    /// this returns. What remains is the erasure, a version of [`State::Erased`], and of each
    /// older version, until the next compaction, its head: id, commit, time, length. The id can be
    /// set again in a key-value database; an incremental one doesn't give it out again.
    ///
    /// The record is live, deleted or cleared. [`NotFound::History`] if the id never held one,
    /// [`NotFound::Record`] if it is erased already.
    ///
    /// Once this has returned, a crash or a loss of power doesn't bring anything back, whatever
    /// the sync mode. After a crash before that, the record is erased, or it is as it was. If
    /// overwriting fails the handle stops writing, as after a failed sync, and the next opening for
    /// writing finishes it. Bytes in `torn-*` files and in copies made elsewhere stay.
    ///
    /// It waits for reads that began before and for backups that are being made, and is refused with
    /// [`Error::Busy`] within one: in the closure of a `get_with`, of any database, and in that of a
    /// [`Db::backup`] of this one. Backups that begin meanwhile wait for it. Where a compaction is at its
    /// end, it waits for that too.
    ///
    /// Cost: reads the heads of all versions, with 50 to 150 bytes of memory for each; six syncs and one
    /// per data file that they lie in, and beside a compaction one of what that has copied since its last
    /// one.
    ///
    /// [`State::Erased`]: crate::State::Erased
    pub fn erase(&self, id: u32) -> Result<()> {
        let shared = &*self.shared;
        shared.check_writable("erase")?;
        shared.check_id(id)?;
        let _turn = shared.turn_to_erase()?;
        // The erasure before this one may have failed.
        shared.check_poison()?;
        let (commit, unreadable) = shared.begin_erasure(id)?;
        shared.finish_erasing(commit, unreadable)
    }
}

impl Shared {
    /// Makes a record unreadable. All that can be wrong with it comes first.
    fn begin_erasure(&self, id: u32) -> Result<(u64, Unreadable)> {
        loop {
            // Without the writer lock, for a long history takes its time.
            let mut unreadable = self.unreadable();
            let known = unreadable.add_whole(id)?;
            unreadable.sort();
            let storage = &*self.storage;
            erasure::check_writable(storage, &unreadable.targets)?;
            erasure::check_writable(storage, &unreadable.replaced_targets)?;
            let mut writer = self.writer();
            // A compaction that has ended meanwhile has made it another one.
            if !Arc::ptr_eq(&unreadable.world, &self.world.load()) {
                continue;
            }
            let newest = unreadable.add_newer(id, known, storage)?;
            reserve(&mut unreadable.erased, 1)?;
            unreadable.reserve_journal()?;
            let record = NewRecord {
                kind: Kind::Erase,
                id,
                previous: newest,
                value: &[],
            };
            let commit = self.append_now(&mut writer, &[record])?;
            unreadable.erased.push((id, commit));
            self.hide_erased(id, commit, &unreadable);
            return Ok((commit, unreadable));
        }
    }

    /// Waits until nobody else erases; refused where this would wait for itself.
    pub(super) fn turn_to_erase(&self) -> Result<Turn<'_>> {
        if grace::is_reading() {
            return Err(within_a_read());
        }
        self.erasures.turn()
    }

    /// Nothing as yet. Who hasn't the writer lock sees under it that the world is the same.
    pub(super) fn unreadable(&self) -> Unreadable {
        Unreadable {
            world: self.world.load(),
            replaced: self.erasures.replaced_worlds(),
            targets: Vec::new(),
            replaced_targets: Vec::new(),
            erased: Vec::new(),
            journal: self.journal(),
        }
    }

    fn journal(&self) -> Option<Journal> {
        (!self.volatile && !planted!(erased_without_journal)).then(Journal::default)
    }

    /// A record's erasure is in the log: hides it in the worlds before as well. Under the writer lock.
    pub(super) fn hide_erased(&self, id: u32, commit: u64, unreadable: &Unreadable) {
        for world in &unreadable.replaced {
            // One that never knew the record may be a table on disk without space for its entry, where a
            // store on a full disk is a signal.
            if world.lookup.get(id).is_known() {
                world.lookup.publish(id, Entry::NONE);
            }
        }
        self.erasures.add(commit);
    }

    /// Overwrites what erasures up to `commit` have made unreadable. In their turn.
    pub(super) fn finish_erasing(&self, commit: u64, mut unreadable: Unreadable) -> Result<()> {
        let unfinished = Unfinished(self);
        unreadable.sort();
        let Unreadable {
            world,
            replaced,
            targets,
            replaced_targets,
            erased,
            journal,
        } = unreadable;
        let synced = match planted!(overwritten_before_erasure_synced) {
            true => Ok(()),
            false => self.sync_to(commit),
        };
        synced
            .and_then(|()| self.overwrite(&world, &targets, &replaced_targets, journal))
            .and_then(|()| {
                let failed = |error| self.poison_with(error);
                self.copies.erase(&erased, failed)
            })
            .map_err(|error| self.erasure_failed(error))?;
        std::mem::forget(unfinished);
        drop(replaced);
        Ok(())
    }

    /// Overwrites versions that no lookup leads to any more, and whose erasure is on disk: those
    /// of a world, and of worlds that were replaced, whose files no opening reads again.
    fn overwrite(
        &self,
        world: &World,
        targets: &[Target],
        replaced: &[Target],
        mut journal: Option<Journal>,
    ) -> Result<()> {
        let storage = &*self.storage;
        let log = &world.log;
        if !grace::wait() {
            return Err(within_a_read());
        }
        let alone = |overwrite: &mut dyn FnMut() -> Result<()>| {
            let overwriting = self.erasures.overwriting.write();
            let _overwriting = overwriting.unwrap_or_else(PoisonError::into_inner);
            let done = overwrite();
            self.erasures.overwritten.fetch_add(1, Ordering::Release);
            done
        };
        let mut replaced = Some(replaced);
        // What is in no journal yet the record in the log has the next opening do.
        for targets in targets.chunks(MOST_JOURNALED) {
            if let Some(journal) = &mut journal {
                journal.write(storage, &log.uuid, log.generation, targets)?;
            }
            if journal.is_some() && planted!(journal_removed_before_overwritten) {
                erasure::remove_journal(storage)?;
            }
            // Where there is a journal, readers in other processes look again.
            if let Some(replaced) = replaced.take() {
                erasure::overwrite(storage, replaced, alone)?;
            }
            erasure::overwrite(storage, targets, alone)?;
            if journal.is_some() {
                erasure::remove_journal(storage)?;
            }
        }
        erasure::overwrite(storage, replaced.unwrap_or_default(), alone)
    }

    fn erasure_failed(&self, error: Error) -> Error {
        match error.is_failed_sync() {
            _ if planted!(unfinished_erasure_forgotten) => error,
            true => self.sync_failed(&mut self.writer(), error),
            false => self.poison_with(error),
        }
    }

    /// After a crash: finishes the erasures that the part of the log that was replayed tells of. Nobody
    /// reads yet.
    pub(super) fn finish_erasures(
        &self,
        erasures: &HashMap<u32, Erasing, FixedHasher>,
    ) -> Result<()> {
        let world = self.world.load();
        let mut targets = Vec::new();
        for (&id, &Erasing { oldest, newest }) in erasures {
            // Down to the erasure before all of them. An erased version on the way doesn't say that those
            // before it are overwritten: that isn't done in the order of the chain.
            let mut is_past = false;
            let is_end = |location, kind| {
                let is_end = is_past && kind == Kind::Erase;
                is_past |= location == oldest;
                is_end
            };
            add_targets(&world, id, newest, is_end, &mut targets)?;
        }
        if targets.is_empty() || planted!(recovered_erasures_not_finished) {
            return Ok(());
        }
        sort(&mut targets);
        let mut writer = self.writer();
        // All of a backup is on disk, and this doesn't make it anything else.
        if writer.manifest.backup {
            self.give_up_earlier_backup(&writer.manifest, &targets)?;
            drop(writer);
        } else {
            self.prepare(&mut writer)?;
            drop(writer);
            // Also where all is known to be on disk: its mark says so to readers, who would take what is
            // overwritten for the end of the log.
            self.sync_log()
                .map_err(|error| self.erasure_failed(error))?;
        }
        self.overwrite(&world, &targets, &[], self.journal())
            .map_err(|error| self.erasure_failed(error))
    }

    /// Before something is overwritten in a backup that is not done: until it is, who opens it sees the
    /// earlier one.
    fn give_up_earlier_backup(&self, manifest: &Manifest, targets: &[Target]) -> Result<()> {
        let storage = &*self.storage;
        // What is overwritten is live in its checkpoint. Gone for good with the journal's name, which is
        // synced.
        if !planted!(overwritten_stays_live_in_backup) {
            remove_if_there(storage, INDEX)
                .map_err(|error| Error::from_io("remove", storage.describe(INDEX), error))?;
        }
        if !targets.iter().any(Target::is_herolibs) || planted!(overwritten_read_in_backup) {
            return Ok(());
        }
        // A record of herolib's doesn't tell that it is erased, and would be read as zeros.
        let unfinished = Manifest {
            state: State::Unfinished,
            ..manifest.try_clone()?
        };
        unfinished.write(storage)
    }
}

fn is_erasure(_: Location, kind: Kind) -> bool {
    kind == Kind::Erase
}

/// Puts them in the order of their places, each once.
fn sort(targets: &mut Vec<Target>) {
    targets.sort_unstable_by_key(Target::place);
    targets.dedup_by_key(|target| target.place());
}

/// Adds the versions from `newest` on that hold something of a value, down to where they end, some more
/// than once where they lead in a circle; whether there is a value among them.
fn add_targets(
    world: &World,
    id: u32,
    newest: Location,
    mut is_end: impl FnMut(Location, Kind) -> bool,
    targets: &mut Vec<Target>,
) -> Result<bool> {
    let mut found = false;
    // What herolib wrote may do that.
    let mut circle = Circle::new();
    let mut next = newest;
    while !next.is_none() && !circle.is_closed_at(next) {
        let segment = world.log.segment_of(next)?;
        let head = segment.head(next, id)?;
        if is_end(next, head.kind) {
            break;
        }
        found |= head.kind == Kind::Put;
        reserve(targets, 1)?;
        targets.extend(Target::of(segment, next, &head)?);
        next = head.previous;
    }
    Ok(found)
}
