//! A workload that is run over a simulated storage, with whatever fails on the way, and checked
//! against the model after every step.
//!
//! What may happen after a failure:
//! * A call that fails says why, and has not happened. Only a write whose sync failed, or which
//!   broke off half done, may be there after the next opening, whole; through its own handle it is
//!   never seen.
//! * A failed sync or a commit whose writing failed stops all writing through the handle, unless
//!   the disk was full. Another failure to write may.
//! * With a full disk the same handle goes on when there is space.
//! * Reading goes on.

use ourdb::{Db, Error, Options};

use super::backups::Target;
use super::feed::Source;
use super::workload::{Step, Workload, open};
use crate::support::model::{Model, Outcome, Refusal, Value, Write, compare};
use crate::support::sim::{Errno, Fault, Hit, Loss, SimStorage};
use crate::support::{Context, Random, Verdict, require};

/// The mark after a compaction.
pub(crate) const COMPACTED: &str = "compact";

/// Where a call of the workload ends among the storage's calls, and what holds from then on.
#[derive(Clone, Debug)]
pub(crate) struct Mark {
    pub(crate) what: &'static str,
    /// The step that the call is part of; `None` before the first and after the last.
    pub(crate) step: Option<usize>,
    pub(crate) end: usize,
    /// How often the database was made anew or compacted.
    pub(crate) era: usize,
    /// The last commit made.
    pub(crate) commit: u64,
    /// The last commit that is promised to be on disk.
    pub(crate) synced: u64,
    /// Whether a database is promised to be there.
    pub(crate) there: bool,
    pub(crate) options: Options,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opening {
    Usual,
    /// With the flag that removes what is there.
    Reset,
    AfterFailedDestroy,
}

pub(crate) struct Trial<'a> {
    pub(super) workload: &'a Workload,
    pub(crate) storage: SimStorage,
    pub(super) options: Options,
    /// What was acknowledged.
    pub(crate) model: Model,
    pub(super) synced: u64,
    /// Whether a database is promised to be there.
    pub(super) there: bool,
    pub(super) db: Option<Db>,
    /// A write that was reported as failed, but may be there, whole.
    pub(super) uncertain: Option<Write>,
    /// A compaction was reported as failed, but may be done; what it would have left.
    pub(super) perhaps_compacted: Option<Model>,
    /// Changes were reported as not applied, but all or some of their commits may be; what they lead to.
    pub(super) perhaps_fed: Option<Model>,
    /// The database whose changes are applied to this one.
    pub(crate) source: Option<Source>,
    /// The directory that backups go into, and those that they went into before.
    pub(crate) target: Target,
    pub(crate) past_targets: Vec<Target>,
    /// The power failed, or pages were dropped: what was not synced may be gone.
    pub(super) unsynced_lost: bool,
    /// How much had failed when the handle was opened.
    pub(super) hits_when_opened: usize,
    /// Under way.
    pub(super) step: Option<usize>,
    pub(crate) marks: Vec<Mark>,
    /// What earlier databases in the same place, or the same one before a compaction, held at last.
    pub(crate) eras: Vec<Model>,
}

/// Whether a failure must stop the handle: a sync that failed, or the write of a commit that did
/// for another reason than a full disk.
fn stops(hit: &Hit) -> bool {
    let of_data_file = hit.call.contains(".db (call");
    let of_commit =
        hit.call.starts_with("write ") && of_data_file && !hit.call.contains(" at 0 of ");
    hit.is_sync() || of_commit && hit.errno == Errno::Io
}

