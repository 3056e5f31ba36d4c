//! Appending to the log: the active data file, space ahead of its end, roll-over to the next one,
//! and what has yet to be synced.
//!
//! One thread at a time appends: the [`Tail`] belongs to the writer lock.

use std::sync::Arc;

use super::length::Length;
use super::record::{HEAD, HEROLIB_HEADER, Head, Kind, value_crc};
use super::segment::{FILE_HEADER, FileHeader, LONGEST_FILE, LogEnd, Segment, name};
use super::{Log, SYNC_STEP};
use crate::bytes::reserve;
use crate::error::{Error, Result};
use crate::location::Location;
use crate::planted::planted;
use crate::storage::{Access, Ahead, File, View, remove_if_there};

/// Space is reserved ahead of the end in steps between these, growing with the file.
const SMALLEST_STEP: u64 = 64 << 10;
const LARGEST_STEP: u64 = 16 << 20;
/// Larger steps end where a window of the file ends through which records are written.
const WINDOW: u64 = 2 << 20;
/// Records of one commit are gathered up to this size before they are written.
const GATHER: usize = 256 << 10;
/// Values from here on are written from where they are.
const GATHERED_VALUE: usize = GATHER / 4;
/// So many finished data files may wait for a sync; then they are synced before the next commit, to
/// bound the descriptors they hold.
const MOST_UNSYNCED: usize = 64;

/// A record to be appended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewRecord<'a> {
    pub(crate) kind: Kind,
    pub(crate) id: u32,
    pub(crate) previous: Location,
    pub(crate) value: &'a [u8],
}

impl NewRecord<'_> {
    /// A commit of nothing.
    pub(crate) const EMPTY: NewRecord<'static> = NewRecord {
        kind: Kind::Empty,
        ..NewRecord::CLEAR
    };

    /// Deletes every record.
    pub(crate) const CLEAR: NewRecord<'static> = NewRecord {
        kind: Kind::Clear,
        id: 0,
        previous: Location::NONE,
        value: &[],
    };

    pub(crate) fn len(&self) -> u64 {
        HEAD as u64 + self.value.len() as u64
    }
}

/// Refuses a commit whose records of `len` bytes together are longer than any data file can be.
pub(crate) fn check_commit_len(len: u64) -> Result<()> {
    let limit = LONGEST_FILE - FILE_HEADER as u64;
    if len <= limit {
        return Ok(());
    }
    Err(Error::RecordTooLarge {
        what: "a commit",
        len,
        limit,
        which: "the longest data file",
    })
}

/// The file that is appended to.
#[derive(Debug)]
struct Active {
    segment: Arc<Segment>,
    file: Arc<dyn File>,
    /// Where the next record goes.
    end: u64,
    /// Up to where space is reserved.
    reserved: u64,
    ahead: Ahead,
    length: Length,
    /// From where on anything was written since the last sync.
    unsynced: Option<u64>,
    /// Whether the remains of a failed append lie behind the end, to be cut off before the next.
    /// Should some of them come back after a power loss, among what was written later in their
    /// place, they give themselves away: the next commit has another time.
    remains: bool,
    /// A reservation failed, and may have made the file longer all the same, as ext4 does.
    longer: bool,
}

impl Active {
    /// A file whose log ends at `end`, with no space reserved behind it.
    fn new(segment: Arc<Segment>, file: Arc<dyn File>, end: u64, unsynced: bool) -> Active {
        Active {
            segment,
            file,
            end,
            reserved: end,
            ahead: Ahead::default(),
            length: Length::new(end),
            unsynced: unsynced.then_some(0),
            remains: false,
            longer: false,
        }
    }

    /// Notes that the file is changed from here on.
    fn change(&mut self, from: u64) {
        if self.unsynced.is_none_or(|before| from < before) {
            self.unsynced = Some(from);
        }
    }

    /// Reserves space for what will be written up to `to`.
    fn reserve(&mut self, to: u64) -> std::io::Result<()> {
        let allocated = self.file.allocate(self.end, to);
        self.longer |= allocated.is_err();
        allocated?;
        self.reserved = to;
        self.ahead.keep(self.end..to);
        Ok(())
    }

