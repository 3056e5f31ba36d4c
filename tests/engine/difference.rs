//! Changes across a compaction: what is left of the commits that it has dropped versions of leads
//! who applies it to the same values, through any number of parts, crashes and other databases.

use std::ops::ControlFlow;
use std::sync::Arc;

use crate::support::side::{Side, any_sync};
use crate::support::sim::{Disk, SimStorage};
use crate::support::{Random, TempDirectory, Verdict, cases, require};
use ourdb::storage::Storage;
use ourdb::storage::memory::MemoryStorage;
use ourdb::{Db, Error, IoMode, Options, Retention, State};

/// Ids that the tests use are below this.
const IDS: u32 = 40;

fn compact(db: &Db, retention: &Retention) {
    db.compact(retention, |_, _| ControlFlow::Continue(()))
        .expect("a compaction");
}

fn keep_versions(keep_versions: u64) -> Retention {
    Retention {
        keep_versions,
        ..Retention::default()
    }
}

/// A version: commit, time, value.
type Version = (u64, u64, Option<Vec<u8>>);

/// The versions of a record, newest first.
fn history(db: &Db, id: u32) -> Vec<Version> {
    let records = match db.history(id, 0) {
        Ok(records) => records,
        Err(Error::NotFound(_)) => return Vec::new(),
        Err(error) => panic!("history of {id}: {error}"),
    };
    let version = |record: ourdb::Record<'_>| {
        let value = (record.state == State::Live).then(|| record.value.to_vec());
        (record.commit, record.time_us, value)
    };
    records.iter().map(version).collect()
}

fn last_commit(db: &Db) -> u64 {
    db.last_commit().expect("a number")
}

/// Whether it is between two states.
fn is_between(db: &Db) -> bool {
    db.stats().expect("figures").oldest_commit > last_commit(db)
}

/// Everything that the sender has, one change after the other; how many parts it took.
fn catch_up(sender: &Db, copy: &Db, max_bytes: usize) -> u32 {
    let mut parts = 0;
    loop {
        let since = last_commit(copy);
        let (chunk, upto) = sender.changes(since, max_bytes).expect("changes");
        if chunk.is_empty() {
            assert_eq!(upto, last_commit(sender));
            return parts;
        }
        copy.apply(&chunk).expect("they fit");
        assert_eq!(last_commit(copy), upto);
        parts += 1;
    }
}

/// Whether `copy`, which may be between two states, has nothing that `whole` never had, and has what
/// that had at its last commit, and at every one from its oldest on. `whole` has all versions.
fn compare(whole: &Db, copy: &Db) -> Verdict {
    let told = |error: Error| error.to_string();
    let last = last_commit(copy);
    let oldest = copy.stats().map_err(told)?.oldest_commit;
    let truth = |id, commit| whole.get_version(id, commit).ok();
    let mut live = 0;
    for id in 0..IDS {
        let known = history(whole, id);
        for version in history(copy, id) {
            let is_end = version.2.is_none() && truth(id, version.0).is_none();
            require!(
                known.contains(&version) || is_end,
                "id {id} has {version:?}, of {known:?}"
            );
        }
        if oldest > last {
            continue;
        }
        let (read, expected) = (copy.get(id).ok(), truth(id, last));
        require!(
            read == expected,
            "id {id} as of {last}: {read:?} for {expected:?}"
        );
        live += u64::from(read.is_some());
        for at in oldest.max(1)..=last {
            let past = copy.snapshot_at(at).map_err(told)?;
            let (read, expected) = (past.get(id).ok(), truth(id, at));
            require!(
                read == expected,
                "id {id} as of {at}: {read:?} for {expected:?}"
            );
        }
    }
    let count = copy.count().map_err(told)?;
    require!(
        oldest > last || count == live,
        "{count} counted, {live} live"
    );
    let report = copy.check(|_, _| ControlFlow::Continue(())).map_err(told)?;
    require!(report.is_sound(), "{report}");
    Ok(())
}

/// Whether `copy` has all the versions that `sender` has.
fn has_kept_versions(sender: &Db, copy: &Db) {
    for id in 0..IDS {
        let copied = history(copy, id);
        for version in history(sender, id) {
            assert!(
                copied.contains(&version),
                "id {id}: {version:?} of {copied:?}"
            );
        }
    }
}

