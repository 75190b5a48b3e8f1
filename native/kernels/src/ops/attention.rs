//! Causal attention over tiles with online softmax.
//!
//! A chunk is one head of some query rows. It walks over the keys in tiles and keeps, for each row, the largest score so
//! far, the sum of exponentials and the unfinished output.

use std::ops::Range;

use super::chunks::{GRAIN, Shared, each_chunk};
use super::moe::row_starts;
use super::simd::{WIDTH, exp_of_negative, max, per_isa, sum};
use crate::gemm::packed::{PackedTiles, Side, multiply};
use crate::gemm::{Compute, MatIn};
use crate::scratch::Scratch;
use crate::{Ctx, Isa};

/// Queries and keys of a tile of scores.
pub(super) const TILE: usize = 128;
/// Query rows of a chunk: tiles that share the packed keys.
const RUN: usize = 512;

#[derive(Clone, Copy)]
pub struct Attention {
    pub n: usize,
    pub heads: usize,
    /// Heads of keys and values; `heads / kv_heads` neighbouring queries share each.
    pub kv_heads: usize,
    pub nope_dim: usize,
    pub rope_dim: usize,
    pub value_dim: usize,
    pub seqs: usize,
    pub q_stride: usize,
    pub k1_row: usize,
    pub k1_head: usize,
    pub k2_row: usize,
    pub k2_head: usize,
    pub v_row: usize,
    pub v_head: usize,
    pub scale: f32,
    pub compute: Compute,
}

/// Where head h of row i lies in an operand: at `i · row + h · head`.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub row: usize,
    pub head: usize,
    pub width: usize,
}

impl Place {
    pub(super) fn at(&self, row: usize, head: usize) -> usize {
        row * self.row + head * self.head
    }

    /// Panics unless `n` rows of `heads` heads lie within `len` elements.
    pub(super) fn check(&self, kernel: &str, name: &str, len: usize, (n, heads): (usize, usize)) {
        if n > 0 && heads > 0 {
            let end = self.at(n - 1, heads - 1) + self.width;
            assert!(end <= len, "{kernel}: {name} must hold {end} elements, got {len}");
        }
    }
}

impl Attention {
    pub(super) fn key_dim(&self) -> usize {
        self.nope_dim + self.rope_dim
    }

    /// The query heads that share one head of keys and values.
    pub(super) fn sharing(&self) -> usize {
        self.heads / self.kv_heads.max(1)
    }

    /// The head of keys and values that a query head reads.
    pub(super) fn kv_head(&self, head: usize) -> usize {
        head / self.sharing()
    }

    pub(super) fn q(&self) -> Place {
        Place { row: self.q_stride, head: self.key_dim(), width: self.key_dim() }
    }

    pub(super) fn k1(&self) -> Place {
        Place { row: self.k1_row, head: self.k1_head, width: self.nope_dim }
    }

    pub(super) fn k2(&self) -> Place {
        Place { row: self.k2_row, head: self.k2_head, width: self.rope_dim }
    }

    pub(super) fn v(&self) -> Place {
        Place { row: self.v_row, head: self.v_head, width: self.value_dim }
    }

    pub(super) fn out(&self) -> Place {
        Place { row: self.heads * self.value_dim, head: self.value_dim, width: self.value_dim }
    }

    fn check(&self, kernel: &str, operands: Qkv) {
        let (n, heads, kv_heads) = (self.n, self.heads, self.kv_heads);
        let divides = heads == kv_heads || (kv_heads > 0 && heads.is_multiple_of(kv_heads));
        assert!(divides, "{kernel}: kvHeads must divide {heads} heads, got {kv_heads}");
        assert!(
            heads == kv_heads || operands.k2.is_none(),
            "{kernel}: k2 must be left out where heads share keys, {heads} heads on {kv_heads}"
        );
        self.q().check(kernel, "q", operands.q.len(), (n, heads));
        self.k1().check(kernel, "k1", operands.k1.len(), (n, kv_heads));
        self.v().check(kernel, "v", operands.v.len(), (n, kv_heads));
        match operands.k2 {
            Some(k2) => self.k2().check(kernel, "k2", k2.len(), (n, heads)),
            None => assert!(self.rope_dim == 0, "{kernel}: ropeDim must be 0 without k2, got {}", self.rope_dim),
        }
        assert!(
            self.key_dim() > 0 && self.value_dim > 0,
            "{kernel}: head dims must be at least 1, got {} and {}",
            self.key_dim(),
            self.value_dim
        );
        assert!(self.scale >= 0.0, "{kernel}: scale must be at least 0, got {}", self.scale);
    }

