//! What a trial holds against its database: whether a failure had a cause, whether a handle that
//! must have stopped has stopped, and whether what was acknowledged is there.

use ourdb::{Error, Options};

use super::trial::Trial;
use super::workload::open;
use crate::support::model::{Bytes, Refusal, compare};
use crate::support::sim::{Calls, Errno, Loss, Pages};
use crate::support::{Context, Verdict, require};

impl Trial<'_> {
    pub(super) fn sync_failed_since(&self, before: usize) -> bool {
        let count = self.storage.hit_count();
        count > before
            && self.storage.hits()[before..]
                .iter()
                .any(|hit| hit.is_sync())
    }

    /// A call that succeeds has not passed over a failed sync.
    pub(super) fn check_success(&self, before: usize) -> Verdict {
        require!(
            !self.sync_failed_since(before),
            "a sync failed, and the call that asked for it succeeds: {:?}",
            &self.storage.hits()[before..]
        );
        Ok(())
    }

    /// Whether the call that returned `error` had the right to: something failed in it, or earlier
    /// and stopped the handle.
    pub(super) fn check_failure(&mut self, before: usize, error: &Error) -> Verdict {
        let hits = self.storage.hits();
        let refusal = Refusal::of(error);
        self.unsynced_lost |= hits[before..]
            .iter()
            .any(|hit| hit.is_sync() && hit.pages == Pages::Dropped);
        let right = if refusal == Refusal::Poisoned {
            let since_opened = hits[self.hits_when_opened..].iter();
            let mut failed_writing = since_opened.filter(|hit| hit.kind != Calls::Reading);
            failed_writing.any(|hit| hit.is_sync() || hit.errno == Errno::Io)
        } else {
            hits[before..].iter().any(|hit| match hit.errno {
                Errno::Io | Errno::NoDescriptor => refusal == Refusal::Io,
                Errno::NoSpace => refusal == Refusal::NoSpace,
            })
        };
        require!(
            right,
            "a failure without a fitting cause: {refusal:?}, {error}; what failed in this call: {:?}",
            &hits[before..]
        );
        Ok(())
    }

    /// A stopped handle refuses every write, touches nothing, and reads on.
    pub(super) fn check_stopped(&self) -> Verdict {
        self.check_refusing()?;
        self.check_reading()
    }

    /// A stopped handle refuses every write, and touches nothing.
    pub(super) fn check_refusing(&self) -> Verdict {
        let events = self.storage.events();
        let db = self.db();
        let stopped = |what: &str, result: Result<(), Error>| {
            require!(
                matches!(result, Err(Error::Poisoned { .. })),
                "after a failure that stops the handle, {what} gives {result:?}"
            );
            Ok(())
        };
        self.storage.quietly(|| {
            stopped("sync()", db.sync())?;
            stopped("set(1, …)", db.set(1, b"no"))?;
            stopped("delete(1)", db.delete(1))?;
            stopped("erase(1)", db.erase(1))?;
            stopped("revert(1, 0)", db.revert(1, 0))?;
            stopped("revert_all(0)", db.revert_all(0))?;
            stopped("set_many([1])", db.set_many(&[(1, b"no")]))?;
            stopped("delete_many([1])", db.delete_many(&[1]))?;
            stopped("insert(…)", db.insert(b"no").map(drop))?;
            stopped("insert_many([…])", db.insert_many(&[b"no"]).map(drop))
        })?;
        require!(
            self.storage.events() == events,
            "a stopped handle still changes the disk"
        );
        Ok(())
    }

    /// The handle reads all that was acknowledged, and nothing else.
    pub(super) fn check_reading(&self) -> Verdict {
        self.storage.quietly(|| {
            if self.unsynced_lost {
                self.check_what_is_left()
            } else if self.uncertain.is_some() {
                self.model.check_records(self.db())
            } else {
                self.model.check_all(self.db())
            }
        })
    }

    /// Of pages that were dropped under the handle nothing wrong is read.
    pub(super) fn check_what_is_left(&self) -> Verdict {
        for id in self.model.ids() {
            let mut expected = self.model.get(id);
            let found = self.db().get(id).map(Bytes);
            if matches!(found, Err(Error::Corrupt { .. })) {
                expected = Err(vec![Refusal::Corrupt]);
            }
            compare(|| format!("get({id})"), &expected, found)?;
        }
        Ok(())
    }

    /// Everything promised to be on disk is there after a loss of power.
    pub(super) fn check_durable(&self) -> Verdict {
        let left = self.storage.disk().lose_power(&Loss::OF_EVERYTHING);
        let options = Options {
            must_exist: self.synced > 0,
            ..self.options.clone()
        };
        let check = || {
            let db = open(&self.workload.storage(left, 1), &options);
            let db = db.map_err(|error| format!("refused: {error}"))?;
            self.model
                .check_prefix(&db, self.synced..=self.model.last_commit())
        };
        check().map(drop).context(|| "after a loss of power".into())
    }
}
