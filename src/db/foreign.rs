//! What somebody else has done to a database of ours since it was closed: herolib, for the most part.
//!
//! Neither what is his nor what is ours is changed then. All data files are frozen as they are, his dump
//! is the truth for current values, and the log goes on in a new file, as in a directory that is
//! taken over ([`super::takeover`]).

use super::opening::Opening;
use super::takeover::{Adoption, entries_of, frozen_len, known_dump};
use super::zeroed::Zeroed;
use crate::bytes::{collected, reserve};
use crate::error::{Error, Result};
use crate::herolib::{self, Appended, Presence};
use crate::log::record::{HEAD, Head, Seed};
use crate::log::segment::name;
use crate::lookup::{Entry, Lookup};
use crate::manifest::{DataFile, FileKind, Manifest, State, TakenOver, next_generation};
use crate::storage::{Access, Storage};

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
        let mut manifest = self.manifest.try_clone()?;
        let entries = match dump {
            None => collected(self.recover()?.lookup.entries())?,
            Some(dump) => self.entries_after(dump, &mut manifest)?,
        };
        self.date_taken_over(&mut manifest)?;
        self.freeze_data_files(&mut manifest, &entries)?;
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

    /// What the lookup is after herolib has written `dump`, which may have raised the next id and the
    /// limit of ids.
    fn entries_after(
        &self,
        dump: herolib::Adopted,
        manifest: &mut Manifest,
    ) -> Result<Vec<(u32, Entry)>> {
        if dump.next_id.is_none() != manifest.key_value {
            return Err(Error::incompatible(format!(
                "herolib wrote to {} in the other mode (incremental or key-value)",
                self.storage.describe("")
            )));
        }
        let before = self.recover_as_it_was()?.lookup;
        let next_id = u64::from(dump.next_id.unwrap_or(0));
        manifest.next_id = manifest.next_id.max(next_id).max(1);
        let limit = &mut manifest.limits.record_nr_max;
        *limit = (*limit).max(dump.record_nr_max);
        let mut entries = entries_of(dump)?;
        self.check_dump(&before, &entries, next_id)?;
        // Our deletions are not in the dump, and their history is still there.
        let deleted = before.entries().filter(|(id, entry)| {
            !entry.is_live() && entries.binary_search_by_key(id, |e| e.0).is_err()
        });
        let deleted = collected(deleted)?;
        reserve(&mut entries, deleted.len())?;
        entries.extend(deleted);
        entries.sort_unstable_by_key(|&(id, _)| id);
        Ok(entries)
    }

    /// Where clears came since the log began, notes what they found: the log begins anew behind them.
    fn date_taken_over(&self, manifest: &mut Manifest) -> Result<()> {
        let commit = self.base_commit();
        let last = manifest.clears.last();
        if last.is_none_or(|last| last.commit <= commit) {
            return Ok(());
        }
        let known = &manifest.taken_over;
        let is_known = |file: &DataFile| {
            let place = (file.number, file.len);
            let found = known.binary_search_by_key(&place, |part| (part.file, part.end));
            found.is_ok()
        };
        let files = manifest.files.iter();
        let new = files.filter(|file| file.kind != FileKind::Log && !is_known(file));
        let new = new.map(|file| TakenOver {
            file: file.number,
            end: file.len,
            commit,
        });
        let new = collected(new)?;
        reserve(&mut manifest.taken_over, new.len())?;
        manifest.taken_over.extend(new);
        manifest.taken_over.sort_unstable();
        Ok(())
    }

    /// Freezes all data files that are there, for the log to begin anew beside them.
    fn freeze_data_files(&self, manifest: &mut Manifest, entries: &[(u32, Entry)]) -> Result<()> {
        let storage = &**self.storage;
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
            reserve(&mut manifest.files, 1)?;
            manifest.files.push(DataFile {
                number: file.number,
                kind: FileKind::Frozen { own_until },
                len: frozen_len(storage, file)?,
            });
        }
        // The checkpoint belongs to the generation before.
        let numbers = files.iter().map(|file| file.number);
        let generation = manifest.generation;
        manifest.generation = next_generation(storage, &manifest.uuid, generation, numbers)?;
        Ok(())
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
        let mut zeroed = Zeroed::new(storage, &self.manifest.uuid, &files)?;
        let mut deleted_since = None;
        for (id, entry) in gone {
            if zeroed.is_deleted(entry.location())? {
                continue;
            }
            // It stays where herolib wrote a newer one and zeroed that.
            let left = match deleted_since {
                Some(left) => left,
                None => self.deleted_since(&files, entries, &mut zeroed)?,
            };
            if left == 0 {
                return Err(damaged(format!("the dump lacks id {id}")));
            }
            deleted_since = Some(left - 1);
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

    /// How many of the records that herolib has appended it may have deleted again.
    fn deleted_since(
        &self,
        files: &[herolib::DataFile],
        entries: &[(u32, Entry)],
        zeroed: &mut Zeroed<'_>,
    ) -> Result<u64> {
        let storage = &**self.storage;
        let known_len = |number| self.manifest.file(number).map_or(1, |known| known.len);
        let mut live = Vec::new();
        for &(_, entry) in entries {
            let place = entry.location();
            if place.position >= known_len(place.file) {
                reserve(&mut live, 1)?;
                live.push(place);
            }
        }
        live.sort_unstable();
        let mut count = 0;
        for file in files {
            let from = known_len(file.number);
            herolib::appended(storage, files, file.number, from, &live, |found| {
                let is_one = match found {
                    Appended::Zeros => true,
                    Appended::Gone(place) => zeroed.is_deleted(place)?,
                };
                count += u64::from(is_one);
                Ok(())
            })?;
        }
        Ok(count)
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
            // Within a tick of the file system's clock, which may be seconds, a change leaves the time as
            // it was. The manifest was written after the dump: where that shows, every later change does.
            let is_told_by_time = modified_ns != 0 && modified_ns < Manifest::modified_ns(storage)?;
            let may_differ = appended || !is_told_by_time || modified_ns != known.modified_ns;
            if may_differ && herolib::stamp(storage)?.is_some_and(|stamp| stamp != known.stamp) {
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
