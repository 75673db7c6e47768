//! Rules that one file keeps or breaks by itself: lengths, openings, words that have no place here.

use crate::exceptions::hold;
use crate::source::{code, functions, line_of, words};
use crate::tree::{File, files, rust_files};
use crate::violation::{Rule, Violation, places};

const FUNCTION_LINES_MAX: usize = 70;
const FILE_LINES_MAX: usize = 800;
const LINE_CHARS_MAX: usize = 100;

/// Beginnings of absolute paths that exist on one machine only.
const FOREIGN_PATHS: &[&str] = &["work/", "root/", "home/", "Users/"];
/// Hosts of package registries: which one serves a build is the builder's business.
const REGISTRY_HOSTS: &[&str] =
    &["index.crates", "static.crates", "registry.npmjs", "pythonhosted", "pypi.org", "deb.debian"];

fn lengths(file: &File) -> Vec<Violation> {
    let violation = |rule, line, name: &str, found: String, wanted: String, hint| Violation {
        rule,
        file: file.path.clone(),
        line,
        name: name.to_owned(),
        found,
        wanted,
        hint,
    };
    let mut violations = Vec::new();
    let lines_count = file.text.lines().count();
    if lines_count > FILE_LINES_MAX {
        let wanted = format!("at most {FILE_LINES_MAX}");
        let hint = "split it by what happens in it; big tests go to `tests.rs` beside it";
        let found = format!("{lines_count} lines");
        violations.push(violation(Rule::FileLength, lines_count, "", found, wanted, hint));
    }
    for (index, line) in file.text.lines().enumerate() {
        let chars_count = line.chars().count();
        if chars_count > LINE_CHARS_MAX {
            let wanted = format!("at most {LINE_CHARS_MAX}");
            let hint = "break the line; a long string goes on after a `\\` at the line's end";
            let found = format!("{chars_count} characters");
            violations.push(violation(Rule::LineLength, index + 1, "", found, wanted, hint));
        }
    }
    for function in functions(&code(&file.text)) {
        if function.lines_count > FUNCTION_LINES_MAX {
            let wanted = format!("at most {FUNCTION_LINES_MAX}");
            let hint = "let one function branch and its helpers compute";
            let found = format!("{} lines", function.lines_count);
            let rule = Rule::FunctionLength;
            violations.push(violation(rule, function.line, &function.name, found, wanted, hint));
        }
    }
    violations
}

fn opening(file: &File) -> Vec<Violation> {
    let first = file.text.lines().find(|line| !line.starts_with("#!")).unwrap_or("");
    if file.text.trim().is_empty() || first.starts_with("//!") {
        return Vec::new();
    }
    vec![Violation {
        rule: Rule::Opening,
        file: file.path.clone(),
        line: 1,
        name: String::new(),
        found: format!("`{first}`"),
        wanted: "`//!`".to_owned(),
        hint: "say what this room is for, its law, and what it must not know",
    }]
}

fn allowed_lints(file: &File) -> Vec<Violation> {
    let code = code(&file.text);
    let in_attribute = |offset: usize| {
        let line_start = code[..offset].rfind('\n').map_or(0, |end| end + 1);
        let before = code[line_start..offset].trim_start();
        before.starts_with("#[") || before.starts_with("#![") || before.starts_with("cfg_attr")
    };
    words(&code, "allow")
        .filter(|offset| code[offset + 5..].starts_with('(') && in_attribute(*offset))
        .map(|offset| Violation {
            rule: Rule::Allow,
            file: file.path.clone(),
            line: line_of(&code, offset),
            name: String::new(),
            found: "`allow`".to_owned(),
            wanted: "`expect` with a reason, or none".to_owned(),
            hint: "write #[expect(lint, reason = \"why this place is right\")]",
        })
        .collect()
}

fn open_work(file: &File) -> Vec<Violation> {
    // Put together here, so that this file does not contain them.
    let marks = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];
    let has_issue = |rest: &str| {
        let number = rest.strip_prefix("(#").unwrap_or("");
        number.starts_with(|c: char| c.is_ascii_digit())
    };
    let of = |mark: &'static str| {
        words(&file.text, mark)
            .filter(|offset| !has_issue(&file.text[offset + mark.len()..]))
            .map(|offset| Violation {
                rule: Rule::OpenWork,
                file: file.path.clone(),
                line: line_of(&file.text, offset),
                name: String::new(),
                found: format!("`{mark}` without an issue"),
                wanted: "the mark with (#number), or none".to_owned(),
                hint: "do it now, or open an issue and name it",
            })
            .collect::<Vec<_>>()
    };
    marks.into_iter().flat_map(of).collect()
}

