//! Handles that are open for reading follow a writer.

use std::ops::ControlFlow;
use std::sync::Arc;

use crate::support::TempDirectory;
use crate::support::herolib::{Herolib, Port, Settings};
use crate::support::sim::{Calls, Disk, Errno, Fault, Pages, SimStorage};
use ourdb::storage::memory::MemoryStorage;
use ourdb::storage::{Access, Storage};
use ourdb::{Db, Error, IoMode, Options, Order, Retention, State, Sync};

fn read_only() -> Options {
    Options {
        read_only: true,
        ..Options::default()
    }
}

/// After so many of such calls more, all fail.
fn stop(storage: &SimStorage, calls: Calls, after: usize) {
    storage.fail(Some(Fault {
        calls,
        after: storage.calls(calls) + after,
        errno: Errno::Io,
        sticky: true,
        partly: false,
        pages: Pages::Dirty,
    }));
}

/// The writer stands still after any of an erasure's writes: a reader, of whom it knows nothing, finds
/// what was there before, or nothing, and no damage.
#[test]
fn a_record_that_is_being_erased_is_found_or_not_found() {
    let options = Options {
        key_value: true,
        record_size_max: 200_000,
        ..Options::default()
    };
    // Zeros come in pieces.
    let versions = [vec![1; 150_000], vec![2; 100], vec![3; 200_000]];
    let (mut found, mut gone) = (0, 0);
    for after in 0.. {
        let storage = SimStorage::new(Disk::new(), true, 1);
        let db = Db::open_on(Arc::new(storage.clone()), &options).expect("a new database");
        for value in &versions {
            db.set(1, value).expect("a set");
        }
        let reader = Db::open_on(Arc::new(storage.clone()), &read_only()).expect("a reader");
        let before = reader.snapshot().expect("a snapshot");
        stop(&storage, Calls::Changing, after);
        let erased = db.erase(1);
        storage.fail(None);
        let mut is_found = None;
        for value in [
            reader.get(1),
            before.get(1),
            reader.get_version(1, 3),
            reader
                .get_many(&[1])
                .map(|them| them.get(0).unwrap().value.to_vec()),
        ] {
            let value = match value {
                Err(Error::NotFound(_)) => None,
                value => Some(value.unwrap_or_else(|error| panic!("{after} writes: {error}"))),
            };
            let value = value.filter(|value| !value.is_empty());
            assert!(value.as_ref().is_none_or(|value| *value == versions[2]));
            assert_eq!(*is_found.get_or_insert(value.is_some()), value.is_some());
        }
        let mut scan = reader.scan(0, 9, Order::default()).expect("a scan");
        let scanned = scan.next_many(9).map_or(0, |records| records.len());
        assert_eq!(is_found, Some(scanned == 1), "{after} writes");
        let history = reader.history(1, 0).expect("a history");
        for (record, value) in history.iter().zip(versions.iter().rev()) {
            match record.state {
                State::Live => assert_eq!(record.value, value),
                state => assert_eq!((state, record.value), (State::Erased, &[][..])),
            }
        }
        match is_found {
            Some(true) => found += 1,
            _ => gone += 1,
        }
        if erased.is_ok() {
            break;
        }
    }
    assert!(
        found > 3 && gone > 3,
        "found {found} times, not found {gone} times"
    );
}

