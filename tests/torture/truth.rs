//! Everything that was written to a database, to compare with what it shows: per id all versions, and
//! what is right to read as of any commit.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use ourdb::{Db, Error, Record, State};

use crate::scenes::RECORD_HEADER;
use crate::support::Random;
use crate::support::model::Value;

/// Few ids, so that there are long histories.
const MOST_IDS: u32 = 32;

/// One version of a record.
#[derive(Clone)]
pub(crate) struct Version {
    /// 0 if herolib wrote it.
    pub(crate) commit: u64,
    pub(crate) time_us: u64,
    /// `None` is a deletion.
    pub(crate) value: Option<Vec<u8>>,
}

impl Version {
    pub(crate) fn is(&self, record: &Record<'_>) -> bool {
        let state = if self.value.is_some() {
            State::Live
        } else {
            State::Deleted
        };
        let value = self.value.as_deref().unwrap_or_default();
        (record.state, record.commit, record.time_us) == (state, self.commit, self.time_us)
            && record.value == value
    }
}

/// Everything that was written.
#[derive(Clone)]
pub(crate) struct Truth {
    pub(crate) key_value: bool,
    /// Per id all versions, oldest first.
    pub(crate) records: BTreeMap<u32, Vec<Version>>,
    pub(crate) last_commit: u64,
    random: Random,
}

impl Truth {
    pub(crate) fn new(key_value: bool) -> Truth {
        Truth {
            key_value,
            records: BTreeMap::new(),
            last_commit: 0,
            random: Random::new(17),
        }
    }

    /// The newest version as of `commit`, if that is no deletion. What herolib wrote was there
    /// before the first commit that a crash could take away.
    pub(crate) fn live(&self, id: u32, commit: u64) -> Option<&Version> {
        let mut versions = self.records.get(&id)?.iter().rev();
        let newest = versions.find(|version| version.commit <= commit)?;
        newest.value.is_some().then_some(newest)
    }

    pub(crate) fn live_ids(&self, commit: u64) -> Vec<u32> {
        let ids = self.records.keys().copied();
        ids.filter(|&id| self.live(id, commit).is_some()).collect()
    }

    /// The versions that a history shows as of `commit`, newest first.
    pub(crate) fn history(&self, id: u32, commit: u64) -> Vec<&Version> {
        let versions = self.records.get(&id).into_iter().flatten().rev();
        versions
            .filter(|version| version.commit <= commit)
            .collect()
    }

    /// What `get_version` and `get_at` give, out of a history: herolib's versions, which have
    /// neither commit nor time, are older than any of ours above them, and newer than any below.
    pub(crate) fn as_of<'a>(
        versions: &[&'a Version],
        compare: impl Fn(&Version) -> Ordering,
    ) -> Option<&'a [u8]> {
        let mut herolibs = None;
        for version in versions {
            match compare(version) {
                _ if version.commit == 0 => herolibs = herolibs.or(Some(version)),
                Ordering::Greater => herolibs = None,
                Ordering::Less if herolibs.is_some() => break,
                _ => return version.value.as_deref(),
            }
        }
        herolibs.and_then(|version| version.value.as_deref())
    }

    /// Everything that was written up to `commit`.
    pub(crate) fn as_of_commit(&self, commit: u64) -> Truth {
        let mut past = self.clone();
        past.last_commit = commit;
        past.records.retain(|_, versions| {
            versions.retain(|version| version.commit <= commit);
            !versions.is_empty()
        });
        past
    }

    /// What the next insert gets.
    pub(crate) fn next_id(&self, commit: u64) -> u32 {
        let used = self.records.iter().rev();
        let mut used = used.filter(|(_, versions)| versions[0].commit <= commit);
        used.next().map_or(1, |(&id, _)| id + 1)
    }

    fn note(&mut self, db: &Db, id: u32, value: Option<Vec<u8>>) {
        let commit = db.last_commit().expect("a commit");
        let newest = db.history(id, 1).expect("a history");
        let time_us = newest.get(0).expect("a version").time_us;
        self.last_commit = commit;
        self.add(id, commit, time_us, value);
    }

    pub(crate) fn add(&mut self, id: u32, commit: u64, time_us: u64, value: Option<Vec<u8>>) {
        let version = Version {
            commit,
            time_us,
            value,
        };
        self.records.entry(id).or_default().push(version);
    }

    pub(crate) fn value(&mut self, len: Option<u32>) -> Vec<u8> {
        let lens = [0, 1, 20, 100, 100, 300, 472, 473, 700, 1500];
        let len = len.unwrap_or_else(|| lens[self.random.below(lens.len() as u64) as usize]);
        let seed = self.random.next() as u16;
        Value { seed, len }.bytes()
    }

    /// Some live id; in key-value mode any.
    fn some_id(&mut self) -> u32 {
        if self.key_value {
            return self.random.below(u64::from(MOST_IDS)) as u32;
        }
        let live = self.live_ids(self.last_commit);
        live[self.random.below(live.len() as u64) as usize]
    }

    /// Adds a record, or a version of one.
    pub(crate) fn put(&mut self, db: &Db, len: Option<u32>) -> Result<(), Error> {
        let value = self.value(len);
        let room = self.records.len() < MOST_IDS as usize;
        let id = if !self.key_value && room && (self.records.len() < 6 || self.random.chance(25)) {
            db.insert(&value)?
        } else {
            let id = self.some_id();
            db.set(id, &value)?;
            id
        };
        self.note(db, id, Some(value));
        Ok(())
    }

    fn put_many(&mut self, db: &Db) {
        let mut records = BTreeMap::new();
        for _ in 0..5 {
            records.insert(self.some_id(), self.value(None));
        }
        let borrowed: Vec<(u32, &[u8])> = records.iter().map(|(id, v)| (*id, &v[..])).collect();
        db.set_many(&borrowed).expect("a set of many");
        for (id, value) in records {
            self.note(db, id, Some(value));
        }
    }

    fn delete(&mut self, db: &Db, count: usize) {
        let live = self.live_ids(self.last_commit);
        let first = self.random.below(live.len() as u64) as usize;
        let ids: Vec<u32> = live[first..].iter().copied().take(count).collect();
        db.delete_many(&ids).expect("deletions");
        for id in ids {
            self.note(db, id, None);
        }
    }

    /// Makes commits of all kinds until about so many bytes are written.
    pub(crate) fn grow(&mut self, db: &Db, bytes: usize) {
        let written = |truth: &Truth| -> usize {
            let versions = truth.records.values().flatten();
            let len = |version: &Version| version.value.as_ref().map_or(0, Vec::len);
            versions.map(|version| RECORD_HEADER + len(version)).sum()
        };
        let end = written(self) + bytes;
        while written(self) < end {
            match self.random.below(20) {
                0 if self.live_ids(self.last_commit).len() > 6 => self.delete(db, 1),
                1 if self.live_ids(self.last_commit).len() > 8 => self.delete(db, 3),
                2..5 if self.records.len() > 6 => self.put_many(db),
                _ => self.put(db, None).expect("a write"),
            }
        }
    }
}
