//! Readers that follow a writer, whatever that does: after a refresh each sees what the model says,
//! and until the next one it goes on seeing that.

use std::ops::ControlFlow;
use std::sync::Arc;

use ourdb::storage::Storage;
use ourdb::storage::memory::MemoryStorage;
use ourdb::storage::os::OsStorage;
use ourdb::{Db, IoMode, LookupKind, Options, Sync};

use crate::report::Campaign;
use crate::support::model::Model;
use crate::support::{Context, Random, TempDirectory, Verdict, require};
use crate::workload::{any_retention, any_write};

const STEPS: u64 = 60;
/// So many readers at once, at most.
const READERS: usize = 4;

/// A directory that a writer and its readers have open.
struct Place {
    storage: Arc<dyn Storage>,
    is_on_disk: bool,
    /// What is read stays readable when a compaction has removed its file.
    is_mapped: bool,
    _directory: Option<TempDirectory>,
}

impl Place {
    fn new(random: &mut Random) -> Place {
        if random.chance(60) {
            return Place {
                storage: Arc::new(MemoryStorage::new()),
                is_on_disk: false,
                is_mapped: true,
                _directory: None,
            };
        }
        let directory = TempDirectory::new();
        let is_mapped = random.chance(50);
        let io = if is_mapped { IoMode::Map } else { IoMode::File };
        Place {
            storage: Arc::new(OsStorage::new(directory.path().join("db"), io)),
            is_on_disk: true,
            is_mapped,
            _directory: Some(directory),
        }
    }

    fn open(&self, options: &Options) -> Verdict<Db> {
        let opened = Db::open_on(Arc::clone(&self.storage), options);
        opened.map_err(|error| format!("{options:?}: {error}"))
    }
}

/// A reader, and the model as of its last refresh.
struct Reader {
    db: Db,
    seen: Model,
}

impl Reader {
    fn refresh(&mut self, model: &Model) -> Verdict {
        let refreshed = self.db.refresh();
        refreshed.map_err(|error| format!("a refresh: {error}"))?;
        self.seen = model.clone();
        self.check().context(|| "after a refresh".into())
    }

    fn check(&self) -> Verdict {
        self.seen.check_all(&self.db)
    }
}

/// Options of a writer, another each time.
fn any_options(random: &mut Random, key_value: bool, is_on_disk: bool) -> Options {
    Options {
        key_value,
        native: random.chance(50),
        file_size: 150 + random.below(3000) as u32,
        lookup: match is_on_disk && random.chance(50) {
            true => LookupKind::Disk,
            false => LookupKind::Memory,
        },
        sync: match random.chance(30) {
            true => Sync::Commit,
            false => Sync::Os,
        },
        ..Options::default()
    }
}

/// A writer's life; how often a reader was compared with the model.
fn live(seed: u64) -> Verdict<u64> {
    let mut random = Random::new(seed);
    let place = Place::new(&mut random);
    let key_value = random.chance(50);
    let mut limit = 100;
    let any = |random: &mut Random, record_nr_max| Options {
        record_nr_max,
        ..any_options(random, key_value, place.is_on_disk)
    };
    let mut db = place.open(&any(&mut random, limit))?;
    let mut model = Model::new(key_value, limit, 0);
    let mut readers: Vec<Reader> = Vec::new();
    let mut looks = 0;
    let mut compacted_at = 0;
    for step in 0..STEPS {
        let at = || format!("step {step}");
        match random.below(30) {
            0 | 1 => {
                let retention = any_retention(&mut random);
                let done = db.compact(&retention, |_, _| ControlFlow::Continue(()));
                done.map_err(|error| format!("step {step}, a compaction: {error}"))?;
                model.compact(&retention);
                model.learn_oldest(&db).context(at)?;
                compacted_at = step;
            }
            2 => db.sync().map_err(|error| format!("a sync: {error}"))?,
            3..=5 => {
                // Closed or killed, and readers may look in between.
                match random.chance(50) {
                    true => db.close().map_err(|error| format!("a close: {error}"))?,
                    false => drop(db),
                }
                for reader in readers.iter_mut().filter(|_| random.chance(30)) {
                    reader.refresh(&model).context(at)?;
                    looks += 1;
                }
                if random.chance(30) {
                    limit += 50;
                    model.record_nr_max = limit;
                }
                db = place.open(&any(&mut random, limit))?;
            }
            6..=8 => {
                let options = Options {
                    read_only: true,
                    ..Options::default()
                };
                if readers.len() == READERS {
                    readers.remove(random.below(READERS as u64) as usize);
                }
                let reader = Reader {
                    db: place.open(&options)?,
                    seen: model.clone(),
                };
                reader.check().context(at)?;
                readers.push(reader);
            }
            _ => {
                let write = any_write(&mut random, key_value);
                model.perform(&db, &write).context(at)?;
            }
        }
        for reader in &mut readers {
            let last = reader.seen.last_commit();
            if random.chance(40) {
                reader.refresh(&model).context(at)?;
                if random.chance(20) {
                    let report = reader.db.check(|_, _| ControlFlow::Continue(()));
                    let report =
                        report.map_err(|error| format!("step {step}, a check: {error}"))?;
                    require!(report.is_sound(), "step {step}: {report}");
                }
            } else if !model.has_erased_since(last) && (place.is_mapped || compacted_at == 0) {
                reader.check().context(|| format!("step {step}, behind"))?;
            } else {
                continue;
            }
            looks += 1;
        }
    }
    Ok(looks)
}

#[test]
fn readers_that_follow() {
    let campaign = Campaign::begin("readers_that_follow", "looks", 3_000, 300_000);
    campaign.run(|seed| {
        campaign.count(live(seed)?);
        Ok(())
    });
    campaign.end();
}
