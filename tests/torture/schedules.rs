//! Short histories made from seeds, in which anything may happen at any time: writes, reads, syncs,
//! closes, kills, losses of power, full disks and failing calls of every kind. The database is
//! compared with the model after every step.

use super::report::Campaign;
use super::trial::Trial;
use super::watch::Watch;
use super::workload::{Step, Workload, any_workload};
use crate::support::Random;
use crate::support::sim::{Calls, Errno, Fault, Pages};

/// Steps of a history, at most, before the faults are put in between.
const STEPS: u64 = 7;

fn any_fault(random: &mut Random) -> Fault {
    let calls = match random.below(7) {
        0 => Calls::Reading,
        1..=3 => Calls::Syncing,
        _ => Calls::Changing,
    };
    let full = calls != Calls::Reading && random.chance(35);
    Fault {
        calls,
        after: random.below(10) as usize,
        errno: if full { Errno::NoSpace } else { Errno::Io },
        sticky: random.chance(30),
        partly: random.chance(50),
        pages: match random.below(3) {
            0 => Pages::Dirty,
            1 => Pages::Clean,
            _ => Pages::Dropped,
        },
    }
}

/// Something that happens between two steps of a workload.
fn any_accident(random: &mut Random) -> Step {
    match random.below(10) {
        0..5 => Step::Fail(any_fault(random)),
        5 | 6 => Step::PowerLoss(random.next()),
        7 => Step::Fill(random.below(600) as usize),
        8 => Step::Mend,
        _ => Step::Read(random.next() as u32),
    }
}

fn any_history(seed: u64) -> Workload {
    let mut random = Random::new(!seed);
    let mut workload = any_workload(seed, STEPS);
    let mut steps = Vec::new();
    for mut step in workload.steps.drain(..) {
        if let Step::Backup(backup) = &mut step {
            backup.fault = random.chance(60).then(|| any_fault(&mut random));
            backup.power_loss = random.chance(40).then(|| random.next());
        }
        while random.chance(40) {
            steps.push(any_accident(&mut random));
        }
        steps.push(step);
    }
    workload.steps = steps;
    workload
}

#[test]
fn histories_with_all_faults() {
    let campaign = Campaign::begin("histories_with_all_faults", "histories", 20_000, 1_000_000);
    let watch = Watch::start("histories_with_all_faults");
    campaign.run(|seed| {
        watch.begin(seed);
        let workload = any_history(seed);
        let mut random = Random::new(seed);
        let trial = if random.chance(10) {
            Trial::failing(&workload, any_fault(&mut random))
        } else {
            Trial::new(&workload)
        };
        trial.check()?;
        campaign.count(1);
        Ok(())
    });
    campaign.end();
}
