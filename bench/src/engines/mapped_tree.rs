//! What LMDB and libmdbx have in common: a mapped B+ tree with one writer, transactions for all
//! that is done, and nearly the same functions under other names.

use std::ffi::{c_int, c_uint, c_void};
use std::marker::PhantomData;
use std::ptr::null_mut;

use crate::engine::{
    Durability, Engine, Failure, Outcome, Session, Setup, Value, copy, id, key, wrong,
};

/// Where a cursor goes.
#[derive(Clone, Copy)]
pub(super) enum Go {
    First,
    Next,
    /// To the key that was given, or the next one.
    From,
}

/// Bytes that are passed in, or lent by the tree until its transaction ends.
#[derive(Clone, Copy)]
pub(super) struct Bytes {
    pub(super) data: *const u8,
    pub(super) len: usize,
}

impl Bytes {
    fn of(bytes: &[u8]) -> Bytes {
        Bytes {
            data: bytes.as_ptr(),
            len: bytes.len(),
        }
    }

    /// # Safety
    ///
    /// The transaction that lends them is open for as long.
    unsafe fn get<'a>(self) -> &'a [u8] {
        // SAFETY: so many bytes, as the store says; for so long, as the caller says.
        unsafe { std::slice::from_raw_parts(self.data, self.len) }
    }
}

/// The functions of one of them, whose results are codes. Transactions, cursors and the environment
/// are its pointers.
///
/// # Safety
///
/// Each does what the function of the same name in `lmdb.h` is said to do, under the same
/// conditions. A read transaction may go from thread to thread.
pub(super) unsafe trait Api {
    /// The code of a key that isn't there.
    const NOT_FOUND: c_int;

    unsafe fn open(setup: &Setup, writable_map: bool) -> Outcome<*mut c_void>;
    unsafe fn close(env: *mut c_void) -> c_int;
    unsafe fn message(code: c_int) -> String;
    unsafe fn begin(env: *mut c_void, read_only: bool, txn: *mut *mut c_void) -> c_int;
    unsafe fn commit(txn: *mut c_void) -> c_int;
    unsafe fn abort(txn: *mut c_void);
    unsafe fn reset(txn: *mut c_void);
    unsafe fn renew(txn: *mut c_void) -> c_int;
    unsafe fn open_table(txn: *mut c_void, table: *mut c_uint) -> c_int;
    unsafe fn put(txn: *mut c_void, table: c_uint, key: Bytes, value: Bytes) -> c_int;
    unsafe fn delete(txn: *mut c_void, table: c_uint, key: Bytes) -> c_int;
    unsafe fn get(txn: *mut c_void, table: c_uint, key: Bytes, value: &mut Bytes) -> c_int;
    unsafe fn open_cursor(txn: *mut c_void, table: c_uint, cursor: *mut *mut c_void) -> c_int;
    unsafe fn close_cursor(cursor: *mut c_void);
    unsafe fn go(cursor: *mut c_void, go: Go, key: &mut Bytes, value: &mut Bytes) -> c_int;
}

/// The size of the map, which the file may grow to: enough for every record to be rewritten.
pub(super) fn map_size(setup: &Setup) -> usize {
    (1 << 30) + setup.records as usize * 600
}

/// Readers at the same time.
pub(super) const READERS: c_uint = 64;

/// Whether the store itself is to sync.
pub(super) fn durable(setup: &Setup) -> bool {
    setup.durability == Durability::Durable
}

pub(super) fn check<A: Api>(code: c_int) -> Outcome {
    if code == 0 {
        return Ok(());
    }
    // SAFETY: any code has a message.
    Err(Failure::Broken(unsafe { A::message(code) }))
}

/// False if a key isn't there.
fn found<A: Api>(code: c_int) -> Outcome<bool> {
    if code == A::NOT_FOUND {
        Ok(false)
    } else {
        check::<A>(code).map(|()| true)
    }
}

struct Tree<A> {
    env: *mut c_void,
    table: c_uint,
    api: PhantomData<A>,
}

// SAFETY: an environment may be used by all threads; a transaction belongs to one session.
unsafe impl<A> Sync for Tree<A> {}

pub(super) fn open<A: Api + 'static>(
    setup: &Setup,
    writable_map: bool,
) -> Outcome<Box<dyn Engine>> {
    // SAFETY: the directory isn't open; the transaction ends here.
    unsafe {
        let mut tree = Tree::<A> {
            env: A::open(setup, writable_map)?,
            table: 0,
            api: PhantomData,
        };
        let mut txn = null_mut();
        check::<A>(A::begin(tree.env, false, &mut txn))?;
        check::<A>(A::open_table(txn, &mut tree.table))?;
        check::<A>(A::commit(txn))?;
        Ok(Box::new(tree))
    }
}

impl<A: Api + 'static> Engine for Tree<A> {
    fn session(&self) -> Outcome<Box<dyn Session + '_>> {
        let mut reader = null_mut();
        // SAFETY: the environment is open; the session ends what begins here.
        unsafe {
            check::<A>(A::begin(self.env, true, &mut reader))?;
            A::reset(reader);
        }
        Ok(Box::new(TreeSession { tree: self, reader }))
    }

    fn shared(&self) -> Option<&(dyn Engine + Sync)> {
        Some(self)
    }

    fn close(self: Box<Self>) -> Outcome {
        // SAFETY: sessions borrow the tree, so all of them have ended.
        check::<A>(unsafe { A::close(self.env) })
    }
}

