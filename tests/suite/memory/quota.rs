//! A limit is a limit, to the byte.

use serde_json::{Value, json};

use super::{app_with, axis, bytes, size_of};

/// Tiers whose storage holds exactly this many bytes.
fn tiny(bytes: i64) -> String {
    format!("[tiers.basic]\nmemory_storage_bytes = {bytes}\n")
}

#[tokio::test]
async fn exactly_at_the_limit_passes_and_one_byte_more_is_refused() {
    let app = app_with(&tiny(2 * size_of("12345")));
    let user = app.user("a@example.org", "basic").await;
    app.note(&user, "12345").await;
    let refused = app.store(&user, json!({"type": "note", "input_context": "123456"})).await.expect(429);
    assert_eq!(refused.code(), "quota_exceeded");
    assert_eq!(refused.json["resource"], "memory_storage");
    assert_eq!((&refused.json["limit"], &refused.json["used"]), (&json!(3_406), &json!(1_703)));
    assert_eq!((&refused.json["requested"], &refused.json["reserved"]), (&json!(1_704), &json!(0)));
    assert_eq!(refused.header("retry-after"), "");
    assert_eq!(app.level(&user).await, 1_703);
    app.note(&user, "67890").await;
    for embedding in [Value::Null, axis(0)] {
        app.store(&user, json!({"type": "n", "input_context": "x", "embedding": embedding})).await.expect(429);
    }
    app.store(&user, json!({"type": "note", "input_context": "short", "tier": "stm"})).await.expect(201);
    assert_eq!(app.get(&user, "/memory").await.json["memories"].as_array().unwrap().len(), 3);
    app.holds();
}

#[tokio::test]
async fn a_batch_is_decided_one_by_one_and_names_the_first_that_does_not_fit() {
    let app = app_with(&tiny(3 * size_of("12345")));
    let user = app.user("a@example.org", "basic").await;
    app.note(&user, "12345").await;
    for embedding in [Value::Null, axis(0)] {
        let memory = |text| json!({"type": "note", "input_context": text, "embedding": embedding});
        let batch = json!({"memories": [memory("12345"), memory("1234"), memory("1"), memory("2")]});
        let refused = app.call("POST", "/memory/store/batch", Some(&user.token), Some(batch)).await.expect(429);
        assert_eq!(refused.json["index"], 2);
        assert_eq!(refused.json["used"], size_of("12345") * 2 + size_of("1234"));
        assert_eq!(refused.json["requested"], size_of("1"));
    }
    assert_eq!(app.level(&user).await, size_of("12345"));
    app.holds();
}

#[tokio::test]
async fn short_term_memories_have_a_bound_of_their_own() {
    let app = app_with(&format!("[memory]\nstm_bytes_max = {}\n", 2 * size_of("12345")));
    let user = app.user("a@example.org", "basic").await;
    let short = |text: &str| json!({"type": "note", "input_context": text, "tier": "stm"});
    app.store(&user, short("12345")).await.expect(201);
    let refused = app.store(&user, short("123456")).await.expect(429);
    assert_eq!(refused.json["resource"], "memory_storage");
    assert_eq!((&refused.json["limit"], &refused.json["used"]), (&json!(3_406), &json!(1_703)));
    let last = app.store(&user, short("67890")).await.expect(201).json["id"].as_str().unwrap().to_owned();
    app.note(&user, "the quota is another").await;
    let path = format!("/memory/{last}");
    app.call("PATCH", &path, Some(&user.token), Some(json!({"input_context": "678901"}))).await.expect(429);
    app.call("PATCH", &path, Some(&user.token), Some(json!({"input_context": "6789"}))).await.expect(200);
    app.clock.advance_millis(24 * 3_600_000);
    app.store(&user, short("tomorrow")).await.expect(201);
    app.holds();
}

#[tokio::test]
async fn growth_passes_the_quota_and_shrinking_never_does() {
    let app = app_with(&tiny(size_of("12345")));
    let user = app.user("a@example.org", "basic").await;
    let id = app.note(&user, "12345").await;
    let path = format!("/memory/{id}");
    let patch = async |body: Value| app.call("PATCH", &path, Some(&user.token), Some(body)).await;
    let refused = patch(json!({"input_context": "123456"})).await.expect(429);
    assert_eq!(refused.json["requested"], 1);
    patch(json!({"tags": ["x"]})).await.expect(429);
    assert_eq!(app.get(&user, &path).await.json["input_context"], "12345");
    app.store(&user, json!({"type": "n", "input_context": "over the limit", "tier": "stm"})).await.expect(201);
    patch(json!({"input_context": "1234"})).await.expect(200);
    patch(json!({"tier": "itm"})).await.expect(200);
    patch(json!({"input_context": "12345"})).await.expect(429);
    app.holds();
}

