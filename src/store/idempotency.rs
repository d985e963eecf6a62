//! First answers of creating writes.

use rusqlite::{OptionalExtension, params};

use super::{Reader, Writer, fault, sql_number};
use crate::domain::Result;
use crate::domain::auth::UserKey;
use crate::domain::unit::{Timestamp, UserId};

/// A first answer.
#[derive(Clone, Debug)]
pub(crate) struct FirstAnswer {
    /// SHA-256 of the route and payload it answered.
    pub(crate) payload: [u8; 32],
    /// HTTP status.
    pub(crate) status: u16,
    /// JSON body.
    pub(crate) body: String,
}

/// The answer kept under a user's key since `since`.
pub(crate) fn find_answer(
    reader: &Reader<'_>,
    user: UserKey,
    key: &str,
    since: Timestamp,
) -> Result<Option<FirstAnswer>> {
    let mut statement = reader.prepare(
        "SELECT payload, status, answer FROM idempotency WHERE user_id = ?1 AND key = ?2 AND created_at > ?3",
    )?;
    let found = statement.query_row(params![user.0, key, since.0], |row| {
        Ok(FirstAnswer { payload: row.get(0)?, status: row.get(1)?, body: row.get(2)? })
    });
    found.optional().map_err(fault)
}

/// Keeps an answer, in the place of one that is too old to count.
pub(crate) fn keep_answer(writer: &mut Writer<'_>, user: UserKey, key: &str, answer: &FirstAnswer) -> Result<()> {
    let now = writer.now();
    writer.execute(
        "INSERT OR REPLACE INTO idempotency (user_id, key, payload, status, answer, created_at) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        params![user.0, key, answer.payload, answer.status, answer.body, now.0],
    )?;
    Ok(())
}

/// Notes that an answer tells of the user with the id `subject`.
pub(crate) fn note_subject(writer: &mut Writer<'_>, user: UserKey, key: &str, subject: UserId) -> Result<()> {
    writer.execute(
        "UPDATE idempotency SET subject = (SELECT id FROM users WHERE uuid = ?3) WHERE user_id = ?1 AND key = ?2",
        params![user.0, key, subject.0],
    )?;
    Ok(())
}

/// Forgets up to `limit` answers kept until `until`.
pub(crate) fn purge_answers(writer: &mut Writer<'_>, until: Timestamp, limit: usize) -> Result<usize> {
    writer.execute(
        "DELETE FROM idempotency WHERE (user_id, key) IN \
         (SELECT user_id, key FROM idempotency WHERE created_at <= ?1 ORDER BY created_at LIMIT ?2)",
        params![until.0, sql_number(limit)],
    )
}
