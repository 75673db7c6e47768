//! Which paths match a pattern: `*` any characters of one name, `?` one of them, `**` any folders.
//!
//! As in a shell, a name that begins with a dot is found only by a part that begins with one.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Fault, Stop, bounded};

/// Files below `folder` that match; links are not followed, so nothing leads out or round in
/// circles.
pub(super) fn descend(
    folder: &Path,
    pattern: &[&str],
    found: &mut Vec<PathBuf>,
    stop: &Stop,
) -> Result<(), Fault> {
    stop.check()?;
    let Some((first, rest)) = pattern.split_first() else { return Ok(()) };
    if *first == "**" {
        descend(folder, rest, found, stop)?;
    }
    // A folder that cannot be read holds nothing for us.
    let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
    for entry in entries.flatten() {
        let Ok(kind) = entry.file_type() else { continue };
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with('.') && !first.starts_with('.') {
            continue;
        }
        if kind.is_dir() && *first == "**" {
            descend(&entry.path(), pattern, found, stop)?;
        } else if kind.is_dir() && !rest.is_empty() && matches(first, &name) {
            descend(&entry.path(), rest, found, stop)?;
        } else if kind.is_file() && rest.is_empty() && (*first == "**" || matches(first, &name)) {
            found.push(entry.path());
            bounded(found.len())?;
        }
    }
    Ok(())
}

/// Whether `name` matches, in time that grows with the product of both lengths at most.
fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), name.chars().collect());
    let (mut at, mut seen, mut star) = (0, 0, None);
    while seen < name.len() {
        match pattern.get(at) {
            Some('*') => {
                star = Some((at, seen));
                at += 1;
            }
            Some(wanted) if *wanted == '?' || *wanted == name[seen] => {
                at += 1;
                seen += 1;
            }
            _ => match star {
                Some((star_at, star_seen)) => {
                    star = Some((star_at, star_seen + 1));
                    at = star_at + 1;
                    seen = star_seen + 1;
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|rest| *rest == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_a_shell() {
        for (pattern, name, expected) in [
            ("*", "abc", true),
            ("a*c", "abbc", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*.txt", "a.txt.gz", false),
            ("**", "x", true),
            ("", "", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }
}
