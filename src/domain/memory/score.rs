//! How well a memory answers: by its words (BM25), by its meaning (cosine), and by both.
#![expect(clippy::float_arithmetic, clippy::cast_precision_loss, reason = "scores are floats, and no one's money")]

use super::EMBEDDING_DIMENSIONS;
use crate::domain::unit::Timestamp;

/// What the cosine weighs against the words, which weigh 1.
const HYBRID_SEMANTIC_WEIGHT: f32 = 1.75;
/// What a memory's neighbour counts for against its own evidence, by the distance in the conversation.
const NEIGHBOUR_WEIGHTS: [f32; REACH] = [0.4, 0.16];
/// How far before and after a memory there is evidence for it.
const REACH: usize = 2;
/// A longer silence ends a conversation that has no name.
const RUN_GAP_MILLISECONDS: i64 = 30 * 60 * 1_000;
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

/// Where a word of a query stands.
#[derive(Clone, Debug, Default)]
pub struct WordRows {
    /// How many of the user's memories hold it.
    pub memories_with_it: usize,
    /// Which of the candidates, by their positions, and how often.
    pub counts: Vec<(usize, u32)>,
}

/// The positions of the candidates around one in its conversation: those just before and after, then those one further.
pub type Around = [[Option<usize>; 2]; REACH];

/// Notes in `around` who stands beside whom in `run`, a conversation in its order. What is no candidate keeps its place and
/// has no position.
pub fn link(run: &[Option<usize>], around: &mut [Around]) {
    for distance in 1..=REACH {
        for (before, after) in run.iter().zip(run.iter().skip(distance)) {
            let (Some(before), Some(after)) = (*before, *after) else { continue };
            let places = distance.saturating_sub(1);
            if let Some(place) = around.get_mut(before).and_then(|around| around.get_mut(places)) {
                place[1] = Some(after);
            }
            if let Some(place) = around.get_mut(after).and_then(|around| around.get_mut(places)) {
                place[0] = Some(before);
            }
        }
    }
}

/// Whether what happened at `later` still belongs to the conversation of what happened at `earlier`, where no session says so.
pub const fn is_same_run(earlier: Timestamp, later: Timestamp) -> bool {
    later.0.saturating_sub(earlier.0) <= RUN_GAP_MILLISECONDS
}

/// How well each candidate answers by words, over the best of them: by its own, and with those said around it.
#[derive(Clone, Debug, Default)]
pub struct WordScores {
    /// By its own words alone, 0 to 1.
    pub own: Vec<f32>,
    /// With its neighbours' words. As `own` where nothing is known of neighbours.
    pub with_neighbours: Vec<f32>,
}

/// BM25 of the candidates, whose texts are so long, for the words of a query. Words of neighbours count as some more of a
/// memory's own before they saturate: a question and its answer are found together by words of both, and what says all of
/// it is still ahead of what only stands beside.
pub fn word_scores(corpus: Corpus, text_bytes: &[i64], words: &[WordRows], around: &[Around]) -> WordScores {
    let mut scores = WordScores { own: vec![0.0; text_bytes.len()], with_neighbours: vec![0.0; text_bytes.len()] };
    let mut shares = vec![0.0_f32; if around.is_empty() { 0 } else { text_bytes.len() }];
    let mut touched: Vec<usize> = Vec::new();
    for word in words {
        let rarity = corpus.rarity(word.memories_with_it);
        let of = |share: f32| rarity * share * (BM25_SATURATION + 1.0) / (share + BM25_SATURATION);
        for (position, count) in &word.counts {
            let Some(length) = text_bytes.get(*position).map(|bytes| corpus.length(*bytes)) else { continue };
            let share = *count as f32 / length;
            if let Some(score) = scores.own.get_mut(*position) {
                *score += of(share);
            }
            let Some(neighbours) = around.get(*position) else { continue };
            let mut lend = |position: usize, share: f32| {
                if let Some(sum) = shares.get_mut(position) {
                    *sum += share;
                    touched.push(position);
                }
            };
            lend(*position, share);
            for (neighbours, weight) in neighbours.iter().zip(NEIGHBOUR_WEIGHTS) {
                neighbours.iter().flatten().for_each(|position| lend(*position, weight * share));
            }
        }
        for position in touched.drain(..) {
            let (Some(share), Some(score)) = (shares.get_mut(position), scores.with_neighbours.get_mut(position))
            else {
                continue;
            };
            *score += of(std::mem::take(share));
        }
    }
    if around.is_empty() {
        scores.with_neighbours.clone_from(&scores.own);
    }
    over_best(&mut scores.own);
    over_best(&mut scores.with_neighbours);
    scores
}

fn over_best(scores: &mut [f32]) {
    let best = scores.iter().copied().fold(0.0, f32::max);
    if best > 0.0 {
        for score in scores.iter_mut() {
            *score /= best;
        }
    }
}

