//! Bytes <-> record: the envelope and the herolib header before every value.
//!
//! ```text
//!  0  4  CRC32 of bytes 4..40, going on from: the CRC32 of database uuid and file number (u16,
//!        little-endian), XORed with the position of this record
//!  4  1  kind: 1 put, 2 delete, 3 sync mark, 4 erase, 5 erased, 6 clear, 7 empty; 0 = nothing was
//!        written here
//!  5  1  flags: bit 0 = last record of its commit, bit 1 = commits before its own are left out
//!  6  2  length of the value, high 16 bits
//!  8  4  id
//! 12  8  commit number
//! 20  8  commit time, microseconds since the Unix epoch
//! 28  2  length of the value, low 16 bits       <- herolib's header; locations point here
//! 30  4  CRC32 of the value
//! 34  6  location of the version before (file number u16, position u32, both big-endian)
//! 40     the value
//! ```
//!
//! Little-endian but for the location, as in herolib. The seed makes a record valid in one place
//! only: a stale, misplaced or foreign one never verifies. CRC32 is the one of IEEE 802.3.

use crate::bytes::{array_at, u16_at, u32_at, u64_at};
use crate::location::Location;
use crate::planted::planted;
use crate::storage::{crc32, crc32_of_36, crc32_of_value, crc32s_of_record};

/// Length of what stands before the value.
pub(crate) const HEAD: usize = 40;
/// Where in it the kind of record stands.
pub(crate) const KIND: usize = 4;
/// Offset of the herolib header in a record: what a [`Location`] points at.
pub(crate) const HEROLIB_HEADER: u64 = 28;

const FLAG_COMMIT: u8 = 1;
const FLAG_SKIPS: u8 = 2;

/// What a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A value.
    Put,
    /// A deletion.
    Delete,
    /// Everything before the location in `previous` was on disk when this was written.
    SyncMark,
    /// The erasure of a record: a deletion, after which no version before it is read any more. Those
    /// are being overwritten, or are already.
    Erase,
    /// What an erasure left of a value: all as it was, but for its bytes, which are zeros now. No version
    /// before it is read any more either: that erasure is of those, too.
    Erased,
    /// The deletion of every record that was live, by one commit; its id is 0.
    Clear,
    /// A commit of which nothing is left, alone in it; its id is 0.
    Empty,
}

impl Kind {
    pub(super) fn to_byte(self) -> u8 {
        match self {
            Kind::Put => 1,
            Kind::Delete => 2,
            Kind::SyncMark => 3,
            Kind::Erase => 4,
            Kind::Erased => 5,
            Kind::Clear => 6,
            Kind::Empty => 7,
        }
    }

    /// Whether every version before it is erased, or is just being overwritten.
    pub(crate) fn ends_chain(self) -> bool {
        matches!(self, Kind::Erase | Kind::Erased)
    }

    fn from_byte(byte: u8) -> Option<Kind> {
        match byte {
            1 => Some(Kind::Put),
            2 => Some(Kind::Delete),
            3 => Some(Kind::SyncMark),
            4 => Some(Kind::Erase),
            5 => Some(Kind::Erased),
            6 => Some(Kind::Clear),
            7 => Some(Kind::Empty),
            _ => None,
        }
    }
}

/// Everything of a record but its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) kind: Kind,
    /// Last record of its commit.
    pub(crate) last: bool,
    /// Commits between the one before and this one are left out: this one came from a database that
    /// had dropped them. Without it a number that is not the next one is a hole.
    pub(crate) skips: bool,
    pub(crate) id: u32,
    pub(crate) commit: u64,
    pub(crate) time_us: u64,
    /// Length of the value.
    pub(crate) len: u32,
    /// CRC32 of the value.
    pub(crate) crc: u32,
    /// The version before; in a sync mark the end of what was on disk.
    pub(crate) previous: Location,
}

/// The CRC that envelopes of one data file start from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seed(u32);

impl Seed {
    pub(crate) fn new(uuid: &[u8; 16], file: u16) -> Seed {
        if planted!(records_valid_in_any_file) {
            return Seed(0);
        }
        Seed(crc32(crc32(0, uuid), &file.to_le_bytes()))
    }

    /// CRC of the envelope of a record that begins at `position`.
    #[inline(always)]
    fn envelope(self, position: u32, head: &[u8; HEAD]) -> u32 {
        crc32_of_36(self.at(position), covered(head))
    }

    /// What the CRC goes on from. A CRC is a bijection of that: another position, another CRC.
    #[inline(always)]
    fn at(self, position: u32) -> u32 {
        if planted!(records_valid_at_any_place) {
            return self.0;
        }
        self.0 ^ position
    }
}

