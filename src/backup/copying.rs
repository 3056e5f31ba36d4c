//! Carries a backup out: what the destination doesn't have is copied, then the engine opens the copy.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::erases_too_quickly;
use super::plan::{Plan, is_interrupted, list};
use crate::base;
use crate::bytes::collected;
use crate::db::{Extent, Part, check_no_erasure, open_copy, remove_leftovers, superseded};
use crate::error::{Error, FailedSync, Result};
use crate::herolib;
use crate::log::erasure::{self, Target};
use crate::log::record::Kind;
use crate::log::segment::{FILE_HEADER, name};
use crate::lookup::checkpoint::{INDEX, TABLE};
use crate::manifest::{DataFile, FileKind, Manifest, State};
use crate::planted::planted;
use crate::storage::{Access, File, Lock, remove_if_there, sync_directory};
use crate::sync::sleep;

/// Bytes are copied so many at a time.
const PIECE: u64 = 2 << 20;
/// So often a data file of herolib's is compared with its copy beside a writer that erases.
const MOST_PASSES: u32 = 64;
/// For so long an erasure may be under way, and in between it is looked at.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(1);

impl Plan<'_> {
    /// So many bytes of a data file are in the destination already.
    fn kept(&self, number: u16) -> u64 {
        let earlier = self.earlier.as_ref();
        let file = earlier
            .filter(|earlier| self.extends(earlier))
            .and_then(|earlier| earlier.file(number));
        file.map_or(0, |file| u64::from(file.len))
    }

    /// Makes the backup in the destination, which is locked. `false`: what was copied is torn, and must be
    /// copied again.
    pub(super) fn carry_out(
        mut self,
        lock: Box<dyn Lock>,
        mut progress: impl FnMut(u64, u64) -> ControlFlow<()>,
    ) -> Result<bool> {
        let new = |part: &Part| part.end - self.kept(part.segment.number).min(part.end);
        let total = self.extent.parts.iter().map(new).sum();
        let mut done = 0;
        let mut tell = |more: u64| {
            done += more;
            self.db.go_on(progress(done, total))
        };
        tell(0)?;
        if self.is_done()? {
            // Whoever made it may have died before its manifest was durable.
            return self.sync_names().map(|()| true);
        }
        // Of a backup that was interrupted at its end. What it overwrites may be copied anew.
        let interrupted = self.earlier.as_ref().unwrap_or(&self.wanted);
        erasure::redo(
            &**self.destination,
            &interrupted.uuid,
            interrupted.generation,
        )?;
        if let Some(earlier) = &self.earlier
            && self.is_overwriting
            && self.extends(earlier)
        {
            self.check_history(earlier)?;
        }
        let wants_base = self.wanted.base.is_some() && !self.has_base();
        if wants_base && self.db.is_superseded(&self.extent.world) {
            return Err(superseded());
        }
        let before = self.begin()?;
        // First: a compaction of the writer's removes it, and leaves a reader the data files alone.
        self.write_base()?;
        for part in &self.extent.parts {
            self.copy(part, &mut tell)?;
            self.copy_until_same(part, &mut tell)?;
        }
        self.sync_names()?;
        if before.state == State::Unfinished || !self.extends(&before) {
            // All of it is on disk, and from here on it is this backup or none.
            let mut copied = self.unfinished(Some(&before))?;
            if !self.db.is_read_only() {
                // Nothing can be torn, and need be copied again.
                copied.files = with_files_of(&self.wanted.files, Some(&before))?;
            }
            copied.write(&**self.destination)?;
            self.remove_derived()?;
        }
        remove_leftovers(&**self.destination, &before, &self.wanted)?;
        self.remove_old_bases()?;
        self.sync_names()?;
        match self.finish(lock) {
            Err(Error::Corrupt { .. }) if self.is_torn(&mut tell)? => Ok(false),
            finished => finished.map(|()| true),
        }
    }

    /// Whether the destination has all there is, and was left in order.
    fn is_done(&self) -> Result<bool> {
        let Some(earlier) = &self.earlier else {
            return Ok(false);
        };
        let base = self.wanted.base.or(earlier.base);
        let same = Manifest {
            state: State::Clean,
            dump: earlier.dump,
            time_us: earlier.time_us,
            base,
            ..self.wanted.try_clone()?
        };
        Ok(self.extends(earlier) && *earlier == same)
    }

    /// Notes durably, before anything is changed, what the destination is until the backup is done;
    /// the manifest that says so.
    fn begin(&self) -> Result<Manifest> {
        let is_interrupted = self.earlier.as_ref().is_some_and(is_interrupted);
        let has_lost_ids =
            (self.earlier.as_ref()).is_some_and(|earlier| earlier.next_id > self.wanted.next_id);
        if (is_interrupted && !planted!(checkpoint_of_interrupted_backup)) || has_lost_ids {
            // It may be that of the one that was interrupted, with commits that the database has lost
            // since, or ids that transactions had taken and nobody has used.
            self.remove(INDEX)?;
        }
        let replaced = |earlier: &Manifest| {
            // Of a file that both have, the bytes would be overwritten.
            let beside = |file: &DataFile| earlier.file(file.number).is_none();
            !self.extends(earlier) && !self.wanted.files.iter().all(beside)
        };
        let begun = match &self.earlier {
            Some(earlier) if earlier.state == State::Unfinished && self.extends(earlier) => {
                let files = with_files_of(&earlier.files, Some(&self.wanted))?;
                if files.len() == earlier.files.len() {
                    // Whoever wrote it may have died before it was durable.
                    self.sync_names()?;
                    return earlier.try_clone();
                }
                Manifest {
                    files,
                    ..earlier.try_clone()?
                }
            }
            Some(earlier) if earlier.state != State::Unfinished && !replaced(earlier) => {
                // Should it end here, they are known to be the backup's even if they are damaged.
                let new = self.wanted.files.iter().map(|file| file.number);
                let new = new.filter(|&number| earlier.file(number).is_none());
                let mut doomed = collected(earlier.doomed.iter().copied().chain(new))?;
                doomed.sort_unstable();
                doomed.dedup();
                Manifest {
                    state: State::Extending,
                    doomed,
                    ..earlier.try_clone()?
                }
            }
            earlier => self.unfinished(earlier.as_ref())?,
        };
        match planted!(backup_done_before_copied) {
            true => self.wanted.write(&**self.destination)?,
            false => begun.write(&**self.destination)?,
        }
        if begun.state == State::Unfinished {
            self.remove_derived()?;
        }
        Ok(begun)
    }

    /// No backup yet, of which nothing counts: what a reader has copied may be torn. Names what was there
    /// before.
    fn unfinished(&self, before: Option<&Manifest>) -> Result<Manifest> {
        let mut files = with_files_of(&self.wanted.files, before)?;
        files.iter_mut().for_each(|file| file.len = 0);
        Ok(Manifest {
            state: State::Unfinished,
            files,
            ..self.wanted.try_clone()?
        })
    }

    /// A reader doesn't know what the writer erases. A record of the log that was copied half before that
    /// and half after it is found when the copy is opened; what herolib wrote is not read then. So it is
    /// compared, once nothing is being overwritten in it: heads are overwritten before their values, and so a
    /// copy that is the same from front to back has none torn.
    fn copy_until_same(&self, part: &Part, tell: &mut impl FnMut(u64) -> Result<()>) -> Result<()> {
        let number = part.segment.number;
        let is_frozen = matches!(part.kind, FileKind::Frozen { .. });
        if !is_frozen || !self.db.is_read_only() || self.kept(number) == part.end {
            return Ok(());
        }
        for _ in 0..MOST_PASSES {
            self.wait_for_erasure(|target| target.place().0 == number, tell)?;
            if self.copy_again(part, tell)? {
                return Ok(());
            }
        }
        Err(erases_too_quickly())
    }

    /// What the writer is overwriting in the database.
    fn being_erased(&self) -> Result<Vec<Target>> {
        let Manifest {
            uuid, generation, ..
        } = &self.wanted;
        erasure::being_overwritten(self.db.storage(), uuid, *generation)
    }

    /// Waits until nothing of that kind is being overwritten; whether something was.
    fn wait_for_erasure(
        &self,
        is_meant: impl Fn(&Target) -> bool,
        tell: &mut impl FnMut(u64) -> Result<()>,
    ) -> Result<bool> {
        let begun = Instant::now();
        let mut has_waited = false;
        while self.being_erased()?.iter().any(&is_meant) {
            check_no_erasure(self.db.storage(), &self.wanted)?;
            tell(0)?;
            if begun.elapsed() > PATIENCE {
                return Err(erases_too_quickly());
            }
            has_waited = true;
            sleep(PAUSE);
        }
        Ok(has_waited)
    }

    /// Copies what differs in a data file from that of the destination, and syncs it; whether nothing did.
    fn copy_again(&self, part: &Part, tell: &mut impl FnMut(u64) -> Result<()>) -> Result<bool> {
        let number = part.segment.number;
        let file = self.open(number, Access::Write)?;
        let mut is_same = true;
        for (from, to) in pieces(0, part.end) {
            tell(0)?;
            if self.is_same(&*file, part, from, to)? {
                continue;
            }
            is_same = false;
            let bytes = part.segment.bytes(from, (to - from) as usize)?;
            file.write_at(from, &[&bytes])
                .map_err(|error| self.failed("write", &name(number), error))?;
        }
        if !is_same {
            file.sync()
                .map_err(|error| self.failed("sync", &name(number), FailedSync::mark(error)))?;
        }
        Ok(is_same)
    }

    /// Whether what a reader has copied may be damaged because the writer was overwriting it.
    fn is_torn(&self, tell: &mut impl FnMut(u64) -> Result<()>) -> Result<bool> {
        if !self.db.is_read_only() {
            return Ok(false);
        }
        let was_erasing = self.wait_for_erasure(|_| true, tell)?;
        // It isn't locked any more: what can't be read now is as damaged as it was found.
        Ok(was_erasing || !self.is_copied().unwrap_or(true))
    }

    /// Whether all that was copied is as it is in the database by now.
    fn is_copied(&self) -> Result<bool> {
        for part in &self.extent.parts {
            let file = self.open(part.segment.number, Access::Read)?;
            for (from, to) in pieces(self.kept(part.segment.number), part.end) {
                if !self.is_same(&*file, part, from, to)? {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Copies what the destination doesn't have of a data file, and syncs it.
    fn copy(&self, part: &Part, tell: &mut impl FnMut(u64) -> Result<()>) -> Result<()> {
        let number = part.segment.number;
        let name = name(number);
        let mut at = self.kept(number);
        if planted!(backup_file_known_by_name) && self.open(number, Access::Read).is_ok() {
            return Ok(());
        }
        let file = if at > 0 {
            let file = self.open(number, Access::Write)?;
            let len = file.len().map_err(|e| self.failed("open", &name, e))?;
            if len < at {
                return Err(Error::corrupt(
                    self.destination.describe(&name),
                    len,
                    format!("the data file of the backup ends here, and it had {at} bytes"),
                ));
            }
            if len == part.end && at == part.end {
                return Ok(());
            }
            // What an interrupted backup has left behind the end may not be whole.
            if len > at {
                let cut = file.set_len(at);
                cut.map_err(|error| self.failed("cut", &name, error))?;
            }
            file
        } else {
            // Not emptied but made anew: somebody may be reading the one of before.
            self.remove(&name)?;
            self.open(number, Access::CreateNew)?
        };
        let mut source = self.whole_source(part);
        while at < part.end {
            let copied = match &source {
                Some(source) => file
                    .copy_from(&**source, at, part.end - at)
                    .map_err(|error| self.failed("write", &name, error))?,
                None => 0,
            };
            let copied = if copied > 0 {
                copied
            } else {
                source = None;
                let len = (part.end - at).min(PIECE);
                let bytes = part.segment.bytes(at, len as usize)?;
                file.write_at(at, &[&bytes])
                    .map_err(|error| self.failed("write", &name, error))?;
                len
            };
            at += copied;
            tell(copied)?;
        }
        if planted!(backup_not_synced) {
            return Ok(());
        }
        file.sync()
            .map_err(|error| self.failed("sync", &name, FailedSync::mark(error)))
    }

    /// The file that a data file of the database is read from, for a copy that doesn't pass through
    /// here. Under the name there may be another one by now; then the bytes come from the mapping.
    fn whole_source(&self, part: &Part) -> Option<Arc<dyn File>> {
        if self.extent.volatile {
            return None;
        }
        let storage = self.db.storage();
        let file = storage
            .open(&name(part.segment.number), Access::Read)
            .ok()?;
        let header = part.end.min(FILE_HEADER as u64);
        let same = self.is_same(&*file, part, 0, header).ok()?;
        (same && file.len().ok()? >= part.end).then_some(file)
    }

    /// Whether the destination has what the log builds upon.
    fn has_base(&self) -> bool {
        let base = self.wanted.base;
        self.earlier.as_ref().is_some_and(|earlier| {
            let is_there = base.is_some() && earlier.base == base;
            self.extends(earlier) && is_there && earlier.state != State::Unfinished
        })
    }

    /// Writes what the log builds upon, if that isn't there.
    fn write_base(&mut self) -> Result<()> {
        if self.has_base() {
            return Ok(());
        }
        let generation = self.wanted.generation;
        let frozen = |part: &Part| matches!(part.kind, FileKind::Frozen { .. });
        let entries = match self.wanted.base {
            Some(stamp) => {
                let read = base::read(self.db.storage(), generation, stamp);
                read.map_err(|error| match self.db.is_superseded(&self.extent.world) {
                    true => superseded(),
                    false => error,
                })?
            }
            // Taken over for reading only, it is in memory alone, as the lookup: no log follows.
            None if self.extent.parts.iter().any(frozen) => {
                collected(self.extent.world.lookup.entries())?
            }
            None => return Ok(()),
        };
        self.wanted.base = Some(base::write(&**self.destination, generation, &entries)?);
        Ok(())
    }

    /// Removes what the engine makes again by itself, and herolib's dump of what is no more.
    fn remove_derived(&self) -> Result<()> {
        for name in [INDEX, TABLE, erasure::JOURNAL] {
            self.remove(name)?;
        }
        herolib::remove_dump(&**self.destination)
    }

    fn remove_old_bases(&self) -> Result<()> {
        let current = self.wanted.base.map(|_| base::name(self.wanted.generation));
        for name in list(&**self.destination)? {
            if base::is_base(&name) && Some(&name) != current.as_ref() {
                self.remove(&name)?;
            }
        }
        Ok(())
    }

    fn remove(&self, name: &str) -> Result<()> {
        match remove_if_there(&**self.destination, name) {
            Ok(_) => Ok(()),
            Err(error) => Err(self.failed("remove", name, error)),
        }
    }

    fn sync_names(&self) -> Result<()> {
        sync_directory(&**self.destination, "").map_err(|error| self.failed("sync", "", error))
    }

    /// Opens the copy, which reads all that is new and verifies it, and closes it, which makes it a
    /// database closed cleanly.
    fn finish(&self, lock: Box<dyn Lock>) -> Result<()> {
        let is_joined = (self.earlier.as_ref()).is_some_and(|earlier| self.extends(earlier));
        let copy = open_copy(self.destination, self.wanted.try_clone()?, lock, is_joined)?;
        let opened = copy.extent()?;
        // Of what was erased beside a reader's backup the record of the erasure may come later, there or here.
        let missing = self.extent.live.saturating_sub(opened.live);
        let erased = match missing {
            0 => 0,
            _ => missing.min(erased_alone(&opened)?),
        };
        if opened.live > self.extent.live && self.has_erased_what_lives_in(&opened)? {
            return Err(self.lives_there());
        }
        let (there, here) = (
            (opened.commit, opened.live + erased, opened.next_id),
            (self.extent.commit, self.extent.live, self.extent.next_id),
        );
        if there != here {
            return Err(Error::corrupt(
                self.destination.describe(""),
                0,
                format!(
                    "the copy has (last commit, live records, next id) {there:?}, and the database \
                     {here:?}"
                ),
            ));
        }
        copy.close()
    }

    /// Whether a record that is live in the copy has its newest version erased in the database.
    fn has_erased_what_lives_in(&self, copy: &Extent) -> Result<bool> {
        let log = &self.extent.world.log;
        let entries = copy.world.lookup.entries();
        for (id, entry) in entries.filter(|(_, entry)| entry.is_live()) {
            let location = entry.location();
            if log.segment_of(location)?.head(location, id)?.kind == Kind::Erased {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The erasure can't be carried out there: its record isn't here yet.
    fn lives_there(&self) -> Error {
        self.refused(
            "has a record that is erased here, and the erasure itself isn't seen here yet: refresh a handle that \
             is open for reading; the copy that a reader made beside it gets it with what comes next",
        )
    }
}

/// The pieces of what lies between two places: where each begins and where it ends.
fn pieces(from: u64, end: u64) -> impl Iterator<Item = (u64, u64)> {
    let begins = (from..end).step_by(PIECE as usize);
    begins.map(move |from| (from, (from + PIECE).min(end)))
}

/// The data files of a backup, and with no length those of another one, which was there before or comes
/// after it: named, they are known to be the backup's until they are removed, whatever comes in between.
fn with_files_of(files: &[DataFile], other: Option<&Manifest>) -> Result<Vec<DataFile>> {
    let other = other.into_iter();
    let listed = other.clone().flat_map(|other| &other.files);
    let listed = listed.map(|file| DataFile { len: 0, ..*file });
    let doomed = other.flat_map(|other| &other.doomed);
    let doomed = doomed.map(|&number| DataFile {
        number,
        kind: FileKind::Log,
        len: 0,
    });
    // Of those with the same number the first one.
    let all = files.iter().copied().chain(listed).chain(doomed);
    let mut all = collected(all.enumerate())?;
    all.sort_unstable_by_key(|(index, file)| (file.number, *index));
    all.dedup_by_key(|(_, file)| file.number);
    collected(all.into_iter().map(|(_, file)| file))
}

/// How many records have an erased version as their newest, without the record of the erasure above it:
/// that came later, or comes with the next changes of another database.
fn erased_alone(copy: &Extent) -> Result<u64> {
    let world = &copy.world;
    let mut erased = 0;
    for (id, entry) in world.lookup.entries().filter(|(_, entry)| !entry.is_live()) {
        let location = entry.location();
        let head = world.log.segment_of(location)?.head(location, id)?;
        let is_cleared = || world.clear_between((location, &head), None).is_some();
        erased += u64::from(head.kind == Kind::Erased && !is_cleared());
    }
    Ok(erased)
}
