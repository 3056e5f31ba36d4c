//! The machine that the figures are from, and the stores.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::engines;

/// What there is to know, by name.
pub fn describe(directory: &Path) -> BTreeMap<String, String> {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let gib = field(&memory, "MemTotal")
        .trim_end_matches(" kB")
        .parse::<f64>()
        .unwrap_or(0.0)
        / 1024.0
        / 1024.0;
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or("unknown").to_owned();
    BTreeMap::from([
        ("stores".to_owned(), engines::versions()),
        ("load of the last minute at the start".to_owned(), load),
        ("processor".to_owned(), field(&cpu, "model name")),
        ("cores".to_owned(), cores.to_string()),
        ("memory".to_owned(), format!("{gib:.1} GiB")),
        ("kernel".to_owned(), format!("Linux {}", kernel.trim())),
        ("file system".to_owned(), file_system(directory)),
    ])
}

/// The rest of the first line that begins with this name and a colon.
fn field(text: &str, name: &str) -> String {
    let mut fields = text.lines().filter_map(|line| line.split_once(':'));
    let found = fields.find(|(key, _)| key.trim() == name);
    found.map_or_else(
        || "unknown".to_owned(),
        |(_, value)| value.trim().to_owned(),
    )
}

/// The type of the file system that a directory is on.
fn file_system(directory: &Path) -> String {
    let Ok(directory) = fs::canonicalize(directory) else {
        return "unknown".to_owned();
    };
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mounts = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        Some((words.next()?, words.next()?))
    });
    let above = mounts.filter(|(point, _)| directory.starts_with(point));
    above
        .max_by_key(|(point, _)| point.len())
        .map_or("unknown", |(_, kind)| kind)
        .to_owned()
}
