//! The real file system.
//!
//! Reads go through read-only mappings, appends through a small writable window that slides along
//! the tail, over space reserved beforehand; where that can't be had, or [`IoMode::File`] asks,
//! both are system calls. Both ways see the same page cache, so they mix freely.

use std::any::Any;
use std::fs::{self, OpenOptions};
use std::io;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use super::mapping::{Backing, Mapping, page_size};
use super::view::Identity;
use super::{Access, File, Lock, Storage, View, Words, fork};
use crate::options::IoMode;
use crate::sync::{Mutex, MutexGuard, PoisonError};

/// The writable window at the tail of a file moves on by this much.
const STRIDE: u64 = 2 << 20;
/// Its length: a record that crosses into the next stride is still within it.
const WINDOW: u64 = STRIDE + LONGEST_WINDOWED_WRITE;
/// The kernel is asked to copy so many bytes at a time: somebody waits for a word on the progress.
const LONGEST_COPY: u64 = 4 << 20;
/// Writes longer than this go through the kernel: what a call costs is little then beside a page of
/// the window.
const LONGEST_WINDOWED_WRITE: u64 = 16 << 10;
/// The kernel is asked for the window's pages so many bytes at a time: a set that comes just then
/// waits for them, and where memory is short each page may take it 100 µs.
const PAGES_AT_ONCE: u64 = 128 << 10;
/// Written over reserved space, a few at a time.
static ZEROS: [u8; 16 << 10] = [0; 16 << 10];

/// A directory of the file system.
#[derive(Debug)]
pub struct OsStorage {
    root: PathBuf,
    io: IoMode,
    /// The directory itself, once it is locked: to sync it must not fail because the process has
    /// too many files open.
    directory: OnceLock<fs::File>,
}

