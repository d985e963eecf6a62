//! Those that serve models: HTTP to an OpenAI-compatible API.

use std::error::Error as _;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Client, Response, StatusCode, Url};
use rustls::pki_types::CertificateDer;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

use super::http_client;
use crate::config;
use crate::domain::{Error, Result};

/// Longest wait for a connection: one that takes longer is as good as none.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
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
}

/// All of them, by the order of the configuration.
pub struct Upstreams {
    list: Vec<Upstream>,
    place_timeout: Duration,
}

/// One of them.
pub struct Upstream {
    name: Arc<str>,
    base_url: Url,
    authorization: Option<HeaderValue>,
    timeout: Duration,
    places: Arc<Semaphore>,
    client: Client,
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
    /// Those of the configuration. All share one pool of connections, but for those with authorities of their own.
    ///
    /// # Errors
    /// `Internal` where the HTTP client cannot be set up.
    pub fn new(config: &config::Gateway) -> Result<Self> {
        let shared = client(&[])?;
        let upstream = |upstream: &config::Upstream| {
            Ok(Upstream {
                name: Arc::from(upstream.name.as_str()),
                base_url: upstream.base_url.parse().map_err(|error| failed(&error))?,
                authorization: upstream.api_key.as_ref().and_then(|key| {
                    let mut value = HeaderValue::from_str(&format!("Bearer {}", key.expose())).ok()?;
                    value.set_sensitive(true);
                    Some(value)
                }),
                timeout: Duration::from_millis(upstream.timeout_ms.unsigned_abs()),
                places: Arc::new(Semaphore::new(upstream.max_concurrent)),
                client: if upstream.authorities.is_empty() { shared.clone() } else { client(&upstream.authorities)? },
            })
        };
        let place_timeout = Duration::from_millis(config.place_timeout_ms.unsigned_abs());
        Ok(Self { list: config.upstreams.iter().map(upstream).collect::<Result<_>>()?, place_timeout })
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
        (body, mut headers): (Bytes, HeaderMap),
        wait: Duration,
        sent: &AtomicBool,
    ) -> Result<Opened, Fault> {
        let place = timeout(wait, Arc::clone(&self.places).acquire_owned()).await;
        let place = place.map_err(|_| Fault::Busy)?.map_err(|_| Fault::Busy)?;
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(authorization) = &self.authorization {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        let request = self.client.post(self.address(path)).headers(headers).body(body);
        sent.store(true, Ordering::Relaxed);
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
            _ => Ok(Opened {
                upstream: Arc::clone(&self.name),
                silence_until: Instant::now() + self.timeout,
                timeout: self.timeout,
                response,
                _place: place,
            }),
        }
    }
}

fn failed(error: &dyn fmt::Display) -> Error {
    Error::Internal(format!("the client of upstreams: {error}"))
}

/// A client that also trusts `authorities`.
fn client(authorities: &[CertificateDer<'static>]) -> Result<Client> {
    let builder = http_client::builder(authorities).map_err(|error| failed(&error))?;
    let builder = builder
        .connect_timeout(CONNECT_TIMEOUT)
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
    response: Response,
    timeout: Duration,
    silence_until: Instant,
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
        let chunk = timeout_at(self.silence_until, self.response.chunk()).await.map_err(|_| Fault::Timeout)?;
        self.silence_until = Instant::now() + self.timeout;
        chunk.map_err(|_| Fault::Broken)
    }
}
