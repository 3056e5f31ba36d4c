//! Threads whose commits share a sync: what is acknowledged is on disk, also when the sync fails.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use ourdb::{Db, Error, Sync};

use super::faults::FAULT;
use super::report::Campaign;
use super::watch::Watch;
use super::workload::{Workload, open};
use crate::support::model::{Bytes, Value};
use crate::support::sim::{Calls, Disk, Fault, Loss, Pages, SimStorage};
use crate::support::{Random, Verdict, require};

fn workload(seed: u64) -> Workload {
    let mut workload = Workload {
        seed,
        ..Workload::new("durable commits of several threads")
    };
    workload.options.sync = Sync::Commit;
    workload.options.file_size = 2000;
    workload.options.record_nr_max = 10_000;
    workload
}

fn after_power_loss(workload: &Workload, storage: &SimStorage) -> Verdict<Db> {
    let left = storage.disk().lose_power(&Loss::OF_EVERYTHING);
    let db = open(&workload.storage(left, 1), &workload.options);
    db.map_err(|error| format!("refused after a loss of power: {error}"))
}

/// What one thread has written, by id.
type Written = BTreeMap<u32, Value>;

/// Inserts until it fails, and then a few times more; what was acknowledged.
fn write(db: &Db, writer: u16, inserts: u16) -> Verdict<Written> {
    let mut written = Written::new();
    let mut failed = false;
    for number in 0..inserts {
        let value = Value {
            seed: 8 * (writer * inserts + number),
            len: 60 + u32::from(number) % 3 * 40,
        };
        match db.insert(&value.bytes()) {
            Ok(id) => {
                require!(!failed, "id {id} is written after a failure");
                written.insert(id, value);
            }
            Err(Error::Poisoned { .. }) => failed = true,
            Err(Error::Io { .. }) if !failed => failed = true,
            Err(error) => return Err(format!("insert {number}: {error}, failed before: {failed}")),
        }
    }
    Ok(written)
}

/// One history: threads insert, and at some time a sync fails.
fn check_group(seed: u64) -> Verdict {
    let mut random = Random::new(seed);
    let workload = workload(seed);
    let storage = workload.storage(Disk::new(), 0);
    let db = open(&storage, &workload.options).map_err(|error| error.to_string())?;
    storage.fail(Some(Fault {
        calls: Calls::Syncing,
        after: storage.calls(Calls::Syncing) + random.below(14) as usize,
        sticky: random.chance(50),
        pages: [Pages::Dirty, Pages::Clean, Pages::Dropped][random.below(3) as usize],
        ..FAULT
    }));
    let writers = 2 + random.below(4) as u16;
    let written: Verdict<Vec<Written>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..writers)
            .map(|writer| {
                let db = &db;
                scope.spawn(move || write(db, writer, 10))
            })
            .collect();
        let joined = threads.into_iter().map(|thread| thread.join());
        joined.map(|written| written.expect("no panic")).collect()
    });
    let written: Written = written?.into_iter().flatten().collect();
    if storage.hit_count() > 0 {
        require!(
            matches!(db.sync(), Err(Error::Poisoned { .. })),
            "a sync has failed, and sync() does not say so"
        );
    }
    // Only what was acknowledged is seen, and all of it.
    let seen = db.last_commit().map_err(|error| error.to_string())?;
    require!(
        seen == written.len() as u64,
        "{} inserts are acknowledged, and {seen} are seen",
        written.len()
    );
    let left = after_power_loss(&workload, &storage)?;
    drop(db);
    storage.fail(None);
    let reopened = open(&storage, &workload.options).map_err(|error| error.to_string())?;
    for (what, db) in [("after a loss of power", left), ("reopened", reopened)] {
        for (&id, value) in &written {
            let found = db.get(id).map(Bytes).map_err(|error| error.to_string());
            require!(
                found == Ok(Bytes(value.bytes())),
                "{what}, id {id}: expected {value:?}, found {found:?}"
            );
        }
        db.insert(b"healed").map_err(|error| error.to_string())?;
    }
    Ok(())
}

#[test]
fn commits_that_share_a_failing_sync() {
    let name = "commits_that_share_a_failing_sync";
    let campaign = Campaign::begin(name, "histories", 300, 50_000);
    let watch = Watch::start(name);
    campaign.run(|seed| {
        watch.begin(seed);
        check_group(seed)?;
        campaign.count(1);
        Ok(())
    });
    campaign.end();
}

/// Counts down when a thread is through, or has panicked.
struct Done<'a>(&'a AtomicUsize);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Release);
    }
}

/// Every thread whose commit was acknowledged finds it after a loss of power at that moment; and
/// what a reader has seen is there too.
#[test]
fn commits_that_share_a_sync_are_on_disk_when_acknowledged() {
    const WRITERS: usize = 4;
    let workload = workload(9);
    let storage = workload.storage(Disk::new(), 0);
    let db = open(&storage, &workload.options).expect("a new database opens");
    let after_power_loss =
        || after_power_loss(&workload, &storage).unwrap_or_else(|message| panic!("{message}"));
    let writing = AtomicUsize::new(WRITERS);
    std::thread::scope(|scope| {
        for writer in 0..WRITERS as u16 {
            let (db, writing, after_power_loss) = (&db, &writing, &after_power_loss);
            scope.spawn(move || {
                let _done = Done(writing);
                for number in 0..12 {
                    let value = Value {
                        seed: writer * 100 + number,
                        len: 100,
                    }
                    .bytes();
                    let id = db.insert(&value).expect("an insert");
                    let found = after_power_loss().get(id);
                    assert_eq!(
                        found.ok().map(Bytes),
                        Some(Bytes(value)),
                        "writer {writer}, insert {number}: id {id} after a loss of power"
                    );
                }
            });
        }
        scope.spawn(|| {
            while writing.load(Ordering::Acquire) > 0 {
                let seen = db.last_commit().expect("last_commit");
                let left = after_power_loss().last_commit().expect("last_commit");
                assert!(
                    left >= seen,
                    "commit {seen} was seen, and {left} is the last on disk"
                );
            }
        });
    });
}
