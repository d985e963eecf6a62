//! Figures over all users.

use serde_json::{Value, json};

use crate::suite::calls::{faults_of, tokens};
use crate::suite::support::{Reply, TestApp};

async fn csv(app: &TestApp, token: &str, query: &str) -> Reply {
    app.call_with("GET", &format!("/api/admin/usage{query}"), Some(token), None, &[("Accept", "text/csv")]).await
}

#[tokio::test]
async fn totals_are_listed_by_user_and_resource_and_as_a_table() {
    let app = TestApp::new();
    let admin = app.admin("admin@example.org").await;
    let one = app.user("one@example.org", "basic").await;
    let two = app.user("=two,\"2\"@example.org", "pro").await;
    app.turn_to("2026-03-01T00:00:00Z");
    app.used_up(&one, 100).await;
    app.turn_to("2026-03-10T12:00:00Z");
    app.used_up(&one, 23).await;
    app.used_up(&two, 7).await;
    app.tell(&two.token, "/usage/record", json!({"resourceType": "agent_minutes", "amount": 5})).await.expect(201);
    let row = |user: &crate::suite::support::TestUser, tier: &str, resource: &str, amount: i64| json!({"userId": user.id, "email": user.email, "tier": tier, "resourceType": resource, "amount": amount});
    let all = app.ask(&admin.token, "/api/admin/usage").await.expect(200).json;
    let expected = json!({
        "from": "2026-02-09", "to": "2026-03-10", "nextCursor": null,
        "totals": [row(&one, "basic", "llm_tokens", 123), row(&two, "pro", "llm_tokens", 7), row(&two, "pro", "agent_minutes", 5)],
    });
    assert_eq!(all, expected);
    let narrow = app.ask(&admin.token, "/api/admin/usage?from=2026-03-02&to=2026-03-10T00:00:00Z").await.json;
    assert_eq!((&narrow["from"], &narrow["to"]), (&json!("2026-03-02"), &json!("2026-03-10")));
    assert_eq!(narrow["totals"][0], row(&one, "basic", "llm_tokens", 23));
    let mut paged = Vec::new();
    let mut query = "?limit=1".to_owned();
    loop {
        let page = app.ask(&admin.token, &format!("/api/admin/usage{query}")).await.expect(200).json;
        paged.extend(page["totals"].as_array().unwrap().clone());
        let Some(cursor) = page["nextCursor"].as_str() else { break };
        query = format!("?limit=1&cursor={cursor}");
    }
    assert_eq!(Value::from(paged), all["totals"]);
    let table = csv(&app, &admin.token, "?to=2026-03-10").await.expect(200);
    assert_eq!(table.header("content-type"), "text/csv; charset=utf-8");
    let lines: Vec<&str> = table.text.split("\r\n").collect();
    let expected = [
        "userId,email,tier,resourceType,amount".to_owned(),
        format!("{},one@example.org,basic,llm_tokens,123", one.id),
        format!("{},\"'=two,\"\"2\"\"@example.org\",pro,llm_tokens,7", two.id),
        format!("{},\"'=two,\"\"2\"\"@example.org\",pro,agent_minutes,5", two.id),
        String::new(),
    ];
    assert_eq!(lines, expected);
    for wrong in [
        "?from=2026-03-11&to=2026-03-10",
        "?from=x",
        "?to=2026-13-01",
        "?days=3",
        "?limit=0",
        "?cursor=x",
        "?from=1000-01-01",
    ] {
        app.ask(&admin.token, &format!("/api/admin/usage{wrong}")).await.expect(422);
    }
    let wrong = app.ask(&admin.token, "/api/admin/usage?from=x&to=y&limit=0&colour=1").await.expect(422);
    assert_eq!(faults_of(&wrong), ["from", "to", "limit", "colour"]);
}

#[tokio::test]
async fn a_table_is_given_to_who_wants_it_most() {
    let app = TestApp::new();
    let admin = app.admin("admin@example.org").await;
    for (accept, is_table) in [
        ("TEXT/CSV", true),
        ("application/json;q=0.5, text/csv", true),
        ("text/csv; charset=utf-8; q=0.9, */*;q=0.8", true),
        ("text/csv, */*", true),
        ("text/csv, application/json", true),
        ("application/json, text/csv", false),
        ("text/csv;Q=0.5, application/json", false),
        ("text/csv;q=0", false),
        ("text/*", false),
        ("*/*", false),
    ] {
        let headers = [("Accept", accept)];
        let reply = app.call_with("GET", "/api/admin/usage", Some(&admin.token), None, &headers).await.expect(200);
        assert_eq!(reply.header("content-type").starts_with("text/csv"), is_table, "{accept}");
    }
}

