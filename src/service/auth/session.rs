//! Sessions: what a login begins and a logout ends.

use super::{hash_of, new_secret};
use crate::domain::auth::{SESSION_PREFIX, User};
use crate::domain::unit::Timestamp;
use crate::domain::{Error, Result};
use crate::store::{Reader, Writer, auth as store};

/// A session that has just begun.
#[derive(Clone, Debug)]
pub struct Session {
    /// The secret, shown this once.
    pub secret: String,
    /// When it ends at the latest.
    pub expires_at: Timestamp,
    /// Whose it is.
    pub user: User,
}

/// Whom an e-mail address names, and the hash that its password must match.
///
/// # Errors
/// Those of the store alone: an unknown address is no failure yet, since its refusal must take the same work.
pub fn find_candidate(reader: &Reader<'_>, email: &str) -> Result<Option<(User, Option<String>)>> {
    let Some(user) = store::find_user_by_email(reader, email)? else { return Ok(None) };
    let password_hash = store::find_password(reader, user.key)?;
    Ok(Some((user, password_hash)))
}

/// Begins a session of `user`, whose password was found to match `proved`. `replaces`: the session of the same browser,
/// whose id must not outlive a login.
///
/// # Errors
/// `WrongPassword` where the account was disabled or its password changed in the meantime.
pub fn log_in(writer: &mut Writer<'_>, user: &User, proved: &str, replaces: Option<[u8; 32]>) -> Result<Session> {
    let user = store::load_user(writer, user.key)?;
    let stored = store::find_password(writer, user.key)?;
    if !user.is_enabled() || stored.as_deref() != Some(proved) {
        return Err(Error::WrongPassword);
    }
    if let Some(hash) = replaces {
        store::delete_session(writer, &hash)?;
    }
    begin(writer, user)
}

/// Begins a session of `user`.
pub(super) fn begin(writer: &mut Writer<'_>, user: User) -> Result<Session> {
    let secret = new_secret(SESSION_PREFIX);
    let expires_at = store::insert_session(writer, user.key, &hash_of(&secret))?;
    Ok(Session { secret, expires_at, user })
}

/// Ends the session with `hash`. Ending one that has ended is no failure.
///
/// # Errors
/// Those of the store.
pub fn log_out(writer: &mut Writer<'_>, hash: &[u8; 32]) -> Result<()> {
    store::delete_session(writer, hash)
}

/// Deletes a slice of the sessions and links that have ended by themselves, and tells whether there are more.
///
/// # Errors
/// Those of the store.
pub fn purge_ended(writer: &mut Writer<'_>) -> Result<bool> {
    const SLICE: i64 = 500;
    Ok(store::purge_ended(writer, SLICE)? > 0)
}
