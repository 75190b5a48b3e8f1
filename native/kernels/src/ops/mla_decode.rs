//! Absorbed MLA decode: all heads of a sequence against its cached latents, a chunk for each part of the cached rows,
//! which are read once for all heads.

use super::chunks::{GRAIN, each_chunk};
use super::paged::{Blocks, Paged, Unfinished, attend, merge};
use crate::Ctx;
use crate::scratch::Scratch;

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

/// `out[b, h, :] = Σ_j p_j c_j` over the cached rows of sequence b; 0 where it has none.
pub fn mla_decode(ctx: Ctx, cache: MlaCache, out: &mut [f32], shape: MlaDecode) {
    let MlaDecode { batch, heads, latent_dim: d, rope_dim, block_size, max_blocks, pool_rows, .. } = shape;
    assert!(shape.scale >= 0.0, "mlaDecode: scale must be at least 0, got {}", shape.scale);
    let width = d + rope_dim;
    assert!(width > 0, "mlaDecode: latentDim + ropeDim must be at least 1, got 0");
    let MlaCache { pool, block_table, seq_lens, .. } = cache;
    let blocks = Blocks { pool, width, pool_rows, block_table, seq_lens, block_size, max_blocks };
    let paged = Paged::new("mlaDecode", batch, heads, blocks);
    let mut unfinished = Unfinished::take(&paged, d);
    let (sums, tops) = unfinished.shared();
    let chunk = |i: usize| {
        // SAFETY: each part has its own sums.
        let to = unsafe { (sums.part(i * heads * d, heads * d), tops.part(i * heads * 2, heads * 2)) };
        let rows = paged.rows(&paged.parts[i]);
        attend(ctx.isa, &queries(cache, paged.parts[i].sequence, &shape), &rows, &rows, shape.scale, to);
    };
    if paged.cached() <= GRAIN {
        (0..paged.parts.len()).for_each(chunk);
    } else {
        each_chunk(ctx, paged.parts.len(), chunk);
    }
    merge(ctx.isa, &paged, &unfinished, d, &mut out[..batch * heads * d]);
}

/// [heads, latent_dim + rope_dim], the two parts side by side.
fn queries(cache: MlaCache, sequence: usize, shape: &MlaDecode) -> Scratch<f32> {
    let MlaDecode { heads, latent_dim, rope_dim, rope_row, rope_head, .. } = *shape;
    let width = latent_dim + rope_dim;
    let mut queries = Scratch::<f32>::take(heads * width);
    for (h, query) in queries.chunks_exact_mut(width).enumerate() {
        let latent = (sequence * heads + h) * latent_dim;
        query[..latent_dim].copy_from_slice(&cache.q_latent[latent..][..latent_dim]);
        query[latent_dim..].copy_from_slice(&cache.q_rope[sequence * rope_row + h * rope_head..][..rope_dim]);
    }
    queries
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
