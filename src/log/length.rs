//! How long a data file must be, whoever looks: what is shorter was cut off by another program.

use std::sync::Arc;

use super::Log;
use super::segment::name;
use crate::error::{Error, Result};
use crate::storage::File;
use crate::sync::{Mutex, MutexGuard, PoisonError};

/// How long a data file is at least: up to the end of its log, and to the end of the space that was
/// reserved ahead of it. The writer changes it; who syncs the file beside the writer looks here too.
///
/// At no moment is the file shorter than the number says. So it can be compared with the file only
/// while it stands still: of two looks one after the other, one may be from before the file was made
/// longer or cut, and the other from after.
#[derive(Clone, Debug)]
pub(super) struct Length(Arc<Mutex<u64>>);

impl Length {
    /// Of a file whose log ends at `end`.
    pub(super) fn new(end: u64) -> Length {
        Length(Arc::new(Mutex::new(end)))
    }

    fn least(&self) -> MutexGuard<'_, u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that space was reserved, which may have made the file longer.
    pub(super) fn note_reserved(&self, file: &dyn File) {
        if let Ok(len) = file.len() {
            *self.least() = len;
        }
    }

    /// Cuts the file.
    pub(super) fn cut(&self, file: &dyn File, len: u64) -> std::io::Result<()> {
        let mut least = self.least();
        *least = len;
        file.set_len(len)
    }

    /// Refuses the file if it has become shorter, or was removed. A look that fails otherwise says
    /// nothing about the file.
    pub(super) fn check(&self, log: &Log, number: u16, file: &dyn File, end: u64) -> Result<()> {
        let least = self.least();
        let found = file.len();
        let before = end.max(*least);
        drop(least);
        let (len, what) = match found {
            Ok(len) if len < before => (
                len,
                format!("another program has cut the file off here; it was {before} bytes long"),
            ),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                (0, "another program has removed the file".to_owned())
            }
            _ => return Ok(()),
        };
        Err(Error::corrupt(
            log.storage.describe(&name(number)),
            len,
            what,
        ))
    }
}
