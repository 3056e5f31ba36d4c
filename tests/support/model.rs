//! The reference model: a map from id to list of versions.
//!
//! It answers every call as OurDB must, failures included, and knows nothing of files. Where
//! several causes of failure apply to one call, any of them is a right answer; where one applies,
//! only that one is.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::RangeInclusive;

use ourdb::error::{Error, Neighbour, NotFound};
use ourdb::options::{DEFAULT_RECORD_NR_MAX, DEFAULT_RECORD_SIZE_MAX};
use ourdb::{Db, Record, Records, Retention, State};
use proptest::prelude::*;

use super::{Context, Random, Verdict, refute, require};

/// The bytes of a value, made from a seed, so that a test case stays readable when printed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Value {
    pub seed: u16,
    pub len: u32,
}

impl Value {
    /// The seed in front where there is room, then noise; for some seeds all zeros, which is what
    /// a log looks like where nothing was written, or all ones.
    pub fn bytes(&self) -> Vec<u8> {
        let len = self.len as usize;
        let mut bytes = match self.seed % 8 {
            6 => vec![0; len],
            7 => vec![0xff; len],
            _ => {
                let mut random = Random::new(u64::from(self.seed));
                let mut noise = Vec::with_capacity(len + 8);
                while noise.len() < len {
                    noise.extend_from_slice(&random.next().to_le_bytes());
                }
                noise.truncate(len);
                noise
            }
        };
        if let Some(front) = bytes.first_chunk_mut::<2>()
            && self.seed % 8 < 6
        {
            *front = self.seed.to_le_bytes();
        }
        bytes
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Value {{ seed: {}, len: {} }}", self.seed, self.len)
    }
}

/// Bytes that print as their length and beginning.
#[derive(Clone, PartialEq, Eq)]
pub struct Bytes(pub Vec<u8>);

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sum = self.0.iter().fold(0xcbf2_9ce4_8422_2325u64, |hash, &byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let front = &self.0[..self.0.len().min(8)];
        write!(
            f,
            "<{} bytes {front:02x?} hash {:08x}>",
            self.0.len(),
            sum >> 32
        )
    }
}

/// Why a call must fail, or did: the kinds of [`Error`], comparable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    NotFound(NotFound),
    InvalidArgument,
    IdNotAssigned { id: u32 },
    IdOutOfRange { id: u32, limit: u32 },
    RecordTooLarge { len: u64, limit: u64 },
    Full,
    Locked,
    ReadOnly,
    Corrupt,
    Incompatible,
    Io,
    NoSpace,
    OutOfMemory,
    Poisoned,
    Forked,
    WrongMode,
    Conflict,
    Busy,
    Cancelled,
    Unknown,
}

impl Refusal {
    pub fn of(error: &Error) -> Refusal {
        match error {
            Error::NotFound(what) => Refusal::NotFound(what.clone()),
            Error::InvalidArgument(_) => Refusal::InvalidArgument,
            Error::IdNotAssigned { id } => Refusal::IdNotAssigned { id: *id },
            Error::IdOutOfRange { id, limit } => Refusal::IdOutOfRange {
                id: *id,
                limit: *limit,
            },
            Error::RecordTooLarge { len, limit, .. } => Refusal::RecordTooLarge {
                len: *len,
                limit: *limit,
            },
            Error::Full(_) => Refusal::Full,
            Error::Locked { .. } => Refusal::Locked,
            Error::ReadOnly { .. } => Refusal::ReadOnly,
            Error::Corrupt { .. } => Refusal::Corrupt,
            Error::Incompatible(_) => Refusal::Incompatible,
            Error::Io { .. } => Refusal::Io,
            Error::NoSpace { .. } => Refusal::NoSpace,
            Error::OutOfMemory { .. } => Refusal::OutOfMemory,
            Error::Poisoned { .. } => Refusal::Poisoned,
            Error::Forked => Refusal::Forked,
            Error::WrongMode { .. } => Refusal::WrongMode,
            Error::Conflict { .. } => Refusal::Conflict,
            Error::Busy { .. } => Refusal::Busy,
            Error::Cancelled => Refusal::Cancelled,
            _ => Refusal::Unknown,
        }
    }
}

/// What a call must give: a result, or one of these refusals.
pub type Expected<T> = Result<T, Vec<Refusal>>;

/// Compares what a call gave with what it must give.
pub fn compare<T: PartialEq + fmt::Debug>(
    call: impl FnOnce() -> String,
    expected: &Expected<T>,
    found: Result<T, Error>,
) -> Verdict {
    let right = match (expected, &found) {
        (Ok(expected), Ok(found)) => expected == found,
        (Err(refusals), Err(error)) => refusals.contains(&Refusal::of(error)),
        _ => false,
    };
    if right {
        return Ok(());
    }
    let found = match &found {
        Ok(value) => format!("{value:?}"),
        Err(error) => format!("failure {:?}: {error}", Refusal::of(error)),
    };
    let expected = match expected {
        Ok(value) => format!("{value:?}"),
        Err(refusals) => format!("failure, one of {refusals:?}"),
    };
    refute!("{}\n  expected {expected}\n  found    {found}", call())
}

