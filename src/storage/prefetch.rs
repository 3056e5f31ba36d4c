//! Asking the processor to fetch memory before it is needed.

/// Begins to load the cache line of `target`. A hint: no effect on what is read, and none at all
/// where the processor has no such instruction.
#[inline]
pub fn prefetch<T>(target: &T) {
    prefetch_at(std::ptr::from_ref(target).cast());
}

#[inline]
fn prefetch_at(target: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch reads nothing architecturally, wherever it points, and SSE is part of
        // x86-64.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(target.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = target;
}

/// What a processor loads at a time, in bytes.
const CACHE_LINE: usize = 64;

/// Begins to load `len` bytes that come `distance` after the first one of `bytes`, if there are any.
#[inline]
pub fn prefetch_ahead(bytes: &[u8], distance: usize, len: usize) {
    prefetch_span(bytes.as_ptr().wrapping_add(distance), len);
}

/// Begins to load `len` bytes from `start`, which may be anywhere: what can't be read is not loaded.
/// How many steps it takes depends on the length alone, which the processor can foresee; how many
/// lines the bytes lie in can't be.
#[inline]
pub(super) fn prefetch_span(start: *const u8, len: usize) {
    let mut offset = 0;
    while offset < len {
        prefetch_at(start.wrapping_add(offset));
        offset += CACHE_LINE;
    }
    prefetch_at(start.wrapping_add(len.saturating_sub(1)));
}
