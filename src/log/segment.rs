//! One data file: its header, and reading versions out of it.
//!
//! ```text
//!  0   1  0: herolib never reads it, its records begin at 1
//!  1   7  "OurDB" 0x1a 0x0a
//!  8   4  format version, 1
//! 12  16  database uuid
//! 28   2  number of this file
//! 30   2  number of the data file before; 0xffff with end 0 if this is the first
//! 32   4  length of that file's log: where it ends and this one goes on
//! 36   8  generation
//! 44   8  number of the commit after the last one before this file
//! 52   8  0
//! 60   4  CRC32 of bytes 0..60
//! ```

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use super::Log;
use super::erasure;
use super::record::{HEAD, HEROLIB_HEADER, Head, KIND, Kind, Seed, value_crc};
use crate::bytes::{array_at, reserve, u16_at, u32_at, u64_at, zeroed};
use crate::error::{Error, NotFound, Result};
use crate::herolib;
pub(crate) use crate::herolib::data_file_name as name;
use crate::location::Location;
use crate::planted::planted;
use crate::storage::{Access, File, Storage, View};
use crate::sync::{Mutex, PoisonError};

/// Length of a data file's header.
pub(crate) const FILE_HEADER: usize = 64;
/// No data file is longer: every position fits 32 bits.
pub(crate) const LONGEST_FILE: u64 = u32::MAX as u64;
/// Of a long value only so much is prefetched: the processor follows a sequence by itself.
const PREFETCH: usize = 512;
/// Values that are not longer are copied without an allocation, where another process may overwrite them.
const SHORT: usize = 512;
/// Version of the format of data files.
const FORMAT: u32 = 1;
/// Of a header: what is the same in every data file of this number, and what is always 0.
const BEFORE_AFTER: usize = 30;
const RESERVED: Range<usize> = 52..60;
const MAGIC: [u8; 8] = [0, b'O', b'u', b'r', b'D', b'B', 0x1a, 0x0a];

/// The end of a data file's log: the file, and the position after its last record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct LogEnd {
    pub(crate) file: u16,
    pub(crate) position: u32,
}

impl LogEnd {
    /// The location of the version whose record begins here.
    pub(crate) fn location(self) -> Location {
        Location {
            file: self.file,
            position: self.position + HEROLIB_HEADER as u32,
        }
    }

    /// As a location in a sync mark.
    pub(crate) fn to_location(self) -> Location {
        Location {
            file: self.file,
            position: self.position,
        }
    }

    /// In one word; 0 for none.
    pub(crate) fn to_word(end: Option<LogEnd>) -> u64 {
        end.map_or(0, |end| u64::from(end.file) << 32 | u64::from(end.position))
    }

    pub(crate) fn from_word(word: u64) -> Option<LogEnd> {
        (word != 0).then_some(LogEnd {
            file: (word >> 32) as u16,
            position: word as u32,
        })
    }

    pub(crate) fn from_location(location: Location) -> LogEnd {
        LogEnd {
            file: location.file,
            position: location.position,
        }
    }
}

impl fmt::Display for LogEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "offset {} of {}", self.position, name(self.file))
    }
}

/// No generation is beyond this: there are bytes that say so, but no database gets there.
pub(crate) const LAST_GENERATION: u64 = u64::MAX / 2;

/// What the header of a data file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileHeader {
    pub(crate) uuid: [u8; 16],
    pub(crate) number: u16,
    /// Where the log goes on from; `None` in the first data file.
    pub(crate) after: Option<LogEnd>,
    pub(crate) generation: u64,
    /// The commit after the last one before this file. Its own first one is that, or a later one.
    pub(crate) first_commit: u64,
}

