//! Directories that V and Go wrote, opened as databases: everything that was in them is there,
//! they are gone on with, and the originals can read what comes out.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::golden_directories::{self, Golden};
use crate::support::TempDirectory;
use crate::support::herolib::{Herolib, Port, Settings};
use ourdb::{Db, Error, LookupKind, Options, State};

/// What must be in a database: per id all values, newest first.
type Contents = BTreeMap<u32, Vec<Vec<u8>>>;

fn contents(golden: &Golden) -> Contents {
    let live = golden.live().into_iter();
    live.map(|(id, expected)| (id, expected.history)).collect()
}

fn data_files(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if name.ends_with(".db") && entry.file_type().unwrap().is_file() {
            files.insert(name, fs::read(entry.path()).unwrap());
        }
    }
    files
}

fn check(db: &Db, expected: &Contents, absent: &[u32], what: &str) {
    assert_eq!(db.count().unwrap(), expected.len() as u64, "{what}: count");
    for (&id, versions) in expected {
        assert!(db.contains(id).unwrap(), "{what}: id {id}");
        assert!(
            db.get(id).unwrap() == versions[0],
            "{what}: value of id {id}"
        );
        let history = db.history(id, 0).unwrap();
        let values: Vec<_> = history
            .iter()
            .filter(|record| record.state == State::Live)
            .map(|record| record.value.to_vec())
            .collect();
        assert!(values == *versions, "{what}: history of id {id}");
    }
    for &id in absent {
        assert!(!db.contains(id).unwrap(), "{what}: id {id}");
        assert!(
            matches!(
                db.get(id),
                Err(Error::NotFound(_) | Error::IdOutOfRange { .. })
            ),
            "{what}: id {id}"
        );
    }
    let ids: Vec<u32> = std::iter::successors(db.first().ok(), |&id| db.above(id).ok()).collect();
    assert!(ids.iter().eq(expected.keys()), "{what}: {ids:?} in order");
}

/// What herolib wrote has no commit and no time.
fn check_unknown_origin(db: &Db, expected: &Contents, what: &str) {
    for &id in expected.keys() {
        for record in db.history(id, 0).unwrap().iter() {
            assert_eq!((record.commit, record.time_us), (0, 0), "{what}: id {id}");
        }
    }
}

#[test]
fn a_golden_directory_opens_and_is_gone_on_with() {
    for golden in golden_directories::all()
        .iter()
        .filter(|golden| golden.is_described())
    {
        for lookup in [LookupKind::Memory, LookupKind::Disk] {
            go_on_with(golden, lookup);
        }
    }
}

fn go_on_with(golden: &Golden, lookup: LookupKind) {
    let name = &golden.name;
    let directory = TempDirectory::new();
    let path = directory.path();
    golden.copy_to(path);
    let originals = data_files(path);
    let options = Options {
        lookup,
        ..Options::default()
    };
    let mut expected = contents(golden);
    let absent = golden.absent();

    let db = Db::open(
        path,
        &Options {
            read_only: true,
            ..options.clone()
        },
    )
    .unwrap();
    check(&db, &expected, &absent, &format!("{name}, read-only"));
    db.close().unwrap();
    assert_eq!(
        data_files(path),
        originals,
        "{name}: a read-only open changes nothing"
    );
    assert!(
        !path.join("MANIFEST").exists(),
        "{name}: a read-only open adds nothing"
    );

    for what in ["opened", "opened again"] {
        let db = Db::open(path, &options).unwrap();
        check(&db, &expected, &absent, &format!("{name}, {what}"));
        check_unknown_origin(&db, &expected, name);
        assert_eq!(db.last_commit().unwrap(), 0, "{name}");
        if let Some(next_id) = golden.next_id() {
            assert_eq!(db.next_id().unwrap(), next_id, "{name}");
        } else {
            assert!(
                matches!(db.next_id(), Err(Error::WrongMode { .. })),
                "{name}"
            );
        }
        db.close().unwrap();
    }

    let db = Db::open(path, &options).unwrap();
    let ids: Vec<u32> = expected.keys().copied().collect();
    for (index, &id) in ids.iter().enumerate() {
        if index % 3 == 0 {
            let value = format!("written over what {name} had").into_bytes();
            db.set(id, &value).unwrap();
            expected.get_mut(&id).unwrap().insert(0, value);
        }
    }
    let deleted = ids.get(1).copied();
    if let Some(id) = deleted {
        db.delete(id).unwrap();
        expected.remove(&id);
    }
    let next_id = match golden.next_id() {
        Some(next_id) => {
            assert_eq!(db.insert(b"inserted").unwrap(), next_id, "{name}");
            expected.insert(next_id, vec![b"inserted".to_vec()]);
            Some(next_id + 1)
        }
        None => {
            db.set(77, b"a new id").unwrap();
            expected.insert(77, vec![b"a new id".to_vec()]);
            None
        }
    };
    check(
        &db,
        &expected,
        deleted.as_slice(),
        &format!("{name}, written to"),
    );
    // The process dies, then the database is closed in order.
    drop(db);
    for what in ["after a crash", "after a close"] {
        let db = Db::open(path, &options).unwrap();
        check(
            &db,
            &expected,
            deleted.as_slice(),
            &format!("{name}, {what}"),
        );
        if let Some(next_id) = next_id {
            assert_eq!(db.next_id().unwrap(), next_id, "{name}");
        }
        db.close().unwrap();
    }
    let files = data_files(path);
    for (file, bytes) in &originals {
        assert!(files[file] == *bytes, "{name}: {file} was changed");
    }
    v_reads(path, &expected, next_id, name);
}

