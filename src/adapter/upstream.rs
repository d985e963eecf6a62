//! Those that serve models: HTTP to an OpenAI-compatible API.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Client, Response, StatusCode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

use super::http_client;
use crate::config;
use crate::domain::gateway::figures::{FaultKind, Figures};
use crate::domain::{Error, Result};

/// Longest wait for a connection: one that takes longer is as good as none.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection that nobody uses is kept for the next call.
const IDLE_TIMEOUT: Duration = Duration::from_mins(1);

/// Why there is no answer, or no more of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It has as many calls as it takes.
    Busy,
    /// No connection, or one that broke before the answer began.
    Unreachable,
    /// It was silent for too long.
    Timeout,
    /// It answered 429, and after how many seconds it may be asked again.
    RateLimited(Option<u64>),
    /// It answered 5xx, or does not take the key.
    Failed(u16),
    /// The answer ended before its end, or passed what is taken.
    Broken,
}

impl Fault {
    /// Whether another one may be asked in its place.
    pub const fn is_passing(&self) -> bool {
        matches!(self, Self::Busy | Self::Unreachable | Self::RateLimited(_) | Self::Failed(500..=599))
    }

    /// As it is counted.
    const fn kind(&self) -> FaultKind {
        match self {
            Self::Busy => FaultKind::Busy,
            Self::Unreachable => FaultKind::Unreachable,
            Self::Timeout => FaultKind::Timeout,
            Self::RateLimited(_) => FaultKind::RateLimited,
            Self::Failed(_) => FaultKind::Failed,
            Self::Broken => FaultKind::Broken,
        }
    }
}

/// An attempt at an upstream, which is counted when it is over: also where whoever waits for it has gone.
struct Attempt {
    figures: Arc<Mutex<Figures>>,
    begun: Instant,
    first_token: Option<Duration>,
    /// How long the whole answer took, where it came to its end.
    duration: Option<Duration>,
    fault: Option<FaultKind>,
}

impl Attempt {
    fn begin(upstream: &Upstream) -> Self {
        let figures = Arc::clone(&upstream.figures);
        Self { figures, begun: Instant::now(), first_token: None, duration: None, fault: None }
    }

    /// Notes that it failed.
    fn failed(mut self, fault: &Fault) {
        self.fault = Some(fault.kind());
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let mut figures = self.figures.lock().unwrap_or_else(PoisonError::into_inner);
        figures.count(self.fault);
        if let Some(time) = self.first_token {
            figures.first_tokens.record(millis(time));
        }
        if let Some(time) = self.duration.filter(|_| self.fault.is_none()) {
            figures.durations.record(millis(time));
        }
    }
}

/// All of them, by the order of the configuration.
pub struct Upstreams {
    list: Vec<Upstream>,
    place_timeout: Duration,
}

/// One of them.
pub struct Upstream {
    name: Arc<str>,
    base_url: String,
    authorization: Option<HeaderValue>,
    timeout: Duration,
    places: Arc<Semaphore>,
    client: Client,
    /// What is not written down yet.
    figures: Arc<Mutex<Figures>>,
}

impl fmt::Debug for Upstream {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Upstream")
            .field("name", &self.name)
            .field("base_url", &self.base_url)
            .finish_non_exhaustive()
    }
}

impl Upstreams {
    /// Those of the configuration. All share one pool of connections.
    ///
    /// # Errors
    /// `Internal` where the HTTP client cannot be set up.
    pub fn new(config: &config::Gateway) -> Result<Self> {
        let failed = |error: &dyn fmt::Display| Error::Internal(format!("the client of upstreams: {error}"));
        let builder = http_client::builder().map_err(|error| failed(&error))?;
        let builder = builder.connect_timeout(CONNECT_TIMEOUT).pool_idle_timeout(IDLE_TIMEOUT).tcp_nodelay(true);
        let client = builder.build().map_err(|error| failed(&error))?;
        let upstream = |upstream: &config::Upstream| Upstream {
            name: Arc::from(upstream.name.as_str()),
            base_url: upstream.base_url.clone(),
            authorization: upstream.api_key.as_ref().and_then(|key| {
                let mut value = HeaderValue::from_str(&format!("Bearer {}", key.expose())).ok()?;
                value.set_sensitive(true);
                Some(value)
            }),
            timeout: Duration::from_millis(upstream.timeout_ms.unsigned_abs()),
            places: Arc::new(Semaphore::new(upstream.max_concurrent)),
            client: client.clone(),
            figures: Arc::default(),
        };
        let place_timeout = Duration::from_millis(config.place_timeout_ms.unsigned_abs());
        Ok(Self { list: config.upstreams.iter().map(upstream).collect(), place_timeout })
    }

    /// Their names, in the order of the configuration.
    pub fn names(&self) -> Vec<Arc<str>> {
        self.list.iter().map(|upstream| Arc::clone(&upstream.name)).collect()
    }

    /// Takes what has come of the attempts since it was taken last, of each upstream that was asked.
    pub fn take_figures(&self) -> Vec<(Arc<str>, Figures)> {
        let take = |upstream: &Upstream| {
            let figures = std::mem::take(&mut *upstream.figures.lock().unwrap_or_else(PoisonError::into_inner));
            (Arc::clone(&upstream.name), figures)
        };
        self.list.iter().map(take).filter(|(_, figures)| figures.calls > 0).collect()
    }

