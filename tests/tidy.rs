//! The walls of the house, held by a test: which layer may name which, how long a file may be, where unsafe code, SQL and
//! the machine's own clock may stand.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::fs;
use std::path::{Path, PathBuf};

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 75;

struct Source {
    /// Path below the crate's root, with forward slashes.
    path: String,
    text: String,
}

impl Source {
    /// The layer a file belongs to: its first folder below src/, or its own name.
    fn layer(&self) -> &str {
        let below = self.path.strip_prefix("src/").unwrap_or(&self.path);
        below.split('/').next().unwrap_or(below).trim_end_matches(".rs")
    }

    /// Lines that are code: no comments, and nothing from the first `#[cfg(test)]` on.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().enumerate();
        let code = lines.take_while(|(_, line)| !line.starts_with("#[cfg(test)]"));
        code.filter(|(_, line)| !line.trim_start().starts_with("//")).map(|(number, line)| (number + 1, line))
    }
}

fn sources(folder: &str) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> = vec![root.join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root).unwrap().to_string_lossy().replace('\\', "/");
                found.push(Source { path: name, text: fs::read_to_string(&path).unwrap() });
            }
        }
    }
    assert!(!found.is_empty(), "{folder} holds no sources");
    found
}

/// Every line of code in `src/` for which `is_fault` holds, as `path:line`.
fn faults(is_fault: impl Fn(&Source, &str) -> bool) -> Vec<String> {
    let sources = sources("src");
    let lines = sources.iter().flat_map(|source| source.code().map(move |(number, line)| (source, number, line)));
    let faults = lines.filter(|(source, _, line)| is_fault(source, line));
    faults.map(|(source, number, line)| format!("{}:{number}: {}", source.path, line.trim())).collect()
}

/// Each layer, and the others that it may name; in docs/ARCHITECTURE.md the same with what each is for. `config` and `web`
/// name only some things of the store.
const MAY_NAME: &[(&str, &[&str])] = &[
    (
        "app",
        &[
            "listener", "worker", "backup", "web", "view", "service", "adapter", "config", "store", "clock", "meter",
            "lock", "domain",
        ],
    ),
    ("listener", RECURS),
    ("worker", RECURS),
    ("backup", RECURS),
    ("demo", &["service", "store", "adapter", "domain", "config", "clock"]),
    ("web", &["service", "view", "adapter", "store", "domain", "config", "clock", "meter", "lock"]),
    ("view", &["domain"]),
    ("service", &["store", "domain", "config", "clock", "lock"]),
    ("adapter", &["domain", "config", "meter", "lock"]),
    ("config", &["store", "domain"]),
    ("store", &["domain", "clock", "meter", "lock"]),
    ("clock", &["domain"]),
    ("meter", &["domain"]),
    ("lock", &[]),
    ("domain", &[]),
];
const RECURS: &[&str] = &["web", "service", "store", "domain", "config", "clock", "lock"];

/// The modules of the crate that a line names.
fn named(line: &str) -> impl Iterator<Item = &str> {
    let is_letter = |character: char| character.is_ascii_alphanumeric() || character == '_';
    let paths = line.split("crate::").skip(1);
    paths.map(move |path| path.split(|character: char| !is_letter(character)).next().unwrap_or(path))
}

#[test]
fn imports_point_downwards() {
    let layers: Vec<String> = sources("src").iter().map(|source| source.layer().to_owned()).collect();
    let at_the_top = ["main", "cli", "lib"];
    let is_known = |layer: &str| MAY_NAME.iter().any(|(known, _)| *known == layer);
    for layer in &layers {
        assert!(is_known(layer) || at_the_top.contains(&layer.as_str()), "{layer} has no row in MAY_NAME");
    }
    let found = faults(|source, line| {
        let row = MAY_NAME.iter().find(|(layer, _)| *layer == source.layer());
        row.is_some_and(|(layer, allowed)| {
            named(line).any(|other| {
                let is_layer = layers.iter().any(|known| known == other) || other.is_empty();
                is_layer && other != *layer && !allowed.contains(&other)
            })
        })
    });
    assert!(found.is_empty(), "imports that point upwards:\n{}", found.join("\n"));
}

