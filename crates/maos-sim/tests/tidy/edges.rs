//! Which module may use which. The tables here are the ones that `ARCHITECTURE.md` draws; tests of
//! a module may use anything.

use crate::exceptions::hold;
use crate::source::{code, identifier, line_of, shipped, words};
use crate::tree::{File, rust_files};
use crate::violation::{Rule, Violation, places};

const CORE: &str = "crates/maos-core/src/";
const SERVER: &str = "crates/maos-server/src/";

/// The core from the ground up. A module uses its own layer and those below it.
const CORE_LAYERS: &[&[&str]] = &[
    &["ids", "time", "limits", "slab", "sorted"],
    &["payload", "spec"],
    &["command", "event", "rejection", "record"],
    &["task", "agent", "change", "dispatch", "gate", "retry"],
    &["engine"],
    &["view", "outcome", "laws"],
    &["presence", "node"],
];

/// What a room of the server must not know. `service` puts the others together at the start, so it
/// may name them all but the one above it.
const SERVER_FORBIDDEN: &[(&str, &[&str])] = &[
    ("http", &["driver", "journal"]),
    ("service", &["http"]),
    ("planner", &["http", "service", "driver", "journal", "store"]),
    ("driver", &["http", "service"]),
    ("journal", &["http", "service", "planner", "driver", "agents", "supervisor"]),
    ("store", &["http", "service", "planner", "driver", "agents", "supervisor"]),
    ("agents", &["http", "service", "driver", "journal", "store"]),
    ("supervisor", &["http", "service", "planner", "driver", "journal", "store"]),
    ("streams", &["http", "service", "planner", "driver", "journal", "store", "agents"]),
    ("logs", &["http", "service", "planner", "driver", "journal", "store", "agents"]),
    ("messages", &["http", "service", "planner", "driver", "journal", "store", "agents"]),
    ("webhooks", &["http", "service", "planner", "driver", "journal", "store", "agents"]),
    ("outbound", &["http", "service", "driver", "journal", "store", "agents", "streams"]),
];

/// One use of another module of the same crate.
struct Use {
    line: usize,
    module: String,
}

/// The modules from the crate's root to the file: `http/tasks.rs` is `[http, tasks]`.
fn module_path(path_in_src: &str) -> Vec<&str> {
    let path = path_in_src.strip_suffix(".rs").unwrap_or(path_in_src);
    let path = path.strip_suffix("/mod").unwrap_or(path);
    if matches!(path, "lib" | "main") { Vec::new() } else { path.split('/').collect() }
}

/// All uses of the crate's top-level modules, by `crate::` and by `super::` up to the root.
fn uses(depth: usize, text: &str) -> Vec<Use> {
    let masked = code(text);
    let code = shipped(&masked);
    let from_root = words(code, "crate").filter_map(|at| code[at + 5..].strip_prefix("::"));
    let from_above = words(code, "super").filter_map(|at| {
        if code[..at].ends_with("::") {
            return None;
        }
        let mut rest = &code[at..];
        let mut steps = 0;
        while let Some(after) = rest.strip_prefix("super::") {
            (rest, steps) = (after, steps + 1);
        }
        (steps == depth).then_some(rest)
    });
    let mut found = Vec::new();
    for rest in from_root.chain(from_above) {
        let line = line_of(code, code.len() - rest.len());
        found.extend(heads(rest).into_iter().map(|module| Use { line, module }));
    }
    found
}

