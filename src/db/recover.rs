//! The lookup at the end of the log: from a checkpoint, or from what the log builds upon, and then
//! record by record.

use std::collections::HashMap;

use super::erase::Erasing;
use super::opening::Opening;
use crate::base;
use crate::bytes::{copied, reserve};
use crate::error::{Error, Result};
use crate::hash::FixedHasher;
use crate::log::record::{Head, Kind, Seed};
use crate::log::recovery::{self, Outcome, Replayed, Start};
use crate::log::scan::{Found, ReadRecord};
use crate::log::segment::{FILE_HEADER, FileHeader, LogEnd, name};
use crate::lookup::checkpoint::{self, Checkpoint, Load, Loaded, NewTable, Tally};
use crate::lookup::{Entry, Lookup};
use crate::manifest::{Clear, FileKind, MANIFEST, State};
use crate::options::LookupKind;
use crate::planted::planted;
use crate::reader::Reader;
use crate::storage::Storage;

/// The lookup at the end of the log, and the counters with it.
pub(super) struct Recovered<'a> {
    pub(super) lookup: Lookup,
    /// Its file, if it is a new one on disk.
    pub(super) table: NewTable<'a>,
    /// Of those, the manifest's and the log's.
    pub(super) clears: Vec<Clear>,
    pub(super) outcome: Outcome,
    pub(super) next_id: u64,
    pub(super) live: u64,
    pub(super) tally: Tally,
    /// What is erased as the part of the log that was read says, by record.
    pub(super) erasures: HashMap<u32, Erasing, FixedHasher>,
}

