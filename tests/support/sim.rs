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

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ourdb::storage::{Access, File, Lock, Storage, View, Words, parent};

use super::Random;

const SECTOR: usize = 512;

/// One file's content.
#[derive(Clone, Debug, Default)]
struct Inode {
    /// What processes read: the page cache.
    cache: Vec<u8>,
    /// What was last synced.
    durable: Vec<u8>,
    /// For each sector changed since, what it held after each change, oldest first.
    dirty: BTreeMap<usize, Vec<SectorState>>,
    /// The lengths since, oldest first.
    lengths: Vec<LengthState>,
    /// Counts changes.
    change: u64,
    /// When it was last changed. No sync of data makes this durable.
    modified_ns: u64,
}

#[derive(Clone, Debug)]
struct SectorState {
    change: u64,
    bytes: [u8; SECTOR],
    /// The sector was cut off by this change, wholly or in part.
    cut: bool,
}

#[derive(Clone, Debug)]
struct LengthState {
    change: u64,
    len: usize,
}

fn sector_of(content: &[u8], sector: usize) -> [u8; SECTOR] {
    let mut bytes = [0; SECTOR];
    let from = (sector * SECTOR).min(content.len());
    let to = (from + SECTOR).min(content.len());
    bytes[..to - from].copy_from_slice(&content[from..to]);
    bytes
}

fn put_sector(content: &mut [u8], sector: usize, bytes: &[u8; SECTOR]) {
    let from = (sector * SECTOR).min(content.len());
    let to = (from + SECTOR).min(content.len());
    content[from..to].copy_from_slice(&bytes[..to - from]);
}

impl Inode {
    fn touch(&mut self, from: usize, to: usize, cut: bool) {
        if from == to {
            return;
        }
        for sector in from / SECTOR..=(to - 1) / SECTOR {
            let bytes = sector_of(&self.cache, sector);
            let state = SectorState {
                change: self.change,
                bytes,
                cut,
            };
            self.dirty.entry(sector).or_default().push(state);
        }
    }

    fn write(&mut self, position: usize, bytes: &[u8]) {
        self.change += 1;
        self.modified_ns += 1_000_000;
        let end = position + bytes.len();
        if end > self.cache.len() {
            self.cache.resize(end, 0);
            self.lengths.push(LengthState {
                change: self.change,
                len: end,
            });
        }
        self.cache[position..end].copy_from_slice(bytes);
        self.touch(position, end, false);
    }

    fn set_len(&mut self, len: usize) {
        self.change += 1;
        self.modified_ns += 1_000_000;
        let old = self.cache.len();
        self.cache.resize(len, 0);
        self.lengths.push(LengthState {
            change: self.change,
            len,
        });
        if len < old {
            self.touch(len, old, true);
        }
    }

    fn sync(&mut self) {
        self.durable.resize(self.cache.len(), 0);
        for &sector in self.dirty.keys() {
            let bytes = sector_of(&self.cache, sector);
            put_sector(&mut self.durable, sector, &bytes);
        }
        self.dirty.clear();
        self.lengths.clear();
    }

    /// A sync that failed: no dirty sector reached the disk.
    fn fail_sync(&mut self, pages: Pages) {
        if pages == Pages::Dirty {
            return;
        }
        if pages == Pages::Dropped {
            for &sector in self.dirty.keys() {
                let bytes = sector_of(&self.durable, sector);
                put_sector(&mut self.cache, sector, &bytes);
            }
        }
        self.dirty.clear();
    }

    fn is_clean(&self) -> bool {
        self.dirty.is_empty() && self.lengths.is_empty() && self.cache == self.durable
    }

