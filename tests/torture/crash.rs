//! Every state that a crash can leave: each workload is run once, and the disk is looked at as it
//! was after each of its calls, in all the ways in which the process can die and the power fail.

use std::collections::HashMap;
use std::time::Instant;

use super::named;
use super::report::Campaign;
use super::run::{Found, Promise, Run};
use super::workload::{Workload, any_workload, open};
use crate::support::sim::{Disk, Loss, Unsynced};
use crate::support::{Context, Random, Verdict, torture};

/// Of so many images one is gone on with.
const GO_ON: u64 = 50;
/// And of those that are fed from another database.
const GO_ON_FED: u64 = 10;

struct Images<'a> {
    run: &'a Run<'a>,
    campaign: &'a Campaign,
    /// What was found in the images so far, by fingerprint: an image that is left at several
    /// moments is opened once.
    seen: HashMap<u64, Found>,
    random: Random,
}

impl Images<'_> {
    /// Looks at everything that a crash can leave of a workload; how many images, of how many
    /// calls.
    fn check_all_of(workload: &Workload, campaign: &Campaign) -> Verdict<(usize, usize)> {
        let run = Run::of(workload)?;
        let mut images = Images {
            run: &run,
            campaign,
            seen: HashMap::new(),
            random: Random::new(workload.seed),
        };
        run.history.replay(|calls, disk| {
            images
                .check_kills(calls, disk)
                .and_then(|()| images.check_power_losses(calls, disk))
                .context(|| run.describe(calls))
        })?;
        Ok((images.seen.len(), run.history.events.len()))
    }

    /// The process dies after so many calls, or in the next one.
    fn check_kills(&mut self, calls: usize, disk: &Disk) -> Verdict {
        let promise = self.run.promise(calls, false);
        self.check(disk.clone(), calls, &promise)
            .context(|| "killed".into())?;
        let next = self.run.history.events.get(calls);
        for part in next.map_or(Vec::new(), |event| event.partly()) {
            if !torture() && !self.random.chance(20) {
                continue;
            }
            self.check(disk.after(&part), calls, &promise)
                .context(|| format!("killed in the next call, of which {part:?} was done"))?;
        }
        Ok(())
    }

    fn check_power_losses(&mut self, calls: usize, disk: &Disk) -> Verdict {
        let promise = self.run.promise(calls, true);
        let unsynced = Unsynced::of(disk);
        if unsynced.is_small() || torture() && !self.run.workload.is_long {
            for kept in unsynced.ways(self.run.workload.seed ^ calls as u64) {
                self.check(disk.keep(&unsynced, &kept), calls, &promise)
                    .context(|| format!("power lost, {unsynced:?}, {kept:?}"))?;
            }
            return Ok(());
        }
        for number in 0..if torture() { 40 } else { 15 } {
            let loss = Loss::case(number, self.random.next());
            self.check(disk.lose_power(&loss), calls, &promise)
                .context(|| format!("power lost, {loss:?}"))?;
        }
        Ok(())
    }

    fn check(&mut self, disk: Disk, calls: usize, promise: &Promise) -> Verdict {
        let fingerprint = disk.fingerprint();
        let known = self.seen.get(&fingerprint);
        if known.is_some_and(|found| promise.includes(found)) {
            return Ok(());
        }
        let known = known.is_some();
        let image = self.run.image(disk, calls);
        let found = image.check_twice(promise)?;
        let one_of = if self.run.is_fed() { GO_ON_FED } else { GO_ON };
        if self.random.below(one_of) == 0 {
            image.check_going_on(&found)?;
        }
        if !known {
            self.seen.insert(fingerprint, found);
            self.campaign.count(1);
        }
        Ok(())
    }
}

#[test]
fn images_that_a_crash_leaves() {
    let campaign = Campaign::begin("images_that_a_crash_leaves", "images", 20_000, 2_000_000);
    let named = named::workloads();
    // Seed 0 stands for all workloads written by hand; the others make one each.
    campaign.run(|seed| {
        if seed > 0 {
            return Images::check_all_of(&any_workload(seed, 14), &campaign).map(drop);
        }
        for workload in &named {
            let began = Instant::now();
            let (images, calls) = Images::check_all_of(workload, &campaign)?;
            println!(
                "{images:8} images of \"{}\", {calls} calls, {:.1} s",
                workload.name,
                began.elapsed().as_secs_f64()
            );
        }
        Ok(())
    });
    println!("{} workloads by name", named.len());
    campaign.end();
}

/// The bytes of a log stored as a value: a search for what proves the log to go on after a torn
/// record must not take them for records.
#[test]
fn images_of_a_log_inside_a_value() {
    let campaign = Campaign::begin("images_of_a_log_inside_a_value", "images", 100, 400);
    for reserves in [true, false] {
        let workload = Workload {
            reserves,
            ..Workload::new("a log inside a value")
        };
        let storage = workload.storage(Disk::new(), 0);
        let db = open(&storage, &workload.options).expect("a new database opens");
        db.insert(&[1; 600]).expect("an insert");
        db.sync().expect("a sync");
        let log = storage.disk().read("0.db").expect("a data file").to_vec();
        db.insert(&log[..log.len().min(4000)])
            .expect("an insert of the log into itself");
        let disk = storage.disk();
        let unsynced = Unsynced::of(&disk);
        for kept in unsynced.ways(5) {
            let left = workload.storage(disk.keep(&unsynced, &kept), 1);
            let db = open(&left, &workload.options)
                .unwrap_or_else(|error| panic!("refused after {kept:?}: {error}"));
            let commit = db.last_commit().expect("last_commit");
            assert!((1..=2).contains(&commit), "commit {commit} after {kept:?}");
            campaign.count(1);
        }
    }
    campaign.end();
}
