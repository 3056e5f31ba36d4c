//! sled 0.34. Its log is written twice a second by a thread, so a kill takes the last writes. It
//! declines to be durable: on Linux its flush is a `sync_file_range`, which asks no disk to keep
//! anything.

use sled::{Batch, Config, Db};

use super::CACHE;
use crate::engine::{Durability, Engine, Failure, Outcome, Session, Setup, Value, copy, id, key};

struct Sled {
    db: Db,
}

pub(super) fn open(setup: &Setup) -> Outcome<Box<dyn Engine>> {
    if setup.durability == Durability::Durable {
        return Err(Failure::Declined);
    }
    let db = Config::new()
        .path(setup.directory)
        .cache_capacity(CACHE as u64)
        .open()?;
    Ok(Box::new(Sled { db }))
}

impl Engine for Sled {
    fn session(&self) -> Outcome<Box<dyn Session + '_>> {
        Ok(Box::new(self))
    }

    fn shared(&self) -> Option<&(dyn Engine + Sync)> {
        Some(self)
    }

    fn close(self: Box<Self>) -> Outcome {
        self.db.flush()?;
        Ok(())
    }
}

impl Session for &Sled {
    fn set(&mut self, id: u32, value: &Value) -> Outcome {
        self.db.insert(key(id), &value[..])?;
        Ok(())
    }

    fn set_many(&mut self, ids: &[u32], values: &[Value]) -> Outcome {
        let mut batch = Batch::default();
        for (&id, value) in ids.iter().zip(values) {
            batch.insert(&key(id), &value[..]);
        }
        self.db.apply_batch(batch)?;
        Ok(())
    }

    fn get(&mut self, id: u32, out: &mut Value) -> Outcome<bool> {
        match self.db.get(key(id))? {
            Some(value) => copy(&value, out).map(|()| true),
            None => Ok(false),
        }
    }

    fn delete(&mut self, id: u32) -> Outcome {
        self.db.remove(key(id))?;
        Ok(())
    }

    fn scan(&mut self, visit: &mut dyn FnMut(u32, &[u8]) -> bool) -> Outcome {
        for record in self.db.iter() {
            let (key, value) = record?;
            if !visit(id(&key)?, &value) {
                break;
            }
        }
        Ok(())
    }

    fn scan_keys(&mut self, visit: &mut dyn FnMut(u32) -> bool) -> Outcome {
        self.scan(&mut |id, _| visit(id))
    }

    fn above(&mut self, above: u32) -> Outcome<Option<u32>> {
        self.db
            .get_gt(key(above))?
            .map(|(key, _)| id(&key))
            .transpose()
    }
}
