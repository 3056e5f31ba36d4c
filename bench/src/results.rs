//! All samples, and the file that keeps them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::worker::Stage;
use crate::{Options, machine};

/// What a run has found; the JSON is this.
#[derive(Serialize, Deserialize)]
pub struct Results {
    /// Where.
    pub machine: BTreeMap<String, String>,
    /// Records of each database.
    pub records: u32,
    /// Rounds of each store.
    pub rounds: u32,
    /// Milliseconds of each workload.
    pub time_ms: u64,
    /// Megabytes of OurDB's log when its process is killed; the others hold as many records.
    pub kill_mb: u64,
    /// The stores, in the order of the tables.
    pub engines: Vec<String>,
    /// The samples of all rounds, by store and row.
    pub samples: BTreeMap<String, BTreeMap<String, Vec<Sample>>>,
    /// Stages that were not finished.
    pub failures: Vec<String>,
}

/// One figure of one round.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub struct Sample {
    /// In the row's unit.
    pub value: f64,
    /// Of how many operations it is the mean.
    pub operations: u64,
}

/// What the samples of a row come to.
#[derive(Clone, Copy)]
pub struct Summary {
    /// The one in the middle, or the mean of the two there.
    pub median: f64,
    /// The lowest.
    pub least: f64,
    /// The highest.
    pub most: f64,
}

impl Results {
    /// Without any sample.
    pub fn new<'a>(options: &Options, engines: impl Iterator<Item = &'a str>) -> Results {
        Results {
            machine: machine::describe(&options.directory),
            records: options.records,
            rounds: options.rounds,
            time_ms: options.time_ms,
            kill_mb: options.kill_mb,
            engines: engines.map(str::to_owned).collect(),
            samples: BTreeMap::new(),
            failures: Vec::new(),
        }
    }

    /// One more sample.
    pub fn add(&mut self, engine: &str, row: &str, value: f64, operations: u64) {
        let rows = self.samples.entry(engine.to_owned()).or_default();
        rows.entry(row.to_owned())
            .or_default()
            .push(Sample { value, operations });
    }

    /// A stage that wasn't finished.
    pub fn fail(&mut self, engine: &str, stage: Stage, round: u32, why: &str) {
        self.failures
            .push(format!("{engine}, round {}, {stage:?}: {why}", round + 1));
    }

    /// What a store has reached in a row, if it has it.
    pub fn summary(&self, engine: &str, row: &str) -> Option<Summary> {
        let mut values: Vec<f64> = self
            .samples
            .get(engine)?
            .get(row)?
            .iter()
            .map(|sample| sample.value)
            .collect();
        values.sort_unstable_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        let median = (values[(values.len() - 1) / 2] + values[values.len() / 2]) / 2.0;
        Some(Summary {
            median,
            least,
            most,
        })
    }
}
