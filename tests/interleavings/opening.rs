//! Several processes open the same directory, as far as threads with a handle each can stand for them.

use std::sync::Arc;

use ourdb::storage::Storage;
use ourdb::{Db, Error, NotFound, Options};
use shuttle::thread;

use crate::explore;
use crate::pausing::Pausing;
use crate::support::sim::{Disk, SimStorage};

/// Whoever comes in the middle of it finds the database, the lock, or nothing yet: no damage, and nothing
/// of herolib's.
#[test]
fn a_database_that_is_being_made_is_there_or_not() {
    explore(3000, || {
        let storage = SimStorage::new(Disk::new(), true, 1);
        let open = |storage: Arc<dyn Storage>, read_only| {
            let options = Options {
                key_value: true,
                native: true,
                record_nr_max: 1000,
                read_only,
                ..Options::default()
            };
            thread::spawn(move || {
                let opened = Db::open_on(storage, &options);
                opened.and_then(|db| match read_only {
                    true => Ok(()),
                    false => db.set(1, b"one").and_then(|()| db.close()),
                })
            })
        };
        // One is quick, and the others are in the middle of their look while it does all of its work.
        let writers = [
            open(Arc::new(storage.clone()), false),
            open(Arc::new(Pausing(storage.clone())), false),
        ];
        let reader = open(Arc::new(Pausing(storage)), true);
        for writer in writers {
            let made = writer.join().expect("a writer");
            assert!(
                matches!(made, Ok(()) | Err(Error::Locked { .. })),
                "{made:?}"
            );
        }
        let read = reader.join().expect("a reader");
        let is_absent = matches!(read, Err(Error::NotFound(NotFound::Database(_))));
        assert!(read.is_ok() || is_absent, "{read:?}");
    });
}
