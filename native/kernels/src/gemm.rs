//! Matrix products: C (+)= A · B with packing, register tiles and one microkernel for each instruction set.
//!
//! Both factors are packed into panels once, then the blocks of C are computed; each step is cut into chunks by shape
//! alone, and the sum over k of a value of C is made by one thread in one order, so bits do not depend on the number of
//! threads. A few rows (decoding) go through `gemv` instead, which reads the weights where they lie.
//!
//! With bf16 products on the `avx512bf16` and `amx` sets the hardware takes denormal factors and results as zero.
//!
//! On the `amx` set an f32 value is split into the sum of three bf16, and a product is six products of such parts, summed
//! in f32 tiles: faster than f32 multiply-adds and about as exact, unless values come near the denormals or the largest f32.

#[cfg(target_arch = "x86_64")]
pub(crate) mod amx;
#[allow(clippy::needless_range_loop)] // registers, not slices
mod gemv;
mod grouped;
mod micro;
mod pack;
pub(crate) mod packed;
#[cfg(test)]
mod tests;

pub use grouped::{GroupedMatmul, GroupedMatmulBackwardW, grouped_matmul, grouped_matmul_backward_w};

use crate::scratch::Scratch;
use crate::{Ctx, Isa, Pool};
use micro::Tile;
use pack::{Layout, Lines, Panels, Unit};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// How a matrix operand is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dtype {
    F32,
    Bf16,
}

impl Dtype {
    /// Bytes of a number.
    pub fn bytes(self) -> usize {
        match self {
            Dtype::F32 => 4,
            Dtype::Bf16 => 2,
        }
    }
}

/// How factors are multiplied; sums are always f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compute {
    F32,
    /// Both factors rounded to bf16, ties to even.
    Bf16,
}

/// A matrix that is read. Stored row `r` starts at element `stride · index[r]` (`stride · r` without an index); with
/// `trans` the logical matrix is the transpose of what is stored.
#[derive(Clone, Copy)]
pub struct MatIn<'a> {
    pub ptr: *const u8,
    pub dtype: Dtype,
    pub stride: usize,
    pub trans: bool,
    pub index: Option<&'a [i32]>,
}

// SAFETY: only read, and the caller of a kernel promises that nobody writes meanwhile.
unsafe impl Send for MatIn<'_> {}
unsafe impl Sync for MatIn<'_> {}

impl<'a> MatIn<'a> {
    pub fn f32(ptr: *const f32, stride: usize) -> Self {
        Self { ptr: ptr.cast(), dtype: Dtype::F32, stride, trans: false, index: None }
    }

    pub fn bf16(ptr: *const u16, stride: usize) -> Self {
        Self { ptr: ptr.cast(), dtype: Dtype::Bf16, stride, trans: false, index: None }
    }

    /// The matrix from logical row `i` and column `j` on.
    fn skip(self, i: usize, j: usize) -> Self {
        let (r, s) = if self.trans { (j, i) } else { (i, j) };
        let (r, index) = match self.index {
            Some(index) => (0, Some(&index[r..])),
            None => (r, None),
        };
        Self { ptr: self.ptr.wrapping_add((r * self.stride + s) * self.dtype.bytes()), index, ..self }
    }

    /// The transpose.
    pub fn t(self) -> Self {
        Self { trans: !self.trans, ..self }
    }

    /// Reads stored row `index[r]` in place of row `r`.
    pub fn gather(self, index: Option<&'a [i32]>) -> Self {
        Self { index, ..self }
    }
}

/// C[m, n] (+)= A[m, k] · B[k, n].
#[derive(Clone, Copy)]
pub struct Product<'a> {
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub a: MatIn<'a>,
    pub b: MatIn<'a>,
    pub c: *mut f32,
    pub ldc: usize,
    pub accumulate: bool,
}

// SAFETY: as for `MatIn`; chunks write disjoint parts of C.
unsafe impl Send for Product<'_> {}
unsafe impl Sync for Product<'_> {}

/// C[m, n] (+)= A[m, k] · B[k, n] on the calling thread, for use inside another kernel's chunk.
///
/// # Safety
/// The operands lie within live memory, `isa` is available, and nobody else touches C.
#[allow(clippy::too_many_arguments)]
pub unsafe fn serial(
    isa: Isa,
    m: usize,
    n: usize,
    k: usize,
    a: MatIn,
    b: MatIn,
    c: *mut f32,
    ldc: usize,
    accumulate: bool,
    compute: Compute,
) {
    unsafe { product(None, Kernel::of(isa, compute), &Product { m, n, k, a, b, c, ldc, accumulate }) }
}

