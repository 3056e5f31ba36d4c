//! A set of ids that finds neighbours across any gap in a few steps.
//!
//! A tree of bitmaps, 64 bits to a word: bit `i` of level 0 says that id `i` is in the set, bit
//! `i` of each further level that word `i` of the level below is not zero. An id is looked for by
//! going up until a word has a bit on the wanted side, and down again along the nearest bits:
//! at most six words each way for 2^32 ids.
//!
//! One thread at a time changes the set; any number read it beside that. A reader may meet a bit
//! of an upper level whose word below has just become empty, and then goes on from there.

use std::io;

use crate::storage::Words;
use crate::sync::atomic::{AtomicU64, Ordering};

const BITS: u64 = 64;

/// A set of ids below a limit.
#[derive(Debug)]
pub(crate) struct IdSet {
    levels: Vec<Words>,
}

impl IdSet {
    /// An empty set that can hold the ids below `limit`.
    pub(crate) fn new(limit: u64) -> io::Result<IdSet> {
        let mut levels = Vec::new();
        let mut words = limit.max(1).div_ceil(BITS);
        loop {
            let count = usize::try_from(words).map_err(|_| io::ErrorKind::OutOfMemory)?;
            levels.push(Words::zeroed(count)?);
            if words == 1 {
                return Ok(IdSet { levels });
            }
            words = words.div_ceil(BITS);
        }
    }

    fn word(&self, level: usize, index: u64) -> Option<&AtomicU64> {
        self.levels.get(level)?.get(usize::try_from(index).ok()?)
    }

    /// Whether an id is in the set.
    #[inline]
    pub(crate) fn contains(&self, id: u32) -> bool {
        let index = u64::from(id);
        let word = self.word(0, index / BITS);
        word.is_some_and(|word| word.load(Ordering::Acquire) >> (index % BITS) & 1 != 0)
    }

    /// Puts an id into the set; it must be below the limit.
    pub(crate) fn insert(&self, id: u32) {
        let mut index = u64::from(id);
        for level in 0..self.levels.len() {
            let Some(word) = self.word(level, index / BITS) else {
                return;
            };
            let bits = word.load(Ordering::Relaxed);
            let bit = 1 << (index % BITS);
            // What isn't stored to stays in the caches of all processors that read it.
            if bits & bit != 0 {
                return;
            }
            word.store(bits | bit, Ordering::Release);
            if bits != 0 {
                return;
            }
            index /= BITS;
        }
    }

    /// Takes an id out of the set.
    pub(crate) fn remove(&self, id: u32) {
        let mut index = u64::from(id);
        for level in 0..self.levels.len() {
            let Some(word) = self.word(level, index / BITS) else {
                return;
            };
            let bits = word.load(Ordering::Relaxed) & !(1 << (index % BITS));
            word.store(bits, Ordering::Release);
            if bits != 0 {
                return;
            }
            index /= BITS;
        }
    }

    /// Sets the 64 ids of word `index` at once, before there are readers.
    pub(crate) fn fill_word(&self, index: u64, bits: u64) {
        if bits == 0 {
            return;
        }
        let Some(word) = self.word(0, index) else {
            return;
        };
        word.store(bits, Ordering::Relaxed);
        let mut index = index;
        for level in 1..self.levels.len() {
            let Some(word) = self.word(level, index / BITS) else {
                return;
            };
            let above = word.load(Ordering::Relaxed);
            word.store(above | 1 << (index % BITS), Ordering::Relaxed);
            if above != 0 {
                return;
            }
            index /= BITS;
        }
    }

    /// The ids in `lower..=upper`, ascending, as many as `ids` has room for; how many.
    pub(crate) fn fill(&self, lower: u32, upper: u32, ids: &mut [u32]) -> usize {
        let mut count = 0;
        let mut from = u64::from(lower);
        while count < ids.len()
            && let Some((first, mut bits)) = self.word_at_or_above(from)
            && first <= u64::from(upper)
        {
            from = first + BITS;
            if bits == u64::MAX
                && first + BITS - 1 <= u64::from(upper)
                && let Some(ids) = ids.get_mut(count..count + BITS as usize)
            {
                for (offset, place) in ids.iter_mut().enumerate() {
                    *place = (first + offset as u64) as u32;
                }
                count += BITS as usize;
                continue;
            }
            while bits != 0 {
                let id = first + u64::from(bits.trailing_zeros());
                if count == ids.len() || id > u64::from(upper) {
                    return count;
                }
                ids[count] = id as u32;
                count += 1;
                bits &= bits - 1;
            }
        }
        count
    }

    /// The first word that holds an id of at least `from`: its first id, and those bits of it.
    fn word_at_or_above(&self, from: u64) -> Option<(u64, u64)> {
        let id = u64::from(self.at_or_above(from)?);
        let index = id / BITS;
        let word = self.word(0, index)?.load(Ordering::Acquire);
        Some((index * BITS, word & u64::MAX << (id % BITS)))
    }

