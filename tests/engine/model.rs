//! OurDB against the reference model: random sequences of every call, with reopening and killing
//! in between, on every kind of storage. `PROPTEST_CASES` sets how many sequences each test tries.

use std::sync::Arc;

use crate::support::model::{self, Expected, Model, Refusal, Value, Write, compare};
use crate::support::{Context, TempDirectory, Verdict, cases, check_property, refute};
use ourdb::storage::memory::MemoryStorage;
use ourdb::storage::os::OsStorage;
use ourdb::storage::{Access, Storage};
use ourdb::{Db, IoMode, LookupKind, Options, Sync};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

/// How a database is made.
#[derive(Clone, Debug)]
struct Settings {
    key_value: bool,
    native: bool,
    /// 0 is the default, here and below.
    record_nr_max: u32,
    record_size_max: u32,
    file_size: u32,
    open: Opening,
}

impl Settings {
    fn model(&self) -> Model {
        Model::new(self.key_value, self.record_nr_max, self.record_size_max)
    }
}

/// What every open chooses anew.
#[derive(Clone, Copy, Debug)]
struct Opening {
    sync: Sync,
    lookup: LookupKind,
    io: IoMode,
}

/// What changes from one open to the next.
#[derive(Clone, Debug)]
struct Change {
    /// How many ids more there shall be; 0 leaves what is stored.
    more_ids: u32,
    record_size_max: u32,
    file_size: u32,
    open: Opening,
}

/// A call, or something that happens to the database as a whole.
#[derive(Clone, Debug)]
enum Step {
    Write(Write),
    Get(u32),
    GetWith(u32),
    Contains(u32),
    NextId,
    Count,
    LastCommit,
    GetMany(Vec<u32>),
    First,
    Last,
    Above(u32),
    Below(u32),
    History(u32, usize),
    /// The commit counts back from two after the last one.
    GetVersion(u32, u64),
    /// The time of the commit that many before the last one, and a few microseconds more.
    GetAt(u32, u64, i64),
    Sync,
    Compare,
    /// Closed and opened again, to begin anew.
    Reset,
    /// Closed and opened again.
    Reopen(Change),
    /// Dropped as by `kill -9`, and opened again.
    Kill(Change),
    /// Closed or killed, and opened again with a damaged checkpoint: cut or overwritten somewhere.
    LoseIndex {
        kill: bool,
        cut: bool,
        at: u16,
    },
    /// Changed, killed, and opened again with a damaged table on disk.
    LoseTable {
        value: Value,
        cut: bool,
        at: u16,
    },
    /// Closed or killed, and looked at through a read-only handle before it is opened again.
    ReadOnly {
        kill: bool,
    },
    /// A second open for writing while this one lasts.
    OpenTwice,
    /// Closed, and opened in ways that must be refused.
    OpenWrongly,
}

fn opening() -> impl Strategy<Value = Opening> {
    let sync =
        prop_oneof![6 => Just(Sync::Os), 2 => Just(Sync::Commit), 1 => Just(Sync::Interval(2))];
    let lookup = prop_oneof![Just(LookupKind::Memory), Just(LookupKind::Disk)];
    let io = prop_oneof![Just(IoMode::Map), Just(IoMode::File), Just(IoMode::Auto)];
    (sync, lookup, io).prop_map(|(sync, lookup, io)| Opening { sync, lookup, io })
}

fn file_size() -> impl Strategy<Value = u32> {
    prop_oneof![
        Just(0u32),
        Just(1),
        Just(150),
        Just(700),
        Just(5000),
        Just(100_000)
    ]
}

fn record_size_max() -> impl Strategy<Value = u32> {
    prop_oneof![4 => Just(0u32), 1 => Just(50), 1 => Just(4000), 1 => Just(100_000)]
}

fn settings() -> impl Strategy<Value = Settings> {
    let record_nr_max =
        prop_oneof![3 => Just(0u32), 4 => 1..24u32, 1 => Just(70_000), 1 => Just(1 << 22)];
    (
        any::<bool>(),
        any::<bool>(),
        record_nr_max,
        record_size_max(),
        file_size(),
        opening(),
    )
        .prop_map(
            |(key_value, native, record_nr_max, record_size_max, file_size, open)| Settings {
                key_value,
                native,
                record_nr_max,
                record_size_max,
                file_size,
                open,
            },
        )
}

