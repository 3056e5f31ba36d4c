//! A file in memory.
//!
//! It is a piece of address space that is made usable as it grows, so its bytes never move and can be
//! read while more are appended. Where there is none left for it, it is a vector: that is read by
//! copying, as a file on disk is that isn't mapped.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::mapping::{Backing, Mapping};
use super::{File, View, Words};
use crate::sync::{PoisonError, RwLock, RwLockReadGuard};

/// Address space of one file. No data file is longer than 4 GiB; everything else is shorter. What
/// ThreadSanitizer leaves of it is enough for some 5,000 such files, and its tests make more of them.
const FILE_RESERVE: u64 = if cfg!(ourdb_tsan) { 1 << 26 } else { 1 << 32 };
/// A file's memory is made usable in steps of this many bytes.
const STEP: u64 = 1 << 20;

#[derive(Debug)]
pub(super) enum MemoryFile {
    Mapped(Mapped),
    Copied(Copied),
}

impl MemoryFile {
    /// An empty file.
    pub(super) fn new() -> MemoryFile {
        match Mapped::new() {
            Ok(file) => MemoryFile::Mapped(file),
            Err(_) => MemoryFile::Copied(Copied::default()),
        }
    }
}

impl File for MemoryFile {
    fn len(&self) -> io::Result<u64> {
        Ok(match self {
            MemoryFile::Mapped(file) => file.len.load(Ordering::Acquire),
            MemoryFile::Copied(file) => file.bytes().len() as u64,
        })
    }

    fn modified_ns(&self) -> io::Result<u64> {
        Ok(0)
    }

    fn read_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<()> {
        let stop = position.checked_add(buffer.len() as u64);
        let stop = stop.ok_or(io::ErrorKind::UnexpectedEof)?;
        match self {
            MemoryFile::Mapped(file) => file.read(position, stop, buffer),
            MemoryFile::Copied(file) => file.read(position, stop, buffer),
        }
    }

    fn write_at(&self, position: u64, parts: &[&[u8]]) -> io::Result<()> {
        let len: u64 = parts.iter().map(|part| part.len() as u64).sum();
        let stop = position.checked_add(len);
        let stop = stop.ok_or(io::ErrorKind::FileTooLarge)?;
        match self {
            MemoryFile::Mapped(file) => file.write(position, stop, parts),
            MemoryFile::Copied(file) => file.write(position, stop, parts),
        }
    }

    fn allocate(&self, _from: u64, to: u64) -> io::Result<()> {
        match self {
            MemoryFile::Mapped(file) => file.extend_to(to),
            MemoryFile::Copied(file) => file.extend_to(to),
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        match self {
            MemoryFile::Mapped(file) => file.set_len(len),
            MemoryFile::Copied(file) => file.set_len(len),
        }
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn view(&self, _reserve: u64) -> io::Result<View> {
        Ok(match self {
            MemoryFile::Mapped(file) => View::mapped(Arc::clone(&file.memory), None, None),
            MemoryFile::Copied(_) => View::unmapped(),
        })
    }

    fn words(&self, _count: u64) -> io::Result<Words> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// In its own piece of address space.
#[derive(Debug)]
pub(super) struct Mapped {
    memory: Arc<Mapping>,
    /// How many bytes are made usable.
    usable: AtomicU64,
    len: AtomicU64,
}

impl Mapped {
    fn new() -> io::Result<Mapped> {
        let reserve = usize::try_from(FILE_RESERVE).unwrap_or(1 << 30);
        let memory = Arc::new(Mapping::new(reserve, Backing::Reserved)?);
        Ok(Mapped {
            memory,
            usable: AtomicU64::new(0),
            len: AtomicU64::new(0),
        })
    }

    fn make_usable(&self, to: u64) -> io::Result<()> {
        // A view that was sealed has given the address space behind its end back.
        if to > self.memory.len() as u64 {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        if to > self.usable.load(Ordering::Acquire) {
            let usable = to.next_multiple_of(STEP).min(self.memory.len() as u64);
            let len = usize::try_from(usable).map_err(|_| io::ErrorKind::OutOfMemory)?;
            self.memory.make_writable(len)?;
            self.usable.store(usable, Ordering::Release);
        }
        Ok(())
    }

    fn read(&self, position: u64, stop: u64, buffer: &mut [u8]) -> io::Result<()> {
        if stop > self.len.load(Ordering::Acquire) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // SAFETY: [position, stop) is below the file's length, hence usable memory; the engine
        // doesn't read where it is writing (see `File`).
        unsafe {
            std::ptr::copy_nonoverlapping(
                self.memory.base().add(position as usize),
                buffer.as_mut_ptr(),
                buffer.len(),
            );
        }
        Ok(())
    }

    fn write(&self, position: u64, stop: u64, parts: &[&[u8]]) -> io::Result<()> {
        self.make_usable(stop)?;
        let mut position = position as usize;
        for part in parts {
            // SAFETY: the destination is usable memory of this file, and by the rule of `File`
            // one thread at a time writes there, where nobody reads yet, or any more.
            unsafe {
                std::ptr::copy_nonoverlapping(
                    part.as_ptr(),
                    self.memory.base().add(position),
                    part.len(),
                );
            }
            position += part.len();
        }
        self.len.fetch_max(stop, Ordering::AcqRel);
        Ok(())
    }

    fn extend_to(&self, len: u64) -> io::Result<()> {
        self.make_usable(len)?;
        self.len.fetch_max(len, Ordering::AcqRel);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.make_usable(len)?;
        let old = self.len.swap(len, Ordering::AcqRel);
        if len < old {
            // What is cut off reads as zeros, should the file grow again.
            // SAFETY: [len, old) is usable memory of this file; nobody reads past its end.
            unsafe {
                std::ptr::write_bytes(
                    self.memory.base().add(len as usize),
                    0,
                    (old - len) as usize,
                );
            }
        }
        Ok(())
    }
}

/// In a vector, which moves as it grows.
#[derive(Debug, Default)]
pub(super) struct Copied(RwLock<Vec<u8>>);

impl Copied {
    fn bytes(&self) -> RwLockReadGuard<'_, Vec<u8>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has `change` done to the bytes once there is room for `len` of them.
    fn with_room(&self, len: u64, change: impl FnOnce(&mut Vec<u8>, usize)) -> io::Result<()> {
        let len = usize::try_from(len).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let mut bytes = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let more = len.saturating_sub(bytes.len());
        let room = bytes.try_reserve(more);
        room.map_err(|_| io::ErrorKind::OutOfMemory)?;
        change(&mut bytes, len);
        Ok(())
    }

    fn read(&self, position: u64, stop: u64, buffer: &mut [u8]) -> io::Result<()> {
        let bytes = self.bytes();
        if stop > bytes.len() as u64 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        buffer.copy_from_slice(&bytes[position as usize..stop as usize]);
        Ok(())
    }

    fn write(&self, position: u64, stop: u64, parts: &[&[u8]]) -> io::Result<()> {
        self.with_room(stop, |bytes, stop| {
            bytes.resize(stop.max(bytes.len()), 0);
            let mut rest = &mut bytes[position as usize..stop];
            for part in parts {
                let (place, after) = rest.split_at_mut(part.len());
                place.copy_from_slice(part);
                rest = after;
            }
        })
    }

    fn extend_to(&self, len: u64) -> io::Result<()> {
        self.with_room(len, |bytes, len| bytes.resize(len.max(bytes.len()), 0))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.with_room(len, |bytes, len| bytes.resize(len, 0))
    }
}
