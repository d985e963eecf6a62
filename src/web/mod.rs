//! HTTP. Every route and layer in one place; handlers are thin.

mod admin;
mod agent;
mod answer;
mod auth;
mod edge;
mod extract;
mod gateway;
mod input;
mod memory;
mod metrics;
mod openapi;
mod ops;
mod pages;
mod problem;
mod state;
mod usage;

use std::time::Duration;

use axum::Router;
use axum::handler::Handler;
use axum::routing::{self, MethodRouter};
use http::{HeaderValue, Method};
use tower::Layer;
use tower_http::CompressionLevel;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer, ExposeHeaders};

use crate::config::{Config, Metrics, MetricsAccess};
use crate::domain::auth::Scope;
pub use edge::Access;
pub(crate) use edge::Edge;
use edge::Guarded;
pub(crate) use extract::Peer;
pub(crate) use state::AppState;

/// Where the metrics are.
const METRICS: &str = "/metrics";

/// A route: the one description from which the router and its `/api` twin are made, and the tests' access matrix.
pub(crate) struct Route {
    pub(crate) method: Method,
    pub(crate) path: &'static str,
    pub(crate) access: Access,
    handler: MethodRouter<AppState>,
}

fn get<H: Handler<T, AppState>, T: 'static>(path: &'static str, access: Access, handler: H) -> Route {
    Route { method: Method::GET, path, access, handler: routing::get(Guarded { access, path, handler }) }
}

fn post<H: Handler<T, AppState>, T: 'static>(path: &'static str, access: Access, handler: H) -> Route {
    Route { method: Method::POST, path, access, handler: routing::post(Guarded { access, path, handler }) }
}

fn delete<H: Handler<T, AppState>, T: 'static>(path: &'static str, access: Access, handler: H) -> Route {
    Route { method: Method::DELETE, path, access, handler: routing::delete(Guarded { access, path, handler }) }
}

fn patch<H: Handler<T, AppState>, T: 'static>(path: &'static str, access: Access, handler: H) -> Route {
    Route { method: Method::PATCH, path, access, handler: routing::patch(Guarded { access, path, handler }) }
}

impl Route {
    /// Whether the route also answers under `/api`: all of the JSON API but what lives there already.
    pub(crate) fn has_twin(&self) -> bool {
        const TWINS: [&str; 4] = ["/usage/", "/memory", "/auth/", "/agents/"];
        self.access != Access::Page && TWINS.iter().any(|prefix| self.path.starts_with(prefix))
    }
}

/// The table.
pub(crate) fn routes() -> Vec<Route> {
    let mut routes = ops_routes();
    routes.extend(auth_routes());
    routes.extend(usage_routes());
    routes.extend(agent_routes());
    routes.extend(admin_routes());
    routes.extend(page_routes());
    routes.extend(admin_page_routes());
    routes.extend(memory_routes());
    routes.extend(gateway_routes());
    routes
}

fn ops_routes() -> Vec<Route> {
    let open = Access::Open;
    vec![
        get("/healthz", open, ops::healthz),
        get("/readyz", open, ops::readyz),
        get(METRICS, Access::Scope(Scope::Metrics), metrics::metrics),
        get(openapi::DOCUMENT, open, openapi::openapi),
        get(openapi::DOCS, open, openapi::docs),
    ]
}

fn auth_routes() -> Vec<Route> {
    let session = Access::Session;
    vec![
        post("/auth/login", Access::Open, auth::login),
        post("/auth/logout", session, auth::logout),
        get("/auth/me", Access::AnyCredential, auth::me),
        post("/auth/password", session, auth::password),
        get("/auth/tokens", session, auth::list_tokens),
        post("/auth/tokens", session, auth::create_token),
        delete("/auth/tokens/{id}", session, auth::revoke_token),
    ]
}

