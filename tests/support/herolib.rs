//! herolib's OurDB as V and Go do it, mistakes included: writes directories for tests to open, and
//! reads what the library leaves behind. Made from the description of the original's bytes and
//! behaviour, not from the library, so that each checks the other.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Which of the two to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Port {
    V,
    Go,
}

/// The arguments of `new`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) record_nr_max: u32,
    pub(crate) record_size_max: u32,
    pub(crate) file_size: u64,
    pub(crate) incremental: bool,
}

impl Settings {
    pub(crate) const DEFAULT: Settings = Settings {
        record_nr_max: 16_777_215,
        record_size_max: 4096,
        file_size: 524_288_000,
        incremental: true,
    };

    /// Settings that give a lookup of that width.
    pub(crate) fn with_width(width: usize) -> Settings {
        let (record_nr_max, record_size_max) = match width {
            2 => (1000, 1024),
            3 => (70_000, 100),
            4 => (16_777_217, 1),
            6 => (16_777_215, 4096),
            _ => panic!("no lookup has width {width}"),
        };
        Settings {
            record_nr_max,
            record_size_max,
            ..Settings::DEFAULT
        }
    }

    pub(crate) fn key_value(self) -> Settings {
        Settings {
            incremental: false,
            ..self
        }
    }

    pub(crate) fn file_size(self, file_size: u64) -> Settings {
        Settings { file_size, ..self }
    }

    pub(crate) fn width(&self) -> usize {
        let product = self.record_size_max.wrapping_mul(self.record_nr_max);
        if f64::from(product) / 2.0 > 10_000_000.0 {
            return 6;
        }
        match self.record_nr_max {
            0..65_536 => 2,
            65_536..16_777_216 => 3,
            _ => 4,
        }
    }
}

/// Data file and position.
pub(crate) type Place = (u16, u32);

/// The bytes of one record.
pub(crate) fn record(previous: Place, value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&(value.len() as u16).to_le_bytes());
    bytes.extend_from_slice(&crc32fast::hash(value).to_le_bytes());
    bytes.extend_from_slice(&previous.0.to_be_bytes());
    bytes.extend_from_slice(&previous.1.to_be_bytes());
    bytes.extend_from_slice(value);
    bytes
}

/// One open database.
pub(crate) struct Herolib {
    path: PathBuf,
    settings: Settings,
    port: Port,
    lookup: BTreeMap<u32, Place>,
    next_id: u32,
    /// The file that was opened last; V zeroes there, whichever file the record is in.
    selected: Option<u16>,
    last_used: u16,
}

impl Herolib {
    /// Opens a directory: with the dump that is there, or else as empty.
    pub(crate) fn open(path: &Path, settings: Settings, port: Port) -> Result<Herolib, String> {
        fs::create_dir_all(path).unwrap();
        let mut db = Herolib {
            path: path.to_owned(),
            settings,
            port,
            lookup: BTreeMap::new(),
            next_id: 1,
            selected: None,
            last_used: 0,
        };
        if path.join("lookup_dump.db").exists() {
            db.import()?;
        }
        Ok(db)
    }

    fn import(&mut self) -> Result<(), String> {
        let dump = self.path.join("lookup_dump.db");
        let data = fs::read(dump.join("data")).map_err(|error| error.to_string())?;
        let width = self.settings.width();
        if data.len() % (4 + width) != 0 {
            return Err(format!("data length must be a multiple of {}", 4 + width));
        }
        for entry in data.chunks(4 + width) {
            let (id, location) = entry.split_at(4);
            let id = u32::from_le_bytes(id.try_into().unwrap());
            let location = location
                .iter()
                .fold(0u64, |value, byte| value << 8 | u64::from(*byte));
            self.assign(id, ((location >> 32) as u16, location as u32))?;
        }
        if self.settings.incremental {
            let inc = fs::read_to_string(dump.join(".inc")).map_err(|error| error.to_string())?;
            self.next_id = inc.parse().map_err(|_| format!(".inc holds {inc:?}"))?;
        }
        Ok(())
    }

    /// Puts a location into the lookup, cut to its width.
    fn assign(&mut self, id: u32, place: Place) -> Result<(), String> {
        if self.settings.incremental {
            if id == self.next_id {
                self.next_id += 1;
            }
            if id > self.next_id {
                return Err("cannot set id for insertions when incremental mode is enabled".into());
            }
        }
        self.check_id(id)?;
        let place = match self.settings.width() {
            2 => (0, place.1 & 0xffff),
            3 => (0, place.1 & 0xff_ffff),
            4 => (0, place.1),
            _ => place,
        };
        self.lookup.insert(id, place);
        Ok(())
    }

    fn check_id(&self, id: u32) -> Result<(), String> {
        if id < self.settings.record_nr_max {
            Ok(())
        } else {
            Err("Index out of bounds".into())
        }
    }

    /// Where the lookup says that the newest version of `id` is.
    pub(crate) fn place(&self, id: u32) -> Place {
        self.lookup.get(&id).copied().unwrap_or((0, 0))
    }

    pub(crate) fn next_id(&self) -> Result<u32, String> {
        if !self.settings.incremental {
            return Err("incremental mode is not enabled".into());
        }
        self.check_id(self.next_id)
            .map_err(|_| "lookup table is full")?;
        Ok(self.next_id)
    }

