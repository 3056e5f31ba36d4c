//! Readers beside a writer, and several writers: every value verifies itself, a list of records is
//! of one moment, and nobody sees time go back.
//!
//! Each test runs for a fixed number of writes, on storage in memory, on disk through mappings, on
//! disk by system calls, and with the lookup on disk; data files are short, so that readers meet
//! many roll-overs.

mod support;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;

use ourdb::error::{Error, NotFound};
use ourdb::storage::memory::MemoryStorage;
use ourdb::storage::os::OsStorage;
use ourdb::{Db, IoMode, LookupKind, Options, State, Sync};
use support::{Random, TempDirectory, Verdict, refute, require};

/// Ends the readers when the writer is through, or has panicked.
struct EndOnDrop<'a>(&'a AtomicBool);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Runs a test on each kind of storage.
fn everywhere(key_value: bool, test: impl Fn(&str, &Db)) {
    let options = Options {
        key_value,
        file_size: 40_000,
        ..Options::default()
    };
    let memory = Arc::new(MemoryStorage::new());
    let db = Db::open_on(memory, &options).expect("a database in memory opens");
    test("in memory", &db);
    for (name, io, lookup, sync) in [
        ("mapped", IoMode::Map, LookupKind::Memory, Sync::Os),
        (
            "by system calls",
            IoMode::File,
            LookupKind::Memory,
            Sync::Os,
        ),
        ("lookup on disk", IoMode::Map, LookupKind::Disk, Sync::Os),
        (
            "synced in the background",
            IoMode::Auto,
            LookupKind::Memory,
            Sync::Interval(1),
        ),
    ] {
        let directory = TempDirectory::new();
        let options = Options {
            io,
            lookup,
            sync,
            ..options.clone()
        };
        let storage = Arc::new(OsStorage::new(directory.path(), io));
        let db = Db::open_on(storage, &options)
            .unwrap_or_else(|error| panic!("{name}: a new database does not open: {error}"));
        test(name, &db);
    }
}

/// A value that says which record it is of and when it was written, filled up to a length that
/// depends on both with bytes that depend on both.
fn stamped(id: u32, stamp: u64) -> Vec<u8> {
    let mut random = Random::new(u64::from(id) << 40 ^ stamp);
    let len = random.below(300) as usize;
    let mut value = Vec::with_capacity(20 + len);
    value.extend_from_slice(&id.to_le_bytes());
    value.extend_from_slice(&stamp.to_le_bytes());
    while value.len() < 12 + len {
        value.push(random.next() as u8);
    }
    value
}

/// The stamp of a value, which must be one of record `id`, in full.
fn stamp_of(id: u32, value: &[u8]) -> Verdict<u64> {
    let stamp = value
        .get(4..12)
        .and_then(|bytes| bytes.try_into().ok())
        .map(u64::from_le_bytes);
    match stamp {
        Some(stamp) if value == stamped(id, stamp) => Ok(stamp),
        _ => refute!(
            "id {id}: {} bytes that were never written to it, beginning with {:02x?}",
            value.len(),
            &value[..value.len().min(16)]
        ),
    }
}

fn get_stamp(db: &Db, id: u32) -> Verdict<u64> {
    db.get_with(id, |value| stamp_of(id, value))
        .map_err(|error| format!("get({id}): {error}"))?
}

const GROUP: u32 = 12;

fn write_group(db: &Db, stamp: u64) -> Result<(), Error> {
    let values: Vec<(u32, Vec<u8>)> = (0..GROUP).map(|id| (id, stamped(id, stamp))).collect();
    let records: Vec<(u32, &[u8])> = values.iter().map(|(id, value)| (*id, &value[..])).collect();
    db.set_many(&records)
}

/// Single reads, in random order: whoever has seen a commit in one record sees it in all.
fn read_singly(db: &Db, reader: u64, done: &AtomicBool) -> Verdict {
    let mut random = Random::new(reader);
    let mut seen = (0, 0);
    let mut last_commit = 0;
    while !done.load(Ordering::Acquire) {
        let id = random.below(u64::from(GROUP)) as u32;
        let stamp = get_stamp(db, id)?;
        require!(
            stamp >= seen.1,
            "id {id} has stamp {stamp}, after id {} was read with stamp {} of the same commit",
            seen.0,
            seen.1
        );
        seen = (id, stamp);
        let commit = db.last_commit().map_err(|error| error.to_string())?;
        require!(
            commit >= last_commit,
            "last_commit() went from {last_commit} to {commit}"
        );
        require!(
            commit >= stamp,
            "stamp {stamp} was read, and then last_commit() is {commit}"
        );
        last_commit = commit;
    }
    Ok(())
}

