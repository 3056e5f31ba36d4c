//! Hot backup: the database as of one commit, copied into another directory while reading and
//! writing go on.
//!
//! Data files are only appended to, so what belongs to a commit is known by their lengths, and a
//! backup that is there already needs only what was appended since. The copy is independent: blocks
//! are shared where the file system unshares them by itself, but never files. A hard link would be
//! the same file: erasing a value, which overwrites it in place, would reach into every backup.
//!
//! What the destination is at any moment, its manifest says, and that is replaced atomically:
//! * [`State::Unfinished`]: no database yet. Where nothing was, or what was has to be overwritten.
//! * [`State::Extending`]: still the earlier backup. New data stand behind its ends, or in files that
//!   it doesn't name, and don't count.
//! * Closed cleanly: all was copied and synced, and the engine has opened it and read what is new.
//!
//! [`State::Unfinished`]: crate::manifest::State::Unfinished
//! [`State::Extending`]: crate::manifest::State::Extending

mod copying;
mod earlier;
mod plan;

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use self::plan::Plan;
use crate::db::{Db, LOCK};
use crate::error::{Error, Result};
use crate::options::IoMode;
use crate::storage::Storage;
use crate::storage::os::OsStorage;

/// So often a reader's handle copies again what the writer has overwritten while it was copied.
const MOST_ATTEMPTS: u32 = 8;

impl Db {
    /// Makes a backup in directory `destination`, or brings one up to date: all commits that were
    /// visible when it began, with every version of every record. Readers and writers go on; the
    /// writer's lock is held only to note how long the data files are.
    ///
    /// The backup is a database like any other, closed cleanly, with this one's uuid, and may be
    /// opened for reading and for writing. As long as nobody writes to it, another backup into the
    /// same directory takes only what is new. After the database's generation has changed, all is
    /// copied anew. It shares no file with this database: what happens to one leaves the other as it
    /// is. Two databases of one uuid that are both written to go apart: this backs up, it doesn't
    /// merge.
    ///
    /// The directory, which is made if need be, must be empty or hold a backup of this database that
    /// nothing was written to; anything else is [`Error::Incompatible`] and stays untouched, and one
    /// that is open for writing is [`Error::Locked`].
    ///
    /// `progress` is told how many bytes are copied and how many are to be, at the beginning, every
    /// few MiB, and when all are copied. It may use the database, but not erase: erasures wait for
    /// the end of the backup. Nor may it wait for a backup that another thread begins, which lets an
    /// erasure go first that waits already. Where it breaks, the answer is [`Error::Cancelled`].
    ///
    /// After a failure, a crash or a cancellation the directory holds the earlier backup, or
    /// opening it says that the backup is unfinished; making the backup again completes it. Only
    /// while it is copied anew over one of another generation may there be neither: who wants to have
    /// one at every moment takes turns between two directories.
    ///
    /// [`Error::Busy`]: a reader's handle whose files went with a compaction of the writer's is to be
    /// refreshed; or the writer erases quicker than can be copied.
    ///
    /// When it returns, everything is on disk. Cost: copies what is new, and reads it once more; 8 bytes of
    /// memory per id meanwhile.
    pub fn backup(
        &self,
        destination: impl AsRef<Path>,
        progress: impl FnMut(u64, u64) -> ControlFlow<()>,
    ) -> Result<()> {
        let path = destination.as_ref();
        if path.as_os_str().is_empty() {
            return Err(Error::invalid("the path of the backup is empty"));
        }
        let absolute = std::path::absolute(path)
            .map_err(|error| Error::from_io("find", path.to_string_lossy(), error))?;
        self.backup_to(
            Arc::new(OsStorage::new(absolute, IoMode::default())),
            progress,
        )
    }

    /// The same into a storage.
    pub fn backup_to(
        &self,
        destination: Arc<dyn Storage>,
        mut progress: impl FnMut(u64, u64) -> ControlFlow<()>,
    ) -> Result<()> {
        let _no_erasure = self.without_erasures_for_long()?;
        for _ in 0..MOST_ATTEMPTS {
            if self.copy_to(&destination, &mut progress)? {
                return Ok(());
            }
        }
        Err(erases_too_quickly())
    }

    /// `false`: once more. What another process has overwritten meanwhile was copied half before that and
    /// half after it.
    fn copy_to(
        &self,
        destination: &Arc<dyn Storage>,
        progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
    ) -> Result<bool> {
        // What is going to be refused is refused before anything is touched.
        let extent = self.extent()?;
        self.check_other_directory(&**destination)?;
        Plan::new(self, &extent, destination)?;
        let failed = |action, error| Error::from_io(action, destination.describe(""), error);
        destination
            .create_root()
            .map_err(|error| failed("make directory", error))?;
        // It may have been made just now, in its place.
        self.check_other_directory(&**destination)?;
        let lock = destination
            .lock(LOCK)
            .map_err(|error| failed("lock", error))?
            .ok_or_else(|| Error::Locked {
                path: destination.describe(LOCK),
            })?;
        // What is there may be another by now, and everything that is locked out has come to an end.
        let extent = self.extent()?;
        // A backup has nothing that a loss of power could still take from its database, where its
        // readers have nothing of that.
        self.show_up_to(extent.commit)?;
        Plan::new(self, &extent, destination)?.carry_out(lock, progress)
    }

    fn check_other_directory(&self, destination: &dyn Storage) -> Result<()> {
        let identity = |storage: &dyn Storage| {
            let identity = storage.identity();
            identity.map_err(|error| Error::from_io("look at", storage.describe(""), error))
        };
        let itself = std::ptr::addr_eq(self.storage(), destination);
        let there = identity(destination)?;
        if itself || (there.is_some() && there == identity(self.storage())?) {
            return Err(Error::invalid(format!(
                "{} is the database's own directory, and a backup goes into another one",
                destination.describe("")
            )));
        }
        Ok(())
    }
}

fn erases_too_quickly() -> Error {
    Error::Busy {
        what: "a writer erases in the database quicker than a reader can copy it".into(),
    }
}
