//! The questions: their shapes and values, by both paths.

use serde_json::{Value, json};

use crate::suite::calls::{faults_of, tokens};
use crate::suite::support::{TestApp, TestUser};

async fn both(app: &TestApp, user: &TestUser, path: &str) -> Value {
    let plain = app.ask(&user.token, path).await.expect(200);
    let twin = app.ask(&user.token, &format!("/api{path}")).await.expect(200);
    assert_eq!(plain.json, twin.json);
    assert_eq!(plain.header("content-type"), "application/json");
    plain.json
}

#[tokio::test]
async fn a_new_user_has_used_nothing_of_everything() {
    let app = TestApp::new();
    let user = app.user("a@example.org", "basic").await;
    let stats = both(&app, &user, "/usage/stats").await;
    let row = |resource, human: &str| json!({"resourceType": resource, "amount": 0, "humanReadable": human, "percentage": 0.0});
    let expected = json!({
        "userId": user.id, "period": "last_30_days",
        "breakdown": [row("llm_tokens", "0 tokens"), row("memory_storage", "0 B"), row("agent_minutes", "0 minutes")],
        "limits": {"llmTokensDay": 50_000, "memoryStorageBytes": 10_737_418_240_i64, "agentMinutesMonth": 60},
        "warnings": [], "timestamp": "2026-03-10T12:00:00.000Z",
    });
    assert_eq!(stats, expected);
    assert_eq!(
        both(&app, &user, "/usage/tokens").await,
        json!({"used": 0, "limit": 50_000, "percentage": 0.0, "reserved": 0, "resetsAt": "2026-03-11T00:00:00.000Z"})
    );
    assert_eq!(
        both(&app, &user, "/usage/storage").await,
        json!({"used": 0, "limit": 10_737_418_240_i64, "percentage": 0.0, "reserved": 0, "humanReadable": "0 B"})
    );
    assert_eq!(
        both(&app, &user, "/usage/agent-minutes").await,
        json!({"used": 0, "limit": 60, "percentage": 0.0, "reserved": 0, "resetsAt": "2026-04-01T00:00:00.000Z"})
    );
    assert_eq!(both(&app, &user, "/usage/tier").await, json!({"userId": user.id, "tier": "basic"}));
    assert_eq!(both(&app, &user, "/usage/ledger").await, json!({"entries": [], "nextCursor": null}));
    assert_eq!(both(&app, &user, "/usage/reservations").await, json!({"reservations": [], "nextCursor": null}));
}

#[tokio::test]
async fn stats_sum_the_days_asked_for_and_compare_today_with_its_limit() {
    let app = TestApp::new();
    let user = app.user("a@example.org", "basic").await;
    app.turn_to("2026-03-04T12:00:00Z");
    app.used_up(&user, 30_000).await;
    app.turn_to("2026-03-10T12:00:00Z");
    app.used_up(&user, 45_000).await;
    let stats = app.ask(&user.token, "/usage/stats?days=7").await.expect(200).json;
    assert_eq!(stats["period"], "last_7_days");
    assert_eq!(
        stats["breakdown"][0],
        json!({"resourceType": "llm_tokens", "amount": 75_000, "humanReadable": "75,000 tokens", "percentage": 90.0})
    );
    assert_eq!(stats["warnings"], json!(["llm_tokens at 90.0% of quota"]));
    let stats = app.ask(&user.token, "/usage/stats?days=6").await.expect(200).json;
    assert_eq!((&stats["breakdown"][0]["amount"], &stats["period"]), (&json!(45_000), &json!("last_6_days")));
    let stats = app.ask(&user.token, "/usage/stats?days=366").await.expect(200).json;
    assert_eq!(stats["breakdown"][0]["amount"], 75_000);
}

#[tokio::test]
async fn warnings_begin_at_eighty_percent_exactly_and_name_each_resource() {
    let app = TestApp::new();
    let user = app.user("a@example.org", "basic").await;
    let warnings = async || app.ask(&user.token, "/usage/stats").await.expect(200).json["warnings"].clone();
    app.used_up(&user, 39_999).await;
    assert_eq!(warnings().await, json!([]));
    app.used_up(&user, 1).await;
    assert_eq!(warnings().await, json!(["llm_tokens at 80.0% of quota"]));
    app.tell(&user.token, "/usage/record", json!({"resourceType": "agent_minutes", "amount": 61})).await.expect(201);
    app.used_up(&user, 1).await;
    assert_eq!(warnings().await, json!(["llm_tokens at 80.0% of quota", "agent_minutes at 101.67% of quota"]));
}

