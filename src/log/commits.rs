//! Reading the log commit by commit, from any commit on, from the files and not from a mapping.
//!
//! A data file's header says which commit it begins with, so to find a commit at most one data
//! file is read. Who reads on where somebody stopped finds the place in [`Ends`].

use std::collections::VecDeque;

use super::Log;
use super::record::{HEAD, Head, Kind, Seed};
use super::scan::{Found, ReadRecord};
use super::segment::{FILE_HEADER, FileHeader, LogEnd, name};
use super::sequence::Sequence;
use crate::error::{Error, Result};
use crate::reader::Reader;
use crate::sync::{Mutex, MutexGuard, PoisonError};

/// A commit, and where the log goes on behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CommitEnd {
    pub(crate) commit: u64,
    pub(crate) time_us: u64,
    end: LogEnd,
}

/// Where commits end that were read last: their readers are likely to go on there.
#[derive(Debug, Default)]
pub(crate) struct Ends(Mutex<VecDeque<CommitEnd>>);

impl Ends {
    /// So many readers may be under way at once, each at a place of its own.
    const MOST: usize = 32;

    fn ends(&self) -> MutexGuard<'_, VecDeque<CommitEnd>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes where a commit ends, and forgets the one that was asked for longest ago.
    pub(crate) fn note(&self, end: CommitEnd) {
        let mut ends = self.ends();
        ends.retain(|known| known.commit != end.commit);
        if ends.len() == Ends::MOST {
            ends.pop_front();
        }
        ends.push_back(end);
    }

    /// Whether it is known where `commit` ends.
    pub(crate) fn has(&self, commit: u64) -> bool {
        self.ends().iter().any(|known| known.commit == commit)
    }

    /// The known end that is nearest before the commit that follows `commit`.
    fn at_or_before(&self, commit: u64) -> Option<CommitEnd> {
        let mut ends = self.ends();
        let before = (0..ends.len()).filter(|&index| ends[index].commit <= commit);
        let nearest = before.max_by_key(|&index| ends[index].commit)?;
        let found = ends.remove(nearest)?;
        ends.push_back(found);
        Some(found)
    }
}

/// A data file of the log, up to some end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogPart {
    pub(crate) number: u16,
    pub(crate) seed: Seed,
    pub(crate) end: u64,
}

impl LogPart {
    /// The commit that it begins with.
    pub(crate) fn first_commit(&self, log: &Log) -> Result<u64> {
        let header = FileHeader::of(&*log.storage, self.number)?;
        Ok(self.check(log, header)?.first_commit)
    }

    /// The header of the file that has its number, if that is this one still: where a reader is behind its
    /// writer, it may be another one by now.
    fn check(&self, log: &Log, header: Option<FileHeader>) -> Result<FileHeader> {
        let damaged = |what| Error::corrupt(log.storage.describe(&name(self.number)), 0, what);
        let header =
            header.ok_or_else(|| damaged("the data file's header does not match its checksum"))?;
        match header.is_of(&log.uuid, log.generation) {
            true => Ok(header),
            false => Err(damaged("the data file's header is not the one it had")),
        }
    }

    /// Opens it, to be read up to its end.
    fn open(&self, log: &Log) -> Result<Reader> {
        let reader = Reader::sequential(&*log.storage, &name(self.number))?;
        self.check(log, FileHeader::decode(&reader.first::<FILE_HEADER>()?))?;
        Ok(reader.up_to(self.end))
    }
}

/// The log from some commit on, record by record.
#[derive(Debug)]
pub(crate) struct Commits<'a> {
    log: &'a Log,
    /// Ascending.
    parts: Vec<LogPart>,
    part: usize,
    reader: Option<Reader>,
    at: u64,
    sequence: Sequence,
    /// Where the last whole commit ends.
    end: LogEnd,
}

