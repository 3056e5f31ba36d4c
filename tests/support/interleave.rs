//! Several transactions, snapshots and scans at once, their calls interleaved at random in one
//! thread; every answer is compared with the serial model, and so is when a commit conflicts.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Debug;
use std::ops::ControlFlow;
use std::path::Path;

use ourdb::{Db, Error, LookupKind, Neighbour, NotFound, Options, Order, Record, Scan, State, Txn};

use super::serial::{Held, Serial, Session};
use super::{Random, TempDirectory, Verdict, refute, require};

/// So many transactions and snapshots are open at most, and so many scans.
const MOST_OPEN: usize = 5;
/// Ids at which the levels of a bitmap or the blocks of a table meet, and far ones.
const FAR: [u32; 8] = [63, 64, 511, 512, 4096, 262_144, 16_777_213, 16_777_214];

/// A scan beside what is left of it in the model.
struct OpenScan {
    scan: Scan,
    rest: VecDeque<(u32, u64, Vec<u8>)>,
    lower: u32,
    upper: u32,
    reverse: bool,
    /// The transaction that it belongs to, as long as that is open.
    owner: Option<u64>,
}

/// A transaction beside that of the model.
struct Open {
    number: u64,
    txn: Txn,
    session: Session,
}

/// A database beside its model, with what is open.
pub struct Interleaved {
    random: Random,
    options: Options,
    directory: TempDirectory,
    db: Option<Db>,
    serial: Serial,
    next_id: u32,
    /// The time of each commit, as far as it was seen.
    times: BTreeMap<u64, u64>,
    open: Vec<Open>,
    scans: Vec<OpenScan>,
    begun: u64,
    /// Answers compared, and commits that conflicted.
    pub answers: u64,
    pub conflicts: u64,
    /// What was done, for whoever looks for a failure.
    trace: VecDeque<String>,
}

impl Interleaved {
    /// A new database with options that the seed decides.
    pub fn new(seed: u64) -> Verdict<Interleaved> {
        let mut random = Random::new(seed ^ 0x5e71_a112);
        let key_value = random.chance(50);
        let options = Options {
            key_value,
            memory: random.chance(60),
            native: random.chance(50),
            record_nr_max: [0, 20, 70_000][random.below(3) as usize],
            file_size: [0, 1, 300, 4000][random.below(4) as usize],
            ..Options::default()
        };
        let directory = TempDirectory::new();
        let options = reopened(&options, &mut random);
        let db = open(directory.path(), &options)?;
        Ok(Interleaved {
            random,
            options,
            directory,
            db: Some(db),
            serial: Serial::default(),
            next_id: 1,
            times: BTreeMap::new(),
            open: Vec::new(),
            scans: Vec::new(),
            begun: 0,
            answers: 0,
            conflicts: 0,
            trace: VecDeque::new(),
        })
    }

    /// Makes so many calls, and compares the whole history at the end and after a reopening.
    pub fn run(&mut self, calls: u64) -> Verdict {
        let verdict = self.run_to_the_end(calls);
        verdict.map_err(|message| {
            let trace: Vec<&str> = self.trace.iter().map(String::as_str).collect();
            format!("{:?}\n  {}\n{message}", self.options, trace.join("\n  "))
        })
    }

    fn run_to_the_end(&mut self, calls: u64) -> Verdict {
        for _ in 0..calls {
            self.step()?;
        }
        self.compare_everything()?;
        if !self.options.memory {
            self.reopen()?;
            self.compare_everything()?;
        }
        Ok(())
    }

    fn db(&self) -> &Db {
        self.db.as_ref().expect("open but for a moment")
    }

    fn limit(&self) -> u32 {
        match self.options.record_nr_max {
            0 => 16_777_215,
            limit => limit,
        }
    }

    fn say(&mut self, what: String) {
        if self.trace.len() == 60 {
            self.trace.pop_front();
        }
        self.trace.push_back(what);
    }

    fn is<T: PartialEq + Debug>(&mut self, what: &str, found: &T, expected: &T) -> Verdict {
        self.answers += 1;
        require!(
            found == expected,
            "{what}: expected {expected:?}, found {found:?}"
        );
        Ok(())
    }

