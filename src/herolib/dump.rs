//! The lookup dump: finding, reading, writing and recognizing it.

use std::io;

use super::reader::ReadRecord;
use super::record::HEADER;
use super::{
    Adopted, DataFile, Lookup, corrupt, data_file_name, data_files, failed, list, lookup_width,
    not_adopted,
};
use crate::bytes::reserve_exact;
use crate::error::{Error, Result};
use crate::location::Location;
use crate::reader::Reader;
use crate::storage::{
    File, Storage, modified_ns, read_all, remove_if_there, replace, replace_with, sync_directory,
};

const DIRECTORY: &str = "lookup_dump.db";
const DATA: &str = "lookup_dump.db/data";
const INC: &str = "lookup_dump.db/.inc";
const DATA_TEMPORARY: &str = "lookup_dump.db/data.tmp";
const INC_TEMPORARY: &str = "lookup_dump.db/.inc.tmp";
const PLAIN: &str = "lookup_dump.db";
const PLAIN_INC: &str = "lookup_dump.db.inc";
/// Where a plain dump goes when its name is needed for the directory.
const PLAIN_ASIDE: &str = "lookup_dump.db.plain";
const PLAIN_INC_ASIDE: &str = "lookup_dump.db.plain.inc";

/// In how many bytes a dump can keep a location, likelier ones first: 6 is what V's defaults give.
const WIDTHS: [u8; 4] = [6, 2, 3, 4];
/// How many records, spread over the dump, are read to see whether a width is the right one.
const SAMPLES: u64 = 1024;
/// No number that a `.inc` can hold is longer, with some white space around it.
const LONGEST_INC: u64 = 64;

/// What of herolib's is in a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    Nothing,
    /// Data files, but no dump.
    DataFiles,
    /// A dump, of either form. Data files there may be none yet.
    Dump {
        incremental: bool,
    },
}

/// Looks what of herolib's is in the directory, by the names alone. An empty directory
/// `lookup_dump.db` is no dump: V's close fails where there is none, so users make one by hand.
pub(crate) fn presence(storage: &dyn Storage) -> Result<Presence> {
    if let Some(found) = find(storage)? {
        return Ok(Presence::Dump {
            incremental: found.incremental,
        });
    }
    let none = data_files(storage)?.is_empty();
    Ok(if none {
        Presence::Nothing
    } else {
        Presence::DataFiles
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Today's, `data` and `.inc` in a directory.
    Directory,
    /// From before herolib.
    Plain,
}

impl Form {
    fn data(self) -> &'static str {
        match self {
            Form::Directory => DATA,
            Form::Plain => PLAIN,
        }
    }

    fn inc(self) -> &'static str {
        match self {
            Form::Directory => INC,
            Form::Plain => PLAIN_INC,
        }
    }
}

#[derive(Clone, Copy)]
struct Found {
    form: Form,
    /// Whether `.inc` is there.
    incremental: bool,
}

impl Found {
    fn names(&self) -> impl Iterator<Item = &'static str> + use<> {
        let inc = self.incremental.then_some(self.form.inc());
        [self.form.data()].into_iter().chain(inc)
    }
}

fn find(storage: &dyn Storage) -> Result<Option<Found>> {
    let root = list(storage, "")?;
    if !root.iter().any(|name| name == DIRECTORY) {
        return Ok(None);
    }
    let is_directory = storage
        .is_directory(DIRECTORY)
        .map_err(|error| failed(storage, "look at", DIRECTORY, error))?;
    let (form, names) = if is_directory {
        (Form::Directory, list(storage, DIRECTORY)?)
    } else {
        (Form::Plain, root)
    };
    let is_there = |path: &str| {
        let name = path.strip_prefix("lookup_dump.db/").unwrap_or(path);
        names.iter().any(|known| known == name)
    };
    let incremental = is_there(form.inc());
    Ok(is_there(form.data()).then_some(Found { form, incremental }))
}