/// A product for each matrix of a batch; the strides step from one to the next, in elements.
pub struct Matmul<'a> {
    pub first: Product<'a>,
    pub batch: usize,
    pub stride_a: usize,
    pub stride_b: usize,
    pub stride_c: usize,
    pub compute: Compute,
}

// SAFETY: as for `Product`.
unsafe impl Sync for Matmul<'_> {}

impl<'a> Matmul<'a> {
    fn item(&self, i: usize) -> Product<'a> {
        let step = |x: &MatIn<'a>, stride: usize| MatIn { ptr: x.ptr.wrapping_add(i * stride * x.dtype.bytes()), ..*x };
        Product {
            a: step(&self.first.a, self.stride_a),
            b: step(&self.first.b, self.stride_b),
            c: self.first.c.wrapping_add(i * self.stride_c),
            ..self.first
        }
    }
}

/// Multiply-adds below which a product is not worth sharing.
const TINY: usize = 1 << 18;
/// A batch this long is shared by its matrices, a shorter one by the blocks of each.
const WIDE_BATCH: usize = 8;

/// # Safety
/// As for [`serial`], for every matrix of the batch.
pub unsafe fn matmul(ctx: Ctx, p: &Matmul) {
    let kernel = Kernel::of(ctx.isa, p.compute);
    let tiny = p.first.m * p.first.n * p.first.k <= TINY;
    if p.batch >= WIDE_BATCH || tiny {
        ctx.pool.run(p.batch, &|i| unsafe { product(None, kernel, &p.item(i)) });
        return;
    }
    if kernel.suits_slabs(p.first.m, p.first.n, p.first.k) {
        let items: Vec<Product> = (0..p.batch).map(|i| p.item(i)).collect();
        return unsafe { slab_products(ctx.pool, kernel, &items) };
    }
    for i in 0..p.batch {
        unsafe { product(Some(ctx.pool), kernel, &p.item(i)) };
    }
}

/// A microkernel with the panels that it wants.
#[derive(Clone, Copy)]
struct Kernel {
    isa: Isa,
    compute: Compute,
    tile: unsafe fn(&Tile),
    unit: Unit,
    /// Lines and layout of a panel of A.
    rows: usize,
    layout: Layout,
    /// Lines of a panel of B, which is always laid out in rows.
    cols: usize,
}

/// Units of k in one pass over a block of C, about: the panel that stays in L1 then takes up to 36 KiB of it.
const K_BLOCK: usize = 256;
/// Rows and columns of a block of C, at most, so that its panels for one pass fit into L2.
const BLOCK: usize = 256;
/// A product is cut into about so many blocks, so that threads finish together, but not below `MIN_BLOCK`.
const BLOCKS: usize = 16;
const MIN_BLOCK: usize = 64;
/// At most so many units of a factor are packed at a time (16 MiB), if one panel is not more.
const PACKED_UNITS: usize = 4 << 20;
/// Units that a thread packs for one claim.
const PACK_CHUNK: usize = 1 << 16;

/// Lines of the longer side in a slab, about.
const SLAB: usize = 256;
/// Units of both packed factors of a slab, at most (1 MiB): they stay in L2.
const SLAB_UNITS: usize = 1 << 18;

