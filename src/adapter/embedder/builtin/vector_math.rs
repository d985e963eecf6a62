//! The steps between the matrix products, vectorised for the processor's instruction set, which
//! is found at run time. Matrices are row-major slices, and a row's length must be a multiple
//! of [`BLOCK`], which spares every loop a scalar tail.
#![expect(
    clippy::inline_always,
    reason = "a vector operation is one instruction only if all of it is inlined into the function that is compiled for its instruction set"
)]

use rten_simd::ops::{BitOps, FloatOps, IntOps, NarrowSaturate, NumOps, ToFloat};
use rten_simd::{Isa, Simd, SimdOp};

/// Row lengths are multiples of this: four vectors of the widest instruction set, 16 f32 lanes.
pub(super) const BLOCK: usize = 64;

/// Added to a variance before its root is taken, as the model was trained.
const NORM_EPSILON: f32 = 1e-12;

/// Beyond this magnitude the normal distribution function is taken as constant.
const GELU_LIMIT: f32 = 4.0;

/// Least-maximum fit of (Φ(x) - 1/2) / x in powers of x² for |x| <= [`GELU_LIMIT`], weighted so
/// that x·Φ(x) is off by less than 2e-4. The result is rounded to 8 bits, so more digits would
/// be lost anyway.
const GELU_POLYNOMIAL: [f32; 7] =
    [0.397_883_4, -0.064_573_11, 0.008_772_389, -0.000_814_015_6, 4.795_553_5e-5, -1.598_603e-6, 2.278_145_5e-8];

/// Least-maximum fit of 2^x for |x| <= 1/2, off by less than 3e-6 of the value.
const EXP2_POLYNOMIAL: [f32; 5] = [0.999_999_3, 0.693_121_8, 0.240_247_45, 0.055_917_863, 0.009_570_102];

/// What turns the integer sums of a quantised product into f32:
/// value = (sum - row zero * column sum) * row scale * column scale + bias.
#[derive(Clone, Copy)]
pub(super) struct Scaling<'a> {
    /// One factor a row.
    pub(super) rows: &'a [f32],
    /// For each row, the byte that stands for 0.
    pub(super) zeros: &'a [f32],
    /// Sum of the matrix's integers in each column.
    pub(super) column_sums: &'a [f32],
    /// One factor a column.
    pub(super) columns: &'a [f32],
    /// One addend a column.
    pub(super) bias: &'a [f32],
}

/// x·Φ(x), with Φ the normal distribution function.
#[inline(always)]
fn gelu<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    let ops = isa.f32();
    let clamped = ops.clamp(x, ops.splat(-GELU_LIMIT), ops.splat(GELU_LIMIT));
    let odd = polynomial(isa, ops.mul(clamped, clamped), GELU_POLYNOMIAL);
    let distribution = ops.mul_add(clamped, odd, ops.splat(0.5));
    ops.mul(x, distribution)
}

/// Hands each vector of a row's values, made from the integer sums of a product, to `take`
/// with the part of `output` at its place.
#[inline(always)]
fn scale_row<I: Isa>(
    isa: I,
    sums: &[i32],
    scaling: Scaling<'_>,
    row: usize,
    output: &mut [f32],
    take: impl Fn(I::F32, &mut [f32]),
) {
    let (ops, integers) = (isa.f32(), isa.i32());
    let lanes = ops.len();
    let row_scale = ops.splat(scaling.rows[row]);
    let zero = ops.splat(-scaling.zeros[row]);
    for ((((sums, output), column_sums), scale), bias) in sums
        .chunks_exact(lanes)
        .zip(output.chunks_exact_mut(lanes))
        .zip(scaling.column_sums.chunks_exact(lanes))
        .zip(scaling.columns.chunks_exact(lanes))
        .zip(scaling.bias.chunks_exact(lanes))
    {
        let sum = integers.to_float(integers.load(sums));
        let sum = ops.mul_add(zero, ops.load(column_sums), sum);
        let scale = ops.mul(ops.load(scale), row_scale);
        take(ops.mul_add(sum, scale, ops.load(bias)), output);
    }
}

/// Evaluates `coefficients`, lowest power first, at `x`.
#[inline(always)]
fn polynomial<I: Isa, const N: usize>(isa: I, x: I::F32, coefficients: [f32; N]) -> I::F32 {
    let ops = isa.f32();
    let mut value = ops.splat(coefficients[N - 1]);
    for &coefficient in coefficients[..N - 1].iter().rev() {
        value = ops.mul_add(value, x, ops.splat(coefficient));
    }
    value
}

/// Integer sums to f32, into `output`.
pub(super) struct Dequantise<'a> {
    pub(super) sums: &'a [i32],
    pub(super) scaling: Scaling<'a>,
    pub(super) output: &'a mut [f32],
}

