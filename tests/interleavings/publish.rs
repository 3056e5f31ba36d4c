//! Readers beside a writer: each read compared with what was committed, as in the campaign of that
//! name, in short.

use std::sync::Arc;

use ourdb::storage::Storage;
use ourdb::storage::memory::MemoryStorage;
use ourdb::{Db, Options, Sync};
use shuttle::rand::Rng;

use crate::explore;
use crate::pausing::Pausing;
use crate::support::readers::Readers;
use crate::support::script::Script;
use crate::support::sim::{Disk, SimStorage};

/// A few commits with two readers beside them.
fn read_beside_a_writer(storage: Arc<dyn Storage>, sync: Sync, file_size: u32) {
    let options = Options {
        key_value: true,
        native: true,
        record_nr_max: 2100,
        sync,
        file_size,
        ..Options::default()
    };
    let db = Db::open_on(storage, &options).expect("a new database");
    let seed = shuttle::rand::thread_rng().r#gen();
    let readers = Readers {
        count: 2,
        most_reads: 5,
        seed,
    };
    let script = Script::new(seed, 6);
    if let Err(message) = readers.beside_a_writer(&db, &script) {
        panic!("{message}");
    }
    db.close().expect("close");
}

#[test]
fn readers_see_whole_commits() {
    explore(2000, || {
        read_beside_a_writer(Arc::new(MemoryStorage::new()), Sync::Os, 0);
    });
}

#[test]
fn readers_see_whole_commits_across_data_files() {
    explore(2000, || {
        read_beside_a_writer(Arc::new(MemoryStorage::new()), Sync::Os, 100);
    });
}

#[test]
fn readers_see_synced_commits_alone() {
    explore(1000, || {
        let storage = Pausing(SimStorage::new(Disk::new(), true, 1));
        read_beside_a_writer(Arc::new(storage), Sync::Commit, 3000);
    });
}

#[test]
fn readers_beside_the_thread_that_syncs() {
    explore(1000, || {
        let storage = Pausing(SimStorage::new(Disk::new(), true, 1));
        read_beside_a_writer(Arc::new(storage), Sync::Interval(1), 3000);
    });
}