impl Kernel {
    #[cfg(target_arch = "x86_64")]
    fn of(isa: Isa, compute: Compute) -> Self {
        use micro::{avx2, avx512};
        let unit = if compute == Compute::Bf16 { Unit::Rounded } else { Unit::F32 };
        let kernel = |tile, rows, cols| Kernel { isa, compute, tile, unit, rows, layout: Layout::Rows, cols };
        match (isa, compute) {
            (Isa::Portable, _) => kernel(micro::portable, micro::PORTABLE_ROWS, micro::PORTABLE_COLS),
            (Isa::Avx2, _) => kernel(|t| unsafe { avx2::tile(t) }, avx2::ROWS, avx2::COLS),
            (Isa::Amx, Compute::F32) => Kernel {
                unit: Unit::Split,
                layout: Layout::Tiles,
                ..kernel(amx::split_tile, amx::SPLIT_ROWS, amx::COLS)
            },
            (Isa::Avx512, _) | (_, Compute::F32) => kernel(avx512::f32_tile, avx512::ROWS, avx512::COLS),
            (Isa::Avx512Bf16, _) => {
                Kernel { unit: Unit::Pair, ..kernel(avx512::bf16_tile, avx512::ROWS, avx512::COLS) }
            }
            (Isa::Amx, _) => {
                Kernel { unit: Unit::Pair, layout: Layout::Tiles, ..kernel(amx::tile, amx::ROWS, amx::COLS) }
            }
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn of(isa: Isa, compute: Compute) -> Self {
        let unit = if compute == Compute::Bf16 { Unit::Rounded } else { Unit::F32 };
        let (rows, cols) = (micro::PORTABLE_ROWS, micro::PORTABLE_COLS);
        Kernel { isa, compute, tile: micro::portable, unit, rows, layout: Layout::Rows, cols }
    }

    /// The one for factors with infinities, whose parts cannot be multiplied apart.
    fn unsplit(self) -> Self {
        Self::of(self.isa.min(Isa::Avx512Bf16), self.compute)
    }

    /// Units that hold `k` values of a line. Tiles come in whole steps of 32 values, for both factors.
    fn units(&self, k: usize) -> usize {
        match (self.unit, self.layout) {
            (Unit::Split, _) => k.div_ceil(32) * 48,
            (Unit::Pair, Layout::Tiles) => k.div_ceil(32) * 16,
            (Unit::Pair, Layout::Rows) => k.div_ceil(2),
            _ => k,
        }
    }

    /// Whether a product is better shared out in slabs: see [`slab_products`].
    fn suits_slabs(&self, m: usize, n: usize, k: usize) -> bool {
        (m.min(n) + SLAB) * self.units(k) <= SLAB_UNITS
    }

    /// Packs some panels of the rows of A, panel 0 of which stands at `to`. False when these cannot stand for A: see
    /// [`Kernel::unsplit`].
    unsafe fn pack_a(&self, p: &Product, panels: Range<usize>, to: *mut u32) -> bool {
        let factor = Factor { src: Lines::of_a(&p.a), layout: self.layout, width: self.rows, count: p.m };
        unsafe { self.pack(factor, p.k, panels, to) }
    }

    /// Packs some panels of the columns of B, likewise.
    unsafe fn pack_b(&self, p: &Product, panels: Range<usize>, to: *mut u32) -> bool {
        let factor = Factor { src: Lines::of_b(&p.b), layout: Layout::Rows, width: self.cols, count: p.n };
        unsafe { self.pack(factor, p.k, panels, to) }
    }

    unsafe fn pack(&self, factor: Factor, k: usize, panels: Range<usize>, to: *mut u32) -> bool {
        let Factor { src, layout, width, count } = factor;
        let (units, unit) = (self.units(k), self.unit);
        let first = panels.start * width;
        let lines = count.min(panels.end * width) - first;
        let to = to.wrapping_add(first * units);
        let panels = Panels { src, unit, layout, width, first, lines, k, units, to };
        unsafe {
            pack::panels(self.isa, &panels);
            unit != Unit::Split || panels.parts_are_finite()
        }
    }

    /// Computes a block of C from packed panels.
    unsafe fn block(&self, b: &Block) {
        let passes = b.units.div_ceil(K_BLOCK);
        // Whole steps of every tile: 16 units, or 48 of split values.
        let step = b.units.div_ceil(passes).next_multiple_of(48);
        let (down, across) = (b.m.div_ceil(self.rows), b.n.div_ceil(self.cols));
        unsafe {
            self.enter();
            for from in (0..b.units).step_by(step) {
                // The panel of the outer loop stays in L1, those of the inner one pass by.
                match self.layout {
                    Layout::Rows => (0..across).for_each(|j| (0..down).for_each(|i| self.one(b, i, j, from, step))),
                    Layout::Tiles => (0..down).for_each(|i| (0..across).for_each(|j| self.one(b, i, j, from, step))),
                }
            }
            self.leave();
        }
    }

    /// One pass over the tile of C at panel `i` of A and panel `j` of B.
    #[inline(always)]
    unsafe fn one(&self, b: &Block, i: usize, j: usize, from: usize, step: usize) {
        let (row, col) = (i * self.rows, j * self.cols);
        unsafe {
            (self.tile)(&Tile {
                units: step.min(b.units - from),
                a: b.packed_a.add(row * b.units + from * self.rows),
                b: b.packed_b.add(col * b.units + from * self.cols),
                c: b.c.add(row * b.ldc + col),
                ldc: b.ldc,
                rows: self.rows.min(b.m - row),
                cols: self.cols.min(b.n - col),
                accumulate: b.accumulate || from > 0,
            })
        }
    }

    /// Readies the thread for `tile`.
    unsafe fn enter(&self) {
        #[cfg(target_arch = "x86_64")]
        if self.layout == Layout::Tiles {
            unsafe { amx::configure() };
        }
    }

    /// Undoes `enter`, so that the system need not save the tiles.
    unsafe fn leave(&self) {
        #[cfg(target_arch = "x86_64")]
        if self.layout == Layout::Tiles {
            unsafe { amx::release() };
        }
    }
}

/// A factor and its panels.
struct Factor<'a> {
    src: Lines<'a>,
    layout: Layout,
    width: usize,
    /// Lines in all.
    count: usize,
}

/// A part of C that starts at a panel of A and a panel of B.
struct Block {
    units: usize,
    packed_a: *const u32,
    packed_b: *const u32,
    m: usize,
    n: usize,
    c: *mut f32,
    ldc: usize,
    accumulate: bool,
}

/// Rows and columns of the blocks that an m × n matrix is cut into: whole panels, about equal.
fn block_shape(kernel: &Kernel, m: usize, n: usize) -> (usize, usize) {
    let even = |count: usize, most: usize, width: usize| count.div_ceil(count.div_ceil(most)).next_multiple_of(width);
    let (mut rows, mut cols) = (BLOCK, BLOCK);
    while m.div_ceil(rows) * n.div_ceil(cols) < BLOCKS && rows.min(m).max(cols.min(n)) > MIN_BLOCK {
        if rows.min(m) > cols.min(n) { rows = rows.min(m).div_ceil(2) } else { cols = cols.min(n).div_ceil(2) }
    }
    (even(m, rows, kernel.rows), even(n, cols, kernel.cols))
}

/// Calls `work` for every chunk, on the pool when there is one.
fn each(pool: Option<&Pool>, chunks: usize, work: &(dyn Fn(usize) + Sync)) {
    match pool {
        Some(pool) => pool.run(chunks, work),
        None => (0..chunks).for_each(work),
    }
}

/// A pointer that chunks share; each writes its own part.
#[derive(Clone, Copy)]
struct Shared<T>(*mut T);
unsafe impl<T> Send for Shared<T> {}
unsafe impl<T> Sync for Shared<T> {}

impl<T> Shared<T> {
    fn at(self, offset: usize) -> *mut T {
        self.0.wrapping_add(offset)
    }
}

impl Product<'_> {
    /// Handles the products without multiplications; true when there is nothing left to do.
    unsafe fn is_trivial(&self) -> bool {
        if self.k == 0 && !self.accumulate {
            for i in 0..self.m {
                unsafe { std::ptr::write_bytes(self.c.add(i * self.ldc), 0, self.n) };
            }
        }
        self.m == 0 || self.n == 0 || self.k == 0
    }

