//! Short codes of embeddings, by which the nearest of many are narrowed down before they are compared exactly.

use super::{EMBEDDING_DIMENSIONS, Embedding};

/// Words of a code: a bit a number.
const WORDS: usize = EMBEDDING_DIMENSIONS / 64;
/// Bytes of a code.
const BYTES: usize = EMBEDDING_DIMENSIONS / 8;

/// The signs of an embedding's numbers: 48 bytes instead of 1,536.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code([u64; WORDS]);

impl Code {
    /// The code of `embedding`.
    pub fn of(embedding: &Embedding) -> Self {
        Self::of_signs(embedding.as_array().iter().map(|value| *value > 0.0))
    }

    /// The code of an embedding as it is stored; of anything else one that means nothing.
    pub fn of_bytes(stored: &[u8]) -> Self {
        let (numbers, _) = stored.as_chunks::<4>();
        Self::of_signs(numbers.iter().map(|number| f32::from_le_bytes(*number) > 0.0))
    }

    fn of_signs(signs: impl Iterator<Item = bool>) -> Self {
        let mut words = [0_u64; WORDS];
        for (place, sign) in signs.take(EMBEDDING_DIMENSIONS).enumerate() {
            if let Some(word) = words.get_mut(place / 64) {
                *word |= u64::from(sign) << (place % 64);
            }
        }
        Self(words)
    }

    /// In how many signs two codes differ: the more, the wider the angle between their embeddings.
    #[inline]
    pub fn distance(&self, other: &Self) -> u16 {
        let differing: u32 = self.0.iter().zip(other.0).map(|(left, right)| (left ^ right).count_ones()).sum();
        u16::try_from(differing).unwrap_or(u16::MAX)
    }

    /// A distance that no two codes have.
    pub const BEYOND: u16 = EMBEDDING_DIMENSIONS as u16 + 1;
}

/// Estimates the inner product of one embedding with many by their codes: more exact than the distance of two codes, since
/// the embedding's own numbers count, and slower. Sums over the 256 values of each byte of a code are made beforehand.
pub struct Estimator(Box<[[f32; 256]; BYTES]>);

#[expect(clippy::float_arithmetic, reason = "scores are floats, and no one's money")]
impl Estimator {
    /// For `embedding`.
    pub fn new(embedding: &Embedding) -> Self {
        let mut sums = Box::new([[0.0_f32; 256]; BYTES]);
        let (groups, _) = embedding.as_slice().as_chunks::<8>();
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

    /// The sum of the embedding's numbers, each with the sign that the code has for it.
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
    fn a_code_is_the_signs() {
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
    fn an_estimate_is_the_product_with_the_signs() {
        let (one, other) = (embedding(1), embedding(2));
        let signs = other.as_slice().iter().map(|value| if *value > 0.0 { 1.0 } else { -1.0 });
        let exact: f32 = one.as_slice().iter().zip(signs).map(|(value, sign)| value * sign).sum();
        assert!((Estimator::new(&one).estimate(&Code::of(&other)) - exact).abs() < 1e-3);
    }
}