    /// An id to ask for: mostly a low one, sometimes one that no database has.
    fn id(&mut self) -> u32 {
        match self.random.below(20) {
            0 => u32::MAX,
            1 => self.limit(),
            2..5 => FAR[self.random.below(FAR.len() as u64) as usize],
            _ => self.random.below(14) as u32,
        }
    }

    /// An id below the limit.
    fn good_id(&mut self) -> u32 {
        let id = self.id();
        if id < self.limit() { id } else { id % 14 }
    }

    fn value(&mut self) -> Vec<u8> {
        let len = match self.random.below(40) {
            0 => 60_000,
            1..8 => self.random.below(700) as usize,
            8..12 => 0,
            _ => 10,
        };
        let mut value = self.random.next().to_le_bytes().repeat(len / 8 + 1);
        value.truncate(len);
        value
    }

    fn step(&mut self) -> Verdict {
        match self.random.below(100) {
            0..8 => self.begin(),
            8..24 => self.write_directly(),
            24..27 => self.read_directly(),
            27..29 => self.begin_scan(None),
            29..45 => self.go_on_with_a_scan(),
            45..46 if !self.options.memory && self.random.chance(30) => self.reopen(),
            _ if self.open.is_empty() => self.begin(),
            _ => {
                let index = self.random.below(self.open.len() as u64) as usize;
                match self.random.below(100) {
                    0..12 => self.end(index),
                    12..45 => self.write(index),
                    45..53 => self.begin_scan(Some(index)),
                    _ => self.read(index),
                }
            }
        }
    }

    fn begin(&mut self) -> Verdict {
        if self.open.len() == MOST_OPEN {
            return self.end(0);
        }
        let last = self.serial.last();
        let kind = self.random.below(10);
        let at = self.random.below(last + 2);
        let (begun, session) = match kind {
            0..7 => (self.db().begin(), Session::new(last, false)),
            7..9 => (self.db().snapshot(), Session::new(last, true)),
            _ => (self.db().snapshot_at(at), Session::new(at, true)),
        };
        if kind == 9 && at > last {
            require!(
                matches!(
                    begun,
                    Err(Error::NotFound(NotFound::Commit { commit, oldest: 0, last: newest }))
                        if commit == at && newest == last
                ),
                "snapshot_at({at}) after {last} commits: {begun:?}"
            );
            self.answers += 1;
            return Ok(());
        }
        let txn = begun.map_err(|error| format!("begin: {error}"))?;
        self.begun += 1;
        let number = self.begun;
        let what = ["a transaction", "a snapshot"][usize::from(session.read_only)];
        self.say(format!("{what} {number} of commit {} begins", session.at));
        self.is("is_read_only()", &txn.is_read_only(), &session.read_only)?;
        self.is("at()", &txn.at(), &session.at)?;
        self.open.push(Open {
            number,
            txn,
            session,
        });
        Ok(())
    }

    fn end(&mut self, index: usize) -> Verdict {
        let Open {
            number,
            txn,
            session,
        } = self.open.swap_remove(index);
        // Sometimes its scans end first, sometimes they go on without it.
        if self.random.chance(50) {
            self.scans.retain(|scan| scan.owner != Some(number));
        }
        for scan in &mut self.scans {
            scan.owner = scan.owner.filter(|&owner| owner != number);
        }
        if self.random.chance(15) {
            self.say(format!("{number} is aborted"));
            txn.abort();
            return Ok(());
        }
        let at = session.at;
        let possible = session.commit(&mut self.serial);
        self.say(format!("{number} commits: {possible}"));
        let committed = txn.commit();
        self.conflicts += u64::from(!possible);
        self.answers += 1;
        match committed {
            Ok(()) if possible => {}
            Err(Error::Conflict { commit, .. }) if !possible => {
                require!(
                    commit > at && commit <= self.serial.last(),
                    "a conflict of a transaction of commit {at} with commit {commit}"
                );
            }
            committed => refute!("commit of {number}: expected {possible}, found {committed:?}"),
        }
        self.compare_last()
    }

