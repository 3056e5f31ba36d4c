//! What the tests of OurDB's promises share: the reference model, a simulated storage that crashes
//! and fails on request, a writer of herolib directories, and a few small tools.

// Each test program uses its own part of this module.
#![allow(dead_code, unreachable_pub)]

pub mod herolib;
pub mod interleave;
pub mod model;
pub mod readers;
pub mod script;
pub mod serial;
pub mod side;
pub mod sim;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// The outcome of a check: nothing, or in words what was expected and what was found.
pub type Verdict<T = ()> = Result<T, String>;

/// Fails a check with a formatted message.
macro_rules! refute {
    ($($message:tt)*) => { return Err(format!($($message)*)) };
}
pub(crate) use refute;

/// Fails a check unless a condition holds.
macro_rules! require {
    ($condition:expr, $($message:tt)*) => {
        if !$condition { return Err(format!($($message)*)) }
    };
}
pub(crate) use require;

/// Says in front of a failed check what was being done.
pub trait Context<T> {
    fn context(self, what: impl FnOnce() -> String) -> Verdict<T>;
}

impl<T> Context<T> for Verdict<T> {
    fn context(self, what: impl FnOnce() -> String) -> Verdict<T> {
        self.map_err(|message| format!("{}:\n{message}", what()))
    }
}

/// A small generator of random numbers (splitmix64): the same seed gives the same numbers, on
/// every machine and in every release.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`, which is not 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// True in `percent` of 100 cases.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// A directory of its own for one test, removed with all in it when dropped.
#[derive(Debug)]
pub struct TempDirectory(PathBuf);

impl TempDirectory {
    pub fn new() -> TempDirectory {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("ourdb-{}-{number}", std::process::id());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&path).expect("a directory for the test can be made");
        TempDirectory(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDirectory {
    fn drop(&mut self) {
        // What can't be removed is left to `cargo clean`.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// How many cases a property test runs: `PROPTEST_CASES` from the environment, else `default`.
pub fn cases(default: u32) -> u32 {
    std::env::var("PROPTEST_CASES")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

/// Whether `OURDB_TORTURE=1` asks for the long form of the crash tests.
pub fn torture() -> bool {
    std::env::var("OURDB_TORTURE").is_ok_and(|text| text == "1")
}

/// Runs a property on random inputs; a failure is shrunk and reported with its minimal input.
pub fn check_property<S: proptest::strategy::Strategy>(
    cases: u32,
    shrinking_steps: u32,
    strategy: S,
    property: impl Fn(S::Value) -> Verdict,
) {
    use proptest::test_runner::{Config, TestCaseError, TestRunner};
    let config = Config {
        cases,
        max_shrink_iters: shrinking_steps,
        failure_persistence: None,
        ..Config::default()
    };
    let outcome = TestRunner::new(config).run(&strategy, |input| {
        property(input).map_err(TestCaseError::fail)
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
}
