//! Finding the ids of an incremental directory that has no lookup dump.
//!
//! A record doesn't say whose it is. In incremental mode it can be told all the same: ids are
//! given out in order, from 1, and records are written in order. So a record without a version
//! before it begins the next id, and one with a version before it goes on with the id whose newest
//! version that is. Each run of herolib that finds no dump begins at id 1 again; here the ids of
//! such a run follow on from those of the run before.
//!
//! # What herolib's way of deleting leaves
//!
//! Deleting zeroes the newest version of an id, header and value, where it lies. The versions
//! before it stay. How many records were in a stretch of zeros, and which, is then a matter of its
//! length:
//!
//! - 12 zeros are a valid record: the first version of an id, with an empty value. They are taken
//!   for that, for there is nothing wrong with them. A deleted empty value would look the same.
//! - 13 to 23 zeros were exactly one record, which was deleted. If it was the first version of its
//!   id, that id was given out here and is deleted. If it was a later one, no id was given out
//!   here, and one of the ids before, nobody knows which, is deleted though a version of it is
//!   there. The bytes are the same. The first is believed only where the stretch lies among
//!   records that all begin ids: every record before it in the directory and the one after it. Or
//!   where no id before it is live, which excludes the second.
//! - 24 zeros and more can have been one record or several.
//!
//! A later record that names a place in a stretch as the version before it proves that an empty
//! value was there, live at that time: what is deleted is never gone on with. It splits the
//! stretch in two.
//!
//! What can't be decided so is doubtful, and doubt is refused: ids that are off by one are worse
//! than none. Only salvage takes the likeliest and goes on.
//!
//! # What else is refused
//!
//! A record that doesn't match its CRC, as V leaves it when it deletes in the wrong file. A
//! version before that isn't the newest of any id, as two processes leave it, or a second data
//! file in widths below 6, where V cuts locations off. A data file that is missing, or shorter
//! than the point from which records went to the next file: V, reopening a directory of several
//! files without its dump, creates 1.db anew, and then how many ids were in it is lost.
//!
//! Only one thing is tolerated: the last file ends within a record. That write was never
//! finished, so nobody was told that it was done, and there is no such version. It must look like
//! one, though: if a whole record stands anywhere in what would be cut off, it is damage.

use std::collections::{BTreeSet, HashMap};

use super::reader::ReadRecord;
use super::record::{HEADER, Header, LONGEST_RECORD};
use super::{Adopted, DataFile, Lookup, corrupt, data_file_name, data_files};
use crate::error::{Error, Result};
use crate::hash::FixedHasher;
use crate::location::Location;
use crate::reader::Reader;
use crate::storage::Storage;

const HEADER_LEN: u64 = HEADER as u64;

/// Reconstructs the ids of an incremental directory from its data files. `salvage` takes the
/// likeliest where it isn't certain, rather than refuse: the ids may then be wrong, and deleted
/// records may be back.
pub(crate) fn reconstruct(storage: &dyn Storage, salvage: bool) -> Result<Adopted> {
    let files = data_files(storage)?;
    let mut walk = Walk::new(storage, salvage, BTreeSet::new());
    walk.all(&files)?;
    if !walk.empties.is_empty() {
        // Ids were counted wrongly where an empty value hid in a stretch of zeros.
        walk = Walk::new(storage, salvage, walk.empties);
        walk.all(&files)?;
    }
    if let Some(doubt) = walk.doubt.take().filter(|_| !salvage) {
        return Err(doubt);
    }
    walk.finish(files)
}

/// What the newest version of something belongs to.
#[derive(Clone, Copy)]
enum Chain {
    /// The index of an id in `ids`.
    Id(usize),
    /// The index of a record in `orphans`.
    Orphan(usize),
    /// An empty value that hid in a stretch; it will be known in the second walk.
    Hidden,
}

struct Walk<'a> {
    storage: &'a dyn Storage,
    salvage: bool,
    /// Places in stretches of zeros of which the first walk learned that an empty value is there.
    splits: BTreeSet<Location>,
    /// The same, learned in this walk.
    empties: BTreeSet<Location>,
    /// The newest version of each id from 1 on; none if it is deleted.
    ids: Vec<Location>,
    /// Records that go on with something that isn't there.
    orphans: Vec<Location>,
    newest: HashMap<Location, Chain, FixedHasher>,
    /// Stretches of uncertain content, as beginning and end, in file order.
    uncertain: Vec<(Location, Location)>,
    /// Whether a record was met that goes on with an id.
    updated: bool,
    /// Length of the record before.
    record_before: Option<u64>,
    /// The doubt about a deleted record that remains unless the next record begins an id.
    awaiting: Option<Error>,
    /// The first doubt that remains.
    doubt: Option<Error>,
    /// The highest position at which a record begins in any file.
    highest_start: u64,
}

