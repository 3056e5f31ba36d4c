//! Directories as maps from names to contents, and the storage that the fuzzer opens them on.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ourdb::storage::memory::MemoryStorage;
use ourdb::storage::{Access, Ahead, File, Lock, Storage, View, Words, parent};

use super::allocator::uncounted;

/// All files of a directory. The name of a directory ends with a `/` where nothing is in it.
pub(super) type Files = BTreeMap<String, Vec<u8>>;

/// The files below `path`.
pub(super) fn read_directory(path: &Path) -> Files {
    let mut files = Files::new();
    let mut directories = vec![String::new()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(path.join(&directory)).expect("a directory") {
            let entry = entry.expect("an entry");
            let name = format!("{directory}{}", entry.file_name().to_string_lossy());
            if entry.path().is_dir() {
                directories.push(name + "/");
            } else {
                files.insert(name, fs::read(entry.path()).expect("a file"));
            }
        }
    }
    files
}

/// Makes the files below `path`.
pub(super) fn write_directory(path: &Path, files: &Files) {
    for (name, content) in files {
        let target = path.join(name);
        if name.ends_with('/') {
            fs::create_dir_all(target).expect("a directory is made");
            continue;
        }
        fs::create_dir_all(target.parent().unwrap_or(path)).expect("a directory is made");
        fs::write(target, content).expect("a file is written");
    }
}

/// A storage that lets nothing go on for ever: it counts the calls and the bytes written, and
/// panics at too many. Its clock goes with the calls, and what is random is what it was told.
#[derive(Debug)]
pub(super) struct Bounded {
    storage: Arc<dyn Storage>,
    /// Whether readers get mappings, where there are any.
    mapped: bool,
    /// What it gives out for random.
    pub(super) uuid: [u8; 16],
    calls: Arc<AtomicU64>,
    written: Arc<AtomicU64>,
}

impl Bounded {
    const MOST_CALLS: u64 = 100_000;
    /// The fuzzer's directories have some 20 KB, and what it writes is little.
    const MOST_WRITTEN: u64 = 16 << 20;

    pub(super) fn new(storage: Arc<dyn Storage>, mapped: bool) -> Bounded {
        Bounded {
            storage,
            mapped,
            uuid: [0xee; 16],
            calls: Arc::default(),
            written: Arc::default(),
        }
    }

    /// A directory in memory with these files.
    pub(super) fn in_memory(files: &Files, mapped: bool) -> Bounded {
        let storage: Arc<dyn Storage> = if mapped {
            Arc::new(MemoryStorage::new())
        } else {
            Arc::new(Plain::default())
        };
        for (name, content) in files {
            let directory = parent(name);
            if !directory.is_empty() {
                // It may be there, with another file in it.
                let _ = storage.create_directory(directory);
            }
            if !name.ends_with('/') {
                let file = storage
                    .open(name, Access::CreateNew)
                    .expect("no other file");
                file.write_at(0, &[content]).expect("memory for a file");
            }
        }
        Bounded::new(storage, mapped)
    }

    /// The files as they are now.
    pub(super) fn files(&self) -> Files {
        let mut files = Files::new();
        let names = self.storage.list("").expect("the root can be listed");
        for name in names {
            if self.storage.is_directory(&name).expect("it is there") {
                let inner = self.storage.list(&name).expect("a directory can be listed");
                if inner.is_empty() {
                    files.insert(format!("{name}/"), Vec::new());
                }
                for inner in inner {
                    let name = format!("{name}/{inner}");
                    files.insert(name.clone(), self.read(&name));
                }
            } else {
                files.insert(name.clone(), self.read(&name));
            }
        }
        files
    }

    fn read(&self, name: &str) -> Vec<u8> {
        let file = self.storage.open(name, Access::Read).expect("it is there");
        let len = file.len().expect("a file has a length");
        let mut content = vec![0; usize::try_from(len).expect("a short file")];
        file.read_at(0, &mut content).expect("it can be read");
        content
    }

    fn call(&self) -> &dyn Storage {
        count(&self.calls, 1, Bounded::MOST_CALLS, "calls");
        &*self.storage
    }
}

