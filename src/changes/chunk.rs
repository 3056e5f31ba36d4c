//! Bytes <-> changes: commits on their way from one database to another.
//!
//! ```text
//!  0   8  "OURDBCHG"
//!  8   4  format version, 1
//! 12   4  flags; bit 0: part of a difference of states
//! 16   8  since: the commit that these follow
//! 24   8  its time; 0 for commit 0, and in a difference where it isn't known
//! 32   8  upto: the last commit in here
//! 40   8  next id of the sender
//! 48   4  number of commits
//! 52   4  number of ranges of ids; 0 but in the last part of a difference
//! 56  24  in a difference: the commit that it leads to, the time of `upto`, and a digest of what is
//!         live as of the one that it leads to; 0 but in the last part
//!         the commits
//!         the ranges: first id (4), last id (4)
//!      4  CRC32 of everything before
//! ```
//!
//! A commit is its number (8), its time (8), the number of its records (4) and 4 bytes of 0, then
//! the records: kind (1), 3 bytes of 0, id (4), length of the value (4), the value. Little-endian.
//! The kinds are 1 put, 2 delete, 4 erase, 5 a put that was erased since, 6 clear, of id 0; only a put
//! has a value. A clear is a commit of its own.
//!
//! The numbers of commits go up by 1, but in a difference, which has what is left of them: there
//! they ascend. Its last part is the one whose `upto` is the commit that it leads to, which need not
//! be among its commits. The ranges are the ids that are live as of that commit; all others are
//! deleted by it.

use std::ops::{Range, RangeInclusive};

use crate::bytes::{reserve, u32_at, u64_at};
use crate::error::{Error, Result};
use crate::hash::SetDigest;
use crate::log::kept::Live;
use crate::log::record::Kind;
use crate::storage::crc32;

const MAGIC: &[u8; 8] = b"OURDBCHG";
const FORMAT: u32 = 1;
const FLAG_DIFFERENCE: u32 = 1;
const PUT: u8 = 1;
const DELETE: u8 = 2;
const ERASE: u8 = 4;
const ERASED: u8 = 5;
const CLEAR: u8 = 6;
const HEADER: usize = 56;
const COMMIT: usize = 24;
const RECORD: usize = 12;
const DIFFERENCE: usize = 24;
const RANGE: usize = 8;
const CRC: usize = 4;

/// What stands in front of the commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// The commit that these follow.
    pub(crate) since: u64,
    /// Its time; 0 for commit 0.
    pub(crate) since_time_us: u64,
    /// The last commit in here.
    pub(crate) upto: u64,
    /// The sender's.
    pub(crate) next_id: u64,
}

/// What a part of a difference says besides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Difference {
    /// The commit that it leads to.
    pub(crate) goal: u64,
    /// The time of the last commit of this part.
    pub(crate) upto_time_us: u64,
    /// In the last part: what is live as of the goal.
    pub(crate) live: Option<Live>,
}

/// The end of a difference.
#[derive(Clone, Copy, Debug)]
pub(super) struct Goal<'a> {
    pub(super) commit: u64,
    pub(super) time_us: u64,
    pub(super) live: &'a Live,
}

/// One commit, without its records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Commit {
    pub(crate) commit: u64,
    pub(crate) time_us: u64,
    /// Its records among those of the chunk.
    records: Range<usize>,
}

/// One record of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Change<'a> {
    pub(crate) kind: Kind,
    pub(crate) id: u32,
    pub(crate) value: &'a [u8],
}

/// A chunk in the making.
#[derive(Debug)]
pub(super) struct Draft {
    bytes: Vec<u8>,
    /// Whole commits.
    commits: u32,
    /// The last one of them.
    upto: u64,
    /// The one that is under way, and its time.
    pending: (u64, u64),
    is_difference: bool,
    /// Where the whole commits end.
    whole: usize,
    /// Records of the commit that is under way.
    records: u32,
}

