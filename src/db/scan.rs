//! Ordered scans: the live records of a range of ids, as of one moment.

use std::ops::Bound;
use std::sync::{Arc, Mutex, PoisonError};

use super::Db;
use super::overlay::Writes;
use super::read::{live, push_quick};
use super::reads::Reads;
use super::snapshot::Snapshot;
use crate::error::Result;
use crate::lookup::Entry;
use crate::records::{Record, Records, State};

/// A scan reads so many records ahead at most, and not many more bytes than this.
const MOST_AHEAD: usize = 256;
const MOST_BYTES: usize = 1 << 20;

/// So many records are on their way into the processor's cache at a time: about as many as it has room
/// to wait for.
const PREFETCHED: usize = 8;

/// How a scan goes. By default upwards, with values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Order {
    /// From the highest id to the lowest.
    pub reverse: bool,
    /// Ids alone: no record is read. Values are empty, commits and times 0.
    pub keys_only: bool,
}

/// A scan under way. It sees what there was when it was opened, and may go from thread to thread.
#[derive(Debug)]
pub struct Scan {
    snapshot: Arc<Snapshot>,
    order: Order,
    /// What is left of the range; `None`: nothing.
    left: Option<(u32, u32)>,
    /// The scan belongs to a transaction that writes.
    within: Option<Within>,
    /// Read ahead, and how many of them were handed out.
    ahead: Records,
    handed_out: usize,
    /// How many are read ahead next time.
    batch: usize,
    /// How many erasures there were when it began to read what it has ahead.
    erasures: u64,
    /// What is read ahead is looked at again before it is handed out: others erase without this handle's
    /// knowledge.
    looks_again: bool,
}

/// Where a scan has come to.
pub(crate) struct Place {
    left: Option<(u32, u32)>,
    handed_out: usize,
    erasures: u64,
}

#[derive(Debug)]
struct Within {
    writes: Arc<Writes>,
    reads: Arc<Mutex<Reads>>,
    /// The scan's place in `reads`.
    place: usize,
    /// The end of the range at which the scan began.
    from: u32,
    /// The other end.
    to: u32,
    /// The first record of the snapshot that was met, perhaps read ahead.
    first: Option<u32>,
}

impl Within {
    /// Notes that the scan has come to `id`.
    fn reached(&self, id: u32) {
        let (from, to) = (self.from.min(id), self.from.max(id));
        let mut reads = self.reads.lock().unwrap_or_else(PoisonError::into_inner);
        let found = self.first.is_some_and(|id| (from..=to).contains(&id));
        reads.scanned(self.place, from, to, found);
    }
}

impl Drop for Within {
    fn drop(&mut self) {
        // Where somebody has the lock, who need not be there in a forked child, what was read stays where
        // it is.
        if let Ok(mut reads) = self.reads.try_lock() {
            reads.end_scan(self.place);
        }
    }
}

impl Db {
    /// The live records with ids from `lower` to `upper`, both included, as of now.
    pub fn scan(&self, lower: u32, upper: u32, order: Order) -> Result<Scan> {
        let snapshot = Arc::new(Snapshot::now(&self.shared)?);
        Ok(Scan::new(snapshot, lower, upper, order))
    }
}

impl Scan {
    pub(super) fn new(snapshot: Arc<Snapshot>, lower: u32, upper: u32, order: Order) -> Scan {
        let looks_again = snapshot.shared.read_only && !order.keys_only;
        Scan {
            snapshot,
            order,
            left: (lower <= upper).then_some((lower, upper)),
            within: None,
            ahead: Records::default(),
            handed_out: 0,
            batch: 1,
            erasures: 0,
            looks_again,
        }
    }

    /// The same with the writes of a transaction; what is read is noted in `reads`.
    pub(super) fn within(mut self, writes: Arc<Writes>, reads: Arc<Mutex<Reads>>) -> Result<Scan> {
        let Some((lower, upper)) = self.left else {
            return Ok(self);
        };
        let place = {
            let mut reads = reads.lock().unwrap_or_else(PoisonError::into_inner);
            reads.begin_scan()?
        };
        let (from, to) = if self.order.reverse {
            (upper, lower)
        } else {
            (lower, upper)
        };
        self.within = Some(Within {
            writes,
            reads,
            place,
            from,
            to,
            first: None,
        });
        Ok(self)
    }

