//! Changes of another database, applied within a trial: each of its commits is there whole or not at
//! all, in order; what failed may be applied again. Where that database was compacted they are a
//! difference of states.

use std::ops::ControlFlow;

use ourdb::{Db, Error, Options, Record, Retention};

use super::trial::{Opening, Trial};
use super::workload::{RECORD_NR_MAX, Workload, open};
use crate::support::model::{Model, Write};
use crate::support::sim::{Disk, SimStorage};
use crate::support::{Context, Verdict, require};

/// The database that the changes are from. Nothing ever fails in it.
pub(crate) struct Source {
    db: Db,
    model: Model,
    /// The last commit when it was compacted: what comes before is given out as a difference.
    compacted: u64,
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
            compacted: 0,
        })
    }

    fn compact(&mut self, retention: &Retention) -> Verdict {
        let done = self.db.compact(retention, |_, _| ControlFlow::Continue(()));
        done.map_err(|error| format!("compaction of the source: {error}"))?;
        self.model.compact(retention);
        self.model.learn_oldest(&self.db)?;
        self.compacted = self.model.last_commit();
        Ok(())
    }

    /// What `model` comes to by the changes up to commit `upto`.
    fn lead(&self, model: &Model, upto: u64) -> Model {
        let mut led = model.clone();
        led.follow(&self.model, upto, self.compacted);
        led
    }

    /// Leads a database that has the source's commits up to some one to its last one. It is whole if it
    /// was never compacted itself.
    pub(crate) fn lead_to_the_end(
        &self,
        db: &Db,
        model: &mut Model,
        is_whole: bool,
        max_bytes: usize,
    ) -> Verdict {
        loop {
            let since = model.last_commit();
            let (changes, upto) = self.changes(since, max_bytes)?;
            if changes.is_empty() {
                return self.check_same(db, is_whole);
            }
            db.apply(&changes)
                .map_err(|error| format!("changes after {since} up to {upto}: {error}"))?;
            *model = self.lead(model, upto);
            model.check_prefix(db, upto..=upto)?;
        }
    }

    /// Whether a database has what this one has: the same values, and if it is whole all versions that
    /// are here.
    fn check_same(&self, db: &Db, is_whole: bool) -> Verdict {
        let told = |error: Error| error.to_string();
        let (here, there) = (self.db.last_commit(), db.last_commit());
        let (here, there) = (here.map_err(told)?, there.map_err(told)?);
        require!(
            here == there,
            "the source ends with {here}, not with {there}"
        );
        for id in 0..RECORD_NR_MAX {
            let (here, there) = (self.db.get(id).ok(), db.get(id).ok());
            require!(here == there, "id {id} is not as in the source");
            let versions = |db: &Db| {
                let versions = db.history(id, 0).ok().into_iter();
                let versions = versions.flat_map(|records| {
                    let version = |record: Record<'_>| {
                        let value = record.value.to_vec();
                        (record.commit, record.time_us, record.state, value)
                    };
                    records.iter().map(version).collect::<Vec<_>>()
                });
                versions.collect::<Vec<_>>()
            };
            let copied = versions(db);
            let missing = versions(&self.db)
                .into_iter()
                .find(|version| !copied.contains(version));
            require!(
                missing.is_none() || !is_whole,
                "id {id} has in the source, and not here, (commit, time, state, value): {missing:?}"
            );
        }
        Ok(())
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

    pub(super) fn compact_source(&mut self, retention: &Retention) -> Verdict {
        self.source()?.compact(retention)
    }

    /// At the end, where nothing fails any more.
    pub(super) fn feed_at_the_end(&mut self) -> Verdict {
        if self.source.is_none() {
            return Ok(());
        }
        self.feed(100)?;
        let source = self.source.as_ref().expect("there is one");
        let is_whole = !self.workload.compacts();
        self.storage
            .quietly(|| source.check_same(self.db(), is_whole))
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
            self.refuse_gap(&gap)?;
            let source = self.source.as_ref().expect("it is fed from");
            let fed = source.lead(&self.model, upto);
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
