//! How a compaction overtakes the writers: what they write meanwhile it must copy too, and that in turn
//! must come to an end, however quick they are.
//!
//! Where they write more than half of what it copies in the same time, each of their commits pauses
//! first, and twice as long where that wasn't enough. So each round over what came during the one
//! before has half as much to copy.

use std::time::{Duration, Instant};

use crate::sync::atomic::{AtomicU32, Ordering};
use crate::sync::sleep;

/// The shortest pause, in microseconds, and the longest, which only commits need that take as long to
/// copy.
const SHORTEST_US: u32 = 200;
const LONGEST_US: u32 = SHORTEST_US << 16;
/// A pause is at most so many times as long as the one before.
const MOST_TIMES: u64 = 1 << 3;
/// What a pause has brought is seen after so many of it.
const PAUSES_TO_TELL: u32 = 4;
/// A pause ends so many microseconds after the compaction at the latest.
const SLICE_US: u32 = 10_000;

/// A round that copies no more than this, in bytes, and in no more time, is the last one. Where data files
/// are small or system calls slow, a few bytes take long.
const LITTLE: u64 = 1 << 20;
const SHORT: Duration = Duration::from_millis(20);
/// After so many rounds that copied more than half of what the one before did, writers pause in any case:
/// what comes during the sync at the end of a round counts too.
const MOST_LONG_ROUNDS: u32 = 3;
/// So many rounds are made at most, should none copy so little.
const MOST_ROUNDS: u32 = 40;

/// Waits, before a commit, for as long as a compaction asks for.
#[cold]
pub(super) fn pause(pause_us: &AtomicU32) {
    let mut waited = 0;
    loop {
        let left = pause_us.load(Ordering::Relaxed).saturating_sub(waited);
        if left == 0 {
            return;
        }
        let slice = left.min(SLICE_US);
        sleep(Duration::from_micros(u64::from(slice)));
        waited += slice;
    }
}

/// Has writers pause. Dropped, they don't any more.
#[derive(Debug)]
pub(super) struct Brake<'a> {
    pause_us: &'a AtomicU32,
    /// The pause is never shorter.
    least_us: u32,
    /// When the brake was set, how many bytes the log had, and how many were looked through since.
    set_at: Instant,
    seen: u64,
    looked_through: u64,
    /// Bytes of the log when the round began, and those that it has copied.
    begun: u64,
    copied: u64,
}

/// How far both have come: the bytes of the log, and those looked through since the last time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Progress {
    pub(super) now: Instant,
    pub(super) log: u64,
    pub(super) looked_through: u64,
}

impl<'a> Brake<'a> {
    /// One that works by `pause_us`, beside a log of so many bytes.
    pub(super) fn new(pause_us: &'a AtomicU32, now: Instant, log: u64) -> Brake<'a> {
        Brake {
            pause_us,
            least_us: 0,
            set_at: now,
            seen: log,
            looked_through: 0,
            begun: log,
            copied: 0,
        }
    }

    /// Copying begins of all that is in the log by now, when it has so many bytes.
    pub(super) fn begin_round(&mut self, now: Instant, log: u64) {
        (self.set_at, self.seen, self.looked_through) = (now, log, 0);
        (self.begun, self.copied) = (log, 0);
    }

    /// So much was written by the compaction's own thread, while that stood still.
    pub(super) fn pass_over(&mut self, bytes: u64) {
        self.seen += bytes;
        self.begun += bytes;
    }

    /// More of the round is copied.
    pub(super) fn copied(&mut self, progress: Progress) {
        self.copied += progress.looked_through;
        let too_quick = progress.log - self.begun > self.copied / 2;
        self.set(too_quick, progress);
    }

    /// Writers pause less long where they are not too quick, and longer where they are, unless they are
    /// slow enough already and what they wrote before is what counts.
    pub(super) fn set(&mut self, too_quick: bool, progress: Progress) {
        self.looked_through += progress.looked_through;
        let pause = self.pause_us.load(Ordering::Relaxed);
        let to_tell = Duration::from_micros(u64::from(pause)) * PAUSES_TO_TELL;
        if progress.now.duration_since(self.set_at) < to_tell {
            return;
        }
        let written = progress.log - self.seen;
        let pause = match too_quick {
            // As many times as long as they are too quick, and twice at least.
            true if written > self.looked_through / 2 => {
                let times = 2 * written / self.looked_through.max(1);
                longer(pause, times.clamp(2, MOST_TIMES))
            }
            true => pause,
            false if pause / 2 < SHORTEST_US => 0,
            false => pause / 2,
        };
        (self.set_at, self.seen, self.looked_through) = (progress.now, progress.log, 0);
        self.pause_us
            .store(pause.max(self.least_us), Ordering::Relaxed);
    }

    /// From now on they pause in any case.
    pub(super) fn touch(&mut self) {
        self.least_us = self.least_us.max(SHORTEST_US);
        self.pause_us.fetch_max(self.least_us, Ordering::Relaxed);
    }

    /// And longer than before.
    fn press(&mut self) {
        self.least_us = longer(self.least_us, 2);
        self.touch();
    }

    /// From now on they don't.
    pub(super) fn release(&mut self) {
        self.least_us = 0;
        self.pause_us.store(0, Ordering::Relaxed);
    }
}

impl Drop for Brake<'_> {
    fn drop(&mut self) {
        self.release();
    }
}

