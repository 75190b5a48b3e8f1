//! The router: scores, the choice of experts, and the gradient of their weights.

use super::chunks::{Shared, checked_index, each_rows};
use super::simd::{dot, exp_of_negative, max, per_isa, sigmoid, sum};
use crate::Ctx;

/// Added to the sum of the chosen scores before they are divided by it.
const NORMALIZE_EPS: f32 = 1e-20;
/// Elements of work that choosing costs per expert.
const COST: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScoreFunc {
    Softmax,
    Sigmoid,
}

/// What a group of experts is ranked by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupScore {
    NoGroups,
    Largest,
    TwoLargest,
}

#[derive(Clone, Copy)]
pub struct Route {
    pub n: usize,
    pub experts: usize,
    pub topk: usize,
    pub groups: usize,
    pub limited_groups: usize,
    pub score_func: ScoreFunc,
    pub group_score: GroupScore,
    pub normalize: bool,
    pub route_scale: f32,
}

/// The written operands of `route`.
pub struct Routed<'a> {
    /// [n, experts]
    pub scores: &'a mut [f32],
    /// [n, topk]
    pub idx: &'a mut [i32],
    /// [n, topk]
    pub weights: &'a mut [f32],
}

/// Scores all experts and chooses the `topk` best of each token by score + bias, ties to the lower index.
pub fn route(ctx: Ctx, logits: &[f32], bias: Option<&[f32]>, routed: Routed, shape: Route) {
    let Route { n, experts, topk, groups, limited_groups, group_score, .. } = shape;
    assert!(topk <= experts, "route: topk must be at most experts ({experts}), got {topk}");
    if group_score != GroupScore::NoGroups {
        assert!(
            groups > 0 && experts.is_multiple_of(groups) && limited_groups <= groups,
            "route: groups must divide experts ({experts}) and be at least limitedGroups ({limited_groups}), got {groups}"
        );
    }
    let (logits, bias) = (&logits[..n * experts], bias.map(|bias| &bias[..experts]));
    let scores = Shared::new(&mut routed.scores[..n * experts]);
    let idx = Shared::new(&mut routed.idx[..n * topk]);
    let weights = Shared::new(&mut routed.weights[..n * topk]);
    each_rows(ctx, n, experts * COST, |range| {
        let mut chooser = Chooser::new(shape);
        for r in range {
            // SAFETY: rows do not overlap.
            let (scores, idx, weights) =
                unsafe { (scores.part(r * experts, experts), idx.part(r * topk, topk), weights.part(r * topk, topk)) };
            score_row(ctx.isa, &logits[r * experts..][..experts], scores, shape.score_func);
            chooser.choose(scores, bias, idx);
            weigh(scores, idx, weights, shape);
        }
    });
}

per_isa! {
    fn score_row(logits: &[f32], scores: &mut [f32], func: ScoreFunc) {
        if func == ScoreFunc::Sigmoid {
            for (s, &x) in scores.iter_mut().zip(logits) {
                *s = sigmoid::<S>(x);
            }
            return;
        }
        let top = max::<S>(logits);
        for (s, &x) in scores.iter_mut().zip(logits) {
            *s = exp_of_negative::<S>(x - top);
        }
        let factor = 1.0 / sum::<S>(scores);
        for s in scores {
            *s *= factor;
        }
    }
}

/// weights = scale · score, of the chosen; divided by their sum when normalised.
fn weigh(scores: &[f32], idx: &[i32], weights: &mut [f32], shape: Route) {
    let mut total = 0.0;
    for (w, &e) in weights.iter_mut().zip(idx) {
        *w = scores[e as usize];
        total += *w;
    }
    let total = if shape.normalize { total + NORMALIZE_EPS } else { 1.0 };
    for w in weights {
        *w = *w / total * shape.route_scale;
    }
}

/// Scratch of the choice for one token.
struct Chooser {
    shape: Route,
    /// score + bias of every expert, −∞ for experts of groups that do not stay.
    selection: Vec<f32>,
    expert_taken: Vec<bool>,
    group_scores: Vec<f32>,
    group_taken: Vec<bool>,
}

