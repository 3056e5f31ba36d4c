//! The bytes of the manifest.
//!
//! ```text
//!  0   8  "OURDBMAN"
//!  8   4  format version, 1
//! 12   4  features that a reader must know: bit 0 = has what begins with "oldest" below, bit 1 = has
//!         what was taken over; an unknown one refuses to open
//! 16  16  database uuid
//! 32   8  generation
//! 40   1  mode: 0 incremental, 1 key-value
//! 41   1  flags: bit 0 = native (no herolib dump at close), bit 1 = has a base, bit 2 = dump known,
//!         bit 3 = a backup that nothing was written to, bit 4 = data files of later generations
//!         may be there, and are none of the database
//! 42   1  state: 0 closed cleanly, 1 open, 2 being reset, 3 open, and a sync has failed,
//!         4 unfinished backup, 5 backup that a later one is being added to
//! 43   1  0
//! 44   4  record_nr_max
//! 48   4  record_size_max
//! 52   4  file_size
//! 56   8  next id
//! 64   8  last commit
//! 72   8  time of the last commit, microseconds since the Unix epoch
//! 80   8  CRC32 of the base file (low half), its number of entries (high half)
//! 88   8  length of the herolib dump as we wrote it
//! 96   4  CRC32 of the herolib dump
//! 100  4  number of data files n
//! 104  8  when the herolib dump was last changed, nanoseconds since the Unix epoch; 0 = unknown
//! 112 16n data files, ascending: number u16, kind u16 (0 log, 1 frozen, 2 compacted, 3 to be
//!         removed), 4 bytes 0,
//!         own_until u32, length u32
//! +    8  oldest commit from which on every version is kept
//! +    8  time of the last commit before the log
//! +    4  number of clears m
//! +    4  0
//! + 16 m  clears, ascending: commit u64, time u64
//! +    4  with bit 1: number k of entries
//! +    4  0

use super::{
    BaseStamp, Clear, DataFile, FileKind, KnownDump, MOST_LISTED_CLEARS, Manifest, State, TakenOver,
};
use crate::bytes::{array_at, collected, reserve, reserve_exact, u16_at, u32_at, u64_at};
use crate::error::{Error, Result};
use crate::herolib::DumpStamp;
use crate::log::segment::LAST_GENERATION;
use crate::options::{LAST_NEXT_ID, Limits};
use crate::planted::planted;

const MAGIC: &[u8; 8] = b"OURDBMAN";
const FORMAT: u32 = 1;
const HEADER: usize = 112;
const FILE_ENTRY: usize = 16;
const EXTENSION: usize = 16;
/// A list begins with so many bytes, and has entries of this length.
const LIST: usize = 8;
const LIST_ENTRY: usize = 16;
/// At a takeover each data file is named once at most that others have added to.
const MOST_TAKEN_OVER: usize = 1 << 24;
/// No manifest is longer.
pub(super) const LONGEST: u64 = (HEADER
    + FILE_ENTRY * MOST_FILES
    + EXTENSION
    + LIST
    + LIST_ENTRY * MOST_LISTED_CLEARS
    + LIST
    + LIST_ENTRY * MOST_TAKEN_OVER
    + 4) as u64;
const FEATURE_EXTENDED: u32 = 1;
const FEATURE_TAKEN_OVER: u32 = 2;
/// In place of the kind of a data file that is to be removed.
const DOOMED: u16 = 3;
const FLAG_NATIVE: u8 = 1;
const FLAG_BASE: u8 = 2;
const FLAG_DUMP: u8 = 4;
const FLAG_BACKUP: u8 = 8;
const FLAG_COMPACTING: u8 = 16;

const MOST_FILES: usize = 65_536;

impl Manifest {
    /// The data files by number; `None`: it is to be removed.
    fn entries(&self) -> Result<Vec<(u16, Option<&DataFile>)>> {
        let doomed = self.doomed.iter().map(|&number| (number, None));
        let files = self.files.iter().map(|file| (file.number, Some(file)));
        let mut entries = collected(files.chain(doomed))?;
        // One of this generation counts, should both have a number.
        entries.sort_unstable_by_key(|(number, file)| (*number, file.is_none()));
        entries.dedup_by_key(|(number, _)| *number);
        Ok(entries)
    }

