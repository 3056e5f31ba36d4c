//! Commits made durable: shared syncs, failing ones, the thread of the interval mode, closing.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ourdb::{Db, Error, Options, Sync};
use shuttle::rand::Rng;
use shuttle::thread;

use crate::explore;
use crate::pausing::Pausing;
use crate::support::Random;
use crate::support::sim::{Calls, Disk, Errno, Fault, Loss, Pages, SimStorage};

const COMMITTERS: u32 = 3;
const COMMITS: u32 = 2;

fn options(sync: Sync) -> Options {
    Options {
        key_value: true,
        native: true,
        record_nr_max: 200,
        sync,
        ..Options::default()
    }
}

/// A new database, with its disk.
fn create(options: &Options) -> (SimStorage, Db) {
    let storage = SimStorage::new(Disk::new(), true, 1);
    let db = Db::open_on(Arc::new(Pausing(storage.clone())), options).expect("a new database");
    (storage, db)
}

fn value(id: u32) -> [u8; 40] {
    [id as u8 + 1; 40]
}

/// A disk whose computer lost power, and the ids of records that must be there.
#[derive(Debug)]
struct Image {
    disk: Disk,
    ids: Vec<u32>,
}

impl Image {
    fn of(storage: &SimStorage, ids: impl Into<Vec<u32>>) -> Image {
        Image::of_disk(&storage.disk(), ids)
    }

    fn of_disk(disk: &Disk, ids: impl Into<Vec<u32>>) -> Image {
        Image {
            disk: disk.lose_power(&Loss::OF_EVERYTHING),
            ids: ids.into(),
        }
    }

    fn check(&self) {
        let storage = SimStorage::new(self.disk.clone(), true, 2);
        let db = match Db::open_on(Arc::new(storage), &options(Sync::Os)) {
            Ok(db) => db,
            Err(error) => panic!("ids {:?} were on disk, and now: {error}", self.ids),
        };
        for &id in &self.ids {
            let found = db.get(id);
            assert!(
                found.as_deref().is_ok_and(|found| found == value(id)),
                "id {id} was on disk, and now: {found:?}"
            );
        }
    }
}

/// Several threads commit, and this one does something beside them; what each of them was told, with
/// the disk at that moment.
fn commit_at_once(
    storage: &SimStorage,
    db: &Db,
    beside: impl FnOnce(),
) -> Vec<(Result<(), Error>, Image)> {
    thread::scope(|scope| {
        let committers: Vec<_> = (0..COMMITTERS)
            .map(|committer| {
                scope.spawn(move || {
                    let ids = committer * COMMITS..(committer + 1) * COMMITS;
                    let told = ids.map(|id| (db.set(id, &value(id)), Image::of(storage, [id])));
                    told.collect::<Vec<_>>()
                })
            })
            .collect();
        beside();
        let committers = committers.into_iter();
        committers
            .flat_map(|committer| committer.join().expect("no panic"))
            .collect()
    })
}

#[test]
fn what_is_acknowledged_is_on_disk_and_syncs_are_shared() {
    let fewest = Arc::new(AtomicUsize::new(usize::MAX));
    explore(2000, {
        let fewest = Arc::clone(&fewest);
        move || {
            let (storage, db) = create(&options(Sync::Commit));
            db.set(100, b"a data file").expect("set");
            let before = storage.calls(Calls::Syncing);
            for (told, image) in commit_at_once(&storage, &db, || ()) {
                told.expect("nothing fails");
                image.check();
            }
            let syncs = storage.calls(Calls::Syncing) - before;
            let commits = (COMMITTERS * COMMITS) as usize;
            assert!(syncs <= commits, "{syncs} syncs for {commits} commits");
            fewest.fetch_min(syncs, Ordering::Relaxed);
        }
    });
    let fewest = fewest.load(Ordering::Relaxed);
    assert!(
        fewest <= 3,
        "{fewest} syncs for 6 commits of 3 threads, at best"
    );
}

