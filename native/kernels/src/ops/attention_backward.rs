//! Gradients of causal attention. The scores are computed again from the saved log-sum, so memory is linear in n.
//!
//! A chunk is one head of one or more whole sequences: it owns their dq, dk1 and dv, and needs five products for a tile.

use std::ops::Range;

use super::attention::{Attention, Packed, Place, Qkv, groups, narrow_row, pack_keys, run_chunks};
use super::chunks::{Shared, each_rows};
use super::simd::{add_scaled, dot, exp_of_negative, per_isa};
use crate::gemm::{Compute, MatIn, serial};
use crate::scratch::Scratch;
use crate::{Ctx, Isa};

/// Query rows of a tile of scores.
const QUERIES: usize = 128;
/// Keys of a tile of scores.
const KEYS: usize = 128;

/// What the forward pass left, and the gradient of its output; out and d_out [n, heads, value_dim], lse [n, heads].
#[derive(Clone, Copy)]
pub struct AttentionSaved<'a> {
    pub qkv: Qkv<'a>,
    pub out: &'a [f32],
    pub lse: &'a [f32],
    pub d_out: &'a [f32],
}

/// The written operands. dk1, dk2 and dv may be columns of one matrix.
#[derive(Clone, Copy)]
pub struct AttentionGradients<'a> {
    /// [n, heads], workspace.
    pub delta: Shared<'a, f32>,
    pub dq: Shared<'a, f32>,
    pub dk1: Shared<'a, f32>,
    pub dk2: Option<Shared<'a, f32>>,
    pub dv: Shared<'a, f32>,
}

/// Writes dq, dk1, dk2 and dv with the strides of q, k1, k2 and v. With `k2_head` 0, dk2 is the sum over heads.
pub fn attention_backward(ctx: Ctx, saved: AttentionSaved, gradients: AttentionGradients, shape: Attention) {
    const KERNEL: &str = "attentionBackward";
    let starts = shape.starts(KERNEL, saved.qkv);
    let places = [("dk1", shape.k1(), gradients.dk1), ("dv", shape.v(), gradients.dv), ("dq", shape.q(), gradients.dq)];
    for (name, place, gradient) in places {
        place.check(KERNEL, name, gradient.len(), &shape);
        owned(name, place, &shape, shape.heads);
    }
    let shared_k2 = gradients.dk2.is_some() && shape.k2_head == 0;
    if let Some(dk2) = gradients.dk2 {
        shape.k2().check(KERNEL, "dk2", dk2.len(), &shape);
        owned("dk2", shape.k2(), &shape, if shared_k2 { 1 } else { shape.heads });
    }
    let (rows, values) = (shape.n * shape.heads, shape.n * shape.heads * shape.value_dim);
    let saved =
        AttentionSaved { out: &saved.out[..values], d_out: &saved.d_out[..values], lse: &saved.lse[..rows], ..saved };
    // Each head's own dk2, [n, heads, rope_dim], where the heads share one.
    let mut partials = Scratch::<f32>::take(if shared_k2 { rows * shape.rope_dim } else { 0 });
    let partials = Shared::new(&mut partials);
    let dk2 = gradients.dk2.map(|dk2| {
        let apart = Place { row: shape.heads * shape.rope_dim, head: shape.rope_dim, width: shape.rope_dim };
        if shared_k2 { (partials, apart) } else { (dk2, shape.k2()) }
    });
    let sequences: Vec<_> = starts.windows(2).map(|s| s[0]..s[1]).filter(|rows| !rows.is_empty()).collect();
    let groups = groups(&sequences, |rows| rows.len());
    run_chunks(ctx, groups.len() * shape.heads, &starts, &shape, |chunk| {
        let group = &groups[chunk / shape.heads];
        let longest = group.iter().map(|rows| rows.len()).max().unwrap_or(0);
        let mut head = Head::new(ctx.isa, saved, gradients, dk2, shape, chunk % shape.heads, longest);
        for sequence in group {
            head.sequence(sequence.clone());
        }
    });
    if let (true, Some(dk2)) = (shared_k2, gradients.dk2) {
        sum_heads(ctx, partials, dk2, &shape);
    }
}

