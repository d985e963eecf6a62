//! Candidates of a search, and how well they answer by words and by meaning.

use rusqlite::{CachedStatement, params};
use serde_json::Value;

use super::index::{date_term, memory_of_vector, text_term, vector_ids};
use super::{code_of, metadata_of, tags_of};
use crate::domain::Result;
use crate::domain::auth::UserKey;
use crate::domain::memory::{
    Around, Corpus, Embedding, Filter, MemoryKey, WordRows, WordScores, dot_of_bytes, is_same_run, link, word_scores,
};
use crate::domain::unit::Timestamp;
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

/// How well each candidate answers by the words of `query`, alone and with those `around` it. With `dated`, the words of a
/// memory's day count as words of its text. None where the query has no words.
pub(crate) fn keyword_scores(
    reader: &Reader<'_>,
    user: UserKey,
    candidates: &[Candidate],
    query: &str,
    dated: bool,
    around: &[Around],
) -> Result<Option<WordScores>> {
    let words = query_words(query);
    if words.is_empty() {
        return Ok(None);
    }
    let corpus = super::held(reader, user)?.into_iter().fold(Corpus::default(), |corpus, held| Corpus {
        memories: corpus.memories.saturating_add(held.memories),
        text_bytes: corpus.text_bytes.saturating_add(held.text_bytes),
    });
    let mut found = Vec::with_capacity(words.len());
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
        let mut counts = Vec::with_capacity(rows.len().min(candidates.len()));
        let mut position = 0;
        for (memory, count) in &rows {
            position += candidates.get(position..).unwrap_or_default().partition_point(|other| other.key.0 < *memory);
            let Some(candidate) = candidates.get(position) else { break };
            if candidate.key.0 == *memory {
                counts.push((position, *count));
            }
        }
        found.push(WordRows { memories_with_it: rows.len(), counts });
    }
    let text_bytes: Vec<i64> = candidates.iter().map(|candidate| candidate.text_bytes).collect();
    Ok(Some(word_scores(corpus, &text_bytes, &found, around)))
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

/// Which candidates stand around each in its conversation, by time: its session, or where it has none, what the user has
/// without a session and without a long silence in between.
pub(crate) fn around(reader: &Reader<'_>, user: UserKey, candidates: &[Candidate]) -> Result<Vec<Around>> {
    let mut statement = reader.prepare(
        "SELECT id, session, timestamp FROM memories INDEXED BY memories_session WHERE user_id = ?1 \
         ORDER BY session, timestamp, id",
    )?;
    let mut rows = statement.query([user.0]).map_err(fault)?;
    let mut around = vec![Around::default(); candidates.len()];
    let mut run: Vec<Option<usize>> = Vec::new();
    let mut session: Option<String> = None;
    let mut before = Timestamp::default();
    while let Some(row) = rows.next().map_err(fault)? {
        let key = MemoryKey(row.get(0).map_err(fault)?);
        let of = row.get_ref(1).and_then(|value| Ok(value.as_str_or_null()?)).map_err(fault)?;
        let at = Timestamp(row.get(2).map_err(fault)?);
        if of != session.as_deref() || (of.is_none() && !is_same_run(before, at)) {
            link(&run, &mut around);
            run.clear();
            session = of.map(str::to_owned);
        }
        before = at;
        run.push(candidates.binary_search_by_key(&key, |candidate| candidate.key).ok());
    }
    link(&run, &mut around);
    Ok(around)
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
