//! What a search looks at: the candidates, and how well each answers by meaning and by word. Read from the index in memory
//! where there is one, else from the tables.

use std::collections::HashMap;
use std::sync::Arc;

use super::index::{self, date_term, text_term};
use super::search::{self, Candidate};
use crate::domain::Result;
use crate::domain::auth::UserKey;
use crate::domain::memory::{
    Corpus, Embedding, Evidence, Filter, MemoryKey, RUN_REACH, Rarities, Run, WordCount, bm25, dot_of_bytes,
};
use crate::domain::unit::Timestamp;
use crate::domain::words::query_words;
use crate::store::Reader;
use crate::store::recall::{Postings, Recall, Rows, Version, WORD_COUNT_MAX, count_of, memory_of, posting};

/// The candidates of a search, in the order of their handles. Positions are positions among them.
pub(crate) struct Field<'r> {
    reader: &'r Reader<'r>,
    user: UserKey,
    candidates: Vec<Candidate>,
    is_filtered: bool,
    index: Option<Index<'r>>,
}

struct Index<'r> {
    recall: &'r Recall,
    version: Version,
    rows: Arc<Rows>,
}

/// Candidates by how well they answer.
pub(crate) struct Nearest {
    /// Positions and cosines, in the order of the positions.
    pub(crate) found: Vec<(usize, f32)>,
    /// Whether places went to memories that this snapshot does not have (the index is ahead of it), so that others may
    /// have been crowded out.
    pub(crate) is_short: bool,
}

impl<'r> Field<'r> {
    /// The living memories of `user` that pass `filter`.
    pub(crate) fn new(reader: &'r Reader<'r>, user: UserKey, filter: &Filter) -> Result<Self> {
        let index = Index::of(reader, user)?;
        let is_filtered = search::restricts(filter);
        let candidates = match &index {
            Some(index) if !is_filtered => index.candidates(reader),
            _ => search::candidates(reader, user, filter)?,
        };
        Ok(Self { reader, user, candidates, is_filtered, index })
    }

    /// As [`Field::new`], without the index in memory.
    pub(crate) fn without_index(reader: &'r Reader<'r>, user: UserKey, filter: &Filter) -> Result<Self> {
        let (candidates, is_filtered) = (search::candidates(reader, user, filter)?, search::restricts(filter));
        Ok(Self { reader, user, candidates, is_filtered, index: None })
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.candidates.len()
    }

    /// Whether it was read from the index in memory.
    pub(crate) const fn has_index(&self) -> bool {
        self.index.is_some()
    }

    /// The handle of the candidate at `position`.
    pub(crate) fn key_of(&self, position: usize) -> Option<MemoryKey> {
        self.candidates.get(position).map(|candidate| candidate.key)
    }

    /// The position of a memory, where it is a candidate.
    pub(crate) fn position_of(&self, key: MemoryKey) -> Option<usize> {
        self.candidates.binary_search_by_key(&key, |candidate| candidate.key).ok()
    }

    /// About the `count` candidates nearest to any of `queries`, and no fewer where there are so many, with their cosines.
    pub(crate) fn nearest(&self, queries: &[Embedding], count: usize) -> Result<Nearest> {
        let all = || (0..self.candidates.len()).collect::<Vec<usize>>();
        let positions = match &self.index {
            Some(index) if count < self.candidates.len() => {
                let among: Option<Vec<i64>> =
                    self.is_filtered.then(|| self.candidates.iter().map(|candidate| candidate.key.0).collect());
                let keys = index.rows.nearest(queries, self.reader.now(), among.as_deref(), count);
                keys.into_iter().filter_map(|key| self.position_of(MemoryKey(key))).collect()
            }
            _ => all(),
        };
        let is_cut = positions.len() < self.candidates.len();
        let cosines = self.cosines(&positions, queries)?;
        let mut found: Vec<(usize, f32)> =
            positions.into_iter().zip(cosines).filter_map(|(position, cosine)| Some((position, cosine?))).collect();
        let is_short = is_cut && found.len() < count;
        if found.len() > count && count > 0 {
            let nearer =
                |left: &(usize, f32), right: &(usize, f32)| right.1.total_cmp(&left.1).then(right.0.cmp(&left.0));
            found.select_nth_unstable_by(count - 1, nearer);
            found.truncate(count);
            found.sort_unstable_by_key(|(position, _)| *position);
        }
        Ok(Nearest { found, is_short })
    }

