//! What handlers take: who calls, a JSON body, a query, an idempotency key.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use axum::BoxError;
use axum::body::HttpBody;
use axum::extract::{self, FromRequest, FromRequestParts, Request};
use http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::request::Parts;
use http::{Extensions, HeaderMap};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::time::{Instant, timeout_at};

use super::input::{self, Fields};
use super::problem::Failure;
use super::state::{AppState, Known};
use crate::config::{Config, Server};
use crate::domain::{Error, Result, json};
use crate::service::auth::{Bearer, Presented};

/// A body of up to this many bytes is parsed by the thread that serves its connection, and others: it takes about a
/// millisecond, as much as it costs them to be served by another one.
const PARSED_INLINE_BYTES_MAX: usize = 256 * 1_024;

/// The TCP peer of a connection, put there by the listener.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// The peer's address; the tests' in-process calls have none and come from loopback.
pub(super) fn peer_of(extensions: &Extensions) -> IpAddr {
    extensions.get::<Peer>().map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |peer| peer.0.ip()).to_canonical()
}

/// The client's address: the peer's, or behind trusted proxies the rightmost of X-Forwarded-For outside them.
pub(super) fn client_of(headers: &HeaderMap, extensions: &Extensions, server: &Server) -> IpAddr {
    let peer = peer_of(extensions);
    if !server.trusted_proxies.contain(peer) {
        return peer;
    }
    let forwarded = headers.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok());
    let hops: Vec<&str> = forwarded.flat_map(|line| line.split(',')).map(str::trim).collect();
    let mut client = peer;
    for hop in hops.into_iter().rev() {
        let Ok(address) = hop.parse::<IpAddr>() else { break };
        client = address.to_canonical();
        if !server.trusted_proxies.contain(client) {
            break;
        }
    }
    client
}

/// Whether the client's own connection is TLS, as far as a trusted proxy says so.
pub(super) fn is_https(headers: &HeaderMap, extensions: &Extensions, server: &Server) -> bool {
    let by_proxy = server.trusted_proxies.contain(peer_of(extensions))
        && headers.get("x-forwarded-proto").and_then(|value| value.to_str().ok()).is_some_and(|protocols| {
            // Of several proxies the first one met the client.
            protocols.split(',').next().is_some_and(|first| first.trim().eq_ignore_ascii_case("https"))
        });
    by_proxy || server.public_url.as_ref().is_some_and(|url| url.starts_with("https://"))
}

/// What a request shows of who sends it.
pub(super) fn presented(headers: &HeaderMap, extensions: &Extensions, state: &AppState) -> Presented {
    // A header given twice names nobody: a proxy that only adds its own must not let the client choose.
    let text = |name: &str| {
        let values: Vec<_> =
            headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
        (!values.is_empty()).then(|| values.join(", ").trim().to_owned())
    };
    let bearer = headers.get_all(AUTHORIZATION).iter().filter_map(|value| value.to_str().ok()).find_map(|value| {
        let (scheme, secret) = value.split_once([' ', '\t'])?;
        scheme.eq_ignore_ascii_case("bearer").then(|| Bearer::parse(secret.trim())).flatten()
    });
    Presented {
        bearer,
        from_identity_proxy: bearer.is_none() && state.config.auth.identity_proxies.contain(peer_of(extensions)),
        user_id: text("x-user-id"),
        user_email: text("x-user-email"),
        user_tier: text("x-user-tier"),
    }
}

/// Who calls: put there by the route's guard, which has checked the credential and its scope.
impl FromRequestParts<AppState> for Known {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Self, Failure> {
        parts.extensions.get::<Self>().cloned().ok_or(Failure(Error::Unauthenticated))
    }
}

/// The client's address.
#[derive(Clone, Copy, Debug)]
pub(super) struct Client(pub(super) IpAddr);

impl FromRequestParts<AppState> for Client {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Failure> {
        Ok(Self(client_of(&parts.headers, &parts.extensions, &state.config.server)))
    }
}

/// The parameters of the path. What is no text names nothing.
pub(super) struct Path<T>(pub(super) T);

impl<T: DeserializeOwned + Send> FromRequestParts<AppState> for Path<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Failure> {
        let found = extract::Path::<T>::from_request_parts(parts, state).await;
        found.map(|extract::Path(found)| Self(found)).map_err(|_| Failure(Error::NotFound("what the path names")))
    }
}

/// The query, unread.
pub(super) struct Query(pub(super) Fields);