impl<'a> Trial<'a> {
    pub(crate) fn new(workload: &'a Workload) -> Trial<'a> {
        Trial {
            workload,
            storage: workload.storage(workload.disk(), 0),
            options: workload.options.clone(),
            model: workload.model(),
            synced: 0,
            there: false,
            db: None,
            uncertain: None,
            perhaps_compacted: None,
            perhaps_fed: None,
            source: None,
            target: Target::new(workload, 0),
            past_targets: Vec::new(),
            unsynced_lost: false,
            hits_when_opened: 0,
            step: None,
            marks: Vec::new(),
            eras: Vec::new(),
        }
    }

    /// The same, with a fault from the beginning.
    pub(crate) fn failing(workload: &'a Workload, fault: Fault) -> Trial<'a> {
        let trial = Trial::new(workload);
        trial.storage.fail(Some(fault));
        trial
    }

    /// All steps; a failure tells the whole story.
    pub(crate) fn check(mut self) -> Verdict {
        self.run().and_then(|()| self.conclude()).context(|| {
            let history = self.storage.history();
            let calls = history.events.len();
            let backups = self.target.storage.history();
            let hits = self.storage.hits();
            let failed: Vec<&str> = hits.iter().map(|hit| &*hit.call).collect();
            let workload = self.workload;
            format!(
                "workload \"{}\", {:?}, reserves {}, beginning {:?}, seed {}, what failed: {failed:?}\n{}\n{}\nwhere backups go:\n{}",
                workload.name,
                workload.options,
                workload.reserves,
                workload.beginning,
                workload.seed,
                workload.describe_steps(),
                history.describe(calls),
                backups.describe(backups.events.len())
            )
        })
    }

    /// All steps.
    pub(crate) fn run(&mut self) -> Verdict {
        self.open(Opening::Usual)
            .context(|| "the first open".into())?;
        for (number, step) in self.workload.steps.iter().enumerate() {
            self.step = Some(number);
            self.take(step)
                .context(|| format!("step {number}, {step:?}"))?;
        }
        self.step = None;
        Ok(())
    }

    /// All steps, and a clean close.
    pub(crate) fn run_and_close(&mut self) -> Verdict {
        self.run()?;
        self.close()
    }

    /// From here on nothing fails any more, and the handle goes on.
    fn conclude(&mut self) -> Verdict {
        self.take(&Step::Mend)?;
        self.feed_at_the_end().context(|| "fed at the end".into())?;
        let last = [
            Write::Insert(Value { seed: 1, len: 100 }),
            Write::Set(1, Value { seed: 2, len: 100 }),
        ];
        last.iter()
            .try_for_each(|write| self.write(write))
            .context(|| "at the end".into())?;
        self.back_up_at_the_end()
            .context(|| "backed up at the end".into())?;
        self.take(&Step::Kill)
            .context(|| "killed at the end".into())?;
        self.take(&Step::Reopen)
            .context(|| "closed at the end".into())?;
        self.check_durable()
    }

    pub(super) fn db(&self) -> &Db {
        self.db
            .as_ref()
            .expect("the database is open between two steps")
    }

    pub(super) fn mark(&mut self, what: &'static str) {
        self.marks.push(Mark {
            what,
            step: self.step,
            end: self.storage.events(),
            era: self.eras.len(),
            commit: self.model.last_commit(),
            synced: self.synced,
            there: self.there,
            options: self.options.clone(),
        });
    }

    /// What is acknowledged to be on disk by now.
    pub(super) fn acknowledge_sync(&mut self) -> Verdict {
        self.synced = self.model.last_commit();
        if self.storage.hit_count() > 0 {
            self.check_durable()?;
        }
        Ok(())
    }

    // Opening, and what is found then.

    /// Opens the database, at the second try where something fails in the first.
    pub(super) fn open(&mut self, opening: Opening) -> Verdict {
        self.db = None;
        let options = Options {
            must_exist: self.there,
            reset: opening == Opening::Reset,
            ..self.options.clone()
        };
        let before = self.storage.hit_count();
        let (db, failed) = match open(&self.storage, &options) {
            Ok(db) => {
                self.check_success(before)?;
                (db, false)
            }
            Err(error) => {
                self.check_failure(before, &error)
                    .context(|| "open".into())?;
                self.mend();
                let options = Options {
                    must_exist: self.there && opening == Opening::Usual,
                    ..self.options.clone()
                };
                let db = open(&self.storage, &options);
                let db = db.map_err(|error| format!("open, at the second try: {error}"))?;
                (db, true)
            }
        };
        let verdict = match opening {
            Opening::Usual => self.find(&db),
            Opening::Reset if !failed => self.begin_era(&db),
            // It ended before the old database was gone, or after.
            Opening::Reset | Opening::AfterFailedDestroy => {
                self.target.may_differ = true;
                self.find(&db).or_else(|message| {
                    self.begin_era(&db)
                        .context(|| format!("neither as before:\n{message}\nnor empty"))
                })
            }
        };
        verdict.context(|| "what was opened".into())?;
        self.there = true;
        self.unsynced_lost = false;
        self.hits_when_opened = self.storage.hit_count();
        self.db = Some(db);
        self.mark("open");
        Ok(())
    }

    fn mend(&self) {
        self.storage.fail(None);
        self.storage.limit(None);
        self.target.storage.fail(None);
    }

    /// Finds all that was acknowledged in `db`, and perhaps the write that is uncertain.
    fn find(&mut self, db: &Db) -> Verdict {
        let mut model = self.perhaps_fed.take().unwrap_or(self.model.clone());
        if let Some(write) = &self.uncertain {
            let possible = model.apply(write);
            require!(
                possible.is_ok(),
                "only a write that can be done is uncertain: {possible:?}"
            );
        }
        let least = if self.unsynced_lost {
            self.synced
        } else {
            self.model.last_commit()
        };
        let last = model.last_commit();
        let found = self.storage.quietly(|| {
            if db.last_commit().ok() == Some(last) {
                model.learn_time(db)?;
            }
            model.check_prefix(db, least..=last)
        });
        self.model = match (found, &self.perhaps_compacted) {
            (Err(message), Some(compacted)) => self.storage.quietly(|| {
                let mut compacted = compacted
                    .check_prefix(db, last..=last)
                    .context(|| format!("neither as before:\n{message}\nnor compacted"))?;
                compacted.learn_oldest(db)?;
                self.eras.push(self.model.clone());
                Ok::<_, String>(compacted)
            })?,
            (found, _) => found?,
        };
        if self.unsynced_lost {
            let last = self.model.last_commit();
            self.target.note_loss(self.synced, last, self.eras.len());
        }
        self.check_erased()?;
        self.target.may_be_compacted |= self.perhaps_compacted.is_some();
        self.perhaps_compacted = None;
        self.uncertain = None;
        if self.workload.commits_durably() {
            // Readers see it, so it is on disk.
            self.acknowledge_sync()?;
        }
        Ok(())
    }

    /// A new database is in the place of the old one.
    fn begin_era(&mut self, db: &Db) -> Verdict {
        let empty = self.new_model();
        self.storage.quietly(|| empty.check_all(db))?;
        self.next_era(empty);
        Ok(())
    }

    fn new_model(&self) -> Model {
        Model::new(self.options.key_value, self.model.record_nr_max, 0)
    }

    fn next_era(&mut self, model: Model) {
        let past = std::mem::replace(&mut self.model, model);
        self.eras.push(past);
        self.target.becomes_foreign();
        self.uncertain = None;
        self.perhaps_compacted = None;
        self.perhaps_fed = None;
        self.synced = 0;
    }

    // The steps.

    fn take(&mut self, step: &Step) -> Verdict {
        match step {
            Step::Write(write) => self.write(write),
            Step::Read(choice) => self.read(*choice),
            Step::Sync => self.sync(),
            Step::Source(write) => self.write_to_source(write),
            Step::CompactSource(retention) => self.compact_source(retention),
            Step::Feed(max_bytes) => self.feed(*max_bytes),
            Step::Compact(compact) => self.compact(compact),
            Step::Backup(backup) => self.back_up(backup),
            Step::Reopen => {
                self.close()?;
                self.open(Opening::Usual)
            }
            Step::Limits(file_size) => {
                self.close()?;
                self.options.file_size = *file_size;
                if self.options.record_nr_max != 0 {
                    self.options.record_nr_max = self.model.record_nr_max * 2;
                    self.model.record_nr_max *= 2;
                }
                self.open(Opening::Usual)
            }
            Step::Kill => {
                let events = self.storage.events();
                self.db = None;
                require!(
                    self.storage.events() == events,
                    "dropping the handle changed the disk"
                );
                self.open(Opening::Usual)
            }
            Step::Reset => {
                self.db = None;
                self.open(Opening::Reset)
            }
            Step::Destroy => self.destroy(),
            Step::PowerLoss(seed) => self.lose_power(*seed),
            Step::Fail(fault) => {
                let after = self.storage.calls(fault.calls) + fault.after;
                self.storage.fail(Some(Fault { after, ..*fault }));
                Ok(())
            }
            Step::Fill(more) => {
                let used = self.storage.disk().used();
                self.storage.limit(Some(used + more));
                Ok(())
            }
            Step::Mend => {
                self.mend();
                Ok(())
            }
        }
    }

    fn write(&mut self, write: &Write) -> Verdict {
        let before = self.storage.hit_count();
        let expected = self.model.expected(write);
        let found = write.perform(self.db());
        let Err(error) = found else {
            return self.written(write, before, found);
        };
        if let Err(refusals) = &expected
            && refusals.contains(&Refusal::of(&error))
        {
            return self.written(write, before, Err(error));
        }
        let acknowledged = self.model.last_commit();
        self.write_failed(write, before, &error)?;
        let done = self.model.last_commit() > acknowledged;
        if self.storage.is_failing() || done {
            return Ok(());
        }
        // The cause is gone: on a full disk the same handle goes on, else a new one does.
        self.write(write)
            .context(|| format!("tried again after a failure ({error})"))
    }

    /// A write failed for what happened since `before`.
    pub(super) fn write_failed(&mut self, write: &Write, before: usize, error: &Error) -> Verdict {
        if matches!(write, Write::Erase(_)) {
            return self.erasure_failed(write, before, error);
        }
        self.check_failure(before, error)?;
        let stopped = Refusal::of(error) == Refusal::Poisoned;
        let hits = &self.storage.hits()[before..];
        // What a failed sync left out, or a write that broke off, may be there all the same: zeros
        // that are missing were there before. A full disk is to change nothing.
        let broken_off = |errno, partly| errno == Errno::Io && partly;
        let may_be_there = hits
            .iter()
            .any(|hit| hit.is_sync() || broken_off(hit.errno, hit.partly));
        if self.model.expected(write).is_ok() && may_be_there && !stopped {
            self.uncertain = Some(write.clone());
        }
        if stopped || hits.iter().any(stops) {
            self.check_stopped()
                .context(|| format!("after the write failed ({error})"))?;
            self.open(Opening::Usual)
        } else {
            self.check_reading()
                .context(|| format!("after the write failed ({error})"))
        }
    }

    /// A write was acknowledged, or refused for what it is.
    fn written(&mut self, write: &Write, before: usize, found: Result<Outcome, Error>) -> Verdict {
        self.check_success(before)?;
        let expected = self.model.apply(write);
        compare(|| format!("{write:?}"), &expected, found)?;
        if expected.is_ok() {
            self.uncertain = None;
            let db = self.db.as_ref().expect("the write went through it");
            self.storage.quietly(|| self.model.learn_time(db))?;
            if matches!(write, Write::Erase(_)) {
                self.erased()?;
            } else if self.workload.commits_durably() {
                self.acknowledge_sync()?;
            }
        }
        self.mark("write");
        self.check_reading()
    }

    fn read(&mut self, choice: u32) -> Verdict {
        if self.unsynced_lost {
            return Ok(());
        }
        let before = self.storage.hit_count();
        self.read_one(choice).or_else(|message| {
            let hits = &self.storage.hits()[before..];
            require!(hits.iter().any(|hit| hit.errno == Errno::Io), "{message}");
            // Nothing is wrong for good.
            self.storage.quietly(|| self.read_one(choice))
        })
    }

    fn read_one(&self, choice: u32) -> Verdict {
        let (model, db) = (&self.model, self.db());
        let id = choice / 8 % 9;
        match choice % 8 {
            0 => model.check_get(db, id),
            1 => model.check_get_with(db, id),
            2 => model.check_history(db, id, 0),
            3 => model.check_get_many(db, &[id, id + 1, 0]),
            4 => model.check_get_version(db, id, model.last_commit() / 2),
            5 => model.check_order(db),
            6 => model.check_contains(db, id),
            _ => model.check_count(db),
        }
    }

    fn sync(&mut self) -> Verdict {
        let before = self.storage.hit_count();
        let Err(error) = self.db().sync() else {
            self.check_success(before)?;
            self.acknowledge_sync()?;
            self.mark("sync");
            return self.check_reading();
        };
        self.check_failure(before, &error)?;
        if self.sync_failed_since(before) || Refusal::of(&error) == Refusal::Poisoned {
            self.check_stopped()
                .context(|| "after the failed sync".into())?;
            return self.open(Opening::Usual);
        }
        self.check_reading()
            .context(|| "after the failed sync".into())
    }

    fn close(&mut self) -> Verdict {
        let before = self.storage.hit_count();
        let db = self.db.take();
        match db.expect("the database is open between two steps").close() {
            Ok(()) => {
                self.check_success(before)?;
                self.acknowledge_sync()?;
                self.mark("close");
                Ok(())
            }
            Err(error) => self
                .check_failure(before, &error)
                .context(|| "close".into()),
        }
    }

    fn destroy(&mut self) -> Verdict {
        let before = self.storage.hit_count();
        let db = self.db.take();
        let db = db.expect("the database is open between two steps");
        self.there = false;
        if let Err(error) = db.destroy() {
            self.check_failure(before, &error)
                .context(|| "destroy".into())?;
            return self.open(Opening::AfterFailedDestroy);
        }
        self.check_success(before)?;
        self.check_nothing_left()?;
        self.next_era(self.new_model());
        self.mark("destroy");
        self.open(Opening::Usual)
    }

    fn check_nothing_left(&mut self) -> Verdict {
        let left = self.storage.disk().files();
        require!(
            left.is_empty() || self.storage.hit_count() > 0,
            "destroyed, and there is still {left:?}"
        );
        // A data file whose making failed, and whose removal then failed too, tells nobody whose it
        // is. The next database would be asked about it.
        for name in left {
            let disk = self.storage.disk();
            let len = disk.read(&name).map_or(0, <[u8]>::len);
            require!(
                name.ends_with(".db") && len < 64,
                "destroyed, and there is still {name} of {len} bytes"
            );
            self.storage = self.workload.storage(disk.with(&name, None), 4);
        }
        Ok(())
    }

    fn lose_power(&mut self, seed: u64) -> Verdict {
        self.db = None;
        let loss = Loss::any(&mut Random::new(seed));
        let left = self.storage.disk().lose_power(&loss);
        self.storage = self.workload.storage(left, seed);
        // An empty database that was made by a process that died may not be on disk.
        self.there &= self.synced > 0;
        self.unsynced_lost = true;
        self.open(Opening::Usual)
    }
}
