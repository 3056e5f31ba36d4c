//! What was cut off or given up must not come back: not among the commits that are written later in
//! its place, and not behind them.

use std::sync::Arc;

use ourdb::{Db, Error, Options};

use crate::report::Campaign;
use crate::support::model::{Model, Value, Write};
use crate::support::sim::{Calls, Disk, Errno, Fault, Loss, Pages, SimStorage};
use crate::support::{Context, Random, Verdict, require};

const RECORD_NR_MAX: u32 = 200;
/// Losses of power that are looked at in one history.
const LOSSES: u64 = 12;

fn open(storage: &SimStorage) -> Verdict<Db> {
    let options = Options {
        native: true,
        record_nr_max: RECORD_NR_MAX,
        ..Options::default()
    };
    Db::open_on(Arc::new(storage.clone()), &options).map_err(|error| format!("refused: {error}"))
}

/// Lengths of values with which, behind the header of a data file, one record and a sync mark, each
/// further record fills a sector: then what a sector brings back is a whole record.
const FIRST_TO_FILL: u32 = 512 - 64 - 40 - 40;
const TO_FILL: u32 = 512 - 40;

/// A database with a synced commit, and how long the values to come are to be.
fn begin(storage: &SimStorage, random: &mut Random) -> Verdict<(Db, Model, u32)> {
    let mut model = Model::new(false, RECORD_NR_MAX, 0);
    let db = open(storage)?;
    let (first, len) = match random.chance(50) {
        true => (FIRST_TO_FILL, TO_FILL),
        false => (20 + random.below(700) as u32, 20 + random.below(700) as u32),
    };
    model.perform(&db, &Write::Insert(value(first, random)))?;
    db.sync().map_err(|error| format!("sync: {error}"))?;
    Ok((db, model, len))
}

fn value(len: u32, random: &mut Random) -> Value {
    Value {
        seed: random.next() as u16,
        len,
    }
}

/// Looks at what losses of power leave: a prefix of the model's commits, from `synced` on.
fn check_losses(storage: &SimStorage, model: &Model, synced: u64, random: &mut Random) -> Verdict {
    for _ in 0..LOSSES {
        let loss = Loss::any(random);
        let left = SimStorage::new(storage.disk().lose_power(&loss), true, random.next());
        let found =
            open(&left).and_then(|db| model.check_prefix(&db, synced..=model.last_commit()));
        found.context(|| {
            let history = storage.history();
            format!("{loss:?} after\n{}", history.describe(history.events.len()))
        })?;
    }
    Ok(())
}

/// The power fails twice: recovery cuts off what the first time left, and commits of the same
/// lengths take its place.
fn written_over_a_torn_end(seed: u64) -> Verdict {
    let mut random = Random::new(seed);
    let storage = SimStorage::new(Disk::new(), random.chance(50), seed);
    let (db, mut model, len) = begin(&storage, &mut random)?;
    let synced = model.last_commit();
    for _ in 0..3 + random.below(5) {
        model.perform(&db, &Write::Insert(value(len, &mut random)))?;
    }
    drop(db);
    let torn = storage.disk().lose_power(&Loss::any(&mut random));
    let storage = SimStorage::new(torn, random.chance(50), seed ^ 1);
    let db = open(&storage)?;
    let mut model = model.check_prefix(&db, synced..=model.last_commit())?;
    for _ in 0..1 + random.below(3) {
        model.perform(&db, &Write::Insert(value(len, &mut random)))?;
    }
    drop(db);
    check_losses(&storage, &model, synced, &mut random)
}

/// The disk is full in the middle of a commit, and the next one of the same lengths takes its place.
fn written_over_a_failed_commit(seed: u64) -> Verdict {
    let mut random = Random::new(seed);
    let storage = SimStorage::new(Disk::new(), false, seed);
    let (db, mut model, len) = begin(&storage, &mut random)?;
    let synced = model.last_commit();
    let count = 1 + random.below(5);
    let many = |random: &mut Random| (0..count).map(|_| value(len, random)).collect();
    storage.fail(Some(Fault {
        calls: Calls::Changing,
        after: storage.calls(Calls::Changing),
        errno: Errno::NoSpace,
        sticky: false,
        partly: true,
        pages: Pages::Dirty,
    }));
    let failed = Write::InsertMany(many(&mut random)).perform(&db);
    require!(
        matches!(failed, Err(Error::NoSpace { .. })),
        "a full disk gives {failed:?}"
    );
    storage.fail(None);
    model.perform(&db, &Write::InsertMany(many(&mut random)))?;
    drop(db);
    check_losses(&storage, &model, synced, &mut random)
}

#[test]
fn remains_that_come_back() {
    let campaign = Campaign::begin("remains_that_come_back", "images", 60_000, 1_000_000);
    campaign.run(|seed| {
        written_over_a_torn_end(seed).context(|| "over a torn end".into())?;
        written_over_a_failed_commit(seed).context(|| "over a failed commit".into())?;
        campaign.count(2 * LOSSES);
        Ok(())
    });
    campaign.end();
}
