//! Compaction: what it keeps, what it drops, and that nobody notices.

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::herolib::{Herolib, Port, Settings};
use crate::support::readers::{EndOnDrop, Place};
use crate::support::sim::{Calls, Disk, Errno, Fault, Pages, SimStorage};
use crate::support::{Random, TempDirectory};
use ourdb::storage::memory::MemoryStorage;
use ourdb::storage::{Access, Storage};
use ourdb::{Db, Error, IoMode, LookupKind, NotFound, Options, Retention, State};

fn open(storage: &Arc<MemoryStorage>, options: &Options) -> Db {
    Db::open_on(Arc::clone(storage) as Arc<dyn Storage>, options).expect("it opens")
}

fn compact(db: &Db, retention: Retention) {
    db.compact(&retention, |_, _| ControlFlow::Continue(()))
        .expect("a compaction");
    let report = db.check(|_, _| ControlFlow::Continue(())).expect("a check");
    assert!(report.is_sound(), "{report}");
}

type Versions = Vec<(u64, u64, Option<Vec<u8>>)>;

/// All versions of a record, newest first.
fn history(db: &Db, id: u32) -> Versions {
    let Ok(records) = db.history(id, 0) else {
        return Vec::new();
    };
    let version = |record: ourdb::Record<'_>| {
        let value = (record.state == State::Live).then(|| record.value.to_vec());
        (record.commit, record.time_us, value)
    };
    records.iter().map(version).collect()
}

fn keep(retention: &Retention, versions: &Versions) -> Versions {
    let keeps = |(index, (commit, time, value)): (usize, &(u64, u64, Option<Vec<u8>>))| {
        (index as u64) < retention.keep_versions
            || retention.keep_since_commit != 0 && *commit >= retention.keep_since_commit
            || retention.keep_since_us != 0 && *time >= retention.keep_since_us
            || index == 0 && value.is_some()
    };
    let kept = versions.iter().enumerate().filter(|&pair| keeps(pair));
    kept.map(|(_, version)| version.clone()).collect()
}

#[test]
fn what_the_rules_keep_is_kept_and_nothing_else() {
    for seed in 0..300 {
        let mut random = Random::new(seed);
        let storage = Arc::new(MemoryStorage::new());
        let options = Options {
            key_value: true,
            record_nr_max: 5000,
            file_size: 200 + random.below(4000) as u32,
            native: random.chance(50),
            ..Options::default()
        };
        let mut db = open(&storage, &options);
        for _ in 0..4 {
            for _ in 0..random.below(80) {
                let id = [random.below(12) as u32, 4000 + random.below(12) as u32]
                    [random.below(2) as usize];
                match random.below(20) {
                    0..4 => drop(db.delete(id)),
                    4 => db.clear().expect("a clear"),
                    5 => {
                        let values = [(id, &b"one"[..]), (id + 1, b"two"), (id + 2, b"three")];
                        db.set_many(&values).expect("sets");
                    }
                    _ => db
                        .set(id, &vec![seed as u8; random.below(300) as usize])
                        .expect("a set"),
                }
            }
            if random.chance(30) {
                drop(db);
                db = open(&storage, &options);
            }
            let last = db.last_commit().expect("a number");
            let retention = Retention {
                keep_versions: random.below(4),
                keep_since_us: 0,
                keep_since_commit: if random.chance(40) {
                    random.below(last + 2)
                } else {
                    0
                },
            };
            let before: Vec<_> = (0..5000).map(|id| history(&db, id)).collect();
            let snapshot = db.snapshot().expect("a snapshot");
            compact(&db, retention);
            let count = before
                .iter()
                .filter(|versions| matches!(versions.first(), Some((_, _, Some(_)))))
                .count();
            assert_eq!(db.count().expect("a count"), count as u64);
            assert_eq!(db.last_commit().expect("a number"), last);
            for round in 0..3 {
                for (id, versions) in before.iter().enumerate() {
                    let kept = keep(&retention, versions);
                    assert_eq!(
                        history(&db, id as u32),
                        kept,
                        "seed {seed} round {round} id {id} {retention:?}"
                    );
                    if round == 0 {
                        let value = versions.first().and_then(|version| version.2.clone());
                        assert_eq!(snapshot.get(id as u32).ok(), value, "seed {seed} id {id}");
                        assert_eq!(db.get(id as u32).ok(), value, "seed {seed} id {id}");
                    }
                }
                if round == 0 {
                    continue;
                }
                if db.check_idle().is_err() {
                    break;
                }
            }
            drop(snapshot);
            let files = storage
                .list("")
                .expect("names")
                .iter()
                .filter(|name| name.ends_with(".db"))
                .count();
            let _ = files;
            if random.chance(50) {
                db.close().expect("a close");
            } else {
                drop(db);
            }
            db = open(&storage, &options);
            for (id, versions) in before.iter().enumerate() {
                assert_eq!(
                    history(&db, id as u32),
                    keep(&retention, versions),
                    "seed {seed} reopened id {id}"
                );
            }
            let report = db.check(|_, _| ControlFlow::Continue(())).expect("a check");
            assert!(report.is_sound(), "{report}");
        }
    }
}

