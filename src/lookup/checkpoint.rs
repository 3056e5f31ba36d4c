//! The checkpoint of the lookup: file `index`, and file `lookup` for a table on disk.
//!
//! ```text
//!  0   8  "OURDBIDX"
//!  8   4  format version, 2
//! 12  16  database uuid
//! 28   4  flags: bit 0 = the blocks stand in file `lookup`, block b at offset 4096 * b
//! 32   8  generation
//! 40   8  last commit that it stands for
//! 48   8  time of that commit, microseconds since the Unix epoch
//! 56   8  next id
//! 64   8  live records
//! 72   4  length of the log that it stands for: position in its last data file; 0 = no log yet
//! 76   2  number of that data file
//! 78   2  0
//! 80   4  number of blocks n
//! 84   4  CRC32 of the directory
//! 88   8  versions in the log and what it builds upon, deletions included
//! 96   8  deletions among them
//! 104  4  0
//! 108  4  CRC32 of bytes 0..108
//! 112 8n  directory, ascending: number of the block u32, CRC32 of its 4096 bytes
//!         zeros up to a multiple of 4096, then the blocks in the order of the directory
//! ```
//!
//! Block b holds the entries of ids 512 b .. 512 b + 511, 8 bytes each, little-endian. Blocks
//! without entries are left out. A checkpoint that doesn't verify is not used: the lookup can be
//! built from the log.

use std::io;
use std::sync::Arc;

use super::{BLOCK_IDS, Lookup};
use crate::bytes::{array_at, collected, u16_at, u32_at, u64_at, zeroed};
use crate::error::{Error, Result};
use crate::log::record::Kind;
use crate::log::segment::{FILE_HEADER, LogEnd};
use crate::manifest::Clear;
use crate::options::{LAST_NEXT_ID, LookupKind};
use crate::planted::planted;
use crate::storage::{Access, File, Storage, is_refused, remove_if_there, replace_with};
use crate::sync::atomic::Ordering;

/// The checkpoint.
pub(crate) const INDEX: &str = "index";
/// The table on disk.
pub(crate) const TABLE: &str = "lookup";
/// The same of a new generation, until that is the database.
pub(crate) const NEXT_INDEX: &str = "index.next";
pub(crate) const NEXT_TABLE: &str = "lookup.next";

/// Removes what a compaction that came to nothing has left. Should it stay, the next one replaces it.
pub(crate) fn remove_next(storage: &dyn Storage) {
    for next in [NEXT_INDEX, NEXT_TABLE] {
        let _ = remove_if_there(storage, next);
    }
}

const MAGIC: &[u8; 8] = b"OURDBIDX";
const FORMAT: u32 = 2;
const HEADER: usize = 112;
const BLOCK: usize = BLOCK_IDS * 8;
const FLAG_EXTERNAL: u32 = 1;
/// More than fit into all data files, and far from what 64 bits can count.
const MOST_VERSIONS: u64 = 1 << 48;
/// Blocks are written so many at a time, ...
const WRITTEN_AT_ONCE: usize = 256;
/// ... and read so many: what is checked and taken over is still in the processor's cache then, and the
/// buffer is no new memory that the system has to find.
const READ_AT_ONCE: usize = 16;

/// How many versions there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Tally {
    /// Deletions included.
    pub(crate) versions: u64,
    pub(crate) deletions: u64,
}

impl Tally {
    pub(crate) fn count(&mut self, kind: Kind) {
        match kind {
            // What an erasure has overwritten counts as it did before.
            Kind::Put | Kind::Erased => self.versions += 1,
            Kind::Delete | Kind::Erase => {
                self.versions += 1;
                self.deletions += 1;
            }
            Kind::SyncMark | Kind::Clear | Kind::Empty => {}
        }
    }
}

/// What a checkpoint stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) uuid: [u8; 16],
    pub(crate) generation: u64,
    pub(crate) commit: u64,
    pub(crate) time_us: u64,
    pub(crate) next_id: u64,
    pub(crate) live: u64,
    pub(crate) tally: Tally,
    pub(crate) log_end: Option<LogEnd>,
    /// Checksum of the clears up to that commit, which the manifest must list: see [`clears_crc`].
    pub(crate) clears_crc: u32,
}

