//! Workloads written by hand, each for something that recovery has to get right. They are short,
//! so that all states that a crash can leave of them can be looked at.

use ourdb::Sync;

use super::workload::{Backup, Compact, Step, Workload};
use crate::support::model::{Value, Write};

/// The steps of a workload, one call to a step. Each value is another one.
#[derive(Default)]
struct Script {
    steps: Vec<Step>,
    seed: u16,
}

impl Script {
    fn value(&mut self, len: u32) -> Value {
        self.seed += 1;
        // Values that are all zeros or ones are asked for by themselves.
        let seed = self.seed / 5 * 8 + self.seed % 5;
        Value { seed, len }
    }

    fn values(&mut self, lens: &[u32]) -> Vec<Value> {
        lens.iter().map(|&len| self.value(len)).collect()
    }

    fn write(&mut self, write: Write) -> &mut Script {
        self.step(Step::Write(write))
    }

    fn step(&mut self, step: Step) -> &mut Script {
        self.steps.push(step);
        self
    }

    fn times(&mut self, count: u32, write: impl Fn(&mut Script) -> &mut Script) -> &mut Script {
        for _ in 0..count {
            write(self);
        }
        self
    }

    fn insert(&mut self, len: u32) -> &mut Script {
        let value = self.value(len);
        self.write(Write::Insert(value))
    }

    fn inserts(&mut self, lens: &[u32]) -> &mut Script {
        for &len in lens {
            self.insert(len);
        }
        self
    }

    fn insert_many(&mut self, lens: &[u32]) -> &mut Script {
        let values = self.values(lens);
        self.write(Write::InsertMany(values))
    }

    fn set(&mut self, id: u32, len: u32) -> &mut Script {
        let value = self.value(len);
        self.write(Write::Set(id, value))
    }

    fn set_many(&mut self, ids: &[u32], len: u32) -> &mut Script {
        let records = ids.iter().map(|&id| (id, self.value(len))).collect();
        self.write(Write::SetMany(records))
    }

    fn delete(&mut self, id: u32) -> &mut Script {
        self.write(Write::Delete(id))
    }

    fn delete_many(&mut self, ids: &[u32]) -> &mut Script {
        self.write(Write::DeleteMany(ids.to_vec()))
    }

    fn erase(&mut self, id: u32) -> &mut Script {
        self.write(Write::Erase(id))
    }

    fn revert(&mut self, id: u32, commit: u64) -> &mut Script {
        self.write(Write::Revert(id, commit))
    }

    fn revert_all(&mut self, commit: u64) -> &mut Script {
        self.write(Write::RevertAll(commit))
    }

    /// The writes since the last feeding are made in the source instead, and applied.
    fn feed(&mut self, max_bytes: usize) -> &mut Script {
        self.step(Step::Feed(max_bytes)).in_source()
    }

    /// The same without applying them, and the source is compacted, keeping so many versions.
    fn compact_source(&mut self, keep: u64) -> &mut Script {
        let retention = Compact::keeping(keep).retention;
        self.step(Step::CompactSource(retention)).in_source()
    }

    fn in_source(&mut self) -> &mut Script {
        for step in &mut self.steps {
            if let Step::Write(write) = step {
                *step = Step::Source(write.clone());
            }
        }
        self
    }

    fn sync(&mut self) -> &mut Script {
        self.step(Step::Sync)
    }

    fn kill(&mut self) -> &mut Script {
        self.step(Step::Kill)
    }

    /// Keeps so many versions.
    fn compact(&mut self, keep: u64) -> &mut Script {
        self.step(Step::Compact(Compact::keeping(keep)))
    }

    /// With these writes beside it.
    fn compact_beside(&mut self, keep: u64, beside: impl FnOnce(&mut Script)) -> &mut Script {
        let beside = self.writes(beside);
        self.step(Step::Compact(Compact {
            beside,
            ..Compact::keeping(keep)
        }))
    }

    /// Writes for beside something else.
    fn writes(&self, write: impl FnOnce(&mut Script)) -> Vec<Write> {
        let mut script = Script {
            seed: self.seed + 100,
            ..Script::default()
        };
        write(&mut script);
        let writes = script.steps.into_iter().map(|step| match step {
            Step::Write(write) => write,
            step => unreachable!("beside something else there are only writes, not {step:?}"),
        });
        writes.collect()
    }