fn change() -> impl Strategy<Value = Change> {
    let more_ids = prop_oneof![3 => Just(0u32), 2 => 1..8u32, 1 => Just(100_000)];
    // Most openings keep the sizes, given out as 0.
    let size = prop_oneof![3 => Just(0u32).boxed(), 1 => record_size_max().boxed()];
    let file = prop_oneof![3 => Just(0u32).boxed(), 1 => file_size().boxed()];
    (more_ids, size, file, opening()).prop_map(|(more_ids, record_size_max, file_size, open)| {
        Change {
            more_ids,
            record_size_max,
            file_size,
            open,
        }
    })
}

fn step() -> impl Strategy<Value = Step> {
    let reading = prop_oneof![
        model::id().prop_map(Step::Get),
        model::id().prop_map(Step::GetWith),
        model::id().prop_map(Step::Contains),
        Just(Step::NextId),
        Just(Step::Count),
        Just(Step::LastCommit),
        vec(model::id(), 0..8).prop_map(Step::GetMany),
        Just(Step::First),
        Just(Step::Last),
        model::id().prop_map(Step::Above),
        model::id().prop_map(Step::Below),
        (model::id(), 0..4usize).prop_map(|(id, max)| Step::History(id, max)),
        (model::id(), 0..20u64).prop_map(|(id, back)| Step::GetVersion(id, back)),
        (model::id(), 0..20u64, -2..3i64).prop_map(|(id, back, more)| Step::GetAt(id, back, more)),
    ];
    let whole = prop_oneof![
        3 => Just(Step::Sync),
        1 => Just(Step::Compare),
        4 => change().prop_map(Step::Reopen),
        6 => change().prop_map(Step::Kill),
        1 => Just(Step::Reset),
        2 => (any::<bool>(), any::<bool>(), any::<u16>())
            .prop_map(|(kill, cut, at)| Step::LoseIndex { kill, cut, at }),
        2 => (model::value(), any::<bool>(), any::<u16>())
            .prop_map(|(value, cut, at)| Step::LoseTable { value, cut, at }),
        2 => any::<bool>().prop_map(|kill| Step::ReadOnly { kill }),
        1 => Just(Step::OpenTwice),
        1 => Just(Step::OpenWrongly),
    ];
    prop_oneof![
        6 => model::write(model::id(), model::value()).prop_map(Step::Write),
        3 => reading,
        1 => whole,
    ]
}

/// Where the database of a test lies.
#[derive(Debug)]
enum Place {
    /// Files in memory, which outlive the handle.
    Memory(Arc<MemoryStorage>),
    /// Files on disk.
    Disk(TempDirectory),
    /// `Options::memory`: gone with the handle.
    Fleeting,
}

impl Place {
    fn storage(&self, io: IoMode) -> Option<Arc<dyn Storage>> {
        match self {
            Place::Memory(storage) => Some(Arc::clone(storage) as Arc<dyn Storage>),
            Place::Disk(directory) => Some(Arc::new(OsStorage::new(directory.path(), io))),
            Place::Fleeting => None,
        }
    }

    fn open(&self, options: &Options) -> Result<Db, ourdb::Error> {
        // Through the front door, and through the one for a storage of the caller's.
        match (self, self.storage(options.io)) {
            (Place::Disk(directory), _) if options.io == IoMode::Auto => {
                Db::open(directory.path(), options)
            }
            (_, Some(storage)) => Db::open_on(storage, options),
            (_, None) => Db::open("no/such/place", options),
        }
    }

    /// Cuts a file, if there is one, or overwrites some bytes of it.
    fn damage(&self, name: &str, cut: bool, at: u16) -> std::io::Result<()> {
        let Some(storage) = self.storage(IoMode::File) else {
            return Ok(());
        };
        let Ok(file) = storage.open(name, Access::Write) else {
            return Ok(());
        };
        let at = u64::from(at) % file.len()?.max(1);
        if cut {
            file.set_len(at)
        } else {
            file.write_at(at, &[&[0xa5; 9]])
        }
    }
}

