//! A difference of states: what is left of the commits after some commit, where versions were
//! dropped since, by a compaction here or before they came here.
//!
//! It leads to one commit, its goal, from which on every version is there again. Whoever has been
//! given all of what is left up to then, and deletes what isn't live then, has the same values:
//! nobody drops the newest version of a live record, so that those of a part are there whoever gave
//! it, and deletions are made up for at the end.

use std::sync::Arc;

use super::chunk::{Change, Draft, Goal};
use super::log_ends_early;
use crate::bytes::{collected, reserve};
use crate::db::{Db, Extent, World};
use crate::error::Result;
use crate::log::commits::{CommitEnd, Commits};
use crate::log::kept::{self, Live, Version};
use crate::log::record::{Head, Kind};
use crate::manifest::FileKind;

/// The commit that a difference for who has commit `since` leads to; `None` if all commits after
/// that are in the log, as they were made.
pub(super) fn goal(extent: &Extent, since: u64) -> Option<u64> {
    let world = &extent.world;
    let goal = world.base().commit.max(world.oldest());
    (since < goal).then_some(goal)
}

/// A part of the difference that leads from commit `since` to commit `goal`, and the commit that it
/// ends with; no bytes if none is left, up to what is visible, before the goal.
pub(super) fn part(
    db: &Db,
    extent: &Extent,
    since: u64,
    goal: u64,
    max_bytes: usize,
) -> Result<(Vec<u8>, u64)> {
    let world = &extent.world;
    let base = world.base();
    let mut kept = Arc::default();
    if since < base.commit {
        kept = world.kept.versions(|| versions(db, extent))?;
        if kept.first().is_some_and(|version| version.commit == 0) {
            return Err(super::not_in_the_log(since, base.commit));
        }
    }
    let mut source = Source::new(db, extent, &kept, since, goal)?;
    let since_time_us = source.time_of(since)?;
    source.time_us = source.time_us.max(since_time_us);
    let next_id = extent.visible_next_id;
    let mut draft = Draft::of_difference(since, since_time_us, next_id, goal)?;
    let mut end = None;
    let is_end = loop {
        let head = source.next(|head, value| {
            // What it stands for, the goal does by itself.
            if head.kind == Kind::Empty {
                return Ok(());
            }
            let change = Change {
                kind: head.kind,
                id: head.id,
                value,
            };
            draft.push(head.commit, head.time_us, change)
        })?;
        let Some(head) = head else {
            break goal <= extent.visible;
        };
        if head.kind == Kind::Empty {
            continue;
        }
        if head.last && head.commit == goal {
            break true;
        }
        if (draft.len() > max_bytes || !draft.has_room()) && draft.has_commit() {
            break false;
        }
        if head.last {
            draft.end_commit();
            end = source.log_end();
        }
    };
    if is_end {
        let find = || live(db, world, goal);
        // Of erasures that another process makes nothing is known here before a refresh, but what was
        // given out tells of them.
        let live = match db.is_read_only() {
            true => Arc::new(find()?),
            false => world.kept.live(goal, extent.erasures, find)?,
        };
        if !draft.has_commit() || draft.len_with(&live.ids) <= max_bytes {
            let known = if goal == base.commit { base.time_us } else { 0 };
            draft.end_difference(Goal {
                commit: goal,
                time_us: known.max(source.time_us),
                live: &live,
            })?;
            end = source.log_end();
        }
    }
    if let Some(end) = end {
        world.log.ends.note(end);
    }
    if draft.upto() == since {
        return Ok((Vec::new(), since));
    }
    let upto = draft.upto();
    Ok((draft.finish()?, upto))
}

/// The versions before the log.
fn versions(db: &Db, extent: &Extent) -> Result<Vec<Version>> {
    let mut versions = Vec::new();
    for part in &extent.parts {
        if part.kind == FileKind::Compacted {
            kept::add_versions(&part.segment, &mut versions, |read| {
                db.unchanged(|_| read())
            })?;
        }
    }
    Ok(versions)
}

