//! Recording: the rule at the exact edge, bounds, batches.

use serde_json::{Value, json};

use crate::suite::calls::{faults_of, tokens};
use crate::suite::support::{TestApp, TestUser};

const MOST: i64 = (1 << 53) - 1;

#[tokio::test]
async fn a_record_answers_the_entry_and_how_its_window_stands() {
    let app = TestApp::new();
    let user = app.user("a@example.org", "free_trial").await;
    for path in ["/usage/record", "/api/usage/record"] {
        let body = json!({"resourceType": "llm_tokens", "amount": 250, "metadata": {"model": "m"}});
        let reply = app.tell(&user.token, path, body).await.expect(201);
        let mut answer = reply.json;
        let id = answer.as_object_mut().unwrap().remove("id").unwrap();
        assert_eq!(id.as_str().unwrap().len(), 36);
        let used = app.tokens(&user).await.0;
        let expected = json!({
            "resourceType": "llm_tokens", "amount": 250, "timestamp": "2026-03-10T12:00:00.000Z",
            "quota": {"used": used, "limit": 1_000, "percentage": f64::from(i32::try_from(used).unwrap()) / 10.0},
        });
        assert_eq!(answer, expected);
    }
    assert_eq!(app.tokens(&user).await, (500, 0));
    app.proves();
}

#[tokio::test]
async fn an_enforced_record_fits_up_to_the_limit_and_not_one_more() {
    let app = TestApp::new();
    let user = app.user("a@example.org", "free_trial").await;
    app.hold(&user, 100).await;
    app.used_up(&user, 800).await;
    let refused = app.enforce(&user, 101).await.expect(429);
    let mut problem = refused.json.clone();
    let fields = problem.as_object_mut().unwrap();
    fields.remove("requestId").unwrap();
    let detail = fields.remove("detail").unwrap();
    assert_eq!(
        detail,
        "llm_tokens quota exceeded: 800 tokens used, 100 tokens reserved and 101 tokens requested pass the limit of 1,000 tokens"
    );
    let expected = json!({
        "type": "urn:tallybox:problem:quota_exceeded", "title": "Too Many Requests", "status": 429,
        "code": "quota_exceeded", "resource": "llm_tokens", "limit": 1_000, "used": 800, "reserved": 100,
        "requested": 101, "resetsAt": "2026-03-11T00:00:00.000Z", "retryAfter": 43_200,
    });
    assert_eq!(problem, expected);
    assert_eq!(refused.header("retry-after"), "43200");
    assert_eq!(refused.header("content-type"), "application/problem+json");
    assert_eq!(app.tokens(&user).await, (800, 100));
    app.enforce(&user, 100).await.expect(201);
    app.enforce(&user, 1).await.expect(429);
    assert_eq!(app.tokens(&user).await, (900, 100));
    app.proves();
}

#[tokio::test]
async fn a_fact_is_written_whatever_the_limit() {
    let app = TestApp::new();
    let user = app.user("a@example.org", "free_trial").await;
    let reply = app.tell(&user.token, "/usage/record", tokens(2_500)).await.expect(201);
    assert_eq!(reply.json["quota"], json!({"used": 2_500, "limit": 1_000, "percentage": 250.0}));
    let minute = json!({"resourceType": "agent_minutes", "amount": 1, "enforce": false});
    app.tell(&user.token, "/usage/record", minute).await.expect(201);
    app.enforce(&user, 1).await.expect(429);
    app.tell(&user.token, "/usage/reservations", tokens(1)).await.expect(429);
}

