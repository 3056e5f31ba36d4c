//! One stage of the work on one store, in a process of its own, so that memory is that of the store
//! alone and a store that panics takes nothing else along. What was measured goes to the standard
//! output, a line each, for `parent`.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::data::Versions;
use crate::engine::{Durability, Engine, Failure, Outcome, Setup, VALUE, wrong};
use crate::engines::{ALL, Entry};
use crate::measure::Measured;
use crate::workloads::Plan;
use crate::{memory, no_sync};

/// Begins the lines that are meant for the parent. Stores print too.
pub const MARK: &str = "ourdb-bench: ";

/// Records among which those are counted that a kill has taken.
const LAST: u32 = 10_000;
/// Records of the database that durable sets go to.
const DURABLE_RECORDS: u32 = 1000;

/// What a worker does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// Makes the database, stores all records, closes it.
    Load,
    /// Opens it and does everything else that needs no other database.
    Work,
    /// Makes a database, stores records, kills itself.
    Kill,
    /// Opens what was left by that.
    Recover,
    /// Makes a small database with every commit on disk.
    Durable,
    /// Measures the benchmark's own part.
    Own,
}

/// What a worker is told.
#[derive(Serialize, Deserialize)]
pub struct Job {
    /// The store, by its name.
    pub engine: String,
    /// What to do.
    pub stage: Stage,
    /// Where the store's files are.
    pub directory: PathBuf,
    /// How many records.
    pub records: u32,
    /// The duration of a workload in milliseconds.
    pub time_ms: u64,
    /// Which ids are random.
    pub seed: u64,
}

/// A line for the parent.
#[derive(Serialize, Deserialize)]
pub enum Line {
    /// A figure of a row.
    Figure {
        /// The row's name.
        row: String,
        /// In the row's unit.
        value: f64,
        /// Of how many operations it is the mean.
        operations: u64,
    },
    /// The stage ended here.
    Failed {
        /// Why.
        why: String,
    },
}

fn send(line: &Line) {
    println!(
        "{MARK}{}",
        serde_json::to_string(line).expect("a line of numbers and texts")
    );
}

fn figure(row: &str, value: f64, operations: u64) {
    send(&Line::Figure {
        row: row.to_owned(),
        value,
        operations,
    });
}

/// Nanoseconds per operation of a workload that the store has; its operations, or 0.
fn measured(row: &str, outcome: Outcome<Measured>) -> Outcome<u64> {
    match outcome {
        Ok(measured) if measured.operations > 0 => {
            figure(row, measured.ns(), measured.operations);
            Ok(measured.operations)
        }
        Ok(_) | Err(Failure::Declined) => Ok(0),
        Err(Failure::Broken(why)) => Err(Failure::Broken(format!("{row}: {why}"))),
    }
}

fn milliseconds(row: &str, start: Instant) {
    figure(row, start.elapsed().as_secs_f64() * 1e3, 1);
}

fn megabytes(row: &str, bytes: u64) {
    figure(row, bytes as f64 / 1e6, 1);
}

/// Does a stage, and says so if it fails.
pub fn work(job: &Job) -> bool {
    let plan = Plan {
        versions: Versions::new(if job.stage == Stage::Durable {
            DURABLE_RECORDS
        } else {
            job.records
        }),
        time: Duration::from_millis(job.time_ms),
        seed: job.seed,
    };
    let durability = if job.stage == Stage::Durable {
        Durability::Durable
    } else {
        Durability::Os
    };
    if durability == Durability::Os {
        no_sync::switch_off();
    }
    let store = || {
        let entry = ALL.iter().find(|entry| entry.name == job.engine);
        let entry = entry.ok_or_else(|| Failure::Broken("no such store".into()))?;
        Ok(Store {
            entry,
            plan: &plan,
            directory: &job.directory,
            durability,
        })
    };
    let outcome = match job.stage {
        Stage::Load => store().and_then(|store| store.load()),
        Stage::Work => store().and_then(|store| store.use_all()),
        Stage::Kill => store().and_then(|store| store.load_and_die()),
        Stage::Recover => store().and_then(|store| store.recover()),
        Stage::Durable => store().and_then(|store| store.durable()),
        Stage::Own => own(&plan),
    };
    match outcome {
        Ok(()) => return true,
        Err(Failure::Broken(why)) => send(&Line::Failed { why }),
        Err(Failure::Declined) => send(&Line::Failed {
            why: "declined what it must have".into(),
        }),
    }
    false
}

/// A store in its stages.
struct Store<'a> {
    entry: &'a Entry,
    plan: &'a Plan,
    directory: &'a Path,
    durability: Durability,
}

