//! Embeddings: what a vector must be.

use super::EMBEDDING_DIMENSIONS;

/// What keeps numbers from being an embedding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EmbeddingFault {
    /// Not 384 numbers.
    #[error("must hold {EMBEDDING_DIMENSIONS} numbers, not {0}")]
    Length(usize),
    /// A number that is NaN or infinite as a 32-bit float.
    #[error("number {0} is not finite as a 32-bit float")]
    NotFinite(usize),
    /// All numbers are 0, which points nowhere.
    #[error("must not be the zero vector")]
    Zero,
}

/// An embedding: `[f32; 384]`, finite, L2-normalised.
#[derive(Clone, Debug, PartialEq)]
pub struct Embedding(Box<[f32; EMBEDDING_DIMENSIONS]>);

#[expect(clippy::float_arithmetic, reason = "vectors are floats")]
impl Embedding {
    /// Normalises `values` to length 1. The length is taken in f64, so that neither large nor tiny numbers are lost.
    ///
    /// # Errors
    /// A fault where `values` are not 384 finite numbers, or all zero.
    pub fn normalised(values: &[f32]) -> Result<Self, EmbeddingFault> {
        let mut array = Box::new([0.0_f32; EMBEDDING_DIMENSIONS]);
        if values.len() != EMBEDDING_DIMENSIONS {
            return Err(EmbeddingFault::Length(values.len()));
        }
        if let Some(position) = values.iter().position(|value| !value.is_finite()) {
            return Err(EmbeddingFault::NotFinite(position));
        }
        let length = values.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
        if length == 0.0 {
            return Err(EmbeddingFault::Zero);
        }
        for (target, value) in array.iter_mut().zip(values) {
            #[expect(clippy::cast_possible_truncation, reason = "a quotient of at most 1")]
            let scaled = (f64::from(*value) / length) as f32;
            *target = scaled;
        }
        Ok(Self(array))
    }

    /// The numbers.
    pub fn as_slice(&self) -> &[f32] {
        self.0.as_slice()
    }

    /// The numbers, as an array.
    pub fn as_array(&self) -> &[f32; EMBEDDING_DIMENSIONS] {
        &self.0
    }

    /// From what [`Embedding::to_bytes`] gave; none for anything else.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (numbers, []) = bytes.as_chunks::<4>() else { return None };
        let values: Vec<f32> = numbers.iter().map(|number| f32::from_le_bytes(*number)).collect();
        Self::normalised(&values).ok()
    }

    /// Little-endian bytes, 4 a number, as stored.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    /// Inner product, which is the cosine of two normalised vectors: -1 to 1.
    pub fn dot(&self, other: &Self) -> f32 {
        self.0.iter().zip(other.0.iter()).map(|(left, right)| left * right).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_embedding_is_normalised_and_never_zero_or_infinite() {
        let embedding = Embedding::normalised(&[1e-30; EMBEDDING_DIMENSIONS]).unwrap();
        assert!((embedding.dot(&embedding) - 1.0).abs() < 1e-5);
        assert_eq!(Embedding::normalised(&[0.0; EMBEDDING_DIMENSIONS]), Err(EmbeddingFault::Zero));
        assert_eq!(Embedding::normalised(&[1.0; 3]), Err(EmbeddingFault::Length(3)));
        let mut values = [1.0; EMBEDDING_DIMENSIONS];
        values[7] = f32::NAN;
        assert_eq!(Embedding::normalised(&values), Err(EmbeddingFault::NotFinite(7)));
    }
}
