//! The demo's data: made by the services that real calls use, and so as true as any.

use std::sync::Arc;

use serde_json::{Value, json};
use tallybox::app::App;
use tallybox::clock::Clock;
use tallybox::config::{Config, Environment};
use tallybox::demo::{ACCOUNTS, Made, beat, fill};
use tallybox::domain::unit::Timestamp;
use tallybox::service::check;

use super::memory::WordModel;
use super::support::{NOON, TestApp};

/// 2026-03-01T00:00:01Z: a day and a month have just begun.
const NEW_MONTH: Timestamp = Timestamp(1_772_323_201_000);

fn demo_at(now: Timestamp) -> (TestApp, Made) {
    let config = Config::parse(None, &Environment::default()).unwrap();
    let directory = tempfile::tempdir().unwrap();
    // On a thread that may wait.
    let fill = || fill(directory.path(), &config, now, &WordModel).unwrap();
    let made = std::thread::scope(|scope| scope.spawn(fill).join()).unwrap();
    let clock = Clock::manual(now);
    let app = App::build_with(config, directory.path(), clock.clone(), Arc::new(WordModel)).unwrap();
    (TestApp { app, clock, directory }, made)
}

/// All entries of a token's user, newest first, without their ids.
async fn entries(app: &TestApp, token: &str) -> Vec<Value> {
    let (mut entries, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = app.ask(token, &format!("/usage/ledger?limit=100{cursor}")).await.json;
        entries.extend(
            page["entries"]
                .as_array()
                .unwrap()
                .iter()
                .map(|entry| json!([entry["resourceType"], entry["amount"], entry["timestamp"], entry["recordedAt"]])),
        );
        match page["nextCursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return entries,
        }
    }
}

#[tokio::test]
async fn the_demo_shows_one_user_close_to_a_limit_and_one_past_it_whatever_the_hour() {
    for now in [NOON, NEW_MONTH] {
        let (app, made) = demo_at(now);
        let [studio, trial, owner] = &made.tokens[..] else { panic!("three tokens") };
        let tokens = app.ask(studio, "/usage/tokens").await.json;
        assert_eq!((&tokens["used"], &tokens["percentage"]), (&json!(42_500), &json!(85.0)), "{tokens}");
        assert_eq!(tokens["reserved"], 2_700);
        let minutes = app.ask(studio, "/usage/agent-minutes").await.json;
        assert!((1..48).contains(&minutes["used"].as_i64().unwrap()), "{minutes}");
        let tokens = app.ask(trial, "/usage/tokens").await.json;
        assert_eq!((&tokens["used"], &tokens["limit"]), (&json!(1_080), &json!(1_000)), "{tokens}");
        assert_eq!(app.ask(owner, "/usage/stats").await.json["warnings"], json!([]));
        assert_eq!(check::run(app.app.store()).unwrap(), []);
        // Nothing of it is overdue: the first pass of the worker finds the same to be true.
        app.pass().await;
        assert_eq!(check::run(app.app.store()).unwrap(), []);
    }
}

#[tokio::test]
async fn the_demo_is_the_same_at_every_start_of_the_same_instant() {
    let (one, made_one) = demo_at(NOON);
    let (two, made_two) = demo_at(NOON);
    assert_eq!(made_one.memories, made_two.memories);
    assert!((250..=350).contains(&made_one.memories), "{}", made_one.memories);
    let mut sum = 0;
    for (token_one, token_two) in made_one.tokens.iter().zip(&made_two.tokens) {
        let (first, second) = (entries(&one, token_one).await, entries(&two, token_two).await);
        assert_eq!(first, second);
        sum += first.len();
        let series = one.ask(token_one, "/usage/timeseries/llm_tokens?days=90").await.json;
        let days = series.as_array().unwrap();
        assert_eq!(days.len(), 90);
        assert!(days.iter().all(|day| day["amount"].as_i64().unwrap() > 0), "{series}");
    }
    assert!(sum > 2_000, "{sum}");
}

#[tokio::test]
async fn everyone_signs_in_to_the_demo_and_the_owner_sees_who_was_refused() {
    let (app, made) = demo_at(NOON);
    let mut sessions = Vec::new();
    for account in ACCOUNTS {
        let body = json!({"email": account.email, "password": account.password});
        let reply = app.call("POST", "/auth/login", None, Some(body)).await.expect(200);
        sessions.push(reply.json["token"].as_str().unwrap().to_owned());
        let me = app.ask(sessions.last().unwrap(), "/auth/me").await.json;
        assert_eq!(me["tier"], account.tier, "{me}");
    }
    let overview = app.ask(&sessions[2], "/api/admin/overview").await.json;
    let refused = overview["recentRefusals"].as_array().unwrap();
    let today = refused.iter().filter(|row| row["hour"].as_str().is_some_and(|hour| hour.starts_with("2026-03-10")));
    assert!(today.count() > 1, "{overview}");
    let held = app.ask(&made.tokens[0], "/usage/reservations").await.json;
    assert_eq!(held["reservations"].as_array().unwrap().len(), 3, "{held}");
}

#[tokio::test]
async fn the_demo_has_runs_that_ended_and_one_that_goes_on() {
    for now in [NOON, NEW_MONTH] {
        let (app, made) = demo_at(now);
        let body = json!({"email": ACCOUNTS[0].email, "password": ACCOUNTS[0].password});
        let session = app.call("POST", "/auth/login", None, Some(body)).await.expect(200);
        let session = format!("tallybox_session={}", session.json["token"].as_str().unwrap());
        for token in [&made.tokens[0], &made.tokens[2]] {
            let runs = app.ask(token, "/agents/runs").await.expect(200).json["runs"].as_array().unwrap().clone();
            let count = |name: &str, value: &str| runs.iter().filter(|run| run[name] == value).count();
            assert_eq!((count("status", "running"), count("endReason", "stopped") + 1), (1, runs.len()), "{runs:?}");
            assert!(runs.len() > 2, "{runs:?}");
        }
        let page = app.call_with("GET", "/usage", None, None, &[("cookie", &session)]).await.expect(200).text;
        assert!(page.contains("Running") && page.contains("report-writer"), "{page}");
        // It gives signs of life, as long as somebody looks.
        app.clock.advance_millis(30_000);
        beat(app.app.store(), &Config::parse(None, &Environment::default()).unwrap(), &made).await.unwrap();
        let runs = app.ask(&made.tokens[0], "/agents/runs").await.json["runs"].as_array().unwrap().clone();
        let running = runs.iter().find(|run| run["status"] == "running").unwrap();
        assert_eq!(running["lastSeenAt"], json!(app.clock.now().to_string()), "{running}");
        // What goes on ends at its bound, by itself.
        app.clock.advance_millis(24 * 60_000);
        app.pass().await;
        let runs = app.ask(&made.tokens[0], "/agents/runs").await.json["runs"].as_array().unwrap().clone();
        let ended = runs.iter().find(|run| run["maxMinutes"] == 24).unwrap();
        assert_eq!((&ended["endReason"], &ended["minutes"]), (&json!("max_minutes"), &json!(24)), "{ended}");
        assert_eq!(check::run(app.app.store()).unwrap(), []);
    }
}
