//! herolib's directories in both directions: what V and Go wrote opens here, what is closed here
//! opens there, and what they write in between is noticed.

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use crate::support::herolib::{Herolib, Port, Settings, record};
use crate::support::sim::{Calls, Disk, Errno, Fault, Loss, Pages, SimStorage, Unsynced};
use crate::support::{Random, TempDirectory};
use ourdb::storage::{Access, Storage};
use ourdb::{Db, Error, Options, Retention, State};

/// Per id all values, newest first.
type Contents = BTreeMap<u32, Vec<Vec<u8>>>;

/// A herolib database together with what must be in it.
struct Written {
    db: Herolib,
    contents: Contents,
}

impl Written {
    fn new(path: &Path, settings: Settings, port: Port) -> Written {
        let db = Herolib::open(path, settings, port).unwrap();
        Written {
            db,
            contents: Contents::new(),
        }
    }

    fn insert(&mut self, value: &[u8]) -> u32 {
        let id = self.db.insert(value);
        self.contents.insert(id, vec![value.to_vec()]);
        id
    }

    fn set(&mut self, id: u32, value: &[u8]) {
        self.db.set(id, value).unwrap();
        self.contents
            .entry(id)
            .or_default()
            .insert(0, value.to_vec());
    }

    fn delete(&mut self, id: u32) {
        // V zeroes the record in the file that it opened last.
        self.db.get(id).unwrap();
        self.db.delete(id).unwrap();
        self.contents.remove(&id);
    }
}

/// Records of many kinds: written over, deleted, set again after that, empty, long, all zeros.
fn fill(path: &Path, settings: Settings, port: Port) -> Written {
    let mut written = Written::new(path, settings, port);
    let ids: Vec<u32> = if settings.incremental {
        (0..30)
            .map(|n| written.insert(format!("value {n}").as_bytes()))
            .collect()
    } else {
        let ids = [0, 1, 2, 7, 8, 9, 100, 101, settings.record_nr_max - 1];
        for id in ids {
            written.set(id, format!("value {id}").as_bytes());
        }
        ids.to_vec()
    };
    for round in 0..5 {
        for &id in ids.iter().skip(round) {
            written.set(id, format!("value {id}, version {round}").as_bytes());
        }
    }
    written.set(ids[0], &[0; 40]);
    written.set(ids[1], b"");
    written.set(ids[1], b"after empty");
    written.set(ids[2], b"");
    if settings.width() == 6 {
        written.set(ids[3], &vec![0xa5; 65_535]);
    }
    written.delete(ids[4]);
    written.delete(ids[5]);
    if !settings.incremental {
        written.set(ids[5], b"set again");
    }
    written
}

fn check(db: &Db, contents: &Contents) {
    assert_eq!(db.count().unwrap(), contents.len() as u64);
    let mut ids = Vec::new();
    let mut next = db.first().ok();
    while let Some(id) = next {
        ids.push(id);
        next = db.above(id).ok();
    }
    assert!(ids.iter().eq(contents.keys()), "{ids:?}");
    for (&id, versions) in contents {
        assert!(db.get(id).unwrap() == versions[0], "value of id {id}");
        let history = db.history(id, 0).unwrap();
        let live = history.iter().filter(|record| record.state == State::Live);
        assert!(
            live.map(|record| record.value).eq(versions),
            "history of id {id}"
        );
    }
}

/// The originals read everything that they could read had they written it.
fn check_originals(path: &Path, settings: Settings, contents: &Contents, next_id: Option<u32>) {
    for port in [Port::V, Port::Go] {
        let mut db = Herolib::open(path, settings, port).unwrap();
        assert_eq!(db.next_id().ok(), next_id);
        for (&id, versions) in contents {
            let readable = |value: &Vec<u8>| port == Port::Go || !value.is_empty();
            if readable(&versions[0]) {
                assert!(db.get(id).unwrap() == versions[0], "id {id} in {port:?}");
            }
            if settings.width() == 6 && versions.iter().all(readable) {
                assert!(
                    db.history(id, 255).unwrap() == *versions,
                    "id {id} in {port:?}"
                );
            }
        }
    }
}

fn data_files(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(path).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let is_dump = name == "lookup_dump.db";
        if name.ends_with(".db") && !is_dump {
            files.insert(name, fs::read(entry.path()).unwrap());
        }
    }
    files
}

fn assert_unchanged(path: &Path, originals: &BTreeMap<String, Vec<u8>>) {
    let now = data_files(path);
    for (name, bytes) in originals {
        assert!(now.get(name) == Some(bytes), "{name} was changed");
    }
}

/// Everything in a directory, as paths, but for the file that a writer locks: it says nothing.
fn listing(path: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(path).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if entry.file_type().unwrap().is_dir() {
            names.extend(
                listing(&entry.path())
                    .iter()
                    .map(|inner| format!("{name}/{inner}")),
            );
        }
        names.push(name);
    }
    names.retain(|name| name != "LOCK");
    names.sort();
    names
}

fn open(path: &Path) -> Db {
    Db::open(path, &Options::default()).unwrap()
}

fn open_for_reading(path: &Path) -> Db {
    let options = Options {
        read_only: true,
        ..Options::default()
    };
    Db::open(path, &options).unwrap()
}

fn adopting() -> Options {
    Options {
        adopt: true,
        ..Options::default()
    }
}

#[test]
fn every_kind_of_directory_opens_and_is_gone_on_with() {
    for port in [Port::V, Port::Go] {
        for settings in [
            Settings::with_width(2),
            Settings::with_width(3),
            Settings::with_width(4),
            Settings::with_width(6),
            Settings::with_width(6).file_size(300),
        ] {
            for settings in [settings, settings.key_value()] {
                for plain in [false, true] {
                    go_on_with(port, settings, plain);
                }
            }
        }
    }
}

fn go_on_with(port: Port, settings: Settings, plain: bool) {
    println!("{port:?}, {settings:?}, plain dump: {plain}");
    let directory = TempDirectory::new();
    let path = directory.path();
    let Written { db, mut contents } = fill(path, settings, port);
    let mut next_id = db.next_id().ok();
    if plain {
        db.close_plain()
    } else {
        db.close()
    }
    let originals = data_files(path);

    let db = open(path);
    check(&db, &contents);
    match next_id {
        Some(next_id) => assert_eq!(db.next_id().unwrap(), next_id),
        None => assert!(matches!(db.next_id(), Err(Error::WrongMode { .. }))),
    }
    for record in db
        .history(*contents.keys().next().unwrap(), 0)
        .unwrap()
        .iter()
    {
        assert_eq!((record.commit, record.time_us), (0, 0), "unknown");
    }
    let ids: Vec<u32> = contents.keys().copied().collect();
    for &id in ids.iter().step_by(2) {
        db.set(id, b"written here").unwrap();
        contents
            .get_mut(&id)
            .unwrap()
            .insert(0, b"written here".to_vec());
    }
    db.delete(ids[0]).unwrap();
    contents.remove(&ids[0]);
    if let Some(next_id) = &mut next_id {
        assert_eq!(db.insert(b"inserted here").unwrap(), *next_id);
        contents.insert(*next_id, vec![b"inserted here".to_vec()]);
        *next_id += 1;
    }
    check(&db, &contents);
    let deleted = db.history(ids[0], 1).unwrap();
    assert_eq!(
        deleted.get(0).map(|record| record.state),
        Some(State::Deleted)
    );
    drop(db);

    let db = open(path);
    check(&db, &contents);
    db.close().unwrap();
    assert_unchanged(path, &originals);
    // What is stored: our defaults, with room for all ids.
    let ours = Settings {
        record_nr_max: settings.record_nr_max.max(16_777_215),
        record_size_max: 65_535,
        incremental: settings.incremental,
        ..Settings::DEFAULT
    };
    check_originals(path, ours, &contents, next_id);
    let db = open(path);
    check(&db, &contents);
    db.close().unwrap();
}

