//! A directory in memory: for databases without files, and for tests.
//!
//! A file is a piece of address space that is made usable as it grows, so its bytes never move
//! and can be read while more are appended.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::mapping::{Backing, Mapping};
use super::{Access, File, Lock, Storage, View, Words, os, parent};
use crate::sync::{Mutex, MutexGuard, PoisonError};

/// Address space of one file. No data file is longer than 4 GiB; everything else is shorter. What
/// ThreadSanitizer leaves of it is enough for some 5,000 such files, and its tests make more of them.
const FILE_RESERVE: u64 = if cfg!(ourdb_tsan) { 1 << 26 } else { 1 << 32 };
/// A file's memory is made usable in steps of this many bytes.
const STEP: u64 = 1 << 20;

/// A directory that lives as long as this value. Clones of its `Arc` see the same files, so a
/// database in it can be closed and opened again.
#[derive(Debug, Default)]
pub struct MemoryStorage {
    entries: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    files: BTreeMap<String, Arc<MemoryFile>>,
    directories: BTreeSet<String>,
    locks: BTreeMap<String, Arc<AtomicBool>>,
}

impl MemoryStorage {
    /// An empty directory.
    pub fn new() -> MemoryStorage {
        MemoryStorage::default()
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entries {
    fn check_parent(&self, name: &str) -> io::Result<()> {
        let directory = parent(name);
        if directory.is_empty() || self.directories.contains(directory) {
            Ok(())
        } else {
            Err(io::ErrorKind::NotFound.into())
        }
    }
}

impl Storage for MemoryStorage {
    fn create_root(&self) -> io::Result<()> {
        Ok(())
    }

    fn remove_root(&self) -> io::Result<()> {
        Ok(())
    }

    fn open(&self, name: &str, access: Access) -> io::Result<Arc<dyn File>> {
        let mut entries = self.entries();
        entries.check_parent(name)?;
        if entries.directories.contains(name) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let known = entries.files.get(name).cloned();
        match (access, known) {
            (Access::Read | Access::Write, Some(file)) => Ok(file),
            (Access::Read | Access::Write, None) => Err(io::ErrorKind::NotFound.into()),
            (Access::CreateNew, Some(_)) => Err(io::ErrorKind::AlreadyExists.into()),
            (Access::CreateNew | Access::Truncate, _) => {
                let file = Arc::new(MemoryFile::new()?);
                entries.files.insert(name.to_owned(), Arc::clone(&file));
                Ok(file)
            }
        }
    }

    fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        let entries = self.entries();
        if !directory.is_empty() && !entries.directories.contains(directory) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let names = entries.files.keys().chain(&entries.directories);
        Ok(names
            .filter(|name| parent(name) == directory)
            .map(|name| name.rsplit('/').next().unwrap_or(name).to_owned())
            .collect())
    }

    fn is_directory(&self, name: &str) -> io::Result<bool> {
        Ok(name.is_empty() || self.entries().directories.contains(name))
    }

    fn create_directory(&self, name: &str) -> io::Result<()> {
        let mut entries = self.entries();
        entries.check_parent(name)?;
        if entries.files.contains_key(name) || !entries.directories.insert(name.to_owned()) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        Ok(())
    }

    fn remove_directory(&self, name: &str) -> io::Result<()> {
        let mut entries = self.entries();
        if entries.files.keys().any(|file| parent(file) == name) {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        if entries.directories.remove(name) {
            Ok(())
        } else {
            Err(io::ErrorKind::NotFound.into())
        }
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut entries = self.entries();
        entries.check_parent(to)?;
        let file = entries.files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        entries.files.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        match self.entries().files.remove(name) {
            Some(_) => Ok(()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn sync_directory(&self, _directory: &str) -> io::Result<()> {
        Ok(())
    }

    fn lock(&self, name: &str) -> io::Result<Option<Box<dyn Lock>>> {
        let mut entries = self.entries();
        let held = Arc::clone(entries.locks.entry(name.to_owned()).or_default());
        if held.swap(true, Ordering::AcqRel) {
            return Ok(None);
        }
        Ok(Some(Box::new(MemoryLock { held })))
    }

    fn is_locked(&self, name: &str) -> io::Result<bool> {
        Ok(self
            .entries()
            .locks
            .get(name)
            .is_some_and(|held| held.load(Ordering::Acquire)))
    }

    fn now_us(&self) -> u64 {
        os::now_us()
    }

    fn random(&self) -> io::Result<[u8; 16]> {
        os::random()
    }

    fn describe(&self, name: &str) -> String {
        format!("(memory)/{name}")
    }
}

#[derive(Debug)]
struct MemoryLock {
    held: Arc<AtomicBool>,
}

impl Lock for MemoryLock {}

impl Drop for MemoryLock {
    fn drop(&mut self) {
        self.held.store(false, Ordering::Release);
    }
}

#[derive(Debug)]
struct MemoryFile {
    memory: Arc<Mapping>,
    /// How many bytes are made usable.
    usable: AtomicU64,
    len: AtomicU64,
}

impl MemoryFile {
    fn new() -> io::Result<MemoryFile> {
        let reserve = usize::try_from(FILE_RESERVE).unwrap_or(1 << 30);
        let memory = Arc::new(Mapping::new(reserve, Backing::Reserved)?);
        Ok(MemoryFile {
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
}

impl File for MemoryFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.len.load(Ordering::Acquire))
    }

    fn modified_ns(&self) -> io::Result<u64> {
        Ok(0)
    }

    fn read_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<()> {
        let stop = position.checked_add(buffer.len() as u64);
        if stop.is_none_or(|stop| stop > self.len.load(Ordering::Acquire)) {
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

    fn write_at(&self, position: u64, parts: &[&[u8]]) -> io::Result<()> {
        let len: u64 = parts.iter().map(|part| part.len() as u64).sum();
        let stop = position
            .checked_add(len)
            .ok_or(io::ErrorKind::FileTooLarge)?;
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

    fn allocate(&self, _from: u64, to: u64) -> io::Result<()> {
        self.make_usable(to)?;
        self.len.fetch_max(to, Ordering::AcqRel);
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

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn view(&self, _reserve: u64) -> io::Result<View> {
        Ok(View::mapped(Arc::clone(&self.memory), None))
    }

    fn words(&self, _count: u64) -> io::Result<Words> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
