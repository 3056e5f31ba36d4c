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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::location::Location;

    fn head(kind: Kind, commit: u64, time_us: u64, last: bool) -> Head {
        Head {
            kind,
            last,
            skips: false,
            id: 1,
            commit,
            time_us,
            previous: Location::NONE,
            len: 0,
            crc: 0,
        }
    }

    /// What follows commit 4 of time 100, and commit 5 of time 110 of which one record has come.
    #[test]
    fn one_record_is_the_next() {
        let between = Sequence::after(4, 100);
        let mut within = between;
        within.go_on(&head(Kind::Put, 5, 110, false));
        assert_eq!((within.commit(), within.unfinished()), (4, Some(5)));

        let put = |commit, time_us| head(Kind::Put, commit, time_us, true);
        assert!(between.admit(&put(5, 100)).is_ok());
        assert!(between.admit(&put(5, 120)).is_ok());
        let earlier = between.admit(&put(5, 99));
        assert!(matches!(earlier, Err(OutOfOrder::EarlierTime(5))));
        for commit in [3, 4, 6] {
            let other = between.admit(&put(commit, 120));
            assert!(matches!(other, Err(OutOfOrder::Commit { after: 4, .. })));
        }
        let mut skipping = put(7, 120);
        skipping.skips = true;
        assert!(between.admit(&skipping).is_ok());

        assert!(within.admit(&put(5, 110)).is_ok());
        let another_time = within.admit(&put(5, 111));
        assert!(matches!(another_time, Err(OutOfOrder::Times(5))));
        let another_commit = within.admit(&put(6, 110));
        assert!(matches!(
            another_commit,
            Err(OutOfOrder::Commit { commit: 6, .. })
        ));

        let mark = |commit| head(Kind::SyncMark, commit, 0, true);
        assert!(between.admit(&mark(4)).is_ok() && between.admit(&mark(2)).is_ok());
        for misplaced in [between.admit(&mark(5)), within.admit(&mark(4))] {
            assert!(matches!(misplaced, Err(OutOfOrder::SyncMark)));
        }
    }

    #[test]
    fn a_commit_is_whole_with_its_last_record() {
        let mut sequence = Sequence::after(4, 100);
        sequence.go_on(&head(Kind::Put, 5, 110, false));
        sequence.go_on(&head(Kind::Delete, 5, 110, true));
        sequence.go_on(&head(Kind::SyncMark, 5, 0, true));
        let read = (sequence.commit(), sequence.time_us(), sequence.unfinished());
        assert_eq!(read, (5, 110, None));
        sequence.go_on(&head(Kind::Put, 6, 120, false));
        sequence.break_off();
        assert_eq!((sequence.commit(), sequence.unfinished()), (5, None));
    }
}
