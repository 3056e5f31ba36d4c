//! Hot backup: the database as of one commit, copied into another directory while reading and
//! writing go on.
//!
//! Data files are only appended to, so what belongs to a commit is known by their lengths, and a
//! backup that is there already needs only what was appended since. The copy is independent: blocks
//! are shared where the file system unshares them by itself, but never files. A hard link would be
//! the same file: erasing a value, which overwrites it in place, would reach into every backup.
//!
//! What the destination is at any moment, its manifest says, and that is replaced atomically:
//! * [`State::Unfinished`]: no database yet. Where nothing was, or what was has to be overwritten.
//! * [`State::Extending`]: still the earlier backup. New data stand behind its ends, or in files that
//!   it doesn't name, and don't count.
//! * Closed cleanly: all was copied and synced, and the engine has opened it and read what is new.

use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use crate::base;
use crate::bytes::zeroed;
use crate::db::{Db, Extent, LOCK, Part, check_untouched, open_copy, remove_leftovers};
use crate::error::{Error, FailedSync, Result};
use crate::herolib;
use crate::log::erasure;
use crate::log::record::{HEAD, Head, Kind};
use crate::log::segment::{FILE_HEADER, name};
use crate::lookup::checkpoint::{INDEX, TABLE};
use crate::manifest::{DataFile, FileKind, MANIFEST, Manifest, State};
use crate::options::IoMode;
use crate::planted::planted;
use crate::storage::os::OsStorage;
use crate::storage::{Access, File, Lock, Storage, remove_if_there, sync_directory};

/// Bytes are copied so many at a time.
const PIECE: u64 = 2 << 20;
/// And compared so many at a time.
const COMPARED: u64 = 256 << 10;

impl Db {
    /// Makes a backup in directory `destination`, or brings one up to date: all commits that were
    /// visible when it began, with every version of every record. Readers and writers go on; the
    /// writer's lock is held only to note how long the data files are.
    ///
    /// The backup is a database like any other, closed cleanly, with this one's uuid, and may be
    /// opened for reading and for writing. As long as nobody writes to it, another backup into the
    /// same directory takes only what is new. After the database's generation has changed, all is
    /// copied anew. It shares no file with this database: what happens to one leaves the other as it
    /// is. Two databases of one uuid that are both written to go apart: this backs up, it doesn't
    /// merge.
    ///
    /// The directory, which is made if need be, must be empty or hold a backup of this database that
    /// nothing was written to; anything else is [`Error::Incompatible`] and stays untouched, and one
    /// that is open for writing is [`Error::Locked`].
    ///
    /// `progress` is told how many bytes are copied and how many are to be, at the beginning, every
    /// few MiB, and when all are copied. It may use the database, but not erase: erasures wait for
    /// the end of the backup. Where it breaks, the answer is
    /// [`Error::Cancelled`].
    ///
    /// After a failure, a crash or a cancellation the directory holds the earlier backup, or
    /// opening it says that the backup is unfinished; making the backup again completes it. Only
    /// while it is copied anew over one of another generation may there be neither: who wants to have
    /// one at every moment takes turns between two directories.
    ///
    /// When it returns, everything is on disk. Cost: copies what is new, and reads it once more.
    pub fn backup(
        &self,
        destination: impl AsRef<Path>,
        progress: impl FnMut(u64, u64) -> ControlFlow<()>,
    ) -> Result<()> {
        let path = destination.as_ref();
        if path.as_os_str().is_empty() {
            return Err(Error::invalid("the path of the backup is empty"));
        }
        let absolute = std::path::absolute(path)
            .map_err(|error| Error::from_io("find", path.to_string_lossy(), error))?;
        self.backup_to(
            Arc::new(OsStorage::new(absolute, IoMode::default())),
            progress,
        )
    }

