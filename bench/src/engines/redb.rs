//! redb.

use std::ops::Bound;

use redb::{Database, Durability as Commit, ReadableDatabase, ReadableTable, TableDefinition};

use super::CACHE;
use crate::engine::{Durability, Engine, Failure, Outcome, Session, Setup, Value, copy, wrong};

const RECORDS: TableDefinition<u32, &[u8]> = TableDefinition::new("records");

struct Redb {
    db: Database,
    commit: Commit,
}

fn open(setup: &Setup, commit: Commit) -> Outcome<Box<dyn Engine>> {
    let db = Database::builder()
        .set_cache_size(CACHE)
        .create(setup.directory.join("records.redb"))?;
    let txn = db.begin_write()?;
    txn.open_table(RECORDS)?;
    txn.commit()?;
    Ok(Box::new(Redb { db, commit }))
}

/// Every commit is complete in the file: its default.
pub(super) fn open_default(setup: &Setup) -> Outcome<Box<dyn Engine>> {
    open(setup, Commit::Immediate)
}

/// Commits are complete in memory only, and reach the file with a later one that isn't of this kind,
/// or at the end: a kill takes all of them.
pub(super) fn open_none(setup: &Setup) -> Outcome<Box<dyn Engine>> {
    match setup.durability {
        Durability::Os => open(setup, Commit::None),
        Durability::Durable => Err(Failure::Declined),
    }
}

impl Engine for Redb {
    fn session(&self) -> Outcome<Box<dyn Session + '_>> {
        Ok(Box::new(self))
    }

    fn shared(&self) -> Option<&(dyn Engine + Sync)> {
        Some(self)
    }

    fn close(self: Box<Self>) -> Outcome {
        Ok(())
    }
}

impl Redb {
    /// Writes in one commit.
    fn write(&self, write: impl FnOnce(&mut redb::Table<u32, &[u8]>) -> Outcome) -> Outcome {
        let mut txn = self.db.begin_write()?;
        txn.set_durability(self.commit)?;
        write(&mut txn.open_table(RECORDS)?)?;
        Ok(txn.commit()?)
    }

    fn table(&self) -> Outcome<redb::ReadOnlyTable<u32, &'static [u8]>> {
        Ok(self.db.begin_read()?.open_table(RECORDS)?)
    }
}

impl Session for &Redb {
    fn set(&mut self, id: u32, value: &Value) -> Outcome {
        self.set_many(&[id], std::slice::from_ref(value))
    }

    fn set_many(&mut self, ids: &[u32], values: &[Value]) -> Outcome {
        self.write(|table| {
            for (id, value) in ids.iter().zip(values) {
                table.insert(id, &value[..])?;
            }
            Ok(())
        })
    }

    fn get(&mut self, id: u32, out: &mut Value) -> Outcome<bool> {
        match self.table()?.get(id)? {
            Some(value) => copy(value.value(), out).map(|()| true),
            None => Ok(false),
        }
    }

    fn get_many(&mut self, ids: &[u32], out: &mut [Value]) -> Outcome {
        let table = self.table()?;
        for (id, out) in ids.iter().zip(out) {
            copy(
                table.get(id)?.ok_or_else(|| wrong("no record"))?.value(),
                out,
            )?;
        }
        Ok(())
    }

    fn delete(&mut self, id: u32) -> Outcome {
        self.write(|table| {
            table
                .remove(id)?
                .map(|_| ())
                .ok_or_else(|| wrong("no record"))
        })
    }

    fn scan(&mut self, visit: &mut dyn FnMut(u32, &[u8]) -> bool) -> Outcome {
        for record in self.table()?.iter()? {
            let (id, value) = record?;
            if !visit(id.value(), value.value()) {
                break;
            }
        }
        Ok(())
    }

    fn scan_keys(&mut self, visit: &mut dyn FnMut(u32) -> bool) -> Outcome {
        self.scan(&mut |id, _| visit(id))
    }

    fn above(&mut self, id: u32) -> Outcome<Option<u32>> {
        let next = self
            .table()?
            .range((Bound::Excluded(id), Bound::Unbounded))?
            .next();
        Ok(next.transpose()?.map(|(id, _)| id.value()))
    }
}
