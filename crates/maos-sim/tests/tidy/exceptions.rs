//! What does not hold yet, by name. Its law: this list may only shrink, so an exception that
//! nothing needs any more is a violation too.

use crate::violation::{Rule, Violation};

/// Rule, file, and the name of what is at fault (empty: any place in the file).
pub(crate) const EXCEPTIONS: &[(Rule, &str, &str)] = &[];

/// Panics with every violation of `rules` that is not excepted, and with every exception from them
/// that is not needed.
pub(crate) fn hold(rules: &[Rule], violations: &[Violation]) {
    let faults = judge(rules, violations, EXCEPTIONS);
    assert!(faults.is_empty(), "{} violations\n{}", faults.len(), faults.join("\n"));
}

fn judge(rules: &[Rule], violations: &[Violation], all: &[(Rule, &str, &str)]) -> Vec<String> {
    let covers = |exception: &(Rule, &str, &str), violation: &Violation| {
        let (rule, file, name) = *exception;
        rule == violation.rule
            && file == violation.file
            && (name.is_empty() || name == violation.name)
    };
    let exceptions: Vec<_> = all.iter().filter(|(rule, _, _)| rules.contains(rule)).collect();
    let mut faults: Vec<String> = violations
        .iter()
        .filter(|violation| !exceptions.iter().any(|exception| covers(exception, violation)))
        .map(Violation::to_string)
        .collect();
    for exception in exceptions {
        if !violations.iter().any(|violation| covers(exception, violation)) {
            let (rule, file, name) = exception;
            faults.push(format!(
                "{file}: the exception from {rule:?} for `{name}` is not needed any more\n  \
                 hint: take it out of tests/tidy/exceptions.rs"
            ));
        }
    }
    faults
}

#[test]
fn an_exception_covers_its_place_and_must_be_needed() {
    let violation = Violation {
        rule: Rule::FileLength,
        file: "a.rs".to_owned(),
        line: 1,
        name: String::new(),
        found: "900 lines".to_owned(),
        wanted: "at most 800".to_owned(),
        hint: "split it",
    };
    let given = [violation];
    let rules = [Rule::FileLength];
    assert_eq!(judge(&rules, &given, &[(Rule::FileLength, "a.rs", "")]), [""; 0]);
    assert_eq!(
        judge(&rules, &given, &[]),
        ["a.rs:1: found 900 lines, wanted at most 800 (FileLength)\n  hint: split it"]
    );
    let unneeded = judge(&rules, &[], &[(Rule::FileLength, "a.rs", "")]);
    assert!(unneeded[0].contains("is not needed any more"), "{unneeded:?}");
    assert_eq!(judge(&rules, &[], &[(Rule::LineLength, "a.rs", "")]), [""; 0]);
}
