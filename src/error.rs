//! What can go wrong, one variant per cause, each with what a person needs to act on it.
//!
//! The C boundary turns each variant into its `OURDB_*` code by one exhaustive match, and the
//! `Display` text into `ourdb_errmsg()`.

use std::borrow::Cow;
use std::io;
use std::sync::Arc;

/// The result of every fallible call of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No live record, neighbour, version or database; says which.
    #[error("{0}")]
    NotFound(NotFound),
    /// An argument that can't be meant.
    #[error("{0}")]
    InvalidArgument(Cow<'static, str>),
    /// Incremental mode: the id holds no live record, and ids are given out by insert only.
    #[error(
        "id {id} holds no live record, and an incremental database gives out its ids by insert; set can only overwrite"
    )]
    IdNotAssigned {
        /// The id asked for.
        id: u32,
    },
    /// The id is not below the database's limit.
    #[error("id {id} is out of range: ids of this database are below {limit} (record_nr_max)")]
    IdOutOfRange {
        /// The id asked for.
        id: u32,
        /// `record_nr_max`.
        limit: u32,
    },
    /// The value, or all values of a commit together, are too long.
    #[error("{what} of {len} bytes is longer than the limit of {limit} bytes ({which})")]
    RecordTooLarge {
        /// "a value" or "a commit".
        what: &'static str,
        /// Its length in bytes.
        len: u64,
        /// The limit in bytes.
        limit: u64,
        /// Where the limit comes from.
        which: &'static str,
    },
    /// No id or no data file number is left.
    #[error("{0}")]
    Full(Cow<'static, str>),
    /// Something that a transaction has read was changed since it began: nothing of it was written,
    /// and it can be tried again from its beginning.
    #[error("{what} was changed by commit {commit}, after this transaction read it")]
    Conflict {
        /// "id 7", or all records at once.
        what: Cow<'static, str>,
        /// The first commit that changed it.
        commit: u64,
    },
    /// Something is open, or at work, that forbids what was asked for.
    #[error("{what}")]
    Busy {
        /// What is open or at work, in words.
        what: Cow<'static, str>,
    },
    /// The directory is open for writing already.
    #[error("{path} is open for writing already, in this process or another")]
    Locked {
        /// The lock file.
        path: String,
    },
    /// A write on a read-only handle or transaction.
    #[error("this handle is read-only, and {action} would write")]
    ReadOnly {
        /// What was asked for.
        action: &'static str,
    },
    /// A checksum or a structure is wrong.
    #[error("{file} is damaged at offset {offset}: {what}")]
    Corrupt {
        /// The file.
        file: String,
        /// Offset in bytes from the beginning of the file.
        offset: u64,
        /// What was expected and what was found.
        what: Cow<'static, str>,
    },
    /// A format, feature, mode or option that does not fit this database or this library.
    #[error("{0}")]
    Incompatible(Cow<'static, str>),
    /// The operating system failed.
    #[error("{action} {path}: {source}")]
    Io {
        /// What was being done, as "read", "sync".
        action: &'static str,
        /// The file.
        path: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// Disk or quota full; nothing was changed.
    #[error("no space left for {path}: {source}")]
    NoSpace {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// Memory could not be had.
    #[error("out of memory: {what}")]
    OutOfMemory {
        /// What it was wanted for.
        what: Cow<'static, str>,
    },
    /// An earlier write or sync failed; reads go on, a reopen heals.
    #[error("writing was stopped by an earlier failure ({cause}); close and reopen to write again")]
    Poisoned {
        /// That failure.
        cause: Arc<str>,
    },
    /// Whoever watched the progress of long work asked it to stop; nothing was changed.
    #[error("stopped, as the progress callback asked")]
    Cancelled,
    /// Used in a child of the process that opened it.
    #[error("this handle was opened before fork() and can't be used in the child process")]
    Forked,
    /// Ids are chosen by the caller in this database.
    #[error(
        "{action} needs an incremental database; in this key-value database the caller chooses the ids"
    )]
    WrongMode {
        /// What was asked for.
        action: &'static str,
    },
}

/// What a sync does, in [`Error::Io`].
const SYNC: &str = "sync";
const SYNC_DIRECTORY: &str = "sync directory";

/// Marks a failed sync among the errors of a function that does other things besides.
#[derive(Debug, thiserror::Error)]
#[error("{source}")]
pub(crate) struct FailedSync {
    action: &'static str,
    source: io::Error,
}

impl FailedSync {
    /// That of a file.
    pub(crate) fn mark(source: io::Error) -> io::Error {
        let action = SYNC;
        io::Error::new(source.kind(), FailedSync { action, source })
    }

    /// That of a directory.
    pub(crate) fn mark_directory(source: io::Error) -> io::Error {
        let action = SYNC_DIRECTORY;
        io::Error::new(source.kind(), FailedSync { action, source })
    }
}

/// What was not found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotFound {
    /// No live record with that id.
    #[error("no live record has id {0}")]
    Record(u32),
    /// The id never held a record.
    #[error("id {0} never held a record")]
    History(u32),
    /// The record had no live value at that commit.
    #[error("id {id} had no value at commit {commit}")]
    AtCommit {
        /// The id asked for.
        id: u32,
        /// The commit asked for.
        commit: u64,
    },
    /// The record had no live value at that time.
    #[error("id {id} had no value at {time_us} microseconds since the Unix epoch")]
    AtTime {
        /// The id asked for.
        id: u32,
        /// The time asked for, microseconds since the Unix epoch.
        time_us: u64,
    },
    /// No live record in that direction.
    #[error("there is no live record {0}")]
    Neighbour(Neighbour),
    /// A commit that was never made, or from whose time not all versions are kept.
    #[error(
        "commit {commit} is not to be seen any more, or not yet: commits {oldest} to {last} are"
    )]
    Commit {
        /// The commit asked for.
        commit: u64,
        /// The first one whose versions are all kept.
        oldest: u64,
        /// The last one made.
        last: u64,
    },
    /// No database at that path.
    #[error("there is no database in {0}")]
    Database(String),
}

