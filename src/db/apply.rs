//! Applying the commits of another database, with their numbers and times.
//!
//! In a difference of states commits are left out. While one is applied this database is between two
//! states; that it is, and which commit ends it, is noted durably before the first one is written:
//! it is the commit from which on every version is kept, and there it isn't yet.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use super::erase::Unreadable;
use super::write::{Stamp, Writer};
use super::{Db, Shared};
use crate::bytes::{collected, reserve};
use crate::changes::chunk::{Chunk, Commit, Difference, damaged};
use crate::error::{Error, Result};
use crate::hash::SetDigest;
use crate::location::Location;
use crate::log::commits::Commits;
use crate::log::kept::Live;
use crate::log::record::{HEAD, Kind};
use crate::log::tail::{NewRecord, check_commit_len};
use crate::manifest::MOST_LISTED_CLEARS;
use crate::planted::planted;

/// That a commit of a chunk puts or deletes an id.
struct Touch {
    id: u32,
    /// Which commit of the chunk.
    commit: u32,
    kind: Kind,
}

impl Db {
    /// Refuses changes where nothing may be written.
    pub(crate) fn check_appliable(&self, nothing: bool) -> Result<()> {
        if nothing {
            self.shared.check_process()
        } else {
            self.shared.check_writable("apply")
        }
    }

    /// Appends the commits of a chunk that are not here yet.
    pub(crate) fn apply_chunk(&self, chunk: &Chunk<'_>) -> Result<()> {
        let shared = &*self.shared;
        let upto = chunk.header.upto;
        let is_here = upto <= shared.writer().commit;
        if is_here || !self.apply_new(chunk)? {
            self.check_known(chunk)?;
        }
        shared.finish(upto)
    }

    /// Appends them; `false` where all are here already.
    fn apply_new(&self, chunk: &Chunk<'_>) -> Result<bool> {
        let shared = &*self.shared;
        let erases = chunk.erases_after(shared.writer().commit);
        let _turn = match erases {
            true => Some(shared.turn_to_erase()?),
            false => None,
        };
        let (commit, unreadable, appended) = {
            let mut writer = shared.writer_to_commit();
            if chunk.header.upto <= writer.commit {
                return Ok(false);
            }
            let new = shared.new_commits(&writer, chunk)?;
            self.check_own_base(&writer, chunk)?;
            shared.check_between_states(&writer, chunk)?;
            let next_id = shared.check_changes(&writer, chunk, new)?;
            let gone = shared.check_end(chunk, new)?;
            let difference = chunk.difference.as_ref();
            let difference = difference.filter(|_| !planted!(difference_not_noted));
            let goal = difference.map_or(0, |it| it.goal);
            shared.raise(&mut writer, chunk.header.next_id, next_id, goal)?;
            let mut unreadable = shared.unreadable();
            let appended = shared
                .append_commits(&mut writer, chunk, new, &mut unreadable)
                .and_then(|()| match gone {
                    Some(gone) => {
                        shared.append_end(&mut writer, chunk, new, &gone, &mut unreadable)
                    }
                    None => Ok(()),
                });
            (writer.commit, unreadable, appended)
        };
        // Also of those that came before a failure.
        if !unreadable.is_empty() && !planted!(applied_erasures_not_finished) {
            shared.finish_erasing(commit, unreadable)?;
        }
        appended?;
        Ok(true)
    }

    /// Refuses a chunk of another database, all commits of which have numbers that are here
    /// already.
    fn check_known(&self, chunk: &Chunk<'_>) -> Result<()> {
        let extent = self.extent()?;
        let upto = chunk.header.upto;
        if upto < extent.first_commit()? {
            // It lies in what the log builds upon, which has no times.
            return Ok(());
        }
        let log = &extent.world.log;
        let commits = Commits::after(log, collected(extent.log_parts())?, upto)?;
        let last = commits.last();
        if last.commit != upto {
            // It was left out.
            return Ok(());
        }
        log.ends.note(last);
        check_time(upto, time_in(chunk, upto), last.time_us)
    }

    /// Refuses changes for a database that holds versions which no commit number stands for.
    fn check_own_base(&self, writer: &Writer, chunk: &Chunk<'_>) -> Result<()> {
        let is_taken_over = writer.manifest.base.is_some();
        // Of what a compaction has kept of that nothing says so any more, but that there is no commit. A
        // sender that builds upon the same gives out a difference of states, which a backup of it takes.
        let is_begun = self.shared.read().oldest() > writer.commit;
        let may_go_on = chunk.difference.is_some() && (writer.manifest.backup || is_begun);
        if !is_taken_over && (writer.commit != 0 || may_go_on) {
            return Ok(());
        }
        let extent = self.extent_with(writer)?;
        if !extent.has_base() || extent.first_commit()? <= writer.commit {
            return Ok(());
        }
        Err(Error::incompatible(
            "this database was taken over from herolib and has no commit since: what it holds is \
             not what the changes build upon",
        ))
    }
}