/// Nor does a scan give out what it has read ahead and is erased by then.
#[test]
fn a_scan_does_not_hand_out_what_was_erased_since_it_was_read_ahead() {
    let options = Options {
        key_value: true,
        ..Options::default()
    };
    let storage = SimStorage::new(Disk::new(), true, 1);
    let db = Db::open_on(Arc::new(storage.clone()), &options).expect("a new database");
    (0..64).for_each(|id| db.set(id, &[id as u8; 100]).expect("a set"));
    let reader = Db::open_on(Arc::new(storage), &read_only()).expect("a reader");
    let snapshot = reader.snapshot().expect("a snapshot");
    let all = Order::default();
    let mut scans = [
        reader.scan(0, 99, all).expect("a scan"),
        snapshot.scan(0, 99, all).expect("a scan"),
        snapshot.scan(0, 99, all).expect("a scan"),
    ];
    for scan in &mut scans {
        for id in 0..4 {
            assert_eq!(scan.next().expect("a record").map(|it| it.id), Some(id));
        }
    }
    // All are read ahead by now, 7 and those behind it are not.
    let erased = [4, 6, 7, 20];
    erased
        .iter()
        .for_each(|&id| db.erase(id).expect("an erasure"));
    let expected: Vec<u32> = (4..64).filter(|id| !erased.contains(id)).collect();
    for (way, scan) in scans.iter_mut().enumerate() {
        let mut ids = Vec::new();
        if way == 2 {
            let records = scan.next_many(99).expect("records");
            ids.extend(records.iter().map(|it| it.id));
        }
        while let Some(record) = scan.next().expect("a record") {
            assert_eq!(record.value, [record.id as u8; 100]);
            ids.push(record.id);
        }
        assert_eq!(ids, expected, "way {way}");
    }
}

/// What was read ahead and can't be read any more is in the way of what comes behind it alone.
#[test]
fn a_scan_hands_out_what_comes_before_damage() {
    let options = Options {
        key_value: true,
        native: true,
        ..Options::default()
    };
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    let db = Db::open_on(Arc::clone(&storage), &options).expect("a new database");
    (0..64).for_each(|id| db.set(id, &[id as u8; 100]).expect("a set"));
    let reader = Db::open_on(Arc::clone(&storage), &read_only()).expect("a reader");
    let mut scan = reader.scan(0, 99, Order::default()).expect("a scan");
    (0..4).for_each(|_| assert!(scan.next().expect("a record").is_some()));
    let file = storage.open("0.db", Access::Write).expect("a data file");
    file.write_at(64 + 6 * 140 + 12, &[&[0xff]])
        .expect("a write into the head of 6");
    let before = scan.next_many(99).expect("those before it");
    let ids: Vec<u32> = before.iter().map(|it| it.id).collect();
    assert_eq!(ids, [4, 5]);
    let damage = scan.next_many(99);
    assert!(matches!(damage, Err(Error::Corrupt { .. })), "{damage:?}");
}

/// A commit is appended while something else is overwritten: nobody waits for the end of both.
#[test]
fn half_a_commit_beside_an_erasure_is_the_end_of_the_log() {
    let options = Options {
        key_value: true,
        native: true,
        ..Options::default()
    };
    for after in 0.. {
        let storage = SimStorage::new(Disk::new(), true, 1);
        let db = Db::open_on(Arc::new(storage.clone()), &options).expect("a new database");
        (1..9).for_each(|id| db.set(id, b"a value").expect("a set"));
        let follower = Db::open_on(Arc::new(storage.clone()), &read_only()).expect("a reader");
        stop(&storage, Calls::Changing, after);
        db.erase(1).expect_err("it stands still");
        storage.fail(None);
        // As soon as there is a journal, and nothing is overwritten yet.
        let names = storage.list("").expect("names");
        if !names.iter().any(|name| name == "erasing") {
            continue;
        }
        let file = storage.open("0.db", Access::Write).expect("a data file");
        let mut bytes = vec![0; file.len().expect("a length") as usize];
        file.read_at(0, &mut bytes).expect("bytes");
        let end = bytes.iter().rposition(|&byte| byte != 0);
        file.write_at(end.expect("records") as u64 + 9, &[&[7; 20]])
            .expect("half a commit");
        let reader = Db::open_on(Arc::new(storage), &read_only()).expect("a reader");
        follower.refresh().expect("a refresh");
        for db in [&reader, &follower] {
            assert_eq!(db.last_commit().expect("a number"), 9);
            assert!((2..9).all(|id| db.get(id).is_ok()));
        }
        return;
    }
}

