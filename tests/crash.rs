//! What is left after the death of the process, after a loss of power, and after calls of the
//! operating system that fail, over a simulated storage.
//!
//! A workload is run once, and every call that changed something is recorded. Then the disk is
//! looked at as it was after each of those calls, in the states that a crash there can leave, and
//! opened. What opens must be an exact prefix of the commits made, with at least everything that
//! the workload had been promised. `OURDB_TORTURE=1` looks at many more workloads and states.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ourdb::storage::Storage;
use ourdb::{Db, Error, Options, Sync};
use proptest::collection::vec;
use proptest::prelude::*;
use support::model::{self, Bytes, Model, Outcome, Refusal, Value, Write, compare};
use support::sim::{Calls, Disk, Errno, Fault, History, Hit, Loss, Pages, SimStorage};
use support::{Context, Random, Verdict, cases, check_property, require, torture};

#[derive(Clone, Debug)]
enum Step {
    Write(Write),
    Sync,
    /// Closed and opened again.
    Reopen,
    /// Dropped as by `kill -9`, and opened again; the page cache survives.
    Kill,
}

/// More ids than a workload inserts.
const RECORD_NR_MAX: u32 = 1000;

#[derive(Clone, Debug)]
struct Workload {
    key_value: bool,
    sync: Sync,
    file_size: u32,
    native: bool,
    /// Whether the file system can reserve space ahead of writing.
    reserves: bool,
    /// Of the simulated clock and of the losses.
    seed: u64,
    steps: Vec<Step>,
}

impl Workload {
    fn options(&self) -> Options {
        Options {
            key_value: self.key_value,
            native: self.native,
            file_size: self.file_size,
            record_nr_max: RECORD_NR_MAX,
            sync: self.sync,
            ..Options::default()
        }
    }

    fn model(&self) -> Model {
        Model::new(self.key_value, RECORD_NR_MAX, 0)
    }

    fn storage(&self, disk: Disk, seed: u64) -> SimStorage {
        SimStorage::new(disk, self.reserves, self.seed ^ seed)
    }

    fn open(&self, storage: &SimStorage, must_exist: bool) -> Result<Db, Error> {
        let options = Options {
            must_exist,
            ..self.options()
        };
        Db::open_on(Arc::new(storage.clone()) as Arc<dyn Storage>, &options)
    }
}

fn workload(steps: usize) -> impl Strategy<Value = Workload> {
    let step = prop_oneof![
        12 => model::write((0..8u32).boxed(), model::short_value())
            .prop_map(Step::Write),
        2 => Just(Step::Sync),
        1 => Just(Step::Reopen),
        2 => Just(Step::Kill),
    ];
    let sync = prop_oneof![2 => Just(Sync::Os), 1 => Just(Sync::Commit)];
    let file_size = prop_oneof![1 => Just(1u32), 4 => 150..1500u32, 2 => Just(0)];
    (
        any::<bool>(),
        sync,
        file_size,
        any::<bool>(),
        any::<bool>(),
        any::<u64>(),
        vec(step, 1..steps),
    )
        .prop_map(
            |(key_value, sync, file_size, native, reserves, seed, steps)| {
                let fit = |step| if key_value { with_ids(step) } else { step };
                let steps = steps.into_iter().map(fit).collect();
                Workload {
                    key_value,
                    sync,
                    file_size,
                    native,
                    reserves,
                    seed,
                    steps,
                }
            },
        )
}

/// For a key-value database, which would refuse an insert: the same value under an id.
fn with_ids(step: Step) -> Step {
    let with_id = |value: Value| (u32::from(value.seed % 8), value);
    match step {
        Step::Write(Write::Insert(value)) => {
            let (id, value) = with_id(value);
            Step::Write(Write::Set(id, value))
        }
        Step::Write(Write::InsertMany(values)) => {
            Step::Write(Write::SetMany(values.into_iter().map(with_id).collect()))
        }
        step => step,
    }
}

/// Where a call of the workload ends among the storage's calls, and what holds from then on.
#[derive(Clone, Debug)]
struct Mark {
    what: String,
    end: usize,
    /// The last commit made.
    commit: u64,
    /// The last commit that is promised to be on disk.
    synced: u64,
}

/// A workload that was run: everything that happened, and everything that must be found again.
struct Run {
    workload: Workload,
    history: History,
    marks: Vec<Mark>,
    model: Model,
}

/// What the workload had been promised at some moment.
#[derive(Clone, Copy, Debug)]
struct Promised {
    /// Commits that are acknowledged.
    acknowledged: u64,
    /// Of those, the ones that are synced.
    synced: u64,
    /// Commits that may be there, the one under way included.
    begun: u64,
}