impl FileHeader {
    pub(crate) fn encode(&self) -> [u8; FILE_HEADER] {
        let mut bytes = [0u8; FILE_HEADER];
        let after = self.after.unwrap_or(LogEnd {
            file: u16::MAX,
            position: 0,
        });
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        bytes[12..28].copy_from_slice(&self.uuid);
        bytes[28..30].copy_from_slice(&self.number.to_le_bytes());
        bytes[30..32].copy_from_slice(&after.file.to_le_bytes());
        bytes[32..36].copy_from_slice(&after.position.to_le_bytes());
        bytes[36..44].copy_from_slice(&self.generation.to_le_bytes());
        bytes[44..52].copy_from_slice(&self.first_commit.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..60]);
        bytes[60..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The header, if these are the first bytes of a data file of ours and none was changed.
    pub(crate) fn decode(bytes: &[u8]) -> Option<FileHeader> {
        let bytes = bytes.get(..FILE_HEADER)?;
        if bytes[..8] != MAGIC
            || u32_at(bytes, 8) != FORMAT
            || u64_at(bytes, 36) > LAST_GENERATION
            || (u32_at(bytes, 60) != crc32fast::hash(&bytes[..60])
                && !planted!(data_file_checksum_ignored))
        {
            return None;
        }
        let after = LogEnd {
            file: u16_at(bytes, 30),
            position: u32_at(bytes, 32),
        };
        Some(FileHeader {
            uuid: array_at(bytes, 12),
            number: u16_at(bytes, 28),
            after: (after.position != 0).then_some(after),
            generation: u64_at(bytes, 36),
            first_commit: u64_at(bytes, 44),
        })
    }

    /// Whether it is that of a data file of this generation of the database `uuid`.
    pub(crate) fn is_of(&self, uuid: &[u8; 16], generation: u64) -> bool {
        self.uuid == *uuid && self.generation == generation
    }

    /// Reads the header of a data file; `None` where there is none of ours.
    pub(crate) fn of(storage: &dyn Storage, number: u16) -> Result<Option<FileHeader>> {
        let (bytes, len) = first_bytes::<FILE_HEADER>(storage, number)?;
        Ok(FileHeader::decode(&bytes[..len]))
    }

    /// Whether a data file without a valid header is one of the database `uuid` whose header never
    /// got to the disk, or only in parts: what there is of it is as it would be, the rest zeros, and
    /// behind it there is nothing, or a record of ours.
    pub(crate) fn is_unfinished(
        storage: &dyn Storage,
        number: u16,
        uuid: &[u8; 16],
    ) -> Result<bool> {
        let (bytes, _) = first_bytes::<{ FILE_HEADER + HEAD }>(storage, number)?;
        let (header, behind) = bytes.split_at(FILE_HEADER);
        let known = FileHeader {
            uuid: *uuid,
            number,
            after: None,
            generation: 0,
            first_commit: 0,
        };
        let known = known.encode();
        let is_part = |range: Range<usize>| {
            let mut pairs = header[range.clone()].iter().zip(&known[range]);
            pairs.all(|(&byte, &known)| byte == 0 || byte == known)
        };
        let proven = header[..BEFORE_AFTER].iter().any(|&byte| byte != 0)
            || behind.iter().all(|&byte| byte == 0)
            || behind.first_chunk().is_some_and(|head| {
                Head::verify(head, Seed::new(uuid, number), FILE_HEADER as u32).is_some()
            });
        Ok(is_part(0..BEFORE_AFTER) && is_part(RESERVED) && proven)
    }
}

/// The first bytes of a data file, and how many there are; zeros behind them.
fn first_bytes<const N: usize>(storage: &dyn Storage, number: u16) -> Result<([u8; N], usize)> {
    let name = name(number);
    let read = || {
        let file = storage.open(&name, Access::Read)?;
        let mut bytes = [0u8; N];
        let len = file.len()?.min(N as u64) as usize;
        file.read_at(0, &mut bytes[..len])?;
        Ok((bytes, len))
    };
    read().map_err(|error| Error::from_io("read", storage.describe(&name), error))
}

/// Open files of segments that can't be mapped, so that any number of data files is readable with
/// a bounded number of descriptors. A file that is open stays readable when a compaction by another
/// process removes it.
#[derive(Debug)]
pub(crate) struct OpenFiles {
    storage: Arc<dyn Storage>,
    uuid: [u8; 16],
    generation: u64,
    files: Mutex<Vec<(u16, Arc<dyn File>)>>,
}

impl OpenFiles {
    const MOST: usize = 128;

    /// Those of a generation of the database `uuid`.
    pub(crate) fn new(storage: Arc<dyn Storage>, uuid: [u8; 16], generation: u64) -> OpenFiles {
        OpenFiles {
            storage,
            uuid,
            generation,
            files: Mutex::new(Vec::new()),
        }
    }

    /// Keeps a file open, as long as there are few.
    pub(crate) fn keep(&self, number: u16, file: &Arc<dyn File>) {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        if files.len() < OpenFiles::MOST {
            files.push((number, Arc::clone(file)));
        }
    }