/// Another writer finishes an erasure that was interrupted before anything proved how long the log is, and
/// stands still after any of its writes: no reader takes the record that it overwrites for the log's end.
#[test]
fn a_log_does_not_end_where_an_interrupted_erasure_is_finished() {
    let options = |sync| Options {
        key_value: true,
        record_size_max: 200_000,
        sync,
        ..Options::default()
    };
    let mut refused = 0;
    for after in 0.. {
        let storage = SimStorage::new(Disk::new(), true, 1);
        let open = |options| Db::open_on(Arc::new(storage.clone()), &options);
        let db = open(options(Sync::Os)).expect("a new database");
        db.set(1, &[1; 150_000]).expect("a set");
        (2..9).for_each(|id| db.set(id, b"others").expect("a set"));
        stop(&storage, Calls::Syncing, 0);
        db.erase(1).expect_err("no sync");
        drop(db);
        stop(&storage, Calls::Changing, after);
        let finished = open(options(Sync::Commit));
        storage.fail(None);
        let is_finished = finished.is_ok();
        // As long as it stands still it has the lock.
        let lock = match &finished {
            Ok(_) => None,
            Err(_) => storage.lock("LOCK").expect("a lock"),
        };
        assert!(is_finished || lock.is_some());
        match open(read_only()) {
            Ok(reader) => {
                let there = (1..9).filter(|&id| reader.contains(id).expect("contains"));
                assert!(there.count() >= 7, "{after} writes");
            }
            Err(error) => {
                assert!(!is_finished, "{error}");
                refused += 1;
            }
        }
        if is_finished {
            break;
        }
    }
    assert!(refused > 0, "nobody read in the middle of it");
}

/// At whatever call a refresh fails, the next one goes on from where the last whole one came to.
#[test]
fn a_refresh_that_failed_is_made_up_for() {
    let options = Options {
        key_value: true,
        file_size: 1000,
        ..Options::default()
    };
    let mut after = 0;
    loop {
        let storage = SimStorage::new(Disk::new(), true, 1);
        let db = Db::open_on(Arc::new(storage.clone()), &options).expect("a new database");
        db.set(1, b"one").expect("a set");
        let reader = Db::open_on(Arc::new(storage.clone()), &read_only()).expect("a reader");
        let write = |byte: u8| {
            (0..30).for_each(|id| db.set(id, &[byte; 100]).expect("a set"));
        };
        write(1);
        storage.fail(Some(Fault {
            calls: Calls::Reading,
            after: storage.calls(Calls::Reading) + after,
            errno: Errno::Io,
            sticky: true,
            partly: false,
            pages: Pages::Dirty,
        }));
        let failed = reader.refresh().is_err();
        storage.fail(None);
        for (byte, commits) in [(1, 31), (2, 61)] {
            reader.refresh().expect("a refresh");
            let read = (reader.last_commit().unwrap(), reader.get(29).unwrap());
            assert_eq!(read, (commits, vec![byte; 100]), "call {after} failed");
            write(2);
        }
        if !failed {
            break;
        }
        after += 1;
    }
    assert!(after > 10, "only {after} calls can fail");
}

/// Ids that a transaction has taken are given out, and the limit of ids may grow.
#[test]
fn the_next_id_of_a_reader_is_that_of_one_that_opens_now() {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    let limited = |record_nr_max| Options {
        record_nr_max,
        ..Options::default()
    };
    let db = Db::open_on(Arc::clone(&storage), &limited(5)).unwrap();
    for _ in 0..4 {
        db.insert(b"a record").unwrap();
    }
    let reader = Db::open_on(Arc::clone(&storage), &read_only()).unwrap();
    assert!(reader.next_id().is_err());
    db.close().unwrap();

    let db = Db::open_on(Arc::clone(&storage), &limited(100)).unwrap();
    reader.refresh().unwrap();
    assert_eq!(reader.next_id().unwrap(), 5);
    let mut txn = db.begin().unwrap();
    txn.insert(b"never committed").unwrap();
    drop(txn);
    db.close().unwrap();
    reader.refresh().unwrap();
    let fresh = Db::open_on(storage, &read_only()).unwrap();
    for reader in [&fresh, &reader] {
        assert_eq!(reader.next_id().unwrap(), 6);
        assert_eq!(reader.stats().unwrap().next_id, 6);
    }
}

