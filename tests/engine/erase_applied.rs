//! A version that comes to a receiver as erased, ahead of the erasure itself: what the receiver has of
//! that record from before is erased with it, as by an erasure of its own.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use crate::support::TempDirectory;
use crate::support::sim::{Calls, Disk, Errno, Fault, Loss, Pages, SimStorage};
use ourdb::storage::memory::MemoryStorage;
use ourdb::storage::os::OsStorage;
use ourdb::storage::{Storage, read_all};
use ourdb::{Db, Error, IoMode, NotFound, Options, Order, Retention, State};

/// What every value that is erased begins with.
const SECRET: &[u8] = b"a secret of somebody";

fn on(_done: u64, _total: u64) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn options() -> Options {
    Options {
        key_value: true,
        native: true,
        record_size_max: 1 << 20,
        file_size: 1000,
        ..Options::default()
    }
}

fn open(storage: &Arc<dyn Storage>) -> Db {
    Db::open_on(Arc::clone(storage), &options()).expect("it opens")
}

fn in_memory() -> Arc<dyn Storage> {
    Arc::new(MemoryStorage::new())
}

fn keep_versions(keep_versions: u64) -> Retention {
    Retention {
        keep_versions,
        ..Retention::default()
    }
}

fn secret(number: u8) -> Vec<u8> {
    let mut value = SECRET.to_vec();
    value.push(number);
    value
}

/// Applies what comes next, one commit of it.
fn apply_one(sender: &Db, copy: &Db) {
    let since = copy.last_commit().expect("a commit");
    let (changes, upto) = sender.changes(since, 1).expect("changes");
    copy.apply(&changes).expect("they fit");
    assert!(upto > since && copy.last_commit().ok() == Some(upto));
}

fn catch_up(sender: &Db, copy: &Db) {
    while copy.last_commit().ok() < sender.last_commit().ok() {
        apply_one(sender, copy);
    }
}

/// Commits and states of a record's versions, newest first.
fn history(db: &Db, id: u32) -> Vec<(u64, State)> {
    match db.history(id, 0) {
        Ok(records) => records
            .iter()
            .map(|record| (record.commit, record.state))
            .collect(),
        Err(Error::NotFound(NotFound::History(_))) => Vec::new(),
        Err(error) => panic!("history of {id}: {error}"),
    }
}

fn has_secret(storage: &dyn Storage) -> bool {
    let names = storage.list("").expect("names");
    names.iter().any(|name| {
        let is_file = !storage.is_directory(name).expect("a look");
        is_file && {
            let bytes = read_all(storage, name, 1 << 30).expect("a file");
            bytes.windows(SECRET.len()).any(|part| part == SECRET)
        }
    })
}

/// Nobody finds a value of record 1, but one that was set since, and a check finds nothing.
fn assert_gone(storage: &dyn Storage, db: &Db, what: &str) {
    assert!(!has_secret(storage), "{what}");
    let last = db.last_commit().expect("a commit");
    let oldest = db.stats().expect("figures").oldest_commit;
    for commit in 1..=last {
        let found = db.get_version(1, commit);
        assert!(
            !found.is_ok_and(|value| value.starts_with(SECRET)),
            "{what}"
        );
        if commit >= oldest {
            let past = db.snapshot_at(commit).expect("a past");
            let found = past.get(1);
            assert!(
                !found.is_ok_and(|value| value.starts_with(SECRET)),
                "{what}"
            );
        }
    }
    let report = db.check(on).expect("a check");
    assert!(report.is_sound(), "{what}: {report}");
}

/// A sender that has erased record 1, and what a copy of it has from before. What comes next is a commit
/// of record 1, as erased, and the erasure comes later. With `compacted` it comes in a difference of
/// states, which leads to a commit before the erasure.
fn sender_and_copy(compacted: bool, storage: &Arc<dyn Storage>) -> (Db, Db) {
    let (sender, copy) = (open(&in_memory()), open(storage));
    sender.set(1, &secret(1)).expect("a set");
    sender.delete(1).expect("a deletion");
    for number in 2..5 {
        sender.set(1, &secret(number)).expect("a set");
    }
    sender.set(2, b"two").expect("a set");
    catch_up(&sender, &copy);
    sender.set(1, &secret(5)).expect("a set");
    sender.set(1, &secret(6)).expect("a set");
    if compacted {
        sender.compact(&keep_versions(9), on).expect("a compaction");
    }
    sender.set(3, b"three").expect("a set");
    sender.erase(1).expect("an erasure");
    (sender, copy)
}

