//! The page of one's own account.

use serde_json::json;

use super::{PASSWORD, TestApp, cookie, page, post};

/// The secret that the page shows once.
fn secret_of(text: &str) -> String {
    let start = text.find("tbx_").unwrap();
    text[start..].chars().take_while(|letter| letter.is_ascii_alphanumeric() || "-_".contains(*letter)).collect()
}

#[tokio::test]
async fn a_token_is_shown_once_works_by_its_scopes_and_is_revoked() {
    let app = TestApp::new();
    app.user_with_password("a@example.org", "basic").await;
    let cookie = cookie(&app, "a@example.org").await;
    let fields = [("name", "laptop"), ("expires", "30"), ("scope-usage-read", "on")];
    let made = post(&app, "/account/tokens", &cookie, &fields).await.expect(200);
    assert_eq!(made.header("cache-control"), "no-store");
    let secret = secret_of(&made.text);
    let (_, answer) = made.text.split_once("id=\"token-answer\"").expect("where the form's address leads");
    assert!(secret_of(answer) == secret && made.text.contains("action=\"/account/tokens#token-answer\""), "{answer}");
    assert!(made.text.contains("curl http://box.test/usage/tokens"), "{}", made.text);
    app.call("GET", "/usage/tokens", Some(&secret), None).await.expect(200);
    app.call("GET", "/memory", Some(&secret), None).await.expect(403);
    let listed = page(&app, "/account", &cookie).await.expect(200);
    assert!(listed.text.contains("laptop") && !listed.text.contains(&secret));
    let session = app.log_in("a@example.org").await;
    let tokens = app.call("GET", "/auth/tokens", Some(&session), None).await.expect(200).json;
    let id = tokens["tokens"].as_array().unwrap().iter().find(|token| token["name"] == "laptop").unwrap()["id"].clone();
    let revoked =
        post(&app, &format!("/account/tokens/{}/revoke", id.as_str().unwrap()), &cookie, &[]).await.expect(303);
    app.call("GET", "/usage/tokens", Some(&secret), None).await.expect(401);
    let told = page(&app, revoked.header("location"), &cookie).await.expect(200);
    assert!(told.text.contains("The token is revoked") && !told.text.contains(">laptop<"));
}

#[tokio::test]
async fn a_page_with_a_secret_is_not_compressed() {
    let app = TestApp::new();
    app.user_with_password("a@example.org", "basic").await;
    let cookie = cookie(&app, "a@example.org").await;
    let gzip = [("accept-encoding", "gzip"), ("cookie", cookie.as_str())];
    let plain = app.call_with("GET", "/account", None, None, &gzip).await.expect(200);
    assert_eq!(plain.header("content-encoding"), "gzip");
    let fields = [("name", "x"), ("expires", ""), ("scope-usage-read", "on")];
    let mut request = super::form("/account/tokens", Some(&cookie), &fields);
    request.headers_mut().insert("accept-encoding", "gzip".parse().unwrap());
    let made = app.send(request).await.expect(200);
    assert!(made.text.contains("tbx_"));
}

