//! An erasure beside what copies the record meanwhile.

use std::ops::ControlFlow;
use std::sync::Arc;

use ourdb::storage::memory::MemoryStorage;
use ourdb::storage::{Storage, read_all};
use ourdb::{Db, Error, Options, Order, Retention, State, Sync};
use shuttle::rand::Rng;
use shuttle::thread;

use crate::explore;

const SECRET: &[u8; 16] = b"what is erased..";

/// When it returns, the values are in no file, neither the old nor the new ones, and what is set after it
/// stays.
#[test]
fn an_erasure_beside_a_compaction_reaches_its_copies() {
    explore(1000, || {
        let mut random = shuttle::rand::thread_rng();
        let options = Options {
            key_value: true,
            native: true,
            record_nr_max: 200,
            file_size: [1, 300, 0][random.gen_range(0..3)],
            ..Options::default()
        };
        let storage = Arc::new(MemoryStorage::new());
        let opened = Db::open_on(Arc::clone(&storage) as Arc<dyn Storage>, &options);
        let db = opened.expect("a new database");
        for _ in 0..2 {
            (0..3).for_each(|id| db.set(id, SECRET).expect("a set"));
        }
        let erased = random.gen_range(0..3);
        let others: Vec<u32> = (0..3).filter(|&id| id != erased).collect();
        others
            .iter()
            .for_each(|&id| db.erase(id).expect("an erasure"));
        let secrets = |names: &mut dyn Iterator<Item = String>| -> Vec<String> {
            let is_there = |name: &String| {
                let bytes = read_all(&*storage, name, 1 << 20).unwrap_or_default();
                bytes.windows(SECRET.len()).any(|part| part == SECRET)
            };
            names.filter(is_there).collect()
        };
        let before = storage.list("").expect("names");
        thread::scope(|scope| {
            let db = &db;
            scope.spawn(move || {
                let keep_all = Retention {
                    keep_versions: u64::MAX,
                    ..Retention::default()
                };
                let compacted = db.compact(&keep_all, |_, _| ControlFlow::Continue(()));
                compacted.expect("a compaction");
            });
            scope.spawn(move || {
                let ids = others.into_iter().chain([erased]);
                ids.for_each(|id| db.set(id, b"other").expect("a set"));
            });
            db.erase(erased).expect("an erasure");
            // What the compaction has replaced is overwritten, or about to be removed.
            let names = storage.list("").expect("names").into_iter();
            let left = secrets(&mut names.filter(|name| !before.contains(name)));
            assert!(left.is_empty(), "{left:?}");
        });
        let left = secrets(&mut storage.list("").expect("names").into_iter());
        assert!(left.is_empty(), "{left:?}");
        let history = db.history(erased, 0).expect("a history");
        let states: Vec<State> = history.iter().map(|version| version.state).collect();
        match states[..] {
            [State::Erased] => assert!(!db.contains(erased).expect("a look")),
            [State::Live, State::Erased] => {
                assert_eq!(db.get(erased).expect("a value"), b"other");
            }
            _ => panic!("{states:?}"),
        }
        let report = db.check(|_, _| ControlFlow::Continue(())).expect("a check");
        assert!(report.is_sound(), "{report}");
    });
}