#[tokio::test]
async fn percentages_are_rounded_half_up_and_zero_where_there_is_no_limit() {
    let app = TestApp::with_config("[tiers.basic]\nllm_tokens_day = 80000\nagent_minutes_month = 3");
    let user = app.user("a@example.org", "basic").await;
    let pro = app.user("p@example.org", "pro").await;
    app.used_up(&user, 4).await;
    assert_eq!(app.ask(&user.token, "/usage/tokens").await.json["percentage"], json!(0.01));
    app.used_up(&user, 7).await;
    assert_eq!(app.ask(&user.token, "/usage/tokens").await.json["percentage"], json!(0.01));
    app.used_up(&user, 1).await;
    assert_eq!(app.ask(&user.token, "/usage/tokens").await.json["percentage"], json!(0.02));
    let minutes = json!({"resourceType": "agent_minutes", "amount": 2});
    let answer = app.tell(&user.token, "/usage/record", minutes).await.expect(201);
    assert_eq!(answer.json["quota"], json!({"used": 2, "limit": 3, "percentage": 66.67}));
    let answer = app.tell(&pro.token, "/usage/record", tokens(9_000_000_000_000_000)).await.expect(201);
    assert_eq!(answer.json["quota"], json!({"used": 9_000_000_000_000_000_i64, "limit": -1, "percentage": 0.0}));
    assert_eq!(app.ask(&pro.token, "/usage/stats").await.json["warnings"], json!([]));
}

#[tokio::test]
async fn a_limit_of_zero_shows_nothing_until_something_is_used() {
    let app = TestApp::new();
    let user = app.user("a@example.org", "free_trial").await;
    assert_eq!(app.ask(&user.token, "/usage/agent-minutes").await.json["percentage"], json!(0.0));
    let minute = json!({"resourceType": "agent_minutes", "amount": 1});
    app.tell(&user.token, "/usage/record", minute).await.expect(201);
    let answer = app.ask(&user.token, "/usage/agent-minutes").await.json;
    assert_eq!((&answer["used"], &answer["limit"], &answer["percentage"]), (&json!(1), &json!(0), &json!(100.0)));
    assert_eq!(
        app.ask(&user.token, "/usage/stats").await.json["warnings"],
        json!(["agent_minutes at 100.0% of quota"])
    );
}

#[tokio::test]
async fn numbers_read_as_people_write_them() {
    let app = TestApp::new();
    let user = app.user("a@example.org", "pro").await;
    app.used_up(&user, 1).await;
    app.tell(&user.token, "/usage/record", json!({"resourceType": "agent_minutes", "amount": 12})).await.expect(201);
    let stats = app.ask(&user.token, "/usage/stats").await.json;
    assert_eq!(stats["breakdown"][0]["humanReadable"], "1 token");
    assert_eq!(stats["breakdown"][2]["humanReadable"], "12 minutes");
    app.used_up(&user, 1_234_566).await;
    assert_eq!(app.ask(&user.token, "/usage/stats").await.json["breakdown"][0]["humanReadable"], "1,234,567 tokens");
}

#[tokio::test]
async fn a_series_has_an_element_for_every_day_and_ends_today() {
    let app = TestApp::new();
    let user = app.user("a@example.org", "pro").await;
    app.turn_to("2026-02-27T23:59:59.999Z");
    app.used_up(&user, 800).await;
    app.turn_to("2026-02-28T00:00:00Z");
    app.used_up(&user, 1_200).await;
    app.turn_to("2026-03-01T00:00:00Z");
    let series = both(&app, &user, "/usage/timeseries/llm_tokens?days=4").await;
    let expected = json!([
        {"date": "2026-02-26", "amount": 0}, {"date": "2026-02-27", "amount": 800},
        {"date": "2026-02-28", "amount": 1_200}, {"date": "2026-03-01", "amount": 0},
    ]);
    assert_eq!(series, expected);
    assert_eq!(app.ask(&user.token, "/usage/timeseries/agent_minutes").await.json.as_array().unwrap().len(), 30);
    assert_eq!(app.ask(&user.token, "/usage/timeseries/llm_tokens?days=366").await.json.as_array().unwrap().len(), 366);
    let level = both(&app, &user, "/usage/timeseries/memory_storage?days=1").await;
    assert_eq!(level, json!([{"date": "2026-03-01", "amount": 0, "total": 0}]));
}

