//! Databases to be damaged: each with its directory as it is left behind, everything that was ever
//! written to it, and what had been promised to be on disk.

use std::collections::BTreeMap;
use std::sync::Arc;

use ourdb::storage::os::OsStorage;
use ourdb::storage::{Access, Storage, parent, read_all};
use ourdb::{Db, IoMode, LookupKind, Options, Sync};

use crate::damage::Damage;
use crate::support::TempDirectory;
use crate::support::herolib::{Herolib, Port, Settings};
use crate::support::sim::{Disk, SimStorage};
use crate::truth::Truth;

/// The header of a data file.
pub(crate) const FILE_HEADER: usize = 64;
/// What stands before a value.
pub(crate) const RECORD_HEADER: usize = 40;
/// Short enough for several data files; the longest value doesn't fit into one.
const FILE_SIZE: u32 = 8000;
const LONGEST_VALUE: u32 = 9000;
/// Ids of these databases are below this.
const RECORD_NR_MAX: u32 = 700;
/// The sum of what each scene writes is over 64 KiB.
const PART: usize = 17_000;

/// Everything in a directory: names and contents.
pub(crate) type Image = BTreeMap<String, Vec<u8>>;

/// Reads a directory, and the dump in it.
pub(crate) fn image(storage: &dyn Storage) -> Image {
    let mut image = Image::new();
    for directory in ["", "lookup_dump.db/"] {
        let names = storage.list(directory.trim_end_matches('/'));
        for name in names.into_iter().flatten() {
            let name = format!("{directory}{name}");
            if !storage.is_directory(&name).expect("a name that was listed") {
                let content = read_all(storage, &name, u64::MAX).expect("a file that was listed");
                image.insert(name, content);
            }
        }
    }
    image
}

/// Writes a directory where none is.
pub(crate) fn put(storage: &dyn Storage, image: &Image) {
    let done = "a file is written";
    storage.create_root().expect(done);
    for (name, content) in image {
        let directory = parent(name);
        if !directory.is_empty() && !storage.is_directory(directory).expect(done) {
            storage.create_directory(directory).expect(done);
        }
        let file = storage.open(name, Access::CreateNew).expect(done);
        file.write_at(0, &[content]).expect(done);
        file.sync().expect(done);
    }
    storage.sync_directory("").expect(done);
}

/// A simulated disk with these files. When they were changed it doesn't know, so nobody can rely on
/// that they were not.
pub(crate) fn disk(image: &Image) -> Disk {
    let storage = SimStorage::new(Disk::new(), true, 0);
    put(&storage, image);
    let forget =
        |disk: Disk, (name, content): (&String, &Vec<u8>)| disk.with(name, Some(content.clone()));
    image.iter().fold(storage.disk(), forget)
}

/// The number of a data file.
pub(crate) fn number(name: &str) -> Option<u16> {
    name.strip_suffix(".db")?.parse().ok()
}

/// The name of a data file.
pub(crate) fn data_file(number: u16) -> String {
    format!("{number}.db")
}

/// A database, as it is left behind.
pub(crate) struct Scene {
    pub(crate) name: &'static str,
    /// How it is opened.
    pub(crate) options: Options,
    pub(crate) image: Image,
    pub(crate) truth: Truth,
    /// Closed cleanly; otherwise the process died.
    pub(crate) closed: bool,
    /// The last commit that is promised to be on disk.
    pub(crate) synced: u64,
    /// The last commit before the last clean close.
    pub(crate) closed_with: u64,
    /// Where records of herolib's begin: data file and position.
    herolib: Vec<(String, usize)>,
    /// The directory at earlier moments, and the last commit then; `None` if herolib has written
    /// since.
    pub(crate) earlier: Vec<(Image, Option<u64>)>,
}

impl Scene {
    fn new(name: &'static str, options: Options) -> Scene {
        Scene {
            name,
            truth: Truth::new(options.key_value),
            options,
            image: Image::new(),
            closed: false,
            synced: 0,
            closed_with: 0,
            herolib: Vec::new(),
            earlier: Vec::new(),
        }
    }

    fn open(&self, storage: &Arc<dyn Storage>) -> Db {
        Db::open_on(Arc::clone(storage), &self.options).expect("an undamaged database opens")
    }

    fn remember(&mut self, storage: &dyn Storage) {
        self.earlier
            .push((image(storage), Some(self.truth.last_commit)));
    }

    /// Half of the database, with a clean close at its end.
    fn first_half(&mut self, storage: &Arc<dyn Storage>) {
        let db = self.open(storage);
        self.truth.grow(&db, PART);
        self.remember(&**storage);
        self.truth.put(&db, Some(LONGEST_VALUE)).expect("a write");
        db.close().expect("a close");
        self.closed_with = self.truth.last_commit;
        self.remember(&**storage);
    }

