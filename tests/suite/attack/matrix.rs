//! Every route x everyone who may knock, pages included. The table is written by hand, so that what a route asks is said twice.

use std::collections::BTreeMap;

use http::Method;
use serde_json::{Value, json};
use tallybox::app::App;
use tallybox::domain::auth::Scope;
use tallybox::service::auth::session;

use super::ids::{MISSING, Things};
use crate::suite::support::{Reply, TestApp, TestUser, form};

/// Whom a route is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum For {
    /// Anybody.
    All,
    /// Any live credential.
    Credential,
    /// A session, by bearer.
    Session,
    /// Whose credential has the scope.
    Scope(Scope),
    /// A page for anybody.
    Visitors,
    /// A page for whoever is signed in.
    People,
    /// A page for administrators.
    Admins,
}

/// What the id in its path names, where there is one: the owner's, which nobody else finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Thing {
    Nothing,
    Memory,
    Hold,
    Run,
    Token,
    /// A user, whom only administrators look for.
    User,
}

type Row = (&'static str, &'static str, For, Thing);

const READ: For = For::Scope(Scope::UsageRead);
const WRITE: For = For::Scope(Scope::UsageWrite);
const RECALL: For = For::Scope(Scope::MemoryRead);
const KEEP: For = For::Scope(Scope::MemoryWrite);
const MODELS: For = For::Scope(Scope::Gateway);
const ADMIN: For = For::Scope(Scope::Admin);