    fn compact_and_cancel(&mut self, keep: u64) -> &mut Script {
        self.step(Step::Compact(Compact {
            cancelled: true,
            ..Compact::keeping(keep)
        }))
    }

    fn backup(&mut self) -> &mut Script {
        self.step(Step::Backup(Backup::default()))
    }

    /// With these writes beside it.
    fn backup_beside(&mut self, beside: impl FnOnce(&mut Script)) -> &mut Script {
        let beside = self.writes(beside);
        self.step(Step::Backup(Backup {
            beside,
            ..Backup::default()
        }))
    }

    /// Stopped where it tells for the so manieth time how far it is, and made again.
    fn backup_and_stop(&mut self, stop_at: usize) -> &mut Script {
        self.step(Step::Backup(Backup {
            stop_at: Some(stop_at),
            ..Backup::default()
        }))
    }

    fn clear(&mut self) -> &mut Script {
        self.write(Write::Clear)
    }

    /// A transaction that sets these and then deletes those.
    fn txn(&mut self, set: &[u32], len: u32, delete: &[u32]) -> &mut Script {
        let puts = set.iter().map(|&id| (id, Some(self.value(len))));
        let mut writes: Vec<_> = puts.collect();
        writes.extend(delete.iter().map(|&id| (id, None)));
        self.write(Write::Txn(writes))
    }

    fn reopen(&mut self) -> &mut Script {
        self.step(Step::Reopen)
    }
}

fn workload(name: &str, write: impl FnOnce(&mut Script)) -> Workload {
    let mut script = Script::default();
    write(&mut script);
    Workload {
        steps: script.steps,
        seed: 1000 + name.len() as u64,
        ..Workload::new(name)
    }
}

impl Workload {
    fn file_size(mut self, file_size: u32) -> Workload {
        self.options.file_size = file_size;
        self
    }

    fn durable(mut self) -> Workload {
        self.options.sync = Sync::Commit;
        self
    }

    fn key_value(mut self) -> Workload {
        self.options.key_value = true;
        self
    }

    fn with_dump(mut self) -> Workload {
        self.options.native = false;
        self
    }

    fn without_reserving(mut self) -> Workload {
        self.reserves = false;
        self
    }

    fn long(mut self) -> Workload {
        self.is_long = true;
        self
    }

    fn imported(mut self, dump: bool) -> Workload {
        self.import(dump);
        self
    }
}

pub(crate) fn workloads() -> Vec<Workload> {
    let groups = [
        of_single_records(),
        of_many_records(),
        of_data_files(),
        of_syncs(),
        of_openings(),
        of_new_beginnings(),
        of_herolib(),
        of_transactions_and_clears(),
        of_compactions(),
        of_erasures(),
        of_changes(),
        of_going_back(),
        of_backups(),
    ];
    groups.into_iter().flatten().collect()
}

fn of_single_records() -> Vec<Workload> {
    let zeros = |script: &mut Script, seed| {
        script.write(Write::Insert(Value { seed, len: 300 }));
        script
            .insert(20)
            .write(Write::Set(1, Value { seed, len: 30 }));
    };
    vec![
        workload("one insert", |s| {
            s.insert(100);
        }),
        workload("inserts of the same length", |s| {
            s.inserts(&[100; 8]);
        }),
        workload("the same id again and again", |s| {
            s.insert(60);
            s.times(8, |s| s.set(1, 60));
        }),
        workload("set in place of a longer one", |s| {
            s.insert(700).set(1, 600).set(1, 10).set(1, 0).set(1, 500);
        }),
        workload("empty values", |s| {
            s.inserts(&[0; 5]).set(2, 0).delete(3).set(1, 1).set(1, 0);
        }),
        workload("deleted and set again", |s| {
            s.set(5, 100).delete(5).set(5, 100).delete(5).set(4, 10);
        })
        .key_value(),
        workload("all deleted", |s| {
            s.inserts(&[100; 3]).delete(1).delete(2).delete(3);
        }),
        workload("values of zeros", |s| zeros(s, 6)),
        workload("values of ones", |s| zeros(s, 7)),
        workload("a value across four sectors", |s| {
            s.insert(40).insert(2000).insert(40);
        })
        .file_size(0),
        workload("a value across nine sectors, not reserved", |s| {
            s.insert(40).insert(4200);
        })
        .file_size(0)
        .without_reserving(),
        workload("a huge value", |s| {
            s.insert(40).insert(20_000).set(1, 40);
        })
        .file_size(0),
        workload("a huge value after a sync", |s| {
            s.insert(40).sync().insert(9_000).sync().insert(40);
        })
        .file_size(0)
        .without_reserving(),
    ]
}