    /// The other half, of which the end is not synced unless each commit is or it is closed.
    fn second_half(&mut self, storage: &Arc<dyn Storage>, closed: bool) {
        let db = self.open(storage);
        self.truth.grow(&db, PART / 2);
        db.sync().expect("a sync");
        self.remember(&**storage);
        self.truth.grow(&db, PART / 2);
        db.sync().expect("a sync");
        self.synced = self.truth.last_commit;
        self.remember(&**storage);
        self.truth.grow(&db, PART);
        if closed {
            db.close().expect("a close");
        }
        if closed || self.options.sync == Sync::Commit {
            self.synced = self.truth.last_commit;
        }
        self.closed = closed;
        self.image = image(&**storage);
    }

    /// Adds so many records as herolib does, a second version of some, and closes as it does. What
    /// was left behind.
    fn write_as_herolib(&mut self, before: &Image, count: usize) -> Image {
        let directory = TempDirectory::new();
        let storage = OsStorage::new(directory.path(), IoMode::File);
        put(&storage, before);
        let settings = Settings {
            record_nr_max: RECORD_NR_MAX,
            // The library's default, on which the width of the dump depends.
            record_size_max: 65_535,
            ..Settings::DEFAULT
        };
        let mut herolib = Herolib::open(directory.path(), settings, Port::Go).expect("it opens");
        let mut ids = self.truth.live_ids(self.truth.last_commit);
        ids.truncate(count);
        for _ in 0..count {
            let value = self.truth.value(Some(100));
            let id = herolib.insert(&value);
            self.note_herolibs(&herolib, id, value);
            ids.push(id);
        }
        for id in ids {
            let value = self.truth.value(Some(200));
            herolib.set(id, &value).expect("a set");
            self.note_herolibs(&herolib, id, value);
        }
        herolib.close();
        image(&storage)
    }

    fn note_herolibs(&mut self, herolib: &Herolib, id: u32, value: Vec<u8>) {
        let (file, position) = herolib.place(id);
        self.herolib.push((data_file(file), position as usize));
        self.truth.add(id, 0, 0, Some(value));
    }

    /// Whether damage leaves a record of herolib's that is another one and passes its check: the
    /// checksum is that of the value alone, and zeros are an empty value with the right checksum.
    pub(crate) fn is_beyond_herolibs_check(&self, damage: &Damage) -> bool {
        self.herolib.iter().any(|(name, at)| {
            let Some(Some(content)) = damage.get(name) else {
                return false;
            };
            let Some(header) = content.get(*at..at + 12) else {
                return false;
            };
            let value = at + 12..at + 12 + usize::from(u16::from_le_bytes([header[0], header[1]]));
            header != &self.image[name][*at..at + 12]
                && content
                    .get(value)
                    .is_some_and(|value| crc32fast::hash(value).to_le_bytes() == header[2..6])
        })
    }

    /// Whether it is a data file of the log, and of no earlier generation.
    pub(crate) fn is_log(&self, name: &str) -> bool {
        log(&self.image)
            .iter()
            .any(|entry| data_file(entry.file) == name)
    }

    /// Whether a file holds nothing that isn't in the others as well, so that its damage must not
    /// even be noticed.
    pub(crate) fn is_derived(name: &str) -> bool {
        ["LOCK", "index"].contains(&name)
    }

    /// How many bits the directory has.
    pub(crate) fn bits(&self) -> u64 {
        self.image.values().map(|file| file.len() as u64 * 8).sum()
    }

    /// The file that holds a bit of the directory, and its number there.
    pub(crate) fn bit(&self, mut bit: u64) -> (&str, usize) {
        for (name, content) in &self.image {
            let bits = content.len() as u64 * 8;
            if bit < bits {
                return (name, bit as usize);
            }
            bit -= bits;
        }
        panic!("the directory has only {} bits", self.bits());
    }
}

fn options(key_value: bool, sync: Sync) -> Options {
    Options {
        key_value,
        sync,
        file_size: FILE_SIZE,
        record_nr_max: RECORD_NR_MAX,
        ..Options::default()
    }
}

/// A simulated storage, whose random numbers (the uuid among them) come from the seed.
fn simulated(image: &Image, seed: u64) -> Arc<dyn Storage> {
    Arc::new(SimStorage::new(disk(image), true, seed))
}

/// A cleanly closed incremental database.
pub(crate) fn closed(seed: u64) -> Scene {
    let mut scene = Scene::new("cleanly closed", options(false, Sync::Os));
    let storage = simulated(&Image::new(), seed);
    scene.first_half(&storage);
    scene.second_half(&storage, true);
    scene
}

