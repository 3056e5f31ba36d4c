//! herolib's record header, the 12 bytes before every value.
//!
//! ```text
//!  0  2  length of the value, little-endian
//!  2  4  CRC32 (IEEE) of the value, little-endian
//!  6  2  location of the version before: data file, big-endian
//!  8  4  location of the version before: position, big-endian; 0 = this is the first version
//! 12     the value
//! ```
//!
//! The location takes six bytes whatever the lookup's width, and the id is nowhere in a record.

use crate::location::Location;

/// Length of the header in bytes.
pub(crate) const HEADER: usize = 12;
/// Length of the longest record that the 16 bits of its header can describe.
pub(crate) const LONGEST_RECORD: u64 = HEADER as u64 + u16::MAX as u64;

/// What a header says.
///
/// All zeros is a valid header: the first version of a record, with an empty value, whose CRC is
/// 0. It is also what herolib leaves of a record that it deletes, together with zeros in the place
/// of the value. The two can't be told apart by the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) size: u16,
    pub(crate) crc: u32,
    pub(crate) previous: Location,
}

impl Header {
    /// The header at the beginning of `bytes`; `None` if they are fewer than [`HEADER`].
    pub(crate) fn decode(bytes: &[u8]) -> Option<Header> {
        let &[s0, s1, c0, c1, c2, c3, f0, f1, p0, p1, p2, p3] = bytes.first_chunk::<HEADER>()?;
        Some(Header {
            size: u16::from_le_bytes([s0, s1]),
            crc: u32::from_le_bytes([c0, c1, c2, c3]),
            previous: Location {
                file: u16::from_be_bytes([f0, f1]),
                position: u32::from_be_bytes([p0, p1, p2, p3]),
            },
        })
    }

    /// The bytes.
    pub(crate) fn encode(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..2].copy_from_slice(&self.size.to_le_bytes());
        bytes[2..6].copy_from_slice(&self.crc.to_le_bytes());
        bytes[6..8].copy_from_slice(&self.previous.file.to_be_bytes());
        bytes[8..].copy_from_slice(&self.previous.position.to_be_bytes());
        bytes
    }

    /// Length of the whole record.
    pub(crate) fn record_len(&self) -> u64 {
        HEADER as u64 + u64::from(self.size)
    }

    /// Whether `value` is what the header describes.
    pub(crate) fn describes(&self, value: &[u8]) -> bool {
        value.len() == usize::from(self.size) && crc32fast::hash(value) == self.crc
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_are_those_that_herolib_wrote() {
        // "hello", then "world!" over it: from the description of the original's format.
        let file = b"\x00\
            \x05\x00\x86\xa6\x10\x36\x00\x00\x00\x00\x00\x00hello\
            \x06\x00\xe8\x98\x84\x71\x00\x00\x00\x00\x00\x01world!";
        let hello = Header::decode(&file[1..]).unwrap();
        assert_eq!((hello.size, hello.crc), (5, 0x3610_a686));
        assert!(hello.previous.is_none() && hello.describes(b"hello"));
        assert!(!hello.describes(b"hellp") && !hello.describes(b"hell"));
        let world = Header::decode(&file[1 + hello.record_len() as usize..]).unwrap();
        assert_eq!(
            world.previous,
            Location {
                file: 0,
                position: 1
            }
        );
        assert!(world.describes(b"world!"));
        assert_eq!(
            world.encode(),
            file[1 + hello.record_len() as usize..][..HEADER]
        );
    }

    #[test]
    fn the_location_before_is_big_endian() {
        let header = Header::decode(&[0, 0, 0, 0, 0, 0, 0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc]);
        let before = Location {
            file: 0x1234,
            position: 0x5678_9abc,
        };
        assert_eq!(header.map(|header| header.previous), Some(before));
    }

    #[test]
    fn zeros_describe_an_empty_first_version() {
        let header = Header::decode(&[0; 20]).unwrap();
        assert!(header.describes(b"") && header.previous.is_none());
        assert_eq!(Header::decode(&[0; HEADER - 1]), None);
    }
}
