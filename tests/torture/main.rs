//! Campaigns against OurDB's promises: each looks at as many cases of one kind as its target says,
//! and stops at the first case that breaks a promise.
//!
//! `make torture` runs them in full and prints the table; without `OURDB_TORTURE=1` each runs in a
//! short form. Everything random comes from a seed, and a failure prints the command that runs the
//! seed again.

mod backups;
mod beside;
mod bits;
mod compacting;
mod compaction;
mod crash;
mod crashed_backups;
mod damage;
mod environment;
mod erasure;
mod faults;
mod feed;
mod followers;
mod fuzz;
mod group;
mod inject;
mod interleaved;
mod judge;
mod kill;
mod look;
mod named;
#[path = "../support/programs.rs"]
mod programs;
mod readers;
mod real;
mod recovery;
mod remains;
mod remnants;
mod report;
mod run;
mod scenes;
mod schedules;
mod serializable;
mod shapes;
#[path = "../support/mod.rs"]
mod support;
mod syncs;
#[cfg(ourdb_planted)]
mod teeth;
mod torn;
mod trial;
mod truth;
mod watch;
mod workload;
