//! All ways of looking at a damaged database, and the judgement of what they show.
//!
//! A read gives exactly what was written, or says that it met damage. What a crash may have taken
//! is missing from the end: the database is then exactly as of an earlier commit. What is refused
//! is refused as damaged, and left as it is.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ourdb::storage::Storage;
use ourdb::{Db, Error, Options};

use crate::look::Look;
use crate::scenes::{Image, Scene};
use crate::support::model::Bytes;
use crate::support::sim::{Disk, SimStorage};
use crate::support::{Context, Verdict, refute, require};
use crate::truth::Version;

/// Changes to a directory: files and their new contents; `None` removes one.
pub(crate) type Damage = BTreeMap<String, Option<Vec<u8>>>;

/// The directory with the damage done to it.
pub(crate) fn damaged(image: &Image, damage: &Damage) -> Image {
    let mut damaged = image.clone();
    for (name, content) in damage {
        match content {
            Some(content) => drop(damaged.insert(name.clone(), content.clone())),
            None => drop(damaged.remove(name)),
        }
    }
    damaged
}

/// The same on a disk that has the directory.
pub(crate) fn damaged_disk(disk: &Disk, damage: &Damage) -> Disk {
    let one =
        |disk: Disk, (name, content): (&String, &Option<Vec<u8>>)| disk.with(name, content.clone());
    damage.iter().fold(disk.clone(), one)
}

/// What came of it, over all cases.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    refused: AtomicU64,
    reported: AtomicU64,
    named: AtomicU64,
    shortened: AtomicU64,
    harmless: AtomicU64,
    salvaged: AtomicU64,
    not_salvaged: AtomicU64,
    unguarded: AtomicU64,
}

impl Tally {
    /// Prints it in one line.
    pub(crate) fn print(&self, of: &str) {
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        println!(
            "  {of}: {} refused, {} reported by a read, {} by the check alone, \
             {} without the last commits, {} harmless; \
             with salvage {} opened, {} refused; {} beyond herolib's own check, left out",
            get(&self.refused),
            get(&self.reported),
            get(&self.named),
            get(&self.shortened),
            get(&self.harmless),
            get(&self.salvaged),
            get(&self.not_salvaged),
            get(&self.unguarded)
        );
    }
}

/// What an opening must come to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected {
    /// No commit up to this one may be missing.
    pub(crate) at_least: u64,
    /// The last commit made.
    pub(crate) at_most: u64,
    /// Refusing is right as well, and so is saying of a read that it met damage.
    pub(crate) may_refuse: bool,
    /// If it opens, the check must find damage.
    pub(crate) must_be_named: bool,
}

/// How much of what can be asked is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Depth {
    /// All records with their histories, and their order.
    Records,
    /// Each version by number and by time as well, in every way to open, and going on.
    Everything,
}

/// A case that panics has failed like any other.
pub(crate) fn guarded(case: impl FnOnce() -> Verdict) -> Verdict {
    catch_unwind(AssertUnwindSafe(case)).unwrap_or_else(|_| Err("it panicked, see above".into()))
}

fn open(storage: &SimStorage, options: &Options) -> Result<Db, Error> {
    Db::open_on(Arc::new(storage.clone()) as Arc<dyn Storage>, options)
}

/// Looks at a scene with damage in all ways, and counts what came of it.
pub(crate) fn look(
    scene: &Scene,
    disk: &Disk,
    damage: &Damage,
    (expected, depth): (Expected, Depth),
    tally: &Tally,
) -> Verdict {
    if scene.is_beyond_herolibs_check(damage) {
        tally.unguarded.fetch_add(1, Ordering::Relaxed);
        return Ok(());
    }
    let disk = damaged_disk(disk, damage);
    guarded(|| look_at(scene, &disk, expected, depth, tally))
}

/// The same with a disk that has the damage.
fn look_at(scene: &Scene, disk: &Disk, expected: Expected, depth: Depth, tally: &Tally) -> Verdict {
    let storage = SimStorage::new(disk.clone(), true, 5);
    let opened = open(&storage, &scene.options);
    let commit = judge(scene, opened.as_ref(), expected, depth, tally)?;
    if commit.is_none() {
        require!(
            storage.events() == 0,
            "refused, but it was changed:\n{}",
            storage.history().describe(storage.events())
        );
    }
    if depth == Depth::Records {
        return Ok(());
    }
    if let Ok(db) = opened {
        let commit = commit.unwrap_or(0);
        go_on(scene, db, &storage, commit).context(|| "going on".into())?;
    }
    let storage = SimStorage::new(disk.clone(), true, 6);
    let reading = |options: Options| open(&storage, &options);
    let read_only = reading(Options {
        read_only: true,
        ..Options::default()
    });
    let ignored = Tally::default();
    judge(
        scene,
        read_only.as_ref(),
        expected,
        Depth::Records,
        &ignored,
    )
    .context(|| "read-only".into())?;
    let salvage = reading(Options {
        salvage: true,
        ..Options::default()
    });
    judge_salvage(scene, salvage, tally).context(|| "with salvage".into())?;
    require!(
        storage.events() == 0,
        "reading has changed it:\n{}",
        storage.history().describe(storage.events())
    );
    Ok(())
}

