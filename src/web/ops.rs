//! What operators and their tools ask: alive, ready.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde_json::{Value, json};

use super::state::AppState;
use crate::domain::unit::Timestamp;
use crate::domain::{Error, Result};
use crate::service::check;
use crate::store::SCHEMA_VERSION;

/// How long each question may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Alive: the process answers.
pub(super) async fn healthz() -> Json<Value> {
    Json(json!({"status": "ok", "version": crate::VERSION, "build": crate::BUILD}))
}

/// Ready: a write can be committed, there is room for more, and the schema is this program's.
pub(super) async fn readyz(State(state): State<AppState>) -> Response {
    let found = state.readiness().await;
    let (status, word) = if found.iter().all(|(_, fault)| fault.is_none()) {
        (StatusCode::OK, "ready")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "unavailable")
    };
    let checks =
        found.into_iter().map(|(name, fault)| (name.to_owned(), fault.unwrap_or_else(|| "ok".to_owned()).into()));
    let body = json!({
        "status": word, "version": crate::VERSION, "build": crate::BUILD, "schema": SCHEMA_VERSION,
        "checks": checks.collect::<serde_json::Map<String, Value>>(),
    });
    (status, Json(body)).into_response()
}

/// What was asked, and what is wrong with it.
type Found = [(&'static str, Option<String>); 3];

/// What was last found, and when.
#[derive(Default)]
pub(crate) struct Ready(tokio::sync::Mutex<Option<(Timestamp, Found)>>);

impl AppState {
    /// The state of readiness, looked up at most once a second, however many requests ask for it.
    async fn readiness(&self) -> Found {
        let mut last = self.ready.0.lock().await;
        let now = self.now();
        if let Some((at, found)) = &*last
            && *at <= now
            && now < at.plus_seconds(1)
        {
            return found.clone();
        }
        let (writes, disk, schema) = tokio::join!(
            fault_of(self.store.write(check::prove_writable)),
            fault_of(self.has_room()),
            fault_of(self.store.read(check::require_schema)),
        );
        let found = [("writes", writes), ("disk", disk), ("schema", schema)];
        // From the end on: who waited meanwhile has this answer.
        *last = Some((self.now(), found.clone()));
        found
    }

    async fn has_room(&self) -> Result<()> {
        let (store, least) = (self.store.clone(), self.config.server.disk_free_bytes_min);
        let asked = tokio::task::spawn_blocking(move || store.disk_free_bytes()).await;
        match asked.map_err(|panic| Error::Internal(format!("the disk could not be asked: {panic}")))?? {
            Some(free) if free < least => Err(Error::Unavailable(format!(
                "{free} bytes are free on the disk of the data directory, fewer than {least} (server.disk_free_bytes_min)"
            ))),
            _ => Ok(()),
        }
    }
}

/// What is wrong, in words; none where nothing is.
async fn fault_of(asked: impl Future<Output = Result<()>>) -> Option<String> {
    match tokio::time::timeout(PATIENCE, asked).await {
        Ok(answer) => answer.err().map(|error| error.to_string()),
        Err(_) => Some(format!("no answer within {} s", PATIENCE.as_secs())),
    }
}
