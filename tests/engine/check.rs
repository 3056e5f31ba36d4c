//! The check reads everything: it finds nothing in a sound database, and names each place where a
//! damaged one is damaged.

use std::fs;
use std::ops::{ControlFlow, Range};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::herolib::{Herolib, Port, Settings};
use crate::support::sim::{Calls, Disk, Errno, Fault, Pages, SimStorage};
use crate::support::{Random, TempDirectory};
use ourdb::{CheckReport, Db, Error, IoMode, LookupKind, Options, Retention, Sync};

const FILE_HEADER: usize = 64;
const RECORD_HEADER: usize = 40;

fn options() -> Options {
    Options {
        key_value: true,
        native: true,
        file_size: 3000,
        // What lies in the file counts, and not what is mapped.
        io: IoMode::File,
        ..Options::default()
    }
}

fn on(_done: u64, _total: u64) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn check(db: &Db) -> CheckReport {
    db.check(on).expect("a check")
}

fn value(id: u32, revision: u32) -> Vec<u8> {
    (0..40 + id * 3)
        .map(|at| (id * 31 + revision * 7 + at) as u8 | 1)
        .collect()
}

const IDS: u32 = 20;
const REVISIONS: u32 = 5;
/// Versions that `fill` writes.
const VERSIONS: u64 = (IDS * REVISIONS) as u64 + 2 + 1;

fn fill(db: &Db) {
    for revision in 0..REVISIONS {
        for id in 0..IDS {
            db.set(id, &value(id, revision)).unwrap();
        }
        if revision == 2 {
            db.sync().unwrap();
        }
    }
    db.set_many(&[(30, b"one"), (31, b"commit")]).unwrap();
    db.delete(3).unwrap();
}

fn assert_sound(db: &Db, versions: u64, what: &str) {
    let report = check(db);
    assert!(report.is_sound(), "{what}: {report}");
    assert_eq!(report.versions, versions, "{what}");
}

#[test]
fn a_sound_database_is_sound_in_every_form() {
    let lookups = [LookupKind::Memory, LookupKind::Disk];
    let syncs = [Sync::Os, Sync::Commit];
    for (lookup, sync) in lookups.into_iter().zip(syncs) {
        for io in [IoMode::Auto, IoMode::File] {
            for file_size in [1, 3000, 0] {
                let directory = TempDirectory::new();
                let options = Options {
                    lookup,
                    sync,
                    io,
                    file_size,
                    ..options()
                };
                let what = format!("{options:?}");
                let db = Db::open(directory.path(), &options).unwrap();
                assert_sound(&db, 0, &what);
                fill(&db);
                assert_sound(&db, VERSIONS, &what);
                let read_only = Options {
                    read_only: true,
                    ..Options::default()
                };
                let reader = Db::open(directory.path(), &read_only).unwrap();
                assert_sound(&reader, VERSIONS, &what);
                drop(reader);
                drop(db);
                let db = Db::open(directory.path(), &options).unwrap();
                assert_sound(&db, VERSIONS, &what);
                db.close().unwrap();
                let db = Db::open(directory.path(), &options).unwrap();
                assert_sound(&db, VERSIONS, &what);
                db.delete(4).unwrap();
                assert_sound(&db, VERSIONS + 1, &what);
                let salvage = Options {
                    salvage: true,
                    ..Options::default()
                };
                let salvaged = Db::open(directory.path(), &salvage).unwrap();
                assert_sound(&salvaged, VERSIONS + 1, &what);
            }
        }
    }
    let memory = Options {
        memory: true,
        ..options()
    };
    let db = Db::open("", &memory).unwrap();
    fill(&db);
    assert_sound(&db, VERSIONS, "in memory");
}

