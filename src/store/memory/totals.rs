//! What users hold by tier, and the ends of memories: booked set-wise, purged later.

use rusqlite::{OptionalExtension, params};

use super::{code_of, memory_of};
use crate::domain::Result;
use crate::domain::auth::UserKey;
use crate::domain::memory::{MemoryKey, MemoryTier};
use crate::domain::unit::Timestamp;
use crate::store::{Reader, Writer, fault, sql_number};

/// Sums over memories; differences may be negative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Amounts {
    /// How many.
    pub(crate) memories: i64,
    /// What they count with.
    pub(crate) size_bytes: i64,
    /// Bytes of their texts.
    pub(crate) text_bytes: i64,
}

impl Amounts {
    /// The difference the other way.
    pub(crate) const fn negated(self) -> Self {
        Self { memories: -self.memories, size_bytes: -self.size_bytes, text_bytes: -self.text_bytes }
    }

    /// The sum.
    pub(crate) const fn plus(self, other: Self) -> Self {
        Self {
            memories: self.memories + other.memories,
            size_bytes: self.size_bytes + other.size_bytes,
            text_bytes: self.text_bytes + other.text_bytes,
        }
    }
}

/// What a user holds of a tier, by the totals: what has ended without having been booked still counts.
pub(crate) fn held_of_tier(reader: &Reader<'_>, user: UserKey, tier: MemoryTier) -> Result<Amounts> {
    let mut statement = reader
        .prepare("SELECT memories, size_bytes, text_bytes FROM memory_totals WHERE user_id = ?1 AND tier = ?2")?;
    let found = statement.query_row(params![user.0, code_of(tier)], |row| {
        Ok(Amounts { memories: row.get(0)?, size_bytes: row.get(1)?, text_bytes: row.get(2)? })
    });
    Ok(found.optional().map_err(fault)?.unwrap_or_default())
}

/// What a user holds now, in the order of `MemoryTier::ALL`: what has ended does not count, booked or not.
pub(crate) fn held(reader: &Reader<'_>, user: UserKey) -> Result<[Amounts; 3]> {
    let mut held = ended(reader, user)?;
    for (tier, held) in MemoryTier::ALL.into_iter().zip(&mut held) {
        *held = held_of_tier(reader, user, tier)?.plus(held.negated());
    }
    Ok(held)
}

/// Adds to what a user holds of a tier.
pub(crate) fn add_held(writer: &mut Writer<'_>, user: UserKey, tier: MemoryTier, more: Amounts) -> Result<()> {
    if more == Amounts::default() {
        return Ok(());
    }
    let changed = writer.execute(
        "UPDATE memory_totals SET memories = memories + ?3, size_bytes = size_bytes + ?4, text_bytes = text_bytes + ?5 \
         WHERE user_id = ?1 AND tier = ?2",
        params![user.0, code_of(tier), more.memories, more.size_bytes, more.text_bytes],
    )?;
    if changed == 0 {
        writer.execute(
            "INSERT INTO memory_totals (user_id, tier, memories, size_bytes, text_bytes) VALUES (?1, ?2, ?3, ?4, ?5)",
            params![user.0, code_of(tier), more.memories, more.size_bytes, more.text_bytes],
        )?;
    }
    Ok(())
}

/// The instant up to which the ends of a user's memories are booked.
pub(crate) fn booked_until(reader: &Reader<'_>, user: UserKey) -> Result<Timestamp> {
    let mut statement = reader.prepare("SELECT booked_until FROM memory_expiry WHERE user_id = ?1")?;
    let found = statement.query_row([user.0], |row| row.get(0)).optional().map_err(fault)?;
    Ok(Timestamp(found.unwrap_or(0)))
}

