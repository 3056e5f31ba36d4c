//! Transactions beside each other, beside a writer, and beside a clear.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ourdb::storage::memory::MemoryStorage;
use ourdb::{Db, Error, Options, Order, Result, Retention, State, Txn};
use shuttle::rand::Rng;
use shuttle::thread;

use crate::explore;

/// A new database with these ids, in one commit. Data files hold one commit each, a few, or all.
fn create(ids: &[u32]) -> Db {
    let options = Options {
        key_value: true,
        native: true,
        record_nr_max: 200,
        file_size: [1, 150, 300, 0][shuttle::rand::thread_rng().gen_range(0..4)],
        ..Options::default()
    };
    let db = Db::open_on(Arc::new(MemoryStorage::new()), &options).expect("a new database");
    let records: Vec<(u32, &[u8])> = ids.iter().map(|&id| (id, &[0][..])).collect();
    db.set_many(&records).expect("set_many");
    db
}

/// Whether it commits; nothing but a conflict may be in its way.
fn commits(txn: Txn) -> bool {
    match txn.commit() {
        Ok(()) => true,
        Err(Error::Conflict { .. }) => false,
        Err(error) => panic!("commit: {error}"),
    }
}

/// Adds one to a record, and writes another one that only fills data files.
fn increment(db: &Db, other: u32) -> Result<bool> {
    let mut txn = db.begin()?;
    let value = txn.get(1)?[0];
    txn.set(1, &[value + 1])?;
    txn.set(other, &[0; 50])?;
    Ok(commits(txn))
}

#[test]
fn no_update_is_lost() {
    let most = Arc::new(AtomicUsize::new(0));
    explore(2000, {
        let most = Arc::clone(&most);
        move || {
            let db = create(&[1]);
            let committed: usize = thread::scope(|scope| {
                let threads: Vec<_> = (10..13)
                    .map(|other| {
                        let db = &db;
                        scope.spawn(move || {
                            let done =
                                (0..2).filter(|_| increment(db, other).expect("a transaction"));
                            done.count()
                        })
                    })
                    .collect();
                let joined = threads
                    .into_iter()
                    .map(|thread| thread.join().expect("no panic"));
                joined.sum()
            });
            let value = db.get(1).expect("get")[0];
            assert_eq!(usize::from(value), committed, "updates were lost");
            most.fetch_max(committed, Ordering::Relaxed);
        }
    });
    assert_eq!(most.load(Ordering::Relaxed), 6, "in no schedule all commit");
}

/// Each of two deletes one of two records if the other one is there too: one must stay. They see the
/// other one in different ways.
#[test]
fn no_write_skew() {
    explore(2000, || {
        let db = create(&[3, 5]);
        let ways: [fn(&Txn) -> bool; 4] = [
            |txn| txn.count().expect("count") == 2,
            |txn| txn.first().ok() == Some(3) && txn.last().ok() == Some(5),
            |txn| txn.contains(3).expect("contains") && txn.contains(5).expect("contains"),
            |txn| {
                let scan = txn.scan(0, 100, Order::default()).expect("scan");
                { scan }.next_many(10).expect("next_many").len() == 2
            },
        ];
        thread::scope(|scope| {
            for id in [3, 5] {
                let db = &db;
                let both = ways[shuttle::rand::thread_rng().gen_range(0..ways.len())];
                scope.spawn(move || {
                    let mut txn = db.begin().expect("begin");
                    if both(&txn) {
                        txn.delete(id).expect("delete");
                    }
                    commits(txn);
                });
            }
        });
        assert!(db.contains(3).expect("contains") || db.contains(5).expect("contains"));
    });
}

