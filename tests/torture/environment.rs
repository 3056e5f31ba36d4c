//! What surrounds a database of a C program is not as it should be: the disk is full, or a limit,
//! a permission or another program stands in the way.

use crate::inject::{first_number, in_memory};
use crate::programs::{Link, Scratch, compile, compile_injector, succeed};
use crate::report::Campaign;
use crate::support::torture;

/// Small file systems that are really full; see `c-tests/torture/space.c`.
#[test]
fn full_disks() {
    let scratch = Scratch::new("full-disks");
    let program = compile("c-tests/torture/space.c", Link::Shared, &scratch);
    let mut command = scratch.command(&program);
    command
        .env("LD_PRELOAD", compile_injector(&scratch))
        .arg(if torture() { "20" } else { "1" });
    let campaign = Campaign::begin("full_disks", "calls on a full disk", 500, 10_000);
    let output = String::from_utf8(succeed(command).stdout).expect("text");
    print_remarks(&output);
    if output.contains("SKIPPED: a full disk") {
        return;
    }
    campaign.count(first_number(&output));
    campaign.end();
}

/// See `c-tests/torture/environment.c`.
#[test]
fn adverse_environments() {
    let campaign = Campaign::begin("adverse_environments", "situations", 200, 200);
    let output = output_in_memory("environment");
    campaign.count(first_number(&output));
    campaign.end();
}

/// See `c-tests/torture/memory.c`.
#[test]
fn allocations_that_fail() {
    let campaign = Campaign::begin("allocations_that_fail", "allocations", 100, 100);
    let output = output_in_memory("memory");
    if output.contains("SKIPPED: allocations") {
        return;
    }
    campaign.count(first_number(&output));
    campaign.end();
}

/// What a program of `c-tests/torture` prints, with its files in memory where there is room.
fn output_in_memory(name: &str) -> String {
    let scratch = Scratch::new(name);
    let source = format!("c-tests/torture/{name}.c");
    let program = compile(&source, Link::Shared, &scratch);
    let mut command = scratch.command(&program);
    command.env("TMPDIR", in_memory().unwrap_or(&scratch.path));
    let output = String::from_utf8(succeed(command).stdout).expect("text");
    print_remarks(&output);
    output
}

/// What a program had to skip, and what it notes.
fn print_remarks(output: &str) {
    for line in output.lines() {
        if line.starts_with("SKIPPED: ") || line.starts_with("NOTE: ") {
            println!("{line}");
        }
    }
}