    /// The same into a storage.
    pub fn backup_to(
        &self,
        destination: Arc<dyn Storage>,
        progress: impl FnMut(u64, u64) -> ControlFlow<()>,
    ) -> Result<()> {
        let _no_erasure = self.without_erasures()?;
        // What is going to be refused is refused before anything is touched.
        let extent = self.extent()?;
        self.check_other_directory(&*destination)?;
        Plan::new(self, &extent, &destination)?;
        let failed = |action, error| Error::from_io(action, destination.describe(""), error);
        destination
            .create_root()
            .map_err(|error| failed("make directory", error))?;
        // It may have been made just now, in its place.
        self.check_other_directory(&*destination)?;
        let lock = destination
            .lock(LOCK)
            .map_err(|error| failed("lock", error))?
            .ok_or_else(|| Error::Locked {
                path: destination.describe(LOCK),
            })?;
        // What is there may be another by now, and everything that is locked out has come to an end.
        let extent = self.extent()?;
        // A backup has nothing that a loss of power could still take from its database, where its
        // readers have nothing of that.
        self.show_up_to(extent.commit)?;
        Plan::new(self, &extent, &destination)?.carry_out(lock, progress)
    }

    fn check_other_directory(&self, destination: &dyn Storage) -> Result<()> {
        let identity = |storage: &dyn Storage| {
            let identity = storage.identity();
            identity.map_err(|error| Error::from_io("look at", storage.describe(""), error))
        };
        let itself = std::ptr::addr_eq(self.storage(), destination);
        let there = identity(destination)?;
        if itself || (there.is_some() && there == identity(self.storage())?) {
            return Err(Error::invalid(format!(
                "{} is the database's own directory, and a backup goes into another one",
                destination.describe("")
            )));
        }
        Ok(())
    }
}

/// The names in a directory, none if there is no directory.
fn list(storage: &dyn Storage) -> Result<Vec<String>> {
    match storage.list("") {
        Ok(names) => Ok(names),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(Error::from_io("list", storage.describe(""), error)),
    }
}

/// What is to be done for a backup, all of it allowed.
struct Plan<'a> {
    db: &'a Db,
    extent: &'a Extent,
    destination: &'a Arc<dyn Storage>,
    /// The destination's, if there is a backup, finished or not.
    earlier: Option<Manifest>,
    /// A backup that was interrupted was overwriting there what is erased.
    is_overwriting: bool,
    /// Nothing says whether the destination has the same bytes, of files that others may write to.
    is_copied_anew: bool,
    /// What the backup's will be before it is opened.
    wanted: Manifest,
}

