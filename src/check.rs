//! Reading everything, and comparing it with itself.
//!
//! The log is read from front to back while reading and writing go on, from the files that are in
//! the directory, which may not be those that were opened: through mappings where it can, and as
//! recovery reads it where it can't, or finds something amiss. On the way a table from id to
//! newest version grows: each version must follow the one that the table has, and in the end the
//! table must be the lookup.

use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;

use crate::base;
use crate::bytes::collected;
use crate::db::{Db, Extent, Part, World, superseded};
use crate::error::{Error, Result};
use crate::herolib;
use crate::history::Chain;
use crate::location::Location;
use crate::log::record::{Head, Kind};
use crate::log::scan::{Found, ReadRecord};
use crate::log::segment::{FILE_HEADER, FileHeader, LogEnd, Segment, name};
use crate::log::sequence::Sequence;
use crate::lookup::{BLOCK_IDS, Entry, IdSet};
use crate::manifest::{FileKind, MANIFEST, Manifest};
use crate::reader::Reader;
use crate::storage::{Access, Storage, Words, is_refused, prefetch, prefetch_ahead};
use crate::sync::atomic::Ordering;

/// So many damaged places are named one by one; the others are counted.
const MOST_NAMED: usize = 1000;
/// Progress is told after so many bytes.
const STEP: u64 = 4 << 20;
/// So much is read at a time: what an erasure may have to wait for.
const PIECE: usize = 256 << 10;
/// The processor is told to load what comes so many bytes later, and the place in the table of the record
/// that comes so many later.
const AHEAD: usize = 4 << 10;
const RECORDS_AHEAD: usize = 16;

/// What a check has read, and what it found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// Versions of records that were read and are well, deletions included.
    pub versions: u64,
    /// Bytes of data files that were read.
    pub bytes: u64,
    /// Damaged places, in the order in which they were found; the first 1,000 of them.
    pub damage: Vec<Damage>,
    /// Damaged places beyond those.
    pub more: u64,
}

impl CheckReport {
    /// Whether nothing is damaged.
    pub fn is_sound(&self) -> bool {
        self.damage.is_empty()
    }
}

/// A damaged place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub file: String,
    /// Offset in bytes from the beginning of the file.
    pub offset: u64,
    /// What was expected and what was found.
    pub what: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at offset {}: {}", self.file, self.offset, self.what)
    }
}

impl fmt::Display for CheckReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let places = self.damage.len() as u64 + self.more;
        write!(
            f,
            "{places} damaged, {} versions in {} bytes well",
            self.versions, self.bytes
        )?;
        for damage in &self.damage {
            write!(f, "\n{damage}")?;
        }
        match self.more {
            0 => Ok(()),
            more => write!(f, "\nand {more} more"),
        }
    }
}

impl Db {
    /// Reads every version of every record and verifies: both checksums of each, that each follows
    /// the version before it, that commits follow each other, and that lookup and counters are what
    /// the log makes of them. Everything as of one moment; reading and writing go on.
    ///
    /// `progress` is told how many bytes are read, and how many are to be; where it breaks, the
    /// answer is [`Error::Cancelled`]. Damage is no error of the check: see
    /// [`CheckReport::damage`]. [`Error::Busy`]: the files that a read-only handle knows went with a
    /// compaction of the writer's; refresh it.
    ///
    /// Cost: reads all data files once, and takes 8 bytes of memory per id meanwhile.
    pub fn check(&self, progress: impl FnMut(u64, u64) -> ControlFlow<()>) -> Result<CheckReport> {
        let extent = self.extent()?;
        let mut check = Check::new(self, &extent, progress)?;
        check.manifest(&extent)?;
        let has_base = check.base(&extent)?;
        let mut before = None;
        for part in extent
            .parts
            .iter()
            .filter(|part| part.kind == FileKind::Log)
        {
            before = check.log_file(part, before)?;
        }
        // What is damaged is missing from the table, and would be named twice.
        if has_base && check.report.is_sound() {
            check.lookup(&extent)?;
            check.counters(&extent);
        }
        if !check.report.is_sound() && self.is_superseded(&extent.world) {
            return Err(superseded());
        }
        Ok(check.report)
    }
}