/// A database under test, and what it must hold.
struct Trial {
    place: Place,
    settings: Settings,
    model: Model,
    db: Option<Db>,
}

impl Trial {
    fn begin(place: Place, settings: &Settings) -> Verdict<Trial> {
        let model = settings.model();
        let mut trial = Trial {
            place,
            settings: settings.clone(),
            model,
            db: None,
        };
        trial
            .open(&trial.options())
            .context(|| "making the database".into())?;
        Ok(trial)
    }

    /// Options as at the beginning, with nothing that would change an existing database.
    fn options(&self) -> Options {
        let opening = self.settings.open;
        let disk = matches!(self.place, Place::Disk(_));
        Options {
            key_value: self.settings.key_value,
            native: self.settings.native,
            memory: matches!(self.place, Place::Fleeting),
            record_nr_max: self.settings.record_nr_max,
            record_size_max: self.settings.record_size_max,
            file_size: self.settings.file_size,
            // Only a real file can be a table.
            lookup: if disk {
                opening.lookup
            } else {
                LookupKind::Memory
            },
            sync: opening.sync,
            io: if disk { opening.io } else { IoMode::Auto },
            ..Options::default()
        }
    }

    fn open(&mut self, options: &Options) -> Verdict {
        match self.place.open(options) {
            Ok(db) => self.db = Some(db),
            Err(error) => refute!("opening with {options:?}\n  failed: {error}"),
        }
        Ok(())
    }

    fn db(&self) -> &Db {
        self.db
            .as_ref()
            .expect("the database is open between two steps")
    }

    /// Ends the handle as `close` or as `kill -9` does.
    fn end(&mut self, kill: bool) -> Verdict {
        let db = self
            .db
            .take()
            .expect("the database is open between two steps");
        if kill {
            drop(db);
            return Ok(());
        }
        db.close().map_err(|error| format!("close failed: {error}"))
    }

    fn reopen(&mut self, kill: bool, change: &Change) -> Verdict {
        self.end(kill)?;
        self.settings.open = change.open;
        let mut options = self.options();
        if matches!(self.place, Place::Fleeting) {
            self.model = self.settings.model();
        } else {
            options.record_nr_max = 0;
            if change.more_ids > 0 {
                self.model.record_nr_max = self.model.record_nr_max.saturating_add(change.more_ids);
                options.record_nr_max = self.model.record_nr_max;
            }
            options.record_size_max = change.record_size_max;
            if change.record_size_max > 0 {
                self.model.record_size_max = change.record_size_max;
            }
            options.file_size = change.file_size;
            // An existing database is what it is, and a flag that fits changes nothing.
            options.key_value &= change.more_ids == 0;
            options.must_exist = change.file_size > 0;
        }
        self.open(&options)?;
        self.model.check_all(self.db())
    }

    /// Damages a file that can be made from the log again, and opens.
    fn damage(&mut self, name: &str, cut: bool, at: u16) -> Verdict {
        let damaged = self.place.damage(name, cut, at);
        damaged.map_err(|error| format!("damaging {name}: {error}"))?;
        self.open(&self.options_to_go_on())?;
        self.model.check_all(self.db())
    }

    /// Everything can be read through a read-only handle, beside a writer too, and nothing written.
    fn check_read_only(&self) -> Verdict {
        let mut options = Options {
            read_only: true,
            ..self.options()
        };
        (
            options.record_nr_max,
            options.record_size_max,
            options.file_size,
        ) = (0, 0, 0);
        let db = self
            .place
            .open(&options)
            .map_err(|error| format!("read-only open: {error}"))?;
        self.model
            .check_all(&db)
            .context(|| "through a read-only handle".into())?;
        let write = Write::Set(1, Value { seed: 1, len: 1 });
        let refused: Expected<_> = Err(vec![Refusal::ReadOnly]);
        compare(
            || format!("{write:?} on a read-only handle"),
            &refused,
            write.perform(&db),
        )
    }

    fn check_refused(&self, options: &Options, refusal: Refusal) -> Verdict {
        let found = self.place.open(options).map(|_| ());
        compare(
            || format!("opening with {options:?}"),
            &Err(vec![refusal]),
            found,
        )
    }

