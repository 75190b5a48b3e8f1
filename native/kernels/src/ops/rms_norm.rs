//! Root-mean-square normalisation over rows.

use super::chunks::{GRAIN, Shared, each_chunk, each_rows};
use super::simd::{Simd, add_scaled, dot, per_isa};
use crate::Ctx;
use crate::scratch::Scratch;

#[derive(Clone, Copy)]
pub struct RmsNorm {
    pub n: usize,
    pub d: usize,
    pub x_stride: usize,
    pub eps: f32,
}

/// `y = x · rstd · w`, `rstd[n] = 1/√(mean x² + eps)`; y is [n, d] contiguous.
pub fn rms_norm(ctx: Ctx, x: &[f32], w: &[f32], y: &mut [f32], rstd: &mut [f32], shape: RmsNorm) {
    let RmsNorm { n, d, x_stride, eps } = shape;
    let w = &w[..d];
    let (y, rstd) = (Shared::new(&mut y[..n * d]), Shared::new(&mut rstd[..n]));
    each_rows(ctx, n, d, |range| {
        for r in range {
            // SAFETY: rows do not overlap.
            let (y, rstd) = unsafe { (y.part(r * d, d), rstd.part(r, 1)) };
            rstd[0] = norm_row(ctx.isa, &x[r * x_stride..][..d], w, y, eps);
        }
    });
}

per_isa! {
    fn norm_row(x: &[f32], w: &[f32], y: &mut [f32], eps: f32) -> f32 {
        let mean = f64::from(dot::<S>(x, x)) / x.len() as f64;
        let rstd = (1.0 / (mean + f64::from(eps)).sqrt()) as f32;
        for ((y, &x), &w) in y.iter_mut().zip(x).zip(w) {
            *y = x * rstd * w;
        }
        rstd
    }
}

#[derive(Clone, Copy)]
pub struct RmsNormBackward {
    pub n: usize,
    pub d: usize,
    pub x_stride: usize,
    pub dx_stride: usize,
    pub accumulate_x: bool,
    pub accumulate_w: bool,
}

/// The read operands of `rms_norm_backward`.
#[derive(Clone, Copy)]
pub struct RmsNormSaved<'a> {
    pub x: &'a [f32],
    pub w: &'a [f32],
    pub rstd: &'a [f32],
    pub dy: &'a [f32],
}

/// dx rows are `dx_stride` apart; dw [d] is summed over blocks of rows, then over the blocks.
pub fn rms_norm_backward(
    ctx: Ctx,
    saved: RmsNormSaved,
    dx: &mut [f32],
    dw: Option<&mut [f32]>,
    shape: RmsNormBackward,
) {
    let RmsNormBackward { n, d, x_stride, dx_stride, accumulate_x, accumulate_w } = shape;
    let RmsNormSaved { x, w, rstd, dy } = saved;
    let (w, rstd, dy) = (&w[..d], &rstd[..n], &dy[..n * d]);
    assert!(n < 2 || dx_stride >= d, "rmsNormBackward: dxStride must be at least d ({d}), got {dx_stride}");
    let per_block = GRAIN.div_ceil(d.max(1));
    let blocks = n.div_ceil(per_block);
    let has_dw = dw.is_some();
    let mut partials = Scratch::<f32>::take(if has_dw { blocks * d } else { 0 });
    let (dx, shared) = (Shared::new(dx), Shared::new(&mut partials));
    each_chunk(ctx, blocks, |block| {
        // SAFETY: blocks own different rows of dx and of the partial sums.
        let partial = unsafe { shared.part(block * d * usize::from(has_dw), d * usize::from(has_dw)) };
        partial.fill(0.0);
        for r in block * per_block..n.min((block + 1) * per_block) {
            let row = Row { x: &x[r * x_stride..][..d], w, rstd: rstd[r], dy: &dy[r * d..][..d] };
            // SAFETY: rows lie at least d apart.
            let dx = unsafe { dx.part(r * dx_stride, d) };
            backward_row(ctx.isa, row, dx, accumulate_x, partial);
        }
    });
    let Some(dw) = dw else { return };
    let dw = &mut dw[..d];
    if !accumulate_w {
        dw.fill(0.0);
    }
    sum_rows(ctx.isa, &partials, dw);
}

#[derive(Clone, Copy)]
struct Row<'a> {
    x: &'a [f32],
    w: &'a [f32],
    rstd: f32,
    dy: &'a [f32],
}

per_isa! {
    fn backward_row(row: Row, dx: &mut [f32], accumulate: bool, dw: &mut [f32]) {
        let Row { x, w, rstd, dy } = row;
        // Σ (dy · w) · x: the part of the gradient that runs along x.
        let along = weighted_dot::<S>(dy, w, x, dx, accumulate);
        let pull = -along / x.len() as f32 * rstd * rstd * rstd;
        if accumulate {
            for (((dx, &x), &w), &dy) in dx.iter_mut().zip(x).zip(w).zip(dy) {
                *dx += S::mul_add(pull, x, dy * w * rstd);
            }
        } else {
            // dx still holds dy · w.
            for (dx, &x) in dx.iter_mut().zip(x) {
                *dx = S::mul_add(pull, x, *dx * rstd);
            }
        }
        for ((dw, &x), &dy) in dw.iter_mut().zip(x).zip(dy) {
            *dw = S::mul_add(dy * rstd, x, *dw);
        }
    }
}

