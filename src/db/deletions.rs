//! Which ids searches go over that are live no more.
//!
//! A record that is deleted may be seen live still: by readers, until they see its deletion, and by
//! snapshots of before for as long as those are open. So long searches must meet it; but those in the
//! present not longer than they have to, or who deletes one record after the other beside a snapshot
//! would go over all of them each time.

use std::collections::VecDeque;

use crate::error::{Error, Result};
use crate::location::Location;
use crate::lookup::{IdSet, Lookup};
use crate::planted::planted;

/// A deletion that not everybody sees yet.
#[derive(Clone, Copy, Debug)]
struct Deletion {
    commit: u64,
    /// The record, and where its deletion is; `None` for all records.
    record: Option<(u32, Location)>,
}

/// A commit forgets at least so many, if there are so many to forget: when a snapshot ends that was open for
/// long there may be millions, for which the next commit would hold up all others.
const FORGOTTEN_AT_ONCE: usize = 4096;

/// The deletions that not everybody sees yet, in the order of their commits.
#[derive(Debug, Default)]
pub(super) struct Deletions {
    waiting: VecDeque<Deletion>,
    /// So many at the front are seen by all who read the present.
    left: usize,
    /// So many came since some were forgotten: twice as many go, or there would be more and more.
    added: usize,
}

impl Deletions {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Makes room for `count` more, so that adding them can't fail.
    pub(super) fn reserve(&mut self, count: usize) -> Result<()> {
        self.waiting
            .try_reserve(count)
            .map_err(|_| Error::OutOfMemory {
                what: format!("{count} deletions").into(),
            })
    }

    /// A commit deletes a record, by what is at `location`.
    pub(super) fn add(&mut self, commit: u64, id: u32, location: Location) {
        let record = Some((id, location));
        self.waiting.push_back(Deletion { commit, record });
        self.added += 1;
    }

    /// A commit deletes all records.
    pub(super) fn add_clear(&mut self, commit: u64) {
        let record = None;
        self.waiting.push_back(Deletion { commit, record });
        self.added += 1;
    }

    /// Readers see everything up to commit `visible` by now, and there is no snapshot of before `oldest`.
    pub(super) fn seen(&mut self, lookup: &Lookup, visible: u64, oldest: u64) {
        let by_all = if planted!(forgotten_while_seen) {
            visible
        } else {
            visible.min(oldest)
        };
        let most = FORGOTTEN_AT_ONCE + 2 * std::mem::take(&mut self.added);
        for _ in 0..most {
            let first = self.waiting.front();
            let Some(&deletion) = first.filter(|deletion| deletion.commit <= by_all) else {
                break;
            };
            self.waiting.pop_front();
            self.left = self.left.saturating_sub(1);
            match deletion.record {
                // Else there is a version since. If it is put, searches go on meeting the record anyway; and
                // there may have been another deletion of it before that, which has its turn.
                Some((id, location)) if lookup.get(id).location() == location => lookup.forget(id),
                Some(_) => {}
                None => self.forget_cleared(lookup),
            }
        }
        if self.waiting.is_empty() && self.waiting.capacity() > FORGOTTEN_AT_ONCE {
            self.waiting = VecDeque::new();
        }
        while let Some(&deletion) = self.waiting.get(self.left)
            && deletion.commit <= visible
        {
            self.left += 1;
            match deletion.record {
                Some((id, location)) if lookup.get(id).location() == location => {
                    lookup.leave_to_snapshots(id);
                }
                Some(_) => {}
                None => self.leave_cleared(lookup),
            }
        }
    }

    /// The records, of those that `lookup` has, that are deleted by the deletions from `from` on; `None` if one
    /// of those is a clear, or there is no memory for it: then searches go on meeting some in vain.
    fn records(&self, lookup: &Lookup, from: usize) -> Option<IdSet> {
        let deletions = || self.waiting.range(from..);
        // Before anything is allocated: thousands of clears may wait for one snapshot.
        if deletions().any(|deletion| deletion.record.is_none()) {
            return None;
        }
        let records = IdSet::new(u64::from(lookup.limit())).ok()?;
        let ids = deletions().filter_map(|deletion| deletion.record);
        ids.for_each(|(id, _)| {
            records.insert(id);
        });
        Some(records)
    }

