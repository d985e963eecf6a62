//! Who made a hold resolves it.

use serde_json::json;
use tallybox::service::auth::account::Changes;

use crate::suite::calls::{id_of, tokens};
use crate::suite::support::{Reply, TestApp, TestUser, request};

const PROXY: &str = "10.1.2.3";

fn app() -> TestApp {
    TestApp::with_config("[auth]\nidentity_proxies = [\"10.1.2.0/24\"]")
}

/// A call of the identity proxy for `user`.
async fn by_proxy(app: &TestApp, user: &TestUser, method: &str, path: &str, body: Option<serde_json::Value>) -> Reply {
    app.call_from(PROXY, request(method, path, None, body, &[("X-User-Id", &user.id)])).await
}

/// A call of an admin with act-as for `user`.
async fn by_admin(
    app: &TestApp,
    admin: &TestUser,
    user: &TestUser,
    method: &str,
    path: &str,
    body: Option<serde_json::Value>,
) -> Reply {
    app.call_with(method, path, Some(&admin.token), body, &[("X-User-Id", &user.id)]).await
}

#[tokio::test]
async fn a_hold_of_an_acting_caller_is_not_its_users_to_resolve() {
    let app = app();
    let user = app.user("a@example.org", "free_trial").await;
    let admin = app.admin("admin@example.org").await;
    let second = app.admin("second@example.org").await;
    let reply = by_admin(&app, &admin, &user, "POST", "/usage/reservations", Some(tokens(300))).await.expect(201);
    let hold = id_of(&reply);
    let (settle, drop) = (format!("/usage/reservations/{hold}/settle"), format!("/usage/reservations/{hold}"));
    let listed = app.ask(&user.token, "/usage/reservations").await.json["reservations"][0].clone();
    assert_eq!((&listed["id"], &listed["kind"]), (&json!(hold), &json!("api")), "its user sees it");
    assert_eq!(app.settle(&user, &hold, 1).await.expect(409).code(), "not_the_maker");
    assert_eq!(app.release(&user, &hold).await.expect(409).code(), "not_the_maker");
    by_proxy(&app, &user, "DELETE", &drop, None).await.expect(409);
    by_admin(&app, &second, &user, "DELETE", &drop, None).await.expect(409);
    by_admin(&app, &admin, &admin, "DELETE", &drop, None).await.expect(404);
    assert_eq!(app.tokens(&user).await, (0, 300));
    let body = Some(json!({"amount": 200}));
    let first = by_admin(&app, &admin, &user, "POST", &settle, body.clone()).await.expect(200);
    assert_eq!(by_admin(&app, &admin, &user, "POST", &settle, body).await.expect(200).json, first.json);
    app.settle(&user, &hold, 200).await.expect(409);
    assert_eq!(app.tokens(&user).await, (200, 0));
    app.proves();
}

#[tokio::test]
async fn an_acting_caller_leaves_its_users_own_holds_alone() {
    let app = app();
    let user = app.user("a@example.org", "free_trial").await;
    let admin = app.admin("admin@example.org").await;
    let hold = app.hold(&user, 300).await;
    let drop = format!("/usage/reservations/{hold}");
    assert_eq!(by_admin(&app, &admin, &user, "DELETE", &drop, None).await.expect(409).code(), "not_the_maker");
    by_proxy(&app, &user, "DELETE", &drop, None).await.expect(409);
    // Another credential of the same user is the same maker.
    let other = app.token(&user.email, &[tallybox::domain::auth::Scope::UsageWrite]).await;
    app.drop_at(&other, &drop).await.expect(204);
}

#[tokio::test]
async fn a_proxys_hold_is_resolved_by_a_proxy() {
    let app = app();
    let user = app.user("a@example.org", "free_trial").await;
    let other = app.user("b@example.org", "free_trial").await;
    let hold = id_of(&by_proxy(&app, &user, "POST", "/usage/reservations", Some(tokens(300))).await.expect(201));
    let settle = format!("/usage/reservations/{hold}/settle");
    app.settle(&user, &hold, 1).await.expect(409);
    by_proxy(&app, &other, "POST", &settle, Some(json!({"amount": 1}))).await.expect(404);
    let request = request("POST", &settle, None, Some(json!({"amount": 1})), &[("X-User-Id", &user.id)]);
    app.call_from("10.1.3.1", request).await.expect(401);
    let reply = by_proxy(&app, &user, "POST", &settle, Some(json!({"amount": 250}))).await.expect(200);
    assert_eq!(reply.json["amount"], 250);
    assert_eq!(app.tokens(&user).await, (250, 0));
    app.proves();
}

#[tokio::test]
async fn the_hold_of_a_disabled_user_is_resolved_by_its_maker_alone() {
    let app = app();
    let user = app.user("a@example.org", "free_trial").await;
    let admin = app.admin("admin@example.org").await;
    let own = app.hold(&user, 100).await;
    let proxys = id_of(&by_proxy(&app, &user, "POST", "/usage/reservations", Some(tokens(100))).await.expect(201));
    let mut acting = Vec::new();
    for _ in 0..2 {
        let reply = by_admin(&app, &admin, &user, "POST", "/usage/reservations", Some(tokens(100))).await.expect(201);
        acting.push(id_of(&reply));
    }
    app.change(&user.email, Changes { disabled: Some(true), ..Changes::default() }).await;
    app.settle(&user, &own, 1).await.expect(401);
    let refused = by_admin(&app, &admin, &user, "POST", "/usage/record", Some(tokens(1))).await.expect(403);
    assert_eq!(refused.code(), "user_disabled");
    by_proxy(&app, &user, "GET", "/usage/tokens", None).await.expect(403);
    let settle = |hold: &str| format!("/usage/reservations/{hold}/settle");
    for not_theirs in [&own, &proxys] {
        by_admin(&app, &admin, &user, "POST", &settle(not_theirs), Some(json!({"amount": 1}))).await.expect(403);
    }
    by_admin(&app, &admin, &user, "POST", &settle(&acting[0]), Some(json!({"amount": 70}))).await.expect(200);
    by_admin(&app, &admin, &user, "DELETE", &format!("/usage/reservations/{}", acting[1]), None).await.expect(204);
    by_proxy(&app, &user, "POST", &settle(&proxys), Some(json!({"amount": 30}))).await.expect(200);
    app.change(&user.email, Changes { disabled: Some(false), ..Changes::default() }).await;
    assert_eq!(app.tokens(&user).await, (100, 100));
    app.proves();
}

#[tokio::test]
async fn a_hold_made_under_another_tier_is_settled_whatever_the_tier() {
    let app = app();
    let user = app.user("a@example.org", "free_trial").await;
    let admin = app.admin("admin@example.org").await;
    let headers = [("X-User-Id", user.id.as_str()), ("X-User-Tier", "basic")];
    let reply = app.tell_with(&admin.token, "/usage/reservations", tokens(40_000), &headers).await.expect(201);
    let settle = format!("/usage/reservations/{}/settle", id_of(&reply));
    by_admin(&app, &admin, &user, "POST", &settle, Some(json!({"amount": 39_000}))).await.expect(200);
    assert_eq!(app.tokens(&user).await, (39_000, 0));
    app.enforce(&user, 1).await.expect(429);
}