/// A call that changes records, one commit if it succeeds.
#[derive(Clone, Debug)]
pub enum Write {
    Insert(Value),
    Set(u32, Value),
    Delete(u32),
    InsertMany(Vec<Value>),
    SetMany(Vec<(u32, Value)>),
    DeleteMany(Vec<u32>),
    /// A transaction of these, in this order; `None` deletes.
    Txn(Vec<(u32, Option<Value>)>),
    Clear,
    Erase(u32),
    /// A record as of a commit.
    Revert(u32, u64),
    RevertAll(u64),
}

/// What a successful [`Write`] gives back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done,
    Id(u32),
    Ids(Vec<u32>),
}

impl Write {
    /// Asks the database for it.
    pub fn perform(&self, db: &Db) -> Result<Outcome, Error> {
        let done = |()| Outcome::Done;
        match self {
            Write::Insert(value) => db.insert(&value.bytes()).map(Outcome::Id),
            Write::Set(id, value) => db.set(*id, &value.bytes()).map(done),
            Write::Delete(id) => db.delete(*id).map(done),
            Write::InsertMany(values) => {
                let values: Vec<Vec<u8>> = values.iter().map(Value::bytes).collect();
                let values: Vec<&[u8]> = values.iter().map(Vec::as_slice).collect();
                db.insert_many(&values).map(Outcome::Ids)
            }
            Write::SetMany(records) => {
                let values: Vec<Vec<u8>> = records.iter().map(|(_, value)| value.bytes()).collect();
                let records: Vec<(u32, &[u8])> = records
                    .iter()
                    .zip(&values)
                    .map(|((id, _), bytes)| (*id, &bytes[..]))
                    .collect();
                db.set_many(&records).map(done)
            }
            Write::DeleteMany(ids) => db.delete_many(ids).map(done),
            Write::Txn(writes) => {
                let mut txn = db.begin()?;
                for (id, value) in writes {
                    match value {
                        Some(value) => txn.set(*id, &value.bytes())?,
                        None => txn.delete(*id)?,
                    }
                }
                txn.commit().map(done)
            }
            Write::Clear => db.clear().map(done),
            Write::Erase(id) => db.erase(*id).map(done),
            Write::Revert(id, commit) => db.revert(*id, *commit).map(done),
            Write::RevertAll(commit) => db.revert_all(*commit).map(done),
        }
    }
}

/// What a version of a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Put(Value),
    Deletion,
    /// What was before it is gone.
    Erasure,
    /// What is left of a value that was erased where it came from, and what was before it with it.
    Remnant,
}

impl Kind {
    fn of(value: Option<Value>) -> Kind {
        value.map_or(Kind::Deletion, Kind::Put)
    }
}

/// One version of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    pub commit: u64,
    pub kind: Kind,
}

impl Version {
    fn value(&self) -> Option<Value> {
        match self.kind {
            Kind::Put(value) => Some(value),
            _ => None,
        }
    }
}

/// A version that was erased, and by which commit.
#[derive(Clone, Copy, Debug)]
struct Erased {
    id: u32,
    by: u64,
    version: Version,
    /// No compaction has taken what is left of it.
    is_left: bool,
}

/// One version as a history gives it; its time is checked by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    pub id: u32,
    pub state: State,
    pub commit: u64,
    pub value: Bytes,
}

impl Item {
    fn of(record: &Record<'_>) -> Item {
        Item {
            id: record.id,
            state: record.state,
            commit: record.commit,
            value: Bytes(record.value.to_vec()),
        }
    }

    fn all_of(records: &Records) -> Vec<Item> {
        records.iter().map(|record| Item::of(&record)).collect()
    }

    fn of_version(id: u32, version: &Version) -> Item {
        Item {
            id,
            state: match version.kind {
                Kind::Put(_) => State::Live,
                Kind::Deletion => State::Deleted,
                Kind::Erasure | Kind::Remnant => State::Erased,
            },
            commit: version.commit,
            value: Bytes(version.value().map_or(Vec::new(), |value| value.bytes())),
        }
    }

    fn missing(id: u32) -> Item {
        Item {
            id,
            state: State::Missing,
            commit: 0,
            value: Bytes(Vec::new()),
        }
    }
}

/// What a database must hold.
#[derive(Clone, Debug)]
pub struct Model {
    pub key_value: bool,
    pub record_nr_max: u32,
    pub record_size_max: u32,
    records: BTreeMap<u32, Vec<Version>>,
    /// In the order in which they were erased, and of each record the oldest version first.
    erased: Vec<Erased>,
    /// The commits that are clears.
    clears: BTreeSet<u64>,
    /// How many versions have had the bytes that come from a seed.
    puts: BTreeMap<u16, u32>,
    last_commit: u64,
    /// The commit from which on every version is kept.
    oldest: u64,
    /// The commits that differences of states began after and led to, and those that they left out.
    differences: Vec<(u64, u64)>,
    left_out: BTreeSet<u64>,
    /// Ids below this were given out, though a compaction may have left nothing of them.
    given_out: u32,
    /// Ids of which a compaction has left nothing.
    vanished: BTreeSet<u32>,
    /// When each commit was made, from commit 1, as far as the database has told.
    times: Vec<u64>,
}

/// What a write comes to: its answer, and the versions that it adds.
pub type Plan = (Outcome, Vec<(u32, Kind)>);