    fn get(&self, number: u16) -> Result<Arc<dyn File>> {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, file)) = files.iter().find(|(known, _)| *known == number) {
            return Ok(Arc::clone(file));
        }
        let gone = || {
            Error::incompatible(format!(
                "{} is gone: the database was compacted by its writer; refresh this handle",
                self.storage.describe(&name(number))
            ))
        };
        let file = self
            .storage
            .open(&name(number), Access::Read)
            .map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => gone(),
                _ => Error::from_io("open", self.storage.describe(&name(number)), error),
            })?;
        // Another one may have got its number by now.
        let mut bytes = [0; FILE_HEADER];
        let read = file.read_at(0, &mut bytes).is_ok();
        let header = FileHeader::decode(&bytes).filter(|_| read);
        if header.is_some_and(|it| it.uuid == self.uuid && it.generation > self.generation) {
            return Err(gone());
        }
        if files.len() >= OpenFiles::MOST {
            files.remove(0);
        }
        files.push((number, Arc::clone(&file)));
        Ok(file)
    }
}

/// A data file, as readers see it.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) number: u16,
    seed: Seed,
    /// Records that begin below this have an envelope; what lies above was written by herolib.
    own_until: u64,
    is_log: bool,
    /// Whether another process may overwrite what is erased while it is read here.
    is_followed: bool,
    view: View,
    open_files: Arc<OpenFiles>,
}

impl Segment {
    /// A data file of the log.
    pub(crate) fn of_log(number: u16, log: &Log, view: View) -> Segment {
        Segment {
            is_log: true,
            ..Segment::own(number, log, view)
        }
    }

    /// A data file of ours that is not part of the log.
    pub(crate) fn own(number: u16, log: &Log, view: View) -> Segment {
        Segment::mixed(number, log, u64::MAX, view)
    }

    /// A data file with records of ours up to `own_until`, and records of herolib's after that.
    pub(crate) fn mixed(number: u16, log: &Log, own_until: u64, view: View) -> Segment {
        Segment {
            number,
            seed: Seed::new(&log.uuid, number),
            own_until,
            is_log: false,
            is_followed: log.is_followed,
            view,
            open_files: Arc::clone(&log.open_files),
        }
    }

    pub(crate) fn is_log(&self) -> bool {
        self.is_log
    }

    pub(crate) fn seed(&self) -> Seed {
        self.seed
    }

    pub(crate) fn view(&self) -> &View {
        &self.view
    }

    pub(crate) fn corrupt(&self, offset: u64, what: impl Into<Cow<'static, str>>) -> Error {
        Error::corrupt(
            self.open_files.storage.describe(&name(self.number)),
            offset,
            what,
        )
    }

    /// Whether `file` is what is read here, as far as that can be told: it has the same name.
    pub(crate) fn is_read_from(&self, file: &dyn File) -> Result<bool> {
        let named = file.identity();
        let read = match self.view.is_mapped() {
            true => Ok(self.view.identity()),
            false => self.file()?.identity(),
        };
        let path = || self.open_files.storage.describe(&name(self.number));
        let failed = |error| Error::from_io("look at", path(), error);
        let both = named.map_err(failed)?.zip(read.map_err(failed)?);
        Ok(both.is_none_or(|(named, read)| named == read))
    }

    fn file(&self) -> Result<Arc<dyn File>> {
        self.open_files.get(self.number)
    }

