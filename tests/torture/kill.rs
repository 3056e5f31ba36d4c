//! The death of the process, by a real `kill -9`, on real files.

use crate::programs::{Link, Scratch, compile, succeed};
use crate::report::Campaign;
use crate::support::torture;

/// One writer; see `c-tests/kill.c`.
#[test]
fn kills_of_a_writer() {
    kill("kills_of_a_writer", "c-tests/kill.c", 40, 3_000);
}

/// Several threads that write; see `c-tests/torture/kill_threads.c`.
#[test]
fn kills_of_writing_threads() {
    let source = "c-tests/torture/kill_threads.c";
    kill("kills_of_writing_threads", source, 90, 2_500);
}

fn kill(name: &'static str, source: &str, short: u64, full: u64) {
    let campaign = Campaign::begin(name, "kills", short, full);
    let rounds = if torture() { full } else { short };
    let scratch = Scratch::new(name);
    let program = compile(source, Link::Shared, &scratch);
    let mut command = scratch.command(&program);
    // Fewer commits before each kill, for more kills.
    command
        .env("OURDB_TEST_SCALE", "0.2")
        .arg(rounds.to_string());
    succeed(command);
    campaign.count(rounds);
    campaign.end();
}