#[tokio::test]
async fn days_and_resources_out_of_bounds_are_named() {
    let app = TestApp::new();
    let user = app.user("a@example.org", "pro").await;
    for days in ["0", "367", "-1", "x", "1.5", "", "30d", "99999999999999999999"] {
        for path in ["/usage/stats", "/usage/timeseries/llm_tokens"] {
            let reply = app.ask(&user.token, &format!("{path}?days={days}")).await.expect(422);
            assert_eq!(faults_of(&reply), ["days"], "{path} {days}");
        }
    }
    let reply = app.ask(&user.token, "/usage/timeseries/nonsense?days=0").await.expect(422);
    assert_eq!(faults_of(&reply), ["resourceType", "days"], "every fault at once");
    for path in
        ["/usage/stats?day=7", "/usage/tokens?days=7", "/usage/tier?x=1", "/usage/storage?x", "/usage/agent-minutes?x"]
    {
        app.ask(&user.token, path).await.expect(422);
    }
    let reply = app.ask(&user.token, "/usage/stats?days=7&days=8").await.expect(422);
    assert_eq!(faults_of(&reply), ["days"]);
}

#[tokio::test]
async fn a_check_of_the_quota_is_a_question_with_an_answer_either_way() {
    let app = TestApp::new();
    let user = app.user("a@example.org", "free_trial").await;
    app.used_up(&user, 600).await;
    app.hold(&user, 150).await;
    for path in ["/usage/check-quota", "/api/usage/check-quota"] {
        let reply = app.tell(&user.token, path, tokens(250)).await.expect(200);
        let expected = json!({
            "hasQuota": true, "message": "Quota available", "used": 600, "reserved": 150, "limit": 1_000,
            "remaining": 250, "resetsAt": "2026-03-11T00:00:00.000Z",
        });
        assert_eq!(reply.json, expected);
        let reply = app.tell(&user.token, path, tokens(1_251)).await.expect(200);
        assert_eq!(reply.json["hasQuota"], false);
        assert_eq!(reply.json["message"], "Quota exceeded: 1,001 tokens over the limit of 1,000 tokens");
        assert_eq!(reply.header("retry-after"), "");
    }
    let bytes = json!({"resourceType": "memory_storage", "amount": 1_073_741_825});
    let reply = app.tell(&user.token, "/usage/check-quota", bytes).await.expect(200);
    assert_eq!(reply.json["message"], "Quota exceeded: 1 B over the limit of 1.00 GB");
    assert_eq!(reply.json.get("resetsAt"), None);
    assert_eq!(app.tokens(&user).await, (600, 150), "a question changes nothing");
}

#[tokio::test]
async fn a_check_knows_the_limits_of_nothing_and_of_everything() {
    let app = TestApp::new();
    let free = app.user("a@example.org", "free_trial").await;
    let pro = app.user("p@example.org", "pro").await;
    let minute = json!({"resourceType": "agent_minutes", "amount": 1});
    let reply = app.tell(&free.token, "/usage/check-quota", minute.clone()).await.expect(200);
    assert_eq!((&reply.json["hasQuota"], &reply.json["remaining"]), (&json!(false), &json!(0)));
    let reply = app.tell(&pro.token, "/usage/check-quota", minute).await.expect(200);
    assert_eq!((&reply.json["hasQuota"], &reply.json["remaining"]), (&json!(true), &json!(-1)));
    let reply = app.tell(&pro.token, "/usage/check-quota", tokens((1 << 53) - 1)).await.expect(200);
    assert_eq!(reply.json["hasQuota"], true);
}

#[tokio::test]
async fn the_tier_that_a_trusted_caller_names_decides_this_request_alone() {
    let app = TestApp::new();
    let user = app.user("a@example.org", "free_trial").await;
    let admin = app.admin("admin@example.org").await;
    let acting = [("X-User-Id", user.id.as_str()), ("X-User-Tier", "pro")];
    let reply = app.call_with("GET", "/usage/tier", Some(&admin.token), None, &acting).await.expect(200);
    assert_eq!(reply.json, json!({"userId": user.id, "tier": "pro"}));
    let body = json!({"resourceType": "llm_tokens", "amount": 5_000, "enforce": true});
    let reply = app.tell_with(&admin.token, "/usage/record", body.clone(), &acting).await.expect(201);
    assert_eq!(reply.json["quota"], json!({"used": 5_000, "limit": -1, "percentage": 0.0}));
    assert_eq!(app.ask(&user.token, "/usage/tier").await.json["tier"], "free_trial");
    assert_eq!(app.ask(&user.token, "/usage/tokens").await.json["limit"], 1_000);
    // From the user itself the header is ignored.
    let reply = app.tell_with(&user.token, "/usage/record", body.clone(), &[("X-User-Tier", "pro")]).await.expect(429);
    assert_eq!(reply.json["limit"], 1_000);
    let unknown = [("X-User-Id", user.id.as_str()), ("X-User-Tier", "gold")];
    let reply = app.tell_with(&admin.token, "/usage/record", body, &unknown).await.expect(422);
    assert_eq!(faults_of(&reply), ["X-User-Tier"]);
    app.proves();
}
