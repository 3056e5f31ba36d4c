//! A workload that was run: everything that happened, everything that must be found again, and
//! what a crash at any moment may leave of it.

use std::ops::RangeInclusive;

use ourdb::{Db, Options};

use super::feed::Source;
use super::remnants::check_erased;
use super::trial::{COMPACTED, Mark, Trial};
use super::workload::{Workload, open};
use crate::support::model::{Model, Value, Write};
use crate::support::sim::{Disk, History, Loss, SimStorage};
use crate::support::{Context, Verdict, require};

pub(crate) struct Run<'a> {
    pub(crate) workload: &'a Workload,
    pub(crate) history: History,
    marks: Vec<Mark>,
    /// What each database in the place held at last, one after the other; one that was compacted
    /// counts as another from then on.
    eras: Vec<Model>,
    /// The database that it was fed from, as it was at last.
    source: Option<Source>,
}

/// What must be found after a crash at some moment: one of these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Promise {
    /// Which database, and the commits that it may end with.
    ends: Vec<(usize, RangeInclusive<u64>)>,
    /// Whether a database must be there.
    there: bool,
}

/// Where a database stands that was opened after a crash.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) era: usize,
    pub(crate) commit: u64,
}

impl Promise {
    pub(crate) fn includes(&self, found: &Found) -> bool {
        let mut ends = self.ends.iter();
        ends.any(|(era, range)| *era == found.era && range.contains(&found.commit))
    }

    /// Exactly what was found.
    pub(crate) fn exactly(found: &Found) -> Promise {
        Promise {
            ends: vec![(found.era, found.commit..=found.commit)],
            there: false,
        }
    }

    /// The same, but not beyond what was found.
    pub(crate) fn up_to(&self, found: &Found) -> Promise {
        let ends = self.ends.iter().filter(|(era, _)| *era <= found.era);
        let ends = ends.map(|(era, range)| {
            let end = if *era == found.era {
                found.commit.min(*range.end())
            } else {
                *range.end()
            };
            (*era, *range.start()..=end)
        });
        Promise {
            ends: ends.collect(),
            there: self.there,
        }
    }
}

impl<'a> Run<'a> {
    pub(crate) fn of(workload: &'a Workload) -> Verdict<Run<'a>> {
        let mut trial = Trial::new(workload);
        trial.run_and_close().context(|| {
            format!(
                "without any failure, {:?}\n{}",
                workload.options,
                workload.describe_steps()
            )
        })?;
        let history = trial.storage.history();
        let mut eras = trial.eras;
        eras.push(trial.model);
        Ok(Run {
            workload,
            history,
            marks: trial.marks,
            eras,
            source: trial.source,
        })
    }

    pub(crate) fn is_fed(&self) -> bool {
        self.source.is_some()
    }

    /// What holds after so many calls, and what is under way.
    fn around(&self, calls: usize) -> (Option<&Mark>, Option<&Mark>) {
        let next = self.marks.partition_point(|mark| mark.end <= calls);
        let before = next.checked_sub(1).map(|before| &self.marks[before]);
        (before, self.marks.get(next))
    }

    /// What must be found after a crash at that moment: a loss of power, or the death of the
    /// process.
    pub(crate) fn promise(&self, calls: usize, power_lost: bool) -> Promise {
        let (before, next) = self.around(calls);
        let Some(before) = before else {
            return Promise {
                ends: vec![(0, 0..=0)],
                there: false,
            };
        };
        let least = if power_lost {
            before.synced
        } else {
            before.commit
        };
        let after = next.unwrap_or(before);
        let ends = if after.era == before.era {
            vec![(before.era, least..=after.commit)]
        } else {
            // Another database, which is empty, or the same one compacted.
            let last = self.eras[before.era].last_commit();
            let begun = after.commit;
            vec![(after.era, begun..=begun), (before.era, least..=last)]
        };
        let goes_on = after.era == before.era || after.what == COMPACTED;
        Promise {
            ends,
            there: before.there && goes_on && after.there,
        }
    }

    /// The options that the workload opens with at that moment.
    fn options(&self, calls: usize) -> Options {
        let (before, next) = self.around(calls);
        next.or(before)
            .map_or(&self.workload.options, |mark| &mark.options)
            .clone()
    }

    pub(crate) fn describe(&self, calls: usize) -> String {
        let (_, next) = self.around(calls);
        let step = next.and_then(|mark| mark.step);
        let step = step.map_or(String::new(), |step| {
            format!(" of step {step}, {:?}", self.workload.steps[step])
        });
        format!(
            "workload \"{}\", {:?}, reserves {}\n{}the end comes after call {calls} of {}, under way was {}{step}\n{}",
            self.workload.name,
            self.workload.options,
            self.workload.reserves,
            self.workload.describe_steps(),
            self.history.events.len(),
            next.map_or("nothing", |mark| mark.what),
            self.history.describe(calls)
        )
    }

    /// What a crash after so many calls has left, to be opened as the workload would.
    pub(crate) fn image(&self, disk: Disk, calls: usize) -> Image<'_> {
        Image {
            run: self,
            options: self.options(calls),
            storage: self.workload.storage(disk, 1),
        }
    }
}

