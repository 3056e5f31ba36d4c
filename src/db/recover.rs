//! From a manifest to an open database: find the data files, bring the lookup up to the end of the
//! log, and leave the log on disk as it will be built upon.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::auto_compact::compact_when_due;
use super::erasures::Erasures;
use super::snapshot::Snapshots;
use super::sync::{GroupSync, sync_every};
use super::write::{Stamp, Writer};
use super::{Counters, Db, Shared, World};
use crate::base;
use crate::error::{Error, FailedSync, Result};
use crate::herolib;
use crate::location::Location;
use crate::log::Log;
use crate::log::record::{Kind, Seed};
use crate::log::recovery::{self, LogFile, Outcome, Replayed, Start};
use crate::log::scan::{Found, ReadRecord};
use crate::log::segment::{FILE_HEADER, FileHeader, LONGEST_FILE, LogEnd, Segment, name};
use crate::log::tail::Tail;
use crate::lookup::checkpoint::{self, Checkpoint, Load, NewTable, Tally};
use crate::lookup::{Entry, Lookup};
use crate::manifest::{Clear, DataFile, FileKind, MANIFEST, Manifest, State};
use crate::options::{Limits, LookupKind, Options, Sync};
use crate::planted::planted;
use crate::reader::Reader;
use crate::storage::{Access, File, Lock, Storage, Swap, fork, remove_if_there, sync_directory};
use crate::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use crate::sync::{Mutex, OnceLock};

/// After the death of a writer the part of the log that was perhaps not synced is written again,
/// if it isn't longer than this; for why, see [`recovery::rewrite`]. A longer one is when the
/// manifest says that a sync has failed.
const LONGEST_REWRITE: u64 = 64 << 20;

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
}

