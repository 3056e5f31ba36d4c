//! Compaction: what is to be kept is copied into data files of a new generation, ascending by
//! id, of each id the oldest version first; what is committed meanwhile follows as it stands in the
//! log; then the manifest is replaced, and readers go over to the new files.
//!
//! Until the manifest is replaced nothing of the old generation is touched, and a crash leaves data
//! files of a generation that the manifest has announced: the next opening removes them. After it
//! the old files are removed when the last snapshot that reads in them is gone, or by the next
//! opening. The writer lock is held for what is written during one sync only: the log is followed
//! in rounds, each up to where it ended when the round began, and where the rounds don't get shorter
//! because it is written to quicker than it is copied, each commit waits a little.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::brake::{Brake, Progress, Rounds};
use super::clears::Clears;
use super::copies::{Copies, Held};
use super::deletions::Deletions;
use super::erasures::HeldOff;
use super::write::{Stamp, Writer};
use super::{Db, Shared, World};
use crate::bytes::{collected, reserve};
use crate::error::{Error, Result};
use crate::herolib;
use crate::history::Chain;
use crate::location::Location;
use crate::log::Log;
use crate::log::copy::{Copied, Copy, Numbers};
use crate::log::record::{HEAD, Head, Kind};
use crate::log::segment::{LONGEST_FILE, LogEnd, Segment, name};
use crate::log::tail::Tail;
use crate::lookup::checkpoint::{self, Tally};
use crate::lookup::{Entry, Lookup};
use crate::manifest::{Clear, DataFile, FileKind, Manifest, State, next_generation};
use crate::planted::planted;
use crate::retention::Retention;
use crate::storage::{Replaced, View, remove_if_there};
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::this_thread;

/// The brake is set after so many versions of the base.
const VERSIONS_AT_ONCE: u64 = 1 << 12;
/// Progress is told after so many bytes, and the brake is looked at; that also after so much time, which
/// is looked at after so many commits.
const STEP: u64 = 1 << 20;
const STEP_TIME: Duration = Duration::from_millis(10);
const COMMITS_AT_ONCE: u64 = 8;

/// There is one compaction at a time.
#[derive(Debug)]
struct Turn<'a>(&'a AtomicUsize);