/// Panics unless rows and heads of a gradient lie apart, so that a chunk owns its part.
fn owned(name: &str, place: Place, shape: &Attention, heads: usize) {
    let Place { row, head, width } = place;
    let (last_row, last_head) = (shape.n.max(1) - 1, heads.max(1) - 1);
    let rows_outside = (last_row == 0 || row >= last_head * head + width) && (last_head == 0 || head >= width);
    let heads_outside = (last_head == 0 || head >= last_row * row + width) && (last_row == 0 || row >= width);
    assert!(
        rows_outside || heads_outside,
        "attentionBackward: rows and heads of {name} must not overlap, got strides {row} and {head} for {width} values"
    );
}

/// `dk2[i, :] = Σ_h partials[i, h, :]`, in the order of h.
fn sum_heads(ctx: Ctx, partials: Shared<f32>, dk2: Shared<f32>, shape: &Attention) {
    let (place, heads, width) = (shape.k2(), shape.heads, shape.rope_dim);
    each_rows(ctx, shape.n, heads * width, |rows| {
        for row in rows {
            // SAFETY: all chunks that wrote the partials are done; rows do not overlap.
            let (from, to) = unsafe { (partials.part(row * heads * width, heads * width), dk2.part(row * place.row, width)) };
            to.fill(0.0);
            for part in from.chunks_exact(width.max(1)) {
                add_row(ctx.isa, part, to);
            }
        }
    });
}

per_isa! {
    fn add_row(x: &[f32], y: &mut [f32]) {
        add_scaled::<S>(y, 1.0, x);
    }
}

/// One head at work, with its scratch. Tiles of scores stand with keys as rows and queries as columns.
struct Head<'a> {
    isa: Isa,
    saved: AttentionSaved<'a>,
    gradients: AttentionGradients<'a>,
    dk2: Option<(Shared<'a, f32>, Place)>,
    shape: Attention,
    head: usize,
    /// Of the whole sequence, as are dOut, lse and delta.
    queries: Packed,
    d_outs: Packed,
    lse: Scratch<f32>,
    delta: Scratch<f32>,
    /// Of the tile, as are the values and dk.
    keys: Packed,
    values: Packed,
    d_keys: Scratch<f32>,
    scores: Tile,
    d_scores: Tile,
}

