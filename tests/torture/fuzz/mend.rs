//! Makes the checksums of a directory fit its bytes, so that a mutation gets past them. Written
//! from `docs/FORMAT.md`, not from the library.

use super::storage::Files;

pub(super) const FILE_HEADER: usize = 64;
pub(super) const RECORD: usize = 40;
const MANIFEST: usize = 112;
const INDEX: usize = 96;
const BLOCK: usize = 4096;
const HEROLIB: usize = 12;

/// How far checksums are made to fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mend {
    Nothing,
    /// Those of whole files: manifest, base, lookup dump, checkpoint, and the headers of data
    /// files.
    Files,
    /// Those of records as well.
    Everything,
}

/// Makes the checksums fit.
pub(super) fn mend(files: &mut Files, what: Mend) {
    if what == Mend::Nothing {
        return;
    }
    let names: Vec<String> = files.keys().cloned().collect();
    for name in names.iter().filter(|name| name.ends_with(".db")) {
        let number = name.strip_suffix(".db").and_then(|n| n.parse().ok());
        if let (Some(number), Some(bytes)) = (number, files.get_mut(name)) {
            data_file(bytes, number, what);
        }
    }
    index(files);
    manifest(files);
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn put(bytes: &mut [u8], at: usize, value: u32) {
    if let Some(place) = bytes.get_mut(at..at + 4) {
        place.copy_from_slice(&value.to_le_bytes());
    }
}

/// Puts the CRC32 of everything before it at `at`.
fn seal(bytes: &mut [u8], at: usize) {
    if let Some(before) = bytes.get(..at) {
        let crc = crc32fast::hash(before);
        put(bytes, at, crc);
    }
}

pub(super) fn is_of_ours(data_file: &[u8]) -> bool {
    data_file.starts_with(b"\0OurDB\x1a\x0a") && data_file.len() >= FILE_HEADER
}

fn data_file(bytes: &mut [u8], number: u16, what: Mend) {
    let ours = is_of_ours(bytes);
    if ours {
        seal(bytes, FILE_HEADER - 4);
    }
    if what != Mend::Everything {
        return;
    }
    let uuid = if ours {
        bytes[12..28].to_vec()
    } else {
        Vec::new()
    };
    for (at, own) in records(bytes) {
        let header = if own { at + RECORD - HEROLIB } else { at };
        let value = header + HEROLIB..header + HEROLIB + value_len(bytes, at, own);
        let crc = bytes.get(value).map_or(0, crc32fast::hash);
        put(bytes, header + 2, crc);
        if own {
            envelope(bytes, at, &uuid, number);
        }
    }
}

fn envelope(bytes: &mut [u8], at: usize, uuid: &[u8], number: u16) {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(uuid);
    hasher.update(&number.to_le_bytes());
    let seed = hasher.finalize() ^ at as u32;
    let mut hasher = crc32fast::Hasher::new_with_initial(seed);
    hasher.update(&bytes[at + 4..at + RECORD]);
    put(bytes, at, hasher.finalize());
}

fn value_len(bytes: &[u8], at: usize, own: bool) -> usize {
    let byte = |offset: usize| usize::from(bytes[at + offset]);
    if own {
        byte(28) | byte(29) << 8 | byte(6) << 16 | byte(7) << 24
    } else {
        byte(0) | byte(1) << 8
    }
}

/// Where the records of a data file begin, and whether each is one of ours; also where lengths
/// are wrong: then the search goes on at whatever looks like a record.
pub(super) fn records(bytes: &[u8]) -> Vec<(usize, bool)> {
    let mut records = Vec::new();
    let ours = is_of_ours(bytes);
    let mut at = if ours { FILE_HEADER } else { 1 };
    while at < bytes.len() {
        let own = ours && looks_like_a_record(bytes, at);
        let header = if own { RECORD } else { HEROLIB };
        if at + header > bytes.len() {
            break;
        }
        let end = at + header + value_len(bytes, at, own);
        let is_zero = bytes[at..at + header].iter().all(|&byte| byte == 0);
        if own || (!is_zero && end <= bytes.len()) {
            records.push((at, own));
        }
        at = if end <= bytes.len() && !is_zero {
            end
        } else {
            let next = at + 1..bytes.len();
            let next = next
                .into_iter()
                .find(|&at| ours && looks_like_a_record(bytes, at));
            next.unwrap_or(bytes.len())
        };
    }
    records
}

fn looks_like_a_record(bytes: &[u8], at: usize) -> bool {
    bytes.get(at..at + RECORD).is_some_and(|head| {
        (1..=3).contains(&head[4]) && head[5] <= 1 && head[6..8] == [0; 2] && head[..4] != [0; 4]
    })
}

/// The checkpoint: the blocks, in `index` or in `lookup`, the directory, the header, and the count
/// of live records.
fn index(files: &mut Files) {
    let table = files.get("lookup").cloned().unwrap_or_default();
    let Some(bytes) = files.get_mut("index") else {
        return;
    };
    let Some(count) = u32_at(bytes, 80).map(|count| count as usize) else {
        return;
    };
    let Some(end) = count.checked_mul(8).map(|len| INDEX + len) else {
        return;
    };
    if bytes.len() < end {
        seal(bytes, 88);
        return;
    }
    let external = bytes[28] & 1 == 1;
    let mut live = 0u64;
    for entry in 0..count {
        let number = u32_at(bytes, INDEX + 8 * entry).unwrap_or(0) as usize;
        let from = if external {
            number.saturating_mul(BLOCK)
        } else {
            end.next_multiple_of(BLOCK) + entry * BLOCK
        };
        let source = if external { &table } else { &*bytes };
        let mut block = source.get(from..).unwrap_or_default().to_vec();
        block.resize(BLOCK, 0);
        let words = block.chunks_exact(8);
        live += words
            .filter(|word| word[..4] != [0; 4] && word[7] & 0x80 == 0)
            .count() as u64;
        put(bytes, INDEX + 8 * entry + 4, crc32fast::hash(&block));
    }
    bytes[64..72].copy_from_slice(&live.to_le_bytes());
    let directory = crc32fast::hash(&bytes[INDEX..end]);
    put(bytes, 84, directory);
    seal(bytes, 88);
}

/// The manifest: what it says of the base and of the lookup dump, and its own checksum.
fn manifest(files: &mut Files) {
    let Some(mut bytes) = files.remove("MANIFEST") else {
        return;
    };
    if bytes.len() >= MANIFEST + 4 {
        let generation = u64::from_le_bytes(*bytes[32..].first_chunk().expect("it is longer"));
        if let Some(base) = files.get_mut(&format!("base.{generation}")) {
            let entries = base.len().saturating_sub(16) / 12;
            put(base, 12, entries as u32);
            put(&mut bytes, 80, crc32fast::hash(base));
            put(&mut bytes, 84, entries as u32);
        }
        if let Some(data) = files.get("lookup_dump.db/data") {
            let inc = files.get("lookup_dump.db/.inc").map_or(&[][..], |inc| inc);
            let dump = [data, inc].concat();
            bytes[88..96].copy_from_slice(&(dump.len() as u64).to_le_bytes());
            put(&mut bytes, 96, crc32fast::hash(&dump));
        }
        let end = bytes.len() - 4;
        seal(&mut bytes, end);
    }
    files.insert("MANIFEST".to_owned(), bytes);
}

/// The base and the manifest hold how many entries there are; this is where each number stands
/// that says how much of something there is, or where it is. Offset and width in bytes.
pub(super) fn fields(name: &str, bytes: &[u8]) -> Vec<(usize, usize)> {
    let mut fields = Vec::new();
    if name == "MANIFEST" {
        fields.extend([
            (8, 4),
            (12, 4),
            (16, 1),
            (32, 8),
            (40, 1),
            (41, 1),
            (42, 1),
            (44, 4),
            (48, 4),
            (52, 4),
            (56, 8),
            (64, 8),
            (72, 8),
            (80, 4),
            (84, 4),
            (88, 8),
            (96, 4),
            (100, 4),
            (104, 8),
        ]);
        for at in (MANIFEST..bytes.len().saturating_sub(4)).step_by(16) {
            fields.extend([(at, 2), (at + 2, 2), (at + 8, 4), (at + 12, 4)]);
        }
    } else if name == "index" {
        let header = [
            (8, 4),
            (12, 1),
            (28, 4),
            (32, 8),
            (40, 8),
            (48, 8),
            (56, 8),
            (64, 8),
            (72, 4),
            (76, 2),
            (80, 4),
            (84, 4),
            (INDEX, 4),
            (INDEX + 4, 4),
        ];
        fields.extend(header);
        words(&mut fields, bytes, BLOCK);
    } else if name == "lookup" {
        words(&mut fields, bytes, 0);
    } else if name.starts_with("base.") {
        fields.extend([(8, 4), (12, 4)]);
        for at in (16..bytes.len()).step_by(12) {
            fields.extend([(at, 4), (at + 4, 4), (at + 8, 2), (at + 10, 2)]);
        }
    } else if name == "lookup_dump.db/data" || name == "lookup_dump.db" {
        for at in (0..bytes.len()).step_by(10) {
            fields.extend([(at, 4), (at + 4, 2), (at + 6, 4)]);
        }
    } else {
        if is_of_ours(bytes) {
            fields.extend([(8, 4), (12, 1), (28, 2), (30, 2), (32, 4), (36, 8), (44, 8)]);
        }
        for (at, own) in records(bytes) {
            if own {
                let head = [(4, 1), (5, 1), (6, 2), (8, 4), (12, 8), (20, 8)];
                fields.extend(head.map(|(offset, width)| (at + offset, width)));
            }
            let at = if own { at + RECORD - HEROLIB } else { at };
            fields.extend([(at, 2), (at + 2, 4), (at + 6, 2), (at + 8, 4)]);
        }
    }
    fields.retain(|&(at, width)| at + width <= bytes.len());
    fields
}

/// The words of a lookup table that hold something, by their parts.
fn words(fields: &mut Vec<(usize, usize)>, bytes: &[u8], from: usize) {
    for (index, word) in bytes
        .get(from..)
        .unwrap_or_default()
        .chunks_exact(8)
        .enumerate()
    {
        if word.iter().any(|&byte| byte != 0) {
            let at = from + 8 * index;
            fields.extend([(at, 4), (at + 4, 2), (at + 6, 2)]);
        }
    }
}
