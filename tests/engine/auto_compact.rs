//! Compaction in the background: when it comes, what it keeps, and that nobody has to wait for it.

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::support::TempDirectory;
use crate::support::sim::{Disk, SimStorage};
use ourdb::{Db, Error, Options, Retention, Stats};

/// So long it may take at most until something is seen to happen.
const PATIENCE: Duration = Duration::from_secs(60);
/// In this time the thread looks a few times.
const A_WHILE: Duration = Duration::from_millis(900);

fn options() -> Options {
    Options {
        key_value: true,
        native: true,
        record_nr_max: 100_000,
        auto_compact_percent: 50,
        ..Options::default()
    }
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "it never comes about: {what}");
        sleep(Duration::from_millis(10));
    }
}

fn value(id: u32, round: u64) -> Vec<u8> {
    [u64::from(id), round]
        .map(u64::to_le_bytes)
        .concat()
        .repeat(60)
}

/// Writes 100 records `rounds` times, some 100 KB each time.
fn write(db: &Db, rounds: u64) {
    for round in 0..rounds {
        for id in 0..100 {
            db.set(id, &value(id, round)).expect("a set");
        }
    }
}

fn check(db: &Db, round: u64) {
    for id in 0..100 {
        assert_eq!(db.get(id).ok(), Some(value(id, round)), "id {id}");
    }
    let report = db.check(|_, _| ControlFlow::Continue(())).expect("a check");
    assert!(report.is_sound(), "{report}");
}

fn stats(db: &Db) -> Stats {
    db.stats().expect("figures")
}

/// Each compaction makes data files with new numbers.
fn data_files(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("a directory");
    let names = entries.map(|entry| entry.expect("an entry").file_name());
    let names = names.map(|name| name.into_string().expect("a name"));
    let mut names: Vec<_> = names.filter(|name| name.ends_with(".db")).collect();
    names.sort();
    names
}

#[test]
fn it_comes_once_half_is_dead_and_keeps_what_is_asked() {
    for (memory, keep) in [(false, 0), (false, 3), (true, 1)] {
        let directory = TempDirectory::new();
        let options = Options {
            memory,
            auto_keep_versions: keep,
            ..options()
        };
        let db = Db::open(directory.path(), &options).expect("it opens");
        write(&db, 20);
        let all = 20 * 100_000;
        let left = (keep.max(1) + 1) * 100_000;
        assert!(stats(&db).versions <= 2000);
        wait_until("a compaction", || stats(&db).bytes_on_disk < left);
        assert!(stats(&db).bytes_on_disk < all);
        assert_eq!(stats(&db).versions, 100 * keep.max(1));
        for id in 0..100 {
            let history = db.history(id, 0).expect("a history");
            assert_eq!(history.len() as u64, keep.max(1), "id {id}");
        }
        check(&db, 19);
        db.close().expect("a close");
        if !memory {
            let db = Db::open(directory.path(), &Options::default()).expect("it opens again");
            check(&db, 19);
        }
    }
}

/// What the last compaction had to leave does not call for the next one, here and after an opening.
#[test]
fn it_does_not_come_where_there_is_nothing_to_gain() {
    let directory = TempDirectory::new();
    let options = Options {
        auto_keep_versions: 10,
        ..options()
    };
    let db = Db::open(directory.path(), &options).expect("it opens");
    write(&db, 20);
    wait_until("a compaction", || stats(&db).versions == 1000);
    // A tenth of what there is, in a data file of its own.
    write(&db, 1);
    wait_until("the old files to go", || {
        data_files(directory.path()).len() as u64 == stats(&db).data_files
    });
    let names = data_files(directory.path());
    sleep(A_WHILE);
    assert_eq!(data_files(directory.path()), names);
    db.close().expect("a close");
    let db = Db::open(directory.path(), &options).expect("it opens again");
    sleep(A_WHILE);
    assert_eq!(data_files(directory.path()), names);
    write(&db, 20);
    wait_until("the next one", || stats(&db).versions == 1000);
    check(&db, 19);
}

/// Deletions are all that is left where everything was deleted, and a compaction keeps them.
#[test]
fn it_does_not_come_for_deletions_that_it_has_to_keep() {
    let directory = TempDirectory::new();
    let options = Options {
        auto_keep_versions: 1,
        ..options()
    };
    let db = Db::open(directory.path(), &options).expect("it opens");
    let ids: Vec<u32> = (0..20_000).collect();
    let records: Vec<(u32, &[u8])> = ids.iter().map(|&id| (id, &[0; 50][..])).collect();
    db.set_many(&records).expect("a set of all");
    db.delete_many(&ids).expect("a deletion of all");
    wait_until("a compaction", || stats(&db).versions == 20_000);
    db.close().expect("a close");
    let names = data_files(directory.path());
    for _ in 0..2 {
        let db = Db::open(directory.path(), &options).expect("it opens again");
        sleep(A_WHILE);
        assert_eq!(data_files(directory.path()), names);
        db.close().expect("a close");
    }
}

