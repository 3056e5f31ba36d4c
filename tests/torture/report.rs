//! How much a campaign has looked at: counted, compared with its target, and put into a table.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::support::{Verdict, torture};

/// Where the campaigns leave their rows; `make torture` puts them together.
fn rows() -> &'static Path {
    Path::new(concat!(env!("CARGO_TARGET_TMPDIR"), "/torture"))
}

/// A campaign under way. Threads may share it.
#[derive(Debug)]
pub(crate) struct Campaign {
    name: &'static str,
    unit: &'static str,
    target: u64,
    count: AtomicU64,
    began: Instant,
}

impl Campaign {
    /// A campaign that is to look at `full` cases, and at `short` in its short form. `name` is that
    /// of the test; `unit` says what is counted.
    pub(crate) fn begin(name: &'static str, unit: &'static str, short: u64, full: u64) -> Campaign {
        Campaign {
            name,
            unit,
            target: if torture() { full } else { short },
            count: AtomicU64::new(0),
            began: Instant::now(),
        }
    }

    /// That so many more cases were looked at, and are well.
    pub(crate) fn count(&self, cases: u64) {
        self.count.fetch_add(cases, Ordering::Relaxed);
    }

    /// Whether the target is reached.
    pub(crate) fn is_done(&self) -> bool {
        self.count.load(Ordering::Relaxed) >= self.target
    }

    /// Runs `case` with one seed after the other until it has counted up to the target; with
    /// `OURDB_SEED` in the environment with that seed alone.
    pub(crate) fn run(&self, case: impl Fn(u64) -> Verdict) {
        let single = std::env::var("OURDB_SEED").ok();
        let single = single.map(|text| text.parse().expect("OURDB_SEED is a number"));
        let mut seed = single.unwrap_or(0);
        loop {
            if let Err(message) = case(seed) {
                panic!(
                    "seed {seed}: {message}\n\nThe same again:\n  OURDB_SEED={seed}{} cargo test --profile checked --test torture {} -- --nocapture\n",
                    if torture() { " OURDB_TORTURE=1" } else { "" },
                    self.name
                );
            }
            if single.is_some() || self.is_done() {
                return;
            }
            seed += 1;
        }
    }

    /// Prints what was done, and leaves it as a row of the table.
    pub(crate) fn end(self) {
        let count = self.count.into_inner();
        let seconds = self.began.elapsed().as_secs_f64();
        let row = format!(
            "| {} | {count} {} | {} | 0 | {seconds:.0} s |",
            self.name.replace('_', " "),
            self.unit,
            self.target
        );
        println!("{row}");
        if std::env::var_os("OURDB_SEED").is_some() {
            return;
        }
        assert!(count >= self.target, "{row}: less than was to be looked at");
        fs::create_dir_all(rows()).expect("a directory for the rows");
        fs::write(rows().join(self.name), row + "\n").expect("the row is written");
    }
}