fn key_value() -> Options {
    Options {
        key_value: true,
        record_nr_max: IDS,
        file_size: 400,
        ..Options::default()
    }
}

fn in_memory() -> Db {
    let options = Options {
        memory: true,
        ..key_value()
    };
    Db::open("", &options).expect("it opens")
}

fn open(storage: &Arc<MemoryStorage>) -> Db {
    Db::open_on(Arc::clone(storage) as Arc<dyn Storage>, &key_value()).expect("it opens")
}

/// Commits of one record each that put and delete; some ids end deleted.
fn write_some(db: &Db, rounds: std::ops::Range<u8>) {
    for round in rounds {
        for id in 1..6 {
            db.set(id, &[round, id as u8]).expect("a set");
        }
        db.set(10 + u32::from(round), b"for a while").expect("set");
        db.delete(10 + u32::from(round)).expect("a deletion");
        db.delete(5).expect("a deletion");
    }
}

#[test]
fn what_was_kept_arrives_with_its_commits_and_times() {
    for keep in 0..4 {
        for known in [0, 1, 7, 20, 31] {
            let (sender, whole, copy) = (in_memory(), in_memory(), in_memory());
            write_some(&sender, 0..4);
            catch_up(&sender, &whole, usize::MAX);
            while last_commit(&copy) < known {
                let (chunk, _) = sender.changes(last_commit(&copy), 0).expect("changes");
                copy.apply(&chunk).expect("they fit");
            }
            compact(&sender, &keep_versions(keep));
            assert_eq!(catch_up(&sender, &copy, usize::MAX), 1);
            assert_eq!(last_commit(&copy), last_commit(&sender));
            compare(&whole, &copy).expect("the same");
            has_kept_versions(&sender, &copy);
            // From here on they are changes as before.
            write_some(&sender, 4..6);
            catch_up(&sender, &whole, usize::MAX);
            catch_up(&sender, &copy, 300);
            compare(&whole, &copy).expect("the same");
            has_kept_versions(&sender, &copy);
        }
    }
}

/// What the sender doesn't know any more goes, and nothing else; also if nothing is left at all.
#[test]
fn what_is_gone_is_deleted_with_the_last_commit() {
    let (sender, copy) = (in_memory(), in_memory());
    sender
        .set_many(&[(1, b"one"), (2, b"two"), (9, b"nine")])
        .expect("set");
    catch_up(&sender, &copy, usize::MAX);
    sender.delete(2).expect("a deletion");
    compact(&sender, &keep_versions(0));
    catch_up(&sender, &copy, usize::MAX);
    assert_eq!((copy.count().expect("a count"), last_commit(&copy)), (2, 2));
    let time = sender.stats().expect("figures").last_time_us;
    assert_eq!(history(&copy, 2)[0], (2, time, None));
    assert_eq!(history(&copy, 1).len(), 1);
    sender.delete_many(&[1, 9]).expect("deletions");
    compact(&sender, &keep_versions(0));
    let fresh = in_memory();
    for copy in [&copy, &fresh] {
        catch_up(&sender, copy, usize::MAX);
        assert_eq!((copy.count().expect("a count"), last_commit(copy)), (0, 3));
    }
    assert_eq!(fresh.next_id().ok(), sender.next_id().ok());
    // Nothing was left for it to write.
    assert_eq!(fresh.stats().expect("figures").versions, 0);
    sender.set(9, b"again").expect("set");
    catch_up(&sender, &fresh, usize::MAX);
    assert_eq!(fresh.get(9).expect("it is there"), b"again");
}

/// What was live at the end of a difference, deleted after it and erased since: the commit that deletes
/// it comes to who has it no more, or never had it, and the erasure reaches all.
#[test]
fn what_was_erased_since_is_deleted_and_erased_there_too() {
    for delete in [0, 1, 2] {
        let sender = in_memory();
        let copies = [in_memory(), in_memory(), in_memory()];
        sender.set(1, b"one").expect("a set");
        sender.set(2, b"two").expect("a set");
        for copy in &copies[1..] {
            catch_up(&sender, copy, usize::MAX);
        }
        sender.set(3, b"three").expect("a set");
        compact(&sender, &keep_versions(1));
        match delete {
            0 => sender.delete(1).expect("a deletion"),
            1 => sender.delete_many(&[1, 2]).expect("deletions"),
            _ => {
                sender.delete(1).expect("a deletion");
                sender.revert(1, 3).expect("a revert");
            }
        }
        sender.erase(1).expect("an erasure");
        sender.set(1, b"anew").expect("a set");
        for (index, copy) in copies.iter().enumerate() {
            let step = |copy: &Db| {
                let (chunk, upto) = sender.changes(last_commit(copy), 0).expect("changes");
                copy.apply(&chunk).expect("they fit");
                upto
            };
            while step(copy) < last_commit(&sender) {
                if index == 2 {
                    compact(copy, &keep_versions(1));
                }
            }
            assert_eq!(history(copy, 1), history(&sender, 1));
            assert_eq!(copy.count().ok(), sender.count().ok());
        }
    }
}

