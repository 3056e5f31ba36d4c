//! How a database is opened, and the limits that are stored with it.

use crate::error::{Error, Result};

/// Default for [`Options::record_nr_max`]: ids are below 16,777,215.
pub const DEFAULT_RECORD_NR_MAX: u32 = 16_777_215;
/// Default for [`Options::record_size_max`]: 65,535 bytes, the longest value that herolib can read.
pub const DEFAULT_RECORD_SIZE_MAX: u32 = 65_535;
/// Default for [`Options::file_size`]: 500 MiB.
pub const DEFAULT_FILE_SIZE: u32 = 524_288_000;
/// The longest value that any database can hold: 2^31 - 1 bytes.
pub const RECORD_SIZE_LIMIT: u32 = (1 << 31) - 1;
/// Default for [`Sync::Interval`]: one second.
pub const DEFAULT_SYNC_INTERVAL_MS: u32 = 1000;
/// No next id is beyond this: ids have 32 bits.
pub(crate) const LAST_NEXT_ID: u64 = 1 << 32;

/// When a commit is on disk. The death of the process loses nothing in any mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Sync {
    /// When the operating system likes; power loss may take the last seconds.
    #[default]
    Os,
    /// Before the call returns; concurrent commits share one sync.
    Commit,
    /// A background thread syncs every so many milliseconds.
    Interval(u32),
}

/// Where the lookup table lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum LookupKind {
    /// In memory; a checkpoint is written at close.
    #[default]
    Memory,
    /// In a mapped file, for more ids than memory.
    Disk,
}

/// How data files are read and written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum IoMode {
    /// Through mappings where the file system allows, else by system calls.
    #[default]
    Auto,
    /// Through mappings, or fail.
    Map,
    /// By system calls.
    File,
}

/// How to open a database. `Options::default()` opens what is there, or makes an incremental one.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The caller chooses the ids. Fixed when the database is made; asked of an incremental
    /// database it is [`Error::Incompatible`]. Without it an existing database is what it is.
    pub key_value: bool,
    /// Open for reading only: nothing on disk is changed, and a writer may be at work.
    pub read_only: bool,
    /// Fail with [`Error::NotFound`] rather than make a database.
    pub must_exist: bool,
    /// Start empty: remove the database's own files first, and nothing else.
    pub reset: bool,
    /// Keep everything in memory; no files, the path is ignored.
    pub memory: bool,
    /// Open what can be read of a damaged database, read-only.
    pub salvage: bool,
    /// A new database writes no herolib lookup dump at close. Stored.
    pub native: bool,
    /// Reconstruct the ids of a herolib directory that has no lookup dump.
    pub adopt: bool,
    /// Ids are below this; 0: what is stored, else [`DEFAULT_RECORD_NR_MAX`]. Stored. Lower than
    /// what is stored is [`Error::Incompatible`].
    pub record_nr_max: u32,
    /// Longest value in bytes, up to [`RECORD_SIZE_LIMIT`]; 0: what is stored, else
    /// [`DEFAULT_RECORD_SIZE_MAX`]. Stored. Longer values from before stay readable.
    pub record_size_max: u32,
    /// A data file that has reached this many bytes is closed and a new one begun. A
    /// compaction makes longer ones where few of the 65,536 numbers for them are left. 0: what is
    /// stored, else [`DEFAULT_FILE_SIZE`]. Stored.
    pub file_size: u32,
    /// Where the lookup table lives.
    pub lookup: LookupKind,
    /// When a commit is on disk.
    pub sync: Sync,
    /// How data files are read and written.
    pub io: IoMode,
    /// Compact in the background once this share of the bytes in the data files is dead, in
    /// percent, below 100; 0: never. A handle that only reads never does. Not stored.
    pub auto_compact_percent: u32,
    /// What that compaction keeps: so many versions of each record; 0: 1. Not stored.
    pub auto_keep_versions: u64,
}

impl Options {
    pub(crate) fn validate(&self) -> Result<()> {
        if self.record_size_max > RECORD_SIZE_LIMIT {
            return Err(Error::invalid(format!(
                "record_size_max {} is over the limit of {RECORD_SIZE_LIMIT} bytes",
                self.record_size_max
            )));
        }
        if self.auto_compact_percent > 99 {
            return Err(Error::invalid(format!(
                "auto_compact_percent {} is over 99",
                self.auto_compact_percent
            )));
        }
        if self.sync == Sync::Interval(0) {
            return Err(Error::invalid("a sync interval of 0 milliseconds"));
        }
        let read_only = self.read_only || self.salvage;
        if read_only && self.reset {
            return Err(Error::invalid(
                "reset removes files, and read-only or salvage forbids it",
            ));
        }
        if self.memory && (read_only || self.must_exist || self.adopt) {
            return Err(Error::invalid(
                "a database in memory is always new: read-only, must-exist, salvage and adopt do not go with it",
            ));
        }
        Ok(())
    }
}

/// The part of the options that is stored with the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Ids are below this.
    pub record_nr_max: u32,
    /// Longest value in bytes.
    pub record_size_max: u32,
    /// A data file that has reached this many bytes is closed.
    pub file_size: u32,
}

impl Limits {
    /// What a database gets that stores nothing yet.
    pub const DEFAULT: Limits = Limits {
        record_nr_max: DEFAULT_RECORD_NR_MAX,
        record_size_max: DEFAULT_RECORD_SIZE_MAX,
        file_size: DEFAULT_FILE_SIZE,
    };

    /// These limits, changed by what `options` asks for.
    pub(crate) fn with(self, options: &Options) -> Limits {
        let choose = |asked: u32, stored: u32| if asked == 0 { stored } else { asked };
        Limits {
            record_nr_max: choose(options.record_nr_max, self.record_nr_max),
            record_size_max: choose(options.record_size_max, self.record_size_max),
            file_size: choose(options.file_size, self.file_size),
        }
    }
}
