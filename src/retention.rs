//! Which versions a compaction keeps.

use crate::log::record::{Head, Kind};
use crate::planted::planted;

/// What a compaction keeps of each record. A version is kept if any rule keeps it; the newest one
/// of a live record always is. A record of which none is kept is gone for good; its id is not given
/// out again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// The last so many versions, deletions counted; 0: not by this rule.
    pub keep_versions: u64,
    /// Those not older than this time, in microseconds since the Unix epoch; 0: not by this rule.
    pub keep_since_us: u64,
    /// Those of this commit and later ones; 0: not by this rule.
    pub keep_since_commit: u64,
}

impl Default for Retention {
    fn default() -> Retention {
        Retention {
            keep_versions: 1,
            keep_since_us: 0,
            keep_since_commit: 0,
        }
    }
}

impl Retention {
    /// Whether one before which come `newer` others may be kept, whatever it is.
    pub(crate) fn may_keep(&self, newer: u64) -> bool {
        newer < self.keep_versions || self.keep_since_commit != 0 || self.keep_since_us != 0
    }

    /// Whether to keep a version before which, counted from the newest, come `newer` others.
    pub(crate) fn keeps(&self, newer: u64, head: &Head) -> bool {
        newer < self.keep_versions
            || (self.keep_since_commit != 0 && head.commit >= self.keep_since_commit)
            || (self.keep_since_us != 0 && head.time_us >= self.keep_since_us)
            || (newer == 0 && head.kind == Kind::Put && !planted!(newest_dropped))
    }
}