impl Chooser {
    fn new(shape: Route) -> Self {
        let groups = if shape.group_score == GroupScore::NoGroups { 0 } else { shape.groups };
        Self {
            shape,
            selection: vec![0.0; shape.experts],
            expert_taken: vec![false; shape.experts],
            group_scores: vec![0.0; groups],
            group_taken: vec![false; groups],
        }
    }

    fn choose(&mut self, scores: &[f32], bias: Option<&[f32]>, idx: &mut [i32]) {
        self.selection.copy_from_slice(scores);
        if let Some(bias) = bias {
            for (s, &b) in self.selection.iter_mut().zip(bias) {
                *s += b;
            }
        }
        if self.shape.group_score != GroupScore::NoGroups {
            self.mask_groups();
        }
        self.expert_taken.fill(false);
        for slot in idx {
            *slot = take_best(&self.selection, &mut self.expert_taken) as i32;
        }
    }

    fn mask_groups(&mut self) {
        let size = self.shape.experts / self.shape.groups;
        for (score, group) in self.group_scores.iter_mut().zip(self.selection.chunks_exact(size)) {
            let (first, second) = two_largest(group);
            let pair = self.shape.group_score == GroupScore::TwoLargest && size > 1;
            *score = if pair { first + second } else { first };
        }
        self.group_taken.fill(false);
        for _ in 0..self.shape.limited_groups {
            take_best(&self.group_scores, &mut self.group_taken);
        }
        for (group, &stays) in self.selection.chunks_exact_mut(size).zip(&self.group_taken) {
            if !stays {
                group.fill(f32::NEG_INFINITY);
            }
        }
    }
}

fn two_largest(values: &[f32]) -> (f32, f32) {
    let (mut first, mut second) = (f32::NEG_INFINITY, f32::NEG_INFINITY);
    for &v in values {
        if v > first {
            (first, second) = (v, first);
        } else if v > second {
            second = v;
        }
    }
    (first, second)
}

/// The lowest index of the largest value not yet taken, which is then taken.
fn take_best(values: &[f32], taken: &mut [bool]) -> usize {
    let mut best = None;
    for (i, (&v, &taken)) in values.iter().zip(&*taken).enumerate() {
        if !taken && best.is_none_or(|(_, top)| v > top) {
            best = Some((i, v));
        }
    }
    let (i, _) = best.expect("route: there must be as many experts as choices");
    taken[i] = true;
    i
}

#[derive(Clone, Copy)]
pub struct RouteBackward {
    pub n: usize,
    pub experts: usize,
    pub topk: usize,
    pub score_func: ScoreFunc,
    pub normalize: bool,
    pub route_scale: f32,
}

/// The read operands of `route_backward`.
#[derive(Clone, Copy)]
pub struct RouteGradients<'a> {
    pub scores: &'a [f32],
    pub idx: &'a [i32],
    pub d_weights: Option<&'a [f32]>,
    pub d_scores: Option<&'a [f32]>,
}

/// dLogits [n, experts] from dWeights [n, topk] and dScores [n, experts]; the choice has no gradient.
pub fn route_backward(ctx: Ctx, gradients: RouteGradients, d_logits: &mut [f32], shape: RouteBackward) {
    let RouteBackward { n, experts, topk, .. } = shape;
    let RouteGradients { scores, idx, d_weights, d_scores } = gradients;
    let d_logits = Shared::new(&mut d_logits[..n * experts]);
    each_rows(ctx, n, experts, |range| {
        for r in range {
            // SAFETY: rows do not overlap.
            let d_row = unsafe { d_logits.part(r * experts, experts) };
            let scores = &scores[r * experts..][..experts];
            match d_scores {
                Some(d_scores) => d_row.copy_from_slice(&d_scores[r * experts..][..experts]),
                None => d_row.fill(0.0),
            }
            if let Some(d_weights) = d_weights {
                let choice = r * topk..(r + 1) * topk;
                weigh_backward(scores, &idx[choice.clone()], &d_weights[choice], d_row, shape);
            }
            score_backward_row(ctx.isa, scores, d_row, shape.score_func);
        }
    });
}

