//! How the plots look, and what both kinds have in common.

use std::error::Error;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::catalogue::{GROUPS, Group, Row};

/// Where is drawn.
pub type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Of a picture; it is shown at about this size.
pub const WIDTH: u32 = 900;
/// Panels side by side.
pub const COLUMNS: usize = 3;
/// Between panels.
pub const GAP: i32 = 14;
/// Of the heading of the picture.
pub const HEADING: i32 = 60;
/// Of the two lines above a panel.
pub const TITLE: i32 = 34;
/// Of the numbers below a panel.
pub const TICKS: i32 = 20;

/// OurDB.
pub const OURS: RGBColor = RGBColor(0xd6, 0x45, 0x1f);
/// Any other store.
pub const PEER: RGBColor = RGBColor(0x9d, 0xb2, 0xc6);
/// Letters.
pub const INK: RGBColor = RGBColor(0x22, 0x22, 0x22);
/// Letters that matter less.
pub const PALE: RGBColor = RGBColor(0x6a, 0x6a, 0x6a);
/// Lines behind everything.
pub const GRID: RGBColor = RGBColor(0xe2, 0xe2, 0xe2);

/// Letters of this size, which makes four fifths of it in pixels, and colour, to the right of their place (`Left`), left of it or around it.
pub fn letters(size: u32, colour: &'static RGBColor, side: HPos) -> TextStyle<'static> {
    TextStyle::from(("sans-serif", size).into_font())
        .color(colour)
        .pos(Pos::new(side, VPos::Center))
}

/// An empty picture with its heading; what is below that.
pub fn page<'a>(
    svg: &'a mut String,
    height: i32,
    title: &str,
    explanation: &str,
) -> Result<Area<'a>, Box<dyn Error>> {
    let root = SVGBackend::with_string(svg, (WIDTH, height as u32)).into_drawing_area();
    root.fill(&WHITE)?;
    root.draw(&Text::new(
        title.to_owned(),
        (GAP, 18),
        letters(20, &INK, HPos::Left),
    ))?;
    root.draw(&Text::new(
        explanation.to_owned(),
        (GAP, 38),
        letters(14, &PALE, HPos::Left),
    ))?;
    Ok(root)
}

/// The two lines above a panel: what is measured, and in which unit.
pub fn panel_title(area: &Area, group: &Group, row: &Row) -> Result<(), Box<dyn Error>> {
    let what = if row.unit.is_empty() {
        row.title.to_owned()
    } else {
        format!("{}, {}", row.title, row.unit)
    };
    area.draw(&Text::new(
        group.title,
        (0, 6),
        letters(13, &PALE, HPos::Left),
    ))?;
    area.draw(&Text::new(what, (0, 22), letters(14, &INK, HPos::Left)))?;
    Ok(())
}

/// The rows of these names with their groups.
pub fn rows(names: &[&str]) -> Vec<(&'static Group, &'static Row)> {
    let named = |name: &&str| {
        let rows = GROUPS
            .iter()
            .flat_map(|group| group.rows.iter().map(move |row| (group, row)));
        rows.into_iter().find(|(_, row)| row.name == *name)
    };
    names.iter().filter_map(named).collect()
}

/// The powers of ten from the one at or below the least to the one at or above the most.
pub fn decades(least: f64, most: f64) -> Vec<f64> {
    let (first, last) = (least.log10().floor() as i32, most.log10().ceil() as i32);
    (first..=last.max(first + 1))
        .map(|power| 10f64.powi(power))
        .collect()
}

/// A power of ten in few letters.
pub fn tick(value: f64) -> String {
    match value {
        value if value >= 1e9 => format!("{}G", value / 1e9),
        value if value >= 1e6 => format!("{}M", value / 1e6),
        value if value >= 1e3 => format!("{}k", value / 1e3),
        value => format!("{value}"),
    }
}

#[cfg(test)]
mod tests {
    use super::{decades, tick};

    #[test]
    fn an_axis_holds_all_that_is_on_it() {
        assert_eq!(decades(3.0, 42.0), [1.0, 10.0, 100.0]);
        assert_eq!(decades(10.0, 10.0), [10.0, 100.0]);
        assert_eq!(decades(0.02, 0.5).len(), 3);
        let ticks: Vec<String> = decades(0.2, 3e6).into_iter().map(tick).collect();
        assert_eq!(
            ticks,
            ["0.1", "1", "10", "100", "1k", "10k", "100k", "1M", "10M"]
        );
    }
}
