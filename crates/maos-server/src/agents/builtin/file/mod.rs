//! `file.*`: files below the allowed roots.
//!
//! What is written or copied appears whole or not at all. Long work looks for its stop on the way.

mod glob;
mod place;

use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use maos_core::limits::RESULT_BYTES_MAX;
use rustix::fs::OFlags;
use serde::Deserialize;
use serde_json::{Value, json};

use super::paths::Paths;
use super::{Fault, Stop, typed};
use crate::base64;
use place::{Existing, carry, copy_into, place};

/// Most entries that `list` and `glob` answer.
const ENTRIES_MAX: usize = 100_000;
/// Most parts of a pattern.
const PATTERN_PARTS_MAX: usize = 32;
/// What is read at once, between two looks for the stop.
const PIECE_BYTES: usize = 256 << 10;

#[derive(Clone, Copy, Deserialize, Default, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Format {
    #[default]
    Text,
    Json,
    Base64,
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
    /// A string as it is; anything else as JSON. Without it the plan's `input`.
    #[serde(default, deserialize_with = "present")]
    content: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    input: Option<Value>,
    format: Option<Format>,
    #[serde(default = "yes")]
    overwrite: bool,
    #[serde(default = "yes")]
    create_parents: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OnePath {
    path: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Folder {
    #[serde(default = "here")]
    path: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FromTo {
    from: String,
    to: String,
    #[serde(default = "yes")]
    overwrite: bool,
    #[serde(default = "yes")]
    create_parents: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Glob {
    pattern: String,
    #[serde(default = "here")]
    path: String,
}

fn yes() -> bool {
    true
}

fn here() -> String {
    ".".to_owned()
}

/// A null that is there is a value, not an absence.
fn present<'de, D: serde::Deserializer<'de>>(value: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(value).map(Some)
}

pub(super) fn act(
    verb: &str,
    parameters: Value,
    paths: &Paths,
    stop: &Stop,
) -> Result<Value, Fault> {
    match verb {
        "read" => read(&typed(parameters, &[])?, paths, stop),
        "write" => write(typed(parameters, &["input"])?, paths),
        "list" => list(&typed(parameters, &[])?, paths, stop),
        "copy" => copy(&typed(parameters, &[])?, paths, stop),
        "move" => carry_over(&typed(parameters, &[])?, paths, stop),
        "hash" => hash(&typed(parameters, &[])?, paths, stop),
        "glob" => find(&typed(parameters, &[])?, paths, stop),
        _ => Err(Fault::wrong(format!("no built-in action is called `file.{verb}`"))),
    }
}

fn read(wanted: &ReadFile, paths: &Paths, stop: &Stop) -> Result<Value, Fault> {
    let path = paths.allowed("path", &wanted.path)?;
    let mut content = Vec::new();
    let bytes = each_piece(open(&path, &wanted.path)?, &wanted.path, stop, |piece| {
        // A file may grow while it is read: what counts is what came.
        if (content.len() + piece.len()) as u64 > RESULT_BYTES_MAX {
            let message =
                format!("`{}` has more than the {RESULT_BYTES_MAX} bytes of a result", wanted.path);
            return Err(Fault::wrong(message));
        }
        content.extend_from_slice(piece);
        Ok(())
    })?;
    if wanted.format == Format::Base64 {
        let content = base64::encode(&content);
        return Ok(json!({ "path": wanted.path, "bytes": bytes, "content": content }));
    }
    let text = String::from_utf8(content).map_err(|why| {
        let why = why.utf8_error();
        Fault::wrong(format!(
            "`{}` is not UTF-8 text: {why}\nhint: read it with format `base64`",
            wanted.path
        ))
    })?;
    let content = match wanted.format {
        Format::Text | Format::Base64 => Value::String(text),
        Format::Json => serde_json::from_str(&text)
            .map_err(|why| Fault::wrong(format!("`{}` is not JSON: {why}", wanted.path)))?,
    };
    Ok(json!({ "path": wanted.path, "bytes": bytes, "content": content }))
}

fn write(wanted: WriteFile, paths: &Paths) -> Result<Value, Fault> {
    let path = paths.allowed("path", &wanted.path)?;
    let content = wanted.content.or(wanted.input);
    let content = content.ok_or_else(|| Fault::wrong("`content` is missing"))?;
    let content = match (wanted.format, content) {
        (None | Some(Format::Text), Value::String(text)) => text.into_bytes(),
        (Some(Format::Base64), Value::String(text)) => base64::decode(&text)
            .map_err(|why| Fault::wrong(format!("`content` is not base64: it {why}")))?,
        (Some(Format::Text | Format::Base64), _) => {
            return Err(Fault::wrong("`content` must be a string in this format"));
        }
        (None | Some(Format::Json), content) => {
            serde_json::to_vec_pretty(&content).map_err(|why| Fault::wrong(why.to_string()))?
        }
    };
    let existing = Existing::of(wanted.overwrite);
    place(&path, &wanted.path, existing, wanted.create_parents, |file| {
        std::io::Write::write_all(file, &content).map_err(|why| io_fault(&wanted.path, &why))
    })?;
    Ok(json!({ "path": wanted.path, "bytes": content.len() }))
}

fn list(wanted: &Folder, paths: &Paths, stop: &Stop) -> Result<Value, Fault> {
    let path = paths.allowed("path", &wanted.path)?;
    let mut entries = Vec::new();
    for entry in io(&wanted.path, fs::read_dir(&path))? {
        stop.check()?;
        let entry = io(&wanted.path, entry)?;
        // What went away meanwhile is not in the folder.
        let Ok(metadata) = entry.metadata() else { continue };
        let kind = match (metadata.is_dir(), metadata.is_file(), metadata.is_symlink()) {
            (true, _, _) => "folder",
            (_, true, _) => "file",
            (_, _, true) => "link",
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

fn copy(wanted: &FromTo, paths: &Paths, stop: &Stop) -> Result<Value, Fault> {
    let from = paths.allowed("from", &wanted.from)?;
    let to = paths.allowed("to", &wanted.to)?;
    let source = open(&from, &wanted.from)?;
    let existing = Existing::of(wanted.overwrite);
    let bytes = place(&to, &wanted.to, existing, wanted.create_parents, |file| {
        copy_into(source, file, (&wanted.from, &wanted.to), stop)
    })?;
    Ok(json!({ "from": wanted.from, "to": wanted.to, "bytes": bytes }))
}

fn carry_over(wanted: &FromTo, paths: &Paths, stop: &Stop) -> Result<Value, Fault> {
    let from = paths.allowed("from", &wanted.from)?;
    let to = paths.allowed("to", &wanted.to)?;
    if paths.is_root(&from) || paths.is_root(&to) {
        return Err(Fault::wrong("an allowed folder itself cannot be moved or replaced"));
    }
    let bytes = io(&wanted.from, fs::metadata(&from))?.len();
    carry((&from, &wanted.from), (&to, &wanted.to), wanted, stop)?;
    Ok(json!({ "from": wanted.from, "to": wanted.to, "bytes": bytes }))
}

fn hash(wanted: &OnePath, paths: &Paths, stop: &Stop) -> Result<Value, Fault> {
    let path = paths.allowed("path", &wanted.path)?;
    let mut hasher = blake3::Hasher::new();
    let bytes = each_piece(open(&path, &wanted.path)?, &wanted.path, stop, |piece| {
        hasher.update(piece);
        Ok(())
    })?;
    let hash = hasher.finalize().to_hex();
    Ok(json!({ "path": wanted.path, "bytes": bytes, "blake3": hash.as_str() }))
}

fn find(wanted: &Glob, paths: &Paths, stop: &Stop) -> Result<Value, Fault> {
    let folder = paths.allowed("path", &wanted.path)?;
    let mut pattern: Vec<&str> =
        wanted.pattern.split('/').filter(|part| !part.is_empty()).collect();
    if wanted.pattern.starts_with('/') || pattern.is_empty() || pattern.contains(&"..") {
        return Err(Fault::wrong("`pattern` must be relative and without `..`"));
    }
    if pattern.len() > PATTERN_PARTS_MAX {
        return Err(Fault::wrong(format!("`pattern` must have at most {PATTERN_PARTS_MAX} parts")));
    }
    // Two in a row find what one finds, only slower.
    pattern.dedup_by(|later, earlier| *later == "**" && *earlier == "**");
    let mut found = Vec::new();
    glob::descend(&folder, &pattern, &mut found, stop)?;
    found.sort();
    found.dedup();
    let found: Vec<String> = found.iter().map(|path| paths.shown(path)).collect();
    Ok(json!({ "pattern": wanted.pattern, "paths": found }))
}

/// Opens a file for reading. A pipe or a device is refused and never waited for.
fn open(path: &Path, shown: &str) -> Result<File, Fault> {
    // The path is without links; one that took its place meanwhile is not followed.
    let flags = (OFlags::NONBLOCK | OFlags::NOFOLLOW).bits().cast_signed();
    let file = io(shown, OpenOptions::new().read(true).custom_flags(flags).open(path))?;
    let metadata = io(shown, file.metadata())?;
    if !metadata.is_file() {
        let found = if metadata.is_dir() { "a folder" } else { "no regular file" };
        return Err(Fault::wrong(format!("`{shown}` is {found}, wanted a file")));
    }
    Ok(file)
}

/// Hands over a file's content piece by piece; its size.
fn each_piece(
    mut file: File,
    shown: &str,
    stop: &Stop,
    mut take: impl FnMut(&[u8]) -> Result<(), Fault>,
) -> Result<u64, Fault> {
    let mut piece = vec![0; PIECE_BYTES];
    let mut bytes = 0_u64;
    loop {
        stop.check()?;
        let read = io(shown, file.read(&mut piece))?;
        if read == 0 {
            return Ok(bytes);
        }
        take(&piece[..read])?;
        bytes += read as u64;
    }
}

fn bounded(count: usize) -> Result<(), Fault> {
    if count > ENTRIES_MAX {
        return Err(Fault::wrong(format!("there are more than {ENTRIES_MAX} entries")));
    }
    Ok(())
}

fn io<T>(path: &str, done: std::io::Result<T>) -> Result<T, Fault> {
    done.map_err(|why| io_fault(path, &why))
}

/// A missing file stays missing however often one looks; other faults may pass.
fn io_fault(path: &str, why: &std::io::Error) -> Fault {
    use std::io::ErrorKind;
    let message = format!("`{path}`: {why}");
    match why.kind() {
        ErrorKind::NotFound
        | ErrorKind::AlreadyExists
        | ErrorKind::PermissionDenied
        | ErrorKind::IsADirectory
        | ErrorKind::NotADirectory
        | ErrorKind::DirectoryNotEmpty
        | ErrorKind::InvalidInput
        | ErrorKind::InvalidFilename => Fault::wrong(message),
        _ => Fault::failed(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agents::AllowedRoots;

    fn check(folder: &Path, verb: &str, parameters: Value) -> Result<Value, String> {
        let paths = Paths::new(AllowedRoots { roots: vec![folder.to_owned()] });
        act(verb, parameters, &paths, &Stop::never()).map_err(|fault| fault.message)
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
        std::fs::create_dir(folder.path().join("folder")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, folder.path().join("pipe"), rustix::fs::Mode::RWXU)
            .unwrap();
        for (verb, parameters, expected) in [
            ("read", json!({"path": "none"}), "`none`"),
            ("read", json!({}), "missing field `path`"),
            ("read", json!({"path": "a", "colour": 1}), "unknown field `colour`"),
            ("read", json!({"path": "bin"}), "not UTF-8"),
            ("read", json!({"path": "../x"}), "must not hold `..`"),
            ("write", json!({"path": "bin", "content": 1, "overwrite": false}), "there already"),
            ("read", json!({"path": "."}), "is a folder"),
            ("hash", json!({"path": "pipe"}), "no regular file"),
            ("write", json!({"path": "new"}), "`content` is missing"),
            ("write", json!({"path": "new", "content": 1, "format": "text"}), "must be a string"),
            ("write", json!({"path": "new", "content": "a", "format": "base64"}), "not base64"),
            (
                "write",
                json!({"path": "no/new", "content": "a", "create_parents": false}),
                "`no/new`",
            ),
            ("write", json!({"path": "folder", "content": "a"}), "`folder`"),
            ("copy", json!({"from": "bin", "to": "pipe", "overwrite": false}), "there already"),
            ("copy", json!({"from": "folder", "to": "x"}), "is a folder"),
            ("move", json!({"from": "bin", "to": "pipe", "overwrite": false}), "there already"),
            ("move", json!({"from": ".", "to": "x"}), "cannot be moved"),
            ("move", json!({"from": "folder", "to": "folder/x"}), "`folder/x`"),
            ("move", json!({"from": "none", "to": "x"}), "`none`"),
            ("list", json!({"path": "bin"}), "`bin`"),
            ("glob", json!({"pattern": "/etc/*"}), "must be relative"),
            ("glob", json!({"pattern": "a/../*"}), "must be relative"),
            ("glob", json!({"pattern": "a/".repeat(33)}), "at most 32 parts"),
            ("glob", json!({"pattern": "*", "path": "/etc"}), "outside"),
            ("burn", json!({}), "file.burn"),
        ] {
            let error = check(folder.path(), verb, parameters).unwrap_err();
            assert!(error.contains(expected), "{verb}: {error}");
        }
    }

    #[test]
    fn bytes_and_the_input_of_a_pipeline_are_written() {
        let folder = tempfile::tempdir().unwrap();
        let run = |verb, parameters| check(folder.path(), verb, parameters);
        run("write", json!({"path": "b", "content": "//79", "format": "base64"})).unwrap();
        assert_eq!(std::fs::read(folder.path().join("b")).unwrap(), [0xff, 0xfe, 0xfd]);
        let read = run("read", json!({"path": "b", "format": "base64"})).unwrap();
        assert_eq!((&read["content"], &read["bytes"]), (&json!("//79"), &json!(3)));
        run("write", json!({"path": "i", "input": "from before"})).unwrap();
        assert_eq!(run("read", json!({"path": "i"})).unwrap()["content"], "from before");
        run("write", json!({"path": "n", "content": null, "input": 1})).unwrap();
        assert_eq!(run("read", json!({"path": "n"})).unwrap()["content"], "null");
        run("write", json!({"path": "q", "content": "s", "format": "json"})).unwrap();
        assert_eq!(run("read", json!({"path": "q"})).unwrap()["content"], "\"s\"");
    }

    #[test]
    fn a_file_survives_its_own_copy_and_keeps_its_mode() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a");
        std::fs::write(&file, "content").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o750)).unwrap();
        for to in ["a", "b"] {
            check(folder.path(), "copy", json!({"from": "a", "to": to})).unwrap();
            let copied = folder.path().join(to);
            assert_eq!(std::fs::read(&copied).unwrap(), b"content");
            assert_eq!(copied.metadata().unwrap().permissions().mode() & 0o777, 0o750);
        }
        // Nothing of ours is left beside them.
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_stopped_action_ends_and_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a"), vec![7; 3 * PIECE_BYTES]).unwrap();
        let paths = Paths::new(AllowedRoots { roots: vec![folder.path().to_owned()] });
        for (verb, parameters) in [
            ("read", json!({"path": "a"})),
            ("copy", json!({"from": "a", "to": "b"})),
            ("hash", json!({"path": "a"})),
            ("list", json!({})),
            ("glob", json!({"pattern": "**"})),
        ] {
            let stopped = act(verb, parameters, &paths, &Stop::now());
            assert_eq!(stopped.unwrap_err().message, "stopped", "{verb}");
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_larger_than_a_result_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let sparse = File::create(folder.path().join("large")).unwrap();
        sparse.set_len(RESULT_BYTES_MAX + 1).unwrap();
        let error = check(folder.path(), "read", json!({"path": "large"})).unwrap_err();
        assert!(error.contains("more than the 16777216 bytes"), "{error}");
    }
}
