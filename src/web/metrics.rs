//! `GET /metrics`, in the text format of Prometheus.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::Method;
use http::header::CONTENT_TYPE;
use prometheus::core::Collector;
use prometheus::{HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TEXT_FORMAT, TextEncoder};

use super::problem::Answer;
use super::state::AppState;
use crate::adapter::embedder::EmbedderPool;
use crate::adapter::upstream::Upstreams;
use crate::domain::ledger::ResourceType;
use crate::domain::{Error, Result};
use crate::meter::{histograms, unusable};
use crate::service::quota;
use crate::store::Store;

/// From a millisecond to 10 s.
const TIMES: [f64; 9] = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0];
/// Methods that are told apart.
const METHODS: [Method; 5] = [Method::GET, Method::HEAD, Method::POST, Method::PATCH, Method::DELETE];

/// The route that answers a request, by its pattern: never the path that was asked for, of which there are any number.
/// It is noted when the route is found, so that it is known even if the route never answers.
#[derive(Clone, Debug, Default)]
pub(super) struct Answering(Arc<OnceLock<&'static str>>);

impl Answering {
    /// Notes the route.
    pub(super) fn note(&self, pattern: &'static str) {
        // A request meets one route: there is no second to note.
        let _ = self.0.set(pattern);
    }
}

/// The instruments of the web, and all others by the way.
#[derive(Debug)]
pub(crate) struct Meters {
    registry: Registry,
    requests: IntCounterVec,
    seconds: HistogramVec,
    refusals: IntCounterVec,
    /// Those that are read when someone asks.
    reservations: IntGauge,
    embeddings_waiting: IntGauge,
    files: IntGaugeVec,
}

impl Meters {
    pub(crate) fn new(store: &Store, embedder: &EmbedderPool, upstreams: &Upstreams) -> Result<Self> {
        let meters = Self {
            registry: Registry::new(),
            requests: IntCounterVec::new(
                Opts::new("tallybox_http_requests_total", "Requests answered, by route and status."),
                &["method", "route", "status"],
            )
            .map_err(unusable)?,
            seconds: histograms(
                "tallybox_http_request_seconds",
                "Time to the head of an answer, by route.",
                &TIMES,
                &["route"],
            )?,
            refusals: IntCounterVec::new(
                Opts::new("tallybox_quota_refusals_total", "Writes refused for a quota, by resource."),
                &["resource"],
            )
            .map_err(unusable)?,
            reservations: IntGauge::new("tallybox_reservations_open", "Holds that are neither settled nor released.")
                .map_err(unusable)?,
            embeddings_waiting: IntGauge::new(
                "tallybox_embedding_queue_depth",
                "Texts that wait for the embedding model.",
            )
            .map_err(unusable)?,
            files: IntGaugeVec::new(
                Opts::new("tallybox_file_bytes", "Size of the database and of its write-ahead log."),
                &["file"],
            )
            .map_err(unusable)?,
        };
        for resource in ResourceType::ALL {
            // Shown at 0 from the start.
            let _ = meters.refusals.with_label_values(&[resource.as_str()]);
        }
        let build = Opts::new("tallybox_build_info", "1, with the version of this program.");
        let build = IntGauge::with_opts(build.const_label("version", crate::VERSION)).map_err(unusable)?;
        build.set(1);
        let own: [Box<dyn Collector>; 8] = [
            Box::new(meters.requests.clone()),
            Box::new(meters.seconds.clone()),
            Box::new(meters.refusals.clone()),
            Box::new(meters.reservations.clone()),
            Box::new(meters.embeddings_waiting.clone()),
            Box::new(meters.files.clone()),
            Box::new(embedder.meter().clone()),
            Box::new(build),
        ];
        for collector in store.meters().collectors().into_iter().chain(own).chain(upstreams.collectors()) {
            meters.registry.register(collector).map_err(unusable)?;
        }
        Ok(meters)
    }

    /// Counts an answer.
    pub(super) fn count(&self, method: &Method, answering: &Answering, status: u16, elapsed: Duration) {
        let method = if METHODS.contains(method) { method.as_str() } else { "other" };
        let route = answering.0.get().copied().unwrap_or("none");
        self.requests.with_label_values(&[method, route, &status.to_string()]).inc();
        self.seconds.with_label_values(&[route]).observe(elapsed.as_secs_f64());
    }

    /// Counts a write that was refused for a quota.
    pub(super) fn count_refusal(&self, resource: ResourceType) {
        self.refusals.with_label_values(&[resource.as_str()]).inc();
    }
}

/// `GET /metrics`
pub(super) async fn metrics(State(state): State<AppState>) -> Answer<Response> {
    Ok(([(CONTENT_TYPE, TEXT_FORMAT)], text(&state).await?).into_response())
}

/// Everything that is measured, as text.
pub(crate) async fn text(state: &AppState) -> Result<String> {
    let meters = &state.meters;
    let count = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    meters.reservations.set(state.store.read(quota::count_open).await?);
    meters.embeddings_waiting.set(count(state.embedder.waiting() as u64));
    meters.files.with_label_values(&["database"]).set(count(state.store.database_bytes()));
    meters.files.with_label_values(&["log"]).set(count(state.store.log_bytes()));
    TextEncoder::new()
        .encode_to_string(&meters.registry.gather())
        .map_err(|error| Error::Internal(format!("metrics: {error}")))
}