/// The first names of a path or of a group of paths.
fn heads(path: &str) -> Vec<String> {
    let Some(group) = path.strip_prefix('{') else {
        return vec![identifier(path).to_owned()];
    };
    let mut names = Vec::new();
    let mut depth = 0_usize;
    let mut start = 0;
    for (offset, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            ',' | '}' if depth == 0 => {
                names.push(identifier(group[start..offset].trim_start()).to_owned());
                start = offset + 1;
                if c == '}' {
                    break;
                }
            }
            '}' => depth -= 1,
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

fn violation(
    file: &File,
    line: usize,
    found: String,
    wanted: String,
    hint: &'static str,
) -> Violation {
    Violation {
        rule: Rule::Edge,
        file: file.path.clone(),
        line,
        name: String::new(),
        found,
        wanted,
        hint,
    }
}

fn core_edges(file: &File) -> Vec<Violation> {
    let path = module_path(file.path.strip_prefix(CORE).unwrap_or_default());
    let layer_of = |module: &str| CORE_LAYERS.iter().position(|layer| layer.contains(&module));
    let Some(&own) = path.first() else {
        return Vec::new();
    };
    let Some(own_layer) = layer_of(own) else {
        let hint = "give it a layer in CORE_LAYERS, and draw it in the core's lib.rs";
        let found = format!("module `{own}` without a layer");
        return vec![violation(file, 1, found, "a place in the order".to_owned(), hint)];
    };
    let upward = |used: &Use| layer_of(&used.module).is_some_and(|layer| layer > own_layer);
    uses(path.len(), &file.text)
        .into_iter()
        .filter(upward)
        .map(|used| {
            let found = format!("`{own}` using `{}`", used.module);
            let wanted = format!("only {:?}", CORE_LAYERS[..=own_layer].concat());
            let hint = "hand it what it needs as an argument, or move the line to where it belongs";
            violation(file, used.line, found, wanted, hint)
        })
        .collect()
}

fn server_edges(file: &File) -> Vec<Violation> {
    let path = module_path(file.path.strip_prefix(SERVER).unwrap_or_default());
    let own = path.first().copied().unwrap_or_default();
    let Some((_, forbidden)) = SERVER_FORBIDDEN.iter().find(|(room, _)| *room == own) else {
        return Vec::new();
    };
    uses(path.len(), &file.text)
        .into_iter()
        .filter(|used| forbidden.contains(&used.module.as_str()))
        .map(|used| {
            let found = format!("`{own}` using `{}`", used.module);
            let wanted = format!("nothing of {forbidden:?}");
            let hint = "http -> service -> driver -> {journal, agents}: ask the next room";
            violation(file, used.line, found, wanted, hint)
        })
        .collect()
}

#[test]
fn modules_use_only_what_they_may_know() {
    let is_shipped =
        |file: &File| !file.path.ends_with("/tests.rs") && !file.path.contains("/tests/");
    let mut violations = Vec::new();
    for file in rust_files().iter().filter(|file| is_shipped(file)) {
        if file.path.starts_with(CORE) {
            violations.extend(core_edges(file));
        } else if file.path.starts_with(SERVER) {
            violations.extend(server_edges(file));
        }
    }
    hold(&[Rule::Edge], &violations);
}

#[cfg(test)]
mod bad_examples {
    use super::*;

    fn file(path: String, text: &str) -> File {
        File { path, text: text.to_owned() }
    }

    #[test]
    fn an_upward_edge_of_the_core_is_found() {
        let text = "//! `crate::engine`\nuse crate::ids::TaskId;\n\
                    use crate::{time::{A, B}, engine::C};\n\
                    fn a() { super::node::b(); }\n\
                    #[cfg(test)]\nmod tests { use crate::engine::D; }";
        assert_eq!(places(&core_edges(&file(format!("{CORE}retry.rs"), text))), [3, 4]);
        assert_eq!(core_edges(&file(format!("{CORE}node.rs"), text)), []);
        assert_eq!(places(&core_edges(&file(format!("{CORE}cellar.rs"), ""))), [1]);
        assert_eq!(core_edges(&file(format!("{CORE}lib.rs"), text)), []);
    }

    #[test]
    fn a_forbidden_edge_of_the_server_is_found() {
        let text = "use crate::service::A;\nuse super::super::journal::B;\nuse super::driver::C;";
        assert_eq!(places(&server_edges(&file(format!("{SERVER}http/tasks.rs"), text))), [2]);
        assert_eq!(places(&server_edges(&file(format!("{SERVER}http/mod.rs"), text))), [3]);
        assert_eq!(places(&server_edges(&file(format!("{SERVER}agents/a.rs"), text))), [1, 2]);
        assert_eq!(server_edges(&file(format!("{SERVER}shutdown.rs"), text)), []);
    }
}
