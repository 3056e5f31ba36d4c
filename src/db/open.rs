//! Opening: find out what is in the directory, take it over or make it, and bring the lookup up
//! to the end of the log.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use super::close::{LOCK, remove_files};
use super::sync::{GroupSync, Ticker};
use super::write::Writer;
use super::{Counters, Db, Shared};
use crate::base;
use crate::error::{Error, NotFound, Result};
use crate::herolib::{self, Presence};
use crate::log::Log;
use crate::log::record::{HEAD, Head, Kind};
use crate::log::recovery::{self, LogFile, Outcome, Replayed, Start};
use crate::log::segment::{FileHeader, LONGEST_FILE, LogEnd, Segment, name};
use crate::log::tail::Tail;
use crate::lookup::checkpoint::{self, Load};
use crate::lookup::{Entry, Lookup};
use crate::manifest::{DataFile, FileKind, KnownDump, MANIFEST, Manifest, State};
use crate::options::{Limits, LookupKind, Options, Sync};
use crate::storage::memory::MemoryStorage;
use crate::storage::os::OsStorage;
use crate::storage::{Access, Lock, Storage, fork};

/// A database that is opened for reading while a writer is at work may be read in the middle of a
/// change; then it is read again, so many times at most.
const MOST_ATTEMPTS: u32 = 10;

/// After the death of a writer the part of the log that was perhaps not synced is written again,
/// if it isn't longer than this; for why, see [`recovery::rewrite`]. A longer one is when the
/// manifest says that a sync has failed.
const LONGEST_REWRITE: u64 = 64 << 20;

/// Stands in the manifest of a database that is being reset and whose own could not be read.
const UNKNOWN: [u8; 16] = [0; 16];

/// What a directory holds.
enum Found {
    /// No database, or nothing at all.
    Nothing,
    Database(Box<Manifest>),
    /// A directory of herolib's, with or without a lookup dump.
    Herolib { dump: bool },
}

impl Db {
    /// Opens or makes the database in directory `path`, which is ignored with
    /// [`Options::memory`].
    pub fn open(path: impl AsRef<Path>, options: &Options) -> Result<Db> {
        let path = path.as_ref();
        if options.memory {
            return Db::open_on(Arc::new(MemoryStorage::new()), options);
        }
        if path.as_os_str().is_empty() {
            return Err(Error::invalid("the path is empty"));
        }
        // The process may change its working directory while the database is open.
        let absolute = std::path::absolute(path)
            .map_err(|error| Error::from_io("find", path.to_string_lossy(), error))?;
        Db::open_on(Arc::new(OsStorage::new(absolute, options.io)), options)
    }

    /// Opens or makes the database in a storage.
    pub fn open_on(storage: Arc<dyn Storage>, options: &Options) -> Result<Db> {
        options.validate()?;
        fork::watch();
        if options.read_only || options.salvage {
            return open_for_reading(&storage, options);
        }
        // What is going to be refused is refused before anything is touched.
        match look(&*storage) {
            // A reset doesn't care what there was, damaged or not, but whether there was.
            Err(_) if options.reset => {}
            Ok(found) if options.reset && !matches!(found, Found::Nothing) => {}
            found => drop(admit(&*storage, found?, options)?),
        }
        let at_root = |action| {
            let storage = &storage;
            move |error| Error::from_io(action, storage.describe(""), error)
        };
        storage.create_root().map_err(at_root("make directory"))?;
        let lock = storage
            .lock(LOCK)
            .map_err(at_root("lock"))?
            .ok_or_else(|| Error::Locked { path: storage.describe(LOCK) })?;
        if options.reset {
            reset(&*storage)?;
        }
        let manifest = match admit(&*storage, look(&*storage)?, options)? {
            Found::Database(manifest) if manifest.state == State::Resetting => {
                let known = manifest.uuid != UNKNOWN;
                remove_files(&*storage, known.then_some(&*manifest))?;
                None
            }
            Found::Database(manifest) => Some(*manifest),
            Found::Herolib { dump } => Some(adopt(&*storage, options, dump)?.write_new(&*storage)?),
            Found::Nothing => None,
        };
        let manifest = match manifest {
            Some(manifest) => manifest,
            None => {
                let limits = Limits::DEFAULT.with(options);
                let uuid = storage.random().map_err(at_root("get random bytes for"))?;
                let manifest = Manifest::new(uuid, options.key_value, options.native, limits);
                manifest.write(&*storage)?;
                manifest
            }
        };
        Opening::new(&storage, options, manifest)?.finish(Some(lock))
    }
}

