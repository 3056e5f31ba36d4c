//! Changes: commits given out by one database and applied by another, which so becomes its copy,
//! with every version, commit number and time.
//!
//! `chunk` knows the bytes on their way, `log::commits` reads them out of the log, `db::apply`
//! writes them. Where the log doesn't tell any more what was committed, `difference` tells what is
//! left of it.

pub(crate) mod chunk;
mod difference;

use crate::bytes::collected;
use crate::db::{Db, Extent, superseded};
use crate::error::{Error, Result};
use crate::log::commits::Commits;
use crate::manifest::FileKind;
use chunk::{Change, Chunk, Draft};

impl Db {
    /// The commits after commit `since` as bytes for [`Db::apply`], and the number of the last one
    /// of them. Whole commits in order, as many as fit into `max_bytes`; the first one even if it
    /// is longer. Where there are none, nothing, and `since`; also if `since` is later than the
    /// last commit, as it may be for a read-only handle, which sees the moment of its opening.
    ///
    /// Only what readers see is given out: with [`Sync::Commit`](crate::Sync::Commit) nothing that
    /// a loss of power could take back.
    ///
    /// After a compaction the commits before it are not all there any more. Who asks for them gets a
    /// difference of states: the versions that were kept of them, with their commits and times, and
    /// with the last part the ids that are live as of the compaction; every other one is deleted by
    /// it. Who has applied all of it has the same values, and gets changes as before from there on.
    /// The same goes for a database that has applied a difference, for what was left out of it.
    ///
    /// A database that was taken over from herolib has versions without a commit. Before its first
    /// own commit there are no changes to give, nor, once it is compacted, from before that; that is
    /// [`Error::Incompatible`]: copy the directory, then go on from there. [`Error::Busy`]: the files that
    /// a read-only handle knows went with a compaction of the writer's; refresh it.
    ///
    /// Any number of threads may call it, beside readers and the writer. Cost: reads the data
    /// files from where the last calls ended, else from the beginning of the one that commit
    /// `since` is in; memory for the answer and the longest value. The first part of a difference
    /// reads the heads of all versions that were kept, and the last one walks over all ids; both once
    /// for all who ask. Until the next compaction, or the end of the handle, that takes 16 bytes of
    /// memory for each of those versions, and 8 for each range of live ids.
    pub fn changes(&self, since: u64, max_bytes: usize) -> Result<(Vec<u8>, u64)> {
        // Who comes back for more and there isn't any: the most frequent call.
        if since == self.last_commit()? && self.world().log.ends.has(since) {
            return Ok((Vec::new(), since));
        }
        // Another thread may refresh the handle meanwhile.
        let world = self.world();
        // What an erasure overwrites meanwhile may be read half before and half after it.
        let before = self.unchanged(|overwritten| overwritten);
        let is_damaged = |given: &Result<_>| matches!(given, Err(Error::Corrupt { .. }));
        let given = self.beside_erasures(is_damaged, || self.commits_after(since, max_bytes));
        let is_lost = matches!(given, Err(Error::Io { .. } | Error::Corrupt { .. }));
        if is_lost && self.is_superseded(&world) {
            return Err(superseded());
        }
        if self.unchanged(|overwritten| overwritten) == before {
            return given;
        }
        let _no_erasure = self.without_erasures()?;
        self.commits_after(since, max_bytes)
    }

    fn commits_after(&self, since: u64, max_bytes: usize) -> Result<(Vec<u8>, u64)> {
        let extent = self.extent()?;
        let log = &extent.world.log;
        check_since(&extent, since)?;
        if since >= extent.visible {
            return Ok((Vec::new(), since));
        }
        let goal = difference::goal(&extent, since);
        if self.salvages() {
            // Who applies it would delete what is missing.
            if goal.is_some() {
                return Err(Error::incompatible(
                    "a database that was opened to salvage what can be read gives out no difference of \
                     states, which would lack the rest",
                ));
            }
            // From there on the log says itself whether it is whole.
            if since.saturating_add(1) < extent.first_commit()? {
                extent.check_complete(self.storage())?;
            }
        }
        if let Some(goal) = goal {
            return difference::part(self, &extent, since, goal, max_bytes);
        }
        let mut commits = Commits::after(log, collected(extent.log_parts())?, since)?;
        let mut end = commits.last();
        let base = extent.world.base();
        let since_time_us = match since == base.commit {
            true => base.time_us,
            false => end.time_us,
        };
        let mut draft = Draft::new(since, since_time_us, extent.visible_next_id)?;
        while end.commit < extent.visible && draft.has_room() {
            let Some((head, value)) = commits.next()? else {
                return Err(log_ends_early(self, &extent, end.commit));
            };
            let change = Change {
                kind: head.kind,
                id: head.id,
                value,
            };
            draft.push(head.commit, head.time_us, change)?;
            if draft.len() > max_bytes && draft.has_commit() {
                break;
            }
            if head.last {
                draft.end_commit();
                end = commits.last();
            }
        }
        log.ends.note(end);
        Ok((draft.finish()?, end.commit))
    }

