//! Threads of our own in a program that isn't.

use std::io;
use std::mem::MaybeUninit;
use std::ptr;

use crate::sync::thread::{Builder, JoinHandle};

/// Starts a thread that takes no signals: they are for the host program's threads, whose handlers
/// may not expect to run here. Those that a fault in the thread itself would raise are not held off:
/// the host's crash handler is to be told of it.
pub fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    let mut all = MaybeUninit::uninit();
    let mut before = MaybeUninit::uninit();
    // SAFETY: sigfillset initializes `all`, and pthread_sigmask `before`, which is then set again;
    // both are signal sets of this function's. A new thread inherits the mask of its maker.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        for fault in [
            libc::SIGSEGV,
            libc::SIGBUS,
            libc::SIGILL,
            libc::SIGFPE,
            libc::SIGTRAP,
            libc::SIGSYS,
        ] {
            libc::sigdelset(all.as_mut_ptr(), fault);
        }
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
    }
    let thread = Builder::new().name(name.into()).spawn(body);
    // SAFETY: as above.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), ptr::null_mut()) };
    thread
}
