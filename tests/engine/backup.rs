//! Backups: what they hold, beside whom they are made, what is refused, and what a failure or a
//! crash leaves of them.

use std::collections::HashSet;
use std::fs;
use std::io::Write as _;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::support::herolib::{Herolib, Port, Settings};
use crate::support::model::{Model, Value, Write};
use crate::support::sim::{Calls, Disk, Errno, Fault, History, Loss, Pages, SimStorage};
use crate::support::{Random, TempDirectory, Verdict};
use ourdb::storage::memory::MemoryStorage;
use ourdb::storage::{Access, Storage};
use ourdb::{Db, Error, LookupKind, NotFound, Options, Order, Retention, Sync};

fn on(_done: u64, _total: u64) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn options() -> Options {
    Options {
        record_nr_max: 1000,
        file_size: 3000,
        ..Options::default()
    }
}

fn read_only() -> Options {
    Options {
        read_only: true,
        ..Options::default()
    }
}

fn right(verdict: Verdict, what: &str) {
    verdict.unwrap_or_else(|message| panic!("{what}:\n{message}"));
}

/// A random write that the database can mostly do.
fn any_write(random: &mut Random, key_value: bool) -> Write {
    let value = |random: &mut Random| Value {
        seed: random.next() as u16,
        len: [0, 1, 40, 300, 900][random.below(5) as usize],
    };
    let id = |random: &mut Random| 1 + random.below(12) as u32;
    match random.below(6) {
        0 if !key_value => Write::Insert(value(random)),
        1 if !key_value => Write::InsertMany((0..3).map(|_| value(random)).collect()),
        2 => Write::Delete(id(random)),
        3 if key_value => Write::SetMany((1..9).map(|id| (id, value(random))).collect()),
        _ => Write::Set(id(random), value(random)),
    }
}

fn write_some(random: &mut Random, model: &mut Model, db: &Db, writes: u64) {
    for _ in 0..writes {
        let write = any_write(random, model.key_value);
        right(model.perform(db, &write), "a write");
    }
}

/// Checks that a finished backup is what the model says, for readers and for writers, and that it
/// goes on as a database of its own, in a copy.
fn check_backup(path: &Path, model: &Model, native: bool, random: &mut Random) {
    let db = Db::open(path, &read_only()).expect("a backup opens for reading");
    right(model.check_all(&db), "the backup");
    assert!(db.check(on).expect("a check").is_sound());
    drop(db);
    assert!(path.join("index").exists(), "no checkpoint");
    let dump = path.join("lookup_dump.db/data").exists();
    assert_eq!(dump, !native && model.last_commit() > 0, "herolib's dump");
    let copy = TempDirectory::new();
    copy_directory(path, copy.path());
    let mut model = model.clone();
    for _ in 0..2 {
        let db = Db::open(copy.path(), &Options::default()).expect("a backup opens for writing");
        write_some(random, &mut model, &db, 5);
        db.close().unwrap();
    }
    let db = Db::open(copy.path(), &Options::default()).unwrap();
    right(model.check_all(&db), "a backup that was written to");
}

fn copy_directory(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let there = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_directory(&entry.path(), &there);
        } else {
            fs::copy(entry.path(), there).unwrap();
        }
    }
}

/// All files of a directory, with their content.
fn content(path: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(path).into_iter().flatten() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if entry.file_type().unwrap().is_dir() {
            let inside = content(&entry.path());
            files.extend(inside.into_iter().map(|(n, c)| (format!("{name}/{n}"), c)));
        } else {
            files.push((name, fs::read(entry.path()).unwrap()));
        }
    }
    files.sort();
    files
}

#[test]
fn a_backup_holds_everything_in_every_form() {
    for seed in 0..crate::support::cases(8) {
        let mut random = Random::new(u64::from(seed));
        let key_value = random.chance(50);
        let options = Options {
            key_value,
            native: random.chance(50),
            memory: random.chance(25),
            file_size: [1, 700, 3000, 0][random.below(4) as usize],
            sync: [Sync::Os, Sync::Commit][random.below(2) as usize],
            lookup: [LookupKind::Memory, LookupKind::Disk][random.below(2) as usize],
            ..options()
        };
        println!("seed {seed}: {options:?}");
        let (source, increments) = (TempDirectory::new(), TempDirectory::new());
        let mut model = Model::new(key_value, options.record_nr_max, 0);
        let mut db = Db::open(source.path(), &options).unwrap();
        for round in 0..6 {
            let writes = random.below(20);
            write_some(&mut random, &mut model, &db, writes);
            if random.chance(30) {
                db.sync().unwrap();
            }
            if random.chance(30) && !options.memory {
                if random.chance(50) {
                    db.close().unwrap();
                } else {
                    drop(db);
                }
                db = Db::open(source.path(), &options).unwrap();
            }
            if random.chance(30) && round > 0 {
                // Opened and closed without a write it stays what it is.
                let lookup = [LookupKind::Memory, LookupKind::Disk][random.below(2) as usize];
                let options = Options {
                    lookup,
                    ..Options::default()
                };
                Db::open(increments.path(), &options)
                    .unwrap()
                    .close()
                    .unwrap();
            }
            let full = TempDirectory::new();
            for path in [full.path(), increments.path()] {
                let mut last = None;
                let told = |done, total| {
                    assert!(last.is_none_or(|(before, of)| before <= done && of == total));
                    last = Some((done, total));
                    ControlFlow::Continue(())
                };
                if random.chance(30) && !options.memory {
                    let reader = Db::open(source.path(), &read_only()).unwrap();
                    reader.backup(path, told).unwrap();
                } else {
                    db.backup(path, told).unwrap();
                }
                assert!(last.is_some_and(|(done, total)| done == total));
                check_backup(path, &model, options.native, &mut random);
            }
        }
        right(model.check_all(&db), "the database itself");
    }
}

#[test]
fn an_increment_copies_only_what_is_new() {
    let (source, backup) = (TempDirectory::new(), TempDirectory::new());
    let db = Db::open(source.path(), &options()).unwrap();
    for number in 0..50u64 {
        db.insert(&number.to_le_bytes().repeat(20)).unwrap();
    }
    db.backup(backup.path(), on).unwrap();
    let before = content(backup.path());
    let mut told = Vec::new();
    let mut tell = |done, total| {
        told.push((done, total));
        ControlFlow::Continue(())
    };
    db.backup(backup.path(), &mut tell).unwrap();
    assert_eq!(told, [(0, 0)]);
    assert_eq!(before, content(backup.path()), "nothing was new");
    told.clear();
    db.set(7, b"new").unwrap();
    let mut tell = |done, total| {
        told.push((done, total));
        ControlFlow::Continue(())
    };
    db.backup(backup.path(), &mut tell).unwrap();
    assert!(told[0].1 <= 64 + 43, "{told:?}");
}

#[test]
fn a_long_file_is_copied_in_pieces() {
    let (source, backup) = (TempDirectory::new(), TempDirectory::new());
    let options = Options {
        record_size_max: 40 << 20,
        ..Options::default()
    };
    let value: Vec<u8> = (0..9_000_001u32).map(|at| ((at * 31) >> 7) as u8).collect();
    let memory = Options {
        memory: true,
        ..options.clone()
    };
    for options in [options, memory] {
        let db = Db::open(source.path(), &options).unwrap();
        let id = db.insert(&value).unwrap();
        db.insert(b"behind it").unwrap();
        let mut calls = 0;
        let count = |_, _| {
            calls += 1;
            ControlFlow::Continue(())
        };
        let path = backup.path().join(options.memory.to_string());
        db.backup(&path, count).unwrap();
        assert!(calls >= 3, "{calls} calls of the progress");
        let copy = Db::open(&path, &read_only()).unwrap();
        assert!(copy.get(id).unwrap() == value);
        assert_eq!(copy.get(id + 1).unwrap(), b"behind it");
    }
}

