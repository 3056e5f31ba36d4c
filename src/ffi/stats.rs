//! Numbers about a database.

use std::ffi::c_int;

use super::call::{finish, with};
use super::handle::ourdb;
use super::sized::{self, Growing};
use crate::Stats;

/// What there is, as of a moment. Prepare it with ourdb_stats_init(), then any number of calls of
/// ourdb_stats_get() fill it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ourdb_stats {
    /// sizeof(ourdb_stats), as ourdb_stats_init() set it.
    pub size: usize,
    /// Live records, as ourdb_count().
    pub live: u64,
    /// Versions that are kept, deletions among them; of what herolib wrote only the newest ones.
    /// What an erasure removed counts until the next compaction.
    pub versions: u64,
    /// Deletions and erasures among the versions, but not values that an erasure removed, though a
    /// history may have one as OURDB_RECORD_ERASED; the deletions of an ourdb_clear() count in both
    /// from the next compaction on.
    pub deletions: u64,
    /// Bytes in the data files that the newest versions of live records take.
    pub bytes_live: u64,
    /// Bytes in the data files that the rest takes: older versions, deletions, marks of the log. A
    /// compaction that keeps one version gets most of them back.
    pub bytes_dead: u64,
    /// Data files.
    pub data_files: u64,
    /// Their bytes; space that is reserved ahead is not counted.
    pub bytes_on_disk: u64,
    /// The last commit, as ourdb_last_commit().
    pub last_commit: u64,
    /// The last commit that is known to be on disk.
    pub synced_commit: u64,
    /// The first commit that ourdb_txn_begin_at() has a snapshot of. Beyond the last one in the
    /// middle of a difference of states (see ourdb_changes()), which ends with it.
    pub oldest_commit: u64,
    /// The id that the next ourdb_insert() gives out; in a key-value database the one after the
    /// highest that was ever set.
    pub next_id: u64,
    /// Transactions, snapshots and iterators that are open on this handle; an iterator of a
    /// transaction counts with that.
    pub transactions: u64,
    /// The time of the last commit, in microseconds since the Unix epoch; 0 if there is none.
    pub last_time_us: u64,
}

// SAFETY: so it is declared, and all of it are numbers.
unsafe impl Growing for ourdb_stats {
    const NAME: &'static str = "ourdb_stats";
    const INIT: &'static str = "ourdb_stats_init";
}

/// Prepares stats: zeroes the struct, and sets its size.
///
/// @param stats  to be filled
/// @param size   sizeof(ourdb_stats)
///
/// @return OURDB_OK, or
/// - OURDB_INVALID_ARGUMENT: stats is NULL, or size is one that no version's ourdb_stats can have;
///   nothing was written
///
/// Cost: none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ourdb_stats_init(stats: *mut ourdb_stats, size: usize) -> c_int {
    // SAFETY: the caller's struct, of the size that it says.
    let outcome = unsafe { sized::init(stats, "stats", size, |_| ()) };
    finish("ourdb_stats_init", outcome)
}

/// Reads the numbers of a database.
///
/// @param db   the database
/// @param out  from ourdb_stats_init(); receives the numbers, as of one moment. Fields that the
///     library doesn't know are 0. On failure all are, but for the size.
///
/// @return OURDB_OK, or
/// - OURDB_INVALID_ARGUMENT: out is NULL, or was not prepared by ourdb_stats_init(); it is untouched
/// - a code that any read can return (see Errors)
///
/// Cost: a walk over the lookup, a few nanoseconds for each id. It waits for a commit that is being
/// appended.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ourdb_stats_get(db: *const ourdb, out: *mut ourdb_stats) -> c_int {
    // SAFETY: the caller's handle, and struct of the size that it says.
    let outcome = unsafe {
        sized::fill(out, "out", || {
            with(db, |db| Ok(ourdb_stats::from(db.stats()?)))
        })
    };
    finish("ourdb_stats_get", outcome)
}

impl From<Stats> for ourdb_stats {
    fn from(stats: Stats) -> ourdb_stats {
        ourdb_stats {
            size: size_of::<ourdb_stats>(),
            live: stats.live,
            versions: stats.versions,
            deletions: stats.deletions,
            bytes_live: stats.bytes_live,
            bytes_dead: stats.bytes_dead,
            data_files: stats.data_files,
            bytes_on_disk: stats.bytes_on_disk,
            last_commit: stats.last_commit,
            synced_commit: stats.synced_commit,
            oldest_commit: stats.oldest_commit,
            next_id: stats.next_id,
            transactions: stats.transactions,
            last_time_us: stats.last_time_us,
        }
    }
}
