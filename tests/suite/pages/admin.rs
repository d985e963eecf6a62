//! The pages of whoever runs the box.

use serde_json::json;
use tallybox::service::auth::account::Changes;

use crate::suite::calls::tokens;
use crate::suite::support::{PASSWORD, Reply, TestApp, TestUser, form};

/// What a page must never carry on as anything but text.
const HOSTILE: [&str; 5] = [
    "<script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)>",
    "\" onmouseover=\"alert(1)",
    "</td></table><svg onload=alert(1)>",
    "javascript:alert(1)",
];

/// The application with an admin who is signed in.
struct Office {
    app: TestApp,
    admin: TestUser,
    cookie: String,
}

impl Office {
    async fn new() -> Self {
        let app = TestApp::new();
        let admin = app.admin("admin@example.org").await;
        let cookie = format!("tallybox_session={}", app.log_in("admin@example.org").await);
        Self { app, admin, cookie }
    }

    async fn page(&self, path: &str) -> Reply {
        let reply = self.app.call_with("GET", path, None, None, &[("cookie", &self.cookie)]).await;
        assert!(!reply.text.contains(" style=") && !reply.text.contains("<style"), "{path} has inline styles");
        reply
    }

    async fn post(&self, path: &str, fields: &[(&str, &str)]) -> Reply {
        self.app.send(form(path, Some(&self.cookie), fields)).await
    }

    /// The newest act of the audit log.
    async fn newest_act(&self) -> serde_json::Value {
        let reply = self.app.ask(&self.admin.token, "/api/admin/audit?limit=1").await.expect(200);
        reply.json["acts"][0].clone()
    }
}

/// Every page of the administration with the id of a user in the place of its parameter, and whether it is a form's.
fn admin_routes(user: &str) -> Vec<(bool, String)> {
    let routes = tallybox::app::App::routes().into_iter().filter(|(_, path, _)| path.starts_with("/admin"));
    routes.map(|(method, path, _)| (method == "POST", path.replace("{id}", user).replace("{token_id}", user))).collect()
}

/// The path of the one-time link that a page shows.
fn link_of(page: &Reply) -> String {
    let (_, rest) = page.text.split_once("/setup?token=").expect("a link");
    let secret: String =
        rest.chars().take_while(|letter| letter.is_ascii_alphanumeric() || "_-".contains(*letter)).collect();
    format!("/setup?token={secret}")
}

#[tokio::test]
async fn nobody_but_an_admin_sees_or_does_anything() {
    let office = Office::new().await;
    let app = &office.app;
    let user = app.user_with_password("user@example.org", "basic").await;
    let theirs = format!("tallybox_session={}", app.log_in("user@example.org").await);
    let routes = admin_routes(&user.id);
    assert_eq!(routes.len(), 14);
    let before = app.ask(&office.admin.token, "/api/admin/audit").await.text;
    let fields = [("email", "new@example.org"), ("confirm", "user@example.org"), ("disabled", "true")];
    for (is_form, path) in routes {
        for cookie in [None, Some(theirs.as_str()), Some(&*format!("tallybox_session={}", office.admin.token))] {
            let reply = if is_form {
                app.send(form(&path, cookie, &fields)).await
            } else {
                let headers: Vec<_> = cookie.map(|cookie| ("cookie", cookie)).into_iter().collect();
                app.call_with("GET", &path, None, None, &headers).await
            };
            if cookie == Some(&theirs) {
                let reply = reply.expect(403);
                assert!(reply.text.contains("not open to you"), "{path}: {}", reply.text);
                assert!(!reply.text.contains("admin@example.org"), "{path}: {}", reply.text);
            } else {
                assert!(reply.expect(303).header("location").starts_with("/login"), "{path}");
            }
        }
        if is_form {
            let mut foreign = form(&path, Some(&office.cookie), &fields);
            foreign.headers_mut().insert("origin", "http://evil.example".parse().unwrap());
            app.send(foreign).await.expect(403);
        }
    }
    assert_eq!(app.ask(&office.admin.token, "/api/admin/audit").await.text, before);
}

