//! What documents promise about the tree: named paths exist, links lead somewhere, the map is
//! short.

use std::path::Path;

use crate::exceptions::hold;
use crate::tree::{File, files, root, text};
use crate::violation::{Rule, Violation, places};

const MAP: &str = "ARCHITECTURE.md";
const MAP_LINES_MAX: usize = 200;

fn violation(
    file: &File,
    line: usize,
    found: String,
    wanted: &str,
    hint: &'static str,
) -> Violation {
    let (rule, file, wanted) = (Rule::Document, file.path.clone(), wanted.to_owned());
    Violation { rule, file, line, name: String::new(), found, wanted, hint }
}

/// Whether the words between two backticks name a file or a folder of the project.
fn is_path(quoted: &str) -> bool {
    let plain = quoted.chars().all(|c| c.is_ascii_alphanumeric() || "._/-".contains(c));
    let file_ending = [".md", ".rs", ".toml"].iter().any(|ending| quoted.ends_with(ending));
    let absolute = quoted.starts_with('/') || quoted.starts_with("..");
    plain && !absolute && (quoted.contains('/') || file_ending)
}

/// Line and words of each pair of backticks outside of fenced blocks.
fn quotes(text: &str) -> Vec<(usize, &str)> {
    let mut fenced = false;
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            found.extend(line.split('`').skip(1).step_by(2).map(|quoted| (index + 1, quoted)));
        }
    }
    found
}

fn map(file: &File, exists: impl Fn(&str) -> bool) -> Vec<Violation> {
    let mut violations: Vec<_> = quotes(&file.text)
        .into_iter()
        .filter(|(_, quoted)| is_path(quoted) && !exists(quoted))
        .map(|(line, quoted)| {
            let hint = "correct the path, or take out what is not there (yet)";
            violation(file, line, format!("`{quoted}`"), "a path that exists", hint)
        })
        .collect();
    let lines_count = file.text.lines().count();
    if lines_count > MAP_LINES_MAX {
        let hint = "name folders, not functions; details belong to the files' own `//!`";
        let found = format!("{lines_count} lines");
        violations.push(violation(file, lines_count, found, "at most 200", hint));
    }
    violations
}

/// Links to files of the project, with their line.
fn links(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        for rest in line.split("](").skip(1) {
            let target = rest.split([')', '#']).next().unwrap_or("");
            if !target.is_empty() && !target.contains(':') {
                found.push((index + 1, target));
            }
        }
    }
    found
}

fn dead_links(file: &File, exists: impl Fn(&Path) -> bool) -> Vec<Violation> {
    let folder = Path::new(&file.path).parent().unwrap_or(Path::new(""));
    links(&file.text)
        .into_iter()
        .filter(|(_, target)| !exists(&folder.join(target)))
        .map(|(line, target)| {
            let hint = "correct the link, or take it out";
            violation(file, line, format!("a link to `{target}`"), "a file that exists", hint)
        })
        .collect()
}

#[test]
fn documents_name_what_exists() {
    let root = root();
    let architecture = File { path: MAP.to_owned(), text: text(MAP) };
    let mut violations = map(&architecture, |path| root.join(path).exists());
    for file in files().iter().filter(|file| file.path.ends_with(".md")) {
        violations.extend(dead_links(file, |path| root.join(path).exists()));
    }
    hold(&[Rule::Document], &violations);
}

#[cfg(test)]
mod bad_examples {
    use super::*;

    fn file(text: &str) -> File {
        File { path: "docs/a.md".to_owned(), text: text.to_owned() }
    }

    #[test]
    fn a_path_that_is_not_there_is_found() {
        let text = "`src/a.rs` and `src/b.rs`\n\
                    `POST /tasks` `/api/v1` `a -> b`\n```\n`src/c`\n```\n`D.md`";
        assert_eq!(places(&map(&file(text), |path| path == "src/a.rs")), [1, 6]);
        assert_eq!(map(&file(text), |_| true), []);
        assert_eq!(places(&map(&file(&"\n".repeat(201)), |_| true)), [201]);
    }

    #[test]
    fn a_dead_link_is_found() {
        let text = "[a](../b.md#c) [d](e.md)\n[f](https://example.org/g) [h](#i)\n![j](k.svg)";
        let exists = |path: &Path| path == Path::new("docs/../b.md");
        assert_eq!(places(&dead_links(&file(text), exists)), [1, 3]);
    }
}
