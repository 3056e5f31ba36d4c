//! Which data files belong to the database that a manifest tells of, and which a compaction has left
//! behind.

use std::io;

use super::opening::Opening;
use crate::base;
use crate::bytes::{collected, reserve};
use crate::error::{Error, Result};
use crate::herolib;
use crate::log::erasure::JOURNAL;
use crate::log::recovery::LogFile;
use crate::log::segment::{FileHeader, LONGEST_FILE, name};
use crate::lookup::checkpoint;
use crate::manifest::{DataFile, FileKind, Manifest, State};
use crate::storage::{Access, Storage, remove_if_there, sync_directory};

impl Opening<'_> {
    /// Checks that the data files of the manifest are there, and finds those that were begun
    /// since it was written.
    pub(super) fn find_log_files(&mut self) -> Result<()> {
        let storage = &**self.storage;
        let present = match self.salvage() {
            true => herolib::readable_data_files(storage)?,
            false => herolib::data_files(storage)?,
        };
        self.log_files.clear();
        self.leftovers.clear();
        let mut listed = self.manifest.files.iter().peekable();
        let last_listed = self.manifest.files.last().map(|file| file.number);
        let extending = self.manifest.state == State::Extending;
        for file in &present {
            while let Some(missing) = listed.next_if(|known| known.number < file.number) {
                self.missing(missing)?;
            }
            let known = listed.next_if(|known| known.number == file.number);
            let header = match known {
                Some(known) => {
                    if file.len < u64::from(known.len) && !self.salvage() {
                        return Err(Error::corrupt(
                            storage.describe(&name(file.number)),
                            file.len,
                            format!("the data file ends here, and it had {} bytes", known.len),
                        ));
                    }
                    if matches!(known.kind, FileKind::Frozen { .. }) {
                        continue;
                    }
                    let header = self.header_of(file.number)?;
                    let header = header
                        .filter(|header| header.number == file.number && self.is_ours(header));
                    // Where a checkpoint stands for it nobody reads further.
                    if header.is_none() && !self.salvage() {
                        return Err(Error::corrupt(
                            storage.describe(&name(file.number)),
                            0,
                            "the header does not match its checksum, or is another data file's",
                        ));
                    }
                    if known.kind == FileKind::Compacted {
                        continue;
                    }
                    header
                }
                // Of the later backup, whose data don't count yet.
                None if extending => continue,
                None => {
                    // Begun after the manifest was written, if it is ours. Without a header it may
                    // still be: a crash has left it so, or it is damaged.
                    let header = self.header_of(file.number)?;
                    let ours = header.is_some_and(|header| self.is_ours(&header));
                    let later = last_listed.is_none_or(|last| file.number > last);
                    let doomed = self.manifest.doomed.contains(&file.number) && !ours;
                    let is_leftover = match header {
                        Some(header) => self.is_leftover(&header, file.number),
                        None => !later && self.is_unfinished_leftover(file.number)?,
                    };
                    if doomed || is_leftover {
                        reserve(&mut self.leftovers, 1)?;
                        self.leftovers.push(file.number);
                        continue;
                    }
                    // Taken for a part of the log, it would end the log or, as the first one, begin it
                    // with another commit; left alone, it would be refused after a compaction.
                    let is_misplaced = |header: &FileHeader| {
                        header.number != file.number && header.uuid == self.manifest.uuid
                    };
                    if let Some(header) = header.filter(is_misplaced) {
                        if self.salvage() {
                            continue;
                        }
                        return Err(Error::corrupt(
                            storage.describe(&name(file.number)),
                            0,
                            format!(
                                "the header says that this is {} of this database: a copy of it must \
                                 be taken out of the directory, and what was renamed gets that name \
                                 again",
                                name(header.number)
                            ),
                        ));
                    }
                    if header.is_some() && !ours && !self.salvage() {
                        return Err(Error::corrupt(
                            storage.describe(&name(file.number)),
                            0,
                            "the data file belongs to another database, or the manifest is from \
                             before the database was last taken over",
                        ));
                    }
                    // To be salvaged it must be the database's for sure.
                    let unknown =
                        header.is_none() && self.manifest.state != State::Clean && !self.salvage();
                    if !(later && (ours || unknown)) {
                        continue;
                    }
                    header
                }
            };
            let longest = match known {
                Some(known) if extending => u64::from(known.len),
                _ => LONGEST_FILE,
            };
            reserve(&mut self.log_files, 1)?;
            self.log_files.push(LogFile {
                number: file.number,
                len: file.len.min(longest),
                header,
            });
        }
        for missing in listed {
            self.missing(missing)?;
        }
        // Somebody else's file may stand there: then that number is left out.
        let last = self.log_files.last().map(|file| file.number);
        self.next_file = last.max(last_listed).map_or(0, |last| u32::from(last) + 1);
        Ok(())
    }

    /// The header of a data file; of what is salvaged it need not be readable.
    fn header_of(&self, number: u16) -> Result<Option<FileHeader>> {
        match FileHeader::of(&**self.storage, number) {
            Err(_) if self.salvage() => Ok(None),
            header => header,
        }
    }

    fn is_ours(&self, header: &FileHeader) -> bool {
        header.is_of(&self.manifest.uuid, self.manifest.generation)
    }

    /// Whether an unlisted data file is of an earlier generation, or of a later one, as the manifest
    /// has announced. What is under another number than its own was not left but put there.
    fn is_leftover(&self, header: &FileHeader, number: u16) -> bool {
        let Manifest {
            uuid,
            generation,
            is_compacting,
            ..
        } = self.manifest;
        // Each compaction that failed may have left some, and none has the generation of another.
        let is_later = is_compacting && header.generation > generation;
        header.uuid == uuid
            && header.number == number
            && (header.generation < generation || is_later)
    }

    /// Whether an unlisted data file before the listed ones, which has no header, is of a later
    /// generation, as the manifest has announced: one whose header never got to the disk. Behind
    /// the listed ones recovery finds that out, because there the log goes on.
    fn is_unfinished_leftover(&self, number: u16) -> Result<bool> {
        let Manifest {
            uuid,
            is_compacting,
            ..
        } = &self.manifest;
        Ok(*is_compacting && FileHeader::is_unfinished(&**self.storage, number, uuid)?)
    }

    fn missing(&self, file: &DataFile) -> Result<()> {
        if self.salvage() {
            return Ok(());
        }
        Err(Error::corrupt(
            self.storage.describe(&name(file.number)),
            0,
            format!("the data file is missing, and it had {} bytes", file.len),
        ))
    }

    /// The bases of other generations than this one.
    pub(super) fn other_bases(&self) -> Vec<String> {
        let own = base::name(self.manifest.generation);
        let mut names = self.storage.list("").unwrap_or_default();
        names.retain(|name| base::is_base(name) && *name != own);
        names
    }

    /// Removes what a compaction or a takeover has left behind, which nobody reads any more. Only a
    /// failed sync is a failure: after it the kernel may not try the names of other files again either.
    pub(super) fn remove_leftovers(&mut self) -> Result<()> {
        let storage = &**self.storage;
        // What can't be removed now is left to the next opening.
        for &number in &self.leftovers {
            let _ = remove_if_there(storage, &name(number));
        }
        checkpoint::remove_next(storage);
        for name in self.other_bases().into_iter().chain(unfinished(storage)) {
            let _ = remove_if_there(storage, &name);
        }
        let left = doomed_files(storage, &self.manifest.doomed)?;
        if left == self.manifest.doomed {
            return Ok(());
        }
        // Somebody else's file may get such a number from here on.
        sync_directory(storage, "")
            .map_err(|error| Error::from_io("sync", storage.describe(""), error))?;
        self.manifest.doomed = left;
        match self.manifest.write(storage) {
            Err(error) if error.is_failed_sync() => Err(error),
            _ => Ok(()),
        }
    }
}

/// Files that a crash caught in the making, and which nothing makes again soon. The manifest's own is
/// replaced by the next one, and the dump's go with the dump.
fn unfinished(storage: &dyn Storage) -> Vec<String> {
    let mut names = storage.list("").unwrap_or_default();
    names.retain(|name| {
        name.strip_suffix(".tmp").is_some_and(|made| {
            base::is_base(made)
                || [checkpoint::INDEX, checkpoint::NEXT_INDEX, JOURNAL].contains(&made)
        })
    });
    names
}

/// Those of the data files that are to be removed which are there still.
pub(super) fn doomed_files(storage: &dyn Storage, doomed: &[u16]) -> Result<Vec<u16>> {
    let is_gone = |number: u16| match storage.open(&name(number), Access::Read) {
        Ok(_) => false,
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    };
    let doomed = doomed.iter().copied();
    collected(doomed.filter(|&number| !is_gone(number)))
}
