//! The manual's list of attacks names tests that there are.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The names of all tests below `folder`: functions with an attribute that makes them one.
fn tests(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            tests(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            found.extend(tests_in(&text));
        }
    }
}

fn tests_in(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut is_test = false;
    for line in text.lines().map(str::trim_start) {
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            is_test = true;
        } else if let Some(rest) = line.strip_prefix("async fn ").or_else(|| line.strip_prefix("fn ")) {
            names.extend(rest.split(['(', '<']).next().filter(|_| is_test).map(str::to_owned));
            is_test = false;
        }
    }
    names
}

#[test]
fn what_is_no_test_is_not_taken_for_one() {
    let text = "#[test]\n// said\n#[expect(x)]\nfn one() {}\nfn two() {}\n  #[tokio::test(flavor = \"m\")]\n  async fn three() {}\n\
                // #[test]\nasync fn four() {}\nlet fifth = \"fn five()\";";
    assert_eq!(tests_in(text), ["one", "three"]);
}

#[test]
fn the_manuals_list_of_attacks_names_tests_that_there_are() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manual = fs::read_to_string(root.join("docs/OPERATIONS.md")).unwrap();
    let (_, section) = manual.split_once("### Attacks that are tried").unwrap();
    let section = section.split("\n## ").next().unwrap();
    let mut known = BTreeSet::new();
    tests(&root.join("tests"), &mut known);
    tests(&root.join("src"), &mut known);
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
