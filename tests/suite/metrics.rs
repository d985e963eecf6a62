//! What `/metrics` tells, and whom.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::json;
use tallybox::adapter::embedder::{EmbedError, Embedder};
use tallybox::domain::auth::Scope;
use tallybox::domain::memory::Embedding;
use tallybox::store::backup::back_up;
use tokio::task::JoinSet;

use super::gateway::fake::{Act, Fake, answer};
use super::memory::{WordModel, app_of, app_with};
use super::support::{TestApp, not_tested};

/// The value of a series, as it is written in the text.
#[track_caller]
pub(super) fn value(text: &str, series: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| unreachable!("no {series} in {text}")).parse().unwrap()
}

#[tokio::test]
async fn a_token_with_the_scope_reads_what_happened() {
    let app = TestApp::new();
    let user = app.user("a@example.org", "free_trial").await;
    app.call("GET", "/metrics", None, None).await.expect(401);
    app.call("GET", "/metrics", Some(&user.token), None).await.expect(403);
    let token = app.token("a@example.org", &[Scope::Metrics]).await;
    let read = async || {
        let reply = app.call("GET", "/metrics", Some(&token), None).await.expect(200);
        assert!(reply.header("content-type").starts_with("text/plain; version=0.0.4"));
        reply.text
    };
    let before = read().await;
    app.used_up(&user, 10).await;
    app.used_up(&user, 10).await;
    let hold = app.hold(&user, 5).await;
    app.enforce(&user, 5_000).await.expect(429);
    app.ask(&user.token, "/usage/reservations/none-of-ours").await.expect(405);
    app.ask(&user.token, "/nowhere/at/all").await.expect(404);
    let after = read().await;
    let grown = |series: &str| value(&after, series) - value(&before, series);
    let close = |left: f64, right: f64| (left - right).abs() < 1e-9;
    assert!(close(grown("tallybox_ledger_entries_total{resource=\"llm_tokens\"}"), 2.0));
    assert!(close(grown("tallybox_quota_refusals_total{resource=\"llm_tokens\"}"), 1.0));
    assert!(close(grown("tallybox_reservations_open"), 1.0));
    assert!(grown("tallybox_commit_seconds_count") >= 3.0);
    assert!(grown("tallybox_write_queue_wait_seconds_count") >= 3.0);
    assert!(grown("tallybox_commit_writes_sum") >= 3.0);
    assert!(close(value(&after, "tallybox_write_queue_depth"), 0.0));
    assert!(value(&after, "tallybox_file_bytes{file=\"database\"}") > 0.0);
    let answered = |status: u16| {
        value(
            &after,
            &format!("tallybox_http_requests_total{{method=\"POST\",route=\"/usage/record\",status=\"{status}\"}}"),
        )
    };
    assert!(close(answered(201), 2.0) && close(answered(429), 1.0));
    // A path that nobody serves is no label of its own.
    assert!(!after.contains("nowhere") && !after.contains("none-of-ours") && after.contains("route=\"none\""));
    app.release(&user, &hold).await.expect(204);
    assert!(close(value(&read().await, "tallybox_reservations_open"), 0.0));
}

#[tokio::test]
async fn what_a_failed_write_booked_is_not_counted() {
    let app = TestApp::new();
    let user = app.user("a@example.org", "free_trial").await;
    let token = app.token("a@example.org", &[Scope::Metrics]).await;
    let body = serde_json::json!({"entries": [
        {"resourceType": "llm_tokens", "amount": 900, "enforce": true},
        {"resourceType": "llm_tokens", "amount": 900, "enforce": true},
    ]});
    app.tell(&user.token, "/usage/record/batch", body).await.expect(429);
    let text = app.ask(&token, "/metrics").await.expect(200).text;
    assert!(value(&text, "tallybox_ledger_entries_total{resource=\"llm_tokens\"}").abs() < 1e-9);
}

