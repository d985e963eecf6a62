//! The erasure of a whole user.

use super::auth::account::{self, By};
use crate::domain::auth::User;
use crate::domain::{Error, Result};
use crate::store::{Writer, erasure as store, memory};

/// What was erased.
#[derive(Clone, Debug)]
pub struct Receipt {
    /// Rows by kind.
    pub counts: Vec<(&'static str, usize)>,
}

/// Erases everything of a user; the bare id stays as a tombstone that is never given again.
///
/// # Errors
/// `Conflict` for the last enabled admin.
pub fn erase(writer: &mut Writer<'_>, by: &By, user: &User) -> Result<Receipt> {
    if account::is_last_admin(writer, user)? {
        return Err(Error::conflict("last_admin", "the last enabled admin cannot be erased"));
    }
    let mut counts = vec![("memories", memory::erase_all(writer, user.key)?)];
    counts.extend(store::erase_user(writer, user.key)?);
    account::note_erasure(writer, by, user)?;
    Ok(Receipt { counts })
}
