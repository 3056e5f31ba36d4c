//! Lines: what an operation costs by the number of records.

use std::error::Error;

use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use super::style::{
    Area, COLUMNS, GAP, GRID, HEADING, INK, OURS, PALE, TICKS, TITLE, WIDTH, decades, letters,
    page, panel_title, rows, tick,
};
use crate::catalogue::Row;
use crate::results::Results;
use crate::tables;

/// What has a panel.
const ROWS: &[&str] = &["insert_batch", "set", "get", "get_batch", "scan", "open"];

/// Of the square with the lines.
const HEIGHT: i32 = 240;
/// For the numbers left of a panel.
const LABELS: i32 = 42;
/// Of a line of the legend.
const LEGEND: i32 = 18;
/// Stores in such a line.
const NAMES: usize = 6;

/// The other stores, in the order of the tables.
const COLOURS: [RGBColor; 15] = [
    RGBColor(0x1f, 0x4e, 0x9e),
    RGBColor(0x5b, 0xa3, 0xe0),
    RGBColor(0x2a, 0x8c, 0x4a),
    RGBColor(0x8a, 0x4f, 0xbf),
    RGBColor(0xc9, 0xa8, 0xe6),
    RGBColor(0x7a, 0x4a, 0x2b),
    RGBColor(0xe0, 0x9a, 0x1a),
    RGBColor(0xe0, 0x6f, 0xb0),
    RGBColor(0x22, 0x22, 0x22),
    RGBColor(0x14, 0xa0, 0xa0),
    RGBColor(0x9a, 0xb8, 0x2c),
    RGBColor(0x9a, 0x9a, 0x9a),
    RGBColor(0xd9, 0xc4, 0x2a),
    RGBColor(0xc7, 0x9a, 0x78),
    RGBColor(0x8b, 0x1a, 0x4a),
];

/// The picture, if there are at least two numbers of records. Stores that were measured with one
/// alone are left out.
pub fn draw(runs: &[Results]) -> Result<Option<String>, Box<dyn Error>> {
    let stores = stores(runs);
    if stores.is_empty() {
        return Ok(None);
    }
    let rows = rows(ROWS);
    let panel = TITLE + HEIGHT + TICKS + GAP;
    let panels = HEADING + panel * rows.len().div_ceil(COLUMNS) as i32;
    let height = panels + LEGEND * stores.len().div_ceil(NAMES) as i32 + GAP;

    let mut svg = String::new();
    let title = "By the number of records of 100 bytes";
    let explanation = "Both axes logarithmic; less is better. Medians. Nothing is synced.";
    let root = page(&mut svg, height, title, explanation)?;
    let width = (WIDTH as i32 - GAP) / COLUMNS as i32;
    for (place, (group, row)) in rows.iter().enumerate() {
        let (line, column) = ((place / COLUMNS) as i32, (place % COLUMNS) as i32);
        let corner = (GAP + column * width, HEADING + line * panel);
        let area = root.clone().shrink(corner, (width - GAP, panel - GAP));
        panel_title(&area, group, row)?;
        draw_lines(
            &area.shrink((0, TITLE), (width - GAP, HEIGHT + TICKS)),
            runs,
            &stores,
            row,
        )?;
    }
    draw_legend(
        &root
            .clone()
            .shrink((GAP, panels), (WIDTH as i32 - GAP, height - panels)),
        &stores,
    )?;
    root.present()?;
    drop(root);
    Ok(Some(svg))
}

/// Those that have been measured with several numbers of records, each once.
fn stores(runs: &[Results]) -> Vec<&str> {
    let mut stores: Vec<&str> = Vec::new();
    for run in runs.iter().rev() {
        for store in &run.engines {
            let measured = runs
                .iter()
                .filter(|run| run.samples.contains_key(store))
                .count();
            if measured > 1 && !stores.contains(&store.as_str()) {
                stores.push(store);
            }
        }
    }
    stores
}

/// The colour and the width of a line.
fn line_of(stores: &[&str], store: usize) -> ShapeStyle {
    if stores[store] == tables::OURS {
        return OURS.stroke_width(4);
    }
    let peers = stores[..store]
        .iter()
        .filter(|&&name| name != tables::OURS)
        .count();
    COLOURS[peers % COLOURS.len()].stroke_width(2)
}

fn draw_lines(
    area: &Area,
    runs: &[Results],
    stores: &[&str],
    row: &Row,
) -> Result<(), Box<dyn Error>> {
    let lines: Vec<Vec<(f64, f64)>> = stores
        .iter()
        .map(|store| {
            let point = |run: &Results| {
                Some((f64::from(run.records), run.summary(store, row.name)?.median))
            };
            runs.iter()
                .filter_map(point)
                .filter(|point| point.1 > 0.0)
                .collect()
        })
        .collect();
    let span = |values: &mut dyn Iterator<Item = f64>| {
        values.fold((f64::MAX, 0f64), |(least, most), value| {
            (least.min(value), most.max(value))
        })
    };
    let (fewest, most_records) = span(&mut runs.iter().map(|run| f64::from(run.records)));
    let (least, most) = span(&mut lines.iter().flatten().map(|point| point.1));
    let (across, up) = (
        decades(fewest, most_records),
        decades(least.min(most), most),
    );
    let (right, bottom) = (area.dim_in_pixel().0 as i32 - 10, HEIGHT - 4);
    let part = |value: f64, ticks: &[f64]| {
        (value / ticks[0]).log10() / (ticks[ticks.len() - 1] / ticks[0]).log10()
    };
    let x = |value| LABELS + (f64::from(right - LABELS) * part(value, &across)) as i32;
    let y = |value| bottom - (f64::from(bottom - 6) * part(value, &up)) as i32;

    for &value in &across {
        area.draw(&PathElement::new([(x(value), 6), (x(value), bottom)], GRID))?;
        area.draw(&Text::new(
            tick(value),
            (x(value), bottom + 10),
            letters(12, &PALE, HPos::Center),
        ))?;
    }
    for &value in &up {
        area.draw(&PathElement::new(
            [(LABELS, y(value)), (right, y(value))],
            GRID,
        ))?;
        area.draw(&Text::new(
            tick(value),
            (LABELS - 5, y(value)),
            letters(12, &PALE, HPos::Right),
        ))?;
    }
    // OurDB is first, and is drawn last, over the others.
    for (store, line) in lines.iter().enumerate().rev() {
        let style = line_of(stores, store);
        let points: Vec<(i32, i32)> = line
            .iter()
            .map(|&(records, cost)| (x(records), y(cost)))
            .collect();
        for &point in &points {
            area.draw(&Circle::new(point, style.stroke_width, style.filled()))?;
        }
        area.draw(&PathElement::new(points, style))?;
    }
    Ok(())
}

fn draw_legend(area: &Area, stores: &[&str]) -> Result<(), Box<dyn Error>> {
    let width = area.dim_in_pixel().0 as i32 / NAMES as i32;
    for (place, store) in stores.iter().enumerate() {
        let x = (place % NAMES) as i32 * width;
        let y = (place / NAMES) as i32 * LEGEND + LEGEND / 2;
        area.draw(&PathElement::new(
            [(x, y), (x + 18, y)],
            line_of(stores, place),
        ))?;
        area.draw(&Text::new(
            (*store).to_owned(),
            (x + 24, y),
            letters(14, &INK, HPos::Left),
        ))?;
    }
    Ok(())
}