/// A part is no longer than asked for, unless one commit is, and each ends with a commit from where
/// it goes on, over crashes, reopenings from the log alone, and another compaction in between.
#[test]
fn parts_are_applied_one_by_one() {
    for again in [false, true] {
        for max in [0, 1, 130, 200, 500, 2000] {
            let (sender, whole) = (in_memory(), in_memory());
            let storage = Arc::new(MemoryStorage::new());
            let mut copy = open(&storage);
            write_some(&sender, 0..2);
            catch_up(&sender, &copy, usize::MAX);
            write_some(&sender, 2..5);
            catch_up(&sender, &whole, usize::MAX);
            compact(&sender, &keep_versions(3));
            let mut goal = last_commit(&sender);
            let mut parts = 0;
            loop {
                let since = last_commit(&copy);
                let (chunk, upto) = sender.changes(since, max).expect("changes");
                if chunk.is_empty() {
                    break;
                }
                copy.apply(&chunk).expect("it fits");
                parts += 1;
                assert_eq!(last_commit(&copy), upto);
                let between = is_between(&copy);
                assert!(chunk.len() <= max || max < 200, "{} of {max}", chunk.len());
                assert_eq!(between, upto < goal);
                // What is here already changes nothing.
                copy.apply(&chunk).expect("it is here");
                assert_eq!(last_commit(&copy), upto);
                if between {
                    let past = copy.snapshot_at(since);
                    assert!(matches!(past, Err(Error::NotFound(_))), "{past:?}");
                }
                copy = match parts % 3 {
                    0 => {
                        copy.close().expect("it closes");
                        open(&storage)
                    }
                    1 => {
                        drop(copy);
                        open(&storage)
                    }
                    _ => {
                        drop(copy);
                        let _ = storage.remove("index");
                        open(&storage)
                    }
                };
                assert_eq!((last_commit(&copy), is_between(&copy)), (upto, between));
                compare(&whole, &copy).expect("nothing else");
                if again && parts == 2 {
                    write_some(&sender, 5..7);
                    catch_up(&sender, &whole, usize::MAX);
                    compact(&sender, &keep_versions(1));
                    goal = last_commit(&sender);
                }
            }
            assert!(parts > 2 || max >= 500, "{parts} parts of {max}");
            assert_eq!(last_commit(&copy), last_commit(&sender));
            compare(&whole, &copy).expect("the same");
            write_some(&sender, 7..8);
            catch_up(&sender, &whole, usize::MAX);
            catch_up(&sender, &copy, max);
            compare(&whole, &copy).expect("the same");
        }
    }
}

/// The log of a compacted copy goes on with a commit that is not the next one, and what the copy
/// gives out is the same after it was opened again.
#[test]
fn a_log_may_begin_with_a_gap() {
    for meanwhile in [false, true] {
        let (sender, whole) = (in_memory(), in_memory());
        let storage = Arc::new(MemoryStorage::new());
        let copy = open(&storage);
        write_some(&sender, 0..2);
        catch_up(&sender, &copy, usize::MAX);
        let known = last_commit(&copy);
        write_some(&sender, 2..4);
        catch_up(&sender, &whole, usize::MAX);
        compact(&sender, &keep_versions(1));
        let (chunk, _) = sender.changes(known, usize::MAX).expect("changes");
        let mut given = Some(&chunk).filter(|_| meanwhile);
        let compacted = copy.compact(&keep_versions(0), |_, _| {
            if let Some(chunk) = given.take() {
                copy.apply(chunk).expect("it fits");
            }
            ControlFlow::Continue(())
        });
        compacted.expect("a compaction");
        copy.apply(&chunk).expect("it fits");
        let all = |copy: &Db| {
            let since = (0..=last_commit(copy)).map(|since| copy.changes(since, 300));
            since
                .map(|given| given.expect("changes"))
                .collect::<Vec<_>>()
        };
        let before = all(&copy);
        drop(copy);
        let copy = open(&storage);
        assert_eq!(all(&copy), before);
        compare(&whole, &copy).expect("the same");
        let third = in_memory();
        catch_up(&copy, &third, 300);
        compare(&whole, &third).expect("the same");
    }
}