/// Until a writer takes it over, nothing on disk tells a directory of herolib's from another one.
#[test]
fn a_reader_of_a_herolib_directory_follows_who_takes_it_over() {
    let directory = TempDirectory::new();
    let path = directory.path();
    let mut herolib = Herolib::open(path, Settings::DEFAULT, Port::V).unwrap();
    herolib.insert(b"one");
    herolib.insert(b"two");
    herolib.close();
    let reader = Db::open(path, &read_only()).unwrap();
    reader.refresh().unwrap();
    assert_eq!(reader.get(1).unwrap(), b"one");

    let mut herolib = Herolib::open(path, Settings::DEFAULT, Port::V).unwrap();
    herolib.insert(b"three");
    herolib.close();
    reader.refresh().unwrap();
    assert_eq!(reader.get(3).unwrap(), b"three");

    let db = Db::open(path, &Options::default()).unwrap();
    db.set(1, b"new").unwrap();
    reader.refresh().unwrap();
    assert_eq!(reader.get(1).unwrap(), b"new");
    db.set(2, b"newer").unwrap();
    reader.refresh().unwrap();
    assert_eq!(reader.get(2).unwrap(), b"newer");

    // From here on it is one of ours, and another one is noticed.
    db.close().unwrap();
    let again = Options {
        reset: true,
        ..Options::default()
    };
    drop(Db::open(path, &again).unwrap());
    assert!(reader.refresh().is_err());
}

/// One that can't map its files opens those again that it doesn't hold open, by their numbers. These are used
/// again where a compaction has left no data file and the database is opened anew.
#[test]
fn a_reader_that_is_behind_reads_no_files_of_the_same_numbers() {
    const COUNT: u32 = 200;
    let directory = TempDirectory::new();
    let options = Options {
        key_value: true,
        file_size: 1,
        io: IoMode::File,
        ..Options::default()
    };
    let fill = |value: &[u8]| {
        let db = Db::open(directory.path(), &options).expect("it opens");
        (0..COUNT).for_each(|id| db.set(id, value).expect("a set"));
        db
    };
    let writer = fill(b"old");
    let options_of_reader = Options {
        read_only: true,
        ..options.clone()
    };
    let reader = Db::open(directory.path(), &options_of_reader).expect("a reader");
    writer.clear().expect("a clear");
    let nothing = Retention {
        keep_versions: 0,
        ..Retention::default()
    };
    let compacted = writer.compact(&nothing, |_, _| ControlFlow::Continue(()));
    compacted.expect("a compaction");
    writer.close().expect("a close");
    let writer = fill(b"new");
    let mut gone = 0;
    for id in 0..COUNT {
        match reader.get(id) {
            Ok(value) => assert_eq!(value, b"old", "id {id}"),
            Err(Error::Incompatible(_)) => gone += 1,
            Err(error) => panic!("id {id}: {error}"),
        }
    }
    assert!(gone > 0, "all files were open");
    reader.refresh().expect("a refresh");
    assert_eq!(reader.get(COUNT - 1).expect("a value"), b"new");
    drop(writer);
}

