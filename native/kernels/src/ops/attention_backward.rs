//! Gradients of causal attention. The scores are computed again from the saved log-sum, so memory is linear in n.
//!
//! A chunk is one head of keys of one or more whole sequences, with the query heads that read it: it owns their dq, dk1
//! and dv, and needs five products for a tile. Query heads that share keys add their parts in their order.

use std::ops::Range;

use super::attention::{Attention, Place, Qkv, TILE, groups, join_keys, matrix, run_chunks, tiles};
use super::chunks::{Shared, each_rows};
use super::simd::{WIDTH, add_scaled, dot, exp_of_negative, per_isa};
use crate::gemm::MatIn;
use crate::gemm::packed::{PackedTiles, Side, multiply};
use crate::scratch::Scratch;
use crate::{Ctx, Isa};

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
    let places = [
        ("dk1", shape.k1(), gradients.dk1, shape.kv_heads),
        ("dv", shape.v(), gradients.dv, shape.kv_heads),
        ("dq", shape.q(), gradients.dq, shape.heads),
    ];
    for (name, place, gradient, heads) in places {
        place.check(KERNEL, name, gradient.len(), (shape.n, heads));
        owned(name, place, &shape, heads);
    }
    let shared_k2 = gradients.dk2.is_some() && shape.k2_head == 0;
    if let Some(dk2) = gradients.dk2 {
        shape.k2().check(KERNEL, "dk2", dk2.len(), (shape.n, shape.heads));
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
    run_chunks(ctx, groups.len() * shape.kv_heads, &starts, &shape, |chunk| {
        let (group, first) = (&groups[chunk / shape.kv_heads], chunk % shape.kv_heads * shape.sharing());
        let longest = group.iter().map(|rows| rows.len()).max().unwrap_or(0);
        let mut head = Head::new(ctx.isa, saved, gradients, dk2, shape, longest);
        for h in first..first + shape.sharing() {
            head.head = h;
            for sequence in group {
                head.sequence(sequence.clone());
            }
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
            let (from, to) =
                unsafe { (partials.part(row * heads * width, heads * width), dk2.part(row * place.row, width)) };
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
    /// Tiles of the whole sequence: as columns of the scores, and as the factor of dk and dv.
    query_columns: PackedTiles,
    query_rows: PackedTiles,
    d_out_columns: PackedTiles,
    d_out_rows: PackedTiles,
    /// Of the whole sequence, as are delta and dq; apart from the operand, whose rows lie far from each other.
    lse: Scratch<f32>,
    delta: Scratch<f32>,
    d_queries: Scratch<f32>,
    /// Of one tile, as is all below.
    keys: PackedTiles,
    key_rows: PackedTiles,
    values: PackedTiles,
    factor: PackedTiles,
    joined: Scratch<f32>,
    d_keys: Scratch<f32>,
    d_values: Scratch<f32>,
    scores: Scratch<f32>,
    d_scores: Scratch<f32>,
}

impl<'a> Head<'a> {
    fn new(
        isa: Isa,
        saved: AttentionSaved<'a>,
        gradients: AttentionGradients<'a>,
        dk2: Option<(Shared<'a, f32>, Place)>,
        shape: Attention,
        longest: usize,
    ) -> Self {
        let (k, u, all) = (shape.key_dim(), shape.value_dim, longest.div_ceil(TILE));
        let tiles = |side, tiles, lines, k| PackedTiles::new(isa, shape.compute, side, tiles, lines, k);
        Self {
            isa,
            saved,
            gradients,
            dk2,
            shape,
            head: 0,
            query_columns: tiles(Side::Right, all, TILE, k),
            query_rows: tiles(Side::Right, all, k, TILE),
            d_out_columns: tiles(Side::Right, all, TILE, u),
            d_out_rows: tiles(Side::Right, all, u, TILE),
            lse: Scratch::take(all * TILE),
            delta: Scratch::take(all * TILE),
            d_queries: Scratch::take(longest * k),
            keys: tiles(Side::Left, 1, TILE, k),
            key_rows: tiles(Side::Right, 1, k, TILE),
            values: tiles(Side::Left, 1, TILE, u),
            factor: tiles(Side::Left, 1, TILE, TILE),
            joined: Scratch::take(TILE * k),
            d_keys: Scratch::take(TILE * k),
            d_values: Scratch::take(TILE * u),
            scores: Scratch::take(TILE * TILE),
            d_scores: Scratch::take(TILE * TILE),
        }
    }

    fn sequence(&mut self, sequence: Range<usize>) {
        let (shape, head, x) = (self.shape, self.head, self.saved.qkv);
        let (k, u) = (shape.key_dim(), shape.value_dim);
        self.pack_queries(sequence.clone());
        for keys in tiles(sequence.clone()) {
            let joined = join_keys(&mut self.joined, x, &shape, head, &keys);
            // SAFETY: the operands hold all rows, as was checked.
            unsafe {
                self.keys.pack(0, joined, keys.len(), k);
                self.key_rows.pack(0, joined, k, keys.len());
                self.values.pack(0, matrix(x.v, shape.v(), &keys, shape.kv_head(head)), keys.len(), u);
            }
            let first = (keys.start - sequence.start) / TILE;
            for (i, rows) in tiles(keys.start..sequence.end).enumerate() {
                self.tile(&sequence, first + i, rows, &keys);
            }
            self.store_keys(keys);
        }
        for (row, d_query) in sequence.zip(self.d_queries.chunks_exact(k)) {
            // SAFETY: each chunk owns the rows of its head.
            unsafe { self.gradients.dq.part(shape.q().at(row, head), k) }.copy_from_slice(d_query);
        }
    }

    /// Packs what belongs to the queries of the sequence.
    fn pack_queries(&mut self, sequence: Range<usize>) {
        let (shape, head) = (self.shape, self.head);
        let (q, out, k, u) = (shape.q(), shape.out(), shape.key_dim(), shape.value_dim);
        for (tile, rows) in tiles(sequence.clone()).enumerate() {
            let queries = matrix(self.saved.qkv.q, q, &rows, head);
            let d_outs = matrix(self.saved.d_out, out, &rows, head);
            // SAFETY: the operands hold all rows, as was checked.
            unsafe {
                self.query_columns.pack(tile, queries.t(), rows.len(), k);
                self.query_rows.pack(tile, queries, k, rows.len());
                self.d_out_columns.pack(tile, d_outs.t(), rows.len(), u);
                self.d_out_rows.pack(tile, d_outs, u, rows.len());
            }
        }
        for (i, row) in sequence.enumerate() {
            let at = out.at(row, head)..out.at(row, head) + u;
            self.delta[i] = dot_row(self.isa, &self.saved.d_out[at.clone()], &self.saved.out[at]);
            self.lse[i] = self.saved.lse[row * shape.heads + head];
            // SAFETY: each chunk owns the rows of its head.
            let delta = unsafe { self.gradients.delta.part(row * shape.heads + head, 1) };
            delta[0] = self.delta[i];
        }
    }

    /// What a tile of queries and a tile of keys give to dq, dk and dv.
    fn tile(&mut self, sequence: &Range<usize>, tile: usize, rows: Range<usize>, keys: &Range<usize>) {
        let (shape, k, u) = (self.shape, self.shape.key_dim(), self.shape.value_dim);
        let (m, n) = (keys.len(), rows.len());
        // SAFETY: the scores are this thread's.
        unsafe {
            multiply((&self.keys, 0), (&self.query_columns, tile), self.scores.as_mut_ptr(), TILE, false);
            multiply((&self.values, 0), (&self.d_out_columns, tile), self.d_scores.as_mut_ptr(), TILE, false);
        }
        let at = rows.start - sequence.start..rows.end - sequence.start;
        let whole = at.start..at.start + n.next_multiple_of(WIDTH);
        let (lse, delta) = (&self.lse[whole.clone()], &self.delta[whole]);
        let each = self.scores.chunks_exact_mut(TILE).zip(self.d_scores.chunks_exact_mut(TILE)).take(m);
        for (j, (scores, d_scores)) in each.enumerate() {
            let hidden = (keys.start + j).saturating_sub(rows.start).min(n);
            gradient_row(self.isa, scores, d_scores, hidden, shape.scale, lse, delta);
        }
        let accumulate = rows.start > keys.start;
        let (p, ds) = (MatIn::f32(self.scores.as_ptr(), TILE), MatIn::f32(self.d_scores.as_ptr(), TILE));
        // SAFETY: the scores are [m, n] in rows of a tile, and the sums are this thread's.
        unsafe {
            self.factor.pack(0, p, m, n);
            multiply((&self.factor, 0), (&self.d_out_rows, tile), self.d_values.as_mut_ptr(), u, accumulate);
            self.factor.pack(0, ds, m, n);
            multiply((&self.factor, 0), (&self.query_rows, tile), self.d_keys.as_mut_ptr(), k, accumulate);
            self.factor.pack(0, ds.t(), n, m);
            let d_queries = self.d_queries[at.start * k..at.end * k].as_mut_ptr();
            multiply((&self.factor, 0), (&self.key_rows, 0), d_queries, k, keys.start > sequence.start);
        }
    }

    /// Stores the finished dv and the two parts of dk of a tile; a head that is not the first on its keys adds to dk1, dv.
    fn store_keys(&mut self, keys: Range<usize>) {
        let (isa, shape, head, p) = (self.isa, self.shape, self.head, self.shape.nope_dim);
        let (k, u, kv_head) = (shape.key_dim(), shape.value_dim, shape.kv_head(head));
        let store = |from: &[f32], to: &mut [f32]| {
            if head.is_multiple_of(shape.sharing()) { to.copy_from_slice(from) } else { add_row(isa, from, to) }
        };
        for (row, (d_key, d_value)) in keys.zip(self.d_keys.chunks_exact(k).zip(self.d_values.chunks_exact(u))) {
            // SAFETY: each chunk owns the rows of its head.
            unsafe {
                store(&d_key[..p], self.gradients.dk1.part(shape.k1().at(row, kv_head), p));
                store(d_value, self.gradients.dv.part(shape.v().at(row, kv_head), u));
                if let Some((dk2, place)) = self.dk2 {
                    dk2.part(place.at(row, head), k - p).copy_from_slice(&d_key[p..]);
                }
            }
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
        // Whole vectors: what stands before the visible scores is overwritten.
        let from = hidden / WIDTH * WIDTH;
        let rows = scores[from..].iter_mut().zip(&mut d_scores[from..]);
        for (((p, ds), &lse), &delta) in rows.zip(&lse[from..]).zip(&delta[from..]) {
            *p = exp_of_negative::<S>(S::mul_add(*p, scale, -lse));
            *ds = *p * (*ds - delta) * scale;
        }
        scores[..hidden].fill(0.0);
        d_scores[..hidden].fill(0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gemm::Compute;
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
        mask(dkv, s.n, s.k1_row, s.kv_heads * (s.nope_dim + s.value_dim));
        mask(dk2, s.n, s.k2_row, s.k2_row - 2);
    }

    #[test]
    fn gradients_match_central_differences() {
        for (heads, sharing, nope, rope, value, own_k2) in
            [(2, 1, 4, 2, 3, false), (2, 1, 3, 2, 4, true), (1, 1, 5, 0, 2, false), (6, 3, 4, 0, 4, false)]
        {
            let starts = [0, 3, 3, 4, 9];
            let case = Case::new(&starts, Dims { heads, sharing, nope, rope, value, own_k2 }, Compute::F32);
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
                let v_at = |j: usize| s.nope_dim + s.v().at(first + j, s.kv_head(h));
                let dp: Vec<f64> =
                    (0..p.len()).map(|j| (0..s.value_dim).map(|c| d_row[c] * kv[v_at(j) + c]).sum()).collect();
                let delta: f64 = p.iter().zip(&dp).map(|(p, dp)| p * dp).sum();
                for j in 0..p.len() {
                    let ds = p[j] * (dp[j] - delta) * f64::from(s.scale);
                    let (at_q, at_k1) = (s.q().at(i, h), s.k1().at(first + j, s.kv_head(h)));
                    let at_k2 = s.k2().at(first + j, h);
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
            for (heads, sharing, nope, rope, value, own_k2) in
                [(2, 1, 16, 8, 16, false), (3, 1, 7, 3, 17, true), (4, 2, 16, 0, 16, false)]
            {
                // Sums of a few hundred products whose bf16 factors are right to 2⁻⁹.
                for (compute, tolerance) in [(Compute::F32, 2e-5), (Compute::Bf16, 6e-2)] {
                    let case = Case::new(starts, Dims { heads, sharing, nope, rope, value, own_k2 }, compute);
                    let d_out = Rng(4).values(case.shape.n * heads * value, 1.0);
                    let want = plain_backward(&case, &wide(&d_out)).concat();
                    on_every_isa(
                        |ctx| run(ctx, &case, &d_out),
                        |got| assert_close("dq, dkv, dk2", got, &want, tolerance),
                    );
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "attentionBackward: rows and heads of dk1 must not overlap")]
    fn keys_shared_by_all_heads_are_refused() {
        let dims = Dims { heads: 2, sharing: 1, nope: 2, rope: 0, value: 2, own_k2: false };
        let mut case = Case::new(&[0, 4], dims, Compute::F32);
        case.shape.k1_head = 0;
        crate::ops::testing::with_best(|ctx| drop(run(ctx, &case, &[1.0; 16])));
    }
}
