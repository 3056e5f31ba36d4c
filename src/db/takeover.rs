//! Taking over a directory of herolib's.
//!
//! What it left is never changed. Its data files are frozen: versions are found in them through the
//! `base`, the lookup as it was taken over, and through chains; the log begins in a new file.

use crate::base;
use crate::bytes::reserve;
use crate::error::{Error, Result};
use crate::herolib;
use crate::log::segment::{LONGEST_FILE, name};
use crate::lookup::Entry;
use crate::lookup::checkpoint::{self, INDEX};
use crate::manifest::{DataFile, FileKind, KnownDump, Manifest};
use crate::options::{Limits, Options};
use crate::storage::{Access, Storage, remove_if_there};

/// A directory that is being taken over: what its manifest will be, and the lookup to begin with.
pub(super) struct Adoption {
    pub(super) manifest: Manifest,
    pub(super) entries: Vec<(u32, Entry)>,
}

impl Adoption {
    /// Makes it durable: what it builds upon first, then the manifest that names it.
    pub(super) fn write_new(mut self, storage: &dyn Storage) -> Result<Manifest> {
        sync_frozen(storage, &self.manifest)?;
        self.manifest.base = Some(base::write(
            storage,
            self.manifest.generation,
            &self.entries,
        )?);
        // Should the manifest be an old one that was put back, there may be a checkpoint of what
        // is now another generation of that number. The one of the generation before stays until
        // then: the next opening may begin anew, where herolib has zeroed what is in the log.
        if checkpoint::is_there(storage, &self.manifest.uuid, self.manifest.generation)? {
            remove_if_there(storage, INDEX)
                .map_err(|error| Error::from_io("remove", storage.describe(INDEX), error))?;
        }
        self.manifest.write(storage)?;
        Ok(self.manifest)
    }
}

/// Makes durable what others wrote, who may not have done so: a data file that got shorter by a loss of
/// power would be damaged. Its name is with that of the base.
fn sync_frozen(storage: &dyn Storage, manifest: &Manifest) -> Result<()> {
    let frozen = |file: &&DataFile| matches!(file.kind, FileKind::Frozen { .. });
    for file in manifest.files.iter().filter(frozen) {
        let name = name(file.number);
        let failed = |action, error| Error::from_io(action, storage.describe(&name), error);
        let opened = storage.open(&name, Access::Read);
        let file = opened.map_err(|error| failed("open", error))?;
        file.sync().map_err(|error| failed("sync", error))?;
    }
    Ok(())
}

/// Takes over a directory of herolib's.
pub(super) fn adopt(storage: &dyn Storage, options: &Options, dump: bool) -> Result<Adoption> {
    let adopted = if dump {
        let hints = (options.record_nr_max != 0 && options.record_size_max != 0)
            .then_some((options.record_nr_max, options.record_size_max));
        herolib::read_dump(storage, hints)?
    } else {
        herolib::reconstruct(storage, options.salvage)?
    };
    let key_value = adopted.next_id.is_none();
    if options.key_value && !key_value {
        return Err(not_key_value(storage));
    }
    let needed = adopted.record_nr_max;
    if options.record_nr_max != 0 && options.record_nr_max < needed {
        return Err(Error::incompatible(format!(
            "record_nr_max {} is too low for {}, whose ids need {needed}",
            options.record_nr_max,
            storage.describe("")
        )));
    }
    let mut limits = Limits::DEFAULT.with(options);
    limits.record_nr_max = limits.record_nr_max.max(needed);
    let uuid = storage
        .random()
        .map_err(|error| Error::from_io("get random bytes for", storage.describe(""), error))?;
    let mut manifest = Manifest::new(uuid, key_value, options.native, limits);
    manifest.next_id = u64::from(adopted.next_id.unwrap_or(1));
    for file in &adopted.files {
        reserve(&mut manifest.files, 1)?;
        manifest.files.push(DataFile {
            number: file.number,
            kind: FileKind::Frozen { own_until: 0 },
            len: frozen_len(storage, file)?,
        });
    }
    manifest.dump = known_dump(storage)?;
    Ok(Adoption {
        manifest,
        entries: entries_of(adopted)?,
    })
}

pub(super) fn frozen_len(storage: &dyn Storage, file: &herolib::DataFile) -> Result<u32> {
    u32::try_from(file.len).map_err(|_| {
        Error::incompatible(format!(
            "{} has {} bytes, and a data file can have {LONGEST_FILE}",
            storage.describe(&name(file.number)),
            file.len
        ))
    })
}

pub(super) fn entries_of(adopted: herolib::Adopted) -> Result<Vec<(u32, Entry)>> {
    // How long the values are is known only after reading them; the hint is but a hint.
    let mut entries = Vec::new();
    for entry in adopted.entries() {
        let (id, place) = entry?;
        reserve(&mut entries, 1)?;
        entries.push((id, Entry::live(place, 0)));
    }
    Ok(entries)
}

pub(super) fn known_dump(storage: &dyn Storage) -> Result<Option<KnownDump>> {
    let Some(stamp) = herolib::stamp(storage)? else {
        return Ok(None);
    };
    Ok(Some(KnownDump {
        stamp,
        modified_ns: herolib::dump_modified_ns(storage)?,
    }))
}

pub(super) fn not_key_value(storage: &dyn Storage) -> Error {
    Error::incompatible(format!(
        "{} is incremental, and key-value mode was asked for",
        storage.describe("")
    ))
}
