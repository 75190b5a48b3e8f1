//! Decode with a plain cache of keys and values: each head of keys and values is read once for all queries that share it.

use super::chunks::{GRAIN, each_chunk};
use super::paged::{Blocks, Paged, Unfinished, attend, merge};
use crate::Ctx;

#[derive(Clone, Copy)]
pub struct GqaDecode {
    pub batch: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub block_size: usize,
    pub max_blocks: usize,
    pub pool_rows: usize,
    pub scale: f32,
}

/// The read operands.
#[derive(Clone, Copy)]
pub struct GqaCache<'a> {
    /// [batch, heads, head_dim]
    pub q: &'a [f32],
    /// [pool_rows, 2, kv_heads, head_dim]: all keys of a row, then all its values.
    pub pool: &'a [f32],
    /// [batch, max_blocks]
    pub block_table: &'a [i32],
    /// [batch]
    pub seq_lens: &'a [i32],
}

/// `out[b, h, :] = Σ_j p_j v_j` over the cached rows of sequence b; 0 where it has none.
pub fn gqa_decode(ctx: Ctx, cache: GqaCache, out: &mut [f32], shape: GqaDecode) {
    let GqaDecode { batch, heads, kv_heads, head_dim: d, block_size, max_blocks, pool_rows, scale } = shape;
    assert!(scale >= 0.0, "gqaDecode: scale must be at least 0, got {scale}");
    assert!(
        kv_heads > 0 && heads.is_multiple_of(kv_heads) && d > 0,
        "gqaDecode: kvHeads must divide {heads} heads of at least 1 value, got {kv_heads} and {d}"
    );
    let (sharing, width) = (heads / kv_heads, 2 * kv_heads * d);
    let GqaCache { q, pool, block_table, seq_lens } = cache;
    let blocks = Blocks { pool, width, pool_rows, block_table, seq_lens, block_size, max_blocks };
    let paged = Paged::new("gqaDecode", batch, heads, blocks);
    let mut unfinished = Unfinished::take(&paged, d);
    let (sums, tops) = unfinished.shared();
    let chunk = |i: usize| {
        let (part, kv_head) = (i / kv_heads, i % kv_heads);
        let first = part * heads + kv_head * sharing;
        // SAFETY: each part and head of keys has its own sums.
        let to = unsafe { (sums.part(first * d, sharing * d), tops.part(first * 2, sharing * 2)) };
        let part = &paged.parts[part];
        let rows = paged.rows(part);
        let of = |at: usize| -> Vec<&[f32]> { rows.iter().map(|row| &row[at * d..(at + 1) * d]).collect() };
        let queries = &q[(part.sequence * heads + kv_head * sharing) * d..][..sharing * d];
        attend(ctx.isa, queries, &of(kv_head), &of(kv_heads + kv_head), scale, to);
    };
    let chunks = paged.parts.len() * kv_heads;
    if paged.cached() <= GRAIN {
        (0..chunks).for_each(chunk);
    } else {
        each_chunk(ctx, chunks, chunk);
    }
    merge(ctx.isa, &paged, &unfinished, d, &mut out[..batch * heads * d]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{Rng, assert_close, on_every_isa, with_best};

    struct Case {
        shape: GqaDecode,
        q: Vec<f32>,
        pool: Vec<f32>,
        block_table: Vec<i32>,
        seq_lens: Vec<i32>,
    }

    impl Case {
        fn new(seq_lens: &[i32], (heads, kv_heads, head_dim, block_size): (usize, usize, usize, usize)) -> Self {
            let mut rng = Rng(22);
            let batch = seq_lens.len();
            let max_blocks = seq_lens.iter().map(|&len| (len as usize).div_ceil(block_size)).max().unwrap();
            let blocks = batch * max_blocks + 1;
            let pool_rows = blocks * block_size;
            let shape = GqaDecode { batch, heads, kv_heads, head_dim, block_size, max_blocks, pool_rows, scale: 0.3 };
            Self {
                q: rng.values(batch * heads * head_dim, 1.0),
                pool: rng.values(pool_rows * 2 * kv_heads * head_dim, 1.0),
                // Blocks in falling order, none twice.
                block_table: (0..batch * max_blocks).map(|i| (blocks - 1 - i) as i32).collect(),
                seq_lens: seq_lens.to_vec(),
                shape,
            }
        }

        fn run(&self, ctx: Ctx) -> Vec<f32> {
            let mut out = vec![9.0; self.q.len()];
            let (block_table, seq_lens) = (&self.block_table[..], &self.seq_lens[..]);
            gqa_decode(ctx, GqaCache { q: &self.q, pool: &self.pool, block_table, seq_lens }, &mut out, self.shape);
            out
        }

        fn plain(&self) -> Vec<f64> {
            let GqaDecode { heads, kv_heads, head_dim: d, block_size, max_blocks, .. } = self.shape;
            let mut out = vec![0.0; self.q.len()];
            for (b, h) in (0..self.shape.batch).flat_map(|b| (0..heads).map(move |h| (b, h))) {
                let kv_head = h * kv_heads / heads;
                let row = |j: usize, at: usize| {
                    let block = self.block_table[b * max_blocks + j / block_size] as usize;
                    &self.pool[((block * block_size + j % block_size) * 2 * kv_heads + at) * d..][..d]
                };
                let q = &self.q[(b * heads + h) * d..][..d];
                let score = |j: usize| -> f64 {
                    let dot: f64 = q.iter().zip(row(j, kv_head)).map(|(&q, &k)| f64::from(q) * f64::from(k)).sum();
                    dot * f64::from(self.shape.scale)
                };
                let weights: Vec<f64> = (0..self.seq_lens[b] as usize).map(|j| score(j).exp()).collect();
                let total: f64 = weights.iter().sum();
                for (j, weight) in weights.iter().enumerate() {
                    for c in 0..d {
                        out[(b * heads + h) * d + c] += weight / total * f64::from(row(j, kv_heads + kv_head)[c]);
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
            for dims in [(1, 1, 7, 4), (6, 2, 32, 16), (16, 16, 33, 64), (8, 1, 128, 8)] {
                let case = Case::new(lens, dims);
                let want = case.plain();
                on_every_isa(|ctx| case.run(ctx), |got| assert_close("out", got, &want, 2e-6));
            }
        }
    }

    #[test]
    #[should_panic(expected = "gqaDecode: blockTable must lie in [0, 2), got 2")]
    fn a_block_outside_the_pool_is_refused() {
        let mut case = Case::new(&[3], (1, 1, 2, 4));
        case.block_table[0] = 2;
        with_best(|ctx| drop(case.run(ctx)));
    }

    #[test]
    #[should_panic(expected = "gqaDecode: seqLens must lie in [0, 5), got 5")]
    fn a_length_beyond_the_block_table_is_refused() {
        let mut case = Case::new(&[3], (1, 1, 2, 4));
        case.seq_lens[0] = 5;
        with_best(|ctx| drop(case.run(ctx)));
    }
}
