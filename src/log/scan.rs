//! Reading one data file of the log record by record, from the file and not from a mapping, by
//! recovery and by the check.

use super::record::{HEAD, Head, Kind, Seed, value_crc};
use crate::error::Result;
use crate::planted::planted;
use crate::reader::Reader;

/// Bytes are searched, and copied, so many at a time.
pub(super) const PIECE: u64 = 1 << 20;

/// What stands at a place where a record should.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Found {
    /// A record, both checksums verified.
    Record(Head),
    /// A record's head, and a value that isn't the one that it was written with, and why.
    Value(Head, &'static str),
    /// No record, and why.
    Nothing(&'static str),
}

/// What the log needs of a reader.
pub(crate) trait ReadRecord {
    /// What stands at `at`.
    fn record(&mut self, at: u64, seed: Seed) -> Result<Found>;

    /// The next place from `at` on that holds a valid record with a version in it.
    fn next_record(&mut self, at: u64, seed: Seed) -> Result<Option<u64>>;
}

impl ReadRecord for Reader {
    fn record(&mut self, at: u64, seed: Seed) -> Result<Found> {
        let bytes = self.bytes(at, HEAD as u64)?;
        let Some(bytes) = bytes.first_chunk::<HEAD>() else {
            return Ok(Found::Nothing("the file ends within a record's head"));
        };
        let Some(head) = Head::verify(bytes, seed, at as u32) else {
            return Ok(Found::Nothing(
                "the record's envelope does not match its checksum",
            ));
        };
        let value = self.bytes(at + HEAD as u64, u64::from(head.len))?;
        if value.len() < head.len as usize {
            return Ok(Found::Value(head, "the file ends within a value"));
        }
        if value_crc(value) != head.crc && !planted!(value_checksum_not_replayed) {
            return Ok(Found::Value(head, "the value does not match its checksum"));
        }
        Ok(Found::Record(head))
    }

    fn next_record(&mut self, mut at: u64, seed: Seed) -> Result<Option<u64>> {
        while at + HEAD as u64 <= self.len() {
            let bytes = self.bytes(at, PIECE)?;
            let tried = (bytes.len() - HEAD + 1) as u64;
            let candidate = bytes
                .windows(HEAD)
                .zip(at..)
                .find_map(|(window, position)| {
                    let head = Head::verify(window.first_chunk()?, seed, position as u32)?;
                    (head.kind != Kind::SyncMark).then_some(position)
                });
            match candidate {
                Some(position) if matches!(self.record(position, seed)?, Found::Record(_)) => {
                    return Ok(Some(position));
                }
                Some(position) => at = position + 1,
                None => at += tried,
            }
        }
        Ok(None)
    }
}
