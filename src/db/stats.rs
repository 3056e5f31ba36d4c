//! Figures about a database.

use super::{Db, Shared, World};
use crate::error::Result;
use crate::herolib;
use crate::location::Location;
use crate::log::record::HEAD;
use crate::sync::atomic::Ordering;

/// Figures about a database as of one moment, more or less: commits may come between two of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Live records.
    pub live: u64,
    /// Versions that are kept, deletions included, and those that an erasure has overwritten, until
    /// a compaction; of what herolib wrote only the newest ones.
    pub versions: u64,
    /// Deletions and erasures among them, but not what an erasure has overwritten. A deletion that a clear
    /// made has no version of its own until a compaction.
    pub deletions: u64,
    /// Bytes of the data files that the newest versions of live records take.
    pub bytes_live: u64,
    /// Bytes of the data files that older versions, deletions and all else take.
    pub bytes_dead: u64,
    /// Data files.
    pub data_files: u64,
    /// Their bytes, space that is reserved ahead not counted.
    pub bytes_on_disk: u64,
    /// The last commit that readers see.
    pub last_commit: u64,
    /// Everything up to this commit is known to be on disk.
    pub synced_commit: u64,
    /// [`Db::snapshot_at`] works from this commit on. Beyond the last one in the middle of a difference
    /// of states that is being applied ([`Db::apply`]), which leads to it.
    pub oldest_commit: u64,
    /// The id that the next insert gets; the one after the highest in a key-value database.
    pub next_id: u64,
    /// Transactions, snapshots and scans that are open.
    pub transactions: u64,
    /// When the last commit was made, in microseconds since the Unix epoch.
    pub last_time_us: u64,
}

impl Shared {
    /// The bytes that the newest versions of live records take in the data files that `counts` says.
    pub(super) fn bytes_live(&self, world: &World, counts: impl Fn(u16) -> bool) -> Result<u64> {
        let nearby = world.log.nearby();
        let header = |location: Location| match nearby.segment(location.file) {
            Some(segment) if !segment.is_own(location) => herolib::record::HEADER,
            _ => HEAD,
        };
        let mut bytes = 0;
        for (id, entry) in world.lookup.entries() {
            let location = entry.location();
            if !entry.is_live() || !counts(location.file) {
                continue;
            }
            let len = match entry.len() {
                Some(len) => len as u64,
                None => {
                    // What it leads to from here on is not overwritten meanwhile.
                    let _reading = self.read();
                    let entry = world.lookup.get(id);
                    if !entry.is_live() {
                        continue;
                    }
                    let location = entry.location();
                    u64::from(world.log.segment_of(location)?.head(location, id)?.len)
                }
            };
            bytes += header(location) as u64 + len;
        }
        Ok(bytes)
    }
}

impl Db {
    /// Figures about the database. All are at hand but `bytes_live`, and what follows from it, for
    /// which the lookup is walked through: a few nanoseconds for each id; and the head of each
    /// value over 32 KiB is read.
    pub fn stats(&self) -> Result<Stats> {
        let shared = &*self.shared;
        shared.check_process()?;
        let (tally, last_time_us) = {
            let writer = shared.writer();
            (writer.tally, writer.time_us)
        };
        let world = shared.world.load();
        let (last_commit, live, _) = shared.counters.shown();
        let bytes_live = shared.bytes_live(&world, |_| true)?;
        let bytes_on_disk = world.log.bytes();
        Ok(Stats {
            live,
            versions: tally.versions,
            deletions: tally.deletions,
            bytes_live,
            bytes_dead: bytes_on_disk.saturating_sub(bytes_live),
            data_files: world.log.segments().count() as u64,
            bytes_on_disk,
            last_commit,
            synced_commit: if shared.volatile {
                last_commit
            } else {
                shared.group.last_synced()
            },
            oldest_commit: world.oldest(),
            next_id: shared.counters.next_id.load(Ordering::Acquire),
            transactions: shared.snapshots.count(),
            last_time_us,
        })
    }
}
