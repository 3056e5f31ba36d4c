//! Each call that changes something fails, one run of a workload for each, once or again and
//! again: nothing acknowledged is lost, no commit that failed is ever seen, and on a full disk the
//! same handle goes on when there is space. Failed syncs are in `syncs`.

use super::named;
use super::report::Campaign;
use super::trial::Trial;
use super::watch::Watch;
use super::workload::{Workload, any_workload};
use crate::support::sim::{Calls, Errno, Fault, Pages, SimStorage};
use crate::support::{Context, Random, Verdict, torture};

/// A call that fails, and does nothing.
pub(crate) const FAULT: Fault = Fault {
    calls: Calls::Changing,
    after: 0,
    errno: Errno::Io,
    sticky: false,
    partly: false,
    pages: Pages::Dirty,
};

/// Whose calls fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Database,
    /// The directory that the first backups go into.
    Backups,
}

impl Place {
    fn storage(self, trial: &Trial<'_>) -> SimStorage {
        let target = || trial.past_targets.first().unwrap_or(&trial.target);
        match self {
            Place::Database => trial.storage.clone(),
            Place::Backups => target().storage.clone(),
        }
    }
}

/// Runs a workload once for each of its calls in that place that a fault can hit, or for at most so
/// many of them; how many it has hit.
pub(crate) fn fail_each_call(
    workload: &Workload,
    fault: Fault,
    place: Place,
    most: usize,
) -> Verdict<u64> {
    // A run without a fault, to count its calls.
    let mut whole = Trial::new(workload);
    whole.run_and_close().context(|| "without a fault".into())?;
    let calls = place.storage(&whole).calls(fault.calls);
    let stride = calls.div_ceil(most).max(1);
    let first = Random::new(workload.seed ^ calls as u64).below(stride as u64) as usize;
    let mut points = 0;
    for after in (first..calls).step_by(stride) {
        let fault = Fault { after, ..fault };
        let trial = Trial::new(workload);
        let storage = place.storage(&trial);
        storage.fail(Some(fault));
        trial.check().context(|| format!("a fault {fault}"))?;
        points += u64::from(storage.hit_count() > 0);
    }
    Ok(points)
}

/// Lets calls of many workloads fail in all of these ways, all of their calls in the long form.
pub(crate) fn fail_calls(campaign: &Campaign, name: &'static str, faults: &[Fault]) {
    let mut named = named::workloads();
    // So that the first ones, with which a short form ends, are of all kinds.
    let mut random = Random::new(7);
    named.sort_by_cached_key(|_| random.next());
    let watch = Watch::start(name);
    campaign.run(|seed| {
        let random_one;
        let workload = match named.get(seed as usize) {
            Some(workload) => workload,
            None => {
                random_one = any_workload(seed, 14);
                &random_one
            }
        };
        let most = match (torture(), workload.is_long) {
            (true, false) => usize::MAX,
            (true, true) => 40,
            (false, _) => 3,
        };
        for fault in faults {
            watch.begin(seed);
            campaign.count(fail_each_call(workload, *fault, Place::Database, most)?);
        }
        Ok(())
    });
}

#[test]
fn changes_that_fail() {
    let name = "changes_that_fail";
    let campaign = Campaign::begin(name, "points", 600, 20_000);
    let full = Fault {
        errno: Errno::NoSpace,
        ..FAULT
    };
    let mut faults = Vec::new();
    for fault in [FAULT, full] {
        for (sticky, partly) in [(false, false), (false, true), (true, false), (true, true)] {
            faults.push(Fault {
                sticky,
                partly,
                ..fault
            });
        }
    }
    fail_calls(&campaign, name, &faults);
    campaign.end();
}

#[test]
fn reads_that_fail() {
    let name = "reads_that_fail";
    let campaign = Campaign::begin(name, "points", 300, 20_000);
    let reading = Fault {
        calls: Calls::Reading,
        ..FAULT
    };
    let sticky = Fault {
        sticky: true,
        ..reading
    };
    fail_calls(&campaign, name, &[reading, sticky]);
    campaign.end();
}
