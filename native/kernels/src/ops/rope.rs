//! Rotary position embedding of the last values of each head.

use super::chunks::{Shared, checked_index, each_rows};
use super::simd::{Simd, per_isa};
use crate::Ctx;

#[derive(Clone, Copy)]
pub struct Rope {
    pub n: usize,
    pub heads: usize,
    pub head_dim: usize,
    pub rope_dim: usize,
    pub x_stride: usize,
    pub y_stride: usize,
    pub max_pos: usize,
    /// Pairs (2i, 2i+1) rather than (i, i + rope_dim/2).
    pub interleave: bool,
    /// Rotates by the negative angle.
    pub inverse: bool,
    pub accumulate: bool,
}

/// Rotates the last `rope_dim` values of each head and copies the rest. A row of table holds rope_dim/2 cosines, then as
/// many sines.
pub fn rope(ctx: Ctx, x: &[f32], table: &[f32], positions: &[i32], y: &mut [f32], shape: Rope) {
    let Rope { n, heads, head_dim, rope_dim, x_stride, y_stride, max_pos, .. } = shape;
    let width = heads * head_dim;
    assert!(
        rope_dim <= head_dim && rope_dim.is_multiple_of(2),
        "rope: ropeDim must be even and at most headDim ({head_dim}), got {rope_dim}"
    );
    assert!(n < 2 || y_stride >= width, "rope: yStride must be at least heads · headDim ({width}), got {y_stride}");
    let (table, positions, y) = (&table[..max_pos * rope_dim], &positions[..n], Shared::new(y));
    each_rows(ctx, n, width, |range| {
        for r in range {
            let position = checked_index("rope", "positions", positions[r], max_pos);
            // SAFETY: rows lie at least `width` apart.
            let y = unsafe { y.part(r * y_stride, width) };
            rotate_row(ctx.isa, &x[r * x_stride..][..width], &table[position * rope_dim..][..rope_dim], y, shape);
        }
    });
}

per_isa! {
    fn rotate_row(x: &[f32], table: &[f32], y: &mut [f32], shape: Rope) {
        let Rope { head_dim, rope_dim, .. } = shape;
        let (cosines, sines) = table.split_at(rope_dim / 2);
        for (x, y) in x.chunks_exact(head_dim.max(1)).zip(y.chunks_exact_mut(head_dim.max(1))) {
            let (x_plain, x) = x.split_at(head_dim - rope_dim);
            let (y_plain, y) = y.split_at_mut(head_dim - rope_dim);
            // The four cases are written out, so that each inner loop is free of branches.
            match (shape.accumulate, shape.inverse) {
                (false, false) => rotate::<S>(x, cosines, sines, y, shape.interleave, |_, v| v, 1.0),
                (false, true) => rotate::<S>(x, cosines, sines, y, shape.interleave, |_, v| v, -1.0),
                (true, false) => rotate::<S>(x, cosines, sines, y, shape.interleave, |y, v| y + v, 1.0),
                (true, true) => rotate::<S>(x, cosines, sines, y, shape.interleave, |y, v| y + v, -1.0),
            }
            if shape.accumulate {
                for (y, &x) in y_plain.iter_mut().zip(x_plain) {
                    *y += x;
                }
            } else {
                y_plain.copy_from_slice(x_plain);
            }
        }
    }
}

#[inline(always)]
fn rotate<S: Simd>(
    x: &[f32],
    cosines: &[f32],
    sines: &[f32],
    y: &mut [f32],
    interleave: bool,
    store: impl Fn(f32, f32) -> f32,
    direction: f32,
) {
    if interleave {
        for (((y, x), &c), &s) in y.chunks_exact_mut(2).zip(x.chunks_exact(2)).zip(cosines).zip(sines) {
            let s = s * direction;
            (y[0], y[1]) = (store(y[0], x[0] * c - x[1] * s), store(y[1], S::mul_add(x[0], s, x[1] * c)));
        }
        return;
    }
    let half = x.len() / 2;
    let ((x0, x1), (y0, y1)) = (x.split_at(half), y.split_at_mut(half));
    for (((((y0, y1), &x0), &x1), &c), &s) in y0.iter_mut().zip(y1).zip(x0).zip(x1).zip(cosines).zip(sines) {
        let s = s * direction;
        *y0 = store(*y0, x0 * c - x1 * s);
        *y1 = store(*y1, S::mul_add(x0, s, x1 * c));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{Rng, assert_close, on_every_isa, wide, with_best};

    fn plain(x: &[f64], table: &[f32], positions: &[i32], y: &mut [f64], s: Rope) {
        let half = s.rope_dim / 2;
        for r in 0..s.n {
            let angles = &table[positions[r] as usize * s.rope_dim..][..s.rope_dim];
            for h in 0..s.heads {
                let x = &x[r * s.x_stride + h * s.head_dim..][..s.head_dim];
                let mut out = x.to_vec();
                for i in 0..half {
                    let first = s.head_dim - s.rope_dim;
                    let (a, b) = if s.interleave { (2 * i, 2 * i + 1) } else { (i, i + half) };
                    let (c, sine) = (f64::from(angles[i]), f64::from(angles[half + i]));
                    let sine = if s.inverse { -sine } else { sine };
                    out[first + a] = x[first + a] * c - x[first + b] * sine;
                    out[first + b] = x[first + a] * sine + x[first + b] * c;
                }
                for (y, v) in y[r * s.y_stride + h * s.head_dim..].iter_mut().zip(out) {
                    *y = if s.accumulate { *y + v } else { v };
                }
            }
        }
    }

    #[test]
    fn every_variant_matches_a_plain_loop() {
        let mut rng = Rng(13);
        for (n, heads, head_dim, rope_dim) in
            [(1, 1, 2, 2), (5, 3, 20, 10), (3, 2, 34, 34), (200, 2, 96, 64), (2, 2, 5, 0)]
        {
            let width = heads * head_dim;
            let (x_stride, y_stride, max_pos) = (width + 3, width + 1, 20);
            let x = rng.values(n * x_stride, 1.0);
            let old = rng.values(n * y_stride, 1.0);
            let table = rng.values(max_pos * rope_dim, 1.0);
            let positions = rng.indices(n, max_pos);
            for variant in 0..8 {
                let (interleave, inverse, accumulate) = (variant & 1 != 0, variant & 2 != 0, variant & 4 != 0);
                let shape =
                    Rope { n, heads, head_dim, rope_dim, x_stride, y_stride, max_pos, interleave, inverse, accumulate };
                let run = |ctx: Ctx| {
                    let mut y = old.clone();
                    rope(ctx, &x, &table, &positions, &mut y, shape);
                    y
                };
                let mut want = wide(&old);
                plain(&wide(&x), &table, &positions, &mut want, shape);
                on_every_isa(run, |y| assert_close("y", y, &want, 1e-6));
            }
        }
    }

    #[test]
    #[should_panic(expected = "rope: positions must lie in [0, 4), got 4")]
    fn a_position_beyond_the_table_is_refused() {
        let shape = Rope {
            n: 1,
            heads: 1,
            head_dim: 2,
            rope_dim: 2,
            x_stride: 2,
            y_stride: 2,
            max_pos: 4,
            interleave: true,
            inverse: false,
            accumulate: false,
        };
        with_best(|ctx| rope(ctx, &[1.0; 2], &[1.0; 8], &[4], &mut [0.0; 2], shape));
    }
}
