//! A compaction within a trial, with what is written beside it. It may fail at any call: then the
//! database is as it was, in the same handle, or in the next one if this one had to stop; a manifest
//! that was replaced but not synced may be there as well.

use std::ops::ControlFlow;

use ourdb::Error;

use super::beside::Beside;
use super::trial::{COMPACTED, Opening, Trial};
use super::workload::Compact;
use crate::support::model::{Model, Refusal};
use crate::support::{Context, Verdict, refute, require};

impl Trial<'_> {
    pub(super) fn compact(&mut self, compact: &Compact) -> Verdict {
        let before = self.storage.hit_count();
        let mut compacted = self.model.clone();
        compacted.compact(&compact.retention);
        let mut beside = Beside::new(self, compacted);
        let mut begun = false;
        let mut verdict = Ok(());
        let mut writes = compact.beside.iter();
        // While the base is copied, and when all but these is.
        let at_the_end = compact.beside.len() / 2;
        let done = self.db().compact(&compact.retention, |done, total| {
            begun = true;
            let left = if done == total { 0 } else { at_the_end };
            while writes.len() > left && verdict.is_ok() && !beside.has_failed() {
                if let Some(write) = writes.next() {
                    verdict = beside.write(write);
                }
            }
            if compact.cancelled || beside.has_failed() || verdict.is_err() {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        verdict.context(|| "beside the compaction".into())?;
        let (written, compacted) = beside.end();
        if self.wrote_beside(written, done.is_ok())? {
            return Ok(());
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