/// Looks into a directory, without changing anything.
fn look(storage: &dyn Storage) -> Result<Found> {
    if let Some(manifest) = Manifest::read(storage)? {
        return Ok(Found::Database(Box::new(manifest)));
    }
    let dump = match herolib::presence(storage)? {
        Presence::Nothing => return Ok(Found::Nothing),
        Presence::DataFiles => false,
        Presence::Dump { .. } => true,
    };
    for file in herolib::data_files(storage)? {
        let name = name(file.number);
        let header = storage
            .open(&name, Access::Read)
            .and_then(|file| FileHeader::read(&*file))
            .map_err(|error| Error::from_io("read", storage.describe(&name), error))?;
        if header.is_some() {
            return Err(Error::corrupt(
                storage.describe(MANIFEST),
                0,
                format!("the manifest is missing, and {name} belongs to a database"),
            ));
        }
    }
    Ok(Found::Herolib { dump })
}

/// Refuses what `options` don't allow to open.
fn admit(storage: &dyn Storage, found: Found, options: &Options) -> Result<Found> {
    match &found {
        Found::Nothing if options.must_exist || options.read_only || options.salvage => {
            Err(Error::NotFound(NotFound::Database(storage.describe(""))))
        }
        Found::Database(manifest) if manifest.state == State::Resetting => {
            if options.read_only || options.salvage {
                return Err(Error::NotFound(NotFound::Database(storage.describe(""))));
            }
            Ok(found)
        }
        Found::Database(manifest) => {
            if options.key_value && !manifest.key_value {
                return Err(not_key_value(storage));
            }
            let stored = manifest.limits.record_nr_max;
            if options.record_nr_max != 0 && options.record_nr_max < stored {
                return Err(Error::incompatible(format!(
                    "record_nr_max {} is lower than the {stored} that {} has stored",
                    options.record_nr_max,
                    storage.describe("")
                )));
            }
            Ok(found)
        }
        Found::Herolib { dump: false } if !options.adopt => Err(herolib::not_adopted(storage)),
        Found::Herolib { dump: false } if options.key_value => Err(herolib::ids_unknown(storage)),
        Found::Nothing | Found::Herolib { .. } => Ok(found),
    }
}

fn not_key_value(storage: &dyn Storage) -> Error {
    Error::incompatible(format!(
        "{} is incremental, and key-value mode was asked for",
        storage.describe("")
    ))
}

/// Removes a database, such that a crash on the way leaves it removed or to be removed.
fn reset(storage: &dyn Storage) -> Result<()> {
    // A manifest that can't be read doesn't stand in the way: its files go by their names then.
    let old = Manifest::read(storage).ok().flatten();
    let mut marker = old.clone().unwrap_or_else(|| {
        Manifest::new(UNKNOWN, false, false, Limits::DEFAULT)
    });
    if old.is_none() && matches!(herolib::presence(storage)?, Presence::Nothing) {
        return Ok(());
    }
    marker.state = State::Resetting;
    marker.write(storage)?;
    remove_files(storage, old.as_ref())?;
    crate::storage::remove_if_there(storage, MANIFEST)
        .and_then(|_| storage.sync_directory(""))
        .map_err(|error| Error::from_io("remove", storage.describe(MANIFEST), error))
}

fn open_for_reading(storage: &Arc<dyn Storage>, options: &Options) -> Result<Db> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        let result = try_open_for_reading(storage, options);
        let again = match &result {
            Err(Error::Corrupt { .. } | Error::Io { .. }) => {
                attempt < MOST_ATTEMPTS && storage.is_locked(LOCK).unwrap_or(false)
            }
            Ok(None) => attempt < MOST_ATTEMPTS,
            _ => false,
        };
        if !again {
            return match result? {
                Some(db) => Ok(db),
                None => Err(Error::from_io(
                    "read",
                    storage.describe(MANIFEST),
                    std::io::ErrorKind::WouldBlock.into(),
                )),
            };
        }
        std::thread::sleep(Duration::from_millis(u64::from(attempt)));
    }
}