impl Shared {
    /// The commits of a chunk that come after the last one here, if they go on from it.
    fn new_commits<'c>(&self, writer: &Writer, chunk: &'c Chunk<'_>) -> Result<&'c [Commit]> {
        let last = writer.commit;
        let since = chunk.header.since;
        if since > last && !planted!(since_not_checked) {
            return Err(Error::incompatible(format!(
                "the changes go on from commit {since}, and this database ends with commit {last}: \
                 ask for those after commit {last}"
            )));
        }
        check_time(last, time_in(chunk, last), writer.time_us)?;
        let known = chunk.commits.partition_point(|one| one.commit <= last);
        let new = &chunk.commits[known..];
        if let Some(difference) = &chunk.difference {
            // The last one here may be one that is left out there.
            let next = new
                .first()
                .map_or(difference.upto_time_us, |one| one.time_us);
            if next < writer.time_us {
                return Err(Error::incompatible(format!(
                    "these changes are of another database: what comes after commit {last}, which \
                     is of {} microseconds since the Unix epoch, is of {next} there",
                    writer.time_us
                )));
            }
        }
        Ok(new)
    }

    /// Refuses in the middle of a difference what doesn't lead to its end.
    fn check_between_states(&self, writer: &Writer, chunk: &Chunk<'_>) -> Result<()> {
        let end = self.read().oldest();
        let leads_there = |difference: &Difference| difference.goal >= end;
        if end <= writer.commit || chunk.difference.as_ref().is_some_and(leads_there) {
            return Ok(());
        }
        Err(Error::incompatible(format!(
            "this database has a part of a difference that leads to commit {end}, and these changes \
             are not the next part: ask the database that gave it, or one that was compacted later, \
             for those after commit {}",
            writer.commit
        )))
    }

    /// Refuses commits that can't all be applied; one more than the highest id in them.
    fn check_changes(&self, writer: &Writer, chunk: &Chunk<'_>, new: &[Commit]) -> Result<u64> {
        let mut touches = Vec::new();
        for (index, commit) in new.iter().enumerate() {
            let mut len = 0;
            for change in chunk.changes(commit) {
                self.check_id(change.id)?;
                self.check_len(change.value.len() as u64)?;
                len += (HEAD + change.value.len()) as u64;
                reserve(&mut touches, 1)?;
                touches.push(Touch {
                    id: change.id,
                    commit: index as u32,
                    kind: change.kind,
                });
            }
            check_commit_len(len)?;
        }
        // A clear, of id 0, is of no record.
        let clears = touches.iter().filter(|touch| touch.kind == Kind::Clear);
        let clears = collected(clears.map(|touch| touch.commit))?;
        touches.retain(|touch| touch.kind != Kind::Clear);
        let is_cleared = |after: Option<u32>, before: u32| {
            let next = clears.partition_point(|&clear| after.is_some_and(|after| clear < after));
            clears.get(next).is_some_and(|&clear| clear < before)
        };
        // A difference leaves out what came before, and its end deletes what was live then and has been
        // erased since: commits after it delete that once more.
        let may_be_dead = chunk.difference.is_some() || self.read().oldest() != 0;
        touches.sort_unstable_by_key(|touch| (touch.id, touch.commit));
        let mut before: Option<&Touch> = None;
        for touch in &touches {
            let id = touch.id;
            let commit = new[touch.commit as usize].commit;
            let same = before.filter(|before| before.id == id);
            if same.is_some_and(|before| before.commit == touch.commit) {
                return Err(damaged(0, format!("commit {commit} has id {id} twice")));
            }
            let live = match same {
                _ if is_cleared(same.map(|before| before.commit), touch.commit) => false,
                Some(before) => matches!(before.kind, Kind::Put | Kind::Erased),
                None => self.may_be_live(id)?,
            };
            if touch.kind == Kind::Delete && !live && !may_be_dead {
                return Err(Error::incompatible(format!(
                    "commit {commit} of the changes deletes id {id}, which is not live by then"
                )));
            }
            before = Some(touch);
        }
        let next_id = chunk.header.next_id;
        if next_id > u64::from(self.limits.record_nr_max) {
            return Err(Error::IdOutOfRange {
                id: (next_id - 1) as u32,
                limit: self.limits.record_nr_max,
            });
        }
        let highest = before.map_or(0, |touch| u64::from(touch.id) + 1);
        Ok(highest.max(writer.next_id))
    }