impl<'a> Turn<'a> {
    fn begin(compactor: &'a AtomicUsize) -> Result<Turn<'a>> {
        let (free, taken) = (Ordering::AcqRel, Ordering::Relaxed);
        match compactor.compare_exchange(0, this_thread(), free, taken) {
            Ok(_) => Ok(Turn(compactor)),
            Err(_) => Err(Error::Busy {
                what: "a compaction is running already".into(),
            }),
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.store(0, Ordering::Release);
    }
}

impl Db {
    /// Drops all versions that `retention` doesn't keep, and gives back their space. Reading and
    /// writing go on; so do open snapshots, in the files as they were, whose space comes back when
    /// the last of them ends. Ids, commit numbers and times stay as they are. Afterwards the
    /// versions of a record lie side by side, and records in the order of their ids.
    ///
    /// `progress` is told how many bytes of how many were looked at; where it breaks, the answer is
    /// [`Error::Cancelled`]. With any error the database is as it was before. At its end it waits for an
    /// erasure that is under way, and gives [`Error::Busy`] where that one waits for a read that this
    /// thread is within.
    ///
    /// Cost: reads everything and writes what is kept, as much space as that takes is needed
    /// meanwhile, and 8 bytes of memory per id, with 50 to 100 for each version that is kept of the
    /// record with the most. Writers wait for two syncs at its beginning and for three at its end; before
    /// that each commit waits 0.2 ms for the time of a sync or two, or longer where they write quicker
    /// than half of what it can copy.
    pub fn compact(
        &self,
        retention: &Retention,
        mut progress: impl FnMut(u64, u64) -> ControlFlow<()>,
    ) -> Result<()> {
        self.shared.compact(retention, &mut progress)
    }
}

impl Shared {
    /// See [`Db::compact`].
    pub(super) fn compact(&self, retention: &Retention, on_progress: OnProgress<'_>) -> Result<()> {
        self.check_writable("compact")?;
        let _turn = Turn::begin(&self.compactor)?;
        if self.read().log.segments().next().is_none() {
            return Ok(());
        }
        let start = self.announce()?;
        // Failing, it removes what was copied. That was announced, and stays so until the next one: what
        // can't be removed, or comes back after a loss of power, is known by it.
        let ending = self.copies.until_dropped();
        let done = Compaction::new(self, start, *retention, on_progress).and_then(Compaction::run);
        drop(ending);
        done.map_err(|error| {
            if !self.is_own_process() {
                return error;
            }
            let _writer = self.writer();
            // The data file that is appended to may have got its name meanwhile.
            if error.is_failed_directory_sync() {
                return self.poison_with(error);
            }
            if self.check_poison().is_ok() {
                checkpoint::remove_next(&*self.storage);
            }
            error
        })
    }
}

/// What a compaction begins with.
struct Start {
    world: Arc<World>,
    /// The last commit that is copied version by version.
    commit: Stamp,
    /// Where the log ends then.
    end: Option<LogEnd>,
    next_file: u32,
    /// Of what is made.
    generation: u64,
}

impl Shared {
    /// Notes durably that data files of a later generation may be found, and which those of this
    /// one are.
    fn announce(&self) -> Result<Start> {
        // Not under the writer lock: there may be many data files. One that is just being made is in the
        // log by the time that it has been free.
        let world = self.world.load();
        let log = &world.log;
        let files = herolib::data_files(&*self.storage)?;
        drop(self.writer());
        let numbers = files.iter().map(|file| file.number);
        let left = numbers.filter(|&number| log.segment(number).is_none());
        let generation = next_generation(&*self.storage, &log.uuid, log.generation, left)?;
        let (commit, files, world, end) = {
            let mut writer = self.writer();
            self.check_poison()?;
            self.prepare(&mut writer)?;
            let world = self.world.load();
            let files = super::close::data_files(&writer.manifest, &world)?;
            let commit = Stamp {
                commit: writer.commit,
                time_us: writer.time_us,
            };
            (commit, files, world, writer.tail.end())
        };
        // The lengths count sync marks.
        if planted!(announced_before_synced) {
            self.sync_to(commit.commit)?;
        } else {
            self.sync_log()?;
        }
        let mut writer = self.writer();
        self.check_poison()?;
        self.write_manifest(&mut writer, |manifest| {
            manifest.files = files;
            manifest.is_compacting = !planted!(compaction_not_announced);
        })?;
        Ok(Start {
            world,
            commit,
            end,
            next_file: writer.tail.next_file(),
            generation,
        })
    }
}

/// What is not needed any more after a compaction: it takes its time to drop it.
struct Left {
    _world: Replaced<World>,
    _tail: Tail,
    _deletions: Deletions,
}

/// Whom to tell how many bytes of how many were looked at, and where it breaks.
type OnProgress<'a> = &'a mut dyn FnMut(u64, u64) -> ControlFlow<()>;

struct Compaction<'a> {
    shared: &'a Shared,
    start: Start,
    retention: Retention,
    /// Until it can't be cancelled any more.
    on_progress: Option<OnProgress<'a>>,
    done: u64,
    total: u64,
    next_step: u64,
    numbers: Numbers,
    live: u64,
    /// The bytes that the newest versions of live records take in the base.
    bytes_live: u64,
    tally: Tally,
    /// Up to where the old log was followed.
    followed: Option<LogEnd>,
    /// The last commit that was copied.
    commit: u64,
    clears: Vec<Clear>,
    /// The records of a commit whose last one has not come yet.
    pending: Vec<(LogEnd, Head)>,
    brake: Brake<'a>,
    /// Versions of the base that were looked at since the brake was set, how many of them were passed
    /// over, and their bytes.
    looked_at: u64,
    passed_over: u64,
    looked_through: u64,
    /// From this commit on all versions are kept.
    oldest: u64,
}

impl<'a> Compaction<'a> {
    fn new(
        shared: &'a Shared,
        start: Start,
        retention: Retention,
        on_progress: OnProgress<'a>,
    ) -> Result<Compaction<'a>> {
        let world = &start.world;
        let numbers = Numbers::after(&world.log, start.next_file);
        let file_size = numbers.file_size(world.log.bytes(), shared.limits.file_size);
        let limit = world.lookup.limit();
        let lookup = if world.lookup.is_on_disk() {
            checkpoint::new_table(&*shared.storage, limit)?
        } else {
            Lookup::in_memory(limit)?
        };
        shared.copies.begin(Copies {
            base: Copy::new(&world.log, start.generation, file_size, false),
            log: Copy::new(&world.log, start.generation, file_size, true),
            lookup,
        });
        Ok(Compaction {
            shared,
            retention,
            on_progress: Some(on_progress),
            done: 0,
            total: world.log.bytes(),
            next_step: 0,
            numbers,
            live: 0,
            bytes_live: 0,
            tally: Tally::default(),
            followed: start.end,
            commit: start.commit.commit,
            clears: Vec::new(),
            pending: Vec::new(),
            brake: Brake::new(&shared.pause_us, Instant::now(), world.log.bytes()),
            looked_at: 0,
            passed_over: 0,
            looked_through: 0,
            oldest: world.oldest(),
            start,
        })
    }

