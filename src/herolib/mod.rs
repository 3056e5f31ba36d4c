//! Reading and writing the directories of herolib's OurDB, in V and in Go.
//!
//! ```text
//! N.db                 a zero byte, then records (see `record`) back to back; N+1.db is begun
//!                      when N.db is found to be as long as `file_size` or longer
//! lookup_dump.db/data  per id, ascending: id (u32 little-endian), then the location of its newest
//!                      version: the position in 0.db in 2, 3 or 4 bytes, or the data file in 2
//!                      and the position in 4, all big-endian
//! lookup_dump.db/.inc  the next id in decimal; in incremental directories only
//! ```
//!
//! Before herolib, `lookup_dump.db` was a plain file of the same entries, and
//! `lookup_dump.db.inc` beside it held the last id given out rather than the next.
//!
//! The dump is the only place that knows which record belongs to which id, and it is written at a
//! clean close only, if at all. [`read_dump`] takes it where there is one; [`reconstruct()`] finds
//! the ids of an incremental directory without one from the order of its records; [`write_dump`]
//! writes one, so that V and Go can read what was closed here.
//!
//! This module knows storage and nothing of the engine: bytes in, ids and locations out. It
//! believes nothing that it reads. A location that it hands out may still lie outside of its data
//! file, or point at a record that doesn't match its CRC: whoever reads there must check.

mod appended;
mod dump;
mod reader;
mod reconstruct;
pub(crate) mod record;
#[cfg(test)]
mod tests;

use std::cmp::max;
use std::io;

use crate::bytes::reserve;
use crate::error::{Error, Result};
use crate::location::Location;
use crate::storage::{Access, Storage, is_refused};
pub(crate) use appended::{Appended, appended, record_at};
pub(crate) use dump::{
    DumpStamp, Presence, dump_modified_ns, presence, read_dump, remove_dump, stamp, write_dump,
};
pub(crate) use reconstruct::reconstruct;

/// The name of data file `number`.
pub(crate) fn data_file_name(number: u16) -> String {
    format!("{number}.db")
}

/// A data file that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DataFile {
    pub(crate) number: u16,
    /// In bytes.
    pub(crate) len: u64,
}

/// The data files of the directory, ascending. What has another name, as `a.db`, `00.db` and
/// `65536.db`, or is a directory, is none; neither is there one where there is no directory.
pub(crate) fn data_files(storage: &dyn Storage) -> Result<Vec<DataFile>> {
    data_files_but(storage, |_| false)
}

/// The same, without those that a failing disk can't open.
pub(crate) fn readable_data_files(storage: &dyn Storage) -> Result<Vec<DataFile>> {
    data_files_but(storage, |error| !is_refused(error))
}

fn data_files_but(
    storage: &dyn Storage,
    is_left_out: impl Fn(&io::Error) -> bool,
) -> Result<Vec<DataFile>> {
    let mut files = Vec::new();
    for name in list(storage, "")? {
        let number = name
            .strip_suffix(".db")
            .and_then(|number| number.parse().ok());
        let Some(number) = number.filter(|&number| data_file_name(number) == name) else {
            continue;
        };
        let len = storage.is_directory(&name).and_then(|is_directory| {
            if is_directory {
                Ok(None)
            } else {
                storage.open(&name, Access::Read)?.len().map(Some)
            }
        });
        match len {
            Ok(Some(len)) => {
                reserve(&mut files, 1)?;
                files.push(DataFile { number, len });
            }
            Ok(None) => {}
            // No regular file, or a link to nowhere: none of herolib's, and none of ours.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::InvalidInput | io::ErrorKind::NotFound
                ) => {}
            Err(error) if is_left_out(&error) => {}
            Err(error) => return Err(failed(storage, "open", &name, error)),
        }
    }
    files.sort_unstable_by_key(|file| file.number);
    Ok(files)
}

/// In how many bytes V and Go keep a location with these settings: 2, 3, 4 or 6.
pub(crate) fn lookup_width(record_nr_max: u32, record_size_max: u32) -> u8 {
    // The product wraps at 32 bits in the original, and both its sides must agree on the width.
    let bytes = record_size_max.wrapping_mul(record_nr_max);
    if bytes > 20_000_000 {
        6
    } else if record_nr_max < 1 << 16 {
        2
    } else if record_nr_max < 1 << 24 {
        3
    } else {
        4
    }
}

/// What a herolib directory holds.
#[derive(Debug)]
pub(crate) struct Adopted {
    /// The data files, ascending.
    pub(crate) files: Vec<DataFile>,
    /// The next id to give out, at least 1; `None` if the directory is in key-value mode.
    pub(crate) next_id: Option<u32>,
    /// The smallest `record_nr_max` that has room for all ids, those given out and deleted too.
    pub(crate) record_nr_max: u32,
    lookup: Lookup,
}

#[derive(Debug)]
enum Lookup {
    Dump(dump::Entries),
    /// Of ids from 1 on; [`Location::NONE`] for those that were deleted.
    Reconstructed(Vec<Location>),
}

impl Adopted {
    fn new(
        files: Vec<DataFile>,
        next_id: Option<u32>,
        last_id: Option<u32>,
        lookup: Lookup,
    ) -> Adopted {
        // Ids end before u32::MAX: the limit above them all is a u32 itself.
        let record_nr_max = max(last_id.map_or(0, |id| id + 1), next_id.unwrap_or(0));
        Adopted {
            files,
            next_id,
            record_nr_max,
            lookup,
        }
    }

    /// Every id that holds a record, ascending, and where its newest version should be.
    pub(crate) fn entries(self) -> Box<dyn Iterator<Item = Result<(u32, Location)>>> {
        match self.lookup {
            Lookup::Dump(entries) => Box::new(
                entries.filter(|entry| !matches!(entry, Ok((_, location)) if location.is_none())),
            ),
            Lookup::Reconstructed(locations) => Box::new(
                (1..)
                    .zip(locations)
                    .filter(|(_, location)| !location.is_none())
                    .map(Ok),
            ),
        }
    }
}

/// Why a directory with data files and no dump isn't opened: for a caller that did not ask to
/// adopt it.
pub(crate) fn not_adopted(storage: &dyn Storage) -> Error {
    Error::incompatible(format!(
        "{} has data files of herolib but no lookup dump, so which record has which id is not \
         stored; open it with ADOPT to reconstruct the ids of an incremental database",
        storage.describe("")
    ))
}

/// Why such a directory can't be adopted in key-value mode.
pub(crate) fn ids_unknown(storage: &dyn Storage) -> Error {
    Error::incompatible(format!(
        "{} has no lookup dump, and the ids of a key-value database are nowhere else on disk: \
         they can't be reconstructed",
        storage.describe("")
    ))
}

/// The names in a directory; none if it isn't there.
fn list(storage: &dyn Storage, directory: &str) -> Result<Vec<String>> {
    match storage.list(directory) {
        Ok(names) => Ok(names),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(failed(storage, "list", directory, error)),
    }
}

fn failed(storage: &dyn Storage, action: &'static str, name: &str, error: io::Error) -> Error {
    Error::from_io(action, storage.describe(name), error)
}

fn corrupt(storage: &dyn Storage, name: &str, offset: u64, what: String) -> Error {
    Error::corrupt(storage.describe(name), offset, what)
}