#[test]
fn what_was_not_written_to_stays_as_it_is() {
    for width in [2, 3, 4, 6] {
        let directory = TempDirectory::new();
        let settings = Settings::with_width(width);
        let written = fill(directory.path(), settings, Port::Go);
        let next_id = written.db.next_id().ok();
        written.db.close();
        let dump = fs::read(directory.path().join("lookup_dump.db/data")).unwrap();
        open(directory.path()).close().unwrap();
        open(directory.path()).close().unwrap();
        assert_eq!(
            fs::read(directory.path().join("lookup_dump.db/data")).unwrap(),
            dump
        );
        // A directory whose deleted ids V left out it can't read itself.
        let v = Herolib::open(directory.path(), settings, Port::V);
        assert!(v.is_err_and(|error| error.contains("cannot set id")));
        let key_value = Herolib::open(directory.path(), settings.key_value(), Port::V).unwrap();
        assert_eq!(key_value.next_id().ok(), None);
        assert_eq!(next_id, Some(31));
    }
}

#[test]
fn deleted_ids_do_not_keep_v_from_reading() {
    let directory = TempDirectory::new();
    let path = directory.path();
    let written = fill(path, Settings::DEFAULT, Port::V);
    let mut contents = written.contents;
    written.db.close();
    assert!(
        Herolib::open(path, Settings::DEFAULT, Port::V).is_err(),
        "there is a gap"
    );
    let db = open(path);
    db.delete(30).unwrap();
    db.delete(1).unwrap();
    contents.remove(&1);
    contents.remove(&30);
    db.close().unwrap();
    check_originals(path, Settings::DEFAULT, &contents, Some(31));
    let mut v = Herolib::open(path, Settings::DEFAULT, Port::V).unwrap();
    assert!(v.get(30).is_err() && v.set(30, b"no").is_err());
    assert_eq!(v.insert(b"the next"), 31);
}

#[test]
fn a_database_made_here_opens_in_v_and_go() {
    for (record_nr_max, record_size_max) in [(1000, 1024), (70_000, 100), (16_777_217, 1), (0, 0)] {
        for key_value in [false, true] {
            let directory = TempDirectory::new();
            let path = directory.path();
            let options = Options {
                key_value,
                record_nr_max,
                record_size_max,
                ..Options::default()
            };
            let db = Db::open(path, &options).unwrap();
            let mut contents = Contents::new();
            let value = |n: u32| vec![b'a' + n as u8; 1];
            for n in 0..9 {
                let id = if key_value {
                    db.set(n * 7, &value(n)).unwrap();
                    n * 7
                } else {
                    db.insert(&value(n)).unwrap()
                };
                contents.insert(id, vec![value(n)]);
            }
            db.set(7, b"z").unwrap();
            contents.get_mut(&7).unwrap().insert(0, b"z".to_vec());
            db.close().unwrap();
            let mut settings = Settings::DEFAULT;
            settings.incremental = !key_value;
            if record_nr_max != 0 {
                settings.record_nr_max = record_nr_max;
                settings.record_size_max = record_size_max;
            }
            check_originals(path, settings, &contents, (!key_value).then_some(10));
        }
    }
}

#[test]
fn a_location_that_v_can_not_store_leaves_no_dump() {
    let directory = TempDirectory::new();
    let path = directory.path();
    let options = Options {
        record_nr_max: 1000,
        record_size_max: 1000,
        ..Options::default()
    };
    let db = Db::open(path, &options).unwrap();
    for _ in 0..60 {
        db.insert(&[7; 1000]).unwrap();
    }
    db.close().unwrap();
    assert!(
        path.join("lookup_dump.db/data").exists(),
        "positions fit in two bytes so far"
    );
    let db = open(path);
    for _ in 0..10 {
        db.insert(&[7; 1000]).unwrap();
    }
    db.close().unwrap();
    assert!(!path.join("lookup_dump.db").exists());
    let db = open(path);
    assert_eq!(db.count().unwrap(), 70);
    db.close().unwrap();
}

#[test]
fn values_that_herolib_can_not_hold_leave_the_others_readable() {
    let directory = TempDirectory::new();
    let options = Options {
        record_size_max: 1 << 20,
        ..Options::default()
    };
    let db = Db::open(directory.path(), &options).unwrap();
    let long = vec![1; 65_536 + 10];
    db.insert(b"short").unwrap();
    db.insert(&long).unwrap();
    db.insert(b"short again").unwrap();
    db.close().unwrap();
    let mut v = Herolib::open(directory.path(), Settings::DEFAULT, Port::V).unwrap();
    assert_eq!(v.get(1).unwrap(), b"short");
    assert!(v.get(2).is_err(), "two bytes do not hold its length");
    assert_eq!(v.get(3).unwrap(), b"short again");
    let db = open(directory.path());
    assert_eq!(db.get(2).unwrap(), long);
}

#[test]
fn a_native_database_and_one_that_was_not_closed_have_no_dump() {
    let directory = TempDirectory::new();
    let path = directory.path();
    let options = Options {
        native: true,
        ..Options::default()
    };
    let db = Db::open(path, &options).unwrap();
    db.insert(b"value").unwrap();
    db.close().unwrap();
    assert!(!path.join("lookup_dump.db").exists());
    open(path).close().unwrap();
    assert!(!path.join("lookup_dump.db").exists(), "that is stored");

    let directory = TempDirectory::new();
    let path = directory.path();
    let db = open(path);
    db.insert(b"value").unwrap();
    db.close().unwrap();
    assert!(path.join("lookup_dump.db/data").exists());
    let db = open(path);
    db.insert(b"after the dump").unwrap();
    assert!(
        !path.join("lookup_dump.db/data").exists(),
        "a dump must not be older than the data"
    );
    drop(db);
    assert!(!path.join("lookup_dump.db/data").exists());
    let db = open(path);
    assert_eq!(db.count().unwrap(), 2);
    db.close().unwrap();
    assert!(path.join("lookup_dump.db/data").exists());
}

#[test]
fn without_a_dump_nothing_is_opened_unless_it_is_asked_for() {
    let directory = TempDirectory::new();
    let path = directory.path();
    let mut written = Written::new(path, Settings::DEFAULT.file_size(200), Port::Go);
    for number in 0..20 {
        written.insert(format!("value {number}").as_bytes());
    }
    written.set(3, b"newer");
    written.set(3, b"");
    drop(written.db);
    let before = listing(path);
    let read_only = |options: &Options| Options {
        read_only: true,
        ..options.clone()
    };
    for options in [
        Options::default(),
        Options {
            key_value: true,
            ..Options::default()
        },
    ] {
        for options in [read_only(&options), options] {
            match Db::open(path, &options) {
                Err(Error::Incompatible(why)) => assert!(why.contains("no lookup dump"), "{why}"),
                Err(error) => panic!("{error}"),
                Ok(_) => panic!("taken for an empty database"),
            }
        }
    }
    let key_value = Options {
        key_value: true,
        ..adopting()
    };
    match Db::open(path, &key_value) {
        Err(Error::Incompatible(why)) => assert!(why.contains("key-value"), "{why}"),
        other => panic!("{:?}", other.err()),
    }
    let db = Db::open(path, &read_only(&adopting())).unwrap();
    check(&db, &written.contents);
    db.close().unwrap();
    assert_eq!(listing(path), before, "so far nothing was changed");

    let originals = data_files(path);
    let db = Db::open(path, &adopting()).unwrap();
    check(&db, &written.contents);
    assert_eq!(db.insert(b"new").unwrap(), 21);
    written.contents.insert(21, vec![b"new".to_vec()]);
    drop(db);
    let db = open(path);
    check(&db, &written.contents);
    db.close().unwrap();
    assert_unchanged(path, &originals);
    let mut go = Herolib::open(path, Settings::DEFAULT, Port::Go).unwrap();
    assert_eq!(go.next_id(), Ok(22));
    assert_eq!(go.history(3, 255).unwrap(), written.contents[&3]);
}