    /// What is left of it, without the dirty sector `left_out`.
    fn lose_power(&self, loss: &Loss, left_out: Option<usize>, random: &mut Random) -> Inode {
        let mut lengths = vec![LengthState {
            change: 0,
            len: self.durable.len(),
        }];
        lengths.extend(self.lengths.iter().cloned());
        let length = &lengths[loss.pick(loss.data, lengths.len(), random)];
        let mut left = self.durable.clone();
        left.resize(length.len, 0);
        for (number, (&sector, states)) in self.dirty.iter().enumerate() {
            // The sector's life is divided by the cuts. Those that the length tells of happened,
            // and nothing from before the last of them comes back; later ones didn't.
            let happened = |state: &SectorState| state.cut && state.change <= length.change;
            let begin = states.iter().rposition(happened);
            let rest = &states[begin.unwrap_or(0)..];
            let end = rest
                .iter()
                .position(|state| state.cut && state.change > length.change);
            let mut possible: Vec<[u8; SECTOR]> = Vec::new();
            if begin.is_none() {
                possible.push(sector_of(&self.durable, sector));
            }
            possible.extend(
                rest[..end.unwrap_or(rest.len())]
                    .iter()
                    .map(|state| state.bytes),
            );
            let percent = if left_out == Some(number) {
                0
            } else {
                loss.data
            };
            let chosen = loss.pick(percent, possible.len(), random);
            let mut bytes = possible[chosen];
            if chosen > 0 && random.chance(loss.torn) {
                let tear = random.below(SECTOR as u64) as usize;
                let older = &possible[random.below(chosen as u64) as usize];
                bytes[tear..].copy_from_slice(&older[tear..]);
            }
            put_sector(&mut left, sector, &bytes);
        }
        Inode {
            cache: left.clone(),
            durable: left,
            ..Inode::default()
        }
    }
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    File(usize),
    Directory,
}

type Names = BTreeMap<String, Entry>;

/// A change of names that a sync of the directory makes durable.
#[derive(Clone, Debug)]
enum NameChange {
    Add(String, Entry),
    Rename(String, String, Entry),
    Remove(String),
}

impl NameChange {
    fn directory(&self) -> &str {
        match self {
            NameChange::Add(name, _) | NameChange::Remove(name) => parent(name),
            NameChange::Rename(_, to, _) => parent(to),
        }
    }

    fn apply(&self, names: &mut Names) {
        match self {
            NameChange::Add(name, entry) => {
                names.insert(name.clone(), *entry);
            }
            NameChange::Rename(from, to, entry) => {
                names.remove(from);
                names.insert(to.clone(), *entry);
            }
            NameChange::Remove(name) => {
                names.remove(name);
            }
        }
    }
}

/// How much of what was not synced gets through a power loss. Percentages: 0 none, 100 all.
#[derive(Clone, Debug)]
pub struct Loss {
    /// Sectors and lengths that get through.
    data: u64,
    /// Of those, torn ones.
    torn: u64,
    /// Changes of names that get through.
    names: u64,
    /// One of those, or one of the sectors, that does not.
    left_out: Option<LeftOut>,
    seed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LeftOut {
    Name,
    Sector,
}

impl Loss {
    /// Nothing that was not synced gets through.
    pub const OF_EVERYTHING: Loss = Loss {
        data: 0,
        torn: 0,
        names: 0,
        left_out: None,
        seed: 0,
    };

    /// The `number`th way to lose: first the four pure ones, then all but one name or one sector,
    /// then mixtures made from the seed.
    pub fn case(number: u64, seed: u64) -> Loss {
        let mut random = Random::new(seed);
        let pure = |data, names| Loss {
            data,
            torn: 0,
            names,
            left_out: None,
            seed,
        };
        match number {
            0 => Loss::OF_EVERYTHING,
            1 => pure(100, 100),
            2 => pure(100, 0),
            3 => pure(0, 100),
            4 => Loss {
                left_out: Some(LeftOut::Name),
                ..pure(100, 100)
            },
            5 => Loss {
                left_out: Some(LeftOut::Sector),
                ..pure(100, 100)
            },
            _ => Loss {
                data: [5, 50, 50, 95][random.below(4) as usize],
                torn: [0, 25][random.below(2) as usize],
                names: [0, 50, 90, 100][random.below(4) as usize],
                left_out: None,
                seed,
            },
        }
    }