#[tokio::test]
async fn a_table_holds_every_row_however_many() {
    let app = TestApp::new();
    let admin = app.admin("admin@example.org").await;
    for number in 0..1_100 {
        let user = app.user(&format!("{number}@example.org"), "pro").await;
        app.tell(&user.token, "/usage/record", tokens(1)).await.expect(201);
    }
    let table = csv(&app, &admin.token, "").await.expect(200).text;
    assert_eq!(table.lines().count(), 1_101);
}

#[tokio::test]
async fn the_overview_shows_totals_top_users_and_refusals_once_the_worker_has_written_them() {
    let app = TestApp::new();
    let admin = app.admin("admin@example.org").await;
    let one = app.user("one@example.org", "free_trial").await;
    let two = app.user("two@example.org", "pro").await;
    app.used_up(&one, 1_000).await;
    app.used_up(&two, 5_000).await;
    for _ in 0..3 {
        app.enforce(&one, 1).await.expect(429);
    }
    app.tell(&one.token, "/usage/reservations", json!({"resourceType": "agent_minutes", "amount": 1}))
        .await
        .expect(429);
    app.tell(&one.token, "/usage/check-quota", tokens(1)).await.expect(200);
    app.pass().await;
    app.clock.advance_millis(3_600_000);
    app.enforce(&one, 1).await.expect(429);
    app.pass().await;
    let overview = app.ask(&admin.token, "/api/admin/overview?days=7").await.expect(200).json;
    assert_eq!(overview["users"], json!({"total": 3, "enabled": 3, "admins": 1}));
    assert_eq!(overview["totals"], json!({"llm_tokens": 6_000, "memory_storage": 0, "agent_minutes": 0}));
    let top: Vec<(&Value, &Value)> =
        overview["topUsers"].as_array().unwrap().iter().map(|row| (&row["email"], &row["amount"])).collect();
    assert_eq!(top, [(&json!("two@example.org"), &json!(5_000)), (&json!("one@example.org"), &json!(1_000))]);
    let refusal = |resource: &str, hour: &str, count: i64| json!({"userId": one.id, "email": "one@example.org", "resourceType": resource, "hour": hour, "count": count});
    let expected = json!([
        refusal("llm_tokens", "2026-03-10T13:00:00.000Z", 1),
        refusal("llm_tokens", "2026-03-10T12:00:00.000Z", 3),
        refusal("agent_minutes", "2026-03-10T12:00:00.000Z", 1),
    ]);
    assert_eq!(overview["recentRefusals"], expected);
    assert_eq!((&overview["days"], &overview["sizes"]["ledgerEntries"]), (&json!(7), &json!(2)));
    assert!(overview["sizes"]["databaseBytes"].as_i64().unwrap() > 4_096);
    app.clock.advance_millis(7 * 86_400_000);
    let later = app.ask(&admin.token, "/api/admin/overview?days=7").await.expect(200).json;
    assert_eq!((&later["recentRefusals"], &later["totals"]["llm_tokens"]), (&json!([]), &json!(0)));
    app.ask(&admin.token, "/api/admin/overview?days=0").await.expect(422);
}

#[tokio::test]
async fn totals_of_everybody_are_exact_beyond_what_a_float_holds() {
    let app = TestApp::new();
    let admin = app.admin("admin@example.org").await;
    for email in ["one@example.org", "two@example.org"] {
        let user = app.user(email, "pro").await;
        app.used_up(&user, (1 << 53) - 1).await;
        app.used_up(&user, (1 << 53) - 2).await;
    }
    let total = |overview: Value| overview["totals"]["llm_tokens"].as_i64().unwrap();
    let overview = app.ask(&admin.token, "/api/admin/overview").await.expect(200).json;
    assert_eq!(total(overview), 4 * (1 << 53) - 6);
    // Past 64 bits a figure says the most it can.
    for email in ["three@example.org", "four@example.org"] {
        let user = app.user(email, "pro").await;
        let most = vec![tokens((1 << 53) - 1); 1_000];
        app.tell(&user.token, "/usage/record/batch", json!({"entries": most})).await.expect(201);
    }
    let overview = app.ask(&admin.token, "/api/admin/overview").await.expect(200).json;
    assert_eq!(total(overview), i64::MAX);
}