/// What the writer has reserved behind the end of its log is not read each time.
#[test]
fn a_refresh_reads_what_is_new() {
    let storage = SimStorage::new(Disk::new(), true, 1);
    let options = Options {
        key_value: true,
        ..Options::default()
    };
    let writer = Db::open_on(Arc::new(storage.clone()), &options).expect("a new database");
    for id in 0..100 {
        writer.set(id, &[7; 60_000]).expect("a set");
    }
    let reader = Db::open_on(Arc::new(storage.clone()), &read_only()).expect("a reader");
    for id in 100..103 {
        writer.set(id, b"new").expect("a set");
        for _ in 0..2 {
            let before = storage.calls(Calls::Reading);
            reader.refresh().expect("a refresh");
            let calls = storage.calls(Calls::Reading) - before;
            assert!(calls < 15, "{calls} calls");
            assert_eq!(reader.get(id).expect("a value"), b"new");
        }
    }
}

/// Another database in its place is no damage.
#[test]
fn a_reader_whose_database_was_made_anew_is_told_so() {
    let directory = TempDirectory::new();
    let options = Options {
        key_value: true,
        ..Options::default()
    };
    let fill = |value: &[u8]| {
        let db = Db::open(directory.path(), &options).expect("it opens");
        (0..9).for_each(|id| db.set(id, value).expect("a set"));
        db
    };
    drop(fill(b"old"));
    let reader = Db::open(directory.path(), &read_only()).expect("a reader");
    let again = Options {
        reset: true,
        ..options.clone()
    };
    drop(Db::open(directory.path(), &again).expect("it is made anew"));
    let _other = fill(b"new");
    let checked = reader.check(|_, _| ControlFlow::Continue(()));
    assert!(matches!(checked, Err(Error::Busy { .. })), "{checked:?}");
    let changes = reader.changes(0, usize::MAX);
    assert!(matches!(changes, Err(Error::Busy { .. })), "{changes:?}");
    let refreshed = reader.refresh();
    assert!(
        matches!(refreshed, Err(Error::Incompatible(_))),
        "{refreshed:?}"
    );
}

/// The files of the moment that it looks at go with a compaction, and the handle to another moment.
#[test]
fn a_check_of_a_handle_that_is_refreshed_finds_no_damage() {
    for io in [IoMode::Map, IoMode::File] {
        let directory = TempDirectory::new();
        let options = Options {
            key_value: true,
            file_size: 1 << 20,
            record_size_max: 1 << 20,
            ..Options::default()
        };
        let db = Db::open(directory.path(), &options).expect("it opens");
        (0..30).for_each(|id| db.set(id, &[7; 500_000]).expect("a set"));
        let go_on = |_, _| ControlFlow::Continue(());
        db.compact(&Retention::default(), go_on)
            .expect("a compaction");
        let reading = Options { io, ..read_only() };
        let reader = Db::open(directory.path(), &reading).expect("a reader");
        let mut calls = 0;
        let checked = reader.check(|_, _| {
            calls += 1;
            if calls == 2 {
                db.compact(&Retention::default(), go_on)
                    .expect("a compaction");
                reader.refresh().expect("a refresh");
            }
            ControlFlow::Continue(())
        });
        assert!(matches!(checked, Err(Error::Busy { .. })), "{checked:?}");
        let report = reader.check(go_on).expect("a check");
        assert!(report.is_sound(), "{report}");
    }
}

