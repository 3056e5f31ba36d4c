//! Changes: a database that is fed with the changes of another one is its copy, in every version,
//! commit and time, whatever happens on the way; and nothing but its changes gets in.

use std::ops::ControlFlow;
use std::sync::Arc;

use crate::support::herolib::{Herolib, Port, Settings};
use crate::support::side::{Side, any_sync};
use crate::support::sim::{Calls, Disk, Errno, Fault, Loss, Pages, SimStorage};
use crate::support::{Random, TempDirectory, Verdict, cases, require};
use ourdb::storage::Storage;
use ourdb::storage::memory::MemoryStorage;
use ourdb::{Db, Error, IoMode, LookupKind, Options, Retention, State, Sync};

/// Ids that the tests use are below this.
const IDS: u32 = 40;

/// A version: deleted or not, commit, time, value.
type Version = (bool, u64, u64, Vec<u8>);

/// The versions of a record up to commit `upto`, newest first.
fn history(db: &Db, id: u32, upto: u64) -> Verdict<Vec<Version>> {
    let records = match db.history(id, 0) {
        Ok(records) => records,
        Err(Error::NotFound(_)) => return Ok(Vec::new()),
        Err(error) => return Err(format!("history of {id}: {error}")),
    };
    let versions = records.iter().filter(|record| record.commit <= upto);
    let versions = versions.map(|record| {
        let deleted = record.state == State::Deleted;
        (
            deleted,
            record.commit,
            record.time_us,
            record.value.to_vec(),
        )
    });
    Ok(versions.collect())
}

/// Everything that can be seen of a database, next id and checks apart.
fn state(db: &Db) -> Verdict<(u64, u64, Vec<Vec<Version>>)> {
    let told = |error: Error| error.to_string();
    let histories = (0..IDS).map(|id| history(db, id, u64::MAX));
    Ok((
        db.last_commit().map_err(told)?,
        db.count().map_err(told)?,
        histories.collect::<Verdict<_>>()?,
    ))
}

/// Whether `copy` is what `db` was at the copy's last commit.
fn compare(db: &Db, copy: &Db) -> Verdict {
    let upto = copy.last_commit().map_err(|error| error.to_string())?;
    let mut live = 0;
    for id in 0..IDS {
        let (theirs, ours) = (history(db, id, upto)?, history(copy, id, u64::MAX)?);
        require!(
            theirs == ours,
            "id {id} as of commit {upto}: {theirs:?}, and the copy has {ours:?}"
        );
        live += u64::from(ours.first().is_some_and(|version| !version.0));
        let value = ours
            .first()
            .filter(|version| !version.0)
            .map(|version| &version.3);
        let read = copy.get(id).ok();
        require!(read.as_ref() == value, "id {id} is {read:?} in the copy");
    }
    let counted = copy.count().map_err(|error| error.to_string())?;
    require!(
        counted == live,
        "the copy counts {counted}, and {live} are live"
    );
    let report = copy
        .check(|_, _| ControlFlow::Continue(()))
        .map_err(|error| error.to_string())?;
    require!(report.is_sound(), "the copy: {report}");
    Ok(())
}

