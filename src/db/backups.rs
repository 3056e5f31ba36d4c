//! What opening and recovery know of backups: whether one is as it was made, how one is put back to
//! what it was, and how one is opened to be finished.

use std::sync::Arc;

use super::Db;
use super::opening::Opening;
use crate::error::{Error, Result};
use crate::herolib;
use crate::log::erasure;
use crate::log::segment::name;
use crate::lookup::checkpoint::{self, INDEX};
use crate::manifest::{Manifest, State};
use crate::options::Options;
use crate::planted::planted;
use crate::storage::{Access, Lock, Storage, remove_if_there, sync_directory};

/// Opens what was copied into a directory that is locked, as `manifest` says it is: reads what of
/// the log the checkpoint there doesn't stand for. Nothing is written, the checkpoint excepted, as
/// long as all is there and well; a close then makes it a cleanly closed database. `is_joined`: what is new
/// was added to an earlier backup, and is refused if it isn't of the same history.
pub(crate) fn open_copy(
    storage: &Arc<dyn Storage>,
    manifest: Manifest,
    lock: Box<dyn Lock>,
    is_joined: bool,
) -> Result<Db> {
    let options = Options::default();
    let mut opening = Opening::new(storage, &options, manifest, None)?;
    opening.is_joined = is_joined;
    opening.finish(Some(lock))
}

/// To look at a backup without changing it.
fn read_only() -> Options {
    Options {
        read_only: true,
        ..Options::default()
    }
}

/// Refuses a finished backup that was written to since, by whomever.
pub(crate) fn check_untouched(storage: &Arc<dyn Storage>, manifest: &Manifest) -> Result<()> {
    let options = read_only();
    let opening = Opening::new(storage, &options, manifest.try_clone()?, None)?;
    // What herolib has written is taken over, which shows in the manifest.
    let mut untouched = opening.manifest == *manifest && !opening.outdated;
    let listed = |number| manifest.file(number);
    for file in herolib::data_files(&**storage)? {
        untouched &= listed(file.number).is_none_or(|known| u64::from(known.len) == file.len);
    }
    let mut log_files = opening.log_files.iter();
    untouched &= log_files.all(|file| listed(file.number).is_some());
    if untouched {
        Ok(())
    } else {
        Err(Error::incompatible(format!(
            "the backup in {} was written to since it was made",
            storage.describe("")
        )))
    }
}

/// Makes a backup that a later one was being added to what it was; its manifest.
pub(super) fn roll_back(shared: &Arc<dyn Storage>, manifest: Manifest) -> Result<Manifest> {
    let storage = &**shared;
    let (uuid, generation) = (&manifest.uuid, manifest.generation);
    let remove_index = || {
        remove_if_there(storage, INDEX)
            .map_err(|error| Error::from_io("remove", storage.describe(INDEX), error))
    };
    if erasure::read_journal(storage, uuid, generation)?.is_some() {
        // A loss of power may have brought it back, and what is going to be overwritten is live in it. It
        // is gone for good with the journal's name, which is synced before that.
        remove_index()?;
    }
    // It may be within what is going to be cut off.
    erasure::redo(storage, uuid, generation)?;
    // What is refused of the earlier one is refused while all of both is there.
    drop(Opening::new(shared, &read_only(), manifest.try_clone()?, None)?.finish(None)?);
    for known in &manifest.files {
        let name = name(known.number);
        let failed = |action, error| Error::from_io(action, storage.describe(&name), error);
        let open = |access| storage.open(&name, access);
        let file = open(Access::Read).and_then(|file| file.len());
        // One that is missing or too short was refused.
        let is_longer = |len| len > u64::from(known.len);
        if file.is_ok_and(is_longer) && !planted!(interrupted_backup_not_cut) {
            let file = open(Access::Write).map_err(|error| failed("open", error))?;
            file.set_len(u64::from(known.len))
                .map_err(|error| failed("cut", error))?;
            file.sync().map_err(|error| failed("sync", error))?;
        }
    }
    remove_leftovers(storage, &manifest, &manifest)?;
    // Both may be the later one's already. The earlier one's checkpoint stays: without it more may be
    // found to be damaged than was before.
    if !checkpoint::is_of(storage, uuid, generation, manifest.log_end())? {
        remove_index()?;
    }
    herolib::remove_dump(storage)?;
    sync_directory(storage, "")
        .map_err(|error| Error::from_io("sync", storage.describe(""), error))?;
    let manifest = Manifest {
        state: State::Open,
        doomed: Vec::new(),
        dump: None,
        ..manifest
    };
    manifest.write(storage)?;
    Ok(manifest)
}

/// Removes the data files of a backup that are not in `kept`: those that `before` names.
pub(crate) fn remove_leftovers(
    storage: &dyn Storage,
    before: &Manifest,
    kept: &Manifest,
) -> Result<()> {
    for file in herolib::data_files(storage)? {
        let number = file.number;
        let ours = before.file(number).is_some() || before.doomed.contains(&number);
        if ours && kept.file(number).is_none() {
            let name = name(number);
            remove_if_there(storage, &name)
                .map_err(|error| Error::from_io("remove", storage.describe(&name), error))?;
        }
    }
    Ok(())
}