    /// Whether a record is live, or was until its erasure, of which the newest version tells already.
    fn may_be_live(&self, id: u32) -> Result<bool> {
        let world = self.read();
        let entry = world.lookup.get(id);
        if entry.is_live() || !entry.is_known() {
            return Ok(entry.is_live());
        }
        let location = entry.location();
        let head = world.log.segment_of(location)?.head(location, id)?;
        Ok(head.kind == Kind::Erased)
    }

    /// The ids that are live until the end of a difference and deleted by it, ascending; `None` if
    /// these changes don't end with that. Refused if what is live then are other versions than the
    /// sender's.
    fn check_end(&self, chunk: &Chunk<'_>, new: &[Commit]) -> Result<Option<Vec<u32>>> {
        let live = chunk.difference.as_ref().and_then(|it| it.live.as_ref());
        let Some(Live { ids, digest }) = live else {
            return Ok(None);
        };
        // What these changes make of an id: the commit that leaves it live, if one does, or erased: the
        // sender need not have the erasure yet, if it came from another one.
        let mut changed = BTreeMap::new();
        let mut cleared = false;
        let mut len = 0;
        for commit in new {
            for change in chunk.changes(commit) {
                if change.kind == Kind::Clear {
                    cleared = true;
                    changed.clear();
                } else {
                    let kind = change.kind;
                    let is_put = matches!(kind, Kind::Put | Kind::Erased);
                    changed.insert(change.id, is_put.then_some((kind, commit)));
                }
                if commit.commit == chunk.header.upto {
                    len += (HEAD + change.value.len()) as u64;
                }
            }
        }
        let mut gone = Vec::new();
        let mut found = SetDigest::default();
        let world = self.read();
        for (id, entry) in world.lookup.entries() {
            if cleared || changed.contains_key(&id) {
                continue;
            }
            if is_in(ids, id) {
                let location = entry.location();
                let head = world.log.segment_of(location)?.head(location, id)?;
                if entry.is_live() || head.kind == Kind::Erased {
                    found.add(id, head.commit, head.time_us);
                }
            } else if entry.is_live() {
                reserve(&mut gone, 1)?;
                gone.push(id);
            }
        }
        for (&id, put) in &changed {
            let Some((kind, commit)) = put else { continue };
            if is_in(ids, id) {
                found.add(id, commit.commit, commit.time_us);
            } else if *kind == Kind::Put && commit.commit != chunk.header.upto {
                // What the last commit says stands.
                gone.push(id);
            }
        }
        if found != *digest {
            return Err(Error::incompatible(format!(
                "with these changes this database would not have the versions that the other one had \
                 with commit {}: it has commits of its own, or they are another database's, or it was \
                 given an erasure by a third one that this one doesn't have yet",
                chunk.header.upto
            )));
        }
        gone.sort_unstable();
        check_commit_len(len + (HEAD * gone.len()) as u64)?;
        Ok(Some(gone))
    }

    /// Takes over the sender's next id, where it is above `proven`, which follows from the ids that
    /// are in the log by the end of the changes; and the commit up to which versions are going to be
    /// missing. Only the manifest keeps both then.
    fn raise(&self, writer: &mut Writer, next_id: u64, proven: u64, oldest: u64) -> Result<()> {
        let next_id = match next_id > proven {
            true => next_id,
            false => writer.next_id,
        };
        let world = self.read();
        if next_id == writer.next_id && oldest <= world.oldest() {
            return Ok(());
        }
        self.prepare(writer)?;
        self.write_manifest(writer, |manifest| {
            manifest.next_id = next_id.max(manifest.next_id);
            manifest.oldest = oldest.max(world.oldest());
        })?;
        writer.next_id = next_id;
        world.raise_oldest(oldest);
        Ok(())
    }

    /// Appends whole commits. The one that a difference ends with is not among them.
    fn append_commits(
        &self,
        writer: &mut Writer,
        chunk: &Chunk<'_>,
        commits: &[Commit],
        unreadable: &mut Unreadable,
    ) -> Result<()> {
        let end = chunk.difference.as_ref().map(|difference| difference.goal);
        let mut records = Vec::new();
        for commit in commits.iter().filter(|one| Some(one.commit) != end) {
            records.clear();
            self.add_records(chunk, commit, &mut records)?;
            let stamp = Stamp {
                commit: commit.commit,
                time_us: commit.time_us,
            };
            self.append_one(writer, &records, stamp, unreadable)?;
        }
        Ok(())
    }

