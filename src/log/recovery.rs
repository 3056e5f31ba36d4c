//! Reading the log from front to back, and deciding where it ends.
//!
//! The rule has two sides. The log is read up to the first place that doesn't hold a valid
//! record. If anything proves that what should be there had been on disk (the manifest, the
//! checkpoint, a sync mark further on), it is damage and nothing is changed. Otherwise it is the
//! torn end of writes that were never synced: the log ends with the last whole commit before it.
//! But where the next data file says that it goes on from there, that place is none of the log's.

use std::collections::BTreeSet;

use super::record::{HEAD, HEROLIB_HEADER, Head, Kind, Seed, looks_like_sync_mark};
use super::scan::{Found, PIECE, ReadRecord};
use super::segment::{FILE_HEADER, FileHeader, LogEnd, name};
use super::sequence::Sequence;
use crate::bytes::{collected, reserve};
use crate::error::{Error, Result};
use crate::location::Location;
use crate::planted::planted;
use crate::reader::Reader;
use crate::storage::{Access, Storage, remove_if_there};

/// A data file of the log that is to be read.
#[derive(Debug)]
pub(crate) struct LogFile {
    pub(crate) number: u16,
    pub(crate) len: u64,
    /// `None` where it doesn't verify.
    pub(crate) header: Option<FileHeader>,
}

/// One version, as the log tells it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Replayed {
    pub(crate) kind: Kind,
    pub(crate) id: u32,
    pub(crate) location: Location,
    pub(crate) len: u32,
    pub(crate) commit: u64,
    pub(crate) time_us: u64,
    /// Where it says that the version before is.
    pub(crate) previous: Location,
}

/// What the log is read against, and from where.
#[derive(Debug)]
pub(crate) struct Start {
    /// Where to begin: the end of what the checkpoint stands for. `None`: with the first file.
    pub(crate) from: Option<LogEnd>,
    /// The commit before that.
    pub(crate) commit: u64,
    pub(crate) time_us: u64,
    /// The log was on disk up to here, for all that is known outside of it.
    pub(crate) synced: Option<LogEnd>,
    /// Go on after damage with the next record that verifies.
    pub(crate) salvage: bool,
    /// Somebody is at work on the log, and what he has reserved behind its end need not be searched each time
    /// for what a loss of power has left: where the next piece is zeros, nothing has come yet.
    pub(crate) follows: bool,
    /// Values that herolib has zeroed count as if they were still there.
    pub(crate) zeroed: bool,
}

/// Where the log ends, and what lies behind.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// `None`: there is no log.
    pub(crate) end: Option<LogEnd>,
    pub(crate) commit: u64,
    pub(crate) time_us: u64,
    /// Up to here the log was on disk at some time, as the start or a sync mark says.
    pub(crate) synced: Option<LogEnd>,
    /// The last commit of those that were; 0 if none is known.
    pub(crate) synced_commit: u64,
    /// Bytes that were read.
    pub(crate) read: u64,
    /// Whether anything but reserved space lies behind the end.
    pub(crate) torn: bool,
    /// Numbers of the data files behind the end.
    pub(crate) behind: Vec<u16>,
    /// Numbers of the data files whose making was interrupted: where the header should be stand zeros
    /// or parts of it, or nothing.
    pub(crate) unfinished: Vec<u16>,
}

impl Outcome {
    /// Whether a part of the log may not be on disk.
    pub(crate) fn has_unsynced(&self) -> bool {
        self.end > self.synced
    }
}

