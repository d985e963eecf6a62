//! Ways in that are none: headers, fixed sessions, guessed passwords, floods at the door, paths.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::Request;
use serde_json::json;
use tallybox::domain::auth::Scope;
use tallybox::view::account::scope_field;
use tokio::task::JoinSet;

use super::matrix::session_of;
use crate::suite::support::{PASSWORD, TestApp, form, request};

/// Headers by which proxies say who their client is, or where it meant to go.
const FORGED: [(&str, &str); 14] = [
    ("x-forwarded-for", "127.0.0.1"),
    ("x-forwarded-host", "evil.example"),
    ("x-forwarded-proto", "https"),
    ("x-forwarded-prefix", "/admin"),
    ("x-forwarded-user", "root@example.org"),
    ("x-original-url", "/api/admin/users"),
    ("x-rewrite-url", "/api/admin/users"),
    ("x-http-method-override", "DELETE"),
    ("x-remote-user", "root@example.org"),
    ("x-user-email", "root@example.org"),
    ("x-user-role", "admin"),
    ("x-user-tier", "pro"),
    ("forwarded", "for=127.0.0.1;host=evil.example;proto=https"),
    ("host", "evil.example"),
];

#[tokio::test]
async fn forged_headers_change_neither_who_calls_nor_what_is_asked_nor_where_links_lead() {
    let app = TestApp::new();
    let root = app.admin("root@example.org").await;
    let user = app.user("a@example.org", "basic").await;
    let mut headers = FORGED.to_vec();
    app.call_with("GET", "/auth/me", None, None, &headers).await.expect(401);
    app.call_with("GET", "/api/admin/users", Some(&user.token), None, &headers).await.expect(403);
    let me = app.call_with("GET", "/auth/me", Some(&user.token), None, &headers).await.expect(200).json;
    assert_eq!((&me["id"], &me["role"], &me["tier"]), (&json!(user.id), &json!("user"), &json!("basic")));
    let limit = app.call_with("GET", "/usage/tokens", Some(&user.token), None, &headers).await.expect(200).json;
    assert_eq!(limit["limit"], 50_000);
    // Also from a peer whom only others than this box trust, with the id of another.
    headers.push(("x-user-id", &root.id));
    let forged = request("GET", "/usage/tier", None, None, &headers);
    app.call_from("192.0.2.1", forged).await.expect(401);
    app.call_with("GET", "/usage/tier", Some(&user.token), None, &headers).await.expect(403);
    headers.pop();
    // A link that an administrator passes on leads where the configuration says, or is a path.
    let path = format!("/api/admin/users/{}/password", user.id);
    let session = session_of(&app, &root.email).await;
    let reset = app.call_with("POST", &path, Some(&session), Some(json!({})), &headers).await.expect(200);
    assert!(reset.text.contains("\"/setup?token=") && !reset.text.contains("evil"), "{}", reset.text);
}

#[tokio::test]
async fn a_session_that_was_brought_along_is_never_the_one_that_a_login_begins() {
    let app = TestApp::new();
    app.user_with_password("victim@example.org", "basic").await;
    app.user_with_password("attacker@example.org", "basic").await;
    let planted = session_of(&app, "attacker@example.org").await;
    let invented = format!("tbs_{}", "A".repeat(43));
    for brought in [planted.as_str(), invented.as_str()] {
        let cookie = format!("tallybox_session={brought}");
        let fields = [("email", "victim@example.org"), ("password", PASSWORD)];
        let reply = app.send(form("/login", Some(&cookie), &fields)).await.expect(303);
        assert!(!reply.header("set-cookie").contains(brought));
        // Neither opens anything of the victim's afterwards.
        app.call_with("GET", "/usage", None, None, &[("cookie", &cookie)]).await.expect(303);
        app.ask(brought, "/auth/me").await.expect(401);
    }
}