/// Every route but the `/api` twins, which are held to the same.
#[rustfmt::skip]
const TABLE: &[Row] = &[
    ("GET", "/healthz", For::All, Thing::Nothing),
    ("GET", "/readyz", For::All, Thing::Nothing),
    ("GET", "/metrics", For::Scope(Scope::Metrics), Thing::Nothing),
    ("GET", "/openapi.json", For::All, Thing::Nothing),
    ("GET", "/docs", For::All, Thing::Nothing),
    ("GET", "/assets/{name}", For::All, Thing::Nothing),
    ("POST", "/auth/login", For::All, Thing::Nothing),
    ("POST", "/auth/logout", For::Session, Thing::Nothing),
    ("GET", "/auth/me", For::Credential, Thing::Nothing),
    ("POST", "/auth/password", For::Session, Thing::Nothing),
    ("GET", "/auth/tokens", For::Session, Thing::Nothing),
    ("POST", "/auth/tokens", For::Session, Thing::Nothing),
    ("DELETE", "/auth/tokens/{id}", For::Session, Thing::Token),
    ("GET", "/usage/stats", READ, Thing::Nothing),
    ("GET", "/usage/tokens", READ, Thing::Nothing),
    ("GET", "/usage/storage", READ, Thing::Nothing),
    ("GET", "/usage/agent-minutes", READ, Thing::Nothing),
    ("POST", "/usage/check-quota", READ, Thing::Nothing),
    ("GET", "/usage/timeseries/{resource}", READ, Thing::Nothing),
    ("GET", "/usage/tier", READ, Thing::Nothing),
    ("GET", "/usage/ledger", READ, Thing::Nothing),
    ("POST", "/usage/record", WRITE, Thing::Nothing),
    ("POST", "/usage/record/batch", WRITE, Thing::Nothing),
    ("POST", "/usage/reservations", WRITE, Thing::Nothing),
    ("GET", "/usage/reservations", READ, Thing::Nothing),
    ("POST", "/usage/reservations/{id}/settle", WRITE, Thing::Hold),
    ("DELETE", "/usage/reservations/{id}", WRITE, Thing::Hold),
    ("POST", "/agents/runs", MODELS, Thing::Nothing),
    ("GET", "/agents/runs", MODELS, Thing::Nothing),
    ("GET", "/agents/runs/{id}", MODELS, Thing::Run),
    ("POST", "/agents/runs/{id}/heartbeat", MODELS, Thing::Run),
    ("POST", "/agents/runs/{id}/stop", MODELS, Thing::Run),
    ("POST", "/memory/store", KEEP, Thing::Nothing),
    ("POST", "/memory/store/batch", KEEP, Thing::Nothing),
    ("POST", "/memory/search", RECALL, Thing::Nothing),
    ("GET", "/memory/export", RECALL, Thing::Nothing),
    ("POST", "/memory/import", KEEP, Thing::Nothing),
    ("GET", "/memory", RECALL, Thing::Nothing),
    ("DELETE", "/memory", KEEP, Thing::Nothing),
    ("GET", "/memory/usage", READ, Thing::Nothing),
    ("GET", "/memory/usage/quota-check", READ, Thing::Nothing),
    ("GET", "/memory/{id}", RECALL, Thing::Memory),
    ("PATCH", "/memory/{id}", KEEP, Thing::Memory),
    ("DELETE", "/memory/{id}", KEEP, Thing::Memory),
    ("GET", "/memory/{id}/similar", RECALL, Thing::Memory),
    ("POST", "/v1/chat/completions", MODELS, Thing::Nothing),
    ("POST", "/v1/completions", MODELS, Thing::Nothing),
    ("POST", "/v1/responses", MODELS, Thing::Nothing),
    ("POST", "/v1/embeddings", MODELS, Thing::Nothing),
    ("GET", "/v1/models", MODELS, Thing::Nothing),
    ("GET", "/api/admin/users", ADMIN, Thing::Nothing),
    ("POST", "/api/admin/users", ADMIN, Thing::Nothing),
    ("GET", "/api/admin/users/{id}", ADMIN, Thing::User),
    ("PATCH", "/api/admin/users/{id}", ADMIN, Thing::User),
    ("DELETE", "/api/admin/users/{id}", ADMIN, Thing::User),
    ("POST", "/api/admin/users/{id}/password", ADMIN, Thing::User),
    ("GET", "/api/admin/users/{id}/usage", ADMIN, Thing::User),
    ("GET", "/api/admin/users/{id}/ledger", ADMIN, Thing::User),
    ("POST", "/api/admin/users/{id}/ledger", ADMIN, Thing::User),
    ("GET", "/api/admin/users/{id}/tokens", ADMIN, Thing::User),
    ("DELETE", "/api/admin/users/{id}/tokens/{token_id}", ADMIN, Thing::User),
    ("GET", "/api/admin/usage", ADMIN, Thing::Nothing),
    ("GET", "/api/admin/overview", ADMIN, Thing::Nothing),
    ("GET", "/api/admin/audit", ADMIN, Thing::Nothing),
    ("GET", "/", For::Visitors, Thing::Nothing),
    ("GET", "/login", For::Visitors, Thing::Nothing),
    ("POST", "/login", For::Visitors, Thing::Nothing),
    ("POST", "/logout", For::Visitors, Thing::Nothing),
    ("GET", "/setup", For::Visitors, Thing::Nothing),
    ("POST", "/setup", For::Visitors, Thing::Nothing),
    ("GET", "/usage", For::People, Thing::Nothing),
    ("GET", "/account", For::People, Thing::Nothing),
    ("GET", "/account/password", For::People, Thing::Nothing),
    ("POST", "/account/password", For::People, Thing::Nothing),
    ("GET", "/account/tokens", For::People, Thing::Nothing),
    ("POST", "/account/tokens", For::People, Thing::Nothing),
    ("POST", "/account/tokens/{id}/revoke", For::People, Thing::Token),
    ("GET", "/memories", For::People, Thing::Nothing),
    ("GET", "/memories/{id}", For::People, Thing::Memory),
    ("POST", "/memories/{id}", For::People, Thing::Memory),
    ("GET", "/memories/{id}/delete", For::People, Thing::Memory),
    ("POST", "/memories/{id}/delete", For::People, Thing::Memory),
    ("GET", "/admin", For::Admins, Thing::Nothing),
    ("GET", "/admin/audit", For::Admins, Thing::Nothing),
    ("GET", "/admin/users/new", For::Admins, Thing::Nothing),
    ("GET", "/admin/users", For::Admins, Thing::Nothing),
    ("POST", "/admin/users", For::Admins, Thing::Nothing),
    ("GET", "/admin/users/{id}", For::Admins, Thing::User),
    ("POST", "/admin/users/{id}", For::Admins, Thing::User),
    ("GET", "/admin/users/{id}/password", For::Admins, Thing::User),
    ("POST", "/admin/users/{id}/password", For::Admins, Thing::User),
    ("GET", "/admin/users/{id}/ledger", For::Admins, Thing::User),
    ("POST", "/admin/users/{id}/ledger", For::Admins, Thing::User),
    ("POST", "/admin/users/{id}/tokens/{token_id}/revoke", For::Admins, Thing::User),
    ("GET", "/admin/users/{id}/erase", For::Admins, Thing::User),
    ("POST", "/admin/users/{id}/erase", For::Admins, Thing::User),
];

