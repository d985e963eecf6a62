//! What indexes and totals are made anew from: the memories, which alone count.

use rusqlite::params;

use super::index::{self, memory_of_vector};
use super::memory_of;
use crate::domain::Result;
use crate::domain::auth::UserKey;
use crate::domain::memory::Memory;
use crate::domain::words::index_words;
use crate::store::{Reader, Writer, fault, sql_number};

/// What the totals of memories must be: sums over those whose end is not booked.
macro_rules! memory_sums {
    () => {
        "SELECT m.user_id, m.tier, count(*) AS memories, sum(m.size_bytes) AS size_bytes, sum(m.text_bytes) AS text_bytes \
         FROM memories m LEFT JOIN memory_expiry x ON x.user_id = m.user_id \
         WHERE m.expires_at IS NULL OR m.expires_at > coalesce(x.booked_until, 0) GROUP BY m.user_id, m.tier"
    };
}
pub(in crate::store) use memory_sums;

/// Takes away the vectors of memories that are not there. Tells how many.
pub(crate) fn delete_lost_vectors(writer: &mut Writer<'_>) -> Result<usize> {
    writer.execute(
        "DELETE FROM vectors WHERE NOT EXISTS (SELECT 1 FROM memories WHERE memories.id = vectors.id >> 12)",
        [],
    )
}

/// The memories that have no vector, or one that is not of length 1, each with its user; up to `limit`.
pub(crate) fn list_unembedded(reader: &Reader<'_>, limit: usize) -> Result<Vec<(UserKey, Memory)>> {
    let mut lost: Vec<i64> = Vec::new();
    let mut missing = reader.prepare(
        "SELECT m.id FROM memories m WHERE NOT EXISTS (SELECT 1 FROM vectors v WHERE v.id = m.id << 12) LIMIT ?1",
    )?;
    let most = sql_number(limit);
    for key in missing.query_map([most], |row| row.get(0)).map_err(fault)? {
        lost.push(key.map_err(fault)?);
    }
    let mut wrong = reader.prepare(
        "SELECT id FROM vectors WHERE coalesce(abs(vec_distance_l2(embedding, zeroblob(1536)) - 1.0) > 0.001, 1) LIMIT ?1",
    )?;
    for vector in wrong.query_map([most], |row| row.get(0)).map_err(fault)? {
        lost.push(memory_of_vector(vector.map_err(fault)?));
    }
    lost.sort_unstable();
    lost.dedup();
    lost.truncate(limit);
    let sql = concat!("SELECT ", memory_columns!(), ", memories.user_id FROM memories WHERE id = ?1");
    let mut statement = reader.prepare(sql)?;
    let mut memories = Vec::with_capacity(lost.len());
    for key in lost {
        let found = statement.query_row([key], |row| Ok((UserKey(row.get(12)?), memory_of(row)?)));
        memories.push(found.map_err(fault)?);
    }
    Ok(memories)
}

/// Empties the full-text index.
pub(crate) fn clear_words(writer: &mut Writer<'_>) -> Result<()> {
    writer.execute("INSERT INTO words (words) VALUES ('delete-all')", []).map(drop)
}

/// Enters a memory into the full-text index, which must not hold it.
pub(crate) fn enter_words(writer: &mut Writer<'_>, user: UserKey, memory: &Memory) {
    index::insert_words(writer, user, memory.key, &index_words(&memory.content.text), &memory.content);
}

/// Makes the totals anew. Tells how many rows were wrong.
pub(crate) fn restore_totals(writer: &mut Writer<'_>) -> Result<usize> {
    const SUMS: &str = memory_sums!();
    let emptied = writer.execute(
        &format!(
            "UPDATE memory_totals SET memories = 0, size_bytes = 0, text_bytes = 0 WHERE memories + size_bytes + text_bytes > 0 \
             AND (user_id, tier) NOT IN (SELECT user_id, tier FROM ({SUMS}))"
        ),
        params![],
    )?;
    let restored = writer.execute(
        &format!(
            "INSERT INTO memory_totals (user_id, tier, memories, size_bytes, text_bytes) SELECT * FROM ({SUMS}) WHERE true \
             ON CONFLICT DO UPDATE SET memories = excluded.memories, size_bytes = excluded.size_bytes, \
             text_bytes = excluded.text_bytes WHERE (memories, size_bytes, text_bytes) <> \
             (excluded.memories, excluded.size_bytes, excluded.text_bytes)"
        ),
        params![],
    )?;
    Ok(emptied + restored)
}