/// Reads the log in `files` (ascending) and hands each commit's records to `apply`.
pub(crate) fn replay(
    storage: &dyn Storage,
    uuid: &[u8; 16],
    files: &[LogFile],
    start: &Start,
    mut apply: impl FnMut(&[Replayed]) -> Result<()>,
) -> Result<Outcome> {
    let mut outcome = Outcome {
        end: start.from,
        commit: start.commit,
        time_us: start.time_us,
        synced: start.synced,
        // Who follows has read it, on disk or not.
        synced_commit: if start.follows { 0 } else { start.commit },
        read: 0,
        torn: false,
        behind: Vec::new(),
        unfinished: match start.salvage {
            true => Vec::new(),
            false => unfinished(storage, uuid, files)?,
        },
    };
    let mut replay = Replay {
        storage,
        uuid,
        salvage: start.salvage,
        follows: start.follows,
        zeroed: start.zeroed,
        sequence: Sequence::after(start.commit, start.time_us),
        pending: Vec::new(),
    };
    let mut expected = start.from;
    // Where the file before was to go on from, if there is nothing in it: making it failed after
    // its header was written, and the one after was made in its stead.
    let mut instead = None;
    let first = match start.from {
        None => 0,
        Some(from) => match files.iter().position(|file| file.number == from.file) {
            Some(index) => index,
            None => {
                return Err(Error::corrupt(
                    storage.describe(&name(from.file)),
                    0,
                    "the data file is missing, and the checkpoint says that it was there",
                ));
            }
        },
    };
    let mut broken = None;
    let mut index = first;
    while let Some(file) = files.get(index) {
        let is_first = index == first && start.from.is_some();
        let follows = file.header.as_ref().is_some_and(|header| {
            header.number == file.number
                && header.uuid == *uuid
                && (is_first
                    || header.after == expected
                    || Some(header.after) == instead
                    || planted!(gaps_between_data_files_ignored))
        });
        if file.header.is_none() && !is_first && !start.salvage {
            // A file that was just being made, or somebody else's: unless it proves to be part of
            // the log, the log goes on without it.
            if find_sync_mark(storage, uuid, file, 0, outcome.end)?.is_some() {
                broken = Some((
                    index,
                    0,
                    "the data file's header does not match its checksum",
                ));
                break;
            }
            index += 1;
            continue;
        }
        if is_first
            && (!follows
                || start
                    .from
                    .is_some_and(|from| file.len < u64::from(from.position)))
        {
            // The checkpoint was written after the log before it was synced.
            let offset = if follows { file.len } else { 0 };
            let what =
                "the checkpoint says that the data file was on disk up to its end, and it isn't";
            return Err(Error::corrupt(
                storage.describe(&name(file.number)),
                offset,
                what,
            ));
        }
        if !follows && !start.salvage {
            // The file before ended where nothing was torn, but this one doesn't go on from there.
            broken = Some((
                index,
                0,
                "the data file does not go on where the one before ends",
            ));
            break;
        }
        let from = match start.from {
            Some(from) if is_first => u64::from(from.position),
            _ => FILE_HEADER as u64,
        };
        if from > file.len {
            if start.salvage {
                index += 1;
                continue;
            }
            broken = Some((index, file.len, "the data file is shorter than its header"));
            break;
        }
        if !is_first {
            outcome.end = Some(LogEnd {
                file: file.number,
                position: FILE_HEADER as u32,
            });
        }
        if let Some((offset, why)) = replay.file(file, from, &mut outcome, &mut apply)?
            && !start.salvage
            && !goes_on_behind(storage, uuid, &files[index..], offset, &outcome)?
        {
            broken = Some((index, offset, why));
            break;
        }
        let end = Some(LogEnd {
            file: file.number,
            position: FILE_HEADER as u32,
        });
        let nothing = outcome.end == end;
        instead = nothing.then_some(file.header.and_then(|header| header.after));
        expected = outcome.end;
        index += 1;
    }
    let Some((index, offset, why)) = broken else {
        return match start
            .synced
            .filter(|&synced| outcome.end.is_none_or(|end| end < synced))
        {
            Some(synced) if !start.salvage && !planted!(watermark_ignored) => {
                Err(lost(storage, outcome.end, synced))
            }
            _ => Ok(outcome),
        };
    };
    let place = LogEnd {
        file: files[index].number,
        position: offset as u32,
    };
    let damaged = |proof: String| {
        Error::corrupt(
            storage.describe(&name(place.file)),
            offset,
            format!("{why}, and it was on disk: {proof}"),
        )
    };
    let end = outcome.end;
    if let Some(synced) = start
        .synced
        .filter(|&synced| end.is_none_or(|end| end < synced) && !planted!(watermark_ignored))
    {
        return Err(damaged(format!("the log was synced up to {synced}")));
    }
    for (later, file) in files.iter().enumerate().skip(index) {
        let from = if later == index { offset } else { 0 };
        if let Some((mark, synced)) = find_sync_mark(storage, uuid, file, from, end)? {
            return Err(damaged(format!(
                "the sync mark at {mark} covers the log up to {synced}"
            )));
        }
    }
    outcome.torn = true;
    let behind = files[index..].iter().filter(|file| file.header.is_some());
    let behind = behind.map(|file| file.number);
    let behind = behind.filter(|&number| outcome.end.is_none_or(|end| end.file != number));
    outcome.behind = collected(behind)?;
    Ok(outcome)
}