    /// Which of `count` states, oldest first, is the one that got through.
    fn pick(&self, percent: u64, count: usize, random: &mut Random) -> usize {
        match percent {
            0 => 0,
            100 => count - 1,
            _ if count > 1 && random.chance(percent) => 1 + random.below(count as u64 - 1) as usize,
            _ => 0,
        }
    }
}

/// Everything on a simulated disk.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    inodes: Vec<Arc<Inode>>,
    /// The name that each file was made under, for messages.
    made_as: Vec<String>,
    names: Names,
    durable_names: Names,
    name_changes: Vec<NameChange>,
    root: bool,
}

impl Disk {
    /// An empty one, without the database's directory.
    pub fn new() -> Disk {
        Disk::default()
    }

    /// Whether a power loss would change nothing.
    pub fn is_clean(&self) -> bool {
        self.name_changes.is_empty() && self.inodes.iter().all(|inode| inode.is_clean())
    }

    /// What is left when the power fails.
    pub fn lose_power(&self, loss: &Loss) -> Disk {
        let mut random = Random::new(loss.seed);
        let mut names = self.durable_names.clone();
        // Half of the time the way of a journal: all up to some change, and none after it.
        let journal = (1..100).contains(&loss.names) && random.chance(50);
        let kept = loss.pick(50, self.name_changes.len() + 1, &mut random);
        let left_out = random.below(self.name_changes.len().max(1) as u64) as usize;
        let left_out = (loss.left_out == Some(LeftOut::Name)).then_some(left_out);
        for (number, change) in self.name_changes.iter().enumerate() {
            let through = if journal {
                number < kept
            } else {
                random.chance(loss.names)
            };
            if through && left_out != Some(number) {
                change.apply(&mut names);
            }
        }
        // A file in a directory that got lost is lost with it.
        let directories = names.clone();
        names.retain(|name, _| {
            parent(name).is_empty() || directories.get(parent(name)) == Some(&Entry::Directory)
        });
        let dirty: usize = self.inodes.iter().map(|inode| inode.dirty.len()).sum();
        let mut left_out = match loss.left_out {
            Some(LeftOut::Sector) if dirty > 0 => Some(random.below(dirty as u64) as usize),
            _ => None,
        };
        let inodes = self.inodes.iter().map(|inode| {
            // Which of this file's dirty sectors is the one, if it is in this file.
            let here = left_out.filter(|&number| number < inode.dirty.len());
            left_out = left_out.and_then(|number| number.checked_sub(inode.dirty.len()));
            if inode.is_clean() {
                Arc::clone(inode)
            } else {
                Arc::new(inode.lose_power(loss, here, &mut random))
            }
        });
        Disk {
            inodes: inodes.collect(),
            made_as: self.made_as.clone(),
            durable_names: names.clone(),
            names,
            name_changes: Vec::new(),
            root: self.root,
        }
    }

    /// The files' names, ascending.
    pub fn files(&self) -> Vec<String> {
        let files = self
            .names
            .iter()
            .filter(|(_, entry)| matches!(entry, Entry::File(_)));
        files.map(|(name, _)| name.clone()).collect()
    }

    /// A file's content.
    pub fn read(&self, name: &str) -> Option<&[u8]> {
        match self.names.get(name) {
            Some(Entry::File(inode)) => Some(&self.inodes[*inode].cache),
            _ => None,
        }
    }

    /// The same disk with a file's content replaced, durably, as by damage; `None` removes it.
    pub fn with(&self, name: &str, content: Option<Vec<u8>>) -> Disk {
        let mut disk = self.lose_power(&Loss::case(1, 0));
        match (content, disk.names.get(name)) {
            (Some(content), Some(Entry::File(inode))) => {
                disk.inodes[*inode] = Arc::new(Inode {
                    cache: content.clone(),
                    durable: content,
                    ..Inode::default()
                });
            }
            (None, _) => {
                disk.names.remove(name);
                disk.durable_names.remove(name);
            }
            (Some(_), _) => panic!("there is no file {name}"),
        }
        disk
    }