#[test]
fn what_herolib_wrote_is_checked_too() {
    let directory = TempDirectory::new();
    let settings = Settings {
        record_size_max: 65_535,
        ..Settings::DEFAULT
    };
    let mut herolib = Herolib::open(directory.path(), settings, Port::Go).unwrap();
    for id in 1..=10 {
        assert_eq!(herolib.insert(&value(id, 0)), id);
    }
    for id in (1..=10).chain(1..=10) {
        herolib.set(id, &value(id, 1)).unwrap();
    }
    herolib.close();
    let options = Options {
        read_only: true,
        ..Options::default()
    };
    let reader = Db::open(directory.path(), &options).unwrap();
    assert_sound(&reader, 30, "opened for reading as it is");
    let db = Db::open(directory.path(), &Options::default()).unwrap();
    db.set(4, b"ours").unwrap();
    db.insert(b"more of ours").unwrap();
    assert_sound(&db, 32, "over herolib's");
    let behind = reader.check(on);
    assert!(matches!(behind, Err(Error::Busy { .. })), "{behind:?}");
    reader.refresh().unwrap();
    assert_sound(&reader, 32, "a reader that follows");
    db.close().unwrap();
    let path = directory.path().join("0.db");
    let mut content = fs::read(&path).unwrap();
    let damaged = value(7, 0);
    let at = find(&content, &damaged);
    content[at + 5] ^= 4;
    fs::write(&path, content).unwrap();
    let options = Options {
        io: IoMode::File,
        ..Options::default()
    };
    let db = Db::open(directory.path(), &options).unwrap();
    let report = check(&db);
    assert_eq!(report.damage.len(), 1, "{report}");
    assert!(report.to_string().contains("id 7"), "{report}");
}

fn find(content: &[u8], value: &[u8]) -> usize {
    content
        .windows(value.len())
        .position(|bytes| bytes == value)
        .expect("the value is in the file")
}

/// A data file of an open database changed by another hand.
fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut content = fs::read(path).unwrap();
    change(&mut content);
    fs::write(path, content).unwrap();
}

/// A value that `fill` writes into `1.db`: its id and revision.
const IN_SECOND: (u32, u32) = (19, 1);

/// Each byte of each record, one bit at a time: the record that holds it is the one place named.
#[test]
fn a_flipped_bit_is_named_with_its_record() {
    let directory = TempDirectory::new();
    let db = Db::open(directory.path(), &options()).unwrap();
    fill(&db);
    let (id, revision) = IN_SECOND;
    for (id, revision, number) in [(0, 0, 0), (12, 0, 0), (id, revision, 1)] {
        let path = directory.path().join(format!("{number}.db"));
        let at = find(&fs::read(&path).unwrap(), &value(id, revision));
        let record = at - RECORD_HEADER..at + value(id, revision).len();
        for byte in record.clone() {
            let bit = 1 << (byte % 8);
            change(&path, |content| content[byte] ^= bit);
            let report = check(&db);
            let what = format!("id {id}, revision {revision}, byte {byte} of {record:?}");
            let [damage] = &report.damage[..] else {
                panic!("{what}: {report}");
            };
            assert_eq!(Path::new(&damage.file), path, "{what}");
            assert_eq!(damage.offset, record.start as u64, "{what}: {report}");
            if byte >= at {
                assert!(
                    damage.what.contains(&format!("id {id},")),
                    "{what}: {report}"
                );
            }
            assert_eq!(report.versions, VERSIONS - 1, "{what}");
            change(&path, |content| content[byte] ^= bit);
        }
    }
    assert_sound(&db, VERSIONS, "in the end");
}

#[test]
fn every_damaged_place_is_named_and_too_many_are_counted() {
    let directory = TempDirectory::new();
    let options = Options {
        file_size: 0,
        ..options()
    };
    let db = Db::open(directory.path(), &options).unwrap();
    let count = 1200u32;
    for id in 0..count {
        db.set(id, &[7; 10]).unwrap();
    }
    let path = directory.path().join("0.db");
    let value_of = |id: u32| FILE_HEADER + id as usize * (RECORD_HEADER + 10) + RECORD_HEADER;
    for damaged in [3, 1000, 1100] {
        change(&path, |content| {
            content[FILE_HEADER..][..count as usize * 50]
                .chunks_mut(50)
                .for_each(|record| record[40..].fill(7));
            for id in 0..damaged {
                content[value_of(id)] = 8;
            }
        });
        let report = check(&db);
        let named: Vec<u64> = report.damage.iter().map(|damage| damage.offset).collect();
        let expected: Vec<u64> = (0..damaged.min(1000))
            .map(|id| (value_of(id) - RECORD_HEADER) as u64)
            .collect();
        assert_eq!(named, expected);
        assert_eq!(report.more, u64::from(damaged.saturating_sub(1000)));
        assert_eq!(report.versions, u64::from(count - damaged));
    }
}

#[test]
fn a_file_that_is_cut_or_gone_is_named() {
    type Change = fn(&Path);
    let changes: [(&str, Change); 3] = [
        ("1.db", |path| fs::remove_file(path).unwrap()),
        ("2.db", |path| change(path, |content| content.truncate(200))),
        ("MANIFEST", |path| change(path, |content| content[50] ^= 1)),
    ];
    for (name, change) in changes {
        let directory = TempDirectory::new();
        let db = Db::open(directory.path(), &options()).unwrap();
        fill(&db);
        change(&directory.path().join(name));
        let report = check(&db);
        let first = report.damage.first().expect("damage");
        assert!(first.file.ends_with(name), "{name}: {report}");
    }
}

