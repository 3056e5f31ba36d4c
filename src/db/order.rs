//! Neighbours: the nearest live id in a direction, across any gap, without a scan.

use super::{Db, Shared, World};
use crate::error::{Error, Neighbour, NotFound, Result};

/// So often a search is tried again, should commits become visible in the midst of it.
const ATTEMPTS: u32 = 4;

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

    fn nearest(&self, which: Neighbour) -> Result<Option<u32>> {
        match which {
            Neighbour::First => self.live_at_or_above(0),
            Neighbour::Last => self.live_at_or_below(u64::from(u32::MAX)),
            Neighbour::Above(id) => self.live_at_or_above(u64::from(id) + 1),
            Neighbour::Below(id) => match u64::from(id).checked_sub(1) {
                Some(from) => self.live_at_or_below(from),
                None => Ok(None),
            },
        }
    }
}

impl Db {
    /// The lowest live id.
    pub fn first(&self) -> Result<u32> {
        self.neighbour(Neighbour::First)
    }

    /// The highest live id.
    pub fn last(&self) -> Result<u32> {
        self.neighbour(Neighbour::Last)
    }

    /// The nearest live id strictly above `id`, which need not be live itself.
    #[inline]
    pub fn above(&self, id: u32) -> Result<u32> {
        self.neighbour(Neighbour::Above(id))
    }

    /// The nearest live id strictly below `id`, which need not be live itself.
    pub fn below(&self, id: u32) -> Result<u32> {
        self.neighbour(Neighbour::Below(id))
    }

    /// The answer is that of one moment: a commit that moves a record from behind the search to before
    /// it is seen as a whole.
    #[inline(always)]
    fn neighbour(&self, which: Neighbour) -> Result<u32> {
        let shared = &*self.shared;
        shared.check_process()?;
        for _ in 0..ATTEMPTS {
            let visible = shared.visible();
            let found = shared.nearest(which)?;
            if shared.visible() == visible {
                return found.ok_or(Error::NotFound(NotFound::Neighbour(which)));
            }
        }
        self.neighbour_in_snapshot(which)
    }

    /// Where commits come quicker than a search ends.
    #[cold]
    fn neighbour_in_snapshot(&self, which: Neighbour) -> Result<u32> {
        let snapshot = self.snapshot()?;
        match which {
            Neighbour::First => snapshot.first(),
            Neighbour::Last => snapshot.last(),
            Neighbour::Above(id) => snapshot.above(id),
            Neighbour::Below(id) => snapshot.below(id),
        }
    }
}
