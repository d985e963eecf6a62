//! The one table from failures to answers: RFC 9457 problems.

use axum::Extension;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::{Map, Value, json};

use super::pages;
use super::state::AppState;
use crate::domain::Error;
use crate::domain::quota::Refusal;

/// What OpenAI's clients take for a used up quota, as type and as code.
const INSUFFICIENT_QUOTA: &str = "insufficient_quota";

/// A failure as the edge renders it, once it knows the request id and whether a page or a program asked.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    pub(super) status: StatusCode,
    pub(super) code: &'static str,
    pub(super) detail: String,
    pub(super) extensions: Map<String, Value>,
}

/// Failures of handlers. The response carries the [`Problem`] as an extension; the edge writes its body.
pub(crate) struct Failure(pub(crate) Error);

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

/// Result of a handler.
pub(super) type Answer<T = Response> = Result<T, Failure>;

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        Problem::of(self.0).into_response()
    }
}

impl Problem {
    pub(super) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into(), extensions: Map::new() }
    }

    pub(super) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.extensions.insert(name.to_owned(), value.into());
        self
    }

    /// The table.
    pub(super) fn of(error: Error) -> Self {
        let detail = error.to_string();
        let (status, code) = match &error {
            Error::Unauthenticated => (StatusCode::UNAUTHORIZED, "unauthenticated"),
            Error::WrongPassword => (StatusCode::UNAUTHORIZED, "wrong_password"),
            Error::ScopeRequired(_) => (StatusCode::FORBIDDEN, "scope_required"),
            Error::Forbidden { code, .. } => (StatusCode::FORBIDDEN, *code),
            Error::Malformed(_) => (StatusCode::BAD_REQUEST, "malformed_json"),
            Error::Refused { code, .. } => (StatusCode::BAD_REQUEST, *code),
            Error::UnsupportedMediaType(_) => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type"),
            Error::TooLarge(..) => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
            Error::Invalid(_) => (StatusCode::UNPROCESSABLE_ENTITY, "invalid"),
            Error::NotFound(_) => (StatusCode::NOT_FOUND, "not_found"),
            Error::Gone(_) => (StatusCode::GONE, "erased"),
            Error::Conflict { code, .. } => (StatusCode::CONFLICT, *code),
            Error::QuotaExceeded(_) => (StatusCode::TOO_MANY_REQUESTS, "quota_exceeded"),
            Error::RateLimited { .. } => (StatusCode::TOO_MANY_REQUESTS, "rate_limited"),
            Error::Busy(_) => (StatusCode::SERVICE_UNAVAILABLE, "busy"),
            Error::Timeout => (StatusCode::SERVICE_UNAVAILABLE, "timeout"),
            Error::Unavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
            Error::Internal(cause) => {
                tracing::error!(cause, "internal error");
                (StatusCode::INTERNAL_SERVER_ERROR, "internal")
            }
        };
        let problem = Self::new(status, code, detail);
        match error {
            Error::ScopeRequired(scope) => problem.with("scope", scope.as_str()),
            Error::Refused { field, .. } => {
                problem.with("errors", vec![json!({"field": field, "message": "is not offered"})])
            }
            Error::Invalid(faults) => {
                let errors: Vec<Value> =
                    faults.into_iter().map(|fault| json!({"field": fault.field, "message": fault.message})).collect();
                problem.with("errors", errors)
            }
            Error::QuotaExceeded(refusal) => problem.with_refusal(&refusal),
            Error::RateLimited { retry_after_s } => problem.with("retryAfter", retry_after_s),
            Error::Busy(_) | Error::Timeout => problem.with("retryAfter", 1),
            _ => problem,
        }
    }

    fn with_refusal(self, refusal: &Refusal) -> Self {
        let mut problem = self
            .with("resource", refusal.resource.as_str())
            .with("limit", refusal.limit)
            .with("used", refusal.used)
            .with("reserved", refusal.reserved)
            .with("requested", refusal.requested);
        if let Some(at) = refusal.resets_at {
            problem = problem.with("resetsAt", at.to_string());
        }
        if let Some(seconds) = refusal.retry_after_s {
            problem = problem.with("retryAfter", seconds);
        }
        match refusal.index {
            Some(index) => problem.with("index", index),
            None => problem,
        }
    }

    /// The headers that go with the failure.
    pub(super) fn set_headers(&self, headers: &mut HeaderMap) {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = self.extensions.get("retryAfter").and_then(Value::as_u64) {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
    }

    /// The body, with the id of the request.
    pub(super) fn to_json(&self, request_id: &str) -> Value {
        let mut body = Map::new();
        body.insert("type".to_owned(), Value::from(format!("urn:tallybox:problem:{}", self.code)));
        body.insert("title".to_owned(), Value::from(self.status.canonical_reason().unwrap_or("Error")));
        body.insert("status".to_owned(), Value::from(self.status.as_u16()));
        body.insert("detail".to_owned(), Value::from(self.detail.clone()));
        body.insert("code".to_owned(), Value::from(self.code));
        body.insert("requestId".to_owned(), Value::from(request_id));
        body.extend(self.extensions.clone());
        Value::Object(body)
    }

    /// The body in OpenAI's dialect, whose clients read `type`, `code` and the status.
    pub(super) fn to_envelope(&self) -> Value {
        let kind = match self.status {
            StatusCode::UNAUTHORIZED => "authentication_error",
            StatusCode::FORBIDDEN => "permission_error",
            StatusCode::TOO_MANY_REQUESTS if self.code == "quota_exceeded" => INSUFFICIENT_QUOTA,
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            status if status.is_server_error() => "server_error",
            _ => "invalid_request_error",
        };
        let code = if kind == INSUFFICIENT_QUOTA { INSUFFICIENT_QUOTA } else { self.code };
        let fields = self.extensions.get("errors").and_then(Value::as_array);
        let param = fields.and_then(|fields| fields.first()).map(|error| error["field"].clone()).unwrap_or_default();
        json!({"error": {"message": self.detail, "type": kind, "param": param, "code": code}})
    }

    /// As [`Problem::render`], in OpenAI's dialect.
    pub(super) fn render_envelope(&self, response: &mut Response) {
        *response.body_mut() = self.to_envelope().to_string().into();
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }

    /// Writes the JSON body and the headers that go with the status.
    pub(super) fn render(&self, request_id: &str, response: &mut Response) {
        *response.body_mut() = self.to_json(request_id).to_string().into();
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        self.set_headers(response.headers_mut());
        response.extensions_mut().insert(self);
        response
    }
}

/// 404 of a path that is no route.
pub(super) async fn nothing_there() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "not_found", "there is nothing at this path")
}

/// As [`nothing_there`]; whoever asked by browser gets a page.
pub(super) async fn no_such_route(State(state): State<AppState>, headers: HeaderMap) -> Response {
    let mut response = (Extension(NoRoute), nothing_there().await).into_response();
    if let Some(who) = pages::who_asks(&headers, &state).await {
        response.extensions_mut().insert(who);
    }
    response
}

/// Marks a failure that belongs to no route, or to none with that method: a browser gets a page.
#[derive(Clone, Copy)]
pub(super) struct NoRoute;

/// Makes a bare 405 (which names the methods in Allow) a problem.
pub(super) fn method_not_allowed(response: &Response) -> Response {
    let allow = response.headers().get(ALLOW).cloned();
    let problem =
        Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "this path does not take that method");
    let mut problem = (Extension(NoRoute), problem).into_response();
    if let Some(allow) = allow {
        problem.headers_mut().insert(ALLOW, allow);
    }
    problem
}