/// Makes a call again as long as a signal interrupts it. Not only those that wait are: a file system
/// in user space or on a network may interrupt any call.
fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// The result of a C function that says with -1 that it failed.
fn checked(result: libc::c_int) -> io::Result<()> {
    if result == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
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
        match uninterrupted(|| fs::remove_dir(&self.root)) {
            Err(error) if error.kind() != io::ErrorKind::DirectoryNotEmpty => Err(error),
            _ => Ok(()),
        }
    }

    fn open(&self, name: &str, access: Access) -> io::Result<Arc<dyn File>> {
        let mut options = OpenOptions::new();
        options.read(true);
        let flags = libc::O_CLOEXEC | libc::O_NOCTTY | libc::O_NONBLOCK;
        match access {
            Access::Read => drop(options.custom_flags(flags)),
            Access::Write => drop(options.custom_flags(flags).write(true)),
            Access::CreateNew => drop(options.custom_flags(flags).write(true).create_new(true)),
            // A link may lead to somebody else's file, which is not to be emptied.
            Access::Truncate => drop(
                options
                    .custom_flags(flags | libc::O_NOFOLLOW)
                    .write(true)
                    .create(true)
                    .truncate(true),
            ),
        }
        let file = options.open(self.path(name))?;
        // A pipe or a device in the place of a file would block or lie about its length.
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "not a regular file",
            ));
        }
        Ok(Arc::new(OsFile {
            file,
            io: self.io,
            reserved: AtomicBool::new(false),
            is_table: AtomicBool::new(false),
            tail: Mutex::default(),
        }))
    }

    fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in uninterrupted(|| fs::read_dir(self.path(directory)))? {
            // A name that is not UTF-8 is none of ours.
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn is_directory(&self, name: &str) -> io::Result<bool> {
        match uninterrupted(|| fs::metadata(self.path(name))) {
            Ok(metadata) => Ok(metadata.is_dir()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn create_directory(&self, name: &str) -> io::Result<()> {
        uninterrupted(|| fs::create_dir(self.path(name)))
    }

    fn remove_directory(&self, name: &str) -> io::Result<()> {
        uninterrupted(|| fs::remove_dir(self.path(name)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        uninterrupted(|| fs::rename(self.path(from), self.path(to)))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
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
            let mut request = whole_file(libc::F_WRLCK);
            let locked = uninterrupted(|| {
                // SAFETY: the descriptor is open and `request` is a valid flock structure.
                checked(unsafe {
                    libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw mut request)
                })
            });
            if let Err(error) = locked {
                return match error.raw_os_error() {
                    Some(libc::EAGAIN | libc::EACCES) => Ok(None),
                    _ => Err(error),
                };
            }
            // Who held it before may have removed the file; then this lock locks nothing.
            let locked = file.metadata()?;
            match uninterrupted(|| fs::metadata(self.path(name))) {
                Ok(there) if identity(&there) == identity(&locked) => {}
                Ok(_) => continue,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            }
            let directory = fs::File::open(&self.root)?;
            self.directory.get_or_init(|| directory);
            fork::remember_lock(file.as_raw_fd());
            let fork_generation = fork::generation();
            return Ok(Some(Box::new(OsLock {
                file: Some(file),
                fork_generation,
            })));
        }
    }

    fn is_locked(&self, name: &str) -> io::Result<bool> {
        let file = match fs::File::open(self.path(name)) {
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
    /// Whether the space at the tail is reserved, so that stores through a mapping can't fail.
    reserved: AtomicBool,
    /// Whether the file is mapped as a table, and will be stored to in no other way.
    is_table: AtomicBool,
    tail: Mutex<Tail>,
}

/// How the tail of a file is written.
#[derive(Debug, Default)]
struct Tail {
    window: Option<Window>,
    /// Below this position writes go through the kernel. A page that was stored to through a mapping
    /// is written out whole by a sync; of one that the kernel wrote to, only what
    /// changed. So after a sync the rest of its window is not mapped again, nor is the next one.
    unmapped_until: u64,
    /// Whether there was a sync since the last window was opened.
    synced: bool,
    /// What was reserved last, behind all that was written.
    unused: Range<u64>,
}

/// The part of the file that is mapped for writing.
#[derive(Debug)]
struct Window {
    mapping: Mapping,
    start: u64,
    end: u64,
    /// Here there are pages, so that stores can't fail.
    ready: Range<u64>,
}

impl Window {
    /// Makes sure that there are pages for `[position, end)`, which lies within the window. Of `unused`
    /// nobody reads what it holds, and nothing was written there.
    fn make_ready(
        &mut self,
        file: &OsFile,
        position: u64,
        end: u64,
        unused: &Range<u64>,
    ) -> io::Result<()> {
        if end <= self.ready.end {
            return Ok(());
        }
        let page = page_size() as u64;
        // What was written through the kernel since needs none.
        let from = self.ready.end.max(position - position % page);
        let to = end.max(from + PAGES_AT_ONCE).next_multiple_of(page);
        let to = to.min(self.end);
        // Where another program has cut the file off, zeros would hide it.
        if file.len_and_names()?.0 < to {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // A page of reserved space comes by way of a fault at half the speed of one that is written,
        // and with it the file system may make many more, which takes milliseconds.
        let new = from.max(unused.start)..to.min(unused.end);
        write_zeros(&file.file, new);
        self.mapping
            .populate_for_writing((from - self.start) as usize, (to - self.start) as usize)?;
        if from > self.ready.end {
            self.ready.start = from;
        }
        self.ready.end = to;
        Ok(())
    }
}

/// Writes zeros over a range of a file, which holds zeros. What can't be written stays as it is.
fn write_zeros(file: &fs::File, range: Range<u64>) {
    let mut position = range.start;
    while position < range.end {
        let mut left = (range.end - position) as usize;
        let parts = [(); PAGES_AT_ONCE as usize / ZEROS.len()].map(|()| {
            let len = left.min(ZEROS.len());
            left -= len;
            libc::iovec {
                iov_base: ZEROS.as_ptr().cast_mut().cast(),
                iov_len: len,
            }
        });
        let Ok(offset) = libc::off_t::try_from(position) else {
            return;
        };
        // SAFETY: the descriptor is open; each part lies within `ZEROS`, from which the kernel reads.
        let written = unsafe {
            libc::pwritev(
                file.as_raw_fd(),
                parts.as_ptr(),
                parts.len() as libc::c_int,
                offset,
            )
        };
        match u64::try_from(written) {
            Ok(written) if written > 0 => position += written,
            _ => return,
        }
    }
}

impl OsFile {
    fn tail(&self) -> MutexGuard<'_, Tail> {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }

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

    /// Writes through the window; `false` where it can't be had and the kernel must be asked.
    fn write_window(
        &self,
        tail: &mut Tail,
        position: u64,
        parts: &[&[u8]],
        len: u64,
    ) -> io::Result<bool> {
        if position < tail.unmapped_until {
            return Ok(false);
        }
        let fits =
            |w: &Window| (w.start..w.start + STRIDE).contains(&position) && position + len <= w.end;
        if !tail.window.as_ref().is_some_and(fits) {
            tail.window = None;
            let start = position - position % STRIDE;
            if std::mem::take(&mut tail.synced) {
                tail.unmapped_until = start + 2 * STRIDE;
                return Ok(false);
            }
            let end = (start + WINDOW).min(self.len_and_names()?.0);
            if position + len > end {
                return Ok(false);
            }
            let backing = Backing::Write(&self.file, start);
            let mapping = match Mapping::new((end - start) as usize, backing) {
                Ok(mapping) => mapping,
                Err(error) if self.io == IoMode::Map => return Err(error),
                Err(_) => return Ok(false),
            };
            let first = (position - position % page_size() as u64).max(start);
            tail.window = Some(Window {
                mapping,
                start,
                end,
                ready: first..first,
            });
        }
        let Some(window) = tail.window.as_mut() else {
            return Ok(false);
        };
        if position < window.ready.start {
            return Ok(false);
        }
        let ready = window.make_ready(self, position, position + len, &tail.unused);
        if ready.is_err() {
            // The kernel's own way of writing says what is wrong, by an error code.
            tail.window = None;
            return Ok(false);
        }
        let mut offset = (position - window.start) as usize;
        for part in parts {
            // SAFETY: the destination lies within the window (checked above), whose pages exist
            // in the file and have space reserved. Nobody reads there yet: readers stop at the
            // mark of their view, which the engine moves after this write. `part` is memory of
            // this process that can't overlap with a fresh mapping of ours.
            unsafe {
                std::ptr::copy_nonoverlapping(
                    part.as_ptr(),
                    window.mapping.base().add(offset),
                    part.len(),
                );
            }
            offset += part.len();
        }
        Ok(true)
    }
}

impl OsFile {
    /// How long the file is, and how many names it has.
    ///
    /// Nothing else is asked for. The length is looked at after each sync, and where somebody was
    /// told when a file last changed, Linux since 6.13 dates its next change exactly: that dirties
    /// the inode each time, and on ext4 made the sync that follows half as long again.
    fn len_and_names(&self) -> io::Result<(u64, u64)> {
        let mut found = MaybeUninit::<libc::statx>::zeroed();
        let wanted = libc::STATX_SIZE | libc::STATX_NLINK;
        let looked = uninterrupted(|| {
            // Not the C library's function: an older one has none.
            // SAFETY: the descriptor is open, the path an empty string, and the kernel writes
            // nothing but the structure.
            let result = unsafe {
                libc::syscall(
                    libc::SYS_statx,
                    self.file.as_raw_fd(),
                    c"".as_ptr(),
                    libc::AT_EMPTY_PATH,
                    wanted,
                    found.as_mut_ptr(),
                )
            };
            checked(result as libc::c_int)
        });
        // SAFETY: plain numbers, for which zeros are values too.
        let found = unsafe { found.assume_init() };
        if looked.is_ok() && found.stx_mask & wanted == wanted {
            return Ok((found.stx_size, u64::from(found.stx_nlink)));
        }
        // Old kernels don't have the call, and some sandboxes forbid it.
        let metadata = self.file.metadata()?;
        Ok((metadata.len(), metadata.nlink()))
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
        let (len, names) = self.len_and_names()?;
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
        if self.io != IoMode::File && self.reserved.load(Ordering::Relaxed) {
            let mut tail = self.tail();
            let tail = &mut *tail;
            let is_written =
                len <= LONGEST_WINDOWED_WRITE && self.write_window(tail, position, parts, len)?;
            tail.unused.start = tail.unused.start.max(position + len);
            if is_written {
                return Ok(());
            }
        }
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

    fn allocate(&self, from: u64, to: u64) -> io::Result<()> {
        let invalid = |_| io::Error::from(io::ErrorKind::InvalidInput);
        let offset = libc::off_t::try_from(from).map_err(invalid)?;
        let len = libc::off_t::try_from(to.saturating_sub(from)).map_err(invalid)?;
        loop {
            // SAFETY: the descriptor is open; nothing but the file changes.
            if unsafe { libc::fallocate(self.file.as_raw_fd(), 0, offset, len) } == 0 {
                self.reserved.store(true, Ordering::Relaxed);
                self.tail().unused = from..to;
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
        {
            // A window over bytes that are cut off would fault when written to.
            let mut tail = self.tail();
            tail.window = None;
            tail.unused = 0..0;
        }
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
        {
            let mut tail = self.tail();
            tail.synced = true;
            if let Some(window) = tail.window.take() {
                tail.unmapped_until = window.end.next_multiple_of(STRIDE);
            }
        }
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
                ))
            }
            Err(error) if self.io == IoMode::Map => Err(error),
            Err(_) => Ok(View::unmapped()),
        }
    }

    fn is_seen_by(&self, view: &View) -> io::Result<bool> {
        Ok(view.is_of(identity(&self.file.metadata()?)))
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What was written is there, whatever was written through the window and what through the kernel,
    /// and however much of the space behind it was prepared.
    #[test]
    fn nothing_that_was_written_is_written_over() {
        let root = std::env::temp_dir().join(format!("ourdb-window-{}", std::process::id()));
        for io in [IoMode::Auto, IoMode::Map, IoMode::File] {
            let storage = OsStorage::new(&root, io);
            storage.create_root().expect("a directory");
            let file = storage.open("file", Access::Truncate).expect("a new file");
            let mut expected: Vec<u8> = Vec::new();
            let mut reserved = 0u64;
            let short = [
                1,
                40,
                140,
                4095,
                4096,
                4097,
                LONGEST_WINDOWED_WRITE as usize,
            ];
            let long = [LONGEST_WINDOWED_WRITE as usize + 1, 70_000, 300_000];
            let mut number = 0u8;
            let mut append = |expected: &mut Vec<u8>, reserved: &mut u64, len: usize| {
                let position = expected.len() as u64;
                let end = position + len as u64;
                if end > *reserved {
                    *reserved = end + 700_000;
                    file.allocate(position, *reserved).expect("space");
                }
                number = number % 250 + 1;
                let bytes = vec![number; len];
                let (head, rest) = bytes.split_at(len / 3);
                file.write_at(position, &[head, rest]).expect("a write");
                expected.extend_from_slice(&bytes);
            };
            for round in 0..12 {
                for len in short {
                    append(&mut expected, &mut reserved, len);
                }
                append(&mut expected, &mut reserved, long[round % long.len()]);
                for _ in 0..50 {
                    append(&mut expected, &mut reserved, 140);
                }
                // Over what is there, as an erasure does; cut off, as after a failed append; synced.
                let place = expected.len() / 2;
                file.write_at(place as u64, &[&[0xEE; 64]])
                    .expect("a write");
                expected[place..place + 64].fill(0xEE);
                match round {
                    4 => {
                        file.set_len(expected.len() as u64).expect("to be cut");
                        reserved = 0;
                    }
                    8 => file.sync().expect("a sync"),
                    _ => {}
                }
                let mut found = vec![0; expected.len()];
                file.read_at(0, &mut found).expect("a read");
                assert!(found == expected, "{io:?}, round {round}");
            }
        }
        fs::remove_dir_all(&root).expect("to be removed");
    }

    /// A file that another program has cut off isn't made as long again by what is prepared: its length
    /// is what tells of it.
    #[test]
    fn what_another_program_has_cut_off_stays_cut_off() {
        let root = std::env::temp_dir().join(format!("ourdb-cut-{}", std::process::id()));
        let storage = OsStorage::new(&root, IoMode::Auto);
        storage.create_root().expect("a directory");
        let file = storage.open("file", Access::CreateNew).expect("a file");
        file.allocate(0, PAGES_AT_ONCE + 70_000).expect("space");
        for position in (0..PAGES_AT_ONCE).step_by(4096) {
            file.write_at(position, &[&[7; 4096]]).expect("a write");
        }
        let other = OpenOptions::new().write(true).open(root.join("file"));
        other.and_then(|other| other.set_len(65_536)).expect("cut");
        file.write_at(PAGES_AT_ONCE, &[&[8; 140]]).expect("a write");
        assert_eq!(file.len().expect("a length"), PAGES_AT_ONCE + 140);
        fs::remove_dir_all(&root).expect("to be removed");
    }
}
