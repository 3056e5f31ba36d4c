//! The workloads, each on a store that is open. Every value that they get is copied and checked.

use std::hint::black_box;
use std::time::{Duration, Instant};

use crate::data::{Permutation, Versions, below, first_word, looks_right, mix, value};
use crate::engine::{Engine, Failure, Outcome, Session, VALUE, Value, copy, wrong};
use crate::measure::{Limit, Measured, run, run_threads};

/// Records of a commit of many.
pub const COMMIT: u64 = 1000;
/// Records of a get of many.
pub const GET: u64 = 100;
/// Versions of a history.
const HISTORY: u8 = 10;
/// Records that have one.
const HISTORIES: u32 = 10_000;
/// A scan looks at the clock every so many records.
const LOOK: u64 = 1024;

/// What the workloads of a store have in common.
pub struct Plan {
    /// What the store holds.
    pub versions: Versions,
    /// For how long each workload goes on.
    pub time: Duration,
    /// Other ids in other rounds.
    pub seed: u64,
}

impl Plan {
    fn limit(&self) -> Limit {
        Limit::time(self.time)
    }

    fn records(&self) -> u32 {
        self.versions.records()
    }

    /// The order in which records are overwritten and deleted.
    fn order(&self) -> Permutation {
        Permutation::new(self.records(), self.seed)
    }

    /// An id for the operation of a thread.
    fn random(&self, thread: u64, operation: u64) -> u32 {
        below(mix(self.seed ^ (thread << 48) ^ operation), self.records())
    }

    /// Stores the next version of a record.
    fn set_next(&self, session: &mut dyn Session, id: u32) -> Outcome {
        session.set(id, &value(id, self.versions.next(id)))?;
        self.versions.advance(id);
        Ok(())
    }

    fn get_one(&self, session: &mut dyn Session, id: u32, found: &mut Value) -> Outcome {
        if !session.get(id, found)? {
            return Err(wrong("no record"));
        }
        self.versions.check(id, black_box(found))
    }
}

// Writing.

impl Plan {
    /// Stores the first quarter of the records in order with a commit each, as far as time allows.
    pub fn insert(&self, engine: &dyn Engine) -> Outcome<Measured> {
        let mut session = engine.session()?;
        let limit = self.limit().operations(u64::from(self.records() / 4));
        run(limit, |id| session.set(id as u32, &value(id as u32, 0)))
    }

    /// Stores the records from this one on in order with a commit for each thousand.
    pub fn insert_batch(&self, engine: &dyn Engine, from: u64) -> Outcome<Measured> {
        let limit = Limit::time(Duration::MAX).every_one();
        self.batches(engine, from, limit, |place| place as u32, |id| value(id, 0))
    }

    /// The same with a commit each, for a store that has no others.
    pub fn insert_singly(&self, engine: &dyn Engine, from: u64) -> Outcome {
        let mut session = engine.session()?;
        (from as u32..self.records()).try_for_each(|id| session.set(id, &value(id, 0)))
    }

    /// Overwrites half of the records at random with a commit each, as far as time allows.
    pub fn set(&self, engine: &dyn Engine) -> Outcome<Measured> {
        let mut session = engine.session()?;
        let order = self.order();
        let limit = self.limit().operations(u64::from(self.records() / 2));
        run(limit, |place| self.set_next(&mut *session, order.at(place)))
    }

    /// Overwrites those that `set` has left, with a commit for each thousand.
    pub fn set_batch(&self, engine: &dyn Engine, from: u64) -> Outcome<Measured> {
        let order = self.order();
        let limit = Limit::time(Duration::MAX).every_one();
        let measured = self.batches(
            engine,
            from,
            limit,
            |place| order.at(place),
            |id| value(id, self.versions.next(id)),
        )?;
        (from..from + measured.operations).for_each(|place| self.versions.advance(order.at(place)));
        Ok(measured)
    }

    /// The same with a commit each, for as long as ten workloads; how many it was.
    pub fn set_singly(&self, engine: &dyn Engine, from: u64) -> Outcome<Measured> {
        let mut session = engine.session()?;
        let order = self.order();
        let limit = Limit::time(self.time * 10).operations(u64::from(self.records()) - from);
        run(limit, |operation| {
            self.set_next(&mut *session, order.at(from + operation))
        })
    }

    /// Stores the records at the places of an order from this one on, a thousand a commit. The
    /// operations are records.
    fn batches(
        &self,
        engine: &dyn Engine,
        from: u64,
        limit: Limit,
        order: impl Fn(u64) -> u32,
        value: impl Fn(u32) -> Value,
    ) -> Outcome<Measured> {
        let mut session = engine.session()?;
        let (mut ids, mut values) = (Vec::new(), Vec::new());
        let records = u64::from(self.records());
        let commits = limit.operations((records - from).div_ceil(COMMIT));
        let measured = run(commits, |commit| {
            let place = from + commit * COMMIT;
            ids.clear();
            ids.extend((place..records.min(place + COMMIT)).map(&order));
            values.clear();
            values.extend(ids.iter().map(|&id| value(id)));
            session.set_many(&ids, &values)
        })?;
        Ok(Measured {
            operations: records - from,
            ..measured
        })
    }