impl<'a> Head<'a> {
    fn new(
        isa: Isa,
        saved: AttentionSaved<'a>,
        gradients: AttentionGradients<'a>,
        dk2: Option<(Shared<'a, f32>, Place)>,
        shape: Attention,
        head: usize,
        rows: usize,
    ) -> Self {
        let (k, u, compute) = (shape.key_dim(), shape.value_dim, shape.compute);
        Self {
            isa,
            saved,
            gradients,
            dk2,
            shape,
            head,
            queries: Packed::new(rows, k, compute),
            d_outs: Packed::new(rows, u, compute),
            lse: Scratch::take(rows),
            delta: Scratch::take(rows),
            keys: Packed::new(KEYS, k, compute),
            values: Packed::new(KEYS, u, compute),
            d_keys: Scratch::take(KEYS * k),
            scores: Tile::new(compute),
            d_scores: Tile::new(compute),
        }
    }

    fn sequence(&mut self, rows: Range<usize>) {
        let (shape, head) = (self.shape, self.head);
        let (v, first, len) = (shape.v(), rows.start, rows.len());
        self.pack_queries(rows.clone());
        for key in rows.clone().step_by(KEYS) {
            let keys = key..rows.end.min(key + KEYS);
            pack_keys(self.isa, &mut self.keys, self.saved.qkv, &shape, head, keys.clone());
            self.values.fill(self.isa, self.saved.qkv.v, v.at(key, head), v.row, keys.len(), 0..v.width);
            for at in (key - first..len).step_by(QUERIES) {
                self.tile(first, at..len.min(at + QUERIES), keys.clone());
            }
            self.store_keys(keys);
        }
    }

    /// Packs what belongs to the queries of the sequence, and clears its dq.
    fn pack_queries(&mut self, rows: Range<usize>) {
        let (shape, isa, head) = (self.shape, self.isa, self.head);
        let (q, out) = (shape.q(), shape.out());
        self.queries.fill(isa, self.saved.qkv.q, q.at(rows.start, head), q.row, rows.len(), 0..q.width);
        self.d_outs.fill(isa, self.saved.d_out, out.at(rows.start, head), out.row, rows.len(), 0..out.width);
        for (i, row) in rows.enumerate() {
            let at = out.at(row, head)..out.at(row, head) + out.width;
            self.delta[i] = dot_row(isa, &self.saved.d_out[at.clone()], &self.saved.out[at]);
            self.lse[i] = self.saved.lse[row * shape.heads + head];
            // SAFETY: each chunk owns the rows of its head.
            unsafe {
                self.gradients.delta.part(row * shape.heads + head, 1)[0] = self.delta[i];
                self.gradients.dq.part(q.at(row, head), q.width).fill(0.0);
            }
        }
    }

    /// What the queries `at` (counted from row `first`) and a tile of keys give to dq, dk and dv.
    fn tile(&mut self, first: usize, at: Range<usize>, keys: Range<usize>) {
        let (shape, isa, compute) = (self.shape, self.isa, self.shape.compute);
        let (k, u) = (shape.key_dim(), shape.value_dim);
        let (m, n) = (keys.len(), at.len());
        let (queries, d_outs) = (self.queries.from_row(at.start), self.d_outs.from_row(at.start));
        let (keys_in, values) = (self.keys.from_row(0), self.values.from_row(0));
        // SAFETY: the packed operands hold these rows, and the tiles are this thread's.
        unsafe {
            serial(isa, m, n, k, keys_in, queries.t(), self.scores.wide.as_mut_ptr(), n, false, compute);
            serial(isa, m, n, u, values, d_outs.t(), self.d_scores.wide.as_mut_ptr(), n, false, compute);
        }
        let (lse, delta) = (&self.lse[at.clone()], &self.delta[at.clone()]);
        for j in 0..m {
            let hidden = (keys.start + j).saturating_sub(first + at.start).min(n);
            let (scores, d_scores) = (self.scores.row(j, n), self.d_scores.row(j, n));
            gradient_row(isa, scores, d_scores, hidden, shape.scale, lse, delta);
            self.scores.round_row(isa, j, n);
            self.d_scores.round_row(isa, j, n);
        }
        let (p, ds) = (self.scores.matrix(n), self.d_scores.matrix(n));
        let accumulate = first + at.start > keys.start;
        let (q_place, v_place) = (shape.q(), shape.v());
        // SAFETY: each chunk owns the rows of its head, and both ends of the products lie inside the operands.
        unsafe {
            let dv = rows_of(self.gradients.dv, v_place, self.head, keys.clone());
            serial(isa, m, u, n, p, d_outs, dv, v_place.row, accumulate, compute);
            serial(isa, m, k, n, ds, queries, self.d_keys.as_mut_ptr(), k, accumulate, compute);
            let dq = rows_of(self.gradients.dq, q_place, self.head, first + at.start..first + at.end);
            serial(isa, n, k, m, ds.t(), keys_in, dq, q_place.row, true, compute);
        }
    }

    /// Splits the finished dk of a tile into its two parts.
    fn store_keys(&mut self, keys: Range<usize>) {
        let (p, k) = (self.shape.nope_dim, self.shape.key_dim());
        for (row, d_key) in keys.zip(self.d_keys.chunks_exact(k.max(1))) {
            // SAFETY: each chunk owns the rows of its head.
            unsafe { self.gradients.dk1.part(self.shape.k1().at(row, self.head), p) }.copy_from_slice(&d_key[..p]);
            if let Some((dk2, place)) = self.dk2 {
                // SAFETY: as above.
                unsafe { dk2.part(place.at(row, self.head), k - p) }.copy_from_slice(&d_key[p..]);
            }
        }
    }
}

/// Where rows of a head begin; panics unless they all lie inside.
///
/// # Safety
/// No other reference to these rows may be alive.
unsafe fn rows_of(operand: Shared<f32>, place: Place, head: usize, rows: Range<usize>) -> *mut f32 {
    // SAFETY: the caller's promise.
    unsafe {
        operand.part(place.at(rows.end - 1, head), place.width);
        operand.part(place.at(rows.start, head), place.width).as_mut_ptr()
    }
}

/// A tile of scores, and its rounded copy where products are bf16.
struct Tile {
    wide: Scratch<f32>,
    narrow: Scratch<u16>,
    compute: Compute,
}

impl Tile {
    fn new(compute: Compute) -> Self {
        let narrow = if compute == Compute::Bf16 { QUERIES * KEYS } else { 0 };
        Self { wide: Scratch::take(QUERIES * KEYS), narrow: Scratch::take(narrow), compute }
    }

