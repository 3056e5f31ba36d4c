//! Opening: find out what is in the directory, and refuse it, take it over, or make it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::Db;
use super::backups::roll_back;
use super::close::{LOCK, check_no_other, remove_database};
use super::opening::Opening;
use super::takeover::{Adoption, adopt, not_key_value};
use crate::error::{Error, NotFound, Result};
use crate::herolib::{self, Presence};
use crate::log::erasure;
use crate::log::segment::{FileHeader, name};
use crate::manifest::{MANIFEST, Manifest, State};
use crate::options::{IoMode, Limits, Options};
use crate::storage::memory::MemoryStorage;
use crate::storage::os::OsStorage;
use crate::storage::{Lock, Storage, fork, grace, remove_if_there};
use crate::sync::sleep;

/// A database that is opened for reading while a writer is at work may be read in the middle of a
/// change; then it is read again, so many times at most.
const MOST_ATTEMPTS: u32 = 10;

/// What a directory holds.
enum Found {
    /// No database, or nothing at all.
    Nothing,
    Database(Box<Manifest>),
    /// A directory of herolib's, with or without a lookup dump.
    Herolib {
        dump: bool,
    },
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
        // What can't be read is an error then, and not the end of the process.
        let io = if options.salvage {
            IoMode::File
        } else {
            options.io
        };
        Db::open_on(Arc::new(OsStorage::new(absolute, io)), options)
    }

    /// Opens or makes the database in a storage.
    pub fn open_on(storage: Arc<dyn Storage>, options: &Options) -> Result<Db> {
        options.validate()?;
        fork::watch();
        grace::register();
        if options.read_only || options.salvage {
            return open_for_reading(&storage, options, false);
        }
        // What is going to be refused is refused before anything is touched.
        match look(&*storage) {
            // A reset doesn't care what there was, damaged or not, but whether there was.
            Err(_) if options.reset => {}
            Ok(found) if options.reset && !matches!(found, Found::Nothing) => {}
            found => drop(admit(&*storage, found?, options)?),
        }
        let (names, lock) = make_and_lock(&*storage)?;
        match make_or_take_over(&storage, options) {
            Ok(manifest) => {
                erasure::redo(&*storage, &manifest.uuid, manifest.generation)?;
                Opening::new(&storage, options, manifest, None)?.finish(Some(lock))
            }
            Err(error) => {
                // What is refused is left as it was found.
                if ![LOCK, MANIFEST]
                    .iter()
                    .any(|own| names.iter().any(|name| name == own))
                {
                    let _ = remove_if_there(&*storage, LOCK);
                }
                Err(error)
            }
        }
    }
}

/// Makes the directory if need be, and locks it; the names that were in it before.
fn make_and_lock(storage: &dyn Storage) -> Result<(Vec<String>, Box<dyn Lock>)> {
    let failed = |action| move |error| Error::from_io(action, storage.describe(""), error);
    let attempt = || {
        storage.create_root().map_err(failed("make directory"))?;
        let names = storage.list("").map_err(failed("list"))?;
        let lock = storage.lock(LOCK).map_err(failed("lock"))?;
        let lock = lock.ok_or_else(|| Error::Locked {
            path: storage.describe(LOCK),
        })?;
        Ok((names, lock))
    };
    for _ in 1..MOST_ATTEMPTS {
        match attempt() {
            // Who destroys a database removes its directory too.
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {}
            made => return made,
        }
    }
    attempt()
}

/// The manifest of the database in a directory that is locked, made if need be.
fn make_or_take_over(shared: &Arc<dyn Storage>, options: &Options) -> Result<Manifest> {
    let storage = &**shared;
    if options.reset {
        check_no_other(storage)?;
        remove_database(storage)?;
    } else {
        match admit(storage, look(storage)?, options)? {
            Found::Database(manifest) if manifest.state == State::Extending => {
                return roll_back(shared, *manifest);
            }
            Found::Database(manifest) if manifest.state != State::Resetting => {
                return Ok(*manifest);
            }
            Found::Database(_) => {
                check_no_other(storage)?;
                remove_database(storage)?;
            }
            Found::Herolib { dump } => return adopt(storage, options, dump)?.write_new(storage),
            Found::Nothing => {}
        }
    }
    let uuid = storage
        .random()
        .map_err(|error| Error::from_io("get random bytes for", storage.describe(""), error))?;
    let limits = Limits::DEFAULT.with(options);
    let manifest = Manifest::new(uuid, options.key_value, options.native, limits);
    manifest.write(storage)?;
    Ok(manifest)
}