fn longer(pause_us: u32, times: u64) -> u32 {
    let longer = u64::from(pause_us) * times;
    longer.clamp(u64::from(SHORTEST_US), u64::from(LONGEST_US)) as u32
}

/// Rounds of copying until little is left.
#[derive(Debug)]
pub(super) struct Rounds {
    count: u32,
    long: u32,
    /// What the last one copied.
    before: u64,
}

impl Default for Rounds {
    fn default() -> Rounds {
        Rounds {
            count: 0,
            long: 0,
            before: u64::MAX,
        }
    }
}

impl Rounds {
    /// Whether a round that has copied so many bytes in so much time was the last one.
    pub(super) fn is_last(&mut self, copied: u64, took: Duration, brake: &mut Brake<'_>) -> bool {
        self.count += 1;
        if (copied < LITTLE && took < SHORT) || self.count == MOST_ROUNDS {
            return true;
        }
        if copied > self.before {
            // Each would take longer than the one before.
            self.long = MOST_LONG_ROUNDS;
        } else if copied > self.before / 2 {
            self.long += 1;
        }
        if self.long >= MOST_LONG_ROUNDS {
            brake.press();
        }
        self.before = copied;
        false
    }
}

#[cfg(all(test, not(ourdb_shuttle)))]
mod tests {
    use super::*;

    /// Writers that commit as quickly as they may, and a compaction that copies: times are in
    /// nanoseconds.
    struct Race<'a> {
        pause_us: &'a AtomicU32,
        now: u64,
        log: u64,
        /// When each of the writers asks for the lock next, and when that is free.
        next: Vec<u64>,
        free: u64,
        commit: u64,
        commit_takes: u64,
        longest_pause_us: u32,
    }

    impl Race<'_> {
        fn go_on_to(&mut self, now: u64) {
            while let Some(next) = self.next.iter_mut().min()
                && self.free.max(*next) + self.commit_takes <= now
            {
                self.log += self.commit;
                self.free = self.free.max(*next) + self.commit_takes;
                let pause = self.pause_us.load(Ordering::Relaxed);
                self.longest_pause_us = self.longest_pause_us.max(pause);
                *next = self.free + 1000 * u64::from(pause);
            }
            self.now = now;
        }
    }

    #[test]
    fn writers_are_overtaken_however_quick_they_are() {
        // Bytes and time of a commit, time to copy a byte, and of the sync after a round.
        for (commit, commit_takes, copy_takes, sync_takes) in [
            (140, 250, 4, 50_000_000),
            (140, 250, 20, 50_000_000),
            // By system calls that take a turn of the processor each.
            (2000, 300_000, 5000, 1_000_000),
            (5_600_000, 5_000_000, 4, 50_000_000),
            (140_000_000, 60_000_000, 4, 500_000_000),
            (60_040, 10_000, 1000, 1_000_000),
        ] {
            for writers in [1, 2, 8] {
                for before in [1 << 20, 1 << 28] {
                    let said = format!(
                        "{writers} that write {commit} bytes in {commit_takes} ns, {copy_takes} ns to \
                         copy a byte, {before} bytes before"
                    );
                    let pause_us = AtomicU32::new(0);
                    let mut race = Race {
                        pause_us: &pause_us,
                        now: 0,
                        log: before,
                        next: vec![0; writers as usize],
                        free: 0,
                        commit,
                        commit_takes,
                        longest_pause_us: 0,
                    };
                    let start = Instant::now();
                    let at = |race: &Race<'_>| start + Duration::from_nanos(race.now);
                    let mut brake = Brake::new(&pause_us, start, race.log);
                    let mut rounds = Rounds::default();
                    let (mut done, mut steps) = (0, 0);
                    loop {
                        let end = race.log;
                        let from = done;
                        brake.begin_round(at(&race), race.log);
                        let began = race.now;
                        while done < end {
                            // What is copied until the brake is looked at.
                            let step = (10_000_000 / copy_takes).min(1 << 20);
                            let step = commit.max(step).min(end - done);
                            race.go_on_to(race.now + step * copy_takes);
                            done += step;
                            brake.copied(Progress {
                                now: at(&race),
                                log: race.log,
                                looked_through: step,
                            });
                            steps += 1;
                            assert!(steps < 10_000_000, "{said}: there is no end to it");
                        }
                        let took = Duration::from_nanos(race.now - began);
                        race.go_on_to(race.now + sync_takes);
                        if rounds.is_last(done - from, took, &mut brake) {
                            break;
                        }
                    }
                    let left = race.log - done;
                    assert!(
                        left < (4 << 20) + 2 * writers * commit,
                        "{said}: {left} bytes are left"
                    );
                    let takes_ms = left * copy_takes / 1_000_000;
                    let needed_ms = 2 * writers * commit * copy_takes / 1_000_000;
                    assert!(
                        takes_ms <= 50 + needed_ms,
                        "{said}: what is left takes {takes_ms} ms to copy"
                    );
                    // To copy what they commit at a time takes half as long as these pauses.
                    let needed = 2 * writers * commit * copy_takes / 1000;
                    let longest = u64::from(race.longest_pause_us);
                    assert!(
                        longest <= 16 * needed.max(u64::from(SHORTEST_US)),
                        "{said}: they pause {longest} us, and {needed} are enough"
                    );
                    drop(brake);
                    assert_eq!(pause_us.into_inner(), 0);
                }
            }
        }
    }
}
