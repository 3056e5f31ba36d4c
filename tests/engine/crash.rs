//! Single cases of what must hold over a simulated storage that fails or is full. The
//! campaigns over all cases are in `tests/torture`.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::support::model::{Model, Value, Write, compare};
use crate::support::sim::{Calls, Disk, Errno, Fault, Loss, Pages, SimStorage};
use crate::support::{Context, Verdict, require};
use ourdb::storage::Storage;
use ourdb::storage::memory::MemoryStorage;
use ourdb::{Db, Error, Options, Retention, Sync};

/// A native, incremental database.
fn options(sync: Sync, file_size: u32) -> Options {
    Options {
        native: true,
        record_nr_max: 1000,
        file_size,
        sync,
        ..Options::default()
    }
}

fn storage(disk: Disk, reserves: bool) -> SimStorage {
    SimStorage::new(disk, reserves, 9)
}

fn model() -> Model {
    Model::new(false, 1000, 0)
}

fn open(storage: &SimStorage, options: &Options, must_exist: bool) -> Result<Db, Error> {
    let options = Options {
        must_exist,
        ..options.clone()
    };
    Db::open_on(Arc::new(storage.clone()), &options)
}

#[test]
fn the_background_syncs_what_was_committed() {
    let options = Options {
        sync: Sync::Interval(5),
        ..Options::default()
    };
    let storage = SimStorage::new(Disk::new(), true, 7);
    let db = Db::open_on(Arc::new(storage.clone()), &options).expect("a new database opens");
    for round in 1..=3u64 {
        db.insert(b"soon on disk").expect("an insert");
        let began = Instant::now();
        loop {
            let left = storage.disk().lose_power(&Loss::OF_EVERYTHING);
            let after = Db::open_on(
                Arc::new(SimStorage::new(left, true, 8)),
                &Options::default(),
            );
            let commit = after
                .and_then(|db| db.last_commit())
                .expect("it opens after a loss of power");
            if commit == round {
                break;
            }
            assert!(
                began.elapsed() < Duration::from_secs(20),
                "with an interval of 5 ms, commit {round} is not on disk after 20 s"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Much is synced in pieces. What the disk refuses of one of them, the sync that comes last hears nothing
/// of.
#[test]
fn a_long_sync_that_fails_in_the_middle_has_failed() {
    const RECORDS: usize = 240;
    let options = Options {
        file_size: u32::MAX,
        ..options(Sync::Os, 3000)
    };
    let value = vec![7; 60_000];
    let mut after = 0;
    loop {
        let storage = storage(Disk::new(), true);
        let db = open(&storage, &options, false).expect("a new database opens");
        for _ in 0..RECORDS {
            db.insert(&value).expect("an insert");
        }
        storage.fail(Some(Fault {
            calls: Calls::Syncing,
            after: storage.calls(Calls::Syncing) + after,
            errno: Errno::Io,
            sticky: false,
            partly: false,
            pages: Pages::Clean,
        }));
        let synced = db.sync();
        if storage.hits().is_empty() {
            synced.expect("nothing failed");
            break;
        }
        assert!(
            matches!(synced, Err(Error::Io { .. })),
            "call {after}: a failed sync gives {synced:?}"
        );
        let stopped = db.insert(b"no");
        assert!(
            matches!(stopped, Err(Error::Poisoned { .. })),
            "call {after}: an insert gives {stopped:?}"
        );
        after += 1;
    }
    assert!(after > 3, "{after} calls: it was not done in pieces");
}

/// While much is synced space is reserved, so that who writes beside it doesn't have to ask for it.
#[test]
fn a_long_sync_reserves_space_for_the_next_commits() {
    const RECORD: usize = 60_000 + 48;
    let options = Options {
        file_size: u32::MAX,
        ..options(Sync::Os, 3000)
    };
    let storage = storage(Disk::new(), true);
    let db = open(&storage, &options, false).expect("a new database opens");
    let insert = || db.insert(&[7; RECORD - 48]);
    let mut before = 0;
    // Until it has just reserved space behind so much, and until there is little of that.
    let reserved = loop {
        insert().expect("an insert");
        let used = storage.disk().used();
        if before > 14 << 20 && used > before {
            break used - before;
        }
        before = used;
    };
    for _ in 2..reserved / RECORD {
        insert().expect("an insert");
    }
    db.sync().expect("a sync");
    storage.limit(Some(storage.disk().used()));
    for number in 0..20 {
        let inserted = insert();
        assert!(inserted.is_ok(), "insert {number}: {inserted:?}");
    }
}

#[test]
fn after_a_failed_sync_only_reading_goes_on() {
    for sync in [Sync::Os, Sync::Commit] {
        let options = options(sync, 3000);
        let storage = storage(Disk::new(), true);
        let db = open(&storage, &options, false).expect("a new database opens");
        db.insert(b"kept").expect("an insert");
        storage.fail(Some(Fault {
            calls: Calls::Syncing,
            after: storage.calls(Calls::Syncing),
            errno: Errno::Io,
            sticky: true,
            partly: false,
            pages: Pages::Dirty,
        }));
        let failed = if sync == Sync::Commit {
            db.set(1, b"not kept")
        } else {
            db.sync()
        };
        assert!(
            matches!(failed, Err(Error::Io { .. })),
            "{sync:?}: a failed sync gives {failed:?}"
        );
        storage.fail(None);

        let calls = storage.events();
        let stopped = |what, result: Result<(), Error>| {
            assert!(
                matches!(result, Err(Error::Poisoned { .. })),
                "{sync:?}: {what} gives {result:?}"
            );
        };
        stopped("insert", db.insert(b"no").map(drop));
        stopped("set", db.set(1, b"no"));
        stopped("delete", db.delete(1));
        stopped("set_many", db.set_many(&[(1, b"no")]));
        stopped("sync", db.sync());
        assert_eq!(
            storage.events(),
            calls,
            "{sync:?}: a stopped handle still writes"
        );
        assert!(db.get(1).is_ok(), "{sync:?}: reading has stopped too");

        drop(db);
        let db = open(&storage, &options, true).expect("it opens again");
        db.insert(b"healed").expect("an insert after reopening");
        db.sync().expect("a sync after reopening");
    }
}

#[test]
fn a_full_disk_keeps_everything_and_goes_on_when_there_is_space() {
    for (sync, reserves) in [(Sync::Os, true), (Sync::Os, false), (Sync::Commit, true)] {
        let options = options(sync, 20_000);
        let storage = storage(Disk::new(), reserves);
        let mut model = model();
        let mut db = open(&storage, &options, false).expect("a new database opens");
        let check = |verdict: Verdict| {
            verdict.unwrap_or_else(|message| panic!("{sync:?}, reserves {reserves}: {message}"));
        };
        storage.limit(Some(storage.disk().used() + 30_000));
        let mut round = 0;
        let write = loop {
            let write = match round {
                0..8 => Write::Insert(Value {
                    seed: round,
                    len: 500,
                }),
                _ => Write::Set(
                    u32::from(round % 8) + 1,
                    Value {
                        seed: round,
                        len: 500,
                    },
                ),
            };
            match write.perform(&db) {
                Ok(outcome) => {
                    let expected = model.apply(&write);
                    check(compare(|| format!("{write:?}"), &expected, Ok(outcome)));
                    check(model.learn_time(&db));
                }
                Err(Error::NoSpace { .. }) => break write,
                Err(error) => panic!("{sync:?}, reserves {reserves}: {write:?}: {error}"),
            }
            round += 1;
            assert!(round < 1000, "the disk never gets full");
        };
        check(model.check_all(&db).context(|| "on the full disk".into()));
        let again = write.perform(&db);
        assert!(
            matches!(again, Err(Error::NoSpace { .. })),
            "full as before, and {again:?}"
        );
        let read_only = Options {
            read_only: true,
            ..Options::default()
        };
        let reader = Db::open_on(Arc::new(storage.clone()), &read_only);
        let reader = reader.unwrap_or_else(|error| panic!("read-only on a full disk: {error}"));
        check(
            model
                .check_all(&reader)
                .context(|| "read-only on the full disk".into()),
        );
        drop(reader);

        storage.limit(None);
        check(
            model
                .perform(&db, &write)
                .context(|| "with space again".into()),
        );
        drop(db);
        db = open(&storage, &options, true).expect("it opens again");
        check(model.check_all(&db).context(|| "reopened".into()));
    }
}

/// What a crash leaves that comes after any call of a close.
fn crashes_in_close(storage: &SimStorage, db: Db, mut look: impl FnMut(usize, SimStorage)) {
    let before = storage.events();
    db.close().expect("a close");
    let history = storage.history();
    for calls in before..=history.events.len() {
        let after = history.after(calls);
        look(calls, self::storage(after.clone(), true));
        look(
            calls,
            self::storage(after.lose_power(&Loss::OF_EVERYTHING), true),
        );
    }
}

#[test]
fn a_crash_in_a_close_that_keeps_only_a_number_is_harmless() {
    let plain = Options {
        record_nr_max: 1000,
        record_size_max: 200,
        ..Options::default()
    };
    let closed = || {
        let storage = storage(Disk::new(), true);
        let db = open(&storage, &plain, false).expect("a new database opens");
        db.insert(b"one").expect("an insert");
        db.insert(b"two").expect("an insert");
        db.close().expect("a close");
        storage
    };
    let is_as_before = |calls: usize, storage: SimStorage, options: &Options| {
        let db = open(&storage, options, true)
            .unwrap_or_else(|error| panic!("a crash after {calls} calls: {error}"));
        assert_eq!(db.get(2).expect("a value"), b"two", "{calls}");
        assert_eq!(db.count().expect("a count"), 2, "{calls}");
        // What is taken over as herolib's goes on with another generation.
        let disk = storage.disk();
        let manifest = disk.read("MANIFEST").expect("a manifest");
        assert_eq!(manifest[32..40], [0; 8], "{calls}");
    };

    // An id that was given out for nothing.
    let storage = closed();
    let db = open(&storage, &plain, true).expect("it opens");
    let mut txn = db.begin().expect("a transaction");
    assert_eq!(txn.insert(b"three").expect("an id"), 3);
    txn.abort();
    crashes_in_close(&storage, db, |calls, storage| {
        is_as_before(calls, storage, &plain);
    });

    // A higher limit, by which a dump is wider.
    let storage = closed();
    let wider = Options {
        record_nr_max: 70_000,
        ..plain.clone()
    };
    let db = open(&storage, &wider, true).expect("it opens");
    crashes_in_close(&storage, db, |calls, storage| {
        is_as_before(calls, storage, &wider);
    });

    // Nothing at all.
    let storage = closed();
    let db = open(&storage, &plain, true).expect("it opens");
    let calls = storage.events();
    db.close().expect("a close");
    assert_eq!(
        storage.events(),
        calls,
        "a close of what wasn't changed writes"
    );
}

/// After much was read an opening writes a checkpoint. It may not stand for more than is on disk.
#[test]
fn a_loss_of_power_after_a_long_opening_loses_nothing_that_its_checkpoint_says() {
    const RECORDS: usize = 70;
    let options = Options {
        record_size_max: 1 << 20,
        ..options(Sync::Os, 20 << 20)
    };
    let storage = storage(Disk::new(), true);
    let db = open(&storage, &options, false).expect("a new database opens");
    for number in 0..RECORDS {
        db.insert(&vec![number as u8; 1 << 20]).expect("an insert");
    }
    drop(db);

    let storage = self::storage(storage.disk(), true);
    drop(open(&storage, &options, true).expect("it opens after the death of the process"));
    let mut covered = 0;
    let verdict = storage.history().replay(|calls, disk| {
        // What comes before that is no other opening than a short one.
        let names = disk.files();
        if !names.iter().any(|name| name.starts_with("index")) {
            return Ok(());
        }
        for loss in [Loss::OF_EVERYTHING, Loss::OF_NOTHING] {
            let left = disk.lose_power(&loss);
            let has_checkpoint = left.read("index").is_some();
            let opened = |storage: &SimStorage| {
                open(storage, &options, true)
                    .map_err(|error| format!("{calls} calls into the opening: {error}"))
            };
            let storage = self::storage(left, true);
            let db = opened(&storage)?;
            if !has_checkpoint {
                continue;
            }
            let count = db.count().expect("a count");
            require!(count == RECORDS as u64, "{calls} calls: {count} records");
            // What is written from there on goes on where the log ends without the checkpoint, too.
            db.insert(b"more").expect("an insert");
            db.sync().expect("a sync");
            drop(db);
            storage.remove("index").expect("it is there");
            let db = opened(&storage).context(|| "without the checkpoint".into())?;
            let count = db.count().expect("a count");
            require!(
                count == RECORDS as u64 + 1,
                "{calls} calls: {count} records without the checkpoint"
            );
            covered += 1;
        }
        Ok(())
    });
    verdict.unwrap_or_else(|message| panic!("{message}"));
    assert!(covered > 0, "too little was read");
}

/// Where data files have high numbers, a compaction begins with 0 again.
#[test]
fn a_crash_of_a_compaction_that_begins_anew_with_low_numbers_loses_nothing() {
    const HIGH: u32 = 33_000;
    let options = options(Sync::Os, 300);
    let everything = Retention {
        keep_versions: u64::MAX,
        ..Retention::default()
    };
    let compact = |db: &Db| {
        db.compact(&everything, |_, _| ControlFlow::Continue(()))
            .expect("a compaction");
    };
    let is_well = |said: &str, model: &Model, db: &Db| {
        let verdict = model.check_all(db).context(|| said.to_owned());
        verdict.unwrap_or_else(|message| panic!("{message}"));
        let report = db
            .check(|_, _| ControlFlow::Continue(()))
            .unwrap_or_else(|error| panic!("{said}: the check: {error}"));
        assert!(report.is_sound(), "{said}: {report}");
    };
    let numbers = |disk: &Disk| {
        let names = disk.files().into_iter();
        let numbers = names.filter_map(|name| name.strip_suffix(".db")?.parse().ok());
        let mut numbers: Vec<u32> = numbers.collect();
        numbers.sort_unstable();
        numbers
    };

    let mut model = model();
    let mut write = |db: &Db, from: u16| {
        for seed in from..from + 20 {
            let value = Value {
                seed,
                len: 20 + u32::from(seed),
            };
            let write = match seed % 3 {
                0 if seed > 10 => Write::Set(u32::from(seed) % 5 + 1, value),
                _ => Write::Insert(value),
            };
            let verdict = model.perform(db, &write);
            verdict.unwrap_or_else(|message| panic!("{message}"));
        }
        model.clone()
    };
    let mut storage = storage(Disk::new(), true);
    let db = open(&storage, &options, false).expect("a new database opens");
    write(&db, 0);
    db.close().expect("a close");

    // Numbers that others have taken are left out.
    let all = |disk: &Disk| -> BTreeMap<String, Vec<u8>> {
        let content = |name: &String| disk.read(name).expect("its content").to_vec();
        let names = disk.files().into_iter();
        names.map(|name| (name.clone(), content(&name))).collect()
    };
    let mut files = all(&storage.disk());
    let first_free = numbers(&storage.disk()).last().expect("a data file") + 1;
    for number in first_free..HIGH {
        files.insert(format!("{number}.db"), Vec::new());
    }
    storage = self::storage(Disk::holding(&files), true);
    let db = open(&storage, &options, true).expect("it opens among files of others");
    compact(&db);
    write(&db, 20);
    db.close().expect("a close");
    let mut files = all(&storage.disk());
    files.retain(|_, content| !content.is_empty());
    let disk = Disk::holding(&files);
    assert!(
        numbers(&disk)[0] >= HIGH,
        "no lower number is in use: {:?}",
        numbers(&disk)
    );

    storage = self::storage(disk, true);
    let db = open(&storage, &options, true).expect("it opens with high numbers");
    write(&db, 40);
    db.sync().expect("a sync");
    let read_only = Options {
        read_only: true,
        ..Options::default()
    };
    let reader = Db::open_on(Arc::new(storage.clone()), &read_only).expect("a reader opens");
    let copy: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    let back_up = || {
        db.backup_to(Arc::clone(&copy), |_, _| ControlFlow::Continue(()))
            .expect("a backup");
    };
    back_up();
    let before = storage.events();
    compact(&db);
    let compacted = storage.events();
    let low = numbers(&storage.disk());
    assert!(low.iter().all(|&number| number < HIGH), "{low:?}");
    let in_use = low.len();
    let model = write(&db, 60);
    is_well("after the compaction", &model, &db);
    reader.refresh().expect("a refresh");
    is_well("from outside", &model, &reader);
    drop(reader);
    back_up();
    let restored = Db::open_on(copy, &read_only).expect("the backup opens");
    is_well("in the backup", &model, &restored);
    db.close().expect("a close");

    let history = storage.history();
    let synced = model.as_of(60);
    for calls in before..=compacted {
        let after = history.after(calls);
        let losses = (0..8).map(|case| after.lose_power(&Loss::case(case, calls as u64)));
        for (case, disk) in [after.clone()].into_iter().chain(losses).enumerate() {
            let said = format!("after {calls} calls, case {case}");
            let storage = self::storage(disk, true);
            let db = open(&storage, &options, true)
                .unwrap_or_else(|error| panic!("{said}: {error}\n{}", history.describe(calls)));
            is_well(&said, &synced, &db);
            compact(&db);
            is_well(&said, &synced, &db);
            db.close().expect("a close");
            let left = numbers(&storage.disk());
            assert_eq!(left.len(), in_use, "{said}: data files {left:?}");
        }
    }
    storage = self::storage(storage.disk(), true);
    let db = open(&storage, &options, true).expect("it opens with low numbers");
    is_well("opened again", &model, &db);
}

/// ext4 makes a file longer by what it could reserve, and says that it could not reserve all.
#[test]
fn after_a_full_disk_a_close_leaves_no_file_longer_than_its_log() {
    for spare in (0..40_000).step_by(1777) {
        let options = options(Sync::Os, 0);
        let storage = storage(Disk::new(), true);
        let db = open(&storage, &options, false).expect("a new database opens");
        let insert = |len: usize| db.insert(&vec![7; len]);
        for _ in 0..100 {
            insert(900).expect("an insert");
        }
        storage.limit(Some(storage.disk().used() + spare));
        while insert(900).is_ok() {}
        // What little is left is used.
        for len in (0..300).rev().step_by(30) {
            let _ = insert(len);
        }
        storage.limit(None);
        let count = db.count().expect("a count");
        db.close().expect("a close");

        let db = open(&storage, &options, true).expect("it opens again");
        assert_eq!(db.count().expect("a count"), count);
        // It is not taken for one that somebody else has written to.
        let changes = db.changes(0, 0);
        assert!(changes.is_ok(), "{spare} bytes left: {changes:?}");
    }
}

/// However often a data file is tried to be begun on a full disk.
#[test]
fn a_full_disk_uses_up_no_data_file_numbers() {
    let options = options(Sync::Os, 1000);
    let storage = storage(Disk::new(), true);
    let db = open(&storage, &options, false).expect("a new database opens");
    while !storage.list("").expect("a list").contains(&"1.db".into()) {
        db.insert(&[7; 300]).expect("an insert");
    }
    storage.limit(Some(0));
    let mut tried = 0;
    while tried < 100 {
        match db.insert(&[7; 300]) {
            Ok(_) => {}
            Err(Error::NoSpace { .. }) => tried += 1,
            Err(error) => panic!("on a full disk: {error}"),
        }
    }
    storage.limit(None);
    for _ in 0..10 {
        db.insert(&[7; 300]).expect("an insert");
    }
    let names = storage.list("").expect("a list");
    let mut numbers: Vec<u16> = (names.iter())
        .filter_map(|name| name.strip_suffix(".db")?.parse().ok())
        .collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..numbers.len() as u16).collect::<Vec<_>>());
}

/// Each call that begins a new data file fails, and so does everything that would undo it. What is
/// appended afterwards, marks of syncs among it, is found by who opens the database and by who follows it.
#[test]
fn a_data_file_that_could_not_be_begun_and_stays_hides_nothing() {
    let options = Options {
        key_value: true,
        ..options(Sync::Os, 200)
    };
    for (syncs_before, syncs_after) in [(false, false), (true, false), (false, true), (true, true)]
    {
        for failing in 0.. {
            let what = format!("call {failing}, syncs {syncs_before} and {syncs_after}");
            let storage = storage(Disk::new(), true);
            let db = open(&storage, &options, false).expect("a new database opens");
            db.set(1, &[1; 200]).expect("the first data file is full");
            let reader = Db::open_on(
                Arc::new(storage.clone()),
                &Options {
                    read_only: true,
                    ..Options::default()
                },
            );
            let reader = reader.expect("a reader");
            storage.fail(Some(Fault {
                calls: Calls::Changing,
                after: storage.calls(Calls::Changing) + failing,
                errno: Errno::Io,
                sticky: true,
                partly: failing % 2 == 1,
                pages: Pages::Dirty,
            }));
            let outcome = db.set(2, b"two");
            storage.fail(None);
            if outcome.is_ok() {
                break;
            }
            reader.refresh().expect(&what);
            if syncs_before && db.sync().is_err() {
                continue;
            }
            let mut last = 1;
            for id in 3..9 {
                match db.set(id, &id.to_le_bytes()) {
                    Ok(()) => last = id,
                    Err(Error::Poisoned { .. }) => break,
                    Err(error) => panic!("{what}: {error}"),
                }
                reader.refresh().expect(&what);
                assert!(last == 1 || reader.contains(last).expect(&what), "{what}");
                if syncs_after && id % 2 == 0 {
                    db.sync().expect(&what);
                }
            }
            let commits = db.last_commit().expect(&what);
            let left = SimStorage::new(storage.disk(), true, 8);
            let again = open(&left, &options, true).expect(&what);
            assert_eq!(again.last_commit().expect(&what), commits, "{what}");
            for id in [1].into_iter().chain(3..=last) {
                assert!(again.contains(id).expect(&what), "{what}: id {id}");
            }
            let report = again.check(|_, _| ControlFlow::Continue(())).expect(&what);
            assert!(report.is_sound(), "{what}: {report:?}");
        }
    }
}

/// All that can fail comes before the old files are not the database any more.
#[test]
fn a_call_that_fails_in_a_compaction_stops_no_writing() {
    for calls in [Calls::Reading, Calls::Changing] {
        fail_each_of_a_compaction(calls);
    }
}

fn fail_each_of_a_compaction(calls: Calls) {
    let options = options(Sync::Os, 300);
    let go_on = |_: u64, _: u64| ControlFlow::Continue(());
    for failing in 0.. {
        let what = format!("{calls:?} {failing}");
        let storage = storage(Disk::new(), true);
        let db = open(&storage, &options, false).expect("a new database opens");
        for value in 0..30u8 {
            db.insert(&[value; 20]).expect("an insert");
        }
        db.delete(3).expect("a deletion");
        let mut is_first = true;
        let outcome = db.compact(&Retention::default(), |_, _| {
            if std::mem::take(&mut is_first) {
                for value in 0..30u8 {
                    db.insert(&[value; 20]).expect("an insert meanwhile");
                }
                storage.fail(Some(Fault {
                    calls,
                    after: storage.calls(calls) + failing,
                    errno: Errno::Io,
                    sticky: false,
                    partly: false,
                    pages: Pages::Dirty,
                }));
            }
            ControlFlow::Continue(())
        });
        storage.fail(None);
        db.set(4, b"goes on").expect(&what);
        assert!(db.check(go_on).expect(&what).is_sound(), "{what}");
        if storage.hit_count() == 0 {
            assert!(failing > 5, "there is something that can fail");
            break;
        }
        let generation = || storage.disk().read("MANIFEST").map(|manifest| manifest[32]);
        assert_eq!(
            generation() == Some(1),
            outcome.is_ok(),
            "{what}: {outcome:?}"
        );
        db.compact(&Retention::default(), go_on).expect(&what);
        drop(db);
        let again = open(&SimStorage::new(storage.disk(), true, 8), &options, true).expect(&what);
        assert_eq!(again.count().expect(&what), 59, "{what}");
        assert!(again.check(go_on).expect(&what).is_sound(), "{what}");
    }
}

/// After the death of a process only what a mark, a checkpoint or a close proves is known to be on disk,
/// and that is still there after a loss of power.
#[test]
fn what_is_said_to_be_on_disk_is_proven() {
    let synced = |db: &Db| db.stats().expect("figures").synced_commit;
    for is_closed in [false, true] {
        let storage = storage(Disk::new(), true);
        let db = open(&storage, &options(Sync::Os, 0), false).expect("a new database");
        let insert = |db: &Db| {
            for value in 0..9u8 {
                db.insert(&[value; 20]).expect("an insert");
            }
        };
        insert(&db);
        assert_eq!(synced(&db), 0);
        if is_closed {
            db.close().expect("a close");
        } else {
            drop(db);
        }
        let mut proven = if is_closed { 9 } else { 0 };
        let reading = |sync| Options {
            read_only: true,
            ..options(sync, 0)
        };
        let follower = open(&storage, &reading(Sync::Os), true).expect("a reader");
        for is_synced in [false, true, false] {
            for sync in [Sync::Os, Sync::Commit] {
                let reader = open(&storage, &reading(sync), true).expect("a reader");
                assert_eq!(synced(&reader), proven);
            }
            let db = open(&storage, &options(Sync::Os, 0), true).expect("it opens");
            assert_eq!(synced(&db), proven);
            let powerless =
                SimStorage::new(storage.disk().lose_power(&Loss::OF_EVERYTHING), true, 7);
            let left = match open(&powerless, &options(Sync::Os, 0), false) {
                Ok(left) => left.last_commit().expect("a number"),
                Err(error) => panic!("{error}"),
            };
            assert!(
                left >= proven,
                "{left}, and {proven} are said to be on disk"
            );
            insert(&db);
            if is_synced {
                db.sync().expect("a sync");
                proven = db.last_commit().expect("a number");
                assert_eq!(synced(&db), proven);
                follower.refresh().expect("a refresh");
                assert_eq!(synced(&follower), proven);
                let reader = open(&storage, &reading(Sync::Os), true).expect("a reader");
                assert_eq!(synced(&reader), proven);
            }
            insert(&db);
        }
        let db = open(&storage, &options(Sync::Commit, 0), true).expect("it opens");
        assert_eq!(synced(&db), db.last_commit().expect("a number"));
    }
}
