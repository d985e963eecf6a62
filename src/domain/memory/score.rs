//! How well a memory answers: by its words (BM25), by its meaning (cosine), and by both.
#![expect(clippy::float_arithmetic, clippy::cast_precision_loss, reason = "scores are floats, and no one's money")]

use super::{EMBEDDING_DIMENSIONS, RUN_REACH};

/// What the cosine weighs against the words, which weigh 1.
const HYBRID_SEMANTIC_WEIGHT: f32 = 1.75;
/// What a memory's neighbour counts for against its own evidence, by the distance in the conversation.
const NEIGHBOUR_WEIGHTS: [f32; RUN_REACH] = [0.4, 0.16];
/// What the cosines of neighbours count for beside their words, which are shared in full.
const NEIGHBOUR_SEMANTIC_WEIGHT: f32 = 0.2;
/// How much of its doubt a turn of a conversation costs that states nothing.
const SILENCE_WEIGHT: f32 = 0.8;
/// So many bytes of statements, and it is half of that.
const STATED_BYTES_HALF: f32 = 60.0;
/// How soon more of the same word stops to matter (Robertson and Zaragoza 2009).
const BM25_SATURATION: f32 = 0.8;
/// How much the length of a text matters.
const BM25_LENGTH: f32 = 0.4;

/// All memories of a user, as BM25 sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Corpus {
    /// How many.
    pub memories: i64,
    /// Bytes of their texts.
    pub text_bytes: i64,
}

impl Corpus {
    /// What a word says that so many of the memories hold.
    fn rarity(self, memories_with_it: usize) -> f32 {
        let all = self.memories.max(1) as f32;
        let with_it = (memories_with_it as f32).min(all);
        (1.0 + (all - with_it + 0.5) / (with_it + 0.5)).ln()
    }

    /// How long a text is, 1 for one of mean length.
    fn length(self, text_bytes: i64) -> f32 {
        let mean_bytes = (self.text_bytes.max(1) as f32 / self.memories.max(1) as f32).max(1.0);
        1.0 - BM25_LENGTH + BM25_LENGTH * text_bytes as f32 / mean_bytes
    }
}

/// The share of one word in the BM25 of a text: `memories_with_it` of the corpus hold it, this one `count` times.
pub fn bm25(corpus: Corpus, memories_with_it: usize, count: u32, text_bytes: i64) -> f32 {
    corpus.rarity(memories_with_it) * saturated(count as f32 / corpus.length(text_bytes))
}

/// What so much of a word is worth: more of the same matters less and less.
fn saturated(share: f32) -> f32 {
    share * (BM25_SATURATION + 1.0) / (share + BM25_SATURATION)
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

    /// How much of each word it holds, for its length.
    fn shares(&self, corpus: Corpus) -> Option<Vec<f32>> {
        let length = corpus.length(self.text_bytes);
        let share = |count: &WordCount| count.in_text.saturating_add(count.in_day) as f32 / length;
        Some(self.words.as_ref()?.iter().map(share).collect())
    }

    /// Its neighbours' places in the pool, each with what it lends, against 1 of its own.
    fn neighbours(&self) -> impl Iterator<Item = (usize, f32)> {
        let weighted = |side: [Option<usize>; RUN_REACH]| side.into_iter().zip(NEIGHBOUR_WEIGHTS);
        self.around.into_iter().flat_map(weighted).filter_map(|(place, weight)| Some((place?, weight)))
    }

    /// Whether it is a turn of a conversation, as far as the pool knows.
    pub fn is_turn(&self) -> bool {
        self.around.iter().flatten().any(Option::is_some)
    }
}

