//! What server and supervisor say to each other: one JSON document a packet.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// From the server. `Spawn` comes with three file descriptors: the program's standard streams.
#[derive(Debug, Deserialize, Serialize)]
pub(super) enum Request {
    Spawn {
        id: String,
        command: Vec<String>,
        folder: PathBuf,
        /// `None`: the supervisor's own.
        environment: Option<Vec<(String, String)>>,
        memory_bytes: Option<u64>,
    },
    Stop {
        id: String,
        grace_ms: u64,
    },
}

/// From the supervisor. One of them for each `Spawn`, when nothing of the program is left.
#[derive(Debug, Deserialize, Serialize)]
pub(super) enum Event {
    NotStarted { id: String, error: String },
    Exited { id: String, code: Option<i32>, signal: Option<i32> },
}