/// The lookup at the end of the log, and the counters with it.
pub(super) struct Recovered<'a> {
    pub(super) lookup: Lookup,
    /// Its file, if it is a new one on disk.
    table: NewTable<'a>,
    /// Of those, the manifest's and the log's.
    clears: Vec<Clear>,
    outcome: Outcome,
    next_id: u64,
    live: u64,
    tally: Tally,
    /// The erasures in the part of the log that was read: record and place.
    erasures: Vec<(u32, Location)>,
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
        };
        opening.find_log_files()?;
        opening.settle_foreign_changes()?;
        Ok(opening)
    }

    pub(super) fn salvage(&self) -> bool {
        self.options.salvage
    }

    /// Checks that the data files of the manifest are there, and finds those that were begun
    /// since it was written.
    pub(super) fn find_log_files(&mut self) -> Result<()> {
        let storage = &**self.storage;
        let present = herolib::data_files(storage)?;
        self.log_files.clear();
        self.leftovers.clear();
        let mut listed = self.manifest.files.iter().peekable();
        let last_listed = self.manifest.files.last().map(|file| file.number);
        let extending = self.manifest.state == State::Extending;
        for file in &present {
            while let Some(missing) = listed.next_if(|known| known.number < file.number) {
                self.missing(missing)?;
            }
            let known = listed.next_if(|known| known.number == file.number);
            let header = match known {
                Some(known) => {
                    if file.len < u64::from(known.len) && !self.salvage() {
                        return Err(Error::corrupt(
                            storage.describe(&name(file.number)),
                            file.len,
                            format!("the data file ends here, and it had {} bytes", known.len),
                        ));
                    }
                    if matches!(known.kind, FileKind::Frozen { .. }) {
                        continue;
                    }
                    let header = FileHeader::of(storage, file.number)?;
                    // Where a checkpoint stands for it nobody reads further.
                    let is_its_own =
                        |header: FileHeader| header.number == file.number && self.is_ours(&header);
                    if !header.is_some_and(is_its_own) && !self.salvage() {
                        return Err(Error::corrupt(
                            storage.describe(&name(file.number)),
                            0,
                            "the header does not match its checksum, or is another data file's",
                        ));
                    }
                    if known.kind == FileKind::Compacted {
                        continue;
                    }
                    header
                }
                // Of the later backup, whose data don't count yet.
                None if extending => continue,
                None => {
                    // Begun after the manifest was written, if it is ours. Without a header it may
                    // still be: a crash has left it so, or it is damaged.
                    let header = FileHeader::of(storage, file.number)?;
                    let ours = header.is_some_and(|header| self.is_ours(&header));
                    let later = last_listed.is_none_or(|last| file.number > last);
                    let doomed = self.manifest.doomed.contains(&file.number) && !ours;
                    let is_leftover = match header {
                        Some(header) => self.is_leftover(&header, file.number),
                        None => !later && self.is_unfinished_leftover(file.number)?,
                    };
                    if doomed || is_leftover {
                        self.leftovers.push(file.number);
                        continue;
                    }
                    if header.is_some() && !ours && !self.salvage() {
                        return Err(Error::corrupt(
                            storage.describe(&name(file.number)),
                            0,
                            "the data file belongs to another database, or the manifest is from \
                             before the database was last taken over",
                        ));
                    }
                    let unknown = header.is_none() && self.manifest.state != State::Clean;
                    if !(later && (ours || unknown)) {
                        continue;
                    }
                    header
                }
            };
            let longest = match known {
                Some(known) if extending => u64::from(known.len),
                _ => LONGEST_FILE,
            };
            self.log_files.push(LogFile {
                number: file.number,
                len: file.len.min(longest),
                header,
            });
        }
        for missing in listed {
            self.missing(missing)?;
        }
        // Somebody else's file may stand there: then that number is left out.
        let last = self.log_files.last().map(|file| file.number);
        self.next_file = last.max(last_listed).map_or(0, |last| u32::from(last) + 1);
        Ok(())
    }

    fn is_ours(&self, header: &FileHeader) -> bool {
        header.uuid == self.manifest.uuid && header.generation == self.manifest.generation
    }

    /// Whether an unlisted data file is of an earlier generation, or of a later one, as the manifest
    /// has announced. What is under another number than its own was not left but put there.
    fn is_leftover(&self, header: &FileHeader, number: u16) -> bool {
        let Manifest {
            uuid,
            generation,
            is_compacting,
            ..
        } = self.manifest;
        // Each compaction that failed may have left some, and none has the generation of another.
        let is_later = is_compacting && header.generation > generation;
        header.uuid == uuid
            && header.number == number
            && (header.generation < generation || is_later)
    }

    /// Whether an unlisted data file before the listed ones, which has no header, is of a later
    /// generation, as the manifest has announced: one whose header never got to the disk. Behind
    /// the listed ones recovery finds that out, because there the log goes on.
    fn is_unfinished_leftover(&self, number: u16) -> Result<bool> {
        let Manifest {
            uuid,
            is_compacting,
            ..
        } = &self.manifest;
        Ok(*is_compacting && FileHeader::is_unfinished(&**self.storage, number, uuid)?)
    }

    fn missing(&self, file: &DataFile) -> Result<()> {
        if self.salvage() {
            return Ok(());
        }
        Err(Error::corrupt(
            self.storage.describe(&name(file.number)),
            0,
            format!("the data file is missing, and it had {} bytes", file.len),
        ))
    }

    /// Brings the lookup up to the end of the log.
    pub(super) fn recover(&self) -> Result<Recovered<'a>> {
        let storage = &**self.storage;
        let manifest = &self.manifest;
        let limit = self.limits().record_nr_max;
        let kind = if self.read_only || self.options.memory {
            LookupKind::Memory
        } else {
            self.options.lookup
        };
        let clean = manifest.state == State::Clean;
        let wanted = Load {
            limit,
            kind,
            table_is_clean: clean,
        };
        let found = if self.salvage() || self.entries.is_some() {
            Checkpoint::default()
        } else {
            checkpoint::load(storage, &manifest.uuid, manifest.generation, wanted)?
        };
        let mut synced = manifest.log_end();
        // It may be that of the later backup already.
        let is_this = manifest.state != State::Extending || found.log_end <= synced;
        if is_this {
            synced = synced.max(found.log_end);
        }
        let (lookup, table, state) = match found.loaded.filter(|_| is_this) {
            Some(loaded) => (loaded.lookup, loaded.made, loaded.state),
            None => {
                let (lookup, table) = checkpoint::empty(storage, kind, limit)?;
                let (live, tally) = self.load_base(&lookup)?;
                // herolib says what comes next of ids that it gives out only.
                let highest = lookup.highest().filter(|_| manifest.key_value);
                let above = highest.map_or(0, |highest| u64::from(highest) + 1);
                let state = checkpoint::State {
                    uuid: manifest.uuid,
                    generation: manifest.generation,
                    commit: self.base_commit(),
                    time_us: 0,
                    next_id: manifest.next_id.max(above),
                    live,
                    tally,
                    log_end: None,
                };
                (lookup, table, state)
            }
        };
        // The manifest's may be higher than that of the checkpoint: see `Shared::raise_next_id`.
        let mut next_id = state.next_id.max(manifest.next_id).max(1);
        let mut live = state.live;
        let mut tally = state.tally;
        let start = Start {
            from: state.log_end,
            commit: state.commit,
            time_us: state.time_us,
            synced: synced.filter(|_| !self.salvage()),
            salvage: self.salvage(),
        };
        let mut clears = manifest.clears.clone();
        let mut erasures = Vec::new();
        let apply = |records: &[Replayed]| {
            for record in records {
                tally.count(record.kind);
                if record.kind == Kind::Empty {
                    continue;
                }
                if record.kind == Kind::Clear {
                    let Replayed {
                        commit, time_us, ..
                    } = *record;
                    if clears.last().is_none_or(|last| last.commit < commit) {
                        clears.push(Clear { commit, time_us });
                    }
                    lookup.clear_unseen();
                    live = 0;
                    continue;
                }
                if record.id >= limit && self.salvage() {
                    continue;
                }
                if record.id >= limit {
                    return Err(Error::corrupt(
                        storage.describe(&name(record.location.file)),
                        u64::from(record.location.position),
                        format!("a record has id {}, and ids are below {limit}", record.id),
                    ));
                }
                if record.kind == Kind::Erase {
                    erasures.push((record.id, record.location));
                }
                let entry = Entry::of(record.kind, record.location, record.len);
                next_id = next_id.max(u64::from(record.id) + 1);
                publish(storage, &lookup, record.id, entry, &mut live)?;
            }
            Ok(())
        };
        let mut outcome =
            recovery::replay(storage, &manifest.uuid, &self.log_files, &start, apply)?;
        if clean && !self.salvage() && outcome.commit != manifest.commit {
            return Err(Error::corrupt(
                storage.describe(MANIFEST),
                64,
                format!(
                    "the log ends with commit {}, and the database was closed with commit {}",
                    outcome.commit, manifest.commit
                ),
            ));
        }
        if self.salvage() {
            // In frozen files there are versions up to this, though the log may be lost.
            outcome.commit = outcome.commit.max(manifest.commit);
        }
        outcome.time_us = outcome.time_us.max(manifest.time_us);
        Ok(Recovered {
            lookup,
            table,
            clears,
            outcome,
            next_id,
            live,
            tally,
            erasures,
        })
    }

    /// The commit before the first one of the log. Until a data file of the log is in the manifest,
    /// that is the manifest's.
    fn base_commit(&self) -> u64 {
        let files = &self.manifest.files;
        let first = self.log_files.iter().find_map(|file| file.header);
        match first.filter(|header| header.after.is_none()) {
            Some(header) => header.first_commit.saturating_sub(1),
            None if files.iter().any(|file| file.kind == FileKind::Log) => 0,
            None => self.manifest.commit,
        }
    }

    fn limits(&self) -> Limits {
        let mut limits = self.manifest.limits.with(self.options);
        limits.record_nr_max = limits.record_nr_max.max(self.manifest.limits.record_nr_max);
        limits
    }

    /// Puts what the log builds upon into an empty lookup; how many records of it are live.
    fn load_base(&self, lookup: &Lookup) -> Result<(u64, Tally)> {
        let storage = &**self.storage;
        let (mut live, mut tally) = self.load_compacted(lookup)?;
        let read;
        let entries = match (&self.entries, self.manifest.base) {
            (Some(entries), _) => entries,
            (None, None) => return Ok((live, tally)),
            (None, Some(stamp)) => {
                read = match base::read(storage, self.manifest.generation, stamp) {
                    Err(_) if self.salvage() => return Ok((live, tally)),
                    read => read?,
                };
                &read
            }
        };
        for &(id, entry) in entries {
            if id >= lookup.limit() {
                return Err(Error::corrupt(
                    storage.describe(&base::name(self.manifest.generation)),
                    0,
                    format!("id {id} is not below {}", lookup.limit()),
                ));
            }
            // Of what others wrote only the newest are known here.
            tally.count(if entry.is_live() {
                Kind::Put
            } else {
                Kind::Delete
            });
            publish(storage, lookup, id, entry, &mut live)?;
        }
        Ok((live, tally))
    }

    /// Puts what a compaction has kept into an empty lookup; how many records of it are live.
    fn load_compacted(&self, lookup: &Lookup) -> Result<(u64, Tally)> {
        let storage = &**self.storage;
        let (mut live, mut tally) = (0, Tally::default());
        for file in &self.manifest.files {
            if file.kind != FileKind::Compacted {
                continue;
            }
            let seed = Seed::new(&self.manifest.uuid, file.number);
            let reader = match Reader::sequential(storage, &name(file.number)) {
                Err(_) if self.salvage() => continue,
                reader => reader?,
            };
            let mut reader = reader.up_to(u64::from(file.len));
            let mut at = FILE_HEADER as u64;
            while at < reader.len() {
                let head = match reader.record(at, seed)? {
                    Found::Record(head) if head.id < lookup.limit() => head,
                    _ if self.salvage() => match reader.next_record(at + 1, seed)? {
                        Some(next) => {
                            at = next;
                            continue;
                        }
                        None => break,
                    },
                    Found::Record(_) => {
                        let what = "a record has an id that is not below record_nr_max";
                        return Err(Error::corrupt(
                            storage.describe(&name(file.number)),
                            at,
                            what,
                        ));
                    }
                    Found::Value(_, why) | Found::Nothing(why) => {
                        return Err(Error::corrupt(
                            storage.describe(&name(file.number)),
                            at,
                            why,
                        ));
                    }
                };
                let place = LogEnd {
                    file: file.number,
                    position: at as u32,
                };
                let entry = Entry::of(head.kind, place.location(), head.len);
                tally.count(head.kind);
                publish(storage, lookup, head.id, entry, &mut live)?;
                at += head.record_len();
            }
        }
        Ok((live, tally))
    }

    /// Removes what a compaction has left behind, which nobody reads any more. Only a failed sync is
    /// a failure: after it the kernel may not try the names of other files again either.
    fn remove_leftovers(&mut self) -> Result<()> {
        let storage = &**self.storage;
        // What can't be removed now is left to the next opening.
        for &number in &self.leftovers {
            let _ = remove_if_there(storage, &name(number));
        }
        checkpoint::remove_next(storage);
        for name in storage.list("").unwrap_or_default() {
            if base::is_base(&name) && name != base::name(self.manifest.generation) {
                let _ = remove_if_there(storage, &name);
            }
        }
        let left = doomed_files(storage, &self.manifest.doomed);
        if left == self.manifest.doomed {
            return Ok(());
        }
        // Somebody else's file may get such a number from here on.
        sync_directory(storage, "")
            .map_err(|error| Error::from_io("sync", storage.describe(""), error))?;
        self.manifest.doomed = left;
        match self.manifest.write(storage) {
            Err(error) if error.is_failed_sync() => Err(error),
            _ => Ok(()),
        }
    }

    pub(super) fn finish(mut self, lock: Option<Box<dyn Lock>>) -> Result<Db> {
        let storage = Arc::clone(self.storage);
        let recovered = self.recover()?;
        let outcome = &recovered.outcome;
        // What is refused is left as it was found: so all that can be wrong comes first.
        self.check_lengths(outcome)?;
        recovered.table.keep()?;
        // That a compaction has replaced the manifest may not be on disk yet. If it never gets there,
        // the earlier one is found, which names what is going to be removed.
        let was_open = self.manifest.state != State::Clean && !self.manifest.backup;
        let mut files = self.manifest.files.iter();
        let compacted = was_open && files.any(|file| file.kind == FileKind::Compacted);
        let replaced =
            (compacted || !self.leftovers.is_empty()) && !planted!(leftovers_removed_at_once);
        if (self.outdated || replaced) && !self.read_only {
            self.manifest.write(&*storage)?;
        }
        if !self.read_only
            && let Err(error) = self
                .remove_leftovers()
                .and_then(|()| self.settle_log(outcome))
        {
            // A sync may have failed: then what the kernel holds must be written again. If this
            // can't be noted, a short log is written again all the same.
            self.manifest.state = State::SyncFailed;
            let _ = self.manifest.write(&*storage);
            return Err(error);
        }
        let limits = self.limits();
        if limits != self.manifest.limits && !self.read_only {
            self.manifest.limits = limits;
            self.manifest.write(&*storage)?;
            self.changed = true;
        }
        let log = Log::new(
            Arc::clone(&storage),
            self.manifest.uuid,
            self.manifest.generation,
        );
        let mut tail = Tail::new(self.next_file, limits.file_size);
        self.add_segments(&log, outcome, &mut tail)?;
        let writer = Writer {
            tail,
            manifest: self.manifest.clone(),
            commit: outcome.commit,
            time_us: outcome.time_us,
            earliest_us: outcome.time_us,
            next_id: recovered.next_id,
            live: recovered.live,
            tally: recovered.tally,
            forget: VecDeque::new(),
            prepared: false,
            changed: self.changed || self.manifest.state != State::Clean,
        };
        let counters = Counters::default();
        counters.appended.store(outcome.commit, Ordering::Relaxed);
        counters.next_id.store(recovered.next_id, Ordering::Relaxed);
        counters.show(&writer.now());
        // What was recovered may not be on disk yet.
        let unsynced = outcome.has_unsynced() && self.options.sync != Sync::Commit;
        let group = GroupSync::new(outcome.commit.saturating_sub(u64::from(unsynced)));
        let base = Stamp {
            commit: self.base_commit(),
            time_us: self.manifest.base_time_us,
        };
        let oldest = self.manifest.oldest;
        let world = World::new(log, recovered.lookup, &recovered.clears, base, oldest);
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
            is_compacting: AtomicBool::new(false),
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

    /// Leaves on disk the log that was read, and nothing else: cuts what lies behind its end, and
    /// syncs it, so that it may be built upon.
    fn settle_log(&mut self, outcome: &Outcome) -> Result<()> {
        let storage = &**self.storage;
        let behind_end = outcome.end.is_some_and(|end| {
            self.log_files
                .iter()
                .any(|file| file.number == end.file && file.len > u64::from(end.position))
        });
        self.cut_reserved(outcome)?;
        if outcome.torn || behind_end || !outcome.unfinished.is_empty() {
            recovery::cut(storage, &self.log_files, outcome)?;
            for file in &mut self.log_files {
                if let Some(end) = outcome.end.filter(|end| end.file == file.number) {
                    file.len = u64::from(end.position);
                }
            }
        }
        self.log_files.retain(|file| {
            !outcome.behind.contains(&file.number) && !outcome.unfinished.contains(&file.number)
        });
        let Some(end) = outcome.end.filter(|_| outcome.has_unsynced()) else {
            return Ok(());
        };
        let failed = |name: &str, error| Error::from_io("sync", storage.describe(name), error);
        let unsynced = self.unsynced_files(outcome);
        let total: u64 = unsynced.iter().map(|(_, from, to)| to - from).sum();
        let again = total <= LONGEST_REWRITE || self.manifest.state == State::SyncFailed;
        for (file, from, to) in unsynced {
            if again && !planted!(not_written_again) {
                recovery::rewrite(storage, file, from, to)?;
            }
            // The last one is synced with what is going to be appended to it, unless whatever
            // readers see must be on disk.
            if (file.number != end.file || self.options.sync == Sync::Commit)
                && !planted!(recovered_log_not_synced)
            {
                let name = name(file.number);
                storage
                    .open(&name, Access::Write)
                    .and_then(|file| file.sync())
                    .map_err(|error| failed(&name, error))?;
            }
        }
        storage
            .sync_directory("")
            .map_err(|error| failed("", error))
    }

    /// Gives back the space that was reserved in data files before the last one: a loss of power may
    /// have undone the cut that a roll-over makes. After a clean close it would look as if somebody
    /// had appended to them.
    fn cut_reserved(&mut self, outcome: &Outcome) -> Result<()> {
        let storage = &**self.storage;
        for index in 0..self.log_files.len() {
            let LogFile { number, len, .. } = self.log_files[index];
            let is_last = outcome.end.is_none_or(|end| end.file <= number);
            let Some(end) = self.log_end_of(index, outcome) else {
                continue;
            };
            if is_last || end >= len {
                continue;
            }
            let name = name(number);
            let written = Reader::sequential(storage, &name)?.end_of_zeros(end)?;
            if written < len {
                // Not what is ours to cut.
                continue;
            }
            let cut = || {
                let file = storage.open(&name, Access::Write)?;
                file.set_len(end)?;
                file.sync().map_err(FailedSync::mark)
            };
            cut().map_err(|error| Error::from_io("cut", storage.describe(&name), error))?;
            self.log_files[index].len = end;
        }
        Ok(())
    }

    /// The parts of the log that may not be on disk: data file, from, to.
    fn unsynced_files(&self, outcome: &Outcome) -> Vec<(&LogFile, u64, u64)> {
        let Some(end) = outcome.end else {
            return Vec::new();
        };
        let synced = outcome.synced.unwrap_or_default();
        let files = self.log_files.iter().filter(|file| {
            file.header.is_some() && synced.file <= file.number && file.number <= end.file
        });
        files
            .map(|file| {
                let from = if file.number == synced.file {
                    synced.position
                } else {
                    0
                };
                let to = if file.number == end.file {
                    u64::from(end.position)
                } else {
                    file.len
                };
                (file, u64::from(from).min(to), to)
            })
            .collect()
    }

    /// Where the log ends in a data file that has a part of it.
    pub(super) fn log_end_of(&self, index: usize, outcome: &Outcome) -> Option<u64> {
        let file = &self.log_files[index];
        let end = outcome.end?;
        if end.file < file.number || file.header.is_none() {
            return None;
        }
        if end.file == file.number {
            return Some(u64::from(end.position));
        }
        let mut later = self.log_files[index + 1..].iter();
        let next = later.find_map(|next| next.header.filter(|_| next.number <= end.file));
        let after = next.and_then(|header| header.after);
        let after = after.filter(|after| after.file == file.number);
        Some(after.map_or(file.len, |after| u64::from(after.position)))
    }

    /// Refuses a data file that is shorter than the log in it. Those before the checkpoint are not
    /// read.
    fn check_lengths(&self, outcome: &Outcome) -> Result<()> {
        if self.salvage() {
            return Ok(());
        }
        let storage = &**self.storage;
        for (index, file) in self.log_files.iter().enumerate() {
            if let Some(end) = self
                .log_end_of(index, outcome)
                .filter(|&end| end > file.len)
            {
                return Err(Error::corrupt(
                    storage.describe(&name(file.number)),
                    file.len,
                    format!("the data file ends here, and its log had {end} bytes"),
                ));
            }
        }
        Ok(())
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
            let opened = open(file.number, access)?;
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

/// Those of the data files that are to be removed which are there still.
pub(super) fn doomed_files(storage: &dyn Storage, doomed: &[u16]) -> Vec<u16> {
    let is_gone = |number: u16| match storage.open(&name(number), Access::Read) {
        Ok(_) => false,
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    };
    let doomed = doomed.iter().copied();
    doomed.filter(|&number| !is_gone(number)).collect()
}

/// Puts an entry into a lookup that nobody reads yet, and counts the live ones.
pub(super) fn publish(
    storage: &dyn Storage,
    lookup: &Lookup,
    id: u32,
    entry: Entry,
    live: &mut u64,
) -> Result<()> {
    *live += u64::from(entry.is_live());
    *live -= u64::from(lookup.get(id).is_live());
    lookup.prepare(id).map_err(|error| {
        Error::from_io(
            "reserve space in",
            storage.describe(checkpoint::TABLE),
            error,
        )
    })?;
    lookup.publish(id, entry);
    if !entry.is_live() {
        lookup.forget(id);
    }
    Ok(())
}