fn admin_routes() -> Vec<Route> {
    let admin = Access::Admin;
    vec![
        get("/api/admin/users", admin, admin::list),
        post("/api/admin/users", admin, admin::create),
        get("/api/admin/users/{id}", admin, admin::get),
        patch("/api/admin/users/{id}", admin, admin::update),
        delete("/api/admin/users/{id}", admin, admin::delete),
        post("/api/admin/users/{id}/password", admin, admin::reset_password),
        get("/api/admin/users/{id}/usage", admin, admin::usage_of),
        get("/api/admin/users/{id}/ledger", admin, admin::ledger),
        post("/api/admin/users/{id}/ledger", admin, admin::correct),
        get("/api/admin/users/{id}/tokens", admin, admin::list_tokens),
        delete("/api/admin/users/{id}/tokens/{token_id}", admin, admin::revoke_token),
        get("/api/admin/usage", admin, admin::usage),
        get("/api/admin/overview", admin, admin::overview),
        get("/api/admin/audit", admin, admin::audit),
    ]
}

fn agent_routes() -> Vec<Route> {
    let gateway = Access::Scope(Scope::Gateway);
    vec![
        post("/agents/runs", gateway, agent::start),
        get("/agents/runs", gateway, agent::list),
        get("/agents/runs/{id}", gateway, agent::get),
        post("/agents/runs/{id}/heartbeat", gateway, agent::heartbeat),
        post("/agents/runs/{id}/stop", gateway, agent::stop),
    ]
}

fn usage_routes() -> Vec<Route> {
    let (read, write) = (Access::Scope(Scope::UsageRead), Access::Scope(Scope::UsageWrite));
    vec![
        get("/usage/stats", read, usage::stats),
        get("/usage/tokens", read, usage::tokens),
        get("/usage/storage", read, usage::storage),
        get("/usage/agent-minutes", read, usage::agent_minutes),
        post("/usage/check-quota", read, usage::check_quota),
        get("/usage/timeseries/{resource}", read, usage::timeseries),
        get("/usage/tier", read, usage::tier),
        get("/usage/ledger", read, usage::list_entries),
        post("/usage/record", write, usage::record),
        post("/usage/record/batch", write, usage::record_batch),
        post("/usage/reservations", write, usage::reserve),
        get("/usage/reservations", read, usage::list_reservations),
        post("/usage/reservations/{id}/settle", write, usage::settle),
        delete("/usage/reservations/{id}", write, usage::release),
    ]
}

/// Which pages of other sites may call the JSON API: with a bearer, never with a cookie. They may send and read any header,
/// as clients name themselves in headers of their own.
fn cors(origins: &[String]) -> CorsLayer {
    let origins = origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok());
    CorsLayer::new()
        .allow_origin(AllowOrigin::list(origins))
        .allow_methods([Method::GET, Method::POST, Method::PATCH, Method::DELETE])
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(ExposeHeaders::any())
        .max_age(Duration::from_mins(10))
}

fn page_routes() -> Vec<Route> {
    let page = Access::Page;
    vec![
        get("/assets/{name}", Access::Open, pages::assets::asset),
        get("/", page, pages::root),
        get("/login", page, pages::door::login_form),
        post("/login", page, pages::door::login),
        post("/logout", page, pages::door::logout),
        get("/setup", page, pages::door::setup_form),
        post("/setup", page, pages::door::setup),
        get("/usage", page, pages::usage::usage),
        get("/account", page, pages::account::account),
        get("/account/password", page, pages::account::back),
        post("/account/password", page, pages::account::password),
        get("/account/tokens", page, pages::account::back),
        post("/account/tokens", page, pages::account::create_token),
        post("/account/tokens/{id}/revoke", page, pages::account::revoke_token),
        get("/memories", page, pages::memory::list),
        get("/memories/{id}", page, pages::memory::one),
        post("/memories/{id}", page, pages::memory::edit),
        get("/memories/{id}/delete", page, pages::memory::delete_form),
        post("/memories/{id}/delete", page, pages::memory::delete),
    ]
}

fn admin_page_routes() -> Vec<Route> {
    use pages::admin;
    let page = Access::Page;
    vec![
        get("/admin", page, admin::overview),
        get("/admin/audit", page, admin::audit),
        get("/admin/users/new", page, admin::new_user),
        get("/admin/users", page, admin::back),
        post("/admin/users", page, admin::create_user),
        get("/admin/users/{id}", page, admin::user),
        post("/admin/users/{id}", page, admin::change_user),
        get("/admin/users/{id}/password", page, admin::back_to_user),
        post("/admin/users/{id}/password", page, admin::reset_password),
        get("/admin/users/{id}/ledger", page, admin::back_to_user),
        post("/admin/users/{id}/ledger", page, admin::correct_ledger),
        post("/admin/users/{id}/tokens/{token_id}/revoke", page, admin::revoke_token),
        get("/admin/users/{id}/erase", page, admin::confirm_erasure),
        post("/admin/users/{id}/erase", page, admin::erase_user),
    ]
}

