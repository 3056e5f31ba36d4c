//! Which of the things that were not synced get through a loss of power: one way, chosen by a rule
//! and a seed, or all ways, one after the other.

use super::disk::Disk;
use super::inode::{SECTOR, Survivor, Torn};
use crate::support::Random;

/// All subsets of so many things are looked at; of more of them some.
const FEW: usize = 12;
/// So many ways at most are made out of the ways of the data times those of the names.
const MOST_WAYS: usize = 8192;
/// Of more things than [`FEW`], so many random subsets.
const RANDOM_SUBSETS: usize = 256;

/// How much of what was not synced gets through a power loss. Percentages: 0 none, 100 all.
#[derive(Clone, Debug)]
pub struct Loss {
    /// Sectors and lengths that get through.
    data: u64,
    /// Of those, torn ones.
    torn: u64,
    /// Changes of names that get through.
    names: u64,
    /// One of those, or one of the sectors, that does not.
    left_out: Option<LeftOut>,
    seed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LeftOut {
    Name,
    Sector,
}

impl Loss {
    /// Nothing that was not synced gets through.
    pub const OF_EVERYTHING: Loss = Loss {
        data: 0,
        torn: 0,
        names: 0,
        left_out: None,
        seed: 0,
    };

    /// Everything gets through.
    pub const OF_NOTHING: Loss = Loss {
        data: 100,
        names: 100,
        ..Loss::OF_EVERYTHING
    };

    /// The `number`th way to lose: first the four pure ones, then all but one name or one sector,
    /// then mixtures made from the seed.
    pub fn case(number: u64, seed: u64) -> Loss {
        let mut random = Random::new(seed);
        let pure = |data, names| Loss {
            data,
            torn: 0,
            names,
            left_out: None,
            seed,
        };
        match number {
            0 => Loss::OF_EVERYTHING,
            1 => pure(100, 100),
            2 => pure(100, 0),
            3 => pure(0, 100),
            4 => Loss {
                left_out: Some(LeftOut::Name),
                ..pure(100, 100)
            },
            5 => Loss {
                left_out: Some(LeftOut::Sector),
                ..pure(100, 100)
            },
            _ => Loss {
                data: [5, 50, 50, 95][random.below(4) as usize],
                torn: [0, 25][random.below(2) as usize],
                names: [0, 50, 90, 100][random.below(4) as usize],
                left_out: None,
                seed,
            },
        }
    }

    /// Any of the ways to lose.
    pub fn any(random: &mut Random) -> Loss {
        Loss::case(random.below(12), random.next())
    }

    /// Which of `count` states, oldest first, is the one that got through.
    fn pick(&self, percent: u64, count: usize, random: &mut Random) -> usize {
        match percent {
            0 => 0,
            100 => count - 1,
            _ if count > 1 && random.chance(percent) => 1 + random.below(count as u64 - 1) as usize,
            _ => 0,
        }
    }
}

/// What gets through a loss of power.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Of each dirty sector, file by file.
    pub(super) sectors: Vec<Survivor>,
    /// Of each file that was not synced, its length: 0 is the last synced, then each since.
    pub(super) lengths: Vec<usize>,
    /// Whether each change of names gets through.
    pub(super) names: Vec<bool>,
}

/// A file that a loss of power would change.
#[derive(Debug)]
pub(super) struct UnsyncedFile {
    pub(super) inode: usize,
    /// How many states each dirty sector had since it was synced.
    pub(super) sectors: Vec<usize>,
    /// How many lengths.
    lengths: usize,
    moments: Vec<(Vec<usize>, usize)>,
    /// Where each dirty sector differs from what was synced.
    differs: Vec<Option<(usize, usize)>>,
}

/// Everything on a disk that a loss of power may take.
#[derive(Debug)]
pub struct Unsynced {
    pub(super) files: Vec<UnsyncedFile>,
    names: usize,
}

impl Unsynced {
    pub fn of(disk: &Disk) -> Unsynced {
        let files = disk.unsynced_inodes().into_iter().map(|number| {
            let inode = &disk.inodes[number];
            let sectors: Vec<usize> = inode.dirty_sectors().collect();
            UnsyncedFile {
                inode: number,
                lengths: inode.new_lengths(),
                moments: inode.moments(),
                differs: (0..sectors.len())
                    .map(|sector| inode.differs(sector))
                    .collect(),
                sectors,
            }
        });
        Unsynced {
            files: files.collect(),
            names: disk.unsynced_names(),
        }
    }

