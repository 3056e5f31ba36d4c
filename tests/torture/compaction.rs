//! A compaction within a trial, with what is written beside it. It may fail at any call: then the
//! database is as it was, in the same handle, or in the next one if this one had to stop; a manifest
//! that was replaced but not synced may be there as well.

use std::ops::ControlFlow;

use ourdb::{Db, Error};

use super::trial::{COMPACTED, Mark, Opening, Trial};
use super::workload::Compact;
use crate::support::model::{Model, Refusal, Write, compare};
use crate::support::sim::SimStorage;
use crate::support::{Context, Verdict, refute, require};

/// What is written beside a compaction.
struct Beside<'a> {
    db: &'a Db,
    storage: &'a SimStorage,
    /// Whether every commit is to be on disk.
    durably: bool,
    model: Model,
    /// The same, with what the compaction leaves of the versions that were there when it began.
    compacted: Model,
    /// After how many calls which commit was made, and whether that is promised to be on disk.
    commits: Vec<(usize, u64, bool)>,
    /// What was not written, since the storage failed after so many hits.
    failed: Option<(Write, usize, Error)>,
}

impl Beside<'_> {
    fn write(&mut self, write: &Write) -> Verdict {
        let before = self.storage.hit_count();
        let plan = self.model.plan(write);
        let expected = plan.clone().map(|(outcome, _)| outcome);
        let found = write.perform(self.db);
        if let Err(error) = found {
            let refusal = Refusal::of(&error);
            let refused = expected.is_err_and(|refusals| refusals.contains(&refusal));
            if !refused {
                self.failed = Some((write.clone(), before, error));
            }
            return Ok(());
        }
        compare(|| format!("{write:?}"), &expected, found)?;
        if let Ok((_, added)) = &plan {
            self.model.add(write, added);
            self.compacted.add(write, added);
        }
        self.storage.quietly(|| {
            self.model.learn_time(self.db)?;
            self.compacted.learn_time(self.db)
        })?;
        let is_durable = self.durably || plan.is_ok() && matches!(write, Write::Erase(_));
        self.commits
            .push((self.storage.events(), self.model.last_commit(), is_durable));
        Ok(())
    }
}

impl Trial<'_> {
    pub(super) fn compact(&mut self, compact: &Compact) -> Verdict {
        let before = self.storage.hit_count();
        let mut compacted = self.model.clone();
        compacted.compact(&compact.retention);
        let mut beside = Beside {
            db: self.db(),
            storage: &self.storage,
            durably: self.workload.commits_durably(),
            model: self.model.clone(),
            compacted,
            commits: Vec::new(),
            failed: None,
        };
        let mut begun = false;
        let mut verdict = Ok(());
        let mut writes = compact.beside.iter();
        // While the base is copied, and when all but these is.
        let at_the_end = compact.beside.len() / 2;
        let done = self.db().compact(&compact.retention, |done, total| {
            begun = true;
            let left = if done == total { 0 } else { at_the_end };
            while writes.len() > left && verdict.is_ok() && beside.failed.is_none() {
                if let Some(write) = writes.next() {
                    verdict = beside.write(write);
                }
            }
            if compact.cancelled || beside.failed.is_some() || verdict.is_err() {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        verdict.context(|| "beside the compaction".into())?;
        let Beside {
            model,
            compacted,
            commits,
            failed,
            ..
        } = beside;
        if !commits.is_empty() {
            self.uncertain = None;
        }
        self.model = model;
        for (end, commit, is_durable) in commits {
            if is_durable {
                self.synced = commit;
            }
            self.marks.push(Mark {
                what: "write",
                step: self.step,
                end,
                era: self.eras.len(),
                commit,
                synced: self.synced,
                there: self.there,
                options: self.options.clone(),
            });
        }
        if let Some((write, before, error)) = failed {
            require!(done.is_err(), "a compaction goes on where it was stopped");
            return self
                .write_failed(&write, before, &error)
                .context(|| "beside the compaction".into());
        }
        match done {
            Ok(()) => {
                require!(
                    !(compact.cancelled && begun),
                    "a compaction goes on where it was cancelled"
                );
                // Whether the old files are gone for good is not promised, and all else is looked at
                // after a loss of power.
                let hits = &self.storage.hits()[before..];
                let passed_over = hits
                    .iter()
                    .find(|hit| hit.is_sync() && !hit.call.starts_with("sync directory"));
                require!(
                    passed_over.is_none(),
                    "a sync failed, and the compaction succeeds: {hits:?}"
                );
                self.compacted(compacted)
            }
            Err(Error::Cancelled) if compact.cancelled => {
                self.mark("cancelled");
                self.check_reading()
            }
            Err(error) => self.compaction_failed(compact, compacted, before, &error),
        }
    }

    fn compacted(&mut self, mut compacted: Model) -> Verdict {
        self.storage.quietly(|| compacted.learn_oldest(self.db()))?;
        let before = std::mem::replace(&mut self.model, compacted);
        self.eras.push(before);
        self.uncertain = None;
        // If nothing was ever written, there was nothing to compact.
        self.acknowledge_sync()?;
        self.mark(COMPACTED);
        self.check_reading()
    }

    fn compaction_failed(
        &mut self,
        compact: &Compact,
        compacted: Model,
        before: usize,
        error: &Error,
    ) -> Verdict {
        self.check_failure(before, error)?;
        if matches!(self.db().begin(), Err(Error::Poisoned { .. })) {
            self.check_stopped()
                .context(|| format!("after the compaction failed ({error})"))?;
            self.perhaps_compacted = Some(compacted);
            return self.open(Opening::Usual);
        }
        if Refusal::of(error) == Refusal::Poisoned {
            refute!("the handle goes on, and a compaction says {error}");
        }
        self.check_reading()
            .context(|| format!("after the compaction failed ({error})"))?;
        if self.storage.is_failing() {
            return Ok(());
        }
        let again = Compact {
            beside: Vec::new(),
            cancelled: false,
            ..compact.clone()
        };
        self.compact(&again)
            .context(|| format!("compacted again after a failure ({error})"))
    }
}
