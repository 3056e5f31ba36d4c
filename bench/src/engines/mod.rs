//! The stores, each in a file of its own.

use crate::engine::{Engine, Outcome, Setup};

mod assemblage_kv;
mod bytes;
mod db_rs;
mod fjall;
mod hmdb;
mod hurrahdb;
mod lmdb;
mod mapped_tree;
mod mdbx;
mod ourdb;
mod redb;
mod rocksdb;
mod sled;
mod sqlite;
mod yakvdb;

/// Bytes of cache for a store that has one of its own: a database of a million records fits.
const CACHE: usize = 1 << 30;

/// A store of the benchmark.
pub struct Entry {
    /// Its name in the tables and on the command line.
    pub name: &'static str,
    /// Opens it, or makes it.
    pub open: fn(&Setup) -> Outcome<Box<dyn Engine>>,
}

/// The crates of stores, where they are part of the program.
const CRATES: &[&str] = &[
    "mdbx-sys",
    "redb",
    "fjall",
    "sled",
    "assemblage_kv",
    "db-rs",
    "hmdb",
    "hurrahdb",
    "yakvdb",
];

/// Names and versions of what is measured.
pub fn versions() -> String {
    let libraries = [
        format!("OurDB {}", ourdb::version()),
        format!("LMDB {}", lmdb::version()),
        format!("RocksDB {}", rocksdb::version()),
        format!("SQLite {}", sqlite::version()),
    ];
    let lock = include_str!("../../../Cargo.lock");
    let crates = CRATES.iter().filter_map(|name| {
        let (_, package) = lock.split_once(&format!("name = \"{name}\"\nversion = \""))?;
        Some(format!("{name} {}", package.split('"').next()?))
    });
    libraries
        .into_iter()
        .chain(crates)
        .collect::<Vec<_>>()
        .join(", ")
}

/// All of them, in the order of the tables.
pub const ALL: &[Entry] = &[
    Entry {
        name: "OurDB",
        open: ourdb::open,
    },
    Entry {
        name: "LMDB",
        open: lmdb::open_default,
    },
    Entry {
        name: "LMDB-writemap",
        open: lmdb::open_writable_map,
    },
    Entry {
        name: "libmdbx-writemap",
        open: mdbx::open_writable_map,
    },
    Entry {
        name: "redb",
        open: redb::open_default,
    },
    Entry {
        name: "redb-none",
        open: redb::open_none,
    },
    Entry {
        name: "RocksDB",
        open: rocksdb::open,
    },
    Entry {
        name: "fjall",
        open: fjall::open,
    },
    Entry {
        name: "sled",
        open: sled::open,
    },
    Entry {
        name: "SQLite",
        open: sqlite::open,
    },
    Entry {
        name: "AssemblageKV",
        open: assemblage_kv::open,
    },
    Entry {
        name: "db-rs",
        open: db_rs::open,
    },
    Entry {
        name: "hmdb",
        open: hmdb::open,
    },
    Entry {
        name: "hurrahdb",
        open: hurrahdb::open,
    },
    Entry {
        name: "yakvdb",
        open: yakvdb::open,
    },
];
