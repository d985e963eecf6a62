//! Around every request: its id, its time limit, its guard, and the shape of its failures.

use std::any::Any;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::handler::Handler;
use axum::response::{IntoResponse, Response};
use axum::{BoxError, Router};
use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HeaderName};
use http::{HeaderValue, Method, StatusCode};
use tower::Service;
use tower_http::catch_panic::CatchPanic;

use tracing::Instrument;

use super::extract::presented;
use super::metrics::Answering;
use super::pages::{self, IsPage};
use super::problem::{Failure, NoRoute, Problem, method_not_allowed};
use super::state::AppState;
use crate::clock::new_request_id;
use crate::domain::auth::Scope;
use crate::domain::{Error, Result};
use crate::service::auth::{acting_for_another, require_enabled};
use crate::view::layout::Who;

/// The routes that resolve a hold, which its maker may do for a disabled user too.
const RESOLUTIONS: &str = "/usage/reservations/{id}";
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The id of a request, for handlers that write it down.
#[derive(Clone, Debug)]
pub(super) struct RequestId(pub(super) String);

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

/// What answers in the place of a handler that panicked.
pub(super) type OnPanic = fn(Box<dyn Any + Send>) -> Response;

/// The application within its edge.
#[derive(Clone)]
pub(crate) struct Edge {
    pub(super) state: AppState,
    pub(super) router: CatchPanic<Router, OnPanic>,
}

impl<B> Service<http::Request<B>> for Edge
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // A router is always ready.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let edge = self.clone();
        Box::pin(async move { Ok(answer(edge, request.map(Body::new)).await) })
    }
}

