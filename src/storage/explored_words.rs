//! [`Words`] where a test explores what threads may do (see `crate::sync`): atomics that take part
//! in that, of which a mapping can't be made.

use std::io;

use super::mapping::Mapping;
use crate::sync::atomic::AtomicU64;

/// An array of atomic words.
#[derive(Debug)]
pub struct Words(Box<[AtomicU64]>);

impl Words {
    /// `count` words of zeroed memory.
    pub fn zeroed(count: usize) -> io::Result<Words> {
        Ok(Words((0..count).map(|_| AtomicU64::new(0)).collect()))
    }

    /// Words that are shared with a file can't be had.
    pub(super) fn over(_mapping: Mapping, _len: usize) -> io::Result<Words> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// How many words there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The word at `index`, if there are so many.
    pub fn get(&self, index: usize) -> Option<&AtomicU64> {
        self.0.get(index)
    }

    /// Says that words `[from, to)` are densely used, which changes nothing here.
    pub fn is_dense(&self, _from: usize, _to: usize) {}

    /// Says that words `[from, to)` are going to be written, which changes nothing here.
    pub fn prepare(&self, _from: usize, _to: usize) {}

    /// Words `[from, to)` as they are; `None` if there are not so many.
    pub fn range(&self, from: usize, to: usize) -> Option<&[AtomicU64]> {
        self.0.get(from..to)
    }
}
