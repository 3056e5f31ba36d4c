//! Each sync of a file or a directory fails, one run of a workload for each. A handle whose sync
//! has failed writes no more and reads on; a call that opens or closes says so. Only a new opening
//! heals, and nothing that was acknowledged is lost, whatever the kernel did to the dirty pages.

use std::time::{Duration, Instant};

use ourdb::{Error, Sync};

use super::faults::{FAULT, fail_calls};
use super::report::Campaign;
use super::workload::{Workload, open};
use crate::support::sim::{Calls, Disk, Errno, Fault, Pages};

#[test]
fn syncs_that_fail() {
    let name = "syncs_that_fail";
    let campaign = Campaign::begin(name, "points", 400, 20_000);
    let mut faults = Vec::new();
    for pages in [Pages::Dirty, Pages::Clean, Pages::Dropped] {
        for sticky in [false, true] {
            faults.push(Fault {
                calls: Calls::Syncing,
                sticky,
                pages,
                ..FAULT
            });
        }
    }
    // Where space is found late, a sync may say that there is none.
    faults.push(Fault {
        errno: Errno::NoSpace,
        ..faults[0]
    });
    fail_calls(&campaign, name, &faults);
    campaign.end();
}

/// Nobody waits for the sync of the background; the next write says that it has failed.
#[test]
fn a_sync_in_the_background_that_fails() {
    let mut workload = Workload::new("in the background");
    workload.options.sync = Sync::Interval(1);
    for pages in [Pages::Dirty, Pages::Clean, Pages::Dropped] {
        let storage = workload.storage(Disk::new(), 0);
        let db = open(&storage, &workload.options).expect("a new database opens");
        db.insert(b"kept").expect("an insert");
        db.sync().expect("a sync");
        storage.fail(Some(Fault {
            calls: Calls::Syncing,
            after: storage.calls(Calls::Syncing),
            pages,
            ..FAULT
        }));
        let began = Instant::now();
        let mut written = 0;
        let error = loop {
            match db.insert(b"perhaps") {
                Ok(_) => written += 1,
                Err(error) => break error,
            }
            assert!(
                began.elapsed() < Duration::from_secs(20),
                "the sync of the background fails, and {written} inserts later nothing tells"
            );
            std::thread::sleep(Duration::from_millis(1));
        };
        assert!(matches!(error, Error::Poisoned { .. }), "{error:?}");
        assert!(db.get(1).is_ok(), "reading has stopped too");
        let closed = db.close();
        assert!(matches!(closed, Err(Error::Poisoned { .. })), "{closed:?}");
        let db = open(&storage, &workload.options).expect("it opens again");
        let value = db.get(1).expect("what was synced is there");
        assert_eq!(value, b"kept");
        db.insert(b"healed").expect("an insert after reopening");
        db.close().expect("a close");
    }
}