/// Reads the dump.
///
/// The width in which it keeps locations isn't written in it. It is the one that V computes from
/// `hints` (`record_nr_max` and `record_size_max`, if the caller knows them), or from V's
/// defaults, or any other, whichever fits: in whole entries of that width all ids ascend, and
/// records lie where it says. Single records may well be missing or damaged, herolib itself does
/// that; reading such an id later says so. A dump that fits no width is refused.
pub(crate) fn read_dump(storage: &dyn Storage, hints: Option<(u32, u32)>) -> Result<Adopted> {
    let Some(found) = find(storage)? else {
        return Err(not_adopted(storage));
    };
    let files = data_files(storage)?;
    let data = found.form.data();
    let trial = choose_width(storage, data, &files, found.incremental, hints)?;
    let next_id = match found.incremental {
        false => None,
        true => {
            let inc = read_inc(storage, found.form)?;
            // A close that was interrupted between its two files leaves the `.inc` of the dump
            // before: no id is given out twice for that.
            Some(inc.max(trial.last_id.map_or(0, |id| id + 1)).max(1))
        }
    };
    let entries = Entries::open(storage, data, trial.width)?;
    Ok(Adopted::new(
        files,
        next_id,
        trial.last_id,
        Lookup::Dump(entries),
    ))
}

fn read_inc(storage: &dyn Storage, form: Form) -> Result<u32> {
    let name = form.inc();
    let bytes = match read_all(storage, name, LONGEST_INC) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::FileTooLarge => Vec::new(),
        Err(error) => return Err(failed(storage, "read", name, error)),
    };
    let text = bytes.trim_ascii();
    let number = std::str::from_utf8(text)
        .ok()
        .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|text| text.parse::<u32>().ok());
    let next = match form {
        Form::Directory => number,
        Form::Plain => number.and_then(|last| last.checked_add(1)),
    };
    next.ok_or_else(|| {
        let what = "an id in decimal is expected here, and nothing else".to_owned();
        corrupt(storage, name, 0, what)
    })
}

/// The entries of a dump, those of zero location too.
#[derive(Debug)]
pub(super) struct Entries {
    reader: Reader,
    width: u8,
    at: u64,
}

impl Entries {
    fn open(storage: &dyn Storage, name: &str, width: u8) -> Result<Entries> {
        Ok(Entries {
            reader: Reader::sequential(storage, name)?,
            width,
            at: 0,
        })
    }

    #[cfg(test)]
    pub(super) fn width(&self) -> u8 {
        self.width
    }

    fn entry_len(&self) -> u64 {
        4 + u64::from(self.width)
    }

    fn read(&mut self) -> Result<Option<(u32, Location)>> {
        let len = self.entry_len();
        let bytes = self.reader.bytes(self.at, len)?;
        let Some((id, location)) = bytes.split_first_chunk::<4>() else {
            return Ok(None);
        };
        if (bytes.len() as u64) < len {
            return Ok(None);
        }
        self.at += len;
        let location = location
            .iter()
            .fold(0u64, |value, &byte| value << 8 | u64::from(byte));
        let location = Location {
            file: (location >> 32) as u16,
            position: location as u32,
        };
        Ok(Some((u32::from_le_bytes(*id), location)))
    }
}

impl Iterator for Entries {
    type Item = Result<(u32, Location)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read().transpose()
    }
}

/// The dump, read in one width that it can have.
struct Trial {
    width: u8,
    last_id: Option<u32>,
    /// Entries that point out of the data files.
    outside: u64,
    /// Of the records that were read, those that match their CRC and hold a value that isn't
    /// empty: four billion to one that each is what the entry means.
    proofs: u64,
    /// Of the records that were read, those that don't match their CRC.
    damaged: u64,
}