    /// The rows where each sequence begins, and n.
    pub(super) fn starts(&self, kernel: &str, operands: Qkv) -> Vec<usize> {
        self.check(kernel, operands);
        let starts = row_starts(kernel, &operands.seq_starts[..self.seqs + 1], self.n);
        let (first, last) = (starts[0], starts[self.seqs]);
        assert!(first == 0 && last == self.n, "{kernel}: seqStarts must span [0, {}], got [{first}, {last}]", self.n);
        starts
    }
}

/// The read operands.
#[derive(Clone, Copy)]
pub struct Qkv<'a> {
    pub q: &'a [f32],
    pub k1: &'a [f32],
    pub k2: Option<&'a [f32]>,
    pub v: &'a [f32],
    pub seq_starts: &'a [i32],
}

/// Query rows of one sequence, which begins at row `first`.
#[derive(Clone)]
struct Run {
    first: usize,
    rows: Range<usize>,
}

/// out [n, heads, value_dim]; `lse[n, heads] = log Σ exp(scale · q·k)`.
pub fn attention(ctx: Ctx, operands: Qkv, out: &mut [f32], lse: &mut [f32], shape: Attention) {
    let starts = shape.starts("attention", operands);
    let out = Shared::new(&mut out[..shape.n * shape.heads * shape.value_dim]);
    let lse = Shared::new(&mut lse[..shape.n * shape.heads]);
    let groups = groups(&runs(&starts), |run| run.rows.len());
    let chunk = |chunk: usize| {
        // Later rows see more keys: they go first, so that no thread ends with a long chunk.
        let (group, head) = (&groups[groups.len() - 1 - chunk / shape.heads], chunk % shape.heads);
        let mut head = Head::new(ctx.isa, operands, shape, head);
        for run in group {
            head.attend(run, out, lse);
        }
    };
    run_chunks(ctx, groups.len() * shape.heads, &starts, &shape, chunk);
}

/// Runs the chunks, on the calling thread alone when there are few scores.
pub(super) fn run_chunks(ctx: Ctx, chunks: usize, starts: &[usize], shape: &Attention, work: impl Fn(usize) + Sync) {
    let scores: usize = starts.windows(2).map(|s| (s[1] - s[0]) * (s[1] - s[0])).sum();
    if scores * shape.heads <= GRAIN {
        (0..chunks).for_each(work);
    } else {
        each_chunk(ctx, chunks, work);
    }
}

fn runs(starts: &[usize]) -> Vec<Run> {
    let of_sequence = |s: &[usize]| {
        let (first, end) = (s[0], s[1]);
        (first..end).step_by(RUN).map(move |row| Run { first, rows: row..end.min(row + RUN) })
    };
    starts.windows(2).flat_map(of_sequence).collect()
}

/// Neighbours gathered until a group has about `RUN` rows.
pub(super) fn groups<T: Clone>(items: &[T], rows: impl Fn(&T) -> usize) -> Vec<Vec<T>> {
    let mut groups: Vec<Vec<T>> = vec![];
    let mut filled = RUN;
    for item in items {
        if filled + rows(item) > RUN {
            groups.push(vec![]);
            filled = 0;
        }
        filled += rows(item);
        groups.last_mut().expect("one was just pushed").push(item.clone());
    }
    groups
}

/// A matrix of which `rows` rows of a head are read.
pub(super) fn matrix(x: &[f32], place: Place, rows: &Range<usize>, head: usize) -> MatIn<'static> {
    MatIn::f32(x[place.at(rows.start, head)..].as_ptr(), place.row)
}

/// The two parts of some keys of a head side by side; without a second part, the keys where they are.
pub(super) fn join_keys(to: &mut [f32], x: Qkv, shape: &Attention, head: usize, rows: &Range<usize>) -> MatIn<'static> {
    let (p, k) = (shape.nope_dim, shape.key_dim());
    let Some(k2) = x.k2 else { return matrix(x.k1, shape.k1(), rows, shape.kv_head(head)) };
    for (row, to) in rows.clone().zip(to.chunks_exact_mut(k)) {
        to[..p].copy_from_slice(&x.k1[shape.k1().at(row, head)..][..p]);
        to[p..].copy_from_slice(&k2[shape.k2().at(row, head)..][..k - p]);
    }
    MatIn::f32(to.as_ptr(), k)
}

