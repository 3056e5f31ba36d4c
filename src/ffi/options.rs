//! The options struct, as old and new callers agree on it.

use std::ffi::c_int;

use super::call::finish;
use super::failure::Outcome;
use super::sized::{self, Growing};
use crate::error::Error;
use crate::options::{DEFAULT_SYNC_INTERVAL_MS, IoMode, LookupKind, Options, Sync};

/// The caller chooses the ids (key-value mode). The mode is fixed when the database is made:
/// without this flag a new database is incremental, and an existing one is what it is; with it an
/// incremental one is OURDB_INCOMPATIBLE.
pub const OURDB_OPEN_KEY_VALUE: u32 = 1;
/// For reading only: nothing in the directory is changed, no lock is taken, and a writer may be at
/// work, here or in another process. The handle sees what was committed when it was opened, or
/// when ourdb_refresh() was called last. An absent database is OURDB_NOT_FOUND.
pub const OURDB_OPEN_READ_ONLY: u32 = 2;
/// An absent database is OURDB_NOT_FOUND, and nothing is created. Without this flag the directory
/// is made, with its parents.
pub const OURDB_OPEN_MUST_EXIST: u32 = 4;
/// Start empty: removes the database's own files, and nothing else in the directory. Of a directory
/// of herolib's those are its data files and its lookup dump, whether it could be opened or not.
pub const OURDB_OPEN_RESET: u32 = 8;
/// No files: everything is in memory and gone after ourdb_close(). The path is ignored and may be
/// NULL. Goes with neither READ_ONLY, MUST_EXIST, SALVAGE nor ADOPT.
pub const OURDB_OPEN_MEMORY: u32 = 16;
/// Open what can be read of a damaged database, for reading only; what can't be read is missing,
/// OURDB_CORRUPT, or, where the disk fails, OURDB_IO. Where the newest version of a record is
/// missing, the one before it takes its place, and a record whose deletion is missing is live;
/// ourdb_check() names what is missing. Without a sound MANIFEST nothing is salvaged. What
/// herolib has written since OurDB's last close is left out. No file is mapped. To rescue what is
/// there; never the normal way to open.
pub const OURDB_OPEN_SALVAGE: u32 = 32;
/// A new database writes no lookup dump for herolib at close, which makes the close faster. Stored
/// with the database.
pub const OURDB_OPEN_NATIVE: u32 = 64;
/// Reconstruct the ids of a herolib directory that has no lookup dump (see herolib directories).
pub const OURDB_OPEN_ADOPT: u32 = 128;

/// ourdb_options.lookup: the table from id to place is in memory. The default.
pub const OURDB_LOOKUP_MEMORY: u32 = 0;
/// ourdb_options.lookup: the table is in a file, for more ids than memory has room for.
pub const OURDB_LOOKUP_DISK: u32 = 1;

/// ourdb_options.sync: the operating system writes when it likes. The default.
pub const OURDB_SYNC_OS: u32 = 0;
/// ourdb_options.sync: a commit is on disk before the call returns.
pub const OURDB_SYNC_COMMIT: u32 = 1;
/// ourdb_options.sync: a background thread syncs every sync_interval_ms.
pub const OURDB_SYNC_INTERVAL: u32 = 2;

/// ourdb_options.io: data files are mapped into memory where the file system allows it, otherwise
/// read and written by system calls. The default.
pub const OURDB_IO_AUTO: u32 = 0;
/// ourdb_options.io: mapped, or the open fails.
pub const OURDB_IO_MAP: u32 = 1;
/// ourdb_options.io: by system calls only. Slower by far; for file systems that can't be trusted
/// with mappings, and programs that are short of address space.
pub const OURDB_IO_FILE: u32 = 2;

/// How a database is opened. Prepare it with ourdb_options_init(), then set what is wanted:
/// every field but size is 0 after that, and 0 means the default.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ourdb_options {
    /// sizeof(ourdb_options), as ourdb_options_init() set it.
    pub size: usize,
    /// OURDB_OPEN_..., combined with |.
    pub flags: u32,
    /// Ids are below this. 0: what the database has stored, otherwise 16777215. Stored; may be
    /// raised at a later open; lower than what is stored is OURDB_INCOMPATIBLE.
    pub record_nr_max: u32,
    /// The longest value in bytes, up to 2147483647. 0: what the database has stored, otherwise
    /// 65535. Stored; may be changed at a later open, and longer values from before stay readable.
    /// herolib can't read values over 65535 bytes.
    pub record_size_max: u32,
    /// A data file that has reached this many bytes is closed and a new one begun. A compaction
    /// makes longer ones where few of the 65536 numbers for them are left. 0: what the
    /// database has stored, otherwise 524288000. Stored; may be changed at a later open.
    pub file_size: u32,
    /// OURDB_LOOKUP_...
    pub lookup: u32,
    /// OURDB_SYNC_...
    pub sync: u32,
    /// For OURDB_SYNC_INTERVAL: the interval in milliseconds; 0: 1000.
    pub sync_interval_ms: u32,
    /// OURDB_IO_...
    pub io: u32,
    /// Compact by a background thread once so many percent of the bytes in the data files are dead,
    /// those not counted that the last compaction had to keep: from 1 to 99; 0: never (see
    /// Compaction and retention). Not stored. A handle for reading only ignores it.
    pub auto_compact_percent: u32,
    /// 0.
    pub reserved: u32,
    /// How many versions of each record that compaction keeps; 0: 1. Not stored.
    pub auto_keep_versions: u64,
}

