//! What the campaigns over the simulated storage let a database do: a list of steps, written by
//! hand or made from a seed.

use std::collections::BTreeMap;
use std::fs;
use std::sync::{Arc, OnceLock};

use ourdb::storage::Storage;
use ourdb::{Db, Error, Options, Retention, Sync};

use crate::support::herolib::{Herolib, Port, Settings};
use crate::support::model::{Model, Value, Write};
use crate::support::sim::{Disk, Fault, SimStorage};
use crate::support::{Random, TempDirectory};

/// More ids than a workload inserts.
pub(crate) const RECORD_NR_MAX: u32 = 200;

#[derive(Clone, Debug)]
pub(crate) enum Step {
    Write(Write),
    /// All kinds of reading calls, one of each.
    Read(u32),
    Sync,
    /// A write to another database, the source of what is fed.
    Source(Write),
    CompactSource(Retention),
    /// Applies all that the source has, in parts of about so many bytes.
    Feed(usize),
    /// Closed and opened again.
    Reopen,
    /// Dropped as by `kill -9`, and opened again; the page cache survives.
    Kill,
    Compact(Compact),
    Backup(Backup),
    /// Dropped, and opened with the flag that removes what is there.
    Reset,
    /// Destroyed, and made anew.
    Destroy,
    /// Closed, and opened with another `file_size` and twice as many ids.
    Limits(u32),
    /// The power fails, in a way made from the seed.
    PowerLoss(u64),
    /// From here on calls fail, those before not counted.
    Fail(Fault),
    /// So many bytes more fit on the disk.
    Fill(usize),
    /// Nothing fails any more, and there is space.
    Mend,
}

/// A compaction, and what happens beside it.
#[derive(Clone, Debug)]
pub(crate) struct Compact {
    pub(crate) retention: Retention,
    /// Made when the compaction has begun.
    pub(crate) beside: Vec<Write>,
    /// Stopped after that.
    pub(crate) cancelled: bool,
}

impl Compact {
    /// Keeps so many versions of each record.
    pub(crate) fn keeping(versions: u64) -> Compact {
        Compact {
            retention: Retention {
                keep_versions: versions,
                ..Retention::default()
            },
            beside: Vec::new(),
            cancelled: false,
        }
    }
}

/// A backup, what happens beside it, and what happens in the directory that it goes into.
#[derive(Clone, Debug, Default)]
pub(crate) struct Backup {
    /// Made one by one while it is copied; no erasures, which have to wait.
    pub(crate) beside: Vec<Write>,
    /// Stopped where it tells for the so manieth time how far it is.
    pub(crate) stop_at: Option<usize>,
    /// Calls fail there, those before not counted.
    pub(crate) fault: Option<Fault>,
    /// If it fails the power does too, in a way made from the seed.
    pub(crate) power_loss: Option<u64>,
}

/// What is there before the first step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Beginning {
    Nothing,
    /// A directory that herolib has closed.
    Dump,
    /// A directory of herolib's without a dump, to be adopted.
    DataFiles,
}

#[derive(Clone, Debug)]
pub(crate) struct Workload {
    pub(crate) name: String,
    pub(crate) options: Options,
    /// Whether the file system can reserve space ahead of writing.
    pub(crate) reserves: bool,
    pub(crate) beginning: Beginning,
    /// Of the simulated clock, and of what chance decides.
    pub(crate) seed: u64,
    /// Too long for all states that a crash can leave of it.
    pub(crate) is_long: bool,
    pub(crate) steps: Vec<Step>,
}

impl Workload {
    /// An incremental database of short data files, without a dump.
    pub(crate) fn new(name: impl Into<String>) -> Workload {
        Workload {
            name: name.into(),
            options: Options {
                native: true,
                file_size: 3000,
                record_nr_max: RECORD_NR_MAX,
                ..Options::default()
            },
            reserves: true,
            beginning: Beginning::Nothing,
            seed: 9,
            is_long: false,
            steps: Vec::new(),
        }
    }

    pub(crate) fn model(&self) -> Model {
        let options = &self.options;
        let mut model = Model::new(options.key_value, options.record_nr_max, 0);
        if self.beginning != Beginning::Nothing {
            for &(id, value) in &herolib().1 {
                model.import(id, value);
            }
        }
        model
    }

