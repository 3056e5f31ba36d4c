//! Backups within a trial, into a second simulated directory that fails and loses power by itself. A
//! backup changes nothing in the database. What it leaves in the directory opens as the earlier backup
//! or the new one; where it had to be copied anew, it may say that it is unfinished. Made again, it is
//! there.

use std::ops::ControlFlow;
use std::sync::Arc;

use ourdb::error::NotFound;
use ourdb::storage::Storage;
use ourdb::{Db, Error, Options};

use super::beside::Beside;
use super::remnants::check_erased;
use super::trial::Trial;
use super::workload::{Backup, Beginning, Workload, open};
use crate::support::model::{Model, Refusal};
use crate::support::sim::{Disk, Errno, Fault, Hit, Loss, SimStorage};
use crate::support::{Context, Random, Verdict, refute, require};

/// What a directory for backups may hold.
#[derive(Clone, Debug, Default)]
pub(crate) struct Held {
    /// The last backup that was finished.
    pub(crate) finished: Option<Model>,
    /// Begun since and not reported as done: any of them may be.
    pub(crate) begun: Vec<Model>,
    /// Whether one that is begun may take the finished one's place before it is done.
    pub(crate) may_be_unfinished: bool,
}

impl Held {
    /// Opens what is on `storage`, and compares it.
    pub(crate) fn check(&self, storage: &SimStorage, options: &Options) -> Verdict {
        let db = match open(storage, options) {
            Ok(db) => db,
            Err(error) => return self.check_refusal(&error, options),
        };
        let mut messages = Vec::new();
        for model in self.candidates() {
            match model.check_all(&db) {
                Ok(()) if options.read_only => return Ok(()),
                Ok(()) => {
                    let closed = db.close();
                    return closed.map_err(|error| format!("close without a write: {error}"));
                }
                Err(message) => messages.push(message),
            }
        }
        refute!(
            "none of the backups: {}",
            messages.join("\nand otherwise:\n")
        )
    }

    /// All that may be there. What a later one finishes of erasures overwrites what an earlier one has.
    fn candidates(&self) -> Vec<Model> {
        let held: Vec<&Model> = self.finished.iter().chain(&self.begun).collect();
        let mut candidates: Vec<Model> = held.iter().copied().cloned().collect();
        for (index, earlier) in held.iter().enumerate() {
            let later = held[index + 1..].iter();
            let erasing = later.filter(|later| later.has_erased_since(earlier.last_commit()));
            candidates.extend(erasing.map(|later| earlier.overwritten(later)));
        }
        candidates
    }

    fn check_refusal(&self, error: &Error, options: &Options) -> Verdict {
        let is_erasing = || {
            let before = self.finished.as_ref().map_or(0, Model::last_commit);
            let mut begun = self.begun.iter();
            options.read_only && begun.any(|model| model.has_erased_since(before))
        };
        let right = match error {
            Error::Incompatible(message) => {
                self.may_be_unfinished && message.contains("an unfinished backup")
                    || message.contains("an erasure was interrupted") && is_erasing()
            }
            Error::NotFound(NotFound::Database(_)) => self.finished.is_none(),
            _ => false,
        };
        require!(right, "a backup that doesn't open: {error}");
        Ok(())
    }
}

/// The way in which whoever wants to read a backup opens it.
pub(crate) fn to_read() -> Options {
    Options {
        read_only: true,
        ..Options::default()
    }
}

/// And whoever goes on with it as a database.
pub(crate) fn to_write() -> Options {
    Options {
        must_exist: true,
        ..Options::default()
    }
}

/// Backs up into `storage`, and finds all of `model` there, whatever is lost with the power, and
/// nothing of what was erased.
pub(crate) fn back_up_again(db: &Db, storage: &SimStorage, model: &Model) -> Verdict {
    let made = db.backup_to(to_storage(storage), |_, _| ControlFlow::Continue(()));
    made.map_err(|error| format!("made again: {error}"))?;
    check_made(storage, model).context(|| "made again".into())
}

fn check_made(storage: &SimStorage, model: &Model) -> Verdict {
    let disk = storage.disk();
    check_erased(&disk, model)?;
    let left = SimStorage::new(disk.lose_power(&Loss::OF_EVERYTHING), true, 3);
    let held = Held {
        finished: Some(model.clone()),
        ..Held::default()
    };
    held.check(&left, &to_read())
        .context(|| "a backup that is done, after a loss of power".into())
}

fn to_storage(storage: &SimStorage) -> Arc<dyn Storage> {
    Arc::new(storage.clone())
}

/// A backup as it was made where nothing failed.
pub(crate) struct Made {
    /// Where it ends among the calls of the directory that it is in.
    pub(crate) end: usize,
    /// What the directory may hold while it is being made.
    pub(crate) held: Held,
    /// What it holds then.
    pub(crate) model: Model,
    /// The database afterwards, to make the backup again.
    pub(crate) source: Disk,
    pub(crate) source_model: Model,
    pub(crate) options: Options,
}

