//! Transactions: a snapshot, the writes on top of it, and what was read.
//!
//! Writes gather in memory, and are appended as one commit under the writer lock, if nothing that
//! was read has been changed by a commit after the snapshot (optimistic concurrency control with
//! backward validation: Kung and Robinson, "On Optimistic Methods for Concurrency Control", 1981).
//! What was changed since is found where it stands anyway: in the log, from the snapshot on.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::overlay::{Overlay, boxed};
use super::reads::{Reads, Since};
use super::scan::{Order, Scan};
use super::snapshot::Snapshot;
use super::{Db, Shared};
use crate::bytes::reserve_exact;
use crate::error::{Error, Neighbour, NotFound, Result};
use crate::log::record::{HEAD, Kind};
use crate::log::tail::NewRecord;
use crate::planted::planted;

/// A transaction, or a snapshot: a transaction that only reads.
///
/// It sees the database as of the moment at which it began, and its own writes. It may go from
/// thread to thread, and is used by one at a time. Dropping it is aborting it.
#[derive(Debug)]
pub struct Txn {
    /// `None`: it only reads. Dropped before the snapshot, with which the lock may go: files of earlier
    /// generations may go with it.
    work: Option<Work>,
    snapshot: Arc<Snapshot>,
}

/// What a transaction that writes keeps.
#[derive(Debug)]
struct Work {
    overlay: Overlay,
    /// Ids of the writes that need a live record to be there still, and no more of it.
    replaces: BTreeSet<u32>,
    /// Scans note here what they read.
    reads: Arc<Mutex<Reads>>,
    /// What is committed from here on may conflict with them.
    since: Since,
}

impl Work {
    fn reads(&self) -> MutexGuard<'_, Reads> {
        self.reads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Db {
    /// Begins a transaction.
    pub fn begin(&self) -> Result<Txn> {
        self.shared.check_writable("begin")?;
        let (snapshot, since) = Snapshot::now_and_since(&self.shared)?;
        Ok(Txn {
            work: Some(Work {
                overlay: Overlay::default(),
                replaces: BTreeSet::new(),
                reads: Arc::default(),
                since,
            }),
            snapshot: Arc::new(snapshot),
        })
    }

    /// The present, for reading as long as it is kept. Costs next to nothing; a compaction gives
    /// back disk space only when the snapshots of before it are gone.
    pub fn snapshot(&self) -> Result<Txn> {
        Ok(Txn {
            snapshot: Arc::new(Snapshot::now(&self.shared)?),
            work: None,
        })
    }

    /// The database as of a commit. [`NotFound::Commit`] if there is no such commit, or a compaction
    /// has dropped versions of its time.
    pub fn snapshot_at(&self, commit: u64) -> Result<Txn> {
        Ok(Txn {
            snapshot: Arc::new(Snapshot::past(&self.shared, commit)?),
            work: None,
        })
    }
}

impl Txn {
    fn shared(&self) -> &Shared {
        &self.snapshot.shared
    }

    /// What it is going to write, if it writes, and on top of what.
    fn writable(&mut self, action: &'static str) -> Result<(&mut Work, &Snapshot)> {
        self.snapshot.shared.check_writable(action)?;
        let work = self.work.as_mut().ok_or(Error::ReadOnly { action })?;
        Ok((work, &self.snapshot))
    }

    fn write(&mut self, action: &'static str, id: u32, value: Option<Box<[u8]>>) -> Result<()> {
        let (work, snapshot) = self.writable(action)?;
        work.overlay.write(snapshot, id, value)
    }

    /// Whether it only reads.
    pub fn is_read_only(&self) -> bool {
        self.work.is_none()
    }

    /// The last commit that it sees.
    pub fn at(&self) -> u64 {
        self.snapshot.at
    }

    /// Its own write to a record, if there is one: `Some(None)` is a deletion.
    fn own(&self, id: u32) -> Option<Option<&[u8]>> {
        self.work.as_ref()?.overlay.get(id)
    }

    fn note(&self, id: u32, found: bool) -> Result<()> {
        match &self.work {
            Some(work) => work.reads().point(id, found),
            None => Ok(()),
        }
    }

    /// Calls `f` with the value of a record.
    pub fn get_with<R>(&self, id: u32, f: impl FnOnce(&[u8]) -> R) -> Result<R> {
        self.shared().check_process()?;
        self.shared().check_id(id)?;
        let found = match self.own(id) {
            Some(own) => own.map(f),
            None => {
                let found = self.snapshot.get_with(id, f)?;
                self.note(id, found.is_some())?;
                found
            }
        };
        found.ok_or(Error::NotFound(NotFound::Record(id)))
    }

