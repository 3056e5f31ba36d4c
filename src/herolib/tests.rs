//! Directories of V, of Go, and made up, read without the engine.

#[path = "../../tests/support/golden.rs"]
mod golden;
#[path = "../../tests/support/herolib.rs"]
#[allow(dead_code, reason = "shared: each user needs a part of it")]
mod herolib;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use self::herolib::{Herolib, Place, Port, Settings, record};
use super::reader::ReadRecord;
use super::*;
use crate::options::IoMode;
use crate::reader::Reader;
use crate::storage::memory::MemoryStorage;
use crate::storage::os::OsStorage;
use golden::Golden;

/// A directory for one test, removed at its end.
struct TempDirectory(PathBuf);

impl TempDirectory {
    fn new(name: &str) -> TempDirectory {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let unique = format!("ourdb-{name}-{}-{count}", std::process::id());
        let path = std::env::temp_dir().join(unique);
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        TempDirectory(path)
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDirectory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn storage(path: &Path) -> OsStorage {
    OsStorage::new(path, IoMode::Auto)
}

fn location((file, position): Place) -> Location {
    Location { file, position }
}

fn entries(adopted: Adopted) -> Vec<(u32, Location)> {
    adopted.entries().collect::<Result<_>>().unwrap()
}

fn width(adopted: &Adopted) -> Option<u8> {
    match &adopted.lookup {
        Lookup::Dump(entries) => Some(entries.width()),
        Lookup::Reconstructed(_) => None,
    }
}

/// The next id, and how many records there are.
fn counts(adopted: Adopted) -> (Option<u32>, usize) {
    (adopted.next_id, entries(adopted).len())
}

/// All versions from `newest` on back, as far as they hold.
fn history(storage: &dyn Storage, newest: Location) -> Vec<Vec<u8>> {
    let mut values = Vec::new();
    let mut at = newest;
    while !at.is_none() {
        let mut reader = Reader::random(storage, &data_file_name(at.file)).unwrap();
        let position = u64::from(at.position);
        let Some(header) = reader.header(position).unwrap() else {
            break;
        };
        if !reader.value_holds(position, &header).unwrap() {
            break;
        }
        let value = reader.bytes(position + record::HEADER as u64, u64::from(header.size));
        values.push(value.unwrap().to_vec());
        at = header.previous;
    }
    values
}

fn corrupt_at(result: Result<Adopted>) -> (String, u64, String) {
    match result {
        Err(Error::Corrupt { file, offset, what }) => {
            let file = file.rsplit('/').next().unwrap().to_owned();
            (file, offset, what.into_owned())
        }
        Err(error) => panic!("refused for another reason: {error}"),
        Ok(adopted) => panic!("taken: {:?}", counts(adopted)),
    }
}

mod names {
    use super::*;

    #[test]
    fn only_canonical_names_are_data_files() {
        let directory = TempDirectory::new("names");
        for name in [
            "0.db", "10.db", "9.db", "65535.db", "65536.db", "00.db", "+1.db", "a.db", "1.db.tmp",
            ".db",
        ] {
            fs::write(directory.path().join(name), [0; 3]).unwrap();
        }
        fs::create_dir(directory.path().join("7.db")).unwrap();
        let files = data_files(&storage(directory.path())).unwrap();
        let expected = [0, 9, 10, 65535].map(|number| DataFile { number, len: 3 });
        assert_eq!(files, expected);
        assert_eq!(
            data_files(&storage(&directory.path().join("absent"))).unwrap(),
            []
        );
    }

    #[test]
    fn presence_tells_dumps_data_files_and_nothing_apart() {
        let there = |files: &[&str]| {
            let directory = TempDirectory::new("presence");
            for file in files {
                let path = directory.path().join(file);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, "").unwrap();
            }
            presence(&storage(directory.path())).unwrap()
        };
        assert_eq!(there(&[]), Presence::Nothing);
        assert_eq!(there(&["a.db", "notes.txt"]), Presence::Nothing);
        assert_eq!(there(&["lookup_dump.db/.inc"]), Presence::Nothing);
        assert_eq!(
            there(&["lookup_dump.db/notes.txt", "0.db"]),
            Presence::DataFiles
        );
        assert_eq!(there(&["3.db"]), Presence::DataFiles);
        assert_eq!(
            there(&["lookup_dump.db/data"]),
            Presence::Dump { incremental: false }
        );
        let incremental = Presence::Dump { incremental: true };
        assert_eq!(
            there(&["lookup_dump.db/data", "lookup_dump.db/.inc", "0.db"]),
            incremental
        );
        assert_eq!(
            there(&["lookup_dump.db", "0.db"]),
            Presence::Dump { incremental: false }
        );
        assert_eq!(
            there(&["lookup_dump.db", "lookup_dump.db.inc"]),
            incremental
        );
    }

    #[test]
    fn the_width_is_the_originals() {
        for (record_nr_max, record_size_max, width) in [
            (1000, 1024, 2),
            (65_535, 305, 2),
            (65_535, 306, 6),
            (65_536, 65_536, 3),
            (70_000, 100, 3),
            (16_777_215, 1, 3),
            (16_777_216, 1, 4),
            (16_777_216, 256, 4),
            (16_777_215, 4096, 6),
            (16_777_215, 65_535, 6),
            (20_000, 1000, 2),
            (20_000_001, 1, 6),
            (20_000_000, 1, 4),
            (0, 0, 2),
        ] {
            assert_eq!(
                lookup_width(record_nr_max, record_size_max),
                width,
                "{record_nr_max} records of up to {record_size_max} bytes"
            );
            let settings = Settings {
                record_nr_max,
                record_size_max,
                ..Settings::DEFAULT
            };
            assert_eq!(settings.width(), usize::from(width), "the model");
        }
    }
}

mod dumps {
    use super::*;

