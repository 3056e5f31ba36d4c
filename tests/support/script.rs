//! What a writer commits, known before it begins: so any value read beside it can be compared with
//! what was committed at the time.
//!
//! Commit number `n` of a database is change `n` of its script. Some ids are always live, some come
//! and go, and a group of the former is always written together.

use std::collections::BTreeMap;

use ourdb::{Db, Error};

use super::{Random, Verdict, refute};

/// Ids that some commits write all together.
pub const GROUP: [u32; 12] = [1, 5, 9, 13, 17, 21, 33, 35, 37, 61, 63, 2001];
/// No record has ever been here.
pub const NEVER: u32 = 1001;

/// Even ids come and go, odd ones stay: side by side up to 63, then some far apart, so that whole
/// words of the set of live ids become empty, and the last one stays.
fn ids() -> impl Iterator<Item = u32> {
    (0..64)
        .chain((0..8).map(|far| 1000 + 64 * far))
        .chain([2001])
}

pub fn stays(id: u32) -> bool {
    id % 2 == 1
}

/// One commit: all of its records are put, or all are deleted.
#[derive(Debug)]
struct Change {
    ids: Vec<u32>,
    puts: bool,
}

/// A version of a record: the commit that made it, and whether it holds a value.
pub type Version = (u64, bool);

#[derive(Debug)]
pub struct Script {
    changes: Vec<Change>,
    /// Of each id, oldest first.
    versions: BTreeMap<u32, Vec<Version>>,
    /// How many records are live after each commit; 0 before the first.
    live: Vec<u64>,
}

impl Script {
    /// `commits` commits made from a seed. The first puts all the ids that stay.
    pub fn new(seed: u64, commits: u64) -> Script {
        let mut random = Random::new(seed);
        let mut script = Script {
            changes: Vec::new(),
            versions: ids().map(|id| (id, Vec::new())).collect(),
            live: vec![0],
        };
        script.add(Change {
            ids: ids().filter(|&id| stays(id)).collect(),
            puts: true,
        });
        while script.commits() < commits {
            let change = script.next_change(&mut random);
            script.add(change);
        }
        script
    }

    fn next_change(&self, random: &mut Random) -> Change {
        let put = |ids: Vec<u32>| Change { ids, puts: true };
        let all: Vec<u32> = ids().collect();
        let any = all[random.below(all.len() as u64) as usize];
        match random.below(8) {
            0..4 => put(GROUP.to_vec()),
            4 => put(vec![any]),
            // Those that are there go, or those that are not come, so many at once.
            how_many => {
                let puts = random.chance(50);
                let mut ids: Vec<u32> = ids()
                    .filter(|&id| !stays(id) && self.version(id, self.commits()).1 != puts)
                    .collect();
                let begin = random.below(ids.len().max(1) as u64) as usize;
                ids.rotate_left(begin);
                ids.truncate(if how_many == 5 { 1 } else { 6 });
                match ids.is_empty() {
                    true => put(vec![any]),
                    false => Change { ids, puts },
                }
            }
        }
    }

    fn add(&mut self, change: Change) {
        let commit = self.commits() + 1;
        let mut live = self.live[self.commits() as usize];
        for &id in &change.ids {
            match (self.version(id, commit).1, change.puts) {
                (false, true) => live += 1,
                (true, false) => live -= 1,
                _ => {}
            }
            let versions = self.versions.get_mut(&id).expect("a known id");
            versions.push((commit, change.puts));
        }
        self.live.push(live);
        self.changes.push(change);
    }

    /// How many commits there are; the number of the last one.
    pub fn commits(&self) -> u64 {
        self.changes.len() as u64
    }

    /// The ids of commit number `commit`.
    pub fn changed(&self, commit: u64) -> &[u32] {
        &self.changes[commit as usize - 1].ids
    }

    /// The versions of an id up to commit `at`, oldest first.
    pub fn versions(&self, id: u32, at: u64) -> &[Version] {
        let versions = self.versions.get(&id).map_or(&[][..], Vec::as_slice);
        &versions[..versions.partition_point(|&(commit, _)| commit <= at)]
    }

    /// The newest of them; commit 0, and not live, if there is none.
    pub fn version(&self, id: u32, at: u64) -> Version {
        self.versions(id, at).last().copied().unwrap_or((0, false))
    }

    /// What a read that began after commit `from` and ended before commit `to + 1` may find: the
    /// commit of the version, 0 for none; before it the commit that made it so, or `from`.
    pub fn may_find(&self, id: u32, from: u64, to: u64) -> impl Iterator<Item = (u64, u64)> {
        let known = self.versions(id, from).len();
        let later = &self.versions(id, to)[known..];
        let versions = std::iter::once(self.version(id, from)).chain(later.iter().copied());
        versions.map(move |(commit, live)| (commit.max(from), if live { commit } else { 0 }))
    }

    /// How many records are live after commit `at`.
    pub fn live(&self, at: u64) -> u64 {
        self.live[at as usize]
    }

    /// The nearest ids of the script on one side of `id`, nearest first.
    pub fn beyond(&self, id: Option<u32>, up: bool) -> Box<dyn Iterator<Item = u32> + '_> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = id.map_or(Unbounded, Excluded);
        let keys = |(id, _): (&u32, _)| *id;
        if up {
            Box::new(self.versions.range((from, Unbounded)).map(keys))
        } else {
            Box::new(self.versions.range((Unbounded, from)).rev().map(keys))
        }
    }

    /// Makes commit number `commit`.
    pub fn apply(&self, db: &Db, commit: u64) -> Result<(), Error> {
        let Change { ids, puts } = &self.changes[commit as usize - 1];
        if !puts {
            return match ids[..] {
                [id] => db.delete(id),
                _ => db.delete_many(ids),
            };
        }
        let values: Vec<Vec<u8>> = ids.iter().map(|&id| stamped(id, commit)).collect();
        if let ([id], [value]) = (&ids[..], &values[..]) {
            return db.set(*id, value);
        }
        let values = values.iter().map(Vec::as_slice);
        db.set_many(&ids.iter().copied().zip(values).collect::<Vec<_>>())
    }
}

/// A value that says which record it is of and when it was written, filled up to a length that
/// depends on both with bytes that depend on both.
pub fn stamped(id: u32, stamp: u64) -> Vec<u8> {
    let mut random = Random::new(u64::from(id) << 40 ^ stamp);
    let longest = if random.chance(3) { 5000 } else { 300 };
    let len = 12 + random.below(longest) as usize;
    let mut value = Vec::with_capacity(len + 8);
    value.extend_from_slice(&id.to_le_bytes());
    value.extend_from_slice(&stamp.to_le_bytes());
    while value.len() < len {
        value.extend_from_slice(&random.next().to_le_bytes());
    }
    value.truncate(len);
    value
}

/// The stamp of a value, which must be one of record `id`, in full.
pub fn stamp_of(id: u32, value: &[u8]) -> Verdict<u64> {
    let stamp = value.get(4..12).and_then(|bytes| bytes.try_into().ok());
    match stamp.map(u64::from_le_bytes) {
        Some(stamp) if value == stamped(id, stamp) => Ok(stamp),
        _ => refute!(
            "id {id}: {} bytes that were never written to it, beginning with {:02x?}",
            value.len(),
            &value[..value.len().min(16)]
        ),
    }
}
