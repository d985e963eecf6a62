//! Who calls, and what they may do.

use serde_json::json;
use tallybox::domain::auth::{Role, Scope};
use tallybox::service::auth::account::{Changes, load_by_email, reset_password};
use tallybox::service::auth::password;

use super::support::{PASSWORD, TestApp, request};

const DAY_MS: i64 = 86_400_000;

/// The status of a plain question with a token.
async fn status(app: &TestApp, token: &str) -> u16 {
    app.call("GET", "/auth/me", Some(token), None).await.status
}

#[tokio::test]
async fn a_login_answers_with_a_session_that_says_who_it_is() {
    let app = TestApp::new();
    let user = app.user_with_password("Ann@Example.org", "basic").await;
    let body = json!({"email": "aNN@example.ORG", "password": PASSWORD});
    for path in ["/auth/login", "/api/auth/login"] {
        let reply = app.call("POST", path, None, Some(body.clone())).await.expect(200);
        assert_eq!(reply.header("cache-control"), "no-store");
        assert!(reply.json["token"].as_str().unwrap().starts_with("tbs_"));
        assert_eq!(reply.json["expiresAt"], "2026-04-09T12:00:00.000Z");
        let wanted = json!({"id": user.id, "email": "Ann@Example.org", "role": "user", "tier": "basic"});
        assert_eq!(reply.json["user"], wanted);
    }
    let session = app.log_in("ann@example.org").await;
    let me = app.call("GET", "/api/auth/me", Some(&session), None).await.expect(200);
    let scopes = json!(["usage:read", "usage:write", "memory:read", "memory:write", "gateway"]);
    assert_eq!(me.json["scopes"], scopes);
    assert_eq!((&me.json["id"], &me.json["tier"]), (&json!(user.id), &json!("basic")));
    app.call("POST", "/auth/logout", Some(&session), None).await.expect(204);
    let ended = app.call("GET", "/auth/me", Some(&session), None).await.expect(401);
    assert_eq!(ended.header("www-authenticate"), "Bearer");
    assert_eq!(ended.header("content-type"), "application/problem+json");
}

#[tokio::test]
async fn a_wrong_password_and_an_unknown_address_are_the_same_refusal() {
    let app = TestApp::new();
    app.user_with_password("a@example.org", "basic").await;
    app.user("nopassword@example.org", "basic").await;
    let mut answers = Vec::new();
    for email in ["a@example.org", "b@example.org", "nopassword@example.org"] {
        let body = json!({"email": email, "password": "not the password"});
        let mut reply = app.call("POST", "/auth/login", None, Some(body)).await.expect(401);
        reply.json["requestId"] = json!(null);
        answers.push(reply.json);
    }
    assert_eq!(answers[0], answers[1]);
    assert_eq!(answers[0], answers[2]);
}

#[tokio::test]
async fn every_fault_of_a_login_is_named() {
    let app = TestApp::new();
    let reply = app.call("POST", "/auth/login", None, Some(json!({"email": 7, "colour": 1}))).await.expect(422);
    let fields: Vec<&str> =
        reply.json["errors"].as_array().unwrap().iter().map(|fault| fault["field"].as_str().unwrap()).collect();
    assert_eq!(fields, ["email", "password", "colour"]);
}

