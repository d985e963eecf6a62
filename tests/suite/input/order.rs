//! The order of checks: 401, 403, 415, 413, 400, 422, 404, 409, 429.

use http::Request;
use serde_json::json;
use tallybox::domain::auth::Scope;
use tallybox::service::auth::account::Changes;

use super::{BODY_BYTES_MAX, World, embedding};
use crate::suite::support::{TestApp, request};

#[tokio::test]
async fn each_check_comes_before_those_after_it() {
    let world = World::new().await;
    let lacks = world.app.token("user@example.org", &[Scope::Metrics]).await;
    let missing = "00000000-0000-7000-8000-000000000000";
    for route in &world.routes {
        let path = route.path.replace(route.path.rsplit('/').find(|part| part.len() == 36).unwrap_or("-"), missing);
        let path = if route.pattern.contains("{id}") { path } else { route.path.clone() };
        let large = format!("{{\"colour\": \"{}\"", "x".repeat(BODY_BYTES_MAX));
        // Each is wrong in everything that comes after it.
        for (status, token, media, body, key) in [
            (401, None, "text/plain", large.as_str(), "a b"),
            (403, Some(lacks.as_str()), "text/plain", &large, "a b"),
            (415, route.token.as_deref(), "text/plain", &large, "a b"),
            (413, route.token.as_deref(), "application/json", &large, "a b"),
            (400, route.token.as_deref(), "application/json", "{\"colour\": 1", "a b"),
            (422, route.token.as_deref(), "application/json", "{\"colour\": 1}", "a b"),
        ] {
            let is_open = route.token.is_none();
            if is_open && status < 415 {
                continue;
            }
            let mut request = Request::builder()
                .method(route.method)
                .uri(&path)
                .header("content-type", media)
                .header("idempotency-key", key)
                .header("content-length", body.len());
            if let Some(token) = token {
                request = request.header("authorization", format!("Bearer {token}"));
            }
            let reply = world.send(request.body(axum::body::Body::from(body.to_owned())).unwrap()).await;
            assert_eq!(reply.status, status, "{}: {}", route.name(), reply.text);
        }
        if route.pattern.contains("{id}") {
            let reply = world.app.call(route.method, &path, route.token.as_deref(), Some(route.body.clone())).await;
            assert_eq!(reply.status, 404, "{}: {}", route.name(), reply.text);
        }
    }
}

#[tokio::test]
async fn a_conflict_is_said_before_a_refusal() {
    let app =
        TestApp::with_config("[tiers.free_trial]\nmemory_storage_bytes = 2000\n[memory]\non_duplicate = \"refuse\"");
    let user = app.user("a@example.org", "free_trial").await;
    let other = app.user("b@example.org", "free_trial").await;
    let memory = json!({"type": "note", "input_context": "the same", "embedding": embedding()});
    app.tell(&user.token, "/memory/store", memory.clone()).await.expect(201);
    app.tell(&user.token, "/memory/store", memory).await.expect(409);
    let another = json!({"type": "note", "input_context": "another", "embedding": embedding()});
    app.tell(&user.token, "/memory/store", another).await.expect(429);
    // Another user's hold is missing, whatever became of it.
    let hold = app.hold(&user, 5).await;
    app.release(&user, &hold).await.expect(204);
    app.settle(&user, &hold, 5).await.expect(409);
    app.settle(&other, &hold, 5).await.expect(404);
}

#[tokio::test]
async fn nothing_is_done_for_a_disabled_user_and_a_fault_of_the_body_is_said_before_one_of_who_is_named() {
    let app = TestApp::new();
    app.admin("root@example.org").await;
    let named = app.user("a@example.org", "basic").await;
    let scopes = [Scope::UsageWrite, Scope::MemoryWrite, Scope::Gateway, Scope::ActAs];
    let token = app.token("root@example.org", &scopes).await;
    app.change("a@example.org", Changes { disabled: Some(true), ..Changes::default() }).await;
    let disabled = [("x-user-id", named.id.as_str())];
    for (method, path, body) in [
        ("GET", "/v1/models", None),
        ("POST", "/v1/chat/completions", Some(json!({"model": "unserved", "messages": []}))),
        ("POST", "/memory/import", Some(json!({"memories": []}))),
    ] {
        let refused = app.call_with(method, path, Some(&token), body, &disabled).await.expect(403);
        assert!(refused.text.contains("the user is disabled"), "{path}: {}", refused.text);
    }
    let stranger = ("x-user-id", "00000000-0000-4000-8000-000000000000");
    for wrong in [stranger, ("x-user-tier", "gold")] {
        for path in ["/usage/record", "/memory/import", "/v1/chat/completions"] {
            let send = async |media: &str, length: &str, body: &'static str| {
                let headers = [wrong, ("content-type", media), ("content-length", length)];
                let mut request = request("POST", path, Some(&token), None, &headers);
                *request.body_mut() = axum::body::Body::from(body);
                app.send(request).await.status
            };
            assert_eq!(send("text/plain", "2", "{}").await, 415, "{path} {wrong:?}");
            assert_eq!(send("application/json", "999999999", "{}").await, 413, "{path} {wrong:?}");
            if path != "/memory/import" {
                assert_eq!(send("application/json", "1", "{").await, 400, "{path} {wrong:?}");
            }
            assert_eq!(send("application/json", "2", "{}").await, 422, "{path} {wrong:?}");
        }
    }
}