/// Writers that never pause: a compaction ends all the same, and takes over all that they wrote.
#[test]
fn a_compaction_beside_writers_that_never_pause_ends() {
    const WRITERS: u32 = 2;
    const IDS: u32 = 20_000;
    /// Far more than it takes.
    const PATIENCE: Duration = Duration::from_secs(40);
    let options = Options {
        key_value: true,
        native: true,
        record_nr_max: WRITERS * IDS,
        file_size: 1 << 20,
        ..Options::default()
    };
    for place in Place::ALL {
        let (db, directory) = place.open(&options);
        let before: Vec<_> = (0..WRITERS * IDS).map(|id| (id, &b"before"[..])).collect();
        db.set_many(&before).expect("sets");
        let done = AtomicBool::new(false);
        let written: Vec<Vec<u64>> = thread::scope(|scope| {
            let (db, done) = (&db, &done);
            let writers: Vec<_> = (0..WRITERS)
                .map(|writer| {
                    scope.spawn(move || {
                        let mut last = vec![0; IDS as usize];
                        let mut random = Random::new(u64::from(writer));
                        let mut number = 0u64;
                        while !done.load(Ordering::Acquire) {
                            number += 1;
                            let id = random.below(u64::from(IDS)) as u32;
                            let value = [number.to_le_bytes(); 4].concat();
                            db.set(writer * IDS + id, &value).expect("a set");
                            last[id as usize] = number;
                        }
                        last
                    })
                })
                .collect();
            let _end = EndOnDrop(done);
            let begun = Instant::now();
            let compacted = db.compact(&Retention::default(), |_, _| {
                match begun.elapsed() < PATIENCE {
                    true => ControlFlow::Continue(()),
                    false => ControlFlow::Break(()),
                }
            });
            compacted.unwrap_or_else(|error| panic!("{}: {error}", place.name));
            done.store(true, Ordering::Release);
            let writers = writers.into_iter();
            writers
                .map(|writer| writer.join().expect("no panic"))
                .collect()
        });
        let check = |db: &Db| {
            for (writer, last) in (0..).zip(&written) {
                for (id, &number) in (0..).zip(last) {
                    let expected = match number {
                        0 => b"before".to_vec(),
                        _ => [number.to_le_bytes(); 4].concat(),
                    };
                    let found = db.get(writer * IDS + id).ok();
                    assert_eq!(found, Some(expected), "{}: id {id}", place.name);
                }
            }
            let report = db.check(|_, _| ControlFlow::Continue(())).expect("a check");
            assert!(report.is_sound(), "{}: {report}", place.name);
        };
        check(&db);
        let commits = db.last_commit().expect("a number");
        let is_on_disk = directory.path().join("MANIFEST").exists();
        db.close().expect("a close");
        if is_on_disk {
            let db = Db::open(directory.path(), &Options::default()).expect("it opens again");
            assert_eq!(db.last_commit().expect("a number"), commits);
            check(&db);
        }
    }
}

