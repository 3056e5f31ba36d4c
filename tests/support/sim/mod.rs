//! A simulated storage: a directory in memory that keeps apart what the processes see and what a
//! loss of power would leave, records every call that changes something, and fails on request.
//!
//! What a power loss leaves is as bad as POSIX allows:
//! * Of a file, what was last synced. Of everything written since, any sector of 512 bytes may
//!   have got through or not, in any of the states that it had since then, or torn between two of
//!   them; of the lengths that the file had since then, any one.
//! * Of a directory, the names as of its last sync. Of the creations, renames and removals since,
//!   any may have got through or not; each by itself is atomic.
//!
//! The death of the process leaves everything, except that a call under way may have been done in
//! part. Time and randomness are the storage's own, made from a seed; the clock stands still at
//! times, and goes back at others. The same seed and the same calls give the same, always.

mod disk;
mod fault;
mod file;
mod inode;
mod loss;

use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ourdb::storage::{Access, File, Lock, Storage, parent};

use super::Random;
pub use disk::{Disk, History};
use disk::{Entry, Event};
use fault::Call;
pub use fault::{Calls, Errno, Fault, Hit, Pages};
use file::SimFile;
// Not all test programs lose power in all ways.
#[allow(unused_imports)]
pub use loss::{Loss, Unsynced};

#[derive(Debug)]
struct World {
    disk: Disk,
    beginning: Disk,
    events: Vec<Event>,
    /// Calls so far.
    reading: usize,
    changing: usize,
    syncing: usize,
    fault: Option<Fault>,
    /// Nothing is counted, and nothing fails.
    quiet: bool,
    hits: Vec<Hit>,
    capacity: Option<usize>,
    /// Bytes of files that can't be read.
    unreadable: Vec<(usize, Range<usize>)>,
    reserves: bool,
    locks: BTreeSet<String>,
    /// Files that are open now, and as many as were at any time.
    open: usize,
    most_open: usize,
    clock: u64,
    random: Random,
}

impl World {
    fn count(&mut self, calls: Calls) -> &mut usize {
        match calls {
            Calls::Reading => &mut self.reading,
            Calls::Changing => &mut self.changing,
            Calls::Syncing => &mut self.syncing,
        }
    }

    /// Counts a call; the fault, if its turn has come.
    fn strike(&mut self, call: Call, what: impl FnOnce(&Disk) -> String) -> Option<Fault> {
        if self.quiet {
            return None;
        }
        let kind = call.kind();
        let number = *self.count(kind);
        *self.count(kind) += 1;
        let fault = self.fault.filter(|fault| fault.calls == kind)?;
        // A full disk hits what needs space; a sync does where space is found late.
        let fits = fault.errno != Errno::NoSpace || matches!(call, Call::Growing | Call::Syncing);
        if number < fault.after || !fits {
            return None;
        }
        if !fault.sticky {
            self.fault = None;
        }
        self.hits.push(Hit {
            call: format!("{} (call {number})", what(&self.disk)),
            kind,
            errno: fault.errno,
            partly: fault.partly,
            pages: fault.pages,
        });
        Some(fault)
    }

    /// Counts a call, and fails it if its turn has come.
    fn call(&mut self, call: Call, what: impl FnOnce(&Disk) -> String) -> io::Result<()> {
        match self.strike(call, what) {
            Some(fault) => Err(fault.errno.error()),
            None => Ok(()),
        }
    }

    fn apply(&mut self, event: Event) {
        self.disk.apply(&event);
        self.events.push(event);
    }

    /// Counts a call that changes something, and does it unless it fails.
    fn change(&mut self, event: Event) -> io::Result<()> {
        let call = match &event {
            Event::Create { .. } | Event::CreateDirectory { .. } | Event::Rename { .. } => {
                Call::Growing
            }
            _ => Call::Changing,
        };
        self.call(call, |disk| disk.describe(&event))?;
        self.apply(event);
        Ok(())
    }

    /// So many bytes still fit on the disk.
    fn room(&self) -> usize {
        let capacity = self.capacity.unwrap_or(usize::MAX);
        capacity.saturating_sub(self.disk.used())
    }

    fn room_for(&mut self, inode: usize, len: usize) -> io::Result<()> {
        let more = len.saturating_sub(self.disk.inodes[inode].cache.len());
        if more == 0 || more <= self.room() {
            return Ok(());
        }
        self.hits.push(Hit {
            call: format!("{more} bytes more than fit on the disk"),
            kind: Calls::Changing,
            errno: Errno::NoSpace,
            partly: false,
            pages: Pages::Dirty,
        });
        Err(Errno::NoSpace.error())
    }

