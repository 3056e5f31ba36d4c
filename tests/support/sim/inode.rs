//! One simulated file: what processes read, what is on disk, and what may be there after a loss of
//! power.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use super::fault::Pages;

pub(super) const SECTOR: usize = 512;

/// One file's content.
#[derive(Clone, Debug, Default)]
pub(super) struct Inode {
    /// What processes read: the page cache.
    pub(super) cache: Arc<Vec<u8>>,
    /// What was last synced.
    durable: Arc<Vec<u8>>,
    /// For each sector changed since, what it held after each change, oldest first.
    dirty: BTreeMap<usize, Vec<SectorState>>,
    /// The lengths since, oldest first.
    lengths: Vec<LengthState>,
    /// Counts changes.
    change: u64,
    /// When it was last changed. No sync of data makes this durable.
    pub(super) modified_ns: u64,
    /// See [`Inode::fingerprint`].
    fingerprint: OnceLock<u64>,
}

#[derive(Clone, Debug)]
struct SectorState {
    change: u64,
    bytes: [u8; SECTOR],
    /// The sector was cut off by this change, wholly or in part.
    cut: bool,
}

#[derive(Clone, Debug)]
struct LengthState {
    change: u64,
    len: usize,
}

/// Which state of a dirty sector is on disk after a loss of power.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Survivor {
    /// 0 is what was last synced, then one for each change since; the last one where there are
    /// less.
    pub(super) state: usize,
    pub(super) torn: Option<Torn>,
}

/// A sector that was being written when the power failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Torn {
    /// Where the two parts meet.
    pub(super) at: usize,
    /// The older state, of which the rest is.
    pub(super) older: usize,
    /// The newer part is behind and not in front.
    pub(super) backwards: bool,
}

fn sector_of(content: &[u8], sector: usize) -> [u8; SECTOR] {
    let mut bytes = [0; SECTOR];
    let from = (sector * SECTOR).min(content.len());
    let to = (from + SECTOR).min(content.len());
    bytes[..to - from].copy_from_slice(&content[from..to]);
    bytes
}

fn put_sector(content: &mut [u8], sector: usize, bytes: &[u8; SECTOR]) {
    let from = (sector * SECTOR).min(content.len());
    let to = (from + SECTOR).min(content.len());
    content[from..to].copy_from_slice(&bytes[..to - from]);
}

impl Inode {
    /// A file that is on disk as it is.
    pub(super) fn durable(content: Vec<u8>) -> Inode {
        let content = Arc::new(content);
        Inode {
            cache: Arc::clone(&content),
            durable: content,
            ..Inode::default()
        }
    }

    /// An empty file. A file that takes the place of another one is younger than that.
    pub(super) fn made(number: usize) -> Inode {
        Inode {
            modified_ns: number as u64 * 1_000_000_000,
            ..Inode::default()
        }
    }

    fn begin_change(&mut self) {
        self.change += 1;
        self.modified_ns += 1_000_000;
        self.fingerprint = OnceLock::new();
    }

    fn touch(&mut self, from: usize, to: usize, cut: bool) {
        if from == to {
            return;
        }
        for sector in from / SECTOR..=(to - 1) / SECTOR {
            let bytes = sector_of(&self.cache, sector);
            let state = SectorState {
                change: self.change,
                bytes,
                cut,
            };
            self.dirty.entry(sector).or_default().push(state);
        }
    }

    pub(super) fn write(&mut self, position: usize, bytes: &[u8]) {
        self.begin_change();
        let end = position + bytes.len();
        let cache = Arc::make_mut(&mut self.cache);
        if end > cache.len() {
            cache.resize(end, 0);
            self.lengths.push(LengthState {
                change: self.change,
                len: end,
            });
        }
        cache[position..end].copy_from_slice(bytes);
        self.touch(position, end, false);
    }

    pub(super) fn set_len(&mut self, len: usize) {
        self.begin_change();
        let old = self.cache.len();
        Arc::make_mut(&mut self.cache).resize(len, 0);
        self.lengths.push(LengthState {
            change: self.change,
            len,
        });
        if len < old {
            self.touch(len, old, true);
        }
    }

    pub(super) fn sync(&mut self) {
        let durable = Arc::make_mut(&mut self.durable);
        durable.resize(self.cache.len(), 0);
        for &sector in self.dirty.keys() {
            put_sector(durable, sector, &sector_of(&self.cache, sector));
        }
        self.dirty.clear();
        self.lengths.clear();
    }

