//! The append-only log: data files of records, back to back, in the order of their commits.
//!
//! `record` knows the bytes of a record, `segment` reads one data file here and there, `scan` from
//! front to back, `tail` appends to the last one, `recovery` finds out after a crash where the log
//! ends. What an id means is none of the log's business.

#[cfg(test)]
mod decoders;
pub(crate) mod record;
pub(crate) mod recovery;
pub(crate) mod scan;
pub(crate) mod segment;
pub(crate) mod tail;

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::location::Location;
use crate::storage::Storage;
use crate::sync::OnceLock;
use segment::{OpenFiles, Segment, name};

/// All data files of a database, by number. Files are added beside readers, and found without a
/// lock.
#[derive(Debug)]
pub(crate) struct Log {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) uuid: [u8; 16],
    pub(crate) generation: u64,
    open_files: Arc<OpenFiles>,
    groups: Box<[OnceLock<Box<Group>>]>,
}

type Group = [OnceLock<Arc<Segment>>; GROUP];
const GROUP: usize = 256;

impl Log {
    pub(crate) fn new(storage: Arc<dyn Storage>, uuid: [u8; 16], generation: u64) -> Log {
        let open_files = Arc::new(OpenFiles::new(Arc::clone(&storage)));
        let groups = (0..=usize::from(u16::MAX) / GROUP)
            .map(|_| OnceLock::new())
            .collect();
        Log {
            storage,
            uuid,
            generation,
            open_files,
            groups,
        }
    }

    pub(crate) fn open_files(&self) -> Arc<OpenFiles> {
        Arc::clone(&self.open_files)
    }

    /// The data file `number`, if there is one.
    #[inline]
    pub(crate) fn segment(&self, number: u16) -> Option<&Arc<Segment>> {
        let group = self.groups.get(usize::from(number) / GROUP)?.get()?;
        group[usize::from(number) % GROUP].get()
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

    /// All data files, ascending.
    pub(crate) fn segments(&self) -> impl Iterator<Item = &Arc<Segment>> {
        let groups = self.groups.iter().filter_map(|group| group.get());
        groups.flat_map(|group| group.iter().filter_map(|segment| segment.get()))
    }
}