#[tokio::test]
async fn retry_after_is_said_only_where_waiting_helps() {
    let app = TestApp::new();
    let user = app.user("a@example.org", "free_trial").await;
    app.used_up(&user, 1).await;
    let waits = app.enforce(&user, 1_000).await.expect(429);
    assert_eq!(waits.header("retry-after"), "43200");
    let never = app.enforce(&user, 1_001).await.expect(429);
    assert_eq!((never.header("retry-after"), never.json.get("retryAfter")), ("", None));
    assert_eq!(never.json["resetsAt"], "2026-03-11T00:00:00.000Z");
    let minute = json!({"resourceType": "agent_minutes", "amount": 1, "enforce": true});
    let zero = app.tell(&user.token, "/usage/record", minute).await.expect(429);
    assert_eq!(zero.header("retry-after"), "");
    let yesterday =
        json!({"resourceType": "llm_tokens", "amount": 1_000, "enforce": true, "timestamp": "2026-03-09T12:00:00Z"});
    app.tell(&user.token, "/usage/record", yesterday.clone()).await.expect(201);
    let past = app.tell(&user.token, "/usage/record", yesterday).await.expect(429);
    assert_eq!((past.header("retry-after"), &past.json["resetsAt"]), ("", &json!("2026-03-10T00:00:00.000Z")));
    app.turn_to("2026-03-10T23:59:59.001Z");
    assert_eq!(app.enforce(&user, 1_000).await.expect(429).header("retry-after"), "1");
}

#[tokio::test]
async fn whose_time_is_named_is_decided_in_the_same_window_for_ever() {
    let app = TestApp::new();
    let user = app.user("a@example.org", "basic").await;
    for (resource, amount) in [("llm_tokens", 40_000), ("agent_minutes", 40)] {
        let mut body = json!({"resourceType": resource, "amount": amount, "enforce": true});
        app.tell(&user.token, "/usage/record", body.clone()).await.expect(201);
        let waits = app.tell(&user.token, "/usage/record", body.clone()).await.expect(429);
        assert_ne!(waits.header("retry-after"), "", "{resource}");
        for at in ["2026-03-10T11:59:00Z", "2026-03-10T12:04:00Z"] {
            body["timestamp"] = json!(at);
            let never = app.tell(&user.token, "/usage/record", body.clone()).await.expect(429);
            assert_eq!((never.header("retry-after"), never.json.get("retryAfter")), ("", None), "{resource} {at}");
            assert_eq!(never.json["resetsAt"], waits.json["resetsAt"]);
        }
    }
}

#[tokio::test]
async fn a_batch_is_told_to_wait_only_where_a_fresh_window_takes_it() {
    let app = TestApp::new();
    let user = app.user("a@example.org", "free_trial").await;
    let fact = |amount: i64, enforce: bool| json!({"resourceType": "llm_tokens", "amount": amount, "enforce": enforce});
    let dated =
        |amount: i64| json!({"resourceType": "llm_tokens", "amount": amount, "timestamp": "2026-03-10T11:00:00Z"});
    let minute = json!({"resourceType": "agent_minutes", "amount": 1, "enforce": true});
    for (used, entries, index, waits) in [
        (0, json!([fact(600, true), fact(600, true)]), 1, ""),
        (0, json!([fact(2_000, false), fact(1, true)]), 1, ""),
        // Refused for the day, and once that is over for what comes behind.
        (500, json!([fact(600, true), fact(600, true)]), 0, ""),
        (500, json!([fact(600, true), minute]), 0, ""),
        (500, json!([fact(600, true), fact(400, true)]), 0, "43200"),
        // A fact is written whatever the limit; one of this day is not there tomorrow.
        (500, json!([fact(600, true), fact(2_000, false)]), 0, "43200"),
        (0, json!([dated(900), fact(600, true)]), 1, "43200"),
    ] {
        if app.tokens(&user).await.0 < used {
            app.used_up(&user, used).await;
        }
        let reply = app.tell(&user.token, "/usage/record/batch", json!({"entries": entries})).await.expect(429);
        assert_eq!((reply.header("retry-after"), &reply.json["index"]), (waits, &json!(index)), "{entries}");
        assert_eq!(reply.json["resetsAt"], json!("2026-03-11T00:00:00.000Z"));
    }
    app.proves();
}

