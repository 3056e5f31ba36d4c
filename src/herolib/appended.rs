//! What herolib has appended to a data file, and what it has deleted of that again.

use super::reader::ReadRecord;
use super::record::{HEADER, Header};
use super::{DataFile, data_file_name};
use crate::error::Result;
use crate::location::Location;
use crate::reader::Reader;
use crate::storage::Storage;

/// What [`appended`] finds.
pub(crate) enum Appended {
    /// As many zeros as the shortest record has bytes, between records.
    Zeros,
    /// A record that is not live: there is a newer one, or V has zeroed its place in another file.
    Gone(Location),
}

/// Goes over what stands from `from` on, where a record begins, in data file `number`, one of `files`.
/// The records at the places in `live`, which ascend, are live.
///
/// A record that holds may have zeros in its value, and a live one may be nothing but zeros: those are
/// not found. What is no record is looked at byte by byte: the next one may begin anywhere in it.
pub(crate) fn appended(
    storage: &dyn Storage,
    files: &[DataFile],
    number: u16,
    from: u32,
    live: &[Location],
    mut found: impl FnMut(Appended) -> Result<()>,
) -> Result<()> {
    let mut reader = Reader::sequential(storage, &data_file_name(number))?;
    let (mut at, mut zeros) = (u64::from(from), 0);
    while at < reader.len()
        && let Ok(position) = u32::try_from(at)
    {
        let place = Location {
            file: number,
            position,
        };
        let is_live = || live.binary_search(&place).is_ok();
        let (record, next) = record_at(&mut reader, files, at, is_live)?;
        if record.is_some() {
            if !is_live() {
                found(Appended::Gone(place))?;
            }
            (at, zeros) = (next, 0);
            continue;
        }
        // Maybe an empty value: too little tells it by to pass over it.
        let header = reader.header(at)?.filter(|header| header.describes(b""));
        if header
            .is_some_and(|header| !header.previous.is_none() && is_there(files, header.previous))
        {
            found(Appended::Gone(place))?;
        }
        let is_zero = next == at + 1 && reader.bytes(at, 1)? == [0];
        zeros = if is_zero { zeros + 1 } else { 0 };
        if zeros == HEADER {
            found(Appended::Zeros)?;
            zeros = 0;
        }
        at = next;
    }
    Ok(())
}

/// The header of the record at `at`, if one that holds stands there, and where the next one may begin. That an
/// empty value holds, too little tells, unless it `is_live`.
pub(crate) fn record_at(
    reader: &mut Reader,
    files: &[DataFile],
    at: u64,
    is_live: impl Fn() -> bool,
) -> Result<(Option<Header>, u64)> {
    if let Some(header) = reader.header(at)?
        && is_there(files, header.previous)
        && (header.size > 0 || is_live())
        && at + header.record_len() <= reader.len()
    {
        if reader.value_holds(at, &header)? {
            return Ok((Some(header), at + header.record_len()));
        }
        reader.note_in_vain(at + HEADER as u64, header.size.into());
    }
    Ok((None, (at + 1).max(reader.passed_over())))
}

/// Whether a record can have `previous` before it; not to compute the CRC of whatever follows a byte.
fn is_there(files: &[DataFile], previous: Location) -> bool {
    let file = files.binary_search_by_key(&previous.file, |file| file.number);
    previous.is_none() || file.is_ok_and(|index| u64::from(previous.position) < files[index].len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::memory::MemoryStorage;
    use crate::storage::replace;

    /// Each byte may begin a record whose value is what follows, and whose checksum is another one.
    #[test]
    fn what_looks_like_records_everywhere_is_not_read_for_ever() {
        let storage = MemoryStorage::new();
        replace(&storage, "0.db", &[&vec![1; 1_000_000]]).expect("a file");
        let mut reader = Reader::sequential(&storage, "0.db").expect("a reader");
        let files = [DataFile {
            number: 0x0101,
            len: 0x0101_0102,
        }];
        let mut at = 1;
        while at < reader.len() {
            let (record, next) = record_at(&mut reader, &files, at, || false).expect("a look");
            assert!(record.is_none() && next > at);
            at = next;
        }
        let read = reader.in_vain();
        assert!(read > reader.len() && read < 10 * reader.len(), "{read}");
    }
}
