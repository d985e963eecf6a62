//! What imported memories are known again by.

use rusqlite::params;

use super::MemoryKey;
use crate::domain::Result;
use crate::domain::auth::UserKey;
use crate::domain::memory::transfer::Source;
use crate::store::{Reader, Writer, fault};

/// Whether a living memory of `user` was imported from `source`.
pub(crate) fn has_source(reader: &Reader<'_>, user: UserKey, source: Source) -> Result<bool> {
    let mut statement = reader.prepare(
        "SELECT EXISTS (SELECT 1 FROM memories INDEXED BY memories_source WHERE user_id = ?1 AND source = ?2 \
         AND (expires_at IS NULL OR expires_at > ?3))",
    )?;
    statement.query_row(params![user.0, source.0, reader.now().0], |row| row.get(0)).map_err(fault)
}

/// Takes `source` from a memory that has ended and is not yet taken away, so that another can have it.
pub(crate) fn release_source(writer: &mut Writer<'_>, user: UserKey, source: Source) -> Result<()> {
    let now = writer.now();
    writer.execute(
        "UPDATE memories INDEXED BY memories_source SET source = NULL WHERE user_id = ?1 AND source = ?2 \
         AND expires_at <= ?3",
        params![user.0, source.0, now.0],
    )?;
    Ok(())
}

/// Notes what a memory was imported from too, where it has no source of its own.
pub(crate) fn note_source(writer: &mut Writer<'_>, memory: MemoryKey, source: Source) -> Result<()> {
    let sql = "UPDATE memories SET source = ?2 WHERE id = ?1 AND source IS NULL";
    writer.execute(sql, params![memory.0, source.0]).map(drop)
}