#[tokio::test]
async fn ten_failures_from_one_address_for_one_email_wait_five_minutes() {
    let app = TestApp::new();
    app.user_with_password("a@example.org", "basic").await;
    app.user_with_password("b@example.org", "basic").await;
    let attempt = |email: &str, password: &str| json!({"email": email, "password": password});
    for _ in 0..10 {
        app.call("POST", "/auth/login", None, Some(attempt("a@example.org", "wrong password"))).await.expect(401);
    }
    let right = attempt("A@example.org", PASSWORD);
    let limited = app.call("POST", "/auth/login", None, Some(right.clone())).await.expect(429);
    assert_eq!((limited.code(), limited.header("retry-after")), ("rate_limited", "300"));
    // Neither another user from here nor this user from elsewhere waits.
    app.call("POST", "/auth/login", None, Some(attempt("b@example.org", PASSWORD))).await.expect(200);
    let elsewhere = request("POST", "/auth/login", None, Some(right.clone()), &[]);
    app.call_from("192.0.2.7", elsewhere).await.expect(200);
    // A client cannot choose its address.
    let forged = [("x-forwarded-for", "192.0.2.8"), ("x-real-ip", "192.0.2.8"), ("forwarded", "for=192.0.2.8")];
    app.call_with("POST", "/auth/login", None, Some(right.clone()), &forged).await.expect(429);
    app.clock.advance_millis(300_000);
    app.call("POST", "/auth/login", None, Some(right)).await.expect(200);
}

#[tokio::test]
async fn of_many_wrong_logins_at_once_ten_are_answered() {
    let app = TestApp::new();
    let body = json!({"email": "a@example.org", "password": "wrong password"});
    let calls = (0..14).map(|_| app.call("POST", "/auth/login", None, Some(body.clone())));
    let replies = futures_all(calls).await;
    assert_eq!(replies.iter().filter(|status| **status == 401).count(), 10, "{replies:?}");
    assert_eq!(replies.iter().filter(|status| **status == 429).count(), 4, "{replies:?}");
}

