//! System calls, made as the library makes them.

use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;

/// Makes a call again as long as a signal interrupts it. Not only those that wait are: a file system
/// in user space or on a network may interrupt any call.
pub(super) fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Who this process acts as.
pub(super) fn user() -> u32 {
    // SAFETY: the call has no preconditions.
    unsafe { libc::geteuid() }
}

/// Whether the operating system has refused something to this process, and not failed at a file.
pub(crate) fn is_refused(error: &io::Error) -> bool {
    let refused = [
        libc::EMFILE,
        libc::ENFILE,
        libc::ENOMEM,
        libc::EACCES,
        libc::EPERM,
        libc::EINTR,
    ];
    let refused = |code| refused.contains(&code);
    error.raw_os_error().is_some_and(refused) || error.kind() == io::ErrorKind::OutOfMemory
}

/// The result of a C function that says with -1 that it failed.
pub(super) fn checked(result: libc::c_int) -> io::Result<()> {
    if result == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// How long the file is, and how many names it has.
///
/// Nothing else is asked for. The length is looked at after each sync, and where somebody was
/// told when a file last changed, Linux since 6.13 dates its next change exactly: that dirties
/// the inode each time, and on ext4 made the sync that follows half as long again.
pub(super) fn len_and_names(file: &fs::File) -> io::Result<(u64, u64)> {
    let mut found = MaybeUninit::<libc::statx>::zeroed();
    let wanted = libc::STATX_SIZE | libc::STATX_NLINK;
    let looked = uninterrupted(|| {
        // Not the C library's function: an older one has none.
        // SAFETY: the descriptor is open, the path an empty string, and the kernel writes
        // nothing but the structure.
        let result = unsafe {
            libc::syscall(
                libc::SYS_statx,
                file.as_raw_fd(),
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
    let metadata = file.metadata()?;
    Ok((metadata.len(), metadata.nlink()))
}

/// Whether the file is on a file system that writes what is changed to another place. There reserved space
/// serves for one write: what the kernel has written back since needs space anew, and a store through a
/// mapping that finds none is a SIGBUS. Of what lies below an overlay nothing can be told.
pub(super) fn copies_on_write(file: &fs::File) -> bool {
    // Of linux/magic.h, and of bcachefs and OpenZFS, which are not in it.
    const BTRFS: u32 = 0x9123_683e;
    const BCACHEFS: u32 = 0xca45_1a4e;
    const ZFS: u32 = 0x2fc1_2fc1;
    let mut found = MaybeUninit::<libc::statfs>::zeroed();
    let looked = uninterrupted(|| {
        // SAFETY: the descriptor is open, and the kernel writes nothing but the structure.
        checked(unsafe { libc::fstatfs(file.as_raw_fd(), found.as_mut_ptr()) })
    });
    // SAFETY: plain numbers, for which zeros are values too.
    let found = unsafe { found.assume_init() };
    // As wide as the machine's words, and signed or not.
    looked.is_ok() && [BTRFS, BCACHEFS, ZFS].contains(&(found.f_type as u32))
}
