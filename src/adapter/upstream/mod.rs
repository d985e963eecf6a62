//! Those that serve models: HTTP to an OpenAI-compatible API.

mod attempt;

use std::error::Error as _;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use prometheus::core::Collector;
use reqwest::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER,
};
use reqwest::{Client, Response, StatusCode, Url};
use rustls::pki_types::CertificateDer;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

use super::http_client;
use crate::config;
use crate::domain::gateway::figures::{FaultKind, Figures};
use crate::domain::{Error, Result};
use crate::lock::lock;
use attempt::{Attempt, Meters};

/// Longest wait for a connection: at most 90 % of the upstream's own time-out, so that a slow connection can be told
/// from a slow answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Shortest key that is looked for in what is passed on: a word that stands for none may be anywhere.
const KEY_BYTES_MIN: usize = 8;
/// How long a connection that nobody uses is kept for the next call.
const IDLE_TIMEOUT: Duration = Duration::from_mins(1);
/// All calls to a host share a connection of HTTP/2. A caller who takes nothing holds back no more than this of it, and as
/// many of them as an upstream usually takes at once do not hold back the others.
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 256 * STREAM_WINDOW_BYTES;
/// How soon it is found that such a connection leads nowhere any more.
const PING_EVERY: Duration = Duration::from_secs(20);
const PONG_WAIT: Duration = Duration::from_secs(10);

/// Why there is no answer, or no more of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It has as many calls as it takes.
    Busy,
    /// No connection, or one that broke before the answer began.
    Unreachable,
    /// Nobody whom we trust says that it is who it claims to be.
    Untrusted,
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
        matches!(
            self,
            Self::Busy | Self::Unreachable | Self::Untrusted | Self::RateLimited(_) | Self::Failed(500..=599)
        )
    }

    /// As it is counted.
    const fn kind(&self) -> FaultKind {
        match self {
            Self::Busy => FaultKind::Busy,
            Self::Unreachable | Self::Untrusted => FaultKind::Unreachable,
            Self::Timeout => FaultKind::Timeout,
            Self::RateLimited(_) => FaultKind::RateLimited,
            Self::Failed(_) => FaultKind::Failed,
            Self::Broken => FaultKind::Broken,
        }
    }
}

/// Which upstream has a request, and has not said that nothing comes of it.
#[derive(Debug, Default)]
pub struct Asked(Mutex<Option<Arc<str>>>);

impl Asked {
    fn note(&self, upstream: Option<&Arc<str>>) {
        *lock(&self.0) = upstream.cloned();
    }

    /// Its name.
    pub fn upstream(&self) -> Option<Arc<str>> {
        lock(&self.0).clone()
    }
}

/// Takes the key of an upstream out of what it says.
#[derive(Clone)]
pub struct Mask(Option<Arc<str>>);

impl Mask {
    /// What is left of `said`.
    pub fn apply(&self, said: Bytes) -> Bytes {
        let Some(key) = &self.0 else { return said };
        let text = String::from_utf8_lossy(&said);
        let masked = text.contains(&**key).then(|| text.replace(&**key, "[key]"));
        drop(text);
        masked.map_or(said, Bytes::from)
    }
}

/// All of them, by the order of the configuration.
pub struct Upstreams {
    list: Vec<Upstream>,
    place_timeout: Duration,
    meters: Meters,
}

/// One of them.
pub struct Upstream {
    name: Arc<str>,
    base_url: Url,
    authorization: Option<HeaderValue>,
    mask: Mask,
    timeout: Duration,
    places: Arc<Semaphore>,
    client: Client,
    /// What is not written down yet.
    figures: Arc<Mutex<Figures>>,
    meters: Meters,
}

impl fmt::Debug for Upstream {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Upstream")
            .field("name", &self.name)
            .field("base_url", &self.base_url.as_str())
            .finish_non_exhaustive()
    }
}

impl Upstreams {
    /// Those of the configuration. All share one pool of connections, but for those with authorities of their own or with less
    /// patience.
    ///
    /// # Errors
    /// `Internal` where the HTTP client cannot be set up.
    pub fn new(config: &config::Gateway) -> Result<Self> {
        let shared = client(&[], CONNECT_TIMEOUT)?;
        let meters = Meters::new()?;
        let upstream = |upstream: &config::Upstream| {
            let timeout = Duration::from_millis(upstream.timeout_ms.unsigned_abs());
            let patience = CONNECT_TIMEOUT.min(timeout.mul_f64(0.9));
            let is_usual = upstream.authorities.is_empty() && patience == CONNECT_TIMEOUT;
            let key = upstream.api_key.as_ref().map(config::Secret::expose).filter(|key| key.len() >= KEY_BYTES_MIN);
            Ok(Upstream {
                name: Arc::from(upstream.name.as_str()),
                base_url: upstream.base_url.parse().map_err(|error| failed(&error))?,
                authorization: upstream.api_key.as_ref().and_then(|key| {
                    let mut value = HeaderValue::from_str(&format!("Bearer {}", key.expose())).ok()?;
                    value.set_sensitive(true);
                    Some(value)
                }),
                mask: Mask(key.map(Arc::from)),
                timeout,
                places: Arc::new(Semaphore::new(upstream.max_concurrent)),
                client: if is_usual { shared.clone() } else { client(&upstream.authorities, patience)? },
                figures: Arc::default(),
                meters: meters.clone(),
            })
        };
        let place_timeout = Duration::from_millis(config.place_timeout_ms.unsigned_abs());
        let list = config.upstreams.iter().map(upstream).collect::<Result<_>>()?;
        Ok(Self { list, place_timeout, meters })
    }

    /// The instruments.
    pub(crate) fn collectors(&self) -> [Box<dyn Collector>; 2] {
        [Box::new(self.meters.attempts.clone()), Box::new(self.meters.seconds.clone())]
    }

