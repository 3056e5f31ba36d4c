//! In which order records stand in the log: which one may come next.

use super::record::{Head, Kind};

/// How far a log was read, record by record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sequence {
    /// The last whole commit, and its time.
    commit: u64,
    time_us: u64,
    /// The commit whose last record has not come yet, and its time.
    unfinished: Option<(u64, u64)>,
}

/// Why a record is not the one to come.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub(crate) enum OutOfOrder {
    #[error("a sync mark stands within a commit, or names a later one")]
    SyncMark,
    #[error("records of commit {0} have different times")]
    Times(u64),
    #[error("commit {0} has an earlier time than the one before it")]
    EarlierTime(u64),
    #[error("a record of commit {commit} stands where the log goes on after commit {after}")]
    Commit { commit: u64, after: u64 },
}

impl Sequence {
    /// The log goes on after this commit.
    pub(crate) fn after(commit: u64, time_us: u64) -> Sequence {
        Sequence {
            commit,
            time_us,
            unfinished: None,
        }
    }

    /// The last whole commit.
    pub(crate) fn commit(&self) -> u64 {
        self.commit
    }

    /// The time of that.
    pub(crate) fn time_us(&self) -> u64 {
        self.time_us
    }

    /// The commit whose last record has not come yet.
    pub(crate) fn unfinished(&self) -> Option<u64> {
        self.unfinished.map(|(commit, _)| commit)
    }

    /// Whether a record is the one to come.
    #[inline]
    pub(crate) fn admit(&self, head: &Head) -> Result<(), OutOfOrder> {
        let fits = match (head.kind, self.unfinished) {
            (Kind::SyncMark, None) if head.commit <= self.commit => true,
            (Kind::SyncMark, _) => return Err(OutOfOrder::SyncMark),
            // One commit, one time: what is left of an attempt that failed in the same place has
            // another one.
            (_, Some((commit, time_us))) if head.time_us != time_us => {
                return Err(OutOfOrder::Times(commit));
            }
            (_, Some((commit, _))) => head.commit == commit,
            (_, None) if head.time_us < self.time_us => {
                return Err(OutOfOrder::EarlierTime(head.commit));
            }
            (_, None) => head.follows(self.commit),
        };
        match fits {
            true => Ok(()),
            false => Err(OutOfOrder::Commit {
                commit: head.commit,
                after: self.commit,
            }),
        }
    }

    /// Goes on behind a record, also one that was not the one to come.
    #[inline]
    pub(crate) fn go_on(&mut self, head: &Head) {
        match (head.kind, head.last) {
            (Kind::SyncMark, _) => {}
            (_, true) => *self = Sequence::after(head.commit, head.time_us),
            (_, false) => self.unfinished = Some((head.commit, head.time_us)),
        }
    }

    /// Leaves out what was read of a commit that isn't whole.
    pub(crate) fn break_off(&mut self) {
        self.unfinished = None;
    }
}
