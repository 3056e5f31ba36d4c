//! Transactions, snapshots and scans: each anomaly by its name, what conflicts and what doesn't, and
//! what is left of a transaction. Random interleavings are compared with a serial model.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::support::herolib::{Herolib, Port, Settings};
use crate::support::interleave::Interleaved;
use crate::support::readers::{EndOnDrop, Place};
use crate::support::sim::{Calls, Disk, Errno, Fault, Pages, SimStorage};
use crate::support::{Random, TempDirectory};
use ourdb::{
    Db, Error, LookupKind, Neighbour, NotFound, Options, Order, Result, Retention, Scan, State,
    Sync, Txn,
};

const UP: Order = Order {
    reverse: false,
    keys_only: false,
};
const DOWN: Order = Order {
    reverse: true,
    keys_only: false,
};

fn memory(key_value: bool) -> Db {
    let options = Options {
        key_value,
        memory: true,
        ..Options::default()
    };
    Db::open("", &options).expect("a new database")
}

/// A key-value database in memory with these ids, each with its number as its value.
fn with(ids: &[u32]) -> Db {
    let db = memory(true);
    for &id in ids {
        db.set(id, &[id as u8]).expect("set");
    }
    db
}

fn ids(mut scan: Scan) -> Vec<u32> {
    let records = scan.next_many(usize::MAX).expect("a scan");
    records.iter().map(|record| record.id).collect()
}

/// Whether a transaction conflicts; nothing else may be wrong with it.
fn conflicts(txn: Txn) -> bool {
    match txn.commit() {
        Ok(()) => false,
        Err(Error::Conflict { .. }) => true,
        Err(error) => panic!("commit: {error}"),
    }
}

fn no_record<T>(answer: Result<T>, id: u32) {
    assert!(
        matches!(answer, Err(Error::NotFound(NotFound::Record(not))) if not == id),
        "id {id} is there"
    );
}