#[tokio::test]
async fn the_overview_shows_users_totals_refusals_and_the_box() {
    let office = Office::new().await;
    let app = &office.app;
    let user = app.user("heavy@example.org", "basic").await;
    app.user("idle@example.org", "pro").await;
    app.used_up(&user, 45_000).await;
    app.enforce(&user, 10_000).await.expect(429);
    app.pass().await;
    let page = office.page("/admin").await.expect(200);
    for text in ["45,000", "heavy@<wbr>example.org", "of 1 user", "near the limit", "no limit", "Schema", "free_trial"]
    {
        assert!(page.text.contains(text), "{text}: {}", page.text);
    }
    let found = office.page("/admin?q=HEAVY&tier=&role=&disabled=").await.expect(200).text;
    assert!(found.contains("1 user on this page") && !found.contains("idle@"), "{found}");
    let none = office.page("/admin?q=nobody-at-all").await.expect(200).text;
    assert!(none.contains("No user matches"), "{none}");
    let pros = office.page("/admin?tier=pro&role=user&disabled=false").await.expect(200).text;
    assert!(pros.contains("idle@<wbr>example.org") && pros.contains("1 user on this page"), "{pros}");
}

#[tokio::test]
async fn users_come_in_pages_that_keep_the_filter() {
    let office = Office::new().await;
    for number in 0..30 {
        office.app.user(&format!("u{number:02}@example.org"), "basic").await;
    }
    let first = office.page("/admin?tier=basic").await.expect(200).text;
    assert!(first.contains("u29@") && first.contains("25 users on this page") && !first.contains(">u04@"));
    let (_, rest) = first.split_once("/admin?tier=basic&amp;cursor=").expect("a next page");
    let cursor = rest.split('#').next().unwrap();
    let second = office.page(&format!("/admin?tier=basic&cursor={cursor}")).await.expect(200).text;
    assert!(second.contains(">u04@") && second.contains("5 users on this page"), "{second}");
    assert!(!second.contains("rel=\"next\"") && second.contains("rel=\"first\""));
}

#[tokio::test]
async fn a_tier_that_is_set_holds_at_once_and_stands_in_the_audit_log() {
    let office = Office::new().await;
    let user = office.app.user("a@example.org", "free_trial").await;
    office.app.enforce(&user, 5_000).await.expect(429);
    let path = format!("/admin/users/{}", user.id);
    let reply = office.post(&path, &[("tier", "basic")]).await.expect(303);
    assert_eq!(reply.header("location"), format!("{path}?done=changed"));
    office.app.enforce(&user, 5_000).await.expect(201);
    let page = office.page(reply.header("location")).await.expect(200);
    assert!(page.text.contains("holds from now on") && page.text.contains("of 50,000"), "{}", page.text);
    let act = office.newest_act().await;
    assert_eq!(
        (&act["action"], &act["before"], &act["after"]),
        (&json!("user.update"), &json!({"tier": "free_trial"}), &json!({"tier": "basic"}))
    );
    assert_eq!(act["actor"]["email"], "admin@example.org");
    let log = office.page(&format!("/admin/audit?q={}&action=user.update", user.id)).await.expect(200).text;
    assert!(log.contains("<del>free_trial</del>") && log.contains("<ins>basic</ins>"), "{log}");
    assert!(office.page("/admin/audit?action=user.erase").await.text.contains("No entry matches"));
    let refused = office.post(&path, &[("tier", "platinum")]).await.expect(422);
    assert!(refused.text.contains("must be one of"), "{}", refused.text);
}