fn count(counter: &AtomicU64, more: u64, most: u64, what: &str) {
    let before = counter.fetch_add(more, Ordering::Relaxed);
    assert!(
        before.saturating_add(more) <= most,
        "this goes on for ever: more than {most} {what} of the storage"
    );
}

impl Storage for Bounded {
    fn create_root(&self) -> io::Result<()> {
        self.call().create_root()
    }

    fn remove_root(&self) -> io::Result<()> {
        self.call().remove_root()
    }

    fn open(&self, name: &str, access: Access) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(BoundedFile {
            file: self.call().open(name, access)?,
            mapped: self.mapped,
            calls: Arc::clone(&self.calls),
            written: Arc::clone(&self.written),
        }))
    }

    fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        self.call().list(directory)
    }

    fn is_directory(&self, name: &str) -> io::Result<bool> {
        self.call().is_directory(name)
    }

    fn create_directory(&self, name: &str) -> io::Result<()> {
        self.call().create_directory(name)
    }

    fn remove_directory(&self, name: &str) -> io::Result<()> {
        self.call().remove_directory(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.call().rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.call().remove(name)
    }

    fn sync_directory(&self, directory: &str) -> io::Result<()> {
        self.call().sync_directory(directory)
    }

    fn lock(&self, name: &str) -> io::Result<Option<Box<dyn Lock>>> {
        self.call().lock(name)
    }

    fn is_locked(&self, name: &str) -> io::Result<bool> {
        self.call().is_locked(name)
    }

    fn now_us(&self) -> u64 {
        1_700_000_000_000_000 + self.calls.load(Ordering::Relaxed)
    }

    fn random(&self) -> io::Result<[u8; 16]> {
        Ok(self.uuid)
    }

    fn describe(&self, name: &str) -> String {
        name.to_owned()
    }
}

#[derive(Debug)]
struct BoundedFile {
    file: Arc<dyn File>,
    mapped: bool,
    calls: Arc<AtomicU64>,
    written: Arc<AtomicU64>,
}

impl BoundedFile {
    fn call(&self) -> &dyn File {
        count(&self.calls, 1, Bounded::MOST_CALLS, "calls");
        &*self.file
    }

    fn count_written(&self, parts: &[&[u8]]) {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        let most = Bounded::MOST_WRITTEN;
        count(
            &self.written,
            len as u64,
            most,
            "bytes written through files",
        );
    }
}

impl File for BoundedFile {
    fn len(&self) -> io::Result<u64> {
        self.call().len()
    }

    fn modified_ns(&self) -> io::Result<u64> {
        self.call().modified_ns()
    }

    fn read_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.call().read_at(position, buffer)
    }

    fn write_at(&self, position: u64, parts: &[&[u8]]) -> io::Result<()> {
        self.count_written(parts);
        self.call().write_at(position, parts)
    }

    fn append(&self, ahead: &mut Ahead, position: u64, parts: &[&[u8]]) -> io::Result<()> {
        self.count_written(parts);
        self.call().append(ahead, position, parts)
    }

    fn allocate(&self, from: u64, to: u64) -> io::Result<()> {
        self.call().allocate(from, to)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.call().set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.call().sync()
    }

    fn view(&self, reserve: u64) -> io::Result<View> {
        if self.mapped {
            self.call().view(reserve)
        } else {
            Ok(View::unmapped())
        }
    }

    fn words(&self, count: u64) -> io::Result<Words> {
        self.call().words(count)
    }
}

/// A directory in memory without mappings, which are what costs most in [`MemoryStorage`] when
/// nothing else is large.
#[derive(Debug, Default)]
struct Plain {
    entries: Mutex<BTreeMap<String, Entry>>,
}

#[derive(Clone, Debug)]
enum Entry {
    File(Arc<PlainFile>),
    Directory,
}

