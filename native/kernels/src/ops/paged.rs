//! Softmax over cached rows that stand in blocks of a pool: what decoding from any cache shares.
//!
//! The cached rows are cut into fixed lengths, so that a part can be a chunk of its own. The parts' softmaxes are then
//! merged in order.

use super::attention::softmax_row;
use super::chunks::{Shared, checked_index};
use super::simd::{Simd, WIDTH, add_scaled, per_isa};
use crate::Isa;
use crate::scratch::Scratch;

/// Cached rows of a part.
const PART: usize = 256;

/// One part of one sequence.
pub(super) struct Part {
    pub sequence: usize,
    pub first: usize,
    pub rows: usize,
}

/// The operands and numbers of a paged cache.
#[derive(Clone, Copy)]
pub(super) struct Blocks<'a> {
    /// [pool_rows, width]
    pub pool: &'a [f32],
    pub width: usize,
    pub pool_rows: usize,
    /// [batch, max_blocks]
    pub block_table: &'a [i32],
    /// [batch]
    pub seq_lens: &'a [i32],
    pub block_size: usize,
    pub max_blocks: usize,
}

/// Where the cached rows of some sequences stand.
pub(super) struct Paged<'a> {
    kernel: &'static str,
    batch: usize,
    heads: usize,
    blocks: Blocks<'a>,
    pub parts: Vec<Part>,
}

impl<'a> Paged<'a> {
    /// Panics unless the lengths fit the table.
    pub(super) fn new(kernel: &'static str, batch: usize, heads: usize, blocks: Blocks<'a>) -> Self {
        let Blocks { pool, width, pool_rows, block_table, seq_lens, block_size, max_blocks } = blocks;
        assert!(
            block_size > 0 && block_table.len() >= batch * max_blocks,
            "{kernel}: blockTable must hold batch rows of blocks of at least 1"
        );
        let of_sequence = |(sequence, &len): (usize, &i32)| {
            let len = checked_index(kernel, "seqLens", len, max_blocks * block_size + 1);
            (0..len).step_by(PART).map(move |first| Part { sequence, first, rows: PART.min(len - first) })
        };
        let parts = seq_lens[..batch].iter().enumerate().flat_map(of_sequence).collect();
        Self { kernel, batch, heads, blocks: Blocks { pool: &pool[..pool_rows * width], ..blocks }, parts }
    }

    /// Elements of the cached rows of all sequences.
    pub(super) fn cached(&self) -> usize {
        self.parts.iter().map(|part| part.rows).sum::<usize>() * self.blocks.width
    }

    /// The cached rows of a part, where they stand in the pool.
    pub(super) fn rows(&self, part: &Part) -> Vec<&'a [f32]> {
        let Blocks { pool, width, pool_rows, block_table, block_size, max_blocks, .. } = self.blocks;
        let table = &block_table[part.sequence * max_blocks..][..max_blocks];
        let row = |j: usize| {
            let block = checked_index(self.kernel, "blockTable", table[j / block_size], pool_rows / block_size);
            &pool[(block * block_size + j % block_size) * width..][..width]
        };
        (part.first..part.first + part.rows).map(row).collect()
    }
}

/// Of each part and head: the unfinished output, the largest score and the sum of exponentials.
pub(super) struct Unfinished {
    sums: Scratch<f32>,
    tops: Scratch<f32>,
}

impl Unfinished {
    /// For outputs of `d` values a head.
    pub(super) fn take(paged: &Paged, d: usize) -> Self {
        let rows = paged.parts.len() * paged.heads;
        Self { sums: Scratch::take(rows * d), tops: Scratch::take(rows * 2) }
    }

    /// The outputs, and pairs of score and sum.
    pub(super) fn shared(&mut self) -> (Shared<'_, f32>, Shared<'_, f32>) {
        (Shared::new(&mut self.sums), Shared::new(&mut self.tops))
    }
}

