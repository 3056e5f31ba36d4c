//! Opens a directory, does with it all that can be done, and judges what comes back.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use ourdb::storage::Storage;
use ourdb::storage::os::OsStorage;
use ourdb::{Db, Error, IoMode, LookupKind, NotFound, Options, State, Sync};

use super::allocator::most_held;
use super::seeds::Truth;
use super::storage::{Bounded, Files, write_directory};
use crate::support::{Context, Random, TempDirectory, Verdict, refute, require};

/// Memory that every call may take, whatever the directory is: buffers of a fixed size.
const MEMORY: usize = 3 << 20;
/// And for each byte that is really there so many.
const MEMORY_PER_BYTE: usize = 64;
/// A hostile directory may have very many records. So many are looked at.
const MOST_RECORDS: usize = 300;
/// Ids that are looked at besides those that are there.
const PROBES: [u32; 12] = [0, 1, 2, 3, 4, 5, 6, 9, 600, 699, 700, u32::MAX];

/// How a directory is opened.
#[derive(Clone, Debug)]
pub(super) struct Way {
    pub(super) options: Options,
    /// On real files rather than in memory.
    pub(super) real: bool,
    /// Readers get mappings.
    pub(super) mapped: bool,
    /// What a reader sees who opens it before.
    pub(super) look_first: bool,
}

impl Way {
    /// One of all the ways.
    pub(super) fn choose(random: &mut Random) -> Way {
        let mut options = Options {
            adopt: random.chance(30),
            ..Options::default()
        };
        match random.below(20) {
            0..5 => options.read_only = true,
            5..8 => options.salvage = true,
            8 => {
                options.reset = true;
                options.must_exist = random.chance(50);
            }
            9 => options.must_exist = true,
            10 => options.key_value = true,
            11 => options.record_nr_max = [700, 70_000, 16_777_217][random.below(3) as usize],
            12 => options.file_size = 1 + random.below(300) as u32,
            13 => options.sync = Sync::Commit,
            _ => {}
        }
        // Real files are slow.
        let real = random.below(2000) == 0;
        if real && random.chance(50) {
            options.lookup = LookupKind::Disk;
        }
        if random.chance(20) {
            options.io = IoMode::File;
        }
        Way {
            options,
            real,
            mapped: random.chance(15),
            look_first: random.chance(20),
        }
    }

    /// Whether it only reads.
    fn reads(&self) -> bool {
        self.options.read_only || self.options.salvage
    }

    /// Whether it takes the directory as it is: nothing asked for but to see it.
    fn is_plain(&self) -> bool {
        !self.options.salvage && !self.options.reset && self.options.record_nr_max == 0
    }
}

/// What is known of a directory: what was written into it, and how far that still counts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known<'a> {
    pub(super) truth: &'a Truth,
    /// Checksums guard all that was changed: each record is what it was as of some commit, or
    /// damaged. Otherwise it is one of its versions.
    pub(super) exact: bool,
}

/// Opens the directory in one way, reads and writes, closes it and opens it again.
pub(super) fn exercise(
    files: &Files,
    way: &Way,
    known: Option<Known<'_>>,
    random: &mut Random,
) -> Verdict {
    let run = AssertUnwindSafe(|| Exercise::new(files, way, known).run(random));
    match catch_unwind(run) {
        Ok(verdict) => verdict,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or(panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Err(format!("a panic: {}", text.unwrap_or_default()))
        }
    }
}

/// What is in a database, as its reader sees it.
#[derive(Debug, PartialEq)]
struct Contents {
    count: u64,
    commit: u64,
    /// The live records, or the first ones of very many; `None` where one is damaged.
    records: BTreeMap<u32, Option<Vec<u8>>>,
}

impl Contents {
    /// Whether what was readable `before` is there unchanged. What was damaged need not stay so:
    /// more of a data file may belong to it now.
    fn keeps(&self, before: &Contents) -> bool {
        let same = |(id, value): (&u32, &Option<Vec<u8>>)| {
            let now = self.records.get(id);
            value.is_none() && now.is_some() || now == Some(value)
        };
        (self.count, self.commit) == (before.count, before.commit)
            && self.records.len() == before.records.len()
            && before.records.iter().all(same)
    }
}

struct Exercise<'a> {
    files: &'a Files,
    way: &'a Way,
    known: Option<Known<'a>>,
    /// Most memory that a call may take.
    memory: usize,
    /// There is a directory where a file belongs, so the storage itself fails.
    odd: bool,
}

