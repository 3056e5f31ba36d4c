//! A window for reading a growing file without system calls.

use std::ptr::NonNull;
use std::sync::Arc;

use super::calls::user;
use super::mapping::Mapping;
use super::prefetch::prefetch_span;
use crate::sync::atomic::{AtomicU64, Ordering, fence};

/// Device and inode of a file: as long as it is mapped or open, no other one has them.
pub type Identity = (u64, u64);

/// The bytes of a file below a mark that only moves up (`extend_to`). Bytes below the
/// mark don't change, so any number of threads may read them beside the writer. An erasure
/// overwrites some all the same, but only where nobody reads and nobody finds the way to any more; of who
/// reads in another process it knows nothing, and that one looks again (`byte_after`).
#[derive(Debug)]
pub struct View {
    mapping: Option<Arc<Mapping>>,
    /// What tells the file that is mapped from all others, if anything does.
    identity: Option<Identity>,
    /// Whose file it is, if that is known.
    owner: Option<u32>,
    /// Where the mapping begins, at hand for who reads.
    base: Option<NonNull<u8>>,
    /// The mark, or the end of the mapping if that comes before; 0 without one.
    readable: AtomicU64,
    end: AtomicU64,
}

// SAFETY: `base` is where the mapping begins, which is shared between threads itself; who may read
// which bytes is said in `from`.
unsafe impl Send for View {}
// SAFETY: as above.
unsafe impl Sync for View {}

impl View {
    /// A view without a mapping: [`View::slice`] gives nothing and readers use the file.
    pub fn unmapped() -> View {
        View {
            mapping: None,
            identity: None,
            owner: None,
            base: None,
            readable: AtomicU64::new(0),
            end: AtomicU64::new(0),
        }
    }

    pub(super) fn mapped(
        mapping: Arc<Mapping>,
        identity: Option<Identity>,
        owner: Option<u32>,
    ) -> View {
        View {
            base: NonNull::new(mapping.base()),
            mapping: Some(mapping),
            identity,
            owner,
            readable: AtomicU64::new(0),
            end: AtomicU64::new(0),
        }
    }

    /// What tells the file that is mapped from all others, if anything does.
    pub(crate) fn identity(&self) -> Option<Identity> {
        self.identity
    }

    /// Whether there is a mapping.
    pub(crate) fn is_mapped(&self) -> bool {
        self.mapping.is_some()
    }

    /// Up to where the file may be read.
    #[inline]
    pub fn end(&self) -> u64 {
        self.end.load(Ordering::Acquire)
    }

    /// Moves the mark up: everything below `end` is in the file and will not change any more. One
    /// thread at a time does so, the writer.
    pub(crate) fn extend_to(&self, end: u64) {
        // Not fetch_max: that is a locked instruction, and one that ThreadSanitizer doesn't follow.
        if end > self.end.load(Ordering::Relaxed) {
            if let Some(mapping) = &self.mapping {
                let readable = end.min(mapping.len() as u64);
                self.readable.store(readable, Ordering::Release);
            }
            self.end.store(end, Ordering::Release);
        }
    }

    /// All bytes from `position` up to the mark; nothing where that is before it or not mapped.
    #[inline]
    pub fn from(&self, position: u64) -> Option<&[u8]> {
        let base = self.base?;
        let readable = self.readable.load(Ordering::Acquire);
        let len = readable.checked_sub(position)?;
        // SAFETY: [position, readable) lies in the mapping and below the mark. Bytes below the mark
        // were written before it moved (Release/Acquire). They are not written again, unless by an
        // erasure, which waits until all who may read them have come out, and holds off who comes
        // another way (`db/erase.rs`); the mapping lives as long as the borrow of `self`. Where that is
        // another process's, what is read counts only once it was copied and looked at again
        // (`Segment::is_there_still`). That another process truncates the file under us can't be
        // excluded; it is documented as outside of what is guarded.
        Some(unsafe {
            std::slice::from_raw_parts(base.add(position as usize).as_ptr(), len as usize)
        })
    }

    /// `len` bytes from `position`; nothing where that is past the mark or not mapped.
    #[inline]
    pub fn slice(&self, position: u64, len: usize) -> Option<&[u8]> {
        self.from(position)?.get(..len)
    }

    /// The byte at `position`, as it is when everything that was read before has been: for who copies what
    /// another process may be overwriting. Nothing where that is past the mark or not mapped.
    #[inline]
    pub(crate) fn byte_after(&self, position: u64) -> Option<u8> {
        let byte = self.from(position)?.first()?;
        fence(Ordering::Acquire);
        // SAFETY: a valid reference. Volatile, so that it is read now, and not taken from what was read
        // before.
        Some(unsafe { std::ptr::read_volatile(byte) })
    }

    /// Up to `len` bytes from `position`, which the file has just been seen to have, and all of which are
    /// in memory: to read them is no SIGBUS, as over a bad sector. Nothing where that can't be had,
    /// which the file may have to tell more of.
    pub(crate) fn loaded(&self, position: u64, len: usize) -> Option<&[u8]> {
        let bytes = self.from(position)?;
        let bytes = &bytes[..len.min(bytes.len())];
        self.is_loaded(position as usize, bytes.len())
            .then_some(bytes)
    }

    /// Whether so many bytes of the mapping are in memory, or can be brought there.
    fn is_loaded(&self, from: usize, len: usize) -> bool {
        let to = from + len;
        self.mapping.as_ref().is_some_and(|mapping| {
            let is_there = self.owner == Some(user()) && mapping.is_resident(from, to);
            is_there || mapping.populate_for_reading(from, to).is_ok()
        })
    }

    /// Whether the mapping shows these bytes, which the file has at `position`: an overlay shows a file that
    /// is written to for the first time in another place, under the same identity, and what was mapped
    /// before stays as it was, and as long. Asked before the mark is moved over them.
    pub(crate) fn shows(&self, position: u64, bytes: &[u8]) -> bool {
        let Some((base, mapping)) = self.base.zip(self.mapping.as_ref()) else {
            return true;
        };
        let from = position as usize;
        let is_within = from
            .checked_add(bytes.len())
            .is_some_and(|to| to <= mapping.len());
        // Behind the end of a mapping the file itself is read.
        !is_within || {
            // SAFETY: the range lies in the mapping, and is loaded when it is read, which is looked at first.
            // It is behind the mark, where another process writes; what isn't whole yet is other bytes.
            let shown = || unsafe {
                std::slice::from_raw_parts(base.add(from).as_ptr().cast_const(), bytes.len())
            };
            self.is_loaded(from, bytes.len()) && shown() == bytes
        }
    }

    /// Begins to load `len` bytes from `position` into the processor's cache. Where there are none, it
    /// does nothing.
    #[inline]
    pub fn prefetch(&self, position: u64, len: usize) {
        if let Some(base) = self.base {
            prefetch_span(base.as_ptr().wrapping_add(position as usize), len);
        }
    }

    /// Gives back address space that a finished file doesn't need.
    pub(crate) fn seal(&self) {
        if let Some(mapping) = &self.mapping {
            mapping.trim(self.end() as usize);
        }
    }
}