impl<'a> Opening<'a> {
    /// Brings the lookup up to the end of the log.
    pub(super) fn recover(&self) -> Result<Recovered<'a>> {
        self.recovered(false)
    }

    /// The same, with the values that herolib has zeroed since, as if they were still there.
    pub(super) fn recover_as_it_was(&self) -> Result<Recovered<'a>> {
        self.recovered(true)
    }

    fn recovered(&self, zeroed: bool) -> Result<Recovered<'a>> {
        let storage = &**self.storage;
        let manifest = &self.manifest;
        let limit = self.limits().record_nr_max;
        let kind = if self.read_only || self.options.memory {
            LookupKind::Memory
        } else {
            self.options.lookup
        };
        let clean = manifest.state == State::Clean;
        let wanted = Load {
            limit,
            kind,
            table_is_clean: clean,
        };
        let found = if self.salvage() || self.entries.is_some() {
            Checkpoint::default()
        } else {
            checkpoint::load(storage, &manifest.uuid, manifest.generation, wanted)?
        };
        let mut synced = manifest.log_end();
        // It may be that of the later backup already.
        let is_this = manifest.state != State::Extending || found.log_end <= synced;
        if is_this {
            synced = synced.max(found.log_end);
        }
        // Else the log is read from its beginning: what nothing lists could be another file by now.
        let is_usable = is_this && found.log_end.is_none_or(|end| self.lists_all_before(end));
        // Nor where clears that it stands for are in no list: then it is of a later manifest than this one.
        let has_its_clears = |state: &checkpoint::State| {
            let listed = manifest.clears.iter().copied();
            checkpoint::clears_crc(listed, state.commit) == state.clears_crc
                || planted!(clears_not_noted)
        };
        let is_usable = |found: &Loaded<'_>| is_usable && has_its_clears(&found.state);
        let (lookup, table, state) = match found.loaded.filter(is_usable) {
            Some(loaded) => (loaded.lookup, loaded.made, loaded.state),
            None => {
                let (lookup, table) = checkpoint::empty(storage, kind, limit)?;
                let (live, tally) = self.load_base(&lookup, zeroed)?;
                // herolib says what comes next of ids that it gives out only.
                let highest = lookup.highest().filter(|_| manifest.key_value);
                let above = highest.map_or(0, |highest| u64::from(highest) + 1);
                let state = checkpoint::State {
                    uuid: manifest.uuid,
                    generation: manifest.generation,
                    commit: self.base_commit(),
                    time_us: 0,
                    next_id: manifest.next_id.max(above),
                    live,
                    tally,
                    log_end: None,
                    clears_crc: 0,
                };
                (lookup, table, state)
            }
        };
        // The manifest's may be higher than that of the checkpoint: see `Shared::raise_next_id`.
        let mut next_id = state.next_id.max(manifest.next_id).max(1);
        let mut live = state.live;
        let mut tally = state.tally;
        let start = Start {
            from: state.log_end,
            commit: state.commit,
            time_us: state.time_us,
            synced: synced.filter(|_| !self.salvage()),
            salvage: self.salvage(),
            follows: false,
            zeroed,
        };
        let mut clears = copied(&manifest.clears)?;
        let mut erasures = HashMap::with_hasher(FixedHasher::default());
        // What is salvaged may have lost their records. Where the log builds upon something, that may stand
        // for some of them.
        let is_log_alone = manifest.files.iter().all(|file| file.kind == FileKind::Log);
        let may_lose = self.salvage() && is_log_alone;
        let mut known_clears = manifest.clears.iter().filter(|_| may_lose).peekable();
        let apply = |records: &[Replayed]| {
            for record in records {
                while known_clears
                    .next_if(|clear| clear.commit < record.commit)
                    .is_some()
                {
                    lookup.clear_unseen();
                    live = 0;
                }
                tally.count(record.kind);
                if record.kind == Kind::Empty {
                    continue;
                }
                if record.kind == Kind::Clear {
                    let Replayed {
                        commit, time_us, ..
                    } = *record;
                    if clears.last().is_none_or(|last| last.commit < commit) {
                        reserve(&mut clears, 1)?;
                        clears.push(Clear { commit, time_us });
                    }
                    lookup.clear_unseen();
                    live = 0;
                    continue;
                }
                if record.id >= limit && self.salvage() {
                    continue;
                }
                if record.id >= limit {
                    return Err(Error::corrupt(
                        storage.describe(&name(record.location.file)),
                        u64::from(record.location.position),
                        format!("a record has id {}, and ids are below {limit}", record.id),
                    ));
                }
                if record.kind.ends_chain() {
                    erasures.try_reserve(1).map_err(|_| Error::OutOfMemory {
                        what: "a list of what is erased".into(),
                    })?;
                    let at = record.location;
                    let first = Erasing {
                        oldest: at,
                        newest: at,
                    };
                    erasures.entry(record.id).or_insert(first).newest = at;
                }
                let before = lookup.get(record.id).location();
                if self.is_joined && record.previous != before {
                    return Err(Error::incompatible(format!(
                        "{} holds a backup of another history than this database's: what comes before commit {} \
                         of id {} is at {before:?} there, and here at {:?}",
                        storage.describe(""),
                        record.commit,
                        record.id,
                        record.previous
                    )));
                }
                let entry = Entry::of(record.kind, record.location, record.len);
                next_id = next_id.max(u64::from(record.id) + 1);
                publish(storage, &lookup, record.id, entry, &mut live)?;
            }
            Ok(())
        };
        let mut outcome =
            recovery::replay(storage, &manifest.uuid, &self.log_files, &start, apply)?;
        if known_clears.next().is_some() {
            lookup.clear_unseen();
            live = 0;
        }
        if clean && !self.salvage() && outcome.commit != manifest.commit {
            return Err(Error::corrupt(
                storage.describe(MANIFEST),
                64,
                format!(
                    "the log ends with commit {}, and the database was closed with commit {}",
                    outcome.commit, manifest.commit
                ),
            ));
        }
        if self.salvage() {
            // In frozen files there are versions up to this, though the log may be lost.
            outcome.commit = outcome.commit.max(manifest.commit);
        }
        outcome.time_us = outcome.time_us.max(manifest.time_us);
        Ok(Recovered {
            lookup,
            table,
            clears,
            outcome,
            next_id,
            live,
            tally,
            erasures,
        })
    }

    /// Whether the manifest lists the data files of the log before the one that `end` is in, as it does
    /// once there is a checkpoint up to `end`.
    fn lists_all_before(&self, end: LogEnd) -> bool {
        let is_listed = |number| self.manifest.file(number).is_some();
        self.log_files.iter().all(|file| match file.header {
            _ if file.number < end.file => is_listed(file.number),
            Some(FileHeader { after, .. }) if file.number == end.file => {
                after.is_none_or(|after| is_listed(after.file))
            }
            _ => true,
        })
    }

    /// The commit before the first one of the log. Until a data file of the log is in the manifest,
    /// that is the manifest's.
    pub(super) fn base_commit(&self) -> u64 {
        let files = &self.manifest.files;
        let first = self.log_files.iter().find_map(|file| file.header);
        match first.filter(|header| header.after.is_none()) {
            Some(header) => header.first_commit.saturating_sub(1),
            None if files.iter().any(|file| file.kind == FileKind::Log) => 0,
            None => self.manifest.commit,
        }
    }

    /// Puts what the log builds upon into an empty lookup; how many records of it are live.
    fn load_base(&self, lookup: &Lookup, zeroed: bool) -> Result<(u64, Tally)> {
        let storage = &**self.storage;
        let (mut live, mut tally) = self.load_compacted(lookup, zeroed)?;
        let read;
        let entries = match (&self.entries, self.manifest.base) {
            (Some(entries), _) => entries,
            (None, None) => return Ok((live, tally)),
            (None, Some(stamp)) => {
                read = match base::read(storage, self.manifest.generation, stamp) {
                    Err(_) if self.salvage() => return Ok((live, tally)),
                    read => read?,
                };
                &read
            }
        };
        for &(id, entry) in entries {
            if id >= lookup.limit() {
                return Err(Error::corrupt(
                    storage.describe(&base::name(self.manifest.generation)),
                    0,
                    format!("id {id} is not below {}", lookup.limit()),
                ));
            }
            // Of what others wrote only the newest are known here.
            tally.count(if entry.is_live() {
                Kind::Put
            } else {
                Kind::Delete
            });
            publish(storage, lookup, id, entry, &mut live)?;
        }
        Ok((live, tally))
    }

    /// Puts what a compaction has kept into an empty lookup; how many records of it are live.
    fn load_compacted(&self, lookup: &Lookup, zeroed: bool) -> Result<(u64, Tally)> {
        let storage = &**self.storage;
        let (mut live, mut tally) = (0, Tally::default());
        let mut last = None;
        let follows = |before: Option<&Head>, head: &Head| {
            let is_after = before.is_none_or(|before| before.id <= head.id);
            is_after && head.last && head.commit <= self.manifest.commit
        };
        for file in &self.manifest.files {
            if file.kind != FileKind::Compacted {
                continue;
            }
            let seed = Seed::new(&self.manifest.uuid, file.number);
            let reader = match Reader::sequential(storage, &name(file.number)) {
                Err(_) if self.salvage() => continue,
                reader => reader?,
            };
            let mut reader = reader.up_to(u64::from(file.len)).salvaging(self.salvage());
            let mut at = FILE_HEADER as u64;
            while at < reader.len() {
                let mut found = reader.record(at, seed)?;
                if zeroed && !matches!(found, Found::Record(_)) {
                    let follows = |before: Option<&Head>, head: &Head| {
                        follows(before.or(last.as_ref()), head)
                    };
                    let there = reader.zeroed_record(at, seed, follows)?;
                    found = there.map_or(found, Found::Record);
                }
                let head = match found {
                    Found::Record(head) if head.id < lookup.limit() => head,
                    _ if self.salvage() => match reader.next_record(at + 1, seed)? {
                        Some(next) => {
                            at = next;
                            continue;
                        }
                        None => break,
                    },
                    Found::Record(_) => {
                        let what = "a record has an id that is not below record_nr_max";
                        return Err(Error::corrupt(
                            storage.describe(&name(file.number)),
                            at,
                            what,
                        ));
                    }
                    Found::Value(_, why) | Found::Nothing(why) => {
                        return Err(Error::corrupt(
                            storage.describe(&name(file.number)),
                            at,
                            why,
                        ));
                    }
                };
                let place = LogEnd {
                    file: file.number,
                    position: at as u32,
                };
                let entry = Entry::of(head.kind, place.location(), head.len);
                tally.count(head.kind);
                publish(storage, lookup, head.id, entry, &mut live)?;
                at += head.record_len();
                last = Some(head);
            }
        }
        Ok((live, tally))
    }
}

/// Puts an entry into a lookup that nobody reads yet, and counts the live ones.
pub(super) fn publish(
    storage: &dyn Storage,
    lookup: &Lookup,
    id: u32,
    entry: Entry,
    live: &mut u64,
) -> Result<()> {
    *live += u64::from(entry.is_live());
    *live -= u64::from(lookup.get(id).is_live());
    lookup.prepare(id).map_err(|error| {
        Error::from_io(
            "reserve space in",
            storage.describe(checkpoint::TABLE),
            error,
        )
    })?;
    lookup.publish(id, entry);
    if !entry.is_live() {
        lookup.forget(id);
    }
    Ok(())
}
