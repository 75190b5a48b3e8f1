//! What a mixture of experts needs around its products: the order of rows, their sum, the load and its balance.

use super::chunks::{Shared, checked_index, each_chunk, each_rows};
use super::simd::{add_scaled, dot, per_isa, sum};
use crate::Ctx;

/// The written operands of `moe_plan`.
pub struct MoePlan<'a> {
    /// [experts + 1]: where the rows of each expert begin.
    pub offsets: &'a mut [i32],
    /// [n · topk]: the token of a sorted row.
    pub row_token: &'a mut [i32],
    /// [n · topk]: the index in idx of a sorted row.
    pub row_slot: &'a mut [i32],
    /// [n · topk]: the inverse of `row_slot`.
    pub slot_row: &'a mut [i32],
}

/// Sorts the (token, choice) pairs by expert, stable in token order.
pub fn moe_plan(_ctx: Ctx, idx: &[i32], plan: MoePlan, n: usize, topk: usize, experts: usize) {
    let slots = n * topk;
    let (idx, offsets) = (&idx[..slots], &mut plan.offsets[..experts + 1]);
    let (row_token, row_slot) = (&mut plan.row_token[..slots], &mut plan.row_slot[..slots]);
    let slot_row = &mut plan.slot_row[..slots];
    offsets.fill(0);
    for &e in idx {
        offsets[checked_index("moePlan", "idx", e, experts) + 1] += 1;
    }
    for e in 0..experts {
        offsets[e + 1] += offsets[e];
    }
    let mut next = offsets[..experts].to_vec();
    for (slot, &e) in idx.iter().enumerate() {
        let row = next[e as usize];
        next[e as usize] += 1;
        slot_row[slot] = row;
        row_slot[row as usize] = slot as i32;
        row_token[row as usize] = (slot / topk) as i32;
    }
}

#[derive(Clone, Copy)]
pub struct Combine {
    pub n: usize,
    pub topk: usize,
    pub d: usize,
    pub accumulate: bool,
}

/// `y[n, :] (+)= base[n, :] + Σ_a ys[slotRow[n, a], :]`, added in the order of a; ys has n · topk rows.
pub fn combine(ctx: Ctx, ys: &[f32], slot_row: &[i32], base: Option<&[f32]>, y: &mut [f32], shape: Combine) {
    let Combine { n, topk, d, accumulate } = shape;
    let (ys, slot_row, y) = (&ys[..n * topk * d], &slot_row[..n * topk], Shared::new(&mut y[..n * d]));
    each_rows(ctx, n, (topk + 1) * d, |range| {
        for r in range {
            // SAFETY: rows do not overlap.
            let y = unsafe { y.part(r * d, d) };
            match base.map(|base| &base[r * d..][..d]) {
                Some(base) if accumulate => add_row(ctx.isa, base, y),
                Some(base) => y.copy_from_slice(base),
                None if accumulate => (),
                None => y.fill(0.0),
            }
            for &row in &slot_row[r * topk..][..topk] {
                let row = checked_index("combine", "slotRow", row, n * topk);
                add_row(ctx.isa, &ys[row * d..][..d], y);
            }
        }
    });
}

per_isa! {
    fn add_row(x: &[f32], y: &mut [f32]) {
        add_scaled::<S>(y, 1.0, x);
    }
}

/// `counts[e] (+)=` how often e stands in idx; n is the length of idx.
pub fn expert_counts(_ctx: Ctx, idx: &[i32], counts: &mut [f32], n: usize, experts: usize, accumulate: bool) {
    let mut found = vec![0u32; experts];
    for &e in &idx[..n] {
        found[checked_index("expertCounts", "idx", e, experts)] += 1;
    }
    for (count, &found) in counts[..experts].iter_mut().zip(&found) {
        *count = if accumulate { *count + found as f32 } else { found as f32 };
    }
}

/// `bias[e] += speed · sign(mean(counts) − counts[e])`. Source: DeepSeek-V3 report 2.1.2.
pub fn router_bias_into(_ctx: Ctx, counts: &[f32], bias: &mut [f32], experts: usize, speed: f32) {
    let counts = &counts[..experts];
    let mean = counts.iter().map(|&c| f64::from(c)).sum::<f64>() / experts as f64;
    for (b, &count) in bias[..experts].iter_mut().zip(counts) {
        let below = mean - f64::from(count);
        if below != 0.0 {
            *b += speed * below.signum() as f32;
        }
    }
}

#[derive(Clone, Copy)]
pub struct BalanceLoss {
    pub n: usize,
    pub experts: usize,
    pub topk: usize,
    pub segments: usize,
    pub alpha: f64,
}

/// The read operands of `balance_loss`.
#[derive(Clone, Copy)]
pub struct Load<'a> {
    /// [n, experts]
    pub scores: &'a [f32],
    /// [n, topk]
    pub idx: &'a [i32],
    /// [segments + 1]: row starts.
    pub segments: &'a [i32],
}

