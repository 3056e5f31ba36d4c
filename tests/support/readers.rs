//! Readers beside a writer: each read is compared with the script of what was committed.
//!
//! A read that began when `from` was the newest commit that its thread could know of, and ended
//! when commit `to` was the newest that had begun, must find what some commit between them left.
//! A thread knows of every commit that was acknowledged, and of every one that it has seen a trace
//! of: so nobody sees time go back, and nobody misses what was acknowledged.

use std::fmt::Arguments;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
#[cfg(not(ourdb_shuttle))]
use std::thread;

use ourdb::{Db, Error, IoMode, LookupKind, NotFound, Options, State, Sync};

#[cfg(ourdb_shuttle)]
use shuttle::thread;

use super::script::{GROUP, NEVER, Script, stamp_of, stays};
use super::{Context, Random, TempDirectory, Verdict, refute, require};

/// Where a database is, and how it is written and read.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub name: &'static str,
    memory: bool,
    io: IoMode,
    lookup: LookupKind,
    sync: Sync,
}

impl Place {
    const fn new(name: &'static str, io: IoMode, lookup: LookupKind, sync: Sync) -> Place {
        Place {
            name,
            memory: false,
            io,
            lookup,
            sync,
        }
    }

    pub const ALL: [Place; 8] = {
        use IoMode::{Auto, File, Map};
        use LookupKind::{Disk, Memory};
        use Sync::{Commit, Interval, Os};
        [
            Place {
                memory: true,
                ..Place::new("in memory", Auto, Memory, Os)
            },
            Place::new("mapped", Map, Memory, Os),
            Place::new("by system calls", File, Memory, Os),
            Place::new("lookup on disk", Map, Disk, Os),
            Place::new("synced with each commit", Auto, Memory, Commit),
            Place::new(
                "by system calls, synced with each commit",
                File,
                Disk,
                Commit,
            ),
            Place::new("synced in the background", Auto, Memory, Interval(1)),
            Place::new(
                "by system calls, synced in the background",
                File,
                Disk,
                Interval(1),
            ),
        ]
    };

    /// A new database there; the directory is to be kept as long as it is open.
    pub fn open(&self, options: &Options) -> (Db, TempDirectory) {
        let directory = TempDirectory::new();
        let options = Options {
            memory: self.memory,
            io: self.io,
            lookup: self.lookup,
            sync: self.sync,
            ..options.clone()
        };
        let db = Db::open(directory.path(), &options).unwrap_or_else(|error| {
            panic!("{}: a new database does not open: {error}", self.name);
        });
        (db, directory)
    }
}

/// What all threads know of the writer.
#[derive(Debug, Default)]
struct Progress {
    /// The newest commit that has begun.
    begun: AtomicU64,
    /// The newest commit that was acknowledged.
    acknowledged: AtomicU64,
    /// So many readers have begun.
    reading: AtomicU64,
    done: AtomicBool,
}

/// Ends the readers when the writer is through, or has panicked.
pub struct EndOnDrop<'a>(pub &'a AtomicBool);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// So many threads that read.
#[derive(Clone, Copy, Debug)]
pub struct Readers {
    pub count: u64,
    /// They read until the writer is through, but not more often than this.
    pub most_reads: u64,
    /// Decides what they read.
    pub seed: u64,
}

impl Readers {
    /// Writes a script, with the threads reading beside it; how many records they read.
    ///
    /// # Errors
    /// What one of them found, and what it should have.
    pub fn beside_a_writer(&self, db: &Db, script: &Script) -> Verdict<u64> {
        let progress = Progress::default();
        write(db, script, &progress, 1)?;
        thread::scope(|scope| {
            let progress = &progress;
            let readers: Vec<_> = (1..=self.count)
                .map(|number| {
                    let reader = Reader::new(db, script, progress, self.seed ^ number << 32);
                    scope.spawn(move || {
                        let records = reader.read(self.most_reads);
                        records.context(|| format!("reader {number}"))
                    })
                })
                .collect();
            // A short script may be through before a busy machine has started them.
            while progress.reading.load(Ordering::Acquire) < self.count {
                thread::yield_now();
            }
            let written = {
                let _end = EndOnDrop(&progress.done);
                (2..=script.commits()).try_for_each(|commit| write(db, script, progress, commit))
            };
            let mut records = 0;
            for reader in readers {
                let read = reader.join();
                records += read.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            }
            written.map(|()| records)
        })
    }
}

