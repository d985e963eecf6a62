//! Candidates of a search, and how well they answer by words and by meaning.

use rusqlite::{CachedStatement, params};
use serde_json::Value;

use super::index::{date_term, memory_of_vector, text_term, vector_ids};
use super::{code_of, metadata_of, tags_of};
use crate::domain::Result;
use crate::domain::auth::UserKey;
use crate::domain::memory::{Corpus, Embedding, Filter, MemoryKey, bm25, dot_of_bytes};
use crate::domain::words::query_words;
use crate::store::{Reader, fault};

/// A memory that passes a search's filter.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate {
    /// The memory.
    pub(crate) key: MemoryKey,
    text_bytes: i64,
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

fn restricts(filter: &Filter) -> bool {
    let Filter { tiers, kinds, tags, metadata, session, created_after, created_before, after, before } = filter;
    let times = [created_after, created_before, after, before];
    !(tiers.is_empty() && kinds.is_empty() && tags.is_empty() && metadata.is_empty() && session.is_none())
        || times.into_iter().any(Option::is_some)
}

/// The living memories of `user` that pass `filter`, in the order of their handles.
pub(crate) fn candidates(reader: &Reader<'_>, user: UserKey, filter: &Filter) -> Result<Vec<Candidate>> {
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
    let sql = concat!(
        "SELECT id, text_bytes, tags, metadata FROM memories INDEXED BY memories_user \
         WHERE user_id = ?1 AND (expires_at IS NULL OR expires_at > ?2) ",
        filter_columns!(),
        " ORDER BY id"
    );
    let mut statement = reader.prepare(sql)?;
    bind_filter(&mut statement, reader, user, filter)?;
    let mut rows = statement.raw_query();
    let mut found = Vec::new();
    while let Some(row) = rows.next().map_err(fault)? {
        let mut read = || -> rusqlite::Result<()> {
            let tags = if filter.tags.is_empty() { Vec::new() } else { tags_of(row.get_ref(2)?.as_str_or_null()?) };
            let metadata = row.get_ref(3)?.as_str_or_null()?.filter(|_| !filter.metadata.is_empty());
            if filter.passes(&tags, &metadata_of(metadata)) {
                found.push(Candidate { key: MemoryKey(row.get(0)?), text_bytes: row.get(1)? });
            }
            Ok(())
        };
        read().map_err(fault)?;
    }
    Ok(found)
}

/// BM25 of each candidate for the words of `query`, over the best of them: 0 to 1, 0 where no word is in it. With `dated`,
/// the words of a memory's day count as words of its text. None where the query has no words.
pub(crate) fn keyword_scores(
    reader: &Reader<'_>,
    user: UserKey,
    candidates: &[Candidate],
    query: &str,
    dated: bool,
) -> Result<Option<Vec<f32>>> {
    let words = query_words(query);
    if words.is_empty() {
        return Ok(None);
    }
    let corpus = super::held(reader, user)?.into_iter().fold(Corpus::default(), |corpus, held| Corpus {
        memories: corpus.memories.saturating_add(held.memories),
        text_bytes: corpus.text_bytes.saturating_add(held.text_bytes),
    });
    let mut scores = vec![0.0_f32; candidates.len()];
    let mut rows: Vec<(i64, u32)> = Vec::new();
    for word in &words {
        rows.clear();
        collect_rows(reader, &text_term(user, word), &mut rows)?;
        if dated {
            collect_rows(reader, &date_term(user, word), &mut rows)?;
            rows.sort_unstable_by_key(|(memory, _)| *memory);
            rows.dedup_by(|next, kept| {
                let same = next.0 == kept.0;
                kept.1 += if same { next.1 } else { 0 };
                same
            });
        }
        // Both are in the order of the memories' handles.
        let mut position = 0;
        for (memory, count) in &rows {
            position += candidates.get(position..).unwrap_or_default().partition_point(|other| other.key.0 < *memory);
            let Some(candidate) = candidates.get(position) else { break };
            if candidate.key.0 == *memory
                && let Some(score) = scores.get_mut(position)
            {
                *score += bm25(corpus, rows.len(), *count, candidate.text_bytes);
            }
        }
    }
    let best = scores.iter().copied().fold(0.0, f32::max);
    if best > 0.0 {
        for score in &mut scores {
            *score /= best;
        }
    }
    Ok(Some(scores))
}