/// The directory is put back from a backup beneath a reader, and a writer goes on: there are other commits
/// of the same numbers then, in other files of the same names.
#[test]
fn a_database_that_was_set_back_is_not_followed() {
    let value = |text: &str, id: u32| format!("{text}{id:02}").into_bytes();
    for io in [IoMode::Map, IoMode::File] {
        // As many as were lost, or more, don't make it the same.
        for commits in [0, 5, 10, 25] {
            let directory = TempDirectory::new();
            let (path, backup) = (
                directory.path().join("here"),
                directory.path().join("backup"),
            );
            let options = Options {
                key_value: true,
                ..Options::default()
            };
            let set = |db: &Db, text, count| {
                (0..count).for_each(|id| db.set(id % 10, &value(text, id % 10)).expect("a set"));
            };
            let go_on = |_, _| ControlFlow::Continue(());
            let db = Db::open(&path, &options).expect("it opens");
            set(&db, "old", 10);
            db.backup(&backup, go_on).expect("a backup");
            set(&db, "lost", 10);
            let reader = Db::open(&path, &Options { io, ..read_only() }).expect("a reader");
            db.close().expect("a close");
            std::fs::remove_dir_all(&path).expect("it is removed");
            std::fs::rename(&backup, &path).expect("it is put back");
            let db = Db::open(&path, &options).expect("it opens");
            set(&db, "anew", commits);
            let what = format!("{commits} commits, {io:?}");
            let refreshed = reader.refresh();
            assert!(
                matches!(refreshed, Err(Error::Incompatible(_))),
                "{what}: {refreshed:?}"
            );
            assert_eq!(reader.last_commit().expect("a number"), 20, "{what}");
            assert_eq!(reader.get(3).expect("a value"), value("lost", 3), "{what}");
        }
    }
}

/// The directory is put back as it was for the reader, or a copy of it, and a writer goes on: whatever it does,
/// what the reader has seen is there still.
#[test]
fn a_database_that_was_put_back_to_what_a_reader_has_seen_is_followed() {
    let go_on = |_, _| ControlFlow::Continue(());
    for io in [IoMode::Map, IoMode::File] {
        for (seen, erases, compacts) in [
            (10, false, false),
            (10, true, false),
            (10, true, true),
            (0, true, false),
        ] {
            let directory = TempDirectory::new();
            let (path, copy) = (directory.path().join("here"), directory.path().join("copy"));
            let options = Options {
                key_value: true,
                ..Options::default()
            };
            let db = Db::open(&path, &options).expect("it opens");
            (0..seen).for_each(|id| db.set(id, b"old").expect("a set"));
            db.backup(&copy, go_on).expect("a backup");
            db.close().expect("a close");
            let reader = Db::open(&path, &Options { io, ..read_only() }).expect("a reader");
            std::fs::rename(&path, directory.path().join("away")).expect("it is moved");
            std::fs::rename(&copy, &path).expect("it is put back");
            let db = Db::open(&path, &options).expect("it opens");
            (0..25).for_each(|id| db.set(100 + id, b"anew").expect("a set"));
            if erases {
                // The last commit that the reader has seen.
                let id = if seen == 0 { 100 } else { seen - 1 };
                db.erase(id).expect("an erasure");
            }
            if compacts {
                db.compact(&Retention::default(), go_on)
                    .expect("a compaction");
                db.set(200, b"later").expect("a set");
            }
            let what = format!("{seen} seen, {erases}, {compacts}, {io:?}");
            reader.refresh().expect("a refresh");
            assert_eq!(
                reader.last_commit().expect("a number"),
                db.last_commit().expect("a number"),
                "{what}"
            );
            (0..300).for_each(|id| assert_eq!(reader.get(id).ok(), db.get(id).ok(), "{what}"));
            let report = reader.check(go_on).expect("a check");
            assert!(report.is_sound(), "{what}: {report}");
        }
    }
}