impl Model {
    /// An empty database; a limit of 0 is the default, as in the options.
    pub fn new(key_value: bool, record_nr_max: u32, record_size_max: u32) -> Model {
        let or = |asked, default| if asked == 0 { default } else { asked };
        Model {
            key_value,
            record_nr_max: or(record_nr_max, DEFAULT_RECORD_NR_MAX),
            record_size_max: or(record_size_max, DEFAULT_RECORD_SIZE_MAX),
            records: BTreeMap::new(),
            erased: Vec::new(),
            clears: BTreeSet::new(),
            puts: BTreeMap::new(),
            last_commit: 0,
            oldest: 0,
            differences: Vec::new(),
            vanished: BTreeSet::new(),
            left_out: BTreeSet::new(),
            given_out: 1,
            times: Vec::new(),
        }
    }

    /// Adds a version that herolib wrote, of no commit, to those before all commits.
    pub fn import(&mut self, id: u32, value: Value) {
        self.push(id, 0, Kind::Put(value));
    }

    fn push(&mut self, id: u32, commit: u64, kind: Kind) {
        if let Kind::Put(value) = kind {
            *self.puts.entry(value.seed).or_default() += 1;
        }
        let versions = self.records.entry(id).or_default();
        if matches!(kind, Kind::Erasure | Kind::Remnant) {
            let gone = versions.drain(..).map(|version| Erased {
                id,
                by: commit,
                version,
                is_left: true,
            });
            self.erased.extend(gone);
        }
        versions.push(Version { commit, kind });
    }

    /// What was there after `commit`.
    pub fn as_of(&self, commit: u64) -> Model {
        let mut past = self.clone();
        past.last_commit = commit;
        past.times.truncate(commit as usize);
        past.records.retain(|_, versions| {
            versions.retain(|version| version.commit <= commit);
            !versions.is_empty()
        });
        past.clears.retain(|&clear| clear <= commit);
        past.erased.retain(|erased| erased.by <= commit);
        let not_yet = self.erased.iter().filter(|erased| erased.by > commit);
        for erased in not_yet.filter(|erased| erased.version.commit <= commit) {
            let versions = past.records.entry(erased.id).or_default();
            versions.push(erased.version);
        }
        past
    }

    /// Whether `later` may have begun as this one, with the same commits: those that are dated here
    /// and there are dated alike.
    pub fn may_be_beginning_of(&self, later: &Model) -> bool {
        let then = later.as_of(self.last_commit);
        self.last_commit <= later.last_commit
            && self.records == then.records
            && self.clears == then.clears
            && self.times.iter().zip(&then.times).all(|(a, b)| a == b)
    }

    /// Values of which nothing is to be found in any file any more, with their ids.
    pub fn gone(&self) -> Vec<(u32, Value)> {
        let mut gone = Vec::new();
        let mut counts: BTreeMap<u16, u32> = BTreeMap::new();
        for erased in &self.erased {
            if let Kind::Put(value) = erased.version.kind {
                *counts.entry(value.seed).or_default() += 1;
                gone.push((erased.id, value));
            }
        }
        // The same bytes may stand somewhere else.
        gone.retain(|(_, value)| counts.get(&value.seed) == self.puts.get(&value.seed));
        gone
    }

    /// The same where what `later` has erased since is overwritten already, and the erasures are not
    /// there.
    pub fn overwritten(&self, later: &Model) -> Model {
        let mut model = self.clone();
        let since = self.last_commit;
        for erased in later.erased.iter().filter(|erased| erased.by > since) {
            let Some(versions) = model.records.get_mut(&erased.id) else {
                continue;
            };
            let is_it = |version: &Version| {
                version.value().is_some() && version.commit == erased.version.commit
            };
            if let Some(index) = versions.iter().position(is_it) {
                versions[index].kind = Kind::Remnant;
                versions.drain(..index);
            }
        }
        model
    }

    /// Whether records were erased after `commit`.
    pub fn has_erased_since(&self, commit: u64) -> bool {
        self.erased.iter().any(|erased| erased.by > commit)
    }

    /// Asks from which commit on every version is there: not after the last one that is compacted.
    pub fn learn_oldest(&mut self, db: &Db) -> Verdict {
        let stats = db.stats().map_err(|error| format!("stats(): {error}"))?;
        require!(
            stats.oldest_commit <= self.last_commit || self.leads_to(stats.oldest_commit),
            "every version is kept from commit {} on, and the last one is {}",
            stats.oldest_commit,
            self.last_commit
        );
        self.oldest = stats.oldest_commit;
        Ok(())
    }

    /// The commit that the difference leads to in the middle of which it is.
    fn end_of_difference(&self) -> Option<u64> {
        let last = self.last_commit;
        let within = self.differences.iter();
        let within = within.filter(|(since, goal)| *since < last && last < *goal);
        within.map(|(_, goal)| *goal).max()
    }

    /// Whether a difference leads to that commit. That it does is on disk before it begins, and before
    /// what was there when it did.
    fn leads_to(&self, commit: u64) -> bool {
        self.differences.iter().any(|(_, goal)| *goal == commit)
    }