/// A directory for backups.
pub(crate) struct Target {
    pub(crate) storage: SimStorage,
    held: Held,
    /// Of the finished backup, how often the database was made anew or compacted before.
    era: usize,
    /// The database was made anew since.
    is_foreign: bool,
    /// In that era the database has lost what the directory may hold.
    is_ahead: Option<usize>,
    /// It may have lost data files that the directory holds, or be another one by now.
    pub(super) may_differ: bool,
    /// It may have been compacted though that failed: what is backed up next may be copied anew.
    pub(super) may_be_compacted: bool,
    pub(crate) made: Vec<Made>,
}

impl Target {
    pub(super) fn new(workload: &Workload, seed: u64) -> Target {
        Target {
            storage: workload.storage(Disk::new(), 77 + seed),
            held: Held::default(),
            era: 0,
            is_foreign: false,
            is_ahead: None,
            may_differ: false,
            may_be_compacted: false,
            made: Vec::new(),
        }
    }

    fn is_used(&self) -> bool {
        self.held.finished.is_some() || !self.held.begun.is_empty()
    }

    /// The database was made anew.
    pub(super) fn becomes_foreign(&mut self) {
        self.is_foreign = true;
    }

    /// The database has lost what was not synced: what it had up to commit `synced` is there for
    /// certain, and it ends with commit `last` again.
    pub(super) fn note_loss(&mut self, synced: u64, last: u64, era: usize) {
        let held = self.held.finished.iter().chain(&self.held.begun);
        let Some(most) = held.map(Model::last_commit).max() else {
            return;
        };
        // A data file in which there was no commit yet may be gone as well.
        self.may_differ |= most >= synced;
        if most > last {
            self.is_ahead = Some(era);
        }
    }

    /// Whether a backup of `source` may be refused, and whether it must be.
    fn refuses(&self, era: usize, source: &Model) -> (bool, bool) {
        let held = &self.held;
        let is_sure = held.finished.is_some() && !held.may_be_unfinished;
        let is_ahead = self.is_ahead == Some(era);
        // What was committed anew at the same time with the same values is the same, to the byte.
        let lost = |model: &Model| model.last_commit() > 0 && !model.may_be_beginning_of(source);
        let is_same = self.era == era && !self.may_be_compacted;
        let must =
            self.is_foreign || is_ahead && is_same && held.finished.as_ref().is_some_and(lost);
        (
            self.is_used() && (self.is_foreign || self.is_ahead.is_some() || self.may_differ),
            is_sure && must && held.begun.is_empty(),
        )
    }

    fn failed_since(&self, before: usize) -> Vec<Hit> {
        self.storage.hits()[before..].to_vec()
    }

    fn check_left(&self) -> Verdict {
        let left = SimStorage::new(self.storage.disk(), true, 5);
        self.held.check(&left, &to_read())?;
        require!(left.events() == 0, "a reader has changed a backup");
        Ok(())
    }

    /// The power fails, and somebody may open what is left before the next backup does.
    fn lose_power(&mut self, seed: u64, workload: &Workload) -> Verdict {
        let mut random = Random::new(seed);
        let left = self.storage.disk().lose_power(&Loss::any(&mut random));
        self.storage = workload.storage(left, seed);
        self.check_left()?;
        if random.chance(30) {
            self.held.check(&self.storage, &to_write())?;
            self.check_left().context(|| "opened and closed".into())?;
        }
        Ok(())
    }
}

