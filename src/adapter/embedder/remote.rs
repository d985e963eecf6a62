//! Vectors from a remote endpoint with the `/embeddings` of `OpenAI`.

use std::fmt;
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Client, Response, StatusCode, Url};
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;

use super::tokenizer::Tokenizer;
use super::{EmbedError, Embedder, windows};
use crate::adapter::http_client;
use crate::domain::memory::{EMBEDDING_DIMENSIONS, Embedding};

/// End of the endpoint's path.
const PATH: &str = "/embeddings";

/// Longest answer that is read, in bytes. A vector takes some 10 KiB as JSON.
const ANSWER_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Longest wait between two tries, whatever the endpoint asks for.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// Requests under way: so a slow one does not hold up the others.
const CALLS_AT_ONCE: usize = 8;

/// Settings of a [`Remote`].
#[derive(Clone)]
pub struct RemoteConfig {
    /// Address of the API, such as `https://api.example.com/v1`. `/embeddings` is appended
    /// unless it is there.
    pub url: String,
    /// Name of the model, sent with each request and stored with the vectors.
    pub model: String,
    /// Sent as a bearer token where there is one.
    pub api_key: Option<String>,
    /// Longest time that one try may take, from connecting to the last byte.
    pub timeout: Duration,
    /// How often a request is tried again after a failed connection or the statuses 429 and
    /// 5xx. A try that ran out of time is not repeated: its caller has waited long enough.
    pub retries: u32,
    /// Wait before the first repetition; each further one is twice as long, up to 10 seconds.
    /// Where the endpoint asks for a longer one, it is heeded up to the same limit.
    pub backoff: Duration,
    /// Most texts of one request; more are sent in several, one after the other.
    pub texts_per_request: usize,
}

impl RemoteConfig {
    /// Settings for `model` at `url` without a key: 30 seconds a try, 3 repetitions from 250 ms
    /// on, 64 texts a request.
    #[must_use]
    pub fn new(url: impl Into<String>, model: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            model: model.into(),
            api_key: None,
            timeout: Duration::from_secs(30),
            retries: 3,
            backoff: Duration::from_millis(250),
            texts_per_request: 64,
        }
    }
}

impl fmt::Debug for RemoteConfig {
    /// Tells of the key only whether there is one.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("RemoteConfig")
            .field("url", &self.url)
            .field("model", &self.model)
            .field("api_key", &self.api_key.as_ref().map(|_| "***"))
            .field("timeout", &self.timeout)
            .field("retries", &self.retries)
            .field("backoff", &self.backoff)
            .field("texts_per_request", &self.texts_per_request)
            .finish()
    }
}

/// An embedding model behind an OpenAI-compatible endpoint.
pub struct Remote {
    config: RemoteConfig,
    endpoint: Url,
    client: Client,
    /// Runs the requests. The server's own runtime: a blocking client would start another one,
    /// with a thread of its own, beside it.
    runtime: Handle,
    /// The built-in model's, to split texts into windows that suit either model.
    tokenizer: Tokenizer,
}

#[derive(Serialize)]
struct Request<'a> {
    model: &'a str,
    input: &'a [&'a str],
    dimensions: usize,
    encoding_format: &'static str,
}

#[derive(Deserialize)]
struct Answer {
    data: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    index: usize,
    embedding: Vec<f32>,
}

/// Why one try failed.
enum Failure {
    /// Another try may succeed, after the wait that the endpoint asks for.
    Passing { detail: String, wait: Duration },
    /// Another try is useless.
    Final(EmbedError),
}

impl Remote {
    /// Checks the settings; the endpoint is first called by [`Embedder::embed`], which must run
    /// on a thread that may block, such as one of `spawn_blocking`, and not on one that drives
    /// `runtime`.
    ///
    /// # Errors
    ///
    /// [`EmbedError::Settings`] when the address or the key is malformed.
    pub fn new(config: RemoteConfig, runtime: Handle) -> Result<Self, EmbedError> {
        let settings = |detail: String| EmbedError::Settings { detail };
        let address = config.url.trim_end_matches('/');
        let end = if address.ends_with(PATH) { "" } else { PATH };
        let endpoint = Url::parse(&format!("{address}{end}"))
            .map_err(|error| settings(format!("the address {:?}: {error}", config.url)))?;
        if !matches!(endpoint.scheme(), "http" | "https") {
            return Err(settings(format!("the address {:?} is neither http nor https", config.url)));
        }
        if config.texts_per_request == 0 {
            return Err(settings("a request must have a text".to_owned()));
        }
        let mut headers = HeaderMap::new();
        if let Some(key) = &config.api_key {
            let mut value = HeaderValue::from_str(&format!("Bearer {key}"))
                .map_err(|_| settings("the key has characters no header can have".to_owned()))?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let client = http_client::builder(&[])
            .map_err(|error| settings(error.to_string()))?
            .default_headers(headers)
            .timeout(config.timeout)
            .build()
            .map_err(|error| settings(error.to_string()))?;
        Ok(Self { config, endpoint, client, runtime, tokenizer: Tokenizer::load()? })
    }

    /// Embeds up to `texts_per_request` texts, with repetitions.
    async fn request(&self, texts: &[&str]) -> Result<Vec<Embedding>, EmbedError> {
        let mut backoff = self.config.backoff;
        let mut tries_left = self.config.retries;
        loop {
            let (detail, wait) = match self.attempt(texts).await {
                Ok(embeddings) => return Ok(embeddings),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Passing { detail, wait }) => (detail, wait),
            };
            if tries_left == 0 {
                return Err(EmbedError::Unavailable { detail });
            }
            tries_left -= 1;
            tokio::time::sleep(wait.max(backoff).min(WAIT_MAX)).await;
            backoff = backoff.saturating_mul(2);
        }
    }

