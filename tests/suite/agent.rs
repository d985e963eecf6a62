//! Agent runs: held ahead, counted as minutes begin, booked by the month.

use serde_json::{Value, json};
use tallybox::domain::unit::Timestamp;
use tallybox::service::auth::account::Changes;

use super::calls::id_of;
use super::support::{TestApp, TestUser};

const SECOND: i64 = 1_000;
const MINUTE: i64 = 60 * SECOND;

async fn start(app: &TestApp, user: &TestUser, body: Value) -> String {
    id_of(&app.tell(&user.token, "/agents/runs", body).await.expect(201))
}

async fn beat(app: &TestApp, user: &TestUser, run: &str, status: u16) -> Value {
    app.tell(&user.token, &format!("/agents/runs/{run}/heartbeat"), json!({})).await.expect(status).json
}

async fn stop(app: &TestApp, user: &TestUser, run: &str) -> Value {
    app.tell(&user.token, &format!("/agents/runs/{run}/stop"), json!({})).await.expect(200).json
}

async fn load(app: &TestApp, user: &TestUser, run: &str) -> Value {
    app.ask(&user.token, &format!("/agents/runs/{run}")).await.expect(200).json
}

/// Used and reserved minutes of this month.
async fn minutes(app: &TestApp, user: &TestUser) -> (i64, i64) {
    let standing = app.ask(&user.token, "/usage/agent-minutes").await.expect(200).json;
    (standing["used"].as_i64().unwrap(), standing["reserved"].as_i64().unwrap())
}

/// Amounts of the entries, newest first.
async fn entries(app: &TestApp, user: &TestUser) -> Vec<i64> {
    let listed = app.ask(&user.token, "/usage/ledger?resourceType=agent_minutes").await.expect(200).json;
    listed["entries"].as_array().unwrap().iter().map(|entry| entry["amount"].as_i64().unwrap()).collect()
}

#[tokio::test]
async fn a_run_holds_ahead_and_books_the_minutes_it_began() {
    let app = TestApp::new();
    let user = app.user("a@example.org", "basic").await;
    let body = json!({"name": "research", "metadata": {"job": 7}});
    let made = app.tell(&user.token, "/api/agents/runs", body).await.expect(201).json;
    assert_eq!((&made["status"], &made["minutes"], &made["tier"]), (&json!("running"), &json!(1), &json!("basic")));
    assert_eq!(made["heldUntil"], json!("2026-03-10T12:03:00.000Z"), "the time-out and a minute");
    assert_eq!(minutes(&app, &user).await, (0, 3));
    let run = made["id"].as_str().unwrap();
    app.clock.advance_millis(100 * SECOND);
    assert_eq!(beat(&app, &user, run, 200).await["heldUntil"], json!("2026-03-10T12:05:00.000Z"));
    assert_eq!(minutes(&app, &user).await, (0, 5));
    app.clock.advance_millis(50 * SECOND);
    let ended = stop(&app, &user, run).await;
    assert_eq!((&ended["minutes"], &ended["endReason"]), (&json!(3), &json!("stopped")), "150 s are 3 minutes begun");
    assert_eq!(stop(&app, &user, run).await, ended, "a run ends once");
    assert_eq!((minutes(&app, &user).await, entries(&app, &user).await), ((3, 0), vec![3]));
    let listed = app.ask(&user.token, "/usage/ledger").await.json["entries"][0]["metadata"].clone();
    assert_eq!(
        (&listed["run"], &listed["name"], &listed["endReason"]),
        (&json!(run), &json!("research"), &json!("stopped"))
    );
    let problem = beat(&app, &user, run, 409).await;
    assert_eq!(problem["code"], json!("run_ended"));
    app.proves();
}

#[tokio::test]
async fn a_silent_run_is_closed_at_its_last_sign_of_life() {
    let app = TestApp::with_config("[agents]\nheartbeat_timeout = '30s'");
    let user = app.user("a@example.org", "basic").await;
    let run = start(&app, &user, json!({})).await;
    for _ in 0..4 {
        app.clock.advance_millis(25 * SECOND);
        beat(&app, &user, &run, 200).await;
    }
    app.clock.advance_millis(30 * SECOND);
    let seen = load(&app, &user, &run).await;
    assert_eq!(
        (&seen["status"], &seen["endReason"]),
        (&json!("ended"), &json!("no_heartbeat")),
        "at the instant itself"
    );
    assert_eq!(seen["endedAt"], json!("2026-03-10T12:01:40.000Z"));
    beat(&app, &user, &run, 409).await;
    app.pass().await;
    assert_eq!((minutes(&app, &user).await, entries(&app, &user).await), ((2, 0), vec![2]));
    assert_eq!(load(&app, &user, &run).await, seen);
    app.proves();
}

