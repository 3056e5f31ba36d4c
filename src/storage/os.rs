//! The real file system.
//!
//! Reads go through read-only mappings, appends through a small writable [window](Ahead) at the tail;
//! where that can't be had, or [`IoMode::File`] asks, both are system calls. Both ways see the same page
//! cache, so they mix freely.

use std::any::Any;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use super::ahead::Ahead;
use super::calls::{checked, copies_on_write, len_and_names, uninterrupted};
use super::mapping::{Backing, Mapping, page_size};
use super::view::Identity;
use super::{Access, File, Lock, Storage, View, Words, fork};
use crate::options::IoMode;

/// The kernel is asked to copy so many bytes at a time: somebody waits for a word on the progress.
const LONGEST_COPY: u64 = 4 << 20;
/// No program that is started has the files open, and a pipe or a device in the place of one neither
/// makes the opening wait nor becomes this process's terminal.
const FLAGS: libc::c_int = libc::O_CLOEXEC | libc::O_NOCTTY | libc::O_NONBLOCK;

/// A directory of the file system.
#[derive(Debug)]
pub struct OsStorage {
    root: PathBuf,
    io: IoMode,
    /// The directory itself, once it is locked: to sync it must not fail because the process has
    /// too many files open, and as long as it is open no other one has its identity.
    directory: OnceLock<fs::File>,
}

/// What tells a file or a directory from all others.
fn identity(metadata: &fs::Metadata) -> Identity {
    (metadata.dev(), metadata.ino())
}

impl OsStorage {
    /// The directory `root`, which need not be there yet.
    pub fn new(root: impl Into<PathBuf>, io: IoMode) -> OsStorage {
        OsStorage {
            root: root.into(),
            io,
            directory: OnceLock::new(),
        }
    }

