//! Words for people on standard error, data on standard output.
//!
//! Law: nothing that a server sent reaches a terminal as a control character.

use std::borrow::Cow;
use std::io::{self, Write};

use maos_api::error::ApiError;

/// Says something. That nobody listens is no failure.
pub(crate) fn say(words: &str) {
    drop(writeln!(io::stderr().lock(), "{words}"));
}

/// Writes data and a line end; whoever reads it has it when this returns.
pub(crate) fn print(data: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{data}")?;
    out.flush()
}

/// Writes the one JSON document of a command.
pub(crate) fn print_json(document: &impl serde::Serialize) -> anyhow::Result<()> {
    Ok(print(&serde_json::to_string_pretty(document)?)?)
}

/// Writes the one JSON document of a command as a server sent it.
pub(crate) fn print_raw(document: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(document.trim_ascii_end())?;
    out.write_all(b"\n")?;
    out.flush()
}

/// A refusal as an error of the command.
pub(crate) fn api_error(error: ApiError) -> anyhow::Error {
    anyhow::Error::new(error)
}

/// The text without what a terminal would obey; line ends and tabs stay.
pub(crate) fn harmless(text: &str) -> Cow<'_, str> {
    let obeys = |c: char| c.is_control() && c != '\n' && c != '\t';
    if !text.chars().any(obeys) {
        return Cow::Borrowed(text);
    }
    let escaped = text.chars().flat_map(move |c| {
        let (plain, escaped) = ((!obeys(c)).then_some(c), obeys(c).then(|| c.escape_default()));
        plain.into_iter().chain(escaped.into_iter().flatten())
    });
    Cow::Owned(escaped.collect())
}

/// The same in one line.
pub(crate) fn one_line(text: &str) -> String {
    harmless(text).replace(['\n', '\t'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_escaped() {
        assert_eq!(harmless("a\u{1b}[31mb\r\n\u{7}ü"), "a\\u{1b}[31mb\\r\n\\u{7}ü");
        assert_eq!(one_line("a\n\tb"), "a  b");
    }
}
