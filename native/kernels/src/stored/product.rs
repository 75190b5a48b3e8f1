//! Products of activations with stored weights. A few rows multiply values as they are decoded; many rows multiply slabs
//! of weights that are decoded first. Work is cut by shape alone.

use super::Stored;
use super::format::MOST_BLOCK;
use super::rounding::{Rounding, round_bf16};
use crate::gemm::{self, Dtype, MatIn, Matmul, Product};
use crate::ops::Shared;
use crate::ops::simd::{add_scaled, dot, per_isa};
use crate::scratch::Scratch;
use crate::{Ctx, Isa};

/// Products C (+)= A · B that share what follows.
#[derive(Clone, Copy)]
pub struct Products {
    pub n: usize,
    pub k: usize,
    pub ldc: usize,
    /// B is stored `[n, k]`, else `[k, n]`.
    pub trans: bool,
    pub accumulate: bool,
    /// The number of a call: 0 f32, 1 bf16, 2 fp8.
    pub compute: usize,
}

/// One of them: C[m, n] (+)= A[m, k] · B[k, n]. All have weights of one format.
#[derive(Clone, Copy)]
pub struct Item<'a> {
    pub m: usize,
    pub a: MatIn<'a>,
    pub w: Stored<'a>,
    pub c: *mut f32,
}

// SAFETY: only handed to the threads of one product, which write disjoint parts of C.
unsafe impl Send for Item<'_> {}
unsafe impl Sync for Item<'_> {}

/// Up to so many rows, weights are decoded where they are multiplied.
const FEW_ROWS: usize = 8;
/// Weights that one chunk decodes, about.
const CHUNK: usize = 1 << 15;
/// Values that are decoded at a time: with their part of A they stay in L1.
const SEGMENT: usize = 2048;
/// Columns of a chunk of weights stored `[k, n]`.
const COLUMNS: usize = 2 * MOST_BLOCK;
/// Weights of a slab (16 MiB), if some columns are not more.
const SLAB: usize = 4 << 20;
/// Weights below which a product is one chunk of a batch.
const SMALL: usize = 1 << 18;
/// A batch this long is shared by its products.
const WIDE_BATCH: usize = 8;

/// # Safety
/// The operands lie within live memory, the parts of C are apart from each other and from all else, and nobody else
/// touches them.
pub unsafe fn products(ctx: Ctx, items: &[Item], p: &Products) {
    let Some(Item { w, .. }) = items.first() else { return };
    let rounding = Rounding::of(p.compute, w.format);
    let is_few = |item: &&Item| item.m <= FEW_ROWS && item.w.plain().is_none();
    let (few, many): (Vec<&Item>, Vec<&Item>) = items.iter().filter(|item| item.m > 0).partition(is_few);
    unsafe {
        few_rows(ctx, &few, p, rounding);
        if many.len() >= WIDE_BATCH && p.n * p.k <= SMALL {
            ctx.pool.run(many.len(), &|i| many_rows(None, ctx.isa, many[i], p, rounding));
        } else {
            many.iter().for_each(|item| many_rows(Some(ctx), ctx.isa, item, p, rounding));
        }
    }
}

/// The matrix from stored row `first` on; not a transpose.
pub fn rows_from(x: MatIn, first: usize) -> MatIn {
    match x.index {
        Some(index) => MatIn { index: Some(&index[first..]), ..x },
        None => MatIn { ptr: x.ptr.wrapping_add(first * x.stride * x.dtype.bytes()), ..x },
    }
}

/// Row `i` of A, rounded.
unsafe fn left_row(isa: Isa, a: &MatIn, i: usize, rounding: Rounding, out: &mut [f32]) {
    let row = a.index.map_or(i, |index| index[i] as usize);
    if a.dtype == Dtype::F32 && !a.trans {
        let start = a.ptr.cast::<f32>().wrapping_add(row * a.stride);
        out.copy_from_slice(unsafe { std::slice::from_raw_parts(start, out.len()) });
        return rounding.apply(isa, out);
    }
    for (q, value) in out.iter_mut().enumerate() {
        let at = if a.trans { q * a.stride + i } else { row * a.stride + q };
        *value = match a.dtype {
            Dtype::F32 => unsafe { *a.ptr.cast::<f32>().add(at) },
            Dtype::Bf16 => crate::ops::simd::from_bf16(unsafe { *a.ptr.cast::<u16>().add(at) }),
        };
    }
    rounding.apply(isa, out);
}