impl Trial<'_> {
    /// Lets calls fail in the directory for backups from now on, those before not counted.
    pub(super) fn fail_target(&self, fault: Fault) {
        let storage = &self.target.storage;
        let after = storage.calls(fault.calls) + fault.after;
        storage.fail(Some(Fault { after, ..fault }));
    }

    pub(super) fn back_up(&mut self, backup: &Backup) -> Verdict {
        if self.unsynced_lost {
            return Ok(());
        }
        if let Some(fault) = backup.fault {
            self.fail_target(fault);
        }
        let begin = self.target.storage.events();
        let before = (self.storage.hit_count(), self.target.storage.hit_count());
        let events = self.storage.events();
        let made = self.model.clone();
        let mut beside = Beside::new(self, self.model.clone());
        let mut verdict = Ok(());
        let mut told = 0;
        let target = to_storage(&self.target.storage);
        let done = self.db().backup_to(target, |_, _| {
            // Some when nothing is copied yet, and one after each data file.
            let write = backup.beside.get(told);
            if let Some(write) = write.filter(|_| verdict.is_ok() && !beside.has_failed()) {
                verdict = beside.write(write);
            }
            told += 1;
            if backup.stop_at == Some(told) || beside.has_failed() || verdict.is_err() {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        verdict.context(|| "beside the backup".into())?;
        let (written, _) = beside.end();
        require!(
            !backup.beside.is_empty() || self.storage.events() == events,
            "a backup changes the database's directory"
        );
        let is_stopped = backup.stop_at.is_some_and(|stop_at| stop_at <= told);
        let failed_beside = self.wrote_beside(written, done.is_ok())?;
        match done {
            Ok(()) => {
                require!(!is_stopped, "a backup goes on where it was stopped");
                self.backed_up(made, before)?;
            }
            Err(Error::Incompatible(message))
                if self.target.refuses(self.eras.len(), &self.model).0 =>
            {
                require!(
                    self.target.storage.events() == begin || !self.target.held.begun.is_empty(),
                    "what is refused is changed: {message}"
                );
                self.target.check_left().context(|| message.to_string())?;
                self.next_target();
            }
            Err(error) => {
                let expected = (is_stopped || failed_beside) && matches!(error, Error::Cancelled);
                if !expected {
                    self.check_backup_failure(before, &error)?;
                }
                self.backup_failed(made, backup, begin)
                    .context(|| format!("after the backup failed ({error})"))?;
                let fails = self.storage.is_failing() || self.target.storage.is_failing();
                if !fails {
                    self.back_up(&Backup::default())
                        .context(|| format!("made again after it failed ({error})"))?;
                }
            }
        }
        if backup.fault.is_some() {
            self.target.storage.fail(None);
        }
        self.mark("backup");
        self.check_reading()
    }

    /// The next backup goes into another directory.
    fn next_target(&mut self) {
        let next = Target::new(self.workload, self.past_targets.len() as u64 + 1);
        let past = std::mem::replace(&mut self.target, next);
        self.past_targets.push(past);
    }

    fn backed_up(&mut self, made: Model, before: (usize, usize)) -> Verdict {
        self.check_success(before.0)?;
        let (_, must_be_refused) = self.target.refuses(self.eras.len(), &self.model);
        // Changes that are applied again are the same commits.
        let is_fed = self.source.is_some();
        require!(
            !must_be_refused || is_fed,
            "a backup over one of another history is not refused"
        );
        let hits = self.target.failed_since(before.1);
        let passed_over = hits.iter().find(|hit| hit.is_sync());
        require!(
            passed_over.is_none(),
            "a sync failed, and the backup succeeds: {hits:?}"
        );
        check_made(&self.target.storage, &made)?;
        let era = self.eras.len();
        let target = &mut self.target;
        let is_anew = self.workload.beginning != Beginning::Nothing
            || target.held.finished.is_none()
            || target.era != era
            || target.may_be_compacted
            || target.held.may_be_unfinished;
        let held = Held {
            begun: vec![made.clone()],
            may_be_unfinished: is_anew,
            ..target.held.clone()
        };
        target.made.push(Made {
            end: target.storage.events(),
            held,
            model: made.clone(),
            source: self.storage.disk(),
            source_model: self.model.clone(),
            options: self.options.clone(),
        });
        target.held = Held {
            finished: Some(made),
            ..Held::default()
        };
        target.era = era;
        target.is_foreign = false;
        target.is_ahead = None;
        target.may_differ = false;
        target.may_be_compacted = false;
        Ok(())
    }

    /// Whether something failed that a backup could say so of.
    fn check_backup_failure(&self, before: (usize, usize), error: &Error) -> Verdict {
        let mut hits = self.storage.hits()[before.0..].to_vec();
        hits.extend(self.target.failed_since(before.1));
        let refusal = Refusal::of(error);
        let right = hits.iter().any(|hit| match hit.errno {
            Errno::Io | Errno::NoDescriptor => matches!(refusal, Refusal::Io | Refusal::Poisoned),
            Errno::NoSpace if hit.is_sync() => {
                matches!(refusal, Refusal::NoSpace | Refusal::Poisoned)
            }
            Errno::NoSpace => refusal == Refusal::NoSpace,
        });
        require!(
            right,
            "a backup without a fitting cause to fail: {refusal:?}, {error}; what failed: {hits:?}"
        );
        Ok(())
    }

    fn backup_failed(&mut self, made: Model, backup: &Backup, begin: usize) -> Verdict {
        let is_new_era = self.target.era != self.eras.len() || self.target.may_be_compacted;
        let is_imported = self.workload.beginning != Beginning::Nothing;
        let target = &mut self.target;
        let is_begun = target.storage.events() > begin;
        if is_begun {
            target.held.begun.push(made);
            target.held.may_be_unfinished |=
                is_imported || is_new_era || target.held.finished.is_none();
        }
        target.check_left()?;
        match backup.power_loss {
            Some(seed) => target
                .lose_power(seed, self.workload)
                .context(|| "and the power".into()),
            None => Ok(()),
        }
    }

    /// At the end, where nothing fails any more.
    pub(super) fn back_up_at_the_end(&mut self) -> Verdict {
        match self.target.is_used() {
            true => self.back_up(&Backup::default()),
            false => Ok(()),
        }
    }
}
