//! Changes of another database, applied within a trial: each of its commits is there whole or not at
//! all, in order; what failed may be applied again.

use ourdb::{Db, Error, Options};

use super::trial::{Opening, Trial};
use super::workload::{Workload, open};
use crate::support::model::{Model, Write};
use crate::support::sim::{Disk, SimStorage};
use crate::support::{Context, Verdict, require};

/// The database that the changes are from. Nothing ever fails in it.
pub(crate) struct Source {
    db: Db,
    model: Model,
}

impl Source {
    fn of(workload: &Workload) -> Verdict<Source> {
        let options = Options {
            must_exist: false,
            sync: ourdb::Sync::Os,
            ..workload.options.clone()
        };
        let storage = SimStorage::new(Disk::new(), true, !workload.seed);
        let db = open(&storage, &options).map_err(|error| format!("the source: {error}"))?;
        Ok(Source {
            db,
            model: workload.model(),
        })
    }

    fn changes(&self, since: u64, max_bytes: usize) -> Verdict<(Vec<u8>, u64)> {
        let changes = self.db.changes(since, max_bytes);
        changes.map_err(|error| format!("changes({since}, {max_bytes}): {error}"))
    }
}

impl Trial<'_> {
    fn source(&mut self) -> Verdict<&mut Source> {
        if self.source.is_none() {
            self.source = Some(Source::of(self.workload)?);
        }
        Ok(self.source.as_mut().expect("it was made"))
    }

    pub(super) fn write_to_source(&mut self, write: &Write) -> Verdict {
        let source = self.source()?;
        source
            .model
            .perform(&source.db, write)
            .context(|| "in the source".into())
    }

    /// Applies all that the source has.
    pub(super) fn feed(&mut self, max_bytes: usize) -> Verdict {
        loop {
            let since = self.model.last_commit();
            let source = self.source()?;
            let (changes, upto) = source.changes(since, max_bytes)?;
            if changes.is_empty() {
                require!(
                    upto == source.model.last_commit(),
                    "no changes after {since}"
                );
                return Ok(());
            }
            let (gap, _) = source.changes(since + 1, max_bytes)?;
            let told = source.model.clone();
            self.refuse_gap(&gap)?;
            let mut fed = self.model.clone();
            fed.follow(&told, upto);
            let before = self.storage.hit_count();
            match self.db().apply(&changes) {
                Ok(()) => self.fed(fed, before)?,
                Err(error) => {
                    self.feed_failed(fed, before, &error)
                        .context(|| format!("changes after {since} up to {upto}"))?;
                    if self.storage.is_failing() {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Changes that leave a commit out are not applied.
    fn refuse_gap(&mut self, changes: &[u8]) -> Verdict {
        if changes.is_empty() || self.storage.is_failing() {
            return Ok(());
        }
        let events = self.storage.events();
        let applied = self.db().apply(changes);
        require!(
            matches!(applied, Err(Error::Incompatible(_))),
            "changes that leave a commit out: {applied:?}"
        );
        require!(
            self.storage.events() == events,
            "refused changes change the disk"
        );
        Ok(())
    }

    fn fed(&mut self, fed: Model, before: usize) -> Verdict {
        self.check_success(before)?;
        let erased = fed.gone().len() > self.model.gone().len();
        self.model = fed;
        self.perhaps_fed = None;
        if erased || self.workload.commits_durably() {
            self.acknowledge_sync()?;
        }
        self.check_erased()?;
        self.mark("apply");
        self.check_reading()
    }

    /// Of changes that failed those commits may be there that came before the one that did.
    fn feed_failed(&mut self, fed: Model, before: usize, error: &Error) -> Verdict {
        self.check_failure(before, error)?;
        if self.has_stopped() {
            self.check_refusing()
                .context(|| format!("after changes failed ({error})"))?;
        }
        self.perhaps_fed = Some(fed);
        self.open(Opening::Usual)
    }
}
