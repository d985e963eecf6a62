//! Reading the model's compact file, whose layout `assets/model/convert.py` documents.

use rten_gemm::{GemmExecutor, PackedBMatrix};
use rten_tensor::Matrix;

use super::vector_math::BLOCK;
use crate::adapter::embedder::EmbedError;
use crate::domain::memory::EMBEDDING_DIMENSIONS;

/// Multiplies unsigned activations by signed weights, with 32-bit sums.
pub(super) type IntegerProduct = GemmExecutor<u8, i8, i32>;

const MAGIC: &[u8] = b"TBEMBED1";

/// Weights of the whole model.
pub(super) struct Weights {
    /// Number of attention heads.
    pub(super) heads: usize,
    /// Number of tokens in the vocabulary.
    pub(super) vocabulary: usize,
    /// Width of the inner layer.
    pub(super) inner: usize,
    /// Most tokens of a window.
    pub(super) positions: usize,
    /// One row of i8 a token, as bytes.
    token_table: &'static [u8],
    /// One factor a token.
    token_scales: Box<[f32]>,
    /// One row a position.
    position_table: Box<[f32]>,
    /// Norm of the sum of a token's row and a position's row.
    pub(super) norm: Norm,
    /// The transformer layers in order.
    pub(super) layers: Vec<Layer>,
}

/// Weights of one transformer layer.
pub(super) struct Layer {
    /// Query, key and value beside each other; queries are already divided by the root of the
    /// head size.
    pub(super) query_key_value: Linear,
    pub(super) attention_output: Linear,
    pub(super) attention_norm: Norm,
    pub(super) inner: Linear,
    pub(super) output: Linear,
    pub(super) output_norm: Norm,
}

/// A linear layer, y = ((x * factors) @ matrix) * scales + bias.
pub(super) struct Linear {
    /// One factor an input, which levels the inputs before they are rounded to 8 bits.
    pub(super) factors: Box<[f32]>,
    /// [input, output], arranged for the processor's product kernel. Neighbouring inputs of the
    /// same sign have a sum within -128..=128, so that a product kernel which adds such pairs
    /// in 16 bits does not saturate.
    pub(super) matrix: PackedBMatrix<i8>,
    /// Sum of the matrix's integers for each output.
    pub(super) column_sums: Box<[f32]>,
    /// One factor an output.
    pub(super) scales: Box<[f32]>,
    /// One addend an output.
    pub(super) bias: Box<[f32]>,
}

/// Factors and addends of a layer norm.
pub(super) struct Norm {
    pub(super) weight: Box<[f32]>,
    pub(super) bias: Box<[f32]>,
}

impl Weights {
    /// Reads the model from `file` and arranges its matrices for `product`.
    ///
    /// # Errors
    ///
    /// [`EmbedError::Damaged`] when the file is not as `convert.py` writes it.
    pub(super) fn read(file: &'static [u8], product: &IntegerProduct) -> Result<Self, EmbedError> {
        let mut reader = Reader { rest: file };
        if reader.bytes(MAGIC.len())? != MAGIC {
            return Err(damaged("it does not begin as a model file"));
        }
        let mut dimensions = [0; 6];
        for dimension in &mut dimensions {
            *dimension = reader.number()?;
        }
        let [vocabulary, hidden, layers, heads, inner, positions] = dimensions;
        let whole_blocks = hidden.is_multiple_of(BLOCK) && inner.is_multiple_of(BLOCK);
        let whole_heads = heads > 0 && (hidden / heads).is_multiple_of(16);
        if hidden != EMBEDDING_DIMENSIONS || !whole_blocks || !whole_heads {
            return Err(damaged("its dimensions are not supported"));
        }
        let token_table = reader.bytes(vocabulary * hidden)?;
        let token_scales = reader.floats(vocabulary)?;
        let position_table = reader.floats(positions * hidden)?;
        let norm = reader.norm(hidden)?;
        let layers = (0..layers).map(|_| reader.layer(hidden, inner, product)).collect::<Result<_, _>>()?;
        if !reader.rest.is_empty() {
            return Err(damaged("it is longer than its dimensions tell"));
        }
        Ok(Self { heads, vocabulary, inner, positions, token_table, token_scales, position_table, norm, layers })
    }

