//! Rows as a report for people: headings, text and tables in Markdown.
//!
//! Titles and texts are the author's and stay as they are; what comes from data is escaped, so that
//! no value can break out of its cell.

use std::fmt::Write;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::Fault;
use super::rows::Rows;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Report {
    title: Option<String>,
    text: Option<String>,
    rows: Option<Value>,
    columns: Option<Vec<Column>>,
    #[serde(default)]
    sections: Vec<Section>,
    inputs: Option<Value>,
    input: Option<Value>,
    #[serde(default)]
    skip_null: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Section {
    title: Option<String>,
    text: Option<String>,
    rows: Option<Value>,
    columns: Option<Vec<Column>>,
}

/// A column by its name, or with the words that stand above it.
#[derive(Deserialize)]
#[serde(untagged)]
enum Column {
    Name(String),
    Titled { name: String, title: String },
}

/// What the plan hands over is the report's own table, unless the report says which rows it has.
pub(super) fn report(wanted: &Report) -> Result<Value, Fault> {
    let own = match (&wanted.rows, &wanted.inputs, &wanted.input) {
        (Some(rows), _, _) => Some(Rows::of(rows, "rows")?),
        (None, _, _) if !wanted.sections.is_empty() => None,
        (None, Some(inputs), _) => Some(Rows::of_all(inputs, "inputs", wanted.skip_null)?),
        (None, None, Some(input)) => Some(Rows::of(input, "input")?),
        (None, None, None) => None,
    };
    let mut report = String::new();
    block(&mut report, "# ", wanted.title.as_deref());
    block(&mut report, "", wanted.text.as_deref());
    if let Some(rows) = &own {
        table(&mut report, rows, wanted.columns.as_deref());
    }
    for (index, section) in wanted.sections.iter().enumerate() {
        block(&mut report, "## ", section.title.as_deref());
        block(&mut report, "", section.text.as_deref());
        if let Some(rows) = &section.rows {
            let rows = Rows::of(rows, &format!("sections[{index}].rows"))?;
            table(&mut report, &rows, section.columns.as_deref());
        }
    }
    if report.is_empty() {
        return Err(Fault::wrong("the report is empty: it has no `title`, `text` or `rows`"));
    }
    Ok(Value::String(report))
}

fn block(report: &mut String, mark: &str, text: Option<&str>) {
    if let Some(text) = text {
        apart(report);
        report.push_str(mark);
        report.push_str(text.trim_end());
        report.push('\n');
    }
}

fn apart(report: &mut String) {
    if !report.is_empty() {
        report.push('\n');
    }
}

fn table(report: &mut String, rows: &Rows<'_>, chosen: Option<&[Column]>) {
    let columns: Vec<(&str, &str)> = match chosen {
        None => rows.columns.iter().map(|name| (*name, *name)).collect(),
        Some(chosen) => chosen.iter().map(Column::parts).collect(),
    };
    if columns.is_empty() {
        return;
    }
    apart(report);
    let titles: Vec<String> = columns.iter().map(|(_, title)| escaped(title)).collect();
    let rules: Vec<&str> = columns
        .iter()
        .map(|(name, _)| if numeric(&rows.rows, name) { "---:" } else { "---" })
        .collect();
    line(report, titles.iter().map(String::as_str));
    line(report, rules.into_iter());
    for row in &rows.rows {
        let cells: Vec<String> = columns.iter().map(|(name, _)| cell(row.get(*name))).collect();
        line(report, cells.iter().map(String::as_str));
    }
}

impl Column {
    fn parts(&self) -> (&str, &str) {
        match self {
            Column::Name(name) => (name, name),
            Column::Titled { name, title } => (name, title),
        }
    }
}

fn line<'c>(report: &mut String, cells: impl Iterator<Item = &'c str>) {
    report.push('|');
    for cell in cells {
        write!(report, " {cell} |").expect("a string takes all that is written");
    }
    report.push('\n');
}

/// Whether a column holds numbers and nothing else: those stand at the right.
fn numeric(rows: &[&Map<String, Value>], name: &str) -> bool {
    let mut values = rows.iter().filter_map(|row| row.get(name)).filter(|value| !value.is_null());
    let mut some = false;
    values.all(|value| {
        some = true;
        value.is_number()
    }) && some
}

fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => escaped(text),
        Some(other) => escaped(&other.to_string()),
    }
}

fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.trim().chars() {
        match c {
            '\\' | '|' | '`' | '*' | '_' | '[' | ']' | '!' | '~' => safe.extend(['\\', c]),
            '<' => safe.push_str("&lt;"),
            '&' => safe.push_str("&amp;"),
            '\n' => safe.push_str("<br>"),
            c if c.is_control() => safe.push(' '),
            c => safe.push(c),
        }
    }
    safe
}
