//! An erasure within a trial. One that is acknowledged is on disk, whatever the sync mode. One that
//! failed has not happened, or is in the log: then its handle has stopped, the record is hidden in it
//! already, and the next opening finishes the work.

use ourdb::Error;

use super::remnants::check_erased;
use super::trial::{Opening, Trial};
use crate::support::model::{Refusal, Write, compare};
use crate::support::{Context, Verdict};

impl Trial<'_> {
    /// An erasure was acknowledged, and the model has it.
    pub(super) fn erased(&mut self) -> Verdict {
        self.acknowledge_sync()?;
        self.check_erased()
    }

    /// Nothing of what was erased is in the files. Of files that a compaction has replaced this is not
    /// promised where their removal may have failed.
    pub(super) fn check_erased(&self) -> Verdict {
        match self.workload.compacts() && self.storage.hit_count() > 0 {
            true => Ok(()),
            false => check_erased(&self.storage.disk(), &self.model),
        }
    }

    pub(super) fn has_stopped(&self) -> bool {
        let begun = self.storage.quietly(|| self.db().begin().map(drop));
        matches!(begun, Err(Error::Poisoned { .. }))
    }

    /// The erasure of a record failed for what happened since `before`.
    pub(super) fn erasure_failed(
        &mut self,
        erasure: &Write,
        before: usize,
        error: &Error,
    ) -> Verdict {
        self.check_failure(before, error)?;
        let what = || format!("after the erasure failed ({error})");
        if !self.has_stopped() {
            return self.check_reading().context(what);
        }
        let mut erased = self.model.clone();
        if Refusal::of(error) != Refusal::Poisoned && erased.apply(erasure).is_ok() {
            self.uncertain = Some(erasure.clone());
        }
        self.check_refusing().context(what)?;
        self.check_reading()
            .or_else(|message| {
                let before = std::mem::replace(&mut self.model, erased);
                let verdict = self.check_reading();
                let verdict = verdict.or_else(|message| self.check_half_erased(erasure, message));
                self.model = before;
                verdict.context(|| format!("neither as before:\n{message}\nnor erased"))
            })
            .context(what)?;
        self.open(Opening::Usual)
    }

    /// Where commits are seen when they are on disk, the record is gone already, and the erasure is
    /// not seen yet. All other records are as they were.
    fn check_half_erased(&self, erasure: &Write, message: String) -> Verdict {
        let Write::Erase(erased) = *erasure else {
            return Err(message);
        };
        self.storage.quietly(|| {
            for id in self.model.ids() {
                self.model.check_get(self.db(), id)?;
                if id != erased {
                    self.model.check_history(self.db(), id, 0)?;
                }
            }
            let found = self.db().history(erased, 0).map(|found| found.len());
            let gone = Err(vec![Refusal::NotFound(ourdb::NotFound::History(erased))]);
            compare(|| format!("history({erased}, 0)"), &gone, found)
        })
    }
}