unsafe fn few_rows(ctx: Ctx, items: &[&Item], p: &Products, rounding: Rounding) {
    let starts: Vec<usize> = items
        .iter()
        .scan(0, |sum, item| {
            *sum += item.m;
            Some(*sum - item.m)
        })
        .collect();
    let rows = items.iter().map(|item| item.m).sum::<usize>();
    let mut left = Scratch::<f32>::take(rows * p.k);
    let to = Shared::new(&mut left);
    ctx.pool.run(items.len(), &|i| unsafe {
        for r in 0..items[i].m {
            left_row(ctx.isa, &items[i].a, r, rounding, to.part((starts[i] + r) * p.k, p.k));
        }
    });
    let step = if p.trans { (CHUNK / p.k.max(1)).max(4) } else { COLUMNS };
    let chunks = p.n.div_ceil(step);
    ctx.pool.run(items.len() * chunks, &|chunk| {
        let (i, j) = (chunk / chunks, chunk % chunks * step);
        let thin = Thin {
            isa: ctx.isa,
            item: items[i],
            p,
            x: &left[starts[i] * p.k..][..items[i].m * p.k],
            rounds: rounding == Rounding::Bf16,
        };
        let len = step.min(p.n - j);
        unsafe { if p.trans { thin.dots(j, len) } else { thin.sums(j, len) } }
    });
}

/// A product with a few rows on the left.
struct Thin<'a> {
    isa: Isa,
    item: &'a Item<'a>,
    p: &'a Products,
    /// A, `[m, k]`.
    x: &'a [f32],
    rounds: bool,
}

impl Thin<'_> {
    unsafe fn weights(&self, row: usize, col: usize, out: &mut [f32]) {
        unsafe { self.item.w.read(self.isa, row, col, out) };
        if self.rounds {
            round_bf16(self.isa, out);
        }
    }

    /// Columns of C from weights stored `[n, k]`: a dot product for each value.
    unsafe fn dots(&self, first: usize, count: usize) {
        let Products { k, .. } = *self.p;
        let mut values = Scratch::<f32>::take(SEGMENT.min(k));
        for j in first..first + count {
            let mut sums = [0.0; FEW_ROWS];
            for from in (0..k).step_by(SEGMENT) {
                let values = &mut values[..SEGMENT.min(k - from)];
                unsafe { self.weights(j, from, values) };
                add_dots(self.isa, self.x, k, from, values, &mut sums[..self.item.m]);
            }
            for (i, &sum) in sums[..self.item.m].iter().enumerate() {
                unsafe { self.put(i, j, sum) };
            }
        }
    }

    /// Columns of C from weights stored `[k, n]`: rows of weights are added up.
    unsafe fn sums(&self, first: usize, count: usize) {
        let mut values = Scratch::<f32>::take(count);
        let mut sums = Scratch::<f32>::take(self.item.m * count);
        sums.fill(0.0);
        for q in 0..self.p.k {
            unsafe { self.weights(q, first, &mut values) };
            for (i, sums) in sums.chunks_mut(count).enumerate() {
                add_row(self.isa, sums, self.x[i * self.p.k + q], &values);
            }
        }
        for (i, sums) in sums.chunks(count).enumerate() {
            sums.iter().enumerate().for_each(|(j, &sum)| unsafe { self.put(i, first + j, sum) });
        }
    }

    unsafe fn put(&self, i: usize, j: usize, sum: f32) {
        unsafe {
            let c = self.item.c.add(i * self.p.ldc + j);
            *c = if self.p.accumulate { *c + sum } else { sum };
        }
    }
}

