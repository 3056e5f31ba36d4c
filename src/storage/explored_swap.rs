//! `swap.rs` for shuttle, which knows nothing of fences and slots: a lock, and owners.

use std::ops::Deref;
use std::sync::Arc;

use crate::sync::{Mutex, PoisonError};

/// See `swap.rs`.
#[derive(Debug)]
pub struct Swap<T>(Mutex<Arc<T>>);

/// See `swap.rs`.
#[derive(Debug)]
pub struct Reading<'a, T> {
    value: Arc<T>,
    swap: std::marker::PhantomData<&'a T>,
}

/// See `swap.rs`.
#[derive(Debug)]
pub struct Replaced<T>(#[allow(dead_code, reason = "it is the owner")] Arc<T>);

impl<T> Swap<T> {
    /// Holds `value`.
    pub fn new(value: Arc<T>) -> Swap<T> {
        Swap(Mutex::new(value))
    }

    /// The value that is there now.
    pub fn read(&self) -> Reading<'_, T> {
        Reading {
            value: self.load(),
            swap: std::marker::PhantomData,
        }
    }

    /// The value that is there now.
    pub fn load(&self) -> Arc<T> {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces the value.
    pub fn replace(&self, value: Arc<T>) -> Replaced<T> {
        let mut current = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Replaced(std::mem::replace(&mut *current, value))
    }
}

impl<T> Deref for Reading<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}