fn choose_width(
    storage: &dyn Storage,
    data: &str,
    files: &[DataFile],
    incremental: bool,
    hints: Option<(u32, u32)>,
) -> Result<Trial> {
    let hinted =
        hints.map(|(record_nr_max, record_size_max)| lookup_width(record_nr_max, record_size_max));
    let others = WIDTHS.into_iter().filter(|&width| Some(width) != hinted);
    let expected = hinted.unwrap_or(WIDTHS[0]);
    let mut trials: Vec<Trial> = Vec::new();
    let mut first_misfit = None;
    for width in hinted.into_iter().chain(others) {
        match try_width(storage, data, files, incremental, width)? {
            Ok(trial) => trials.push(trial),
            Err(misfit) => drop(first_misfit.get_or_insert(misfit)),
        }
    }
    let proven = (0..trials.len()).filter(|&index| trials[index].proofs > 0);
    // Of equals the likeliest: `max_by_key` takes the last.
    if let Some(index) = proven.rev().max_by_key(|&index| trials[index].proofs) {
        return Ok(trials.swap_remove(index));
    }
    // Nothing is proven: there are no records, or they are all empty or damaged. The expected
    // width is believed if it leads out of no file, another one only if nothing else is possible.
    trials.retain(|trial| trial.outside == 0);
    if let Some(index) = trials.iter().position(|trial| trial.width == expected) {
        return Ok(trials.swap_remove(index));
    }
    trials.retain(|trial| trial.damaged == 0);
    match (trials.pop(), trials.is_empty()) {
        (Some(trial), true) => Ok(trial),
        (Some(_), false) => Err(Error::incompatible(format!(
            "the entries of {} can be read in several ways: say record_nr_max and \
             record_size_max as they were set in herolib",
            storage.describe(data)
        ))),
        (None, _) => {
            let (offset, what) =
                first_misfit.unwrap_or((0, "no entry points at a record".to_owned()));
            Err(corrupt(
                storage,
                data,
                offset,
                format!("this is no lookup dump: {what}"),
            ))
        }
    }
}

/// Reads the dump in one width; offset and reason where it can't be of that width.
fn try_width(
    storage: &dyn Storage,
    data: &str,
    files: &[DataFile],
    incremental: bool,
    width: u8,
) -> Result<std::result::Result<Trial, (u64, String)>> {
    let mut entries = Entries::open(storage, data, width)?;
    let entry_len = entries.entry_len();
    let len = entries.reader.len();
    if len % entry_len != 0 {
        let what = format!("{len} bytes are no multiple of {entry_len}, the length of an entry");
        return Ok(Err((len - len % entry_len, what)));
    }
    let stride = (len / entry_len).div_ceil(SAMPLES).max(1);
    let mut samples = Samples {
        storage,
        open: None,
    };
    let mut trial = Trial {
        width,
        last_id: None,
        outside: 0,
        proofs: 0,
        damaged: 0,
    };
    while let Some((id, location)) = entries.read()? {
        let offset = entries.at - entry_len;
        if id == u32::MAX {
            return Ok(Err((offset, format!("no id is as high as {id}"))));
        }
        if let Some(last) = trial.last_id.filter(|&last| last >= id) {
            return Ok(Err((offset, format!("id {id} stands after id {last}"))));
        }
        trial.last_id = Some(id);
        if location.is_none() {
            if incremental && location == Location::NONE {
                continue;
            }
            return Ok(Err((
                offset,
                format!("id {id} is at position 0, where no record can be"),
            )));
        }
        let end = u64::from(location.position) + HEADER as u64;
        let file = files.binary_search_by_key(&location.file, |file| file.number);
        if !file.is_ok_and(|index| end <= files[index].len) {
            trial.outside += 1;
        } else if (offset / entry_len).is_multiple_of(stride) {
            match samples.look(location)? {
                Sample::Proof => trial.proofs += 1,
                Sample::Empty => {}
                Sample::Damaged => trial.damaged += 1,
            }
        }
    }
    Ok(Ok(trial))
}