/// Runs calls at once, in one task.
async fn futures_all(calls: impl Iterator<Item = impl Future<Output = super::support::Reply>>) -> Vec<u16> {
    let mut calls: Vec<_> = calls.map(Box::pin).map(Some).collect();
    let mut statuses = vec![0; calls.len()];
    std::future::poll_fn(|context| {
        for (call, status) in calls.iter_mut().zip(&mut statuses) {
            if let Some(future) = call
                && let std::task::Poll::Ready(reply) = future.as_mut().poll(context)
            {
                *status = reply.status;
                *call = None;
            }
        }
        if calls.iter().all(Option::is_none) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    statuses
}

#[tokio::test]
async fn a_password_changed_by_its_owner_ends_all_other_sessions_and_on_wish_the_tokens() {
    let app = TestApp::new();
    let user = app.user_with_password("a@example.org", "basic").await;
    let (this, other) = (app.log_in("a@example.org").await, app.log_in("a@example.org").await);
    let wrong = json!({"currentPassword": "wrong password", "newPassword": "another good password"});
    app.call("POST", "/auth/password", Some(&this), Some(wrong)).await.expect(401);
    let short = json!({"currentPassword": PASSWORD, "newPassword": "short"});
    app.call("POST", "/auth/password", Some(&this), Some(short)).await.expect(422);
    let good = json!({"currentPassword": PASSWORD, "newPassword": "another good password"});
    app.call("POST", "/auth/password", Some(&user.token), Some(good.clone())).await.expect(403);
    app.call("POST", "/auth/password", Some(&this), Some(good)).await.expect(204);
    assert_eq!((status(&app, &this).await, status(&app, &other).await), (200, 401));
    assert_eq!(status(&app, &user.token).await, 200);
    let body = json!({"email": "a@example.org", "password": PASSWORD});
    app.call("POST", "/auth/login", None, Some(body)).await.expect(401);
    let again = json!({
        "currentPassword": "another good password", "newPassword": PASSWORD, "revokeTokens": true,
    });
    app.call("POST", "/auth/password", Some(&this), Some(again)).await.expect(204);
    assert_eq!((status(&app, &this).await, status(&app, &user.token).await), (200, 401));
}

#[tokio::test]
async fn a_reset_password_ends_all_sessions_and_revokes_all_tokens() {
    let app = TestApp::new();
    let user = app.user_with_password("a@example.org", "basic").await;
    let bystander = app.user_with_password("b@example.org", "basic").await;
    let session = app.log_in("a@example.org").await;
    let (by, hash) = (app.by(), password::hash("another good password").unwrap());
    let reset = app.app.store().write(move |writer| {
        let user = load_by_email(writer, "a@example.org")?;
        reset_password(writer, &by, &user, Some(&hash))
    });
    assert!(reset.await.unwrap().is_none());
    assert_eq!((status(&app, &session).await, status(&app, &user.token).await), (401, 401));
    assert_eq!(status(&app, &bystander.token).await, 200);
}

#[tokio::test]
async fn a_disabled_user_is_out_and_its_tokens_work_again_when_it_is_enabled() {
    let app = TestApp::new();
    let user = app.user_with_password("a@example.org", "basic").await;
    let session = app.log_in("a@example.org").await;
    app.change("a@example.org", Changes { disabled: Some(true), ..Changes::default() }).await;
    assert_eq!((status(&app, &session).await, status(&app, &user.token).await), (401, 401));
    let body = json!({"email": "a@example.org", "password": PASSWORD});
    app.call("POST", "/auth/login", None, Some(body)).await.expect(401);
    app.change("a@example.org", Changes { disabled: Some(false), ..Changes::default() }).await;
    assert_eq!((status(&app, &session).await, status(&app, &user.token).await), (401, 200));
    app.log_in("a@example.org").await;
}

#[tokio::test]
async fn a_lowered_admin_loses_its_sessions_and_the_privileged_scopes() {
    let app = TestApp::new();
    app.admin("root@example.org").await;
    let lowered = app.admin("a@example.org").await;
    let session = app.log_in("a@example.org").await;
    let me = app.call("GET", "/auth/me", Some(&session), None).await.expect(200);
    let scopes = me.json["scopes"].as_array().unwrap();
    assert!(scopes.contains(&json!("admin")) && !scopes.contains(&json!("act-as")));
    app.change("a@example.org", Changes { role: Some(Role::User), ..Changes::default() }).await;
    assert_eq!(status(&app, &session).await, 401);
    let me = app.call("GET", "/auth/me", Some(&lowered.token), None).await.expect(200);
    let scopes = me.json["scopes"].as_array().unwrap();
    assert!(!scopes.contains(&json!("admin")) && !scopes.contains(&json!("act-as")));
}

#[tokio::test]
async fn sessions_end_after_seven_idle_days_or_thirty_days() {
    let app = TestApp::new();
    app.user_with_password("a@example.org", "basic").await;
    let (used, idle) = (app.log_in("a@example.org").await, app.log_in("a@example.org").await);
    for _ in 0..4 {
        app.clock.advance_millis(6 * DAY_MS);
        assert_eq!(status(&app, &used).await, 200);
        app.pass().await;
    }
    assert_eq!(status(&app, &idle).await, 401);
    app.clock.advance_millis(6 * DAY_MS - 1);
    assert_eq!(status(&app, &used).await, 200);
    app.clock.advance_millis(1);
    assert_eq!(status(&app, &used).await, 401);
}

#[tokio::test]
async fn tokens_are_made_by_a_session_shown_once_and_revoked_one_by_one() {
    let app = TestApp::new();
    let user = app.user_with_password("a@example.org", "basic").await;
    let session = app.log_in("a@example.org").await;
    for (method, path) in [("GET", "/auth/tokens"), ("POST", "/auth/tokens"), ("POST", "/auth/logout")] {
        let refused = app.call(method, path, Some(&user.token), None).await.expect(403);
        assert_eq!(refused.code(), "session_required");
    }
    let body = json!({"name": "ci", "scopes": ["usage:read"], "expiresInDays": 2});
    let made = app.call("POST", "/auth/tokens", Some(&session), Some(body)).await.expect(201);
    let secret = made.json["token"].as_str().unwrap();
    assert_eq!(made.json["expiresAt"], "2026-03-12T12:00:00.000Z");
    assert_eq!(made.header("cache-control"), "no-store");
    app.call("GET", "/usage/tokens", Some(secret), None).await.expect(200);
    let record = json!({"resourceType": "llm_tokens", "amount": 1});
    let refused = app.call("POST", "/usage/record", Some(secret), Some(record)).await.expect(403);
    assert_eq!((refused.code(), &refused.json["scope"]), ("scope_required", &json!("usage:write")));
    app.pass().await;
    let list = app.call("GET", "/api/auth/tokens", Some(&session), None).await.expect(200);
    let tokens = list.json["tokens"].as_array().unwrap();
    assert_eq!((tokens.len(), &tokens[0]["name"]), (2, &json!("ci")));
    assert_eq!(tokens[0]["lastUsedAt"], "2026-03-10T12:00:00.000Z");
    assert!(!list.text.contains(&secret[4..]) && !list.text.contains("hash"), "{}", list.text);
    app.clock.advance_millis(2 * DAY_MS);
    assert_eq!((status(&app, secret).await, status(&app, &user.token).await), (401, 200));
    let path = format!("/auth/tokens/{}", tokens[1]["id"].as_str().unwrap());
    app.call("DELETE", &path, Some(&session), None).await.expect(204);
    assert_eq!(status(&app, &user.token).await, 401);
    app.call("DELETE", &path, Some(&session), None).await.expect(404);
    app.call("DELETE", "/auth/tokens/nonsense", Some(&session), None).await.expect(404);
}

#[tokio::test]
async fn nobody_sees_or_revokes_the_tokens_of_another() {
    let app = TestApp::new();
    app.user_with_password("a@example.org", "basic").await;
    let victim = app.user_with_password("b@example.org", "basic").await;
    let (ours, theirs) = (app.log_in("a@example.org").await, app.log_in("b@example.org").await);
    let list = app.call("GET", "/auth/tokens", Some(&theirs), None).await.expect(200);
    let path = format!("/auth/tokens/{}", list.json["tokens"][0]["id"].as_str().unwrap());
    app.call("DELETE", &path, Some(&ours), None).await.expect(404);
    assert_eq!(status(&app, &victim.token).await, 200);
}

#[tokio::test]
async fn a_list_of_tokens_comes_in_pages() {
    let app = TestApp::new();
    app.user_with_password("a@example.org", "basic").await;
    let session = app.log_in("a@example.org").await;
    for number in 0..4 {
        let body = json!({"name": format!("number {number}")});
        app.call("POST", "/auth/tokens", Some(&session), Some(body)).await.expect(201);
    }
    let mut names = Vec::new();
    let mut path = "/auth/tokens?limit=2".to_owned();
    loop {
        let page = app.call("GET", &path, Some(&session), None).await.expect(200);
        names.extend(page.json["tokens"].as_array().unwrap().iter().map(|token| token["name"].clone()));
        let Some(cursor) = page.json["nextCursor"].as_str() else { break };
        path = format!("/auth/tokens?limit=2&cursor={cursor}");
    }
    assert_eq!(names, ["number 3", "number 2", "number 1", "number 0", "test"]);
    for query in ["limit=0", "limit=101", "cursor=!", "cursor=", "colour=red"] {
        app.call("GET", &format!("/auth/tokens?{query}"), Some(&session), None).await.expect(422);
    }
}

#[tokio::test]
async fn only_an_admin_puts_a_privileged_scope_on_a_token() {
    let app = TestApp::new();
    app.user_with_password("a@example.org", "basic").await;
    app.admin("root@example.org").await;
    let (plain, root) = (app.log_in("a@example.org").await, app.log_in("root@example.org").await);
    for scope in ["metrics", "admin", "act-as"] {
        let body = json!({"name": "more", "scopes": ["usage:read", scope]});
        app.call("POST", "/auth/tokens", Some(&plain), Some(body.clone())).await.expect(403);
        app.call("POST", "/auth/tokens", Some(&root), Some(body)).await.expect(201);
    }
    for wrong in [json!(["root"]), json!([]), json!("usage:read"), json!([7])] {
        let body = json!({"name": "", "scopes": wrong, "expiresInDays": 0});
        let reply = app.call("POST", "/auth/tokens", Some(&root), Some(body)).await.expect(422);
        assert_eq!(reply.json["errors"].as_array().unwrap().len(), 3, "{}", reply.text);
    }
}

#[tokio::test]
async fn headers_that_name_a_user_are_believed_from_nobody_by_default() {
    let app = TestApp::new();
    let (ours, theirs) = (app.user("a@example.org", "basic").await, app.user("b@example.org", "pro").await);
    let named = [("x-user-id", theirs.id.as_str()), ("x-user-tier", "pro"), ("x-user-role", "admin")];
    app.call_with("GET", "/usage/tier", None, None, &named).await.expect(401);
    app.call_with("GET", "/usage/tier", Some(&ours.token), None, &named).await.expect(403);
    let own = [("x-user-id", ours.id.as_str()), ("x-user-tier", "pro"), ("x-user-role", "admin")];
    let reply = app.call_with("GET", "/usage/tier", Some(&ours.token), None, &own).await.expect(200);
    assert_eq!((&reply.json["userId"], &reply.json["tier"]), (&json!(ours.id), &json!("basic")));
    let me = app.call_with("GET", "/auth/me", Some(&ours.token), None, &own).await.expect(200);
    assert_eq!(me.json["role"], "user");
}

#[tokio::test]
async fn act_as_names_another_user_and_never_reaches_their_account() {
    let app = TestApp::new();
    app.admin("root@example.org").await;
    let named = app.user("a@example.org", "basic").await;
    let token = app.token("root@example.org", &[Scope::UsageRead, Scope::ActAs]).await;
    let header = [("x-user-id", named.id.as_str())];
    let reply = app.call_with("GET", "/usage/tier", Some(&token), None, &header).await.expect(200);
    assert_eq!((&reply.json["userId"], &reply.json["tier"]), (&json!(named.id), &json!("basic")));
    let raised = [("x-user-id", named.id.as_str()), ("x-user-tier", "pro")];
    let reply = app.call_with("GET", "/usage/tokens", Some(&token), None, &raised).await.expect(200);
    assert_eq!(reply.json["limit"], -1);
    let reply = app.call("GET", "/usage/tokens", Some(&named.token), None).await.expect(200);
    assert_eq!(reply.json["limit"], 50_000);
    let unknown_tier = [("x-user-id", named.id.as_str()), ("x-user-tier", "gold")];
    app.call_with("GET", "/usage/tier", Some(&token), None, &unknown_tier).await.expect(422);
    let stranger = [("x-user-id", "00000000-0000-4000-8000-000000000000")];
    app.call_with("GET", "/usage/tier", Some(&token), None, &stranger).await.expect(404);
    let strangers = [header, stranger, [("x-user-id", "nobody")]].map(|named| vec![named[0]]);
    for named in strangers.into_iter().chain([unknown_tier.to_vec()]) {
        for path in ["/auth/me", "/auth/tokens"] {
            let refused = app.call_with("GET", path, Some(&token), None, &named).await.expect(403);
            assert_eq!(refused.code(), "acting_for_another", "{path} for {named:?}");
        }
    }
    // The token's own scopes still bound it.
    let body = json!({"resourceType": "llm_tokens", "amount": 1});
    app.call_with("POST", "/usage/record", Some(&token), Some(body), &header).await.expect(403);
    app.change("a@example.org", Changes { disabled: Some(true), ..Changes::default() }).await;
    app.call_with("GET", "/usage/tier", Some(&token), None, &header).await.expect(403);
}

#[tokio::test]
async fn an_identity_proxy_names_users_and_a_bearer_of_ours_wins_over_it() {
    let app = TestApp::with_config("[auth]\nidentity_proxies = ['10.1.0.0/16']");
    let (ours, theirs) = (app.user("a@example.org", "basic").await, app.user("b@example.org", "pro").await);
    let named = [("x-user-id", theirs.id.as_str())];
    let call = |token: Option<&str>| request("GET", "/usage/tier", token, None, &named);
    let reply = app.call_from("10.1.2.3", call(None)).await.expect(200);
    assert_eq!(reply.json["userId"], theirs.id);
    // The token of another system counts as none.
    app.call_from("10.1.2.3", call(Some("eyJhbGciOi.other.jwt"))).await.expect(200);
    app.call_from("10.1.2.3", call(Some(&ours.token))).await.expect(403);
    app.call_from("10.2.0.1", call(None)).await.expect(401);
    let forged = request("GET", "/usage/tier", None, None, &[named[0], ("x-forwarded-for", "10.1.2.3")]);
    app.call_from("10.2.0.1", forged).await.expect(401);
    // One of ours among several is one of ours, and of two names neither is believed.
    let tokens = [named[0], ("authorization", "Bearer eyJhbGciOi.other.jwt"), ("authorization", "Bearer tbx_bad")];
    app.call_from("10.1.2.3", request("GET", "/usage/tier", None, None, &tokens)).await.expect(401);
    let names = [named[0], ("x-user-id", ours.id.as_str())];
    app.call_from("10.1.2.3", request("GET", "/usage/tier", None, None, &names)).await.expect(404);
    let me = request("GET", "/auth/me", None, None, &named);
    app.call_from("10.1.2.3", me).await.expect(403);
    let stranger = [("x-user-id", "00000000-0000-4000-8000-000000000000")];
    app.call_from("10.1.2.3", request("GET", "/usage/tier", None, None, &stranger)).await.expect(404);
}

#[tokio::test]
async fn a_trusted_caller_provisions_plain_users_where_that_is_configured() {
    let app = TestApp::with_config("[auth]\nidentity_proxies = ['127.0.0.1']\nauto_provision = true");
    let id = "0191e5f0-7b5c-7d3e-8f00-0123456789ab";
    let named =
        [("x-user-id", id), ("x-user-email", "new@example.org"), ("x-user-tier", "pro"), ("x-user-role", "admin")];
    let calls = (0..4).map(|_| app.call_with("GET", "/usage/tier", None, None, &named));
    assert_eq!(futures_all(calls).await, [200; 4]);
    let found = app.app.store().read(|reader| load_by_email(reader, "new@example.org")).await.unwrap();
    assert_eq!((found.id.to_string().as_str(), found.role, found.tier.as_str()), (id, Role::User, "pro"));
    let default = [("x-user-id", "0191e5f0-7b5c-7d3e-8f00-0123456789ac")];
    let reply = app.call_with("GET", "/usage/tier", None, None, &default).await.expect(200);
    assert_eq!(reply.json["tier"], "free_trial");
    app.call_with("GET", "/usage/tier", None, None, &[("x-user-id", "bob")]).await.expect(422);
}

#[tokio::test]
async fn each_scope_opens_its_routes_and_no_others() {
    let app = TestApp::new();
    app.admin("root@example.org").await;
    let routes = [
        ("GET", "/usage/stats", Scope::UsageRead),
        ("GET", "/usage/tokens", Scope::UsageRead),
        ("GET", "/usage/tier", Scope::UsageRead),
        ("GET", "/usage/ledger", Scope::UsageRead),
        ("GET", "/usage/timeseries/llm_tokens", Scope::UsageRead),
        ("POST", "/usage/check-quota", Scope::UsageRead),
        ("GET", "/memory/usage", Scope::UsageRead),
        ("GET", "/memory/usage/quota-check", Scope::UsageRead),
        ("POST", "/usage/record", Scope::UsageWrite),
        ("POST", "/usage/record/batch", Scope::UsageWrite),
        ("POST", "/usage/reservations", Scope::UsageWrite),
        ("DELETE", "/usage/reservations/x", Scope::UsageWrite),
        ("GET", "/memory", Scope::MemoryRead),
        ("POST", "/memory/search", Scope::MemoryRead),
        ("POST", "/memory/store", Scope::MemoryWrite),
        ("DELETE", "/memory/x", Scope::MemoryWrite),
        ("GET", "/api/admin/users", Scope::Admin),
        ("GET", "/api/admin/audit", Scope::Admin),
    ];
    for scope in Scope::ALL {
        let token = app.token("root@example.org", &[scope]).await;
        for (method, path, wanted) in routes {
            let twin = format!("/api{path}");
            let paths = if path.starts_with("/api") { vec![path] } else { vec![path, &twin] };
            for path in paths {
                let reply = app.call(method, path, Some(&token), None).await;
                let seen = (method, path, scope.as_str(), reply.status);
                if wanted == scope {
                    assert!(![401, 403].contains(&reply.status), "{seen:?}");
                } else {
                    assert_eq!((reply.status, reply.code()), (403, "scope_required"), "{seen:?}");
                    assert_eq!(reply.json["scope"], wanted.as_str(), "{seen:?}");
                }
                app.call(method, path, None, None).await.expect(401);
            }
        }
        app.call("GET", "/auth/me", Some(&token), None).await.expect(200);
    }
}

#[tokio::test]
async fn a_flood_of_logins_of_unknown_users_waits_for_the_same_pool_and_is_bounded() {
    let app = TestApp::with_config("[auth]\npassword_queue = 3");
    let calls = (0..9).map(|number| {
        let body = json!({"email": format!("{number}@example.org"), "password": "some password"});
        app.call("POST", "/auth/login", None, Some(body))
    });
    let statuses = futures_all(calls).await;
    assert_eq!(statuses.iter().filter(|status| **status == 401).count(), 5, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 503).count(), 4, "{statuses:?}");
}

#[tokio::test]
async fn an_api_token_of_an_admin_makes_no_second_admin() {
    let app = TestApp::new();
    let root = app.admin("root@example.org").await;
    let session = app.log_in("root@example.org").await;
    let body = json!({"email": "second@example.org", "role": "admin", "password": PASSWORD});
    let refused = app.call("POST", "/api/admin/users", Some(&root.token), Some(body.clone())).await.expect(403);
    assert_eq!(refused.code(), "session_required");
    app.call("POST", "/api/admin/users", Some(&session), Some(body)).await.expect(201);
}

#[tokio::test]
async fn acts_of_the_command_line_are_in_the_audit_log_without_secrets() {
    let app = TestApp::new();
    let root = app.admin("root@example.org").await;
    let user = app.user_with_password("a@example.org", "basic").await;
    app.change("a@example.org", Changes { tier: Some("pro".to_owned()), ..Changes::default() }).await;
    let log = app.call("GET", "/api/admin/audit", Some(&root.token), None).await.expect(200);
    for action in ["user.create", "token.create", "user.update"] {
        assert!(log.text.contains(action), "{}", log.text);
    }
    assert!(log.text.contains("command_line"), "{}", log.text);
    for secret in [&user.token[4..], "$argon2", PASSWORD] {
        assert!(!log.text.contains(secret), "{}", log.text);
    }
}

#[tokio::test]
async fn the_last_enabled_admin_stays_one() {
    let app = TestApp::new();
    app.admin("root@example.org").await;
    let (by, tiers) = (app.by(), tallybox::domain::quota::Tiers::default());
    for changes in [
        Changes { disabled: Some(true), ..Changes::default() },
        Changes { role: Some(Role::User), ..Changes::default() },
    ] {
        let (by, tiers) = (by.clone(), tiers.clone());
        let refused = app.app.store().write(move |writer| {
            let user = load_by_email(writer, "root@example.org")?;
            tallybox::service::auth::account::change(writer, &by, &tiers, &user, &changes)
        });
        let error = refused.await.unwrap_err();
        assert!(matches!(error, tallybox::domain::Error::Conflict { code: "last_admin", .. }), "{error:?}");
    }
}
