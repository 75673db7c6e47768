//! What a check has to say. It knows nothing of the checks.

use std::fmt;

/// The name of a rule, as the list of exceptions spells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// A function has at most `FUNCTION_LINES_MAX` lines.
    FunctionLength,
    /// A source file has at most `FILE_LINES_MAX` lines.
    FileLength,
    /// A line of a source file has at most `LINE_CHARS_MAX` characters.
    LineLength,
    /// A Rust file opens with `//!`.
    Opening,
    /// Lints are expected with a reason, never allowed.
    Allow,
    /// Work that is left names its issue.
    OpenWork,
    /// The text speaks of the project, not of one machine.
    Workplace,
    /// A crate or a module uses what it must not know.
    Edge,
    /// A dependency is declared in the workspace table, without default features.
    Manifest,
    /// What a document names exists, and the map stays a map.
    Document,
    /// What comes in from outside is licensed and comes in once.
    Licence,
}

/// One place that breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    pub(crate) rule: Rule,
    /// From the project's root.
    pub(crate) file: String,
    /// Counted from 1.
    pub(crate) line: usize,
    /// What is at fault within the file, if it has a name.
    pub(crate) name: String,
    pub(crate) found: String,
    pub(crate) wanted: String,
    pub(crate) hint: &'static str,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Violation { rule, file, line, name, found, wanted, hint } = self;
        let thing = if name.is_empty() { String::new() } else { format!("`{name}`: ") };
        write!(f, "{file}:{line}: {thing}found {found}, wanted {wanted}")?;
        write!(f, " ({rule:?})\n  hint: {hint}")
    }
}

/// The lines of the violations, for a test that compares them.
pub(crate) fn places(violations: &[Violation]) -> Vec<usize> {
    violations.iter().map(|violation| violation.line).collect()
}