/// Of the clears up to a commit, as the manifest has them. None are 0.
pub(crate) fn clears_crc(clears: impl Iterator<Item = Clear>, commit: u64) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    for clear in clears.take_while(|clear| clear.commit <= commit) {
        hasher.update(&clear.commit.to_le_bytes());
        hasher.update(&clear.time_us.to_le_bytes());
    }
    hasher.finalize()
}

struct Header {
    state: State,
    external: bool,
    blocks: u32,
    directory_crc: u32,
}

impl Header {
    fn encode(&self) -> [u8; HEADER] {
        let mut bytes = [0u8; HEADER];
        let end = self.state.log_end.unwrap_or_default();
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        bytes[12..28].copy_from_slice(&self.state.uuid);
        let flags = if self.external { FLAG_EXTERNAL } else { 0 };
        bytes[28..32].copy_from_slice(&flags.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.state.generation.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.state.commit.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.state.time_us.to_le_bytes());
        bytes[56..64].copy_from_slice(&self.state.next_id.to_le_bytes());
        bytes[64..72].copy_from_slice(&self.state.live.to_le_bytes());
        bytes[72..76].copy_from_slice(&end.position.to_le_bytes());
        bytes[76..78].copy_from_slice(&end.file.to_le_bytes());
        bytes[80..84].copy_from_slice(&self.blocks.to_le_bytes());
        bytes[84..88].copy_from_slice(&self.directory_crc.to_le_bytes());
        bytes[88..96].copy_from_slice(&self.state.tally.versions.to_le_bytes());
        bytes[96..104].copy_from_slice(&self.state.tally.deletions.to_le_bytes());
        bytes[104..108].copy_from_slice(&self.state.clears_crc.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..108]);
        bytes[108..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8; HEADER]) -> Option<Header> {
        let flags = u32_at(bytes, 28);
        if bytes[..8] != *MAGIC
            || u32_at(bytes, 8) != FORMAT
            || u32_at(bytes, 108) != crc32fast::hash(&bytes[..108])
            || flags & !FLAG_EXTERNAL != 0
        {
            return None;
        }
        let end = LogEnd {
            file: u16_at(bytes, 76),
            position: u32_at(bytes, 72),
        };
        let (versions, deletions) = (u64_at(bytes, 88), u64_at(bytes, 96));
        if versions > MOST_VERSIONS || deletions > versions || u64_at(bytes, 56) > LAST_NEXT_ID {
            return None;
        }
        Some(Header {
            state: State {
                uuid: array_at(bytes, 12),
                generation: u64_at(bytes, 32),
                commit: u64_at(bytes, 40),
                time_us: u64_at(bytes, 48),
                next_id: u64_at(bytes, 56),
                live: u64_at(bytes, 64),
                tally: Tally {
                    versions,
                    deletions,
                },
                log_end: (end.position != 0).then_some(end),
                clears_crc: u32_at(bytes, 104),
            },
            external: flags & FLAG_EXTERNAL != 0,
            blocks: u32_at(bytes, 80),
            directory_crc: u32_at(bytes, 84),
        })
    }
}

fn blocks_offset(blocks: usize) -> u64 {
    ((HEADER + blocks * 8) as u64).next_multiple_of(BLOCK as u64)
}