    fn write(&mut self, position: u64, parts: &[&[u8]]) -> std::io::Result<()> {
        self.file.append(&mut self.ahead, position, parts)
    }

    /// Cuts off what is behind the end.
    fn cut(&mut self) -> std::io::Result<()> {
        self.ahead.forget();
        self.length.cut(&*self.file, self.end)
    }

    /// What must be synced of it, if anything; it will be.
    fn take_unsynced(&mut self) -> Option<Unsynced> {
        self.unsynced.take().map(|from| Unsynced {
            number: self.segment.number,
            file: Arc::clone(&self.file),
            from,
            end: self.end,
            length: self.length.clone(),
        })
    }
}

/// Where the log goes on.
#[derive(Debug)]
pub(crate) struct Tail {
    active: Option<Active>,
    /// Nothing is appended to it any more: a data file that goes on from its end could not be begun for
    /// good, and is there still, or was when a reader looked.
    sealed: bool,
    /// Number of the next data file; 65,536 when none is left.
    next_file: u32,
    /// Data files may be made up to here before it is asked again which numbers are kept.
    asked_to: u32,
    /// Data files that were finished but not yet synced.
    unsynced: Vec<Unsynced>,
    /// Whether data files were made whose directory entry isn't durable yet.
    directory_unsynced: bool,
    file_size: u64,
    gathered: Vec<u8>,
}

/// What must be synced for the log to be on disk up to `end`.
#[derive(Debug)]
pub(crate) struct SyncWork {
    files: Vec<Unsynced>,
    directory: bool,
    pub(crate) end: Option<LogEnd>,
}

/// A data file that was written to since the last sync.
#[derive(Debug)]
struct Unsynced {
    number: u16,
    file: Arc<dyn File>,
    /// From where on it was written to.
    from: u64,
    /// Where its log ends.
    end: u64,
    length: Length,
}

impl SyncWork {
    /// Does the greater part of much work little by little, and has something done in between. All else
    /// that is asked of the disk meanwhile would wait for the whole of a long sync.
    /// On failure as [`SyncWork::run`].
    pub(crate) fn begin(&self, log: &Log, mut between: impl FnMut()) -> Result<()> {
        for unsynced in &self.files {
            let mut from = unsynced.from;
            while unsynced.end - from > SYNC_STEP {
                let written = unsynced.file.write_back(from, from + SYNC_STEP);
                written.map_err(|error| unsynced.failed(log, error))?;
                from += SYNC_STEP;
                between();
            }
        }
        Ok(())
    }

    /// Does it. On failure the state of the files is unknown: never try again, poison.
    pub(crate) fn run(&self, log: &Log) -> Result<()> {
        for unsynced in &self.files {
            let Unsynced { number, file, .. } = unsynced;
            if !planted!(log_not_synced) {
                file.sync().map_err(|error| unsynced.failed(log, error))?;
            }
            // What another program took away is not on disk, and a sync doesn't say so.
            unsynced.length.check(log, *number, &**file, unsynced.end)?;
        }
        if self.directory && !planted!(new_data_file_not_synced) {
            let synced = log.storage.sync_directory("");
            synced.map_err(|error| Error::from_io("sync", log.storage.describe(""), error))?;
        }
        Ok(())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.files.is_empty() && !self.directory
    }
}

impl Unsynced {
    fn failed(&self, log: &Log, error: std::io::Error) -> Error {
        Error::from_io("sync", log.storage.describe(&name(self.number)), error)
    }
}

impl Tail {
    /// The log goes on in a new file, numbered from `next_file`.
    pub(crate) fn new(next_file: u32, file_size: u32) -> Tail {
        Tail {
            active: None,
            sealed: false,
            next_file,
            asked_to: 0,
            unsynced: Vec::new(),
            directory_unsynced: false,
            file_size: u64::from(file_size),
            gathered: Vec::new(),
        }
    }