/// `None`: the database was changed while it was read.
fn try_open_for_reading(storage: &Arc<dyn Storage>, options: &Options) -> Result<Option<Db>> {
    match admit(&**storage, look(&**storage)?, options)? {
        Found::Herolib { dump } => {
            let Adoption { manifest, entries } = adopt(&**storage, options, dump)?;
            let opening = Opening::over(storage, options, manifest, Some(entries))?;
            opening.finish(None).map(Some)
        }
        Found::Database(manifest) => {
            let before = (*manifest).clone();
            let db = Opening::new(storage, options, *manifest)?.finish(None)?;
            // A writer that has begun since may have changed the table on disk under us.
            let unchanged = before.state != State::Clean
                || Manifest::read(&**storage)?.is_some_and(|now| now == before);
            Ok(unchanged.then_some(db))
        }
        Found::Nothing => Err(Error::NotFound(NotFound::Database(storage.describe("")))),
    }
}

/// A directory that is being taken over: what its manifest will be, and the lookup to begin with.
struct Adoption {
    manifest: Manifest,
    entries: Vec<(u32, Entry)>,
}

impl Adoption {
    /// Makes it durable: the base first, then the manifest that names it.
    fn write_new(mut self, storage: &dyn Storage) -> Result<Manifest> {
        self.manifest.base = Some(base::write(storage, &self.entries)?);
        self.manifest.write(storage)?;
        Ok(self.manifest)
    }
}

/// Takes over a directory of herolib's.
fn adopt(storage: &dyn Storage, options: &Options, dump: bool) -> Result<Adoption> {
    let adopted = if dump {
        let hints = (options.record_nr_max != 0 && options.record_size_max != 0)
            .then_some((options.record_nr_max, options.record_size_max));
        herolib::read_dump(storage, hints)?
    } else {
        herolib::reconstruct(storage, options.salvage)?
    };
    let key_value = adopted.next_id.is_none();
    if options.key_value && !key_value {
        return Err(not_key_value(storage));
    }
    let needed = adopted.record_nr_max;
    if options.record_nr_max != 0 && options.record_nr_max < needed {
        return Err(Error::incompatible(format!(
            "record_nr_max {} is too low for {}, whose ids need {needed}",
            options.record_nr_max,
            storage.describe("")
        )));
    }
    let mut limits = Limits::DEFAULT.with(options);
    limits.record_nr_max = limits.record_nr_max.max(needed);
    let uuid = storage
        .random()
        .map_err(|error| Error::from_io("get random bytes for", storage.describe(""), error))?;
    let mut manifest = Manifest::new(uuid, key_value, options.native, limits);
    manifest.next_id = u64::from(adopted.next_id.unwrap_or(1));
    for file in &adopted.files {
        manifest.files.push(DataFile {
            number: file.number,
            kind: FileKind::Frozen { own_until: 0 },
            len: frozen_len(storage, file)?,
        });
    }
    manifest.dump = known_dump(storage)?;
    Ok(Adoption { manifest, entries: entries_of(adopted)? })
}

fn frozen_len(storage: &dyn Storage, file: &herolib::DataFile) -> Result<u32> {
    u32::try_from(file.len).map_err(|_| {
        Error::incompatible(format!(
            "{} has {} bytes, and a data file can have {LONGEST_FILE}",
            storage.describe(&name(file.number)),
            file.len
        ))
    })
}

fn entries_of(adopted: herolib::Adopted) -> Result<Vec<(u32, Entry)>> {
    // How long the values are is known only after reading them; the hint is but a hint.
    adopted.entries().map(|entry| entry.map(|(id, place)| (id, Entry::live(place, 0)))).collect()
}

fn known_dump(storage: &dyn Storage) -> Result<Option<KnownDump>> {
    let Some(stamp) = herolib::stamp(storage)? else { return Ok(None) };
    Ok(Some(KnownDump { stamp, modified_ns: herolib::dump_modified_ns(storage)? }))
}

/// Who wrote to a cleanly closed database behind our back.
enum Foreign {
    Nobody,
    /// We did: the manifest is older than the log.
    Ourselves,
    /// Somebody who appended to data files and left the dump alone.
    Appended,
    /// herolib, which has written a dump of its own.
    Herolib,
}

/// A database on its way to being open.
struct Opening<'a> {
    storage: &'a Arc<dyn Storage>,
    options: &'a Options,
    read_only: bool,
    manifest: Manifest,
    /// The lookup to begin with, where it doesn't come from a file.
    entries: Option<Vec<(u32, Entry)>>,
    /// The data files of the log, ascending.
    log_files: Vec<LogFile>,
    /// The number for the next data file.
    next_file: u32,
    /// Whether a clean close will have something to write.
    changed: bool,
}

