//! What a simulated storage can answer in place of doing its work.

use std::fmt;
use std::io;

/// The failure that the operating system reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Errno {
    Io,
    NoSpace,
    /// No descriptor is left to the process.
    NoDescriptor,
}

impl Errno {
    pub(super) fn error(self) -> io::Error {
        io::Error::from_raw_os_error(match self {
            Errno::Io => libc::EIO,
            Errno::NoSpace => libc::ENOSPC,
            Errno::NoDescriptor => libc::EMFILE,
        })
    }
}

/// Which calls a fault counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Calls {
    /// Those that only look.
    Reading,
    /// Those that change something: write, truncate, allocate, make, rename, remove.
    Changing,
    /// The syncs of files and directories.
    Syncing,
}

/// What a single call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    Reading,
    /// Changes something and may need space for it.
    Growing,
    /// Changes something and needs none.
    Changing,
    Syncing,
}

impl Call {
    pub(super) fn kind(self) -> Calls {
        match self {
            Call::Reading => Calls::Reading,
            Call::Growing | Call::Changing => Calls::Changing,
            Call::Syncing => Calls::Syncing,
        }
    }
}

/// A failure to come.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    pub calls: Calls,
    /// How many such calls succeed before; then the first one that can fail so does.
    pub after: usize,
    pub errno: Errno,
    /// It fails again and again from then on.
    pub sticky: bool,
    /// A write is done in half before it fails.
    pub partly: bool,
    /// What a sync that fails does to what it should have written.
    pub pages: Pages,
}

/// What becomes of the dirty pages of a file when their sync fails: that depends on the system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pages {
    /// They stay dirty, and a later sync tries again.
    Dirty,
    /// They stay readable but count as clean: a later sync succeeds and does not write them.
    Clean,
    /// They are dropped; what was on disk is read again.
    Dropped,
}

/// A call that failed on request.
#[derive(Clone, Debug)]
pub struct Hit {
    pub call: String,
    pub kind: Calls,
    pub errno: Errno,
    /// What was asked for was done in half.
    pub partly: bool,
    /// What became of the dirty pages, where it was a sync.
    pub pages: Pages,
}

impl Hit {
    /// It was a sync of a file or a directory.
    pub fn is_sync(&self) -> bool {
        self.kind == Calls::Syncing
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "after {} {:?} calls: {:?}",
            self.after, self.calls, self.errno
        )?;
        f.write_str(if self.sticky {
            ", again and again"
        } else {
            ", once"
        })?;
        f.write_str(if self.partly { ", partly done" } else { "" })?;
        write!(f, ", pages {:?}", self.pages)
    }
}