/// What is live as of a commit. What was erased since is none of it.
fn live(db: &Db, world: &World, commit: u64) -> Result<Live> {
    let mut live = Live::default();
    for (id, _) in world.lookup.entries() {
        let found = db.unchanged(|_| world.live_at(id, world.lookup.get(id), commit))?;
        let Some((_, head)) = found else {
            continue;
        };
        live.digest.add(id, head.commit, head.time_us);
        match live.ids.last_mut() {
            Some(last) if last.end().checked_add(1) == Some(id) => *last = *last.start()..=id,
            _ => {
                reserve(&mut live.ids, 1)?;
                live.ids.push(id..=id);
            }
        }
    }
    Ok(live)
}

/// What is left, record by record: first the versions before the log, then the log.
struct Source<'a> {
    db: &'a Db,
    extent: &'a Extent,
    /// All versions before the log.
    kept: &'a [Version],
    /// Of those, the next one.
    next: usize,
    log: Option<Commits<'a>>,
    /// Nothing after this commit.
    until: u64,
    /// Time of the last record, or of the last commit before them that is known.
    time_us: u64,
}

impl<'a> Source<'a> {
    fn new(
        db: &'a Db,
        extent: &'a Extent,
        kept: &'a [Version],
        since: u64,
        goal: u64,
    ) -> Result<Source<'a>> {
        let world = &extent.world;
        let base = world.base();
        let until = goal.min(extent.visible);
        let from = since.max(base.commit);
        let log = match until > base.commit {
            true => Some(Commits::after(
                &world.log,
                collected(extent.log_parts())?,
                from,
            )?),
            false => None,
        };
        let last = log.as_ref().filter(|_| since > base.commit);
        Ok(Source {
            db,
            extent,
            kept,
            next: kept.partition_point(|version| version.commit <= since),
            until,
            time_us: last.map_or(0, |log| log.last().time_us),
            log,
        })
    }

    /// The time of a commit at which nothing was read yet, if anything of it is left; 0 otherwise.
    fn time_of(&self, since: u64) -> Result<u64> {
        let base = self.extent.world.base();
        if since == base.commit {
            return Ok(base.time_us);
        }
        if let Some(log) = self.log.as_ref().filter(|log| log.last().commit == since) {
            return Ok(log.last().time_us);
        }
        let before = self.next.checked_sub(1).map(|index| self.kept[index]);
        match before.filter(|version| version.commit == since) {
            Some(version) => Ok(self.db.unchanged(|_| self.head(&version))?.time_us),
            None => Ok(0),
        }
    }

    fn head(&self, version: &Version) -> Result<Head> {
        let log = &self.extent.world.log;
        log.segment_of(version.place.location())?
            .head_at(version.place.position)
    }

    /// Calls `f` with the next record and its value, verified in every respect; its head. `None`
    /// where no more are left.
    fn next(&mut self, f: impl FnOnce(&Head, &[u8]) -> Result<()>) -> Result<Option<Head>> {
        let Some(version) = self.kept.get(self.next).copied() else {
            return self.next_in_log(f);
        };
        self.next += 1;
        let next = self.kept.get(self.next);
        let last = next.is_none_or(|next| next.commit != version.commit);
        let world = &self.extent.world;
        let head = self.db.unchanged(|_| {
            let mut head = Head {
                last,
                ..self.head(&version)?
            };
            let value = match head.kind {
                Kind::Put => world.value_if_there(version.place.location(), &head)?,
                _ => None,
            };
            if head.kind == Kind::Put && value.is_none() {
                head.kind = Kind::Erased;
            }
            f(&head, value.as_deref().unwrap_or_default())?;
            Ok(head)
        })?;
        self.time_us = head.time_us;
        Ok(Some(head))
    }

    fn next_in_log(&mut self, f: impl FnOnce(&Head, &[u8]) -> Result<()>) -> Result<Option<Head>> {
        let Some(log) = &mut self.log else {
            return Ok(None);
        };
        if log.last().commit >= self.until {
            return Ok(None);
        }
        let last = log.last();
        let Some((head, value)) = log.next()? else {
            return Err(log_ends_early(self.db, self.extent, last.commit));
        };
        // Only where the goal itself is not in the log.
        if head.commit > self.until {
            return Ok(None);
        }
        f(&head, value)?;
        self.time_us = head.time_us;
        Ok(Some(head))
    }

    /// Where the last commit that was read ends, if that is in the log.
    fn log_end(&self) -> Option<CommitEnd> {
        let log = self.log.as_ref()?;
        let base = self.extent.world.base();
        Some(log.last()).filter(|end| end.commit > base.commit && self.next == self.kept.len())
    }
}