fn of_many_records() -> Vec<Workload> {
    vec![
        workload("insert_many in one sector", |s| {
            s.insert_many(&[10, 20, 30]).insert_many(&[5; 4]);
        }),
        workload("insert_many across sectors", |s| {
            s.insert(30).insert_many(&[200; 6]).insert(30);
        }),
        workload("insert_many of very many", |s| {
            s.insert_many(&[0; 40]).insert_many(&[30; 20]);
        }),
        workload("set_many of the same ids", |s| {
            s.set_many(&[1, 2, 3], 90).set_many(&[3, 1, 2], 90);
            s.set_many(&[2, 2, 2], 90).set_many(&[1, 2, 3], 90);
        })
        .key_value(),
        workload("delete_many", |s| {
            s.insert_many(&[50; 6]).delete_many(&[1, 3, 5]).insert(50);
            s.delete_many(&[2, 4, 6, 7]);
        }),
        workload("commits that end at the same place", |s| {
            s.set_many(&[1, 2], 30).sync().set(3, 100).kill();
            s.set_many(&[1, 2], 30).kill().set(3, 100);
        })
        .key_value(),
    ]
}

fn of_data_files() -> Vec<Workload> {
    vec![
        workload("a data file for each record", |s| {
            s.inserts(&[20; 6]);
        })
        .file_size(1),
        workload("a data file for each record, not reserved", |s| {
            s.inserts(&[20; 6]).set(3, 0);
        })
        .file_size(1)
        .without_reserving(),
        workload("roll-over of tiny files", |s| {
            s.inserts(&[100; 7]).delete(2).set(1, 100);
        })
        .file_size(250),
        workload("roll-over of tiny files with a sync in between", |s| {
            s.inserts(&[100; 4]).sync().inserts(&[100; 4]);
        })
        .file_size(250),
        workload("roll-over of middle files", |s| {
            s.inserts(&[300; 8]);
        })
        .file_size(1000),
        workload("a commit longer than a data file", |s| {
            s.insert(20).insert_many(&[300; 3]).insert(20);
        })
        .file_size(400),
        workload("roll-over and kill", |s| {
            s.inserts(&[100; 3]).kill().inserts(&[100; 3]).kill();
            s.set(1, 100);
        })
        .file_size(200),
        workload("many data files never synced", |s| {
            s.inserts(&[10; 9]);
        })
        .file_size(1)
        .without_reserving(),
        workload(
            "so many data files that they can not all wait for a sync",
            |s| {
                s.inserts(&[4; 68]);
            },
        )
        .file_size(1)
        .long(),
    ]
}

fn of_syncs() -> Vec<Workload> {
    vec![
        workload("a sync after each commit", |s| {
            s.times(4, |s| s.insert(100).sync());
        }),
        workload("a sync after some commits", |s| {
            s.inserts(&[100; 3])
                .sync()
                .inserts(&[40; 3])
                .sync()
                .set(1, 9);
        }),
        workload("a sync of nothing", |s| {
            s.sync().sync().insert(10).sync().sync();
        }),
        workload("durable commits", |s| {
            s.inserts(&[100; 3]).set(1, 100).delete(2).insert(0);
        })
        .durable(),
        workload("durable commits that roll over", |s| {
            s.inserts(&[100; 5]).set(1, 100);
        })
        .durable()
        .file_size(200),
        workload("durable commits and kill", |s| {
            s.insert(100).kill().insert_many(&[40; 3]).kill().set(2, 40);
        })
        .durable()
        .without_reserving(),
        workload("durable commits of many", |s| {
            s.insert_many(&[150; 4]).set_many(&[1, 2, 3, 4], 150);
        })
        .durable(),
    ]
}

