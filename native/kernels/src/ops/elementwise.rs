//! Filling, copying, adding, summing and gathering.

use super::chunks::{GRAIN, Shared, checked_index, each_chunk, each_rows};
use super::simd::{add_scaled, from_bf16, per_isa, to_bf16};
use crate::Ctx;

/// Read operand of f32 or bf16.
#[derive(Clone, Copy)]
pub enum Source<'a> {
    F32(&'a [f32]),
    Bf16(&'a [u16]),
}

/// Written operand of f32 or bf16.
pub enum Target<'a> {
    F32(&'a mut [f32]),
    Bf16(&'a mut [u16]),
}

#[derive(Clone, Copy)]
pub struct Copy2d {
    pub rows: usize,
    pub cols: usize,
    pub x_stride: usize,
    pub y_stride: usize,
    pub accumulate: bool,
}

/// `y[i] = value`, n elements.
pub fn fill(ctx: Ctx, y: &mut [f32], n: usize, value: f32) {
    let y = Shared::new(&mut y[..n]);
    each_rows(ctx, n, 1, |rows| {
        // SAFETY: ranges of different chunks do not overlap.
        unsafe { y.part(rows.start, rows.len()) }.fill(value);
    });
}

/// `y[r, c] (+)= x[r, c]`, converting between f32 and bf16.
pub fn copy2d(ctx: Ctx, x: Source, y: Target, shape: Copy2d) {
    match (x, y) {
        (Source::F32(x), Target::F32(y)) if shape.accumulate => copy_rows(ctx, x, y, shape, accumulate_row),
        (Source::F32(x), Target::F32(y)) => copy_rows(ctx, x, y, shape, |_, x, y| y.copy_from_slice(x)),
        (Source::F32(x), Target::Bf16(y)) if shape.accumulate => copy_rows(ctx, x, y, shape, accumulate_narrow_row),
        (Source::F32(x), Target::Bf16(y)) => copy_rows(ctx, x, y, shape, narrow_row),
        (Source::Bf16(x), Target::F32(y)) if shape.accumulate => copy_rows(ctx, x, y, shape, accumulate_wide_row),
        (Source::Bf16(x), Target::F32(y)) => copy_rows(ctx, x, y, shape, widen_row),
        (Source::Bf16(x), Target::Bf16(y)) if shape.accumulate => copy_rows(ctx, x, y, shape, accumulate_bf16_row),
        (Source::Bf16(x), Target::Bf16(y)) => copy_rows(ctx, x, y, shape, |_, x, y| y.copy_from_slice(x)),
    }
}

fn copy_rows<X: Sync, Y: Send>(
    ctx: Ctx,
    x: &[X],
    y: &mut [Y],
    shape: Copy2d,
    row: impl Fn(crate::Isa, &[X], &mut [Y]) + Sync,
) {
    let Copy2d { rows, cols, x_stride, y_stride, .. } = shape;
    assert!(rows < 2 || y_stride >= cols, "copy2d: yStride must be at least cols ({cols}), got {y_stride}");
    let y = Shared::new(y);
    // One long row is cut like many short ones.
    let dense = x_stride == cols && y_stride == cols;
    let (rows, cols) = if dense || rows == 1 { (1, rows * cols) } else { (rows, cols) };
    let pieces = cols.div_ceil(GRAIN).max(1);
    each_rows(ctx, rows * pieces, cols.div_ceil(pieces), |range| {
        for piece in range {
            let (r, first) = (piece / pieces, piece % pieces * GRAIN);
            let len = GRAIN.min(cols - first);
            // SAFETY: rows lie at least cols apart, so pieces do not overlap.
            let y = unsafe { y.part(r * y_stride + first, len) };
            row(ctx.isa, &x[r * x_stride + first..][..len], y);
        }
    });
}

per_isa! {
    fn accumulate_row(x: &[f32], y: &mut [f32]) {
        add_scaled::<S>(y, 1.0, x);
    }
}

per_isa! {
    fn narrow_row(x: &[f32], y: &mut [u16]) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y = to_bf16(x);
        }
    }
}

per_isa! {
    fn accumulate_narrow_row(x: &[f32], y: &mut [u16]) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y = to_bf16(from_bf16(*y) + x);
        }
    }
}

per_isa! {
    fn widen_row(x: &[u16], y: &mut [f32]) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y = from_bf16(x);
        }
    }
}

per_isa! {
    fn accumulate_wide_row(x: &[u16], y: &mut [f32]) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y += from_bf16(x);
        }
    }
}

per_isa! {
    fn accumulate_bf16_row(x: &[u16], y: &mut [u16]) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y = to_bf16(from_bf16(*y) + from_bf16(x));
        }
    }
}

/// `y = a + b`, n elements.
pub fn add(ctx: Ctx, a: &[f32], b: &[f32], y: &mut [f32], n: usize) {
    let (a, b, y) = (&a[..n], &b[..n], Shared::new(&mut y[..n]));
    each_rows(ctx, n, 1, |rows| {
        // SAFETY: ranges of different chunks do not overlap.
        let y = unsafe { y.part(rows.start, rows.len()) };
        add_slices(ctx.isa, &a[rows.clone()], &b[rows], y);
    });
}

