//! The ends of memories: booked for a user at once, taken away in slices.

use serde_json::json;

use super::super::quota::Policy as QuotaPolicy;
use super::book;
use crate::domain::Result;
use crate::domain::auth::UserKey;
use crate::store::memory as store_of;
use crate::store::{Reader, Writer};

/// Users whose ends are booked in one write.
const USERS_OF_A_PASS: usize = 64;
/// Memories that are taken away in one write.
const PURGE_MEMORIES: usize = 256;
/// About how much text is taken away in one write, in bytes: a memory may hold as much as a thousand others.
const PURGE_TEXT_BYTES: usize = 1024 * 1024;

/// Books the ends of a user's memories up to now: one entry, however many they are. The rows stay until [`purge`].
///
/// # Errors
/// Where the store cannot be written.
pub fn book_ends(writer: &mut Writer<'_>, policy: &QuotaPolicy, user: UserKey) -> Result<()> {
    let ended = store_of::ended(writer, user)?;
    let memories: i64 = ended.iter().map(|held| held.memories).sum();
    if memories == 0 {
        return Ok(());
    }
    let size_bytes: i64 = ended.iter().map(|held| held.size_bytes).sum();
    store_of::book_ends(writer, user, &ended)?;
    book(writer, policy, user, -size_bytes, json!({"action": "expire", "memories": memories}))
}

/// Whether there is a user whose memories have ended without having been booked, or a memory to take away.
///
/// # Errors
/// Where the store cannot be read.
pub fn is_due(reader: &Reader<'_>) -> Result<bool> {
    Ok(!store_of::due_users(reader, 1)?.is_empty() || store_of::has_ended(reader)?)
}

/// Books the ends of the memories of some users. Tells whether there may be more.
///
/// # Errors
/// Where the store cannot be written.
pub fn book_due(writer: &mut Writer<'_>, policy: &QuotaPolicy) -> Result<bool> {
    let users = store_of::due_users(writer, USERS_OF_A_PASS)?;
    for user in &users {
        book_ends(writer, policy, *user)?;
    }
    Ok(users.len() == USERS_OF_A_PASS)
}

/// Takes away a slice of the memories whose end is booked. Tells whether there may be more.
///
/// # Errors
/// Where the store cannot be written.
pub fn purge(writer: &mut Writer<'_>) -> Result<bool> {
    Ok(store_of::purge_ended(writer, PURGE_MEMORIES, PURGE_TEXT_BYTES)? > 0)
}
