//! The engine's promises, one theme a file, through its Rust interface. One program, because all of
//! them need what is in `support`, and that takes longer to compile than they do.

mod auto_compact;
mod backup;
mod changes;
mod check;
mod compact;
mod concurrency;
mod crash;
mod damage;
mod difference;
mod erase;
mod erase_applied;
mod erase_beside;
mod erase_copies;
mod follow;
mod golden;
#[path = "../support/golden.rs"]
#[allow(dead_code, reason = "shared: each user needs a part of it")]
mod golden_directories;
mod herolib;
mod model;
#[path = "../support/mod.rs"]
mod support;
mod transactions;
