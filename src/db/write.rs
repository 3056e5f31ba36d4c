//! Writing: every change is a commit of one or more records, appended under the writer lock.

use super::deletions::Deletions;
use super::{Db, Shared, World};
use crate::bytes::{reserve, reserve_exact};
use crate::error::{Error, NotFound, Result};
use crate::herolib;
use crate::location::Location;
use crate::log::record::Kind;
use crate::log::recovery::Replayed;
use crate::log::segment::LogEnd;
use crate::log::tail::{NewRecord, Tail};
use crate::lookup::Entry;
use crate::lookup::checkpoint::Tally;
use crate::manifest::{Clear, MOST_CLEARS, Manifest, State};
use crate::options::Sync;
use crate::planted::planted;
use crate::sync::atomic::Ordering;
use crate::sync::this_thread;

/// Where many records are written, the processor is told to fetch the entry of the one that comes so
/// many later.
const IDS_AHEAD: usize = 8;

/// What belongs to the one who writes.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) tail: Tail,
    /// The manifest as it is on disk.
    pub(super) manifest: Manifest,
    /// The last commit, visible or not.
    pub(super) commit: u64,
    /// Its time. No later commit has an earlier one.
    pub(super) time_us: u64,
    /// The next commit made here is not before this: later than `time_us` where an attempt failed.
    pub(super) earliest_us: u64,
    /// The id that the next insert gets.
    pub(super) next_id: u64,
    /// Live records, visible or not.
    pub(super) live: u64,
    /// All versions.
    pub(super) tally: Tally,
    /// Of records that somebody may still see live.
    pub(super) deletions: Deletions,
    /// Whether a clean close has anything to write.
    pub(super) changed: bool,
    /// Whether the directory was prepared for changes, by this handle.
    pub(super) prepared: bool,
}

/// A commit's number and time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) commit: u64,
    pub(crate) time_us: u64,
}

/// The counters as of one commit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub(super) commit: u64,
    pub(super) time_us: u64,
    pub(super) live: u64,
    pub(super) next_id: u64,
    pub(super) end: Option<LogEnd>,
}

impl Writer {
    /// As of the last commit.
    pub(super) fn now(&self) -> Moment {
        Moment {
            commit: self.commit,
            time_us: self.time_us,
            live: self.live,
            next_id: self.next_id,
            end: self.tail.end(),
        }
    }
}

impl Shared {
    pub(super) fn check_writable(&self, action: &'static str) -> Result<()> {
        self.check_process()?;
        if self.read_only {
            return Err(Error::ReadOnly { action });
        }
        self.check_poison()
    }

    pub(super) fn check_incremental(&self, action: &'static str) -> Result<()> {
        if self.key_value {
            Err(Error::WrongMode { action })
        } else {
            Ok(())
        }
    }

    /// Whether a value may have so many bytes.
    pub(super) fn check_len(&self, len: u64) -> Result<()> {
        let limit = u64::from(self.limits.record_size_max);
        if len <= limit {
            return Ok(());
        }
        Err(Error::RecordTooLarge {
            what: "a value",
            len,
            limit,
            which: "record_size_max",
        })
    }

    /// An id to be given out, if there is one left.
    pub(super) fn id_from(&self, next: u64) -> Result<u32> {
        // That of a reader's that follows has grown with the writer's.
        let limit = self.read().lookup.limit();
        match u32::try_from(next) {
            Ok(id) if id < limit => Ok(id),
            _ => Err(Error::Full(
                format!("all ids below {limit} (record_nr_max) are given out").into(),
            )),
        }
    }

    /// Has the processor fetch the entry of an id that is going to be written. Before the writer lock
    /// is taken, and the [stamp](Shared::next_stamp), it is on its way while they are.
    #[inline]
    fn prefetch(&self, id: u32) {
        self.read().lookup.prefetch(id);
    }

    /// The stamp of a commit made now. Under the writer lock. To read the clock, the processor waits
    /// for all it is loading: so that comes before the entry of a record is looked at.
    #[inline]
    pub(super) fn next_stamp(&self, writer: &Writer) -> Result<Stamp> {
        let next = writer.commit.checked_add(1);
        Ok(Stamp {
            commit: next.ok_or_else(|| Error::Full("all commit numbers are used".into()))?,
            time_us: self.storage.now_us().max(writer.earliest_us),
        })
    }

