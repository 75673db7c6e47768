//! `docs/config.md`, out of the defaults and of one sentence for every key. A test compares it.

use std::fmt::Write as _;

/// What a key is for. A key of the configuration that is not here fails a test.
const KEYS: &[(&str, &str)] = &[
    ("api.host", "`localhost` or the IP address to listen on; `--host`."),
    ("api.port", "Port to listen on, 0 for a free one; `--port`."),
    (
        "api.public_url",
        "How targets of HTTP agents reach the server to call back, such as \
         `https://maos.example.org`; empty: `http://` and the address that it listens on.",
    ),
    ("api.max_agents", "Agents that MAOS itself starts, those of pools included."),
    ("api.max_workers", "Registered workers."),
    (
        "api.max_concurrent_tasks",
        "Attempts at once that the server itself runs: built-in, command and HTTP agents. \
         Workers have bounds of their own.",
    ),
    ("api.worker_timeout", "Seconds of silence after which a worker is lost."),
    ("api.default_task_timeout", "Seconds for one attempt of a task that does not say."),
    ("api.max_task_timeout", "Seconds for one attempt at the most."),
    ("api.shutdown_grace", "Seconds for running attempts when the server stops."),
    ("api.artifact_bytes_max", "Bytes of one file that is kept with a task."),
    (
        "blobs.url",
        "Where large documents are kept: `s3://bucket/prefix`, or nothing for the folder `blobs` \
         of the data directory: `docs/blobs.md`.",
    ),
    (
        "blobs.endpoint",
        "Who keeps that bucket, such as `https://minio.example.org:9000`; empty: Amazon.",
    ),
    ("blobs.region", "The region of that bucket; empty: `us-east-1`."),
    (
        "blobs.allow_http",
        "Whether `blobs.endpoint` may begin with `http://`: documents then travel in the clear.",
    ),
    (
        "checkpoints.every_seconds",
        "Seconds between two checkpoints that are made without being asked for, and fifty times \
         what the last one took at least; 0: none are. Nothing is written while nothing changes.",
    ),
    ("checkpoints.keep", "How many of those are kept."),
    (
        "files.roots",
        "Folders that `file.*` and `data.*` may touch; `files` in the data directory unless it \
         says so.",
    ),
    ("log.level", "`DEBUG`, `INFO`, `WARNING` or `ERROR`; `--debug`."),
    ("log.format", "`text` or `json`."),
    ("logs.task_lines_max", "Lines kept of one task's log."),
    ("logs.task_bytes_max", "Bytes kept of one task's log."),
    ("logs.bytes_max", "Bytes kept of all logs; beyond that the oldest tasks lose theirs."),
    ("logs.keep_days", "Days that lines are kept; 0: as long as their task."),
    ("message_bus.max_queue_size", "Unread messages of one mailbox; more are refused."),
    ("message_bus.worker_count", "Webhooks that are called at once."),
    ("message_bus.bytes_max", "Bytes of all messages."),
    (
        "outbound.allow_private",
        "Whether webhooks and `http.request` may reach loopback, private and link-local addresses.",
    ),
    ("outbound.allow_hosts", "Hosts that they may reach wherever those are."),
    (
        "scheduling.policy",
        "Which of the tasks that could start does: `fair`, `priority` or `best_fit`.",
    ),
    ("store.keep_days", "Days that ended tasks are kept; 0: for ever."),
    ("store.keep_tasks", "Ended tasks that are kept; 0: all."),
    ("webhooks.attempts_max", "Tries of one delivery before it is given up."),
    ("webhooks.timeout_seconds", "Seconds for one try."),
    (
        "webhooks.retry_pause_ms",
        "Milliseconds before the second try; doubled each time up to five minutes, and spread.",
    ),
];

/// Bounds that no setting changes.
fn bounds() -> Vec<(&'static str, u64)> {
    use maos_core::limits as l;
    vec![
        ("Bytes of one submission", l::SUBMISSION_BYTES_MAX),
        ("Bytes of a batch", l::BATCH_BYTES_MAX),
        ("Submissions in a batch", l::BATCH_TASKS_MAX.into()),
        ("Bytes of a result", l::RESULT_BYTES_MAX),
        ("Nesting of JSON", l::NESTING_MAX.into()),
        ("Subtasks of a plan", l::PLAN_TASKS_MAX.into()),
        ("Levels of a plan", l::PLAN_DEPTH_MAX.into()),
        ("Characters of a name", l::NAME_CHARS_MAX.into()),
        ("Characters of a description", l::DESCRIPTION_CHARS_MAX.into()),
        ("Characters of a tag, a key, a capability", l::WORD_CHARS_MAX.into()),
        ("Tags", l::TAGS_MAX.into()),
        ("Kinds of resources in one requirement", l::RESOURCE_KINDS_MAX.into()),
        ("Retries", l::RETRIES_MAX.into()),
        ("Attempts of a task that may be lost", l::LOSSES_MAX.into()),
        ("Unsuccessful attempts that are told of", l::ATTEMPTS_KEPT.into()),
        ("Files of a task", l::ARTIFACTS_MAX.into()),
        ("Live tasks", l::LIVE_TASKS_MAX.into()),
        ("Agents, workers included", l::AGENTS_MAX.into()),
        ("Distinct demands that wait at once", l::LANES_MAX.into()),
        ("Idempotency keys that are remembered, for a day each", l::IDEMPOTENCY_KEYS_MAX.into()),
    ]
}