    /// The log goes on at `end` of an existing file, which may not be on disk yet.
    pub(crate) fn resume(
        &mut self,
        segment: Arc<Segment>,
        file: Arc<dyn File>,
        end: u64,
        unsynced: bool,
    ) {
        self.active = Some(Active::new(segment, file, end, unsynced));
    }

    /// The number that the next data file gets, if there is none of it.
    pub(crate) fn next_file(&self) -> u32 {
        self.next_file
    }

    /// The end of the log; `None` before the first record.
    pub(crate) fn end(&self) -> Option<LogEnd> {
        let active = self.active.as_ref()?;
        Some(LogEnd {
            file: active.segment.number,
            position: active.end as u32,
        })
    }

    /// Makes room for `len` bytes in one piece: rolls over to a new data file if need be and
    /// reserves space on disk. Failing, it leaves everything as it was.
    pub(crate) fn reserve(&mut self, log: &Log, len: u64, commit: u64) -> Result<()> {
        check_commit_len(len)?;
        self.clear_remains(log)?;
        let fits = |a: &Active| a.end < self.file_size && a.end + len <= LONGEST_FILE;
        if self.sealed || !self.active.as_ref().is_some_and(fits) {
            self.roll_over(log, commit)?;
        }
        let Some(active) = self.active.as_mut() else {
            unreachable!("rolled over to a new file")
        };
        let needed = active.end + len;
        if needed <= active.reserved {
            return Ok(());
        }
        let number = active.segment.number;
        active
            .length
            .check(log, number, &*active.file, active.end)?;
        let ahead = next_step(active.end, self.file_size).max(needed);
        let ahead = ahead.min(LONGEST_FILE);
        let mut reserved = active.reserve(ahead);
        // On a nearly full disk what is needed may still fit where the step doesn't.
        if reserved.is_err() && ahead > needed {
            reserved = active.reserve(needed);
        }
        if let Err(error) = reserved {
            return Err(self.failed("reserve space in", log, error));
        }
        active.length.note_reserved(&*active.file);
        Ok(())
    }

    /// Reserves space for commits to come, if there is little. Where it fails they ask again.
    pub(crate) fn reserve_ahead(&mut self, log: &Log) {
        let Some(active) = self.active.as_mut().filter(|active| !active.remains) else {
            return;
        };
        let ahead = next_step(active.end, self.file_size).min(LONGEST_FILE);
        let left = active.reserved - active.end;
        if left >= ahead.saturating_sub(active.end) / 2 {
            return;
        }
        let number = active.segment.number;
        let sound = active.length.check(log, number, &*active.file, active.end);
        if sound.is_ok() && active.reserve(ahead).is_ok() {
            active.length.note_reserved(&*active.file);
        }
    }

    fn failed(&self, action: &'static str, log: &Log, error: std::io::Error) -> Error {
        let number = self.active.as_ref().map(|active| active.segment.number);
        Error::from_io(
            action,
            log.storage.describe(&number.map(name).unwrap_or_default()),
            error,
        )
    }

    /// Cuts off what a failed append left behind.
    fn clear_remains(&mut self, log: &Log) -> Result<()> {
        if let Some(active) = self.active.as_mut().filter(|active| active.remains) {
            if !planted!(remains_not_cut)
                && let Err(error) = active.cut()
            {
                return Err(self.failed("cut", log, error));
            }
            active.remains = false;
            // Where the log goes on in another file, what was cut off must not come back whole:
            // behind it that file would not be found.
            active.change(active.end);
        }
        Ok(())
    }

    fn roll_over(&mut self, log: &Log, commit: u64) -> Result<()> {
        self.trim(log)?;
        let (number, file, view) = self.create_file(log, commit)?;
        if let Some(mut done) = self.active.take() {
            done.segment.view().seal();
            self.unsynced.extend(done.take_unsynced());
        }
        let segment = log.add(Segment::of_log(number, log, view));
        let end = FILE_HEADER as u64;
        self.active = Some(Active::new(segment, file, end, true));
        self.sealed = false;
        self.directory_unsynced = true;
        Ok(())
    }

