//! The versions that a compaction has kept, in the order of their commits: in its data files they
//! are ordered by id.

use std::ops::RangeInclusive;
use std::sync::Arc;

use super::segment::{FILE_HEADER, LogEnd, Segment};
use crate::bytes::{reserve, shrunk};
use crate::error::Result;
use crate::hash::SetDigest;
use crate::sync::{Mutex, PoisonError};

/// A version that was kept, and where its record begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version {
    pub(crate) commit: u64,
    pub(crate) place: LogEnd,
}

/// What was live as of a commit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Live {
    /// All ids, as ranges that ascend.
    pub(crate) ids: Vec<RangeInclusive<u32>>,
    /// Of their versions.
    pub(crate) digest: SetDigest,
}

/// A commit, and how many erasures there were.
type AsOf = (u64, u64);

/// What is found out once, for the first one who asks, and stays in memory: 16 bytes for each
/// version that was kept, 8 for each range of ids.
#[derive(Debug, Default)]
pub(crate) struct KeptIndex {
    versions: Mutex<Option<Arc<Vec<Version>>>>,
    live: Mutex<Option<(AsOf, Arc<Live>)>>,
}

impl KeptIndex {
    /// The versions, by commit; `find` finds them if nobody has asked before.
    pub(crate) fn versions(
        &self,
        find: impl FnOnce() -> Result<Vec<Version>>,
    ) -> Result<Arc<Vec<Version>>> {
        let mut known = self.versions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = &*known {
            return Ok(Arc::clone(known));
        }
        let mut found = find()?;
        // Of one commit those with lower ids come first, as they lie there.
        found.sort_unstable();
        Ok(Arc::clone(known.insert(Arc::new(shrunk(found)))))
    }

    /// What was live as of a commit, of what isn't erased by now; `find` finds it if it wasn't that one that
    /// was asked for last, or something was erased since.
    pub(crate) fn live(
        &self,
        commit: u64,
        erasures: u64,
        find: impl FnOnce() -> Result<Live>,
    ) -> Result<Arc<Live>> {
        let mut known = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, live)) = &*known
            && *of == (commit, erasures)
        {
            return Ok(Arc::clone(live));
        }
        let (_, live) = known.insert(((commit, erasures), Arc::new(find()?)));
        Ok(Arc::clone(live))
    }
}

/// Adds the versions in a data file that a compaction wrote. `held_off` calls what it is given
/// while nothing is overwritten.
pub(crate) fn add_versions(
    segment: &Segment,
    versions: &mut Vec<Version>,
    held_off: impl Fn(&mut dyn FnMut() -> Result<()>) -> Result<()>,
) -> Result<()> {
    let end = segment.view().end();
    let mut at = FILE_HEADER as u64;
    while at < end {
        held_off(&mut || {
            // No data file is longer than its positions reach.
            let head = segment.head_at(at as u32)?;
            reserve(versions, 1)?;
            versions.push(Version {
                commit: head.commit,
                place: LogEnd {
                    file: segment.number,
                    position: at as u32,
                },
            });
            at += head.record_len();
            Ok(())
        })?;
    }
    Ok(())
}
