//! Overwriting versions where they stand, and the journal that makes the work whole after a crash.
//!
//! ```text
//!  0   8  "OURDBERA"
//!  8   4  format version, 1
//! 12  16  database uuid
//! 28   4  number of versions n
//! 32   8  generation
//! 40 52n  per version: data file u16, length of its head u16, position of its head u32, length of
//!         its value u32, the head that it gets, 40 bytes, of which a shorter head takes the first
//!      4  CRC32 of everything before
//! ```
//!
//! A head that was overwritten in part verifies neither as the old nor as the new one, so the new
//! ones are written down elsewhere first, durably. To overwrite a second time does no harm.
//!
//! In this process nobody reads meanwhile. Readers in another one, of whom nothing is known here, tell
//! by the head, which is overwritten before the value: who has copied a value and finds the head as it
//! was has copied all of it before. What looks damaged is read again, [`beside`] the erasure.

use std::io;
use std::time::{Duration, Instant};

use super::record::{HEAD, HEROLIB_HEADER, Head, Kind};
use super::segment::{Segment, name};
use crate::bytes::{array_at, collected, reserve, u16_at, u32_at, u64_at};
use crate::error::{Error, Result};
use crate::herolib::record::{HEADER as HEROLIB, Header};
use crate::location::Location;
use crate::planted::planted;
use crate::storage::{
    Access, Storage, ZEROS, crc32, read_all, remove_if_there, replace, sync_directory,
};
use crate::sync::sleep;

/// The name of the journal. It is there while versions are overwritten.
pub(crate) const JOURNAL: &str = "erasing";

const MAGIC: &[u8; 8] = b"OURDBERA";
const FORMAT: u32 = 1;
const HEADER: usize = 40;
const ENTRY: usize = 12 + HEAD;
/// So many versions are overwritten at a time, a millisecond's work, before those who wait have their turn:
/// who asks for a lock again at once may be quicker than they.
const AT_ONCE: usize = 1000;
const BETWEEN: Duration = Duration::from_micros(50);
/// For so long a reader looks again at what another process may be overwriting. Mostly once is enough;
/// should that process have no processor meanwhile, this is long enough for it to get one.
const PATIENCE: Duration = Duration::from_millis(100);

/// A version that is to be overwritten, and by what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    file: u16,
    /// Where its head begins.
    position: u32,
    /// The head that it gets, in the first `head_len` bytes.
    head: [u8; HEAD],
    head_len: u16,
    /// Length of its value, which becomes zeros.
    len: u32,
}

/// CRC32 of so many zeros.
fn crc_of_zeros(len: u32) -> u32 {
    let mut crc = 0;
    for piece in pieces(len) {
        crc = crc32(crc, piece);
    }
    crc
}

/// So many zeros, in pieces.
fn pieces(len: u32) -> impl Iterator<Item = &'static [u8]> {
    let mut left = len as usize;
    std::iter::from_fn(move || {
        let piece = &ZEROS[..left.min(ZEROS.len())];
        left -= piece.len();
        (!piece.is_empty()).then_some(piece)
    })
}

/// The head of a version after its erasure.
pub(crate) fn erased(head: &Head) -> Head {
    Head {
        kind: Kind::Erased,
        crc: crc_of_zeros(head.len),
        ..*head
    }
}