#[tokio::test]
async fn a_merge_passes_the_quota_with_what_it_grows_by() {
    let tags = r#"["tag"]"#;
    let app = app_with(&format!("{}[memory]\non_duplicate = \"merge\"\n", tiny(size_of("12345") + bytes(tags) - 1)));
    let user = app.user("a@example.org", "basic").await;
    let id = app.note(&user, "12345").await;
    let again = |tag: &str| json!({"type": "note", "input_context": "12345", "tags": [tag]});
    let refused = app.store(&user, again("tag")).await.expect(429);
    assert_eq!(refused.json["requested"], bytes(tags));
    let read = app.get(&user, &format!("/memory/{id}")).await.json;
    assert_eq!((&read["tags"], &read["last_seen_at"]), (&json!([]), &json!(null)));
    app.store(&user, again("ta")).await.expect(200);
    assert_eq!(app.level(&user).await, size_of("12345") + bytes(tags) - 1);
    app.holds();
}

#[tokio::test]
async fn the_step_out_of_short_term_asks_for_its_growth_and_the_step_in_for_the_other_bound() {
    let size = size_of("12345");
    let app = app_with(&format!("{}[memory]\nstm_bytes_max = {}\n", tiny(2 * size), 2 * size));
    let user = app.user("a@example.org", "basic").await;
    let patch =
        async |id: &str, body: Value| app.call("PATCH", &format!("/memory/{id}"), Some(&user.token), Some(body)).await;
    let short = json!({"type": "note", "input_context": "12345", "tier": "stm"});
    let first = app.store(&user, short.clone()).await.expect(201).json["id"].as_str().unwrap().to_owned();
    let long = app.note(&user, "12345").await;
    // The level is at the limit: the step itself adds nothing.
    let refused = patch(&first, json!({"tier": "ltm", "input_context": "123456"})).await.expect(429);
    assert_eq!(refused.json["requested"], 1);
    let stepped = patch(&first, json!({"tier": "ltm"})).await.expect(200).json;
    assert_eq!((&stepped["tier"], &stepped["expires_at"]), (&json!("ltm"), &json!(null)));
    app.clock.advance_millis(5_000);
    let back = patch(&first, json!({"tier": "stm"})).await.expect(200).json;
    assert_eq!(back["expires_at"], "2026-03-11T12:00:05.000Z");
    // Above the limit, by short-term memories, no step out is let through.
    app.store(&user, short).await.expect(201);
    let refused = patch(&first, json!({"tier": "itm"})).await.expect(429);
    assert_eq!((&refused.json["requested"], &refused.json["used"]), (&json!(0), &json!(3 * size)));
    // The other bound is full.
    let refused = patch(&long, json!({"tier": "stm"})).await.expect(429);
    assert_eq!(refused.json["limit"], 2 * size);
    assert_eq!(app.level(&user).await, 3 * size);
    app.holds();
}

#[tokio::test]
async fn usage_and_the_quota_check_say_what_is_held() {
    let app = app_with(&tiny(10_000));
    let user = app.user("a@example.org", "basic").await;
    for (text, tier) in [("12345", "ltm"), ("123456", "ltm"), ("1234", "stm")] {
        app.store(&user, json!({"type": "n", "input_context": text, "tier": tier})).await.expect(201);
    }
    let usage = app.get(&user, "/api/memory/usage").await.expect(200).json;
    let total = size_of("12345") + size_of("123456") + size_of("1234");
    let none = json!({"memory_count": 0, "avg_text_size": 0, "total_text_size": 0, "total_text_human": "0 B"});
    let wanted = json!({
        "user_id": user.id,
        "storage": {"total_bytes": total, "total_human_readable": "4.99 KB"},
        "memory_counts": {"stm": 1, "itm": 0, "ltm": 2, "total": 3},
        "tier_stats": {
            "stm": {"memory_count": 1, "avg_text_size": 4, "total_text_size": 4, "total_text_human": "4 B"},
            "itm": none,
            "ltm": {"memory_count": 2, "avg_text_size": 6, "total_text_size": 11, "total_text_human": "11 B"},
        },
        "timestamp": "2026-03-10T12:00:00.000Z",
    });
    assert_eq!(usage, wanted);
    let check = app.get(&user, "/memory/usage/quota-check").await.expect(200).json;
    let wanted = json!({"has_quota": true, "message": "Storage quota available", "current_usage": "4.99 KB",
        "limit": "9.77 KB", "percentage_used": 51.09});
    assert_eq!(check, wanted);

    let full = app_with(&tiny(size_of("12345")));
    let user = full.user("a@example.org", "basic").await;
    full.note(&user, "12345").await;
    let check = full.get(&user, "/memory/usage/quota-check").await.expect(200).json;
    assert_eq!((&check["has_quota"], &check["percentage_used"]), (&json!(false), &json!(100.0)));
    assert_eq!(check["message"], "Storage quota exceeded");
    let unlimited = full.user("b@example.org", "pro").await;
    let check = full.get(&unlimited, "/memory/usage/quota-check").await.expect(200).json;
    assert_eq!((&check["limit"], &check["percentage_used"]), (&json!("Unlimited"), &json!(0.0)));
}