/// One random commit.
fn write(db: &Db, key_value: bool, random: &mut Random) -> Result<(), Error> {
    let longest = [3, 30, 300][random.below(3) as usize];
    let value = |random: &mut Random| vec![random.next() as u8; random.below(longest) as usize];
    let live = |db: &Db, random: &mut Random| {
        let from = random.below(u64::from(IDS)) as u32;
        db.above(from).or_else(|_| db.first()).ok()
    };
    match random.below(10) {
        0..3 if key_value => {
            let id = random.below(u64::from(IDS)) as u32;
            db.set(id, &value(random))
        }
        0..3 if db.next_id().is_ok_and(|id| id < IDS) => db.insert(&value(random)).map(drop),
        3 if key_value => {
            let count = 1 + random.below(6);
            let values: Vec<_> = (0..count)
                .map(|_| (random.below(u64::from(IDS)) as u32, value(random)))
                .collect();
            let records: Vec<_> = values.iter().map(|(id, value)| (*id, &value[..])).collect();
            db.set_many(&records)
        }
        3 if db.next_id().is_ok_and(|id| id + 5 < IDS) => {
            let values: Vec<_> = (0..1 + random.below(5)).map(|_| value(random)).collect();
            let values: Vec<_> = values.iter().map(|value| &value[..]).collect();
            db.insert_many(&values).map(drop)
        }
        4..6 => match live(db, random) {
            Some(id) => db.delete(id),
            None => Ok(()),
        },
        6 => {
            let ids: Vec<_> = (0..3).filter_map(|_| live(db, random)).collect();
            db.delete_many(&ids)
        }
        _ => match live(db, random) {
            Some(id) => db.set(id, &value(random)),
            None => Ok(()),
        },
    }
}

fn side(random: &mut Random, key_value: bool) -> Side {
    let pick =
        |random: &mut Random, sizes: &[u32]| sizes[random.below(sizes.len() as u64) as usize];
    let options = Options {
        key_value,
        native: random.chance(50),
        record_nr_max: IDS + pick(random, &[0, 1000]),
        file_size: pick(random, &[1, 200, 1500, 0]),
        sync: any_sync(random),
        ..Options::default()
    };
    Side::new(options, random)
}

/// A random life of a database and its copy.
fn live(seed: u64) -> Verdict {
    let mut random = Random::new(seed);
    let key_value = random.chance(50);
    let mode_of_copy = random.chance(50);
    let mut sender = side(&mut random, key_value);
    let mut copy = side(&mut random, mode_of_copy);
    copy.options.record_nr_max = sender.options.record_nr_max;
    // What was given out and then lost would be another history.
    let safe = sender.options.sync == Sync::Commit;
    let steps = 30 + random.below(60);
    let mut last_chunk = Vec::new();
    for step in 0..steps {
        let done = match random.below(20) {
            0 => {
                sender.restart(&mut random, safe);
                Ok(())
            }
            1 => {
                copy.restart(&mut random, true);
                Ok(())
            }
            2 => copy.db().apply(&last_chunk).or_else(|error| match error {
                // It had lost so much that the chunk doesn't follow any more.
                Error::Incompatible(_) => Ok(()),
                error => Err(error),
            }),
            3..7 => {
                let since = copy.db().last_commit().map_err(|error| error.to_string())?;
                let max = [0, 1, 100, 700, 5000, usize::MAX][random.below(6) as usize];
                let back = random.below(3).min(since);
                let (chunk, upto) = sender
                    .db()
                    .changes(since - back, max)
                    .map_err(|error| format!("step {step}: {error}"))?;
                let last = sender
                    .db()
                    .last_commit()
                    .map_err(|error| error.to_string())?;
                require!(upto <= last, "changes up to {upto}, and {last} is the last");
                require!(
                    chunk.is_empty() == (since - back == last),
                    "{} bytes",
                    chunk.len()
                );
                require!(
                    chunk.len() <= max || upto == since - back + 1,
                    "{} bytes for {max}, with {} commits",
                    chunk.len(),
                    upto - since + back
                );
                require!(
                    max < usize::MAX || upto == last,
                    "all, and it ends with {upto}"
                );
                let applied = copy.db().apply(&chunk);
                last_chunk = chunk;
                if applied.is_ok() {
                    let now = copy.db().last_commit().map_err(|error| error.to_string())?;
                    require!(now == upto.max(since), "the copy is at {now} after {upto}");
                    compare(sender.db(), copy.db())?;
                }
                applied
            }
            _ => write(sender.db(), key_value, &mut random),
        };
        done.map_err(|error| format!("step {step}: {error}"))?;
    }
    let catch_up = |sender: &Db, copy: &Db| -> Result<(), Error> {
        loop {
            let since = copy.last_commit()?;
            let (chunk, upto) = sender.changes(since, 1000)?;
            if chunk.is_empty() {
                return Ok(());
            }
            copy.apply(&chunk)?;
            assert_eq!(copy.last_commit()?, upto);
        }
    };
    catch_up(sender.db(), copy.db()).map_err(|error| error.to_string())?;
    copy.restart(&mut random, false);
    let (db, copied) = (sender.db(), copy.db());
    compare(db, copied)?;
    require!(
        db.last_commit().ok() == copied.last_commit().ok(),
        "the last commits differ"
    );
    if !db_is_key_value(db) && !db_is_key_value(copied) {
        let (next, copied) = (db.next_id().ok(), copied.next_id().ok());
        require!(
            next == copied,
            "next id {next:?}, and {copied:?} in the copy"
        );
    }
    Ok(())
}

