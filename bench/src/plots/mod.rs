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
    for entry in fs::read_dir(directory)? {
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
