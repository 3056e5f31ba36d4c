//! Reading current values.

use super::{Db, World};
use crate::error::{Error, NotFound, Result};
use crate::location::Location;
use crate::log::Nearby;
use crate::log::record::Head;
use crate::log::segment::Segment;
use crate::lookup::Entry;
use crate::records::{Record, Records, State};
use crate::storage::Reading;
use crate::sync::atomic::Ordering;

/// [`Db::get_many`] works on so many ids at a time: enough for their cache misses to overlap, few
/// enough that what was prefetched is still there when it is used.
const BATCH: usize = 32;

impl Db {
    /// Calls `f` with the value of a record, where nothing stands in the way: the way of nearly
    /// every read (see [`Segment::quick`]). Can't panic, unless `f` does. [`Db::get_with`] says what
    /// stands in the way otherwise.
    ///
    /// [`Segment::quick`]: crate::log::segment::Segment::quick
    #[inline(always)]
    pub(crate) fn quick<R>(&self, id: u32, f: impl FnOnce(&[u8]) -> R) -> Option<R> {
        let shared = &*self.shared;
        let world = shared.read();
        let entry = world.lookup.get(id);
        if entry.is_deleted() || !shared.is_own_process() || !shared.all_visible(shared.visible()) {
            return None;
        }
        // Where none is known, it leads to no record either.
        let location = entry.location();
        let segment = world.log.segment(location.file)?;
        let (_, value) = segment.quick(location, entry.len_hint(), id)?;
        segment.with_quick(location, value, f)
    }

    /// Calls `f` with the value of a record, which was checked against its CRC, without copying
    /// it. Takes no lock and, where files can be mapped, makes no system call. A compaction ends
    /// when `f` does, if it runs so long.
    pub fn get_with<R>(&self, id: u32, f: impl FnOnce(&[u8]) -> R) -> Result<R> {
        let mut f = Some(f);
        let quick = self.quick(id, |value| f.take().map(|f| f(value)));
        if let Some(answer) = quick.flatten() {
            return Ok(answer);
        }
        let Some(f) = f else {
            unreachable!("it was not called")
        };
        let shared = &*self.shared;
        shared.check_process()?;
        shared.check_id(id)?;
        let world = shared.read();
        let Some(location) = shared.live_location(&world, id)? else {
            return Err(Error::NotFound(NotFound::Record(id)));
        };
        Ok(f(&world.log.segment_of(location)?.live(location, id)?))
    }

    /// The value of a record.
    pub fn get(&self, id: u32) -> Result<Vec<u8>> {
        self.get_with(id, <[u8]>::to_vec)
    }

    /// Whether a record is there. Past the limit of ids none is.
    pub fn contains(&self, id: u32) -> Result<bool> {
        self.shared.check_process()?;
        let world = self.shared.read();
        Ok(self.shared.live_location(&world, id)?.is_some())
    }

    /// The values of many records, in the order asked, all as of one moment. What isn't there is
    /// [`State::Missing`].
    pub fn get_many(&self, ids: &[u32]) -> Result<Records> {
        let mut records = Records::default();
        self.get_many_into(ids, &mut records)?;
        Ok(records)
    }

    /// As [`Db::get_many`], behind what is in `records`.
    pub(crate) fn get_many_into(&self, ids: &[u32], records: &mut Records) -> Result<()> {
        let shared = &*self.shared;
        shared.check_process()?;
        let world = shared.read();
        let visible = shared.visible();
        let nearby = world.log.nearby();
        records.reserve(ids.len(), 0)?;
        for ids in ids.chunks(BATCH) {
            for &id in ids {
                world.lookup.prefetch(id);
            }
            let mut entries = [Entry::NONE; BATCH];
            let mut bytes = 0;
            for (entry, &id) in entries.iter_mut().zip(ids) {
                *entry = world.lookup.get(id);
                if entry.is_live()
                    && let Some(segment) = nearby.segment(entry.location().file)
                {
                    bytes += entry.len_hint();
                    segment.prefetch(entry.location(), entry.len_hint());
                }
            }
            records.reserve(0, bytes)?;
            for (&entry, &id) in entries.iter().zip(ids) {
                self.push_version(&world, &nearby, records, id, entry, visible)?;
            }
        }
        Ok(())
    }

    /// Adds the version of `id` as of commit `visible`, which `entry` leads to.
    fn push_version(
        &self,
        world: &World,
        nearby: &Nearby<'_>,
        records: &mut Records,
        id: u32,
        entry: Entry,
        visible: u64,
    ) -> Result<()> {
        let missing = Record {
            id,
            state: State::Missing,
            commit: 0,
            time_us: 0,
            value: &[],
        };
        if !entry.is_known() || (!entry.is_live() && self.shared.all_visible(visible)) {
            return records.push(missing);
        }
        let location = entry.location();
        if entry.is_live()
            && let Some(segment) = nearby.segment(location.file)
            && let Some((head, value)) = segment.quick(location, entry.len_hint(), id)
            && head.commit <= visible
            && push_quick(records, segment, location, &head, value)?
        {
            return Ok(());
        }
        // A deletion, a commit that isn't part of this moment yet, or something to look closer at.
        let version = world.live_at(id, entry, visible)?;
        let value = match &version {
            Some((location, head)) => world.value_if_there(*location, head)?,
            None => None,
        };
        match (version, value) {
            (Some((_, head)), Some(value)) => records.push(live(&head, &value)),
            _ => records.push(missing),
        }
    }

    /// Live records. O(1).
    pub fn count(&self) -> Result<u64> {
        self.shared.check_process()?;
        Ok(self.shared.counters.live.load(Ordering::Acquire))
    }

    /// The number of the last commit; 0 if there is none yet. Numbers begin with 1.
    pub fn last_commit(&self) -> Result<u64> {
        self.shared.check_process()?;
        Ok(self.shared.visible())
    }

    /// The id that the next insert will get, if no other one comes first.
    pub fn next_id(&self) -> Result<u32> {
        self.shared.check_process()?;
        self.shared.check_incremental("next_id")?;
        self.shared
            .id_from(self.shared.counters.next_id.load(Ordering::Acquire))
    }

    /// Where the versions of `id` are, and up to which commit they are visible.
    pub(crate) fn world_for(&self, id: u32) -> Result<(Reading<'_, World>, u64)> {
        self.shared.check_process()?;
        self.shared.check_id(id)?;
        let world = self.shared.read();
        let visible = self.shared.visible();
        Ok((world, visible))
    }
}

/// Adds what [`Segment::quick`] has found at `location`. `false`, and it isn't there: another process has
/// begun to erase it meanwhile.
#[inline(always)]
pub(super) fn push_quick(
    records: &mut Records,
    segment: &Segment,
    location: Location,
    head: &Head,
    value: &[u8],
) -> Result<bool> {
    records.push(live(head, value))?;
    let is_there = segment.is_there_still(location);
    if !is_there {
        records.pop();
    }
    Ok(is_there)
}

/// A version that holds a value.
#[inline]
pub(super) fn live<'a>(head: &Head, value: &'a [u8]) -> Record<'a> {
    Record {
        id: head.id,
        state: State::Live,
        commit: head.commit,
        time_us: head.time_us,
        value,
    }
}