    /// All ids, ascending.
    pub(crate) fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        let (mut from, mut first, mut bits) = (0, 0, 0u64);
        std::iter::from_fn(move || {
            while bits == 0 {
                (first, bits) = self.word_at_or_above(from)?;
                from = first + BITS;
            }
            let id = first + u64::from(bits.trailing_zeros());
            bits &= bits - 1;
            Some(id as u32)
        })
    }

    /// The lowest id that is at least `from`.
    pub(crate) fn at_or_above(&self, from: u64) -> Option<u32> {
        let mut from = from;
        let mut level = 0;
        loop {
            // Up: is there a bit at or after `from` in its word?
            let word = self.word(level, from / BITS)?.load(Ordering::Acquire);
            let bits = word & u64::MAX << (from % BITS);
            if bits == 0 {
                from = from / BITS + 1;
                level += 1;
                continue;
            }
            // Down one level: the nearest word below that has bits.
            let index = from / BITS * BITS + u64::from(bits.trailing_zeros());
            if level == 0 {
                return u32::try_from(index).ok();
            }
            level -= 1;
            from = index * BITS;
        }
    }

    /// The highest id that is at most `from`.
    pub(crate) fn at_or_below(&self, from: u64) -> Option<u32> {
        let last = self.levels[0].len() as u64 * BITS - 1;
        let mut from = from.min(last);
        let mut level = 0;
        loop {
            let word = self.word(level, from / BITS)?.load(Ordering::Acquire);
            let bits = word & u64::MAX >> (BITS - 1 - from % BITS);
            if bits == 0 {
                from = (from / BITS).checked_sub(1)?;
                level += 1;
                continue;
            }
            let index = from / BITS * BITS + u64::from(BITS as u32 - 1 - bits.leading_zeros());
            if level == 0 {
                return u32::try_from(index).ok();
            }
            level -= 1;
            from = index * BITS + BITS - 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn check(limit: u64, ids: &[u32]) {
        let set = IdSet::new(limit).expect("memory");
        let mut model = BTreeSet::new();
        let probe = |set: &IdSet, model: &BTreeSet<u32>| {
            let near = ids
                .iter()
                .flat_map(|&id| [id.saturating_sub(1), id, id.saturating_add(1)]);
            for from in near.chain([0, u32::MAX]) {
                let above = model.range(from..).next().copied();
                assert_eq!(
                    set.at_or_above(u64::from(from)),
                    above,
                    "at or above {from}"
                );
                let below = model.range(..=from).next_back().copied();
                assert_eq!(
                    set.at_or_below(u64::from(from)),
                    below,
                    "at or below {from}"
                );
            }
        };
        for &id in ids {
            set.insert(id);
            model.insert(id);
            probe(&set, &model);
        }
        for &id in ids {
            set.remove(id);
            model.remove(&id);
            probe(&set, &model);
        }
    }

    #[test]
    fn neighbours_at_every_boundary() {
        check(1, &[0]);
        check(64, &[0, 63]);
        check(65, &[63, 64]);
        check(5000, &[0, 1, 63, 64, 4095, 4096, 4999]);
        check(16_777_215, &[1, 16_777_214, 262_143, 262_144]);
        check(u64::from(u32::MAX) + 1, &[0, u32::MAX, 1 << 31]);
    }

    #[test]
    fn ids_are_filled_in_from_full_words_and_others() {
        let limit = u64::from(u32::MAX) + 1;
        let set = IdSet::new(limit).expect("memory");
        let words = [(1, u64::MAX), (2, u64::MAX - 1), (4, u64::MAX), (90, 5)];
        let last = limit / BITS - 1;
        let mut expected = Vec::new();
        for (index, bits) in words.into_iter().chain([(last, u64::MAX)]) {
            set.fill_word(index, bits);
            let ids = (0..BITS).filter(|bit| bits >> bit & 1 != 0);
            expected.extend(ids.map(|bit| (index * BITS + bit) as u32));
        }
        for room in [1, 63, 64, 65, 127, 128, 200, 1000] {
            for (lower, upper) in [
                (0, u32::MAX),
                (64, 127),
                (65, 126),
                (64, 191),
                (128, 320),
                (u32::MAX - 63, u32::MAX),
                (u32::MAX - 63, u32::MAX - 1),
                (192, 255),
            ] {
                let mut ids = vec![0; room];
                let count = set.fill(lower, upper, &mut ids);
                let within = |id: &&u32| (lower..=upper).contains(*id);
                let expected: Vec<u32> = expected.iter().filter(within).copied().collect();
                let expected = &expected[..expected.len().min(room)];
                assert_eq!(&ids[..count], expected, "{lower}..={upper}, {room}");
            }
        }
    }

    #[test]
    fn words_filled_at_once_are_found() {
        let set = IdSet::new(1 << 20).expect("memory");
        set.fill_word(3, 1 << 5);
        set.fill_word(4000, 1 | 1 << 63);
        set.fill_word(4001, 0);
        assert_eq!(set.at_or_above(0), Some(3 * 64 + 5));
        assert_eq!(set.at_or_above(3 * 64 + 6), Some(4000 * 64));
        assert_eq!(set.at_or_below(u64::MAX), Some(4000 * 64 + 63));
    }
}