    /// Their names, in the order of the configuration.
    pub fn names(&self) -> Vec<Arc<str>> {
        self.list.iter().map(|upstream| Arc::clone(&upstream.name)).collect()
    }

    /// Takes what has come of the attempts since it was taken last, of each upstream that was asked.
    pub fn take_figures(&self) -> Vec<(Arc<str>, Figures)> {
        let take = |upstream: &Upstream| {
            let figures = std::mem::take(&mut *lock(&upstream.figures));
            (Arc::clone(&upstream.name), figures)
        };
        self.list.iter().map(take).filter(|(_, figures)| figures.calls > 0).collect()
    }

    /// Takes back what could not be written down, for the next time.
    pub fn put_back(&self, figures: &[(Arc<str>, Figures)]) {
        for upstream in &self.list {
            let own = figures.iter().filter(|(name, _)| *name == upstream.name);
            for (_, figures) in own {
                lock(&upstream.figures).add(figures);
            }
        }
    }

    /// Asks those at `places` one after the other, until one answers with something else than a passing fault, and notes in
    /// `asked` which of them has the request.
    ///
    /// # Errors
    /// What the last one failed with.
    pub async fn ask(
        &self,
        places: &[usize],
        path: &str,
        (body, headers): (&Bytes, &HeaderMap),
        asked: &Asked,
    ) -> Result<Opened, Fault> {
        let mut fault = Fault::Unreachable;
        for upstream in places.iter().filter_map(|place| self.list.get(*place)) {
            match upstream.ask(path, (body.clone(), headers.clone()), self.place_timeout, asked).await {
                Ok(opened) => return Ok(opened),
                Err(found) => {
                    asked.note(None);
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
    fn no_answer(&self, error: reqwest::Error) -> Fault {
        if let Some(why) = certificate_fault(&error) {
            tracing::warn!(
                upstream = &*self.name,
                why,
                "its certificate is not trusted; ca_file names an authority of your own"
            );
            return Fault::Untrusted;
        }
        // Without its address: a key may hide in one.
        tracing::debug!(error = %error.without_url(), upstream = &*self.name, "no answer");
        Fault::Unreachable
    }

    /// Where a request goes: names and numbers of the address have been read at the start.
    fn address(&self, path: &str) -> Url {
        let mut address = self.base_url.clone();
        if let Ok(mut segments) = address.path_segments_mut() {
            segments.pop_if_empty().extend(path.split('/'));
        }
        address
    }

    async fn ask(
        &self,
        path: &str,
        (body, headers): (Bytes, HeaderMap),
        wait: Duration,
        asked: &Asked,
    ) -> Result<Opened, Fault> {
        let Ok(Ok(place)) = timeout(wait, Arc::clone(&self.places).acquire_owned()).await else {
            Attempt::begin(self).failed(&Fault::Busy);
            return Err(Fault::Busy);
        };
        let mut attempt = Attempt::begin(self);
        match self.send(path, (body, headers), asked).await {
            Ok(response) => {
                attempt.has_begun = true;
                Ok(Opened {
                    upstream: Arc::clone(&self.name),
                    mask: self.mask.clone(),
                    silence_until: Instant::now() + self.timeout,
                    timeout: self.timeout,
                    response,
                    attempt,
                    _place: place,
                })
            }
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
        asked: &Asked,
    ) -> Result<Response, Fault> {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if let Some(authorization) = &self.authorization {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        let request = self.client.post(self.address(path)).headers(headers).body(body);
        asked.note(Some(&self.name));
        let response = match timeout(self.timeout, request.send()).await {
            Err(_) => return Err(Fault::Timeout),
            Ok(Err(error)) => return Err(self.no_answer(error)),
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
            // Nobody asked for it, and what it says and cost cannot be read.
            _ if response.headers().get(CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") => {
                Err(Fault::Broken)
            }
            _ => Ok(response),
        }
    }
}

fn failed(error: &dyn fmt::Display) -> Error {
    Error::Internal(format!("the client of upstreams: {error}"))
}

/// A client that also trusts `authorities`, and waits for a connection no longer than `patience`.
fn client(authorities: &[CertificateDer<'static>], patience: Duration) -> Result<Client> {
    let builder = http_client::builder(authorities).map_err(|error| failed(&error))?;
    let builder = builder
        .connect_timeout(patience)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .tcp_nodelay(true)
        .http2_initial_stream_window_size(STREAM_WINDOW_BYTES)
        .http2_initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keep_alive_interval(PING_EVERY)
        .http2_keep_alive_timeout(PONG_WAIT);
    builder.build().map_err(|error| failed(&error))
}

/// What of a failed request says that a certificate is not taken.
fn certificate_fault(error: &reqwest::Error) -> Option<String> {
    let mut cause = error.source();
    while let Some(error) = cause {
        let tls = error.downcast_ref();
        if let Some(fault @ (rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented)) = tls {
            return Some(fault.to_string());
        }
        // An I/O error that wraps another one skips it when it is asked for its source.
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        cause = wrapped.map(|error| error as &(dyn std::error::Error + 'static)).or_else(|| error.source());
    }
    None
}

/// An answer that has begun. It keeps its place at the upstream until it is dropped.
pub struct Opened {
    /// Who answers.
    pub upstream: Arc<str>,
    /// What takes its key out of what it says.
    pub mask: Mask,
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

    /// Whether it comes as server-sent events: also where these were asked for (`is_wanted`) and come by another name than that of
    /// a whole answer.
    pub fn is_stream(&self, is_wanted: bool) -> bool {
        let media = self.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let media = media.trim_start().to_ascii_lowercase();
        media.starts_with("text/event-stream") || (is_wanted && !media.contains("json"))
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