fn db_is_key_value(db: &Db) -> bool {
    matches!(db.next_id(), Err(Error::WrongMode { .. }))
}

#[test]
fn a_fed_database_is_a_copy_whatever_happens() {
    for seed in 0..u64::from(cases(300)) {
        live(seed).unwrap_or_else(|message| panic!("seed {seed}: {message}"));
    }
}

/// The same on a real directory, with and without mappings, to and from read-only handles.
#[test]
fn a_copy_can_be_made_of_what_a_reader_sees() {
    for (io, lookup) in [
        (IoMode::Auto, LookupKind::Memory),
        (IoMode::File, LookupKind::Disk),
    ] {
        let (directory, copied) = (TempDirectory::new(), TempDirectory::new());
        let options = Options {
            key_value: true,
            io,
            lookup,
            file_size: 2000,
            ..Options::default()
        };
        let db = Db::open(directory.path(), &options).unwrap();
        let copy = Db::open(copied.path(), &options).unwrap();
        let mut random = Random::new(5);
        for _ in 0..10 {
            for _ in 0..20 {
                write(&db, true, &mut random).unwrap();
            }
            let read_only = Options {
                read_only: true,
                ..Options::default()
            };
            let reader = Db::open(directory.path(), &read_only).unwrap();
            let since = copy.last_commit().unwrap();
            let (chunk, upto) = reader.changes(since, usize::MAX).unwrap();
            assert_eq!(upto, db.last_commit().unwrap());
            let refused = reader.apply(&chunk);
            assert!(
                matches!(refused, Err(Error::ReadOnly { .. })),
                "{refused:?}"
            );
            reader.apply(&[]).unwrap();
            copy.apply(&chunk).unwrap();
            compare(&db, &copy).unwrap();
            write(&db, true, &mut random).unwrap();
            // A handle of the past has nothing to give to who knows more.
            let (chunk, last) = db.changes(upto, usize::MAX).unwrap();
            copy.apply(&chunk).unwrap();
            assert_eq!(
                reader.changes(last, usize::MAX).unwrap(),
                (Vec::new(), last)
            );
        }
        copy.close().unwrap();
        let copy = Db::open(copied.path(), &options).unwrap();
        compare(&db, &copy).unwrap();
    }
}

fn in_memory(key_value: bool) -> Db {
    let options = Options {
        key_value,
        memory: true,
        record_nr_max: IDS,
        record_size_max: 100,
        ..Options::default()
    };
    Db::open("", &options).unwrap()
}

/// Seven commits that put, set, delete and put again.
fn sender() -> Db {
    let db = in_memory(true);
    db.set(1, b"one").unwrap();
    db.set_many(&[(2, b"two"), (3, b""), (4, b"four")]).unwrap();
    db.set(1, b"uno").unwrap();
    db.delete(2).unwrap();
    db.set(2, b"due").unwrap();
    db.delete_many(&[1, 3]).unwrap();
    db.set(30, b"thirty").unwrap();
    db
}

/// A copy with the first commits of `db`.
fn copy_of(db: &Db, commits: u64) -> Db {
    let copy = in_memory(true);
    for since in 0..commits {
        let (chunk, upto) = db.changes(since, 0).unwrap();
        assert_eq!(
            upto,
            since + 1,
            "the first commit is given however long it is"
        );
        copy.apply(&chunk).unwrap();
    }
    copy
}

