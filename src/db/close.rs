//! Leaving a database in order, and removing it.

use std::sync::{Arc, PoisonError};

use super::write::Writer;
use super::{Db, Shared};
use crate::base::is_base;
use crate::error::{Error, Result};
use crate::herolib::{self, Presence};
use crate::log::segment::{FileHeader, name};
use crate::lookup::checkpoint::{self, INDEX, TABLE};
use crate::manifest::{DataFile, FileKind, KnownDump, MANIFEST, Manifest, State};
use crate::options::Limits;
use crate::storage::{Access, Storage, remove_if_there};

/// The file that the writer holds locked.
pub(super) const LOCK: &str = "LOCK";

/// After reading more of the log than this, in bytes, an opening writes a checkpoint.
const LONG_REPLAY: u64 = 64 << 20;
/// So many ids may stand in a herolib dump without a record, however few records there are.
const MOST_EMPTY_ENTRIES: u64 = 1 << 20;

impl Db {
    /// Makes everything durable, writes the checkpoint, so that the next opening reads no log,
    /// and the dump that herolib reads. Whatever it returns, the handle is gone; if it fails, what
    /// was acknowledged is in the log, and the next opening finds it there.
    pub fn close(mut self) -> Result<()> {
        self.shared.check_process()?;
        self.ticker = None;
        self.shared.close()
    }

    /// Closes the database and removes its own files, and the directory if it is empty then.
    pub fn destroy(mut self) -> Result<()> {
        let shared = &self.shared;
        shared.check_process()?;
        if shared.read_only {
            return Err(Error::ReadOnly { action: "destroy" });
        }
        self.ticker = None;
        let storage = Arc::clone(&self.shared.log.storage);
        remove_database(&*storage)?;
        let failed = |error| Error::from_io("remove", storage.describe(""), error);
        // The manifest says that the others go, so it goes when they are gone for good.
        storage.sync_directory("").map_err(failed)?;
        remove_if_there(&*storage, MANIFEST).map_err(failed)?;
        remove_if_there(&*storage, LOCK).map_err(failed)?;
        storage.sync_directory("").map_err(failed)?;
        storage.remove_root().map_err(failed)
    }
}

impl Shared {
    fn close(&self) -> Result<()> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let writer = &mut *writer;
        if self.read_only || self.volatile {
            return Ok(());
        }
        self.check_poison()?;
        if !writer.changed {
            return Ok(());
        }
        writer.tail.trim(&self.log)?;
        let work = writer.tail.take_sync_work();
        work.run(&self.log)
            .map_err(|error| self.sync_failed(writer, error))?;
        self.write_checkpoint(writer)?;
        if !self.lookup.is_on_disk() {
            remove_if_there(self.storage(), TABLE)
                .map_err(|error| Error::from_io("remove", self.storage().describe(TABLE), error))?;
        }
        let dump = if writer.manifest.native {
            None
        } else {
            self.write_dump(writer)?
        };
        let manifest = Manifest {
            state: State::Clean,
            limits: self.limits,
            next_id: writer.next_id,
            commit: writer.commit,
            time_us: writer.time_us,
            dump,
            files: self.data_files(&writer.manifest),
            ..writer.manifest.clone()
        };
        manifest.write(self.storage())
    }

    /// Writes a checkpoint of the lookup as it is. The log must be on disk.
    fn write_checkpoint(&self, writer: &Writer) -> Result<()> {
        let state = checkpoint::State {
            uuid: self.log.uuid,
            generation: self.log.generation,
            commit: writer.commit,
            time_us: writer.time_us,
            next_id: writer.next_id,
            live: writer.live,
            log_end: writer.tail.end(),
        };
        checkpoint::write(self.storage(), &self.lookup, state)
    }

    /// Whether so much of the log was read at opening that a checkpoint is worth writing. A table
    /// on disk is one only after a clean close.
    pub(super) fn replayed_long(&self, read: u64) -> bool {
        read > LONG_REPLAY && !self.read_only && !self.volatile && !self.lookup.is_on_disk()
    }

    /// Makes the log durable and writes a checkpoint, before there are other threads.
    pub(super) fn checkpoint(&self) -> Result<()> {
        let commit = self.writer().commit;
        self.sync_to(commit)?;
        self.write_checkpoint(&self.writer())
    }

    /// Writes the lookup as herolib stores it, where its width can hold all locations.
    fn write_dump(&self, writer: &Writer) -> Result<Option<KnownDump>> {
        let limits = self.limits;
        let width = herolib::lookup_width(limits.record_nr_max, limits.record_size_max);
        let incremental = (!self.key_value).then_some(writer.next_id as u32);
        // In incremental mode ids without a record stand in the dump as well; a next id far beyond
        // all records, which no honest use leaves behind, must not fill the disk with them.
        let highest = self.lookup.highest().map_or(0, u64::from);
        if incremental.is_some() && writer.next_id > 2 * highest + MOST_EMPTY_ENTRIES {
            herolib::remove_dump(self.storage())?;
            return Ok(None);
        }
        let live = self.lookup.entries().filter(|(_, entry)| entry.is_live());
        let entries = live.map(|(id, entry)| (id, entry.location()));
        let Some(stamp) = herolib::write_dump(self.storage(), width, incremental, entries)? else {
            return Ok(None);
        };
        let modified_ns = herolib::dump_modified_ns(self.storage())?;
        Ok(Some(KnownDump { stamp, modified_ns }))
    }

    /// The data files for the manifest, with their lengths as they are now.
    fn data_files(&self, manifest: &Manifest) -> Vec<DataFile> {
        let frozen = |number| {
            manifest
                .file(number)
                .filter(|file| file.kind != FileKind::Log)
                .copied()
        };
        self.log
            .segments()
            .map(|segment| {
                frozen(segment.number).unwrap_or(DataFile {
                    number: segment.number,
                    kind: FileKind::Log,
                    len: segment.view().end() as u32,
                })
            })
            .collect()
    }
}

