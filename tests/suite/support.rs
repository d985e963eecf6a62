//! The application under test, and clients for it.

use std::io::Write;
use std::net::SocketAddr;

use axum::body::Body;
use axum::response::Response;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::Value;
use tallybox::app::App;
use tallybox::clock::Clock;
use tallybox::config::{Config, Environment};
use tallybox::domain::auth::{Role, Scope, User};
use tallybox::domain::unit::Timestamp;
use tallybox::service::auth::account::{By, Changes, New, change, create, load_by_email};
use tallybox::service::auth::password;
use tallybox::service::auth::token::{NewToken, create_for};
use tempfile::TempDir;
use tower::ServiceExt;

use super::sieve;

/// 2026-03-10T12:00:00Z: the middle of a day, of a month, and far from any change of daylight saving.
pub(crate) const NOON: Timestamp = Timestamp(1_773_144_000_000);
/// The password of whoever has one.
pub(crate) const PASSWORD: &str = "correct horse battery staple";

/// The real application on a directory of its own.
pub(crate) struct TestApp {
    pub(crate) app: App,
    pub(crate) clock: Clock,
    pub(crate) directory: TempDir,
}

/// A user with a token that has the scopes which a token has by default.
#[derive(Clone, Debug)]
pub(crate) struct TestUser {
    pub(crate) id: String,
    pub(crate) email: String,
    pub(crate) token: String,
}

/// An answer.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    /// The body where it is JSON, else null.
    pub(crate) json: Value,
    pub(crate) text: String,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The stable code of a problem, in either dialect.
    pub(crate) fn code(&self) -> &str {
        self.json["code"].as_str().or_else(|| self.json["error"]["code"].as_str()).unwrap_or_default()
    }

    /// The status, or a panic that shows the whole answer.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text);
        self
    }
}

impl TestApp {
    /// With the default settings.
    pub(crate) fn new() -> Self {
        Self::with_config("")
    }

    /// With a configuration file of this text.
    pub(crate) fn with_config(toml: &str) -> Self {
        Self::of(toml, tempfile::tempdir().unwrap())
    }

    /// As [`TestApp::with_config`], on a directory of the caller's choice.
    pub(crate) fn with_config_at(toml: &str, directory: TempDir) -> Self {
        Self::of(toml, directory)
    }

    /// On a directory that has a database already.
    pub(crate) fn at(directory: TempDir) -> Self {
        Self::of("", directory)
    }

    /// As [`TestApp::at`], with a configuration file of this text.
    pub(crate) fn at_with(toml: &str, directory: TempDir) -> Self {
        Self::of(toml, directory)
    }

    /// Closes the database and gives its directory.
    pub(crate) fn stop(self) -> TempDir {
        self.app.store().close();
        self.directory
    }

    fn of(toml: &str, directory: TempDir) -> Self {
        sieve::start();
        let config = Config::parse(Some(toml), &Environment::default()).unwrap();
        let clock = Clock::manual(NOON);
        let app = App::build(config, directory.path(), clock.clone()).unwrap();
        Self { app, clock, directory }
    }

    pub(crate) fn by(&self) -> By {
        By::command_line(self.clock.clone())
    }

    /// A user on `tier`, without a password.
    pub(crate) async fn user(&self, email: &str, tier: &str) -> TestUser {
        self.add(email, tier, Role::User, None, None).await
    }

    /// As [`TestApp::user`], with [`PASSWORD`].
    pub(crate) async fn user_with_password(&self, email: &str, tier: &str) -> TestUser {
        self.add(email, tier, Role::User, Some(PASSWORD), None).await
    }

    /// An admin on `free_trial` with [`PASSWORD`], whose token has every scope.
    pub(crate) async fn admin(&self, email: &str) -> TestUser {
        self.add(email, "free_trial", Role::Admin, Some(PASSWORD), Some(&Scope::ALL)).await
    }

    async fn add(
        &self,
        email: &str,
        tier: &str,
        role: Role,
        password: Option<&str>,
        scopes: Option<&[Scope]>,
    ) -> TestUser {
        let by = self.by();
        let tiers = Config::parse(None, &Environment::default()).unwrap().tiers;
        let password_hash = password.map(|password| password::hash(password).unwrap());
        let new = New { email: Some(email.to_owned()), role, tier: tier.to_owned(), password_hash };
        let scopes = scopes.map(|scopes| scopes.iter().copied().collect());
        let made = self.app.store().write(move |writer| {
            let user: User = create(writer, &by, &tiers, &new)?.0;
            let token = NewToken { name: "test".to_owned(), scopes, expires_in_days: None };
            let secret = create_for(writer, &by, &user, &token)?.1;
            Ok((user.id.to_string(), secret))
        });
        let (id, token) = made.await.unwrap();
        TestUser { id, email: email.to_owned(), token }
    }