#[test]
fn the_map_names_the_layers_that_a_layer_may_name() {
    let map = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/ARCHITECTURE.md")).unwrap();
    for (layer, allowed) in MAY_NAME.iter().filter(|(layer, _)| *layer != "app") {
        let is_row = |line: &&str| {
            let first = line.split('|').nth(1).unwrap_or_default();
            first.contains(&format!("`src/{layer}.rs`")) || first.contains(&format!("`src/{layer}/`"))
        };
        let row = map.lines().filter(|line| line.starts_with("| ")).find(is_row);
        let last = row.and_then(|row| row.trim_end_matches([' ', '|']).rsplit('|').next());
        let last = last.unwrap_or_else(|| panic!("{layer} is not on the map"));
        let words = last.split(|character: char| !character.is_ascii_alphanumeric());
        let mut told: Vec<&str> = words.filter(|word| MAY_NAME.iter().any(|(known, _)| known == word)).collect();
        let mut held = allowed.to_vec();
        told.sort_unstable();
        held.sort_unstable();
        assert_eq!(told, held, "{layer}");
    }
}

#[test]
fn config_takes_its_options_alone_from_the_store() {
    let found = faults(|source, line| {
        source.layer() == "config" && line.contains("crate::store") && !line.contains("crate::store::StoreOptions;")
    });
    assert!(found.is_empty(), "config names the store:\n{}", found.join("\n"));
}

#[test]
fn the_demo_is_named_by_the_command_line_alone() {
    let found = faults(|source, line| !["demo", "cli"].contains(&source.layer()) && line.contains("crate::demo"));
    assert!(found.is_empty(), "the demo is no part of the program:\n{}", found.join("\n"));
}

#[test]
fn sql_stays_in_the_store() {
    let found = faults(|source, line| {
        source.layer() != "store" && ["rusqlite", "r2d2", "PRAGMA "].iter().any(|word| line.contains(word))
    });
    assert!(found.is_empty(), "SQLite is named outside the store:\n{}", found.join("\n"));
}

#[test]
fn web_asks_services_not_tables() {
    let found = faults(|source, line| {
        source.layer() == "web" && line.contains("crate::store::") && {
            let allowed = ["Reader", "Writer", "Store", "Commit", "SCHEMA_VERSION"];
            !allowed.iter().any(|name| line.contains(name))
        }
    });
    assert!(found.is_empty(), "web names tables:\n{}", found.join("\n"));
}

#[test]
fn there_is_one_island_of_unsafe_code() {
    let found = faults(|source, line| source.path != "src/store/foreign.rs" && line.contains("unsafe "));
    assert!(found.is_empty(), "unsafe code:\n{}", found.join("\n"));
}

#[test]
fn anyhow_stays_at_the_top() {
    let found = faults(|source, line| !["main", "cli", "app"].contains(&source.layer()) && line.contains("anyhow"));
    assert!(found.is_empty(), "anyhow below the top:\n{}", found.join("\n"));
}

#[test]
fn files_and_functions_stay_short() {
    let mut long = Vec::new();
    for source in sources("src").into_iter().chain(sources("tests")) {
        let lines = source.text.lines().count();
        if lines > FILE_LINES_MAX {
            long.push(format!("{}: {lines} lines", source.path));
        }
        let mut start = None;
        for (number, line) in source.text.lines().enumerate() {
            let trimmed = line.trim_start();
            let indent = line.len() - trimmed.len();
            let is_function = trimmed.split_whitespace().take(4).any(|word| word == "fn");
            if is_function && !trimmed.starts_with("//") && line.contains('(') {
                start = Some((number, indent));
            }
            if let Some((first, at)) = start
                && trimmed.starts_with('}')
                && indent == at
            {
                if number - first > FUNCTION_LINES_MAX {
                    long.push(format!("{}:{}: a function of {} lines", source.path, first + 1, number - first + 1));
                }
                start = None;
            }
        }
    }
    assert!(long.is_empty(), "too long:\n{}", long.join("\n"));
}

#[test]
fn nothing_is_left_to_do() {
    let found =
        faults(|_, line| ["todo!", "unimplemented!", "TODO", "FIXME", "dbg!"].iter().any(|word| line.contains(word)));
    assert!(found.is_empty(), "left to do:\n{}", found.join("\n"));
}
