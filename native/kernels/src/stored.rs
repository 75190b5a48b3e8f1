//! Weights in the types in which checkpoints store them: how they are read, and products with them. They are decoded on
//! the way, a few values or a slab at a time, so that the model is never expanded in memory.

mod blocks;
mod format;
mod product;
mod rounding;
#[cfg(test)]
mod tests;

pub use format::Format;
pub use product::{Item, Products, products, rows_from};

use crate::Isa;
use crate::gemm::{Dtype, MatIn};
use crate::scratch::Scratch;

/// A matrix that is read where it is stored.
#[derive(Clone, Copy)]
pub struct Stored<'a> {
    pub format: Format,
    /// Element 0 of the whole matrix, of which this one may be a part.
    pub base: *const u8,
    /// The element of the whole at which this one begins: the start of a block.
    pub offset: usize,
    /// Elements from row to row, a whole number of blocks.
    pub stride: usize,
    pub scale: Option<Scale<'a>>,
}

// SAFETY: only read, and the caller of a kernel promises that nobody writes meanwhile.
unsafe impl Send for Stored<'_> {}
unsafe impl Sync for Stored<'_> {}

/// A factor for each block of `rows` × `cols` elements of a whole matrix: `[_, ceil(stride / cols)]`.
#[derive(Clone, Copy)]
pub struct Scale<'a> {
    pub values: &'a [f32],
    pub rows: usize,
    pub cols: usize,
}

impl<'a> Stored<'a> {
    /// The matrix that begins `elements` later in the whole.
    pub fn skip(self, elements: usize) -> Self {
        Self { offset: self.offset + elements, ..self }
    }

    /// Values of row `row` from column `col` on, which is the start of a block.
    ///
    /// # Safety
    /// They lie within live memory, rounded up to whole blocks; `isa` is available.
    pub unsafe fn read(&self, isa: Isa, row: usize, col: usize, out: &mut [f32]) {
        let first = self.offset + row * self.stride + col;
        let elements = self.format.block_elements();
        let whole = out.len() / elements * elements;
        let blocks = |from: usize, count: usize| unsafe {
            std::slice::from_raw_parts(self.base.wrapping_add(self.format.bytes(from)), self.format.bytes(count))
        };
        let (body, rest) = out.split_at_mut(whole);
        blocks::decode(isa, self.format, blocks(first, whole), body);
        if !rest.is_empty() {
            let mut last = Scratch::<f32>::take(elements);
            blocks::decode(isa, self.format, blocks(first + whole, elements), &mut last);
            rest.copy_from_slice(&last[..rest.len()]);
        }
        if let Some(scale) = self.scale {
            scale.apply(first / self.stride, first % self.stride, self.stride, out);
        }
    }

    /// The same matrix for `gemm`, when it can read it as it is.
    fn plain(&self) -> Option<MatIn<'a>> {
        let dtype = match (self.format, self.scale) {
            (Format::F32, None) => Dtype::F32,
            (Format::Bf16, None) => Dtype::Bf16,
            _ => return None,
        };
        let ptr = self.base.wrapping_add(self.format.bytes(self.offset));
        Some(MatIn { ptr, dtype, stride: self.stride, trans: false, index: None })
    }
}

impl Scale<'_> {
    /// Multiplies the values of a row from column `col` on.
    fn apply(&self, row: usize, col: usize, width: usize, out: &mut [f32]) {
        let scales = &self.values[row / self.rows * width.div_ceil(self.cols)..];
        let mut from = 0;
        while from < out.len() {
            let block = (col + from) / self.cols;
            let end = out.len().min((block + 1) * self.cols - col);
            let scale = scales[block];
            out[from..end].iter_mut().for_each(|value| *value *= scale);
            from = end;
        }
    }
}