/// A valid body of the routes that have an id in their path.
fn body_of(path: &str) -> Option<Value> {
    match path {
        "/usage/reservations/{id}/settle" => Some(json!({"amount": 1})),
        "/agents/runs/{id}/heartbeat" | "/agents/runs/{id}/stop" => Some(json!({})),
        "/memory/{id}" => Some(json!({"tags": ["seen"]})),
        _ => None,
    }
}

fn row_of(method: &Method, path: &str) -> Option<&'static Row> {
    let find = |path: &str| TABLE.iter().find(|(known, at, _, _)| method.as_str() == *known && *at == path);
    find(path).or_else(|| find(path.strip_prefix("/api")?))
}

#[tokio::test]
async fn the_matrix_has_every_route_and_no_other() {
    let routes = App::routes();
    for (method, path, _) in &routes {
        assert!(row_of(method, path).is_some(), "{method} {path} has no row: say whom it is for");
    }
    for (method, path, _, _) in TABLE {
        let is_there = routes.iter().any(|(known, at, _)| known.as_str() == *method && at == path);
        assert!(is_there, "{method} {path} is no route any more");
    }
}

/// Everyone who may knock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Who {
    Anonymous,
    Owner,
    Other,
    Admin,
    Revoked,
    Expired,
    WrongScope,
    Disabled,
}

const EVERYONE: [Who; 8] =
    [Who::Anonymous, Who::Owner, Who::Other, Who::Admin, Who::Revoked, Who::Expired, Who::WrongScope, Who::Disabled];

/// What comes of it.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    In,
    Unauthenticated,
    NoScope,
    NoSession,
    Missing,
    ToTheDoor,
    Forbidden,
}

fn expected((_, _, whom, thing): &Row, who: Who) -> Outcome {
    let is_out = matches!(who, Who::Anonymous | Who::Revoked | Who::Expired | Who::Disabled);
    let is_anothers = !matches!(thing, Thing::Nothing | Thing::User) && who != Who::Owner;
    match whom {
        For::All | For::Visitors => Outcome::In,
        For::People | For::Admins if is_out => Outcome::ToTheDoor,
        // A token in the place of a session.
        For::People | For::Admins if who == Who::WrongScope => Outcome::ToTheDoor,
        For::Admins if who != Who::Admin => Outcome::Forbidden,
        _ if is_out => Outcome::Unauthenticated,
        For::Session if who == Who::WrongScope => Outcome::NoSession,
        For::Scope(_) if who == Who::WrongScope => Outcome::NoScope,
        For::Scope(Scope::Admin | Scope::Metrics) if who != Who::Admin => Outcome::NoScope,
        _ if is_anothers => Outcome::Missing,
        _ => Outcome::In,
    }
}

