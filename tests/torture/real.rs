//! A sample of all damage on real directories, read through mappings, with the lookup in a file:
//! another way through the engine than the simulated storage takes.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;

use ourdb::storage::os::OsStorage;
use ourdb::{Db, IoMode, Options};

use crate::damage::{Damage, Depth, Expected, Tally, damaged, guarded, judge, judge_salvage};
use crate::report::Campaign;
use crate::scenes::{Image, Scene, image, number, real};
use crate::shapes::proven;
use crate::support::{Context, Random, TempDirectory, Verdict, require};

const SECTOR: usize = 512;

/// Makes a directory be just this. A file that is as it was is not touched.
fn make(path: &Path, image: &Image) {
    let storage = OsStorage::new(path, IoMode::File);
    let there = crate::scenes::image(&storage);
    for name in there.keys().filter(|&name| !image.contains_key(name)) {
        fs::remove_file(path.join(name)).expect("a file is removed");
    }
    for (name, content) in image {
        if there.get(name) != Some(content) {
            let file = path.join(name);
            fs::create_dir_all(file.parent().expect("a directory")).expect("a directory is made");
            fs::write(file, content).expect("a file is written");
        }
    }
}

/// What is done to a file, and what must be there all the same.
fn some_damage(scene: &Scene, random: &mut Random) -> (String, Damage, Expected) {
    let (name, bit) = scene.bit(random.below(scene.bits()));
    let at = bit / 8;
    let mut content = scene.image[name].clone();
    let what = match random.below(10) {
        0..7 => {
            content[at] ^= 1 << (bit % 8);
            format!("{name}, bit {} of byte {at} flipped", bit % 8)
        }
        7 | 8 => {
            content.truncate(at);
            format!("{name} cut off at {at}")
        }
        _ => {
            let sector = at / SECTOR * SECTOR;
            let end = content.len().min(sector + SECTOR);
            content[sector..end].fill(0);
            format!("{name}, sector from {sector} on zeroed")
        }
    };
    let is_data = number(name).is_some();
    let damage = Damage::from([(name.to_owned(), Some(content))]);
    let last = scene.truth.last_commit;
    let expected = Expected {
        at_least: if scene.closed || !is_data {
            last
        } else {
            proven(scene, &damage)
        },
        at_most: last,
        may_refuse: true,
        must_be_named: false,
    };
    (what, damage, expected)
}

/// Opens a damaged directory, for writing, for reading, and for salvage.
fn look(scene: &Scene, path: &Path, seed: u64, tally: &Tally) -> Verdict {
    let mut random = Random::new(seed);
    let (what, damage, expected) = some_damage(scene, &mut random);
    let damaged = damaged(&scene.image, &damage);
    make(path, &damaged);
    let io = [IoMode::Map, IoMode::File][random.below(2) as usize];
    let looked = || {
        let open = |options: Options| Db::open(path, &Options { io, ..options });
        let salvaged = open(Options {
            salvage: true,
            ..Options::default()
        });
        judge_salvage(scene, salvaged, tally).context(|| "with salvage".into())?;
        let read_only = open(Options {
            read_only: true,
            ..Options::default()
        });
        let uncounted = Tally::default();
        judge(
            scene,
            read_only.as_ref(),
            expected,
            Depth::Records,
            &uncounted,
        )
        .context(|| "read-only".into())?;
        // After a crash the table on disk means nothing, and is made anew before the log is read.
        let files = |mut image: Image| {
            image.retain(|name, _| scene.closed || name != "lookup");
            image
        };
        let now = || image(&OsStorage::new(path, IoMode::File));
        let is_changed = || files(now()) != files(damaged.clone());
        require!(!is_changed(), "reading has changed it");
        let opened = open(scene.options.clone());
        let depth = Depth::Everything;
        let commit = judge(scene, opened.as_ref(), expected, depth, tally)?;
        require!(
            commit.is_some() || !is_changed(),
            "refused, but it was changed"
        );
        Ok(())
    };
    guarded(looked).context(|| format!("{}, {io:?}: {what}", scene.name))
}

/// Flips a bit of a data file beneath a database that is open.
fn look_beneath(scene: &Scene, path: &Path, seed: u64, tally: &Tally) -> Verdict {
    let mut random = Random::new(seed);
    let files: Vec<_> = scene
        .image
        .iter()
        .filter(|(name, _)| number(name).is_some())
        .collect();
    let (name, content) = files[random.below(files.len() as u64) as usize];
    let at = random.below(content.len() as u64);
    let flipped = content[at as usize] ^ (1 << random.below(8));
    make(path, &scene.image);
    let options = Options {
        read_only: true,
        ..Options::default()
    };
    let db = Db::open(path, &options).map_err(|error| error.to_string())?;
    let file = fs::OpenOptions::new().write(true).open(path.join(name));
    let written = file.and_then(|file| file.write_all_at(&[flipped], at));
    written.map_err(|error| error.to_string())?;
    let last = scene.truth.last_commit;
    let expected = Expected {
        at_least: last,
        at_most: last,
        may_refuse: true,
        must_be_named: false,
    };
    guarded(|| judge(scene, Ok(&db), expected, Depth::Everything, tally).map(drop))
        .context(|| format!("{}: {name}, byte {at} is now {flipped:#x}", scene.name))
}

fn try_some(name: &'static str, full: u64, case: impl Fn(&Scene, &Path, u64, &Tally) -> Verdict) {
    let scenes = [real(true), real(false)];
    let directory = TempDirectory::new();
    let tallies = [Tally::default(), Tally::default()];
    let campaign = Campaign::begin(name, "damaged directories", 120, full);
    campaign.run(|seed| {
        let index = (seed % 2) as usize;
        case(&scenes[index], directory.path(), seed, &tallies[index])?;
        campaign.count(1);
        Ok(())
    });
    for (scene, tally) in scenes.iter().zip(&tallies) {
        tally.print(scene.name);
    }
    campaign.end();
}

#[test]
fn damage_on_real_directories() {
    try_some("damage_on_real_directories", 1500, look);
}

#[test]
fn damage_beneath_an_open_database() {
    try_some("damage_beneath_an_open_database", 1500, look_beneath);
}
