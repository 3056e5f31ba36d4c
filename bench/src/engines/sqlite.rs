//! SQLite, Debian's libsqlite3: a table with the id as its key, a write-ahead log, statements that
//! are prepared once for each thread's connection.

use std::ffi::{CStr, CString, c_int};
use std::ptr::{null, null_mut};

use libsqlite3_sys as c;

use super::CACHE;
use crate::engine::{
    Durability, Engine, Failure, Outcome, Session, Setup, VALUE, Value, copy, wrong,
};

/// Half the work of a REPLACE, which deletes first.
const UPSERT: &CStr =
    c"INSERT INTO records VALUES (?1, ?2) ON CONFLICT (id) DO UPDATE SET value = excluded.value";
/// How long a connection waits for another one's write, in milliseconds.
const WAIT: c_int = 60_000;

struct Sqlite {
    path: CString,
    pragmas: CString,
    /// Keeps the database open between sessions.
    own: Connection,
}

// SAFETY: sessions only read the texts; the connection is used by nobody until it is closed.
unsafe impl Sync for Sqlite {}

/// An open connection.
struct Connection(*mut c::sqlite3);

impl Drop for Connection {
    fn drop(&mut self) {
        // SAFETY: its statements have ended; it isn't used again.
        unsafe { c::sqlite3_close(self.0) };
    }
}

impl Connection {
    fn open(path: &CStr, pragmas: &CStr) -> Outcome<Connection> {
        let mut connection = Connection(null_mut());
        let flags = c::SQLITE_OPEN_READWRITE | c::SQLITE_OPEN_CREATE | c::SQLITE_OPEN_NOMUTEX;
        // SAFETY: texts that end in zero; a connection for one thread.
        unsafe {
            let code = c::sqlite3_open_v2(path.as_ptr(), &mut connection.0, flags, null());
            connection.check(code)?;
            connection.check(c::sqlite3_busy_timeout(connection.0, WAIT))?;
        }
        connection.execute(pragmas)?;
        Ok(connection)
    }

    fn execute(&self, statements: &CStr) -> Outcome {
        // SAFETY: a connection that is open, used by this thread alone; no callback.
        self.check(unsafe {
            c::sqlite3_exec(self.0, statements.as_ptr(), None, null_mut(), null_mut())
        })
    }

    fn check(&self, code: c_int) -> Outcome {
        match code {
            c::SQLITE_OK | c::SQLITE_ROW | c::SQLITE_DONE => Ok(()),
            // SAFETY: a text that is valid until the next call.
            _ => Err(Failure::Broken(
                unsafe { CStr::from_ptr(c::sqlite3_errmsg(self.0)) }
                    .to_string_lossy()
                    .into_owned(),
            )),
        }
    }

    fn prepare(&self, text: &CStr) -> Outcome<Statement> {
        let mut statement = Statement(null_mut());
        // SAFETY: a connection that is open; a text that ends in zero.
        self.check(unsafe {
            c::sqlite3_prepare_v2(self.0, text.as_ptr(), -1, &mut statement.0, null_mut())
        })?;
        Ok(statement)
    }
}

/// A prepared statement.
struct Statement(*mut c::sqlite3_stmt);

impl Drop for Statement {
    fn drop(&mut self) {
        // SAFETY: it isn't used again.
        unsafe { c::sqlite3_finalize(self.0) };
    }
}

impl Statement {
    /// Fills in the id, and the value if there is one.
    fn bind(&self, id: u32, value: Option<&Value>) {
        // SAFETY: a statement with these places; the value outlives its step. With an id in range
        // neither can fail, but for memory, which the step would notice.
        unsafe {
            c::sqlite3_bind_int64(self.0, 1, id.into());
            if let Some(value) = value {
                c::sqlite3_bind_blob(
                    self.0,
                    2,
                    value.as_ptr().cast(),
                    VALUE as c_int,
                    c::SQLITE_STATIC(),
                );
            }
        }
    }

    /// Whether there is one more row.
    fn step(&self, connection: &Connection) -> Outcome<bool> {
        // SAFETY: a statement of this connection.
        let code = unsafe { c::sqlite3_step(self.0) };
        connection.check(code)?;
        Ok(code == c::SQLITE_ROW)
    }

    fn id(&self) -> Outcome<u32> {
        // SAFETY: there is a row.
        Ok(u32::try_from(unsafe {
            c::sqlite3_column_int64(self.0, 0)
        })?)
    }

    /// The bytes of a column, until the next step.
    fn bytes(&self, column: c_int) -> &[u8] {
        // SAFETY: there is a row, and the value isn't empty.
        unsafe {
            let data: *const u8 = c::sqlite3_column_blob(self.0, column).cast();
            let len = c::sqlite3_column_bytes(self.0, column) as usize;
            if data.is_null() {
                &[]
            } else {
                std::slice::from_raw_parts(data, len)
            }
        }
    }

    fn reset(&self) {
        // SAFETY: a statement; the code is that of its last step, which was looked at.
        unsafe { c::sqlite3_reset(self.0) };
    }
}

pub(super) fn version() -> String {
    // SAFETY: a text that stays.
    unsafe { CStr::from_ptr(c::sqlite3_libversion()) }
        .to_string_lossy()
        .into_owned()
}