/// A check under way.
struct Check<'a, P> {
    db: &'a Db,
    world: Arc<World>,
    storage: &'a dyn Storage,
    progress: P,
    /// Bytes to be read.
    total: u64,
    /// Bytes after which progress is told next.
    next_step: u64,
    /// The newest version of each id, as read so far.
    table: Words,
    /// The blocks of ids of which one came since the last clear: none is live in the others. Else a clear of
    /// a few records would take as long as one of all ids there are.
    blocks: IdSet,
    known: u64,
    live: u64,
    next_id: u64,
    /// How far the log was read. The last commit is that of the database until the log says otherwise.
    sequence: Sequence,
    /// The end of the last data file that was read, if there is nothing in it.
    empty: Option<LogEnd>,
    /// Damage was met in the log: what follows it may lead to what can't be read.
    gap: bool,
    /// Another process has erased something since the moment that is checked.
    erased: bool,
    report: CheckReport,
}

impl<'a, P: FnMut(u64, u64) -> ControlFlow<()>> Check<'a, P> {
    fn new(db: &'a Db, extent: &Extent, progress: P) -> Result<Check<'a, P>> {
        let limit = extent.limit as usize;
        let no_memory = |_| Error::OutOfMemory {
            what: format!("a table of {limit} ids for the check").into(),
        };
        let table = extent.world.lookup.beside().map_err(no_memory)?;
        let blocks = IdSet::new(limit.div_ceil(BLOCK_IDS) as u64).map_err(no_memory)?;
        Ok(Check {
            db,
            world: Arc::clone(&extent.world),
            storage: db.storage(),
            progress,
            total: extent.parts.iter().map(|part| part.end).sum(),
            next_step: 0,
            table,
            blocks,
            known: 0,
            live: 0,
            next_id: 1,
            sequence: Sequence::after(extent.commit, 0),
            empty: None,
            gap: false,
            erased: false,
            report: CheckReport::default(),
        })
    }

    fn damaged(&mut self, file: &str, offset: u64, what: impl Into<String>) {
        self.name(Damage {
            file: self.storage.describe(file),
            offset,
            what: what.into(),
        });
    }

    fn name(&mut self, damage: Damage) {
        if self.report.damage.len() == MOST_NAMED {
            self.report.more += 1;
        } else {
            self.report.damage.push(damage);
        }
    }

    /// Goes on after an error that tells of damage; any other one ends the check.
    fn pass<T>(&mut self, file: &str, offset: u64, result: Result<T>) -> Result<Option<T>> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(Error::Corrupt { file, offset, what }) => {
                let what = what.into_owned();
                self.name(Damage { file, offset, what });
                Ok(None)
            }
            // A file that is gone, or a sector that can't be read. What this process may not have or do just
            // now says nothing about the file.
            Err(Error::Io { source, .. }) if !is_refused(&source) => {
                self.damaged(file, offset, format!("it can't be read: {source}"));
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn read(&mut self, bytes: u64) -> Result<()> {
        self.report.bytes += bytes;
        if self.report.bytes < self.next_step {
            return Ok(());
        }
        self.next_step = self.report.bytes + STEP;
        let told = (self.progress)(self.report.bytes.min(self.total), self.total);
        self.db.go_on(told)
    }

    fn manifest(&mut self, extent: &Extent) -> Result<()> {
        if extent.volatile {
            return Ok(());
        }
        let read = Manifest::read(self.storage);
        match self.pass(MANIFEST, 0, read)? {
            Some(Some(manifest)) if manifest.uuid != extent.uuid => {
                self.damaged(MANIFEST, 16, "it is another database's by now");
            }
            // That of a compaction since lists the files that came of it.
            Some(Some(manifest)) if manifest.generation > extent.generation => {}
            Some(Some(manifest)) => {
                self.all_there(&manifest, extent);
                self.misplaced(extent)?;
            }
            // herolib's directory, which is opened for reading as it is, has none.
            Some(None) if extent.manifest.is_of_herolib() => {}
            Some(None) => self.damaged(MANIFEST, 0, "the file is gone"),
            None => {}
        }
        Ok(())
    }

    /// Names the data files that belong to the database and could not be opened, or of which salvage reads
    /// less than there was: up to that end nothing need be amiss.
    fn all_there(&mut self, manifest: &Manifest, extent: &Extent) {
        for file in &manifest.files {
            // Others a writer has begun since, and more in these.
            let Some(known) = extent.manifest.file(file.number) else {
                continue;
            };
            let mut parts = extent.parts.iter();
            let (end, what) = match parts.find(|part| part.segment.number == file.number) {
                None => (
                    0,
                    "the data file is missing, or its header is damaged".into(),
                ),
                Some(part) if part.end < u64::from(known.len) => {
                    let what = "what can be read of the file ends here, and it had";
                    (part.end, format!("{what} {} bytes", known.len))
                }
                Some(_) => continue,
            };
            self.damaged(&name(file.number), end, what);
            self.gap = true;
        }
    }

    /// Names the data files of the database that lie under another number than their own. Salvage reads
    /// nothing in them, and any other opening is refused as long as they are there.
    fn misplaced(&mut self, extent: &Extent) -> Result<()> {
        let files = herolib::readable_data_files(self.storage);
        for file in self.pass("", 0, files)?.unwrap_or_default() {
            let number = |part: &Part| part.segment.number;
            let known = extent.parts.binary_search_by_key(&file.number, number);
            if known.is_ok() {
                continue;
            }
            // What can't be read, or was removed since, is none for sure.
            let header = FileHeader::of(self.storage, file.number).ok().flatten();
            let other =
                header.filter(|header| header.uuid == extent.uuid && header.number != file.number);
            if let Some(FileHeader { number, .. }) = other {
                let what = format!("the header says that this is {}", name(number));
                self.damaged(&name(file.number), 0, what);
            }
        }
        Ok(())
    }

    /// What the log builds upon: all versions in files that are not part of the log. Whether it
    /// could be read.
    fn base(&mut self, extent: &Extent) -> Result<bool> {
        let mut previous = None;
        for part in &extent.parts {
            match part.kind {
                FileKind::Log => {}
                FileKind::Compacted => previous = self.compacted_file(part, previous)?,
                FileKind::Frozen { .. } if !self.frozen_file(part)? => return Ok(false),
                FileKind::Frozen { .. } => {}
            }
        }
        let entries = match extent.base {
            Some(stamp) => base::read(self.storage, extent.generation, stamp),
            // Taken over for reading only, it is in memory alone, as the lookup: no log follows.
            None if extent.is_frozen() => collected(self.world.lookup.entries()),
            None => return Ok(true),
        };
        let Some(entries) = self.pass(&base::name(extent.generation), 0, entries)? else {
            return Ok(false);
        };
        for (id, entry) in entries {
            self.put(id, entry);
            let db = self.db;
            let walked = db.unchanged(|_| self.chain(id, entry));
            let walked = self.pass(&name(entry.location().file), 0, walked)?;
            self.read(walked.unwrap_or(0))?;
        }
        Ok(true)
    }

    /// Reads a data file that a compaction wrote, after a record of `previous`; the last id in it.
    fn compacted_file(&mut self, part: &Part, previous: Option<u32>) -> Result<Option<u32>> {
        let segment = &part.segment;
        let file = name(segment.number);
        let Some(mut reader) = self.data_file(part)? else {
            return Ok(previous);
        };
        let mut last = previous;
        self.each_record(&mut reader, segment, |check, at, head| {
            check.report.versions += 1;
            check.version(&file, at, segment.number, head);
            if last.is_some_and(|last| last > head.id) {
                let what = format!("id {} comes after a higher one", head.id);
                check.damaged(&file, at, what);
            }
            last = Some(head.id);
        })?;
        Ok(last)
    }

    /// Whether a file that is not part of the log is as long as it was: only then it is read
    /// through its mapping.
    fn frozen_file(&mut self, part: &Part) -> Result<bool> {
        let name = name(part.segment.number);
        let len = self
            .storage
            .open(&name, Access::Read)
            .and_then(|file| file.len())
            .map_err(|error| Error::from_io("open", self.storage.describe(&name), error));
        let Some(len) = self.pass(&name, 0, len)? else {
            return Ok(false);
        };
        if len < part.end {
            self.damaged(&name, len, ends_early(part.end));
        }
        Ok(len >= part.end)
    }

    /// Walks over all versions that `entry` leads to; how many bytes they have.
    fn chain(&mut self, id: u32, entry: Entry) -> Result<u64> {
        let world = Arc::clone(&self.world);
        let mut bytes = 0;
        let mut chain = Chain::new(&world, id, entry);
        let mut is_newest = true;
        while let Some((location, head)) = chain.next()? {
            if location.is_none() {
                // A clear, which is no record of this one.
                is_newest = false;
                continue;
            }
            let segment = world.log.segment_of(location)?;
            let is_live = head.kind == Kind::Put;
            if is_newest && entry.is_live() != is_live && head.kind != Kind::Erased {
                let position = u64::from(location.position);
                let what = format!("{:?} of id {id} is here, and the base has it as", head.kind);
                let state = if entry.is_live() { "live" } else { "deleted" };
                return Err(segment.corrupt(position, format!("{what} {state}")));
            }
            is_newest = false;
            world.value_if_there(location, &head)?;
            self.report.versions += 1;
            bytes += head.record_len();
        }
        Ok(bytes)
    }

    /// A reader of a data file of ours, whose header is checked; `None` if it can't be read.
    fn data_file(&mut self, part: &Part) -> Result<Option<Reader>> {
        let file = name(part.segment.number);
        let reader = Reader::sequential(self.storage, &file);
        let Some(reader) = self.pass(&file, 0, reader)? else {
            self.gap = true;
            return Ok(None);
        };
        let mut reader = reader.up_to(part.end);
        if reader.len() < part.end {
            self.damaged(&file, reader.len(), ends_early(part.end));
            self.gap = true;
        }
        let header = reader.bytes(0, FILE_HEADER as u64).map(FileHeader::decode);
        let Some(header) = self.pass(&file, 0, header)? else {
            self.gap = true;
            return Ok(None);
        };
        if !header.is_some_and(|header| self.is_header_of(&header, &part.segment)) {
            self.damaged(&file, 0, "the data file's header is not the one it had");
        }
        Ok(Some(reader))
    }

    /// Reads a data file of the log, which goes on from `before`; where it ends.
    fn log_file(&mut self, part: &Part, before: Option<LogEnd>) -> Result<Option<LogEnd>> {
        let segment = &part.segment;
        let file = name(segment.number);
        let Some(mut reader) = self.data_file(part)? else {
            return Ok(before);
        };
        let header = reader.bytes(0, FILE_HEADER as u64).map(FileHeader::decode);
        if let Some(Some(header)) = self.pass(&file, 0, header)? {
            self.follow(&file, &header, before);
        }
        self.each_record(&mut reader, segment, |check, at, head| {
            check.record(&file, at, segment.number, head);
        })?;
        if let Some(commit) = self.sequence.unfinished() {
            self.sequence.break_off();
            self.damaged(
                &file,
                part.end,
                format!("the last record of commit {commit} is missing"),
            );
            self.gap = true;
        }
        let end = Some(LogEnd {
            file: segment.number,
            position: part.end as u32,
        });
        // A file in which there is nothing was made in vain, and the next one in its stead; or a
        // loss of power has emptied it, and the next one goes on behind it.
        let is_empty = part.end == FILE_HEADER as u64;
        self.empty = end.filter(|_| is_empty);
        Ok(if is_empty { before } else { end })
    }

    fn is_header_of(&self, header: &FileHeader, segment: &Segment) -> bool {
        let log = &self.world.log;
        header.is_of(&log.uuid, log.generation) && header.number == segment.number
    }

    /// Goes on with a data file after `before`.
    fn follow(&mut self, file: &str, header: &FileHeader, before: Option<LogEnd>) {
        let follows =
            header.after == before || (header.after.is_some() && header.after == self.empty);
        if !follows && !self.gap {
            let end = |end: Option<LogEnd>| end.map_or("nothing".to_owned(), |end| end.to_string());
            let what = format!(
                "the data file goes on from {}, and the log before it ends with {}",
                end(header.after),
                end(before)
            );
            self.damaged(file, 30, what);
            self.gap = true;
        }
        if before.is_none() {
            self.sequence = Sequence::after(header.first_commit.saturating_sub(1), 0);
        }
    }

    /// Calls `f` with the place and the head of each record that verifies.
    fn each_record(
        &mut self,
        reader: &mut Reader,
        segment: &Segment,
        mut f: impl FnMut(&mut Self, u64, &Head),
    ) -> Result<()> {
        let file = name(segment.number);
        let seed = segment.seed();
        let db = self.db;
        // Through the mapping that is there, if it is of the file that is in the directory: what was
        // read through it before the kernel needn't map again.
        let anew;
        let view = if reader.is_seen_by(segment.view()) {
            segment.view()
        } else {
            anew = reader.view();
            &anew
        };
        let mut at = FILE_HEADER as u64;
        let mut changes = None;
        // A record that had to be looked at closer.
        let mut found = None;
        while at < reader.len() {
            let from = at;
            // What verifies is well, whenever it was read.
            db.unchanged(|_| {
                let most = reader.left(at).min(PIECE as u64) as usize;
                let mut piece = view.loaded(at, most).unwrap_or(reader.at_hand(at));
                // Goes ahead, so that places in the table are on their way when their records come.
                let mut scout = piece;
                let mut look_ahead = |table: &Words| {
                    if let Some((id, len)) = Head::peek(scout) {
                        if let Some(word) = table.get(id as usize) {
                            prefetch(word);
                        }
                        scout = scout.get(len..).unwrap_or_default();
                    }
                };
                (0..RECORDS_AHEAD).for_each(|_| look_ahead(&self.table));
                // `f` is called in one place only, so that the compiler puts it there.
                while let Some(head) = found.take().or_else(|| {
                    let (head, _) = Head::verify_record(piece, seed, at as u32)?;
                    Some(head)
                }) {
                    let len = head.record_len();
                    prefetch_ahead(piece, AHEAD, len as usize);
                    piece = piece.get(len as usize..).unwrap_or_default();
                    look_ahead(&self.table);
                    f(self, at, &head);
                    at += len;
                }
            });
            if at > from {
                self.read(at - from)?;
                continue;
            }
            // Anything else is looked at while nothing is overwritten.
            let is_odd = |found: &Result<Found>| {
                !matches!(found, Ok(Found::Record(_)) | Err(Error::Io { .. }))
            };
            let closer = db.beside_erasures(is_odd, || {
                db.unchanged(|now| {
                    // A version whose head was read before and whose value after is none.
                    if changes.replace(now) != Some(now) || db.is_read_only() {
                        reader.forget();
                    }
                    reader.record(at, seed)
                })
            });
            let Some(closer) = self.pass(&file, at, closer)? else {
                self.gap = true;
                return Ok(());
            };
            match closer {
                Found::Record(head) => found = Some(head),
                Found::Value(head, why) => {
                    let what = format!(
                        "{:?} of id {}, commit {}: {why}",
                        head.kind, head.id, head.commit
                    );
                    self.damaged(&file, at, what);
                    self.gap = true;
                    at += head.record_len();
                }
                Found::Nothing(why) => {
                    let next = reader.next_record(at + 1, seed);
                    let next = self.pass(&file, at + 1, next)?.flatten();
                    let next = next.unwrap_or(reader.len());
                    self.damaged(&file, at, format!("{why}; {} bytes are lost", next - at));
                    self.gap = true;
                    at = next;
                }
            }
            self.read(at - from)?;
        }
        Ok(())
    }

    #[inline]
    fn record(&mut self, file: &str, at: u64, number: u16, head: &Head) {
        if let Err(what) = self.sequence.admit(head)
            && !self.gap
        {
            self.damaged(file, at, what.to_string());
        }
        self.sequence.go_on(head);
        match head.kind {
            Kind::Clear => return self.clear(),
            Kind::Empty | Kind::SyncMark => return,
            Kind::Put | Kind::Delete | Kind::Erase | Kind::Erased => {}
        }
        self.report.versions += 1;
        self.version(file, at, number, head);
    }

    /// A version takes the place of the one before it in the table, which it must lead to.
    #[inline]
    fn version(&mut self, file: &str, at: u64, number: u16, head: &Head) {
        match self.put(head.id, entry_at(number, at, head)) {
            None => self.past_the_limit(file, at, head),
            Some(before) if before.location() != head.previous => {
                self.leads_elsewhere(file, at, head, before);
            }
            Some(_) => {}
        }
    }

    #[cold]
    fn past_the_limit(&mut self, file: &str, at: u64, head: &Head) {
        self.damaged(file, at, format!("id {} is past the limit", head.id));
    }

    /// A version leads to another one than `before`. Where something is missing, it may.
    #[cold]
    fn leads_elsewhere(&mut self, file: &str, at: u64, head: &Head, before: Entry) {
        if !self.gap {
            let what = format!(
                "the version of id {} leads to {:?} as the one before it, which is {:?}",
                head.id,
                head.previous,
                before.location()
            );
            self.damaged(file, at, what);
        }
    }

    fn clear(&mut self) {
        for block in self.blocks.iter() {
            self.blocks.remove(block);
            let from = block as usize * BLOCK_IDS;
            let to = (from + BLOCK_IDS).min(self.table.len());
            for word in self.table.range(from, to).unwrap_or_default() {
                let entry = Entry::from_word(word.load(Ordering::Relaxed));
                if entry.is_live() {
                    word.store(entry.cleared().to_word(), Ordering::Relaxed);
                }
            }
        }
        self.live = 0;
    }

    #[inline]
    fn newest(&self, id: u32) -> Option<Entry> {
        let word = self.table.get(id as usize)?;
        Some(Entry::from_word(word.load(Ordering::Relaxed)))
    }

    /// Puts an entry into the table; the one before. `None` past the limit.
    #[inline]
    fn put(&mut self, id: u32, entry: Entry) -> Option<Entry> {
        let word = self.table.get(id as usize)?;
        // No exchange, which would wait for all that was read before: nobody else has the table.
        let before = Entry::from_word(word.load(Ordering::Relaxed));
        word.store(entry.to_word(), Ordering::Relaxed);
        let block = id / BLOCK_IDS as u32;
        if !self.blocks.contains(block) {
            self.blocks.insert(block);
        }
        self.known += u64::from(!before.is_known());
        self.live += u64::from(entry.is_live());
        self.live -= u64::from(before.is_live());
        self.next_id = self.next_id.max(u64::from(id) + 1);
        Some(before)
    }

    /// Compares the lookup with the table. Commits that came since are left out.
    fn lookup(&mut self, extent: &Extent) -> Result<()> {
        let mut matched = 0;
        let world = Arc::clone(&self.world);
        for (first, entries) in world.lookup.blocks() {
            for (entry, id) in entries.zip(first..) {
                let expected = self.newest(id).unwrap_or_default();
                let matches = entry == expected || self.unlike(id, entry, expected, extent)?;
                matched += u64::from(matches && expected.is_known());
            }
        }
        // In a world that was replaced meanwhile nothing leads to what was erased since.
        let is_missing = matched < self.known && self.db.erasures() == extent.erasures;
        if is_missing && self.report.is_sound() {
            let missing = self.known - matched;
            self.damaged("", 0, format!("{missing} ids are missing from the lookup"));
        }
        Ok(())
    }

    /// Whether an entry is what became of the one that was expected, by commits that came since; it
    /// is damage if not.
    #[cold]
    fn unlike(&mut self, id: u32, entry: Entry, expected: Entry, extent: &Extent) -> Result<bool> {
        if !entry.is_known() {
            return Ok(false);
        }
        if entry.location() == expected.location() {
            // By a clear that came since: asked for after the entry was read, because one may come at
            // any time, and is in the list before it is in the lookup.
            let cleared = !entry.is_live() && self.world.is_cleared_after(extent.commit);
            let mut matches = cleared || entry.is_live() == expected.is_live();
            if !matches && self.db.is_read_only() {
                let kind = self.kind_of(id, entry.location());
                matches = self.pass(&name(entry.location().file), 0, kind)? == Some(Kind::Erased);
                self.erased |= matches;
            }
            if !matches {
                self.damaged(
                    &name(entry.location().file),
                    u64::from(entry.location().position),
                    format!("the lookup has id {id} as live where it is deleted, or the reverse"),
                );
            }
            return Ok(matches);
        }
        let db = self.db;
        let found = db.unchanged(|_| self.version_as_of(id, entry, extent.commit));
        Ok(match self.pass(&name(entry.location().file), 0, found)? {
            // Erased since: what it led to isn't found any more.
            Some(None) => self.note_erased(id, expected)?,
            Some(Some(found)) if found == expected.location() => self.note_erased(id, expected)?,
            Some(Some(found)) => {
                self.damaged(
                    &name(found.file),
                    u64::from(found.position),
                    format!(
                        "the lookup leads id {id} here, and its newest version is at {:?}",
                        expected.location()
                    ),
                );
                false
            }
            None => false,
        })
    }

    /// Notes whether a record was erased when its version was read. A reader may have been refreshed before
    /// that, with what lies above it now. True in any case: there is nothing wrong with it.
    fn note_erased(&mut self, id: u32, read: Entry) -> Result<bool> {
        let location = read.location();
        if self.db.is_read_only() && !read.is_live() && !location.is_none() {
            let kind = self.db.unchanged(|_| self.kind_of(id, location));
            self.erased |= self.pass(&name(location.file), 0, kind)? == Some(Kind::Erased);
        }
        Ok(true)
    }

    fn kind_of(&self, id: u32, location: Location) -> Result<Kind> {
        let segment = self.world.log.segment_of(location)?;
        Ok(segment.head(location, id)?.kind)
    }

    /// Where the newest version at or before `commit` is; [`Location::NONE`] if there is none, `None`
    /// if it was erased since. For one that a clear deleted, where that is.
    fn version_as_of(&self, id: u32, entry: Entry, commit: u64) -> Result<Option<Location>> {
        let mut chain = Chain::new(&self.world, id, entry);
        while let Some((location, head)) = chain.next()? {
            match location.is_none() {
                _ if head.commit > commit && head.kind.ends_chain() => return Ok(None),
                _ if head.commit > commit => {}
                true => return Ok(Some(head.previous)),
                false => return Ok(Some(location)),
            }
        }
        Ok(Some(Location::NONE))
    }

    fn counters(&mut self, extent: &Extent) {
        // What was erased since is not read as live.
        let none_erased = self.db.erasures() == extent.erasures && !self.erased;
        let live = if none_erased { extent.live } else { self.live };
        let read = (self.sequence.commit(), self.live);
        let kept = (extent.commit, live);
        if read != kept || self.next_id > extent.next_id.max(1) {
            self.damaged(
                "",
                0,
                format!(
                    "the log ends with commit {}, has {} live records and ids up to {}; \
                     {} and {} are kept, and {} comes next",
                    read.0,
                    read.1,
                    self.next_id - 1,
                    kept.0,
                    kept.1,
                    extent.next_id
                ),
            );
        }
    }
}

/// What the lookup holds of a version whose record begins at `at`.
fn entry_at(number: u16, at: u64, head: &Head) -> Entry {
    let place = LogEnd {
        file: number,
        position: at as u32,
    };
    Entry::of(head.kind, place.location(), head.len)
}

fn ends_early(end: u64) -> String {
    format!("the file ends here, and it had {end} bytes")
}
