//! Compactions one after the other beside two writers and two readers, in threads: each read is
//! compared with what the writers had begun and what was acknowledged to them.
//!
//! The records are in groups. A writer sets all records of a group at once to the same number, which
//! grows by one each time; so a snapshot in which two records of a group differ has seen half a
//! commit, one with a lower number than was acknowledged before it was taken has lost one, and one
//! whose numbers change is none.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use ourdb::{Db, Options, Order, Retention, Txn};

use crate::report::Campaign;
use crate::support::readers::{EndOnDrop, Place};
use crate::support::{Context, Random, Verdict, require};

const WRITERS: u32 = 2;
const READERS: u64 = 2;
const GROUPS: u32 = 24;
/// Records of a group: its id is the first one's over this.
const MEMBERS: u32 = 4;
/// So many compactions with each database.
const COMPACTIONS: u32 = 12;
/// Writers make so many commits while one takes, at most: each may need a data file of its own, of which
/// there are not more than 65,536, and on a busy machine a compaction may not get its turn for long.
const COMMITS: i64 = 20_000;
/// Nobody waits for more: what is read is looked at through so many versions at most.
const LONGEST_HISTORY: usize = 20;

/// The number of a group that is being written, or was acknowledged.
type Numbers = [AtomicU64; GROUPS as usize];

#[derive(Debug)]
struct Progress {
    begun: Numbers,
    acknowledged: Numbers,
    /// How many commits may be made until the next compaction has ended.
    left: AtomicI64,
    done: AtomicBool,
}

impl Progress {
    fn new() -> Progress {
        Progress {
            begun: [const { AtomicU64::new(0) }; GROUPS as usize],
            acknowledged: [const { AtomicU64::new(0) }; GROUPS as usize],
            left: AtomicI64::new(COMMITS),
            done: AtomicBool::new(false),
        }
    }

    fn is_done(&self) -> bool {
        self.done.load(Ordering::Acquire)
    }
}

/// A value of any length that says whose it is.
fn value(id: u32, number: u64) -> Vec<u8> {
    let mut random = Random::new(u64::from(id) << 40 | number);
    let len = 12 + [0, 20, 100, 1500][random.below(4) as usize] + random.below(50) as usize;
    let mut bytes = Vec::with_capacity(len + 8);
    bytes.extend_from_slice(&id.to_le_bytes());
    bytes.extend_from_slice(&number.to_le_bytes());
    while bytes.len() < len {
        bytes.extend_from_slice(&random.next().to_le_bytes());
    }
    bytes
}

/// The number in a value of `id`'s; 0 where there is none.
fn number_of(id: u32, found: Result<Vec<u8>, ourdb::Error>) -> Verdict<u64> {
    let bytes = match found {
        Ok(bytes) => bytes,
        Err(ourdb::Error::NotFound(_)) => return Ok(0),
        Err(error) => return Err(format!("id {id}: {error}")),
    };
    let number = bytes.get(4..12).map(|number| {
        u64::from_le_bytes(
            number
                .try_into()
                .unwrap_or_else(|_| unreachable!("of eight")),
        )
    });
    let number = number.unwrap_or(0);
    require!(
        bytes == value(id, number),
        "id {id} has a value that nobody wrote: {bytes:?}"
    );
    Ok(number)
}

fn write(db: &Db, writer: u32, seed: u64, progress: &Progress) -> Verdict {
    let mut random = Random::new(seed);
    while !progress.is_done() {
        if progress.left.fetch_sub(1, Ordering::Relaxed) <= 0 {
            thread::sleep(Duration::from_millis(1));
            continue;
        }
        let group = random.below(u64::from(GROUPS / WRITERS)) as u32 * WRITERS + writer;
        let number = progress.begun[group as usize].fetch_add(1, Ordering::SeqCst) + 1;
        let members = (0..MEMBERS).map(|member| group * MEMBERS + member);
        let values: Vec<_> = members.map(|id| (id, value(id, number))).collect();
        let records: Vec<_> = values.iter().map(|(id, value)| (*id, &value[..])).collect();
        db.set_many(&records)
            .map_err(|error| format!("number {number} of group {group}: {error}"))?;
        progress.acknowledged[group as usize].store(number, Ordering::SeqCst);
    }
    Ok(())
}

/// The number of a group in a snapshot, of all of its records.
fn group_in(snapshot: &Txn, group: u32) -> Verdict<u64> {
    let mut ids = (0..MEMBERS).map(|member| group * MEMBERS + member);
    let mut of_first = None;
    let (first, numbers) = (group * MEMBERS, &mut of_first);
    ids.try_for_each(|id| {
        let number = number_of(id, snapshot.get(id))?;
        let of_first = *numbers.get_or_insert(number);
        require!(
            number == of_first,
            "half a commit: id {first} has {of_first} and id {id} has {number}"
        );
        Ok(())
    })?;
    Ok(of_first.unwrap_or(0))
}