    pub(super) fn encode(&self) -> Result<Vec<u8>> {
        let base = self.base.unwrap_or(BaseStamp { crc: 0, entries: 0 });
        let no_dump = KnownDump {
            stamp: DumpStamp { len: 0, crc32: 0 },
            modified_ns: 0,
        };
        let dump = self.dump.unwrap_or(no_dump);
        let flags = if self.native { FLAG_NATIVE } else { 0 }
            | if self.base.is_some() { FLAG_BASE } else { 0 }
            | if self.dump.is_some() { FLAG_DUMP } else { 0 }
            | if self.backup { FLAG_BACKUP } else { 0 }
            | if self.is_compacting {
                FLAG_COMPACTING
            } else {
                0
            };
        let state = match self.state {
            State::Clean => 0,
            State::Open => 1,
            State::Resetting => 2,
            State::SyncFailed => 3,
            State::Unfinished => 4,
            State::Extending => 5,
        };
        let files = self.entries()?;
        let listed = self.clears.len() + self.taken_over.len();
        let mut bytes = Vec::new();
        reserve_exact(
            &mut bytes,
            HEADER + FILE_ENTRY * files.len() + EXTENSION + 2 * LIST + LIST_ENTRY * listed + 4,
        )?;
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&FORMAT.to_le_bytes());
        let has_taken_over = !self.taken_over.is_empty();
        let is_extended = self.oldest != 0 || self.base_time_us != 0 || !self.clears.is_empty();
        let features = match (is_extended, has_taken_over) {
            (false, false) => 0,
            (true, false) => FEATURE_EXTENDED,
            (_, true) => FEATURE_EXTENDED | FEATURE_TAKEN_OVER,
        };
        bytes.extend_from_slice(&features.to_le_bytes());
        bytes.extend_from_slice(&self.uuid);
        bytes.extend_from_slice(&self.generation.to_le_bytes());
        bytes.extend_from_slice(&[u8::from(self.key_value), flags, state, 0]);
        bytes.extend_from_slice(&self.limits.record_nr_max.to_le_bytes());
        bytes.extend_from_slice(&self.limits.record_size_max.to_le_bytes());
        bytes.extend_from_slice(&self.limits.file_size.to_le_bytes());
        bytes.extend_from_slice(&self.next_id.to_le_bytes());
        bytes.extend_from_slice(&self.commit.to_le_bytes());
        bytes.extend_from_slice(&self.time_us.to_le_bytes());
        bytes.extend_from_slice(&base.crc.to_le_bytes());
        bytes.extend_from_slice(&base.entries.to_le_bytes());
        bytes.extend_from_slice(&dump.stamp.len.to_le_bytes());
        bytes.extend_from_slice(&dump.stamp.crc32.to_le_bytes());
        bytes.extend_from_slice(&(files.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&dump.modified_ns.to_le_bytes());
        for (number, file) in files {
            let (kind, own_until) = match file.map(|file| file.kind) {
                Some(FileKind::Log) => (0u16, 0u32),
                Some(FileKind::Frozen { own_until }) => (1, own_until),
                Some(FileKind::Compacted) => (2, 0),
                None => (DOOMED, 0),
            };
            bytes.extend_from_slice(&number.to_le_bytes());
            bytes.extend_from_slice(&kind.to_le_bytes());
            bytes.extend_from_slice(&0u32.to_le_bytes());
            bytes.extend_from_slice(&own_until.to_le_bytes());
            bytes.extend_from_slice(&file.map_or(0, |file| file.len).to_le_bytes());
        }
        if features & FEATURE_EXTENDED != 0 {
            bytes.extend_from_slice(&self.oldest.to_le_bytes());
            bytes.extend_from_slice(&self.base_time_us.to_le_bytes());
            bytes.extend_from_slice(&(self.clears.len() as u32).to_le_bytes());
            bytes.extend_from_slice(&0u32.to_le_bytes());
            for clear in &self.clears {
                bytes.extend_from_slice(&clear.commit.to_le_bytes());
                bytes.extend_from_slice(&clear.time_us.to_le_bytes());
            }
        }
        if has_taken_over {
            bytes.extend_from_slice(&(self.taken_over.len() as u32).to_le_bytes());
            bytes.extend_from_slice(&0u32.to_le_bytes());
            for taken_over in &self.taken_over {
                bytes.extend_from_slice(&taken_over.file.to_le_bytes());
                bytes.extend_from_slice(&0u16.to_le_bytes());
                bytes.extend_from_slice(&taken_over.end.to_le_bytes());
                bytes.extend_from_slice(&taken_over.commit.to_le_bytes());
            }
        }
        let crc = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        Ok(bytes)
    }