#[tokio::test]
async fn unlimited_is_never_refused_and_zero_allows_nothing() {
    let app = TestApp::new();
    let pro = app.user("p@example.org", "pro").await;
    let free = app.user("f@example.org", "free_trial").await;
    app.enforce(&pro, MOST).await.expect(201);
    app.enforce(&pro, MOST).await.expect(201);
    assert_eq!(app.tokens(&pro).await.0, 2 * MOST);
    for (path, body) in [
        ("/usage/record", json!({"resourceType": "agent_minutes", "amount": 1, "enforce": true})),
        ("/usage/reservations", json!({"resourceType": "agent_minutes", "amount": 1})),
    ] {
        let refused = app.tell(&free.token, path, body).await.expect(429);
        assert_eq!((&refused.json["limit"], &refused.json["used"]), (&json!(0), &json!(0)));
    }
}

async fn refuse(app: &TestApp, user: &TestUser, body: &str, field: &str) {
    for path in ["/usage/record", "/usage/reservations", "/usage/check-quota"] {
        let request = http::Request::builder()
            .method("POST")
            .uri(path)
            .header("authorization", format!("Bearer {}", user.token))
            .header("content-type", "application/json")
            .header("content-length", body.len());
        let reply = app.send(request.body(axum::body::Body::from(body.to_owned())).unwrap()).await.expect(422);
        assert_eq!(faults_of(&reply), [field], "{path} {body}");
    }
}

#[tokio::test]
async fn amounts_are_whole_numbers_from_one_to_what_every_client_can_hold() {
    let app = TestApp::new();
    let user = app.user("a@example.org", "pro").await;
    let wrong = [
        "0",
        "-1",
        "9007199254740992",
        "9223372036854775807",
        "9223372036854775808",
        "-9223372036854775808",
        "18446744073709551616",
        "1.5",
        "\"5\"",
        "true",
        "[1]",
        "{}",
        "null",
        "9007199254740992.0",
        "1e300",
        "1e-400",
        "-0",
    ];
    for amount in wrong {
        refuse(&app, &user, &format!("{{\"resourceType\":\"llm_tokens\",\"amount\":{amount}}}"), "amount").await;
    }
    refuse(&app, &user, "{\"resourceType\":\"llm_tokens\"}", "amount").await;
    for resource in ["\"tokens\"", "\"LLM_TOKENS\"", "\"\"", "1", "null", "[\"llm_tokens\"]"] {
        refuse(&app, &user, &format!("{{\"resourceType\":{resource},\"amount\":1}}"), "resourceType").await;
    }
    refuse(&app, &user, "{\"resourceType\":\"llm_tokens\",\"amount\":1,\"colour\":1}", "colour").await;
    assert_eq!(app.tokens(&user).await, (0, 0));
    app.tell(&user.token, "/usage/record", tokens(MOST)).await.expect(201);
    app.hold(&user, MOST).await;
    assert_eq!(app.tokens(&user).await, (MOST, MOST));
    app.proves();
}

#[tokio::test]
async fn a_whole_number_is_one_however_it_is_written() {
    let app = TestApp::new();
    let user = app.user("a@example.org", "pro").await;
    for (written, amount) in [("1.0", 1), ("1e3", 1_000), ("9007199254740991.0", MOST)] {
        let body = format!("{{\"resourceType\":\"llm_tokens\",\"amount\":{written}}}");
        let body = serde_json::from_str(&body).unwrap();
        let reply = app.call("POST", "/usage/record", Some(&user.token), Some(body)).await.expect(201);
        assert_eq!(reply.json["amount"], amount, "{written}");
    }
    app.proves();
}

#[tokio::test]
async fn memory_storage_is_never_recorded_or_held_by_hand() {
    let app = TestApp::new();
    let user = app.user("a@example.org", "pro").await;
    for path in ["/usage/record", "/usage/reservations"] {
        let reply =
            app.tell(&user.token, path, json!({"resourceType": "memory_storage", "amount": 1})).await.expect(422);
        assert_eq!(faults_of(&reply), ["resourceType"]);
    }
    let batch = json!({"entries": [tokens(1), {"resourceType": "memory_storage", "amount": 1}]});
    let reply = app.tell(&user.token, "/usage/record/batch", batch).await.expect(422);
    assert_eq!(faults_of(&reply), ["entries[1].resourceType"]);
}

