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

#[test]
fn imports_point_downwards() {
    // A layer, and the layers it must not name.
    const WALLS: &[(&str, &[&str])] = &[
        ("domain", &["store", "service", "adapter", "web", "view", "app", "worker", "config", "clock"]),
        ("store", &["service", "adapter", "web", "view", "app", "worker", "config"]),
        ("service", &["adapter", "web", "view", "app", "worker"]),
        ("adapter", &["store", "service", "web", "view", "app", "worker"]),
        ("view", &["store", "service", "adapter", "web", "app", "worker", "config", "clock"]),
        ("web", &["app", "worker"]),
        ("config", &["service", "adapter", "web", "view", "app", "worker"]),
        ("clock", &["store", "service", "adapter", "web", "view", "app", "worker", "config"]),
    ];
    let found = faults(|source, line| {
        let wall = WALLS.iter().find(|(layer, _)| *layer == source.layer());
        wall.is_some_and(|(_, forbidden)| {
            forbidden
                .iter()
                .any(|layer| line.contains(&format!("crate::{layer}::")) || line.contains(&format!("crate::{layer};")))
        })
    });
    assert!(found.is_empty(), "imports that point upwards:\n{}", found.join("\n"));
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
    let found = faults(|source, line| source.path != "src/store/extension.rs" && line.contains("unsafe "));
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