/// Who opened the database for reading keeps its moment, also where files are read and not mapped,
/// until it asks for the next one.
#[test]
fn a_reader_keeps_the_files_of_its_moment() {
    for io in [IoMode::Auto, IoMode::File] {
        let directory = TempDirectory::new();
        let options = Options {
            key_value: true,
            file_size: 2000,
            io,
            ..Options::default()
        };
        let db = Db::open(directory.path(), &options).expect("a database");
        let write = |round: u32| {
            for id in 0..200 {
                db.set(id, &[id, round].map(u32::to_le_bytes).concat())
                    .expect("a record");
            }
        };
        write(0);
        write(1);
        let read_only = Options {
            read_only: true,
            io,
            ..Options::default()
        };
        let reader = Db::open(directory.path(), &read_only).expect("a reader");
        let check = |round: u32, versions: usize| {
            for id in 0..200 {
                let value = [id, round].map(u32::to_le_bytes).concat();
                assert_eq!(reader.get(id).expect("a value"), value);
                assert_eq!(reader.history(id, 0).expect("versions").len(), versions);
            }
        };
        for round in 2..5 {
            compact(&db, Retention::default());
            write(round);
            if round == 3 {
                check(1, 2);
            }
        }
        check(1, 2);
        reader.refresh().expect("a refresh");
        check(4, 2);
    }
}

/// A snapshot keeps the files that it reads, and none of those that came and went since; a transaction
/// finds through any number of compactions what was changed since it began.
#[test]
fn an_open_snapshot_keeps_its_own_files_alone() {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    let options = Options {
        key_value: true,
        native: true,
        ..Options::default()
    };
    let db = Db::open_on(Arc::clone(&storage), &options).expect("it opens");
    let fill = |byte| (0..100).for_each(|id| db.set(id, &[byte; 10_000]).expect("a set"));
    let bytes = || -> u64 {
        let names = storage.list("").expect("names");
        let files = names.iter().filter(|name| name.ends_with(".db"));
        files
            .map(|name| storage.open(name, Access::Read).expect("a file"))
            .map(|file| file.len().expect("a length"))
            .sum()
    };
    fill(0);
    let before = bytes();
    let snapshot = db.snapshot().expect("a snapshot");
    for byte in 1..6 {
        fill(byte);
        db.compact(&Retention::default(), |_, _| ControlFlow::Continue(()))
            .expect("a compaction");
        // Those that it reads grew until the first compaction.
        let now = bytes();
        assert!(now < 4 * before, "{now} bytes, {before} at the beginning");
    }
    assert_eq!(snapshot.get(7).expect("a value"), [0; 10_000]);
    drop(snapshot);
    assert!(bytes() < 2 * before, "{} bytes", bytes());

    let mut txn = db.begin().expect("a transaction");
    txn.get(7).expect("a value");
    txn.set(8, b"by the transaction").expect("a set");
    for id in [6, 7, 8] {
        db.set(id, b"by another").expect("a set");
        db.compact(&Retention::default(), |_, _| ControlFlow::Continue(()))
            .expect("a compaction");
    }
    let conflict = txn.commit();
    assert!(
        matches!(conflict, Err(Error::Conflict { .. })),
        "{conflict:?}"
    );
}

/// The numbers of the data files, ascending.
fn numbers(path: &Path) -> Vec<u32> {
    let names = fs::read_dir(path).expect("a directory");
    let names = names.map(|entry| entry.expect("an entry").file_name());
    let numbers = names.filter_map(|name| name.to_str()?.strip_suffix(".db")?.parse().ok());
    let mut numbers: Vec<u32> = numbers.collect();
    numbers.sort_unstable();
    numbers
}

/// Cancels a compaction at its end, and leaves one of its copies behind, as if that could not have been
/// removed.
fn fail_to_remove(db: &Db, path: &Path, which: fn(&[u32]) -> Option<&u32>) -> PathBuf {
    let everything = Retention {
        keep_versions: u64::MAX,
        ..Retention::default()
    };
    let before = numbers(path);
    let aside = path.join("aside");
    let mut left = None;
    let cancelled = db.compact(&everything, |done, total| {
        if done < total {
            return ControlFlow::Continue(());
        }
        let mut copies = numbers(path);
        copies.retain(|number| !before.contains(number));
        let number = which(&copies).expect("a copy");
        let copy = path.join(format!("{number}.db"));
        fs::copy(&copy, &aside).expect("the copy is there");
        left = Some(copy);
        ControlFlow::Break(())
    });
    assert!(matches!(cancelled, Err(Error::Cancelled)), "{cancelled:?}");
    let left = left.expect("it was asked at its end");
    assert!(!left.exists(), "a cancelled compaction removes its copies");
    fs::rename(aside, &left).expect("it comes back");
    left
}