/// What a snapshot sees, in all the ways that there are to find it.
fn seen(snapshot: &Txn) -> Vec<u32> {
    let mut up = Vec::new();
    let mut next = snapshot.first().ok();
    while let Some(id) = next {
        assert!(snapshot.contains(id).expect("contains"));
        up.push(id);
        next = snapshot.above(id).ok();
    }
    let mut down = Vec::new();
    let mut next = snapshot.last().ok();
    while let Some(id) = next {
        down.push(id);
        next = snapshot.below(id).ok();
    }
    down.reverse();
    assert_eq!(up, down, "as of {}", snapshot.at());
    let scan = snapshot.scan(0, 199, Order::default()).expect("scan");
    let scanned = { scan }.next_many(100).expect("next_many");
    let scanned: Vec<u32> = scanned.iter().map(|record| record.id).collect();
    assert_eq!(up, scanned, "as of {}", snapshot.at());
    assert_eq!(snapshot.count().expect("count"), up.len() as u64);
    up
}

#[test]
fn a_snapshot_finds_what_a_writer_deletes_beside_it() {
    explore(1500, || {
        let db = create(&[1, 70, 130]);
        thread::scope(|scope| {
            let db = &db;
            for _ in 0..2 {
                scope.spawn(move || {
                    for _ in 0..2 {
                        let snapshot = db.snapshot().expect("snapshot");
                        let expected: &[u32] = match snapshot.at() {
                            1 => &[1, 70, 130],
                            2 => &[1, 130],
                            3 | 7 => &[],
                            4 => &[70],
                            5 => &[70, 71],
                            6 => &[71],
                            at => panic!("as of {at}"),
                        };
                        assert_eq!(seen(&snapshot), expected, "as of {}", snapshot.at());
                        thread::yield_now();
                        assert_eq!(seen(&snapshot), expected, "again as of {}", snapshot.at());
                    }
                });
            }
            db.delete(70).expect("delete");
            db.clear().expect("clear");
            db.set(70, b"").expect("set");
            db.set(71, b"").expect("set");
            db.delete(70).expect("delete");
            db.clear().expect("clear");
        });
    });
}

/// A record that a snapshot sees, deleted twice since, comes back while the snapshot is searched.
#[test]
fn a_snapshot_finds_what_comes_back_beside_it() {
    explore(1500, || {
        let db = create(&[1]);
        let older = db.snapshot().expect("snapshot");
        db.delete(1).expect("delete");
        db.set(1, b"two").expect("set");
        let newer = db.snapshot().expect("snapshot");
        db.delete(1).expect("delete");
        drop(older);
        thread::scope(|scope| {
            let db = &db;
            scope.spawn(move || db.set(1, b"three").expect("set"));
            assert_eq!(seen(&newer), [1]);
        });
    });
}

/// One that begins beside a deletion, which then is of before it or after.
#[test]
fn a_snapshot_that_begins_beside_a_deletion_finds_what_it_sees() {
    explore(1500, || {
        let db = create(&[1, 70]);
        let older = db.snapshot().expect("snapshot");
        thread::scope(|scope| {
            let db = &db;
            scope.spawn(move || {
                db.delete(70).expect("delete");
                db.delete(1).expect("delete");
            });
            for _ in 0..2 {
                let snapshot = db.snapshot().expect("snapshot");
                let expected: &[u32] = match snapshot.at() {
                    1 => &[1, 70],
                    2 => &[1],
                    _ => &[],
                };
                assert_eq!(seen(&snapshot), expected, "as of {}", snapshot.at());
            }
            assert_eq!(seen(&older), [1, 70]);
        });
    });
}

