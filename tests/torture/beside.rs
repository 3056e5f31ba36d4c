//! What a trial writes beside something that takes its time, a compaction or a backup.

use ourdb::{Db, Error};

use super::trial::{Mark, Trial};
use crate::support::model::{Model, Refusal, Write, compare};
use crate::support::sim::SimStorage;
use crate::support::{Context, Verdict, require};

pub(super) struct Beside<'a> {
    db: &'a Db,
    storage: &'a SimStorage,
    /// Whether every commit is to be on disk.
    durably: bool,
    /// What else each of the writes is added to.
    also: Model,
    written: Written,
}

/// What came of the writes.
pub(super) struct Written {
    model: Model,
    /// After how many calls which commit was made, and whether that is promised to be on disk.
    commits: Vec<(usize, u64, bool)>,
    /// What was not written, since the storage failed after so many hits.
    failed: Option<(Write, usize, Error)>,
}

impl<'a> Beside<'a> {
    pub(super) fn new(trial: &'a Trial<'_>, also: Model) -> Beside<'a> {
        Beside {
            db: trial.db(),
            storage: &trial.storage,
            durably: trial.workload.commits_durably(),
            also,
            written: Written {
                model: trial.model.clone(),
                commits: Vec::new(),
                failed: None,
            },
        }
    }

    pub(super) fn write(&mut self, write: &Write) -> Verdict {
        let before = self.storage.hit_count();
        let written = &mut self.written;
        let plan = written.model.plan(write);
        let expected = plan.clone().map(|(outcome, _)| outcome);
        let found = write.perform(self.db);
        if let Err(error) = found {
            let refusal = Refusal::of(&error);
            let refused = expected.is_err_and(|refusals| refusals.contains(&refusal));
            if !refused {
                written.failed = Some((write.clone(), before, error));
            }
            return Ok(());
        }
        compare(|| format!("{write:?}"), &expected, found)?;
        if let Ok((_, added)) = &plan {
            written.model.add(write, added);
            self.also.add(write, added);
        }
        self.storage.quietly(|| {
            written.model.learn_time(self.db)?;
            self.also.learn_time(self.db)
        })?;
        let is_durable = self.durably || plan.is_ok() && matches!(write, Write::Erase(_));
        let (end, commit) = (self.storage.events(), written.model.last_commit());
        written.commits.push((end, commit, is_durable));
        Ok(())
    }

    pub(super) fn has_failed(&self) -> bool {
        self.written.failed.is_some()
    }

    /// What came of the writes, and what they were added to.
    pub(super) fn end(self) -> (Written, Model) {
        (self.written, self.also)
    }
}

impl Trial<'_> {
    /// Takes over what was written beside something that went well, or didn't; whether a write failed,
    /// and by that the whole.
    pub(super) fn wrote_beside(&mut self, written: Written, went_well: bool) -> Verdict<bool> {
        let Written {
            model,
            commits,
            failed,
        } = written;
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
        let Some((write, before, error)) = failed else {
            return Ok(false);
        };
        require!(!went_well, "what was stopped goes on");
        self.write_failed(&write, before, &error)
            .context(|| "beside".into())?;
        Ok(true)
    }
}
