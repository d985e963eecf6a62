//! Writes that may be repeated.

use serde_json::{Value, json};

use crate::suite::calls::{faults_of, id_of, tokens};
use crate::suite::support::{Reply, TestApp, TestUser};

async fn keyed(app: &TestApp, user: &TestUser, path: &str, body: Value, key: &str) -> Reply {
    app.tell_with(&user.token, path, body, &[("Idempotency-Key", key)]).await
}

#[tokio::test]
async fn the_same_key_and_payload_give_the_first_answer_again() {
    let app = TestApp::new();
    let user = app.user("a@example.org", "free_trial").await;
    let batch = json!({"entries": [tokens(1), tokens(2)]});
    for (number, (path, body)) in
        [("/usage/record", tokens(10)), ("/usage/record/batch", batch), ("/usage/reservations", tokens(20))]
            .into_iter()
            .enumerate()
    {
        let key = format!("key-{number}");
        let first = keyed(&app, &user, path, body.clone(), &key).await.expect(201);
        assert_eq!(first.header("idempotent-replayed"), "");
        app.clock.advance_millis(1_000);
        for path in [path.to_owned(), format!("/api{path}")] {
            let again = keyed(&app, &user, &path, body.clone(), &key).await.expect(201);
            assert_eq!((&again.json, again.header("idempotent-replayed")), (&first.json, "true"), "{path}");
        }
    }
    assert_eq!(app.tokens(&user).await, (13, 20));
    app.proves();
}

impl Reply {
    fn replayed(&self) -> bool {
        self.header("idempotent-replayed") == "true"
    }
}

