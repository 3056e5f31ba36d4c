//! Threads with transactions on few records: every read of every transaction is explained by what
//! the commits before its own had left, in the order of their numbers.

use std::collections::BTreeMap;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use ourdb::{Db, Error, LookupKind, NotFound, Options, Order, Result, Scan, Sync, Txn};

use crate::report::Campaign;
use crate::support::{Context, Random, TempDirectory, Verdict, refute, require};

/// So many transactions each thread commits for one seed.
const EACH: u64 = 400;
/// Ids are below this; transactions meet.
const IDS: u32 = 12;

/// What one call of a transaction was told.
#[derive(Clone, Debug)]
enum Read {
    /// The value of a record: which write of all it is.
    Get(u32, Option<u64>),
    Above(u32, Option<u32>),
    Below(u32, Option<u32>),
    Count(u64),
    /// What a scan from one id to another gave, and whether it is all of it.
    Scan(u32, u32, Order, Vec<(u32, u64)>, bool),
}

/// A transaction that committed: what it read before it wrote anything, and what it wrote.
#[derive(Clone, Debug)]
struct Committed {
    began: u64,
    reads: Vec<Read>,
    writes: Vec<(u32, Option<u64>)>,
}

/// A value that tells which write it is.
fn value(write: u64) -> Vec<u8> {
    let mut value = write.to_le_bytes().to_vec();
    value.resize(8 + write as usize % 60, write as u8);
    value
}

fn write_of(value: &[u8]) -> u64 {
    let write = value
        .first_chunk()
        .map_or(u64::MAX, |write| u64::from_le_bytes(*write));
    if value == self::value(write) {
        write
    } else {
        u64::MAX
    }
}

/// `None` if it isn't there.
fn found<T>(answer: Result<T>) -> Result<Option<T>> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(Error::NotFound(NotFound::Record(_) | NotFound::Neighbour(_))) => Ok(None),
        Err(error) => Err(error),
    }
}

fn read(txn: &Txn, random: &mut Random) -> Result<Read> {
    let id = random.below(u64::from(IDS)) as u32;
    Ok(match random.below(8) {
        0..3 => Read::Get(id, found(txn.get_with(id, write_of))?),
        3 => Read::Above(id, found(txn.above(id))?),
        4 => Read::Below(id, found(txn.below(id))?),
        5 if random.chance(30) => Read::Count(txn.count()?),
        _ => {
            let upper = id + random.below(4) as u32;
            let order = Order {
                reverse: random.chance(50),
                keys_only: false,
            };
            let scan = txn.scan(id, upper, order)?;
            let (records, all) = walk(scan, random.below(4))?;
            Read::Scan(id, upper, order, records, all)
        }
    })
}

/// So many records of a scan; whether those are all.
fn walk(mut scan: Scan, most: u64) -> Result<(Vec<(u32, u64)>, bool)> {
    let mut records = Vec::new();
    for _ in 0..most {
        match scan.next()? {
            Some(record) => records.push((record.id, write_of(record.value))),
            None => return Ok((records, true)),
        }
    }
    Ok((records, false))
}

