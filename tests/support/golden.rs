//! The directories that V and Go wrote, with what each must read back as. They lie beside the
//! project; where they are not there, as on a user's machine, the tests of them are skipped.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// One directory.
pub(crate) struct Golden {
    pub(crate) name: String,
    pub(crate) directory: PathBuf,
    pub(crate) json: Value,
}

/// What an id must read back as.
pub(crate) struct Expected {
    /// Newest first.
    pub(crate) history: Vec<Vec<u8>>,
    pub(crate) location: (u16, u32),
}

/// All directories; none, with a word to the reader of the test's output, where they are not.
pub(crate) fn all() -> Vec<Golden> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/golden");
    if !root.is_dir() {
        assert!(
            std::env::var("CI").is_err(),
            "{} is missing",
            root.display()
        );
        eprintln!("skipped: {} is not there", root.display());
        return Vec::new();
    }
    let mut all = Vec::new();
    for entry in fs::read_dir(&root).unwrap() {
        let path = entry.unwrap().path();
        if path
            .extension()
            .is_some_and(|extension| extension == "json")
        {
            let json = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            let directory = path.with_extension("");
            let name = directory
                .file_name()
                .unwrap()
                .to_string_lossy()
                .into_owned();
            all.push(Golden {
                name,
                directory,
                json,
            });
        }
    }
    assert!(!all.is_empty(), "{} is empty", root.display());
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

/// The one of that name, if any is there.
pub(crate) fn named(name: &str) -> Option<Golden> {
    let mut all = all();
    if all.is_empty() {
        return None;
    }
    let index = all.iter().position(|golden| golden.name == name);
    Some(all.swap_remove(index.unwrap_or_else(|| panic!("there is no golden directory {name}"))))
}

impl Golden {
    /// Whether `ids` says of every id what it must be.
    pub(crate) fn is_described(&self) -> bool {
        self.json.get("ids").is_some()
    }

    /// The live ids.
    pub(crate) fn live(&self) -> BTreeMap<u32, Expected> {
        let ids = self.json["ids"].as_object().unwrap();
        ids.iter()
            .filter(|(_, id)| id.get("deleted").is_none())
            .map(|(id, expected)| {
                let history = expected["history"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(bytes)
                    .collect();
                let number = |index: usize| expected["location"][index].as_u64().unwrap();
                let location = (number(0) as u16, number(1) as u32);
                (id.parse().unwrap(), Expected { history, location })
            })
            .collect()
    }

    /// The ids that must not be there.
    pub(crate) fn absent(&self) -> Vec<u32> {
        let ids = self.json["ids"].as_object().unwrap();
        let deleted = ids.iter().filter(|(_, id)| id.get("deleted").is_some());
        let missing = self.json["missing_ids"].as_array().unwrap();
        deleted
            .map(|(id, _)| id.parse().unwrap())
            .chain(missing.iter().map(|id| id.as_u64().unwrap() as u32))
            .collect()
    }

    /// In incremental mode.
    pub(crate) fn next_id(&self) -> Option<u32> {
        self.json["next_id"].as_u64().map(|id| id as u32)
    }

    pub(crate) fn setting(&self, name: &str) -> u32 {
        self.json["config"][name].as_u64().unwrap() as u32
    }

    /// A copy to open and change.
    pub(crate) fn copy_to(&self, path: &Path) {
        copy(&self.directory, path);
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            // Read and written, not copied: the originals are read-only.
            fs::write(target, fs::read(entry.path()).unwrap()).unwrap();
        }
    }
}

/// The bytes of a hexadecimal string.
pub(crate) fn bytes(hex: &Value) -> Vec<u8> {
    let hex = hex.as_str().unwrap().as_bytes();
    hex.chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}
