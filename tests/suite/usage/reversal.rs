//! Taking entries back.

use serde_json::{Value, json};

use crate::suite::calls::{faults_of, id_of, tokens};
use crate::suite::support::{Reply, TestApp, TestUser};

const MISSING: &str = "00000000-0000-7000-8000-000000000000";

fn reversal(of: &str, amount: i64) -> Value {
    json!({"resourceType": "llm_tokens", "amount": amount, "reverses": of})
}

/// What an admin with act-as records for `user`.
async fn acting(app: &TestApp, admin: &TestUser, user: &TestUser, body: Value) -> Reply {
    app.tell_with(&admin.token, "/usage/record", body, &[("X-User-Id", &user.id)]).await
}

#[tokio::test]
async fn nobody_refunds_themselves_and_nothing_is_looked_up_before_that_is_said() {
    let app = TestApp::with_config("[auth]\nidentity_proxies = [\"10.0.0.9\"]");
    let user = app.user("a@example.org", "free_trial").await;
    let entry = app.used_up(&user, 100).await;
    for named in [entry.as_str(), MISSING] {
        let refused = app.tell(&user.token, "/usage/record", reversal(named, -1)).await.expect(403);
        assert_eq!(refused.code(), "reversal_forbidden");
        let batch = json!({"entries": [tokens(1), reversal(named, -1)]});
        app.tell(&user.token, "/usage/record/batch", batch).await.expect(403);
        // An identity proxy is no act-as.
        let headers = [("X-User-Id", user.id.as_str())];
        let request =
            crate::suite::support::request("POST", "/usage/record", None, Some(reversal(named, -1)), &headers);
        app.call_from("10.0.0.9", request).await.expect(403);
    }
    let admin = app.admin("admin@example.org").await;
    let session = app.log_in("admin@example.org").await;
    let own = app.used_up(&admin, 10).await;
    app.tell(&session, "/usage/record", reversal(&own, -1)).await.expect(403);
    let plain = app.token("admin@example.org", &[tallybox::domain::auth::Scope::UsageWrite]).await;
    app.tell(&plain, "/usage/record", reversal(&own, -1)).await.expect(403);
    app.tell(&admin.token, "/usage/record", reversal(&own, -1)).await.expect(201);
    assert_eq!(app.tokens(&user).await, (100, 0));
    app.proves();
}

#[tokio::test]
async fn all_reversals_together_never_exceed_their_entry() {
    let app = TestApp::new();
    let user = app.user("a@example.org", "free_trial").await;
    let admin = app.admin("admin@example.org").await;
    let entry = app.used_up(&user, 100).await;
    app.used_up(&user, 500).await;
    let reply = acting(&app, &admin, &user, reversal(&entry, -60)).await.expect(201);
    assert_eq!((&reply.json["amount"], &reply.json["quota"]["used"]), (&json!(-60), &json!(540)));
    let too_much = acting(&app, &admin, &user, reversal(&entry, -41)).await.expect(422);
    assert_eq!(faults_of(&too_much), ["reverses"]);
    let batch = json!({"entries": [reversal(&entry, -20), reversal(&entry, -21)]});
    let headers = [("X-User-Id", user.id.as_str())];
    let refused = app.tell_with(&admin.token, "/usage/record/batch", batch, &headers).await.expect(422);
    assert_eq!(faults_of(&refused), ["entries[1].reverses"]);
    assert_eq!(app.tokens(&user).await, (540, 0));
    acting(&app, &admin, &user, reversal(&entry, -40)).await.expect(201);
    acting(&app, &admin, &user, reversal(&entry, -1)).await.expect(422);
    assert_eq!(app.tokens(&user).await, (500, 0));
    let entries = app.ask(&user.token, "/usage/ledger").await.json["entries"].clone();
    assert_eq!((&entries[0]["amount"], &entries[0]["reverses"]), (&json!(-40), &json!(entry)));
    app.proves();
}