/// The memories that hold a term, in the order of their handles, with how often.
fn collect_rows(reader: &Reader<'_>, term: &str, rows: &mut Vec<(i64, u32)>) -> Result<()> {
    let begin = rows.len();
    let mut statement = reader.prepare("SELECT doc FROM word_rows WHERE term = ?1")?;
    let mut found = statement.query([term]).map_err(fault)?;
    while let Some(row) = found.next().map_err(fault)? {
        let memory = row.get(0).map_err(fault)?;
        match rows.last_mut() {
            Some((last, count)) if *last == memory => *count += 1,
            _ => rows.push((memory, 1)),
        }
    }
    debug_assert!(rows[begin..].is_sorted_by_key(|(memory, _)| *memory), "a term's rows come in order");
    Ok(())
}

/// Pairs of candidates, by their positions, that follow each other in a session by time.
pub(crate) fn session_pairs(
    reader: &Reader<'_>,
    user: UserKey,
    candidates: &[Candidate],
) -> Result<Vec<(usize, usize)>> {
    let mut statement = reader.prepare(
        "SELECT id, session FROM memories INDEXED BY memories_session WHERE user_id = ?1 AND session IS NOT NULL \
         ORDER BY session, timestamp, id",
    )?;
    let mut rows = statement.query([user.0]).map_err(fault)?;
    let mut pairs = Vec::new();
    let (mut session, mut before) = (String::new(), None);
    while let Some(row) = rows.next().map_err(fault)? {
        let key = MemoryKey(row.get(0).map_err(fault)?);
        let of = row.get_ref(1).and_then(|value| Ok(value.as_str()?)).map_err(fault)?;
        if of != session {
            of.clone_into(&mut session);
            before = None;
        }
        let position = candidates.binary_search_by_key(&key, |candidate| candidate.key).ok();
        pairs.extend(before.zip(position));
        before = position;
    }
    Ok(pairs)
}

/// The cosine of each candidate with the nearest of `queries`, by its best window: -1 to 1.
pub(crate) fn cosines(reader: &Reader<'_>, candidates: &[Candidate], queries: &[Embedding]) -> Result<Vec<f32>> {
    let mut cosines = vec![-1.0_f32; candidates.len()];
    let best =
        |stored: &[u8]| queries.iter().map(|query| dot_of_bytes(query.as_array(), stored)).fold(-1.0_f32, f32::max);
    let (Some(first), Some(last)) = (candidates.first(), candidates.last()) else { return Ok(cosines) };
    let span = last.key.0 - first.key.0;
    // Where most of the memories in between are candidates, to walk past the others costs less than to look each one up.
    if span < 4 * i64::try_from(candidates.len()).unwrap_or(i64::MAX) {
        let mut statement =
            reader.prepare("SELECT id, embedding FROM vectors WHERE id BETWEEN ?1 AND ?2 ORDER BY id")?;
        let range = [vector_ids(first.key.0).0, vector_ids(last.key.0).1];
        let mut rows = statement.query(range).map_err(fault)?;
        let mut position = 0;
        while let Some(row) = rows.next().map_err(fault)? {
            let memory = memory_of_vector(row.get(0).map_err(fault)?);
            while candidates.get(position).is_some_and(|candidate| candidate.key.0 < memory) {
                position += 1;
            }
            let (Some(candidate), Some(cosine)) = (candidates.get(position), cosines.get_mut(position)) else { break };
            if candidate.key.0 == memory {
                let stored = row.get_ref(1).and_then(|value| Ok(value.as_blob()?)).map_err(fault)?;
                *cosine = cosine.max(best(stored));
            }
        }
        return Ok(cosines);
    }
    let mut statement = reader.prepare("SELECT embedding FROM vectors WHERE id BETWEEN ?1 AND ?2")?;
    for (candidate, cosine) in candidates.iter().zip(&mut cosines) {
        let (first, last) = vector_ids(candidate.key.0);
        let mut rows = statement.query([first, last]).map_err(fault)?;
        while let Some(row) = rows.next().map_err(fault)? {
            let stored = row.get_ref(0).and_then(|value| Ok(value.as_blob()?)).map_err(fault)?;
            *cosine = cosine.max(best(stored));
        }
    }
    Ok(cosines)
}
