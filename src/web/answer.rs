//! Shapes that many answers share: creating writes that may be repeated, and pages of lists.

use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, StatusCode};
use serde::Serialize;

use super::extract::{Body, MaybeKey};
use super::input::{self, Fields};
use super::problem::Answer;
use super::state::{AppState, Known};
use crate::domain::auth::Caller;
use crate::domain::{Error, Result};
use crate::service::idempotency::{self, Key};
use crate::store::Writer;

/// Elements of a page: at most, and when nothing is said.
const PAGE: std::ops::RangeInclusive<i64> = 1..=100;
const PAGE_DEFAULT: i64 = 50;

impl MaybeKey {
    /// The key together with the body it comes with.
    ///
    /// # Errors
    /// `Invalid` for a key that is none.
    pub(super) fn with(self, body: &Body) -> Result<Option<Key>> {
        Ok(self.0?.map(|key| Key { payload: key.payload(&body.value), key: key.key }))
    }

    /// As [`MaybeKey::with`], of a body that is kept as the texts it came in.
    ///
    /// # Errors
    /// As [`MaybeKey::with`].
    pub(super) fn with_texts(self, parts: &[&str]) -> Result<Option<Key>> {
        Ok(self.0?.map(|key| Key { payload: key.payload_of_texts(parts), key: key.key }))
    }
}

/// Runs a creating write at most once a key, in one transaction with its answer.
pub(super) async fn created<T, F>(state: &AppState, known: &Known, key: Option<Key>, work: F) -> Answer
where
    T: Serialize,
    F: FnOnce(&mut Writer<'_>, &Caller) -> Result<(StatusCode, T)> + Send + 'static,
{
    let answer = state.write(known, move |writer, caller| once(writer, caller, key.as_ref(), work));
    Ok(respond(answer.await?))
}

/// Within a write: does `work` unless `key` has its answer already.
pub(super) fn once<T: Serialize>(
    writer: &mut Writer<'_>,
    caller: &Caller,
    key: Option<&Key>,
    work: impl FnOnce(&mut Writer<'_>, &Caller) -> Result<(StatusCode, T)>,
) -> Result<idempotency::Answer> {
    idempotency::once(writer, caller.user.key, key, |writer| {
        let (status, body) = work(writer, caller)?;
        let body = serde_json::to_string(&body).map_err(|error| Error::Internal(error.to_string()))?;
        Ok(idempotency::Answer { status: status.as_u16(), body, replayed: false })
    })
}

/// What was answered before is answered again without another look at anything else.
pub(super) async fn first_answer(
    state: &AppState,
    known: &Known,
    key: Option<&Key>,
) -> Result<Option<idempotency::Answer>> {
    let Some(key) = key.cloned() else { return Ok(None) };
    state.read(known, move |reader, caller| idempotency::find(reader, caller.user.key, &key)).await
}

/// An answer kept or just made, as a response.
pub(super) fn respond(answer: idempotency::Answer) -> Response {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::OK);
    let mut response = (status, answer.body).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if answer.replayed {
        headers.insert(HeaderName::from_static("idempotent-replayed"), HeaderValue::from_static("true"));
    }
    response
}

/// The `limit` of a list.
pub(super) fn page_limit(fields: &mut Fields) -> usize {
    let limit = fields.optional("limit", input::integer_text(PAGE)).unwrap_or(PAGE_DEFAULT);
    usize::try_from(limit).unwrap_or_default()
}

/// Where the next page begins, of rows that were asked for one more than `limit`; none at the end.
pub(super) fn next_cursor<T>(rows: &[T], limit: usize, cursor: impl FnOnce(&T) -> String) -> Option<String> {
    if rows.len() > limit { limit.checked_sub(1).and_then(|last| rows.get(last)).map(cursor) } else { None }
}
