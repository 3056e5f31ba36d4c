//! hurrahdb 0.1: a map of strings in memory and a log of lines.
//!
//! All records are in a `HashMap<String, String>` in memory, and every opening reads the whole log
//! to make it. A set or delete is one write(2) of its lines; nothing is ever synced, whatever its
//! `sync_time` says, and nothing has a checksum, so it has no durable mode. Keys are strings, here
//! the id in decimal. Values are kept as JSON, in memory too; the bytes go in as a string in Base64,
//! a third longer than they are, because JSON has no bytes. It has no batches, no listing of keys and
//! no compaction: its log only grows. Safe Rust can't share it between threads.

use crate::engine::{Durability, Engine, Failure, Outcome, Session, Setup, VALUE, Value};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hurrahdb::{AofConfig, Config, Storage, Type};
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use tokio::runtime::{Builder, Runtime};

/// How often it flushes what it doesn't buffer; nothing depends on it.
const SYNC_MILLISECONDS: u64 = 1000;

/// Opens the store.
pub fn open(setup: &Setup) -> Outcome<Box<dyn Engine>> {
    if setup.durability == Durability::Durable {
        return Err(Failure::Declined);
    }
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_time()
        .build()?;
    let file_name = setup
        .directory
        .join("records.aof")
        .to_string_lossy()
        .into_owned();
    let config = Config {
        aof_config: Some(AofConfig {
            sync_time: SYNC_MILLISECONDS,
            file_name,
        }),
        persistance_type: Type::Aof,
    };
    let entered = runtime.enter();
    let storage = Storage::new(Some(config)).map_err(broken)?;
    drop(entered);
    Ok(Box::new(Hurrahdb {
        storage,
        _runtime: runtime,
    }))
}

struct Hurrahdb {
    storage: Storage,
    /// Runs its task that flushes, which it starts when it is opened.
    _runtime: Runtime,
}

impl Engine for Hurrahdb {
    fn session(&self) -> Outcome<Box<dyn Session + '_>> {
        Ok(Box::new(self))
    }

    fn close(self: Box<Self>) -> Outcome {
        Ok(())
    }
}

impl Session for &Hurrahdb {
    fn set(&mut self, id: u32, value: &Value) -> Outcome {
        self.storage
            .set(id.to_string(), &Text(*value))
            .map_err(broken)
    }

    fn get(&mut self, id: u32, out: &mut Value) -> Outcome<bool> {
        match self.storage.get::<Text>(id.to_string()).map_err(broken)? {
            Some(text) => {
                *out = text.0;
                Ok(true)
            }
            None => Ok(false),
        }
    }

    fn delete(&mut self, id: u32) -> Outcome {
        self.storage.del(&id.to_string());
        Ok(())
    }
}

/// A value that is text outside the program.
struct Text(Value);

/// What the text of a value takes.
const TEXT: usize = VALUE.div_ceil(3) * 4;

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut text = [0; TEXT];
        let len = STANDARD
            .encode_slice(self.0, &mut text)
            .map_err(serde::ser::Error::custom)?;
        let text = std::str::from_utf8(&text[..len]).map_err(serde::ser::Error::custom)?;
        serializer.serialize_str(text)
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Text, D::Error> {
        deserializer.deserialize_str(TextVisitor)
    }
}

struct TextVisitor;

impl Visitor<'_> for TextVisitor {
    type Value = Text;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("a string in Base64")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Text, E> {
        // The decoder wants room for whole groups of four letters.
        let mut value = [0; TEXT / 4 * 3];
        let len = STANDARD.decode_slice(text, &mut value).map_err(E::custom)?;
        value[..len].try_into().map(Text).map_err(E::custom)
    }
}

fn broken(error: Box<dyn std::error::Error>) -> Failure {
    Failure::Broken(error.to_string())
}