    /// A record that puts a value under an id of the caller's. Under the writer lock.
    fn put<'a>(&self, world: &World, id: u32, value: &'a [u8]) -> Result<NewRecord<'a>> {
        world.check_id(id)?;
        self.check_len(value.len() as u64)?;
        let entry = world.lookup.get(id);
        if !self.key_value && !entry.is_live() {
            return Err(Error::IdNotAssigned { id });
        }
        Ok(NewRecord {
            kind: Kind::Put,
            id,
            previous: entry.location(),
            value,
        })
    }

    /// A record that deletes. Under the writer lock.
    fn deletion(&self, world: &World, id: u32) -> Result<NewRecord<'static>> {
        world.check_id(id)?;
        let entry = world.lookup.get(id);
        if !entry.is_live() {
            return Err(Error::NotFound(NotFound::Record(id)));
        }
        Ok(NewRecord {
            kind: Kind::Delete,
            id,
            previous: entry.location(),
            value: &[],
        })
    }

    /// Appends one commit, now. Returns its number; all else as [`Shared::append`].
    pub(super) fn append_now(&self, writer: &mut Writer, records: &[NewRecord<'_>]) -> Result<u64> {
        let stamp = self.next_stamp(writer)?;
        self.append(&self.read(), writer, records, stamp)?;
        Ok(stamp.commit)
    }

    /// Appends one commit: the [next](Shared::next_stamp), or one of another database, which comes
    /// after the last one here, with others left out in between or not. The ids of `records` are all
    /// different. Failing, it changes nothing that a reader or a later opening could see.
    pub(super) fn append(
        &self,
        world: &World,
        writer: &mut Writer,
        records: &[NewRecord<'_>],
        stamp: Stamp,
    ) -> Result<()> {
        let Stamp { commit, time_us } = stamp;
        // Another thread's failure may have come while we waited for the lock.
        self.check_poison()?;
        let len = records.iter().map(NewRecord::len).sum();
        let mut deletions = 0;
        for record in records {
            world.lookup.prepare(record.id).map_err(|error| {
                let path = self.storage.describe(crate::lookup::checkpoint::TABLE);
                Error::from_io("reserve space in", path, error)
            })?;
            deletions += usize::from(record.kind != Kind::Put);
        }
        if deletions > 0 {
            writer.deletions.reserve(deletions)?;
            // It is alone in its commit.
            if records.first().is_some_and(|one| one.kind == Kind::Clear) {
                world.clears().reserve(1)?;
            }
        }
        if records.len() > 1 {
            writer.tail.reserve_memory(len)?;
        }
        self.prepare(writer)?;
        if let Some(work) = writer.tail.take_overdue_sync_work() {
            work.run(&world.log)
                .map_err(|error| self.sync_failed(writer, error))?;
        }
        let skips = Some(commit) != writer.commit.checked_add(1);
        let reserved = writer.tail.reserve(&world.log, len, writer.commit + 1);
        reserved.map_err(|error| match error {
            // Somebody has cut the log off.
            Error::Corrupt { .. } => self.poison_with(error),
            error => error,
        })?;
        // Another attempt after a failed one must have another time, see `Tail`.
        writer.earliest_us = writer.earliest_us.max(time_us.saturating_add(1));
        let first = writer
            .tail
            .append(&world.log, commit, skips, time_us, records);
        let first = first.map_err(|(error, intact)| {
            if intact || planted!(failed_write_forgotten) {
                error
            } else {
                self.poison_with(error)
            }
        })?;
        if self.compactor.load(Ordering::Relaxed) != 0 {
            self.note_compactors(len);
        }
        writer.time_us = time_us;
        writer.earliest_us = time_us;
        writer.commit = commit;
        if !planted!(published_before_announced) {
            self.counters.appended.store(commit, Ordering::Release);
        }
        let mut position = u64::from(first.position);
        for record in records {
            let location = Location {
                file: first.file,
                position: position as u32,
            };
            position += record.len();
            let version = Replayed {
                kind: record.kind,
                id: record.id,
                location,
                len: record.value.len() as u32,
                commit,
                time_us,
                previous: record.previous,
            };
            self.take_in(world, writer, &version);
        }
        if self.sync != Sync::Commit || planted!(visible_before_synced) {
            let now = writer.now();
            self.make_visible(writer, now);
        }
        Ok(())
    }

    /// Publishes a version that is in the log. `appended` announces it already.
    pub(super) fn take_in(&self, world: &World, writer: &mut Writer, version: &Replayed) {
        let Replayed {
            kind,
            id,
            location,
            len,
            commit,
            time_us,
            ..
        } = *version;
        writer.tally.count(kind);
        if kind == Kind::Empty {
            return;
        }
        if kind == Kind::Clear {
            self.clear(world, writer, Clear { commit, time_us });
            return;
        }
        let before = world.lookup.get(id);
        let entry = Entry::of(kind, location, len);
        world.lookup.publish(id, entry);
        writer.next_id = writer.next_id.max(u64::from(id) + 1);
        writer.live += u64::from(entry.is_live());
        writer.live -= u64::from(before.is_live());
        // Also over another one, which then is not the newest version any more.
        if before.is_known() && !entry.is_live() {
            writer.deletions.add(commit, id, location);
        }
    }

    /// Lets readers see everything up to the commit of `moment`.
    // Inlined, so that the numbers which were just stored come out of registers: read from memory two at
    // a time, they would have to have got there first.
    #[inline(always)]
    pub(super) fn make_visible(&self, writer: &mut Writer, moment: Moment) {
        self.counters.show(&moment);
        if !writer.deletions.is_empty() {
            self.deletions_seen(writer, moment.commit);
        }
    }

    /// Has searches not meet records any more whose deletion is seen, now that readers see everything up
    /// to commit `visible`.
    fn deletions_seen(&self, writer: &mut Writer, visible: u64) {
        // Whoever opens a snapshot from here on sees this moment.
        let oldest = self.snapshots.oldest();
        writer.deletions.seen(&self.read().lookup, visible, oldest);
    }

    /// Deletes every record in the lookup. Under the writer lock.
    fn clear(&self, world: &World, writer: &mut Writer, clear: Clear) {
        // In this order: who finds a record deleted finds out by what.
        world.add_clear(clear);
        world.lookup.clear();
        writer.live = 0;
        writer.deletions.add_clear(clear.commit);
    }

    /// Before the first change: says in the manifest that lengths and checkpoint are not exact any
    /// more, and removes the herolib dump, ours or not, which stands for a state that will be past.
    /// A backup is one no longer: what is going to be written is not in its source.
    #[inline]
    pub(super) fn prepare(&self, writer: &mut Writer) -> Result<()> {
        if writer.prepared {
            return Ok(());
        }
        self.leave_clean_state(writer)
            .map_err(|error| self.poison_if_unsynced(error))
    }

    /// Replaces the manifest by a changed one. A failed sync poisons.
    pub(super) fn write_manifest(
        &self,
        writer: &mut Writer,
        change: impl FnOnce(&mut Manifest),
    ) -> Result<()> {
        let mut manifest = writer.manifest.try_clone()?;
        change(&mut manifest);
        if !self.volatile {
            let written = manifest.write(&*self.storage);
            written.map_err(|error| self.poison_if_unsynced(error))?;
        }
        writer.manifest = manifest;
        Ok(())
    }

    fn leave_clean_state(&self, writer: &mut Writer) -> Result<()> {
        writer.changed = true;
        if !self.volatile {
            // Also where it says so already: what was read at opening may be a name whose sync has
            // failed, and what is written from here on builds upon it.
            if !planted!(manifest_stays_clean) || writer.manifest.backup {
                self.write_manifest(writer, |manifest| {
                    if manifest.state == State::Clean {
                        manifest.state = State::Open;
                    }
                    manifest.dump = None;
                    manifest.backup = false;
                })?;
            }
            herolib::remove_dump(&*self.storage)?;
        }
        writer.prepared = true;
        Ok(())
    }

    /// Whom a compaction tells of its progress may write, and the compaction stands still meanwhile.
    #[cold]
    fn note_compactors(&self, bytes: u64) {
        if self.compactor.load(Ordering::Relaxed) == this_thread() {
            self.compactor_wrote.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// After a failure to replace a file: if it was a sync that failed, nothing more is written.
    pub(super) fn poison_if_unsynced(&self, error: Error) -> Error {
        if error.is_failed_sync() {
            self.poison_with(error)
        } else {
            error
        }
    }

    /// After the writer lock is given back: waits until a commit is as durable as asked.
    pub(super) fn finish(&self, commit: u64) -> Result<()> {
        match self.sync {
            Sync::Commit if planted!(acknowledged_before_synced) => Ok(()),
            Sync::Commit => self.sync_to(commit),
            Sync::Os | Sync::Interval(_) => Ok(()),
        }
    }

    /// Gives an answer that makes no commit, after all locks are given back. What it rests on is `commit`,
    /// which may be another thread's that is not as durable yet as asked, nor seen by readers.
    #[cold]
    pub(super) fn answer<T>(&self, commit: u64, answer: Result<T>) -> Result<T> {
        // A value that is too long is that whatever there is.
        if !matches!(answer, Err(Error::RecordTooLarge { .. })) {
            self.finish(commit)?;
        }
        answer
    }
}

impl Db {
    /// Stores a value under the next id, which it returns.
    pub fn insert(&self, value: &[u8]) -> Result<u32> {
        let shared = &*self.shared;
        shared.check_writable("insert")?;
        shared.check_incremental("insert")?;
        shared.check_len(value.len() as u64)?;
        let (id, commit) = {
            let mut writer = shared.writer_to_commit();
            let id = shared.id_from(writer.next_id)?;
            let record = NewRecord {
                kind: Kind::Put,
                id,
                previous: Location::NONE,
                value,
            };
            (id, shared.append_now(&mut writer, &[record])?)
        };
        shared.finish(commit)?;
        Ok(id)
    }

    /// Stores a value under an id. In an incremental database the id must hold a live record.
    pub fn set(&self, id: u32, value: &[u8]) -> Result<()> {
        let shared = &*self.shared;
        shared.check_writable("set")?;
        self.change(id, |world| shared.put(world, id, value))
    }

    /// Deletes a record. Its versions stay; the deletion is one more.
    pub fn delete(&self, id: u32) -> Result<()> {
        let shared = &*self.shared;
        shared.check_writable("delete")?;
        self.change(id, |world| shared.deletion(world, id))
    }

    /// A commit of the record of `id` that `record` makes.
    fn change<'a>(
        &self,
        id: u32,
        record: impl FnOnce(&World) -> Result<NewRecord<'a>>,
    ) -> Result<()> {
        let shared = &*self.shared;
        shared.prefetch(id);
        let commit = {
            let mut writer = shared.writer_to_commit();
            let stamp = shared.next_stamp(&writer)?;
            let world = shared.read();
            let record = match record(&world) {
                Ok(record) => record,
                Err(error) => {
                    let last = writer.commit;
                    drop((world, writer));
                    return shared.answer(last, Err(error));
                }
            };
            shared.append(&world, &mut writer, &[record], stamp)?;
            stamp.commit
        };
        shared.finish(commit)
    }

    /// Deletes every record, in one commit. Their versions stay, and their ids are not given out
    /// again. Writes one record, however many there are, and walks once over those that are live.
    pub fn clear(&self) -> Result<()> {
        let shared = &*self.shared;
        shared.check_writable("clear")?;
        let commit = {
            let mut writer = shared.writer_to_commit();
            if writer.live == 0 {
                let last = writer.commit;
                drop(writer);
                return shared.answer(last, Ok(()));
            }
            if shared.read().clears().len() >= MOST_CLEARS {
                let world = shared.world.load();
                let mut records = Vec::new();
                reserve_exact(&mut records, writer.live as usize)?;
                for (id, _) in world.lookup.entries().filter(|(_, entry)| entry.is_live()) {
                    records.push(shared.deletion(&world, id)?);
                }
                shared.append_now(&mut writer, &records)?
            } else {
                shared.append_now(&mut writer, &[NewRecord::CLEAR])?
            }
        };
        shared.finish(commit)
    }

    /// Stores values under the next ids, in one commit: all or nothing.
    pub fn insert_many(&self, values: &[&[u8]]) -> Result<Vec<u32>> {
        let shared = &*self.shared;
        shared.check_process()?;
        if values.is_empty() {
            return Ok(Vec::new());
        }
        shared.check_writable("insert")?;
        shared.check_incremental("insert")?;
        for value in values {
            shared.check_len(value.len() as u64)?;
        }
        let mut records = Vec::new();
        reserve_exact(&mut records, values.len())?;
        let mut ids = Vec::new();
        reserve_exact(&mut ids, values.len())?;
        let commit = {
            let mut writer = shared.writer_to_commit();
            let first = shared.id_from(writer.next_id)?;
            shared.id_from(u64::from(first) + values.len() as u64 - 1)?;
            for (value, id) in values.iter().zip(first..) {
                records.push(NewRecord {
                    kind: Kind::Put,
                    id,
                    previous: Location::NONE,
                    value,
                });
                ids.push(id);
            }
            shared.append_now(&mut writer, &records)?
        };
        shared.finish(commit)?;
        Ok(ids)
    }

    /// Stores many values in one commit: all or nothing. Of an id that comes twice the last value
    /// counts, and makes one version.
    pub fn set_many(&self, records: &[(u32, &[u8])]) -> Result<()> {
        let ids = records.iter().map(|&(id, _)| id);
        self.change_many("set", ids, |world, index, _| {
            let (id, value) = records[index];
            self.shared.put(world, id, value)
        })
    }

    /// Deletes many records in one commit: all or nothing. If one of them isn't there, it is
    /// [`Error::NotFound`]; one that comes twice is deleted once.
    pub fn delete_many(&self, ids: &[u32]) -> Result<()> {
        self.change_many("delete", ids.iter().copied(), |world, _, id| {
            self.shared.deletion(world, id)
        })
    }

    /// One commit out of what `record` makes of each place in `ids`. All places are checked; of
    /// an id that comes more than once the last place is written.
    fn change_many<'a>(
        &self,
        action: &'static str,
        ids: impl ExactSizeIterator<Item = u32> + Clone,
        record: impl Fn(&World, usize, u32) -> Result<NewRecord<'a>>,
    ) -> Result<()> {
        let shared = &*self.shared;
        shared.check_process()?;
        if ids.len() == 0 {
            return Ok(());
        }
        shared.check_writable(action)?;
        let mut records: Vec<NewRecord<'a>> = Vec::new();
        reserve_exact(&mut records, ids.len())?;
        let commit = {
            let mut writer = shared.writer_to_commit();
            let world = shared.read();
            let mut ascending = true;
            let mut ahead = ids.clone().skip(IDS_AHEAD);
            for (index, id) in ids.enumerate() {
                if let Some(id) = ahead.next() {
                    world.lookup.prefetch(id);
                }
                ascending &= records.last().is_none_or(|last| last.id < id);
                match record(&world, index, id) {
                    Ok(record) => records.push(record),
                    Err(error) => {
                        let last = writer.commit;
                        drop((world, writer));
                        return shared.answer(last, Err(error));
                    }
                }
            }
            if !ascending {
                keep_last_of_each_id(&mut records)?;
            }
            let stamp = shared.next_stamp(&writer)?;
            shared.append(&world, &mut writer, &records, stamp)?;
            stamp.commit
        };
        shared.finish(commit)
    }
}

/// Of records with the same id only the last one stays, in the order of the last ones.
fn keep_last_of_each_id(records: &mut Vec<NewRecord<'_>>) -> Result<()> {
    let mut places = Vec::new();
    reserve_exact(&mut places, records.len())?;
    places.extend((records.iter().enumerate()).map(|(index, record)| (record.id, index)));
    places.sort_unstable();
    let mut dropped = Vec::new();
    for pair in places.windows(2) {
        if pair[0].0 == pair[1].0 {
            reserve(&mut dropped, 1)?;
            dropped.push(pair[0].1);
        }
    }
    dropped.sort_unstable();
    let mut dropped = dropped.into_iter().peekable();
    let mut index = 0;
    records.retain(|_| {
        index += 1;
        dropped.next_if_eq(&(index - 1)).is_none()
    });
    Ok(())
}