/// A key-value database in small data files.
fn small_files(lookup: LookupKind) -> Options {
    Options {
        key_value: true,
        file_size: 3000,
        lookup,
        ..Options::default()
    }
}

#[test]
fn a_copy_that_stayed_is_no_part_of_the_next_compaction() {
    let directory = TempDirectory::new();
    let path = directory.path();
    let options = small_files(LookupKind::Memory);
    let open = || Db::open(path, &options).expect("it opens");
    let db = open();
    for round in 0..2 {
        for id in 1..=40 {
            db.set(id, &[round; 1000]).expect("a set");
        }
    }
    for id in 2..=40 {
        db.delete(id).expect("a deletion");
    }
    let left = fail_to_remove(&db, path, |copies| copies.last());
    compact(&db, Retention::default());
    assert!(
        left.exists(),
        "nobody removes it while the database is open"
    );
    let last = numbers(path).last().map(|last| format!("{last}.db"));
    assert_eq!(last.map(|last| path.join(last)), Some(left.clone()));
    db.close().expect("a close");

    let db = open();
    assert_eq!(db.get(1).expect("a value"), [1; 1000]);
    db.set(7, b"acknowledged").expect("a set");
    let report = db.check(|_, _| ControlFlow::Continue(())).expect("a check");
    assert!(report.is_sound(), "{report}");
    assert!(!left.exists(), "the next opening removes it");
    db.backup_to(Arc::new(MemoryStorage::new()), |_, _| {
        ControlFlow::Continue(())
    })
    .expect("a backup");
    db.close().expect("a close");
    fs::remove_file(path.join("index")).expect("a checkpoint");
    let db = open();
    assert_eq!(db.get(7).expect("a value"), b"acknowledged");
    assert_eq!(db.count().expect("a count"), 2);
}

#[test]
fn a_copy_that_stayed_brings_back_nothing_that_was_dropped() {
    for lookup in [LookupKind::Disk, LookupKind::Memory] {
        let directory = TempDirectory::new();
        let path = directory.path();
        let options = small_files(lookup);
        let db = Db::open(path, &options).expect("a database");
        for id in 1..=20 {
            db.set(id, &[7; 1000]).expect("a set");
        }
        let left = fail_to_remove(&db, path, |copies| copies.first());
        db.erase(2).expect("an erasure");
        db.clear().expect("a clear");
        compact(
            &db,
            Retention {
                keep_versions: 0,
                ..Retention::default()
            },
        );
        let last_commit = db.last_commit().expect("a number");
        drop(db);
        if lookup == LookupKind::Memory {
            fs::remove_file(path.join("index")).expect("a checkpoint");
        }

        let db = Db::open(path, &options).expect("it opens");
        assert_eq!(
            db.last_commit().expect("a number"),
            last_commit,
            "{lookup:?}"
        );
        assert_eq!(db.count().expect("a count"), 0, "{lookup:?}");
        for id in [1, 2] {
            let versions = db.history(id, 0);
            let is_gone = matches!(versions, Err(Error::NotFound(NotFound::History(_))));
            assert!(is_gone, "{lookup:?}: id {id}: {versions:?}");
        }
        assert!(!left.exists(), "{lookup:?}");
    }
}