#[tokio::test]
async fn a_payload_is_compared_as_json_values() {
    let app = TestApp::new();
    let user = app.user("a@example.org", "free_trial").await;
    let send = async |text: &'static str| {
        let request = http::Request::post("/usage/record")
            .header("authorization", format!("Bearer {}", user.token))
            .header("content-type", "application/json; charset=utf-8")
            .header("content-length", text.len())
            .header("idempotency-key", "k");
        app.send(request.body(axum::body::Body::from(text)).unwrap()).await
    };
    let first = send(r#"{"resourceType":"llm_tokens","amount":5,"metadata":{"a":1,"b":"ä"}}"#).await.expect(201);
    let again =
        send(r#"{ "metadata": {"b": "\u00e4", "a": 1}, "amount": 5, "resourceType": "llm_tokens" }"#).await.expect(201);
    assert!(again.replayed() && again.json == first.json);
    for same in [
        r#"{"resourceType":"llm_tokens","amount":5.0,"metadata":{"a":1,"b":"ä"}}"#,
        r#"{"resourceType":"llm_tokens","amount":0.5e1,"metadata":{"a":1e0,"b":"ä"}}"#,
        r#"{"resourceType":"llm_tokens","amount":50e-1,"metadata":{"a":1.00,"b":"ä"}}"#,
    ] {
        assert!(send(same).await.expect(201).replayed(), "{same}");
    }
    for other in [
        r#"{"resourceType":"llm_tokens","amount":5,"metadata":{"a":1.5,"b":"ä"}}"#,
        r#"{"resourceType":"llm_tokens","amount":6,"metadata":{"a":1,"b":"ä"}}"#,
        r#"{"resourceType":"llm_tokens","amount":5,"metadata":{"a":2,"b":"ä"}}"#,
        r#"{"resourceType":"llm_tokens","amount":5}"#,
    ] {
        assert_eq!(faults_of(&send(other).await.expect(422)), ["Idempotency-Key"]);
    }
    assert_eq!(app.tokens(&user).await, (5, 0));
}

#[tokio::test]
async fn a_settlement_is_a_creating_write() {
    let app = TestApp::new();
    let user = app.user("a@example.org", "free_trial").await;
    let [first, second] = [app.hold(&user, 50).await, app.hold(&user, 50).await];
    let [first, second] = [first, second].map(|hold| format!("/usage/reservations/{hold}/settle"));
    let settled = keyed(&app, &user, &first, json!({"amount": 30}), "k").await.expect(200);
    assert!(!settled.replayed());
    let again = keyed(&app, &user, &format!("/api{first}"), json!({"amount": 30.0}), "k").await.expect(200);
    assert!(again.replayed() && again.json == settled.json);
    for (path, amount) in [(&first, 31), (&second, 30)] {
        let refused = keyed(&app, &user, path, json!({"amount": amount}), "k").await.expect(422);
        assert_eq!(faults_of(&refused), ["Idempotency-Key"]);
    }
    // Without the key the same settlement answers the same, as ever; with another one, too.
    assert_eq!(keyed(&app, &user, &first, json!({"amount": 30}), "other").await.expect(200).json, settled.json);
    assert_eq!(app.tokens(&user).await, (30, 50));
    app.proves();
}

#[tokio::test]
async fn a_key_belongs_to_its_route_and_its_user() {
    let app = TestApp::new();
    let user = app.user("a@example.org", "free_trial").await;
    let other = app.user("b@example.org", "free_trial").await;
    let first = keyed(&app, &user, "/usage/record", tokens(10), "k").await.expect(201);
    keyed(&app, &user, "/usage/reservations", tokens(10), "k").await.expect(422);
    keyed(&app, &user, "/api/usage/reservations", tokens(10), "k").await.expect(422);
    let theirs = keyed(&app, &other, "/usage/record", tokens(10), "k").await.expect(201);
    assert!(!theirs.replayed() && theirs.json["id"] != first.json["id"]);
    assert_eq!((app.tokens(&user).await, app.tokens(&other).await), ((10, 0), (10, 0)));
}

#[tokio::test]
async fn a_refused_write_is_not_kept_and_may_be_tried_again() {
    let app = TestApp::new();
    let user = app.user("a@example.org", "free_trial").await;
    let hold = app.hold(&user, 1_000).await;
    let body = json!({"resourceType": "llm_tokens", "amount": 600, "enforce": true});
    keyed(&app, &user, "/usage/record", body.clone(), "k").await.expect(429);
    keyed(&app, &user, "/usage/record", json!({"amount": 1}), "k").await.expect(422);
    app.release(&user, &hold).await.expect(204);
    let first = keyed(&app, &user, "/usage/record", body.clone(), "k").await.expect(201);
    assert!(!first.replayed());
    // What is full by now is no reason to refuse a repeat.
    app.hold(&user, 400).await;
    assert!(keyed(&app, &user, "/usage/record", body, "k").await.expect(201).replayed());
    assert_eq!(app.tokens(&user).await, (600, 400));
}

#[tokio::test]
async fn a_key_is_kept_for_a_day() {
    const DAY_MS: i64 = 86_400_000;
    let app = TestApp::new();
    let user = app.user("a@example.org", "pro").await;
    let first = keyed(&app, &user, "/usage/record", tokens(1), "k").await.expect(201);
    app.clock.advance_millis(DAY_MS - 1);
    app.pass().await;
    assert_eq!(keyed(&app, &user, "/usage/record", tokens(1), "k").await.expect(201).json, first.json);
    app.clock.advance_millis(1);
    // Whether the worker has been there makes no difference.
    let second = keyed(&app, &user, "/usage/record", tokens(2), "k").await.expect(201);
    assert!(!second.replayed());
    app.pass().await;
    assert_eq!(keyed(&app, &user, "/usage/record", tokens(2), "k").await.expect(201).json, second.json);
    keyed(&app, &user, "/usage/record", tokens(1), "k").await.expect(422);
}

#[tokio::test]
async fn a_key_is_1_to_255_visible_characters() {
    let app = TestApp::new();
    let user = app.user("a@example.org", "pro").await;
    let long = "k".repeat(256);
    for wrong in ["", "a b", "\t", &long] {
        let reply = keyed(&app, &user, "/usage/record", tokens(1), wrong).await.expect(422);
        assert_eq!(faults_of(&reply), ["Idempotency-Key"], "{wrong:?}");
    }
    assert_eq!(app.tokens(&user).await, (0, 0));
    for fits in ["k", "!~", &long[1..]] {
        keyed(&app, &user, "/usage/record", tokens(1), fits).await.expect(201);
    }
    // On a route that creates nothing it is ignored.
    let reply = keyed(&app, &user, "/usage/check-quota", tokens(1), "a b").await.expect(200);
    assert_eq!(reply.header("idempotent-replayed"), "");
}

#[tokio::test]
async fn of_many_at_once_with_one_key_one_is_written() {
    let app = TestApp::new();
    let user = app.user("a@example.org", "pro").await;
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let request = crate::suite::support::request(
            "POST",
            "/usage/record",
            Some(&user.token),
            Some(tokens(7)),
            &[("Idempotency-Key", "one")],
        );
        let router = app.app.router();
        calls.spawn(async move { tower::ServiceExt::oneshot(router, request).await.unwrap() });
    }
    let answers = calls.join_all().await;
    let replayed = answers.iter().filter(|answer| answer.headers().contains_key("idempotent-replayed")).count();
    assert!(answers.iter().all(|answer| answer.status() == 201));
    assert_eq!((replayed, app.tokens(&user).await), (15, (7, 0)));
}

#[tokio::test]
async fn an_acting_caller_repeats_under_its_users_keys() {
    let app = TestApp::new();
    let user = app.user("a@example.org", "free_trial").await;
    let admin = app.admin("admin@example.org").await;
    let headers = [("X-User-Id", user.id.as_str()), ("Idempotency-Key", "k")];
    let first = app.tell_with(&admin.token, "/usage/record", tokens(5), &headers).await.expect(201);
    let again = app.tell_with(&admin.token, "/usage/record", tokens(5), &headers).await.expect(201);
    assert_eq!(id_of(&first), id_of(&again));
    let own = app.tell_with(&admin.token, "/usage/record", tokens(5), &[("Idempotency-Key", "k")]).await.expect(201);
    assert_ne!(id_of(&first), id_of(&own));
    assert_eq!(app.tokens(&user).await, (5, 0));
}
