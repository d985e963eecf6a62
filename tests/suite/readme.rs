//! What the README and the manual show is so: commands, answers, settings, paths, and the tests that promises name.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tallybox::app::App;
use tallybox::config::{Config, Environment};
use toml::Table;

use super::cli::Server;

const BINARY: &str = env!("CARGO_BIN_EXE_tallybox");
/// Where the README has the program, and where it serves.
const SHOWN: (&str, &str) = ("./target/release/tallybox", "127.0.0.1:8080");

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

/// The chapter of that heading, up to the next one of its rank.
fn chapter<'t>(text: &'t str, heading: &str) -> &'t str {
    let (_, rest) = text.split_once(&format!("\n## {heading}\n")).expect(heading);
    rest.split("\n## ").next().unwrap()
}

/// The blocks of a language, in order.
fn blocks<'t>(text: &'t str, language: &str) -> Vec<&'t str> {
    let begin = format!("\n```{language}\n");
    let begun = text.split(&begin).skip(1);
    begun.map(|rest| rest.split("\n```").next().unwrap()).collect()
}

/// The cells of the rows of tables, without heads and rules.
fn rows(text: &str) -> impl Iterator<Item = Vec<&str>> {
    let lines = text.lines().filter(|line| line.starts_with("| ") && line.contains('`'));
    lines.map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect())
}

/// What stands between backticks.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

// ---- The five minutes with curl

/// An answer of which only is left what is the same each time: the order of ids in place of ids, no instants, no clocks.
fn masked(line: &str, ids: &mut Vec<String>) -> String {
    if let Ok(mut json) = serde_json::from_str::<Value>(line) {
        mask(&mut json, ids);
        return json.to_string();
    }
    mask_text(line, ids)
}

fn mask(value: &mut Value, ids: &mut Vec<String>) {
    match value {
        Value::String(text) => *text = mask_text(text, ids),
        Value::Array(items) => items.iter_mut().for_each(|item| mask(item, ids)),
        Value::Object(fields) => {
            for (name, field) in fields.iter_mut() {
                match name.as_str() {
                    "requestId" | "retryAfter" => *field = Value::Null,
                    // Processors differ in the last digits.
                    "score" | "semantic" => *field = format!("{:.2}", field.as_f64().unwrap()).into(),
                    _ => mask(field, ids),
                }
            }
        }
        _ => {}
    }
}

fn mask_text(text: &str, ids: &mut Vec<String>) -> String {
    if uuid::Uuid::parse_str(text).is_ok() {
        let place = ids.iter().position(|id| id == text).unwrap_or_else(|| {
            ids.push(text.to_owned());
            ids.len() - 1
        });
        return format!("id {place}");
    }
    let is_instant = chrono::DateTime::parse_from_rfc3339(text).is_ok();
    if is_instant { "an instant".to_owned() } else { text.to_owned() }
}

#[test]
fn the_five_minutes_with_curl_can_be_pasted_and_answer_as_shown() {
    let readme = read("README.md");
    let script = blocks(chapter(&readme, "Five minutes with curl"), "sh").join("\n");
    let shown: Vec<&str> = script.lines().filter_map(|line| line.strip_prefix("# ")).collect();
    assert!(shown.len() >= 10, "{shown:?}");
    let place = tempfile::tempdir().unwrap();
    let mut serve = Command::new(BINARY);
    serve.current_dir(&place).env_clear().args(["serve", "--data-dir", "data", "--listen", "127.0.0.1:0"]);
    let server = Server::start(serve);
    let pasted = script.replace(SHOWN.0, BINARY).replace(SHOWN.1, &server.url);
    assert!(pasted.contains(BINARY) && pasted.contains(&server.url));
    let mut bash = Command::new("bash");
    bash.current_dir(&place).env_clear().env("PATH", std::env::var_os("PATH").unwrap());
    let output = bash.args(["-euo", "pipefail", "-c", &pasted]).output().expect("bash and curl are needed");
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let (mut of_shown, mut of_said) = (Vec::new(), Vec::new());
    let shown: Vec<String> = shown.into_iter().map(|line| masked(line, &mut of_shown)).collect();
    let said: Vec<String> =
        said.lines().filter(|line| !line.is_empty()).map(|line| masked(line, &mut of_said)).collect();
    for (shown, said) in shown.iter().zip(&said) {
        assert_eq!(said, shown);
    }
    assert_eq!(said.len(), shown.len(), "{said:#?}");
}

// ---- Commands