#[tokio::test]
async fn a_form_of_another_site_does_nothing_on_any_page() {
    let app = TestApp::new();
    app.admin("root@example.org").await;
    let session = session_of(&app, "root@example.org").await;
    let cookie = format!("tallybox_session={session}");
    let posts = tallybox::app::App::routes()
        .into_iter()
        .filter(|(method, _, access)| *access == tallybox::app::Access::Page && method.as_str() == "POST");
    let posts: Vec<String> = posts.map(|(_, path, _)| path).collect();
    assert!(posts.len() > 10);
    let before = app.ask(&session, "/api/admin/audit").await.expect(200).json;
    for path in posts {
        let path = path.replace("{id}", super::ids::MISSING).replace("{token_id}", super::ids::MISSING);
        for (name, value) in [
            ("origin", "http://evil.example"),
            ("origin", "null"),
            ("origin", "http://box.test.evil.example"),
            ("origin", "http://box.test:8080"),
            ("sec-fetch-site", "cross-site"),
        ] {
            let mut forged = form(&path, Some(&cookie), &[]);
            if name != "origin" {
                forged.headers_mut().remove("origin");
            }
            forged.headers_mut().insert(name, value.parse().unwrap());
            let reply = app.send(forged).await;
            assert_eq!(reply.status, 403, "{path} with {name}: {value}: {}", reply.text);
        }
    }
    assert_eq!(app.ask(&session, "/api/admin/audit").await.expect(200).json, before);
    app.ask(&session, "/auth/me").await.expect(200);
}

/// How many of nine logins at once a pool with room for five took, and how many found it full.
async fn flood(app: &Arc<TestApp>, email: &'static str) -> (usize, usize) {
    let mut logins = JoinSet::new();
    for number in 0..9 {
        let app = Arc::clone(app);
        logins.spawn(async move {
            let body = json!({"email": email, "password": "a wrong one, as it were"});
            let login = request("POST", "/auth/login", None, Some(body), &[]);
            // From as many addresses, so that no count of failures comes in between.
            app.call_from(&format!("192.0.2.{number}"), login).await.status
        });
    }
    let statuses = logins.join_all().await;
    let count = |wanted| statuses.iter().filter(|status| **status == wanted).count();
    assert_eq!(count(401) + count(503), 9, "{statuses:?}");
    (count(401), count(503))
}

