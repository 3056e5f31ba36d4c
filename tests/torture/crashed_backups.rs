//! Every state that a crash can leave of a directory into which a database is backed up, and each of
//! its calls that can fail: see `backups` for what must be found then.

use std::collections::HashSet;

use ourdb::{Db, Options};

use super::backups::{Held, Made, Target, back_up_again, to_read, to_write};
use super::faults::{FAULT, Place, fail_each_call};
use super::named;
use super::report::Campaign;
use super::trial::Trial;
use super::watch::Watch;
use super::workload::{Workload, any_backed_up_workload, open};
use crate::support::model::Model;
use crate::support::sim::{Calls, Disk, Errno, Fault, Loss, Pages, Unsynced};
use crate::support::{Context, Random, Verdict, require, torture};

/// Of so many images one is opened for writing, and one is backed up into.
const GO_ON: u64 = 4;

struct Images<'a> {
    workload: &'a Workload,
    campaign: &'a Campaign,
    target: &'a Target,
    /// Those looked at since the last backup was done, by fingerprint.
    seen: HashSet<u64>,
    /// The database as it was after some of the backups.
    source: Option<(usize, Db)>,
    random: Random,
}

impl Images<'_> {
    /// Looks at everything that a crash can leave of the backups of a workload.
    fn check_all_of(workload: &Workload, campaign: &Campaign) -> Verdict {
        let mut trial = Trial::new(workload);
        trial
            .run_and_close()
            .context(|| format!("without any failure\n{}", workload.describe_steps()))?;
        trial.past_targets.push(trial.target);
        for target in &trial.past_targets {
            let history = target.storage.history();
            let mut images = Images {
                workload,
                campaign,
                target,
                seen: HashSet::new(),
                source: None,
                random: Random::new(workload.seed),
            };
            history.replay(|calls, disk| {
                images.check_moment(calls, disk).context(|| {
                    format!(
                        "workload \"{}\", {:?}, reserves {}\n{}the end comes after call {calls} of {}\n{}",
                        workload.name,
                        workload.options,
                        workload.reserves,
                        workload.describe_steps(),
                        history.events.len(),
                        history.describe(calls)
                    )
                })?;
                let Some(next) = history.events.get(calls) else {
                    return Ok(());
                };
                for part in next.partly() {
                    if torture() || images.random.chance(20) {
                        images
                            .check(disk.after(&part), calls, true)
                            .context(|| format!("killed in the next call, of which {part:?} was done\n{}", history.describe(calls)))?;
                    }
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    fn check_moment(&mut self, calls: usize, disk: &Disk) -> Verdict {
        self.check(disk.clone(), calls, false)
            .context(|| "killed".into())?;
        let unsynced = Unsynced::of(disk);
        if unsynced.is_small() || torture() && !self.workload.is_long {
            for kept in unsynced.ways(self.workload.seed ^ calls as u64) {
                self.check(disk.keep(&unsynced, &kept), calls, false)
                    .context(|| format!("power lost, {unsynced:?}, {kept:?}"))?;
            }
            return Ok(());
        }
        for number in 0..if torture() { 40 } else { 10 } {
            let loss = Loss::case(number, self.random.next());
            self.check(disk.lose_power(&loss), calls, false)
                .context(|| format!("power lost, {loss:?}"))?;
        }
        Ok(())
    }

    /// What the directory may hold after so many calls, or in the next one, and which backup is next
    /// to be done, or was the last one.
    fn held(&self, calls: usize, within_next: bool) -> Option<(Held, usize)> {
        let made = &self.target.made;
        let next = made.partition_point(|made| made.end <= calls);
        let before = next.checked_sub(1).map(|before| &made[before]);
        let is_between = before.is_some_and(|before| before.end == calls) && !within_next;
        let held = match (made.get(next), before) {
            (Some(next), _) if !is_between => next.held.clone(),
            (_, Some(before)) => Held {
                finished: Some(before.model.clone()),
                ..Held::default()
            },
            _ => return None,
        };
        Some((held, next.min(made.len() - 1)))
    }

    fn check(&mut self, disk: Disk, calls: usize, within_next: bool) -> Verdict {
        let Some((held, number)) = self.held(calls, within_next) else {
            return Ok(());
        };
        if held.begun.is_empty() {
            // It can be nothing else any more.
            self.seen.clear();
        }
        if !self.seen.insert(disk.fingerprint()) {
            return Ok(());
        }
        let storage = self.workload.storage(disk, 1);
        held.check(&storage, &to_read())?;
        require!(storage.events() == 0, "a reader has changed a backup");
        if self.random.below(GO_ON) == 0 {
            held.check(&storage, &to_write())
                .context(|| "opened for writing".into())?;
            held.check(&storage, &to_read())
                .context(|| "opened for writing, closed, and opened again".into())?;
        }
        if self.random.below(GO_ON) == 0 {
            let (db, model) = self.source(number)?;
            back_up_again(db, &storage, model)?;
        }
        self.campaign.count(1);
        Ok(())
    }

    /// The database when that backup was done.
    fn source(&mut self, number: usize) -> Verdict<(&Db, &Model)> {
        let made: &Made = &self.target.made[number];
        if self.source.as_ref().is_none_or(|(of, _)| *of != number) {
            let options = Options {
                must_exist: true,
                ..made.options.clone()
            };
            let storage = self.workload.storage(made.source.clone(), 6);
            let db = open(&storage, &options).map_err(|error| format!("the source: {error}"))?;
            self.source = Some((number, db));
        }
        let (_, db) = self.source.as_ref().expect("it is open");
        Ok((db, &made.source_model))
    }
}

/// The workload of a seed: those written by hand come first.
fn with_workload(seed: u64, f: impl FnOnce(&Workload) -> Verdict) -> Verdict {
    let mut named = named::workloads();
    named.retain(Workload::has_backups);
    match named.get(seed as usize) {
        Some(workload) => f(workload),
        None => f(&any_backed_up_workload(seed, 14)),
    }
}

#[test]
fn backups_that_crash() {
    let campaign = Campaign::begin("backups_that_crash", "images", 8000, 400_000);
    campaign.run(|seed| with_workload(seed, |workload| Images::check_all_of(workload, &campaign)));
    campaign.end();
}

#[test]
fn backups_that_fail() {
    let name = "backups_that_fail";
    let campaign = Campaign::begin(name, "points", 1200, 40_000);
    let mut faults = Vec::new();
    for sticky in [false, true] {
        for (calls, errno, partly, pages) in [
            (Calls::Reading, Errno::Io, false, Pages::Dirty),
            (Calls::Changing, Errno::Io, false, Pages::Dirty),
            (Calls::Changing, Errno::Io, true, Pages::Dirty),
            (Calls::Changing, Errno::NoSpace, true, Pages::Dirty),
            (Calls::Syncing, Errno::Io, false, Pages::Dirty),
            (Calls::Syncing, Errno::Io, false, Pages::Clean),
            (Calls::Syncing, Errno::Io, false, Pages::Dropped),
        ] {
            faults.push(Fault {
                calls,
                errno,
                sticky,
                partly,
                pages,
                ..FAULT
            });
        }
    }
    let watch = Watch::start(name);
    campaign.run(|seed| {
        with_workload(seed, |workload| {
            for fault in &faults {
                watch.begin(seed);
                let most = if torture() { usize::MAX } else { 8 };
                campaign.count(fail_each_call(workload, *fault, Place::Backups, most)?);
            }
            Ok(())
        })
    });
    campaign.end();
}
