//! The manifest: the small file that says what database this is, which data files belong to it,
//! and how far they are known to be on disk. Replaced atomically, never changed in place. Its bytes are
//! in `encoding`.

mod encoding;

use std::io;

use self::encoding::LONGEST;
use crate::bytes::copied;
use crate::error::{Error, Result};
use crate::herolib::DumpStamp;
use crate::log::segment::{FileHeader, LAST_GENERATION, LogEnd};
use crate::options::Limits;
use crate::storage::{Storage, modified_ns, read_all, replace};

/// Its name.
pub(crate) const MANIFEST: &str = "MANIFEST";

/// After so many clears the next one that is made here deletes record by record.
pub(crate) const MOST_CLEARS: usize = 4096;
/// Those of another database are applied as they are, as many as this.
pub(crate) const MOST_LISTED_CLEARS: usize = 1 << 24;

/// Whether the database was left in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Closed cleanly: lengths and counters are exact, the checkpoint is current.
    Clean,
    /// Written to since the last clean close: lengths and counters are lower bounds.
    Open,
    /// Its files are being removed, to begin anew.
    Resetting,
    /// As `Open`, and a sync has failed since: the kernel may hold pages of the log that it
    /// believes to be on disk and that are not.
    SyncFailed,
    /// A backup that is being made: no database yet. So much of each data file is on disk.
    Unfinished,
    /// A backup that a later one is being added to, and until that is done what it was: lengths and
    /// counters are exact, and whatever lies behind them or beside doesn't count.
    Extending,
}

/// What a data file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileKind {
    /// Part of the log.
    Log,
    /// What a compaction has kept of an earlier log: ascending by id, of each id the oldest version
    /// first. The log builds upon it.
    Compacted,
    /// Not part of the log any more, or never: versions are found in it through the base and
    /// through chains alone. Records that begin below `own_until` have our envelope, the others
    /// are herolib's.
    Frozen {
        /// 0 in a file that herolib made.
        own_until: u32,
    },
}

/// A data file that belongs to the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DataFile {
    pub(crate) number: u16,
    pub(crate) kind: FileKind,
    /// This many bytes of it are on disk.
    pub(crate) len: u32,
}

/// The lookup that the log builds upon, when it doesn't begin with nothing (see `base`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BaseStamp {
    pub(crate) crc: u32,
    pub(crate) entries: u32,
}

/// A herolib dump that we know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KnownDump {
    pub(crate) stamp: DumpStamp,
    /// As long as it was not touched since, its checksum need not be computed again.
    pub(crate) modified_ns: u64,
}

/// A commit that deleted every record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Clear {
    pub(crate) commit: u64,
    pub(crate) time_us: u64,
}

/// What was in a data file when the log began anew behind it, and until when. Others have written to the
/// directory since, and clears came between the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TakenOver {
    pub(crate) file: u16,
    /// Versions below this ...
    pub(crate) end: u32,
    /// ... that have no commit were there at this one.
    pub(crate) commit: u64,
}

/// The manifest's contents.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) uuid: [u8; 16],
    pub(crate) generation: u64,
    pub(crate) key_value: bool,
    pub(crate) native: bool,
    /// Made as a backup, and never written to since: a later one may be added to it.
    pub(crate) backup: bool,
    pub(crate) state: State,
    pub(crate) limits: Limits,
    pub(crate) next_id: u64,
    pub(crate) commit: u64,
    pub(crate) time_us: u64,
    pub(crate) base: Option<BaseStamp>,
    /// The herolib dump as we wrote it.
    pub(crate) dump: Option<KnownDump>,
    /// Ascending.
    pub(crate) files: Vec<DataFile>,
    /// Numbers of data files that are to be removed, ascending: those that a compaction has replaced
    /// and that have no header which would say so, and those that a backup is being extended by. A
    /// file of this generation may have such a number since, which shows in its header.
    pub(crate) doomed: Vec<u16>,
    /// A compaction is making data files of a later generation, or could not remove what it made.
    pub(crate) is_compacting: bool,
    /// From this commit on every version is kept; 0 before the first compaction. Beyond the last
    /// commit in the middle of a difference that is being applied, which ends with it.
    pub(crate) oldest: u64,
    /// Time of the last commit before the log; 0 before the first compaction.
    pub(crate) base_time_us: u64,
    /// Commits that deleted every record, as far as the log was on disk when this was written;
    /// ascending.
    pub(crate) clears: Vec<Clear>,
    /// Ascending. What else has no commit was there at the last one before the log.
    pub(crate) taken_over: Vec<TakenOver>,
}

impl Manifest {
    /// Of a database that is just being made.
    pub(crate) fn new(uuid: [u8; 16], key_value: bool, native: bool, limits: Limits) -> Manifest {
        Manifest {
            uuid,
            generation: 0,
            key_value,
            native,
            backup: false,
            state: State::Clean,
            limits,
            next_id: 1,
            commit: 0,
            time_us: 0,
            base: None,
            dump: None,
            files: Vec::new(),
            doomed: Vec::new(),
            is_compacting: false,
            oldest: 0,
            base_time_us: 0,
            clears: Vec::new(),
            taken_over: Vec::new(),
        }
    }

