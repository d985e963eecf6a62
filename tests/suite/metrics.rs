//! What `/metrics` tells, and whom.

use tallybox::domain::auth::Scope;

use super::support::TestApp;

/// The value of a series, as it is written in the text.
#[track_caller]
fn value(text: &str, series: &str) -> f64 {
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
