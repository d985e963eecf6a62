//! The erasure of a whole user: one write cuts the user off, many small ones take away what is left.

use std::collections::BTreeMap;

use super::auth::account::{self, By};
use crate::domain::auth::{User, UserKey};
use crate::domain::unit::UserId;
use crate::domain::{Error, Result};
use crate::store::{Reader, Store, Writer, erasure as store};

/// What was erased.
#[derive(Clone, Debug)]
pub struct Receipt {
    /// Rows by kind.
    pub counts: BTreeMap<String, i64>,
}

/// Begins the erasure of a user, who can use nothing from then on; the bare id stays as a tombstone and is never used
/// again. [`finish`], or the worker, does the rest.
///
/// # Errors
/// `Conflict` for the last enabled admin.
pub fn begin(writer: &mut Writer<'_>, by: &By, user: &User) -> Result<UserKey> {
    if account::is_last_admin(writer, user)? {
        return Err(Error::conflict("last_admin", "the last enabled admin cannot be erased"));
    }
    store::begin(writer, user.key)?;
    account::note_erasure(writer, by, user)?;
    Ok(user.key)
}

/// As [`begin`], by the public id; an erasure that is under way is gone on with.
///
/// # Errors
/// As [`begin`]; `NotFound`; `Gone` where it is done.
pub fn begin_by_id(writer: &mut Writer<'_>, by: &By, id: UserId) -> Result<UserKey> {
    if let Some(begun) = store::find_begun(writer, id)? {
        return Ok(begun);
    }
    let user = account::load(writer, id)?;
    begin(writer, by, &user)
}

/// Users whose erasure has begun and is not done.
///
/// # Errors
/// Where the store cannot be read.
pub fn list_begun(reader: &Reader<'_>) -> Result<Vec<UserKey>> {
    store::list_begun(reader)
}

/// Whether the write-ahead log still holds what was erased, since something needed it when the erasure ended.
///
/// # Errors
/// Where the store cannot be read.
pub fn log_tells(reader: &Reader<'_>) -> Result<bool> {
    Ok(store::find_log_mark(reader)?.is_some())
}

/// Does one slice of what is left of an erasure; the receipt when it is done.
///
/// # Errors
/// `NotFound` where none has begun.
pub fn slice(writer: &mut Writer<'_>, user: UserKey) -> Result<Option<Receipt>> {
    Ok(store::slice(writer, user)?.map(|counts| Receipt { counts }))
}

/// Does the rest of an erasure, slice by slice; other writes come between two slices. When it is done the files hold
/// nothing of the user, unless a reader still needs the log.
///
/// # Errors
/// Where the store cannot be written; the same again goes on.
pub async fn finish(database: &Store, user: UserKey) -> Result<Receipt> {
    loop {
        if let Some(receipt) = database.write(move |writer| slice(writer, user)).await? {
            return Ok(receipt);
        }
    }
}

/// As [`finish`], for threads that may wait.
///
/// # Errors
/// As [`finish`].
pub fn finish_blocking(database: &Store, user: UserKey) -> Result<Receipt> {
    loop {
        if let Some(receipt) = database.write_blocking(move |writer| slice(writer, user))? {
            return Ok(receipt);
        }
    }
}