    /// The value of a record.
    pub fn get(&self, id: u32) -> Result<Vec<u8>> {
        self.get_with(id, <[u8]>::to_vec)
    }

    /// Whether a record is there. Past the limit of ids none is.
    pub fn contains(&self, id: u32) -> Result<bool> {
        self.shared().check_process()?;
        if let Some(own) = self.own(id) {
            return Ok(own.is_some());
        }
        let found = self.snapshot.contains(id)?;
        self.note(id, found)?;
        Ok(found)
    }

    /// Puts a value under the next id. The id is this transaction's from now on, whether it commits
    /// or not.
    pub fn insert(&mut self, value: &[u8]) -> Result<u32> {
        let (work, snapshot) = self.writable("insert")?;
        let shared = &snapshot.shared;
        shared.check_incremental("insert")?;
        shared.check_len(value.len() as u64)?;
        let value = boxed(value)?;
        // Before the id is taken, which stays so.
        work.overlay.unshare()?;
        let id = shared.take_id()?;
        work.overlay.write(snapshot, id, Some(value))?;
        Ok(id)
    }

    /// Puts a value under an id. In an incremental database the id must hold a live record.
    pub fn set(&mut self, id: u32, value: &[u8]) -> Result<()> {
        self.writable("set")?;
        self.shared().check_id(id)?;
        self.shared().check_len(value.len() as u64)?;
        if !self.shared().key_value && !self.replaces(id)? {
            return Err(Error::IdNotAssigned { id });
        }
        let value = boxed(value)?;
        self.write("set", id, Some(value))
    }

    /// Deletes a record.
    pub fn delete(&mut self, id: u32) -> Result<()> {
        self.writable("delete")?;
        self.shared().check_id(id)?;
        if !self.replaces(id)? {
            return Err(Error::NotFound(NotFound::Record(id)));
        }
        // Also if it was this transaction that put it there: somebody else may have done so, too.
        self.write("delete", id, None)
    }

    /// Whether a record is there to be replaced. Whatever its value will be by then, it must be
    /// there still when this commits; if it isn't there, that was read.
    fn replaces(&mut self, id: u32) -> Result<bool> {
        if let Some(own) = self.own(id) {
            return Ok(own.is_some());
        }
        let found = self.snapshot.contains(id)?;
        match &mut self.work {
            Some(work) if found => drop(work.replaces.insert(id)),
            _ => self.note(id, false)?,
        }
        Ok(found)
    }

    /// The lowest live id.
    pub fn first(&self) -> Result<u32> {
        self.at_or_above(0, Neighbour::First)
    }

    /// The highest live id.
    pub fn last(&self) -> Result<u32> {
        self.at_or_below(u32::MAX, Neighbour::Last)
    }

    /// The nearest live id strictly above `id`.
    pub fn above(&self, id: u32) -> Result<u32> {
        match id.checked_add(1) {
            Some(from) => self.at_or_above(from, Neighbour::Above(id)),
            None => Err(Error::NotFound(NotFound::Neighbour(Neighbour::Above(id)))),
        }
    }

    /// The nearest live id strictly below `id`.
    pub fn below(&self, id: u32) -> Result<u32> {
        match id.checked_sub(1) {
            Some(from) => self.at_or_below(from, Neighbour::Below(id)),
            None => Err(Error::NotFound(NotFound::Neighbour(Neighbour::Below(id)))),
        }
    }

    fn at_or_above(&self, from: u32, direction: Neighbour) -> Result<u32> {
        self.shared().check_process()?;
        let nearest = self.snapshot.at_or_above(u64::from(from))?;
        let Some(work) = &self.work else {
            return nearest.ok_or(Error::NotFound(NotFound::Neighbour(direction)));
        };
        let found = work.overlay.nearest(&self.snapshot, from, nearest, false)?;
        let to = found.unwrap_or(u32::MAX);
        work.reads()
            .range(from, to, nearest.is_some_and(|id| id <= to));
        found.ok_or(Error::NotFound(NotFound::Neighbour(direction)))
    }

