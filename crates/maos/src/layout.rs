//! How data looks to people: aligned fields, tables that fit the terminal, colours where they help.
//!
//! Law: a colour only repeats what a word says, and there is none without a terminal or with
//! NO_COLOR.

use std::io::IsTerminal;

use console::{Alignment, Term, measure_text_width, pad_str, truncate_str};
use maos_api::agent::AgentStatus;
use maos_api::document::{List, list, members};
use maos_api::task::TaskStatus;
use maos_api::time::UtcTime;

use crate::words;

/// Entries of a list that are shown in a field.
const SHOWN_MAX: usize = 10;
/// Narrower than this a table is not made to fit.
const WIDTH_MIN: usize = 40;

#[derive(Clone, Copy)]
enum Colour {
    Red,
    Green,
    Yellow,
    Blue,
    Grey,
}

/// What the output is written to.
#[derive(Clone, Copy)]
pub(crate) struct Screen {
    /// Characters of a line; `None` where nobody counts them.
    width: Option<usize>,
    colours: bool,
}

impl Screen {
    /// Standard output as it is.
    pub(crate) fn stdout() -> Screen {
        if !std::io::stdout().is_terminal() {
            return Screen { width: None, colours: false };
        }
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let width = Term::stdout().size_checked().map(|(_, columns)| usize::from(columns));
        Screen { width, colours: !set("NO_COLOR") && !dumb }
    }

    pub(crate) fn task_status(self, status: TaskStatus) -> String {
        let colour = match status {
            TaskStatus::Completed => Colour::Green,
            TaskStatus::Failed => Colour::Red,
            TaskStatus::Cancelled | TaskStatus::Retrying => Colour::Yellow,
            TaskStatus::Running => Colour::Blue,
            TaskStatus::Pending | TaskStatus::Ready => Colour::Grey,
        };
        self.painted(status.name(), colour)
    }

    pub(crate) fn agent_status(self, status: AgentStatus) -> String {
        let colour = match status {
            AgentStatus::Idle => Colour::Green,
            AgentStatus::Busy => Colour::Blue,
            AgentStatus::Initializing | AgentStatus::Overloaded => Colour::Yellow,
            AgentStatus::Unhealthy | AgentStatus::Offline => Colour::Red,
            AgentStatus::Terminated => Colour::Grey,
        };
        self.painted(status.name(), colour)
    }

    fn painted(self, word: &str, colour: Colour) -> String {
        if !self.colours {
            return word.to_owned();
        }
        let code = match colour {
            Colour::Red => 31,
            Colour::Green => 32,
            Colour::Yellow => 33,
            Colour::Blue => 34,
            Colour::Grey => 90,
        };
        format!("\u{1b}[{code}m{word}\u{1b}[0m")
    }

    /// Rows under their titles. What does not fit is cut from the last column.
    pub(crate) fn table<const N: usize>(self, titles: [&str; N], rows: &[[String; N]]) -> String {
        let mut widths = titles.map(measure_text_width);
        for row in rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = measure_text_width(cell).max(*width);
            }
        }
        let mut lines = vec![self.row(&titles.map(str::to_owned), &widths)];
        lines.extend(rows.iter().map(|row| self.row(row, &widths)));
        lines.join("\n")
    }

    fn row<const N: usize>(self, cells: &[String; N], widths: &[usize; N]) -> String {
        let padded = cells.iter().zip(widths);
        let padded = padded.map(|(cell, width)| pad_str(cell, *width, Alignment::Left, None));
        let line = padded.collect::<Vec<_>>().join("  ");
        let line = line.trim_end();
        match self.width {
            Some(width) if width >= WIDTH_MIN => truncate_str(line, width, "…").into_owned(),
            Some(_) | None => line.to_owned(),
        }
    }

    /// One line for as much of a text as fits behind a field's name.
    pub(crate) fn excerpt(self, text: &str) -> String {
        let most = self.width.unwrap_or(0).saturating_sub(Fields::INDENT).max(100);
        truncate_str(&words::one_line(text), most, "…").into_owned()
    }
}

/// Names and values, aligned; a field without a value is left out.
#[derive(Default)]
pub(crate) struct Fields(Vec<String>);

impl Fields {
    const INDENT: usize = 14;

    pub(crate) fn with(mut self, name: &str, value: impl Into<Option<String>>) -> Fields {
        if let Some(value) = value.into().filter(|value| !value.is_empty()) {
            let indent = Fields::INDENT;
            let value = value.replace('\n', &format!("\n{:indent$}", ""));
            self.0.push(format!("{name:<indent$}{value}"));
        }
        self
    }

    pub(crate) fn text(&self) -> String {
        self.0.join("\n")
    }
}

/// The first few of a list, and how many there are in all.
pub(crate) fn few<T: ToString>(items: &[T]) -> String {
    let shown: Vec<String> = items.iter().take(SHOWN_MAX).map(T::to_string).collect();
    let mut text = words::one_line(&shown.join(", "));
    if items.len() > SHOWN_MAX {
        text.push_str(&format!(", … ({} in all)", items.len()));
    }
    text
}

/// A moment, to the second.
pub(crate) fn moment(time: UtcTime) -> String {
    UtcTime(time.0 - time.0 % 1_000_000).to_string()
}