/// Which addresses there are shows neither in the answer nor in the work: each attempt takes a place of the pool that only
/// the hash of a password gives back, and the hash that stands for nobody's has the parameters of all others.
#[tokio::test]
async fn a_login_of_nobody_takes_the_same_work_as_one_of_somebody() {
    let app = Arc::new(TestApp::with_config("[auth]\npassword_queue = 3"));
    app.admin("root@example.org").await;
    app.user_with_password("known@example.org", "basic").await;
    app.user("passwordless@example.org", "basic").await;
    let gone = app.user_with_password("disabled@example.org", "basic").await;
    let session = session_of(&app, "root@example.org").await;
    let path = format!("/api/admin/users/{}", gone.id);
    app.call("PATCH", &path, Some(&session), Some(json!({"disabled": true}))).await.expect(200);
    for email in ["known@example.org", "unknown@example.org", "passwordless@example.org", "disabled@example.org"] {
        // Two are hashed and three wait; on a busy machine one may end before the last comes.
        let (hashed, busy) = flood(&app, email).await;
        assert!(hashed >= 5 && busy >= 1, "{email}: {hashed} hashed, {busy} turned away");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_logins_at_once_keep_nobody_else_waiting() {
    let app = Arc::new(TestApp::with_config("[auth]\npassword_queue = 200"));
    let user = app.user_with_password("a@example.org", "basic").await;
    let answered = Arc::new(AtomicUsize::new(0));
    let mut logins = JoinSet::new();
    for number in 0..200 {
        let (app, answered) = (Arc::clone(&app), Arc::clone(&answered));
        logins.spawn(async move {
            let body = json!({"email": format!("{number}@example.org"), "password": "some password"});
            let login = request("POST", "/auth/login", None, Some(body), &[]);
            let status = app.call_from(&format!("198.51.100.{number}"), login).await.status;
            answered.fetch_add(1, Ordering::SeqCst);
            status
        });
    }
    // The pool is at work, and has a long way to go.
    while answered.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    app.call("GET", "/healthz", None, None).await.expect(200);
    app.call("GET", "/readyz", None, None).await.expect(200);
    app.used_up(&user, 1).await;
    assert!(answered.load(Ordering::SeqCst) < 200, "the others were answered after all logins");
    let statuses = logins.join_all().await;
    assert!(statuses.iter().all(|status| *status == 401), "{statuses:?}");
}

#[tokio::test]
async fn a_scope_that_a_user_may_not_give_is_refused_on_the_page_as_well() {
    let app = TestApp::new();
    app.user_with_password("a@example.org", "basic").await;
    let session = session_of(&app, "a@example.org").await;
    let cookie = format!("tallybox_session={session}");
    for scope in [Scope::Admin, Scope::ActAs, Scope::Metrics] {
        let (plain, privileged) = (scope_field(Scope::UsageRead), scope_field(scope));
        let fields = [("name", "more"), ("expires", "30"), (plain.as_str(), "on"), (privileged.as_str(), "on")];
        let reply = app.send(form("/account/tokens", Some(&cookie), &fields)).await;
        assert!([403, 422].contains(&reply.status), "{privileged}: {} {}", reply.status, reply.text);
    }
    let tokens = app.ask(&session, "/auth/tokens").await.expect(200).json["tokens"].as_array().unwrap().len();
    assert_eq!(tokens, 1, "the one that the test has made");
    // Nor does who acts for an administrator get what is an administrator's.
    let root = app.admin("root@example.org").await;
    let acting = app.token("root@example.org", &[Scope::UsageRead, Scope::ActAs]).await;
    let named = [("x-user-id", root.id.as_str()), ("x-user-role", "admin")];
    let body = json!({"name": "more", "scopes": ["admin"]});
    app.call_with("POST", "/auth/tokens", Some(&acting), Some(body), &named).await.expect(403);
}

#[tokio::test]
async fn a_path_leads_to_no_file_and_around_no_guard() {
    let app = TestApp::new();
    let user = app.user("a@example.org", "basic").await;
    for path in [
        "/assets/../Cargo.toml",
        "/assets/..%2f..%2fCargo.toml",
        "/assets/%2e%2e/%2e%2e/etc/passwd",
        "/assets/..%5c..%5cetc%5cpasswd",
        "/assets/%2fetc%2fpasswd",
        "/assets//etc/passwd",
        "/assets/tallybox.css%00.png",
        "/assets/.%2e/tallybox.css",
        "/assets/",
        "/api/assets/tallybox.css",
    ] {
        let reply = app.ask(&user.token, path).await;
        assert_eq!(reply.status, 404, "{path}: {}", reply.text);
    }
    // Spellings of a guarded path are that path or none.
    for path in [
        "/api/admin/users/",
        "/api//admin/users",
        "//api/admin/users",
        "/api/./admin/users",
        "/api/admin/../admin/users",
        "/api/admin%2fusers",
        "/API/admin/users",
        "/api/admin/users;a=b",
        "/api/api/admin/users",
        "/usage/../api/admin/users",
        "/healthz/../api/admin/users",
        "/api/admin/users%20",
        "/api/admin/users.json",
    ] {
        let request = Request::get(path).header("authorization", format!("Bearer {}", user.token));
        let reply = app.send(request.body(axum::body::Body::empty()).unwrap()).await;
        assert!([403, 404].contains(&reply.status), "{path}: {} {}", reply.status, reply.text);
        assert!(!reply.text.contains("a@example.org"), "{path}");
    }
}
