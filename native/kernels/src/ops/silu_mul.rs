//! The gated activation of a feed-forward layer.

use super::chunks::{Shared, each_rows};
use super::simd::{dot, per_isa, sigmoid};
use crate::Ctx;

/// `y = silu(gate) · up · (scale[row] when given)`, all [n, d].
pub fn silu_mul(ctx: Ctx, gate: &[f32], up: &[f32], scale: Option<&[f32]>, y: &mut [f32], n: usize, d: usize) {
    let (gate, up, y) = (&gate[..n * d], &up[..n * d], Shared::new(&mut y[..n * d]));
    each_rows(ctx, n, d, |range| {
        for r in range {
            let at = r * d..(r + 1) * d;
            // SAFETY: rows do not overlap.
            let y = unsafe { y.part(at.start, d) };
            silu_row(ctx.isa, &gate[at.clone()], &up[at], scale.map_or(1.0, |scale| scale[r]), y);
        }
    });
}

per_isa! {
    fn silu_row(gate: &[f32], up: &[f32], scale: f32, y: &mut [f32]) {
        for ((y, &g), &u) in y.iter_mut().zip(gate).zip(up) {
            *y = g * sigmoid::<S>(g) * u * scale;
        }
    }
}

/// The read operands of `silu_mul_backward`.
#[derive(Clone, Copy)]
pub struct SiluMulSaved<'a> {
    pub gate: &'a [f32],
    pub up: &'a [f32],
    pub scale: Option<&'a [f32]>,
    pub dy: &'a [f32],
}

/// Writes dGate and dUp whole; `dScale[row] = Σ dy · silu(gate) · up`.
pub fn silu_mul_backward(
    ctx: Ctx,
    saved: SiluMulSaved,
    d_gate: &mut [f32],
    d_up: &mut [f32],
    d_scale: Option<&mut [f32]>,
    n: usize,
    d: usize,
) {
    let SiluMulSaved { gate, up, scale, dy } = saved;
    let (gate, up, dy) = (&gate[..n * d], &up[..n * d], &dy[..n * d]);
    let (d_gate, d_up) = (Shared::new(&mut d_gate[..n * d]), Shared::new(&mut d_up[..n * d]));
    let d_scale = d_scale.map(|d_scale| Shared::new(&mut d_scale[..n]));
    each_rows(ctx, n, d, |range| {
        for r in range {
            let at = r * d..(r + 1) * d;
            let row = Row {
                gate: &gate[at.clone()],
                up: &up[at.clone()],
                dy: &dy[at],
                scale: scale.map_or(1.0, |scale| scale[r]),
            };
            // SAFETY: rows do not overlap.
            let (d_gate, d_up) = unsafe { (d_gate.part(r * d, d), d_up.part(r * d, d)) };
            // SAFETY: one number per row.
            let d_scale = d_scale.map(|d_scale| unsafe { &mut d_scale.part(r, 1)[0] });
            backward_row(ctx.isa, row, d_gate, d_up, d_scale);
        }
    });
}

#[derive(Clone, Copy)]
struct Row<'a> {
    gate: &'a [f32],
    up: &'a [f32],
    dy: &'a [f32],
    scale: f32,
}

per_isa! {
    fn backward_row(row: Row, d_gate: &mut [f32], d_up: &mut [f32], d_scale: Option<&mut f32>) {
        let Row { gate, up, dy, scale } = row;
        // Without dScale the factor goes into dUp at once; with it, dUp first holds dy · silu(gate).
        let early = if d_scale.is_some() { 1.0 } else { scale };
        for ((((dg, du), &g), &u), &dy) in d_gate.iter_mut().zip(d_up.iter_mut()).zip(gate).zip(up).zip(dy) {
            let s = sigmoid::<S>(g);
            let silu = g * s;
            *du = dy * silu * early;
            *dg = dy * scale * u * (s + silu * (1.0 - s));
        }
        let Some(d_scale) = d_scale else { return };
        *d_scale = dot::<S>(d_up, up);
        for du in d_up {
            *du *= scale;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{LENGTHS, Rng, assert_close, differences, inner, on_every_isa, wide};

    fn plain(gate: &[f64], up: &[f64], scale: &[f64], d: usize) -> Vec<f64> {
        let value = |(i, (g, u)): (usize, (&f64, &f64))| g / (1.0 + (-g).exp()) * u * scale[i / d];
        gate.iter().zip(up).enumerate().map(value).collect()
    }

    #[test]
    fn forward_matches_a_plain_loop_at_every_length() {
        let mut rng = Rng(11);
        for (n, d) in LENGTHS.into_iter().map(|d| (3, d)).chain([(70, 704)]) {
            let (gate, up, scale) = (rng.values(n * d, 20.0), rng.values(n * d, 1.0), rng.values(n, 1.0));
            for scale in [None, Some(&scale[..])] {
                let run = |ctx: Ctx| {
                    let mut y = vec![0.0; n * d];
                    silu_mul(ctx, &gate, &up, scale, &mut y, n, d);
                    y
                };
                let factors = scale.map_or(vec![1.0; n], wide);
                let want = plain(&wide(&gate), &wide(&up), &factors, d);
                on_every_isa(run, |y| assert_close("y", y, &want, 1e-6));
            }
        }
    }

    #[test]
    fn far_gates_are_zero_or_the_gate_itself() {
        let gate = [-1e4, -200.0, 1e4, f32::INFINITY, f32::NAN];
        let run = |ctx: Ctx| {
            let mut y = vec![9.0; 5];
            silu_mul(ctx, &gate, &[1.0; 5], None, &mut y, 1, 5);
            y
        };
        on_every_isa(run, |y| {
            assert_eq!(y[..4], [0.0, 0.0, 1e4, f32::INFINITY]);
            assert!(y[4].is_nan());
        });
    }

    #[test]
    fn gradients_match_central_differences() {
        let mut rng = Rng(12);
        for (n, d) in [(2, 1), (3, 17), (1, 100)] {
            let (gate, up, dy) = (rng.values(n * d, 3.0), rng.values(n * d, 1.0), rng.values(n * d, 1.0));
            let mut scale = rng.values(n, 1.0);
            scale[0] = 0.0;
            let (g, u, s) = (wide(&gate), wide(&up), wide(&scale));
            let ones = vec![1.0; n];
            for with_scale in [false, true] {
                let s = if with_scale { &s } else { &ones };
                let mut want = differences(&gate, |g| inner(&plain(g, &u, s, d), &dy));
                want.extend(differences(&up, |u| inner(&plain(&g, u, s, d), &dy)));
                if with_scale {
                    want.extend(differences(&scale, |s| inner(&plain(&g, &u, s, d), &dy)));
                }
                let run = |ctx: Ctx| {
                    let (mut d_gate, mut d_up, mut d_scale) = (vec![0.0; n * d], vec![0.0; n * d], vec![0.0; n]);
                    let scale = with_scale.then_some(&scale[..]);
                    let saved = SiluMulSaved { gate: &gate, up: &up, scale, dy: &dy };
                    let out = with_scale.then_some(&mut d_scale[..]);
                    silu_mul_backward(ctx, saved, &mut d_gate, &mut d_up, out, n, d);
                    d_scale.truncate(if with_scale { n } else { 0 });
                    [d_gate, d_up, d_scale].concat()
                };
                on_every_isa(run, |got| assert_close("dGate, dUp, dScale", got, &want, 1e-5));
            }
        }
    }
}