    /// The same once more, if there is memory for it.
    pub(crate) fn try_clone(&self) -> Result<Manifest> {
        Ok(Manifest {
            files: copied(&self.files)?,
            doomed: copied(&self.doomed)?,
            clears: copied(&self.clears)?,
            taken_over: copied(&self.taken_over)?,
            ..*self
        })
    }

    /// Whether this is what a reader made in memory of what others wrote: for a writer there is a base.
    pub(crate) fn is_taken_over_in_memory(&self) -> bool {
        let is_frozen = |file: &DataFile| matches!(file.kind, FileKind::Frozen { .. });
        self.base.is_none() && self.files.iter().any(is_frozen)
    }

    /// Whether this is what a reader made in memory of a directory in which nobody but herolib has written.
    pub(crate) fn is_of_herolib(&self) -> bool {
        let herolibs = FileKind::Frozen { own_until: 0 };
        let is_new = self.generation == 0 && self.commit == 0;
        is_new && self.files.iter().all(|file| file.kind == herolibs)
    }

    /// What is known of data file `number`.
    pub(crate) fn file(&self, number: u16) -> Option<&DataFile> {
        let index = self.files.binary_search_by_key(&number, |file| file.number);
        self.files.get(index.ok()?)
    }

    /// Where the log ended when this was written; `None` where nothing of it was there.
    pub(crate) fn log_end(&self) -> Option<LogEnd> {
        let last = self.files.iter().rfind(|file| file.kind == FileKind::Log);
        last.map(|file| LogEnd {
            file: file.number,
            position: file.len,
        })
    }

    /// The manifest of a directory, if it has one.
    pub(crate) fn read(storage: &dyn Storage) -> Result<Option<Manifest>> {
        let path = storage.describe(MANIFEST);
        match read_all(storage, MANIFEST, LONGEST) {
            Ok(bytes) => Manifest::decode(&bytes, &path).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => Err(Error::corrupt(
                path,
                LONGEST,
                "the manifest is longer than it can be",
            )),
            Err(error) => Err(Error::from_io("read", path, error)),
        }
    }

    /// When the manifest of a directory was written, in nanoseconds since the Unix epoch; 0 if unknown.
    pub(crate) fn modified_ns(storage: &dyn Storage) -> Result<u64> {
        modified_ns(storage, MANIFEST)
            .map_err(|error| Error::from_io("open", storage.describe(MANIFEST), error))
    }

    /// Makes this the manifest, atomically and durably.
    pub(crate) fn write(&self, storage: &dyn Storage) -> Result<()> {
        replace(storage, MANIFEST, &[&self.encode()?])
            .map_err(|error| Error::from_io("write", storage.describe(MANIFEST), error))
    }
}

/// The generation that comes after `generation` in the database `uuid`: one that no data file has, of
/// those with `numbers`. A compaction that failed may have left files which nobody could remove, and
/// with their generation they would be taken for a part of the database.
pub(crate) fn next_generation(
    storage: &dyn Storage,
    uuid: &[u8; 16],
    generation: u64,
    numbers: impl Iterator<Item = u16>,
) -> Result<u64> {
    let mut last = generation;
    for number in numbers {
        let header = match FileHeader::of(storage, number) {
            // Its last reader is gone, and so is the file.
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => continue,
            header => header?,
        };
        if let Some(header) = header.filter(|header| header.uuid == *uuid) {
            last = last.max(header.generation);
        }
    }
    if last >= LAST_GENERATION {
        let what = "a generation is the last one there can be, which no database comes to";
        return Err(Error::corrupt(storage.describe(""), 0, what));
    }
    Ok(last + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::segment::name;
    use crate::storage::Access;
    use crate::storage::memory::MemoryStorage;

    #[test]
    fn the_next_generation_is_one_that_no_data_file_has() {
        let storage = MemoryStorage::new();
        let next = || {
            let files = crate::herolib::data_files(&storage).expect("a list");
            let numbers = files.iter().map(|file| file.number);
            next_generation(&storage, &[5; 16], 3, numbers).ok()
        };
        let put = |number: u16, bytes: &[u8]| {
            let file = storage.open(&name(number), Access::CreateNew);
            let file = file.expect("a new file");
            file.write_at(0, &[bytes]).expect("it is written");
        };
        let header = |number, uuid, generation| FileHeader {
            uuid: [uuid; 16],
            number,
            after: None,
            generation,
            first_commit: 0,
        };
        assert_eq!(next(), Some(4));
        put(0, &header(0, 5, 2).encode());
        put(1, &header(1, 6, 90).encode());
        put(2, &header(2, 5, 90).encode()[..63]);
        put(3, &[]);
        assert_eq!(next(), Some(4));
        put(7, &header(7, 5, 8).encode());
        put(8, &header(8, 5, 6).encode());
        assert_eq!(next(), Some(9));
        // Whatever it says of itself, there is one with this number.
        put(9, &header(10, 5, LAST_GENERATION - 1).encode());
        assert_eq!(next(), Some(LAST_GENERATION));
        // No data file of ours says that.
        put(10, &header(10, 5, u64::MAX).encode());
        assert_eq!(next(), Some(LAST_GENERATION));
        put(11, &header(11, 5, LAST_GENERATION).encode());
        assert_eq!(next(), None);
    }
}
