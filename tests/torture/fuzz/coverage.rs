//! Makes the corpus anew: runs the fuzzer in a build that counts which code is run, and keeps the
//! directories that reach something new. `tests/corpus/README.md` has the command.

// The counters are the compiler's: it hands them over by their addresses.
#![allow(unsafe_code)]

use std::collections::BTreeSet;
use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use super::corpus::{encode_content, path};
use super::exercise::{Way, exercise};
use super::mutate::mutate;
use super::seeds::Seed;
use super::storage::Files;
use super::{Pool, pool};
use crate::support::Random;

/// Longer directories are not kept, in bytes.
const LONGEST: usize = 4000;
/// Nor more of them than this, in bytes all together.
const MOST: usize = 250 << 10;

static COUNTERS: Mutex<Vec<&'static [AtomicU8]>> = Mutex::new(Vec::new());

/// Called by each instrumented piece of the program before `main`.
///
/// # Safety
///
/// The compiler passes the bounds of an array of counters that lives as long as the program.
#[unsafe(no_mangle)]
unsafe extern "C" fn __sanitizer_cov_8bit_counters_init(
    start: *const AtomicU8,
    stop: *const AtomicU8,
) {
    // SAFETY: see above.
    let counters = unsafe { std::slice::from_raw_parts(start, stop.offset_from_unsigned(start)) };
    COUNTERS.lock().unwrap().push(counters);
}

/// What was run since the last call: for each place in the code that was, how often about.
fn reached() -> BTreeSet<(usize, u32)> {
    let counters = COUNTERS.lock().unwrap();
    let mut reached = BTreeSet::new();
    for (place, counter) in counters.iter().copied().flatten().enumerate() {
        let count = counter.swap(0, Ordering::Relaxed);
        if count > 0 {
            reached.insert((place, count.ilog2() / 2));
        }
    }
    reached
}

/// Replaces the corpus.
fn write(entries: &[Files]) {
    let mut bytes = Vec::new();
    for files in entries {
        bytes.extend_from_slice(&encode(files));
    }
    fs::write(path(), bytes).expect("tests/corpus can be written");
}

/// One directory.
fn encode(files: &Files) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&(files.len() as u16).to_le_bytes());
    for (name, content) in files {
        bytes.extend_from_slice(&(name.len() as u16).to_le_bytes());
        bytes.extend_from_slice(name.as_bytes());
        encode_content(&mut bytes, content);
    }
    bytes
}

#[test]
fn make_the_corpus() {
    let counts = !COUNTERS.lock().unwrap().is_empty();
    assert!(counts, "this build does not count what is run");
    let minutes = std::env::var("OURDB_FUZZ_MINUTES").map_or(10, |text| text.parse().unwrap());
    let until = Instant::now() + Duration::from_secs(60 * minutes);
    let Pool {
        mut directories,
        begun,
    } = pool();
    let mut known = BTreeSet::new();
    let mut gains: Vec<BTreeSet<(usize, u32)>> = Vec::new();
    let mut number = 0;
    while Instant::now() < until {
        number += 1;
        let mut random = Random::new(number);
        let base = if number <= directories.len() as u64 && gains.is_empty() {
            number as usize - 1
        } else {
            random.below(directories.len() as u64) as usize
        };
        let (files, _) = mutate(&directories[base], &directories, &mut random);
        let way = Way::choose(&mut random);
        reached();
        if let Err(message) = exercise(&files, &way, None, &mut random) {
            println!("seed {number}: {message}");
        }
        let now = reached();
        if now.is_subset(&known) || encode(&files).len() > LONGEST {
            continue;
        }
        known.extend(now.iter().copied());
        gains.push(now);
        directories.push(Seed {
            name: format!("found {number}"),
            files,
            truth: None,
        });
        println!(
            "{number}: {} places, {} directories",
            known.len(),
            gains.len()
        );
    }
    write(&smallest(&directories[begun..], &gains));
}

/// As few and as short directories as reach all that was reached, nearly.
fn smallest(found: &[Seed], gains: &[BTreeSet<(usize, u32)>]) -> Vec<super::storage::Files> {
    let mut left: BTreeSet<(usize, u32)> = gains.iter().flatten().copied().collect();
    let mut chosen = Vec::new();
    let mut len = 0;
    while !left.is_empty() && len < MOST {
        let worth = |index: usize| {
            let news = gains[index].intersection(&left).count() as u64;
            news * 1_000_000 / (200 + encode(&found[index].files).len() as u64)
        };
        let best = (0..found.len()).max_by_key(|&index| worth(index));
        let best = best.expect("something was found");
        len += encode(&found[best].files).len();
        left = left.difference(&gains[best]).copied().collect();
        chosen.push(found[best].files.clone());
    }
    chosen
}
