//! `file.*`: files below the allowed roots.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use maos_core::limits::RESULT_BYTES_MAX;
use serde::Deserialize;
use serde_json::{Value, json};

use super::paths::Paths;
use super::{Fault, typed};

/// Most entries that `list` and `glob` answer.
const ENTRIES_MAX: usize = 100_000;

#[derive(Deserialize, Default, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Format {
    #[default]
    Text,
    Json,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReadFile {
    path: String,
    #[serde(default)]
    format: Format,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WriteFile {
    path: String,
    /// A string as it is; anything else as JSON.
    content: Value,
    #[serde(default = "yes")]
    overwrite: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OnePath {
    path: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FromTo {
    from: String,
    to: String,
    #[serde(default = "yes")]
    overwrite: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Glob {
    pattern: String,
}

fn yes() -> bool {
    true
}

pub(super) fn act(verb: &str, parameters: Value, paths: &Paths) -> Result<Value, Fault> {
    match verb {
        "read" => read(&typed(parameters, &[])?, paths),
        "write" => write(&typed(parameters, &[])?, paths),
        "list" => list(&typed(parameters, &[])?, paths),
        "copy" => {
            transfer(&typed(parameters, &[])?, paths, |from, to| fs::copy(from, to).map(drop))
        }
        "move" => transfer(&typed(parameters, &[])?, paths, fs::rename),
        "hash" => hash(&typed(parameters, &[])?, paths),
        "glob" => glob(&typed(parameters, &[])?, paths),
        _ => Err(Fault::wrong(format!("no built-in action is called `file.{verb}`"))),
    }
}

fn read(wanted: &ReadFile, paths: &Paths) -> Result<Value, Fault> {
    let path = paths.allowed("path", &wanted.path)?;
    let bytes = io(&wanted.path, fs::metadata(&path))?.len();
    if bytes > RESULT_BYTES_MAX {
        let message =
            format!("`{}` has {bytes} bytes, at most {RESULT_BYTES_MAX} can be read", wanted.path);
        return Err(Fault::wrong(message));
    }
    let content = io(&wanted.path, fs::read(&path))?;
    let text = String::from_utf8(content).map_err(|why| {
        Fault::wrong(format!("`{}` is not UTF-8 text: {}", wanted.path, why.utf8_error()))
    })?;
    let content = match wanted.format {
        Format::Text => Value::String(text),
        Format::Json => serde_json::from_str(&text)
            .map_err(|why| Fault::wrong(format!("`{}` is not JSON: {why}", wanted.path)))?,
    };
    Ok(json!({ "path": wanted.path, "bytes": bytes, "content": content }))
}

fn write(wanted: &WriteFile, paths: &Paths) -> Result<Value, Fault> {
    let path = paths.allowed("path", &wanted.path)?;
    if path.exists() && !wanted.overwrite {
        return Err(Fault::wrong(format!("`{}` is there already", wanted.path)));
    }
    let content = match &wanted.content {
        Value::String(text) => text.clone().into_bytes(),
        other => serde_json::to_vec_pretty(other).map_err(|why| Fault::wrong(why.to_string()))?,
    };
    let folder = path.parent().unwrap_or(Path::new("/"));
    io(&wanted.path, fs::create_dir_all(folder))?;
    // Whole or not at all: a reader never sees half a file.
    let temporary = folder.join(format!(".maos-{}", uuid::Uuid::now_v7()));
    let written = File::create_new(&temporary)
        .and_then(|mut file| file.write_all(&content).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&temporary, &path));
    if written.is_err() {
        drop(fs::remove_file(&temporary));
    }
    io(&wanted.path, written)?;
    Ok(json!({ "path": wanted.path, "bytes": content.len() }))
}

fn list(wanted: &OnePath, paths: &Paths) -> Result<Value, Fault> {
    let path = paths.allowed("path", &wanted.path)?;
    let mut entries = Vec::new();
    for entry in io(&wanted.path, fs::read_dir(&path))? {
        let entry = io(&wanted.path, entry)?;
        let metadata = io(&wanted.path, entry.metadata())?;
        let kind = match (metadata.is_dir(), metadata.is_file()) {
            (true, _) => "folder",
            (_, true) => "file",
            _ => "other",
        };
        let name = entry.file_name().to_string_lossy().into_owned();
        entries.push((name, kind, metadata.len()));
        bounded(entries.len())?;
    }
    entries.sort();
    let entries: Vec<Value> = entries
        .into_iter()
        .map(|(name, kind, bytes)| json!({ "name": name, "kind": kind, "bytes": bytes }))
        .collect();
    Ok(json!({ "path": wanted.path, "entries": entries }))
}

fn transfer(
    wanted: &FromTo,
    paths: &Paths,
    carry: impl Fn(PathBuf, PathBuf) -> std::io::Result<()>,
) -> Result<Value, Fault> {
    let from = paths.allowed("from", &wanted.from)?;
    let to = paths.allowed("to", &wanted.to)?;
    if to.exists() && !wanted.overwrite {
        return Err(Fault::wrong(format!("`{}` is there already", wanted.to)));
    }
    let bytes = io(&wanted.from, fs::metadata(&from))?.len();
    if let Some(folder) = to.parent() {
        io(&wanted.to, fs::create_dir_all(folder))?;
    }
    io(&wanted.from, carry(from, to))?;
    Ok(json!({ "from": wanted.from, "to": wanted.to, "bytes": bytes }))
}

fn hash(wanted: &OnePath, paths: &Paths) -> Result<Value, Fault> {
    let path = paths.allowed("path", &wanted.path)?;
    let mut file = io(&wanted.path, File::open(&path))?;
    let mut hasher = blake3::Hasher::new();
    let mut piece = vec![0; 64 << 10];
    let mut bytes = 0_u64;
    loop {
        let read = io(&wanted.path, file.read(&mut piece))?;
        if read == 0 {
            break;
        }
        hasher.update(&piece[..read]);
        bytes += read as u64;
    }
    let hash = hasher.finalize().to_hex();
    Ok(json!({ "path": wanted.path, "bytes": bytes, "blake3": hash.as_str() }))
}

fn glob(wanted: &Glob, paths: &Paths) -> Result<Value, Fault> {
    let root = paths.first_root()?;
    let pattern: Vec<&str> = wanted.pattern.split('/').filter(|part| !part.is_empty()).collect();
    if wanted.pattern.starts_with('/') || pattern.is_empty() || pattern.contains(&"..") {
        return Err(Fault::wrong("`pattern` must be relative and without `..`"));
    }
    let mut found = Vec::new();
    descend(&root, &pattern, &mut found)?;
    found.sort();
    found.dedup();
    let found: Vec<String> = found.iter().map(|path| paths.shown(path)).collect();
    Ok(json!({ "pattern": wanted.pattern, "paths": found }))
}

/// Files below `folder` that match; links are not followed, so nothing leads out or round in
/// circles.
fn descend(folder: &Path, pattern: &[&str], found: &mut Vec<PathBuf>) -> Result<(), Fault> {
    let Some((first, rest)) = pattern.split_first() else { return Ok(()) };
    if *first == "**" {
        descend(folder, rest, found)?;
    }
    // A folder that cannot be read holds nothing for us.
    let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
    for entry in entries.flatten() {
        let Ok(kind) = entry.file_type() else { continue };
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if kind.is_dir() && *first == "**" {
            descend(&entry.path(), pattern, found)?;
        } else if kind.is_dir() && matches(first, &name) {
            descend(&entry.path(), rest, found)?;
        } else if kind.is_file() && rest.is_empty() && (*first == "**" || matches(first, &name)) {
            found.push(entry.path());
            bounded(found.len())?;
        }
    }
    Ok(())
}

/// `*` stands for any characters, `?` for one.
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

fn bounded(count: usize) -> Result<(), Fault> {
    if count > ENTRIES_MAX {
        return Err(Fault::wrong(format!("there are more than {ENTRIES_MAX} entries")));
    }
    Ok(())
}

/// A missing file stays missing however often one looks; other faults may pass.
fn io<T>(path: &str, done: std::io::Result<T>) -> Result<T, Fault> {
    use std::io::ErrorKind;
    done.map_err(|why| {
        let message = format!("`{path}`: {why}");
        match why.kind() {
            ErrorKind::NotFound
            | ErrorKind::PermissionDenied
            | ErrorKind::IsADirectory
            | ErrorKind::NotADirectory => Fault::wrong(message),
            _ => Fault::failed(message),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agents::AllowedRoots;

    fn check(folder: &Path, verb: &str, parameters: Value) -> Result<Value, String> {
        let paths = Paths::new(AllowedRoots { roots: vec![folder.to_owned()] });
        act(verb, parameters, &paths).map_err(|fault| fault.message)
    }

    #[test]
    fn files_are_written_read_copied_moved_listed_hashed_and_found() {
        let folder = tempfile::tempdir().unwrap();
        let run = |verb, parameters| check(folder.path(), verb, parameters);
        run("write", json!({"action": "file.write", "path": "a/b.txt", "content": "hey"})).unwrap();
        run("write", json!({"path": "a/c.json", "content": {"x": [1]}, "item": 7})).unwrap();
        assert_eq!(run("read", json!({"path": "a/b.txt"})).unwrap()["content"], "hey");
        let parsed = run("read", json!({"path": "a/c.json", "format": "json"})).unwrap();
        assert_eq!(parsed["content"], json!({"x": [1]}));
        run("copy", json!({"from": "a/b.txt", "to": "d/e.txt"})).unwrap();
        run("move", json!({"from": "d/e.txt", "to": "d/f.txt"})).unwrap();
        let listed = run("list", json!({"path": "d"})).unwrap();
        assert_eq!(listed["entries"], json!([{"name": "f.txt", "kind": "file", "bytes": 3}]));
        let hash = run("hash", json!({"path": "d/f.txt"})).unwrap();
        assert_eq!(hash["blake3"], blake3::hash(b"hey").to_hex().as_str());
        let found = run("glob", json!({"pattern": "**/*.txt"})).unwrap();
        assert_eq!(found["paths"], json!(["a/b.txt", "d/f.txt"]));
        assert_eq!(
            run("glob", json!({"pattern": "a/?.json"})).unwrap()["paths"],
            json!(["a/c.json"])
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("bin"), [0xff, 0xfe]).unwrap();
        for (verb, parameters, expected) in [
            ("read", json!({"path": "none"}), "`none`"),
            ("read", json!({}), "missing field `path`"),
            ("read", json!({"path": "a", "colour": 1}), "unknown field `colour`"),
            ("read", json!({"path": "bin"}), "not UTF-8"),
            ("read", json!({"path": "../x"}), "must not hold `..`"),
            ("write", json!({"path": "bin", "content": 1, "overwrite": false}), "there already"),
            ("glob", json!({"pattern": "/etc/*"}), "must be relative"),
            ("burn", json!({}), "file.burn"),
        ] {
            let error = check(folder.path(), verb, parameters).unwrap_err();
            assert!(error.contains(expected), "{verb}: {error}");
        }
    }

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
