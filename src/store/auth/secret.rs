//! Sessions, API tokens and one-time links: whatever is stored as the hash of a secret.

use rusqlite::{OptionalExtension, Row, params};

use crate::domain::auth::{ApiToken, SESSION_IDLE_MS, SESSION_LIFE_MS, Scopes, UserKey};
use crate::domain::page::{Page, Paging};
use crate::domain::unit::{Timestamp, TokenId};
use crate::domain::{Error, Result};
use crate::store::id::{self, Table};
use crate::store::{Reader, Writer, fault};

/// Begins a session and tells when it ends at the latest.
pub(crate) fn insert_session(writer: &mut Writer<'_>, user: UserKey, hash: &[u8; 32]) -> Result<Timestamp> {
    let now = writer.now();
    let expires_at = now.plus_millis(SESSION_LIFE_MS);
    writer.insert(
        "INSERT INTO sessions (hash, user_id, created_at, last_used_at, expires_at) VALUES (?1, ?2, ?3, ?3, ?4)",
        params![hash, user.0, now.0, expires_at.0],
    )?;
    Ok(expires_at)
}

/// Ends the session with `hash`, if there is one.
pub(crate) fn delete_session(writer: &mut Writer<'_>, hash: &[u8; 32]) -> Result<()> {
    writer.touch_auth();
    writer.execute("DELETE FROM sessions WHERE hash = ?1", params![hash]).map(drop)
}

/// Ends the sessions of a user, but for one where it is named.
pub(crate) fn end_sessions(writer: &mut Writer<'_>, user: UserKey, but: Option<i64>) -> Result<()> {
    writer.touch_auth();
    writer.execute("DELETE FROM sessions WHERE user_id = ?1 AND id IS NOT ?2", params![user.0, but]).map(drop)
}

/// Ends the sessions of a user for every request to come; streams that they began go on.
pub(crate) fn end_sessions_but_for_streams(writer: &mut Writer<'_>, user: UserKey) -> Result<()> {
    writer.touch_auth();
    writer.execute("UPDATE sessions SET is_lowered = 1 WHERE user_id = ?1", params![user.0]).map(drop)
}

/// A token that is not written yet.
#[derive(Clone, Debug)]
pub(crate) struct NewToken<'a> {
    /// Chosen by its maker.
    pub(crate) name: &'a str,
    /// What it opens.
    pub(crate) scopes: Scopes,
    /// SHA-256 of the secret.
    pub(crate) hash: [u8; 32],
    /// When it ends by itself.
    pub(crate) expires_at: Option<Timestamp>,
}

/// Adds a token of `user`.
pub(crate) fn insert_token(writer: &mut Writer<'_>, user: UserKey, new: &NewToken<'_>) -> Result<ApiToken> {
    let now = writer.now();
    let row = writer.insert(
        "INSERT INTO tokens (hash, user_id, name, scopes, created_at, expires_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        params![new.hash, user.0, new.name, new.scopes.bits(), now.0, new.expires_at.map(|at| at.0)],
    )?;
    Ok(ApiToken {
        id: TokenId(id::encode(Table::Tokens, now, row)),
        name: new.name.to_owned(),
        scopes: new.scopes,
        created_at: now,
        expires_at: new.expires_at,
        last_used_at: None,
        revoked_at: None,
    })
}

/// The tokens of a user, newest first; `revoked`: the revoked ones too.
pub(crate) fn list_tokens(reader: &Reader<'_>, user: UserKey, revoked: bool, paging: Paging) -> Result<Page<ApiToken>> {
    let mut statement = reader.prepare(
        "SELECT id, name, scopes, created_at, expires_at, last_used_at, revoked_at FROM tokens \
         WHERE user_id = ?1 AND id < ?2 AND (?3 OR revoked_at IS NULL) ORDER BY id DESC LIMIT ?4",
    )?;
    let rows = statement.query_map(params![user.0, paging.before(), revoked, paging.rows()], |row| {
        Ok((row.get::<_, i64>(0)?, token_of(row)?))
    });
    let tokens = rows.map_err(fault)?.collect::<rusqlite::Result<Vec<_>>>().map_err(fault)?;
    Ok(paging.page(tokens, |(row, _)| *row).map(|(_, token)| token))
}

fn token_of(row: &Row<'_>) -> rusqlite::Result<ApiToken> {
    let created_at = Timestamp(row.get(3)?);
    let instant = |column| row.get::<_, Option<i64>>(column).map(|at| at.map(Timestamp));
    Ok(ApiToken {
        id: TokenId(id::encode(Table::Tokens, created_at, row.get(0)?)),
        name: row.get(1)?,
        scopes: Scopes::from_bits(row.get(2)?),
        created_at,
        expires_at: instant(4)?,
        last_used_at: instant(5)?,
        revoked_at: instant(6)?,
    })
}