#[tokio::test]
async fn a_faulty_token_form_names_its_faults_and_makes_nothing() {
    let app = TestApp::new();
    app.user_with_password("a@example.org", "basic").await;
    let cookie = cookie(&app, "a@example.org").await;
    let long = "x".repeat(65);
    for (fields, field) in [
        (vec![("name", ""), ("expires", "30"), ("scope-usage-read", "on")], "name"),
        (vec![("name", long.as_str()), ("expires", "30"), ("scope-usage-read", "on")], "name"),
        (vec![("name", "x"), ("expires", "31"), ("scope-usage-read", "on")], "expires"),
        (vec![("name", "x"), ("expires", "30")], "scopes"),
        (vec![("name", "x"), ("expires", "30"), ("scope-admin", "on")], "scopes"),
    ] {
        let reply = post(&app, "/account/tokens", &cookie, &fields).await.expect(422);
        assert!(reply.text.contains(&format!(r#"id="{field}-fault""#)), "{fields:?} {}", reply.text);
        assert!(!reply.text.contains("tbx_"));
    }
    let session = app.log_in("a@example.org").await;
    let tokens = app.call("GET", "/auth/tokens", Some(&session), None).await.expect(200).json;
    assert_eq!(tokens["tokens"].as_array().unwrap().len(), 1, "the one the test user came with");
}

#[tokio::test]
async fn an_admin_may_put_every_scope_on_a_token() {
    let app = TestApp::new();
    app.admin("root@example.org").await;
    let cookie = cookie(&app, "root@example.org").await;
    assert!(page(&app, "/account", &cookie).await.expect(200).text.contains("scope-act-as"));
    let fields = [("name", "proxy"), ("expires", "365"), ("scope-act-as", "on")];
    assert!(post(&app, "/account/tokens", &cookie, &fields).await.expect(200).text.contains("tbx_"));
}

#[tokio::test]
async fn a_password_is_changed_by_who_knows_the_old_one() {
    let app = TestApp::new();
    let user = app.user_with_password("a@example.org", "basic").await;
    let here = cookie(&app, "a@example.org").await;
    let other = cookie(&app, "a@example.org").await;
    let new = "another long password";
    for (current, next, field) in [("wrong", new, "current"), (PASSWORD, "short", "new")] {
        let reply = post(&app, "/account/password", &here, &[("current", current), ("new", next)]).await.expect(422);
        assert!(reply.text.contains(&format!(r#"id="{field}-fault""#)), "{}", reply.text);
    }
    let fields = [("username", "a@example.org"), ("current", PASSWORD), ("new", new)];
    let changed = post(&app, "/account/password", &here, &fields).await.expect(303);
    assert!(page(&app, changed.header("location"), &here).await.expect(200).text.contains("password is changed"));
    page(&app, "/account", &other).await.expect(303);
    app.call("GET", "/usage/tokens", Some(&user.token), None).await.expect(200);
    let login = json!({"email": "a@example.org", "password": PASSWORD});
    app.call("POST", "/auth/login", None, Some(login)).await.expect(401);
    let fields = [("current", new), ("new", PASSWORD), ("revoke", "on")];
    post(&app, "/account/password", &here, &fields).await.expect(303);
    app.call("GET", "/usage/tokens", Some(&user.token), None).await.expect(401);
}

#[tokio::test]
async fn acts_take_a_form_of_ours_and_only_ones_own_tokens() {
    let app = TestApp::new();
    app.user_with_password("a@example.org", "basic").await;
    app.user_with_password("b@example.org", "basic").await;
    let (a, b) = (cookie(&app, "a@example.org").await, app.log_in("b@example.org").await);
    let tokens = app.call("GET", "/auth/tokens", Some(&b), None).await.expect(200).json;
    let path = format!("/account/tokens/{}/revoke", tokens["tokens"][0]["id"].as_str().unwrap());
    post(&app, &path, &a, &[]).await.expect(404);
    for path in ["/account/tokens", "/account/password", &path] {
        let mut request = super::form(path, Some(&a), &[]);
        request.headers_mut().insert("origin", "http://evil.test".parse().unwrap());
        assert!(app.send(request).await.expect(403).text.contains("<h1>"), "{path}");
    }
}

#[tokio::test]
async fn a_form_that_is_compressed_or_no_text_is_not_taken() {
    let app = TestApp::new();
    app.user_with_password("a@example.org", "basic").await;
    let cookie = cookie(&app, "a@example.org").await;
    let fields = [("name", "x"), ("expires", "30"), ("scope-usage-read", "on")];
    let mut request = super::form("/account/tokens", Some(&cookie), &fields);
    request.headers_mut().insert("content-encoding", "gzip".parse().unwrap());
    app.send(request).await.expect(415);
    let mut request = super::form("/account/tokens", Some(&cookie), &[]);
    let body = "name=%ff&expires=30&scope-usage-read=on";
    request.headers_mut().insert("content-length", body.len().to_string().parse().unwrap());
    *request.body_mut() = body.into();
    app.send(request).await.expect(422);
}
