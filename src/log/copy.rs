//! Writing data files that nobody reads yet: copies of versions, for a new generation.

use std::sync::Arc;

use super::erasure;
use super::record::{HEAD, HEROLIB_HEADER, Head, Seed};
use super::segment::{FileHeader, LONGEST_FILE, LogEnd, name};
use super::{Log, NUMBERS, SYNC_STEP};
use crate::bytes::reserve;
use crate::error::{Error, Result};
use crate::location::Location;
use crate::planted::planted;
use crate::storage::{Access, File, Storage, fork, remove_if_there, sync_directory};

/// Bytes are gathered up to this size before they are written.
const GATHER: usize = 1 << 20;

/// Numbers for new data files. Files that are there are passed over.
#[derive(Debug)]
pub(crate) struct Numbers {
    next: u32,
    /// How many are free from there on.
    free: u32,
}

impl Numbers {
    /// For what comes after `log`, whose next data file gets number `next`.
    pub(crate) fn after(log: &Log, next: u32) -> Numbers {
        // The longer ago a number was used, the better: who still looks for its file would take the
        // new one for it. But there must be enough of them: one of herolib's, or of somebody else's that
        // was taken for one, may have the last number, and all others are free.
        let above = (NUMBERS as u32).saturating_sub(next);
        let mut numbers = Numbers { next, free: above };
        let (mut most, mut from) = (above, 0);
        for segment in log.segments() {
            let number = u32::from(segment.number);
            let before = number - from;
            if before > most {
                most = before;
                numbers = Numbers {
                    next: from,
                    free: before + above,
                };
            }
            from = number + 1;
        }
        numbers
    }

    /// How long the files must be, at least `file_size`, for copies of `bytes` to get along with the
    /// numbers that are free. A fourth of them will do: versions of herolib's become longer, and more
    /// commits come meanwhile.
    pub(crate) fn file_size(&self, bytes: u64, file_size: u32) -> u64 {
        let free = u64::from(self.free.max(1));
        let needed = bytes.saturating_mul(4).div_ceil(free);
        needed.min(LONGEST_FILE).max(u64::from(file_size))
    }

    /// The number that is tried next.
    pub(crate) fn next(&self) -> u32 {
        self.next
    }

    /// Makes the next data file.
    fn create(&mut self, storage: &dyn Storage) -> Result<(u16, Arc<dyn File>)> {
        loop {
            let Ok(number) = u16::try_from(self.next) else {
                let what = "no number for a data file is left that a compaction could use";
                return Err(Error::Full(what.into()));
            };
            self.next += 1;
            let name = name(number);
            match storage.open(&name, Access::CreateNew) {
                Ok(file) => return Ok((number, file)),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(Error::from_io("make", storage.describe(&name), error)),
            }
        }
    }
}

/// So many files are open at most; with many more of them than a process may have open, all must still
/// get along.
const MOST_OPEN: usize = 64;

/// A data file that is written or finished.
#[derive(Debug)]
pub(crate) struct Copied {
    pub(crate) number: u16,
    /// Closed once it is synced, unless it is the last.
    file: Option<Arc<dyn File>>,
    /// Its length.
    pub(crate) end: u64,
    seed: Seed,
    synced: bool,
}

impl Copied {
    /// The file, opened again if it was closed.
    pub(crate) fn open(&self, storage: &dyn Storage) -> Result<Arc<dyn File>> {
        match &self.file {
            Some(file) => Ok(Arc::clone(file)),
            None => {
                let name = name(self.number);
                let failed = |error| Error::from_io("open", storage.describe(&name), error);
                storage.open(&name, Access::Write).map_err(failed)
            }
        }
    }
}

/// Data files that follow one another. Dropped without having been [left](Copy::leave), it removes them.
#[derive(Debug)]
pub(crate) struct Copy {
    storage: Arc<dyn Storage>,
    uuid: [u8; 16],
    generation: u64,
    file_size: u64,
    /// Each file says after which end it goes on, as those of the log do.
    is_chained: bool,
    files: Vec<Copied>,
    /// How many of them are open.
    open: usize,
    gathered: Vec<u8>,
    kept: bool,
    /// Of the process that made them; a forked child doesn't remove them.
    fork_generation: u32,
    /// Something was overwritten since the last sync.
    changed: bool,
    /// A file was made since the last sync.
    unnamed: bool,
    /// How many bytes were appended since then.
    unsynced: u64,
}