/// A file that is mapped is read through that mapping, if it is the one in the directory still.
#[test]
fn the_file_in_the_directory_is_checked_and_not_the_one_that_was_opened() {
    let directory = TempDirectory::new();
    let mapped = Options {
        io: IoMode::Map,
        ..options()
    };
    let db = Db::open(directory.path(), &mapped).unwrap();
    fill(&db);
    let (id, revision) = IN_SECOND;
    let path = directory.path().join("1.db");
    let mut content = fs::read(&path).unwrap();
    let at = find(&content, &value(id, revision));
    content[at] ^= 1;
    let other = directory.path().join("other");
    fs::write(&other, content).unwrap();
    assert_sound(&db, VERSIONS, "before");
    fs::rename(&other, &path).unwrap();
    let report = check(&db);
    let [damage] = &report.damage[..] else {
        panic!("{report}");
    };
    assert_eq!(Path::new(&damage.file), path);
    assert_eq!(damage.offset, (at - RECORD_HEADER) as u64);
    // And so it is where it was changed in place.
    let third = directory.path().join("2.db");
    change(&third, |content| content[FILE_HEADER + 4] ^= 1);
    let report = check(&db);
    assert_eq!(report.damage.len(), 2, "{report}");
    assert!(report.damage[1].file.ends_with("2.db"), "{report}");
}

#[test]
fn a_file_that_is_cut_while_it_is_read_is_named() {
    for io in [IoMode::Auto, IoMode::File] {
        let directory = TempDirectory::new();
        let options = Options {
            file_size: 0,
            io,
            ..options()
        };
        let db = Db::open(directory.path(), &options).unwrap();
        for id in 0..400 {
            db.set(id, &[5; 60_000]).unwrap();
        }
        let path = directory.path().join("0.db");
        let cut = 10_000_001;
        let report = db.check(|done, _| {
            if done > 4 << 20 {
                let file = fs::OpenOptions::new().write(true).open(&path);
                file.and_then(|file| file.set_len(cut)).unwrap();
            }
            ControlFlow::Continue(())
        });
        let report = report.unwrap();
        let first = report.damage.first().expect("damage");
        let last_whole = cut - cut % 60_040;
        assert!(first.file.ends_with("0.db"), "{report}");
        assert!(
            (last_whole - 60_040..=cut).contains(&first.offset),
            "{report}"
        );
    }
}

/// What salvage can't read the check on it names.
#[test]
fn the_check_of_a_salvaged_database_names_what_was_lost() {
    let directory = TempDirectory::new();
    let db = Db::open(directory.path(), &options()).unwrap();
    fill(&db);
    db.close().unwrap();
    let path = directory.path().join("1.db");
    let at = find(&fs::read(&path).unwrap(), &value(IN_SECOND.0, IN_SECOND.1));
    change(&path, |content| content[at] ^= 1);
    change(&directory.path().join("2.db"), |content| content[9] ^= 1);
    let salvage = Options {
        salvage: true,
        ..Options::default()
    };
    let db = Db::open(directory.path(), &salvage).unwrap();
    let report = check(&db);
    let text = report.to_string();
    assert!(text.contains("1.db") && text.contains("2.db"), "{text}");
    assert!(
        report
            .damage
            .iter()
            .any(|damage| damage.offset == (at - RECORD_HEADER) as u64),
        "{text}"
    );
}

/// Also where it ends with a whole record.
#[test]
fn the_check_of_a_salvaged_database_names_a_file_that_was_cut() {
    for compacted in [true, false] {
        let directory = TempDirectory::new();
        let db = Db::open(directory.path(), &options()).unwrap();
        let len = 8 + RECORD_HEADER;
        for id in 0..20u64 {
            db.set(id as u32, &(id | 1 << 63).to_le_bytes()).unwrap();
        }
        if compacted {
            db.compact(&Retention::default(), on).unwrap();
        }
        db.close().unwrap();
        let name = if compacted { "1.db" } else { "0.db" };
        let path = directory.path().join(name);
        let whole = fs::read(&path).unwrap();
        assert_eq!(whole.len(), FILE_HEADER + 20 * len);
        let salvage = Options {
            salvage: true,
            ..Options::default()
        };
        for end in FILE_HEADER..=whole.len() {
            fs::write(&path, &whole[..end]).unwrap();
            let db = Db::open(directory.path(), &salvage).unwrap();
            let kept = ((end - FILE_HEADER) / len) as u64;
            assert_eq!(db.count().unwrap(), kept, "{name} of {end} bytes");
            let report = check(&db);
            let is_whole = end == whole.len();
            assert_eq!(
                report.is_sound(),
                is_whole,
                "{name} of {end} bytes: {report}"
            );
            let mut files = report.damage.iter().map(|damage| &damage.file);
            assert!(files.all(|file| file.ends_with(name)), "{report}");
        }
    }
}