fn outcome(reply: &Reply, has_thing: bool) -> Outcome {
    assert!(reply.status != 500, "a fault of ours: {}", reply.text);
    match (reply.status, reply.code()) {
        (401, _) => Outcome::Unauthenticated,
        (403, "scope_required") => Outcome::NoScope,
        (403, "session_required") => Outcome::NoSession,
        (403, _) => Outcome::Forbidden,
        (404, _) if has_thing => Outcome::Missing,
        (303, _) if reply.header("location").starts_with("/login?next=") => Outcome::ToTheDoor,
        _ => Outcome::In,
    }
}

/// Everyone, with what they show.
struct Knockers {
    app: TestApp,
    owner: TestUser,
    other: TestUser,
    admin: TestUser,
    target: TestUser,
    bearers: BTreeMap<Who, String>,
    /// Sessions: by cookie where a page is asked for, by bearer where only a session may.
    sessions: BTreeMap<Who, String>,
}

impl Knockers {
    async fn new() -> Self {
        let app = TestApp::new();
        let admin = app.admin("admin@example.org").await;
        let owner = app.user_with_password("owner@example.org", "pro").await;
        let other = app.user_with_password("other@example.org", "pro").await;
        let disabled = app.user_with_password("disabled@example.org", "pro").await;
        let target = app.user("target@example.org", "pro").await;
        let (mut bearers, mut sessions) = (BTreeMap::new(), BTreeMap::new());
        sessions.insert(Who::Expired, session_of(&app, "owner@example.org").await);
        let by_session = session_of(&app, "owner@example.org").await;
        let token = async |more: Value| {
            let made = app.call("POST", "/auth/tokens", Some(&by_session), Some(more)).await.expect(201).json;
            (made["id"].as_str().unwrap().to_owned(), made["token"].as_str().unwrap().to_owned())
        };
        bearers.insert(Who::Expired, token(json!({"name": "expired", "expiresInDays": 1})).await.1);
        let (id, revoked) = token(json!({"name": "revoked"})).await;
        app.call("DELETE", &format!("/auth/tokens/{id}"), Some(&by_session), None).await.expect(204);
        bearers.insert(Who::Revoked, revoked);
        app.call("POST", "/auth/logout", Some(&by_session), None).await.expect(204);
        sessions.insert(Who::Revoked, by_session);
        sessions.insert(Who::Disabled, session_of(&app, "disabled@example.org").await);
        let path = format!("/api/admin/users/{}", disabled.id);
        app.call("PATCH", &path, Some(&admin.token), Some(json!({"disabled": true}))).await.expect(200);
        app.clock.advance_millis(31 * 86_400_000);
        for (who, user) in
            [(Who::Owner, &owner), (Who::Other, &other), (Who::Admin, &admin), (Who::Disabled, &disabled)]
        {
            bearers.insert(who, user.token.clone());
        }
        Self { app, owner, other, admin, target, bearers, sessions }
    }

    /// What `who` shows at a route.
    async fn bearer(&self, whom: For, who: Who) -> Option<String> {
        match (who, whom) {
            (Who::Anonymous, _) => None,
            (Who::WrongScope, For::Scope(scope)) => {
                let others: Vec<Scope> = Scope::ALL.into_iter().filter(|other| *other != scope).collect();
                Some(self.app.token(&self.admin.email, &others).await)
            }
            (Who::WrongScope, _) => Some(self.admin.token.clone()),
            (Who::Owner | Who::Other | Who::Admin, For::Session | For::Visitors | For::People | For::Admins) => {
                // One that a log-out before may have ended is no session: each knock has its own.
                let of = [(Who::Owner, &self.owner), (Who::Other, &self.other), (Who::Admin, &self.admin)];
                let user = of.iter().find(|(known, _)| *known == who).unwrap().1;
                Some(session_of(&self.app, &user.email).await)
            }
            (_, For::Session | For::Visitors | For::People | For::Admins) => Some(self.sessions[&who].clone()),
            _ => Some(self.bearers[&who].clone()),
        }
    }

