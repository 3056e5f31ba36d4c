//! Leaving a database in order, and removing it.

use std::sync::Arc;

use super::find::doomed_files;
use super::write::Writer;
use super::{Db, Shared, World};
use crate::base::is_base;
use crate::bytes::collected;
use crate::error::{Error, Result};
use crate::herolib::{self, Presence};
use crate::log::erasure::JOURNAL;
use crate::log::segment::{FileHeader, Segment, name};
use crate::lookup::checkpoint::{self, INDEX, TABLE};
use crate::manifest::{DataFile, FileKind, KnownDump, MANIFEST, Manifest, State};
use crate::options::Limits;
use crate::planted::planted;
use crate::storage::{Storage, remove_if_there};

/// The file that the writer holds locked.
pub(crate) const LOCK: &str = "LOCK";

/// After reading more of the log than this, in bytes, an opening writes a checkpoint.
const LONG_REPLAY: u64 = 64 << 20;
/// So many ids may stand in a herolib dump without a record, however few records there are.
const MOST_EMPTY_ENTRIES: u64 = 1 << 20;

impl Db {
    /// Makes everything durable, writes the checkpoint, so that the next opening reads no log,
    /// and the dump that herolib reads. Whatever it returns, the handle is gone; if it fails, what
    /// was acknowledged is in the log, and the next opening finds it there. Transactions that are
    /// open can't commit any more; who wants to know of them first asks [`Db::check_idle`].
    pub fn close(mut self) -> Result<()> {
        self.shared.check_process()?;
        self.tickers.clear();
        self.shared.close()
    }

    /// Closes the database and removes its own files, and the directory if it is empty then.
    /// [`Error::Busy`] while transactions, snapshots or scans are open.
    pub fn destroy(mut self) -> Result<()> {
        let shared = &self.shared;
        shared.check_process()?;
        if shared.read_only {
            return Err(Error::ReadOnly { action: "destroy" });
        }
        self.check_idle()?;
        self.tickers.clear();
        let storage = Arc::clone(&self.shared.storage);
        remove_database(&*storage)?;
        let failed = |error| Error::from_io("remove", storage.describe(""), error);
        remove_if_there(&*storage, MANIFEST).map_err(failed)?;
        remove_if_there(&*storage, LOCK).map_err(failed)?;
        storage.sync_directory("").map_err(failed)?;
        storage.remove_root().map_err(failed)
    }
}

impl Shared {
    fn close(&self) -> Result<()> {
        let mut writer = self.writer();
        let writer = &mut *writer;
        if self.read_only || self.volatile {
            return Ok(());
        }
        self.check_poison()?;
        // A transaction that is open still must not write behind what the manifest will say.
        self.poison("it was closed");
        if !writer.changed {
            return Ok(());
        }
        let world = self.read();
        writer.tail.trim(&world.log)?;
        let work = writer.tail.take_sync_work();
        if planted!(checkpoint_before_log) {
            self.write_checkpoint(writer, &world)?;
        }
        if !planted!(closed_without_sync) {
            work.run(&world.log)
                .map_err(|error| self.sync_failed(writer, error))?;
        }
        self.note_log(writer, &world)?;
        self.write_checkpoint(writer, &world)?;
        if !world.lookup.is_in_its_file() {
            remove_if_there(&*self.storage, TABLE)
                .map_err(|error| Error::from_io("remove", self.storage.describe(TABLE), error))?;
        }
        let dump = if writer.manifest.native {
            None
        } else {
            self.announce_dump(writer)?;
            self.write_dump(writer, &world)?
        };
        let manifest = Manifest {
            state: State::Clean,
            limits: self.limits,
            next_id: writer.next_id,
            commit: writer.commit,
            time_us: writer.time_us,
            dump,
            clears: world.clears().to_vec()?,
            files: data_files(&writer.manifest, &world)?,
            doomed: doomed_files(&*self.storage, &writer.manifest.doomed)?,
            ..writer.manifest.try_clone()?
        };
        manifest.write(&*self.storage)
    }

