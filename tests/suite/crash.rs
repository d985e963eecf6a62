//! The real binary, killed at random moments under a mixed load: what it acknowledged is there, exactly once.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tallybox::clock::Clock;

use super::calls::tokens;
use super::support::TestApp;

const ROUNDS: u64 = 6;
const CLIENTS: usize = 8;

fn tallybox(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tallybox"));
    command.env_clear().env("TALLYBOX_DATA_DIR", directory).args(arguments);
    command
}

fn output_of(directory: &Path, arguments: &[&str]) -> String {
    let output = tallybox(directory, arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Starts the server and waits until it answers.
fn serve(directory: &Path, address: SocketAddr) -> Child {
    let mut command = tallybox(directory, &["serve", "--listen", &address.to_string()]);
    // Closes nothing that other tests record, since they record it now.
    command.env("TALLYBOX_LEDGER__KEEP_DAYS", "35");
    let server = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let begun = Instant::now();
    while call(address, "", "GET", "/healthz", None).is_none() {
        assert!(begun.elapsed() < Duration::from_secs(20), "the server does not come up");
        std::thread::sleep(Duration::from_millis(10));
    }
    server
}

/// Status and body of a call on a connection of its own; none where the server went away.
fn call(address: SocketAddr, token: &str, method: &str, path: &str, body: Option<Value>) -> Option<(u16, Value)> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(20))).ok()?;
    let body = body.map(|body| body.to_string()).unwrap_or_default();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: box\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes()).ok()?;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let status = line.split(' ').nth(1)?.parse().ok()?;
    let mut rest = String::new();
    reader.read_to_string(&mut rest).ok()?;
    let text = rest.split_once("\r\n\r\n")?.1;
    Some((status, serde_json::from_str(text).unwrap_or(Value::Null)))
}

/// What was sent and what was acknowledged.
#[derive(Default)]
struct Tally {
    sent: AtomicI64,
    acknowledged: AtomicI64,
}

impl Tally {
    fn send(&self, send: impl FnOnce() -> Option<(u16, Value)>) -> bool {
        self.sent.fetch_add(1, Ordering::SeqCst);
        let Some((status, _)) = send() else { return false };
        assert_eq!(status, 201);
        self.acknowledged.fetch_add(1, Ordering::SeqCst);
        true
    }

    #[track_caller]
    fn holds(&self, found: i64, what: &str, round: u64) {
        let (sent, acknowledged) = (self.sent.load(Ordering::SeqCst), self.acknowledged.load(Ordering::SeqCst));
        assert!(
            (acknowledged..=sent).contains(&found),
            "round {round}: of {what} {acknowledged} were acknowledged, {found} are there, {sent} were sent"
        );
    }
}

#[test]
fn what_was_acknowledged_before_a_kill_is_there_exactly_once() {
    let directory = tempfile::tempdir().unwrap();
    let there = directory.path();
    output_of(there, &["user", "add", "a@example.org", "--tier", "pro"]);
    let token = output_of(there, &["token", "create", "--user", "a@example.org", "--name", "crash"]);
    let vector: Vec<f32> = (0..384_u16).map(|number| f32::from(number).sin()).collect();
    let (records, holds, memories) = (Tally::default(), Tally::default(), Tally::default());
    for round in 0..ROUNDS {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut server = serve(there, address);
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for client in 0..CLIENTS {
                let (stop, token, vector) = (&stop, &token, &vector);
                let (records, holds, memories) = (&records, &holds, &memories);
                scope.spawn(move || {
                    while !stop.load(Ordering::SeqCst) {
                        let post = |path, body| call(address, token, "POST", path, Some(body));
                        let amount = json!({"resourceType": "llm_tokens", "amount": 1});
                        let alive = match client % 4 {
                            0 => memories.send(|| {
                                let text = format!("what was said in round {round}");
                                post("/memory/store", json!({"type": "t", "input_context": text, "embedding": vector}))
                            }),
                            1 => holds.send(|| {
                                let hold = json!({"resourceType": "agent_minutes", "amount": 1, "ttlSeconds": 86_400});
                                post("/usage/reservations", hold)
                            }),
                            _ => records.send(|| post("/usage/record", amount)),
                        };
                        if !alive {
                            break;
                        }
                    }
                });
            }
            // Not the same moment of a commit in any two rounds.
            std::thread::sleep(Duration::from_millis(150 + 97 * round % 400));
            server.kill().unwrap();
            stop.store(true, Ordering::SeqCst);
        });
        server.wait().unwrap();
        let mut server = serve(there, address);
        let get = |path: &str| call(address, &token, "GET", path, None).unwrap().1;
        records.holds(get("/usage/tokens")["used"].as_i64().unwrap(), "records", round);
        holds.holds(get("/usage/agent-minutes")["reserved"].as_i64().unwrap(), "holds", round);
        memories.holds(get("/memory/usage")["memory_counts"]["total"].as_i64().unwrap(), "memories", round);
        assert!(output_of(there, &["check"]).starts_with("ok"));
        server.kill().unwrap();
        server.wait().unwrap();
    }
    for (tally, what) in [(&records, "records"), (&holds, "holds"), (&memories, "memories")] {
        assert!(tally.acknowledged.load(Ordering::SeqCst) > 0, "no {what} were acknowledged at all");
    }
}

/// How many entries are as they were recorded, and the sum of all: read beside the server.
#[expect(clippy::disallowed_methods, reason = "past the program")]
fn ledger_of(directory: &Path) -> (i64, i64) {
    let connection = rusqlite::Connection::open(directory.join("tallybox.db")).unwrap();
    let sql = "SELECT count(*) FILTER (WHERE source <> 4), sum(amount) FROM ledger";
    connection.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap()
}

#[tokio::test]
async fn a_kill_while_days_are_closed_loses_nothing_and_the_next_start_goes_on() {
    const ENTRIES: i64 = 60_000;
    let app = TestApp::new();
    app.clock.turn_to(Clock::system().now().plus_millis(-60 * 86_400_000));
    let user = app.user("a@example.org", "pro").await;
    for _ in 0..ENTRIES / 1_000 {
        let entries = json!({"entries": vec![tokens(1); 1_000]});
        app.tell(&user.token, "/usage/record/batch", entries).await.expect(201);
        app.clock.advance_millis(3_600_000);
    }
    let directory = app.stop();
    let there = directory.path();
    let mut left = ENTRIES;
    for _ in 0..3 {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut server = serve(there, address);
        let begun = Instant::now();
        while ledger_of(there).0 == left && left > 0 {
            assert!(begun.elapsed() < Duration::from_mins(1), "no day is closed");
            std::thread::sleep(Duration::from_millis(2));
        }
        server.kill().unwrap();
        server.wait().unwrap();
        let (found, sum) = ledger_of(there);
        assert!(found < left || left == 0, "{found} of {left}");
        assert_eq!(sum, ENTRIES);
        left = found;
        output_of(there, &["check"]);
    }
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut server = serve(there, address);
    let begun = Instant::now();
    while ledger_of(there).0 > 0 {
        assert!(begun.elapsed() < Duration::from_mins(2), "days are left open");
        std::thread::sleep(Duration::from_millis(20));
    }
    server.kill().unwrap();
    server.wait().unwrap();
    assert_eq!(ledger_of(there), (0, ENTRIES));
    output_of(there, &["check"]);
}
