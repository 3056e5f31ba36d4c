//! Mutations of directories: of bytes, of the numbers in them, of records, and of whole files.

use std::fmt;

use super::mend::{FILE_HEADER, Mend, fields, is_of_ours, mend, records};
use super::seeds::Seed;
use super::storage::Files;
use crate::support::Random;

/// No file grows beyond this.
const LONGEST: usize = 64 << 10;

/// What was done to a directory.
#[derive(Debug)]
pub(super) struct Mutation {
    /// In words, one item per change.
    pub(super) steps: Vec<String>,
    pub(super) mended: Mend,
    /// Whether something came in from another directory.
    pub(super) foreign: bool,
}

impl fmt::Display for Mutation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Mutation { steps, mended, .. } = self;
        write!(f, "{}\n  mended: {mended:?}", steps.join("\n  "))
    }
}

/// Changes `seed` at random, a little or a lot.
pub(super) fn mutate(seed: &Seed, seeds: &[Seed], random: &mut Random) -> (Files, Mutation) {
    let mut mutator = Mutator {
        files: seed.files.clone(),
        seeds,
        random,
        steps: Vec::new(),
        foreign: false,
    };
    let changes = 1 + mutator.random.below(4).min(mutator.random.below(4));
    for _ in 0..changes {
        mutator.step();
    }
    let mended = match mutator.random.below(10) {
        0..3 => Mend::Nothing,
        3..6 => Mend::Files,
        _ => Mend::Everything,
    };
    let (mut files, steps, foreign) = (mutator.files, mutator.steps, mutator.foreign);
    mend(&mut files, mended);
    let mutation = Mutation {
        steps,
        mended,
        foreign,
    };
    (files, mutation)
}

struct Mutator<'a> {
    files: Files,
    seeds: &'a [Seed],
    random: &'a mut Random,
    steps: Vec<String>,
    foreign: bool,
}

