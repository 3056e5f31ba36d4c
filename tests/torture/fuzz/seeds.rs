//! The directories that the fuzzer begins with: small ones, in every state that a database, or
//! herolib, leaves a directory in.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ourdb::{Db, LookupKind, Options};

use super::storage::{Bounded, Files, read_directory, write_directory};
use crate::support::TempDirectory;
use crate::support::herolib::{Herolib, Port, Settings};

/// A directory to begin with.
#[derive(Debug)]
pub(super) struct Seed {
    pub(super) name: String,
    pub(super) files: Files,
    /// What was written into it, where that is known.
    pub(super) truth: Option<Truth>,
}

impl Seed {
    fn new(name: impl Into<String>, files: Files, truth: &Truth) -> Seed {
        Seed {
            name: name.into(),
            files,
            truth: Some(truth.clone()),
        }
    }

    fn truth(&self) -> &Truth {
        self.truth.as_ref().expect("it was made")
    }
}

/// What was written into a directory.
#[derive(Clone, Debug, Default)]
pub(super) struct Truth {
    /// What each commit changed: ids with values, `None` for a deletion.
    commits: Vec<Vec<(u32, Option<Vec<u8>>)>>,
    /// So many commits can't be lost without notice: the manifest knows of them.
    pub(super) synced: u64,
    /// What herolib wrote, under whatever id: its files don't say for sure.
    by_herolib: BTreeSet<Vec<u8>>,
    /// Whether every version is in a data file of ours.
    pub(super) own: bool,
}

impl Truth {
    pub(super) fn last_commit(&self) -> u64 {
        self.commits.len() as u64
    }

    /// Whether `id` ever held `value`, or may have.
    pub(super) fn is_version(&self, id: u32, value: &[u8]) -> bool {
        let mut changes = self.commits.iter().flatten();
        changes.any(|(changed, to)| *changed == id && to.as_deref() == Some(value))
            || self.by_herolib.contains(value)
            // Zeros are a record of herolib's, with an empty value.
            || (!self.own && value.is_empty())
    }

    /// All records as of a commit.
    pub(super) fn as_of(&self, commit: u64) -> BTreeMap<u32, &[u8]> {
        let mut records = BTreeMap::new();
        for (id, value) in self.commits.iter().take(commit as usize).flatten() {
            match value {
                Some(value) => records.insert(*id, value.as_slice()),
                None => records.remove(id),
            };
        }
        records
    }
}

/// A database that is written to, and what was written.
struct Writing {
    storage: Arc<Bounded>,
    db: Db,
    truth: Truth,
}

impl Writing {
    fn open(files: &Files, options: &Options, truth: Truth) -> Writing {
        let mut storage = Bounded::in_memory(files, true);
        storage.uuid = uuid_for(options);
        let storage = Arc::new(storage);
        let db = Db::open_on(storage.clone(), options).expect("a good directory");
        Writing { storage, db, truth }
    }

    fn set(&mut self, records: &[(u32, &[u8])]) {
        if records
            .iter()
            .any(|(id, _)| !self.db.contains(*id).unwrap())
            && self.db.next_id().is_ok()
        {
            let values: Vec<&[u8]> = records.iter().map(|(_, value)| *value).collect();
            let ids = self.db.insert_many(&values).unwrap();
            assert!(ids.iter().eq(records.iter().map(|(id, _)| id)));
        } else {
            self.db.set_many(records).unwrap();
        }
        let changes = records
            .iter()
            .map(|(id, value)| (*id, Some(value.to_vec())));
        self.truth.commits.push(changes.collect());
    }

    fn delete(&mut self, id: u32) {
        self.db.delete(id).unwrap();
        self.truth.commits.push(vec![(id, None)]);
    }

    /// A dozen commits on ids that both modes can give out.
    fn fill(&mut self) {
        self.set(&[(1, b"first")]);
        self.set(&[(2, b"second"), (3, b""), (4, &[7; 60])]);
        self.set(&[(1, b"first again")]);
        self.delete(2);
        self.db.sync().unwrap();
        self.set(&[(5, &[9; 100])]);
        self.set(&[(4, b"shorter"), (1, b"once more")]);
        self.db.sync().unwrap();
        self.delete(5);
        self.set(&[(6, b"after the mark"), (7, b"!")]);
    }