/// Stands in the manifest of a database that is being removed and whose own could not be read.
const UNKNOWN: [u8; 16] = [0; 16];

/// Removes the files of the database in a directory, all but `MANIFEST` and `LOCK`, such that a
/// crash on the way leaves a manifest that says so. Of the data files those that the manifest names
/// or whose header says that they belong to it; without a manifest that can be read, in a directory
/// of herolib's, all that bear the name of one.
pub(super) fn remove_database(storage: &dyn Storage) -> Result<()> {
    let failed = |error| Error::from_io("remove files in", storage.describe(""), error);
    let known = Manifest::read(storage).ok().flatten();
    if known.is_none() && matches!(herolib::presence(storage)?, Presence::Nothing) {
        return Ok(());
    }
    let unknown = || Manifest::new(UNKNOWN, false, false, Limits::DEFAULT);
    let mut marker = known.unwrap_or_else(unknown);
    if marker.state != State::Resetting {
        marker.state = State::Resetting;
        marker.write(storage)?;
    }
    let manifest = (marker.uuid != UNKNOWN).then_some(&marker);
    for file in herolib::data_files(storage)? {
        let ours = manifest.is_none_or(|manifest| {
            manifest.file(file.number).is_some()
                || has_uuid(storage, &name(file.number), &manifest.uuid)
        });
        if ours {
            remove_if_there(storage, &name(file.number)).map_err(failed)?;
        }
    }
    herolib::remove_dump(storage)?;
    for name in storage.list("").map_err(failed)? {
        let base = name.strip_suffix(".tmp").unwrap_or(&name);
        let temporary_manifest = base == MANIFEST && base != name;
        if [INDEX, TABLE].contains(&base) || is_base(base) || temporary_manifest || is_torn(base) {
            remove_if_there(storage, &name).map_err(failed)?;
        }
    }
    Ok(())
}

/// Whether recovery put a file of this name aside.
fn is_torn(name: &str) -> bool {
    name.strip_prefix("torn-").is_some_and(|rest| {
        !rest.is_empty()
            && rest
                .bytes()
                .all(|byte| byte.is_ascii_digit() || b"-.".contains(&byte))
    })
}

fn has_uuid(storage: &dyn Storage, name: &str, uuid: &[u8; 16]) -> bool {
    let header = storage
        .open(name, Access::Read)
        .and_then(|file| FileHeader::read(&*file));
    matches!(header, Ok(Some(header)) if header.uuid == *uuid)
}
