//! A piece of address space, and the one place that asks the kernel for it.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicUsize, Ordering};

/// A process may have some 65,000 mappings by default, and the host program needs some of them: for
/// its memory, its threads and its libraries. What can't be mapped is read by system calls.
const MOST_MAPPINGS: usize = 16_384;
/// So many of them are left for what can't do without: data files can, on disk and in memory.
const NOT_FOR_FILES: usize = 1024;
static MAPPINGS: AtomicUsize = AtomicUsize::new(0);

/// Size and alignment of a huge page on x86-64, and on aarch64 with pages of 4 KiB.
const HUGE_PAGE: usize = 2 << 20;

/// What backs a mapping, and what may be done with it.
#[derive(Clone, Copy)]
pub(super) enum Backing<'a> {
    /// Zeroed memory, taken page by page as it is touched.
    Zeroed,
    /// Address space only, until [`Mapping::make_writable`].
    Reserved,
    /// A file from `offset` on, for reading. It may end before the mapping does.
    Read(&'a File, u64),
    /// A file from `offset` on, for reading and writing; stores go to the file.
    Write(&'a File, u64),
}

/// A mapping, unmapped when dropped.
#[derive(Debug)]
pub(super) struct Mapping {
    base: NonNull<u8>,
    /// What is still mapped: [`Mapping::trim`] makes it less.
    len: AtomicUsize,
}

// SAFETY: a `Mapping` is an address range that it owns; who may read or write which bytes of it
// is decided by the types built on it (`View`, `Words`, the write window).
unsafe impl Send for Mapping {}
// SAFETY: as above; its own methods only read `base` and exchange `len` atomically.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `len` bytes, which must not be 0. [`Backing::Zeroed`] may be longer: from a huge page on it
    /// is of whole ones, so that the kernel (Linux 6.7) begins it where huge pages do.
    pub(super) fn new(len: usize, backing: Backing<'_>) -> io::Result<Mapping> {
        let len = match backing {
            Backing::Zeroed if len >= HUGE_PAGE => len
                .checked_next_multiple_of(HUGE_PAGE)
                .ok_or(io::ErrorKind::OutOfMemory)?,
            _ => len,
        };
        let anonymous = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let read_write = libc::PROT_READ | libc::PROT_WRITE;
        let (protection, flags, descriptor, offset) = match backing {
            Backing::Zeroed => (read_write, anonymous, -1, 0),
            Backing::Reserved => (libc::PROT_NONE, anonymous, -1, 0),
            Backing::Read(file, offset) => {
                (libc::PROT_READ, libc::MAP_SHARED, file.as_raw_fd(), offset)
            }
            Backing::Write(file, offset) => {
                (read_write, libc::MAP_SHARED, file.as_raw_fd(), offset)
            }
        };
        let offset = libc::off_t::try_from(offset)
            .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        let most = match backing {
            Backing::Read(..) | Backing::Reserved => MOST_MAPPINGS - NOT_FOR_FILES,
            Backing::Zeroed | Backing::Write(..) => MOST_MAPPINGS,
        };
        if MAPPINGS.fetch_add(1, Ordering::Relaxed) >= most {
            MAPPINGS.fetch_sub(1, Ordering::Relaxed);
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        // SAFETY: the kernel chooses an address range of its own (no MAP_FIXED), so no memory
        // that anyone uses changes.
        let base =
            unsafe { libc::mmap(ptr::null_mut(), len, protection, flags, descriptor, offset) };
        let base = if base == libc::MAP_FAILED {
            None
        } else {
            NonNull::new(base.cast::<u8>())
        };
        let Some(base) = base else {
            let error = io::Error::last_os_error();
            MAPPINGS.fetch_sub(1, Ordering::Relaxed);
            return Err(error);
        };
        if len >= HUGE_PAGE && matches!(backing, Backing::Read(..)) {
            // Not for a file that grows: its bytes would lie in huge pages, and a free one may have to
            // be fetched and cleared first, which takes a virtual machine longer than to write it full.
            // SAFETY: the range is the new mapping; the advice, a hint, changes no content.
            unsafe { libc::madvise(base.as_ptr().cast(), len, libc::MADV_HUGEPAGE) };
        }
        Ok(Mapping {
            base,
            len: AtomicUsize::new(len),
        })
    }

    pub(super) fn base(&self) -> *mut u8 {
        self.base.as_ptr()
    }

    pub(super) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// Gives back the address space from `len` on. The caller promises that nothing reads there.
    pub(super) fn trim(&self, len: usize) {
        let keep = len.max(1).next_multiple_of(page_size());
        let old = self.len.fetch_min(keep, Ordering::Relaxed);
        if keep < old {
            // SAFETY: [keep, old) lies within this mapping, was taken out of `len` by us alone,
            // and by the caller's promise nobody reads there.
            unsafe { libc::munmap(self.base().add(keep).cast(), old - keep) };
        }
    }

    /// Makes the first `len` bytes of a [`Backing::Reserved`] mapping usable.
    pub(super) fn make_writable(&self, len: usize) -> io::Result<()> {
        let len = len.next_multiple_of(page_size());
        if len > self.len() {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        // SAFETY: the range lies within this mapping.
        let result =
            unsafe { libc::mprotect(self.base().cast(), len, libc::PROT_READ | libc::PROT_WRITE) };
        if result == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }

    /// Asks for huge pages in `[from, to)` of a [`Backing::Zeroed`] mapping, also for what is
    /// there already. Only a hint: where it can't be done, nothing changes.
    pub(super) fn prefer_huge_pages(&self, from: usize, to: usize) {
        let to = to.min(self.len());
        if from >= to {
            return;
        }
        for advice in [libc::MADV_HUGEPAGE, libc::MADV_COLLAPSE] {
            // SAFETY: the range lies within this mapping; neither advice changes its content.
            unsafe { libc::madvise(self.base().add(from).cast(), to - from, advice) };
        }
    }

    /// Asks for the pages of `[from, to)` of a [`Backing::Write`] mapping at once rather than by one
    /// fault each. Where the kernel doesn't know how, the faults come one by one; an error says that
    /// they would fail, as on a full disk or over a bad sector. `from` is a multiple of the page size.
    pub(super) fn populate_for_writing(&self, from: usize, to: usize) -> io::Result<()> {
        match self.populate(from, to, libc::MADV_POPULATE_WRITE) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(()),
            populated => populated,
        }
    }

    /// Asks for the pages of `[from, to)` of a [`Backing::Read`] mapping. An error says that to
    /// touch them would be a SIGBUS, or that the kernel doesn't know how (Linux before 5.14).
    pub(super) fn populate_for_reading(&self, from: usize, to: usize) -> io::Result<()> {
        self.populate(from - from % page_size(), to, libc::MADV_POPULATE_READ)
    }

    /// Whether all pages of `[from, to)` of a [`Backing::Read`] mapping are in memory, so that none has to
    /// be asked for: much less work for the kernel than to populate them again. It says so of all pages to
    /// who neither owns the file nor may write to it, and of some that a file had that is shorter by now.
    pub(super) fn is_resident(&self, from: usize, to: usize) -> bool {
        let mut from = from - from % page_size();
        let to = to.min(self.len());
        while from < to {
            let mut pages = [0u8; 64];
            let len = (to - from).min(pages.len() * page_size());
            // SAFETY: the range lies within this mapping, and there is a byte for each of its pages.
            let told =
                unsafe { libc::mincore(self.base().add(from).cast(), len, pages.as_mut_ptr()) };
            let pages = &pages[..len.div_ceil(page_size())];
            if told != 0 || pages.iter().any(|page| page & 1 == 0) {
                return false;
            }
            from += len;
        }
        true
    }

    /// `from` is a multiple of the page size.
    fn populate(&self, from: usize, to: usize, advice: libc::c_int) -> io::Result<()> {
        let Some(len) = to.min(self.len()).checked_sub(from).filter(|&len| len > 0) else {
            return Ok(());
        };
        // SAFETY: the range lies within this mapping; populating changes no content.
        let result = unsafe { libc::madvise(self.base().add(from).cast(), len, advice) };
        if result == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range is ours, and whoever could read it borrowed from `self`.
        unsafe { libc::munmap(self.base().cast(), self.len()) };
        MAPPINGS.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The size of a memory page in bytes.
pub(super) fn page_size() -> usize {
    static SIZE: AtomicUsize = AtomicUsize::new(0);
    let known = SIZE.load(Ordering::Relaxed);
    if known != 0 {
        return known;
    }
    // SAFETY: sysconf has no preconditions.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    let size = usize::try_from(size).unwrap_or(4096);
    SIZE.store(size, Ordering::Relaxed);
    size
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hole_that_nobody_has_read_is_not_resident() {
        let path = std::env::temp_dir().join(format!("ourdb-resident-{}", std::process::id()));
        let (page, written) = (page_size(), 200 * page_size());
        std::fs::write(&path, vec![7u8; written]).unwrap();
        let file = File::options().read(true).write(true).open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        file.set_len(2 * written as u64).unwrap();
        let mapping = Mapping::new(2 * written, Backing::Read(&file, 0)).unwrap();
        // Mapped or not: it is in memory since it was written.
        assert!(mapping.is_resident(0, written));
        assert!(mapping.is_resident(5, written - 5));
        mapping.populate_for_reading(0, 100 * page).unwrap();
        assert!(mapping.is_resident(0, written));
        for (from, to) in [
            (written - 1, written + 1),
            (0, 2 * written),
            (2 * written - 5, 2 * written),
        ] {
            assert!(!mapping.is_resident(from, to), "{from} to {to}");
        }
        // Past the mapping there is nothing to look at.
        assert!(mapping.is_resident(2 * written, 3 * written));
    }
}
