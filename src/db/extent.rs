//! What a database consists of at a moment, for work over all of it.

use std::sync::Arc;

use super::write::Writer;
use super::{Db, World};
use crate::bytes::collected;
use crate::error::{Error, Result};
use crate::log::commits::LogPart;
use crate::log::erasure;
use crate::log::segment::{Segment, name};
use crate::manifest::{BaseStamp, Clear, FileKind, Manifest};
use crate::storage::Storage;
use crate::sync::atomic::Ordering;

/// Everything there is as of one commit. What comes later is appended behind it.
#[derive(Debug)]
pub(crate) struct Extent {
    pub(crate) uuid: [u8; 16],
    pub(crate) generation: u64,
    /// There are no files.
    pub(crate) volatile: bool,
    pub(crate) world: Arc<World>,
    /// Ids are below this.
    pub(crate) limit: u32,
    /// Ascending.
    pub(crate) parts: Vec<Part>,
    pub(crate) base: Option<BaseStamp>,
    /// As it is on disk: older than the rest, while the database is open for writing.
    pub(crate) manifest: Manifest,
    /// Up to that commit.
    pub(crate) clears: Vec<Clear>,
    pub(crate) commit: u64,
    /// The time of that commit.
    pub(crate) time_us: u64,
    pub(crate) live: u64,
    pub(crate) next_id: u64,
    /// The last commit that readers see, and the next id as of that.
    pub(crate) visible: u64,
    pub(crate) visible_next_id: u64,
    /// How many erasures there were.
    pub(crate) erasures: u64,
}

/// A data file up to some end.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) segment: Arc<Segment>,
    pub(crate) kind: FileKind,
    pub(crate) end: u64,
}

impl Extent {
    /// The data files of the log.
    pub(crate) fn log_parts(&self) -> impl Iterator<Item = LogPart> + '_ {
        let parts = self.parts.iter().filter(|part| part.kind == FileKind::Log);
        parts.map(|part| LogPart {
            number: part.segment.number,
            seed: part.segment.seed(),
            end: part.end,
        })
    }

    /// The commit that the log begins with, or will.
    pub(crate) fn first_commit(&self) -> Result<u64> {
        match self.log_parts().next() {
            Some(part) => part.first_commit(&self.world.log),
            None => Ok(self.commit.saturating_add(1)),
        }
    }

    /// Whether the log builds upon versions that were there before.
    pub(crate) fn has_base(&self) -> bool {
        self.base.is_some() || self.parts.iter().any(|part| part.kind != FileKind::Log)
    }

    /// Whether there is nothing but what herolib wrote.
    pub(crate) fn is_frozen(&self) -> bool {
        let mut kinds = self.parts.iter().map(|part| part.kind);
        !self.parts.is_empty() && kinds.all(|kind| matches!(kind, FileKind::Frozen { .. }))
    }

    /// Refuses where a data file that the manifest lists, or the end of one, is missing.
    pub(crate) fn check_complete(&self, storage: &dyn Storage) -> Result<()> {
        for known in &self.manifest.files {
            let parts = &self.parts;
            let index = parts.binary_search_by_key(&known.number, |part| part.segment.number);
            let there = index.map_or(0, |index| parts[index].end);
            if there < u64::from(known.len) {
                return Err(Error::corrupt(
                    storage.describe(&name(known.number)),
                    there,
                    "the data file, or a part of it, is missing",
                ));
            }
        }
        Ok(())
    }
}

impl Db {
    /// What there is now.
    pub(crate) fn extent(&self) -> Result<Extent> {
        self.shared.check_process()?;
        // Nothing is appended meanwhile.
        self.extent_with(&self.shared.writer())
    }

    /// The same for the one who writes.
    pub(super) fn extent_with(&self, writer: &Writer) -> Result<Extent> {
        let shared = &*self.shared;
        let kind = |number| {
            let file = writer.manifest.file(number);
            file.map_or(FileKind::Log, |file| file.kind)
        };
        let world = shared.world.load();
        let parts = world.log.segments().map(|segment| Part {
            segment: Arc::clone(segment),
            kind: kind(segment.number),
            end: segment.view().end(),
        });
        Ok(Extent {
            uuid: world.log.uuid,
            generation: world.log.generation,
            volatile: shared.volatile,
            limit: world.lookup.limit(),
            parts: collected(parts)?,
            world: Arc::clone(&world),
            clears: world.clears().to_vec()?,
            base: writer.manifest.base,
            manifest: Manifest {
                // What is to be removed here is nowhere else.
                doomed: Vec::new(),
                ..writer.manifest.try_clone()?
            },
            commit: writer.commit,
            time_us: writer.time_us,
            live: writer.live,
            next_id: writer.next_id,
            visible: shared.visible(),
            visible_next_id: shared.counters.next_id.load(Ordering::Acquire),
            erasures: shared.erasures.count(),
        })
    }

    /// What there is to read now.
    pub(crate) fn world(&self) -> Arc<World> {
        self.shared.world.load()
    }

    /// How many erasures there were by now, with one whose record is just being taken away.
    pub(crate) fn erasures(&self) -> u64 {
        drop(self.shared.writer());
        self.shared.erasures.count()
    }

    /// Calls `read` while nothing is overwritten, with a number that has changed if anything was
    /// since the last time.
    pub(crate) fn unchanged<T>(&self, read: impl FnOnce(u64) -> T) -> T {
        let _held_off = self.shared.erasures.hold_off();
        read(self.shared.erasures.overwritten())
    }

    /// Reads what another process may be overwriting, if this is a reader's handle: once more as long as it
    /// looks as if it were.
    pub(crate) fn beside_erasures<T>(
        &self,
        looks_torn: impl Fn(&T) -> bool,
        read: impl FnMut() -> T,
    ) -> T {
        let looks_torn = |found: &T| self.shared.read_only && looks_torn(found);
        erasure::beside(&*self.shared.storage, looks_torn, read)
    }

    /// Whether it was opened to salvage what can be read: what can't is left out.
    pub(crate) fn salvages(&self) -> bool {
        self.shared.options.salvage
    }

    pub(crate) fn storage(&self) -> &dyn Storage {
        &*self.shared.storage
    }
}
