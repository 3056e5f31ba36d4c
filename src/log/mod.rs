//! The append-only log: data files of records, back to back, in the order of their commits.
//!
//! `record` knows the bytes of a record, `segment` reads one data file here and there, `scan` from
//! front to back, `commits` from any commit on, `tail` appends to the last one, `length` notices that
//! another program has cut it off, `kept` puts what a compaction has kept in the order of commits,
//! `copy` writes files that nobody reads yet, `erasure` overwrites versions in place, `recovery` finds
//! out after a crash where the log ends. What an id means is none of the log's business.

pub(crate) mod commits;
pub(crate) mod copy;
#[cfg(test)]
mod decoders;
pub(crate) mod erasure;
pub(crate) mod kept;
mod length;
pub(crate) mod record;
pub(crate) mod recovery;
pub(crate) mod scan;
pub(crate) mod segment;
pub(crate) mod sequence;
pub(crate) mod tail;

use std::cell::Cell;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::location::Location;
use crate::storage::{File, Storage};
use crate::sync::OnceLock;
use commits::Ends;
use record::{Head, Kind};
use segment::{FILE_HEADER, LONGEST_FILE, LogEnd, OpenFiles, Segment, name};

/// So many bytes are synced at a time, where there are many: a commit beside it that reserves space for
/// the tail may have to read from the disk, behind all that waits to be written there. With 64 MiB it
/// took 70 ms.
const SYNC_STEP: u64 = 4 << 20;

/// All data files of a database, by number. Files are added beside readers, and found without a
/// lock.
#[derive(Debug)]
pub(crate) struct Log {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) uuid: [u8; 16],
    pub(crate) generation: u64,
    /// Whether another handle writes to it, perhaps in another process: erasures overwrite what is read
    /// here at any time.
    is_followed: bool,
    open_files: Arc<OpenFiles>,
    /// Where those stopped who read it commit by commit.
    pub(crate) ends: Ends,
    groups: Box<[OnceLock<Box<Group>>; GROUPS]>,
}

/// Data files, of which the last that was looked for is found at once.
pub(crate) struct Nearby<'a> {
    log: &'a Log,
    last: Cell<Option<&'a Segment>>,
}

impl<'a> Nearby<'a> {
    /// See [`Log::segment`].
    #[inline(always)]
    pub(crate) fn segment(&self, number: u16) -> Option<&'a Segment> {
        let same = self.last.get().filter(|last| last.number == number);
        same.or_else(|| {
            self.last
                .set(self.log.segment(number).map(|other| &**other));
            self.last.get()
        })
    }
}

type Group = [OnceLock<Arc<Segment>>; GROUP];
const GROUP: usize = 256;
/// Data files have numbers below this.
const NUMBERS: usize = 65_536;
/// A compaction finds so many of them at least, and as many more as the longest files need that all
/// data files fit into.
const KEPT_NUMBERS: u32 = 256;
const GROUPS: usize = NUMBERS / GROUP;

impl Log {
    /// A log to be written to.
    pub(crate) fn new(storage: Arc<dyn Storage>, uuid: [u8; 16], generation: u64) -> Log {
        let open_files = Arc::new(OpenFiles::new(Arc::clone(&storage), uuid, generation));
        Log {
            storage,
            uuid,
            generation,
            is_followed: false,
            open_files,
            ends: Ends::default(),
            groups: Box::new([const { OnceLock::new() }; GROUPS]),
        }
    }

    /// The log for a reader, which another handle may write to.
    pub(crate) fn followed(storage: Arc<dyn Storage>, uuid: [u8; 16], generation: u64) -> Log {
        Log {
            is_followed: true,
            ..Log::new(storage, uuid, generation)
        }
    }

    /// Adds a data file that was opened for it. Its number must be new.
    pub(crate) fn add_open(&self, segment: Segment, file: &Arc<dyn File>) -> Arc<Segment> {
        if !segment.view().is_mapped() {
            self.open_files.keep(segment.number, file);
        }
        self.add(segment)
    }

    /// The data file `number`, if there is one.
    #[inline]
    pub(crate) fn segment(&self, number: u16) -> Option<&Arc<Segment>> {
        let group = self.groups[usize::from(number) / GROUP].get()?;
        group[usize::from(number) % GROUP].get()
    }

