//! `tallybox export` and `tallybox import`: the real binary, alone, beside a server, and killed.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tallybox::clock::Clock;
use tallybox::domain::memory::Filter;
use tallybox::service::auth::account::load_by_email;
use tallybox::service::memory::page;
use tallybox::store::{Store, StoreOptions};

use super::support::TestApp;

/// A limit of two memories of one window and five bytes.
const TWO: (&str, &str) = ("TALLYBOX_TIERS__BASIC__MEMORY_STORAGE_BYTES", "3406");

fn command(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tallybox"));
    command.env_clear().env("TALLYBOX_DATA_DIR", directory).args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn fed(mut command: Command, input: &str) -> Output {
    let mut child = command.spawn().unwrap();
    // A command that reads nothing may have closed its end already.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

/// What a command that succeeds prints.
#[track_caller]
fn run(directory: &Path, arguments: &[&str], input: &str) -> String {
    let output = fed(command(directory, arguments), input);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A data directory with these users.
fn directory(users: &[&str]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for user in users {
        run(directory.path(), &["user", "add", user, "--tier", "basic"], "");
    }
    directory
}

fn lines(count: usize) -> String {
    let line =
        |number: usize| json!({"type": "note", "input_context": format!("number {number}"), "id": number.to_string()});
    (0..count).flat_map(|number| [line(number).to_string(), "\n".to_owned()]).collect()
}

fn texts(exported: &str) -> Vec<String> {
    let text = |line: &str| serde_json::from_str::<Value>(line).unwrap()["input_context"].as_str().unwrap().to_owned();
    exported.lines().map(text).collect()
}

#[test]
fn memories_move_from_one_box_to_another() {
    let (here, there) = (directory(&["a@example.org", "b@example.org"]), directory(&["c@example.org"]));
    let import = ["import", "memories", "-", "--user"];
    for (user, text) in [("a@example.org", "one"), ("b@example.org", "two")] {
        let line = json!({"type": "note", "input_context": text, "tags": ["t"]}).to_string();
        let said = run(here.path(), &[&import[..], &[user]].concat(), &line);
        assert_eq!(said, "imported 1, already there 0, skipped 0\n");
    }
    let of_a = run(here.path(), &["export", "memories", "--user", "A@example.org", "--format", "jsonl"], "");
    assert_eq!(texts(&of_a), ["one"]);
    let all = run(here.path(), &["export", "memories", "--embeddings"], "");
    assert_eq!((all.lines().count(), all.matches("embedding_model").count()), (2, 2));
    for said in ["imported 2, already there 0, skipped 0\n", "imported 0, already there 2, skipped 0\n"] {
        assert_eq!(run(there.path(), &[&import[..], &["c@example.org"]].concat(), &all), said);
    }
    assert_eq!(texts(&run(there.path(), &["export", "memories"], "")).len(), 2);
    assert!(run(there.path(), &["check"], "").starts_with("ok"));
}

#[tokio::test]
async fn an_import_beside_a_server_is_there_for_its_next_request() {
    let app = TestApp::new();
    let user = app.user("a@example.org", "basic").await;
    let there = app.directory.path();
    let file = there.join("memory.json");
    let entity = json!({"type": "entity", "name": "Ada", "entityType": "person", "observations": ["likes tea"]});
    std::fs::write(&file, format!("\u{feff}{entity}\nbad\n")).unwrap();
    let arguments = ["import", "memories", file.to_str().unwrap(), "--user", "a@example.org", "--format", "mcp-jsonl"];
    let said = run(there, &arguments, "");
    let wanted = "imported 1, already there 0, skipped 1\n  record 2: the record: malformed JSON, expected value\n";
    assert_eq!(said, wanted);
    let search = json!({"query": "which drink?", "limit": 1});
    let found = app.tell(&user.token, "/memory/search", search).await.expect(200);
    assert_eq!(found.json["results"][0]["input_context"], "Ada: likes tea");
    // What was imported by the command line is known over HTTP.
    let graph = json!({"entities": [{"name": "Ada", "entityType": "person", "observations": ["likes tea"]}]});
    let again = app.tell(&user.token, "/memory/import?format=mcp-jsonl", graph).await.expect(200);
    assert_eq!(again.json["already_there"], 1);
    app.proves();
}

#[test]
fn the_quota_ends_an_import_unless_it_is_passed_by() {
    let place = directory(&["a@example.org"]);
    let there = place.path();
    let chroma = json!({"ids": ["1", "2", "3"], "documents": ["12345", "67890", "abcde"]}).to_string();
    let arguments = ["import", "memories", "-", "--user", "a@example.org", "--format", "chroma"];
    let with = |more: &[&str]| {
        let mut command = command(there, &[&arguments[..], more].concat());
        command.env(TWO.0, TWO.1);
        fed(command, &chroma)
    };
    for said in ["imported 2, already there 0, skipped 0\n", "imported 0, already there 2, skipped 0\n"] {
        let refused = with(&[]);
        assert_eq!((refused.status.code(), String::from_utf8_lossy(&refused.stdout).as_ref()), (Some(1), said));
        let why = String::from_utf8_lossy(&refused.stderr);
        assert!(why.contains("record 3: memory_storage quota exceeded") && why.contains("stays"), "{why}");
    }
    let stored = with(&["--no-quota"]);
    assert!(stored.status.success());
    assert_eq!(String::from_utf8_lossy(&stored.stdout), "imported 1, already there 2, skipped 0\n");
    assert_eq!(run(there, &["export", "memories"], "").lines().count(), 3);
    assert!(run(there, &["check"], "").starts_with("ok"));
}

#[test]
fn mistakes_are_said_and_nothing_comes_of_them() {
    let place = directory(&["a@example.org"]);
    let there = place.path();
    let user = ["--user", "a@example.org"];
    for (arguments, input, said) in [
        (vec!["import", "memories", "-", "--user", "b@example.org"], "", "not found"),
        (vec!["import", "memories", "-", "--user", "nobody"], "", "e-mail address"),
        (vec!["import", "memories", "/does/not/exist", user[0], user[1]], "", "cannot be read"),
        (vec!["import", "memories", "-", user[0], user[1], "--format", "xml"], "", "tallybox, mem0, chroma, mcp-jsonl"),
        (vec!["import", "memories", "-", user[0], user[1], "--format", "mem0"], "{", "malformed JSON"),
        (
            vec!["import", "memories", "-", user[0], user[1], "--format", "chroma"],
            "{\"ids\": []}",
            "documents: is required",
        ),
        (vec!["export", "memories", "--user", "b@example.org"], "", "not found"),
        (vec!["export", "memories", "--format", "csv"], "", "jsonl"),
    ] {
        let output = fed(command(there, &arguments), input);
        let found = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && found.contains(said), "{arguments:?}: {found}");
    }
    assert_eq!(
        run(there, &["import", "memories", "-", user[0], user[1]], ""),
        "imported 0, already there 0, skipped 0\n"
    );
    let mut output = command(there, &["import", "memories", "-", user[0], user[1]]).spawn().unwrap();
    output.stdin.take().unwrap().write_all(b"\xff\n\n{}").unwrap();
    let said = String::from_utf8(output.wait_with_output().unwrap().stdout).unwrap();
    assert!(said.contains("skipped 2") && said.contains("record 1: the record: is not UTF-8"), "{said}");
    assert!(said.contains("record 3: type: is required"), "{said}");
    assert_eq!(run(there, &["export", "memories"], ""), "");
}

/// Waits until the first memories of an import are there.
fn wait_for_the_first(there: &Path, mut goes_on: impl FnMut()) {
    let store = Store::open(there, Clock::system(), &StoreOptions::default()).unwrap();
    let count = || {
        let read = store.read_blocking(|reader| {
            let user = load_by_email(reader, "a@example.org")?;
            page(reader, &user, &Filter::default(), None, false)
        });
        read.unwrap().memories
    };
    while count() == 0 {
        goes_on();
        std::thread::sleep(Duration::from_millis(2));
    }
    store.close();
}

/// What is answered to an import of JSON lines.
fn post(address: SocketAddr, token: &str, lines: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    let head = format!(
        "POST /memory/import HTTP/1.1\r\nHost: box\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/x-ndjson\r\nContent-Length: {}\r\n\r\n",
        lines.len()
    );
    stream.write_all((head + lines).as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_server_that_stops_ends_an_import_which_goes_on_elsewhere() {
    const COUNT: usize = 600;
    let place = directory(&["a@example.org"]);
    let there = place.path();
    let token = run(there, &["token", "create", "--user", "a@example.org", "--name", "t"], "").trim().to_owned();
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let listen = ["--listen", &address.to_string()];
    let mut server = command(there, &[&["serve"], &listen[..]].concat());
    let mut server = server.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while !fed(command(there, &[&["healthcheck"], &listen[..]].concat()), "").status.success() {
        assert!(server.try_wait().unwrap().is_none(), "the server does not come up");
    }
    let import = std::thread::spawn(move || post(address, &token, &lines(COUNT)));
    wait_for_the_first(there, || assert!(!import.is_finished(), "it ended before anything was there"));
    assert!(Command::new("kill").args(["-TERM", &server.id().to_string()]).status().unwrap().success());
    let answer = import.join().unwrap();
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(server.wait().unwrap().success());
    let problem: Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
    let before = usize::try_from(problem["imported"].as_u64().unwrap()).unwrap();
    assert!((1..COUNT).contains(&before) && problem["code"] == "unavailable", "{problem}");
    let said = run(there, &["import", "memories", "-", "--user", "a@example.org"], &lines(COUNT));
    assert_eq!(said, format!("imported {}, already there {before}, skipped 0\n", COUNT - before));
    assert!(run(there, &["check"], "").starts_with("ok"));
}

#[test]
fn a_killed_import_goes_on_where_it_was_and_doubles_nothing() {
    const COUNT: usize = 600;
    let place = directory(&["a@example.org"]);
    let there = place.path();
    let file = there.join("lines.jsonl");
    std::fs::write(&file, lines(COUNT)).unwrap();
    let arguments = ["import", "memories", file.to_str().unwrap(), "--user", "a@example.org"];
    let mut child = command(there, &arguments).spawn().unwrap();
    wait_for_the_first(there, || assert!(child.try_wait().unwrap().is_none(), "it ended before anything was there"));
    child.kill().unwrap();
    child.wait().unwrap();
    let before = run(there, &["export", "memories"], "").lines().count();
    assert!((1..COUNT).contains(&before), "{before}");
    assert!(run(there, &["check"], "").starts_with("ok"));
    let said = run(there, &arguments, "");
    assert_eq!(said, format!("imported {}, already there {before}, skipped 0\n", COUNT - before));
    let mut found = texts(&run(there, &["export", "memories"], ""));
    found.sort_unstable();
    found.dedup();
    assert_eq!(found.len(), COUNT);
    assert!(run(there, &["check"], "").starts_with("ok"));
}

#[test]
fn an_import_follows_links_reads_pipes_and_names_what_is_no_file() {
    let place = directory(&["a@example.org"]);
    let (there, elsewhere) = (place.path(), tempfile::tempdir().unwrap());
    let at = |name: &str| elsewhere.path().join(name);
    let import = |path: &Path| {
        fed(command(there, &["import", "memories", path.to_str().unwrap(), "--user", "a@example.org"]), "")
    };
    for (path, why) in [(elsewhere.path().to_owned(), "Is a directory"), (at("missing"), "No such file")] {
        let refused = import(&path);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!((refused.status.code(), refused.stdout.len()), (Some(1), 0), "{said}");
        assert!(said.contains(&format!("{} cannot be read", path.display())) && said.contains(why), "{said}");
    }
    std::fs::write(at("real"), lines(2)).unwrap();
    std::os::unix::fs::symlink(at("real"), at("link")).unwrap();
    assert!(Command::new("mkfifo").arg(at("pipe")).status().unwrap().success());
    let fifo = at("pipe");
    let feeder = std::thread::spawn(move || std::fs::write(fifo, lines(3)).unwrap());
    for (name, said) in
        [("link", "imported 2, already there 0, skipped 0\n"), ("pipe", "imported 1, already there 2, skipped 0\n")]
    {
        let done = import(&at(name));
        // Nobody sits before a terminal: no bar is drawn.
        assert_eq!((String::from_utf8_lossy(&done.stdout).as_ref(), done.stderr.len()), (said, 0), "{name}");
    }
    feeder.join().unwrap();
}