/// The data file that is being walked.
struct Current {
    number: u16,
    is_last: bool,
    reader: Reader,
}

impl Current {
    fn location(&self, position: u64) -> Location {
        // Files of 4 GiB and more are refused before anything is looked at.
        Location {
            file: self.number,
            position: position as u32,
        }
    }
}

impl<'a> Walk<'a> {
    fn new(storage: &'a dyn Storage, salvage: bool, splits: BTreeSet<Location>) -> Walk<'a> {
        Walk {
            storage,
            salvage,
            splits,
            empties: BTreeSet::new(),
            ids: Vec::new(),
            orphans: Vec::new(),
            newest: HashMap::default(),
            uncertain: Vec::new(),
            updated: false,
            record_before: None,
            awaiting: None,
            doubt: None,
            highest_start: 0,
        }
    }

    fn all(&mut self, files: &[DataFile]) -> Result<()> {
        for (index, file) in files.iter().enumerate() {
            if usize::from(file.number) != index {
                let missing = data_file_name(index.min(usize::from(u16::MAX)) as u16);
                self.damage(
                    file.number,
                    0,
                    format!("the data file before it, {missing}, is missing"),
                )?;
            }
            self.file(file.number, index + 1 == files.len())?;
        }
        if let Some(doubt) = self.awaiting.take() {
            self.doubt.get_or_insert(doubt);
        }
        self.lengths(files);
        Ok(())
    }

    /// Every file but the last was closed at `file_size`, so each of those is longer than the
    /// place where the last record of any file begins.
    fn lengths(&mut self, files: &[DataFile]) {
        let closed = files.split_last().map_or(&[][..], |(_, closed)| closed);
        let Some(shortest) = closed.iter().min_by_key(|file| file.len) else {
            return;
        };
        if shortest.len <= self.highest_start {
            self.doubtful(
                shortest.number,
                shortest.len,
                format!(
                    "the data file ends here though there is a next one, and another one goes on \
                     up to {}: herolib may have created it anew, and records are lost",
                    self.highest_start
                ),
            );
        }
    }

    fn file(&mut self, number: u16, is_last: bool) -> Result<()> {
        let reader = match Reader::sequential(self.storage, &data_file_name(number)) {
            Err(_) if self.salvage => return Ok(()),
            reader => reader?.salvaging(self.salvage),
        };
        let mut current = Current {
            number,
            is_last,
            reader,
        };
        let len = current.reader.len();
        if len > u64::from(u32::MAX) {
            return Err(self.damaged(number, u64::from(u32::MAX), "no location reaches so far"));
        }
        if current.reader.bytes(0, 1)?.iter().any(|&byte| byte != 0) {
            self.damage(
                number,
                0,
                "a data file of herolib begins with a zero byte".to_owned(),
            )?;
        }
        let mut at = 1;
        while at < len {
            at = self.step(&mut current, at)?;
        }
        Ok(())
    }

    /// Takes what stands at `at`, a record or a stretch of zeros and the record behind it; where
    /// to go on.
    fn step(&mut self, current: &mut Current, at: u64) -> Result<u64> {
        let len = current.reader.len();
        let zeros_end = current.reader.end_of_zeros(at)?;
        if zeros_end < len {
            return match self.next_record(current, at, zeros_end)? {
                Some((start, header)) => {
                    self.stretch(current, at, start)?;
                    self.record(current, start, &header)?;
                    Ok(start + header.record_len())
                }
                None => self.broken(current, at, zeros_end),
            };
        }
        if len - at >= HEADER_LEN {
            self.stretch(current, at, len)?;
        } else if !current.is_last {
            self.damage(
                current.number,
                at,
                "the file ends within a record's header".to_owned(),
            )?;
        }
        Ok(len)
    }

    /// The record that begins at `at`, or after a stretch of zeros from there. The first byte
    /// that isn't zero is known, but the record may begin before it: with the length of a value
    /// of 256 bytes, or as an empty value, of whose header only the end isn't zero.
    fn next_record(
        &self,
        current: &mut Current,
        at: u64,
        zeros_end: u64,
    ) -> Result<Option<(u64, Header)>> {
        let earliest = zeros_end.saturating_sub(HEADER_LEN - 1).max(at);
        let mut empty = Vec::new();
        for start in (earliest..=zeros_end).rev() {
            if start != at && start - at < HEADER_LEN {
                continue;
            }
            let Some(header) = current.reader.header(start)? else {
                continue;
            };
            if header.size > 0 {
                if current.reader.value_holds(start, &header)? {
                    return Ok(Some((start, header)));
                }
            } else if header.crc == 0 {
                let Location { file, position } = header.previous;
                // The version before may be in the very zeros that this record ends.
                let in_zeros = (at..start).contains(&u64::from(position));
                if self.goes_on(header.previous) || file == current.number && in_zeros {
                    empty.push((start, header));
                }
            }
        }
        if empty.len() > 1 {
            // The header of an empty value has little to tell it by. What follows tells more.
            let mut likelier = Vec::new();
            for (start, header) in empty {
                let end = start + header.record_len();
                if end == current.reader.len() || self.follows(current, end)? {
                    likelier.push((start, header));
                }
            }
            empty = likelier;
        }
        Ok(empty.pop().filter(|_| empty.is_empty()))
    }

    /// Whether a record follows at `at`, or a stretch of zeros that is long enough for one.
    fn follows(&self, current: &mut Current, at: u64) -> Result<bool> {
        if current.reader.end_of_zeros(at)? - at >= HEADER_LEN {
            return Ok(true);
        }
        let Some(header) = current.reader.header(at)? else {
            return Ok(false);
        };
        Ok(header.size > 0 && current.reader.value_holds(at, &header)?)
    }

    /// Whether `previous` is the newest version of an id, or may have been.
    fn goes_on(&self, previous: Location) -> bool {
        self.newest.contains_key(&previous) || self.is_uncertain(previous)
    }

    fn is_plausible(&self, previous: Location) -> bool {
        previous == Location::NONE || self.goes_on(previous)
    }

    fn is_uncertain(&self, location: Location) -> bool {
        let after = self
            .uncertain
            .partition_point(|&(from, _)| from <= location);
        let before = after
            .checked_sub(1)
            .and_then(|index| self.uncertain.get(index));
        before.is_some_and(|&(_, to)| location.file == to.file && location < to)
    }

    fn record(&mut self, current: &Current, start: u64, header: &Header) -> Result<()> {
        self.highest_start = self.highest_start.max(start);
        self.record_before = Some(header.record_len());
        let location = current.location(start);
        if header.previous == Location::NONE {
            self.awaiting = None;
            return self.begin(location);
        }
        if let Some(doubt) = self.awaiting.take() {
            self.doubt.get_or_insert(doubt);
        }
        self.updated = true;
        let chain = match self.newest.remove(&header.previous) {
            Some(chain) => chain,
            None if self.is_uncertain(header.previous)
                && !self.splits.contains(&header.previous) =>
            {
                self.empties.insert(header.previous);
                Chain::Hidden
            }
            None => {
                let Location { file, position } = header.previous;
                self.damage(
                    current.number,
                    start,
                    format!(
                        "the record names offset {position} of {} as the version before it, \
                         which is not the newest version of any record",
                        data_file_name(file)
                    ),
                )?;
                self.orphans.push(location);
                Chain::Orphan(self.orphans.len() - 1)
            }
        };
        match chain {
            Chain::Id(index) => self.ids[index] = location,
            Chain::Orphan(index) => self.orphans[index] = location,
            Chain::Hidden => {}
        }
        self.newest.insert(location, chain);
        Ok(())
    }

    /// The next id begins at `location`.
    fn begin(&mut self, location: Location) -> Result<()> {
        let memory = |_| Error::OutOfMemory {
            what: "the ids of a herolib directory".into(),
        };
        self.ids.try_reserve(1).map_err(memory)?;
        self.newest.try_reserve(1).map_err(memory)?;
        self.newest.insert(location, Chain::Id(self.ids.len()));
        self.ids.push(location);
        Ok(())
    }

    /// Takes the zeros in `from..to`.
    fn stretch(&mut self, current: &Current, from: u64, to: u64) -> Result<()> {
        let splits = current.location(from)..current.location(to);
        let splits: Vec<Location> = self.splits.range(splits).copied().collect();
        let mut at = from;
        for split in splits {
            let position = u64::from(split.position);
            if position >= at && to - position >= HEADER_LEN {
                self.zeros(current, at, position)?;
                self.zeros(current, position, position + HEADER_LEN)?;
                at = position + HEADER_LEN;
            }
        }
        self.zeros(current, at, to)
    }

    /// Takes the zeros in `from..to`, which are whole records.
    fn zeros(&mut self, current: &Current, from: u64, to: u64) -> Result<()> {
        let len = to - from;
        if len == 0 {
            return Ok(());
        }
        self.highest_start = self.highest_start.max(from);
        match len {
            HEADER_LEN => {
                self.awaiting = None;
                return self.begin(current.location(from));
            }
            0..HEADER_LEN => {
                let what = format!("{len} zeroed bytes are too few for a record");
                self.damage(current.number, from, what)?;
            }
            _ if len < 2 * HEADER_LEN => {
                self.deleted(1)?;
                if !self.newest.is_empty() {
                    let what = format!(
                        "a record that took {len} bytes was deleted here; whether its id was \
                         given out here, or it was a newer version of a record before, can't be \
                         told"
                    );
                    if self.updated {
                        self.doubtful(current.number, from, what);
                    } else if self.awaiting.is_none() {
                        self.awaiting = Some(self.damaged(current.number, from, what));
                    }
                }
            }
            _ => {
                self.doubtful(
                    current.number,
                    from,
                    format!(
                        "{len} bytes are zeroed; whether one record was deleted here or several, \
                         and so how many ids, can't be told"
                    ),
                );
                self.uncertain
                    .push((current.location(from), current.location(to)));
                if self.salvage {
                    // Likeliest are records as long as the one before; else as few as can be.
                    let whole = self
                        .record_before
                        .filter(|&record| len.is_multiple_of(record));
                    self.deleted(len.div_ceil(whole.unwrap_or(LONGEST_RECORD)))?;
                }
            }
        }
        Ok(())
    }

    /// `count` ids are given out and deleted.
    fn deleted(&mut self, count: u64) -> Result<()> {
        let count = count as usize;
        self.ids
            .try_reserve(count)
            .map_err(|_| Error::OutOfMemory {
                what: "the ids of a herolib directory".into(),
            })?;
        self.ids.resize(self.ids.len() + count, Location::NONE);
        Ok(())
    }

    /// Takes what is no record and no stretch of zeros with a record behind it: the end of the
    /// last file, torn off within a record, or damage. Where to go on.
    fn broken(&mut self, current: &mut Current, at: u64, zeros_end: u64) -> Result<u64> {
        let len = current.reader.len();
        let start = if zeros_end - at < HEADER_LEN {
            at
        } else {
            zeros_end
        };
        self.stretch(current, at, start)?;
        let header = current.reader.header(start)?;
        let is_cut = header.is_none_or(|header| start + header.record_len() > len);
        if !is_cut {
            let what = "no record that matches its checksum begins here".to_owned();
            self.damage(current.number, start, what)?;
        }
        let next = self.find_record(current, start + 1)?;
        if is_cut {
            if current.is_last && next.is_none() && !self.is_whole(current, start)? {
                return Ok(len);
            }
            self.damage(
                current.number,
                start,
                "the file ends within a record".to_owned(),
            )?;
        }
        // One record is damaged, and takes what lies before the next one.
        if let Some(header) = header
            && self.is_plausible(header.previous)
        {
            self.record(current, start, &header)?;
        }
        Ok(next.unwrap_or(len))
    }

    /// The first place from `from` on where a record with a value that isn't empty begins.
    fn find_record(&self, current: &mut Current, from: u64) -> Result<Option<u64>> {
        for start in from..current.reader.len() {
            let Some(header) = current.reader.header(start)? else {
                break;
            };
            if header.size > 0
                && self.is_plausible(header.previous)
                && current.reader.value_holds(start, &header)?
            {
                return Ok(Some(start));
            }
        }
        Ok(None)
    }

    /// Whether all bytes from the header at `start` to the end of the file match the header's CRC,
    /// so that it is the length that is wrong.
    fn is_whole(&self, current: &mut Current, start: u64) -> Result<bool> {
        let Some(header) = current.reader.header(start)? else {
            return Ok(false);
        };
        let value = current
            .reader
            .bytes(start + HEADER_LEN, u64::from(header.size))?;
        Ok(crc32fast::hash(value) == header.crc)
    }

    fn damaged(&self, number: u16, offset: u64, what: impl Into<String>) -> Error {
        corrupt(self.storage, &data_file_name(number), offset, what.into())
    }

    /// Something is not as herolib writes it.
    fn damage(&self, number: u16, offset: u64, what: String) -> Result<()> {
        if self.salvage {
            Ok(())
        } else {
            Err(self.damaged(number, offset, what))
        }
    }

    /// Something can have come about in several ways.
    fn doubtful(&mut self, number: u16, offset: u64, what: String) {
        if self.doubt.is_none() {
            self.doubt = Some(self.damaged(number, offset, what));
        }
    }

    fn finish(mut self, files: Vec<DataFile>) -> Result<Adopted> {
        self.ids.append(&mut self.orphans);
        let next_id = u32::try_from(self.ids.len())
            .ok()
            .and_then(|last| last.checked_add(1));
        let Some(next_id) = next_id else {
            return Err(Error::incompatible(format!(
                "{} records in {} are more than there are ids",
                self.ids.len(),
                self.storage.describe("")
            )));
        };
        let last_id = Some(next_id - 1);
        Ok(Adopted::new(
            files,
            Some(next_id),
            last_id,
            Lookup::Reconstructed(self.ids),
        ))
    }
}
