//! id -> newest version: a direct-address table, with the set of ids that may be live beside it.
//!
//! The table is derived: it can be built again from the log. One thread at a time changes it,
//! under the writer lock; any number of threads read it without a lock.

pub(crate) mod checkpoint;
mod entry;
mod id_set;

use std::io;
use std::sync::Arc;

use crate::bytes::collected;
use crate::error::{Error, Result};
use crate::storage::{File, Words, prefetch};
use crate::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use crate::sync::{Mutex, OnceLock, PoisonError};
pub(crate) use entry::Entry;
pub(crate) use id_set::IdSet;

/// Ids whose entries share a block, the unit of the checkpoint: 512 entries, 4096 bytes.
pub(crate) const BLOCK_IDS: usize = 512;
/// Blocks that share a huge page of the table in memory, 2 MiB, and how many of them must be used
/// for it to be worth one: a table of few and far ids keeps to the pages that it needs.
const REGION_BLOCKS: usize = 512;
const DENSE_REGION: u16 = 64;
/// Blocks of the table on disk that get their space together: 1 MiB.
const GROUP_BLOCKS: usize = 256;

/// The lookup table.
#[derive(Debug)]
pub(crate) struct Lookup {
    /// Ids are below this.
    limit: u32,
    table: Words,
    /// Every id that is live for who reads the present, and perhaps more.
    live: IdSet,
    /// Made when there is the first one.
    left: OnceLock<Left>,
    /// How often an id was left to snapshots.
    lefts: AtomicU64,
    /// One bit per block that holds an entry.
    blocks: IdSet,
    /// How many blocks of each region hold an entry.
    regions: Box<[AtomicU16]>,
    /// The file that `table` maps, for the table on disk, and the groups of blocks in it whose
    /// space is reserved.
    disk: Option<Disk>,
}

/// So many of the ids that were left to snapshots are known in the order in which they were.
const LATEST: u64 = if cfg!(ourdb_shuttle) { 4 } else { 4096 };
/// To look at so many of those one by one takes no longer than to meet one in a set in vain.
const AS_QUICK: u64 = if cfg!(ourdb_shuttle) { 1 } else { 32 };

/// Ids that are live for a snapshot, and were not in the present: they may be again.
#[derive(Debug)]
struct Left {
    ids: IdSet,
    /// How many that are.
    count: AtomicU64,
    /// The latest: whoever began when there were nearly as many needs none of the others. There may be
    /// millions, for a snapshot of long ago.
    latest: Words,
}

impl Left {
    fn new(limit: u32) -> io::Result<Left> {
        Ok(Left {
            ids: IdSet::new(u64::from(limit))?,
            count: AtomicU64::new(0),
            latest: Words::zeroed(LATEST as usize)?,
        })
    }

    /// Puts an id in when there were `lefts`.
    fn insert(&self, id: u32, lefts: u64) {
        if !self.ids.contains(id) {
            self.ids.insert(id);
            let count = self.count.load(Ordering::Relaxed);
            self.count.store(count + 1, Ordering::Relaxed);
        }
        if let Some(place) = self.place(lefts) {
            place.store(u64::from(id), Ordering::Release);
        }
    }

    fn remove(&self, id: u32) {
        if self.ids.contains(id) {
            self.ids.remove(id);
            let count = self.count.load(Ordering::Relaxed);
            self.count.store(count - 1, Ordering::Relaxed);
        }
    }

    /// Where the id is noted that comes in when there were `lefts`.
    fn place(&self, lefts: u64) -> Option<&AtomicU64> {
        self.latest.get((lefts % LATEST) as usize)
    }
}

/// The ids that were left to snapshots, for one that began when there were `began`.
struct LeftSince<'a> {
    left: &'a Left,
    lefts: &'a AtomicU64,
    began: u64,
    now: u64,
}