#[test]
fn what_is_older_than_an_erased_version_is_erased_with_it() {
    for compacted in [false, true] {
        for replaced in [false, true] {
            let what = &format!("compacted {compacted}, replaced {replaced}");
            let storage = in_memory();
            let (sender, copy) = sender_and_copy(compacted, &storage);
            assert!(has_secret(&*storage));
            let open_ones = [
                copy.snapshot().expect("a snapshot"),
                copy.snapshot_at(5).expect("a past"),
            ];
            let mut scan = copy.scan(0, 9, Order::default()).expect("a scan");
            if replaced {
                copy.compact(&keep_versions(9), on).expect("a compaction");
            }
            assert!(
                open_ones
                    .iter()
                    .all(|them| them.contains(1).expect("a look"))
            );
            apply_one(&sender, &copy);
            assert_eq!(history(&copy, 1), [(7, State::Erased)], "{what}");
            for them in &open_ones {
                assert!(
                    !them.contains(1).expect("a look") && them.get(1).is_err(),
                    "{what}"
                );
            }
            assert_eq!(open_ones[0].count().ok(), Some(1), "{what}");
            assert_eq!(
                scan.next().expect("a record").map(|it| it.id),
                Some(2),
                "{what}"
            );
            drop((open_ones, scan));
            assert_gone(&*storage, &copy, what);
            drop(copy);
            let copy = open(&storage);
            assert_gone(&*storage, &copy, what);
            // The erasure itself never comes.
            sender.set(1, b"anew").expect("a set");
            sender.compact(&keep_versions(1), on).expect("a compaction");
            catch_up(&sender, &copy);
            let expected = [(11, State::Live), (7, State::Erased)];
            assert_eq!(history(&copy, 1), expected, "{what}");
            assert_gone(&*storage, &copy, what);
            copy.compact(&keep_versions(9), on).expect("a compaction");
            assert_eq!(history(&copy, 1), expected, "{what}");
            assert_gone(&*storage, &copy, what);
            copy.close().expect("a close");
            assert_gone(&*storage, &open(&storage), what);
        }
    }
}

/// What a crash or a failure has left is gone at the next opening, however far the version that tells had
/// come; and goes on.
fn judge(disk: Disk, sender: &Db, what: &str) -> bool {
    let simulated = SimStorage::new(disk, true, 7);
    let storage: Arc<dyn Storage> = Arc::new(simulated.clone());
    let copy = open(&storage);
    let is_there = copy.last_commit().expect("a commit") > 6;
    if is_there {
        assert_gone(&*storage, &copy, what);
    }
    catch_up(sender, &copy);
    assert_eq!(history(&copy, 1), history(sender, 1), "{what}");
    assert_gone(&*storage, &copy, what);
    is_there
}

#[test]
fn a_crash_leaves_nothing_older_below_an_erased_version() {
    let mut images = 0;
    for (compacted, at_once) in [(false, false), (true, false), (false, true)] {
        let first = SimStorage::new(Disk::new(), true, 1);
        let storage: Arc<dyn Storage> = Arc::new(first.clone());
        let (sender, copy) = sender_and_copy(compacted, &storage);
        // What is there is known by a checkpoint: only what comes is read at the next opening.
        copy.close().expect("a close");
        let second = SimStorage::new(first.disk(), true, 1);
        let storage: Arc<dyn Storage> = Arc::new(second.clone());
        let copy = open(&storage);
        if at_once {
            // Two erasures of it that are finished together.
            sender.set(1, &secret(7)).expect("a set");
            sender.erase(1).expect("an erasure");
            let (changes, _) = sender.changes(6, usize::MAX).expect("changes");
            copy.apply(&changes).expect("they fit");
        } else {
            apply_one(&sender, &copy);
            apply_one(&sender, &copy);
        }
        let history = second.history();
        let all = history.events.len();
        let mut seen = BTreeSet::new();
        let mut judge = |disk: Disk, calls: usize, case: u64| {
            if seen.insert(disk.fingerprint()) || calls == all {
                images += 1;
                let what = format!(
                    "compacted {compacted}, at once {at_once}, {calls} of {all} calls, case {case}"
                );
                assert!(judge(disk, &sender, &what) || calls < all, "{what}");
            }
        };
        let visited = history.replay(|calls, disk| {
            judge(disk.clone(), calls, 0);
            for part in history
                .events
                .get(calls)
                .into_iter()
                .flat_map(|it| it.partly())
            {
                judge(disk.after(&part), calls, 0);
            }
            for case in 1..8 {
                judge(
                    disk.lose_power(&Loss::case(case, calls as u64)),
                    calls,
                    case,
                );
            }
            Ok(())
        });
        visited.expect("all were visited");
    }
    assert!(images > 100, "{images} images");
}

#[test]
fn what_failed_below_an_erased_version_is_done_by_the_next_opening() {
    for after in 0.. {
        let simulated = SimStorage::new(Disk::new(), true, 1);
        let storage: Arc<dyn Storage> = Arc::new(simulated.clone());
        let (sender, copy) = sender_and_copy(false, &storage);
        let (changes, upto) = sender.changes(6, 1).expect("changes");
        simulated.fail(Some(Fault {
            calls: Calls::Changing,
            after: simulated.calls(Calls::Changing) + after,
            errno: Errno::Io,
            sticky: true,
            partly: true,
            pages: Pages::Dirty,
        }));
        let applied = copy.apply(&changes);
        simulated.fail(None);
        let what = format!("after {after} calls: {applied:?}");
        if copy.last_commit().ok() == Some(upto) {
            assert!(
                copy.get(1).is_err() && copy.get_version(1, 6).is_err(),
                "{what}"
            );
            let stopped = matches!(copy.apply(&changes), Err(Error::Poisoned { .. }));
            assert_eq!(stopped, applied.is_err(), "{what}");
        }
        drop(copy);
        judge(simulated.disk(), &sender, &what);
        if applied.is_ok() {
            assert!(after > 5, "{what}");
            break;
        }
    }
}

