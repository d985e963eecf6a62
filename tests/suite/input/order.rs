//! The order of checks: 401, 403, 415, 413, 400, 422, 404, 409, 429.

use http::Request;
use serde_json::json;
use tallybox::domain::auth::Scope;

use super::{BODY_BYTES_MAX, World, embedding};
use crate::suite::support::TestApp;

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
