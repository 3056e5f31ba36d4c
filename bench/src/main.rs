//! OurDB beside other embedded stores: `make bench`, and `bench/README.md`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod catalogue;
mod data;
mod engine;
mod engines;
mod machine;
mod measure;
mod memory;
mod no_sync;
mod parent;
mod plots;
mod results;
mod tables;
mod worker;
mod workloads;

/// Measures OurDB beside other embedded stores.
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Command {
    #[command(subcommand)]
    only: Option<Only>,
    #[command(flatten)]
    options: Options,
}

#[derive(Subcommand)]
enum Only {
    /// What this program starts itself: one stage of one store.
    #[command(hide = true)]
    Worker {
        /// A job as JSON.
        job: String,
    },
    /// The names of all stores.
    Engines,
    /// Plots of all results in a directory, beside them.
    Plot {
        /// Where the results are.
        #[arg(default_value = "bench/results")]
        results: PathBuf,
    },
}

/// What is run.
#[derive(clap::Args)]
pub struct Options {
    /// Records of each database.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1000..=1_000_000_000))]
    records: u32,
    /// Rounds: in each all stores are measured.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Milliseconds of each workload.
    #[arg(long, default_value_t = 250)]
    time_ms: u64,
    /// Megabytes of OurDB's log when its process is killed.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    kill_mb: u64,
    /// Seconds after which a stage of a store is given up.
    #[arg(long, default_value_t = 300)]
    limit_s: u64,
    /// Only these stores, separated by commas.
    #[arg(long, value_delimiter = ',')]
    engines: Vec<String>,
    /// Where databases are made; removed at the end.
    #[arg(long, default_value = "bench-data")]
    directory: PathBuf,
    /// Where the results go.
    #[arg(long, default_value = "bench/results")]
    results: PathBuf,
}

fn main() -> ExitCode {
    let command = Command::parse();
    let outcome = match &command.only {
        Some(Only::Worker { job }) => return work(job),
        Some(Only::Engines) => {
            engines::ALL
                .iter()
                .for_each(|entry| println!("{}", entry.name));
            return ExitCode::SUCCESS;
        }
        Some(Only::Plot { results }) => plots::draw(results),
        None => run(&command.options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ourdb-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// One stage, in a process of its own.
fn work(job: &str) -> ExitCode {
    let Ok(job) = serde_json::from_str::<worker::Job>(job) else {
        return ExitCode::FAILURE;
    };
    if worker::work(&job) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Everything; the results as JSON and as Markdown.
fn run(options: &Options) -> Result<(), Box<dyn std::error::Error>> {
    let results = parent::run(options)?;
    let text = tables::markdown(&results);
    std::fs::create_dir_all(&options.results)?;
    let file = options.results.join(format!("records-{}", options.records));
    std::fs::write(
        file.with_extension("json"),
        serde_json::to_string_pretty(&results)? + "\n",
    )?;
    std::fs::write(file.with_extension("md"), &text)?;
    print!("{text}");
    plots::draw(&options.results)
}
