//! Making commits durable: one sync for all who wait, and those of the interval mode.

use std::sync::Arc;
use std::time::Duration;

use super::ticker::Ticker;
use super::write::{Moment, Writer};
use super::{Db, Shared};
use crate::error::{Error, Result};
use crate::manifest::State;
use crate::options;
use crate::planted::planted;
use crate::sync::{Condvar, Mutex, MutexGuard, PoisonError, wait};

/// Who waits for a sync, and who does it: the first to come syncs for all that have appended by
/// then, and those who come meanwhile wait for the next one.
#[derive(Debug, Default)]
pub(super) struct GroupSync {
    state: Mutex<GroupState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct GroupState {
    /// Everything up to this commit is on disk.
    synced: u64,
    /// Somebody is at it.
    busy: bool,
}

impl GroupSync {
    /// Everything up to `synced` is on disk.
    pub(super) fn new(synced: u64) -> GroupSync {
        let state = Mutex::new(GroupState {
            synced,
            busy: false,
        });
        GroupSync {
            state,
            changed: Condvar::new(),
        }
    }

    /// Everything up to this commit is known to be on disk.
    pub(super) fn last_synced(&self) -> u64 {
        self.state().synced
    }

    /// Everything up to `commit` is on disk, by another way.
    pub(super) fn synced(&self, commit: u64) {
        let mut state = self.state();
        state.synced = state.synced.max(commit);
        drop(state);
        self.changed.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, GroupState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The turn of the one who syncs. However it ends, the others go on.
struct Turn<'a>(&'a GroupSync);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.state().busy = false;
        self.0.changed.notify_all();
    }
}

impl Shared {
    /// Returns when everything up to `commit` is on disk.
    pub(super) fn sync_to(&self, commit: u64) -> Result<()> {
        let mut state = self.group.state();
        loop {
            if state.synced >= commit {
                return Ok(());
            }
            self.check_poison()?;
            if !state.busy {
                break;
            }
            state = wait(&self.group.state, state, &self.group.changed);
        }
        self.take_turn(state)
    }

    /// Syncs the log as it stands, sync marks included, which no commit waits for.
    pub(super) fn sync_log(&self) -> Result<()> {
        let mut state = self.group.state();
        while state.busy {
            state = wait(&self.group.state, state, &self.group.changed);
        }
        self.take_turn(state)
    }

    /// Syncs for all who wait. Nobody is at it.
    fn take_turn(&self, mut state: MutexGuard<'_, GroupState>) -> Result<()> {
        self.check_poison()?;
        state.busy = true;
        drop(state);
        let _turn = Turn(&self.group);
        let synced = self.sync_all()?;
        let mut state = self.group.state();
        state.synced = state.synced.max(synced);
        Ok(())
    }

    /// Syncs what was appended so far, says so in the log, and lets readers see it; the last
    /// commit that is on disk now. One thread at a time.
    fn sync_all(&self) -> Result<u64> {
        let (work, moment, world) = {
            let mut writer = self.writer();
            self.check_poison()?;
            let world = self.world.load();
            (writer.tail.take_sync_work(), writer.now(), world)
        };
        let mark = |writer: &mut Writer| {
            // A compaction has synced its own.
            let is_current = Arc::ptr_eq(&world, &self.world.load());
            if let Some(end) = work.end
                && is_current
                && !work.is_empty()
                && !self.volatile
            {
                let Moment {
                    commit, time_us, ..
                } = moment;
                writer.tail.mark_synced(&world.log, end, commit, time_us);
            }
        };
        if planted!(marked_before_synced) {
            mark(&mut self.writer());
        }
        let synced = work.begin(&world.log, || self.reserve_ahead());
        if let Err(error) = synced.and_then(|()| work.run(&world.log)) {
            if planted!(failed_sync_forgotten) {
                return Err(error);
            }
            return Err(self.sync_failed(&mut self.writer(), error));
        }
        let mut writer = self.writer();
        // The kernel reports a failure once. A writer that synced the same file meanwhile, because
        // too many waited for it, may have been told in our place.
        self.check_poison()?;
        mark(&mut writer);
        if self.visible() < moment.commit {
            self.make_visible(&mut writer, moment);
        }
        Ok(moment.commit)
    }

    /// Reserves the space that the writers will need next: just after something was written back little
    /// is on its way to the disk, and the file system may have to read from there to find some.
    pub(super) fn reserve_ahead(&self) {
        if self.volatile {
            return;
        }
        let mut writer = self.writer();
        if self.check_poison().is_ok() {
            writer.tail.reserve_ahead(&self.world.load().log);
        }
    }

    /// The kernel may have dropped what it could not write, and a second sync would not say so
    /// again: nothing more is written, and the next opening must write again what it finds.
    pub(super) fn sync_failed(&self, writer: &mut Writer, error: Error) -> Error {
        let error = self.poison_with(error);
        writer.manifest.state = State::SyncFailed;
        if !self.volatile {
            // If this fails as well, the next opening still writes a shorter log again.
            let _ = writer.manifest.write(&*self.storage);
        }
        error
    }
}

impl Db {
    /// Returns when everything committed so far is on disk. Concurrent calls share one sync.
    pub fn sync(&self) -> Result<()> {
        self.shared.check_process()?;
        if self.shared.read_only {
            return Ok(());
        }
        self.shared.check_poison()?;
        let commit = self.shared.writer().commit;
        self.shared.sync_to(commit)
    }

    /// Has readers see all up to `commit`, which was appended: where they see only what is on disk, that
    /// is a sync. After an earlier failure nothing more gets there, and they never will.
    pub(crate) fn show_up_to(&self, commit: u64) -> Result<()> {
        let shared = &*self.shared;
        match shared.sync {
            options::Sync::Commit if !shared.read_only && shared.check_poison().is_ok() => {
                shared.sync_to(commit)
            }
            _ => Ok(()),
        }
    }
}

/// Syncs every `interval` by a thread in the background, as long as there is something to sync.
pub(super) fn sync_every(shared: &Arc<Shared>, interval: Duration) -> Result<Ticker> {
    Ticker::start("ourdb-sync", shared, interval, move |shared, _| {
        let commit = shared.writer().commit;
        // A failure poisons the handle, and the next write says so.
        let _ = shared.sync_to(commit);
        interval
    })
}
