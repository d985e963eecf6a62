//! HTTP. Every route and layer in one place; handlers are thin.

mod answer;
mod auth;
mod edge;
mod extract;
mod input;
mod memory;
mod ops;
mod pages;
mod problem;
mod state;
mod usage;

use axum::Router;
use axum::handler::Handler;
use axum::middleware::from_fn_with_state;
use axum::routing::{self, MethodRouter};
use http::Method;
use tower_http::catch_panic::CatchPanicLayer;

use crate::domain::auth::Scope;
pub(crate) use edge::Access;
pub(crate) use extract::Peer;
pub(crate) use state::AppState;

/// A route: the one description from which the router and its `/api` twin are made, and the tests' access matrix.
pub(crate) struct Route {
    pub(crate) method: Method,
    pub(crate) path: &'static str,
    pub(crate) access: Access,
    handler: MethodRouter<AppState>,
}

fn get<H: Handler<T, AppState>, T: 'static>(path: &'static str, access: Access, handler: H) -> Route {
    Route { method: Method::GET, path, access, handler: routing::get(handler) }
}

fn post<H: Handler<T, AppState>, T: 'static>(path: &'static str, access: Access, handler: H) -> Route {
    Route { method: Method::POST, path, access, handler: routing::post(handler) }
}

fn patch<H: Handler<T, AppState>, T: 'static>(path: &'static str, access: Access, handler: H) -> Route {
    Route { method: Method::PATCH, path, access, handler: routing::patch(handler) }
}

fn delete<H: Handler<T, AppState>, T: 'static>(path: &'static str, access: Access, handler: H) -> Route {
    Route { method: Method::DELETE, path, access, handler: routing::delete(handler) }
}

impl Route {
    /// Whether the route also answers under `/api`: all of the JSON API but what lives there already.
    pub(crate) fn has_twin(&self) -> bool {
        const TWINS: [&str; 4] = ["/usage/", "/memory", "/auth/", "/agents/"];
        self.access != Access::Page
            && TWINS.iter().any(|prefix| self.path.starts_with(prefix))
            && self.path != "/memories"
    }
}

/// The table.
pub(crate) fn routes() -> Vec<Route> {
    let mut routes = ops_routes();
    routes.extend(auth_routes());
    routes.extend(usage_routes());
    routes.extend(memory_routes());
    routes
}

fn ops_routes() -> Vec<Route> {
    let open = Access::Open;
    vec![get("/healthz", open, ops::healthz), get("/readyz", open, ops::readyz)]
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

fn memory_routes() -> Vec<Route> {
    let (read, write) = (Access::Scope(Scope::MemoryRead), Access::Scope(Scope::MemoryWrite));
    let usage = Access::Scope(Scope::UsageRead);
    vec![
        post("/memory/store", write, memory::store),
        post("/memory/store/batch", write, memory::store_batch),
        post("/memory/search", read, memory::search),
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

/// The whole application.
pub(crate) fn router(state: &AppState) -> Router {
    let mut router: Router<AppState> = Router::new();
    for route in routes() {
        let guard = edge::Guard { state: state.clone(), access: route.access };
        let handler = route.handler.clone().layer(from_fn_with_state(guard, edge::guard));
        if route.has_twin() {
            router = router.route(&format!("/api{}", route.path), handler.clone());
        }
        router = router.route(route.path, handler);
    }
    router
        .fallback(problem::no_such_route)
        .layer(CatchPanicLayer::custom(edge::panicked))
        .layer(from_fn_with_state(state.clone(), edge::edge))
        .with_state(state.clone())
}