    /// In the middle of a difference a database says that it is.
    fn check_between(&self, db: &Db) -> Verdict {
        if self.differences.is_empty() {
            return Ok(());
        }
        let stats = db.stats().map_err(|error| format!("stats(): {error}"))?;
        let (oldest, last) = (stats.oldest_commit, self.last_commit);
        match self.end_of_difference() {
            Some(end) => require!(
                oldest >= end,
                "in the middle of a difference that leads to commit {end}, and all is there from {oldest} on"
            ),
            None => require!(
                oldest <= last || self.leads_to(oldest),
                "all is there from {oldest} on, and the last commit is {last}"
            ),
        }
        Ok(())
    }

    /// Does what `source` did in its commits after the last one here and up to `upto`, as it is told
    /// now: of what was erased there since, nothing but that it was is told. What it did up to commit
    /// `goal` comes as a difference of states, if that is after the last one here.
    pub fn follow(&mut self, source: &Model, upto: u64, goal: u64) {
        let told = self.last_commit + 1..=upto;
        if goal > self.last_commit {
            self.differences.push((self.last_commit, goal));
            self.oldest = self.oldest.max(goal);
        }
        let mut changes: BTreeMap<u64, Vec<(u32, Kind)>> = BTreeMap::new();
        let mut note = |id: u32, version: &Version, erased: bool| {
            let kind = match version.kind {
                Kind::Put(_) if erased => Kind::Remnant,
                kind => kind,
            };
            if told.contains(&version.commit) {
                changes.entry(version.commit).or_default().push((id, kind));
            }
        };
        for (&id, versions) in &source.records {
            versions.iter().for_each(|version| note(id, version, false));
        }
        for erased in source.erased.iter().filter(|erased| erased.is_left) {
            note(erased.id, &erased.version, true);
        }
        for commit in told.clone() {
            let mut added = changes.remove(&commit).unwrap_or_default();
            if commit < goal && added.is_empty() {
                self.left_out.insert(commit);
                continue;
            }
            let is_clear = commit > goal && source.clears.contains(&commit);
            if is_clear {
                let live = self.live_ids().map(|id| (id, Kind::Deletion));
                added = live.collect();
            }
            if commit == goal {
                // What was erased there since is among it.
                let is_gone = |id: &u32| {
                    let is_changed = added.iter().any(|(changed, _)| changed == id);
                    !is_changed && source.live_at(*id, goal).is_none()
                };
                let gone: Vec<u32> = self.live_ids().filter(is_gone).collect();
                added.extend(gone.into_iter().map(|id| (id, Kind::Deletion)));
            }
            self.last_commit = commit - 1;
            self.commit(&added, is_clear);
        }
        self.last_commit = self.last_commit.max(upto);
        let known = source.times.iter().take(upto as usize);
        self.times = known.copied().collect();
    }

    /// Makes the next commit.
    fn commit(&mut self, added: &[(u32, Kind)], is_clear: bool) {
        self.last_commit += 1;
        for &(id, kind) in added {
            self.push(id, self.last_commit, kind);
        }
        if is_clear {
            self.clears.insert(self.last_commit);
        }
    }

    pub fn last_commit(&self) -> u64 {
        self.last_commit
    }

    /// The ids that ever held a record, ascending.
    pub fn ids(&self) -> Vec<u32> {
        self.records.keys().copied().collect()
    }

    fn next(&self) -> u32 {
        let last = self.records.last_key_value();
        last.map_or(1, |(&id, _)| id + 1).max(self.given_out)
    }

    /// What a compaction leaves: the versions that `retention` keeps. From then on the past before
    /// the last commit is not to be asked for with [`Model::as_of`].
    pub fn compact(&mut self, retention: &Retention) {
        self.given_out = self.next();
        for erased in &mut self.erased {
            erased.is_left = false;
        }
        let (times, vanished) = (&self.times, &mut self.vanished);
        let since = |limit: u64, of: u64| limit != 0 && of >= limit;
        self.records.retain(|&id, versions| {
            let count = versions.len();
            let mut index = 0;
            versions.retain(|version| {
                index += 1;
                let newer = (count - index) as u64;
                let time = version.commit.checked_sub(1);
                let time = time.and_then(|index| times.get(index as usize));
                newer < retention.keep_versions
                    || newer == 0 && version.value().is_some()
                    || since(retention.keep_since_commit, version.commit)
                    || since(retention.keep_since_us, time.copied().unwrap_or(0))
            });
            if versions.is_empty() {
                vanished.insert(id);
            }
            !versions.is_empty()
        });
    }

    fn live(&self, id: u32) -> Option<(u64, Value)> {
        let newest = self.records.get(&id)?.last()?;
        newest.value().map(|value| (newest.commit, value))
    }

    /// The same as of a commit.
    fn live_at(&self, id: u32, commit: u64) -> Option<(u64, Value)> {
        let mut versions = self.records.get(&id)?.iter().rev();
        let newest = versions.find(|version| version.commit <= commit)?;
        newest.value().map(|value| (newest.commit, value))
    }

