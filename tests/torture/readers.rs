//! Readers beside a writer, each read compared with what was committed.

use ourdb::Options;

use crate::report::Campaign;
use crate::support::readers::{Place, Readers};
use crate::support::script::Script;
use crate::support::{Context, Random};

const COMMITS: u64 = 1500;

/// Each seed in all places, in a new database each. It decides all but the order of the threads.
#[test]
fn readers_beside_a_writer() {
    let campaign = Campaign::begin("readers_beside_a_writer", "reads", 300_000, 12_000_000);
    campaign.run(|seed| {
        let mut random = Random::new(seed);
        let script = Script::new(seed, COMMITS);
        let options = Options {
            key_value: true,
            // From a file for each commit or two to a few files.
            file_size: [1000, 20_000, 200_000][random.below(3) as usize],
            ..Options::default()
        };
        let readers = Readers {
            count: 2 + random.below(5),
            most_reads: u64::MAX,
            seed,
        };
        for place in Place::ALL {
            let (db, _directory) = place.open(&options);
            let read = readers.beside_a_writer(&db, &script);
            let records = read.context(|| {
                let (size, count) = (options.file_size, readers.count);
                format!(
                    "{}, data files of {size} bytes, {count} readers",
                    place.name
                )
            })?;
            campaign.count(records);
            db.close()
                .map_err(|error| format!("{}: close: {error}", place.name))?;
        }
        Ok(())
    });
    campaign.end();
}
