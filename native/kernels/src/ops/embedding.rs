//! Table look-up and its gradient.

use super::chunks::{Shared, checked_index, each_chunk, each_rows};
use super::elementwise::fill;
use super::simd::{add_scaled, per_isa};
use crate::Ctx;
use crate::stored::Stored;

/// Columns of the table that one chunk of the backward pass owns.
const COLUMNS: usize = 128;

/// `y[n, :] = table[ids[n], :]`; table [vocab, d].
///
/// # Safety
/// The table lies within live memory.
pub unsafe fn embedding(ctx: Ctx, ids: &[i32], table: Stored, y: &mut [f32], n: usize, d: usize, vocab: usize) {
    let (ids, y) = (&ids[..n], Shared::new(&mut y[..n * d]));
    each_rows(ctx, n, d, |range| {
        for r in range {
            let id = checked_index("embedding", "ids", ids[r], vocab);
            // SAFETY: rows do not overlap.
            unsafe { table.read(ctx.isa, id, 0, y.part(r * d, d)) };
        }
    });
}

#[derive(Clone, Copy)]
pub struct EmbeddingBackward {
    pub n: usize,
    pub d: usize,
    pub vocab: usize,
    pub accumulate: bool,
}

/// `dTable[ids[n], :] (+)= dy[n, :]` in order of n. A chunk owns some columns of the whole table.
pub fn embedding_backward(ctx: Ctx, ids: &[i32], dy: &[f32], d_table: &mut [f32], shape: EmbeddingBackward) {
    let EmbeddingBackward { n, d, vocab, accumulate } = shape;
    let (ids, dy) = (&ids[..n], &dy[..n * d]);
    for &id in ids {
        checked_index("embeddingBackward", "ids", id, vocab);
    }
    if !accumulate {
        fill(ctx, d_table, vocab * d, 0.0);
    }
    let d_table = Shared::new(&mut d_table[..vocab * d]);
    let add_columns = |first: usize, len: usize| {
        for (&id, dy) in ids.iter().zip(dy.chunks_exact(d)) {
            // SAFETY: chunks own different columns.
            let row = unsafe { d_table.part(id as usize * d + first, len) };
            add_row(ctx.isa, &dy[first..first + len], row);
        }
    };
    if n * d <= super::chunks::GRAIN {
        return add_columns(0, d);
    }
    each_chunk(ctx, d.div_ceil(COLUMNS), |chunk| {
        let first = chunk * COLUMNS;
        add_columns(first, COLUMNS.min(d - first));
    });
}

per_isa! {
    fn add_row(x: &[f32], y: &mut [f32]) {
        add_scaled::<S>(y, 1.0, x);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::simd::{from_bf16, to_bf16};
    use crate::ops::testing::{Rng, assert_close, on_every_isa, wide, with_best};
    use crate::stored::Format;

    #[test]
    fn rows_are_looked_up_in_f32_and_bf16_tables() {
        let mut rng = Rng(6);
        for (n, d, vocab) in [(5, 17, 9), (300, 100, 40)] {
            let table: Vec<_> = rng.values(vocab * d, 1.0).iter().map(|&v| from_bf16(to_bf16(v))).collect();
            let narrow: Vec<_> = table.iter().map(|&v| to_bf16(v)).collect();
            let ids = rng.indices(n, vocab);
            let wide = (Format::F32, table.as_ptr().cast());
            for (format, base) in [wide, (Format::Bf16, narrow.as_ptr().cast())] {
                let run = |ctx: Ctx| {
                    let mut y = vec![0.0; n * d];
                    let table = Stored { format, base, offset: 0, stride: d, scale: None };
                    // SAFETY: the tables outlive the call.
                    unsafe { embedding(ctx, &ids, table, &mut y, n, d, vocab) };
                    y
                };
                on_every_isa(run, |y| {
                    for (y, &id) in y.chunks(d).zip(&ids) {
                        assert_eq!(y, &table[id as usize * d..][..d]);
                    }
                });
            }
        }
    }

    #[test]
    fn the_gradient_adds_up_repeated_ids() {
        let mut rng = Rng(7);
        for (n, d, vocab) in [(20, 7, 3), (200, 300, 11)] {
            let (ids, dy, old) = (rng.indices(n, vocab), rng.values(n * d, 1.0), rng.values(vocab * d, 1.0));
            for accumulate in [false, true] {
                let run = |ctx: Ctx| {
                    let mut d_table = old.clone();
                    embedding_backward(ctx, &ids, &dy, &mut d_table, EmbeddingBackward { n, d, vocab, accumulate });
                    d_table
                };
                let mut want = if accumulate { wide(&old) } else { vec![0.0; vocab * d] };
                for (r, &id) in ids.iter().enumerate() {
                    for c in 0..d {
                        want[id as usize * d + c] += f64::from(dy[r * d + c]);
                    }
                }
                on_every_isa(run, |got| assert_close("dTable", got, &want, 1e-5));
            }
        }
    }

    #[test]
    #[should_panic(expected = "embedding: ids must lie in [0, 3), got 3")]
    fn an_id_out_of_range_is_refused() {
        let table = Stored { format: Format::F32, base: std::ptr::null(), offset: 0, stride: 1, scale: None };
        // SAFETY: an id out of range is not read.
        with_best(|ctx| unsafe { embedding(ctx, &[3], table, &mut [0.0], 1, 1, 3) });
    }
}