fn of_openings() -> Vec<Workload> {
    vec![
        workload("opened and closed", |s| {
            s.reopen().reopen();
        }),
        workload("closed with a checkpoint", |s| {
            s.inserts(&[100; 3]).reopen().set(1, 100).reopen().delete(2);
        }),
        workload("closed with a checkpoint and a dump", |s| {
            s.inserts(&[100; 3]).reopen().set(1, 100).reopen();
        })
        .with_dump(),
        workload("a checkpoint and more data files since", |s| {
            s.inserts(&[100; 3]).reopen().inserts(&[100; 4]).kill();
            s.set(2, 50);
        })
        .file_size(300),
        workload("killed again and again", |s| {
            s.times(4, |s| s.insert(100).kill());
        }),
        workload("killed, reopened, killed", |s| {
            s.insert(100).kill().reopen().insert(100).kill().insert(3);
            s.reopen().kill();
        })
        .with_dump(),
        workload("killed after a sync and more", |s| {
            s.insert(100).sync().insert(100).kill().insert(100).kill();
            s.sync().insert(100);
        })
        .without_reserving(),
        workload("opened with other limits", |s| {
            s.insert(100).step(Step::Limits(150)).inserts(&[100; 2]);
            s.step(Step::Limits(5000)).insert(100).kill();
        }),
    ]
}

fn of_new_beginnings() -> Vec<Workload> {
    vec![
        workload("reset", |s| {
            s.inserts(&[100; 3]).sync().step(Step::Reset);
            s.inserts(&[100; 2]).kill().insert(100);
        })
        .file_size(200),
        workload("reset of what was closed", |s| {
            s.insert(100).reopen().step(Step::Reset).insert(90).sync();
        })
        .with_dump(),
        workload("destroyed", |s| {
            s.inserts(&[100; 3]).step(Step::Destroy).insert(100);
        })
        .file_size(200),
        workload("destroyed after a close", |s| {
            s.insert(100).reopen().insert(5).sync();
            s.step(Step::Destroy).set(1, 5).insert(7).sync();
        })
        .with_dump(),
    ]
}

fn of_herolib() -> Vec<Workload> {
    vec![
        workload("a herolib directory imported", |s| {
            s.set(1, 100).insert(100).delete(3).sync().set(2, 10);
        })
        .imported(true)
        .with_dump(),
        workload("a herolib directory imported and closed", |s| {
            s.insert(100).reopen().set(2, 100).kill().delete(1);
        })
        .imported(true)
        .with_dump(),
        workload("a herolib directory adopted", |s| {
            s.set(1, 100).insert(100).delete(3).sync().set(2, 10);
        })
        .imported(false),
        workload("a herolib directory adopted, and reset", |s| {
            s.set(1, 100).step(Step::Reset).insert(100);
        })
        .imported(false)
        .with_dump(),
        workload("a herolib directory imported durably", |s| {
            s.set(5, 100).insert_many(&[40, 50]).kill().set(2, 40);
        })
        .imported(true)
        .durable(),
    ]
}

fn of_transactions_and_clears() -> Vec<Workload> {
    vec![
        workload("a transaction", |s| {
            s.inserts(&[100; 3]).txn(&[1, 3], 100, &[2]).insert(40);
        }),
        workload("transactions that roll over", |s| {
            s.inserts(&[60; 3]).txn(&[1, 2, 3], 100, &[]).kill();
            s.txn(&[1], 100, &[2, 3]).sync().txn(&[1, 1], 90, &[]);
        })
        .file_size(200),
        workload("a transaction that leaves nothing", |s| {
            s.set(1, 40).txn(&[2, 3], 40, &[2, 3]).txn(&[2], 40, &[1]);
        })
        .key_value(),
        workload("durable transactions", |s| {
            s.set(3, 50)
                .txn(&[1, 2], 100, &[3])
                .kill()
                .txn(&[3], 9, &[1]);
        })
        .key_value()
        .durable(),
        workload("cleared", |s| {
            s.inserts(&[100; 3]).clear().insert(100).clear().clear();
        }),
        workload("cleared, then killed", |s| {
            s.inserts(&[100; 3]).clear().kill().insert(50).set(4, 70);
        }),
        workload("cleared, set, then killed", |s| {
            s.set(1, 100).set(2, 50).clear().set(2, 100).kill().clear();
            s.kill().set(1, 10);
        })
        .key_value(),
        workload("cleared and closed", |s| {
            s.inserts(&[60; 2]).reopen().clear().reopen().insert(60);
            s.clear().sync().insert(9);
        })
        .with_dump(),
        workload("cleared durably across a roll-over", |s| {
            s.inserts(&[100; 2]).clear().insert(100).clear();
        })
        .durable()
        .file_size(150),
    ]
}