/// What is dead by the end of a compaction because it was written to meanwhile, that one didn't leave on
/// purpose.
#[test]
fn it_comes_for_what_was_written_during_the_one_before() {
    let directory = TempDirectory::new();
    let db = Db::open(directory.path(), &options()).expect("it opens");
    write(&db, 10);
    wait_until("the first one", || stats(&db).versions == 100);
    let mut written = false;
    // That one may just be removing what it has replaced.
    wait_until("a turn", || {
        let compacted = db.compact(&Retention::default(), |_, _| {
            if !std::mem::replace(&mut written, true) {
                write(&db, 20);
            }
            ControlFlow::Continue(())
        });
        match compacted {
            Err(Error::Busy { .. }) => false,
            done => done.map(|()| true).expect("a compaction"),
        }
    });
    wait_until("the next one", || stats(&db).versions == 100);
    check(&db, 19);
}

#[test]
fn it_does_not_come_to_few_bytes_nor_where_nobody_asked() {
    for (rounds, percent, read_only) in [(2, 1, false), (20, 0, false), (20, 50, true)] {
        let directory = TempDirectory::new();
        let off = Options {
            auto_compact_percent: 0,
            ..options()
        };
        let db = Db::open(directory.path(), &off).expect("it opens");
        write(&db, rounds);
        db.close().expect("a close");
        let options = Options {
            auto_compact_percent: percent,
            read_only,
            ..options()
        };
        let db = Db::open(directory.path(), &options).expect("it opens again");
        sleep(A_WHILE);
        assert_eq!(
            stats(&db).versions,
            100 * rounds,
            "{rounds} {percent} {read_only}"
        );
        check(&db, rounds - 1);
    }
}

/// A close in the midst of it doesn't wait for its end, and nothing is left behind.
#[test]
fn a_close_cancels_it() {
    let directory = TempDirectory::new();
    let options = Options {
        file_size: 4 << 20,
        ..options()
    };
    let everything = vec![7; 60_000];
    for destroyed in [false, true] {
        let db = Db::open(directory.path(), &options).expect("it opens");
        for id in 0..3000 {
            db.set(id % 1200, &everything).expect("a set");
        }
        let rounds = Retention {
            keep_versions: u64::MAX,
            ..Retention::default()
        };
        wait_until("a compaction at work", || {
            // Cancelled at once, if it may begin at all.
            let tried = db.compact(&rounds, |_, _| ControlFlow::Break(()));
            matches!(tried, Err(Error::Busy { .. }))
        });
        let before = data_files(directory.path());
        if destroyed {
            db.destroy().expect("it is removed");
            assert!(!directory.path().join("MANIFEST").exists());
            break;
        }
        db.close().expect("a close");
        let after = data_files(directory.path());
        assert!(
            after.iter().all(|name| before.contains(name)),
            "{before:?} {after:?}"
        );
        for leftover in ["index.next", "lookup.next"] {
            assert!(!directory.path().join(leftover).exists(), "{leftover}");
        }
        let reopened = Options {
            auto_compact_percent: 0,
            ..options.clone()
        };
        let db = Db::open(directory.path(), &reopened).expect("it opens again");
        assert_eq!(stats(&db).versions, 3000, "it was cancelled");
        assert_eq!(data_files(directory.path()), after);
        db.close().expect("a close");
    }
}

/// No room for it: everything goes on, and once there is room it comes.
#[test]
fn a_full_disk_puts_it_off() {
    let storage = SimStorage::new(Disk::new(), true, 1);
    let db = Db::open_on(Arc::new(storage.clone()), &options()).expect("it opens");
    // Half of it is live: the copy needs room.
    for id in 0..400 {
        db.set(id % 200, &value(id % 200, 1)).expect("a set");
    }
    storage.limit(Some(storage.disk().used() + 20_000));
    for id in 0..10 {
        db.set(id, b"").expect("a small set");
    }
    let hits = storage.hit_count();
    wait_until("a compaction that fails", || storage.hit_count() > hits);
    sleep(A_WHILE);
    db.set(7, b"the handle goes on").expect("a set");
    assert_eq!(stats(&db).versions, 411);
    storage.limit(None);
    wait_until("one that succeeds", || stats(&db).versions == 200);
    assert_eq!(db.get(7).ok().as_deref(), Some(&b"the handle goes on"[..]));
    assert_eq!(db.get(11).ok(), Some(value(11, 1)));
    db.close().expect("a close");
    let db = Db::open_on(Arc::new(storage), &Options::default()).expect("it opens again");
    assert_eq!(db.get(11).ok(), Some(value(11, 1)));
}

/// It comes beside writers again and again, and loses nothing.
#[test]
fn it_comes_beside_writers() {
    let directory = TempDirectory::new();
    let options = Options {
        auto_compact_percent: 20,
        file_size: 100_000,
        ..options()
    };
    let db = Db::open(directory.path(), &options).expect("it opens");
    let mut rounds = 0;
    let mut seen = Vec::new();
    wait_until("three compactions", || {
        write(&db, 3);
        rounds += 3;
        let oldest = stats(&db).oldest_commit;
        if seen.last() != Some(&oldest) {
            seen.push(oldest);
        }
        seen.len() > 3
    });
    assert_eq!(stats(&db).last_commit, rounds * 100);
    check(&db, 2);
    db.close().expect("a close");
    let db = Db::open(directory.path(), &Options::default()).expect("it opens again");
    check(&db, 2);
}