    fn live_ids(&self) -> impl DoubleEndedIterator<Item = u32> + '_ {
        self.records
            .keys()
            .copied()
            .filter(|&id| self.live(id).is_some())
    }

    fn out_of_range(&self, id: u32) -> Option<Refusal> {
        (id >= self.record_nr_max).then_some(Refusal::IdOutOfRange {
            id,
            limit: self.record_nr_max,
        })
    }

    fn too_large(&self, value: &Value) -> Option<Refusal> {
        let (len, limit) = (u64::from(value.len), u64::from(self.record_size_max));
        (len > limit).then_some(Refusal::RecordTooLarge { len, limit })
    }

    /// What a write must answer and add, without doing it.
    pub fn plan(&self, write: &Write) -> Expected<Plan> {
        let mut refusals = Vec::new();
        let mut added: BTreeMap<u32, Option<Value>> = BTreeMap::new();
        let mut insert = |values: &[Value], refusals: &mut Vec<Refusal>| -> Vec<u32> {
            refusals.extend(values.iter().filter_map(|value| self.too_large(value)));
            if self.key_value && !values.is_empty() {
                refusals.push(Refusal::WrongMode);
                return Vec::new();
            }
            let left = u64::from(self.record_nr_max).saturating_sub(u64::from(self.next()));
            if values.len() as u64 > left {
                refusals.push(Refusal::Full);
                return Vec::new();
            }
            let ids: Vec<u32> = (self.next()..).take(values.len()).collect();
            added.extend(ids.iter().copied().zip(values.iter().copied().map(Some)));
            ids
        };
        let outcome = match write {
            Write::Insert(value) => {
                let ids = insert(&[*value], &mut refusals);
                ids.first().map_or(Outcome::Done, |&id| Outcome::Id(id))
            }
            Write::InsertMany(values) => Outcome::Ids(insert(values, &mut refusals)),
            Write::Set(id, value) => {
                self.plan_set(&[(*id, *value)], &mut added, &mut refusals);
                Outcome::Done
            }
            Write::SetMany(records) => {
                self.plan_set(records, &mut added, &mut refusals);
                Outcome::Done
            }
            Write::Delete(id) => {
                self.plan_delete(&[*id], &mut added, &mut refusals);
                Outcome::Done
            }
            Write::DeleteMany(ids) => {
                self.plan_delete(ids, &mut added, &mut refusals);
                Outcome::Done
            }
            Write::Txn(writes) => {
                self.plan_txn(writes, &mut added, &mut refusals);
                Outcome::Done
            }
            Write::Clear => {
                added.extend(self.live_ids().map(|id| (id, None)));
                Outcome::Done
            }
            Write::Erase(id) => {
                let newest = self.records.get(id).and_then(|versions| versions.last());
                refusals.extend(self.out_of_range(*id));
                refusals.extend(match newest.map(|version| version.kind) {
                    None => Some(Refusal::NotFound(NotFound::History(*id))),
                    Some(Kind::Erasure) => Some(Refusal::NotFound(NotFound::Record(*id))),
                    Some(_) => None,
                });
                if refusals.is_empty() {
                    return Ok((Outcome::Done, vec![(*id, Kind::Erasure)]));
                }
                Outcome::Done
            }
            Write::Revert(id, commit) => {
                let (id, commit) = (*id, *commit);
                refusals.extend(self.out_of_range(id));
                refusals.extend(self.no_moment(commit));
                match self.live_at(id, commit) {
                    Some((_, value)) => drop(added.insert(id, Some(value))),
                    None => refusals.push(Refusal::NotFound(NotFound::AtCommit { id, commit })),
                }
                Outcome::Done
            }
            Write::RevertAll(commit) => {
                refusals.extend(self.no_moment(*commit));
                for &id in self.records.keys() {
                    let then = self.live_at(id, *commit);
                    if then != self.live(id) {
                        added.insert(id, then.map(|(_, value)| value));
                    }
                }
                Outcome::Done
            }
        };
        if refusals.is_empty() {
            let added = added.into_iter();
            Ok((
                outcome,
                added.map(|(id, value)| (id, Kind::of(value))).collect(),
            ))
        } else {
            Err(refusals)
        }
    }

    fn no_moment(&self, commit: u64) -> Option<Refusal> {
        let (oldest, last) = (self.oldest, self.last_commit);
        let what = NotFound::Commit {
            commit,
            oldest,
            last,
        };
        (commit < oldest || commit > last).then_some(Refusal::NotFound(what))
    }

    fn plan_set(
        &self,
        records: &[(u32, Value)],
        added: &mut BTreeMap<u32, Option<Value>>,
        refusals: &mut Vec<Refusal>,
    ) {
        for (id, value) in records {
            if let Some(refusal) = self.out_of_range(*id) {
                refusals.push(refusal);
            } else if !self.key_value && self.live(*id).is_none() {
                refusals.push(Refusal::IdNotAssigned { id: *id });
            }
            refusals.extend(self.too_large(value));
            added.insert(*id, Some(*value));
        }
    }

    fn plan_delete(
        &self,
        ids: &[u32],
        added: &mut BTreeMap<u32, Option<Value>>,
        refusals: &mut Vec<Refusal>,
    ) {
        for id in ids {
            if let Some(refusal) = self.out_of_range(*id) {
                refusals.push(refusal);
            } else if self.live(*id).is_none() {
                refusals.push(Refusal::NotFound(NotFound::Record(*id)));
            }
            added.insert(*id, None);
        }
    }

    fn plan_txn(
        &self,
        writes: &[(u32, Option<Value>)],
        added: &mut BTreeMap<u32, Option<Value>>,
        refusals: &mut Vec<Refusal>,
    ) {
        for (id, value) in writes {
            let own = added.get(id).map(Option::is_some);
            let is_there = own.unwrap_or_else(|| self.live(*id).is_some());
            refusals.extend(self.out_of_range(*id));
            refusals.extend(value.and_then(|value| self.too_large(&value)));
            if refusals.is_empty() && !is_there && value.is_none() {
                refusals.push(Refusal::NotFound(NotFound::Record(*id)));
            }
            if refusals.is_empty() && !is_there && !self.key_value {
                refusals.push(Refusal::IdNotAssigned { id: *id });
            }
            // It ends with the first write that can't be done.
            if !refusals.is_empty() {
                return;
            }
            added.insert(*id, *value);
        }
        // What it has made and deleted itself was never there.
        added.retain(|id, value| value.is_some() || self.live(*id).is_some());
    }

    /// What `write` must answer.
    pub fn expected(&self, write: &Write) -> Expected<Outcome> {
        self.plan(write).map(|(outcome, _)| outcome)
    }

    /// Does `write`, if it can be done.
    pub fn apply(&mut self, write: &Write) -> Expected<Outcome> {
        let (outcome, added) = self.plan(write)?;
        self.add(write, &added);
        Ok(outcome)
    }

    /// Does what `write` was planned to be in a database that has the same records.
    pub fn add(&mut self, write: &Write, added: &[(u32, Kind)]) {
        if !added.is_empty() {
            self.commit(added, matches!(write, Write::Clear));
        }
    }

    /// Asks the database for `write` and compares the answer; on success the model follows.
    pub fn perform(&mut self, db: &Db, write: &Write) -> Verdict {
        let expected = self.apply(write);
        compare(|| format!("{write:?}"), &expected, write.perform(db))?;
        if expected.is_ok() {
            self.learn_time(db)
        } else {
            Ok(())
        }
    }

    /// Asks when the last commit was made: at most one time for each commit, none before the
    /// commit before.
    pub fn learn_time(&mut self, db: &Db) -> Verdict {
        if self.times.len() as u64 + 1 != self.last_commit {
            return Ok(());
        }
        let newest = self.records.iter().find(|(_, versions)| {
            versions
                .last()
                .is_some_and(|version| version.commit == self.last_commit)
        });
        let Some((&id, _)) = newest else {
            return Ok(());
        };
        let history = db
            .history(id, 1)
            .map_err(|error| format!("history({id}, 1) after a write of id {id}: {error}"))?;
        let Some(record) = history.get(0) else {
            refute!("history({id}, 1) after a write of id {id} is empty");
        };
        require!(
            record.commit == self.last_commit,
            "history({id}, 1): expected the version of commit {}, found that of commit {}",
            self.last_commit,
            record.commit
        );
        let before = self.times.last().copied().unwrap_or(1);
        require!(
            record.time_us >= before,
            "commit {} is dated {}, before commit {} at {before}",
            record.commit,
            record.time_us,
            record.commit - 1
        );
        self.times.push(record.time_us);
        Ok(())
    }

    /// When `commit` was made, if the database has told.
    pub fn time(&self, commit: u64) -> Option<u64> {
        self.times.get(commit.checked_sub(1)? as usize).copied()
    }

    pub fn get(&self, id: u32) -> Expected<Bytes> {
        if let Some(refusal) = self.out_of_range(id) {
            return Err(vec![refusal]);
        }
        match self.live(id) {
            Some((_, value)) => Ok(Bytes(value.bytes())),
            None => Err(vec![Refusal::NotFound(NotFound::Record(id))]),
        }
    }

    pub fn contains(&self, id: u32) -> bool {
        self.live(id).is_some()
    }

    pub fn next_id(&self) -> Expected<u32> {
        if self.key_value {
            return Err(vec![Refusal::WrongMode]);
        }
        match self.next() {
            id if id < self.record_nr_max => Ok(id),
            _ => Err(vec![Refusal::Full]),
        }
    }

    pub fn count(&self) -> u64 {
        self.live_ids().count() as u64
    }

    pub fn get_many(&self, ids: &[u32]) -> Vec<Item> {
        let item = |&id| match self.records.get(&id).and_then(|versions| versions.last()) {
            Some(version) if version.value().is_some() => Item::of_version(id, version),
            _ => Item::missing(id),
        };
        ids.iter().map(item).collect()
    }

    fn neighbour(found: Option<u32>, which: Neighbour) -> Expected<u32> {
        found.ok_or_else(|| vec![Refusal::NotFound(NotFound::Neighbour(which))])
    }

    pub fn first(&self) -> Expected<u32> {
        Model::neighbour(self.live_ids().next(), Neighbour::First)
    }

    pub fn last(&self) -> Expected<u32> {
        Model::neighbour(self.live_ids().next_back(), Neighbour::Last)
    }

    pub fn above(&self, id: u32) -> Expected<u32> {
        Model::neighbour(
            self.live_ids().find(|&live| live > id),
            Neighbour::Above(id),
        )
    }

    pub fn below(&self, id: u32) -> Expected<u32> {
        Model::neighbour(
            self.live_ids().rev().find(|&live| live < id),
            Neighbour::Below(id),
        )
    }

    pub fn history(&self, id: u32, max: usize) -> Expected<Vec<Item>> {
        if let Some(refusal) = self.out_of_range(id) {
            return Err(vec![refusal]);
        }
        let Some(versions) = self.records.get(&id) else {
            return Err(vec![Refusal::NotFound(NotFound::History(id))]);
        };
        let max = if max == 0 { usize::MAX } else { max };
        Ok(versions
            .iter()
            .rev()
            .take(max)
            .map(|version| Item::of_version(id, version))
            .collect())
    }

    /// The value of `id` as of the last version that is in `range` of commits, or what must be
    /// said when there is none.
    fn as_of_commits(
        &self,
        id: u32,
        range: RangeInclusive<u64>,
        otherwise: NotFound,
    ) -> Expected<Bytes> {
        if let Some(refusal) = self.out_of_range(id) {
            return Err(vec![refusal]);
        }
        let Some(versions) = self.records.get(&id) else {
            return Err(vec![
                Refusal::NotFound(otherwise),
                Refusal::NotFound(NotFound::History(id)),
                Refusal::NotFound(NotFound::Record(id)),
            ]);
        };
        let newest = versions
            .iter()
            .rev()
            .find(|version| range.contains(&version.commit));
        match newest.and_then(Version::value) {
            Some(value) => Ok(Bytes(value.bytes())),
            None => Err(vec![Refusal::NotFound(otherwise)]),
        }
    }

    pub fn get_version(&self, id: u32, commit: u64) -> Expected<Bytes> {
        self.as_of_commits(id, 0..=commit, NotFound::AtCommit { id, commit })
    }

    pub fn get_at(&self, id: u32, time_us: u64) -> Expected<Bytes> {
        let commits = self
            .times
            .iter()
            .take_while(|&&time| time <= time_us)
            .count();
        self.as_of_commits(id, 0..=commits as u64, NotFound::AtTime { id, time_us })
    }

    // Each call of the reading half, compared with the database.

    pub fn check_get(&self, db: &Db, id: u32) -> Verdict {
        compare(
            || format!("get({id})"),
            &self.get(id),
            db.get(id).map(Bytes),
        )
    }

    pub fn check_get_with(&self, db: &Db, id: u32) -> Verdict {
        let found = db.get_with(id, |value| Bytes(value.to_vec()));
        compare(|| format!("get_with({id})"), &self.get(id), found)
    }

    pub fn check_contains(&self, db: &Db, id: u32) -> Verdict {
        compare(
            || format!("contains({id})"),
            &Ok(self.contains(id)),
            db.contains(id),
        )
    }

    pub fn check_next_id(&self, db: &Db) -> Verdict {
        compare(|| "next_id()".into(), &self.next_id(), db.next_id())
    }

    pub fn check_count(&self, db: &Db) -> Verdict {
        compare(|| "count()".into(), &Ok(self.count()), db.count())
    }

    pub fn check_last_commit(&self, db: &Db) -> Verdict {
        compare(
            || "last_commit()".into(),
            &Ok(self.last_commit),
            db.last_commit(),
        )
    }

    pub fn check_get_many(&self, db: &Db, ids: &[u32]) -> Verdict {
        let found = db.get_many(ids);
        if let Ok(records) = &found {
            self.check_times(records)?;
        }
        let found = found.map(|records| Item::all_of(&records));
        compare(
            || format!("get_many({ids:?})"),
            &Ok(self.get_many(ids)),
            found,
        )
    }

    pub fn check_first(&self, db: &Db) -> Verdict {
        compare(|| "first()".into(), &self.first(), db.first())
    }

    pub fn check_last(&self, db: &Db) -> Verdict {
        compare(|| "last()".into(), &self.last(), db.last())
    }

    pub fn check_above(&self, db: &Db, id: u32) -> Verdict {
        compare(|| format!("above({id})"), &self.above(id), db.above(id))
    }

    pub fn check_below(&self, db: &Db, id: u32) -> Verdict {
        compare(|| format!("below({id})"), &self.below(id), db.below(id))
    }

    pub fn check_history(&self, db: &Db, id: u32, max: usize) -> Verdict {
        let found = db.history(id, max);
        if let Ok(records) = &found {
            self.check_times(records)?;
        }
        let found = found.map(|records| Item::all_of(&records));
        compare(
            || format!("history({id}, {max})"),
            &self.history(id, max),
            found,
        )
    }

    pub fn check_get_version(&self, db: &Db, id: u32, commit: u64) -> Verdict {
        let found = db.get_version(id, commit).map(Bytes);
        compare(
            || format!("get_version({id}, {commit})"),
            &self.get_version(id, commit),
            found,
        )
    }

    pub fn check_get_at(&self, db: &Db, id: u32, time_us: u64) -> Verdict {
        let found = db.get_at(id, time_us).map(Bytes);
        compare(
            || format!("get_at({id}, {time_us})"),
            &self.get_at(id, time_us),
            found,
        )
    }

    /// Every version carries the time of its commit.
    fn check_times(&self, records: &Records) -> Verdict {
        for record in records.iter() {
            let expected = match record.state {
                State::Missing => Some(0),
                State::Live | State::Deleted | State::Erased => self.time(record.commit),
            };
            require!(
                expected.is_none_or(|time| time == record.time_us),
                "id {} of commit {}: expected the time {expected:?} of that commit, found {}",
                record.id,
                record.commit,
                record.time_us
            );
        }
        Ok(())
    }

    /// Compares everything that can be asked: current values, order, histories, the past.
    pub fn check_all(&self, db: &Db) -> Verdict {
        self.check_next_id(db)?;
        self.check_records(db)
    }

    /// The same but for the next id, which an insert that failed may have used up.
    pub fn check_records(&self, db: &Db) -> Verdict {
        self.check_last_commit(db)?;
        self.check_count(db)?;
        self.check_order(db)?;
        let mut ids = self.ids();
        // Neighbours of what was ever there, and the edges.
        ids.extend(self.records.keys().filter_map(|id| id.checked_add(1)));
        ids.extend(&self.vanished);
        ids.extend([0, 1, self.record_nr_max - 1, self.record_nr_max, u32::MAX]);
        ids.sort_unstable();
        ids.dedup();
        for &id in &ids {
            self.check_get(db, id)?;
            self.check_contains(db, id)?;
            self.check_history(db, id, 0)?;
            self.check_get_version(db, id, self.last_commit + 1)?;
            for version in self.records.get(&id).into_iter().flatten() {
                self.check_get_version(db, id, version.commit)?;
                if version.commit > 0 {
                    self.check_get_version(db, id, version.commit - 1)?;
                }
                if let Some(time) = self.time(version.commit) {
                    self.check_get_at(db, id, time)?;
                    self.check_get_at(db, id, time - 1)?;
                }
            }
        }
        self.check_get_many(db, &ids)
    }

    /// Compares the order of the live ids, walked from both ends.
    pub fn check_order(&self, db: &Db) -> Verdict {
        self.check_first(db)?;
        self.check_last(db)?;
        for id in self.live_ids() {
            self.check_above(db, id)?;
            self.check_below(db, id)?;
        }
        self.check_below(db, u32::MAX)?;
        self.check_above(db, 0)?;
        self.check_above(db, u32::MAX)?;
        self.check_below(db, 0)
    }

    /// Finds out which commit of the model `db` stands at, which must be within `range`, and
    /// compares everything with the model as of then.
    pub fn check_prefix(&self, db: &Db, range: RangeInclusive<u64>) -> Verdict<Model> {
        let commit = db
            .last_commit()
            .map_err(|error| format!("last_commit(): {error}"))?;
        require!(
            range.contains(&commit),
            "what was recovered ends with commit {commit}; expected one of {} to {}",
            range.start(),
            range.end()
        );
        require!(
            !self.left_out.contains(&commit),
            "what was recovered ends with commit {commit}, which was left out"
        );
        let past = self.as_of(commit);
        past.check_between(db)?;
        past.check_all(db)
            .context(|| format!("recovered up to commit {commit}, but not exactly"))?;
        Ok(past)
    }
}