fn memory_routes() -> Vec<Route> {
    let (read, write) = (Access::Scope(Scope::MemoryRead), Access::Scope(Scope::MemoryWrite));
    let usage = Access::Scope(Scope::UsageRead);
    vec![
        post("/memory/store", write, memory::store),
        post("/memory/store/batch", write, memory::store_batch),
        post("/memory/search", read, memory::search),
        get("/memory/export", read, memory::export),
        post("/memory/import", write, memory::import),
        get("/memory", read, memory::list),
        delete("/memory", write, memory::delete_many),
        get("/memory/usage", usage, memory::usage),
        get("/memory/usage/quota-check", usage, memory::quota_check),
        get("/memory/{id}", read, memory::get),
        patch("/memory/{id}", write, memory::patch),
        delete("/memory/{id}", write, memory::delete),
        get("/memory/{id}/similar", read, memory::similar),
    ]
}

fn gateway_routes() -> Vec<Route> {
    let scope = Access::Scope(Scope::Gateway);
    vec![
        post("/v1/chat/completions", scope, gateway::chat),
        post("/v1/completions", scope, gateway::completions),
        post("/v1/responses", scope, gateway::responses),
        post("/v1/embeddings", scope, gateway::embeddings),
        get("/v1/models", scope, gateway::models),
    ]
}

/// What the table says of each path that answers, twins included: for tests that must not forget one.
pub(crate) fn paths() -> Vec<(Method, String, Access)> {
    let described = |route: Route| {
        let twin = route.has_twin().then(|| (route.method.clone(), format!("/api{}", route.path), route.access));
        [Some((route.method, route.path.to_owned(), route.access)), twin]
    };
    routes().into_iter().flat_map(described).flatten().collect()
}

/// A route as the configuration wants it; none where it wants none.
fn as_configured(route: Route, config: &Config) -> Option<Route> {
    let is_for_all = route.path != METRICS;
    match (is_for_all, &config.metrics) {
        (true, _) | (false, Metrics { access: MetricsAccess::Token, listen: None }) => Some(route),
        (false, Metrics { access: MetricsAccess::Open, listen: None }) => {
            Some(get(METRICS, Access::Open, metrics::metrics))
        }
        (false, _) => None,
    }
}

/// The whole of what `metrics.listen` answers.
pub(crate) fn metrics_application(state: &AppState) -> Edge {
    let metrics = get(METRICS, Access::Open, metrics::metrics).handler;
    within_edge(Router::new().route(METRICS, metrics).fallback(problem::nothing_there), state)
}

fn within_edge(router: Router<AppState>, state: &AppState) -> Edge {
    let router = CatchPanicLayer::custom(edge::panicked as edge::OnPanic).layer(router.with_state(state.clone()));
    Edge { state: state.clone(), router }
}

/// The whole application.
pub(crate) fn application(state: &AppState) -> Edge {
    let (mut api, mut pages) = (Router::new(), Router::new());
    for route in routes() {
        let Some(route) = as_configured(route, &state.config) else { continue };
        if route.has_twin() {
            api = api.route(&format!("/api{}", route.path), route.handler.clone());
        }
        // Pages and their files are worth compressing; an answer of the JSON API is small, and its clients many. The answer
        // to a form may hold a secret beside what was typed, so that its compressed length would tell about it.
        let is_page = route.access == Access::Page || route.path.starts_with("/assets/") || route.path == openapi::DOCS;
        let is_long = is_page || route.path == openapi::DOCUMENT;
        let handler = if is_long && route.method == Method::GET {
            route.handler.layer(CompressionLayer::new().quality(CompressionLevel::Fastest))
        } else {
            route.handler
        };
        if is_page {
            pages = pages.route(route.path, handler);
        } else {
            api = api.route(route.path, handler);
        }
    }
    let origins = &state.config.server.cors_origins;
    if !origins.is_empty() {
        api = api.layer(cors(origins));
    }
    within_edge(api.merge(pages).fallback(problem::no_such_route), state)
}
