//! Memories as rows, with their vectors and words.

/// Columns of a memory, in the order that [`memory_of`] reads.
macro_rules! memory_columns {
    () => {
        "memories.id, memories.tier, memories.type, memories.text, memories.tags, memories.metadata, memories.session, \
         memories.timestamp, memories.created_at, memories.last_seen_at, memories.expires_at, memories.size_bytes"
    };
}
use memory_columns;

/// The living memories of a user that pass the columns of a filter, found by the user or, where the filter names one, by the
/// session: its rows are few among all. `$rest` says from where on, and in what order.
macro_rules! memories_by {
    (user, $rest:literal) => {
        memories_by!("memories_user WHERE user_id = ?1", $rest)
    };
    (session, $rest:literal) => {
        memories_by!("memories_session WHERE user_id = ?1 AND session = ?5", $rest)
    };
    ($place:literal, $rest:literal) => {
        concat!(
            "SELECT ",
            memory_columns!(),
            " FROM memories INDEXED BY ",
            $place,
            " AND (expires_at IS NULL OR expires_at > ?2) ",
            search::filter_columns!(),
            $rest
        )
    };
}

mod field;
mod index;
mod repair;
mod search;
mod source;
mod totals;

use rusqlite::{CachedStatement, OptionalExtension, Row, params};
use serde_json::{Map, Value};

use super::id::{self, Table};
use super::recall::Change;
use super::{Reader, Writer, fault, sql_number};
use crate::domain::auth::UserKey;
use crate::domain::memory::{
    Content, Filter, Groundwork, Memory, MemoryKey, MemoryTier, NewMemory, content_hash, json_of_metadata,
    json_of_tags, normalised_text,
};
use crate::domain::unit::{MemoryId, Timestamp};
use crate::domain::words::index_words;
use crate::domain::{Error, Result};

pub(crate) use field::{Around, Field};
pub(crate) use index::{
    count_commit, find_setting, has_vectors, load_embeddings, merge_words, pack_vectors, replace_vectors, set_setting,
    write_words,
};
pub(super) use repair::memory_sums;
pub(crate) use repair::{clear_words, delete_lost_vectors, enter_words, list_unembedded, restore_totals};
pub(crate) use source::{has_source, note_source, release_source};
pub(crate) use totals::{
    Amounts, add_held, book_ends, booked_until, due_users, ended, held, held_of_tier, list_ended, purge_ended,
};

/// A tier as a number.
const fn code_of(tier: MemoryTier) -> i64 {
    match tier {
        MemoryTier::Short => 0,
        MemoryTier::Intermediate => 1,
        MemoryTier::Long => 2,
    }
}

const fn tier_of(code: i64) -> MemoryTier {
    match code {
        0 => MemoryTier::Short,
        1 => MemoryTier::Intermediate,
        _ => MemoryTier::Long,
    }
}

fn memory_of(row: &Row<'_>) -> rusqlite::Result<Memory> {
    let (key, created_at) = (row.get(0)?, Timestamp(row.get(8)?));
    Ok(Memory {
        key: MemoryKey(key),
        id: MemoryId(id::encode(Table::Memories, created_at, key)),
        content: Content {
            tier: tier_of(row.get(1)?),
            kind: row.get(2)?,
            text: row.get(3)?,
            tags: tags_of(row.get_ref(4)?.as_str_or_null()?),
            metadata: metadata_of(row.get_ref(5)?.as_str_or_null()?),
            session: row.get(6)?,
            timestamp: Timestamp(row.get(7)?),
        },
        created_at,
        last_seen_at: row.get::<_, Option<i64>>(9)?.map(Timestamp),
        expires_at: row.get::<_, Option<i64>>(10)?.map(Timestamp),
        size_bytes: row.get(11)?,
    })
}

/// Stored tags. What we wrote parses; anything else would be a corrupt row, which `check` finds.
fn tags_of(json: Option<&str>) -> Vec<String> {
    json.and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default()
}

fn metadata_of(json: Option<&str>) -> Map<String, Value> {
    json.and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default()
}

fn text_bytes(content: &Content) -> i64 {
    sql_number(content.text.len())
}