enum Sample {
    Proof,
    /// A valid record, but zeros look the same.
    Empty,
    Damaged,
}

/// Looks at records here and there.
struct Samples<'a> {
    storage: &'a dyn Storage,
    open: Option<(u16, Reader)>,
}

impl Samples<'_> {
    fn look(&mut self, location: Location) -> Result<Sample> {
        let reader = match &mut self.open {
            Some((number, reader)) if *number == location.file => reader,
            open => {
                let reader = Reader::random(self.storage, &data_file_name(location.file))?;
                &mut open.insert((location.file, reader)).1
            }
        };
        let position = u64::from(location.position);
        let Some(header) = reader.header(position)? else {
            return Ok(Sample::Damaged);
        };
        Ok(
            match (reader.value_holds(position, &header)?, header.size) {
                (false, _) => Sample::Damaged,
                (true, 0) => Sample::Empty,
                (true, _) => Sample::Proof,
            },
        )
    }
}

/// What tells one dump from another: length and CRC32 of its data, and of `.inc` behind that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DumpStamp {
    pub(crate) len: u64,
    pub(crate) crc32: u32,
}

/// Computes the stamp of the dump that is there; `None` if there is none.
pub(crate) fn stamp(storage: &dyn Storage) -> Result<Option<DumpStamp>> {
    let Some(found) = find(storage)? else {
        return Ok(None);
    };
    let mut hasher = crc32fast::Hasher::new();
    let mut len = 0;
    for name in found.names() {
        let mut reader = Reader::sequential(storage, name)?;
        let mut at = 0;
        while at < reader.len() {
            let piece = reader.piece(at)?;
            hasher.update(piece);
            at += piece.len() as u64;
        }
        len += at;
    }
    Ok(Some(DumpStamp {
        len,
        crc32: hasher.finalize(),
    }))
}

/// When the dump was last changed, in nanoseconds since the Unix epoch; 0 if there is none or it
/// is unknown.
pub(crate) fn dump_modified_ns(storage: &dyn Storage) -> Result<u64> {
    let Some(found) = find(storage)? else {
        return Ok(0);
    };
    let mut latest = 0;
    for name in found.names() {
        let modified = modified_ns(storage, name);
        latest = latest.max(modified.map_err(|error| failed(storage, "open", name, error))?);
    }
    Ok(latest)
}

/// Writes a dump of `entries` (ascending) that V and Go read with settings that give this
/// `width`, in incremental mode if there is a `next_id`. It is durable on return, and until then
/// there is none: never half of one, nor one of before.
///
/// V in incremental mode reads no dump with a gap in its ids, so every id below `next_id` that
/// `entries` leaves out, or names with [`Location::NONE`], gets an entry of zero location.
///
/// `None` if a location doesn't fit the width; there is no dump then.
pub(crate) fn write_dump(
    storage: &dyn Storage,
    width: u8,
    next_id: Option<u32>,
    entries: impl IntoIterator<Item = (u32, Location)>,
) -> Result<Option<DumpStamp>> {
    let mut writer = Writer::new(width)?;
    remove_dump(storage)?;
    let io = |error| failed(storage, "write", DATA, error);
    match storage.create_directory(DIRECTORY) {
        Ok(()) => sync_directory(storage, "").map_err(io)?,
        // Something else of somebody's is in it.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(io(error)),
    }
    let inc = next_id.map(|id| id.to_string()).unwrap_or_default();
    if next_id.is_some() {
        replace(storage, INC, &[inc.as_bytes()]).map_err(io)?;
    }
    match replace_with(storage, DATA, |file| writer.write(file, next_id, entries)) {
        Ok(()) => Ok(Some(writer.stamp(inc.as_bytes()))),
        Err(_) if writer.misfit => {
            remove_dump(storage)?;
            Ok(None)
        }
        Err(error) => Err(io(error)),
    }
}

