//! The door: cookies, forms, one-time links.

use http::Request;
use tallybox::service::auth::account::{Changes, load_by_email, reset_password};
use tallybox::service::auth::link;

use super::support::{PASSWORD, Reply, TestApp, form, request};

/// The pair of the session cookie that an answer sets.
fn cookie_of(reply: &Reply) -> String {
    reply.header("set-cookie").split(';').next().unwrap().to_owned()
}

async fn setup_link(app: &TestApp) -> String {
    app.app.store().write(link::issue_setup).await.unwrap().unwrap().address(None)
}

fn secret_of(link: &str) -> String {
    link.split_once("token=").unwrap().1.to_owned()
}

async fn page(app: &TestApp, path: &str, cookie: &str) -> Reply {
    app.call_with("GET", path, None, None, &[("cookie", cookie)]).await
}

#[tokio::test]
async fn a_page_without_a_session_leads_to_the_door_and_back() {
    let app = TestApp::new();
    app.user_with_password("a@example.org", "basic").await;
    let sent = app.call("GET", "/usage?days=7", None, None).await.expect(303);
    assert_eq!(sent.header("location"), "/login?next=%2Fusage%3Fdays%3D7");
    let shown = app.call("GET", sent.header("location"), None, None).await.expect(200);
    assert!(shown.text.contains(r#"name="next" value="/usage?days=7""#), "{}", shown.text);
    assert!(shown.header("content-security-policy").contains("default-src 'none'"));
    let fields = [("email", "A@example.org"), ("password", PASSWORD), ("next", "/usage?days=7")];
    let reply = app.send(form("/login", None, &fields)).await.expect(303);
    assert_eq!(reply.header("location"), "/usage?days=7");
    let cookie = reply.header("set-cookie").to_owned();
    for attribute in ["HttpOnly", "SameSite=Lax", "Path=/"] {
        assert!(cookie.contains(attribute), "{cookie}");
    }
    assert!(!cookie.contains("Secure"), "{cookie}");
    let usage = page(&app, "/usage?days=7", &cookie_of(&reply)).await.expect(200);
    assert!(usage.text.contains("LLM tokens") && usage.text.contains("50,000 tokens"), "{}", usage.text);
    assert!(!usage.text.contains("style="), "inline styles are refused by the policy");
}

#[tokio::test]
async fn the_cookie_opens_pages_alone_and_a_token_in_its_place_nothing() {
    let app = TestApp::new();
    let user = app.user_with_password("a@example.org", "basic").await;
    let session = app.log_in("a@example.org").await;
    let cookie = format!("tallybox_session={session}");
    page(&app, "/usage", &cookie).await.expect(200);
    page(&app, "/usage/tokens", &cookie).await.expect(401);
    page(&app, "/usage", &format!("tallybox_session={}", user.token)).await.expect(303);
    app.call("GET", "/usage", Some(&session), None).await.expect(303);
    app.change("a@example.org", Changes { disabled: Some(true), ..Changes::default() }).await;
    page(&app, "/usage", &cookie).await.expect(303);
}

#[tokio::test]
async fn behind_tls_the_cookie_is_secure() {
    let app = TestApp::with_config("[server]\ntrusted_proxies = ['127.0.0.1']");
    app.user_with_password("a@example.org", "basic").await;
    let fields = [("email", "a@example.org"), ("password", PASSWORD)];
    let mut post = form("/login", None, &fields);
    post.headers_mut().insert("x-forwarded-proto", "https".parse().unwrap());
    let reply = app.send(post).await.expect(303);
    assert!(reply.header("set-cookie").contains("; Secure"));
}

#[tokio::test]
async fn a_login_changes_the_session_and_a_logout_ends_it() {
    let app = TestApp::new();
    app.user_with_password("a@example.org", "basic").await;
    let fields = [("email", "a@example.org"), ("password", PASSWORD)];
    let first = cookie_of(&app.send(form("/login", None, &fields)).await.expect(303));
    let second = cookie_of(&app.send(form("/login", Some(&first), &fields)).await.expect(303));
    assert_ne!(first, second);
    page(&app, "/usage", &first).await.expect(303);
    page(&app, "/usage", &second).await.expect(200);
    let reply = app.send(form("/logout", Some(&second), &[])).await.expect(303);
    assert!(reply.header("set-cookie").contains("Max-Age=0"));
    page(&app, "/usage", &second).await.expect(303);
}

#[tokio::test]
async fn next_never_leads_to_another_host() {
    let app = TestApp::new();
    app.user_with_password("a@example.org", "basic").await;
    for next in ["https://evil.example", "//evil.example", "/\\evil.example", "/\t/evil.example", "javascript:x"] {
        let fields = [("email", "a@example.org"), ("password", PASSWORD), ("next", next)];
        let reply = app.send(form("/login", None, &fields)).await.expect(303);
        assert_eq!(reply.header("location"), "/usage", "{next}");
    }
}

#[tokio::test]
async fn a_form_from_another_origin_is_refused_before_it_does_anything() {
    let app = TestApp::new();
    app.user_with_password("a@example.org", "basic").await;
    let fields = [("email", "a@example.org"), ("password", PASSWORD)];
    for origin in ["http://evil.example", "null", "https://box.test.evil.example"] {
        let mut post = form("/login", None, &fields);
        post.headers_mut().insert("origin", origin.parse().unwrap());
        let reply = app.send(post).await.expect(403);
        assert!(reply.header("content-type").starts_with("text/html"), "{}", reply.text);
        assert_eq!(reply.header("set-cookie"), "");
    }
    let mut silent = form("/login", None, &fields);
    silent.headers_mut().remove("origin");
    app.send(silent).await.expect(303);
    let session = cookie_of(&app.send(form("/login", None, &fields)).await.expect(303));
    let mut forged = form("/logout", Some(&session), &[]);
    forged.headers_mut().insert("origin", "http://evil.example".parse().unwrap());
    app.send(forged).await.expect(403);
    page(&app, "/usage", &session).await.expect(200);
}

#[tokio::test]
async fn a_failed_login_shows_the_form_again_with_what_was_wrong() {
    let app = TestApp::new();
    let fields = [("email", "<b>@example.org"), ("password", "wrong password"), ("next", "/usage?days=7")];
    for _ in 0..10 {
        let reply = app.send(form("/login", None, &fields)).await.expect(401);
        assert!(reply.text.contains("Email or password is wrong.") && reply.text.contains("/usage?days=7"));
        assert!(!reply.text.contains("<b>") && !reply.text.contains("wrong password\""), "{}", reply.text);
    }
    let reply = app.send(form("/login", None, &fields)).await.expect(429);
    assert_eq!(reply.header("retry-after"), "300");
    assert!(reply.text.contains("Too many failed attempts"));
    app.send(form("/login", None, &[("email", "a@example.org")])).await.expect(422);
}

#[tokio::test]
async fn of_two_set_ups_at_once_exactly_one_wins() {
    let app = TestApp::new();
    let link = setup_link(&app).await;
    let shown = app.call("GET", &link, None, None).await.expect(200);
    assert!(shown.text.contains(r#"name="email""#));
    let post =
        |email: &str| form("/setup", None, &[("token", &secret_of(&link)), ("email", email), ("password", PASSWORD)]);
    let (one, two) = tokio::join!(app.send(post("one@example.org")), app.send(post("two@example.org")));
    let mut statuses = [one.status, two.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [303, 410]);
    let winner = if one.status == 303 { one } else { two };
    page(&app, "/usage", &cookie_of(&winner)).await.expect(200);
    app.call("GET", &link, None, None).await.expect(410);
    assert!(app.app.store().write(link::issue_setup).await.unwrap().is_none());
}

#[tokio::test]
async fn a_set_up_names_its_faults_and_stays_open_for_half_an_hour() {
    let app = TestApp::new();
    let link = setup_link(&app).await;
    let secret = secret_of(&link);
    let faulty = form("/setup", None, &[("token", &secret), ("email", "nobody"), ("password", "short")]);
    let reply = app.send(faulty).await.expect(422);
    assert!(reply.text.contains("must be an email address") && reply.text.contains("10 to 256 characters"));
    app.clock.advance_millis(30 * 60_000 - 1);
    app.call("GET", &link, None, None).await.expect(200);
    let newer = setup_link(&app).await;
    app.call("GET", &link, None, None).await.expect(410);
    app.call("GET", &newer, None, None).await.expect(200);
    app.clock.advance_millis(30 * 60_000);
    app.call("GET", &newer, None, None).await.expect(410);
    app.call("GET", "/setup", None, None).await.expect(410);
}

async fn password_link(app: &TestApp, email: &str) -> String {
    let (by, email) = (app.by(), email.to_owned());
    let made = app.app.store().write(move |writer| {
        let user = load_by_email(writer, &email)?;
        reset_password(writer, &by, &user, None)
    });
    made.await.unwrap().unwrap().address(Some("https://box.example.org"))
}

#[tokio::test]
async fn a_link_to_choose_a_password_works_once_within_a_day_until_a_newer_one_or_a_disabling() {
    let app = TestApp::new();
    app.user_with_password("a@example.org", "basic").await;
    let older = password_link(&app, "a@example.org").await;
    let link = password_link(&app, "a@example.org").await;
    assert!(link.starts_with("https://box.example.org/setup?token="));
    let path = |link: &str| format!("/setup?token={}", secret_of(link));
    app.call("GET", &path(&older), None, None).await.expect(410);
    app.clock.advance_millis(24 * 3_600_000 - 1);
    let shown = app.call("GET", &path(&link), None, None).await.expect(200);
    assert!(shown.text.contains("a@example.org") && !shown.text.contains(r#"name="email""#));
    let post = || form(&path(&link), None, &[("password", PASSWORD)]);
    let reply = app.send(post()).await.expect(303);
    page(&app, "/usage", &cookie_of(&reply)).await.expect(200);
    app.send(post()).await.expect(410);
    app.log_in("a@example.org").await;
    let link = password_link(&app, "a@example.org").await;
    for disabled in [true, false] {
        app.change("a@example.org", Changes { disabled: Some(disabled), ..Changes::default() }).await;
        app.call("GET", &path(&link), None, None).await.expect(410);
    }
}

#[tokio::test]
async fn assets_are_kept_by_browsers_as_long_as_they_are_the_same() {
    let app = TestApp::new();
    let door = app.call("GET", "/login", None, None).await.expect(200).text;
    let (css, rest) = door.split_once("href=\"/assets/tallybox.").and_then(|(_, rest)| rest.split_once('"')).unwrap();
    assert!(rest.contains("src=\"/assets/tallybox."), "{rest}");
    let hashed = format!("/assets/tallybox.{css}");
    let reply = app.call("GET", &hashed, None, None).await.expect(200);
    assert!(reply.header("cache-control").contains("immutable"));
    for (name, media) in [("tallybox.css", "text/css"), ("favicon.svg", "image/svg+xml"), ("logo.svg", "image/svg+xml")]
    {
        let reply = app.call("GET", &format!("/assets/{name}"), None, None).await.expect(200);
        assert!(reply.header("content-type").starts_with(media));
        assert!(!reply.header("cache-control").contains("immutable"));
    }
    app.call("GET", "/assets/..%2fCargo.toml", None, None).await.expect(404);
    app.call("GET", "/assets/tallybox.000000000000.css", None, None).await.expect(404);
    let compressed = app.call_with("GET", &hashed, None, None, &[("accept-encoding", "gzip")]).await.expect(200);
    assert_eq!(compressed.header("content-encoding"), "gzip");
}

#[tokio::test]
async fn failures_of_pages_are_pages_whatever_is_accepted() {
    let app = TestApp::new();
    let bare = Request::builder().method("POST").uri("/login").header("origin", "null");
    let reply = app.send(bare.body(axum::body::Body::empty()).unwrap()).await.expect(403);
    assert!(reply.header("content-type").starts_with("text/html"));
    let json = request("GET", "/nowhere", None, None, &[("accept", "application/json")]);
    assert_eq!(app.send(json).await.expect(404).header("content-type"), "application/problem+json");
}

#[tokio::test]
async fn a_browser_gets_a_page_where_a_path_does_not_take_the_method_or_a_file_is_not_there() {
    let app = TestApp::new();
    app.user_with_password("a@example.org", "basic").await;
    let session = format!("tallybox_session={}", app.log_in("a@example.org").await);
    for (method, path, status, words) in [
        ("DELETE", "/usage", 405, "This cannot be done here"),
        ("GET", "/logout", 405, "This cannot be done here"),
        ("GET", "/account/tokens/1/revoke", 405, "This cannot be done here"),
        ("GET", "/assets/nothing.css", 404, "One mark is missing"),
    ] {
        let ask = async |accept: &str| {
            app.call_with(method, path, None, None, &[("accept", accept), ("cookie", &session)]).await.expect(status)
        };
        let page = ask("text/html,*/*;q=0.8").await;
        assert!(page.header("content-type").starts_with("text/html") && page.text.contains(words), "{}", page.text);
        assert!(page.header("content-security-policy").starts_with("default-src 'none'"), "{path}");
        assert!(page.text.contains("a@"), "in the frame of who is signed in: {}", page.text);
        assert_eq!(page.header("allow").is_empty(), status == 404, "{path}");
        assert_eq!(ask("*/*").await.header("content-type"), "application/problem+json", "{path}");
    }
}
