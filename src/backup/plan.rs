//! What is to be done for a backup, and whether it may be: looks into the destination, changing nothing.

use std::io;
use std::sync::Arc;

use crate::bytes::{collected, copied};
use crate::db::{Db, Extent, LOCK, check_untouched};
use crate::error::{Error, Result};
use crate::herolib;
use crate::log::erasure;
use crate::log::segment::name;
use crate::manifest::{DataFile, MANIFEST, Manifest, State};
use crate::planted::planted;
use crate::storage::{Access, File, Storage};

/// What is to be done for a backup, all of it allowed.
pub(super) struct Plan<'a> {
    pub(super) db: &'a Db,
    pub(super) extent: &'a Extent,
    pub(super) destination: &'a Arc<dyn Storage>,
    /// The destination's, if there is a backup, finished or not.
    pub(super) earlier: Option<Manifest>,
    /// A backup that was interrupted was overwriting there what is erased.
    pub(super) is_overwriting: bool,
    /// Nothing says whether the destination has the same bytes, of files that others may write to.
    is_copied_anew: bool,
    /// What the backup's will be before it is opened.
    pub(super) wanted: Manifest,
}

impl<'a> Plan<'a> {
    /// Looks into the destination, changing nothing, and refuses what isn't fit.
    pub(super) fn new(
        db: &'a Db,
        extent: &'a Extent,
        destination: &'a Arc<dyn Storage>,
    ) -> Result<Plan<'a>> {
        let files = extent.parts.iter().map(|part| DataFile {
            number: part.segment.number,
            kind: part.kind,
            len: part.end as u32,
        });
        let wanted = Manifest {
            generation: extent.generation,
            backup: true,
            state: State::Open,
            next_id: extent.next_id,
            commit: extent.commit,
            base: extent.base,
            dump: None,
            files: collected(files)?,
            is_compacting: false,
            clears: copied(&extent.clears)?,
            ..extent.manifest.try_clone()?
        };
        let earlier = Manifest::read(&**destination)?;
        let (uuid, generation) = (&wanted.uuid, wanted.generation);
        let is_overwriting = earlier.as_ref().is_some_and(is_interrupted)
            && erasure::read_journal(&**destination, uuid, generation)?.is_some()
            && !planted!(overwritten_backup_compared);
        let plan = Plan {
            db,
            extent,
            destination,
            earlier,
            is_overwriting,
            is_copied_anew: wanted.is_taken_over_in_memory(),
            wanted,
        };
        plan.extent.check_complete(db.storage())?;
        plan.check_destination()?;
        Ok(plan)
    }

    pub(super) fn refused(&self, why: &str) -> Error {
        Error::incompatible(format!("{} {why}", self.destination.describe("")))
    }

    fn check_destination(&self) -> Result<()> {
        let Some(earlier) = &self.earlier else {
            // A crash right at the beginning of a backup leaves nothing else.
            let ours = [LOCK.to_owned(), format!("{MANIFEST}.tmp")];
            if list(&**self.destination)?
                .iter()
                .all(|name| ours.contains(name))
            {
                return Ok(());
            }
            return Err(self.refused("isn't empty and holds no backup"));
        };
        if earlier.uuid != self.wanted.uuid {
            return Err(self.refused("holds another database"));
        }
        if !earlier.backup || earlier.state == State::Resetting {
            return Err(self.refused("holds no backup, or one that was written to since"));
        }
        if !is_interrupted(earlier) {
            check_untouched(self.destination, earlier)?;
            for file in herolib::data_files(&**self.destination)? {
                if earlier.file(file.number).is_none() && self.wanted.file(file.number).is_some() {
                    let why = format!("holds {}, which is not the backup's", name(file.number));
                    return Err(self.refused(&why));
                }
            }
        }
        if self.extends(earlier) {
            self.check_earlier(earlier)?;
            // What is being overwritten may be torn, and is compared when that is finished.
            if !self.is_overwriting {
                self.check_history(earlier)?;
            }
        } else if earlier.state != State::Unfinished {
            self.check_earlier(earlier)?;
            // Of another generation there are no bytes to be compared.
            let is_same = earlier.commit == self.extent.commit;
            if is_same && earlier.time_us != self.extent.time_us {
                return Err(self.another_history());
            }
            if !is_same && earlier.generation > self.wanted.generation {
                let why = "holds a backup from after a compaction that this database doesn't know, or this \
                           handle of it: of another copy, or of what it was before it was set back";
                return Err(self.refused(why));
            }
        }
        Ok(())
    }

    /// Refuses a backup of what the database doesn't have, because it was set back, or is read by a handle
    /// that doesn't know of it yet.
    fn check_earlier(&self, earlier: &Manifest) -> Result<()> {
        let is_empty = earlier.files.iter().all(|file| file.len == 0);
        if is_empty || earlier.commit <= self.extent.commit {
            return Ok(());
        }
        let why = format!(
            "holds a backup up to commit {}, and the database ends with commit {}",
            earlier.commit, self.extent.commit
        );
        Err(self.refused(&why))
    }

    pub(super) fn check_history(&self, earlier: &Manifest) -> Result<()> {
        match self.has_same_beginning(earlier)? {
            true => Ok(()),
            false => Err(self.another_history()),
        }
    }

    fn another_history(&self) -> Error {
        self.refused("holds a backup of another history than this database's")
    }

    /// Whether the bytes of `earlier` are bytes of this backup too.
    pub(super) fn extends(&self, earlier: &Manifest) -> bool {
        earlier.generation == self.wanted.generation && !self.is_copied_anew
    }

    pub(super) fn failed(&self, action: &'static str, name: &str, error: io::Error) -> Error {
        Error::from_io(action, self.destination.describe(name), error)
    }

    pub(super) fn open(&self, number: u16, access: Access) -> Result<Arc<dyn File>> {
        let name = name(number);
        let opened = self.destination.open(&name, access);
        opened.map_err(|error| self.failed("open", &name, error))
    }
}

/// The names in a directory, none if there is no directory.
pub(super) fn list(storage: &dyn Storage) -> Result<Vec<String>> {
    match storage.list("") {
        Ok(names) => Ok(names),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(Error::from_io("list", storage.describe(""), error)),
    }
}

/// Whether a backup, the first or a later one, was begun in this directory and not finished.
pub(super) fn is_interrupted(manifest: &Manifest) -> bool {
    matches!(manifest.state, State::Unfinished | State::Extending)
}