#[tokio::test]
async fn a_total_past_64_bits_is_refused_and_changes_nothing() {
    let app = TestApp::new();
    let user = app.user("a@example.org", "pro").await;
    let most: Vec<Value> = vec![tokens(MOST); 1_000];
    app.tell(&user.token, "/usage/record/batch", json!({"entries": most})).await.expect(201);
    let left = i64::MAX - 1_000 * MOST;
    assert!(left < 25 * MOST, "the next batch passes the end");
    let reply = app.tell(&user.token, "/usage/record/batch", json!({"entries": most})).await.expect(422);
    assert_eq!(faults_of(&reply), [format!("entries[{}].amount", left / MOST)]);
    assert_eq!(app.tokens(&user).await.0, 1_000 * MOST);
    let fill: Vec<Value> = vec![tokens(MOST); usize::try_from(left / MOST).unwrap()];
    app.tell(&user.token, "/usage/record/batch", json!({"entries": fill})).await.expect(201);
    app.tell(&user.token, "/usage/record", tokens(left % MOST)).await.expect(201);
    assert_eq!(app.tokens(&user).await.0, i64::MAX);
    let reply = app.tell(&user.token, "/usage/record", tokens(1)).await.expect(422);
    assert_eq!(faults_of(&reply), ["amount"]);
    // The last unit of another window counts in the same 64 bits.
    app.clock.advance_millis(86_400_000);
    app.tell(&user.token, "/usage/record", tokens(1)).await.expect(422);
    let stats = app.ask(&user.token, "/usage/stats").await.expect(200).json;
    assert_eq!(stats["breakdown"][0]["amount"], i64::MAX);
    app.proves();
}

#[tokio::test]
async fn holds_past_64_bits_are_refused() {
    let app = TestApp::new();
    let user = app.user("a@example.org", "pro").await;
    for _ in 0..1_024 {
        app.hold(&user, MOST).await;
    }
    app.hold(&user, 1_022).await;
    let reply = app.tell(&user.token, "/usage/reservations", tokens(2)).await.expect(422);
    assert_eq!(faults_of(&reply), ["amount"]);
    app.hold(&user, 1).await;
    assert_eq!(app.tokens(&user).await, (0, i64::MAX));
    app.proves();
}

#[tokio::test]
async fn metadata_comes_back_as_it_was_given() {
    let app = TestApp::new();
    let user = app.user("a@example.org", "pro").await;
    let metadata = json!({
        "text": "ä\u{1F600}\"\\\n", "list": [1, -2, null, true], "deep": {"a": {"b": {"c": {"d": {"e": {"f": 1}}}}}},
        "numbers": [0.1, 1e300, 31.245_270_191_439_438, 121.483_916_670_590_03, 9_007_199_254_740_993_i64, u64::MAX],
    });
    let body = json!({"resourceType": "llm_tokens", "amount": 1, "metadata": metadata});
    app.tell(&user.token, "/usage/record", body).await.expect(201);
    let entry = app.ask(&user.token, "/usage/ledger").await.json["entries"][0].clone();
    assert_eq!(entry["metadata"].to_string(), metadata.to_string());
    for (wrong, why) in [
        (json!([1]), "no object"),
        (json!({"a": "x".repeat(4 * 1024)}), "too large"),
        (json!({"a": {"b": {"c": {"d": {"e": {"f": {"g": {"h": []}}}}}}}}), "too deep"),
        (json!({"a": "\0"}), "NUL"),
        (json!({"\0": 1}), "NUL in a key"),
        (json!("text"), "a text"),
    ] {
        let body = json!({"resourceType": "llm_tokens", "amount": 1, "metadata": wrong});
        let reply = app.tell(&user.token, "/usage/record", body).await.expect(422);
        assert_eq!(faults_of(&reply), ["metadata"], "{why}");
    }
    let fits = json!({"a": "x".repeat(4 * 1024 - 8)});
    assert_eq!(fits.to_string().len(), 4 * 1024);
    let body = json!({"resourceType": "llm_tokens", "amount": 1, "metadata": fits});
    app.tell(&user.token, "/usage/record", body).await.expect(201);
    let body = json!({"resourceType": "llm_tokens", "amount": 1, "metadata": null});
    app.tell(&user.token, "/usage/record", body).await.expect(201);
    assert_eq!(app.ask(&user.token, "/usage/ledger").await.json["entries"][0]["metadata"], Value::Null);
}