/// Writes a checkpoint of `lookup` as it is. Nothing may change the lookup meanwhile.
pub(crate) fn write(
    storage: &dyn Storage,
    name: &str,
    lookup: &Lookup,
    state: State,
) -> Result<()> {
    let external = lookup.is_in_its_file();
    let write = |file: &dyn File| {
        lookup.sync()?;
        let count = lookup.used_blocks().count();
        let mut directory = room(count * 8)?;
        let mut offset = blocks_offset(count);
        let mut gathered = room(if external {
            BLOCK
        } else {
            WRITTEN_AT_ONCE * BLOCK
        })?;
        for block in lookup.used_blocks() {
            let start = gathered.len();
            for word in lookup.block(block) {
                gathered.extend_from_slice(&word.load(Ordering::Relaxed).to_le_bytes());
            }
            gathered.resize(start + BLOCK, 0);
            directory.extend_from_slice(&block.to_le_bytes());
            directory.extend_from_slice(&crc32fast::hash(&gathered[start..]).to_le_bytes());
            if external {
                gathered.clear();
            } else if gathered.len() == WRITTEN_AT_ONCE * BLOCK {
                file.write_at(offset, &[&gathered])?;
                offset += gathered.len() as u64;
                gathered.clear();
            }
        }
        if !gathered.is_empty() {
            file.write_at(offset, &[&gathered])?;
        }
        let header = Header {
            state,
            external,
            blocks: count as u32,
            directory_crc: crc32fast::hash(&directory),
        };
        file.write_at(0, &[&header.encode(), &directory])
    };
    replace_with(storage, name, write)
        .map_err(|error| Error::from_io("write", storage.describe(name), error))
}

/// How a table is to be loaded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) limit: u32,
    pub(crate) kind: LookupKind,
    /// Whether the table on disk is as the last clean close left it. Otherwise it may be anything.
    pub(crate) table_is_clean: bool,
}

impl Load {
    fn access(&self) -> Access {
        match self.kind {
            LookupKind::Memory => Access::Read,
            LookupKind::Disk => Access::Write,
        }
    }
}

/// A table for a lookup that is being made, on disk beside the one that may be there. Dropped, the
/// file is removed.
#[derive(Debug)]
pub(crate) struct NewTable<'a>(Option<&'a dyn Storage>);

impl NewTable<'_> {
    /// Gives it its name. It is the file of `lookup`.
    pub(crate) fn keep(mut self, lookup: &Lookup) -> Result<()> {
        self.0
            .take()
            .map_or(Ok(()), |storage| name_table(storage, lookup))
    }
}

impl Drop for NewTable<'_> {
    fn drop(&mut self) {
        if let Some(storage) = self.0 {
            let _ = remove_if_there(storage, NEXT_TABLE);
        }
    }
}

/// An empty lookup, and the file that it is in, if it is to be on disk.
pub(crate) fn empty(
    storage: &dyn Storage,
    kind: LookupKind,
    limit: u32,
) -> Result<(Lookup, NewTable<'_>)> {
    match kind {
        LookupKind::Memory => Ok((Lookup::in_memory(limit)?, NewTable(None))),
        LookupKind::Disk => {
            let made = NewTable(Some(storage));
            Ok((new_table(storage, limit)?, made))
        }
    }
}

/// Gives the file of a table that was made its name. Until then a checkpoint has all of its blocks.
pub(crate) fn name_table(storage: &dyn Storage, lookup: &Lookup) -> Result<()> {
    storage
        .rename(NEXT_TABLE, TABLE)
        .map_err(|error| Error::from_io("rename", storage.describe(NEXT_TABLE), error))?;
    lookup.note_name();
    Ok(())
}

/// Makes the file for the next table on disk. Should there be one of that name, that loses the name and
/// is not touched: it may be the table in use, which could not be given its own.
pub(crate) fn new_table(storage: &dyn Storage, limit: u32) -> Result<Lookup> {
    let path = storage.describe(NEXT_TABLE);
    let made = remove_if_there(storage, NEXT_TABLE)
        .and_then(|_| storage.open(NEXT_TABLE, Access::CreateNew));
    let file = made.map_err(|error| Error::from_io("make", path.clone(), error))?;
    Lookup::on_disk(limit, file, &path)
}

/// A lookup as of a checkpoint.
#[derive(Debug)]
pub(crate) struct Loaded<'a> {
    pub(crate) lookup: Lookup,
    pub(crate) made: NewTable<'a>,
    pub(crate) state: State,
}

/// What is found of a checkpoint.
#[derive(Debug, Default)]
pub(crate) struct Checkpoint<'a> {
    /// Up to where the log had been on disk when it was written.
    pub(crate) log_end: Option<LogEnd>,
    /// `None` if it doesn't verify, or its table has changed since.
    pub(crate) loaded: Option<Loaded<'a>>,
}

