//! Going back: values as of an earlier commit, written as new versions.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use super::snapshot::Snapshot;
use super::{Db, Shared, World};
use crate::bytes::{reserve, reserve_exact};
use crate::error::{Error, NotFound, Result};
use crate::location::Location;
use crate::log::record::{HEAD, Head, Kind};
use crate::log::tail::{NewRecord, check_commit_len};
use crate::planted::planted;

/// A live version: where it is, and what it says of itself.
type Version = (Location, Head);

/// What a record is to be again: the version of then, or deleted.
struct Change {
    id: u32,
    previous: Location,
    then: Option<Version>,
}

impl Change {
    /// Length of its record in bytes.
    fn len(&self) -> u64 {
        self.then
            .map_or(HEAD as u64, |(_, head)| HEAD as u64 + u64::from(head.len))
    }
}

impl Db {
    /// Writes the value that a record had after commit `commit` as its newest version; the record
    /// may be deleted by now.
    pub fn revert(&self, id: u32, commit: u64) -> Result<()> {
        let shared = &*self.shared;
        shared.check_writable("revert")?;
        shared.check_id(id)?;
        let past = Snapshot::past(&self.shared, commit)?;
        let at_commit = || Error::NotFound(NotFound::AtCommit { id, commit });
        let commit = {
            let mut writer = shared.writer_to_commit();
            // An erasure begins with the writer lock: what is found now is not erased.
            let _held_off = shared.erasures.hold_off();
            let version = past.live(id, past.world.lookup.get(id))?;
            let (location, head) = version.ok_or_else(at_commit)?;
            let value = past.world.value(location, &head)?;
            shared.check_len(value.len() as u64)?;
            let record = NewRecord {
                kind: Kind::Put,
                id,
                previous: shared.read().lookup.get(id).location(),
                value: &value,
            };
            shared.append_now(&mut writer, &[record])?
        };
        shared.finish(commit)
    }

    /// Makes every record what it was after commit `commit`, in one commit: what has changed since
    /// gets that value as its newest version, what came since is deleted.
    ///
    /// Cost: a look at each id, and an append of what differs, which must fit one data file.
    pub fn revert_all(&self, commit: u64) -> Result<()> {
        let shared = &*self.shared;
        shared.check_writable("revert")?;
        // Most of the work is done beside other writers; what they change meanwhile is looked at
        // again.
        let (past, now, mut since) = loop {
            let past = Snapshot::past(&self.shared, commit)?;
            let (now, since) = Snapshot::now_and_since(&self.shared)?;
            // A compaction in between may have dropped an id of the past.
            if Arc::ptr_eq(&past.world, &now.world) {
                break (past, now, since);
            }
        };
        let mut differing = BTreeSet::new();
        let mut next = now.world.lookup.known_at_or_above(0);
        while let Some(id) = next {
            let _reading = now.begin_reading();
            let then = past.live(id, past.world.lookup.get(id))?;
            if !is_same(then, now.live(id, now.world.lookup.get(id))?) {
                differing.insert(id);
            }
            next = now.world.lookup.known_at_or_above(u64::from(id) + 1);
        }
        let commit = {
            let mut writer = shared.writer_to_commit();
            let held_off = shared.erasures.hold_off();
            let mut cleared = false;
            since.each(|_, _, head| {
                match head.kind {
                    Kind::Clear => cleared = true,
                    Kind::SyncMark | Kind::Empty => {}
                    Kind::Put | Kind::Delete | Kind::Erase | Kind::Erased => {
                        differing.insert(head.id);
                    }
                }
                Ok(())
            })?;
            let world = shared.read();
            if cleared {
                // Not those of now: a compaction may have dropped what was cleared.
                differing.extend(past.world.lookup.entries().map(|(id, _)| id));
            }
            let mut changes = Vec::new();
            for id in differing {
                let then = past.live(id, past.world.lookup.get(id))?;
                reserve(&mut changes, 1)?;
                changes.extend(shared.change_to(&world, id, then)?);
            }
            if changes.is_empty() {
                let last = writer.commit;
                drop((world, held_off, writer));
                return shared.answer(last, Ok(()));
            }
            // Before a value is read.
            check_commit_len(changes.iter().map(Change::len).sum())?;
            let mut values = Vec::new();
            reserve_exact(&mut values, changes.len())?;
            for change in &changes {
                values.push(match change.then {
                    Some((location, head)) => past.world.value(location, &head)?,
                    None => Cow::default(),
                });
            }
            let mut records = Vec::new();
            reserve_exact(&mut records, changes.len())?;
            records.extend(
                changes
                    .iter()
                    .zip(&values)
                    .map(|(change, value)| NewRecord {
                        kind: match change.then {
                            Some(_) => Kind::Put,
                            None => Kind::Delete,
                        },
                        id: change.id,
                        previous: change.previous,
                        value,
                    }),
            );
            shared.append_now(&mut writer, &records)?
        };
        shared.finish(commit)
    }
}

/// Whether two versions of one record are the same.
fn is_same(one: Option<Version>, other: Option<Version>) -> bool {
    // Their places may differ: a compaction can have come in between.
    let identity = |(_, head): Version| (head.commit, head.len, head.crc);
    one.map(identity) == other.map(identity)
}

impl Shared {
    /// What makes record `id` what it was `then`, if it isn't. Under the writer lock.
    fn change_to(&self, world: &World, id: u32, then: Option<Version>) -> Result<Option<Change>> {
        let entry = world.lookup.get(id);
        let now = world.live_at(id, entry, u64::MAX)?;
        if is_same(then, now) {
            return Ok(None);
        }
        if then.is_none() && planted!(newer_records_not_reverted) {
            return Ok(None);
        }
        if let Some((_, head)) = then {
            self.check_len(u64::from(head.len))?;
        }
        Ok(Some(Change {
            id,
            previous: entry.location(),
            then,
        }))
    }
}
