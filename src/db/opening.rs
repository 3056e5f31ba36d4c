//! From a manifest to an open database: `find` finds its data files, `recover` brings the lookup up
//! to the end of the log, and `settle` leaves the log on disk as it will be built upon.

use std::sync::Arc;
use std::time::Duration;

use super::auto_compact::compact_when_due;
use super::clears::Clears;
use super::copies::UnderWay;
use super::deletions::Deletions;
use super::erasures::Erasures;
use super::snapshot::Snapshots;
use super::sync::{GroupSync, sync_every};
use super::write::{Stamp, Writer};
use super::{Counters, Db, Shared, World};
use crate::error::{Error, Result};
use crate::log::Log;
use crate::log::erasure::{self, Target};
use crate::log::recovery::{LogFile, Outcome};
use crate::log::segment::{LONGEST_FILE, Segment, name};
use crate::log::tail::Tail;
use crate::lookup::Entry;
use crate::manifest::{FileKind, Manifest, State};
use crate::options::{Limits, Options, Sync};
use crate::planted::planted;
use crate::storage::{Access, File, Lock, Storage, Swap, fork};
use crate::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use crate::sync::{Mutex, OnceLock};

/// A database on its way to being open.
pub(super) struct Opening<'a> {
    pub(super) storage: &'a Arc<dyn Storage>,
    pub(super) options: &'a Options,
    pub(super) read_only: bool,
    pub(super) manifest: Manifest,
    /// The lookup to begin with, where it doesn't come from a file.
    pub(super) entries: Option<Vec<(u32, Entry)>>,
    /// The data files of the log, ascending.
    pub(super) log_files: Vec<LogFile>,
    /// The number for the next data file.
    pub(super) next_file: u32,
    /// Whether a clean close will have something to write.
    pub(super) changed: bool,
    /// Numbers of data files that a compaction left behind, of its own or of what it has replaced.
    pub(super) leftovers: Vec<u16>,
    /// Whether the manifest on disk says "closed cleanly" and the log is newer.
    pub(super) outdated: bool,
    /// For reading only: what a writer was overwriting when this began.
    erasing: Vec<Target>,
    /// What isn't behind the checkpoint yet may be of another log than what was there before.
    pub(super) is_joined: bool,
}

