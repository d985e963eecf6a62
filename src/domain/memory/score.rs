//! How well a memory answers: by its words (BM25), by its meaning (cosine), and by both.
#![expect(clippy::float_arithmetic, clippy::cast_precision_loss, reason = "scores are floats, and no one's money")]

use super::{EMBEDDING_DIMENSIONS, RUN_REACH};

/// What the cosine weighs against the words, which weigh 1.
pub const HYBRID_SEMANTIC_WEIGHT: f32 = 1.2;
/// What the score of a neighbour in the session counts for, against 1 of a memory's own.
const NEIGHBOUR_WEIGHT: f32 = 0.15;
/// How soon more of the same word stops to matter (Robertson and Zaragoza 2009).
const BM25_SATURATION: f32 = 1.2;
/// How much the length of a text matters.
const BM25_LENGTH: f32 = 0.75;

/// All memories of a user, as BM25 sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Corpus {
    /// How many.
    pub memories: i64,
    /// Bytes of their texts.
    pub text_bytes: i64,
}

/// The share of one word in the BM25 of a text: `memories_with_it` of the corpus hold it, this one `count` times.
pub fn bm25(corpus: Corpus, memories_with_it: usize, count: u32, text_bytes: i64) -> f32 {
    let all = corpus.memories.max(1) as f32;
    let with_it = (memories_with_it as f32).min(all);
    let rarity = (1.0 + (all - with_it + 0.5) / (with_it + 0.5)).ln();
    let mean_bytes = (corpus.text_bytes.max(1) as f32 / all).max(1.0);
    let length = 1.0 - BM25_LENGTH + BM25_LENGTH * text_bytes as f32 / mean_bytes;
    let count = count as f32;
    rarity * count * (BM25_SATURATION + 1.0) / (count + BM25_SATURATION * length)
}

/// The score of a hit and the parts it is made of; a part that was not used is none. All lie in 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct Parts {
    /// What hits are ordered by.
    pub score: f32,
    /// The cosine, 0 where negative.
    pub semantic: Option<f32>,
    /// BM25 over the best of the candidates.
    pub keyword: Option<f32>,
}

/// How often a memory holds a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct WordCount {
    /// In its text.
    pub in_text: u32,
    /// In the words of its day.
    pub in_day: u32,
}

/// What scores have to know of the words of a query.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Rarities {
    /// All memories of the user.
    pub corpus: Corpus,
    /// How many memories hold each word, in its text or its day.
    pub holders: Vec<usize>,
}

/// What is known of a member of the pool.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Evidence {
    /// Its cosine with the query; none where meaning is not asked for.
    pub cosine: Option<f32>,
    /// How often it holds each word of the query; none where words are not asked for.
    pub words: Option<Vec<WordCount>>,
    /// Bytes of its text.
    pub text_bytes: i64,
    /// Its neighbours in its run by their places in the pool, nearest first: those before, those after.
    pub around: [[Option<usize>; RUN_REACH]; 2],
}

impl Evidence {
    /// Where meaning alone counts.
    pub fn of_meaning(cosine: f32) -> Self {
        Self { cosine: Some(cosine), ..Self::default() }
    }

    fn bm25(&self, rarities: &Rarities) -> Option<f32> {
        let shares = self.words.as_ref()?.iter().zip(&rarities.holders).map(|(count, holders)| {
            bm25(rarities.corpus, *holders, count.in_text.saturating_add(count.in_day), self.text_bytes)
        });
        Some(shares.sum())
    }
}

/// The scores of the members of a pool, in their order.
pub fn fuse(pool: &[Evidence], rarities: &Rarities) -> Vec<Parts> {
    let words: Vec<Option<f32>> = pool.iter().map(|member| member.bm25(rarities)).collect();
    let most = words.iter().flatten().copied().fold(0.0, f32::max);
    let share = |words: f32| if most > 0.0 { words / most } else { 0.0 };
    let own = pool.iter().zip(words).map(|(member, words)| fused(member.cosine, words.map(share)));
    let own: Vec<Parts> = own.collect();
    let score_of = |place: Option<usize>| place.and_then(|place| own.get(place)).map_or(0.0, |parts| parts.score);
    let with_neighbours = |(member, own): (&Evidence, &Parts)| {
        let neighbours = member.around.map(|side| score_of(side[0]));
        Parts { score: beside(own.score, neighbours), ..*own }
    };
    pool.iter().zip(&own).map(with_neighbours).collect()
}