/// `loss[0] = α · mean over segments of Σ_e f_e P_e` and its gradient dScores [n, experts]; rows outside every segment get
/// 0. Source: DeepSeek-V3 report eq. 17–20.
pub fn balance_loss(ctx: Ctx, load: Load, loss: &mut [f32], d_scores: &mut [f32], shape: BalanceLoss) {
    let BalanceLoss { n, experts, topk, segments, alpha } = shape;
    let (scores, idx) = (&load.scores[..n * experts], &load.idx[..n * topk]);
    let starts = row_starts("balanceLoss", &load.segments[..segments + 1], n);
    let d_scores = &mut d_scores[..n * experts];
    d_scores[..starts[0] * experts].fill(0.0);
    d_scores[starts[segments] * experts..].fill(0.0);
    let mut terms = vec![0.0; segments];
    let (d_scores, shared) = (Shared::new(d_scores), Shared::new(&mut terms));
    let segment = |s: usize| {
        let rows = starts[s]..starts[s + 1];
        // SAFETY: segments do not overlap.
        let (term, d_scores) =
            unsafe { (shared.part(s, 1), d_scores.part(rows.start * experts, rows.len() * experts)) };
        let f = frequencies(&idx[rows.start * topk..rows.end * topk], experts, rows.len() * topk);
        let scale = alpha / (segments * rows.len().max(1)) as f64;
        let scores = &scores[rows.start * experts..rows.end * experts];
        term[0] = segment_loss(ctx.isa, scores, &f, scale, d_scores);
    };
    if n * experts <= super::chunks::GRAIN {
        (0..segments).for_each(segment);
    } else {
        each_chunk(ctx, segments, segment);
    }
    loss[0] = terms.iter().sum::<f64>() as f32;
}

/// The rows where each part begins, and the end; panics unless they rise within `0..=rows`.
pub(super) fn row_starts(kernel: &str, starts: &[i32], rows: usize) -> Vec<usize> {
    let ordered = starts.is_sorted() && starts.first().is_some_and(|&first| first >= 0);
    let last = starts.last().map_or(-1, |&last| i64::from(last));
    assert!(ordered && last <= rows as i64, "{kernel}: row starts must rise within [0, {rows}], got {starts:?}");
    starts.iter().map(|&start| start as usize).collect()
}

/// `f_e = experts · (times e was chosen) / choices`.
fn frequencies(idx: &[i32], experts: usize, choices: usize) -> Vec<f32> {
    let mut counts = vec![0u32; experts];
    for &e in idx {
        counts[checked_index("balanceLoss", "idx", e, experts)] += 1;
    }
    counts.iter().map(|&count| (f64::from(count) * experts as f64 / choices.max(1) as f64) as f32).collect()
}