    pub(super) fn decode(bytes: &[u8], path: &str) -> Result<Manifest> {
        let damaged = |offset, what: &'static str| Error::corrupt(path, offset, what);
        if bytes.len() < HEADER + 4 {
            return Err(damaged(bytes.len() as u64, "the manifest is too short"));
        }
        if bytes[..8] != *MAGIC {
            return Err(damaged(0, "this is no manifest of OurDB"));
        }
        let body = bytes.len() - 4;
        if crc32fast::hash(&bytes[..body]) != u32_at(bytes, body)
            && !planted!(manifest_checksum_ignored)
        {
            return Err(damaged(
                body as u64,
                "the manifest does not match its checksum",
            ));
        }
        let features = u32_at(bytes, 12);
        let known = FEATURE_EXTENDED | FEATURE_TAKEN_OVER;
        if u32_at(bytes, 8) != FORMAT || features & !known != 0 {
            return Err(Error::incompatible(format!(
                "{path} has format {} with features {features:#x}, and this library knows format \
                 {FORMAT} with {known:#x}: the database was written by a newer version",
                u32_at(bytes, 8),
            )));
        }
        if features == FEATURE_TAKEN_OVER {
            return Err(damaged(
                12,
                "there is no such feature without the one before",
            ));
        }
        let flags = bytes[41];
        let state = match bytes[42] {
            0 => State::Clean,
            1 => State::Open,
            2 => State::Resetting,
            3 => State::SyncFailed,
            4 => State::Unfinished,
            5 => State::Extending,
            _ => return Err(damaged(42, "there is no such state")),
        };
        let known = FLAG_NATIVE | FLAG_BASE | FLAG_DUMP | FLAG_BACKUP | FLAG_COMPACTING;
        if bytes[40] > 1 || flags & !known != 0 {
            return Err(damaged(40, "there is no such mode or flag"));
        }
        let copying = matches!(state, State::Unfinished | State::Extending);
        if copying && flags & FLAG_BACKUP == 0 {
            return Err(damaged(42, "only a backup can be in this state"));
        }
        if u64_at(bytes, 32) > LAST_GENERATION || u64_at(bytes, 56) > LAST_NEXT_ID {
            return Err(damaged(32, "there is no such generation or next id"));
        }
        let count = u32_at(bytes, 100) as usize;
        if count > MOST_FILES {
            return Err(damaged(100, "there can't be so many data files"));
        }
        let files_end = HEADER + FILE_ENTRY * count;
        let misfit = || {
            let what = "the number of data files or clears does not fit the manifest's length";
            damaged(100, what)
        };
        let mut end = files_end;
        let (mut oldest, mut base_time_us) = (0, 0);
        let (mut clears, mut taken_over) = (Vec::new(), Vec::new());
        if features & FEATURE_EXTENDED != 0 {
            let counters = bytes.get(end..end + EXTENSION).ok_or_else(misfit)?;
            (oldest, base_time_us) = (u64_at(counters, 0), u64_at(counters, 8));
            let listed = list(&bytes[..body], end + EXTENSION, MOST_LISTED_CLEARS);
            let listed = listed.ok_or_else(misfit)?;
            end += EXTENSION + LIST + LIST_ENTRY * listed.len();
            clears = collected(listed.iter().map(|entry| Clear {
                commit: u64_at(entry, 0),
                time_us: u64_at(entry, 8),
            }))?;
        }
        if features & FEATURE_TAKEN_OVER != 0 {
            let listed = list(&bytes[..body], end, MOST_TAKEN_OVER).ok_or_else(misfit)?;
            end += LIST + LIST_ENTRY * listed.len();
            taken_over = collected(listed.iter().map(|entry| TakenOver {
                file: u16_at(entry, 0),
                end: u32_at(entry, 4),
                commit: u64_at(entry, 8),
            }))?;
        }
        if body != end {
            return Err(misfit());
        }
        if !taken_over.is_sorted() {
            return Err(damaged(
                files_end as u64,
                "what was taken over is not in order",
            ));
        }
        if !clears
            .windows(2)
            .all(|pair| pair[0].commit < pair[1].commit)
        {
            return Err(damaged(files_end as u64, "the clears are not in order"));
        }
        let (mut files, mut doomed) = (Vec::new(), Vec::new());
        reserve_exact(&mut files, count)?;
        let number_at = |index| u16_at(bytes, HEADER + FILE_ENTRY * index);
        if !(1..count).all(|index| number_at(index - 1) < number_at(index)) {
            return Err(damaged(HEADER as u64, "the data files are not in order"));
        }
        for index in 0..count {
            let at = HEADER + FILE_ENTRY * index;
            if u16_at(bytes, at + 2) == DOOMED {
                reserve(&mut doomed, 1)?;
                doomed.push(number_at(index));
                continue;
            }
            let kind = match u16_at(bytes, at + 2) {
                0 => FileKind::Log,
                1 => FileKind::Frozen {
                    own_until: u32_at(bytes, at + 8),
                },
                2 => FileKind::Compacted,
                _ => return Err(damaged(at as u64, "there is no such kind of data file")),
            };
            files.push(DataFile {
                number: number_at(index),
                kind,
                len: u32_at(bytes, at + 12),
            });
        }
        Ok(Manifest {
            uuid: array_at(bytes, 16),
            generation: u64_at(bytes, 32),
            key_value: bytes[40] == 1,
            native: flags & FLAG_NATIVE != 0,
            backup: flags & FLAG_BACKUP != 0,
            state,
            limits: Limits {
                record_nr_max: u32_at(bytes, 44),
                record_size_max: u32_at(bytes, 48),
                file_size: u32_at(bytes, 52),
            },
            next_id: u64_at(bytes, 56),
            commit: u64_at(bytes, 64),
            time_us: u64_at(bytes, 72),
            base: (flags & FLAG_BASE != 0).then(|| BaseStamp {
                crc: u32_at(bytes, 80),
                entries: u32_at(bytes, 84),
            }),
            dump: (flags & FLAG_DUMP != 0).then(|| KnownDump {
                stamp: DumpStamp {
                    len: u64_at(bytes, 88),
                    crc32: u32_at(bytes, 96),
                },
                modified_ns: u64_at(bytes, 104),
            }),
            files,
            doomed,
            is_compacting: flags & FLAG_COMPACTING != 0,
            oldest,
            base_time_us,
            clears,
            taken_over,
        })
    }
}

