//! Leaving a database in order, and removing it.

use std::sync::{Arc, PoisonError};

use super::write::Writer;
use super::{Db, Shared};
use crate::base::BASE;
use crate::error::{Error, Result};
use crate::herolib;
use crate::log::segment::{FileHeader, name};
use crate::lookup::checkpoint::{self, INDEX, TABLE};
use crate::manifest::{DataFile, FileKind, KnownDump, MANIFEST, Manifest, State};
use crate::storage::{Access, Storage, remove_if_there};

/// The file that the writer holds locked.
pub(super) const LOCK: &str = "LOCK";

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
        let manifest = self.shared.writer().manifest.clone();
        remove_files(&*storage, Some(&manifest))?;
        let failed = |error| Error::from_io("remove", storage.describe(""), error);
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
        writer.tail.take_sync_work().run(&self.log)?;
        let state = checkpoint::State {
            uuid: self.log.uuid,
            generation: self.log.generation,
            commit: writer.commit,
            time_us: writer.time_us,
            next_id: writer.next_id,
            live: writer.live,
            log_end: writer.tail.end(),
        };
        checkpoint::write(self.storage(), &self.lookup, state)?;
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

    /// Writes the lookup as herolib stores it, where its width can hold all locations.
    fn write_dump(&self, writer: &Writer) -> Result<Option<KnownDump>> {
        let limits = self.limits;
        let width = herolib::lookup_width(limits.record_nr_max, limits.record_size_max);
        let incremental = (!self.key_value).then_some(writer.next_id as u32);
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
                .files
                .iter()
                .find(|file| file.number == number && file.kind != FileKind::Log)
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

/// Removes the files of a database, all but `MANIFEST` and `LOCK`. Of the data files those that
/// the manifest names or whose header says that they belong to it; without a manifest, in a
/// directory of herolib's, all that bear the name of one.
pub(super) fn remove_files(storage: &dyn Storage, manifest: Option<&Manifest>) -> Result<()> {
    let failed = |error| Error::from_io("remove files in", storage.describe(""), error);
    for file in herolib::data_files(storage)? {
        let ours = manifest.is_none_or(|manifest| {
            manifest
                .files
                .iter()
                .any(|known| known.number == file.number)
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
        if [INDEX, TABLE, BASE].contains(&base) || temporary_manifest || is_torn(base) {
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
