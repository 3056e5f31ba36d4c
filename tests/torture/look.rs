//! Reading a database in all ways, with what was written to it beside: each read must be right or
//! say that it met damage.

use std::fmt::Debug;
use std::ops::ControlFlow;

use ourdb::{CheckReport, Db, Error, Record, Records, State};

use crate::support::model::Bytes;
use crate::support::{Verdict, require};
use crate::truth::{Truth, Version};

/// A version for a message: commit, time, value.
#[derive(Debug)]
#[expect(dead_code, reason = "it is there to be printed")]
struct Brief(u64, u64, Option<Bytes>);

impl Brief {
    fn of(records: &Records) -> Vec<Brief> {
        let item = |item: Record<'_>| {
            let value = (item.state == State::Live).then(|| Bytes(item.value.to_vec()));
            Brief(item.commit, item.time_us, value)
        };
        records.iter().map(item).collect()
    }

    fn of_version(version: &Version) -> Brief {
        let value = version.value.clone().map(Bytes);
        Brief(version.commit, version.time_us, value)
    }
}

/// An open database beside what was written to it.
pub(crate) struct Look<'a> {
    db: &'a Db,
    truth: &'a Truth,
    /// The commit that it stands at.
    commit: u64,
    /// How many reads have said that they met damage.
    pub(crate) reported: u64,
}

impl<'a> Look<'a> {
    pub(crate) fn new(db: &'a Db, truth: &'a Truth, commit: u64) -> Look<'a> {
        Look {
            db,
            truth,
            commit,
            reported: 0,
        }
    }

    /// One read: right, or it says that it met damage.
    fn read<T: Debug>(
        &mut self,
        call: impl FnOnce() -> String,
        found: Result<T, Error>,
        is_right: impl FnOnce(&Result<T, Error>) -> bool,
    ) -> Verdict {
        if let Err(Error::Corrupt { .. }) = found {
            self.reported += 1;
            return Ok(());
        }
        require!(
            is_right(&found),
            "{} as of commit {} gives {found:?}",
            call(),
            self.commit
        );
        Ok(())
    }

    /// A read of an id, which must be `expected`; not there where that is `None`.
    fn value(
        &mut self,
        call: impl Fn() -> String,
        expected: Option<&[u8]>,
        found: Result<Vec<u8>, Error>,
    ) -> Verdict {
        let call = || {
            let expected = expected.map(|value| Bytes(value.to_vec()));
            format!("{}, expected {expected:?},", call())
        };
        self.read(call, found.map(Bytes), |found| match (found, expected) {
            (Ok(found), Some(expected)) => found.0 == expected,
            (Err(Error::NotFound(_)), None) => true,
            _ => false,
        })
    }

    /// All ids that were ever in use, and some that were not.
    fn ids(&self) -> Vec<u32> {
        let mut ids: Vec<u32> = self.truth.records.keys().copied().collect();
        let last = ids.last().copied().unwrap_or(0);
        ids.extend([last + 1, last + 2, last + 64]);
        ids
    }

    pub(crate) fn records(&mut self) -> Verdict {
        let (db, truth, commit) = (self.db, self.truth, self.commit);
        self.order()?;
        let ids = self.ids();
        for &id in &ids {
            let live = truth.live(id, commit);
            let contains = db.contains(id);
            self.read(
                || format!("contains({id})"),
                contains,
                |found| matches!(found, Ok(there) if *there == live.is_some()),
            )?;
            let value = live.and_then(|version| version.value.as_deref());
            self.value(|| format!("get({id})"), value, db.get(id))?;
            let versions = truth.history(id, commit);
            let found = db.history(id, 0).map(|found| {
                let is_right = found.len() == versions.len()
                    && found
                        .iter()
                        .zip(&versions)
                        .all(|(item, version)| version.is(&item));
                (is_right, (!is_right).then(|| Brief::of(&found)))
            });
            let expected = || versions.iter().map(|version| Brief::of_version(version));
            self.read(
                || {
                    format!(
                        "history({id}, 0), expected {:?},",
                        expected().collect::<Vec<_>>()
                    )
                },
                found,
                |found| match found {
                    Ok((is_right, _)) => *is_right,
                    Err(Error::NotFound(_)) => versions.is_empty(),
                    Err(_) => false,
                },
            )?;
        }
        let is = |id: u32, item: &Record<'_>| match truth.live(id, commit) {
            Some(version) => version.is(item),
            None => item.state == State::Missing,
        };
        self.read(
            || "get_many of all ids".into(),
            db.get_many(&ids),
            |found| match found {
                Ok(found) => {
                    let mut items = ids.iter().zip(found.iter());
                    found.len() == ids.len()
                        && items.all(|(&id, item)| item.id == id && is(id, &item))
                }
                Err(_) => false,
            },
        )
    }

    /// The check names damage if any read has met some.
    pub(crate) fn check(&self) -> Verdict<CheckReport> {
        let report = self.db.check(|_, _| ControlFlow::Continue(()));
        let report = report.map_err(|error| format!("the check failed: {error}"))?;
        require!(
            self.reported == 0 || !report.is_sound(),
            "a read has met damage, and the check finds none"
        );
        Ok(report)
    }

    /// The live ids, counted and walked from both ends.
    fn order(&mut self) -> Verdict {
        let db = self.db;
        let live = self.truth.live_ids(self.commit);
        let count = live.len() as u64;
        self.read(
            || format!("count(), expected {count}"),
            db.count(),
            |found| matches!(found, Ok(found) if *found == count),
        )?;
        self.neighbour(|| "first()".into(), db.first(), live.first().copied())?;
        self.neighbour(|| "last()".into(), db.last(), live.last().copied())?;
        for (index, &id) in live.iter().enumerate() {
            let above = live.get(index + 1).copied();
            self.neighbour(|| format!("above({id})"), db.above(id), above)?;
            let below = index.checked_sub(1).map(|index| live[index]);
            self.neighbour(|| format!("below({id})"), db.below(id), below)?;
        }
        if self.truth.key_value {
            return Ok(());
        }
        let next = self.truth.next_id(self.commit);
        self.neighbour(|| "next_id()".into(), db.next_id(), Some(next))
    }

    fn neighbour(
        &mut self,
        call: impl FnOnce() -> String,
        found: Result<u32, Error>,
        expected: Option<u32>,
    ) -> Verdict {
        let call = || format!("{}, expected {expected:?},", call());
        self.read(call, found, |found| match found {
            Ok(found) => Some(*found) == expected,
            Err(Error::NotFound(_)) => expected.is_none(),
            Err(_) => false,
        })
    }

    /// Every version, by its commit and by its time, and what was before it.
    pub(crate) fn past(&mut self) -> Verdict {
        let (db, truth) = (self.db, self.truth);
        for id in self.ids() {
            let versions = truth.history(id, self.commit);
            let mut commits: Vec<u64> = versions.iter().map(|version| version.commit).collect();
            commits.extend(
                commits
                    .clone()
                    .iter()
                    .filter_map(|commit| commit.checked_sub(1)),
            );
            commits.push(self.commit + 1);
            for commit in commits {
                let value = Truth::as_of(&versions, |version| version.commit.cmp(&commit));
                self.value(
                    || format!("get_version({id}, {commit})"),
                    value,
                    db.get_version(id, commit),
                )?;
            }
            for time_us in versions.iter().map(|version| version.time_us) {
                let value = Truth::as_of(&versions, |version| version.time_us.cmp(&time_us));
                self.value(
                    || format!("get_at({id}, {time_us})"),
                    value,
                    db.get_at(id, time_us),
                )?;
            }
        }
        Ok(())
    }
}