/// Whether what breaks the log off in the first of `files`, at `offset`, is no part of it: the next one says
/// that the log had ended before that, and went on in it. Somebody has appended something since, or a loss of
/// power has brought back what was cut off.
fn goes_on_behind(
    storage: &dyn Storage,
    uuid: &[u8; 16],
    files: &[LogFile],
    offset: u64,
    outcome: &Outcome,
) -> Result<bool> {
    let Some((file, later)) = files.split_first() else {
        return Ok(false);
    };
    let next = later.iter().find_map(|file| file.header);
    let Some(next) = next.filter(|next| next.after == outcome.end) else {
        return Ok(false);
    };
    // What proves that the log went on here comes first: a loss of power may have brought back a data file
    // whose making had failed, too.
    if find_sync_mark(storage, uuid, file, offset, outcome.end)?.is_some() {
        return Ok(false);
    }
    let commit = outcome.commit.saturating_add(1);
    if next.first_commit == commit {
        return Ok(true);
    }
    // No crash does that.
    Err(Error::corrupt(
        storage.describe(&name(next.number)),
        0,
        format!(
            "the data file goes on where the log before it ends, with commit {} in place of {commit}",
            next.first_commit
        ),
    ))
}

fn unfinished(storage: &dyn Storage, uuid: &[u8; 16], files: &[LogFile]) -> Result<Vec<u16>> {
    let mut unfinished = Vec::new();
    for file in files.iter().filter(|file| file.header.is_none()) {
        let mut reader = reader(storage, file)?;
        let header = reader.bytes(0, FILE_HEADER as u64)?;
        if header.iter().all(|&byte| byte == 0)
            || FileHeader::is_unfinished(storage, file.number, uuid)?
        {
            reserve(&mut unfinished, 1)?;
            unfinished.push(file.number);
        }
    }
    Ok(unfinished)
}

fn lost(storage: &dyn Storage, end: Option<LogEnd>, synced: LogEnd) -> Error {
    let (file, offset) = end.map_or((synced.file, 0), |end| (end.file, end.position));
    Error::corrupt(
        storage.describe(&name(file)),
        u64::from(offset),
        format!("the log ends here, and it was synced up to {synced}"),
    )
}

struct Replay<'a> {
    storage: &'a dyn Storage,
    uuid: &'a [u8; 16],
    salvage: bool,
    follows: bool,
    zeroed: bool,
    sequence: Sequence,
    /// The records of a commit whose last one has not come yet.
    pending: Vec<Replayed>,
}