    /// The same data files, for one who looks for many records, most of which lie together.
    pub(crate) fn nearby(&self) -> Nearby<'_> {
        Nearby {
            log: self,
            last: Cell::new(None),
        }
    }

    /// The data file that `location` lies in.
    #[inline]
    pub(crate) fn segment_of(&self, location: Location) -> Result<&Segment> {
        match self.segment(location.file) {
            Some(segment) => Ok(segment),
            None => Err(Error::corrupt(
                self.storage.describe(&name(location.file)),
                u64::from(location.position),
                "a version should be here, and there is no such data file",
            )),
        }
    }

    /// Adds a data file. Its number must be new.
    pub(crate) fn add(&self, segment: Segment) -> Arc<Segment> {
        let number = usize::from(segment.number);
        let segment = Arc::new(segment);
        let group = self.groups[number / GROUP]
            .get_or_init(|| Box::new([const { OnceLock::new() }; GROUP]));
        let added = group[number % GROUP].set(Arc::clone(&segment));
        assert!(added.is_ok(), "data file {number} is already there");
        segment
    }

    /// Calls `f` with the place and the head of every version in the log from `from` on, which is an
    /// earlier end of it, or the beginning, up to where it ended when this was called: that is after
    /// a whole commit, and is returned. What comes meanwhile is left for the next time, or a fast
    /// writer would be followed for ever.
    pub(crate) fn each_since(
        &self,
        from: Option<LogEnd>,
        mut f: impl FnMut(LogEnd, &Head) -> Result<()>,
    ) -> Result<Option<LogEnd>> {
        let Some(end) = self.end() else {
            return Ok(from);
        };
        let segments = self.segments().filter(|segment| segment.is_log());
        for segment in segments.take_while(|segment| segment.number <= end.file) {
            let mut position = match from {
                Some(from) if segment.number < from.file => continue,
                Some(from) if segment.number == from.file => from.position,
                _ => FILE_HEADER as u32,
            };
            // A file before the last one was finished when that was found.
            let stop = match segment.number == end.file {
                true => u64::from(end.position),
                false => segment.view().end(),
            };
            while u64::from(position) < stop {
                let head = segment.head_at(position)?;
                let place = LogEnd {
                    file: segment.number,
                    position,
                };
                if head.kind != Kind::SyncMark {
                    f(place, &head)?;
                }
                // No data file is longer than its positions reach.
                position = (u64::from(position) + head.record_len()) as u32;
            }
        }
        Ok(Some(end))
    }

    /// Where the log ends.
    fn end(&self) -> Option<LogEnd> {
        let last = self.segments().filter(|segment| segment.is_log()).last()?;
        Some(LogEnd {
            file: last.number,
            // No data file is longer than its positions reach.
            position: last.view().end() as u32,
        })
    }

    /// How many bytes all data files have, space that is reserved ahead not counted.
    pub(crate) fn bytes(&self) -> u64 {
        self.segments().map(|segment| segment.view().end()).sum()
    }

    /// The lowest number that no data file may get which is `number` or higher: those from there on are
    /// kept for a compaction, unless there are as many below all data files. Holds for this number and
    /// for the [`KEPT_NUMBERS`] after it.
    fn kept_from(&self, number: u32) -> u32 {
        let most = NUMBERS as u32;
        let longest = u32::try_from(self.bytes() / LONGEST_FILE).unwrap_or(most);
        // What those files may add is thought of.
        let kept = longest.saturating_add(2 * KEPT_NUMBERS).min(most);
        let lowest = self.segments().next();
        let are_below = lowest.is_some_and(|segment| u32::from(segment.number) >= kept);
        let end = if are_below { most } else { most - kept };
        end.min(number + KEPT_NUMBERS)
    }

    /// All data files, ascending.
    pub(crate) fn segments(&self) -> impl Iterator<Item = &Arc<Segment>> {
        let groups = self.groups.iter().filter_map(|group| group.get());
        groups.flat_map(|group| group.iter().filter_map(|segment| segment.get()))
    }
}