    fn take(&mut self, step: &Step) -> Verdict {
        let last = self.model.last_commit();
        let fleeting = matches!(self.place, Place::Fleeting);
        match step {
            Step::Write(write) => {
                let db = self
                    .db
                    .as_ref()
                    .expect("the database is open between two steps");
                self.model.perform(db, write)
            }
            Step::Get(id) => self.model.check_get(self.db(), *id),
            Step::GetWith(id) => self.model.check_get_with(self.db(), *id),
            Step::Contains(id) => self.model.check_contains(self.db(), *id),
            Step::NextId => self.model.check_next_id(self.db()),
            Step::Count => self.model.check_count(self.db()),
            Step::LastCommit => self.model.check_last_commit(self.db()),
            Step::GetMany(ids) => self.model.check_get_many(self.db(), ids),
            Step::First => self.model.check_first(self.db()),
            Step::Last => self.model.check_last(self.db()),
            Step::Above(id) => self.model.check_above(self.db(), *id),
            Step::Below(id) => self.model.check_below(self.db(), *id),
            Step::History(id, max) => self.model.check_history(self.db(), *id, *max),
            Step::GetVersion(id, back) => {
                let commit = (last + 2).checked_sub(*back).unwrap_or(u64::MAX);
                self.model.check_get_version(self.db(), *id, commit)
            }
            Step::GetAt(id, back, more) => {
                let time = last
                    .checked_sub(*back)
                    .and_then(|commit| self.model.time(commit));
                let time = time.map_or(0, |time| time.saturating_add_signed(*more));
                self.model.check_get_at(self.db(), *id, time)
            }
            Step::Sync => self
                .db()
                .sync()
                .map_err(|error| format!("sync failed: {error}")),
            Step::Compare => self.model.check_all(self.db()),
            Step::Reopen(change) => self.reopen(false, change),
            Step::Kill(change) => self.reopen(true, change),
            // What follows needs the same files again.
            _ if fleeting => Ok(()),
            Step::Reset => {
                self.end(false)?;
                self.model = self.settings.model();
                self.open(&Options {
                    reset: true,
                    ..self.options()
                })?;
                self.model.check_all(self.db())
            }
            Step::LoseIndex { kill, cut, at } => {
                self.end(*kill)?;
                self.damage("index", *cut, *at)
            }
            Step::LoseTable { value, cut, at } => {
                // After a change the table on disk holds anything, until the next clean close.
                let write = match self.settings.key_value {
                    true => Write::Set(0, *value),
                    false => Write::Insert(*value),
                };
                self.take(&Step::Write(write))?;
                let changed = self.model.last_commit() > last;
                self.end(changed)?;
                if changed {
                    return self.damage("lookup", *cut, *at);
                }
                self.open(&self.options_to_go_on())
            }
            Step::ReadOnly { kill } => {
                self.check_read_only()
                    .context(|| "beside the writer".into())?;
                self.end(*kill)?;
                self.check_read_only()
                    .context(|| "after the writer".into())?;
                self.open(&self.options_to_go_on())
            }
            Step::OpenTwice => self.check_refused(&self.options_to_go_on(), Refusal::Locked),
            Step::OpenWrongly => {
                self.end(false)?;
                let right = self.options_to_go_on();
                if self.model.record_nr_max > 1 {
                    let fewer = self.model.record_nr_max - 1;
                    let options = Options {
                        record_nr_max: fewer,
                        ..right.clone()
                    };
                    self.check_refused(&options, Refusal::Incompatible)?;
                }
                if !self.settings.key_value {
                    let options = Options {
                        key_value: true,
                        ..right.clone()
                    };
                    self.check_refused(&options, Refusal::Incompatible)?;
                }
                let options = Options {
                    read_only: true,
                    reset: true,
                    ..right.clone()
                };
                self.check_refused(&options, Refusal::InvalidArgument)?;
                self.open(&right)
            }
        }
    }

    /// Options that leave everything stored as it is.
    fn options_to_go_on(&self) -> Options {
        Options {
            record_nr_max: 0,
            record_size_max: 0,
            file_size: 0,
            ..self.options()
        }
    }

