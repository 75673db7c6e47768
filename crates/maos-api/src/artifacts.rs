//! Files that are kept with a task: what they are, and what their names may be.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::time::UtcTime;

/// Most characters of a file's name.
pub const NAME_CHARS_MAX: usize = 200;
/// Most characters of a file's media type.
pub const MEDIA_TYPE_CHARS_MAX: usize = 200;
/// What a file is whose maker does not say.
pub const MEDIA_TYPE_DEFAULT: &str = "application/octet-stream";

/// A file that is kept with a task, as long as the task is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Artifact {
    /// Its name, unique within the task.
    pub name: String,
    /// Its MIME type, as its maker said.
    pub media_type: String,
    /// Its size.
    pub size_bytes: u64,
    /// BLAKE3 of what is in it, in hexadecimal digits.
    pub checksum: String,
    /// When it was kept.
    pub created_at: UtcTime,
}

/// The answer to keeping a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ArtifactEnvelope {
    /// The file.
    pub artifact: Artifact,
    /// The task that it is kept with.
    pub task_id: Uuid,
    /// What happened, in words.
    pub message: String,
}

/// The answer to `GET /api/v1/tasks/{id}/artifacts`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ArtifactList {
    /// The task.
    pub task_id: Uuid,
    /// Its files, in the order in which they were kept.
    pub items: Vec<Artifact>,
    /// How many there are.
    pub total_items: u64,
}

/// What is wrong with a file's name, if anything is.
#[must_use]
pub fn name_fault(name: &str) -> Option<String> {
    let bad = name.is_empty()
        || name == "."
        || name == ".."
        || name.contains(['/', '\0'])
        || name.chars().count() > NAME_CHARS_MAX;
    let rule =
        || format!("must be 1 to {NAME_CHARS_MAX} characters without `/` and NUL, not `.` or `..`");
    bad.then(rule)
}

/// What is wrong with a media type, if anything is.
#[must_use]
pub fn media_type_fault(media_type: &str) -> Option<String> {
    let plain = media_type.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
    let good = !media_type.is_empty() && media_type.len() <= MEDIA_TYPE_CHARS_MAX && plain;
    (!good).then(|| format!("must be 1 to {MEDIA_TYPE_CHARS_MAX} visible ASCII characters"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_files_without_a_folder() {
        for good in ["a", "model.pkl", "..a", "ü b", &"ä".repeat(200)] {
            assert_eq!(name_fault(good), None, "{good}");
        }
        for bad in ["", ".", "..", "a/b", "/", "a\0", &"x".repeat(201)] {
            assert!(name_fault(bad).is_some(), "{bad:?}");
        }
        assert_eq!(media_type_fault("text/plain; charset=utf-8"), None);
        for bad in ["", "ü", "a\nb", &"x".repeat(201)] {
            assert!(media_type_fault(bad).is_some(), "{bad:?}");
        }
    }
}
