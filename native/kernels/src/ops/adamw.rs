//! The AdamW step.

use super::chunks::{Shared, each_rows};
use super::simd::{per_isa, to_bf16};
use crate::Ctx;

/// The written operands of `adamw_into`; `copy` receives the weights rounded to bf16.
pub struct AdamwState<'a> {
    pub p: &'a mut [f32],
    pub m: &'a mut [f32],
    pub v: &'a mut [f32],
    pub copy: Option<&'a mut [u16]>,
}

#[derive(Clone, Copy)]
pub struct Adamw {
    pub n: usize,
    pub lr: f64,
    pub beta1: f64,
    pub beta2: f64,
    pub eps: f64,
    pub weight_decay: f64,
    pub correction1: f64,
    pub correction2: f64,
    pub grad_scale: f64,
}

/// One step with decoupled decay. Source: Loshchilov & Hutter 2019, algorithm 2, as in torch.optim.AdamW.
pub fn adamw_into(ctx: Ctx, g: &[f32], state: AdamwState, rule: Adamw) {
    let n = rule.n;
    let factors = Factors::of(rule);
    let (p, m, v) = (Shared::new(&mut state.p[..n]), Shared::new(&mut state.m[..n]), Shared::new(&mut state.v[..n]));
    let copy = state.copy.map(|copy| Shared::new(&mut copy[..n]));
    let g = &g[..n];
    each_rows(ctx, n, 1, |range| {
        let (start, len) = (range.start, range.len());
        // SAFETY: ranges of different chunks do not overlap.
        let (p, m, v) = unsafe { (p.part(start, len), m.part(start, len), v.part(start, len)) };
        match copy {
            // SAFETY: as above.
            Some(copy) => step_and_copy(ctx.isa, p, &g[range], m, v, unsafe { copy.part(start, len) }, factors),
            None => step(ctx.isa, p, &g[range], m, v, factors),
        }
    });
}

/// The numbers of the rule, rounded after they are combined.
#[derive(Clone, Copy)]
struct Factors {
    keep: f32,
    beta1: f32,
    blend1: f32,
    beta2: f32,
    blend2: f32,
    step: f32,
    inverse2: f32,
    eps: f32,
    grad_scale: f32,
}

impl Factors {
    fn of(rule: Adamw) -> Self {
        Self {
            keep: (1.0 - rule.lr * rule.weight_decay) as f32,
            beta1: rule.beta1 as f32,
            blend1: (1.0 - rule.beta1) as f32,
            beta2: rule.beta2 as f32,
            blend2: (1.0 - rule.beta2) as f32,
            step: (rule.lr / rule.correction1) as f32,
            inverse2: (1.0 / rule.correction2) as f32,
            eps: rule.eps as f32,
            grad_scale: rule.grad_scale as f32,
        }
    }

    #[inline(always)]
    fn apply(&self, p: &mut f32, g: f32, m: &mut f32, v: &mut f32) {
        let g = g * self.grad_scale;
        *m = self.beta1 * *m + self.blend1 * g;
        *v = self.beta2 * *v + self.blend2 * (g * g);
        *p = *p * self.keep - self.step * *m / ((*v * self.inverse2).sqrt() + self.eps);
    }
}

per_isa! {
    fn step(p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32], factors: Factors) {
        for (((p, &g), m), v) in p.iter_mut().zip(g).zip(m).zip(v) {
            factors.apply(p, g, m, v);
        }
    }
}

per_isa! {
    fn step_and_copy(p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32], copy: &mut [u16], factors: Factors) {
        for ((((p, &g), m), v), copy) in p.iter_mut().zip(g).zip(m).zip(v).zip(copy) {
            factors.apply(p, g, m, v);
            *copy = to_bf16(*p);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::simd::from_bf16;
    use crate::ops::testing::{LENGTHS, Rng, assert_close, on_every_isa, wide};

    #[test]
    fn a_step_matches_the_formula_and_the_copy_is_the_rounded_weight() {
        let mut rng = Rng(14);
        for n in LENGTHS.into_iter().chain([40_000]) {
            let rule = Adamw {
                n,
                lr: 0.01,
                beta1: 0.9,
                beta2: 0.999,
                eps: 1e-8,
                weight_decay: 0.1,
                correction1: 0.19,
                correction2: 0.001_999,
                grad_scale: 0.5,
            };
            let (p, g, m) = (rng.values(n, 1.0), rng.values(n, 1.0), rng.values(n, 0.1));
            let v: Vec<_> = rng.values(n, 0.1).iter().map(|v| v.abs()).collect();
            let mut want = [wide(&p), wide(&m), wide(&v)];
            for i in 0..n {
                let g = f64::from(g[i]) * rule.grad_scale;
                want[1][i] = rule.beta1 * want[1][i] + (1.0 - rule.beta1) * g;
                want[2][i] = rule.beta2 * want[2][i] + (1.0 - rule.beta2) * g * g;
                let step = want[1][i] / rule.correction1 / ((want[2][i] / rule.correction2).sqrt() + rule.eps);
                want[0][i] -= rule.lr * (step + rule.weight_decay * want[0][i]);
            }
            for with_copy in [false, true] {
                let run = |ctx: Ctx| {
                    let (mut p, mut m, mut v, mut copy) = (p.clone(), m.clone(), v.clone(), vec![0; n]);
                    let copied = with_copy.then_some(&mut copy[..]);
                    adamw_into(ctx, &g, AdamwState { p: &mut p, m: &mut m, v: &mut v, copy: copied }, rule);
                    if with_copy {
                        assert!(copy.iter().zip(&p).all(|(&c, &p)| c == to_bf16(p) && from_bf16(c) != 0.0));
                    }
                    [p, m, v].concat()
                };
                on_every_isa(run, |got| assert_close("p, m, v", got, &want.concat(), 1e-6));
            }
        }
    }
}