    fn at_or_below(&self, from: u32, direction: Neighbour) -> Result<u32> {
        self.shared().check_process()?;
        let nearest = self.snapshot.at_or_below(u64::from(from))?;
        let Some(work) = &self.work else {
            return nearest.ok_or(Error::NotFound(NotFound::Neighbour(direction)));
        };
        let found = work.overlay.nearest(&self.snapshot, from, nearest, true)?;
        let to = found.unwrap_or(0);
        work.reads()
            .range(to, from, nearest.is_some_and(|id| id >= to));
        found.ok_or(Error::NotFound(NotFound::Neighbour(direction)))
    }

    /// Live records. For a snapshot of the past they are counted one by one.
    pub fn count(&self) -> Result<u64> {
        self.shared().check_process()?;
        let count = self.snapshot.count()?;
        let Some(work) = &self.work else {
            return Ok(count);
        };
        work.reads().range(0, u32::MAX, count > 0);
        work.overlay.count(&self.snapshot, count)
    }

    /// The live records with ids from `lower` to `upper`, the writes of this transaction so far
    /// among them.
    pub fn scan(&self, lower: u32, upper: u32, order: Order) -> Result<Scan> {
        self.shared().check_process()?;
        let snapshot = Arc::clone(&self.snapshot);
        let scan = Scan::new(snapshot, lower, upper, order);
        match &self.work {
            Some(work) => scan.within(Arc::clone(work.overlay.writes()), Arc::clone(&work.reads)),
            None => Ok(scan),
        }
    }

    /// Gives up what it would have written.
    pub fn abort(self) {}

    /// Writes everything in one commit, or nothing: [`Error::Conflict`] if a record that it has
    /// read was changed since it began. Without writes no commit is made.
    ///
    /// Cost: one step for each record that was changed by others since it began, and an append of
    /// what it writes.
    pub fn commit(self) -> Result<()> {
        let shared = Arc::clone(&self.snapshot.shared);
        match self.append() {
            Ok(commit) => shared.finish(commit),
            // Before that, the next attempt would see what this one saw.
            Err(Error::Conflict { what, commit }) => {
                shared.answer(commit, Err(Error::Conflict { what, commit }))
            }
            Err(error) => Err(error),
        }
    }

    /// Appends what it writes; the commit that the answer rests on, or 0 for none. Others need not wait
    /// for the snapshot any more then, which nobody looks at.
    fn append(self) -> Result<u64> {
        let Txn { snapshot, work } = self;
        let shared = &snapshot.shared;
        shared.check_process()?;
        let Some(mut work) = work else {
            return Ok(0);
        };
        let mut reads = std::mem::take(&mut *work.reads());
        let writes = Arc::clone(work.overlay.writes());
        if !writes.is_empty() {
            shared.check_writable("commit")?;
        }
        // Most of it without the lock, so that a long transaction doesn't hold up the others; nor those who
        // wait with the lock for an erasure that this one holds off.
        {
            let mut held_off = shared.erasures.hold_off_by_turns();
            let between = || held_off.go_on(HEAD as u64);
            reads.check(snapshot.at, &mut work.since, between)?;
        }
        let mut records = Vec::new();
        reserve_exact(&mut records, writes.len())?;
        let mut writer = shared.writer_to_commit();
        if !planted!(checked_before_the_lock_only) {
            let _held_off = shared.erasures.hold_off();
            // Everybody would wait for an erasure's turn, and what is left is little.
            reads.check(snapshot.at, &mut work.since, || ())?;
        }
        let world = shared.read();
        for (&id, value) in writes.iter() {
            let entry = world.lookup.get(id);
            if !entry.is_live() && work.replaces.contains(&id) && !planted!(replaced_not_checked) {
                return Err(Error::Conflict {
                    what: format!("record {id}").into(),
                    commit: writer.commit,
                });
            }
            let (kind, value) = match value {
                Some(value) => (Kind::Put, &**value),
                // A record that it put there itself, and nobody else since.
                None if !entry.is_live() => continue,
                None => (Kind::Delete, &[][..]),
            };
            records.push(NewRecord {
                kind,
                id,
                previous: entry.location(),
                value,
            });
        }
        if records.is_empty() {
            return Ok(if writes.is_empty() { 0 } else { writer.commit });
        }
        shared.append_now(&mut writer, &records)
    }
}

impl Shared {
    /// Gives out the next id, for good.
    fn take_id(&self) -> Result<u32> {
        let mut writer = self.writer();
        let id = self.id_from(writer.next_id)?;
        writer.next_id += 1;
        // So that a clean close keeps it.
        writer.changed = true;
        self.counters.give_out_from(writer.next_id);
        Ok(id)
    }
}