    fn more(&mut self) {
        self.set(&[(8, b"later")]);
        self.set(&[(1, b"later, too")]);
        self.delete(3);
    }

    fn snapshot(&self, name: String) -> Seed {
        let mut files = self.storage.files();
        for (_, content) in files.iter_mut().filter(|(name, _)| name.ends_with(".db")) {
            // Reserved space, of which a little is enough for a fuzzer.
            let written = content.iter().rposition(|&byte| byte != 0).unwrap_or(0);
            content.truncate(written + 1 + 16);
        }
        Seed::new(name, files, &self.truth)
    }

    /// The directory after a clean close.
    fn close(mut self, name: String) -> Seed {
        self.db.close().unwrap();
        self.truth.synced = self.truth.last_commit();
        Seed::new(name, self.storage.files(), &self.truth)
    }
}

/// Databases of different kinds are different databases; those of one kind are one, at different
/// times.
fn uuid_for(options: &Options) -> [u8; 16] {
    let kind = [
        u8::from(options.key_value),
        u8::from(options.native),
        options.file_size as u8,
    ];
    let mut uuid = [1; 16];
    uuid[..3].copy_from_slice(&kind);
    uuid
}

/// All of them.
pub(super) fn all() -> Vec<Seed> {
    let mut seeds = Vec::new();
    for (name, options) in kinds() {
        of_ours(&mut seeds, name, &options);
    }
    lookup_on_disk(&mut seeds);
    of_herolibs(&mut seeds);
    seeds
}