async fn answer(edge: Edge, mut request: Request) -> Response {
    let Edge { state, mut router } = edge;
    let id = request_id(&request);
    request.extensions_mut().insert(RequestId(id.clone()));
    let answering = Answering::default();
    request.extensions_mut().insert(answering.clone());
    let wants_page = wants_page(&request);
    let browser = wants_page.then(|| request.headers().clone());
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let started = std::time::Instant::now();
    // A model takes its time; the gateway gives up on silence instead.
    let is_gateway = path == "/v1" || path.starts_with("/v1/");
    let limit =
        if is_gateway || goes_on(&method, &path) { Duration::MAX } else { state.config.server.request_timeout() };
    // Whatever is logged on the way carries the id, at every level of the log.
    let span = tracing::error_span!("request", id);
    let answer = async {
        match tokio::time::timeout(limit, router.call(request)).await {
            Ok(Ok(response)) => response.map(Body::new),
            Ok(Err(never)) => match never {},
            Err(_) => Failure(Error::Timeout).into_response(),
        }
    };
    let mut response = answer.instrument(span.clone()).await;
    if response.status() == StatusCode::METHOD_NOT_ALLOWED && response.extensions().get::<Problem>().is_none() {
        response = method_not_allowed(&response);
        if let Some(headers) = browser
            && let Some(who) = pages::who_asks(&headers, &state).await
        {
            response.extensions_mut().insert(who);
        }
    }
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        // The router has measured the empty body that the problem had until here.
        response.headers_mut().remove(CONTENT_LENGTH);
        let extensions = response.extensions();
        let asked_by_browser = wants_page && extensions.get::<NoRoute>().is_some();
        if asked_by_browser || extensions.get::<IsPage>().is_some() {
            let page = pages::error_page(&state, &problem, extensions.get::<Who>(), &path, &id);
            *response.body_mut() = Body::from(page.into_string());
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
            pages::protect(response.headers_mut());
        } else if is_gateway {
            problem.render_envelope(&mut response);
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
    state.meters.count(&method, &answering, status, elapsed);
    if status >= 500 {
        tracing::warn!(parent: &span, %method, path, status, ?elapsed, "failed");
    } else {
        tracing::debug!(parent: &span, %method, path, status, ?elapsed, "answered");
    }
    response
}

/// An import or a deletion of many goes on for as long as its batches do; only reading an import's body has a limit of its own.
fn goes_on(method: &Method, path: &str) -> bool {
    let path = path.strip_prefix("/api").unwrap_or(path);
    path == "/memory/import" || (path == "/memory" && *method == Method::DELETE)
}

/// A caller's own id where it is 1 to 64 of `[A-Za-z0-9._-]`, else a new one.
fn request_id(request: &Request) -> String {
    let own = request.headers().get(REQUEST_ID).and_then(|value| value.to_str().ok());
    let is_good = |id: &&str| {
        (1..=64).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
    };
    own.filter(is_good).map_or_else(new_request_id, str::to_owned)
}

/// A person with a browser asks, not a program: for a path that is not the JSON API.
fn wants_page(request: &Request) -> bool {
    let path = request.uri().path();
    let is_api = path.starts_with("/api/") || path == "/v1" || path.starts_with("/v1/");
    let accepts = request.headers().get(ACCEPT).and_then(|value| value.to_str().ok());
    !is_api && accepts.is_some_and(|accept| accept.contains("text/html"))
}

/// A handler that is reached only by a caller who has what its route asks.
#[derive(Clone)]
pub(super) struct Guarded<H> {
    pub(super) access: Access,
    /// The pattern of its path.
    pub(super) path: &'static str,
    pub(super) handler: H,
}

impl<H, T> Handler<T, AppState> for Guarded<H>
where
    H: Handler<T, AppState>,
    T: 'static,
{
    type Future = Pin<Box<dyn Future<Output = Response> + Send>>;

    fn call(self, request: Request, state: AppState) -> Self::Future {
        if let Some(answering) = request.extensions().get::<Answering>() {
            answering.note(self.path);
        }
        Box::pin(self.answer(request, state))
    }
}

impl<H> Guarded<H> {
    async fn answer<T>(self, mut request: Request, state: AppState) -> Response
    where
        H: Handler<T, AppState>,
    {
        if self.access == Access::Page {
            let (method, uri, headers) = (request.method().clone(), request.uri().clone(), request.headers().clone());
            let mut response = pages::finish(&method, &uri, self.handler.call(request, state.clone()).await);
            if response.extensions().get::<Problem>().is_some()
                && let Some(who) = pages::who_asks(&headers, &state).await
            {
                response.extensions_mut().insert(who);
            }
            return response;
        }
        match self.admit(&state, &mut request).await {
            Ok(()) => self.handler.call(request, state).await,
            // What is wrong with the request itself is said before what is wrong with the user that a trusted caller names.
            Err(error @ (Error::NotFound(_) | Error::Gone(_) | Error::Invalid(_))) => {
                let presented = presented(request.headers(), request.extensions(), &state);
                let nobody = state.nobody(presented, self.scope());
                request.extensions_mut().insert(nobody);
                let response = self.handler.call(request, state).await;
                let is_faulty = matches!(response.status().as_u16(), 400 | 413 | 415 | 422);
                if is_faulty { response } else { Failure(error).into_response() }
            }
            Err(error) => Failure(error).into_response(),
        }
    }

    const fn scope(&self) -> Option<Scope> {
        match self.access {
            Access::Open | Access::AnyCredential | Access::Session | Access::Page => None,
            Access::Scope(scope) => Some(scope),
            Access::Admin => Some(Scope::Admin),
        }
    }

    /// Puts who calls into the request, for the handler to take.
    async fn admit(&self, state: &AppState, request: &mut Request) -> Result<()> {
        if self.access == Access::Open {
            return Ok(());
        }
        let presented = presented(request.headers(), request.extensions(), state);
        let known = state.admit(presented, self.scope()).await?;
        let own_alone = !matches!(self.access, Access::Scope(_));
        if own_alone && !known.caller().is_own() {
            return Err(acting_for_another());
        }
        if self.access == Access::Session && !known.caller().is_session() {
            return Err(Error::forbidden("session_required", "this takes a session, not a token"));
        }
        if !self.path.starts_with(RESOLUTIONS) {
            require_enabled(known.caller())?;
        }
        request.extensions_mut().insert(known);
        Ok(())
    }
}

/// A panic in a handler: logged by the panic hook, answered as an internal error.
pub(super) fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    Failure(Error::Internal(format!("a handler panicked: {}", text.unwrap_or("?")))).into_response()
}
