//! Windows: midnight, the ends of months, daylight saving, and facts of another day.

use serde_json::json;
use tallybox::app::App;
use tallybox::config::{Config, Environment};

use crate::suite::calls::{faults_of, tokens};
use crate::suite::support::{TestApp, TestUser};

async fn resets_at(app: &TestApp, user: &TestUser, path: &str) -> String {
    app.ask(&user.token, path).await.expect(200).json["resetsAt"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_day_ends_at_midnight_to_the_millisecond() {
    let app = TestApp::new();
    let user = app.user("a@example.org", "free_trial").await;
    app.turn_to("2026-03-10T23:59:59.999Z");
    app.enforce(&user, 1_000).await.expect(201);
    app.enforce(&user, 1).await.expect(429);
    app.turn_to("2026-03-11T00:00:00Z");
    assert_eq!(app.tokens(&user).await, (0, 0));
    app.enforce(&user, 1_000).await.expect(201);
    app.enforce(&user, 1).await.expect(429);
    app.proves();
}

#[tokio::test]
async fn minutes_count_by_the_month_also_in_february() {
    let app = TestApp::new();
    let user = app.user("a@example.org", "basic").await;
    let minutes = |amount: i64| json!({"resourceType": "agent_minutes", "amount": amount, "enforce": true});
    app.turn_to("2028-02-01T00:00:00Z");
    app.tell(&user.token, "/usage/record", minutes(20)).await.expect(201);
    app.turn_to("2028-02-29T23:59:59.999Z");
    app.tell(&user.token, "/usage/record", minutes(40)).await.expect(201);
    let refused = app.tell(&user.token, "/usage/record", minutes(1)).await.expect(429);
    assert_eq!((refused.header("retry-after"), &refused.json["resetsAt"]), ("1", &json!("2028-03-01T00:00:00.000Z")));
    app.turn_to("2028-03-01T00:00:00Z");
    app.tell(&user.token, "/usage/record", minutes(60)).await.expect(201);
    assert_eq!(resets_at(&app, &user, "/usage/agent-minutes").await, "2028-04-01T00:00:00.000Z");
    app.turn_to("2028-12-31T23:00:00Z");
    assert_eq!(resets_at(&app, &user, "/usage/agent-minutes").await, "2029-01-01T00:00:00.000Z");
    app.proves();
}

#[tokio::test]
async fn a_day_of_daylight_saving_in_berlin_is_23_or_25_hours() {
    let app = TestApp::with_config("[quota]\ntimezone = \"Europe/Berlin\"");
    let user = app.user("a@example.org", "free_trial").await;
    for (first, last, next) in [
        // Summer begins: 23 hours.
        ("2026-03-28T23:00:00Z", "2026-03-29T21:59:59.999Z", "2026-03-29T22:00:00.000Z"),
        ("2026-03-29T22:00:00Z", "2026-03-30T21:59:59.999Z", "2026-03-30T22:00:00.000Z"),
        // It ends: 25 hours.
        ("2026-10-24T22:00:00Z", "2026-10-25T22:59:59.999Z", "2026-10-25T23:00:00.000Z"),
    ] {
        app.turn_to(first);
        assert_eq!(app.tokens(&user).await, (0, 0), "{first} begins a day");
        app.enforce(&user, 1_000).await.expect(201);
        app.turn_to(last);
        assert_eq!(resets_at(&app, &user, "/usage/tokens").await, next);
        assert_eq!(app.enforce(&user, 1).await.expect(429).header("retry-after"), "1");
        app.turn_to(next);
        assert_eq!(app.tokens(&user).await, (0, 0), "{next} begins a day");
    }
    app.turn_to("2026-10-24T22:00:00Z");
    let refused = app.enforce(&user, 1).await.expect(429);
    assert_eq!(refused.header("retry-after"), (25 * 3_600).to_string());
    let series = app.ask(&user.token, "/usage/timeseries/llm_tokens?days=2").await.json;
    assert_eq!(series, json!([{"date": "2026-10-24", "amount": 0}, {"date": "2026-10-25", "amount": 1_000}]));
    app.proves();
}

#[tokio::test]
async fn a_month_of_berlin_ends_at_its_own_midnight() {
    let app = TestApp::with_config("[quota]\ntimezone = \"Europe/Berlin\"");
    let user = app.user("a@example.org", "basic").await;
    app.turn_to("2026-03-31T21:59:59.999Z");
    assert_eq!(resets_at(&app, &user, "/usage/agent-minutes").await, "2026-03-31T22:00:00.000Z");
    let minutes = json!({"resourceType": "agent_minutes", "amount": 60, "enforce": true});
    app.tell(&user.token, "/usage/record", minutes.clone()).await.expect(201);
    app.tell(&user.token, "/usage/record", minutes.clone()).await.expect(429);
    app.turn_to("2026-03-31T22:00:00Z");
    app.tell(&user.token, "/usage/record", minutes).await.expect(201);
    assert_eq!(resets_at(&app, &user, "/usage/agent-minutes").await, "2026-04-30T22:00:00.000Z");
}

#[tokio::test]
async fn a_backdated_record_counts_and_is_decided_in_its_own_window() {
    let app = TestApp::new();
    let user = app.user("a@example.org", "free_trial").await;
    app.used_up(&user, 1_000).await;
    let at = |timestamp: &str, amount: i64| json!({"resourceType": "llm_tokens", "amount": amount, "timestamp": timestamp, "enforce": true});
    let reply = app.tell(&user.token, "/usage/record", at("2026-03-09T23:59:59.999Z", 900)).await.expect(201);
    assert_eq!(reply.json["quota"], json!({"used": 900, "limit": 1_000, "percentage": 90.0}));
    assert_eq!(reply.json["timestamp"], "2026-03-09T23:59:59.999Z");
    let refused = app.tell(&user.token, "/usage/record", at("2026-03-09T00:00:00Z", 101)).await.expect(429);
    assert_eq!((&refused.json["used"], refused.header("retry-after")), (&json!(900), ""));
    app.tell(&user.token, "/usage/record", at("2026-03-09T00:00:00Z", 100)).await.expect(201);
    app.tell(&user.token, "/usage/record", at("2026-03-10T00:00:00Z", 1)).await.expect(429);
    // Another offset is the same instant.
    app.tell(&user.token, "/usage/record", at("2026-03-09T01:00:00+02:00", 1_000)).await.expect(201);
    let series = app.ask(&user.token, "/usage/timeseries/llm_tokens?days=3").await.json;
    let amounts: Vec<i64> = series.as_array().unwrap().iter().map(|day| day["amount"].as_i64().unwrap()).collect();
    assert_eq!(amounts, [1_000, 1_000, 1_000]);
    app.proves();
}

#[tokio::test]
async fn a_record_ahead_of_midnight_counts_tomorrow() {
    let app = TestApp::new();
    let user = app.user("a@example.org", "free_trial").await;
    app.turn_to("2026-03-10T23:58:00Z");
    app.used_up(&user, 1_000).await;
    let ahead =
        json!({"resourceType": "llm_tokens", "amount": 600, "timestamp": "2026-03-11T00:03:00Z", "enforce": true});
    app.tell(&user.token, "/usage/record", ahead.clone()).await.expect(201);
    let refused = app.tell(&user.token, "/usage/record", ahead).await.expect(429);
    assert_eq!((&refused.json["used"], &refused.json["resetsAt"]), (&json!(600), &json!("2026-03-12T00:00:00.000Z")));
    app.turn_to("2026-03-11T00:00:00Z");
    assert_eq!(app.tokens(&user).await, (600, 0));
    app.proves();
}

#[tokio::test]
async fn a_timestamp_lies_at_most_35_days_back_and_5_minutes_ahead() {
    let app = TestApp::new();
    let user = app.user("a@example.org", "pro").await;
    let at = |timestamp: &str| json!({"resourceType": "llm_tokens", "amount": 1, "timestamp": timestamp});
    for fits in ["2026-02-03T12:00:00Z", "2026-03-10T12:05:00Z", "2026-03-10T12:00:00.000000001Z"] {
        app.tell(&user.token, "/usage/record", at(fits)).await.expect(201);
    }
    for wrong in [
        "2026-02-03T11:59:59.999Z",
        "2026-03-10T12:05:00.001Z",
        "1970-01-01T00:00:00Z",
        "9999-12-31T23:59:59Z",
        "2026-03-10",
        "2026-03-10T12:00:00",
        "yesterday",
        "",
        "2026-02-30T00:00:00Z",
        "2026-03-10T24:00:00Z",
    ] {
        let reply = app.tell(&user.token, "/usage/record", at(wrong)).await.expect(422);
        assert_eq!(faults_of(&reply), ["timestamp"], "{wrong}");
    }
    let number = json!({"resourceType": "llm_tokens", "amount": 1, "timestamp": 1_773_144_000});
    assert_eq!(faults_of(&app.tell(&user.token, "/usage/record", number).await.expect(422)), ["timestamp"]);
    app.proves();
}

#[tokio::test]
async fn a_new_tier_holds_from_the_next_request_and_what_is_used_or_held_stays() {
    let app = TestApp::new();
    let user = app.user("a@example.org", "basic").await;
    let admin = app.admin("admin@example.org").await;
    app.used_up(&user, 900).await;
    app.hold(&user, 5_000).await;
    let path = format!("/api/admin/users/{}", user.id);
    app.call("PATCH", &path, Some(&admin.token), Some(json!({"tier": "free_trial"}))).await.expect(200);
    let standing = app.ask(&user.token, "/usage/tokens").await.json;
    assert_eq!(
        (&standing["limit"], &standing["used"], &standing["reserved"]),
        (&json!(1_000), &json!(900), &json!(5_000))
    );
    let refused = app.enforce(&user, 1).await.expect(429);
    assert_eq!((&refused.json["limit"], &refused.json["reserved"]), (&json!(1_000), &json!(5_000)));
    app.call("PATCH", &path, Some(&admin.token), Some(json!({"tier": "pro"}))).await.expect(200);
    app.enforce(&user, 100_000).await.expect(201);
    app.tell(&user.token, "/usage/record", tokens(1)).await.expect(201);
    assert_eq!(app.tokens(&user).await, (100_901, 5_000));
    app.proves();
}

#[tokio::test]
async fn a_midnight_that_a_zone_skips_still_ends_the_day() {
    // In Cairo clocks go from 00:00 to 01:00 as the 24th of April begins.
    let app = TestApp::with_config("[quota]\ntimezone = \"Africa/Cairo\"");
    let user = app.user("a@example.org", "free_trial").await;
    app.turn_to("2026-04-23T21:59:59.999Z");
    assert_eq!(resets_at(&app, &user, "/usage/tokens").await, "2026-04-23T22:00:00.000Z");
    app.enforce(&user, 1_000).await.expect(201);
    app.turn_to("2026-04-23T22:00:00Z");
    assert_eq!(resets_at(&app, &user, "/usage/tokens").await, "2026-04-24T21:00:00.000Z");
    app.enforce(&user, 1_000).await.expect(201);
    app.proves();
}

#[tokio::test]
async fn a_new_time_zone_holds_for_later_writes_only() {
    let zone = |name: &str| format!("[quota]\ntimezone = \"{name}\"");
    let app = TestApp::with_config(&zone("Pacific/Auckland"));
    let user = app.user("a@example.org", "free_trial").await;
    // Noon of the 10th is the 11th in Auckland.
    app.used_up(&user, 700).await;
    let hold = app.hold(&user, 200).await;
    assert_eq!(app.tokens(&user).await, (700, 200));
    let TestApp { app: first, clock, directory } = app;
    first.store().close();
    drop(first);
    let config = Config::parse(Some(&zone("UTC")), &Environment::default()).unwrap();
    let app = TestApp { app: App::build(config, directory.path(), clock.clone()).unwrap(), clock, directory };
    assert_eq!(app.tokens(&user).await, (0, 0), "in UTC it is the 10th");
    app.enforce(&user, 1_000).await.expect(201);
    assert_eq!(app.settle(&user, &hold, 150).await.expect(200).json["late"], false);
    assert_eq!(app.tokens(&user).await, (1_000, 0));
    app.turn_to("2026-03-11T00:00:00Z");
    assert_eq!(app.tokens(&user).await, (850, 0), "what was booked stays in its day");
    app.enforce(&user, 151).await.expect(429);
    app.enforce(&user, 150).await.expect(201);
    let listed = app.ask(&user.token, "/usage/ledger?to=2026-03-10T12:00:00.001Z").await.json;
    let amounts: Vec<i64> =
        listed["entries"].as_array().unwrap().iter().map(|entry| entry["amount"].as_i64().unwrap()).collect();
    assert_eq!(amounts, [150, 1_000, 700]);
    app.proves();
}