    pub(crate) fn disk(&self) -> Disk {
        let files = |dump: bool| {
            let files = herolib().0.iter();
            let wanted = files.filter(|(name, _)| dump || !name.starts_with("lookup_dump"));
            wanted
                .map(|(name, bytes)| (name.clone(), bytes.clone()))
                .collect()
        };
        match self.beginning {
            Beginning::Nothing => Disk::new(),
            Beginning::Dump => Disk::holding(&files(true)),
            Beginning::DataFiles => Disk::holding(&files(false)),
        }
    }

    pub(crate) fn storage(&self, disk: Disk, seed: u64) -> SimStorage {
        SimStorage::new(disk, self.reserves, self.seed ^ seed)
    }

    pub(crate) fn describe_steps(&self) -> String {
        let steps = self.steps.iter().enumerate();
        let lines = steps.map(|(number, step)| format!("  step {number}: {step:?}\n"));
        lines.collect()
    }

    pub(crate) fn commits_durably(&self) -> bool {
        self.options.sync == Sync::Commit
    }
}

pub(crate) fn open(storage: &SimStorage, options: &Options) -> Result<Db, Error> {
    Db::open_on(Arc::new(storage.clone()) as Arc<dyn Storage>, options)
}

type Files = BTreeMap<String, Vec<u8>>;

/// A directory that herolib wrote and closed, of several data files, and the versions in it.
fn herolib() -> &'static (Files, Vec<(u32, Value)>) {
    static MADE: OnceLock<(Files, Vec<(u32, Value)>)> = OnceLock::new();
    MADE.get_or_init(|| {
        let directory = TempDirectory::new();
        let settings = Settings::DEFAULT.file_size(400);
        let mut db = Herolib::open(directory.path(), settings, Port::Go).expect("a new directory");
        let mut versions = Vec::new();
        for seed in 0..5 {
            let value = Value {
                seed: 8 * seed,
                len: 90,
            };
            versions.push((db.insert(&value.bytes()), value));
        }
        for (id, seed) in [(2, 1), (4, 9), (2, 17)] {
            let value = Value { seed, len: 60 };
            db.set(id, &value.bytes()).expect("a set");
            versions.push((id, value));
        }
        db.close();
        let mut files = Files::new();
        for directory in [
            directory.path().to_owned(),
            directory.path().join("lookup_dump.db"),
        ] {
            for entry in fs::read_dir(&directory).expect("a directory") {
                let path = entry.expect("an entry").path();
                if path.is_file() {
                    let file = path.file_name().expect("a name").to_string_lossy();
                    let name = match directory.ends_with("lookup_dump.db") {
                        true => format!("lookup_dump.db/{file}"),
                        false => file.into_owned(),
                    };
                    files.insert(name, fs::read(&path).expect("a file"));
                }
            }
        }
        (files, versions)
    })
}

/// Lengths that come again and again, so that records of different commits end at the same
/// places, and some others.
fn any_value(random: &mut Random) -> Value {
    let len = match random.below(12) {
        0 | 1 => 0,
        2..=5 => 10,
        6..=9 => 100,
        _ => random.below(700),
    };
    Value {
        seed: random.next() as u16,
        len: len as u32,
    }
}

/// A random write of few ids; some can't be done.
pub(crate) fn any_write(random: &mut Random, key_value: bool) -> Write {
    let id = |random: &mut Random| random.below(8) as u32;
    let count = random.below(5);
    match random.below(36) {
        0..6 if !key_value => Write::Insert(any_value(random)),
        6..9 if !key_value => Write::InsertMany((0..count).map(|_| any_value(random)).collect()),
        0..14 => Write::Set(id(random), any_value(random)),
        14..18 => Write::Delete(id(random)),
        18..24 => {
            let records = (0..count).map(|_| (id(random), any_value(random)));
            Write::SetMany(records.collect())
        }
        24 | 25 => Write::DeleteMany((0..count / 2).map(|_| id(random)).collect()),
        26..29 => {
            let write = |random: &mut Random| {
                let value = random.chance(70).then(|| any_value(random));
                (id(random), value)
            };
            Write::Txn((0..count).map(|_| write(random)).collect())
        }
        29 => Write::Clear,
        30..33 => Write::Erase(id(random)),
        33 | 34 => Write::Revert(id(random), random.below(12)),
        _ => Write::RevertAll(random.below(12)),
    }
}

