//! Short codes of embeddings, by which the nearest of many are narrowed down before they are compared exactly.
#![expect(clippy::arithmetic_side_effects, reason = "places in arrays of known length")]

use super::{EMBEDDING_DIMENSIONS, Embedding};

/// Words of a code: a bit a number.
const WORDS: usize = EMBEDDING_DIMENSIONS / 64;
/// Bytes of a code.
const BYTES: usize = EMBEDDING_DIMENSIONS / 8;

/// Numbers that are mixed with each other at once.
const BLOCK: usize = 128;

/// Signs that look random, of one round of the mixing.
const fn signs(seed: u64) -> [f32; EMBEDDING_DIMENSIONS] {
    let mut signs = [1.0; EMBEDDING_DIMENSIONS];
    let (mut state, mut place) = (seed, 0);
    while place < EMBEDDING_DIMENSIONS {
        // Marsaglia's xorshift.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        if state & 1 == 1 {
            signs[place] = -1.0;
        }
        place += 1;
    }
    signs
}

const ROUNDS: [[f32; EMBEDDING_DIMENSIONS]; 2] = [signs(0x9e37_79b9_7f4a_7c15), signs(0xd1b5_4a32_d192_ed03)];

/// Turns a vector in space (and makes it longer), always in the same way: angles stay, and each number becomes a mixture of
/// all, so that its sign tells something whichever way a model uses its numbers. Where most are 0 or all are above 0, the
/// signs of the numbers themselves tell nothing.
#[expect(clippy::float_arithmetic, reason = "vectors are floats")]
fn turn(values: &[f32; EMBEDDING_DIMENSIONS]) -> [f32; EMBEDDING_DIMENSIONS] {
    let mut turned = *values;
    for signs in &ROUNDS {
        let mut spread = [0.0_f32; EMBEDDING_DIMENSIONS];
        // Dealt out in turns, so that each block of the next round has a share of each of this one.
        for (place, (value, sign)) in turned.iter().zip(signs).enumerate() {
            let blocks = EMBEDDING_DIMENSIONS / BLOCK;
            spread[(place % blocks) * BLOCK + place / blocks] = value * sign;
        }
        for block in spread.as_chunks_mut::<BLOCK>().0 {
            let mut half = 1;
            while half < BLOCK {
                for pair in block.chunks_exact_mut(half * 2) {
                    let (left, right) = pair.split_at_mut(half);
                    for (left, right) in left.iter_mut().zip(right) {
                        (*left, *right) = (*left + *right, *left - *right);
                    }
                }
                half *= 2;
            }
        }
        turned = spread;
    }
    turned
}

/// The signs of an embedding's numbers, once it is turned: 48 bytes instead of 1,536.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code([u64; WORDS]);

impl Code {
    /// The code of `embedding`.
    pub fn of(embedding: &Embedding) -> Self {
        Self::of_numbers(embedding.as_array())
    }

    /// The code of an embedding as it is stored; of anything else one that means nothing.
    pub fn of_bytes(stored: &[u8]) -> Self {
        let mut numbers = [0.0_f32; EMBEDDING_DIMENSIONS];
        for (number, bytes) in numbers.iter_mut().zip(stored.as_chunks::<4>().0) {
            *number = f32::from_le_bytes(*bytes);
        }
        Self::of_numbers(&numbers)
    }

    fn of_numbers(numbers: &[f32; EMBEDDING_DIMENSIONS]) -> Self {
        let mut words = [0_u64; WORDS];
        for (word, numbers) in words.iter_mut().zip(turn(numbers).as_chunks::<64>().0) {
            *word =
                numbers.iter().enumerate().fold(0, |word, (place, number)| word | u64::from(*number > 0.0) << place);
        }
        Self(words)
    }

    /// In how many signs two codes differ: the more, the wider the angle between their embeddings.
    #[inline]
    pub fn distance(&self, other: &Self) -> u16 {
        // Over arrays, which the compiler unrolls; iterators that are zipped it does not always.
        let differing: u32 =
            std::array::from_fn::<u32, WORDS, _>(|word| (self.0[word] ^ other.0[word]).count_ones()).iter().sum();
        u16::try_from(differing).unwrap_or(u16::MAX)
    }