#[tokio::test]
async fn a_run_ends_where_no_more_can_be_held() {
    let app =
        TestApp::with_config("[tiers.small]\nllm_tokens_day = 0\nmemory_storage_bytes = 0\nagent_minutes_month = 4");
    let user = app.user("a@example.org", "basic").await;
    // A tier of this file alone, which the helper's own configuration does not know.
    let admin = app.admin("root@example.org").await;
    let session = app.log_in(&admin.email).await;
    let path = format!("/api/admin/users/{}", user.id);
    app.call("PATCH", &path, Some(&session), Some(json!({"tier": "small"}))).await.expect(200);
    let run = start(&app, &user, json!({})).await;
    app.clock.advance_millis(MINUTE);
    assert_eq!(beat(&app, &user, &run, 200).await["heldUntil"], json!("2026-03-10T12:04:00.000Z"));
    app.clock.advance_millis(MINUTE);
    let problem = beat(&app, &user, &run, 429).await;
    assert_eq!((&problem["code"], &problem["limit"]), (&json!("quota_exceeded"), &json!(4)));
    assert_eq!(problem["retryAfter"], Value::Null, "the run is over before anything is free again");
    app.tell(&user.token, "/agents/runs", json!({})).await.expect(429);
    app.clock.advance_millis(MINUTE);
    assert_eq!(beat(&app, &user, &run, 429).await["resource"], json!("agent_minutes"));
    assert_eq!(load(&app, &user, &run).await["status"], json!("running"));
    app.clock.advance_millis(MINUTE);
    // From this instant on, booked or not.
    assert_eq!(minutes(&app, &user).await, (4, 0));
    assert_eq!(app.ask(&user.token, "/usage/reservations").await.json["reservations"], json!([]));
    beat(&app, &user, &run, 409).await;
    let ended = load(&app, &user, &run).await;
    assert_eq!((&ended["endReason"], &ended["minutes"]), (&json!("quota_exceeded"), &json!(4)));
    app.pass().await;
    assert_eq!(minutes(&app, &user).await, (4, 0));
    app.proves();
}

#[tokio::test]
async fn a_bounded_run_ends_at_its_bound_without_a_refusal() {
    let app = TestApp::new();
    let user = app.user("a@example.org", "pro").await;
    let run = start(&app, &user, json!({"maxMinutes": 2})).await;
    assert_eq!(minutes(&app, &user).await, (0, 2));
    app.clock.advance_millis(MINUTE);
    beat(&app, &user, &run, 200).await;
    app.clock.advance_millis(MINUTE);
    assert_eq!(load(&app, &user, &run).await["endReason"], json!("max_minutes"));
    assert_eq!(stop(&app, &user, &run).await["minutes"], json!(2));
    assert_eq!(minutes(&app, &user).await, (2, 0));
}

#[tokio::test]
async fn a_tier_without_minutes_begins_no_run() {
    let app = TestApp::new();
    let user = app.user("a@example.org", "free_trial").await;
    let refused = app.tell(&user.token, "/agents/runs", json!({})).await.expect(429);
    assert_eq!(refused.header("retry-after"), "", "waiting does not help");
    assert_eq!(app.ask(&user.token, "/agents/runs").await.json["runs"], json!([]));
}

#[tokio::test]
async fn a_minute_belongs_to_the_month_it_begins_in() {
    let app = TestApp::new();
    let user = app.user("a@example.org", "basic").await;
    // 23:58:30 on the last day of March.
    app.clock.turn_to(Timestamp(1_775_001_510_000));
    let run = start(&app, &user, json!({})).await;
    assert_eq!(minutes(&app, &user).await, (0, 2), "23:58:30 and 23:59:30; the third begins in April");
    app.clock.advance_millis(100 * SECOND);
    beat(&app, &user, &run, 200).await;
    assert_eq!(entries(&app, &user).await, [2], "March is booked once April has come");
    app.clock.advance_millis(30 * SECOND);
    let ended = stop(&app, &user, &run).await;
    assert_eq!((&ended["minutes"], &ended["endedAt"]), (&json!(3), &json!("2026-04-01T00:00:40.000Z")));
    assert_eq!((minutes(&app, &user).await, entries(&app, &user).await), ((1, 0), vec![1, 2]));
    let days = app.ask(&user.token, "/usage/timeseries/agent_minutes?days=2").await.expect(200).json;
    let amounts: Vec<&Value> = days.as_array().unwrap().iter().map(|day| &day["amount"]).collect();
    assert_eq!(amounts, [&json!(2), &json!(1)]);
    app.proves();
}

