//! The only place that touches the operating system.
//!
//! A [`Storage`] is one directory of files, a [`File`] one of them. [`os::OsStorage`] is the real
//! one, [`memory::MemoryStorage`] keeps everything in RAM, and the tests have a simulated one that
//! crashes and fails on request. Everything above speaks to these traits alone, so the same engine
//! runs on all of them.
//!
//! Together with `ffi` this is the only module with `unsafe` code; each block says why it holds.

mod ahead;
mod calls;
mod crc32;
pub mod fork;
// What serves `swap.rs` or `words.rs` alone isn't used where `explored_swap.rs` and
// `explored_words.rs` stand in for them.
#[cfg_attr(ourdb_shuttle, allow(dead_code, reason = "it serves `swap.rs`"))]
pub(crate) mod grace;
#[cfg_attr(ourdb_shuttle, allow(dead_code, reason = "it serves `words.rs`"))]
mod mapping;
pub mod memory;
mod memory_file;
pub mod os;
mod prefetch;
#[cfg_attr(ourdb_shuttle, path = "explored_swap.rs")]
mod swap;
mod thread;
mod view;
#[cfg_attr(ourdb_shuttle, path = "explored_words.rs")]
mod words;

use std::any::Any;
use std::fmt::Debug;
use std::io;
use std::sync::Arc;

use crate::error::FailedSync;
use crate::planted::planted;
pub use ahead::Ahead;
pub(crate) use calls::is_refused;
pub use crc32::{crc32, crc32_of_36, crc32_of_value, crc32s_of_record};
pub use prefetch::{prefetch, prefetch_ahead};
pub use swap::{Reading, Replaced, Swap};
pub use thread::spawn;
pub use view::{Identity, View};
pub use words::Words;

/// What is written where zeros are to be, so often as it takes: these stand in the library's file.
pub static ZEROS: [u8; 16 << 10] = [0; 16 << 10];

/// How [`Storage::open`] opens a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// An existing file, for reading.
    Read,
    /// An existing file, for reading and writing.
    Write,
    /// A new file, for reading and writing; [`io::ErrorKind::AlreadyExists`] if there is one.
    CreateNew,
    /// An empty file, for reading and writing; what was there is gone.
    Truncate,
}

/// One directory of files.
///
/// Names are relative to the directory and use `/`; the empty name is the directory itself.
/// No call retries or hides a failure: what the operating system said is what comes back
/// (interrupted calls excepted, which are repeated).
pub trait Storage: Send + Sync + Debug {
    /// Makes the directory with its parents, durably, if it isn't there.
    fn create_root(&self) -> io::Result<()>;
    /// Removes the directory itself, if it is empty; not an error if it isn't.
    fn remove_root(&self) -> io::Result<()>;
    /// Opens a file.
    fn open(&self, name: &str, access: Access) -> io::Result<Arc<dyn File>>;
    /// The names in a directory, in no order, without `.` and `..`.
    /// [`io::ErrorKind::NotFound`] if there is no such directory.
    fn list(&self, directory: &str) -> io::Result<Vec<String>>;
    /// Whether `name` is there and is a directory.
    fn is_directory(&self, name: &str) -> io::Result<bool>;
    /// Makes one directory; [`io::ErrorKind::AlreadyExists`] if there is one.
    fn create_directory(&self, name: &str) -> io::Result<()>;
    /// Removes one empty directory.
    fn remove_directory(&self, name: &str) -> io::Result<()>;
    /// Renames a file over another, atomically.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes the creations, renames and removals in a directory durable.
    fn sync_directory(&self, directory: &str) -> io::Result<()>;
    /// Takes the exclusive lock on file `name`, which is made if need be. `None`: somebody else,
    /// in this process or another, holds it. The lock goes with the returned value.
    fn lock(&self, name: &str) -> io::Result<Option<Box<dyn Lock>>>;
    /// Whether somebody holds the lock on `name`, without taking it.
    fn is_locked(&self, name: &str) -> io::Result<bool>;
    /// Wall clock, microseconds since the Unix epoch.
    fn now_us(&self) -> u64;
    /// Sixteen random bytes.
    fn random(&self) -> io::Result<[u8; 16]>;
    /// The path of `name` for a message.
    fn describe(&self, name: &str) -> String;
    /// What tells this directory from all others, whatever path leads to it; `None` where it isn't
    /// there or nothing does.
    fn identity(&self) -> io::Result<Option<(u64, u64)>> {
        Ok(None)
    }
}