    /// All of the product as one block.
    fn block(&self, units: usize, packed_a: *const u32, packed_b: *const u32) -> Block {
        let (m, n, c, ldc, accumulate) = (self.m, self.n, self.c, self.ldc, self.accumulate);
        Block { units, packed_a, packed_b, m, n, c, ldc, accumulate }
    }

    /// The part of the product for the rows and columns from (i, j) on.
    fn part(&self, i: usize, m: usize, j: usize, n: usize) -> Self {
        Self { m, n, a: self.a.skip(i, 0), b: self.b.skip(0, j), c: self.c.wrapping_add(i * self.ldc + j), ..*self }
    }
}

/// Products in slabs, each packed and computed by one thread. What one core has packed another fetches slowly, and a small
/// product has too little arithmetic for that.
unsafe fn slab_products(pool: &Pool, kernel: Kernel, products: &[Product]) {
    let least = if products.len() < WIDE_BATCH { 2 } else { 1 };
    let slabs: Vec<Product> = products.iter().flat_map(|p| slabs(&kernel, p, least)).collect();
    pool.run(slabs.len(), &|i| unsafe { product(None, kernel, &slabs[i]) });
}

/// A product cut along its longer side into at least so many slabs.
fn slabs<'a>(kernel: &Kernel, p: &Product<'a>, least: usize) -> Vec<Product<'a>> {
    let (long, width) = if p.m >= p.n { (p.m, kernel.rows) } else { (p.n, kernel.cols) };
    let step = long.div_ceil((long / SLAB).max(least)).next_multiple_of(width).max(1);
    let starts = (0..long).step_by(step);
    let lines = |at: usize| step.min(long - at);
    if p.m >= p.n {
        starts.map(|i| p.part(i, lines(i), 0, p.n)).collect()
    } else {
        starts.map(|j| p.part(0, p.m, j, lines(j))).collect()
    }
}