    /// Takes what a clear deleted out of all searches. What was deleted since waits its turn.
    fn forget_cleared(&self, lookup: &Lookup) {
        // A later clear deleted everything that is not live now; all of it goes with that one.
        if let Some(records) = self.records(lookup, 0) {
            let seen = |id| records.contains(id) && !planted!(forgotten_with_a_clear);
            lookup.forget_deleted(seen);
        }
    }

    /// The same for searches in the present alone.
    fn leave_cleared(&self, lookup: &Lookup) {
        if let Some(records) = self.records(lookup, self.left) {
            lookup.leave_deleted_to_snapshots(|id| records.contains(id));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::FORGOTTEN_AT_ONCE;
    use crate::Options;
    use crate::db::Db;

    /// What a snapshot of long ago has kept in searches leaves them some at a time, at last all.
    #[test]
    fn many_are_forgotten_by_many_commits() {
        const COUNT: u32 = 20_000;
        let options = Options {
            memory: true,
            key_value: true,
            ..Options::default()
        };
        let db = Db::open("", &options).unwrap();
        let records: Vec<(u32, &[u8])> = (0..COUNT).map(|id| (id, &b"one"[..])).collect();
        db.set_many(&records).unwrap();
        let snapshot = db.snapshot().unwrap();
        for id in 0..COUNT {
            db.delete(id).unwrap();
        }
        let waiting = || db.shared.writer().deletions.waiting.len();
        assert_eq!(waiting(), COUNT as usize);
        drop(snapshot);
        let mut before = waiting();
        let mut commits = 0;
        while before > 0 {
            db.set(COUNT, b"another").unwrap();
            commits += 1;
            let fewer = before - waiting();
            assert!((1..=FORGOTTEN_AT_ONCE).contains(&fewer), "{fewer}");
            before -= fewer;
        }
        assert_eq!(commits, COUNT.div_ceil(FORGOTTEN_AT_ONCE as u32));
        let lookup = &db.shared.read().lookup;
        assert_eq!(lookup.seen_at_or_above(0, u64::MAX), Some(COUNT));
        // As many as one commit deletes go at once.
        db.set_many(&records).unwrap();
        let all: Vec<u32> = (0..COUNT).collect();
        db.delete_many(&all).unwrap();
        db.set(COUNT, b"once more").unwrap();
        assert_eq!(waiting(), 0);
    }

    /// Whatever came over a deletion, and whether a snapshot was of before.
    #[test]
    fn nothing_stays_when_nobody_sees_it_any_more() {
        for over in [
            "nothing",
            "an erasure",
            "a value",
            "a value and a deletion",
            "a clear",
        ] {
            for with_snapshot in [false, true] {
                let options = Options {
                    memory: true,
                    key_value: true,
                    ..Options::default()
                };
                let db = Db::open("", &options).unwrap();
                db.set(1, b"one").unwrap();
                db.set(2, b"two").unwrap();
                let snapshot = with_snapshot.then(|| db.snapshot().unwrap());
                db.delete(1).unwrap();
                match over {
                    "an erasure" => db.erase(1).unwrap(),
                    "a clear" => db.clear().unwrap(),
                    "nothing" => {}
                    _ => db.set(1, b"again").unwrap(),
                }
                if over == "a value and a deletion" {
                    db.delete(1).unwrap();
                }
                drop(snapshot);
                db.set(2, b"two").unwrap();
                db.delete(2).unwrap();
                let lookup = &db.shared.read().lookup;
                let live = (over == "a value").then_some(1);
                let what = format!("{over}, with a snapshot: {with_snapshot}");
                assert_eq!(lookup.at_or_above(0), live, "{what}");
                assert_eq!(lookup.seen_at_or_above(0, u64::MAX), live, "{what}");
                assert!(db.shared.writer().deletions.is_empty(), "{what}");
            }
        }
    }
}