    /// The next record where it was read ahead and nothing stands in the way: the way of nearly
    /// every step. Can't panic. [`Scan::next`] says what stands in the way otherwise.
    #[inline(always)]
    pub(crate) fn quick(&mut self) -> Option<Record<'_>> {
        let shared = &*self.snapshot.shared;
        if self.within.is_some()
            || self.looks_again
            || !shared.is_own_process()
            || shared.erasures.count() != self.erasures
        {
            return None;
        }
        let record = self.ahead.get(self.handed_out)?;
        self.handed_out += 1;
        Some(record)
    }

    /// The next record; `None` if there is none any more. It is borrowed until the next call.
    #[allow(
        clippy::should_implement_trait,
        reason = "an iterator can't lend what it returns"
    )]
    pub fn next(&mut self) -> Result<Option<Record<'_>>> {
        self.snapshot.shared.check_process()?;
        self.drop_erased()?;
        self.pass_over_erased()?;
        if self.handed_out == self.ahead.len() {
            self.ahead.clear();
            self.handed_out = 0;
            let most = self.batch;
            self.batch = (2 * self.batch).min(MOST_AHEAD);
            let mut ahead = std::mem::take(&mut self.ahead);
            let read = self.read(most, &mut ahead);
            self.ahead = ahead;
            read?;
        }
        let record = self.ahead.get(self.handed_out);
        self.handed_out += usize::from(record.is_some());
        if let Some(within) = &self.within {
            within.reached(record.map_or(within.to, |record| record.id));
        }
        Ok(record)
    }

    /// Where the scan has come to, to [go back](Scan::go_back) there.
    pub(crate) fn place(&mut self) -> Result<Place> {
        self.snapshot.shared.check_process()?;
        // Else what was read ahead would be counted anew.
        self.drop_erased()?;
        Ok(Place {
            left: self.left,
            handed_out: self.handed_out,
            erasures: self.erasures,
        })
    }

    /// Takes back what [`Scan::next_many_into`] has given since, and could not be handed out: it comes again.
    pub(crate) fn go_back(&mut self, place: Place) {
        self.left = place.left;
        // Where something was taken out of it since, what was handed out by then went too.
        let is_same = self.erasures == place.erasures;
        self.handed_out = if is_same { place.handed_out } else { 0 };
    }

    /// The next `max` records, or fewer: the last ones, or a mebibyte of them. None: it is over.
    pub fn next_many(&mut self, max: usize) -> Result<Records> {
        let mut records = Records::default();
        self.next_many_into(max, &mut records)?;
        Ok(records)
    }

    /// As [`Scan::next_many`], into `records`, which are none yet.
    pub(crate) fn next_many_into(&mut self, max: usize, records: &mut Records) -> Result<()> {
        self.snapshot.shared.check_process()?;
        self.drop_erased()?;
        let mut failed = false;
        while records.len() < max {
            match self.pass_over_erased() {
                // What was read so far is handed out first; the failure comes again.
                Err(error) if records.is_empty() => return Err(error),
                passed => failed = passed.is_err(),
            }
            match self.ahead.get(self.handed_out) {
                Some(record) if !failed => records.push(record)?,
                _ => break,
            }
            self.handed_out += 1;
        }
        let mut is_over = false;
        while records.len() < max && records.bytes() < MOST_BYTES && !is_over && !failed {
            let before = records.len();
            match self.read((max - before).min(MOST_AHEAD), records) {
                Ok(()) => is_over = records.len() == before,
                Err(error) if before == 0 => return Err(error),
                Err(_) => break,
            }
        }
        if let Some(within) = &self.within
            && let Some(id) = match is_over {
                // Fewer than were asked for say that there are no more.
                true => Some(within.to),
                false => records.last().map(|record| record.id),
            }
        {
            within.reached(id);
        }
        Ok(())
    }

    /// The ids alone of the next records, as many as `ids` has room for; how many. None though there is
    /// room: it is over. Fewer may also be because the next one can't be read.
    pub fn next_ids(&mut self, ids: &mut [u32]) -> Result<usize> {
        self.snapshot.shared.check_process()?;
        self.drop_erased()?;
        let mut count = 0;
        while let Some(place) = ids.get_mut(count)
            && let Some(record) = self.ahead.get(self.handed_out)
        {
            *place = record.id;
            self.handed_out += 1;
            count += 1;
        }
        match self.read_ids(&mut ids[count..]) {
            Ok(read) => count += read,
            // Those before it are handed out first; the failure comes again.
            Err(error) if count == 0 => return Err(error),
            Err(_) => {}
        }
        if let Some(within) = &self.within {
            let is_over = count < ids.len() && self.left.is_none();
            let last = ids[..count].last().copied();
            if let Some(id) = if is_over { Some(within.to) } else { last } {
                within.reached(id);
            }
        }
        Ok(count)
    }

    /// Passes over what another process has erased of what was read ahead and comes next.
    fn pass_over_erased(&mut self) -> Result<()> {
        while self.looks_again
            && let Some(record) = self.ahead.get(self.handed_out)
        {
            let _reading = self.snapshot.begin_reading();
            let entry = self.snapshot.world.lookup.get(record.id);
            if self.snapshot.live(record.id, entry)?.is_some() {
                break;
            }
            self.handed_out += 1;
        }
        Ok(())
    }

    /// Takes what was erased since out of what was read ahead.
    fn drop_erased(&mut self) -> Result<()> {
        let erasures = self.snapshot.shared.erasures.count();
        if erasures == self.erasures {
            return Ok(());
        }
        let mut left = Records::default();
        for index in self.handed_out..self.ahead.len() {
            if let Some(record) = self.ahead.get(index) {
                let is_own = |within: &Within| within.writes.contains_key(&record.id);
                if self.within.as_ref().is_some_and(is_own) || self.snapshot.contains(record.id)? {
                    left.push(record)?;
                }
            }
        }
        (self.ahead, self.handed_out, self.erasures) = (left, 0, erasures);
        Ok(())
    }

    /// Reads up to `most` records more, at most [`MOST_AHEAD`]; none only at the end.
    fn read(&mut self, most: usize, records: &mut Records) -> Result<()> {
        let mut ids = [0; MOST_AHEAD];
        let ids = &mut ids[..most.min(MOST_AHEAD)];
        if self.order.keys_only {
            records.reserve(ids.len(), 0)?;
            let count = self.read_ids(ids)?;
            return ids[..count]
                .iter()
                .try_for_each(|&id| records.push(own(id, &[])));
        }
        let before = records.len();
        while let Some((lower, upper)) = self.left
            && records.len() == before
        {
            let count = self.candidates(lower, upper, ids);
            let ids = &ids[..count];
            let Some(&last) = ids.last() else {
                self.left = None;
                break;
            };
            let mut first = self.within.as_ref().and_then(|within| within.first);
            let read = match &self.within {
                None => self.push_all(ids, records),
                Some(within) => self.push_within(within, ids, records, &mut first),
            };
            if let Some(within) = &mut self.within {
                within.first = first;
            }
            let last = match read {
                Ok(read) => ids.get(read - 1).copied().unwrap_or(last),
                // Those before the one that failed are handed out first.
                Err(_) if records.len() > before => records.last().map_or(last, |last| last.id),
                Err(error) => return Err(error),
            };
            self.go_on_after(last);
        }
        Ok(())
    }

    /// The next live ids, as many as `ids` has room for; how many. Fewer: there are no more, or the
    /// next one can't be read.
    fn read_ids(&mut self, ids: &mut [u32]) -> Result<usize> {
        let mut count = 0;
        while let Some((lower, upper)) = self.left
            && count < ids.len()
        {
            let room = (ids.len() - count).min(MOST_AHEAD);
            let found = self.candidates(lower, upper, &mut ids[count..count + room]);
            let candidates = &mut ids[count..count + found];
            let Some(&last) = candidates.last() else {
                self.left = None;
                break;
            };
            let mut first = self.within.as_ref().and_then(|within| within.first);
            let (live, outcome) = self.keep_live(candidates, &mut first);
            if let Some(within) = &mut self.within {
                within.first = first;
            }
            count += live;
            match outcome {
                Ok(()) => self.go_on_after(last),
                Err(error) if count == 0 => return Err(error),
                Err(_) => {
                    self.go_on_after(ids[count - 1]);
                    break;
                }
            }
        }
        Ok(count)
    }

    /// What is left of the range after `last`.
    fn go_on_after(&mut self, last: u32) {
        self.left = self.left.and_then(|(lower, upper)| {
            if self.order.reverse {
                last.checked_sub(1).map(|upper| (lower, upper))
            } else {
                last.checked_add(1).map(|lower| (lower, upper))
            }
        });
        self.left = self.left.filter(|(lower, upper)| lower <= upper);
    }

    /// Moves those of `ids` that are live to its front; how many, up to the first that can't be read.
    /// Notes in `first` the first record of the snapshot, seen through a transaction's writes or not.
    fn keep_live(&self, ids: &mut [u32], first: &mut Option<u32>) -> (usize, Result<()>) {
        let snapshot = &*self.snapshot;
        let mut count = 0;
        let Some(within) = &self.within else {
            let _reading = snapshot.begin_reading();
            let lookup = &snapshot.world.lookup;
            // Entries first: what they lead to is seen if it is visible afterwards.
            let mut entries = [Entry::NONE; MOST_AHEAD];
            let entries = &mut entries[..ids.len()];
            lookup.load(ids, entries);
            let newest = snapshot.sees_newest();
            if newest && entries.iter().all(|entry| entry.is_live()) {
                return (ids.len(), Ok(()));
            }
            for (index, &entry) in entries.iter().enumerate() {
                let id = ids[index];
                let live = match newest {
                    true => entry.is_live(),
                    false => match snapshot.live(id, entry) {
                        Ok(live) => live.is_some(),
                        Err(error) => return (count, Err(error)),
                    },
                };
                ids[count] = id;
                count += usize::from(live);
            }
            return (count, Ok(()));
        };
        for index in 0..ids.len() {
            let id = ids[index];
            let written = within.writes.get(&id);
            let mut found = false;
            if written.is_none() || first.is_none() {
                found = match snapshot.contains(id) {
                    Ok(found) => found,
                    Err(error) => return (count, Err(error)),
                };
            }
            if found {
                first.get_or_insert(id);
            }
            ids[count] = id;
            count += usize::from(written.map_or(found, Option::is_some));
        }
        (count, Ok(()))
    }

    /// [`Scan::push_all`] with the writes of a transaction. Notes in `first` the first record of the
    /// snapshot, seen through them or not.
    fn push_within(
        &self,
        within: &Within,
        ids: &[u32],
        records: &mut Records,
        first: &mut Option<u32>,
    ) -> Result<usize> {
        for (index, &id) in ids.iter().enumerate() {
            let before = records.len();
            let found = match within.writes.get(&id) {
                None => {
                    self.push_all(&[id], records)?;
                    records.len() > before
                }
                Some(written) => {
                    if let Some(value) = written {
                        records.push(own(id, value))?;
                    }
                    first.is_none() && self.snapshot.contains(id)?
                }
            };
            if found && first.is_none() {
                *first = Some(id);
            }
            if records.bytes() >= MOST_BYTES {
                return Ok(index + 1);
            }
        }
        Ok(ids.len())
    }

    /// The next ids in `lower..=upper` that may be live; how many.
    fn candidates(&self, lower: u32, upper: u32, ids: &mut [u32]) -> usize {
        let Some(within) = &self.within else {
            return self
                .snapshot
                .candidates(lower, upper, self.order.reverse, ids);
        };
        let count = self
            .snapshot
            .candidates(lower, upper, self.order.reverse, ids);
        // The writes among them, in order; what doesn't fit any more comes again next time.
        let full = count == ids.len();
        let mut merged: Vec<u32> = ids[..count].to_vec();
        let range = match (full, merged.last()) {
            (true, Some(&last)) if self.order.reverse => (last, upper),
            (true, Some(&last)) => (lower, last),
            _ => (lower, upper),
        };
        let bounds = (Bound::Included(range.0), Bound::Included(range.1));
        let own = within.writes.range(bounds).map(|(&id, _)| id);
        if self.order.reverse {
            merged.extend(own.rev().take(ids.len()));
        } else {
            merged.extend(own.take(ids.len()));
        }
        merged.sort_unstable();
        if self.order.reverse {
            merged.reverse();
        }
        merged.dedup();
        let count = merged.len().min(ids.len());
        ids[..count].copy_from_slice(&merged[..count]);
        count
    }

    /// Adds those of `ids` that are live, until there are bytes enough; how many it looked at.
    fn push_all(&self, ids: &[u32], records: &mut Records) -> Result<usize> {
        let snapshot = &*self.snapshot;
        let _reading = snapshot.begin_reading();
        let world = &snapshot.world;
        let mut entries = [Entry::NONE; MOST_AHEAD];
        world.lookup.load(ids, &mut entries);
        let newest = snapshot.sees_newest();
        let bytes = entries.iter().map(|entry| entry.len_hint()).sum();
        records.reserve(ids.len(), usize::min(bytes, MOST_BYTES))?;
        let nearby = world.log.nearby();
        let prefetch = |entry: Entry| {
            if entry.is_live()
                && let Some(segment) = nearby.segment(entry.location().file)
            {
                segment.prefetch(entry.location(), entry.len_hint());
            }
        };
        entries.iter().take(PREFETCHED).copied().for_each(prefetch);
        for (index, (&entry, &id)) in entries.iter().zip(ids).enumerate() {
            if let Some(&later) = entries.get(index + PREFETCHED) {
                prefetch(later);
            }
            if newest && !entry.is_live() {
                continue;
            }
            let location = entry.location();
            if entry.is_live()
                && let Some(segment) = nearby.segment(location.file)
                && let Some((head, value)) = segment.quick(location, entry.len_hint(), id)
                && snapshot.sees(&head)
                && push_quick(records, segment, location, &head, value)?
            {
                // It is read.
            } else if let Some((location, head)) = snapshot.live(id, entry)?
                && let Some(value) = world.value_if_there(location, &head)?
            {
                records.push(live(&head, &value))?;
            }
            if records.bytes() >= MOST_BYTES {
                return Ok(index + 1);
            }
        }
        Ok(ids.len())
    }
}

/// A record of which only this is known: one of the transaction's own, or of a scan for ids.
fn own(id: u32, value: &[u8]) -> Record<'_> {
    Record {
        id,
        state: State::Live,
        commit: 0,
        time_us: 0,
        value,
    }
}
