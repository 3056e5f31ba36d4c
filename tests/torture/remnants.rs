//! What was erased is in no file any more.

use crate::support::model::{Model, Value};
use crate::support::sim::Disk;
use crate::support::{Verdict, require};

/// The length of what is searched for: so long that no two values have it in common.
const NEEDLE: usize = 8;
/// From one piece of a value that is searched for to the next.
const STRIDE: usize = 48;

/// The pieces of a value that tell it from every other: its first two bytes are a number that may
/// stand anywhere, and one that is all zeros or ones has none.
fn needles(value: &Value) -> Vec<[u8; NEEDLE]> {
    if value.seed % 8 >= 6 {
        return Vec::new();
    }
    let bytes = value.bytes();
    let pieces = bytes.get(2..).unwrap_or_default().windows(NEEDLE);
    let pieces = pieces.step_by(STRIDE);
    pieces.filter_map(|piece| piece.try_into().ok()).collect()
}

/// Searches the files of a database that is open for writing for what `model` says to be erased. What
/// recovery has kept aside is not reached by an erasure.
pub(crate) fn check_erased(disk: &Disk, model: &Model) -> Verdict {
    let gone = model.gone();
    if gone.is_empty() {
        return Ok(());
    }
    let mut begins = vec![false; 1 << 16];
    let begin = |bytes: &[u8]| usize::from(u16::from_le_bytes([bytes[0], bytes[1]]));
    let mut wanted = Vec::new();
    for (id, value) in &gone {
        for needle in needles(value) {
            begins[begin(&needle)] = true;
            wanted.push((needle, id, value));
        }
    }
    for name in disk.files() {
        let bytes = disk.read(&name).unwrap_or_default();
        if name.starts_with("torn-") {
            continue;
        }
        for (at, piece) in bytes.windows(NEEDLE).enumerate() {
            if !begins[begin(piece)] {
                continue;
            }
            let found = wanted.iter().find(|(needle, _, _)| needle == piece);
            require!(
                found.is_none(),
                "{name} has at {at} what was erased, as (bytes, id, value): {found:?}"
            );
        }
    }
    Ok(())
}