#[tokio::test]
async fn a_new_user_gets_a_link_that_is_shown_once_and_works() {
    let office = Office::new().await;
    let fields = [("email", "new@example.org"), ("role", "user"), ("tier", "basic"), ("password", "")];
    let mut request = form("/admin/users", Some(&office.cookie), &fields);
    request.headers_mut().insert("accept-encoding", "gzip, br, zstd".parse().unwrap());
    let made = office.app.send(request).await.expect(201);
    assert_eq!((made.header("cache-control"), made.header("content-encoding")), ("no-store", ""));
    let link = link_of(&made);
    let id = made.text.split("/admin/users/").nth(1).unwrap()[..36].to_owned();
    assert!(!office.page(&format!("/admin/users/{id}")).await.expect(200).text.contains("token="));
    office.app.call("GET", &link, None, None).await.expect(200);
    let secret = link.split_once('=').unwrap().1;
    office.app.send(form("/setup", None, &[("token", secret), ("password", PASSWORD)])).await.expect(303);
    office.app.log_in("new@example.org").await;
    office.app.call("GET", &link, None, None).await.expect(410);

    let again = office.post("/admin/users", &fields).await.expect(409);
    assert!(again.text.contains("another user has this email address"), "{}", again.text);
    assert!(again.text.contains("value=\"new@example.org\""), "{}", again.text);
    let short = [("email", "two@example.org"), ("password", "short")];
    assert!(office.post("/admin/users", &short).await.expect(422).text.contains("password-fault"));
    let whole = [("email", "three@example.org"), ("role", "admin"), ("password", PASSWORD)];
    assert!(office.post("/admin/users", &whole).await.expect(303).header("location").ends_with("?done=created"));
    let session = office.app.log_in("three@example.org").await;
    office.app.ask(&session, "/api/admin/users").await.expect(200);
}

#[tokio::test]
async fn disabling_ends_sessions_and_enabling_lets_tokens_in_again() {
    let office = Office::new().await;
    let user = office.app.user_with_password("a@example.org", "basic").await;
    let session = office.app.log_in("a@example.org").await;
    let path = format!("/admin/users/{}", user.id);
    office.post(&path, &[("disabled", "true")]).await.expect(303);
    office.app.ask(&session, "/auth/me").await.expect(401);
    office.app.ask(&user.token, "/auth/me").await.expect(401);
    assert!(office.page(&path).await.text.contains("Enable the user"));
    let refused = office.post(&format!("{path}/password"), &[("newPassword", "")]).await.expect(409);
    assert!(refused.text.contains("enable it first"), "{}", refused.text);
    office.post(&path, &[("disabled", "false")]).await.expect(303);
    office.app.ask(&user.token, "/auth/me").await.expect(200);
    office.app.ask(&session, "/auth/me").await.expect(401);
}

#[tokio::test]
async fn a_reset_revokes_tokens_and_gives_a_link() {
    let office = Office::new().await;
    let user = office.app.user_with_password("a@example.org", "basic").await;
    let path = format!("/admin/users/{}/password", user.id);
    let reply = office.post(&path, &[("newPassword", "")]).await.expect(200);
    office.app.ask(&user.token, "/auth/me").await.expect(401);
    office.app.call("GET", &link_of(&reply), None, None).await.expect(200);
    let set = office.post(&path, &[("newPassword", PASSWORD)]).await.expect(303);
    assert!(set.header("location").ends_with("?done=password"));
    office.app.log_in("a@example.org").await;
    office.app.call("GET", &link_of(&reply), None, None).await.expect(410);
    let own = format!("/admin/users/{}/password", office.admin.id);
    let reply = office.post(&own, &[]).await.expect(200);
    office.page("/admin").await.expect(303);
    office.app.call("GET", &link_of(&reply), None, None).await.expect(200);
}

#[tokio::test]
async fn the_last_admin_stays() {
    let office = Office::new().await;
    let path = format!("/admin/users/{}", office.admin.id);
    for fields in [[("role", "user")], [("disabled", "true")]] {
        let refused = office.post(&path, &fields).await.expect(409);
        assert!(refused.text.contains("The last enabled admin"), "{}", refused.text);
    }
    let refused = office.post(&format!("{path}/erase"), &[("confirm", "admin@example.org")]).await.expect(409);
    assert!(refused.text.contains("The last enabled admin cannot be erased"), "{}", refused.text);
    office.page("/admin").await.expect(200);
}

#[tokio::test]
async fn erasing_asks_for_the_name_first() {
    let office = Office::new().await;
    let user = office.app.user("Gone@example.org", "basic").await;
    let path = format!("/admin/users/{}/erase", user.id);
    office.page(&path).await.expect(200);
    for wrong in ["", "other@example.org", "gone"] {
        office.post(&path, &[("confirm", wrong)]).await.expect(422);
    }
    office.app.ask(&user.token, "/auth/me").await.expect(200);
    let reply = office.post(&path, &[("confirm", " gone@example.org ")]).await.expect(303);
    assert!(office.page(reply.header("location")).await.expect(200).text.contains("The user was erased."));
    office.page(&format!("/admin/users/{}", user.id)).await.expect(410);
    let log = office.page("/admin/audit").await.expect(200).text;
    assert!(log.contains("Erased a user") && !log.contains("Gone@"), "{log}");
}

