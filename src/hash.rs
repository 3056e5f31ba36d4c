//! Hashing without random keys: asking the system for them may fail, and the standard library panics
//! then.

use std::collections::hash_map::DefaultHasher;
use std::hash::BuildHasherDefault;

/// For maps and sets.
pub(crate) type FixedHasher = BuildHasherDefault<DefaultHasher>;
