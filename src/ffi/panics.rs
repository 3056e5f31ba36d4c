//! Stops panics: none unwinds into C, and none prints into the host program's standard error.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::sync::{Once, OnceLock};

type Hook = Box<dyn Fn(&PanicHookInfo<'_>) + Sync + Send>;

static QUIET: Once = Once::new();
static HOST_HOOK: OnceLock<Hook> = OnceLock::new();

thread_local! {
    /// Whether this thread is inside a call from C.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
    /// What the hook saw of the panic that is on its way to `catch`.
    static SEEN: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs `body`; the text of its panic, if it panics.
pub(super) fn catch<T>(body: impl FnOnce() -> T) -> Result<T, String> {
    INSIDE.with(|inside| {
        let before = inside.replace(true);
        let outcome = panic::catch_unwind(AssertUnwindSafe(body));
        inside.set(before);
        outcome.map_err(|payload| {
            SEEN.try_with(RefCell::take)
                .ok()
                .flatten()
                .unwrap_or_else(|| text_of(&*payload).to_owned())
        })
    })
}

/// From now on a panic inside [`catch`] is written down and not printed. All others go to the hook
/// that was there before: a Rust program may use this crate too.
pub(super) fn keep_quiet() {
    QUIET.call_once(|| {
        HOST_HOOK.get_or_init(panic::take_hook);
        panic::set_hook(Box::new(hook));
    });
}

fn hook(info: &PanicHookInfo<'_>) {
    if INSIDE.get() {
        let text = text_of(info.payload());
        let text = match info.location() {
            Some(place) => format!("{text} ({}:{})", place.file(), place.line()),
            None => text.to_owned(),
        };
        let _ = SEEN.try_with(|seen| seen.replace(Some(text)));
    } else if let Some(host_hook) = HOST_HOOK.get() {
        host_hook(info);
    }
}

fn text_of(payload: &(dyn Any + Send)) -> &str {
    if let Some(text) = payload.downcast_ref::<&str>() {
        text
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text
    } else {
        "a panic without a text"
    }
}