impl Replay<'_> {
    /// Reads one data file; where and why it broke off, if it did.
    fn file(
        &mut self,
        file: &LogFile,
        from: u64,
        outcome: &mut Outcome,
        apply: &mut impl FnMut(&[Replayed]) -> Result<()>,
    ) -> Result<Option<(u64, &'static str)>> {
        let seed = Seed::new(self.uuid, file.number);
        let mut reader = match reader(self.storage, file) {
            Err(_) if self.salvage => return Ok(None),
            reader => reader?.salvaging(self.salvage),
        };
        let mut at = from;
        let broke = loop {
            if at == file.len {
                break None;
            }
            let (head, why) = match reader.record(at, seed)? {
                Found::Record(head) => (Some(head), "the record is out of order"),
                Found::Value(_, why) | Found::Nothing(why) => (None, why),
            };
            let is_next = |head: &Head| self.salvage || self.sequence.admit(head).is_ok();
            let head = match head.filter(is_next) {
                None if self.zeroed => self.zeroed_record(&mut reader, at, seed)?,
                head => head,
            };
            let Some(head) = head else {
                let is_end = match self.follows {
                    true => reader.at_hand(at).iter().all(|&byte| byte == 0),
                    false => reader.end_of_zeros(at)? == reader.len(),
                };
                if is_end {
                    break None;
                }
                if self.salvage
                    && let Some(next) = reader.next_record(at + 1, seed)?
                {
                    self.break_off();
                    at = next;
                    continue;
                }
                break Some((at, why));
            };
            let position = at + HEROLIB_HEADER;
            at += head.record_len();
            self.sequence.go_on(&head);
            if head.kind == Kind::SyncMark {
                outcome.synced = outcome
                    .synced
                    .max(Some(LogEnd::from_location(head.previous)));
                outcome.synced_commit = outcome.synced_commit.max(head.commit);
            } else {
                reserve(&mut self.pending, 1)?;
                self.pending.push(Replayed {
                    kind: head.kind,
                    id: head.id,
                    location: Location {
                        file: file.number,
                        position: position as u32,
                    },
                    len: head.len,
                    commit: head.commit,
                    time_us: head.time_us,
                    previous: head.previous,
                });
                if !head.last && !planted!(commit_flag_ignored) {
                    continue;
                }
                apply(&self.pending)?;
                self.pending.clear();
                // Of what is salvaged, an earlier commit may come after a later one.
                outcome.commit = outcome.commit.max(head.commit);
                outcome.time_us = outcome.time_us.max(head.time_us);
            }
            outcome.end = Some(LogEnd {
                file: file.number,
                position: at as u32,
            });
        };
        outcome.read += at - from;
        let is_whole = self.pending.is_empty();
        self.break_off();
        if broke.is_none() && !is_whole {
            return Ok(Some((at, "the last record of the commit is missing")));
        }
        Ok(broke)
    }

    /// The value that herolib has zeroed at `at`, if it has.
    fn zeroed_record(&self, reader: &mut Reader, at: u64, seed: Seed) -> Result<Option<Head>> {
        reader.zeroed_record(at, seed, |before, head| {
            let mut sequence = self.sequence;
            if let Some(before) = before {
                sequence.go_on(before);
            }
            sequence.admit(head).is_ok()
        })
    }

    /// Leaves out what was read of a commit that isn't whole.
    fn break_off(&mut self) {
        self.sequence.break_off();
        self.pending.clear();
    }
}

/// A sync mark at or after `from` that says more was on disk than `end`: where, and up to where.
fn find_sync_mark(
    storage: &dyn Storage,
    uuid: &[u8; 16],
    file: &LogFile,
    from: u64,
    end: Option<LogEnd>,
) -> Result<Option<(LogEnd, LogEnd)>> {
    if planted!(sync_marks_ignored) {
        return Ok(None);
    }
    let seed = Seed::new(uuid, file.number);
    let mut reader = reader(storage, file)?;
    let mut at = from;
    // The file may have become shorter: a writer gives reserved space back while others read.
    while at + HEAD as u64 <= reader.len() {
        let bytes = reader.bytes(at, PIECE)?;
        let tried = bytes.len() - HEAD + 1;
        for (index, candidate) in bytes.windows(HEAD).enumerate() {
            if !looks_like_sync_mark(candidate) {
                continue;
            }
            let position = at + index as u64;
            let Some(candidate) = candidate.first_chunk::<HEAD>() else {
                continue;
            };
            let Some(head) = Head::verify(candidate, seed, position as u32) else {
                continue;
            };
            let synced = LogEnd::from_location(head.previous);
            if end.is_none_or(|end| end < synced) {
                let mark = LogEnd {
                    file: file.number,
                    position: position as u32,
                };
                return Ok(Some((mark, synced)));
            }
        }
        at += tried as u64;
    }
    Ok(None)
}

/// A reader of a data file of the log.
fn reader(storage: &dyn Storage, file: &LogFile) -> Result<Reader> {
    Ok(Reader::sequential(storage, &name(file.number))?.up_to(file.len))
}