/// What comes to a receiver as erased reaches what a compaction there has copied from before it, also where
/// that ends before what is old is overwritten.
#[test]
fn an_erased_version_that_is_applied_reaches_the_copies() {
    explore(1000, || {
        let options = Options {
            key_value: true,
            native: true,
            record_nr_max: 200,
            ..Options::default()
        };
        let open = |storage: &Arc<MemoryStorage>| {
            let opened = Db::open_on(Arc::clone(storage) as Arc<dyn Storage>, &options);
            opened.expect("a new database")
        };
        let sender = open(&Arc::new(MemoryStorage::new()));
        let storage = Arc::new(MemoryStorage::new());
        let copy = open(&storage);
        sender.set(1, SECRET).expect("a set");
        let (changes, since) = sender.changes(0, 0).expect("changes");
        copy.apply(&changes).expect("they fit");
        sender.set(1, SECRET).expect("a set");
        sender.erase(1).expect("an erasure");
        let (changes, upto) = sender.changes(since, 1).expect("changes");
        thread::scope(|scope| {
            let copy = &copy;
            scope.spawn(move || {
                let keep_all = Retention {
                    keep_versions: u64::MAX,
                    ..Retention::default()
                };
                let compacted = copy.compact(&keep_all, |_, _| ControlFlow::Continue(()));
                compacted.expect("a compaction");
            });
            copy.apply(&changes).expect("they fit");
        });
        for name in storage.list("").expect("names") {
            let bytes = read_all(&*storage, &name, 1 << 20).unwrap_or_default();
            let is_there = bytes.windows(SECRET.len()).any(|part| part == SECRET);
            assert!(!is_there, "{name}");
        }
        let history = copy.history(1, 0).expect("a history");
        let versions: Vec<_> = history.iter().map(|it| (it.commit, it.state)).collect();
        assert_eq!(versions, [(upto, State::Erased)]);
        let report = copy
            .check(|_, _| ControlFlow::Continue(()))
            .expect("a check");
        assert!(report.is_sound(), "{report}");
    });
}

/// Who erases, who goes back while nothing may be overwritten, and the end of a compaction wait for each
/// other, and all get on.
#[test]
fn erasures_and_who_waits_for_them_get_on_beside_a_compaction() {
    explore(1000, || {
        let options = Options {
            key_value: true,
            native: true,
            record_nr_max: 200,
            ..Options::default()
        };
        let db = Db::open_on(Arc::new(MemoryStorage::new()), &options).expect("a new database");
        for _ in 0..2 {
            (0..4).for_each(|id| db.set(id, SECRET).expect("a set"));
        }
        let last = db.last_commit().expect("a commit");
        thread::scope(|scope| {
            let db = &db;
            for erased in [[0, 1], [2, 3]] {
                scope.spawn(move || {
                    let ids = erased.into_iter();
                    ids.for_each(|id| db.erase(id).expect("an erasure"));
                });
            }
            scope.spawn(move || {
                let (id, other) = (0, 4);
                db.set(other, b"other").expect("a set");
                // It is there still, or erased.
                match db.revert(id, last) {
                    Ok(()) | Err(Error::NotFound(_)) => {}
                    Err(error) => panic!("{error}"),
                }
            });
            let keep_all = Retention {
                keep_versions: u64::MAX,
                ..Retention::default()
            };
            let compacted = db.compact(&keep_all, |_, _| ControlFlow::Continue(()));
            compacted.expect("a compaction");
        });
        let report = db.check(|_, _| ControlFlow::Continue(())).expect("a check");
        assert!(report.is_sound(), "{report}");
    });
}

/// Whenever it is opened: what it doesn't find any more it doesn't count.
#[test]
fn a_snapshot_beside_an_erasure_counts_what_it_finds() {
    explore(1000, || {
        let options = Options {
            key_value: true,
            native: true,
            record_nr_max: 200,
            sync: Sync::Commit,
            ..Options::default()
        };
        let db = Db::open_on(Arc::new(MemoryStorage::new()), &options).expect("a new database");
        (0..4).for_each(|id| db.set(id, SECRET).expect("a set"));
        let snapshots = thread::scope(|scope| {
            let db = &db;
            scope.spawn(move || db.erase(2).expect("an erasure"));
            let mut txn = db.begin().expect("a transaction");
            txn.set(9, b"new").expect("a set");
            [db.snapshot().expect("a snapshot"), txn]
        });
        for txn in snapshots {
            let mut scan = txn.scan(0, 100, Order::default()).expect("a scan");
            let found = scan.next_many(100).expect("records").len() as u64;
            assert_eq!(txn.count().expect("a count"), found);
        }
    });
}
