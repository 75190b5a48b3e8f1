//! Absorbed MLA decode: all heads of a sequence against its cached latents.
//!
//! The cached rows are cut into fixed lengths; a chunk is one such part of one sequence, read once for all heads. The
//! parts' softmaxes are then merged in order.

use super::attention::softmax_row;
use super::chunks::{GRAIN, Shared, checked_index, each_chunk};
use super::simd::{Simd, WIDTH, add_scaled, per_isa};
use crate::scratch::Scratch;
use crate::{Ctx, Isa};

/// Cached rows of a part.
const PART: usize = 256;

#[derive(Clone, Copy)]
pub struct MlaDecode {
    pub batch: usize,
    pub heads: usize,
    pub latent_dim: usize,
    pub rope_dim: usize,
    pub rope_row: usize,
    pub rope_head: usize,
    pub block_size: usize,
    pub max_blocks: usize,
    pub pool_rows: usize,
    pub scale: f32,
}

/// The read operands.
#[derive(Clone, Copy)]
pub struct MlaCache<'a> {
    /// [batch, heads, latent_dim]
    pub q_latent: &'a [f32],
    /// Row b, head h at `b · rope_row + h · rope_head`.
    pub q_rope: &'a [f32],
    /// [pool_rows, latent_dim + rope_dim]
    pub pool: &'a [f32],
    /// [batch, max_blocks]
    pub block_table: &'a [i32],
    /// [batch]
    pub seq_lens: &'a [i32],
}

/// One part of one sequence.
struct Part {
    sequence: usize,
    first: usize,
    rows: usize,
}

/// `out[b, h, :] = Σ_j p_j c_j` over the cached rows of sequence b; 0 where it has none.
pub fn mla_decode(ctx: Ctx, cache: MlaCache, out: &mut [f32], shape: MlaDecode) {
    let MlaDecode { batch, heads, latent_dim, rope_dim, block_size, max_blocks, pool_rows, .. } = shape;
    assert!(shape.scale >= 0.0, "mlaDecode: scale must be at least 0, got {}", shape.scale);
    let width = latent_dim + rope_dim;
    assert!(width > 0, "mlaDecode: latentDim + ropeDim must be at least 1, got 0");
    let cache = MlaCache { pool: &cache.pool[..pool_rows * width], ..cache };
    let parts = parts(cache.seq_lens, &shape);
    let out = &mut out[..batch * heads * latent_dim];
    // Of each part: for every head the unfinished output, the largest score and the sum of exponentials.
    let mut sums = Scratch::<f32>::take(parts.len() * heads * latent_dim);
    let mut tops = Scratch::<f32>::take(parts.len() * heads * 2);
    let (shared_sums, shared_tops) = (Shared::new(&mut sums), Shared::new(&mut tops));
    let chunk = |i: usize| {
        // SAFETY: each part has its own sums.
        let (sums, tops) = unsafe {
            (shared_sums.part(i * heads * latent_dim, heads * latent_dim), shared_tops.part(i * heads * 2, heads * 2))
        };
        attend(ctx.isa, cache, &parts[i], &shape, sums, tops);
    };
    assert!(
        block_size > 0 && cache.block_table.len() >= batch * max_blocks,
        "mlaDecode: blockTable must hold batch rows"
    );
    let cached: usize = parts.iter().map(|part| part.rows).sum();
    if cached * width <= GRAIN {
        (0..parts.len()).for_each(chunk);
    } else {
        each_chunk(ctx, parts.len(), chunk);
    }
    merge(ctx.isa, &parts, &sums, &tops, out, &shape);
}

fn parts(seq_lens: &[i32], shape: &MlaDecode) -> Vec<Part> {
    let longest = shape.max_blocks * shape.block_size;
    let of_sequence = |(sequence, &len): (usize, &i32)| {
        let len = checked_index("mlaDecode", "seqLens", len, longest + 1);
        (0..len).step_by(PART).map(move |first| Part { sequence, first, rows: PART.min(len - first) })
    };
    seq_lens[..shape.batch].iter().enumerate().flat_map(of_sequence).collect()
}

/// The softmax and the weighted sum over the rows of one part, for all heads.
fn attend(isa: Isa, cache: MlaCache, part: &Part, shape: &MlaDecode, sums: &mut [f32], tops: &mut [f32]) {
    let MlaDecode { heads, latent_dim, rope_dim, rope_row, rope_head, .. } = *shape;
    let width = latent_dim + rope_dim;
    let mut queries = Scratch::<f32>::take(heads * width);
    for (h, query) in queries.chunks_exact_mut(width).enumerate() {
        let latent = (part.sequence * heads + h) * latent_dim;
        query[..latent_dim].copy_from_slice(&cache.q_latent[latent..][..latent_dim]);
        query[latent_dim..].copy_from_slice(&cache.q_rope[part.sequence * rope_row + h * rope_head..][..rope_dim]);
    }
    let rows = pool_rows(cache, part, shape);
    let mut scores = Scratch::<f32>::take(heads * part.rows);
    score(isa, &queries, &rows, &mut scores);
    for (row, top) in scores.chunks_exact_mut(part.rows).zip(tops.chunks_exact_mut(2)) {
        let (mut highest, mut total) = (f32::NEG_INFINITY, 0.0);
        softmax_row(isa, row, part.rows, shape.scale, &mut highest, &mut total);
        top.copy_from_slice(&[highest, total]);
    }
    weigh(isa, &scores, &rows, sums);
}