    /// A distance that no two codes have: one more than there are signs.
    pub const BEYOND: u16 = 385;
}

/// Estimates the inner product of one embedding with many by their codes: more exact than the distance of two codes, since
/// the embedding's own numbers count, and slower. Sums over the 256 values of each byte of a code are made beforehand.
pub struct Estimator(Vec<[f32; 256]>);

#[expect(clippy::float_arithmetic, reason = "scores are floats, and no one's money")]
impl Estimator {
    /// For `embedding`.
    pub fn new(embedding: &Embedding) -> Self {
        let mut sums = vec![[0.0_f32; 256]; BYTES];
        let turned = turn(embedding.as_array());
        let (groups, _) = turned.as_chunks::<8>();
        for (sums, numbers) in sums.iter_mut().zip(groups) {
            if let Some(none) = sums.first_mut() {
                *none = -numbers.iter().sum::<f32>();
            }
            // A value is the one without its lowest bit, and that bit's number twice: once taken back, once added.
            for value in 1..256_usize {
                let lowest = value.trailing_zeros() as usize;
                sums[value] = sums[value & (value - 1)] + 2.0 * numbers[lowest];
            }
        }
        Self(sums)
    }

    /// The sum of the turned embedding's numbers, each with the sign that the code has for it.
    pub fn estimate(&self, code: &Code) -> f32 {
        let bytes = code.0.iter().flat_map(|word| word.to_le_bytes());
        self.0.iter().zip(bytes).map(|(sums, byte)| sums[usize::from(byte)]).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn embedding(seed: u32) -> Embedding {
        let mut state = seed;
        let values: Vec<f32> = (0..EMBEDDING_DIMENSIONS)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                f32::from(u16::try_from(state >> 16).unwrap()) - 32_768.0
            })
            .collect();
        Embedding::normalised(&values).unwrap()
    }

    #[test]
    fn codes_of_opposites_differ_in_every_sign() {
        let one = embedding(1);
        let code = Code::of(&one);
        assert_eq!(code, Code::of_bytes(&one.to_bytes()));
        assert_eq!(code.distance(&code), 0);
        let opposite: Vec<f32> = one.as_slice().iter().map(|value| -value).collect();
        let opposite = Code::of(&Embedding::normalised(&opposite).unwrap());
        assert_eq!(code.distance(&opposite), 384);
        assert!(code.distance(&opposite) < Code::BEYOND);
    }

    #[test]
    fn to_turn_keeps_angles() {
        let (one, other) = (embedding(1), embedding(2));
        let (left, right) = (turn(one.as_array()), turn(other.as_array()));
        let dot = |left: &[f32], right: &[f32]| left.iter().zip(right).map(|(left, right)| left * right).sum::<f32>();
        let cosine = dot(&left, &right) / (dot(&left, &left) * dot(&right, &right)).sqrt();
        assert!((cosine - one.dot(&other)).abs() < 1e-4);
    }

    #[test]
    fn vectors_of_few_numbers_or_of_positive_ones_alone_are_told_apart() {
        let axis = |direction: usize, rest: f32| {
            let mut values = [rest; EMBEDDING_DIMENSIONS];
            values[direction] = 1.0;
            Code::of(&Embedding::normalised(&values).unwrap())
        };
        for other in [1, 2, 3, 127, 128, 200, 383] {
            // At a right angle about half of the signs differ.
            assert!((150..235).contains(&axis(0, 0.0).distance(&axis(other, 0.0))), "{other}");
            assert!((150..235).contains(&axis(0, 0.001).distance(&axis(other, 0.001))), "{other}");
        }
    }

    #[test]
    fn an_estimate_is_the_product_with_the_signs() {
        let (one, other) = (embedding(1), embedding(2));
        let signs = turn(other.as_array()).map(|value| if value > 0.0 { 1.0 } else { -1.0 });
        let exact: f32 = turn(one.as_array()).iter().zip(signs).map(|(value, sign)| value * sign).sum();
        let estimate = Estimator::new(&one).estimate(&Code::of(&other));
        assert!((estimate - exact).abs() < 0.01 * exact.abs().max(10.0), "{estimate} {exact}");
    }
}