impl Mutator<'_> {
    fn below(&mut self, limit: usize) -> usize {
        self.random.below(limit.max(1) as u64) as usize
    }

    fn step(&mut self) {
        let Some(name) = self.any_file() else {
            return self.foreign_file();
        };
        match self.below(40) {
            0..14 => self.field(&name),
            14..22 => self.bytes(&name),
            22..26 => self.length(&name),
            26..31 => self.piece(&name),
            31..35 => self.record(&name),
            35 => self.names(&name),
            36 => self.whole_file(&name),
            37 => self.foreign_file(),
            38 => self.foreign_piece(&name),
            _ => self.rebrand(),
        }
    }

    fn any_file(&mut self) -> Option<String> {
        let chosen = self.below(self.files.len());
        let name = self.files.keys().nth(chosen)?;
        (!name.ends_with('/')).then(|| name.clone())
    }

    fn say(&mut self, step: String) {
        self.steps.push(step);
    }

    /// A number that is often a limit of something. `near` is one to be close to.
    fn number(&mut self, near: u64) -> u64 {
        const INTERESTING: [u64; 16] = [
            0,
            1,
            2,
            63,
            64,
            511,
            512,
            0x7fff,
            0xffff,
            0x0100_0000,
            0x7fff_ffff,
            0x8000_0000,
            0xffff_fffe,
            0xffff_ffff,
            0x1_0000_0000,
            u64::MAX,
        ];
        match self.below(6) {
            0 | 1 => INTERESTING[self.below(INTERESTING.len())],
            2 => near.wrapping_add(self.random.below(9)).wrapping_sub(4),
            3 => self.random.below(16),
            4 => 1u64 << self.below(64),
            _ => self.random.next(),
        }
    }

    /// Puts another number into a field of the format.
    fn field(&mut self, name: &str) {
        let fields = fields(name, &self.files[name]);
        if fields.is_empty() {
            return self.bytes(name);
        }
        let (at, width) = fields[self.below(fields.len())];
        self.put_number(name, at, width);
    }

    fn put_number(&mut self, name: &str, at: usize, width: usize) {
        let bytes = &self.files[name];
        let mut old = [0; 8];
        old[..width].copy_from_slice(&bytes[at..at + width]);
        let (old, len) = (u64::from_le_bytes(old), bytes.len());
        let near = match self.below(4) {
            0 => len as u64,
            1 => self.below(len) as u64,
            _ => old,
        };
        let number = self.number(near);
        let big_endian = self.below(4) == 0;
        let value = if big_endian {
            number.swap_bytes() >> (64 - 8 * width)
        } else {
            number
        };
        let target = &mut self.bytes_of(name)[at..at + width];
        target.copy_from_slice(&value.to_le_bytes()[..width]);
        self.say(format!("{name}: {number:#x} in {width} bytes at {at}"));
    }

    fn bytes_of(&mut self, name: &str) -> &mut Vec<u8> {
        self.files.get_mut(name).expect("the name of a file")
    }

    /// Changes bytes here and there.
    fn bytes(&mut self, name: &str) {
        let len = self.files[name].len();
        if len == 0 {
            return self.length(name);
        }
        let at = self.below(len);
        match self.below(4) {
            0 => {
                let bit = self.below(8);
                self.bytes_of(name)[at] ^= 1 << bit;
                self.say(format!("{name}: bit {bit} of byte {at} flipped"));
            }
            1 => {
                let byte = self.random.next() as u8;
                self.bytes_of(name)[at] = byte;
                self.say(format!("{name}: byte {at} is {byte:#x}"));
            }
            2 => {
                let width = (1 << self.below(4)).min(len - at);
                self.put_number(name, at, width);
            }
            _ => {
                let count = 1 + self.below(64.min(len - at));
                let byte = [0, 0xff][self.below(2)];
                self.bytes_of(name)[at..at + count].fill(byte);
                self.say(format!("{name}: {count} bytes at {at} are {byte:#x}"));
            }
        }
    }

    /// Cuts or extends a file.
    fn length(&mut self, name: &str) {
        let len = self.files[name].len();
        let most = [1, 12, 40, 64, 5000][self.below(5)];
        let more = 1 + self.below(most);
        match self.below(4) {
            0 => {
                let to = self.below(len + 1);
                self.bytes_of(name).truncate(to);
                self.say(format!("{name}: cut from {len} to {to} bytes"));
            }
            1 => {
                let to = len.saturating_sub(more);
                self.bytes_of(name).truncate(to);
                self.say(format!("{name}: cut from {len} to {to} bytes"));
            }
            2 => {
                self.bytes_of(name).resize(len + more, 0);
                self.say(format!("{name}: {more} zeros added"));
            }
            _ => {
                let noise: Vec<u8> = (0..more).map(|_| self.random.next() as u8).collect();
                self.bytes_of(name).extend(noise);
                self.say(format!("{name}: {more} random bytes added"));
            }
        }
    }

    /// Copies, moves or removes a piece of a file.
    fn piece(&mut self, name: &str) {
        let len = self.files[name].len();
        let from = self.below(len);
        let most = [8, 64, 512, 4096][self.below(4)].min(len - from);
        let count = self.below(most + 1);
        let to = self.below(len + 1);
        let piece = self.files[name][from..from + count].to_vec();
        let bytes = self.bytes_of(name);
        let what = match count % 3 {
            0 => {
                bytes.drain(from..from + count);
                "taken out".to_owned()
            }
            1 => {
                let count = count.min(len - to);
                bytes[to..to + count].copy_from_slice(&piece[..count]);
                format!("copied over those at {to}")
            }
            _ if len + count <= LONGEST => {
                bytes.splice(to..to, piece);
                format!("inserted at {to}")
            }
            _ => return,
        };
        self.say(format!("{name}: {count} bytes at {from} {what}"));
    }

    /// Takes a whole record out, doubles it, or puts another one in its place.
    fn record(&mut self, name: &str) {
        let bytes = &self.files[name];
        let records = records(bytes);
        if records.len() < 2 {
            return self.field(name);
        }
        let ends = records.iter().skip(1).map(|record| record.0);
        let ends: Vec<usize> = ends.chain([bytes.len()]).collect();
        let range = |index: usize| records[index].0..ends[index];
        let one = range(self.below(records.len()));
        let other = range(self.below(records.len()));
        let record = self.files[name][one.clone()].to_vec();
        let what = match self.below(3) {
            0 => {
                self.bytes_of(name).drain(one.clone());
                "taken out".to_owned()
            }
            1 => {
                self.bytes_of(name).splice(other.clone(), record);
                format!("put in place of the one at {}", other.start)
            }
            _ => {
                self.bytes_of(name).splice(other.start..other.start, record);
                format!("put in at {}", other.start)
            }
        };
        self.bytes_of(name).truncate(LONGEST);
        self.say(format!("{name}: the record at {} {what}", one.start));
    }

    /// A name that some file of a database could have.
    fn name(&mut self) -> String {
        const NAMES: [&str; 22] = [
            "MANIFEST",
            "MANIFEST.tmp",
            "LOCK",
            "index",
            "index.tmp",
            "lookup",
            "base.0",
            "base.1",
            "base.18446744073709551615",
            "0.db",
            "1.db",
            "2.db",
            "65535.db",
            "65536.db",
            "00.db",
            "lookup_dump.db",
            "lookup_dump.db.inc",
            "lookup_dump.db/data",
            "lookup_dump.db/.inc",
            "torn-0",
            "torn-0-64",
            "notes.txt",
        ];
        NAMES[self.below(NAMES.len())].to_owned()
    }

    /// Removes, renames, doubles or swaps files.
    fn names(&mut self, name: &str) {
        let to = self.name();
        let content = self.files[name].clone();
        let what = match self.below(5) {
            0 => {
                self.files.remove(name);
                "removed".to_owned()
            }
            1 => {
                self.files.remove(name);
                self.add(to.clone(), content);
                format!("renamed to {to}")
            }
            2 => {
                self.add(to.clone(), content);
                format!("copied to {to}")
            }
            3 => {
                let Some(other) = self.any_file() else { return };
                let others = self.files.insert(other.clone(), content);
                self.files
                    .insert(name.to_owned(), others.unwrap_or_default());
                format!("swapped with {other}")
            }
            _ if !name.contains('/') => {
                self.files.remove(name);
                self.files.insert(format!("{name}/"), Vec::new());
                "a directory now".to_owned()
            }
            _ => return,
        };
        self.say(format!("{name}: {what}"));
    }

    /// Puts a file in, and takes away what can't be beside it.
    fn add(&mut self, name: String, content: Vec<u8>) {
        let within = format!("{name}/");
        self.files.retain(|known, _| !known.starts_with(&within));
        if let Some((directory, _)) = name.split_once('/') {
            self.files.remove(directory);
        }
        self.files.insert(name, content);
    }

    /// Other bytes in place of a whole file.
    fn whole_file(&mut self, name: &str) {
        let most = [1, 64, 200, 5000][self.below(4)];
        let len = self.below(most);
        let mut noise: Vec<u8> = (0..len).map(|_| self.random.next() as u8).collect();
        if self.random.chance(30) {
            let kept = self.below(120).min(self.files[name].len()).min(len);
            noise[..kept].copy_from_slice(&self.files[name][..kept]);
        }
        self.files.insert(name.to_owned(), noise);
        self.say(format!("{name}: {len} random bytes"));
    }

    /// A file out of another directory.
    fn foreign_file(&mut self) {
        let seeds = self.seeds;
        let seed = &seeds[self.below(seeds.len())];
        let chosen = self.below(seed.files.len());
        let Some((name, content)) = seed.files.iter().nth(chosen) else {
            return;
        };
        self.foreign = true;
        self.add(name.clone(), content.clone());
        self.say(format!("{name}: that of \"{}\"", seed.name));
    }

    /// A piece of a file out of another directory.
    fn foreign_piece(&mut self, name: &str) {
        let seeds = self.seeds;
        let seed = &seeds[self.below(seeds.len())];
        let Some(source) = seed.files.get(name).filter(|source| !source.is_empty()) else {
            return self.foreign_file();
        };
        let from = self.below(source.len());
        let count = 1 + self.below(source.len() - from);
        let len = self.files[name].len();
        let to = self.below(len + 1);
        let end = (to + count).min(len);
        self.bytes_of(name)
            .splice(to..end, source[from..from + count].iter().copied());
        self.bytes_of(name).truncate(LONGEST);
        self.foreign = true;
        self.say(format!(
            "{name}: {count} bytes at {to} are those at {from} of that of \"{}\"",
            seed.name
        ));
    }

    /// Makes all data files believe that they belong to the manifest that is there.
    fn rebrand(&mut self) {
        let Some(identity) = self.files.get("MANIFEST").and_then(|m| m.get(16..40)) else {
            return;
        };
        let identity = identity.to_vec();
        for (name, bytes) in &mut self.files {
            let number = name.strip_suffix(".db").and_then(|n| n.parse::<u16>().ok());
            if let Some(number) = number.filter(|_| is_of_ours(bytes) && bytes.len() >= FILE_HEADER)
            {
                bytes[12..28].copy_from_slice(&identity[..16]);
                bytes[28..30].copy_from_slice(&number.to_le_bytes());
                bytes[36..44].copy_from_slice(&identity[16..]);
            }
        }
        if let Some(index) = self
            .files
            .get_mut("index")
            .filter(|index| index.len() >= 40)
        {
            index[12..28].copy_from_slice(&identity[..16]);
            index[32..40].copy_from_slice(&identity[16..]);
        }
        self.foreign = true;
        self.say("all data files and the checkpoint rebranded".to_owned());
    }
}