/// A thread's read transaction, which is renewed for each read: what the manuals advise.
struct TreeSession<'a, A: Api> {
    tree: &'a Tree<A>,
    reader: *mut c_void,
}

impl<A: Api> Drop for TreeSession<'_, A> {
    fn drop(&mut self) {
        // SAFETY: it was reset, and isn't used again.
        unsafe { A::abort(self.reader) }
    }
}

impl<A: Api> TreeSession<'_, A> {
    /// Reads as of one moment.
    fn read<T>(&mut self, read: impl FnOnce(*mut c_void) -> Outcome<T>) -> Outcome<T> {
        // SAFETY: it was reset, and is again afterwards.
        check::<A>(unsafe { A::renew(self.reader) })?;
        let outcome = read(self.reader);
        // SAFETY: nothing that it has lent is left.
        unsafe { A::reset(self.reader) };
        outcome
    }

    /// Writes in one commit.
    fn write(&self, write: impl FnOnce(*mut c_void) -> Outcome) -> Outcome {
        let mut txn = null_mut();
        // SAFETY: the environment is open; the transaction ends here.
        unsafe {
            check::<A>(A::begin(self.tree.env, false, &mut txn))?;
            match write(txn) {
                Ok(()) => check::<A>(A::commit(txn)),
                failed => {
                    A::abort(txn);
                    failed
                }
            }
        }
    }

    fn put(&self, txn: *mut c_void, id: u32, value: &Value) -> Outcome {
        // SAFETY: a transaction that is open for writing; the bytes live during the call.
        check::<A>(unsafe { A::put(txn, self.tree.table, Bytes::of(&key(id)), Bytes::of(value)) })
    }

    fn copy_one(table: c_uint, txn: *mut c_void, id: u32, out: &mut Value) -> Outcome<bool> {
        let mut value = Bytes::of(&[]);
        // SAFETY: a transaction that is open until after the copy.
        unsafe {
            Ok(
                found::<A>(A::get(txn, table, Bytes::of(&key(id)), &mut value))?
                    && copy(value.get(), out).map(|()| true)?,
            )
        }
    }

    /// Goes over the tree until `visit` returns false.
    fn walk(
        &mut self,
        mut go: Go,
        from: u32,
        visit: &mut dyn FnMut(u32, &[u8]) -> bool,
    ) -> Outcome {
        let table = self.tree.table;
        self.read(|txn| {
            let (start, mut cursor) = (key(from), null_mut());
            let (mut key, mut value) = (Bytes::of(&start), Bytes::of(&[]));
            // SAFETY: a transaction that is open until after the cursor is closed; a cursor that is
            // open; what it lends is looked at before it goes on.
            unsafe {
                check::<A>(A::open_cursor(txn, table, &mut cursor))?;
                let mut outcome = found::<A>(A::go(cursor, go, &mut key, &mut value));
                go = Go::Next;
                while let Ok(true) = outcome {
                    outcome = match id(key.get()) {
                        Ok(id) if !visit(id, value.get()) => break,
                        Ok(_) => found::<A>(A::go(cursor, go, &mut key, &mut value)),
                        Err(failure) => Err(failure),
                    };
                }
                A::close_cursor(cursor);
                outcome.map(|_| ())
            }
        })
    }
}

impl<A: Api> Session for TreeSession<'_, A> {
    fn set(&mut self, id: u32, value: &Value) -> Outcome {
        self.write(|txn| self.put(txn, id, value))
    }

    fn set_many(&mut self, ids: &[u32], values: &[Value]) -> Outcome {
        self.write(|txn| {
            ids.iter()
                .zip(values)
                .try_for_each(|(&id, value)| self.put(txn, id, value))
        })
    }

    fn get(&mut self, id: u32, out: &mut Value) -> Outcome<bool> {
        let table = self.tree.table;
        self.read(|txn| Self::copy_one(table, txn, id, out))
    }

    fn get_many(&mut self, ids: &[u32], out: &mut [Value]) -> Outcome {
        let table = self.tree.table;
        self.read(|txn| {
            for (&id, out) in ids.iter().zip(out) {
                if !Self::copy_one(table, txn, id, out)? {
                    return Err(wrong("no record"));
                }
            }
            Ok(())
        })
    }

    fn delete(&mut self, id: u32) -> Outcome {
        let table = self.tree.table;
        // SAFETY: a transaction that is open for writing.
        self.write(|txn| check::<A>(unsafe { A::delete(txn, table, Bytes::of(&key(id))) }))
    }

    fn scan(&mut self, visit: &mut dyn FnMut(u32, &[u8]) -> bool) -> Outcome {
        self.walk(Go::First, 0, visit)
    }

    fn scan_keys(&mut self, visit: &mut dyn FnMut(u32) -> bool) -> Outcome {
        self.walk(Go::First, 0, &mut |id, _| visit(id))
    }

    fn above(&mut self, id: u32) -> Outcome<Option<u32>> {
        let Some(from) = id.checked_add(1) else {
            return Ok(None);
        };
        let mut above = None;
        self.walk(Go::From, from, &mut |id, _| {
            above = Some(id);
            false
        })?;
        Ok(above)
    }
}