/// One head at work, with its scratch.
struct Head<'a> {
    isa: Isa,
    operands: Qkv<'a>,
    shape: Attention,
    head: usize,
    /// All tiles of the run.
    queries: PackedTiles,
    /// One tile, as are the values and the weights.
    keys: PackedTiles,
    values: PackedTiles,
    weights: PackedTiles,
    joined: Scratch<f32>,
    /// [TILE, TILE]
    scores: Scratch<f32>,
    /// Outputs of the run, not yet divided by `total`; apart from `out`, whose rows lie far from each other.
    sums: Scratch<f32>,
    /// The largest score of each row so far.
    top: Scratch<f32>,
    /// Σ exp(score − top) of each row so far.
    total: Scratch<f32>,
}

impl<'a> Head<'a> {
    fn new(isa: Isa, operands: Qkv<'a>, shape: Attention, head: usize) -> Self {
        let (k, u) = (shape.key_dim(), shape.value_dim);
        let tiles = |side, tiles, lines, k| PackedTiles::new(isa, shape.compute, side, tiles, lines, k);
        Self {
            isa,
            operands,
            shape,
            head,
            queries: tiles(Side::Left, RUN / TILE, TILE, k),
            keys: tiles(Side::Right, 1, TILE, k),
            values: tiles(Side::Right, 1, u, TILE),
            weights: tiles(Side::Left, 1, TILE, TILE),
            joined: Scratch::take(TILE * k),
            scores: Scratch::take(TILE * TILE),
            sums: Scratch::take(RUN * u),
            top: Scratch::take(RUN),
            total: Scratch::take(RUN),
        }
    }

    fn attend(&mut self, run: &Run, out: Shared<f32>, lse: Shared<f32>) {
        let (shape, head, x) = (self.shape, self.head, self.operands);
        let (k, u) = (shape.key_dim(), shape.value_dim);
        for (tile, rows) in tiles(run.rows.clone()).enumerate() {
            // SAFETY: the operands hold all rows, as was checked.
            unsafe { self.queries.pack(tile, matrix(x.q, shape.q(), &rows, head), rows.len(), k) };
        }
        for keys in tiles(run.first..run.rows.end) {
            let joined = join_keys(&mut self.joined, x, &shape, head, &keys);
            // SAFETY: as above.
            unsafe {
                self.keys.pack(0, joined.t(), keys.len(), k);
                self.values.pack(0, matrix(x.v, shape.v(), &keys, shape.kv_head(head)), u, keys.len());
            }
            for (tile, rows) in tiles(run.rows.clone()).enumerate().filter(|(_, rows)| rows.start >= keys.start) {
                self.tile(run, tile, rows, &keys);
            }
        }
        for (i, row) in run.rows.clone().enumerate() {
            // SAFETY: each chunk owns the rows of its head.
            let (out, lse) = unsafe { (out.part(shape.out().at(row, head), u), lse.part(row * shape.heads + head, 1)) };
            scaled_row(self.isa, &self.sums[i * u..(i + 1) * u], 1.0 / self.total[i], out);
            lse[0] = self.top[i] + self.total[i].ln();
        }
    }

    /// Takes a tile of keys into the softmax and the sums of a tile of rows.
    fn tile(&mut self, run: &Run, tile: usize, rows: Range<usize>, keys: &Range<usize>) {
        let (shape, isa, u) = (self.shape, self.isa, self.shape.value_dim);
        let (m, n, from) = (rows.len(), keys.len(), rows.start - run.rows.start);
        // SAFETY: the scores are this thread's.
        unsafe { multiply((&self.queries, tile), (&self.keys, 0), self.scores.as_mut_ptr(), TILE, false) };
        let first = keys.start == run.first;
        for i in 0..m {
            let visible = n.min(rows.start + i + 1 - keys.start);
            let (top, total) = (&mut self.top[from + i], &mut self.total[from + i]);
            if first {
                (*top, *total) = (f32::NEG_INFINITY, 0.0);
            }
            let row = &mut self.scores[i * TILE..(i + 1) * TILE];
            let shrink = softmax_row(isa, row, visible, shape.scale, top, total);
            if !first && shrink != 1.0 {
                scale_row(isa, &mut self.sums[(from + i) * u..(from + i + 1) * u], shrink);
            }
        }
        // SAFETY: the scores are [m, n] in rows of a tile, and the sums are this thread's.
        unsafe {
            self.weights.pack(0, MatIn::f32(self.scores.as_ptr(), TILE), m, n);
            let c = self.sums[from * u..(from + m) * u].as_mut_ptr();
            multiply((&self.weights, 0), (&self.values, 0), c, u, !first);
        }
    }
}

