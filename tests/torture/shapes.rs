//! Files cut off at every length, sectors and whole files missing, stale, doubled, swapped, and
//! somebody else's.
//!
//! Of a database that was closed something outside of each file says what belongs there: all is
//! there, or it is refused. Of one whose process died the sync marks say it, and they can be lost
//! with what they prove: then what opens is an exact prefix that has all that is still proven.

use crate::damage::{Damage, Depth, Expected, Tally, damaged, look};
use crate::report::Campaign;
use crate::scenes::{
    Image, RECORD_HEADER, Scene, closed, data_file, disk, killed, killed_synced, killed_unmarked,
    log, number, taken_over,
};
use crate::support::{Context, Random, torture};

const SECTOR: usize = 512;
/// In the short form so many cases of each scene.
const SHORT: u64 = 4000;

/// One way to damage a directory.
#[derive(Clone, Debug)]
enum Shape {
    /// A file ends here.
    Cut(String, usize),
    Zeroed(Sector),
    /// As it was at an earlier moment.
    Stale(Sector, usize),
    /// The second one has what the first one has.
    Doubled(Sector, Sector),
    Swapped(Sector, Sector),
    Missing(String),
    /// A file as it was at an earlier moment.
    Old(String, usize),
    Exchanged(String, String),
    /// The file of that name of another database: see [`Stage::others`].
    Foreign(String, usize),
}

/// A sector of a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Sector(String, usize);

impl Sector {
    /// The sector's bytes; empty behind the end of the file, or where there is none.
    fn of<'a>(&self, image: &'a Image) -> &'a [u8] {
        let content = image.get(&self.0).map_or(&[][..], Vec::as_slice);
        let begin = (self.1 * SECTOR).min(content.len());
        &content[begin..content.len().min(begin + SECTOR)]
    }

    /// Puts bytes in its place. The file keeps its length; what is missing is zeros.
    fn put(&self, image: &mut Image, bytes: &[u8]) {
        let content = image.get_mut(&self.0).expect("a file of the directory");
        for (at, byte) in content
            .iter_mut()
            .skip(self.1 * SECTOR)
            .take(SECTOR)
            .enumerate()
        {
            *byte = bytes.get(at).copied().unwrap_or(0);
        }
    }
}

/// A scene, and the other databases that files come from.
struct Stage {
    scene: Scene,
    /// Another database; an empty one.
    others: Vec<Image>,
}

impl Stage {
    /// The directory with the damage, if that changes anything.
    fn damage(&self, shape: &Shape) -> Option<Damage> {
        let scene = &self.scene;
        let mut image = scene.image.clone();
        let from_other = |image: &mut Image, name: &String, other: &Image| {
            if let Some(content) = other.get(name) {
                image.insert(name.clone(), content.clone());
            }
        };
        match shape {
            Shape::Cut(name, len) => image.get_mut(name)?.truncate(*len),
            Shape::Zeroed(sector) => sector.put(&mut image, &[]),
            Shape::Stale(sector, moment) => {
                let earlier = &scene.earlier[*moment].0;
                sector.put(&mut image, sector.of(earlier));
            }
            Shape::Doubled(from, to) => to.put(&mut image, from.of(&scene.image)),
            Shape::Swapped(one, other) => {
                other.put(&mut image, one.of(&scene.image));
                one.put(&mut image, other.of(&scene.image));
            }
            Shape::Missing(name) => drop(image.remove(name)),
            Shape::Old(name, moment) => {
                from_other(&mut image, name, &scene.earlier[*moment].0);
            }
            Shape::Exchanged(one, other) => {
                image.insert(one.clone(), scene.image[other].clone());
                image.insert(other.clone(), scene.image[one].clone());
            }
            Shape::Foreign(name, other) => from_other(&mut image, name, &self.others[*other]),
        }
        let names = scene
            .image
            .keys()
            .filter(|&name| scene.image.get(name) != image.get(name));
        let damage: Damage = names
            .map(|name| (name.clone(), image.get(name).cloned()))
            .collect();
        (!damage.is_empty()).then_some(damage)
    }

    /// Everything that can be done to single files and pairs of them.
    fn files(&self) -> Vec<Shape> {
        let names: Vec<&String> = self.scene.image.keys().collect();
        let mut shapes = Vec::new();
        for (index, &name) in names.iter().enumerate() {
            shapes.push(Shape::Missing(name.clone()));
            let moments = 0..self.scene.earlier.len();
            shapes.extend(moments.map(|moment| Shape::Old(name.clone(), moment)));
            let others = 0..self.others.len();
            shapes.extend(others.map(|other| Shape::Foreign(name.clone(), other)));
            let exchanged = names[index + 1..].iter();
            shapes.extend(exchanged.map(|&other| Shape::Exchanged(name.clone(), other.clone())));
        }
        shapes
    }

    /// Everything that can be done to single sectors and pairs of them.
    fn sectors(&self) -> Vec<Shape> {
        let image = &self.scene.image;
        let sectors = |(name, content): (&String, &Vec<u8>)| {
            let name = name.clone();
            (0..content.len().div_ceil(SECTOR)).map(move |number| Sector(name.clone(), number))
        };
        let sectors: Vec<Sector> = image.iter().flat_map(sectors).collect();
        let mut shapes = Vec::new();
        for (index, sector) in sectors.iter().enumerate() {
            shapes.push(Shape::Zeroed(sector.clone()));
            let moments = 0..self.scene.earlier.len();
            shapes.extend(moments.map(|moment| Shape::Stale(sector.clone(), moment)));
            for other in &sectors[index + 1..] {
                shapes.push(Shape::Swapped(sector.clone(), other.clone()));
                if sector.0 == other.0 && other.1 == sector.1 + 1 {
                    shapes.push(Shape::Doubled(sector.clone(), other.clone()));
                    shapes.push(Shape::Doubled(other.clone(), sector.clone()));
                }
            }
        }
        shapes
    }

