//! The C boundary: pointers in, codes out. Nothing is decided here that the engine can decide.
//!
//! Every function keeps the same conventions, and keeps them through the same few helpers:
//!
//! - `call` is the way in and out: it catches panics, poisons the handle after one, and turns
//!   the outcome into a code. An out parameter is written once, at the end: the answer, or zero.
//! - `pointer` looks at every pointer from C before it is used.
//! - `sized` copies structs that begin with their size, and grow.
//! - `handle` knows which handles are open, so that a closed one is an error code.
//! - `failure` keeps what went wrong for `ourdb_errmsg`.
//!
//! An out parameter is a raw pointer and not a `&mut`: a C caller may read its argument and take
//! the answer in the same variable, as in `ourdb_insert(db, &id, sizeof id, &id)`.
//!
//! `include/ourdb.h` is made from these files: the doc comment of a public item is its text in
//! the header, so it is written for C. `ourdb.h.in` has the chapters and the order. After a change
//! here, `OURDB_UPDATE_HEADER=1 cargo test --test header` writes the header anew.

#![allow(
    clippy::missing_safety_doc,
    reason = "a doc comment here is C documentation; what a caller must keep is in the header"
)]
#![allow(
    non_camel_case_types,
    reason = "types have the names that C knows them by"
)]

mod call;
mod changes;
mod codes;
mod database;
mod failure;
mod handle;
mod history;
mod iter;
mod library;
mod long_work;
mod many;
mod memory;
mod messages;
mod options;
mod order;
mod panics;
mod pointer;
mod records;
mod sized;
mod stats;
mod txn;

pub use changes::*;
pub use codes::*;
pub use database::*;
pub use handle::{ourdb, ourdb_iter, ourdb_txn};
pub use history::*;
pub use iter::*;
pub use library::*;
pub use long_work::*;
pub use many::*;
pub use memory::*;
pub use messages::*;
pub use options::*;
pub use order::*;
pub use records::*;
pub use stats::*;
pub use txn::*;