/// Between two states only what leads to the end is taken.
#[test]
fn between_two_states_other_changes_are_refused() {
    let (sender, whole, copy) = (in_memory(), in_memory(), in_memory());
    write_some(&sender, 0..3);
    catch_up(&sender, &whole, usize::MAX);
    let earlier = in_memory();
    catch_up(&sender, &earlier, usize::MAX);
    compact(&earlier, &keep_versions(1));
    write_some(&sender, 3..5);
    catch_up(&sender, &whole, usize::MAX);
    compact(&sender, &keep_versions(2));
    let (chunk, upto) = sender.changes(0, 200).expect("changes");
    copy.apply(&chunk).expect("it fits");
    assert!(is_between(&copy) && upto < 24);
    for other in [&whole, &earlier] {
        let (chunk, _) = other.changes(upto, usize::MAX).expect("changes");
        let refused = copy.apply(&chunk);
        assert!(
            matches!(refused, Err(Error::Incompatible(_))),
            "{refused:?}"
        );
        assert_eq!(last_commit(&copy), upto);
    }
    catch_up(&sender, &copy, 300);
    compare(&whole, &copy).expect("the same");
}

/// A difference of another database, as far as it can be told.
#[test]
fn a_difference_of_another_database_is_refused() {
    let (sender, copy) = (in_memory(), in_memory());
    write_some(&copy, 0..1);
    std::thread::sleep(std::time::Duration::from_millis(2));
    write_some(&sender, 0..2);
    compact(
        &sender,
        &Retention {
            keep_since_commit: 1,
            ..Retention::default()
        },
    );
    for max in [0, usize::MAX] {
        for since in 0..=last_commit(&copy) {
            let (chunk, upto) = sender.changes(since, max).expect("changes");
            if upto < last_commit(&copy) && max == 0 {
                continue;
            }
            let refused = copy.apply(&chunk);
            assert!(
                matches!(refused, Err(Error::Incompatible(_))),
                "{refused:?}"
            );
        }
    }
    // One that ends before what is here began.
    std::thread::sleep(std::time::Duration::from_millis(2));
    let later = in_memory();
    later.set(1, b"later").expect("set");
    sender.set(1, b"kept").expect("set");
    compact(&sender, &keep_versions(1));
    let (chunk, _) = sender.changes(1, 0).expect("changes");
    let refused = later.apply(&chunk);
    assert!(
        matches!(refused, Err(Error::Incompatible(_))),
        "{refused:?}"
    );
}

/// What is left of another history says nothing of the commits that are missing; but what there should be at
/// the end tells.
#[test]
fn a_difference_for_commits_that_the_sender_never_had_is_refused() {
    let set = |db: &Db, ids: std::ops::Range<u32>, value: &[u8]| {
        ids.for_each(|id| db.set(id, value).expect("a set"));
    };
    type Change<'a> = (&'a str, &'a dyn Fn(&Db));
    let own: [Change<'_>; 5] = [
        ("another value", &|db| set(db, 3..4, b"own")),
        ("a deletion", &|db| db.delete(4).expect("a deletion")),
        ("a clear", &|db| db.clear().expect("a clear")),
        ("the same value once more", &|db| set(db, 2..3, b"first")),
        ("an erasure", &|db| db.erase(1).expect("an erasure")),
    ];
    for (what, change) in own {
        let (sender, copy) = (in_memory(), in_memory());
        set(&sender, 0..5, b"first");
        catch_up(&sender, &copy, 0);
        change(&copy);
        (0..15).for_each(|_| set(&sender, 0..1, b"later"));
        compact(&sender, &keep_versions(1));
        let (changes, _) = sender
            .changes(last_commit(&copy), usize::MAX)
            .expect("changes");
        let refused = copy.apply(&changes);
        let is_refused = matches!(refused, Err(Error::Incompatible(_)));
        assert!(is_refused, "{what}: {refused:?}");
        assert_eq!(last_commit(&copy), 6, "{what}: nothing of it is applied");
    }
    // A record of its own that is not there at the end is deleted, and nothing of it is left to be wrong.
    let (sender, copy) = (in_memory(), in_memory());
    set(&sender, 0..5, b"first");
    catch_up(&sender, &copy, 0);
    set(&copy, 30..31, b"own");
    (0..15).for_each(|_| set(&sender, 0..1, b"later"));
    compact(&sender, &keep_versions(1));
    catch_up(&sender, &copy, usize::MAX);
    assert!(!copy.contains(30).expect("a look"));
}