/// The rows cut into tiles.
pub(super) fn tiles(rows: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let end = rows.end;
    rows.step_by(TILE).map(move |row| row..end.min(row + TILE))
}

per_isa! {
    fn scale_row(x: &mut [f32], factor: f32) {
        for x in x {
            *x *= factor;
        }
    }
}

per_isa! {
    fn scaled_row(x: &[f32], factor: f32, y: &mut [f32]) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y = x * factor;
        }
    }
}

per_isa! {
    /// The visible scores become exp(scale · score − top), the others 0. Returns what earlier terms are to be multiplied
    /// with, because `top` has risen.
    pub(super) fn softmax_row(row: &mut [f32], visible: usize, scale: f32, top: &mut f32, total: &mut f32) -> f32 {
        let highest = max::<S>(&row[..visible]) * scale;
        let highest = if *top > highest { *top } else { highest };
        // Whole vectors: what stands beyond the visible scores is overwritten.
        let whole = row.len().min(visible.next_multiple_of(WIDTH));
        for x in &mut row[..whole] {
            *x = exp_of_negative::<S>(S::mul_add(*x, scale, -highest));
        }
        row[visible..].fill(0.0);
        let shrink = exp_of_negative::<S>(*top - highest);
        *total = *total * shrink + sum::<S>(&row[..whole]);
        *top = highest;
        shrink
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::ops::testing::{Rng, assert_close, on_every_isa, wide, with_best};

    /// Random operands; keys and values of a head stand side by side in one matrix, the rope keys are shared by all
    /// heads unless `own_k2`. `sharing` query heads read each head of keys.
    pub struct Case {
        pub shape: Attention,
        pub starts: Vec<i32>,
        pub q: Vec<f32>,
        pub kv: Vec<f32>,
        pub k2: Vec<f32>,
    }

    #[derive(Clone, Copy)]
    pub struct Dims {
        pub heads: usize,
        pub sharing: usize,
        pub nope: usize,
        pub rope: usize,
        pub value: usize,
        pub own_k2: bool,
    }

    impl Case {
        pub fn new(starts: &[i32], dims: Dims, compute: Compute) -> Self {
            let Dims { heads, sharing, nope, rope, value, own_k2 } = dims;
            let kv_heads = heads / sharing;
            let n = starts[starts.len() - 1] as usize;
            let k2_row = if own_k2 { heads * rope } else { rope } + 2;
            let (q_stride, kv_row) = (heads * (nope + rope) + 3, kv_heads * (nope + value) + 1);
            let shape = Attention {
                n,
                heads,
                kv_heads,
                nope_dim: nope,
                rope_dim: rope,
                value_dim: value,
                seqs: starts.len() - 1,
                q_stride,
                k1_row: kv_row,
                k1_head: nope + value,
                k2_row,
                k2_head: if own_k2 { rope } else { 0 },
                v_row: kv_row,
                v_head: nope + value,
                scale: 0.7,
                compute,
            };
            let mut rng = Rng(n as u64);
            let (q, kv, k2) = (rng.values(n * q_stride, 1.0), rng.values(n * kv_row, 1.0), rng.values(n * k2_row, 1.0));
            Self { shape, starts: starts.to_vec(), q, kv, k2 }
        }

        pub fn operands(&self) -> Qkv<'_> {
            let k2 = (self.shape.rope_dim > 0).then_some(&self.k2[..]);
            Qkv { q: &self.q, k1: &self.kv, k2, v: &self.kv[self.shape.nope_dim..], seq_starts: &self.starts }
        }

        pub fn run(&self, ctx: Ctx) -> (Vec<f32>, Vec<f32>) {
            let s = self.shape;
            let (mut out, mut lse) = (vec![9.0; s.n * s.heads * s.value_dim], vec![9.0; s.n * s.heads]);
            attention(ctx, self.operands(), &mut out, &mut lse, s);
            (out, lse)
        }
    }

    /// The probabilities of row i, from the first key of its sequence on, and its log-sum.
    pub fn plain_row(
        s: &Attention,
        q: &[f64],
        kv: &[f64],
        k2: &[f64],
        first: usize,
        i: usize,
        h: usize,
    ) -> (Vec<f64>, f64) {
        let q = &q[s.q().at(i, h)..][..s.key_dim()];
        let score = |j: usize| {
            let (k1, k2) = (&kv[s.k1().at(j, s.kv_head(h))..], &k2[s.k2().at(j, h)..]);
            let nope: f64 = (0..s.nope_dim).map(|c| q[c] * k1[c]).sum();
            f64::from(s.scale) * (nope + (0..s.rope_dim).map(|c| q[s.nope_dim + c] * k2[c]).sum::<f64>())
        };
        let scores: Vec<f64> = (first..=i).map(score).collect();
        let lse = scores.iter().map(|v| v.exp()).sum::<f64>().ln();
        (scores.iter().map(|v| (v - lse).exp()).collect(), lse)
    }

    pub fn plain(s: &Attention, starts: &[i32], q: &[f64], kv: &[f64], k2: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let (mut out, mut lse) = (vec![0.0; s.n * s.heads * s.value_dim], vec![0.0; s.n * s.heads]);
        for span in starts.windows(2) {
            for i in span[0] as usize..span[1] as usize {
                for h in 0..s.heads {
                    let (p, sum) = plain_row(s, q, kv, k2, span[0] as usize, i, h);
                    lse[i * s.heads + h] = sum;
                    for (j, p) in p.iter().enumerate() {
                        let v = &kv[s.nope_dim + s.v().at(span[0] as usize + j, s.kv_head(h))..];
                        for c in 0..s.value_dim {
                            out[s.out().at(i, h) + c] += p * v[c];
                        }
                    }
                }
            }
        }
        (out, lse)
    }

    #[test]
    fn outputs_match_a_plain_loop_at_any_document_boundary() {
        let starts: [&[i32]; 5] = [&[0, 1], &[0, 1, 1, 8, 39], &[0, 127, 256, 385], &[0, 5, 700], &[0, 257, 258]];
        for starts in starts {
            for (heads, sharing, nope, rope, value, own_k2) in [
                (2, 1, 16, 8, 16, false),
                (1, 1, 7, 3, 5, true),
                (3, 1, 8, 0, 33, false),
                (6, 3, 9, 0, 9, false),
                (2, 2, 16, 0, 16, false),
            ] {
                for (compute, tolerance) in [(Compute::F32, 2e-6), (Compute::Bf16, 1e-2)] {
                    let case = Case::new(starts, Dims { heads, sharing, nope, rope, value, own_k2 }, compute);
                    let (out, lse) = plain(&case.shape, starts, &wide(&case.q), &wide(&case.kv), &wide(&case.k2));
                    on_every_isa(|ctx| case.run(ctx).0, |got| assert_close("out", got, &out, tolerance));
                    on_every_isa(|ctx| case.run(ctx).1, |got| assert_close("lse", got, &lse, tolerance));
                }
            }
        }
    }

    #[test]
    fn a_nan_stays_in_its_document_and_rows_before_it_are_clean() {
        let mut case = Case::new(
            &[0, 4, 9],
            Dims { heads: 1, sharing: 1, nope: 8, rope: 0, value: 4, own_k2: false },
            Compute::F32,
        );
        case.kv[2 * case.shape.k1_row] = f32::NAN;
        on_every_isa(
            |ctx| case.run(ctx).0,
            |out| {
                let nan: Vec<_> = out.chunks(4).map(|row| row.iter().all(|v| v.is_nan())).collect();
                assert_eq!(nan, [false, false, true, true, false, false, false, false, false]);
            },
        );
    }

    #[test]
    fn large_scores_do_not_overflow() {
        let mut case = Case::new(
            &[0, 300],
            Dims { heads: 1, sharing: 1, nope: 16, rope: 0, value: 4, own_k2: false },
            Compute::F32,
        );
        case.q.iter_mut().for_each(|q| *q *= 1e4);
        on_every_isa(|ctx| case.run(ctx).0, |out| assert!(out.iter().all(|v| v.is_finite())));
    }

    #[test]
    #[should_panic(expected = "attention: seqStarts must span [0, 4], got [0, 3]")]
    fn sequences_must_cover_all_rows() {
        let mut case =
            Case::new(&[0, 4], Dims { heads: 1, sharing: 1, nope: 1, rope: 0, value: 1, own_k2: false }, Compute::F32);
        case.starts[1] = 3;
        with_best(|ctx| drop(case.run(ctx)));
    }
}