/// A lock held; released when dropped.
pub trait Lock: Send + Sync + Debug {}

/// One open file.
///
/// Reading is free for all threads at any time. Writing, allocating and truncating are for one
/// thread at a time: the engine's writer lock sees to that. Beside it an erasure may overwrite
/// what was written long ago, where nobody reads any more.
#[allow(clippy::len_without_is_empty)]
pub trait File: Any + Send + Sync + Debug {
    /// Length in bytes, as of now. An error where the file was removed since it was opened.
    fn len(&self) -> io::Result<u64>;
    /// When the content was last changed, in nanoseconds since the Unix epoch; 0 if unknown.
    fn modified_ns(&self) -> io::Result<u64>;
    /// Fills `buffer` from `position`; [`io::ErrorKind::UnexpectedEof`] if the file ends before.
    fn read_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<()>;
    /// Writes the parts one after the other from `position`, all of them or an error.
    /// Where space was allocated before, it can't fail for lack of it.
    fn write_at(&self, position: u64, parts: &[&[u8]]) -> io::Result<()>;
    /// Writes as [`write_at`](File::write_at) does, behind all that was written. `ahead` is of this file,
    /// and is told what is reserved, and when the file is going to be cut.
    fn append(&self, ahead: &mut Ahead, position: u64, parts: &[&[u8]]) -> io::Result<()> {
        let _ = ahead;
        self.write_at(position, parts)
    }
    /// Makes sure that `[from, to)` can be written: reserves the space on disk and extends the
    /// file with zeros. Nobody needs what is there, unless the file is mapped as a table. Where the
    /// file system can't reserve, the file is left as it is and [`write_at`](File::write_at) extends
    /// it and may run out of space; only a file that is mapped as a [table](File::words) gets its
    /// space in any case, unless the file system copies on write.
    fn allocate(&self, from: u64, to: u64) -> io::Result<()>;
    /// Cuts or extends the file.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Copies the bytes of `source` from `position` to the same place in this file, which ends there,
    /// up to `len` of them, without having them pass through the process; how many it copied. 0:
    /// that can't be had, and the caller must read and write. Where the file system can, the files
    /// share the blocks until one of them is changed: that is never seen in the other.
    fn copy_from(&self, source: &dyn File, position: u64, len: u64) -> io::Result<u64> {
        let _ = (source, position, len);
        Ok(0)
    }
    /// Writes the bytes of `[from, to)` to the disk and waits for it, where that can be done for a part
    /// of a file: of what a [`sync`](File::sync) has to do later. It makes nothing durable; but a
    /// failure is one of a sync, which will not be told of it again.
    fn write_back(&self, from: u64, to: u64) -> io::Result<()> {
        let _ = (from, to);
        Ok(())
    }
    /// Makes content and length durable (fdatasync).
    fn sync(&self) -> io::Result<()>;
    /// A window for reading without system calls, over the first `reserve` bytes, most of which
    /// may not be there yet; nothing is visible through it before the engine says how far.
    /// Where mapping isn't possible the window is empty and readers use [`read_at`](File::read_at);
    /// an error only where mapping was asked for and nothing else will do.
    fn view(&self, reserve: u64) -> io::Result<View>;
    /// What tells this file from all others for as long as it is open or mapped, whatever becomes of its
    /// name; `None` where nothing does.
    fn identity(&self) -> io::Result<Option<Identity>> {
        Ok(None)
    }
    /// The file as a table of 64-bit words, shared: stores go to the file.
    /// [`io::ErrorKind::Unsupported`] where that can't be had.
    fn words(&self, count: u64) -> io::Result<Words>;
}

