//! hmdb 0.2: maps in memory and a log.
//!
//! All records are in a `HashMap` in memory, and every opening reads the whole log to make it. A
//! set or delete is one write(2) of its log entry; nothing is ever synced and nothing has a
//! checksum, so it has no durable mode. It changes the map and then the log, each under a lock of its
//! own: where two threads set the same record, the log may end with the other one's value. The
//! workloads have no such record.
//!
//! A get is a look into the map. The map has no order: a scan is a listing that is sorted here.
//! Transactions exclude everything else, and each adds an entry to the log, also the ones that only
//! read: a get of many and a scan pay for that. The other way to scan, `get_all`, clones the whole
//! map.

use super::bytes::Bytes;
use crate::engine::{Durability, Engine, Failure, Outcome, Session, Setup, Value, copy, wrong};
use hmdb::log::{LogCompacter, Reader};
use hmdb::transaction::Transaction;

mod schema {
    use super::Bytes;

    hmdb::schema! {
        Store { records: <u32, Bytes> }
    }
}
use schema::Store;

/// Opens the store.
pub fn open(setup: &Setup) -> Outcome<Box<dyn Engine>> {
    if setup.durability == Durability::Durable {
        return Err(Failure::Declined);
    }
    Ok(Box::new(Hmdb(
        Store::init(setup.directory).map_err(broken)?,
    )))
}

struct Hmdb(Store);

impl Engine for Hmdb {
    fn session(&self) -> Outcome<Box<dyn Session + '_>> {
        Ok(Box::new(self))
    }

    fn shared(&self) -> Option<&(dyn Engine + Sync)> {
        Some(self)
    }

    fn compact(&self) -> Outcome {
        self.0.compact_log().map_err(broken)
    }

    fn close(self: Box<Self>) -> Outcome {
        Ok(())
    }
}

impl Session for &Hmdb {
    fn set(&mut self, id: u32, value: &Value) -> Outcome {
        self.0
            .records
            .insert(id, Bytes::new(value))
            .map_err(broken)?;
        Ok(())
    }

    fn set_many(&mut self, ids: &[u32], values: &[Value]) -> Outcome {
        self.0
            .transaction(|transaction| {
                for (id, value) in ids.iter().zip(values) {
                    transaction.records.insert(*id, Bytes::new(value));
                }
            })
            .map_err(broken)
    }

    fn get(&mut self, id: u32, out: &mut Value) -> Outcome<bool> {
        match self.0.records.get(&id).map_err(broken)? {
            Some(value) => copy(value.as_slice(), out).map(|()| true),
            None => Ok(false),
        }
    }

    fn get_many(&mut self, ids: &[u32], out: &mut [Value]) -> Outcome {
        self.0
            .transaction(|transaction| {
                for (id, out) in ids.iter().zip(out) {
                    let value = transaction
                        .records
                        .get(id)
                        .ok_or_else(|| wrong("a record is missing"))?;
                    copy(value.as_slice(), out)?;
                }
                Ok(())
            })
            .map_err(broken)?
    }

    fn delete(&mut self, id: u32) -> Outcome {
        self.0.records.delete(id).map_err(broken)?;
        Ok(())
    }

    fn scan(&mut self, visit: &mut dyn FnMut(u32, &[u8]) -> bool) -> Outcome {
        self.0
            .transaction(|transaction| {
                let mut records: Vec<_> = transaction.records.get_all().iter().collect();
                records.sort_unstable_by_key(|(id, _)| **id);
                records.iter().for_each(|(id, value)| {
                    visit(**id, value.as_slice());
                });
            })
            .map_err(broken)
    }

    fn scan_keys(&mut self, visit: &mut dyn FnMut(u32) -> bool) -> Outcome {
        self.0
            .transaction(|transaction| {
                let mut ids: Vec<_> = transaction.records.get_all().keys().copied().collect();
                ids.sort_unstable();
                ids.into_iter().for_each(|id| {
                    visit(id);
                });
            })
            .map_err(broken)
    }
}

fn broken(error: hmdb::errors::Error) -> Failure {
    Failure::Broken(format!("{error:?}"))
}