#[test]
fn progress_reaches_the_end_and_can_stop() {
    let directory = TempDirectory::new();
    let options = Options {
        file_size: 0,
        ..options()
    };
    let db = Db::open(directory.path(), &options).unwrap();
    let value = vec![5; 60_000];
    for id in 0..400 {
        db.set(id, &value).unwrap();
    }
    let mut told = Vec::new();
    let report = db.check(|done, total| {
        told.push((done, total));
        ControlFlow::Continue(())
    });
    assert!(report.unwrap().is_sound());
    assert!(told.len() > 3, "{told:?}");
    assert!(told.is_sorted() && told.iter().all(|&(done, total)| done <= total));
    let mut calls = 0;
    let stopped = db.check(|_, _| {
        calls += 1;
        if calls == 2 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    assert!(matches!(stopped, Err(Error::Cancelled)), "{stopped:?}");
    assert_eq!(calls, 2);
}

#[test]
fn a_check_beside_writers_sees_one_moment() {
    for sync in [Sync::Os, Sync::Commit] {
        let directory = TempDirectory::new();
        let options = Options {
            sync,
            io: IoMode::Auto,
            ..options()
        };
        let db = Db::open(directory.path(), &options).unwrap();
        fill(&db);
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut revision = 0;
                while !done.load(Ordering::Relaxed) {
                    revision += 1;
                    for id in 0..IDS {
                        db.set(id, &value(id, revision)).unwrap();
                    }
                    db.delete(revision % IDS).unwrap();
                    db.set_many(&[(50, b"a"), (revision % 1000 + 100, b"b")])
                        .unwrap();
                }
            });
            for round in 0..20 {
                let report = check(&db);
                if !report.is_sound() {
                    done.store(true, Ordering::Relaxed);
                    panic!("round {round}: {report}");
                }
            }
            done.store(true, Ordering::Relaxed);
        });
    }
}

/// A data file is read in pieces, and records lie across their ends: nothing is overlooked there, and
/// nothing is named that is well.
#[test]
fn damage_is_named_wherever_a_piece_ends() {
    let directory = TempDirectory::new();
    let options = Options {
        file_size: 0,
        record_size_max: 1 << 20,
        ..options()
    };
    let db = Db::open(directory.path(), &options).unwrap();
    let mut records = Vec::new();
    let mut at = FILE_HEADER;
    let mut set = |id: u32, len: usize| {
        let value: Vec<u8> = (0..len).map(|at| (id as usize + at) as u8 | 1).collect();
        db.set(id, &value).unwrap();
        records.push(at..at + RECORD_HEADER + len);
        at = records[id as usize].end;
    };
    for id in 0..1500 {
        let len = match id % 500 {
            250 => 300_000,
            _ => 100 + id as usize % 700,
        };
        set(id, len);
    }
    let report = check(&db);
    assert!(report.is_sound(), "{report}");
    assert_eq!(report.versions, 1500);
    let path = directory.path().join("0.db");
    let sound = fs::read(&path).unwrap();
    for (index, record) in records.iter().enumerate() {
        let pieces = (record.start >> 18..record.end >> 18).count();
        if pieces == 0 && index % 50 > 0 {
            continue;
        }
        let places = [record.start, record.start + 39, record.end - 1];
        let ends = (1..=pieces).map(|piece| ((record.start >> 18) + piece) << 18);
        for byte in places.into_iter().chain(ends) {
            let mut damaged = sound.clone();
            damaged[byte] ^= 1 << (byte % 8);
            fs::write(&path, &damaged).unwrap();
            let report = check(&db);
            let [damage] = &report.damage[..] else {
                panic!("byte {byte} of {record:?}: {report}");
            };
            assert_eq!(damage.offset, record.start as u64, "byte {byte}: {report}");
            assert_eq!(report.versions, 1499, "byte {byte}: {report}");
        }
    }
}

