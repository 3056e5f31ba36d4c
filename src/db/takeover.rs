//! Taking over what others wrote: a directory of herolib's, or one of ours that herolib, or
//! somebody else, has written to since we closed it.
//!
//! What they left is never changed. Their data files, and ours up to then, are frozen: versions
//! are found in them through the `base`, the lookup as it was taken over, and through chains; the
//! log goes on in a new file.

use super::opening::Opening;
use crate::base;
use crate::error::{Error, Result};
use crate::herolib::{self, Presence};
use crate::log::record::{HEAD, Head, Seed};
use crate::log::recovery::{self, Start};
use crate::log::segment::{LONGEST_FILE, name};
use crate::lookup::checkpoint::INDEX;
use crate::lookup::{Entry, Lookup};
use crate::manifest::{DataFile, FileKind, KnownDump, Manifest, State, next_generation};
use crate::options::{Limits, Options};
use crate::storage::{Access, Storage, remove_if_there};

/// A directory that is being taken over: what its manifest will be, and the lookup to begin with.
pub(super) struct Adoption {
    pub(super) manifest: Manifest,
    pub(super) entries: Vec<(u32, Entry)>,
}

impl Adoption {
    /// Makes it durable: the base first, then the manifest that names it.
    pub(super) fn write_new(mut self, storage: &dyn Storage) -> Result<Manifest> {
        self.manifest.base = Some(base::write(
            storage,
            self.manifest.generation,
            &self.entries,
        )?);
        // Should the manifest be an old one that was put back, there may be a checkpoint of what
        // is now another generation of that number.
        remove_if_there(storage, INDEX)
            .map_err(|error| Error::from_io("remove", storage.describe(INDEX), error))?;
        self.manifest.write(storage)?;
        Ok(self.manifest)
    }
}

/// Takes over a directory of herolib's.
pub(super) fn adopt(storage: &dyn Storage, options: &Options, dump: bool) -> Result<Adoption> {
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
    Ok(Adoption {
        manifest,
        entries: entries_of(adopted)?,
    })
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
    adopted
        .entries()
        .map(|entry| entry.map(|(id, place)| (id, Entry::live(place, 0))))
        .collect()
}

fn known_dump(storage: &dyn Storage) -> Result<Option<KnownDump>> {
    let Some(stamp) = herolib::stamp(storage)? else {
        return Ok(None);
    };
    Ok(Some(KnownDump {
        stamp,
        modified_ns: herolib::dump_modified_ns(storage)?,
    }))
}

