//! The forward pass: token ids in, mean of the last layer's rows out.
//!
//! Linear layers multiply 8-bit integers, everything else is f32. The rows of all texts of a
//! call lie below each other without padding: only the attention looks at which text a row
//! belongs to.

use std::ops::Range;

use rten_gemm::{GemmExecutor, GemmInputA, GemmInputB, GemmOptions};
use rten_simd::SimdOp;
use rten_tensor::Matrix;

use super::vector_math::{AddNormalise, Dequantise, DequantiseGelu, Exponentials, Quantise, ScaleInto, Scaling};
use super::weights::{IntegerProduct, Layer, Linear, Weights};
use crate::adapter::embedder::EmbedError;
use crate::domain::memory::EMBEDDING_DIMENSIONS;

/// Rows that go through a chain of products together, so that what they leave stays in the
/// second-level cache. A multiple of the product kernels' tile heights, 4, 6 and 8.
const ROWS: usize = 48;

/// Score rows are padded to a multiple of this, the widest vector.
const LANES: usize = 16;

/// The model, ready to run.
pub(super) struct Network {
    weights: Weights,
}

/// One run of the model. It makes its own product kernels, which take no time to make but must
/// stay on the thread they are made on.
struct Run<'a> {
    weights: &'a Weights,
    integer_product: IntegerProduct,
    float_product: GemmExecutor,
}

/// Working memory of the products on up to [`ROWS`] rows.
struct Scratch {
    bytes: Vec<u8>,
    scales: Vec<f32>,
    zeros: Vec<f32>,
    sums: Vec<i32>,
    inner: Vec<f32>,
}

impl Network {
    /// Reads the model from the bytes of its file.
    ///
    /// # Errors
    ///
    /// [`EmbedError::Damaged`] when they are not as expected.
    pub(super) fn load(file: &'static [u8]) -> Result<Self, EmbedError> {
        let weights = Weights::read(file, &IntegerProduct::new())?;
        Ok(Self { weights })
    }

    /// Most tokens of a text.
    pub(super) fn positions(&self) -> usize {
        self.weights.positions
    }

    /// Number of token ids.
    pub(super) fn vocabulary(&self) -> usize {
        self.weights.vocabulary
    }

    /// Mean of the last layer's rows for each text of `texts`, given as token ids. A text must
    /// have at least one token and no more than [`Network::positions`].
    ///
    /// # Errors
    ///
    /// [`EmbedError::Damaged`] when a product refuses its inputs, which the shapes rule out.
    pub(super) fn run(&self, texts: &[Vec<u32>]) -> Result<Vec<[f32; EMBEDDING_DIMENSIONS]>, EmbedError> {
        Run { weights: &self.weights, integer_product: IntegerProduct::new(), float_product: GemmExecutor::new() }
            .means(texts)
    }
}

