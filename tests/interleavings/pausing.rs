//! The simulated storage with time in it: while a thread syncs, lists a directory, makes a file longer or
//! shorter or asks how long it is, others may run.

use std::io;
use std::sync::Arc;

use ourdb::storage::{Access, File, Lock, Storage, View, Words};
use shuttle::rand::Rng;

use crate::support::sim::SimStorage;

/// Lets other threads run, or not.
fn pause() {
    if shuttle::rand::thread_rng().gen_bool(0.5) {
        shuttle::thread::yield_now();
    }
}

/// Does a call that takes time.
fn slowly<T>(call: impl FnOnce() -> T) -> T {
    pause();
    let result = call();
    pause();
    result
}

#[derive(Clone, Debug)]
pub(crate) struct Pausing(pub(crate) SimStorage);

impl Storage for Pausing {
    fn open(&self, name: &str, access: Access) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(PausingFile(self.0.open(name, access)?)))
    }
    fn sync_directory(&self, directory: &str) -> io::Result<()> {
        slowly(|| self.0.sync_directory(directory))
    }

    fn create_root(&self) -> io::Result<()> {
        self.0.create_root()
    }
    fn remove_root(&self) -> io::Result<()> {
        self.0.remove_root()
    }
    fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        slowly(|| self.0.list(directory))
    }
    fn is_directory(&self, name: &str) -> io::Result<bool> {
        self.0.is_directory(name)
    }
    fn create_directory(&self, name: &str) -> io::Result<()> {
        self.0.create_directory(name)
    }
    fn remove_directory(&self, name: &str) -> io::Result<()> {
        self.0.remove_directory(name)
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.rename(from, to)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.remove(name)
    }
    fn lock(&self, name: &str) -> io::Result<Option<Box<dyn Lock>>> {
        self.0.lock(name)
    }
    fn is_locked(&self, name: &str) -> io::Result<bool> {
        self.0.is_locked(name)
    }
    fn now_us(&self) -> u64 {
        self.0.now_us()
    }
    fn random(&self) -> io::Result<[u8; 16]> {
        self.0.random()
    }
    fn describe(&self, name: &str) -> String {
        self.0.describe(name)
    }
}

#[derive(Debug)]
struct PausingFile(Arc<dyn File>);

impl File for PausingFile {
    fn sync(&self) -> io::Result<()> {
        slowly(|| self.0.sync())
    }
    fn len(&self) -> io::Result<u64> {
        slowly(|| self.0.len())
    }
    fn allocate(&self, from: u64, to: u64) -> io::Result<()> {
        slowly(|| self.0.allocate(from, to))
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        slowly(|| self.0.set_len(len))
    }

    fn modified_ns(&self) -> io::Result<u64> {
        self.0.modified_ns()
    }
    fn read_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.0.read_at(position, buffer)
    }
    fn write_at(&self, position: u64, parts: &[&[u8]]) -> io::Result<()> {
        self.0.write_at(position, parts)
    }
    fn view(&self, reserve: u64) -> io::Result<View> {
        self.0.view(reserve)
    }
    fn words(&self, count: u64) -> io::Result<Words> {
        self.0.words(count)
    }
}