/// What the CRC of an envelope covers: all but itself.
#[inline(always)]
fn covered(head: &[u8; HEAD]) -> &[u8; HEAD - 4] {
    let Some(covered) = head.last_chunk() else {
        unreachable!("a head is longer than its checksum")
    };
    covered
}

/// CRC of a value, as herolib computes it.
#[inline]
pub(crate) fn value_crc(value: &[u8]) -> u32 {
    crc32_of_value(value)
}

/// A record's head, as it stands, and its value, if it begins at `position`, the value has `len`
/// bytes, and both checksums verify.
#[inline(always)]
fn verify(bytes: &[u8], len: usize, seed: Seed, position: u32) -> Option<(&[u8; HEAD], &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<HEAD>()?;
    let value = rest.get(..len)?;
    let (envelope, crc) = crc32s_of_record(seed.at(position), covered(head), value);
    let is_envelope = envelope == u32_at(head, 0) || planted!(envelope_checksum_ignored);
    let is_value = crc == u32_at(head, 30) || planted!(value_checksum_not_read);
    (is_envelope && is_value).then_some((head, value))
}

/// Length of the value, as it stands.
#[inline(always)]
fn len_of(head: &[u8; HEAD]) -> u32 {
    u32::from_le_bytes([head[28], head[29], head[6], head[7]])
}

impl Head {
    /// The bytes of a record that begins at `position`.
    pub(crate) fn encode(&self, seed: Seed, position: u32) -> [u8; HEAD] {
        let mut bytes = [0u8; HEAD];
        let len = self.len.to_le_bytes();
        bytes[KIND] = self.kind.to_byte();
        bytes[5] =
            if self.last { FLAG_COMMIT } else { 0 } | if self.skips { FLAG_SKIPS } else { 0 };
        bytes[6..8].copy_from_slice(&len[2..]);
        bytes[8..12].copy_from_slice(&self.id.to_le_bytes());
        bytes[12..20].copy_from_slice(&self.commit.to_le_bytes());
        bytes[20..28].copy_from_slice(&self.time_us.to_le_bytes());
        bytes[28..30].copy_from_slice(&len[..2]);
        bytes[30..34].copy_from_slice(&self.crc.to_le_bytes());
        bytes[34..36].copy_from_slice(&self.previous.file.to_be_bytes());
        bytes[36..40].copy_from_slice(&self.previous.position.to_be_bytes());
        let crc = seed.envelope(position, &bytes);
        bytes[..4].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The record that `bytes` begin with, head and value, if it begins at `position` and both of
    /// its checksums verify.
    #[inline(always)]
    pub(crate) fn verify_record(bytes: &[u8], seed: Seed, position: u32) -> Option<(Head, &[u8])> {
        let head = bytes.first_chunk()?;
        // Not verified yet, so it counts for nothing but where the value would end.
        let len = len_of(head) as usize;
        let parsed = Head::parse(head)?;
        verify(bytes, len, seed, position).map(|(_, value)| (parsed, value))
    }

    /// What the record that `bytes` begin with says of its id, and how long it says it is. Not verified.
    #[inline(always)]
    pub(crate) fn peek(bytes: &[u8]) -> Option<(u32, usize)> {
        let head = bytes.first_chunk()?;
        Some((u32_at(head, 8), HEAD.saturating_add(len_of(head) as usize)))
    }

    /// As [`Head::verify_record`], if it is the value of record `id`, of `len` bytes, which are fewer
    /// than 64 KiB. Who knows the length elsewhere waits once: all of the record is asked for together,
    /// and not the value when its head has come from memory.
    #[inline(always)]
    pub(crate) fn verify_put(
        bytes: &[u8],
        id: u32,
        len: usize,
        seed: Seed,
        position: u32,
    ) -> Option<(Head, &[u8])> {
        let (head, value) = verify(bytes, len, seed, position)?;
        // Kind, flags and the length's upper half, compared together.
        let known = u32_at(head, 4) & !(u32::from(FLAG_COMMIT | FLAG_SKIPS) << 8);
        let is_put = known == u32::from(Kind::Put.to_byte());
        if !is_put || usize::from(u16_at(head, 28)) != len || u32_at(head, 8) != id {
            return None;
        }
        Head::parse(head).map(|head| (head, value))
    }

    /// The fields as they stand. `None` if there is no such kind of record or an unknown flag.
    #[inline(always)]
    fn parse(bytes: &[u8; HEAD]) -> Option<Head> {
        let kind = Kind::from_byte(bytes[KIND])?;
        if bytes[5] & !(FLAG_COMMIT | FLAG_SKIPS) != 0 {
            return None;
        }
        Some(Head {
            kind,
            last: bytes[5] & FLAG_COMMIT != 0,
            skips: bytes[5] & FLAG_SKIPS != 0,
            id: u32_at(bytes, 8),
            commit: u64_at(bytes, 12),
            time_us: u64_at(bytes, 20),
            len: len_of(bytes),
            crc: u32_at(bytes, 30),
            previous: Location {
                file: u16::from_be_bytes(array_at(bytes, 34)),
                position: u32::from_be_bytes(array_at(bytes, 36)),
            },
        })
    }

    /// Whether this may be of the commit that comes after commit `before`.
    pub(crate) fn follows(&self, before: u64) -> bool {
        Some(self.commit) == before.checked_add(1) || (self.skips && self.commit > before)
    }

    /// The fields of a record that begins at `position`, if its envelope verifies.
    #[inline]
    pub(crate) fn verify(bytes: &[u8; HEAD], seed: Seed, position: u32) -> Option<Head> {
        let head = Head::parse(bytes)?;
        let crc = u32_at(bytes, 0);
        (seed.envelope(position, bytes) == crc || planted!(envelope_checksum_ignored))
            .then_some(head)
    }

    /// What herolib has left of a record of ours that it has deleted: it zeroes its own header, and as much
    /// of the value as that says. The lower half of the length is gone then, and nothing verifies any more.
    pub(super) fn zeroed_by_herolib(bytes: &[u8; HEAD]) -> Option<Head> {
        let header = &bytes[HEROLIB_HEADER as usize..];
        Head::parse(bytes)
            .filter(|head| head.kind == Kind::Put && header.iter().all(|&byte| byte == 0))
    }

    /// Length of the whole record.
    pub(crate) fn record_len(&self) -> u64 {
        HEAD as u64 + u64::from(self.len)
    }
}

/// Whether `bytes` may be a sync mark, judged by the fields that are fixed in one. Cheap, so that
/// a search over many positions computes few CRCs.
pub(crate) fn looks_like_sync_mark(bytes: &[u8]) -> bool {
    bytes.len() >= HEAD
        && bytes[4] == Kind::SyncMark.to_byte()
        && bytes[5] == FLAG_COMMIT
        && bytes[6..12].iter().all(|&byte| byte == 0)
        && bytes[28..34].iter().all(|&byte| byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Head {
        Head {
            kind: Kind::Put,
            last: true,
            skips: false,
            id: 0x0102_0304,
            commit: 7,
            time_us: 1_700_000_000_000_000,
            len: 0x0003_0005,
            crc: 0xdead_beef,
            previous: Location {
                file: 2,
                position: 0x0a0b_0c0d,
            },
        }
    }

    #[test]
    fn a_record_reads_back_as_written() {
        let seed = Seed::new(&[9; 16], 3);
        let bytes = sample().encode(seed, 64);
        assert_eq!(Head::verify(&bytes, seed, 64), Some(sample()));
    }

    #[test]
    fn the_bytes_are_those_of_the_format() {
        let bytes = sample().encode(Seed::new(&[9; 16], 3), 64);
        assert_eq!(bytes[4..8], [1, 1, 3, 0]);
        assert_eq!(bytes[8..12], [4, 3, 2, 1]);
        // What herolib reads: u16 LE size, u32 LE CRC, u16 BE file, u32 BE position.
        assert_eq!(
            bytes[28..40],
            [5, 0, 0xef, 0xbe, 0xad, 0xde, 0, 2, 0x0a, 0x0b, 0x0c, 0x0d]
        );
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let seed = Seed::new(&[9; 16], 3);
        let bytes = sample().encode(seed, 64);
        for bit in 0..HEAD * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Head::verify(&flipped, seed, 64), None, "bit {bit}");
        }
    }

