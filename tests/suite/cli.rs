//! The command line: the real binary, alone and beside a server.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use super::sieve::secret_in;
use super::support::{PASSWORD, TestApp};

pub(super) fn command(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tallybox"));
    command.env_clear().env("TALLYBOX_DATA_DIR", directory).args(arguments);
    command
}

pub(super) fn run_with(directory: &Path, arguments: &[&str], input: &str) -> Output {
    let mut command = command(directory, arguments);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A command that reads nothing may have closed its end already.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

/// What a command that succeeds prints.
#[track_caller]
pub(super) fn run(directory: &Path, arguments: &[&str]) -> String {
    let output = run_with(directory, arguments, "");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

/// What a command that fails says.
#[track_caller]
pub(super) fn fails(output: &Output) -> String {
    assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test]
async fn commands_beside_a_server_hold_for_its_next_request() {
    let app = TestApp::new();
    let there = app.directory.path();
    let added = run_with(
        there,
        &["user", "add", "a@example.org", "--tier", "basic", "--password-stdin"],
        &format!("{PASSWORD}\nmore"),
    );
    let id = String::from_utf8(added.stdout).unwrap().trim_end().to_owned();
    let token = run(there, &["token", "create", "--user", "A@example.org", "--name", "test", "--scope", "usage:read"]);
    let status = async || app.call("GET", "/usage/tier", Some(&token), None).await;
    assert_eq!(status().await.expect(200).json["userId"], id);
    run(there, &["user", "set-tier", "a@example.org", "pro"]);
    assert_eq!(status().await.expect(200).json["tier"], "pro");
    run(there, &["user", "disable", "a@example.org"]);
    status().await.expect(401);
    run(there, &["user", "enable", "a@example.org"]);
    status().await.expect(200);
    assert_eq!(run(there, &["user", "list"]), format!("{id}\ta@example.org\tuser\tpro\tenabled"));
    let session = app.log_in("a@example.org").await;
    let link = run(there, &["user", "set-password", "a@example.org"]);
    assert!(link.contains("/setup?token="), "{link}");
    app.call("GET", "/auth/me", Some(&session), None).await.expect(401);
    status().await.expect(401);
}

#[tokio::test]
async fn a_token_revoked_by_the_command_line_is_dead_for_the_next_request() {
    let app = TestApp::new();
    let there = app.directory.path();
    let user = app.user("a@example.org", "basic").await;
    app.call("GET", "/auth/me", Some(&user.token), None).await.expect(200);
    let listed = run(there, &["token", "list", "--user", "a@example.org"]);
    assert!(listed.ends_with("live") && !listed.contains(&user.token[4..]), "{listed}");
    run(there, &["token", "revoke", listed.split('\t').next().unwrap()]);
    app.call("GET", "/auth/me", Some(&user.token), None).await.expect(401);
    assert!(run(there, &["token", "list", "--user", "a@example.org"]).ends_with("revoked"));
}

#[tokio::test]
async fn an_erasure_beside_a_server_asks_for_a_yes_and_prints_what_it_took() {
    let app = TestApp::new();
    let there = app.directory.path();
    let user = app.user("a@example.org", "pro").await;
    for amount in 1..=3 {
        app.used_up(&user, amount).await;
    }
    let refusal = fails(&run_with(there, &["user", "erase", "a@example.org"], ""));
    assert!(refusal.contains("--yes"), "{refusal}");
    app.call("GET", "/auth/me", Some(&user.token), None).await.expect(200);
    let output = run_with(there, &["user", "erase", "a@example.org", "--yes"], "");
    let (printed, said) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success() && said.is_empty(), "{said}");
    assert_eq!(printed.lines().count(), 13, "{printed}");
    for count in ["accounts\t1", "ledger_entries\t3", "memories\t0", "tokens\t1"] {
        assert!(printed.lines().any(|line| line == count), "{count}: {printed}");
    }
    app.call("GET", "/auth/me", Some(&user.token), None).await.expect(401);
    assert!(run(there, &["user", "list"]).is_empty());
    for named in [&user.id, &user.email] {
        fails(&run_with(there, &["user", "erase", named, "--yes"], ""));
    }
    app.proves();
}

#[test]
fn mistakes_exit_non_zero_and_say_what_is_wrong() {
    let directory = tempfile::tempdir().unwrap();
    let there = directory.path();
    for (arguments, input, said) in [
        (vec!["user", "add", "nobody"], "", "e-mail address"),
        (vec!["user", "add", "a@b.example", "--tier", "gold"], "", "known are basic, free_trial, pro"),
        (vec!["user", "add", "a@b.example", "--role", "king"], "", "user or admin"),
        (vec!["user", "add", "a@b.example", "--password-stdin"], "short\n", "10 to 256 characters"),
        (vec!["user", "set-tier", "no@b.example", "pro"], "", "not found"),
        (vec!["token", "create", "--user", "no@b.example", "--name", "x"], "", "not found"),
        (vec!["token", "create", "--user", "a@b.example", "--name", "x", "--scope", "root"], "", "unknown scope root"),
        (vec!["token", "revoke", "x"], "", "id of a token"),
        (vec!["config", "--config", "/does/not/exist.toml"], "", "cannot be read"),
        (vec!["healthcheck", "--listen", "127.0.0.1:1"], "", "no server"),
    ] {
        let output = run_with(there, &arguments, input);
        assert!(fails(&output).contains(said), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(output.stdout.is_empty());
    }
    run(there, &["user", "add", "a@b.example"]);
    assert!(fails(&run_with(there, &["user", "add", "A@B.example"], "")).contains("another user"));
}

#[test]
fn faults_of_the_configuration_are_all_named_and_secrets_masked() {
    let directory = tempfile::tempdir().unwrap();
    let output = command(directory.path(), &["serve"])
        .env("TALLYBOX_SERVER__LISTEN", "nowhere")
        .env("TALLYBOX_LOG__LEVEL", "a=b=c")
        .env("TALLYBOX_COLOUR__RED", "1")
        .output()
        .unwrap();
    let said = fails(&output);
    for field in ["server.listen", "log.level", "TALLYBOX_COLOUR__RED"] {
        assert!(said.contains(field), "{said}");
    }
    let output =
        command(directory.path(), &["config"]).env("TALLYBOX_EMBEDDING__API_KEY", "sk-secret").output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(printed.contains("[tiers.free_trial]") && !printed.contains("sk-secret"), "{printed}");
}

/// A serving process, which is killed when a test fails.
pub(super) struct Server {
    child: Child,
    pub(super) url: String,
    log: BufReader<std::process::ChildStderr>,
    /// All that it logged before it listened.
    said: String,
}

impl Server {
    pub(super) fn start(command: Command) -> Self {
        let mut server = Self::launch(command);
        server.wait_for("listening on http://");
        let (_, rest) = server.said.rsplit_once("listening on http://").unwrap();
        server.url = rest.split_whitespace().next().unwrap().to_owned();
        server
    }

    /// A server that may not listen yet.
    fn launch(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        Self { child, url: String::new(), log, said: String::new() }
    }

    /// Reads the log up to a line with `text`.
    fn wait_for(&mut self, text: &str) {
        while !self.said.contains(text) {
            assert_ne!(self.log.read_line(&mut self.said).unwrap(), 0, "{}", self.said);
        }
    }

    /// Ends it as an operator does, and gives what it printed and logged.
    fn stop(mut self, signal: &str) -> (bool, String, String) {
        let killed = Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap();
        assert!(killed.success());
        let mut printed = String::new();
        self.child.stdout.take().unwrap().read_to_string(&mut printed).unwrap();
        self.log.read_to_string(&mut self.said).unwrap();
        assert_eq!(secret_in(&self.said), None, "a secret was logged: {}", self.said);
        (self.child.wait().unwrap().success(), printed, std::mem::take(&mut self.said))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
    }
}

const ANY_PORT: [&str; 3] = ["serve", "--listen", "127.0.0.1:0"];

#[test]
fn a_first_start_prints_one_setup_link_on_stdout_alone_and_signals_end_it_well() {
    let directory = tempfile::tempdir().unwrap();
    let mut secrets = Vec::new();
    for signal in ["-TERM", "-INT"] {
        let server = Server::start(command(directory.path(), &ANY_PORT));
        run(directory.path(), &["healthcheck", "--listen", &server.url]);
        let (well, printed, logged) = server.stop(signal);
        assert!(well, "{logged}");
        assert_eq!(printed.lines().count(), 1, "{printed}");
        let (_, secret) = printed.split_once(" /setup?token=").unwrap();
        let secret = secret.split_whitespace().next().unwrap().to_owned();
        assert!(!logged.contains(&secret) && !logged.contains("/setup"), "{logged}");
        secrets.push(secret);
    }
    assert_ne!(secrets[0], secrets[1]);
}

#[test]
fn a_second_server_on_the_same_directory_waits_for_the_first_to_end() {
    let directory = tempfile::tempdir().unwrap();
    let first = Server::start(command(directory.path(), &ANY_PORT));
    let mut second = Server::launch(command(directory.path(), &ANY_PORT));
    second.wait_for("waiting for it to end");
    assert!(first.stop("-TERM").0);
    second.wait_for("listening on http://");
    assert!(second.stop("-TERM").0);
    // One that still waits ends as quickly.
    let first = Server::start(command(directory.path(), &ANY_PORT));
    let mut second = Server::launch(command(directory.path(), &ANY_PORT));
    second.wait_for("waiting for it to end");
    assert!(second.stop("-INT").0 && first.stop("-INT").0);
}

#[test]
fn a_headless_start_makes_the_administrator_once() {
    let directory = tempfile::tempdir().unwrap();
    let start = |email: &str, password: &str| {
        let mut command = command(directory.path(), &ANY_PORT);
        command.env("TALLYBOX_ADMIN_EMAIL", email).env("TALLYBOX_ADMIN_PASSWORD", password);
        command
    };
    let output = start("nobody", "short").output().unwrap();
    let said = fails(&output);
    assert!(said.contains("TALLYBOX_ADMIN_EMAIL") && said.contains("TALLYBOX_ADMIN_PASSWORD"), "{said}");
    for email in ["root@example.org", "other@example.org"] {
        let (well, printed, logged) = Server::start(start(email, PASSWORD)).stop("-TERM");
        assert!(well && printed.is_empty() && !logged.contains(PASSWORD), "{printed}{logged}");
    }
    let listed = run(directory.path(), &["user", "list"]);
    assert!(listed.contains("root@example.org\tadmin") && !listed.contains("other@"), "{listed}");
}

#[tokio::test]
async fn the_administrators_password_may_come_from_a_file() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("password");
    std::fs::write(&file, format!("{PASSWORD}\n")).unwrap();
    let mut start = command(directory.path(), &ANY_PORT);
    start.env("TALLYBOX_ADMIN_EMAIL", "root@example.org").env("TALLYBOX_ADMIN_PASSWORD_FILE", &file);
    let (well, printed, logged) = Server::start(start).stop("-TERM");
    assert!(well && printed.is_empty() && !logged.contains(PASSWORD), "{printed}{logged}");
    TestApp::at(directory).log_in("root@example.org").await;
}

#[test]
fn a_tier_that_users_hold_and_the_file_lacks_stops_serve_alone() {
    let directory = tempfile::tempdir().unwrap();
    let there = directory.path();
    let tiers = ["LLM_TOKENS_DAY", "MEMORY_STORAGE_BYTES", "AGENT_MINUTES_MONTH"];
    let mut add = command(there, &["user", "add", "a@example.org", "--tier", "gold"]);
    for key in tiers {
        add.env(format!("TALLYBOX_TIERS__GOLD__{key}"), "1");
    }
    assert!(add.output().unwrap().status.success());
    let said = fails(&command(there, &ANY_PORT).output().unwrap());
    assert!(said.contains("tiers.gold") && said.contains("1 user"), "{said}");
    // With whatever else is wrong.
    let mut faulty = command(there, &ANY_PORT);
    faulty.env("TALLYBOX_SERVER__NOPE", "1").env("TALLYBOX_TIERS__BASIC__LLM_TOKENS_DAY", "-2");
    let said = fails(&faulty.output().unwrap());
    for fault in ["3 faults", "TALLYBOX_SERVER__NOPE", "tiers.basic.llm_tokens_day", "tiers.gold: 1 user holds"] {
        assert!(said.contains(fault), "{fault} is missing in {said}");
    }
    assert!(run(there, &["user", "list"]).contains("gold"));
}

/// A demo whose directory lies in `place`.
fn demo(place: &Path) -> Child {
    let mut demo = command(place, &["demo", "--listen", "127.0.0.1:0"]);
    demo.env("TMPDIR", place).stdout(Stdio::piped()).spawn().unwrap()
}

fn count_in(place: &Path) -> usize {
    std::fs::read_dir(place).unwrap().count()
}

/// Ends a demo, which must go well and leave nothing.
#[track_caller]
fn end_demo(mut demo: Child, signal: &str, place: &Path) {
    assert_eq!(count_in(place), 1);
    assert!(Command::new("kill").args([signal, &demo.id().to_string()]).status().unwrap().success());
    assert!(demo.wait().unwrap().success());
    assert_eq!(count_in(place), 0, "{signal}");
}

#[test]
fn the_demo_shows_how_to_sign_in_and_leaves_nothing_behind() {
    let place = tempfile::tempdir().unwrap();
    let mut demo = demo(place.path());
    let mut printed = BufReader::new(demo.stdout.take().unwrap());
    let mut said = String::new();
    while !said.contains("Ctrl-C") {
        assert_ne!(printed.read_line(&mut said).unwrap(), 0, "{said}");
    }
    let (_, address) = said.split_once("http://").unwrap();
    let mut stream = std::net::TcpStream::connect(address.split_whitespace().next().unwrap()).unwrap();
    stream.write_all(b"GET /login HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("name=\"password\""), "{answer}");
    for account in tallybox::demo::ACCOUNTS {
        let words = [account.email, account.password, account.tier];
        assert!(said.lines().any(|line| words.iter().all(|word| line.contains(word))), "{said}");
    }
    assert!(said.contains("Authorization: Bearer tbx_"), "{said}");
    end_demo(demo, "-TERM", place.path());
}

