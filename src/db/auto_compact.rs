//! Compaction in the background, once enough of the data files is dead.
//!
//! Every now and then a thread looks whether anything was written, and only then walks through the
//! lookup to count what is live, so rarely that this takes a hundredth of its time at most.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::ticker::{Stop, Ticker};
use super::{Shared, World};
use crate::error::{Error, Result};
use crate::log::record::HEAD;
use crate::lookup::Entry;
use crate::options::Options;
use crate::retention::Retention;

/// So long between two looks.
const PAUSE: Duration = Duration::from_millis(250);
/// Or so many times as long as the last one took.
const SHARE: u32 = 100;
/// Fewer bytes of data files are not worth it.
const LEAST: u64 = 256 << 10;
/// After a failure it is tried again after the first of these, then after twice as long each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// Starts the thread that compacts, if the options ask for one.
pub(super) fn compact_when_due(shared: &Arc<Shared>, options: &Options) -> Result<Option<Ticker>> {
    if options.auto_compact_percent == 0 {
        return Ok(None);
    }
    let mut compactor = Compactor {
        percent: u64::from(options.auto_compact_percent),
        retention: Retention {
            keep_versions: options.auto_keep_versions.max(1),
            ..Retention::default()
        },
        seen: None,
        generation: None,
        left: 0,
        pause: FIRST_PAUSE,
    };
    let work = move |shared: &Shared, stop: &Stop| {
        let pause = compactor.look(shared, stop);
        pause.unwrap_or_else(|_| compactor.pause_after_failure())
    };
    Ticker::start("ourdb-compact", shared, PAUSE, work).map(Some)
}

struct Compactor {
    percent: u64,
    retention: Retention,
    /// How many bytes the data files had when it was found that there was nothing to do.
    seen: Option<u64>,
    /// The generation of the data files that were looked at.
    generation: Option<u64>,
    /// How many dead bytes the last compaction has kept, by its retention.
    left: u64,
    /// How long to wait after the next failure.
    pause: Duration,
}

impl Compactor {
    /// Compacts if it is time to; after which time to look again.
    fn look(&mut self, shared: &Shared, stop: &Stop) -> Result<Duration> {
        let begun = Instant::now();
        if shared.check_poison().is_err() {
            return Ok(PAUSE);
        }
        let (is_due, total) = {
            let world = shared.world.load();
            let total = world.log.bytes();
            let unchanged = self.generation == Some(world.log.generation);
            if total < LEAST || (unchanged && self.seen == Some(total)) {
                return Ok(PAUSE);
            }
            (self.is_due(shared, &world, total)?, total)
        };
        self.seen = Some(total);
        let pause = PAUSE.max(begun.elapsed() * SHARE);
        if !is_due {
            return Ok(pause);
        }
        // Until it is done, or there is nothing to do any more.
        self.seen = None;
        let mut go_on = |_, _| match stop.is_asked() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        };
        match shared.compact(&self.retention, &mut go_on) {
            Ok(()) => {
                self.pause = FIRST_PAUSE;
                Ok(pause)
            }
            // The user's own.
            Err(Error::Busy { .. }) => Ok(pause),
            Err(error) => Err(error),
        }
    }

    /// Whether enough is dead of `total` bytes.
    fn is_due(&mut self, shared: &Shared, world: &World, total: u64) -> Result<bool> {
        let dead = total.saturating_sub(shared.bytes_live(world, |_| true)?);
        let generation = world.log.generation;
        if self.generation != Some(generation) {
            // What was written meanwhile is not in it: that came too late to be dropped.
            self.left = match world.kept_dead {
                Some(bytes) => bytes,
                None => self.left_before(shared, world)?,
            };
        }
        self.generation = Some(generation);
        let more = u128::from(dead.saturating_sub(self.left));
        Ok(more * 100 >= u128::from(self.percent) * u128::from(total))
    }

    /// How many bytes a compaction before this opening may have left dead. That is not noted
    /// anywhere; where it kept older versions, all that is dead in its files counts.
    fn left_before(&self, shared: &Shared, world: &World) -> Result<u64> {
        let is_base = |number| world.log.segment(number).is_some_and(|it| !it.is_log());
        if self.retention.keep_versions == 1 {
            // Of the versions alone that it kept no other is newer: deletions.
            let is_kept = |entry: Entry| entry.is_deleted() && is_base(entry.location().file);
            let kept = world.lookup.entries().filter(|&(_, entry)| is_kept(entry));
            return Ok(HEAD as u64 * kept.count() as u64);
        }
        let segments = world.log.segments().filter(|segment| !segment.is_log());
        let total: u64 = segments.map(|segment| segment.view().end()).sum();
        Ok(total.saturating_sub(shared.bytes_live(world, is_base)?))
    }

    /// How long to wait after a failure: a full disk, above all, that has room again some day.
    fn pause_after_failure(&mut self) -> Duration {
        let pause = self.pause;
        self.pause = (2 * pause).min(LONGEST_PAUSE);
        pause
    }
}
