//! The ends of memories: booked for a user at once, taken away in slices.

use serde_json::json;

use super::super::quota::Policy as QuotaPolicy;
use super::book;
use crate::domain::Result;
use crate::domain::auth::UserKey;
use crate::domain::memory::MemoryKey;
use crate::store::{Reader, Writer};
use crate::store::{erasure, memory as store_of};

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

/// Some users with memories that have ended and are not booked; none when there are no more.
///
/// # Errors
/// Where the store cannot be read.
pub fn due_users(reader: &Reader<'_>) -> Result<Vec<UserKey>> {
    store_of::due_users(reader, USERS_OF_A_PASS)
}

/// Books the ends of the memories of `users`, but of those who are being erased.
///
/// # Errors
/// Where the store cannot be written.
pub fn book_due(writer: &mut Writer<'_>, policy: &QuotaPolicy, users: &[UserKey]) -> Result<()> {
    for user in users {
        if !erasure::is_begun(writer, *user)? {
            book_ends(writer, policy, *user)?;
        }
    }
    Ok(())
}

/// Some memories whose end is booked; none when there are no more.
///
/// # Errors
/// Where the store cannot be read.
pub fn list_ended(reader: &Reader<'_>) -> Result<Vec<(UserKey, MemoryKey)>> {
    store_of::list_ended(reader, PURGE_MEMORIES)
}

/// Takes away those of `ended` that are there and whose end is booked, but no more than about as much text as one write should.
///
/// # Errors
/// Where the store cannot be written.
pub fn purge(writer: &mut Writer<'_>, ended: &[(UserKey, MemoryKey)]) -> Result<()> {
    store_of::purge_ended(writer, ended, PURGE_TEXT_BYTES)
}