    /// Embeds texts by one request.
    async fn attempt(&self, texts: &[&str]) -> Result<Vec<Embedding>, Failure> {
        let request = Request {
            model: &self.config.model,
            input: texts,
            dimensions: EMBEDDING_DIMENSIONS,
            encoding_format: "float",
        };
        let sent = self.client.post(self.endpoint.clone()).json(&request).send();
        let response = sent.await.map_err(|error| self.transport(&error))?;
        let status = response.status();
        let wait = retry_after(response.headers());
        let body = self.body(response).await?;
        if status.is_success() {
            return read_answer(&body, texts.len()).map_err(Failure::Final);
        }
        // Not what it says: many an endpoint repeats the texts that it was sent, and this goes into the log.
        let detail = format!("it answered {status}");
        if status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error() {
            return Err(Failure::Passing { detail, wait });
        }
        Err(Failure::Final(EmbedError::Refused { detail }))
    }

    /// Reads an answer up to the limit.
    async fn body(&self, mut response: Response) -> Result<Vec<u8>, Failure> {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.transport(&error))? {
            if body.len() + chunk.len() > ANSWER_BYTES_MAX {
                return Err(Failure::Final(EmbedError::BadVector {
                    detail: format!("the answer is longer than {ANSWER_BYTES_MAX} bytes"),
                }));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    /// What a failure of the transport means.
    fn transport(&self, error: &reqwest::Error) -> Failure {
        if error.is_timeout() && !error.is_connect() {
            return Failure::Final(EmbedError::Unavailable {
                detail: format!("no answer within {:?}", self.config.timeout),
            });
        }
        // The cause, such as a refused connection, is the innermost error.
        let mut cause: &dyn std::error::Error = error;
        while let Some(source) = cause.source() {
            cause = source;
        }
        Failure::Passing { detail: format!("the connection failed: {cause}"), wait: Duration::ZERO }
    }
}

impl Embedder for Remote {
    fn model(&self) -> &str {
        &self.config.model
    }

    fn windows<'t>(&self, text: &'t str) -> Vec<&'t str> {
        windows::split(&self.tokenizer, text)
    }

    fn calls_at_once(&self) -> usize {
        CALLS_AT_ONCE
    }

    fn texts_of_a_call(&self) -> usize {
        self.config.texts_per_request
    }

    fn embed(&self, texts: &[&str]) -> Result<Vec<Embedding>, EmbedError> {
        let mut embeddings = Vec::with_capacity(texts.len());
        for part in texts.chunks(self.config.texts_per_request) {
            embeddings.extend(self.runtime.block_on(self.request(part))?);
        }
        Ok(embeddings)
    }
}

/// The vectors of an answer to `count` texts, in the order of the texts.
fn read_answer(body: &[u8], count: usize) -> Result<Vec<Embedding>, EmbedError> {
    let bad = |detail: String| EmbedError::BadVector { detail };
    let answer: Answer = serde_json::from_slice(body).map_err(|error| {
        bad(format!("the answer is not as documented (line {}, column {})", error.line(), error.column()))
    })?;
    let mut items = answer.data;
    items.sort_by_key(|item| item.index);
    if items.len() != count || (0..count).ne(items.iter().map(|item| item.index)) {
        return Err(bad(format!("the answer has not one vector for each of {count} texts")));
    }
    items
        .iter()
        .map(|item| {
            let found = item.embedding.len();
            if found != EMBEDDING_DIMENSIONS {
                return Err(bad(format!(
                    "the vectors have {found} numbers, {EMBEDDING_DIMENSIONS} are needed: choose \
                     a model that has so many or can shorten its vectors to them"
                )));
            }
            Ok(Embedding::normalised(&item.embedding)?)
        })
        .collect()
}

/// The wait in seconds that an endpoint asks for.
fn retry_after(headers: &HeaderMap) -> Duration {
    headers
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.trim().parse().ok())
        .map_or(Duration::ZERO, Duration::from_secs)
}