/// Adds the gradient of the weights to that of the scores.
fn weigh_backward(scores: &[f32], idx: &[i32], d_weights: &[f32], d_scores: &mut [f32], shape: RouteBackward) {
    let expert = |e: i32| checked_index("routeBackward", "idx", e, shape.experts);
    let (mut total, mut along) = (NORMALIZE_EPS, 0.0);
    for (&e, &dw) in idx.iter().zip(d_weights) {
        total += scores[expert(e)];
        along += scores[expert(e)] * dw;
    }
    for (&e, &dw) in idx.iter().zip(d_weights) {
        let d_score = if shape.normalize { (dw - along / total) / total } else { dw };
        d_scores[expert(e)] += d_score * shape.route_scale;
    }
}

per_isa! {
    /// The gradient of the scores, in place, becomes that of the logits.
    fn score_backward_row(scores: &[f32], d: &mut [f32], func: ScoreFunc) {
        if func == ScoreFunc::Sigmoid {
            for (d, &s) in d.iter_mut().zip(scores) {
                *d *= s * (1.0 - s);
            }
            return;
        }
        let along = dot::<S>(scores, d);
        for (d, &s) in d.iter_mut().zip(scores) {
            *d = s * (*d - along);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{Rng, assert_close, differences, inner, on_every_isa, wide, with_best};

    const PLAIN: Route = Route {
        n: 1,
        experts: 4,
        topk: 2,
        groups: 1,
        limited_groups: 1,
        score_func: ScoreFunc::Sigmoid,
        group_score: GroupScore::NoGroups,
        normalize: false,
        route_scale: 1.0,
    };

    struct Answer {
        scores: Vec<f32>,
        idx: Vec<i32>,
        weights: Vec<f32>,
    }

    fn run(ctx: Ctx, logits: &[f32], bias: Option<&[f32]>, shape: Route) -> Answer {
        let (n, e, a) = (shape.n, shape.experts, shape.topk);
        let mut answer = Answer { scores: vec![0.0; n * e], idx: vec![-1; n * a], weights: vec![0.0; n * a] };
        let routed = Routed { scores: &mut answer.scores, idx: &mut answer.idx, weights: &mut answer.weights };
        route(ctx, logits, bias, routed, shape);
        answer
    }

    fn plain_scores(logits: &[f64], experts: usize, func: ScoreFunc) -> Vec<f64> {
        let row = |x: &[f64]| -> Vec<f64> {
            let total: f64 = x.iter().map(|v| v.exp()).sum();
            let sigmoid = func == ScoreFunc::Sigmoid;
            x.iter().map(|&v| if sigmoid { 1.0 / (1.0 + (-v).exp()) } else { v.exp() / total }).collect()
        };
        logits.chunks(experts).flat_map(row).collect()
    }

    fn plain_weights(scores: &[f64], idx: &[i32], shape: Route) -> Vec<f64> {
        let row = |(s, idx): (&[f64], &[i32])| -> Vec<f64> {
            let total: f64 = idx.iter().map(|&e| s[e as usize]).sum();
            let total = if shape.normalize { total + 1e-20 } else { 1.0 };
            idx.iter().map(|&e| s[e as usize] / total * f64::from(shape.route_scale)).collect()
        };
        scores.chunks(shape.experts).zip(idx.chunks(shape.topk)).flat_map(row).collect()
    }

    #[test]
    fn scores_and_weights_match_a_plain_loop_and_the_choice_is_the_best() {
        let mut rng = Rng(16);
        for (n, experts, topk) in [(3, 1, 1), (5, 7, 3), (400, 64, 6), (2, 17, 17)] {
            let (logits, bias) = (rng.values(n * experts, 3.0), rng.values(experts, 0.3));
            for (score_func, normalize) in
                [(ScoreFunc::Softmax, false), (ScoreFunc::Sigmoid, true), (ScoreFunc::Softmax, true)]
            {
                let shape = Route { n, experts, topk, score_func, normalize, route_scale: 2.5, ..PLAIN };
                let kernel = |ctx: Ctx| {
                    let answer = run(ctx, &logits, Some(&bias), shape);
                    let idx: Vec<_> = answer.idx.iter().map(|&e| e as f32).collect();
                    [answer.scores, answer.weights, idx].concat()
                };
                let scores = plain_scores(&wide(&logits), experts, score_func);
                on_every_isa(kernel, |got| {
                    let (got_scores, rest) = got.split_at(n * experts);
                    let (weights, idx) = rest.split_at(n * topk);
                    let idx: Vec<_> = idx.iter().map(|&e| e as i32).collect();
                    assert_close("scores", got_scores, &scores, 1e-6);
                    assert_close("weights", weights, &plain_weights(&scores, &idx, shape), 1e-6);
                    for (s, idx) in got_scores.chunks(experts).zip(idx.chunks(topk)) {
                        let mut order: Vec<_> = (0..experts).collect();
                        order.sort_by(|&a, &b| (s[b] + bias[b]).total_cmp(&(s[a] + bias[a])));
                        assert!(idx.iter().zip(&order).all(|(&got, &want)| got as usize == want));
                    }
                });
            }
        }
    }

    #[test]
    fn ties_go_to_the_lower_index() {
        let shape = Route { experts: 5, topk: 3, ..PLAIN };
        with_best(|ctx| assert_eq!(run(ctx, &[1.0, 2.0, 2.0, 1.0, 1.0], None, shape).idx, [1, 2, 0]));
    }

    #[test]
    fn a_bias_moves_the_choice_but_not_the_weights() {
        with_best(|ctx| {
            let answer = run(ctx, &[0.0; 4], Some(&[0.0, 0.0, 0.1, 0.2]), PLAIN);
            assert_eq!((answer.idx, answer.weights), (vec![3, 2], vec![0.5, 0.5]));
        });
    }

    #[test]
    fn groups_are_ranked_by_their_largest_or_their_two_largest() {
        // Group 0 holds the largest score; group 1 the largest pair; group 2 ties with group 1 and comes later.
        let bias = [0.9, 0.0, 0.6, 0.5, 0.6, 0.5];
        let shape = Route { experts: 6, groups: 3, limited_groups: 1, ..PLAIN };
        let choice = |group_score, limited_groups, topk| {
            let shape = Route { group_score, limited_groups, topk, ..shape };
            let mut idx = vec![];
            with_best(|ctx| idx = run(ctx, &[0.0; 6], Some(&bias), shape).idx);
            idx
        };
        assert_eq!(choice(GroupScore::Largest, 1, 2), [0, 1]);
        assert_eq!(choice(GroupScore::TwoLargest, 1, 2), [2, 3]);
        assert_eq!(choice(GroupScore::TwoLargest, 2, 3), [2, 4, 3]);
        assert_eq!(choice(GroupScore::NoGroups, 1, 3), [0, 2, 4]);
        // More choices than the group has: the others count as −∞ and follow by index.
        assert_eq!(choice(GroupScore::Largest, 1, 4), [0, 1, 2, 3]);
    }

    #[test]
    fn gradients_match_central_differences() {
        let mut rng = Rng(17);
        for (n, experts, topk) in [(3, 7, 3), (2, 33, 8)] {
            let logits = rng.values(n * experts, 2.0);
            let (d_weights, d_scores) = (rng.values(n * topk, 1.0), rng.values(n * experts, 1.0));
            for (score_func, normalize) in [
                (ScoreFunc::Softmax, false),
                (ScoreFunc::Softmax, true),
                (ScoreFunc::Sigmoid, false),
                (ScoreFunc::Sigmoid, true),
            ] {
                let shape = Route { n, experts, topk, score_func, normalize, route_scale: 1.5, ..PLAIN };
                let mut forward = None;
                with_best(|ctx| forward = Some(run(ctx, &logits, None, shape)));
                let Answer { scores, idx, .. } = forward.unwrap();
                for parts in 0..4 {
                    let (d_weights, d_scores) =
                        ((parts & 1 != 0).then_some(&d_weights[..]), (parts & 2 != 0).then_some(&d_scores[..]));
                    let want = differences(&logits, |x| {
                        let scores = plain_scores(x, experts, score_func);
                        d_weights.map_or(0.0, |d| inner(&plain_weights(&scores, &idx, shape), d))
                            + d_scores.map_or(0.0, |d| inner(&scores, d))
                    });
                    let kernel = |ctx: Ctx| {
                        let mut d_logits = vec![9.0; n * experts];
                        let gradients = RouteGradients { scores: &scores, idx: &idx, d_weights, d_scores };
                        let shape = RouteBackward { n, experts, topk, score_func, normalize, route_scale: 1.5 };
                        route_backward(ctx, gradients, &mut d_logits, shape);
                        d_logits
                    };
                    on_every_isa(kernel, |got| assert_close("dLogits", got, &want, 2e-6));
                }
            }
        }
    }
}
