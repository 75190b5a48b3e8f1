//! Writing into the pool of cached rows.

use super::chunks::{GRAIN, Shared, checked_index, each_chunk};
use crate::Ctx;

/// Columns of the pool that one chunk owns.
const COLUMNS: usize = 128;

#[derive(Clone, Copy)]
pub struct CacheWrite {
    pub n: usize,
    pub latent_dim: usize,
    pub rope_dim: usize,
    pub latent_stride: usize,
    pub rope_stride: usize,
    pub pool_rows: usize,
}

/// `pool[slots[n], :] = [latent[n, :] ‖ rope[n, :]]`, in order of n. Chunks own columns, so a slot that stands twice holds
/// the later row.
pub fn cache_write(ctx: Ctx, latent: &[f32], rope: &[f32], slots: &[i32], pool: &mut [f32], shape: CacheWrite) {
    let CacheWrite { n, latent_dim, rope_dim, latent_stride, rope_stride, pool_rows } = shape;
    let width = latent_dim + rope_dim;
    let slots = &slots[..n];
    for &slot in slots {
        checked_index("cacheWrite", "slots", slot, pool_rows);
    }
    let pool = Shared::new(&mut pool[..pool_rows * width]);
    let copy = |x: &[f32], stride: usize, from: usize, to: usize, len: usize| {
        for (r, &slot) in slots.iter().enumerate() {
            // SAFETY: chunks own different columns.
            let row = unsafe { pool.part(slot as usize * width + to, len) };
            row.copy_from_slice(&x[r * stride + from..][..len]);
        }
    };
    if n * width <= GRAIN {
        copy(latent, latent_stride, 0, 0, latent_dim);
        return copy(rope, rope_stride, 0, latent_dim, rope_dim);
    }
    let latent_chunks = latent_dim.div_ceil(COLUMNS);
    each_chunk(ctx, latent_chunks + 1, |chunk| {
        if chunk == latent_chunks {
            return copy(rope, rope_stride, 0, latent_dim, rope_dim);
        }
        let first = chunk * COLUMNS;
        copy(latent, latent_stride, first, first, COLUMNS.min(latent_dim - first));
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{Rng, on_every_isa, with_best};

    #[test]
    fn rows_go_to_their_slots_and_others_stay() {
        let mut rng = Rng(20);
        for (n, latent_dim, rope_dim, pool_rows) in [(3, 8, 4, 7), (120, 300, 64, 200)] {
            let (latent_stride, rope_stride, width) = (latent_dim + 5, rope_dim + 1, latent_dim + rope_dim);
            let (latent, rope) = (rng.values(n * latent_stride, 1.0), rng.values(n * rope_stride, 1.0));
            let old = rng.values(pool_rows * width, 1.0);
            let slots: Vec<_> = (0..n).map(|r| (pool_rows - 1 - r) as i32).collect();
            let shape = CacheWrite { n, latent_dim, rope_dim, latent_stride, rope_stride, pool_rows };
            let run = |ctx: Ctx| {
                let mut pool = old.clone();
                cache_write(ctx, &latent, &rope, &slots, &mut pool, shape);
                pool
            };
            let mut want = old.clone();
            for (r, &slot) in slots.iter().enumerate() {
                let row = &mut want[slot as usize * width..][..width];
                row[..latent_dim].copy_from_slice(&latent[r * latent_stride..][..latent_dim]);
                row[latent_dim..].copy_from_slice(&rope[r * rope_stride..][..rope_dim]);
            }
            on_every_isa(run, |pool| assert!(pool == want));
        }
    }

    #[test]
    #[should_panic(expected = "cacheWrite: slots must lie in [0, 2), got 2")]
    fn a_slot_outside_the_pool_is_refused() {
        let shape = CacheWrite { n: 1, latent_dim: 1, rope_dim: 1, latent_stride: 1, rope_stride: 1, pool_rows: 2 };
        with_best(|ctx| cache_write(ctx, &[1.0], &[1.0], &[2], &mut [0.0; 4], shape));
    }
}