per_isa! {
    fn add_slices(a: &[f32], b: &[f32], y: &mut [f32]) {
        for ((y, &a), &b) in y.iter_mut().zip(a).zip(b) {
            *y = a + b;
        }
    }
}

/// `y += scale · x`, n elements.
pub fn axpy(ctx: Ctx, x: &[f32], y: &mut [f32], n: usize, scale: f32) {
    let (x, y) = (&x[..n], Shared::new(&mut y[..n]));
    each_rows(ctx, n, 1, |rows| {
        // SAFETY: ranges of different chunks do not overlap.
        let y = unsafe { y.part(rows.start, rows.len()) };
        axpy_slices(ctx.isa, scale, &x[rows], y);
    });
}

per_isa! {
    fn axpy_slices(scale: f32, x: &[f32], y: &mut [f32]) {
        add_scaled::<S>(y, scale, x);
    }
}

/// `y[0] (+)= scale · Σ x`, n elements, summed in f64.
pub fn sum(ctx: Ctx, x: &[f32], y: &mut [f32], n: usize, scale: f64, accumulate: bool) {
    let total = scale * blockwise(ctx, &x[..n], sum_slice);
    y[0] = (if accumulate { f64::from(y[0]) + total } else { total }) as f32;
}

/// `y[0] = Σ x²`, n elements, summed in f64.
pub fn sum_squares(ctx: Ctx, x: &[f32], y: &mut [f32], n: usize) {
    y[0] = blockwise(ctx, &x[..n], sum_squares_slice) as f32;
}

/// The sum of `block` over runs of `GRAIN` elements, added in their order.
fn blockwise(ctx: Ctx, x: &[f32], block: impl Fn(crate::Isa, &[f32]) -> f64 + Sync) -> f64 {
    let mut partials = vec![0.0; x.len().div_ceil(GRAIN)];
    let shared = Shared::new(&mut partials);
    each_chunk(ctx, x.len().div_ceil(GRAIN), |chunk| {
        // SAFETY: each chunk writes its own number.
        let partial = unsafe { shared.part(chunk, 1) };
        partial[0] = block(ctx.isa, &x[chunk * GRAIN..x.len().min((chunk + 1) * GRAIN)]);
    });
    partials.iter().sum()
}

per_isa! {
    fn sum_slice(x: &[f32]) -> f64 {
        lanes_f64(x, |v| v)
    }
}

per_isa! {
    fn sum_squares_slice(x: &[f32]) -> f64 {
        lanes_f64(x, |v| v * v)
    }
}

#[inline(always)]
fn lanes_f64(x: &[f32], term: impl Fn(f64) -> f64) -> f64 {
    const LANES: usize = 16;
    let mut lanes = [0.0; LANES];
    let blocks = x.chunks_exact(LANES);
    for (lane, &v) in lanes.iter_mut().zip(blocks.remainder()) {
        *lane += term(f64::from(v));
    }
    for block in blocks {
        for i in 0..LANES {
            lanes[i] += term(f64::from(block[i]));
        }
    }
    lanes.iter().sum()
}

