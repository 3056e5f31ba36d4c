//! fjall: an LSM tree. A write is handed to the operating system before the call returns. It has a
//! compaction, but none of what is still in memory, so what it costs can't be measured by a call.

use std::ops::Bound;

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode, Readable};

use super::CACHE;
use crate::engine::{Durability, Engine, Outcome, Session, Setup, Value, copy, id, key, wrong};

struct Fjall {
    db: Database,
    records: Keyspace,
    sync: Option<PersistMode>,
}

pub(super) fn open(setup: &Setup) -> Outcome<Box<dyn Engine>> {
    let db = Database::builder(setup.directory)
        .cache_size(CACHE as u64)
        .open()?;
    let records = db.keyspace("records", KeyspaceCreateOptions::default)?;
    let sync = (setup.durability == Durability::Durable).then_some(PersistMode::SyncData);
    Ok(Box::new(Fjall { db, records, sync }))
}

impl Engine for Fjall {
    fn session(&self) -> Outcome<Box<dyn Session + '_>> {
        Ok(Box::new(self))
    }

    fn shared(&self) -> Option<&(dyn Engine + Sync)> {
        Some(self)
    }

    fn close(self: Box<Self>) -> Outcome {
        Ok(self.db.persist(PersistMode::SyncAll)?)
    }
}

impl Fjall {
    /// Has what was written reach the disk, if that is asked for.
    fn synced(&self) -> Outcome {
        Ok(self.sync.map_or(Ok(()), |mode| self.db.persist(mode))?)
    }
}

impl Session for &Fjall {
    fn set(&mut self, id: u32, value: &Value) -> Outcome {
        self.records.insert(key(id), &value[..])?;
        self.synced()
    }

    fn set_many(&mut self, ids: &[u32], values: &[Value]) -> Outcome {
        let mut batch = self
            .db
            .batch()
            .durability(self.sync.or(Some(PersistMode::Buffer)));
        for (&id, value) in ids.iter().zip(values) {
            batch.insert(&self.records, key(id), &value[..]);
        }
        Ok(batch.commit()?)
    }

    fn get(&mut self, id: u32, out: &mut Value) -> Outcome<bool> {
        match self.records.get(key(id))? {
            Some(value) => copy(&value, out).map(|()| true),
            None => Ok(false),
        }
    }

    fn get_many(&mut self, ids: &[u32], out: &mut [Value]) -> Outcome {
        let snapshot = self.db.snapshot();
        for (&id, out) in ids.iter().zip(out) {
            copy(
                &snapshot
                    .get(&self.records, key(id))?
                    .ok_or_else(|| wrong("no record"))?,
                out,
            )?;
        }
        Ok(())
    }

    fn delete(&mut self, id: u32) -> Outcome {
        self.records.remove(key(id))?;
        self.synced()
    }

    fn scan(&mut self, visit: &mut dyn FnMut(u32, &[u8]) -> bool) -> Outcome {
        for record in self.records.iter() {
            let (key, value) = record.into_inner()?;
            if !visit(id(&key)?, &value) {
                break;
            }
        }
        Ok(())
    }

    fn scan_keys(&mut self, visit: &mut dyn FnMut(u32) -> bool) -> Outcome {
        for record in self.records.iter() {
            if !visit(id(&record.key()?)?) {
                break;
            }
        }
        Ok(())
    }

    fn above(&mut self, above: u32) -> Outcome<Option<u32>> {
        match self
            .records
            .range::<[u8; 4], _>((Bound::Excluded(key(above)), Bound::Unbounded))
            .next()
        {
            Some(record) => id(&record.key()?).map(Some),
            None => Ok(None),
        }
    }
}