    /// Writes a checkpoint of the lookup as it is. The log must be on disk.
    fn write_checkpoint(&self, writer: &Writer, world: &World) -> Result<()> {
        let state = checkpoint::State {
            uuid: world.log.uuid,
            generation: world.log.generation,
            commit: writer.commit,
            time_us: writer.time_us,
            next_id: writer.next_id,
            live: writer.live,
            tally: writer.tally,
            log_end: writer.tail.end(),
            clears_crc: checkpoint::clears_crc(world.clears().to_vec()?.into_iter(), writer.commit),
        };
        checkpoint::write(&*self.storage, INDEX, &world.lookup, state)
    }

    /// Whether so much of the log was read at opening that a checkpoint is worth writing. A table
    /// on disk is one only after a clean close.
    pub(super) fn replayed_long(&self, read: u64) -> bool {
        read > LONG_REPLAY && !self.read_only && !self.volatile && !self.read().lookup.is_on_disk()
    }

    /// Makes the log durable and writes a checkpoint, before there are other threads.
    pub(super) fn checkpoint(&self) -> Result<()> {
        let mut writer = self.writer();
        let writer = &mut *writer;
        let world = self.read();
        // Without a mark behind it, which would not be on disk, and up to whose end the checkpoint and the
        // manifest would say that the log is.
        writer
            .tail
            .take_sync_work()
            .run(&world.log)
            .map_err(|error| self.sync_failed(writer, error))?;
        self.group.synced(writer.commit);
        self.note_log(writer, &world)?;
        self.write_checkpoint(writer, &world)
    }

    /// Before a checkpoint: it stands for clears that it doesn't name, and for data files of which it
    /// names the last one only. Nobody reads them before it is used, so what the manifest doesn't list
    /// could be gone, and nothing would tell. The log must be on disk.
    fn note_log(&self, writer: &mut Writer, world: &World) -> Result<()> {
        let manifest = &writer.manifest;
        let clears = world.clears().to_vec()?;
        let files = data_files(manifest, world)?;
        let end = writer.tail.end();
        let is_before = |file: &&DataFile| end.is_some_and(|end| file.number < end.file);
        let is_listed = |file: &DataFile| manifest.file(file.number).is_some();
        let same = manifest.clears == clears && files.iter().filter(is_before).all(is_listed);
        let nothing = clears.is_empty() && !files.iter().any(|file| is_before(&file));
        // What only an opening has read may not be on disk: see `Shared::prepare`. Of a backup an earlier
        // one says no less: see `State::Extending`.
        if same && (nothing || writer.prepared || manifest.backup) {
            return Ok(());
        }
        self.write_manifest(writer, |manifest| {
            manifest.files = files;
            if !planted!(clears_not_noted) {
                manifest.clears = clears;
            }
        })
    }

    /// Before a dump is replaced: a manifest that says "closed cleanly" knows the old one, and the new
    /// one would look like herolib's. Nothing was committed through this handle, else it would say
    /// "open" already, so a backup stays one.
    fn announce_dump(&self, writer: &mut Writer) -> Result<()> {
        if writer.manifest.state != State::Clean || planted!(manifest_stays_clean) {
            return Ok(());
        }
        writer.manifest.state = State::Open;
        writer.manifest.dump = None;
        writer.manifest.write(&*self.storage)
    }

    /// Writes the lookup as herolib stores it, where its width can hold all locations.
    fn write_dump(&self, writer: &Writer, world: &World) -> Result<Option<KnownDump>> {
        let limits = self.limits;
        let width = herolib::lookup_width(limits.record_nr_max, limits.record_size_max);
        let incremental = (!self.key_value).then_some(writer.next_id as u32);
        // In incremental mode ids without a record stand in the dump as well. Each id that was given
        // out takes a record's header at least, so a next id far beyond that, which no honest use
        // leaves behind, must not fill the disk with them.
        let given_out = world.log.bytes() / herolib::record::HEADER as u64;
        let highest = world.lookup.highest().map_or(0, u64::from);
        let ids = writer.next_id.max(highest + 1);
        if incremental.is_some() && ids > given_out + MOST_EMPTY_ENTRIES {
            herolib::remove_dump(&*self.storage)?;
            return Ok(None);
        }
        let live = world.lookup.entries().filter(|(_, entry)| entry.is_live());
        let entries = live.map(|(id, entry)| (id, entry.location()));
        let Some(stamp) = herolib::write_dump(&*self.storage, width, incremental, entries)? else {
            return Ok(None);
        };
        let modified_ns = herolib::dump_modified_ns(&*self.storage)?;
        Ok(Some(KnownDump { stamp, modified_ns }))
    }
}

