//! Softmax cross entropy over the vocabulary.

use super::chunks::{Shared, checked_index, each_rows};
use super::simd::{exp_of_negative, max, per_isa, sum};
use crate::Ctx;

/// The logits [rows, vocab] and where their gradient goes.
pub enum Logits<'a> {
    LossOnly(&'a [f32]),
    Gradient(&'a [f32], &'a mut [f32]),
    /// The gradient replaces the logits.
    InPlace(&'a mut [f32]),
}

/// `losses[r] = log Σ exp(logits[r, :]) − logits[r, target]` in nats, 0 where `targets[r] < 0`. The gradient is
/// `scale · (softmax − onehot)`, 0 in ignored rows.
pub fn softmax_cross_entropy(
    ctx: Ctx,
    logits: Logits,
    targets: &[i32],
    losses: &mut [f32],
    rows: usize,
    vocab: usize,
    scale: f32,
) {
    let (targets, losses) = (&targets[..rows], Shared::new(&mut losses[..rows]));
    // SAFETY: rows do not overlap.
    let each = |work: &(dyn Fn(usize, &mut f32) + Sync)| {
        each_rows(ctx, rows, vocab, |range| range.for_each(|r| work(r, unsafe { &mut losses.part(r, 1)[0] })));
    };
    let target =
        |r: usize| (targets[r] >= 0).then(|| checked_index("softmaxCrossEntropy", "targets", targets[r], vocab));
    match logits {
        Logits::LossOnly(logits) => each(&|r, loss| {
            *loss = target(r).map_or(0.0, |target| loss_row(ctx.isa, &logits[r * vocab..][..vocab], target));
        }),
        Logits::Gradient(logits, d_logits) => {
            let d_logits = Shared::new(d_logits);
            each(&|r, loss| {
                // SAFETY: rows do not overlap.
                let d_row = unsafe { d_logits.part(r * vocab, vocab) };
                d_row.copy_from_slice(&logits[r * vocab..][..vocab]);
                *loss = gradient_row(ctx.isa, d_row, target(r), scale);
            });
        }
        Logits::InPlace(logits) => {
            let logits = Shared::new(logits);
            each(&|r, loss| {
                // SAFETY: rows do not overlap.
                let row = unsafe { logits.part(r * vocab, vocab) };
                *loss = gradient_row(ctx.isa, row, target(r), scale);
            });
        }
    }
}

per_isa! {
    fn loss_row(logits: &[f32], target: usize) -> f32 {
        let top = max::<S>(logits);
        let mut total = 0.0;
        let mut block = [0.0; 256];
        for x in logits.chunks(256) {
            let block = &mut block[..x.len()];
            for (e, &x) in block.iter_mut().zip(x) {
                *e = exp_of_negative::<S>(x - top);
            }
            total += f64::from(sum::<S>(block));
        }
        loss(total, top, logits[target])
    }
}

per_isa! {
    /// The loss of a row of logits, which becomes its gradient.
    fn gradient_row(row: &mut [f32], target: Option<usize>, scale: f32) -> f32 {
        let Some(target) = target else {
            row.fill(0.0);
            return 0.0;
        };
        let (top, logit) = (max::<S>(row), row[target]);
        let mut total = 0.0;
        for block in row.chunks_mut(256) {
            for x in block.iter_mut() {
                *x = exp_of_negative::<S>(*x - top);
            }
            total += f64::from(sum::<S>(block));
        }
        let factor = (f64::from(scale) / total) as f32;
        for x in row.iter_mut() {
            *x *= factor;
        }
        row[target] -= scale;
        loss(total, top, logit)
    }
}

/// `log Σ exp − logit`, from `Σ exp(x − top)`.
#[inline(always)]
fn loss(total: f64, top: f32, logit: f32) -> f32 {
    (total.ln() + (f64::from(top) - f64::from(logit))) as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{LENGTHS, Rng, assert_close, on_every_isa, wide, with_best};

    fn plain(logits: &[f64], targets: &[i32], vocab: usize, scale: f64) -> (Vec<f64>, Vec<f64>) {
        let (mut losses, mut gradient) = (vec![], vec![]);
        for (x, &target) in logits.chunks(vocab).zip(targets) {
            let total: f64 = x.iter().map(|v| v.exp()).sum();
            let kept = f64::from(target >= 0);
            losses.push(if target >= 0 { total.ln() - x[target as usize] } else { 0.0 });
            let onehot = |v: usize| f64::from(v as i32 == target);
            gradient.extend((0..vocab).map(|v| kept * scale * (x[v].exp() / total - onehot(v))));
        }
        (losses, gradient)
    }

    #[test]
    fn losses_and_gradients_match_a_plain_loop() {
        let mut rng = Rng(15);
        for (rows, vocab) in LENGTHS.into_iter().map(|v| (5, v)).chain([(30, 3001)]) {
            let logits = rng.values(rows * vocab, 10.0);
            let mut targets = rng.indices(rows, vocab);
            targets[1] = -100;
            let (losses, gradient) = plain(&wide(&logits), &targets, vocab, 0.5);
            let both = [losses.clone(), gradient].concat();
            let loss_only = |ctx: Ctx| {
                let mut losses = vec![9.0; rows];
                softmax_cross_entropy(ctx, Logits::LossOnly(&logits), &targets, &mut losses, rows, vocab, 0.5);
                losses
            };
            on_every_isa(loss_only, |got| assert_close("losses", got, &losses, 1e-6));
            let apart = |ctx: Ctx| {
                let (mut losses, mut d) = (vec![9.0; rows], vec![9.0; rows * vocab]);
                let operands = Logits::Gradient(&logits, &mut d);
                softmax_cross_entropy(ctx, operands, &targets, &mut losses, rows, vocab, 0.5);
                [losses, d].concat()
            };
            on_every_isa(apart, |got| assert_close("losses, dLogits", got, &both, 1e-6));
            let in_place = |ctx: Ctx| {
                let (mut losses, mut d) = (vec![9.0; rows], logits.clone());
                softmax_cross_entropy(ctx, Logits::InPlace(&mut d), &targets, &mut losses, rows, vocab, 0.5);
                [losses, d].concat()
            };
            on_every_isa(in_place, |got| assert_close("losses, dLogits in place", got, &both, 1e-6));
        }
    }

    #[test]
    fn large_logits_do_not_overflow_and_nan_shows() {
        let logits = [1e30, 1e30, -1e30, f32::NAN, 0.0, 0.0, 0.0, f32::NEG_INFINITY, 0.0];
        let run = |ctx: Ctx| {
            let mut losses = vec![0.0; 3];
            softmax_cross_entropy(ctx, Logits::LossOnly(&logits), &[0, 1, 0], &mut losses, 3, 3, 1.0);
            losses
        };
        on_every_isa(run, |losses| {
            assert!((losses[0] - 2f32.ln()).abs() < 1e-6 && losses[1].is_nan() && (losses[2] - 2f32.ln()).abs() < 1e-6);
        });
    }

    #[test]
    #[should_panic(expected = "softmaxCrossEntropy: targets must lie in [0, 2), got 2")]
    fn a_target_beyond_the_vocabulary_is_refused() {
        with_best(|ctx| softmax_cross_entropy(ctx, Logits::LossOnly(&[0.0; 2]), &[2], &mut [0.0], 1, 2, 1.0));
    }
}