/// `y[r, :] = x[index[r], :]`, rows × d; x has `x_rows` rows.
pub fn gather_rows(ctx: Ctx, x: &[f32], index: &[i32], y: &mut [f32], rows: usize, d: usize, x_rows: usize) {
    let (x, index, y) = (&x[..x_rows * d], &index[..rows], Shared::new(&mut y[..rows * d]));
    each_rows(ctx, rows, d, |range| {
        for r in range {
            let from = checked_index("gatherRows", "index", index[r], x_rows);
            // SAFETY: rows do not overlap.
            unsafe { y.part(r * d, d) }.copy_from_slice(&x[from * d..][..d]);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{LENGTHS, Rng, assert_close, on_every_isa, wide, with_best};

    /// The test lengths and one that takes several chunks.
    fn lengths() -> impl Iterator<Item = usize> {
        LENGTHS.into_iter().chain([3 * GRAIN + 5])
    }

    #[test]
    fn fill_writes_n_elements_and_no_more() {
        for n in lengths() {
            let run = |ctx: Ctx| {
                let mut y = vec![1.0; n + 1];
                fill(ctx, &mut y, n, -2.5);
                y
            };
            on_every_isa(run, |y| assert!(y[..n].iter().all(|&v| v == -2.5) && y[n] == 1.0));
        }
    }

    #[test]
    fn add_and_axpy_match_a_plain_loop() {
        let mut rng = Rng(2);
        for n in lengths() {
            let (a, b) = (rng.values(n, 1.0), rng.values(n, 1.0));
            let run = |ctx: Ctx| {
                let mut y = vec![0.0; n];
                add(ctx, &a, &b, &mut y, n);
                axpy(ctx, &a, &mut y, n, -0.5);
                y
            };
            let want: Vec<_> = wide(&a).iter().zip(wide(&b)).map(|(a, b)| a * 0.5 + b).collect();
            on_every_isa(run, |y| assert_close("y", y, &want, 1e-6));
        }
    }

    #[test]
    fn copy2d_converts_and_accumulates_with_strides() {
        let mut rng = Rng(3);
        for (rows, cols, x_stride, y_stride) in
            [(3, 17, 20, 18), (4, 8, 8, 8), (1, 2 * GRAIN + 3, 0, 0), (5, GRAIN + 1, GRAIN + 2, GRAIN + 9)]
        {
            for accumulate in [false, true] {
                let shape = Copy2d { rows, cols, x_stride, y_stride, accumulate };
                let x = rng.values((rows - 1) * x_stride + cols, 1.0);
                let old = rng.values((rows - 1) * y_stride + cols, 1.0);
                let narrow = |x: &[f32]| x.iter().map(|&v| to_bf16(v)).collect::<Vec<_>>();
                let widen = |x: &[u16]| x.iter().map(|&v| from_bf16(v)).collect::<Vec<_>>();
                let want = |x: &[f32], old: &[f32]| {
                    let mut y = wide(old);
                    for r in 0..rows {
                        for c in 0..cols {
                            let (to, v) = (r * y_stride + c, f64::from(x[r * x_stride + c]));
                            y[to] = if accumulate { y[to] + v } else { v };
                        }
                    }
                    y
                };
                let (x16, old16) = (narrow(&x), narrow(&old));
                let f32_f32 = |ctx: Ctx| {
                    let mut y = old.clone();
                    copy2d(ctx, Source::F32(&x), Target::F32(&mut y), shape);
                    y
                };
                on_every_isa(f32_f32, |y| assert_close("f32 from f32", y, &want(&x, &old), 1e-7));
                let f32_bf16 = |ctx: Ctx| {
                    let mut y = old.clone();
                    copy2d(ctx, Source::Bf16(&x16), Target::F32(&mut y), shape);
                    y
                };
                on_every_isa(f32_bf16, |y| assert_close("f32 from bf16", y, &want(&widen(&x16), &old), 1e-7));
                let bf16_f32 = |ctx: Ctx| {
                    let mut y = old16.clone();
                    copy2d(ctx, Source::F32(&x), Target::Bf16(&mut y), shape);
                    widen(&y)
                };
                on_every_isa(bf16_f32, |y| assert_close("bf16 from f32", y, &want(&x, &widen(&old16)), 1.0 / 256.0));
                let bf16_bf16 = |ctx: Ctx| {
                    let mut y = old16.clone();
                    copy2d(ctx, Source::Bf16(&x16), Target::Bf16(&mut y), shape);
                    widen(&y)
                };
                let want = want(&widen(&x16), &widen(&old16));
                on_every_isa(bf16_bf16, |y| assert_close("bf16 from bf16", y, &want, 1.0 / 256.0));
            }
        }
    }

    #[test]
    fn sums_are_those_of_float64() {
        let mut rng = Rng(4);
        for n in lengths() {
            let x = rng.values(n, 1.0);
            let run = |ctx: Ctx| {
                let mut y = vec![1.0, 3.0, 0.0];
                sum(ctx, &x, &mut y[..1], n, 0.5, true);
                sum(ctx, &x, &mut y[1..2], n, 0.5, false);
                sum_squares(ctx, &x, &mut y[2..], n);
                y
            };
            let total: f64 = wide(&x).iter().sum();
            let want = [1.0 + 0.5 * total, 0.5 * total, wide(&x).iter().map(|v| v * v).sum()];
            on_every_isa(run, |y| assert_close("sum", y, &want, 1e-7));
        }
    }

    #[test]
    fn sum_squares_shows_nan_and_infinity() {
        for (bad, at) in [(f32::NAN, 3), (f32::INFINITY, 40), (f32::NEG_INFINITY, 2 * GRAIN)] {
            let mut x = vec![1.0; 2 * GRAIN + 1];
            x[at] = bad;
            let run = |ctx: Ctx| {
                let mut y = vec![0.0];
                sum_squares(ctx, &x, &mut y, x.len());
                y
            };
            on_every_isa(run, |y| assert!(if bad.is_nan() { y[0].is_nan() } else { y[0] == f32::INFINITY }));
        }
    }

    #[test]
    fn gather_rows_picks_rows() {
        let mut rng = Rng(5);
        let (rows, d, x_rows) = (700, 33, 50);
        let (x, index) = (rng.values(x_rows * d, 1.0), rng.indices(rows, x_rows));
        let run = |ctx: Ctx| {
            let mut y = vec![0.0; rows * d];
            gather_rows(ctx, &x, &index, &mut y, rows, d, x_rows);
            y
        };
        on_every_isa(run, |y| {
            for (r, &from) in index.iter().enumerate() {
                assert_eq!(y[r * d..][..d], x[from as usize * d..][..d]);
            }
        });
    }

    #[test]
    #[should_panic(expected = "gatherRows: index must lie in [0, 2), got -1")]
    fn gather_rows_refuses_an_index_out_of_range() {
        with_best(|ctx| gather_rows(ctx, &[1.0, 2.0], &[-1], &mut [0.0], 1, 1, 2));
    }
}
