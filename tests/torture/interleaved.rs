//! Transactions whose calls are interleaved in one thread, against the serial model.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::report::Campaign;
use crate::support::interleave::Interleaved;

const CALLS: u64 = 150;

#[test]
fn interleaved_transactions() {
    let campaign = Campaign::begin("interleaved_transactions", "answers", 200_000, 30_000_000);
    let conflicts = AtomicU64::new(0);
    campaign.run(|seed| {
        let mut run = Interleaved::new(seed)?;
        run.run(CALLS)?;
        campaign.count(run.answers);
        conflicts.fetch_add(run.conflicts, Ordering::Relaxed);
        Ok(())
    });
    println!(
        "{} commits conflicted, as they had to",
        conflicts.into_inner()
    );
    campaign.end();
}