    #[test]
    fn golden_directories_read_as_the_originals_wrote_them() {
        for golden in golden::all().iter().filter(|golden| golden.is_described()) {
            let hints = (
                golden.setting("record_nr_max"),
                golden.setting("record_size_max"),
            );
            for hints in [
                None,
                Some(hints),
                Some((100, 100)),
                Some((1 << 24, 1 << 20)),
            ] {
                check(
                    golden,
                    read_dump(&storage(&golden.directory), hints).unwrap(),
                );
            }
        }
    }

    fn check(golden: &Golden, adopted: Adopted) {
        let name = &golden.name;
        let live = golden.live();
        assert_eq!(adopted.next_id, golden.next_id(), "{name}");
        if !live.is_empty() {
            assert_eq!(
                width(&adopted).map(u32::from),
                Some(golden.setting("keysize")),
                "{name}"
            );
        }
        assert!(
            adopted.record_nr_max <= golden.setting("record_nr_max"),
            "{name}"
        );
        let entries = entries(adopted);
        let locations = live
            .iter()
            .map(|(&id, expected)| (id, location(expected.location)));
        assert_eq!(entries, locations.collect::<Vec<_>>(), "{name}");
        let storage = storage(&golden.directory);
        for ((id, at), expected) in entries.into_iter().zip(live.values()) {
            assert!(
                history(&storage, at) == expected.history,
                "{name}: history of id {id}"
            );
        }
        for absent in golden.absent() {
            assert!(!live.contains_key(&absent), "{name}: id {absent}");
        }
    }

    #[test]
    fn damaged_current_records_do_not_hide_the_others() {
        for (name, damaged, intact) in [
            ("vbad_corrupt_byte", vec![3], vec![1, 2]),
            ("vbad_delete_wrong_file", vec![7], vec![2, 5, 6]),
        ] {
            let Some(golden) = golden::named(name) else {
                return;
            };
            let storage = storage(&golden.directory);
            let adopted = read_dump(&storage, None).unwrap();
            assert_eq!((adopted.next_id, width(&adopted)), (None, Some(6)));
            for (id, at) in entries(adopted) {
                let value = history(&storage, at).into_iter().next();
                let expected = &golden.json["v_returns"][id.to_string()]["value"];
                if damaged.contains(&id) {
                    assert_eq!(value, None, "{name}: id {id}");
                } else {
                    assert!(intact.contains(&id), "{name}: id {id}");
                    assert_eq!(value, Some(golden::bytes(expected)), "{name}: id {id}");
                }
            }
        }
    }

    /// A directory with `count` records in which the records differ in length.
    fn filled(directory: &TempDirectory, settings: Settings, count: u32) -> Herolib {
        let mut db = Herolib::open(directory.path(), settings, Port::Go).unwrap();
        for number in 1..=count {
            let value = format!("{number:0width$}", width = number as usize % 17);
            if settings.incremental {
                db.insert(value.as_bytes());
            } else {
                db.set(number * 3 % 991, value.as_bytes()).unwrap();
            }
        }
        db
    }

    #[test]
    fn every_width_is_found_without_a_hint_and_with_a_wrong_one() {
        for width in [2, 3, 4, 6] {
            for count in [0, 1, 2, 3, 12, 120, 500] {
                for settings in [
                    Settings::with_width(width),
                    Settings::with_width(width).key_value(),
                ] {
                    let directory = TempDirectory::new("width");
                    let db = filled(&directory, settings, count);
                    let ids = 0..1000;
                    let expected: Vec<_> = ids
                        .filter(|&id| db.place(id).1 != 0)
                        .map(|id| (id, location(db.place(id))))
                        .collect();
                    db.close();
                    let hint = (settings.record_nr_max, settings.record_size_max);
                    for hints in [None, Some(hint), Some((1000, 1)), Some((16_777_215, 4096))] {
                        let adopted = read_dump(&storage(directory.path()), hints).unwrap();
                        let what = format!("width {width}, {count} records, {hints:?}");
                        if count > 0 {
                            assert_eq!(super::width(&adopted), Some(width as u8), "{what}");
                        }
                        let next = settings.incremental.then_some(count + 1);
                        assert_eq!(adopted.next_id, next, "{what}");
                        assert_eq!(entries(adopted), expected, "{what}");
                    }
                }
            }
        }
    }

    #[test]
    fn the_width_is_found_though_the_first_records_are_damaged() {
        for width in [2, 3, 4] {
            let directory = TempDirectory::new("width");
            let db = filled(&directory, Settings::with_width(width), 40);
            let until = db.place(30).1 as usize;
            db.close();
            let path = directory.path().join("0.db");
            let mut bytes = fs::read(&path).unwrap();
            bytes[1..until].fill(0x77);
            fs::write(path, bytes).unwrap();
            let adopted = read_dump(&storage(directory.path()), None).unwrap();
            assert_eq!(super::width(&adopted), Some(width as u8));
            assert_eq!(counts(adopted), (Some(41), 40));
        }
    }

