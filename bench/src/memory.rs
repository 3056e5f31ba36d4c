//! What the process and the store take.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Resident memory in bytes.
#[derive(Clone, Copy)]
pub struct Resident {
    /// The process's own: what it has allocated, not the pages of mapped files.
    pub own: u64,
    /// With mapped files.
    pub all: u64,
    /// The most that `all` ever was.
    pub peak: u64,
}

/// Of this process, now.
pub fn resident() -> Resident {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let bytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok());
        kib.unwrap_or(0) * 1024
    };
    Resident {
        own: bytes("RssAnon:"),
        all: bytes("VmRSS:"),
        peak: bytes("VmHWM:"),
    }
}

/// Bytes that the files of a directory take on disk: blocks, not lengths, because some stores make
/// files that are mostly holes.
pub fn on_disk(directory: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        // A store may be removing files at this moment.
        let Ok(metadata) = entry.metadata() else {
            continue;
        };
        bytes += if metadata.is_dir() {
            on_disk(&entry.path())?
        } else {
            metadata.blocks() * 512
        };
    }
    Ok(bytes)
}
