//! Factors that are packed once and stand in several products, for kernels that multiply tile by tile inside a chunk.

use super::{Block, Compute, Kernel, MatIn, Product};
use crate::Isa;
use crate::scratch::Scratch;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Left,
    Right,
}

/// Some tiles of the left or of the right factor of products, each packed apart.
pub struct PackedTiles {
    kernel: Kernel,
    side: Side,
    /// Units that a tile takes at most.
    room: usize,
    words: Scratch<u32>,
    /// Lines of each tile, and values in them.
    sizes: Vec<(usize, usize)>,
}

impl PackedTiles {
    /// Room for `tiles` tiles of up to `lines` rows (left) or columns (right) and up to `k` values in each.
    pub fn new(isa: Isa, compute: Compute, side: Side, tiles: usize, lines: usize, k: usize) -> Self {
        let kernel = Kernel::of(isa, compute);
        let width = if side == Side::Left { kernel.rows } else { kernel.cols };
        let room = lines.next_multiple_of(width) * kernel.units(k);
        Self { kernel, side, room, words: Scratch::take(tiles * room), sizes: vec![(0, 0); tiles] }
    }

    /// Packs tile `tile` from x: [lines, k] for the left side, [k, lines] for the right.
    ///
    /// # Safety
    /// x lies within live memory and the instruction set is available.
    pub unsafe fn pack(&mut self, tile: usize, x: MatIn, lines: usize, k: usize) {
        let (m, n) = if self.side == Side::Left { (lines, 0) } else { (0, lines) };
        let c = std::ptr::null_mut();
        let product = Product { m, n, k, a: x, b: x, c, ldc: 0, accumulate: false };
        let width = if self.side == Side::Left { self.kernel.rows } else { self.kernel.cols };
        let needed = lines.next_multiple_of(width) * self.kernel.units(k);
        assert!(needed <= self.room, "a packed tile has room for {} units, got {needed}", self.room);
        self.sizes[tile] = (lines, k);
        let to = self.words[tile * self.room..].as_mut_ptr();
        let panels = 0..lines.div_ceil(width);
        // SAFETY: the lines exist by the caller's promise, and there is room by the check.
        unsafe {
            match self.side {
                Side::Left => self.kernel.pack_a(&product, panels, to),
                Side::Right => self.kernel.pack_b(&product, panels, to),
            }
        }
    }

    fn tile(&self, tile: usize) -> *const u32 {
        self.words[tile * self.room..].as_ptr()
    }
}

/// C[m, n] (+)= A · B on the calling thread, where A is a left tile [m, k] and B a right tile [k, n].
///
/// # Safety
/// C is live and nobody else's.
pub unsafe fn multiply(
    (left, a): (&PackedTiles, usize),
    (right, b): (&PackedTiles, usize),
    c: *mut f32,
    ldc: usize,
    accumulate: bool,
) {
    let ((m, k), (n, depth)) = (left.sizes[a], right.sizes[b]);
    let fit = left.side == Side::Left && right.side == Side::Right && left.kernel.isa == right.kernel.isa;
    assert!(fit && k == depth, "a product of tiles needs a left and a right one of equal depth, got {k} and {depth}");
    let block = Block {
        units: left.kernel.units(k),
        packed_a: left.tile(a),
        packed_b: right.tile(b),
        m,
        n,
        c,
        ldc,
        accumulate,
    };
    // SAFETY: the tiles hold these lines; C is the caller's promise.
    unsafe { left.kernel.block(&block) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_multiply_like_their_matrices() {
        let (m, n, k) = (37, 50, 19);
        let value = |i: usize| (i % 13) as f32 - 6.0;
        let a: Vec<f32> = (0..2 * m * k).map(value).collect();
        let b: Vec<f32> = (0..n * k).map(value).collect();
        for isa in Isa::available() {
            for compute in [Compute::F32, Compute::Bf16] {
                let mut left = PackedTiles::new(isa, compute, Side::Left, 2, m, k);
                let mut right = PackedTiles::new(isa, compute, Side::Right, 1, n, k);
                let mut c = vec![1.0; m * n];
                // SAFETY: the matrices hold what is packed, and c is m × n.
                unsafe {
                    left.pack(0, MatIn::f32(a.as_ptr(), k), m, k);
                    left.pack(1, MatIn::f32(a[m * k..].as_ptr(), m).t(), m, k);
                    right.pack(0, MatIn::f32(b.as_ptr(), k).t(), n, k);
                    multiply((&left, 0), (&right, 0), c.as_mut_ptr(), n, false);
                    multiply((&left, 1), (&right, 0), c.as_mut_ptr(), n, true);
                }
                for (i, j) in (0..m).flat_map(|i| (0..n).map(move |j| (i, j))) {
                    let want: f32 = (0..k).map(|p| (a[i * k + p] + a[m * k + p * m + i]) * b[j * k + p]).sum();
                    assert_eq!(c[i * n + j], want, "{} {compute:?} [{i}, {j}]", isa.name());
                }
            }
        }
    }
}