impl Plain {
    fn entries(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        // The library may have panicked in here: the fuzzer looks on.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Storage for Plain {
    fn create_root(&self) -> io::Result<()> {
        Ok(())
    }

    fn remove_root(&self) -> io::Result<()> {
        Ok(())
    }

    fn open(&self, name: &str, access: Access) -> io::Result<Arc<dyn File>> {
        let mut entries = self.entries();
        match (entries.get(name), access) {
            (Some(Entry::Directory), _) => Err(io::ErrorKind::IsADirectory.into()),
            (Some(Entry::File(_)), Access::CreateNew) => Err(io::ErrorKind::AlreadyExists.into()),
            (Some(Entry::File(file)), Access::Read | Access::Write) => Ok(file.clone()),
            (None, Access::Read | Access::Write) => Err(io::ErrorKind::NotFound.into()),
            (_, Access::CreateNew | Access::Truncate) => {
                let file = Arc::new(PlainFile::default());
                entries.insert(name.to_owned(), Entry::File(file.clone()));
                Ok(file)
            }
        }
    }

    fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        let entries = self.entries();
        if !directory.is_empty() && !entries.contains_key(directory) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let names = entries.keys().filter(|name| parent(name) == directory);
        let last = |name: &String| name.rsplit('/').next().unwrap_or(name).to_owned();
        Ok(names.map(last).collect())
    }

    fn is_directory(&self, name: &str) -> io::Result<bool> {
        Ok(matches!(self.entries().get(name), Some(Entry::Directory)))
    }

    fn create_directory(&self, name: &str) -> io::Result<()> {
        match self.entries().insert(name.to_owned(), Entry::Directory) {
            None => Ok(()),
            Some(_) => Err(io::ErrorKind::AlreadyExists.into()),
        }
    }

    fn remove_directory(&self, name: &str) -> io::Result<()> {
        let mut entries = self.entries();
        if entries.keys().any(|known| parent(known) == name) {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        let removed = entries.remove(name);
        removed.map(drop).ok_or(io::ErrorKind::NotFound.into())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut entries = self.entries();
        let entry = entries.remove(from).ok_or(io::ErrorKind::NotFound)?;
        entries.insert(to.to_owned(), entry);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let removed = self.entries().remove(name);
        removed.map(drop).ok_or(io::ErrorKind::NotFound.into())
    }

    fn sync_directory(&self, _directory: &str) -> io::Result<()> {
        Ok(())
    }

    fn lock(&self, _name: &str) -> io::Result<Option<Box<dyn Lock>>> {
        Ok(Some(Box::new(Unlocked)))
    }

    fn is_locked(&self, _name: &str) -> io::Result<bool> {
        Ok(false)
    }

    fn now_us(&self) -> u64 {
        0
    }

    fn random(&self) -> io::Result<[u8; 16]> {
        Ok([0; 16])
    }

    fn describe(&self, name: &str) -> String {
        name.to_owned()
    }
}

/// The fuzzer opens a directory once at a time.
#[derive(Debug)]
struct Unlocked;

impl Lock for Unlocked {}

#[derive(Debug, Default)]
struct PlainFile(Mutex<Vec<u8>>);

impl PlainFile {
    fn content(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl File for PlainFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.content().len() as u64)
    }

    fn modified_ns(&self) -> io::Result<u64> {
        Ok(0)
    }

    fn read_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<()> {
        let content = self.content();
        let bytes = content.get(position as usize..).unwrap_or_default();
        let bytes = bytes.get(..buffer.len());
        buffer.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, position: u64, parts: &[&[u8]]) -> io::Result<()> {
        let mut content = self.content();
        let mut at = position as usize;
        let end = at + parts.iter().map(|part| part.len()).sum::<usize>();
        if content.len() < end {
            uncounted(|| content.resize(end, 0));
        }
        for part in parts {
            content[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        Ok(())
    }

    fn allocate(&self, _from: u64, _to: u64) -> io::Result<()> {
        // As where the file system can't reserve: `write_at` extends the file.
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        uncounted(|| self.content().resize(len as usize, 0));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn view(&self, _reserve: u64) -> io::Result<View> {
        Ok(View::unmapped())
    }

    fn words(&self, _count: u64) -> io::Result<Words> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
