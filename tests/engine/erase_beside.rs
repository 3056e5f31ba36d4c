//! An erasure beside the end of a compaction, in what that has copied.

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
    /// It may go on to the copies.
    ToCopies,
    /// What is overwritten in the copies may be.
    InCopies,
    /// A sync of the copies has failed.
    Failed,
}

#[derive(Debug, Default)]
struct Gate {
    phase: Mutex<Phase>,
    changed: Condvar,
}

impl Gate {
    fn phase(&self) -> Phase {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes over to a phase.
    fn go(&self, phase: Phase) {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner) = phase;
        self.changed.notify_all();
    }

    fn wait(&self, phase: Phase) {
        let state = self.phase.lock().unwrap_or_else(PoisonError::into_inner);
        let waits = |state: &mut Phase| *state < phase;
        let long = Duration::from_secs(20);
        let (_state, out) = (self.changed.wait_timeout_while(state, long, waits))
            .unwrap_or_else(PoisonError::into_inner);
        assert!(!out.timed_out(), "{phase:?} doesn't come");
    }
}

/// The storage, where the erasure stops before the copies and in them.
#[derive(Clone, Debug)]
struct Gated {
    storage: SimStorage,
    gate: Arc<Gate>,
    /// Whether the sync there fails.
    fails: bool,
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
            self.gate.wait(Phase::ToCopies);
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
        self.file.read_at(position, buffer)
    }
    fn write_at(&self, position: u64, parts: &[&[u8]]) -> io::Result<()> {
        let gate = &self.gated.gate;
        let len: usize = parts.iter().map(|part| part.len()).sum();
        if self.name != OLD
            && gate.phase() >= Phase::Overwritten
            && position + len as u64 <= self.file.len()?
        {
            gate.wait(Phase::InCopies);
        }
        self.file.write_at(position, parts)
    }
    fn sync(&self) -> io::Result<()> {
        if !self.gated.fails || self.gated.gate.phase() != Phase::InCopies {
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

fn options() -> Options {
    Options {
        key_value: true,
        ..Options::default()
    }
}

/// More than the sectors that are written again after a failed sync.
const LONG: &[u8] = &[7; 5000];

/// A compaction that has come to its end while an erasure has not come to its copies, which goes on only
/// as others write; what became of both.
fn erase_beside_the_end(fails: bool) -> (SimStorage, Db, Result<(), Error>, Result<(), Error>) {
    let gated = Gated {
        storage: SimStorage::new(Disk::new(), false, 1),
        gate: Arc::default(),
        fails,
    };
    let db = Db::open_on(Arc::new(gated.clone()), &options()).expect("a new database");
    gated.gate.go(Phase::Open);
    for id in 0..6 {
        db.set(id, b"a value").expect("a set");
    }
    let (mut compacted, mut erased) = (Ok(()), Ok(()));
    thread::scope(|scope| {
        let mut erasing = None;
        compacted = db.compact(&Retention::default(), |done, total| {
            if done == total {
                db.set(6, LONG).expect("a set");
                db.sync().expect("a sync");
                erasing = Some(scope.spawn(|| db.erase(5)));
                gated.gate.wait(Phase::Overwritten);
                scope.spawn(|| {
                    for phase in [Phase::ToCopies, Phase::InCopies] {
                        for _ in 0..100 {
                            db.set(7, b"nobody waits").expect("a set");
                            thread::sleep(Duration::from_millis(1));
                        }
                        gated.gate.go(phase);
                    }
                });
            }
            ControlFlow::Continue(())
        });
        let erasing = erasing.expect("it is told at its end");
        erased = erasing.join().expect("no panic");
    });
    (gated.storage, db, compacted, erased)
}

#[test]
fn writers_go_on_while_the_end_of_a_compaction_waits_for_an_erasure() {
    let (storage, db, compacted, erased) = erase_beside_the_end(false);
    compacted.expect("a compaction");
    erased.expect("an erasure");
    assert!(
        db.check(|_, _| ControlFlow::Continue(()))
            .expect("a check")
            .is_sound()
    );
    drop(db);
    let db = Db::open_on(Arc::new(storage), &options()).expect("it opens");
    assert_eq!(db.get(7).expect("a value"), b"nobody waits");
    assert!(db.get(5).is_err());
}

/// The kernel doesn't try again what a failed sync should have written, so the next one says nothing.
#[test]
fn a_compaction_does_not_go_over_to_copies_that_an_erasure_could_not_sync() {
    let (storage, db, compacted, erased) = erase_beside_the_end(true);
    erased.expect_err("an erasure whose sync fails");
    let error = compacted.expect_err("copies that are not on disk");
    assert!(matches!(error, Error::Poisoned { .. }), "{error}");
    drop(db);
    storage.fail(None);
    let left = storage.disk().lose_power(&Loss::OF_EVERYTHING);
    let storage = SimStorage::new(left, false, 1);
    let db = Db::open_on(Arc::new(storage), &options()).expect("it opens");
    assert!(db.get(6).expect("a value") == LONG);
    assert!(db.get(5).is_err());
}
