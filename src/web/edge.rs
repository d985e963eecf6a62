//! Around every request: its id, its time limit, its guard, and the shape of its failures.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{ACCEPT, CONTENT_TYPE, HeaderName};
use http::{HeaderValue, Method, StatusCode};

use tracing::Instrument;

use super::extract::presented;
use super::pages::{self, IsPage};
use super::problem::{Failure, Problem, method_not_allowed};
use super::state::{AppState, acting_for_another};
use crate::clock::random_bytes;
use crate::domain::Error;
use crate::domain::auth::Scope;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What a route asks of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Nothing.
    Open,
    /// Any live credential.
    AnyCredential,
    /// A scope.
    Scope(Scope),
    /// A session, by bearer.
    Session,
    /// The scope `admin`, by a caller who acts for nobody else.
    Admin,
    /// A page: the session cookie, which the handler itself looks at.
    Page,
}

/// The outermost layer.
pub(super) async fn edge(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let id = request_id(&request);
    let wants_page = wants_page(&request);
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let started = std::time::Instant::now();
    let limit = Duration::from_millis(state.config.server.request_timeout_ms.unsigned_abs());
    // Whatever is logged on the way carries the id, at every level of the log.
    let span = tracing::error_span!("request", id, %method, path);
    let answer = async {
        match tokio::time::timeout(limit, next.run(request)).await {
            Ok(response) => response,
            Err(_) => Failure(Error::Timeout).into_response(),
        }
    };
    let mut response = answer.instrument(span.clone()).await;
    if response.status() == StatusCode::METHOD_NOT_ALLOWED && response.extensions().get::<Problem>().is_none() {
        response = method_not_allowed(&response);
    }
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        if wants_page || response.extensions().get::<IsPage>().is_some() {
            let page = crate::view::error::page(problem.status.as_u16(), &problem.detail, &id);
            *response.body_mut() = Body::from(page.into_string());
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
            pages::protect(response.headers_mut());
        } else {
            problem.render(&id, &mut response);
        }
        if method == Method::HEAD {
            *response.body_mut() = Body::empty();
        }
    }
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    let (status, elapsed) = (response.status().as_u16(), started.elapsed());
    if status >= 500 {
        tracing::warn!(parent: &span, status, ?elapsed, "failed");
    } else {
        tracing::debug!(parent: &span, status, ?elapsed, "answered");
    }
    response
}

/// A caller's own id where it is 1 to 64 of `[A-Za-z0-9._-]`, else a new one.
fn request_id(request: &Request) -> String {
    let own = request.headers().get(REQUEST_ID).and_then(|value| value.to_str().ok());
    let is_good = |id: &&str| {
        (1..=64).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
    };
    own.filter(is_good).map_or_else(|| format!("{:032x}", u128::from_be_bytes(random_bytes())), str::to_owned)
}

/// A person with a browser asks, not a program: for a path that is not the JSON API.
fn wants_page(request: &Request) -> bool {
    let path = request.uri().path();
    let is_api = path.starts_with("/api/") || path.starts_with("/v1/");
    let accepts = request.headers().get(ACCEPT).and_then(|value| value.to_str().ok());
    !is_api && accepts.is_some_and(|accept| accept.contains("text/html"))
}

/// What a route's guard knows.
#[derive(Clone)]
pub(super) struct Guard {
    pub(super) state: AppState,
    pub(super) access: Access,
}

/// Lets a request through to its handler only if the caller has what the route asks.
pub(super) async fn guard(State(guard): State<Guard>, mut request: Request, next: Next) -> Response {
    let scope = match guard.access {
        Access::Open => return next.run(request).await,
        Access::Page => {
            let (method, uri) = (request.method().clone(), request.uri().clone());
            return pages::finish(&method, &uri, next.run(request).await);
        }
        Access::AnyCredential | Access::Session => None,
        Access::Scope(scope) => Some(scope),
        Access::Admin => Some(Scope::Admin),
    };
    let presented = presented(request.headers(), request.extensions(), &guard.state);
    let known = match guard.state.admit(presented, scope).await {
        Ok(known) => known,
        Err(error) => return Failure(error).into_response(),
    };
    let own_alone = !matches!(guard.access, Access::Scope(_));
    if own_alone && !known.caller().is_own() {
        return Failure(acting_for_another()).into_response();
    }
    if guard.access == Access::Session && !known.caller().is_session() {
        return Failure(Error::forbidden("session_required", "this takes a session, not a token")).into_response();
    }
    request.extensions_mut().insert(known);
    next.run(request).await
}

/// A panic in a handler: logged by the panic hook, answered as an internal error.
pub(super) fn panicked(panic: Box<dyn std::any::Any + Send>) -> Response {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    Failure(Error::Internal(format!("a handler panicked: {}", text.unwrap_or("?")))).into_response()
}
