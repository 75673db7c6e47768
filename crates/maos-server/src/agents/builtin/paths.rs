//! Paths that actions may touch: below the allowed roots, symbolic links followed first.
//!
//! A link that is put in between the check and the use is not defended against: who can do that can
//! write into the root already.

use std::path::{Component, Path, PathBuf};

use super::Fault;
use crate::agents::AllowedRoots;

pub(crate) struct Paths {
    roots: Vec<PathBuf>,
}

impl Paths {
    pub(crate) fn new(roots: AllowedRoots) -> Paths {
        Paths { roots: roots.roots }
    }

    /// The folder that relative paths start at.
    pub(crate) fn first_root(&self) -> Result<PathBuf, Fault> {
        let root = self.roots.first().ok_or_else(|| Fault::wrong("no folder is allowed"))?;
        root.canonicalize()
            .map_err(|why| Fault::failed(format!("`{}` cannot be used: {why}", root.display())))
    }

    /// An absolute path without links for something that may or may not be there.
    pub(crate) fn allowed(&self, field: &str, path: &str) -> Result<PathBuf, Fault> {
        if path.is_empty() || path.contains('\0') {
            return Err(Fault::wrong(format!("`{field}` is not a path")));
        }
        let joined = self.first_root()?.join(path);
        if joined.components().any(|part| part == Component::ParentDir) {
            return Err(Fault::wrong(format!("`{field}`: `{path}` must not hold `..`")));
        }
        let resolved = resolve(&joined)
            .map_err(|why| Fault::wrong(format!("`{field}`: `{path}` cannot be used: {why}")))?;
        let inside = self
            .roots
            .iter()
            .any(|root| root.canonicalize().is_ok_and(|root| resolved.starts_with(root)));
        if !inside {
            return Err(Fault::wrong(format!(
                "`{field}`: `{path}` is outside of the allowed folders\nhint: allow it with \
                 `files.roots` in maos.toml"
            )));
        }
        Ok(resolved)
    }

    /// Whether `path` is an allowed folder itself.
    pub(crate) fn is_root(&self, path: &Path) -> bool {
        self.roots.iter().any(|root| root.canonicalize().is_ok_and(|root| root == path))
    }

    /// A path as the task would write it.
    pub(crate) fn shown(&self, path: &Path) -> String {
        let root = self.first_root().unwrap_or_default();
        path.strip_prefix(root).unwrap_or(path).display().to_string()
    }
}

/// Follows the links of the part that is there; the rest is taken as it is.
fn resolve(path: &Path) -> std::io::Result<PathBuf> {
    let mut missing = Vec::new();
    let mut there = path;
    loop {
        // A link that leads nowhere is there, and must not be written through.
        if there.symlink_metadata().is_ok() {
            let mut resolved = there.canonicalize()?;
            resolved.extend(missing.iter().rev());
            return Ok(resolved);
        }
        let (Some(parent), Some(name)) = (there.parent(), there.file_name()) else {
            return Err(std::io::Error::other("it has no folder"));
        };
        missing.push(name);
        there = parent;
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn nothing_leads_out_of_the_roots() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        std::fs::create_dir(&root).unwrap();
        std::fs::write(folder.path().join("secret"), "s").unwrap();
        symlink(folder.path(), root.join("out")).unwrap();
        symlink(folder.path().join("secret"), root.join("file")).unwrap();
        symlink(folder.path().join("new"), root.join("dangling")).unwrap();
        symlink(&root, root.join("itself")).unwrap();
        let paths = Paths::new(AllowedRoots { roots: vec![root.clone()] });
        for path in [
            "../secret",
            "/etc/passwd",
            "out/secret",
            "file",
            "out/new",
            "dangling",
            "",
            "a\0b",
            "x/../../secret",
        ] {
            let refused = paths.allowed("path", path);
            assert!(refused.as_ref().is_err_and(|fault| fault.permanent), "{path}: {refused:?}");
        }
        for path in ["a", "a/b/c", "itself/a", root.join("x").to_str().unwrap()] {
            assert!(paths.allowed("path", path).is_ok(), "{path}");
        }
    }
}