impl Draft {
    pub(super) fn new(since: u64, since_time_us: u64, next_id: u64) -> Result<Draft> {
        let mut bytes = Vec::new();
        reserve(&mut bytes, HEADER)?;
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&FORMAT.to_le_bytes());
        bytes.extend_from_slice(&0u32.to_le_bytes());
        for number in [since, since_time_us, since, next_id, 0] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        Ok(Draft {
            whole: bytes.len(),
            bytes,
            commits: 0,
            upto: since,
            pending: (since, since_time_us),
            is_difference: false,
            records: 0,
        })
    }

    /// A part of the difference that leads to commit `goal`.
    pub(super) fn of_difference(
        since: u64,
        since_time_us: u64,
        next_id: u64,
        goal: u64,
    ) -> Result<Draft> {
        let mut draft = Draft::new(since, since_time_us, next_id)?;
        draft.is_difference = true;
        draft.bytes[12..16].copy_from_slice(&FLAG_DIFFERENCE.to_le_bytes());
        reserve(&mut draft.bytes, DIFFERENCE)?;
        for number in [goal, since_time_us, 0] {
            draft.bytes.extend_from_slice(&number.to_le_bytes());
        }
        draft.whole = draft.bytes.len();
        Ok(draft)
    }

    /// Makes it the last part of its difference. The commit that is under way, if one is, is that
    /// one.
    pub(super) fn end_difference(&mut self, goal: Goal<'_>) -> Result<()> {
        let Live { ids, digest } = goal.live;
        reserve(&mut self.bytes, ids.len() * RANGE)?;
        if self.records > 0 {
            self.end_commit();
        }
        self.pending = (goal.commit, goal.time_us);
        self.note_upto();
        for range in ids {
            self.bytes.extend_from_slice(&range.start().to_le_bytes());
            self.bytes.extend_from_slice(&range.end().to_le_bytes());
        }
        let count = ids.len() as u32;
        self.bytes[52..56].copy_from_slice(&count.to_le_bytes());
        self.bytes[72..80].copy_from_slice(&digest.0.to_le_bytes());
        self.whole = self.bytes.len();
        Ok(())
    }

    fn note_upto(&mut self) {
        let (upto, time_us) = self.pending;
        self.upto = upto;
        self.bytes[32..40].copy_from_slice(&upto.to_le_bytes());
        if self.is_difference {
            self.bytes[64..72].copy_from_slice(&time_us.to_le_bytes());
        }
    }

    /// The last whole commit.
    pub(super) fn upto(&self) -> u64 {
        self.upto
    }

    /// How long it would be as the last part of its difference.
    pub(super) fn len_with(&self, ids: &[RangeInclusive<u32>]) -> usize {
        self.len() + ids.len() * RANGE
    }

    /// Adds a record to the commit that is under way, or begins it.
    pub(super) fn push(&mut self, commit: u64, time_us: u64, change: Change<'_>) -> Result<()> {
        let Change { kind, id, value } = change;
        // Of a value that was erased there are zeros.
        let (kind, value) = match kind {
            Kind::Put => (PUT, value),
            Kind::Delete => (DELETE, &[][..]),
            Kind::Erase => (ERASE, &[][..]),
            Kind::Erased => (ERASED, &[][..]),
            Kind::Clear => (CLEAR, &[][..]),
            Kind::SyncMark | Kind::Empty => {
                return Err(damaged(self.bytes.len(), "no change is to be written here"));
            }
        };
        reserve(&mut self.bytes, COMMIT + RECORD + value.len())?;
        let bytes = &mut self.bytes;
        if self.records == 0 {
            bytes.extend_from_slice(&commit.to_le_bytes());
            bytes.extend_from_slice(&time_us.to_le_bytes());
            bytes.extend_from_slice(&0u64.to_le_bytes());
        }
        bytes.extend_from_slice(&[kind, 0, 0, 0]);
        bytes.extend_from_slice(&id.to_le_bytes());
        bytes.extend_from_slice(&(value.len() as u32).to_le_bytes());
        bytes.extend_from_slice(value);
        self.records += 1;
        self.pending = (commit, time_us);
        Ok(())
    }

    /// The commit that is under way is whole.
    pub(super) fn end_commit(&mut self) {
        let count = self.whole + 16;
        self.bytes[count..count + 4].copy_from_slice(&self.records.to_le_bytes());
        self.note_upto();
        self.commits += 1;
        self.bytes[48..52].copy_from_slice(&self.commits.to_le_bytes());
        self.records = 0;
        self.whole = self.bytes.len();
    }

    /// Whether there is a whole commit in it.
    pub(super) fn has_commit(&self) -> bool {
        self.commits > 0
    }

    /// Whether the format can count another commit.
    pub(super) fn has_room(&self) -> bool {
        self.commits < u32::MAX
    }

    /// How long it would be, finished as it is.
    pub(super) fn len(&self) -> usize {
        self.bytes.len() + CRC
    }

    /// The bytes, without a commit that is not whole.
    pub(super) fn finish(mut self) -> Result<Vec<u8>> {
        self.bytes.truncate(self.whole);
        reserve(&mut self.bytes, CRC)?;
        let crc = crc32(0, &self.bytes);
        self.bytes.extend_from_slice(&crc.to_le_bytes());
        Ok(self.bytes)
    }
}

