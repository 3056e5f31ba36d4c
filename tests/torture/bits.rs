//! Every single bit of a directory, flipped.
//!
//! All bits × open and read all records with their histories; one bit of each byte × every other
//! way to look, and going on.

use crate::damage::{Damage, Depth, Expected, Tally, look};
use crate::report::Campaign;
use crate::scenes::{Scene, closed, disk, killed, killed_synced, killed_unmarked, taken_over};
use crate::support::{Context, torture};

/// In the short form so many flips of each scene, ...
const SHORT: u64 = 6000;
/// ... and all in files that are no longer: a few among many others would hardly be hit.
const SMALL: usize = 1024;

/// The directory with one bit flipped.
fn flip(scene: &Scene, bit: u64) -> (Damage, String) {
    let (name, bit) = scene.bit(bit);
    let mut content = scene.image[name].clone();
    content[bit / 8] ^= 1 << (bit % 8);
    let what = format!(
        "{}: {name}, bit {} of byte {}",
        scene.name,
        bit % 8,
        bit / 8
    );
    (Damage::from([(name.to_owned(), Some(content))]), what)
}

/// What was synced is there or missed; of a database that was closed that is everything, and in its
/// log there is nothing that the check doesn't look at.
fn after_a_flip(scene: &Scene, name: &str) -> Expected {
    Expected {
        at_least: scene.synced,
        at_most: scene.truth.last_commit,
        may_refuse: !Scene::is_derived(name),
        must_be_named: scene.closed && scene.is_log(name),
    }
}

fn flip_every_bit(name: &'static str, scene: &Scene) {
    let bits = scene.bits();
    let disk = disk(&scene.image);
    let tally = Tally::default();
    // In the short form one of so many, each time another one.
    let stride = bits / SHORT;
    let is_flipped = |&bit: &u64| {
        let is_small = || scene.image[scene.bit(bit).0].len() <= SMALL;
        torture() || bit % stride == bit / stride % stride || is_small()
    };
    let flipped: Vec<u64> = (0..bits).filter(is_flipped).collect();
    let campaign = Campaign::begin(name, "flips", flipped.len() as u64, bits);
    campaign.run(|seed| {
        let bit = flipped[seed as usize];
        let (damage, what) = flip(scene, bit);
        let depth = if bit % 8 == bit / 8 % 8 {
            Depth::Everything
        } else {
            Depth::Records
        };
        let expected = after_a_flip(scene, scene.bit(bit).0);
        look(scene, &disk, &damage, (expected, depth), &tally).context(|| what)?;
        campaign.count(1);
        Ok(())
    });
    tally.print(scene.name);
    campaign.end();
}

#[test]
fn every_bit_of_a_closed_database() {
    flip_every_bit("every_bit_of_a_closed_database", &closed(1));
}

#[test]
fn every_bit_of_a_killed_database() {
    flip_every_bit("every_bit_of_a_killed_database", &killed(2));
}

#[test]
fn every_bit_of_a_killed_database_that_syncs_each_commit() {
    flip_every_bit(
        "every_bit_of_a_killed_database_that_syncs_each_commit",
        &killed_synced(3),
    );
}

#[test]
fn every_bit_of_a_killed_database_without_a_checkpoint() {
    flip_every_bit(
        "every_bit_of_a_killed_database_without_a_checkpoint",
        &killed_unmarked(6),
    );
}

#[test]
fn every_bit_of_a_closed_database_taken_over_from_herolib() {
    flip_every_bit(
        "every_bit_of_a_closed_database_taken_over_from_herolib",
        &taken_over(4, true),
    );
}

#[test]
fn every_bit_of_a_killed_database_taken_over_from_herolib() {
    flip_every_bit(
        "every_bit_of_a_killed_database_taken_over_from_herolib",
        &taken_over(5, false),
    );
}