fn incompatible(result: Result<(), Error>, what: &str) {
    assert!(
        matches!(result, Err(Error::Incompatible(_))),
        "{what}: {result:?}"
    );
}

#[test]
fn changes_are_whole_commits_that_fit() {
    let db = sender();
    let (all, last) = db.changes(0, usize::MAX).unwrap();
    assert_eq!(last, 7);
    let lengths: Vec<usize> = (0..7)
        .map(|since| db.changes(since, 0).unwrap().0.len())
        .collect();
    let frame = 60;
    for max in 0..all.len() + 2 {
        let mut fits = lengths[0];
        let mut expected = 1;
        while expected < 7 && fits + lengths[expected] - frame <= max {
            fits += lengths[expected] - frame;
            expected += 1;
        }
        let (chunk, upto) = db.changes(0, max).unwrap();
        assert_eq!((chunk.len(), upto), (fits, expected as u64), "{max} bytes");
    }
    for since in 7..9 {
        assert_eq!(db.changes(since, 0).unwrap(), (Vec::new(), since));
    }
    assert_eq!(
        in_memory(false).changes(0, usize::MAX).unwrap(),
        (Vec::new(), 0)
    );
}

#[test]
fn what_is_here_already_changes_nothing() {
    let db = sender();
    let copy = copy_of(&db, 7);
    let before = state(&copy).unwrap();
    for since in 0..7 {
        for max in [0, 150, usize::MAX] {
            copy.apply(&db.changes(since, max).unwrap().0).unwrap();
            assert_eq!(state(&copy).unwrap(), before);
        }
    }
    compare(&db, &copy).unwrap();
    // Where changes overlap with what is here, the rest is applied.
    for known in 0..7 {
        for since in 0..=known {
            let copy = copy_of(&db, known);
            copy.apply(&db.changes(since, usize::MAX).unwrap().0)
                .unwrap();
            assert_eq!(
                state(&copy).unwrap(),
                before,
                "{known} known, changes since {since}"
            );
        }
    }
}

#[test]
fn a_gap_is_refused() {
    let db = sender();
    for known in 0..6 {
        let copy = copy_of(&db, known);
        let before = state(&copy).unwrap();
        for since in known + 1..7 {
            incompatible(
                copy.apply(&db.changes(since, usize::MAX).unwrap().0),
                "a gap",
            );
        }
        assert_eq!(state(&copy).unwrap(), before);
    }
}

#[test]
fn changes_of_another_database_are_refused() {
    let db = sender();
    // No two commits of the two at the same time.
    std::thread::sleep(std::time::Duration::from_millis(2));
    let other = sender();
    for known in 1..=7 {
        let copy = copy_of(&db, known);
        let before = state(&copy).unwrap();
        for since in 0..7 {
            for max in [0, 150, usize::MAX] {
                let (chunk, _) = other.changes(since, max).unwrap();
                incompatible(copy.apply(&chunk), "of another database");
            }
        }
        assert_eq!(state(&copy).unwrap(), before);
    }
    // So are those of the same database once the copy has gone its own way.
    let copy = copy_of(&db, 5);
    copy.set(9, b"my own").unwrap();
    incompatible(copy.apply(&db.changes(5, usize::MAX).unwrap().0), "a fork");
    incompatible(copy.apply(&db.changes(6, usize::MAX).unwrap().0), "a fork");
}