/// A reader knows of an erasure by what it reads before it knows of it by a refresh.
#[test]
fn a_reader_that_is_behind_an_erasure_gives_a_difference_that_fits() {
    for io in [IoMode::Map, IoMode::File] {
        let directory = TempDirectory::new();
        let db = Db::open(directory.path(), &key_value()).expect("it opens");
        write_some(&db, 0..3);
        compact(&db, &keep_versions(1));
        let reading = Options {
            read_only: true,
            io,
            ..Options::default()
        };
        let reader = Db::open(directory.path(), &reading).expect("a reader");
        catch_up(&reader, &in_memory(), usize::MAX);
        db.erase(3).expect("an erasure");
        let copy = in_memory();
        catch_up(&reader, &copy, usize::MAX);
        assert!(!copy.contains(3).expect("a look"), "{io:?}");
        reader.refresh().expect("a refresh");
        catch_up(&reader, &copy, usize::MAX);
        assert_eq!(last_commit(&copy), last_commit(&db));
    }
}

/// A receiver goes from a sender that has erased a record to one that doesn't know of that yet.
#[test]
fn a_sender_that_lacks_an_erasure_may_go_on() {
    let set = |db: &Db, ids: std::ops::Range<u32>, value: &[u8]| {
        ids.for_each(|id| db.set(id, value).expect("a set"));
    };
    for part in [0, usize::MAX] {
        let (ahead, behind, copy) = (in_memory(), in_memory(), in_memory());
        set(&ahead, 0..5, b"first");
        (0..5).for_each(|_| set(&ahead, 0..1, b"later"));
        compact(&ahead, &keep_versions(1));
        catch_up(&ahead, &behind, usize::MAX);
        (0..5).for_each(|_| set(&ahead, 0..1, b"more"));
        catch_up(&ahead, &behind, usize::MAX);
        compact(&behind, &keep_versions(1));
        ahead.erase(3).expect("an erasure");
        while last_commit(&copy) < 5 {
            let (changes, _) = ahead.changes(last_commit(&copy), part).expect("changes");
            copy.apply(&changes).expect("they fit");
        }
        catch_up(&behind, &copy, usize::MAX);
        catch_up(&ahead, &copy, usize::MAX);
        assert_eq!(last_commit(&copy), last_commit(&ahead));
        assert_eq!(history(&copy, 0)[0], history(&ahead, 0)[0]);
        assert!(!copy.contains(3).expect("a look"));
    }
}

/// One random commit.
fn write(db: &Db, random: &mut Random) {
    let id = |random: &mut Random| random.below(u64::from(IDS)) as u32;
    let value = |random: &mut Random| vec![random.next() as u8; random.below(60) as usize];
    let written = match random.below(10) {
        0..4 => db.set(id(random), &value(random)),
        4..6 => {
            let values: Vec<_> = (0..1 + random.below(6))
                .map(|_| (id(random), value(random)))
                .collect();
            let records: Vec<_> = values.iter().map(|(id, value)| (*id, &value[..])).collect();
            db.set_many(&records)
        }
        6..9 => db.delete(id(random)),
        _ => {
            let live: Vec<u32> = (0..IDS).filter(|&id| db.get(id).is_ok()).collect();
            let some = live.into_iter().filter(|_| random.chance(40));
            db.delete_many(&some.collect::<Vec<_>>())
        }
    };
    match written {
        Ok(()) | Err(Error::NotFound(_)) => {}
        Err(error) => panic!("a commit: {error}"),
    }
}

fn any_retention(db: &Db, random: &mut Random) -> Retention {
    Retention {
        keep_versions: random.below(4),
        keep_since_us: 0,
        keep_since_commit: match random.chance(50) {
            true => 1 + random.below(last_commit(db) + 1),
            false => 0,
        },
    }
}

