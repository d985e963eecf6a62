//! Bad input: every JSON route x everything that can be wrong with a body.

mod arbitrary;
mod body;
mod edge;
mod hostile;
mod order;

use axum::body::Body;
use http::Request;
use serde_json::{Value, json};

use super::calls::{id_of, tokens};
use super::support::{PASSWORD, Reply, TestApp, TestUser};

/// Small, so that too large a body is quickly made.
const BODY_BYTES_MAX: usize = 32_768;
const TOML: &str = "[server]\nbody_bytes_max = 32768\n[memory]\ntext_bytes_max = 16384\nimport_bytes_max = 32768";

/// A route that takes a body, and one that it takes.
struct Route {
    method: &'static str,
    /// As the table of routes has it.
    pattern: &'static str,
    path: String,
    token: Option<String>,
    body: Value,
    /// Whether no body at all is as good as an empty object.
    optional: bool,
}

/// Everything that there is, and the routes to it.
struct World {
    app: TestApp,
    user: TestUser,
    admin: TestUser,
    session: String,
    routes: Vec<Route>,
}

/// A vector that needs no model.
fn embedding() -> Value {
    let mut numbers = vec![0.0; 384];
    numbers[7] = 1.0;
    json!(numbers)
}

impl World {
    async fn new() -> Self {
        let app = TestApp::with_config(TOML);
        let admin = app.admin("admin@example.org").await;
        let user = app.user_with_password("user@example.org", "basic").await;
        let session = app.log_in("admin@example.org").await;
        app.used_up(&user, 100).await;
        let hold = app.hold(&user, 10).await;
        let memory = json!({"type": "note", "input_context": "a text", "embedding": embedding()});
        let memory = id_of(&app.tell(&user.token, "/memory/store", memory).await.expect(201));
        let run = id_of(&app.tell(&user.token, "/agents/runs", json!({})).await.expect(201));
        let routes = routes(&user, &admin, &session, [&hold, &memory, &run]);
        Self { app, user, admin, session, routes }
    }

    /// All that a bad request might have changed.
    async fn snapshot(&self) -> Vec<String> {
        self.app.proves();
        let mut found = Vec::new();
        for path in [
            "/usage/stats",
            "/usage/tokens",
            "/usage/agent-minutes",
            "/usage/ledger",
            "/usage/reservations",
            "/agents/runs",
            "/memory",
            "/memory/usage",
        ] {
            found.push(self.app.ask(&self.user.token, path).await.expect(200).text);
        }
        let tokens = format!("/api/admin/users/{}/tokens", self.user.id);
        for path in ["/api/admin/users", "/api/admin/audit?limit=100", "/api/admin/overview", tokens.as_str()] {
            found.push(self.app.ask(&self.admin.token, path).await.expect(200).text);
        }
        found.push(self.app.ask(&self.session, "/auth/tokens").await.expect(200).text);
        found
    }

    async fn send(&self, request: Request<Body>) -> Reply {
        self.app.send(request).await
    }
}

impl Route {
    /// A request of this route with any body and these headers.
    fn request(&self, body: impl Into<Body>, headers: &[(&str, &str)]) -> Request<Body> {
        let mut request = Request::builder().method(self.method).uri(&self.path);
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(body.into()).unwrap()
    }

    /// A request with a JSON text.
    fn json(&self, text: &str) -> Request<Body> {
        self.bytes(text.as_bytes())
    }

    fn bytes(&self, bytes: &[u8]) -> Request<Body> {
        let length = bytes.len().to_string();
        self.request(bytes.to_vec(), &[("content-type", "application/json"), ("content-length", &length)])
    }

    fn name(&self) -> String {
        format!("{} {}", self.method, self.pattern)
    }
}

fn route(method: &'static str, pattern: &'static str, id: &str, token: Option<&str>, body: Value) -> Route {
    Route {
        method,
        pattern,
        path: pattern.replace("{id}", id),
        token: token.map(str::to_owned),
        body,
        optional: ["/auth/logout", "/api/admin/users/{id}/password"].contains(&pattern)
            || pattern.starts_with("/agents/"),
    }
}