#[test]
fn a_demo_that_is_ended_while_it_is_made_leaves_nothing_behind() {
    let place = tempfile::tempdir().unwrap();
    for signal in ["-INT", "-HUP"] {
        let demo = demo(place.path());
        // It hears signals before it makes its directory.
        while count_in(place.path()) == 0 {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        end_demo(demo, signal, place.path());
    }
}

#[test]
fn the_demo_says_at_once_that_its_address_is_taken() {
    let place = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = command(place.path(), &["demo", "--listen", &address]).env("TMPDIR", place.path()).output().unwrap();
    let said = fails(&output);
    assert!(said.contains(&address) && said.contains("--listen"), "{said}");
    assert_eq!(count_in(place.path()), 0);
}

#[test]
fn a_repair_wants_to_be_alone_and_says_what_it_did() {
    let directory = tempfile::tempdir().unwrap();
    run(directory.path(), &["user", "add", "a@example.org"]);
    let lock = tallybox::store::DirectoryLock::try_take(directory.path()).unwrap().unwrap();
    let refusal = fails(&run_with(directory.path(), &["check", "--repair"], ""));
    assert!(refusal.contains("stop it first"), "{refusal}");
    drop(lock);
    let said = run(directory.path(), &["check", "--repair"]);
    assert!(said.starts_with("repaired: 0 vectors") && said.contains("ok: "), "{said}");
}

#[test]
#[expect(clippy::disallowed_methods, reason = "as a newer program would")]
fn a_database_of_a_newer_program_is_refused_and_stays_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let there = directory.path();
    run(there, &["user", "add", "a@example.org"]);
    let newer = rusqlite::Connection::open(there.join("tallybox.db")).unwrap();
    let ours: i64 = newer.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    newer.pragma_update(None, "user_version", ours + 1).unwrap();
    newer.close().unwrap();
    let files = || {
        let read = |entry: std::io::Result<std::fs::DirEntry>| {
            let path = entry.unwrap().path();
            (path.clone(), std::fs::read(path).unwrap())
        };
        let mut files: Vec<_> = std::fs::read_dir(there).unwrap().map(read).collect();
        files.retain(|(path, _)| !path.ends_with("tallybox.lock"));
        files.sort();
        files
    };
    let (before, elsewhere) = (files(), tempfile::tempdir().unwrap());
    let copy = elsewhere.path().join("copy.db");
    for arguments in [&ANY_PORT[..], &["check"], &["user", "list"], &["backup", copy.to_str().unwrap()]] {
        let output = run_with(there, arguments, "");
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        let said = fails(&output);
        let why = format!("has schema version {}, which is newer", ours + 1);
        assert!(said.contains(&why) && said.contains("start the newer tallybox"), "{arguments:?}: {said}");
        assert!(files() == before, "{arguments:?} has changed something");
    }
    assert!(!copy.exists());
}