impl LeftSince<'_> {
    /// What `f` makes of those that came in since, in no order and perhaps among others; `None` if they are
    /// not few beside all, or weren't before it was done.
    fn few<T>(&self, f: impl FnOnce(&mut dyn Iterator<Item = u32>) -> T) -> Option<T> {
        let since = self.now.checked_sub(self.began)?;
        let count = self.left.count.load(Ordering::Relaxed);
        if since > LATEST / 2 || since * AS_QUICK > count {
            return None;
        }
        let places = (self.began..self.now).filter_map(|lefts| self.left.place(lefts));
        let found = f(&mut places.map(|place| place.load(Ordering::Acquire) as u32));
        // Who has read what was written over sees by now that it was.
        let lefts = self.lefts.load(Ordering::Acquire);
        (lefts - self.began < LATEST).then_some(found)
    }

    /// All of them, and those that came in before.
    fn all(&self) -> &IdSet {
        &self.left.ids
    }
}

#[derive(Debug)]
struct Disk {
    file: Arc<dyn File>,
    reserved: Mutex<Vec<u64>>,
    /// Whether the next opening finds this file under the name of the table.
    is_named: AtomicBool,
}

impl Disk {
    /// Reserves the space around the entry of `id`, of a table of `limit` entries.
    fn reserve(&self, id: u32, limit: u32) -> io::Result<()> {
        let group = id as usize / (BLOCK_IDS * GROUP_BLOCKS);
        let mut reserved = self.reserved.lock().unwrap_or_else(PoisonError::into_inner);
        let (word, bit) = (group / 64, 1u64 << (group % 64));
        if reserved[word] & bit == 0 {
            let bytes = (BLOCK_IDS * GROUP_BLOCKS * 8) as u64;
            let from = group as u64 * bytes;
            let to = (from + bytes).min(u64::from(limit) * 8);
            self.file.allocate(from, to)?;
            reserved[word] |= bit;
        }
        Ok(())
    }
}

impl Lookup {
    /// An empty table in memory.
    pub(crate) fn in_memory(limit: u32) -> Result<Lookup> {
        let table = Words::zeroed(limit as usize).map_err(|error| no_memory(limit, &error))?;
        Lookup::over(limit, table, None)
    }

    /// A table over `file`, which is made as long as the limit asks (without taking space).
    pub(crate) fn on_disk(limit: u32, file: Arc<dyn File>, path: &str) -> Result<Lookup> {
        let map = || {
            let bytes = u64::from(limit) * 8;
            if file.len()? < bytes {
                file.set_len(bytes)?;
            }
            file.words(u64::from(limit))
        };
        let table = map().map_err(|error| Error::from_io("map", path, error))?;
        let groups = (limit as usize)
            .div_ceil(BLOCK_IDS * GROUP_BLOCKS)
            .div_ceil(64);
        let disk = Disk {
            file,
            reserved: Mutex::new(vec![0; groups]),
            is_named: AtomicBool::new(false),
        };
        Lookup::over(limit, table, Some(disk))
    }

    fn over(limit: u32, table: Words, disk: Option<Disk>) -> Result<Lookup> {
        let live = IdSet::new(u64::from(limit)).map_err(|error| no_memory(limit, &error))?;
        let regions = (limit as usize).div_ceil(BLOCK_IDS * REGION_BLOCKS);
        let regions = collected((0..regions).map(|_| AtomicU16::new(0)))?.into_boxed_slice();
        let blocks = IdSet::new(u64::from(limit).div_ceil(BLOCK_IDS as u64))
            .map_err(|error| no_memory(limit, &error))?;
        Ok(Lookup {
            limit,
            table,
            live,
            left: OnceLock::new(),
            lefts: AtomicU64::new(0),
            blocks,
            regions,
            disk,
        })
    }

    /// Ids are below this.
    #[inline]
    pub(crate) fn limit(&self) -> u32 {
        self.limit
    }

    /// The entry of an id; [`Entry::NONE`] past the limit.
    #[inline]
    pub(crate) fn get(&self, id: u32) -> Entry {
        // A table on disk is a file with holes. On some file systems even to read in one takes
        // space, and where none is left the mapping faults.
        if self.disk.is_some() && !self.blocks.contains(id / BLOCK_IDS as u32) {
            return Entry::NONE;
        }
        match self.table.get(id as usize) {
            Some(word) => Entry::from_word(word.load(Ordering::Acquire)),
            None => Entry::NONE,
        }
    }

