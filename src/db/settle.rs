//! Leaves on disk the log that was read and nothing else, so that it may be built upon.

use super::opening::Opening;
use crate::bytes::collected;
use crate::error::{Error, FailedSync, Result};
use crate::log::recovery::{self, LogFile, Outcome};
use crate::log::segment::name;
use crate::manifest::State;
use crate::options::Sync;
use crate::planted::planted;
use crate::reader::Reader;
use crate::storage::Access;

/// After the death of a writer the part of the log that was perhaps not synced is written again,
/// if it isn't longer than this; for why, see [`recovery::rewrite`]. A longer one is when the
/// manifest says that a sync has failed.
const LONGEST_REWRITE: u64 = 64 << 20;

impl Opening<'_> {
    /// Leaves on disk the log that was read, and nothing else: cuts what lies behind its end, and
    /// syncs it, so that it may be built upon.
    pub(super) fn settle_log(&mut self, outcome: &Outcome) -> Result<()> {
        let storage = &**self.storage;
        let behind_end = outcome.end.is_some_and(|end| {
            self.log_files
                .iter()
                .any(|file| file.number == end.file && file.len > u64::from(end.position))
        });
        self.cut_reserved(outcome)?;
        if outcome.torn || behind_end || !outcome.unfinished.is_empty() {
            recovery::cut(storage, &self.log_files, outcome)?;
            for file in &mut self.log_files {
                if let Some(end) = outcome.end.filter(|end| end.file == file.number) {
                    file.len = u64::from(end.position);
                }
            }
        }
        self.log_files.retain(|file| {
            !outcome.behind.contains(&file.number) && !outcome.unfinished.contains(&file.number)
        });
        let Some(end) = outcome.end.filter(|_| outcome.has_unsynced()) else {
            return Ok(());
        };
        let failed = |name: &str, error| Error::from_io("sync", storage.describe(name), error);
        let unsynced = self.unsynced_files(outcome)?;
        let total: u64 = unsynced.iter().map(|(_, from, to)| to - from).sum();
        let again = total <= LONGEST_REWRITE || self.manifest.state == State::SyncFailed;
        for (file, from, to) in unsynced {
            if again && !planted!(not_written_again) {
                recovery::rewrite(storage, file, from, to)?;
            }
            // The last one is synced with what is going to be appended to it, unless whatever
            // readers see must be on disk.
            if (file.number != end.file || self.options.sync == Sync::Commit)
                && !planted!(recovered_log_not_synced)
            {
                let name = name(file.number);
                storage
                    .open(&name, Access::Write)
                    .and_then(|file| file.sync())
                    .map_err(|error| failed(&name, error))?;
            }
        }
        storage
            .sync_directory("")
            .map_err(|error| failed("", error))
    }

    /// Gives back the space that was reserved in data files before the last one: a loss of power may
    /// have undone the cut that a roll-over makes. After a clean close it would look as if somebody
    /// had appended to them.
    fn cut_reserved(&mut self, outcome: &Outcome) -> Result<()> {
        let storage = &**self.storage;
        for index in 0..self.log_files.len() {
            let LogFile { number, len, .. } = self.log_files[index];
            let is_last = outcome.end.is_none_or(|end| end.file <= number);
            let Some(end) = self.log_end_of(index, outcome) else {
                continue;
            };
            if is_last || end >= len {
                continue;
            }
            let name = name(number);
            let written = Reader::sequential(storage, &name)?.end_of_zeros(end)?;
            if written < len {
                // Not what is ours to cut.
                continue;
            }
            let cut = || {
                let file = storage.open(&name, Access::Write)?;
                file.set_len(end)?;
                file.sync().map_err(FailedSync::mark)
            };
            cut().map_err(|error| Error::from_io("cut", storage.describe(&name), error))?;
            self.log_files[index].len = end;
        }
        Ok(())
    }

    /// The parts of the log that may not be on disk: data file, from, to.
    fn unsynced_files(&self, outcome: &Outcome) -> Result<Vec<(&LogFile, u64, u64)>> {
        let Some(end) = outcome.end else {
            return Ok(Vec::new());
        };
        let synced = outcome.synced.unwrap_or_default();
        let files = self.log_files.iter().filter(|file| {
            file.header.is_some() && synced.file <= file.number && file.number <= end.file
        });
        let parts = files.map(|file| {
            let from = if file.number == synced.file {
                synced.position
            } else {
                0
            };
            let to = if file.number == end.file {
                u64::from(end.position)
            } else {
                file.len
            };
            (file, u64::from(from).min(to), to)
        });
        collected(parts)
    }

    /// Where the log ends in a data file that has a part of it.
    pub(super) fn log_end_of(&self, index: usize, outcome: &Outcome) -> Option<u64> {
        let file = &self.log_files[index];
        let end = outcome.end?;
        if end.file < file.number || (file.header.is_none() && !self.salvage()) {
            return None;
        }
        if end.file == file.number {
            return Some(u64::from(end.position));
        }
        let mut later = self.log_files[index + 1..].iter();
        let next = later.find_map(|next| next.header.filter(|_| next.number <= end.file));
        let after = next.and_then(|header| header.after);
        let after = after.filter(|after| after.file == file.number);
        Some(after.map_or(file.len, |after| u64::from(after.position)))
    }

    /// Refuses a data file that is shorter than the log in it. Those before the checkpoint are not
    /// read.
    pub(super) fn check_lengths(&self, outcome: &Outcome) -> Result<()> {
        if self.salvage() {
            return Ok(());
        }
        let storage = &**self.storage;
        for (index, file) in self.log_files.iter().enumerate() {
            if let Some(end) = self
                .log_end_of(index, outcome)
                .filter(|&end| end > file.len)
            {
                return Err(Error::corrupt(
                    storage.describe(&name(file.number)),
                    file.len,
                    format!("the data file ends here, and its log had {end} bytes"),
                ));
            }
        }
        Ok(())
    }
}