    /// Deletes at random, a commit each; how many.
    pub fn delete(&self, engine: &dyn Engine) -> Outcome<Measured> {
        let mut session = engine.session()?;
        let order = self.order();
        let limit = self.limit().operations(u64::from(self.records()));
        let measured = run(limit, |place| session.delete(order.at(place)))?;
        let mut found = [0; VALUE];
        for place in (0..u64::from(self.records())).step_by(self.records() as usize / 1000 + 1) {
            let id = order.at(place);
            if place < measured.operations {
                if session.get(id, &mut found)? {
                    return Err(wrong("a deleted record is there"));
                }
            } else {
                self.get_one(&mut *session, id, &mut found)?;
            }
        }
        Ok(measured)
    }

    /// Overwrites records of a few with a commit each, by so many threads.
    pub fn durable(&self, engine: &dyn Engine, threads: u64) -> Outcome<Measured> {
        let own = u64::from(self.records()) / threads;
        run_threads(engine, threads, self.limit().every_one(), |thread| {
            move |session: &mut dyn Session, operation| {
                let id = (operation % own * threads + thread) as u32;
                self.set_next(session, id)
            }
        })
    }
}

// Reading.

impl Plan {
    /// Gets whose ids are known beforehand.
    pub fn get(&self, engine: &dyn Engine, threads: u64) -> Outcome<Measured> {
        run_threads(engine, threads, self.limit(), |thread| {
            let mut found = [0; VALUE];
            move |session: &mut dyn Session, operation| {
                self.get_one(session, self.random(thread, operation), &mut found)
            }
        })
    }

    /// Gets each of which must wait for the one before.
    pub fn get_dependent(&self, engine: &dyn Engine, threads: u64) -> Outcome<Measured> {
        run_threads(engine, threads, self.limit(), |thread| {
            let mut found = value(thread as u32, 0);
            move |session: &mut dyn Session, operation| {
                // The number of the operation is part of it because ids that follow from values
                // alone soon go round in a small circle.
                let id = below(
                    mix(first_word(&found) ^ operation ^ self.seed),
                    self.records(),
                );
                self.get_one(session, id, &mut found)
            }
        })
    }

    /// Gets of a hundred. The operations are records.
    pub fn get_batch(&self, engine: &dyn Engine, threads: u64) -> Outcome<Measured> {
        let measured = run_threads(engine, threads, self.limit().every_one(), |thread| {
            let (mut ids, mut found) = ([0; GET as usize], [[0; VALUE]; GET as usize]);
            move |session: &mut dyn Session, operation| {
                for (place, id) in (operation * GET..).zip(&mut ids) {
                    *id = self.random(thread, place);
                }
                session.get_many(&ids, &mut found)?;
                let mut both = ids.iter().zip(black_box(&found));
                both.try_for_each(|(&id, found)| self.versions.check(id, found))
            }
        })?;
        Ok(Measured {
            operations: measured.operations * GET,
            ..measured
        })
    }

    /// Scans, one after the other, for as long as there is time.
    pub fn scan(&self, engine: &dyn Engine) -> Outcome<Measured> {
        let mut session = engine.session()?;
        let mut found = [0; VALUE];
        let mut scan = Scan::begin(self, self.time);
        while scan.begin_pass() {
            session.scan(&mut |id, value| {
                let right = copy(value, &mut found).is_ok()
                    && self.versions.check(id, black_box(&found)).is_ok();
                scan.next(id, right)
            })?;
        }
        scan.end()
    }

    /// The same with ids alone.
    pub fn scan_keys(&self, engine: &dyn Engine) -> Outcome<Measured> {
        let mut session = engine.session()?;
        let mut scan = Scan::begin(self, self.time);
        while scan.begin_pass() {
            session.scan_keys(&mut |id| scan.next(id, true))?;
        }
        scan.end()
    }

    /// Goes up from a random id by asking for the next one each time.
    pub fn above(&self, engine: &dyn Engine) -> Outcome<Measured> {
        let mut session = engine.session()?;
        let mut id = self.random(0, 0);
        run(self.limit(), |_| {
            let expected = Some(id + 1).filter(|&next| next < self.records());
            if session.above(id)? != expected {
                return Err(wrong("the id above"));
            }
            id = expected.unwrap_or(0);
            Ok(())
        })
    }

    /// Compares every byte of all records in a scan, and of many in gets; which brings into memory
    /// what the next workloads read.
    pub fn verify(&self, engine: &dyn Engine) -> Outcome {
        let mut session = engine.session()?;
        let mut scan = Scan::begin(self, Duration::MAX);
        scan.begin_pass();
        match session
            .scan(&mut |id, value| scan.next(id, self.versions.check_all_of(id, value).is_ok()))
        {
            Ok(()) if scan.end()?.operations != u64::from(self.records()) => {
                return Err(wrong("the number of records of a scan"));
            }
            Ok(()) | Err(Failure::Declined) => {}
            failed => return failed,
        }
        let mut found = [0; VALUE];
        let limit = Limit::time(self.time * 3).operations(u64::from(self.records()));
        run(limit, |operation| {
            let id = self.random(0, operation);
            self.get_one(&mut *session, id, &mut found)?;
            self.versions.check_all_of(id, &found)
        })?;
        Ok(())
    }
}