    fn run(mut self) -> Result<()> {
        self.copy_base()?;
        self.follow()?;
        self.finish()
    }

    fn copies(&self) -> Held<'a> {
        self.shared.copies.copies()
    }

    fn tell(&mut self, bytes: u64) -> Result<()> {
        self.done += bytes;
        if self.done < self.next_step {
            return Ok(());
        }
        self.next_step = self.done + STEP;
        self.shared.check_poison()?;
        let Some(on_progress) = &mut self.on_progress else {
            return Ok(());
        };
        let wrote = &self.shared.compactor_wrote;
        let before = wrote.load(Ordering::Relaxed);
        let told = on_progress(self.done.min(self.total), self.total);
        self.brake.pass_over(wrote.load(Ordering::Relaxed) - before);
        self.shared.go_on(told)
    }

    /// Copies what is to be kept of each record as of the beginning.
    fn copy_base(&mut self) -> Result<()> {
        let world = Arc::clone(&self.start.world);
        for (id, _) in world.lookup.entries() {
            let bytes = self.copy_record(&world, id)?;
            self.tell(bytes)?;
            self.looked_through += bytes;
            // Where most versions are passed over, because they have come since this began, chains grow
            // quicker than they are walked: each record would take longer than the one before.
            if self.looked_at >= VERSIONS_AT_ONCE {
                let too_quick = self.passed_over > self.looked_at / 2;
                let progress = self.progress(self.looked_through);
                self.brake.set(too_quick, progress);
                (self.looked_at, self.passed_over, self.looked_through) = (0, 0, 0);
            }
            let synced = self.copies().base.sync_now_and_then()?;
            if synced {
                self.shared.reserve_ahead();
            }
        }
        self.brake.release();
        self.copies().base.sync()
    }

    /// Copies what is to be kept of a record; how many bytes it looked at.
    fn copy_record(&mut self, world: &World, id: u32) -> Result<u64> {
        // The entry is read when nothing is overwritten any more: it leads to no erased version. Of what is
        // erased from then on, the copies are overwritten when all of them are there.
        let mut held_off = self.shared.erasures.hold_off_by_turns();
        let mut copies = self.copies();
        let (kept, bytes) = self.kept_versions(world, id, &mut held_off)?;
        let mut newest: Option<(Location, Head)> = None;
        for &(location, head) in kept.iter().rev() {
            let head = match head.kind {
                Kind::Put if held_off.is_overwritten() => {
                    world.log.segment_of(location)?.head(location, id)?
                }
                _ => head,
            };
            let value = match head.kind {
                Kind::Put => world.value(location, &head)?,
                _ => (&[][..]).into(),
            };
            let copy = Head {
                last: true,
                skips: false,
                previous: newest.map_or(Location::NONE, |(location, _)| location),
                ..without_zeros(&head)
            };
            let len = Copy::len_of(&copy);
            copies.base.reserve(&mut self.numbers, len, 0)?;
            newest = Some((copies.base.push(&copy, &value)?, copy));
            self.tally.count(head.kind);
            held_off.go_on(len);
        }
        if let Some((location, head)) = newest {
            if head.kind == Kind::Put {
                self.bytes_live += Copy::len_of(&head);
            }
            self.publish(&copies, id, Entry::of(head.kind, location, head.len))?;
        }
        Ok(bytes)
    }

    /// The versions to be kept of a record, newest first, and how many bytes it looked at.
    fn kept_versions(
        &mut self,
        world: &World,
        id: u32,
        held_off: &mut HeldOff<'_>,
    ) -> Result<(Vec<(Location, Head)>, u64)> {
        let mut bytes = 0;
        let mut chain = Chain::new(world, id, world.lookup.get(id));
        let mut kept: Vec<(Location, Head)> = Vec::new();
        // Versions of herolib's have no commit and no time: they stay where older ones do.
        let mut undecided = Vec::new();
        let mut dropped_after = None;
        while let Some((location, head)) = chain.next()? {
            bytes += Copy::len_of(&head);
            self.looked_at += 1;
            held_off.go_on(HEAD as u64);
            // What came since follows with the log.
            if head.commit > self.start.commit.commit {
                self.passed_over += 1;
                continue;
            }
            let newer = (kept.len() + undecided.len()) as u64;
            if self.retention.keeps(newer, &head) {
                reserve(&mut kept, undecided.len() + 1)?;
                kept.append(&mut undecided);
                kept.push((location, head));
                if self.retention.may_keep(newer + 1) || !chain.has_next() {
                    continue;
                }
                // What is to go is not read: it may be damaged.
                dropped_after.get_or_insert(head.commit);
                break;
            }
            let commit = kept.last().map_or(head.commit, |(_, newer)| newer.commit);
            dropped_after.get_or_insert(commit);
            if head.commit != 0 {
                break;
            }
            reserve(&mut undecided, 1)?;
            undecided.push((location, head));
        }
        if let Some(commit) = dropped_after {
            let last = kept.last().map_or(commit, |(_, head)| head.commit);
            let commit = if last == 0 { world.base().commit } else { last };
            self.oldest = self.oldest.max(commit);
        }
        Ok((kept, bytes))
    }

    fn publish(&mut self, copies: &Copies, id: u32, entry: Entry) -> Result<()> {
        let storage = &*self.shared.storage;
        super::recover::publish(storage, &copies.lookup, id, entry, &mut self.live)
    }

    /// Copies the log that was written meanwhile, until little of it is left.
    fn follow(&mut self) -> Result<()> {
        self.catch_up()?;
        if !self.shared.volatile && !self.copies().lookup.is_on_disk() {
            self.write_checkpoint()?;
            self.catch_up()?;
        }
        // The last time that it can be cancelled.
        self.next_step = 0;
        self.tell(self.total)?;
        // Who is told might erase, which from here on would wait for this.
        self.on_progress = None;
        Ok(())
    }

    /// Follows the log, and syncs the copy, until a round copies only little.
    fn catch_up(&mut self) -> Result<()> {
        let mut rounds = Rounds::default();
        loop {
            let (copied, took) = self.copy_round()?;
            if rounds.is_last(copied, took, &mut self.brake) {
                return Ok(());
            }
        }
    }

    /// Copies what is in the log by now and was not copied yet, and syncs it; how many bytes, and how
    /// long they took but for the sync.
    fn copy_round(&mut self) -> Result<(u64, Duration)> {
        let from = self.copies().log.bytes();
        let began = Instant::now();
        self.brake.begin_round(began, self.start.world.log.bytes());
        self.copy_log(|this, bytes| {
            this.tell(bytes)?;
            this.brake.copied(this.progress(bytes));
            let synced = this.copies().log.sync_now_and_then()?;
            if synced {
                this.shared.reserve_ahead();
            }
            Ok(())
        })?;
        let took = began.elapsed();
        let mut copies = self.copies();
        copies.log.sync()?;
        Ok((copies.log.bytes() - from, took))
    }

    /// Where writers are when so many bytes more were looked through.
    fn progress(&self, looked_through: u64) -> Progress {
        Progress {
            now: Instant::now(),
            log: self.start.world.log.bytes(),
            looked_through,
        }
    }

    /// A checkpoint of what was copied so far, to be put in its place with the new generation.
    fn write_checkpoint(&self) -> Result<()> {
        let copies = self.copies();
        let state = checkpoint::State {
            uuid: self.start.world.log.uuid,
            generation: self.start.generation,
            commit: self.commit,
            time_us: 0,
            next_id: 1,
            live: self.live,
            tally: self.tally,
            log_end: copies.log.end(),
            clears_crc: checkpoint::clears_crc(self.clears.iter().copied(), self.commit),
        };
        checkpoint::write(
            &*self.shared.storage,
            checkpoint::NEXT_INDEX,
            &copies.lookup,
            state,
        )
    }

    /// Copies the commits that are in the log by now and were not copied yet. `step` is told how many
    /// bytes that were, every now and then.
    fn copy_log(&mut self, mut step: impl FnMut(&mut Self, u64) -> Result<()>) -> Result<()> {
        if planted!(last_commits_not_copied) {
            return Ok(());
        }
        let shared = self.shared;
        let world = Arc::clone(&self.start.world);
        let mut held_off = Some(shared.erasures.hold_off());
        let (mut untold, mut told) = (0, Instant::now());
        let mut copied = self.followed;
        // Up to the last whole commit: the end of the files may be within one.
        let last = self.shared.counters.appended.load(Ordering::Acquire);
        world.log.each_since(self.followed, |place, head| {
            if head.commit > last {
                return Ok(());
            }
            reserve(&mut self.pending, 1)?;
            self.pending.push((place, *head));
            if head.last {
                untold += self.copy_commit(&world)?;
                copied = Some(LogEnd {
                    file: place.file,
                    position: (u64::from(place.position) + head.record_len()) as u32,
                });
                let is_time = head.commit % COMMITS_AT_ONCE == 0 && told.elapsed() >= STEP_TIME;
                if untold >= STEP || is_time {
                    // An erasure gets its turn. Besides, who is told may erase.
                    held_off = None;
                    step(self, std::mem::take(&mut untold))?;
                    held_off = Some(shared.erasures.hold_off());
                    told = Instant::now();
                }
            }
            Ok(())
        })?;
        drop(held_off);
        self.followed = copied;
        Ok(())
    }

    /// Copies the records that were gathered of a commit; how many bytes.
    fn copy_commit(&mut self, world: &World) -> Result<u64> {
        let mut pending = std::mem::take(&mut self.pending);
        let heads = pending.iter().map(|(_, head)| without_zeros(head));
        let len = heads.map(|head| Copy::len_of(&head)).sum();
        let Some(&(_, first)) = pending.first() else {
            return Ok(0);
        };
        let mut copies = self.copies();
        copies
            .log
            .reserve(&mut self.numbers, len, self.commit + 1)?;
        for (place, head) in &pending {
            let location = place.location();
            let previous = match head.kind {
                Kind::Clear | Kind::Empty => Location::NONE,
                _ if planted!(previous_of_old_generation) => head.previous,
                _ => copies.lookup.get(head.id).location(),
            };
            let moved = Head {
                previous,
                ..without_zeros(head)
            };
            let value = match head.kind {
                Kind::Put => world.value(location, head)?,
                _ => (&[][..]).into(),
            };
            let copy = copies.log.push(&moved, &value)?;
            self.tally.count(head.kind);
            if head.kind == Kind::Empty {
                continue;
            }
            if head.kind == Kind::Clear {
                reserve(&mut self.clears, 1)?;
                self.clears.push(Clear {
                    commit: head.commit,
                    time_us: head.time_us,
                });
                copies.lookup.clear_unseen();
                self.live = 0;
            } else {
                self.publish(&copies, head.id, Entry::of(head.kind, copy, head.len))?;
            }
        }
        self.commit = first.commit;
        pending.clear();
        self.pending = pending;
        Ok(len)
    }

    /// Copies the rest of the log, and replaces the old generation by the new one.
    fn finish(&mut self) -> Result<()> {
        let shared = self.shared;
        let log = self.open_base()?;
        // Not under the writer lock: to overwrite a long history takes its time, in the old files and in
        // these. What is erased by now is gone from them, and nothing more is erased until they are the
        // database's.
        if shared.erasures.is_under_way() {
            self.brake.release();
        }
        let no_erasure = shared.erasures.none()?;
        // The last of it is short: what comes during one sync from writers that pause. They do so
        // until the lock is had, too, which who waits for it rarely gets from one who asks for it
        // again at once.
        self.brake.touch();
        self.catch_up()?;
        let left = {
            let mut writer = shared.writer();
            let writer = &mut *writer;
            self.brake.release();
            shared.check_poison()?;
            self.copy_log(|_, _| Ok(()))?;
            let mut copies = self.copies();
            copies.log.sync()?;
            if (self.commit, self.live) != (writer.commit, writer.live) {
                return Err(Error::corrupt(
                    shared.storage.describe(""),
                    0,
                    format!(
                        "up to commit {} there are {} live records, and commit {} has {}",
                        self.commit, self.live, writer.commit, writer.live
                    ),
                ));
            }
            if planted!(old_removed_before_manifest) {
                for segment in self.start.world.log.segments() {
                    remove_if_there(&*shared.storage, &name(segment.number))
                        .map_err(|error| Error::from_io("remove", name(segment.number), error))?;
                }
            }
            // All that can fail comes before the old files are not the database any more.
            let tail = self.open_log(&copies, &log)?;
            let clears = Clears::new(&self.clears)?;
            if let Err(error) = self.write_generation(&copies, writer) {
                return Err(self.settle(&mut copies, error));
            }
            self.go_over(writer, copies.hand_over(), log, tail, clears)
        };
        drop(no_erasure);
        // Not under the lock: it waits for those who still read in the old files, and gives back what
        // may be gigabytes.
        drop(left);
        Ok(())
    }

    /// Makes the new generation the one that the next opening finds.
    fn write_generation(&mut self, copies: &Copies, writer: &mut Writer) -> Result<()> {
        let file = |file: &Copied, kind| DataFile {
            number: file.number,
            kind,
            len: file.end as u32,
        };
        let base = copies.base.files().iter();
        let base = base.map(|copied| file(copied, FileKind::Compacted));
        let log = copies.log.files().iter();
        let files = collected(base.chain(log.map(|copied| file(copied, FileKind::Log))))?;
        // Of the others the headers say that they are of an earlier generation.
        let is_frozen = |file: &&DataFile| matches!(file.kind, FileKind::Frozen { .. });
        let frozen = writer.manifest.files.iter().filter(is_frozen);
        let doomed = writer.manifest.doomed.iter().copied();
        let mut doomed = collected(doomed.chain(frozen.map(|file| file.number)))?;
        doomed.sort_unstable();
        doomed.dedup();
        let (next_id, commit, time_us) = (writer.next_id, writer.commit, writer.time_us);
        // Changes may have been applied meanwhile.
        self.oldest = self.oldest.max(self.start.world.oldest());
        let Start {
            commit: base,
            generation,
            ..
        } = self.start;
        let Compaction { clears, oldest, .. } = self;
        self.shared.write_manifest(writer, |manifest| {
            manifest.doomed = doomed;
            manifest.generation = generation;
            manifest.is_compacting = false;
            manifest.state = State::Open;
            manifest.next_id = next_id;
            manifest.commit = commit;
            manifest.time_us = time_us;
            manifest.base = None;
            manifest.dump = None;
            manifest.files = files;
            manifest.oldest = *oldest;
            manifest.base_time_us = base.time_us;
            manifest.clears = std::mem::take(clears);
            // What clears deleted of it before the log begins, records say now.
            manifest.taken_over.clear();
        })
    }

    /// After the manifest could not be replaced for sure: whatever it names must stay.
    fn settle(&self, copies: &mut Copies, error: Error) -> Error {
        let shared = self.shared;
        let old = self.start.world.log.generation;
        let found = Manifest::read(&*shared.storage);
        let is_old = matches!(&found, Ok(Some(manifest)) if manifest.generation == old);
        if is_old && shared.check_poison().is_ok() {
            return error;
        }
        copies.base.leave();
        copies.log.leave();
        match shared.check_poison() {
            Ok(()) => shared.poison_with(error),
            Err(_) => error,
        }
    }

    /// Lets readers and the writer go over to the new generation, which is on disk: to `log`, and to its
    /// end. Returns what is not needed any more.
    fn go_over(
        &mut self,
        writer: &mut Writer,
        copies: Copies,
        log: Log,
        tail: Tail,
        clears: Clears,
    ) -> Left {
        let shared = self.shared;
        let storage = &shared.storage;
        let old = &self.start.world;
        let Copies {
            mut base,
            log: mut copied,
            lookup,
        } = copies;
        base.leave();
        copied.leave();
        // Where that fails, the next opening makes both again, from the log or a later checkpoint.
        if lookup.is_on_disk() {
            let _ = checkpoint::name_table(&**storage, &lookup);
        } else if !shared.volatile {
            let _ = storage.rename(checkpoint::NEXT_INDEX, checkpoint::INDEX);
        }
        let mut world = World::new(
            log,
            lookup,
            clears,
            self.start.commit,
            Vec::new(),
            self.oldest,
        );
        world.kept_dead = Some(base.bytes() - self.bytes_live);
        let world = Arc::new(world);
        let tail = std::mem::replace(&mut writer.tail, tail);
        writer.tally = self.tally;
        let deletions = std::mem::take(&mut writer.deletions);
        let mut snapshots = shared.snapshots.lock();
        old.end();
        snapshots.go_over(&world, writer.tail.end());
        shared.erasures.add_replaced(old);
        // First: the old world is right by the new counters, and the new one, which has what is not
        // visible yet without its predecessors, need not be by the old ones.
        shared.counters.show(&writer.now());
        let replaced = shared.world.replace(world);
        drop(snapshots);
        // All of it is on disk.
        shared.group.synced(writer.commit);
        Left {
            _world: replaced,
            _tail: tail,
            _deletions: deletions,
        }
    }

    /// The log of the new generation, with the data files of the base.
    fn open_base(&self) -> Result<Log> {
        let old = &self.start.world.log;
        let log = Log::new(Arc::clone(&old.storage), old.uuid, self.start.generation);
        for file in self.copies().base.files() {
            log.add(Segment::own(file.number, &log, self.view(file, file.end)?));
        }
        Ok(log)
    }

    fn view(&self, file: &Copied, reserve: u64) -> Result<View> {
        let storage = &*self.shared.storage;
        let view = file.open(storage)?.view(reserve);
        let failed = |error| Error::from_io("map", storage.describe(&name(file.number)), error);
        view.map_err(failed)
            .inspect(|view| view.extend_to(file.end))
    }

    /// Adds the data files that were copied of the old log; where the new one goes on.
    fn open_log(&self, copies: &Copies, log: &Log) -> Result<Tail> {
        let mut tail = Tail::new(self.numbers.next(), self.shared.limits.file_size);
        let copied = copies.log.files();
        for (index, file) in copied.iter().enumerate() {
            let is_last = index + 1 == copied.len();
            let reserve = if is_last { LONGEST_FILE + 1 } else { file.end };
            let view = self.view(file, reserve)?;
            let segment = log.add(Segment::of_log(file.number, log, view));
            if is_last {
                tail.resume(segment, file.open(&*log.storage)?, file.end, false);
            }
        }
        Ok(tail)
    }
}

/// What is copied of a version that was erased has no value: there is nothing in it but zeros.
fn without_zeros(head: &Head) -> Head {
    match head.kind {
        Kind::Erased => Head {
            len: 0,
            crc: 0,
            ..*head
        },
        _ => *head,
    }
}
