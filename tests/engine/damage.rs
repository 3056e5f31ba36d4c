//! Directories that no honest run of the library leaves behind: files cut, garbled and mixed up,
//! somebody else's among them, removals cut short. Damage is refused and left as it is, or read
//! around on request, and never taken for data.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::{ControlFlow, Range};
use std::os::unix::fs::{FileTypeExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use crate::support::herolib::{Herolib, Port, Settings};
use crate::support::sim::{Calls, Disk, Errno, Fault, Loss, Pages, SimStorage};
use crate::support::{Context, TempDirectory, Verdict, refute, require};
use ourdb::storage::{Access, Storage};
use ourdb::{Db, Error, IoMode, LookupKind, NotFound, Options, Records, Retention, State, Sync};

/// The header of a data file.
const FILE_HEADER: usize = 64;
/// What stands before a value.
const RECORD_HEADER: usize = 40;
const SECTOR: usize = 512;

/// A native key-value database: a data file holds what the test wrote, and nothing is beside it.
fn key_value() -> Options {
    Options {
        key_value: true,
        native: true,
        ..Options::default()
    }
}

/// Everything in a directory: names and contents.
type Files = BTreeMap<String, Vec<u8>>;

fn files(path: &Path) -> Files {
    let entries = fs::read_dir(path).unwrap();
    let files = entries.map(|entry| {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        (name, fs::read(entry.path()).unwrap())
    });
    files.collect()
}

fn put(path: &Path, files: &Files) {
    fs::create_dir_all(path).unwrap();
    for (name, content) in files {
        fs::write(path.join(name), content).unwrap();
    }
}

/// Makes a database and returns its directory as it is when the process dies in `close`: the
/// checkpoint is there, the manifest still says "open" and knows no data file.
fn killed_in_close(fill: impl FnOnce(&Db)) -> Files {
    killed_in_close_with(LookupKind::Memory, fill)
}

fn killed_in_close_with(lookup: LookupKind, fill: impl FnOnce(&Db)) -> Files {
    let directory = TempDirectory::new();
    let options = Options {
        lookup,
        record_nr_max: 5000,
        ..key_value()
    };
    let db = Db::open(directory.path(), &options).unwrap();
    fill(&db);
    let manifest = fs::read(directory.path().join("MANIFEST")).unwrap();
    db.close().unwrap();
    let mut files = files(directory.path());
    assert!(files.contains_key("index"), "close writes a checkpoint");
    files.insert("MANIFEST".to_owned(), manifest);
    files
}

/// A directory with these files is refused as damaged and left as it is.
fn assert_refused(files_there: &Files, what: &str) {
    for lookup in [LookupKind::Memory, LookupKind::Disk] {
        let directory = TempDirectory::new();
        put(directory.path(), files_there);
        let options = Options {
            lookup,
            ..key_value()
        };
        let opened = Db::open(directory.path(), &options).map(|db| db.count());
        assert!(
            matches!(opened, Err(Error::Corrupt { .. })),
            "{what}: {opened:?}"
        );
        assert!(
            files(directory.path()) == *files_there,
            "{what}, lookup {lookup:?}: refused, but the directory has changed"
        );
    }
}

fn is_no_database<T>(result: &Result<T, Error>) -> bool {
    matches!(result, Err(Error::NotFound(NotFound::Database(_))))
}

// Reset

#[test]
fn reset_empties_a_database_that_must_exist() {
    let directory = TempDirectory::new();
    let reset = Options {
        reset: true,
        must_exist: true,
        ..key_value()
    };
    let absent = Db::open(directory.path(), &reset);
    assert!(is_no_database(&absent), "{absent:?}");
    assert!(files(directory.path()).is_empty());

    let db = Db::open(directory.path(), &key_value()).unwrap();
    db.set(1, b"before").unwrap();
    db.close().unwrap();
    let db = Db::open(directory.path(), &reset).unwrap();
    assert_eq!((db.count().unwrap(), db.last_commit().unwrap()), (0, 0));
    db.set(1, b"after").unwrap();
    assert_eq!(db.history(1, 0).unwrap().len(), 1);
}

#[test]
fn reset_leaves_a_data_file_of_somebody_else() {
    let directory = TempDirectory::new();
    let db = Db::open(directory.path(), &key_value()).unwrap();
    db.set(1, b"before").unwrap();
    db.close().unwrap();
    let foreign = directory.path().join("7.db");
    fs::write(&foreign, b"somebody's").unwrap();

    let reset = Options {
        reset: true,
        ..key_value()
    };
    let db = Db::open(directory.path(), &reset).unwrap();
    assert_eq!(db.count().unwrap(), 0);
    db.set(2, b"after").unwrap();
    db.close().unwrap();
    let db = Db::open(directory.path(), &key_value()).unwrap();
    assert_eq!(db.get(2).unwrap(), b"after");
    assert!(!db.contains(1).unwrap());
    assert_eq!(fs::read(&foreign).unwrap(), b"somebody's");
}

// The log and the checkpoint

#[test]
fn a_log_shorter_than_the_checkpoint_says_is_refused() {
    for lookup in [LookupKind::Memory, LookupKind::Disk] {
        let whole = killed_in_close_with(lookup, |db| {
            for id in 0..20 {
                db.set(id, &[id as u8; 60]).unwrap();
            }
        });
        let len = whole["0.db"].len();
        let cuts = [len - 1, len - 100, len - 1000, FILE_HEADER, 1, 0];
        for cut in cuts {
            let mut files = whole.clone();
            files.get_mut("0.db").unwrap().truncate(cut);
            assert_refused(&files, &format!("0.db cut from {len} to {cut} bytes"));
        }
        let mut files = whole;
        files.remove("0.db");
        assert_refused(&files, "0.db removed");
    }
}

#[test]
fn a_damaged_header_of_the_file_that_the_checkpoint_points_at_is_refused() {
    let whole = killed_in_close(|db| db.set(1, b"value").unwrap());
    for at in 0..FILE_HEADER {
        let mut files = whole.clone();
        files.get_mut("0.db").unwrap()[at] ^= 1 << (at % 8);
        assert_refused(&files, &format!("a bit of byte {at} of 0.db flipped"));
    }
}

/// What a checkpoint stands for lies in data files that nobody reads before it is used. Each that is
/// missing or damaged is refused, whoever opens, and left as it is; salvage reads the others.
struct Covered {
    options: Options,
    /// Ids are below this.
    count: u32,
    len: usize,
}

impl Covered {
    /// In several data files, of which each holds some records.
    fn in_short_files() -> Covered {
        let options = Options {
            file_size: 1500,
            record_nr_max: 1000,
            ..key_value()
        };
        Covered {
            options,
            count: 40,
            len: 200,
        }
    }

    /// So long that an opening which has read all of it writes a checkpoint.
    fn in_long_files() -> Covered {
        let options = Options {
            file_size: 20 << 20,
            record_nr_max: 1000,
            record_size_max: 1 << 20,
            ..key_value()
        };
        Covered {
            options,
            count: 70,
            len: 1 << 20,
        }
    }

    fn open(&self, storage: &SimStorage) -> Result<Db, Error> {
        Db::open_on(Arc::new(storage.clone()), &self.options)
    }

    fn read_only(&self) -> Options {
        Options {
            read_only: true,
            ..self.options.clone()
        }
    }

    fn value(&self, id: u32) -> Vec<u8> {
        vec![id as u8 | 0x80; self.len]
    }

    fn fill(&self, db: &Db, ids: Range<u32>) {
        for id in ids {
            db.set(id, &self.value(id)).unwrap();
        }
    }

    /// A database whose writer died, and the next one too, after an opening that wrote a checkpoint.
    fn opened(&self) -> Disk {
        let storage = SimStorage::new(Disk::new(), true, 1);
        let db = self.open(&storage).unwrap();
        self.fill(&db, 0..self.count);
        drop(db);
        assert!(!has_checkpoint(&storage.disk()));
        drop(self.open(&storage).unwrap());
        assert!(has_checkpoint(&storage.disk()), "too little was read");
        storage.disk()
    }

    /// A database whose writer died, where the number of a data file in the middle is taken: by `taken`,
    /// which is given the header that the file would have had. The one after it goes on in its stead.
    fn with_a_number_taken(&self, taken: impl Fn(&[u8]) -> Vec<u8>) -> (Disk, String) {
        let storage = SimStorage::new(Disk::new(), true, 1);
        let half = self.count / 2;
        self.fill(&self.open(&storage).unwrap(), 0..half);
        let disk = storage.disk();
        let mut names = (0..).map(|number| format!("{number}.db"));
        let name = names.find(|name| disk.read(name).is_none()).unwrap();

        let storage = SimStorage::new(disk.clone(), true, 2);
        let db = self.open(&storage).unwrap();
        let mut id = half;
        while storage.disk().read(&name).is_none() {
            self.fill(&db, id..id + 1);
            id += 1;
        }
        let header = storage.disk().read(&name).unwrap()[..FILE_HEADER].to_vec();

        let storage = SimStorage::new(disk, true, 2);
        let db = self.open(&storage).unwrap();
        let somebody_elses = storage.open(&name, Access::CreateNew).unwrap();
        somebody_elses.write_at(0, &[SOMEBODY_ELSES]).unwrap();
        self.fill(&db, half..self.count);
        db.sync().unwrap();
        drop(db);
        (storage.disk().with(&name, Some(taken(&header))), name)
    }

    /// All is there, for a reader and a writer.
    fn assert_whole(&self, disk: &Disk, what: &str) {
        for options in [self.read_only(), self.options.clone()] {
            let storage = SimStorage::new(disk.clone(), true, 2);
            let db = Db::open_on(Arc::new(storage), &options);
            let db = db.unwrap_or_else(|error| panic!("{what}: {error}"));
            self.assert_there(&db, 0..self.count, what);
        }
    }

    fn assert_there(&self, db: &Db, ids: impl IntoIterator<Item = u32>, what: &str) {
        for id in ids {
            let read = db.get(id);
            let read = read.unwrap_or_else(|error| panic!("{what}: id {id}: {error}"));
            assert!(read == self.value(id), "{what}: id {id} has another value");
        }
    }

    /// The ids with a record in this data file.
    fn ids_in(&self, content: &[u8]) -> BTreeSet<u32> {
        let mut at = FILE_HEADER;
        let mut ids = BTreeSet::new();
        while let Some(head) = content
            .get(at..at + RECORD_HEADER)
            .filter(|head| head[4] != 0)
        {
            let is_mark = head[4] == 3;
            if !is_mark {
                ids.insert(u32::from_le_bytes(head[8..12].try_into().unwrap()));
            }
            at += RECORD_HEADER + if is_mark { 0 } else { self.len };
        }
        ids
    }

    fn assert_damage_is_refused(&self, disk: &Disk, what: &str) {
        let names = disk.files().into_iter();
        let names: Vec<String> = names.filter(|name| name.ends_with(".db")).collect();
        assert!(names.len() > 3, "{names:?}");
        let storage = SimStorage::new(Disk::new(), true, 99);
        let other = self.open(&storage).unwrap();
        let mut id = 0;
        while names.iter().any(|name| storage.disk().read(name).is_none()) {
            self.fill(&other, id..id + 1);
            id += 1;
        }
        let other = storage.disk();
        for (index, name) in names.iter().enumerate() {
            let whole = disk.read(name).unwrap();
            let mut headless = whole.to_vec();
            headless[..SECTOR].fill(0);
            let mut foreign = whole.to_vec();
            foreign[..FILE_HEADER].copy_from_slice(&other.read(name).unwrap()[..FILE_HEADER]);
            let next = &names[(index + 1) % names.len()];
            let mut exchanged = whole.to_vec();
            exchanged[..FILE_HEADER].copy_from_slice(&disk.read(next).unwrap()[..FILE_HEADER]);
            let damages = [
                ("missing", None),
                ("without a header", Some(headless)),
                ("a byte shorter", Some(whole[..whole.len() - 1].to_vec())),
                ("a header long", Some(whole[..FILE_HEADER].to_vec())),
                ("empty", Some(Vec::new())),
                ("with a header of another database", Some(foreign)),
                ("with a header of another data file", Some(exchanged)),
            ];
            let others = self.ids_in(whole);
            let others = (0..self.count).filter(|id| !others.contains(id));
            for (damage, content) in damages {
                let what = format!("{what}, {name} {damage}");
                let storage = SimStorage::new(disk.with(name, content), true, 3);
                for options in [self.options.clone(), self.read_only()] {
                    let opened = Db::open_on(Arc::new(storage.clone()), &options);
                    let opened = opened.map(|db| db.count());
                    assert!(
                        matches!(opened, Err(Error::Corrupt { .. })),
                        "{what}: {opened:?}"
                    );
                }
                let salvage = Options {
                    salvage: true,
                    ..Options::default()
                };
                let db = Db::open_on(Arc::new(storage.clone()), &salvage).unwrap();
                self.assert_there(&db, others.clone(), &what);
                assert_eq!(storage.events(), 0, "{what}: something was changed");
            }
        }
    }
}

/// What a crash leaves that comes after any call of a close.
fn crashes_in_close(storage: &SimStorage, db: Db) -> Vec<Disk> {
    let before = storage.events();
    db.close().unwrap();
    let history = storage.history();
    let moments = before..=history.events.len();
    moments.map(|calls| history.after(calls)).collect()
}

fn has_checkpoint(disk: &Disk) -> bool {
    disk.read("index").is_some()
}

#[test]
fn damage_before_the_checkpoint_of_an_opening_is_refused() {
    let covered = Covered::in_long_files();
    covered.assert_damage_is_refused(&covered.opened(), "a checkpoint of an opening");
}

#[test]
fn damage_before_the_checkpoint_of_a_close_that_was_cut_short_is_refused() {
    let covered = Covered::in_short_files();
    // The manifest is that of an earlier close, or knows no data file at all.
    for closed_before in [false, true] {
        let storage = SimStorage::new(Disk::new(), true, 1);
        let mut db = covered.open(&storage).unwrap();
        covered.fill(&db, 0..12);
        if closed_before {
            db.close().unwrap();
            db = covered.open(&storage).unwrap();
        }
        covered.fill(&db, 12..covered.count);
        let before = storage.disk().read("index").map(<[u8]>::to_vec);
        let mut looked_at = 0;
        for (calls, disk) in crashes_in_close(&storage, db).iter().enumerate() {
            let what = format!("closed before: {closed_before}, {calls} calls into the close");
            covered.assert_whole(disk, &what);
            // Until there is a new one nothing says what was on disk: no mark does.
            if disk.read("index") != before.as_deref() {
                covered.assert_damage_is_refused(disk, &what);
                looked_at += 1;
            }
        }
        assert!(looked_at > 2, "{looked_at} crashes behind the checkpoint");
    }
}

#[test]
fn a_damaged_checkpoint_of_an_opening_is_not_used() {
    let covered = Covered::in_long_files();
    let disk = covered.opened();
    covered.assert_whole(&disk, "undamaged");
    let index = disk.read("index").unwrap();
    let mut garbled = index.to_vec();
    garbled[40] ^= 1;
    for (what, content) in [
        ("missing", None),
        ("cut", Some(index[..index.len() - 1].to_vec())),
        ("garbled", Some(garbled)),
    ] {
        covered.assert_whole(&disk.with("index", content), what);
    }
}

/// Its header says what had been on disk, also where the disk can't give back the rest.
#[test]
fn damage_before_a_checkpoint_whose_blocks_cannot_be_read_is_refused() {
    let covered = Covered {
        options: key_value(),
        count: 10,
        len: 200,
    };
    let storage = SimStorage::new(Disk::new(), true, 1);
    let db = covered.open(&storage).unwrap();
    covered.fill(&db, 0..covered.count);
    // Right after it was written nothing else says what was on disk: a first data file the manifest lists
    // at the end of a close.
    let crashes = crashes_in_close(&storage, db).into_iter();
    let disk = crashes.into_iter().find(has_checkpoint).unwrap();
    let blocks = 4096..disk.read("index").unwrap().len();
    let mut damaged = disk.read("0.db").unwrap().to_vec();
    damaged[FILE_HEADER + 5 * (RECORD_HEADER + covered.len)..].fill(0);
    let damaged = disk.with("0.db", Some(damaged));
    for options in [covered.read_only(), covered.options.clone()] {
        let open = |disk: Disk| {
            let storage = SimStorage::new(disk, true, 2);
            storage.lose_bytes("index", blocks.clone());
            Db::open_on(Arc::new(storage), &options)
        };
        let db = open(disk.clone()).unwrap();
        covered.assert_there(&db, 0..covered.count, "undamaged");
        let opened = open(damaged.clone()).map(|db| db.count());
        assert!(matches!(opened, Err(Error::Corrupt { .. })), "{opened:?}");
    }
}

/// The log tells of clears that a manifest of before doesn't list, unless a checkpoint says that they need
/// not be looked for.
#[test]
fn a_checkpoint_behind_clears_that_an_older_manifest_lacks_is_not_used() {
    let storage = SimStorage::new(Disk::new(), true, 1);
    let db = Db::open_on(Arc::new(storage.clone()), &key_value()).unwrap();
    db.set(1, b"one").unwrap();
    db.set(2, b"two").unwrap();
    let older = storage.disk().read("MANIFEST").map(<[u8]>::to_vec);
    db.clear().unwrap();
    let cleared = db.last_commit().unwrap();
    db.set(3, b"three").unwrap();
    db.close().unwrap();
    let disk = storage.disk();
    for manifest in [disk.read("MANIFEST").map(<[u8]>::to_vec), older] {
        for read_only in [true, false] {
            let options = Options {
                read_only,
                ..key_value()
            };
            let storage = SimStorage::new(disk.with("MANIFEST", manifest.clone()), true, 1);
            let db = Db::open_on(Arc::new(storage), &options).unwrap();
            let history = db.history(1, 0).unwrap();
            let history: Vec<_> = history.iter().map(|it| (it.commit, it.state)).collect();
            assert_eq!(history, [(cleared, State::Deleted), (1, State::Live)]);
            let then = db.snapshot_at(cleared).unwrap();
            assert_eq!(then.count().unwrap(), 0);
            assert_eq!(db.get(3).unwrap(), b"three");
            assert_eq!(db.count().unwrap(), 1);
        }
    }
}

#[test]
fn a_reader_follows_over_the_checkpoint_of_an_opening() {
    let covered = Covered::in_long_files();
    let storage = SimStorage::new(Disk::new(), true, 1);
    let db = covered.open(&storage).unwrap();
    covered.fill(&db, 0..10);
    let reader = Db::open_on(Arc::new(storage.clone()), &covered.read_only()).unwrap();
    covered.fill(&db, 10..covered.count - 1);
    drop(db);
    let db = covered.open(&storage).unwrap();
    assert!(has_checkpoint(&storage.disk()), "too little was read");
    covered.fill(&db, covered.count - 1..covered.count);
    reader.refresh().unwrap();
    covered.assert_there(&reader, 0..covered.count, "a reader that follows");
}

/// What stands where a data file of the log would have its number, made of the header that it would
/// have had.
const TAKEN: [Taken; 4] = [
    ("somebody's", |_| SOMEBODY_ELSES.to_vec()),
    ("a data file made in vain", |header| header.to_vec()),
    ("one that got no header", |header| vec![0; header.len()]),
    ("one with nothing in it", |_| Vec::new()),
];
type Taken = (&'static str, fn(&[u8]) -> Vec<u8>);
const SOMEBODY_ELSES: &[u8] = b"somebody's";

#[test]
fn a_checkpoint_of_an_opening_stands_for_a_log_with_a_number_left_out() {
    let covered = Covered::in_long_files();
    for (what, taken) in TAKEN {
        let (disk, name) = covered.with_a_number_taken(taken);
        let storage = SimStorage::new(disk, true, 2);
        drop(covered.open(&storage).unwrap());
        let disk = storage.disk();
        assert!(has_checkpoint(&disk), "too little was read");
        covered.assert_whole(&disk, what);
        let stays = disk.read(&name) == Some(SOMEBODY_ELSES);
        assert_eq!(stays, what == "somebody's", "{what}");
    }
}

#[test]
fn a_checkpoint_of_a_close_stands_for_a_log_with_a_number_left_out() {
    let covered = Covered::in_short_files();
    for (what, taken) in TAKEN {
        let (disk, name) = covered.with_a_number_taken(taken);
        let storage = SimStorage::new(disk, true, 2);
        let db = covered.open(&storage).unwrap();
        covered.assert_there(&db, 0..covered.count, what);
        for disk in crashes_in_close(&storage, db) {
            covered.assert_whole(&disk, what);
            let stays = disk.read(&name) == Some(SOMEBODY_ELSES);
            assert_eq!(stays, what == "somebody's", "{what}");
        }
    }
}

// Records

/// Many versions of few ids, in records of which eight fill a sector; and what each version holds.
struct Versions {
    files: Files,
    /// Per id the values, newest first.
    values: BTreeMap<u32, Vec<Vec<u8>>>,
}

impl Versions {
    const RECORD: usize = SECTOR / 8;
    const COUNT: usize = 71;

    /// The last record is the newest version of id 0.
    fn new() -> Versions {
        let directory = TempDirectory::new();
        let db = Db::open(directory.path(), &key_value()).unwrap();
        let mut values = BTreeMap::<u32, Vec<Vec<u8>>>::new();
        for number in 0..Versions::COUNT {
            let id = (number % 5) as u32;
            let value = vec![number as u8; Versions::RECORD - RECORD_HEADER];
            db.set(id, &value).unwrap();
            values.entry(id).or_default().insert(0, value);
        }
        db.close().unwrap();
        let files = files(directory.path());
        assert_eq!(
            files["0.db"].len(),
            FILE_HEADER + Versions::COUNT * Versions::RECORD
        );
        Versions { files, values }
    }

    /// Opens the database with its data file replaced, and reads all ids in all ways.
    fn check(&self, path: &Path, data: &[u8], lost: &BTreeSet<u32>) -> Verdict {
        fs::write(path.join("0.db"), data).unwrap();
        for io in [IoMode::Auto, IoMode::File] {
            let options = Options {
                read_only: true,
                io,
                ..Options::default()
            };
            let db = Db::open(path, &options).map_err(|error| error.to_string())?;
            for (&id, values) in &self.values {
                let lost = lost.contains(&id);
                self.check_id(&db, id, values, lost)
                    .context(|| format!("id {id}, {io:?}"))?;
            }
        }
        Ok(())
    }

    /// Each way of reading `id` gives what was written, or says that it is damaged; the current
    /// value must be one or the other.
    fn check_id(&self, db: &Db, id: u32, values: &[Vec<u8>], lost: bool) -> Verdict {
        let only = |records: Records| records.get(0).unwrap().value.to_vec();
        let current = [
            ("get", db.get(id)),
            ("get_many", db.get_many(&[id]).map(only)),
            ("history", db.history(id, 1).map(only)),
            ("get_version", db.get_version(id, u64::MAX)),
        ];
        for (call, result) in current {
            match result {
                Ok(value) => require!(!lost && value == values[0], "{call} gives {value:?}"),
                Err(Error::Corrupt { .. }) => require!(lost, "{call}: damaged, and it isn't"),
                Err(error) => refute!("{call}: {error}"),
            }
        }
        match db.history(id, 0) {
            Ok(records) => {
                let read: Vec<_> = records.iter().map(|record| record.value).collect();
                require!(read == *values, "history gives {read:?}");
            }
            Err(Error::Corrupt { .. }) => {}
            Err(error) => refute!("history: {error}"),
        }
        Ok(())
    }

    /// The ids whose current version has changed between two contents of the data file.
    fn lost(&self, damaged: &[u8]) -> BTreeSet<u32> {
        let whole = &self.files["0.db"];
        let newest = Versions::COUNT - self.values.len()..Versions::COUNT;
        let changed = newest.filter(|number| {
            let begin = FILE_HEADER + number * Versions::RECORD;
            let record = begin..begin + Versions::RECORD;
            whole[record.clone()] != damaged[record]
        });
        changed.map(|number| (number % 5) as u32).collect()
    }
}

#[test]
fn a_stale_or_doubled_sector_is_never_read_as_a_value() {
    let versions = Versions::new();
    let directory = TempDirectory::new();
    put(directory.path(), &versions.files);
    let whole = &versions.files["0.db"];
    let zeros = [0; SECTOR];
    let sources: Vec<&[u8]> = whole.chunks(SECTOR).chain([&zeros[..]]).collect();
    // Not the first one, which has the header.
    for target in 1..whole.len().div_ceil(SECTOR) {
        for (number, source) in sources.iter().enumerate() {
            let mut data = whole.clone();
            let to = &mut data[target * SECTOR..];
            let len = to.len().min(source.len());
            to[..len].copy_from_slice(&source[..len]);
            versions
                .check(directory.path(), &data, &versions.lost(&data))
                .context(|| format!("sector {number} in place of sector {target}"))
                .unwrap();
        }
    }
}

#[test]
fn a_flipped_bit_anywhere_in_a_record_is_damage_for_every_read() {
    let versions = Versions::new();
    let directory = TempDirectory::new();
    put(directory.path(), &versions.files);
    let whole = &versions.files["0.db"];
    let record = whole.len() - Versions::RECORD;
    // Commit and time are what no value's checksum covers, so each bit of theirs.
    let bits = |bytes: Range<usize>| bytes.start * 8..bytes.end * 8;
    let others = (0..Versions::RECORD).map(|at| at * 8 + at % 8);
    for bit in bits(12..28).chain(others) {
        let mut data = whole.clone();
        data[record + bit / 8] ^= 1 << (bit % 8);
        versions
            .check(directory.path(), &data, &versions.lost(&data))
            .context(|| format!("bit {} of byte {} flipped", bit % 8, bit / 8))
            .unwrap();
    }
}

// Removal

/// A database in several data files, closed, on a simulated disk.
fn several_files(options: &Options) -> Disk {
    let storage = SimStorage::new(Disk::new(), true, 1);
    let db = Db::open_on(Arc::new(storage.clone()), options).unwrap();
    for number in 0..8u8 {
        db.insert(&[number; 100]).unwrap();
    }
    db.close().unwrap();
    storage.disk()
}

/// Opens what an interrupted `destroy` left; whether it is still the whole database. The
/// alternative is none at all.
fn is_whole_or_none(disk: &Disk, options: &Options) -> Verdict<bool> {
    let open = |options: &Options| {
        let storage = SimStorage::new(disk.clone(), true, 2);
        Db::open_on(Arc::new(storage) as Arc<dyn Storage>, options)
    };
    let must_exist = Options {
        must_exist: true,
        ..options.clone()
    };
    let read_only = Options {
        read_only: true,
        ..Options::default()
    };
    match open(&must_exist) {
        Ok(db) => {
            for number in 0..8u8 {
                let id = u32::from(number) + 1;
                let value = db.get(id).map_err(|error| error.to_string())?;
                require!(value == [number; 100], "id {id} is {value:?}");
            }
            return Ok(true);
        }
        Err(Error::NotFound(NotFound::Database(_))) => {}
        Err(error) => refute!("opened as one that must exist: {error}"),
    }
    let read = open(&read_only);
    require!(is_no_database(&read), "opened read-only: {read:?}");
    let db = open(options).map_err(|error| format!("opened as a new one: {error}"))?;
    let (count, commit) = (db.count().unwrap(), db.last_commit().unwrap());
    require!(
        (count, commit) == (0, 0),
        "a new database has {count} records and commit {commit}"
    );
    let id = db.insert(b"new").map_err(|error| error.to_string())?;
    require!(id == 1, "the first id of a new database is {id}");
    db.close().map_err(|error| error.to_string())?;
    Ok(false)
}

#[test]
fn an_interrupted_destroy_leaves_the_whole_database_or_none() {
    for native in [true, false] {
        let options = Options {
            native,
            file_size: 250,
            ..Options::default()
        };
        let disk = several_files(&options);
        let storage = SimStorage::new(disk, true, 3);
        let db = Db::open_on(Arc::new(storage.clone()), &options).unwrap();
        db.destroy().unwrap();
        assert!(storage.disk().files().is_empty());
        let history = storage.history();
        let mut whole = true;
        let mut interrupted = 0;
        let check = |calls: usize, disk: &Disk| {
            let still_whole = is_whole_or_none(disk, &options)
                .context(|| format!("killed\n{}", history.describe(calls)))?;
            require!(
                whole || !still_whole,
                "it is back\n{}",
                history.describe(calls)
            );
            whole = still_whole;
            interrupted += usize::from(!whole && !disk.files().is_empty());
            for number in 0..12 {
                let loss = Loss::case(number, number ^ calls as u64);
                is_whole_or_none(&disk.lose_power(&loss), &options)
                    .context(|| format!("lost power: {loss:?}\n{}", history.describe(calls)))?;
            }
            Ok(())
        };
        history.replay(check).unwrap();
        assert!(interrupted > 5, "destroy has many calls to be killed at");
    }
}

// Beside herolib

#[test]
fn a_moment_between_versions_of_ours_and_herolibs_finds_the_right_one() {
    let directory = TempDirectory::new();
    let open = || Db::open(directory.path(), &Options::default()).unwrap();
    let db = open();
    let id = db.insert(b"first").unwrap();
    db.set(id, b"second").unwrap();
    db.close().unwrap();
    // herolib's versions have no commit and no time, and stand on top of ours.
    let settings = Settings {
        // Our default, on which the width of the lookup dump depends.
        record_size_max: 65_535,
        ..Settings::DEFAULT
    };
    let mut herolib = Herolib::open(directory.path(), settings, Port::Go).unwrap();
    herolib.set(id, b"by herolib").unwrap();
    herolib.set(id, b"by herolib again").unwrap();
    herolib.close();

    let db = open();
    assert_eq!(db.get(id).unwrap(), b"by herolib again");
    assert!(matches!(
        db.get_version(id, 0),
        Err(Error::NotFound(NotFound::AtCommit { .. }))
    ));
    assert_eq!(db.get_version(id, 1).unwrap(), b"first");
    assert_eq!(db.get_version(id, 2).unwrap(), b"second");
    assert_eq!(db.get_version(id, 3).unwrap(), b"by herolib again");
    let other = db.insert(b"other").unwrap();
    assert_eq!(db.get_version(id, 3).unwrap(), b"by herolib again");
    db.set(id, b"last").unwrap();
    assert_eq!(db.get_version(id, 2).unwrap(), b"second");
    assert_eq!(db.get_version(id, 3).unwrap(), b"by herolib again");
    assert_eq!(db.get_version(id, 4).unwrap(), b"last");
    assert_eq!(db.get_version(id, u64::MAX).unwrap(), b"last");

    let history = db.history(id, 0).unwrap();
    let times: Vec<u64> = history.iter().map(|record| record.time_us).collect();
    let &[last, 0, 0, second, first] = &times[..] else {
        panic!("five versions, and two of them without a time: {times:?}");
    };
    let between = db.history(other, 1).unwrap().get(0).unwrap().time_us;
    assert!(first < second && second < between && between < last);
    assert!(matches!(
        db.get_at(id, first - 1),
        Err(Error::NotFound(NotFound::AtTime { .. }))
    ));
    assert_eq!(db.get_at(id, first).unwrap(), b"first");
    assert_eq!(db.get_at(id, second).unwrap(), b"second");
    assert_eq!(db.get_at(id, between).unwrap(), b"by herolib again");
    assert_eq!(db.get_at(id, last).unwrap(), b"last");
}

#[test]
fn an_absurd_next_id_writes_no_huge_dump() {
    for inc in ["10000000", "30000000"] {
        let directory = TempDirectory::new();
        let mut herolib =
            Herolib::open(directory.path(), Settings::DEFAULT, Port::V).expect("an empty one");
        let id = herolib.insert(b"by herolib");
        herolib.close();
        let dump = directory.path().join("lookup_dump.db");
        fs::write(dump.join(".inc"), inc).unwrap();

        let db = Db::open(directory.path(), &Options::default()).unwrap();
        db.set(id, b"ours").unwrap();
        db.close().unwrap();
        let len = fs::metadata(dump.join("data")).map_or(0, |data| data.len());
        assert!(len < 1 << 20, ".inc {inc}: a dump of {len} bytes");
        let db = Db::open(directory.path(), &Options::default()).unwrap();
        assert_eq!(db.get(id).unwrap(), b"ours");
    }
}

// Salvage

/// Where in which data file the value of a record stands.
fn place(files: &Files, value: &[u8]) -> (String, Range<usize>) {
    let mut data_files = files.iter().filter(|(name, _)| name.ends_with(".db"));
    let found = data_files.find_map(|(name, content)| {
        let at = content
            .windows(value.len())
            .position(|bytes| bytes == value)?;
        Some((name.clone(), at - RECORD_HEADER..at + value.len()))
    });
    found.expect("each value is in a data file")
}

#[test]
fn salvage_reads_past_damage_in_one_data_file() {
    const IDS: u32 = 100;
    let value = |id: u32| vec![id as u8 | 0x80; 100];
    for (sync, clean) in [
        (Sync::Os, true),
        (Sync::Commit, true),
        (Sync::Os, false),
        (Sync::Commit, false),
    ] {
        let directory = TempDirectory::new();
        let options = Options {
            sync,
            file_size: 2000,
            ..key_value()
        };
        let db = Db::open(directory.path(), &options).unwrap();
        for id in 0..IDS {
            db.set(id, &value(id)).unwrap();
        }
        let killed = files(directory.path());
        db.close().unwrap();
        let closed = files(directory.path());
        let whole = if clean { &closed } else { &killed };
        let places: Vec<_> = (0..IDS).map(|id| place(&closed, &value(id))).collect();
        let count = closed.keys().filter(|name| name.ends_with(".db")).count();
        assert!(count > 4, "{count} data files");

        for number in 0..count {
            let name = format!("{number}.db");
            // Without the space reserved.
            let len = closed[&name].len().min(whole[&name].len());
            let damages = [
                len - 1..len,
                len.saturating_sub(300).max(FILE_HEADER)..len,
                len / 2..(len / 2 + 300).min(len),
                FILE_HEADER..FILE_HEADER + 1,
                20..21,
            ];
            for damage in damages {
                let directory = TempDirectory::new();
                put(directory.path(), whole);
                let mut content = whole[&name].clone();
                for byte in &mut content[damage.clone()] {
                    *byte ^= 0x55;
                }
                fs::write(directory.path().join(&name), content).unwrap();
                let what = format!("{sync:?}, clean: {clean}, {name} garbled at {damage:?}");
                let salvage = Options {
                    salvage: true,
                    ..Options::default()
                };
                let db = Db::open(directory.path(), &salvage)
                    .unwrap_or_else(|error| panic!("{what}: {error}"));
                for (id, (file, bytes)) in (0..).zip(&places) {
                    let headless = damage.start < FILE_HEADER;
                    let hit = damage.start < bytes.end && bytes.start < damage.end;
                    if *file == name && (headless || hit) {
                        continue;
                    }
                    let read = db.get(id);
                    assert!(
                        read.as_ref().is_ok_and(|read| *read == value(id)),
                        "{what}: id {id} in {file} at {bytes:?}: {read:?}"
                    );
                }
            }
        }
    }
}

/// The manifest knows of a clear whose record is lost: what it has deleted is deleted still.
#[test]
fn salvage_knows_of_a_clear_that_the_log_has_lost() {
    for is_last in [true, false] {
        let directory = TempDirectory::new();
        let options = Options {
            key_value: true,
            native: true,
            file_size: 1,
            ..Options::default()
        };
        let db = Db::open(directory.path(), &options).unwrap();
        db.set(1, b"one").unwrap();
        db.clear().unwrap();
        if !is_last {
            db.set(2, b"two").unwrap();
        }
        db.close().unwrap();
        fs::remove_file(directory.path().join("1.db")).unwrap();
        let salvage = Options {
            salvage: true,
            ..Options::default()
        };
        let db = Db::open(directory.path(), &salvage).unwrap();
        let answer = db.get(1);
        assert!(matches!(answer, Err(Error::NotFound(_))), "{answer:?}");
        assert_eq!(db.count().unwrap(), u64::from(!is_last));
        assert_eq!(db.history(1, 0).unwrap().len(), 2);
        if !is_last {
            assert_eq!(db.get(2).unwrap(), b"two");
        }
    }
}

/// What the log builds upon stands for a clear before it.
#[test]
fn salvage_clears_nothing_that_came_after() {
    let value = |id: u32| format!("value {id}").into_bytes();
    let directory = TempDirectory::new();
    let options = Options {
        key_value: true,
        native: true,
        ..Options::default()
    };
    let db = Db::open(directory.path(), &options).unwrap();
    db.set(1, b"one").unwrap();
    db.clear().unwrap();
    for id in 2..=5 {
        db.set(id, &value(id)).unwrap();
    }
    db.close().unwrap();
    // Somebody else writes: the file is frozen, and the log goes on in another one.
    let path = directory.path().join("0.db");
    let mut content = fs::read(&path).unwrap();
    content.extend([7; 40]);
    fs::write(&path, content).unwrap();
    let db = Db::open(directory.path(), &options).unwrap();
    db.set(11, &value(11)).unwrap();
    db.close().unwrap();
    let path = directory.path().join("1.db");
    let mut content = fs::read(&path).unwrap();
    content[20] ^= 1;
    fs::write(&path, content).unwrap();
    let salvage = Options {
        salvage: true,
        ..Options::default()
    };
    let db = Db::open(directory.path(), &salvage).unwrap();
    for id in [2, 3, 4, 5, 11] {
        assert_eq!(db.get(id).unwrap(), value(id), "{id}");
    }
    assert_eq!(db.count().unwrap(), 5);
    assert!(db.get(1).is_err());
}

// Names and numbers

#[test]
fn what_is_no_regular_file_is_no_data_file() {
    let directory = TempDirectory::new();
    let path = directory.path();
    let options = Options {
        // Each commit its own data file.
        file_size: 1,
        ..key_value()
    };
    let add = || {
        symlink("nowhere", path.join("9.db")).unwrap();
        fs::create_dir(path.join("8.db")).unwrap();
        symlink("7.db", path.join("7.db")).unwrap();
        UnixListener::bind(path.join("6.db")).unwrap();
    };
    let is_link = |name| path.join(name).is_symlink();
    let is_left = || {
        let socket = path.join("6.db").metadata().unwrap().file_type();
        is_link("9.db") && path.join("8.db").is_dir() && is_link("7.db") && socket.is_socket()
    };
    let destroy = |db: Db| {
        db.destroy().unwrap();
        assert!(is_left());
        assert_eq!(fs::read_dir(path).unwrap().count(), 4);
    };

    // They come to a database that is there.
    let db = Db::open(path, &options).unwrap();
    db.set(0, b"0").unwrap();
    db.close().unwrap();
    add();
    let db = Db::open(path, &options).unwrap();
    for id in 0..20u32 {
        db.set(id, &id.to_le_bytes()).unwrap();
    }
    db.close().unwrap();
    assert!(is_left());
    let db = Db::open(path, &options).unwrap();
    for id in 0..20u32 {
        assert_eq!(db.get(id).unwrap(), id.to_le_bytes());
    }
    destroy(db);

    // They are there before the database.
    let must_exist = Options {
        must_exist: true,
        ..options.clone()
    };
    let absent = Db::open(path, &must_exist);
    assert!(is_no_database(&absent), "{absent:?}");
    let db = Db::open(path, &options).unwrap();
    db.set(1, b"1").unwrap();
    destroy(db);
}

#[test]
fn what_is_destroyed_by_a_link_leaves_the_directory() {
    let directory = TempDirectory::new();
    let (path, link) = (
        directory.path().join("place"),
        directory.path().join("link"),
    );
    fs::create_dir(&path).unwrap();
    symlink("place", &link).unwrap();
    for _ in 0..2 {
        let db = Db::open(&link, &key_value()).unwrap();
        db.set(1, b"one").unwrap();
        db.destroy().unwrap();
        assert_eq!(fs::read_dir(&path).unwrap().count(), 0);
    }
    Db::open(&path, &key_value()).unwrap().destroy().unwrap();
    assert!(!path.exists());
}

#[test]
fn the_highest_number_in_somebody_elses_hands_uses_up_none() {
    let directory = TempDirectory::new();
    let path = directory.path();
    let options = Options {
        file_size: 1,
        ..key_value()
    };
    let db = Db::open(path, &options).unwrap();
    db.set(1, b"first").unwrap();
    db.close().unwrap();
    fs::write(path.join("65535.db"), b"somebody's").unwrap();
    let db = Db::open(path, &options).unwrap();
    db.set(1, b"second").unwrap();
    db.set(1, b"third").unwrap();
    db.close().unwrap();
    let db = Db::open(path, &options).unwrap();
    assert_eq!(db.get(1).unwrap(), b"third");
    assert_eq!(db.history(1, 0).unwrap().len(), 3);
    assert_eq!(fs::read(path.join("65535.db")).unwrap(), b"somebody's");
}

/// A manifest, or the header of a data file, with the checksum that its bytes have now.
fn with_crc(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes.len() - 4;
    let crc = crc32fast::hash(&bytes[..end]);
    bytes[end..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// A database that was closed cleanly, with versions to be dropped.
fn closed() -> Files {
    let directory = TempDirectory::new();
    let db = Db::open(directory.path(), &key_value()).unwrap();
    db.set(1, b"first").unwrap();
    db.set(1, b"second").unwrap();
    db.set(2, b"gone").unwrap();
    db.delete(2).unwrap();
    db.close().unwrap();
    files(directory.path())
}

#[test]
fn a_manifest_with_impossible_numbers_is_refused() {
    let files = closed();
    let generation = 32..40;
    let next_id = 56..64;
    for (range, number) in [
        (generation.clone(), u64::MAX),
        (generation, u64::MAX / 2 + 1),
        (next_id.clone(), u64::MAX),
        (next_id, (1 << 32) + 1),
    ] {
        let mut changed = files.clone();
        let mut bytes = files["MANIFEST"].clone();
        bytes[range.clone()].copy_from_slice(&number.to_le_bytes());
        changed.insert("MANIFEST".to_owned(), with_crc(bytes));
        assert_refused(&changed, &format!("{number} in {range:?}"));
    }
}

#[test]
fn generations_end_and_do_not_begin_anew() {
    let directory = TempDirectory::new();
    let manifest = directory.path().join("MANIFEST");
    let open = || Db::open(directory.path(), &key_value());
    open().unwrap().close().unwrap();
    let mut bytes = fs::read(&manifest).unwrap();
    bytes[32..40].copy_from_slice(&(u64::MAX / 2).to_le_bytes());
    fs::write(&manifest, with_crc(bytes)).unwrap();

    let db = open().unwrap();
    db.set(1, b"first").unwrap();
    db.set(1, b"second").unwrap();
    // No honest one gets there.
    let last = db.compact(&Retention::default(), |_, _| ControlFlow::Continue(()));
    assert!(matches!(last, Err(Error::Corrupt { .. })), "{last:?}");
    db.set(1, b"third").unwrap();
    db.close().unwrap();
    let db = open().unwrap();
    assert_eq!(db.history(1, 0).unwrap().len(), 3);
}

#[test]
fn a_checkpoint_with_impossible_numbers_is_not_used() {
    let next_id = 56;
    let versions = 88;
    let deletions = 96;
    let files = closed();
    for (at, number) in [
        (versions, u64::MAX),
        (deletions, u64::MAX),
        (deletions, 5),
        (next_id, u64::MAX),
    ] {
        let directory = TempDirectory::new();
        let mut changed = files.clone();
        let index = changed.get_mut("index").unwrap();
        index[at..at + 8].copy_from_slice(&number.to_le_bytes());
        let crc = crc32fast::hash(&index[..108]);
        index[108..112].copy_from_slice(&crc.to_le_bytes());
        put(directory.path(), &changed);
        let db = Db::open(directory.path(), &key_value()).unwrap();
        db.set(3, b"third").unwrap();
        db.delete(3).unwrap();
        let stats = db.stats().unwrap();
        assert_eq!(
            (stats.versions, stats.deletions),
            (6, 2),
            "{number} at {at}"
        );
        assert_eq!(stats.next_id, 4, "{number} at {at}");
    }
}

/// Nor is memory asked for, for what can't be: the file is one of holes, and takes no space itself.
#[test]
fn a_checkpoint_of_more_blocks_than_there_are_ids_is_not_used() {
    let directory = TempDirectory::new();
    let mut files = closed();
    let index = files.get_mut("index").unwrap();
    let (len, blocks) = (index.len() as u64, u32::MAX);
    index[80..84].copy_from_slice(&blocks.to_le_bytes());
    let crc = crc32fast::hash(&index[..108]);
    index[108..112].copy_from_slice(&crc.to_le_bytes());
    put(directory.path(), &files);
    let index = directory.path().join("index");
    let index = fs::File::options().write(true).open(index).unwrap();
    index.set_len(len + u64::from(blocks) * 8).unwrap();
    let db = Db::open(directory.path(), &key_value()).unwrap();
    db.set(3, b"third").unwrap();
    assert_eq!(db.stats().unwrap().next_id, 4);
}

#[test]
fn commit_numbers_end_and_do_not_begin_anew() {
    let directory = TempDirectory::new();
    let manifest = directory.path().join("MANIFEST");
    let open = || Db::open(directory.path(), &key_value());
    open().unwrap().close().unwrap();
    let mut bytes = fs::read(&manifest).unwrap();
    bytes[64..72].copy_from_slice(&(u64::MAX - 1).to_le_bytes());
    fs::write(&manifest, with_crc(bytes)).unwrap();

    let db = open().unwrap();
    db.set(1, b"the last one").unwrap();
    for _ in 0..2 {
        let full = db.set(1, b"one more");
        assert!(matches!(full, Err(Error::Full(_))), "{full:?}");
    }
    db.close().unwrap();
    let db = open().unwrap();
    assert_eq!(db.last_commit().unwrap(), u64::MAX);
    assert_eq!(db.get(1).unwrap(), b"the last one");
    let full = db.set(1, b"one more");
    assert!(matches!(full, Err(Error::Full(_))), "{full:?}");
}

#[test]
fn a_pipe_in_the_place_of_the_lock_makes_no_reader_wait() {
    let directory = TempDirectory::new();
    let path = directory.path().join("db");
    let db = Db::open(&path, &Options::default()).unwrap();
    db.insert(b"a record").unwrap();
    db.close().unwrap();
    // With a manifest that can't be read a reader looks whether a writer is at work.
    fs::write(path.join("MANIFEST"), b"no manifest").unwrap();
    fs::remove_file(path.join("LOCK")).unwrap();
    let made = Command::new("mkfifo").arg(path.join("LOCK")).status();
    assert!(made.unwrap().success());
    let (answer, answers) = mpsc::channel();
    thread::spawn(move || {
        let reader = Options {
            read_only: true,
            ..Options::default()
        };
        answer.send(Db::open(&path, &reader).is_err())
    });
    let is_refused = answers.recv_timeout(Duration::from_secs(60));
    assert!(is_refused.expect("an answer"));
}

/// What the handle has open was moved or removed, and what its path leads to now is none of its.
#[test]
fn a_handle_changes_nothing_in_a_directory_that_has_come_in_the_place_of_its_own() {
    const IDS: u32 = 40;
    type Change = fn(Db) -> Result<(), Error>;
    let changes: [(&str, Change); 5] = [
        ("set", |db| {
            (0..IDS).try_for_each(|id| db.set(id, &[7; 100]))?;
            db.close()
        }),
        ("compact", |db| {
            db.compact(&Retention::default(), |_, _| ControlFlow::Continue(()))
        }),
        ("erase", |db| db.erase(1)),
        ("close", Db::close),
        ("destroy", Db::destroy),
    ];
    for ((what, change), removed) in changes.iter().flat_map(|c| [(c, false), (c, true)]) {
        let directory = TempDirectory::new();
        let (path, aside) = (directory.path().join("db"), directory.path().join("aside"));
        let options = Options {
            file_size: 1000,
            ..key_value()
        };
        let make = |value: &[u8]| {
            let db = Db::open(&path, &options).unwrap();
            (0..IDS).for_each(|id| db.set(id, value).unwrap());
            db
        };
        let old = make(&[1; 100]);
        if removed {
            fs::remove_dir_all(&path).unwrap();
        } else {
            fs::rename(&path, &aside).unwrap();
        }
        make(&[2; 100]).close().unwrap();
        let before = files(&path);
        let changed = change(old);
        assert!(changed.is_err(), "{what}, removed {removed}");
        assert_eq!(files(&path), before, "{what}, removed {removed}");
        if !removed {
            let db = Db::open(&aside, &Options::default()).unwrap();
            let report = db.check(|_, _| ControlFlow::Continue(())).unwrap();
            assert!(report.is_sound(), "{what}: {report}");
        }
    }
}

/// Who uses a checkpoint reads no data file before its end, and knows only of what is listed.
#[test]
fn a_checkpoint_is_used_only_where_its_data_files_are_listed() {
    let directory = TempDirectory::new();
    let path = directory.path();
    let options = Options {
        file_size: 150,
        ..key_value()
    };
    let db = Db::open(path, &options).unwrap();
    (0..10).for_each(|id| db.set(id, &[7; 100]).unwrap());
    let manifest = fs::read(path.join("MANIFEST")).unwrap();
    db.close().unwrap();
    fs::write(path.join("MANIFEST"), &manifest).unwrap();
    let reader = Options {
        read_only: true,
        ..Options::default()
    };
    let whole = Db::open(path, &reader).unwrap();
    assert_eq!(whole.count().unwrap(), 10);

    for change in [
        |path: &Path| fs::rename(path.join("2.db"), path.join("1.db")),
        |path: &Path| fs::remove_file(path.join("3.db")),
    ] {
        change(path).unwrap();
        let opened = Db::open(path, &options);
        assert!(matches!(opened, Err(Error::Corrupt { .. })), "{opened:?}");
    }
}

/// A data file of the database under another number, over another data file or beside them all, is refused
/// by name at the first opening. Salvage reads what is there without it, and the check names it.
#[test]
fn a_data_file_under_another_number_is_refused() {
    for lookup in [LookupKind::Memory, LookupKind::Disk] {
        let directory = TempDirectory::new();
        let path = directory.path();
        let options = Options {
            file_size: 200,
            lookup,
            record_nr_max: 5000,
            ..key_value()
        };
        let db = Db::open(path, &options).unwrap();
        (0..6).for_each(|id| db.set(id, &[1; 100]).unwrap());
        let log_alone = files(path);
        db.compact(&Retention::default(), |_, _| ControlFlow::Continue(()))
            .unwrap();
        let compacted = files(path);
        (0..6).for_each(|id| db.set(id, &[2; 100]).unwrap());
        let killed = files(path);
        db.close().unwrap();
        let closed = files(path);
        let log_begins = killed
            .keys()
            .find(|name| name.ends_with(".db") && !compacted.contains_key(*name));
        let log_begins = log_begins.unwrap().as_str();
        let compacted = compacted.keys().find(|name| name.ends_with(".db")).unwrap();

        let cases = [
            ("the log alone, behind all", &log_alone, "0.db", "9.db"),
            ("killed, before all", &killed, log_begins, "0.db"),
            ("killed, behind all", &killed, log_begins, "99.db"),
            (
                "killed, where the log begins",
                &killed,
                compacted,
                log_begins,
            ),
            ("closed, before all", &closed, log_begins, "0.db"),
            ("closed, behind all", &closed, log_begins, "99.db"),
            (
                "closed, where the log begins",
                &closed,
                compacted,
                log_begins,
            ),
        ];
        for (what, whole, from, to) in cases {
            let what = format!("{what}: {from} as {to}, lookup {lookup:?}");
            for has_checkpoint in [true, false] {
                let mut whole = whole.clone();
                if !has_checkpoint {
                    whole.remove("index");
                }
                let content = whole[from].clone();
                let mut changed = whole.clone();
                changed.insert(to.to_owned(), content);
                for read_only in [true, false] {
                    let directory = TempDirectory::new();
                    put(directory.path(), &changed);
                    let as_well = Options {
                        read_only,
                        ..options.clone()
                    };
                    match Db::open(directory.path(), &as_well) {
                        Err(Error::Corrupt { file, .. }) => {
                            assert!(file.ends_with(&format!("/{to}")), "{what}: {file}");
                        }
                        other => panic!("{what}: {other:?}"),
                    }
                    assert!(files(directory.path()) == changed, "{what}");

                    let salvage = Options {
                        salvage: true,
                        ..options.clone()
                    };
                    let db = Db::open(directory.path(), &salvage).expect(&what);
                    let found = (0..6).filter(|&id| db.contains(id).is_ok_and(|found| found));
                    assert_eq!(found.count(), 6, "{what}");
                    let report = db.check(|_, _| ControlFlow::Continue(())).expect(&what);
                    let mut damage = report.damage.iter();
                    let is_named = damage.any(|one| one.file.ends_with(&format!("/{to}")));
                    assert!(is_named, "{what}: {report}");
                    drop(db);

                    match whole.get(to) {
                        Some(content) => fs::write(directory.path().join(to), content).unwrap(),
                        None => fs::remove_file(directory.path().join(to)).unwrap(),
                    }
                    let db = Db::open(directory.path(), &as_well).expect(&what);
                    assert_eq!(db.count().unwrap(), 6, "{what}");
                }
            }
        }
    }
}

/// What somebody appends to a data file behind which the log goes on in the next one ends no log, for nobody
/// who reads it. What he has appended stays.
#[test]
fn the_log_goes_on_behind_what_others_append_to_a_finished_data_file() {
    const IDS: u32 = 20;
    let on = |_, _| ControlFlow::Continue(());
    for closed_between in [false, true] {
        let directory = TempDirectory::new();
        let path = directory.path();
        let options = Options {
            file_size: 300,
            ..key_value()
        };
        let mut db = Db::open(path, &options).unwrap();
        for id in 0..IDS {
            if closed_between && id == IDS / 2 {
                db.close().unwrap();
                db = Db::open(path, &options).unwrap();
            }
            db.set(id, &[id as u8; 100]).unwrap();
            db.set_many(&[(id, b"one".as_slice()), (IDS + id, &[9; 100])])
                .unwrap();
        }
        let last = db.last_commit().unwrap();
        let killed = files(path);
        let finished = (0..).map(|number| format!("{number}.db"));
        let mut finished: Vec<_> = finished
            .take_while(|name| killed.contains_key(name))
            .collect();
        finished.pop();
        assert!(finished.len() > 10, "{finished:?}");

        let record = &killed["0.db"][FILE_HEADER..FILE_HEADER + RECORD_HEADER + 100];
        let by_herolib = [
            &[5, 0, 0x86, 0xa6, 0x10, 0x36, 0, 0, 0, 0, 0, 0],
            b"hello".as_slice(),
        ];
        let zeros_first = [&[0; 5000], b"x".as_slice()].concat();
        for appended in [&by_herolib.concat()[..], &[0xee; 3], record, &zeros_first] {
            for name in &finished {
                let what = format!(
                    "{} bytes behind {name}, closed between: {closed_between}",
                    appended.len()
                );
                let directory = TempDirectory::new();
                let path = directory.path();
                put(path, &killed);
                let content = [&killed[name][..], appended].concat();
                fs::write(path.join(name), &content).unwrap();
                let reader = Options {
                    read_only: true,
                    ..Options::default()
                };
                let assert_whole = |db: &Db, last: u64| {
                    assert_eq!(db.last_commit().expect(&what), last, "{what}");
                    for id in 0..IDS {
                        assert_eq!(db.get(id).expect(&what), b"one", "{what}");
                        assert_eq!(db.history(id, 0).expect(&what).len(), 2, "{what}");
                        assert_eq!(db.get(IDS + id).expect(&what), [9; 100], "{what}");
                    }
                    let report = db.check(on).expect(&what);
                    assert!(report.is_sound(), "{what}: {report}");
                };
                let reader = Db::open(path, &reader).expect(&what);
                assert_whole(&reader, last);
                let db = Db::open(path, &options).expect(&what);
                assert_whole(&db, last);

                let copies = [(); 2].map(|()| TempDirectory::new());
                db.backup(copies[0].path(), on).expect(&what);
                let backup = Db::open(copies[0].path(), &options).expect(&what);
                assert_whole(&backup, last);
                let receiver = Db::open(copies[1].path(), &options).expect(&what);
                receiver
                    .apply(&db.changes(0, usize::MAX).expect(&what).0)
                    .expect(&what);
                assert_whole(&receiver, last);

                db.set(99, b"later").expect(&what);
                reader.refresh().expect(&what);
                assert_whole(&reader, last + 1);
                db.close().expect(&what);
                assert_eq!(fs::read(path.join(name)).unwrap(), content, "{what}");
                let db = Db::open(path, &options).expect(&what);
                assert_whole(&db, last + 1);
                assert_eq!(fs::read(path.join(name)).unwrap(), content, "{what}");
                let mut torn = files(path).into_keys();
                assert!(!torn.any(|name| name.starts_with("torn")), "{what}");
            }
        }
    }
}

/// A key-value database of three data files or more, killed, and nothing of it synced.
fn killed_in_data_files() -> Files {
    let directory = TempDirectory::new();
    let options = Options {
        file_size: 300,
        ..key_value()
    };
    let db = Db::open(directory.path(), &options).unwrap();
    (0..9).for_each(|id| db.set(id, &[1; 100]).unwrap());
    let killed = files(directory.path());
    assert!(killed.contains_key("2.db"));
    killed
}

/// What a writer of that database appends to `0.db` where it goes on in there: a commit of two records, and
/// the mark of its sync.
fn appended_to_the_first(killed: &Files) -> Vec<u8> {
    let mut first = killed.clone();
    first.retain(|name, _| name == "0.db" || !name.ends_with(".db"));
    let directory = TempDirectory::new();
    put(directory.path(), &first);
    let options = Options {
        file_size: 1 << 20,
        sync: Sync::Commit,
        ..key_value()
    };
    let db = Db::open(directory.path(), &options).unwrap();
    db.set_many(&[(100, &[2; 50]), (101, &[3; 50])]).unwrap();
    let appended = files(directory.path()).remove("0.db").unwrap();
    let end = killed["0.db"].len() + 3 * RECORD_HEADER + 100;
    assert_ne!(appended[end - RECORD_HEADER..end], [0; RECORD_HEADER]);
    appended[killed["0.db"].len()..end].to_vec()
}

/// A commit that failed may come back behind the end of a data file, in part: it was cut off, and the log went
/// on in the next file before that was on disk.
#[test]
fn the_log_goes_on_behind_what_is_left_of_a_failed_commit() {
    let killed = killed_in_data_files();
    let appended = appended_to_the_first(&killed);
    for len in [1, RECORD_HEADER, RECORD_HEADER + 50, 2 * RECORD_HEADER + 99] {
        let mut files = killed.clone();
        let first = files.get_mut("0.db").unwrap();
        first.extend_from_slice(&appended[..len]);
        let directory = TempDirectory::new();
        put(directory.path(), &files);
        let db = Db::open(directory.path(), &key_value()).expect("an open database");
        assert_eq!((db.last_commit().unwrap(), db.count().unwrap()), (9, 9));
        assert!((0..9).all(|id| db.get(id).is_ok_and(|value| value == [1; 100])));
        assert!(!db.contains(100).unwrap(), "{len} bytes");
    }
}

/// The next data file can't say that the log had ended where a sync mark proves that it went on, nor which
/// commit came before it against what is there.
#[test]
fn a_data_file_that_does_not_fit_the_end_of_the_one_before_is_damage() {
    let killed = killed_in_data_files();
    let mut appended = appended_to_the_first(&killed);
    appended[RECORD_HEADER] ^= 1;
    let mut marked = killed.clone();
    let first = marked.get_mut("0.db").unwrap();
    first.extend_from_slice(&appended);
    assert_refused(&marked, "a damaged record before a sync mark");

    let mut other = killed;
    other.get_mut("0.db").unwrap().extend_from_slice(b"x");
    let second = other.get_mut("1.db").unwrap();
    second[44] += 1;
    let header = with_crc(second[..FILE_HEADER].to_vec());
    second[..FILE_HEADER].copy_from_slice(&header);
    assert_refused(&other, "another commit in the header");
}

/// A disk that fails in places: everything else is there, and what lies in those places is an error or missing.
#[test]
fn what_can_be_read_of_a_failing_disk_is_salvaged() {
    let options = Options {
        key_value: true,
        native: true,
        file_size: 20_000,
        ..Options::default()
    };
    for is_compacted in [false, true] {
        let storage = SimStorage::new(Disk::new(), true, 3);
        let db = Db::open_on(Arc::new(storage.clone()), &options).expect("a new database");
        for id in 0..200u32 {
            db.set(id, &[id as u8; 300]).expect("a set");
        }
        if is_compacted {
            db.compact(&Retention::default(), |_, _| ControlFlow::Continue(()))
                .expect("a compaction");
        }
        db.close().expect("a close");
        let disk = storage.disk();
        let files = disk
            .files()
            .into_iter()
            .filter(|name| name.ends_with(".db"));
        for name in files {
            let len = disk.read(&name).expect("a data file").len();
            for lost in [0..len, 0..1, 5000..5001, len - 1..len] {
                let what = format!("{is_compacted}: {lost:?} of {name}");
                let storage = SimStorage::new(disk.clone(), true, 4);
                storage.lose_bytes(&name, lost.clone());
                let salvage = Options {
                    salvage: true,
                    ..Options::default()
                };
                let db = Db::open_on(Arc::new(storage), &salvage).expect(&what);
                let mut missing = 0;
                for id in 0..200u32 {
                    match db.get(id) {
                        Ok(value) => assert_eq!(value, [id as u8; 300], "{what}"),
                        Err(_) => missing += 1,
                    }
                }
                // The header alone, nothing at all but that, or a page, with what reaches into it.
                let (least, most) = match lost.start {
                    0 if lost.len() == 1 => (0, 0),
                    0 => (1, len / 300),
                    _ => (1, 14),
                };
                let is_right = (least..=most).contains(&missing);
                assert!(is_right, "{what}: {missing} are missing");
                let report = db.check(|_, _| ControlFlow::Continue(())).expect(&what);
                assert!(!report.is_sound(), "{what}");
            }
        }
    }
}

/// Each call that opens or reads a file of this name fails once, in an opening of its own: the opening
/// succeeds, and finds what `check` expects. How many calls failed.
fn openings_without(disk: &Disk, name: &str, options: &Options, check: impl Fn(&Db)) -> usize {
    let mut failed = 0;
    for after in 0.. {
        let storage = SimStorage::new(disk.clone(), true, 5);
        storage.fail(Some(Fault {
            calls: Calls::Reading,
            after,
            errno: Errno::Io,
            sticky: false,
            partly: false,
            pages: Pages::Dirty,
        }));
        let opened = Db::open_on(Arc::new(storage.clone()), options);
        storage.fail(None);
        let hits = storage.hits();
        let Some(hit) = hits.first() else {
            check(&opened.expect("nothing fails any more"));
            return failed;
        };
        if hit.call.split(' ').any(|word| word == name) {
            check(&opened.expect(&hit.call));
            failed += 1;
        }
    }
    unreachable!("an opening makes so many calls")
}

/// A data file that can't even be opened is as one that is missing: the others are there.
#[test]
fn what_a_failing_disk_does_not_open_is_left_out_in_salvage() {
    let options = Options {
        file_size: 1000,
        ..key_value()
    };
    let storage = SimStorage::new(Disk::new(), true, 5);
    let db = Db::open_on(Arc::new(storage.clone()), &options).expect("a new database");
    (0..40).for_each(|id| db.set(id, &[id as u8; 50]).expect("a set"));
    db.close().expect("a close");
    let salvage = Options {
        salvage: true,
        ..Options::default()
    };
    let check = |db: &Db| {
        let count = db.count().expect("a number");
        assert!((25..=40).contains(&count), "{count} records");
    };
    assert!(openings_without(&storage.disk(), "1.db", &salvage, check) > 0);
}

/// The lookup can be made again out of the log.
#[test]
fn a_checkpoint_that_can_not_be_read_is_not_used() {
    let storage = SimStorage::new(Disk::new(), true, 5);
    let db = Db::open_on(Arc::new(storage.clone()), &key_value()).expect("a new database");
    (0..100).for_each(|id| db.set(id, &[id as u8; 50]).expect("a set"));
    db.close().expect("a close");
    let check = |db: &Db| {
        (0..100).for_each(|id| assert_eq!(db.get(id).expect("a value"), [id as u8; 50]));
    };
    let failed = openings_without(&storage.disk(), "index", &key_value(), check);
    assert!(failed > 0);
}