impl<'a> Commits<'a> {
    /// The log in `parts` behind commit `since`: behind the last commit that is in it and not after
    /// that, which is [`Commits::last`]; or from its beginning on, where it has no such commit.
    pub(crate) fn after(log: &'a Log, parts: Vec<LogPart>, since: u64) -> Result<Commits<'a>> {
        let mut commits = Commits {
            log,
            parts,
            part: 0,
            reader: None,
            at: 0,
            sequence: Sequence::after(since, 0),
            end: LogEnd::default(),
        };
        commits.begin(since)?;
        while commits.sequence.commit() < since {
            let (part, at) = (commits.part, commits.at);
            let (sequence, end) = (commits.sequence, commits.end);
            let Some((head, _)) = commits.next()? else {
                let file = commits.parts.last().map(|part| name(part.number));
                return Err(Error::corrupt(
                    log.storage.describe(&file.unwrap_or_default()),
                    commits.at,
                    format!("commit {since} should be here, and the log ends"),
                ));
            };
            if head.commit > since {
                // It is one of those that are left out here.
                if commits.part != part {
                    commits.reader = None;
                }
                (commits.part, commits.at) = (part, at);
                (commits.sequence, commits.end) = (sequence, end);
                break;
            }
        }
        Ok(commits)
    }

    /// Goes to the nearest known place that is not behind the end of commit `since`.
    fn begin(&mut self, since: u64) -> Result<()> {
        let noted = self.log.ends.at_or_before(since);
        if let Some(noted) = noted.filter(|noted| noted.commit == since) {
            self.go_on_from(noted);
            return Ok(());
        }
        // The last data file that begins with `since` or before, or else the first one.
        let (mut low, mut high) = (1, self.parts.len());
        let mut first = match self.parts.first() {
            Some(part) => part.first_commit(self.log)?,
            None => 0,
        };
        while low < high {
            let middle = low + (high - low) / 2;
            let begins_with = self.parts[middle].first_commit(self.log)?;
            if begins_with <= since {
                first = begins_with;
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let before = first.saturating_sub(1);
        match noted.filter(|noted| noted.commit > before) {
            Some(noted) => self.go_on_from(noted),
            None => {
                self.part = low - 1;
                self.at = FILE_HEADER as u64;
                self.sequence = Sequence::after(before, 0);
            }
        }
        Ok(())
    }

    fn go_on_from(&mut self, end: CommitEnd) {
        let number = end.end.file;
        self.part = self.parts.partition_point(|part| part.number < number);
        self.at = u64::from(end.end.position);
        self.sequence = Sequence::after(end.commit, end.time_us);
        self.end = end.end;
    }

    /// The last whole commit that was read.
    pub(crate) fn last(&self) -> CommitEnd {
        CommitEnd {
            commit: self.sequence.commit(),
            time_us: self.sequence.time_us(),
            end: self.end,
        }
    }

    /// The next record that isn't a sync mark, verified in every respect; `None` where the log ends.
    pub(crate) fn next(&mut self) -> Result<Option<(Head, &[u8])>> {
        let (at, head) = loop {
            let Some(&part) = self.parts.get(self.part) else {
                return Ok(None);
            };
            let damaged = |at, what: String| {
                Error::corrupt(self.log.storage.describe(&name(part.number)), at, what)
            };
            if self.at >= part.end {
                if self.sequence.unfinished().is_some() {
                    let what = "the log ends here, in the middle of a commit";
                    return Err(damaged(self.at, what.into()));
                }
                self.part += 1;
                self.at = FILE_HEADER as u64;
                self.reader = None;
                continue;
            }
            let reader = match &mut self.reader {
                Some(reader) => reader,
                none => none.insert(part.open(self.log)?),
            };
            let at = self.at;
            let head = match reader.record(at, part.seed)? {
                Found::Record(head) => head,
                Found::Value(_, why) | Found::Nothing(why) => {
                    return Err(damaged(at, why.to_owned()));
                }
            };
            self.at += head.record_len();
            if head.kind == Kind::SyncMark {
                continue;
            }
            if let Err(what) = self.sequence.admit(&head) {
                return Err(damaged(at, what.to_string()));
            }
            self.sequence.go_on(&head);
            if head.last {
                self.end = LogEnd {
                    file: part.number,
                    position: self.at as u32,
                };
            }
            break (at, head);
        };
        match &mut self.reader {
            Some(reader) => {
                let value = reader.bytes(at + HEAD as u64, u64::from(head.len))?;
                Ok(Some((head, value)))
            }
            None => Ok(None),
        }
    }
}
