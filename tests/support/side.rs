//! A database on a simulated storage that comes and goes.

use std::sync::Arc;

use ourdb::storage::Storage;
use ourdb::{Db, Options, Sync};

use super::Random;
use super::sim::{Disk, Loss, SimStorage};

/// A database that is opened when it is needed.
pub struct Side {
    pub storage: SimStorage,
    pub options: Options,
    pub db: Option<Db>,
}

/// One mode or the other.
pub fn any_sync(random: &mut Random) -> Sync {
    match random.chance(50) {
        true => Sync::Os,
        false => Sync::Commit,
    }
}

impl Side {
    pub fn new(options: Options, random: &mut Random) -> Side {
        Side {
            storage: SimStorage::new(Disk::new(), random.chance(70), random.next()),
            options,
            db: None,
        }
    }

    pub fn db(&mut self) -> &Db {
        let (storage, options) = (&self.storage, &self.options);
        self.db.get_or_insert_with(|| {
            let opened = Db::open_on(Arc::new(storage.clone()), options);
            opened.unwrap_or_else(|error| panic!("it opens again: {error}"))
        })
    }

    /// Closes it, kills it, loses its checkpoint, or loses power.
    pub fn restart(&mut self, random: &mut Random, lose_power: bool) {
        let Some(db) = self.db.take() else {
            return;
        };
        match random.below(4) {
            0 => db.close().expect("it closes"),
            1 => drop(db),
            2 => {
                drop(db);
                let _ = self.storage.remove("index");
            }
            _ if !lose_power => drop(db),
            _ => {
                drop(db);
                let left = self.storage.disk().lose_power(&Loss::any(random));
                self.storage = SimStorage::new(left, random.chance(70), random.next());
            }
        }
    }
}