per_isa! {
    /// `sums[i] += Σ x[i, from + q] · values[q]` for x of rows of k.
    fn add_dots(x: &[f32], k: usize, from: usize, values: &[f32], sums: &mut [f32]) {
        for (i, sum) in sums.iter_mut().enumerate() {
            *sum += dot::<S>(&x[i * k + from..][..values.len()], values);
        }
    }
}

per_isa! {
    fn add_row(sums: &mut [f32], x: f32, values: &[f32]) {
        add_scaled::<S>(sums, x, values);
    }
}

/// One product, on the pool when there is one.
unsafe fn many_rows(pool: Option<Ctx>, isa: Isa, item: &Item, p: &Products, rounding: Rounding) {
    if rounding != Rounding::E4m3 {
        return unsafe { slabs(pool, isa, item, p, rounding) };
    }
    // The left factor is rounded first, as many rows at a time as a slab holds values.
    let step = (SLAB / p.k.max(1)).max(1);
    let mut left = Scratch::<f32>::take(step.min(item.m) * p.k);
    let to = Shared::new(&mut left);
    for first in (0..item.m).step_by(step) {
        let m = step.min(item.m - first);
        each(pool, m, &|i| unsafe {
            left_row(isa, &item.a, first + i, rounding, to.part(i * p.k, p.k));
        });
        let part = Item { m, a: MatIn::f32(to.start(), p.k), c: item.c.wrapping_add(first * p.ldc), ..*item };
        unsafe { slabs(pool, isa, &part, p, rounding) };
    }
}

/// Decodes the weights of some columns of C at a time and multiplies them.
unsafe fn slabs(pool: Option<Ctx>, isa: Isa, item: &Item, p: &Products, rounding: Rounding) {
    if let Some(plain) = item.w.plain() {
        return unsafe { multiply(pool, isa, item, p, plain, 0..p.n, rounding) };
    }
    let step = (SLAB / p.k.max(1) / MOST_BLOCK).max(1) * MOST_BLOCK;
    let mut slab = Scratch::<f32>::take(step.min(p.n) * p.k);
    let to = Shared::new(&mut slab);
    for j in (0..p.n).step_by(step) {
        let width = step.min(p.n - j);
        let (lines, len) = if p.trans { (width, p.k) } else { (p.k, width) };
        let lines_of_chunk = CHUNK.div_ceil(len.max(1));
        each(pool, lines.div_ceil(lines_of_chunk), &|chunk| {
            for line in chunk * lines_of_chunk..lines.min((chunk + 1) * lines_of_chunk) {
                let (row, col) = if p.trans { (j + line, 0) } else { (line, j) };
                unsafe { item.w.read(isa, row, col, to.part(line * len, len)) };
            }
        });
        unsafe { multiply(pool, isa, item, p, MatIn::f32(to.start(), len), j..j + width, rounding) };
    }
}

/// Some columns of C from their weights, stored as those of the product.
unsafe fn multiply(
    pool: Option<Ctx>,
    isa: Isa,
    item: &Item,
    p: &Products,
    weights: MatIn,
    columns: std::ops::Range<usize>,
    rounding: Rounding,
) {
    let b = if p.trans { weights.t() } else { weights };
    let (a, c, compute) = (item.a, item.c.wrapping_add(columns.start), rounding.compute());
    let first = Product { m: item.m, n: columns.len(), k: p.k, a, b, c, ldc: p.ldc, accumulate: p.accumulate };
    let one = Matmul { first, batch: 1, stride_a: 0, stride_b: 0, stride_c: 0, compute };
    unsafe {
        match pool {
            Some(ctx) => gemm::matmul(ctx, &one),
            None => gemm::serial(isa, item.m, first.n, p.k, a, b, c, p.ldc, p.accumulate, compute),
        }
    }
}

/// Calls `work` for every chunk, on the pool when there is one.
fn each(pool: Option<Ctx>, chunks: usize, work: &(dyn Fn(usize) + Sync)) {
    match pool {
        Some(ctx) => ctx.pool.run(chunks, work),
        None => (0..chunks).for_each(work),
    }
}