fn kinds() -> [(&'static str, Options); 5] {
    let small = Options {
        record_nr_max: 700,
        ..Options::default()
    };
    let native = Options {
        native: true,
        ..small.clone()
    };
    [
        ("incremental", small.clone()),
        (
            "key-value",
            Options {
                key_value: true,
                ..small
            },
        ),
        ("native", native.clone()),
        (
            "native in several files",
            Options {
                key_value: true,
                file_size: 150,
                ..native
            },
        ),
        (
            "with the default limits, in several files",
            Options {
                file_size: 200,
                ..Options::default()
            },
        ),
    ]
}

/// The states of one kind of database of ours.
fn of_ours(seeds: &mut Vec<Seed>, kind: &str, options: &Options) {
    let own = Truth {
        own: true,
        ..Truth::default()
    };
    let mut writing = Writing::open(&Files::new(), options, own.clone());
    seeds.push(writing.snapshot(format!("{kind}, new")));
    writing.fill();
    let killed = writing.snapshot(format!("{kind}, killed"));
    let truth = writing.truth.clone();
    let closed = writing.close(format!("{kind}, closed"));

    let mut writing = Writing::open(&closed.files, options, closed.truth().clone());
    writing.more();
    let again = writing.snapshot(format!("{kind}, killed after a clean close"));

    // A power loss: the last commit is half there.
    let mut torn = killed.files.clone();
    let last = torn.iter_mut().rfind(|(name, _)| name.ends_with(".db"));
    let (_, content) = last.expect("a data file");
    let written = content.iter().rposition(|&byte| byte != 0);
    content.truncate(written.expect("a record"));
    let torn = Seed::new(format!("{kind}, torn"), torn, &truth);

    // The process died when all but the manifest was written.
    let mut in_close = closed.files.clone();
    in_close.insert("MANIFEST".to_owned(), killed.files["MANIFEST"].clone());
    let in_close = Seed::new(format!("{kind}, killed in close"), in_close, &truth);
    seeds.extend([killed, closed, again, torn, in_close]);
}

/// Databases with the lookup in a file, which only real files can have.
fn lookup_on_disk(seeds: &mut Vec<Seed>) {
    let directory = TempDirectory::new();
    let options = Options {
        lookup: LookupKind::Disk,
        native: true,
        key_value: true,
        record_nr_max: 700,
        ..Options::default()
    };
    let path = directory.path();
    let mut truth = Truth {
        own: true,
        ..Truth::default()
    };
    let db = Db::open(path, &options).unwrap();
    for (id, value) in [(1, "one"), (2, "two"), (600, "six hundred")] {
        db.set(id, value.as_bytes()).unwrap();
        truth.commits.push(vec![(id, Some(value.into()))]);
    }
    db.close().unwrap();
    truth.synced = truth.last_commit();
    let name = "lookup on disk, closed";
    seeds.push(Seed::new(name, read_directory(path), &truth));
    let db = Db::open(path, &options).unwrap();
    db.set(3, b"three").unwrap();
    drop(db);
    truth.commits.push(vec![(3, Some(b"three".to_vec()))]);
    let mut files = read_directory(path);
    files.get_mut("0.db").expect("0.db").truncate(1000);
    seeds.push(Seed::new("lookup on disk, killed", files, &truth));
}

/// Directories of herolib's in every form, and what becomes of them.
fn of_herolibs(seeds: &mut Vec<Seed>) {
    let incremental = |width| (format!("width {width}"), Settings::with_width(width));
    let kinds = [
        incremental(2),
        incremental(3),
        incremental(6),
        ("key-value".to_owned(), Settings::with_width(4).key_value()),
        ("several files".to_owned(), Settings::DEFAULT.file_size(100)),
    ];
    // A small table is made faster.
    let small = Options {
        record_nr_max: 700,
        ..Options::default()
    };
    for (name, settings) in kinds {
        let directory = TempDirectory::new();
        let path = directory.path();
        let mut truth = Truth::default();
        let mut herolib = Herolib::open(path, settings, Port::Go).unwrap();
        herolib_writes(&mut herolib, &mut truth, settings.incremental, b"");
        if settings.incremental {
            let name = format!("herolib, {name}, no dump");
            seeds.push(Seed::new(name, read_directory(path), &truth));
        }
        herolib.close();
        let files = read_directory(path);
        seeds.push(Seed::new(format!("herolib, {name}"), files.clone(), &truth));

        let mut writing = Writing::open(&files, &small, truth);
        let id = writing.db.first().unwrap();
        writing.db.set(id, b"ours").unwrap();
        writing.truth.by_herolib.insert(b"ours".to_vec());
        let killed = writing.snapshot(format!("taken over, {name}, killed"));
        let closed = writing.close(format!("taken over, {name}, closed"));
        if let Some(mixed) = written_again(&closed, settings) {
            seeds.push(mixed);
        }
        seeds.extend([killed, closed]);
    }
    let directory = TempDirectory::new();
    let mut truth = Truth::default();
    let mut herolib = Herolib::open(directory.path(), Settings::DEFAULT, Port::V).unwrap();
    herolib_writes(&mut herolib, &mut truth, true, b"");
    herolib.close_plain();
    let files = read_directory(directory.path());
    seeds.push(Seed::new("before herolib", files, &truth));
}

fn herolib_writes(herolib: &mut Herolib, truth: &mut Truth, incremental: bool, mark: &[u8]) {
    let mut write = |herolib: &mut Herolib, id: u32, value: &[u8]| {
        let value = [value, mark].concat();
        if incremental && herolib.place(id).1 == 0 {
            herolib.insert(&value);
        } else {
            herolib.set(id, &value).unwrap();
        }
        truth.by_herolib.insert(value);
    };
    for id in 1..5 {
        write(herolib, id, &[id as u8; 30]);
    }
    write(herolib, 2, b"two");
    write(herolib, 1, b"one");
    herolib.delete(3).unwrap();
    write(herolib, 2, b"two again");
}

/// A database that was taken over and closed, after which herolib has written to it once more;
/// opened and closed by us. The data file of ours is frozen then, with herolib's records in it.
fn written_again(closed: &Seed, settings: Settings) -> Option<Seed> {
    let directory = TempDirectory::new();
    write_directory(directory.path(), &closed.files);
    let mut truth = closed.truth().clone();
    let settings = Settings {
        // Our default, on which the width of the dump depends.
        record_size_max: 65_535,
        record_nr_max: 700,
        // What herolib rolls over to it empties.
        file_size: Settings::DEFAULT.file_size,
        ..settings
    };
    let mut herolib = Herolib::open(directory.path(), settings, Port::Go).ok()?;
    herolib.set(2, b"by herolib, later").ok()?;
    truth.by_herolib.insert(b"by herolib, later".to_vec());
    herolib.close();
    let files = read_directory(directory.path());
    let mut writing = Writing::open(&files, &Options::default(), truth);
    writing.db.set(2, b"ours, later").ok()?;
    writing.truth.by_herolib.insert(b"ours, later".to_vec());
    Some(writing.close(format!("{}, mixed", closed.name)))
}
