//! What operations cost in instructions: counted by callgrind, and compared with what is recorded in
//! `c-bench/instructions.txt`. A count is the same on a busy machine and on an idle one, so a slowdown
//! by more instructions is seen where times tell nothing.
//!
//! `OURDB_RECORD_INSTRUCTIONS=1 cargo test --test instructions`, or `make record-instructions`,
//! writes the record anew.

#[path = "support/programs.rs"]
mod programs;

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::process::Command;

use programs::*;

const RECORD: &str = "c-bench/instructions.txt";

/// How far a count may be from its record, as a share of that.
const MARGIN: f64 = 0.05;

/// Instructions per operation, by the name of the workload.
type Counts = BTreeMap<String, f64>;

#[test]
fn no_operation_takes_more_instructions_than_recorded() {
    if !is_recorded_kind_of_machine() {
        return skip(
            "counts of instructions",
            "the record is of x86-64 with AVX2, whose way through checksums and copies is its own",
        );
    }
    if !runs(Command::new("valgrind").arg("--version")) {
        return skip("counts of instructions", "valgrind is not installed");
    }
    let counts = count();
    let path = project().join(RECORD);
    if env::var("OURDB_RECORD_INSTRUCTIONS").as_deref() == Ok("1") {
        fs::write(&path, record_of(&counts, &tools())).expect("the record of instructions");
    }
    let record = fs::read_to_string(&path).expect("the record of instructions");
    let (slower, quicker) = compare(&parse(&record), &counts);
    for line in &quicker {
        println!("NOTE: {line}; make record-instructions keeps it so");
    }
    let recorded_with = record.lines().next_back().unwrap_or_default();
    let tools = tools();
    // Another compiler makes other code, for which only CI answers.
    if env::var_os("CI").is_none() && recorded_with != format!("# {tools}") {
        for line in &slower {
            println!("NOTE: with other tools than were recorded: {line}");
        }
        return;
    }
    assert!(
        slower.is_empty(),
        "{}\nThe record says: {recorded_with}\nThis is:         # {tools}\n\
         If it has to be so: make record-instructions",
        slower.join("\n"),
    );
}

#[test]
fn a_count_outside_of_the_margin_is_told_with_both_numbers() {
    let counts = |numbers: [f64; 4]| -> Counts {
        let names = ["a", "b", "c", "d"].map(str::to_owned);
        names.into_iter().zip(numbers).collect()
    };
    let recorded = counts([100.0; 4]);
    let (slower, quicker) = compare(&recorded, &counts([105.1, 104.9, 95.1, 94.9]));
    assert_eq!(
        slower,
        ["a: 105.1 instructions, recorded are 100.0: 5.1 % more"]
    );
    assert_eq!(
        quicker,
        ["d: 94.9 instructions, recorded are 100.0: 5.1 % less"]
    );
    assert_eq!(parse(&record_of(&recorded, "tools")), recorded);
}

/// Compares each workload; a record of others than these is stale.
fn compare(recorded: &Counts, counts: &Counts) -> (Vec<String>, Vec<String>) {
    assert!(
        recorded.keys().eq(counts.keys()),
        "{RECORD} is of other workloads; make record-instructions"
    );
    let (mut slower, mut quicker) = (Vec::new(), Vec::new());
    for (name, &count) in counts {
        let was = recorded[name];
        let change = count / was - 1.0;
        let line = |word: &str| {
            let percent = change.abs() * 100.0;
            format!("{name}: {count:.1} instructions, recorded are {was:.1}: {percent:.1} % {word}")
        };
        if change > MARGIN {
            slower.push(line("more"));
        } else if change < -MARGIN {
            quicker.push(line("less"));
        }
    }
    (slower, quicker)
}

/// Runs `c-bench/instructions.c` under callgrind.
fn count() -> Counts {
    let scratch = Scratch::new("instructions");
    let program = compile("c-bench/instructions.c", Link::Shared, &scratch);
    let mut command = scratch.command("valgrind".as_ref());
    command
        .args(["--tool=callgrind", "--toggle-collect=counted_*"])
        .args(["--compress-strings=no", "--callgrind-out-file=profile"])
        .arg(&program)
        .arg("instructions.db")
        // Otherwise the first call of each function pays for finding it.
        .env("LD_BIND_NOW", "1");
    let output = succeed(command);
    let profile = fs::read_to_string(scratch.path.join("profile")).expect("the profile");
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(|line| {
            let (name, operations) = line.split_once(' ').expect("a name and a number");
            let operations: f64 = operations.parse().expect("how many operations");
            (name.to_owned(), instructions(&profile, name) / operations)
        })
        .collect()
}

/// The instructions of the one call of the function that is counted, with all that it calls. In a
/// profile a call is three lines: `cfn=NAME`, `calls=…`, and the line in the source with the cost.
fn instructions(profile: &str, workload: &str) -> f64 {
    let callee = format!("cfn=counted_{workload}");
    let mut lines = profile.lines().skip_while(|&line| line != callee).skip(1);
    let calls = lines.next().unwrap_or_default();
    assert!(calls.starts_with("calls=1 "), "{callee}: {calls:?}");
    let cost = lines.next().and_then(|line| line.split(' ').nth(1));
    let cost = cost.and_then(|cost| cost.parse().ok());
    cost.unwrap_or_else(|| panic!("no cost of {callee}"))
}

fn parse(record: &str) -> Counts {
    record
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let (name, count) = line.split_once(' ').expect("a name and a count");
            (name.to_owned(), count.trim().parse().expect("a count"))
        })
        .collect()
}

fn record_of(counts: &Counts, tools: &str) -> String {
    let mut record = String::from(
        "# Instructions per operation, or per record, of c-bench/instructions.c as callgrind counts them:\n\
         # written by `make record-instructions`, compared by tests/instructions.rs. What is counted, and\n\
         # what isn't, is in docs/PERFORMANCE.md.\n",
    );
    for (name, count) in counts {
        record += &format!("{name:<15} {count:.1}\n");
    }
    record + "# " + tools + "\n"
}

/// What the counts depend on beside the project.
fn tools() -> String {
    let rustc = Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    let mut versions = Vec::new();
    for mut command in [rustc, compiler(), Command::new("valgrind")] {
        command.arg("--version");
        let output = succeed(command);
        let text = String::from_utf8_lossy(&output.stdout);
        versions.push(text.lines().next().unwrap_or_default().to_owned());
    }
    versions.join(", ")
}

#[cfg(target_arch = "x86_64")]
fn is_recorded_kind_of_machine() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("pclmulqdq")
}

#[cfg(not(target_arch = "x86_64"))]
fn is_recorded_kind_of_machine() -> bool {
    false
}
