//! Products with stacked expert weights, where each expert has its own rows of the tokens sorted by expert.

use super::PACKED_UNITS;
use super::{Compute, Kernel, MatIn, Product, Shared, block_shape, each, gemv, pack_step, product, slab_products};
use crate::scratch::Scratch;
use crate::{Ctx, Pool};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// y[r, :] (+)= W[e] · x[row(r), :] for the rows of each expert; with `trans_w`, W[e]ᵀ · x[row(r), :].
pub struct GroupedMatmul<'a> {
    /// `[x rows, in]` (`[x rows, out]` with `trans_w`), with the row index if there is one.
    pub x: MatIn<'a>,
    /// `[experts, out, in]`, contiguous.
    pub w: MatIn<'a>,
    /// `[experts + 1]` rising row numbers.
    pub offsets: &'a [i32],
    /// `[rows, out]` (`[rows, in]` with `trans_w`), contiguous.
    pub y: *mut f32,
    pub out_dim: usize,
    pub in_dim: usize,
    pub trans_w: bool,
    pub accumulate: bool,
    pub compute: Compute,
}

/// # Safety
/// The operands lie within live memory, offsets and indices within their matrices, and nobody else touches y.
pub unsafe fn grouped_matmul(ctx: Ctx, g: &GroupedMatmul) {
    let kernel = Kernel::of(ctx.isa, g.compute);
    let (n, k) = if g.trans_w { (g.in_dim, g.out_dim) } else { (g.out_dim, g.in_dim) };
    let most_rows = (PACKED_UNITS / (kernel.units(k).max(1) * kernel.rows)).max(1) * kernel.rows;
    let mut pieces = Vec::new();
    for (e, bounds) in g.offsets.windows(2).enumerate() {
        let (first, end) = (bounds[0] as usize, bounds[1] as usize);
        let w = g.w.skip(e * g.out_dim, 0);
        let b = if g.trans_w { w } else { w.t() };
        for r in (first..end).step_by(most_rows) {
            let (a, c) = (g.x.skip(r, 0), g.y.wrapping_add(r * n));
            let m = most_rows.min(end - r);
            pieces.push(Product { m, n, k, a, b, c, ldc: n, accumulate: g.accumulate });
        }
    }
    if pieces.iter().all(|p| kernel.suits_slabs(p.m, n, k)) {
        return unsafe { slab_products(ctx.pool, kernel, &pieces) };
    }
    let panels = |p: &Product| p.m.div_ceil(kernel.rows);
    let size = |p: &Product| panels(p) * kernel.rows * kernel.units(k);
    for group in split(&pieces, size) {
        unsafe { tall_products(ctx.pool, kernel, group) };
    }
}

/// Products that share n and k: the left factors are packed first, then each chunk packs some columns of one right factor
/// for itself and computes those columns of C. So no right factor is packed twice, nor leaves the cache in between.
unsafe fn tall_products(pool: &Pool, kernel: Kernel, products: &[Product]) {
    let Some(&Product { n, k, .. }) = products.first() else {
        return;
    };
    if k == 0 || n == 0 {
        for p in products {
            unsafe { p.is_trivial() };
        }
        return;
    }
    let units = kernel.units(k);
    let is_thin = |p: &Product| p.m <= gemv::MOST_ROWS;
    let panels: Vec<usize> = starts(products, |p| if is_thin(p) { 0 } else { p.m.div_ceil(kernel.rows) });
    let total = panels[products.len()];
    let mut packed = Scratch::<u32>::take(total * kernel.rows * units);
    let to = Shared(packed.as_mut_ptr());
    let step = pack_step(kernel.rows * units);
    let is_packed = AtomicBool::new(true);
    each(Some(pool), total.div_ceil(step), &|chunk| {
        for (i, run) in runs(&panels, chunk * step..total.min((chunk + 1) * step)) {
            let packed = unsafe { kernel.pack_a(&products[i], run, to.at(panels[i] * kernel.rows * units)) };
            is_packed.fetch_and(packed, Relaxed);
        }
    });
    if !is_packed.into_inner() {
        return unsafe { tall_products(pool, kernel.unsplit(), products) };
    }

    let cols = columns_of_chunk(&kernel, n, units);
    let blocks = starts(products, |p| if is_thin(p) { n.div_ceil(gemv::column_step(p)) } else { n.div_ceil(cols) });
    each(Some(pool), blocks[products.len()], &|chunk| {
        let (i, local) = locate(&blocks, chunk);
        let p = &products[i];
        let width = if is_thin(p) { gemv::column_step(p) } else { cols };
        let j = local * width;
        let part = p.part(0, p.m, j, width.min(n - j));
        unsafe {
            if is_thin(p) {
                return gemv::columns(kernel, &part);
            }
            columns(kernel, &part, to.at(panels[i] * kernel.rows * units));
        }
    });
}