impl<'a> Plan<'a> {
    /// Looks into the destination, changing nothing, and refuses what isn't fit.
    fn new(db: &'a Db, extent: &'a Extent, destination: &'a Arc<dyn Storage>) -> Result<Plan<'a>> {
        let files = extent.parts.iter().map(|part| DataFile {
            number: part.segment.number,
            kind: part.kind,
            len: part.end as u32,
        });
        let wanted = Manifest {
            generation: extent.generation,
            backup: true,
            state: State::Open,
            next_id: extent.next_id,
            commit: extent.commit,
            base: extent.base,
            dump: None,
            files: files.collect(),
            is_compacting: false,
            clears: extent.clears.clone(),
            ..extent.manifest.clone()
        };
        let earlier = Manifest::read(&**destination)?;
        let (uuid, generation) = (&wanted.uuid, wanted.generation);
        let is_overwriting = earlier.as_ref().is_some_and(is_interrupted)
            && erasure::read_journal(&**destination, uuid, generation)?.is_some()
            && !planted!(overwritten_backup_compared);
        let plan = Plan {
            db,
            extent,
            destination,
            earlier,
            is_overwriting,
            is_copied_anew: wanted.is_taken_over_in_memory(),
            wanted,
        };
        plan.check_source()?;
        plan.check_destination()?;
        Ok(plan)
    }

    /// Refuses a database that is opened without all of its data files, to salvage the others.
    fn check_source(&self) -> Result<()> {
        for known in &self.extent.manifest.files {
            let there = self.wanted.file(known.number).map_or(0, |file| file.len);
            if there < known.len {
                return Err(Error::corrupt(
                    self.db.storage().describe(&name(known.number)),
                    u64::from(there),
                    "the data file, or a part of it, is missing: there is nothing to back up",
                ));
            }
        }
        Ok(())
    }

    fn refused(&self, why: &str) -> Error {
        Error::incompatible(format!("{} {why}", self.destination.describe("")))
    }

    fn check_destination(&self) -> Result<()> {
        let Some(earlier) = &self.earlier else {
            // A crash right at the beginning of a backup leaves nothing else.
            let ours = [LOCK.to_owned(), format!("{MANIFEST}.tmp")];
            if list(&**self.destination)?
                .iter()
                .all(|name| ours.contains(name))
            {
                return Ok(());
            }
            return Err(self.refused("isn't empty and holds no backup"));
        };
        if earlier.uuid != self.wanted.uuid {
            return Err(self.refused("holds another database"));
        }
        if !earlier.backup || earlier.state == State::Resetting {
            return Err(self.refused("holds no backup, or one that was written to since"));
        }
        if !is_interrupted(earlier) {
            check_untouched(self.destination, earlier)?;
            for file in herolib::data_files(&**self.destination)? {
                if earlier.file(file.number).is_none() && self.wanted.file(file.number).is_some() {
                    let why = format!("holds {}, which is not the backup's", name(file.number));
                    return Err(self.refused(&why));
                }
            }
        }
        if self.extends(earlier) {
            let is_empty = earlier.files.iter().all(|file| file.len == 0);
            if earlier.commit > self.extent.commit && !is_empty {
                let why = format!(
                    "holds a backup up to commit {}, and the database ends with commit {}",
                    earlier.commit, self.extent.commit
                );
                return Err(self.refused(&why));
            }
            // What is being overwritten may be torn, and is compared when that is finished.
            if !self.is_overwriting {
                self.check_history(earlier)?;
            }
        }
        Ok(())
    }

    fn check_history(&self, earlier: &Manifest) -> Result<()> {
        match self.has_same_beginning(earlier)? {
            true => Ok(()),
            false => Err(self.refused("holds a backup of another history than this database's")),
        }
    }

    /// Whether the bytes of `earlier` are bytes of this backup too.
    fn extends(&self, earlier: &Manifest) -> bool {
        earlier.generation == self.wanted.generation && !self.is_copied_anew
    }

    /// Whether the database has what the backup has: the same headers, and the same last commit.
    /// Each commit has its number, its time and the checksums of its values in it, so histories that
    /// went apart don't come together again. Values may be erased, here or there.
    fn has_same_beginning(&self, earlier: &Manifest) -> Result<bool> {
        if earlier.base != self.wanted.base && self.wanted.base.is_some() {
            return Ok(false);
        }
        // What a compaction has copied has no commits of its own to be compared.
        if earlier.base_time_us != self.wanted.base_time_us {
            return Ok(false);
        }
        let mut last_commit_found = false;
        for known in earlier.files.iter().rev().filter(|file| file.len > 0) {
            let part = self
                .extent
                .parts
                .iter()
                .find(|part| part.segment.number == known.number);
            let Some(part) = part else { return Ok(false) };
            let len = u64::from(known.len);
            let log = part.kind == FileKind::Log;
            if part.kind != known.kind || part.end < len || (!log && part.end != len) {
                return Ok(false);
            }
            let file = self.open(known.number, Access::Read)?;
            let frozen = matches!(part.kind, FileKind::Frozen { .. });
            if !frozen && !self.is_same(&*file, part, 0, len.min(FILE_HEADER as u64))? {
                return Ok(false);
            }
            if !log || last_commit_found {
                continue;
            }
            let mut ended = FILE_HEADER as u64;
            if let Some((position, head)) = last_of(part, earlier.commit, len)? {
                let mut there = [0; HEAD];
                file.read_at(position, &mut there)
                    .map_err(|error| self.failed("read", &name(known.number), error))?;
                let there = head_in(&there, part, position);
                if there.is_none_or(|there| !is_same_version(&there, &head)) {
                    return Ok(false);
                }
                last_commit_found = true;
                ended = position + head.record_len();
            }
            // The backup has nothing but marks behind its last commit. Where a loss of power took them
            // here, there may be another commit by now.
            if !are_marks(part, ended, len)? && !planted!(backup_of_other_commits_extended) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether a file of the destination has the bytes `from` … `to` of a data file.
    fn is_same(&self, file: &dyn File, part: &Part, from: u64, to: u64) -> Result<bool> {
        let mut there = zeroed((to - from) as usize)?;
        match file.read_at(from, &mut there) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            Err(error) => return Err(self.failed("read", &name(part.segment.number), error)),
        }
        Ok(*part.segment.bytes(from, there.len())? == there[..])
    }

    fn failed(&self, action: &'static str, name: &str, error: io::Error) -> Error {
        Error::from_io(action, self.destination.describe(name), error)
    }

    fn open(&self, number: u16, access: Access) -> Result<Arc<dyn File>> {
        let name = name(number);
        let opened = self.destination.open(&name, access);
        opened.map_err(|error| self.failed("open", &name, error))
    }

    /// So many bytes of a data file are in the destination already.
    fn kept(&self, number: u16) -> u64 {
        let earlier = self.earlier.as_ref();
        let file = earlier
            .filter(|earlier| self.extends(earlier))
            .and_then(|earlier| earlier.file(number));
        file.map_or(0, |file| u64::from(file.len))
    }

    /// Makes the backup in the destination, which is locked.
    fn carry_out(
        mut self,
        lock: Box<dyn Lock>,
        mut progress: impl FnMut(u64, u64) -> ControlFlow<()>,
    ) -> Result<()> {
        let new = |part: &Part| part.end - self.kept(part.segment.number).min(part.end);
        let total = self.extent.parts.iter().map(new).sum();
        let mut done = 0;
        let mut tell = |more: u64| {
            done += more;
            match progress(done, total) {
                ControlFlow::Continue(()) => Ok(()),
                ControlFlow::Break(()) => Err(Error::Cancelled),
            }
        };
        tell(0)?;
        if self.is_done() {
            // Whoever made it may have died before its manifest was durable.
            return self.sync_names();
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
        let before = self.begin()?;
        for part in &self.extent.parts {
            self.copy(part, &mut tell)?;
        }
        self.write_base()?;
        self.sync_names()?;
        if before.state == State::Unfinished || !self.extends(&before) {
            // All of it is on disk, and from here on it is this backup or none.
            let copied = Manifest {
                state: State::Unfinished,
                files: with_files_of(self.wanted.files.clone(), Some(&before)),
                ..self.wanted.clone()
            };
            copied.write(&**self.destination)?;
            self.remove_derived()?;
        }
        remove_leftovers(&**self.destination, &before, &self.wanted)?;
        self.remove_old_bases()?;
        self.sync_names()?;
        self.finish(lock)
    }

    /// Whether the destination has all there is, and was left in order.
    fn is_done(&self) -> bool {
        self.earlier.as_ref().is_some_and(|earlier| {
            let base = self.wanted.base.or(earlier.base);
            let same = Manifest {
                state: State::Clean,
                dump: earlier.dump,
                time_us: earlier.time_us,
                base,
                ..self.wanted.clone()
            };
            self.extends(earlier) && *earlier == same
        })
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
                let files = with_files_of(earlier.files.clone(), Some(&self.wanted));
                if files.len() == earlier.files.len() {
                    // Whoever wrote it may have died before it was durable.
                    self.sync_names()?;
                    return Ok(earlier.clone());
                }
                Manifest {
                    files,
                    ..earlier.clone()
                }
            }
            Some(earlier) if earlier.state != State::Unfinished && !replaced(earlier) => {
                // Should it end here, they are known to be the backup's even if they are damaged.
                let mut doomed = earlier.doomed.clone();
                let new = self.wanted.files.iter().map(|file| file.number);
                doomed.extend(new.filter(|&number| earlier.file(number).is_none()));
                doomed.sort_unstable();
                doomed.dedup();
                Manifest {
                    state: State::Extending,
                    doomed,
                    ..earlier.clone()
                }
            }
            earlier => {
                let mut files = with_files_of(self.wanted.files.clone(), earlier.as_ref());
                files.iter_mut().for_each(|file| file.len = 0);
                Manifest {
                    state: State::Unfinished,
                    files,
                    ..self.wanted.clone()
                }
            }
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

    /// Writes what the log builds upon.
    fn write_base(&mut self) -> Result<()> {
        let generation = self.wanted.generation;
        let frozen = |part: &Part| matches!(part.kind, FileKind::Frozen { .. });
        let entries = match self.wanted.base {
            Some(stamp) => base::read(self.db.storage(), generation, stamp)?,
            // Taken over for reading only, it is in memory alone, as the lookup: no log follows.
            None if self.extent.parts.iter().any(frozen) => {
                self.extent.world.lookup.entries().collect()
            }
            None => return Ok(()),
        };
        let earlier = self.earlier.as_ref();
        let there = earlier.filter(|earlier| {
            self.extends(earlier)
                && earlier.base.is_some()
                && earlier.base == self.wanted.base
                && earlier.state != State::Unfinished
        });
        if there.is_none() {
            self.wanted.base = Some(base::write(&**self.destination, generation, &entries)?);
        }
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
    fn finish(self, lock: Box<dyn Lock>) -> Result<()> {
        let copy = open_copy(self.destination, self.wanted.clone(), lock)?;
        let opened = copy.extent()?;
        // Beside a reader the writer may erase what was live as of its moment.
        let erased = match self.db.is_read_only() {
            true => erased_alone(&opened)?,
            false => 0,
        };
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
}

/// The data files of a backup, and with no length those of another one, which was there before or comes
/// after it: named, they are known to be the backup's until they are removed, whatever comes in between.
fn with_files_of(mut files: Vec<DataFile>, other: Option<&Manifest>) -> Vec<DataFile> {
    if let Some(other) = other {
        files.extend((other.files.iter()).map(|file| DataFile { len: 0, ..*file }));
        files.extend((other.doomed.iter()).map(|&number| DataFile {
            number,
            kind: FileKind::Log,
            len: 0,
        }));
    }
    files.sort_by_key(|file| file.number);
    files.dedup_by_key(|file| file.number);
    files
}

/// The last record of a commit that begins before `end` in a data file of the log.
fn last_of(part: &Part, commit: u64, end: u64) -> Result<Option<(u64, Head)>> {
    let mut stop = end;
    while stop > FILE_HEADER as u64 {
        let start = stop.saturating_sub(COMPARED).max(FILE_HEADER as u64);
        // A record's head may begin in this piece and end in the one behind it.
        let piece_end = (stop + HEAD as u64 - 1).min(end);
        let bytes = part.segment.bytes(start, (piece_end - start) as usize)?;
        let of_commit = |at: usize, window: &[u8]| {
            let position = start + at as u64;
            let head = head_in(window, part, position)?;
            let is_it = head.kind != Kind::SyncMark && head.commit == commit;
            is_it.then_some((position, head))
        };
        let windows = bytes.windows(HEAD).enumerate();
        let found = windows.rev().find_map(|(at, window)| of_commit(at, window));
        if found.is_some() {
            return Ok(found);
        }
        stop = start;
    }
    Ok(None)
}

/// Whether a part of a data file is sync marks, one behind the other.
fn are_marks(part: &Part, from: u64, to: u64) -> Result<bool> {
    let mut at = from;
    while at + HEAD as u64 <= to {
        let bytes = part.segment.bytes(at, HEAD)?;
        match head_in(&bytes, part, at) {
            Some(head) if head.kind == Kind::SyncMark => at += head.record_len(),
            _ => return Ok(false),
        }
    }
    Ok(at == to)
}

/// The head of a record that begins at `position`, if there is one.
fn head_in(bytes: &[u8], part: &Part, position: u64) -> Option<Head> {
    Head::verify(bytes.first_chunk()?, part.segment.seed(), position as u32)
}

/// Whether two heads are of the same version, of which one may be erased.
fn is_same_version(one: &Head, other: &Head) -> bool {
    let identity = |head: &Head| {
        let commit = (head.commit, head.time_us, head.last);
        (head.id, commit, head.len, head.previous)
    };
    let content = |head: &Head| (head.kind, head.crc);
    let is_erased = |head: &Head| head.kind == Kind::Erased;
    // A clock that went back with the power may have given a lost commit's time to another one.
    identity(one) == identity(other)
        && (content(one) == content(other) || is_erased(one) || is_erased(other))
}

/// How many records have an erased version as their newest, without the record of the erasure above it:
/// that came later.
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

/// Whether a backup, the first or a later one, was begun in this directory and not finished.
fn is_interrupted(manifest: &Manifest) -> bool {
    matches!(manifest.state, State::Unfinished | State::Extending)
}