/// What has ended by now and is not booked, in the order of `MemoryTier::ALL`. Reads an index alone.
pub(crate) fn ended(reader: &Reader<'_>, user: UserKey) -> Result<[Amounts; 3]> {
    let booked_until = booked_until(reader, user)?;
    let mut statement = reader.prepare(
        "SELECT tier, count(*), sum(size_bytes), sum(text_bytes) FROM memories INDEXED BY memories_expiry \
         WHERE user_id = ?1 AND expires_at > ?2 AND expires_at <= ?3 GROUP BY tier",
    )?;
    let mut rows = statement.query(params![user.0, booked_until.0, reader.now().0]).map_err(fault)?;
    let mut ended = [Amounts::default(); 3];
    while let Some(row) = rows.next().map_err(fault)? {
        let mut read = || -> rusqlite::Result<()> {
            if let Some(held) = ended.get_mut(usize::from(row.get::<_, u8>(0)?)) {
                *held = Amounts { memories: row.get(1)?, size_bytes: row.get(2)?, text_bytes: row.get(3)? };
            }
            Ok(())
        };
        read().map_err(fault)?;
    }
    Ok(ended)
}

/// Takes what has ended by now from the totals, and notes that it is booked. The level is the caller's to book.
pub(crate) fn book_ends(writer: &mut Writer<'_>, user: UserKey, ended: &[Amounts; 3]) -> Result<()> {
    for (tier, held) in MemoryTier::ALL.into_iter().zip(ended) {
        add_held(writer, user, tier, held.negated())?;
    }
    let now = writer.now();
    writer.execute(
        "INSERT INTO memory_expiry (user_id, booked_until) VALUES (?1, ?2) \
         ON CONFLICT DO UPDATE SET booked_until = max(booked_until, excluded.booked_until)",
        [user.0, now.0],
    )?;
    Ok(())
}

/// Up to `limit` users with memories that have ended and are not booked.
pub(crate) fn due_users(reader: &Reader<'_>, limit: usize) -> Result<Vec<UserKey>> {
    // From user to user by the index, so that it costs a step a user, however many memories wait for their end.
    let mut statement = reader.prepare(
        "WITH RECURSIVE holders (id) AS ( \
             SELECT min(user_id) FROM memories WHERE expires_at IS NOT NULL \
             UNION ALL \
             SELECT (SELECT min(user_id) FROM memories WHERE expires_at IS NOT NULL AND user_id > holders.id) \
             FROM holders WHERE holders.id IS NOT NULL) \
         SELECT id FROM holders WHERE id IS NOT NULL AND EXISTS ( \
             SELECT 1 FROM memories WHERE user_id = holders.id AND expires_at <= ?1 \
             AND expires_at > coalesce((SELECT booked_until FROM memory_expiry WHERE user_id = holders.id), 0)) \
             AND id NOT IN (SELECT user_id FROM erasures WHERE finished_at IS NULL) LIMIT ?2",
    )?;
    let limit = sql_number(limit);
    let rows = statement.query_map([reader.now().0, limit], |row| row.get(0).map(UserKey));
    rows.and_then(Iterator::collect).map_err(fault)
}

/// Takes away those of `ended` that are there and whose end is booked, but no more than about `text_bytes` of text.
pub(crate) fn purge_ended(writer: &mut Writer<'_>, ended: &[(UserKey, MemoryKey)], text_bytes: usize) -> Result<()> {
    let sql = concat!(
        "SELECT ",
        super::memory_columns!(),
        " FROM memories WHERE id = ?1 AND user_id = ?2 \
         AND expires_at <= (SELECT booked_until FROM memory_expiry WHERE user_id = ?2)"
    );
    let mut bytes = 0_usize;
    for (user, key) in ended {
        let found = writer.prepare(sql)?.query_row([key.0, user.0], memory_of).optional().map_err(fault)?;
        let Some(memory) = found else { continue };
        bytes = bytes.saturating_add(memory.content.text.len());
        super::delete(writer, *user, &memory)?;
        if bytes >= text_bytes {
            break;
        }
    }
    Ok(())
}

/// Up to `limit` memories whose end is booked, each with its user.
pub(crate) fn list_ended(reader: &Reader<'_>, limit: usize) -> Result<Vec<(UserKey, MemoryKey)>> {
    let mut statement = reader.prepare(
        "SELECT memories.user_id, memories.id FROM memory_expiry CROSS JOIN memories INDEXED BY memories_expiry \
         ON memories.user_id = memory_expiry.user_id AND memories.expires_at <= memory_expiry.booked_until LIMIT ?1",
    )?;
    let limit = sql_number(limit);
    let rows = statement.query_map([limit], |row| Ok((UserKey(row.get(0)?), MemoryKey(row.get(1)?))));
    rows.and_then(Iterator::collect).map_err(fault)
}