fn of_compactions() -> Vec<Workload> {
    vec![
        workload("compacted", |s| {
            s.inserts(&[100; 2]).set(1, 100).delete(2).compact(1);
        }),
        workload("compacted while empty", |s| {
            s.compact(1).insert(20).delete(1).compact(0).insert(20);
        }),
        workload("several data files compacted", |s| {
            s.inserts(&[100; 4]).set_many(&[1, 2, 3], 100).compact(1);
        })
        .file_size(250),
        workload("compacted beside writes", |s| {
            s.inserts(&[50; 2]).set(1, 60);
            s.compact_beside(1, |s| {
                s.set(1, 60).insert(70).delete(2);
            });
            s.set(1, 20);
        }),
        workload("compacted beside writes that roll over", |s| {
            s.inserts(&[100; 2]).set(1, 100);
            s.compact_beside(1, |s| {
                s.set(1, 100)
                    .insert(100)
                    .set(2, 100)
                    .set(1, 100)
                    .insert(100);
            });
            s.insert(100);
        })
        .file_size(200),
        workload("compacted beside a clear", |s| {
            s.inserts(&[100; 2]);
            s.compact_beside(2, |s| {
                s.set(1, 40).clear().insert(30);
            });
            s.kill().insert(10);
        }),
        workload("compacted after a clear", |s| {
            s.inserts(&[60; 2]).clear().insert(50).compact(2).insert(5);
        }),
        workload("compacted twice", |s| {
            s.inserts(&[60; 2])
                .set(1, 60)
                .compact(2)
                .set(1, 60)
                .compact(1);
        }),
        workload("compacted, killed, and written to", |s| {
            s.inserts(&[100; 2]).set(1, 60).compact(1).kill();
            s.insert(100).kill().set(1, 60);
        }),
        workload("compacted, reopened, and written to", |s| {
            s.inserts(&[60; 2]).delete(2).compact(0).reopen();
            s.insert(60).set(1, 60);
        }),
        workload("compacted with a dump", |s| {
            s.inserts(&[60; 2]).set(1, 60).reopen().compact(1).reopen();
            s.insert(30);
        })
        .with_dump(),
        workload("compacted durably", |s| {
            s.insert(60).set(1, 60);
            s.compact_beside(1, |s| {
                s.set(1, 60).insert(20);
            });
            s.set(1, 30);
        })
        .durable(),
        workload("compacted, not reserved", |s| {
            s.inserts(&[60; 2]).set(1, 60).compact(1).set(1, 60);
        })
        .without_reserving(),
        workload("a compaction that is cancelled", |s| {
            s.inserts(&[60; 2])
                .set(1, 60)
                .compact_and_cancel(1)
                .insert(60);
            s.compact(1).insert(3);
        }),
        workload("a herolib directory compacted", |s| {
            s.set(1, 60).compact(1).set(2, 10);
        })
        .imported(true)
        .with_dump(),
        workload("a herolib directory compacted with its past", |s| {
            s.compact(2).set(2, 10).kill().compact(1);
        })
        .imported(true),
    ]
}

fn of_erasures() -> Vec<Workload> {
    vec![
        workload("erased", |s| {
            s.inserts(&[100; 2]).set(1, 60).erase(1).insert(100);
        }),
        workload("erased from several data files", |s| {
            s.inserts(&[100; 2]).set(1, 100).set(1, 600).erase(1);
            s.insert(20).kill().insert(20);
        })
        .file_size(200),
        workload("erased and set again", |s| {
            s.set(1, 100)
                .set(2, 60)
                .erase(1)
                .set(1, 100)
                .kill()
                .erase(1);
            s.set(1, 20);
        })
        .key_value(),
        workload("erased after a deletion and a clear", |s| {
            s.inserts(&[90; 3]).delete(1).erase(1).clear().erase(2);
            s.insert(90);
        }),
        workload("erased after a close", |s| {
            s.inserts(&[100; 2]).set(1, 30).reopen().erase(1).reopen();
            s.insert(10);
        })
        .with_dump(),
        workload("erased durably", |s| {
            s.inserts(&[100; 2]).set(2, 100).erase(2).insert(100).kill();
            s.erase(1);
        })
        .durable(),
        workload("erased, not reserved", |s| {
            s.inserts(&[400; 2]).set(1, 700).erase(1).set(2, 30);
        })
        .without_reserving(),
        workload("erased and compacted", |s| {
            s.inserts(&[60; 2]).set(1, 60).erase(1).compact(1).erase(2);
        }),
        workload("compacted and erased", |s| {
            s.inserts(&[60; 2])
                .set(1, 60)
                .compact(2)
                .set(1, 30)
                .erase(1);
            s.kill().insert(9);
        }),
        workload("erased beside a compaction", |s| {
            s.inserts(&[60; 3]).set(1, 60);
            s.compact_beside(2, |s| {
                s.set(1, 70).erase(1).erase(2).insert(20);
            });
            s.insert(10);
        }),
        workload("a herolib directory in which is erased", |s| {
            s.erase(2).set(1, 20).erase(1).compact(2).erase(3);
        })
        .imported(true)
        .with_dump(),
    ]
}

