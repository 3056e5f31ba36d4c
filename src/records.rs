//! Versions of records as they are handed out: what was read, with the bytes of all in one piece.

use crate::bytes::reserve;
use crate::error::Result;

/// What a version is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It holds a value.
    Live,
    /// It is a deletion.
    Deleted,
    /// It is an erasure: a deletion after which no version before it exists any more.
    Erased,
    /// There is no such record (in an answer that keeps the order of what was asked).
    Missing,
}

/// One version of one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// The record's id.
    pub id: u32,
    /// Whether it holds a value.
    pub state: State,
    /// The commit that wrote it; 0 if herolib did, or if it is missing.
    pub commit: u64,
    /// When, in microseconds since the Unix epoch; 0 if unknown.
    pub time_us: u64,
    /// The value; empty unless [`State::Live`].
    pub value: &'a [u8],
}

#[derive(Debug)]
struct Item {
    id: u32,
    state: State,
    commit: u64,
    time_us: u64,
    /// Where its value ends. It begins where the one before ends.
    end: usize,
}

impl Item {
    #[inline]
    fn record<'a>(&self, value: &'a [u8]) -> Record<'a> {
        Record {
            id: self.id,
            state: self.state,
            commit: self.commit,
            time_us: self.time_us,
            value,
        }
    }
}

/// A list of versions, their values in one piece.
#[derive(Debug, Default)]
pub struct Records {
    items: Vec<Item>,
    bytes: Vec<u8>,
}

impl Records {
    /// Makes room for so many versions, and bytes of values, more.
    pub(crate) fn reserve(&mut self, records: usize, bytes: usize) -> Result<()> {
        reserve(&mut self.items, records)?;
        reserve(&mut self.bytes, bytes)
    }

    #[inline]
    pub(crate) fn push(&mut self, record: Record<'_>) -> Result<()> {
        let left = self.bytes.capacity() - self.bytes.len();
        if self.items.len() == self.items.capacity() || left < record.value.len() {
            self.reserve(1, record.value.len())?;
        }
        self.bytes.extend_from_slice(record.value);
        self.items.push(Item {
            id: record.id,
            state: record.state,
            commit: record.commit,
            time_us: record.time_us,
            end: self.bytes.len(),
        });
        Ok(())
    }

    /// Takes the last one back.
    #[cold]
    pub(crate) fn pop(&mut self) {
        self.items.pop();
        let end = self.items.last().map_or(0, |last| last.end);
        self.bytes.truncate(end);
    }

    /// How many bytes it takes, used or not.
    pub(crate) fn room(&self) -> usize {
        size_of::<Item>() * self.items.capacity() + self.bytes.capacity()
    }

    /// Leaves none, and keeps the room.
    pub(crate) fn clear(&mut self) {
        self.items.clear();
        self.bytes.clear();
    }

    /// How many bytes all values have.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The one at `index`, if there are so many.
    #[inline]
    pub fn get(&self, index: usize) -> Option<Record<'_>> {
        let item = self.items.get(index)?;
        let start = match index.checked_sub(1) {
            Some(before) => self.items.get(before)?.end,
            None => 0,
        };
        Some(item.record(self.bytes.get(start..item.end)?))
    }

    /// The last one.
    pub(crate) fn last(&self) -> Option<Record<'_>> {
        self.get(self.len().checked_sub(1)?)
    }

    /// All, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Record<'_>> + '_ {
        let mut start = 0;
        self.items.iter().map(move |item| {
            let record = item.record(&self.bytes[start..item.end]);
            start = item.end;
            record
        })
    }
}