/// A memory's cosine with a little of its neighbours': 0 to 1, and never less than its own.
fn cosine_with_neighbours(cosines: &[f32], position: usize, around: &Around) -> f32 {
    let of = |position: usize| cosines.get(position).copied().unwrap_or_default().clamp(0.0, 1.0);
    let lent = around
        .iter()
        .zip(NEIGHBOUR_WEIGHTS)
        .flat_map(|(neighbours, weight)| neighbours.iter().flatten().map(move |position| weight * of(*position)));
    (of(position) + NEIGHBOUR_SEMANTIC_WEIGHT * lent.sum::<f32>()).min(1.0)
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

/// The fused score: the weighted mean of the parts that were used.
pub fn fused(semantic: Option<f32>, keyword: Option<f32>) -> Parts {
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

/// What of a candidate is known before its text: its own parts, and a score that takes in its neighbours where it has any.
pub fn hybrid(cosines: &[f32], words: &WordScores, position: usize, around: &Around) -> Parts {
    let of = |scores: &[f32]| scores.get(position).copied();
    let own = fused(of(cosines), of(&words.own));
    let with_neighbours = fused(Some(cosine_with_neighbours(cosines, position, around)), of(&words.with_neighbours));
    Parts { score: with_neighbours.score, ..own }
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

    fn at(position: usize, count: u32) -> (usize, u32) {
        (position, count)
    }

    /// A conversation of `length` candidates.
    fn conversation(length: usize) -> Vec<Around> {
        let mut around = vec![Around::default(); length];
        link(&(0..length).map(Some).collect::<Vec<_>>(), &mut around);
        around
    }

    #[test]
    fn neighbours_are_those_of_the_run_and_what_is_no_candidate_keeps_its_place() {
        let mut around = vec![Around::default(); 4];
        link(&[Some(2), None, Some(0), Some(1)], &mut around);
        assert_eq!(around[0], [[None, Some(1)], [Some(2), None]]);
        assert_eq!(around[1], [[Some(0), None], [None, None]]);
        assert_eq!(around[2], [[None, None], [None, Some(0)]]);
        assert_eq!(around[3], Around::default());
        assert!(is_same_run(Timestamp(0), Timestamp(1_800_000)));
        assert!(!is_same_run(Timestamp(0), Timestamp(1_800_001)));
    }

    #[test]
    fn a_word_beside_counts_less_than_ones_own_and_is_no_own_word() {
        let corpus = Corpus { memories: 100, text_bytes: 10_000 };
        let words = [WordRows { memories_with_it: 2, counts: vec![at(0, 1), at(5, 1)] }];
        let scores = word_scores(corpus, &[100; 6], &words, &conversation(5));
        assert_eq!(scores.own, [1.0, 0.0, 0.0, 0.0, 0.0, 1.0]);
        let with = scores.with_neighbours;
        assert!((with[0] - 1.0).abs() < 1e-6);
        assert!(with[0] > with[1] && with[1] > with[2] && with[2] > 0.0, "{with:?}");
        assert!(with[3].abs() < f32::EPSILON && with[5].abs() < f32::EPSILON, "{with:?}");
        let alone = word_scores(corpus, &[100; 6], &words, &[]);
        assert_eq!(alone.with_neighbours, scores.own);
    }

    #[test]
    fn words_of_the_query_in_two_neighbours_lift_both() {
        let corpus = Corpus { memories: 100, text_bytes: 10_000 };
        let word = |positions: &[usize]| WordRows {
            memories_with_it: positions.len(),
            counts: positions.iter().map(|position| at(*position, 1)).collect(),
        };
        // The first and second hold a word each, the fourth one of them without the other near.
        let words = [word(&[0, 4]), word(&[1, 9])];
        let scores = word_scores(corpus, &[100; 10], &words, &conversation(6));
        assert!((scores.own[0] - scores.own[4]).abs() < 1e-6);
        assert!(scores.with_neighbours[0] > scores.with_neighbours[4]);
        assert!(scores.with_neighbours.iter().all(|score| (0.0..=1.0).contains(score)));
    }

    #[test]
    fn a_score_with_neighbours_stays_within_1_and_its_parts_are_its_own() {
        let around = conversation(3);
        let words = WordScores { own: vec![0.0, 0.5, 0.0], with_neighbours: vec![0.4, 1.0, 0.4] };
        let middle = hybrid(&[0.9, 1.0, 0.9], &words, 1, &around[1]);
        assert_eq!(middle, Parts { score: 1.0, semantic: Some(1.0), keyword: Some(0.5) });
        let lower = hybrid(&[-0.5, 0.4, -0.5], &words, 1, &around[1]);
        assert_eq!(lower.semantic, Some(0.4));
        assert!(lower.score < middle.score);
        let edge = hybrid(&[0.0, 0.9, 0.0], &words, 0, &around[0]);
        assert_eq!(edge.semantic, Some(0.0));
        assert!(edge.score > hybrid(&[0.0, 0.9, 0.0], &words, 0, &Around::default()).score);
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
        let best_of = |first: (usize, i64), second: (usize, i64)| {
            let words = [(0, first.0), (1, second.0)]
                .map(|(position, with_it)| WordRows { memories_with_it: with_it, counts: vec![at(position, 1)] });
            word_scores(corpus, &[first.1, second.1], &words, &[]).own
        };
        let rare = best_of((1, 100), (50, 100));
        assert!(rare[0] > rare[1] && rare[1] > 0.0, "{rare:?}");
        let short = best_of((5, 50), (5, 500));
        assert!(short[0] > short[1], "{short:?}");
        assert!(best_of((200, 100), (1, 100))[0] > 0.0);
        let none =
            word_scores(Corpus::default(), &[0], &[WordRows { memories_with_it: 1, counts: vec![at(0, 1)] }], &[]);
        assert_eq!(none.own, [1.0]);
    }

    #[test]
    fn the_product_of_stored_bytes_is_the_product_of_the_numbers() {
        let query = [0.5_f32; EMBEDDING_DIMENSIONS];
        let stored: Vec<u8> = (0..384_u16).flat_map(|number| f32::from(number).to_le_bytes()).collect();
        assert!((dot_of_bytes(&query, &stored) - 36_768.0).abs() < 0.5);
        assert!(dot_of_bytes(&query, &[]).abs() < f32::EPSILON);
    }
}