#[test]
fn what_can_not_be_known_is_refused_and_salvaged_on_request() {
    let directory = TempDirectory::new();
    let path = directory.path();
    let mut go = Herolib::open(path, Settings::DEFAULT, Port::Go).unwrap();
    for number in 0..5 {
        go.insert(format!("a value with number {number}").as_bytes());
    }
    go.delete(2).unwrap();
    go.delete(3).unwrap();
    drop(go);
    let before = listing(path);
    match Db::open(path, &adopting()) {
        Err(Error::Corrupt { file, offset, what }) => {
            assert!(file.ends_with("0.db") && offset == 34, "{file} at {offset}");
            assert!(what.contains("several"), "{what}");
        }
        other => panic!("{:?}", other.err()),
    }
    let options = Options {
        salvage: true,
        ..adopting()
    };
    let db = Db::open(path, &options).unwrap();
    assert_eq!(db.get(1).unwrap(), b"a value with number 0");
    assert!(matches!(db.get(2), Err(Error::NotFound(_))));
    assert!(matches!(db.get(3), Err(Error::NotFound(_))));
    assert_eq!(db.get(5).unwrap(), b"a value with number 4");
    assert!(matches!(db.set(1, b"no"), Err(Error::ReadOnly { .. })));
    db.close().unwrap();
    assert_eq!(listing(path), before);
}

#[test]
fn an_incremental_directory_does_not_open_as_key_value() {
    let directory = TempDirectory::new();
    fill(directory.path(), Settings::DEFAULT, Port::Go)
        .db
        .close();
    let options = Options {
        key_value: true,
        ..Options::default()
    };
    assert!(matches!(
        Db::open(directory.path(), &options),
        Err(Error::Incompatible(_))
    ));
    assert!(!directory.path().join("MANIFEST").exists());
    // The other way round the directory says what it is.
    let directory = TempDirectory::new();
    fill(directory.path(), Settings::DEFAULT.key_value(), Port::Go)
        .db
        .close();
    let db = open(directory.path());
    assert!(matches!(db.insert(b"no"), Err(Error::WrongMode { .. })));
    db.set(16_000_000, b"yes").unwrap();
}

#[test]
fn limits_too_low_for_the_ids_are_refused() {
    let directory = TempDirectory::new();
    let mut written = Written::new(directory.path(), Settings::DEFAULT.key_value(), Port::Go);
    written.set(5000, b"value");
    written.db.close();
    let options = |record_nr_max| Options {
        record_nr_max,
        ..Options::default()
    };
    assert!(matches!(
        Db::open(directory.path(), &options(5000)),
        Err(Error::Incompatible(_))
    ));
    let db = Db::open(directory.path(), &options(5001)).unwrap();
    check(&db, &written.contents);
    // More ids than the default are taken as they are found.
    let directory = TempDirectory::new();
    let settings = Settings {
        record_nr_max: 4_000_000_000,
        ..Settings::DEFAULT.key_value()
    };
    let mut written = Written::new(directory.path(), settings, Port::Go);
    written.set(3_999_999_999, b"value");
    written.db.close();
    check(&open(directory.path()), &written.contents);
}

#[test]
fn a_garbled_dump_is_refused_and_left_as_it_is() {
    let directory = TempDirectory::new();
    let path = directory.path();
    fill(path, Settings::DEFAULT, Port::Go).db.close();
    let data = path.join("lookup_dump.db/data");
    let intact = fs::read(&data).unwrap();
    let reversed: Vec<u8> = intact.chunks(10).rev().flatten().copied().collect();
    for garbled in [&intact[..intact.len() - 1], &reversed, b"garbage"] {
        fs::write(&data, garbled).unwrap();
        let before = listing(path);
        match Db::open(path, &Options::default()) {
            Err(Error::Corrupt { file, .. }) => assert!(file.ends_with("lookup_dump.db/data")),
            other => panic!("{:?}", other.err()),
        }
        assert_eq!(listing(path), before);
    }
    fs::write(&data, intact).unwrap();
    open(path).close().unwrap();
}

/// A dump that was cut short looks like one of herolib's, which has deleted the rest; and without a
/// checkpoint a damaged log could be one in which it has zeroed records. It isn't, where nothing is zero.
#[test]
fn damage_to_dump_and_log_is_not_taken_for_what_herolib_does() {
    let directory = TempDirectory::new();
    let path = directory.path();
    let key_value = Options {
        key_value: true,
        ..Options::default()
    };
    let db = Db::open(path, &key_value).unwrap();
    let mut contents = Contents::new();
    for id in 1..=6 {
        let value = format!("value {id}").into_bytes();
        db.set(id, &value).unwrap();
        contents.insert(id, vec![value]);
    }
    db.close().unwrap();
    let without_checkpoint = || fs::remove_file(path.join("index")).unwrap();

    // What herolib does is believed all the same.
    without_checkpoint();
    let mut v = Written {
        db: Herolib::open(path, Settings::DEFAULT.key_value(), Port::V).unwrap(),
        contents,
    };
    v.delete(2);
    v.set(3, b"by V");
    v.delete(6);
    let Written { db: v, contents } = v;
    v.close();
    let db = open(path);
    for (id, versions) in &contents {
        assert_eq!(db.get(*id).unwrap(), versions[0], "id {id}");
    }
    assert_eq!(db.count().unwrap(), contents.len() as u64);
    // Now in files of this generation.
    db.compact(&Retention::default(), |_, _| ControlFlow::Continue(()))
        .unwrap();
    for id in 7..=9 {
        db.set(id, format!("value {id}").as_bytes()).unwrap();
    }
    db.close().unwrap();

    without_checkpoint();
    let dump = path.join("lookup_dump.db/data");
    let whole = fs::read(&dump).unwrap();
    fs::write(&dump, &whole[..whole.len() - 10]).unwrap();
    let originals = data_files(path);
    let mut damaged = 0;
    for (file, bytes) in &originals {
        for at in 64..bytes.len() {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1 << (at % 8);
            fs::write(path.join(file), &bytes).unwrap();
            for read_only in [true, false] {
                let options = Options {
                    read_only,
                    ..Options::default()
                };
                match Db::open(path, &options) {
                    Err(Error::Corrupt { file: found, .. }) => {
                        assert!(found.ends_with(file), "{found} for byte {at} of {file}");
                    }
                    other => panic!("byte {at} of {file}: {:?}", other.err()),
                }
            }
            assert!(data_files(path)[file] == bytes, "{file} was changed");
            damaged += 1;
        }
        fs::write(path.join(file), bytes).unwrap();
    }
    assert!(damaged > 300, "{damaged} bytes");
    // The dump alone is found out as well.
    match Db::open(path, &Options::default()) {
        Err(Error::Corrupt { what, .. }) => assert!(what.contains("lacks id 9"), "{what}"),
        other => panic!("{:?}", other.err()),
    }
    fs::write(&dump, whole).unwrap();
    assert_eq!(open(path).count().unwrap(), contents.len() as u64 + 3);
}

/// Makes ids 1 to 30 with two versions each, in one data file or compacted, and closes; the dump of the first
/// versions.
fn thirty_records(path: &Path, compacted: bool) -> Vec<u8> {
    let key_value = Options {
        key_value: true,
        ..Options::default()
    };
    let write = |what: &str| {
        let db = Db::open(path, &key_value).unwrap();
        for id in 1..=30 {
            db.set(id, format!("{what} {id:02}").repeat(10).as_bytes())
                .unwrap();
        }
        db
    };
    write("old").close().unwrap();
    let old = fs::read(path.join("lookup_dump.db/data")).unwrap();
    let db = write("new");
    if compacted {
        db.compact(&Retention::default(), |_, _| ControlFlow::Continue(()))
            .unwrap();
    }
    db.close().unwrap();
    old
}