impl Copy {
    /// For a generation after `log`'s.
    pub(crate) fn new(log: &Log, generation: u64, file_size: u64, is_chained: bool) -> Copy {
        Copy {
            storage: Arc::clone(&log.storage),
            uuid: log.uuid,
            generation,
            file_size,
            is_chained,
            files: Vec::new(),
            open: 0,
            gathered: Vec::new(),
            kept: false,
            fork_generation: fork::generation(),
            changed: false,
            unnamed: false,
            unsynced: 0,
        }
    }

    /// Makes room for `len` bytes in one file, which is a new one if need be; the commit is the
    /// first in it.
    pub(crate) fn reserve(&mut self, numbers: &mut Numbers, len: u64, commit: u64) -> Result<()> {
        let fits = |file: &Copied| file.end < self.file_size && file.end + len <= LONGEST_FILE;
        if self.files.last().is_some_and(fits) {
            return Ok(());
        }
        self.flush()?;
        if self.open >= MOST_OPEN {
            self.sync()?;
        }
        let after = self.end().filter(|_| self.is_chained);
        reserve(&mut self.files, 1)?;
        let (number, file) = numbers.create(&*self.storage)?;
        self.open += 1;
        self.files.push(Copied {
            number,
            file: Some(file),
            end: 0,
            seed: Seed::new(&self.uuid, number),
            synced: false,
        });
        self.unnamed = true;
        let header = FileHeader {
            uuid: self.uuid,
            number,
            after,
            generation: self.generation,
            first_commit: commit,
        };
        self.append(&header.encode())
    }