fn of_changes() -> Vec<Workload> {
    vec![
        workload("changes applied", |s| {
            s.set(1, 100)
                .set_many(&[1, 2, 3], 60)
                .delete(2)
                .feed(1 << 12);
            s.set(1, 10).feed(1 << 12);
        })
        .key_value(),
        workload("changes applied one by one across a roll-over", |s| {
            s.set_many(&[1, 2, 3], 60).set(1, 100).clear().set(2, 100);
            s.feed(1);
            s.kill();
            s.set(1, 90).txn(&[1, 4], 50, &[2]).feed(1);
        })
        .key_value()
        .file_size(250),
        workload("changes applied durably", |s| {
            s.set_many(&[1, 2], 90).set(1, 90).feed(1 << 12);
            s.kill();
            s.delete(1).feed(1);
        })
        .key_value()
        .durable(),
        workload("erasures applied", |s| {
            s.set(1, 100).set(2, 60).set(1, 60).feed(1 << 12);
            s.erase(1).set(1, 30).feed(1 << 12);
            s.kill();
            s.set(3, 80).erase(2).feed(1 << 12);
        })
        .key_value(),
        workload("erasures applied with what was erased before", |s| {
            s.set(1, 100).set(2, 100).feed(1);
            s.set(1, 300).erase(1).set(1, 50).erase(1).feed(1);
        })
        .key_value()
        .file_size(300),
        workload("a difference applied", |s| {
            s.set(1, 100).set_many(&[1, 2, 3], 60).delete(2);
            s.feed(1 << 12);
            s.set(1, 10).delete(3).set(4, 50).set(5, 20).delete(5);
            s.compact_source(1).feed(1 << 12);
            s.set(2, 30).feed(1 << 12);
        })
        .key_value(),
        workload("a difference applied part by part", |s| {
            s.set_many(&[1, 2, 3], 60).set(4, 100).feed(1);
            s.set(1, 10).delete(2).clear().set(5, 60).set(5, 30);
            s.set(6, 90).txn(&[5, 7], 40, &[6]).compact_source(2);
            s.feed(1).kill().set(3, 50).feed(1);
        })
        .key_value()
        .file_size(250),
        workload("a difference applied durably", |s| {
            s.set(1, 100).set(2, 60).feed(1);
            s.delete(1).set(3, 30).set(2, 10).compact_source(0).feed(1);
            s.kill().set(1, 70).feed(1);
        })
        .key_value()
        .durable(),
        workload("a difference from the beginning", |s| {
            s.set_many(&[1, 2], 60).set(1, 90).delete(2).set(3, 10);
            s.compact_source(1).feed(1 << 7).set(2, 30).feed(1 << 7);
        })
        .key_value(),
        workload("a difference of nothing but deletions", |s| {
            s.set_many(&[1, 2, 3], 60).feed(1).delete(1).clear();
            s.compact_source(0).feed(1).sync();
        })
        .key_value(),
        workload("a difference with erasures", |s| {
            s.set(1, 100).set(2, 60).set(3, 80).set(1, 60).feed(1 << 12);
            s.erase(1).set(1, 30).set(4, 90).compact_source(2);
            s.set(2, 20).erase(2).feed(1).set(3, 10).erase(3);
            s.compact_source(0).feed(1 << 12);
        })
        .key_value(),
        workload("differences applied to what is compacted", |s| {
            s.set(1, 100).set(1, 60).set(2, 30).set(3, 60).feed(1);
            s.compact(1).set(1, 20).delete(2).compact_source(1).feed(1);
            s.set(2, 50).compact(2).delete(3).compact_source(0).feed(1);
        })
        .key_value(),
        workload("changes applied to what is compacted", |s| {
            s.set(1, 100).set(1, 60).set(2, 30).delete(2).feed(1 << 12);
            s.compact(1);
            s.set(1, 60).revert_all(1).feed(1 << 12);
        })
        .key_value(),
    ]
}

