//! What a transaction has read, and whether somebody has changed it since.

use std::collections::HashSet;
use std::sync::Arc;

use super::World;
use super::ranges::Ranges;
use crate::bytes::reserve;
use crate::error::{Error, Result};
use crate::hash::FixedHasher;
use crate::log::record::{Head, Kind};
use crate::log::segment::LogEnd;
use crate::planted::planted;
use crate::sync::OnceLock;

/// The records that a transaction has read, found or not.
#[derive(Debug, Default)]
pub(super) struct Reads {
    /// Single ones.
    points: HashSet<u32, FixedHasher>,
    /// All from an id to another one.
    ranges: Ranges,
    /// Whether anything was found in either: all that a clear asks, of which there may be many. What was
    /// found, and is erased since, was found.
    found: bool,
    /// What scans that are open have read: first and last id, and whether anything was found. They grow
    /// in place.
    scans: Vec<Option<(u32, u32, bool)>>,
    /// The places of scans that have ended, for those to come. There is room for all of them.
    free: Vec<usize>,
}

impl Reads {
    pub(super) fn is_empty(&self) -> bool {
        self.points.is_empty() && self.ranges.is_empty() && self.scans.iter().all(Option::is_none)
    }

    pub(super) fn point(&mut self, id: u32, found: bool) -> Result<()> {
        self.points.try_reserve(1).map_err(|_| Error::OutOfMemory {
            what: format!("{} records that were read", self.points.len()).into(),
        })?;
        self.points.insert(id);
        self.found |= found;
        Ok(())
    }

    /// All ids `from..=to` were looked at.
    pub(super) fn range(&mut self, from: u32, to: u32, found: bool) {
        self.ranges.add(from, to);
        self.found |= found;
    }

    /// The place of a scan that begins.
    pub(super) fn begin_scan(&mut self) -> Result<usize> {
        if let Some(scan) = self.free.pop() {
            return Ok(scan);
        }
        reserve(&mut self.free, self.scans.len() + 1)?;
        reserve(&mut self.scans, 1)?;
        self.scans.push(None);
        Ok(self.scans.len() - 1)
    }

    /// The scan has looked at all ids `from..=to` by now. A scan that outlives its transaction has no
    /// place any more.
    pub(super) fn scanned(&mut self, scan: usize, from: u32, to: u32, found: bool) {
        if let Some(place) = self.scans.get_mut(scan) {
            *place = Some((from, to, found));
        }
    }

    /// The scan has ended.
    pub(super) fn end_scan(&mut self, scan: usize) {
        let Some(place) = self.scans.get_mut(scan) else {
            return;
        };
        if let Some((from, to, found)) = place.take() {
            self.range(from, to, found);
        }
        self.free.push(scan);
    }

    /// Whether a change concerns what was read. `was_live` says whether an erasure has changed what there was.
    fn concerns(&self, head: &Head, was_live: impl FnOnce() -> Result<bool>) -> Result<bool> {
        if head.kind == Kind::Clear {
            // It changed what was there.
            return Ok(self.found && !planted!(clear_not_checked));
        }
        if head.kind == Kind::Empty {
            return Ok(false);
        }
        let is_read = self.points.contains(&head.id)
            || (self.ranges.around(head.id).is_some() && !planted!(ranges_not_checked));
        match head.kind {
            // What was not there isn't there after an erasure either.
            Kind::Erase if is_read => was_live(),
            _ => Ok(is_read),
        }
    }

    /// Refuses if anything that was read, as of commit `begin`, was changed by a commit after `since`, and
    /// moves `since` to the end of what was looked through. Nothing may be overwritten meanwhile but in
    /// `between`, which is called after each head. What is overwritten there changes no answer: lengths stay,
    /// so that the next head is where it was, and an erased version says as the value did that it is of its
    /// record, had a value, and when it came.
    pub(super) fn check(
        &mut self,
        begin: u64,
        since: &mut Since,
        mut between: impl FnMut(),
    ) -> Result<()> {
        self.free.clear();
        for (from, to, found) in std::mem::take(&mut self.scans).into_iter().flatten() {
            self.range(from, to, found);
        }
        if self.is_empty() {
            return Ok(());
        }
        since.each(|world, place, head| {
            if !self.concerns(head, || world.was_live(begin, place.location(), head))? {
                between();
                return Ok(());
            }
            let what = match head.kind {
                Kind::Clear => "every record".into(),
                _ => format!("record {}", head.id).into(),
            };
            let commit = head.commit;
            Err(Error::Conflict { what, commit })
        })
    }
}

/// What came after a world, once something has, and where the log goes on there. Kept apart from the
/// world: who only reads in one must not keep the files of all that came after it.
#[derive(Debug)]
pub(super) struct Succession(OnceLock<(Arc<World>, Arc<Succession>, Option<LogEnd>)>);

impl Succession {
    /// Of the world that is the last one.
    pub(super) fn none() -> Arc<Succession> {
        Arc::new(Succession(OnceLock::new()))
    }