/// Lists of records: all of one commit.
fn read_together(db: &Db, reader: u64, done: &AtomicBool) -> Verdict {
    let mut random = Random::new(reader);
    let mut seen = 0;
    while !done.load(Ordering::Acquire) {
        let mut ids: Vec<u32> = (0..GROUP).collect();
        // Another order each time, and one that isn't there.
        ids.rotate_left(random.below(u64::from(GROUP)) as usize);
        ids.push(GROUP + 1);
        let records = db
            .get_many(&ids)
            .map_err(|error| format!("get_many: {error}"))?;
        require!(
            records.len() == ids.len(),
            "get_many of {} gives {}",
            ids.len(),
            records.len()
        );
        let mut moments = BTreeSet::new();
        for (record, &id) in records.iter().zip(&ids) {
            require!(record.id == id, "asked for id {id}, got id {}", record.id);
            if id > GROUP {
                require!(
                    record.state == State::Missing,
                    "id {id} is {:?}",
                    record.state
                );
                continue;
            }
            require!(record.state == State::Live, "id {id} is {:?}", record.state);
            moments.insert((stamp_of(id, record.value)?, record.commit, record.time_us));
        }
        require!(
            moments.len() == 1,
            "(stamp, commit, time) in one get_many: {moments:?}"
        );
        let stamp = moments.first().map_or(0, |moment| moment.0);
        require!(
            stamp >= seen,
            "get_many went back from stamp {seen} to {stamp}"
        );
        seen = stamp;
    }
    Ok(())
}

/// Histories: without a gap, newest first, each version's value its own.
fn read_histories(db: &Db, reader: u64, done: &AtomicBool) -> Verdict {
    let mut random = Random::new(reader);
    while !done.load(Ordering::Acquire) {
        let id = random.below(u64::from(GROUP)) as u32;
        let at_least = get_stamp(db, id)?;
        let history = db
            .history(id, 20)
            .map_err(|error| format!("history({id}): {error}"))?;
        let mut stamps = Vec::new();
        for record in history.iter() {
            let stamp = stamp_of(id, record.value)?;
            require!(
                record.commit == stamp,
                "id {id}: stamp {stamp} is in the version of commit {}",
                record.commit
            );
            stamps.push(stamp);
        }
        let newest = stamps.first().copied().unwrap_or(0);
        let whole: Vec<u64> = (1..=newest).rev().take(20).collect();
        require!(
            stamps == whole,
            "history({id}, 20) has the stamps {stamps:?}"
        );
        require!(
            newest >= at_least,
            "history({id}) begins at {newest}, read before: {at_least}"
        );
        let past = random.below(newest) + 1;
        let value = db
            .get_version(id, past)
            .map_err(|error| format!("get_version: {error}"))?;
        let found = stamp_of(id, &value)?;
        require!(found == past, "get_version({id}, {past}) has stamp {found}");
    }
    Ok(())
}

#[test]
fn readers_see_whole_commits_and_never_go_back() {
    everywhere(true, |name, db| {
        write_group(db, 1).expect("the first commit");
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let done = &done;
            let readers = [
                read_singly,
                read_singly,
                read_together,
                read_together,
                read_histories,
            ];
            for (reader, read) in readers.into_iter().enumerate() {
                scope.spawn(move || {
                    if let Err(message) = read(db, reader as u64, done) {
                        panic!("{name}, reader {reader}: {message}");
                    }
                });
            }
            let _end = EndOnDrop(done);
            for stamp in 2..=1500 {
                write_group(db, stamp)
                    .unwrap_or_else(|error| panic!("{name}: set_many with stamp {stamp}: {error}"));
            }
        });
    });
}