/// Options of a database with one data file.
fn long_options(io: IoMode) -> Options {
    Options {
        file_size: 0,
        record_size_max: 1 << 20,
        io,
        ..options()
    }
}

/// Puts 6 MB into a database; where the records lie in the data file, by id.
fn fill_long(db: &Db) -> Vec<Range<usize>> {
    let mut at = FILE_HEADER;
    let lens = (0..14_000).map(|id: usize| match id % 3000 {
        250 => 300_000,
        _ => id * id % 700,
    });
    let records = lens.enumerate().map(|(id, len)| {
        let value: Vec<u8> = (0..len).map(|at| (id + at) as u8 | 1).collect();
        db.set(id as u32, &value).expect("a set");
        let record = at..at + RECORD_HEADER + len;
        at = record.end;
        record
    });
    records.collect()
}

/// Through a mapping or by calls: the same places are named, in order.
#[test]
fn a_mapped_file_is_checked_as_one_that_is_read() {
    let directory = TempDirectory::new();
    let db = Db::open(directory.path(), &long_options(IoMode::Auto)).expect("a new database");
    let records = fill_long(&db);
    assert_sound(&db, records.len() as u64, "by who writes");
    db.close().expect("a close");

    let path = directory.path().join("0.db");
    let sound = fs::read(&path).expect("a data file");
    assert!(sound.len() > 5 << 20, "{}", sound.len());
    let [mapped, read] = [IoMode::Auto, IoMode::File].map(|io| {
        let options = Options {
            read_only: true,
            ..long_options(io)
        };
        Db::open(directory.path(), &options).expect("a reader")
    });
    let mut random = Random::new(0x5eed);
    for round in 0..60 {
        let one_in = [2, 10, 300, 3000][round % 4];
        let only_values = round % 3 > 0;
        let mut damaged = sound.clone();
        let mut expected = Vec::new();
        for record in &records {
            let from = match only_values {
                true => record.start + RECORD_HEADER,
                false => record.start,
            };
            if random.below(one_in) == 0 && from < record.end {
                let byte = from + random.below((record.end - from) as u64) as usize;
                damaged[byte] ^= 1 << (byte % 8);
                expected.push(record.start as u64);
            }
        }
        fs::write(&path, &damaged).expect("a damaged data file");
        let report = check(&mapped);
        assert_eq!(report, check(&read), "round {round}");
        if only_values {
            let named = report.damage.iter().map(|damage| damage.offset);
            assert!(
                named.eq(expected.iter().copied().take(1000)),
                "round {round}: {report}"
            );
            let well = records.len() - expected.len();
            assert_eq!(report.versions, well as u64, "round {round}");
        }
    }
}

/// What a writer does to files that a read-only handle beside it knows is no damage.
#[test]
fn a_reader_that_is_behind_finds_no_damage() {
    let step = |what: &str, path: &Path, db: Db| -> Db {
        let roll_over = |db: &Db| (0..40).for_each(|id| db.set(id, &value(id, 7)).expect("a set"));
        match what {
            "new data files" => roll_over(&db),
            "new data files, reopened" => {
                roll_over(&db);
                db.close().expect("a close");
                return Db::open(path, &options()).expect("it opens");
            }
            "an erasure" => db.erase(2).expect("an erasure"),
            _ => {
                roll_over(&db);
                db.compact(&Retention::default(), on).expect("a compaction");
            }
        }
        db
    };
    for what in [
        "new data files",
        "new data files, reopened",
        "an erasure",
        "a compaction",
    ] {
        for io in [IoMode::Map, IoMode::File] {
            let directory = TempDirectory::new();
            let db = Db::open(directory.path(), &options()).expect("it opens");
            fill(&db);
            let reader = Options {
                read_only: true,
                io,
                ..options()
            };
            let reader = Db::open(directory.path(), &reader).expect("it opens");
            let db = step(what, directory.path(), db);
            match reader.check(on) {
                Ok(report) => assert!(report.is_sound(), "{what}: {report}"),
                Err(Error::Busy { .. }) => assert_eq!(what, "a compaction"),
                Err(error) => panic!("{what}: {error}"),
            }
            match reader.changes(0, usize::MAX) {
                Ok((_, upto)) => assert_eq!(upto, reader.last_commit().expect("a commit")),
                Err(Error::Busy { .. }) => assert_eq!(what, "a compaction"),
                Err(error) => panic!("{what}: {error}"),
            }
            reader.refresh().expect("a refresh");
            assert!(check(&reader).is_sound() && check(&db).is_sound(), "{what}");
            let damaged = directory.path().join("0.db");
            if what == "an erasure" {
                change(&damaged, |content| content[200] ^= 1);
                assert!(!check(&reader).is_sound(), "damage is still found");
            }
        }
    }
}