/// Writes a memory with its vectors and words. What it counts with is booked by the caller, in the same transaction.
pub(crate) fn insert(
    writer: &mut Writer<'_>,
    user: UserKey,
    new: NewMemory,
    size_bytes: i64,
    expires_at: Option<Timestamp>,
) -> Result<Memory> {
    let now = writer.now();
    let content = new.content;
    let row = writer.insert(
        "INSERT INTO memories (user_id, tier, type, text, tags, metadata, session, timestamp, created_at, expires_at, \
         size_bytes, text_bytes, content_hash, source) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
        params![
            user.0,
            code_of(content.tier),
            content.kind,
            content.text,
            json_of_tags(&content),
            json_of_metadata(&content),
            content.session,
            content.timestamp.0,
            now.0,
            expires_at.map(|at| at.0),
            size_bytes,
            text_bytes(&content),
            content_hash(&content),
            new.source.map(|source| source.0),
        ],
    )?;
    let key = MemoryKey(row);
    index::insert_vectors(writer, key, &new.embeddings)?;
    index::insert_words(writer, user, key, &new.words, &content);
    let memory = Memory {
        key,
        id: MemoryId(id::encode(Table::Memories, now, row)),
        content,
        created_at: now,
        last_seen_at: None,
        expires_at,
        size_bytes,
    };
    index::note_put(writer, user, &memory, Some(&new.embeddings));
    Ok(memory)
}

/// Puts `after` in the place of `before`, with new vectors where there are some. `made`: what was made of both beforehand.
pub(crate) fn update(
    writer: &mut Writer<'_>,
    user: UserKey,
    before: &Memory,
    after: &Memory,
    made: &Groundwork,
) -> Result<()> {
    let content = &after.content;
    writer.execute(
        "UPDATE memories SET tier = ?2, type = ?3, text = ?4, tags = ?5, metadata = ?6, session = ?7, timestamp = ?8, \
         last_seen_at = ?9, expires_at = ?10, size_bytes = ?11, text_bytes = ?12, content_hash = ?13 WHERE id = ?1",
        params![
            before.key.0,
            code_of(content.tier),
            content.kind,
            content.text,
            json_of_tags(content),
            json_of_metadata(content),
            content.session,
            content.timestamp.0,
            after.last_seen_at.map(|at| at.0),
            after.expires_at.map(|at| at.0),
            after.size_bytes,
            text_bytes(content),
            content_hash(content),
        ],
    )?;
    let embeddings = made.embeddings.as_deref();
    if let Some(embeddings) = embeddings {
        replace_vectors(writer, before.key, embeddings)?;
    }
    if before.content.text != content.text || before.content.timestamp != content.timestamp {
        index::delete_words(writer, user, before.key, &made.words_of(&before.content.text), &before.content);
        index::insert_words(writer, user, before.key, &made.words_of(&content.text), content);
    }
    index::note_put(writer, user, after, embeddings);
    Ok(())
}

/// Takes a memory away with its vectors and words.
pub(crate) fn delete(writer: &mut Writer<'_>, user: UserKey, memory: &Memory) -> Result<()> {
    index::delete_words(writer, user, memory.key, &index_words(&memory.content.text), &memory.content);
    index::delete_vectors(writer, memory.key)?;
    writer.execute("DELETE FROM memories WHERE id = ?1", [memory.key.0])?;
    writer.effects.memories.push((user, Change::Remove { key: memory.key.0 }));
    Ok(())
}

/// Takes away up to `limit` memories of a user who is being erased, ended ones too, but no more than about `text_bytes` of
/// text, and tells how many; after the last one, what counts them. Nothing is booked, and nothing is told to the index in main
/// memory, which has forgotten the user.
pub(crate) fn erase_some(writer: &mut Writer<'_>, user: UserKey, limit: usize, text_bytes: usize) -> Result<usize> {
    let sql = concat!("SELECT ", memory_columns!(), " FROM memories WHERE user_id = ?1 ORDER BY id LIMIT 1");
    let before = writer.effects.memories.len();
    let (mut count, mut bytes) = (0, 0_usize);
    while count < limit && bytes < text_bytes {
        let next = writer.prepare(sql)?.query_row([user.0], memory_of).optional().map_err(fault)?;
        let Some(memory) = next else { break };
        bytes = bytes.saturating_add(memory.content.text.len());
        delete(writer, user, &memory)?;
        count += 1;
    }
    let changes = writer.effects.memories.split_off(before);
    index::write_words_of(writer, &changes)?;
    if count == 0 {
        writer.execute("DELETE FROM memory_totals WHERE user_id = ?1", [user.0])?;
        writer.execute("DELETE FROM memory_expiry WHERE user_id = ?1", [user.0])?;
        writer.execute("DELETE FROM memory_versions WHERE user_id = ?1", [user.0])?;
    }
    Ok(count)
}