    /// Before a change by a name: whether the path still leads to the directory that is locked. That may
    /// have been renamed or removed, and another database may be in its place.
    fn check_place(&self) -> io::Result<()> {
        let Some(directory) = self.directory.get() else {
            return Ok(());
        };
        let there = match uninterrupted(|| fs::metadata(&self.root)) {
            Ok(there) => Some(identity(&there)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        if there == Some(identity(&directory.metadata()?)) {
            return Ok(());
        }
        Err(io::Error::from_raw_os_error(libc::ESTALE))
    }

    fn path(&self, name: &str) -> PathBuf {
        if name.is_empty() {
            self.root.clone()
        } else {
            self.root.join(name)
        }
    }
}

impl Storage for OsStorage {
    fn create_root(&self) -> io::Result<()> {
        if self.root.is_dir() {
            return Ok(());
        }
        // Each directory made is an entry in the one above, and that must be durable too.
        let mut missing: Vec<&Path> = Vec::new();
        for directory in self.root.ancestors() {
            if directory.as_os_str().is_empty() || directory.is_dir() {
                break;
            }
            missing.push(directory);
        }
        for directory in missing.into_iter().rev() {
            match uninterrupted(|| fs::create_dir(directory)) {
                // Another process may be making the same.
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
            let above = match directory.parent() {
                Some(above) if !above.as_os_str().is_empty() => above,
                _ => Path::new("."),
            };
            fs::File::open(above)?.sync_all()?;
        }
        Ok(())
    }

    fn remove_root(&self) -> io::Result<()> {
        match self.check_place() {
            // Somebody else has removed it, and another one is there by now.
            Err(error) if error.raw_os_error() == Some(libc::ESTALE) => return Ok(()),
            place => place?,
        }
        match uninterrupted(|| fs::remove_dir(&self.root)) {
            Err(error)
                if !matches!(
                    error.kind(),
                    // The second: by a link to it, which isn't ours, and would lead nowhere.
                    io::ErrorKind::DirectoryNotEmpty
                        | io::ErrorKind::NotADirectory
                        | io::ErrorKind::NotFound
                ) =>
            {
                Err(error)
            }
            _ => Ok(()),
        }
    }

    fn open(&self, name: &str, access: Access) -> io::Result<Arc<dyn File>> {
        let mut options = OpenOptions::new();
        options.read(true);
        match access {
            Access::Read => drop(options.custom_flags(FLAGS)),
            Access::Write => drop(options.custom_flags(FLAGS).write(true)),
            Access::CreateNew => drop(options.custom_flags(FLAGS).write(true).create_new(true)),
            // A link may lead to somebody else's file, which is not to be emptied.
            Access::Truncate => drop(
                options
                    .custom_flags(FLAGS | libc::O_NOFOLLOW)
                    .write(true)
                    .create(true)
                    .truncate(true),
            ),
        }
        if access != Access::Read {
            self.check_place()?;
        }
        let not_regular = || io::Error::new(io::ErrorKind::InvalidInput, "not a regular file");
        let file = options
            .open(self.path(name))
            .map_err(|error| match error.raw_os_error() {
                // A socket, or links that lead to each other.
                Some(libc::ENXIO | libc::ELOOP) => not_regular(),
                _ => error,
            })?;
        // A pipe or a device in the place of a file would block or lie about its length.
        if !file.metadata()?.is_file() {
            return Err(not_regular());
        }
        Ok(Arc::new(OsFile {
            file,
            io: self.io,
            reserved: AtomicBool::new(false),
            is_table: AtomicBool::new(false),
            syncs: AtomicU32::new(0),
        }))
    }

    fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in uninterrupted(|| fs::read_dir(self.path(directory)))? {
            // A name that is not UTF-8 is none of ours.
            if let Ok(name) = entry?.file_name().into_string() {
                names.try_reserve(1)?;
                names.push(name);
            }
        }
        Ok(names)
    }

    fn is_directory(&self, name: &str) -> io::Result<bool> {
        match uninterrupted(|| fs::metadata(self.path(name))) {
            Ok(metadata) => Ok(metadata.is_dir()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            // Links that lead to each other.
            Err(error) if error.raw_os_error() == Some(libc::ELOOP) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn create_directory(&self, name: &str) -> io::Result<()> {
        self.check_place()?;
        uninterrupted(|| fs::create_dir(self.path(name)))
    }

    fn remove_directory(&self, name: &str) -> io::Result<()> {
        self.check_place()?;
        uninterrupted(|| fs::remove_dir(self.path(name)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.check_place()?;
        uninterrupted(|| fs::rename(self.path(from), self.path(to)))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.check_place()?;
        uninterrupted(|| fs::remove_file(self.path(name)))
    }

    fn sync_directory(&self, directory: &str) -> io::Result<()> {
        match self.directory.get().filter(|_| directory.is_empty()) {
            Some(root) => root.sync_all(),
            None => fs::File::open(self.path(directory))?.sync_all(),
        }
    }

    fn lock(&self, name: &str) -> io::Result<Option<Box<dyn Lock>>> {
        loop {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(self.path(name))?;
            // Before it is taken: a child that is forked right after that must not keep it.
            fork::remember_lock(file.as_raw_fd());
            let fork_generation = fork::generation();
            let taken = self.take_lock(&file, name);
            if let Ok(Taken::Ours) = taken {
                return Ok(Some(Box::new(OsLock {
                    file: Some(file),
                    fork_generation,
                })));
            }
            fork::forget_lock(file.as_raw_fd());
            if let Taken::BySomebodyElse = taken? {
                return Ok(None);
            }
        }
    }

    fn is_locked(&self, name: &str) -> io::Result<bool> {
        let mut options = OpenOptions::new();
        let file = match options.read(true).custom_flags(FLAGS).open(self.path(name)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        let mut request = whole_file(libc::F_WRLCK);
        uninterrupted(|| {
            // SAFETY: the descriptor is open and `request` is a valid flock structure, into which
            // the kernel writes who holds the lock.
            checked(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &raw mut request) })
        })?;
        Ok(i32::from(request.l_type) != libc::F_UNLCK)
    }

    fn identity(&self) -> io::Result<Option<(u64, u64)>> {
        match uninterrupted(|| fs::metadata(&self.root)) {
            Ok(metadata) => Ok(Some(identity(&metadata))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn now_us(&self) -> u64 {
        now_us()
    }

    fn random(&self) -> io::Result<[u8; 16]> {
        random()
    }

    fn describe(&self, name: &str) -> String {
        String::from_utf8_lossy(self.path(name).as_os_str().as_bytes()).into_owned()
    }
}

/// A request about the whole file, for open file description locks. Those belong to the open
/// file and not to the process, so they also hold between two handles of one process, and they
/// can be asked about without being taken.
fn whole_file(kind: libc::c_int) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

pub(super) fn now_us() -> u64 {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // Not SystemTime, which counts in nanoseconds and with more care than a commit has time for.
    // SAFETY: the kernel writes nothing but the structure.
    unsafe { libc::clock_gettime(libc::CLOCK_REALTIME, &raw mut now) };
    // Of a time before 1970 only what is over a second is left.
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let microseconds = u64::try_from(now.tv_nsec).unwrap_or(0) / 1000;
    seconds
        .saturating_mul(1_000_000)
        .saturating_add(microseconds)
}

pub(super) fn random() -> io::Result<[u8; 16]> {
    let mut bytes = [0u8; 16];
    uninterrupted(|| {
        // SAFETY: the kernel writes at most the 16 bytes of the array.
        let filled = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
        // Up to 256 bytes come whole once the pool is ready.
        if filled == 16 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    })?;
    Ok(bytes)
}

/// What came of taking a lock.
enum Taken {
    Ours,
    BySomebodyElse,
    /// Who held it before has removed the file: this lock locks nothing.
    InVain,
}

impl OsStorage {
    /// Takes the lock that `file`, opened by this name, is for.
    fn take_lock(&self, file: &fs::File, name: &str) -> io::Result<Taken> {
        let mut request = whole_file(libc::F_WRLCK);
        let locked = uninterrupted(|| {
            // SAFETY: the descriptor is open and `request` is a valid flock structure.
            checked(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw mut request) })
        });
        if let Err(error) = locked {
            return match error.raw_os_error() {
                Some(libc::EAGAIN | libc::EACCES) => Ok(Taken::BySomebodyElse),
                _ => Err(error),
            };
        }
        let locked = file.metadata()?;
        match uninterrupted(|| fs::metadata(self.path(name))) {
            Ok(there) if identity(&there) == identity(&locked) => {}
            Ok(_) => return Ok(Taken::InVain),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Taken::InVain),
            Err(error) => return Err(error),
        }
        let directory = fs::File::open(&self.root)?;
        self.directory.get_or_init(|| directory);
        Ok(Taken::Ours)
    }
}

#[derive(Debug)]
struct OsLock {
    file: Option<fs::File>,
    fork_generation: u32,
}

impl Lock for OsLock {}

impl Drop for OsLock {
    fn drop(&mut self) {
        let Some(file) = self.file.take() else { return };
        if self.fork_generation == fork::generation() {
            fork::forget_lock(file.as_raw_fd());
            // Given back, not only closed: a child that was forked a moment ago may not have come
            // to closing its copy of the descriptor yet.
            let mut request = whole_file(libc::F_UNLCK);
            // SAFETY: the descriptor is open and `request` is a valid flock structure.
            unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw mut request) };
        } else {
            // We are in a forked child, where the handler has closed the descriptor: its number
            // may belong to another file by now.
            std::mem::forget(file);
        }
    }
}

#[derive(Debug)]
struct OsFile {
    file: fs::File,
    io: IoMode,
    /// Whether the space at the tail is reserved for good, so that stores through a mapping can't fail.
    reserved: AtomicBool,
    /// Whether the file is mapped as a table, and will be stored to in no other way.
    is_table: AtomicBool,
    /// How often it was synced.
    syncs: AtomicU32,
}

impl OsFile {
    /// Gives each page of a table its space by writing into it what it holds, where space can't be
    /// reserved otherwise: a store into a hole on a full disk is a signal.
    fn write_again(&self, from: u64, to: u64) -> io::Result<()> {
        let page = page_size() as u64;
        let mut byte = [0];
        for position in (from - from % page..to).step_by(page as usize) {
            self.file.read_exact_at(&mut byte, position)?;
            self.file.write_all_at(&byte, position)?;
        }
        Ok(())
    }

    /// Makes this file, which is empty, share all blocks of another; whether the file system can.
    fn clone_whole(&self, source: &OsFile) -> io::Result<bool> {
        let cloned = uninterrupted(|| {
            // SAFETY: both descriptors are open; nothing but this file changes.
            checked(unsafe {
                libc::ioctl(
                    self.file.as_raw_fd(),
                    libc::FICLONE,
                    source.file.as_raw_fd(),
                )
            })
        });
        match cloned {
            Ok(()) => Ok(true),
            Err(error) if cannot_copy(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Copies up to `len` bytes within the kernel; 0 where it can't.
    fn copy_in_kernel(&self, source: &OsFile, position: u64, len: u64) -> io::Result<u64> {
        let invalid = |_| io::Error::from(io::ErrorKind::InvalidInput);
        let offset = libc::off64_t::try_from(position).map_err(invalid)?;
        let len = usize::try_from(len).map_err(invalid)?;
        let (mut from, mut to) = (offset, offset);
        let copied = uninterrupted(|| {
            // SAFETY: both descriptors are open, and the offsets are variables of this frame, which
            // the kernel moves on. Nothing but this file changes.
            let copied = unsafe {
                libc::copy_file_range(
                    source.file.as_raw_fd(),
                    &raw mut from,
                    self.file.as_raw_fd(),
                    &raw mut to,
                    len,
                    0,
                )
            };
            u64::try_from(copied).map_err(|_| io::Error::last_os_error())
        });
        match copied {
            Err(error) if cannot_copy(&error) => Ok(0),
            copied => copied,
        }
    }
}

/// Whether a file system says that it doesn't copy from one file to another by itself, or not
/// between these two.
fn cannot_copy(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::EOPNOTSUPP
                | libc::ENOSYS
                | libc::EXDEV
                | libc::EINVAL
                | libc::ENOTTY
                | libc::EBADF
                | libc::EPERM
                | libc::ETXTBSY
                | libc::EISDIR
        )
    )
}

impl File for OsFile {
    fn len(&self) -> io::Result<u64> {
        let (len, names) = len_and_names(&self.file)?;
        if names == 0 {
            // It has no name any more: what is written to it is gone when it is closed.
            return Err(io::Error::from_raw_os_error(libc::ENOENT));
        }
        Ok(len)
    }

    fn modified_ns(&self) -> io::Result<u64> {
        let metadata = self.file.metadata()?;
        let seconds = u64::try_from(metadata.mtime()).unwrap_or(0);
        let nanoseconds = u64::try_from(metadata.mtime_nsec()).unwrap_or(0);
        Ok(seconds
            .saturating_mul(1_000_000_000)
            .saturating_add(nanoseconds))
    }

    fn read_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buffer, position)
    }

    fn write_at(&self, position: u64, parts: &[&[u8]]) -> io::Result<()> {
        let len: u64 = parts.iter().map(|part| part.len() as u64).sum();
        let mut position = position;
        if let [head, value] = parts
            && len <= 4096
        {
            // The common case of a short record: one call instead of two.
            let mut both = [0u8; 4096];
            both[..head.len()].copy_from_slice(head);
            both[head.len()..head.len() + value.len()].copy_from_slice(value);
            return self.file.write_all_at(&both[..len as usize], position);
        }
        for part in parts {
            self.file.write_all_at(part, position)?;
            position += part.len() as u64;
        }
        Ok(())
    }

    fn append(&self, ahead: &mut Ahead, position: u64, parts: &[&[u8]]) -> io::Result<()> {
        if self.io != IoMode::File && self.reserved.load(Ordering::Relaxed) {
            let syncs = self.syncs.load(Ordering::Relaxed);
            if ahead.write(&self.file, syncs, position, parts)? {
                return Ok(());
            }
        }
        self.write_at(position, parts)
    }

    fn allocate(&self, from: u64, to: u64) -> io::Result<()> {
        let invalid = |_| io::Error::from(io::ErrorKind::InvalidInput);
        let offset = libc::off_t::try_from(from).map_err(invalid)?;
        let len = libc::off_t::try_from(to.saturating_sub(from)).map_err(invalid)?;
        loop {
            // SAFETY: the descriptor is open; nothing but the file changes.
            if unsafe { libc::fallocate(self.file.as_raw_fd(), 0, offset, len) } == 0 {
                let keeps = !copies_on_write(&self.file);
                self.reserved.store(keeps, Ordering::Relaxed);
                return Ok(());
            }
            let error = io::Error::last_os_error();
            match error.raw_os_error() {
                Some(libc::EINTR) => {}
                // This file system can't reserve; writes go through the kernel, which says so
                // when the disk is full.
                Some(libc::EOPNOTSUPP | libc::ENOSYS) => {
                    self.reserved.store(false, Ordering::Relaxed);
                    if self.is_table.load(Ordering::Relaxed) {
                        return self.write_again(from, to);
                    }
                    return Ok(());
                }
                _ => return Err(error),
            }
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn copy_from(&self, source: &dyn File, position: u64, len: u64) -> io::Result<u64> {
        let source: &dyn Any = source;
        let Some(source) = source.downcast_ref::<OsFile>() else {
            return Ok(0);
        };
        if position == 0 && source.file.metadata()?.len() == len && self.clone_whole(source)? {
            // Somebody may have made it longer meanwhile.
            self.file.set_len(len)?;
            return Ok(len);
        }
        self.copy_in_kernel(source, position, len.min(LONGEST_COPY))
    }

    fn write_back(&self, from: u64, to: u64) -> io::Result<()> {
        let invalid = |_| io::Error::from(io::ErrorKind::InvalidInput);
        let offset = libc::off64_t::try_from(from).map_err(invalid)?;
        let len = libc::off64_t::try_from(to.saturating_sub(from)).map_err(invalid)?;
        let written = uninterrupted(|| {
            // SAFETY: the descriptor is open; nothing changes.
            checked(unsafe {
                libc::sync_file_range(
                    self.file.as_raw_fd(),
                    offset,
                    len,
                    libc::SYNC_FILE_RANGE_WAIT_BEFORE
                        | libc::SYNC_FILE_RANGE_WRITE
                        | libc::SYNC_FILE_RANGE_WAIT_AFTER,
                )
            })
        });
        match written {
            // Those are failures to write; with any other the call was refused.
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::EIO | libc::ENOSPC | libc::EDQUOT)
                ) =>
            {
                Err(error)
            }
            _ => Ok(()),
        }
    }

    fn sync(&self) -> io::Result<()> {
        self.syncs.fetch_add(1, Ordering::Relaxed);
        uninterrupted(|| self.file.sync_data())
    }

    fn view(&self, reserve: u64) -> io::Result<View> {
        if self.io == IoMode::File || reserve == 0 {
            return Ok(View::unmapped());
        }
        let mapping = usize::try_from(reserve)
            .map_err(|_| io::ErrorKind::OutOfMemory.into())
            .and_then(|len| {
                let len = len.next_multiple_of(page_size());
                Mapping::new(len, Backing::Read(&self.file, 0))
            });
        match mapping {
            Ok(mapping) => {
                let metadata = self.file.metadata().ok();
                Ok(View::mapped(
                    Arc::new(mapping),
                    metadata.as_ref().map(identity),
                    metadata.map(|metadata| metadata.uid()),
                ))
            }
            Err(error) if self.io == IoMode::Map => Err(error),
            Err(_) => Ok(View::unmapped()),
        }
    }

    fn identity(&self) -> io::Result<Option<Identity>> {
        Ok(Some(identity(&self.file.metadata()?)))
    }

    fn words(&self, count: u64) -> io::Result<Words> {
        let count = usize::try_from(count).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let bytes = count
            .max(1)
            .checked_mul(8)
            .ok_or(io::ErrorKind::OutOfMemory)?;
        if self.len()? < bytes as u64 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mapping = Mapping::new(bytes, Backing::Write(&self.file, 0))?;
        self.is_table.store(true, Ordering::Relaxed);
        Words::over(mapping, count)
    }
}
