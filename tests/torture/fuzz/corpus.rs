//! The corpus: directories that reached code which no other one did, kept in one file.
//!
//! ```text
//! entry      number of files u16, then for each: length of its name u16, its name, its content
//! content    pieces, each: length of the bytes u16, the bytes, number of zeros after them u32;
//!            a piece without bytes and zeros ends it
//! ```

use std::fs;
use std::path::PathBuf;

use super::storage::Files;

/// Fewer zeros than this are bytes like others.
const ZEROS: usize = 8;

pub(super) fn path() -> PathBuf {
    PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/corpus/directories"
    ))
}

/// All directories of the corpus.
pub(super) fn read() -> Vec<Files> {
    let bytes = fs::read(path()).expect("tests/corpus/directories");
    let mut reader = Reader(&bytes);
    let mut entries = Vec::new();
    while !reader.0.is_empty() {
        let count = reader.u16();
        let file = |_| {
            let len = reader.u16();
            let name = String::from_utf8(reader.bytes(len).to_vec()).expect("a name");
            (name, reader.content())
        };
        entries.push((0..count).map(file).collect());
    }
    entries
}

pub(super) fn encode_content(bytes: &mut Vec<u8>, content: &[u8]) {
    let mut rest = content;
    while !rest.is_empty() {
        let long = rest.len().min(usize::from(u16::MAX));
        let zeros = rest[..long]
            .windows(ZEROS)
            .position(|run| run == [0; ZEROS]);
        let (piece, after) = rest.split_at(zeros.unwrap_or(long));
        let zeros = after.iter().take_while(|byte| **byte == 0).count();
        bytes.extend_from_slice(&(piece.len() as u16).to_le_bytes());
        bytes.extend_from_slice(piece);
        bytes.extend_from_slice(&(zeros as u32).to_le_bytes());
        rest = &after[zeros..];
    }
    bytes.extend_from_slice(&[0; 6]);
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn bytes(&mut self, len: u16) -> &'a [u8] {
        let (bytes, rest) = self.0.split_at(usize::from(len));
        self.0 = rest;
        bytes
    }

    fn u16(&mut self) -> u16 {
        let bytes = self.bytes(2);
        u16::from_le_bytes([bytes[0], bytes[1]])
    }

    fn u32(&mut self) -> u32 {
        u32::from(self.u16()) | u32::from(self.u16()) << 16
    }

    fn content(&mut self) -> Vec<u8> {
        let mut content = Vec::new();
        loop {
            let len = self.u16();
            content.extend_from_slice(self.bytes(len));
            let zeros = self.u32();
            if len == 0 && zeros == 0 {
                return content;
            }
            content.resize(content.len() + zeros as usize, 0);
        }
    }
}

#[test]
fn a_directory_reads_back_as_it_was_encoded() {
    let contents: [&[u8]; 5] = [b"", b"abc", &[0; 9], b"a\0\0\0\0\0\0\0\0\0b", &[7; 70_000]];
    for content in contents {
        let mut bytes = Vec::new();
        encode_content(&mut bytes, content);
        let mut reader = Reader(&bytes);
        assert_eq!(reader.content(), content);
        assert!(reader.0.is_empty());
    }
}