#[test]
fn beside_two_writers_it_is_of_one_commit() {
    let (source, backup) = (TempDirectory::new(), TempDirectory::new());
    let options = Options {
        key_value: true,
        file_size: 20_000,
        ..options()
    };
    let db = Db::open(source.path(), &options).unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for writer in 0..2u32 {
            let (db, done) = (&db, &done);
            scope.spawn(move || {
                let mut round = 0u32;
                while !done.load(Ordering::Relaxed) && round < 200_000 {
                    round += 1;
                    let value = round.to_le_bytes();
                    let group: Vec<(u32, &[u8])> =
                        (0..5).map(|id| (writer * 100 + id, &value[..])).collect();
                    db.set_many(&group).unwrap();
                }
            });
        }
        let mut before = 0;
        for number in 0..12 {
            let visible = db.last_commit().unwrap();
            db.backup(backup.path(), on).unwrap();
            let copy = Db::open(backup.path(), &read_only()).unwrap();
            let commit = copy.last_commit().unwrap();
            assert!(
                commit >= visible && visible >= before,
                "backup {number} ends with commit {commit}, and {visible} was visible"
            );
            before = commit;
            assert!(copy.check(on).unwrap().is_sound());
            let mut rounds = 0;
            for writer in 0..2 {
                let value = |id: u32| match copy.get(writer * 100 + id) {
                    Ok(value) => u64::from(u32::from_le_bytes(value.try_into().unwrap())),
                    Err(Error::NotFound(_)) => 0,
                    Err(error) => panic!("{error}"),
                };
                let round = value(0);
                assert!((1..5).all(|id| value(id) == round), "half a commit");
                rounds += round;
            }
            assert_eq!(rounds, commit, "commits are missing");
        }
        done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn what_was_taken_over_is_backed_up_too() {
    let settings = Settings {
        record_size_max: 65_535,
        ..Settings::DEFAULT
    };
    let (source, backup) = (TempDirectory::new(), TempDirectory::new());
    let mut herolib = Herolib::open(source.path(), settings, Port::Go).unwrap();
    for id in 1..=5 {
        assert_eq!(herolib.insert(&[id as u8; 30]), id);
    }
    herolib.set(2, b"second").unwrap();
    herolib.close();
    let check = |path: &Path, more: &[(u32, &[u8])]| {
        let db = Db::open(path, &read_only()).unwrap();
        for (id, value) in more {
            assert_eq!(db.get(*id).unwrap(), *value);
        }
        assert_eq!(db.get(1).unwrap(), [1; 30]);
        assert_eq!(db.history(2, 0).unwrap().len(), 2);
        assert!(db.check(on).unwrap().is_sound());
    };
    // Only read, it isn't taken over: what it builds upon is in memory.
    let reader = Db::open(source.path(), &read_only()).unwrap();
    let of_reader = TempDirectory::new();
    reader.backup(of_reader.path(), on).unwrap();
    check(of_reader.path(), &[(2, b"second")]);
    reader.backup(of_reader.path(), on).unwrap();
    check(of_reader.path(), &[(2, b"second")]);

    let db = Db::open(source.path(), &Options::default()).unwrap();
    db.backup(backup.path(), on).unwrap();
    check(backup.path(), &[(2, b"second")]);
    db.set(3, b"ours").unwrap();
    db.backup(backup.path(), on).unwrap();
    check(backup.path(), &[(2, b"second"), (3, b"ours")]);
    db.close().unwrap();

    // Another generation: all is frozen, and herolib's dump is the truth.
    let mut herolib = Herolib::open(source.path(), settings, Port::Go).unwrap();
    herolib.set(4, b"herolib again").unwrap();
    herolib.close();
    let reader = Db::open(source.path(), &read_only()).unwrap();
    let of_reader = TempDirectory::new();
    reader.backup(of_reader.path(), on).unwrap();
    let expected: &[(u32, &[u8])] = &[(3, b"ours"), (4, b"herolib again")];
    check(of_reader.path(), expected);
    drop(reader);
    let db = Db::open(source.path(), &Options::default()).unwrap();
    db.set(5, b"ours again").unwrap();
    for _ in 0..2 {
        db.backup(backup.path(), on).unwrap();
        check(backup.path(), &[expected, &[(5, b"ours again")]].concat());
        assert!(!backup.path().join("base.0").exists());
        db.set(5, b"ours again").unwrap();
    }
    db.close().unwrap();
    // herolib reads the backup.
    let mut herolib = Herolib::open(backup.path(), settings, Port::Go).unwrap();
    assert_eq!(herolib.get(4).unwrap(), b"herolib again");
}

fn assert_refused(result: Result<(), Error>, what: &str, words: &str) {
    match result {
        Err(Error::Incompatible(message)) => {
            assert!(message.contains(words), "{what}: {message}");
        }
        result => panic!("{what}: {result:?}"),
    }
}

#[test]
fn what_is_no_backup_of_it_is_refused_and_stays() {
    let (source, place) = (TempDirectory::new(), TempDirectory::new());
    let db = Db::open(source.path(), &options()).unwrap();
    db.insert(b"one").unwrap();
    let refused = |path: &Path, what: &str, words: &str| {
        let before = content(path);
        assert_refused(db.backup(path, on), what, words);
        assert!(before == content(path), "{what} was changed");
    };

    let foreign = place.path().join("foreign");
    fs::create_dir(&foreign).unwrap();
    fs::write(foreign.join("letter.txt"), "not a database").unwrap();
    refused(&foreign, "a foreign directory", "isn't empty");

    let herolib = place.path().join("herolib");
    let mut written = Herolib::open(&herolib, Settings::DEFAULT, Port::V).unwrap();
    written.insert(b"herolib's");
    written.close();
    refused(&herolib, "herolib's directory", "isn't empty");

    let other = place.path().join("other");
    let another = Db::open(&other, &options()).unwrap();
    another.insert(b"another").unwrap();
    another.close().unwrap();
    refused(&other, "another database", "another database");
    let backup_of_other = place.path().join("backup of other");
    let another = Db::open(&other, &options()).unwrap();
    another.backup(&backup_of_other, on).unwrap();
    refused(&backup_of_other, "another's backup", "another database");

    let copied = place.path().join("copied");
    copy_directory(source.path(), &copied);
    refused(&copied, "a copy of it", "no backup");

    let backup = place.path().join("backup");
    db.backup(&backup, on).unwrap();
    for (what, closed) in [("written and closed", true), ("written and left", false)] {
        let written = place.path().join(what);
        copy_directory(&backup, &written);
        let opened = Db::open(&written, &Options::default()).unwrap();
        opened.set(1, b"changed").unwrap();
        if closed {
            opened.close().unwrap();
        }
        refused(&written, what, "written to");
    }
    for what in ["appended to by others", "written to by herolib"] {
        let by_others = place.path().join(what);
        copy_directory(&backup, &by_others);
        if what.ends_with("herolib") {
            let settings = Settings {
                record_size_max: 65_535,
                record_nr_max: 1000,
                ..Settings::DEFAULT
            };
            let mut herolib = Herolib::open(&by_others, settings, Port::Go).unwrap();
            herolib.set(1, b"herolib's").unwrap();
            herolib.close();
        } else {
            let mut options = fs::OpenOptions::new();
            let file = options.append(true).open(by_others.join("0.db"));
            file.unwrap().write_all(b"appended").unwrap();
        }
        refused(&by_others, what, "written to");
        let opened = Db::open(&by_others, &Options::default()).unwrap();
        opened.close().unwrap();
        refused(&by_others, "taken over", "written to");
    }

    // A foreign file where one of the backup's belongs.
    let in_the_way = place.path().join("in the way");
    copy_directory(&backup, &in_the_way);
    fs::write(in_the_way.join("1.db"), "mine").unwrap();
    let before = content(source.path());
    for _ in 0..40 {
        db.insert(&[7; 100]).unwrap();
    }
    assert!(before != content(source.path()));
    refused(&in_the_way, "a file in the way", "1.db");

    // Ahead, and apart.
    let early = place.path().join("early");
    copy_directory(&backup, &early);
    db.backup(&backup, on).unwrap();
    drop(db);
    let older = Db::open(&early, &Options::default()).unwrap();
    assert_refused(
        older.backup(&backup, on),
        "a backup that is ahead",
        "commit",
    );
    for _ in 0..60 {
        older.insert(&[7; 100]).unwrap();
    }
    let before = content(&backup);
    assert_refused(older.backup(&backup, on), "apart", "another history");
    assert!(before == content(&backup));
}

#[test]
fn its_own_directory_and_one_that_is_open_are_refused() {
    let (source, backup) = (TempDirectory::new(), TempDirectory::new());
    let db = Db::open(source.path(), &options()).unwrap();
    db.insert(b"one").unwrap();
    let own = source.path().join("..");
    let own = own.join(source.path().file_name().unwrap());
    let is_own = |result| matches!(result, Err(Error::InvalidArgument(_)));
    assert!(is_own(db.backup(&own, on)));
    assert!(is_own(db.backup("", on)));
    let reader = Db::open(source.path(), &read_only()).unwrap();
    assert!(is_own(reader.backup(&own, on)));
    db.backup(backup.path(), on).unwrap();
    let of_backup = Db::open(backup.path(), &read_only()).unwrap();
    assert!(is_own(of_backup.backup(backup.path(), on)));

    let opened = Db::open(backup.path(), &Options::default()).unwrap();
    db.insert(b"two").unwrap();
    let locked = db.backup(backup.path(), on);
    assert!(matches!(locked, Err(Error::Locked { .. })), "{locked:?}");
    drop(opened);
    db.backup(backup.path(), on).unwrap();
    // While it is made, it is locked, and readers see the earlier one.
    db.insert(b"three").unwrap();
    let look = |_, _| {
        let writer = Db::open(backup.path(), &Options::default());
        assert!(matches!(writer, Err(Error::Locked { .. })));
        let again = db.backup(backup.path(), on);
        assert!(matches!(again, Err(Error::Locked { .. })));
        let reader = Db::open(backup.path(), &read_only()).unwrap();
        assert_eq!(reader.last_commit().unwrap(), 2);
        assert_eq!(reader.get(2).unwrap(), b"two");
        ControlFlow::Continue(())
    };
    db.backup(backup.path(), look).unwrap();
    // A backup of a backup.
    let second = TempDirectory::new();
    let of_backup = Db::open(backup.path(), &read_only()).unwrap();
    of_backup.backup(second.path(), on).unwrap();
    db.insert(b"four").unwrap();
    db.backup(second.path(), on).unwrap();
    let reader = Db::open(second.path(), &read_only()).unwrap();
    assert_eq!(reader.get(4).unwrap(), b"four");
}

/// Until all of it was compared, the directory holds the backup of before, or says that there is none.
#[test]
fn a_backup_is_none_until_it_is_done() {
    const CLOSED: u8 = 0;
    const UNFINISHED: u8 = 4;
    const EXTENDED: u8 = 5;
    let db = Db::open_on(Arc::new(MemoryStorage::new()), &options()).unwrap();
    let mut destination = simulated(Disk::new(), 1);
    for under_way in [UNFINISHED, EXTENDED] {
        for round in 0..2 {
            for number in 0..20u8 {
                db.insert(&[number; 400]).unwrap();
            }
            if round == 0 {
                db.clear().unwrap();
            }
        }
        db.backup_to(Arc::new(destination.clone()), on).unwrap();
        let mut states = Vec::new();
        let seen = destination.history().replay(|_, disk| {
            states.extend(disk.read("MANIFEST").map(|manifest| manifest[42]));
            Ok(())
        });
        right(seen, "the destination");
        states.dedup();
        states.retain(|&state| state != CLOSED || under_way == UNFINISHED);
        let expected = match under_way {
            UNFINISHED => vec![UNFINISHED, CLOSED],
            state => vec![state],
        };
        assert_eq!(states, expected);
        destination = simulated(destination.disk(), 2);
    }
}

#[test]
fn a_damaged_database_gives_no_backup() {
    let (source, backup) = (TempDirectory::new(), TempDirectory::new());
    let db = Db::open(source.path(), &options()).unwrap();
    for _ in 0..60 {
        db.insert(&[7; 100]).unwrap();
    }
    db.close().unwrap();
    let mut bytes = fs::read(source.path().join("1.db")).unwrap();
    bytes[500] ^= 1;
    fs::write(source.path().join("1.db"), bytes).unwrap();
    let db = Db::open(source.path(), &read_only()).unwrap();
    let made = db.backup(backup.path(), on);
    assert!(matches!(made, Err(Error::Corrupt { .. })), "{made:?}");
    let opened = Db::open(backup.path(), &Options::default()).map(drop);
    assert_refused(opened, "what is left", "unfinished backup");
    drop(db);
    fs::remove_file(source.path().join("1.db")).unwrap();
    let salvage = Options {
        salvage: true,
        ..Options::default()
    };
    let db = Db::open(source.path(), &salvage).unwrap();
    let made = db.backup(backup.path(), on);
    assert!(matches!(made, Err(Error::Corrupt { .. })), "{made:?}");
}

/// What a destination may be found to hold, and the database that it is to be a backup of.
struct Scene {
    name: &'static str,
    /// The backup that is there already.
    earlier: Option<Model>,
    disk: Disk,
    source: Db,
    model: Model,
}

fn simulated(disk: Disk, seed: u64) -> SimStorage {
    SimStorage::new(disk, true, seed)
}

/// A database in memory with the uuid of another and the next generation, whose data files have
/// higher numbers, as a compaction leaves it, or the same ones.
fn next_generation(manifest: &[u8], beside: bool, random: &mut Random) -> (Db, Model) {
    let mut manifest = manifest[..112].to_vec();
    manifest[32] = 1;
    manifest[41] = 1;
    manifest[42] = 0;
    manifest[56..112].fill(0);
    manifest[56] = 1;
    let crc = crc32fast::hash(&manifest);
    manifest.extend_from_slice(&crc.to_le_bytes());
    let mut files = std::collections::BTreeMap::from([("MANIFEST".to_owned(), manifest)]);
    if beside {
        for number in 0..20 {
            files.insert(format!("{number}.db"), b"somebody's".to_vec());
        }
    }
    let storage = simulated(Disk::holding(&files), 77);
    let db = Db::open_on(Arc::new(storage), &Options::default()).expect("the next generation");
    let mut model = Model::new(false, 1000, 0);
    write_some(random, &mut model, &db, 25);
    (db, model)
}

fn scenes() -> Vec<Scene> {
    let options = Options {
        file_size: 1500,
        ..options()
    };
    let mut random = Random::new(5);
    let mut model = Model::new(false, options.record_nr_max, 0);
    let place = Arc::new(simulated(Disk::new(), 1));
    let source = Db::open_on(Arc::clone(&place) as _, &options).unwrap();
    write_some(&mut random, &mut model, &source, 14);
    source.sync().unwrap();
    let destination = simulated(Disk::new(), 2);
    let earlier = model.clone();
    source.backup_to(Arc::new(destination.clone()), on).unwrap();
    let disk = destination.disk();
    write_some(&mut random, &mut model, &source, 5);
    source.sync().unwrap();
    write_some(&mut random, &mut model, &source, 9);
    let manifest = place.disk().read("MANIFEST").unwrap().to_vec();
    let again = Db::open_on(Arc::new(simulated(place.disk(), 3)), &read_only()).unwrap();
    let (beside, beside_model) = next_generation(&manifest, true, &mut random);
    let (over, over_model) = next_generation(&manifest, false, &mut random);
    let scene = |name, earlier, disk, source, model| Scene {
        name,
        earlier,
        disk,
        source,
        model,
    };
    vec![
        scene("the first", None, Disk::new(), again, model.clone()),
        scene(
            "beside another generation",
            Some(earlier.clone()),
            disk.clone(),
            beside,
            beside_model,
        ),
        scene(
            "over another generation",
            Some(earlier.clone()),
            disk.clone(),
            over,
            over_model,
        ),
        scene("an increment", Some(earlier), disk, source, model),
    ]
}

impl Scene {
    fn backup(&self, storage: &SimStorage) -> Result<(), Error> {
        self.source.backup_to(Arc::new(storage.clone()), on)
    }

    /// Opens what is left for reading, or for writing and closing: the earlier backup, the new one,
    /// or a refusal that says what it is. Whether it is a backup.
    fn check_left(&self, storage: &SimStorage, options: &Options, finished: bool) -> bool {
        let error = match Db::open_on(Arc::new(storage.clone()), options) {
            Ok(db) => {
                let commit = db.last_commit().unwrap();
                let model = match &self.earlier {
                    Some(earlier) if !finished && earlier.check_all(&db).is_ok() => earlier,
                    _ => &self.model,
                };
                right(
                    model.check_all(&db),
                    &format!("{}: opened with commit {commit}", self.name),
                );
                if !options.read_only {
                    db.close().expect("a close without a write");
                }
                return true;
            }
            Err(error) => error,
        };
        let clear = match &error {
            Error::Incompatible(message) => message.contains("an unfinished backup"),
            Error::NotFound(NotFound::Database(_)) => self.earlier.is_none(),
            _ => false,
        };
        assert!(
            clear && !finished,
            "{}: finished {finished}, refused with: {error}",
            self.name
        );
        false
    }

    /// Everything that may come after a failure.
    fn check_after(&self, disk: &Disk, seed: u64) {
        let must_exist = Options {
            must_exist: true,
            ..Options::default()
        };
        let storage = simulated(disk.clone(), seed);
        let events = storage.events();
        self.check_left(&storage, &read_only(), false);
        assert_eq!(events, storage.events(), "a reader has changed something");
        // Right away, or after somebody has opened it for writing.
        let opened = simulated(disk.clone(), seed);
        self.check_left(&opened, &must_exist, false);
        for storage in [storage, opened] {
            let again = self.backup(&storage);
            again.unwrap_or_else(|error| panic!("{}: made again: {error}", self.name));
            let left = storage.disk().lose_power(&Loss::OF_EVERYTHING);
            let storage = simulated(left, seed);
            self.check_left(&storage, &read_only(), true);
            self.check_left(&storage, &must_exist, true);
        }
    }
}

/// The disk as it may be found after each call of `history`, each way once: the process has died,
/// in the middle of the next call too, or the power has failed. `lost` says which it was.
fn crashes(
    history: &History,
    cases: u64,
    random: &mut Random,
    mut visit: impl FnMut(&Disk, bool),
) -> usize {
    let mut seen = HashSet::new();
    let replayed = history.replay(|calls, disk| {
        let next = history.events.get(calls);
        let parts = next.map_or(Vec::new(), |event| event.partly());
        let mut left = vec![(disk.clone(), false)];
        left.extend(parts.iter().map(|part| (disk.after(part), false)));
        for case in 0..cases {
            let loss = Loss::case(case, random.next());
            left.push((disk.lose_power(&loss), true));
        }
        for (disk, lost) in left {
            if seen.insert((disk.fingerprint(), lost)) {
                visit(&disk, lost);
            }
        }
        Ok(())
    });
    right(replayed, "the calls again");
    seen.len()
}

#[test]
fn a_crash_leaves_a_backup_or_one_to_be_finished() {
    let mut random = Random::new(11);
    for scene in scenes() {
        let storage = simulated(scene.disk.clone(), 4);
        scene.backup(&storage).unwrap();
        let history = storage.history();
        let (mut open, mut killed) = (0, Vec::new());
        let seed = random.next();
        let images = crashes(&history, 16, &mut random, |disk, lost| {
            let place = simulated(disk.clone(), seed);
            open += usize::from(scene.check_left(&place, &read_only(), false));
            scene.check_after(disk, seed);
            if !lost {
                killed.push(disk.clone());
            }
        });
        println!("{}: {images} images, {open} open", scene.name);
        assert!(images > 50, "only {images} images");
        if scene.name == "an increment" {
            assert_eq!(open, images, "the earlier backup is there until it is done");
        }
        // The process died, and while the backup is made again there is another crash.
        let mut images = 0;
        for disk in killed {
            let storage = simulated(disk, seed);
            scene.backup(&storage).unwrap();
            images += crashes(&storage.history(), 3, &mut random, |disk, _| {
                let place = simulated(disk.clone(), seed);
                scene.check_left(&place, &read_only(), false);
            });
        }
        println!("{}: {images} images after two crashes", scene.name);
    }
}

/// Where a later backup was being added to an earlier one, opening puts the earlier one back: not when
/// that is damaged, and refused for it.
#[test]
fn what_is_refused_of_an_interrupted_increment_stays() {
    let scene = scenes().pop().expect("an increment");
    let storage = simulated(scene.disk.clone(), 4);
    scene.backup(&storage).unwrap();
    let mut interrupted = Vec::new();
    let found = storage.history().replay(|_, disk| {
        // Its state in the manifest.
        if disk.read("MANIFEST").is_some_and(|bytes| bytes[42] == 5) {
            interrupted.push(disk.clone());
        }
        Ok(())
    });
    right(found, "the calls again");
    let content = |disk: &Disk| {
        let files = disk.files().into_iter();
        let held = files.map(|name| (disk.read(&name).map(<[u8]>::to_vec), name));
        held.collect::<Vec<_>>()
    };
    let writing = Options {
        must_exist: true,
        ..Options::default()
    };
    let (mut refused, mut random) = (0, Random::new(12));
    for disk in &interrupted {
        for name in disk.files() {
            let bytes = disk.read(&name).expect("it is there");
            let mut damages = vec![None];
            for _ in 0..bytes.len().min(20) {
                let mut damaged = bytes.to_vec();
                damaged[random.below(bytes.len() as u64) as usize] ^= 1 << random.below(8);
                damages.push(Some(damaged));
            }
            for damage in damages {
                let damaged = disk.with(&name, damage);
                let place = simulated(damaged.clone(), 5);
                let Err(error) = Db::open_on(Arc::new(place.clone()), &writing) else {
                    continue;
                };
                refused += 1;
                let left = place.disk();
                assert!(
                    content(&left) == content(&damaged),
                    "{name} damaged: refused with {error}, and something has changed"
                );
            }
        }
    }
    println!("{} images, {refused} refused", interrupted.len());
    assert!(interrupted.len() > 20 && refused > 1000);
}

#[test]
fn a_call_that_fails_leaves_a_backup_or_one_to_be_finished() {
    for scene in scenes() {
        let mut failures = 0;
        for calls in [Calls::Reading, Calls::Changing, Calls::Syncing] {
            for errno in [Errno::Io, Errno::NoSpace] {
                if calls == Calls::Reading && errno == Errno::NoSpace {
                    continue;
                }
                for after in 0.. {
                    let storage = simulated(scene.disk.clone(), 4);
                    storage.fail(Some(Fault {
                        calls,
                        after,
                        errno,
                        sticky: after % 2 == 1,
                        partly: after % 3 == 1,
                        pages: [Pages::Dirty, Pages::Clean, Pages::Dropped][after % 3],
                    }));
                    let made = scene.backup(&storage);
                    storage.fail(None);
                    if storage.hit_count() == 0 {
                        made.unwrap();
                        break;
                    }
                    failures += 1;
                    if made.is_ok() {
                        let left = storage.disk().lose_power(&Loss::OF_EVERYTHING);
                        scene.check_left(&simulated(left, 5), &read_only(), true);
                        continue;
                    }
                    if errno == Errno::NoSpace {
                        assert!(matches!(made, Err(Error::NoSpace { .. })), "{made:?}");
                    }
                    scene.check_after(&storage.disk(), 6);
                    let left = storage.disk().lose_power(&Loss::OF_EVERYTHING);
                    scene.check_after(&left, 6);
                }
            }
        }
        println!("{}: {failures} failures", scene.name);
    }
}

#[test]
fn cancelled_at_any_moment_it_can_be_made_again() {
    for scene in scenes() {
        let mut stopped = 0;
        loop {
            let storage = simulated(scene.disk.clone(), 4);
            let mut left = stopped;
            let stop = |_, _| {
                left -= 1;
                if left < 0 {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            };
            match scene.source.backup_to(Arc::new(storage.clone()), stop) {
                Ok(()) => break,
                Err(error) => assert!(matches!(error, Error::Cancelled), "{error}"),
            }
            scene.check_after(&storage.disk(), 6);
            // Whoever writes to the earlier backup makes a database of its own of it.
            if let Ok(db) = Db::open_on(Arc::new(storage.clone()), &Options::default()) {
                db.insert(b"written to").unwrap();
                if stopped % 2 == 0 {
                    db.close().unwrap();
                } else {
                    drop(db);
                }
                if scene.earlier.is_some() {
                    assert_refused(scene.backup(&storage), scene.name, "written to");
                }
            }
            stopped += 1;
        }
        assert!(stopped > 2, "{}: told {stopped} times", scene.name);
    }
}

#[test]
fn from_memory_into_memory() {
    let options = Options {
        memory: true,
        ..options()
    };
    let db = Db::open("", &options).unwrap();
    let place = Arc::new(MemoryStorage::new());
    for round in 1..=3u32 {
        db.insert(&round.to_le_bytes()).unwrap();
        db.backup_to(Arc::clone(&place) as _, on).unwrap();
        let copy = Db::open_on(Arc::clone(&place) as _, &read_only()).unwrap();
        assert_eq!(copy.last_commit().unwrap(), u64::from(round));
        assert_eq!(copy.get(round).unwrap(), round.to_le_bytes());
    }
}

/// Two databases of one beginning that were compacted since: no commit of theirs is left to be compared.
#[test]
fn a_backup_of_another_history_that_was_compacted_is_refused() {
    let options = Options {
        key_value: true,
        native: true,
        ..options()
    };
    let set_all = |db: &Db, value: &[u8]| {
        (1..=10).for_each(|id| db.set(id, value).unwrap());
        db.compact(&Retention::default(), on).unwrap();
    };
    let memory = || -> Arc<dyn Storage> { Arc::new(MemoryStorage::new()) };
    let (first, second) = (memory(), memory());
    let original = Db::open_on(memory(), &options).unwrap();
    set_all(&original, b"at first!");
    original.backup_to(Arc::clone(&first), on).unwrap();
    set_all(&original, b"original!");
    original.backup_to(Arc::clone(&second), on).unwrap();
    // The machine is lost, and the first backup is put in its place.
    drop(original);
    let restored = Db::open_on(first, &options).unwrap();
    set_all(&restored, b"restored!");
    restored.set(3, b"later").unwrap();
    let refused = restored.backup_to(Arc::clone(&second), on);
    assert!(
        matches!(refused, Err(Error::Incompatible(_))),
        "{refused:?}"
    );
    let untouched = Db::open_on(second, &read_only()).unwrap();
    assert_eq!(untouched.get(1).unwrap(), b"original!");
}

/// A database that was set back to an earlier backup and compacted since, and a reader that is behind:
/// neither takes a later backup back.
#[test]
fn a_later_backup_is_refused_whatever_was_compacted() {
    let options = Options {
        key_value: true,
        ..options()
    };
    let memory = || -> Arc<dyn Storage> { Arc::new(MemoryStorage::new()) };
    let set = |db: &Db, commits: u64, value: &[u8]| {
        (0..commits).for_each(|_| db.set(1, value).unwrap());
    };
    let compact = |db: &Db| db.compact(&Retention::default(), on).unwrap();
    let refused = |db: &Db, destination: &Arc<dyn Storage>, why: &str| {
        match db.backup_to(Arc::clone(destination), on) {
            Err(Error::Incompatible(message)) => assert!(message.contains(why), "{message}"),
            other => panic!("{why}: {other:?}"),
        }
        let kept = Db::open_on(Arc::clone(destination), &read_only()).unwrap();
        assert_eq!(kept.get(1).unwrap(), b"later");
    };
    let (here, early, middle, late) = (memory(), memory(), memory(), memory());
    let original = Db::open_on(Arc::clone(&here), &options).unwrap();
    set(&original, 10, b"early");
    original.backup_to(Arc::clone(&early), on).unwrap();
    set(&original, 10, b"later");
    original.backup_to(Arc::clone(&late), on).unwrap();
    original.backup_to(Arc::clone(&middle), on).unwrap();

    let restored = Db::open_on(early, &options).unwrap();
    refused(&restored, &late, "up to commit 20");
    compact(&restored);
    refused(&restored, &late, "up to commit 20");
    set(&restored, 10, b"another");
    compact(&restored);
    refused(&restored, &late, "another history");

    // A reader that is behind: of the same commit it has all, and of a later one nothing.
    let reader = Db::open_on(here, &read_only()).unwrap();
    compact(&original);
    original.backup_to(Arc::clone(&late), on).unwrap();
    reader.backup_to(Arc::clone(&late), on).unwrap();
    set(&original, 1, b"later");
    original.backup_to(Arc::clone(&late), on).unwrap();
    refused(&reader, &late, "up to commit 21");
    reader.refresh().unwrap();
    reader.backup_to(Arc::clone(&late), on).unwrap();

    // Another copy, which has gone on without the compaction.
    let copy = Db::open_on(middle, &options).unwrap();
    set(&copy, 10, b"another");
    refused(&copy, &late, "after a compaction");
}

/// Wherever a backup died that was overwriting what was erased, and whatever became of the database
/// since: what it holds is a backup, or unfinished.
#[test]
fn a_backup_that_died_while_overwriting_survives_a_compaction_of_its_source() {
    let options = Options {
        key_value: true,
        native: true,
        ..options()
    };
    let value = [7; 600];
    for after in 0.. {
        let db = Db::open_on(Arc::new(MemoryStorage::new()), &options).unwrap();
        (1..5).for_each(|id| db.set(id, &value).unwrap());
        let target = SimStorage::new(Disk::new(), true, 1);
        db.backup_to(Arc::new(target.clone()), on).unwrap();
        db.erase(2).unwrap();
        target.fail(Some(Fault {
            calls: Calls::Changing,
            after: target.calls(Calls::Changing) + after,
            errno: Errno::Io,
            partly: true,
            sticky: true,
            pages: Pages::Dirty,
        }));
        let died = db.backup_to(Arc::new(target.clone()), on);
        if target.hit_count() == 0 {
            died.unwrap();
            assert!(after > 10, "{after} calls");
            break;
        }
        let target = SimStorage::new(target.disk(), true, 2);
        db.compact(&Retention::default(), on).unwrap();
        let mut told = 0;
        let cancelled = db.backup_to(Arc::new(target.clone()), |_, _| {
            told += 1;
            match told {
                1 => ControlFlow::Continue(()),
                _ => ControlFlow::Break(()),
            }
        });
        let target = SimStorage::new(target.disk(), true, 3);
        for options in [read_only(), options.clone()] {
            match Db::open_on(Arc::new(target.clone()), &options) {
                Ok(db) => {
                    assert_eq!(db.get(1).unwrap(), value);
                    assert!(db.check(on).unwrap().is_sound(), "{after}");
                }
                Err(error) => assert!(
                    error.to_string().contains("unfinished"),
                    "{after}, {died:?}, {cancelled:?}: {error}"
                ),
            }
        }
    }
}

/// Ids that a transaction takes and that nobody uses are in the backup's next id, and not in that of the
/// database after it died; or the other way round.
#[test]
fn a_backup_may_have_given_out_more_ids_than_its_database() {
    let options = options();
    let memory = || -> Arc<dyn Storage> { Arc::new(MemoryStorage::new()) };
    let (source, target) = (memory(), memory());
    let take_id = |db: &Db| {
        let mut txn = db.begin().unwrap();
        txn.insert(b"never committed").unwrap();
        txn
    };
    let db = Db::open_on(Arc::clone(&source), &options).unwrap();
    db.insert(b"one").unwrap();
    let txn = take_id(&db);
    db.backup_to(Arc::clone(&target), on).unwrap();
    drop(txn);
    // As if the process died.
    drop(db);
    let db = Db::open_on(source, &options).unwrap();
    db.backup_to(Arc::clone(&target), on).unwrap();
    db.set(1, b"more").unwrap();
    db.backup_to(Arc::clone(&target), on).unwrap();

    let copy = Db::open_on(Arc::clone(&target), &options).unwrap();
    take_id(&copy).abort();
    copy.close().unwrap();
    db.set(1, b"still more").unwrap();
    db.backup_to(Arc::clone(&target), on).unwrap();
    let copy = Db::open_on(target, &read_only()).unwrap();
    assert_eq!(copy.get(1).unwrap(), b"still more");
}

#[test]
fn a_backup_of_a_database_in_memory_knows_which_commits_were_left_out() {
    let options = Options {
        key_value: true,
        native: true,
        ..options()
    };
    let sender = Db::open_on(Arc::new(MemoryStorage::new()), &options).unwrap();
    sender.set(1, b"old").unwrap();
    sender.set(2, b"stays").unwrap();
    sender.set(1, b"new").unwrap();
    sender.compact(&Retention::default(), on).unwrap();
    let in_memory = Options {
        memory: true,
        ..options.clone()
    };
    let copy = Db::open("", &in_memory).unwrap();
    copy.apply(&sender.changes(0, 1 << 20).unwrap().0).unwrap();
    let target: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    copy.backup_to(Arc::clone(&target), on).unwrap();
    let backup = Db::open_on(target, &read_only()).unwrap();
    assert_eq!(copy.stats().unwrap().oldest_commit, 3);
    assert_eq!(backup.stats().unwrap().oldest_commit, 3);
    let past = backup.snapshot_at(2).map(drop);
    assert!(
        matches!(
            past,
            Err(Error::NotFound(NotFound::Commit { oldest: 3, .. }))
        ),
        "{past:?}"
    );
    let third = Db::open_on(Arc::new(MemoryStorage::new()), &options).unwrap();
    third.apply(&backup.changes(0, 1 << 20).unwrap().0).unwrap();
    assert_eq!(third.get(1).unwrap(), b"new");
}

/// herolib deletes in place: no length changes, and no id.
#[test]
fn a_reader_backs_up_what_herolib_has_deleted_since() {
    let directory = TempDirectory::new();
    let (path, target) = (directory.path().join("db"), directory.path().join("backup"));
    fs::create_dir(&path).unwrap();
    let with_herolib = |change: &dyn Fn(&mut Herolib)| {
        let mut herolib = Herolib::open(&path, Settings::DEFAULT, Port::Go).unwrap();
        change(&mut herolib);
        herolib.close();
    };
    with_herolib(&|herolib| {
        for value in ["one", "two", "three"] {
            herolib.insert(value.as_bytes());
        }
    });
    let options = Options {
        record_size_max: 4096,
        ..Options::default()
    };
    Db::open(&path, &options).unwrap().close().unwrap();
    with_herolib(&|herolib| herolib.set(1, b"ONE").unwrap());
    let back_up = || {
        let reader = Db::open(&path, &read_only()).unwrap();
        reader.backup(&target, on).unwrap();
        let copy = Db::open(&target, &read_only()).unwrap();
        for id in 1..=3 {
            assert_eq!(copy.get(id).ok(), reader.get(id).ok(), "id {id}");
        }
        copy.get(3).is_ok()
    };
    assert!(back_up());
    with_herolib(&|herolib| herolib.delete(3).unwrap());
    assert!(!back_up());
}

/// The first backup fails, the next one of more commits does too, and then those are lost.
#[test]
fn a_backup_begun_twice_is_finished_where_commits_are_lost() {
    let fail = |storage: &SimStorage, after: usize| {
        storage.fail(Some(Fault {
            calls: Calls::Changing,
            after: storage.calls(Calls::Changing) + after,
            errno: Errno::Io,
            sticky: true,
            partly: false,
            pages: Pages::Dirty,
        }));
    };
    for (first, second) in (0..16).flat_map(|first| (0..16).map(move |second| (first, second))) {
        let source = simulated(Disk::new(), 1);
        let target = simulated(Disk::new(), 2);
        let db = Db::open_on(Arc::new(source.clone()), &options()).unwrap();
        fail(&target, first);
        let _ = db.backup_to(Arc::new(target.clone()), on);
        target.fail(None);
        db.insert(b"lost").unwrap();
        fail(&target, second);
        let is_whole = db.backup_to(Arc::new(target.clone()), on).is_ok();
        target.fail(None);
        drop(db);
        let left = source.disk().lose_power(&Loss::OF_EVERYTHING);
        let db = Db::open_on(Arc::new(simulated(left, 3)), &options()).unwrap();
        assert_eq!(db.last_commit().unwrap(), 0);
        match db.backup_to(Arc::new(target.clone()), on) {
            Ok(()) => assert!(!is_whole),
            // It was whole, or wanted nothing more than to be opened.
            Err(Error::Incompatible(why)) => assert!(why.contains("up to commit 1"), "{why}"),
            Err(error) => panic!("{first}, {second}: {error}"),
        }
    }
}

#[test]
fn a_reader_backs_up_what_its_writer_has_erased_since() {
    for (made, is_set_again) in [
        ("live", false),
        ("live", true),
        ("deleted", false),
        ("deleted", true),
        ("cleared", false),
        ("cleared", true),
    ] {
        let what = format!("{made}, set again: {is_set_again}");
        let (directory, target) = (TempDirectory::new(), TempDirectory::new());
        let options = Options {
            key_value: true,
            file_size: 300,
            ..Options::default()
        };
        let writer = Db::open(directory.path(), &options).expect("a new database");
        for number in 0..30u32 {
            let value = number.to_le_bytes();
            writer.set(number % 10, &value).expect("a set");
        }
        match made {
            "deleted" => writer.delete(3).expect("a deletion"),
            "cleared" => {
                writer.clear().expect("a clear");
                (10..19).for_each(|id| writer.set(id, b"after").expect("a set"));
            }
            _ => {}
        }
        let reader = Db::open(directory.path(), &read_only()).expect("a reader");
        writer.erase(3).expect("an erasure");
        if is_set_again {
            writer.set(3, b"again").expect("a set");
        }
        let commit = reader.last_commit().expect("a number");
        reader.backup(target.path(), on).expect(&what);
        let copy = Db::open(target.path(), &read_only()).expect(&what);
        assert_eq!(copy.last_commit().expect(&what), commit, "{what}");
        assert_eq!(copy.count().expect(&what), 9, "{what}");
        assert!(copy.get(3).is_err(), "{what}");
        assert!(copy.check(on).expect(&what).is_sound(), "{what}");
        drop(copy);
        for from in [&reader, &writer] {
            from.refresh().expect(&what);
            from.backup(target.path(), on).expect(&what);
            let copy = Db::open(target.path(), &read_only()).expect(&what);
            let value = copy.get(3).ok();
            assert_eq!(value, is_set_again.then(|| b"again".to_vec()), "{what}");
            assert!(copy.check(on).expect(&what).is_sound(), "{what}");
        }
    }
}

/// Half of what its sender has of an erasure: a version without a value, which nothing has erased yet.
#[test]
fn a_reader_backs_up_what_is_erased_by_changes_to_come() {
    let options = Options {
        key_value: true,
        ..options()
    };
    let sender = Db::open_on(Arc::new(MemoryStorage::new()), &options).unwrap();
    sender.set(1, b"one").unwrap();
    sender.set(2, b"two").unwrap();
    sender.erase(1).unwrap();
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    let copy = Db::open_on(Arc::clone(&storage), &options).unwrap();
    let mut since = 0;
    while since < 2 {
        let (changes, upto) = sender.changes(since, 1).unwrap();
        copy.apply(&changes).unwrap();
        since = upto;
    }
    let reader = Db::open_on(storage, &read_only()).unwrap();
    for from in [&copy, &reader] {
        let target: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
        from.backup_to(Arc::clone(&target), on).unwrap();
        let backup = Db::open_on(target, &read_only()).unwrap();
        assert_eq!(backup.count().unwrap(), 1);
        assert_eq!(backup.get(2).unwrap(), b"two");
    }
}

/// What a reader copies while the writer erases it is whole there, or copied again.
#[test]
fn a_reader_backs_up_what_is_erased_while_it_is_copied() {
    const LARGE: usize = 12 << 20;
    for is_anew in [false, true] {
        let (directory, target) = (TempDirectory::new(), TempDirectory::new());
        let options = Options {
            key_value: true,
            native: true,
            record_size_max: LARGE as u32,
            ..Options::default()
        };
        let writer = Db::open(directory.path(), &options).expect("a new database");
        writer.set(1, &vec![1; LARGE]).expect("a set");
        writer.set(2, b"stays").expect("a set");
        if is_anew {
            writer.backup(target.path(), on).expect("an earlier backup");
            writer
                .compact(&Retention::default(), on)
                .expect("a compaction");
        }
        let reader = Db::open(directory.path(), &read_only()).expect("a reader");
        let mut is_erased = false;
        let erase = |done, _| {
            if done > 0 && !std::mem::replace(&mut is_erased, true) {
                writer.erase(1).expect("an erasure");
            }
            ControlFlow::Continue(())
        };
        reader.backup(target.path(), erase).expect("a backup");
        assert!(is_erased);
        let commit = reader.last_commit().expect("a number");
        check_values(target.path(), commit, 1);
        reader.refresh().expect("a refresh");
        reader.backup(target.path(), on).expect("the next one");
        check_values(target.path(), 3, 1);
        writer.set(3, b"more").expect("a set");
        writer.backup(target.path(), on).expect("the writer's");
        check_values(target.path(), 4, 2);
    }
}

/// The backup is sound, ends with this commit and gives out the values of so many records.
fn check_values(path: &Path, commit: u64, values: usize) {
    let backup = Db::open(path, &read_only()).expect("the backup opens");
    assert_eq!(backup.last_commit().expect("a number"), commit);
    let report = backup.check(on).expect("a check");
    assert!(report.is_sound(), "{report}");
    let mut scan = backup.scan(0, u32::MAX, Order::default()).expect("a scan");
    let mut whole = 0;
    while let Some(record) = scan.next().expect("a record") {
        whole += usize::from(record.value.iter().any(|&byte| byte != 0));
    }
    assert_eq!(whole, values);
}

/// The same of what herolib wrote, which no opening of the copy reads.
#[test]
fn a_reader_backs_up_what_is_erased_of_herolibs_while_it_is_copied() {
    const LEN: usize = 60_000;
    let (directory, target) = (TempDirectory::new(), TempDirectory::new());
    let mut herolib = Herolib::open(directory.path(), Settings::DEFAULT, Port::V).unwrap();
    let ids: Vec<u32> = (0..200).map(|_| herolib.insert(&[7; LEN])).collect();
    let places: Vec<u64> = (ids.iter())
        .map(|&id| u64::from(herolib.place(id).1))
        .collect();
    herolib.close();
    let writer = Db::open(directory.path(), &Options::default()).expect("it is taken over");
    writer.set(ids[0], b"ours").expect("a set");
    writer.sync().expect("a sync");
    let reader = Db::open(directory.path(), &read_only()).expect("a reader");
    let mut erased = None;
    // The one that is copied half by then.
    let erase = |done, _| {
        let is_torn = |place: &&u64| (**place + 100..**place + LEN as u64).contains(&done);
        if erased.is_none()
            && let Some(index) = places.iter().position(|place| is_torn(&place))
        {
            writer.erase(ids[index]).expect("an erasure");
            erased = Some(ids[index]);
        }
        ControlFlow::Continue(())
    };
    reader.backup(target.path(), erase).expect("a backup");
    assert!(erased.is_some());
    check_values(target.path(), 1, 199);
    for from in [&reader, &writer] {
        from.refresh().expect("a refresh");
        from.backup(target.path(), on).expect("the next one");
        check_values(target.path(), 2, 199);
    }
}

/// What herolib's records are found by is a file that goes with a compaction; nothing else is wrong then.
#[test]
fn a_reader_of_what_was_compacted_since_says_that_it_is_to_be_refreshed() {
    let (directory, target) = (TempDirectory::new(), TempDirectory::new());
    let mut herolib = Herolib::open(directory.path(), Settings::DEFAULT, Port::V).unwrap();
    let id = herolib.insert(b"herolib's");
    herolib.close();
    let writer = Db::open(directory.path(), &Options::default()).expect("it is taken over");
    writer.insert(b"ours").expect("an insert");
    let reader = Db::open(directory.path(), &read_only()).expect("a reader");
    writer
        .compact(&Retention::default(), on)
        .expect("a compaction");
    let refused = reader.backup(target.path(), on);
    assert!(matches!(refused, Err(Error::Busy { .. })), "{refused:?}");
    assert_eq!(reader.get(id).expect("a value"), b"herolib's");
    reader.refresh().expect("a refresh");
    reader.backup(target.path(), on).expect("a backup");
    check_values(target.path(), 1, 2);
}

/// It isn't copied again and again for damage that was there before.
#[test]
fn a_reader_copies_what_is_damaged_once() {
    let storage = Arc::new(MemoryStorage::new());
    let options = Options {
        key_value: true,
        native: true,
        ..Options::default()
    };
    let db = Db::open_on(Arc::clone(&storage) as Arc<dyn Storage>, &options).unwrap();
    (0..9).for_each(|id| db.set(id, &[7; 100]).unwrap());
    db.close().unwrap();
    let reader = Db::open_on(Arc::clone(&storage) as Arc<dyn Storage>, &read_only()).unwrap();
    let file = storage.open("0.db", Access::Write).unwrap();
    file.write_at(64 + 3 * 140 + 70, &[&[0xff]]).unwrap();
    let mut begun = 0;
    let count = |done, _| {
        begun += u32::from(done == 0);
        ControlFlow::Continue(())
    };
    let copied = reader.backup_to(Arc::new(MemoryStorage::new()), count);
    assert!(matches!(copied, Err(Error::Corrupt { .. })), "{copied:?}");
    assert_eq!(begun, 1);
}

fn in_memory() -> (Arc<dyn Storage>, Db) {
    let options = Options {
        key_value: true,
        ..options()
    };
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    let db = Db::open_on(Arc::clone(&storage), &options).expect("a new database");
    (storage, db)
}

fn commits_of(db: &Db, id: u32) -> Vec<(u64, Vec<u8>)> {
    let history = db.history(id, 0).expect("a history");
    let versions = history.iter();
    versions.map(|it| (it.commit, it.value.to_vec())).collect()
}

/// A standby has the commits of the first one, but not all of them in the same places. Where the last one
/// of the backup is, what leads on from there may still lead elsewhere.
#[test]
fn what_leads_elsewhere_in_an_earlier_backup_is_not_added_to_it() {
    let [second, target] = [(); 2].map(|()| -> Arc<dyn Storage> { Arc::new(MemoryStorage::new()) });
    let (_, first) = in_memory();
    first.set(2, b"").expect("commit 1");
    first.set(9, b"nine").expect("commit 2");
    first
        .backup_to(Arc::clone(&second), on)
        .expect("the second one");
    let copy = Db::open_on(Arc::clone(&second), &Options::default()).expect("a standby");
    // A mark comes before commit 3 here, and before commit 5 there: both have 40 bytes.
    first.sync().expect("a sync");
    first.set(2, b"").expect("commit 3");
    first.delete(2).expect("commit 4");
    first.set(3, b"three").expect("commit 5");
    first.backup_to(Arc::clone(&target), on).expect("a backup");
    for since in 2..5 {
        if since == 4 {
            copy.sync().expect("a sync");
        }
        let (changes, upto) = first.changes(since, 1).expect("a commit");
        assert_eq!(upto, since + 1);
        copy.apply(&changes).expect("a commit");
    }
    copy.set(2, b"six").expect("commit 6");
    let added = copy.backup_to(Arc::clone(&target), on);
    let backup = Db::open_on(Arc::clone(&target), &read_only()).expect("a backup");
    assert!(backup.check(on).expect("a check").is_sound());
    let of = match &added {
        Ok(()) => &copy,
        Err(_) => &first,
    };
    assert_eq!(commits_of(&backup, 2), commits_of(of, 2), "{added:?}");
    drop(backup);
    // What was refused is what it was, for the first one too.
    first.set(4, b"four").expect("commit 6");
    if added.is_err() {
        assert!(matches!(added, Err(Error::Incompatible(_))), "{added:?}");
        first.backup_to(Arc::clone(&target), on).expect("a backup");
    }
}

/// Of a record that was erased beside a reader's backup, the erasure comes with the next changes. A backup
/// in which it is live is no damage.
#[test]
fn a_reader_s_copy_does_not_make_damage_of_what_is_live_in_an_earlier_backup() {
    let [copied, target] = [(); 2].map(|()| -> Arc<dyn Storage> { Arc::new(MemoryStorage::new()) });
    let (storage, db) = in_memory();
    (1..4).for_each(|id| db.set(id, &[id as u8; 20]).expect("a set"));
    db.backup_to(Arc::clone(&target), on).expect("a backup");
    db.set(4, b"four").expect("a set");
    let reader = Db::open_on(storage, &read_only()).expect("a reader");
    db.erase(2).expect("an erasure");
    reader
        .backup_to(Arc::clone(&copied), on)
        .expect("the reader's");
    let copy = Db::open_on(copied, &Options::default()).expect("the copy");
    assert_eq!(copy.count().expect("a number"), 3);
    let added = copy.backup_to(Arc::clone(&target), on);
    assert!(matches!(added, Err(Error::Incompatible(_))), "{added:?}");
    let earlier = Db::open_on(Arc::clone(&target), &read_only()).expect("the earlier one");
    assert_eq!(earlier.count().expect("a number"), 3);
    drop(earlier);
    let (changes, _) = db.changes(4, usize::MAX).expect("the erasure");
    copy.apply(&changes).expect("the erasure");
    copy.backup_to(Arc::clone(&target), on).expect("a backup");
    let backup = Db::open_on(target, &read_only()).expect("the backup");
    assert_eq!(backup.count().expect("a number"), 3);
    assert!(backup.get(2).is_err() && backup.check(on).expect("a check").is_sound());
}

/// The reverse: a backup that knows of an erasure already goes on from a database that doesn't.
#[test]
fn a_reader_s_backup_goes_on_from_a_copy_that_lacks_the_erasure() {
    let [second, target] = [(); 2].map(|()| -> Arc<dyn Storage> { Arc::new(MemoryStorage::new()) });
    let (storage, db) = in_memory();
    (1..4).for_each(|id| db.set(id, &[id as u8; 20]).expect("a set"));
    db.backup_to(Arc::clone(&second), on).expect("a backup");
    let copy = Db::open_on(second, &Options::default()).expect("a copy");
    let reader = Db::open_on(storage, &read_only()).expect("a reader");
    db.erase(2).expect("an erasure");
    reader
        .backup_to(Arc::clone(&target), on)
        .expect("the reader's");
    copy.set(5, b"five").expect("another commit 4");
    copy.backup_to(Arc::clone(&target), on).expect("a backup");
    let backup = Db::open_on(target, &read_only()).expect("the backup");
    let found = (backup.last_commit(), backup.get(5), backup.get(2).is_err());
    assert!(
        matches!(&found, (Ok(4), Ok(five), true) if five == b"five"),
        "{found:?}"
    );
    assert!(backup.check(on).expect("a check").is_sound());
}