/// A direction in which a neighbour was looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Neighbour {
    /// The lowest id.
    #[error("at all, so none is the first")]
    First,
    /// The highest id.
    #[error("at all, so none is the last")]
    Last,
    /// The nearest id strictly above.
    #[error("above id {0}")]
    Above(u32),
    /// The nearest id strictly below.
    #[error("below id {0}")]
    Below(u32),
}

impl Error {
    pub(crate) fn invalid(what: impl Into<Cow<'static, str>>) -> Error {
        Error::InvalidArgument(what.into())
    }

    pub(crate) fn incompatible(what: impl Into<Cow<'static, str>>) -> Error {
        Error::Incompatible(what.into())
    }

    pub(crate) fn corrupt(
        file: impl Into<String>,
        offset: u64,
        what: impl Into<Cow<'static, str>>,
    ) -> Error {
        Error::Corrupt {
            file: file.into(),
            offset,
            what: what.into(),
        }
    }

    /// Whether it was a sync that failed: what the kernel holds may differ from what is on disk,
    /// and trying again would not tell.
    pub(crate) fn is_failed_sync(&self) -> bool {
        self.is_of(SYNC) || self.is_failed_directory_sync()
    }

    /// The same of a directory: the names that others have made in it may be lost as well.
    pub(crate) fn is_failed_directory_sync(&self) -> bool {
        self.is_of(SYNC_DIRECTORY)
    }

    fn is_of(&self, what: &str) -> bool {
        matches!(self, Error::Io { action, .. } | Error::NoSpace { action, .. } if *action == what)
    }

    /// Sorts what the operating system said into the cases that a caller can act on.
    pub(crate) fn from_io(
        action: &'static str,
        path: impl Into<String>,
        source: io::Error,
    ) -> Error {
        let path = path.into();
        let (action, source) = match source.downcast::<FailedSync>() {
            Ok(FailedSync { action, source }) => (action, source),
            Err(source) => (action, source),
        };
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::NoSpace {
                action,
                path,
                source,
            },
            io::ErrorKind::OutOfMemory => Error::OutOfMemory {
                what: format!("{action} {path}").into(),
            },
            _ => Error::Io {
                action,
                path,
                source,
            },
        }
    }
}