    /// Loads the entries of ids that follow one another up or down, into as many places.
    pub(crate) fn load(&self, ids: &[u32], entries: &mut [Entry]) {
        let (Some(&first), Some(&last)) = (ids.first(), ids.last()) else {
            return;
        };
        let (lowest, highest) = (first.min(last) as usize, first.max(last) as usize);
        let places = entries.iter_mut().zip(ids);
        match self.table.range(lowest, highest + 1) {
            // One look at the table for all.
            Some(words) if self.disk.is_none() => places.for_each(|(entry, &id)| {
                let word = words.get((id as usize).wrapping_sub(lowest));
                *entry = word.map_or(Entry::NONE, |word| {
                    Entry::from_word(word.load(Ordering::Acquire))
                });
            }),
            _ => places.for_each(|(entry, &id)| *entry = self.get(id)),
        }
    }

    /// Begins to load the entry of an id into the processor's cache.
    #[inline]
    pub(crate) fn prefetch(&self, id: u32) {
        if let Some(word) = self.table.get(id as usize) {
            prefetch(word);
        }
    }

    /// Makes sure that an entry can be stored for `id`. On disk this reserves space, so that a
    /// full disk is an error here and not a fault later.
    #[inline]
    pub(crate) fn prepare(&self, id: u32) -> io::Result<()> {
        match &self.disk {
            Some(disk) => disk.reserve(id, self.limit),
            None => Ok(()),
        }
    }

    /// Publishes the newest version of an id. An id that is live is found by neighbour searches
    /// from here on; one that is not may still be met by them until [`Lookup::leave_to_snapshots`], and by
    /// those in snapshots until [`Lookup::forget`].
    pub(crate) fn publish(&self, id: u32, entry: Entry) {
        let Some(word) = self.table.get(id as usize) else {
            return;
        };
        if word.load(Ordering::Relaxed) == 0 {
            self.use_block(id / BLOCK_IDS as u32);
        }
        // The set first: who sees the entry must find the id.
        if entry.is_live() {
            self.live.insert(id);
        }
        word.store(entry.to_word(), Ordering::Release);
    }

    /// Notes that a block holds an entry.
    #[inline]
    fn use_block(&self, block: u32) {
        if !self.blocks.contains(block) {
            self.use_new_block(block);
        }
    }

    fn use_new_block(&self, block: u32) {
        self.blocks.insert(block);
        let region = block as usize / REGION_BLOCKS;
        let used = self.regions[region].load(Ordering::Relaxed) + 1;
        self.regions[region].store(used, Ordering::Relaxed);
        if used == DENSE_REGION && self.disk.is_none() {
            let ids = BLOCK_IDS * REGION_BLOCKS;
            self.table.is_dense(region * ids, (region + 1) * ids);
        }
    }

    /// Makes every live entry a deleted one. Those that are met by neighbour searches until then
    /// may be until [`Lookup::forget_deleted`].
    pub(crate) fn clear(&self) {
        // Not all that were ever used: few may be live of many.
        for word in self
            .live
            .iter()
            .filter_map(|id| self.table.get(id as usize))
        {
            let entry = Entry::from_word(word.load(Ordering::Relaxed));
            if entry.is_live() {
                word.store(entry.cleared().to_word(), Ordering::Release);
            }
        }
    }

    /// [`Lookup::clear`] where nobody reads yet, so that no search needs to meet them.
    pub(crate) fn clear_unseen(&self) {
        self.clear();
        self.forget_deleted(|_| false);
    }

    /// Takes every id out of searches that is not live, as [`Lookup::forget`] does one, except those that
    /// somebody may see live still.
    pub(crate) fn forget_deleted(&self, seen: impl Fn(u32) -> bool) {
        let left = self.left.get().map(|left| &left.ids);
        for set in std::iter::once(&self.live).chain(left) {
            for id in set.iter().filter(|&id| !seen(id)) {
                self.forget(id);
            }
        }
    }