#[test]
fn every_flipped_bit_and_every_cut_is_refused() {
    let db = sender();
    let (chunk, _) = db.changes(2, usize::MAX).unwrap();
    let copy = copy_of(&db, 3);
    let before = state(&copy).unwrap();
    let refused = |bytes: &[u8], what: &str| {
        let result = copy.apply(bytes);
        assert!(
            matches!(result, Err(Error::Corrupt { .. } | Error::Incompatible(_))),
            "{what}: {result:?}"
        );
        assert_eq!(state(&copy).unwrap(), before, "{what}");
    };
    for bit in 0..chunk.len() * 8 {
        let mut flipped = chunk.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        refused(&flipped, &format!("bit {bit}"));
    }
    for len in 1..chunk.len() {
        refused(&chunk[..len], &format!("cut to {len}"));
        refused(&chunk[len..], &format!("without the first {len}"));
    }
    refused(&[&chunk[..], &chunk[..]].concat(), "twice in one");
    copy.apply(&chunk).unwrap();
    compare(&db, &copy).unwrap();
}

/// Kind, id and value of a record.
type Written = (u8, u32, Vec<u8>);

/// Changes as FORMAT.md has them, made without the library.
struct Chunk {
    since: u64,
    since_time_us: u64,
    next_id: u64,
    /// With their times.
    commits: Vec<(u64, Vec<Written>)>,
}

impl Chunk {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = b"OURDBCHG\x01\0\0\0\0\0\0\0".to_vec();
        let count = self.commits.len() as u64;
        for number in [
            self.since,
            self.since_time_us,
            self.since + count,
            self.next_id,
            count,
        ] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        for ((time_us, records), commit) in self.commits.iter().zip(self.since + 1..) {
            for number in [commit, *time_us, records.len() as u64] {
                bytes.extend_from_slice(&number.to_le_bytes());
            }
            for (kind, id, value) in records {
                bytes.extend_from_slice(&[*kind, 0, 0, 0]);
                bytes.extend_from_slice(&id.to_le_bytes());
                bytes.extend_from_slice(&(value.len() as u32).to_le_bytes());
                bytes.extend_from_slice(value);
            }
        }
        let crc = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes
    }
}

/// Sound bytes that do not fit the database, each after a commit that would fit.
#[test]
fn what_does_not_fit_is_refused_as_a_whole() {
    let db = in_memory(false);
    db.insert(b"one").unwrap();
    db.insert(b"two").unwrap();
    let time_us = db.history(2, 1).unwrap().get(0).unwrap().time_us;
    let before = state(&db).unwrap();
    let good = (
        time_us,
        vec![(1, 1, b"changed".to_vec()), (1, 9, b"new".to_vec())],
    );
    let chunk = |records: Vec<Written>| Chunk {
        since: 2,
        since_time_us: time_us,
        next_id: 10,
        commits: vec![good.clone(), (time_us + 1, records)],
    };
    let refused = |what: &str, chunk: &Chunk, expected: fn(&Error) -> bool| {
        let result = db.apply(&chunk.bytes());
        assert!(result.as_ref().is_err_and(expected), "{what}: {result:?}");
        assert_eq!(state(&db).unwrap(), before, "{what}");
        assert_eq!(db.next_id().unwrap(), 3, "{what}");
    };
    let damaged = |error: &Error| matches!(error, Error::Corrupt { .. });
    let unfit = |error: &Error| matches!(error, Error::Incompatible(_));
    let out_of_range = |error: &Error| matches!(error, Error::IdOutOfRange { .. });
    let too_long = |error: &Error| matches!(error, Error::RecordTooLarge { .. });

    refused(
        "an id at the limit",
        &chunk(vec![(1, IDS, vec![])]),
        out_of_range,
    );
    refused(
        "the highest id",
        &chunk(vec![(1, u32::MAX, vec![])]),
        out_of_range,
    );
    refused(
        "a deletion past the limit",
        &chunk(vec![(2, IDS, vec![])]),
        out_of_range,
    );
    refused("a long value", &chunk(vec![(1, 1, vec![7; 101])]), too_long);
    refused("a deletion of nothing", &chunk(vec![(2, 5, vec![])]), unfit);
    refused(
        "an id twice",
        &chunk(vec![(1, 1, vec![]), (1, 1, vec![])]),
        damaged,
    );
    refused(
        "put and deleted at once",
        &chunk(vec![(1, 1, vec![]), (2, 1, vec![])]),
        damaged,
    );
    for kind in [0, 3, 7, 8] {
        refused("an unknown kind", &chunk(vec![(kind, 1, vec![])]), unfit);
    }
    refused(
        "an erasure with a value",
        &chunk(vec![(4, 1, vec![7])]),
        damaged,
    );
    refused("a clear of an id", &chunk(vec![(6, 1, vec![])]), damaged);
    refused(
        "a clear and a deletion",
        &chunk(vec![(6, 0, vec![]), (2, 1, vec![])]),
        damaged,
    );
    let mut deleted_twice = chunk(vec![(2, 9, vec![])]);
    deleted_twice
        .commits
        .push((time_us + 1, vec![(2, 9, vec![])]));
    refused("deleted twice", &deleted_twice, unfit);
    let mut past = chunk(vec![(1, 1, vec![])]);
    past.commits[1].0 = time_us - 1;
    refused("a time that goes back", &past, damaged);
    let mut given_out = chunk(vec![(1, 1, vec![])]);
    given_out.next_id = u64::from(IDS) + 1;
    refused("a next id past the limit", &given_out, out_of_range);
    refused("no records", &chunk(vec![]), damaged);

    // And what does: a new id in an incremental database, deleted and put again.
    let mut good = chunk(vec![(2, 9, vec![]), (1, IDS - 1, vec![7; 100])]);
    good.commits
        .push((time_us + 1, vec![(1, 9, b"again".to_vec())]));
    good.next_id = u64::from(IDS);
    db.apply(&good.bytes()).unwrap();
    assert_eq!(db.last_commit().unwrap(), 5);
    assert_eq!(db.get(9).unwrap(), b"again");
    assert_eq!(history(&db, 9, u64::MAX).unwrap().len(), 3);
    assert!(matches!(db.insert(b"no id left"), Err(Error::Full(_))));
}

