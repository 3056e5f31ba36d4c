//! The space ahead of the tail of a file, and a window over it.
//!
//! What is appended is stored through a small writable mapping that slides along the tail, over space
//! that was reserved beforehand. Where that can't be had the kernel is asked to write. Both see the same
//! page cache, so they mix freely.

use std::fs;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;

use super::ZEROS;
use super::calls::len_and_names;
use super::mapping::{Backing, Mapping, page_size};

/// The writable window at the tail of a file moves on by this much.
const STRIDE: u64 = 2 << 20;
/// Its length: a record that crosses into the next stride is still within it.
const WINDOW: u64 = STRIDE + LONGEST_WINDOWED_WRITE;
/// Writes longer than this go through the kernel: what a call costs is little then beside a page of
/// the window.
const LONGEST_WINDOWED_WRITE: u64 = 16 << 10;
/// The kernel is asked for the window's pages so many bytes at a time: a set that comes just then
/// waits for them, and where memory is short each page may take it 100 µs.
const PAGES_AT_ONCE: u64 = 128 << 10;

/// What the one who appends to a file knows of the space at its tail.
///
/// Whoever cuts the file must have it forget that: a window over bytes that are cut off would fault when
/// stored to.
#[derive(Debug, Default)]
pub struct Ahead {
    window: Option<Window>,
    /// Below this position writes go through the kernel. A page that was stored to through a mapping
    /// is written out whole by a sync; of one that the kernel wrote to, only what changed. So after a
    /// sync the rest of its window is not mapped again, nor is the next one.
    unmapped_until: u64,
    /// How often the file had been synced when something was last appended.
    syncs: u32,
    /// Whether there was a sync since the last window was opened.
    synced: bool,
    /// What was reserved last, behind all that was written.
    unused: Range<u64>,
}

impl Ahead {
    /// Notes that space was reserved there, in which nothing is written yet.
    pub fn keep(&mut self, space: Range<u64>) {
        self.unused = space;
    }

    /// Forgets about space and window: the file is going to be cut.
    pub fn forget(&mut self) {
        self.window = None;
        self.unused = 0..0;
    }

