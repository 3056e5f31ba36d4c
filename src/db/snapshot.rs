//! Moments that somebody looks at, for longer than one call.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::reads::{Since, Succession};
use super::{Shared, World};
use crate::error::{Error, NotFound, Result};
use crate::location::Location;
use crate::log::record::{Head, Kind};
use crate::log::segment::LogEnd;
use crate::lookup::Entry;
use crate::planted::planted;
use crate::storage::Reading;
use crate::sync::{Mutex, MutexGuard, PoisonError};

/// The snapshots that are open.
#[derive(Debug, Default)]
pub(super) struct Snapshots {
    open: Mutex<Open>,
}

#[derive(Debug)]
pub(super) struct Open {
    /// How many of the present at each commit: those see what searches in snapshots must find.
    moments: BTreeMap<u64, u32>,
    /// How many there are, those of the past included.
    count: u64,
    /// Of the world in which new ones begin.
    succession: Arc<Succession>,
}

impl Default for Open {
    fn default() -> Open {
        Open {
            moments: BTreeMap::new(),
            count: 0,
            succession: Succession::none(),
        }
    }
}

impl Open {
    /// New ones begin in `next` from here on, into which the log was copied up to what is `end` there.
    pub(super) fn go_over(&mut self, next: &Arc<World>, end: Option<LogEnd>) {
        self.succession = self.succession.succeed(next, end);
    }
}

impl Snapshots {
    /// Nothing begins a snapshot meanwhile.
    pub(super) fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The oldest moment of a present that somebody still looks at.
    pub(super) fn oldest(&self) -> u64 {
        let open = self.lock();
        let oldest = open.moments.keys().next();
        oldest.copied().unwrap_or(u64::MAX)
    }

    pub(super) fn count(&self) -> u64 {
        self.lock().count
    }
}

/// What is seen as of one commit.
#[derive(Debug)]
pub(super) struct Snapshot {
    /// Dropped before what is shared, which has the lock: files of an earlier generation may go with
    /// it.
    pub(super) world: Arc<World>,
    pub(super) shared: Arc<Shared>,
    /// The commit.
    pub(super) at: u64,
    /// Live records; unknown in the past.
    live: Option<u64>,
    /// How many erasures there were when it was opened, if `live` knows of all of them.
    erasures: Option<u64>,
    /// [`Lookup::lefts`](crate::lookup::Lookup::lefts) of before.
    lefts: u64,
    /// How many records were counted when somebody asked, and how many erasures there were then.
    counted: Mutex<Option<(u64, u64)>>,
}

impl Snapshot {
    /// Of the present.
    pub(super) fn now(shared: &Arc<Shared>) -> Result<Snapshot> {
        let (now, ()) = Snapshot::present(shared, |_, _, _| ())?;
        Ok(now)
    }

    /// Of the present, and from where on to look for what is committed later.
    pub(super) fn now_and_since(shared: &Arc<Shared>) -> Result<(Snapshot, Since)> {
        Snapshot::present(shared, |open, world, end| Since {
            world: Arc::clone(world),
            succession: Arc::clone(&open.succession),
            end,
        })
    }

    /// Of the present, and what `besides` makes of its world and where the log ends.
    fn present<T>(
        shared: &Arc<Shared>,
        besides: impl FnOnce(&Open, &Arc<World>, Option<LogEnd>) -> T,
    ) -> Result<(Snapshot, T)> {
        shared.check_process()?;
        let mut open = shared.snapshots.lock();
        let erasures = shared.erasures.count();
        let world = shared.world.load();
        // In this order: what was left by then is deleted as of `at`.
        let lefts = world.lookup.lefts();
        let (at, live, end) = shared.counters.shown();
        if !planted!(snapshot_not_registered) {
            *open.moments.entry(at).or_default() += 1;
        }
        open.count += 1;
        // One that isn't visible yet has taken its record away already.
        let erasures = (!shared.erasures.is_later_than(at)).then_some(erasures);
        let besides = besides(&open, &world, end);
        let snapshot = Snapshot {
            shared: Arc::clone(shared),
            world,
            at,
            live: Some(live),
            erasures,
            lefts,
            counted: Mutex::new(None),
        };
        Ok((snapshot, besides))
    }

    /// As of commit `at`.
    pub(super) fn past(shared: &Arc<Shared>, at: u64) -> Result<Snapshot> {
        shared.check_process()?;
        let mut open = shared.snapshots.lock();
        let world = shared.world.load();
        let (last, _, _) = shared.counters.shown();
        let oldest = world.oldest();
        if at < oldest || at > last {
            return Err(Error::NotFound(NotFound::Commit {
                commit: at,
                oldest,
                last,
            }));
        }
        open.count += 1;
        Ok(Snapshot {
            shared: Arc::clone(shared),
            world,
            at,
            live: None,
            erasures: None,
            lefts: 0,
            counted: Mutex::new(None),
        })
    }