/// One product, in parts whose packed factors are of bounded size.
unsafe fn product(pool: Option<&Pool>, kernel: Kernel, p: &Product) {
    unsafe {
        if p.is_trivial() {
            return;
        }
        if p.m <= gemv::MOST_ROWS {
            return gemv::product(pool, kernel, p);
        }
    }
    let units = kernel.units(p.k);
    let step = |width: usize| (PACKED_UNITS / (units * width)).max(1) * width;
    let (m_step, n_step) = (step(kernel.rows), step(kernel.cols));
    let size = |count: usize, step: usize, width: usize| count.min(step).next_multiple_of(width) * units;
    let mut packed_a = Scratch::<u32>::take(size(p.m, m_step, kernel.rows));
    let mut packed_b = Scratch::<u32>::take(size(p.n, n_step, kernel.cols));
    let (to_a, to_b) = (Shared(packed_a.as_mut_ptr()), Shared(packed_b.as_mut_ptr()));
    for i in (0..p.m).step_by(m_step) {
        let mut is_packed_a = true;
        for j in (0..p.n).step_by(n_step) {
            let part = p.part(i, m_step.min(p.m - i), j, n_step.min(p.n - j));
            unsafe {
                let (a, b) = pack_both(pool, kernel, &part, (j == 0).then_some(to_a), to_b);
                is_packed_a &= a;
                if is_packed_a && b {
                    compute(pool, kernel, &part, to_a, to_b);
                } else {
                    product(pool, kernel.unsplit(), &part);
                }
            }
        }
    }
}

/// Packs B, and A where it is not packed already; says of each whether the panels hold it.
unsafe fn pack_both(
    pool: Option<&Pool>,
    kernel: Kernel,
    p: &Product,
    to_a: Option<Shared<u32>>,
    to_b: Shared<u32>,
) -> (bool, bool) {
    let (is_packed_a, is_packed_b) = (AtomicBool::new(true), AtomicBool::new(true));
    let units = kernel.units(p.k);
    let panels_b = p.n.div_ceil(kernel.cols);
    let panels_a = if to_a.is_some() { p.m.div_ceil(kernel.rows) } else { 0 };
    let (step_a, step_b) = (pack_step(kernel.rows * units), pack_step(kernel.cols * units));
    let chunks_a = panels_a.div_ceil(step_a);
    each(pool, chunks_a + panels_b.div_ceil(step_b), &|chunk| unsafe {
        match (chunk.checked_sub(chunks_a), to_a) {
            (None, Some(to)) => {
                let first = chunk * step_a;
                is_packed_a.fetch_and(kernel.pack_a(p, first..panels_a.min(first + step_a), to.at(0)), Relaxed);
            }
            (Some(chunk), _) => {
                let first = chunk * step_b;
                is_packed_b.fetch_and(kernel.pack_b(p, first..panels_b.min(first + step_b), to_b.at(0)), Relaxed);
            }
            (None, None) => unreachable!("without A there are no chunks of A"),
        }
    });
    (is_packed_a.into_inner(), is_packed_b.into_inner())
}

/// Panels that one chunk packs.
fn pack_step(panel_units: usize) -> usize {
    (PACK_CHUNK / panel_units).max(1)
}

/// Computes all blocks of C from packed factors.
unsafe fn compute(pool: Option<&Pool>, kernel: Kernel, p: &Product, a: Shared<u32>, b: Shared<u32>) {
    let units = kernel.units(p.k);
    let (rows, cols) = block_shape(&kernel, p.m, p.n);
    let across = p.n.div_ceil(cols);
    each(pool, p.m.div_ceil(rows) * across, &|chunk| {
        let (i, j) = (chunk / across * rows, chunk % across * cols);
        unsafe {
            let part = p.part(i, rows.min(p.m - i), j, cols.min(p.n - j));
            kernel.block(&part.block(units, a.at(i * units), b.at(j * units)));
        }
    });
}