/// A key-value database whose process died, the last commits not synced.
pub(crate) fn killed(seed: u64) -> Scene {
    let mut scene = Scene::new("killed, sync OS", options(true, Sync::Os));
    let storage = simulated(&Image::new(), seed);
    scene.first_half(&storage);
    scene.second_half(&storage, false);
    scene
}

/// A database whose process died, each commit synced, that was never closed.
pub(crate) fn killed_synced(seed: u64) -> Scene {
    let mut scene = Scene::new("killed, sync COMMIT", options(false, Sync::Commit));
    let storage = simulated(&Image::new(), seed);
    let db = scene.open(&storage);
    scene.truth.grow(&db, PART);
    scene.remember(&*storage);
    drop(db);
    let db = scene.open(&storage);
    scene.truth.put(&db, Some(LONGEST_VALUE)).expect("a write");
    scene.truth.grow(&db, PART);
    drop(db);
    scene.second_half(&storage, false);
    scene
}

/// A database whose process died, nothing synced since it was last closed, and whose checkpoint is
/// gone: only the manifest says how far the log was on disk.
pub(crate) fn killed_unmarked(seed: u64) -> Scene {
    let mut scene = Scene::new("killed, without a checkpoint", options(false, Sync::Os));
    let storage = simulated(&Image::new(), seed);
    scene.first_half(&storage);
    let db = scene.open(&storage);
    scene.truth.grow(&db, 2 * PART);
    scene.synced = scene.closed_with;
    storage.remove("index").expect("a close writes it");
    scene.image = image(&*storage);
    scene
}

/// A directory that herolib made, that was taken over, written to by herolib again, and taken
/// over again: data files of all kinds, and a base.
pub(crate) fn taken_over(seed: u64, closed: bool) -> Scene {
    let name = if closed {
        "taken over from herolib, cleanly closed"
    } else {
        "taken over from herolib, killed"
    };
    let mut scene = Scene::new(name, options(false, Sync::Os));
    let herolibs = scene.write_as_herolib(&Image::new(), 10);
    let storage = simulated(&herolibs, seed);
    scene.first_half(&storage);
    let ours = image(&*storage);
    let herolibs = scene.write_as_herolib(&ours, 3);
    let storage = simulated(&herolibs, seed + 1);
    scene
        .earlier
        .iter_mut()
        .for_each(|(_, commit)| *commit = None);
    scene.remember(&*storage);
    scene.second_half(&storage, closed);
    scene
}

/// On a real directory, read through mappings, with the lookup in a file.
pub(crate) fn real(closed: bool) -> Scene {
    let name = if closed {
        "on a real directory, cleanly closed"
    } else {
        "on a real directory, killed"
    };
    let directory = TempDirectory::new();
    let storage: Arc<dyn Storage> = Arc::new(OsStorage::new(directory.path(), IoMode::Map));
    let options = Options {
        lookup: LookupKind::Disk,
        ..options(false, Sync::Os)
    };
    let mut scene = Scene::new(name, options);
    scene.first_half(&storage);
    scene.second_half(&storage, closed);
    scene
}

/// A record of the log, as its bytes say.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) file: u16,
    pub(crate) at: usize,
    pub(crate) end: usize,
    pub(crate) commit: u64,
    /// A sync mark.
    pub(crate) mark: bool,
    /// The last one of its commit, or a sync mark.
    pub(crate) last: bool,
}

/// The records of the log in an undamaged directory, in order.
pub(crate) fn log(image: &Image) -> Vec<Entry> {
    let mut files: Vec<(u16, &Vec<u8>)> = image
        .iter()
        .filter_map(|(name, content)| Some((number(name)?, content)))
        .filter(|(_, content)| content.get(1..6) == Some(b"OurDB"))
        .collect();
    files.sort_unstable_by_key(|(number, _)| *number);
    // Of files of an earlier generation nothing is read as a log any more.
    let generation = |content: &[u8]| content[36..44].to_vec();
    let current = files.last().map(|(_, content)| generation(content));
    files.retain(|(_, content)| Some(generation(content)) == current);
    let mut entries = Vec::new();
    for (file, content) in files {
        let mut at = FILE_HEADER;
        while content.get(at + 4).is_some_and(|&kind| kind != 0) {
            let head = &content[at..at + RECORD_HEADER];
            let len = u32::from_le_bytes([head[28], head[29], head[6], head[7]]) as usize;
            let end = at + RECORD_HEADER + len;
            entries.push(Entry {
                file,
                at,
                end,
                commit: u64::from_le_bytes(head[12..20].try_into().expect("eight bytes")),
                mark: head[4] == 3,
                last: head[5] & 1 != 0,
            });
            at = end;
        }
    }
    entries
}
