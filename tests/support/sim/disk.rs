//! Everything on a simulated disk, the calls that change it, and what is left when the power
//! fails.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ourdb::storage::parent;

use super::fault::Pages;
use super::inode::{Inode, hash};
use super::loss::{Kept, Loss, Unsynced};
use crate::support::Verdict;

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
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

/// Everything on a simulated disk. A copy costs little: it shares what neither changes.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    pub(super) inodes: Vec<Arc<Inode>>,
    /// The name that each file was made under, for messages.
    made_as: Arc<Vec<String>>,
    pub(super) names: Arc<Names>,
    durable_names: Arc<Names>,
    name_changes: Vec<NameChange>,
    pub(super) root: bool,
}

impl Disk {
    /// An empty one, without the database's directory.
    pub fn new() -> Disk {
        Disk::default()
    }

    /// One that holds these files, durably.
    pub fn holding(files: &BTreeMap<String, Vec<u8>>) -> Disk {
        let mut names = Names::new();
        for (number, name) in files.keys().enumerate() {
            if !parent(name).is_empty() {
                names.insert(parent(name).to_owned(), Entry::Directory);
            }
            names.insert(name.clone(), Entry::File(number));
        }
        let names = Arc::new(names);
        let inodes = files.values().cloned();
        Disk {
            inodes: inodes
                .map(|bytes| Arc::new(Inode::durable(bytes)))
                .collect(),
            made_as: Arc::new(files.keys().cloned().collect()),
            durable_names: Arc::clone(&names),
            names,
            name_changes: Vec::new(),
            root: true,
        }
    }

    /// Whether a power loss would change nothing.
    pub fn is_clean(&self) -> bool {
        self.name_changes.is_empty() && self.inodes.iter().all(|inode| inode.is_clean())
    }

    /// The files that a power loss would change and that may have a name after it, by number.
    pub(super) fn unsynced_inodes(&self) -> Vec<usize> {
        let mut reachable: Vec<bool> = vec![false; self.inodes.len()];
        let mut reach = |entry: &Entry| {
            if let Entry::File(inode) = entry {
                reachable[*inode] = true;
            }
        };
        self.durable_names.values().for_each(&mut reach);
        for change in &self.name_changes {
            if let NameChange::Add(_, entry) | NameChange::Rename(_, _, entry) = change {
                reach(entry);
            }
        }
        let inodes = reachable.iter().zip(&self.inodes).enumerate();
        inodes
            .filter(|(_, (reachable, inode))| **reachable && !inode.is_clean())
            .map(|(number, _)| number)
            .collect()
    }

    /// How many changes of names were not synced.
    pub(super) fn unsynced_names(&self) -> usize {
        self.name_changes.len()
    }

    /// What is left when the power fails.
    pub fn lose_power(&self, loss: &Loss) -> Disk {
        let unsynced = Unsynced::of(self);
        let kept = unsynced.choose(loss);
        self.keep(&unsynced, &kept)
    }

    /// What is left when the power fails and just that gets through.
    pub fn keep(&self, unsynced: &Unsynced, kept: &Kept) -> Disk {
        let mut names = Names::clone(&self.durable_names);
        for (change, through) in self.name_changes.iter().zip(&kept.names) {
            if *through {
                change.apply(&mut names);
            }
        }
        // A file in a directory that got lost is lost with it.
        let lost = |name: &String| {
            !parent(name).is_empty() && names.get(parent(name)) != Some(&Entry::Directory)
        };
        let lost: Vec<String> = names.keys().filter(|name| lost(name)).cloned().collect();
        for name in lost {
            names.remove(&name);
        }
        let mut inodes = self.inodes.clone();
        let mut survivors = &kept.sectors[..];
        for (file, &length) in unsynced.files.iter().zip(&kept.lengths) {
            let (here, rest) = survivors.split_at(file.sectors.len());
            survivors = rest;
            inodes[file.inode] = Arc::new(self.inodes[file.inode].lose_power(length, here));
        }
        let names = Arc::new(names);
        Disk {
            inodes,
            made_as: Arc::clone(&self.made_as),
            durable_names: Arc::clone(&names),
            names,
            name_changes: Vec::new(),
            root: self.root,
        }
    }

    /// A number that differs where what processes find differs.
    pub fn fingerprint(&self) -> u64 {
        let named = self.names.iter().map(|(name, entry)| {
            let name = name.bytes().fold(0, |sum, byte| hash(sum, u64::from(byte)));
            match entry {
                Entry::File(inode) => hash(name, self.inodes[*inode].fingerprint()),
                Entry::Directory => name,
            }
        });
        named.fold(u64::from(self.root), hash)
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

    /// How many bytes its files have.
    pub fn used(&self) -> usize {
        let files = self.names.values().map(|entry| match entry {
            Entry::File(inode) => self.inodes[*inode].cache.len(),
            Entry::Directory => 0,
        });
        files.sum()
    }

    /// The same disk with a file's content replaced, durably, as by damage; `None` removes it.
    pub fn with(&self, name: &str, content: Option<Vec<u8>>) -> Disk {
        let mut disk = self.lose_power(&Loss::OF_NOTHING);
        match (content, disk.names.get(name).copied()) {
            (Some(content), Some(Entry::File(inode))) => {
                disk.inodes[inode] = Arc::new(Inode::durable(content));
            }
            (None, _) => {
                Arc::make_mut(&mut disk.names).remove(name);
                Arc::make_mut(&mut disk.durable_names).remove(name);
            }
            (Some(_), _) => panic!("there is no file {name}"),
        }
        disk
    }

    fn inode(&mut self, inode: usize) -> &mut Inode {
        Arc::make_mut(&mut self.inodes[inode])
    }

    fn change_names(&mut self, change: NameChange) {
        change.apply(Arc::make_mut(&mut self.names));
        self.name_changes.push(change);
    }

    pub(super) fn apply(&mut self, event: &Event) {
        match event {
            Event::CreateRoot => self.root = true,
            Event::RemoveRoot => self.root = false,
            Event::Create { name } => {
                let entry = Entry::File(self.inodes.len());
                let number = self.inodes.len();
                self.inodes.push(Arc::new(Inode::made(number)));
                Arc::make_mut(&mut self.made_as).push(name.clone());
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
            Event::SyncDirectory { name } => self.sync_names(name),
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

    fn sync_names(&mut self, directory: &str) {
        let changes = std::mem::take(&mut self.name_changes);
        for change in changes {
            if change.directory() == directory {
                change.apply(Arc::make_mut(&mut self.durable_names));
            } else {
                self.name_changes.push(change);
            }
        }
    }

    pub(super) fn describe(&self, event: &Event) -> String {
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

    /// The same disk after a call that was done in part.
    pub fn after(&self, event: &Event) -> Disk {
        let mut disk = self.clone();
        disk.apply(event);
        disk
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
    /// The name that a file gets by it, if it renames one.
    pub fn renamed_to(&self) -> Option<&str> {
        match self {
            Event::Rename { to, .. } => Some(to),
            _ => None,
        }
    }

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
    pub fn replay(&self, mut visit: impl FnMut(usize, &Disk) -> Verdict) -> Verdict {
        let mut disk = self.disk.clone();
        visit(0, &disk)?;
        for (number, event) in self.events.iter().enumerate() {
            disk.apply(event);
            visit(number + 1, &disk)?;
        }
        Ok(())
    }

    /// The disk after so many calls.
    pub fn after(&self, calls: usize) -> Disk {
        let mut disk = self.disk.clone();
        for event in &self.events[..calls] {
            disk.apply(event);
        }
        disk
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
