//! Every route of the table x everyone who may knock. A new route is in here by itself.

use http::Method;
use serde_json::json;
use tallybox::app::{Access, App};
use tallybox::domain::auth::Scope;

use super::support::{Reply, TestApp, request};

/// The path with something in the place of its parameters.
fn concrete(path: &str) -> String {
    path.replace("{resource}", "llm_tokens")
        .replace("{name}", "tallybox.css")
        .replace("{id}", MISSING)
        .replace("{token_id}", MISSING)
}

const MISSING: &str = "00000000-0000-7000-8000-000000000000";

async fn knock(app: &TestApp, method: &Method, path: &str, token: Option<&str>) -> Reply {
    app.call(method.as_str(), &concrete(path), token, None).await
}

fn guarded() -> impl Iterator<Item = (Method, String, Access)> {
    App::routes().into_iter().filter(|(_, _, access)| !matches!(access, Access::Open | Access::Page))
}

/// The scope that a route asks for, where it asks for one.
fn scope_of(access: Access) -> Option<Scope> {
    match access {
        Access::Scope(scope) => Some(scope),
        Access::Admin => Some(Scope::Admin),
        Access::Open | Access::Page | Access::AnyCredential | Access::Session => None,
    }
}

#[tokio::test]
async fn the_table_holds_every_part_of_the_api() {
    let routes = App::routes();
    for path in
        ["/usage/record", "/api/usage/record", "/memory/store", "/api/memory/{id}", "/api/auth/me", "/api/admin/audit"]
    {
        assert!(routes.iter().any(|(_, known, _)| known == path), "{path}");
    }
    assert!(routes.len() > 60, "{}", routes.len());
}

#[tokio::test]
async fn nobody_gets_in_without_a_live_credential() {
    let app = TestApp::new();
    let admin = app.admin("admin@example.org").await;
    let user = app.user("user@example.org", "basic").await;
    let session = app.log_in("admin@example.org").await;
    let disabled = app.user("disabled@example.org", "basic").await;
    let path = format!("/api/admin/users/{}", disabled.id);
    app.call("PATCH", &path, Some(&session), Some(json!({"disabled": true}))).await.expect(200);
    let revoked = app.call("POST", "/auth/tokens", Some(&session), Some(json!({"name": "r"}))).await.expect(201);
    let path = format!("/auth/tokens/{}", revoked.json["id"].as_str().unwrap());
    app.call("DELETE", &path, Some(&session), None).await.expect(204);
    let body = json!({"name": "e", "expiresInDays": 1});
    let expired = app.call("POST", "/auth/tokens", Some(&session), Some(body)).await.expect(201);
    app.clock.advance_millis(86_400_000);
    let never = "tbx_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let sql = "tbx_' OR 1=1 --";
    for (method, path, _) in guarded() {
        let revoked = revoked.json["token"].as_str();
        let expired = expired.json["token"].as_str();
        for token in [None, Some(disabled.token.as_str()), revoked, expired, Some(never), Some(sql)] {
            let reply = knock(&app, &method, &path, token).await;
            assert_eq!((reply.status, reply.code()), (401, "unauthenticated"), "{method} {path}: {}", reply.text);
            assert_eq!(reply.header("www-authenticate"), "Bearer");
        }
    }
    knock(&app, &Method::GET, "/auth/me", Some(&user.token)).await.expect(200);
    knock(&app, &Method::GET, "/auth/me", Some(&admin.token)).await.expect(200);
}

#[tokio::test]
async fn a_token_opens_what_its_scope_says_and_nothing_else() {
    let app = TestApp::new();
    app.admin("admin@example.org").await;
    for missing in Scope::ALL {
        let others: Vec<Scope> = Scope::ALL.into_iter().filter(|scope| *scope != missing).collect();
        let token = app.token("admin@example.org", &others).await;
        for (method, path, access) in guarded() {
            let reply = knock(&app, &method, &path, Some(&token)).await;
            let lacks = scope_of(access) == Some(missing);
            let refused = reply.status == 403 && reply.code() == "scope_required";
            assert_eq!(refused, lacks, "{method} {path} without {}: {}", missing.as_str(), reply.text);
            if lacks && path.starts_with("/v1/") {
                assert!(reply.text.contains(missing.as_str()), "{}", reply.text);
            } else if lacks {
                assert_eq!(reply.json["scope"], missing.as_str(), "{}", reply.text);
            }
        }
    }
}

#[tokio::test]
async fn sessions_alone_reach_what_is_theirs_and_plain_users_no_administration() {
    let app = TestApp::new();
    app.admin("admin@example.org").await;
    app.user_with_password("user@example.org", "basic").await;
    let all = app.token("admin@example.org", &Scope::ALL).await;
    let session = app.log_in("user@example.org").await;
    for (method, path, access) in guarded() {
        let by_token = knock(&app, &method, &path, Some(&all)).await;
        assert_eq!(
            by_token.code() == "session_required",
            access == Access::Session,
            "{method} {path}: {}",
            by_token.text
        );
        if access == Access::Admin {
            let by_user = knock(&app, &method, &path, Some(&session)).await;
            assert_eq!((by_user.status, by_user.code()), (403, "scope_required"), "{method} {path}: {}", by_user.text);
        }
    }
}

