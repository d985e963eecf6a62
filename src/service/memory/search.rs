//! Finding memories by meaning and by word.

use std::cmp::Ordering;

use crate::domain::auth::{Caller, UserKey};
use crate::domain::memory::{Embedding, Filter, Hit, MemoryKey, Mode, Parts, beside, fused, rounded};
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
    let keyword = match &search.query {
        // Asked for its words alone, a memory is found by its own, not by the name of the month it was stored in.
        Some(query) if search.mode != Mode::Semantic => {
            store_of::keyword_scores(reader, user, &candidates, query, search.mode == Mode::Hybrid)?
        }
        _ => None,
    };
    if semantic.is_none() && keyword.is_none() {
        return Ok(Vec::new());
    }
    let must_hold_words = search.mode == Mode::Keyword;
    let mut ranked = rank(&candidates, semantic.as_deref(), keyword.as_deref());
    if semantic.is_some() && keyword.is_some() {
        look_beside(&mut ranked, &store_of::session_pairs(reader, user, &candidates)?);
    }
    ranked.retain(|found| {
        search.min_score.is_none_or(|least| rounded(found.parts.score) >= least)
            && (!must_hold_words || found.parts.keyword > Some(0.0))
    });
    let mut hits = load_best(reader, user, ranked, search.limit)?;
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
}

impl Ranked {
    /// Better first; of equals the newer one.
    fn order(&self, other: &Self) -> Ordering {
        let by_score = other.parts.score.total_cmp(&self.parts.score);
        by_score.then(other.cosine.total_cmp(&self.cosine)).then(other.key.cmp(&self.key))
    }
}

fn rank(candidates: &[Candidate], semantic: Option<&[f32]>, keyword: Option<&[f32]>) -> Vec<Ranked> {
    let of = |scores: Option<&[f32]>, position: usize| scores.and_then(|scores| scores.get(position).copied());
    let ranked = candidates.iter().enumerate().map(|(position, candidate)| {
        let cosine = of(semantic, position);
        Ranked { key: candidate.key, parts: fused(cosine, of(keyword, position)), cosine: cosine.unwrap_or_default() }
    });
    ranked.collect()
}

/// Lets each score profit from those just before and after in the session.
fn look_beside(ranked: &mut [Ranked], pairs: &[(usize, usize)]) {
    let mut neighbours = vec![[0.0_f32; 2]; ranked.len()];
    for (earlier, later) in pairs {
        if let (Some(first), Some(second)) = (ranked.get(*earlier), ranked.get(*later)) {
            let (first, second) = (first.parts.score, second.parts.score);
            neighbours[*earlier][1] = second;
            neighbours[*later][0] = first;
        }
    }
    for (found, neighbours) in ranked.iter_mut().zip(neighbours) {
        found.parts.score = beside(found.parts.score, neighbours);
    }
}

fn load_best(reader: &Reader<'_>, user: UserKey, mut ranked: Vec<Ranked>, limit: usize) -> Result<Vec<Hit>> {
    if limit > 0 && ranked.len() > limit {
        ranked.select_nth_unstable_by(limit - 1, Ranked::order);
        ranked.truncate(limit);
    }
    ranked.sort_unstable_by(Ranked::order);
    let mut hits = Vec::with_capacity(ranked.len());
    for found in ranked {
        if let Some(memory) = store_of::find_by_key(reader, user, found.key)? {
            hits.push(Hit { memory, parts: found.parts, context: Vec::new() });
        }
    }
    Ok(hits)
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
    load_best(reader, user, ranked, limit)
}