/// Reads until the end; how many records.
fn read(db: &Db, seed: u64, progress: &Progress) -> Verdict<u64> {
    let mut random = Random::new(seed);
    let mut reads = 0;
    // A snapshot that was taken earlier, and what it saw.
    let mut held: Option<(Txn, Vec<u64>)> = None;
    while !progress.is_done() {
        let at_least: Vec<u64> = progress
            .acknowledged
            .iter()
            .map(|number| number.load(Ordering::SeqCst))
            .collect();
        let snapshot = db
            .snapshot()
            .map_err(|error| format!("a snapshot: {error}"))?;
        let mut seen = Vec::new();
        for group in 0..GROUPS {
            let number = group_in(&snapshot, group)?;
            let begun = progress.begun[group as usize].load(Ordering::SeqCst);
            let least = at_least[group as usize];
            require!(
                (least..=begun).contains(&number),
                "group {group}: {number}, of {least} acknowledged and {begun} begun"
            );
            seen.push(number);
            let id = group * MEMBERS + random.below(u64::from(MEMBERS)) as u32;
            let now = number_of(id, db.get(id))?;
            require!(now >= number, "id {id}: {now} after {number}");
            reads += u64::from(MEMBERS) + 1;
        }
        let mut scan = snapshot
            .scan(0, u32::MAX, Order::default())
            .map_err(|error| format!("a scan: {error}"))?;
        while let Some(record) = scan.next().map_err(|error| format!("a step: {error}"))? {
            let number = number_of(record.id, Ok(record.value.to_vec()))?;
            let expected = seen[(record.id / MEMBERS) as usize];
            require!(
                number == expected,
                "the scan has {number} for id {}, and a read had {expected}",
                record.id
            );
            reads += 1;
        }
        reads += history(db, random.below(u64::from(GROUPS * MEMBERS)) as u32)?;
        if let Some((held, seen)) = &held {
            for (group, &number) in (0..).zip(seen) {
                let again = group_in(held, group)?;
                require!(
                    again == number,
                    "a snapshot changed: group {group}: {number}, {again}"
                );
                reads += u64::from(MEMBERS);
            }
        }
        if random.chance(20) {
            drop(scan);
            held = Some((snapshot, seen));
        }
    }
    Ok(reads)
}

/// The versions that are left of a record are without a gap, and newest first.
fn history(db: &Db, id: u32) -> Verdict<u64> {
    let records = match db.history(id, LONGEST_HISTORY) {
        Ok(records) => records,
        Err(ourdb::Error::NotFound(_)) => return Ok(0),
        Err(error) => return Err(format!("history of {id}: {error}")),
    };
    let mut newer: Option<(u64, u64)> = None;
    for record in records.iter() {
        let number = number_of(id, Ok(record.value.to_vec()))?;
        require!(
            newer.is_none_or(|(above, commit)| above == number + 1 && commit > record.commit),
            "id {id}: {number} of commit {} under {newer:?}",
            record.commit
        );
        newer = Some((number, record.commit));
    }
    Ok(records.len() as u64)
}

/// Everything is there as it was acknowledged last.
fn check(db: &Db, progress: &Progress) -> Verdict {
    let report = db
        .check(|_, _| ControlFlow::Continue(()))
        .map_err(|error| format!("the check: {error}"))?;
    require!(report.is_sound(), "the check: {report}");
    for (group, expected) in (0..).zip(&progress.acknowledged) {
        for member in 0..MEMBERS {
            let id = group * MEMBERS + member;
            let number = number_of(id, db.get(id))?;
            let expected = expected.load(Ordering::SeqCst);
            require!(
                number == expected,
                "id {id}: {number}, and {expected} was acknowledged"
            );
        }
    }
    Ok(())
}

fn compact(db: &Db, seed: u64, progress: &Progress) -> Verdict {
    let mut random = Random::new(seed);
    for _ in 0..COMPACTIONS {
        let retention = Retention {
            keep_versions: 1 + random.below(30),
            ..Retention::default()
        };
        db.compact(&retention, |_, _| ControlFlow::Continue(()))
            .map_err(|error| format!("a compaction: {error}"))?;
        progress.left.store(COMMITS, Ordering::Relaxed);
    }
    Ok(())
}

/// A database in its life; how many records were read.
fn live(db: &Db, seed: u64, progress: &Progress) -> Verdict<u64> {
    let joined = |result: thread::Result<Verdict<u64>>| match result {
        Ok(verdict) => verdict,
        Err(_) => Err("a thread panicked".into()),
    };
    thread::scope(|scope| {
        let writers = (0..WRITERS).map(|writer| {
            let seed = seed << 8 | u64::from(writer);
            scope.spawn(move || {
                let _end = EndOnDrop(&progress.done);
                write(db, writer, seed, progress).map(|()| 0)
            })
        });
        let mut threads: Vec<_> = writers.collect();
        threads.extend((0..READERS).map(|reader| {
            let seed = seed << 8 | 128 | reader;
            scope.spawn(move || {
                let _end = EndOnDrop(&progress.done);
                read(db, seed, progress)
            })
        }));
        let end = EndOnDrop(&progress.done);
        compact(db, seed, progress)?;
        drop(end);
        threads
            .into_iter()
            .map(|thread| joined(thread.join()))
            .sum()
    })
}

/// Each seed in all places, in a new database each. It decides all but the order of the threads.
#[test]
fn compactions_beside_writers_and_readers() {
    let name = "compactions_beside_writers_and_readers";
    let campaign = Campaign::begin(name, "reads", 100_000, 20_000_000);
    campaign.run(|seed| {
        let mut random = Random::new(seed);
        let options = Options {
            key_value: true,
            native: true,
            record_nr_max: GROUPS * MEMBERS,
            file_size: [3000, 50_000, 0][random.below(3) as usize],
            ..Options::default()
        };
        for place in Place::ALL {
            let said = || format!("{}, data files of {} bytes", place.name, options.file_size);
            let (db, directory) = place.open(&options);
            let progress = Progress::new();
            campaign.count(live(&db, seed, &progress).context(said)?);
            check(&db, &progress).context(said)?;
            let is_on_disk = directory.path().join("MANIFEST").exists();
            db.close()
                .map_err(|error| format!("{}: close: {error}", place.name))?;
            if is_on_disk {
                let db = Db::open(directory.path(), &Options::default())
                    .map_err(|error| format!("{}: it opens again: {error}", place.name))?;
                check(&db, &progress).context(said)?;
            }
        }
        Ok(())
    });
    campaign.end();
}