/// The arguments of each command line of the program in a block, up to where the shell takes over.
fn command_lines<'b>(block: &'b str, program: &'b str) -> impl Iterator<Item = Vec<&'b str>> {
    let lines =
        block.lines().filter(|line| !line.starts_with('#') && !line.starts_with("docker ") && !line.contains('['));
    let named = lines.flat_map(move |line| line.match_indices(program).map(move |(at, _)| (line, at)));
    // Where a command begins: alone, after another one, within $( ), or behind what is set for it.
    let begun = named.filter(|(line, at)| {
        let before = line[..*at].split(' ').next_back().unwrap();
        let word = line[..*at].split_whitespace().next_back().unwrap_or_default();
        before.ends_with("$(") || before.is_empty() && (word.is_empty() || word == "&&" || word.contains('='))
    });
    let rests = begun.filter_map(move |(line, at)| line[at + program.len()..].strip_prefix(' '));
    rests.map(|rest| {
        let words = rest.split_whitespace();
        words
            .take_while(|word| !word.starts_with(['#', '>', '|', '&', ';']) && !word.starts_with("2>"))
            .map(|word| word.trim_end_matches(')'))
            .collect()
    })
}

#[test]
fn every_command_that_is_shown_is_one_of_the_programs() {
    let readme = read("README.md");
    let manual = read("docs/OPERATIONS.md");
    // The reader of the README has built the program and installed nothing.
    for block in blocks(&readme, "sh") {
        let bare = block.lines().find(|line| line.starts_with("tallybox "));
        assert_eq!(bare, None);
    }
    let mut count = 0;
    for (text, program) in [(&readme, SHOWN.0), (&manual, "tallybox")] {
        for block in blocks(text, "sh") {
            for arguments in command_lines(block, program) {
                let output = Command::new(BINARY).env_clear().args(&arguments).arg("--help").output().unwrap();
                assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
                count += 1;
            }
        }
    }
    assert!(count >= 20, "{count} commands are shown");
}

// ---- Links

/// The anchor of a heading, as it is made of its words.
fn anchor(heading: &str) -> String {
    let words = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = words.chars().filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter));
    kept.map(|letter| if letter == ' ' { '-' } else { letter }).collect()
}

#[test]
fn every_link_leads_somewhere() {
    let mut count = 0;
    for document in ["README.md", "CONTRIBUTING.md", "docs/ARCHITECTURE.md", "docs/OPERATIONS.md"] {
        let text = read(document);
        let targets = text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap());
        for target in targets.filter(|target| !target.contains("://")) {
            let (file, place) = target.split_once('#').unwrap_or((target, ""));
            let path = if file.is_empty() {
                root().join(document)
            } else {
                root().join(document).parent().unwrap().join(file)
            };
            assert!(path.exists(), "{document} leads to {target}");
            let is_there = place.is_empty()
                || fs::read_to_string(&path)
                    .unwrap()
                    .lines()
                    .any(|line| line.starts_with('#') && anchor(line) == place);
            assert!(is_there, "{document} leads to {target}");
            count += 1;
        }
    }
    assert!(count > 20, "{count} links");
}

// ---- Settings

#[test]
fn every_configuration_that_is_shown_holds() {
    let key = BTreeMap::from([("OPENAI_API_KEY".to_owned(), "sk-of-the-reader".to_owned())]);
    let mut count = 0;
    for path in ["README.md", "docs/OPERATIONS.md"] {
        for block in blocks(&read(path), "toml") {
            if let Err(faults) = Config::parse(Some(block), &Environment(key.clone())) {
                panic!("{path}: {faults:?}\n{block}");
            }
            count += 1;
        }
    }
    assert!(count > 0);
}

fn grouped(number: i64) -> String {
    let digits = number.to_string();
    let pieces: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().map(|piece| std::str::from_utf8(piece).unwrap()).collect();
    pieces.join(",")
}

/// The words by which a table may tell a default.
fn words_for(value: &toml::Value) -> Vec<String> {
    match value {
        toml::Value::String(text) if text.is_empty() => vec!["none".to_owned(), "never".to_owned()],
        toml::Value::Array(items) if items.is_empty() => vec!["none".to_owned()],
        toml::Value::String(text) => vec![text.clone()],
        toml::Value::Integer(-1) => vec!["unlimited".to_owned()],
        toml::Value::Integer(number) => {
            let sizes = [("GiB", 1 << 30), ("MiB", 1 << 20)];
            let sizes = sizes.iter().filter(|(_, size)| *number > 0 && number % size == 0);
            let sizes = sizes.map(|(unit, size)| format!("{} {unit}", number / size));
            sizes.chain([grouped(*number)]).collect()
        }
        other => vec![other.to_string()],
    }
}

/// The limits of the tiers, as the table tells them.
fn tiers_told(defaults: &Table) -> String {
    let tell = |tier: &str| {
        let limits = ["llm_tokens_day", "memory_storage_bytes", "agent_minutes_month"];
        let words = limits.map(|key| words_for(&defaults["tiers"][tier][key]).swap_remove(0));
        if words.iter().all(|word| *word == words[0]) { words[0].clone() } else { words.join(" / ") }
    };
    let told = ["free_trial", "basic", "pro"].map(|tier| format!("{} ({tier})", tell(tier)));
    told.join(", ")
}

