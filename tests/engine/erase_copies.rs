//! Erasure and those who copy: backups and changes made later hold nothing of what was erased, and
//! neither keeps the other from its end.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::Random;
use crate::support::sim::{Disk, Loss, SimStorage};
use ourdb::storage::Storage;
use ourdb::storage::memory::MemoryStorage;
use ourdb::storage::read_all;
use ourdb::{Db, Error, NotFound, Options, Retention, State};

const IDS: u32 = 30;

fn on(_done: u64, _total: u64) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn options() -> Options {
    Options {
        key_value: true,
        record_nr_max: 100,
        file_size: 3000,
        ..Options::default()
    }
}

/// A value that no other one has a part in common with.
fn value(random: &mut Random) -> Vec<u8> {
    let words = 3 + random.below(40);
    (0..words)
        .flat_map(|_| random.next().to_le_bytes())
        .collect()
}

fn write(db: &Db, random: &mut Random, count: usize) {
    for _ in 0..count {
        let id = random.below(u64::from(IDS)) as u32;
        if random.chance(15) && db.contains(id).expect("a look") {
            db.delete(id).expect("a deletion");
        } else {
            db.set(id, &value(random)).expect("a record");
        }
    }
}

/// All values that a record ever had.
fn values_of(db: &Db, id: u32) -> Vec<Vec<u8>> {
    let history = db.history(id, 0).expect("a history");
    let values = history.iter().filter(|record| record.state == State::Live);
    values.map(|record| record.value.to_vec()).collect()
}

/// Erases some records; the values that they had.
fn erase_some(db: &Db, random: &mut Random, count: usize) -> Vec<Vec<u8>> {
    let mut gone = Vec::new();
    for _ in 0..count {
        let id = random.below(u64::from(IDS)) as u32;
        let values = match db.history(id, 1) {
            Ok(_) => values_of(db, id),
            Err(Error::NotFound(NotFound::History(_))) => continue,
            Err(error) => panic!("{error}"),
        };
        match db.erase(id) {
            Ok(()) => gone.extend(values),
            Err(Error::NotFound(NotFound::Record(_))) => {}
            Err(error) => panic!("{error}"),
        }
    }
    gone
}

/// Commit, time, state and value.
type Version = (u64, u64, State, Vec<u8>);

/// Everything that can be asked, of each id.
fn content(db: &Db) -> Vec<(u32, Vec<Version>)> {
    let mut content = Vec::new();
    for id in 0..IDS {
        let versions = match db.history(id, 0) {
            Ok(history) => history
                .iter()
                .map(|version| {
                    let value = version.value.to_vec();
                    (version.commit, version.time_us, version.state, value)
                })
                .collect(),
            Err(Error::NotFound(_)) => Vec::new(),
            Err(error) => panic!("{error}"),
        };
        content.push((id, versions));
    }
    content
}

fn assert_same(one: &Db, other: &Db) {
    assert_eq!(content(one), content(other));
    assert_eq!(one.last_commit().unwrap(), other.last_commit().unwrap());
    assert_eq!(one.count().unwrap(), other.count().unwrap());
    for db in [one, other] {
        let report = db.check(on).expect("a check");
        assert!(report.is_sound(), "{report}");
    }
}

fn assert_gone(storage: &dyn Storage, gone: &[Vec<u8>]) {
    for name in storage.list("").expect("names") {
        if storage.is_directory(&name).expect("a look") {
            continue;
        }
        let bytes = read_all(storage, &name, 1 << 30).expect("a file");
        let places: BTreeSet<&[u8]> = bytes.windows(16).collect();
        for value in gone {
            for part in value.windows(16).step_by(8) {
                assert!(!places.contains(part), "{name} has what was erased");
            }
        }
    }
}

fn opened(storage: &Arc<dyn Storage>) -> Db {
    let read_only = Options {
        read_only: true,
        ..Options::default()
    };
    Db::open_on(Arc::clone(storage), &read_only).expect("a backup")
}

#[test]
fn a_backup_brought_up_to_date_has_nothing_of_it() {
    for seed in 0..60 {
        let mut random = Random::new(seed);
        let place: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
        let db = Db::open_on(Arc::clone(&place), &options()).expect("a database");
        let copy: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
        let mut gone = Vec::new();
        for _ in 0..5 {
            let count = random.below(40) as usize;
            write(&db, &mut random, count);
            let count = random.below(3) as usize;
            gone.extend(erase_some(&db, &mut random, count));
            if random.chance(20) {
                db.compact(&Retention::default(), on).expect("a compaction");
            }
            db.backup_to(Arc::clone(&copy), on)
                .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            assert_gone(&*place, &gone);
            assert_gone(&*copy, &gone);
            assert_same(&db, &opened(&copy));
        }
    }
}