#[tokio::test]
async fn a_reversal_names_a_positive_entry_of_the_same_user_and_resource() {
    let app = TestApp::new();
    let user = app.user("a@example.org", "free_trial").await;
    let other = app.user("b@example.org", "free_trial").await;
    let admin = app.admin("admin@example.org").await;
    let entry = app.used_up(&user, 100).await;
    let theirs = app.used_up(&other, 100).await;
    let minutes = json!({"resourceType": "agent_minutes", "amount": 5});
    let minutes = id_of(&app.tell(&user.token, "/usage/record", minutes).await.expect(201));
    let back = id_of(&acting(&app, &admin, &user, reversal(&entry, -10)).await.expect(201));
    for named in [theirs.as_str(), minutes.as_str(), back.as_str(), MISSING] {
        let reply = acting(&app, &admin, &user, reversal(named, -1)).await.expect(422);
        assert_eq!(faults_of(&reply), ["reverses"], "{named}");
    }
    for (body, field) in [
        (json!({"resourceType": "llm_tokens", "amount": -1}), "amount"),
        (reversal(&entry, 0), "amount"),
        (reversal(&entry, 1), "amount"),
        (reversal(&entry, -9_007_199_254_740_992), "amount"),
        (json!({"resourceType": "memory_storage", "amount": -1, "reverses": entry}), "resourceType"),
        (json!({"resourceType": "llm_tokens", "amount": -1, "reverses": "x"}), "reverses"),
    ] {
        let reply = acting(&app, &admin, &user, body.clone()).await.expect(422);
        assert!(faults_of(&reply).contains(&field.to_owned()), "{body}: {}", reply.text);
    }
    assert_eq!((app.tokens(&user).await, app.tokens(&other).await), ((90, 0), (100, 0)));
    app.proves();
}

#[tokio::test]
async fn a_refund_for_yesterday_buys_nothing_today() {
    let app = TestApp::new();
    let user = app.user("a@example.org", "free_trial").await;
    let admin = app.admin("admin@example.org").await;
    let entry = app.used_up(&user, 1_000).await;
    app.turn_to("2026-03-11T08:00:00Z");
    app.used_up(&user, 1_000).await;
    let reply = acting(&app, &admin, &user, reversal(&entry, -300)).await.expect(201);
    assert_eq!(reply.json["timestamp"], "2026-03-10T12:00:00.000Z");
    assert_eq!(reply.json["quota"]["used"], 700);
    app.enforce(&user, 1).await.expect(429);
    let yesterday =
        json!({"resourceType": "llm_tokens", "amount": 300, "enforce": true, "timestamp": "2026-03-10T23:00:00Z"});
    app.tell(&user.token, "/usage/record", yesterday).await.expect(201);
    let listed = app.ask(&user.token, "/usage/ledger?limit=2").await.json["entries"][1].clone();
    assert_eq!((&listed["amount"], &listed["recordedAt"]), (&json!(-300), &json!("2026-03-11T08:00:00.000Z")));
    // However old the entry, as long as its day was not closed.
    app.turn_to("2026-06-11T08:00:00Z");
    acting(&app, &admin, &user, reversal(&entry, -700)).await.expect(201);
    let series = app.ask(&user.token, "/usage/timeseries/llm_tokens?days=94").await.json;
    assert_eq!(series[0], json!({"date": "2026-03-10", "amount": 300}));
    app.proves();
}

#[tokio::test]
async fn a_settlement_is_taken_back_in_the_window_of_its_hold() {
    let app = TestApp::new();
    let user = app.user("a@example.org", "free_trial").await;
    let admin = app.admin("admin@example.org").await;
    app.turn_to("2026-03-10T23:59:00Z");
    let hold = app.hold(&user, 400).await;
    app.turn_to("2026-03-11T00:01:00Z");
    let entry = id_of(&app.settle(&user, &hold, 400).await.expect(200));
    let reply = acting(&app, &admin, &user, reversal(&entry, -400)).await.expect(201);
    assert_eq!(reply.json["quota"]["used"], 0);
    assert_eq!(reply.json["timestamp"], "2026-03-11T00:01:00.000Z");
    let series = app.ask(&user.token, "/usage/timeseries/llm_tokens?days=2").await.json;
    assert_eq!(series, json!([{"date": "2026-03-10", "amount": 0}, {"date": "2026-03-11", "amount": 0}]));
    app.proves();
}
