//! Attempts at upstreams, which are counted.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use prometheus::{HistogramVec, IntCounterVec, Opts};
use tokio::time::Instant;

use super::{Fault, Upstream};
use crate::domain::Result;
use crate::domain::gateway::figures::{FaultKind, Figures};
use crate::lock::lock;
use crate::meter::{histograms, unusable};

/// An attempt at an upstream, which is counted when it is over: also where whoever waits for it has gone.
pub(super) struct Attempt {
    upstream: Arc<str>,
    meters: Meters,
    figures: Arc<Mutex<Figures>>,
    pub(super) begun: Instant,
    pub(super) first_token: Option<Duration>,
    /// How long the whole answer took, where it came to its end.
    pub(super) duration: Option<Duration>,
    pub(super) fault: Option<FaultKind>,
    /// Whether it has begun to answer.
    pub(super) has_begun: bool,
}

impl Attempt {
    pub(super) fn begin(upstream: &Upstream) -> Self {
        Self {
            upstream: Arc::clone(&upstream.name),
            meters: upstream.meters.clone(),
            figures: Arc::clone(&upstream.figures),
            begun: Instant::now(),
            first_token: None,
            duration: None,
            fault: None,
            has_begun: false,
        }
    }

    /// Notes that it failed.
    pub(super) fn failed(mut self, fault: &Fault) {
        self.fault = Some(fault.kind());
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let mut figures = lock(&self.figures);
        figures.count(self.fault);
        self.meters.count(self, self.duration);
        if let Some(time) = self.first_token {
            figures.first_tokens.record(millis(time));
        }
        if let Some(time) = self.duration.filter(|_| self.fault.is_none()) {
            figures.durations.record(millis(time));
        }
    }
}

/// What is measured of them since the start.
#[derive(Clone, Debug)]
pub(super) struct Meters {
    pub(super) attempts: IntCounterVec,
    pub(super) seconds: HistogramVec,
}

impl Meters {
    /// From 30 ms to 5 minutes.
    const TIMES: [f64; 9] = [0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0];

    pub(super) fn new() -> Result<Self> {
        let attempts = Opts::new("tallybox_upstream_requests_total", "Requests to upstreams, by what came of them.");
        let help = "How long answers of upstreams took that came to their end.";
        Ok(Self {
            attempts: IntCounterVec::new(attempts, &["upstream", "outcome"]).map_err(unusable)?,
            seconds: histograms("tallybox_upstream_request_seconds", help, &Self::TIMES, &["upstream"])?,
        })
    }

    fn count(&self, attempt: &Attempt, duration: Option<Duration>) {
        let otherwise = if attempt.has_begun { "answered" } else { "abandoned" };
        let outcome = attempt.fault.map_or(otherwise, FaultKind::as_str);
        self.attempts.with_label_values(&[&*attempt.upstream, outcome]).inc();
        if let Some(time) = duration.filter(|_| attempt.fault.is_none()) {
            self.seconds.with_label_values(&[&*attempt.upstream]).observe(time.as_secs_f64());
        }
    }
}