fn workplace(file: &File) -> Vec<Violation> {
    let violation = |offset: usize, found: &str| Violation {
        rule: Rule::Workplace,
        file: file.path.clone(),
        line: line_of(&file.text, offset),
        name: String::new(),
        found: format!("`{found}`"),
        wanted: "nothing that holds on one machine only".to_owned(),
        hint: "use a path from the project's root, or name the package without its host",
    };
    let text = &file.text;
    let begins = |offset: usize| {
        let before = text[..offset].chars().next_back().unwrap_or(' ');
        !(before.is_alphanumeric() || matches!(before, '_' | '-' | '.' | '}' | '/' | '*'))
    };
    let paths = FOREIGN_PATHS.iter().flat_map(|path| {
        let absolute = format!("/{path}");
        let offsets: Vec<_> = text.match_indices(&absolute).map(|(offset, _)| offset).collect();
        offsets.into_iter().filter(|offset| begins(*offset)).map(move |offset| (offset, *path))
    });
    let hosts = REGISTRY_HOSTS.iter().flat_map(|host| {
        let found = text.match_indices(host);
        // The list above is the one place that must name them.
        found.filter(|_| !file.path.ends_with("tests/tidy/lines.rs"))
    });
    paths.chain(hosts).map(|(offset, found)| violation(offset, found)).collect()
}

#[test]
fn lengths_hold() {
    let rules = [Rule::FunctionLength, Rule::FileLength, Rule::LineLength];
    hold(&rules, &rust_files().iter().flat_map(lengths).collect::<Vec<_>>());
}

#[test]
fn every_rust_file_opens_with_its_purpose() {
    hold(&[Rule::Opening], &rust_files().iter().flat_map(opening).collect::<Vec<_>>());
}

#[test]
fn lints_are_expected_with_a_reason_and_never_allowed() {
    hold(&[Rule::Allow], &rust_files().iter().flat_map(allowed_lints).collect::<Vec<_>>());
}

#[test]
fn open_work_names_its_issue() {
    hold(&[Rule::OpenWork], &files().iter().flat_map(open_work).collect::<Vec<_>>());
}

#[test]
fn texts_speak_of_the_project_alone() {
    hold(&[Rule::Workplace], &files().iter().flat_map(workplace).collect::<Vec<_>>());
}

#[cfg(test)]
mod bad_examples {
    use super::*;

    fn file(text: &str) -> File {
        File { path: "a.rs".to_owned(), text: text.to_owned() }
    }

    #[test]
    fn lengths_are_found() {
        let long_function = format!("fn a() {{{}}}", "\n".repeat(FUNCTION_LINES_MAX));
        let found = lengths(&file(&long_function));
        assert_eq!((found[0].rule, &*found[0].name), (Rule::FunctionLength, "a"));
        assert_eq!(lengths(&file(&long_function.replacen('\n', "", 1))), []);

        let found = lengths(&file(&format!("\n{}", "é".repeat(LINE_CHARS_MAX + 1))));
        assert_eq!((found[0].rule, found[0].line), (Rule::LineLength, 2));
        assert_eq!(lengths(&file(&"é".repeat(LINE_CHARS_MAX))), []);

        let found = lengths(&file(&"\n".repeat(FILE_LINES_MAX + 1)));
        assert_eq!((found[0].rule, &*found[0].found), (Rule::FileLength, "801 lines"));
        assert_eq!(lengths(&file(&"\n".repeat(FILE_LINES_MAX))), []);
    }

    #[test]
    fn a_missing_opening_is_found() {
        assert_eq!(places(&opening(&file("use std::fmt;\n//! late"))), [1]);
        assert_eq!(opening(&file("//! for\nuse std::fmt;")), []);
        assert_eq!(opening(&file("")), []);
    }

    #[test]
    fn allowed_lints_are_found() {
        let text = "#[allow(dead_code)]\nfn a() { allow(1); }\n#![cfg_attr(test, allow(x))]\n\
                    // #[allow(y)]\n#[expect(z, reason = \"w\")]";
        assert_eq!(places(&allowed_lints(&file(text))), [1, 3]);
    }

    #[test]
    fn open_work_without_an_issue_is_found() {
        let mark = concat!("TO", "DO");
        let text = format!("// {mark}: later\n// {mark}(#12): known\n// {mark}(#): none");
        assert_eq!(places(&open_work(&file(&text))), [1, 3]);
    }

    #[test]
    fn places_of_one_machine_are_found() {
        let path = concat!("/wo", "rk/");
        let host = concat!("py", "pi.org");
        let text = format!("`{path}a`\nsrc{path}mod.rs\nhttps://{host}/a\n/network/a");
        assert_eq!(places(&workplace(&file(&text))), [1, 3]);
    }
}
