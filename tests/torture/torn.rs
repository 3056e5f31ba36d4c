//! Torn tails as a crash leaves them: of what was written since the last sync, any part is missing,
//! and what is missing is zeros, or the file ends before it, or the whole file isn't there.
//!
//! All must be accepted, with exactly the commits before the first byte that is missing; and what is
//! cut off must be kept aside, byte by byte.

use std::sync::Arc;

use ourdb::Db;
use ourdb::storage::Storage;

use crate::damage::{Damage, Depth, Expected, Tally, damaged, damaged_disk, go_on, guarded, judge};
use crate::report::Campaign;
use crate::scenes::{
    Entry, FILE_HEADER, Image, Scene, data_file, disk, image, killed, killed_synced, log, number,
    taken_over,
};
use crate::support::sim::{Disk, SimStorage};
use crate::support::{Context, Random, Verdict, require, torture};

const SECTOR: usize = 512;
const PAGE: usize = 4096;
/// Of so many sectors at the end every subset is lost.
const LAST_SECTORS: usize = 10;
/// Of the pages that are not synced every subset is lost, if there are not more.
const MOST_PAGES: usize = 13;

/// A part of what was not synced.
#[derive(Clone, Debug)]
struct Part {
    file: u16,
    from: usize,
    to: usize,
}

/// A database whose process died, and the end of it that no sync covers.
struct Tail {
    scene: Scene,
    disk: Disk,
    log: Vec<Entry>,
    /// Of each data file that isn't wholly synced what is not, up to its last record, in order.
    parts: Vec<Part>,
}

/// What became of a part of the tail, or of more than one.
#[derive(Clone, Debug)]
enum Tear {
    /// The file ends here.
    Cut(u16, usize),
    /// Zeros from here to the end of the file.
    Zeroed(u16, usize),
    /// Pages or sectors that are zeros; bit by bit which ones. A part that begins with its file is
    /// one more: the file itself.
    Lost { unit: usize, which: u64 },
    /// A file and all after it were never there, the others whole.
    Without(u16),
}

impl Tail {
    fn new(scene: Scene) -> Tail {
        let log = log(&scene.image);
        // A mark is written after the sync that it speaks of: it is the first that isn't covered.
        let mark = log.iter().rposition(|entry| entry.mark).expect("a sync");
        let first = (log[mark].file, log[mark].at);
        let last = log.last().expect("records").file;
        let mut parts = Vec::new();
        for file in first.0..=last {
            let end = log.iter().rev().find(|entry| entry.file == file);
            let end = end.expect("no data file is empty").end;
            let from = if file == first.0 { first.1 } else { 0 };
            parts.push(Part {
                file,
                from,
                to: end,
            });
        }
        let disk = disk(&scene.image);
        Tail {
            scene,
            disk,
            log,
            parts,
        }
    }

    /// The parts in pieces of `unit` bytes, as they lie in their files, and the files that may not
    /// be there at all, as pieces of no length; the last ones first.
    fn pieces(&self, unit: usize) -> Vec<Part> {
        let mut pieces = Vec::new();
        for part in &self.parts {
            if part.from == 0 {
                pieces.push(Part {
                    to: 0,
                    ..part.clone()
                });
            }
            for number in part.from / unit..part.to.div_ceil(unit) {
                pieces.push(Part {
                    file: part.file,
                    from: part.from.max(number * unit),
                    to: part.to.min((number + 1) * unit),
                });
            }
        }
        pieces.reverse();
        pieces
    }

    fn tears(&self) -> Vec<Tear> {
        let mut tears = Vec::new();
        for part in &self.parts {
            tears.extend((part.from..part.to).map(|at| Tear::Cut(part.file, at)));
            tears.extend((part.from..part.to).map(|at| Tear::Zeroed(part.file, at)));
            if part.from == 0 {
                tears.push(Tear::Without(part.file));
            }
        }
        for (unit, most) in [(PAGE, MOST_PAGES), (SECTOR, LAST_SECTORS)] {
            let count = self.pieces(unit).len().min(most);
            tears.extend((1..1u64 << count).map(|which| Tear::Lost { unit, which }));
        }
        // Of more pages than that some subsets.
        let (pieces, mut random) = (self.pieces(PAGE).len(), Random::new(1));
        if pieces > MOST_PAGES {
            tears.extend((0..4000).map(|_| Tear::Lost {
                unit: PAGE,
                which: random.next() & random.next() & ((1 << pieces) - 1),
            }));
        }
        tears
    }

    fn tear(&self, tear: &Tear) -> Damage {
        let mut image = self.scene.image.clone();
        let file = |number: u16| data_file(number);
        let content = "a data file of the tail";
        match tear {
            Tear::Cut(number, at) => image.get_mut(&file(*number)).expect(content).truncate(*at),
            Tear::Zeroed(number, at) => {
                image.get_mut(&file(*number)).expect(content)[*at..].fill(0);
            }
            Tear::Lost { unit, which } => {
                let pieces = self.pieces(*unit).into_iter().enumerate();
                // A file that isn't there is the last that is done to it.
                for (_, part) in pieces.filter(|(index, _)| which >> index & 1 == 1) {
                    let name = file(part.file);
                    if part.to == 0 {
                        image.remove(&name);
                    } else if let Some(content) = image.get_mut(&name) {
                        content[part.from..part.to].fill(0);
                    }
                }
            }
            Tear::Without(first) => {
                image.retain(|name, _| number(name).is_none_or(|number| number < *first));
            }
        }
        let changed = self.scene.image.iter();
        changed
            .filter(|&(name, content)| image.get(name) != Some(content))
            .map(|(name, _)| (name.clone(), image.get(name).cloned()))
            .collect()
    }

