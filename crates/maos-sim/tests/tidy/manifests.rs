//! Which crate may depend on which, and how dependencies are declared.

use toml::{Table, Value};

use crate::exceptions::hold;
use crate::tree::{File, files};
use crate::violation::{Rule, Violation};

/// Each crate of the workspace and the ones of ours that it may know.
const OURS: &[(&str, &[&str])] = &[
    ("maos", &["maos-server", "maos-api"]),
    ("maos-api", &[]),
    ("maos-core", &[]),
    ("maos-server", &["maos-core", "maos-api"]),
    ("maos-sim", &["maos-core"]),
];

/// The core is pure, and everything stands on it.
const CORE_DEPENDENCIES: &[&str] = &["hashbrown", "minicbor", "serde", "thiserror"];

/// Where an error need not be told apart by its caller.
const ANYHOW_CRATES: &[&str] = &["maos", "maos-sim"];

/// What is wanted with its default features.
const DEFAULT_FEATURES: &[&str] = &["anyhow", "tempfile"];

fn violation(
    file: &File,
    name: &str,
    found: String,
    wanted: String,
    hint: &'static str,
) -> Violation {
    let declares = |line: &str| line.trim_start().starts_with(name);
    let line = file.text.lines().position(declares).map_or(1, |index| index + 1);
    let (rule, file) = (Rule::Manifest, file.path.clone());
    Violation { rule, file, line, name: name.to_owned(), found, wanted, hint }
}

fn parse(file: &File) -> Table {
    file.text.parse().unwrap_or_else(|fault| panic!("`{}`: {fault}", file.path))
}

/// All tables of dependencies with their kind, also those under `[target]`.
fn dependency_tables(manifest: &Table) -> Vec<(&str, &Table)> {
    let kinds = ["dependencies", "build-dependencies", "dev-dependencies"];
    let targets = manifest.get("target").and_then(Value::as_table);
    let conditional = targets.into_iter().flat_map(Table::values).filter_map(Value::as_table);
    std::iter::once(manifest)
        .chain(conditional)
        .flat_map(|table| {
            kinds.iter().filter_map(|kind| Some((*kind, table.get(*kind)?.as_table()?)))
        })
        .collect()
}

fn crate_edges(file: &File) -> Vec<Violation> {
    let manifest = parse(file);
    let own = manifest["package"]["name"].as_str().expect("a crate has a name");
    let Some((_, may_know)) = OURS.iter().find(|(name, _)| *name == own) else {
        let hint = "a crate is a wall: argue for it in ARCHITECTURE.md and add it to OURS";
        let found = "a crate that the map does not know".to_owned();
        return vec![violation(file, own, found, "one of the table".to_owned(), hint)];
    };
    let mut violations = Vec::new();
    for (kind, table) in dependency_tables(&manifest) {
        for (name, declared) in table {
            let shared = declared.get("workspace").and_then(Value::as_bool) == Some(true);
            if !shared {
                let hint = "declare the version in the root's [workspace.dependencies]";
                let wanted = "`workspace = true`".to_owned();
                violations.push(violation(file, name, format!("{declared:?}"), wanted, hint));
            }
            // What only tests use is not shipped: it may look at anything.
            if kind != "dev-dependencies" && !may_depend(own, may_know, name) {
                let hint = "move the code to the crate that may know it, or turn the edge around";
                let found = format!("`{own}` depending on it");
                let wanted = format!("of our own crates only {may_know:?}");
                violations.push(violation(file, name, found, wanted, hint));
            }
        }
    }
    violations
}

fn may_depend(own: &str, may_know: &[&str], name: &str) -> bool {
    match own {
        "maos-core" => CORE_DEPENDENCIES.contains(&name),
        _ if name == "anyhow" => ANYHOW_CRATES.contains(&own),
        _ => may_know.contains(&name) || !OURS.iter().any(|(ours, _)| *ours == name),
    }
}

fn workspace_table(file: &File) -> Vec<Violation> {
    let manifest = parse(file);
    let table = manifest["workspace"]["dependencies"].as_table().expect("the root has the table");
    let plain = |declared: &Value| {
        declared.get("path").is_some()
            || declared.get("default-features").and_then(Value::as_bool) == Some(false)
    };
    table
        .iter()
        .filter(|(name, declared)| !plain(declared) && !DEFAULT_FEATURES.contains(&name.as_str()))
        .map(|(name, _)| {
            let hint = "switch them off and name the features that are used";
            let found = "default features".to_owned();
            violation(file, name, found, "`default-features = false`".to_owned(), hint)
        })
        .collect()
}

#[test]
fn crates_depend_only_on_what_they_may_know() {
    let is_ours =
        |file: &&File| file.path.starts_with("crates/") && file.path.ends_with("/Cargo.toml");
    let all = files();
    let manifests: Vec<&File> = all.iter().filter(is_ours).collect();
    assert_eq!(manifests.len(), OURS.len(), "a crate of the table is gone: take it out of OURS");
    let mut violations: Vec<_> = manifests.into_iter().flat_map(crate_edges).collect();
    let root = all.iter().find(|file| file.path == "Cargo.toml").expect("the root has a manifest");
    violations.extend(workspace_table(root));
    hold(&[Rule::Manifest], &violations);
}

#[cfg(test)]
mod bad_examples {
    use super::*;

    fn check(text: &str, judge: fn(&File) -> Vec<Violation>) -> Vec<String> {
        let file = File { path: "Cargo.toml".to_owned(), text: text.to_owned() };
        judge(&file).into_iter().map(|violation| violation.name).collect()
    }

    #[test]
    fn a_forbidden_crate_edge_is_found() {
        let manifest = |own: &str, dependency: &str, table: &str| {
            let head = format!("[package]\nname = \"{own}\"\n[{table}]\n");
            format!("{head}{dependency} = {{ workspace = true }}\n")
        };
        let edge = |own: &str, name: &str| check(&manifest(own, name, "dependencies"), crate_edges);
        assert_eq!(edge("maos", "maos-core"), ["maos-core"]);
        assert_eq!(edge("maos", "maos-server"), [""; 0]);
        assert_eq!(edge("maos-api", "maos-core"), ["maos-core"]);
        assert_eq!(edge("maos-core", "tokio"), ["tokio"]);
        assert_eq!(edge("maos-server", "anyhow"), ["anyhow"]);
        assert_eq!(edge("maos-cellar", "serde"), ["maos-cellar"]);
        let linux = manifest("maos-core", "rustix", "target.'cfg(unix)'.dependencies");
        assert_eq!(check(&linux, crate_edges), ["rustix"]);
        let only_tests = manifest("maos-core", "insta", "dev-dependencies");
        assert_eq!(check(&only_tests, crate_edges), [""; 0]);
    }

    #[test]
    fn a_version_of_its_own_and_default_features_are_found() {
        let text = "[package]\nname = \"maos\"\n[dependencies]\nserde = \"1\"\n";
        assert_eq!(check(text, crate_edges), ["serde"]);
        let text = "[workspace.dependencies]\nserde = \"1\"\nmaos = { path = \"a\" }\n\
                    anyhow = \"1\"\n\
                    toml = { version = \"1\", default-features = false }\n";
        assert_eq!(check(text, workspace_table), ["serde"]);
    }
}