fn of_going_back() -> Vec<Workload> {
    vec![
        workload("a record as it was", |s| {
            s.insert(100).set(1, 60).delete(1).revert(1, 1).revert(1, 2);
            s.revert(1, 3).kill().revert(1, 1);
        }),
        workload("all records as they were", |s| {
            s.inserts(&[60; 2]).set(1, 100).clear().insert(30);
            s.revert_all(3).revert_all(0).kill().revert_all(5).sync();
            s.revert_all(4);
        }),
        workload("all records as they were, across a roll-over", |s| {
            s.set_many(&[1, 2, 3], 60).set(1, 100).erase(2).delete(3);
            s.revert_all(1)
                .sync()
                .revert_all(2)
                .set(4, 10)
                .revert_all(0);
        })
        .key_value()
        .file_size(200),
        workload("records as they were after a compaction", |s| {
            s.inserts(&[60; 2]).set(1, 60).set(1, 30).compact(2);
            s.set(2, 20).revert_all(3).revert(1, 4).revert_all(1);
        }),
    ]
}

fn of_backups() -> Vec<Workload> {
    vec![
        workload("backed up", |s| {
            s.backup().inserts(&[100; 2]).backup();
            s.set(1, 60).delete(2).backup().backup();
        }),
        workload("backed up, with several data files", |s| {
            s.inserts(&[100; 3]).backup().set(1, 100).set(2, 30);
            s.backup().insert(100).kill().backup();
        })
        .file_size(200),
        workload("backed up durably", |s| {
            s.inserts(&[100; 2]).backup().set(1, 60).kill().backup();
        })
        .durable(),
        workload("backed up after a close", |s| {
            s.inserts(&[90; 2]).reopen().backup().set(1, 600);
            s.reopen().backup();
        })
        .with_dump(),
        workload("backed up while it is written to", |s| {
            s.inserts(&[100; 3]);
            s.backup_beside(|s| {
                s.set(1, 60).insert(300);
            });
            s.clear().backup_beside(|s| {
                s.insert(10).insert_many(&[20, 30]);
            });
            s.backup();
        })
        .file_size(250),
        workload("a backup that is stopped", |s| {
            s.inserts(&[100; 3]).backup_and_stop(2).set(1, 60);
            s.backup_and_stop(1).insert(90).backup_and_stop(3);
        })
        .file_size(200),
        workload("erased and backed up", |s| {
            s.inserts(&[100; 2]).set(1, 60).backup().erase(1);
            s.insert(100).backup().erase(2).backup();
        }),
        workload("erased and backed up, with several data files", |s| {
            s.inserts(&[100; 2]).set(1, 100).backup();
            s.set(1, 600).erase(1).backup().insert(20).backup();
        })
        .file_size(200),
        workload("compacted and backed up", |s| {
            s.inserts(&[100; 2]).set(1, 60).backup().compact(1);
            s.backup().set(1, 30).backup().compact(2).insert(60);
            s.backup();
        }),
        workload(
            "compacted into other data files, erased and backed up",
            |s| {
                s.inserts(&[100; 3]).set(1, 90).backup().compact(1).erase(1);
                s.backup().set(2, 60).compact(0).erase(2).backup();
            },
        )
        .file_size(250),
        workload("cleared, compacted and backed up in key-value mode", |s| {
            s.set_many(&[1, 2, 3], 60).backup().clear().backup();
            s.set(2, 100)
                .compact(1)
                .backup()
                .clear()
                .set(1, 30)
                .backup();
        })
        .key_value(),
        workload("a backup of a database made anew", |s| {
            s.insert(100).backup().step(Step::Reset).insert(60).backup();
        }),
        workload("a backup of a herolib directory", |s| {
            s.backup().set(1, 60).backup().compact(1).backup();
        })
        .imported(true)
        .with_dump(),
        workload("a backup of a herolib directory in which is erased", |s| {
            s.backup().set(1, 30).backup().erase(2).backup();
            s.compact(1).erase(3).backup();
        })
        .imported(true),
    ]
}