/// The scores of the members of a pool, in their order. Where both meaning and words are asked for, those said around a member
/// lend it evidence: their words count as some more of its own before they saturate, so a question and its answer are found
/// together by words of both, and what says all of it is still ahead of what only stands beside; their cosines add a little.
/// The parts are a member's own.
pub fn fuse(pool: &[Evidence], rarities: &Rarities) -> Vec<Parts> {
    let shares: Vec<Option<Vec<f32>>> = pool.iter().map(|member| member.shares(rarities.corpus)).collect();
    let worth = |shares: &[f32]| {
        let of = |(share, holders): (&f32, &usize)| rarities.corpus.rarity(*holders) * saturated(*share);
        shares.iter().zip(&rarities.holders).map(of).sum::<f32>()
    };
    let with_neighbours = |(member, own): (&Evidence, &Option<Vec<f32>>)| {
        let mut sums = own.clone()?;
        for (place, weight) in member.neighbours() {
            let lent = shares.get(place).and_then(Option::as_ref).into_iter().flatten();
            for (sum, share) in sums.iter_mut().zip(lent) {
                *sum += weight * share;
            }
        }
        Some(worth(&sums))
    };
    let own = over_best(shares.iter().map(|shares| shares.as_deref().map(worth)).collect());
    let lent = over_best(pool.iter().zip(&shares).map(with_neighbours).collect());
    let fuse_one = |((member, own), lent): ((&Evidence, Option<f32>), Option<f32>)| {
        let parts = fused(member.cosine, own);
        let is_hybrid = member.cosine.is_some() && own.is_some();
        let score = if is_hybrid { fused(Some(cosine_with_neighbours(pool, member)), lent).score } else { parts.score };
        Parts { score, ..parts }
    };
    pool.iter().zip(own).zip(lent).map(fuse_one).collect()
}

/// Each over the best of all.
fn over_best(scores: Vec<Option<f32>>) -> Vec<Option<f32>> {
    let best = scores.iter().flatten().copied().fold(0.0, f32::max);
    let share = |score: f32| if best > 0.0 { score / best } else { 0.0 };
    scores.into_iter().map(|score| score.map(share)).collect()
}

/// A member's cosine with a little of its neighbours': 0 to 1, and never less than its own.
fn cosine_with_neighbours(pool: &[Evidence], member: &Evidence) -> f32 {
    let of = |cosine: Option<f32>| cosine.unwrap_or_default().clamp(0.0, 1.0);
    let lent = member.neighbours().map(|(place, weight)| weight * of(pool.get(place).and_then(|other| other.cosine)));
    (of(member.cosine) + NEIGHBOUR_SEMANTIC_WEIGHT * lent.sum::<f32>()).min(1.0)
}

/// `score` of a turn of a conversation with this text: who only asks or says little answers little. Never more than
/// `score`, in the same order, and 1 where that is 1.
pub fn weighed(score: f32, text: &str) -> f32 {
    let silence = STATED_BYTES_HALF / (STATED_BYTES_HALF + stated_bytes(text) as f32);
    score * (1.0 - SILENCE_WEIGHT * silence * (1.0 - score))
}