#[tokio::test]
async fn the_configuration_says_who_may_read() {
    let open = TestApp::with_config("[metrics]\naccess = \"open\"\n");
    let text = open.call("GET", "/metrics", None, None).await.expect(200).text;
    assert!(text.contains(&format!("tallybox_build_info{{version=\"{}\"}} 1", tallybox::VERSION)));
    for elsewhere in ["access = \"off\"", "listen = \"127.0.0.1:0\""] {
        let app = TestApp::with_config(&format!("[metrics]\n{elsewhere}\n"));
        app.user("a@example.org", "basic").await;
        let token = app.token("a@example.org", &[Scope::Metrics]).await;
        app.call("GET", "/metrics", Some(&token), None).await.expect(404);
    }
}

/// A box that has had traffic of every kind, and what it then tells.
async fn lived_in() -> (TestApp, String) {
    let fake = Fake::start().await;
    let upstream = |name: &str, url: &str, models: &str| {
        format!("[[gateway.upstreams]]\nname = '{name}'\nbase_url = '{url}'\nmodels = ['{models}']\n")
    };
    let nobody = upstream("nobody", "http://127.0.0.1:9/v1", "gone-*");
    let app = app_with(&format!("[metrics]\naccess = 'open'\n{}{nobody}", upstream("first", &fake.url, "gpt-*")));
    let user = app.user("a@example.org", "basic").await;
    app.used_up(&user, 10).await;
    app.hold(&user, 5).await;
    app.enforce(&user, 5_000_000).await.expect(429);
    app.tell(&user.token, "/agents/runs", json!({})).await.expect(201);
    let memory = json!({"type": "note", "input_context": "a ferry"});
    app.tell(&user.token, "/memory/store", memory).await.expect(201);
    app.tell(&user.token, "/memory/search", json!({"query": "which ship?"})).await.expect(200);
    fake.next(Act::Whole(200, answer("Well.", 12, 7).to_string()));
    for (model, status) in [("gpt-4o", 200), ("gone-1", 502)] {
        let call = json!({"model": model, "messages": [{"role": "user", "content": "Well?"}]});
        app.tell(&user.token, "/v1/chat/completions", call).await.expect(status);
    }
    app.ask(&user.token, "/nowhere").await.expect(404);
    // The call is settled once it is answered.
    let begun = Instant::now();
    while app.tokens(&user).await != (10 + 12 + 7, 5) {
        assert!(begun.elapsed() < Duration::from_secs(20), "the call is not settled");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    app.pass().await;
    back_up(app.directory.path(), &app.clock, &app.directory.path().join("copy.db")).unwrap();
    let text = app.call("GET", "/metrics", None, None).await.expect(200).text;
    (app, text)
}

fn is(left: f64, right: f64) -> bool {
    (left - right).abs() < 1e-9
}

#[tokio::test]
async fn times_and_sizes_are_those_of_what_happened() {
    let (app, text) = lived_in().await;
    let value = |series: &str| value(&text, series);
    for (route, count) in
        [("/usage/record", 2.0), ("/memory/search", 1.0), ("/v1/chat/completions", 2.0), ("none", 1.0)]
    {
        let of =
            |part: &str, more: &str| value(&format!("tallybox_http_request_seconds_{part}{{route=\"{route}\"{more}}}"));
        assert!(is(of("count", ""), count) && is(of("bucket", ",le=\"+Inf\""), count), "{route}");
        assert!(of("sum", "") > 0.0 && of("sum", "") < 60.0 * count, "{route}");
    }
    let sum = |name: &str| {
        let lines = text.lines().filter(|line| line.starts_with(name));
        lines.map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()).sum::<f64>()
    };
    assert!(is(sum("tallybox_http_request_seconds_count"), sum("tallybox_http_requests_total")));
    // What was stored and what was searched for.
    assert!(is(value("tallybox_embedding_seconds_count"), 2.0) && value("tallybox_embedding_seconds_sum") > 0.0);
    assert!(is(value("tallybox_embedding_queue_depth"), 0.0));
    let asked = |name: &str, outcome: &str| {
        value(&format!("tallybox_upstream_requests_total{{outcome=\"{outcome}\",upstream=\"{name}\"}}"))
    };
    assert!(is(asked("first", "answered"), 1.0));
    assert!(is(value("tallybox_upstream_request_seconds_count{upstream=\"first\"}"), 1.0));
    assert!(value("tallybox_upstream_request_seconds_sum{upstream=\"first\"}") > 0.0);
    assert!(
        is(sum("tallybox_upstream_requests_total"), 2.0) && is(sum("tallybox_upstream_request_seconds_count"), 1.0)
    );
    assert!(is(value("tallybox_commits_failed_total"), 0.0));
    for (file, name) in [("database", "tallybox.db"), ("log", "tallybox.db-wal")] {
        let bytes = std::fs::metadata(app.directory.path().join(name)).unwrap().len();
        assert!(
            bytes > 0 && value(&format!("tallybox_file_bytes{{file=\"{file}\"}}")).to_string() == bytes.to_string()
        );
    }
}

