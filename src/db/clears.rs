//! The clears of a world: a list that grows while others read it.

use crate::bytes::collected;
use crate::error::Result;
use crate::manifest::Clear;
use crate::sync::OnceLock;
use crate::sync::atomic::{AtomicUsize, Ordering};

/// The first block has so many places, and each next one twice as many.
const FIRST: usize = 16;
/// More than any memory holds.
const BLOCKS: usize = 40;

/// Ascending by commit. Nothing is ever taken out, so no reader waits, or is waited for.
#[derive(Debug)]
pub(super) struct Clears {
    blocks: [OnceLock<Box<[OnceLock<Clear>]>>; BLOCKS],
    len: AtomicUsize,
}

/// The block that a place is in, and where in it.
fn place(index: usize) -> (usize, usize) {
    let block = (index / FIRST + 1).ilog2();
    (block as usize, index - FIRST * ((1 << block) - 1))
}

impl Clears {
    pub(super) fn new(clears: &[Clear]) -> Result<Clears> {
        let new = Clears {
            blocks: [const { OnceLock::new() }; BLOCKS],
            len: AtomicUsize::new(0),
        };
        new.reserve(clears.len())?;
        clears.iter().for_each(|&clear| new.push(clear));
        Ok(new)
    }

    pub(super) fn len(&self) -> usize {
        self.len.load(Ordering::Acquire)
    }

    fn get(&self, index: usize) -> Option<Clear> {
        let (block, at) = place(index);
        self.blocks.get(block)?.get()?.get(at)?.get().copied()
    }

    /// Makes room for so many more. One thread at a time.
    #[cold]
    pub(super) fn reserve(&self, count: usize) -> Result<()> {
        let Some(last) = count.checked_sub(1) else {
            return Ok(());
        };
        for block in 0..=place(self.len() + last).0 {
            if self.blocks[block].get().is_none() {
                let places = collected((0..FIRST << block).map(|_| OnceLock::new()))?;
                let _ = self.blocks[block].set(places.into_boxed_slice());
            }
        }
        Ok(())
    }

    /// Adds one that is later than all others, for which room was reserved. One thread at a time.
    pub(super) fn push(&self, clear: Clear) {
        let len = self.len();
        let (block, at) = place(len);
        let Some(block) = self.blocks[block].get() else {
            unreachable!("room was reserved")
        };
        let _ = block[at].set(clear);
        self.len.store(len + 1, Ordering::Release);
    }

    /// The first one after commit `commit`.
    pub(super) fn first_after(&self, commit: u64) -> Option<Clear> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            match self.get(middle) {
                Some(clear) if clear.commit <= commit => low = middle + 1,
                _ => high = middle,
            }
        }
        self.get(low)
    }

    pub(super) fn to_vec(&self) -> Result<Vec<Clear>> {
        collected((0..self.len()).map_while(|index| self.get(index)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_finds_what_was_pushed() {
        let clear = |commit| Clear {
            commit,
            time_us: commit * 7,
        };
        for count in [0, 1, 15, 16, 17, 47, 48, 49, 5000] {
            let all: Vec<Clear> = (1..=count).map(|index| clear(index * 10)).collect();
            let clears = Clears::new(&all[..all.len() / 2]).unwrap();
            for &one in &all[all.len() / 2..] {
                clears.reserve(1).unwrap();
                clears.push(one);
            }
            assert_eq!(clears.to_vec().unwrap(), all);
            assert_eq!(clears.len(), all.len());
            for commit in [0, 5, 9, 10, 11, 479, 480, 481, 49_999, 50_000, 50_001] {
                let expected = all.iter().find(|clear| clear.commit > commit);
                assert_eq!(clears.first_after(commit).as_ref(), expected);
            }
        }
    }

    #[test]
    fn places_follow_one_another() {
        let mut expected = (0, 0);
        for index in 0..100_000 {
            assert_eq!(place(index), expected);
            expected.1 += 1;
            if expected.1 == FIRST << expected.0 {
                expected = (expected.0 + 1, 0);
            }
        }
    }
}