impl Store<'_> {
    fn open(&self) -> Outcome<Box<dyn Engine>> {
        (self.entry.open)(&Setup {
            directory: self.directory,
            durability: self.durability,
            records: self.plan.versions.records(),
        })
    }

    /// Opens it, which counts until the first record has been looked for: some stores put off what
    /// others do at once. Whether it was there.
    fn open_measured(&self, row: &str) -> Outcome<(Box<dyn Engine>, bool)> {
        let start = Instant::now();
        let engine = self.open()?;
        let mut found = [0; VALUE];
        let there = engine.session()?.get(0, &mut found)?;
        milliseconds(row, start);
        if there {
            self.plan.versions.check_all_of(0, &found)?;
        }
        Ok((engine, there))
    }

    /// Stores the records from this one on as fast as the store can.
    fn fill(&self, engine: &dyn Engine, from: u64) -> Outcome<Option<Measured>> {
        match self.plan.insert_batch(engine, from) {
            Ok(measured) => Ok(Some(measured)),
            Err(Failure::Declined) => self.plan.insert_singly(engine, from).map(|()| None),
            Err(failure) => Err(failure),
        }
    }

    fn load(&self) -> Outcome {
        let engine = self.open()?;
        let inserted = measured("insert", self.plan.insert(&*engine))?;
        if let Some(batches) = self.fill(&*engine, inserted)? {
            measured("insert_batch", Ok(batches))?;
        }
        let start = Instant::now();
        engine.close()?;
        milliseconds("close", start);
        megabytes("disk", memory::on_disk(self.directory)?);
        Ok(())
    }

    fn use_all(&self) -> Outcome {
        let plan = self.plan;
        let before = memory::resident();
        let (engine, there) = self.open_measured("open")?;
        if !there {
            return Err(wrong("no record after opening"));
        }
        let opened = memory::resident();
        megabytes("own_open", opened.own.saturating_sub(before.own));
        megabytes("resident_open", opened.all.saturating_sub(before.all));

        self.read(&*engine)?;
        self.overwrite(&*engine)?;
        measured("mixed_95", plan.mixed(&*engine, 5))?;
        measured("mixed_50", plan.mixed(&*engine, 50))?;
        let used = memory::resident();
        megabytes("own_used", used.own.saturating_sub(before.own));
        megabytes("resident_peak", used.peak.saturating_sub(before.all));

        self.look_back(&*engine)?;
        measured("delete", plan.delete(&*engine))?;
        engine.close()
    }

    /// What was inserted in order.
    fn read(&self, engine: &dyn Engine) -> Outcome {
        let plan = self.plan;
        plan.verify(engine)?;
        for (threads, suffix) in [(1, ""), (2, "_two")] {
            measured(&format!("get{suffix}"), plan.get(engine, threads))?;
            measured(
                &format!("get_dependent{suffix}"),
                plan.get_dependent(engine, threads),
            )?;
            measured(
                &format!("get_batch{suffix}"),
                plan.get_batch(engine, threads),
            )?;
        }
        measured("scan", plan.scan(engine))?;
        measured("scan_keys", plan.scan_keys(engine))?;
        measured("above", plan.above(engine))?;
        Ok(())
    }

    /// Gives each record another value, at random, and reads again.
    fn overwrite(&self, engine: &dyn Engine) -> Outcome {
        let plan = self.plan;
        let set = measured("set", plan.set(engine))?;
        let rest = match plan.set_batch(engine, set) {
            Ok(batches) => measured("set_batch", Ok(batches))?,
            Err(Failure::Declined) => plan.set_singly(engine, set)?.operations,
            Err(failure) => return Err(failure),
        };
        if set + rest == u64::from(plan.versions.records()) {
            megabytes("disk_overwritten", memory::on_disk(self.directory)?);
        }
        plan.verify(engine)?;
        measured("get_overwritten", plan.get(engine, 1))?;
        measured("scan_overwritten", plan.scan(engine))?;
        measured("scan_keys_overwritten", plan.scan_keys(engine))?;
        Ok(())
    }

    /// What only some have: versions, and a compaction that drops them.
    fn look_back(&self, engine: &dyn Engine) -> Outcome {
        let plan = self.plan;
        match engine.session()?.history(0, 1, &mut |_| {}) {
            Ok(()) => {
                plan.make_history(engine)?;
                measured("history", plan.history(engine))?;
            }
            Err(Failure::Declined) => {}
            Err(failure) => return Err(failure),
        }
        let start = Instant::now();
        match engine.compact() {
            Ok(()) => {
                let operations = plan.versions.records().into();
                measured(
                    "compact",
                    Ok(Measured {
                        time: start.elapsed(),
                        operations,
                    }),
                )?;
                plan.verify(engine)?;
                measured("scan_compacted", plan.scan(engine))?;
                measured("scan_keys_compacted", plan.scan_keys(engine))?;
                Ok(())
            }
            Err(Failure::Declined) => Ok(()),
            failed => failed,
        }
    }

    fn load_and_die(&self) -> Outcome {
        let engine = self.open()?;
        self.fill(&*engine, 0)?;
        // SAFETY: ends this process and nothing else.
        unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
        Err(wrong("a process that outlives SIGKILL"))
    }

    fn recover(&self) -> Outcome {
        let records = self.plan.versions.records();
        let (engine, _) = self.open_measured("open_killed")?;
        let mut session = engine.session()?;
        let (mut found, mut lost) = ([0; VALUE], 0);
        for id in records.saturating_sub(LAST)..records {
            if session.get(id, &mut found)? {
                self.plan.versions.check_all_of(id, &found)?;
            } else {
                lost += 1;
            }
        }
        figure("lost_killed", lost.into(), 1);
        drop(session);
        engine.close()
    }

    fn durable(&self) -> Outcome {
        let engine = match self.open() {
            Err(Failure::Declined) => return Ok(()),
            opened => opened?,
        };
        self.fill(&*engine, 0)?;
        let synced = no_sync::count();
        let alone = self.plan.durable(&*engine, 1)?;
        if no_sync::count() - synced < alone.operations {
            return Err(wrong("a durable commit without a sync"));
        }
        figure("durable", alone.ns() / 1e3, alone.operations);
        match self.plan.durable(&*engine, 8) {
            Ok(eight) => figure("durable_eight", eight.ns() / 1e3, eight.operations),
            Err(Failure::Declined) => {}
            Err(failure) => return Err(failure),
        }
        self.plan.verify(&*engine)?;
        engine.close()
    }
}

/// What the benchmark itself takes.
fn own(plan: &Plan) -> Outcome {
    measured("make_value", plan.make_value())?;
    measured("check_value", plan.check_value())?;
    Ok(())
}