/// Values of the lengths that matter: empty, short, of a few sizes that come again and again (so
/// that records of different commits end at the same offsets), some KB, and around the limits.
pub fn value() -> BoxedStrategy<Value> {
    let len = prop_oneof![
        3 => Just(0u32),
        8 => 1..40u32,
        8 => prop_oneof![Just(10u32), Just(100)],
        2 => 49..=51u32,
        3 => 100..3000u32,
        1 => 3999..=4001u32,
        1 => prop_oneof![Just(65_535u32), Just(65_536), Just(70_000)],
    ];
    (any::<u16>(), len)
        .prop_map(|(seed, len)| Value { seed, len })
        .boxed()
}

/// Short values, for tests that make many copies of the database.
pub fn short_value() -> BoxedStrategy<Value> {
    let len = prop_oneof![2 => Just(0u32), 4 => Just(10u32), 4 => Just(100), 2 => 1..700u32];
    (any::<u16>(), len)
        .prop_map(|(seed, len)| Value { seed, len })
        .boxed()
}

/// Mostly low ids, which meet again; some at the places where the levels of a bitmap or the
/// blocks of a table would meet; a few that no database here has.
pub fn id() -> BoxedStrategy<u32> {
    prop_oneof![
        16 => 0..12u32,
        4 => 0..48u32,
        2 => proptest::sample::select(vec![
            63u32, 64, 65, 127, 128, 511, 512, 513, 4095, 4096, 4097, 32_767, 32_768, 65_535, 65_536,
            262_143, 262_144, 1 << 20, 16_777_213, 16_777_214, 16_777_215,
        ]),
        1 => Just(u32::MAX),
    ]
    .boxed()
}

/// A random write.
pub fn write(
    id: impl Strategy<Value = u32> + Clone + 'static,
    value: impl Strategy<Value = Value> + Clone + 'static,
) -> impl Strategy<Value = Write> {
    use proptest::collection::vec;
    prop_oneof![
        6 => value.clone().prop_map(Write::Insert),
        8 => (id.clone(), value.clone()).prop_map(|(id, value)| Write::Set(id, value)),
        4 => id.clone().prop_map(Write::Delete),
        3 => vec(value.clone(), 0..6).prop_map(Write::InsertMany),
        3 => vec((id.clone(), value), 0..6).prop_map(Write::SetMany),
        2 => vec(id, 0..4).prop_map(Write::DeleteMany),
    ]
}