#[tokio::test]
async fn who_acts_for_another_never_reaches_identity_or_administration() {
    let app = TestApp::new();
    app.admin("admin@example.org").await;
    let user = app.user("user@example.org", "basic").await;
    let token = app.token("admin@example.org", &Scope::ALL).await;
    for (method, path, access) in guarded().filter(|(_, _, access)| !matches!(access, Access::Scope(_))) {
        let named = [("X-User-Id", user.id.as_str())];
        let reply = app.call_with(method.as_str(), &concrete(&path), Some(&token), None, &named).await;
        assert_eq!(reply.status, 403, "{method} {path} ({access:?}): {}", reply.text);
    }
}

#[tokio::test]
async fn a_page_without_a_session_leads_to_the_door_and_the_api_takes_no_cookie() {
    let app = TestApp::new();
    app.user_with_password("user@example.org", "basic").await;
    let session = app.log_in("user@example.org").await;
    let reply = app.call("GET", "/usage?days=7", None, None).await.expect(303);
    assert_eq!(reply.header("location"), "/login?next=%2Fusage%3Fdays%3D7");
    let cookie = format!("tallybox_session={session}");
    app.call_with("GET", "/usage", None, None, &[("Cookie", &cookie)]).await.expect(200);
    for (method, path, _) in guarded() {
        let reply = app.call_with(method.as_str(), &concrete(&path), None, None, &[("Cookie", &cookie)]).await;
        assert_eq!(reply.status, 401, "{method} {path} by cookie");
    }
}

#[tokio::test]
async fn pages_of_the_named_origins_may_call_with_any_header_and_no_others() {
    let app = TestApp::with_config("[server]\ncors_origins = [\"https://app.example.org\"]\n");
    for (origin, allowed) in [("https://app.example.org", "https://app.example.org"), ("https://other.example.org", "")]
    {
        let asked = "authorization, content-type, x-stainless-lang, x-tallybox-memory";
        let headers =
            [("origin", origin), ("access-control-request-method", "POST"), ("access-control-request-headers", asked)];
        let reply = app.call_with("OPTIONS", "/v1/chat/completions", None, None, &headers).await.expect(200);
        assert_eq!(reply.header("access-control-allow-origin"), allowed);
        assert_eq!(reply.header("access-control-allow-headers"), asked);
        assert_eq!(reply.header("access-control-allow-credentials"), "");
        let reply = app.call_with("GET", "/openapi.json", None, None, &headers).await.expect(200);
        assert_eq!(reply.header("access-control-allow-origin"), allowed);
        // A page is no part of the API.
        for (method, page) in [("OPTIONS", "/login"), ("GET", "/login"), ("GET", "/usage"), ("GET", "/docs")] {
            let reply = app.call_with(method, page, None, None, &headers).await;
            assert_eq!(reply.header("access-control-allow-origin"), "", "{method} {page}");
        }
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_said_before_that_the_user_it_names_is_unknown() {
    let app = TestApp::with_config("[auth]\nidentity_proxies = ['127.0.0.1']");
    let stranger = [("x-user-id", "00000000-0000-4000-8000-000000000000")];
    let body = |method: &str, path: &str, text: &'static str, media: &str| {
        let mut request = request(method, path, None, None, &[stranger[0], ("content-type", media)]);
        *request.body_mut() = axum::body::Body::from(text);
        request
    };
    let routes = [
        ("POST", "/usage/record", Some(json!({"resourceType": "llm_tokens", "amount": 1}))),
        ("POST", "/usage/check-quota", Some(json!({"resourceType": "llm_tokens", "amount": 1}))),
        ("POST", "/usage/reservations", Some(json!({"resourceType": "llm_tokens", "amount": 1}))),
        ("POST", "/memory/store", Some(json!({"type": "n", "input_context": "x", "embedding": vec![1; 384]}))),
        ("POST", "/memory/search", Some(json!({"query": "x", "mode": "keyword"}))),
        ("POST", "/agents/runs", Some(json!({}))),
        ("POST", "/v1/embeddings", Some(json!({"model": "all-minilm-l6-v2", "input": "x"}))),
        ("GET", "/usage/stats", None),
        ("GET", "/memory", None),
        ("GET", "/memory/export", None),
        ("GET", "/agents/runs", None),
        ("GET", "/v1/models", None),
    ];
    for (method, path, good) in routes {
        app.call_with(method, path, None, good.clone(), &stranger).await.expect(404);
        if good.is_none() {
            let faulty = if path.starts_with("/v1") { 404 } else { 422 };
            app.call_with(method, &format!("{path}?colour=red"), None, None, &stranger).await.expect(faulty);
            continue;
        }
        app.call_from("127.0.0.1", body(method, path, "{}", "text/plain")).await.expect(415);
        app.call_from("127.0.0.1", body(method, path, "{", "application/json")).await.expect(400);
        app.call_with(method, path, None, Some(json!({"colour": "red", "input": 7})), &stranger).await.expect(422);
    }
    app.proves();
}