/// The entries of a list: their number u32, 4 bytes 0, and so many times 16 bytes. `None` if they don't end
/// before `bytes` do, or are more than there can be.
fn list(bytes: &[u8], at: usize, most: usize) -> Option<&[[u8; LIST_ENTRY]]> {
    let (header, rest) = bytes.get(at..)?.split_at_checked(LIST)?;
    let count = u32_at(header, 0) as usize;
    let entries = rest.as_chunks().0;
    (count <= most).then(|| entries.get(..count))?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Manifest {
        let mut manifest = Manifest::new([5; 16], true, true, Limits::DEFAULT);
        manifest.state = State::Open;
        manifest.backup = true;
        manifest.base = Some(BaseStamp {
            crc: 77,
            entries: 3,
        });
        manifest.dump = Some(KnownDump {
            stamp: DumpStamp {
                len: 99,
                crc32: 0xffee_ddcc,
            },
            modified_ns: 12,
        });
        manifest.files = vec![
            DataFile {
                number: 0,
                kind: FileKind::Frozen { own_until: 0 },
                len: 854,
            },
            DataFile {
                number: 7,
                kind: FileKind::Frozen { own_until: 500 },
                len: 600,
            },
            DataFile {
                number: 9,
                kind: FileKind::Log,
                len: u32::MAX,
            },
        ];
        manifest
    }

    fn extended() -> Manifest {
        let mut manifest = sample();
        manifest.files[1].kind = FileKind::Compacted;
        manifest.is_compacting = true;
        manifest.doomed = vec![3, 12];
        manifest.oldest = 31;
        manifest.base_time_us = 32;
        let clear = |commit| Clear {
            commit,
            time_us: 7 * commit,
        };
        manifest.clears = vec![clear(33), clear(1 << 40)];
        manifest
    }

    fn taken_over() -> Manifest {
        let taken_over = |file, end, commit| TakenOver { file, end, commit };
        Manifest {
            taken_over: vec![
                taken_over(0, 90, 3),
                taken_over(0, 854, 32),
                taken_over(7, 600, 3),
            ],
            ..extended()
        }
    }

    fn bytes_of(manifest: &Manifest) -> Vec<u8> {
        manifest.encode().expect("memory for it")
    }

    #[test]
    fn it_reads_back_as_written() {
        let bytes = bytes_of(&sample());
        assert_eq!(Manifest::decode(&bytes, "m").expect("valid"), sample());
        let bytes = bytes_of(&extended());
        assert_eq!(Manifest::decode(&bytes, "m").expect("valid"), extended());
        let bytes = bytes_of(&taken_over());
        assert_eq!(Manifest::decode(&bytes, "m").expect("valid"), taken_over());
        let plain = Manifest::new([1; 16], false, false, Limits::DEFAULT);
        assert_eq!(
            Manifest::decode(&bytes_of(&plain), "m").expect("valid"),
            plain
        );
        for state in [State::Unfinished, State::Extending] {
            let mut manifest = Manifest { state, ..sample() };
            manifest.backup = true;
            assert_eq!(
                Manifest::decode(&bytes_of(&manifest), "m").expect("valid"),
                manifest
            );
            manifest.backup = false;
            assert!(Manifest::decode(&bytes_of(&manifest), "m").is_err());
        }
    }

    #[test]
    fn every_flipped_bit_and_every_other_length_is_refused() {
        for bytes in [sample(), extended(), taken_over()].map(|manifest| bytes_of(&manifest)) {
            refused_if_changed(&bytes);
        }
    }

    fn refused_if_changed(bytes: &[u8]) {
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Manifest::decode(&flipped, "m").is_err(), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert!(
                Manifest::decode(&bytes[..len], "m").is_err(),
                "length {len}"
            );
        }
    }
}