/// Calls `write` with positions and zeros for a value of `len` bytes at `position`.
pub(crate) fn zero(
    position: u64,
    len: u32,
    mut write: impl FnMut(u64, &[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut at = position;
    for piece in pieces(len) {
        write(at, piece)?;
        at += piece.len() as u64;
    }
    Ok(())
}

impl Target {
    /// For the version at `location`, which has this head; `None` if there is nothing of a value in
    /// it.
    pub(crate) fn of(segment: &Segment, location: Location, head: &Head) -> Result<Option<Target>> {
        if head.kind != Kind::Put {
            return Ok(None);
        }
        let new = erased(head);
        if segment.is_own(location) {
            let position = location.position - HEROLIB_HEADER as u32;
            return Ok(Some(Target {
                file: location.file,
                position,
                head: new.encode(segment.seed(), position),
                head_len: HEAD as u16,
                len: head.len,
            }));
        }
        // Nothing but the value's checksum proves that a version is here: herolib's pointers have
        // none.
        let value = segment.value(location, head)?;
        if value.iter().all(|&byte| byte == 0) {
            return Ok(None);
        }
        let header = Header {
            size: head.len as u16,
            crc: new.crc,
            previous: head.previous,
        };
        let mut bytes = [0; HEAD];
        bytes[..HEROLIB].copy_from_slice(&header.encode());
        Ok(Some(Target {
            file: location.file,
            position: location.position,
            head: bytes,
            head_len: HEROLIB as u16,
            len: head.len,
        }))
    }

    /// Data file and position.
    pub(crate) fn place(&self) -> (u16, u32) {
        (self.file, self.position)
    }

    /// Whether herolib has written it.
    pub(crate) fn is_herolibs(&self) -> bool {
        usize::from(self.head_len) == HEROLIB
    }

    fn head(&self) -> &[u8] {
        &self.head[..usize::from(self.head_len)]
    }

    fn encode(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.file.to_le_bytes());
        bytes.extend_from_slice(&self.head_len.to_le_bytes());
        bytes.extend_from_slice(&self.position.to_le_bytes());
        bytes.extend_from_slice(&self.len.to_le_bytes());
        bytes.extend_from_slice(&self.head);
    }

    fn decode(bytes: &[u8]) -> Option<Target> {
        let head_len = u16_at(bytes, 2);
        (usize::from(head_len) <= HEAD).then(|| Target {
            file: u16_at(bytes, 0),
            head_len,
            position: u32_at(bytes, 4),
            len: u32_at(bytes, 8),
            head: array_at(bytes, 12),
        })
    }
}

/// Makes sure that the data files of `targets` can be written to.
pub(crate) fn check_writable(storage: &dyn Storage, targets: &[Target]) -> Result<()> {
    for targets in targets.chunk_by(|one, other| one.file == other.file) {
        let name = name(targets[0].file);
        let opened = storage.open(&name, Access::Write);
        opened.map_err(|error| Error::from_io("overwrite in", storage.describe(&name), error))?;
    }
    Ok(())
}

/// Overwrites versions, durably. Those of a file should stand next to each other. `alone` does what it
/// is given while nobody reads: some versions at a time, and no sync, so that others wait for a moment
/// only.
pub(crate) fn overwrite(
    storage: &dyn Storage,
    targets: &[Target],
    mut alone: impl FnMut(&mut dyn FnMut() -> Result<()>) -> Result<()>,
) -> Result<()> {
    for targets in targets.chunk_by(|one, other| one.file == other.file) {
        let name = name(targets[0].file);
        let failed = |action, error| Error::from_io(action, storage.describe(&name), error);
        let file = storage.open(&name, Access::Write);
        let file = file.map_err(|error| failed("overwrite in", error))?;
        let end = file.len().map_err(|error| failed("overwrite in", error))?;
        let write = |target: &Target| {
            let start = u64::from(target.position);
            let value = start + u64::from(target.head_len);
            if value + u64::from(target.len) > end {
                let what = "a version that is to be erased reaches beyond the end of the file";
                return Err(Error::corrupt(storage.describe(&name), start, what));
            }
            file.write_at(start, &[target.head()])
                .and_then(|()| zero(value, target.len, |at, zeros| file.write_at(at, &[zeros])))
                .map_err(|error| failed("overwrite in", error))
        };
        for (index, targets) in targets.chunks(AT_ONCE).enumerate() {
            if index > 0 {
                sleep(BETWEEN);
            }
            alone(&mut || targets.iter().try_for_each(write))?;
        }
        if !planted!(overwritten_not_synced) {
            file.sync().map_err(|error| failed("sync", error))?;
        }
    }
    Ok(())
}

/// The bytes of a journal. Memory for them is had before there is no way back.
#[derive(Debug, Default)]
pub(crate) struct Journal(Vec<u8>);

impl Journal {
    /// Makes room for so many versions.
    pub(crate) fn reserve(&mut self, targets: usize) -> Result<()> {
        self.0.clear();
        reserve(&mut self.0, HEADER + ENTRY * targets + 4)
    }

    /// Notes durably what is going to be overwritten in the data files of a generation.
    pub(crate) fn write(
        &mut self,
        storage: &dyn Storage,
        uuid: &[u8; 16],
        generation: u64,
        targets: &[Target],
    ) -> Result<()> {
        self.reserve(targets.len())?;
        let bytes = &mut self.0;
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&FORMAT.to_le_bytes());
        bytes.extend_from_slice(uuid);
        bytes.extend_from_slice(&(targets.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&generation.to_le_bytes());
        for target in targets {
            target.encode(bytes);
        }
        let crc = crc32fast::hash(bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        replace(storage, JOURNAL, &[bytes])
            .map_err(|error| Error::from_io("write", storage.describe(JOURNAL), error))
    }
}

/// What is just being overwritten: nothing, where there is no journal.
pub(crate) fn being_overwritten(
    storage: &dyn Storage,
    uuid: &[u8; 16],
    generation: u64,
) -> Result<Vec<Target>> {
    Ok(read_journal(storage, uuid, generation)?.unwrap_or_default())
}

/// What stands in the journal; `None` if there is none, or it is not whole, or for another database
/// or generation.
pub(crate) fn read_journal(
    storage: &dyn Storage,
    uuid: &[u8; 16],
    generation: u64,
) -> Result<Option<Vec<Target>>> {
    let bytes = match read_all(storage, JOURNAL, u64::from(u32::MAX)) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::FileTooLarge => return Ok(None),
        Err(error) => return Err(Error::from_io("read", storage.describe(JOURNAL), error)),
    };
    let Some((body, crc)) = bytes.split_last_chunk::<4>() else {
        return Ok(None);
    };
    let ours = body.len() >= HEADER
        && body[..8] == *MAGIC
        && u32_at(body, 8) == FORMAT
        && body[12..28] == *uuid
        && u64_at(body, 32) == generation
        && (body.len() - HEADER) as u64 == ENTRY as u64 * u64::from(u32_at(body, 28))
        && u32::from_le_bytes(*crc) == crc32fast::hash(body);
    if !ours {
        return Ok(None);
    }
    let targets = body[HEADER..].chunks_exact(ENTRY).map_while(Target::decode);
    let targets = collected(targets)?;
    let is_whole = HEADER + ENTRY * targets.len() == body.len();
    Ok(is_whole.then_some(targets))
}

/// Removes the journal, durably, if there is one.
pub(crate) fn remove_journal(storage: &dyn Storage) -> Result<()> {
    let removed = remove_if_there(storage, JOURNAL).and_then(|was_there| match was_there {
        true => sync_directory(storage, ""),
        false => Ok(()),
    });
    removed.map_err(|error| Error::from_io("remove", storage.describe(JOURNAL), error))
}

/// Reads what another process may be overwriting, once more as long as it looks as if it were. What that
/// one writes at a time is done in microseconds.
pub(crate) fn beside<T>(
    storage: &dyn Storage,
    looks_torn: impl Fn(&T) -> bool,
    mut read: impl FnMut() -> T,
) -> T {
    let mut found = read();
    // Not a count: what is read may look again by itself.
    let mut began = None;
    while looks_torn(&found) && began.get_or_insert_with(Instant::now).elapsed() < PATIENCE {
        let is_erasing = storage.open(JOURNAL, Access::Read).is_ok();
        if is_erasing {
            sleep(BETWEEN);
        }
        // Once more where it has come to its end, too.
        found = read();
        if !is_erasing {
            break;
        }
    }
    found
}

/// Finishes what the journal says, before anything of the database is read.
pub(crate) fn redo(storage: &dyn Storage, uuid: &[u8; 16], generation: u64) -> Result<()> {
    if let Some(targets) = read_journal(storage, uuid, generation)?
        && !planted!(journal_not_carried_out)
    {
        // Whoever wrote it may have died before its name was on disk; without it a loss of power would
        // leave values half overwritten.
        sync_directory(storage, "")
            .map_err(|error| Error::from_io("sync", storage.describe(""), error))?;
        overwrite(storage, &targets, |write| write())?;
    }
    remove_journal(storage)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::memory::MemoryStorage;

    fn target(file: u16) -> Target {
        Target {
            file,
            position: 64,
            head: [7; HEAD],
            head_len: HEAD as u16,
            len: 100,
        }
    }

    #[test]
    fn a_journal_reads_back_and_a_changed_one_counts_for_nothing() {
        let storage = MemoryStorage::new();
        let targets = [target(0), target(3)];
        let written = Journal::default().write(&storage, &[5; 16], 2, &targets);
        written.expect("written");
        let read = |uuid: u8, generation| read_journal(&storage, &[uuid; 16], generation);
        assert_eq!(read(5, 2).expect("read").as_deref(), Some(&targets[..]));
        assert_eq!(read(4, 2).expect("read"), None, "another database's");
        assert_eq!(read(5, 3).expect("read"), None, "of another generation");
        let bytes = read_all(&storage, JOURNAL, 1 << 20).expect("bytes");
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            replace(&storage, JOURNAL, &[&flipped]).expect("replaced");
            assert_eq!(read(5, 2).expect("read"), None, "bit {bit}");
        }
        for len in 0..bytes.len() {
            replace(&storage, JOURNAL, &[&bytes[..len]]).expect("replaced");
            assert_eq!(read(5, 2).expect("read"), None, "length {len}");
        }
    }

    #[test]
    fn many_versions_are_overwritten_in_pieces() {
        let storage = MemoryStorage::new();
        let targets: Vec<Target> = (0..2 * AT_ONCE as u32 + 1)
            .map(|index| Target {
                position: 64 + 140 * index,
                ..target(0)
            })
            .collect();
        let len = 64 + 140 * targets.len();
        replace(&storage, "0.db", &[&vec![1; len]]).expect("a file");
        let mut pieces = 0;
        let counted = overwrite(&storage, &targets, |write| {
            pieces += 1;
            write()
        });
        counted.expect("overwritten");
        assert_eq!(pieces, 3);
        let bytes = read_all(&storage, "0.db", 1 << 20).expect("bytes");
        assert!(bytes[..64] == [1; 64] && bytes[len - 100..] == [0; 100]);
        assert!(
            bytes[64..]
                .chunks(140)
                .all(|record| record == &bytes[64..204])
        );
    }

    #[test]
    fn nothing_is_written_behind_the_end_of_a_file() {
        let storage = MemoryStorage::new();
        replace(&storage, "0.db", &[&[1; 203]]).expect("a file");
        assert!(overwrite(&storage, &[target(0)], |write| write()).is_err());
        let bytes = read_all(&storage, "0.db", 1 << 20).expect("bytes");
        assert!(bytes == [1; 203]);
        replace(&storage, "0.db", &[&[1; 205]]).expect("a file");
        overwrite(&storage, &[target(0)], |write| write()).expect("overwritten");
        let bytes = read_all(&storage, "0.db", 1 << 20).expect("bytes");
        assert!(bytes[..64] == [1; 64] && bytes[64..104] == [7; 40]);
        assert!(bytes[104..204] == [0; 100] && bytes[204..] == [1]);
    }

    #[test]
    fn long_values_have_the_checksum_of_their_zeros() {
        for len in [0, 1, 65535, 65536, 200_001] {
            assert_eq!(crc_of_zeros(len), crc32fast::hash(&vec![0; len as usize]));
        }
    }
}
