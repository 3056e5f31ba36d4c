//! OurDB: an embedded, versioned record store.
//!
//! A database is a directory of records under 32-bit ids. A value is never overwritten: each
//! version of a record knows the one before it, its commit and its time, and a deletion is a
//! version too. Current values are found through a direct-address table and read from mapped
//! files without a lock or a system call.
//!
//! This is the Rust interface. The C interface (`include/ourdb.h`) lies over it in `ffi`, and
//! says of each function what it costs and guarantees; the architecture is in
//! `docs/ARCHITECTURE.md`, the bytes on disk in `docs/FORMAT.md`.
//!
//! ```
//! # fn main() -> ourdb::Result<()> {
//! let db = ourdb::Db::open("", &ourdb::Options { memory: true, ..Default::default() })?;
//! let id = db.insert(b"first")?;
//! db.set(id, b"second")?;
//! assert_eq!(db.get(id)?, b"second");
//! assert_eq!(db.history(id, 0)?.len(), 2);
//! db.close()
//! # }
//! ```

#[cfg(not(all(unix, target_endian = "little")))]
compile_error!("OurDB maps its files as little-endian words, on Unix");

mod backup;
mod base;
mod bytes;
mod changes;
pub mod check;
mod db;
pub mod error;
#[allow(unsafe_code)]
pub mod ffi;
mod hash;
mod herolib;
mod history;
mod location;
mod log;
mod lookup;
mod manifest;
pub mod options;
mod planted;
mod reader;
pub mod records;
mod retention;
#[allow(unsafe_code)]
pub mod storage;
mod sync;

pub use check::{CheckReport, Damage};
pub use db::{Db, Order, Scan, Stats, Txn};
pub use error::{Error, Neighbour, NotFound, Result};
pub use options::{IoMode, LookupKind, Options, Sync};
pub use records::{Record, Records, State};
pub use retention::Retention;