#[tokio::test]
async fn what_a_run_that_is_over_held_refuses_nobody() {
    let app = TestApp::new();
    let user = app.user("a@example.org", "basic").await;
    start(&app, &user, json!({})).await;
    app.clock.advance_millis(3 * MINUTE);
    // 1 minute was used; 59 are left, though the worker has not been by.
    let record = |amount: i64| json!({"resourceType": "agent_minutes", "amount": amount, "enforce": true});
    app.tell(&user.token, "/usage/record", record(60)).await.expect(429);
    app.tell(&user.token, "/usage/record", record(59)).await.expect(201);
    app.proves();
}

#[tokio::test]
async fn a_disabled_users_runs_are_stopped() {
    let app = TestApp::new();
    let user = app.user("a@example.org", "basic").await;
    let run = start(&app, &user, json!({})).await;
    app.clock.advance_millis(70 * SECOND);
    for disabled in [true, false] {
        app.change("a@example.org", Changes { disabled: Some(disabled), ..Changes::default() }).await;
    }
    assert_eq!(minutes(&app, &user).await, (2, 0));
    app.pass().await;
    let ended = load(&app, &user, &run).await;
    assert_eq!((&ended["endReason"], &ended["minutes"]), (&json!("user_disabled"), &json!(2)));
    assert_eq!(minutes(&app, &user).await, (2, 0));
    app.proves();
}

#[tokio::test]
async fn a_run_keeps_its_tier_and_an_erasure_leaves_nothing_of_it() {
    let app = TestApp::new();
    let user = app.user("a@example.org", "pro").await;
    let admin = app.admin("root@example.org").await;
    let session = app.log_in(&admin.email).await;
    let run = start(&app, &user, json!({"name": "kept"})).await;
    app.change("a@example.org", Changes { tier: Some("free_trial".to_owned()), ..Changes::default() }).await;
    app.clock.advance_millis(MINUTE);
    assert_eq!(beat(&app, &user, &run, 200).await["tier"], json!("pro"));
    app.tell(&user.token, "/agents/runs", json!({})).await.expect(429);
    let path = format!("/api/admin/users/{}?erase=true", user.id);
    app.call("DELETE", &path, Some(&session), None).await.expect(200);
    app.pass().await;
    app.proves();
}

#[tokio::test]
async fn holds_of_runs_are_theirs_alone_and_runs_their_users() {
    let app = TestApp::new();
    let user = app.user("a@example.org", "basic").await;
    let other = app.user("b@example.org", "basic").await;
    let run = start(&app, &user, json!({})).await;
    let hold = app.ask(&user.token, "/usage/reservations").await.json["reservations"][0].clone();
    assert_eq!((&hold["kind"], &hold["expiresAt"]), (&json!("agent"), &Value::Null));
    let id = hold["id"].as_str().unwrap();
    assert_eq!(app.settle(&user, id, 1).await.expect(409).code(), "not_the_maker");
    app.release(&user, id).await.expect(409);
    for act in ["heartbeat", "stop"] {
        app.tell(&other.token, &format!("/agents/runs/{run}/{act}"), json!({})).await.expect(404);
    }
    app.ask(&other.token, &format!("/agents/runs/{run}")).await.expect(404);
    assert_eq!(app.ask(&other.token, "/agents/runs").await.json["runs"], json!([]));
}

#[tokio::test]
async fn a_repeated_start_begins_one_run() {
    let app = TestApp::new();
    let user = app.user("a@example.org", "basic").await;
    let key = [("idempotency-key", "once")];
    let first = app.tell_with(&user.token, "/agents/runs", json!({"name": "x"}), &key).await.expect(201);
    let again = app.tell_with(&user.token, "/api/agents/runs", json!({"name": "x"}), &key).await.expect(201);
    assert_eq!((again.header("idempotent-replayed"), &again.json), ("true", &first.json));
    assert_eq!(minutes(&app, &user).await, (0, 3));
    app.tell_with(&user.token, "/agents/runs", json!({"name": "y"}), &key).await.expect(422);
}