    /// A sync that failed: no dirty sector reached the disk.
    pub(super) fn fail_sync(&mut self, pages: Pages) {
        if pages == Pages::Dirty {
            return;
        }
        if pages == Pages::Dropped {
            self.fingerprint = OnceLock::new();
            let cache = Arc::make_mut(&mut self.cache);
            for &sector in self.dirty.keys() {
                put_sector(cache, sector, &sector_of(&self.durable, sector));
            }
        }
        self.dirty.clear();
    }

    pub(super) fn is_clean(&self) -> bool {
        self.dirty.is_empty() && self.lengths.is_empty() && self.cache == self.durable
    }

    /// For each dirty sector, how many states it had since it was last synced.
    pub(super) fn dirty_sectors(&self) -> impl Iterator<Item = usize> + '_ {
        self.dirty.values().map(Vec::len)
    }

    /// How many lengths it had since it was last synced.
    pub(super) fn new_lengths(&self) -> usize {
        self.lengths.len()
    }

    /// The changes since the last sync, each as what it left: the state of each dirty sector, and
    /// the length.
    pub(super) fn moments(&self) -> Vec<(Vec<usize>, usize)> {
        let mut changes: Vec<u64> = self.lengths.iter().map(|state| state.change).collect();
        changes.extend(self.dirty.values().flatten().map(|state| state.change));
        changes.sort_unstable();
        changes.dedup();
        let as_of = |change: u64| {
            let states = self.dirty.values();
            let states = states
                .map(|states| states.iter().filter(|state| state.change <= change).count())
                .collect();
            let lengths = self.lengths.iter();
            (
                states,
                lengths.filter(|state| state.change <= change).count(),
            )
        };
        changes.into_iter().map(as_of).collect()
    }

    /// Where the newest state of a dirty sector differs from what was last synced: the first byte
    /// and the last.
    pub(super) fn differs(&self, number: usize) -> Option<(usize, usize)> {
        let (&sector, states) = self.dirty.iter().nth(number)?;
        let old = sector_of(&self.durable, sector);
        let new = &states.last()?.bytes;
        let differs = |&at: &usize| old[at] != new[at];
        Some(((0..SECTOR).find(differs)?, (0..SECTOR).rfind(differs)?))
    }

    /// What is left of it with a length (0 is the last synced, then one for each since) and, for
    /// each dirty sector, what survives.
    pub(super) fn lose_power(&self, length: usize, survivors: &[Survivor]) -> Inode {
        let (change, len) = match length.checked_sub(1) {
            Some(length) => (self.lengths[length].change, self.lengths[length].len),
            None => (0, self.durable.len()),
        };
        let mut left = self.durable.to_vec();
        left.resize(len, 0);
        for ((&sector, states), survivor) in self.dirty.iter().zip(survivors) {
            // Of a cut that the length tells of nothing from before it comes back. But what was
            // written after a cut may be there without the cut: a file system may write data before
            // it commits a length.
            let happened = |state: &SectorState| state.cut && state.change <= change;
            let begin = states.iter().rposition(happened);
            let rest = &states[begin.unwrap_or(0)..];
            let synced = begin.is_none().then(|| sector_of(&self.durable, sector));
            let possible = |wanted: usize| match (&synced, wanted) {
                (Some(synced), 0) => *synced,
                (Some(synced), wanted) => {
                    let newest = rest[..wanted.min(rest.len())].last();
                    newest.map_or(*synced, |state| state.bytes)
                }
                (None, wanted) => rest[wanted.min(rest.len() - 1)].bytes,
            };
            let mut bytes = possible(survivor.state);
            if let Some(Torn {
                at,
                older,
                backwards,
            }) = survivor.torn
            {
                let older = possible(older);
                if backwards {
                    bytes[..at].copy_from_slice(&older[..at]);
                } else {
                    bytes[at..].copy_from_slice(&older[at..]);
                }
            }
            put_sector(&mut left, sector, &bytes);
        }
        Inode::durable(left)
    }

    /// A number that differs where what processes read differs.
    pub(super) fn fingerprint(&self) -> u64 {
        *self.fingerprint.get_or_init(|| {
            let front = hash(self.modified_ns, self.cache.len() as u64);
            let (words, rest) = self.cache.as_chunks::<8>();
            let words = words.iter().map(|word| u64::from_le_bytes(*word));
            words
                .chain(rest.iter().map(|&byte| u64::from(byte)))
                .fold(front, hash)
        })
    }
}

/// Mixes one number more into a hash.
pub(super) fn hash(hash: u64, number: u64) -> u64 {
    (hash.rotate_left(23) ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