    fn check_parent(&self, name: &str) -> io::Result<()> {
        let directory = parent(name);
        let there = match directory {
            "" => self.disk.root,
            _ => self.disk.names.get(directory) == Some(&Entry::Directory),
        };
        if there {
            Ok(())
        } else {
            Err(io::ErrorKind::NotFound.into())
        }
    }
}

/// The simulated storage. Clones share the disk.
#[derive(Clone, Debug)]
pub struct SimStorage {
    world: Arc<Mutex<World>>,
}

impl SimStorage {
    /// A storage over `disk`. With `reserves`, space can be allocated ahead of writing.
    pub fn new(disk: Disk, reserves: bool, seed: u64) -> SimStorage {
        let mut random = Random::new(seed);
        let world = World {
            beginning: disk.clone(),
            disk,
            events: Vec::new(),
            reading: 0,
            changing: 0,
            syncing: 0,
            fault: None,
            quiet: false,
            hits: Vec::new(),
            capacity: None,
            unreadable: Vec::new(),
            reserves,
            locks: BTreeSet::new(),
            open: 0,
            most_open: 0,
            clock: 1_700_000_000_000_000 + random.below(1_000_000),
            random,
        };
        SimStorage {
            world: Arc::new(Mutex::new(world)),
        }
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The disk as it is now.
    pub fn disk(&self) -> Disk {
        self.world().disk.clone()
    }

    /// How many calls have changed something so far.
    pub fn events(&self) -> usize {
        self.world().events.len()
    }

    /// Everything that has happened.
    pub fn history(&self) -> History {
        let world = self.world();
        History {
            disk: world.beginning.clone(),
            events: world.events.clone(),
        }
    }

    /// How many calls of a kind were made, failed ones included.
    pub fn calls(&self, calls: Calls) -> usize {
        *self.world().count(calls)
    }

    /// Lets calls fail, from now on; `None` ends it.
    pub fn fail(&self, fault: Option<Fault>) {
        self.world().fault = fault;
    }

    /// Lets no call fail during a check, and doesn't count those that it makes.
    pub fn quietly<T>(&self, check: impl FnOnce() -> T) -> T {
        self.world().quiet = true;
        let result = check();
        self.world().quiet = false;
        result
    }

    /// Whether calls are still to fail, or the disk is limited.
    pub fn is_failing(&self) -> bool {
        let world = self.world();
        world.fault.is_some() || world.capacity.is_some()
    }

    /// How much has failed so far.
    pub fn hit_count(&self) -> usize {
        self.world().hits.len()
    }

    /// What has failed so far.
    pub fn hits(&self) -> Vec<Hit> {
        self.world().hits.clone()
    }

    /// How many files were open at the same time, at most.
    pub fn most_open(&self) -> usize {
        self.world().most_open
    }

    /// From now on these bytes of a file can't be read.
    pub fn lose_bytes(&self, name: &str, bytes: Range<usize>) {
        let mut world = self.world();
        let Some(&Entry::File(inode)) = world.disk.names.get(name) else {
            panic!("there is no file {name}");
        };
        world.unreadable.push((inode, bytes));
    }

    /// Limits the disk to so many bytes, or lifts the limit.
    pub fn limit(&self, capacity: Option<usize>) {
        self.world().capacity = capacity;
    }
}

impl Storage for SimStorage {
    fn create_root(&self) -> io::Result<()> {
        let mut world = self.world();
        if world.disk.root {
            Ok(())
        } else {
            world.change(Event::CreateRoot)
        }
    }

    fn remove_root(&self) -> io::Result<()> {
        let mut world = self.world();
        if world.disk.names.is_empty() {
            world.change(Event::RemoveRoot)
        } else {
            Ok(())
        }
    }