/// Reads a whole file of at most `limit` bytes; a longer one is [`io::ErrorKind::FileTooLarge`].
pub fn read_all(storage: &dyn Storage, name: &str, limit: u64) -> io::Result<Vec<u8>> {
    let (file, len) = open_for_reading(storage, name)?;
    if len > limit {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let len = usize::try_from(len).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
    let mut bytes = Vec::new();
    bytes
        .try_reserve_exact(len)
        .map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
    bytes.resize(len, 0);
    file.read_at(0, &mut bytes)?;
    Ok(bytes)
}

/// When a file was last changed, in nanoseconds since the Unix epoch; 0 if unknown.
pub(crate) fn modified_ns(storage: &dyn Storage, name: &str) -> io::Result<u64> {
    storage.open(name, Access::Read)?.modified_ns()
}

/// Opens a file, which another thread may be replacing; with its length.
fn open_for_reading(storage: &dyn Storage, name: &str) -> io::Result<(Arc<dyn File>, u64)> {
    const MOST_ATTEMPTS: u32 = 100;
    let mut attempt = 0;
    loop {
        let file = storage.open(name, Access::Read)?;
        attempt += 1;
        match file.len() {
            Ok(len) => return Ok((file, len)),
            // It was replaced since it was opened, or it is gone: then the next look says so.
            Err(error) if error.kind() == io::ErrorKind::NotFound && attempt < MOST_ATTEMPTS => {}
            Err(error) => return Err(error),
        }
    }
}

/// Replaces file `name` by one holding `parts`; see [`replace_with`].
pub fn replace(storage: &dyn Storage, name: &str, parts: &[&[u8]]) -> io::Result<()> {
    replace_with(storage, name, |file| file.write_at(0, parts))
}

/// Replaces file `name` by what `write` puts into an empty one, atomically and durably: written
/// beside it under `name` + `.tmp`, synced, renamed, directory synced. A crash leaves the old or
/// the new file.
pub fn replace_with(
    storage: &dyn Storage,
    name: &str,
    write: impl FnOnce(&dyn File) -> io::Result<()>,
) -> io::Result<()> {
    let temporary = format!("{name}.tmp");
    let written = (|| {
        let file = storage.open(&temporary, Access::Truncate)?;
        write(&*file)?;
        if planted!(renamed_before_synced) {
            storage.rename(&temporary, name)?;
            return file.sync();
        }
        if !planted!(replaced_file_not_synced) {
            file.sync().map_err(FailedSync::mark)?;
        }
        storage.rename(&temporary, name)
    })();
    if let Err(error) = written {
        // The old file is untouched. What is left of the new one is replaced next time, should
        // removing it fail as well.
        let _ = storage.remove(&temporary);
        return Err(error);
    }
    sync_directory(storage, parent(name))
}

/// [`Storage::sync_directory`], among other things that can fail.
pub(crate) fn sync_directory(storage: &dyn Storage, name: &str) -> io::Result<()> {
    if planted!(directory_not_synced) {
        return Ok(());
    }
    storage.sync_directory(name).map_err(|error| {
        // It could not even be opened; that can be tried again.
        let not_tried = [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::EACCES];
        if error
            .raw_os_error()
            .is_some_and(|code| not_tried.contains(&code))
        {
            error
        } else {
            FailedSync::mark_directory(error)
        }
    })
}

/// The directory part of a name, empty for a file in the root.
pub fn parent(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(directory, _)| directory)
}

/// Removes a file that may not be there; whether it was.
pub fn remove_if_there(storage: &dyn Storage, name: &str) -> io::Result<bool> {
    match storage.remove(name) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