#[test]
fn copies_of_several_compactions_that_stayed_are_removed() {
    for is_closed in [true, false] {
        let directory = TempDirectory::new();
        let path = directory.path();
        let options = small_files(LookupKind::Memory);
        let db = Db::open(path, &options).expect("a database");
        for id in 1..=20 {
            db.set(id, &[7; 1000]).expect("a set");
        }
        let before = numbers(path);
        let first = fail_to_remove(&db, path, |copies| copies.last());
        let second = fail_to_remove(&db, path, |copies| copies.first());
        let read_only = Options {
            read_only: true,
            ..Options::default()
        };
        let reader = Db::open(path, &read_only).expect("a reader");
        db.set(1, b"seen").expect("a set");
        reader.refresh().expect("a refresh");
        assert_eq!(reader.get(1).expect("a value"), b"seen");
        match is_closed {
            true => db.close().expect("a close"),
            false => drop(db),
        }

        let db = Db::open(path, &options).expect("it opens");
        assert!(!first.exists() && !second.exists(), "{:?}", numbers(path));
        assert_eq!(numbers(path)[..before.len()], before);
        assert_eq!(db.get(1).expect("a value"), b"seen");
        assert_eq!(db.count().expect("a count"), 20);
        compact(&db, Retention::default());
    }
}

#[test]
fn a_copy_that_stayed_does_not_hinder_a_takeover() {
    for which in [<[u32]>::first, <[u32]>::last] {
        let directory = TempDirectory::new();
        let path = directory.path();
        let options = Options {
            file_size: 3000,
            ..Options::default()
        };
        let open = || Db::open(path, &options).expect("it opens");
        let db = open();
        for _ in 0..20 {
            db.insert(&[7; 1000]).expect("an insert");
        }
        let left = fail_to_remove(&db, path, which);
        db.close().expect("a close");
        let mut herolib =
            Herolib::open(path, Settings::DEFAULT, Port::Go).expect("herolib opens it");
        herolib.set(1, b"by herolib").expect("a set");
        herolib.close();

        let read_only = Options {
            read_only: true,
            ..Options::default()
        };
        let reader = Db::open(path, &read_only).expect("a reader");
        assert_eq!(reader.get(1).expect("a value"), b"by herolib");
        drop(open());
        assert!(!left.exists(), "the opening that takes over removes it");
        go_on_after_herolib(open);
    }
}

/// Uses a database of 20 records, in which herolib has set id 1, and compacts it.
fn go_on_after_herolib(open: impl Fn() -> Db) {
    for round in 0..2 {
        let db = open();
        assert_eq!(db.get(1).expect("a value"), b"by herolib");
        assert_eq!(db.history(1, 0).expect("versions").len(), 2);
        assert_eq!(db.count().expect("a count"), 20 + round);
        let report = db.check(|_, _| ControlFlow::Continue(())).expect("a check");
        assert!(report.is_sound(), "{report}");
        db.insert(b"ours").expect("an insert");
        db.close().expect("a close");
    }
    let db = open();
    compact(&db, Retention::default());
    assert_eq!(db.get(1).expect("a value"), b"by herolib");
}

/// herolib begins with the first data file again, whoever's it is.
#[test]
fn what_herolib_wrote_to_a_file_that_stayed_is_taken_over() {
    let directory = TempDirectory::new();
    let path = directory.path();
    let options = Options {
        file_size: 3000,
        ..Options::default()
    };
    let open = || Db::open(path, &options).expect("it opens");
    let db = open();
    for _ in 0..20 {
        db.insert(&[7; 1000]).expect("an insert");
    }
    let (aside, left) = (path.join("aside"), path.join("0.db"));
    fs::copy(&left, &aside).expect("a data file");
    compact(&db, Retention::default());
    assert!(!left.exists(), "a compaction removes what it has replaced");
    fs::rename(aside, &left).expect("it comes back");
    db.close().expect("a close");
    let mut herolib = Herolib::open(path, Settings::DEFAULT, Port::Go).expect("herolib opens it");
    herolib.set(1, b"by herolib").expect("a set");
    assert_eq!(herolib.place(1).0, 0);
    herolib.close();

    go_on_after_herolib(open);
    assert!(!left.exists(), "nothing is in it any more");
}

