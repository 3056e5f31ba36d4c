//! The writes of a transaction on top of its snapshot: which records are live with them, next to which
//! ids, and how many.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::ranges::Ranges;
use super::snapshot::Snapshot;
use crate::bytes::copied;
use crate::error::Result;

/// What a transaction is going to write, by id; `None` deletes.
pub(super) type Writes = BTreeMap<u32, Option<Box<[u8]>>>;

/// What a transaction is going to write, and what was found out about it.
#[derive(Debug, Default)]
pub(super) struct Overlay {
    /// Shared with the scans that see them; a write after that copies them first.
    writes: Arc<Writes>,
    known: Mutex<Known>,
}

/// What need not be found out again, by who goes through the records and deletes one after the other, or
/// counts them.
#[derive(Debug, Default)]
struct Known {
    /// Ids that searches went over, because the transaction has deleted what was there.
    gone: Ranges,
    /// By how many records there are more than in the snapshot, and how many erasures there were by then:
    /// one of them may have been of a record that the transaction has deleted. `None`: nobody has asked.
    more: Option<(i64, u64)>,
}

impl Overlay {
    /// Everything that is going to be written so far.
    pub(super) fn writes(&self) -> &Arc<Writes> {
        &self.writes
    }

    /// What is going to be written of a record: `Some(None)` is its deletion.
    pub(super) fn get(&self, id: u32) -> Option<Option<&[u8]>> {
        self.writes.get(&id).map(Option::as_deref)
    }

    /// Where scans share the writes, takes a copy of them for itself: what comes now they don't see.
    pub(super) fn unshare(&mut self) -> Result<()> {
        if Arc::strong_count(&self.writes) == 1 {
            return Ok(());
        }
        let mut copy = Writes::new();
        for (&id, value) in self.writes.iter() {
            copy.insert(id, value.as_deref().map(boxed).transpose()?);
        }
        self.writes = Arc::new(copy);
        Ok(())
    }

    /// Adds a write. Failing, it changes nothing.
    pub(super) fn write(
        &mut self,
        snapshot: &Snapshot,
        id: u32,
        value: Option<Box<[u8]>>,
    ) -> Result<()> {
        self.unshare()?;
        let known = self.known.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some((more, _)) = &mut known.more {
            let was_live = match self.writes.get(&id) {
                Some(written) => written.is_some(),
                None => snapshot.contains(id)?,
            };
            *more += i64::from(value.is_some()) - i64::from(was_live);
        }
        if value.is_some() && !known.gone.is_empty() {
            known.gone.remove(id);
        }
        Arc::make_mut(&mut self.writes).insert(id, value);
        Ok(())
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The nearest live id from `from` on, upwards or downwards, of which `nearest` is that of the snapshot.
    pub(super) fn nearest(
        &self,
        snapshot: &Snapshot,
        from: u32,
        nearest: Option<u32>,
        reverse: bool,
    ) -> Result<Option<u32>> {
        let beyond = |low: u32, high: u32| match reverse {
            true => low.checked_sub(1),
            false => high.checked_add(1),
        };
        let mut known = self.known();
        let mut theirs = nearest;
        let mut next = Some(from);
        while let Some(at) = next {
            if let Some((low, high)) = known.gone.around(at) {
                next = beyond(low, high);
                continue;
            }
            let is_behind = |id: u32| if reverse { id > at } else { id < at };
            if theirs.is_some_and(is_behind) {
                theirs = match reverse {
                    true => snapshot.at_or_below(u64::from(at))?,
                    false => snapshot.at_or_above(u64::from(at))?,
                };
            }
            let own = match reverse {
                true => self.writes.range(..=at).next_back(),
                false => self.writes.range(at..).next(),
            };
            let both = theirs.into_iter().chain(own.map(|(&id, _)| id));
            let Some(id) = (if reverse { both.max() } else { both.min() }) else {
                break;
            };
            match own {
                Some((&own, None)) if own == id => {
                    let (low, high) = (at.min(id), at.max(id));
                    known.gone.add(low, high);
                    next = beyond(low, high);
                }
                _ => return Ok(Some(id)),
            }
        }
        Ok(None)
    }

    /// How many records are live, `count` of them in the snapshot.
    pub(super) fn count(&self, snapshot: &Snapshot, count: u64) -> Result<u64> {
        let erasures = snapshot.shared.erasures.count();
        let mut known = self.known();
        let more = match known.more {
            Some((more, then)) if then == erasures => more,
            _ => {
                let mut more = 0;
                for (&id, value) in self.writes.iter() {
                    more += i64::from(value.is_some()) - i64::from(snapshot.contains(id)?);
                }
                known.more = Some((more, erasures));
                more
            }
        };
        Ok(count.saturating_add_signed(more))
    }
}

/// A value as it is kept until the commit.
pub(super) fn boxed(value: &[u8]) -> Result<Box<[u8]>> {
    Ok(copied(value)?.into_boxed_slice())
}