/// The living memory of `user` with that id.
///
/// # Errors
/// `NotFound` where there is none, or it is another user's.
pub(crate) fn load(reader: &Reader<'_>, user: UserKey, id: MemoryId) -> Result<Memory> {
    const MISSING: Error = Error::NotFound("the memory");
    let wanted = id::decode(Table::Memories, id.0).ok_or(MISSING)?;
    let found = find_by_key(reader, user, MemoryKey(wanted.row))?;
    found.filter(|memory| wanted.is_of(memory.created_at)).ok_or(MISSING)
}

/// The living memory of `user` with that handle.
pub(crate) fn find_by_key(reader: &Reader<'_>, user: UserKey, key: MemoryKey) -> Result<Option<Memory>> {
    let sql = concat!(
        "SELECT ",
        memory_columns!(),
        " FROM memories WHERE id = ?1 AND user_id = ?2 AND (expires_at IS NULL OR expires_at > ?3)"
    );
    reader.prepare(sql)?.query_row(params![key.0, user.0, reader.now().0], memory_of).optional().map_err(fault)
}

/// The oldest living memory of the same tier, type and session whose normalised text is that of `content`.
pub(crate) fn find_duplicate(reader: &Reader<'_>, user: UserKey, content: &Content) -> Result<Option<Memory>> {
    let sql = concat!(
        "SELECT ",
        memory_columns!(),
        " FROM memories INDEXED BY memories_content WHERE user_id = ?1 AND content_hash = ?2 AND tier = ?3 AND type = ?4 \
         AND session IS ?5 AND (expires_at IS NULL OR expires_at > ?6) ORDER BY id"
    );
    let mut statement = reader.prepare(sql)?;
    let hash = content_hash(content);
    let rows = statement
        .query_map(
            params![user.0, hash, code_of(content.tier), content.kind, content.session, reader.now().0],
            memory_of,
        )
        .map_err(fault)?;
    let text = normalised_text(&content.text);
    for memory in rows {
        let memory = memory.map_err(fault)?;
        if normalised_text(&memory.content.text) == text {
            return Ok(Some(memory));
        }
    }
    Ok(None)
}

/// A page of a user's living memories that pass `filter`, newest first, of those stored before the memory `before`.
///
/// # Errors
/// `Invalid` for a `before` that is no memory's id.
pub(crate) fn list(
    reader: &Reader<'_>,
    user: UserKey,
    filter: &Filter,
    before: Option<MemoryId>,
    limit: usize,
) -> Result<Vec<Memory>> {
    let sql = match filter.session {
        Some(_) => memories_by!(session, " AND id < ?10 ORDER BY id DESC"),
        None => memories_by!(user, " AND id < ?10 ORDER BY id DESC"),
    };
    let before = before.map_or(Ok(i64::MAX), row_of)?;
    walk(reader.prepare(sql)?, reader, user, filter, before, limit)
}

/// The handles of a user's living memories that pass `filter`, in their order.
pub(crate) fn keys(reader: &Reader<'_>, user: UserKey, filter: &Filter) -> Result<Vec<MemoryKey>> {
    Ok(search::candidates(reader, user, filter)?.into_iter().map(|candidate| candidate.key).collect())
}

/// The living memory of `user` with that handle, where it passes `filter`.
pub(crate) fn find_passing(
    reader: &Reader<'_>,
    user: UserKey,
    filter: &Filter,
    key: MemoryKey,
) -> Result<Option<Memory>> {
    let sql = concat!(
        "SELECT ",
        memory_columns!(),
        " FROM memories WHERE user_id = ?1 AND (expires_at IS NULL OR expires_at > ?2) ",
        search::filter_columns!(),
        " AND id = ?10"
    );
    Ok(walk(reader.prepare(sql)?, reader, user, filter, key.0, 1)?.pop())
}

/// A page of a user's living memories that pass `filter`, oldest first, of those stored after the memory `after`.
///
/// # Errors
/// `Invalid` for an `after` that is no memory's id.
pub(crate) fn list_after(
    reader: &Reader<'_>,
    user: UserKey,
    filter: &Filter,
    after: Option<MemoryId>,
    limit: usize,
) -> Result<Vec<Memory>> {
    let sql = match filter.session {
        Some(_) => memories_by!(session, " AND id > ?10 ORDER BY id"),
        None => memories_by!(user, " AND id > ?10 ORDER BY id"),
    };
    let after = after.map_or(Ok(0), row_of)?;
    walk(reader.prepare(sql)?, reader, user, filter, after, limit)
}