impl FromRequestParts<AppState> for Query {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Self, Failure> {
        Ok(Self(Fields::of_query(parts.uri.query())?))
    }
}

/// A JSON body, unread.
pub(super) struct Body {
    pub(super) value: Value,
    /// What is wrong with there being none.
    absence: Option<Error>,
}

impl Body {
    /// Its fields.
    pub(super) fn fields(self) -> Result<Fields> {
        self.absence.map_or_else(|| Fields::of_body(self.value), Err)
    }

    /// Its fields; an empty body is an empty object.
    pub(super) fn fields_or_none(self) -> Result<Fields> {
        Fields::of_body(if self.value.is_null() { Value::Object(serde_json::Map::new()) } else { self.value })
    }
}

impl FromRequest<AppState> for Body {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, Failure> {
        let absence = absence(request.headers(), is_json);
        let text = text_of(read_json(request, state).await?)?;
        if text.is_empty() {
            return Ok(Self { value: Value::Null, absence: Some(absence) });
        }
        Ok(Self { value: parse(text).await?, absence: None })
    }
}

/// Parses a body; a long one where it keeps no other request waiting.
async fn parse(text: String) -> Result<Value> {
    let parse = |text: &str| serde_json::from_str(text).map_err(|error| json::unreadable(text, &error));
    if text.len() <= PARSED_INLINE_BYTES_MAX {
        return parse(&text);
    }
    let parsed = tokio::task::spawn_blocking(move || parse(&text));
    parsed.await.map_err(|panic| Error::Internal(format!("a body: {panic}")))?
}

/// What is wrong with an empty body where one is needed, of a media type that is taken or not.
pub(super) fn absence(headers: &HeaderMap, is_taken: impl FnOnce(&HeaderMap) -> bool) -> Error {
    if headers.contains_key(CONTENT_TYPE) && !is_taken(headers) {
        return not_json();
    }
    Error::Malformed("malformed JSON: the body is empty".to_owned())
}

fn not_json() -> Error {
    Error::UnsupportedMediaType("the body must be application/json".to_owned())
}

/// A JSON body as the text it came in.
pub(super) struct RawBody(pub(super) String);

impl FromRequest<AppState> for RawBody {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, Failure> {
        let absence = absence(request.headers(), is_json);
        // The one part of a long call that waits for the client.
        let read = tokio::time::timeout(state.config.server.request_timeout(), read_json(request, state));
        let text = text_of(read.await.map_err(|_| Error::Timeout)??)?;
        if text.is_empty() { Err(absence.into()) } else { Ok(Self(text)) }
    }
}

/// The text of a body.
pub(super) fn text_of(bytes: impl Into<Vec<u8>>) -> Result<String> {
    let text = String::from_utf8(bytes.into());
    text.map_err(|_| Error::Malformed("malformed JSON: the body is not UTF-8".to_owned()))
}

/// The bytes of a JSON body; none where there is no body.
async fn read_json(request: Request, state: &AppState) -> Result<bytes::Bytes> {
    let headers = request.headers();
    refuse_encoded(headers)?;
    // By HTTP/2 a body may come without a length and without an encoding.
    if request.body().is_end_stream() {
        return Ok(bytes::Bytes::new());
    }
    if !is_json(headers) {
        return Err(not_json());
    }
    read_body(request, state.config.server.body_bytes_max).await
}

/// What bounds the body of an import.
const IMPORT_SETTING: &str = "memory.import_bytes_max";

/// How a body of many records is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Records {
    /// One JSON value.
    Json,
    /// A JSON value a line.
    Lines,
}

impl Records {
    /// By the media type.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self> {
        refuse_encoded(headers)?;
        match essence(headers).as_deref() {
            Some("application/x-ndjson" | "application/jsonl") => Ok(Self::Lines),
            _ if is_json(headers) => Ok(Self::Json),
            _ => Err(Error::UnsupportedMediaType(
                "the body must be application/json, application/x-ndjson or application/jsonl".to_owned(),
            )),
        }
    }
}

/// Refuses a compressed body.
pub(super) fn refuse_encoded(headers: &HeaderMap) -> Result<()> {
    let encoding = headers.get(CONTENT_ENCODING);
    if encoding.is_none_or(|encoding| encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Ok(());
    }
    Err(Error::UnsupportedMediaType("a compressed body is not taken".to_owned()))
}

fn is_json(headers: &HeaderMap) -> bool {
    essence(headers).is_some_and(|essence| {
        essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
    })
}

