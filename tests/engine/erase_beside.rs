//! An erasure that fails in what a compaction beside it has copied.

use std::io;
use std::ops::ControlFlow;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::support::sim::{Calls, Disk, Errno, Fault, Loss, Pages, SimStorage};
use ourdb::storage::{Access, File, Lock, Storage, View, Words};
use ourdb::{Db, Error, Options, Retention};

/// The only data file before the compaction.
const OLD: &str = "0.db";

#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd)]
enum Phase {
    #[default]
    Opening,
    Open,
    /// The erasure has overwritten what it erases, but not the copies.
    Overwritten,
    /// The compaction has copied some of what came last, under the writer lock.
    Copied,
    /// The sync of the copies has failed.
    Failed,
}

#[derive(Debug, Default)]
struct Gate {
    phase: Mutex<(Phase, u64)>,
    changed: Condvar,
}

impl Gate {
    fn phase(&self) -> Phase {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner).0
    }

    /// Goes over to a phase.
    fn go(&self, phase: Phase) {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner).0 = phase;
        self.changed.notify_all();
    }

    fn wait(&self, phase: Phase) {
        let state = self.phase.lock().unwrap_or_else(PoisonError::into_inner);
        let waits = |state: &mut (Phase, u64)| state.0 < phase;
        let long = Duration::from_secs(20);
        let (_state, out) = (self.changed.wait_timeout_while(state, long, waits))
            .unwrap_or_else(PoisonError::into_inner);
        assert!(!out.timed_out(), "{phase:?} doesn't come");
    }

    /// How far the data file was written.
    fn end(&self) -> u64 {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner).1
    }
}

/// The storage, where the erasure and the compaction wait for each other.
#[derive(Clone, Debug)]
struct Gated {
    storage: SimStorage,
    gate: Arc<Gate>,
    /// From here on the compaction reads what it is to wait before.
    stop: Arc<Mutex<Option<u64>>>,
}

impl Storage for Gated {
    fn open(&self, name: &str, access: Access) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(GatedFile {
            file: self.storage.open(name, access)?,
            name: name.to_owned(),
            gated: self.clone(),
        }))
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        if name == "erasing" && self.gate.phase() == Phase::Open {
            self.gate.go(Phase::Overwritten);
            self.gate.wait(Phase::Copied);
        }
        self.storage.remove(name)
    }

    fn create_root(&self) -> io::Result<()> {
        self.storage.create_root()
    }
    fn remove_root(&self) -> io::Result<()> {
        self.storage.remove_root()
    }
    fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        self.storage.list(directory)
    }
    fn is_directory(&self, name: &str) -> io::Result<bool> {
        self.storage.is_directory(name)
    }
    fn create_directory(&self, name: &str) -> io::Result<()> {
        self.storage.create_directory(name)
    }
    fn remove_directory(&self, name: &str) -> io::Result<()> {
        self.storage.remove_directory(name)
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.storage.rename(from, to)
    }
    fn sync_directory(&self, directory: &str) -> io::Result<()> {
        self.storage.sync_directory(directory)
    }
    fn lock(&self, name: &str) -> io::Result<Option<Box<dyn Lock>>> {
        self.storage.lock(name)
    }
    fn is_locked(&self, name: &str) -> io::Result<bool> {
        self.storage.is_locked(name)
    }
    fn now_us(&self) -> u64 {
        self.storage.now_us()
    }
    fn random(&self) -> io::Result<[u8; 16]> {
        self.storage.random()
    }
    fn describe(&self, name: &str) -> String {
        self.storage.describe(name)
    }
}

#[derive(Debug)]
struct GatedFile {
    file: Arc<dyn File>,
    name: String,
    gated: Gated,
}

impl File for GatedFile {
    fn read_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<()> {
        let gate = &self.gated.gate;
        let stop = *self.gated.stop.lock().unwrap();
        let is_there = stop.is_some_and(|stop| position >= stop);
        if self.name == OLD && is_there && gate.phase() == Phase::Overwritten {
            gate.go(Phase::Copied);
            gate.wait(Phase::Failed);
        }
        self.file.read_at(position, buffer)
    }
    fn write_at(&self, position: u64, parts: &[&[u8]]) -> io::Result<()> {
        if self.name == OLD {
            let len: usize = parts.iter().map(|part| part.len()).sum();
            let mut state = self.gated.gate.phase.lock().unwrap();
            state.1 = state.1.max(position + len as u64);
        }
        self.file.write_at(position, parts)
    }
    fn sync(&self) -> io::Result<()> {
        if self.gated.gate.phase() != Phase::Copied {
            return self.file.sync();
        }
        let storage = &self.gated.storage;
        storage.fail(Some(Fault {
            calls: Calls::Syncing,
            after: storage.calls(Calls::Syncing),
            errno: Errno::Io,
            sticky: false,
            partly: false,
            pages: Pages::Clean,
        }));
        let failed = self.file.sync();
        assert!(failed.is_err());
        self.gated.gate.go(Phase::Failed);
        failed
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn modified_ns(&self) -> io::Result<u64> {
        self.file.modified_ns()
    }
    fn allocate(&self, from: u64, to: u64) -> io::Result<()> {
        self.file.allocate(from, to)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }
    fn view(&self, reserve: u64) -> io::Result<View> {
        self.file.view(reserve)
    }
    fn words(&self, count: u64) -> io::Result<Words> {
        self.file.words(count)
    }
}

/// The kernel doesn't try again what a failed sync should have written, so the next one says nothing.
#[test]
fn a_compaction_does_not_go_over_to_copies_that_an_erasure_could_not_sync() {
    let gated = Gated {
        storage: SimStorage::new(Disk::new(), false, 1),
        gate: Arc::default(),
        stop: Arc::default(),
    };
    let options = Options {
        key_value: true,
        ..Options::default()
    };
    let db = Db::open_on(Arc::new(gated.clone()), &options).expect("a new database");
    gated.gate.go(Phase::Open);
    for id in 0..5 {
        db.set(id, b"a value").expect("a set");
    }
    // More than the sectors that are written again after it.
    let long = vec![7; 5000];
    thread::scope(|scope| {
        let mut calls = 0;
        let compacted = db.compact(&Retention::default(), |_, _| {
            calls += 1;
            match calls {
                1 => db.set(5, b"to be erased").expect("a set"),
                2 => {
                    // The last call: what comes now is copied under the writer lock.
                    scope.spawn(|| db.erase(5).expect_err("an erasure whose sync fails"));
                    gated.gate.wait(Phase::Overwritten);
                    db.set(6, &long).expect("a set");
                    db.sync().expect("a sync");
                    *gated.stop.lock().unwrap() = Some(gated.gate.end());
                    db.set(7, b"the last").expect("a set");
                }
                _ => {}
            }
            ControlFlow::Continue(())
        });
        assert_eq!(gated.gate.phase(), Phase::Failed);
        let error = compacted.expect_err("copies that are not on disk");
        assert!(matches!(error, Error::Poisoned { .. }), "{error}");
    });
    drop(db);
    gated.storage.fail(None);
    let left = gated.storage.disk().lose_power(&Loss::OF_EVERYTHING);
    let storage = SimStorage::new(left, false, 1);
    let db = Db::open_on(Arc::new(storage), &options).expect("it opens");
    assert!(db.get(6).expect("a value") == long);
    assert!(db.get(5).is_err());
}