/// Nothing but the log tells then which records there were.
#[test]
fn without_a_checkpoint_zeros_in_the_log_do_not_make_a_dump_believed() {
    for compacted in [false, true] {
        let directory = TempDirectory::new();
        let path = directory.path();
        let old = thirty_records(path, compacted);
        let dump = path.join("lookup_dump.db/data");
        let whole = fs::read(&dump).unwrap();
        fs::remove_file(path.join("index")).unwrap();
        let mut dumps = vec![old, Vec::new()];
        dumps.extend([0, 7, 29].map(|id| [&whole[..10 * id], &whole[10 * id + 10..]].concat()));
        let (file, bytes) = data_files(path).pop_first().unwrap();
        for (from, dump_now) in (64..bytes.len()).step_by(509).zip(dumps.iter().cycle()) {
            let mut bytes = bytes.clone();
            let to = bytes.len().min(from + 512);
            bytes[from..to].fill(0);
            fs::write(path.join(&file), &bytes).unwrap();
            fs::write(&dump, dump_now).unwrap();
            for read_only in [true, false] {
                let options = Options {
                    read_only,
                    ..Options::default()
                };
                match Db::open(path, &options) {
                    // Or the dump, where it leads to what is no record.
                    Err(Error::Corrupt { .. }) => {}
                    other => panic!("zeros from {from} on: {:?}", other.err()),
                }
            }
            assert!(data_files(path)[&file] == bytes, "{file} was changed");
        }
    }
}

/// What is left of each says which it was, and where the next begins.
#[test]
fn without_a_checkpoint_what_herolib_deletes_is_deleted_and_nothing_else() {
    for compacted in [false, true] {
        let directory = TempDirectory::new();
        let path = directory.path();
        thirty_records(path, compacted);
        let with_long_values = Options {
            record_size_max: 70_000,
            ..Options::default()
        };
        let db = Db::open(path, &with_long_values).unwrap();
        db.delete(30).unwrap();
        let mut txn = db.begin().unwrap();
        for (id, value) in (40..).zip([&[1; 70_000][..], &[0; 300], b"a", b"", &[2; 65_535]]) {
            txn.set(id, value).unwrap();
        }
        txn.commit().unwrap();
        db.set(51, b"stays").unwrap();
        db.set(50, b"the last one").unwrap();
        db.close().unwrap();
        fs::remove_file(path.join("index")).unwrap();
        let mut herolib = Herolib::open(path, Settings::DEFAULT.key_value(), Port::Go).unwrap();
        let deleted = [1, 2, 3, 15, 29, 40, 41, 42, 43, 44, 50];
        for id in deleted {
            herolib.delete(id).unwrap();
        }
        herolib.set(4, b"herolib's").unwrap();
        herolib.close();

        let dump = path.join("lookup_dump.db/data");
        let whole = fs::read(&dump).unwrap();
        let lacks = |id: u8| whole.chunks(10).filter(move |entry| entry[0] != id);
        let cut: Vec<u8> = lacks(51).flatten().copied().collect();
        assert_eq!(cut.len() + 10, whole.len());
        fs::write(&dump, cut).unwrap();
        match Db::open(path, &Options::default()) {
            Err(Error::Corrupt { what, .. }) => assert!(what.contains("lacks id 51"), "{what}"),
            other => panic!("{:?}", other.err()),
        }
        fs::write(&dump, whole).unwrap();
        for db in [open_for_reading(path), open(path)] {
            for id in deleted {
                assert!(!db.contains(id).unwrap(), "id {id}");
            }
            assert_eq!(db.count().unwrap(), 25);
            assert_eq!(db.get(4).unwrap(), b"herolib's");
            assert_eq!(db.get(28).unwrap(), "new 28".repeat(10).as_bytes());
            let versions = if compacted { 2 } else { 3 };
            assert_eq!(
                db.history(30, 0).unwrap().len(),
                versions,
                "of our deletion"
            );
        }
    }
}

/// A database whose ids 1 to 4 are live, made here or by herolib, for herolib to write to.
fn four_records(path: &Path, settings: Settings, port: Port, taken_over: bool) -> Written {
    let mut contents = Contents::new();
    let values: Vec<Vec<u8>> = (1..=4).map(|id| format!("value {id}").into()).collect();
    if taken_over {
        let mut written = Written::new(path, settings, port);
        for (id, value) in (1..).zip(&values) {
            match settings.incremental {
                true => drop(written.insert(value)),
                false => written.set(id, value),
            }
        }
        contents = written.contents;
        written.db.close();
    }
    let options = Options {
        key_value: !settings.incremental,
        ..Options::default()
    };
    let db = Db::open(path, &options).unwrap();
    if taken_over {
        db.set(1, b"ours").unwrap();
        contents.get_mut(&1).unwrap().insert(0, b"ours".to_vec());
    } else {
        for (id, value) in (1..).zip(&values) {
            match settings.incremental {
                true => assert_eq!(db.insert(value).unwrap(), id),
                false => db.set(id, value).unwrap(),
            }
            contents.insert(id, vec![value.clone()]);
        }
    }
    db.close().unwrap();
    Written {
        db: Herolib::open(path, settings, port).unwrap(),
        contents,
    }
}

#[test]
fn what_herolib_deletes_of_what_it_wrote_itself_is_deleted() {
    type Change = fn(&mut Written);
    fn delete(written: &mut Written, id: u32) {
        written.db.delete(id).unwrap();
        written.contents.remove(&id);
    }
    let changes: [(&str, Change); 6] = [
        ("set, delete", |v| {
            v.set(2, b"new");
            delete(v, 2);
        }),
        ("set twice, delete", |v| {
            v.set(2, b"new");
            v.set(2, b"newer");
            delete(v, 2);
        }),
        ("empty", |v| {
            v.set(2, b"");
            delete(v, 2);
        }),
        ("zeros", |v| {
            v.set(2, &[0; 300]);
            delete(v, 2);
            v.set(3, &[0; 256]);
        }),
        ("side by side", |v| {
            v.set(4, b"");
            v.set(3, b"new");
            v.set(2, b"");
            delete(v, 3);
            delete(v, 2);
            delete(v, 4);
        }),
        ("all", |v| {
            for id in 1..=4 {
                v.set(id, &[b'x'; 250]);
                v.set(id, b"");
                v.set(id, &[id as u8; 256]);
            }
            for id in [3, 2, 4, 1] {
                v.delete(id);
            }
        }),
    ];
    let in_key_value: [(&str, Change); 4] = [
        ("delete, set, delete", |v| {
            v.delete(2);
            v.set(2, b"new");
            delete(v, 2);
        }),
        ("set, delete, set", |v| {
            v.set(2, b"new");
            delete(v, 2);
            v.set(2, b"again");
        }),
        ("set, delete, set, delete", |v| {
            v.set(2, b"new");
            delete(v, 2);
            v.set(2, b"again");
            delete(v, 2);
        }),
        ("set, delete, and an empty one beside", |v| {
            v.set(2, b"new");
            v.set(9, b"");
            delete(v, 2);
        }),
    ];
    for port in [Port::V, Port::Go] {
        for (incremental, taken_over, one_record_each) in [
            (true, true, false),
            (true, false, false),
            (true, false, true),
            (false, true, false),
            (false, false, false),
            (false, false, true),
        ] {
            let mut settings = Settings {
                incremental,
                ..Settings::DEFAULT
            };
            let more = if incremental { &[][..] } else { &in_key_value };
            for &(name, change) in changes.iter().chain(more) {
                println!("{port:?}, {settings:?}, taken over: {taken_over}, {name}");
                let directory = TempDirectory::new();
                let path = directory.path();
                if one_record_each {
                    // 1.db and so on are new: 0.db is full.
                    settings = settings.file_size(1);
                }
                let mut written = four_records(path, settings, port, taken_over);
                change(&mut written);
                let Written { db, mut contents } = written;
                let next_id = db.next_id().ok();
                db.close();
                for _ in 0..2 {
                    let db = open(path);
                    check(&db, &contents);
                    assert_eq!(db.next_id().ok(), next_id);
                    db.close().unwrap();
                }
                let db = open(path);
                let id = if incremental {
                    db.insert(b"one more").unwrap()
                } else {
                    db.set(8, b"one more").unwrap();
                    8
                };
                contents.insert(id, vec![b"one more".to_vec()]);
                check(&db, &contents);
            }
        }
    }
}

