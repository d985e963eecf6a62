//! The manual's list of attacks names tests that there are.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The names of all functions below `folder`.
fn functions(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            functions(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let names = text.split("fn ").skip(1).filter_map(|rest| rest.split(['(', '<']).next());
            found.extend(names.map(str::to_owned));
        }
    }
}

#[test]
fn the_manuals_list_of_attacks_names_tests_that_there_are() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manual = fs::read_to_string(root.join("docs/OPERATIONS.md")).unwrap();
    let (_, section) = manual.split_once("### Attacks that are tried").unwrap();
    let section = section.split("\n## ").next().unwrap();
    let mut known = BTreeSet::new();
    functions(&root.join("tests"), &mut known);
    functions(&root.join("src"), &mut known);
    let rows = section.lines().filter(|line| line.starts_with("| ") && line.contains('`'));
    let mut count = 0;
    for row in rows {
        let (_, tests) = row.trim_matches('|').rsplit_once('|').unwrap();
        for name in tests.split('`').skip(1).step_by(2) {
            assert!(known.contains(name), "{name} is no test: {row}");
            count += 1;
        }
    }
    assert!(count > 40, "{count} tests are named");
}