#[test]
fn an_erasure_waits_for_backups_but_not_in_one() {
    let place: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    let db = Db::open_on(Arc::clone(&place), &options()).expect("a database");
    let mut random = Random::new(1);
    write(&db, &mut random, 300);
    let copy: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    let mut refused = 0;
    let erase = |_, _| {
        assert!(matches!(db.erase(1), Err(Error::Busy { .. })));
        refused += 1;
        ControlFlow::Continue(())
    };
    db.backup_to(Arc::clone(&copy), erase).expect("a backup");
    assert!(refused > 0);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for seed in 10..12 {
            let (db, stop) = (&db, &stop);
            scope.spawn(move || {
                let mut random = Random::new(seed);
                while !stop.load(Ordering::Relaxed) {
                    let id = seed as u32 - 10;
                    db.set(id, &value(&mut random)).expect("a record");
                    db.erase(id).expect("an erasure");
                }
            });
        }
        for _ in 0..30 {
            db.backup_to(Arc::clone(&copy), on).expect("a backup");
            let report = opened(&copy).check(on).expect("a check");
            assert!(report.is_sound(), "{report}");
        }
        stop.store(true, Ordering::Relaxed);
    });
    db.backup_to(Arc::clone(&copy), on).expect("a backup");
    assert_same(&db, &opened(&copy));
}

/// Within a backup changes are applied that erase nothing which isn't erased here.
#[test]
fn within_a_backup_an_erasure_that_is_here_already_is_applied() {
    let open = || {
        let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
        Db::open_on(storage, &options()).expect("a database")
    };
    let (sender, copy) = (open(), open());
    sender.set(1, b"one").expect("a set");
    sender.erase(1).expect("an erasure");
    let apply = |changes: &[u8]| copy.apply(changes);
    let changes = || sender.changes(0, usize::MAX).expect("changes").0;
    apply(&changes()).expect("the erasure");
    sender.set(2, b"two").expect("a set");
    let (known, mut told) = (changes(), Vec::new());
    sender.erase(2).expect("another erasure");
    let new = changes();
    let within = |_, _| {
        told.push((apply(&known), apply(&new)));
        ControlFlow::Continue(())
    };
    let target: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    copy.backup_to(target, within).expect("a backup");
    assert!(!told.is_empty());
    for (known, new) in told {
        known.expect("nothing to erase");
        assert!(matches!(new, Err(Error::Busy { .. })), "{new:?}");
    }
    apply(&new).expect("after the backup");
    assert_eq!(copy.last_commit().expect("a number"), 4);
}

/// Whatever a crash leaves of a backup across erasures, the next one makes it whole, and an earlier
/// one that can be opened is as it was, but for what is erased.
#[test]
fn a_crash_in_a_backup_across_erasures() {
    let mut images = 0;
    for seed in 0..4 {
        let mut random = Random::new(seed);
        let db = Db::open_on(Arc::new(MemoryStorage::new()), &options()).expect("a database");
        write(&db, &mut random, 60);
        let first = SimStorage::new(Disk::new(), true, seed);
        db.backup_to(Arc::new(first.clone()), on).expect("a backup");
        let earlier = content(&db);
        write(&db, &mut random, 10);
        let gone = erase_some(&db, &mut random, 4);
        if seed % 2 == 1 {
            db.compact(&Retention::default(), on).expect("a compaction");
        }
        write(&db, &mut random, 10);
        let second = SimStorage::new(first.disk(), true, seed);
        db.backup_to(Arc::new(second.clone()), on)
            .expect("a backup");
        let mut seen = BTreeSet::new();
        let replayed = second.history().replay(|_, disk| {
            let mut left = vec![disk.clone()];
            left.extend((0..6).map(|case| disk.lose_power(&Loss::case(case, random.next()))));
            for disk in left {
                if !seen.insert(disk.fingerprint()) {
                    continue;
                }
                images += 1;
                let writable = SimStorage::new(disk.clone(), true, seed);
                if let Ok(copy) = Db::open_on(Arc::new(writable.clone()), &Options::default()) {
                    let commit = copy.last_commit().expect("a commit");
                    assert!(copy.check(on).expect("a check").is_sound());
                    if commit < db.last_commit().unwrap() {
                        assert_earlier(&earlier, &content(&copy));
                    } else {
                        assert_same(&db, &copy);
                    }
                    copy.close().expect("a close");
                    // Nothing was written, so it is a backup still.
                    db.backup_to(Arc::new(writable.clone()), on)
                        .expect("a backup");
                }
                let again: Arc<dyn Storage> = Arc::new(SimStorage::new(disk, true, seed));
                db.backup_to(Arc::clone(&again), on).expect("a backup");
                assert_same(&db, &opened(&again));
                assert_gone(&*again, &gone);
            }
            Ok(())
        });
        replayed.expect("the calls again");
    }
    assert!(images > 200, "{images} images");
}