per_isa! {
    /// `scale · Σ_rows Σ_e f_e s_e / Σ_j s_j`, and its gradient.
    fn segment_loss(scores: &[f32], f: &[f32], scale: f64, d_scores: &mut [f32]) -> f64 {
        let mut total = 0.0;
        for (s, d) in scores.chunks_exact(f.len().max(1)).zip(d_scores.chunks_exact_mut(f.len().max(1))) {
            let inverse = 1.0 / sum::<S>(s);
            let mean = dot::<S>(f, s) * inverse;
            total += f64::from(mean);
            let factor = (scale * f64::from(inverse)) as f32;
            for (d, &f) in d.iter_mut().zip(f) {
                *d = factor * (f - mean);
            }
        }
        total * scale
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{Rng, assert_close, differences, on_every_isa, wide, with_best};

    fn plan(idx: &[i32], n: usize, topk: usize, experts: usize) -> [Vec<i32>; 4] {
        let [mut offsets, mut row_token, mut row_slot, mut slot_row] =
            [experts + 1, n * topk, n * topk, n * topk].map(|len| vec![-1; len]);
        let out = MoePlan {
            offsets: &mut offsets,
            row_token: &mut row_token,
            row_slot: &mut row_slot,
            slot_row: &mut slot_row,
        };
        with_best(|ctx| moe_plan(ctx, idx, out, n, topk, experts));
        [offsets, row_token, row_slot, slot_row]
    }

    #[test]
    fn a_plan_sorts_by_expert_and_keeps_the_order_of_tokens() {
        let [offsets, row_token, row_slot, slot_row] = plan(&[2, 0, 2, 3, 0, 2], 3, 2, 5);
        assert_eq!(offsets, [0, 2, 2, 5, 6, 6]);
        assert_eq!(row_slot, [1, 4, 0, 2, 5, 3]);
        assert_eq!(row_token, [0, 2, 0, 1, 2, 1]);
        assert_eq!(slot_row, [2, 0, 3, 5, 1, 4]);
    }

    #[test]
    #[should_panic(expected = "moePlan: idx must lie in [0, 2), got 2")]
    fn a_plan_refuses_an_unknown_expert() {
        plan(&[0, 2], 2, 1, 2);
    }

    #[test]
    fn combine_adds_the_rows_of_each_token() {
        let mut rng = Rng(18);
        for (n, topk, d) in [(3, 2, 17), (300, 6, 100)] {
            let idx = rng.indices(n * topk, 5);
            let [.., slot_row] = plan(&idx, n, topk, 5);
            let (ys, base, old) = (rng.values(n * topk * d, 1.0), rng.values(n * d, 1.0), rng.values(n * d, 1.0));
            for (base, accumulate) in [(None, false), (None, true), (Some(&base[..]), false), (Some(&base[..]), true)] {
                let mut want = if accumulate { wide(&old) } else { vec![0.0; n * d] };
                for at in 0..n * d {
                    want[at] += base.map_or(0.0, |base| f64::from(base[at]));
                    for &row in &slot_row[at / d * topk..][..topk] {
                        want[at] += f64::from(ys[row as usize * d + at % d]);
                    }
                }
                let run = |ctx: Ctx| {
                    let mut y = old.clone();
                    combine(ctx, &ys, &slot_row, base, &mut y, Combine { n, topk, d, accumulate });
                    y
                };
                on_every_isa(run, |y| assert_close("y", y, &want, 1e-6));
            }
        }
    }

    #[test]
    fn counts_and_bias_follow_the_load() {
        with_best(|ctx| {
            let (mut counts, mut bias) = ([1.0; 3], [0.5; 3]);
            expert_counts(ctx, &[0, 0, 2], &mut counts, 3, 3, true);
            assert_eq!(counts, [3.0, 1.0, 2.0]);
            router_bias_into(ctx, &counts, &mut bias, 3, 0.25);
            assert_eq!(bias, [0.25, 0.75, 0.5]);
            expert_counts(ctx, &[1], &mut counts, 1, 3, false);
            assert_eq!(counts, [0.0, 1.0, 0.0]);
        });
    }

    fn plain_loss(scores: &[f64], idx: &[i32], starts: &[i32], shape: BalanceLoss) -> f64 {
        let BalanceLoss { experts, topk, segments, alpha, .. } = shape;
        let segment = |s: usize| {
            let rows = starts[s] as usize..starts[s + 1] as usize;
            let per_expert = |e: usize| {
                let chosen = idx[rows.start * topk..rows.end * topk].iter().filter(|&&i| i as usize == e).count();
                let f = experts as f64 / (topk * rows.len()) as f64 * chosen as f64;
                let share = |r: usize| scores[r * experts + e] / scores[r * experts..][..experts].iter().sum::<f64>();
                f * rows.clone().map(share).sum::<f64>() / rows.len() as f64
            };
            (0..experts).map(per_expert).sum::<f64>()
        };
        alpha * (0..segments).filter(|&s| starts[s] < starts[s + 1]).map(segment).sum::<f64>() / segments as f64
    }

    #[test]
    fn the_balance_loss_and_its_gradient_match_a_plain_loop() {
        let mut rng = Rng(19);
        for (n, experts, topk, starts) in
            [(6, 5, 2, vec![0, 6]), (9, 17, 3, vec![1, 3, 3, 8]), (800, 33, 2, vec![0, 300, 301, 800])]
        {
            let segments = starts.len() - 1;
            let scores: Vec<_> = rng.values(n * experts, 0.4).iter().map(|v| v + 0.5).collect();
            let idx: Vec<_> = rng.indices(n * topk, experts).iter().map(|&e| e * e / experts as i32).collect();
            let shape = BalanceLoss { n, experts, topk, segments, alpha: 0.5 };
            let run = |ctx: Ctx| {
                let (mut loss, mut d_scores) = (vec![0.0], vec![9.0; n * experts]);
                let load = Load { scores: &scores, idx: &idx, segments: &starts };
                balance_loss(ctx, load, &mut loss, &mut d_scores, shape);
                [loss, d_scores].concat()
            };
            let loss = plain_loss(&wide(&scores), &idx, &starts, shape);
            on_every_isa(run, |got| assert_close("loss", &got[..1], &[loss], 1e-6));
            if n < 100 {
                let want = differences(&scores, |s| plain_loss(s, &idx, &starts, shape));
                on_every_isa(run, |got| assert_close("dScores", &got[1..], &want, 1e-6));
            }
        }
    }

    #[test]
    #[should_panic(expected = "balanceLoss: row starts must rise within [0, 2], got [0, 3]")]
    fn segments_beyond_the_rows_are_refused() {
        let load = Load { scores: &[0.5; 2], idx: &[0; 2], segments: &[0, 3] };
        let shape = BalanceLoss { n: 2, experts: 1, topk: 1, segments: 1, alpha: 1.0 };
        with_best(|ctx| balance_loss(ctx, load, &mut [0.0], &mut [0.0; 2], shape));
    }
}