/// V, with its own defaults, reads every value and history, but for empty ones.
fn v_reads(path: &Path, expected: &Contents, next_id: Option<u32>, name: &str) {
    let settings = Settings {
        incremental: next_id.is_some(),
        ..Settings::DEFAULT
    };
    let mut v = Herolib::open(path, settings, Port::V).unwrap();
    let mut go = Herolib::open(path, settings, Port::Go).unwrap();
    assert_eq!(v.next_id().ok(), next_id, "{name}");
    for (&id, versions) in expected {
        assert!(go.get(id).unwrap() == versions[0], "{name}: id {id} in Go");
        assert!(
            go.history(id, 255).unwrap() == *versions,
            "{name}: history of id {id} in Go"
        );
        if versions.iter().all(|value| !value.is_empty()) {
            assert!(v.get(id).unwrap() == versions[0], "{name}: id {id} in V");
            assert!(
                v.history(id, 255).unwrap() == *versions,
                "{name}: history of id {id} in V"
            );
        }
    }
}

#[test]
fn damaged_records_are_errors_and_the_others_are_read() {
    for (name, damaged) in [("vbad_corrupt_byte", 3), ("vbad_delete_wrong_file", 7)] {
        let Some(golden) = golden_directories::named(name) else {
            return;
        };
        let directory = TempDirectory::new();
        golden.copy_to(directory.path());
        let db = Db::open(directory.path(), &Options::default()).unwrap();
        for (id, expected) in golden.json["v_returns"].as_object().unwrap() {
            let id: u32 = id.parse().unwrap();
            let value = &expected["value"];
            if !value.is_null() {
                assert_eq!(
                    db.get(id).unwrap(),
                    golden_directories::bytes(value),
                    "{name}: id {id}"
                );
            } else if id == damaged {
                assert!(
                    matches!(db.get(id), Err(Error::Corrupt { .. })),
                    "{name}: id {id}"
                );
            } else {
                assert!(
                    matches!(db.get(id), Err(Error::NotFound(_))),
                    "{name}: id {id}"
                );
            }
            if let Some(history) = expected["history"].as_array() {
                let found = db.history(id, 0).unwrap();
                let found: Vec<_> = found.iter().map(|record| record.value.to_vec()).collect();
                let history: Vec<_> = history.iter().map(golden_directories::bytes).collect();
                assert_eq!(found, history, "{name}: id {id}");
            }
            if !expected["history_error"].is_null() {
                assert!(
                    matches!(db.history(id, 0), Err(Error::Corrupt { .. })),
                    "{name}: id {id}"
                );
                assert_eq!(db.history(id, 1).unwrap().len(), 1, "{name}: id {id}");
            }
        }
        // A damaged record can be written over, and deleted.
        db.set(damaged, b"repaired").unwrap();
        assert_eq!(db.get(damaged).unwrap(), b"repaired");
        db.delete(damaged).unwrap();
        db.close().unwrap();
    }
}

#[test]
fn what_the_originals_left_without_a_dump_is_adopted() {
    for (name, values) in [("go_asis_nodump_ks6_inc", 15), ("vbad_nodump", 20)] {
        let Some(golden) = golden_directories::named(name) else {
            return;
        };
        let directory = TempDirectory::new();
        let path = directory.path();
        golden.copy_to(path);
        let originals = data_files(path);
        for options in [
            Options::default(),
            Options {
                must_exist: true,
                ..Options::default()
            },
        ] {
            assert!(
                matches!(Db::open(path, &options), Err(Error::Incompatible(_))),
                "{name}"
            );
        }
        let options = Options {
            adopt: true,
            ..Options::default()
        };
        let key_value = Options {
            key_value: true,
            ..options.clone()
        };
        match Db::open(path, &key_value) {
            Err(Error::Incompatible(why)) => assert!(why.contains("nowhere else"), "{why}"),
            other => panic!(
                "{name}: {:?}",
                other.map(|_| "opened").map_err(|e| e.to_string())
            ),
        }
        let found = fs::read_dir(path).unwrap().count();
        assert_eq!(
            found,
            originals.len(),
            "{name}: what is refused is left as it is"
        );

        let db = Db::open(path, &options).unwrap();
        assert_eq!(db.next_id().unwrap(), values + 1, "{name}");
        assert_eq!(db.count().unwrap(), u64::from(values), "{name}");
        for id in 1..=values {
            let expected = match &golden.json["values_in_file_before_loss"][id.to_string()] {
                serde_json::Value::Null if id == 3 => b"rec2-new".to_vec(),
                serde_json::Value::Null => format!("rec{}", id - 1).into_bytes(),
                value => golden_directories::bytes(value),
            };
            assert_eq!(db.get(id).unwrap(), expected, "{name}: id {id}");
        }
        assert_eq!(db.insert(b"one more").unwrap(), values + 1, "{name}");
        db.close().unwrap();
        // Once it is a database, it opens as one.
        let db = Db::open(path, &Options::default()).unwrap();
        assert_eq!(db.get(values + 1).unwrap(), b"one more", "{name}");
        db.close().unwrap();
        assert_eq!(data_files(path)["0.db"], originals["0.db"], "{name}");
    }
}
