//! What is out of bounds is refused by name, and changes nothing.

use serde_json::{Map, Value, json};

use super::{app_with, axis};

fn with(base: &Value, name: &str, value: Value) -> Value {
    let mut body = base.as_object().unwrap().clone();
    body.insert(name.to_owned(), value);
    Value::Object(body)
}

fn nested(depth: usize) -> Value {
    (1..depth).fold(json!({"deep": 1}), |inner, _| json!({"deep": inner}))
}

#[tokio::test]
async fn a_store_out_of_bounds_is_refused() {
    let app = app_with("[memory]\ntext_bytes_max = 1024\n");
    let user = app.user("a@example.org", "basic").await;
    let good = json!({"type": "note", "input_context": "good"});
    let mut short = axis(0).as_array().unwrap().clone();
    short.pop();
    let mut large = axis(0).as_array().unwrap().clone();
    large[5] = json!(1e39);
    let mut worded = axis(0).as_array().unwrap().clone();
    worded[9] = json!("1");
    let faults = [
        ("type", json!("")),
        ("type", json!("x".repeat(65))),
        ("type", json!("a\0b")),
        ("type", json!(7)),
        ("input_context", json!("")),
        ("input_context", json!("é".repeat(513))),
        ("input_context", json!("a\0b")),
        ("input_context", json!(["text"])),
        ("timestamp", json!("2025-03-10T12:00:60Z")),
        ("timestamp", json!("2025-03-10T12:00:00\u{2212}01:00")),
        ("tier", json!("long")),
        ("tier", json!(1)),
        ("tags", json!("red")),
        ("tags", json!([""])),
        ("tags", json!([1])),
        ("tags", json!(["x".repeat(65)])),
        ("tags", json!(["a\0"])),
        ("tags", json!((0..33).map(|number| number.to_string()).collect::<Vec<_>>())),
        ("metadata", json!([])),
        ("metadata", json!({"a\0": 1})),
        ("metadata", json!({"a": "x".repeat(16 * 1024)})),
        ("metadata", nested(9)),
        ("session", json!("")),
        ("session", json!("x".repeat(129))),
        ("timestamp", json!("yesterday")),
        ("timestamp", json!("2026-03-10T12:05:00.001Z")),
        ("embedding", json!(short)),
        ("embedding", json!(large)),
        ("embedding", json!(worded)),
        ("embedding", json!(vec![0.0; 384])),
        ("embedding", json!(vec![1e-60; 384])),
        ("embedding", json!("AAAA")),
        ("report_similar", json!("yes")),
        ("colour", json!("red")),
    ];
    for (name, value) in faults {
        let refused = app.store(&user, with(&good, name, value.clone())).await;
        assert_eq!(refused.status, 422, "{name} {value}: {}", refused.text);
        assert_eq!(refused.json["errors"][0]["field"], name, "{value}");
    }
    app.store(&user, json!({})).await.expect(422);
    app.store(&user, json!([])).await.expect(422);
    let good_edges = [
        ("type", json!("é".repeat(64))),
        ("input_context", json!("é".repeat(512))),
        ("tags", json!((0..64).map(|number| (number % 32).to_string()).collect::<Vec<_>>())),
        ("metadata", nested(8)),
        ("timestamp", json!("2026-03-10T12:05:00Z")),
        ("timestamp", json!("1066-10-14T09:00:00Z")),
        ("embedding", json!(vec![3.0e38; 384])),
        ("tags", Value::Null),
        ("metadata", json!({})),
    ];
    for (name, value) in good_edges {
        app.store(&user, with(&good, name, value)).await.expect(201);
    }
    assert_eq!(app.get(&user, "/memory").await.json["memories"].as_array().unwrap().len(), 9);
    app.holds();
}