    /// Makes the next data file, with its header.
    fn create_file(&mut self, log: &Log, first_commit: u64) -> Result<(u16, Arc<dyn File>, View)> {
        loop {
            if self.next_file >= self.asked_to {
                self.asked_to = log.kept_from(self.next_file);
            }
            let number = u16::try_from(self.next_file).ok();
            let Some(number) = number.filter(|_| self.next_file < self.asked_to) else {
                let last = self.next_file.saturating_sub(1);
                let what = format!(
                    "no number for a data file is left after {last}.db; a compaction makes some free"
                );
                return Err(Error::Full(what.into()));
            };
            let name = name(number);
            let failed = |error| Error::from_io("make", log.storage.describe(&name), error);
            let file = match log.storage.open(&name, Access::CreateNew) {
                Ok(file) => file,
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                    // Somebody else's; it stays as it is.
                    self.next_file += 1;
                    continue;
                }
                Err(error) => return Err(failed(error)),
            };
            let header = FileHeader {
                uuid: log.uuid,
                number,
                after: if planted!(data_file_not_chained) {
                    None
                } else {
                    self.end()
                },
                generation: log.generation,
                first_commit,
            };
            self.next_file += 1;
            // The header last: who finds one takes the file for a part of the log.
            let view = file.view(LONGEST_FILE + 1);
            let made = view.and_then(|view| {
                file.write_at(0, &[&header.encode()])?;
                Ok(view)
            });
            return match made {
                Ok(view) => {
                    view.extend_to(FILE_HEADER as u64);
                    Ok((number, file, view))
                }
                Err(error) => {
                    if remove_if_there(&*log.storage, &name).is_ok() {
                        // However often it is tried, that uses up no numbers.
                        self.next_file = u32::from(number);
                    } else {
                        // Recovery passes over it, because the next file begins where this one does.
                        self.sealed = true;
                    }
                    Err(failed(error))
                }
            };
        }
    }

    /// Makes room for gathering the records of a commit, `len` bytes in all.
    pub(crate) fn reserve_memory(&mut self, len: u64) -> Result<()> {
        let most = GATHER + HEAD + GATHERED_VALUE;
        self.gathered.clear();
        reserve(&mut self.gathered, len.min(most as u64) as usize)
    }

    /// Appends the records of one commit, for which room was [reserved](Tail::reserve), and lets
    /// readers see the bytes. Returns the location of the first; the others follow back to back.
    ///
    /// `Err((error, false))` says that the handle must not write any more. With `true` the disk
    /// was full: nothing of the commit will be found in the log, and the next one may succeed.
    pub(crate) fn append(
        &mut self,
        log: &Log,
        commit: u64,
        skips: bool,
        time_us: u64,
        records: &[NewRecord<'_>],
    ) -> std::result::Result<Location, (Error, bool)> {
        let Some(active) = self.active.as_mut() else {
            unreachable!("room was reserved")
        };
        let start = active.end;
        active.change(start);
        match write(active, &mut self.gathered, commit, skips, time_us, records) {
            Ok(end) => {
                active.end = end;
                active.segment.view().extend_to(end);
                let position = (start + HEROLIB_HEADER) as u32;
                Ok(Location {
                    file: active.segment.number,
                    position,
                })
            }
            Err(error) => {
                let full = matches!(
                    error.kind(),
                    std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded
                );
                active.reserved = start;
                active.remains = true;
                if full {
                    // Now, if it can be done now; else before the next commit is written.
                    let _ = self.clear_remains(log);
                }
                Err((self.failed("write", log, error), full))
            }
        }
    }

    /// Notes in the log that it was on disk up to `end`. Costs no commit. The mark is a proof
    /// more and not a promise: where it can't be written it is left out.
    pub(crate) fn mark_synced(&mut self, log: &Log, end: LogEnd, commit: u64, time_us: u64) {
        let sealed = self.sealed;
        let active = self.active.as_mut();
        let Some(active) = active.filter(|active| !active.remains && !sealed) else {
            return;
        };
        let needed = active.end + HEAD as u64;
        if needed > LONGEST_FILE {
            return;
        }
        if needed > active.reserved {
            let target = (active.end + SMALLEST_STEP).min(LONGEST_FILE);
            if active.reserve(target).is_err() {
                return;
            }
        }
        let previous = end.to_location();
        let mark = NewRecord {
            kind: Kind::SyncMark,
            id: 0,
            previous,
            value: &[],
        };
        // Failing, it leaves remains, which the next append clears away or fails for.
        let _ = self.append(log, commit, false, time_us, &[mark]);
    }

    /// What must be synced for everything appended so far to be on disk. Taking it says that it
    /// will be: a failed sync must poison the handle.
    pub(crate) fn take_sync_work(&mut self) -> SyncWork {
        let end = self.end();
        let mut files = std::mem::take(&mut self.unsynced);
        files.extend(self.active.as_mut().and_then(Active::take_unsynced));
        SyncWork {
            files,
            directory: std::mem::take(&mut self.directory_unsynced),
            end,
        }
    }

    /// What must be synced before the next commit, because too many finished data files wait for
    /// it. As with [`Tail::take_sync_work`], a failure must poison the handle.
    pub(crate) fn take_overdue_sync_work(&mut self) -> Option<SyncWork> {
        if self.unsynced.len() < MOST_UNSYNCED {
            return None;
        }
        let files = std::mem::take(&mut self.unsynced);
        Some(SyncWork {
            files,
            directory: false,
            end: None,
        })
    }

    /// Cuts the active file to its log: gives reserved space back.
    pub(crate) fn trim(&mut self, log: &Log) -> Result<()> {
        self.clear_remains(log)?;
        if let Some(active) = self.active.as_mut()
            && (active.reserved > active.end || active.longer)
        {
            if let Err(error) = active.cut() {
                return Err(self.failed("cut", log, error));
            }
            active.reserved = active.end;
            active.longer = false;
            active.change(active.end);
        }
        Ok(())
    }
}