/// The sender's next id is the copy's, however far the copy is, and stays so after a crash.
#[test]
fn the_next_id_is_carried_over() {
    for close in [true, false] {
        let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
        let open = || Db::open_on(Arc::clone(&storage), &Options::default()).unwrap();
        let copy = open();
        copy.close().unwrap();
        let copy = open();
        let chunk = Chunk {
            since: 0,
            since_time_us: 0,
            next_id: 77,
            commits: vec![(5, vec![(1, 3, b"three".to_vec())])],
        };
        copy.apply(&chunk.bytes()).unwrap();
        assert_eq!(copy.next_id().unwrap(), 77);
        if close {
            copy.close().unwrap();
        } else {
            drop(copy);
        }
        let copy = open();
        assert_eq!(copy.next_id().unwrap(), 77);
        let chunk = Chunk {
            since: 1,
            since_time_us: 5,
            next_id: 99,
            commits: vec![(5, vec![(2, 3, vec![])])],
        };
        copy.apply(&chunk.bytes()).unwrap();
        drop(copy);
        // The checkpoint of the close, if there was one, has the older one.
        let copy = open();
        assert_eq!(copy.next_id().unwrap(), 99);
        assert_eq!(copy.insert(b"here").unwrap(), 99);
    }
}

/// A database in which herolib has put one record.
fn taken_over(directory: &TempDirectory) -> Db {
    let mut herolib = Herolib::open(directory.path(), Settings::DEFAULT, Port::V).unwrap();
    herolib.insert(b"herolib's");
    herolib.close();
    Db::open(directory.path(), &Options::default()).unwrap()
}

/// Changes of others are not applied over it, compacted or not.
#[test]
fn what_was_taken_over_and_compacted_takes_no_changes() {
    let directory = TempDirectory::new();
    let db = taken_over(&directory);
    let sender = sender();
    let commits = sender.changes(0, 0).unwrap().0;
    sender
        .compact(&Retention::default(), |_, _| ControlFlow::Continue(()))
        .unwrap();
    let states = sender.changes(0, 0).unwrap().0;
    for _ in 0..2 {
        incompatible(db.apply(&commits), "over a base");
        incompatible(db.apply(&states), "over a base");
        db.compact(&Retention::default(), |_, _| ControlFlow::Continue(()))
            .unwrap();
    }
    assert_eq!(db.get(1).unwrap(), b"herolib's");
    assert_eq!(db.last_commit().unwrap(), 0);
}