/// The data files for the manifest, with their lengths as they are now.
pub(super) fn data_files(manifest: &Manifest, world: &World) -> Result<Vec<DataFile>> {
    let frozen = |number| {
        manifest
            .file(number)
            .filter(|file| file.kind != FileKind::Log)
            .copied()
    };
    let file = |segment: &Arc<Segment>| {
        frozen(segment.number).unwrap_or(DataFile {
            number: segment.number,
            kind: FileKind::Log,
            len: segment.view().end() as u32,
        })
    };
    collected(world.log.segments().map(file))
}

/// Stands in the manifest of a database that is being removed and whose own could not be read.
const UNKNOWN: [u8; 16] = [0; 16];

/// Removes the files of the database in a directory, all but `MANIFEST` and `LOCK`, such that a
/// crash on the way leaves a manifest that says so. Of the data files those that the manifest
/// names, whose header says that they belong to it, or whose making was interrupted; without a
/// manifest that can be read, in a directory of herolib's, all that bear the name of one.
pub(super) fn remove_database(storage: &dyn Storage) -> Result<()> {
    let failed = |error| Error::from_io("remove files in", storage.describe(""), error);
    // A manifest that can't be read just now is no reason to do as if there were none.
    let known = match Manifest::read(storage) {
        Err(error @ (Error::Io { .. } | Error::OutOfMemory { .. })) => return Err(error),
        known => known.ok().flatten(),
    };
    if known.is_none() && matches!(herolib::presence(storage)?, Presence::Nothing) {
        return Ok(());
    }
    let unknown = || Manifest::new(UNKNOWN, false, false, Limits::DEFAULT);
    let mut marker = known.unwrap_or_else(unknown);
    if marker.state != State::Resetting {
        marker.state = State::Resetting;
        marker.write(storage)?;
    } else {
        // Whoever wrote it may have died before it was durable.
        storage.sync_directory("").map_err(failed)?;
    }
    let manifest = (marker.uuid != UNKNOWN).then_some(&marker);
    for file in herolib::data_files(storage)? {
        let ours = match manifest {
            None => true,
            Some(manifest)
                if manifest.file(file.number).is_some()
                    || manifest.doomed.contains(&file.number) =>
            {
                true
            }
            Some(manifest) => match FileHeader::of(storage, file.number)? {
                Some(header) => header.uuid == manifest.uuid,
                None => FileHeader::is_unfinished(storage, file.number, &manifest.uuid)?,
            },
        };
        if ours {
            remove_if_there(storage, &name(file.number)).map_err(failed)?;
        }
    }
    herolib::remove_dump(storage)?;
    for name in storage.list("").map_err(failed)? {
        let base = name.strip_suffix(".tmp").unwrap_or(&name);
        let temporary_manifest = base == MANIFEST && base != name;
        let base = base.strip_suffix(".next").unwrap_or(base);
        if [INDEX, TABLE, JOURNAL].contains(&base)
            || is_base(base)
            || temporary_manifest
            || is_torn(base)
        {
            remove_if_there(storage, &name).map_err(failed)?;
        }
    }
    // Durably: what follows is the removal of the manifest, or another one, and neither knows of
    // files that come back.
    storage.sync_directory("").map_err(failed)
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

/// Refuses to begin anew where a data file of another database lies: it is not to be removed, and
/// no database opens beside it.
pub(super) fn check_no_other(storage: &dyn Storage) -> Result<()> {
    let Ok(Some(manifest)) = Manifest::read(storage) else {
        return Ok(());
    };
    if manifest.uuid == UNKNOWN {
        return Ok(());
    }
    for file in herolib::data_files(storage)? {
        let header = FileHeader::of(storage, file.number)?;
        if manifest.file(file.number).is_none()
            && header.is_some_and(|header| header.uuid != manifest.uuid)
        {
            return Err(Error::corrupt(
                storage.describe(&name(file.number)),
                12,
                "the data file belongs to another database, and stays; move it away to reset this one",
            ));
        }
    }
    Ok(())
}