    /// The number of the last commit, and how many records there are.
    fn compare_last(&mut self) -> Verdict {
        let last = self.db().last_commit().map_err(|error| error.to_string())?;
        self.is("last_commit()", &last, &self.serial.last())?;
        let count = self.db().count().map_err(|error| error.to_string())?;
        self.is("count()", &count, &(self.serial.all_at(last).len() as u64))
    }

    /// A commit without a transaction.
    fn write_directly(&mut self) -> Verdict {
        let mut writes: BTreeMap<u32, Held> = BTreeMap::new();
        let id = self.good_id();
        let value = self.value();
        let live = self.serial.is_live(id);
        let kind = self.random.below(20);
        let told = match kind {
            0 => {
                self.say("clear".to_owned());
                self.serial.clear();
                self.db().clear()
            }
            1..5 if live => {
                self.say(format!("{id} is deleted"));
                writes.insert(id, None);
                self.db().delete(id)
            }
            5..8 if self.options.key_value => {
                let other = self.good_id();
                self.say(format!("{id} and {other} are set"));
                writes.insert(id, Some(value.clone()));
                writes.insert(other, Some(value.clone()));
                self.db().set_many(&[(id, &value), (other, &value)])
            }
            8..16 if live || self.options.key_value => {
                self.say(format!("{id} is set"));
                writes.insert(id, Some(value.clone()));
                self.db().set(id, &value)
            }
            _ if !self.options.key_value && self.next_id < self.limit() => {
                let id = self.next_id;
                self.say(format!("{id} is inserted"));
                self.next_id += 1;
                let inserted = self.db().insert(&value);
                writes.insert(id, Some(value));
                let inserted = inserted.map_err(|error| format!("insert: {error}"))?;
                self.is("insert", &inserted, &id)?;
                Ok(())
            }
            _ => return Ok(()),
        };
        told.map_err(|error| format!("a write: {error}"))?;
        self.serial.commit(&writes);
        self.compare_last()
    }

    fn read_directly(&mut self) -> Verdict {
        let id = self.good_id();
        let last = self.serial.last();
        let found = self.db().get(id).ok();
        let expected = self.serial.live_at(id, last);
        let expected = expected.map(|(_, value)| value.to_vec());
        self.is(&format!("get({id})"), &found, &expected)?;
        let live = self.serial.all_at(last);
        let found = self.db().first().ok();
        self.is("first()", &found, &live.keys().next().copied())?;
        let found = self.db().last().ok();
        self.is("last()", &found, &live.keys().next_back().copied())?;
        let found = self.db().above(id).ok();
        let expected = live.range(id + 1..).next().map(|(&id, _)| id);
        self.is(&format!("above({id})"), &found, &expected)?;
        let found = self.db().below(id).ok();
        let expected = live.range(..id).next_back().map(|(&id, _)| id);
        self.is(&format!("below({id})"), &found, &expected)
    }

    fn write(&mut self, index: usize) -> Verdict {
        let (id, value, kind) = (self.id(), self.value(), self.random.below(10));
        let (limit, blind) = (self.limit(), self.options.key_value);
        let next = self.next_id;
        let Open {
            number,
            txn,
            session,
        } = &mut self.open[index];
        let what = ["insert", "delete", "set"][usize::from(kind >= 3) + usize::from(kind >= 5)];
        let said = format!("{number}: {what} {id}");
        let told = match kind {
            0..3 => txn.insert(&value).map(Some),
            3..5 => txn.delete(id).map(|()| None),
            _ => txn.set(id, &value).map(|()| None),
        };
        let right = if session.read_only {
            matches!(told, Err(Error::ReadOnly { .. }))
        } else if kind < 3 {
            match told {
                Ok(Some(id)) if !blind && id == next && id < limit => {
                    session.insert(id, value);
                    self.next_id += 1;
                    true
                }
                Err(Error::WrongMode { .. }) => blind,
                Err(Error::Full(_)) => next >= limit,
                _ => false,
            }
        } else if id >= limit {
            matches!(told, Err(Error::IdOutOfRange { .. }))
        } else if kind < 5 {
            match told {
                Ok(_) => session.delete(&self.serial, id),
                Err(Error::NotFound(NotFound::Record(_))) => !session.delete(&self.serial, id),
                _ => false,
            }
        } else {
            match told {
                Ok(_) => session.set(&self.serial, id, value, blind),
                Err(Error::IdNotAssigned { .. }) => !session.set(&self.serial, id, value, blind),
                _ => false,
            }
        };
        self.say(said.clone());
        self.answers += 1;
        require!(right, "{said}: {told:?}");
        Ok(())
    }