    fn inode(&mut self, inode: usize) -> &mut Inode {
        Arc::make_mut(&mut self.inodes[inode])
    }

    fn change_names(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.name_changes.push(change);
    }

    fn apply(&mut self, event: &Event) {
        match event {
            Event::CreateRoot => self.root = true,
            Event::RemoveRoot => self.root = false,
            Event::Create { name } => {
                let entry = Entry::File(self.inodes.len());
                self.inodes.push(Arc::default());
                self.made_as.push(name.clone());
                self.change_names(NameChange::Add(name.clone(), entry));
            }
            Event::CreateDirectory { name } => {
                self.change_names(NameChange::Add(name.clone(), Entry::Directory));
            }
            Event::Remove { name } => self.change_names(NameChange::Remove(name.clone())),
            Event::Rename { from, to } => {
                let entry = self.names[from];
                self.change_names(NameChange::Rename(from.clone(), to.clone(), entry));
            }
            Event::SyncDirectory { name } => {
                let (synced, waiting) = std::mem::take(&mut self.name_changes)
                    .into_iter()
                    .partition(|change| change.directory() == name);
                self.name_changes = waiting;
                let synced: Vec<NameChange> = synced;
                for change in synced {
                    change.apply(&mut self.durable_names);
                }
            }
            Event::Write {
                inode,
                position,
                bytes,
            } => self.inode(*inode).write(*position, bytes),
            Event::SetLen { inode, len } | Event::Allocate { inode, to: len } => {
                self.inode(*inode).set_len(*len);
            }
            Event::Sync { inode } => self.inode(*inode).sync(),
            Event::FailSync { inode, pages } => self.inode(*inode).fail_sync(*pages),
        }
    }

    fn describe(&self, event: &Event) -> String {
        let name = |inode: &usize| match self.names.iter().find(|(_, e)| **e == Entry::File(*inode))
        {
            Some((name, _)) => name.clone(),
            None => format!("{} (removed)", self.made_as[*inode]),
        };
        match event {
            Event::Write {
                inode,
                position,
                bytes,
            } => {
                format!(
                    "write {} bytes at {position} of {}",
                    bytes.len(),
                    name(inode)
                )
            }
            Event::SetLen { inode, len } => format!("set length of {} to {len}", name(inode)),
            Event::Allocate { inode, to } => format!("allocate {} up to {to}", name(inode)),
            Event::Sync { inode } => format!("sync {}", name(inode)),
            Event::FailSync { inode, pages } => {
                format!("sync {} fails, its pages then: {pages:?}", name(inode))
            }
            event => format!("{event:?}"),
        }
    }
}

/// A call that changed something.
#[derive(Clone, Debug)]
pub enum Event {
    CreateRoot,
    RemoveRoot,
    Create {
        name: String,
    },
    CreateDirectory {
        name: String,
    },
    Remove {
        name: String,
    },
    Rename {
        from: String,
        to: String,
    },
    SyncDirectory {
        name: String,
    },
    Write {
        inode: usize,
        position: usize,
        bytes: Vec<u8>,
    },
    Allocate {
        inode: usize,
        to: usize,
    },
    SetLen {
        inode: usize,
        len: usize,
    },
    Sync {
        inode: usize,
    },
    FailSync {
        inode: usize,
        pages: Pages,
    },
}

impl Event {
    /// The ways in which the call can have been done in part when the process died in it.
    pub fn partly(&self) -> Vec<Event> {
        let Event::Write {
            inode,
            position,
            bytes,
        } = self
        else {
            return Vec::new();
        };
        let part = |from: usize, to: usize| Event::Write {
            inode: *inode,
            position: position + from,
            bytes: bytes[from..to].to_vec(),
        };
        // From the front, as the kernel copies; or, through a mapping, from the back as well.
        let len = bytes.len();
        let cuts = BTreeSet::from([1, 4, 28, 40, 41, len / 2, len.saturating_sub(1)]);
        let cuts = cuts.into_iter().filter(|&cut| 0 < cut && cut < len);
        cuts.flat_map(|cut| [part(0, cut), part(cut, len)])
            .collect()
    }
}