fn assert_earlier(earlier: &[(u32, Vec<Version>)], found: &[(u32, Vec<Version>)]) {
    for ((id, before), (_, now)) in earlier.iter().zip(found) {
        // With what is erased it ends.
        let is_erased = now.last().is_some_and(|last| last.2 == State::Erased);
        assert!(
            now.len() == before.len() || (is_erased && now.len() < before.len()),
            "id {id}"
        );
        for (before, now) in before.iter().zip(now) {
            assert!(
                before == now || now.2 == State::Erased,
                "id {id}: {now:?} instead of {before:?}"
            );
        }
    }
}

/// Gives out and applies until there is no more.
fn follow(db: &Db, follower: &Db, random: &mut Random) {
    loop {
        let since = follower.last_commit().expect("a commit");
        let (changes, upto) = db
            .changes(since, random.below(3000) as usize)
            .expect("changes");
        follower.apply(&changes).expect("applied");
        assert_eq!(follower.last_commit().expect("a commit"), upto);
        if upto == since {
            break;
        }
    }
}

#[test]
fn who_follows_erases_and_clears_too() {
    for seed in 0..60 {
        let mut random = Random::new(seed);
        let db = Db::open_on(Arc::new(MemoryStorage::new()), &options()).expect("a database");
        let place: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
        let mut follower = Db::open_on(Arc::clone(&place), &options()).expect("a database");
        // One that begins late never sees what was there.
        let mut gone = Vec::new();
        for round in 0..6 {
            let count = random.below(30) as usize;
            write(&db, &mut random, count);
            if random.chance(30) {
                db.clear().expect("a clear");
                write(&db, &mut random, 5);
            }
            let count = random.below(3) as usize;
            gone.extend(erase_some(&db, &mut random, count));
            if random.chance(70) {
                follow(&db, &follower, &mut random);
                assert_same(&db, &follower);
                assert_gone(&*place, &gone);
            }
            if random.chance(30) {
                follower.close().expect("a close");
                follower = Db::open_on(Arc::clone(&place), &options()).expect("a database");
            }
            if round == 3 {
                let late: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
                let late_follower = Db::open_on(Arc::clone(&late), &options()).expect("a database");
                follow(&db, &late_follower, &mut random);
                assert_same(&db, &late_follower);
                assert_gone(&*late, &gone);
                drop(late_follower);
                let again = Db::open_on(Arc::clone(&late), &options()).expect("after a kill");
                assert_same(&db, &again);
            }
        }
    }
}

#[test]
fn changes_beside_erasures_are_whole() {
    let db = Db::open_on(Arc::new(MemoryStorage::new()), &options()).expect("a database");
    let place: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    let follower = Db::open_on(Arc::clone(&place), &options()).expect("a database");
    let stop = AtomicBool::new(false);
    let (db, follower) = (&db, &follower);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut random = Random::new(3);
            while !stop.load(Ordering::Relaxed) {
                write(db, &mut random, 3);
                erase_some(db, &mut random, 1);
            }
        });
        let mut random = Random::new(4);
        for _ in 0..300 {
            let since = follower.last_commit().expect("a commit");
            let (changes, _) = db
                .changes(since, random.below(3000) as usize)
                .expect("changes");
            follower.apply(&changes).expect("applied");
        }
        stop.store(true, Ordering::Relaxed);
    });
    follow(db, follower, &mut Random::new(5));
    assert_same(db, follower);
}

#[test]
fn a_compaction_beside_erasures_has_few_files_open() {
    let most_open = |erasures: u32| {
        let storage = SimStorage::new(Disk::new(), true, 1);
        let options = Options {
            key_value: true,
            native: true,
            file_size: 300,
            ..Options::default()
        };
        let db = Db::open_on(Arc::new(storage.clone()), &options).unwrap();
        for id in 0..500 {
            db.set(id, &[7; 300]).unwrap();
        }
        let mut left = 0..erasures;
        let erase_at_the_end = |done, total| {
            if done == total {
                left.by_ref().for_each(|id| db.erase(id).unwrap());
            }
            ControlFlow::Continue(())
        };
        db.compact(&Retention::default(), erase_at_the_end).unwrap();
        assert_eq!(db.count().unwrap(), u64::from(500 - erasures));
        storage.most_open()
    };
    let (without, beside) = (most_open(0), most_open(400));
    assert!(beside < without + 100, "{without} and {beside}");
}