/// Packs the right factor and computes C from it and a packed left factor, on the calling thread.
unsafe fn columns(kernel: Kernel, p: &Product, packed_a: *const u32) {
    let units = kernel.units(p.k);
    let panels = p.n.div_ceil(kernel.cols);
    let mut packed = Scratch::<u32>::take(panels * kernel.cols * units);
    let packed_b = packed.as_mut_ptr();
    unsafe {
        if !kernel.pack_b(p, 0..panels, packed_b) {
            return product(None, kernel.unsplit(), p);
        }
        kernel.block(&p.block(units, packed_a, packed_b));
    }
}

/// Columns whose packed panels take up to half a megabyte, a part of L2.
fn columns_of_chunk(kernel: &Kernel, n: usize, units: usize) -> usize {
    const UNITS: usize = 1 << 17;
    let most = (UNITS / units / kernel.cols).clamp(1, 8) * kernel.cols;
    n.div_ceil(n.div_ceil(most)).next_multiple_of(kernel.cols)
}

/// dW[e] (+)= Σ_r dy[dyRow(r), :]ᵀ · x[xRow(r), :] over the rows of each expert.
pub struct GroupedMatmulBackwardW<'a> {
    /// `[x rows, in]`, with its row index if there is one.
    pub x: MatIn<'a>,
    /// `[dy rows, out]`, likewise.
    pub dy: MatIn<'a>,
    /// `[experts + 1]` rising row numbers.
    pub offsets: &'a [i32],
    /// `[experts, out, in]`, contiguous.
    pub dw: *mut f32,
    pub out_dim: usize,
    pub in_dim: usize,
    pub accumulate: bool,
    pub compute: Compute,
}

/// # Safety
/// As for [`grouped_matmul`], with dW in place of y.
pub unsafe fn grouped_matmul_backward_w(ctx: Ctx, g: &GroupedMatmulBackwardW) {
    let kernel = Kernel::of(ctx.isa, g.compute);
    let products: Vec<Product> = g
        .offsets
        .windows(2)
        .enumerate()
        .map(|(e, bounds)| {
            let first = bounds[0] as usize;
            Product {
                m: g.out_dim,
                n: g.in_dim,
                k: bounds[1] as usize - first,
                a: g.dy.skip(first, 0).t(),
                b: g.x.skip(first, 0),
                c: g.dw.wrapping_add(e * g.out_dim * g.in_dim),
                ldc: g.in_dim,
                accumulate: g.accumulate,
            }
        })
        .collect();
    if products.iter().all(|p| kernel.suits_slabs(p.m, p.n, p.k)) {
        return unsafe { slab_products(ctx.pool, kernel, &products) };
    }
    for group in split(&products, |p| packed_size(&kernel, p)) {
        unsafe {
            match group {
                [one] => product(Some(ctx.pool), kernel, one),
                _ => small_products(ctx.pool, kernel, group),
            }
        }
    }
}

/// Units of both packed factors.
fn packed_size(kernel: &Kernel, p: &Product) -> usize {
    (p.m.next_multiple_of(kernel.rows) + p.n.next_multiple_of(kernel.cols)) * kernel.units(p.k)
}

