//! What the log builds upon when it doesn't begin with nothing: the lookup of a directory that was
//! taken over from herolib, in file `base.G` with the generation G. Written once, then only read,
//! when the lookup has to be built again.
//!
//! ```text
//!  0   8  "OURDBBAS"
//!  8   4  format version, 1
//! 12   4  number of entries n
//! 16  12n ascending: id u32, entry of the lookup u64
//! ```
//!
//! The manifest holds n and the CRC32 of the whole file.

use std::io;

use crate::bytes::{collected, reserve_exact, u32_at, u64_at};
use crate::error::{Error, Result};
use crate::lookup::Entry;
use crate::manifest::BaseStamp;
use crate::planted::planted;
use crate::storage::{Storage, read_all, replace};

/// The name of the base of a generation. Another one never replaces it, so that the manifest, old
/// or new, finds its own.
pub(crate) fn name(generation: u64) -> String {
    format!("base.{generation}")
}

/// Whether a file of this name is the base of some generation.
pub(crate) fn is_base(name: &str) -> bool {
    let generation = name.strip_prefix("base.").and_then(|it| it.parse().ok());
    generation.is_some_and(|generation| self::name(generation) == name)
}

const MAGIC: &[u8; 8] = b"OURDBBAS";
const FORMAT: u32 = 1;
const HEADER: usize = 16;
const ENTRY: usize = 12;

/// Writes the file durably; what the manifest must hold of it.
pub(crate) fn write(
    storage: &dyn Storage,
    generation: u64,
    entries: &[(u32, Entry)],
) -> Result<BaseStamp> {
    let name = name(generation);
    let mut bytes = Vec::new();
    reserve_exact(&mut bytes, HEADER + ENTRY * entries.len())?;
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&FORMAT.to_le_bytes());
    bytes.extend_from_slice(&(entries.len() as u32).to_le_bytes());
    for (id, entry) in entries {
        bytes.extend_from_slice(&id.to_le_bytes());
        bytes.extend_from_slice(&entry.to_word().to_le_bytes());
    }
    replace(storage, &name, &[&bytes])
        .map_err(|error| Error::from_io("write", storage.describe(&name), error))?;
    Ok(BaseStamp {
        crc: crc32fast::hash(&bytes),
        entries: entries.len() as u32,
    })
}

/// The entries, ascending.
pub(crate) fn read(
    storage: &dyn Storage,
    generation: u64,
    stamp: BaseStamp,
) -> Result<Vec<(u32, Entry)>> {
    let name = name(generation);
    let path = storage.describe(&name);
    let expected = HEADER + ENTRY * stamp.entries as usize;
    let damaged = |what: &'static str| Error::corrupt(path.clone(), 0, what);
    let misfit = || damaged("the file does not match the manifest");
    let bytes = match read_all(storage, &name, expected as u64) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(damaged("the file is missing, and the manifest names it"));
        }
        Err(error) if error.kind() == io::ErrorKind::FileTooLarge => return Err(misfit()),
        Err(error) => return Err(Error::from_io("read", path, error)),
    };
    if bytes.len() != expected
        || bytes[..8] != *MAGIC
        || u32_at(&bytes, 8) != FORMAT
        || (crc32fast::hash(&bytes) != stamp.crc && !planted!(base_checksum_ignored))
    {
        return Err(misfit());
    }
    let entries = bytes[HEADER..].chunks_exact(ENTRY);
    let entries = entries.map(|entry| (u32_at(entry, 0), Entry::from_word(u64_at(entry, 4))));
    let entries = collected(entries)?;
    if !entries.windows(2).all(|pair| pair[0].0 < pair[1].0) {
        return Err(damaged("the ids are not in order"));
    }
    Ok(entries)
}