#[tokio::test]
async fn the_ledger_comes_in_pages_by_resource() {
    let office = Office::new().await;
    let user = office.app.user("a@example.org", "pro").await;
    for amount in 1_001..=1_030 {
        office.app.used_up(&user, amount).await;
    }
    let minutes = json!({"resourceType": "agent_minutes", "amount": 7});
    office.app.tell(&user.token, "/usage/record", minutes).await.expect(201);
    let path = format!("/admin/users/{}", user.id);
    let first = office.page(&path).await.expect(200).text;
    assert!(first.contains("1,030") && first.contains("1,022") && !first.contains("1,021"), "{first}");
    let next = first.split("href=\"").find(|rest| rest.contains("?cursor=")).expect("a next page");
    let next = next.split(['#', '"']).next().unwrap();
    let second = office.page(next).await.expect(200).text;
    assert!(second.contains("1,021") && second.contains("1,012") && !second.contains("1,022"), "{second}");
    let of_minutes = office.page(&format!("{path}?resource=agent_minutes")).await.expect(200).text;
    assert!(of_minutes.contains("Take back") && !of_minutes.contains("1,030"), "{of_minutes}");
    let none = office.page(&format!("{path}?resource=memory_storage")).await.expect(200).text;
    assert!(none.contains("Show all resources"), "{none}");
    office.page(&format!("{path}?cursor=zz")).await.expect(422);
}

#[tokio::test]
async fn a_correction_is_booked_once_however_often_its_form_is_sent() {
    let office = Office::new().await;
    let user = office.app.user("a@example.org", "basic").await;
    let entry = office.app.used_up(&user, 500).await;
    let path = format!("/admin/users/{}/ledger", user.id);
    let resource = ("resourceType", "llm_tokens");
    let fields = [resource, ("amount", "-200"), ("reason", "counted twice"), ("reverses", &entry), ("once", "k1")];
    for _ in 0..2 {
        office.post(&path, &fields).await.expect(303);
        assert_eq!(office.app.tokens(&user).await.0, 300);
    }
    assert_eq!(office.newest_act().await["action"], "ledger.correct");
    let other = [resource, ("amount", "50"), ("reason", "counted too little"), ("reverses", ""), ("once", "k1")];
    office.post(&path, &other).await.expect(303);
    assert_eq!(office.app.tokens(&user).await.0, 350);
    for (amount, reason, reverses, part) in [
        ("-1", "r", "", "must name in `reverses`"),
        ("1.5", "r", "", "whole number"),
        ("-400", "r", &*entry, "must not exceed the entry"),
        ("5", "", "", "is required"),
    ] {
        let fields = [resource, ("amount", amount), ("reason", reason), ("reverses", reverses), ("once", "k2")];
        let refused = office.post(&path, &fields).await.expect(422);
        assert!(refused.text.contains(part), "{part}: {}", refused.text);
        assert!(refused.text.contains(&format!("value=\"{amount}\"")), "{}", refused.text);
    }
    let empty = office.post(&path, &[resource, ("amount", ""), ("reason", "")]).await.expect(422).text;
    let (_, form) = empty.split_once("id=\"correction-refused\"").expect("a notice beside the form");
    assert!(form.contains("Amount and reason are required."), "{empty}");
    assert_eq!(empty.matches("role=\"alert\"").count(), 1, "{empty}");
    assert_eq!(office.app.tokens(&user).await.0, 350);
    office.app.proves();
}

