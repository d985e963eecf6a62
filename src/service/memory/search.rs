//! Finding memories by meaning and by word.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap};

use super::lacks_embedding;
use crate::domain::auth::{Caller, UserKey};
use crate::domain::memory::{
    Embedding, Evidence, Filter, Hit, Memory, MemoryKey, Mode, Parts, Rarities, fuse, rounded, weighed,
};
use crate::domain::unit::MemoryId;
use crate::domain::{Error, Result};
use crate::store::Reader;
use crate::store::memory::{self as store_of, Around, Field};

/// Most of a memory's embeddings that look for similar ones.
const SIMILAR_EMBEDDINGS_MAX: usize = 8;
/// Text of neighbours in an answer, in bytes: hits whose neighbours would take more go without. Each may be 256 KiB long, and
/// there may be a thousand of them.
const CONTEXT_BYTES_MAX: usize = 16 * 1024 * 1024;
/// How many of the nearest by meaning are compared exactly.
const POOL_MEANING: usize = 256;
/// How many of the nearest by meaning and of the best by words are fused, with those around them.
const POOL_HYBRID: usize = 128;
/// How many of the best by words are looked at where words alone count.
const POOL_WORDS: usize = 256;

/// What a search asks.
#[derive(Clone, Debug, Default)]
pub struct Search {
    /// The words.
    pub query: Option<String>,
    /// The meaning; needed unless the mode is `Keyword`.
    pub embedding: Option<Embedding>,
    /// Whether the embedding is one of a text that the model has no token for: then words decide, and it only fills up.
    pub lacks_meaning: bool,
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
    let mut found = find(&Field::new(reader, user, &search.filter)?, search)?;
    let mut hits = load_best(reader, user, &mut found, search.limit, search.min_score)?;
    // The index in memory is ahead of this snapshot, and what is newer took places in the pool.
    if found.is_short {
        let mut found = find(&Field::without_index(reader, user, &search.filter)?, search)?;
        hits = load_best(reader, user, &mut found, search.limit, search.min_score)?;
    }
    if search.context > 0 {
        let mut left = CONTEXT_BYTES_MAX;
        for hit in &mut hits {
            hit.context = store_of::neighbours(reader, user, &hit.memory, search.context)?;
            let bytes = hit.context.iter().map(|memory| memory.content.text.len()).sum();
            match left.checked_sub(bytes) {
                Some(rest) => left = rest,
                None => hit.context.clear(),
            }
        }
    }
    Ok(hits)
}

/// What a search came to.
struct Found {
    ranked: Vec<Ranked>,
    /// Whether the pool was cut, so that there may be more than it holds.
    is_cut: bool,
    /// Whether some that are not in this snapshot took the places of others.
    is_short: bool,
}

/// The members of a pool by their positions, each with its cosine where that is known.
type Pool = BTreeMap<usize, Option<f32>>;

/// The memories that may be among the best, fused.
fn find(field: &Field<'_>, search: &Search) -> Result<Found> {
    let embedding = search.embedding.as_ref().filter(|_| search.mode != Mode::Keyword).map(std::slice::from_ref);
    let words = match &search.query {
        // Asked for its words alone, a memory is found by its own, not by the name of the month it was stored in.
        Some(query) if search.mode != Mode::Semantic => field.words(query, search.mode == Mode::Hybrid)?,
        _ => None,
    };
    let mut pool = Pool::new();
    let (mut is_cut, mut is_short) = (false, false);
    let least = match (embedding, &words) {
        (Some(_), Some(_)) => POOL_HYBRID,
        (Some(_), None) => pool_of_meaning_alone(field.len()),
        (None, _) => POOL_WORDS,
    };
    let count = least.max(search.limit * 2);
    if let Some(embedding) = embedding {
        let nearest = field.nearest(embedding, count)?;
        (is_cut, is_short) = (nearest.found.len() < field.len(), nearest.is_short);
        pool.extend(nearest.found.into_iter().map(|(position, cosine)| (position, Some(cosine))));
    }
    if let Some(words) = &words {
        let best = best_of(&field.word_scores(words), count);
        is_cut |= best.len() == count;
        pool.extend(
            best.into_iter()
                .filter(|position| !pool.contains_key(position))
                .map(|position| (position, None))
                .collect::<Pool>(),
        );
    }
    let around = if embedding.is_some() && words.is_some() { look_around(field, &mut pool)? } else { BTreeMap::new() };
    if let Some(embedding) = embedding {
        measure(field, &mut pool, embedding)?;
    }
    let evidence = pool.iter().map(|(position, cosine)| Evidence {
        cosine: cosine.filter(|_| !search.lacks_meaning),
        around: around.get(position).copied().unwrap_or_default(),
        ..field.evidence(*position, words.as_ref())
    });
    let evidence: Vec<Evidence> = evidence.collect();
    let parts = fuse(&evidence, &words.map(|words| words.rarities()).unwrap_or_default());
    let ranked = pool.iter().zip(parts).zip(&evidence).filter_map(|(((position, cosine), parts), evidence)| {
        let (key, cosine) = (field.key_of(*position)?, cosine.unwrap_or_default());
        Some(Ranked { key, parts, cosine, is_turn: evidence.is_turn() })
    });
    let must_hold_words = search.mode == Mode::Keyword;
    let ranked = ranked.filter(|found| {
        search.min_score.is_none_or(|least| rounded(found.parts.score) >= least)
            && (!must_hold_words || found.parts.keyword > Some(0.0))
    });
    Ok(Found { ranked: ranked.collect(), is_cut: is_cut && field.has_index(), is_short })
}

