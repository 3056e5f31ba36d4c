//! What the benchmark asks of a store: one file below `engines/` per store implements [`Engine`] and
//! [`Session`]; `workloads` calls them and knows nothing else about it.
//!
//! Records have ids from 0 up and values of [`VALUE`] bytes. A store whose keys are bytes uses
//! [`key`], so that its order is that of the ids. What a store doesn't have it declines, with
//! [`Failure::Declined`], and the table has a dash there; nothing is imitated that the store's own
//! users would not do.

use std::path::Path;

/// Bytes of every value.
pub const VALUE: usize = 100;

/// What is stored under an id.
pub type Value = [u8; VALUE];

/// What a commit outlives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// The death of the process. Nothing is synced, and whatever the store syncs on its own account
    /// does nothing (see `no_sync`).
    Os,
    /// A loss of power: each commit is on disk before the call returns.
    Durable,
}

/// With what a store is opened.
pub struct Setup<'a> {
    /// An existing directory, empty or with what the same engine left there: after a close, or
    /// after its process was killed.
    pub directory: &'a Path,
    /// The same for all that is done with what is opened.
    pub durability: Durability,
    /// All ids are below this. For a store that must be told its size beforehand, which should
    /// allow for every record being rewritten a few times.
    pub records: u32,
}

/// Why something wasn't done.
#[derive(Debug)]
pub enum Failure {
    /// The store has nothing of the kind.
    Declined,
    /// The store failed, or answered wrongly.
    Broken(String),
}

/// The result of a call.
pub type Outcome<T = ()> = Result<T, Failure>;

/// `?` on the error of any store.
impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure::Broken(error.to_string())
    }
}

/// An open store. Opening is a function of its module, `open(&Setup) -> Outcome<Box<dyn Engine>>`,
/// named in `engines::ALL`.
pub trait Engine {
    /// The calls of one thread. Each thread has its own, for a store that keeps connections,
    /// prepared statements or readers; others give out `Box::new(self)`, with [`Session`]
    /// implemented for a reference to the store.
    fn session(&self) -> Outcome<Box<dyn Session + '_>>;

    /// `Some(self)` if several threads may use it at once: then it must be `Sync`. Without it the
    /// workloads of several threads are left out.
    fn shared(&self) -> Option<&(dyn Engine + Sync)> {
        None
    }

    /// Gives back the space of what was overwritten, if that is a call of its own which its users
    /// make now and then.
    fn compact(&self) -> Outcome {
        Err(Failure::Declined)
    }

    /// Closes it as a careful user would: all that was committed is there at the next opening.
    fn close(self: Box<Self>) -> Outcome;
}

/// The calls of one thread on an open store.
pub trait Session {
    /// Stores a record, new or not, and commits it.
    fn set(&mut self, id: u32, value: &Value) -> Outcome;

    /// The same with many, different ids in one commit.
    fn set_many(&mut self, _ids: &[u32], _values: &[Value]) -> Outcome {
        Err(Failure::Declined)
    }

    /// Copies the value into `out`; false if there is no such record.
    fn get(&mut self, id: u32, out: &mut Value) -> Outcome<bool>;

    /// Copies the values of records that are all there, `out` being as long as `ids`. In one
    /// transaction or snapshot, if the store has such a thing, or in one call.
    fn get_many(&mut self, _ids: &[u32], _out: &mut [Value]) -> Outcome {
        Err(Failure::Declined)
    }

    /// Deletes a record that is there, and commits that.
    fn delete(&mut self, id: u32) -> Outcome;

    /// Gives all records to `visit`, in the order of their ids, until it returns false. A store
    /// that must list all of them first goes on to the end: what that takes is to be spread over all.
    fn scan(&mut self, _visit: &mut dyn FnMut(u32, &[u8]) -> bool) -> Outcome {
        Err(Failure::Declined)
    }

    /// The same with ids alone, if the store can go over them without touching the values, or at
    /// least without handing them out.
    fn scan_keys(&mut self, _visit: &mut dyn FnMut(u32) -> bool) -> Outcome {
        Err(Failure::Declined)
    }

    /// The lowest id above this one, by a search that begins anew.
    fn above(&mut self, _id: u32) -> Outcome<Option<u32>> {
        Err(Failure::Declined)
    }

    /// Gives the values of the last `max` versions of a record to `visit`, newest first.
    fn history(&mut self, _id: u32, _max: usize, _visit: &mut dyn FnMut(&[u8])) -> Outcome {
        Err(Failure::Declined)
    }
}

/// The key of an id, for a store whose keys are bytes.
pub fn key(id: u32) -> [u8; 4] {
    id.to_be_bytes()
}

/// The id of a key that the store gives back.
pub fn id(key: &[u8]) -> Outcome<u32> {
    let key = key
        .try_into()
        .map_err(|_| wrong("a key that isn't 4 bytes long"))?;
    Ok(u32::from_be_bytes(key))
}

/// Copies a value that the store lends.
pub fn copy(value: &[u8], out: &mut Value) -> Outcome {
    *out = value
        .try_into()
        .map_err(|_| wrong("a value that isn't 100 bytes long"))?;
    Ok(())
}

/// For an answer that can't be right.
pub fn wrong(what: &str) -> Failure {
    Failure::Broken(format!("wrong: {what}"))
}