    /// At the end everything is compared once more, here and after each way of reopening.
    fn finish(mut self) -> Verdict {
        self.model
            .check_all(self.db())
            .context(|| "at the end".into())?;
        if matches!(self.place, Place::Fleeting) {
            return self.end(false);
        }
        for kill in [true, false, true] {
            self.end(kill)?;
            self.open(&self.options_to_go_on())?;
            let how = if kill { "a kill" } else { "a close" };
            self.model
                .check_all(self.db())
                .context(|| format!("at the end, after {how}"))?;
        }
        let db = self
            .db
            .take()
            .expect("the database is open between two steps");
        db.destroy()
            .map_err(|error| format!("destroy failed: {error}"))?;
        let gone = Options {
            must_exist: true,
            ..self.options()
        };
        match self.place.open(&gone) {
            Err(ourdb::Error::NotFound(_)) => Ok(()),
            Err(error) => refute!("opening after destroy: expected NotFound, found {error}"),
            Ok(_) => refute!("the database is still there after destroy"),
        }
    }
}

fn check(place: impl Fn() -> Place, settings: &Settings, steps: &[Step]) -> Verdict {
    let mut trial = Trial::begin(place(), settings)?;
    for (number, step) in steps.iter().enumerate() {
        trial
            .take(step)
            .context(|| format!("step {number}, {step:?}"))?;
    }
    trial.finish()
}

fn against_the_model(default_cases: u32, place: impl Fn() -> Place) {
    let strategy = (settings(), vec(step(), 1..80));
    check_property(cases(default_cases), 2000, strategy, |(settings, steps)| {
        check(&place, &settings, &steps)
    });
}

#[test]
fn a_database_in_memory_files_is_the_model() {
    against_the_model(100, || Place::Memory(Arc::new(MemoryStorage::new())));
}

#[test]
fn a_database_on_disk_is_the_model() {
    against_the_model(100, || Place::Disk(TempDirectory::new()));
}

#[test]
fn a_database_in_memory_only_is_the_model() {
    against_the_model(64, || Place::Fleeting);
}

/// Long histories of few records, across many data files.
#[test]
fn long_histories_are_the_model() {
    let write = model::write(0..5u32, model::short_value());
    let settings = (settings(), option::of(Just(1000u32)));
    let strategy = (settings, vec(write, 100..300));
    check_property(
        cases(8),
        500,
        strategy,
        |((settings, file_size), writes)| {
            let settings = Settings {
                record_nr_max: 6,
                file_size: file_size.unwrap_or(200),
                ..settings
            };
            let mut steps: Vec<Step> = writes.into_iter().map(Step::Write).collect();
            let change = Change {
                more_ids: 0,
                record_size_max: 0,
                file_size: 0,
                open: settings.open,
            };
            steps.insert(steps.len() / 2, Step::Kill(change));
            check(|| Place::Disk(TempDirectory::new()), &settings, &steps)
        },
    );
}

/// A gap of millions of ids, walked in both directions.
#[test]
fn neighbours_are_found_across_wide_gaps() {
    let far = proptest::collection::btree_set(
        prop_oneof![0..16_777_214u32, 0..200u32, 16_777_000..16_777_214u32],
        1..12,
    );
    check_property(cases(16), 500, (far, any::<u64>()), |(ids, seed)| {
        let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
        let options = Options {
            key_value: true,
            ..Options::default()
        };
        let open =
            || Db::open_on(Arc::clone(&storage), &options).map_err(|error| error.to_string());
        let db = open()?;
        let mut model = Model::new(true, 0, 0);
        for &id in &ids {
            model.perform(
                &db,
                &Write::Set(
                    id,
                    Value {
                        seed: id as u16,
                        len: 3,
                    },
                ),
            )?;
        }
        model.check_order(&db)?;
        let mut random = crate::support::Random::new(seed);
        for &id in &ids {
            if random.chance(50) {
                model.perform(&db, &Write::Delete(id))?;
            }
            model.check_order(&db)?;
        }
        drop(db);
        model.check_all(&open()?)
    });
}
