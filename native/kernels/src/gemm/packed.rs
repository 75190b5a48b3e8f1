//! Factors that are packed once and stand in several products, for kernels that multiply tile by tile inside a chunk.

use super::pack::{Lines, from_bf16};
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
    /// Tiles with infinities, which stand as they are: lines of f32.
    unsplit: Vec<bool>,
}

impl PackedTiles {
    /// Room for `tiles` tiles of up to `lines` rows (left) or columns (right) and up to `k` values in each.
    pub fn new(isa: Isa, compute: Compute, side: Side, tiles: usize, lines: usize, k: usize) -> Self {
        let kernel = Kernel::of(isa, compute);
        let width = if side == Side::Left { kernel.rows } else { kernel.cols };
        let room = lines.next_multiple_of(width) * kernel.units(k);
        let (words, sizes, unsplit) = (Scratch::take(tiles * room), vec![(0, 0); tiles], vec![false; tiles]);
        Self { kernel, side, room, words, sizes, unsplit }
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
        // SAFETY: the lines exist by the caller's promise, and there is room by the check: values take less as they are.
        unsafe {
            let packed = match self.side {
                Side::Left => self.kernel.pack_a(&product, panels, to),
                Side::Right => self.kernel.pack_b(&product, panels, to),
            };
            self.unsplit[tile] = !packed;
            if !packed {
                let source = if self.side == Side::Left { Lines::of_a(&x) } else { Lines::of_b(&x) };
                (0..lines * k).for_each(|at| *to.add(at) = source.at(at / k, at % k).to_bits());
            }
        }
    }

    /// A value of a tile of split values (see [`Unit::Split`](super::pack::Unit)), or of one that could not be split.
    fn value(&self, tile: usize, line: usize, p: usize) -> f32 {
        let words = &self.words[tile * self.room..];
        let k = self.sizes[tile].1;
        if self.unsplit[tile] {
            return f32::from_bits(words[line * k + p]);
        }
        let (i, pair) = (line % 16, p % 32 / 2);
        let at = if self.side == Side::Left { 16 * i + pair } else { 16 * pair + i };
        let first = (line / 16 * self.kernel.units(k) + p / 32 * 48) * 16 + at;
        let part = |n: usize| from_bf16((words[first + 256 * n] >> (16 * (p % 2))) as u16);
        part(0) + (part(1) + part(2))
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
    if left.unsplit[a] || right.unsplit[b] {
        // SAFETY: C is the caller's promise.
        return unsafe { multiply_values((left, a), (right, b), c, ldc, accumulate) };
    }
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

/// The same value by value, for tiles with infinities.
unsafe fn multiply_values(
    (left, a): (&PackedTiles, usize),
    (right, b): (&PackedTiles, usize),
    c: *mut f32,
    ldc: usize,
    accumulate: bool,
) {
    let ((m, k), (n, _)) = (left.sizes[a], right.sizes[b]);
    for (i, j) in (0..m).flat_map(|i| (0..n).map(move |j| (i, j))) {
        let sum = (0..k).fold(0.0f32, |sum, p| left.value(a, i, p).mul_add(right.value(b, j, p), sum));
        unsafe {
            let c = c.add(i * ldc + j);
            *c = if accumulate { *c + sum } else { sum };
        }
    }
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

    #[test]
    fn an_infinity_multiplies_as_it_does_alone() {
        let (m, n, k) = (18, 17, 35);
        let finite_a: Vec<f32> = (0..m * k).map(|i| (i as f32).sin() + 1.5).collect();
        let finite_b: Vec<f32> = (0..n * k).map(|i| (i as f32).cos() - 1.5).collect();
        for (isa, side) in Isa::available().into_iter().flat_map(|isa| [(isa, Side::Left), (isa, Side::Right)]) {
            let (mut a, mut b) = (finite_a.clone(), finite_b.clone());
            if side == Side::Left {
                a[3 * k + 34] = f32::INFINITY
            } else {
                b[16 * k + 33] = f32::INFINITY
            }
            let mut left = PackedTiles::new(isa, Compute::F32, Side::Left, 1, m, k);
            let mut right = PackedTiles::new(isa, Compute::F32, Side::Right, 1, n, k);
            let mut c = vec![0.0; m * n];
            // SAFETY: the matrices hold what is packed, and c is m × n.
            unsafe {
                left.pack(0, MatIn::f32(a.as_ptr(), k), m, k);
                right.pack(0, MatIn::f32(b.as_ptr(), k).t(), n, k);
                multiply((&left, 0), (&right, 0), c.as_mut_ptr(), n, false);
            }
            for (i, j) in (0..m).flat_map(|i| (0..n).map(move |j| (i, j))) {
                let want: f32 = (0..k).map(|p| a[i * k + p] * b[j * k + p]).sum();
                let near = c[i * n + j] == want || (c[i * n + j] - want).abs() < 1e-4;
                assert!(near, "{} [{i}, {j}]: {} in place of {want}", isa.name(), c[i * n + j]);
            }
        }
    }
}
