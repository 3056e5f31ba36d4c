//! The results as Markdown.

use std::fmt::Write;

use crate::catalogue::{GROUPS, Group, Row};
use crate::parent::OWN;
use crate::results::{Results, Summary};

/// The store whose figures are compared with the best of the others.
pub const OURS: &str = "OurDB";

/// The whole report.
pub fn markdown(results: &Results) -> String {
    let mut text = String::new();
    heading(&mut text, results);
    for group in GROUPS {
        table(
            &mut text,
            results,
            group,
            &|summary| number(summary.median),
            true,
        );
    }
    if !results.failures.is_empty() {
        text.push_str("## Not finished\n\n");
        results
            .failures
            .iter()
            .for_each(|failure| line(&mut text, format_args!("- {failure}")));
        text.push('\n');
    }
    text.push_str("# Lowest and highest\n\n");
    for group in GROUPS {
        let span = |summary: Summary| format!("{}–{}", number(summary.least), number(summary.most));
        table(&mut text, results, group, &span, false);
    }
    text
}

fn line(text: &mut String, content: std::fmt::Arguments) {
    writeln!(text, "{content}").expect("a string takes everything");
}

fn heading(text: &mut String, results: &Results) {
    line(
        text,
        format_args!(
            "# OurDB beside other stores: {} records\n",
            grouped(results.records.into())
        ),
    );
    line(
        text,
        format_args!(
            "Values of 100 bytes. Medians of {} rounds; less is better. Nothing is synced but in the table \
             \"Durable\". A dash: the store has nothing of the kind, or it wasn't measured. The ratio is OurDB's \
             figure over that of the best of the others.\n",
            results.rounds
        ),
    );
    for (name, what) in &results.machine {
        line(text, format_args!("- {name}: {what}"));
    }
    line(
        text,
        format_args!("- each workload: {} ms", results.time_ms),
    );
    line(
        text,
        format_args!(
            "- killed with {} MB in OurDB's log, the others with as many records\n",
            results.kill_mb
        ),
    );
}

/// The table of a group: a row for each store, a column for each thing that is measured.
fn table(
    text: &mut String,
    results: &Results,
    group: &Group,
    cell: &dyn Fn(Summary) -> String,
    ratio: bool,
) {
    let stores: Vec<&str> = results
        .engines
        .iter()
        .map(String::as_str)
        .chain([OWN])
        .collect();
    let has = |store: &&&str| {
        group
            .rows
            .iter()
            .any(|row| results.summary(store, row.name).is_some())
    };
    let stores: Vec<&str> = stores.iter().filter(has).copied().collect();
    if stores.is_empty() {
        return;
    }
    line(text, format_args!("## {}\n", group.title));
    let titles: Vec<String> = group.rows.iter().map(title).collect();
    line(text, format_args!("| | {} |", titles.join(" | ")));
    line(text, format_args!("|---|{}", "---:|".repeat(titles.len())));
    for store in &stores {
        let cells = group
            .rows
            .iter()
            .map(|row| results.summary(store, row.name).map_or("–".into(), cell));
        line(
            text,
            format_args!("| {store} | {} |", cells.collect::<Vec<_>>().join(" | ")),
        );
    }
    if ratio && stores.contains(&OURS) && stores.len() > 1 {
        let cells = group
            .rows
            .iter()
            .map(|row| against_best(results, &stores, row));
        line(
            text,
            format_args!("| *ratio* | {} |", cells.collect::<Vec<_>>().join(" | ")),
        );
    }
    text.push('\n');
}

fn title(row: &Row) -> String {
    if row.unit.is_empty() {
        row.title.to_owned()
    } else {
        format!("{}, {}", row.title, row.unit)
    }
}

/// OurDB's median over that of the best of the others, and who that is.
fn against_best(results: &Results, stores: &[&str], row: &Row) -> String {
    let peers = stores.iter().filter(|&&store| store != OURS);
    let medians = peers.filter_map(|store| Some((results.summary(store, row.name)?.median, store)));
    let best = medians.min_by(|left, right| left.0.total_cmp(&right.0));
    match (results.summary(OURS, row.name), best) {
        (Some(ours), Some((best, who))) if best > 0.0 => {
            format!("{} ({who})", number(ours.median / best))
        }
        _ => "–".to_owned(),
    }
}

/// With three digits that count.
pub fn number(value: f64) -> String {
    match value {
        value if value >= 99.95 => grouped(value.round() as u64),
        value if value >= 9.995 => format!("{value:.1}"),
        0.0 => "0".to_owned(),
        value => format!("{value:.2}"),
    }
}

/// With a comma between thousands.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.char_indices() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{grouped, number};

    #[test]
    fn numbers_are_short_and_right() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_000_000), "1,000,000");
        assert_eq!(number(0.0), "0");
        assert_eq!(number(0.123), "0.12");
        assert_eq!(number(12.34), "12.3");
        assert_eq!(number(99.96), "100");
        assert_eq!(number(12345.6), "12,346");
    }
}