/// Its record stays whole then, and one of ours is damaged.
#[test]
fn what_v_deletes_of_what_it_wrote_itself_in_the_wrong_file_is_deleted() {
    let directory = TempDirectory::new();
    let path = directory.path();
    drop(four_records(path, Settings::DEFAULT, Port::V, true));
    let db = open(path);
    db.set(3, &[b'-'; 100]).unwrap();
    db.set(4, b"read by V before it deletes").unwrap();
    db.close().unwrap();
    let ours = data_files(path).remove("1.db");
    let mut v = Herolib::open(path, Settings::DEFAULT, Port::V).unwrap();
    v.set(2, b"new").unwrap();
    assert_eq!((v.place(2).0, v.place(4).0), (0, 1));
    v.get(4).unwrap();
    v.delete(2).unwrap();
    v.close();
    assert!(data_files(path).remove("1.db") != ours);
    let db = open(path);
    assert!(matches!(db.get(2), Err(Error::NotFound(_))));
    assert_eq!(db.count().unwrap(), 3);
}

#[test]
fn a_dump_that_lacks_more_than_herolib_deleted_is_refused() {
    for port in [Port::V, Port::Go] {
        let directory = TempDirectory::new();
        let path = directory.path();
        let settings = Settings::DEFAULT.key_value();
        let mut written = four_records(path, settings, port, false);
        written.set(2, b"new");
        // Zeros that are a value, and a record of zeros that is live.
        written.set(1, &[0; 100]);
        written.set(9, b"");
        written.set(3, b"newer");
        written.db.delete(2).unwrap();
        written.db.close();
        let dump = path.join("lookup_dump.db/data");
        let whole = fs::read(&dump).unwrap();
        let cut: Vec<u8> = whole
            .chunks(10)
            .filter(|entry| entry[0] != 4)
            .flatten()
            .copied()
            .collect();
        assert_eq!(cut.len() + 10, whole.len());
        fs::write(&dump, cut).unwrap();
        match Db::open(path, &Options::default()) {
            Err(Error::Corrupt { what, .. }) => assert!(what.contains("lacks id 4"), "{what}"),
            other => panic!("{:?}", other.err()),
        }
        fs::write(&dump, whole).unwrap();
        assert_eq!(open(path).count().unwrap(), 4);
    }
}

/// Which data files a database has.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Files {
    Log,
    Compacted,
    /// Of ours, and gone on with by herolib.
    Frozen,
    Herolibs,
}

/// A database of several data files. In the first is a value of zeros, and zeros stand in the last one of ours
/// where the record of an empty value begins it: at the places of records in the others.
fn zeros_among_others(path: &Path, files: Files) -> Contents {
    let key_value = Settings::DEFAULT.key_value();
    let mut values = vec![vec![0; 3000]];
    values.extend((2..=5).map(|id| vec![b'0' + id; 100]));
    if files == Files::Herolibs {
        let mut written = Written::new(path, key_value.file_size(200), Port::V);
        (1..)
            .zip(&values)
            .for_each(|(id, value)| written.set(id, value));
        written.db.close();
        let db = open(path);
        db.set(7, b"ours").unwrap();
        db.close().unwrap();
        written.contents.insert(7, vec![b"ours".to_vec()]);
        return written.contents;
    }
    values.push(Vec::new());
    let options = Options {
        key_value: true,
        file_size: 300,
        ..Options::default()
    };
    let db = Db::open(path, &options).unwrap();
    let mut contents = Contents::new();
    for (id, value) in (1..).zip(values) {
        db.set(id, &value).unwrap();
        contents.insert(id, vec![value]);
    }
    if files == Files::Compacted {
        db.compact(&Retention::default(), |_, _| ControlFlow::Continue(()))
            .unwrap();
    }
    db.close().unwrap();
    if files == Files::Frozen {
        let mut v = Herolib::open(path, key_value, Port::V).unwrap();
        v.set(7, b"V's").unwrap();
        v.close();
        contents.insert(7, vec![b"V's".to_vec()]);
        open(path).close().unwrap();
    }
    contents
}

#[test]
fn zeros_that_belong_to_a_record_are_not_what_v_left_of_another() {
    for files in [Files::Log, Files::Compacted, Files::Frozen, Files::Herolibs] {
        let directory = TempDirectory::new();
        let path = directory.path();
        let contents = zeros_among_others(path, files);
        let dump = path.join("lookup_dump.db/data");
        let whole = fs::read(&dump).unwrap();
        let without = |id: u8| whole.chunks(10).filter(move |entry| entry[0] != id);
        let mut cut: Vec<(u8, Vec<u8>)> = (1..=5)
            .map(|id| (id, without(id).flatten().copied().collect()))
            .collect();
        cut.push((1, Vec::new()));
        for (id, cut) in cut {
            fs::write(&dump, cut).unwrap();
            for read_only in [true, false] {
                let options = Options {
                    read_only,
                    ..Options::default()
                };
                match Db::open(path, &options) {
                    Err(Error::Corrupt { what, .. }) => {
                        assert!(
                            what.contains(&format!("lacks id {id}")),
                            "{files:?}: {what}"
                        );
                    }
                    other => panic!("{files:?}, without id {id}: {:?}", other.err()),
                }
            }
        }
        fs::write(&dump, whole).unwrap();
        check(&open(path), &contents);
    }
}

/// herolib never looks at it; here it stands where the log would go on.
#[test]
fn a_data_file_of_the_highest_number_is_told_of_and_compacted_away() {
    for (number, content) in [(65_535, &b""[..]), (65_535, b"stray"), (65_534, b"\0")] {
        let directory = TempDirectory::new();
        let path = directory.path();
        let mut written = Written::new(path, Settings::DEFAULT.key_value(), Port::V);
        written.set(1, b"one");
        written.set(1, b"two");
        written.db.close();
        let stray = path.join(format!("{number}.db"));
        fs::write(&stray, content).unwrap();
        let db = open(path);
        match db.set(2, b"ours") {
            Err(Error::Full(what)) => {
                assert!(what.contains(&format!("after {number}.db")), "{what}");
            }
            other => panic!("{:?}", other.err()),
        }
        db.compact(&Retention::default(), |_, _| ControlFlow::Continue(()))
            .unwrap();
        assert!(!stray.exists());
        db.set(2, b"ours").unwrap();
        written.contents.insert(1, vec![b"two".to_vec()]);
        written.contents.insert(2, vec![b"ours".to_vec()]);
        check(&db, &written.contents);
        db.close().unwrap();
        check(&open(path), &written.contents);
    }
}

/// What it leaves there then is a record that is live, and damaged.
#[test]
fn what_v_deletes_in_the_wrong_one_of_any_files_is_deleted() {
    for files in [Files::Log, Files::Compacted, Files::Frozen, Files::Herolibs] {
        for (deleted, read) in [(3, 5), (5, 3), (2, 4), (4, 2)] {
            let directory = TempDirectory::new();
            let path = directory.path();
            let contents = zeros_among_others(path, files);
            let settings = Settings::DEFAULT.key_value();
            let mut v = Herolib::open(path, settings, Port::V).unwrap();
            assert_ne!(v.place(deleted).0, v.place(read).0);
            v.get(read).unwrap();
            v.delete(deleted).unwrap();
            v.close();
            for db in [open_for_reading(path), open(path)] {
                let what = format!("{files:?}: {deleted} while the file of {read} is open");
                assert!(!db.contains(deleted).unwrap(), "{what}");
                assert_eq!(db.count().unwrap(), contents.len() as u64 - 1, "{what}");
                for (&id, versions) in &contents {
                    let is_whole = id != deleted && id != read;
                    assert!(!is_whole || db.get(id).unwrap() == versions[0], "{what}");
                }
            }
        }
    }
}

#[test]
fn versions_that_lead_in_a_circle_are_an_error() {
    let directory = TempDirectory::new();
    let path = directory.path();
    let mut bytes = vec![0];
    bytes.extend(record((0, 20), b"first"));
    assert_eq!(bytes.len(), 18);
    bytes.extend([0; 2]);
    bytes.extend(record((0, 1), b"second"));
    fs::write(path.join("0.db"), bytes).unwrap();
    fs::create_dir(path.join("lookup_dump.db")).unwrap();
    fs::write(
        path.join("lookup_dump.db/data"),
        [1, 0, 0, 0, 0, 0, 0, 0, 0, 20],
    )
    .unwrap();
    let db = open(path);
    assert_eq!(db.get(1).unwrap(), b"second");
    assert_eq!(db.history(1, 2).unwrap().len(), 2);
    assert!(matches!(db.history(1, 0), Err(Error::Corrupt { .. })));
    // They can be erased all the same.
    db.erase(1).unwrap();
    assert!(!db.contains(1).unwrap());
    let bytes = fs::read(path.join("0.db")).unwrap();
    assert!(
        ![&b"first"[..], b"second"]
            .iter()
            .any(|value| { bytes.windows(value.len()).any(|window| window == *value) })
    );
}

