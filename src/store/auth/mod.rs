//! Users, sessions, API tokens and one-time links.

mod secret;
mod user;

use rusqlite::{OptionalExtension, Row, params};

use super::{Reader, Writer, fault};
use crate::domain::Result;
use crate::domain::auth::{Credential, Role, SESSION_IDLE_MS, Scopes, User, UserKey};
use crate::domain::unit::{Timestamp, UserId};
pub(crate) use secret::{
    NewToken, delete_link, delete_links, delete_links_by_token, delete_session, delete_setup_links, end_sessions,
    end_sessions_but_for_streams, find_link, insert_link, insert_session, insert_token, list_tokens, purge_ended,
    revoke_token, revoke_tokens,
};
pub(crate) use user::{
    NewUser, UserChange, change_user, count_enabled_admins, count_users, find_password, find_user, find_user_by_email,
    has_admin, insert_user, list_users, load_user, set_password, tiers_in_use,
};

/// Columns of a user, in the order that [`user_of`] reads.
macro_rules! user_columns {
    () => {
        "users.id, users.uuid, users.email, users.role, users.tier, users.disabled_at, users.created_at"
    };
}

use user_columns;

fn user_of(row: &Row<'_>) -> rusqlite::Result<User> {
    let role: String = row.get(3)?;
    Ok(User {
        key: UserKey(row.get(0)?),
        id: UserId(row.get(1)?),
        email: row.get(2)?,
        role: if role == Role::Admin.as_str() { Role::Admin } else { Role::User },
        tier: row.get(4)?,
        disabled_at: row.get::<_, Option<i64>>(5)?.map(Timestamp),
        created_at: Timestamp(row.get(6)?),
    })
}

/// What a bearer's hash stands for.
#[derive(Clone, Debug)]
pub(crate) struct FoundCredential {
    /// The session or token.
    pub(crate) credential: Credential,
    /// Whose.
    pub(crate) user: User,
    /// What the token was given; a session's follow from the role.
    pub(crate) granted: Option<Scopes>,
    /// When it ends if it is not used again.
    pub(crate) ends_at: Option<Timestamp>,
}

/// The live token with `hash` of a user that was not erased.
pub(crate) fn find_token(reader: &Reader<'_>, hash: &[u8; 32]) -> Result<Option<FoundCredential>> {
    let sql = concat!(
        "SELECT ",
        user_columns!(),
        ", tokens.id, tokens.scopes, tokens.expires_at FROM tokens JOIN users ON users.id = tokens.user_id \
         WHERE tokens.hash = ?1 AND tokens.revoked_at IS NULL AND (tokens.expires_at IS NULL OR tokens.expires_at > ?2)"
    );
    let mut statement = reader.prepare(sql)?;
    let found = statement.query_row(params![hash, reader.now().0], |row| {
        Ok(FoundCredential {
            credential: Credential::Token(row.get(7)?),
            user: user_of(row)?,
            granted: Some(Scopes::from_bits(row.get(8)?)),
            ends_at: row.get::<_, Option<i64>>(9)?.map(Timestamp),
        })
    });
    found.optional().map_err(fault)
}

/// The live session with `hash`: neither past its life nor idle for too long.
pub(crate) fn find_session(reader: &Reader<'_>, hash: &[u8; 32]) -> Result<Option<FoundCredential>> {
    find_session_that(reader, hash, false)
}

/// As [`find_session`], also one that the lowering of its user's role has ended.
pub(crate) fn find_begun_session(reader: &Reader<'_>, hash: &[u8; 32]) -> Result<Option<FoundCredential>> {
    find_session_that(reader, hash, true)
}

fn find_session_that(reader: &Reader<'_>, hash: &[u8; 32], may_be_lowered: bool) -> Result<Option<FoundCredential>> {
    let sql = concat!(
        "SELECT ",
        user_columns!(),
        ", sessions.id, sessions.last_used_at, sessions.expires_at FROM sessions \
         JOIN users ON users.id = sessions.user_id \
         WHERE sessions.hash = ?1 AND sessions.expires_at > ?2 AND sessions.last_used_at > ?2 - ?3 \
         AND (?4 OR NOT sessions.is_lowered)"
    );
    let mut statement = reader.prepare(sql)?;
    let found = statement.query_row(params![hash, reader.now().0, SESSION_IDLE_MS, may_be_lowered], |row| {
        let idle_end = Timestamp(row.get(8)?).plus_millis(SESSION_IDLE_MS);
        Ok(FoundCredential {
            credential: Credential::Session(row.get(7)?),
            user: user_of(row)?,
            granted: None,
            ends_at: Some(idle_end.min(Timestamp(row.get(9)?))),
        })
    });
    found.optional().map_err(fault)
}

/// Writes down when credentials were last used.
pub(crate) fn touch_credentials(writer: &mut Writer<'_>, used: &[(Credential, Timestamp)]) -> Result<()> {
    for (credential, at) in used {
        match credential {
            Credential::Session(row) => writer.execute(
                "UPDATE sessions SET last_used_at = max(last_used_at, ?2) WHERE id = ?1",
                params![row, at.0],
            )?,
            Credential::Token(row) => writer.execute(
                "UPDATE tokens SET last_used_at = max(coalesce(last_used_at, 0), ?2) WHERE id = ?1",
                params![row, at.0],
            )?,
            Credential::Proxy => 0,
        };
    }
    Ok(())
}