fn shown(value: &toml::Value) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

fn page() -> String {
    let mut page = String::from(
        "# Configuration\n\n\
         Generated from `crates/maos-server/src/config`; \
         `UPDATE_DOCS=1 cargo test -p maos-server --lib` writes it anew.\n\n\
         Defaults, then `maos.toml`, then the environment, then flags: what comes later wins. \
          Every \
         key below is also `MAOS_<SECTION>_<KEY>`. An unknown key is an error; another variable \
         that begins with `MAOS_` is warned of, unless Kubernetes sets such ones by itself. \
         `maos config show` prints what is in force and who set it, `maos doctor` whether the \
         machine fits.\n\n| key | default | what for |\n|---|---|---|\n",
    );
    let defaults = super::layers::defaults();
    for (key, what) in KEYS {
        let value = defaults.iter().find(|(name, _)| name == key).map(|(_, value)| value);
        let value = value.map(shown).unwrap_or_default();
        let _ = writeln!(page, "| `{key}` | `{value}` | {what} |");
    }
    page.push_str(
        "\n## The contract's own variables\n\n| variable | is |\n|---|---|\n\
         | `MAOS_ENV` | `development` and `testing`: logs as text; `staging`: as JSON. \
         `production` has authentication on, which is not built yet: the server refuses to \
          start. |\n\
         | `LOG_LEVEL` | `log.level` |\n\
         | `MESSAGE_BUS_MAX_QUEUE_SIZE` | `message_bus.max_queue_size` |\n\
         | `MESSAGE_BUS_WORKER_COUNT` | `message_bus.worker_count` |\n\
         | `SECURITY_REQUIRE_AUTH`, `SECURITY_REQUIRE_ENCRYPTION`, `SECURITY_RATE_LIMIT`, \
         `REDIS_HOST`, `REDIS_PORT`, `REDIS_PASSWORD`, `REDIS_DB`, \
         `REDIS_URL` | Not built yet: the server refuses to start when one asks for \
         something. |\n\n## Resources, pools, programs, URLs\n\n\
         `[resources]` has an amount for each kind; a kind that is not named holds nothing back. \
         What is declared there and through `POST /api/v1/resources` adds \
          up.\n\n```toml\n[resources]\n",
    );
    for (key, value) in &defaults {
        if let Some(kind) = key.strip_prefix("resources.") {
            let _ = writeln!(page, "{kind} = {}", shown(value));
        }
    }
    page.push_str(
        "```\n\n`[pools.NAME]` is a pool of built-in agents of that type; naming any pool replaces \
         nothing but that pool. `PUT /api/v1/pools/NAME` changes all but its capabilities while \
          the \
         server runs. `MAOS_POOLS_DATA_PROCESSOR_MAX` and the like set keys of the pools that are \
          there by default; another one is set whole, as a TOML table in one line. The default of \
          `data_processor`:\n\n```toml\n[pools.data_processor]\n",
    );
    for (key, value) in &defaults {
        if let Some(name) = key.strip_prefix("pools.data_processor.") {
            let _ = writeln!(page, "{name} = {}", shown(value));
        }
    }
    page.push_str(
        "```\n\n`[commands.NAME]` is a program as an agent: `docs/command-agents.md`. \
         `[http_agents.NAME]` is a URL as an agent: `docs/http-agents.md`.\n\n\
         ## Bounds\n\nWhat no setting changes; at each of them the server refuses with a clear \
         error.\n\n| bound | at most |\n|---|---|\n",
    );
    for (what, most) in bounds() {
        let _ = writeln!(page, "| {what} | {most} |");
    }
    page
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    #[test]
    fn the_committed_reference_is_what_the_code_says() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/config.md");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(&path, page()).unwrap();
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(committed == page(), "docs/config.md is old: UPDATE_DOCS=1 writes it anew");
    }

    #[test]
    fn every_key_is_described_and_nothing_else_is() {
        let tables = ["resources.", "pools.", "commands.", "http_agents."];
        let defaults = super::super::layers::defaults();
        let keys: BTreeSet<&str> = defaults
            .iter()
            .map(|(key, _)| key.as_str())
            .filter(|key| !tables.iter().any(|table| key.starts_with(table)))
            .collect();
        assert_eq!(keys, KEYS.iter().map(|(key, _)| *key).collect());
    }
}