impl Run {
    fn of(workload: &Workload) -> Verdict<Run> {
        let storage = workload.storage(Disk::new(), 0);
        let mut model = workload.model();
        let mut marks: Vec<Mark> = Vec::new();
        let mut mark = |what: String, commit: u64, synced: bool| {
            let before = marks.last().map_or(0, |mark: &Mark| mark.synced);
            let synced = if synced { commit } else { before };
            marks.push(Mark {
                what,
                end: storage.events(),
                commit,
                synced,
            });
        };
        let open = |must_exist| {
            workload
                .open(&storage, must_exist)
                .map_err(|error| format!("open failed: {error}"))
        };
        let mut db = open(false)?;
        mark("open".into(), 0, false);
        for (number, step) in workload.steps.iter().enumerate() {
            let context = || format!("step {number}, {step:?}");
            match step {
                Step::Write(write) => {
                    model.perform(&db, write).context(context)?;
                    mark(
                        context(),
                        model.last_commit(),
                        workload.sync == Sync::Commit,
                    );
                }
                Step::Sync => {
                    db.sync()
                        .map_err(|error| format!("{}: {error}", context()))?;
                    mark(context(), model.last_commit(), true);
                }
                Step::Reopen => {
                    db.close()
                        .map_err(|error| format!("{}: close failed: {error}", context()))?;
                    mark(format!("{}: close", context()), model.last_commit(), true);
                    db = open(true).context(context)?;
                    mark(format!("{}: open", context()), model.last_commit(), false);
                }
                Step::Kill => {
                    let calls = storage.events();
                    drop(db);
                    require!(
                        storage.events() == calls,
                        "{}: dropping the handle changed the disk",
                        context()
                    );
                    db = open(true).context(context)?;
                    mark(format!("{}: open", context()), model.last_commit(), false);
                    model.check_all(&db).context(context)?;
                }
            }
        }
        db.close()
            .map_err(|error| format!("the last close failed: {error}"))?;
        mark("the last close".into(), model.last_commit(), true);
        Ok(Run {
            workload: workload.clone(),
            history: storage.history(),
            marks,
            model,
        })
    }

    fn promised_after(&self, calls: usize) -> Promised {
        let mut promised = Promised {
            acknowledged: 0,
            synced: 0,
            begun: 0,
        };
        for mark in &self.marks {
            if mark.end > calls {
                promised.begun = mark.commit;
                break;
            }
            promised = Promised {
                acknowledged: mark.commit,
                synced: mark.synced,
                begun: mark.commit,
            };
        }
        promised
    }

    fn describe(&self, calls: usize) -> String {
        let under_way = self.marks.iter().find(|mark| mark.end > calls);
        let under_way = under_way.map_or("nothing", |mark| &mark.what);
        format!(
            "the end comes after call {calls} of {}, under way was {under_way}, {:?}\n{}",
            self.history.events.len(),
            self.promised_after(calls),
            self.history.describe(calls)
        )
    }

    /// Opens a disk as the crash left it: it must hold a prefix of the commits that keeps what was
    /// promised, the same when it is opened once more, and can be gone on with.
    fn check_image(&self, disk: Disk, promised: Promised, thorough: bool) -> Verdict {
        let workload = &self.workload;
        let storage = workload.storage(disk, 1);
        let must_exist = promised.acknowledged > 0;
        let open = |what: &str| {
            workload
                .open(&storage, must_exist)
                .map_err(|error| format!("{what}: refused: {error}"))
        };
        let db = open("the first open after the crash")?;
        let mut model = self
            .model
            .check_prefix(&db, promised.acknowledged..=promised.begun)?;
        let recovery = storage.events();
        drop(db);
        require!(
            storage.events() == recovery,
            "dropping the handle changed the disk"
        );

        let again = "recovered a second time";
        let db = open(again)?;
        let found = model.last_commit();
        self.model
            .check_prefix(&db, found..=found)
            .context(|| again.into())?;

        self.go_on(&db, &mut model)
            .context(|| "going on after the recovery".into())?;
        drop(db);
        let db = open("reopened after going on")?;
        model
            .check_all(&db)
            .context(|| "reopened after going on".into())?;
        db.sync()
            .map_err(|error| format!("sync after going on: {error}"))?;
        let cut_off = storage.disk().lose_power(&Loss::OF_EVERYTHING);
        drop(db);
        let after = workload.storage(cut_off, 2);
        let db = workload.open(&after, true).map_err(|error| {
            format!("refused after going on, a sync and a loss of power: {error}")
        })?;
        model
            .check_all(&db)
            .context(|| "after going on, a sync and a loss of power".into())?;
        if thorough {
            self.check_recovery(&storage.history(), recovery, promised.synced, found)
        } else {
            Ok(())
        }
    }

    /// Writes that reuse the lengths of the workload's, so that what an incomplete recovery left
    /// behind would fit exactly.
    fn go_on(&self, db: &Db, model: &mut Model) -> Verdict {
        let value = |seed, len| Value { seed, len };
        let writes = if self.workload.key_value {
            [
                Write::Set(3, value(1000, 100)),
                Write::SetMany(vec![(1, value(1001, 10)), (2, value(1002, 100))]),
                Write::Delete(3),
            ]
        } else {
            [
                Write::Insert(value(1000, 100)),
                Write::InsertMany(vec![value(1001, 10), value(1002, 100)]),
                Write::Set(1, value(1003, 100)),
            ]
        };
        writes
            .iter()
            .try_for_each(|write| model.perform(db, write))?;
        model.check_all(db)
    }