/// The unfinished softmax of some heads over the rows of a part: what their queries make of `keys` weighs `values`.
pub(super) fn attend(
    isa: Isa,
    queries: &[f32],
    keys: &[&[f32]],
    values: &[&[f32]],
    scale: f32,
    to: (&mut [f32], &mut [f32]),
) {
    let (sums, tops) = to;
    let mut scores = Scratch::<f32>::take(tops.len() / 2 * keys.len());
    score(isa, queries, keys, &mut scores);
    for (row, top) in scores.chunks_exact_mut(keys.len()).zip(tops.chunks_exact_mut(2)) {
        let (mut highest, mut total) = (f32::NEG_INFINITY, 0.0);
        softmax_row(isa, row, keys.len(), scale, &mut highest, &mut total);
        top.copy_from_slice(&[highest, total]);
    }
    weigh(isa, &scores, values, sums);
}

/// Heads, and cached rows or vectors of columns, that are held in registers together.
const BLOCK: usize = 4;

per_isa! {
    /// `scores[h, j] = queries[h, :] · rows[j]`. Rows are read once for `BLOCK` heads.
    fn score(queries: &[f32], rows: &[&[f32]], scores: &mut [f32]) {
        let width = rows[0].len();
        let (four, rest) = rows.as_chunks::<BLOCK>();
        for (i, rows) in four.iter().enumerate() {
            score_rows::<S, BLOCK>(queries, rows, scores, four.len() * BLOCK + rest.len(), i * BLOCK, width);
        }
        for (i, row) in rest.iter().enumerate() {
            let (count, at) = (four.len() * BLOCK + rest.len(), four.len() * BLOCK + i);
            score_rows::<S, 1>(queries, &[row], scores, count, at, width);
        }
    }
}

/// Writes columns `at…` of the scores [heads, count].
#[inline(always)]
fn score_rows<S: Simd, const R: usize>(
    queries: &[f32],
    rows: &[&[f32]; R],
    scores: &mut [f32],
    count: usize,
    at: usize,
    width: usize,
) {
    let mut store = |h: usize, dots: [f32; R]| scores[h * count + at..][..R].copy_from_slice(&dots);
    let blocks = queries.chunks_exact(BLOCK * width);
    let done = blocks.len() * BLOCK;
    for (i, head) in blocks.clone().enumerate() {
        let mut heads = [head; BLOCK];
        for h in 0..BLOCK {
            heads[h] = &head[h * width..(h + 1) * width];
        }
        let dots = dot_block::<S, BLOCK, R>(heads, *rows);
        dots.into_iter().enumerate().for_each(|(h, dots)| store(i * BLOCK + h, dots));
    }
    for (h, head) in blocks.remainder().chunks_exact(width).enumerate() {
        let [dots] = dot_block::<S, 1, R>([head], *rows);
        store(done + h, dots);
    }
}

/// The dot product of every query with every row.
#[inline(always)]
fn dot_block<S: Simd, const Q: usize, const R: usize>(queries: [&[f32]; Q], rows: [&[f32]; R]) -> [[f32; R]; Q] {
    let count = rows[0].len() / WIDTH;
    let (mut q, mut r) = ([&[][..]; Q], [&[][..]; R]);
    for h in 0..Q {
        q[h] = &queries[h].as_chunks::<WIDTH>().0[..count];
    }
    for j in 0..R {
        r[j] = &rows[j].as_chunks::<WIDTH>().0[..count];
    }
    let mut sums = [[S::splat(0.0); R]; Q];
    for i in 0..count {
        let mut keys = [S::splat(0.0); R];
        for j in 0..R {
            keys[j] = S::load(&r[j][i]);
        }
        for h in 0..Q {
            let query = S::load(&q[h][i]);
            for j in 0..R {
                sums[h][j] = S::fused(query, keys[j], sums[h][j]);
            }
        }
    }
    let tail = count * WIDTH;
    let mut dots = [[0.0; R]; Q];
    for h in 0..Q {
        for j in 0..R {
            let mut dot = S::total(sums[h][j]);
            for (&q, &k) in queries[h][tail..].iter().zip(&rows[j][tail..]) {
                dot = S::mul_add(q, k, dot);
            }
            dots[h][j] = dot;
        }
    }
    dots
}

