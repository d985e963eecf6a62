//! Users.

use rusqlite::{OptionalExtension, params};

use super::{user_columns, user_of};
use crate::domain::auth::{Role, User, UserFilter, UserKey, email_key};
use crate::domain::page::{Page, Paging};
use crate::domain::unit::UserId;
use crate::domain::{Error, Result};
use crate::store::{Reader, Writer, fault};

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

/// The user behind a handle.
///
/// # Errors
/// `NotFound` where it was erased.
pub(crate) fn load_user(reader: &Reader<'_>, key: UserKey) -> Result<User> {
    let sql = concat!("SELECT ", user_columns!(), " FROM users WHERE users.id = ?1 AND users.erased_at IS NULL");
    let found = reader.prepare(sql)?.query_row([key.0], user_of).optional().map_err(fault)?;
    found.ok_or(Error::NotFound("the user"))
}

/// Users that pass the filter, newest first.
pub(crate) fn list_users(reader: &Reader<'_>, filter: &UserFilter, paging: Paging) -> Result<Page<User>> {
    let sql = concat!(
        "SELECT ",
        user_columns!(),
        " FROM users WHERE users.id < ?1 AND users.erased_at IS NULL \
         AND (?3 IS NULL OR instr(users.email_key, ?3) > 0 OR instr(lower(hex(users.uuid)), replace(?3, '-', '')) > 0) \
         AND (?4 IS NULL OR users.tier = ?4) AND (?5 IS NULL OR users.role = ?5) \
         AND (?6 IS NULL OR (users.disabled_at IS NOT NULL) = ?6) ORDER BY users.id DESC LIMIT ?2"
    );
    let mut statement = reader.prepare(sql)?;
    let parameters = params![
        paging.before(),
        paging.rows(),
        filter.text.as_deref().map(email_key),
        filter.tier,
        filter.role.map(Role::as_str),
        filter.disabled
    ];
    let rows = statement.query_map(parameters, user_of).map_err(fault)?;
    let users = rows.collect::<rusqlite::Result<Vec<User>>>().map_err(fault)?;
    Ok(paging.page(users, |user| user.key.0))
}

/// How many administrators may use the box.
pub(crate) fn count_enabled_admins(reader: &Reader<'_>) -> Result<i64> {
    let sql = "SELECT count(*) FROM users WHERE role = 'admin' AND disabled_at IS NULL AND erased_at IS NULL";
    reader.prepare(sql)?.query_row([], |row| row.get(0)).map_err(fault)
}

/// The tiers that users hold, and how many hold each.
pub(crate) fn tiers_in_use(reader: &Reader<'_>) -> Result<Vec<(String, i64)>> {
    let sql = "SELECT tier, count(*) FROM users WHERE erased_at IS NULL GROUP BY tier ORDER BY tier";
    let mut statement = reader.prepare(sql)?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).map_err(fault)?;
    rows.collect::<rusqlite::Result<_>>().map_err(fault)
}

/// The argon2id hash of a user's password; none where no password can log in.
pub(crate) fn find_password(reader: &Reader<'_>, user: UserKey) -> Result<Option<String>> {
    let mut statement = reader.prepare("SELECT password_hash FROM users WHERE id = ?1")?;
    statement.query_row([user.0], |row| row.get(0)).optional().map_err(fault).map(Option::flatten)
}

/// Puts the hash of another password in place; none: no password can log in.
pub(crate) fn set_password(writer: &mut Writer<'_>, user: UserKey, password_hash: Option<&str>) -> Result<()> {
    writer.touch_auth();
    writer.execute("UPDATE users SET password_hash = ?2 WHERE id = ?1", params![user.0, password_hash]).map(drop)
}

/// What a user shall be; none of a field leaves it as it is.
#[derive(Clone, Debug, Default)]
pub(crate) struct UserChange<'a> {
    /// The address.
    pub(crate) email: Option<&'a str>,
    /// The role.
    pub(crate) role: Option<Role>,
    /// A tier of the configuration.
    pub(crate) tier: Option<&'a str>,
    /// Whether it is disabled, from now on.
    pub(crate) disabled: Option<bool>,
}

/// Changes a user.
///
/// # Errors
/// `Conflict` `email_taken` where another user has the address.
pub(crate) fn change_user(writer: &mut Writer<'_>, user: UserKey, change: &UserChange<'_>) -> Result<User> {
    writer.touch_auth();
    if let Some(email) = change.email {
        if find_user_by_email(writer, email)?.is_some_and(|other| other.key != user) {
            return Err(Error::conflict("email_taken", "another user has this e-mail address"));
        }
        writer.execute(
            "UPDATE users SET email = ?2, email_key = ?3 WHERE id = ?1",
            params![user.0, email, email_key(email)],
        )?;
    }
    if let Some(role) = change.role {
        writer.execute("UPDATE users SET role = ?2 WHERE id = ?1", params![user.0, role.as_str()])?;
    }
    if let Some(tier) = change.tier {
        writer.execute("UPDATE users SET tier = ?2 WHERE id = ?1", params![user.0, tier])?;
    }
    if let Some(disabled) = change.disabled {
        let disabled_at = disabled.then_some(writer.now().0);
        writer.execute("UPDATE users SET disabled_at = ?2 WHERE id = ?1", params![user.0, disabled_at])?;
    }
    load_user(writer, user)
}

/// How many users there are: all, enabled, administrators.
pub(crate) fn count_users(reader: &Reader<'_>) -> Result<(i64, i64, i64)> {
    let sql = "SELECT count(*), count(*) FILTER (WHERE disabled_at IS NULL), count(*) FILTER (WHERE role = 'admin') \
               FROM users WHERE erased_at IS NULL";
    reader.prepare(sql)?.query_row([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).map_err(fault)
}
