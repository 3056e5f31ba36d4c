//! Readers beside a writer, and several writers, wherever a database can be: a short form of the
//! campaign `readers` of tests/torture, and what several writers leave.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::TempDirectory;
use crate::support::readers::{EndOnDrop, Place, Readers};
use crate::support::script::{Script, stamp_of, stamped};
use ourdb::{Db, Options, State, Sync};

/// Runs a test in each place.
fn everywhere(key_value: bool, test: impl Fn(&str, &Db)) {
    let options = Options {
        key_value,
        file_size: 40_000,
        ..Options::default()
    };
    for place in Place::ALL {
        let (db, _directory) = place.open(&options);
        test(place.name, &db);
    }
}

#[test]
fn readers_find_what_was_committed() {
    let script = Script::new(0, 400);
    let readers = Readers {
        count: 4,
        most_reads: u64::MAX,
        seed: 0,
    };
    everywhere(true, |name, db| {
        let read = readers.beside_a_writer(db, &script);
        let records = read.unwrap_or_else(|message| panic!("{name}: {message}"));
        assert!(records > 0, "{name}: nobody read anything");
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
            let reader = scope.spawn(move || {
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
            let end = EndOnDrop(done);
            for writer in writers {
                let (mine, made) = writer
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                all.extend(mine);
                commits += made;
            }
            drop(end);
            // ThreadSanitizer doesn't see that a scope waits for its threads.
            reader
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
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

#[test]
fn neighbours_are_those_of_one_moment() {
    const LOW: u32 = 1;
    const HIGH: u32 = 1900;
    const COMMITS: u32 = 6_000;
    everywhere(true, |name, db| {
        db.set(HIGH, b"here").unwrap();
        let move_from = |from, to| {
            let mut txn = db.begin().unwrap();
            txn.set(to, b"here").unwrap();
            txn.delete(from).unwrap();
            txn.commit().unwrap();
        };
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let look = || {
                while !done.load(Ordering::Relaxed) {
                    for found in [db.first(), db.last(), db.above(0), db.below(1999)] {
                        let id = found.unwrap_or_else(|error| panic!("{name}: {error}"));
                        assert!(id == LOW || id == HIGH, "{name}: {id}");
                    }
                }
            };
            let readers = [scope.spawn(look), scope.spawn(look)];
            for _ in 0..COMMITS / 2 {
                move_from(HIGH, LOW);
                move_from(LOW, HIGH);
            }
            done.store(true, Ordering::Relaxed);
            for reader in readers {
                reader.join().unwrap();
            }
        });
    });
}

/// Calls that find nothing to do wait for the sync of what others did, with no lock that an erasure, and
/// so everybody, waits for.
#[test]
fn answers_that_wait_for_a_sync_hold_nobody_up() {
    const TIME: Duration = Duration::from_secs(3);
    let directory = TempDirectory::new();
    let options = Options {
        key_value: true,
        native: true,
        record_nr_max: 200,
        sync: Sync::Commit,
        ..Options::default()
    };
    let db = Arc::new(Db::open(directory.path(), &options).expect("a new database"));
    db.set(1, b"one").expect("set");
    let at = db.last_commit().expect("a commit");
    let calls: [fn(&Db, u64); 4] = [
        |db, at| drop(db.revert_all(at)),
        |db, _| {
            let _ = db.set(9, b"nine");
            let _ = db.delete(9);
        },
        |db, _| {
            let txn = db.begin().expect("begin");
            let _ = txn.get(7);
            txn.commit().expect("nobody writes it");
        },
        |db, _| {
            let _ = db.set(11, b"eleven");
            let _ = db.erase(11);
        },
    ];
    let (ended, ends) = std::sync::mpsc::channel();
    for call in calls {
        let (db, ended) = (Arc::clone(&db), ended.clone());
        std::thread::spawn(move || {
            let began = Instant::now();
            while began.elapsed() < TIME {
                call(&db, at);
            }
            ended.send(()).expect("somebody waits");
        });
    }
    for _ in calls {
        let end = ends.recv_timeout(Duration::from_secs(60));
        end.expect("threads wait for each other for ever");
    }
}