pub(super) fn open(setup: &Setup) -> Outcome<Box<dyn Engine>> {
    let path = CString::new(
        setup
            .directory
            .join("records.sqlite")
            .as_os_str()
            .as_encoded_bytes(),
    )?;
    let synchronous = match setup.durability {
        Durability::Os => "OFF",
        Durability::Durable => "FULL",
    };
    let pragmas = format!(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = {synchronous}; PRAGMA cache_size = -{}; PRAGMA mmap_size = {CACHE};",
        CACHE / 1024
    );
    let pragmas = CString::new(pragmas)?;
    let own = Connection::open(&path, &pragmas)?;
    own.execute(
        c"CREATE TABLE IF NOT EXISTS records (id INTEGER PRIMARY KEY, value BLOB NOT NULL)",
    )?;
    Ok(Box::new(Sqlite { path, pragmas, own }))
}

impl Engine for Sqlite {
    fn session(&self) -> Outcome<Box<dyn Session + '_>> {
        let connection = Connection::open(&self.path, &self.pragmas)?;
        Ok(Box::new(SqliteSession {
            begin: connection.prepare(c"BEGIN IMMEDIATE")?,
            begin_read: connection.prepare(c"BEGIN")?,
            commit: connection.prepare(c"COMMIT")?,
            set: connection.prepare(UPSERT)?,
            get: connection.prepare(c"SELECT value FROM records WHERE id = ?1")?,
            delete: connection.prepare(c"DELETE FROM records WHERE id = ?1")?,
            scan: connection.prepare(c"SELECT id, value FROM records ORDER BY id")?,
            scan_keys: connection.prepare(c"SELECT id FROM records ORDER BY id")?,
            above: connection
                .prepare(c"SELECT id FROM records WHERE id > ?1 ORDER BY id LIMIT 1")?,
            connection,
        }))
    }

    fn shared(&self) -> Option<&(dyn Engine + Sync)> {
        Some(self)
    }

    fn close(self: Box<Self>) -> Outcome {
        // The last connection takes the log into the database when it goes.
        drop(self.own);
        Ok(())
    }
}

/// A connection and its statements, which go before it.
struct SqliteSession {
    begin: Statement,
    begin_read: Statement,
    commit: Statement,
    set: Statement,
    get: Statement,
    delete: Statement,
    scan: Statement,
    scan_keys: Statement,
    above: Statement,
    connection: Connection,
}

impl SqliteSession {
    /// Executes a statement without rows.
    fn run(&self, statement: &Statement) -> Outcome {
        let outcome = statement.step(&self.connection);
        statement.reset();
        outcome.map(|_| ())
    }

    /// Looks at the row of a statement that gives one or none.
    fn one<T>(
        &self,
        statement: &Statement,
        look: impl FnOnce(&Statement) -> Outcome<T>,
    ) -> Outcome<Option<T>> {
        let outcome = statement
            .step(&self.connection)
            .and_then(|row| row.then(|| look(statement)).transpose());
        statement.reset();
        outcome
    }

    /// Looks at all rows of a statement until `look` says false.
    fn rows(
        &self,
        statement: &Statement,
        mut look: impl FnMut(&Statement) -> Outcome<bool>,
    ) -> Outcome {
        let mut outcome = statement.step(&self.connection);
        while let Ok(true) = outcome {
            outcome = match look(statement) {
                Ok(true) => statement.step(&self.connection),
                stop => {
                    statement.reset();
                    return stop.map(|_| ());
                }
            };
        }
        statement.reset();
        outcome.map(|_| ())
    }
}

impl Session for SqliteSession {
    fn set(&mut self, id: u32, value: &Value) -> Outcome {
        self.set.bind(id, Some(value));
        self.run(&self.set)
    }

    fn set_many(&mut self, ids: &[u32], values: &[Value]) -> Outcome {
        self.run(&self.begin)?;
        for (&id, value) in ids.iter().zip(values) {
            self.set.bind(id, Some(value));
            self.run(&self.set)?;
        }
        self.run(&self.commit)
    }

    fn get(&mut self, id: u32, out: &mut Value) -> Outcome<bool> {
        self.get.bind(id, None);
        Ok(self
            .one(&self.get, |row| copy(row.bytes(0), out))?
            .is_some())
    }

    fn get_many(&mut self, ids: &[u32], out: &mut [Value]) -> Outcome {
        self.run(&self.begin_read)?;
        for (&id, out) in ids.iter().zip(out) {
            self.get.bind(id, None);
            self.one(&self.get, |row| copy(row.bytes(0), out))?
                .ok_or_else(|| wrong("no record"))?;
        }
        self.run(&self.commit)
    }

    fn delete(&mut self, id: u32) -> Outcome {
        self.delete.bind(id, None);
        self.run(&self.delete)
    }

    fn scan(&mut self, visit: &mut dyn FnMut(u32, &[u8]) -> bool) -> Outcome {
        self.rows(&self.scan, |row| Ok(visit(row.id()?, row.bytes(1))))
    }

    fn scan_keys(&mut self, visit: &mut dyn FnMut(u32) -> bool) -> Outcome {
        self.rows(&self.scan_keys, |row| Ok(visit(row.id()?)))
    }

    fn above(&mut self, id: u32) -> Outcome<Option<u32>> {
        self.above.bind(id, None);
        self.one(&self.above, Statement::id)
    }
}
