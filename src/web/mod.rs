//! HTTP. Every route and layer in one place; handlers are thin.

mod answer;
mod edge;
mod extract;
mod input;
mod ops;
mod pages;
mod problem;
mod state;
mod usage;

use axum::Router;
use axum::handler::Handler;
use axum::middleware::from_fn_with_state;
use axum::routing::{MethodFilter, MethodRouter, on};
use http::Method;
use tower_http::catch_panic::CatchPanicLayer;

use crate::domain::auth::Scope;
pub(crate) use edge::Access;
pub(crate) use extract::Peer;
pub(crate) use state::{AppState, Noted};

/// A route: the one description from which the router and its `/api` twin are made, and the tests' access matrix.
pub(crate) struct Route {
    pub(crate) method: Method,
    pub(crate) path: &'static str,
    pub(crate) access: Access,
    handler: MethodRouter<AppState>,
}

impl Route {
    fn new<H, T>(method: Method, path: &'static str, access: Access, handler: H) -> Self
    where
        H: Handler<T, AppState>,
        T: 'static,
    {
        // Every method named below has a filter; another would be a mistake in the table.
        let filter = MethodFilter::try_from(method.clone()).unwrap_or(MethodFilter::TRACE);
        Self { method, path, access, handler: on(filter, handler) }
    }

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
    use Access::Open;
    vec![Route::new(Method::GET, "/healthz", Open, ops::healthz), Route::new(Method::GET, "/readyz", Open, ops::readyz)]
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
