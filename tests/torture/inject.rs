//! The operating system fails, on real files, under the library as C programs use it: a library in
//! front of the C library (`c-tests/torture/inject.c`) makes its calls fail from outside.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::programs::{Link, Scratch, compile, compile_injector, succeed};
use crate::report::Campaign;
use crate::support::torture;

/// Every call fails in turn, with each error that it can have; see `c-tests/torture/faults.c`.
#[test]
fn system_calls_that_fail() {
    let campaign = Campaign::begin("system_calls_that_fail", "failures", 450, 6000);
    let scratch = Scratch::new("faults");
    let program = compile("c-tests/torture/faults.c", Link::Shared, &scratch);
    let mut command = scratch.command(&program);
    command
        .env("LD_PRELOAD", compile_injector(&scratch))
        .env("TMPDIR", in_memory().unwrap_or(&scratch.path))
        // Every so many cases.
        .arg(if torture() { "4" } else { "211" });
    let output = String::from_utf8(succeed(command).stdout).expect("text");
    campaign.count(first_number(&output));
    campaign.end();
}

/// What no program may notice: signals that interrupt calls, reads and writes that move less than
/// they were asked for, space that can't be reserved. The programs in `c-tests/` pass under it.
#[test]
fn calls_that_are_interrupted_or_short() {
    let campaign = Campaign::begin(
        "calls_that_are_interrupted_or_short",
        "checks",
        10_000,
        1_000_000,
    );
    let scratch = Scratch::new("interrupted");
    let injector = compile_injector(&scratch);
    let under = |program: &Path, plan: &str| {
        let mut command = scratch.command(program);
        command
            .env("LD_PRELOAD", &injector)
            .env("OURDB_INJECT", plan)
            .env("OURDB_TEST_SCALE", if torture() { "0.1" } else { "0.01" });
        campaign.count(checks(command));
    };
    let programs: Vec<PathBuf> = ["history", "basics", "many", "herolib", "locking"]
        .iter()
        .take(if torture() { 5 } else { 2 })
        .map(|name| compile(&format!("c-tests/{name}.c"), Link::Shared, &scratch))
        .collect();
    for program in programs {
        under(&program, "storm,longest=1000,no-reserve");
        if torture() {
            under(&program, "storm");
            under(&program, "longest=7");
            under(&program, "no-reserve");
        }
    }
    campaign.end();
}

/// How many checks a program of `c-tests/` says that it made.
fn checks(command: Command) -> u64 {
    let output = String::from_utf8(succeed(command).stdout).expect("text");
    let number = output
        .split_once(": ")
        .and_then(|(_, rest)| rest.split_once(" checks passed"))
        .and_then(|(number, _)| number.parse().ok());
    number.unwrap_or_else(|| panic!("no number of checks: {output}"))
}

/// The number that stands alone on a line of what a program printed.
pub(crate) fn first_number(output: &str) -> u64 {
    let number = output.lines().find_map(|line| line.parse().ok());
    number.unwrap_or_else(|| panic!("no number: {output}"))
}

/// A directory in memory. What is on disk after a power loss is not the question here, so no real
/// sync is needed.
pub(crate) fn in_memory() -> Option<&'static Path> {
    let directory = Path::new("/dev/shm");
    directory.is_dir().then_some(directory)
}