#[tokio::test]
async fn a_search_out_of_bounds_is_refused() {
    let app = app_with("");
    let user = app.user("a@example.org", "basic").await;
    app.note(&user, "something to find").await;
    let good = json!({"query": "find"});
    for (name, value) in [
        ("query", json!("")),
        ("query", json!("x".repeat(8 * 1024 + 1))),
        ("query", json!("a\0")),
        ("limit", json!(0)),
        ("limit", json!(101)),
        ("limit", json!("10")),
        ("mode", json!("fuzzy")),
        ("tiers", json!(["xl"])),
        ("tiers", json!("ltm")),
        ("types", json!([1])),
        ("tags", json!("red")),
        ("metadata", json!("red")),
        ("session", json!(1)),
        ("after", json!("soon")),
        ("created_before", json!(1)),
        ("min_score", json!(1.5)),
        ("min_score", json!(-0.1)),
        ("context", json!(6)),
        ("embedding", json!([1.0])),
        ("colour", json!("red")),
    ] {
        let refused = app
            .call("POST", "/memory/search", Some(&user.token), Some(with(&good, name, value.clone())))
            .await
            .expect(422);
        assert_eq!(refused.json["errors"][0]["field"], name, "{value}");
    }
    for body in
        [Value::Object(Map::new()), json!({"mode": "keyword", "embedding": axis(0)}), json!({"mode": "semantic"})]
    {
        app.call("POST", "/memory/search", Some(&user.token), Some(body)).await.expect(422);
    }
    app.call("POST", "/memory/search", Some(&user.token), None).await.expect(400);
}

#[tokio::test]
async fn a_change_out_of_bounds_is_refused_and_changes_nothing() {
    let app = app_with("");
    let user = app.user("a@example.org", "basic").await;
    let id = app.note(&user, "as it was").await;
    let path = format!("/memory/{id}");
    let before = app.get(&user, &path).await.expect(200).json;
    for body in [
        json!({"type": ""}),
        json!({"input_context": ""}),
        json!({"tier": "xl"}),
        json!({"tags": [""]}),
        json!({"metadata": 1}),
        json!({"session": ""}),
        json!({"timestamp": "2027-01-01T00:00:00Z"}),
        json!({"size_bytes": 1}),
    ] {
        app.call("PATCH", &path, Some(&user.token), Some(body)).await.expect(422);
    }
    assert_eq!(app.get(&user, &path).await.expect(200).json, before);
    for query in ["tier=xl", "type=", "session=", "colour=red", "tag=a&tag=b"] {
        app.get(&user, &format!("/memory?{query}")).await.expect(422);
    }
}

#[tokio::test]
async fn scopes_open_what_the_manual_says() {
    use tallybox::domain::auth::Scope;
    let app = app_with("");
    let user = app.user("a@example.org", "basic").await;
    let id = app.note(&user, "mine").await;
    let path = format!("/memory/{id}");
    let similar = format!("/memory/{id}/similar");
    let routes: Vec<(&str, &str, Scope)> = vec![
        ("POST", "/memory/store", Scope::MemoryWrite),
        ("POST", "/memory/store/batch", Scope::MemoryWrite),
        ("PATCH", &path, Scope::MemoryWrite),
        ("POST", "/memory/search", Scope::MemoryRead),
        ("GET", "/memory", Scope::MemoryRead),
        ("GET", &path, Scope::MemoryRead),
        ("GET", &similar, Scope::MemoryRead),
        ("GET", "/memory/usage", Scope::UsageRead),
        ("GET", "/memory/usage/quota-check", Scope::UsageRead),
        ("DELETE", "/memory", Scope::MemoryWrite),
        ("DELETE", &path, Scope::MemoryWrite),
    ];
    for (method, path, scope) in routes {
        let others: Vec<Scope> =
            Scope::ALL.into_iter().filter(|other| *other != scope && !other.is_privileged()).collect();
        let lacking = app.token(&user.email, &others).await;
        let refused = app.call(method, path, Some(&lacking), None).await.expect(403);
        assert_eq!((refused.code(), &refused.json["scope"]), ("scope_required", &json!(scope.as_str())));
        let having = app.token(&user.email, &[scope]).await;
        assert_ne!(app.call(method, path, Some(&having), None).await.status, 403, "{method} {path}");
        app.call(method, path, None, None).await.expect(401);
    }
}
