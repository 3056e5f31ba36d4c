//! Going back: values as of an earlier commit, written as new versions.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use super::snapshot::Snapshot;
use super::{Db, Shared, World};
use crate::bytes::{reserve, reserve_exact};
use crate::error::{Error, NotFound, Result};
use crate::history::Chain;
use crate::location::Location;
use crate::log::record::{HEAD, Head, Kind};
use crate::log::tail::{NewRecord, check_commit_len};
use crate::planted::planted;

/// A live version: where it is, and what it says of itself.
type Version = (Location, Head);

/// What a record was, looked for without the writer lock: a long history takes its time.
struct Found {
    version: Option<Version>,
    /// Its newest version, in the world in which it was looked for.
    newest: Location,
    /// How many erasures there were by then.
    erasures: u64,
}

impl Found {
    fn of(past: &Snapshot, id: u32) -> Result<Found> {
        let _reading = past.begin_reading();
        let erasures = past.shared.erasures.count();
        let entry = past.world.lookup.get(id);
        Ok(Found {
            version: past.live(id, entry)?,
            newest: entry.location(),
            erasures,
        })
    }

    /// The version, unless it was erased since. Under the writer lock, with which erasures begin: what is
    /// there now is not overwritten.
    fn still(&self, past: &Snapshot, id: u32) -> Result<Option<Version>> {
        let world = &past.world;
        if past.shared.erasures.count() == self.erasures || self.version.is_none() {
            return Ok(self.version);
        }
        let mut chain = Chain::new(world, id, world.lookup.get(id));
        while let Some((location, _)) = chain.next()? {
            if location == self.newest {
                return Ok(self.version);
            }
        }
        Ok(None)
    }
}

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
        let found = Found::of(&past, id)?;
        let (_, head) = found.version.ok_or_else(at_commit)?;
        shared.check_len(u64::from(head.len))?;
        let commit = {
            let mut writer = shared.writer_to_commit();
            let (location, head) = found.still(&past, id)?.ok_or_else(at_commit)?;
            let value = past.world.value(location, &head)?;
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
        let mut differing: Vec<(u32, Found)> = Vec::new();
        let mut next = now.world.lookup.known_at_or_above(0);
        while let Some(id) = next {
            let _reading = now.begin_reading();
            let then = Found::of(&past, id)?;
            if !is_same(then.version, now.live(id, now.world.lookup.get(id))?) {
                reserve(&mut differing, 1)?;
                differing.push((id, then));
            }
            next = now.world.lookup.known_at_or_above(u64::from(id) + 1);
        }
        let commit = {
            let mut writer = shared.writer_to_commit();
            let held_off = shared.erasures.hold_off();
            let (mut changed, mut cleared) = (BTreeSet::new(), false);
            since.each(|_, _, head| {
                match head.kind {
                    Kind::Clear => cleared = true,
                    Kind::SyncMark | Kind::Empty => {}
                    Kind::Put | Kind::Delete | Kind::Erase | Kind::Erased => {
                        changed.insert(head.id);
                    }
                }
                Ok(())
            })?;
            let world = shared.read();
            if cleared {
                // Not those of now: a compaction may have dropped what was cleared.
                changed.extend(past.world.lookup.entries().map(|(id, _)| id));
            }
            let mut changes = Vec::new();
            let mut differs = |id, then| {
                reserve(&mut changes, 1)?;
                changes.extend(shared.change_to(&world, id, then)?);
                Ok(())
            };
            for (id, then) in &differing {
                changed.remove(id);
                differs(*id, then.still(&past, *id)?)?;
            }
            drop(differing);
            for id in changed {
                differs(id, past.live(id, past.world.lookup.get(id))?)?;
            }
            changes.sort_unstable_by_key(|change| change.id);
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

#[cfg(all(test, not(ourdb_shuttle)))]
mod tests {
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::Options;

    fn in_memory() -> Db {
        let options = Options {
            key_value: true,
            memory: true,
            ..Options::default()
        };
        Db::open("", &options).unwrap()
    }

    #[test]
    fn a_version_is_looked_for_without_the_writer_lock() {
        let db = in_memory();
        db.set(1, b"one").unwrap();
        db.set(2, b"two").unwrap();
        thread::scope(|scope| {
            let writer = db.shared.writer();
            let (sender, answer) = mpsc::channel();
            let db = &db;
            scope.spawn(move || sender.send(db.revert(2, 1)));
            let answer = answer.recv_timeout(Duration::from_secs(20));
            drop(writer);
            let error = answer.expect("nobody waits for the lock").unwrap_err();
            assert!(matches!(error, Error::NotFound(NotFound::AtCommit { .. })));
        });
    }

    #[test]
    fn what_was_found_is_there_still_unless_it_was_erased() {
        let db = in_memory();
        for id in [1, 2, 3] {
            db.set(id, b"then").unwrap();
        }
        let past = Snapshot::past(&db.shared, 3).unwrap();
        let found = [1, 2, 3].map(|id| Found::of(&past, id).unwrap());
        let is_there = || {
            let still = |index: usize| found[index].still(&past, 1 + index as u32).unwrap();
            [0, 1, 2].map(|index| still(index).is_some())
        };
        db.set(1, b"now").unwrap();
        db.clear().unwrap();
        assert_eq!(is_there(), [true, true, true]);
        db.erase(2).unwrap();
        db.set(2, b"now").unwrap();
        assert_eq!(is_there(), [true, false, true]);
        db.compact(&crate::Retention::default(), |_, _| {
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
        db.set(3, b"now").unwrap();
        db.erase(3).unwrap();
        // In the world of then, which the snapshot keeps.
        assert_eq!(is_there(), [true, false, false]);
    }
}