    /// Takes an id out of searches, once no reader sees it live any more, but as what it is now.
    pub(crate) fn forget(&self, id: u32) {
        if !self.get(id).is_live() {
            self.live.remove(id);
        }
        if let Some(left) = self.left.get() {
            left.remove(id);
        }
    }

    /// Takes an id that is not live out of searches in the present: those of snapshots still meet it,
    /// until [`Lookup::forget`]. Where there is no memory for that, all do.
    pub(crate) fn leave_to_snapshots(&self, id: u32) {
        if self.get(id).is_live() {
            return;
        }
        if let Some(left) = self.left() {
            // In this order, and searches the other way round: so they find it in one of the two.
            let lefts = self.lefts.load(Ordering::Relaxed);
            left.insert(id, lefts);
            self.lefts.store(lefts + 1, Ordering::Release);
            self.live.remove(id);
        }
    }

    /// How many ids were left to snapshots so far. All of them are deleted by what readers see after they
    /// asked this: a snapshot that is opened then need not meet them.
    pub(crate) fn lefts(&self) -> u64 {
        self.lefts.load(Ordering::Acquire)
    }

    /// Where searches look besides for who began when there were so many [`Lookup::lefts`]. To be asked
    /// after they have looked at those in the present.
    fn left_since(&self, lefts: u64) -> Option<LeftSince<'_>> {
        let now = self.lefts();
        let left = self.left.get().filter(|_| now != lefts)?;
        Some(LeftSince {
            left,
            lefts: &self.lefts,
            began: lefts,
            now,
        })
    }

    /// [`Lookup::leave_to_snapshots`] for every id that is not live, but those that are in the present.
    pub(crate) fn leave_deleted_to_snapshots(&self, is_live: impl Fn(u32) -> bool) {
        for id in self.live.iter().filter(|&id| !is_live(id)) {
            self.leave_to_snapshots(id);
        }
    }

    fn left(&self) -> Option<&Left> {
        if self.left.get().is_none() {
            let _ = self.left.set(Left::new(self.limit).ok()?);
        }
        self.left.get()
    }

    /// The lowest id at or above `from` that may be live in the present.
    #[inline]
    pub(crate) fn at_or_above(&self, from: u64) -> Option<u32> {
        self.live.at_or_above(from)
    }

    /// The highest id at or below `from` that may be live in the present.
    #[inline]
    pub(crate) fn at_or_below(&self, from: u64) -> Option<u32> {
        self.live.at_or_below(from)
    }

    /// The lowest id at or above `from` that may be live for a snapshot of when there were `lefts`.
    pub(crate) fn seen_at_or_above(&self, from: u64, lefts: u64) -> Option<u32> {
        let live = self.live.at_or_above(from);
        let left = self.left_since(lefts).and_then(|left| {
            let few = left.few(|ids| ids.filter(|&id| u64::from(id) >= from).min());
            few.unwrap_or_else(|| left.all().at_or_above(from))
        });
        live.into_iter().chain(left).min()
    }

    /// The highest id at or below `from` that may be live for a snapshot of when there were `lefts`.
    pub(crate) fn seen_at_or_below(&self, from: u64, lefts: u64) -> Option<u32> {
        let live = self.live.at_or_below(from);
        let left = self.left_since(lefts).and_then(|left| {
            let few = left.few(|ids| ids.filter(|&id| u64::from(id) <= from).max());
            few.unwrap_or_else(|| left.all().at_or_below(from))
        });
        live.into_iter().chain(left).max()
    }

    /// The ids in `lower..=upper` that may be live for a snapshot of when there were `lefts`, from the lowest
    /// on, as many as `ids` has room for; how many.
    pub(crate) fn seen_ids(&self, lower: u32, upper: u32, lefts: u64, ids: &mut [u32]) -> usize {
        let mut count = self.live.fill(lower, upper, ids);
        let Some(left) = self.left_since(lefts) else {
            return count;
        };
        // Whether there was room for it.
        let mut put = |id: u32| {
            let place = ids[..count].partition_point(|&other| other < id);
            if place == ids.len() {
                return false;
            }
            if ids[..count].get(place) != Some(&id) {
                count = (count + 1).min(ids.len());
                ids[place..count].rotate_right(1);
                ids[place] = id;
            }
            true
        };
        let few = left.few(|few| {
            for id in few.filter(|id| (lower..=upper).contains(id)) {
                put(id);
            }
        });
        if few.is_none() {
            let mut next = u64::from(lower);
            while let Some(id) = left.all().at_or_above(next).filter(|&id| id <= upper)
                && put(id)
            {
                next = u64::from(id) + 1;
            }
        }
        count
    }

    /// The lowest id at or above `from` that has, or had, a record.
    pub(crate) fn known_at_or_above(&self, from: u64) -> Option<u32> {
        let mut from = from;
        loop {
            let block = self.blocks.at_or_above(from / BLOCK_IDS as u64)?;
            let start = u64::from(block) * BLOCK_IDS as u64;
            let skipped = from.saturating_sub(start) as usize;
            let words = self.block(block).iter().enumerate().skip(skipped);
            let found = words.into_iter().find(|(_, word)| is_known(word));
            match found {
                Some((index, _)) => return Some(start as u32 + index as u32),
                None => from = start + BLOCK_IDS as u64,
            }
        }
    }

    /// The highest id at or below `from` that has, or had, a record.
    pub(crate) fn known_at_or_below(&self, from: u64) -> Option<u32> {
        let mut from = from;
        loop {
            let block = self.blocks.at_or_below(from / BLOCK_IDS as u64)?;
            let start = u64::from(block) * BLOCK_IDS as u64;
            let words = self.block(block);
            // The block may lie below the one that `from` is in.
            let wanted = (from - start).min(BLOCK_IDS as u64 - 1) as usize + 1;
            let words = &words[..words.len().min(wanted)];
            match words.iter().rposition(is_known) {
                Some(index) => return Some(start as u32 + index as u32),
                None => from = start.checked_sub(1)?,
            }
        }
    }

    /// The highest known id.
    pub(crate) fn highest(&self) -> Option<u32> {
        self.known_at_or_below(u64::from(u32::MAX))
    }

    /// All known ids with their entries, ascending.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (u32, Entry)> + '_ {
        self.blocks()
            .flat_map(|(first, entries)| entries.zip(first..))
            .filter(|(entry, _)| entry.is_known())
            .map(|(entry, id)| (id, entry))
    }

    /// Whole blocks that hold entries, ascending: the first id of each, and the entry of that one and
    /// of each after it.
    pub(crate) fn blocks(
        &self,
    ) -> impl Iterator<Item = (u32, impl Iterator<Item = Entry> + '_)> + '_ {
        self.used_blocks().map(|block| {
            let words = self.block(block).iter();
            let entries = words.map(|word| Entry::from_word(word.load(Ordering::Acquire)));
            (block * BLOCK_IDS as u32, entries)
        })
    }

    /// The numbers of the blocks that hold entries, ascending.
    fn used_blocks(&self) -> impl Iterator<Item = u32> + '_ {
        let mut from = 0u64;
        std::iter::from_fn(move || {
            let block = self.blocks.at_or_above(from)?;
            from = u64::from(block) + 1;
            Some(block)
        })
    }

    /// Zeroed words for as many ids, with memory where there are entries here.
    pub(crate) fn beside(&self) -> io::Result<Words> {
        let words = Words::zeroed(self.limit as usize)?;
        let mut blocks = self.used_blocks().peekable();
        while let Some(first) = blocks.next() {
            let mut end = first + 1;
            while blocks.next_if_eq(&end).is_some() {
                end += 1;
            }
            let [from, to] = [first, end].map(|block| block as usize * BLOCK_IDS);
            if to - from >= BLOCK_IDS * REGION_BLOCKS {
                words.is_dense(from, to);
            }
            words.prepare(from, to);
        }
        Ok(words)
    }

    /// The words of a block; the last one of the table may be shorter.
    fn block(&self, block: u32) -> &[AtomicU64] {
        let from = block as usize * BLOCK_IDS;
        let to = (from + BLOCK_IDS).min(self.limit as usize);
        self.table.range(from, to).unwrap_or_default()
    }

    /// Takes the entries of a block out of `words`, before there are readers; how many ids in it
    /// are live. For a table on disk they stand in the table already. That the block is used was noted
    /// before.
    fn adopt_block(&self, block: u32, words: &[u64; BLOCK_IDS], store: bool) -> u64 {
        // The last block may reach beyond the limit, where there are no ids.
        let table = self.block(block);
        let words = &words[..table.len()];
        if store {
            for (word, &value) in table.iter().zip(words) {
                word.store(value, Ordering::Relaxed);
            }
        }
        let mut live = 0;
        for (index, words) in words.chunks(64).enumerate() {
            let bits = live_bits(words);
            live += u64::from(bits.count_ones());
            self.live.fill_word(
                u64::from(block) * (BLOCK_IDS / 64) as u64 + index as u64,
                bits,
            );
        }
        live
    }

    /// Makes what a table on disk holds durable.
    fn sync(&self) -> io::Result<()> {
        self.disk.as_ref().map_or(Ok(()), |disk| disk.file.sync())
    }

    pub(crate) fn is_on_disk(&self) -> bool {
        self.disk.is_some()
    }

    /// Whether the next opening finds the table in its file.
    pub(crate) fn is_in_its_file(&self) -> bool {
        let is_named = |disk: &Disk| disk.is_named.load(Ordering::Relaxed);
        self.disk.as_ref().is_some_and(is_named)
    }

    /// The file has the name of the table from here on.
    fn note_name(&self) {
        if let Some(disk) = &self.disk {
            disk.is_named.store(true, Ordering::Relaxed);
        }
    }
}

