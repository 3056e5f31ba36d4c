//! A handle that is open for reading follows the writer, in this process or another one.

use std::cmp::Ordering::{Equal, Greater, Less};
use std::sync::Arc;

use super::open::open_for_reading;
use super::opening::Opening;
use super::write::Writer;
use super::{Db, Shared, World};
use crate::bytes::{collected, reserve};
use crate::error::{Error, Result};
use crate::log::commits::Commits;
use crate::log::record::{HEAD, Kind};
use crate::log::recovery::{self, Replayed, Start};
use crate::log::segment::{LONGEST_FILE, LogEnd, Segment, name};
use crate::manifest::Manifest;
use crate::storage::{Access, File, Replaced, is_refused};
use crate::sync::atomic::Ordering;

impl Db {
    /// Lets a handle that was opened for reading see what was committed since it was opened, or
    /// since this was called last: by a writer that is at work, or was. Without it the handle sees
    /// the moment of its opening. On a handle for writing, which sees everything, it does nothing.
    ///
    /// Snapshots, scans and transactions that are open go on seeing their moment. Cost: reads what
    /// was appended to the log since; after a compaction all that an opening reads, and a data file up to
    /// what the handle has seen, if the log has that still.
    pub fn refresh(&self) -> Result<()> {
        let shared = &*self.shared;
        shared.check_process()?;
        if !shared.read_only {
            return Ok(());
        }
        let mut writer = shared.writer();
        match shared.follow_log(&mut writer) {
            Ok(true) => return Ok(()),
            // In the middle of a change of the writer's it can look so.
            Ok(false) | Err(Error::Corrupt { .. } | Error::Io { .. }) => {}
            Err(error) => return Err(error),
        }
        let replaced = shared.reload(&mut writer)?;
        drop(writer);
        drop(replaced);
        Ok(())
    }

    /// Whether a writer has compacted what this read-only handle read in `world`, or another database or
    /// copy is in its place: its files may be gone, and only those that are open are still read.
    pub(crate) fn is_superseded(&self, world: &World) -> bool {
        let shared = &*self.shared;
        if !shared.read_only {
            return false;
        }
        let (uuid, generation) = (world.log.uuid, world.log.generation);
        let in_memory = shared.writer().manifest.is_taken_over_in_memory();
        // A backup may make room for one of an earlier generation. But what a reader takes over, it has in
        // memory as of a later one.
        let is_other = |manifest: Manifest| {
            let is_earlier = manifest.generation < generation && !in_memory;
            manifest.uuid != uuid || manifest.generation > generation || is_earlier
        };
        let manifest = Manifest::read(&*shared.storage);
        // What is erased in a copy is still there in what it was made of, which is read here.
        let is_copied = |segment: &Arc<Segment>| {
            let named = shared.storage.open(&name(segment.number), Access::Read);
            named.is_ok_and(|file| segment.is_read_from(&*file).is_ok_and(|is_same| !is_same))
        };
        manifest.is_ok_and(|manifest| manifest.is_some_and(is_other))
            || world.log.segments().any(is_copied)
    }
}

/// For who must read files by their names.
pub(crate) fn superseded() -> Error {
    Error::Busy {
        what: "the database was compacted, made anew or put back since the moment that this handle sees, \
               and the files of that moment are gone: refresh it"
            .into(),
    }
}

/// Whether what was appended to a data file, from `end` on, is seen in the one that was opened before. `file`
/// was opened since, but may be of before, too: then it has less.
fn shows_what_is_new(segment: &Segment, file: &dyn File, end: u64) -> bool {
    let mut head = [0; HEAD];
    let view = segment.view();
    !view.is_mapped() || (file.read_at(end, &mut head).is_ok() && view.shows(end, &head))
}

/// Whether `other` is known to have another commit of the number that is the last one here: it was set back
/// and went on. Where a compaction has put what there was into its base, the numbers are all there is to go by.
fn is_other_history(other: &Db, writer: &Writer) -> Result<bool> {
    let extent = other.extent()?;
    let is_damaged = |found: &Result<_>| matches!(found, Err(Error::Corrupt { .. }));
    let found = other.beside_erasures(is_damaged, || {
        if writer.commit < extent.first_commit()? {
            return Ok(None);
        }
        let parts = collected(extent.log_parts())?;
        let commits = Commits::after(&extent.world.log, parts, writer.commit)?;
        Ok(Some(commits.last()))
    });
    match found {
        Ok(found) => Ok(found
            .is_some_and(|found| found.commit == writer.commit && found.time_us != writer.time_us)),
        // What can't be read was not needed to open it.
        Err(Error::Corrupt { .. }) => Ok(false),
        Err(Error::Io { source, .. }) if !is_refused(&source) => Ok(false),
        Err(error) => Err(error),
    }
}

