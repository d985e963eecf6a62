//! What operators and their tools ask: alive, ready.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde_json::{Value, json};

use super::state::AppState;

/// Alive: the process answers.
pub(super) async fn healthz() -> Json<Value> {
    Json(json!({"status": "ok", "version": crate::VERSION}))
}

/// Ready: a write can be committed.
pub(super) async fn readyz(State(state): State<AppState>) -> Response {
    let (status, word) = if state.is_ready().await {
        (StatusCode::OK, "ready")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "unavailable")
    };
    let body = json!({"status": word, "version": crate::VERSION, "schema": crate::store::SCHEMA_VERSION});
    (status, Json(body)).into_response()
}