/// A disk as a crash left it.
pub(crate) struct Image<'a> {
    run: &'a Run<'a>,
    options: Options,
    pub(crate) storage: SimStorage,
}

impl Image<'_> {
    fn open(&self, storage: &SimStorage, must_exist: bool) -> Verdict<Db> {
        let options = Options {
            must_exist,
            ..self.options.clone()
        };
        open(storage, &options).map_err(|error| format!("refused: {error}"))
    }

    /// Opens it: it must hold what was promised, an exact prefix of the commits made.
    pub(crate) fn check(&self, promise: &Promise) -> Verdict<(Db, Found, Model)> {
        let db = self.open(&self.storage, promise.there)?;
        let mut messages = Vec::new();
        for (era, range) in &promise.ends {
            let mut model = self.run.eras[*era].clone();
            if self.options.record_nr_max != 0 {
                model.record_nr_max = self.options.record_nr_max;
            }
            match model.check_prefix(&db, range.clone()) {
                Ok(model) => {
                    check_erased(&self.storage.disk(), &model)?;
                    let commit = model.last_commit();
                    return Ok((db, Found { era: *era, commit }, model));
                }
                Err(message) => messages.push(message),
            }
        }
        Err(messages.join("\nand otherwise:\n"))
    }

    /// The same, opened twice: the second time there is just what was found in the first.
    pub(crate) fn check_twice(&self, promise: &Promise) -> Verdict<Found> {
        let (db, found, _) = self
            .check(promise)
            .context(|| "the first open after the crash".into())?;
        let events = self.storage.events();
        drop(db);
        require!(
            self.storage.events() == events,
            "dropping the handle changed the disk"
        );
        self.check(&Promise::exactly(&found))
            .context(|| "recovered a second time".into())?;
        Ok(found)
    }

    /// Goes on writing, and crashes again: nothing that the recovery left behind gets in the way.
    pub(crate) fn check_going_on(&self, found: &Found) -> Verdict {
        let (db, _, mut model) = self.check(&Promise::exactly(found))?;
        if let Some(source) = &self.run.source {
            source
                .lead_to_the_end(&db, &mut model, !self.run.workload.compacts(), 100)
                .context(|| "fed to the end after the recovery".into())?;
        }
        self.go_on(&db, &mut model)
            .context(|| "going on after the recovery".into())?;
        drop(db);
        let again = |storage: &SimStorage| {
            let db = self.open(storage, true)?;
            model.check_all(&db)?;
            Ok(db)
        };
        let db = again(&self.storage).context(|| "reopened after going on".into())?;
        db.sync()
            .map_err(|error| format!("sync after going on: {error}"))?;
        let left = self.storage.disk().lose_power(&Loss::OF_EVERYTHING);
        drop(db);
        again(&self.run.workload.storage(left, 2))
            .map(drop)
            .context(|| "after going on, a sync and a loss of power".into())
    }

    /// Writes that reuse the lengths of the workload's, so that what an incomplete recovery left
    /// behind would fit exactly.
    fn go_on(&self, db: &Db, model: &mut Model) -> Verdict {
        let value = |seed, len| Value { seed, len };
        let writes = if self.options.key_value {
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
}
