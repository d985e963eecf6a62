//! What searches read from the tables: candidates, vectors, words, sessions.

use rusqlite::types::ValueRef;
use rusqlite::{CachedStatement, params};
use serde_json::Value;

use super::index::{memory_of_vector, vector_ids};
use super::{code_of, metadata_of, tags_of};
use crate::domain::Result;
use crate::domain::auth::UserKey;
use crate::domain::memory::{Code, Filter, MemoryKey};
use crate::domain::unit::Timestamp;
use crate::store::recall::{Postings, Read, Row, Rows, SessionHash, WORD_COUNT_MAX, posting};
use crate::store::{Reader, fault, sql_number};

/// A memory that passes a search's filter.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate {
    /// The memory.
    pub(crate) key: MemoryKey,
    pub(super) text_bytes: i64,
}

/// The columns of a filter, as parameters 3 to 9 that [`bind_filter`] binds; one that is null does not restrict.
macro_rules! filter_columns {
    () => {
        "AND (?3 >> tier) & 1 AND (?4 IS NULL OR type IN (SELECT value FROM json_each(?4))) \
         AND (?5 IS NULL OR session = ?5) AND (?6 IS NULL OR created_at > ?6) AND (?7 IS NULL OR created_at < ?7) \
         AND (?8 IS NULL OR timestamp > ?8) AND (?9 IS NULL OR timestamp < ?9)"
    };
}
pub(super) use filter_columns;

/// Binds user (1), now (2) and the columns of `filter` (3 to 9).
pub(super) fn bind_filter(
    statement: &mut CachedStatement<'_>,
    reader: &Reader<'_>,
    user: UserKey,
    filter: &Filter,
) -> Result<()> {
    let tiers = filter.tiers.iter().fold(0_i64, |bits, tier| bits | 1 << code_of(*tier));
    let kinds = (!filter.kinds.is_empty()).then(|| Value::from(filter.kinds.clone()).to_string());
    let times = [filter.created_after, filter.created_before, filter.after, filter.before];
    let bind = || {
        statement.raw_bind_parameter(1, user.0)?;
        statement.raw_bind_parameter(2, reader.now().0)?;
        statement.raw_bind_parameter(3, if filter.tiers.is_empty() { 0b111 } else { tiers })?;
        statement.raw_bind_parameter(4, kinds)?;
        statement.raw_bind_parameter(5, filter.session.as_deref())?;
        for (parameter, time) in (6..).zip(times) {
            statement.raw_bind_parameter(parameter, time.map(|at| at.0))?;
        }
        Ok(())
    };
    bind().map_err(fault)
}

pub(super) fn restricts(filter: &Filter) -> bool {
    let Filter { tiers, kinds, tags, metadata, session, created_after, created_before, after, before } = filter;
    let times = [created_after, created_before, after, before];
    !(tiers.is_empty() && kinds.is_empty() && tags.is_empty() && metadata.is_empty() && session.is_none())
        || times.into_iter().any(Option::is_some)
}

/// The living memories of `user` that pass `filter`, in the order of their handles.
pub(super) fn candidates(reader: &Reader<'_>, user: UserKey, filter: &Filter) -> Result<Vec<Candidate>> {
    if !restricts(filter) {
        let mut statement = reader.prepare(
            "SELECT id, text_bytes FROM memories INDEXED BY memories_user \
             WHERE user_id = ?1 AND (expires_at IS NULL OR expires_at > ?2) ORDER BY id",
        )?;
        let rows = statement.query_map(params![user.0, reader.now().0], |row| {
            Ok(Candidate { key: MemoryKey(row.get(0)?), text_bytes: row.get(1)? })
        });
        return rows.and_then(Iterator::collect).map_err(fault);
    }
    let by_user = concat!(
        "SELECT id, text_bytes, tags, metadata FROM memories INDEXED BY memories_user \
         WHERE user_id = ?1 AND (expires_at IS NULL OR expires_at > ?2) ",
        filter_columns!(),
        " ORDER BY id"
    );
    // The rows of one session are few among all.
    let by_session = concat!(
        "SELECT id, text_bytes, tags, metadata FROM memories INDEXED BY memories_session \
         WHERE user_id = ?1 AND session = ?5 AND (expires_at IS NULL OR expires_at > ?2) ",
        filter_columns!(),
        " ORDER BY id"
    );
    let mut statement = reader.prepare(if filter.session.is_some() { by_session } else { by_user })?;
    bind_filter(&mut statement, reader, user, filter)?;
    let mut rows = statement.raw_query();
    let mut found = Vec::new();
    while let Some(row) = rows.next().map_err(fault)? {
        let mut read = || -> rusqlite::Result<()> {
            if passes(filter, row.get_ref(2)?, row.get_ref(3)?)? {
                found.push(Candidate { key: MemoryKey(row.get(0)?), text_bytes: row.get(1)? });
            }
            Ok(())
        };
        read().map_err(fault)?;
    }
    Ok(found)
}