impl Run<'_> {
    fn means(&self, texts: &[Vec<u32>]) -> Result<Vec<[f32; EMBEDDING_DIMENSIONS]>, EmbedError> {
        let width = EMBEDDING_DIMENSIONS;
        let mut ranges = Vec::with_capacity(texts.len());
        let mut rows = 0;
        for text in texts {
            ranges.push(rows..rows + text.len());
            rows += text.len();
        }
        let mut hidden = vec![0.0; rows * width];
        for (row, (position, token)) in
            hidden.chunks_exact_mut(width).zip(texts.iter().flat_map(|text| text.iter().enumerate()))
        {
            self.weights.embed_token(*token as usize, position, row);
        }
        AddNormalise {
            sums: None,
            hidden: &mut hidden,
            weight: &self.weights.norm.weight,
            bias: &self.weights.norm.bias,
        }
        .dispatch();
        let mut scratch = Scratch::new(rows.min(ROWS), self.weights.inner);
        // The rows past the last one let the attention read whole vectors of keys.
        let mut query_key_value = vec![0.0; (rows + LANES) * 3 * width];
        let mut context = vec![0.0; rows * width];
        for layer in &self.weights.layers {
            self.project(layer, &hidden, &mut query_key_value, &mut scratch)?;
            for range in &ranges {
                self.attend(range.clone(), &query_key_value, &mut context)?;
            }
            self.transform(layer, &context, &mut hidden, &mut scratch)?;
        }
        Ok(ranges.into_iter().map(|rows| mean(&hidden, rows)).collect())
    }

    /// Queries, keys and values of every row.
    fn project(
        &self,
        layer: &Layer,
        hidden: &[f32],
        query_key_value: &mut [f32],
        scratch: &mut Scratch,
    ) -> Result<(), EmbedError> {
        let width = EMBEDDING_DIMENSIONS;
        for (input, output) in hidden.chunks(ROWS * width).zip(query_key_value.chunks_mut(ROWS * 3 * width)) {
            let output = &mut output[..input.len() * 3];
            let linear = &layer.query_key_value;
            self.multiply(linear, input, scratch)?;
            let (sums, scaling) = scratch.result(linear, input.len() / width);
            Dequantise { sums, scaling, output }.dispatch();
        }
        Ok(())
    }

    /// What follows the attention in a layer: its output, and the two layers after it.
    fn transform(
        &self,
        layer: &Layer,
        context: &[f32],
        hidden: &mut [f32],
        scratch: &mut Scratch,
    ) -> Result<(), EmbedError> {
        let block = ROWS * EMBEDDING_DIMENSIONS;
        for (context, hidden) in context.chunks(block).zip(hidden.chunks_mut(block)) {
            let rows = context.len() / EMBEDDING_DIMENSIONS;
            self.multiply(&layer.attention_output, context, scratch)?;
            AddNormalise {
                sums: Some(scratch.result(&layer.attention_output, rows)),
                hidden: &mut *hidden,
                weight: &layer.attention_norm.weight,
                bias: &layer.attention_norm.bias,
            }
            .dispatch();

            self.multiply(&layer.inner, hidden, scratch)?;
            let mut inner = std::mem::take(&mut scratch.inner);
            let (sums, scaling) = scratch.result(&layer.inner, rows);
            DequantiseGelu { sums, scaling, output: &mut inner[..sums.len()] }.dispatch();
            let values = rows * self.weights.inner;
            let done = self.multiply(&layer.output, &inner[..values], scratch);
            scratch.inner = inner;
            done?;
            AddNormalise {
                sums: Some(scratch.result(&layer.output, rows)),
                hidden,
                weight: &layer.output_norm.weight,
                bias: &layer.output_norm.bias,
            }
            .dispatch();
        }
        Ok(())
    }

    /// Integer sums of the product of `input`, rounded to 8 bits, and the layer's matrix.
    fn multiply(&self, linear: &Linear, input: &[f32], scratch: &mut Scratch) -> Result<(), EmbedError> {
        let inputs = linear.matrix.rows();
        let rows = input.len() / inputs;
        let Scratch { bytes, scales, zeros, sums, .. } = scratch;
        let bytes = &mut bytes[..input.len()];
        Quantise {
            input,
            factors: &linear.factors,
            bytes: &mut *bytes,
            scales: &mut scales[..rows],
            zeros: &mut zeros[..rows],
        }
        .dispatch();
        self.integer_product
            .gemm(
                &mut sums[..rows * linear.matrix.cols()],
                GemmInputA::Unpacked(Matrix::from_data([rows, inputs], &*bytes)),
                GemmInputB::Packed(&linear.matrix),
                // Zero points differ by row, which the library does not support: it would take
                // the first rows' for all. So `Scaling` subtracts them.
                GemmOptions::default(),
            )
            .map_err(|error| impossible(&error))
    }

    /// Attention of the text in `rows` of `query_key_value`, into the same rows of `context`.
    fn attend(&self, rows: Range<usize>, query_key_value: &[f32], context: &mut [f32]) -> Result<(), EmbedError> {
        let width = EMBEDDING_DIMENSIONS;
        let size = width / self.weights.heads;
        let count = rows.len();
        let stride = count.next_multiple_of(LANES);
        let input = &query_key_value[rows.start * 3 * width..];
        let output = &mut context[rows.start * width..rows.end * width];
        let mut scores = vec![0.0; count * stride];
        let mut weighted = vec![0.0; count * size];
        let mut inverse_sums = vec![0.0; count];
        for head in 0..self.weights.heads {
            let column = head * size;
            let queries = view(&input[column..], [count, size], [3 * width, 1])?;
            let keys = view(&input[width + column..], [size, stride], [1, 3 * width])?;
            let values = view(&input[2 * width + column..], [count, size], [3 * width, 1])?;
            self.float_product
                .gemm(&mut scores, GemmInputA::Unpacked(queries), GemmInputB::Unpacked(keys), GemmOptions::default())
                .map_err(|error| impossible(&error))?;
            Exponentials { scores: &mut scores, stride, used: count, inverse_sums: &mut inverse_sums }.dispatch();
            self.float_product
                .gemm(
                    &mut weighted,
                    GemmInputA::Unpacked(view(&scores, [count, count], [stride, 1])?),
                    GemmInputB::Unpacked(values),
                    GemmOptions::default(),
                )
                .map_err(|error| impossible(&error))?;
            ScaleInto {
                input: &weighted,
                width: size,
                factors: &inverse_sums,
                output: &mut output[column..],
                stride: width,
            }
            .dispatch();
        }
        Ok(())
    }
}

impl Scratch {
    fn new(rows: usize, inner: usize) -> Self {
        Self {
            bytes: vec![0; rows * inner],
            scales: vec![0.0; rows],
            zeros: vec![0.0; rows],
            sums: vec![0; rows * inner],
            inner: vec![0.0; rows * inner],
        }
    }

    /// The last product's sums and the factors that turn them into f32.
    fn result<'a>(&'a self, linear: &'a Linear, rows: usize) -> (&'a [i32], Scaling<'a>) {
        let scaling = Scaling {
            rows: &self.scales[..rows],
            zeros: &self.zeros[..rows],
            column_sums: &linear.column_sums,
            columns: &linear.scales,
            bias: &linear.bias,
        };
        (&self.sums[..rows * linear.matrix.cols()], scaling)
    }
}

/// A matrix within `data`, with steps between its rows and columns.
fn view(data: &[f32], shape: [usize; 2], steps: [usize; 2]) -> Result<Matrix<'_>, EmbedError> {
    Matrix::from_slice_with_strides(shape, data, steps).map_err(|error| impossible(&error))
}

/// The shapes of all products follow from the checked dimensions, so this never happens.
fn impossible(error: &dyn std::error::Error) -> EmbedError {
    EmbedError::Damaged { detail: error.to_string() }
}

/// Mean of the given rows.
fn mean(hidden: &[f32], rows: Range<usize>) -> [f32; EMBEDDING_DIMENSIONS] {
    let mut sums = [0.0; EMBEDDING_DIMENSIONS];
    #[expect(clippy::cast_precision_loss, reason = "a text has at most 256 rows")]
    let factor = 1.0 / rows.len() as f32;
    for row in hidden.chunks_exact(EMBEDDING_DIMENSIONS).skip(rows.start).take(rows.len()) {
        for (sum, value) in sums.iter_mut().zip(row) {
            *sum += value * factor;
        }
    }
    sums
}