/// Ways to read that must all notice a record that comes where none was, or goes.
type Reading = (&'static str, fn(&Txn));

/// Each with the ids 10 and 20 there; what it reads contains id 15, or would.
const READINGS: [Reading; 12] = [
    ("get", |txn| no_record(txn.get(15), 15)),
    ("get_with", |txn| no_record(txn.get_with(15, |_| ()), 15)),
    ("contains", |txn| {
        assert!(!txn.contains(15).expect("contains"))
    }),
    ("above", |txn| assert_eq!(txn.above(10).expect("above"), 20)),
    ("below", |txn| assert_eq!(txn.below(20).expect("below"), 10)),
    ("above the last but one", |txn| {
        assert_eq!(txn.above(14).expect("above"), 20);
    }),
    ("below the first but one", |txn| {
        assert_eq!(txn.below(16).expect("below"), 10);
    }),
    ("count", |txn| assert_eq!(txn.count().expect("count"), 2)),
    ("scan", |txn| {
        assert_eq!(ids(txn.scan(0, u32::MAX, UP).expect("scan")), [10, 20]);
    }),
    ("scan downwards", |txn| {
        assert_eq!(ids(txn.scan(0, u32::MAX, DOWN).expect("scan")), [20, 10]);
    }),
    ("scan of nothing", |txn| {
        let mut scan = txn.scan(11, 19, UP).expect("scan");
        assert!(scan.next().expect("next").is_none());
    }),
    ("scan of fewer than asked for", |txn| {
        let mut scan = txn.scan(11, 19, DOWN).expect("scan");
        assert!(scan.next_many(5).expect("next_many").is_empty());
    }),
];

#[test]
fn a_phantom_is_a_conflict_however_it_was_missed() {
    for (name, reading) in READINGS {
        let db = with(&[10, 20]);
        let mut txn = db.begin().expect("begin");
        reading(&txn);
        db.set(15, b"").expect("set");
        reading(&txn);
        txn.set(1, b"").expect("set");
        assert!(conflicts(txn), "{name}");
        assert!(!db.contains(1).expect("contains"), "{name}");
    }
    // A new first and a new last one.
    for (id, reading) in [
        (
            5,
            (|txn| assert_eq!(txn.first().expect("first"), 10)) as fn(&Txn),
        ),
        (25, |txn| assert_eq!(txn.last().expect("last"), 20)),
        (25, |txn| assert!(txn.above(20).is_err())),
        (5, |txn| assert!(txn.below(10).is_err())),
    ] {
        let db = with(&[10, 20]);
        let txn = db.begin().expect("begin");
        reading(&txn);
        db.set(id, b"").expect("set");
        reading(&txn);
        assert!(conflicts(txn), "{id}");
    }
}

#[test]
fn what_lies_beside_what_was_read_is_no_conflict() {
    for (name, beside, reading) in [
        ("get", 16, READINGS[0].1),
        ("above", 21, READINGS[3].1),
        ("above", 10, READINGS[3].1),
        ("below", 9, READINGS[4].1),
        ("below", 20, READINGS[4].1),
        ("first", 11, |txn: &Txn| {
            assert_eq!(txn.first().expect("first"), 10)
        }),
        ("last", 19, |txn: &Txn| {
            assert_eq!(txn.last().expect("last"), 20)
        }),
        ("scan", 10, READINGS[10].1),
        ("scan", 20, READINGS[10].1),
    ] {
        let db = with(&[10, 20]);
        let mut txn = db.begin().expect("begin");
        reading(&txn);
        txn.set(1, b"").expect("set");
        db.set(beside, b"").expect("set");
        assert!(!conflicts(txn), "{name}, {beside}");
    }
}

#[test]
fn write_skew() {
    let db = with(&[1, 2]);
    let (mut one, mut two) = (db.begin().expect("begin"), db.begin().expect("begin"));
    for txn in [&one, &two] {
        assert!(txn.contains(1).expect("contains") && txn.contains(2).expect("contains"));
    }
    one.delete(1).expect("delete");
    two.delete(2).expect("delete");
    assert!(!conflicts(one));
    assert!(conflicts(two));
    assert_eq!(db.count().expect("count"), 1);
}

#[test]
fn lost_update() {
    let db = with(&[1]);
    let (mut one, mut two) = (db.begin().expect("begin"), db.begin().expect("begin"));
    for txn in [&mut one, &mut two] {
        let value = txn.get(1).expect("get")[0];
        txn.set(1, &[value + 1]).expect("set");
    }
    assert!(!conflicts(one));
    assert!(conflicts(two));
    assert_eq!(db.get(1).expect("get"), [2]);
}

#[test]
fn dirty_read() {
    let db = with(&[1]);
    let mut txn = db.begin().expect("begin");
    txn.set(1, b"dirty").expect("set");
    txn.set(2, b"dirty").expect("set");
    let other = db.begin().expect("begin");
    assert_eq!(db.get(1).expect("get"), [1]);
    assert_eq!(other.get(1).expect("get"), [1]);
    no_record(other.get(2), 2);
    txn.abort();
    no_record(db.get(2), 2);
    assert!(!conflicts(other));
}

#[test]
fn non_repeatable_read_and_read_skew() {
    let db = with(&[1, 2]);
    let txn = db.begin().expect("begin");
    assert_eq!(txn.get(1).expect("get"), [1]);
    db.set_many(&[(1, b"new"), (2, b"new")]).expect("set_many");
    assert_eq!(txn.get(1).expect("get"), [1]);
    assert_eq!(txn.get(2).expect("get"), [2]);
    db.delete_many(&[1, 2]).expect("delete_many");
    assert_eq!(txn.get(2).expect("get"), [2]);
    // It read two moments' worth of nothing, and may not commit as if it were now.
    assert!(conflicts(txn));
}

#[test]
fn blind_writes_never_conflict() {
    let db = with(&[1]);
    let (mut one, mut two) = (db.begin().expect("begin"), db.begin().expect("begin"));
    for (txn, value) in [(&mut one, b"one"), (&mut two, b"two")] {
        txn.set(1, value).expect("set");
        txn.set(7, value).expect("set");
    }
    db.clear().expect("clear");
    assert!(!conflicts(one) && !conflicts(two));
    assert_eq!(db.get(7).expect("get"), b"two");
    assert_eq!(db.history(7, 0).expect("history").len(), 2);
}

#[test]
fn a_scan_conflicts_with_what_it_handed_out_and_no_more() {
    for (reverse, next, beyond) in [(false, 3, 4), (true, 6, 5)] {
        for (changed, expected) in [(next, true), (beyond, false)] {
            let db = with(&[1, 2, 3, 4, 5, 6, 7, 8]);
            let txn = db.begin().expect("begin");
            let order = Order {
                reverse,
                keys_only: true,
            };
            let mut scan = txn.scan(0, 100, order).expect("scan");
            for _ in 0..3 {
                scan.next().expect("next").expect("a record");
            }
            db.set(changed, b"").expect("set");
            assert_eq!(conflicts(txn), expected, "{changed}, {order:?}");
        }
    }
    // Fewer than were asked for say that there are no more.
    type Ask = fn(&mut Scan, usize) -> usize;
    for (name, ask) in [
        (
            "next_many",
            (|scan, max| scan.next_many(max).expect("next_many").len()) as Ask,
        ),
        ("next_ids", |scan, max| {
            scan.next_ids(&mut vec![0; max]).expect("next_ids")
        }),
    ] {
        for (max, expected) in [(3, false), (4, true)] {
            let db = with(&[1, 2, 3]);
            let txn = db.begin().expect("begin");
            let mut scan = txn.scan(0, 100, UP).expect("scan");
            assert_eq!(ask(&mut scan, max), 3);
            db.set(50, b"").expect("set");
            assert_eq!(conflicts(txn), expected, "{name}, {max}");
        }
    }
}

#[test]
fn a_clear_conflicts_with_what_was_there() {
    for (id, expected) in [(1, true), (3, false)] {
        let db = with(&[1, 2]);
        let txn = db.begin().expect("begin");
        let _ = txn.get(id);
        db.clear().expect("clear");
        assert_eq!(conflicts(txn), expected, "{id}");
    }
    // What it put there itself was not there.
    type Prepare = fn(&mut Txn);
    for (name, prepare) in [
        (
            "first",
            (|txn| assert_eq!(txn.first().expect("first"), 1)) as Prepare,
        ),
        ("a scan", |txn| {
            let mut scan = txn.scan(0, 5, UP).expect("scan");
            assert_eq!(scan.next_many(9).expect("next_many").len(), 1);
        }),
    ] {
        let db = with(&[9]);
        let mut txn = db.begin().expect("begin");
        txn.set(1, b"").expect("set");
        prepare(&mut txn);
        db.clear().expect("clear");
        assert!(!conflicts(txn), "{name}");
    }
}

#[test]
fn an_erasure_conflicts_with_what_was_there() {
    type State = (&'static str, bool, fn(&Db));
    type Read = (&'static str, fn(&mut Txn));
    /// How record 2 came to be as it is when the transaction begins, and whether it is live.
    const STATES: [State; 4] = [
        ("set", true, |_| {}),
        ("deleted", false, |db| db.delete(2).expect("delete")),
        ("cleared", false, |db| db.clear().expect("clear")),
        ("set again", true, |db| {
            db.clear().expect("clear");
            db.set(2, b"again").expect("set");
        }),
    ];
    const READS: [Read; 7] = [
        ("get", |txn| drop(txn.get(2))),
        ("contains", |txn| drop(txn.contains(2))),
        ("delete", |txn| drop(txn.delete(2))),
        ("above", |txn| drop(txn.above(1))),
        ("below", |txn| drop(txn.below(4))),
        ("count", |txn| drop(txn.count())),
        ("scan", |txn| {
            let scan = txn.scan(0, u32::MAX, Order::default());
            drop({ scan.expect("scan") }.next_many(9).expect("next_many"));
        }),
    ];
    for (state, is_live, make) in STATES {
        for (name, read) in READS {
            // Read before, afterwards, before and afterwards; and where it was set again before that.
            for (before, after, is_set) in [
                (true, false, false),
                (false, true, false),
                (true, true, false),
                (true, false, true),
            ] {
                let what = format!("{state}, {name}, {before}, {after}, {is_set}");
                let db = with(&[1, 2]);
                make(&db);
                let mut txn = db.begin().expect("begin");
                txn.set(9, b"nine").expect("set");
                if before {
                    read(&mut txn);
                }
                if is_set {
                    db.set(2, b"now").expect("set");
                }
                db.erase(2).expect("erase");
                if after {
                    read(&mut txn);
                }
                assert_eq!(conflicts(txn), is_live || is_set, "{what}");
            }
        }
    }
}

/// What came after each compaction is found from a transaction that was open all the time; to end it takes
/// no more stack for that.
#[test]
fn a_transaction_over_many_compactions_ends_on_a_small_stack() {
    let options = Options {
        key_value: true,
        memory: true,
        record_nr_max: 1000,
        ..Options::default()
    };
    for commits in [true, false] {
        let db = Db::open("", &options).expect("a new database");
        let mut txn = db.begin().expect("begin");
        txn.set(9, b"nine").expect("set");
        for _ in 0..1500 {
            db.set(1, b"one").expect("set");
            db.compact(&Retention::default(), |_, _| ControlFlow::Continue(()))
                .expect("a compaction");
        }
        let thread = thread::Builder::new().stack_size(32 << 10);
        let ended = thread.spawn(move || match commits {
            true => txn.commit().expect("a blind commit"),
            false => drop(txn),
        });
        ended.expect("a thread").join().expect("an end");
        assert_eq!(db.contains(9).expect("an answer"), commits);
    }
}

/// A clear changes what was live, also where an erasure has it look as if it never had been, whenever that
/// is read.
#[test]
fn what_was_cleared_and_erased_since_is_a_conflict_for_who_saw_it_live() {
    type Read = (&'static str, fn(&mut Txn));
    const READS: [Read; 3] = [
        ("get", |txn| no_record(txn.get(2), 2)),
        ("above", |txn| {
            assert!(txn.above(1).is_ok_and(|id| id == 9));
        }),
        ("scan", |txn| {
            assert!(ids(txn.scan(2, 8, UP).expect("a scan")).is_empty());
        }),
    ];
    for (name, read) in READS {
        for (is_live, is_compacted) in [(true, false), (true, true), (false, false), (false, true)]
        {
            let db = with(&[1, 2]);
            if !is_live {
                db.clear().expect("clear");
                db.set(1, b"again").expect("set");
            }
            let mut txn = db.begin().expect("begin");
            txn.set(9, b"nine").expect("set");
            db.clear().expect("clear");
            db.erase(2).expect("erase");
            if is_compacted {
                db.compact(&Retention::default(), |_, _| ControlFlow::Continue(()))
                    .expect("a compaction");
            }
            read(&mut txn);
            let what = format!("{name}, live: {is_live}, compacted: {is_compacted}");
            assert_eq!(conflicts(txn), is_live, "{what}");
        }
    }
}

#[test]
fn in_an_incremental_database_what_is_set_must_be_there_still() {
    let db = memory(false);
    let id = db.insert(b"a").expect("insert");
    let (mut set, mut delete) = (db.begin().expect("begin"), db.begin().expect("begin"));
    let mut blind = db.begin().expect("begin");
    blind.set(id, b"b").expect("set");
    set.set(id, b"c").expect("set");
    delete.delete(id).expect("delete");
    // Its value doesn't matter.
    assert!(!conflicts(blind));
    assert!(!conflicts(delete));
    assert!(conflicts(set));
    let mut txn = db.begin().expect("begin");
    assert!(matches!(txn.set(id, b""), Err(Error::IdNotAssigned { .. })));
    no_record(txn.delete(id), id);
    no_record(txn.delete(77), 77);
    assert!(matches!(
        txn.set(16_777_215, b""),
        Err(Error::IdOutOfRange { .. })
    ));
    assert!(matches!(
        txn.insert(&vec![0; 65_536]),
        Err(Error::RecordTooLarge { .. })
    ));
}

#[test]
fn ids_of_inserts_are_never_given_out_twice() {
    let directory = TempDirectory::new();
    let options = Options::default();
    let db = Db::open(directory.path(), &options).expect("open");
    let (mut one, mut two) = (db.begin().expect("begin"), db.begin().expect("begin"));
    assert_eq!(one.insert(b"1").expect("insert"), 1);
    assert_eq!(two.insert(b"2").expect("insert"), 2);
    assert_eq!(one.insert(b"3").expect("insert"), 3);
    assert_eq!(db.insert(b"4").expect("insert"), 4);
    assert_eq!(db.next_id().expect("next_id"), 5);
    one.abort();
    assert!(!conflicts(two));
    let mut three = db.begin().expect("begin");
    assert_eq!(three.insert(b"5").expect("insert"), 5);
    three.abort();
    assert_eq!(db.last_commit().expect("last_commit"), 2);
    db.close().expect("close");
    let db = Db::open(directory.path(), &options).expect("open");
    assert_eq!(db.insert(b"6").expect("insert"), 6);
    assert_eq!(ids(db.scan(0, u32::MAX, UP).expect("scan")), [2, 4, 6]);
}

#[test]
fn a_transaction_sees_its_own_writes_in_every_call() {
    let db = with(&[10, 20, 30]);
    let mut txn = db.begin().expect("begin");
    txn.delete(10).expect("delete");
    txn.delete(30).expect("delete");
    txn.set(20, b"new").expect("set");
    txn.set(25, b"own").expect("set");
    assert_eq!(txn.get(20).expect("get"), b"new");
    assert_eq!(txn.get_with(25, <[u8]>::len).expect("get_with"), 3);
    no_record(txn.get(10), 10);
    assert!(txn.contains(25).expect("contains") && !txn.contains(30).expect("contains"));
    assert_eq!(txn.first().expect("first"), 20);
    assert_eq!(txn.last().expect("last"), 25);
    assert_eq!(txn.above(20).expect("above"), 25);
    assert_eq!(txn.below(25).expect("below"), 20);
    assert!(matches!(
        txn.above(25),
        Err(Error::NotFound(NotFound::Neighbour(Neighbour::Above(25))))
    ));
    assert_eq!(txn.count().expect("count"), 2);
    let mut scan = txn.scan(0, u32::MAX, UP).expect("scan");
    // As of its opening.
    txn.delete(25).expect("delete");
    txn.set(26, b"").expect("set");
    let records = scan.next_many(9).expect("next_many");
    let records: Vec<_> = records
        .iter()
        .map(|record| (record.id, record.commit, record.value.to_vec()))
        .collect();
    assert_eq!(
        records,
        [(20, 0, b"new".to_vec()), (25, 0, b"own".to_vec())]
    );
    assert_eq!(ids(txn.scan(0, u32::MAX, DOWN).expect("scan")), [26, 20]);
    no_record(txn.delete(25), 25);
}

#[test]
fn a_transaction_is_one_commit_of_what_it_came_to() {
    let db = with(&[1, 2, 3]);
    let mut txn = db.begin().expect("begin");
    txn.set(1, b"first").expect("set");
    txn.set(1, b"last").expect("set");
    txn.delete(2).expect("delete");
    txn.set(8, b"").expect("set");
    txn.delete(8).expect("delete");
    txn.delete(3).expect("delete");
    txn.set(3, b"again").expect("set");
    assert!(!conflicts(txn));
    assert_eq!(db.last_commit().expect("last_commit"), 4);
    let mut times = Vec::new();
    for (id, state, value) in [
        (1, State::Live, &b"last"[..]),
        (2, State::Deleted, b""),
        (3, State::Live, b"again"),
    ] {
        let history = db.history(id, 0).expect("history");
        assert_eq!(history.len(), 2, "{id}");
        let newest = history.get(0).expect("a version");
        assert_eq!(
            (newest.state, newest.value, newest.commit),
            (state, value, 4)
        );
        times.push(newest.time_us);
    }
    assert_eq!(times, [times[0]; 3]);
    assert!(db.history(8, 0).is_err(), "nothing is left of id 8");
    // Nothing to write, no commit.
    assert!(!conflicts(db.begin().expect("begin")));
    let mut txn = db.begin().expect("begin");
    txn.set(8, b"").expect("set");
    txn.delete(8).expect("delete");
    assert!(!conflicts(txn));
    assert_eq!(db.last_commit().expect("last_commit"), 4);
}

#[test]
fn a_conflict_leaves_no_trace() {
    let directory = TempDirectory::new();
    let options = Options {
        key_value: true,
        ..Options::default()
    };
    let db = Db::open(directory.path(), &options).expect("open");
    db.set(1, b"one").expect("set");
    let mut txn = db.begin().expect("begin");
    assert!(txn.contains(1).expect("contains"));
    txn.set(1, b"lost").expect("set");
    txn.set(2, b"lost").expect("set");
    db.set(1, b"two").expect("set");
    let told = txn.commit();
    assert!(
        matches!(&told, Err(Error::Conflict { what, commit: 2 }) if what == "record 1"),
        "{told:?}"
    );
    let look = |db: &Db| {
        assert_eq!(db.last_commit().expect("last_commit"), 2);
        assert_eq!(db.count().expect("count"), 1);
        assert_eq!(db.history(1, 0).expect("history").len(), 2);
        assert!(db.history(2, 0).is_err());
    };
    look(&db);
    db.check_idle().expect("nothing is open");
    drop(db);
    look(&Db::open(directory.path(), &options).expect("open"));
}

#[test]
fn what_reads_only_says_so() {
    let db = with(&[1]);
    let mut snapshot = db.snapshot().expect("snapshot");
    assert!(snapshot.is_read_only() && !db.begin().expect("begin").is_read_only());
    assert!(matches!(snapshot.set(1, b""), Err(Error::ReadOnly { .. })));
    assert!(matches!(snapshot.delete(1), Err(Error::ReadOnly { .. })));
    assert!(matches!(snapshot.insert(b""), Err(Error::ReadOnly { .. })));
    assert!(matches!(db.check_idle(), Err(Error::Busy { .. })));
    assert_eq!(snapshot.get(1).expect("get"), [1]);
    db.set(1, b"new").expect("set");
    assert!(!conflicts(snapshot));
    let scan = db.scan(0, 9, UP).expect("scan");
    assert!(matches!(db.check_idle(), Err(Error::Busy { .. })));
    drop(scan);
    db.check_idle().expect("nothing is open");
}

/// A snapshot sees one moment, with a writer that puts, deletes and clears beside it.
#[test]
fn snapshots_see_one_moment_beside_a_writer() {
    const IDS: u32 = 300;
    for place in Place::ALL {
        let options = Options {
            key_value: true,
            record_nr_max: 1000,
            file_size: 5000,
            ..Options::default()
        };
        let (db, _directory) = place.open(&options);
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let (db, done) = (&db, &done);
            scope.spawn(move || {
                let _end = EndOnDrop(done);
                let mut random = Random::new(7);
                // Every commit leaves records of one value alone.
                for round in 0..150u32 {
                    let mut txn = db.begin().expect("begin");
                    let live: Vec<u32> = ids(txn.scan(0, IDS, UP).expect("scan"));
                    for id in live {
                        txn.delete(id).expect("delete");
                    }
                    for _ in 0..random.below(20) {
                        let id = random.below(u64::from(IDS)) as u32;
                        txn.set(id, &round.to_le_bytes()).expect("set");
                    }
                    txn.commit().expect("only this thread writes");
                    if random.chance(10) {
                        db.clear().expect("clear");
                    }
                }
            });
            for _ in 0..2 {
                scope.spawn(move || {
                    while !done.load(Ordering::Acquire) {
                        look_twice(&db.snapshot().expect("snapshot"), place.name);
                    }
                });
            }
        });
        look_twice(&db.snapshot().expect("snapshot"), place.name);
    }
}

fn look_twice(snapshot: &Txn, place: &str) {
    let (first, count) = look(snapshot, place);
    assert_eq!(
        look(snapshot, place),
        (first, count),
        "{place}: the second look"
    );
}

/// All that a snapshot sees, in several ways, which must agree.
fn look(snapshot: &Txn, place: &str) -> (Vec<u32>, u64) {
    let mut up = Vec::new();
    let mut values = Vec::new();
    let mut next = snapshot.first().ok();
    while let Some(id) = next {
        values.push(snapshot.get(id).expect("get"));
        up.push(id);
        next = snapshot.above(id).ok();
    }
    values.dedup();
    assert!(
        values.len() <= 1,
        "{place}: values of {} commits",
        values.len()
    );
    let mut down = ids(snapshot.scan(0, u32::MAX, DOWN).expect("scan"));
    down.reverse();
    assert_eq!(up, down, "{place}");
    let count = snapshot.count().expect("count");
    assert_eq!(count, up.len() as u64, "{place}");
    (up, count)
}

#[test]
fn scans_hand_out_everything_whatever_is_asked_for() {
    // Far apart, and more than are read ahead.
    let mut all = vec![
        0u32, 1, 63, 64, 511, 512, 4095, 4096, 262_144, 16_777_213, 16_777_214,
    ];
    all.extend(1000..1700);
    all.sort_unstable();
    let db = memory(true);
    let values: Vec<Vec<u8>> = all.iter().map(|id| id.to_le_bytes().to_vec()).collect();
    let records: Vec<(u32, &[u8])> = all
        .iter()
        .copied()
        .zip(values.iter().map(|v| &v[..]))
        .collect();
    db.set_many(&records).expect("set_many");
    let mut down = all.clone();
    down.reverse();
    let mut txn = db.begin().expect("begin");
    txn.set(5, b"").expect("set");
    txn.delete(5).expect("delete");
    for (expected, reverse) in [(&all, false), (&down, true)] {
        for keys_only in [false, true] {
            let order = Order { reverse, keys_only };
            for max in [1, 2, 3, 7, 255, 256, 257, 600, 10_000, usize::MAX] {
                for scan in [db.scan(0, u32::MAX, order), txn.scan(0, u32::MAX, order)] {
                    let mut scan = scan.expect("scan");
                    let mut found = Vec::new();
                    loop {
                        let records = scan.next_many(max).expect("next_many");
                        if records.is_empty() {
                            break;
                        }
                        assert!(records.len() <= max);
                        for record in records.iter() {
                            let value = record.id.to_le_bytes();
                            assert_eq!(record.value, if keys_only { &[][..] } else { &value });
                            found.push(record.id);
                        }
                        // The other ways to go on.
                        if let Some(record) = scan.next().expect("next") {
                            found.push(record.id);
                        }
                        let mut next = vec![0; max.min(700)];
                        let count = scan.next_ids(&mut next).expect("next_ids");
                        found.extend_from_slice(&next[..count]);
                    }
                    assert_eq!(&found, expected, "{order:?}, {max}");
                    assert!(
                        scan.next().expect("next").is_none(),
                        "it goes on after its end"
                    );
                }
            }
        }
    }
    let mut none = db.scan(5, 4, UP).expect("scan");
    assert!(none.next().expect("next").is_none());
    assert_eq!(
        ids(db.scan(263_000, 16_777_213, UP).expect("scan")),
        [16_777_213]
    );
}

#[test]
fn scans_with_large_values_hand_them_out_in_pieces() {
    let directory = TempDirectory::new();
    let options = Options {
        key_value: true,
        record_size_max: 1 << 20,
        file_size: 3 << 20,
        ..Options::default()
    };
    let db = Db::open(directory.path(), &options).expect("open");
    let value = |id: u32| {
        vec![
            id as u8;
            if id.is_multiple_of(3) {
                1 << 20
            } else {
                300_000
            }
        ]
    };
    for id in 0..20 {
        db.set(id, &value(id)).expect("set");
    }
    let mut txn = db.begin().expect("begin");
    for id in 20..25 {
        txn.set(id, &value(id)).expect("set");
    }
    for (mut scan, last) in [
        (db.scan(0, 100, UP).expect("scan"), 20),
        (txn.scan(0, 100, UP).expect("scan"), 25),
    ] {
        let mut next = 0;
        loop {
            let records = scan.next_many(1000).expect("next_many");
            if records.is_empty() {
                break;
            }
            let bytes: usize = records.iter().map(|record| record.value.len()).sum();
            assert!(bytes < 2 << 20, "{bytes} bytes at once");
            for record in records.iter() {
                assert_eq!(record.id, next);
                assert!(record.value == value(next), "the value of {next}");
                next += 1;
            }
        }
        assert_eq!(next, last);
    }
}

/// A scan outlives its transaction, and the transaction its database.
#[test]
fn what_is_open_outlives_what_it_belongs_to() {
    let directory = TempDirectory::new();
    let options = Options {
        key_value: true,
        ..Options::default()
    };
    let db = Db::open(directory.path(), &options).expect("open");
    db.set_many(&[(1, b"1"), (2, b"2"), (3, b"3")])
        .expect("set_many");
    for commit in [true, false] {
        let mut txn = db.begin().expect("begin");
        txn.set(4, b"4").expect("set");
        let mut scan = txn.scan(0, 9, UP).expect("scan");
        assert!(scan.next().expect("next").is_some());
        if commit {
            txn.commit().expect("commit");
        } else {
            txn.abort();
        }
        assert_eq!(ids(scan), [2, 3, 4]);
    }
    let mut txn = db.begin().expect("begin");
    txn.set(5, b"too late").expect("set");
    let snapshot = db.snapshot().expect("snapshot");
    db.close().expect("close");
    assert_eq!(snapshot.get(4).expect("get"), b"4");
    let told = txn.commit();
    assert!(matches!(told, Err(Error::Poisoned { .. })), "{told:?}");
    drop(snapshot);
    let db = Db::open(directory.path(), &options).expect("open");
    assert_eq!(ids(db.scan(0, 9, UP).expect("scan")), [1, 2, 3, 4]);
    assert!(db.history(5, 0).is_err());
}

/// What was put after a clear and deleted again is seen by those who see it, whoever looks at the
/// time before the clear.
#[test]
fn neighbours_find_what_was_put_after_a_clear_and_deleted_since() {
    let db = with(&[1]);
    let before = db.snapshot().expect("snapshot");
    db.clear().expect("clear");
    db.set(7, b"").expect("set");
    let between = db.snapshot().expect("snapshot");
    db.delete(7).expect("delete");
    drop(before);
    db.set(9, b"").expect("set");
    assert_eq!(between.first().expect("first"), 7);
    assert_eq!(between.last().expect("last"), 7);
    assert_eq!(ids(between.scan(0, 99, UP).expect("scan")), [7]);
    let other = db.snapshot().expect("snapshot");
    db.clear().expect("clear");
    drop(between);
    db.set(8, b"").expect("set");
    assert_eq!(other.first().expect("first"), 9);
}

/// The same commits everywhere, with reopenings: closed or killed, before and after a commit.
#[test]
fn transactions_wherever_a_database_can_be() {
    for sync in [Sync::Os, Sync::Commit] {
        for lookup in [LookupKind::Memory, LookupKind::Disk] {
            for file_size in [1, 500, 0] {
                let directory = TempDirectory::new();
                let options = Options {
                    sync,
                    lookup,
                    file_size,
                    ..Options::default()
                };
                let name = format!("{options:?}");
                let mut expected = Vec::new();
                for round in 0..4u8 {
                    let db = Db::open(directory.path(), &options).expect("open");
                    let mut txn = db.begin().expect("begin");
                    for number in 0..5 {
                        let value = vec![round; 100 * number];
                        expected.push((txn.insert(&value).expect("insert"), value));
                    }
                    let (id, value) = &mut expected[0];
                    *value = vec![0xee; usize::from(round)];
                    txn.set(*id, value).expect("set");
                    txn.commit().expect("commit");
                    let mut lost = db.begin().expect("begin");
                    lost.insert(b"never committed").expect("insert");
                    lost.delete(*id).expect("delete");
                    drop(lost);
                    if round % 2 == 0 {
                        db.close().expect("close");
                    }
                }
                let options = Options {
                    read_only: true,
                    ..options
                };
                let db = Db::open(directory.path(), &options).expect("open");
                assert_eq!(db.last_commit().expect("last_commit"), 4, "{name}");
                assert!(matches!(db.begin(), Err(Error::ReadOnly { .. })), "{name}");
                let snapshot = db.snapshot().expect("snapshot");
                let mut scan = snapshot.scan(0, u32::MAX, UP).expect("scan");
                for (id, value) in &expected {
                    let record = scan.next().expect("next").expect("a record");
                    assert_eq!((record.id, record.value), (*id, &value[..]), "{name}");
                }
                assert!(scan.next().expect("next").is_none(), "{name}");
                for commit in 0..=4 {
                    let past = db.snapshot_at(commit).expect("snapshot_at");
                    assert_eq!(past.count().expect("count"), 5 * commit, "{name}");
                }
            }
        }
    }
}

#[test]
fn commits_that_do_not_exist_have_no_snapshot() {
    let db = with(&[1, 2]);
    assert_eq!(
        db.snapshot_at(0)
            .expect("snapshot_at")
            .count()
            .expect("count"),
        0
    );
    assert_eq!(db.snapshot_at(2).expect("snapshot_at").at(), 2);
    let told = db.snapshot_at(3).map(|_| ());
    assert!(
        matches!(
            told,
            Err(Error::NotFound(NotFound::Commit {
                commit: 3,
                oldest: 0,
                last: 2
            }))
        ),
        "{told:?}"
    );
}

#[test]
fn a_poisoned_handle_commits_nothing() {
    let storage = SimStorage::new(Disk::new(), true, 1);
    let options = Options {
        key_value: true,
        native: true,
        record_nr_max: 1000,
        sync: Sync::Commit,
        ..Options::default()
    };
    let db = Db::open_on(Arc::new(storage.clone()), &options).expect("open");
    db.set(1, b"1").expect("set");
    let (mut one, mut two) = (db.begin().expect("begin"), db.begin().expect("begin"));
    one.set(2, b"2").expect("set");
    two.set(3, b"3").expect("set");
    let reading = db.begin().expect("begin");
    assert_eq!(reading.get(1).expect("get"), b"1");
    storage.fail(Some(Fault {
        calls: Calls::Syncing,
        after: storage.calls(Calls::Syncing),
        errno: Errno::Io,
        sticky: false,
        partly: false,
        pages: Pages::Clean,
    }));
    assert!(matches!(one.commit(), Err(Error::Io { .. })));
    assert!(matches!(two.set(4, b""), Err(Error::Poisoned { .. })));
    assert!(matches!(two.commit(), Err(Error::Poisoned { .. })));
    assert!(matches!(db.begin(), Err(Error::Poisoned { .. })));
    // What is read goes on, and nobody sees what may not be on disk.
    assert_eq!(reading.get(1).expect("get"), b"1");
    let snapshot = db.snapshot().expect("snapshot");
    assert_eq!(ids(snapshot.scan(0, 99, UP).expect("scan")), [1]);
}

#[test]
fn transactions_on_what_herolib_left() {
    let directory = TempDirectory::new();
    let mut herolib =
        Herolib::open(directory.path(), Settings::DEFAULT, Port::Go).expect("herolib");
    for value in [&b"one"[..], b"two", b"three"] {
        herolib.insert(value);
    }
    herolib.close();
    let db = Db::open(directory.path(), &Options::default()).expect("open");
    let before = db.snapshot().expect("snapshot");
    let first = before.first().expect("first");
    let reader = db.begin().expect("begin");
    assert_eq!(reader.get(first).expect("get"), b"one");
    let mut txn = db.begin().expect("begin");
    txn.set(first, b"new").expect("set");
    let fourth = txn.insert(b"four").expect("insert");
    txn.delete(first + 1).expect("delete");
    assert!(!conflicts(txn));
    assert!(conflicts(reader));
    let expected = [(&before, vec![first, first + 1, first + 2])];
    let after = db.snapshot().expect("snapshot");
    let past = db.snapshot_at(0).expect("snapshot_at");
    let present = vec![first, first + 2, fourth];
    for (snapshot, expected) in expected.into_iter().chain([
        (&past, vec![first, first + 1, first + 2]),
        (&after, present),
    ]) {
        assert_eq!(snapshot.count().expect("count"), 3);
        assert_eq!(ids(snapshot.scan(0, u32::MAX, UP).expect("scan")), expected);
    }
    assert_eq!(past.get(first).expect("get"), b"one");
    assert_eq!(after.get(first).expect("get"), b"new");
    let reader = db.begin().expect("begin");
    assert_eq!(reader.count().expect("count"), 3);
    db.clear().expect("clear");
    assert!(conflicts(reader));
    assert_eq!(past.get(first + 1).expect("get"), b"two");
}

#[test]
fn a_transaction_of_a_million_records() {
    const COUNT: u32 = 1_000_000;
    let db = memory(false);
    let mut txn = db.begin().expect("begin");
    for number in 0..COUNT {
        assert_eq!(
            txn.insert(&number.to_le_bytes()).expect("insert"),
            number + 1
        );
    }
    assert_eq!(txn.count().expect("count"), u64::from(COUNT));
    assert!(!conflicts(txn));
    assert_eq!(db.count().expect("count"), u64::from(COUNT));
    assert_eq!(db.last_commit().expect("last_commit"), 1);
    // All of it read, by its end changed.
    let reader = db.begin().expect("begin");
    let mut scan = reader.scan(0, u32::MAX, UP).expect("scan");
    let mut count = 0u32;
    while let Some(record) = scan.next().expect("next") {
        assert_eq!(record.value, count.to_le_bytes().as_slice());
        count += 1;
    }
    assert_eq!(count, COUNT);
    db.set(COUNT, b"").expect("set");
    assert!(conflicts(reader));
}

/// A queue: who takes the first record, or the last, until there is none, and counts what is left, doesn't
/// go over what was taken before. If each step did, this would take hours.
#[test]
fn taking_one_record_after_the_other_costs_the_same_for_each() {
    const COUNT: u32 = 300_000;
    let ids: Vec<u32> = (0..COUNT).map(|number| number * 2).collect();
    let db = with(&ids);
    let mut txn = db.begin().expect("begin");
    // Half of them are its own.
    for number in 0..COUNT {
        txn.set(number * 2 + 1, b"own").expect("set");
    }
    let (mut low, mut high) = (0, 2 * COUNT - 1);
    while low < high {
        for id in [low, high] {
            let (first, last) = (txn.first().expect("first"), txn.last().expect("last"));
            assert!(id == first || id == last, "{id}, and {first} to {last}");
            assert_eq!(txn.count().expect("count"), u64::from(last - first + 1));
            txn.delete(id).expect("delete");
            if id % 1000 == 0 {
                // It is put back, and taken again.
                txn.set(id, b"again").expect("set");
                assert_eq!(txn.count().expect("count"), u64::from(last - first + 1));
                let found = if id == low { txn.first() } else { txn.last() };
                assert_eq!(found.expect("a neighbour"), id);
                txn.delete(id).expect("delete");
            }
        }
        low += 1;
        high -= 1;
        assert_eq!(txn.above(0).ok(), (low < high).then_some(low));
        assert_eq!(txn.below(u32::MAX).ok(), (low < high).then_some(high));
    }
    assert!(txn.first().is_err() && txn.last().is_err());
    assert!(!conflicts(txn));
    assert_eq!(db.count().expect("count"), 0);
}

/// The same in the present, beside a snapshot that sees all of them still.
#[test]
fn taking_one_record_after_the_other_beside_a_snapshot_costs_the_same_for_each() {
    const COUNT: u32 = 300_000;
    let all: Vec<u32> = (0..COUNT).map(|number| number * 2).collect();
    let db = with(&all);
    let before = db.snapshot().expect("snapshot");
    for &id in &all {
        assert_eq!(db.first().expect("first"), id);
        db.delete(id).expect("delete");
        if id % 1000 == 0 {
            // It is put back, and taken again.
            db.set(id, b"again").expect("set");
            assert_eq!(db.first().expect("first"), id);
            db.delete(id).expect("delete");
        }
    }
    assert!(db.first().is_err() && db.last().is_err());
    assert_eq!(before.count().expect("count"), u64::from(COUNT));
    assert_eq!(ids(before.scan(0, u32::MAX, UP).expect("scan")), all);

    // By a transaction each.
    db.set_many(&all.iter().map(|&id| (id, &b"more"[..])).collect::<Vec<_>>())
        .expect("set_many");
    for &id in &all {
        let mut txn = db.begin().expect("begin");
        assert_eq!(txn.first().expect("first"), id);
        txn.delete(id).expect("delete");
        assert!(!conflicts(txn));
    }

    // And by one commit, beside another one.
    let records: Vec<(u32, &[u8])> = all.iter().map(|&id| (id + 1, &b"two"[..])).collect();
    db.set_many(&records).expect("set_many");
    let between = db.snapshot().expect("snapshot");
    db.clear().expect("clear");
    for id in [7, 70, 700] {
        db.set(id, b"after").expect("set");
    }
    for _ in 0..COUNT {
        assert_eq!(db.first().expect("first"), 7);
        assert_eq!(db.above(7).expect("above"), 70);
        assert_eq!(db.last().expect("last"), 700);
    }
    let odd: Vec<u32> = all.iter().map(|id| id + 1).collect();
    assert_eq!(ids(between.scan(0, u32::MAX, UP).expect("scan")), odd);
    assert_eq!(ids(before.scan(0, u32::MAX, UP).expect("scan")), all);
    drop((before, between));
    db.delete(70).expect("delete");
    assert_eq!(ids(db.scan(0, u32::MAX, UP).expect("scan")), [7, 700]);
}

#[test]
fn interleaved_transactions_answer_as_the_model() {
    for seed in 1_000_000..1_000_040 {
        let run = Interleaved::new(seed).and_then(|mut run| run.run(150));
        run.unwrap_or_else(|message| panic!("seed {seed}: {message}"));
    }
}