/// What happened on a disk, call by call.
#[derive(Clone, Debug)]
pub struct History {
    pub disk: Disk,
    pub events: Vec<Event>,
}

impl History {
    /// Goes through all moments: the disk after each number of calls, from 0.
    pub fn replay(&self, mut visit: impl FnMut(usize, &Disk) -> super::Verdict) -> super::Verdict {
        let mut disk = self.disk.clone();
        visit(0, &disk)?;
        for (number, event) in self.events.iter().enumerate() {
            disk.apply(event);
            visit(number + 1, &disk)?;
        }
        Ok(())
    }

    /// The calls around a moment, one to a line.
    pub fn describe(&self, calls: usize) -> String {
        let mut disk = self.disk.clone();
        let mut lines = Vec::new();
        for (number, event) in self.events.iter().enumerate().take(calls + 2) {
            if number == calls {
                lines.push(format!(
                    "       -------- the end comes here, after {calls} calls --------"
                ));
            }
            lines.push(format!("{:6} {}", number + 1, disk.describe(event)));
            disk.apply(event);
        }
        let hidden = lines.len().saturating_sub(24);
        lines[hidden..].join("\n")
    }
}

impl Disk {
    /// The same disk after a call that was done in part.
    pub fn after(&self, event: &Event) -> Disk {
        let mut disk = self.clone();
        disk.apply(event);
        disk
    }
}

/// What the operating system answers in place of doing its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Errno {
    Io,
    NoSpace,
}

impl Errno {
    fn error(self) -> io::Error {
        io::Error::from_raw_os_error(match self {
            Errno::Io => libc::EIO,
            Errno::NoSpace => libc::ENOSPC,
        })
    }
}

/// Which calls a fault counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Calls {
    /// Those that only look.
    Reading,
    /// Those that change something, syncs among them.
    Changing,
    /// The syncs of files and directories.
    Syncing,
}

/// What a single call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Reading,
    /// Changes something and may need space for it.
    Growing,
    /// Changes something and needs none.
    Changing,
    Syncing,
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

/// What a fault has hit.
#[derive(Clone, Debug)]
pub struct Hit {
    pub call: String,
    /// It was a sync of a file or a directory.
    pub sync: bool,
}

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
    hits: Vec<Hit>,
    capacity: Option<usize>,
    reserves: bool,
    locks: BTreeSet<String>,
    clock: u64,
    random: Random,
}

impl World {
    /// How many calls of a kind there were; a sync is also a change.
    fn count(&mut self, calls: Calls) -> &mut usize {
        match calls {
            Calls::Reading => &mut self.reading,
            Calls::Changing => &mut self.changing,
            Calls::Syncing => &mut self.syncing,
        }
    }

    /// Counts a call; the fault, if its turn has come.
    fn strike(&mut self, call: Call, what: impl FnOnce() -> String) -> Option<Fault> {
        let kinds: &[Calls] = match call {
            Call::Reading => &[Calls::Reading],
            Call::Growing | Call::Changing => &[Calls::Changing],
            Call::Syncing => &[Calls::Syncing, Calls::Changing],
        };
        for &kind in kinds {
            *self.count(kind) += 1;
        }
        let fault = self.fault.filter(|fault| kinds.contains(&fault.calls))?;
        // A full disk hits what needs space; a sync does where space is found late.
        let fits = fault.errno == Errno::Io || matches!(call, Call::Growing | Call::Syncing);
        let number = *self.count(fault.calls) - 1;
        if number < fault.after || !fits {
            return None;
        }
        if !fault.sticky {
            self.fault = None;
        }
        let what = format!("{} (call {number})", what());
        self.hits.push(Hit {
            call: what,
            sync: call == Call::Syncing,
        });
        Some(fault)
    }

