//! The description of the JSON API: `OpenAPI` 3.1, made of the table of routes and of what stands here of each route, noun by
//! noun. `GET /openapi.json` gives it to programs, `GET /docs` shows it to people.

mod admin;
mod agent;
mod auth;
mod gateway;
mod memory;
mod memory_shapes;
mod operation;
mod ops;
mod page;
mod schema;
mod shared;
mod usage;

use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, HeaderValue};
use serde_json::{Map, Value, json};

use super::pages::protect;
use super::state::AppState;
use super::{Route, routes};
use operation::Operation;

/// Where the document is.
pub(super) const DOCUMENT: &str = "/openapi.json";
/// Where people read it.
pub(super) const DOCS: &str = "/docs";

/// What the description takes from the configuration.
pub(super) struct Terms {
    tiers: Vec<String>,
    default_tier: String,
    text_bytes_max: usize,
}

impl Terms {
    fn of(state: &AppState) -> Self {
        Self {
            tiers: state.quota.tiers.each_name().map(str::to_owned).collect(),
            default_tier: state.config.auth.default_tier.clone(),
            text_bytes_max: state.config.memory.text_bytes_max,
        }
    }
}

/// A heading, with the calls that stand under it.
struct Group {
    name: &'static str,
    about: &'static str,
    operations: Vec<Operation>,
}

fn groups(terms: &Terms) -> Vec<Group> {
    let group = |(name, about), operations| Group { name, about, operations };
    vec![
        group(memory::GROUP, memory::operations()),
        group(usage::GROUP, usage::operations()),
        group(agent::GROUP, agent::operations()),
        group(gateway::GROUP, gateway::operations()),
        group(auth::GROUP, auth::operations()),
        group(admin::GROUP, admin::operations(terms)),
        group(ops::GROUP, ops::operations()),
    ]
}

fn schemas(terms: &Terms) -> Map<String, Value> {
    let mut all = shared::schemas();
    all.extend(ops::schemas());
    all.extend(auth::schemas());
    all.extend(usage::schemas());
    all.extend(agent::schemas());
    all.extend(admin::schemas(terms));
    all.extend(memory_shapes::schemas(terms));
    all.extend(gateway::schemas());
    all.into_iter().map(|(name, schema)| (name.to_owned(), schema)).collect()
}

/// What holds for every call.
const ABOUT: &str = "Memory, metering and limits for AI assistants and agents.

A call proves who makes it by `Authorization: Bearer` and an API token, or the token of a session. The API takes no cookie, so \
no page of another site can use it.

Where a path is given with two servers, it answers under `/api` as well, and the two are one: they share their idempotency keys.

Texts must not contain the NUL character. Unknown fields and parameters are refused, and so is one given twice. Null in an optional \
field counts as absent. Instants are RFC 3339; answers give them in UTC with milliseconds. Checks come in this order: 401, 403, \
415, 413, 400, 422, 404, 409, 429. Failures are problems of RFC 9457, under `/v1` OpenAI's own.

A token with the scope `act-as`, or a trusted identity proxy, names another user by `X-User-Id`, and may name the tier whose \
limits hold for the request by `X-User-Tier`. A user that is not known is 404, one that is disabled 403, one that was erased 410, \
an unknown tier 422. From anyone else another's id is 403 `not_yourself`.";

/// The document.
pub(super) fn document(terms: &Terms) -> Value {
    let mut paths: Map<String, Value> = Map::new();
    let routes = routes();
    let groups = groups(terms);
    let tags: Vec<Value> = groups.iter().map(|group| json!({"name": group.name, "description": group.about})).collect();
    for group in groups {
        for operation in group.operations {
            let Some(route) = routes.iter().find(|route| is_of(&operation, route)) else { continue };
            let path = paths.entry(route.path.to_owned()).or_insert_with(|| json!({}));
            if route.has_twin() {
                path["servers"] = json!([{"url": "/"}, {"url": "/api"}]);
            }
            let method = operation.method.as_str().to_ascii_lowercase();
            path[method] = operation.describe(route.access, group.name);
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Tallybox",
            "version": crate::VERSION,
            "description": ABOUT,
            "license": {"name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": tags,
        "paths": paths,
        "components": {
            "schemas": schemas(terms),
            "responses": shared::responses(),
            "headers": shared::headers(),
            "parameters": shared::parameters(),
            "securitySchemes": shared::security_schemes(),
        },
    })
}

fn is_of(operation: &Operation, route: &Route) -> bool {
    operation.method == route.method && operation.path == route.path
}

/// The document as programs and as people get it.
pub(crate) struct Described {
    json: Bytes,
    page: Bytes,
}

/// Of this server, made once.
fn described(state: &AppState) -> &Described {
    state.described.get_or_init(|| {
        let document = document(&Terms::of(state));
        let page = page::render(&document).into_string();
        Described { json: document.to_string().into(), page: page.into() }
    })
}

/// `GET /openapi.json`
pub(super) async fn openapi(State(state): State<AppState>) -> Response {
    let mut response = described(&state).json.clone().into_response();
    let headers: &mut HeaderMap = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// `GET /docs`
pub(super) async fn docs(State(state): State<AppState>) -> Response {
    let mut response = described(&state).page.clone().into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    protect(response.headers_mut());
    response
}

#[cfg(test)]
mod tests;
