//! Large arrays of 64-bit words that threads share: zeroed memory that costs only the pages
//! touched, or a file.

use std::io;

use super::mapping::{Backing, Mapping};
use crate::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// An array of atomic words. Its length can grow up to what was reserved.
#[derive(Debug)]
pub struct Words {
    mapping: Mapping,
    len: AtomicUsize,
}

impl Words {
    /// `count` words of lazily zeroed memory.
    pub fn zeroed(count: usize) -> io::Result<Words> {
        let bytes = count
            .max(1)
            .checked_mul(8)
            .ok_or(io::ErrorKind::OutOfMemory)?;
        Words::over(Mapping::new(bytes, Backing::Zeroed)?, count)
    }

    /// The first `len` words of a mapping that is readable and writable at least so far.
    pub(super) fn over(mapping: Mapping, len: usize) -> io::Result<Words> {
        assert!(len * 8 <= mapping.len(), "more words than mapped");
        Ok(Words {
            mapping,
            len: AtomicUsize::new(len),
        })
    }

    /// How many words can be used.
    #[inline]
    pub fn len(&self) -> usize {
        self.len.load(Ordering::Acquire)
    }

    /// Whether none can.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The word at `index`, if there are so many.
    #[inline]
    pub fn get(&self, index: usize) -> Option<&AtomicU64> {
        if index >= self.len() {
            return None;
        }
        // SAFETY: the word lies within the mapping (`len` never exceeds it), is aligned (mappings
        // begin on a page), is initialized (zeroed memory or file), and is only accessed
        // atomically as long as the mapping lives.
        Some(unsafe { &*self.mapping.base().cast::<AtomicU64>().add(index) })
    }

    /// Says that words `[from, to)` are densely used: huge pages save address translations then.
    pub fn is_dense(&self, from: usize, to: usize) {
        self.mapping
            .prefer_huge_pages(from.saturating_mul(8), to.saturating_mul(8));
    }

    /// Says that words `[from, to)` are going to be written, `from` at the beginning of a page: their memory
    /// comes at once, not where a page is read first and once more where it is written first.
    pub fn prepare(&self, from: usize, to: usize) {
        let (from, to) = (from.saturating_mul(8), to.saturating_mul(8));
        // What can't be had like this comes when it is needed.
        let _ = self.mapping.populate_for_writing(from, to);
    }

    /// Words `[from, to)` as they are; `None` if there are not so many.
    pub fn range(&self, from: usize, to: usize) -> Option<&[AtomicU64]> {
        if from > to || to > self.len() {
            return None;
        }
        // SAFETY: as in `get`, for each word of the range.
        Some(unsafe {
            std::slice::from_raw_parts(self.mapping.base().cast::<AtomicU64>().add(from), to - from)
        })
    }
}