/// Looks into a directory, without changing anything.
fn look(storage: &dyn Storage) -> Result<Found> {
    let of_ours = |manifest| Found::Database(Box::new(manifest));
    if let Some(manifest) = Manifest::read(storage)? {
        return Ok(of_ours(manifest));
    }
    let dump = match herolib::presence(storage)? {
        Presence::Nothing => return Ok(Found::Nothing),
        Presence::DataFiles => false,
        Presence::Dump { .. } => true,
    };
    let mut ours = None;
    for file in herolib::data_files(storage)? {
        if FileHeader::of(storage, file.number)?.is_some() {
            ours = Some(name(file.number));
            break;
        }
    }
    // Another process may have made the database since: its manifest is there before any data file.
    if let Some(manifest) = Manifest::read(storage)? {
        return Ok(of_ours(manifest));
    }
    match ours {
        None => Ok(Found::Herolib { dump }),
        Some(name) => Err(Error::corrupt(
            storage.describe(MANIFEST),
            0,
            format!("the manifest is missing, and {name} belongs to a database"),
        )),
    }
}

/// Refuses what `options` don't allow to open.
fn admit(storage: &dyn Storage, found: Found, options: &Options) -> Result<Found> {
    match &found {
        Found::Nothing if options.must_exist || options.read_only || options.salvage => {
            Err(Error::NotFound(NotFound::Database(storage.describe(""))))
        }
        Found::Database(manifest) if manifest.state == State::Resetting => {
            if options.must_exist || options.read_only || options.salvage {
                return Err(Error::NotFound(NotFound::Database(storage.describe(""))));
            }
            Ok(found)
        }
        Found::Database(manifest) if manifest.state == State::Unfinished => {
            Err(Error::incompatible(format!(
                "{} holds an unfinished backup: run the backup again to complete it",
                storage.describe("")
            )))
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

/// For a handle that `follows` it is opened again: since it was opened first a writer may have raised the
/// limit of ids beyond that which was asked for then.
pub(super) fn open_for_reading(
    storage: &Arc<dyn Storage>,
    options: &Options,
    follows: bool,
) -> Result<Db> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        let before = Manifest::read(&**storage).ok();
        let result = try_open_for_reading(storage, options, follows);
        let again = attempt < MOST_ATTEMPTS
            && match &result {
                Err(Error::Corrupt { .. } | Error::Io { .. }) => {
                    storage.is_locked(LOCK).unwrap_or(false)
                        || Manifest::read(&**storage).ok() != before
                }
                Ok(None) => true,
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
        sleep(Duration::from_millis(u64::from(attempt)));
    }
}

/// `None`: the database was changed while it was read.
fn try_open_for_reading(
    storage: &Arc<dyn Storage>,
    options: &Options,
    follows: bool,
) -> Result<Option<Db>> {
    let mut asked = options.clone();
    if follows {
        asked.record_nr_max = 0;
    }
    match admit(&**storage, look(&**storage)?, &asked)? {
        Found::Herolib { dump } => {
            let Adoption { manifest, entries } = adopt(&**storage, options, dump)?;
            let opening = Opening::new(storage, options, manifest, Some(entries))?;
            opening.finish(None).map(Some)
        }
        Found::Database(manifest) => {
            if !options.salvage {
                check_no_erasure(&**storage, &manifest)?;
            }
            let before = manifest.try_clone()?;
            let opened = Opening::new(storage, options, *manifest, None)?.finish(None);
            if matches!(opened, Err(Error::Corrupt { .. })) && !options.salvage {
                // Who was overwriting something may have died meanwhile.
                check_no_erasure(&**storage, &before)?;
            }
            let db = opened?;
            // A writer that has begun since may have changed the table on disk under us.
            let unchanged = before.state != State::Clean
                || Manifest::read(&**storage)?.is_some_and(|now| now == before);
            Ok(unchanged.then_some(db))
        }
        Found::Nothing => Err(Error::NotFound(NotFound::Database(storage.describe("")))),
    }
}

/// Refuses a database in which an erasure was interrupted: what it was overwriting may be torn. One
/// that is under way does no harm for longer than it takes to read again.
pub(crate) fn check_no_erasure(storage: &dyn Storage, manifest: &Manifest) -> Result<()> {
    let is_begun = || {
        let journal = erasure::read_journal(storage, &manifest.uuid, manifest.generation)?;
        Ok(journal.is_some())
    };
    let is_locked = || {
        let locked = storage.is_locked(LOCK);
        locked.map_err(|error| Error::from_io("look at", storage.describe(LOCK), error))
    };
    // The second look is for a writer that has finished and closed in between.
    if is_begun()? && !is_locked()? && is_begun()? {
        return Err(Error::incompatible(format!(
            "an erasure was interrupted in {}; open it once for writing, which finishes it",
            storage.describe("")
        )));
    }
    Ok(())
}
