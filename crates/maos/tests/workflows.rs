//! Runs the example workflows with the real binary and compares what they make with values computed
//! another way: plain folding over the lines of the data, without SQL and without their programs.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

/// A copy of `examples` in a folder of its own.
struct Workspace(TempDir);

impl Workspace {
    fn new() -> Workspace {
        let folder = TempDir::new().expect("a temporary folder can be made");
        copy(&project().join("examples"), &folder.path().join("examples"));
        Workspace(folder)
    }

    /// Runs a workflow to its end and gives the document it prints.
    fn run(&self, workflow: &str) -> Value {
        let output = Command::new(env!("CARGO_BIN_EXE_maos"))
            .args(["run", workflow, "--json", "--data-dir", "data"])
            .current_dir(self.0.path())
            .output()
            .expect("the binary can be started");
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "`{workflow}` ended with {}\n{words}", output.status);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|fault| {
            let printed = String::from_utf8_lossy(&output.stdout);
            panic!("stdout is not one JSON document: {fault}\n{printed}\n{words}")
        })
    }
}

fn project() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).expect("a crate lies two folders below the root").to_path_buf()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder can be made");
    for entry in fs::read_dir(from).expect("the examples can be listed") {
        let path = entry.expect("an entry can be read").path();
        let target = to.join(path.file_name().expect("an entry has a name"));
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).expect("a file can be copied");
        }
    }
}

/// What one group of strikes adds up to.
#[derive(Clone, Copy, Default)]
struct Sum {
    strikes: u64,
    damaging: u64,
    large: u64,
    cost_usd: u64,
}

/// The strikes of the data set by what `key` takes from a row's fields.
fn sums(key: impl Fn(&[&str]) -> String) -> BTreeMap<String, Sum> {
    let path = project().join("examples/data/birdstrikes/strikes.csv");
    let text = fs::read_to_string(path).expect("the data set is there");
    let mut sums: BTreeMap<String, Sum> = BTreeMap::new();
    for line in text.lines().skip(1) {
        let fields: Vec<&str> = line.split(',').collect();
        let [.., size, damage, cost_usd] = fields[..] else {
            panic!("`{line}` has too few fields");
        };
        let sum = sums.entry(key(&fields)).or_default();
        sum.strikes += 1;
        sum.damaging += u64::from(damage != "None");
        sum.large += u64::from(size == "Large");
        sum.cost_usd += cost_usd.parse::<u64>().expect("the cost is a number");
    }
    sums
}

#[test]
fn the_report_of_the_years_is_what_the_data_says() {
    let years = sums(|fields| fields[0][..4].to_owned());
    assert_eq!(years.len(), 13);
    let mut all = Sum::default();
    let mut expected = "# Wildlife strikes by year\n\n".to_owned();
    expected.push_str("| year | strikes | with damage | large animal | cost in USD |\n");
    expected.push_str("|---|---:|---:|---:|---:|\n");
    let mut row = |label: &str, sum: Sum| {
        let Sum { strikes, damaging, large, cost_usd } = sum;
        writeln!(expected, "| {label} | {strikes} | {damaging} | {large} | {cost_usd} |")
            .expect("a string takes everything");
    };
    for (year, sum) in &years {
        row(year, *sum);
        all.strikes += sum.strikes;
        all.damaging += sum.damaging;
        all.large += sum.large;
        all.cost_usd += sum.cost_usd;
    }
    row("all", all);
    assert_eq!(all.strikes, 10_000);

    let workspace = Workspace::new();
    let document = workspace.run("examples/workflows/strikes-report.json");
    assert_eq!(document.pointer("/task/status"), Some(&Value::from("completed")), "{document}");
    let report = fs::read_to_string(workspace.0.path().join("strikes-report.md"));
    assert_eq!(report.expect("the workflow wrote its report"), expected);
}

#[test]
fn the_risk_of_the_phases_is_what_the_data_says() {
    let mut phases: Vec<(String, Sum)> =
        sums(|fields| fields[3].to_owned()).into_iter().filter(|(_, s)| s.strikes >= 100).collect();
    let per_mille = |sum: &Sum| 1_000 * sum.damaging / sum.strikes;
    // The map was in order, and a stable sort keeps that among equals.
    phases.sort_by_key(|(_, sum)| u64::MAX - per_mille(sum));
    assert_eq!(phases.len(), 5);
    let mut expected =
        "| phase | strikes | damaging | per mille |\n|---|---:|---:|---:|\n".to_owned();
    for (phase, sum) in &phases {
        let Sum { strikes, damaging, .. } = sum;
        writeln!(expected, "| {phase} | {strikes} | {damaging} | {} |", per_mille(sum))
            .expect("a string takes everything");
    }

    let document = Workspace::new().run("examples/workflows/strikes-risk.json");
    assert_eq!(document.pointer("/task/status"), Some(&Value::from("completed")), "{document}");
    let result = document.pointer("/task/result").expect("a completed task has a result");
    assert_eq!(result["markdown"], expected, "{result}");
    assert_eq!(result["left_out_count"], 2, "{result}");
}