per_isa! {
    /// `sums[h, :] = Σ_j weights[h, j] · rows[j][..d]`, d values a head, a few heads and columns at a time over all rows.
    fn weigh(weights: &[f32], rows: &[&[f32]], sums: &mut [f32]) {
        let heads = weights.len() / rows.len();
        let d = sums.len() / heads.max(1);
        for h in (0..heads).step_by(BLOCK) {
            let count = BLOCK.min(heads - h);
            for from in (0..d).step_by(BLOCK * WIDTH) {
                if count == BLOCK && from + BLOCK * WIDTH <= d {
                    weigh_block::<S>(&weights[h * rows.len()..], rows, &mut sums[h * d..], d, from);
                    continue;
                }
                let to = d.min(from + BLOCK * WIDTH);
                for h in h..h + count {
                    let sum = &mut sums[h * d + from..h * d + to];
                    sum.fill(0.0);
                    for (row, &weight) in rows.iter().zip(&weights[h * rows.len()..]) {
                        add_scaled::<S>(sum, weight, &row[from..to]);
                    }
                }
            }
        }
    }
}

/// `BLOCK` heads by `BLOCK` vectors of columns, from column `from` on.
#[inline(always)]
fn weigh_block<S: Simd>(weights: &[f32], rows: &[&[f32]], sums: &mut [f32], d: usize, from: usize) {
    let mut blocks = [[S::splat(0.0); BLOCK]; BLOCK];
    for (j, row) in rows.iter().enumerate() {
        let (vectors, _) = row[from..from + BLOCK * WIDTH].as_chunks::<WIDTH>();
        for (h, block) in blocks.iter_mut().enumerate() {
            let weight = S::splat(weights[h * rows.len() + j]);
            for (vector, sum) in vectors.iter().zip(block) {
                *sum = S::fused(weight, S::load(vector), *sum);
            }
        }
    }
    for (h, block) in blocks.into_iter().enumerate() {
        for (i, sum) in block.into_iter().enumerate() {
            sums[h * d + from + i * WIDTH..][..WIDTH].copy_from_slice(&S::store(sum));
        }
    }
}

/// Joins the parts of each sequence in their order.
pub(super) fn merge(isa: Isa, paged: &Paged, unfinished: &Unfinished, d: usize, out: &mut [f32]) {
    let (heads, parts) = (paged.heads, &paged.parts);
    let (sums, tops) = (&unfinished.sums, &unfinished.tops);
    out.fill(0.0);
    let mut next = 0;
    for sequence in 0..paged.batch {
        let count = parts[next..].iter().take_while(|part| part.sequence == sequence).count();
        for h in 0..heads {
            let part = |i: usize| ((next + i) * heads + h) * 2;
            let highest = (0..count).map(|i| tops[part(i)]).fold(f32::NEG_INFINITY, f32::max);
            let y = &mut out[(sequence * heads + h) * d..][..d];
            let mut total = 0.0;
            for i in 0..count {
                let factor = (tops[part(i)] - highest).exp();
                total += factor * tops[part(i) + 1];
                add_part(isa, factor, &sums[part(i) / 2 * d..][..d], y);
            }
            if count > 0 {
                divide(isa, y, total);
            }
        }
        next += count;
    }
}

per_isa! {
    fn add_part(factor: f32, x: &[f32], y: &mut [f32]) {
        add_scaled::<S>(y, factor, x);
    }
}

per_isa! {
    fn divide(y: &mut [f32], by: f32) {
        for y in y {
            *y /= by;
        }
    }
}