    fn row(&mut self, row: usize, width: usize) -> &mut [f32] {
        &mut self.wide[row * width..(row + 1) * width]
    }

    fn round_row(&mut self, isa: Isa, row: usize, width: usize) {
        if self.compute == Compute::Bf16 {
            let at = row * width..(row + 1) * width;
            narrow_row(isa, &self.wide[at.clone()], &mut self.narrow[at]);
        }
    }

    fn matrix(&self, width: usize) -> MatIn<'static> {
        match self.compute {
            Compute::F32 => MatIn::f32(self.wide.as_ptr(), width),
            Compute::Bf16 => MatIn::bf16(self.narrow.as_ptr(), width),
        }
    }
}

per_isa! {
    fn dot_row(x: &[f32], y: &[f32]) -> f32 {
        dot::<S>(x, y)
    }
}

per_isa! {
    /// Of one key and some queries: scores become p = exp(scale · score − lse), their gradients, from dp,
    /// scale · p · (dp − delta). Queries before the key, `hidden` of them, get 0.
    fn gradient_row(
        scores: &mut [f32],
        d_scores: &mut [f32],
        hidden: usize,
        scale: f32,
        lse: &[f32],
        delta: &[f32],
    ) {
        scores[..hidden].fill(0.0);
        d_scores[..hidden].fill(0.0);
        let rows = scores[hidden..].iter_mut().zip(&mut d_scores[hidden..]);
        for (((p, ds), &lse), &delta) in rows.zip(&lse[hidden..]).zip(&delta[hidden..]) {
            *p = exp_of_negative::<S>(S::mul_add(*p, scale, -lse));
            *ds = *p * (*ds - delta) * scale;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::attention::tests::{Case, Dims, plain, plain_row};
    use crate::ops::testing::{Rng, assert_close, differences, inner, on_every_isa, wide};

    /// dq, dkv and dk2, with 0.5 left in columns that the kernel must not touch.
    fn run(ctx: Ctx, case: &Case, d_out: &[f32]) -> Vec<f32> {
        let s = case.shape;
        let (out, lse) = case.run(ctx);
        let [mut dq, mut dkv, mut dk2] = [&case.q, &case.kv, &case.k2].map(|x| vec![0.5; x.len()]);
        let mut delta = vec![9.0; s.n * s.heads];
        let dkv_len = dkv.len() - s.nope_dim;
        let dk1 = Shared::new(&mut dkv);
        // SAFETY: the values begin `nope_dim` elements into the same matrix.
        let dv = unsafe { Shared::from_raw(dk1.part(0, dk1.len()).as_mut_ptr().add(s.nope_dim), dkv_len) };
        let gradients = AttentionGradients {
            delta: Shared::new(&mut delta),
            dq: Shared::new(&mut dq),
            dk1,
            dk2: (s.rope_dim > 0).then(|| Shared::new(&mut dk2)),
            dv,
        };
        let saved = AttentionSaved { qkv: case.operands(), out: &out, lse: &lse, d_out };
        attention_backward(ctx, saved, gradients, s);
        [dq, dkv, dk2].concat()
    }

    /// Puts 0.5 where an operand has columns that belong to no head.
    fn mask(gradient: &mut [f64], rows: usize, row: usize, used: usize) {
        for r in 0..rows {
            gradient[r * row..][..row][used..].fill(0.5);
        }
    }

    fn mask_all(case: &Case, dq: &mut [f64], dkv: &mut [f64], dk2: &mut [f64]) {
        let s = case.shape;
        mask(dq, s.n, s.q_stride, s.heads * s.key_dim());
        mask(dkv, s.n, s.k1_row, s.heads * (s.nope_dim + s.value_dim));
        mask(dk2, s.n, s.k2_row, s.k2_row - 2);
    }

    #[test]
    fn gradients_match_central_differences() {
        for (heads, nope, rope, value, own_k2) in [(2, 4, 2, 3, false), (2, 3, 2, 4, true), (1, 5, 0, 2, false)] {
            let starts = [0, 3, 3, 4, 9];
            let case = Case::new(&starts, Dims { heads, nope, rope, value, own_k2 }, Compute::F32);
            let d_out = Rng(3).values(9 * heads * value, 1.0);
            let (q, kv, k2) = (wide(&case.q), wide(&case.kv), wide(&case.k2));
            let loss = |q: &[f64], kv: &[f64], k2: &[f64]| inner(&plain(&case.shape, &starts, q, kv, k2).0, &d_out);
            let mut dq = differences(&case.q, |q| loss(q, &kv, &k2));
            let mut dkv = differences(&case.kv, |kv| loss(&q, kv, &k2));
            let mut dk2 = differences(&case.k2, |k2| loss(&q, &kv, k2));
            mask_all(&case, &mut dq, &mut dkv, &mut dk2);
            let want = [dq, dkv, dk2].concat();
            on_every_isa(|ctx| run(ctx, &case, &d_out), |got| assert_close("dq, dkv, dk2", got, &want, 5e-6));
        }
    }

    /// The gradients by the formula, in f64.
    fn plain_backward(case: &Case, d_out: &[f64]) -> [Vec<f64>; 3] {
        let s = case.shape;
        let (q, kv, k2) = (wide(&case.q), wide(&case.kv), wide(&case.k2));
        let [mut dq, mut dkv, mut dk2] = [&q, &kv, &k2].map(|x| vec![0.0; x.len()]);
        for span in case.starts.windows(2) {
            let first = span[0] as usize;
            for (i, h) in (first..span[1] as usize).flat_map(|i| (0..s.heads).map(move |h| (i, h))) {
                let (p, _) = plain_row(&s, &q, &kv, &k2, first, i, h);
                let d_row = &d_out[s.out().at(i, h)..][..s.value_dim];
                let v_at = |j: usize| s.nope_dim + s.v().at(first + j, h);
                let dp: Vec<f64> =
                    (0..p.len()).map(|j| (0..s.value_dim).map(|c| d_row[c] * kv[v_at(j) + c]).sum()).collect();
                let delta: f64 = p.iter().zip(&dp).map(|(p, dp)| p * dp).sum();
                for j in 0..p.len() {
                    let ds = p[j] * (dp[j] - delta) * f64::from(s.scale);
                    let (at_q, at_k1, at_k2) = (s.q().at(i, h), s.k1().at(first + j, h), s.k2().at(first + j, h));
                    for c in 0..s.value_dim {
                        dkv[v_at(j) + c] += p[j] * d_row[c];
                    }
                    for c in 0..s.nope_dim {
                        dq[at_q + c] += ds * kv[at_k1 + c];
                        dkv[at_k1 + c] += ds * q[at_q + c];
                    }
                    for c in 0..s.rope_dim {
                        dq[at_q + s.nope_dim + c] += ds * k2[at_k2 + c];
                        dk2[at_k2 + c] += ds * q[at_q + s.nope_dim + c];
                    }
                }
            }
        }
        mask_all(case, &mut dq, &mut dkv, &mut dk2);
        [dq, dkv, dk2]
    }

    #[test]
    fn gradients_over_several_tiles_match_the_formula() {
        let starts: [&[i32]; 3] = [&[0, 1, 130, 400], &[0, 256, 384], &[0, 20, 45, 50, 90, 100, 131]];
        for starts in starts {
            for (heads, nope, rope, value, own_k2) in [(2, 16, 8, 16, false), (3, 7, 3, 17, true)] {
                // Sums of a few hundred products whose bf16 factors are right to 2⁻⁹.
                for (compute, tolerance) in [(Compute::F32, 2e-5), (Compute::Bf16, 6e-2)] {
                    let case = Case::new(starts, Dims { heads, nope, rope, value, own_k2 }, compute);
                    let d_out = Rng(4).values(case.shape.n * heads * value, 1.0);
                    let want = plain_backward(&case, &wide(&d_out)).concat();
                    on_every_isa(|ctx| run(ctx, &case, &d_out), |got| assert_close("dq, dkv, dk2", got, &want, tolerance));
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "attentionBackward: rows and heads of dk1 must not overlap")]
    fn keys_shared_by_all_heads_are_refused() {
        let mut case =
            Case::new(&[0, 4], Dims { heads: 2, nope: 2, rope: 0, value: 2, own_k2: false }, Compute::F32);
        case.shape.k1_head = 0;
        crate::ops::testing::with_best(|ctx| drop(run(ctx, &case, &[1.0; 16])));
    }
}
