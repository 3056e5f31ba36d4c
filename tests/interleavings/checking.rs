//! A check beside who changes what it looks at.

use std::ops::ControlFlow;
use std::sync::Arc;

use ourdb::storage::memory::MemoryStorage;
use ourdb::{Db, Options, Retention};
use shuttle::rand::Rng;
use shuttle::thread;

use crate::explore;

/// What came since the moment that is checked is no damage: a clear deletes all records in the lookup one
/// after the other, while the check compares them.
#[test]
fn a_check_beside_clears_and_commits_finds_no_damage() {
    explore(1000, || {
        let mut random = shuttle::rand::thread_rng();
        let options = Options {
            key_value: true,
            native: true,
            record_nr_max: 200,
            file_size: [1, 150, 300, 0][random.gen_range(0..4)],
            ..Options::default()
        };
        let db = Db::open_on(Arc::new(MemoryStorage::new()), &options).expect("a new database");
        for id in 0..4 {
            db.set(id, b"before").expect("set");
        }
        let changes = [random.gen_range(0..4), random.gen_range(0..4)];
        thread::scope(|scope| {
            let db = &db;
            scope.spawn(move || {
                for change in changes {
                    match change {
                        0 => db.set(1, b"after").expect("set"),
                        1 => db.delete(2).map(|_| ()).unwrap_or_default(),
                        _ => db.clear().map(|_| ()).expect("clear"),
                    }
                }
            });
            for _ in 0..2 {
                let report = db.check(|_, _| ControlFlow::Continue(())).expect("a check");
                assert!(report.is_sound(), "{report}");
            }
        });
    });
}

/// An erasure takes its record away also from a world that a compaction has replaced, and that is being
/// checked still.
#[test]
fn a_check_beside_a_compaction_and_an_erasure_finds_no_damage() {
    explore(3000, || {
        let options = Options {
            key_value: true,
            native: true,
            record_nr_max: 200,
            ..Options::default()
        };
        let db = Db::open_on(Arc::new(MemoryStorage::new()), &options).expect("a new database");
        for id in 0..3 {
            db.set(id, b"before").expect("set");
        }
        let mut is_told = false;
        thread::scope(|scope| {
            let db = &db;
            let go_on = |_, _| ControlFlow::Continue(());
            let told = |_, _| {
                if !std::mem::replace(&mut is_told, true) {
                    db.compact(&Retention::default(), go_on)
                        .expect("a compaction");
                    scope.spawn(|| db.erase(1).expect("an erasure"));
                }
                ControlFlow::Continue(())
            };
            let report = db.check(told).expect("a check");
            assert!(report.is_sound(), "{report}");
        });
        assert!(is_told);
    });
}