/// Products whose packed factors fit into scratch together: one step packs all, one computes all.
unsafe fn small_products(pool: &Pool, kernel: Kernel, products: &[Product]) {
    let places = starts(products, |p| packed_size(&kernel, p));
    let mut packed = Scratch::<u32>::take(places[products.len()]);
    let to = Shared(packed.as_mut_ptr());
    let of_b = |i: usize| to.at(places[i] + products[i].m.next_multiple_of(kernel.rows) * kernel.units(products[i].k));
    let panels_a = |p: &Product| p.m.div_ceil(kernel.rows);
    let panels = starts(products, |p| if p.k == 0 { 0 } else { panels_a(p) + p.n.div_ceil(kernel.cols) });
    let total = panels[products.len()];
    let step = pack_step(places[products.len()] / total.max(1) + 1);
    let is_packed = AtomicBool::new(true);
    each(Some(pool), total.div_ceil(step), &|chunk| {
        for (i, run) in runs(&panels, chunk * step..total.min((chunk + 1) * step)) {
            let p = &products[i];
            // The panels of A stand before those of B.
            let left = panels_a(p);
            unsafe {
                if run.start < left {
                    is_packed.fetch_and(kernel.pack_a(p, run.start..run.end.min(left), to.at(places[i])), Relaxed);
                }
                if run.end > left {
                    let run = run.start.max(left) - left..run.end - left;
                    is_packed.fetch_and(kernel.pack_b(p, run, of_b(i)), Relaxed);
                }
            }
        }
    });
    if !is_packed.into_inner() {
        return unsafe { small_products(pool, kernel.unsplit(), products) };
    }

    let grid = |p: &Product| {
        let (rows, cols) = block_shape(&kernel, p.m, p.n);
        (rows, cols, p.n.div_ceil(cols))
    };
    let blocks = starts(products, |p| {
        let (rows, _, across) = grid(p);
        p.m.div_ceil(rows) * across
    });
    each(Some(pool), blocks[products.len()], &|chunk| {
        let (i, local) = locate(&blocks, chunk);
        let p = &products[i];
        let (rows, cols, across) = grid(p);
        let (row, col) = (local / across * rows, local % across * cols);
        let part = p.part(row, rows.min(p.m - row), col, cols.min(p.n - col));
        let units = kernel.units(p.k);
        unsafe {
            if !part.is_trivial() {
                kernel.block(&part.block(units, to.at(places[i] + row * units), of_b(i).add(col * units)));
            }
        }
    });
}

/// Runs of products that together pack at most [`PACKED_UNITS`], each of at least one.
fn split<'p, 'a>(products: &'p [Product<'a>], size: impl Fn(&Product) -> usize) -> Vec<&'p [Product<'a>]> {
    let mut groups = Vec::new();
    let (mut first, mut sum) = (0, 0);
    for (i, p) in products.iter().enumerate() {
        if i > first && sum + size(p) > PACKED_UNITS {
            groups.push(&products[first..i]);
            (first, sum) = (i, 0);
        }
        sum += size(p);
    }
    groups.push(&products[first..]);
    groups
}

/// Running sums of `count`: item i owns the numbers from `[i]` to `[i + 1]`.
fn starts(products: &[Product], count: impl Fn(&Product) -> usize) -> Vec<usize> {
    let mut starts = vec![0];
    let mut sum = 0;
    for p in products {
        sum += count(p);
        starts.push(sum);
    }
    starts
}

/// The item that owns `number` and the number's place in it.
fn locate(starts: &[usize], number: usize) -> (usize, usize) {
    let i = starts.partition_point(|&start| start <= number) - 1;
    (i, number - starts[i])
}

/// The parts of `numbers` that one item owns each, counted from the item's first.
fn runs(starts: &[usize], numbers: Range<usize>) -> impl Iterator<Item = (usize, Range<usize>)> {
    let mut next = numbers.start;
    std::iter::from_fn(move || {
        if next >= numbers.end {
            return None;
        }
        let (i, local) = locate(starts, next);
        let end = numbers.end.min(starts[i + 1]);
        let run = local..local + (end - next);
        next = end;
        Some((i, run))
    })
}
