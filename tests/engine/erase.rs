//! Erasure: the record is gone at once, for everybody; its bytes are gone from all files; and
//! neither a crash nor a failure leaves anything in between.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::support::herolib::{Herolib, Port, Settings};
use crate::support::sim::{Calls, Disk, Errno, Fault, Loss, Pages, SimStorage, Unsynced};
use crate::support::{Random, TempDirectory};
use ourdb::storage::memory::MemoryStorage;
use ourdb::storage::os::OsStorage;
use ourdb::storage::{Storage, read_all};
use ourdb::{
    Db, Error, IoMode, LookupKind, NotFound, Options, Order, Result, Retention, State, Sync,
};

/// The length of what is searched for: so long that no two values have it in common.
const NEEDLE: usize = 16;

fn value(random: &mut Random) -> Vec<u8> {
    let len = match random.below(20) {
        0 => 150_000,
        1 => NEEDLE,
        _ => NEEDLE + random.below(300) as usize,
    };
    let mut bytes = Vec::new();
    while bytes.len() < len {
        bytes.extend_from_slice(&random.next().to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// The contents of all files.
fn files(storage: &dyn Storage) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    for name in storage.list("").expect("names") {
        if storage.is_directory(&name).expect("a look") {
            continue;
        }
        let bytes = read_all(storage, &name, 1 << 30).expect("a file");
        files.push((name, bytes));
    }
    files
}

/// The file in which a part of one of the values stands.
fn find<'a>(
    files: &[(String, Vec<u8>)],
    values: impl IntoIterator<Item = &'a Vec<u8>>,
) -> Option<String> {
    let parts = |value: &'a Vec<u8>| value.windows(NEEDLE).step_by(value.len() / 64 + 1);
    let needles: HashSet<&[u8]> = values.into_iter().flat_map(parts).collect();
    // Most places are told by a first look at two bytes.
    let mut begins = vec![false; 1 << 16];
    let begin = |bytes: &[u8]| usize::from(u16::from_le_bytes([bytes[0], bytes[1]]));
    for needle in &needles {
        begins[begin(needle)] = true;
    }
    let stands_in = |bytes: &[u8]| {
        let mut places = bytes.windows(NEEDLE);
        places.any(|place| begins[begin(place)] && needles.contains(place))
    };
    let mut files = files.iter();
    files
        .find(|(_, bytes)| stands_in(bytes))
        .map(|(name, _)| name.clone())
}

fn check(db: &Db) {
    let report = db.check(|_, _| ControlFlow::Continue(())).expect("a check");
    assert!(report.is_sound(), "{report}");
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Version {
    commit: u64,
    state: State,
    value: Vec<u8>,
}

fn history(db: &Db, id: u32) -> Vec<Version> {
    let records = match db.history(id, 0) {
        Err(Error::NotFound(NotFound::History(_))) => return Vec::new(),
        records => records.expect("a history"),
    };
    let version = |record: ourdb::Record<'_>| Version {
        commit: record.commit,
        state: record.state,
        value: record.value.to_vec(),
    };
    records.iter().map(version).collect()
}

/// Per id all versions, newest first.
#[derive(Debug, Default)]
struct Model {
    versions: BTreeMap<u32, Vec<Version>>,
    /// Values that were erased.
    gone: Vec<Vec<u8>>,
}

impl Model {
    fn newest(&self, id: u32) -> Option<&Version> {
        self.versions.get(&id)?.first()
    }

    fn is_live(&self, id: u32) -> bool {
        self.newest(id).is_some_and(|v| v.state == State::Live)
    }

    fn live(&self) -> Vec<u32> {
        let ids = self.versions.keys().copied();
        ids.filter(|&id| self.is_live(id)).collect()
    }

    fn push(&mut self, db: &Db, id: u32, state: State, value: Vec<u8>) {
        let commit = db.last_commit().expect("a number");
        let version = Version {
            commit,
            state,
            value,
        };
        self.versions.entry(id).or_default().insert(0, version);
    }

    fn erase(&mut self, db: &Db, id: u32) {
        let versions = self.versions.remove(&id).unwrap_or_default();
        let live = versions.into_iter().filter(|v| v.state == State::Live);
        self.gone.extend(live.map(|version| version.value));
        self.push(db, id, State::Erased, Vec::new());
    }

    fn compact(&mut self, retention: &Retention) {
        for versions in self.versions.values_mut() {
            let mut index = 0;
            versions.retain(|version| {
                index += 1;
                index - 1 < retention.keep_versions
                    || retention.keep_since_commit != 0
                        && version.commit >= retention.keep_since_commit
                    || index == 1 && version.state == State::Live
            });
        }
        self.versions.retain(|_, versions| !versions.is_empty());
    }

    fn compare(&self, db: &Db, storage: &dyn Storage, what: &str) {
        let live = self.live();
        assert_eq!(db.count().expect("a count"), live.len() as u64, "{what}");
        let mut scan = db.scan(0, u32::MAX, Order::default()).expect("a scan");
        for &id in &live {
            let record = scan.next().expect("a step").expect("a record");
            let newest = self.newest(id).expect("a version");
            assert_eq!((record.id, record.value), (id, &newest.value[..]), "{what}");
            assert!(db.get(id).expect("a value") == newest.value, "{what}");
        }
        assert_eq!(scan.next().expect("the end"), None, "{what}");
        for (&id, versions) in &self.versions {
            assert!(history(db, id) == *versions, "{what}: history of {id}");
            assert_eq!(db.contains(id).expect("a look"), self.is_live(id), "{what}");
        }
        check(db);
        self.search(storage, what);
    }

    fn search(&self, storage: &dyn Storage, what: &str) {
        let files = files(storage);
        let found = find(&files, &self.gone);
        assert_eq!(found, None, "{what}: an erased value is there");
        if let Some(&id) = self.live().first() {
            let newest = self.newest(id).expect("a version");
            assert!(find(&files, [&newest.value]).is_some(), "{what}: no search");
        }
    }
}

/// Random work with erasures in it, compared with the model after each round.
fn work(storage: &Arc<dyn Storage>, options: &Options, seed: u64, rounds: u32) {
    let mut random = Random::new(seed);
    let mut model = Model::default();
    let open = || Db::open_on(Arc::clone(storage), options).expect("it opens");
    let mut db = open();
    for round in 0..rounds {
        let what = format!("seed {seed} round {round}");
        for _ in 0..random.below(30) {
            let known = model.versions.keys().copied().collect::<Vec<_>>();
            let id = match known.len() as u64 {
                0 => 1,
                _ if options.key_value && random.chance(30) => random.below(20) as u32,
                len => known[random.below(len) as usize],
            };
            match random.below(20) {
                0 | 1 => {
                    let deleted = db.delete(id);
                    assert_eq!(deleted.is_ok(), model.is_live(id), "{what}: {deleted:?}");
                    if deleted.is_ok() {
                        model.push(&db, id, State::Deleted, Vec::new());
                    }
                }
                2 if random.chance(30) => {
                    db.clear().expect("a clear");
                    for id in model.live() {
                        model.push(&db, id, State::Deleted, Vec::new());
                    }
                }
                3..7 => {
                    let newest = model.newest(id).map(|version| version.state);
                    match (newest, db.erase(id)) {
                        (None, Err(Error::NotFound(NotFound::History(_)))) => {}
                        (Some(State::Erased), Err(Error::NotFound(NotFound::Record(_)))) => {}
                        (Some(_), Ok(())) => model.erase(&db, id),
                        (newest, erased) => panic!("{what}: {newest:?} and {erased:?}"),
                    }
                    model.search(&**storage, &what);
                }
                _ if !options.key_value && (known.is_empty() || random.chance(40)) => {
                    let value = value(&mut random);
                    let id = db.insert(&value).expect("an insert");
                    assert!(!model.versions.contains_key(&id), "{what}: {id} again");
                    model.push(&db, id, State::Live, value);
                }
                _ => {
                    let value = value(&mut random);
                    let set = db.set(id, &value);
                    assert_eq!(
                        set.is_ok(),
                        options.key_value || model.is_live(id),
                        "{what}"
                    );
                    if set.is_ok() {
                        model.push(&db, id, State::Live, value);
                    }
                }
            }
        }
        model.compare(&db, &**storage, &what);
        if random.chance(30) {
            let last = db.last_commit().expect("a number");
            let retention = Retention {
                keep_versions: random.below(4),
                keep_since_us: 0,
                keep_since_commit: if random.chance(30) {
                    random.below(last + 2)
                } else {
                    0
                },
            };
            let snapshot = random
                .chance(50)
                .then(|| db.snapshot().expect("a snapshot"));
            db.compact(&retention, |_, _| ControlFlow::Continue(()))
                .expect("a compaction");
            model.compact(&retention);
            if let (Some(snapshot), Some(&id)) = (snapshot, model.live().first()) {
                // In a world of before, whose files are there still.
                assert!(snapshot.get(id).is_ok());
                db.erase(id).expect("an erasure");
                model.erase(&db, id);
                assert!(snapshot.get(id).is_err() && !snapshot.contains(id).expect("a look"));
                model.search(&**storage, &what);
            }
            model.compare(&db, &**storage, &format!("{what}, compacted"));
        }
        match random.below(4) {
            0 => db.close().expect("a close"),
            1 => drop(db),
            _ => continue,
        }
        db = open();
        model.compare(&db, &**storage, &format!("{what}, reopened"));
    }
}

fn any_options(random: &mut Random) -> Options {
    Options {
        key_value: random.chance(60),
        record_nr_max: 5000,
        record_size_max: 1 << 20,
        file_size: 200 + random.below(8000) as u32,
        native: random.chance(50),
        sync: [Sync::Os, Sync::Commit][random.below(2) as usize],
        ..Options::default()
    }
}

#[test]
fn what_is_erased_is_gone() {
    for seed in 0..30 {
        let options = any_options(&mut Random::new(seed));
        let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
        work(&storage, &options, seed, 12);
    }
}

#[test]
fn what_is_erased_is_gone_from_real_files() {
    for seed in 100..112 {
        let mut random = Random::new(seed);
        let directory = TempDirectory::new();
        let options = Options {
            lookup: [LookupKind::Memory, LookupKind::Disk][random.below(2) as usize],
            io: [IoMode::Auto, IoMode::File][random.below(2) as usize],
            ..any_options(&mut random)
        };
        let storage = OsStorage::new(directory.path().join("db"), options.io);
        let storage: Arc<dyn Storage> = Arc::new(storage);
        work(&storage, &options, seed, 6);
    }
}

#[test]
fn a_database_in_memory_erases_too() {
    let options = Options {
        memory: true,
        ..Options::default()
    };
    let db = Db::open("", &options).expect("it opens");
    let id = db.insert(b"a secret of some length").expect("an insert");
    db.set(id, b"another one").expect("a set");
    db.erase(id).expect("an erasure");
    assert!(matches!(db.get(id), Err(Error::NotFound(_))));
    assert_eq!(history(&db, id).len(), 1);
    check(&db);
    assert_ne!(db.insert(b"next").expect("an insert"), id);
    db.close().expect("a close");
}

#[test]
fn snapshots_scans_and_transactions_lose_it_too() {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    let db = Db::open_on(storage, &Options::default()).expect("it opens");
    for number in 0..10u8 {
        db.insert(&[number; 30]).expect("an insert");
    }
    let snapshot = db.snapshot().expect("a snapshot");
    let past = db.snapshot_at(8).expect("a snapshot");
    let mut scan = snapshot
        .scan(0, u32::MAX, Order::default())
        .expect("a scan");
    // It reads ahead by now.
    for id in 1..5 {
        assert_eq!(scan.next().expect("a step").expect("a record").id, id);
    }
    let mut txn = db.begin().expect("a transaction");
    assert!(txn.get(6).is_ok());
    txn.set(1, b"based on that").expect("a set");
    let mut blind = db.begin().expect("a transaction");
    blind.set(6, b"whatever it was").expect("a set");
    db.erase(6).expect("an erasure");
    assert!(matches!(txn.commit(), Err(Error::Conflict { .. })));
    assert!(matches!(blind.commit(), Err(Error::Conflict { .. })));
    for view in [&snapshot, &past] {
        assert!(!view.contains(6).expect("a look") && view.get(6).is_err());
        assert_eq!(view.above(5).expect("a neighbour"), 7);
    }
    assert_eq!(snapshot.count().expect("a count"), 9);
    assert_eq!(past.count().expect("a count"), 7);
    assert_eq!(scan.next().expect("a step").expect("a record").id, 5);
    assert_eq!(scan.next().expect("a step").expect("a record").id, 7);
    assert!(matches!(
        db.get_version(6, 8),
        Err(Error::NotFound(NotFound::AtCommit { .. }))
    ));
    let within = db.get_with(7, |_| db.erase(8)).expect("a value");
    assert!(matches!(within, Err(Error::Busy { .. })), "{within:?}");
    let within = snapshot.get_with(7, |_| db.erase(8)).expect("a value");
    assert!(matches!(within, Err(Error::Busy { .. })), "{within:?}");
    assert!(matches!(
        db.erase(99),
        Err(Error::NotFound(NotFound::History(99)))
    ));
    assert!(matches!(
        db.erase(6),
        Err(Error::NotFound(NotFound::Record(6)))
    ));
    assert!(db.get(8).is_ok());
}

/// A disk with a record of several versions in several data files, and others beside it, and that
/// record with its values.
struct Scene {
    disk: Disk,
    options: Options,
    id: u32,
    values: Vec<Vec<u8>>,
    others: BTreeMap<u32, Vec<Version>>,
    before: Vec<Version>,
}

impl Scene {
    fn open(&self, disk: Disk, seed: u64) -> (SimStorage, Result<Db>) {
        let storage = SimStorage::new(disk, seed.is_multiple_of(2), seed);
        let options = Options {
            must_exist: true,
            ..self.options.clone()
        };
        let db = Db::open_on(Arc::new(storage.clone()), &options);
        (storage, db)
    }

    fn all(seed: u64) -> Scene {
        let mut random = Random::new(seed);
        let options = Options {
            file_size: 300 + random.below(1500) as u32,
            ..any_options(&mut random)
        };
        let storage = SimStorage::new(Disk::new(), seed.is_multiple_of(2), seed);
        let db = Db::open_on(Arc::new(storage.clone()), &options).expect("it opens");
        let short = |random: &mut Random| {
            let mut value = value(random);
            value.truncate(NEEDLE + random.below(200) as usize);
            value
        };
        let ids: Vec<u32> = (0..4)
            .map(|id| {
                let value = short(&mut random);
                match options.key_value {
                    true => db.set(id, &value).map(|()| id).expect("a set"),
                    false => db.insert(&value).expect("an insert"),
                }
            })
            .collect();
        let id = ids[1];
        for round in 0..3 {
            for &id in &ids {
                db.set(id, &short(&mut random)).expect("a set");
            }
            if round == 0 && random.chance(40) {
                let keep = Retention {
                    keep_versions: 2,
                    ..Retention::default()
                };
                db.compact(&keep, |_, _| ControlFlow::Continue(()))
                    .expect("a compaction");
            }
        }
        if random.chance(20) {
            db.delete(id).expect("a deletion");
        }
        let before = history(&db, id);
        let others = ids.iter().filter(|&&other| other != id);
        let others = others.map(|&id| (id, history(&db, id))).collect();
        let values = before.iter().map(|version| version.value.clone());
        let values = values.filter(|value| !value.is_empty()).collect();
        match random.chance(50) {
            true => db.close().expect("a close"),
            false => db.sync().expect("a sync"),
        }
        Scene {
            disk: storage.disk(),
            options,
            id,
            values,
            others,
            before,
        }
    }

    /// The record is whole, or it is erased, with all that belongs to each; whether it is erased.
    fn judge(&self, disk: Disk, what: &str) -> bool {
        let read_only = Options {
            read_only: true,
            ..self.options.clone()
        };
        let storage = SimStorage::new(disk.clone(), true, 1);
        match Db::open_on(Arc::new(storage), &read_only) {
            Ok(db) => {
                let versions = history(&db, self.id);
                let newest = versions.first().map(|version| version.state);
                let whole = versions == self.before || newest == Some(State::Erased);
                assert!(whole, "{what}, read-only: {versions:?}");
            }
            Err(Error::Incompatible(_)) => {}
            Err(error) => panic!("{what}, read-only: {error}"),
        }
        let mut disk = disk;
        let mut was_erased = None;
        for round in 0..3 {
            let what = format!("{what}, opening {round}");
            let (storage, db) = self.open(disk, round);
            let db = db.unwrap_or_else(|error| panic!("{what}: {error}"));
            for (&id, versions) in &self.others {
                assert!(history(&db, id) == *versions, "{what}: id {id}");
            }
            let versions = history(&db, self.id);
            let is_erased = versions != self.before;
            if is_erased {
                let states: Vec<_> = versions.iter().map(|version| version.state).collect();
                assert_eq!(states, [State::Erased], "{what}");
                let files = files(&storage);
                let found = find(&files, &self.values);
                assert_eq!(found, None, "{what}: an erased value is there");
            }
            assert!(was_erased.is_none_or(|was| was == is_erased), "{what}");
            was_erased = Some(is_erased);
            check(&db);
            match round {
                1 => db.close().unwrap_or_else(|error| panic!("{what}: {error}")),
                _ => drop(db),
            }
            let names = storage.list("").expect("names");
            assert!(!names.iter().any(|name| name == "erasing"), "{what}");
            disk = storage.disk();
        }
        was_erased == Some(true)
    }
}

#[test]
fn a_crash_leaves_it_whole_or_erased() {
    let mut images = 0;
    for seed in 0..24 {
        let scene = Scene::all(seed);
        let (storage, db) = scene.open(scene.disk.clone(), seed);
        let db = db.expect("it opens");
        db.erase(scene.id).expect("an erasure");
        let history = storage.history();
        let all = history.events.len();
        let mut seen = BTreeSet::new();
        let mut random = Random::new(seed);
        let mut judge = |disk: Disk, calls: usize, what: String| {
            if !seen.insert(disk.fingerprint()) && calls < all {
                return;
            }
            images += 1;
            let what = format!("seed {seed} after {calls} of {all} calls: {what}");
            let is_erased = scene.judge(disk, &what);
            assert!(is_erased || calls < all, "{what}: acknowledged");
        };
        let visited = history.replay(|calls, disk| {
            judge(disk.clone(), calls, "killed".into());
            if let Some(event) = history.events.get(calls) {
                for part in event.partly() {
                    judge(disk.after(&part), calls, "killed within a call".into());
                }
            }
            let unsynced = Unsynced::of(disk);
            if unsynced.is_small() {
                for kept in unsynced.ways(seed).into_iter().take(60) {
                    judge(disk.keep(&unsynced, &kept), calls, format!("{kept:?}"));
                }
            }
            for number in 0..8 {
                let loss = Loss::case(number, random.next());
                judge(disk.lose_power(&loss), calls, format!("{loss:?}"));
            }
            Ok(())
        });
        visited.expect("all were visited");
    }
    println!("{images} images");
}

#[test]
fn a_failure_leaves_it_whole_or_erased() {
    let mut points = 0;
    for seed in 0..12 {
        let scene = Scene::all(seed);
        for calls in [Calls::Reading, Calls::Changing, Calls::Syncing] {
            for point in 0.. {
                let (storage, db) = scene.open(scene.disk.clone(), seed);
                let db = db.expect("it opens");
                let full = calls == Calls::Changing && point % 2 == 1;
                storage.fail(Some(Fault {
                    calls,
                    after: storage.calls(calls) + point,
                    errno: if full { Errno::NoSpace } else { Errno::Io },
                    sticky: point % 3 == 2,
                    partly: point % 2 == 0,
                    pages: [Pages::Dirty, Pages::Clean, Pages::Dropped][point % 3],
                }));
                let erased = db.erase(scene.id);
                let hit = storage.hit_count() > 0;
                storage.fail(None);
                let what = format!("seed {seed}, {calls:?} call {point} fails: {erased:?}");
                // After such a sync the handle itself may read what was on disk before.
                let is_dropped = calls == Calls::Syncing && point % 3 == 2;
                if erased.is_err() && is_dropped {
                    let set = db.set(scene.id, b"x");
                    assert!(matches!(set, Err(Error::Poisoned { .. })), "{what}");
                    drop(db);
                } else if erased.is_err() {
                    let versions = history(&db, scene.id);
                    let newest = versions.first().map(|version| version.state);
                    let poisoned = matches!(db.set(scene.id, b"x"), Err(Error::Poisoned { .. }));
                    // With nothing at all the erasure is there, and not on disk: not visible yet.
                    if newest == Some(State::Erased) || versions.is_empty() {
                        assert!(poisoned, "{what}: goes on");
                        assert!(db.close().is_err(), "{what}: closes");
                    } else {
                        assert!(versions == scene.before, "{what}: {versions:?}");
                        if !poisoned {
                            // The set was one version more; it can be erased with the rest.
                            db.erase(scene.id)
                                .unwrap_or_else(|error| panic!("{what}: {error}"));
                            assert!(scene.judge(storage.disk(), &what), "{what}");
                            points += 1;
                            continue;
                        }
                    }
                } else {
                    drop(db);
                }
                let is_erased = scene.judge(storage.disk(), &what);
                assert!(is_erased || erased.is_err(), "{what}");
                let lost = storage
                    .disk()
                    .lose_power(&Loss::case(point as u64 % 4, seed));
                let is_erased = scene.judge(lost, &format!("{what}, then the power"));
                assert!(is_erased || erased.is_err(), "{what}");
                if !hit {
                    break;
                }
                points += 1;
            }
        }
    }
    println!("{points} failures");
}

/// Values that say whose they are, so that a reader knows torn ones.
fn tagged(id: u32, number: u64, len: usize) -> Vec<u8> {
    let mut bytes = id.to_le_bytes().to_vec();
    bytes.extend_from_slice(&number.to_le_bytes());
    bytes.resize(12 + len, (id as u8) ^ (number as u8) | 1);
    bytes
}

fn is_tagged(id: u32, bytes: &[u8]) -> bool {
    let number = u64::from_le_bytes(bytes[4..12].try_into().expect("eight bytes"));
    bytes == tagged(id, number, bytes.len() - 12)
}

#[test]
fn beside_readers_checks_and_compactions() {
    for io in [IoMode::Auto, IoMode::File] {
        let directory = TempDirectory::new();
        let options = Options {
            key_value: true,
            native: true,
            record_nr_max: 100,
            file_size: 200_000,
            io,
            ..Options::default()
        };
        let db = Db::open(directory.path().join("db"), &options).expect("it opens");
        let stop = AtomicBool::new(false);
        let began = Instant::now();
        let read = |result: Result<Vec<u8>>, id: u32| match result {
            Ok(value) => assert!(is_tagged(id, &value), "id {id}: {value:?}"),
            Err(Error::NotFound(_)) => {}
            Err(error) => panic!("id {id}: {error}"),
        };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut random = Random::new(1);
                while !stop.load(Ordering::Relaxed) {
                    let snapshot = db.snapshot().expect("a snapshot");
                    let last = db.last_commit().expect("a number");
                    let past = db.snapshot_at(last.saturating_sub(random.below(50)));
                    let mut scan = snapshot.scan(0, 100, Order::default()).expect("a scan");
                    for _ in 0..200 {
                        if stop.load(Ordering::Relaxed) {
                            break;
                        }
                        let id = random.below(40) as u32;
                        read(snapshot.get(id), id);
                        read(db.get(id), id);
                        if let Ok(past) = &past {
                            read(past.get(id), id);
                        }
                        // There may be thousands of versions where the compactions don't keep up.
                        match db.history(id, 50) {
                            Err(Error::NotFound(_)) => {}
                            versions => {
                                for record in versions.expect("a history").iter() {
                                    assert!(
                                        record.state != State::Live || is_tagged(id, record.value)
                                    );
                                }
                            }
                        }
                        if let Some(record) = scan.next().expect("a step") {
                            assert!(is_tagged(record.id, record.value));
                        }
                    }
                }
            });
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    check(&db);
                    let keep = Retention {
                        keep_versions: 5,
                        ..Retention::default()
                    };
                    db.compact(&keep, |_, _| ControlFlow::Continue(()))
                        .expect("a compaction");
                }
            });
            scope.spawn(|| {
                let mut random = Random::new(2);
                while !stop.load(Ordering::Relaxed) {
                    let mut txn = db.begin().expect("a transaction");
                    let id = random.below(40) as u32;
                    read(txn.get(id), id);
                    let value = tagged(id, random.next(), 50);
                    txn.set(id, &value).expect("a set");
                    match txn.commit() {
                        Ok(()) | Err(Error::Conflict { .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            });
            scope.spawn(|| {
                let mut random = Random::new(3);
                while began.elapsed() < Duration::from_secs(3) {
                    for _ in 0..30 {
                        let id = random.below(40) as u32;
                        let len = random.below(3000) as usize;
                        db.set(id, &tagged(id, random.next(), len)).expect("a set");
                    }
                    match db.erase(random.below(40) as u32) {
                        Ok(()) | Err(Error::NotFound(_)) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
                stop.store(true, Ordering::Relaxed);
            });
        });
        check(&db);
        db.close().expect("a close");
    }
}

#[test]
fn versions_that_a_compaction_copies_meanwhile_are_gone_from_the_copies() {
    for (seed, step) in (0..40).zip([1u64, 2, 3].into_iter().cycle()) {
        let mut random = Random::new(seed);
        let storage = Arc::new(MemoryStorage::new());
        let options = Options {
            key_value: true,
            native: true,
            record_size_max: 1 << 20,
            file_size: 3 << 20,
            ..Options::default()
        };
        let db = Db::open_on(Arc::clone(&storage) as Arc<dyn Storage>, &options);
        let db = db.expect("it opens");
        let mut model = Model::default();
        let mut set = |db: &Db, model: &mut Model, id: u32, long: bool| {
            let mut bytes = value(&mut random);
            if long {
                while bytes.len() < 400_000 {
                    bytes.extend_from_slice(&random.next().to_le_bytes());
                }
            }
            db.set(id, &bytes).expect("a set");
            model.push(db, id, State::Live, bytes);
        };
        for id in 0..12 {
            for _ in 0..3 {
                set(&db, &mut model, id, id % 3 != 0);
            }
        }
        let mut calls = 0;
        let keep = Retention {
            keep_versions: 9,
            ..Retention::default()
        };
        // The progress is told after every mebibyte: some records are copied by then, others not.
        db.compact(&keep, |_, _| {
            calls += 1;
            if calls % step == 0 && calls < 12 {
                for id in [seed as u32 % 12, (seed + calls) as u32 % 12] {
                    set(&db, &mut model, id, false);
                    db.erase(id).expect("an erasure");
                    model.erase(&db, id);
                    // In the copies too, and not only once the compaction comes to the erasure.
                    let left = find(&files(&*storage), &model.gone);
                    assert_eq!(left, None, "seed {seed}, call {calls}, id {id}");
                    if calls % 2 == 0 {
                        set(&db, &mut model, id, false);
                    }
                }
            }
            ControlFlow::Continue(())
        })
        .expect("a compaction");
        assert!(calls > 3, "{calls}");
        model.compare(&db, &*storage, &format!("seed {seed}"));
        drop(db);
        let db = Db::open_on(Arc::clone(&storage) as Arc<dyn Storage>, &options);
        let db = db.expect("it opens");
        model.compare(&db, &*storage, &format!("seed {seed}, reopened"));
    }
}

#[test]
fn what_herolib_wrote_is_erased_too() {
    for incremental in [true, false] {
        let directory = TempDirectory::new();
        let path = directory.path().join("db");
        let settings = Settings {
            record_nr_max: 100_000,
            record_size_max: 65_535,
            file_size: 1 << 20,
            incremental,
        };
        let mut random = Random::new(5);
        let mut original = Herolib::open(&path, settings, Port::Go).expect("it opens");
        let mut values: BTreeMap<u32, Vec<Vec<u8>>> = BTreeMap::new();
        for id in 1..9 {
            let bytes = value(&mut random)[..NEEDLE].repeat(3);
            match incremental {
                true => assert_eq!(original.insert(&bytes), id),
                false => original.set(id, &bytes).expect("a set"),
            }
            values.entry(id).or_default().push(bytes);
        }
        for id in 1..9 {
            let bytes = value(&mut random)[..NEEDLE].repeat(2);
            original.set(id, &bytes).expect("a set");
            values.entry(id).or_default().push(bytes);
        }
        original.close();
        let options = Options {
            key_value: !incremental,
            ..Options::default()
        };
        let storage = OsStorage::new(path.clone(), IoMode::Auto);
        let open = || Db::open(&path, &options).expect("it opens");
        let verify = |db: &Db, erased: &[u32]| {
            for (&id, values) in &values {
                let versions = history(db, id);
                let found = files(&storage);
                if erased.contains(&id) {
                    assert_eq!(versions[0].state, State::Erased);
                    assert_eq!(versions.len(), 1);
                    assert_eq!(find(&found, values), None, "id {id}");
                } else {
                    assert!(db.get(id).expect("a value") == values[1], "id {id}");
                    assert!(find(&found, [&values[0]]).is_some(), "id {id}");
                }
            }
            check(db);
        };
        let db = open();
        db.erase(3).expect("an erasure");
        verify(&db, &[3]);
        drop(db);
        let db = open();
        verify(&db, &[3]);
        let own = value(&mut random)[..NEEDLE].to_vec();
        db.set(4, &own).expect("a set");
        db.close().expect("a close");
        // herolib changes something, so that our own log is frozen as well.
        let mut original = Herolib::open(&path, settings, Port::Go).expect("it opens");
        assert!(original.get(3).is_err(), "herolib finds what was erased");
        original.set(5, &values[&5][1]).expect("a set");
        original.close();
        let db = open();
        assert_eq!(history(&db, 3)[0].state, State::Erased);
        db.erase(4).expect("an erasure");
        assert_eq!(find(&files(&storage), [&own]), None);
        verify(&db, &[3, 4]);
        db.close().expect("a close");
        verify(&open(), &[3, 4]);
    }
}

#[test]
fn a_snapshot_of_a_reader_that_follows_does_not_count_what_was_erased() {
    let directory = TempDirectory::new();
    let options = Options {
        key_value: true,
        ..Options::default()
    };
    let db = Db::open(directory.path(), &options).expect("a new database opens");
    for id in 1..=3 {
        db.set(id, b"value").expect("a set");
    }
    let read_only = Options {
        read_only: true,
        ..options
    };
    let reader = Db::open(directory.path(), &read_only).expect("it opens for reading");
    let snapshot = reader.snapshot().expect("a snapshot");
    let mut scan = snapshot
        .scan(0, u32::MAX, Order::default())
        .expect("a scan");
    assert_eq!(snapshot.count().expect("a count"), 3);
    db.erase(2).expect("an erasure");
    reader.refresh().expect("a refresh");
    assert_eq!(snapshot.count().expect("a count"), 2);
    let mut ids = Vec::new();
    while let Some(record) = scan.next().expect("a record") {
        ids.push(record.id);
    }
    assert_eq!(ids, [1, 3]);
    let fresh = reader.snapshot().expect("a snapshot");
    assert_eq!(fresh.count().expect("a count"), 2);
}

/// A record that no version is kept of is read by snapshots of before, and erased there.
#[test]
fn what_a_compaction_has_dropped_is_erased_for_open_snapshots() {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    let options = Options {
        key_value: true,
        native: true,
        ..Options::default()
    };
    let db = Db::open_on(Arc::clone(&storage), &options).expect("it opens");
    let go_on = |_, _| ControlFlow::Continue(());
    db.set(1, b"a secret of somebody").expect("a set");
    db.set(2, b"two").expect("a set");
    let snapshot = db.snapshot().expect("a snapshot");
    db.delete(1).expect("a deletion");
    let keep_live = Retention {
        keep_versions: 0,
        ..Retention::default()
    };
    db.compact(&keep_live, go_on).expect("a compaction");
    assert!(db.history(1, 0).is_err());
    assert_eq!(snapshot.get(1).expect("a value"), b"a secret of somebody");
    db.erase(1).expect("an erasure");
    assert!(snapshot.get(1).is_err());
    for (name, content) in files(&*storage) {
        let secret = content.windows(8).any(|bytes| bytes == b"a secret");
        assert!(!secret, "{name}");
    }
    let again = db.erase(1);
    assert!(matches!(again, Err(Error::NotFound(_))), "{again:?}");
    assert_eq!(snapshot.get(2).expect("a value"), b"two");
    drop(snapshot);
    check(&db);
    db.close().expect("a close");
    check(&Db::open_on(storage, &options).expect("it opens"));
}

/// More versions than a journal has room for.
#[test]
fn a_long_history_is_erased_in_parts() {
    const VERSIONS: u64 = 140_000;
    let options = Options {
        key_value: true,
        native: true,
        ..Options::default()
    };
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    let db = Db::open_on(Arc::clone(&storage), &options).expect("a new database");
    for version in 0..VERSIONS {
        let value = [&b"needle"[..], &version.to_le_bytes()].concat();
        db.set(7, &value).expect("a set");
    }
    db.set(8, b"stays").expect("a set");
    db.erase(7).expect("an erasure");
    assert_eq!(db.stats().expect("figures").versions, VERSIONS + 2);
    assert_eq!(db.get(8).expect("a value"), b"stays");
    let history = db.history(7, 0).expect("a history");
    let states: Vec<State> = history.iter().map(|version| version.state).collect();
    assert_eq!(states, [State::Erased]);
    for (name, bytes) in files(&*storage) {
        let is_left = bytes.windows(6).any(|part| part == b"needle");
        assert!(!is_left && name != "erasing", "{name}");
    }
}
