//! Finding memories by meaning and by word.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use crate::domain::auth::{Caller, UserKey};
use crate::domain::memory::{
    Around, Embedding, Filter, Hit, Memory, MemoryKey, Mode, Parts, WordScores, fused, hybrid, rounded, weighed,
};
use crate::domain::unit::MemoryId;
use crate::domain::{Error, Result};
use crate::store::Reader;
use crate::store::memory::{self as store_of, Candidate};

/// Most of a memory's embeddings that look for similar ones.
const SIMILAR_EMBEDDINGS_MAX: usize = 8;

/// What a search asks.
#[derive(Clone, Debug, Default)]
pub struct Search {
    /// The words.
    pub query: Option<String>,
    /// The meaning; needed unless the mode is `Keyword`.
    pub embedding: Option<Embedding>,
    /// What it looks at.
    pub mode: Mode,
    /// Which memories are meant.
    pub filter: Filter,
    /// Most hits.
    pub limit: usize,
    /// The least score of a hit, 0 to 1.
    pub min_score: Option<f64>,
    /// Most neighbours before and after a hit.
    pub context: usize,
}

/// The best hits of the caller's own memories, best first.
///
/// # Errors
/// Where the store cannot be read.
pub fn search(reader: &Reader<'_>, caller: &Caller, search: &Search) -> Result<Vec<Hit>> {
    let user = caller.user.key;
    let candidates = store_of::candidates(reader, user, &search.filter)?;
    let semantic = match &search.embedding {
        Some(embedding) if search.mode != Mode::Keyword => {
            Some(store_of::cosines(reader, &candidates, std::slice::from_ref(embedding))?)
        }
        _ => None,
    };
    // By meaning alone or by words alone, a memory is found by its own.
    let is_hybrid = semantic.is_some() && search.query.is_some() && search.mode == Mode::Hybrid;
    let around = if is_hybrid { store_of::around(reader, user, &candidates)? } else { Vec::new() };
    let keyword = match &search.query {
        // Asked for its words alone, nor by the name of the month it was stored in.
        Some(query) if search.mode != Mode::Semantic => {
            store_of::keyword_scores(reader, user, &candidates, query, search.mode == Mode::Hybrid, &around)?
        }
        _ => None,
    };
    let mut ranked = match (&semantic, &keyword) {
        (Some(cosines), Some(words)) => rank_hybrid(&candidates, cosines, words, &around),
        (None, None) => return Ok(Vec::new()),
        _ => rank(&candidates, semantic.as_deref(), keyword.as_ref().map(|words| &*words.own)),
    };
    let must_hold_words = search.mode == Mode::Keyword;
    ranked.retain(|found| {
        search.min_score.is_none_or(|least| rounded(found.parts.score) >= least)
            && (!must_hold_words || found.parts.keyword > Some(0.0))
    });
    let mut hits = load_best(reader, user, ranked, search.limit, search.min_score)?;
    if search.context > 0 {
        for hit in &mut hits {
            hit.context = store_of::neighbours(reader, user, &hit.memory, search.context)?;
        }
    }
    Ok(hits)
}

#[derive(Clone, Copy)]
struct Ranked {
    key: MemoryKey,
    parts: Parts,
    /// Tells apart what the score does not: those that point away from each other.
    cosine: f32,
    /// A turn of a conversation: its text is still to be weighed, which never raises the score.
    is_turn: bool,
}

/// The greater is the better; of equals the newer one.
impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_score = self.parts.score.total_cmp(&other.parts.score);
        by_score.then(self.cosine.total_cmp(&other.cosine)).then(self.key.cmp(&other.key))
    }
}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Ranked {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Ranked {}

fn rank(candidates: &[Candidate], semantic: Option<&[f32]>, keyword: Option<&[f32]>) -> Vec<Ranked> {
    let of = |scores: Option<&[f32]>, position: usize| scores.and_then(|scores| scores.get(position).copied());
    let ranked = candidates.iter().enumerate().map(|(position, candidate)| {
        let cosine = of(semantic, position);
        Ranked {
            key: candidate.key,
            parts: fused(cosine, of(keyword, position)),
            cosine: cosine.unwrap_or_default(),
            is_turn: false,
        }
    });
    ranked.collect()
}

fn rank_hybrid(candidates: &[Candidate], cosines: &[f32], words: &WordScores, around: &[Around]) -> Vec<Ranked> {
    let ranked = candidates.iter().zip(cosines).zip(around).enumerate();
    let ranked = ranked.map(|(position, ((candidate, cosine), around))| Ranked {
        key: candidate.key,
        parts: hybrid(cosines, words, position, around),
        cosine: *cosine,
        is_turn: *around != Around::default(),
    });
    ranked.collect()
}

/// The best `limit` of `ranked` with their texts, each weighed by it where it is a turn. Texts are loaded in the order of the
/// scores without them, as long as one of them may still be among the best.
fn load_best(
    reader: &Reader<'_>,
    user: UserKey,
    ranked: Vec<Ranked>,
    limit: usize,
    min_score: Option<f64>,
) -> Result<Vec<Hit>> {
    let mut remaining = BinaryHeap::from(ranked);
    let mut best: Vec<(Ranked, Memory)> = Vec::new();
    while let Some(mut found) = remaining.pop() {
        if best.len() >= limit && best.last().is_none_or(|(last, _)| *last >= found) {
            break;
        }
        let Some(memory) = store_of::find_by_key(reader, user, found.key)? else { continue };
        if found.is_turn {
            found.parts.score = weighed(found.parts.score, &memory.content.text);
        }
        if min_score.is_none_or(|least| rounded(found.parts.score) >= least) {
            let place = best.partition_point(|(other, _)| *other >= found);
            best.insert(place, (found, memory));
            best.truncate(limit);
        }
    }
    Ok(best.into_iter().map(|(found, memory)| Hit { memory, parts: found.parts, context: Vec::new() }).collect())
}

/// The caller's memories nearest to any of `embeddings`, best first, of at least the score `least`.
///
/// # Errors
/// Where the store cannot be read.
pub fn similar_to(
    reader: &Reader<'_>,
    caller: &Caller,
    embeddings: &[Embedding],
    limit: usize,
    least: f64,
) -> Result<Vec<Hit>> {
    nearest(reader, caller.user.key, embeddings, None, limit, least)
}

/// The caller's memories nearest to one of them, best first.
///
/// # Errors
/// `NotFound`.
pub fn similar(reader: &Reader<'_>, caller: &Caller, id: MemoryId, limit: usize) -> Result<Vec<Hit>> {
    let user = caller.user.key;
    let memory = store_of::load(reader, user, id)?;
    let embeddings = store_of::load_embeddings(reader, memory.key)?;
    if embeddings.is_empty() {
        return Err(Error::Internal("a memory without an embedding".to_owned()));
    }
    nearest(reader, user, &embeddings, Some(memory.key), limit, 0.0)
}

fn nearest(
    reader: &Reader<'_>,
    user: UserKey,
    embeddings: &[Embedding],
    except: Option<MemoryKey>,
    limit: usize,
    least: f64,
) -> Result<Vec<Hit>> {
    let embeddings = embeddings.get(..SIMILAR_EMBEDDINGS_MAX).unwrap_or(embeddings);
    let candidates = store_of::candidates(reader, user, &Filter::default())?;
    let cosines = store_of::cosines(reader, &candidates, embeddings)?;
    let mut ranked = rank(&candidates, Some(&cosines), None);
    ranked.retain(|found| Some(found.key) != except && rounded(found.parts.score) >= least);
    load_best(reader, user, ranked, limit, None)
}