impl<'a> Exercise<'a> {
    fn new(files: &'a Files, way: &'a Way, known: Option<Known<'a>>) -> Exercise<'a> {
        let size: usize = files.values().map(Vec::len).sum();
        Exercise {
            files,
            way,
            known,
            memory: MEMORY + MEMORY_PER_BYTE * size,
            odd: files.keys().any(|name| name.ends_with('/')),
        }
    }

    fn run(&self, random: &mut Random) -> Verdict {
        let directory = TempDirectoryIf::new(self.way.real);
        let storage: Arc<Bounded> = match directory.path() {
            Some(path) => {
                write_directory(path, self.files);
                let storage = OsStorage::new(path, self.way.options.io);
                Arc::new(Bounded::new(Arc::new(storage), self.way.mapped))
            }
            None => Arc::new(Bounded::in_memory(self.files, self.way.mapped)),
        };
        let seen = if self.way.look_first && self.way.is_plain() {
            Some(
                self.look(&storage)
                    .context(|| "read-only before".to_owned())?,
            )
        } else {
            None
        };
        let opened = self.open(&storage, &self.way.options)?;
        let db = match opened {
            Ok(db) => db,
            Err(_) if self.odd => return Ok(()),
            Err(error) => {
                self.judge_refusal(&error)?;
                if let Some(Ok(_)) = seen {
                    require!(
                        self.way.options.key_value,
                        "a reader opened it, and then it was refused: {error}"
                    );
                }
                return self.unchanged(&storage, &format!("it was refused ({error})"));
            }
        };
        let contents = self.read(&db).context(|| "reading".to_owned())?;
        if let Some(seen) = seen {
            self.same(&seen, &contents)?;
        }
        if self.way.options.reset {
            require!(contents.count == 0, "after a reset: {contents:?}");
        } else if let Some(known) = self.known {
            self.judge_contents(&contents, known)?;
        }
        self.check(&db, contents.records.values().any(Option::is_none))?;
        if self.way.reads() {
            self.call("close", || db.close())?
                .map_err(|error| format!("a reader can't be closed: {error}"))?;
            return self.unchanged(&storage, "it was only read");
        }
        let written = self.write(&db, contents, random)?;
        let Some(written) = written else {
            return Ok(());
        };
        match self.call("close", || db.close())? {
            Ok(()) => {}
            Err(error) => require!(self.odd, "close: {error}"),
        }
        let options = Options {
            read_only: random.chance(50),
            ..Options::default()
        };
        if self.odd {
            return Ok(());
        }
        let db = self
            .open(&storage, &options)?
            .map_err(|error| format!("closed without an error, and can't be opened: {error}"))?;
        let again = self.read(&db).context(|| "reading again".to_owned())?;
        require!(
            again.keeps(&written),
            "it was closed with\n  {written:?}\nand opened again it has\n  {again:?}"
        );
        Ok(())
    }

    /// What a reader sees.
    fn look(&self, storage: &Arc<Bounded>) -> Verdict<Result<Contents, String>> {
        let options = Options {
            read_only: true,
            adopt: self.way.options.adopt,
            ..Options::default()
        };
        match self.open(storage, &options)? {
            Ok(db) => self.read(&db).map(Ok),
            Err(error) => {
                self.judge_refusal(&error)?;
                Ok(Err(error.to_string()))
            }
        }
    }

    fn same(&self, seen: &Result<Contents, String>, contents: &Contents) -> Verdict {
        match seen {
            Ok(seen) => require!(
                seen == contents,
                "a reader saw\n  {seen:?}\nand opened for writing it has\n  {contents:?}"
            ),
            Err(error) => require!(
                contents.records.is_empty(),
                "a reader was refused ({error}), and opened for writing it has {contents:?}"
            ),
        }
        Ok(())
    }

    fn open(&self, storage: &Arc<Bounded>, options: &Options) -> Verdict<Result<Db, Error>> {
        let storage: Arc<dyn Storage> = storage.clone();
        self.call("open", || Db::open_on(storage, options))
    }

    /// Calls the library, and sees how much memory it takes.
    fn call<R>(&self, what: &str, f: impl FnOnce() -> R) -> Verdict<R> {
        let (result, most) = most_held(f);
        require!(
            most <= self.memory,
            "{what} took {most} bytes of memory, and {} are enough",
            self.memory
        );
        Ok(result)
    }

    fn judge_refusal(&self, error: &Error) -> Verdict {
        require!(!error.to_string().is_empty(), "an error without a word");
        let options = &self.way.options;
        let is_known = match error {
            Error::Corrupt { .. } | Error::Incompatible(_) => true,
            Error::NotFound(NotFound::Database(_)) => {
                options.must_exist || self.way.reads() || self.way.look_first
            }
            Error::Io { .. } => self.odd,
            _ => false,
        };
        require!(is_known, "opening it fails with {error:?}");
        Ok(())
    }

    /// Nothing may have changed in the directory.
    fn unchanged(&self, storage: &Bounded, why: &str) -> Verdict {
        if self.odd || self.way.real || self.way.options.reset {
            return Ok(());
        }
        let now = storage.files();
        for (name, content) in self.files {
            require!(
                now.get(name) == Some(content),
                "{why}, and {name} has changed or is gone"
            );
        }
        for name in now.keys() {
            require!(self.files.contains_key(name), "{why}, and {name} is new");
        }
        Ok(())
    }

    fn judge_contents(&self, contents: &Contents, known: Known<'_>) -> Verdict {
        let truth = known.truth;
        for (&id, value) in &contents.records {
            if let Some(value) = value {
                require!(
                    truth.is_version(id, value),
                    "id {id} was never {value:02x?}"
                );
            }
        }
        if !known.exact || self.way.options.salvage {
            return Ok(());
        }
        let commit = contents.commit;
        require!(
            (truth.synced..=truth.last_commit()).contains(&commit),
            "the last commit is {commit}, {} were made and {} were synced",
            truth.last_commit(),
            truth.synced
        );
        let expected = truth.as_of(commit);
        require!(
            contents.count == expected.len() as u64 && contents.records.keys().eq(expected.keys()),
            "as of commit {commit} there were {expected:?}, and there are {contents:?}"
        );
        for (id, value) in &contents.records {
            if let Some(value) = value {
                let expected = expected[id];
                require!(
                    value == expected,
                    "id {id} was {expected:02x?} as of commit {commit}, and is {value:02x?}"
                );
            }
        }
        Ok(())
    }

    /// Reads everything in all ways, which must agree.
    fn read(&self, db: &Db) -> Verdict<Contents> {
        let count = self.read_call("count", || db.count())?;
        let commit = self.read_call("last_commit", || db.last_commit())?;
        let count = count.ok_or("no count")?;
        let commit = commit.ok_or("no last commit")?;
        let mut records = BTreeMap::new();
        let mut next = self.read_call("first", || db.first())?;
        while let Some(id) = next {
            let value = self.record(db, id)?;
            require!(
                value.is_some() || db.contains(id).is_ok_and(|there| there),
                "id {id} is first or next, and isn't there"
            );
            records.insert(id, value);
            if records.len() == MOST_RECORDS {
                break;
            }
            next = self.read_call("above", || db.above(id))?;
            require!(next.is_none_or(|next| next > id), "above {id} is {next:?}");
        }
        if records.len() < MOST_RECORDS {
            require!(
                count == records.len() as u64,
                "count is {count}, and there are {} records",
                records.len()
            );
            let last = self.read_call("last", || db.last())?;
            require!(
                last == records.last_key_value().map(|(id, _)| *id),
                "last is {last:?}, and the records are {records:?}"
            );
        }
        for id in PROBES {
            if !records.contains_key(&id) && records.len() < MOST_RECORDS {
                let value = self.record(db, id)?;
                require!(value.is_none(), "id {id} is {value:?}, and is not next");
            }
            let _ = self.read_call("below", || db.below(id))?;
        }
        self.read_many(db, &records)?;
        Ok(Contents {
            count,
            commit,
            records,
        })
    }

    /// One record, in all ways to read it. `None`: it isn't there, or damaged.
    fn record(&self, db: &Db, id: u32) -> Verdict<Option<Vec<u8>>> {
        let value = self.read_call("get", || db.get(id))?;
        let history = self.read_call("history", || db.history(id, 0))?;
        let one = self.read_call("history", || db.history(id, 1))?;
        let newest = self.read_call("get_version", || db.get_version(id, u64::MAX))?;
        let _ = self.read_call("get_version", || db.get_version(id, 2))?;
        let _ = self.read_call("get_at", || db.get_at(id, 1_700_000_000_000_100))?;
        if let Some(value) = &value {
            let head = one.as_ref().and_then(|history| history.get(0));
            let head = head.map(|record| (record.state, record.value));
            // A version with a commit that was never made is no part of the history.
            let honest = self.known.is_some();
            require!(
                !honest || head == Some((State::Live, value.as_slice())),
                "id {id} is {value:?}, and its newest version is {head:?}"
            );
            require!(
                !honest || newest.as_ref().is_none_or(|newest| newest == value),
                "id {id} is {value:?}, and as of now it is {newest:?}"
            );
        }
        if let Some(history) = history {
            require!(
                history.iter().all(|record| record.id == id),
                "another id in the history of id {id}"
            );
        }
        Ok(value)
    }

    fn read_many(&self, db: &Db, records: &BTreeMap<u32, Option<Vec<u8>>>) -> Verdict {
        let ids: Vec<u32> = records.keys().copied().chain(PROBES).collect();
        let many = self.read_call("get_many", || db.get_many(&ids))?;
        // A version with a commit that was never made is seen by get, and not as of any commit.
        if self.known.is_none() {
            return Ok(());
        }
        let Some(many) = many else {
            require!(
                records.values().any(Option::is_none),
                "get_many fails, and each get is well"
            );
            return Ok(());
        };
        for (id, record) in ids.iter().zip(many.iter()) {
            let value = (record.state == State::Live).then_some(record.value);
            let expected = records.get(id).and_then(|value| value.as_deref());
            require!(
                record.id == *id && value == expected,
                "id {id} is {expected:?}, and in get_many {value:?}"
            );
        }
        Ok(())
    }

    /// Has the database check itself. What can't be read it must name.
    fn check(&self, db: &Db, is_damaged: bool) -> Verdict {
        let report = self.call("check", || db.check(|_, _| ControlFlow::Continue(())))?;
        match report {
            Ok(report) => require!(
                !report.is_sound() || !is_damaged,
                "a record can't be read, and a check finds nothing"
            ),
            Err(Error::Corrupt { .. }) => {}
            Err(error) => refute!("check: {error:?}"),
        }
        Ok(())
    }

    /// Calls a function that reads. `None`: there is nothing, or it is damaged.
    fn read_call<R>(&self, what: &str, f: impl FnOnce() -> Result<R, Error>) -> Verdict<Option<R>> {
        match self.call(what, f)? {
            Ok(value) => Ok(Some(value)),
            Err(Error::NotFound(_) | Error::IdOutOfRange { .. } | Error::Corrupt { .. }) => {
                Ok(None)
            }
            Err(error) => refute!("{what}: {error:?}"),
        }
    }

    /// Changes a few records; what there is then. `None`: nothing can be written.
    fn write(
        &self,
        db: &Db,
        mut contents: Contents,
        random: &mut Random,
    ) -> Verdict<Option<Contents>> {
        let ids: Vec<u32> = contents.records.keys().copied().collect();
        let id = match ids.len() {
            0 => random.below(8) as u32,
            count => ids[random.below(count as u64) as usize],
        };
        let value = [random.next() as u8; 20];
        let value = &value[..random.below(20) as usize];
        if self.write_call("insert", || db.insert(value))?.is_none()
            && self.write_call("set", || db.set(id, value))?.is_none()
        {
            return Ok(self.is_closed_well(db).then_some(contents));
        }
        if contents.records.contains_key(&id) && random.chance(50) {
            self.write_call("set", || db.set(id, value))?;
        } else if random.chance(50) {
            self.write_call("delete", || db.delete(id))?;
        }
        self.write_call("set_many", || db.set_many(&[(id, value), (id, b"x")]))?;
        if random.chance(50) {
            self.write_call("sync", || db.sync())?;
        }
        let after = self.read(db).context(|| "after writing".to_owned())?;
        for (id, value) in &contents.records {
            let now = after.records.get(id);
            let unchanged = ids.len() < MOST_RECORDS - 2
                && db.history(*id, 1).is_ok_and(|versions| {
                    versions.get(0).is_some_and(|v| v.commit <= contents.commit)
                });
            require!(
                !unchanged || now == Some(value),
                "id {id} was {value:?}, and after writing others it is {now:?}"
            );
        }
        contents = after;
        Ok(Some(contents))
    }

    fn is_closed_well(&self, _db: &Db) -> bool {
        true
    }

    /// Calls a function that writes. `None`: it can't be done, and there is a reason for that.
    fn write_call<R>(
        &self,
        what: &str,
        f: impl FnOnce() -> Result<R, Error>,
    ) -> Verdict<Option<R>> {
        match self.call(what, f)? {
            Ok(value) => Ok(Some(value)),
            Err(
                Error::NotFound(NotFound::Record(_))
                | Error::IdNotAssigned { .. }
                | Error::IdOutOfRange { .. }
                | Error::RecordTooLarge { .. }
                | Error::Full(_)
                | Error::WrongMode { .. },
            ) => Ok(None),
            Err(Error::Io { .. } | Error::Poisoned { .. }) if self.odd => Ok(None),
            Err(error) => refute!("{what}: {error:?}"),
        }
    }
}

/// A directory on disk, where one is wanted.
struct TempDirectoryIf(Option<TempDirectory>);

impl TempDirectoryIf {
    fn new(wanted: bool) -> TempDirectoryIf {
        TempDirectoryIf(wanted.then(TempDirectory::new))
    }

    fn path(&self) -> Option<&std::path::Path> {
        self.0.as_ref().map(TempDirectory::path)
    }
}