/// Even ids stay, odd ids come and go: walks are strictly monotone and meet every even id.
#[test]
fn walks_beside_a_writer_are_monotone_and_miss_nothing() {
    const TOP: u32 = 2000;
    type Walk = fn(&Db, u32) -> Result<u32, Error>;
    let walk = |db: &Db, up: bool| -> Verdict {
        let (step, mut at): (Walk, u32) = if up {
            (Db::above, 0)
        } else {
            (Db::below, u32::MAX)
        };
        let mut evens = 0;
        loop {
            let next = match step(db, at) {
                Ok(next) => next,
                Err(Error::NotFound(NotFound::Neighbour(_))) => break,
                Err(error) => refute!("from {at}: {error}"),
            };
            require!(
                if up { next > at } else { next < at },
                "from {at} the walk goes to {next}"
            );
            require!(
                next.abs_diff(at) <= 2 || at == u32::MAX,
                "from {at} to {next}, past an even id that is always there"
            );
            if next % 2 == 0 {
                evens += 1;
                let stamp = get_stamp(db, next)?;
                require!(
                    stamp == 1,
                    "id {next} has stamp {stamp} and was written once"
                );
            } else if let Err(error) = db.get_with(next, |value| stamp_of(next, value)) {
                // Gone since the step.
                require!(matches!(error, Error::NotFound(_)), "get({next}): {error}");
            }
            at = next;
        }
        let expected = if up { TOP / 2 } else { TOP / 2 + 1 };
        require!(
            evens == expected,
            "{evens} even ids were met, {expected} are there"
        );
        Ok(())
    };
    everywhere(true, |name, db| {
        let values: Vec<(u32, Vec<u8>)> = (0..=TOP)
            .step_by(2)
            .map(|id| (id, stamped(id, 1)))
            .collect();
        let records: Vec<(u32, &[u8])> =
            values.iter().map(|(id, value)| (*id, &value[..])).collect();
        db.set_many(&records).expect("the even ids");
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let done = &done;
            for reader in 0..4u64 {
                scope.spawn(move || {
                    while !done.load(Ordering::Acquire) {
                        if let Err(message) = walk(db, reader % 2 == 0) {
                            panic!("{name}, walker {reader}: {message}");
                        }
                    }
                });
            }
            let _end = EndOnDrop(done);
            let mut random = Random::new(1);
            for number in 0..4000u64 {
                let id = random.below(u64::from(TOP) / 2) as u32 * 2 + 1;
                let result = match db.contains(id) {
                    Ok(true) => db.delete(id),
                    Ok(false) => db.set(id, &stamped(id, number)),
                    Err(error) => Err(error),
                };
                result.unwrap_or_else(|error| panic!("{name}: write {number} of id {id}: {error}"));
            }
        });
        walk(db, true)
            .and_then(|()| walk(db, false))
            .unwrap_or_else(|message| {
                panic!("{name}, when all is quiet: {message}");
            });
    });
}