    /// Says that this thread reads, as every call does for as long as it follows what a lookup says:
    /// an erasure waits for it.
    pub(super) fn begin_reading(&self) -> Reading<'_, World> {
        self.shared.read()
    }

    fn is_past(&self) -> bool {
        self.live.is_none()
    }

    /// Whether an entry that was loaded before this call leads to a version that is seen.
    pub(super) fn sees_newest(&self) -> bool {
        !self.is_past() && self.shared.all_visible(self.at)
    }

    /// Whether the newest version of a record, if this is its head, is seen.
    pub(super) fn sees(&self, head: &Head) -> bool {
        !self.is_past() && head.commit <= self.at
    }

    /// The version of `id` that is seen, deletions included.
    pub(super) fn version(&self, id: u32, entry: Entry) -> Result<Option<(Location, Head)>> {
        if self.is_past() && self.at < self.world.base().commit {
            let compare = |head: &Head| head.commit.cmp(&self.at);
            return self.world.version_as_of(id, entry, u64::MAX, compare);
        }
        self.world.version_at(id, entry, self.at)
    }

    /// The live version of `id` that is seen.
    pub(super) fn live(&self, id: u32, entry: Entry) -> Result<Option<(Location, Head)>> {
        let version = self.version(id, entry)?;
        Ok(version.filter(|(_, head)| head.kind == Kind::Put))
    }

    /// Whether a live record is seen.
    pub(super) fn contains(&self, id: u32) -> Result<bool> {
        let _reading = self.begin_reading();
        let entry = self.world.lookup.get(id);
        if self.sees_newest() {
            return Ok(entry.is_live());
        }
        Ok(self.live(id, entry)?.is_some())
    }

    /// Calls `f` with the value of a live record; `None` if there is none.
    pub(super) fn get_with<R>(&self, id: u32, f: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        let _reading = self.begin_reading();
        let entry = self.world.lookup.get(id);
        let mut f = Some(f);
        if entry.is_live() {
            let location = entry.location();
            if let Some(segment) = self.world.log.segment(location.file)
                && let Some((head, value)) = segment.quick(location, entry.len_hint(), id)
                && self.sees(&head)
                && let Some(answer) =
                    segment.with_quick(location, value, |value| f.take().map(|f| f(value)))
            {
                return Ok(answer);
            }
        }
        match self.live(id, entry)? {
            Some((location, head)) => {
                let value = self.world.value_if_there(location, &head)?;
                Ok(value.zip(f).map(|(value, f)| f(&value)))
            }
            None => Ok(None),
        }
    }

    /// The lowest id at or above `from` that may be live.
    pub(super) fn candidate_at_or_above(&self, from: u64) -> Option<u32> {
        if self.is_past() {
            self.world.lookup.known_at_or_above(from)
        } else {
            self.world.lookup.seen_at_or_above(from, self.lefts)
        }
    }

    /// The highest id at or below `from` that may be live.
    pub(super) fn candidate_at_or_below(&self, from: u64) -> Option<u32> {
        if self.is_past() {
            self.world.lookup.known_at_or_below(from)
        } else {
            self.world.lookup.seen_at_or_below(from, self.lefts)
        }
    }

    /// The next ids in `lower..=upper` that may be live, upwards or downwards, as many as `ids` has
    /// room for; how many.
    pub(super) fn candidates(
        &self,
        lower: u32,
        upper: u32,
        reverse: bool,
        ids: &mut [u32],
    ) -> usize {
        if !self.is_past() && !reverse {
            return (self.world.lookup).seen_ids(lower, upper, self.lefts, ids);
        }
        let mut count = 0;
        let mut from = Some(if reverse { upper } else { lower });
        while let (Some(next), Some(place)) = (from, ids.get_mut(count)) {
            let found = if reverse {
                self.candidate_at_or_below(u64::from(next))
            } else {
                self.candidate_at_or_above(u64::from(next))
            };
            let Some(id) = found.filter(|id| (lower..=upper).contains(id)) else {
                break;
            };
            *place = id;
            count += 1;
            from = if reverse {
                id.checked_sub(1)
            } else {
                id.checked_add(1)
            };
        }
        count
    }

    /// The lowest live id at or above `from`.
    pub(super) fn at_or_above(&self, from: u64) -> Result<Option<u32>> {
        let mut candidate = self.candidate_at_or_above(from);
        while let Some(id) = candidate {
            if self.contains(id)? {
                break;
            }
            candidate = self.candidate_at_or_above(u64::from(id) + 1);
        }
        Ok(candidate)
    }

    /// The highest live id at or below `from`.
    pub(super) fn at_or_below(&self, from: u64) -> Result<Option<u32>> {
        let mut candidate = self.candidate_at_or_below(from);
        while let Some(id) = candidate {
            if self.contains(id)? {
                break;
            }
            let below = u64::from(id).checked_sub(1);
            candidate = below.and_then(|below| self.candidate_at_or_below(below));
        }
        Ok(candidate)
    }

    /// Live records. In the past, or if some were erased since, they are counted one by one, and once.
    pub(super) fn count(&self) -> Result<u64> {
        let erasures = self.shared.erasures.count();
        if let Some(live) = self.live
            && self.erasures == Some(erasures)
        {
            return Ok(live);
        }
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((count, then)) = *counted
            && then == erasures
        {
            return Ok(count);
        }
        let mut count = 0;
        let mut next = self.at_or_above(0)?;
        while let Some(id) = next {
            count += 1;
            next = self.at_or_above(u64::from(id) + 1)?;
        }
        *counted = Some((count, erasures));
        Ok(count)
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        if !self.shared.is_own_process() {
            // A thread that is not in this forked child may have held the lock.
            return;
        }
        let mut open = self.shared.snapshots.lock();
        open.count -= 1;
        if !self.is_past()
            && let Some(count) = open.moments.get_mut(&self.at)
        {
            *count -= 1;
            if *count == 0 {
                open.moments.remove(&self.at);
            }
        }
    }
}