    #[test]
    fn the_plain_dump_of_before_herolib_holds_the_last_id() {
        let directory = TempDirectory::new("plain");
        let mut db = filled(&directory, Settings::DEFAULT, 9);
        let third = location(db.place(3));
        db.delete(9).unwrap();
        db.close_plain();
        let adopted = read_dump(&storage(directory.path()), None).unwrap();
        assert_eq!(adopted.next_id, Some(10));
        assert_eq!(entries(adopted)[2], (3, third));
        let directory = TempDirectory::new("plain");
        filled(&directory, Settings::with_width(2).key_value(), 9).close_plain();
        let adopted = read_dump(&storage(directory.path()), None).unwrap();
        assert_eq!(counts(adopted), (None, 9));
    }

    #[test]
    fn deleted_ids_count_for_the_next_one() {
        let directory = TempDirectory::new("deleted");
        let mut db = filled(&directory, Settings::DEFAULT, 5);
        db.delete(5).unwrap();
        db.close();
        let dump = directory.path().join("lookup_dump.db");
        let adopted = read_dump(&storage(directory.path()), None).unwrap();
        assert_eq!(adopted.record_nr_max, 6);
        assert_eq!(counts(adopted), (Some(6), 4));
        // As OurDB writes it, and with a `.inc` that a crash left behind.
        let mut data = fs::read(dump.join("data")).unwrap();
        data.extend_from_slice(&[5, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        fs::write(dump.join("data"), data).unwrap();
        fs::write(dump.join(".inc"), "2\n").unwrap();
        let adopted = read_dump(&storage(directory.path()), None).unwrap();
        assert_eq!(adopted.next_id, Some(6));
        assert_eq!(entries(adopted).last().unwrap().0, 4);
    }

    #[test]
    fn entries_that_lead_nowhere_do_not_hide_the_others() {
        let directory = TempDirectory::new("nowhere");
        let settings = Settings::DEFAULT.file_size(100);
        let mut db = Herolib::open(directory.path(), settings, Port::V).unwrap();
        for number in 0..20 {
            db.insert(format!("value {number}").as_bytes());
        }
        let places: Vec<_> = (1..=20).map(|id| (id, location(db.place(id)))).collect();
        db.close();
        // V comes back and re-creates 1.db; then a file is lost.
        let mut db = Herolib::open(directory.path(), settings, Port::V).unwrap();
        db.set(20, b"new").unwrap();
        assert_eq!(db.place(20), (1, 1));
        db.close();
        fs::remove_file(directory.path().join("2.db")).unwrap();
        let found = entries(read_dump(&storage(directory.path()), None).unwrap());
        assert_eq!(found.len(), 20);
        assert_eq!(found[..19], places[..19]);
        assert_eq!(
            found[19],
            (
                20,
                Location {
                    file: 1,
                    position: 1
                }
            )
        );
    }

    #[test]
    fn what_is_no_dump_is_refused() {
        let refuse = |data: &[u8], inc: Option<&str>| {
            let directory = TempDirectory::new("garbage");
            filled(&directory, Settings::DEFAULT, 20);
            let dump = directory.path().join("lookup_dump.db");
            fs::create_dir(&dump).unwrap();
            fs::write(dump.join("data"), data).unwrap();
            if let Some(inc) = inc {
                fs::write(dump.join(".inc"), inc).unwrap();
            }
            corrupt_at(read_dump(&storage(directory.path()), None))
        };
        assert_eq!(refuse(b"garbage", None).0, "data");
        assert_eq!(refuse(&[0xff; 40], None).0, "data");
        assert_eq!(refuse(&[0; 60], None).0, "data");
        assert_eq!(refuse(&[0; 10], None).0, "data");
        let middle_of_a_record = [1, 0, 0, 0, 0, 3];
        assert_eq!(refuse(&middle_of_a_record, None).0, "data");
        // Two entries of width 6, the ids the wrong way round.
        let entry = |id: u8| [id, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        let (file, offset, what) = refuse(&[entry(2), entry(1)].concat(), Some("3"));
        assert_eq!((file.as_str(), offset), ("data", 10));
        assert!(what.contains("id 1 stands after id 2"), "{what}");
        assert_eq!(refuse(&[entry(2), entry(2)].concat(), None).1, 10);
        let mut highest = entry(1);
        highest[..4].fill(0xff);
        assert_eq!(refuse(&highest, None).0, "data");
        for inc in ["", "x", "1x", "-1", "+1", "4294967296", &"1".repeat(100)] {
            assert_eq!(refuse(&entry(1), Some(inc)).0, ".inc", "{inc:?}");
        }
    }

    #[test]
    fn records_that_are_all_empty_leave_the_width_to_the_settings() {
        let directory = TempDirectory::new("empty");
        let mut db = Herolib::open(
            directory.path(),
            Settings::with_width(2).key_value(),
            Port::Go,
        )
        .unwrap();
        for id in [0, 7, 100] {
            db.set(id, b"").unwrap();
        }
        db.close();
        let adopted = read_dump(&storage(directory.path()), Some((1000, 1024))).unwrap();
        assert_eq!(width(&adopted), Some(2));
        assert_eq!(counts(adopted), (None, 3));
    }
}

mod writing {
    use super::*;

    #[test]
    fn v_reads_what_is_written_in_every_width() {
        for width in [2, 3, 4, 6] {
            for incremental in [false, true] {
                let settings = Settings {
                    incremental,
                    ..Settings::with_width(width)
                };
                let directory = TempDirectory::new("written");
                let mut db = Herolib::open(directory.path(), settings, Port::V).unwrap();
                let ids: Vec<u32> = if incremental {
                    (0..9)
                        .map(|number| db.insert(format!("value {number}").as_bytes()))
                        .collect()
                } else {
                    vec![0, 1, 5, 6, 900, 999]
                };
                for &id in &ids {
                    db.set(id, format!("newer {id}").as_bytes()).unwrap();
                }
                // One is left out, as if it had been deleted.
                let kept: Vec<_> = ids
                    .iter()
                    .filter(|&&id| id != 5)
                    .map(|&id| (id, location(db.place(id))))
                    .collect();
                drop(db);
                let storage = storage(directory.path());
                let next_id = incremental.then_some(12);
                let written =
                    write_dump(&storage, width as u8, next_id, kept.iter().copied()).unwrap();
                assert_eq!(stamp(&storage).unwrap(), written);
                // Every id that was given out has an entry.
                let count = if incremental { 11 } else { kept.len() };
                let inc = if incremental { "12" } else { "" };
                let len = count * (4 + width) + inc.len();
                assert_eq!(written.map(|stamp| stamp.len), Some(len as u64));

                let mut db = Herolib::open(directory.path(), settings, Port::V).unwrap();
                assert_eq!(db.next_id().ok(), next_id);
                assert!(db.get(5).is_err());
                for &(id, at) in &kept {
                    assert_eq!(location(db.place(id)), at);
                    assert_eq!(db.get(id).unwrap(), format!("newer {id}").as_bytes());
                }

                let hints = Some((settings.record_nr_max, settings.record_size_max));
                let adopted = read_dump(&storage, hints).unwrap();
                assert_eq!(adopted.next_id, next_id);
                assert_eq!(adopted.record_nr_max, if incremental { 12 } else { 1000 });
                assert_eq!(entries(adopted), kept);
            }
        }
    }

    #[test]
    fn a_location_that_does_not_fit_leaves_no_dump() {
        let fits = |width, file, position| {
            let storage = MemoryStorage::new();
            write_dump(&storage, 6, Some(1), []).unwrap();
            let location = Location { file, position };
            let stamp = write_dump(&storage, width, None, [(1, location)]).unwrap();
            let there = presence(&storage).unwrap();
            match stamp {
                Some(_) => assert_eq!(there, Presence::Dump { incremental: false }),
                None => assert_eq!(there, Presence::Nothing),
            }
            stamp.is_some()
        };
        assert!(fits(2, 0, 65_535) && !fits(2, 0, 65_536) && !fits(2, 1, 1));
        assert!(fits(3, 0, 0xff_ffff) && !fits(3, 0, 0x100_0000) && !fits(3, 1, 1));
        assert!(fits(4, 0, u32::MAX) && !fits(4, 1, 1));
        assert!(fits(6, u16::MAX, u32::MAX));
    }

    #[test]
    fn the_stamp_changes_with_any_change_of_the_dump() {
        let at = |position| Location { file: 0, position };
        let storage = MemoryStorage::new();
        assert_eq!(stamp(&storage).unwrap(), None);
        let mut stamps = BTreeSet::new();
        let mut write = |next_id, entries: &[(u32, Location)]| {
            let written = write_dump(&storage, 6, next_id, entries.iter().copied()).unwrap();
            assert_eq!(stamp(&storage).unwrap(), written);
            let written = written.unwrap();
            assert!(stamps.insert((written.len, written.crc32)), "{entries:?}");
        };
        write(None, &[]);
        write(None, &[(1, at(1))]);
        write(None, &[(1, at(2))]);
        write(None, &[(2, at(1))]);
        write(Some(2), &[(1, at(1))]);
        write(Some(3), &[(1, at(1))]);
        write(Some(4), &[(1, at(1))]);
        remove_dump(&storage).unwrap();
        assert_eq!(stamp(&storage).unwrap(), None);
        assert!(!storage.is_directory("lookup_dump.db").unwrap());
    }

    #[test]
    fn a_long_dump_is_written_in_pieces() {
        let storage = MemoryStorage::new();
        let count = 100_000;
        let all = (0..count).map(|id| {
            (
                id,
                Location {
                    file: 3,
                    position: id + 1,
                },
            )
        });
        let written = write_dump(&storage, 6, None, all).unwrap().unwrap();
        assert_eq!(written.len, u64::from(count) * 10);
        assert_eq!(stamp(&storage).unwrap(), Some(written));
    }

    #[test]
    fn a_plain_dump_in_the_way_is_kept_aside() {
        let directory = TempDirectory::new("aside");
        let mut db = Herolib::open(directory.path(), Settings::DEFAULT, Port::V).unwrap();
        db.insert(b"value");
        db.close_plain();
        let there = |name: &str| fs::read(directory.path().join(name)).ok();
        let (data, inc) = (there("lookup_dump.db"), there("lookup_dump.db.inc"));
        let storage = storage(directory.path());
        let old = stamp(&storage).unwrap();
        let at = Location {
            file: 0,
            position: 1,
        };
        let new = write_dump(&storage, 6, Some(2), [(1, at)]).unwrap();
        assert!(old.is_some() && new.is_some() && old != new);
        assert_eq!(there("lookup_dump.db.plain"), data);
        assert_eq!(there("lookup_dump.db.plain.inc"), inc);
        assert_eq!(there("lookup_dump.db.inc"), None);
        assert_eq!(read_dump(&storage, None).unwrap().next_id, Some(2));
    }

    #[test]
    fn what_is_not_herolibs_survives() {
        let directory = TempDirectory::new("survives");
        let note = directory.path().join("lookup_dump.db/notes.txt");
        fs::create_dir(note.parent().unwrap()).unwrap();
        fs::write(&note, "mine").unwrap();
        let storage = storage(directory.path());
        write_dump(&storage, 6, Some(1), []).unwrap();
        remove_dump(&storage).unwrap();
        remove_dump(&storage).unwrap();
        assert_eq!(fs::read(note).unwrap(), b"mine");
        assert_eq!(presence(&storage).unwrap(), Presence::Nothing);
    }
}

mod reconstruction {
    use super::*;

    /// Writes data files as they are given: the bytes behind the zero byte at the beginning.
    fn files(contents: &[&[u8]]) -> TempDirectory {
        let directory = TempDirectory::new("files");
        for (number, content) in contents.iter().enumerate() {
            let bytes = [&[0], *content].concat();
            fs::write(directory.path().join(format!("{number}.db")), bytes).unwrap();
        }
        directory
    }

    fn strict(directory: &TempDirectory) -> Result<Adopted> {
        reconstruct(&storage(directory.path()), false)
    }

    /// Ids from 1 on, as (file, position); `None` where deleted.
    fn ids(adopted: Adopted) -> Vec<Option<Place>> {
        let count = adopted.next_id.unwrap() - 1;
        let found: BTreeMap<_, _> = entries(adopted).into_iter().collect();
        let place = |id| found.get(&id).map(|at: &Location| (at.file, at.position));
        (1..=count).map(place).collect()
    }

    #[test]
    fn golden_directories_without_their_dump_read_the_same() {
        let names = [
            "v_ks2_inc",
            "v_ks3_inc",
            "v_ks4_inc",
            "v_ks6_inc",
            "v_ks6_roll_inc",
            "v_ks6_inc_delmid",
        ];
        for name in names {
            let Some(golden) = golden::named(name) else {
                return;
            };
            let directory = TempDirectory::new(name);
            golden.copy_to(directory.path());
            fs::remove_dir_all(directory.path().join("lookup_dump.db")).unwrap();
            let adopted = strict(&directory).unwrap();
            assert_eq!(adopted.next_id, golden.next_id(), "{name}");
            let expected = golden.live();
            let found = entries(adopted);
            assert_eq!(found.len(), expected.len(), "{name}");
            for ((id, at), (expected_id, expected)) in found.into_iter().zip(expected) {
                assert_eq!(
                    (id, at),
                    (expected_id, location(expected.location)),
                    "{name}"
                );
                assert!(
                    history(&storage(directory.path()), at) == expected.history,
                    "{name}"
                );
            }
        }
    }

    #[test]
    fn what_the_originals_left_in_the_field_is_rescued() {
        let Some(golden) = golden::named("go_asis_nodump_ks6_inc") else {
            return;
        };
        let storage = storage(&golden.directory);
        let adopted = reconstruct(&storage, false).unwrap();
        assert_eq!(adopted.next_id, Some(16));
        let values = &golden.json["values_in_file_before_loss"];
        for (id, at) in entries(adopted) {
            let value = &history(&storage, at)[0];
            assert_eq!(*value, golden::bytes(&values[id.to_string()]), "id {id}");
        }
    }

    #[test]
    fn a_killed_process_leaves_all_of_its_records() {
        let Some(golden) = golden::named("vbad_nodump") else {
            return;
        };
        let storage = storage(&golden.directory);
        let adopted = reconstruct(&storage, false).unwrap();
        assert_eq!(adopted.next_id, Some(21));
        let found = entries(adopted);
        assert_eq!(found.len(), 20);
        for (id, at) in found {
            let first = format!("rec{}", id - 1).into_bytes();
            let expected = if id == 3 {
                vec![b"rec2-new".to_vec(), first]
            } else {
                vec![first]
            };
            assert_eq!(history(&storage, at), expected);
        }
    }

    #[test]
    fn an_empty_directory_has_no_ids() {
        let adopted = strict(&files(&[])).unwrap();
        assert_eq!(adopted.record_nr_max, 1);
        assert_eq!(counts(adopted), (Some(1), 0));
        assert_eq!(strict(&files(&[&[]])).unwrap().next_id, Some(1));
    }

    #[test]
    fn the_length_of_a_value_may_begin_with_a_zero() {
        let long = record((0, 0), &[7; 256]);
        let after = record((0, 0), b"x");
        let directory = files(&[&[&long[..], &after, &long, &record((0, 1), b"")].concat()]);
        let second = 1 + long.len() as u32;
        let third = second + after.len() as u32;
        let update = third + long.len() as u32;
        let expected = [(0, update), (0, second), (0, third)].map(Some);
        assert_eq!(ids(strict(&directory).unwrap()), expected);
    }

    #[test]
    fn an_update_to_an_empty_value_ends_a_stretch_where_it_begins() {
        // A deleted record of 15 bytes, then an update whose header begins with 11 zeros.
        let first = record((0, 0), b"first");
        let directory = files(&[&[
            &[0; 15][..],
            &first,
            &[0; 12],
            &record((0, 16), b""),
            &record((0, 0), b"x"),
        ]
        .concat()]);
        let expected = [None, Some((0, 45)), Some((0, 33)), Some((0, 57))];
        assert_eq!(ids(strict(&directory).unwrap()), expected);
        // The same where the version before has a place whose last byte is read twice.
        let before = record((0, 0), &[1; 20]);
        let values = [
            &before[..],
            &before,
            &record((0, 33), b""),
            &record((0, 0), &[9; 33]),
        ];
        let expected = [Some((0, 1)), Some((0, 65)), Some((0, 77))];
        assert_eq!(ids(strict(&files(&[&values.concat()])).unwrap()), expected);
        // Read from one byte later it would be an update of another record, at 256 + 5.
        let (a, b) = (record((0, 0), &[1; 248]), record((0, 0), b"b"));
        let after = record((0, 0), b"after");
        let values = [&a[..], &b, &[0; 12], &record((0, 1), b""), &after];
        let expected = [286, 261, 274, 298].map(|position| Some((0, position)));
        assert_eq!(ids(strict(&files(&[&values.concat()])).unwrap()), expected);
    }

    #[test]
    fn an_update_to_an_empty_value_that_may_begin_in_two_places_is_refused() {
        // It goes on with 256, and zeros follow; or with 1, and one zero more follows.
        let (a, b) = (record((0, 0), &[1; 243]), record((0, 0), b"b"));
        let update = record((0, 256), b"");
        let values = [&a[..], &b, &[0; 13], &update, &[0; 16], &a];
        let (_, offset, what) = corrupt_at(strict(&files(&[&values.concat()])));
        assert_eq!(offset, 292, "{what}");
    }

    #[test]
    fn a_deleted_record_among_inserts_was_an_insert() {
        let a = record((0, 0), b"rec0");
        for deleted in 13..=23 {
            let zeros = vec![0; deleted];
            let next = 17 + deleted as u32;
            let update = record((0, next), b"rec2 again");
            let directory = files(&[&[&a[..], &zeros, &a, &update].concat()]);
            let expected = [Some((0, 1)), None, Some((0, next + 16))];
            assert_eq!(
                ids(strict(&directory).unwrap()),
                expected,
                "{deleted} zeros"
            );
        }
    }

    #[test]
    fn a_deleted_record_that_may_have_been_an_update_is_doubtful() {
        let a = record((0, 0), b"rec0");
        let update = record((0, 1), b"rec1");
        let zeros = [0; 16];
        for (name, content) in [
            ("at the end", [&a[..], &a, &zeros].concat()),
            (
                "before an update",
                [&a[..], &a, &zeros, &update, &a].concat(),
            ),
            ("after an update", [&a[..], &update, &zeros, &a].concat()),
        ] {
            let directory = files(&[&content]);
            let (file, offset, what) = corrupt_at(strict(&directory));
            assert_eq!((file.as_str(), offset), ("0.db", 33), "{name}");
            assert!(what.contains("newer version"), "{name}: {what}");
            let salvaged = reconstruct(&storage(directory.path()), true).unwrap();
            assert!(counts(salvaged).1 >= 1, "{name}");
        }
    }

    #[test]
    fn where_nothing_could_be_updated_a_deleted_record_was_an_insert() {
        let a = record((0, 0), b"rec0");
        assert_eq!(ids(strict(&files(&[&[0; 16]])).unwrap()), [None]);
        let expected = [None, Some((0, 17))];
        assert_eq!(
            ids(strict(&files(&[&[&[0; 16][..], &a].concat()])).unwrap()),
            expected
        );
    }

    #[test]
    fn a_deleted_record_at_the_end_of_a_file_looks_on_into_the_next() {
        let a = record((0, 0), b"rec0");
        let directory = files(&[&[&a[..], &[0; 16]].concat(), &a]);
        let expected = [Some((0, 1)), None, Some((1, 1))];
        assert_eq!(ids(strict(&directory).unwrap()), expected);
    }

    #[test]
    fn a_long_stretch_is_doubtful() {
        let a = record((0, 0), b"rec0");
        for zeros in [24, 32, 100, 1000] {
            let zeros = vec![0; zeros];
            let directory = files(&[&[&a[..], &zeros, &a].concat()]);
            let (file, offset, what) = corrupt_at(strict(&directory));
            assert_eq!((file.as_str(), offset), ("0.db", 17));
            assert!(what.contains("several"), "{what}");
        }
        // Two records as long as those beside them: the likeliest.
        let directory = files(&[&[&a[..], &[0; 32], &a].concat()]);
        let salvaged = reconstruct(&storage(directory.path()), true).unwrap();
        assert_eq!(ids(salvaged), [Some((0, 1)), None, None, Some((0, 49))]);
    }

    #[test]
    fn empty_values_that_were_gone_on_with_split_a_stretch() {
        // Four empty values; two of them are overwritten later, the others stay as they are.
        let content = [
            &[0; 48][..],
            &record((0, 13), b"second"),
            &record((0, 25), b"third"),
        ]
        .concat();
        let expected = [Some((0, 1)), Some((0, 49)), Some((0, 67)), Some((0, 37))];
        assert_eq!(ids(strict(&files(&[&content])).unwrap()), expected);
        // An overwritten one between two deleted records, among inserts.
        let a = record((0, 0), b"rec0");
        let content = [
            &a[..],
            &[0; 13 + 12 + 14],
            &a,
            &record((0, 30), b"no longer empty"),
        ]
        .concat();
        let expected = [Some((0, 1)), None, Some((0, 72)), None, Some((0, 56))];
        assert_eq!(ids(strict(&files(&[&content])).unwrap()), expected);
        // Places that can't both be right.
        let content = [&[0; 48][..], &record((0, 13), b"a"), &record((0, 18), b"b")].concat();
        corrupt_at(strict(&files(&[&content])));
        // Too little is left before or behind it. Salvage has the value all the same.
        for place in [9, 35] {
            let content = [&[0; 40][..], &record((0, place), b"a")].concat();
            let directory = files(&[&content]);
            corrupt_at(strict(&directory));
            let salvaged = reconstruct(&storage(directory.path()), true).unwrap();
            assert!(ids(salvaged).contains(&Some((0, 41))));
        }
    }

    #[test]
    fn a_torn_last_record_was_never_written() {
        let a = record((0, 0), b"value of the first");
        let torn = record((0, 1), b"a value that is not quite there");
        for cut in 1..torn.len() {
            let directory = files(&[&[&a[..], &torn[..cut]].concat()]);
            assert_eq!(
                ids(strict(&directory).unwrap()),
                [Some((0, 1))],
                "cut at {cut}"
            );
        }
        let directory = files(&[&[&a[..], &torn[..20]].concat(), &a]);
        assert_eq!(corrupt_at(strict(&directory)).1, 31, "not in the last file");
        let zeros = files(&[&[&a[..], &[0; 5]].concat(), &a]);
        assert_eq!(corrupt_at(strict(&zeros)).1, 31, "not in the last file");
    }

    #[test]
    fn a_damaged_length_is_not_a_torn_end() {
        let a = record((0, 0), b"value");
        let mut content = [&a[..], &a, &a].concat();
        content[a.len()] = 200;
        let directory = files(&[&content]);
        assert_eq!(corrupt_at(strict(&directory)).1, 18);
        // Whole records in what would be cut off.
        let salvaged = reconstruct(&storage(directory.path()), true).unwrap();
        assert_eq!(ids(salvaged), [Some((0, 1)), Some((0, 18)), Some((0, 35))]);
    }

    #[test]
    fn every_flipped_bit_is_noticed_or_changes_nothing() {
        let a = record((0, 0), b"value");
        let update = record((0, 18), b"newer");
        let content = [&a[..], &a, &update, &a].concat();
        let intact = ids(strict(&files(&[&content])).unwrap());
        for bit in 0..content.len() * 8 {
            let mut flipped = content.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let directory = files(&[&flipped]);
            // Where the version before is, no checksum covers. Zeroed it begins an id, another
            // newest version it goes on with; anything else is noticed.
            let in_previous = (6..12).contains(&(bit / 8 % a.len()));
            match strict(&directory) {
                Err(Error::Corrupt { .. }) => {}
                Err(error) => panic!("bit {bit}: {error}"),
                Ok(adopted) => assert!(in_previous && ids(adopted) != intact, "bit {bit}"),
            }
            reconstruct(&storage(directory.path()), true).unwrap();
        }
    }

    #[test]
    fn a_version_before_must_be_the_newest_of_its_record() {
        let a = record((0, 0), b"value");
        let newer = record((0, 1), b"newer");
        for (name, update) in [
            (
                "a version that has been gone on with",
                record((0, 1), b"forked"),
            ),
            ("no record", record((0, 2), b"nowhere")),
            ("another file", record((9, 1), b"elsewhere")),
            ("itself", record((0, 35), b"itself")),
            ("one that comes later", record((0, 52), b"later")),
        ] {
            let directory = files(&[&[&a[..], &newer, &update, &a].concat()]);
            let (_, offset, what) = corrupt_at(strict(&directory));
            assert_eq!(offset, 35, "{name}");
            assert!(what.contains("version before"), "{name}: {what}");
            let salvaged = ids(reconstruct(&storage(directory.path()), true).unwrap());
            let after = 35 + update.len() as u32;
            assert_eq!(
                salvaged,
                [Some((0, 18)), Some((0, after)), Some((0, 35))],
                "{name}"
            );
        }
    }

    #[test]
    fn a_missing_or_foreign_data_file_is_refused() {
        let a = record((0, 0), b"value");
        let directory = files(&[&a, &a, &a]);
        fs::remove_file(directory.path().join("1.db")).unwrap();
        assert!(
            corrupt_at(strict(&directory))
                .2
                .contains("1.db, is missing")
        );
        let directory = files(&[&a]);
        fs::write(directory.path().join("0.db"), "text").unwrap();
        assert!(corrupt_at(strict(&directory)).2.contains("zero byte"));
    }

    #[test]
    fn a_file_that_v_created_anew_is_noticed() {
        let directory = TempDirectory::new("anew");
        let settings = Settings::DEFAULT.file_size(500);
        let mut db = Herolib::open(directory.path(), settings, Port::V).unwrap();
        for number in 0..40 {
            db.insert(format!("a value with number {number}").as_bytes());
        }
        assert_eq!(strict(&directory).unwrap().next_id, Some(41));
        let mut db = Herolib::open(directory.path(), settings, Port::V).unwrap();
        db.insert(b"the first of the second life");
        let (file, _, what) = corrupt_at(strict(&directory));
        assert_eq!(file, "1.db");
        assert!(what.contains("created it anew"), "{what}");
    }

    #[test]
    fn what_v_zeroed_in_the_wrong_file_is_damage() {
        let directory = TempDirectory::new("wrong-file");
        let settings = Settings::DEFAULT.file_size(150);
        let mut db = Herolib::open(directory.path(), settings, Port::V).unwrap();
        for number in 0..12 {
            db.insert(format!("value {number} {}", "+".repeat(number)).as_bytes());
        }
        let (deleted, open) = (db.place(2).0, db.place(12).0);
        assert_ne!(deleted, open);
        db.delete(2).unwrap();
        assert_eq!(corrupt_at(strict(&directory)).0, format!("{open}.db"));
    }

    /// Numbers that look random (xorshift), the same in every run.
    struct Numbers(u64);

    impl Numbers {
        fn below(&mut self, limit: u64) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0 % limit
        }
    }

    #[test]
    fn without_deletions_every_history_is_found() {
        let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
        for round in 0..60 {
            let directory = TempDirectory::new("random");
            let settings = Settings::DEFAULT.file_size(1 + numbers.below(3000));
            let mut db = Herolib::open(directory.path(), settings, Port::Go).unwrap();
            let mut model: Vec<Vec<Vec<u8>>> = Vec::new();
            // Two empty values side by side can't be told from a deleted one.
            let mut empty_before = false;
            for _ in 0..numbers.below(200) {
                let updates = !model.is_empty() && numbers.below(2) == 0;
                let shortest = u64::from(empty_before && !updates);
                let limit = if numbers.below(20) == 0 { 600 } else { 6 };
                let len = (shortest + numbers.below(limit)) as usize;
                let fill = [0, 1, 0xff][numbers.below(3) as usize];
                let value = vec![fill; len];
                empty_before = len == 0 && !updates;
                if updates {
                    let index = numbers.below(model.len() as u64) as usize;
                    db.set(index as u32 + 1, &value).unwrap();
                    model[index].push(value);
                } else {
                    db.insert(&value);
                    model.push(vec![value]);
                }
            }
            let adopted = strict(&directory).unwrap();
            assert_eq!(
                adopted.next_id,
                Some(model.len() as u32 + 1),
                "round {round}"
            );
            let found = entries(adopted);
            assert_eq!(found.len(), model.len(), "round {round}");
            for ((id, at), versions) in found.into_iter().zip(&model) {
                let newest_first: Vec<_> = versions.iter().rev().cloned().collect();
                assert_eq!(
                    history(&storage(directory.path()), at),
                    newest_first,
                    "id {id}"
                );
            }
        }
    }

    #[test]
    fn with_deletions_it_is_found_or_refused() {
        let mut numbers = Numbers(0x2545_f491_4f6c_dd1d);
        let (mut found, mut refused) = (0, 0);
        for round in 0..300 {
            let directory = TempDirectory::new("random");
            let mut db = Herolib::open(directory.path(), Settings::DEFAULT, Port::Go).unwrap();
            let mut model: Vec<Option<Vec<u8>>> = Vec::new();
            let inserts = 3 + numbers.below(20);
            for number in 0..inserts {
                let value = vec![number as u8; 1 + numbers.below(14) as usize];
                db.insert(&value);
                model.push(Some(value));
            }
            // A first update that stays is what the reconstruction goes by.
            db.set(1, b"updated").unwrap();
            model[0] = Some(b"updated".to_vec());
            for _ in 0..1 + numbers.below(4) {
                let index = 1 + numbers.below(model.len() as u64 - 1) as usize;
                if model[index].is_none() {
                    continue;
                }
                if numbers.below(3) == 0 {
                    db.set(index as u32 + 1, b"newer").unwrap();
                    model[index] = Some(b"newer".to_vec());
                } else {
                    db.delete(index as u32 + 1).unwrap();
                    model[index] = None;
                }
            }
            match strict(&directory) {
                Ok(adopted) => {
                    found += 1;
                    assert_eq!(
                        adopted.next_id,
                        Some(model.len() as u32 + 1),
                        "round {round}"
                    );
                    let mut values = vec![None; model.len()];
                    for (id, at) in entries(adopted) {
                        let history = history(&storage(directory.path()), at);
                        values[id as usize - 1] = history.into_iter().next();
                    }
                    assert_eq!(values, model, "round {round}");
                }
                Err(Error::Corrupt { .. }) => refused += 1,
                Err(error) => panic!("round {round}: {error}"),
            }
            reconstruct(&storage(directory.path()), true).unwrap();
        }
        assert!(
            found > 30 && refused > 30,
            "{found} found, {refused} refused"
        );
    }

    #[test]
    fn nothing_that_is_read_is_trusted() {
        let mut numbers = Numbers(0x1234_5678_9abc_def1);
        for _ in 0..400 {
            let mut bytes = Vec::new();
            for _ in 0..numbers.below(12) {
                let previous = ((numbers.below(3)) as u16, numbers.below(200) as u32);
                let previous = if numbers.below(2) == 0 {
                    (0, 0)
                } else {
                    previous
                };
                bytes.extend(record(previous, &vec![1; numbers.below(30) as usize]));
                bytes.extend(vec![0; numbers.below(40) as usize]);
            }
            for _ in 0..numbers.below(3) {
                if let Some(last) = bytes.len().checked_sub(1) {
                    bytes[numbers.below(last as u64 + 1) as usize] = numbers.below(256) as u8;
                }
            }
            let middle = bytes.len() / 2;
            let directory = files(&[&bytes[..middle], &bytes[middle..]]);
            if let Ok(adopted) = strict(&directory) {
                assert!(entries(adopted).is_sorted());
            }
            let salvaged = reconstruct(&storage(directory.path()), true).unwrap();
            assert!(counts(salvaged).1 <= bytes.len() / 12);

            // The same bytes as a dump.
            let dump = directory.path().join("lookup_dump.db");
            fs::create_dir(&dump).unwrap();
            fs::write(dump.join("data"), &bytes).unwrap();
            if let Ok(adopted) = read_dump(&storage(directory.path()), None) {
                assert!(entries(adopted).is_sorted());
            }
        }
    }
}
