//! An open file of the simulated storage.

use std::io;
use std::ops::Range;
use std::sync::MutexGuard;

use ourdb::storage::{File, View, Words};

use super::disk::{Disk, Event};
use super::fault::{Call, Errno};
use super::{SimStorage, World};

#[derive(Debug)]
pub(super) struct SimFile {
    pub(super) storage: SimStorage,
    pub(super) inode: usize,
    pub(super) writable: bool,
}

impl SimFile {
    /// The world, for a call that writes.
    fn writing(&self) -> MutexGuard<'_, World> {
        assert!(
            self.writable,
            "the engine writes to a file that it opened for reading"
        );
        self.storage.world()
    }

    /// The world, for a call that writes to the disk, unless that fails.
    fn syncing(&self, describe: impl Fn(&Disk) -> String) -> io::Result<MutexGuard<'_, World>> {
        let mut world = self.storage.world();
        match world.strike(Call::Syncing, describe) {
            Some(fault) => {
                world.apply(Event::FailSync {
                    inode: self.inode,
                    pages: fault.pages,
                });
                Err(fault.errno.error())
            }
            None => Ok(world),
        }
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        self.storage.world().open -= 1;
    }
}

impl File for SimFile {
    fn len(&self) -> io::Result<u64> {
        let mut world = self.storage.world();
        world.call(Call::Reading, |_| "length of a file".to_owned())?;
        Ok(world.disk.inodes[self.inode].cache.len() as u64)
    }

    fn modified_ns(&self) -> io::Result<u64> {
        let mut world = self.storage.world();
        world.call(Call::Reading, |_| "time of a file".to_owned())?;
        Ok(world.disk.inodes[self.inode].modified_ns)
    }

    fn read_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<()> {
        let mut world = self.storage.world();
        world.call(Call::Reading, |_| {
            format!("read {} bytes at {position}", buffer.len())
        })?;
        let from = usize::try_from(position).unwrap_or(usize::MAX);
        let asked = from..from.saturating_add(buffer.len());
        let meets = |lost: &Range<usize>| lost.start < asked.end && asked.start < lost.end;
        let mut lost = world.unreadable.iter();
        if lost.any(|(inode, lost)| *inode == self.inode && meets(lost)) {
            return Err(Errno::Io.error());
        }
        let cache = &world.disk.inodes[self.inode].cache;
        let bytes = usize::try_from(position)
            .ok()
            .and_then(|from| cache.get(from..));
        match bytes.and_then(|bytes| bytes.get(..buffer.len())) {
            Some(bytes) => buffer.copy_from_slice(bytes),
            None => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
        Ok(())
    }

    fn write_at(&self, position: u64, parts: &[&[u8]]) -> io::Result<()> {
        let mut world = self.writing();
        let position = usize::try_from(position).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let bytes = parts.concat();
        let half = bytes.len() / 2;
        let event = Event::Write {
            inode: self.inode,
            position,
            bytes,
        };
        if let Some(fault) = world.strike(Call::Growing, |disk| disk.describe(&event)) {
            let Event::Write {
                inode,
                position,
                mut bytes,
            } = event
            else {
                unreachable!()
            };
            if fault.partly && half > 0 {
                bytes.truncate(half);
                world.apply(Event::Write {
                    inode,
                    position,
                    bytes,
                });
            }
            return Err(fault.errno.error());
        }
        let len = position + parts.iter().map(|part| part.len()).sum::<usize>();
        world.room_for(self.inode, len)?;
        world.apply(event);
        Ok(())
    }

    fn allocate(&self, _from: u64, to: u64) -> io::Result<()> {
        let mut world = self.writing();
        let to = usize::try_from(to).map_err(|_| io::ErrorKind::FileTooLarge)?;
        if !world.reserves {
            return Ok(());
        }
        let len = world.disk.inodes[self.inode].cache.len();
        let inode = self.inode;
        if let Err(error) = world.room_for(inode, to) {
            // As ext4 does: what there was is the file's now.
            let to = len + world.room();
            world.apply(Event::Allocate { inode, to });
            return Err(error);
        }
        if to <= len {
            return world.call(Call::Growing, |_| "allocate what is there".to_owned());
        }
        let event = Event::Allocate { inode, to };
        if let Some(fault) = world.strike(Call::Growing, |disk| disk.describe(&event)) {
            if fault.partly {
                let to = len + (to - len) / 2;
                world.apply(Event::Allocate { inode, to });
            }
            return Err(fault.errno.error());
        }
        world.apply(event);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut world = self.writing();
        let len = usize::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?;
        world.change(Event::SetLen {
            inode: self.inode,
            len,
        })
    }

    fn write_back(&self, from: u64, to: u64) -> io::Result<()> {
        // What it writes may be lost all the same: the file's length, and where it lies, are not on disk.
        self.syncing(|_| format!("write back {from} to {to}"))
            .map(drop)
    }

    fn sync(&self) -> io::Result<()> {
        let event = Event::Sync { inode: self.inode };
        self.syncing(|disk| disk.describe(&event))?.apply(event);
        Ok(())
    }

    fn view(&self, _reserve: u64) -> io::Result<View> {
        // Nothing is mapped, but that can fail.
        let call = match self.writable {
            true => Call::Changing,
            false => Call::Reading,
        };
        self.storage.world().call(call, |_| "map".to_owned())?;
        Ok(View::unmapped())
    }

    fn words(&self, _count: u64) -> io::Result<Words> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
