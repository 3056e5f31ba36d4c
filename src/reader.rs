//! Reading a file in large pieces, by system calls: for files whose end is not known yet, or that
//! nothing is known of. What may be read through a mapping all the same, [`Reader::view`] gives.

use std::sync::Arc;

use crate::bytes::reserve;
use crate::error::{Error, Result};
use crate::storage::{Access, File, Storage, View};

/// A file, with the piece of it in memory that was read last.
#[derive(Debug)]
pub(crate) struct Reader {
    file: Arc<dyn File>,
    path: String,
    len: u64,
    /// At least so much is read at a time, where there is so much.
    piece: u64,
    /// What can't be read counts as zeros.
    salvages: bool,
    buffer: Vec<u8>,
    start: u64,
    /// How many bytes were read for values that they are not, and where the last such value ends since
    /// they are too many.
    in_vain: u64,
    passed_over: u64,
}

/// So many times as many bytes as the file has may be read for values that they are not. Records may stand
/// in what should be the value of another, where it was written over; but not one in the other for long.
const MOST_IN_VAIN: u64 = 8;
/// As if no file had fewer bytes: where there is little to read, all of it is looked at.
const SHORT_FILE: u64 = 128 << 10;

/// Where something can't be read, what lies around is read in pieces of this length: those of the kernel's
/// cache.
const PAGE: usize = 4096;

impl Reader {
    /// Opens `name`, to be read front to back: in pieces of 256 KiB.
    pub(crate) fn sequential(storage: &dyn Storage, name: &str) -> Result<Reader> {
        Reader::open(storage, name, 256 << 10)
    }

    /// Opens `name`, to be read here and there: in pieces of 4 KiB.
    pub(crate) fn random(storage: &dyn Storage, name: &str) -> Result<Reader> {
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
                salvages: false,
                buffer: Vec::new(),
                start: 0,
                in_vain: 0,
                passed_over: 0,
            }),
            Err(error) => Err(Error::from_io("open", path, error)),
        }
    }

    /// The same, as if the file ended at `len` if it doesn't end before.
    pub(crate) fn up_to(mut self, len: u64) -> Reader {
        self.len = self.len.min(len);
        self
    }

    /// The same, where `salvages`, as if there were zeros where it can't be read: a failing disk has the
    /// rest all the same.
    pub(crate) fn salvaging(mut self, salvages: bool) -> Reader {
        self.salvages = salvages;
        self
    }

    /// Notes that the `len` bytes from `position` on are not the value that they should be.
    pub(crate) fn note_in_vain(&mut self, position: u64, len: u64) {
        self.in_vain += len;
        if self.in_vain / MOST_IN_VAIN > self.len.max(SHORT_FILE) {
            self.passed_over = position + len;
        }
    }

    /// How many bytes were read for values that they are not.
    #[cfg(test)]
    pub(crate) fn in_vain(&self) -> u64 {
        self.in_vain
    }

    /// No record is to be looked for before this place, or of values that lie one in the other each would
    /// be read.
    pub(crate) fn passed_over(&self) -> u64 {
        self.passed_over
    }

    /// Forgets the piece in memory: the file was changed.
    pub(crate) fn forget(&mut self) {
        self.buffer.clear();
    }

    /// The file through a mapping of its own, where it can be mapped.
    pub(crate) fn view(&self) -> View {
        let view = self.file.view(self.len);
        let view = view.unwrap_or_else(|_| View::unmapped());
        view.extend_to(self.len);
        view
    }

    /// Whether `view` is known to be of this file.
    pub(crate) fn is_seen_by(&self, view: &View) -> bool {
        let identity = self.file.identity().ok().flatten();
        identity.is_some() && identity == view.identity()
    }

    /// Length of the file when it was opened, or less if only so much is to be read.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// How many bytes the file has by now from `position` on; none where that can't be told.
    pub(crate) fn left(&self, position: u64) -> u64 {
        let len = self.file.len().unwrap_or(0).min(self.len);
        len.saturating_sub(position)
    }

    /// The first bytes of the file, which has so many. The piece in memory stays.
    pub(crate) fn first<const N: usize>(&self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        let read = self.file.read_at(0, &mut bytes);
        read.map_err(|error| Error::from_io("read", self.path.as_str(), error))?;
        Ok(bytes)
    }

    /// `len` bytes from `position`, or fewer where the file ends.
    pub(crate) fn bytes(&mut self, position: u64, len: u64) -> Result<&[u8]> {
        let position = position.min(self.len);
        let stop = position.saturating_add(len).min(self.len);
        if position < self.start || stop > self.start + self.buffer.len() as u64 {
            let asked = stop - position;
            let whole = asked.max(self.piece).min(self.len - position);
            match self.fill(position, whole) {
                // What can't be read may lie behind what was asked for.
                Err(_) if asked < whole => self.fill(position, asked)?,
                filled => filled?,
            }
        }
        let from = (position - self.start) as usize;
        Ok(&self.buffer[from..from + (stop - position) as usize])
    }

    /// Makes the `len` bytes from `position` on the piece in memory.
    fn fill(&mut self, position: u64, len: u64) -> Result<()> {
        let more = (len as usize).saturating_sub(self.buffer.len());
        reserve(&mut self.buffer, more)?;
        self.buffer.resize(len as usize, 0);
        self.start = position;
        let read = self.file.read_at(position, &mut self.buffer);
        if read.is_err() && self.salvages {
            self.fill_with_what_is_there();
            return Ok(());
        }
        read.map_err(|error| {
            self.buffer.clear();
            Error::from_io("read", self.path.as_str(), error)
        })
    }

    /// Reads the piece in memory page by page.
    fn fill_with_what_is_there(&mut self) {
        let (mut at, mut rest) = (self.start, &mut self.buffer[..]);
        while !rest.is_empty() {
            let to_next = PAGE - at as usize % PAGE;
            let (page, behind) = rest.split_at_mut(to_next.min(rest.len()));
            if self.file.read_at(at, page).is_err() {
                page.fill(0);
            }
            at += page.len() as u64;
            rest = behind;
        }
    }

    /// The bytes from `position` on that are in memory.
    pub(crate) fn at_hand(&self, position: u64) -> &[u8] {
        let from = position.checked_sub(self.start);
        let held = from.and_then(|from| self.buffer.get(from as usize..));
        held.unwrap_or_default()
    }

    /// Bytes from `position` on, as many as are at hand; none at the end of the file.
    pub(crate) fn piece(&mut self, position: u64) -> Result<&[u8]> {
        let held = (self.start + self.buffer.len() as u64).saturating_sub(position);
        let len = if position >= self.start && held > 0 {
            held
        } else {
            self.piece
        };
        self.bytes(position, len)
    }

    /// The first byte at or after `position` that isn't 0; the file's length if there is none.
    pub(crate) fn end_of_zeros(&mut self, position: u64) -> Result<u64> {
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

    /// Where the last byte at or after `from` that isn't 0 ends; `from` if all are 0.
    pub(crate) fn written_end(&mut self, from: u64) -> Result<u64> {
        let mut end = from;
        let mut at = from;
        while at < self.len {
            let piece = self.piece(at)?;
            if let Some(last) = piece.iter().rposition(|&byte| byte != 0) {
                end = at + last as u64 + 1;
            }
            at += piece.len() as u64;
        }
        Ok(end)
    }
}