    pub(crate) fn insert(&mut self, value: &[u8]) -> u32 {
        let id = self.next_id().unwrap();
        self.append(id, (0, 0), value);
        id
    }

    pub(crate) fn set(&mut self, id: u32, value: &[u8]) -> Result<(), String> {
        self.check_id(id)?;
        let previous = self.place(id);
        if self.settings.incremental && previous.1 == 0 {
            return Err("cannot set id for insertions when incremental mode is enabled".into());
        }
        self.append(id, previous, value);
        Ok(())
    }

    fn append(&mut self, id: u32, previous: Place, value: &[u8]) {
        let is_full = fs::metadata(self.data_file(self.last_used))
            .is_ok_and(|metadata| metadata.len() >= self.settings.file_size);
        if is_full {
            self.last_used += 1;
            // Created anew even if it is there.
            fs::write(self.data_file(self.last_used), [0]).unwrap();
        }
        let mut file = self.select(self.last_used);
        let position = file.metadata().unwrap().len() as u32;
        file.write_all(&record(previous, value)).unwrap();
        self.assign(id, (self.last_used, position)).unwrap();
    }

    fn data_file(&self, number: u16) -> PathBuf {
        self.path.join(format!("{number}.db"))
    }

    fn select(&mut self, number: u16) -> File {
        self.selected = Some(number);
        let path = self.data_file(number);
        if !path.exists() {
            fs::write(&path, [0]).unwrap();
        }
        OpenOptions::new()
            .read(true)
            .append(true)
            .open(path)
            .unwrap()
    }

    pub(crate) fn get(&mut self, id: u32) -> Result<Vec<u8>, String> {
        self.check_id(id)?;
        self.read(self.place(id)).map(|(value, _)| value)
    }

    /// Value and previous location.
    fn read(&mut self, place: Place) -> Result<(Vec<u8>, Place), String> {
        let file = self.select(place.0);
        if place.1 == 0 {
            return Err("Record not found".into());
        }
        let at = u64::from(place.1);
        let mut header = [0u8; 12];
        file.read_exact_at(&mut header, at)
            .map_err(|_| "failed to read header")?;
        let [s0, s1, c0, c1, c2, c3, f0, f1, p0, p1, p2, p3] = header;
        let mut value = vec![0u8; usize::from(u16::from_le_bytes([s0, s1]))];
        if value.is_empty() && self.port == Port::V {
            return Err("Failed to read file".into());
        }
        file.read_exact_at(&mut value, at + 12)
            .map_err(|_| "failed to read data bytes")?;
        if crc32fast::hash(&value) != u32::from_le_bytes([c0, c1, c2, c3]) {
            return Err("CRC mismatch: data corruption detected".into());
        }
        Ok((
            value,
            (
                u16::from_be_bytes([f0, f1]),
                u32::from_be_bytes([p0, p1, p2, p3]),
            ),
        ))
    }

    /// Newest first.
    pub(crate) fn history(&mut self, id: u32, depth: u8) -> Result<Vec<Vec<u8>>, String> {
        self.check_id(id)?;
        let mut place = self.place(id);
        let mut values = Vec::new();
        for _ in 0..depth {
            let (value, previous) = self.read(place)?;
            values.push(value);
            // A location of six bytes doesn't fit a narrower lookup, and the error is swallowed.
            if self.settings.width() < 6 || previous.1 == 0 {
                break;
            }
            place = previous;
        }
        Ok(values)
    }

    /// Zeroes the newest version: Go in its file, V in the file that was opened last.
    pub(crate) fn delete(&mut self, id: u32) -> Result<(), String> {
        self.check_id(id)?;
        let place = self.place(id);
        if place.1 == 0 {
            return Err("Record not found".into());
        }
        let number = match self.port {
            Port::Go => place.0,
            Port::V => self.selected.ok_or("no file is open")?,
        };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(self.data_file(number))
            .unwrap();
        let at = u64::from(place.1);
        let mut size = [0u8; 2];
        file.read_exact_at(&mut size, at)
            .map_err(|_| "nothing is there to read")?;
        let zeros = vec![0u8; 12 + usize::from(u16::from_le_bytes(size))];
        file.write_all_at(&zeros, at).unwrap();
        self.lookup.remove(&id);
        Ok(())
    }

    fn entries(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (id, &(file, position)) in &self.lookup {
            if position != 0 || file != 0 {
                let location = u64::from(file) << 32 | u64::from(position);
                bytes.extend_from_slice(&id.to_le_bytes());
                bytes.extend_from_slice(&location.to_be_bytes()[8 - self.settings.width()..]);
            }
        }
        bytes
    }

    /// Closes with a dump, for which the user made the directory.
    pub(crate) fn close(self) {
        let dump = self.path.join("lookup_dump.db");
        fs::create_dir_all(&dump).unwrap();
        fs::write(dump.join("data"), self.entries()).unwrap();
        if self.settings.incremental {
            fs::write(dump.join(".inc"), self.next_id.to_string()).unwrap();
        }
    }

    /// Closes with a dump as it was before herolib.
    pub(crate) fn close_plain(self) {
        fs::write(self.path.join("lookup_dump.db"), self.entries()).unwrap();
        if self.settings.incremental {
            let last = self.next_id - 1;
            fs::write(self.path.join("lookup_dump.db.inc"), last.to_string()).unwrap();
        }
    }
}