#[tokio::test]
async fn a_batch_is_recorded_in_order() {
    let app = TestApp::new();
    let user = app.user("a@example.org", "free_trial").await;
    let body = json!({"entries": [
        tokens(100), {"resourceType": "agent_minutes", "amount": 3},
        {"resourceType": "llm_tokens", "amount": 200, "timestamp": "2026-03-09T10:00:00Z"}, tokens(50),
    ]});
    for path in ["/usage/record/batch", "/api/usage/record/batch"] {
        let reply = app.tell(&user.token, path, body.clone()).await.expect(201);
        let amounts: Vec<i64> =
            reply.json["entries"].as_array().unwrap().iter().map(|entry| entry["amount"].as_i64().unwrap()).collect();
        assert_eq!(amounts, [100, 3, 200, 50]);
        assert_eq!(reply.json["entries"][2]["timestamp"], "2026-03-09T10:00:00.000Z");
    }
    assert_eq!(app.tokens(&user).await, (300, 0));
    let listed = app.ask(&user.token, "/usage/ledger?resourceType=llm_tokens&limit=3").await.json;
    let amounts: Vec<&Value> = listed["entries"].as_array().unwrap().iter().map(|entry| &entry["amount"]).collect();
    assert_eq!(amounts, [50, 200, 100]);
    app.proves();
}

#[tokio::test]
async fn in_a_batch_each_is_decided_after_those_before_and_one_refusal_undoes_all() {
    let app = TestApp::new();
    let user = app.user("a@example.org", "free_trial").await;
    let enforced = |amount: i64| json!({"resourceType": "llm_tokens", "amount": amount, "enforce": true});
    let body = json!({"entries": [enforced(400), enforced(600), enforced(1)]});
    let reply = app.tell(&user.token, "/usage/record/batch", body).await.expect(429);
    assert_eq!(
        (&reply.json["index"], &reply.json["used"], &reply.json["requested"]),
        (&json!(2), &json!(1_000), &json!(1))
    );
    assert_eq!(app.tokens(&user).await, (0, 0));
    let body = json!({"entries": [enforced(400), enforced(600)]});
    app.tell(&user.token, "/usage/record/batch", body).await.expect(201);
    let late = json!({"entries": [tokens(1), {"resourceType": "llm_tokens", "amount": 1, "timestamp": "2025-01-01T00:00:00Z"}]});
    let reply = app.tell(&user.token, "/usage/record/batch", late).await.expect(422);
    assert_eq!(faults_of(&reply), ["entries[1].timestamp"]);
    assert_eq!(app.tokens(&user).await, (1_000, 0));
    app.proves();
}

#[tokio::test]
async fn a_batch_names_every_fault_and_has_its_bounds() {
    let app = TestApp::new();
    let user = app.user("a@example.org", "pro").await;
    let body = json!({"entries": [tokens(0), 5, {"resourceType": "x", "amount": 1, "colour": 1}], "also": 1});
    let reply = app.tell(&user.token, "/usage/record/batch", body).await.expect(422);
    let named = faults_of(&reply);
    assert_eq!(named, ["entries[0].amount", "entries[1]", "entries[2].resourceType", "entries[2].colour", "also"]);
    for entries in [json!([]), json!(vec![tokens(1); 1_001]), json!({}), json!(null)] {
        let reply = app.tell(&user.token, "/usage/record/batch", json!({"entries": entries})).await.expect(422);
        assert_eq!(faults_of(&reply), ["entries"]);
    }
    assert_eq!(app.tokens(&user).await, (0, 0));
    app.tell(&user.token, "/usage/record/batch", json!({"entries": vec![tokens(1); 1_000]})).await.expect(201);
    assert_eq!(app.tokens(&user).await, (1_000, 0));
}