/// Changes whose bytes are sound: checksum, structure and order. Whether they fit a database is
/// another matter.
#[derive(Debug)]
pub(crate) struct Chunk<'a> {
    pub(crate) header: Header,
    pub(crate) commits: Vec<Commit>,
    pub(crate) difference: Option<Difference>,
    records: Vec<Change<'a>>,
}

impl<'a> Chunk<'a> {
    /// Reads bytes from anywhere. What a count or a length in them claims is believed only as far
    /// as there are bytes for it.
    pub(super) fn decode(bytes: &'a [u8]) -> Result<Chunk<'a>> {
        let header = bytes.get(..HEADER).filter(|header| header[..8] == *MAGIC);
        let Some(header) = header else {
            return Err(damaged(0, "these are no changes of a database"));
        };
        let covered = bytes.len() - CRC;
        if covered < HEADER || u32_at(bytes, covered) != crc32(0, &bytes[..covered]) {
            return Err(damaged(0, "they do not match their checksum"));
        }
        let version = u32_at(header, 8);
        if version != FORMAT {
            return Err(Error::incompatible(format!(
                "the changes have format version {version}, and this library reads version {FORMAT}"
            )));
        }
        let flags = u32_at(header, 12);
        if flags & !FLAG_DIFFERENCE != 0 {
            return Err(Error::incompatible(format!(
                "the changes have flags {flags:#x}, which this library doesn't know"
            )));
        }
        let (commits, ranges) = (u32_at(header, 48), u32_at(header, 52));
        let header = Header {
            since: u64_at(header, 16),
            since_time_us: u64_at(header, 24),
            upto: u64_at(header, 32),
            next_id: u64_at(header, 40),
        };
        let mut rest = Rest {
            bytes: &bytes[HEADER..covered],
            at: HEADER,
        };
        let mut difference = None;
        if flags & FLAG_DIFFERENCE != 0 {
            difference = Some(rest.difference()?);
        }
        let counted = header.since.checked_add(u64::from(commits));
        let fits = match &difference {
            Some((
                Difference {
                    goal, upto_time_us, ..
                },
                digest,
            )) => {
                let is_last = header.upto == *goal;
                header.since < header.upto
                    && header.upto <= *goal
                    && header.since_time_us <= *upto_time_us
                    && (is_last || (commits != 0 && ranges == 0 && *digest == SetDigest::default()))
            }
            None => commits != 0 && ranges == 0 && counted == Some(header.upto),
        };
        if !fits
            || (header.since == 0 && header.since_time_us != 0)
            || !(1..=1 << 32).contains(&header.next_id)
        {
            return Err(damaged(16, "the header contradicts itself"));
        }
        let (difference, digest) = difference.unzip();
        let mut chunk = Chunk {
            header,
            commits: Vec::new(),
            difference,
            records: Vec::new(),
        };
        let mut last = (header.since, header.since_time_us);
        for _ in 0..commits {
            last = chunk.read_commit(&mut rest, last)?;
        }
        if let Some(difference) = &mut chunk.difference {
            let upto = (header.upto, difference.upto_time_us);
            let is_last = header.upto == difference.goal;
            if last != upto && (!is_last || last.0 == upto.0 || last.1 > upto.1) {
                return Err(damaged(32, "the last commit is another one"));
            }
            if is_last {
                difference.live = Some(Live {
                    ids: rest.ranges(ranges, header.next_id)?,
                    digest: digest.unwrap_or_default(),
                });
            }
        }
        if rest.bytes.is_empty() {
            Ok(chunk)
        } else {
            Err(damaged(rest.at, "something follows the last commit"))
        }
    }

    /// Reads the commit that comes now, after one with this number and time; its own.
    fn read_commit(&mut self, rest: &mut Rest<'a>, before: (u64, u64)) -> Result<(u64, u64)> {
        let at = rest.at;
        let head = rest.take(COMMIT)?;
        let (commit, time_us) = (u64_at(head, 0), u64_at(head, 8));
        let (count, zero) = (u32_at(head, 16), u32_at(head, 20));
        let follows = match self.difference {
            Some(_) => before.0 < commit && commit <= self.header.upto,
            None => before.0.checked_add(1) == Some(commit),
        };
        if !follows || time_us < before.1 || count == 0 || zero != 0 {
            let what = format!("what comes after commit {} does not begin here", before.0);
            return Err(damaged(at, what));
        }
        let first = self.records.len();
        for _ in 0..count {
            let change = rest.record()?;
            if count > 1 && change.kind == Kind::Clear {
                return Err(damaged(at, "a clear is not the only record of its commit"));
            }
            reserve(&mut self.records, 1)?;
            self.records.push(change);
        }
        reserve(&mut self.commits, 1)?;
        self.commits.push(Commit {
            commit,
            time_us,
            records: first..self.records.len(),
        });
        Ok((commit, time_us))
    }

    /// Whether any of the commits after `commit` erases, or has a put that was erased since: what is older
    /// of its record was, too.
    pub(crate) fn erases_after(&self, commit: u64) -> bool {
        let mut new = self.commits.iter().filter(|it| it.commit > commit);
        new.any(|it| self.changes(it).iter().any(|it| it.kind.ends_chain()))
    }

    /// The records of a commit of this chunk.
    pub(crate) fn changes(&self, commit: &Commit) -> &[Change<'a>] {
        &self.records[commit.records.clone()]
    }
}

/// What is still to be read.
struct Rest<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Rest<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let Some((taken, rest)) = self.bytes.split_at_checked(len) else {
            return Err(damaged(self.at, "they end too early"));
        };
        self.bytes = rest;
        self.at += len;
        Ok(taken)
    }

    /// What a part says besides, and the digest of its end.
    fn difference(&mut self) -> Result<(Difference, SetDigest)> {
        let bytes = self.take(DIFFERENCE)?;
        let difference = Difference {
            goal: u64_at(bytes, 0),
            upto_time_us: u64_at(bytes, 8),
            live: None,
        };
        Ok((difference, SetDigest(u64_at(bytes, 16))))
    }

    /// Ranges of ids below `limit`.
    fn ranges(&mut self, count: u32, limit: u64) -> Result<Vec<RangeInclusive<u32>>> {
        let at = self.at;
        let bytes = self.take((count as usize).saturating_mul(RANGE))?;
        let mut ranges = Vec::new();
        reserve(&mut ranges, count as usize)?;
        let read = bytes.chunks_exact(RANGE);
        ranges.extend(read.map(|range| u32_at(range, 0)..=u32_at(range, 4)));
        let ascend = ranges.windows(2).all(|two| two[0].end() < two[1].start());
        let below = ranges
            .last()
            .is_none_or(|last| u64::from(*last.end()) < limit);
        if !ascend || !below || ranges.iter().any(RangeInclusive::is_empty) {
            return Err(damaged(at, "the ranges of ids are not in order"));
        }
        Ok(ranges)
    }

    fn record(&mut self) -> Result<Change<'a>> {
        let at = self.at;
        let head = self.take(RECORD)?;
        let kind = match head[0] {
            PUT => Kind::Put,
            DELETE => Kind::Delete,
            ERASE => Kind::Erase,
            ERASED => Kind::Erased,
            CLEAR => Kind::Clear,
            kind => {
                return Err(Error::incompatible(format!(
                    "the changes have a record of kind {kind}, which this library doesn't know"
                )));
            }
        };
        let (id, len) = (u32_at(head, 4), u32_at(head, 8));
        if head[1..4] != [0; 3]
            || (kind != Kind::Put && len != 0)
            || (kind == Kind::Clear && id != 0)
        {
            return Err(damaged(at, "no record is here"));
        }
        let value = self.take(len as usize)?;
        Ok(Change { kind, id, value })
    }
}

