//! Where a version lies.

/// Data file and the position in it of the version's herolib header. Position 0 holds the first
/// byte of a file and never a record, so it stands for "none".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct Location {
    /// Number of the data file.
    pub(crate) file: u16,
    /// Offset in bytes from the beginning of the file.
    pub(crate) position: u32,
}

impl Location {
    /// No version.
    pub(crate) const NONE: Location = Location {
        file: 0,
        position: 0,
    };

    /// Whether this is [`Location::NONE`], or no place that a record can have.
    pub(crate) fn is_none(self) -> bool {
        self.position == 0
    }
}