/// The next compaction makes its table beside it, under the name that this one has kept.
#[test]
fn a_table_that_could_not_be_given_its_name_is_left_alone() {
    const KEPT: Retention = Retention {
        keep_versions: 100,
        keep_since_us: 0,
        keep_since_commit: 0,
    };
    for stops in [false, true] {
        let directory = TempDirectory::new();
        let options = Options {
            key_value: true,
            lookup: LookupKind::Disk,
            ..Options::default()
        };
        let db = Db::open(directory.path(), &options).expect("a new database");
        let set_all = |value: u8| {
            (0..9).for_each(|id| db.set(id, &[value]).expect("a set"));
        };
        let check = |db: &Db, versions: usize| {
            (0..9).for_each(|id| assert_eq!(history(db, id).len(), versions));
            let report = db.check(|_, _| ControlFlow::Continue(())).expect("a check");
            assert!(report.is_sound(), "{report}");
        };
        set_all(1);
        // A directory with something in it, which no file replaces.
        let table = directory.path().join("lookup");
        fs::remove_file(&table).expect("a table");
        fs::create_dir_all(table.join("taken")).expect("a directory");
        compact(&db, KEPT);
        fs::remove_dir_all(&table).expect("the directory");
        set_all(2);
        let goes_on = match stops {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        };
        let second = db.compact(&KEPT, |_, _| goes_on);
        assert_eq!(second.is_err(), stops);
        check(&db, 2);
        set_all(3);
        check(&db, 3);
        db.close().expect("a close");
        let db = Db::open(directory.path(), &options).expect("it opens");
        check(&db, 3);
    }
}

/// What is set after a compaction that has left nothing stands in a table without a name: the old one,
/// which has it still, is not taken for it.
#[test]
fn a_table_that_could_not_be_given_its_name_is_in_the_checkpoint() {
    let directory = TempDirectory::new();
    let options = Options {
        key_value: true,
        lookup: LookupKind::Disk,
        ..Options::default()
    };
    let db = Db::open(directory.path(), &options).expect("a new database");
    (0..9).for_each(|id| db.set(id, b"old").expect("a set"));
    db.clear().expect("a clear");
    let (table, old) = (
        directory.path().join("lookup"),
        directory.path().join("old"),
    );
    fs::rename(&table, &old).expect("the old table");
    fs::create_dir_all(table.join("taken")).expect("a directory");
    let nothing = Retention {
        keep_versions: 0,
        ..Retention::default()
    };
    compact(&db, nothing);
    fs::remove_dir_all(&table).expect("the directory");
    fs::rename(&old, &table).expect("the old table");
    let check = |db: &Db, ids: &[u32]| {
        assert_eq!(db.count().expect("a count"), ids.len() as u64);
        for id in [3, 700] {
            let expected = ids.contains(&id).then(|| b"new".to_vec());
            assert_eq!(db.get(id).ok(), expected, "{id} of {ids:?}");
        }
        let report = db.check(|_, _| ControlFlow::Continue(())).expect("a check");
        assert!(report.is_sound(), "{report}");
    };
    let mut db = db;
    let mut ids = Vec::new();
    for id in [None, Some(3), Some(700)] {
        if let Some(id) = id {
            db.set(id, b"new").expect("a set");
            ids.push(id);
        }
        check(&db, &ids);
        db.close().expect("a close");
        db = Db::open(directory.path(), &options).expect("it opens");
        check(&db, &ids);
    }
}

/// The writer's new data file has its name in the directory whose sync failed in the compaction: a later sync
/// need not tell that it isn't on disk.
#[test]
fn after_a_failed_sync_of_the_directory_nothing_more_is_acknowledged() {
    let options = Options {
        key_value: true,
        file_size: 4096,
        ..Options::default()
    };
    let (mut of_directory, mut of_file) = (0, 0);
    for after in 0.. {
        let storage = SimStorage::new(Disk::new(), true, 9);
        let db = Db::open_on(Arc::new(storage.clone()), &options).expect("a database");
        let fill = |from: u32| {
            (0..20).for_each(|id| db.set(from + id, &[7; 300]).expect("a set"));
        };
        fill(0);
        db.sync().expect("a sync");
        let mut is_first = true;
        let done = db.compact(&Retention::default(), |_, _| {
            if std::mem::take(&mut is_first) {
                fill(100);
                storage.fail(Some(Fault {
                    calls: Calls::Syncing,
                    after: storage.calls(Calls::Syncing) + after,
                    errno: Errno::Io,
                    sticky: false,
                    partly: false,
                    pages: Pages::Clean,
                }));
            }
            ControlFlow::Continue(())
        });
        storage.fail(None);
        let Some(hit) = storage.hits().pop() else {
            done.expect("a compaction");
            break;
        };
        let goes_on = db.set(500, b"acknowledged").and_then(|()| db.sync());
        if hit.call.contains("directory") {
            of_directory += 1;
            let refused = matches!(goes_on, Err(Error::Poisoned { .. }));
            assert!(refused, "{}: {done:?}, then {goes_on:?}", hit.call);
        } else {
            of_file += u64::from(goes_on.is_ok());
        }
    }
    assert!(of_directory > 2 && of_file > 2, "{of_directory}, {of_file}");
}