    /// Applies what [`Db::changes`] of another database gave out, in order: its commits are written
    /// here with their numbers and times. Each is applied as a whole or not at all; those that are
    /// here already are passed over, so that applying twice changes nothing. No bytes are no
    /// changes. Ask for the next ones with `since` = [`Db::last_commit`].
    ///
    /// A difference of states leaves commits out. Afterwards records have the versions that the
    /// sender has kept, and those that were here before; what the sender has dropped is deleted with
    /// the commit that the difference leads to. In the middle of it the values are of no single
    /// moment, and only what leads on to its end is taken: from the database that gave the part
    /// before, or from one that was compacted later. [`Stats::oldest_commit`](crate::Stats) is that
    /// commit from the first part on: beyond the last commit for as long as it isn't over.
    ///
    /// All bytes are checked before the first commit is applied. [`Error::Corrupt`]: they are
    /// damaged. [`Error::Incompatible`]: commits are missing between the last one here and the first
    /// one of the changes, or they are another database's, or not the next part of the difference
    /// that was begun, or of a kind that this library doesn't know. [`Error::IdOutOfRange`],
    /// [`Error::RecordTooLarge`]: an id or a value is past the limits of this database. Mode doesn't
    /// matter: any id may be put, also in an incremental database.
    ///
    /// After another error, as a full disk, the commits before the one that failed are applied, and
    /// the same changes may be applied again. With [`Sync::Commit`](crate::Sync::Commit) all is on
    /// disk when it returns, with one sync. Other writers wait meanwhile, readers don't. A database
    /// that changes are applied to should have no other writer: what it commits by itself takes a
    /// number, and the next changes don't fit.
    ///
    /// Cost: as writing the records; 36 bytes of memory for each of them. The last part of a difference
    /// reads the heads of all live records, while nobody else writes; it takes some 40 bytes of memory more
    /// for each record that is in it, and 4 for each that it deletes.
    pub fn apply(&self, changes: &[u8]) -> Result<()> {
        self.check_appliable(changes.is_empty())?;
        if changes.is_empty() {
            return Ok(());
        }
        self.apply_chunk(&Chunk::decode(changes)?)
    }
}

/// Refuses to give out what follows commit `since` if it builds upon versions that no commit stands
/// for, and that who has commit `since` need not have.
fn check_since(extent: &Extent, since: u64) -> Result<()> {
    let base = extent.world.base().commit;
    let is_frozen = |kind| matches!(kind, FileKind::Frozen { .. });
    let is_taken_over =
        extent.base.is_some() || extent.parts.iter().any(|part| is_frozen(part.kind));
    match extent.has_base() && since <= base && (is_taken_over || base == 0) {
        true => Err(not_in_the_log(since, base)),
        false => Ok(()),
    }
}

fn not_in_the_log(since: u64, base: u64) -> Error {
    Error::incompatible(format!(
        "commit {} builds upon what herolib wrote, which no commit stands for, so there are no \
         changes after commit {since}; copy the directory, and go on from the copy's last commit",
        base.saturating_add(1)
    ))
}

fn log_ends_early(db: &Db, extent: &Extent, commit: u64) -> Error {
    let last = extent.parts.last().map_or(0, |part| part.segment.number);
    Error::corrupt(
        db.storage().describe(&crate::log::segment::name(last)),
        0,
        format!(
            "the log ends with commit {commit}, and commit {} was there",
            extent.visible
        ),
    )
}