    /// A crash in the middle of the recovery from the crash, which found the commits up to `found`.
    fn check_recovery(
        &self,
        history: &History,
        recovery: usize,
        synced: u64,
        found: u64,
    ) -> Verdict {
        // Where everything was on disk, power can take nothing more.
        let least = if history.disk.is_clean() {
            found
        } else {
            synced
        };
        history.replay(|calls, disk| {
            if calls == 0 || calls > recovery {
                return Ok(());
            }
            let mut losses = vec![None];
            losses.extend((0..6).map(|number| Some(Loss::case(number, calls as u64))));
            for loss in losses {
                let left = loss
                    .as_ref()
                    .map_or(disk.clone(), |loss| disk.lose_power(loss));
                let range = if loss.is_some() {
                    least..=found
                } else {
                    found..=found
                };
                let storage = self.workload.storage(left, 3);
                let check = || {
                    let db = self.workload.open(&storage, *range.start() > 0);
                    let db = db.map_err(|error| format!("refused: {error}"))?;
                    self.model.check_prefix(&db, range.clone())
                };
                check().context(|| {
                    format!(
                        "crashed again in the recovery, after its call {calls}, {}\n{}",
                        loss.map_or("killed".into(), |loss| format!("{loss:?}")),
                        history.describe(calls)
                    )
                })?;
            }
            Ok(())
        })
    }
}

/// Looks at everything that killing the process can leave of a workload.
fn check_kills(workload: &Workload) -> Verdict {
    let run = Run::of(workload)?;
    let mut random = Random::new(workload.seed);
    run.history.replay(|calls, disk| {
        let promised = run.promised_after(calls);
        let thorough = torture() || random.chance(5);
        run.check_image(disk.clone(), promised, thorough)
            .context(|| format!("killed; {}", run.describe(calls)))?;
        let next = run.history.events.get(calls);
        for part in next.map_or(Vec::new(), |event| event.partly()) {
            if !torture() && !random.chance(20) {
                continue;
            }
            run.check_image(disk.after(&part), promised, false)
                .context(|| {
                    let calls = run.describe(calls);
                    format!("killed in the next call, of which {part:?} was done; {calls}")
                })?;
        }
        Ok(())
    })
}

/// Looks at what a loss of power can leave of a workload, in `losses` ways at each moment.
fn check_power_losses(workload: &Workload, losses: u64) -> Verdict {
    let run = Run::of(workload)?;
    let mut random = Random::new(workload.seed);
    run.history.replay(|calls, disk| {
        let promised = run.promised_after(calls);
        let promised = Promised {
            acknowledged: promised.synced,
            ..promised
        };
        for number in 0..losses {
            let loss = Loss::case(number, random.next());
            let thorough = torture() || random.chance(2);
            run.check_image(disk.lose_power(&loss), promised, thorough)
                .context(|| format!("power lost, {loss:?}; {}", run.describe(calls)))?;
            if disk.is_clean() {
                break;
            }
        }
        Ok(())
    })
}

#[test]
fn a_kill_at_any_call_loses_nothing_acknowledged() {
    let (count, steps) = if torture() { (200, 30) } else { (24, 16) };
    check_property(cases(count), 100, workload(steps), |workload| {
        check_kills(&workload)
    });
}

#[test]
fn a_power_loss_at_any_call_loses_nothing_synced() {
    let (count, steps, losses) = if torture() {
        (200, 30, 30)
    } else {
        (24, 12, 9)
    };
    check_property(cases(count), 100, workload(steps), |workload| {
        check_power_losses(&workload, losses)
    });
}

/// The bytes of a log stored as a value: a search for what proves the log to go on after a torn
/// record must not take them for records.
#[test]
fn a_log_inside_a_value_proves_nothing() {
    for reserves in [true, false] {
        let steps = vec![
            Step::Write(Write::Insert(Value { seed: 1, len: 600 })),
            Step::Sync,
        ];
        let workload = Workload {
            key_value: false,
            sync: Sync::Os,
            file_size: 0,
            native: true,
            reserves,
            seed: 5,
            steps,
        };
        let storage = workload.storage(Disk::new(), 0);
        let db = workload
            .open(&storage, false)
            .expect("a new database opens");
        db.insert(&Value { seed: 1, len: 600 }.bytes())
            .expect("an insert");
        db.sync().expect("a sync");
        let log = storage
            .disk()
            .read("0.db")
            .expect("the first data file is there")
            .to_vec();
        db.insert(&log[..log.len().min(4000)])
            .expect("an insert of the log into itself");
        let disk = storage.disk();
        for number in 0..200 {
            let loss = Loss::case(number, number);
            let left = workload.storage(disk.lose_power(&loss), 1);
            let db = workload.open(&left, true);
            let db = db.unwrap_or_else(|error| panic!("refused after {loss:?}: {error}"));
            let commit = db.last_commit().expect("last_commit");
            assert!((1..=2).contains(&commit), "commit {commit} after {loss:?}");
        }
    }
}