    #[test]
    fn a_record_is_valid_in_its_own_place_only() {
        let seed = Seed::new(&[9; 16], 3);
        let bytes = sample().encode(seed, 64);
        assert_eq!(Head::verify(&bytes, seed, 65), None, "another position");
        assert_eq!(
            Head::verify(&bytes, Seed::new(&[9; 16], 4), 64),
            None,
            "another file"
        );
        assert_eq!(
            Head::verify(&bytes, Seed::new(&[8; 16], 3), 64),
            None,
            "another database"
        );
    }

    #[test]
    fn only_who_says_so_leaves_commits_out() {
        let mut head = sample();
        let seed = Seed::new(&[9; 16], 3);
        assert_eq!(head.encode(seed, 64)[5], 1);
        let after = |head: &Head| [0, 5, 6, 7, 8, u64::MAX].map(|before| head.follows(before));
        assert_eq!(after(&head), [false, false, true, false, false, false]);
        head.skips = true;
        let bytes = head.encode(seed, 64);
        assert_eq!((bytes[5], Head::verify(&bytes, seed, 64)), (3, Some(head)));
        assert_eq!(after(&head), [true, true, true, false, false, false]);
    }

    #[test]
    fn zeros_are_no_record() {
        assert_eq!(Head::parse(&[0; HEAD]), None);
    }
}