fn row_of(id: MemoryId) -> Result<i64> {
    id::decode(Table::Memories, id.0).map(|row| row.row).ok_or_else(|| Error::invalid("cursor", "is not one of ours"))
}

/// The first `limit` memories that pass `filter`, in the order of `statement`, from the row `bound` on (parameter 10).
fn walk(
    mut statement: CachedStatement<'_>,
    reader: &Reader<'_>,
    user: UserKey,
    filter: &Filter,
    bound: i64,
    limit: usize,
) -> Result<Vec<Memory>> {
    search::bind_filter(&mut statement, reader, user, filter)?;
    statement.raw_bind_parameter(10, bound).map_err(fault)?;
    let mut rows = statement.raw_query();
    let mut memories = Vec::new();
    while memories.len() < limit {
        let Some(row) = rows.next().map_err(fault)? else { break };
        // What does not pass is not read further: its text may be long.
        let mut read = || -> rusqlite::Result<()> {
            if search::passes(filter, row.get_ref(4)?, row.get_ref(5)?)? {
                memories.push(memory_of(row)?);
            }
            Ok(())
        };
        read().map_err(fault)?;
    }
    Ok(memories)
}

/// The types of a user's newest memories, the most used first. Looks at 1,000 rows at most, without their texts, so it
/// costs the same however many memories there are, and needs no index that every write would have to keep.
pub(crate) fn recent_kinds(reader: &Reader<'_>, user: UserKey, limit: usize) -> Result<Vec<String>> {
    let mut statement = reader.prepare(
        "SELECT type FROM (SELECT type FROM memories INDEXED BY memories_user \
             WHERE user_id = ?1 AND (expires_at IS NULL OR expires_at > ?2) ORDER BY id DESC LIMIT 1000) \
         GROUP BY type ORDER BY count(*) DESC, type LIMIT ?3",
    )?;
    let limit = sql_number(limit);
    let rows = statement.query_map(params![user.0, reader.now().0, limit], |row| row.get(0));
    rows.and_then(Iterator::collect).map_err(fault)
}

/// Up to `count` living neighbours before and after a memory in its session, oldest first.
pub(crate) fn neighbours(reader: &Reader<'_>, user: UserKey, memory: &Memory, count: usize) -> Result<Vec<Memory>> {
    let Some(session) = &memory.content.session else { return Ok(Vec::new()) };
    let before = concat!(
        "SELECT ",
        memory_columns!(),
        " FROM memories INDEXED BY memories_session WHERE user_id = ?1 AND session = ?2 AND (timestamp, id) < (?3, ?4) \
         AND (expires_at IS NULL OR expires_at > ?5) ORDER BY timestamp DESC, id DESC LIMIT ?6"
    );
    let after = concat!(
        "SELECT ",
        memory_columns!(),
        " FROM memories INDEXED BY memories_session WHERE user_id = ?1 AND session = ?2 AND (timestamp, id) > (?3, ?4) \
         AND (expires_at IS NULL OR expires_at > ?5) ORDER BY timestamp, id LIMIT ?6"
    );
    let count = sql_number(count);
    let mut around = Vec::new();
    for sql in [before, after] {
        around.reverse();
        let mut statement = reader.prepare(sql)?;
        let parameters = params![user.0, session, memory.content.timestamp.0, memory.key.0, reader.now().0, count];
        for neighbour in statement.query_map(parameters, memory_of).map_err(fault)? {
            around.push(neighbour.map_err(fault)?);
        }
    }
    Ok(around)
}

/// How many memories of all users lie after `after`.
pub(crate) fn count_after(reader: &Reader<'_>, after: MemoryKey) -> Result<u64> {
    let mut statement = reader.prepare("SELECT count(*) FROM memories WHERE id > ?1")?;
    let count: i64 = statement.query_row([after.0], |row| row.get(0)).map_err(fault)?;
    Ok(count.unsigned_abs())
}

/// Up to `limit` memories of all users after `after`, with whose they are, in the order of their handles.
pub(crate) fn list_all(reader: &Reader<'_>, after: MemoryKey, limit: usize) -> Result<Vec<(UserKey, Memory)>> {
    let sql =
        concat!("SELECT ", memory_columns!(), ", memories.user_id FROM memories WHERE id > ?1 ORDER BY id LIMIT ?2");
    let mut statement = reader.prepare(sql)?;
    let limit = sql_number(limit);
    let rows = statement.query_map(params![after.0, limit], |row| Ok((UserKey(row.get(12)?), memory_of(row)?)));
    rows.and_then(Iterator::collect).map_err(fault)
}