/// Counts down when a thread is through, or has panicked.
struct Done<'a>(&'a AtomicUsize);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Release);
    }
}

/// Every thread whose commit was acknowledged finds it after a loss of power at that moment; and
/// what a reader has seen is there too.
#[test]
fn commits_that_share_a_sync_are_on_disk_when_acknowledged() {
    const WRITERS: usize = 4;
    let workload = Workload {
        file_size: 2000,
        ..plain(Sync::Commit, true)
    };
    let storage = workload.storage(Disk::new(), 0);
    let db = workload
        .open(&storage, false)
        .expect("a new database opens");
    let after_power_loss = || {
        let left = storage.disk().lose_power(&Loss::OF_EVERYTHING);
        workload
            .open(&workload.storage(left, 1), true)
            .expect("it opens after a loss of power")
    };
    let writing = AtomicUsize::new(WRITERS);
    std::thread::scope(|scope| {
        for writer in 0..WRITERS as u16 {
            let (db, writing, after_power_loss) = (&db, &writing, &after_power_loss);
            scope.spawn(move || {
                let _done = Done(writing);
                for number in 0..12 {
                    let value = Value {
                        seed: writer * 100 + number,
                        len: 100,
                    }
                    .bytes();
                    let id = db.insert(&value).expect("an insert");
                    let found = after_power_loss().get(id);
                    assert_eq!(
                        found.ok().map(Bytes),
                        Some(Bytes(value)),
                        "writer {writer}, insert {number}: id {id} after a loss of power"
                    );
                }
            });
        }
        scope.spawn(|| {
            while writing.load(Ordering::Acquire) > 0 {
                let seen = db.last_commit().expect("last_commit");
                let left = after_power_loss().last_commit().expect("last_commit");
                assert!(
                    left >= seen,
                    "commit {seen} was seen, and {left} is the last on disk"
                );
            }
        });
    });
}