/// The directory is replaced by a copy of it, in which something is erased then: what the reader reads isn't
/// what its names lead to.
#[test]
fn what_is_erased_in_a_copy_is_no_damage_of_a_reader() {
    let go_on = |_, _| ControlFlow::Continue(());
    for io in [IoMode::Map, IoMode::File] {
        let directory = TempDirectory::new();
        let path = directory.path().join("here");
        let options = Options {
            key_value: true,
            ..Options::default()
        };
        let db = Db::open(&path, &options).expect("it opens");
        (0..5).for_each(|id| db.set(id, b"a value").expect("a set"));
        db.close().expect("a close");
        let reader = Db::open(&path, &Options { io, ..read_only() }).expect("a reader");
        let away = directory.path().join("away");
        std::fs::rename(&path, &away).expect("it is moved");
        std::fs::create_dir(&path).expect("a directory");
        for entry in std::fs::read_dir(&away).expect("files") {
            let entry = entry.expect("a file");
            if entry.file_type().expect("a kind").is_file() {
                std::fs::copy(entry.path(), path.join(entry.file_name())).expect("a copy");
            }
        }
        let writer = Db::open(&path, &options).expect("it opens");
        writer.erase(3).expect("an erasure");
        let checked = reader.check(go_on);
        assert!(
            matches!(checked, Err(Error::Busy { .. })),
            "{io:?}: {checked:?}"
        );
        assert_eq!(reader.get(3).expect("a value"), b"a value", "{io:?}");
        reader.refresh().expect("a refresh");
        assert!(!reader.contains(3).expect("contains"), "{io:?}");
        let report = reader.check(go_on).expect("a check");
        assert!(report.is_sound(), "{io:?}: {report}");
    }
}

/// A writer raises the limit of ids: whatever a reader was opened with, it goes along, and so does a backup
/// that it makes.
#[test]
fn a_reader_goes_with_a_limit_that_was_raised() {
    for opened_with in [0, 1000, 1500, 5000] {
        let (directory, target) = (TempDirectory::new(), TempDirectory::new());
        let limit = |record_nr_max| Options {
            record_nr_max,
            key_value: true,
            ..Options::default()
        };
        let db = Db::open(directory.path(), &limit(1000)).expect("a new database");
        db.set(1, b"one").expect("a set");
        let options = Options {
            record_nr_max: opened_with,
            ..read_only()
        };
        let reader = Db::open(directory.path(), &options).expect("a reader");
        db.close().expect("a close");
        let db = Db::open(directory.path(), &limit(2000)).expect("it opens again");
        db.set(1500, b"more").expect("a set");
        for _ in 0..2 {
            reader.refresh().expect("a refresh");
        }
        assert_eq!(reader.get(1500).expect("a value"), b"more", "{opened_with}");
        let go_on = |_, _| ControlFlow::Continue(());
        reader.backup(target.path(), go_on).expect("a backup");
        let backup = Db::open(target.path(), &read_only()).expect("it opens");
        assert_eq!(backup.get(1500).expect("a value"), b"more", "{opened_with}");
    }
}

/// What was erased is gone from what was opened before, also where a compaction has taken the record of the
/// erasure away.
#[test]
fn what_was_erased_before_a_compaction_is_not_counted() {
    let options = Options {
        key_value: true,
        ..Options::default()
    };
    for is_compacted in [false, true] {
        let storage = SimStorage::new(Disk::new(), true, 1);
        let db = Db::open_on(Arc::new(storage.clone()), &options).expect("a new database");
        (0..40).for_each(|id| db.set(id, &[id as u8; 100]).expect("a set"));
        let reader = Db::open_on(Arc::new(storage), &read_only()).expect("a reader");
        let snapshot = reader.snapshot().expect("a snapshot");
        let keys_only = Order {
            keys_only: true,
            ..Order::default()
        };
        let mut keys = snapshot.scan(0, 99, keys_only).expect("a scan");
        assert_eq!(keys.next().expect("an id").map(|it| it.id), Some(0));
        assert_eq!(snapshot.count().expect("a number"), 40);
        db.erase(3).expect("an erasure");
        if is_compacted {
            db.compact(&Retention::default(), |_, _| ControlFlow::Continue(()))
                .expect("a compaction");
        }
        reader.refresh().expect("a refresh");
        assert_eq!(snapshot.count().expect("a number"), 39, "{is_compacted}");
        let ids = std::iter::from_fn(|| keys.next().expect("an id").map(|it| it.id));
        assert_eq!(ids.filter(|&id| id == 3).count(), 0, "{is_compacted}");
    }
}