/// A length of time in the two largest units.
pub(crate) fn span(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, _, _) => format!("{hours} h {minutes} min"),
        (_, _, _) => format!("{days} d {hours} h"),
    }
}

/// A number of bytes in the largest unit that it fills.
pub(crate) fn size(bytes: u64) -> String {
    match bytes {
        0..0x400 => format!("{bytes} B"),
        0x400..0x10_0000 => format!("{} KB", bytes >> 10),
        0x10_0000..0x4000_0000 => format!("{} MB", bytes >> 20),
        _ => format!("{}.{} GB", bytes >> 30, ((bytes % (1 << 30)) * 10) >> 30),
    }
}

/// JSON for people: indented, members in their order, every number and string as it came.
pub(crate) fn indented(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    indent(json.trim(), 0, &mut text);
    text
}

fn indent(json: &str, depth: usize, text: &mut String) {
    let line = |text: &mut String, depth: usize| {
        text.push('\n');
        text.push_str(&"  ".repeat(depth));
    };
    if let Some(members) = members(json).filter(|members| !members.0.is_empty()) {
        text.push('{');
        for (index, (name, value)) in members.0.iter().enumerate() {
            text.push_str(if index == 0 { "" } else { "," });
            line(text, depth + 1);
            text.push_str(&serde_json::Value::from(name.as_ref()).to_string());
            text.push_str(": ");
            indent(value.get(), depth + 1, text);
        }
        line(text, depth);
        text.push('}');
    } else if let Some(List::Entries(entries)) = list(json, usize::MAX).filter(not_empty) {
        text.push('[');
        for (index, value) in entries.iter().enumerate() {
            text.push_str(if index == 0 { "" } else { "," });
            line(text, depth + 1);
            indent(value.get(), depth + 1, text);
        }
        line(text, depth);
        text.push(']');
    } else {
        text.push_str(json);
    }
}

fn not_empty(list: &List<'_>) -> bool {
    match list {
        List::Entries(entries) => !entries.is_empty(),
        List::TooLong { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells<const N: usize>(cells: [&str; N]) -> [String; N] {
        cells.map(str::to_owned)
    }

    #[test]
    fn tables_align_and_fit_the_terminal() {
        let rows =
            [cells(["1", "ready", "ü wörd"]), cells(["22", "completed", &"long ".repeat(9)])];
        let titles = ["ID", "STATUS", "NAME"];
        let wide = Screen { width: None, colours: false }.table(titles, &rows);
        insta::assert_snapshot!(wide, @r"
        ID  STATUS     NAME
        1   ready      ü wörd
        22  completed  long long long long long long long long long
        ");
        let narrow = Screen { width: Some(40), colours: false }.table(titles, &rows);
        assert!(narrow.lines().all(|line| measure_text_width(line) <= 40), "{narrow}");
        assert!(narrow.ends_with('…'), "{narrow}");
    }

    #[test]
    fn colours_only_repeat_the_word_and_do_not_move_columns() {
        let (plain, coloured) =
            (Screen { width: None, colours: false }, Screen { width: None, colours: true });
        assert_eq!(plain.task_status(TaskStatus::Failed), "failed");
        assert_eq!(coloured.task_status(TaskStatus::Failed), "\u{1b}[31mfailed\u{1b}[0m");
        let table = |screen: Screen| {
            screen.table(["S", "N"], &[[screen.task_status(TaskStatus::Failed), "x".into()]])
        };
        assert_eq!(console::strip_ansi_codes(&table(coloured)), table(plain));
    }

    #[test]
    fn fields_align_and_leave_out_what_is_not_there() {
        let fields = Fields::default()
            .with("id", "7".to_owned())
            .with("error", "two\nlines".to_owned())
            .with("agent", None);
        insta::assert_snapshot!(fields.text(), @r"
        id            7
        error         two
                      lines
        ");
    }

    #[test]
    fn json_is_indented_and_otherwise_as_it_came() {
        let json = r#"{"b":1.00,"a":[1,{"x":"\u00fc"}],"e":{},"l":[]}"#;
        insta::assert_snapshot!(indented(json), @r#"
        {
          "b": 1.00,
          "a": [
            1,
            {
              "x": "\u00fc"
            }
          ],
          "e": {},
          "l": []
        }
        "#);
    }

    #[test]
    fn spans_have_two_units() {
        let spans = [5, 65, 3_700, 90_000].map(span);
        assert_eq!(spans, ["5 s", "1 min 5 s", "1 h 1 min", "1 d 1 h"]);
    }

    #[test]
    fn sizes_are_in_the_largest_unit_that_they_fill() {
        let sizes = [0, 1_023, 1_024, 5 << 20, (1 << 30) - 1, 5 << 29].map(size);
        assert_eq!(sizes, ["0 B", "1023 B", "1 KB", "5 MB", "1023 MB", "2.5 GB"]);
    }

    #[test]
    fn long_lists_are_counted() {
        let many: Vec<u32> = (0..12).collect();
        assert_eq!(few(&many), "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, … (12 in all)");
        assert_eq!(few(&many[..2]), "0, 1");
    }
}