impl SimdOp for Dequantise<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let ops = isa.f32();
        let width = self.scaling.columns.len();
        for (row, (sums, output)) in self.sums.chunks_exact(width).zip(self.output.chunks_exact_mut(width)).enumerate()
        {
            scale_row(
                isa,
                sums,
                self.scaling,
                row,
                output,
                #[inline(always)]
                |value, output| ops.store(value, output),
            );
        }
    }
}

/// Integer sums to f32, then the GELU function, into `output`.
pub(super) struct DequantiseGelu<'a> {
    pub(super) sums: &'a [i32],
    pub(super) scaling: Scaling<'a>,
    pub(super) output: &'a mut [f32],
}

impl SimdOp for DequantiseGelu<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let ops = isa.f32();
        let width = self.scaling.columns.len();
        for (row, (sums, output)) in self.sums.chunks_exact(width).zip(self.output.chunks_exact_mut(width)).enumerate()
        {
            scale_row(
                isa,
                sums,
                self.scaling,
                row,
                output,
                #[inline(always)]
                |value, output| ops.store(gelu(isa, value), output),
            );
        }
    }
}

/// Layer norm of each row of `hidden`, in place, after the integer sums of a product are added
/// to it where there are some.
pub(super) struct AddNormalise<'a> {
    pub(super) sums: Option<(&'a [i32], Scaling<'a>)>,
    pub(super) hidden: &'a mut [f32],
    pub(super) weight: &'a [f32],
    pub(super) bias: &'a [f32],
}

impl SimdOp for AddNormalise<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let ops = isa.f32();
        let (lanes, width) = (ops.len(), self.weight.len());
        #[expect(clippy::cast_precision_loss, reason = "a row has far fewer than 2^24 values")]
        let inverse_width = 1.0 / width as f32;
        for (index, row) in self.hidden.chunks_exact_mut(width).enumerate() {
            if let Some((sums, scaling)) = self.sums {
                let sums = &sums[index * width..][..width];
                scale_row(
                    isa,
                    sums,
                    scaling,
                    index,
                    row,
                    #[inline(always)]
                    |value, residual| ops.store(ops.add(value, ops.load(residual)), residual),
                );
            }
            let mut total = [ops.zero(); 4];
            for values in row.chunks_exact(4 * lanes) {
                let values = ops.load_many::<4>(values);
                for (total, value) in total.iter_mut().zip(values) {
                    *total = ops.add(*total, value);
                }
            }
            let total = ops.add(ops.add(total[0], total[1]), ops.add(total[2], total[3]));
            let mean = ops.splat(ops.sum(total) * inverse_width);
            let mut squares = [ops.zero(); 4];
            for values in row.chunks_exact(4 * lanes) {
                let values = ops.load_many::<4>(values);
                for (squares, value) in squares.iter_mut().zip(values) {
                    let difference = ops.sub(value, mean);
                    *squares = ops.mul_add(difference, difference, *squares);
                }
            }
            let squares = ops.add(ops.add(squares[0], squares[1]), ops.add(squares[2], squares[3]));
            let variance = ops.sum(squares) * inverse_width;
            let factor = ops.splat(1.0 / (variance + NORM_EPSILON).sqrt());
            for ((values, weight), bias) in
                row.chunks_exact_mut(lanes).zip(self.weight.chunks_exact(lanes)).zip(self.bias.chunks_exact(lanes))
            {
                let centred = ops.mul(ops.sub(ops.load(values), mean), factor);
                let value = ops.mul_add(centred, ops.load(weight), ops.load(bias));
                ops.store(value, values);
            }
        }
    }
}

/// Rounds each row of `input`, times the factors of its columns, to 8 bits over its own range, so
/// that value * factor = (byte - zero) * scale.
pub(super) struct Quantise<'a> {
    pub(super) input: &'a [f32],
    /// One factor a column.
    pub(super) factors: &'a [f32],
    pub(super) bytes: &'a mut [u8],
    /// One factor a row.
    pub(super) scales: &'a mut [f32],
    /// For each row, the byte that stands for 0.
    pub(super) zeros: &'a mut [f32],
}