/// The fused score: the weighted mean of the parts that were used.
fn fused(semantic: Option<f32>, keyword: Option<f32>) -> Parts {
    let semantic = semantic.map(|cosine| cosine.clamp(0.0, 1.0));
    let keyword = keyword.map(|share| share.clamp(0.0, 1.0));
    let score = match (semantic, keyword) {
        (Some(semantic), Some(keyword)) => {
            (HYBRID_SEMANTIC_WEIGHT * semantic + keyword) / (HYBRID_SEMANTIC_WEIGHT + 1.0)
        }
        (Some(only), None) | (None, Some(only)) => only,
        (None, None) => 0.0,
    };
    Parts { score, semantic, keyword }
}

/// `score` with the evidence of the memories just before and after in the session: who asks after an answer often finds it
/// beside the question. Never less than `score`, never more than 1, and 1 only where one of them is.
fn beside(score: f32, neighbours: [f32; 2]) -> f32 {
    let doubt = |score: f32| 1.0 - NEIGHBOUR_WEIGHT * score;
    1.0 - (1.0 - score) * doubt(neighbours[0]) * doubt(neighbours[1])
}

/// Inner product of `query` and a stored vector (little-endian 32-bit floats), without a copy. Vectors of another
/// length give 0.
pub fn dot_of_bytes(query: &[f32; EMBEDDING_DIMENSIONS], stored: &[u8]) -> f32 {
    const LANES: usize = 16;
    // Independent sums, so that the compiler may use the widest registers there are.
    let mut sums = [0.0_f32; LANES];
    let (groups, []) = query.as_chunks::<LANES>() else { return 0.0 };
    let (stored, []) = stored.as_chunks::<{ LANES * 4 }>() else { return 0.0 };
    for (left, right) in groups.iter().zip(stored) {
        let (numbers, _) = right.as_chunks::<4>();
        for ((sum, left), right) in sums.iter_mut().zip(left).zip(numbers) {
            *sum += left * f32::from_le_bytes(*right);
        }
    }
    sums.iter().sum()
}

/// A score as answers show it, to six decimals.
pub fn rounded(score: f32) -> f64 {
    (f64::from(score) * 1e6).round() / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_lie_between_0_and_1() {
        assert_eq!(fused(Some(-0.3), None), Parts { score: 0.0, semantic: Some(0.0), keyword: None });
        assert!((fused(Some(1.000_01), Some(1.0)).score - 1.0).abs() < 1e-6);
        assert!((fused(None, Some(0.5)).score - 0.5).abs() < f32::EPSILON);
    }

    #[test]
    fn neighbours_add_a_little_and_never_too_much() {
        assert!((beside(0.4, [0.0, 0.0]) - 0.4).abs() < 1e-6);
        assert!((beside(1.0, [0.7, 0.0]) - 1.0).abs() < 1e-6);
        assert!(beside(0.4, [0.9, 0.9]) > beside(0.4, [0.9, 0.0]));
        assert!(beside(0.9, [1.0, 1.0]) < 1.0);
    }

    #[test]
    fn a_rare_word_in_a_short_text_says_most() {
        let corpus = Corpus { memories: 100, text_bytes: 10_000 };
        assert!(bm25(corpus, 1, 1, 100) > bm25(corpus, 50, 1, 100));
        assert!(bm25(corpus, 5, 1, 50) > bm25(corpus, 5, 1, 500));
        assert!(bm25(corpus, 200, 1, 100) > 0.0);
        assert!(bm25(Corpus::default(), 1, 1, 0).is_finite());
    }

    #[test]
    fn the_product_of_stored_bytes_is_the_product_of_the_numbers() {
        let query = [0.5_f32; EMBEDDING_DIMENSIONS];
        let stored: Vec<u8> = (0..384_u16).flat_map(|number| f32::from(number).to_le_bytes()).collect();
        assert!((dot_of_bytes(&query, &stored) - 36_768.0).abs() < 0.5);
        assert!(dot_of_bytes(&query, &[]).abs() < f32::EPSILON);
    }
}