#[test]
fn what_v_writes_in_between_is_taken_over() {
    for incremental in [true, false] {
        let settings = Settings {
            incremental,
            ..Settings::DEFAULT
        };
        let directory = TempDirectory::new();
        let path = directory.path();
        let options = Options {
            key_value: !incremental,
            ..Options::default()
        };
        let db = Db::open(path, &options).unwrap();
        let mut contents = Contents::new();
        for id in 1..=10 {
            let value = format!("value {id}").into_bytes();
            if incremental {
                assert_eq!(db.insert(&value).unwrap(), id)
            } else {
                db.set(id, &value).unwrap()
            }
            contents.insert(id, vec![value]);
        }
        db.delete(4).unwrap();
        contents.remove(&4);
        db.close().unwrap();
        for round in 0..3 {
            let mut v = Written {
                db: Herolib::open(path, settings, Port::V).unwrap(),
                contents,
            };
            v.set(2, format!("by V in round {round}").as_bytes());
            v.delete(5 + round);
            if incremental {
                assert_eq!(v.insert(b"by V"), 11 + 2 * round);
            } else {
                v.set(500 + round, b"by V");
            }
            contents = v.contents;
            v.db.close();
            let by_v = data_files(path);

            let db = open(path);
            check(&db, &contents);
            let value = format!("here in round {round}").into_bytes();
            db.set(2, &value).unwrap();
            contents.get_mut(&2).unwrap().insert(0, value);
            if incremental {
                assert_eq!(db.insert(b"here").unwrap(), 12 + 2 * round);
                contents.insert(12 + 2 * round, vec![b"here".to_vec()]);
            }
            drop(db);
            let db = open(path);
            check(&db, &contents);
            db.close().unwrap();
            assert_unchanged(path, &by_v);
            let next_id = incremental.then_some(13 + 2 * round);
            check_originals(path, settings, &contents, next_id);
        }
    }
}

#[test]
fn what_v_writes_in_between_is_noticed_in_every_form() {
    // A change that leaves the length of the dump as it was, or of the data files, or of both.
    type Change = fn(&mut Written);
    let changes: [(&str, Change); 4] = [
        ("a new value", |v| v.set(2, b"new")),
        ("a deletion", |v| v.delete(3)),
        ("a deletion and a new id", |v| {
            v.delete(3);
            v.set(300, b"other");
        }),
        ("nothing", |_| {}),
    ];
    for (name, change) in changes {
        let directory = TempDirectory::new();
        let path = directory.path();
        let settings = Settings::DEFAULT.key_value();
        let db = Db::open(
            path,
            &Options {
                key_value: true,
                ..Options::default()
            },
        )
        .unwrap();
        let mut contents = Contents::new();
        for id in 1..=5 {
            let value = format!("value {id}").into_bytes();
            db.set(id, &value).unwrap();
            contents.insert(id, vec![value]);
        }
        db.close().unwrap();
        let mut v = Written {
            db: Herolib::open(path, settings, Port::V).unwrap(),
            contents,
        };
        change(&mut v);
        let Written { db, contents } = v;
        db.close();
        println!("{name}");
        let db = open_for_reading(path);
        check(&db, &contents);
        let report = db.check(|_, _| ControlFlow::Continue(())).unwrap();
        assert!(report.is_sound(), "{name}: {report}");
        drop(db);
        for _ in 0..2 {
            let db = open(path);
            check(&db, &contents);
            db.close().unwrap();
        }
    }
}

#[test]
fn v_goes_on_in_a_directory_of_several_files() {
    let directory = TempDirectory::new();
    let path = directory.path();
    let options = Options {
        file_size: 2000,
        ..Options::default()
    };
    let db = Db::open(path, &options).unwrap();
    let mut contents = Contents::new();
    for n in 0..100 {
        let value = format!("value {n}").into_bytes();
        contents.insert(db.insert(&value).unwrap(), vec![value]);
    }
    db.close().unwrap();
    assert!(path.join("2.db").exists());
    // With larger files V appends to 0.db; what it writes leads to all of ours.
    let mut v = Written {
        db: Herolib::open(path, Settings::DEFAULT, Port::V).unwrap(),
        contents,
    };
    for id in [1, 50, 100] {
        v.set(id, b"by V");
        v.set(id, b"by V again");
    }
    assert_eq!(v.insert(b"one more"), 101);
    let Written { db, contents } = v;
    db.close();
    let db = open(path);
    check(&db, &contents);
    assert_eq!(db.next_id().unwrap(), 102);
    db.close().unwrap();
    check_originals(path, Settings::DEFAULT, &contents, Some(102));
}

#[test]
fn what_v_destroys_is_refused_and_the_rest_is_salvaged() {
    let directory = TempDirectory::new();
    let path = directory.path();
    let options = Options {
        file_size: 1000,
        ..Options::default()
    };
    let db = Db::open(path, &options).unwrap();
    for n in 0..50 {
        db.insert(format!("value {n}").as_bytes()).unwrap();
    }
    db.close().unwrap();
    // V finds 0.db full and creates 1.db anew.
    let mut v = Herolib::open(path, Settings::DEFAULT.file_size(1000), Port::V).unwrap();
    let (first, lost) = (v.place(1), v.place(30));
    assert_eq!((first.0, lost.0), (0, 1));
    v.set(1, b"by V").unwrap();
    assert_eq!(v.place(1), (1, 1));
    v.close();
    match Db::open(path, &Options::default()) {
        Err(Error::Corrupt { file, .. }) => assert!(file.ends_with("1.db"), "{file}"),
        other => panic!("{:?}", other.err()),
    }
    let options = Options {
        salvage: true,
        ..Options::default()
    };
    let db = Db::open(path, &options).unwrap();
    assert_eq!(db.get(2).unwrap(), b"value 1");
    assert_eq!(db.get(50).unwrap(), b"value 49");
    assert!(db.get(30).is_err(), "its file was emptied");
}

#[test]
fn a_record_set_after_its_deletion_keeps_its_history() {
    let directory = TempDirectory::new();
    let path = directory.path();
    let settings = Settings::DEFAULT.key_value();
    let mut written = Written::new(path, settings, Port::V);
    written.set(6, b"by V");
    written.db.close();
    let db = open(path);
    db.delete(6).unwrap();
    db.set(6, b"set again").unwrap();
    let states = |db: &Db| -> Vec<(State, Vec<u8>)> {
        let history = db.history(6, 0).unwrap();
        history
            .iter()
            .map(|record| (record.state, record.value.to_vec()))
            .collect()
    };
    let expected = [
        (State::Live, b"set again".to_vec()),
        (State::Deleted, Vec::new()),
        (State::Live, b"by V".to_vec()),
    ];
    assert_eq!(states(&db), expected);
    db.close().unwrap();
    // To the originals the deletion is an empty version.
    let mut go = Herolib::open(path, settings, Port::Go).unwrap();
    let expected_there: Vec<_> = expected.iter().map(|(_, value)| value.clone()).collect();
    assert_eq!(go.history(6, 255).unwrap(), expected_there);
    assert_eq!(states(&open(path)), expected);
}