/// Judges an opening and what can be read then. The commit that the database stands at, unless it
/// was refused.
pub(crate) fn judge(
    scene: &Scene,
    opened: Result<&Db, &Error>,
    expected: Expected,
    depth: Depth,
    tally: &Tally,
) -> Verdict<Option<u64>> {
    let db = match opened {
        Ok(db) => db,
        Err(Error::Corrupt { .. } | Error::Incompatible(_)) if expected.may_refuse => {
            tally.refused.fetch_add(1, Ordering::Relaxed);
            return Ok(None);
        }
        Err(error) => refute!("opening failed: {error} ({error:?})"),
    };
    let commit = db.last_commit().map_err(|error| error.to_string())?;
    require!(
        (expected.at_least..=expected.at_most).contains(&commit),
        "it opens with commit {commit} as the last one; expected one of {} to {}",
        expected.at_least,
        expected.at_most
    );
    let mut look = Look::new(db, &scene.truth, commit);
    look.records()?;
    if depth == Depth::Everything {
        look.past()?;
    }
    let report = look.check()?;
    let is_sound = report.is_sound();
    require!(expected.may_refuse || is_sound, "the check finds: {report}");
    require!(
        !(expected.must_be_named && is_sound),
        "it opens, and the check finds no damage in it"
    );
    let count = if look.reported > 0 {
        &tally.reported
    } else if !is_sound {
        &tally.named
    } else if commit < scene.truth.last_commit {
        &tally.shortened
    } else {
        &tally.harmless
    };
    count.fetch_add(1, Ordering::Relaxed);
    Ok(Some(commit))
}

/// Writes to a damaged database, closes and opens it: what it says of the old records is as true
/// as before, and the new ones are there.
pub(crate) fn go_on(scene: &Scene, db: Db, storage: &SimStorage, commit: u64) -> Verdict {
    let said = |error: Error| error.to_string();
    let mut truth = scene.truth.as_of_commit(commit);
    for _ in 0..3 {
        match truth.put(&db, None) {
            // A new version needs the one before.
            Ok(()) | Err(Error::Corrupt { .. }) => {}
            Err(error) => refute!("writing: {error}"),
        }
    }
    match db.close() {
        Ok(()) => {}
        Err(Error::Corrupt { .. }) => return Ok(()),
        Err(error) => refute!("closing: {error}"),
    }
    let db = open(storage, &scene.options).map_err(said)?;
    let mut look = Look::new(&db, &truth, truth.last_commit);
    require!(
        db.last_commit().map_err(said)? == truth.last_commit,
        "after closing and opening it the last commit is another one"
    );
    look.records()
}

/// Judges an opening for salvage: whatever it shows was written, under that id and by that commit.
pub(crate) fn judge_salvage(scene: &Scene, opened: Result<Db, Error>, tally: &Tally) -> Verdict {
    let db = match opened {
        Ok(db) => db,
        Err(Error::Corrupt { .. } | Error::Incompatible(_)) => {
            tally.not_salvaged.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        Err(error) => refute!("opening failed: {error}"),
    };
    tally.salvaged.fetch_add(1, Ordering::Relaxed);
    let mut next = db.first();
    let mut walked = 0;
    while let Ok(id) = next {
        require!(
            scene.truth.records.contains_key(&id),
            "id {id} was never in use"
        );
        walked += 1;
        next = db.above(id);
    }
    require!(
        db.count().is_ok_and(|count| count == walked),
        "{walked} ids are found, and the count is {:?}",
        db.count()
    );
    for (&id, versions) in &scene.truth.records {
        salvage_record(&db, id, versions).context(|| format!("id {id}"))?;
    }
    Ok(())
}

fn salvage_record(db: &Db, id: u32, versions: &[Version]) -> Verdict {
    match db.get(id) {
        Ok(found) => require!(
            versions
                .iter()
                .any(|version| version.value.as_ref() == Some(&found)),
            "{:?} was never its value",
            Bytes(found)
        ),
        Err(Error::Corrupt { .. } | Error::NotFound(_)) => {}
        Err(error) => refute!("{error}"),
    }
    match db.history(id, 0) {
        Ok(found) => {
            let mut rest = versions.iter().rev();
            for item in found.iter() {
                require!(
                    rest.any(|version| version.is(&item)),
                    "its history has a version of commit {}, {:?}, that is not there",
                    item.commit,
                    Bytes(item.value.to_vec())
                );
            }
        }
        Err(Error::Corrupt { .. } | Error::NotFound(_)) => {}
        Err(error) => refute!("{error}"),
    }
    for version in versions.iter().filter(|version| version.commit > 0) {
        match db.get_version(id, version.commit) {
            Ok(found) => require!(
                versions
                    .iter()
                    .take_while(|older| older.commit <= version.commit)
                    .any(|older| older.value.as_ref() == Some(&found)),
                "at commit {} it never had the value {:?}",
                version.commit,
                Bytes(found)
            ),
            Err(Error::Corrupt { .. } | Error::NotFound(_)) => {}
            Err(error) => refute!("{error}"),
        }
    }
    Ok(())
}