/// Makes one commit, and looks whether its own thread sees it.
fn write(db: &Db, script: &Script, progress: &Progress, commit: u64) -> Verdict {
    progress.begun.store(commit, Ordering::Release);
    script
        .apply(db, commit)
        .map_err(|error| format!("commit {commit}: {error}"))?;
    progress.acknowledged.store(commit, Ordering::Release);
    let mut reader = Reader::new(db, script, progress, commit);
    for &id in script.changed(commit) {
        reader.get(id).context(|| "the writer itself".to_owned())?;
    }
    reader.counters().context(|| "the writer itself".to_owned())
}

/// One thread that reads.
struct Reader<'a> {
    db: &'a Db,
    script: &'a Script,
    progress: &'a Progress,
    random: Random,
    /// The newest commit that it has seen a trace of.
    seen: u64,
    /// How many records it has read.
    records: u64,
}

impl<'a> Reader<'a> {
    fn new(db: &'a Db, script: &'a Script, progress: &'a Progress, seed: u64) -> Reader<'a> {
        Reader {
            db,
            script,
            progress,
            random: Random::new(seed),
            seen: 0,
            records: 0,
        }
    }

    /// The newest commit that the thread can know of.
    fn from(&self) -> u64 {
        self.progress
            .acknowledged
            .load(Ordering::Acquire)
            .max(self.seen)
    }

    /// The newest commit of which a read that has ended can have seen anything.
    fn to(&self) -> u64 {
        self.progress.begun.load(Ordering::Acquire)
    }

    /// Reads until the writer is through, but at most so often; how many records.
    fn read(mut self, most_reads: u64) -> Verdict<u64> {
        self.progress.reading.fetch_add(1, Ordering::Release);
        for _ in 0..most_reads {
            self.step()?;
            if self.progress.done.load(Ordering::Acquire) {
                break;
            }
        }
        Ok(self.records)
    }

    /// One read of some kind.
    fn step(&mut self) -> Verdict {
        match self.random.below(100) {
            0..60 => {
                let id = self.any_id();
                self.get(id)
            }
            60..80 => self.get_many(),
            80..88 => self.history(),
            88..93 => self.version(),
            93..95 => self.time(),
            95..99 => self.counters(),
            _ => {
                let up = self.random.chance(50);
                self.walk(up)
            }
        }
    }

    fn any_id(&mut self) -> u32 {
        let group = GROUP[self.random.below(GROUP.len() as u64) as usize];
        match self.random.below(8) {
            0..4 => group,
            4..6 => self.random.below(64) as u32,
            6 => 1000 + 64 * self.random.below(8) as u32,
            _ => NEVER,
        }
    }

    /// A single read, which had begun after commit `from`, found what `is_it` says of the commit of
    /// a version (0: none).
    fn found(
        &mut self,
        id: u32,
        from: u64,
        what: Arguments<'_>,
        is_it: impl Fn(u64) -> bool,
    ) -> Verdict {
        let to = self.to();
        let mut allowed = self.script.may_find(id, from, to);
        let Some((since, _)) = allowed.find(|&(_, commit)| is_it(commit)) else {
            refute!(
                "id {id} was found {what}; from commit {from} to {to} it is as of {:?} (since when, \
                 and which commit's version; 0: not there)",
                self.script.may_find(id, from, to).collect::<Vec<_>>()
            );
        };
        self.seen = self.seen.max(since);
        Ok(())
    }

    fn is_there(&mut self, id: u32, there: bool, from: u64) -> Verdict {
        let no = if there { "" } else { "not " };
        let what = format_args!("{no}to be there");
        self.found(id, from, what, |commit| (commit != 0) == there)
    }

    fn get(&mut self, id: u32) -> Verdict {
        let from = self.from();
        self.records += 1;
        let found = match self.random.below(3) {
            0 => self.db.get(id).map(|value| stamp_of(id, &value)),
            1 => self.db.get_with(id, |value| stamp_of(id, value)),
            _ => match self.db.contains(id) {
                Ok(there) => return self.is_there(id, there, from),
                Err(error) => Err(error),
            },
        };
        match found {
            Ok(stamp) => {
                let stamp = stamp?;
                let what = format_args!("with the value of commit {stamp}");
                self.found(id, from, what, |commit| commit == stamp)
            }
            Err(Error::NotFound(NotFound::Record(_))) => self.is_there(id, false, from),
            Err(error) => refute!("get({id}): {error}"),
        }
    }

    /// Lists of records are as of one commit.
    fn get_many(&mut self) -> Verdict {
        let mut ids: Vec<u32> = GROUP.to_vec();
        let others = self.random.below(40);
        ids.extend((0..others).map(|_| self.random.below(64) as u32));
        ids.push(NEVER);
        let begin = self.random.below(ids.len() as u64) as usize;
        ids.rotate_left(begin);
        let from = self.from();
        let records = self
            .db
            .get_many(&ids)
            .map_err(|error| format!("get_many: {error}"))?;
        let mut found = Vec::with_capacity(ids.len());
        let mut newest = from;
        require!(
            records
                .iter()
                .map(|record| record.id)
                .eq(ids.iter().copied()),
            "get_many of {ids:?} gives other ids: {records:?}"
        );
        for record in records.iter() {
            if record.state == State::Missing {
                found.push(0);
                continue;
            }
            let stamp = stamp_of(record.id, record.value)?;
            require!(
                record.state == State::Live && record.commit == stamp,
                "stamp {stamp} is in {record:?}"
            );
            newest = newest.max(stamp);
            found.push(stamp);
        }
        let to = self.to();
        let is_at = |at: u64| {
            let mut both = ids.iter().zip(&found);
            both.all(|(&id, &found)| self.script.may_find(id, at, at).eq([(at, found)]))
        };
        let Some(seen) = (newest..=to).find(|&at| is_at(at)) else {
            refute!(
                "get_many of {ids:?} gives the commits {found:?} (0: not there), which between \
                 commits {from} and {to} never stood there at once"
            );
        };
        self.seen = seen;
        self.records += ids.len() as u64;
        Ok(())
    }

    /// Histories are without a gap, newest first, each version's value its own.
    fn history(&mut self) -> Verdict {
        let id = self.any_id();
        let max = [0, 1, 20][self.random.below(3) as usize];
        let from = self.from();
        let history = match self.db.history(id, max) {
            Ok(history) => history,
            Err(Error::NotFound(NotFound::History(_))) => {
                require!(
                    self.script.versions(id, from).is_empty(),
                    "history({id}, {max}) is not there after commit {from}"
                );
                return Ok(());
            }
            Err(error) => refute!("history({id}, {max}): {error}"),
        };
        let mut found = Vec::with_capacity(history.len());
        for record in history.iter() {
            if record.state == State::Live {
                let stamp = stamp_of(id, record.value)?;
                require!(record.commit == stamp, "stamp {stamp} is in {record:?}");
            }
            found.push((record.commit, record.state == State::Live));
        }
        let to = self.to();
        let newest = found.first().map_or(0, |&(commit, _)| commit);
        let versions = self.script.versions(id, newest.max(from));
        let max = if max == 0 { usize::MAX } else { max };
        require!(
            newest <= to && versions.iter().rev().take(max).eq(&found),
            "history({id}, {max}) between commits {from} and {to} has the versions {found:?}; up to \
             the newest of them {versions:?} were written"
        );
        self.seen = self.seen.max(newest);
        self.records += found.len() as u64;
        Ok(())
    }

    /// The past stands still.
    fn version(&mut self) -> Verdict {
        let (id, from) = (self.any_id(), self.from());
        let past = self.random.below(from) + 1;
        let expected = self.script.version(id, past);
        let found = match self.db.get_version(id, past) {
            Ok(value) => (stamp_of(id, &value)?, true),
            Err(Error::NotFound(NotFound::AtCommit { .. })) if !expected.1 => expected,
            Err(error) => refute!("get_version({id}, {past}): {error}"),
        };
        require!(
            found == expected,
            "get_version({id}, {past}) gives commit {}, not {expected:?}",
            found.0
        );
        self.records += 1;
        Ok(())
    }

    /// So does the past by time: of versions with the same time the last one is meant.
    fn time(&mut self) -> Verdict {
        let id = GROUP[self.random.below(GROUP.len() as u64) as usize];
        let history = self
            .db
            .history(id, 0)
            .map_err(|error| format!("history({id}, 0): {error}"))?;
        let times: Vec<(u64, u64)> = history
            .iter()
            .map(|record| (record.time_us, record.commit))
            .collect();
        require!(
            times.is_sorted_by(|newer, older| newer.0 >= older.0),
            "id {id}: a later version has an earlier time: {times:?}"
        );
        let (time, _) = times[self.random.below(times.len() as u64) as usize];
        let (newest, _) = times[0];
        let expected = times.iter().find(|&&(other, _)| other == time);
        let value = self
            .db
            .get_at(id, time)
            .map_err(|error| format!("get_at({id}, {time}): {error}"))?;
        let found = stamp_of(id, &value)?;
        // Another version may have come meanwhile with the time of the newest.
        require!(
            time == newest || expected.is_some_and(|&(_, commit)| commit == found),
            "get_at({id}, {time}) gives commit {found}, not {expected:?}"
        );
        self.records += 1;
        Ok(())
    }

    fn counters(&mut self) -> Verdict {
        let from = self.from();
        let commit = self.db.last_commit().map_err(|error| error.to_string())?;
        let to = self.to();
        require!(
            (from..=to).contains(&commit),
            "last_commit() is {commit}, between commits {from} and {to}"
        );
        self.seen = commit;
        let count = self.db.count().map_err(|error| error.to_string())?;
        let to = self.to();
        require!(
            (commit..=to).any(|at| self.script.live(at) == count),
            "count() is {count}, and never so between commits {commit} and {to}"
        );
        self.records += 2;
        Ok(())
    }

    /// Through all live ids: whoever is live all the time is met.
    fn walk(&mut self, up: bool) -> Verdict {
        let mut at = None;
        let mut stayed = 0;
        loop {
            let from = self.from();
            let (step, next) = match (at, up) {
                (None, true) => ("first", self.db.first()),
                (None, false) => ("last", self.db.last()),
                (Some(id), true) => ("above", self.db.above(id)),
                (Some(id), false) => ("below", self.db.below(id)),
            };
            let next = match next {
                Ok(next) => Some(next),
                Err(Error::NotFound(NotFound::Neighbour(_))) => None,
                Err(error) => refute!("{step} of {at:?}: {error}"),
            };
            self.neighbour(at, next, up, from)
                .context(|| format!("{step} of {at:?} gives {next:?}"))?;
            self.records += 1;
            let Some(id) = next else { break };
            stayed += u64::from(stays(id));
            at = next;
        }
        let all = self.script.live(1);
        require!(stayed == all, "a walk met {stayed} of {all} ids that stay");
        Ok(())
    }

    /// The id found was live, and those passed over were not, at some time during the step.
    fn neighbour(&mut self, at: Option<u32>, next: Option<u32>, up: bool, from: u64) -> Verdict {
        for id in self.script.beyond(at, up) {
            let is_next = Some(id) == next;
            self.is_there(id, is_next, from)?;
            if is_next {
                return Ok(());
            }
        }
        require!(next.is_none(), "which was never written");
        Ok(())
    }
}