/// A random workload without faults, of up to `most` steps.
pub(crate) fn any_workload(seed: u64, most: u64) -> Workload {
    let mut random = Random::new(seed);
    let key_value = random.chance(50);
    let mut workload = Workload {
        reserves: random.chance(60),
        seed,
        ..Workload::new(format!("random {seed}"))
    };
    workload.options = Options {
        key_value,
        native: random.chance(60),
        sync: if random.chance(33) {
            Sync::Commit
        } else {
            Sync::Os
        },
        file_size: match random.below(7) {
            0 => 1,
            1 => 0,
            _ => 150 + random.below(1350) as u32,
        },
        ..workload.options
    };
    if !key_value && random.chance(8) {
        workload.import(random.chance(50));
    }
    let steps = 1 + random.below(most);
    workload.steps = (0..steps)
        .map(|_| any_step(&mut random, key_value))
        .collect();
    if key_value && random.chance(20) {
        workload.steps = fed(workload.steps, &mut random);
    }
    if random.chance(20) {
        workload.back_up(&mut random);
    }
    workload
}

/// A workload like [`any_workload`]'s with backups among its steps.
pub(crate) fn any_backed_up_workload(seed: u64, most: u64) -> Workload {
    let mut random = Random::new(seed ^ 0x6261_636b);
    let mut workload = any_workload(seed, most);
    if !workload.has_backups() {
        workload.back_up(&mut random);
    }
    workload
}

/// The same steps, with the writes made in another database and applied here some at a time.
fn fed(steps: Vec<Step>, random: &mut Random) -> Vec<Step> {
    let mut fed = Vec::new();
    for step in steps {
        match step {
            Step::Write(write) => {
                fed.push(Step::Source(write));
                if random.chance(15) {
                    fed.push(Step::CompactSource(any_retention(random)));
                }
                if random.chance(50) {
                    fed.push(Step::Feed(1 << random.below(13)));
                }
            }
            Step::Compact(compact) => fed.push(Step::Compact(Compact {
                beside: Vec::new(),
                ..compact
            })),
            step => fed.push(step),
        }
    }
    fed.push(Step::Feed(1 << 12));
    fed
}

impl Workload {
    /// Begins with a directory of herolib's.
    pub(crate) fn import(&mut self, dump: bool) {
        self.beginning = if dump {
            Beginning::Dump
        } else {
            Beginning::DataFiles
        };
        self.options.adopt = true;
        self.options.record_nr_max = 0;
    }
}

impl Workload {
    /// Whether the database is compacted, its source not counted.
    pub(crate) fn compacts(&self) -> bool {
        let mut steps = self.steps.iter();
        steps.any(|step| matches!(step, Step::Compact(_)))
    }

    pub(crate) fn has_backups(&self) -> bool {
        let mut steps = self.steps.iter();
        steps.any(|step| matches!(step, Step::Backup(_)))
    }

    /// Puts backups between the steps.
    fn back_up(&mut self, random: &mut Random) {
        let is_fed = self.steps.iter().any(|s| matches!(s, Step::Feed(_)));
        for _ in 0..1 + random.below(4) {
            let at = random.below(self.steps.len() as u64 + 1) as usize;
            let beside = if is_fed { 0 } else { random.below(3) };
            let key_value = self.options.key_value;
            let mut beside: Vec<Write> =
                (0..beside).map(|_| any_write(random, key_value)).collect();
            beside.retain(|write| !matches!(write, Write::Erase(_)));
            let backup = Backup {
                beside,
                stop_at: random.chance(15).then(|| 1 + random.below(3) as usize),
                ..Backup::default()
            };
            self.steps.insert(at, Step::Backup(backup));
        }
    }
}

pub(crate) fn any_retention(random: &mut Random) -> Retention {
    let since_commit = if random.chance(20) {
        1 + random.below(10)
    } else {
        0
    };
    Retention {
        keep_versions: random.below(4),
        keep_since_us: 0,
        keep_since_commit: since_commit,
    }
}

fn any_compact(random: &mut Random, key_value: bool) -> Compact {
    let retention = any_retention(random);
    let beside = random.below(4).saturating_sub(1);
    Compact {
        retention,
        beside: (0..beside).map(|_| any_write(random, key_value)).collect(),
        cancelled: random.chance(15),
    }
}

fn any_step(random: &mut Random, key_value: bool) -> Step {
    match random.below(44) {
        40.. => Step::Compact(any_compact(random, key_value)),
        0..28 => Step::Write(any_write(random, key_value)),
        28..32 => Step::Sync,
        32..34 => Step::Reopen,
        34..38 => Step::Kill,
        38 => Step::Limits(100 + random.below(2000) as u32),
        _ if random.chance(50) => Step::Reset,
        _ => Step::Destroy,
    }
}
