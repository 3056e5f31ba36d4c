//! Hashing without random keys: asking the system for them may fail, and the standard library panics
//! then.

use std::collections::hash_map::DefaultHasher;
use std::hash::BuildHasherDefault;

/// For maps and sets.
pub(crate) type FixedHasher = BuildHasherDefault<DefaultHasher>;

/// Tells sets of versions apart, in whatever order they are added: it is the sum of a hash of each. That
/// mixes as SplitMix64 does (Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators",
/// 2014).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SetDigest(pub(crate) u64);

impl SetDigest {
    /// Adds the version of a record that a commit wrote, and when.
    pub(crate) fn add(&mut self, id: u32, commit: u64, time_us: u64) {
        let hash = [u64::from(id), commit, time_us].into_iter().fold(0, mix);
        self.0 = self.0.wrapping_add(hash);
    }
}

fn mix(state: u64, number: u64) -> u64 {
    let mut mixed = (state ^ number).wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first numbers that SplitMix64 gives, seeded with 0, and what the format says of a set.
    #[test]
    fn sets_have_the_digest_of_the_format() {
        assert_eq!(mix(0, 0), 0xe220_a839_7b1d_cdaf);
        assert_eq!(mix(0x9e37_79b9_7f4a_7c15, 0), 0x6e78_9e6a_a1b9_65f4);
        let versions = [(1, 7, 1001), (2, 7, 1001), (1, 8, 1001), (8, 1, 1001)];
        let digest = |order: [usize; 2]| {
            let mut digest = SetDigest::default();
            for (id, commit, time_us) in order.map(|index| versions[index]) {
                digest.add(id, commit, time_us);
            }
            digest
        };
        let one = mix(mix(mix(0, 1), 7), 1001);
        let two = mix(mix(mix(0, 2), 7), 1001);
        assert_eq!(digest([0, 1]), SetDigest(one.wrapping_add(two)));
        assert_eq!(digest([0, 1]), digest([1, 0]));
        for others in [[0, 0], [0, 2], [1, 2], [0, 3], [2, 3]] {
            assert_ne!(digest([0, 1]), digest(others));
        }
    }
}
