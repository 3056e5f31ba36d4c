//! Bars: a panel for each thing that is measured, a bar for each store, the same stores in the same
//! places everywhere.

use std::error::Error;

use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use super::style::{
    Area, COLUMNS, GAP, GRID, HEADING, INK, OURS, PALE, PEER, TICKS, TITLE, WIDTH, decades,
    letters, page, panel_title, rows, tick,
};
use crate::catalogue::Row;
use crate::results::{Results, Summary};
use crate::tables::{self, grouped, number};

/// What has a panel.
const ROWS: &[&str] = &[
    "insert",
    "insert_batch",
    "set",
    "get",
    "get_batch",
    "get_two",
    "scan",
    "mixed_50",
    "delete",
    "durable",
    "open",
    "disk",
];

/// Of a bar and the space around it.
const BAR: i32 = 16;
/// For the names of the stores.
const NAMES: i32 = 128;
/// For the figure behind a bar.
const FIGURE: f64 = 54.0;

/// The picture of the results with one number of records.
pub fn draw(results: &Results) -> Result<String, Box<dyn Error>> {
    let measured = |row: &Row| {
        results
            .engines
            .iter()
            .any(|store| results.summary(store, row.name).is_some())
    };
    let rows: Vec<_> = rows(ROWS)
        .into_iter()
        .filter(|(_, row)| measured(row))
        .collect();
    let bars = results.engines.len() as i32 * BAR;
    let panel = TITLE + bars + TICKS + GAP;
    let height = HEADING + panel * rows.len().div_ceil(COLUMNS) as i32;

    let mut svg = String::new();
    let title = format!(
        "{} records of 100 bytes; rounds: {}",
        grouped(results.records.into()),
        results.rounds
    );
    let explanation = "Logarithmic; less is better. Thin lines: from the lowest to the highest of the rounds. \
                       Nothing is synced but where it says so.";
    let root = page(&mut svg, height, &title, explanation)?;
    let width = (WIDTH as i32 - NAMES - GAP) / COLUMNS as i32;
    for (place, (group, row)) in rows.iter().enumerate() {
        let (line, column) = ((place / COLUMNS) as i32, (place % COLUMNS) as i32);
        let top = HEADING + line * panel;
        if column == 0 {
            let names = root.clone().shrink((GAP, top + TITLE), (NAMES - GAP, bars));
            draw_names(&names, &results.engines)?;
        }
        let size = (width - GAP, panel - GAP);
        let area = root.clone().shrink((NAMES + column * width, top), size);
        panel_title(&area, group, row)?;
        draw_bars(
            &area.shrink((0, TITLE), (width - GAP, bars + TICKS)),
            results,
            row,
        )?;
    }
    root.present()?;
    drop(root);
    Ok(svg)
}

/// The middle of a store's bar.
fn middle(store: usize) -> i32 {
    store as i32 * BAR + BAR / 2
}

fn draw_names(area: &Area, stores: &[String]) -> Result<(), Box<dyn Error>> {
    for (place, store) in stores.iter().enumerate() {
        let colour = if store == tables::OURS { &OURS } else { &INK };
        let right = NAMES - GAP - 6;
        area.draw(&Text::new(
            store.clone(),
            (right, middle(place)),
            letters(14, colour, HPos::Right),
        ))?;
    }
    Ok(())
}

fn draw_bars(area: &Area, results: &Results, row: &Row) -> Result<(), Box<dyn Error>> {
    let summaries: Vec<Option<Summary>> = results
        .engines
        .iter()
        .map(|store| results.summary(store, row.name))
        .collect();
    // A logarithmic axis has no zero, and so no natural beginning: half of the least is left of all bars.
    let positive = summaries
        .iter()
        .flatten()
        .filter(|summary| summary.least > 0.0);
    let (least, most) = positive.fold((f64::MAX, 0f64), |(least, most), summary| {
        (least.min(summary.least), most.max(summary.most))
    });
    let first = least.min(most) / 2.0;
    let last = most.max(first * 10.0);
    let width = f64::from(area.dim_in_pixel().0) - FIGURE;
    let bottom = results.engines.len() as i32 * BAR;
    let place =
        |value: f64| (width * (value / first).log10() / (last / first).log10()).max(0.0) as i32;

    for value in decades(first, last) {
        if value < first || value > last {
            continue;
        }
        let x = place(value);
        area.draw(&PathElement::new([(x, 0), (x, bottom)], GRID))?;
        area.draw(&Text::new(
            tick(value),
            (x, bottom + 8),
            letters(12, &PALE, HPos::Center),
        ))?;
    }
    area.draw(&PathElement::new([(0, 0), (0, bottom)], PALE))?;
    for (store, summary) in summaries.iter().enumerate() {
        let y = middle(store);
        let Some(summary) = summary else {
            area.draw(&Text::new("–", (4, y), letters(13, &PALE, HPos::Left)))?;
            continue;
        };
        let ours = results.engines[store] == tables::OURS;
        let colour = if ours { OURS } else { PEER };
        let corners = [
            (0, y - BAR / 2 + 2),
            (place(summary.median).max(1), y + BAR / 2 - 1),
        ];
        area.draw(&Rectangle::new(corners, colour.filled()))?;
        let span = [(place(summary.least), y), (place(summary.most), y)];
        area.draw(&PathElement::new(span, INK))?;
        let figure = letters(13, if ours { &OURS } else { &INK }, HPos::Left);
        area.draw(&Text::new(
            number(summary.median),
            (span[1].0.max(corners[1].0) + 4, y),
            figure,
        ))?;
    }
    Ok(())
}
