//! The decoders of records and of data file headers, on bytes that nobody made on purpose: random
//! ones, and good ones changed at random whose checksum was made to fit again. What decodes is what
//! encodes to the same bytes, and nothing else; no bytes make them panic.

use super::record::{HEAD, Head, Kind, Seed, looks_like_sync_mark, value_crc};
use super::segment::{FILE_HEADER, FileHeader, LogEnd};
use crate::herolib::record::Header;
use crate::location::Location;

/// splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Changes a few bytes, or all.
    fn change(&mut self, bytes: &mut [u8]) {
        let count = match self.next() % 8 {
            0 => bytes.len() as u64,
            few => few,
        };
        for _ in 0..count {
            let at = self.next() as usize % bytes.len();
            bytes[at] = match self.next() % 4 {
                0 => 0,
                1 => 0xff,
                2 => bytes[at] ^ 1 << (self.next() % 8),
                _ => self.next() as u8,
            };
        }
    }
}

const UUID: [u8; 16] = [9; 16];
const FILE: u16 = 3;

/// The checksum of a record's envelope, computed as `docs/FORMAT.md` says.
fn envelope_crc(bytes: &[u8], position: u32) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&UUID);
    hasher.update(&FILE.to_le_bytes());
    let mut hasher = crc32fast::Hasher::new_with_initial(hasher.finalize() ^ position);
    hasher.update(&bytes[4..HEAD]);
    hasher.finalize()
}

#[test]
fn a_record_is_what_encodes_to_its_bytes() {
    let seed = Seed::new(&UUID, FILE);
    let mut random = Random(1);
    let mut decoded = 0;
    for _ in 0..400_000 {
        let position = random.next() as u32;
        let value = [7; 24];
        let good = Head {
            kind: Kind::Put,
            last: true,
            skips: false,
            id: 5,
            commit: 6,
            time_us: 7,
            len: value.len() as u32,
            crc: value_crc(&value),
            previous: Location {
                file: 1,
                position: 92,
            },
        };
        let mut bytes = [0; HEAD + 24];
        bytes[..HEAD].copy_from_slice(&good.encode(seed, position));
        bytes[HEAD..].copy_from_slice(&value);
        random.change(&mut bytes);
        let mended = !random.next().is_multiple_of(4);
        if mended {
            let crc = envelope_crc(&bytes, position);
            bytes[..4].copy_from_slice(&crc.to_le_bytes());
        }
        let head: &[u8; HEAD] = bytes.first_chunk().expect("it is longer");
        let found = Head::verify(head, seed, position);
        if let Some(found) = &found {
            assert_eq!(found.encode(seed, position), *head);
            decoded += 1;
        } else if mended {
            assert!(!(1..=3).contains(&head[4]) || head[5] > 1, "{head:?}");
        }
        let is_mark = |head: Head| {
            head.kind == Kind::SyncMark && head.last && (head.len, head.id, head.crc) == (0, 0, 0)
        };
        assert_eq!(
            found.is_some_and(is_mark),
            found.is_some() && looks_like_sync_mark(&bytes)
        );
        let cut = random.next() as usize % (bytes.len() + 1);
        let whole = Head::verify_record(&bytes[..cut], seed, position);
        let fits = |head: &Head| {
            let value = bytes[..cut].get(HEAD..HEAD + head.len as usize);
            value.is_some_and(|value| value_crc(value) == head.crc)
        };
        let expected = found.filter(|head| cut >= HEAD && fits(head));
        assert_eq!(whole.map(|(head, _)| head), expected);
    }
    assert!(decoded > 100_000, "{decoded} decoded");
}

#[test]
fn a_data_file_header_is_what_encodes_to_its_bytes() {
    let mut random = Random(2);
    let mut decoded = 0;
    for _ in 0..200_000 {
        let good = FileHeader {
            uuid: [4; 16],
            number: 2,
            after: Some(LogEnd {
                file: 1,
                position: 99,
            }),
            generation: 3,
            first_commit: 8,
        };
        let mut bytes = good.encode();
        random.change(&mut bytes[8..]);
        let crc = crc32fast::hash(&bytes[..60]);
        bytes[60..].copy_from_slice(&crc.to_le_bytes());
        let Some(found) = FileHeader::decode(&bytes) else {
            // Of another format, or of a generation that no database comes to.
            assert!(bytes[8..12] != [1, 0, 0, 0] || bytes[43] >= 0x80);
            continue;
        };
        decoded += 1;
        // Bytes that mean nothing don't come back.
        let again = FileHeader::decode(&found.encode());
        assert_eq!(again, Some(found));
    }
    assert!(decoded > 50_000, "{decoded} decoded");
    assert_eq!(FileHeader::decode(&[0; FILE_HEADER - 1]), None);
}

#[test]
fn any_bytes_are_a_record_of_herolibs_or_none() {
    let mut random = Random(3);
    for _ in 0..200_000 {
        let mut bytes = [0; 16];
        random.change(&mut bytes);
        let len = random.next() as usize % 17;
        let header = Header::decode(&bytes[..len]);
        assert_eq!(header.is_some(), len >= 12);
    }
}
