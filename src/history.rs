//! Version chains: every version of a record leads to the one before it.

use std::cmp::Ordering;

use crate::db::{Db, World};
use crate::error::{Error, NotFound, Result};
use crate::location::Location;
use crate::log::record::{Head, Kind};
use crate::lookup::Entry;
use crate::records::{Record, Records, State};

/// The versions of one record, newest first, each one's head verified. A deletion by a clear has
/// no record of its own: it comes in its place, at [`Location::NONE`]. An erasure is the last, and so
/// is what one has left of a value: what was before it is overwritten, at any moment.
#[derive(Debug)]
pub(crate) struct Chain<'a> {
    world: &'a World,
    id: u32,
    next: Location,
    /// The version returned last.
    newer: Option<(Location, Head)>,
    /// The version that a clear deleted, when that deletion was returned last.
    cleared: Option<(Location, Head)>,
    /// For the part that herolib wrote: nothing in it says which version is older.
    circle: Circle,
}

/// Brent's cycle detection. The hare goes from place to place; the tortoise waits for it at `tortoise`
/// until it has made `patience` steps, then jumps to it.
#[derive(Debug)]
pub(crate) struct Circle {
    tortoise: Location,
    steps: u64,
    patience: u64,
}

impl Circle {
    pub(crate) fn new() -> Circle {
        Circle {
            tortoise: Location::NONE,
            steps: 0,
            patience: 1,
        }
    }

    /// Whether the hare, which comes to this place next, is known to go in a circle. Some places it may
    /// have come to more than once by then.
    pub(crate) fn is_closed_at(&mut self, location: Location) -> bool {
        if location == self.tortoise {
            return true;
        }
        self.steps += 1;
        if self.steps == self.patience {
            self.tortoise = location;
            self.steps = 0;
            self.patience = self.patience.saturating_mul(2);
        }
        false
    }
}

impl<'a> Chain<'a> {
    pub(crate) fn new(world: &'a World, id: u32, entry: Entry) -> Chain<'a> {
        let next = entry.location();
        Chain {
            world,
            id,
            next,
            newer: None,
            cleared: None,
            circle: Circle::new(),
        }
    }

    /// Whether there is an older version.
    pub(crate) fn has_next(&self) -> bool {
        self.cleared.is_some() || !self.next.is_none()
    }

    /// The next older version.
    pub(crate) fn next(&mut self) -> Result<Option<(Location, Head)>> {
        if let Some(version) = self.cleared.take() {
            return Ok(Some(version));
        }
        if self.next.is_none() {
            return Ok(None);
        }
        let location = self.next;
        let segment = self.world.log.segment_of(location)?;
        let head = segment.head(location, self.id)?;
        // Of ours each version is of an earlier commit; herolib's have none, and may stand anywhere.
        let newer = self.newer.replace((location, head));
        let older = newer.is_none_or(|(_, newer)| head.commit < newer.commit || newer.commit == 0);
        if !older || self.circle.is_closed_at(location) {
            return Err(segment.corrupt(
                u64::from(location.position),
                format!(
                    "the versions of id {} lead in a circle, or to a newer one",
                    self.id
                ),
            ));
        }
        self.next = match head.kind.ends_chain() {
            true => Location::NONE,
            false => head.previous,
        };
        let newer = newer.as_ref().map(|(location, head)| (*location, head));
        if head.kind == Kind::Put
            && let Some(clear) = self.world.clear_between((location, &head), newer)
        {
            self.cleared = Some((location, head));
            let deletion = Head {
                kind: Kind::Delete,
                last: true,
                skips: false,
                id: self.id,
                commit: clear.commit,
                time_us: clear.time_us,
                len: 0,
                crc: 0,
                previous: location,
            };
            return Ok(Some((Location::NONE, deletion)));
        }
        Ok(Some((location, head)))
    }
}

impl Db {
    /// The versions of a record, newest first, deletions included, also of a deleted one; at most
    /// `max` of them, or all with 0. Of an erased record it ends with the erasure. Each value is
    /// checked. Cost: one record read per version.
    pub fn history(&self, id: u32, max: usize) -> Result<Records> {
        let (world, visible) = self.world_for(id)?;
        let mut records = Records::default();
        let mut chain = Chain::new(&world, id, world.lookup.get(id));
        while let Some((location, head)) = chain.next()? {
            if head.commit > visible {
                continue;
            }
            let value = match head.kind {
                Kind::Put => world.value_if_there(location, &head)?,
                _ => None,
            };
            let state = match head.kind {
                Kind::Put if value.is_some() => State::Live,
                Kind::Put | Kind::Erase | Kind::Erased => State::Erased,
                _ => State::Deleted,
            };
            records.push(Record {
                id,
                state,
                commit: head.commit,
                time_us: head.time_us,
                value: value.as_deref().unwrap_or_default(),
            })?;
            if records.len() == max {
                break;
            }
        }
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

    fn version_as_of(
        &self,
        id: u32,
        compare: impl Fn(&Head) -> Ordering,
    ) -> Result<Option<Vec<u8>>> {
        let (world, visible) = self.world_for(id)?;
        let entry = world.lookup.get(id);
        match world.version_as_of(id, entry, visible, compare)? {
            Some((location, head)) if head.kind == Kind::Put => {
                Ok(Some(world.value(location, &head)?.into_owned()))
            }
            _ => Ok(None),
        }
    }
}

impl World {
    /// The newest version that is not after a moment, and not after commit `visible`.
    ///
    /// Versions that herolib wrote have neither commit nor time. They count as older than any of
    /// ours that stands above them in the chain, and as newer than any that stands below.
    pub(crate) fn version_as_of(
        &self,
        id: u32,
        entry: Entry,
        visible: u64,
        compare: impl Fn(&Head) -> Ordering,
    ) -> Result<Option<(Location, Head)>> {
        let mut herolibs = None;
        let mut chain = Chain::new(self, id, entry);
        while let Some((location, head)) = chain.next()? {
            if head.commit > visible {
                continue;
            }
            let order = compare(&head);
            if head.commit == 0 {
                herolibs = herolibs.or(Some((location, head)));
            } else if order == Ordering::Greater {
                herolibs = None;
            } else {
                return Ok(match herolibs {
                    Some(newer) if order == Ordering::Less => Some(newer),
                    _ => Some((location, head)),
                });
            }
        }
        Ok(herolibs)
    }
}
