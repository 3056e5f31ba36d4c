//! The results as plots, in SVG: for each number of records bars of all stores, and for all numbers
//! together lines.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use crate::results::Results;

mod bars;
mod sizes;
mod style;

/// Reads all results in a directory and puts the plots beside them.
pub fn draw(directory: &Path) -> Result<(), Box<dyn Error>> {
    let mut runs = Vec::new();
    let entries =
        fs::read_dir(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "json")
        {
            runs.push(read(path)?);
        }
    }
    runs.sort_by_key(|(_, results)| results.records);
    for (path, results) in &runs {
        save(&path.with_extension("svg"), &bars::draw(results)?)?;
    }
    let runs: Vec<Results> = runs.into_iter().map(|(_, results)| results).collect();
    if let Some(svg) = sizes::draw(&runs)? {
        save(&directory.join("sizes.svg"), &svg)?;
    }
    Ok(())
}

fn read(path: PathBuf) -> Result<(PathBuf, Results), Box<dyn Error>> {
    let results = serde_json::from_str(&fs::read_to_string(&path)?)
        .map_err(|error| format!("{}: {error}", path.display()))?;
    Ok((path, results))
}

fn save(path: &Path, svg: &str) -> Result<(), Box<dyn Error>> {
    fs::write(path, svg)?;
    println!("{}", path.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{bars, sizes};
    use crate::results::Results;

    /// OurDB has a get and a scan, "Other" a get.
    fn results(records: u32) -> Results {
        let mut results = Results {
            machine: BTreeMap::new(),
            records,
            rounds: 1,
            time_ms: 1,
            kill_mb: 1,
            engines: vec!["OurDB".into(), "Other".into()],
            samples: BTreeMap::new(),
            failures: Vec::new(),
        };
        results.add("OurDB", "get", 61.5, 1);
        results.add("OurDB", "scan", 7.25, 1);
        results.add("Other", "get", 2345.0, 1);
        results
    }

    /// How often this text stands in a picture.
    fn count(svg: &str, text: &str) -> usize {
        svg.lines().filter(|line| line.trim() == text).count()
    }

    #[test]
    fn bars_have_names_figures_and_a_dash_for_what_is_missing() {
        let svg = bars::draw(&results(1000)).unwrap();
        assert_eq!([count(&svg, "OurDB"), count(&svg, "Other")], [1, 1]);
        assert_eq!(
            [
                count(&svg, "61.5"),
                count(&svg, "7.25"),
                count(&svg, "2,345")
            ],
            [1, 1, 1]
        );
        assert_eq!(count(&svg, "–"), 1);
        assert_eq!(
            svg.matches("<rect").count(),
            1 + 3,
            "the ground and three bars"
        );
    }

    #[test]
    fn lines_need_two_sizes() {
        assert!(sizes::draw(&[results(1000)]).unwrap().is_none());
        let svg = sizes::draw(&[results(1000), results(100_000)])
            .unwrap()
            .unwrap();
        assert_eq!([count(&svg, "OurDB"), count(&svg, "Other")], [1, 1]);
        assert_eq!(svg.matches("<circle").count(), 2 * 3);
    }
}