/// Up to where space is reserved in one step for a log that ends here.
fn next_step(end: u64, file_size: u64) -> u64 {
    let step = (end / 2).clamp(SMALLEST_STEP, LARGEST_STEP);
    let ahead = match step > WINDOW {
        true => (end + step).next_multiple_of(WINDOW),
        false => end + step,
    };
    ahead.min(file_size.next_multiple_of(4096))
}

/// Writes the records from the end of the active file on; the end after them.
fn write(
    active: &mut Active,
    gathered: &mut Vec<u8>,
    commit: u64,
    skips: bool,
    time_us: u64,
    records: &[NewRecord<'_>],
) -> std::io::Result<u64> {
    let seed = active.segment.seed();
    let head = |record: &NewRecord<'_>, position: u64, last: bool| {
        let head = Head {
            kind: record.kind,
            last,
            skips,
            id: record.id,
            commit,
            time_us,
            len: record.value.len() as u32,
            crc: if record.kind == Kind::Put {
                value_crc(record.value)
            } else {
                0
            },
            previous: record.previous,
        };
        head.encode(seed, position as u32)
    };
    let mut end = active.end;
    if let [record] = records {
        let head = head(record, end, true);
        active.write(end, &[&head, record.value])?;
        return Ok(end + record.len());
    }
    // Many small records become few large writes.
    gathered.clear();
    let mut start = end;
    for (index, record) in records.iter().enumerate() {
        let head = head(record, end, index + 1 == records.len());
        end += record.len();
        if record.value.len() >= GATHERED_VALUE {
            active.write(start, &[gathered, &head, record.value])?;
            gathered.clear();
            start = end;
            continue;
        }
        gathered.extend_from_slice(&head);
        gathered.extend_from_slice(record.value);
        if gathered.len() >= GATHER {
            active.write(start, &[gathered])?;
            gathered.clear();
            start = end;
        }
    }
    if !gathered.is_empty() {
        active.write(start, &[gathered])?;
    }
    Ok(end)
}