/// `Σ dy · w · x`. When dx may be overwritten, dy · w is left there.
#[inline(always)]
fn weighted_dot<S: Simd>(dy: &[f32], w: &[f32], x: &[f32], dx: &mut [f32], accumulate: bool) -> f32 {
    if !accumulate {
        for ((dx, &dy), &w) in dx.iter_mut().zip(dy).zip(w) {
            *dx = dy * w;
        }
        return dot::<S>(dx, x);
    }
    const BLOCK: usize = 256;
    let mut product = [0.0; BLOCK];
    let mut total = 0.0;
    for ((dy, w), x) in dy.chunks(BLOCK).zip(w.chunks(BLOCK)).zip(x.chunks(BLOCK)) {
        let product = &mut product[..x.len()];
        for ((p, &dy), &w) in product.iter_mut().zip(dy).zip(w) {
            *p = dy * w;
        }
        total += dot::<S>(product, x);
    }
    total
}

per_isa! {
    /// `total += Σ rows`, row by row.
    fn sum_rows(rows: &[f32], total: &mut [f32]) {
        for row in rows.chunks_exact(total.len().max(1)) {
            add_scaled::<S>(total, 1.0, row);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{LENGTHS, Rng, assert_close, differences, inner, on_every_isa, wide};

    const EPS: f32 = 1e-3;

    fn plain(x: &[f64], w: &[f64], n: usize, x_stride: usize) -> (Vec<f64>, Vec<f64>) {
        let d = w.len();
        let (mut y, mut rstd) = (vec![], vec![]);
        for r in 0..n {
            let x = &x[r * x_stride..][..d];
            let scale = 1.0 / (x.iter().map(|v| v * v).sum::<f64>() / d as f64 + f64::from(EPS)).sqrt();
            rstd.push(scale);
            y.extend(x.iter().zip(w).map(|(x, w)| x * scale * w));
        }
        (y, rstd)
    }

    #[test]
    fn rows_are_normalised_at_every_length() {
        let mut rng = Rng(8);
        for d in LENGTHS.into_iter().chain([3000]) {
            let (n, x_stride) = (9, d + 3);
            let (x, w) = (rng.values(n * x_stride, 2.0), rng.values(d, 1.0));
            let run = |ctx: Ctx| {
                let (mut y, mut rstd) = (vec![0.0; n * d], vec![0.0; n]);
                rms_norm(ctx, &x, &w, &mut y, &mut rstd, RmsNorm { n, d, x_stride, eps: EPS });
                [y, rstd].concat()
            };
            let (y, rstd) = plain(&wide(&x), &wide(&w), n, x_stride);
            on_every_isa(run, |got| assert_close("y, rstd", got, &[y.clone(), rstd.clone()].concat(), 2e-6));
        }
    }

    #[test]
    fn gradients_match_central_differences() {
        let mut rng = Rng(9);
        for (n, d, x_stride, dx_stride) in [(1, 1, 1, 1), (3, 17, 19, 18), (2, 70, 70, 75)] {
            let (x, w, dy) = (rng.values(n * x_stride, 1.0), rng.values(d, 1.0), rng.values(n * d, 1.0));
            let (mut y, mut rstd) = (vec![0.0; n * d], vec![0.0; n]);
            crate::ops::testing::with_best(|ctx| {
                rms_norm(ctx, &x, &w, &mut y, &mut rstd, RmsNorm { n, d, x_stride, eps: EPS });
            });
            let dx_strided = differences(&x, |x| inner(&plain(x, &wide(&w), n, x_stride).0, &dy));
            let dw = differences(&w, |w| inner(&plain(&wide(&x), w, n, x_stride).0, &dy));
            for accumulate in [false, true] {
                let old = if accumulate { 0.25 } else { 0.0 };
                let mut want = vec![0.25; n * dx_stride];
                for r in 0..n {
                    for c in 0..d {
                        want[r * dx_stride + c] = old + dx_strided[r * x_stride + c];
                    }
                }
                want.extend(dw.iter().map(|v| v + old));
                let shape =
                    RmsNormBackward { n, d, x_stride, dx_stride, accumulate_x: accumulate, accumulate_w: accumulate };
                let run = |ctx: Ctx| {
                    let (mut dx, mut dw) = (vec![0.25; n * dx_stride], vec![0.25; d]);
                    let saved = RmsNormSaved { x: &x, w: &w, rstd: &rstd, dy: &dy };
                    rms_norm_backward(ctx, saved, &mut dx, Some(&mut dw), shape);
                    [dx, dw].concat()
                };
                on_every_isa(run, |got| assert_close("dx, dw", got, &want, 1e-5));
            }
        }
    }

    #[test]
    fn dw_over_many_blocks_of_rows_is_the_plain_sum() {
        let mut rng = Rng(10);
        let (n, d) = (600, 100);
        let (x, w, dy, rstd) = (rng.values(n * d, 1.0), vec![1.0; d], rng.values(n * d, 1.0), vec![2.0; n]);
        let shape = RmsNormBackward { n, d, x_stride: d, dx_stride: d, accumulate_x: false, accumulate_w: false };
        let run = |ctx: Ctx| {
            let (mut dx, mut dw) = (vec![0.0; n * d], vec![7.0; d]);
            let saved = RmsNormSaved { x: &x, w: &w, rstd: &rstd, dy: &dy };
            rms_norm_backward(ctx, saved, &mut dx, Some(&mut dw), shape);
            dw
        };
        let want: Vec<f64> =
            (0..d).map(|c| (0..n).map(|r| 2.0 * f64::from(x[r * d + c]) * f64::from(dy[r * d + c])).sum()).collect();
        on_every_isa(run, |dw| assert_close("dw", dw, &want, 1e-5));
    }
}