    /// `len` bytes from `position`.
    pub(crate) fn bytes(&self, position: u64, len: usize) -> Result<Cow<'_, [u8]>> {
        if let Some(bytes) = self.view.slice(position, len) {
            return Ok(Cow::Borrowed(bytes));
        }
        let end = self.view.end();
        if position
            .checked_add(len as u64)
            .is_none_or(|stop| stop > end)
        {
            return Err(self.corrupt(
                position,
                format!("{len} bytes are wanted here, and the file's data ends at {end}"),
            ));
        }
        let mut bytes = zeroed(len)?;
        self.file()?
            .read_at(position, &mut bytes)
            .map_err(|error| {
                if error.kind() == std::io::ErrorKind::UnexpectedEof {
                    self.corrupt(position, "the file has become shorter than it was")
                } else {
                    let path = self.open_files.storage.describe(&name(self.number));
                    Error::from_io("read", path, error)
                }
            })?;
        Ok(Cow::Owned(bytes))
    }

    fn head_bytes(&self, position: u64) -> Result<[u8; HEAD]> {
        let mut head = [0u8; HEAD];
        head.copy_from_slice(&self.bytes(position, HEAD)?);
        Ok(head)
    }

    /// Begins to load the version at `location`, whose value may have `len_hint` bytes, into the
    /// processor's cache.
    #[inline]
    pub(crate) fn prefetch(&self, location: Location, len_hint: usize) {
        let start = u64::from(location.position).saturating_sub(HEROLIB_HEADER);
        self.view.prefetch(start, HEAD + len_hint.min(PREFETCH));
    }

    /// Whether the version there is ours, and not herolib's.
    pub(crate) fn is_own(&self, location: Location) -> bool {
        u64::from(location.position) < self.own_until
    }

    /// The live version of record `id` at `location`, if the file is mapped, all is well, and the
    /// value has `len` bytes: the way of nearly every read, short enough for the processor to begin
    /// the next one meanwhile. Where anything is not as it should be, [`Segment::head`] and
    /// [`Segment::value`] tell damage from what is merely different. It is handed out by [`Segment::with_quick`],
    /// or copied, and counts only if it [is there still](Segment::is_there_still).
    #[inline(always)]
    pub(crate) fn quick(&self, location: Location, len: usize, id: u32) -> Option<(Head, &[u8])> {
        let start = u64::from(location.position).checked_sub(HEROLIB_HEADER)?;
        let bytes = self.view.from(start)?;
        let (head, value) = Head::verify_put(bytes, id, len, self.seed, start as u32)?;
        self.is_own(location).then_some((head, value))
    }

    /// Calls `f` with the value that [`Segment::quick`] found at `location`, or a copy of it, where another
    /// process may overwrite it beneath `f`. `None`: it is erased by now, or there is no memory for that.
    #[inline(always)]
    pub(crate) fn with_quick<R>(
        &self,
        location: Location,
        value: &[u8],
        f: impl FnOnce(&[u8]) -> R,
    ) -> Option<R> {
        match self.is_followed {
            false => Some(f(value)),
            true => self.with_copy(location, value, f),
        }
    }

    #[inline(never)]
    fn with_copy<R>(
        &self,
        location: Location,
        value: &[u8],
        f: impl FnOnce(&[u8]) -> R,
    ) -> Option<R> {
        let mut short = [0; SHORT];
        let mut long = Vec::new();
        let copy = match short.get_mut(..value.len()) {
            Some(copy) => {
                copy.copy_from_slice(value);
                copy
            }
            None => {
                reserve(&mut long, value.len()).ok()?;
                long.extend_from_slice(value);
                &mut long[..]
            }
        };
        self.is_put_now(location).then(|| f(copy))
    }

    /// Whether nobody has begun to erase the version that [`Segment::quick`] found at `location`: to be
    /// asked after it was copied. Here erasures wait for who reads; those of another process don't.
    #[inline(always)]
    pub(crate) fn is_there_still(&self, location: Location) -> bool {
        !self.is_followed || self.is_put_now(location)
    }

    fn is_put_now(&self, location: Location) -> bool {
        let start = u64::from(location.position).saturating_sub(HEROLIB_HEADER);
        self.view.byte_after(start + KIND as u64) == Some(Kind::Put.to_byte())
    }

    /// The live version of record `id` at `location`, verified in every respect.
    pub(crate) fn live(&self, location: Location, id: u32) -> Result<Cow<'_, [u8]>> {
        let head = self.head(location, id)?;
        match head.kind {
            Kind::Put => self.value(location, &head),
            // By the writer, after this lookup, a reader's, was read.
            Kind::Erased => Err(Error::NotFound(NotFound::Record(id))),
            _ => Err(self.corrupt(
                u64::from(location.position),
                format!("a deletion of id {id} is here, and the lookup knows it as live"),
            )),
        }
    }

    /// What the version of record `id` at `location` says of itself, verified. Where herolib
    /// wrote it, commit and time are 0.
    pub(crate) fn head(&self, location: Location, id: u32) -> Result<Head> {
        let position = u64::from(location.position);
        if !self.is_own(location) {
            let bytes = self.bytes(position, herolib::record::HEADER)?;
            let header = herolib::record::Header::decode(&bytes)
                .ok_or_else(|| self.corrupt(position, "no herolib record header fits here"))?;
            return Ok(Head {
                kind: Kind::Put,
                last: true,
                skips: false,
                id,
                commit: 0,
                time_us: 0,
                len: u32::from(header.size),
                crc: header.crc,
                previous: header.previous,
            });
        }
        let start = position
            .checked_sub(HEROLIB_HEADER)
            .filter(|&start| start >= FILE_HEADER as u64);
        let start = start.ok_or_else(|| self.corrupt(position, "no record can begin here"))?;
        let head = self.head_at(start as u32)?;
        if head.id != id || matches!(head.kind, Kind::SyncMark | Kind::Clear | Kind::Empty) {
            return Err(self.corrupt(
                start,
                format!(
                    "a record of id {id} was expected, and {:?} of id {} is there",
                    head.kind, head.id
                ),
            ));
        }
        Ok(head)
    }

    /// The record of ours that begins at `start`.
    pub(crate) fn head_at(&self, start: u32) -> Result<Head> {
        self.settled(|| {
            let bytes = self.head_bytes(u64::from(start))?;
            Head::verify(&bytes, self.seed, start).ok_or_else(|| {
                let what = "the record's envelope does not match its checksum";
                self.corrupt(u64::from(start), what)
            })
        })
    }

    /// The value of a version whose head is known, checked against its CRC. [`NotFound::Record`]: another
    /// process has erased it since the head was read.
    pub(crate) fn value(&self, location: Location, head: &Head) -> Result<Cow<'_, [u8]>> {
        if self.is_followed {
            return self.value_beside_erasures(location, head).map(Cow::Owned);
        }
        let value = self.value_bytes(location, head)?;
        self.check_value(location, head, &value)?;
        Ok(value)
    }

    fn value_bytes(&self, location: Location, head: &Head) -> Result<Cow<'_, [u8]>> {
        self.bytes(u64::from(location.position) + 12, head.len as usize)
    }

    /// A copy, which nobody overwrites after it was checked.
    fn value_beside_erasures(&self, location: Location, head: &Head) -> Result<Vec<u8>> {
        let mut value = Vec::new();
        let mut copy = |head: &Head| {
            value.clear();
            let bytes = self.value_bytes(location, head)?;
            reserve(&mut value, bytes.len())?;
            value.extend_from_slice(&bytes);
            self.check_value(location, head, &value)
        };
        if copy(head).is_err() {
            // Its head is overwritten first.
            self.settled(|| {
                let now = self.head(location, head.id)?;
                match now.kind {
                    Kind::Erased => Err(Error::NotFound(NotFound::Record(head.id))),
                    _ => copy(&now),
                }
            })?;
        }
        Ok(value)
    }

    /// What `read` reads here, of which another process may be overwriting something.
    fn settled<T>(&self, read: impl FnMut() -> Result<T>) -> Result<T> {
        let looks_torn =
            |found: &Result<T>| self.is_followed && matches!(found, Err(Error::Corrupt { .. }));
        erasure::beside(&*self.open_files.storage, looks_torn, read)
    }

    fn check_value(&self, location: Location, head: &Head, value: &[u8]) -> Result<()> {
        let found = value_crc(value);
        if found == head.crc || planted!(value_checksum_not_read) {
            return Ok(());
        }
        Err(self.corrupt(
            u64::from(location.position) + 12,
            format!(
                "the value of id {}, {} bytes, has checksum {found:08x} instead of {:08x}",
                head.id, head.len, head.crc
            ),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_reads_back_and_every_flipped_bit_is_noticed() {
        let header = FileHeader {
            uuid: [7; 16],
            number: 513,
            after: Some(LogEnd {
                file: 512,
                position: 99,
            }),
            generation: 3,
            first_commit: 1 << 40,
        };
        let bytes = header.encode();
        assert_eq!(FileHeader::decode(&bytes), Some(header));
        assert_eq!(bytes[0], 0);
        for bit in 0..FILE_HEADER * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(FileHeader::decode(&flipped), None, "bit {bit}");
        }
    }

    #[test]
    fn the_first_file_comes_after_nothing() {
        let header = FileHeader {
            uuid: [7; 16],
            number: 0,
            after: None,
            generation: 0,
            first_commit: 1,
        };
        assert_eq!(FileHeader::decode(&header.encode()), Some(header));
    }
}