/// Revokes a token, of `user` where one is named, and tells whose it was.
///
/// # Errors
/// `NotFound` where there is no such token, it is another's, or it is revoked already.
pub(crate) fn revoke_token(
    writer: &mut Writer<'_>,
    user: Option<UserKey>,
    token: TokenId,
) -> Result<(UserKey, String)> {
    let missing = Error::NotFound("the token");
    let Some(named) = id::decode(Table::Tokens, token.0) else { return Err(missing) };
    let found = writer
        .prepare("SELECT user_id, created_at, name FROM tokens WHERE id = ?1 AND revoked_at IS NULL")?
        .query_row([named.row], |row| Ok((UserKey(row.get(0)?), Timestamp(row.get(1)?), row.get(2)?)))
        .optional()
        .map_err(fault)?;
    let found = found.filter(|(owner, at, _)| named.is_of(*at) && user.is_none_or(|user| user == *owner));
    let Some((owner, _, name)) = found else { return Err(missing) };
    let now = writer.now();
    writer.touch_auth();
    writer.execute("UPDATE tokens SET revoked_at = ?2 WHERE id = ?1", params![named.row, now.0])?;
    Ok((owner, name))
}

/// Revokes all tokens of a user.
pub(crate) fn revoke_tokens(writer: &mut Writer<'_>, user: UserKey) -> Result<()> {
    let now = writer.now();
    writer.touch_auth();
    writer
        .execute("UPDATE tokens SET revoked_at = ?2 WHERE user_id = ?1 AND revoked_at IS NULL", params![user.0, now.0])
        .map(drop)
}

/// Deletes sessions and links that have ended by themselves, at most `limit` of each, and tells how many it found.
pub(crate) fn purge_ended(writer: &mut Writer<'_>, limit: i64) -> Result<usize> {
    let now = writer.now();
    let sessions = writer.execute(
        "DELETE FROM sessions WHERE id IN (SELECT id FROM sessions \
         WHERE expires_at <= ?1 OR last_used_at <= ?1 - ?2 LIMIT ?3)",
        params![now.0, SESSION_IDLE_MS, limit],
    )?;
    let links = writer.execute(
        "DELETE FROM links WHERE hash IN (SELECT hash FROM links WHERE expires_at <= ?1 LIMIT ?2)",
        params![now.0, limit],
    )?;
    Ok(sessions + links)
}

/// Adds a one-time link: to choose the password of `user`, or without one to set the box up.
pub(crate) fn insert_link(
    writer: &mut Writer<'_>,
    user: Option<UserKey>,
    hash: &[u8; 32],
    life_ms: i64,
    by_token: bool,
) -> Result<Timestamp> {
    let now = writer.now();
    let expires_at = now.plus_millis(life_ms);
    writer.execute(
        "INSERT INTO links (hash, user_id, created_at, expires_at, by_token) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![hash, user.map(|user| user.0), now.0, expires_at.0, by_token],
    )?;
    Ok(expires_at)
}

/// A live link.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FoundLink {
    /// Whose password it is for; none: it is for setting the box up.
    pub(crate) user: Option<UserKey>,
}

/// The live link with `hash`.
pub(crate) fn find_link(reader: &Reader<'_>, hash: &[u8; 32]) -> Result<Option<FoundLink>> {
    let mut statement = reader.prepare("SELECT user_id FROM links WHERE hash = ?1 AND expires_at > ?2")?;
    let found = statement.query_row(params![hash, reader.now().0], |row| {
        Ok(FoundLink { user: row.get::<_, Option<i64>>(0)?.map(UserKey) })
    });
    found.optional().map_err(fault)
}

/// Deletes a link, which is thereby used up.
pub(crate) fn delete_link(writer: &mut Writer<'_>, hash: &[u8; 32]) -> Result<()> {
    writer.execute("DELETE FROM links WHERE hash = ?1", params![hash]).map(drop)
}

/// Voids the links of a user.
pub(crate) fn delete_links(writer: &mut Writer<'_>, user: UserKey) -> Result<()> {
    writer.execute("DELETE FROM links WHERE user_id = ?1", params![user.0]).map(drop)
}

/// Voids those of a user's links that were made by a token.
pub(crate) fn delete_links_by_token(writer: &mut Writer<'_>, user: UserKey) -> Result<()> {
    writer.execute("DELETE FROM links WHERE user_id = ?1 AND by_token", params![user.0]).map(drop)
}

/// Voids the links to set the box up.
pub(crate) fn delete_setup_links(writer: &mut Writer<'_>) -> Result<()> {
    writer.execute("DELETE FROM links WHERE user_id IS NULL", []).map(drop)
}
