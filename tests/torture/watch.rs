//! Notices a case that hangs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{JoinHandle, park_timeout, spawn};
use std::time::{Duration, Instant};

/// A case that takes longer hangs; the longest honest one takes far less than a second.
const PATIENCE: Duration = Duration::from_secs(60);

/// A thread that ends the process, with the seed, when a case does not end.
pub(crate) struct Watch {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    /// Counts the cases.
    cases: AtomicU64,
    seed: AtomicU64,
    over: AtomicBool,
}

impl Watch {
    pub(crate) fn start(campaign: &'static str) -> Watch {
        let shared = Arc::new(Shared::default());
        let thread = spawn({
            let shared = Arc::clone(&shared);
            move || shared.watch(campaign)
        });
        Watch {
            shared,
            thread: Some(thread),
        }
    }

    /// A case begins, and the one before has ended.
    pub(crate) fn begin(&self, seed: u64) {
        self.shared.seed.store(seed, Ordering::Relaxed);
        self.shared.cases.fetch_add(1, Ordering::Relaxed);
    }
}

impl Shared {
    fn watch(&self, campaign: &str) {
        let (mut case, mut began) = (0, Instant::now());
        while !self.over.load(Ordering::Relaxed) {
            park_timeout(Duration::from_secs(1));
            let now = self.cases.load(Ordering::Relaxed);
            if now != case {
                (case, began) = (now, Instant::now());
            }
            if began.elapsed() > PATIENCE {
                let seed = self.seed.load(Ordering::Relaxed);
                eprintln!("{campaign}: seed {seed} hangs; OURDB_SEED={seed} runs it again");
                std::process::abort();
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}
