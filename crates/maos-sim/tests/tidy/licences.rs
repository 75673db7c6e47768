//! What comes in from outside: every crate is licensed as `deny.toml` allows, none that it bans is
//! there, and none is there twice.
//!
//! `cargo metadata` answers in a moment and is always there; cargo-deny would have to be built
//! first. Both read the same lists. Known vulnerabilities are for cargo-deny alone.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::process::Command;

use serde_json::Value;
use toml::Table;

use crate::exceptions::hold;
use crate::tree::{root, text};
use crate::violation::{Rule, Violation};

/// The platform of the promise; it keeps other platforms' crates from being fetched for this test.
const PLATFORM: &str = "x86_64-unknown-linux-gnu";

/// A crate of the graph.
struct Package {
    name: String,
    version: String,
    licence: String,
}

/// What `deny.toml` says.
struct Policy {
    licences: BTreeSet<String>,
    banned: BTreeSet<String>,
    /// `name@version`, cut where it is compatible: may be there beside another version.
    doubled: BTreeSet<String>,
}

fn policy(text: &str) -> Policy {
    let table: Table = text.parse().expect("`deny.toml` is TOML");
    let names = |section: &str, key: &str| -> BTreeSet<String> {
        let list = table[section][key].as_array().expect("a list");
        let name = |entry: &toml::Value| {
            entry.as_str().or_else(|| entry.get("crate")?.as_str()).expect("a name").to_owned()
        };
        list.iter().map(name).collect()
    };
    Policy {
        licences: names("licenses", "allow"),
        banned: names("bans", "deny"),
        doubled: names("bans", "skip"),
    }
}

fn packages() -> Vec<Package> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let arguments =
        ["metadata", "--format-version", "1", "--locked", "--filter-platform", PLATFORM];
    let output = Command::new(cargo).args(arguments).current_dir(root()).output();
    let output = output.expect("cargo can be started");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo answers in JSON");
    let list = |value: &Value| value.as_array().expect("a list").clone();
    let used: BTreeSet<String> =
        list(&metadata["resolve"]["nodes"]).iter().map(|node| node["id"].to_string()).collect();
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let package = |value: &Value| Package {
        name: word(&value["name"]),
        version: word(&value["version"]),
        licence: word(&value["license"]),
    };
    let all = list(&metadata["packages"]);
    all.iter().filter(|value| used.contains(&value["id"].to_string())).map(package).collect()
}

fn judge(packages: &[Package], policy: &Policy) -> Vec<Violation> {
    let violation = |package: &Package, found: String, wanted: &str, hint| Violation {
        rule: Rule::Licence,
        file: "Cargo.lock".to_owned(),
        line: 1,
        name: package.name.clone(),
        found,
        wanted: wanted.to_owned(),
        hint,
    };
    let mut violations = Vec::new();
    let mut versions: BTreeMap<&str, Vec<&Package>> = BTreeMap::new();
    for package in packages {
        versions.entry(&package.name).or_default().push(package);
        if !permits(&package.licence, &policy.licences) {
            let hint = "do without it, or argue for its licence in deny.toml";
            let found = format!("licence `{}`", package.licence);
            violations.push(violation(package, found, "one that deny.toml allows", hint));
        }
        if policy.banned.contains(&package.name) {
            let hint = "`cargo tree -i` tells who brings it; deny.toml tells why it is banned";
            violations.push(violation(package, "a banned crate".to_owned(), "none", hint));
        }
    }
    let is_excused = |package: &&&Package| {
        // `2` excuses every 2.x, and `0.3` every 0.3.x.
        policy.doubled.iter().filter_map(|entry| entry.split_once('@')).any(|(name, version)| {
            name == package.name && package.version.starts_with(&format!("{version}."))
        })
    };
    for same_name in versions.values() {
        let counted: Vec<_> = same_name.iter().filter(|package| !is_excused(package)).collect();
        if let [first, _, ..] = counted[..] {
            let found = format!("{} versions", counted.len());
            let hint = "`cargo tree -d` tells who brings them; bans.skip in deny.toml excuses one";
            violations.push(violation(first, found, "one", hint));
        }
    }
    violations
}

