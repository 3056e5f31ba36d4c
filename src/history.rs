//! Version chains: every version of a record leads to the one before it.

use std::cmp::Ordering;
use std::ops::ControlFlow;

use crate::db::Db;
use crate::error::{Error, NotFound, Result};
use crate::location::Location;
use crate::log::Log;
use crate::log::record::{Head, Kind};
use crate::lookup::Entry;
use crate::records::{Record, Records, State};

/// The versions of one record, newest first, each one's head verified.
#[derive(Debug)]
pub(crate) struct Chain<'a> {
    log: &'a Log,
    id: u32,
    next: Location,
    /// The version returned last.
    newer: Option<Head>,
    /// Brent's cycle detection, for the part that herolib wrote: nothing in it says which version
    /// is older. The hare is `next`; the tortoise waits for it at `tortoise` until it has made
    /// `patience` steps, then jumps to it.
    tortoise: Location,
    steps: u64,
    patience: u64,
}

impl<'a> Chain<'a> {
    pub(crate) fn new(log: &'a Log, id: u32, entry: Entry) -> Chain<'a> {
        let next = entry.location();
        Chain {
            log,
            id,
            next,
            newer: None,
            tortoise: Location::NONE,
            steps: 0,
            patience: 1,
        }
    }

    /// The next older version.
    pub(crate) fn next(&mut self) -> Result<Option<(Location, Head)>> {
        if self.next.is_none() {
            return Ok(None);
        }
        let location = self.next;
        let segment = self.log.segment_of(location)?;
        let head = segment.head(location, self.id)?;
        // Of ours each version is of an earlier commit; herolib's have none, and may stand anywhere.
        let older = self
            .newer
            .is_none_or(|newer| head.commit < newer.commit || newer.commit == 0);
        if !older || location == self.tortoise {
            return Err(segment.corrupt(
                u64::from(location.position),
                format!(
                    "the versions of id {} lead in a circle, or to a newer one",
                    self.id
                ),
            ));
        }
        self.steps += 1;
        if self.steps == self.patience {
            self.tortoise = location;
            self.steps = 0;
            self.patience = self.patience.saturating_mul(2);
        }
        self.next = head.previous;
        self.newer = Some(head);
        Ok(Some((location, head)))
    }
}

impl Db {
    /// The versions of a record, newest first, deletions included, also of a deleted one; at most
    /// `max` of them, or all with 0. Each value is checked. Cost: one record read per version.
    pub fn history(&self, id: u32, max: usize) -> Result<Records> {
        let mut records = Records::default();
        self.walk(id, |location, head| {
            let value = self.log().segment_of(location)?.value(location, head)?;
            let state = if head.kind == Kind::Put {
                State::Live
            } else {
                State::Deleted
            };
            let Head {
                commit, time_us, ..
            } = *head;
            records.push(Record {
                id,
                state,
                commit,
                time_us,
                value: &value,
            })?;
            Ok(if records.len() == max {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            })
        })?;
        if records.is_empty() {
            return Err(Error::NotFound(NotFound::History(id)));
        }
        Ok(records)
    }

    /// The value that a record had after commit `commit`.
    pub fn get_version(&self, id: u32, commit: u64) -> Result<Vec<u8>> {
        let found = self.version_as_of(id, |head| head.commit.cmp(&commit))?;
        found.ok_or(Error::NotFound(NotFound::AtCommit { id, commit }))
    }

    /// The value that a record had at a moment, in microseconds since the Unix epoch.
    pub fn get_at(&self, id: u32, time_us: u64) -> Result<Vec<u8>> {
        let found = self.version_as_of(id, |head| head.time_us.cmp(&time_us))?;
        found.ok_or(Error::NotFound(NotFound::AtTime { id, time_us }))
    }

    /// The value of the newest version that is not after a moment, unless that is a deletion.
    ///
    /// Versions that herolib wrote have neither commit nor time. They count as older than any of
    /// ours that stands above them in the chain, and as newer than any that stands below.
    fn version_as_of(
        &self,
        id: u32,
        compare: impl Fn(&Head) -> Ordering,
    ) -> Result<Option<Vec<u8>>> {
        let mut herolibs = None;
        let mut found = None;
        self.walk(id, |location, head| {
            let order = compare(head);
            if head.commit == 0 {
                herolibs = herolibs.or(Some((location, *head)));
                return Ok(ControlFlow::Continue(()));
            }
            if order == Ordering::Greater {
                herolibs = None;
                return Ok(ControlFlow::Continue(()));
            }
            found = match herolibs.take() {
                Some(newer) if order == Ordering::Less => Some(newer),
                _ => Some((location, *head)),
            };
            Ok(ControlFlow::Break(()))
        })?;
        match found.or(herolibs) {
            Some((location, head)) if head.kind == Kind::Put => {
                let segment = self.log().segment_of(location)?;
                Ok(Some(segment.value(location, &head)?.into_owned()))
            }
            _ => Ok(None),
        }
    }
}