    fn append_one(
        &self,
        writer: &mut Writer,
        records: &[NewRecord<'_>],
        stamp: Stamp,
        unreadable: &mut Unreadable,
    ) -> Result<()> {
        let before = unreadable.len();
        let mut ends = records.iter().filter(|one| one.kind.ends_chain());
        let added = ends.try_for_each(|one| unreadable.add(one, stamp.commit));
        // Another attempt at it has the same time: what this one may leave is of the same commit.
        let stamp = match planted!(applied_at_another_time) {
            true => self.next_stamp(writer)?,
            false => stamp,
        };
        let added = added.and_then(|()| self.append(&self.read(), writer, records, stamp));
        if let Err(error) = added {
            // What is not in the log is not erased, though others of the same changes are.
            unreadable.truncate(before);
            return Err(error);
        }
        for &(id, commit) in unreadable.erased_since(before) {
            self.hide_erased(id, commit, unreadable);
        }
        Ok(())
    }

    fn add_records<'c>(
        &self,
        chunk: &Chunk<'c>,
        commit: &Commit,
        records: &mut Vec<NewRecord<'c>>,
    ) -> Result<()> {
        let changes = chunk.changes(commit);
        reserve(records, changes.len())?;
        for change in changes {
            records.push(match change.kind {
                Kind::Clear if self.read().clears().len() >= MOST_LISTED_CLEARS => {
                    let what = "the manifest lists no more clears; compact this database";
                    return Err(Error::Full(what.into()));
                }
                Kind::Clear => NewRecord::CLEAR,
                kind => NewRecord {
                    kind,
                    id: change.id,
                    previous: self.newest(change.id),
                    value: change.value,
                },
            });
        }
        Ok(())
    }

    fn newest(&self, id: u32) -> Location {
        self.read().lookup.get(id).location()
    }

    /// Appends the commit that a difference ends with: what is left of it, and the deletions of what
    /// is gone by then.
    fn append_end(
        &self,
        writer: &mut Writer,
        chunk: &Chunk<'_>,
        new: &[Commit],
        gone: &[u32],
        unreadable: &mut Unreadable,
    ) -> Result<()> {
        let (Some(difference), upto) = (&chunk.difference, chunk.header.upto) else {
            return Ok(());
        };
        let mut records = Vec::new();
        if let Some(commit) = new.last().filter(|last| last.commit == upto) {
            self.add_records(chunk, commit, &mut records)?;
        }
        reserve(&mut records, gone.len() + 1)?;
        let gone = if planted!(gone_not_deleted) {
            &[]
        } else {
            gone
        };
        records.extend(gone.iter().map(|&id| NewRecord {
            kind: Kind::Delete,
            id,
            previous: self.newest(id),
            value: &[],
        }));
        if records.is_empty() {
            records.push(NewRecord::EMPTY);
        }
        let stamp = Stamp {
            commit: upto,
            time_us: difference.upto_time_us,
        };
        self.append_one(writer, &records, stamp, unreadable)
    }
}

/// Whether an id is in one of some ranges, which ascend.
fn is_in(ranges: &[RangeInclusive<u32>], id: u32) -> bool {
    let index = ranges.partition_point(|range| *range.end() < id);
    ranges.get(index).is_some_and(|range| range.contains(&id))
}

/// The time that a chunk gives for a commit, which is one of its own or the one before them. In a
/// difference it may not be known, or left out.
fn time_in(chunk: &Chunk<'_>, commit: u64) -> Option<u64> {
    let header = &chunk.header;
    if commit == header.since {
        let is_known = chunk.difference.is_none() || header.since_time_us != 0;
        return is_known.then_some(header.since_time_us);
    }
    if let Some(difference) = chunk.difference.as_ref().filter(|_| commit == header.upto) {
        return Some(difference.upto_time_us);
    }
    let commits = &chunk.commits;
    let found = commits.binary_search_by_key(&commit, |one| one.commit);
    found.ok().map(|index| commits[index].time_us)
}

/// Two databases that have the same commit made it at the same time.
fn check_time(commit: u64, theirs: Option<u64>, ours: u64) -> Result<()> {
    let Some(theirs) = theirs.filter(|&theirs| theirs != ours && commit != 0) else {
        return Ok(());
    };
    Err(Error::incompatible(format!(
        "these changes are of another database: commit {commit} was made at {theirs} microseconds \
         since the Unix epoch there, and at {ours} here"
    )))
}
