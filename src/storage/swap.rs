//! A value that is replaced while others read it.

use std::marker::PhantomData;
use std::ops::Deref;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, Ordering};

use super::grace;

/// Holds a value that any number of threads read without a lock, and that can be replaced
/// meanwhile.
#[derive(Debug)]
pub struct Swap<T> {
    /// From [`Arc::into_raw`]; one of the value's owners.
    current: AtomicPtr<T>,
    owner: PhantomData<Arc<T>>,
}

/// The value, for as long as this lives. Short: who replaces the value waits for it.
#[derive(Debug)]
pub struct Reading<'a, T> {
    value: &'a T,
    _reading: grace::Reading,
}

impl<T> Swap<T> {
    /// Holds `value`.
    pub fn new(value: Arc<T>) -> Swap<T> {
        Swap {
            current: AtomicPtr::new(Arc::into_raw(value).cast_mut()),
            owner: PhantomData,
        }
    }

    /// The value that is there now. A few instructions, without a lock or an atomic change.
    #[inline(always)]
    pub fn read(&self) -> Reading<'_, T> {
        let reading = grace::Reading::begin();
        // SAFETY: from `Arc::into_raw`. Whoever replaces it keeps it until this thread, which has
        // just begun to read, has come out.
        let value = unsafe { &*self.current.load(Ordering::Acquire) };
        Reading {
            value,
            _reading: reading,
        }
    }

    /// Another owner of the value that is there now, for a longer time.
    pub fn load(&self) -> Arc<T> {
        let reading = self.read();
        let value = ptr::from_ref(reading.value);
        // SAFETY: from `Arc::into_raw`, and alive as long as `reading` is.
        unsafe {
            Arc::increment_strong_count(value);
            Arc::from_raw(value)
        }
    }

    /// Replaces the value. Those who read see the old or the new one; the old one is given back
    /// when nobody reads it any more, but owners of it that [`Swap::load`] made. One thread at a
    /// time.
    pub fn replace(&self, value: Arc<T>) -> Replaced<T> {
        let new = Arc::into_raw(value).cast_mut();
        let old = self.current.swap(new, Ordering::AcqRel);
        // SAFETY: from `Arc::into_raw`, in `new` or here; the owner that it was is taken over.
        Replaced(Some(unsafe { Arc::from_raw(old) }))
    }
}

/// A value that was replaced. When this is dropped, which waits for all who read, its owner is too.
#[derive(Debug)]
pub struct Replaced<T>(Option<Arc<T>>);

impl<T> Drop for Replaced<T> {
    fn drop(&mut self) {
        if !grace::wait() {
            // This thread itself reads it, further up: then it stays for good.
            std::mem::forget(self.0.take());
        }
    }
}

impl<T> Drop for Swap<T> {
    fn drop(&mut self) {
        // SAFETY: from `Arc::into_raw`; that nobody reads says `&mut self`.
        drop(unsafe { Arc::from_raw(*self.current.get_mut()) });
    }
}

impl<T> Deref for Reading<'_, T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        self.value
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

    /// Says when it is dropped, by what readers can see.
    struct Value {
        alive: u64,
    }

    impl Drop for Value {
        fn drop(&mut self) {
            self.alive = 0;
        }
    }

    #[test]
    fn readers_never_see_a_value_that_is_gone() {
        grace::register();
        let swap = Swap::new(Arc::new(Value { alive: 1 }));
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        let value = swap.read();
                        let nested = swap.read();
                        assert!(value.alive > 0 && nested.alive >= value.alive);
                        drop(nested);
                        assert!(value.alive > 0);
                        assert!(swap.load().alive > 0);
                    }
                });
            }
            for number in 2..3000 {
                drop(swap.replace(Arc::new(Value { alive: number })));
            }
            stop.store(true, Ordering::Relaxed);
        });
    }

    #[test]
    fn who_reads_may_replace() {
        let swap = Swap::new(Arc::new(Value { alive: 1 }));
        let value = swap.read();
        drop(swap.replace(Arc::new(Value { alive: 2 })));
        assert_eq!((value.alive, swap.read().alive), (1, 2));
    }
}
