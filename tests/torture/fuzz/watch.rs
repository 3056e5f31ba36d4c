//! Looks on from outside while cases run: a case that never ends is named, and so is one that
//! ends the whole process.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

/// A case takes far less than a millisecond.
const LONGEST: Duration = Duration::from_secs(60);

/// A watch over the cases of one campaign.
pub(super) struct Watch {
    current: Arc<AtomicU64>,
    /// Holds the number of the case under way: whoever finds the process dead finds it here.
    note: File,
}

impl Watch {
    pub(super) fn begin(campaign: &'static str) -> Watch {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{campaign}.case"));
        let note = File::create(path).expect("a file for the number of the case");
        let current = Arc::new(AtomicU64::new(u64::MAX));
        let watched = Arc::downgrade(&current);
        thread::spawn(move || {
            let mut last = u64::MAX;
            loop {
                thread::sleep(LONGEST);
                let Some(current) = watched.upgrade() else {
                    return;
                };
                let now = current.load(Ordering::Relaxed);
                if now == last {
                    eprintln!("{campaign}: seed {now} hangs: run it again with OURDB_SEED={now}");
                    std::process::abort();
                }
                last = now;
            }
        });
        Watch { current, note }
    }

    /// A case begins.
    pub(super) fn case(&self, number: u64) {
        self.current.store(number, Ordering::Relaxed);
        let text = format!("OURDB_SEED={number}\n");
        // The note is a help for people, and no promise of the library's.
        let _ = self.note.write_at(text.as_bytes(), 0);
    }
}