/// The lookup at the end of the log, and the counters with it.
struct Recovered {
    lookup: Lookup,
    outcome: Outcome,
    next_id: u64,
    live: u64,
}

impl<'a> Opening<'a> {
    fn new(
        storage: &'a Arc<dyn Storage>,
        options: &'a Options,
        manifest: Manifest,
    ) -> Result<Opening<'a>> {
        Opening::over(storage, options, manifest, None)
    }

    fn over(
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
        };
        opening.find_log_files()?;
        opening.settle_foreign_changes()?;
        Ok(opening)
    }

    fn salvage(&self) -> bool {
        self.options.salvage
    }

    /// Checks that the data files of the manifest are there, and finds those that were begun
    /// since it was written.
    fn find_log_files(&mut self) -> Result<()> {
        let storage = &**self.storage;
        let present = herolib::data_files(storage)?;
        let read_header = |number: u16| {
            let name = name(number);
            storage
                .open(&name, Access::Read)
                .and_then(|file| FileHeader::read(&*file))
                .map_err(|error| Error::from_io("read", storage.describe(&name), error))
        };
        self.next_file = present.last().map_or(0, |last| u32::from(last.number) + 1);
        self.log_files.clear();
        let mut listed = self.manifest.files.iter().peekable();
        let last_listed = self.manifest.files.last().map(|file| file.number);
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
                    if known.kind != FileKind::Log {
                        continue;
                    }
                    read_header(file.number)?
                }
                None => {
                    // Begun after the manifest was written, if it is ours. Without a header it may
                    // still be: a crash has left it so, or it is damaged.
                    let header = read_header(file.number)?;
                    let ours = header.is_some_and(|header| {
                        header.uuid == self.manifest.uuid
                            && header.generation == self.manifest.generation
                    });
                    let unknown = header.is_none() && self.manifest.state != State::Clean;
                    let later = last_listed.is_none_or(|last| file.number > last);
                    if !(later && (ours || unknown)) {
                        continue;
                    }
                    header
                }
            };
            self.log_files.push(LogFile {
                number: file.number,
                len: file.len.min(LONGEST_FILE),
                header,
            });
        }
        for missing in listed {
            self.missing(missing)?;
        }
        Ok(())
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

    /// After a clean close nothing may have changed. What did was written by somebody else:
    /// then his dump is the truth for current values, our data files are left as they are, and
    /// the log goes on in a new one.
    fn settle_foreign_changes(&mut self) -> Result<()> {
        if self.manifest.state != State::Clean || self.salvage() || self.entries.is_some() {
            return Ok(());
        }
        let storage = &**self.storage;
        let dump = match self.foreign_changes()? {
            Foreign::Nobody => return Ok(()),
            Foreign::Ourselves => {
                self.manifest.state = State::Open;
                if !self.read_only {
                    self.manifest.write(storage)?;
                }
                return Ok(());
            }
            Foreign::Appended => None,
            Foreign::Herolib => {
                let limits = self.manifest.limits;
                let hints = Some((limits.record_nr_max, limits.record_size_max));
                Some(herolib::read_dump(storage, hints)?)
            }
        };
        // The log as it was closed: what was appended since is none of ours.
        self.log_files.retain_mut(|file| {
            let known = self.manifest.files.iter().find(|known| known.number == file.number);
            file.len = known.map_or(0, |known| u64::from(known.len));
            known.is_some()
        });
        let before = self.recover();
        let mut manifest = self.manifest.clone();
        let entries = match dump {
            None => before?.lookup.entries().collect(),
            Some(adopted) => {
                if adopted.next_id.is_none() != manifest.key_value {
                    return Err(Error::incompatible(format!(
                        "herolib wrote to {} in the other mode (incremental or key-value)",
                        storage.describe("")
                    )));
                }
                let next_id = u64::from(adopted.next_id.unwrap_or(1));
                manifest.next_id = manifest.next_id.max(next_id);
                let limit = &mut manifest.limits.record_nr_max;
                *limit = (*limit).max(adopted.record_nr_max);
                let mut entries = entries_of(adopted)?;
                // Our deletions are not in the dump, and their history is still there. If the log
                // can't be read any more, herolib having zeroed records in it, only that is lost.
                if let Ok(before) = before {
                    let lookup = before.lookup;
                    let deleted = lookup.entries().filter(|(id, entry)| {
                        !entry.is_live() && entries.binary_search_by_key(id, |e| e.0).is_err()
                    });
                    let deleted: Vec<_> = deleted.collect();
                    entries.extend(deleted);
                    entries.sort_unstable_by_key(|&(id, _)| id);
                }
                entries
            }
        };
        let old = std::mem::take(&mut manifest.files);
        for file in herolib::data_files(storage)? {
            let known = old.iter().find(|known| known.number == file.number);
            let own_until = match known.map(|known| (known.kind, known.len)) {
                None => 0,
                Some((FileKind::Frozen { own_until }, _)) => own_until,
                Some((FileKind::Log, len)) => len,
            };
            let kind = FileKind::Frozen { own_until };
            let len = frozen_len(storage, &file)?;
            manifest.files.push(DataFile { number: file.number, kind, len });
        }
        // The checkpoint belongs to the generation before.
        manifest.generation += 1;
        manifest.dump = known_dump(storage)?;
        let adoption = Adoption { manifest, entries };
        if self.read_only {
            self.manifest = adoption.manifest;
            self.entries = Some(adoption.entries);
        } else {
            self.manifest = adoption.write_new(storage)?;
        }
        self.changed = true;
        self.find_log_files()
    }

    fn foreign_changes(&self) -> Result<Foreign> {
        let storage = &**self.storage;
        let manifest = &self.manifest;
        let listed = |number| manifest.files.iter().find(|known| known.number == number);
        if self.log_files.iter().any(|file| listed(file.number).is_none()) {
            return Ok(Foreign::Ourselves);
        }
        let mut appended = false;
        for file in herolib::data_files(storage)? {
            let Some(known) = listed(file.number) else { continue };
            if file.len == u64::from(known.len) {
                continue;
            }
            if known.kind == FileKind::Log
                && has_record_at(storage, &manifest.uuid, file.number, known.len)?
            {
                return Ok(Foreign::Ourselves);
            }
            appended = true;
        }
        if let Some(known) = manifest.dump {
            let modified_ns = herolib::dump_modified_ns(storage)?;
            let touched = modified_ns == 0 || modified_ns != known.modified_ns;
            if touched && herolib::stamp(storage)?.is_some_and(|stamp| stamp != known.stamp) {
                return Ok(Foreign::Herolib);
            }
        } else if !manifest.native
            && !manifest.files.is_empty()
            && matches!(herolib::presence(storage)?, Presence::Dump { .. })
        {
            return Ok(Foreign::Herolib);
        }
        Ok(if appended { Foreign::Appended } else { Foreign::Nobody })
    }

    /// Brings the lookup up to the end of the log.
    fn recover(&self) -> Result<Recovered> {
        let storage = &**self.storage;
        let manifest = &self.manifest;
        let limit = self.limits().record_nr_max;
        let kind = if self.read_only { LookupKind::Memory } else { self.options.lookup };
        let clean = manifest.state == State::Clean;
        let wanted = Load { limit, kind, table_is_clean: clean };
        let checkpoint = if self.salvage() || self.entries.is_some() {
            None
        } else {
            checkpoint::load(storage, &manifest.uuid, manifest.generation, wanted)?
        };
        let last_of_manifest = manifest.files.iter().rfind(|file| file.kind == FileKind::Log);
        let mut synced = last_of_manifest
            .map(|file| LogEnd { file: file.number, position: file.len });
        let (lookup, state) = match checkpoint {
            Some((lookup, state)) => {
                synced = synced.max(state.log_end);
                (lookup, state)
            }
            None => {
                let lookup = match kind {
                    LookupKind::Memory => Lookup::in_memory(limit)?,
                    LookupKind::Disk => checkpoint::new_table(storage, limit)?,
                };
                let live = self.load_base(&lookup)?;
                let first = self.log_files.first().and_then(|file| file.header);
                let state = checkpoint::State {
                    uuid: manifest.uuid,
                    generation: manifest.generation,
                    // The commit before the first one of the log; all of them if there is none.
                    commit: match (self.log_files.is_empty(), first) {
                        (false, Some(header)) => header.first_commit.saturating_sub(1),
                        (false, None) => 0,
                        (true, _) => manifest.commit,
                    },
                    time_us: 0,
                    next_id: manifest.next_id,
                    live,
                    log_end: None,
                };
                (lookup, state)
            }
        };
        let mut next_id = state.next_id.max(1);
        let mut live = state.live;
        let start = Start {
            from: state.log_end,
            commit: state.commit,
            time_us: state.time_us,
            synced: synced.filter(|_| !self.salvage()),
            salvage: self.salvage(),
        };
        let apply = |records: &[Replayed]| {
            for record in records {
                if record.id >= limit {
                    return Err(Error::corrupt(
                        storage.describe(&name(record.location.file)),
                        u64::from(record.location.position),
                        format!("a record has id {}, and ids are below {limit}", record.id),
                    ));
                }
                let entry = match record.kind {
                    Kind::Put => Entry::live(record.location, record.len as usize),
                    _ => Entry::deleted(record.location),
                };
                live += u64::from(entry.is_live());
                live -= u64::from(lookup.get(record.id).is_live());
                next_id = next_id.max(u64::from(record.id) + 1);
                publish(storage, &lookup, record.id, entry)?;
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
        outcome.time_us = outcome.time_us.max(manifest.time_us);
        Ok(Recovered { lookup, outcome, next_id, live })
    }

    fn limits(&self) -> Limits {
        let mut limits = self.manifest.limits.with(self.options);
        limits.record_nr_max = limits.record_nr_max.max(self.manifest.limits.record_nr_max);
        limits
    }

    /// Puts what the log builds upon into an empty lookup; how many records of it are live.
    fn load_base(&self, lookup: &Lookup) -> Result<u64> {
        let storage = &**self.storage;
        let read;
        let entries = match (&self.entries, self.manifest.base) {
            (Some(entries), _) => entries,
            (None, None) => return Ok(0),
            (None, Some(stamp)) => {
                read = base::read(storage, stamp)?;
                &read
            }
        };
        let mut live = 0;
        for &(id, entry) in entries {
            if id >= lookup.limit() {
                return Err(Error::corrupt(
                    storage.describe(base::BASE),
                    0,
                    format!("id {id} is not below {}", lookup.limit()),
                ));
            }
            live += u64::from(entry.is_live());
            publish(storage, lookup, id, entry)?;
        }
        Ok(live)
    }

    fn finish(mut self, lock: Option<Box<dyn Lock>>) -> Result<Db> {
        let storage = Arc::clone(self.storage);
        let recovered = self.recover()?;
        let outcome = &recovered.outcome;
        if !self.read_only {
            self.settle_log(outcome)?;
        }
        let limits = self.limits();
        if limits != self.manifest.limits && !self.read_only {
            self.manifest.limits = limits;
            self.manifest.write(&*storage)?;
            self.changed = true;
        }
        let log = Log::new(Arc::clone(&storage), self.manifest.uuid, self.manifest.generation);
        let mut tail = Tail::new(self.next_file, limits.file_size);
        self.add_segments(&log, outcome, &mut tail)?;
        let writer = Writer {
            tail,
            manifest: self.manifest.clone(),
            commit: outcome.commit,
            time_us: outcome.time_us,
            next_id: recovered.next_id,
            live: recovered.live,
            forget: VecDeque::new(),
            changed: self.changed || outcome.read > 0 || outcome.has_unsynced(),
        };
        let counters = Counters::default();
        counters.appended.store(outcome.commit, Ordering::Relaxed);
        counters.visible.store(outcome.commit, Ordering::Relaxed);
        counters.live.store(recovered.live, Ordering::Relaxed);
        counters.next_id.store(recovered.next_id, Ordering::Relaxed);
        // What was recovered may not be on disk yet.
        let unsynced = outcome.has_unsynced() && self.options.sync != Sync::Commit;
        let group = GroupSync::new(outcome.commit.saturating_sub(u64::from(unsynced)));
        let shared = Arc::new(Shared {
            log,
            lookup: recovered.lookup,
            key_value: self.manifest.key_value,
            read_only: self.read_only,
            volatile: self.options.memory,
            limits,
            sync: self.options.sync,
            fork_generation: fork::generation(),
            counters,
            writer: Mutex::new(writer),
            group,
            poisoned: OnceLock::new(),
            _lock: lock,
        });
        let ticker = match self.options.sync {
            Sync::Interval(milliseconds) if !self.read_only => {
                Some(Ticker::start(&shared, Duration::from_millis(u64::from(milliseconds)))?)
            }
            _ => None,
        };
        Ok(Db { shared, ticker })
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
        let Some(end) = outcome.end.filter(|_| outcome.has_unsynced()) else { return Ok(()) };
        let failed = |name: &str, error| Error::from_io("sync", storage.describe(name), error);
        let unsynced = self.unsynced_files(outcome);
        let total: u64 = unsynced.iter().map(|(_, from, to)| to - from).sum();
        let again = total <= LONGEST_REWRITE || self.manifest.state == State::SyncFailed;
        for (file, from, to) in unsynced {
            if again {
                recovery::rewrite(storage, file, from, to)?;
            }
            // The last one is synced with what is going to be appended to it, unless whatever
            // readers see must be on disk.
            if file.number != end.file || self.options.sync == Sync::Commit {
                let name = name(file.number);
                storage
                    .open(&name, Access::Write)
                    .and_then(|file| file.sync())
                    .map_err(|error| failed(&name, error))?;
            }
        }
        storage.sync_directory("").map_err(|error| failed("", error))
    }

    /// The parts of the log that may not be on disk: data file, from, to.
    fn unsynced_files(&self, outcome: &Outcome) -> Vec<(&LogFile, u64, u64)> {
        let Some(end) = outcome.end else { return Vec::new() };
        let synced = outcome.synced.unwrap_or_default();
        let files = self.log_files.iter().filter(|file| {
            file.header.is_some() && synced.file <= file.number && file.number <= end.file
        });
        files
            .map(|file| {
                let from = if file.number == synced.file { synced.position } else { 0 };
                let to = if file.number == end.file { u64::from(end.position) } else { file.len };
                (file, u64::from(from).min(to), to)
            })
            .collect()
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
        for file in &self.manifest.files {
            let FileKind::Frozen { own_until } = file.kind else { continue };
            let opened = match open(file.number, Access::Read) {
                Err(_) if self.salvage() => continue,
                opened => opened?,
            };
            let view = opened.view(u64::from(file.len));
            view.extend_to(u64::from(file.len));
            let own_until = u64::from(own_until);
            log.add(Segment::mixed(file.number, &log.uuid, own_until, view, log.open_files()));
        }
        for (index, file) in self.log_files.iter().enumerate() {
            let next = self.log_files[index + 1..].iter().find_map(|next| next.header);
            let end = match (outcome.end, next.and_then(|header| header.after)) {
                (Some(end), _) if end.file < file.number => continue,
                (None, _) => continue,
                _ if file.header.is_none() => continue,
                (Some(end), _) if end.file == file.number => u64::from(end.position),
                (_, Some(after)) if after.file == file.number => u64::from(after.position),
                _ => file.len,
            };
            if end > file.len && !self.salvage() {
                return Err(Error::corrupt(
                    storage.describe(&name(file.number)),
                    file.len,
                    format!("the data file ends here, and its log had {end} bytes"),
                ));
            }
            let end = end.min(file.len);
            let active = outcome.end.is_some_and(|end| end.file == file.number) && !self.read_only;
            let access = if active { Access::Write } else { Access::Read };
            let opened = open(file.number, access)?;
            let view = opened.view(if active { LONGEST_FILE + 1 } else { end });
            view.extend_to(end);
            let segment =
                log.add(Segment::own(file.number, &log.uuid, view, log.open_files()));
            if active {
                tail.resume(segment, opened, end, outcome.has_unsynced());
            }
        }
        Ok(())
    }
}

fn publish(storage: &dyn Storage, lookup: &Lookup, id: u32, entry: Entry) -> Result<()> {
    lookup.prepare(id).map_err(|error| {
        Error::from_io("reserve space in", storage.describe(checkpoint::TABLE), error)
    })?;
    lookup.publish(id, entry);
    if !entry.is_live() {
        lookup.forget(id);
    }
    Ok(())
}

/// Whether a record of ours begins at `position` of a data file.
fn has_record_at(
    storage: &dyn Storage,
    uuid: &[u8; 16],
    number: u16,
    position: u32,
) -> Result<bool> {
    let name = name(number);
    let mut bytes = [0u8; HEAD];
    let read = storage
        .open(&name, Access::Read)
        .and_then(|file| file.read_at(u64::from(position), &mut bytes));
    match read {
        Ok(()) => {
            let seed = crate::log::record::Seed::new(uuid, number);
            Ok(Head::verify(&bytes, seed, position).is_some())
        }
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(Error::from_io("read", storage.describe(&name), error)),
    }
}