#[test]
fn the_table_of_settings_tells_keys_that_there_are_and_their_defaults() {
    let readme = read("README.md");
    let defaults: Table = read("config.toml").parse().unwrap();
    let help = Command::new(BINARY).env_clear().args(["serve", "--help"]).output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let mut count = 0;
    for row in rows(chapter(&readme, "Configuration")) {
        let told = row[1].replace('`', "");
        let names: Vec<&str> = quoted(row[0]).collect();
        if names[0].starts_with("--") {
            assert!(help.contains(names[0]) && help.contains(&format!("[default: {told}]")), "{row:?}");
            continue;
        }
        if names[0].starts_with("tiers.") {
            assert_eq!(told, tiers_told(&defaults));
            continue;
        }
        let section = names[0].split_once('.').unwrap().0;
        let parts: Vec<&str> = told.split(" / ").collect();
        for (place, name) in names.iter().enumerate() {
            let (section, key) = name
                .split_once('.')
                .map_or((section, *name), |(own, key)| (if own.is_empty() { section } else { own }, key));
            let default = defaults.get(section).and_then(|keys| keys.get(key));
            let default = default.unwrap_or_else(|| panic!("{section}.{key} is no setting"));
            let words = words_for(default);
            assert!(words.iter().any(|word| word == parts[place.min(parts.len() - 1)]), "{row:?}: {words:?}");
            count += 1;
        }
    }
    assert!(count > 15, "{count} settings are told");
}

// ---- The API

/// A path whose parameters have no names.
fn nameless(path: &str) -> String {
    let mut pieces = path.split('{');
    let first = pieces.next().unwrap().to_owned();
    pieces.fold(first, |path, piece| path + "{" + piece.split_once('}').map_or(piece, |(_, rest)| rest))
}

#[test]
fn the_table_of_the_api_names_calls_that_there_are() {
    let readme = read("README.md");
    let routes: BTreeSet<(String, String)> =
        App::routes().into_iter().map(|(method, path, _)| (method.to_string(), nameless(&path))).collect();
    let mut count = 0;
    for row in rows(chapter(&readme, "The API by example")) {
        let (mut methods, mut named, mut first): (Vec<&str>, bool, Option<String>) = (Vec::new(), false, None);
        for words in quoted(row[1]) {
            let (path, own): (Vec<&str>, Vec<&str>) = words.split(' ').partition(|word| word.contains('/'));
            let own: Vec<&str> =
                own.into_iter().filter(|word| ["GET", "POST", "PATCH", "DELETE"].contains(word)).collect();
            // `GET`, `PATCH`, `DELETE /memory/{id}`: methods go with the path that follows.
            if !own.is_empty() {
                if std::mem::take(&mut named) {
                    methods.clear();
                }
                methods.extend(own);
            }
            let Some(path) = path.first() else { continue };
            named = true;
            let path = nameless(path.split('?').next().unwrap());
            let base = first.get_or_insert_with(|| path.clone()).clone();
            let above = base.rsplit_once('/').unwrap().0;
            let candidates = [path.replace('…', &base), format!("{above}{path}")];
            let any = ["GET"];
            for method in if methods.is_empty() { any.as_slice() } else { methods.as_slice() } {
                let known = candidates.iter().any(|path| routes.contains(&((*method).to_owned(), path.clone())));
                assert!(known, "no {method} {candidates:?}: {row:?}");
                count += 1;
            }
        }
    }
    assert!(count > 35, "{count} calls are named");
}

// ---- Promises

/// Whether `text` has a test function of that name: below an attribute that makes it one.
fn is_test(text: &str, name: &str) -> bool {
    let mut lines = text.lines().rev().skip_while(|line| !line.contains(&format!("fn {name}(")));
    lines.next();
    lines.take_while(|line| !line.trim().is_empty() && !line.starts_with('}')).any(|line| {
        let line = line.trim();
        line.starts_with("#[") && (line.ends_with("test]") || line.contains("test("))
    })
}

/// The file that a name in the table means.
fn file_of(name: &str) -> Option<PathBuf> {
    ["tests/suite", "tests", "src"].iter().map(|folder| root().join(folder).join(name)).find(|path| path.is_file())
}

#[test]
fn each_promise_names_the_tests_that_keep_it() {
    let readme = read("README.md");
    let mut count = 0;
    for row in rows(chapter(&readme, "What is promised, and by which test")) {
        for name in quoted(row[1]) {
            let (file, function) = name.split_once("::").unwrap_or((name, ""));
            let path = file_of(file).unwrap_or_else(|| panic!("there is no {file}: {row:?}"));
            let text = fs::read_to_string(&path).unwrap();
            let is_rust = path.extension().is_some_and(|extension| extension == "rs");
            let is_there = match (is_rust, function) {
                (true, function) => is_test(&text, function),
                // A script is a test by itself; of a function it has, it makes use.
                (false, "") => true,
                (false, function) => text.contains(&format!("def {function}(")) && text.matches(function).count() > 1,
            };
            assert!(is_there, "{name} is no test: {row:?}");
            count += 1;
        }
    }
    assert!(count > 50, "{count} tests are named");
}