/// The cached rows of a part, where they stand in the pool.
fn pool_rows<'a>(cache: MlaCache<'a>, part: &Part, shape: &MlaDecode) -> Vec<&'a [f32]> {
    let width = shape.latent_dim + shape.rope_dim;
    let table = &cache.block_table[part.sequence * shape.max_blocks..][..shape.max_blocks];
    let blocks = shape.pool_rows / shape.block_size;
    let row = |j: usize| {
        let block = checked_index("mlaDecode", "blockTable", table[j / shape.block_size], blocks);
        &cache.pool[(block * shape.block_size + j % shape.block_size) * width..][..width]
    };
    (part.first..part.first + part.rows).map(row).collect()
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
    /// `sums[h, :] = Σ_j weights[h, j] · rows[j][..latent_dim]`, a few heads and columns at a time over all rows.
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
fn merge(isa: Isa, parts: &[Part], sums: &[f32], tops: &[f32], out: &mut [f32], shape: &MlaDecode) {
    let (heads, d) = (shape.heads, shape.latent_dim);
    out.fill(0.0);
    let mut next = 0;
    for sequence in 0..shape.batch {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{Rng, assert_close, on_every_isa, with_best};

    struct Case {
        shape: MlaDecode,
        q_latent: Vec<f32>,
        q_rope: Vec<f32>,
        pool: Vec<f32>,
        block_table: Vec<i32>,
        seq_lens: Vec<i32>,
    }

    impl Case {
        fn new(seq_lens: &[i32], heads: usize, latent_dim: usize, rope_dim: usize, block_size: usize) -> Self {
            let mut rng = Rng(21);
            let batch = seq_lens.len();
            let max_blocks = seq_lens.iter().map(|&len| (len as usize).div_ceil(block_size)).max().unwrap();
            let blocks = batch * max_blocks + 1;
            let (rope_head, width) = (rope_dim + 2, latent_dim + rope_dim);
            let shape = MlaDecode {
                batch,
                heads,
                latent_dim,
                rope_dim,
                rope_row: heads * rope_head + 1,
                rope_head,
                block_size,
                max_blocks,
                pool_rows: blocks * block_size,
                scale: 0.3,
            };
            Self {
                q_latent: rng.values(batch * heads * latent_dim, 1.0),
                q_rope: rng.values(batch * shape.rope_row, 1.0),
                pool: rng.values(shape.pool_rows * width, 1.0),
                // Blocks in falling order, none twice.
                block_table: (0..batch * max_blocks).map(|i| (blocks - 1 - i) as i32).collect(),
                seq_lens: seq_lens.to_vec(),
                shape,
            }
        }

        fn run(&self, ctx: Ctx) -> Vec<f32> {
            let mut out = vec![9.0; self.q_latent.len()];
            let cache = MlaCache {
                q_latent: &self.q_latent,
                q_rope: &self.q_rope,
                pool: &self.pool,
                block_table: &self.block_table,
                seq_lens: &self.seq_lens,
            };
            mla_decode(ctx, cache, &mut out, self.shape);
            out
        }

        fn plain(&self) -> Vec<f64> {
            let MlaDecode { heads, latent_dim: c, rope_dim, block_size, max_blocks, .. } = self.shape;
            let mut out = vec![0.0; self.q_latent.len()];
            for (b, h) in (0..self.shape.batch).flat_map(|b| (0..heads).map(move |h| (b, h))) {
                let latent = &self.q_latent[(b * heads + h) * c..][..c];
                let rope = &self.q_rope[b * self.shape.rope_row + h * self.shape.rope_head..][..rope_dim];
                let row = |j: usize| {
                    let block = self.block_table[b * max_blocks + j / block_size] as usize;
                    &self.pool[(block * block_size + j % block_size) * (c + rope_dim)..][..c + rope_dim]
                };
                let score = |j: usize| -> f64 {
                    let query = latent.iter().chain(rope);
                    query.zip(row(j)).map(|(&q, &k)| f64::from(q) * f64::from(k)).sum::<f64>()
                        * f64::from(self.shape.scale)
                };
                let weights: Vec<f64> = (0..self.seq_lens[b] as usize).map(|j| score(j).exp()).collect();
                let total: f64 = weights.iter().sum();
                for (j, weight) in weights.iter().enumerate() {
                    for i in 0..c {
                        out[(b * heads + h) * c + i] += weight / total * f64::from(row(j)[i]);
                    }
                }
            }
            out
        }
    }

    #[test]
    fn outputs_match_a_plain_loop_over_blocks() {
        let lens: [&[i32]; 4] = [&[1], &[17, 0, 33], &[256, 257], &[900, 1, 511]];
        for lens in lens {
            for (heads, latent_dim, rope_dim, block_size) in [(1, 7, 3, 4), (5, 32, 8, 16), (16, 33, 16, 64)] {
                let case = Case::new(lens, heads, latent_dim, rope_dim, block_size);
                let want = case.plain();
                on_every_isa(|ctx| case.run(ctx), |got| assert_close("out", got, &want, 2e-6));
            }
        }
    }

    #[test]
    #[should_panic(expected = "mlaDecode: blockTable must lie in [0, 2), got 2")]
    fn a_block_outside_the_pool_is_refused() {
        let mut case = Case::new(&[3], 1, 2, 2, 4);
        case.block_table[0] = 2;
        with_best(|ctx| drop(case.run(ctx)));
    }

    #[test]
    #[should_panic(expected = "mlaDecode: seqLens must lie in [0, 5), got 5")]
    fn a_length_beyond_the_block_table_is_refused() {
        let mut case = Case::new(&[3], 1, 2, 2, 4);
        case.seq_lens[0] = 5;
        with_best(|ctx| drop(case.run(ctx)));
    }
}