#[test]
fn what_is_read_is_on_disk() {
    explore(2000, || {
        let (storage, db) = create(&options(Sync::Commit));
        db.set(100, b"a data file").expect("set");
        let read = || {
            for id in 0..COMMITTERS * COMMITS {
                if db.contains(id).expect("contains") {
                    Image::of(&storage, [id]).check();
                }
            }
        };
        commit_at_once(&storage, &db, read);
    });
}

/// A backup, which outlives its database's computer, has no commit that this one then lacks: a later
/// commit there would have its number.
#[test]
fn what_is_backed_up_is_on_disk() {
    explore(1000, || {
        let (storage, db) = create(&options(Sync::Commit));
        db.set(100, b"a data file").expect("set");
        let back_up = || {
            let place = SimStorage::new(Disk::new(), true, 3);
            db.backup_to(Arc::new(place.clone()), |_, _| ControlFlow::Continue(()))
                .expect("a backup");
            let image = storage.disk();
            let backup = Db::open_on(Arc::new(place), &options(Sync::Os)).expect("it opens");
            let ids = 0..COMMITTERS * COMMITS;
            let there: Vec<u32> = ids.filter(|&id| backup.get(id).is_ok()).collect();
            Image::of_disk(&image, there).check();
        };
        commit_at_once(&storage, &db, back_up);
    });
}

/// An answer of a call that makes no commit may rest on another thread's commit, which is on disk by
/// then.
#[test]
fn what_is_answered_is_on_disk() {
    explore(2000, || {
        let (storage, db) = create(&options(Sync::Commit));
        db.set(1, &value(1)).expect("set");
        let before = db.last_commit().expect("a commit");
        thread::scope(|scope| {
            let other = scope.spawn(|| {
                let _ = db.delete(1);
            });
            let how = shuttle::rand::thread_rng().gen_range(0..5);
            let mut txn = db.begin().expect("begin");
            let gone = match how {
                0 => db.delete(1).is_err(),
                1 => db.delete_many(&[1]).is_err(),
                2 => db.clear().is_ok(),
                // In it the record is still there, or not any more.
                3 => txn.set(1, &value(1)).is_err() || txn.get(1).is_err() || txn.commit().is_err(),
                _ => {
                    let past = db.revert_all(before - 1);
                    past.is_ok()
                }
            };
            let disk = storage.disk().lose_power(&Loss::OF_EVERYTHING);
            let there = {
                let storage = SimStorage::new(disk, true, 2);
                let db = Db::open_on(Arc::new(storage), &options(Sync::Os)).expect("it opens");
                db.contains(1).expect("contains")
            };
            assert!(!gone || !there, "answer {how} is not on disk");
            assert!(
                !gone || !db.contains(1).expect("contains"),
                "answer {how} is not seen"
            );
            other.join().expect("no panic");
        });
    });
}

/// None waits for ever, which shuttle would notice; none is acknowledged that isn't on disk; and
/// nothing is written any more.
#[test]
fn a_failing_sync_fails_all_who_wait_for_it() {
    explore(3000, || {
        let (storage, db) = create(&options(Sync::Commit));
        db.set(100, b"a data file").expect("set");
        fail_a_sync(&storage, 4);
        let told = commit_at_once(&storage, &db, || ());
        if !storage.hits().is_empty() {
            let failed = told.iter().filter(|(told, _)| told.is_err()).count();
            assert!(failed > 0, "a sync failed, and nobody was told");
            let after = db.set(101, b"");
            assert!(
                matches!(after, Err(Error::Poisoned { .. })),
                "after a failed sync: {after:?}"
            );
        }
        for (told, image) in told {
            if told.is_ok() {
                image.check();
            }
        }
    });
}