    /// Writes the sum of a token's row and a position's row to `output`.
    pub(super) fn embed_token(&self, token: usize, position: usize, output: &mut [f32]) {
        let width = output.len();
        let scale = self.token_scales[token];
        let levels = &self.token_table[token * width..][..width];
        let positions = &self.position_table[position * width..][..width];
        for ((output, &level), position) in output.iter_mut().zip(levels).zip(positions) {
            *output = f32::from(level.cast_signed()) * scale + position;
        }
    }
}

/// Whether every two neighbouring inputs' weights of an output, each times an unsigned byte, have
/// sums that fit 16 bits.
fn pairs_fit(levels: &[i8], outputs: usize) -> bool {
    let limits = i32::from(i16::MIN)..=i32::from(i16::MAX);
    levels.chunks_exact(2 * outputs).all(|rows| {
        let (even, odd) = rows.split_at(outputs);
        even.iter().zip(odd).all(|(&even, &odd)| {
            let (even, odd) = (i32::from(even), i32::from(odd));
            let largest = (even.max(0) + odd.max(0)) * i32::from(u8::MAX);
            let least = (even.min(0) + odd.min(0)) * i32::from(u8::MAX);
            limits.contains(&largest) && limits.contains(&least)
        })
    })
}

fn damaged(detail: &str) -> EmbedError {
    EmbedError::Damaged { detail: detail.to_owned() }
}

/// Takes the parts of the file one after the other.
struct Reader {
    rest: &'static [u8],
}

impl Reader {
    fn bytes(&mut self, length: usize) -> Result<&'static [u8], EmbedError> {
        let Some((taken, rest)) = self.rest.split_at_checked(length) else {
            return Err(damaged("it is shorter than its dimensions tell"));
        };
        self.rest = rest;
        Ok(taken)
    }

    fn number(&mut self) -> Result<usize, EmbedError> {
        let mut number = [0; 4];
        number.copy_from_slice(self.bytes(4)?);
        usize::try_from(u32::from_le_bytes(number)).map_err(|_| damaged("a dimension is too large"))
    }

    fn floats(&mut self, count: usize) -> Result<Box<[f32]>, EmbedError> {
        let (chunks, _) = self.bytes(count * 4)?.as_chunks::<4>();
        Ok(chunks.iter().copied().map(f32::from_le_bytes).collect())
    }

    fn norm(&mut self, width: usize) -> Result<Norm, EmbedError> {
        Ok(Norm { weight: self.floats(width)?, bias: self.floats(width)? })
    }

    fn linear(&mut self, inputs: usize, outputs: usize, product: &IntegerProduct) -> Result<Linear, EmbedError> {
        let bytes = self.bytes(inputs * outputs)?;
        let levels: Vec<i8> = bytes.iter().map(|byte| byte.cast_signed()).collect();
        debug_assert!(pairs_fit(&levels, outputs), "a pair saturates 16 bits");
        let matrix = Matrix::from_data([inputs, outputs], levels.as_slice());
        let mut column_sums = vec![0.0; outputs];
        for row in levels.chunks_exact(outputs) {
            for (sum, &level) in column_sums.iter_mut().zip(row) {
                *sum += f32::from(level);
            }
        }
        Ok(Linear {
            column_sums: column_sums.into_boxed_slice(),
            matrix: product.prepack_b(matrix),
            factors: self.floats(inputs)?,
            scales: self.floats(outputs)?,
            bias: self.floats(outputs)?,
        })
    }

    fn layer(&mut self, hidden: usize, inner: usize, product: &IntegerProduct) -> Result<Layer, EmbedError> {
        Ok(Layer {
            query_key_value: self.linear(hidden, 3 * hidden, product)?,
            attention_output: self.linear(hidden, hidden, product)?,
            attention_norm: self.norm(hidden)?,
            inner: self.linear(hidden, inner, product)?,
            output: self.linear(inner, hidden, product)?,
            output_norm: self.norm(hidden)?,
        })
    }
}