/// Several writers insert at once: no id twice, none lost, none out of order within a writer; a
/// batch has consecutive ids.
#[test]
fn writers_that_insert_at_once_lose_nothing() {
    const WRITERS: u64 = 6;
    const INSERTS: u64 = 400;
    everywhere(false, |name, db| {
        let begin = Barrier::new(WRITERS as usize + 1);
        let newest = AtomicU64::new(0);
        let done = AtomicBool::new(false);
        let mut all: Vec<(u32, Vec<u8>)> = Vec::new();
        let mut commits = 0;
        thread::scope(|scope| {
            let (begin, newest, done) = (&begin, &newest, &done);
            let writers: Vec<_> = (0..WRITERS)
                .map(|writer| {
                    scope.spawn(move || {
                        begin.wait();
                        let mut mine: Vec<(u32, Vec<u8>)> = Vec::new();
                        let mut commits = 0u64;
                        for number in 0..INSERTS {
                            let value = stamped(writer as u32, number);
                            let fail = |error| -> Vec<u32> {
                                panic!("{name}, writer {writer}, insert {number}: {error}")
                            };
                            let ids = if number % 10 == 0 {
                                let batch: [&[u8]; 3] = [&value, b"", &value];
                                let ids = db.insert_many(&batch).unwrap_or_else(fail);
                                assert_eq!(
                                    ids,
                                    [ids[0], ids[0] + 1, ids[0] + 2],
                                    "{name}: a batch"
                                );
                                ids
                            } else {
                                db.insert(&value).map(|id| vec![id]).unwrap_or_else(fail)
                            };
                            commits += 1;
                            for (place, &id) in ids.iter().enumerate() {
                                let value = if place == 1 {
                                    Vec::new()
                                } else {
                                    value.clone()
                                };
                                assert_eq!(
                                    db.get(id).ok().as_ref(),
                                    Some(&value),
                                    "{name}, writer {writer}: id {id} just after its insert"
                                );
                                mine.push((id, value));
                            }
                            newest.fetch_max(u64::from(mine[mine.len() - 1].0), Ordering::Release);
                        }
                        assert!(
                            mine.is_sorted_by_key(|(id, _)| *id),
                            "{name}: ids of writer {writer}"
                        );
                        (mine, commits)
                    })
                })
                .collect();
            scope.spawn(move || {
                begin.wait();
                while !done.load(Ordering::Acquire) {
                    let acknowledged = newest.load(Ordering::Acquire);
                    let count = db.count().expect("count");
                    let next = u64::from(db.next_id().expect("next_id"));
                    let last = db.last().map_or(0, u64::from);
                    assert!(
                        count >= acknowledged,
                        "{name}: count {count} < {acknowledged} inserted"
                    );
                    assert!(
                        next > acknowledged,
                        "{name}: next id {next}, {acknowledged} inserted"
                    );
                    assert!(
                        last >= acknowledged,
                        "{name}: last id {last} < {acknowledged} inserted"
                    );
                }
            });
            let _end = EndOnDrop(done);
            for writer in writers {
                let (mine, made) = writer
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                all.extend(mine);
                commits += made;
            }
        });
        all.sort();
        let ids: Vec<u32> = all.iter().map(|(id, _)| *id).collect();
        let expected: Vec<u32> = (1..=ids.len() as u32).collect();
        assert!(
            ids == expected,
            "{name}: the ids given out are not 1 to {}",
            ids.len()
        );
        assert_eq!(
            db.last_commit().expect("last_commit"),
            commits,
            "{name}: one commit for each call"
        );
        assert_eq!(db.count().expect("count"), ids.len() as u64, "{name}");
        for (id, value) in &all {
            assert_eq!(
                db.get(*id).ok().as_ref(),
                Some(value),
                "{name}: id {id} at the end"
            );
        }
    });
}

/// Writers on records of their own and on a shared one, some deleting: the histories hold every
/// write, in the order of the commits.
#[test]
fn writers_on_the_same_records_leave_every_version() {
    const WRITERS: u32 = 4;
    const ROUNDS: u64 = 300;
    const SHARED: u32 = 100;
    everywhere(true, |name, db| {
        thread::scope(|scope| {
            for writer in 0..WRITERS {
                scope.spawn(move || {
                    for round in 1..=ROUNDS {
                        let (own, shared) = (stamped(writer, round), stamped(writer, round));
                        let result = match round % 3 {
                            0 => db.set_many(&[(writer, &own[..]), (SHARED, &shared[..])]),
                            1 => db.set(writer, &own).and_then(|()| db.set(SHARED, &shared)),
                            _ => db.delete(writer).and_then(|()| db.set(SHARED, &shared)),
                        };
                        result.unwrap_or_else(|error| {
                            panic!("{name}, writer {writer}, round {round}: {error}")
                        });
                    }
                });
            }
        });
        for writer in 0..WRITERS {
            let history = db.history(writer, 0).expect("a history");
            let mut rounds: Vec<u64> = (1..=ROUNDS).rev().collect();
            for record in history.iter() {
                let round = rounds.remove(0);
                let right = match record.state {
                    State::Live => stamp_of(writer, record.value) == Ok(round),
                    state => state == State::Deleted && round % 3 == 2,
                };
                assert!(right, "{name}: id {writer}, round {round}: {record:?}");
            }
            assert!(
                rounds.is_empty(),
                "{name}: id {writer} lacks the rounds {rounds:?}"
            );
        }
        let shared = db.history(SHARED, 0).expect("a history");
        assert_eq!(
            shared.len() as u64,
            ROUNDS * u64::from(WRITERS),
            "{name}: the shared record"
        );
        let commits: Vec<u64> = shared.iter().map(|record| record.commit).collect();
        assert!(
            commits.is_sorted_by(|newer, older| newer > older),
            "{name}: order of commits"
        );
        let mut rounds = [ROUNDS; WRITERS as usize];
        for record in shared.iter() {
            let writer = record.value[0];
            let round = &mut rounds[usize::from(writer)];
            assert_eq!(
                stamp_of(u32::from(writer), record.value),
                Ok(*round),
                "{name}: the shared record, writer {writer}"
            );
            *round -= 1;
        }
    });
}