    fn read(&mut self, index: usize) -> Verdict {
        let (id, kind) = (self.id(), self.random.below(7));
        let limit = self.limit();
        let serial = &self.serial;
        let Open {
            number,
            txn,
            session,
        } = &mut self.open[index];
        let neighbour = |which| move || Error::NotFound(NotFound::Neighbour(which));
        let (what, found, expected) = match kind {
            0 => {
                let expected = if id < limit {
                    let held = session.get(serial, id);
                    held.ok_or(Error::NotFound(NotFound::Record(id)))
                } else {
                    Err(Error::IdOutOfRange { id, limit })
                };
                (
                    format!("get({id})"),
                    shown(txn.get(id), Answer::Value),
                    shown(expected, Answer::Value),
                )
            }
            1 => {
                let expected = session.get(serial, id).is_some();
                let found = shown(txn.contains(id), Answer::IsThere);
                (
                    format!("contains({id})"),
                    found,
                    shown(Ok(expected), Answer::IsThere),
                )
            }
            2 => {
                let expected = session.at_or_above(serial, 0);
                let expected = expected.ok_or_else(neighbour(Neighbour::First));
                (
                    "first()".to_owned(),
                    shown(txn.first(), Answer::Id),
                    shown(expected, Answer::Id),
                )
            }
            3 => {
                let expected = session.at_or_below(serial, u32::MAX);
                let expected = expected.ok_or_else(neighbour(Neighbour::Last));
                (
                    "last()".to_owned(),
                    shown(txn.last(), Answer::Id),
                    shown(expected, Answer::Id),
                )
            }
            4 => {
                let from = id.checked_add(1);
                let expected = from.and_then(|from| session.at_or_above(serial, from));
                let expected = expected.ok_or_else(neighbour(Neighbour::Above(id)));
                (
                    format!("above({id})"),
                    shown(txn.above(id), Answer::Id),
                    shown(expected, Answer::Id),
                )
            }
            5 => {
                let from = id.checked_sub(1);
                let expected = from.and_then(|from| session.at_or_below(serial, from));
                let expected = expected.ok_or_else(neighbour(Neighbour::Below(id)));
                (
                    format!("below({id})"),
                    shown(txn.below(id), Answer::Id),
                    shown(expected, Answer::Id),
                )
            }
            _ => {
                let expected = session.count(serial);
                (
                    "count()".to_owned(),
                    shown(txn.count(), Answer::Number),
                    shown(Ok(expected), Answer::Number),
                )
            }
        };
        let what = format!("{number}: {what}");
        self.say(what.clone());
        self.is(&what, &found, &expected)
    }

    fn begin_scan(&mut self, index: Option<usize>) -> Verdict {
        if self.scans.len() == MOST_OPEN {
            self.scans.remove(0);
        }
        let (lower, upper) = match self.random.below(6) {
            0 => (0, u32::MAX),
            1 => (self.id(), self.id()),
            _ => (self.random.below(10) as u32, self.random.below(20) as u32),
        };
        let order = Order {
            reverse: self.random.chance(50),
            keys_only: self.random.chance(30),
        };
        let present = Session::new(self.serial.last(), true);
        let opened = match index {
            None => {
                let rest = present.scan(&self.serial, lower, upper, order);
                (self.db().scan(lower, upper, order), rest, None)
            }
            Some(index) => {
                let Open {
                    number,
                    txn,
                    session,
                } = &self.open[index];
                let rest = session.scan(&self.serial, lower, upper, order);
                (txn.scan(lower, upper, order), rest, Some(*number))
            }
        };
        let (scan, rest, owner) = opened;
        let scan = scan.map_err(|error| format!("scan: {error}"))?;
        self.say(format!("{owner:?} scans {lower}..={upper} {order:?}"));
        self.scans.push(OpenScan {
            scan,
            rest: rest.into(),
            lower,
            upper,
            reverse: order.reverse,
            owner,
        });
        Ok(())
    }