/// Bytes that can't be changes as a database gave them out.
pub(crate) fn damaged(at: usize, what: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::corrupt("what is given as changes", at as u64, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(id: u32, value: &[u8]) -> Change<'_> {
        let kind = Kind::Put;
        Change { kind, id, value }
    }

    fn delete(id: u32) -> Change<'static> {
        Change {
            kind: Kind::Delete,
            id,
            value: &[],
        }
    }

    fn sample() -> Vec<u8> {
        let mut draft = Draft::new(6, 1000, 12).unwrap();
        draft.push(7, 1001, put(1, b"one")).unwrap();
        draft.push(7, 1001, put(2, b"")).unwrap();
        draft.end_commit();
        draft.push(8, 1001, delete(1)).unwrap();
        draft.end_commit();
        draft.push(9, 1002, put(3, b"not whole")).unwrap();
        draft.finish().unwrap()
    }

    /// The same bytes with others at `at`, and a checksum that fits.
    fn mended(mut bytes: Vec<u8>, at: usize, others: &[u8]) -> Vec<u8> {
        bytes[at..at + others.len()].copy_from_slice(others);
        let body = bytes.len() - CRC;
        let crc = crc32(0, &bytes[..body]);
        bytes[body..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    #[test]
    fn changes_read_back_as_written() {
        let bytes = sample();
        let chunk = Chunk::decode(&bytes).unwrap();
        let header = Header {
            since: 6,
            since_time_us: 1000,
            upto: 8,
            next_id: 12,
        };
        assert_eq!(chunk.header, header);
        let read: Vec<_> = chunk
            .commits
            .iter()
            .map(|commit| (commit.commit, commit.time_us, chunk.changes(commit)))
            .collect();
        let first = [put(1, b"one"), put(2, b"")];
        let second = [delete(1)];
        assert_eq!(read, [(7, 1001, &first[..]), (8, 1001, &second[..])]);
    }

    #[test]
    fn the_bytes_are_those_of_the_format() {
        let mut expected = b"OURDBCHG\x01\0\0\0\0\0\0\0".to_vec();
        for number in [6u64, 1000, 8, 12, 2, 7, 1001, 2] {
            expected.extend_from_slice(&number.to_le_bytes());
        }
        expected.extend_from_slice(b"\x01\0\0\0\x01\0\0\0\x03\0\0\0one");
        expected.extend_from_slice(b"\x01\0\0\0\x02\0\0\0\0\0\0\0");
        for number in [8u64, 1001, 1] {
            expected.extend_from_slice(&number.to_le_bytes());
        }
        expected.extend_from_slice(b"\x02\0\0\0\x01\0\0\0\0\0\0\0");
        let crc = crc32fast::hash(&expected);
        expected.extend_from_slice(&crc.to_le_bytes());
        assert_eq!(sample(), expected);
    }

    #[test]
    fn every_flipped_bit_and_every_other_length_is_refused() {
        let bytes = sample();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Chunk::decode(&flipped).is_err(), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert!(Chunk::decode(&bytes[..len]).is_err(), "{len} bytes");
        }
        assert!(Chunk::decode(&[&bytes[..], &[0]].concat()).is_err());
    }

    /// Every field wrong by itself, under a checksum that fits.
    #[test]
    fn what_contradicts_itself_is_refused() {
        const FIRST: usize = HEADER;
        const SECOND: usize = FIRST + COMMIT + 2 * RECORD + 3;
        let number = |number: u64| number.to_le_bytes().to_vec();
        let count = |count: u32| count.to_le_bytes().to_vec();
        let cases = [
            ("since", 16, number(5)),
            ("since, such that upto overflows", 16, number(u64::MAX)),
            ("a time for commit 0", 16, number(0)),
            ("time of since after that of the first", 24, number(1002)),
            ("upto", 32, number(9)),
            ("next id 0", 40, number(0)),
            ("next id past all ids", 40, number((1 << 32) + 1)),
            ("fewer commits", 48, count(1)),
            ("more commits", 48, count(3)),
            ("all commits there can be", 48, count(u32::MAX)),
            ("reserved in the header", 52, count(1)),
            ("a number that is not the next", FIRST, number(8)),
            ("a commit twice", SECOND, number(7)),
            ("a time that goes back", SECOND + 8, number(1000)),
            ("no records", FIRST + 16, count(0)),
            ("fewer records", FIRST + 16, count(1)),
            ("more records", FIRST + 16, count(3)),
            ("all records there can be", FIRST + 16, count(u32::MAX)),
            ("reserved in a commit", FIRST + 20, count(1)),
            ("kind 0", FIRST + COMMIT, vec![0]),
            ("kind 3", FIRST + COMMIT, vec![3]),
            ("reserved in a record", FIRST + COMMIT + 3, vec![1]),
            ("a shorter value", FIRST + COMMIT + 8, count(2)),
            ("a longer value", FIRST + COMMIT + 8, count(4)),
            ("the longest value", FIRST + COMMIT + 8, count(u32::MAX)),
            ("a deletion with a value", SECOND + COMMIT + 8, count(1)),
        ];
        for (what, at, bytes) in cases {
            let refused = Chunk::decode(&mended(sample(), at, &bytes)).is_err();
            assert!(refused, "{what}");
        }
        assert!(Chunk::decode(&mended(sample(), 0, b"OURDBCHG")).is_ok());
    }

    const IDS: [RangeInclusive<u32>; 3] = [0..=0, 2..=2, 8..=11];

    fn live() -> Live {
        Live {
            ids: IDS.to_vec(),
            digest: SetDigest(0x0123_4567_89ab_cdef),
        }
    }

    /// The last part of a difference with gaps between its commits, or one before it.
    fn difference(is_last: bool) -> Vec<u8> {
        let mut draft = Draft::of_difference(6, 1000, 12, 20).unwrap();
        draft.push(9, 1001, put(1, b"one")).unwrap();
        draft.push(9, 1001, delete(2)).unwrap();
        draft.end_commit();
        draft.push(15, 1003, delete(1)).unwrap();
        draft.end_commit();
        if is_last {
            let goal = Goal {
                commit: 20,
                time_us: 1004,
                live: &live(),
            };
            assert_eq!(draft.len_with(&IDS), draft.len() + 24);
            draft.end_difference(goal).unwrap();
            assert_eq!(draft.upto(), 20);
        }
        draft.finish().unwrap()
    }

    #[test]
    fn a_difference_reads_back_as_written() {
        for is_last in [false, true] {
            let bytes = difference(is_last);
            let chunk = Chunk::decode(&bytes).unwrap();
            let header = Header {
                since: 6,
                since_time_us: 1000,
                upto: if is_last { 20 } else { 15 },
                next_id: 12,
            };
            let said = Difference {
                goal: 20,
                upto_time_us: if is_last { 1004 } else { 1003 },
                live: is_last.then(live),
            };
            assert_eq!(
                (chunk.header, chunk.difference.as_ref()),
                (header, Some(&said))
            );
            let commits = chunk.commits.iter();
            let commits: Vec<_> = commits.map(|one| (one.commit, one.time_us)).collect();
            assert_eq!(commits, [(9, 1001), (15, 1003)]);
            assert_eq!(chunk.changes(&chunk.commits[1]), [delete(1)]);
        }
        // Nothing but its end; and an end with something of the commit itself.
        let goal = Goal {
            commit: 7,
            time_us: 9,
            live: &Live::default(),
        };
        let mut draft = Draft::of_difference(6, 0, 1, 7).unwrap();
        draft.end_difference(goal).unwrap();
        let bytes = draft.finish().unwrap();
        let chunk = Chunk::decode(&bytes).unwrap();
        assert!(chunk.commits.is_empty());
        assert_eq!(chunk.difference.unwrap().live, Some(Live::default()));
        let mut draft = Draft::of_difference(6, 0, 1, 7).unwrap();
        draft.push(7, 9, delete(0)).unwrap();
        draft.end_difference(goal).unwrap();
        let bytes = draft.finish().unwrap();
        assert_eq!(Chunk::decode(&bytes).unwrap().commits.len(), 1);
    }

    #[test]
    fn the_bytes_of_a_difference_are_those_of_the_format() {
        let mut expected = b"OURDBCHG\x01\0\0\0\x01\0\0\0".to_vec();
        let digest = live().digest.0;
        for number in [
            6u64,
            1000,
            20,
            12,
            2 | 3 << 32,
            20,
            1004,
            digest,
            9,
            1001,
            2,
        ] {
            expected.extend_from_slice(&number.to_le_bytes());
        }
        expected.extend_from_slice(b"\x01\0\0\0\x01\0\0\0\x03\0\0\0one");
        expected.extend_from_slice(b"\x02\0\0\0\x02\0\0\0\0\0\0\0");
        for number in [15u64, 1003, 1] {
            expected.extend_from_slice(&number.to_le_bytes());
        }
        expected.extend_from_slice(b"\x02\0\0\0\x01\0\0\0\0\0\0\0");
        for id in [0u32, 0, 2, 2, 8, 11] {
            expected.extend_from_slice(&id.to_le_bytes());
        }
        let crc = crc32fast::hash(&expected);
        expected.extend_from_slice(&crc.to_le_bytes());
        assert_eq!(difference(true), expected);
        for bit in 0..expected.len() * 8 {
            let mut flipped = expected.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Chunk::decode(&flipped).is_err(), "bit {bit}");
        }
    }

    /// Every field of a difference wrong by itself, under a checksum that fits.
    #[test]
    fn a_difference_that_contradicts_itself_is_refused() {
        const FIRST: usize = HEADER + DIFFERENCE;
        const SECOND: usize = FIRST + COMMIT + 2 * RECORD + 3;
        const RANGES: usize = SECOND + COMMIT + RECORD;
        let number = |number: u64| number.to_le_bytes().to_vec();
        let count = |count: u32| count.to_le_bytes().to_vec();
        let of_both = [
            ("no difference", 12, count(0)),
            ("since after the first", 16, number(9)),
            ("since past all commits", 16, number(u64::MAX)),
            ("a time for commit 0", 16, number(0)),
            ("time of since after that of the first", 24, number(1002)),
            ("time of since after that of upto", 24, number(1005)),
            ("upto before the last", 32, number(14)),
            ("upto past the goal", 32, number(21)),
            ("upto is since", 32, number(6)),
            ("fewer commits", 48, count(1)),
            ("more commits", 48, count(3)),
            ("no commits", 48, count(0)),
            ("all commits there can be", 48, count(u32::MAX)),
            ("more ranges", 52, count(4)),
            ("all ranges there can be", 52, count(u32::MAX)),
            ("a goal before upto", 56, number(14)),
            ("time of upto before that of the last", 64, number(1002)),
            ("time of upto before all", 64, number(0)),
            ("the first is since", FIRST, number(6)),
            ("the first comes after the second", FIRST, number(16)),
            ("the second is the first", SECOND, number(9)),
            ("the second is past the goal", SECOND, number(21)),
            ("a time that goes back", SECOND + 8, number(1000)),
            ("no records", FIRST + 16, count(0)),
        ];
        let of_last = [
            ("fewer ranges", 52, count(2)),
            ("no ranges, and they are there", 52, count(0)),
            ("a goal after upto", 56, number(21)),
            ("an empty range", RANGES, count(1)),
            ("ranges that meet", RANGES + 4, count(2)),
            ("ranges in another order", RANGES + 4, count(5)),
            ("ids past the sender's", RANGES + 20, count(12)),
        ];
        let of_other = [
            ("ranges before the end", 52, count(1)),
            ("a digest before the end", 72, number(1)),
            ("another time of upto", 64, number(1004)),
            ("the last is another one", SECOND, number(14)),
        ];
        for (is_last, cases) in [
            (true, &of_both[..]),
            (false, &of_both),
            (true, &of_last),
            (false, &of_other),
        ] {
            for (what, at, bytes) in cases {
                let bytes = mended(difference(is_last), *at, bytes);
                assert!(Chunk::decode(&bytes).is_err(), "{what}");
            }
            assert!(Chunk::decode(&mended(difference(is_last), 0, b"O")).is_ok());
        }
    }

    /// What a later library may give out is told from damage.
    #[test]
    fn what_is_not_known_yet_is_incompatible() {
        for (at, byte) in [(8, 2), (12, 2), (15, 128), (HEADER + COMMIT, 7)] {
            let bytes = mended(sample(), at, &[byte]);
            let refused = Chunk::decode(&bytes);
            assert!(matches!(refused, Err(Error::Incompatible(_))), "{at}");
        }
    }
}
