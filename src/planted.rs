//! Bugs that can be planted, to see whether the tests find them.
//!
//! `planted!(name)` is `false`, and costs nothing, unless the crate is compiled with
//! `--cfg ourdb_planted`; then it says whether `OURDB_PLANTED` in the environment names that bug. The
//! list of all, and what must find each, is in `tests/torture/teeth.rs`.

#[cfg(not(ourdb_planted))]
macro_rules! planted {
    ($bug:ident) => {
        false
    };
}

#[cfg(ourdb_planted)]
macro_rules! planted {
    ($bug:ident) => {
        $crate::planted::is(stringify!($bug))
    };
}

pub(crate) use planted;

/// Whether this is the bug that the environment asks for.
#[cfg(ourdb_planted)]
pub(crate) fn is(bug: &str) -> bool {
    static ASKED: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    let asked = ASKED.get_or_init(|| std::env::var("OURDB_PLANTED").ok());
    asked.as_deref() == Some(bug)
}