// SAFETY: so it is declared, and all of it are numbers.
unsafe impl Growing for ourdb_options {
    const NAME: &'static str = "ourdb_options";
    const INIT: &'static str = "ourdb_options_init";
    // Up to `io`.
    const EARLIER: &'static [usize] = &[size_of::<usize>() + 32];
}

/// Prepares options: zeroes the struct, and sets its size.
///
/// The size tells the library which version of this header the program was compiled with. What a
/// later version's struct has besides is zeroed too.
///
/// @param options  to be filled
/// @param size     sizeof(ourdb_options)
///
/// @return OURDB_OK, or
/// - OURDB_INVALID_ARGUMENT: options is NULL, or size is one that no version's ourdb_options can
///   have; nothing was written
///
/// Cost: none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ourdb_options_init(options: *mut ourdb_options, size: usize) -> c_int {
    // SAFETY: the caller's struct, of the size that it says.
    let outcome = unsafe { sized::init(options, "options", size, |_| ()) };
    finish("ourdb_options_init", outcome)
}

/// The engine's options for what C asks; NULL asks for what is there, or else for the defaults.
///
/// # Safety
/// `options` is NULL or points at as many bytes as its `size` says, if that is a possible size.
pub(super) unsafe fn read(options: *const ourdb_options) -> Outcome<Options> {
    if options.is_null() {
        return Ok(Options::default());
    }
    // SAFETY: the caller promises the same.
    unsafe { sized::read(options, "options") }?.convert()
}

impl ourdb_options {
    fn convert(self) -> Outcome<Options> {
        const KNOWN: u32 = OURDB_OPEN_KEY_VALUE
            | OURDB_OPEN_READ_ONLY
            | OURDB_OPEN_MUST_EXIST
            | OURDB_OPEN_RESET
            | OURDB_OPEN_MEMORY
            | OURDB_OPEN_SALVAGE
            | OURDB_OPEN_NATIVE
            | OURDB_OPEN_ADOPT;
        if self.flags & !KNOWN != 0 {
            let unknown = self.flags & !KNOWN;
            return Err(
                Error::invalid(format!("options->flags: unknown bits {unknown:#x}")).into(),
            );
        }
        if self.reserved != 0 {
            return Err(sized::unknown_field("options"));
        }
        let flag = |bit| self.flags & bit != 0;
        Ok(Options {
            key_value: flag(OURDB_OPEN_KEY_VALUE),
            read_only: flag(OURDB_OPEN_READ_ONLY),
            must_exist: flag(OURDB_OPEN_MUST_EXIST),
            reset: flag(OURDB_OPEN_RESET),
            memory: flag(OURDB_OPEN_MEMORY),
            salvage: flag(OURDB_OPEN_SALVAGE),
            native: flag(OURDB_OPEN_NATIVE),
            adopt: flag(OURDB_OPEN_ADOPT),
            record_nr_max: self.record_nr_max,
            record_size_max: self.record_size_max,
            file_size: self.file_size,
            lookup: match self.lookup {
                OURDB_LOOKUP_MEMORY => LookupKind::Memory,
                OURDB_LOOKUP_DISK => LookupKind::Disk,
                other => return unknown("lookup", other),
            },
            sync: match self.sync {
                OURDB_SYNC_OS => Sync::Os,
                OURDB_SYNC_COMMIT => Sync::Commit,
                OURDB_SYNC_INTERVAL => Sync::Interval(match self.sync_interval_ms {
                    0 => DEFAULT_SYNC_INTERVAL_MS,
                    given => given,
                }),
                other => return unknown("sync", other),
            },
            io: match self.io {
                OURDB_IO_AUTO => IoMode::Auto,
                OURDB_IO_MAP => IoMode::Map,
                OURDB_IO_FILE => IoMode::File,
                other => return unknown("io", other),
            },
            auto_compact_percent: self.auto_compact_percent,
            auto_keep_versions: self.auto_keep_versions,
        })
    }
}

fn unknown(field: &str, value: u32) -> Outcome<Options> {
    Err(Error::invalid(format!("options->{field}: unknown value {value}")).into())
}