    fn go_on_with_a_scan(&mut self) -> Verdict {
        if self.scans.is_empty() {
            return Ok(());
        }
        let index = self.random.below(self.scans.len() as u64) as usize;
        let (step, most) = match self.random.below(4) {
            0 | 1 => ("next", 1),
            2 => ("next_many", self.random.below(8) as usize),
            _ => ("next_ids", self.random.below(8) as usize),
        };
        let open = &mut self.scans[index];
        let mut expected: Vec<_> = open.rest.drain(..most.min(open.rest.len())).collect();
        let mut found = Vec::new();
        let failed = |error| format!("{step}, {most}: {error}");
        let mut item = |record: Record<'_>| {
            found.push((record.id, record.commit, record.value.to_vec()));
            let time = self.times.entry(record.commit).or_insert(record.time_us);
            (record.state == State::Live && *time == record.time_us)
                .then_some(())
                .ok_or_else(|| format!("a scan: {record:?}, and its commit is of {time}"))
        };
        match step {
            "next" => {
                let next = open.scan.next().map_err(failed)?;
                next.map_or(Ok(()), &mut item)?;
            }
            "next_many" => {
                let next = open.scan.next_many(most).map_err(failed)?;
                next.iter().try_for_each(item)?;
            }
            _ => {
                let mut ids = vec![0; most];
                let count = open.scan.next_ids(&mut ids).map_err(failed)?;
                found.extend(ids[..count].iter().map(|&id| (id, 0, Vec::new())));
                for (_, commit, value) in &mut expected {
                    (*commit, *value) = (0, Vec::new());
                }
            }
        }
        // What was handed out was read, and to the end of the range if there is no more.
        let is_over = expected.len() < most;
        let last = expected.last().map(|&(id, ..)| id);
        let (lower, upper, reverse) = (open.lower, open.upper, open.reverse);
        let owner = open.owner;
        let owner = self.open.iter_mut().find(|open| Some(open.number) == owner);
        if let Some(Open { session, .. }) = owner
            && lower <= upper
        {
            match last {
                _ if is_over => session.read_range(lower, upper),
                Some(last) if reverse => session.read_range(last, upper),
                Some(last) => session.read_range(lower, last),
                None => {}
            }
        }
        let what = format!("a scan of {lower}..={upper} goes on with {step}, {most}");
        self.say(what.clone());
        self.is(&what, &found, &expected)
    }

    /// Ends everything, and closes or drops the database, as a kill would.
    fn reopen(&mut self) -> Verdict {
        self.scans.clear();
        self.open.clear();
        let db = self.db.take().expect("open but for a moment");
        let idle = db.check_idle();
        require!(idle.is_ok(), "all is dropped, and it is not idle: {idle:?}");
        let close = self.random.chance(50);
        self.say(format!("reopened, closed before: {close}"));
        if close {
            db.close().map_err(|error| format!("close: {error}"))?;
        } else {
            drop(db);
        }
        self.options = reopened(&self.options, &mut self.random);
        let db = open(self.directory.path(), &self.options)?;
        if !self.options.key_value && self.next_id < self.limit() {
            // Ids that were given out and not written are lost with the process.
            let next = db.next_id().map_err(|error| error.to_string())?;
            let lowest = self.serial.ids().last().map_or(1, |last| last + 1);
            let right = if close { self.next_id } else { lowest }..=self.next_id;
            require!(
                right.contains(&next),
                "next_id(): expected {right:?}, found {next}"
            );
            self.next_id = next;
        } else if !self.options.key_value && !close {
            self.next_id = db.next_id().unwrap_or(self.next_id);
        }
        self.db = Some(db);
        self.compare_last()
    }

    /// Every version, and every moment.
    fn compare_everything(&mut self) -> Verdict {
        self.compare_last()?;
        for id in self.serial.ids() {
            let history = self.db().history(id, 0);
            let history = history.map_err(|error| format!("history({id}): {error}"))?;
            let found = history.iter().map(|record| {
                let held = (record.state == State::Live).then(|| record.value.to_vec());
                (record.commit, held)
            });
            let mut found: Vec<_> = found.collect();
            found.reverse();
            let expected = self.serial.versions(id).to_vec();
            self.is(&format!("history({id})"), &found, &expected)?;
        }
        for at in 0..=self.serial.last() {
            let found = self.db().snapshot_at(at);
            let txn = found.map_err(|error| format!("snapshot_at({at}): {error}"))?;
            self.compare_moment(&txn, at)?;
        }
        let checked = self.db().check(|_, _| ControlFlow::Continue(()));
        let report = checked.map_err(|error| format!("check: {error}"))?;
        require!(report.is_sound(), "check: {:?}", report.damage);
        Ok(())
    }

    /// All that a snapshot sees, in all ways.
    fn compare_moment(&mut self, txn: &Txn, at: u64) -> Verdict {
        let said = |error: Error| format!("as of {at}: {error}");
        let expected = self.serial.all_at(at);
        let count = txn.count().map_err(said)?;
        self.is(
            &format!("count() as of {at}"),
            &count,
            &(expected.len() as u64),
        )?;
        let mut up = Vec::new();
        let mut next = txn.first().ok();
        while let Some(id) = next {
            up.push(id);
            next = txn.above(id).ok();
        }
        let ids: Vec<u32> = expected.keys().copied().collect();
        self.is(&format!("upwards as of {at}"), &up, &ids)?;
        let mut down = Vec::new();
        let mut next = txn.last().ok();
        while let Some(id) = next {
            down.push(id);
            next = txn.below(id).ok();
        }
        down.reverse();
        self.is(&format!("downwards as of {at}"), &down, &ids)?;
        for id in self.serial.ids() {
            let found = txn.get(id).ok();
            let value = expected.get(&id).map(|(_, value)| value.clone());
            self.is(&format!("get({id}) as of {at}"), &found, &value)?;
        }
        let session = Session::new(at, true);
        for (reverse, keys_only) in [(false, false), (true, false), (false, true), (true, true)] {
            let order = Order { reverse, keys_only };
            let records = txn.scan(0, u32::MAX, order).map_err(said)?;
            let records = { records }.next_many(usize::MAX).map_err(said)?;
            let records = records.iter();
            let records = records.map(|record| (record.id, record.commit, record.value.to_vec()));
            let found: Vec<_> = records.collect();
            let expected = session.scan(&self.serial, 0, u32::MAX, order);
            self.is(&format!("{order:?} as of {at}"), &found, &expected)?;
        }
        Ok(())
    }
}

/// What may change from one opening to the next.
fn reopened(options: &Options, random: &mut Random) -> Options {
    Options {
        lookup: [LookupKind::Memory, LookupKind::Disk][random.below(2) as usize],
        sync: [
            ourdb::Sync::Os,
            ourdb::Sync::Os,
            ourdb::Sync::Commit,
            ourdb::Sync::Interval(1),
        ][random.below(4) as usize],
        io: [ourdb::IoMode::Auto, ourdb::IoMode::File][random.below(2) as usize],
        ..options.clone()
    }
}

fn open(path: &Path, options: &Options) -> Verdict<Db> {
    Db::open(path, options).map_err(|error| format!("open: {error}"))
}

/// What reading calls answer.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Value(Vec<u8>),
    IsThere(bool),
    Id(u32),
    Number(u64),
}

/// An answer with its failure in words, to be compared.
fn shown<T>(answer: Result<T, Error>, of: impl FnOnce(T) -> Answer) -> Result<Answer, String> {
    answer.map(of).map_err(|error| error.to_string())
}