    /// Appends a version, for which room was [reserved](Copy::reserve); where it is.
    pub(crate) fn push(&mut self, head: &Head, value: &[u8]) -> Result<Location> {
        let Some(file) = self.files.last() else {
            unreachable!("room was reserved")
        };
        let start = file.end;
        let location = Location {
            file: file.number,
            position: (start + HEROLIB_HEADER) as u32,
        };
        let bytes = head.encode(file.seed, start as u32);
        self.append(&bytes)?;
        self.append(value)?;
        Ok(location)
    }

    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        if bytes.len() >= GATHER {
            self.flush()?;
            self.write(bytes)?;
        } else {
            reserve(&mut self.gathered, bytes.len())?;
            self.gathered.extend_from_slice(bytes);
        }
        if let Some(file) = self.files.last_mut() {
            file.end += bytes.len() as u64;
            file.synced = false;
        }
        self.unsynced += bytes.len() as u64;
        if self.gathered.len() >= GATHER {
            self.flush()?;
        }
        Ok(())
    }

    /// Writes what was gathered.
    pub(crate) fn flush(&mut self) -> Result<()> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let mut gathered = std::mem::take(&mut self.gathered);
        let written = match self.files.last() {
            Some(file) => {
                let start = file.end - gathered.len() as u64;
                self.write_at(file, start, &gathered)
            }
            None => Ok(()),
        };
        gathered.clear();
        self.gathered = gathered;
        written
    }

    /// Writes at the end, where nothing is gathered.
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let Some(file) = self.files.last() else {
            unreachable!("room was reserved")
        };
        self.write_at(file, file.end, bytes)
    }

    fn write_at(&self, file: &Copied, position: u64, bytes: &[u8]) -> Result<()> {
        let name = name(file.number);
        let failed = |error| Error::from_io("write", self.storage.describe(&name), error);
        let file = file.open(&*self.storage)?;
        file.write_at(position, &[bytes]).map_err(failed)
    }

    /// Whether a data file of this number is one of these.
    pub(crate) fn has(&self, number: u16) -> bool {
        self.files.iter().any(|file| file.number == number)
    }

    /// The index of the data file that a version lies in, and where its record begins. What was
    /// gathered is in it by then.
    fn find(&mut self, location: Location) -> Result<(usize, u32)> {
        self.flush()?;
        let index = self.files.iter().position(|f| f.number == location.file);
        let start = location.position.checked_sub(HEROLIB_HEADER as u32);
        match (index, start) {
            (Some(index), Some(start)) => Ok((index, start)),
            _ => Err(self.not_copied(location)),
        }
    }

    fn not_copied(&self, location: Location) -> Error {
        let position = u64::from(location.position);
        let what = "a version should have been copied to here";
        Error::corrupt(self.storage.describe(&name(location.file)), position, what)
    }

    /// The head of a version that was copied.
    pub(crate) fn head(&mut self, location: Location) -> Result<Head> {
        let (index, start) = self.find(location)?;
        let file = &self.files[index];
        let mut bytes = [0; HEAD];
        file.open(&*self.storage)?
            .read_at(u64::from(start), &mut bytes)
            .map_err(|error| {
                Error::from_io("read", self.storage.describe(&name(file.number)), error)
            })?;
        Head::verify(&bytes, file.seed, start).ok_or_else(|| self.not_copied(location))
    }

    /// Overwrites a version that was copied.
    pub(crate) fn erase(&mut self, location: Location, head: &Head) -> Result<()> {
        if self.open >= MOST_OPEN {
            self.sync()?;
        }
        let (index, start) = self.find(location)?;
        self.changed = true;
        let copied = &mut self.files[index];
        let file = copied.open(&*self.storage)?;
        // It stays open until it is synced.
        self.open += usize::from(copied.file.is_none());
        copied.file = Some(Arc::clone(&file));
        copied.synced = false;
        let bytes = erasure::erased(head).encode(copied.seed, start);
        let start = u64::from(start);
        erasure::zero(start + HEAD as u64, head.len, |at, zeros| {
            file.write_at(at, &[zeros])
        })
        .and_then(|()| file.write_at(start, &[&bytes]))
        .map_err(|error| {
            let path = self.storage.describe(&name(location.file));
            Error::from_io("overwrite in", path, error)
        })
    }

    /// Whether something was overwritten since the last sync.
    pub(crate) fn is_changed(&self) -> bool {
        self.changed
    }

    /// Makes everything durable, the names too.
    pub(crate) fn sync(&mut self) -> Result<()> {
        self.flush()?;
        self.changed = false;
        let storage = Arc::clone(&self.storage);
        let last = self.files.len().saturating_sub(1);
        for (index, copied) in self.files.iter_mut().enumerate() {
            let Some(file) = &copied.file else {
                continue;
            };
            if !copied.synced {
                let name = name(copied.number);
                let failed = |error| Error::from_io("sync", storage.describe(&name), error);
                if !planted!(copies_not_synced) {
                    file.sync().map_err(failed)?;
                }
                copied.synced = true;
            }
            // The last one is written to again.
            if index < last {
                copied.file = None;
                self.open -= 1;
            }
        }
        if self.unnamed && !planted!(names_of_copies_not_synced) {
            let failed = |error| Error::from_io("sync", storage.describe(""), error);
            sync_directory(&*storage, "").map_err(failed)?;
        }
        self.unnamed = false;
        self.unsynced = 0;
        Ok(())
    }

    /// As [`Copy::sync`], once much was appended since the last one: gigabytes that wait to be written
    /// hold up all who write files, and nobody can cancel while they are. Whether it did.
    pub(crate) fn sync_now_and_then(&mut self) -> Result<bool> {
        let is_time = self.unsynced >= SYNC_STEP;
        if is_time {
            self.sync()?;
        }
        Ok(is_time)
    }

    /// Where the last file ends.
    pub(crate) fn end(&self) -> Option<LogEnd> {
        self.files.last().map(|file| LogEnd {
            file: file.number,
            position: file.end as u32,
        })
    }

    /// How many bytes were written.
    pub(crate) fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.end).sum()
    }

    pub(crate) fn files(&self) -> &[Copied] {
        &self.files
    }

    /// They stay: they belong to the database from here on, or may.
    pub(crate) fn leave(&mut self) {
        self.kept = true;
    }

    /// What room a version takes.
    pub(crate) fn len_of(head: &Head) -> u64 {
        HEAD as u64 + u64::from(head.len)
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        if !self.kept && self.fork_generation == fork::generation() {
            for file in &self.files {
                // Left behind, it is removed by the next opening.
                let _ = remove_if_there(&*self.storage, &name(file.number));
            }
        }
    }
}
