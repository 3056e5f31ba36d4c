//! yakvdb 0.7: a B-tree in one file.
//!
//! A set or delete writes every page that it changed with write(2) and never syncs, without a log or
//! checksums: it has no durable mode, and a crash of the system can leave half a change. Its cache is
//! of 32 pages, a fixed number, so that all but the upper levels come from the operating system with
//! pread(2). Threads share it, and writers exclude everyone. It has no cursor: a scan searches the
//! next key and then its value, each from the root. It has no batches and no compaction.

use crate::engine::{
    Durability, Engine, Failure, Outcome, Session, Setup, Value, copy, id, key, wrong,
};
use yakvdb::api::{KV, Store};

/// The page size of its own examples. With smaller ones inserts were faster and scans slower, with
/// larger ones inserts were slower and gets no faster.
const PAGE: u32 = 4096;

/// Opens the store.
pub fn open(setup: &Setup) -> Outcome<Box<dyn Engine>> {
    if setup.durability == Durability::Durable {
        return Err(Failure::Declined);
    }
    let path = setup.directory.join("records.yak");
    let store = if path.exists() {
        KV::open(&path)?
    } else {
        KV::make(&path, PAGE)?
    };
    Ok(Box::new(Yakvdb(store)))
}

struct Yakvdb(KV);

impl Engine for Yakvdb {
    fn session(&self) -> Outcome<Box<dyn Session + '_>> {
        Ok(Box::new(self))
    }

    fn shared(&self) -> Option<&(dyn Engine + Sync)> {
        Some(self)
    }

    fn close(self: Box<Self>) -> Outcome {
        Ok(self.0.sync()?)
    }
}

impl Session for &Yakvdb {
    fn set(&mut self, id: u32, value: &Value) -> Outcome {
        Ok(self.0.insert(&key(id), value)?)
    }

    fn get(&mut self, id: u32, out: &mut Value) -> Outcome<bool> {
        match self.0.lookup(&key(id))? {
            Some(value) => copy(&value, out).map(|()| true),
            None => Ok(false),
        }
    }

    fn delete(&mut self, id: u32) -> Outcome {
        Ok(self.0.remove(&key(id))?)
    }

    fn scan(&mut self, visit: &mut dyn FnMut(u32, &[u8]) -> bool) -> Outcome {
        let mut next = self.0.min()?;
        while let Some(key) = next {
            let value = self
                .0
                .lookup(&key)?
                .ok_or_else(|| wrong("a key without a value"))?;
            if !visit(id(&key)?, &value) {
                break;
            }
            next = self.0.above(&key)?;
        }
        Ok(())
    }

    fn scan_keys(&mut self, visit: &mut dyn FnMut(u32) -> bool) -> Outcome {
        let mut next = self.0.min()?;
        while let Some(key) = next {
            if !visit(id(&key)?) {
                break;
            }
            next = self.0.above(&key)?;
        }
        Ok(())
    }

    fn above(&mut self, from: u32) -> Outcome<Option<u32>> {
        self.0.above(&key(from))?.map(|key| id(&key)).transpose()
    }
}