    /// A token of `email` with these scopes.
    pub(crate) async fn token(&self, email: &str, scopes: &[Scope]) -> String {
        let (by, email) = (self.by(), email.to_owned());
        let new =
            NewToken { name: "more".to_owned(), scopes: Some(scopes.iter().copied().collect()), expires_in_days: None };
        let made = self.app.store().write(move |writer| {
            let user = load_by_email(writer, &email)?;
            Ok(create_for(writer, &by, &user, &new)?.1)
        });
        made.await.unwrap()
    }

    /// Changes a user as whoever runs the box does.
    pub(crate) async fn change(&self, email: &str, changes: Changes) {
        let (by, email) = (self.by(), email.to_owned());
        let tiers = Config::parse(None, &Environment::default()).unwrap().tiers;
        let changed = self.app.store().write(move |writer| {
            let user = load_by_email(writer, &email)?;
            change(writer, &by, &tiers, &user, &changes)
        });
        changed.await.unwrap();
    }

    /// A session of `email`, by [`PASSWORD`].
    pub(crate) async fn log_in(&self, email: &str) -> String {
        let body = serde_json::json!({"email": email, "password": PASSWORD});
        let reply = self.call("POST", "/auth/login", None, Some(body)).await.expect(200);
        reply.json["token"].as_str().unwrap().to_owned()
    }

    /// Calls the JSON API.
    pub(crate) async fn call(&self, method: &str, path: &str, token: Option<&str>, json: Option<Value>) -> Reply {
        self.call_with(method, path, token, json, &[]).await
    }

    /// As [`TestApp::call`], with more headers.
    pub(crate) async fn call_with(
        &self,
        method: &str,
        path: &str,
        token: Option<&str>,
        json: Option<Value>,
        headers: &[(&str, &str)],
    ) -> Reply {
        self.send(request(method, path, token, json, headers)).await
    }

    /// As [`TestApp::call_with`], from another peer than loopback.
    pub(crate) async fn call_from(&self, peer: &str, request: Request<Body>) -> Reply {
        let peer = SocketAddr::new(peer.parse().unwrap(), 40_000);
        read(self.app.router_for(peer).oneshot(request).await.unwrap()).await
    }

    /// Sends any request, in process.
    pub(crate) async fn send(&self, request: Request<Body>) -> Reply {
        read(self.app.router().oneshot(request).await.unwrap()).await
    }

    /// One pass of the worker.
    pub(crate) async fn pass(&self) {
        self.app.worker().pass().await.unwrap();
    }
}

/// Says what a test leaves out, past the capture of its output; and in the file that `make` shows at the end, since whoever
/// runs tests hides what those print that pass.
#[expect(clippy::disallowed_methods, reason = "a test's own setting")]
pub(crate) fn not_tested(what: &str) {
    let line = format!("NOT TESTED: {what}\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
    if let Ok(path) = std::env::var("TALLYBOX_NOT_TESTED") {
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
        file.write_all(line.as_bytes()).unwrap();
    }
}

/// A request with a JSON body where one is given.
pub(crate) fn request(
    method: &str,
    path: &str,
    token: Option<&str>,
    json: Option<Value>,
    headers: &[(&str, &str)],
) -> Request<Body> {
    let mut request = Request::builder().method(Method::from_bytes(method.as_bytes()).unwrap()).uri(path);
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    match json {
        Some(json) => {
            let text = json.to_string();
            let request = request.header("content-type", "application/json").header("content-length", text.len());
            request.body(Body::from(text)).unwrap()
        }
        None => request.body(Body::empty()).unwrap(),
    }
}

/// A form post of a browser on `http://box.test`.
pub(crate) fn form(path: &str, cookie: Option<&str>, fields: &[(&str, &str)]) -> Request<Body> {
    let text = serde_urlencoded::to_string(fields).unwrap();
    let mut request = Request::builder()
        .method(Method::POST)
        .uri(path)
        .header("host", "box.test")
        .header("origin", "http://box.test")
        .header("accept", "text/html")
        .header("content-type", "application/x-www-form-urlencoded")
        .header("content-length", text.len());
    if let Some(cookie) = cookie {
        request = request.header("cookie", cookie);
    }
    request.body(Body::from(text)).unwrap()
}

pub(crate) async fn read(response: Response) -> Reply {
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    assert_ne!(parts.status, StatusCode::INTERNAL_SERVER_ERROR, "{text}");
    // A client believes the length: what is longer is cut, what is shorter is waited for.
    if let Some(length) = parts.headers.get("content-length").filter(|_| !text.is_empty()) {
        assert_eq!(length.to_str().unwrap(), bytes.len().to_string(), "{text}");
    }
    Reply {
        status: parts.status.as_u16(),
        headers: parts.headers,
        json: serde_json::from_str(&text).unwrap_or(Value::Null),
        text,
    }
}