#[test]
fn reset_and_destroy_remove_herolibs_files_and_no_others() {
    for plain in [false, true] {
        for reset in [false, true] {
            let directory = TempDirectory::new();
            let path = directory.path();
            let written = fill(path, Settings::DEFAULT.file_size(300), Port::Go);
            if plain {
                written.db.close_plain()
            } else {
                written.db.close()
            }
            for name in ["a.db", "00.db", "notes.txt"] {
                fs::write(path.join(name), "mine").unwrap();
            }
            let mut mine = vec!["00.db", "a.db", "notes.txt"];
            if plain {
                mine.extend(["lookup_dump.db.plain", "lookup_dump.db.plain.inc"]);
                mine.sort_unstable();
            }
            if reset {
                let options = Options {
                    reset: true,
                    ..Options::default()
                };
                let db = Db::open(path, &options).unwrap();
                assert_eq!((db.count().unwrap(), db.next_id().unwrap()), (0, 1));
                db.destroy().unwrap();
            } else {
                open(path).destroy().unwrap();
            }
            assert_eq!(listing(path), mine);
        }
    }
}

#[test]
fn a_crash_in_the_compaction_of_what_was_taken_over_leaves_nothing_for_good() {
    crash_in_the_compaction_of_what_was_taken_over(&[]);
}

/// Then the log stands behind a data file of a high number, and what is compacted between the others.
#[test]
fn a_crash_in_a_compaction_between_high_and_low_numbers_leaves_nothing_for_good() {
    crash_in_the_compaction_of_what_was_taken_over(&["65000.db"]);
}

fn crash_in_the_compaction_of_what_was_taken_over(empty: &[&str]) {
    const SECRET: &[u8] = b"secret";
    let directory = TempDirectory::new();
    let mut herolib = Herolib::open(directory.path(), Settings::DEFAULT, Port::V).unwrap();
    let erased = herolib.insert(SECRET);
    let kept = herolib.insert(b"kept");
    herolib.close();
    let path = |name: &String| directory.path().join(name);
    let names = listing(directory.path());
    let names = names.into_iter().filter(|name| path(name).is_file());
    let files = names.map(|name| (name.clone(), fs::read(path(&name)).unwrap()));
    let empty_files = empty.iter().map(|name| (name.to_string(), vec![0]));
    let files = files.chain(empty_files).collect();
    let storage = SimStorage::new(Disk::holding(&files), true, 5);
    let open = |storage: &SimStorage| {
        Db::open_on(Arc::new(storage.clone()), &Options::default()).expect("it opens")
    };

    let db = open(&storage);
    db.set(kept, b"ours").unwrap();
    db.sync().unwrap();
    let before = storage.events();
    let go_on = |_: u64, _: u64| ControlFlow::Continue(());
    db.compact(&Retention::default(), go_on).unwrap();
    db.close().unwrap();
    let history = storage.history();
    for calls in before..=history.events.len() {
        let crashed = history.after(calls);
        for disk in [crashed.clone(), crashed.lose_power(&Loss::OF_EVERYTHING)] {
            let storage = SimStorage::new(disk, true, 6);
            let db = open(&storage);
            assert_eq!(db.get(erased).unwrap(), SECRET, "{calls}");
            db.erase(erased).unwrap();
            assert_eq!(db.get(kept).unwrap(), b"ours", "{calls}");
            db.close().unwrap();

            let disk = storage.disk();
            let generation = disk.read("MANIFEST").unwrap()[32];
            for name in disk.files() {
                let content = disk.read(&name).unwrap();
                let found = content.windows(SECRET.len()).any(|bytes| bytes == SECRET);
                assert!(!found, "{calls}: what was erased is in {name}");
                assert!(
                    !name.starts_with("base.") || name == format!("base.{generation}"),
                    "{calls}: {name} is left in generation {generation}"
                );
            }
            for name in empty.iter().chain(&["0.db"]) {
                assert_eq!(
                    generation == 1,
                    disk.read(name).is_none(),
                    "{calls}: {name}"
                );
            }
            if generation == 1 {
                assert_eq!(disk.read("1.db").is_some(), !empty.is_empty(), "{calls}");
            }
            let db = open(&storage);
            assert_eq!(db.get(kept).unwrap(), b"ours", "{calls}");
        }
    }
}

/// The files of a directory, those in directories of it too.
fn contents(path: &Path, prefix: &str, files: &mut BTreeMap<String, Vec<u8>>) {
    for entry in fs::read_dir(path).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{prefix}{}", entry.file_name().into_string().unwrap());
        match entry.file_type().unwrap().is_dir() {
            true => contents(&entry.path(), &format!("{name}/"), files),
            false => drop(files.insert(name, fs::read(entry.path()).unwrap())),
        }
    }
}