/// The last checkpoint, if it is of this database and generation.
pub(crate) fn load<'a>(
    storage: &'a dyn Storage,
    uuid: &[u8; 16],
    generation: u64,
    wanted: Load,
) -> Result<Checkpoint<'a>> {
    let Some((file, header)) = passed_over(open(storage, uuid, generation))? else {
        return Ok(Checkpoint::default());
    };
    Ok(Checkpoint {
        log_end: header.state.log_end,
        loaded: passed_over(load_blocks(storage, &*file, header, wanted))?,
    })
}

/// Nothing, in place of what a failing disk can't give back: it can be made again.
fn passed_over<T>(found: Result<Option<T>>) -> Result<Option<T>> {
    match found {
        Err(Error::Io { source, .. }) if !is_refused(&source) => Ok(None),
        found => found,
    }
}

/// Whether the last checkpoint is of this database and generation.
pub(crate) fn is_there(storage: &dyn Storage, uuid: &[u8; 16], generation: u64) -> Result<bool> {
    Ok(open(storage, uuid, generation)?.is_some())
}

/// Whether the last checkpoint is of this database and generation, and of a log that ended no later.
pub(crate) fn is_of(
    storage: &dyn Storage,
    uuid: &[u8; 16],
    generation: u64,
    log_end: Option<LogEnd>,
) -> Result<bool> {
    let found = open(storage, uuid, generation)?;
    Ok(found.is_some_and(|(_, header)| header.state.log_end <= log_end))
}

fn open(
    storage: &dyn Storage,
    uuid: &[u8; 16],
    generation: u64,
) -> Result<Option<(Arc<dyn File>, Header)>> {
    let unreadable = |error| Error::from_io("read", storage.describe(INDEX), error);
    let file = match storage.open(INDEX, Access::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error)),
    };
    let len = file.len().map_err(unreadable)?;
    let mut header = [0u8; HEADER];
    if len < HEADER as u64 {
        return Ok(None);
    }
    file.read_at(0, &mut header).map_err(unreadable)?;
    let header = Header::decode(&header).filter(|Header { state, .. }| {
        let is_there = |end: LogEnd| end.position as usize >= FILE_HEADER;
        state.log_end.is_none_or(is_there) && state.uuid == *uuid && state.generation == generation
    });
    Ok(header.map(|header| (file, header)))
}

fn load_blocks<'a>(
    storage: &'a dyn Storage,
    file: &dyn File,
    header: Header,
    wanted: Load,
) -> Result<Option<Loaded<'a>>> {
    let unreadable = |error| Error::from_io("read", storage.describe(INDEX), error);
    let len = file.len().map_err(unreadable)?;
    let count = header.blocks as usize;
    let highest = u64::from(wanted.limit).div_ceil(BLOCK_IDS as u64);
    let room = len.saturating_sub(HEADER as u64) / 8;
    if count as u64 > room.min(highest) || (header.external && !wanted.table_is_clean) {
        return Ok(None);
    }
    let mut directory = zeroed(count * 8)?;
    file.read_at(HEADER as u64, &mut directory)
        .map_err(unreadable)?;
    if crc32fast::hash(&directory) != header.directory_crc {
        return Ok(None);
    }
    let directory = directory.chunks_exact(8);
    let directory = collected(directory.map(|entry| (u32_at(entry, 0), u32_at(entry, 4))))?;
    let ascending = directory.windows(2).all(|pair| pair[0].0 < pair[1].0);
    if !ascending
        || directory
            .last()
            .is_some_and(|last| u64::from(last.0) >= highest)
    {
        return Ok(None);
    }
    let table = match header.external {
        true => match storage.open(TABLE, wanted.access()) {
            Ok(table) => Some(table),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::from_io("open", storage.describe(TABLE), error)),
        },
        false => None,
    };
    let (live, lookup, made) = match (wanted.kind, table) {
        (LookupKind::Disk, Some(table)) => {
            let lookup = Lookup::on_disk(wanted.limit, table, &storage.describe(TABLE))?;
            lookup.note_name();
            (verify_in_place(&directory, &lookup), lookup, NewTable(None))
        }
        (kind, table) => {
            let (lookup, made) = empty(storage, kind, wanted.limit)?;
            let packed_at = table.is_none().then_some(blocks_offset(count));
            let blocks = table.as_deref().unwrap_or(file);
            let live = read_blocks(blocks, packed_at, &directory, &lookup);
            (live.map_err(unreadable)?, lookup, made)
        }
    };
    Ok((live == Some(header.state.live)).then_some(Loaded {
        lookup,
        made,
        state: header.state,
    }))
}

