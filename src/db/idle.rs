//! What a database has to stay open for.

use super::Db;
use crate::error::{Error, Result};
use crate::sync::atomic::{AtomicU32, Ordering};

/// Long work under way, which may be watched by somebody who would close the database.
pub(crate) struct LongWork<'a>(&'a AtomicU32);

impl Drop for LongWork<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Db {
    /// Until this is dropped the database isn't idle.
    pub(crate) fn begin_long_work(&self) -> LongWork<'_> {
        let under_way = &self.shared.long_work;
        under_way.fetch_add(1, Ordering::Relaxed);
        LongWork(under_way)
    }

    /// Refuses while transactions, snapshots or scans are open, as a close would, and during long work.
    pub fn check_idle(&self) -> Result<()> {
        self.shared.check_process()?;
        let what = match self.shared.snapshots.count() {
            0 if self.shared.long_work.load(Ordering::Relaxed) == 0 => return Ok(()),
            0 => "a compaction, backup or check is at work".into(),
            count => format!("{count} transactions, snapshots or scans are open").into(),
        };
        Err(Error::Busy { what })
    }
}