/// But a backup of it takes the difference of states that its sender gives out.
#[test]
fn a_backup_of_what_was_taken_over_and_compacted_goes_on_with_a_difference() {
    let go_on = |_, _| ControlFlow::Continue(());
    let (directory, backup) = (TempDirectory::new(), TempDirectory::new());
    let db = taken_over(&directory);
    db.compact(&Retention::default(), go_on).unwrap();
    db.backup(backup.path(), go_on).unwrap();
    db.insert(b"ours").unwrap();
    db.set(1, b"ours too").unwrap();
    db.compact(&Retention::default(), go_on).unwrap();
    let copy = Db::open(backup.path(), &Options::default()).unwrap();
    let mut since = 0;
    while since < 2 {
        let (changes, upto) = db.changes(since, usize::MAX).unwrap();
        copy.apply(&changes).unwrap();
        since = upto;
    }
    for id in 1..3 {
        assert_eq!(copy.get(id).unwrap(), db.get(id).unwrap());
    }
    assert_eq!(copy.count().unwrap(), 2);
}

#[test]
fn what_was_taken_over_is_not_in_the_changes() {
    let directory = TempDirectory::new();
    let db = taken_over(&directory);
    let nothing_to_give = |since| {
        let result = db.changes(since, usize::MAX).map(drop);
        incompatible(result, "changes from before the log");
    };
    nothing_to_give(0);
    let foreign = sender();
    incompatible(db.apply(&foreign.changes(0, 0).unwrap().0), "over a base");
    db.insert(b"ours").unwrap();
    nothing_to_give(0);
    db.set(1, b"both").unwrap();
    // A copy of the directory is a copy from there on.
    let copied = TempDirectory::new();
    for entry in std::fs::read_dir(directory.path()).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            std::fs::copy(entry.path(), copied.path().join(entry.file_name())).unwrap();
        }
    }
    let copy = Db::open(copied.path(), &Options::default()).unwrap();
    assert_eq!(copy.last_commit().unwrap(), 2);
    db.delete(1).unwrap();
    copy.apply(&db.changes(2, usize::MAX).unwrap().0).unwrap();
    compare(&db, &copy).unwrap();
    copy.apply(&db.changes(1, usize::MAX).unwrap().0).unwrap();
    assert_eq!(copy.last_commit().unwrap(), 3);
}

/// A database makes so many clears at most between two compactions; who follows it has no compactions.
#[test]
fn clears_of_long_are_applied_and_listed() {
    let options = Options {
        key_value: true,
        native: true,
        record_nr_max: IDS,
        ..Options::default()
    };
    let sender = in_memory(true);
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    let copy = Db::open_on(Arc::clone(&storage), &options).unwrap();
    let catch_up = || {
        while sender.last_commit().unwrap() > copy.last_commit().unwrap() {
            let (chunk, _) = sender
                .changes(copy.last_commit().unwrap(), 1 << 20)
                .unwrap();
            copy.apply(&chunk).unwrap();
        }
    };
    for _ in 0..2 {
        for _ in 0..4000 {
            sender.set(1, b"one").unwrap();
            sender.clear().unwrap();
        }
        catch_up();
        let go_on = |_, _| ControlFlow::Continue(());
        sender.compact(&Retention::default(), go_on).unwrap();
    }
    sender.set(1, b"another").unwrap();
    catch_up();
    copy.close().unwrap();
    let copy = Db::open_on(storage, &options).unwrap();
    assert_eq!(copy.get(1).unwrap(), b"another");
    let clears = copy.history(1, 0).unwrap();
    assert_eq!(clears.len(), 16_001);
}

