//! Reading the records of a herolib data file.

use super::record::{HEADER, Header};
use crate::error::Result;
use crate::reader::Reader;

/// What herolib's records need of a reader.
pub(super) trait ReadRecord {
    /// What would be the header of a record at `position`; `None` where the file ends before.
    fn header(&mut self, position: u64) -> Result<Option<Header>>;

    /// Whether the value behind the header at `position` is there and has the header's CRC.
    fn value_holds(&mut self, position: u64, header: &Header) -> Result<bool>;
}

impl ReadRecord for Reader {
    fn header(&mut self, position: u64) -> Result<Option<Header>> {
        Ok(Header::decode(self.bytes(position, HEADER as u64)?))
    }

    fn value_holds(&mut self, position: u64, header: &Header) -> Result<bool> {
        let value = self.bytes(position + HEADER as u64, u64::from(header.size))?;
        Ok(header.describes(value))
    }
}
