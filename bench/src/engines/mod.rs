//! The stores, each in a file of its own.

use crate::engine::{Engine, Outcome, Setup};

mod ourdb;

/// A store of the benchmark.
pub struct Entry {
    /// Its name in the tables and on the command line.
    pub name: &'static str,
    /// Opens it, or makes it.
    pub open: fn(&Setup) -> Outcome<Box<dyn Engine>>,
}

/// All of them, in the order of the tables.
pub const ALL: &[Entry] = &[Entry {
    name: "OurDB",
    open: ourdb::open,
}];