    /// Where the first byte of the log is missing: data file and position.
    fn first_missing(&self, torn: &Image) -> Option<(u16, usize)> {
        self.parts.iter().find_map(|part| {
            let name = data_file(part.file);
            let whole = &self.scene.image[&name][..part.to];
            let left = torn.get(&name).map_or(&[][..], Vec::as_slice);
            let same = whole.iter().zip(left).take_while(|(a, b)| a == b).count();
            (same < whole.len()).then_some((part.file, same))
        })
    }

    /// What is whole before the first missing byte: the last commit, and where the log ends.
    fn whole(&self, missing: Option<(u16, usize)>) -> (u64, (u16, usize)) {
        let mut commit = 0;
        let mut end = (0, 0);
        let whole = |entry: &&Entry| missing.is_none_or(|first| (entry.file, entry.end) <= first);
        for entry in self.log.iter().take_while(whole).filter(|entry| entry.last) {
            commit = commit.max(entry.commit);
            end = (entry.file, entry.end);
        }
        // A data file whose header is whole is a part of the log, should nothing be in it.
        if let Some((file, at)) = missing
            && file > end.0
            && at >= FILE_HEADER
        {
            end = (file, FILE_HEADER);
        }
        (commit, end)
    }

    fn check(&self, tear: &Tear, thorough: bool, tally: &Tally) -> Verdict {
        let damage = self.tear(tear);
        let torn = damaged(&self.scene.image, &damage);
        let (commit, end) = self.whole(self.first_missing(&torn));
        let storage = SimStorage::new(damaged_disk(&self.disk, &damage), true, 5);
        let opened = Db::open_on(
            Arc::new(storage.clone()) as Arc<dyn Storage>,
            &self.scene.options,
        );
        let expected = Expected {
            at_least: commit,
            at_most: commit,
            may_refuse: false,
            must_be_named: false,
        };
        let depth = if thorough {
            Depth::Everything
        } else {
            Depth::Records
        };
        judge(&self.scene, opened.as_ref(), expected, depth, tally)?;
        check_kept(&torn, &image(&storage), end)?;
        if let Ok(db) = opened
            && thorough
        {
            go_on(&self.scene, db, &storage, commit).context(|| "going on".into())?;
        }
        Ok(())
    }
}

/// Everything behind the end of the log that isn't zeros must be kept: at the end of its own file
/// in a `torn-N-P`, a whole file as `torn-N`, or where it was.
fn check_kept(torn: &Image, after: &Image, (file, end): (u16, usize)) -> Verdict {
    let without_zeros = |bytes: &[u8]| {
        let len = bytes.iter().rposition(|&byte| byte != 0);
        bytes[..len.map_or(0, |last| last + 1)].to_vec()
    };
    for (name, content) in torn {
        let Some(number) = number(name).filter(|&number| number >= file) else {
            continue;
        };
        let (aside, cut) = if number == file {
            let cut = without_zeros(content.get(end..).unwrap_or_default());
            (format!("torn-{number}-{end}"), cut)
        } else {
            (format!("torn-{number}"), content.clone())
        };
        let is_zeros = cut.iter().all(|&byte| byte == 0);
        let kept = after.get(&aside);
        let left = number != file && after.get(name) == Some(content);
        require!(
            kept == Some(&cut) || (is_zeros && kept.is_none()) || left,
            "of {name} {} bytes are cut off from {} on; in {aside} are {:?}",
            cut.len(),
            if number == file { end } else { 0 },
            kept.map(Vec::len)
        );
        let own = after.get(name).map_or(0, Vec::len);
        require!(
            number != file || own == end,
            "{name} should be cut at {end}, and has {own} bytes"
        );
    }
    Ok(())
}

fn tear_all(name: &'static str, tail: &Tail) {
    let tears = tail.tears();
    // In the short form one of so many.
    let stride = if torture() { 1 } else { tears.len() / 3000 + 1 };
    let count = (tears.len() / stride) as u64;
    let tally = Tally::default();
    let campaign = Campaign::begin(name, "torn tails", count, count);
    campaign.run(|seed| {
        let tear = &tears[seed as usize * stride];
        guarded(|| tail.check(tear, seed % 8 == 0, &tally))
            .context(|| format!("{}: {tear:?}", tail.scene.name))?;
        campaign.count(1);
        Ok(())
    });
    tally.print(tail.scene.name);
    campaign.end();
}

#[test]
fn every_torn_tail_in_several_data_files() {
    tear_all(
        "every_torn_tail_in_several_data_files",
        &Tail::new(killed(1)),
    );
}

#[test]
fn every_torn_tail_where_each_commit_is_synced() {
    tear_all(
        "every_torn_tail_where_each_commit_is_synced",
        &Tail::new(killed_synced(1)),
    );
}

#[test]
fn every_torn_tail_after_a_takeover() {
    tear_all(
        "every_torn_tail_after_a_takeover",
        &Tail::new(taken_over(1, false)),
    );
}