/// Cuts the log at `outcome.end`. What lay behind is kept in `torn-*` files, unless it is but
/// zeros: first copied or moved aside, durably, then cut, so that recovery can be interrupted
/// anywhere and run again.
pub(crate) fn cut(storage: &dyn Storage, files: &[LogFile], outcome: &Outcome) -> Result<()> {
    let failed = |action, name: &str, error| Error::from_io(action, storage.describe(name), error);
    let numbers = |file: &&LogFile| {
        outcome.behind.contains(&file.number) || outcome.unfinished.contains(&file.number)
    };
    // Asked for once: there may be as many files as there are numbers.
    let names = storage
        .list("")
        .map_err(|error| failed("list", "", error))?;
    let mut taken = BTreeSet::new();
    // One by one: all at once they would be sorted first, in memory of that length.
    taken.extend(names);
    for file in files.iter().filter(numbers).rev() {
        let from = name(file.number);
        if reader(storage, file)?.written_end(0)? == 0 {
            remove_if_there(storage, &from).map_err(|error| failed("remove", &from, error))?;
            continue;
        }
        let number = file.number;
        let aside = free_name(&mut taken, &format!("torn-{number}"));
        storage
            .rename(&from, &aside)
            .map_err(|error| failed("rename", &from, error))?;
    }
    if !outcome.behind.is_empty() || !outcome.unfinished.is_empty() {
        storage
            .sync_directory("")
            .map_err(|error| failed("sync", "", error))?;
    }
    let Some(end) = outcome.end else {
        return Ok(());
    };
    let Some(last) = files.iter().find(|file| file.number == end.file) else {
        return Ok(());
    };
    let position = u64::from(end.position);
    if last.len > position {
        let mut reader = reader(storage, last)?;
        let stop = reader.written_end(position)?;
        if stop > position {
            let aside = free_name(&mut taken, &format!("torn-{}-{position}", end.file));
            keep_aside(storage, &mut reader, position, stop, &aside)?;
        }
    }
    let number = name(end.file);
    let file = storage
        .open(&number, Access::Write)
        .map_err(|e| failed("open", &number, e))?;
    if !planted!(torn_end_not_cut) {
        file.set_len(position)
            .map_err(|error| failed("cut", &number, error))?;
    }
    // Before anything new is written there: after a power loss nothing of the old may be found
    // among the new.
    if planted!(cut_not_synced) {
        return Ok(());
    }
    file.sync().map_err(|error| failed("sync", &number, error))
}

/// Writes `[from, to)` of a data file over itself. After a failed sync the kernel may hold pages
/// that it believes to be on disk and that are not; written again, they are synced again.
pub(crate) fn rewrite(storage: &dyn Storage, file: &LogFile, from: u64, to: u64) -> Result<()> {
    let name = name(file.number);
    let mut reader = reader(storage, file)?;
    let failed = |error| Error::from_io("write", storage.describe(&name), error);
    let opened = storage.open(&name, Access::Write).map_err(failed)?;
    let mut at = from;
    while at < to {
        let bytes = reader.bytes(at, (to - at).min(PIECE))?;
        if bytes.is_empty() {
            return Err(shorter(storage, &name, at));
        }
        opened.write_at(at, &[bytes]).map_err(failed)?;
        at += bytes.len() as u64;
    }
    Ok(())
}

fn shorter(storage: &dyn Storage, name: &str, at: u64) -> Error {
    Error::corrupt(
        storage.describe(name),
        at,
        "the data file becomes shorter while it is read",
    )
}

fn keep_aside(
    storage: &dyn Storage,
    reader: &mut Reader,
    from: u64,
    to: u64,
    aside: &str,
) -> Result<()> {
    let written = (|| {
        let file = storage.open(aside, Access::CreateNew).map_err(Ok)?;
        let mut at = from;
        while at < to {
            let bytes = reader.bytes(at, (to - at).min(PIECE)).map_err(Err)?;
            if bytes.is_empty() {
                return Err(Err(shorter(storage, aside, at)));
            }
            file.write_at(at - from, &[bytes]).map_err(Ok)?;
            at += bytes.len() as u64;
        }
        file.sync().map_err(Ok)?;
        storage.sync_directory("").map_err(Ok)
    })();
    written.map_err(|error: std::result::Result<std::io::Error, Error>| {
        // A copy that isn't whole is worth nothing; the original is still in its place.
        let _ = remove_if_there(storage, aside);
        match error {
            Ok(error) => Error::from_io("write", storage.describe(aside), error),
            Err(error) => error,
        }
    })
}

/// `wanted`, or with a number behind it where that is taken; it is then.
fn free_name(taken: &mut BTreeSet<String>, wanted: &str) -> String {
    let mut name = wanted.to_owned();
    let mut count = 0u32;
    while !taken.insert(name.clone()) {
        count += 1;
        name = format!("{wanted}.{count}");
    }
    name
}
