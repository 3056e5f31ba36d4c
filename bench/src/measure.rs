//! Time and the number of operations.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use crate::engine::{Engine, Failure, Outcome, Session};

/// How long a workload goes on.
#[derive(Clone, Copy)]
pub struct Limit {
    /// For so long.
    pub time: Duration,
    /// For at most so many operations.
    pub operations: u64,
    /// The clock is looked at every so many operations.
    pub every: u64,
}

impl Limit {
    /// A time, and no number.
    pub fn time(time: Duration) -> Limit {
        Limit {
            time,
            operations: u64::MAX,
            every: 32,
        }
    }

    /// Also a number.
    pub fn operations(self, operations: u64) -> Limit {
        Limit { operations, ..self }
    }

    /// For operations that take long.
    pub fn every_one(self) -> Limit {
        Limit { every: 1, ..self }
    }
}

/// What was measured.
#[derive(Clone, Copy)]
pub struct Measured {
    /// How long all of it took.
    pub time: Duration,
    /// How many operations it was.
    pub operations: u64,
}

impl Measured {
    /// Nanoseconds per operation.
    pub fn ns(&self) -> f64 {
        self.time.as_nanos() as f64 / self.operations as f64
    }
}

/// Calls `one` with 0, 1, 2 and so on until the limit is reached.
pub fn run(limit: Limit, mut one: impl FnMut(u64) -> Outcome) -> Outcome<Measured> {
    let start = Instant::now();
    let mut operations = 0;
    while operations < limit.operations {
        let until = limit.operations.min(operations + limit.every);
        while operations < until {
            one(operations)?;
            operations += 1;
        }
        if start.elapsed() >= limit.time {
            break;
        }
    }
    Ok(Measured {
        time: start.elapsed(),
        operations,
    })
}

/// Lets so many threads do that, each with a session of its own and with what `work` makes for it
/// from its number. The time is that of the slowest, the operations are those of all.
pub fn run_threads<Work>(
    engine: &dyn Engine,
    threads: u64,
    limit: Limit,
    work: impl Fn(u64) -> Work + Sync,
) -> Outcome<Measured>
where
    Work: FnMut(&mut dyn Session, u64) -> Outcome,
{
    if threads == 1 {
        let mut session = engine.session()?;
        let mut work = work(0);
        return run(limit, |operation| work(&mut *session, operation));
    }
    let engine = engine.shared().ok_or(Failure::Declined)?;
    let barrier = Barrier::new(threads as usize);
    let results: Vec<Outcome<Measured>> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads)
            .map(|thread| {
                let (work, barrier) = (&work, &barrier);
                scope.spawn(move || {
                    let session = engine.session();
                    let mut work = work(thread);
                    barrier.wait();
                    let mut session = session?;
                    run(limit, |operation| work(&mut *session, operation))
                })
            })
            .collect();
        running
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|_| Err(Failure::Broken("a thread panicked".into())))
            })
            .collect()
    });
    let mut all = Measured {
        time: Duration::ZERO,
        operations: 0,
    };
    for result in results {
        let one = result?;
        all.time = all.time.max(one.time);
        all.operations += one.operations;
    }
    Ok(all)
}
