//! db-rs 0.4: a map in memory and a log.
//!
//! All records are in a `HashMap` in memory, and every opening reads the whole log to make it. Every
//! commit ends with an fsync of the log and nothing has a checksum; a log with a torn end can't be
//! opened any more. A set is a transaction of its own, which opens and locks a lock file besides. A
//! get is a look into the map, as cheap as a caller's own: the store lets its user choose the hash,
//! and lends the values. Writing needs exclusive access, so threads share it behind a lock of their
//! own, here too. The map has no order: a scan is a listing that is sorted here.

use super::bytes::Bytes;
use crate::engine::{Engine, Outcome, Session, Setup, Value, copy, wrong};
use db_rs::View;
use db_rs::config::Config;
use db_rs::views::hashmap::DbHashMap;
use rustc_hash::FxBuildHasher;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

type Map = DbHashMap<u32, Bytes, FxBuildHasher>;

/// Opens the store.
pub fn open(setup: &Setup) -> Outcome<Box<dyn Engine>> {
    let config = Config::default().log_location(setup.directory);
    Ok(Box::new(DbRs(RwLock::new(Map::init(&config)?))))
}

struct DbRs(RwLock<Map>);

impl DbRs {
    fn read(&self) -> RwLockReadGuard<'_, Map> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Map> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn commit(&self, change: impl FnOnce(&mut Map) -> db_rs::errors::Result<()>) -> Outcome {
        let mut map = self.write();
        let transaction = map.write_tx()?;
        change(&mut map)?;
        transaction.end_tx(&mut *map)?;
        Ok(())
    }
}

impl Engine for DbRs {
    fn session(&self) -> Outcome<Box<dyn Session + '_>> {
        Ok(Box::new(self))
    }

    fn shared(&self) -> Option<&(dyn Engine + Sync)> {
        Some(self)
    }

    /// Leaves the old log behind, as the store does. The first transaction after it reads all that it
    /// has written, which is its part rather than that of the write that comes next.
    fn compact(&self) -> Outcome {
        self.write().snapshot()?;
        self.commit(|_| Ok(()))
    }

    fn close(self: Box<Self>) -> Outcome {
        Ok(())
    }
}

impl Session for &DbRs {
    fn set(&mut self, id: u32, value: &Value) -> Outcome {
        self.commit(|map| map.insert(id, Bytes::new(value)).map(drop))
    }

    fn set_many(&mut self, ids: &[u32], values: &[Value]) -> Outcome {
        self.commit(|map| {
            ids.iter()
                .zip(values)
                .try_for_each(|(id, value)| map.insert(*id, Bytes::new(value)).map(drop))
        })
    }

    fn get(&mut self, id: u32, out: &mut Value) -> Outcome<bool> {
        match self.read().get(&id) {
            Some(value) => copy(value.as_slice(), out).map(|()| true),
            None => Ok(false),
        }
    }

    fn get_many(&mut self, ids: &[u32], out: &mut [Value]) -> Outcome {
        let map = self.read();
        for (id, out) in ids.iter().zip(out) {
            let value = map.get(id).ok_or_else(|| wrong("a record is missing"))?;
            copy(value.as_slice(), out)?;
        }
        Ok(())
    }

    fn delete(&mut self, id: u32) -> Outcome {
        self.commit(|map| map.remove(&id).map(drop))
    }

    fn scan(&mut self, visit: &mut dyn FnMut(u32, &[u8]) -> bool) -> Outcome {
        let map = self.read();
        let mut records: Vec<_> = map.iter().collect();
        records.sort_unstable_by_key(|(id, _)| **id);
        records.iter().for_each(|(id, value)| {
            visit(**id, value.as_slice());
        });
        Ok(())
    }

    fn scan_keys(&mut self, visit: &mut dyn FnMut(u32) -> bool) -> Outcome {
        let mut ids: Vec<_> = self.read().iter().map(|(id, _)| *id).collect();
        ids.sort_unstable();
        ids.into_iter().for_each(|id| {
            visit(id);
        });
        Ok(())
    }
}