    /// Writes through the window; `false` where it can't be had and the kernel must be asked. `file` was
    /// synced so often.
    #[inline]
    pub(super) fn write(
        &mut self,
        file: &fs::File,
        syncs: u32,
        position: u64,
        parts: &[&[u8]],
    ) -> io::Result<bool> {
        let end = position + parts.iter().map(|part| part.len() as u64).sum::<u64>();
        let is_ready = syncs == self.syncs
            && (self.window.as_ref()).is_some_and(|window| window.is_ready(position, end));
        let is_ready = is_ready || self.make_ready(file, syncs, position, end)?;
        self.unused.start = self.unused.start.max(end);
        let Some(window) = self.window.as_ref().filter(|_| is_ready) else {
            return Ok(false);
        };
        let mut offset = (position - window.start) as usize;
        for part in parts {
            // SAFETY: the destination lies within the part of the window that is ready (checked
            // above): its pages exist in the file and have space reserved. Nobody reads there yet:
            // readers stop at the mark of their view, which the engine moves after this write. `part`
            // is memory of this process that can't overlap with a fresh mapping of ours.
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

    /// Lays a window over `[position, end)` if need be, and makes it ready there; whether it is.
    #[cold]
    fn make_ready(
        &mut self,
        file: &fs::File,
        syncs: u32,
        position: u64,
        end: u64,
    ) -> io::Result<bool> {
        if syncs != self.syncs {
            self.syncs = syncs;
            self.synced = true;
            if let Some(window) = self.window.take() {
                self.unmapped_until = window.end.next_multiple_of(STRIDE);
            }
        }
        if end - position > LONGEST_WINDOWED_WRITE || position < self.unmapped_until {
            return Ok(false);
        }
        let fits = |w: &Window| (w.start..w.start + STRIDE).contains(&position) && end <= w.end;
        if !self.window.as_ref().is_some_and(fits) {
            self.window = None;
            let start = position - position % STRIDE;
            if std::mem::take(&mut self.synced) {
                self.unmapped_until = start + 2 * STRIDE;
                return Ok(false);
            }
            let to = (start + WINDOW).min(len_and_names(file)?.0);
            if end > to {
                return Ok(false);
            }
            // Also with `IoMode::Map`: that there is no room for a mapping now is no failed write.
            let Ok(mapping) = Mapping::new((to - start) as usize, Backing::Write(file, start))
            else {
                return Ok(false);
            };
            let first = (position - position % page_size() as u64).max(start);
            self.window = Some(Window {
                mapping,
                start,
                end: to,
                ready: first..first,
            });
        }
        let Some(window) = self.window.as_mut() else {
            return Ok(false);
        };
        if position < window.ready.start {
            return Ok(false);
        }
        if window
            .make_ready(file, position, end, &self.unused)
            .is_err()
        {
            // The kernel's own way of writing says what is wrong, by an error code.
            self.window = None;
            return Ok(false);
        }
        Ok(true)
    }
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
    /// Whether `[position, end)` can be stored to as it is. Where a stride ends another window begins.
    #[inline]
    fn is_ready(&self, position: u64, end: u64) -> bool {
        let ready = position >= self.ready.start && end <= self.ready.end;
        ready && position - self.start < STRIDE && end - position <= LONGEST_WINDOWED_WRITE
    }

    /// Makes sure that there are pages for `[position, end)`, which lies within the window. Of `unused`
    /// nobody reads what it holds, and nothing was written there.
    fn make_ready(
        &mut self,
        file: &fs::File,
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
        if len_and_names(file)?.0 < to {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // A page of reserved space comes by way of a fault at half the speed of one that is written,
        // and with it the file system may make many more, which takes milliseconds.
        let new = from.max(unused.start)..to.min(unused.end);
        write_zeros(file, new);
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

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;

    use super::super::os::OsStorage;
    use super::super::{Access, Storage};
    use super::*;
    use crate::options::IoMode;

    /// What was written is there, whatever was written through the window and what through the kernel,
    /// and however much of the space behind it was prepared.
    #[test]
    fn nothing_that_was_written_is_written_over() {
        let root = std::env::temp_dir().join(format!("ourdb-window-{}", std::process::id()));
        for io in [IoMode::Auto, IoMode::Map, IoMode::File] {
            let storage = OsStorage::new(&root, io);
            storage.create_root().expect("a directory");
            let file = storage.open("file", Access::Truncate).expect("a new file");
            let mut ahead = Ahead::default();
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
            let mut append =
                |ahead: &mut Ahead, expected: &mut Vec<u8>, reserved: &mut u64, len: usize| {
                    let position = expected.len() as u64;
                    let end = position + len as u64;
                    if end > *reserved {
                        *reserved = end + 700_000;
                        file.allocate(position, *reserved).expect("space");
                        ahead.keep(position..*reserved);
                    }
                    number = number % 250 + 1;
                    let bytes = vec![number; len];
                    let (head, rest) = bytes.split_at(len / 3);
                    let written = file.append(ahead, position, &[head, rest]);
                    written.expect("a write");
                    expected.extend_from_slice(&bytes);
                };
            for round in 0..12 {
                for len in short {
                    append(&mut ahead, &mut expected, &mut reserved, len);
                }
                append(
                    &mut ahead,
                    &mut expected,
                    &mut reserved,
                    long[round % long.len()],
                );
                for _ in 0..50 {
                    append(&mut ahead, &mut expected, &mut reserved, 140);
                }
                // Over what is there, as an erasure does; cut off, as after a failed append; synced.
                let place = expected.len() / 2;
                file.write_at(place as u64, &[&[0xEE; 64]])
                    .expect("a write");
                expected[place..place + 64].fill(0xEE);
                match round {
                    4 => {
                        ahead.forget();
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
        let mut ahead = Ahead::default();
        file.allocate(0, PAGES_AT_ONCE + 70_000).expect("space");
        ahead.keep(0..PAGES_AT_ONCE + 70_000);
        let mut append = |position, part: &[u8]| {
            let written = file.append(&mut ahead, position, &[part]);
            written.expect("a write");
        };
        for position in (0..PAGES_AT_ONCE).step_by(4096) {
            append(position, &[7; 4096]);
        }
        let other = OpenOptions::new().write(true).open(root.join("file"));
        other.and_then(|other| other.set_len(65_536)).expect("cut");
        append(PAGES_AT_ONCE, &[8; 140]);
        assert_eq!(file.len().expect("a length"), PAGES_AT_ONCE + 140);
        fs::remove_dir_all(&root).expect("to be removed");
    }
}