impl Shared {
    /// Reads what was appended to the log; `false` if that isn't all that has changed.
    fn follow_log(&self, writer: &mut Writer) -> Result<bool> {
        let storage = &self.storage;
        let world = self.world.load();
        let log = &world.log;
        let Some(manifest) = Manifest::read(&**storage)? else {
            return Ok(false);
        };
        let is_same = manifest.uuid == log.uuid
            && manifest.generation == log.generation
            && manifest.oldest == world.oldest();
        let has_room = manifest.limits.record_nr_max <= world.lookup.limit();
        let last = log.segments().filter(|segment| segment.is_log()).last();
        let (Some(last), true, false) = (last, is_same && has_room, self.options.salvage) else {
            return Ok(false);
        };
        let from = LogEnd {
            file: last.number,
            position: last.view().end() as u32,
        };
        let opened = storage.open(&name(last.number), Access::Read);
        let opened = opened
            .map_err(|error| Error::from_io("open", storage.describe(&name(last.number)), error))?;
        // What is appended to another file of that name is not seen here.
        if !last.is_read_from(&*opened)? {
            return Ok(false);
        }
        // Higher than what follows from the log where a transaction has taken ids and not used them.
        let next_id = manifest.next_id;
        let limits = manifest.limits;
        let opening = Opening::new(storage, &self.options, manifest, None)?;
        if opening.manifest.generation != log.generation {
            return Ok(false);
        }
        let start = Start {
            from: Some(from),
            commit: writer.commit,
            time_us: writer.time_us,
            synced: None,
            salvage: false,
            follows: true,
            zeroed: false,
        };
        let mut versions = Vec::new();
        let outcome = recovery::replay(
            &**storage,
            &log.uuid,
            &opening.log_files,
            &start,
            |records| {
                reserve(&mut versions, records.len())?;
                versions.extend_from_slice(records);
                Ok(())
            },
        )?;
        let limit = world.lookup.limit();
        if versions.iter().any(|version| version.id >= limit) || opening.goes_on(&outcome)? {
            return Ok(false);
        }
        // What may fail comes first. Else a mark would lead on from behind commits that were not taken in.
        let deletes = |version: &&Replayed| version.kind != Kind::Put;
        let deletions = versions.iter().filter(deletes).count();
        writer.deletions.reserve(deletions)?;
        let clears = versions.iter().filter(|one| one.kind == Kind::Clear);
        world.clears().reserve(clears.count())?;
        let (mut grown, mut begun) = (Vec::new(), Vec::new());
        for (index, file) in opening.log_files.iter().enumerate() {
            let Some(end) = opening.log_end_of(index, &outcome) else {
                continue;
            };
            let end = end.min(file.len);
            if let Some(segment) = log.segment(file.number) {
                reserve(&mut grown, 1)?;
                grown.push((segment, end));
                continue;
            }
            let failed =
                |error| Error::from_io("open", storage.describe(&name(file.number)), error);
            let opened = storage.open(&name(file.number), Access::Read);
            let opened = opened.map_err(failed)?;
            let view = opened.view(LONGEST_FILE + 1).map_err(failed)?;
            view.extend_to(end);
            reserve(&mut begun, 1)?;
            begun.push((Segment::of_log(file.number, log, view), opened));
        }
        let is_here = versions
            .first()
            .is_some_and(|version| version.location.file == last.number);
        if is_here && !shows_what_is_new(last, &*opened, u64::from(from.position)) {
            return Ok(false);
        }
        // First the bytes, then the ways to them.
        for (segment, end) in grown {
            segment.view().extend_to(end);
        }
        for (segment, opened) in begun {
            log.add_open(segment, &opened);
        }
        self.counters
            .appended
            .store(outcome.commit, Ordering::Release);
        for version in &versions {
            self.take_in(&world, writer, version);
        }
        writer.commit = outcome.commit;
        writer.time_us = outcome.time_us;
        writer.next_id = writer.next_id.max(next_id);
        writer.manifest.limits = limits;
        let mut now = writer.now();
        now.end = outcome.end;
        self.make_visible(writer, now);
        self.group.synced(outcome.synced_commit);
        // Snapshots that are open don't see the records any more.
        let erased = versions.iter().filter(|version| version.kind.ends_chain());
        self.erasures.add_followed(erased.count() as u64);
        Ok(true)
    }

    /// Opens the database anew, in place of what this handle has open.
    fn reload(&self, writer: &mut Writer) -> Result<Replaced<World>> {
        let other = open_for_reading(&self.storage, &self.options, true)?;
        // A directory of herolib's has got an uuid in memory only, until a writer takes it over.
        let is_same = other.shared.read().log.uuid == self.read().log.uuid
            || writer.manifest.is_taken_over_in_memory();
        if !is_same || other.shared.key_value != self.key_value {
            return Err(Error::incompatible(format!(
                "there is another database in {} now; close this handle",
                self.storage.describe("")
            )));
        }
        let world = other.shared.world.load();
        let (visible, live, end) = other.shared.counters.shown();
        let time_us = other.shared.writer().time_us;
        let is_set_back = || match visible.cmp(&writer.commit) {
            Less => Ok(true),
            Equal => Ok(time_us != writer.time_us),
            Greater => is_other_history(&other, writer),
        };
        if !writer.manifest.is_taken_over_in_memory() && is_set_back()? {
            return Err(Error::incompatible(format!(
                "the database in {} was set back, its last commit is {visible} now, and this handle has seen \
                 another commit {}; close it",
                self.storage.describe(""),
                writer.commit
            )));
        }
        std::mem::swap(writer, &mut other.shared.writer());
        self.group.synced(other.shared.group.last_synced());
        let snapshots = self.snapshots.lock();
        let mut now = writer.now();
        (now.commit, now.live, now.end) = (visible, live, end);
        self.counters.appended.store(visible, Ordering::Release);
        self.counters.show(&now);
        // Of what was erased since, the log of before doesn't tell, and the new one may not tell any more.
        self.erasures.add_followed(1);
        // Last: by the new counters the old world reads as it was, and not the other way round.
        let replaced = self.world.replace(world);
        drop(snapshots);
        Ok(replaced)
    }
}
