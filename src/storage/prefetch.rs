//! Asking the processor to fetch memory before it is needed.

/// Begins to load the cache line of `target`. A hint: no effect on what is read, and none at all
/// where the processor has no such instruction.
#[inline]
pub fn prefetch<T>(target: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch reads nothing architecturally, and SSE is part of x86-64.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(target).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = target;
}

/// What a processor loads at a time, in bytes.
const CACHE_LINE: usize = 64;

/// Begins to load all of `bytes`.
#[inline]
pub fn prefetch_all(bytes: &[u8]) {
    for line in bytes.chunks(CACHE_LINE) {
        prefetch(&line[0]);
    }
    // The bytes need not begin with a line, so the last one may end a line later.
    if let Some(last) = bytes.last() {
        prefetch(last);
    }
}