#[tokio::test]
async fn the_answer_to_a_form_that_is_opened_anew_leads_to_the_page_of_the_form() {
    let office = Office::new().await;
    let user = office.app.user("a@example.org", "basic").await;
    let own = format!("/admin/users/{}", user.id);
    let (password, ledger) = (format!("{own}/password"), format!("{own}/ledger"));
    for (path, place) in [
        ("/admin/users", "/admin"),
        (&password, &own),
        (&ledger, &own),
        ("/account/tokens", "/account"),
        ("/account/password", "/account"),
    ] {
        assert_eq!(office.page(path).await.expect(303).header("location"), place, "{path}");
    }
}

#[tokio::test]
async fn a_token_is_revoked_by_its_button() {
    let office = Office::new().await;
    let user = office.app.user("a@example.org", "basic").await;
    let path = format!("/admin/users/{}", user.id);
    let page = office.page(&path).await.expect(200).text;
    let action = page.split("action=\"").find(|rest| rest.contains("/revoke\"")).unwrap();
    let action = action.split('"').next().unwrap().to_owned();
    office.post(&action, &[]).await.expect(303);
    office.app.ask(&user.token, "/auth/me").await.expect(401);
    assert_eq!(office.newest_act().await["action"], "token.revoke");
    assert!(office.page(&path).await.expect(200).text.contains("No token opens this account"));
    office.post(&action, &[]).await.expect(404);
}

#[tokio::test]
async fn what_users_wrote_stays_text() {
    let office = Office::new().await;
    let app = &office.app;
    app.user_with_password("plain@example.org", "basic").await;
    let session = app.log_in("plain@example.org").await;
    let user = app.ask(&session, "/auth/me").await.json["id"].as_str().unwrap().to_owned();
    for (number, hostile) in HOSTILE.into_iter().enumerate() {
        let body = json!({"name": hostile});
        let token = app.tell(&session, "/auth/tokens", body).await.expect(201).json["token"].clone();
        let mut fact = tokens(1);
        fact["metadata"] = json!({hostile: hostile, "nested": [{"deep": hostile}]});
        app.tell(token.as_str().unwrap(), "/usage/record", fact).await.expect(201);
        let fields =
            [("resourceType", "llm_tokens"), ("amount", "1"), ("reason", hostile), ("once", &*number.to_string())];
        office.post(&format!("/admin/users/{user}/ledger"), &fields).await.expect(303);
        // An address may hold whatever has no space and no control character.
        let email = format!("{}@example.org", hostile.replace(' ', "/"));
        office.post(&format!("/admin/users/{user}"), &[("email", &email)]).await;
        office.post("/admin/users", &[("email", hostile), ("tier", hostile)]).await.expect(422);
    }
    let paths = ["/admin", "/admin/audit", "/admin/users/new"].map(str::to_owned);
    let more = [format!("/admin/users/{user}"), format!("/admin/users/{user}/erase")];
    let mut paths: Vec<String> = paths.into_iter().chain(more).collect();
    for hostile in HOSTILE {
        let query = serde_urlencoded::to_string([("q", hostile)]).unwrap();
        paths.push(format!("/admin?{query}"));
        paths.push(format!("/admin/audit?{query}"));
        let query = serde_urlencoded::to_string([("amount", hostile), ("reason", hostile), ("done", "x")]).unwrap();
        paths.push(format!("/admin/users/{user}?{query}"));
    }
    for path in paths {
        let text = office.page(&path).await.expect(200).text.to_lowercase();
        for live in ["<script>", "<img", "<svg onload", "<svg/onload", "\" onmouseover", "href=\"javascript:"] {
            assert!(!text.contains(live), "{path} carries on {live}");
        }
    }
}

#[tokio::test]
async fn an_admin_who_is_lowered_is_kept_out_at_once() {
    let office = Office::new().await;
    let other = office.app.admin("other@example.org").await;
    office.page("/admin").await.expect(200);
    let path = format!("/admin/users/{}", office.admin.id);
    office.post(&path, &[("role", "user")]).await.expect(303);
    office.page("/admin").await.expect(303);
    office.app.change("admin@example.org", Changes { tier: Some("pro".to_owned()), ..Changes::default() }).await;
    let cookie = format!("tallybox_session={}", office.app.log_in("admin@example.org").await);
    office.app.call_with("GET", "/admin", None, None, &[("cookie", &cookie)]).await.expect(403);
    office.app.ask(&other.token, "/api/admin/users").await.expect(200);
}