/// The media type without its parameters.
fn essence(headers: &HeaderMap) -> Option<String> {
    let media = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    Some(media.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
}

/// Reads a body of at most `server.body_bytes_max` bytes.
pub(super) async fn read_body(request: Request, limit: usize) -> Result<bytes::Bytes> {
    let setting = "server.body_bytes_max";
    refuse_long(request.headers(), limit, setting)?;
    match Limited::new(request.into_body(), limit).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) => Err(unread(error, limit, setting)),
    }
}

/// Reads a body of at most `memory.import_bytes_max` bytes at the pace that other bodies are held to: silence ends it after
/// the time that a request may take, and so does a trickle, since each `server.body_bytes_max` bytes have that time.
pub(super) async fn read_long_body(request: Request, config: &Config) -> Result<Vec<u8>> {
    let (limit, setting) = (config.memory.import_bytes_max, IMPORT_SETTING);
    refuse_long(request.headers(), limit, setting)?;
    let (patience, portion) = (config.server.request_timeout(), config.server.body_bytes_max.max(1));
    let begun = Instant::now();
    let mut body = Limited::new(request.into_body(), limit);
    let mut bytes = Vec::new();
    loop {
        let portions = u32::try_from(bytes.len() / portion).unwrap_or(u32::MAX).saturating_add(1);
        let due = (begun + patience.saturating_mul(portions)).min(Instant::now() + patience);
        match timeout_at(due, body.frame()).await.map_err(|_| Error::Timeout)? {
            None => return Ok(bytes),
            Some(Ok(frame)) => bytes.extend(frame.into_data().unwrap_or_default()),
            Some(Err(error)) => return Err(unread(error, limit, setting)),
        }
    }
}

/// Refuses a body whose head says already that it is too long.
fn refuse_long(headers: &HeaderMap, limit: usize, setting: &'static str) -> Result<()> {
    let declared = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    if declared.is_some_and(|length: u64| length > limit as u64) {
        return Err(Error::TooLarge(limit as u64, setting));
    }
    Ok(())
}

fn unread(error: BoxError, limit: usize, setting: &'static str) -> Error {
    if error.is::<LengthLimitError>() {
        Error::TooLarge(limit as u64, setting)
    } else {
        Error::Malformed(format!("the body could not be read: {error}"))
    }
}

/// What makes a creating write repeatable: the key, and what it was first used for.
#[derive(Clone, Debug)]
pub(super) struct IdempotencyKey {
    /// 1 to 255 visible characters.
    pub(super) key: String,
    /// The route, the same one with and without `/api`.
    pub(super) route: String,
}

impl IdempotencyKey {
    /// SHA-256 of the route and of the payload as a JSON value.
    pub(super) fn payload(&self, body: &Value) -> [u8; 32] {
        let mut body = body.clone();
        unify_numbers(&mut body);
        self.payload_of_texts(&[&body.to_string()])
    }

    /// SHA-256 of the route and of what makes up the payload, of which only the last may hold NUL.
    pub(super) fn payload_of_texts(&self, parts: &[&str]) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(self.route.as_bytes());
        for part in parts {
            hash.update([0]);
            hash.update(part.as_bytes());
        }
        hash.finalize().into()
    }
}

/// Gives equal numbers the same spelling: 5.0 and 5e0 are 5.
fn unify_numbers(value: &mut Value) {
    match value {
        Value::Number(_) => {
            if let Some(number) = input::whole(value) {
                *value = Value::from(number);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(unify_numbers),
        Value::Object(members) => members.values_mut().for_each(unify_numbers),
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

/// The key of a request that has one. A bad one is said after a bad body.
pub(super) struct MaybeKey(pub(super) Result<Option<IdempotencyKey>>);

impl FromRequestParts<AppState> for MaybeKey {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Self, Failure> {
        let Some(value) = parts.headers.get("idempotency-key") else { return Ok(Self(Ok(None))) };
        let key = value.to_str().unwrap_or_default();
        if !(1..=255).contains(&key.len()) || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Ok(Self(Err(Error::invalid("Idempotency-Key", "must be 1 to 255 visible ASCII characters"))));
        }
        let path = parts.uri.path();
        let route = format!("{} {}", parts.method, path.strip_prefix("/api").unwrap_or(path));
        Ok(Self(Ok(Some(IdempotencyKey { key: key.to_owned(), route }))))
    }
}
