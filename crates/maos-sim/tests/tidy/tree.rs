//! The files of the project. Reads the work tree and knows nothing of the rules.

use std::fs;
use std::path::{Path, PathBuf};

/// One text file.
pub(crate) struct File {
    /// From the project's root, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
}

/// Folders that hold what was built or fetched, not what was written.
const SKIPPED: &[&str] = &[
    ".git",
    ".maos",
    ".mypy_cache",
    ".pytest_cache",
    ".ruff_cache",
    ".venv",
    "__pycache__",
    "build",
    "maos-data",
    "node_modules",
    "target",
];

/// What is written by hand; data and generated files are not.
const WRITTEN: &[&str] =
    &["html", "js", "json", "md", "py", "rs", "sh", "sql", "toml", "yaml", "yml"];

/// Where the project begins.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).expect("a crate lies two folders below the root").to_path_buf()
}

/// All files that people write, sorted by path.
pub(crate) fn files() -> Vec<File> {
    let root = root();
    let mut found = Vec::new();
    collect(&root, &root, &mut found);
    assert!(found.len() > 10, "the project has more files than this: {}", found.len());
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// The Rust files among them.
pub(crate) fn rust_files() -> Vec<File> {
    files().into_iter().filter(|file| file.path.ends_with(".rs")).collect()
}

/// The text of one file that must be there.
pub(crate) fn text(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|fault| panic!("`{path}`: {fault}"))
}

fn collect(root: &Path, folder: &Path, found: &mut Vec<File>) {
    let entries = fs::read_dir(folder).unwrap_or_else(|fault| panic!("{folder:?}: {fault}"));
    for entry in entries {
        let path = entry.expect("an entry of a folder can be read").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_symlink() || SKIPPED.contains(&name.as_str()) {
            continue;
        }
        if path.is_dir() {
            collect(root, &path, found);
        } else if is_written(&path) {
            let relative = path.strip_prefix(root).expect("the walk began at the root");
            let bytes = fs::read(&path).unwrap_or_else(|fault| panic!("{path:?}: {fault}"));
            let text = String::from_utf8_lossy(&bytes).into_owned();
            found.push(File { path: relative.to_string_lossy().replace('\\', "/"), text });
        }
    }
}

fn is_written(path: &Path) -> bool {
    match path.extension() {
        Some(extension) => WRITTEN.contains(&&*extension.to_string_lossy()),
        None => path.parent().is_some_and(|folder| {
            folder.file_name().is_some_and(|name| name == "scripts" || name == ".ci")
        }),
    }
}
