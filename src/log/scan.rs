//! Reading one data file of the log record by record, from the file and not from a mapping, by
//! recovery and by the check.

use super::record::{HEAD, HEROLIB_HEADER, Head, Kind, Seed, value_crc};
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

    /// The value of ours that herolib has zeroed at `at`, if it has, and nothing else is wrong there. Whether
    /// a record may stand there, or behind another one that does, says `follows`: no checksum does.
    fn zeroed_record(
        &mut self,
        at: u64,
        seed: Seed,
        follows: impl Fn(Option<&Head>, &Head) -> bool,
    ) -> Result<Option<Head>>;
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
        let (position, len) = (at + HEAD as u64, u64::from(head.len));
        if position + len > self.len() {
            return Ok(Found::Value(head, "the file ends within a value"));
        }
        let value = self.bytes(position, len)?;
        if value_crc(value) == head.crc || planted!(value_checksum_not_replayed) {
            return Ok(Found::Record(head));
        }
        self.note_in_vain(position, len);
        Ok(Found::Value(head, "the value does not match its checksum"))
    }

    fn next_record(&mut self, mut at: u64, seed: Seed) -> Result<Option<u64>> {
        loop {
            at = at.max(self.passed_over());
            if at + HEAD as u64 > self.len() {
                return Ok(None);
            }
            // What is at hand is not read again for each place that looks like a record.
            let held = self.at_hand(at).len() as u64;
            let bytes = self.bytes(at, if held < HEAD as u64 { PIECE } else { held })?;
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
    }

    fn zeroed_record(
        &mut self,
        at: u64,
        seed: Seed,
        follows: impl Fn(Option<&Head>, &Head) -> bool,
    ) -> Result<Option<Head>> {
        let head = zeroed_head(self, at)?;
        let Some(mut head) = head.filter(|head| follows(None, head)) else {
            return Ok(None);
        };
        let shortest = head.len;
        let zeros = self.end_of_zeros(at + HEROLIB_HEADER)? - (at + HEAD as u64);
        // How long it was shows where the next one begins.
        for zeroed in 0..=zeros.min(u64::from(u16::MAX)) as u32 {
            head.len = shortest | zeroed;
            let end = at + head.record_len();
            let is_next = end == self.len()
                || matches!(self.record(end, seed)?, Found::Record(_))
                || zeroed_head(self, end)?.is_some_and(|next| follows(Some(&head), &next));
            if is_next {
                return Ok(Some(head));
            }
        }
        Ok(None)
    }
}

fn zeroed_head(reader: &mut Reader, at: u64) -> Result<Option<Head>> {
    let bytes = reader.bytes(at, HEAD as u64)?;
    Ok(bytes.first_chunk().and_then(Head::zeroed_by_herolib))
}

#[cfg(test)]
mod tests {
    use super::super::record::Kind;
    use super::super::segment::FILE_HEADER;
    use super::*;
    use crate::location::Location;
    use crate::storage::memory::MemoryStorage;
    use crate::storage::replace;

    fn head(len: usize, crc: u32) -> Head {
        Head {
            kind: Kind::Put,
            last: true,
            skips: false,
            id: 1,
            commit: 1,
            time_us: 1,
            len: len as u32,
            crc,
            previous: Location::NONE,
        }
    }

    /// Heads that verify, of which each says that all the others are its value, and a record behind them.
    /// Between them there may be records, too.
    #[test]
    fn values_that_lie_one_in_the_other_are_not_read_again_and_again() {
        const COUNT: usize = 50_000;
        let seed = Seed::new(&[7; 16], 0);
        for each in [1, 2] {
            let mut bytes = vec![0; FILE_HEADER];
            let end = FILE_HEADER + COUNT * each * HEAD;
            while bytes.len() < end {
                let value = bytes.len() + HEAD;
                bytes.extend(head(end - value, 7).encode(seed, bytes.len() as u32));
                if each == 2 {
                    bytes.extend(head(0, 0).encode(seed, bytes.len() as u32));
                }
            }
            bytes.extend(head(0, 0).encode(seed, end as u32));
            let storage = MemoryStorage::new();
            replace(&storage, "0.db", &[&bytes]).expect("a file");
            let mut reader = Reader::sequential(&storage, "0.db").expect("a reader");
            let (mut at, mut last) = (FILE_HEADER as u64, None);
            while at < reader.len() {
                match reader.record(at, seed).expect("a look") {
                    Found::Record(head) => {
                        last = Some(at);
                        at += head.record_len();
                    }
                    _ => match reader.next_record(at + 1, seed).expect("a look") {
                        Some(next) => at = next,
                        None => break,
                    },
                }
            }
            assert_eq!(last, Some(end as u64), "{each}");
            assert!(reader.in_vain() < 10 * reader.len(), "{each}");
        }
    }
}
