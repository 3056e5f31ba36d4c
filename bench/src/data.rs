//! What is stored, and in which order: all of it follows from numbers, so that every answer can be
//! checked and two runs do the same.

use std::sync::atomic::{AtomicU8, Ordering};

use crate::engine::{Outcome, VALUE, Value, wrong};

/// SplitMix64.
pub fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// A number below `limit` from a random word.
pub fn below(word: u64, limit: u32) -> u32 {
    (((word >> 32) * u64::from(limit)) >> 32) as u32
}

/// The word at a place of a value.
fn word(id: u32, version: u8, place: usize) -> u64 {
    mix((u64::from(id) << 16 | u64::from(version) << 8) + place as u64)
}

/// A value that no compression makes shorter.
pub fn value(id: u32, version: u8) -> Value {
    let mut value = [0; VALUE];
    for (place, bytes) in value.chunks_exact_mut(8).enumerate() {
        bytes.copy_from_slice(&word(id, version, place).to_le_bytes());
    }
    // The last eight bytes, so that they can be compared as one word.
    value[VALUE - 8..].copy_from_slice(&word(id, version, VALUE / 8).to_le_bytes());
    value
}

/// The first eight bytes of a value.
pub fn first_word(value: &Value) -> u64 {
    u64::from_le_bytes(value[..8].try_into().expect("eight bytes"))
}

/// Whether it begins and ends as it must. Quick, because it stands inside of what is measured.
pub fn looks_right(value: &[u8], id: u32, version: u8) -> bool {
    value.len() == VALUE
        && value[..8] == word(id, version, 0).to_le_bytes()
        && value[VALUE - 8..] == word(id, version, VALUE / 8).to_le_bytes()
}

/// Which version of each record is the newest.
pub struct Versions(Vec<AtomicU8>);

impl Versions {
    /// All records are at version 0.
    pub fn new(records: u32) -> Versions {
        Versions((0..records).map(|_| AtomicU8::new(0)).collect())
    }

    /// How many records there are.
    pub fn records(&self) -> u32 {
        self.0.len() as u32
    }

    /// That of one record.
    pub fn of(&self, id: u32) -> u8 {
        self.0[id as usize].load(Ordering::Acquire)
    }

    /// The version that comes next.
    pub fn next(&self, id: u32) -> u8 {
        self.of(id).wrapping_add(1)
    }

    /// The next version is stored now.
    pub fn advance(&self, id: u32) {
        self.0[id as usize].fetch_add(1, Ordering::Release);
    }

    /// Checks a value that nobody is changing.
    pub fn check(&self, id: u32, value: &[u8]) -> Outcome {
        if looks_right(value, id, self.of(id)) {
            Ok(())
        } else {
            Err(wrong("a value"))
        }
    }

    /// Checks a value that was read while others wrote: it is the version of before the read, or one
    /// that has come since, or the one that a writer was storing.
    pub fn check_between(&self, id: u32, before: u8, value: &[u8]) -> Outcome {
        let steps = self.of(id).wrapping_sub(before).wrapping_add(1);
        if (0..=steps).any(|step| looks_right(value, id, before.wrapping_add(step))) {
            Ok(())
        } else {
            Err(wrong("a value read beside writers"))
        }
    }

    /// Compares every byte.
    pub fn check_all_of(&self, id: u32, found: &[u8]) -> Outcome {
        if found == value(id, self.of(id)) {
            Ok(())
        } else {
            Err(wrong("a byte of a value"))
        }
    }
}

/// All ids below a limit in an order that looks random, each once, without a table.
pub struct Permutation {
    limit: u32,
    mask: u64,
    bits: u32,
    seed: u64,
}

impl Permutation {
    /// One of many, chosen by the seed.
    pub fn new(limit: u32, seed: u64) -> Permutation {
        let bits = u32::BITS - limit.saturating_sub(1).leading_zeros();
        let bits = bits.max(2);
        Permutation {
            limit,
            mask: (1 << bits) - 1,
            bits,
            seed: mix(seed),
        }
    }

    /// Which id comes at this place; places from the limit on begin anew.
    pub fn at(&self, place: u64) -> u32 {
        let mut x = place % u64::from(self.limit);
        // Each step can be undone within so many bits, so no two places meet. What falls outside of
        // the limit walks on until it is inside.
        loop {
            for round in 0..3 {
                x = (x + (self.seed >> (8 * round))) & self.mask;
                x = (x.wrapping_mul(0x9e37_79b9_7f4a_7c15 | 1)) & self.mask;
                x ^= x >> (self.bits / 2);
            }
            if x < u64::from(self.limit) {
                return x as u32;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Permutation, Versions, looks_right, value};

    #[test]
    fn a_permutation_has_each_id_once() {
        for limit in [1, 2, 3, 5, 64, 1000, 4097] {
            for seed in 0..4 {
                let order = Permutation::new(limit, seed);
                let mut ids: Vec<_> = (0..u64::from(limit)).map(|place| order.at(place)).collect();
                ids.sort_unstable();
                assert!(ids.into_iter().eq(0..limit), "{limit} ids, seed {seed}");
            }
        }
    }

    #[test]
    fn another_id_or_version_or_length_is_noticed() {
        let right = value(7, 3);
        assert!(looks_right(&right, 7, 3));
        assert!(!looks_right(&right, 6, 3));
        assert!(!looks_right(&right, 7, 2));
        assert!(!looks_right(&right[..99], 7, 3));
        let versions = Versions::new(8);
        assert!(versions.check(7, &value(7, 0)).is_ok());
        versions.advance(7);
        assert!(versions.check(7, &value(7, 0)).is_err());
        assert!(versions.check_all_of(7, &value(7, 1)).is_ok());
        let mut changed = value(7, 1);
        changed[50] ^= 1;
        assert!(versions.check_all_of(7, &changed).is_err());
    }

    #[test]
    fn beside_writers_no_version_from_before_the_read_is_right() {
        let versions = Versions::new(1);
        (0..3).for_each(|_| versions.advance(0));
        assert!(versions.check_between(0, 2, &value(0, 1)).is_err());
        for version in 2..=4 {
            assert!(versions.check_between(0, 2, &value(0, version)).is_ok());
        }
        assert!(versions.check_between(0, 2, &value(0, 5)).is_err());
    }
}
