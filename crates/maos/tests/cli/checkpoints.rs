//! `maos checkpoint`, against a script; with a real server it is in `processes`.

use std::process::Output;

use insta::assert_snapshot;
use serde_json::{Value, json};

use crate::document;
use crate::script::{Server, error, id};

const ALL: &str = "GET /api/v1/checkpoints";

/// Output with ids as short as they were made.
fn shown(output: &Output) -> String {
    crate::shown(output).replace("01900000-0000-7000-8000-00000000000", "#")
}

fn held(n: u32, name: &str, kind: &str, size_bytes: u64) -> Value {
    json!({
        "id": id(n), "name": name, "type": kind, "created_at": "2026-01-01T00:00:00.5Z",
        "size_bytes": size_bytes, "tasks": n, "checksum": "00", "metadata": {}, "newer_field": 7
    })
}

fn all() -> Value {
    let items = [
        held(1, "2026-01-01T00:00:00Z", "automatic", 900),
        held(2, "before the import", "manual", 5 << 20),
        held(3, "twice", "manual", 70_000),
        held(4, "twice", "manual", 3 << 30),
    ];
    json!({ "items": items, "total_items": 4 })
}

#[test]
fn they_are_listed_in_a_table() {
    let server = Server::new(&[(ALL, 200, all())]);
    assert_snapshot!(shown(&server.maos(&["checkpoint", "list"])), @r"
    exit 0
    -- out
    ID                                    TYPE       CREATED               TASKS  SIZE    NAME
    #1  automatic  2026-01-01T00:00:00Z  1      900 B   2026-01-01T00:00:00Z
    #2  manual     2026-01-01T00:00:00Z  2      5 MB    before the import
    #3  manual     2026-01-01T00:00:00Z  3      68 KB   twice
    #4  manual     2026-01-01T00:00:00Z  4      3.0 GB  twice
    -- err
    ");
    assert_eq!(document(&server.maos(&["checkpoint", "list", "--json"])), all());
    let server = Server::new(&[(ALL, 200, json!({"items": [], "total_items": 0}))]);
    assert_snapshot!(shown(&server.maos(&["checkpoint", "list"])), @r"
    exit 0
    -- out
    -- err
    no checkpoints here
    hint: `maos checkpoint create NAME` makes one
    ");
}

#[test]
fn one_is_made_with_a_name_or_without() {
    let made = json!({"checkpoint": held(2, "import", "manual", 5 << 20), "message": "made"});
    let server = Server::new(&[("POST /api/v1/checkpoints", 200, made.clone())]);
    assert_snapshot!(shown(&server.maos(&["checkpoint", "create", "import"])), @r"
    exit 0
    -- out
    #2
    -- err
    made `import` of 2 tasks, 5 MB; `maos checkpoint restore #2` goes back to it
    ");
    assert_eq!(document(&server.maos(&["checkpoint", "create", "--json"])), made);
    assert_eq!((server.body(0), server.body(1)), (json!({"name": "import"}), json!({})));
}

#[test]
fn a_name_or_an_id_says_where_the_state_goes_back_to() {
    let answer = json!({"message": "back", "restored": held(2, "before the import", "manual", 9),
        "before": held(9, "before `before the import`", "before_restore", 9)});
    let restore = format!("PUT /api/v1/checkpoints/{}/restore", id(2));
    let server = Server::new(&[(ALL, 200, all()), (&restore, 200, answer.clone())]);
    let by_name = server.maos(&["checkpoint", "restore", "before the import"]);
    assert_snapshot!(shown(&by_name), @r"
    exit 0
    -- out
    restored `before the import` of 2026-01-01T00:00:00Z: 2 tasks
    -- err
    `maos checkpoint restore #9` goes forward again
    ");
    let by_id = server.maos(&["checkpoint", "restore", &id(2), "--json"]);
    assert_eq!(document(&by_id), answer);
    assert_eq!(server.requests(), [ALL, restore.as_str(), restore.as_str()]);
}

#[test]
fn what_is_not_there_and_what_is_there_twice_is_refused_with_a_remedy() {
    let restore = format!("PUT /api/v1/checkpoints/{}/restore", id(7));
    let missing = error("CHECKPOINT_NOT_FOUND", "no checkpoint has the id `7`");
    let server = Server::new(&[(ALL, 200, all()), (&restore, 404, missing)]);
    let restore = |name: &str| server.maos(&["checkpoint", "restore", name]);
    assert_snapshot!(shown(&restore("nothing")), @r"
    exit 1
    -- out
    -- err
    error: no checkpoint has the name `nothing` (CHECKPOINT_NOT_FOUND)
    hint: `maos checkpoint list` shows the checkpoints there are
    ");
    assert_snapshot!(shown(&restore(&id(7))), @r"
    exit 1
    -- out
    -- err
    error: no checkpoint has the id `7` (CHECKPOINT_NOT_FOUND)
    hint: `maos checkpoint list` shows the checkpoints there are
    ");
    assert_snapshot!(shown(&restore("twice")), @r"
    exit 2
    -- out
    -- err
    error: 2 checkpoints have the name `twice`: #3, #4
    hint: name one by its id; the newest is #4
    ");
    let json = server.maos(&["checkpoint", "restore", "nothing", "--json"]);
    assert_eq!(document(&json)["error_code"], "CHECKPOINT_NOT_FOUND");
    assert_eq!(server.requests().iter().filter(|line| line.starts_with("PUT")).count(), 1);
}

#[test]
fn one_is_deleted_by_its_name() {
    let gone = json!({"message": "checkpoint deleted", "checkpoint_id": id(2)});
    let delete = format!("DELETE /api/v1/checkpoints/{}", id(2));
    let server = Server::new(&[(ALL, 200, all()), (&delete, 200, gone)]);
    assert_snapshot!(shown(&server.maos(&["checkpoint", "delete", "before the import"])), @r"
    exit 0
    -- out
    checkpoint deleted
    -- err
    ");
}