/// Whether an SPDX expression can be met with the allowed licences alone.
fn permits(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let mut words = spaced.split_whitespace().peekable();
    let met = any(&mut words, allowed);
    met && words.next().is_none()
}

type Words<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

fn any(words: &mut Words<'_>, allowed: &BTreeSet<String>) -> bool {
    let mut met = all(words, allowed);
    while words.next_if_eq(&"OR").is_some() {
        met |= all(words, allowed);
    }
    met
}

fn all(words: &mut Words<'_>, allowed: &BTreeSet<String>) -> bool {
    let mut met = one(words, allowed);
    while words.next_if_eq(&"AND").is_some() {
        met &= one(words, allowed);
    }
    met
}

fn one(words: &mut Words<'_>, allowed: &BTreeSet<String>) -> bool {
    if words.next_if_eq(&"(").is_some() {
        let met = any(words, allowed);
        return words.next_if_eq(&")").is_some() && met;
    }
    let met = words.next().is_some_and(|name| allowed.contains(name));
    // An exception only adds permissions, so the licence itself decides.
    if words.next_if_eq(&"WITH").is_some() {
        words.next();
    }
    met
}

#[test]
fn what_comes_in_is_licensed_and_comes_in_once() {
    let packages = packages();
    assert!(packages.len() > 50, "cargo named only {} crates", packages.len());
    hold(&[Rule::Licence], &judge(&packages, &policy(&text("deny.toml"))));
}

#[cfg(test)]
mod bad_examples {
    use super::*;

    fn policy_of(licences: &[&str]) -> Policy {
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Policy { licences: set(licences), banned: set(&["openssl-sys"]), doubled: set(&["syn@2"]) }
    }

    fn check(packages: &[(&str, &str, &str)]) -> Vec<String> {
        let package = |(name, version, licence): &(&str, &str, &str)| Package {
            name: (*name).to_owned(),
            version: (*version).to_owned(),
            licence: (*licence).to_owned(),
        };
        let packages: Vec<_> = packages.iter().map(package).collect();
        let violations = judge(&packages, &policy_of(&["MIT"]));
        violations.into_iter().map(|found| format!("{}: {}", found.name, found.found)).collect()
    }

    #[test]
    fn licences_bans_and_doubles_are_found() {
        assert_eq!(check(&[("a", "1.0.0", "GPL-3.0")]), ["a: licence `GPL-3.0`"]);
        assert_eq!(check(&[("a", "1.0.0", "")]), ["a: licence ``"]);
        assert_eq!(check(&[("openssl-sys", "0.9.0", "MIT")]), ["openssl-sys: a banned crate"]);
        assert_eq!(check(&[("a", "1.0.0", "MIT"), ("a", "2.0.0", "MIT")]), ["a: 2 versions"]);
        assert_eq!(check(&[("syn", "2.0.1", "MIT"), ("syn", "3.0.0", "MIT")]), [""; 0]);
    }

    #[test]
    fn expressions_are_read_as_spdx_does() {
        let allowed = policy_of(&["MIT", "BSD-3-Clause"]).licences;
        let yes = ["MIT", "MIT OR GPL-3.0", "MIT/GPL-3.0", "(GPL-3.0 OR MIT) AND BSD-3-Clause"];
        let no =
            ["GPL-3.0", "MIT AND GPL-3.0", "(MIT OR GPL-3.0) AND GPL-3.0", "MIT )", "(MIT", ""];
        assert!(yes.iter().all(|expression| permits(expression, &allowed)));
        assert!(!no.iter().any(|expression| permits(expression, &allowed)));
        assert!(permits("MIT WITH LLVM-exception OR GPL-3.0", &allowed));
    }
}
