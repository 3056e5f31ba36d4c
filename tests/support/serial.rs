//! The serial model: what a database holds after each commit, what a transaction must see of it, and
//! exactly when it must conflict. It knows nothing of logs, tables and locks.

use std::collections::{BTreeMap, BTreeSet};

use ourdb::Order;

/// A value, or `None` for a deletion.
pub type Held = Option<Vec<u8>>;

/// All versions of all records, and what each commit changed.
#[derive(Clone, Debug, Default)]
pub struct Serial {
    records: BTreeMap<u32, Vec<(u64, Held)>>,
    /// The ids that each commit changed, from commit 1.
    changed: Vec<BTreeSet<u32>>,
}

impl Serial {
    /// The last commit.
    pub fn last(&self) -> u64 {
        self.changed.len() as u64
    }

    /// The ids that ever held a record, ascending.
    pub fn ids(&self) -> Vec<u32> {
        self.records.keys().copied().collect()
    }

    /// The versions of a record, oldest first.
    pub fn versions(&self, id: u32) -> &[(u64, Held)] {
        self.records.get(&id).map_or(&[], Vec::as_slice)
    }

    /// The version that was live after a commit.
    pub fn live_at(&self, id: u32, at: u64) -> Option<(u64, &[u8])> {
        let versions = self.versions(id);
        let (commit, held) = versions.iter().rfind(|(commit, _)| *commit <= at)?;
        held.as_ref().map(|value| (*commit, value.as_slice()))
    }

    pub fn is_live(&self, id: u32) -> bool {
        self.live_at(id, u64::MAX).is_some()
    }

    /// What is live after a commit, by id, with the commit that wrote it.
    pub fn all_at(&self, at: u64) -> BTreeMap<u32, (u64, Vec<u8>)> {
        let live = self.records.keys().filter_map(|&id| {
            let (commit, value) = self.live_at(id, at)?;
            Some((id, (commit, value.to_vec())))
        });
        live.collect()
    }

    /// Makes a commit of these changes; of those that delete what isn't there nothing is left, and
    /// without changes no commit is made.
    pub fn commit(&mut self, writes: &BTreeMap<u32, Held>) {
        let commit = self.last() + 1;
        let mut changed = BTreeSet::new();
        for (&id, held) in writes {
            if held.is_some() || self.is_live(id) {
                let versions = self.records.entry(id).or_default();
                versions.push((commit, held.clone()));
                changed.insert(id);
            }
        }
        if !changed.is_empty() {
            self.changed.push(changed);
        }
    }

    /// Deletes everything that is there, in one commit.
    pub fn clear(&mut self) {
        let live = self.all_at(u64::MAX).into_keys();
        self.commit(&live.map(|id| (id, None)).collect());
    }

    /// Whether any commit after `at` changed what was read.
    fn changed_since(&self, at: u64, reads: &Reads) -> bool {
        let since = self.changed.iter().skip(at as usize);
        since.flatten().any(|&id| reads.contain(id))
    }
}

/// What a transaction has read of its snapshot, found or not.
#[derive(Clone, Debug, Default)]
pub struct Reads {
    points: BTreeSet<u32>,
    ranges: Vec<(u32, u32)>,
}

impl Reads {
    fn contain(&self, id: u32) -> bool {
        let mut ranges = self.ranges.iter();
        self.points.contains(&id) || ranges.any(|&(from, to)| (from..=to).contains(&id))
    }
}

/// A transaction of the model, or a snapshot.
#[derive(Clone, Debug)]
pub struct Session {
    /// The last commit that it sees.
    pub at: u64,
    pub read_only: bool,
    writes: BTreeMap<u32, Held>,
    reads: Reads,
    /// Records that its writes need live.
    needs: BTreeSet<u32>,
}

impl Session {
    pub fn new(at: u64, read_only: bool) -> Session {
        Session {
            at,
            read_only,
            writes: BTreeMap::new(),
            reads: Reads::default(),
            needs: BTreeSet::new(),
        }
    }

    /// What it sees, by id: its own writes have commit 0.
    pub fn all(&self, serial: &Serial) -> BTreeMap<u32, (u64, Vec<u8>)> {
        let mut all = serial.all_at(self.at);
        for (&id, held) in &self.writes {
            match held {
                Some(value) => drop(all.insert(id, (0, value.clone()))),
                None => drop(all.remove(&id)),
            }
        }
        all
    }

    /// Reads one record.
    pub fn get(&mut self, serial: &Serial, id: u32) -> Held {
        if let Some(held) = self.writes.get(&id) {
            return held.clone();
        }
        self.reads.points.insert(id);
        serial.live_at(id, self.at).map(|(_, value)| value.to_vec())
    }

    /// Reads everything from one id to another.
    pub fn read_range(&mut self, from: u32, to: u32) {
        self.reads.ranges.push((from, to));
    }

    pub fn at_or_above(&mut self, serial: &Serial, from: u32) -> Option<u32> {
        let all = self.all(serial);
        let found = all.range(from..).next().map(|(&id, _)| id);
        self.read_range(from, found.unwrap_or(u32::MAX));
        found
    }

    pub fn at_or_below(&mut self, serial: &Serial, from: u32) -> Option<u32> {
        let all = self.all(serial);
        let found = all.range(..=from).next_back().map(|(&id, _)| id);
        self.read_range(found.unwrap_or(0), from);
        found
    }

    pub fn count(&mut self, serial: &Serial) -> u64 {
        self.read_range(0, u32::MAX);
        self.all(serial).len() as u64
    }

    /// The records of a scan that is opened now, in order, as `(id, commit, value)`.
    pub fn scan(
        &self,
        serial: &Serial,
        lower: u32,
        upper: u32,
        order: Order,
    ) -> Vec<(u32, u64, Vec<u8>)> {
        if lower > upper {
            return Vec::new();
        }
        let all = self.all(serial);
        let records = all.range(lower..=upper);
        let records = records.map(|(&id, (commit, value))| match order.keys_only {
            true => (id, 0, Vec::new()),
            false => (id, *commit, value.clone()),
        });
        if order.reverse {
            records.rev().collect()
        } else {
            records.collect()
        }
    }

    pub fn insert(&mut self, id: u32, value: Vec<u8>) {
        self.writes.insert(id, Some(value));
    }

    /// Whether a record is there to be replaced or deleted.
    fn replaces(&mut self, serial: &Serial, id: u32) -> bool {
        if let Some(held) = self.writes.get(&id) {
            return held.is_some();
        }
        if serial.live_at(id, self.at).is_some() {
            self.needs.insert(id);
            return true;
        }
        self.reads.points.insert(id);
        false
    }

    /// Puts a value; `blind`: whether anything is there or not. Whether it could.
    pub fn set(&mut self, serial: &Serial, id: u32, value: Vec<u8>, blind: bool) -> bool {
        let allowed = blind || self.replaces(serial, id);
        if allowed {
            self.writes.insert(id, Some(value));
        }
        allowed
    }

    /// Deletes a record; whether it was there.
    pub fn delete(&mut self, serial: &Serial, id: u32) -> bool {
        let allowed = self.replaces(serial, id);
        if allowed {
            self.writes.insert(id, None);
        }
        allowed
    }

    /// Commits; whether it could, or must conflict.
    pub fn commit(self, serial: &mut Serial) -> bool {
        if self.read_only {
            return true;
        }
        let gone = self.needs.iter().any(|&id| !serial.is_live(id));
        if gone || serial.changed_since(self.at, &self.reads) {
            return false;
        }
        serial.commit(&self.writes);
        true
    }
}