/// Whether stored tags and metadata pass; what the filter does not ask for is not parsed.
pub(super) fn passes(filter: &Filter, tags: ValueRef<'_>, metadata: ValueRef<'_>) -> rusqlite::Result<bool> {
    let tags = tags.as_str_or_null()?.filter(|_| !filter.tags.is_empty());
    let metadata = metadata.as_str_or_null()?.filter(|_| !filter.metadata.is_empty());
    Ok(filter.passes(&tags_of(tags), &metadata_of(metadata)))
}

/// The memories that hold a term, with how often. `term` is one as the full-text index has it.
pub(super) fn read_postings(reader: &Reader<'_>, term: &str) -> Result<Postings> {
    let mut statement = reader.prepare("SELECT doc FROM word_rows WHERE term = ?1")?;
    let mut rows = statement.query([term]).map_err(fault)?;
    let mut found: Vec<(i64, u64)> = Vec::new();
    while let Some(row) = rows.next().map_err(fault)? {
        let memory = row.get(0).map_err(fault)?;
        match found.last_mut() {
            Some((last, count)) if *last == memory => *count += 1,
            _ => found.push((memory, 1)),
        }
    }
    debug_assert!(found.is_sorted_by_key(|(memory, _)| *memory), "a term's rows come in order");
    let postings: Vec<u64> = found.into_iter().map(|(memory, n)| posting(memory, n.min(WORD_COUNT_MAX))).collect();
    Ok(Postings::from_ordered(&postings))
}

/// A user's living memories session by session (those without one are one), in the order in which they follow each other:
/// whether it has a session, when it happened, its id.
pub(super) fn sessions(reader: &Reader<'_>, user: UserKey) -> Result<Vec<Vec<(bool, Timestamp, i64)>>> {
    let mut statement = reader.prepare(
        "SELECT id, session, timestamp FROM memories INDEXED BY memories_session \
         WHERE user_id = ?1 AND (expires_at IS NULL OR expires_at > ?2) ORDER BY session, timestamp, id",
    )?;
    let mut rows = statement.query(params![user.0, reader.now().0]).map_err(fault)?;
    let mut sessions: Vec<Vec<(bool, Timestamp, i64)>> = Vec::new();
    let mut before: Option<Option<String>> = None;
    while let Some(row) = rows.next().map_err(fault)? {
        let mut read = || -> rusqlite::Result<()> {
            let session = row.get_ref(1)?.as_str_or_null()?;
            if before.as_ref().is_none_or(|before| before.as_deref() != session) {
                before = Some(session.map(str::to_owned));
                sessions.push(Vec::new());
            }
            let found = (session.is_some(), Timestamp(row.get(2)?), row.get(0)?);
            sessions.last_mut().into_iter().for_each(|session| session.push(found));
            Ok(())
        };
        read().map_err(fault)?;
    }
    Ok(sessions)
}