    /// Notes what comes after: a world, into which the log was copied up to what is `end` there. That
    /// one's own succession.
    pub(super) fn succeed(&self, next: &Arc<World>, end: Option<LogEnd>) -> Arc<Succession> {
        let after = Succession::none();
        let _ = self.0.set((Arc::clone(next), Arc::clone(&after), end));
        after
    }
}

impl Drop for Succession {
    /// One after the other, not each within the one before: there may be as many as there were compactions.
    fn drop(&mut self) {
        let mut next = self.0.take();
        while let Some((_, after, _)) = next {
            next = Arc::into_inner(after).and_then(|mut after| after.0.take());
        }
    }
}

/// A place in the log, to go on from to what was committed since, across any number of compactions.
#[derive(Clone, Debug)]
pub(super) struct Since {
    pub(super) world: Arc<World>,
    pub(super) succession: Arc<Succession>,
    pub(super) end: Option<LogEnd>,
}

impl Since {
    /// Calls `f` with the world, place and head of every version from here to the present end, and goes
    /// there.
    pub(super) fn each(
        &mut self,
        mut f: impl FnMut(&World, LogEnd, &Head) -> Result<()>,
    ) -> Result<()> {
        loop {
            // In this order: when there is a next world, nothing comes any more in this one.
            let next = self.succession.0.get().cloned();
            let world = &*self.world;
            let each = |place: LogEnd, head: &Head| f(world, place, head);
            self.end = world.log.each_since(self.end, each)?;
            let Some(next) = next else {
                return Ok(());
            };
            (self.world, self.succession, self.end) = next;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::location::Location;

    fn head(kind: Kind, id: u32) -> Head {
        Head {
            kind,
            last: true,
            skips: false,
            id,
            commit: 9,
            time_us: 0,
            len: 0,
            crc: 0,
            previous: Location::NONE,
        }
    }

    fn is_concerned(reads: &Reads, kind: Kind, id: u32) -> bool {
        let no_erasure = || unreachable!("it is no erasure");
        reads.concerns(&head(kind, id), no_erasure).unwrap()
    }

    #[test]
    fn a_change_in_a_range_that_was_read_concerns() {
        let mut reads = Reads::default();
        reads.range(2, 40, true);
        for (id, concerned) in [(1, false), (2, true), (40, true), (41, false)] {
            assert_eq!(is_concerned(&reads, Kind::Put, id), concerned, "{id}");
        }
    }

    #[test]
    fn scans_that_are_over_take_no_places_and_have_read_what_they_read() {
        let mut reads = Reads::default();
        let mut before = reads.begin_scan().unwrap();
        for id in [3, 30, 300] {
            // Each begins while the one before is open.
            let scan = reads.begin_scan().unwrap();
            reads.end_scan(before);
            reads.scanned(scan, id, id + 9, true);
            before = scan;
        }
        assert_eq!(reads.scans.len(), 2);
        reads.end_scan(before);
        for (id, concerned) in [(2, false), (12, true), (13, false), (39, true), (309, true)] {
            assert_eq!(is_concerned(&reads, Kind::Put, id), concerned, "{id}");
        }
    }

    #[test]
    fn a_clear_concerns_what_was_found() {
        let mut reads = Reads::default();
        reads.point(7, false).unwrap();
        reads.range(1, 5, false);
        assert!(!is_concerned(&reads, Kind::Clear, 0));
        assert!(is_concerned(&reads, Kind::Delete, 7) && !is_concerned(&reads, Kind::Put, 6));
        reads.point(8, true).unwrap();
        // It is erased since, and not found any more.
        reads.point(8, false).unwrap();
        assert!(is_concerned(&reads, Kind::Clear, 0));
    }

    #[test]
    fn a_clear_concerns_what_was_found_in_a_range_or_by_a_scan() {
        for found in [false, true] {
            let mut reads = Reads::default();
            reads.range(10, 20, found);
            // It becomes one with another one, in which nothing was found.
            reads.range(5, 30, false);
            assert_eq!(is_concerned(&reads, Kind::Clear, 0), found);

            let mut reads = Reads::default();
            let scan = reads.begin_scan().unwrap();
            reads.scanned(scan, 10, 12, false);
            reads.scanned(scan, 10, 20, found);
            reads.end_scan(scan);
            reads.range(15, 15, false);
            assert_eq!(is_concerned(&reads, Kind::Clear, 0), found);
        }
    }

    #[test]
    fn an_erasure_concerns_who_has_read_what_was_there() {
        let mut reads = Reads::default();
        reads.point(7, false).unwrap();
        reads.range(1, 5, false);
        for (id, is_read) in [(7, true), (3, true), (6, false)] {
            for is_live in [false, true] {
                let concerned = reads.concerns(&head(Kind::Erase, id), || Ok(is_live));
                assert_eq!(concerned.unwrap(), is_read && is_live, "{id}");
            }
        }
    }
}