/// How many are compared exactly where meaning alone counts: measured so that of the ten nearest more than 99 in 100 are
/// among them (see docs/decisions/search.md).
fn pool_of_meaning_alone(memories: usize) -> usize {
    (64 + memories / 512).min(POOL_MEANING)
}

/// The positions of the best `count` scores that are not 0, of equals the later.
fn best_of(scores: &[f32], count: usize) -> Vec<usize> {
    let mut best: Vec<usize> = (0..scores.len()).filter(|position| scores.get(*position) > Some(&0.0)).collect();
    if best.len() > count && count > 0 {
        let score = |position: &usize| scores.get(*position).copied().unwrap_or_default();
        best.select_nth_unstable_by(count - 1, |left, right| {
            score(right).total_cmp(&score(left)).then(right.cmp(left))
        });
        best.truncate(count);
    }
    best
}

/// Adds to the pool the neighbours of its members in their runs, and returns for each member its neighbours, by their
/// places in the pool.
fn look_around(field: &Field<'_>, pool: &mut Pool) -> Result<BTreeMap<usize, Around>> {
    let members: Vec<usize> = pool.keys().copied().collect();
    for neighbour in field.around(&members)?.iter().flatten().flatten().flatten() {
        pool.entry(*neighbour).or_default();
    }
    let members: Vec<usize> = pool.keys().copied().collect();
    let place_of = |neighbour: Option<usize>| members.binary_search(&neighbour?).ok();
    let around = field.around(&members)?;
    let places = around.into_iter().map(|sides| sides.map(|side| side.map(place_of)));
    Ok(members.iter().copied().zip(places).collect())
}

/// Adds the cosines that are not known yet. One without a vector in this snapshot counts as pointing away (-1);
/// `load_best` passes it over.
fn measure(field: &Field<'_>, pool: &mut Pool, embedding: &[Embedding]) -> Result<()> {
    let unknown: Vec<usize> = pool.iter().filter(|(_, cosine)| cosine.is_none()).map(|(place, _)| *place).collect();
    for (position, cosine) in unknown.iter().zip(field.cosines(&unknown, embedding)?) {
        pool.insert(*position, Some(cosine.unwrap_or(-1.0)));
    }
    Ok(())
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

/// Loads the best `limit`, each weighed by its text where it is a turn of a conversation. Texts are loaded in the order of the
/// scores without them, as long as one may still be among the best. What is not in this snapshot gives way to the next; where
/// the pool ends before the limit and was cut, the search is short.
fn load_best(
    reader: &Reader<'_>,
    user: UserKey,
    found: &mut Found,
    limit: usize,
    min_score: Option<f64>,
) -> Result<Vec<Hit>> {
    let mut remaining = BinaryHeap::from(std::mem::take(&mut found.ranked));
    let mut best: Vec<(Ranked, Memory)> = Vec::new();
    let mut missing = false;
    while let Some(mut ranked) = remaining.pop() {
        if best.len() >= limit && best.last().is_none_or(|(last, _)| *last >= ranked) {
            break;
        }
        let Some(memory) = store_of::find_by_key(reader, user, ranked.key)? else {
            missing = true;
            continue;
        };
        if ranked.is_turn {
            ranked.parts.score = weighed(ranked.parts.score, &memory.content.text);
        }
        if min_score.is_none_or(|least| rounded(ranked.parts.score) >= least) {
            let place = best.partition_point(|(other, _)| *other >= ranked);
            best.insert(place, (ranked, memory));
            best.truncate(limit);
        }
    }
    found.is_short |= missing && found.is_cut && best.len() < limit;
    Ok(best.into_iter().map(|(ranked, memory)| Hit { memory, parts: ranked.parts, context: Vec::new() }).collect())
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
        return Err(lacks_embedding());
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
    let find = |field: Field<'_>| {
        let nearest = field.nearest(embeddings, pool_of_meaning_alone(field.len()).max(limit * 2 + 1))?;
        let evidence: Vec<Evidence> = nearest.found.iter().map(|(_, cosine)| Evidence::of_meaning(*cosine)).collect();
        let ranked = nearest.found.iter().zip(fuse(&evidence, &Rarities::default())).filter_map(
            |((position, cosine), parts)| {
                let key = field.key_of(*position).filter(|key| Some(*key) != except)?;
                (rounded(parts.score) >= least).then_some(Ranked { key, parts, cosine: *cosine, is_turn: false })
            },
        );
        let is_cut = nearest.found.len() < field.len() && field.has_index();
        let mut found = Found { ranked: ranked.collect(), is_cut, is_short: nearest.is_short };
        let hits = load_best(reader, user, &mut found, limit, None)?;
        Ok::<_, Error>((hits, found.is_short))
    };
    let (hits, is_short) = find(Field::new(reader, user, &Filter::default())?)?;
    if is_short { Ok(find(Field::without_index(reader, user, &Filter::default())?)?.0) } else { Ok(hits) }
}