/// herolib's files are on disk, or but their names are. A kill within the takeover, an opening, a write that
/// is on disk, and a loss of power at any moment.
#[test]
fn a_takeover_is_on_disk_before_anything_is_built_upon_it() {
    let settings = Settings::DEFAULT.key_value();
    for (takeovers, is_on_disk) in [(1, false), (1, true), (2, false), (2, true)] {
        let directory = TempDirectory::new();
        let path = directory.path();
        let mut herolib = Herolib::open(path, settings, Port::V).unwrap();
        (1..=5).for_each(|id| herolib.set(id, &[7; 50]).unwrap());
        herolib.close();
        if takeovers == 2 {
            let db = open(path);
            db.set(100, b"ours").unwrap();
            db.close().unwrap();
            let mut herolib = Herolib::open(path, settings, Port::V).unwrap();
            herolib.set(6, &[7; 50]).unwrap();
            herolib.close();
        }
        let mut files = BTreeMap::new();
        contents(path, "", &mut files);
        let before = match is_on_disk {
            true => Disk::holding(&files),
            false => {
                let names = files.keys().map(|name| (name.clone(), Vec::new()));
                let storage = SimStorage::new(Disk::holding(&names.collect()), true, 1);
                for (name, bytes) in &files {
                    let file = storage.open(name, Access::Write).unwrap();
                    file.write_at(0, &[bytes]).unwrap();
                }
                storage.disk()
            }
        };
        let taken_over = |storage: &SimStorage| {
            let db = Db::open_on(Arc::new(storage.clone()), &Options::default()).expect("it opens");
            db.set(300, b"on disk").unwrap();
            db.sync().unwrap();
            drop(db);
        };
        let storage = SimStorage::new(before, true, 2);
        taken_over(&storage);
        let history = storage.history();
        for killed in 0..=history.events.len() {
            let storage = SimStorage::new(history.after(killed), true, 3);
            taken_over(&storage);
            let again = storage.history();
            for lost in 0..=again.events.len() {
                let disk = again.after(lost);
                let unsynced = Unsynced::of(&disk);
                let is_synced = lost == again.events.len();
                for kept in unsynced.ways(7).into_iter().take(20) {
                    let what = format!("{takeovers}, {is_on_disk}, {killed}, {lost}: {kept:?}");
                    let storage = SimStorage::new(disk.keep(&unsynced, &kept), true, 4);
                    let db = match Db::open_on(Arc::new(storage), &Options::default()) {
                        Ok(db) => db,
                        // herolib's own files may not be there before the takeover is.
                        Err(_) if !is_on_disk && !is_synced && killed < history.events.len() => {
                            continue;
                        }
                        Err(error) => panic!("{what}: {error}"),
                    };
                    if is_synced {
                        assert!(db.contains(300).unwrap(), "{what}");
                        assert_eq!(db.get(5).unwrap(), [7; 50], "{what}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_read_that_fails_while_taking_over_loses_nothing() {
    let directory = TempDirectory::new();
    let db = open(directory.path());
    for value in [b"one", b"two", b"six"] {
        db.insert(value).unwrap();
    }
    db.delete(2).unwrap();
    db.close().unwrap();
    let mut herolib = Herolib::open(directory.path(), Settings::DEFAULT, Port::Go).unwrap();
    herolib.set(1, b"by herolib").unwrap();
    herolib.close();
    let mut files = BTreeMap::new();
    contents(directory.path(), "", &mut files);
    for after in 0.. {
        let storage = SimStorage::new(Disk::holding(&files), true, 1);
        storage.fail(Some(Fault {
            calls: Calls::Reading,
            after,
            errno: Errno::Io,
            partly: false,
            sticky: false,
            pages: Pages::Dirty,
        }));
        let opened = Db::open_on(Arc::new(storage.clone()), &Options::default());
        drop(opened.map(Db::close));
        if storage.hit_count() == 0 {
            assert!(after > 10, "{after} calls");
            break;
        }
        let hit = storage.hits()[0].call.clone();
        storage.fail(None);
        let db = Db::open_on(Arc::new(storage), &Options::default()).unwrap();
        assert_eq!(db.get(1).unwrap(), b"by herolib", "{hit}");
        assert_eq!(db.history(2, 0).unwrap().len(), 2, "{hit}");
        assert_eq!(db.get_version(2, 3).unwrap(), b"two", "{hit}");
    }
}

/// The next opening begins the takeover anew, and reads what was before from the checkpoint: in the log V
/// has zeroed a record.
#[test]
fn a_takeover_that_is_killed_keeps_the_history_of_what_we_deleted() {
    let settings = Settings::DEFAULT.key_value();
    let directory = TempDirectory::new();
    let path = directory.path();
    Herolib::open(path, settings, Port::V).unwrap().close();
    let db = open(path);
    for id in 1..=4 {
        db.set(id, b"ours").unwrap();
    }
    db.delete(1).unwrap();
    db.close().unwrap();
    let mut herolib = Herolib::open(path, settings, Port::V).unwrap();
    herolib.get(3).unwrap();
    herolib.delete(3).unwrap();
    herolib.set(4, b"V's").unwrap();
    herolib.close();
    let mut files = BTreeMap::new();
    contents(path, "", &mut files);
    let storage = SimStorage::new(Disk::holding(&files), true, 1);
    let open = |storage: &SimStorage| {
        Db::open_on(Arc::new(storage.clone()), &Options::default()).expect("it opens")
    };
    drop(open(&storage));
    let history = storage.history();
    for killed in 0..=history.events.len() {
        let storage = SimStorage::new(history.after(killed), true, 2);
        let db = open(&storage);
        let states: Vec<State> = (db.history(1, 0).unwrap().iter())
            .map(|record| record.state)
            .collect();
        assert_eq!(states, [State::Deleted, State::Live], "{killed}");
        assert_eq!(db.get(2).unwrap(), b"ours", "{killed}");
        assert!(db.get(3).is_err(), "{killed}");
        assert_eq!(db.get(4).unwrap(), b"V's", "{killed}");
    }
}

/// Turns of V and of ours, with clears and compactions among ours. What a record was is known from what
/// was done: its versions, newest first, `None` for a deletion.
#[test]
fn a_clear_between_what_v_writes_deletes_what_was_there_before() {
    let settings = Settings::DEFAULT.key_value();
    for seed in 0..60 {
        let mut random = Random::new(seed);
        let directory = TempDirectory::new();
        let path = directory.path();
        let mut model = Versions::new();
        for turn in 0..8u32 {
            let mut herolib = Herolib::open(path, settings, Port::V).unwrap();
            for number in 0..random.below(4) {
                let id = 1 + random.below(6) as u32;
                let value = format!("V {turn} {number}").into_bytes();
                herolib.set(id, &value).unwrap();
                let versions = model.entry(id).or_default();
                // What was deleted is not in its lookup, and so not before what it writes.
                if versions.first().is_some_and(Option::is_none) {
                    versions.clear();
                }
                versions.insert(0, Some(value));
            }
            herolib.close();
            if turn > 0 {
                let what = format!("seed {seed}, turn {turn}, a reader");
                check_versions(&open_for_reading(path), &model, &what);
            }
            let db = open(path);
            for number in 0..random.below(6) {
                match random.below(6) {
                    0 => {
                        db.clear().unwrap();
                        let live = model.values_mut().filter(|versions| versions[0].is_some());
                        live.for_each(|versions| versions.insert(0, None));
                    }
                    1 => {
                        let keep = Retention {
                            keep_versions: 1000,
                            ..Retention::default()
                        };
                        db.compact(&keep, |_, _| ControlFlow::Continue(())).unwrap();
                    }
                    _ => {
                        let id = 1 + random.below(6) as u32;
                        let value = format!("ours {turn} {number}").into_bytes();
                        db.set(id, &value).unwrap();
                        model.entry(id).or_default().insert(0, Some(value));
                    }
                }
            }
            check_versions(&db, &model, &format!("seed {seed}, turn {turn}"));
            db.close().unwrap();
            let what = format!("seed {seed}, turn {turn}, reopened");
            check_versions(&open(path), &model, &what);
        }
    }
}

type Versions = BTreeMap<u32, Vec<Option<Vec<u8>>>>;

/// Everything that asks for a record's versions answers from these.
fn check_versions(db: &Db, model: &Versions, what: &str) {
    let snapshot = db.snapshot().unwrap();
    for (&id, versions) in model {
        let history = db.history(id, 0).unwrap();
        let found = history.iter().map(|record| match record.state {
            State::Live => Some(record.value.to_vec()),
            _ => None,
        });
        assert_eq!(&found.collect::<Vec<_>>(), versions, "{what}: id {id}");
        for found in [db.get(id), snapshot.get(id), db.get_version(id, u64::MAX)] {
            assert_eq!(found.ok(), versions[0], "{what}: id {id}");
        }
    }
    let live = model.values().filter(|versions| versions[0].is_some());
    assert_eq!(db.count().unwrap(), live.count() as u64, "{what}");
    let report = db.check(|_, _| ControlFlow::Continue(())).unwrap();
    assert!(report.is_sound(), "{what}: {report}");
}

/// A record of herolib's has a shorter header than one of ours, until a compaction makes it one.
#[test]
fn figures_count_what_herolibs_records_take() {
    let directory = TempDirectory::new();
    let mut herolib = Herolib::open(directory.path(), Settings::DEFAULT, Port::V).unwrap();
    let ids: Vec<u32> = (0..5).map(|_| herolib.insert(&[1; 100])).collect();
    for round in 2..5 {
        ids.iter()
            .for_each(|&id| herolib.set(id, &[round; 100]).unwrap());
    }
    herolib.close();
    let db = Db::open(directory.path(), &Options::default()).unwrap();
    let figures = || {
        let stats = db.stats().unwrap();
        (stats.bytes_live, stats.bytes_dead)
    };
    let (live, dead) = figures();
    assert_eq!(live, 5 * 112);
    assert!((15 * 112..15 * 112 + 20).contains(&dead), "{dead}");
    db.set(ids[0], &[5; 100]).unwrap();
    assert_eq!(figures().0, 4 * 112 + 140);
    db.compact(&Retention::default(), |_, _| ControlFlow::Continue(()))
        .unwrap();
    assert_eq!(figures().0, 5 * 140);
}

/// Where the file system's clock has not gone on since the close, the dump's time doesn't tell that herolib
/// has written it.
#[test]
fn what_v_writes_within_a_tick_of_the_clock_is_noticed() {
    type Change = fn(&mut Written);
    let changes: [(&str, Change); 3] = [
        ("a new value", |v| v.set(2, b"new")),
        ("a deletion", |v| v.delete(3)),
        ("a deletion and a new id", |v| {
            v.delete(3);
            v.set(300, b"other");
        }),
    ];
    for (name, change) in changes {
        let directory = TempDirectory::new();
        let path = directory.path();
        let options = Options {
            key_value: true,
            ..Options::default()
        };
        let db = Db::open(path, &options).expect(name);
        let mut contents = Contents::new();
        for id in 1..=5 {
            let value = format!("value {id}").into_bytes();
            db.set(id, &value).expect(name);
            contents.insert(id, vec![value]);
        }
        db.close().expect(name);
        let dump = path.join("lookup_dump.db/data");
        let then = fs::metadata(&dump).expect(name).modified().expect(name);
        let mut v = Written {
            db: Herolib::open(path, Settings::DEFAULT.key_value(), Port::V).expect(name),
            contents,
        };
        change(&mut v);
        let Written { db, contents } = v;
        db.close();
        for file in [dump, path.join("MANIFEST")] {
            let file = fs::File::options().write(true).open(file).expect(name);
            file.set_modified(then).expect(name);
        }
        println!("{name}");
        check(&open_for_reading(path), &contents);
        let db = open(path);
        check(&db, &contents);
        db.close().expect(name);
        check(&open(path), &contents);
    }
}