    /// Counts a call, and fails it if its turn has come.
    fn call(&mut self, call: Call, what: impl FnOnce() -> String) -> io::Result<()> {
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
        let what = self.disk.describe(&event);
        let call = match &event {
            Event::Create { .. } | Event::CreateDirectory { .. } | Event::Allocate { .. } => {
                Call::Growing
            }
            _ => Call::Changing,
        };
        self.call(call, || what)?;
        self.apply(event);
        Ok(())
    }

    fn room_for(&self, inode: usize, len: usize) -> io::Result<()> {
        let Some(capacity) = self.capacity else {
            return Ok(());
        };
        let more = len.saturating_sub(self.disk.inodes[inode].cache.len());
        let used: usize = self
            .disk
            .names
            .values()
            .map(|entry| match entry {
                Entry::File(inode) => self.disk.inodes[*inode].cache.len(),
                Entry::Directory => 0,
            })
            .sum();
        if more > 0 && used + more > capacity {
            Err(Errno::NoSpace.error())
        } else {
            Ok(())
        }
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
            hits: Vec::new(),
            capacity: None,
            reserves,
            locks: BTreeSet::new(),
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

    /// Whether calls are still to fail.
    pub fn fails(&self) -> bool {
        self.world().fault.is_some()
    }

    /// What has failed so far.
    pub fn hits(&self) -> Vec<Hit> {
        self.world().hits.clone()
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
                world.call(Call::Reading, || format!("open {name}"))?;
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
        Ok(Arc::new(SimFile {
            storage: self.clone(),
            inode,
            writable: access != Access::Read,
        }))
    }

    fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        let mut world = self.world();
        world.call(Call::Reading, || format!("list \"{directory}\""))?;
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
        world.call(Call::Reading, || format!("is \"{name}\" a directory"))?;
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
        let call = || format!("sync directory \"{directory}\"");
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

#[derive(Debug)]
struct SimFile {
    storage: SimStorage,
    inode: usize,
    writable: bool,
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
}

impl File for SimFile {
    fn len(&self) -> io::Result<u64> {
        let mut world = self.storage.world();
        world.call(Call::Reading, || "length of a file".to_owned())?;
        Ok(world.disk.inodes[self.inode].cache.len() as u64)
    }

    fn modified_ns(&self) -> io::Result<u64> {
        let mut world = self.storage.world();
        world.call(Call::Reading, || "time of a file".to_owned())?;
        Ok(world.disk.inodes[self.inode].modified_ns)
    }

    fn read_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<()> {
        let mut world = self.storage.world();
        world.call(Call::Reading, || {
            format!("read {} bytes at {position}", buffer.len())
        })?;
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
        let call = world.disk.describe(&event);
        if let Some(fault) = world.strike(Call::Growing, || call) {
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
        world.room_for(self.inode, to)?;
        if to <= world.disk.inodes[self.inode].cache.len() {
            return world.call(Call::Growing, || "allocate what is there".to_owned());
        }
        world.change(Event::Allocate {
            inode: self.inode,
            to,
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut world = self.writing();
        let len = usize::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?;
        world.change(Event::SetLen {
            inode: self.inode,
            len,
        })
    }

    fn sync(&self) -> io::Result<()> {
        let mut world = self.storage.world();
        let event = Event::Sync { inode: self.inode };
        let call = world.disk.describe(&event);
        if let Some(fault) = world.strike(Call::Syncing, || call) {
            world.apply(Event::FailSync {
                inode: self.inode,
                pages: fault.pages,
            });
            return Err(fault.errno.error());
        }
        world.apply(event);
        Ok(())
    }

    fn view(&self, _reserve: u64) -> io::Result<View> {
        Ok(View::unmapped())
    }

    fn words(&self, _count: u64) -> io::Result<Words> {
        Err(io::ErrorKind::Unsupported.into())
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