    /// Takes back what could not be written down, for the next time.
    pub fn put_back(&self, figures: &[(Arc<str>, Figures)]) {
        for upstream in &self.list {
            let own = figures.iter().filter(|(name, _)| *name == upstream.name);
            for (_, figures) in own {
                upstream.figures.lock().unwrap_or_else(PoisonError::into_inner).add(figures);
            }
        }
    }

    /// Asks those at `places` one after the other, until one answers with something else than a passing fault. `sent` is true
    /// while one of them has the request and has not said that nothing comes of it.
    ///
    /// # Errors
    /// What the last one failed with.
    pub async fn ask(
        &self,
        places: &[usize],
        path: &str,
        (body, headers): (&Bytes, &HeaderMap),
        sent: &AtomicBool,
    ) -> Result<Opened, Fault> {
        let mut fault = Fault::Unreachable;
        for upstream in places.iter().filter_map(|place| self.list.get(*place)) {
            match upstream.ask(path, (body.clone(), headers.clone()), self.place_timeout, sent).await {
                Ok(opened) => return Ok(opened),
                Err(found) => {
                    sent.store(false, Ordering::Relaxed);
                    tracing::warn!(upstream = &*upstream.name, fault = ?found, "an upstream failed");
                    let is_passing = found.is_passing();
                    fault = found;
                    if !is_passing {
                        break;
                    }
                }
            }
        }
        Err(fault)
    }
}

impl Upstream {
    async fn ask(
        &self,
        path: &str,
        (body, headers): (Bytes, HeaderMap),
        wait: Duration,
        sent: &AtomicBool,
    ) -> Result<Opened, Fault> {
        let Ok(Ok(place)) = timeout(wait, Arc::clone(&self.places).acquire_owned()).await else {
            Attempt::begin(self).failed(&Fault::Busy);
            return Err(Fault::Busy);
        };
        let attempt = Attempt::begin(self);
        match self.send(path, (body, headers), sent).await {
            Ok(response) => Ok(Opened {
                upstream: Arc::clone(&self.name),
                silence_until: Instant::now() + self.timeout,
                timeout: self.timeout,
                response,
                attempt,
                _place: place,
            }),
            Err(fault) => {
                attempt.failed(&fault);
                Err(fault)
            }
        }
    }

    async fn send(
        &self,
        path: &str,
        (body, mut headers): (Bytes, HeaderMap),
        sent: &AtomicBool,
    ) -> Result<Response, Fault> {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(authorization) = &self.authorization {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        let request = self.client.post(format!("{}/{path}", self.base_url)).headers(headers).body(body);
        sent.store(true, Ordering::Relaxed);
        let response = match timeout(self.timeout, request.send()).await {
            Err(_) => return Err(Fault::Timeout),
            Ok(Err(error)) => {
                // Without its address: a key may hide in one.
                tracing::debug!(error = %error.without_url(), upstream = &*self.name, "no answer");
                return Err(Fault::Unreachable);
            }
            Ok(Ok(response)) => response,
        };
        match response.status() {
            StatusCode::TOO_MANY_REQUESTS => {
                let after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
                Err(Fault::RateLimited(after))
            }
            // What it says of our key is the operator's to know, and may show a part of it.
            status if status.is_server_error() || status.is_redirection() => Err(Fault::Failed(status.as_u16())),
            status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::PAYMENT_REQUIRED) => {
                Err(Fault::Failed(status.as_u16()))
            }
            _ => Ok(response),
        }
    }
}

/// An answer that has begun. It keeps its place at the upstream until it is dropped.
pub struct Opened {
    /// Who answers.
    pub upstream: Arc<str>,
    response: Response,
    timeout: Duration,
    silence_until: Instant,
    attempt: Attempt,
    _place: OwnedSemaphorePermit,
}

impl Opened {
    /// The status.
    pub fn status(&self) -> StatusCode {
        self.response.status()
    }

    /// The headers.
    pub fn headers(&self) -> &HeaderMap {
        self.response.headers()
    }

    /// Whether it comes as server-sent events.
    pub fn is_stream(&self) -> bool {
        let media = self.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        media.trim_start().to_ascii_lowercase().starts_with("text/event-stream")
    }

    /// The next bytes; none at the end. May be given up and asked again: the silence counts on.
    ///
    /// # Errors
    /// `Timeout` after a long silence; `Broken` where the answer ends before its end.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Fault> {
        let chunk = timeout_at(self.silence_until, self.response.chunk()).await.map_err(|_| Fault::Timeout);
        self.silence_until = Instant::now() + self.timeout;
        let chunk = chunk.and_then(|chunk| chunk.map_err(|_| Fault::Broken));
        match &chunk {
            Ok(Some(_)) => {}
            Ok(None) => self.note_complete(),
            Err(fault) => self.note_broken(fault),
        }
        chunk
    }

    /// Notes that the answer has begun to say something, for the figures of its upstream.
    pub fn note_said(&mut self) {
        let elapsed = self.attempt.begun.elapsed();
        self.attempt.first_token.get_or_insert(elapsed);
    }

    /// Notes that the answer came to its end; one that its upstream refused says nothing of how long answers take.
    pub fn note_complete(&mut self) {
        let elapsed = self.attempt.begun.elapsed();
        if self.status().is_success() {
            self.attempt.duration.get_or_insert(elapsed);
        }
    }

    /// Notes that the answer is none. What comes after its end does not matter.
    pub fn note_broken(&mut self, fault: &Fault) {
        if self.attempt.duration.is_none() {
            self.attempt.fault.get_or_insert(fault.kind());
        }
    }
}
