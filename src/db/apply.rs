//! Applying the commits of another database, with their numbers and times.

use super::write::{Stamp, Writer};
use super::{Db, Shared};
use crate::bytes::reserve;
use crate::changes::chunk::{Chunk, Commit, damaged};
use crate::error::{Error, Result};
use crate::log::commits::Commits;
use crate::log::record::{HEAD, Kind};
use crate::log::tail::{NewRecord, check_commit_len};
use crate::manifest::Manifest;

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
        {
            let mut writer = shared.writer();
            if upto <= writer.commit {
                drop(writer);
                self.check_known(chunk)?;
                return shared.finish(upto);
            }
            let new = shared.new_commits(&writer, chunk)?;
            self.check_own_base(&writer)?;
            let next_id = shared.check_changes(&writer, chunk, new)?;
            shared.raise_next_id(&mut writer, chunk.header.next_id, next_id)?;
            shared.append_commits(&mut writer, chunk, new)?;
        }
        shared.finish(upto)
    }

    /// Refuses a chunk of another database, all commits of which have numbers that are here
    /// already.
    fn check_known(&self, chunk: &Chunk<'_>) -> Result<()> {
        let extent = self.extent()?;
        let upto = chunk.header.upto;
        if upto < extent.first_commit(self.storage())? {
            // It lies in what the log builds upon, which has no times.
            return Ok(());
        }
        let log = &extent.world.log;
        let commits = Commits::after(log, extent.log_parts().collect(), upto)?;
        log.ends.note(commits.last());
        check_time(upto, time_in(chunk, upto), commits.last().time_us)
    }

    /// Refuses changes for a database that holds versions which no commit number stands for.
    fn check_own_base(&self, writer: &Writer) -> Result<()> {
        if writer.manifest.base.is_none() {
            return Ok(());
        }
        let extent = self.extent_with(writer);
        if extent.first_commit(self.storage())? <= writer.commit {
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
        let Some(known) = last.checked_sub(since) else {
            return Err(Error::incompatible(format!(
                "the changes go on from commit {since}, and this database ends with commit {last}: \
                 ask for those after commit {last}"
            )));
        };
        check_time(last, time_in(chunk, last), writer.time_us)?;
        Ok(&chunk.commits[known as usize..])
    }

    /// Refuses commits that can't all be applied; one more than the highest id in them.
    fn check_changes(&self, writer: &Writer, chunk: &Chunk<'_>, new: &[Commit]) -> Result<u64> {
        let mut touches = Vec::new();
        for (index, commit) in new.iter().enumerate() {
            let mut len = 0;
            for change in chunk.changes(commit) {
                self.check_id(change.id)?;
                self.check_len(change.value)?;
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
                Some(before) => before.kind == Kind::Put,
                None => self.read().lookup.get(id).is_live(),
            };
            if touch.kind == Kind::Delete && !live {
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

    /// Takes over the sender's next id, where it is above `proven`, which follows from the ids that
    /// are in the log by the end of the changes. Only the manifest keeps it then.
    fn raise_next_id(&self, writer: &mut Writer, next_id: u64, proven: u64) -> Result<()> {
        if next_id <= proven {
            return Ok(());
        }
        self.prepare(writer)?;
        if !self.volatile {
            let manifest = Manifest {
                next_id,
                ..writer.manifest.clone()
            };
            manifest
                .write(&*self.storage)
                .map_err(|error| self.poison_if_unsynced(error))?;
            writer.manifest = manifest;
        }
        writer.next_id = next_id;
        Ok(())
    }

    fn append_commits(
        &self,
        writer: &mut Writer,
        chunk: &Chunk<'_>,
        commits: &[Commit],
    ) -> Result<()> {
        let mut records = Vec::new();
        for commit in commits {
            let changes = chunk.changes(commit);
            records.clear();
            reserve(&mut records, changes.len())?;
            for change in changes {
                records.push(NewRecord {
                    kind: change.kind,
                    id: change.id,
                    previous: self.read().lookup.get(change.id).location(),
                    value: change.value,
                });
            }
            let stamp = Stamp {
                commit: commit.commit,
                time_us: commit.time_us,
            };
            self.append(writer, &records, Some(stamp))?;
        }
        Ok(())
    }
}

/// The time that a chunk gives for a commit, which is one of its own or the one before them.
fn time_in(chunk: &Chunk<'_>, commit: u64) -> u64 {
    match commit.checked_sub(chunk.header.since + 1) {
        Some(index) => chunk.commits[index as usize].time_us,
        None => chunk.header.since_time_us,
    }
}

/// Two databases that have the same commit made it at the same time.
fn check_time(commit: u64, theirs: u64, ours: u64) -> Result<()> {
    if theirs == ours || commit == 0 {
        return Ok(());
    }
    Err(Error::incompatible(format!(
        "these changes are of another database: commit {commit} was made at {theirs} microseconds \
         since the Unix epoch there, and at {ours} here"
    )))
}
