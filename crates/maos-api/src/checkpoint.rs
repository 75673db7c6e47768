//! Checkpoints on the wire.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::error::ApiError;
use crate::fault::Faults;
use crate::field::{Null, Reader};
use crate::submission::{self, Bounds};
use crate::task::wire_names;
use crate::time::UtcTime;

wire_names! {
    /// What brought a checkpoint about.
    CheckpointType: 3 {
        /// Somebody asked for it.
        Manual "manual"
        /// Time passed.
        Automatic "automatic"
        /// Somebody went back to another one.
        BeforeRestore "before_restore"
    }
}

/// The state of the system at one moment: tasks, agents, schedules, resources, keys.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Checkpoint {
    /// Its id.
    pub id: Uuid,
    /// For people.
    pub name: String,
    /// What brought it about.
    #[serde(rename = "type")]
    pub kind: CheckpointType,
    /// When it was made.
    pub created_at: UtcTime,
    /// What it takes on disk.
    pub size_bytes: u64,
    /// Ours: tasks in it, ended ones too.
    pub tasks: u64,
    /// Ours: BLAKE3 of what is in it.
    pub checksum: String,
    /// The caller's own.
    #[schema(value_type = Object)]
    pub metadata: Map<String, Value>,
}

/// The answer to making and reading a checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CheckpointEnvelope {
    /// The checkpoint.
    pub checkpoint: Checkpoint,
    /// What happened, in words.
    pub message: String,
    /// What the caller should know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// The answer to `GET /api/v1/checkpoints`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CheckpointList {
    /// All of them, the oldest first.
    pub items: Vec<Checkpoint>,
    /// How many there are.
    pub total_items: u64,
}

/// The answer to going back to a checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RestoreAnswer {
    /// What happened, in words.
    pub message: String,
    /// The checkpoint that holds from now on.
    pub restored: Checkpoint,
    /// What held until now.
    pub before: Checkpoint,
}

/// The answer to deleting a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CheckpointGone {
    /// What happened, in words.
    pub message: String,
    /// The checkpoint.
    pub checkpoint_id: Uuid,
}

/// A request for a checkpoint, checked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ParsedCheckpoint {
    /// Its name, if it has one.
    pub name: Option<String>,
    /// The caller's own.
    pub metadata: Map<String, Value>,
    /// What the answer should mention.
    pub warnings: Vec<String>,
}

/// Reads a request for a checkpoint; an empty body asks for one without a name.
///
/// # Errors
/// What is wrong with it, every faulty field named.
pub fn parse(body: &[u8], bounds: &Bounds) -> Result<ParsedCheckpoint, ApiError> {
    if body.trim_ascii().is_empty() {
        return Ok(ParsedCheckpoint::default());
    }
    let members = submission::open(body, bounds)?;
    let (mut faults, mut warnings) = (Faults::default(), Vec::new());
    let mut reader = Reader { at: "", bounds, faults: &mut faults };
    let [name, metadata] = reader.known(&members, ["name", "metadata"], &mut warnings);
    let name = reader.trimmed("name", name, Null::Absent, bounds.name_chars_max);
    let metadata = reader.object("metadata", metadata);
    let metadata = metadata.and_then(|raw| serde_json::from_str(raw.get()).ok());
    faults.check()?;
    let (name, metadata) = (name.map(Into::into), metadata.unwrap_or_default());
    Ok(ParsedCheckpoint { name, metadata, warnings })
}
