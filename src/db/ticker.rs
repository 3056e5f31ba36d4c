//! Threads in the background, one for each kind of work that a handle was opened for.

use std::sync::Arc;
use std::time::Duration;

use super::Shared;
use crate::error::{Error, Result};
use crate::storage::{self, fork};
use crate::sync::thread::JoinHandle;
use crate::sync::{Condvar, Mutex, MutexGuard, PoisonError, wait_timeout};

/// A thread that does something now and then. It stops when this is dropped, which waits for it.
#[derive(Debug)]
pub(super) struct Ticker {
    stop: Arc<Stop>,
    thread: Option<JoinHandle<()>>,
    fork_generation: u32,
}

/// Whether a thread in the background is to stop. Work that takes long asks for it.
#[derive(Debug, Default)]
pub(super) struct Stop {
    asked: Mutex<bool>,
    changed: Condvar,
}

impl Stop {
    fn asked(&self) -> MutexGuard<'_, bool> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_asked(&self) -> bool {
        *self.asked()
    }

    /// Waits for so long, or until it is asked to stop; whether it is.
    fn wait(&self, time: Duration) -> bool {
        let asked = self.asked();
        if *asked {
            return true;
        }
        *wait_timeout(&self.asked, asked, &self.changed, time)
    }
}

/// A panic in the background stops all writing, as one in a call does.
struct Watched<'a>(&'a Shared);

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.poison("a thread in the background panicked");
        }
    }
}

impl Ticker {
    /// Does `work` after the time `first`, and then each time after the time that it returns, not
    /// quite exactly.
    pub(super) fn start(
        name: &str,
        shared: &Arc<Shared>,
        first: Duration,
        mut work: impl FnMut(&Shared, &Stop) -> Duration + Send + 'static,
    ) -> Result<Ticker> {
        let stop = Arc::new(Stop::default());
        let thread = storage::spawn(name, {
            // Only borrowed for the work: in a forked child there is no thread to give it back.
            let (stop, shared) = (Arc::clone(&stop), Arc::downgrade(shared));
            move || {
                let mut time = first;
                while !stop.wait(time) {
                    if let Some(shared) = shared.upgrade() {
                        let watched = Watched(&shared);
                        time = work(watched.0, &stop);
                    }
                }
            }
        });
        let thread =
            thread.map_err(|error| Error::from_io("start", "a thread in the background", error))?;
        Ok(Ticker {
            stop,
            thread: Some(thread),
            fork_generation: fork::generation(),
        })
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        if self.fork_generation != fork::generation() {
            // The thread stayed in the parent process; its handle leads nowhere here.
            std::mem::forget(self.thread.take());
            return;
        }
        *self.stop.asked() = true;
        self.stop.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // If it panicked, the handle says so.
            let _ = thread.join();
        }
    }
}