    /// How many states each dirty sector had since it was synced, file by file.
    fn sectors(&self) -> impl Iterator<Item = usize> + '_ {
        self.files
            .iter()
            .flat_map(|file| file.sectors.iter().copied())
    }

    /// Whether there are few ways to lose something of it.
    pub fn is_small(&self) -> bool {
        let lengths: usize = self.files.iter().map(|file| file.lengths).sum();
        self.sectors().count() + lengths + self.names <= 5
    }

    /// What a loss leaves of it.
    pub(super) fn choose(&self, loss: &Loss) -> Kept {
        let mut random = Random::new(loss.seed);
        // Half of the time the way of a journal: all up to some change, and none after it.
        let journal = (1..100).contains(&loss.names) && random.chance(50);
        let kept = loss.pick(50, self.names + 1, &mut random);
        let left_out = random.below(self.names.max(1) as u64) as usize;
        let left_out = (loss.left_out == Some(LeftOut::Name)).then_some(left_out);
        let names = (0..self.names).map(|number| {
            let through = if journal {
                number < kept
            } else {
                random.chance(loss.names)
            };
            through && left_out != Some(number)
        });
        let names = names.collect();
        let lengths = self.files.iter();
        let lengths = lengths
            .map(|file| loss.pick(loss.data, file.lengths + 1, &mut random))
            .collect();
        let left_out = random.below(self.sectors().count().max(1) as u64) as usize;
        let left_out = (loss.left_out == Some(LeftOut::Sector)).then_some(left_out);
        let sectors = self.sectors().enumerate().map(|(number, states)| {
            if left_out == Some(number) {
                return Survivor::default();
            }
            let state = loss.pick(loss.data, states + 1, &mut random);
            let torn = (state > 0 && random.chance(loss.torn)).then(|| Torn {
                at: random.below(SECTOR as u64) as usize,
                older: random.below(state as u64) as usize,
                backwards: random.chance(25),
            });
            Survivor { state, torn }
        });
        Kept {
            sectors: sectors.collect(),
            lengths,
            names,
        }
    }

    /// All ways to lose something of it: all subsets of the sectors, of the lengths and of the
    /// names, where there are few; each state of a file that it had in between; torn sectors.
    pub fn ways(&self, seed: u64) -> Vec<Kept> {
        let mut random = Random::new(seed);
        let data = self.ways_of_data(&mut random);
        let names = subsets(self.names, &mut random);
        let way = |data: &Data, names: &Vec<bool>| Kept {
            sectors: data.sectors.clone(),
            lengths: data.lengths.clone(),
            names: names.clone(),
        };
        let mut ways = Vec::new();
        if data.len() * names.len() <= MOST_WAYS {
            for data in &data {
                ways.extend(names.iter().map(|names| way(data, names)));
            }
            return ways;
        }
        let (all, none) = (vec![true; self.names], vec![false; self.names]);
        for data in &data {
            ways.extend([way(data, &all), way(data, &none)]);
        }
        let any = |random: &mut Random| &data[random.below(data.len() as u64) as usize];
        for names in &names {
            ways.extend([way(&self.newest(), names), way(&self.oldest(), names)]);
            ways.extend((0..4).map(|_| way(any(&mut random), names)));
        }
        ways
    }

    fn newest(&self) -> Data {
        self.subset(&vec![true; self.sectors().count()])
    }

    fn oldest(&self) -> Data {
        Data {
            sectors: vec![Survivor::default(); self.sectors().count()],
            lengths: vec![0; self.files.len()],
        }
    }

    /// The newest states of some sectors, the synced ones of the others, and the newest lengths.
    fn subset(&self, through: &[bool]) -> Data {
        let sectors = self
            .sectors()
            .zip(through)
            .map(|(states, &through)| Survivor {
                state: if through { states } else { 0 },
                torn: None,
            });
        Data {
            sectors: sectors.collect(),
            lengths: self.files.iter().map(|file| file.lengths).collect(),
        }
    }

    fn ways_of_data(&self, random: &mut Random) -> Vec<Data> {
        let subsets = subsets(self.sectors().count(), random);
        let mut ways: Vec<Data> = subsets.iter().map(|through| self.subset(through)).collect();
        self.add_lengths(&mut ways, random);
        self.add_moments(&mut ways);
        self.add_single_states(&mut ways);
        self.add_torn(&mut ways);
        ways
    }

    /// Every other combination of lengths, with all those subsets where they are few.
    fn add_lengths(&self, ways: &mut Vec<Data>, random: &mut Random) {
        let mut combinations: Vec<Vec<usize>> = vec![Vec::new()];
        for file in &self.files {
            let longer = |lengths: &Vec<usize>| {
                let lengths = lengths.clone();
                (0..=file.lengths).map(move |length| [&lengths[..], &[length]].concat())
            };
            combinations = combinations.iter().flat_map(longer).collect();
            if combinations.len() > 256 {
                // The last of them are the newest, of files that come later.
                combinations.drain(1..combinations.len() - 255);
            }
        }
        let newest: Vec<usize> = self.files.iter().map(|file| file.lengths).collect();
        combinations.retain(|lengths| *lengths != newest);
        let subsets = ways.len();
        let all = subsets * (combinations.len() + 1) <= MOST_WAYS / 2;
        for lengths in combinations {
            let with_lengths = |data: &Data| Data {
                sectors: data.sectors.clone(),
                lengths: lengths.clone(),
            };
            if all {
                let more: Vec<Data> = ways[..subsets].iter().map(with_lengths).collect();
                ways.extend(more);
                continue;
            }
            ways.extend([with_lengths(&self.newest()), with_lengths(&self.oldest())]);
            for _ in 0..8 {
                let data = with_lengths(&ways[random.below(subsets as u64) as usize]);
                ways.push(data);
            }
        }
    }

    /// Each file as it was after each of its changes, the others as now or as last synced.
    fn add_moments(&self, ways: &mut Vec<Data>) {
        for (number, first, file) in self.files_with_sectors() {
            for (states, length) in &file.moments {
                for mut data in [self.newest(), self.oldest()] {
                    data.lengths[number] = *length;
                    for (survivor, &state) in data.sectors[first..].iter_mut().zip(states) {
                        survivor.state = state;
                    }
                    ways.push(data);
                }
            }
        }
    }

    /// Each state in between of each sector, the other sectors as now or as last synced.
    fn add_single_states(&self, ways: &mut Vec<Data>) {
        for (number, states) in self.sectors().enumerate() {
            for state in 1..states {
                for others in [true, false] {
                    let mut data = self.subset(&vec![others; self.sectors().count()]);
                    data.sectors[number].state = state;
                    ways.push(data);
                }
            }
        }
    }

    /// Each sector torn at the places that matter, the other sectors as now, or those behind it as
    /// last synced.
    fn add_torn(&self, ways: &mut Vec<Data>) {
        let sectors = self.sectors().count();
        for (_, first, file) in self.files_with_sectors() {
            for (within, differs) in file.differs.iter().enumerate() {
                let Some((from, to)) = *differs else {
                    continue;
                };
                let number = first + within;
                // Around the fields of a record's header, in the middle, and at the end.
                let cuts = [1, 4, 12, 28, 36, 40, 41].map(|field| from + field);
                let cuts = cuts.into_iter().chain([from.midpoint(to), to]);
                let mut cuts: Vec<usize> =
                    cuts.filter(|cut| (from + 1..=to).contains(cut)).collect();
                cuts.sort_unstable();
                cuts.dedup();
                for at in cuts {
                    for (others, backwards) in [(true, false), (true, true), (false, false)] {
                        let through: Vec<bool> = (0..sectors)
                            .map(|other| others || other <= number)
                            .collect();
                        let mut data = self.subset(&through);
                        data.sectors[number].torn = Some(Torn {
                            at,
                            older: 0,
                            backwards,
                        });
                        ways.push(data);
                    }
                }
            }
        }
    }

    /// The files, each with its number and the number of its first sector.
    fn files_with_sectors(&self) -> impl Iterator<Item = (usize, usize, &UnsyncedFile)> {
        let mut first = 0;
        self.files.iter().enumerate().map(move |(number, file)| {
            let begin = first;
            first += file.sectors.len();
            (number, begin, file)
        })
    }
}

/// The part of [`Kept`] that is in the files.
#[derive(Clone, Debug)]
struct Data {
    sectors: Vec<Survivor>,
    lengths: Vec<usize>,
}

/// All subsets of a few things. Of more: the first ones, all but one, all but two, random ones.
fn subsets(count: usize, random: &mut Random) -> Vec<Vec<bool>> {
    if count <= FEW {
        let subset = |bits: u32| (0..count).map(|place| bits >> place & 1 == 1).collect();
        return (0..1 << count).rev().map(subset).collect();
    }
    let mut subsets = Vec::new();
    subsets.extend((0..=count).map(|end| (0..count).map(|place| place < end).collect()));
    for first in 0..count {
        for second in first..count {
            subsets.push(
                (0..count)
                    .map(|place| place != first && place != second)
                    .collect(),
            );
        }
    }
    for _ in 0..RANDOM_SUBSETS {
        subsets.push((0..count).map(|_| random.chance(50)).collect());
    }
    subsets
}