#[test]
fn the_background_syncs_what_was_committed() {
    let options = Options {
        sync: Sync::Interval(5),
        ..Options::default()
    };
    let storage = SimStorage::new(Disk::new(), true, 7);
    let db = Db::open_on(Arc::new(storage.clone()), &options).expect("a new database opens");
    for round in 1..=3u64 {
        db.insert(b"soon on disk").expect("an insert");
        let began = Instant::now();
        loop {
            let left = storage.disk().lose_power(&Loss::OF_EVERYTHING);
            let after = Db::open_on(
                Arc::new(SimStorage::new(left, true, 8)),
                &Options::default(),
            );
            let commit = after
                .and_then(|db| db.last_commit())
                .expect("it opens after a loss of power");
            if commit == round {
                break;
            }
            assert!(
                began.elapsed() < Duration::from_secs(20),
                "with an interval of 5 ms, commit {round} is not on disk after 20 s"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// A workload whose storage fails once, or again and again until the database is opened anew.
struct Ordeal<'a> {
    workload: &'a Workload,
    fault: Fault,
    storage: SimStorage,
    /// What was acknowledged.
    model: Model,
    synced: u64,
    db: Option<Db>,
    /// A write that was reported as failed, but may be there, whole.
    uncertain: Option<Write>,
    /// How much had failed when the handle was opened.
    hits_when_opened: usize,
    /// A failure was reported after which the handle need not write any more.
    stopped: bool,
}

impl<'a> Ordeal<'a> {
    fn new(workload: &'a Workload, fault: Fault) -> Ordeal<'a> {
        let storage = workload.storage(Disk::new(), 0);
        storage.fail(Some(fault));
        Ordeal {
            workload,
            fault,
            storage,
            model: workload.model(),
            synced: 0,
            db: None,
            uncertain: None,
            hits_when_opened: 0,
            stopped: false,
        }
    }

    fn check(mut self) -> Verdict {
        self.run().context(|| {
            let history = self.storage.history();
            let calls = history.events.len();
            let (fault, hits) = (self.fault, self.storage.hits());
            format!(
                "a fault {fault}, hit: {hits:?}\n{}",
                history.describe(calls)
            )
        })
    }

    fn run(&mut self) -> Verdict {
        let workload = self.workload;
        self.open().context(|| "the first open".into())?;
        for (number, step) in workload.steps.iter().enumerate() {
            self.take(step)
                .context(|| format!("step {number}, {step:?}"))?;
        }
        // From here on nothing fails any more, and the handle goes on.
        self.storage.fail(None);
        let last = [
            Write::Insert(Value { seed: 1, len: 100 }),
            Write::Set(1, Value { seed: 2, len: 100 }),
        ];
        last.iter()
            .try_for_each(|write| self.write(write))
            .context(|| "at the end".into())?;
        self.take(&Step::Kill)
            .context(|| "killed at the end".into())?;
        self.take(&Step::Reopen)
            .context(|| "closed at the end".into())?;
        self.check_durable()
    }

    fn db(&self) -> &Db {
        self.db
            .as_ref()
            .expect("the database is open between two steps")
    }

    fn hits(&self) -> usize {
        self.storage.hits().len()
    }

    /// Whether the pages of a file whose sync failed were dropped: what was not synced is gone,
    /// under an open handle too.
    fn pages_dropped(&self) -> bool {
        self.fault.pages == Pages::Dropped && self.storage.hits().iter().any(|hit| hit.sync)
    }

    /// Whether the call that returned `error` had the right to: the fault hit it, or an earlier one
    /// that could succeed all the same but stopped the handle.
    fn check_failure(&mut self, hits_before: usize, error: &Error) -> Verdict {
        let hits = self.storage.hits();
        let Some(hit) = hits[hits_before..].first() else {
            let earlier = &hits[self.hits_when_opened..];
            let stopped = self.fault.errno == Errno::Io || earlier.iter().any(|hit| hit.sync);
            require!(
                Refusal::of(error) == Refusal::Poisoned && !earlier.is_empty() && stopped,
                "a failure without a cause: {error}"
            );
            self.stopped = true;
            return Ok(());
        };
        let fitting = match self.fault.errno {
            Errno::Io => Refusal::Io,
            Errno::NoSpace => Refusal::NoSpace,
        };
        require!(
            Refusal::of(error) == fitting,
            "\"{}\" failed with {:?}, and that was reported as {:?}: {error}",
            hit.call,
            self.fault.errno,
            Refusal::of(error)
        );
        // Space comes back and a read can be repeated; after half a write or sync it may not go on.
        let harmless = self.fault.errno == Errno::NoSpace || self.fault.calls == Calls::Reading;
        self.stopped |= hit.sync || !harmless;
        Ok(())
    }

    /// Opens the database, at the second try where the fault hits the first, and finds out
    /// whether an uncertain write is there.
    fn open(&mut self) -> Verdict {
        self.db = None;
        let must_exist = self.synced > 0;
        let before = self.hits();
        let db = match self.workload.open(&self.storage, must_exist) {
            Ok(db) => db,
            Err(error) => {
                self.check_failure(before, &error)
                    .context(|| "open".into())?;
                self.storage.fail(None);
                let db = self.workload.open(&self.storage, must_exist);
                db.map_err(|error| format!("open, at the second try: {error}"))?
            }
        };
        self.stopped = false;
        self.hits_when_opened = self.hits();
        let acknowledged = self.model.last_commit();
        if let Some(write) = self.uncertain.take() {
            let possible = self.model.apply(&write);
            require!(
                possible.is_ok(),
                "only a write that can be done is uncertain: {possible:?}"
            );
        }
        let least = if self.pages_dropped() {
            self.synced
        } else {
            acknowledged
        };
        let range = least..=self.model.last_commit();
        self.model = self
            .steadily(|| self.model.check_prefix(&db, range.clone()))
            .context(|| "what was opened".into())?;
        self.db = Some(db);
        Ok(())
    }

    /// Runs a check that only reads, a second time if the fault hits it.
    fn steadily<T>(&self, check: impl Fn() -> Verdict<T>) -> Verdict<T> {
        let before = self.hits();
        check().or_else(|message| {
            let hit = self.hits() > before && self.fault.calls == Calls::Reading;
            if hit { check() } else { Err(message) }
        })
    }

    /// After a failure the handle still reads all that was acknowledged; an uncertain write may be
    /// seen through it, whole.
    fn check_reading(&self) -> Verdict {
        if self.pages_dropped() {
            return Ok(());
        }
        let Some(write) = &self.uncertain else {
            return self.steadily(|| self.model.check_all(self.db()));
        };
        let mut after = self.model.clone();
        let _ = after.apply(write);
        let seen = self
            .db()
            .last_commit()
            .map_err(|error| format!("last_commit(): {error}"))?;
        let expected = if seen == after.last_commit() {
            &after
        } else {
            &self.model
        };
        self.steadily(|| expected.check_records(self.db()))
    }

    /// After the failed sync of a data file the handle writes no more, and never tries it again.
    fn check_stopped(&self, hits_before: usize) -> Verdict {
        let hits = &self.storage.hits()[hits_before..];
        let data_file = |name: &str| name.starts_with(|first: char| first.is_ascii_digit());
        let of_data_file = |hit: &&Hit| hit.call.strip_prefix("sync ").is_some_and(data_file);
        let Some(hit) = hits.iter().find(of_data_file) else {
            return Ok(());
        };
        let again = self.db().sync();
        require!(
            matches!(again, Err(Error::Poisoned { .. })),
            "\"{}\" failed, and a later sync() gives {again:?}",
            hit.call
        );
        Ok(())
    }

    /// Everything promised to be on disk is there after a loss of power.
    fn check_durable(&self) -> Verdict {
        if self.hits() == 0 {
            return Ok(());
        }
        let check = || {
            let left = self.storage.disk().lose_power(&Loss::OF_EVERYTHING);
            let db = self
                .workload
                .open(&self.workload.storage(left, 1), self.synced > 0);
            let db = db.map_err(|error| format!("refused: {error}"))?;
            self.model
                .check_prefix(&db, self.synced..=self.model.last_commit())
        };
        check().map(drop).context(|| "after a loss of power".into())
    }

    fn take(&mut self, step: &Step) -> Verdict {
        let before = self.hits();
        match step {
            Step::Write(write) => return self.write(write),
            Step::Sync => match self.db().sync() {
                Ok(()) => {
                    self.synced = self.model.last_commit();
                    return self.check_durable();
                }
                Err(error) => {
                    self.check_failure(before, &error)?;
                    self.check_reading()
                        .context(|| "after the failed sync".into())?;
                    self.check_stopped(before)?;
                    if !self.stopped {
                        return Ok(());
                    }
                }
            },
            Step::Reopen => {
                let db = self
                    .db
                    .take()
                    .expect("the database is open between two steps");
                match db.close() {
                    Ok(()) => {
                        self.synced = self.model.last_commit();
                        self.check_durable()?;
                    }
                    Err(error) => self.check_failure(before, &error)?,
                }
            }
            Step::Kill => {}
        }
        self.open()
    }

    fn write(&mut self, write: &Write) -> Verdict {
        let before = self.hits();
        let found = write.perform(self.db());
        let expected = self.model.expected(write);
        let error = match (found, &expected) {
            (Err(error), Ok(_)) => error,
            // A call that is refused anyway may fail before that is known.
            (Err(error), Err(refusals)) if !refusals.contains(&Refusal::of(&error)) => error,
            (found, _) => return self.check_answer(write, found),
        };
        self.check_failure(before, &error)?;
        // What a failed sync left out, or a write that broke off, may be there all the same: zeros
        // that are missing were there before. A full disk is to change nothing.
        let hits = &self.storage.hits()[before..];
        let broken_off = self.fault.partly && self.fault.errno == Errno::Io && !hits.is_empty();
        let synced = hits.iter().any(|hit| hit.sync);
        if expected.is_ok() && (broken_off || synced) {
            self.uncertain = Some(write.clone());
        }
        self.check_reading()
            .context(|| format!("after the write failed ({error})"))?;
        self.check_stopped(before)?;
        let acknowledged = self.model.last_commit();
        if self.stopped {
            self.open()?;
        }
        let done = self.model.last_commit() > acknowledged;
        if self.storage.fails() || done {
            return Ok(());
        }
        // The cause is gone: on a full disk the same handle goes on, else a new one does.
        self.acknowledge(write)
            .context(|| format!("tried again after a failure ({error})"))
    }

    /// Does a write, which nothing hinders.
    fn acknowledge(&mut self, write: &Write) -> Verdict {
        let found = write.perform(self.db());
        self.check_answer(write, found)
    }

    fn check_answer(&mut self, write: &Write, found: Result<Outcome, Error>) -> Verdict {
        let expected = self.model.apply(write);
        compare(|| format!("{write:?}"), &expected, found)?;
        if self.workload.sync == Sync::Commit && expected.is_ok() {
            self.synced = self.model.last_commit();
            return self.check_durable();
        }
        Ok(())
    }
}

/// Lets each call of a kind that a workload makes fail, one run for each, in all of these ways.
fn check_faults(workload: &Workload, faults: &[Fault], most: usize) -> Verdict {
    for fault in faults {
        // A run without a fault, to count its calls.
        let mut ordeal = Ordeal::new(
            workload,
            Fault {
                after: usize::MAX,
                ..*fault
            },
        );
        ordeal.run().context(|| "without a fault".into())?;
        let calls = ordeal.storage.calls(fault.calls);
        let stride = calls.div_ceil(most).max(1);
        let first = Random::new(workload.seed).below(stride as u64) as usize;
        for after in (first..calls).step_by(stride) {
            Ordeal::new(workload, Fault { after, ..*fault }).check()?;
        }
    }
    Ok(())
}

const FAULT: Fault = Fault {
    calls: Calls::Changing,
    after: 0,
    errno: Errno::Io,
    sticky: false,
    partly: false,
    pages: Pages::Dirty,
};

fn check_faults_of_workloads(faults: &[Fault]) {
    let (count, steps, most) = if torture() {
        (100, 25, usize::MAX)
    } else {
        (12, 10, 40)
    };
    check_property(cases(count), 100, workload(steps), |workload| {
        check_faults(&workload, faults, most)
    });
}

#[test]
fn a_failure_of_any_call_is_reported_and_leaves_no_half() {
    let sync = Fault {
        calls: Calls::Syncing,
        ..FAULT
    };
    check_faults_of_workloads(&[
        FAULT,
        Fault {
            partly: true,
            ..FAULT
        },
        Fault {
            pages: Pages::Dropped,
            ..sync
        },
    ]);
}

/// So many short data files that they can't all wait for a sync to come.
#[test]
fn a_failed_sync_in_a_long_row_of_data_files_is_reported() {
    let write = |seed| Step::Write(Write::Insert(Value { seed, len: 10 }));
    let steps = (0..80).map(write).chain([Step::Sync]).collect();
    let workload = Workload {
        file_size: 1,
        steps,
        ..plain(Sync::Os, true)
    };
    for pages in [Pages::Dirty, Pages::Dropped] {
        let fault = Fault {
            calls: Calls::Syncing,
            pages,
            ..FAULT
        };
        let most = if torture() { usize::MAX } else { 10 };
        check_faults(&workload, &[fault], most).unwrap_or_else(|message| panic!("{message}"));
    }
}

#[test]
fn a_full_disk_at_any_call_changes_nothing_and_goes_away() {
    let full = Fault {
        errno: Errno::NoSpace,
        partly: true,
        ..FAULT
    };
    check_faults_of_workloads(&[
        full,
        Fault {
            sticky: true,
            ..full
        },
    ]);
}

#[test]
fn a_disk_that_fails_for_good_loses_nothing_acknowledged() {
    check_faults_of_workloads(&[Fault {
        sticky: true,
        partly: true,
        ..FAULT
    }]);
}

#[test]
fn a_failed_read_is_reported_and_can_be_repeated() {
    check_faults_of_workloads(&[Fault {
        calls: Calls::Reading,
        ..FAULT
    }]);
}

/// Linux counts pages as clean once their sync has failed: they are read back after reopening, and
/// a later sync does not write them. What it promises must be on disk all the same.
#[test]
fn what_a_failed_sync_left_behind_is_on_disk_after_a_later_one() {
    let sync = Fault {
        calls: Calls::Syncing,
        ..FAULT
    };
    check_faults_of_workloads(&[Fault {
        pages: Pages::Clean,
        ..sync
    }]);
}

fn plain(sync: Sync, reserves: bool) -> Workload {
    Workload {
        key_value: false,
        sync,
        file_size: 3000,
        native: true,
        reserves,
        seed: 9,
        steps: Vec::new(),
    }
}

#[test]
fn after_a_failed_sync_only_reading_goes_on() {
    for sync in [Sync::Os, Sync::Commit] {
        let workload = plain(sync, true);
        let storage = workload.storage(Disk::new(), 0);
        let db = workload
            .open(&storage, false)
            .expect("a new database opens");
        db.insert(b"kept").expect("an insert");
        let after = storage.calls(Calls::Changing);
        storage.fail(Some(Fault {
            after,
            sticky: true,
            ..FAULT
        }));
        let failed = if sync == Sync::Commit {
            db.set(1, b"not kept")
        } else {
            db.sync()
        };
        assert!(
            matches!(failed, Err(Error::Io { .. })),
            "{sync:?}: a failed sync gives {failed:?}"
        );
        storage.fail(None);

        let calls = storage.events();
        let stopped = |what, result: Result<(), Error>| {
            assert!(
                matches!(result, Err(Error::Poisoned { .. })),
                "{sync:?}: {what} gives {result:?}"
            );
        };
        stopped("insert", db.insert(b"no").map(drop));
        stopped("set", db.set(1, b"no"));
        stopped("delete", db.delete(1));
        stopped("set_many", db.set_many(&[(1, b"no")]));
        stopped("sync", db.sync());
        assert_eq!(
            storage.events(),
            calls,
            "{sync:?}: a stopped handle still writes"
        );
        assert!(db.get(1).is_ok(), "{sync:?}: reading has stopped too");

        drop(db);
        let db = workload.open(&storage, true).expect("it opens again");
        db.insert(b"healed").expect("an insert after reopening");
        db.sync().expect("a sync after reopening");
    }
}

#[test]
fn a_full_disk_keeps_everything_and_goes_on_when_there_is_space() {
    for (sync, reserves) in [(Sync::Os, true), (Sync::Os, false), (Sync::Commit, true)] {
        let mut workload = plain(sync, reserves);
        workload.file_size = 20_000;
        let storage = workload.storage(Disk::new(), 0);
        let mut model = workload.model();
        let mut db = workload
            .open(&storage, false)
            .expect("a new database opens");
        let check = |verdict: Verdict| {
            verdict.unwrap_or_else(|message| panic!("{sync:?}, reserves {reserves}: {message}"));
        };
        let used: usize = storage
            .disk()
            .files()
            .iter()
            .map(|name| storage.disk().read(name).map_or(0, <[u8]>::len))
            .sum();
        storage.limit(Some(used + 30_000));
        let mut round = 0;
        let write = loop {
            let write = match round {
                0..8 => Write::Insert(Value {
                    seed: round,
                    len: 500,
                }),
                _ => Write::Set(
                    u32::from(round % 8) + 1,
                    Value {
                        seed: round,
                        len: 500,
                    },
                ),
            };
            match write.perform(&db) {
                Ok(outcome) => {
                    let expected = model.apply(&write);
                    check(compare(|| format!("{write:?}"), &expected, Ok(outcome)));
                    check(model.learn_time(&db));
                }
                Err(Error::NoSpace { .. }) => break write,
                Err(error) => panic!("{sync:?}, reserves {reserves}: {write:?}: {error}"),
            }
            round += 1;
            assert!(round < 1000, "the disk never gets full");
        };
        check(model.check_all(&db).context(|| "on the full disk".into()));
        let again = write.perform(&db);
        assert!(
            matches!(again, Err(Error::NoSpace { .. })),
            "full as before, and {again:?}"
        );
        let read_only = Options {
            read_only: true,
            ..Options::default()
        };
        let reader = Db::open_on(Arc::new(storage.clone()), &read_only);
        let reader = reader.unwrap_or_else(|error| panic!("read-only on a full disk: {error}"));
        check(
            model
                .check_all(&reader)
                .context(|| "read-only on the full disk".into()),
        );
        drop(reader);

        storage.limit(None);
        check(
            model
                .perform(&db, &write)
                .context(|| "with space again".into()),
        );
        drop(db);
        db = workload.open(&storage, true).expect("it opens again");
        check(model.check_all(&db).context(|| "reopened".into()));
    }
}

/// Damages what was synced, in every file, in many places: what opens is exactly what was there,
/// or something says that it is not.
#[test]
fn damage_to_what_was_synced_is_never_silent() {
    let mut random = Random::new(11);
    for clean in [true, false] {
        for file_size in [700, 0] {
            let workload = Workload {
                file_size,
                ..plain(Sync::Os, true)
            };
            let storage = workload.storage(Disk::new(), 0);
            let mut model = workload.model();
            let db = workload
                .open(&storage, false)
                .expect("a new database opens");
            let writes = (0..12).map(|seed| match seed {
                0..6 => Write::Insert(Value {
                    seed,
                    len: 100 + u32::from(seed),
                }),
                8 => Write::Delete(2),
                9 => Write::SetMany((3..6).map(|id| (id, Value { seed, len: 40 })).collect()),
                _ => Write::Set(
                    1,
                    Value {
                        seed,
                        len: u32::from(seed) * 10,
                    },
                ),
            });
            for write in writes {
                model
                    .perform(&db, &write)
                    .unwrap_or_else(|message| panic!("{message}"));
            }
            db.sync().expect("a sync");
            if clean {
                db.close().expect("a close");
            } else {
                drop(db);
            }
            check_damage(&workload, &storage.disk(), &model, clean, &mut random);
        }
    }
}

fn check_damage(workload: &Workload, disk: &Disk, model: &Model, clean: bool, random: &mut Random) {
    // Of a database that was not closed nothing outside of the last data file says how far it went.
    let number = |name: &String| {
        name.strip_suffix(".db")
            .and_then(|name| name.parse::<u32>().ok())
    };
    let open_end = if clean {
        None
    } else {
        disk.files()
            .into_iter()
            .filter(|name| number(name).is_some())
            .max_by_key(number)
    };
    for name in disk.files() {
        let open_end = open_end.as_ref() == Some(&name);
        let content = disk.read(&name).expect("a file that was listed").to_vec();
        let check = |what: &str, damaged: Option<Vec<u8>>| {
            let storage = workload.storage(disk.with(&name, damaged), 1);
            let verdict = match workload.open(&storage, false) {
                Ok(db) => model.check_all(&db).context(|| "it opens".into()),
                Err(Error::Corrupt { .. } | Error::Incompatible(_)) => Ok(()),
                Err(error) => Err(format!(
                    "refused, but as {:?}: {error}",
                    Refusal::of(&error)
                )),
            };
            // A failure is not silent; a wrong answer, or a missing record, is.
            if let Err(message) = verdict
                && !message.contains("failure Corrupt")
            {
                panic!(
                    "cleanly closed: {clean}, file_size {}; {name}, {} bytes, {what}:\n{message}",
                    workload.file_size,
                    content.len()
                );
            }
        };
        let dense = if torture() {
            1
        } else {
            (content.len() as u64 / 150).max(1)
        };
        let mut at = 0;
        while at < content.len() {
            let mut flipped = content.clone();
            flipped[at] ^= 1 << random.below(8);
            check(&format!("a bit of byte {at} flipped"), Some(flipped));
            at += 1 + random.below(dense * 2 - 1) as usize;
        }
        for start in (0..content.len()).step_by(512) {
            let end = content.len().min(start + 512);
            let mut zeroed = content.clone();
            zeroed[start..end].fill(0);
            // Zeros at its end are what it looks like where nothing was written.
            if !open_end || content[end..].iter().any(|&byte| byte != 0) {
                check(&format!("bytes {start} to {end} zeroed"), Some(zeroed));
            }
            if !open_end {
                check(
                    &format!("cut off at {start}"),
                    Some(content[..start].to_vec()),
                );
            }
        }
        if !open_end {
            check("removed", None);
        }
    }
}