/// Writes the entries of a dump.
struct Writer {
    width: u8,
    buffer: Vec<u8>,
    len: u64,
    hasher: crc32fast::Hasher,
    /// A location didn't fit the width.
    misfit: bool,
}

impl Writer {
    const PIECE: usize = 256 << 10;

    fn new(width: u8) -> Result<Writer> {
        let mut buffer = Vec::new();
        reserve_exact(&mut buffer, Writer::PIECE)?;
        Ok(Writer {
            width,
            buffer,
            len: 0,
            hasher: crc32fast::Hasher::new(),
            misfit: false,
        })
    }

    fn write(
        &mut self,
        file: &dyn File,
        next_id: Option<u32>,
        entries: impl IntoIterator<Item = (u32, Location)>,
    ) -> io::Result<()> {
        let mut expected = 1;
        for (id, location) in entries {
            if location.is_none() {
                continue;
            }
            if next_id.is_some() {
                for deleted in expected..id {
                    self.entry(file, deleted, Location::NONE)?;
                }
                expected = id.saturating_add(1);
            }
            self.entry(file, id, location)?;
        }
        for deleted in expected..next_id.unwrap_or(0) {
            self.entry(file, deleted, Location::NONE)?;
        }
        self.flush(file)
    }

    fn entry(&mut self, file: &dyn File, id: u32, location: Location) -> io::Result<()> {
        let width = usize::from(self.width);
        let value = u64::from(location.file) << 32 | u64::from(location.position);
        let bytes = value.to_be_bytes();
        let (high, low) = bytes.split_at(bytes.len() - width);
        if high.iter().any(|&byte| byte != 0) {
            self.misfit = true;
            return Err(io::ErrorKind::InvalidData.into());
        }
        if self.buffer.len() + 4 + width > Writer::PIECE {
            self.flush(file)?;
        }
        self.buffer.extend_from_slice(&id.to_le_bytes());
        self.buffer.extend_from_slice(low);
        Ok(())
    }

    fn flush(&mut self, file: &dyn File) -> io::Result<()> {
        self.hasher.update(&self.buffer);
        file.write_at(self.len, &[&self.buffer])?;
        self.len += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    fn stamp(self, inc: &[u8]) -> DumpStamp {
        let mut hasher = self.hasher;
        hasher.update(inc);
        DumpStamp {
            len: self.len + inc.len() as u64,
            crc32: hasher.finalize(),
        }
    }
}

/// Removes the dump, durably, and its directory if nothing else is in it: without the directory V
/// can't write a dump of its own that leaves out what it didn't know of. A plain dump is not ours
/// to remove; it is renamed to `lookup_dump.db.plain`, and its `.inc` to
/// `lookup_dump.db.plain.inc`.
pub(crate) fn remove_dump(storage: &dyn Storage) -> Result<()> {
    let removed = (|| {
        if storage.is_directory(DIRECTORY)? {
            // Without `data` there is no dump, whatever else is left.
            if remove_if_there(storage, DATA)? {
                sync_directory(storage, DIRECTORY)?;
            }
            for name in [INC, DATA_TEMPORARY, INC_TEMPORARY] {
                remove_if_there(storage, name)?;
            }
            return match storage.remove_directory(DIRECTORY) {
                Ok(()) => sync_directory(storage, ""),
                // The second: a link to one, which isn't ours.
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::NotADirectory
                    ) =>
                {
                    Ok(())
                }
                Err(error) => Err(error),
            };
        }
        if rename_if_there(storage, PLAIN, PLAIN_ASIDE)? {
            rename_if_there(storage, PLAIN_INC, PLAIN_INC_ASIDE)?;
            sync_directory(storage, "")?;
        }
        Ok(())
    })();
    removed.map_err(|error| failed(storage, "remove", DIRECTORY, error))
}

fn rename_if_there(storage: &dyn Storage, from: &str, to: &str) -> io::Result<bool> {
    match storage.rename(from, to) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