    fn open(&self, name: &str, access: Access) -> io::Result<Arc<dyn File>> {
        let mut world = self.world();
        let creates = matches!(access, Access::CreateNew | Access::Truncate);
        let known = world.disk.names.get(name).copied();
        world.check_parent(name)?;
        let inode = match known {
            Some(Entry::Directory) => return Err(io::ErrorKind::IsADirectory.into()),
            Some(Entry::File(_)) if access == Access::CreateNew => {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            Some(Entry::File(inode)) if access == Access::Truncate => {
                world.change(Event::SetLen { inode, len: 0 })?;
                inode
            }
            Some(Entry::File(inode)) => {
                world.call(Call::Reading, |_| format!("open {name}"))?;
                inode
            }
            None if creates => {
                world.change(Event::Create {
                    name: name.to_owned(),
                })?;
                world.disk.inodes.len() - 1
            }
            None => return Err(io::ErrorKind::NotFound.into()),
        };
        world.open += 1;
        world.most_open = world.most_open.max(world.open);
        Ok(Arc::new(SimFile {
            storage: self.clone(),
            inode,
            writable: access != Access::Read,
        }))
    }

    fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        let mut world = self.world();
        world.call(Call::Reading, |_| format!("list \"{directory}\""))?;
        world.check_parent(&format!("{directory}/"))?;
        let names = world
            .disk
            .names
            .keys()
            .filter(|name| parent(name) == directory);
        Ok(names
            .map(|name| name.rsplit('/').next().unwrap_or(name).to_owned())
            .collect())
    }

    fn is_directory(&self, name: &str) -> io::Result<bool> {
        let mut world = self.world();
        world.call(Call::Reading, |_| format!("is \"{name}\" a directory"))?;
        Ok(match name {
            "" => world.disk.root,
            _ => world.disk.names.get(name) == Some(&Entry::Directory),
        })
    }

    fn create_directory(&self, name: &str) -> io::Result<()> {
        let mut world = self.world();
        world.check_parent(name)?;
        if world.disk.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        world.change(Event::CreateDirectory {
            name: name.to_owned(),
        })
    }

    fn remove_directory(&self, name: &str) -> io::Result<()> {
        let mut world = self.world();
        if world.disk.names.keys().any(|file| parent(file) == name) {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        match world.disk.names.get(name) {
            Some(Entry::Directory) => world.change(Event::Remove {
                name: name.to_owned(),
            }),
            Some(Entry::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut world = self.world();
        assert_eq!(
            parent(from),
            parent(to),
            "a rename across directories is not simulated"
        );
        match world.disk.names.get(from) {
            Some(Entry::File(_)) => world.change(Event::Rename {
                from: from.to_owned(),
                to: to.to_owned(),
            }),
            Some(Entry::Directory) => panic!("the rename of a directory is not simulated"),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut world = self.world();
        match world.disk.names.get(name) {
            Some(Entry::File(_)) => world.change(Event::Remove {
                name: name.to_owned(),
            }),
            Some(Entry::Directory) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn sync_directory(&self, directory: &str) -> io::Result<()> {
        let mut world = self.world();
        world.check_parent(&format!("{directory}/"))?;
        let call = |_: &Disk| format!("sync directory \"{directory}\"");
        if let Some(fault) = world.strike(Call::Syncing, call) {
            return Err(fault.errno.error());
        }
        world.apply(Event::SyncDirectory {
            name: directory.to_owned(),
        });
        Ok(())
    }

    fn lock(&self, name: &str) -> io::Result<Option<Box<dyn Lock>>> {
        let mut world = self.world();
        world.check_parent(name)?;
        if !world.disk.names.contains_key(name) {
            world.change(Event::Create {
                name: name.to_owned(),
            })?;
        }
        if !world.locks.insert(name.to_owned()) {
            return Ok(None);
        }
        Ok(Some(Box::new(SimLock {
            storage: self.clone(),
            name: name.to_owned(),
        })))
    }

    fn is_locked(&self, name: &str) -> io::Result<bool> {
        Ok(self.world().locks.contains(name))
    }

    fn now_us(&self) -> u64 {
        let mut world = self.world();
        let step = world.random.below(16);
        world.clock = match step {
            0 => world.clock - 5000,
            1..=4 => world.clock,
            step => world.clock + step * step,
        };
        world.clock
    }

    fn random(&self) -> io::Result<[u8; 16]> {
        let mut world = self.world();
        let (high, low) = (world.random.next(), world.random.next());
        Ok((u128::from(high) << 64 | u128::from(low)).to_le_bytes())
    }

    fn describe(&self, name: &str) -> String {
        format!("(simulated)/{name}")
    }
}

#[derive(Debug)]
struct SimLock {
    storage: SimStorage,
    name: String,
}

impl Lock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.storage.world().locks.remove(&self.name);
    }
}