impl<'a> Opening<'a> {
    pub(super) fn new(
        storage: &'a Arc<dyn Storage>,
        options: &'a Options,
        manifest: Manifest,
        entries: Option<Vec<(u32, Entry)>>,
    ) -> Result<Opening<'a>> {
        let mut opening = Opening {
            storage,
            options,
            read_only: options.read_only || options.salvage,
            changed: manifest.commit == 0 && manifest.dump.is_none() && !manifest.native,
            manifest,
            entries,
            log_files: Vec::new(),
            next_file: 0,
            leftovers: Vec::new(),
            outdated: false,
            erasing: Vec::new(),
            is_joined: false,
        };
        if opening.read_only && !opening.salvage() {
            opening.erasing = opening.being_erased()?;
        }
        opening.find_log_files()?;
        opening.settle_foreign_changes()?;
        Ok(opening)
    }

    fn being_erased(&self) -> Result<Vec<Target>> {
        let Manifest {
            uuid, generation, ..
        } = &self.manifest;
        erasure::being_overwritten(&**self.storage, uuid, *generation)
    }

    /// Whether the log is longer than it looks to a reader: what a writer is just overwriting looks like
    /// the end of it, where nothing proves that there is more.
    pub(super) fn goes_on(&self, outcome: &Outcome) -> Result<bool> {
        if !outcome.torn || !self.read_only || self.salvage() {
            return Ok(false);
        }
        let end = outcome.end.map(|end| (end.file, end.position));
        let is_behind = |target: &Target| Some(target.place()) >= end;
        Ok(self.erasing.iter().any(is_behind) || self.being_erased()?.iter().any(is_behind))
    }

    pub(super) fn salvage(&self) -> bool {
        self.options.salvage
    }

    pub(super) fn limits(&self) -> Limits {
        let mut limits = self.manifest.limits.with(self.options);
        limits.record_nr_max = limits.record_nr_max.max(self.manifest.limits.record_nr_max);
        limits
    }

    pub(super) fn finish(mut self, lock: Option<Box<dyn Lock>>) -> Result<Db> {
        let storage = Arc::clone(self.storage);
        let recovered = self.recover()?;
        let outcome = &recovered.outcome;
        if self.goes_on(outcome)? {
            let end = outcome.end.unwrap_or_default();
            return Err(Error::corrupt(
                storage.describe(&name(end.file)),
                u64::from(end.position),
                "what is erased here stands half overwritten",
            ));
        }
        // What is refused is left as it was found: so all that can be wrong comes first.
        self.check_lengths(outcome)?;
        recovered.table.keep(&recovered.lookup)?;
        // That a compaction or a takeover has replaced the manifest may not be on disk yet. If it never
        // gets there, the earlier one is found, which names what is going to be removed.
        let was_open = self.manifest.state != State::Clean && !self.manifest.backup;
        let mut files = self.manifest.files.iter();
        let compacted = was_open && files.any(|file| file.kind == FileKind::Compacted);
        if !self.read_only {
            let others = !self.leftovers.is_empty() || !self.other_bases().is_empty();
            let replaced = (compacted || others) && !planted!(leftovers_removed_at_once);
            if self.outdated || replaced {
                self.manifest.write(&*storage)?;
            }
            let settled = self.remove_leftovers();
            if let Err(error) = settled.and_then(|()| self.settle_log(outcome)) {
                // A sync may have failed: then what the kernel holds must be written again. If this
                // can't be noted, a short log is written again all the same.
                self.manifest.state = State::SyncFailed;
                let _ = self.manifest.write(&*storage);
                return Err(error);
            }
        }
        let limits = self.limits();
        if limits != self.manifest.limits && !self.read_only {
            self.manifest.limits = limits;
            self.manifest.write(&*storage)?;
            self.changed = true;
        }
        let new_log = match self.read_only {
            true => Log::followed,
            false => Log::new,
        };
        let log = new_log(
            Arc::clone(&storage),
            self.manifest.uuid,
            self.manifest.generation,
        );
        let mut tail = Tail::new(self.next_file, limits.file_size);
        self.add_segments(&log, outcome, &mut tail)?;
        let writer = Writer {
            tail,
            manifest: self.manifest.try_clone()?,
            commit: outcome.commit,
            time_us: outcome.time_us,
            earliest_us: outcome.time_us,
            next_id: recovered.next_id,
            live: recovered.live,
            tally: recovered.tally,
            deletions: Deletions::default(),
            prepared: false,
            changed: self.changed || self.manifest.state != State::Clean,
        };
        let counters = Counters::default();
        counters.appended.store(outcome.commit, Ordering::Relaxed);
        counters.next_id.store(recovered.next_id, Ordering::Relaxed);
        counters.show(&writer.now());
        // What was recovered may not be on disk yet. A reader syncs nothing.
        let is_settled = self.options.sync == Sync::Commit && !self.read_only;
        let group = GroupSync::new(match outcome.has_unsynced() && !is_settled {
            true => outcome.synced_commit,
            false => outcome.commit,
        });
        let base = Stamp {
            commit: self.base_commit(),
            time_us: self.manifest.base_time_us,
        };
        let Manifest {
            oldest, taken_over, ..
        } = self.manifest;
        let clears = Clears::new(&recovered.clears)?;
        let world = World::new(log, recovered.lookup, clears, base, taken_over, oldest);
        let shared = Arc::new(Shared {
            storage,
            world: Swap::new(Arc::new(world)),
            key_value: self.manifest.key_value,
            read_only: self.read_only,
            volatile: self.options.memory,
            limits,
            sync: self.options.sync,
            fork_generation: fork::generation(),
            counters,
            snapshots: Snapshots::default(),
            erasures: Erasures::default(),
            writer: Mutex::new(writer),
            group,
            compactor: AtomicUsize::new(0),
            compactor_wrote: AtomicU64::new(0),
            copies: UnderWay::default(),
            long_work: AtomicU32::new(0),
            pause_us: AtomicU32::new(0),
            options: self.options.clone(),
            poisoned: OnceLock::new(),
            _lock: lock,
        });
        // Before there is a checkpoint, for they are not found behind it.
        if !self.read_only {
            shared.finish_erasures(&recovered.erasures)?;
        }
        // Whoever is never closed cleanly shall not read the same log each time. That the disk is
        // too full for it is no reason not to open.
        if shared.replayed_long(outcome.read)
            && let Err(error) = shared.checkpoint()
            && shared.check_poison().is_err()
        {
            return Err(error);
        }
        let mut tickers = Vec::new();
        if !self.read_only {
            if let Sync::Interval(milliseconds) = self.options.sync {
                let interval = Duration::from_millis(u64::from(milliseconds));
                tickers.push(sync_every(&shared, interval)?);
            }
            tickers.extend(compact_when_due(&shared, self.options)?);
        }
        Ok(Db { shared, tickers })
    }

    /// Lets readers at the data files, and the writer at the last one of the log.
    fn add_segments(&self, log: &Log, outcome: &Outcome, tail: &mut Tail) -> Result<()> {
        let storage = &**self.storage;
        let open = |number: u16, access| {
            let name = name(number);
            storage
                .open(&name, access)
                .map_err(|error| Error::from_io("open", storage.describe(&name), error))
        };
        let view = |file: &dyn File, number, reserve| {
            file.view(reserve)
                .map_err(|error| Error::from_io("map", storage.describe(&name(number)), error))
        };
        for file in &self.manifest.files {
            let own_until = match file.kind {
                FileKind::Log => continue,
                FileKind::Frozen { own_until } => u64::from(own_until),
                FileKind::Compacted => u64::MAX,
            };
            let opened = match open(file.number, Access::Read) {
                Err(_) if self.salvage() => continue,
                opened => opened?,
            };
            // Salvage takes a file that has become shorter: nothing is read behind its end.
            let there = opened.len().map_err(|error| {
                Error::from_io("open", storage.describe(&name(file.number)), error)
            })?;
            let len = u64::from(file.len).min(there);
            let view = view(&*opened, file.number, len)?;
            view.extend_to(len);
            log.add_open(Segment::mixed(file.number, log, own_until, view), &opened);
        }
        for (index, file) in self.log_files.iter().enumerate() {
            let Some(end) = self.log_end_of(index, outcome) else {
                continue;
            };
            let end = end.min(file.len);
            // It may grow, by this handle or by the writer that this one follows.
            let last = outcome.end.is_some_and(|end| end.file == file.number);
            let active = last && !self.read_only;
            let access = if active { Access::Write } else { Access::Read };
            let opened = match open(file.number, access) {
                Err(_) if self.salvage() => continue,
                opened => opened?,
            };
            let reserve = if last { LONGEST_FILE + 1 } else { end };
            let view = view(&*opened, file.number, reserve)?;
            view.extend_to(end);
            let segment = log.add_open(Segment::of_log(file.number, log, view), &opened);
            if active {
                tail.resume(segment, opened, end, outcome.has_unsynced());
            }
        }
        Ok(())
    }
}