/// With `Sync::Commit` only what is on disk is given out, and a chunk costs one sync.
#[test]
fn a_chunk_is_synced_once() {
    let options = Options {
        key_value: true,
        sync: Sync::Commit,
        ..Options::default()
    };
    let storage = SimStorage::new(Disk::new(), true, 3);
    let copy = Db::open_on(Arc::new(storage.clone()), &options).unwrap();
    copy.apply(&sender_chunk(0)).unwrap();
    let syncs = storage.calls(Calls::Syncing);
    copy.apply(&sender_chunk(1)).unwrap();
    assert_eq!(storage.calls(Calls::Syncing), syncs + 1);
    let left = storage.disk().lose_power(&Loss::OF_EVERYTHING);
    let left = SimStorage::new(left, true, 4);
    let after = Db::open_on(Arc::new(left), &options).unwrap();
    assert_eq!(state(&after).unwrap(), state(&copy).unwrap());
    assert_eq!(after.last_commit().unwrap(), 14);
    // What is appended and could not be synced is seen by nobody.
    storage.fail(Some(Fault {
        calls: Calls::Syncing,
        after: storage.calls(Calls::Syncing),
        errno: Errno::Io,
        sticky: true,
        partly: false,
        pages: Pages::Dirty,
    }));
    copy.set(1, b"not on disk").unwrap_err();
    storage.fail(None);
    assert_eq!(copy.changes(13, usize::MAX).unwrap().1, 14);
    assert_eq!(copy.changes(14, usize::MAX).unwrap(), (Vec::new(), 14));
}

/// Seven commits of a database without gaps, in chunks: the first seven, and the next.
fn sender_chunk(number: u64) -> Vec<u8> {
    let commits = (0..7).map(|commit| (100 + number, vec![(1, commit as u32, vec![number as u8])]));
    let chunk = Chunk {
        since: 7 * number,
        since_time_us: if number == 0 { 0 } else { 99 + number },
        next_id: 8,
        commits: commits.collect(),
    };
    chunk.bytes()
}

/// A full disk stops between two commits, and the same changes go on from there.
#[test]
fn each_commit_is_applied_as_a_whole_or_not_at_all() {
    let db = in_memory(true);
    for round in 0..10u8 {
        let values: Vec<_> = (0..8).map(|id| (id, vec![round; 90])).collect();
        let records: Vec<_> = values.iter().map(|(id, value)| (*id, &value[..])).collect();
        db.set_many(&records).unwrap();
    }
    let (chunk, _) = db.changes(0, usize::MAX).unwrap();
    for (sync, reserves) in [(Sync::Os, true), (Sync::Os, false), (Sync::Commit, false)] {
        let options = Options {
            key_value: true,
            native: true,
            sync,
            ..Options::default()
        };
        let mut partly = 0;
        for after in 0..40 {
            let storage = SimStorage::new(Disk::new(), reserves, after as u64);
            let copy = Db::open_on(Arc::new(storage.clone()), &options).unwrap();
            storage.fail(Some(Fault {
                calls: Calls::Changing,
                after: storage.calls(Calls::Changing) + after,
                errno: Errno::NoSpace,
                sticky: true,
                partly: true,
                pages: Pages::Dirty,
            }));
            let applied = copy.apply(&chunk);
            storage.fail(None);
            let Err(error) = applied else {
                assert_eq!(copy.last_commit().unwrap(), 10);
                continue;
            };
            assert!(matches!(error, Error::NoSpace { .. }), "{error}");
            partly += u32::from((1..10).contains(&copy.last_commit().unwrap()));
            compare(&db, &copy).unwrap();
            copy.apply(&chunk).unwrap();
            assert_eq!(copy.last_commit().unwrap(), 10);
            compare(&db, &copy).unwrap();
            drop(copy);
            let copy = Db::open_on(Arc::new(storage), &options).unwrap();
            assert_eq!(copy.last_commit().unwrap(), 10);
            compare(&db, &copy).unwrap();
        }
        let meant = sync == Sync::Os && !reserves;
        assert!(partly > 0 || !meant, "{sync:?}: never in the middle");
    }
}