fn routes(user: &TestUser, admin: &TestUser, session: &str, ids: [&str; 3]) -> Vec<Route> {
    let mut routes = own_routes(user, ids);
    routes.extend(identity_routes(user, admin, session));
    routes
}

fn own_routes(user: &TestUser, [hold, memory, run]: [&str; 3]) -> Vec<Route> {
    let own = Some(user.token.as_str());
    let stored = json!({
        "type": "note", "input_context": "new", "tier": "itm", "tags": ["t"], "metadata": {"a": 1}, "session": "s",
        "timestamp": "2026-03-09T12:00:00Z", "embedding": embedding(), "report_similar": false,
    });
    let mut in_batch = stored.clone();
    in_batch.as_object_mut().unwrap().remove("report_similar");
    let found = json!({
        "embedding": embedding(), "limit": 3, "mode": "semantic", "tiers": ["ltm"], "types": ["note"], "tags": ["t"],
        "metadata": {"a": 1}, "session": "s", "created_after": "2026-03-09T12:00:00Z", "min_score": 0.5, "context": 1,
    });
    let record = json!({
        "resourceType": "llm_tokens", "amount": 5, "metadata": {"a": 1}, "timestamp": "2026-03-09T12:00:00Z",
        "enforce": true,
    });
    vec![
        route("POST", "/usage/check-quota", "", own, tokens(5)),
        route("POST", "/usage/record", "", own, record),
        route("POST", "/usage/record/batch", "", own, json!({"entries": [tokens(1)]})),
        route(
            "POST",
            "/usage/reservations",
            "",
            own,
            json!({"resourceType": "llm_tokens", "amount": 5, "ttlSeconds": 60}),
        ),
        route("POST", "/usage/reservations/{id}/settle", hold, own, json!({"amount": 5, "metadata": {"a": 1}})),
        route("POST", "/agents/runs", "", own, json!({"name": "n", "metadata": {"a": 1}, "maxMinutes": 5})),
        route("POST", "/agents/runs/{id}/heartbeat", run, own, json!({})),
        route("POST", "/agents/runs/{id}/stop", run, own, json!({})),
        route("POST", "/memory/store", "", own, stored),
        route("POST", "/memory/store/batch", "", own, json!({"memories": [in_batch]})),
        route("POST", "/memory/import", "", own, json!({"memories": [in_batch]})),
        route("POST", "/memory/search", "", own, found),
        route(
            "PATCH",
            "/memory/{id}",
            memory,
            own,
            json!({"type": "other", "tags": ["x"], "metadata": {"b": 2}, "tier": "itm"}),
        ),
    ]
}

fn identity_routes(user: &TestUser, admin: &TestUser, session: &str) -> Vec<Route> {
    let (admins, session) = (Some(admin.token.as_str()), Some(session));
    let correction = json!({"resourceType": "llm_tokens", "amount": 1, "reason": "r"});
    vec![
        route("POST", "/auth/login", "", None, json!({"email": "user@example.org", "password": PASSWORD})),
        route("POST", "/auth/logout", "", session, json!({})),
        route(
            "POST",
            "/auth/password",
            "",
            session,
            json!({"currentPassword": PASSWORD, "newPassword": "another password", "revokeTokens": true}),
        ),
        route("POST", "/auth/tokens", "", session, json!({"name": "n", "scopes": ["usage:read"], "expiresInDays": 3})),
        route(
            "POST",
            "/api/admin/users",
            "",
            session,
            json!({"email": "new@example.org", "role": "user", "tier": "pro", "password": PASSWORD}),
        ),
        route(
            "PATCH",
            "/api/admin/users/{id}",
            &user.id,
            session,
            json!({"email": "x@example.org", "role": "admin", "tier": "pro", "disabled": true}),
        ),
        route("POST", "/api/admin/users/{id}/password", &user.id, session, json!({"newPassword": "another password"})),
        route("POST", "/api/admin/users/{id}/ledger", &user.id, admins, correction),
    ]
}
