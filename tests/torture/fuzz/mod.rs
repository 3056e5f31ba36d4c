//! Directories that nobody made on purpose: good ones, changed at random, with their checksums
//! made to fit again, so that what lies behind the checksums meets them as well. Whatever the
//! bytes, opening, reading, writing and closing end with a result or with an error that makes
//! sense; they don't panic, don't go on for ever, and don't take memory that the directory doesn't
//! justify. Where checksums guard what was changed, no value is ever another one.

mod allocator;
mod corpus;
#[cfg(ourdb_coverage)]
mod coverage;
mod exercise;
mod mend;
mod mutate;
mod seeds;
mod storage;
mod watch;

use crate::report::Campaign;
use crate::support::{Context, Random, Verdict};
use exercise::{Known, Way, exercise};
use mend::Mend;
use mutate::{Mutation, mutate};
use seeds::Seed;
use storage::Files;
use watch::Watch;

/// The directories that are changed.
struct Pool {
    directories: Vec<Seed>,
    /// So many of them were made well; the others are from the corpus.
    begun: usize,
}

fn pool() -> Pool {
    let mut directories = seeds::all();
    let begun = directories.len();
    for (number, files) in corpus::read().into_iter().enumerate() {
        directories.push(Seed {
            name: format!("corpus {number}"),
            files,
            truth: None,
        });
    }
    Pool { directories, begun }
}

#[test]
fn what_the_fuzzer_begins_with_is_good() {
    let Pool { directories, begun } = pool();
    for seed in &directories[..begun] {
        for number in 0..100 {
            let mut random = Random::new(number);
            let way = Way::choose(&mut random);
            let truth = seed.truth.as_ref().expect("it was made");
            let exact = truth.own;
            exercise(&seed.files, &way, Some(Known { truth, exact }), &mut random)
                .context(|| format!("{}, {way:?}", seed.name))
                .unwrap();
        }
    }
}

#[test]
fn the_corpus_is_survived() {
    let Pool { directories, begun } = pool();
    for seed in &directories[begun..] {
        for number in 0..50 {
            let mut random = Random::new(number);
            let way = Way::choose(&mut random);
            exercise(&seed.files, &way, None, &mut random)
                .context(|| format!("{}, {way:?}", seed.name))
                .unwrap();
        }
    }
}

#[test]
fn fuzzed_directories() {
    let pool = pool();
    let campaign = Campaign::begin("fuzzed_directories", "directories", 60_000, 2_000_000);
    let watch = Watch::begin("fuzzed_directories");
    campaign.run(|number| {
        watch.case(number);
        fuzz(&pool, number)?;
        campaign.count(1);
        Ok(())
    });
    campaign.end();
}

/// One case: a directory, changed and exercised as the number says.
fn fuzz(pool: &Pool, number: u64) -> Verdict {
    let mut random = Random::new(number);
    let count = match random.below(4) {
        0 => pool.directories.len(),
        _ => pool.begun,
    };
    let seed = &pool.directories[random.below(count as u64) as usize];
    let (files, mutation) = mutate(seed, &pool.directories, &mut random);
    let way = Way::choose(&mut random);
    let known = still_known(seed, &files, &mutation);
    exercise(&files, &way, known, &mut random)
        .context(|| format!("\"{}\"\n  {mutation}\n  {way:?}", seed.name))
}

/// What must still hold of a directory after its mutation.
fn still_known<'a>(seed: &'a Seed, files: &Files, mutation: &Mutation) -> Option<Known<'a>> {
    let truth = seed.truth.as_ref()?;
    let has_manifest = |files: &Files| files.contains_key("MANIFEST");
    // Without its manifest a directory of ours counts as one of herolib's.
    let guarded = mutation.mended == Mend::Nothing && !mutation.foreign;
    if !guarded || has_manifest(files) != has_manifest(&seed.files) {
        return None;
    }
    // The lookup dump is herolib's word against ours, and it has no checksum.
    let dump = |files: &Files| -> Files {
        let dump = files
            .iter()
            .filter(|(name, _)| name.starts_with("lookup_dump"));
        dump.map(|(name, bytes)| (name.clone(), bytes.clone()))
            .collect()
    };
    let exact = truth.own && dump(files) == dump(&seed.files);
    Some(Known { truth, exact })
}