/// Scans that stop when it is time, or when something is wrong.
struct Scan {
    start: Instant,
    limit: Duration,
    records: u64,
    /// Of this pass; before the first one all, as after a complete one.
    seen: u64,
    /// Of all passes.
    all: u64,
    stopped: bool,
    wrong: bool,
}

impl Scan {
    fn begin(plan: &Plan, limit: Duration) -> Scan {
        let records = plan.records().into();
        Scan {
            start: Instant::now(),
            limit,
            records,
            seen: records,
            all: 0,
            stopped: false,
            wrong: false,
        }
    }

    /// Whether to go over all records once more. The pass before must have seen all of them, unless it
    /// was stopped.
    fn begin_pass(&mut self) -> bool {
        self.wrong |= !self.stopped && self.seen != self.records;
        self.seen = 0;
        !self.wrong && self.start.elapsed() < self.limit && !self.stopped
    }

    /// Whether to go on after this record.
    fn next(&mut self, id: u32, right: bool) -> bool {
        self.wrong |= !right || u64::from(id) != self.seen;
        self.seen += 1;
        self.all += 1;
        self.stopped =
            self.wrong || (self.all.is_multiple_of(LOOK) && self.start.elapsed() >= self.limit);
        !self.stopped
    }

    fn end(&self) -> Outcome<Measured> {
        if self.wrong {
            return Err(wrong("a record of a scan, or their number"));
        }
        Ok(Measured {
            time: self.start.elapsed(),
            operations: self.all,
        })
    }
}

// Both at once, and the past.

impl Plan {
    /// Gets of two threads that also set so many of a hundred, each thread its own half of the ids.
    pub fn mixed(&self, engine: &dyn Engine, sets: u64) -> Outcome<Measured> {
        run_threads(engine, 2, self.limit(), |thread| {
            let mut found = [0; VALUE];
            move |session: &mut dyn Session, operation| {
                let id = self.random(thread + 16, operation);
                if mix(operation) % 100 < sets {
                    // Two threads must not store the same version.
                    let own = (id & !1) + thread as u32;
                    return self.set_next(
                        session,
                        if own < self.records() {
                            own
                        } else {
                            thread as u32
                        },
                    );
                }
                let before = self.versions.of(id);
                if !session.get(id, &mut found)? {
                    return Err(wrong("no record"));
                }
                self.versions.check_between(id, before, black_box(&found))
            }
        })
    }

    /// Gives some records ten more versions.
    pub fn make_history(&self, engine: &dyn Engine) -> Outcome {
        let mut session = engine.session()?;
        for _ in 0..HISTORY {
            let ids: Vec<u32> = (0..self.histories()).collect();
            for ids in ids.chunks(COMMIT as usize) {
                let values: Vec<Value> = ids
                    .iter()
                    .map(|&id| value(id, self.versions.next(id)))
                    .collect();
                match session.set_many(ids, &values) {
                    Ok(()) => ids.iter().for_each(|&id| self.versions.advance(id)),
                    Err(Failure::Declined) => {
                        ids.iter()
                            .try_for_each(|&id| self.set_next(&mut *session, id))?;
                    }
                    failed => return failed,
                }
            }
        }
        Ok(())
    }

    fn histories(&self) -> u32 {
        self.records().min(HISTORIES)
    }

    /// Reads the last ten versions of one of them after the other, at random. The operations are
    /// records.
    pub fn history(&self, engine: &dyn Engine) -> Outcome<Measured> {
        let mut session = engine.session()?;
        run(self.limit(), |operation| {
            let id = below(mix(self.seed ^ operation), self.histories());
            let mut version = self.versions.of(id);
            let mut right = 0;
            session.history(id, HISTORY.into(), &mut |value| {
                right += u8::from(looks_right(value, id, version));
                version = version.wrapping_sub(1);
            })?;
            if right == HISTORY {
                Ok(())
            } else {
                Err(wrong("a history"))
            }
        })
    }
}

// What the benchmark itself does within what it measures.

impl Plan {
    /// Making values.
    pub fn make_value(&self) -> Outcome<Measured> {
        run(self.limit(), |id| {
            black_box(value(id as u32, 0));
            Ok(())
        })
    }

    /// Choosing ids and checking values that are in the processor's cache.
    pub fn check_value(&self) -> Outcome<Measured> {
        let found: Vec<Value> = (0..self.records().min(64))
            .map(|id| value(id, self.versions.of(id)))
            .collect();
        run(self.limit(), |operation| {
            let id = black_box(self.random(0, operation)) % found.len() as u32;
            self.versions.check(id, black_box(&found[id as usize]))
        })
    }
}
