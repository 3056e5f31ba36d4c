//! Whether an earlier backup is of this database's own history, so that what is new can be added to it.

use std::io;

use super::plan::Plan;
use crate::bytes::zeroed;
use crate::db::Part;
use crate::error::Result;
use crate::log::record::{HEAD, Head, Kind};
use crate::log::segment::{FILE_HEADER, name};
use crate::manifest::{FileKind, Manifest};
use crate::planted::planted;
use crate::storage::{Access, File};

/// Bytes are compared so many at a time.
const COMPARED: u64 = 256 << 10;

impl Plan<'_> {
    /// Whether the database has what the backup has: the same headers, and the same last commit.
    /// Each commit has its number, its time and the checksums of its values in it, so histories that
    /// went apart don't come together again. Values may be erased, here or there.
    pub(super) fn has_same_beginning(&self, earlier: &Manifest) -> Result<bool> {
        if earlier.base != self.wanted.base && self.wanted.base.is_some() {
            return Ok(false);
        }
        // What a compaction has copied has no commits of its own to be compared.
        if earlier.base_time_us != self.wanted.base_time_us {
            return Ok(false);
        }
        let mut last_commit_found = false;
        for known in earlier.files.iter().rev().filter(|file| file.len > 0) {
            let part = self
                .extent
                .parts
                .iter()
                .find(|part| part.segment.number == known.number);
            let Some(part) = part else { return Ok(false) };
            let len = u64::from(known.len);
            let log = part.kind == FileKind::Log;
            if part.kind != known.kind || part.end < len || (!log && part.end != len) {
                return Ok(false);
            }
            let file = self.open(known.number, Access::Read)?;
            let frozen = matches!(part.kind, FileKind::Frozen { .. });
            if !frozen && !self.is_same(&*file, part, 0, len.min(FILE_HEADER as u64))? {
                return Ok(false);
            }
            if !log || last_commit_found {
                continue;
            }
            let mut ended = FILE_HEADER as u64;
            if let Some((position, head)) = last_of(part, earlier.commit, len)? {
                let mut there = [0; HEAD];
                file.read_at(position, &mut there)
                    .map_err(|error| self.failed("read", &name(known.number), error))?;
                let there = head_in(&there, part, position);
                if there.is_none_or(|there| !is_same_version(&there, &head)) {
                    return Ok(false);
                }
                last_commit_found = true;
                ended = position + head.record_len();
            }
            // The backup has nothing but marks behind its last commit. Where a loss of power took them
            // here, there may be another commit by now.
            if !are_marks(part, ended, len)? && !planted!(backup_of_other_commits_extended) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether a file of the destination has the bytes `from` … `to` of a data file.
    pub(super) fn is_same(&self, file: &dyn File, part: &Part, from: u64, to: u64) -> Result<bool> {
        let mut there = zeroed((to - from) as usize)?;
        match file.read_at(from, &mut there) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            Err(error) => return Err(self.failed("read", &name(part.segment.number), error)),
        }
        Ok(*part.segment.bytes(from, there.len())? == there[..])
    }
}

/// The last record of a commit that begins before `end` in a data file of the log.
fn last_of(part: &Part, commit: u64, end: u64) -> Result<Option<(u64, Head)>> {
    let mut stop = end;
    while stop > FILE_HEADER as u64 {
        let start = stop.saturating_sub(COMPARED).max(FILE_HEADER as u64);
        // A record's head may begin in this piece and end in the one behind it.
        let piece_end = (stop + HEAD as u64 - 1).min(end);
        let bytes = part.segment.bytes(start, (piece_end - start) as usize)?;
        let of_commit = |at: usize, window: &[u8]| {
            let position = start + at as u64;
            let head = head_in(window, part, position)?;
            let is_it = head.kind != Kind::SyncMark && head.commit == commit;
            is_it.then_some((position, head))
        };
        let windows = bytes.windows(HEAD).enumerate();
        let found = windows.rev().find_map(|(at, window)| of_commit(at, window));
        if found.is_some() {
            return Ok(found);
        }
        stop = start;
    }
    Ok(None)
}

/// Whether a part of a data file is sync marks, one behind the other.
fn are_marks(part: &Part, from: u64, to: u64) -> Result<bool> {
    let mut at = from;
    while at + HEAD as u64 <= to {
        let bytes = part.segment.bytes(at, HEAD)?;
        match head_in(&bytes, part, at) {
            Some(head) if head.kind == Kind::SyncMark => at += head.record_len(),
            _ => return Ok(false),
        }
    }
    Ok(at == to)
}

/// The head of a record that begins at `position`, if there is one.
fn head_in(bytes: &[u8], part: &Part, position: u64) -> Option<Head> {
    Head::verify(bytes.first_chunk()?, part.segment.seed(), position as u32)
}

/// Whether two heads are of the same version, of which one may be erased.
fn is_same_version(one: &Head, other: &Head) -> bool {
    let identity = |head: &Head| {
        let commit = (head.commit, head.time_us, head.last);
        (head.id, commit, head.len, head.previous)
    };
    let content = |head: &Head| (head.kind, head.crc);
    let is_erased = |head: &Head| head.kind == Kind::Erased;
    // A clock that went back with the power may have given a lost commit's time to another one.
    identity(one) == identity(other)
        && (content(one) == content(other) || is_erased(one) || is_erased(other))
}