/// Nothing but what a clear deletes is looked at: of what was live, all. Were every id looked at that ever
/// was, these would take minutes.
#[test]
fn many_clears_of_a_few_records_among_many_ids() {
    let options = Options {
        key_value: true,
        memory: true,
        ..Options::default()
    };
    let db = Db::open("", &options).unwrap();
    let ids: Vec<u32> = (0..16_777_000).step_by(500).collect();
    let records: Vec<(u32, &[u8])> = ids.iter().map(|&id| (id, &b"once"[..])).collect();
    db.set_many(&records).unwrap();
    for &one in ids.iter().take(1000) {
        for id in [7, one, 16_777_000] {
            db.set(id, b"again").unwrap();
        }
        db.clear().unwrap();
    }
    db.set(8, b"live").unwrap();
    assert_sound(&db, records.len() as u64 + 3001, "cleared often");
}

/// A process that can't open a file just now has not found it damaged.
#[test]
fn what_the_system_refuses_is_no_damage() {
    for mapped in [true, false] {
        let mut after = 0;
        loop {
            let storage = SimStorage::new(Disk::new(), mapped, 1);
            let db = Db::open_on(Arc::new(storage.clone()), &options()).expect("a new database");
            fill(&db);
            db.compact(&Retention::default(), on).expect("a compaction");
            fill(&db);
            storage.fail(Some(Fault {
                calls: Calls::Reading,
                after: storage.calls(Calls::Reading) + after,
                errno: Errno::NoDescriptor,
                sticky: true,
                partly: false,
                pages: Pages::Dirty,
            }));
            let outcome = db.check(on);
            storage.fail(None);
            match outcome {
                Err(Error::Io { .. }) => {}
                Err(error) => panic!("call {after} refused: {error}"),
                Ok(report) => {
                    assert!(report.is_sound(), "call {after} refused: {report}");
                    break;
                }
            }
            assert!(check(&db).is_sound(), "after call {after}");
            after += 1 + after / 4;
        }
        assert!(after > 2, "only {after} calls can be refused");
    }
}

/// A reader is refreshed while it is checked, and what it then leads to hides that what was below is erased.
#[test]
fn a_check_beside_a_refresh_and_an_erasure_finds_no_damage() {
    let directory = TempDirectory::new();
    let db = Db::open(directory.path(), &options()).expect("it opens");
    // More than one step of the progress.
    (100..300).for_each(|id| db.set(id, &vec![7; 60_000]).expect("a set"));
    db.set(7, b"first").expect("a set");
    let reader = Options {
        read_only: true,
        ..options()
    };
    let reader = Db::open(directory.path(), &reader).expect("it opens");
    let mut steps = 0;
    let report = reader.check(|_, _| {
        steps += 1;
        if steps == 1 {
            db.set(7, b"second").expect("a set");
            reader.refresh().expect("a refresh");
            db.erase(7).expect("an erasure");
        }
        ControlFlow::Continue(())
    });
    let report = report.expect("a check");
    assert!(steps > 1 && report.is_sound(), "{report}");
}

/// A backup directory may go back to an earlier generation, of the same commit.
#[test]
fn a_reader_of_a_backup_that_was_replaced_says_that_it_is_to_be_refreshed() {
    let [source, copied, target] = [(); 3].map(|()| TempDirectory::new());
    let db = Db::open(source.path(), &options()).expect("it opens");
    (0..6).for_each(|n| db.set(n % 3, &[n as u8]).expect("a set"));
    db.backup(copied.path(), on).expect("a copy");
    let copy = Db::open(copied.path(), &Options::default()).expect("it opens");
    copy.compact(&Retention::default(), on)
        .expect("a compaction");
    copy.backup(target.path(), on).expect("a backup");
    let reader = Options {
        read_only: true,
        ..options()
    };
    let reader = Db::open(target.path(), &reader).expect("it opens");
    db.backup(target.path(), on).expect("another one");
    let checked = reader.check(on);
    assert!(matches!(checked, Err(Error::Busy { .. })), "{checked:?}");
    reader.refresh().expect("a refresh");
    assert!(check(&reader).is_sound());
}