/// Hands each stored vector of the memories `keys` (in order) to `take`, with the memory's position among them.
pub(super) fn each_vector(reader: &Reader<'_>, keys: &[i64], mut take: impl FnMut(usize, &[u8])) -> Result<()> {
    let (Some(first), Some(last)) = (keys.first(), keys.last()) else { return Ok(()) };
    let span = last - first;
    // Where most of the memories in between are meant, to walk past the others costs less than to look each one up.
    if span < 4 * sql_number(keys.len()) {
        let mut statement =
            reader.prepare("SELECT id, embedding FROM vectors WHERE id BETWEEN ?1 AND ?2 ORDER BY id")?;
        let mut rows = statement.query([vector_ids(*first).0, vector_ids(*last).1]).map_err(fault)?;
        let mut position = 0;
        while let Some(row) = rows.next().map_err(fault)? {
            let memory = memory_of_vector(row.get(0).map_err(fault)?);
            while keys.get(position).is_some_and(|key| *key < memory) {
                position += 1;
            }
            if keys.get(position) == Some(&memory) {
                take(position, row.get_ref(1).and_then(|value| Ok(value.as_blob()?)).map_err(fault)?);
            }
        }
        return Ok(());
    }
    let mut statement = reader.prepare("SELECT embedding FROM vectors WHERE id BETWEEN ?1 AND ?2")?;
    for (position, key) in keys.iter().enumerate() {
        let (first, last) = vector_ids(*key);
        let mut rows = statement.query([first, last]).map_err(fault)?;
        while let Some(row) = rows.next().map_err(fault)? {
            take(position, row.get_ref(0).and_then(|value| Ok(value.as_blob()?)).map_err(fault)?);
        }
    }
    Ok(())
}

/// How many rows a user's memories are, ended ones included.
pub(super) fn count_rows(reader: &Reader<'_>, user: UserKey) -> Result<usize> {
    let mut statement = reader.prepare("SELECT count(*) FROM memories INDEXED BY memories_user WHERE user_id = ?1")?;
    let count: i64 = statement.query_row([user.0], |row| row.get(0)).map_err(fault)?;
    Ok(usize::try_from(count).unwrap_or_default())
}

/// All of a user's memories, ended ones included, as the index in memory keeps them; unless that takes more than
/// `bytes_max`.
pub(super) fn read_rows(reader: &Reader<'_>, user: UserKey, bytes_max: usize) -> Result<Read> {
    /// Memories whose vectors are read at once.
    const SLICE: usize = 4_096;
    let memories = count_rows(reader, user)?;
    if memories.saturating_mul(size_of::<Row>() + size_of::<Code>()) > bytes_max {
        return Ok(Read::TooMany { memories });
    }
    let mut found = read_places(reader, user, memories)?;
    let mut statement = reader
        .prepare("SELECT id, text_bytes FROM memories INDEXED BY memories_user WHERE user_id = ?1 ORDER BY id")?;
    let lengths = statement.query_map([user.0], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, u32>(1)?)));
    for (row, length) in found.iter_mut().zip(lengths.map_err(fault)?) {
        let (key, text_bytes) = length.map_err(fault)?;
        debug_assert_eq!(row.key, key, "both indexes hold every memory");
        row.text_bytes = text_bytes;
    }
    let mut rows = Rows::default();
    for slice in found.chunks(SLICE) {
        let keys: Vec<i64> = slice.iter().map(|row| row.key).collect();
        let mut codes: Vec<Vec<Code>> = vec![Vec::new(); slice.len()];
        each_vector(reader, &keys, |position, stored| {
            if let Some(codes) = codes.get_mut(position) {
                codes.push(Code::of_bytes(stored));
            }
        })?;
        for (row, codes) in slice.iter().zip(codes) {
            rows.put(*row, Some(&codes));
        }
        if rows.size_bytes() > bytes_max {
            return Ok(Read::TooMany { memories });
        }
    }
    Ok(Read::Rows(rows))
}

/// A user's memories in the order of their handles, without their lengths, from an index alone.
fn read_places(reader: &Reader<'_>, user: UserKey, memories: usize) -> Result<Vec<Row>> {
    let mut statement = reader.prepare(
        "SELECT id, session, timestamp, expires_at FROM memories INDEXED BY memories_session WHERE user_id = ?1",
    )?;
    let mut found = statement.query([user.0]).map_err(fault)?;
    let mut rows = Vec::with_capacity(memories);
    while let Some(row) = found.next().map_err(fault)? {
        let read = || -> rusqlite::Result<Row> {
            Ok(Row {
                key: row.get(0)?,
                session: SessionHash::of(row.get_ref(1)?.as_str_or_null()?),
                timestamp: Timestamp(row.get(2)?),
                expires_at: row.get::<_, Option<i64>>(3)?.map(Timestamp),
                text_bytes: 0,
            })
        };
        rows.push(read().map_err(fault)?);
    }
    rows.sort_unstable_by_key(|row| row.key);
    Ok(rows)
}