/// Records that a compaction has copied by then, and others that it hasn't, from before it and since.
#[test]
fn what_a_compaction_copies_meanwhile_is_erased_with_it() {
    const IDS: u32 = 12;
    for step in 1..4 {
        let storage = in_memory();
        let (sender, copy) = (open(&in_memory()), open(&storage));
        let long = |id: u32| [secret(id as u8), vec![id as u8; 400_000]].concat();
        (0..IDS).for_each(|id| sender.set(id, &long(id)).expect("a set"));
        catch_up(&sender, &copy);
        (0..IDS).for_each(|id| sender.set(id, &secret(1)).expect("a set"));
        let early = sender.changes(IDS.into(), usize::MAX).expect("changes");
        (0..IDS).for_each(|id| sender.set(id, &secret(2)).expect("a set"));
        (0..IDS).for_each(|id| sender.erase(id).expect("an erasure"));
        let mut calls = 0;
        let compacted = copy.compact(&keep_versions(9), |_, _| {
            calls += 1;
            if calls == step {
                copy.apply(&early.0).expect("they fit");
                (0..IDS).for_each(|_| apply_one(&sender, &copy));
                assert!(!has_secret(&*storage), "step {step}");
            }
            ControlFlow::Continue(())
        });
        compacted.expect("a compaction");
        assert!(calls > step, "{calls} calls");
        for id in 0..IDS {
            let erased = u64::from(2 * IDS + id) + 1;
            assert_eq!(history(&copy, id), [(erased, State::Erased)], "step {step}");
        }
        assert_gone(&*storage, &copy, "compacted");
        drop(copy);
        assert_gone(&*storage, &open(&storage), "opened again");
    }
}

/// A handle that reads beside the receiver, before and after it hears of it.
#[test]
fn a_reader_of_the_receiver_finds_nothing_older() {
    for io in [IoMode::Map, IoMode::File] {
        let directory = TempDirectory::new();
        let path = directory.path().join("db");
        let storage: Arc<dyn Storage> = Arc::new(OsStorage::new(path, io));
        let (sender, copy) = sender_and_copy(false, &storage);
        let reading = Options {
            read_only: true,
            ..options()
        };
        let reader = Db::open_on(Arc::clone(&storage), &reading).expect("a reader");
        let before = reader.snapshot().expect("a snapshot");
        assert_eq!(before.count().ok(), Some(2));
        apply_one(&sender, &copy);
        assert!(reader.get(1).is_err() && before.get(1).is_err());
        assert_gone(&*storage, &reader, "before the refresh");
        reader.refresh().expect("a refresh");
        assert_eq!(before.count().ok(), Some(1));
        assert_eq!(history(&reader, 1), [(7, State::Erased)]);
        assert_gone(&*storage, &reader, "after the refresh");
    }
}

/// A check that has read what is older by then, or not yet.
#[test]
fn a_check_beside_it_finds_nothing() {
    for step in 0..3 {
        let storage = in_memory();
        let copy = open(&storage);
        let sender = open(&in_memory());
        let long = [SECRET, &[1; 900_000]].concat();
        (0..12).for_each(|id| sender.set(id, &long).expect("a set"));
        catch_up(&sender, &copy);
        (0..12).for_each(|id| sender.set(id, &long).expect("a set"));
        (0..12).for_each(|id| sender.erase(id).expect("an erasure"));
        let mut calls = 0;
        let report = copy.check(|_, _| {
            if calls == step {
                (0..12).for_each(|_| apply_one(&sender, &copy));
            }
            calls += 1;
            ControlFlow::Continue(())
        });
        let report = report.expect("a check");
        assert!(
            report.is_sound() && calls > step,
            "step {step}, {calls} calls: {report}"
        );
        assert_gone(&*storage, &copy, "checked");
    }
}

/// The erased version takes the place of what a transaction has read, though its value never came.
#[test]
fn a_record_that_was_set_and_erased_counts_as_changed_at_a_receiver() {
    let (sender, copy) = (open(&in_memory()), open(&in_memory()));
    sender.set(1, b"first").expect("a set");
    catch_up(&sender, &copy);
    let [reads_it, reads_another] = [5, 6].map(|id| {
        let txn = copy.begin().expect("a transaction");
        assert!(!txn.contains(id).expect("contains"));
        txn
    });
    sender.set(5, &secret(0)).expect("a set");
    sender.erase(5).expect("an erasure");
    catch_up(&sender, &copy);
    assert!(!copy.contains(5).expect("contains"));
    let found = reads_it.commit();
    assert!(matches!(found, Err(Error::Conflict { .. })), "{found:?}");
    reads_another.commit().expect("it read something else");
}