impl SimdOp for Quantise<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let (ops, integers) = (isa.f32(), isa.i32());
        let (lanes, width) = (ops.len(), self.factors.len());
        for (((input, bytes), scale), zero) in
            self.input.chunks_exact(width).zip(self.bytes.chunks_exact_mut(width)).zip(self.scales).zip(self.zeros)
        {
            let mut low = [ops.zero(); 4];
            let mut high = [ops.zero(); 4];
            for (values, factors) in input.chunks_exact(4 * lanes).zip(self.factors.chunks_exact(4 * lanes)) {
                let values = ops.load_many::<4>(values);
                let factors = ops.load_many::<4>(factors);
                for index in 0..4 {
                    let value = ops.mul(values[index], factors[index]);
                    low[index] = ops.min(low[index], value);
                    high[index] = ops.max(high[index], value);
                }
            }
            let low = ops.min(ops.min(low[0], low[1]), ops.min(low[2], low[3]));
            let high = ops.max(ops.max(high[0], high[1]), ops.max(high[2], high[3]));
            // The ranges begin at zero, so the span is positive unless the whole row is zero.
            let low = ops.fold_splat(low, 0.0, f32::min).to_array()[0];
            let high = ops.fold_splat(high, 0.0, f32::max).to_array()[0];
            let span = (high - low).max(f32::MIN_POSITIVE);
            let inverse = f32::from(u8::MAX) / span;
            *scale = span / f32::from(u8::MAX);
            // A whole number, so that 0 is exact.
            *zero = (-low * inverse).round_ties_even();
            let inverse = ops.splat(inverse);
            let offset = ops.splat(*zero);
            for ((values, factors), bytes) in input
                .chunks_exact(4 * lanes)
                .zip(self.factors.chunks_exact(4 * lanes))
                .zip(bytes.chunks_exact_mut(4 * lanes))
            {
                let values = ops.load_many::<4>(values);
                let factors = ops.load_many::<4>(factors);
                let mut levels = [integers.zero(); 4];
                for index in 0..4 {
                    let factor = ops.mul(factors[index], inverse);
                    let level = ops.mul_add(values[index], factor, offset);
                    levels[index] = ops.to_int_round(level);
                }
                let first = integers.narrow_saturate(levels[0], levels[1]);
                let second = integers.narrow_saturate(levels[2], levels[3]);
                isa.u8().store(isa.i16().narrow_saturate(first, second), bytes);
            }
        }
    }
}

/// Exponentials of each row of `scores` less the row's largest, in place. Their sum's inverse
/// goes to `inverse_sums`: the caller scales the weighted values, which are fewer.
pub(super) struct Exponentials<'a> {
    pub(super) scores: &'a mut [f32],
    /// Length of a row with its padding, a multiple of 16.
    pub(super) stride: usize,
    /// Length of a row without its padding, which gets zeros.
    pub(super) used: usize,
    /// One factor a row.
    pub(super) inverse_sums: &'a mut [f32],
}

impl SimdOp for Exponentials<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let (ops, integers) = (isa.f32(), isa.i32());
        let lanes = ops.len();
        let lowest = ops.splat(-126.0);
        let log2_e = ops.splat(std::f32::consts::LOG2_E);
        let whole = self.used - self.used % lanes;
        let mask = ops.first_n_mask(self.used % lanes);
        for (row, inverse_sum) in self.scores.chunks_exact_mut(self.stride).zip(self.inverse_sums) {
            if whole < self.used {
                // What stands in the padding is out of the maximum's and the sum's way.
                let last = &mut row[whole..whole + lanes];
                let value = ops.select(ops.load(last), ops.splat(f32::MIN), mask);
                ops.store(value, last);
            }
            let (row, padding) = row.split_at_mut(self.used.next_multiple_of(lanes));
            padding.fill(0.0);
            let mut largest = ops.splat(f32::MIN);
            for values in row.chunks_exact(lanes) {
                largest = ops.max(largest, ops.load(values));
            }
            let largest = ops.fold_splat(largest, f32::MIN, f32::max);
            let offset = ops.neg(ops.mul(largest, log2_e));
            let mut sum = ops.zero();
            for values in row.chunks_exact_mut(lanes) {
                // exp(x - largest) = 2^(whole + part), with |part| <= 1/2: the whole number is
                // added to the float's exponent.
                let exponent = ops.mul_add(ops.load(values), log2_e, offset);
                let exponent = ops.max(exponent, lowest);
                let integer = ops.to_int_round(exponent);
                let part = ops.sub(exponent, integers.to_float(integer));
                let power: I::I32 = polynomial(isa, part, EXP2_POLYNOMIAL).reinterpret_cast();
                let power = integers.add(power, integers.shift_left::<23>(integer));
                let power: I::F32 = power.reinterpret_cast();
                sum = ops.add(sum, power);
                ops.store(power, values);
            }
            if whole < self.used {
                let last = &mut row[whole..];
                let value = ops.select(ops.load(last), ops.zero(), mask);
                ops.store(value, last);
            }
            *inverse_sum = 1.0 / ops.sum(sum);
        }
    }
}

/// Copies `input`, rows of `width`, into columns of the wider matrix `output`, each row times
/// its factor.
pub(super) struct ScaleInto<'a> {
    pub(super) input: &'a [f32],
    /// Length of an input row.
    pub(super) width: usize,
    /// One factor a row.
    pub(super) factors: &'a [f32],
    /// From the first value to be written.
    pub(super) output: &'a mut [f32],
    /// Length of an output row.
    pub(super) stride: usize,
}

impl SimdOp for ScaleInto<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let ops = isa.f32();
        let lanes = ops.len();
        for ((input, output), &factor) in
            self.input.chunks_exact(self.width).zip(self.output.chunks_mut(self.stride)).zip(self.factors)
        {
            let factor = ops.splat(factor);
            for (input, output) in input.chunks_exact(lanes).zip(output.chunks_exact_mut(lanes)) {
                ops.store(ops.mul(ops.load(input), factor), output);
            }
        }
    }
}