/// A model that lets a text pass when it is told to.
struct Gate(Mutex<Receiver<()>>);

impl Embedder for Gate {
    fn model(&self) -> &'static str {
        "gate"
    }

    fn windows<'t>(&self, text: &'t str) -> Vec<&'t str> {
        vec![text]
    }

    fn embed(&self, texts: &[&str]) -> Result<Vec<Embedding>, EmbedError> {
        let _ = self.0.lock().unwrap().recv();
        WordModel.embed(texts)
    }
}

#[tokio::test]
async fn texts_that_wait_for_the_model_are_counted() {
    let (pass, gate): (Sender<()>, _) = channel();
    let app = Arc::new(app_of("[metrics]\naccess = 'open'", Arc::new(Gate(Mutex::new(gate)))));
    let user = app.user("a@example.org", "free_trial").await;
    let depth = async || value(&app.call("GET", "/metrics", None, None).await.text, "tallybox_embedding_queue_depth");
    let mut searches = JoinSet::new();
    for number in 0..12 {
        let (app, token) = (Arc::clone(&app), user.token.clone());
        let query = json!({"query": format!("question {number}")});
        searches.spawn(async move { app.tell(&token, "/memory/search", query).await.expect(200) });
    }
    // The model has as many threads as it likes; the others wait.
    while depth().await < 2.0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    drop(pass);
    searches.join_all().await;
    assert!(is(depth().await, 0.0));
}

#[tokio::test]
async fn the_manual_names_every_metric_and_no_other() {
    let (_app, text) = lived_in().await;
    let told: BTreeSet<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let manual = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/OPERATIONS.md")).unwrap();
    let rows = manual.lines().filter(|line| line.starts_with("| `tallybox_"));
    let named: BTreeSet<&str> =
        rows.flat_map(|row| row.split('|').nth(1).unwrap().split('`').skip(1).step_by(2)).collect();
    assert_eq!(told, named);
}

/// Prometheus' own tool: named by PROMTOOL, in the path, or where `make` puts it.
#[expect(clippy::disallowed_methods, reason = "a test's own setting")]
fn promtool() -> Option<Command> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache")));
    let kept = cache.map(|cache| cache.join("tallybox-tests/prometheus/usr/bin/promtool"));
    let places = [variable("PROMTOOL"), Some(PathBuf::from("promtool")), kept];
    let found = places.into_iter().flatten().find(|place| {
        let asked = Command::new(place).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        asked.is_ok_and(|status| status.success())
    });
    found.map(Command::new)
}

#[tokio::test]
async fn promtool_has_nothing_to_say_against_what_is_told() {
    let Some(mut promtool) = promtool() else {
        not_tested(
            "metrics by promtool, which is nowhere: `make needs-promtool` gets it on Debian, PROMTOOL names one",
        );
        return;
    };
    let (_app, text) = lived_in().await;
    let mut lint = promtool.args(["check", "metrics"]);
    lint = lint.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut lint = lint.spawn().unwrap();
    lint.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let said = lint.wait_with_output().unwrap();
    let complaints = [said.stdout, said.stderr].concat();
    assert!(said.status.success() && complaints.is_empty(), "{}", String::from_utf8_lossy(&complaints));
}