    async fn knock(&self, method: &str, path: &str, whom: For, body: Option<Value>, who: Who) -> Reply {
        let shown = self.bearer(whom, who).await;
        if !matches!(whom, For::Visitors | For::People | For::Admins) {
            return self.app.call(method, path, shown.as_deref(), body).await;
        }
        let cookie = shown.map(|secret| format!("tallybox_session={secret}"));
        if method == "POST" {
            return self.app.send(form(path, cookie.as_deref(), &[])).await;
        }
        let headers: Vec<(&str, &str)> = cookie.iter().map(|cookie| ("cookie", cookie.as_str())).collect();
        self.app.call_with(method, path, None, None, &headers).await
    }

    /// The path of a route for a knock, its ids those of something that is there.
    async fn concrete(&self, path: &str, thing: Thing) -> String {
        let things = Things { app: &self.app, owner: &self.owner, admin: &self.admin };
        let id = match thing {
            Thing::User => self.target.id.clone(),
            thing => things.make(thing).await,
        };
        let token = if path.contains("{token_id}") { things.token_of(&self.target).await } else { String::new() };
        path.replace("{id}", &id)
            .replace("{token_id}", &token)
            .replace("{resource}", "llm_tokens")
            .replace("{name}", "tallybox.css")
    }
}

/// A session of who has a password, without the work of a log-in.
pub(super) async fn session_of(app: &TestApp, email: &str) -> String {
    let email = email.to_owned();
    let begun = app.app.store().write(move |writer| {
        let (user, hash) = session::find_candidate(writer, &email)?.unwrap();
        session::log_in(writer, &user, &hash.unwrap(), None)
    });
    begun.await.unwrap().secret
}

#[tokio::test]
async fn each_route_lets_in_whom_it_is_for_and_nobody_else() {
    let knockers = Knockers::new().await;
    for (method, path, _) in App::routes() {
        let row = row_of(&method, &path).unwrap();
        let (_, pattern, whom, thing) = *row;
        for who in EVERYONE {
            let concrete = knockers.concrete(&path, thing).await;
            let reply = knockers.knock(method.as_str(), &concrete, whom, body_of(pattern), who).await;
            let has_thing = thing != Thing::Nothing;
            assert_eq!(outcome(&reply, has_thing), expected(row, who), "{method} {path} by {who:?}: {}", reply.text);
            if reply.status == 401 && !pattern.starts_with("/v1/") {
                assert_eq!(reply.header("www-authenticate"), "Bearer", "{method} {path} by {who:?}");
            }
        }
    }
    knockers.app.proves();
}

#[tokio::test]
async fn what_is_anothers_answers_like_what_never_was() {
    let knockers = Knockers::new().await;
    for row in TABLE {
        let (method, path, whom, thing) = *row;
        if matches!(thing, Thing::Nothing | Thing::User) {
            continue;
        }
        let theirs = knockers.concrete(path, thing).await;
        for who in [Who::Other, Who::Admin] {
            let mut said = Vec::new();
            for path in [&theirs, &path.replace("{id}", MISSING)] {
                let mut reply = knockers.knock(method, path, whom, body_of(row.1), who).await;
                assert_eq!(reply.status, 404, "{method} {path} by {who:?}: {}", reply.text);
                reply.json["requestId"] = Value::Null;
                let id = reply.header("x-request-id").to_owned();
                let text = reply.text.replace(&id, "").replace(path.as_str(), "");
                let text = if reply.json.is_object() && reply.json["code"].is_string() {
                    reply.json.to_string()
                } else {
                    text
                };
                said.push(text);
            }
            assert_eq!(said[0], said[1], "{method} {path}");
        }
        // It is still there, and its owner's.
        let reply = knockers.knock(method, &theirs, whom, body_of(path), Who::Owner).await;
        assert!(outcome(&reply, true) == Outcome::In, "{method} {theirs}: {}", reply.text);
    }
}