fn side(random: &mut Random) -> Side {
    let options = Options {
        file_size: [1, 200, 1500, 0][random.below(4) as usize],
        native: random.chance(50),
        sync: any_sync(random),
        ..key_value()
    };
    Side::new(options, random)
}

/// Goes on with a backup of it in its place.
fn become_backup(side: &mut Side, random: &mut Random) {
    let storage = SimStorage::new(Disk::new(), random.chance(70), random.next());
    let made = side
        .db()
        .backup_to(Arc::new(storage.clone()), |_, _| ControlFlow::Continue(()));
    made.expect("a backup");
    side.db = None;
    side.storage = storage;
}

/// A random life of a database, a copy of it, and a copy that is fed by either of them.
fn live(seed: u64) -> Verdict {
    let mut random = Random::new(seed);
    let whole = in_memory();
    let mut sides: Vec<Side> = (0..3).map(|_| side(&mut random)).collect();
    for step in 0..40 + random.below(80) {
        let said = |message: String| format!("step {step}: {message}");
        let which = random.below(3) as usize;
        match random.below(20) {
            // What was given out and then lost would be another history.
            0 | 1 => sides[which].restart(&mut random, which > 0),
            2 => {
                catch_up(sides[0].db(), &whole, usize::MAX);
                let given = match which {
                    0 => Vec::new(),
                    _ => {
                        let since = last_commit(sides[which].db());
                        let given = sides[0].db().changes(since, 400);
                        given.map_err(|error| said(error.to_string()))?.0
                    }
                };
                let db = sides[which].db();
                let retention = any_retention(db, &mut random);
                let mut meanwhile = random.chance(50);
                let compacted = db.compact(&retention, |_, _| {
                    if std::mem::take(&mut meanwhile) {
                        match which {
                            0 => (0..3).for_each(|_| write(db, &mut random)),
                            // Refused, it changes nothing.
                            _ => drop(db.apply(&given)),
                        }
                    }
                    ControlFlow::Continue(())
                });
                compacted.map_err(|error| said(error.to_string()))?;
                catch_up(sides[0].db(), &whole, usize::MAX);
                compare(&whole, sides[which].db()).map_err(said)?;
            }
            3 if which > 0 => become_backup(&mut sides[which], &mut random),
            4..10 if which > 0 => {
                let from = random.below(which as u64) as usize;
                let since = last_commit(sides[which].db());
                let max = [0, 1, 150, 400, 3000, usize::MAX][random.below(6) as usize];
                let given = sides[from].db().changes(since, max);
                let (chunk, upto) = given.map_err(|error| said(error.to_string()))?;
                catch_up(sides[0].db(), &whole, usize::MAX);
                let copy = sides[which].db();
                let applied = copy.apply(&chunk);
                match applied {
                    Ok(()) => {
                        let now = last_commit(copy);
                        require!(now == upto.max(since), "step {step}: {now} after {upto}");
                    }
                    // What came from the one is not what the other goes on with.
                    Err(Error::Incompatible(_)) if which == 2 && is_between(copy) => {}
                    Err(error) => return Err(said(format!("{which} from {from}: {error}"))),
                }
                compare(&whole, copy).map_err(said)?;
            }
            _ => write(sides[0].db(), &mut random),
        }
    }
    let (first, others) = sides.split_at_mut(1);
    let sender = first[0].db();
    catch_up(sender, &whole, usize::MAX);
    catch_up(sender, others[0].db(), 500);
    let (second, third) = others.split_at_mut(1);
    let copy = third[0].db();
    let (chunk, _) = sender
        .changes(last_commit(copy), 500)
        .map_err(|e| e.to_string())?;
    if is_between(copy) && matches!(copy.apply(&chunk), Err(Error::Incompatible(_))) {
        // It was the other one that gave the part before.
        catch_up(second[0].db(), copy, 500);
    }
    for copy in others {
        catch_up(sender, copy.db(), 500);
        compare(&whole, copy.db())?;
        copy.restart(&mut random, false);
        compare(&whole, copy.db())?;
        let (next, copied) = (sender.stats(), copy.db().stats());
        let next = [next, copied].map(|stats| stats.expect("figures").next_id);
        require!(next[0] == next[1], "the next ids are {next:?}");
    }
    Ok(())
}