    /// The cosine of each candidate at `positions` (in order) with the nearest of `queries`, by its best window: -1 to 1.
    /// None where it has no vector in this snapshot.
    pub(crate) fn cosines(&self, positions: &[usize], queries: &[Embedding]) -> Result<Vec<Option<f32>>> {
        let keys: Vec<i64> = positions.iter().filter_map(|position| Some(self.key_of(*position)?.0)).collect();
        let mut cosines: Vec<Option<f32>> = vec![None; keys.len()];
        search::each_vector(self.reader, &keys, |position, stored| {
            let best = queries.iter().map(|query| dot_of_bytes(query.as_array(), stored)).fold(-1.0_f32, f32::max);
            if let Some(cosine) = cosines.get_mut(position) {
                *cosine = Some(cosine.map_or(best, |known| known.max(best)));
            }
        })?;
        Ok(cosines)
    }

    /// The words of `query` with the memories that hold them; none where it has no words. With `dated`, the words of a
    /// memory's day count as words of its text.
    pub(crate) fn words(&self, query: &str, dated: bool) -> Result<Option<Words>> {
        let words = query_words(query);
        if words.is_empty() {
            return Ok(None);
        }
        let corpus = super::held(self.reader, self.user)?.into_iter().fold(Corpus::default(), |corpus, held| Corpus {
            memories: corpus.memories.saturating_add(held.memories),
            text_bytes: corpus.text_bytes.saturating_add(held.text_bytes),
        });
        let mut found = Words { corpus, words: Vec::with_capacity(words.len()) };
        for word in &words {
            let in_text = self.postings(&text_term(self.user, word))?;
            let in_day = if dated { self.postings(&date_term(self.user, word))? } else { Postings::default() };
            let united = (in_day.len() > 0).then(|| unite(&in_text, &in_day));
            found.words.push(Word { in_text, in_day, united });
        }
        Ok(Some(found))
    }

    /// BM25 of each candidate, 0 where no word is in it.
    pub(crate) fn word_scores(&self, words: &Words) -> Vec<f32> {
        let mut scores = vec![0.0_f32; self.candidates.len()];
        for word in &words.words {
            match &word.united {
                Some(united) => self.add_scores(&mut scores, words.corpus, united.len(), united.iter().copied()),
                None => self.add_scores(&mut scores, words.corpus, word.in_text.len(), word.in_text.iter().copied()),
            }
        }
        scores
    }

    /// What is known of the candidate at `position` beside its cosine and its neighbours.
    pub(crate) fn evidence(&self, position: usize, words: Option<&Words>) -> Evidence {
        let Some(candidate) = self.candidates.get(position) else { return Evidence::default() };
        let count = |postings: &Postings| {
            let found = postings.find_by(|posting| memory_of(*posting).cmp(&candidate.key.0));
            found.map_or(0, |posting| u32::try_from(count_of(posting)).unwrap_or(u32::MAX))
        };
        let counts = |word: &Word| WordCount { in_text: count(&word.in_text), in_day: count(&word.in_day) };
        let words = words.map(|words| words.words.iter().map(counts).collect());
        Evidence { text_bytes: candidate.text_bytes, words, ..Evidence::default() }
    }

    /// Adds the share of a word that `with_it` memories hold. Postings and candidates are both in the order of the handles.
    fn add_scores(&self, scores: &mut [f32], corpus: Corpus, with_it: usize, postings: impl Iterator<Item = u64>) {
        let mut left = self.candidates.as_slice();
        for posting in postings {
            let key = MemoryKey(memory_of(posting));
            left = left.get(skip(left, key)..).unwrap_or_default();
            let Some(candidate) = left.first() else { break };
            let position = self.candidates.len() - left.len();
            if candidate.key == key
                && let Some(score) = scores.get_mut(position)
            {
                let count = u32::try_from(count_of(posting)).unwrap_or(u32::MAX);
                *score += bm25(corpus, with_it, count, candidate.text_bytes);
            }
        }
    }

    fn postings(&self, term: &str) -> Result<Postings> {
        let read = || search::read_postings(self.reader, term);
        match &self.index {
            Some(index) => index.recall.postings(self.user, index.version, term, read),
            None => read(),
        }
    }

