//! A repeated request gets the first answer again.

use crate::domain::auth::UserKey;
use crate::domain::unit::{DAY_MS, UserId};
use crate::domain::{Error, Result};
use crate::store::idempotency::{self as store, FirstAnswer};
use crate::store::{Reader, Writer};

/// How long a first answer is kept: 24 hours, in milliseconds.
const KEPT_MS: i64 = DAY_MS;

/// What makes a write repeatable.
#[derive(Clone, Debug)]
pub struct Key {
    /// The caller's key.
    pub key: String,
    /// SHA-256 of the route and the payload.
    pub payload: [u8; 32],
}

/// An answer as it is sent.
#[derive(Clone, Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// JSON body.
    pub body: String,
    /// Whether it was given before.
    pub replayed: bool,
}

/// The first answer to `key`, if there was one.
///
/// # Errors
/// `Invalid` where the key was used for something else.
pub fn find(reader: &Reader<'_>, user: UserKey, key: &Key) -> Result<Option<Answer>> {
    let since = reader.now().plus_millis(-KEPT_MS);
    let Some(first) = store::find_answer(reader, user, &key.key, since)? else { return Ok(None) };
    if first.payload != key.payload {
        return Err(Error::invalid("Idempotency-Key", "was used for another request"));
    }
    Ok(Some(Answer { status: first.status, body: first.body, replayed: true }))
}

/// Gives the first answer to `key`, or does `work` and keeps its answer in the same transaction.
///
/// # Errors
/// `Invalid` where the key was used for something else; whatever `work` fails with, which is not kept.
pub fn once(
    writer: &mut Writer<'_>,
    user: UserKey,
    key: Option<&Key>,
    work: impl FnOnce(&mut Writer<'_>) -> Result<Answer>,
) -> Result<Answer> {
    let Some(key) = key else { return work(writer) };
    if let Some(first) = find(writer, user, key)? {
        return Ok(first);
    }
    let answer = work(writer)?;
    let first = FirstAnswer { payload: key.payload, status: answer.status, body: answer.body.clone() };
    store::keep_answer(writer, user, &key.key, &first)?;
    Ok(answer)
}

/// Notes that the answer to `key` tells of the user with the id `subject`: it goes with that user's erasure.
///
/// # Errors
/// Where the store cannot be written.
pub fn note_subject(writer: &mut Writer<'_>, user: UserKey, key: &Key, subject: UserId) -> Result<()> {
    store::note_subject(writer, user, &key.key, subject)
}

/// Forgets answers that are too old. Tells whether there may be more.
///
/// # Errors
/// Where the store cannot be written.
pub fn purge(writer: &mut Writer<'_>) -> Result<bool> {
    const SLICE: usize = 500;
    let until = writer.now().plus_millis(-KEPT_MS);
    Ok(store::purge_answers(writer, until, SLICE)? == SLICE)
}