#[test]
fn a_copy_ends_as_what_it_copies_whatever_is_dropped() {
    for seed in 0..u64::from(cases(400)) {
        live(seed).unwrap_or_else(|message| panic!("seed {seed}: {message}"));
    }
}

/// The number of a data file is used again where a compaction has left none and the database is opened anew:
/// who is behind must not take the one for the other.
#[test]
fn a_reader_that_is_behind_gives_nothing_out_of_files_of_the_same_numbers() {
    let sender = in_memory();
    write_some(&sender, 0..5);
    compact(&sender, &keep_versions(1));
    for is_difference in [true, false] {
        let storage = Arc::new(MemoryStorage::new());
        let copy = open(&storage);
        match is_difference {
            true => drop(catch_up(&sender, &copy, usize::MAX)),
            false => write_some(&copy, 0..5),
        }
        let read_only = Options {
            read_only: true,
            ..Options::default()
        };
        let reader = Db::open_on(Arc::clone(&storage) as Arc<dyn Storage>, &read_only);
        let reader = reader.expect("a reader");
        copy.clear().expect("a clear");
        compact(&copy, &keep_versions(0));
        copy.close().expect("a close");
        let copy = open(&storage);
        write_some(&copy, 0..9);
        for since in 0..last_commit(&reader) {
            let given = reader.changes(since, usize::MAX).map(|(chunk, _)| chunk);
            assert!(
                matches!(given, Err(Error::Busy { .. })),
                "{is_difference}, {since}: {given:?}"
            );
        }
    }
}

/// Who was opened to salvage what there is gives out nothing that isn't whole: a follower would delete
/// what is missing, and count as up to date.
#[test]
fn what_a_salvaged_database_has_lost_is_no_change() {
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Damage {
        Missing,
        Value,
    }
    for (is_compacted, damage) in [
        (true, Damage::Missing),
        (true, Damage::Value),
        (false, Damage::Missing),
        (false, Damage::Value),
    ] {
        let what = format!("compacted: {is_compacted}, {damage:?}");
        let directory = TempDirectory::new();
        let options = Options {
            key_value: true,
            native: true,
            file_size: 1,
            ..Options::default()
        };
        let db = Db::open(directory.path(), &options).expect("a new database");
        for id in 1..=5 {
            db.set(id, format!("value {id}").as_bytes()).expect("a set");
        }
        let follower = Db::open_on(Arc::new(MemoryStorage::new()), &options).expect("a copy");
        catch_up(&db, &follower, 0);
        for id in 1..=4 {
            db.set(id, format!("newer {id}").as_bytes()).expect("a set");
        }
        if is_compacted {
            compact(&db, &keep_versions(1));
        }
        db.set(9, b"after").expect("a set");
        let before = last_commit(&db) - 1;
        db.close().expect("a close");

        let files = std::fs::read_dir(directory.path()).expect("a directory");
        let mut paths = files.map(|file| file.expect("a file").path());
        let (path, mut bytes, at) = paths
            .find_map(|path| {
                let bytes = std::fs::read(&path).expect("a file");
                let at = bytes.windows(7).position(|bytes| bytes == b"newer 3")?;
                Some((path, bytes, at))
            })
            .expect("a data file");
        match damage {
            Damage::Missing => std::fs::remove_file(path).expect("to be removed"),
            Damage::Value => {
                bytes[at] ^= 1;
                std::fs::write(path, bytes).expect("to be written");
            }
        }
        let salvage = Options {
            salvage: true,
            ..Options::default()
        };
        let salvaged = Db::open(directory.path(), &salvage).expect("what there is");
        for mut since in [0, last_commit(&follower)] {
            let given = loop {
                match salvaged.changes(since, 0) {
                    Ok((_, upto)) if upto > since && upto < before - 1 => since = upto,
                    given => break given,
                }
            };
            let is_refused = match is_compacted {
                true => matches!(given, Err(Error::Incompatible { .. })),
                false => matches!(given, Err(Error::Corrupt { .. })),
            };
            assert!(is_refused, "{what}, since {since}: {given:?}");
        }
        // What comes after what is lost is whole.
        let (changes, upto) = salvaged.changes(before, 0).expect("the last commit");
        assert_eq!((changes.is_empty(), upto), (false, before + 1), "{what}");
    }
}