    /// Of each candidate at `positions` the positions of its neighbours in its run, nearest first: those before, those after;
    /// none in the place of one that is no candidate.
    pub(crate) fn around(&self, positions: &[usize]) -> Result<Vec<Around>> {
        let keys = positions.iter().map(|position| self.key_of(*position).map_or(0, |key| key.0));
        let around: Vec<[[Option<i64>; RUN_REACH]; 2]> = match &self.index {
            Some(index) => keys.map(|key| index.rows.around(key, self.reader.now())).collect(),
            None => self.around_in_tables(keys)?,
        };
        let position_of = |key: Option<i64>| self.position_of(MemoryKey(key?));
        Ok(around.into_iter().map(|sides| sides.map(|side| side.map(position_of))).collect())
    }

    fn around_in_tables(&self, keys: impl Iterator<Item = i64>) -> Result<Vec<[[Option<i64>; RUN_REACH]; 2]>> {
        let sessions = search::sessions(self.reader, self.user)?;
        let mut places: HashMap<i64, (usize, usize)> = HashMap::new();
        for (session, members) in sessions.iter().enumerate() {
            places.extend(members.iter().enumerate().map(|(place, (_, _, key))| (*key, (session, place))));
        }
        let around = |key: i64| {
            let (session, place) = *places.get(&key)?;
            let members = sessions.get(session)?;
            let (has_session, at, _) = *members.get(place)?;
            let run = Run::new(!has_session);
            let near = |(_, at, key): &(bool, Timestamp, i64)| (*key, *at, true);
            let before = run.take(at, members.iter().take(place).rev().map(near));
            Some([before, run.take(at, members.iter().skip(place + 1).map(near))])
        };
        Ok(keys.map(|key| around(key).unwrap_or([[None; RUN_REACH]; 2])).collect())
    }
}

/// The neighbours of a member of the pool in its run, nearest first: those before, those after.
pub(crate) type Around = [[Option<usize>; RUN_REACH]; 2];

/// The words of a query.
pub(crate) struct Words {
    corpus: Corpus,
    words: Vec<Word>,
}

impl Words {
    /// What the score of any memory needs to know about the words.
    pub(crate) fn rarities(&self) -> Rarities {
        let holders = |word: &Word| word.united.as_ref().map_or(word.in_text.len(), Vec::len);
        Rarities { corpus: self.corpus, holders: self.words.iter().map(holders).collect() }
    }
}

/// The memories that hold a word.
struct Word {
    in_text: Postings,
    in_day: Postings,
    /// Both, where the latter are any.
    united: Option<Vec<u64>>,
}

impl<'r> Index<'r> {
    /// What is kept of a user's memories; none where nothing is, as in the transaction that writes.
    fn of(reader: &'r Reader<'r>, user: UserKey) -> Result<Option<Self>> {
        let Some(recall) = reader.recall else { return Ok(None) };
        if recall.bytes_max() == 0 {
            return Ok(None);
        }
        let version = index::version(reader, user)?;
        let count = || search::count_rows(reader, user);
        // One user must leave room for their words, and for others.
        let read = || search::read_rows(reader, user, recall.bytes_max() / 2);
        let rows = recall.rows(user, version, count, read)?;
        Ok(rows.map(|rows| Self { recall, version, rows }))
    }

    fn candidates(&self, reader: &Reader<'_>) -> Vec<Candidate> {
        let mut candidates = Vec::with_capacity(self.rows.len());
        self.rows.each_living(reader.now(), |row| {
            candidates.push(Candidate { key: MemoryKey(row.key), text_bytes: i64::from(row.text_bytes) });
        });
        candidates
    }
}

/// How many candidates lie before `key`. It is near, mostly, so the steps grow.
fn skip(candidates: &[Candidate], key: MemoryKey) -> usize {
    let mut step = 1;
    while candidates.get(step).is_some_and(|candidate| candidate.key < key) {
        step *= 2;
    }
    let (least, most) = (step / 2, (step + 1).min(candidates.len()));
    least + candidates.get(least..most).unwrap_or_default().partition_point(|candidate| candidate.key < key)
}

/// Both, with the counts of memories that are in both added up.
fn unite(left: &Postings, right: &Postings) -> Vec<u64> {
    let mut united: Vec<u64> = left.iter().chain(right.iter()).copied().collect();
    united.sort_unstable();
    united.dedup_by(|next, kept| {
        let is_same = memory_of(*next) == memory_of(*kept);
        if is_same {
            *kept = posting(memory_of(*kept), (count_of(*kept) + count_of(*next)).min(WORD_COUNT_MAX));
        }
        is_same
    });
    united
}