/// Bytes of a text outside its questions, those between its sentences left out.
fn stated_bytes(text: &str) -> usize {
    const QUESTION: [char; 4] = ['?', '\u{ff1f}', '\u{61f}', '\u{37e}'];
    let ends = |character: char| {
        QUESTION.contains(&character) || matches!(character, '.' | '!' | '。' | '！' | '۔' | '।' | '\n')
    };
    let sentences = text.split_inclusive(ends);
    sentences.filter(|sentence| !sentence.ends_with(QUESTION)).map(|sentence| sentence.trim().len()).sum()
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

    const CORPUS: Corpus = Corpus { memories: 100, text_bytes: 10_000 };

    /// A pool of a conversation, each turn with its cosine and the words it holds.
    fn conversation(turns: &[(f32, &[u32])]) -> Vec<Evidence> {
        let place = |place: usize| (place < turns.len()).then_some(place);
        let turn = |(at, (cosine, words)): (usize, &(f32, &[u32]))| Evidence {
            cosine: Some(*cosine),
            words: Some(words.iter().map(|count| WordCount { in_text: *count, in_day: 0 }).collect()),
            text_bytes: 100,
            around: [
                [at.checked_sub(1), at.checked_sub(2)],
                [place(at.saturating_add(1)), place(at.saturating_add(2))],
            ],
        };
        turns.iter().enumerate().map(turn).collect()
    }

    fn rarities(holders: &[usize]) -> Rarities {
        Rarities { corpus: CORPUS, holders: holders.to_vec() }
    }

    #[test]
    fn a_word_beside_counts_less_than_ones_own_and_is_no_own_word() {
        let turns: [(f32, &[u32]); 4] = [(0.5, &[1]), (0.5, &[0]), (0.5, &[0]), (0.5, &[0])];
        let found = fuse(&conversation(&turns), &rarities(&[2]));
        let own: Vec<Option<f32>> = found.iter().map(|parts| parts.keyword).collect();
        assert_eq!(own, [Some(1.0), Some(0.0), Some(0.0), Some(0.0)]);
        let scores: Vec<f32> = found.iter().map(|parts| parts.score).collect();
        assert!(scores[0] > scores[1] && scores[1] > scores[2] && scores[2] > scores[3], "{scores:?}");
        // Nothing is lent where meaning or words alone are asked for.
        let alone: Vec<Evidence> =
            conversation(&turns).into_iter().map(|turn| Evidence { cosine: None, ..turn }).collect();
        assert!(fuse(&alone, &rarities(&[2])).iter().all(|parts| Some(parts.score) == parts.keyword));
    }

    #[test]
    fn words_of_the_query_in_two_neighbours_lift_both() {
        // The first and second hold a word each, the last one of them without the other near.
        let turns: [(f32, &[u32]); 6] =
            [(0.4, &[1, 0]), (0.4, &[0, 1]), (0.4, &[0, 0]), (0.4, &[0, 0]), (0.4, &[0, 0]), (0.4, &[1, 0])];
        let found = fuse(&conversation(&turns), &rarities(&[2, 2]));
        assert_eq!(found[0].keyword, found[5].keyword);
        assert!(found[0].score > found[5].score, "{found:?}");
        assert!(found.iter().all(|parts| (0.0..=1.0).contains(&parts.score)));
    }

    #[test]
    fn a_score_with_neighbours_stays_within_1_and_its_parts_are_its_own() {
        let pool = conversation(&[(0.9, &[1]), (1.0, &[9]), (0.9, &[1])]);
        let found = fuse(&pool, &rarities(&[3]));
        assert_eq!(found[1], Parts { score: 1.0, semantic: Some(1.0), keyword: Some(1.0) });
        assert_eq!(found[0].semantic, Some(0.9));
        let cosine = |cosines: [f32; 3], at: usize| {
            let pool = conversation(&cosines.map(|cosine| (cosine, [0].as_slice())));
            cosine_with_neighbours(&pool, &pool[at])
        };
        assert!(cosine([0.9, 0.4, 0.9], 1) > 0.4 && cosine([-0.9, 0.4, -0.9], 1) - 0.4 < 1e-6);
        assert!((cosine([0.9, 1.0, 0.9], 1) - 1.0).abs() < f32::EPSILON);
        assert!(pool[0].is_turn() && !Evidence::of_meaning(0.5).is_turn());
    }

    #[test]
    fn what_only_asks_or_says_little_answers_less_and_a_perfect_match_stays() {
        let long = "We moved to the coast last spring, and the children started at the village school.";
        assert_eq!(stated_bytes("Nice. And where do you live now? "), 5);
        assert_eq!(stated_bytes("東京に住んでいます。本当ですか？"), "東京に住んでいます。".len());
        assert_eq!(stated_bytes(""), 0);
        let asks = weighed(0.5, "Where do you live now, and since when?");
        assert!(asks < weighed(0.5, "By the sea.") && weighed(0.5, "By the sea.") < weighed(0.5, long));
        assert!(weighed(0.5, long) < 0.5 && asks > 0.25);
        assert!((weighed(1.0, "") - 1.0).abs() < f32::EPSILON);
        assert!(weighed(0.0, long).abs() < f32::EPSILON);
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