/// Reads the blocks into the table; the number of live ids, or `None` where a block is damaged.
/// They lie one after the other from `packed_at`, or each in its own place in a table.
fn read_blocks(
    file: &dyn File,
    packed_at: Option<u64>,
    directory: &[(u32, u32)],
    lookup: &Lookup,
) -> io::Result<Option<u64>> {
    let len = file.len()?;
    // All before the first: a dense region gets its huge page at once, and not when it has small ones.
    for &(block, _) in directory {
        lookup.use_block(block);
    }
    let mut live = 0;
    let mut buffer = room(READ_AT_ONCE.min(directory.len().max(1)) * BLOCK)?;
    buffer.resize(buffer.capacity(), 0);
    let mut packed = packed_at;
    let mut rest = directory;
    while let Some(&(first, _)) = rest.first() {
        // A run of blocks that lie next to each other in the file.
        let run = match packed {
            Some(_) => rest.len().min(READ_AT_ONCE),
            None => rest
                .iter()
                .take(READ_AT_ONCE)
                .enumerate()
                .take_while(|(index, (block, _))| {
                    u64::from(*block) == u64::from(first) + *index as u64
                })
                .count(),
        };
        let offset = packed.unwrap_or(u64::from(first) * BLOCK as u64);
        let bytes = &mut buffer[..run * BLOCK];
        let available = len.saturating_sub(offset).min(bytes.len() as u64) as usize;
        if packed.is_some() && available < bytes.len() {
            return Ok(None);
        }
        // The last block of a table may be cut short by the limit.
        file.read_at(offset, &mut bytes[..available])?;
        bytes[available..].fill(0);
        for (&(block, crc), bytes) in rest[..run].iter().zip(bytes.chunks_exact(BLOCK)) {
            if crc32fast::hash(bytes) != crc && !planted!(checkpoint_checksum_ignored) {
                return Ok(None);
            }
            lookup.prepare(block * BLOCK_IDS as u32)?;
            live += lookup.adopt_block(block, &words_of(bytes), true);
        }
        packed = packed.map(|at| at + (run * BLOCK) as u64);
        rest = &rest[run..];
    }
    Ok(Some(live))
}

/// Checks the blocks of a mapped table where they stand.
fn verify_in_place(directory: &[(u32, u32)], lookup: &Lookup) -> Option<u64> {
    let mut live = 0;
    for &(block, crc) in directory {
        lookup.use_block(block);
        let mut words = [0u64; BLOCK_IDS];
        for (value, word) in words.iter_mut().zip(lookup.block(block)) {
            *value = word.load(Ordering::Relaxed);
        }
        let mut bytes = [0u8; BLOCK];
        for (bytes, word) in bytes.chunks_exact_mut(8).zip(&words) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        if crc32fast::hash(&bytes) != crc {
            return None;
        }
        live += lookup.adopt_block(block, &words, false);
    }
    Some(live)
}

/// An empty vector with room for so many bytes.
fn room(bytes: usize) -> io::Result<Vec<u8>> {
    let mut vec = Vec::new();
    vec.try_reserve_exact(bytes)
        .map_err(|_| io::ErrorKind::OutOfMemory)?;
    Ok(vec)
}

fn words_of(bytes: &[u8]) -> [u64; BLOCK_IDS] {
    let mut words = [0u64; BLOCK_IDS];
    for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(8)) {
        *word = u64_at(bytes, 0);
    }
    words
}
