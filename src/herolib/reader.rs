//! Reading one file of a herolib directory in pieces.

use std::sync::Arc;

use super::record::{HEADER, Header};
use crate::error::{Error, Result};
use crate::storage::{Access, File, Storage};

/// A file, with the piece of it in memory that was read last.
#[derive(Debug)]
pub(super) struct Reader {
    file: Arc<dyn File>,
    path: String,
    len: u64,
    /// At least so much is read at a time, where there is so much.
    piece: u64,
    buffer: Vec<u8>,
    start: u64,
}

impl Reader {
    /// Opens `name`, to be read front to back: in pieces of 256 KiB.
    pub(super) fn sequential(storage: &dyn Storage, name: &str) -> Result<Reader> {
        Reader::open(storage, name, 256 << 10)
    }

    /// Opens `name`, to be read here and there: in pieces of 4 KiB.
    pub(super) fn random(storage: &dyn Storage, name: &str) -> Result<Reader> {
        Reader::open(storage, name, 4 << 10)
    }

    fn open(storage: &dyn Storage, name: &str, piece: u64) -> Result<Reader> {
        let path = storage.describe(name);
        let opened = storage
            .open(name, Access::Read)
            .and_then(|file| Ok((file.len()?, file)));
        match opened {
            Ok((len, file)) => Ok(Reader {
                file,
                path,
                len,
                piece,
                buffer: Vec::new(),
                start: 0,
            }),
            Err(error) => Err(Error::from_io("open", path, error)),
        }
    }

    /// Length of the file when it was opened.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// `len` bytes from `position`, or fewer where the file ends.
    pub(super) fn bytes(&mut self, position: u64, len: u64) -> Result<&[u8]> {
        let position = position.min(self.len);
        let stop = position.saturating_add(len).min(self.len);
        if position < self.start || stop > self.start + self.buffer.len() as u64 {
            let wanted = (stop - position).max(self.piece).min(self.len - position);
            self.buffer.resize(wanted as usize, 0);
            self.start = position;
            if let Err(error) = self.file.read_at(position, &mut self.buffer) {
                self.buffer.clear();
                return Err(Error::from_io("read", self.path.as_str(), error));
            }
        }
        let from = (position - self.start) as usize;
        Ok(&self.buffer[from..from + (stop - position) as usize])
    }

    /// Bytes from `position` on, as many as are at hand; none at the end of the file.
    pub(super) fn piece(&mut self, position: u64) -> Result<&[u8]> {
        let held = (self.start + self.buffer.len() as u64).saturating_sub(position);
        let len = if position >= self.start && held > 0 {
            held
        } else {
            self.piece
        };
        self.bytes(position, len)
    }

    /// What would be the header of a record at `position`; `None` where the file ends before.
    pub(super) fn header(&mut self, position: u64) -> Result<Option<Header>> {
        Ok(Header::decode(self.bytes(position, HEADER as u64)?))
    }

    /// Whether the value behind the header at `position` is there and has the header's CRC.
    pub(super) fn value_holds(&mut self, position: u64, header: &Header) -> Result<bool> {
        let value = self.bytes(position + HEADER as u64, u64::from(header.size))?;
        Ok(header.describes(value))
    }

    /// The first byte at or after `position` that isn't 0; the file's length if there is none.
    pub(super) fn end_of_zeros(&mut self, position: u64) -> Result<u64> {
        let mut at = position;
        while at < self.len {
            let piece = self.piece(at)?;
            if let Some(index) = piece.iter().position(|&byte| byte != 0) {
                return Ok(at + index as u64);
            }
            at += piece.len() as u64;
        }
        Ok(self.len)
    }
}