/// One of the next `among` syncs is to fail, once.
fn fail_a_sync(storage: &SimStorage, among: usize) {
    let mut random = shuttle::rand::thread_rng();
    let pages = [Pages::Dirty, Pages::Clean, Pages::Dropped];
    storage.fail(Some(Fault {
        calls: Calls::Syncing,
        after: random.gen_range(0..among),
        errno: Errno::Io,
        sticky: false,
        partly: false,
        pages: pages[random.gen_range(0..pages.len())],
    }));
}

/// A writer that has filled many data files syncs them itself. The kernel reports a failure once: a
/// sync beside it that covers the same file may hear of nothing.
#[test]
fn a_sync_beside_a_failing_one_does_not_vouch_for_it() {
    explore(500, || {
        let (storage, db) = create(&Options {
            file_size: 100,
            ..options(Sync::Os)
        });
        for id in 0..4 {
            db.set(id, &value(id)).expect("set");
        }
        fail_a_sync(&storage, 80);
        thread::scope(|scope| {
            let writer = scope.spawn(|| (4..140).try_for_each(|id| db.set(id, &value(id))));
            let synced = db.sync();
            let image = Image::of(&storage, [0, 1, 2, 3]);
            let written = writer.join().expect("no panic");
            if synced.is_ok() {
                image.check();
            }
            let told = synced.is_err() || written.is_err() || db.set(0, b"").is_err();
            assert!(
                told || storage.hits().is_empty(),
                "a sync failed, and nobody was told"
            );
        });
    });
}

/// Each data file takes two commits, for the second of which it is made longer, and is cut to its end
/// when the next one begins. Who syncs it meanwhile doesn't take it for one that somebody else cut.
#[test]
fn a_sync_beside_a_file_that_grows_and_is_cut_finds_it_sound() {
    const FILE_SIZE: u32 = 5_000;
    explore(1000, || {
        let (_, db) = create(&Options {
            file_size: FILE_SIZE,
            ..options(Sync::Os)
        });
        db.set(0, b"a data file").expect("set");
        thread::scope(|scope| {
            let writer = scope
                .spawn(|| (0..6).try_for_each(|id| db.set(id, &[1; FILE_SIZE as usize - 500])));
            (0..4).for_each(|_| db.sync().expect("nothing was cut off"));
            writer.join().expect("no panic").expect("nothing fails");
        });
    });
}

/// The thread that syncs ends with the handle, and what was closed is on disk.
#[test]
fn closing_beside_the_thread_that_syncs() {
    explore(2000, || {
        let (storage, db) = create(&options(Sync::Interval(1)));
        let mut random = Random::new(shuttle::rand::thread_rng().r#gen());
        let ids: Vec<u32> = (0..random.below(4) as u32).collect();
        for &id in &ids {
            db.set(id, &value(id)).expect("set");
        }
        match random.below(3) {
            0 => drop(db),
            1 => {
                db.sync().expect("sync");
                Image::of(&storage, ids).check();
                drop(db);
            }
            _ => {
                db.close().expect("close");
                Image::of(&storage, ids).check();
            }
        }
        let calls = storage.calls(Calls::Syncing);
        for _ in 0..10 {
            thread::yield_now();
        }
        assert_eq!(storage.calls(Calls::Syncing), calls, "a sync after the end");
    });
}

/// A failure of the thread that syncs is told to the next one who writes.
#[test]
fn a_failure_in_the_background_is_told() {
    explore(2000, || {
        let (storage, db) = create(&options(Sync::Interval(1)));
        db.set(0, &value(0)).expect("set");
        fail_a_sync(&storage, 3);
        let mut told = Ok(());
        for id in 1..4 {
            told = told.and_then(|()| db.set(id, &value(id)));
            thread::yield_now();
        }
        told = told.and_then(|()| db.sync());
        let image = Image::of(&storage, [0, 1, 2, 3]);
        let hit = !storage.hits().is_empty();
        if told.is_ok() {
            assert!(!hit, "a sync failed, and nobody was told");
            image.check();
        }
    });
}
