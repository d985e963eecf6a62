//! Accounts: made, found, changed, and who may not.

use serde_json::{Value, json};
use tallybox::domain::auth::Scope;

use super::acts;
use crate::suite::calls::{faults_of, id_of};
use crate::suite::support::{PASSWORD, TestApp};

fn emails(page: &Value) -> Vec<&str> {
    page["users"].as_array().unwrap().iter().map(|user| user["email"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_user_is_made_with_a_password_or_with_a_link_to_choose_one() {
    let app = TestApp::with_config("[server]\npublic_url = \"https://box.example.org\"");
    let admin = app.admin("admin@example.org").await;
    let body = json!({"email": " New@Example.org ", "tier": "basic"});
    let made = app.tell(&admin.token, "/api/admin/users", body).await.expect(201);
    assert_eq!(made.header("cache-control"), "no-store");
    let link = made.json["passwordLink"].as_str().unwrap();
    assert!(link.starts_with("https://box.example.org/setup?token=tbl_"), "{link}");
    let user = app.ask(&admin.token, &format!("/api/admin/users/{}", id_of(&made))).await.expect(200).json;
    let expected = json!({
        "id": id_of(&made), "email": "New@Example.org", "role": "user", "tier": "basic", "disabled": false,
        "disabledAt": null, "createdAt": "2026-03-10T12:00:00.000Z",
    });
    assert_eq!(user, expected);
    let login = json!({"email": "new@example.org", "password": PASSWORD});
    app.call("POST", "/auth/login", None, Some(login)).await.expect(401);
    let body = json!({"email": "second@example.org", "password": PASSWORD});
    let made = app.tell(&admin.token, "/api/admin/users", body).await.expect(201);
    assert_eq!((made.json.get("passwordLink"), &made.json["tier"]), (None, &json!("free_trial")));
    app.log_in("SECOND@example.org").await;
}

#[tokio::test]
async fn every_fault_of_a_new_user_is_named() {
    let app = TestApp::new();
    let admin = app.admin("admin@example.org").await;
    let body = json!({"email": "nobody", "role": "root", "tier": "gold", "password": "short", "colour": 1});
    let refused = app.tell(&admin.token, "/api/admin/users", body).await.expect(422);
    assert_eq!(faults_of(&refused), ["email", "role", "tier", "password", "colour"]);
    for email in ["a b@example.org", "a@b@c", "@example.org", "a@", "", "a\0@example.org"] {
        let refused = app.tell(&admin.token, "/api/admin/users", json!({"email": email})).await.expect(422);
        assert_eq!(faults_of(&refused), ["email"], "{email:?}");
    }
    // What the door would not take is not set.
    let body = json!({"email": "new@example.org", "password": format!("{PASSWORD}\0")});
    assert_eq!(faults_of(&app.tell(&admin.token, "/api/admin/users", body).await.expect(422)), ["password"]);
    assert_eq!(faults_of(&app.tell(&admin.token, "/api/admin/users", json!({})).await.expect(422)), ["email"]);
    let taken = app.tell(&admin.token, "/api/admin/users", json!({"email": "ADMIN@example.org"})).await.expect(409);
    assert_eq!(taken.code(), "email_taken");
    assert_eq!(app.ask(&admin.token, "/api/admin/users").await.json["users"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn users_are_found_by_filters_in_pages() {
    let app = TestApp::new();
    let admin = app.admin("admin@example.org").await;
    for number in 1..=5 {
        let tier = if number % 2 == 0 { "basic" } else { "pro" };
        app.user(&format!("user{number}@example.org"), tier).await;
    }
    let last = app.user("odd%_one@example.net", "pro").await;
    let path = format!("/api/admin/users/{}", last.id);
    app.call("PATCH", &path, Some(&admin.token), Some(json!({"disabled": true}))).await.expect(200);
    let list = async |query: &str| app.ask(&admin.token, &format!("/api/admin/users?{query}")).await.expect(200).json;
    assert_eq!(emails(&list("q=USER&tier=basic").await), ["user4@example.org", "user2@example.org"]);
    assert_eq!(emails(&list("role=admin").await), ["admin@example.org"]);
    assert_eq!(emails(&list("disabled=true").await), ["odd%_one@example.net"]);
    assert_eq!(list("disabled=false").await["users"].as_array().unwrap().len(), 6);
    assert_eq!(emails(&list("q=%25_").await), ["odd%_one@example.net"], "no wildcards");
    assert_eq!(emails(&list(&format!("q={}", last.id)).await), ["odd%_one@example.net"]);
    assert_eq!(emails(&list("q=nobody").await), Vec::<&str>::new());
    let first = list("q=user&limit=2").await;
    assert_eq!(emails(&first), ["user5@example.org", "user4@example.org"]);
    app.user("user6@example.org", "pro").await;
    let second = list(&format!("q=user&limit=2&cursor={}", first["nextCursor"].as_str().unwrap())).await;
    assert_eq!(emails(&second), ["user3@example.org", "user2@example.org"]);
    let third = list(&format!("q=user&limit=2&cursor={}", second["nextCursor"].as_str().unwrap())).await;
    assert_eq!((emails(&third), &third["nextCursor"]), (vec!["user1@example.org"], &Value::Null));
    for wrong in ["role=root", "disabled=yes", "limit=0", "limit=101", "cursor=zz", "colour=1", "q="] {
        app.ask(&admin.token, &format!("/api/admin/users?{wrong}")).await.expect(422);
    }
}

#[tokio::test]
async fn a_change_is_written_with_what_it_was_and_what_it_is() {
    let app = TestApp::new();
    let admin = app.admin("admin@example.org").await;
    let user = app.user("a@example.org", "basic").await;
    let path = format!("/api/admin/users/{}", user.id);
    let change = async |body: Value| app.call("PATCH", &path, Some(&admin.token), Some(body)).await;
    let before = acts(&app, &admin.token).await.len();
    let changed = change(json!({"tier": "pro", "email": "b@example.org", "disabled": true})).await.expect(200);
    assert_eq!((&changed.json["tier"], &changed.json["disabled"]), (&json!("pro"), &json!(true)));
    change(json!({"tier": "pro"})).await.expect(200);
    change(json!({})).await.expect(200);
    let all = acts(&app, &admin.token).await;
    assert_eq!(all.len(), before + 1, "what changes nothing is no act");
    let mut act = all[0].clone();
    act.as_object_mut().unwrap().remove("id").unwrap();
    let expected = json!({
        "at": "2026-03-10T12:00:00.000Z", "action": "user.update", "address": "127.0.0.1",
        "actor": {"kind": "user", "id": admin.id, "email": "admin@example.org"},
        "subject": {"id": user.id, "email": "b@example.org"},
        "before": {"email": "a@example.org", "tier": "basic", "disabled": false},
        "after": {"email": "b@example.org", "tier": "pro", "disabled": true},
    });
    assert_eq!(act, expected);
    for (body, field) in [
        (json!({"tier": "gold"}), "tier"),
        (json!({"role": 1}), "role"),
        (json!({"disabled": "yes"}), "disabled"),
        (json!({"password": PASSWORD}), "password"),
        (json!({"id": user.id}), "id"),
        (json!([]), "body"),
    ] {
        assert_eq!(faults_of(&change(body).await.expect(422)), [field]);
    }
    assert_eq!(change(json!({"email": "ADMIN@example.org"})).await.expect(409).code(), "email_taken");
    let missing = "/api/admin/users/00000000-0000-7000-8000-000000000000";
    for missing in [missing, "/api/admin/users/x"] {
        app.call("PATCH", missing, Some(&admin.token), Some(json!({"tier": "pro"}))).await.expect(404);
        app.ask(&admin.token, missing).await.expect(404);
    }
}

#[tokio::test]
async fn the_last_enabled_admin_is_neither_lowered_nor_disabled_nor_erased() {
    let app = TestApp::new();
    let admin = app.admin("admin@example.org").await;
    let second = app.admin("second@example.org").await;
    let path = |id: &str| format!("/api/admin/users/{id}");
    let change = async |id: &str, body: Value| app.call("PATCH", &path(id), Some(&admin.token), Some(body)).await;
    change(&second.id, json!({"disabled": true})).await.expect(200);
    for body in [json!({"role": "user"}), json!({"disabled": true}), json!({"disabled": true, "tier": "pro"})] {
        assert_eq!(change(&admin.id, body).await.expect(409).code(), "last_admin");
    }
    let erased = app.drop_at(&admin.token, &format!("{}?erase=true", path(&admin.id))).await.expect(409);
    assert_eq!(erased.code(), "last_admin");
    assert_eq!(app.ask(&admin.token, &path(&admin.id)).await.json["tier"], "free_trial");
    change(&second.id, json!({"disabled": false})).await.expect(200);
    change(&admin.id, json!({"role": "user"})).await.expect(200);
    app.ask(&admin.token, "/api/admin/users").await.expect(403);
}

#[tokio::test]
async fn what_would_give_a_second_admin_takes_a_session() {
    let app = TestApp::new();
    let admin = app.admin("admin@example.org").await;
    let second = app.admin("second@example.org").await;
    let user = app.user("a@example.org", "basic").await;
    let session = app.log_in("admin@example.org").await;
    let (of_user, of_admin) = (format!("/api/admin/users/{}", user.id), format!("/api/admin/users/{}", second.id));
    let (reset, reset_admin) = (format!("{of_user}/password"), format!("{of_admin}/password"));
    let acts = [
        ("POST", "/api/admin/users", json!({"email": "x@example.org", "role": "admin"}), 201),
        ("PATCH", of_user.as_str(), json!({"role": "admin"}), 200),
        ("PATCH", of_admin.as_str(), json!({"email": "third@example.org"}), 200),
        ("POST", reset_admin.as_str(), json!({}), 200),
        ("POST", reset_admin.as_str(), json!({"newPassword": PASSWORD}), 204),
    ];
    for (method, path, body, status) in acts {
        let refused = app.call(method, path, Some(&admin.token), Some(body.clone())).await.expect(403);
        assert_eq!(refused.code(), "session_required", "{method} {path}");
        app.call(method, path, Some(&session), Some(body)).await.expect(status);
    }
    // What gives nobody more takes the scope alone.
    app.call("PATCH", &of_user, Some(&admin.token), Some(json!({"role": "user", "tier": "pro"}))).await.expect(200);
    app.call("POST", &reset, Some(&admin.token), None).await.expect(200);
    app.call("PATCH", &of_admin, Some(&admin.token), Some(json!({"tier": "pro"}))).await.expect(200);
}

#[tokio::test]
async fn a_link_that_a_token_got_does_not_outlive_the_raising_to_an_admin() {
    let app = TestApp::new();
    let admin = app.admin("admin@example.org").await;
    let session = app.log_in("admin@example.org").await;
    for (maker, status) in [(&admin.token, 410), (&session, 200)] {
        let made = app.tell(maker, "/api/admin/users", json!({"email": "x@example.org"})).await.expect(201);
        let link = made.json["passwordLink"].as_str().unwrap();
        app.call("GET", link, None, None).await.expect(200);
        let path = format!("/api/admin/users/{}", id_of(&made));
        app.call("PATCH", &path, Some(&session), Some(json!({"role": "admin"}))).await.expect(200);
        app.call("GET", link, None, None).await.expect(status);
        app.drop_at(&session, &format!("{path}?erase=true")).await.expect(200);
    }
}

#[tokio::test]
async fn a_reset_gives_a_link_or_sets_the_password_and_ends_what_was() {
    let app = TestApp::new();
    let admin = app.admin("admin@example.org").await;
    let user = app.user_with_password("a@example.org", "basic").await;
    let session = app.log_in("a@example.org").await;
    let path = format!("/api/admin/users/{}/password", user.id);
    let reply = app.tell(&admin.token, &path, json!({})).await.expect(200);
    let link = reply.json["passwordLink"].as_str().unwrap();
    assert!(link.starts_with("/setup?token=tbl_"), "{link}");
    app.ask(&session, "/auth/me").await.expect(401);
    app.ask(&user.token, "/usage/tokens").await.expect(401);
    let login = json!({"email": "a@example.org", "password": PASSWORD});
    app.call("POST", "/auth/login", None, Some(login.clone())).await.expect(401);
    for wrong in [json!("short"), json!("x".repeat(257)), json!(1)] {
        let refused = app.tell(&admin.token, &path, json!({"newPassword": wrong})).await.expect(422);
        assert_eq!(faults_of(&refused), ["newPassword"]);
    }
    app.tell(&admin.token, &path, json!({"newPassword": PASSWORD})).await.expect(204);
    app.call("POST", "/auth/login", None, Some(login)).await.expect(200);
}

#[tokio::test]
async fn the_audit_log_never_holds_a_secret() {
    let app = TestApp::new();
    let admin = app.admin("admin@example.org").await;
    let session = app.log_in("admin@example.org").await;
    let body = json!({"email": "x@example.org", "password": "a secret that nobody writes"});
    let made = app.tell(&session, "/api/admin/users", body).await.expect(201);
    let link = app.tell(&session, "/api/admin/users", json!({"email": "y@example.org"})).await.expect(201);
    let path = format!("/api/admin/users/{}", id_of(&made));
    let reset =
        app.tell(&session, &format!("{path}/password"), json!({"newPassword": "another that nobody writes"})).await;
    reset.expect(204);
    let again = app.tell(&session, &format!("{path}/password"), json!({})).await.expect(200);
    let token = app.tell(&session, "/auth/tokens", json!({"name": "t"})).await.expect(201).json["token"].clone();
    let log = app.ask(&admin.token, "/api/admin/audit?limit=100").await.expect(200).text;
    let secret = |link: &Value| link.as_str().unwrap().split("token=").last().unwrap().to_owned();
    for secret in [
        "a secret that nobody writes".to_owned(),
        "another that nobody writes".to_owned(),
        "argon2".to_owned(),
        secret(&link.json["passwordLink"]),
        secret(&again.json["passwordLink"]),
        admin.token,
        session,
        token.as_str().unwrap().to_owned(),
        "tbl_".to_owned(),
        "tbx_".to_owned(),
        "tbs_".to_owned(),
    ] {
        assert!(!log.contains(&secret), "{secret} in {log}");
    }
    assert!(log.contains("x@example.org") && log.contains("user.reset_password"));
}

#[tokio::test]
async fn the_audit_log_comes_in_pages() {
    let app = TestApp::new();
    let admin = app.admin("admin@example.org").await;
    for number in 0..5 {
        app.user(&format!("{number}@example.org"), "basic").await;
    }
    let all: Vec<i64> = acts(&app, &admin.token).await.iter().map(|act| act["id"].as_i64().unwrap()).collect();
    let mut found = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = app.ask(&admin.token, &format!("/api/admin/audit?limit=2{cursor}")).await.expect(200).json;
        found.extend(page["acts"].as_array().unwrap().iter().map(|act| act["id"].as_i64().unwrap()));
        app.tell(&admin.token, "/api/admin/users", json!({"email": format!("more{}@example.org", found.len())}))
            .await
            .expect(201);
        match page["nextCursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(found, all);
}

#[tokio::test]
async fn an_admin_lists_and_revokes_the_tokens_of_a_user() {
    let app = TestApp::new();
    let admin = app.admin("admin@example.org").await;
    let user = app.user("a@example.org", "basic").await;
    let path = format!("/api/admin/users/{}/tokens", user.id);
    let listed = app.ask(&admin.token, &path).await.expect(200).json;
    let id = listed["tokens"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!(listed["tokens"][0].get("token"), None);
    app.drop_at(&admin.token, &format!("/api/admin/users/{}/tokens/{id}", admin.id)).await.expect(404);
    app.ask(&user.token, "/auth/me").await.expect(200);
    app.drop_at(&admin.token, &format!("{path}/{id}")).await.expect(204);
    app.ask(&user.token, "/auth/me").await.expect(401);
    app.drop_at(&admin.token, &format!("{path}/{id}")).await.expect(404);
    assert_eq!(app.ask(&admin.token, &path).await.json["tokens"], json!([]));
    let act = &acts(&app, &admin.token).await[0];
    assert_eq!((&act["action"], &act["before"]["id"]), (&json!("token.revoke"), &json!(id)));
}

#[tokio::test]
async fn scopes_come_before_everything_that_is_looked_up() {
    let app = TestApp::with_config("[auth]\nauto_provision = true");
    let admin = app.admin("admin@example.org").await;
    let acts_only = app.token("admin@example.org", &[Scope::ActAs]).await;
    let unknown = "00000000-0000-4000-8000-00000000abcd";
    let named = [("X-User-Id", unknown)];
    let reply = app.call_with("GET", "/usage/tokens", Some(&acts_only), None, &named).await.expect(403);
    assert_eq!(reply.code(), "scope_required");
    for path in ["/api/admin/users", "/auth/me", "/auth/tokens"] {
        app.call_with("GET", path, Some(&admin.token), None, &named).await.expect(403);
    }
    app.ask(&admin.token, &format!("/api/admin/users/{unknown}")).await.expect(404);
}
