//! Crashes during the recovery from a crash, three deep: whatever has crashed how often, what
//! opens at last is within what was promised, and no less than a recovery has reported.

use super::named;
use super::report::Campaign;
use super::run::{Found, Image, Promise, Run};
use super::workload::{Workload, any_workload};
use crate::support::sim::{Disk, History, Loss};
use crate::support::{Context, Random, Verdict};

/// So many moments of a workload are crashed at.
const MOMENTS: u64 = 8;

/// How a recovery ends before its end, or right after it.
#[derive(Clone, Copy, Debug)]
enum Crash {
    Killed,
    /// In the midst of the next call.
    KilledHalfway,
    PowerLost(u64),
}

impl Crash {
    fn any(random: &mut Random) -> Crash {
        match random.below(5) {
            0 => Crash::Killed,
            1 => Crash::KilledHalfway,
            _ => Crash::PowerLost(random.next()),
        }
    }

    /// What is left if it comes after so many calls.
    fn of(self, history: &History, calls: usize) -> Disk {
        let disk = history.after(calls);
        match self {
            Crash::Killed => disk,
            Crash::KilledHalfway => {
                let parts = history
                    .events
                    .get(calls)
                    .map_or(Vec::new(), |next| next.partly());
                let part = parts.get(calls % parts.len().max(1));
                part.map_or(disk.clone(), |part| disk.after(part))
            }
            Crash::PowerLost(seed) => disk.lose_power(&Loss::any(&mut Random::new(seed))),
        }
    }
}

/// The crash that the recoveries are from.
struct Origin<'a> {
    run: &'a Run<'a>,
    calls: usize,
    /// What a loss of power may leave of the workload.
    least: Promise,
}

/// A recovery that was run to its end.
struct Recovery {
    history: History,
    found: Found,
    /// Power could take nothing of what it began with.
    began_clean: bool,
}

impl Origin<'_> {
    fn recover(&self, disk: Disk, promise: &Promise) -> Verdict<Recovery> {
        let began_clean = disk.is_clean();
        let image = self.image(disk);
        let (db, found, _) = image.check(promise)?;
        drop(db);
        Ok(Recovery {
            history: image.storage.history(),
            found,
            began_clean,
        })
    }

    fn image(&self, disk: Disk) -> Image<'_> {
        self.run.image(disk, self.calls)
    }

    /// What must be found after a crash of `recovery` after so many of its calls.
    fn promise(&self, recovery: &Recovery, calls: usize, crash: Crash) -> Promise {
        let reported = calls == recovery.history.events.len();
        let seen = reported && self.run.workload.commits_durably();
        match crash {
            Crash::PowerLost(_) if !recovery.began_clean && !seen => {
                self.least.up_to(&recovery.found)
            }
            _ => Promise::exactly(&recovery.found),
        }
    }

    /// Lets the recovery of `disk` crash after each of its calls, those recoveries after some of
    /// theirs, and so on; how many ends of such a row were looked at.
    fn check(&self, disk: Disk, promise: &Promise, random: &mut Random) -> Verdict<u64> {
        let first = self
            .recover(disk, promise)
            .context(|| "the first recovery".into())?;
        let mut ends = 0;
        for calls in 1..=first.history.events.len() {
            let losses = [random.next(), random.next()].map(Crash::PowerLost);
            for crash in [Crash::Killed, Crash::KilledHalfway]
                .into_iter()
                .chain(losses)
            {
                let row = vec![(calls, crash)];
                ends += self.check_row(&first, row, random)?;
            }
        }
        Ok(ends)
    }

    fn check_row(
        &self,
        recovery: &Recovery,
        mut row: Vec<(usize, Crash)>,
        random: &mut Random,
    ) -> Verdict<u64> {
        let Some(&(calls, crash)) = row.last() else {
            unreachable!("a row begins with a crash")
        };
        let promise = self.promise(recovery, calls, crash);
        let left = crash.of(&recovery.history, calls);
        let context = |row: &[(usize, Crash)]| {
            format!(
                "recoveries that crashed after so many calls: {row:?}\n{}",
                recovery.history.describe(calls)
            )
        };
        if row.len() == 3 {
            let image = self.image(left);
            image.check_twice(&promise).context(|| context(&row))?;
            return Ok(1);
        }
        let next = self.recover(left, &promise).context(|| context(&row))?;
        let calls = next.history.events.len() as u64;
        if calls == 0 {
            return Ok(0);
        }
        row.push((1 + random.below(calls) as usize, Crash::any(random)));
        self.check_row(&next, row, random)
    }
}

fn check_run(run: &Run<'_>, random: &mut Random, campaign: &Campaign) -> Verdict {
    for _ in 0..MOMENTS {
        let calls = random.below(run.history.events.len() as u64 + 1) as usize;
        let crash = Crash::any(random);
        let power_lost = matches!(crash, Crash::PowerLost(_));
        let origin = Origin {
            run,
            calls,
            least: run.promise(calls, true),
        };
        let left = crash.of(&run.history, calls);
        let ends = origin
            .check(left, &run.promise(calls, power_lost), random)
            .context(|| format!("{crash:?}; {}", run.describe(calls)))?;
        campaign.count(ends);
    }
    Ok(())
}

#[test]
fn recoveries_that_crash_three_deep() {
    let campaign = Campaign::begin("recoveries_that_crash_three_deep", "ends", 3000, 200_000);
    let named = named::workloads();
    campaign.run(|seed| {
        let mut random = Random::new(seed);
        let chosen = named.get(random.below(2 * named.len() as u64) as usize);
        let random_one;
        let workload = match chosen.filter(|workload| !workload.is_long) {
            Some(workload) => workload,
            None => {
                random_one = any_workload(seed, 14);
                &random_one
            }
        };
        check_run(&Run::of(workload)?, &mut random, &campaign)
    });
    campaign.end();
}

/// A process dies when it has replaced the manifest, before that is on disk; and what its next opening
/// builds upon the new one must not cost the old one, while a loss of power can bring that back.
#[test]
fn recoveries_after_a_manifest_was_replaced() {
    let name = "recoveries_after_a_manifest_was_replaced";
    let campaign = Campaign::begin(name, "ends", 1000, 20_000);
    let mut named = named::workloads();
    named.retain(Workload::compacts);
    campaign.run(|seed| {
        let mut random = Random::new(seed);
        let random_one;
        let workload = match named.get(seed as usize) {
            Some(workload) => workload,
            None => {
                random_one = any_workload(seed, 14);
                &random_one
            }
        };
        let run = Run::of(workload)?;
        for (index, event) in run.history.events.iter().enumerate() {
            let calls = index + 1;
            if event.renamed_to() != Some("MANIFEST") {
                continue;
            }
            let origin = Origin {
                run: &run,
                calls,
                least: run.promise(calls, true),
            };
            let left = Crash::Killed.of(&run.history, calls);
            let ends = origin
                .check(left, &run.promise(calls, false), &mut random)
                .context(|| run.describe(calls))?;
            campaign.count(ends);
        }
        Ok(())
    });
    campaign.end();
}
