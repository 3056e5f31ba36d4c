//! A directory in memory: for databases without files, and for tests.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::memory_file::MemoryFile;
use super::{Access, File, Lock, Storage, os, parent};
use crate::sync::{Mutex, MutexGuard, PoisonError};

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
                let file = Arc::new(MemoryFile::new());
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
        let mut listed = Vec::new();
        for name in names.filter(|name| parent(name) == directory) {
            listed.try_reserve(1)?;
            listed.push(name.rsplit('/').next().unwrap_or(name).to_owned());
        }
        Ok(listed)
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
