//! Neighbours: the nearest live id in a direction, across any gap, without a scan.

use super::{Db, Shared, World};
use crate::error::{Error, Neighbour, NotFound, Result};

impl Shared {
    /// Of the ids that the lookup knows as perhaps live, the nearest one that readers see live.
    fn nearest_live(
        &self,
        world: &World,
        mut candidate: Option<u32>,
        next: impl Fn(u32) -> Option<u32>,
    ) -> Result<Option<u32>> {
        while let Some(id) = candidate {
            if self.live_location(world, id)?.is_some() {
                break;
            }
            candidate = next(id);
        }
        Ok(candidate)
    }

    fn live_at_or_above(&self, from: u64) -> Result<Option<u32>> {
        let world = self.read();
        let lookup = &world.lookup;
        let next = |id: u32| lookup.at_or_above(u64::from(id) + 1);
        self.nearest_live(&world, lookup.at_or_above(from), next)
    }

    fn live_at_or_below(&self, from: u64) -> Result<Option<u32>> {
        let world = self.read();
        let lookup = &world.lookup;
        let next = |id: u32| lookup.at_or_below(u64::from(id).checked_sub(1)?);
        self.nearest_live(&world, lookup.at_or_below(from), next)
    }
}

impl Db {
    /// The lowest live id.
    pub fn first(&self) -> Result<u32> {
        self.shared.check_process()?;
        self.shared
            .live_at_or_above(0)?
            .ok_or(none(Neighbour::First))
    }

    /// The highest live id.
    pub fn last(&self) -> Result<u32> {
        self.shared.check_process()?;
        self.shared
            .live_at_or_below(u64::from(u32::MAX))?
            .ok_or(none(Neighbour::Last))
    }

    /// The nearest live id strictly above `id`, which need not be live itself.
    #[inline]
    pub fn above(&self, id: u32) -> Result<u32> {
        self.shared.check_process()?;
        self.shared
            .live_at_or_above(u64::from(id) + 1)?
            .ok_or(none(Neighbour::Above(id)))
    }

    /// The nearest live id strictly below `id`, which need not be live itself.
    pub fn below(&self, id: u32) -> Result<u32> {
        self.shared.check_process()?;
        let found = match u64::from(id).checked_sub(1) {
            Some(from) => self.shared.live_at_or_below(from)?,
            None => None,
        };
        found.ok_or(none(Neighbour::Below(id)))
    }
}

fn none(direction: Neighbour) -> Error {
    Error::NotFound(NotFound::Neighbour(direction))
}