    /// Every file cut off at every length.
    fn cuts(&self) -> Vec<Shape> {
        let files = self.scene.image.iter();
        files
            .flat_map(|(name, content)| (0..content.len()).map(|len| Shape::Cut(name.clone(), len)))
            .collect()
    }

    /// What must be there all the same.
    fn expected(&self, damage: &Damage) -> Expected {
        let scene = &self.scene;
        let log_is_whole = !damage.keys().any(|name| number(name).is_some());
        Expected {
            at_least: if scene.closed || log_is_whole {
                scene.truth.last_commit
            } else {
                proven(scene, damage)
            },
            at_most: scene.truth.last_commit,
            may_refuse: !damage.keys().all(|name| Scene::is_derived(name)),
            must_be_named: false,
        }
    }
}

/// The last commit that was on disk for all that still says so: the sync marks that are left, and
/// the last clean close.
pub(crate) fn proven(scene: &Scene, damage: &Damage) -> u64 {
    let image = damaged(&scene.image, damage);
    let is_left = |file: u16, at: usize| {
        let name = data_file(file);
        let mark = at..at + RECORD_HEADER;
        let left = image
            .get(&name)
            .and_then(|content| content.get(mark.clone()));
        left == Some(&scene.image[&name][mark])
    };
    let marks = log(&scene.image).into_iter().filter(|entry| entry.mark);
    let marks = marks.filter(|mark| is_left(mark.file, mark.at));
    let by_marks = marks.map(|mark| mark.commit).max();
    by_marks.unwrap_or(0).max(scene.closed_with)
}

/// A case for each of the shapes that changes anything; in the short form for some of them.
fn try_all(name: &'static str, stages: &[Stage], shapes: impl Fn(&Stage) -> Vec<Shape>) {
    let mut cases: Vec<(&Stage, Shape)> = Vec::new();
    for stage in stages {
        cases.extend(shapes(stage).into_iter().map(|shape| (stage, shape)));
    }
    if !torture() {
        shorten(&mut cases);
    }
    let disks: Vec<_> = stages
        .iter()
        .map(|stage| disk(&stage.scene.image))
        .collect();
    let tallies: Vec<Tally> = stages.iter().map(|_| Tally::default()).collect();
    let count = cases.len() as u64;
    let campaign = Campaign::begin(name, "shapes", count, count);
    campaign.run(|seed| {
        let (stage, shape) = &cases[seed as usize];
        let index = stages.iter().position(|other| std::ptr::eq(other, *stage));
        let index = index.expect("a stage of these");
        if let Some(damage) = stage.damage(shape) {
            let depth = if seed % 8 == 0 {
                Depth::Everything
            } else {
                Depth::Records
            };
            let expected = stage.expected(&damage);
            let (disk, tally) = (&disks[index], &tallies[index]);
            look(&stage.scene, disk, &damage, (expected, depth), tally)
                .context(|| format!("{}: {shape:?}", stage.scene.name))?;
        }
        campaign.count(1);
        Ok(())
    });
    for (stage, tally) in stages.iter().zip(&tallies) {
        tally.print(stage.scene.name);
    }
    campaign.end();
}

/// Leaves a choice of the cases, always the same one.
fn shorten<T>(cases: &mut Vec<T>) {
    let mut random = Random::new(3);
    let percent = (SHORT * 100 / cases.len() as u64).max(1);
    cases.retain(|_| random.chance(percent));
}

fn stages() -> Vec<Stage> {
    let mut stages = Vec::new();
    for make in [
        closed,
        killed,
        killed_synced,
        killed_unmarked,
        |seed| taken_over(seed, true),
        |seed| taken_over(seed, false),
    ] {
        let (scene, other) = (make(1), make(100));
        let mut others = vec![other.image];
        others.extend(other.earlier.into_iter().map(|(image, _)| image));
        stages.push(Stage { scene, others });
    }
    stages
}

#[test]
fn every_length_of_every_file() {
    try_all("every_length_of_every_file", &stages(), Stage::cuts);
}

#[test]
fn every_sector_zeroed_stale_doubled_and_swapped() {
    try_all(
        "every_sector_zeroed_stale_doubled_and_swapped",
        &stages(),
        Stage::sectors,
    );
}

#[test]
fn every_file_missing_old_swapped_and_foreign() {
    try_all(
        "every_file_missing_old_swapped_and_foreign",
        &stages(),
        Stage::files,
    );
}

/// A directory as it was at an earlier moment, all of it, is as good as it was then.
#[test]
fn every_directory_as_it_was_earlier() {
    let stages = stages();
    let moments = stages.iter().flat_map(|stage| &stage.scene.earlier);
    let moments = moments.filter(|(_, commit)| commit.is_some()).count();
    let campaign = Campaign::begin(
        "every_directory_as_it_was_earlier",
        "directories",
        moments as u64,
        moments as u64,
    );
    for Stage { scene, .. } in &stages {
        for (image, commit) in &scene.earlier {
            let Some(commit) = *commit else {
                continue;
            };
            let expected = Expected {
                at_least: commit,
                at_most: commit,
                may_refuse: false,
                must_be_named: false,
            };
            let (damage, tally) = (Damage::new(), Tally::default());
            let asked = (expected, Depth::Everything);
            look(scene, &disk(image), &damage, asked, &tally)
                .context(|| format!("{}, as of commit {commit}", scene.name))
                .unwrap_or_else(|message| panic!("{message}"));
            campaign.count(1);
        }
    }
    campaign.end();
}