/// A transaction that found a record may not commit after a clear; one that writes blindly may.
#[test]
fn a_commit_beside_a_clear() {
    explore(2000, || {
        let db = create(&[1]);
        let reads = shuttle::rand::thread_rng().gen_range(0..3);
        thread::scope(|scope| {
            let db = &db;
            scope.spawn(move || db.clear().expect("clear"));
            scope.spawn(move || {
                let mut txn = db.begin().expect("begin");
                let found = match reads {
                    0 => txn.contains(1).expect("contains"),
                    1 => txn.first().is_ok(),
                    _ => false,
                };
                txn.set(2, &[u8::from(found)]).expect("set");
                let committed = commits(txn);
                assert!(committed || reads < 2, "a blind write conflicts");
            });
        });
        let Ok(history) = db.history(2, 0) else {
            return;
        };
        let put = history.iter().find(|record| record.state == State::Live);
        let put = put.expect("it was put");
        // What was there just before its commit.
        let before = db.snapshot_at(put.commit - 1).expect("snapshot_at");
        let there = reads < 2 && before.contains(1).expect("contains");
        assert_eq!(put.value, [u8::from(there)], "commit {}", put.commit);
        let last = db.last_commit().expect("last_commit");
        assert_eq!(db.contains(2).expect("contains"), put.commit == last);
    });
}

/// Who goes back finds what was cleared beside it, also where a compaction has dropped it by then.
#[test]
fn going_back_beside_a_clear_and_a_compaction() {
    explore(2000, || {
        let db = create(&[1, 2]);
        let at = db.last_commit().expect("last_commit");
        db.set(3, &[3]).expect("a set");
        let reverted = thread::scope(|scope| {
            let db = &db;
            scope.spawn(move || {
                db.clear().expect("clear");
                let nothing = Retention {
                    keep_versions: 0,
                    ..Retention::default()
                };
                db.compact(&nothing, |_, _| ControlFlow::Continue(()))
                    .expect("a compaction");
            });
            match db.revert_all(at) {
                Ok(()) => true,
                // Compacted before it began.
                Err(Error::NotFound(_)) => false,
                Err(error) => panic!("revert_all: {error}"),
            }
        });
        // Before the clear something is to be deleted, and after it all is to be set.
        let commits = db.last_commit().expect("last_commit") - at;
        assert_eq!(commits, 2 + u64::from(reverted));
        let there: Vec<u32> = (1..4)
            .filter(|&id| db.contains(id).expect("contains"))
            .collect();
        assert!([&[][..], &[1, 2]].contains(&&*there), "{there:?}");
    });
}

/// A snapshot's searches and scans find what was live then, whatever is deleted beside them, and however
/// many others were deleted between an older snapshot and that one.
#[test]
fn a_snapshot_finds_its_way_beside_deletions() {
    const IDS: u32 = 12;
    explore(2000, || {
        let options = Options {
            key_value: true,
            memory: true,
            record_nr_max: 2100,
            ..Options::default()
        };
        let db = Arc::new(Db::open("", &options).expect("a new database"));
        for id in 0..IDS {
            db.set(id, &[id as u8]).expect("a set");
        }
        let older = db.snapshot().expect("an older snapshot");
        let mut random = shuttle::rand::thread_rng();
        let before = random.gen_range(0..6);
        (0..before).for_each(|id| db.delete(id).expect("a deletion"));
        let snapshot = db.snapshot().expect("a snapshot");
        let deleting = {
            let db = Arc::clone(&db);
            thread::spawn(move || {
                for id in before..IDS {
                    db.delete(id).expect("a deletion");
                }
            })
        };
        for _ in 0..3 {
            let id = random.gen_range(0..IDS);
            let above = snapshot.above(id).ok();
            let expected = (before.max(id + 1)..IDS).next();
            assert_eq!(above, expected, "above {id}, from {before}");
            let below = snapshot.below(id).ok();
            assert_eq!(below, (before..id).last(), "below {id}, from {before}");
        }
        let scan = snapshot.scan(0, IDS, Order::default());
        let mut found = [0; IDS as usize];
        let count = scan.expect("a scan").next_ids(&mut found).expect("ids");
        assert!((before..IDS).eq(found[..count].iter().copied()));
        deleting.join().expect("a thread");
        assert_eq!(older.first().ok(), Some(0));
        assert!(db.first().is_err());
    });
}
