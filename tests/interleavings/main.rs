//! What threads of one handle may do to each other, explored: the engine itself, with shuttle's
//! locks, atomics and threads in place of std's. One thread runs at a time, and at each use of one of
//! these a scheduler chooses which: at random, or by priorities that change at a few random points
//! (PCT, which finds what takes few but ill-timed changes). That shuttle's atomics are all
//! sequentially consistent is the limit of this; see `make tsan` for the other half.
//!
//! ```text
//! RUSTFLAGS='--cfg ourdb_shuttle' cargo test --profile checked --target-dir target/shuttle --test interleavings
//! ```
//!
//! `OURDB_SCHEDULES` is how many schedules of each kind are run. A failure leaves its schedule in a
//! file; with `OURDB_SCHEDULE=file` and the test's name the same is run again.
#![cfg(ourdb_shuttle)]

mod checking;
mod erasing;
mod opening;
mod pausing;
mod publish;
#[path = "../support/mod.rs"]
mod support;
mod syncing;
mod transactions;

use shuttle::scheduler::{PctScheduler, RandomScheduler, ReplayScheduler, Scheduler};
use shuttle::{Config, FailurePersistence, MaxSteps, Runner};

/// Longer schedules are taken for threads that wait for each other for ever.
const LONGEST: usize = 2_000_000;
/// How often PCT changes priorities.
const CHANGES: usize = 4;

/// Runs `model` under `schedules` schedules of each kind, or as many as the environment asks for.
fn explore(schedules: usize, model: impl Fn() + Send + Sync + Clone + 'static) {
    if let Ok(file) = std::env::var("OURDB_SCHEDULE") {
        let schedule = ReplayScheduler::new_from_file(&file).expect("the file is a schedule");
        run(schedule, model);
        return;
    }
    let asked = std::env::var("OURDB_SCHEDULES").ok();
    let schedules = asked.map_or(schedules, |text| text.parse().expect("a number"));
    run(RandomScheduler::new_from_seed(1, schedules), model.clone());
    run(PctScheduler::new_from_seed(1, CHANGES, schedules), model);
}

fn run(scheduler: impl Scheduler + 'static, model: impl Fn() + Send + Sync + 'static) {
    let mut config = Config::new();
    config.stack_size = 256 << 10;
    config.max_steps = MaxSteps::FailAfter(LONGEST);
    config.silence_warnings = true;
    config.failure_persistence = FailurePersistence::File(Some(env!("CARGO_TARGET_TMPDIR").into()));
    Runner::new(scheduler, config).run(model);
}