pub(super) fn not_key_value(storage: &dyn Storage) -> Error {
    Error::incompatible(format!(
        "{} is incremental, and key-value mode was asked for",
        storage.describe("")
    ))
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

impl Opening<'_> {
    /// After a clean close nothing may have changed. What did was written by somebody else:
    /// then his dump is the truth for current values, our data files are left as they are, and
    /// the log goes on in a new one.
    pub(super) fn settle_foreign_changes(&mut self) -> Result<()> {
        if self.manifest.state != State::Clean || self.salvage() || self.entries.is_some() {
            return Ok(());
        }
        let storage = &**self.storage;
        let dump = match self.foreign_changes()? {
            Foreign::Nobody => return Ok(()),
            Foreign::Ourselves => {
                self.manifest.state = State::Open;
                self.outdated = true;
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
            let known = self.manifest.file(file.number);
            file.len = known.map_or(0, |known| u64::from(known.len));
            known.is_some()
        });
        let before = match self.recover() {
            // That the log can't be read just now does not say that it is damaged.
            Err(error) if !matches!(error, Error::Corrupt { .. }) => return Err(error),
            before => before,
        };
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
                let next_id = u64::from(adopted.next_id.unwrap_or(0));
                let mut entries = entries_of(adopted)?;
                if let Ok(before) = &before {
                    self.check_dump(&before.lookup, &entries, next_id)?;
                }
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
        // herolib begins with 0.db again, even where that was left behind.
        let is_read = |number: u16| {
            let mut entries = entries.iter();
            entries.any(|(_, entry)| entry.is_live() && entry.location().file == number)
        };
        let old = std::mem::take(&mut manifest.files);
        let files = herolib::data_files(storage)?;
        for file in &files {
            if self.leftovers.contains(&file.number) && !is_read(file.number) {
                continue;
            }
            let known = old.iter().find(|known| known.number == file.number);
            let own_until = match known.map(|known| (known.kind, known.len)) {
                None => 0,
                Some((FileKind::Frozen { own_until }, _)) => own_until,
                Some((FileKind::Log | FileKind::Compacted, len)) => len,
            };
            let kind = FileKind::Frozen { own_until };
            let len = frozen_len(storage, file)?;
            manifest.files.push(DataFile {
                number: file.number,
                kind,
                len,
            });
        }
        // The checkpoint belongs to the generation before.
        let numbers = files.iter().map(|file| file.number);
        let Manifest {
            uuid, generation, ..
        } = manifest;
        manifest.generation = next_generation(storage, &uuid, generation, numbers)?;
        manifest.backup = false;
        manifest.dump = known_dump(storage)?;
        let adoption = Adoption { manifest, entries };
        if self.read_only {
            self.manifest = adoption.manifest;
            self.manifest.base = None;
            self.entries = Some(adoption.entries);
        } else {
            self.manifest = adoption.write_new(storage)?;
        }
        self.changed = true;
        self.find_log_files()
    }

    /// Refuses a dump that herolib can't have written over what it found, which `before` knows: it
    /// only ever appends records, and zeroes those that it deletes.
    fn check_dump(&self, before: &Lookup, entries: &[(u32, Entry)], next_id: u64) -> Result<()> {
        let storage = &**self.storage;
        let damaged = |what: String| {
            Error::corrupt(
                storage.describe("lookup_dump.db"),
                0,
                format!(
                    "{what}, and herolib did not do that; without the dump the database opens with \
                     all that is in the log"
                ),
            )
        };
        let files = herolib::data_files(storage)?;
        for &(id, entry) in entries {
            let place = entry.location();
            let known = self.manifest.file(place.file);
            let is_new = known.is_none_or(|known| place.position >= known.len);
            let present = files.binary_search_by_key(&place.file, |file| file.number);
            if !present.is_ok_and(|index| u64::from(place.position) < files[index].len) {
                return Err(damaged(format!(
                    "the dump leads out of the data files for id {id}"
                )));
            }
            let newest = before.get(id);
            let is_newest = newest.is_live() && newest.location() == place;
            if !is_new && !is_newest {
                return Err(damaged(format!(
                    "the dump has an older or another record for id {id}"
                )));
            }
        }
        let is_there = |id: &u32| entries.binary_search_by_key(id, |e| e.0).is_ok();
        let gone = before
            .entries()
            .filter(|(id, entry)| entry.is_live() && !is_there(id));
        let mut log_is_whole = None;
        for (id, entry) in gone {
            let place = entry.location();
            let mut zeroed = is_zeroed(storage, place.file, place.position)?;
            // In V it may be that place of another data file that gets zeroed. Zeros that are part
            // of a log without damage are none of herolib's.
            for file in &files {
                if zeroed || !is_zeroed(storage, file.number, place.position)? {
                    continue;
                }
                let is_log = self.log_files.iter().any(|log| log.number == file.number);
                if is_log && log_is_whole.is_none() {
                    log_is_whole = Some(self.log_is_whole()?);
                }
                zeroed = !is_log || log_is_whole == Some(false);
            }
            if !zeroed {
                return Err(damaged(format!("the dump lacks id {id}")));
            }
        }
        let grown = files.iter().any(|file| {
            let known = self.manifest.file(file.number);
            known.is_none_or(|known| file.len > u64::from(known.len))
        });
        if !grown && next_id > self.manifest.next_id {
            return Err(damaged(format!("the next id went up to {next_id}")));
        }
        Ok(())
    }

    /// Whether nothing in the log, as it was closed, is damaged.
    fn log_is_whole(&self) -> Result<bool> {
        let first = self.log_files.iter().find_map(|file| file.header);
        let start = Start {
            from: None,
            commit: first.map_or(0, |header| header.first_commit.saturating_sub(1)),
            time_us: 0,
            synced: None,
            salvage: false,
        };
        let uuid = &self.manifest.uuid;
        let replayed = recovery::replay(&**self.storage, uuid, &self.log_files, &start, |_| Ok(()));
        match replayed {
            Ok(outcome) => Ok(!outcome.torn && outcome.commit == self.manifest.commit),
            Err(Error::Corrupt { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn foreign_changes(&self) -> Result<Foreign> {
        let storage = &**self.storage;
        let manifest = &self.manifest;
        let listed = |number| manifest.file(number);
        if self
            .log_files
            .iter()
            .any(|file| listed(file.number).is_none())
        {
            return Ok(Foreign::Ourselves);
        }
        let mut appended = false;
        for file in herolib::data_files(storage)? {
            let Some(known) = listed(file.number) else {
                continue;
            };
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
        Ok(if appended {
            Foreign::Appended
        } else {
            Foreign::Nobody
        })
    }
}

/// Whether herolib has zeroed a record at `position` of a data file.
fn is_zeroed(storage: &dyn Storage, number: u16, position: u32) -> Result<bool> {
    let name = name(number);
    let mut header = [0xff; herolib::record::HEADER];
    let read = storage
        .open(&name, Access::Read)
        .and_then(|file| file.read_at(u64::from(position), &mut header));
    match read {
        Ok(()) => Ok(header.iter().all(|&byte| byte == 0)),
        Err(error)
            if matches!(
                error.kind(),
                std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::NotFound
            ) =>
        {
            Ok(false)
        }
        Err(error) => Err(Error::from_io("read", storage.describe(&name), error)),
    }
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
            let seed = Seed::new(uuid, number);
            Ok(Head::verify(&bytes, seed, position).is_some())
        }
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(Error::from_io("read", storage.describe(&name), error)),
    }
}
