//! Users, sessions, API tokens and one-time links.

use rusqlite::{OptionalExtension, Row, params};

use super::id::{self, Table};
use super::{Reader, Writer, fault};
use crate::domain::auth::{Credential, Role, SESSION_IDLE_MS, Scopes, User, UserKey, email_key};
use crate::domain::unit::{Timestamp, TokenId, UserId};
use crate::domain::{Error, Result};

/// Columns of a user, in the order that [`user_of`] reads.
macro_rules! user_columns {
    () => {
        "users.id, users.uuid, users.email, users.role, users.tier, users.disabled_at, users.created_at"
    };
}

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
    let sql = concat!(
        "SELECT ",
        user_columns!(),
        ", sessions.id, sessions.last_used_at, sessions.expires_at FROM sessions \
         JOIN users ON users.id = sessions.user_id \
         WHERE sessions.hash = ?1 AND sessions.expires_at > ?2 AND sessions.last_used_at > ?2 - ?3"
    );
    let mut statement = reader.prepare(sql)?;
    let found = statement.query_row(params![hash, reader.now().0, SESSION_IDLE_MS], |row| {
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

/// The user with a public id, or the fact that it was erased.
///
/// # Errors
/// `Gone` for an erased user.
pub(crate) fn find_user(reader: &Reader<'_>, id: UserId) -> Result<Option<User>> {
    let sql = concat!("SELECT ", user_columns!(), ", users.erased_at FROM users WHERE users.uuid = ?1");
    let mut statement = reader.prepare(sql)?;
    let found = statement.query_row([id.0], |row| Ok((user_of(row)?, row.get::<_, Option<i64>>(7)?)));
    match found.optional().map_err(fault)? {
        Some((_, Some(_))) => Err(Error::Gone("the user")),
        Some((user, None)) => Ok(Some(user)),
        None => Ok(None),
    }
}

/// The user with an e-mail address, however its letters are cased.
pub(crate) fn find_user_by_email(reader: &Reader<'_>, email: &str) -> Result<Option<User>> {
    let sql = concat!("SELECT ", user_columns!(), " FROM users WHERE users.email_key = ?1");
    reader.prepare(sql)?.query_row([email_key(email)], user_of).optional().map_err(fault)
}

/// A user that is not written yet.
#[derive(Clone, Debug)]
pub(crate) struct NewUser<'a> {
    /// The public id.
    pub(crate) id: UserId,
    /// None for one provisioned without.
    pub(crate) email: Option<&'a str>,
    /// The role.
    pub(crate) role: Role,
    /// A tier of the configuration.
    pub(crate) tier: &'a str,
    /// An argon2id hash; none: no password can log in.
    pub(crate) password_hash: Option<&'a str>,
}

/// Adds a user.
///
/// # Errors
/// `Conflict` `email_taken` where another user has the address.
pub(crate) fn insert_user(writer: &mut Writer<'_>, new: &NewUser<'_>) -> Result<User> {
    if let Some(email) = new.email
        && find_user_by_email(writer, email)?.is_some()
    {
        return Err(Error::conflict("email_taken", "another user has this e-mail address"));
    }
    let now = writer.now();
    let row = writer.insert(
        "INSERT INTO users (uuid, email, email_key, role, tier, password_hash, created_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![new.id.0, new.email, new.email.map(email_key), new.role.as_str(), new.tier, new.password_hash, now.0],
    )?;
    Ok(User {
        key: UserKey(row),
        id: new.id,
        email: new.email.map(str::to_owned),
        role: new.role,
        tier: new.tier.to_owned(),
        disabled_at: None,
        created_at: now,
    })
}

/// Whether there is an administrator who can log in.
pub(crate) fn has_admin(reader: &Reader<'_>) -> Result<bool> {
    let mut statement =
        reader.prepare("SELECT EXISTS (SELECT 1 FROM users WHERE role = 'admin' AND erased_at IS NULL)")?;
    statement.query_row([], |row| row.get(0)).map_err(fault)
}

/// Adds a token of `user` by the hash of its secret.
pub(crate) fn insert_token(
    writer: &mut Writer<'_>,
    user: UserKey,
    name: &str,
    scopes: Scopes,
    hash: &[u8; 32],
    expires_at: Option<Timestamp>,
) -> Result<TokenId> {
    let now = writer.now();
    let row = writer.insert(
        "INSERT INTO tokens (hash, user_id, name, scopes, created_at, expires_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        params![hash, user.0, name, scopes.bits(), now.0, expires_at.map(|at| at.0)],
    )?;
    Ok(TokenId(id::encode(Table::Tokens, now, row)))
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
