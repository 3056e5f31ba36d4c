//! What the lookup knows of one id, in 64 bits.
//!
//! ```text
//! bits  0..32   position of the newest version's herolib header; 0 = the id never held a record
//! bits 32..48   data file
//! bits 48..63   length of the value, 32,767 for all that are as long or longer: a hint for
//!               prefetching
//! bit  63       the newest version is a deletion
//! ```

use crate::location::Location;
use crate::log::record::Kind;

/// The newest version of one id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Entry(u64);

const DELETED: u64 = 1 << 63;
const LONGEST_HINT: u64 = (1 << 15) - 1;

impl Entry {
    /// The id never held a record.
    pub(crate) const NONE: Entry = Entry(0);

    /// For a newest version of this kind, with a value of `len` bytes if it is a put.
    #[inline]
    pub(crate) fn of(kind: Kind, location: Location, len: u32) -> Entry {
        match kind {
            Kind::Put => Entry::live(location, len as usize),
            _ => Entry::deleted(location),
        }
    }

    pub(crate) fn live(location: Location, len: usize) -> Entry {
        let hint = (len as u64).min(LONGEST_HINT);
        Entry(hint << 48 | u64::from(location.file) << 32 | u64::from(location.position))
    }

    pub(crate) fn deleted(location: Location) -> Entry {
        Entry(DELETED | u64::from(location.file) << 32 | u64::from(location.position))
    }

    /// The same, deleted.
    pub(crate) fn cleared(self) -> Entry {
        Entry(self.0 | DELETED)
    }

    pub(crate) fn from_word(word: u64) -> Entry {
        Entry(word)
    }

    pub(crate) fn to_word(self) -> u64 {
        self.0
    }

    #[inline]
    pub(crate) fn location(self) -> Location {
        Location {
            file: (self.0 >> 32) as u16,
            position: self.0 as u32,
        }
    }

    /// Whether the id has, or had, a record.
    #[inline]
    pub(crate) fn is_known(self) -> bool {
        self.0 as u32 != 0
    }

    /// Whether the newest version holds a value.
    #[inline]
    pub(crate) fn is_live(self) -> bool {
        self.is_known() && self.0 & DELETED == 0
    }

    /// Whether the newest version is a deletion, or a clear came since.
    #[inline]
    pub(crate) fn is_deleted(self) -> bool {
        self.0 & DELETED != 0
    }

    /// Length of the value, if it is known.
    pub(crate) fn len(self) -> Option<usize> {
        let len = self.len_hint();
        // Where 0 stands it may be that only herolib knows.
        (len != 0 && len as u64 != LONGEST_HINT).then_some(len)
    }

    /// Length of the value, or less than it if it is long.
    #[inline]
    pub(crate) fn len_hint(self) -> usize {
        (self.0 >> 48 & LONGEST_HINT) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_holds_any_location() {
        for location in [
            Location {
                file: 0,
                position: 1,
            },
            Location {
                file: u16::MAX,
                position: u32::MAX,
            },
            Location {
                file: 258,
                position: 0x8000_0000,
            },
        ] {
            let live = Entry::live(location, 100);
            assert_eq!(
                (live.location(), live.is_live(), live.len_hint()),
                (location, true, 100)
            );
            let deleted = Entry::deleted(location);
            assert_eq!(deleted.location(), location);
            assert!(deleted.is_known() && !deleted.is_live());
        }
        assert_eq!(
            Entry::live(
                Location {
                    file: 1,
                    position: 2
                },
                1 << 20
            )
            .len_hint(),
            32_767
        );
        assert!(!Entry::NONE.is_known() && !Entry::NONE.is_live());
    }
}