/// A bit for each of up to 64 entries: whether it is live.
fn live_bits(words: &[u64]) -> u64 {
    // Mostly all are, and to find that out takes a fraction of the instructions.
    let is_live = |&word: &u64| u64::from(Entry::from_word(word).is_live());
    if words.iter().map(is_live).fold(1, |all, live| all & live) == 1 {
        return u64::MAX >> (64 - words.len());
    }
    let bits = words.iter().map(is_live).enumerate();
    bits.fold(0, |bits, (index, live)| bits | live << index)
}

fn is_known(word: &AtomicU64) -> bool {
    Entry::from_word(word.load(Ordering::Acquire)).is_known()
}

fn no_memory(limit: u32, error: &io::Error) -> Error {
    Error::OutOfMemory {
        what: format!(
            "address space for a lookup table of {limit} ids, {} bytes: {error}",
            u64::from(limit) * 8
        )
        .into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ids in both sets, in one of them, and in neither, against a sorted list.
    #[test]
    fn ids_left_to_snapshots_are_found_by_them_alone() {
        let location = crate::location::Location {
            file: 1,
            position: 92,
        };
        let lookup = Lookup::in_memory(10_000).unwrap();
        let (mut live, mut seen) = (Vec::new(), Vec::new());
        for id in (0..10_000).filter(|id| id % 7 < 3 || id / 200 % 5 == 2) {
            lookup.publish(id, Entry::live(location, 5));
            seen.push(id);
            if id % 3 == 0 {
                lookup.publish(id, Entry::deleted(location));
                lookup.leave_to_snapshots(id);
            }
            if id % 6 == 0 {
                // It is live again, and stays among those that were left.
                lookup.publish(id, Entry::live(location, 5));
            }
            if id % 3 != 0 || id % 6 == 0 {
                live.push(id);
            }
        }
        assert!(lookup.live.iter().eq(live.iter().copied()));
        for from in (0..10_000u32).step_by(13).chain([9_999]) {
            let above = seen.iter().copied().find(|&id| id >= from);
            assert_eq!(lookup.seen_at_or_above(u64::from(from), 0), above);
            let below = seen.iter().copied().rfind(|&id| id <= from);
            assert_eq!(lookup.seen_at_or_below(u64::from(from), 0), below);
            // Who began when all had been left already doesn't meet them.
            let present = live.iter().copied().find(|&id| id >= from);
            assert_eq!(
                lookup.seen_at_or_above(u64::from(from), lookup.lefts()),
                present
            );
            for room in [1, 2, 64, 200] {
                let upper = from + room as u32 * 2;
                let expected = seen
                    .iter()
                    .copied()
                    .filter(|id| (from..=upper).contains(id));
                let expected: Vec<u32> = expected.take(room).collect();
                let mut ids = vec![0; room];
                let count = lookup.seen_ids(from, upper, 0, &mut ids);
                assert_eq!(ids[..count], expected, "{from} to {upper}, {room} at most");
            }
        }
        for &id in &seen {
            lookup.forget(id);
        }
        assert!(lookup.left.get().unwrap().ids.iter().next().is_none());
        assert!(lookup.live.iter().eq(live));
    }

    /// Who began late meets what was left since, and none of the many before.
    #[test]
    fn who_began_late_meets_few() {
        const COUNT: u32 = 24 * LATEST as u32;
        let location = crate::location::Location {
            file: 1,
            position: 92,
        };
        let lookup = Lookup::in_memory(2 * COUNT).unwrap();
        // In an order in which neighbours are left at other times.
        let left: Vec<u32> = (0..COUNT).map(|at| at * 5 % COUNT * 2).collect();
        for &id in &left {
            lookup.publish(id, Entry::live(location, 5));
            lookup.publish(id, Entry::deleted(location));
            lookup.leave_to_snapshots(id);
        }
        lookup.publish(COUNT + 1, Entry::live(location, 5));
        assert_eq!(lookup.lefts(), u64::from(COUNT));
        let most = LATEST as usize / 2;
        for since in [0, 1, 100, most, most + 1, left.len()] {
            let met = match since <= most {
                true => &left[left.len() - since..],
                false => &left,
            };
            let mut met = met.to_vec();
            met.push(COUNT + 1);
            met.sort_unstable();
            let began = lookup.lefts() - since as u64;
            for from in (0..2 * COUNT).step_by(997) {
                let above = met.iter().copied().find(|&id| id >= from);
                assert_eq!(lookup.seen_at_or_above(u64::from(from), began), above);
                let below = met.iter().copied().rfind(|&id| id <= from);
                assert_eq!(lookup.seen_at_or_below(u64::from(from), began), below);
                let mut ids = [0; 64];
                let count = lookup.seen_ids(from, from + 500, began, &mut ids);
                let expected = met.iter().filter(|id| (from..=from + 500).contains(id));
                assert!(expected.take(64).eq(&ids[..count]), "{since}, {from}");
            }
        }
        // Few of all that there were, and not of those that are there still.
        for &id in &left[1000..] {
            lookup.forget(id);
        }
        let began = lookup.lefts() - 100;
        assert_eq!(lookup.seen_at_or_above(0, began), Some(left[0]));
    }

    #[test]
    fn a_bit_says_of_each_entry_whether_it_is_live() {
        let location = crate::location::Location {
            file: 1,
            position: 92,
        };
        let (live, deleted) = (Entry::live(location, 5), Entry::deleted(location));
        for len in 1..=64 {
            let all = vec![live.to_word(); len];
            assert_eq!(live_bits(&all), u64::MAX >> (64 - len));
            for (index, other) in (0..len).zip([Entry::NONE, deleted].into_iter().cycle()) {
                let mut words = all.clone();
                words[index] = other.to_word();
                let expected = live_bits(&all) & !(1 << index);
                assert_eq!(live_bits(&words), expected, "{index} of {len}");
            }
        }
    }
}