/// What a crash caught in the making goes with the next opening.
#[test]
fn files_that_were_being_made_are_removed() {
    for lookup in [LookupKind::Memory, LookupKind::Disk] {
        let directory = TempDirectory::new();
        let path = directory.path();
        let db = Db::open(path, &small_files(lookup)).expect("a new database");
        db.set(1, b"a value").expect("a set");
        db.close().expect("a close");
        let names = ["index.tmp", "index.next.tmp", "base.3.tmp", "erasing.tmp"];
        for name in names {
            std::fs::write(path.join(name), b"half of it").expect("a file");
        }
        std::fs::write(path.join("theirs.tmp"), b"somebody else's").expect("a file");
        let db = Db::open(path, &small_files(lookup)).expect("it opens");
        assert_eq!(db.get(1).expect("a read"), b"a value");
        db.close().expect("a close");
        let left = names.iter().filter(|name| path.join(name).exists());
        assert_eq!(left.count(), 0, "{lookup:?}");
        assert!(path.join("theirs.tmp").exists());
    }
}

/// Damage to what nothing keeps goes with it; to what is kept, the compaction is refused.
#[test]
fn a_damaged_version_is_in_the_way_only_where_it_is_kept() {
    let options = Options {
        key_value: true,
        native: true,
        ..Options::default()
    };
    let keep = |keep_versions, keep_since_commit| Retention {
        keep_versions,
        keep_since_us: 0,
        keep_since_commit,
    };
    for (retention, is_kept) in [
        (keep(0, 0), false),
        (keep(1, 0), false),
        (keep(2, 0), true),
        // Which commit it is of says the head that is damaged.
        (keep(0, 3), true),
    ] {
        let storage = Arc::new(MemoryStorage::new());
        let db = open(&storage, &options);
        for value in [b"oldest", b"older!", b"newest"] {
            db.set(1, value).expect("a set");
        }
        db.set(2, b"another").expect("a set");
        // In the second head.
        let file = storage.open("0.db", Access::Write).expect("a data file");
        file.write_at(64 + 46 + 12, &[&[0xff]]).expect("a write");
        let compacted = db.compact(&retention, |_, _| ControlFlow::Continue(()));
        assert_eq!(compacted.is_err(), is_kept, "{retention:?}: {compacted:?}");
        assert_eq!(db.get(1).expect("a value"), b"newest");
        let report = db.check(|_, _| ControlFlow::Continue(())).expect("a check");
        assert_eq!(report.is_sound(), !is_kept, "{retention:?}: {report}");
        if let Err(error) = compacted {
            assert!(matches!(error, Error::Corrupt { .. }), "{error}");
        } else {
            assert_eq!(db.history(1, 0).expect("a history").len(), 1);
            let past = db.snapshot_at(2);
            assert!(matches!(past, Err(Error::NotFound(_))), "{past:?}");
        }
    }
}

/// Not only once the handle is given back, and no erasure comes to them any more.
#[test]
fn a_panic_of_who_is_told_leaves_no_copies() {
    let storage = Arc::new(MemoryStorage::new());
    let options = Options {
        key_value: true,
        ..Options::default()
    };
    let db = open(&storage, &options);
    for id in 0..40 {
        db.set(id, &vec![7; 60_000]).expect("a set");
    }
    let before = storage.list("").expect("names");
    let mut calls = 0;
    let told = |_, _| {
        calls += 1;
        assert!(calls < 2, "told too often");
        ControlFlow::Continue(())
    };
    let compact = || db.compact(&Retention::default(), told);
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(compact)).expect_err("a panic");
    assert_eq!(storage.list("").expect("names"), before);
}