/// One try: what was read and written, unless it conflicts. Writes are numbered on from `write`.
fn attempt(db: &Db, random: &mut Random, write: &mut u64) -> Result<Option<Committed>> {
    let mut txn = db.begin()?;
    let began = txn.at();
    let mut reads = Vec::new();
    for _ in 0..random.below(4) {
        reads.push(read(&txn, random)?);
    }
    // So that others come in between.
    if random.chance(30) {
        thread::yield_now();
    }
    let mut writes = Vec::new();
    for _ in 0..1 + random.below(3) {
        let id = random.below(u64::from(IDS)) as u32;
        *write += 1;
        if writes.iter().any(|&(written, _)| written == id) {
            continue;
        }
        if random.chance(35) {
            // Whether it is there was read.
            match txn.delete(id) {
                Ok(()) => writes.push((id, None)),
                Err(Error::NotFound(_)) => reads.push(Read::Get(id, None)),
                Err(error) => return Err(error),
            }
        } else {
            txn.set(id, &value(*write))?;
            writes.push((id, Some(*write)));
        }
    }
    match txn.commit() {
        Ok(()) => Ok(Some(Committed {
            began,
            reads,
            writes,
        })),
        Err(Error::Conflict { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What is live, by id, and the commit that each write was found in.
type State = BTreeMap<u32, u64>;

/// Compares a read with the state that it must have been told of.
fn check_read(state: &State, read: &Read) -> Verdict {
    let right = match read {
        Read::Get(id, told) => state.get(id) == told.as_ref(),
        Read::Above(id, told) => state.range(id + 1..).next().map(|(&id, _)| id) == *told,
        Read::Below(id, told) => state.range(..id).next_back().map(|(&id, _)| id) == *told,
        Read::Count(told) => state.len() as u64 == *told,
        Read::Scan(lower, upper, order, told, all) => {
            let mut there: Vec<_> = state
                .range(lower..=upper)
                .map(|(&id, &write)| (id, write))
                .collect();
            if order.reverse {
                there.reverse();
            }
            if *all {
                there == *told
            } else {
                there.starts_with(told)
            }
        }
    };
    require!(right, "{read:?} is not explained by {state:?}");
    Ok(())
}

/// Replays what was committed, in the order of the commits; how many reads were explained.
fn check(db: &Db, all: &[Committed]) -> Verdict<u64> {
    let failed = |error: Error| error.to_string();
    let last = db.last_commit().map_err(failed)?;
    // Which commit a transaction was, its writes tell: each is in the history once.
    let mut commit_of: BTreeMap<(u32, u64), u64> = BTreeMap::new();
    let mut changes: Vec<Vec<(u32, Option<u64>)>> = vec![Vec::new(); last as usize + 1];
    for id in 0..IDS {
        let history = match db.history(id, 0) {
            Err(Error::NotFound(_)) => continue,
            history => history.map_err(failed)?,
        };
        for version in history.iter() {
            let write = (version.state == ourdb::State::Live).then(|| write_of(version.value));
            changes[version.commit as usize].push((id, write));
            if let Some(write) = write {
                commit_of.insert((id, write), version.commit);
            }
        }
    }
    let mut order: BTreeMap<u64, &Committed> = BTreeMap::new();
    let mut others = Vec::new();
    for committed in all {
        let mut commits = committed.writes.iter().filter_map(|&(id, write)| {
            let commit = commit_of.get(&(id, write?)).copied();
            Some(commit.ok_or_else(|| format!("{committed:?}: not in the history")))
        });
        match commits.next() {
            None => others.push(committed),
            Some(commit) => {
                let commit = commit?;
                for other in commits {
                    require!(other? == commit, "{committed:?}: in two commits");
                }
                let before = order.insert(commit, committed);
                require!(before.is_none(), "two transactions in commit {commit}");
            }
        }
    }
    let mut explained = 0;
    let mut state = State::new();
    let mut states = vec![State::new()];
    for commit in 1..=last {
        if let Some(committed) = order.get(&commit) {
            let mut written = committed.writes.clone();
            written.sort_unstable();
            let mut changed = changes[commit as usize].clone();
            changed.sort_unstable();
            require!(
                written == changed,
                "commit {commit} is {changed:?}, and {committed:?}"
            );
            let mut deleted = written.iter().filter(|(_, write)| write.is_none());
            require!(
                deleted.all(|(id, _)| state.contains_key(id)),
                "{committed:?} deletes what is not in {state:?}"
            );
            for read in &committed.reads {
                check_read(&state, read).context(|| format!("commit {commit}, {committed:?}"))?;
                explained += 1;
            }
        }
        for &(id, write) in &changes[commit as usize] {
            match write {
                Some(write) => drop(state.insert(id, write)),
                None => drop(state.remove(&id)),
            }
        }
        states.push(state.clone());
    }
    // Those that only deleted, or wrote nothing: their place is not known, but that there is one.
    for committed in others {
        let mut after = states.iter().skip(committed.began as usize);
        let whole = after.any(|state| {
            let mut reads = committed.reads.iter();
            reads.all(|read| check_read(state, read).is_ok())
        });
        require!(whole, "{committed:?}: no moment explains it");
        explained += committed.reads.len() as u64;
    }
    Ok(explained)
}

fn options(random: &mut Random) -> Options {
    Options {
        key_value: true,
        native: true,
        memory: random.chance(70),
        record_nr_max: 1000,
        // Many data files are begun while conflicts are looked for.
        file_size: [0, 1, 200, 3000][random.below(4) as usize],
        lookup: [LookupKind::Memory, LookupKind::Disk][random.below(2) as usize],
        sync: if random.chance(10) {
            Sync::Commit
        } else {
            Sync::Os
        },
        ..Options::default()
    }
}

fn check_seed(
    seed: u64,
    campaign: &Campaign,
    conflicts: &AtomicU64,
    explained: &AtomicU64,
) -> Verdict {
    let mut random = Random::new(seed);
    let options = options(&mut random);
    let directory = TempDirectory::new();
    let opened = Db::open(directory.path(), &options);
    let db = opened.map_err(|error| format!("{options:?}: {error}"))?;
    let threads = 2 + random.below(3);
    let clears = random.chance(30);
    let begin = Barrier::new(threads as usize);
    let all: Verdict<Vec<Committed>> = thread::scope(|scope| {
        let threads: Vec<_> = (0..threads)
            .map(|thread| {
                let (db, begin) = (&db, &begin);
                let mut random = Random::new((seed << 8) | (thread + 1));
                scope.spawn(move || {
                    begin.wait();
                    let mut write = thread << 40;
                    let mut all = Vec::new();
                    while (all.len() as u64) < EACH {
                        if clears && random.chance(1) {
                            db.clear().map_err(|error| format!("clear: {error}"))?;
                        }
                        match attempt(db, &mut random, &mut write) {
                            Ok(Some(committed)) => all.push(committed),
                            Ok(None) => drop(conflicts.fetch_add(1, Ordering::Relaxed)),
                            Err(error) => refute!("a transaction: {error}"),
                        }
                    }
                    Ok(all)
                })
            })
            .collect();
        let joined = threads
            .into_iter()
            .map(|thread| thread.join().expect("no panic"));
        joined.collect::<Verdict<Vec<_>>>().map(|all| all.concat())
    });
    let all = all?;
    let reads = check(&db, &all).context(|| format!("{threads} threads, {options:?}"))?;
    explained.fetch_add(reads, Ordering::Relaxed);
    campaign.count(all.len() as u64);
    Ok(())
}

#[test]
fn transactions_are_serializable() {
    let campaign = Campaign::begin(
        "transactions_are_serializable",
        "transactions",
        10_000,
        1_500_000,
    );
    let (conflicts, explained) = (AtomicU64::new(0), AtomicU64::new(0));
    campaign.run(|seed| check_seed(seed, &campaign, &conflicts, &explained));
    println!(
        "{} reads of what was committed are explained by the commit before; {} conflicts",
        explained.into_inner(),
        conflicts.into_inner()
    );
    campaign.end();
}
