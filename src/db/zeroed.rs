//! Which records herolib has zeroed: not where a record stands that holds, which it has left as it was.

use std::ops::Range;

use crate::bytes::{collected, reserve};
use crate::error::{Error, Result};
use crate::herolib::{self, record::HEADER};
use crate::location::Location;
use crate::log::record::Seed;
use crate::log::scan::{Found, ReadRecord};
use crate::log::segment::{FILE_HEADER, FileHeader, LONGEST_FILE, name};
use crate::reader::Reader;
use crate::storage::{Access, Storage};

/// The data files, of which only those are read that are asked for.
pub(super) struct Zeroed<'a> {
    storage: &'a dyn Storage,
    uuid: &'a [u8; 16],
    files: &'a [herolib::DataFile],
    /// Of each data file what no record that holds covers, ascending, once it was read.
    bare: Vec<Option<Vec<Range<u64>>>>,
}

impl<'a> Zeroed<'a> {
    pub(super) fn new(
        storage: &'a dyn Storage,
        uuid: &'a [u8; 16],
        files: &'a [herolib::DataFile],
    ) -> Result<Zeroed<'a>> {
        Ok(Zeroed {
            storage,
            uuid,
            files,
            bare: collected(files.iter().map(|_| None))?,
        })
    }

    /// Whether herolib has zeroed the record at `place`.
    ///
    /// It was the first version, of an empty value, if that was zeros before: then nothing tells whether it
    /// was deleted.
    pub(super) fn is_deleted(&mut self, place: Location) -> Result<bool> {
        if is_zeroed(self.storage, place.file, place.position)? {
            return Ok(true);
        }
        // In V it may be that place of another data file that gets zeroed: 12 bytes, and as many more as the
        // first two say. So some of the 12 were no zeros, and what they belonged to doesn't hold any more.
        let (from, to) = (
            u64::from(place.position),
            u64::from(place.position) + HEADER as u64,
        );
        for (index, file) in self.files.iter().enumerate() {
            if !is_zeroed(self.storage, file.number, place.position)? {
                continue;
            }
            if self.bare[index].is_none() {
                self.bare[index] = Some(self.read(file.number)?);
            }
            let bare = self.bare[index].as_deref().unwrap_or_default();
            let next = bare.partition_point(|stretch| stretch.end <= from);
            if bare.get(next).is_some_and(|stretch| stretch.start < to) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What no record that holds covers in a data file: ours, or herolib's that stand alone or behind ours.
    fn read(&self, number: u16) -> Result<Vec<Range<u64>>> {
        let header = FileHeader::of(self.storage, number)?;
        let is_ours = header.is_some_and(|header| header.uuid == *self.uuid);
        let seed = Seed::new(self.uuid, number);
        let mut reader = Reader::sequential(self.storage, &name(number))?.up_to(LONGEST_FILE);
        let mut at = if is_ours { FILE_HEADER as u64 } else { 1 };
        let mut bare: Vec<Range<u64>> = Vec::new();
        while at < reader.len() {
            if let Found::Record(head) = reader.record(at, seed)? {
                at += head.record_len();
                continue;
            }
            // A record of zeros may have been another one, also where it is live.
            let (record, next) = herolib::record_at(&mut reader, self.files, at, || false)?;
            if record.is_some() {
                at = next;
                continue;
            }
            match bare.last_mut().filter(|last| last.end == at) {
                Some(last) => last.end = next,
                None => {
                    reserve(&mut bare, 1)?;
                    bare.push(at..next);
                }
            }
            at = next;
        }
        Ok(bare)
    }
}

/// Whether there are as many zeros as herolib leaves of a record, at the least, at `position` of a data file.
fn is_zeroed(storage: &dyn Storage, number: u16, position: u32) -> Result<bool> {
    let name = name(number);
    let mut header = [0xff; HEADER];
    let read = storage
        .open(&name, Access::Read)
        .and_then(|file| file.read_at(u64::from(position), &mut header));
    match read {
        Ok(()) => Ok(header.iter().all(|&byte| byte == 0)),
        Err(error)
            if matches!(
                error.kind(),
                std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::NotFound
            ) =>
        {
            Ok(false)
        }
        Err(error) => Err(Error::from_io("read", storage.describe(&name), error)),
    }
}
