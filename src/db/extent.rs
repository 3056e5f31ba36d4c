//! What a database consists of at a moment, for work over all of it.

use std::sync::Arc;

use super::{Db, World};
use crate::error::Result;
use crate::log::segment::Segment;
use crate::manifest::{BaseStamp, Clear, FileKind, Manifest};
use crate::storage::Storage;

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
    pub(crate) live: u64,
    pub(crate) next_id: u64,
}

/// A data file up to some end.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) segment: Arc<Segment>,
    pub(crate) kind: FileKind,
    pub(crate) end: u64,
}

impl Db {
    /// What there is now.
    pub(crate) fn extent(&self) -> Result<Extent> {
        let shared = &*self.shared;
        shared.check_process()?;
        // Nothing is appended meanwhile.
        let writer = shared.writer();
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
            parts: parts.collect(),
            world: Arc::clone(&world),
            clears: Vec::clone(&world.clears()),
            base: writer.manifest.base,
            manifest: writer.manifest.clone(),
            commit: writer.commit,
            live: writer.live,
            next_id: writer.next_id,
        })
    }

    pub(crate) fn storage(&self) -> &dyn Storage {
        &*self.shared.storage
    }
}
