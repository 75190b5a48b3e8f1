//! Products with a few rows on the left: each weight is used a few times, so memory is the limit. The weights are read
//! where they lie and multiplied in f32; bf16 rounding of f32 weights happens on the way.

use super::pack::{Lines, from_bf16, round_bf16};
use super::{Compute, Dtype, Kernel, Product, each};
use crate::scratch::Scratch;
use crate::{Isa, Pool};

pub const MOST_ROWS: usize = 4;
/// Weights that one chunk reads, about: enough to be worth a claim, few enough to share a small matrix.
const CHUNK: usize = 1 << 15;

/// Columns of C that one chunk computes.
pub fn column_step(p: &Product) -> usize {
    (CHUNK / p.k).max(1).next_multiple_of(64)
}

/// The whole product; `m` is at most [`MOST_ROWS`].
///
/// # Safety
/// As for [`super::serial`].
pub unsafe fn product(pool: Option<&Pool>, kernel: Kernel, p: &Product) {
    let step = column_step(p);
    each(pool, p.n.div_ceil(step), &|chunk| unsafe {
        let j = chunk * step;
        columns(kernel, &p.part(0, p.m, j, step.min(p.n - j)));
    });
}

/// The product on the calling thread.
///
/// # Safety
/// As for [`super::serial`].
pub unsafe fn columns(kernel: Kernel, p: &Product) {
    let rounds = kernel.compute == Compute::Bf16;
    let mut x = Scratch::<f32>::take(p.m * p.k);
    let rows = Lines::of_a(&p.a);
    for i in 0..p.m {
        for q in 0..p.k {
            let value = unsafe { rows.at(i, q) };
            x[i * p.k + q] = if rounds { round_bf16(value) } else { value };
        }
    }
    let job = Job { x: x.as_ptr(), k: p.k, n: p.n, w: Lines::of_b(&p.b), c: p.c, ldc: p.ldc, accumulate: p.accumulate };
    unsafe {
        match (p.b.dtype, rounds) {
            (Dtype::F32, false) => job.run::<F32>(kernel.isa, p.m),
            (Dtype::F32, true) => job.run::<Rounded>(kernel.isa, p.m),
            (Dtype::Bf16, _) => job.run::<Bf16>(kernel.isa, p.m),
        }
    }
}

struct Job<'a> {
    /// `[m, k]`, contiguous.
    x: *const f32,
    k: usize,
    n: usize,
    w: Lines<'a>,
    c: *mut f32,
    ldc: usize,
    accumulate: bool,
}

/// How weights are read.
trait Weight {
    type Stored: Copy;
    fn value(stored: Self::Stored) -> f32;
    #[cfg(target_arch = "x86_64")]
    unsafe fn load(from: *const Self::Stored, mask: u16) -> std::arch::x86_64::__m512;
}

struct F32;
struct Rounded;
struct Bf16;

impl Job<'_> {
    unsafe fn run<W: Weight>(&self, isa: Isa, m: usize) {
        unsafe {
            match m {
                1 => self.run_rows::<W, 1>(isa),
                2 => self.run_rows::<W, 2>(isa),
                3 => self.run_rows::<W, 3>(isa),
                _ => self.run_rows::<W, MOST_ROWS>(isa),
            }
        }
    }

    unsafe fn run_rows<W: Weight, const M: usize>(&self, isa: Isa) {
        unsafe {
            match (isa, self.w.k_contiguous()) {
                #[cfg(target_arch = "x86_64")]
                (Isa::Avx2, true) => avx2::dots::<W, M>(self),
                #[cfg(target_arch = "x86_64")]
                (Isa::Avx2, false) => avx2::sums::<W, M>(self),
                (Isa::Portable, true) => self.dots::<W, M, false>(),
                (Isa::Portable, false) => self.sums::<W, M, false>(),
                #[cfg(target_arch = "x86_64")]
                (_, true) => avx512::dots::<W, M>(self),
                #[cfg(target_arch = "x86_64")]
                (_, false) => avx512::sums::<W, M>(self),
                #[cfg(not(target_arch = "x86_64"))]
                _ => unreachable!("only the portable set exists here"),
            }
        }
    }

    #[inline(always)]
    unsafe fn put(&self, i: usize, j: usize, sum: f32) {
        unsafe {
            let c = self.c.add(i * self.ldc + j);
            *c = if self.accumulate { *c + sum } else { sum };
        }
    }

    /// Weights stored `[n, k]`: a dot product for each value of C.
    #[inline(always)]
    unsafe fn dots<W: Weight, const M: usize, const FMA: bool>(&self) {
        const LANES: usize = 16;
        for j in 0..self.n {
            let mut acc = [[0.0f32; LANES]; M];
            unsafe {
                let w = self.w.row::<W::Stored>(j);
                let whole = self.k / LANES * LANES;
                for q in (0..whole).step_by(LANES) {
                    for (i, acc) in acc.iter_mut().enumerate() {
                        let x = self.x.add(i * self.k + q);
                        for (l, sum) in acc.iter_mut().enumerate() {
                            *sum = multiply_add::<FMA>(*x.add(l), W::value(*w.add(q + l)), *sum);
                        }
                    }
                }
                for (i, acc) in acc.iter_mut().enumerate() {
                    for q in whole..self.k {
                        let l = q - whole;
                        acc[l] = multiply_add::<FMA>(*self.x.add(i * self.k + q), W::value(*w.add(q)), acc[l]);
                    }
                    self.put(i, j, acc.iter().sum());
                }
            }
        }
    }

    /// Weights stored `[k, n]`: rows of weights are added up, some columns at a time.
    #[inline(always)]
    unsafe fn sums<W: Weight, const M: usize, const FMA: bool>(&self) {
        const LANES: usize = 16;
        for j in (0..self.n).step_by(LANES) {
            let cols = LANES.min(self.n - j);
            let mut acc = [[0.0f32; LANES]; M];
            unsafe {
                for q in 0..self.k {
                    let w = self.w.row::<W::Stored>(q).add(j);
                    let mut values = [0.0f32; LANES];
                    for (l, value) in values.iter_mut().enumerate().take(cols) {
                        *value = W::value(*w.add(l));
                    }
                    for (i, acc) in acc.iter_mut().enumerate() {
                        let x = *self.x.add(i * self.k + q);
                        for (sum, value) in acc.iter_mut().zip(values) {
                            *sum = multiply_add::<FMA>(x, value, *sum);
                        }
                    }
                }
                for (i, acc) in acc.iter().enumerate() {
                    for (l, &sum) in acc.iter().enumerate().take(cols) {
                        self.put(i, j + l, sum);
                    }
                }
            }
        }
    }
}

#[inline(always)]
fn multiply_add<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

impl Weight for F32 {
    type Stored = f32;
    #[inline(always)]
    fn value(stored: f32) -> f32 {
        stored
    }
    #[cfg(target_arch = "x86_64")]
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn load(from: *const f32, mask: u16) -> std::arch::x86_64::__m512 {
        unsafe { std::arch::x86_64::_mm512_maskz_loadu_ps(mask, from) }
    }
}

impl Weight for Rounded {
    type Stored = f32;
    #[inline(always)]
    fn value(stored: f32) -> f32 {
        round_bf16(stored)
    }
    #[cfg(target_arch = "x86_64")]
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn load(from: *const f32, mask: u16) -> std::arch::x86_64::__m512 {
        use std::arch::x86_64::*;
        unsafe { _mm512_castsi512_ps(super::pack::avx512::round(_mm512_maskz_loadu_epi32(mask, from.cast()))) }
    }
}

impl Weight for Bf16 {
    type Stored = u16;
    #[inline(always)]
    fn value(stored: u16) -> f32 {
        from_bf16(stored)
    }
    #[cfg(target_arch = "x86_64")]
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn load(from: *const u16, mask: u16) -> std::arch::x86_64::__m512 {
        use std::arch::x86_64::*;
        let half = unsafe { _mm256_maskz_loadu_epi16(mask, from.cast()) };
        _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(half)))
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::{Job, Weight};

    #[target_feature(enable = "avx2,fma")]
    pub unsafe fn dots<W: Weight, const M: usize>(job: &Job) {
        unsafe { job.dots::<W, M, true>() }
    }

    #[target_feature(enable = "avx2,fma")]
    pub unsafe fn sums<W: Weight, const M: usize>(job: &Job) {
        unsafe { job.sums::<W, M, true>() }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use super::{Job, Weight};
    use crate::gemm::pack::avx512::mask16;
    use std::arch::x86_64::*;

    /// Vectors of a row in flight.
    const DEPTH: usize = 4;

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    pub unsafe fn dots<W: Weight, const M: usize>(job: &Job) {
        let k = job.k;
        let whole = k / (16 * DEPTH) * (16 * DEPTH);
        for j in 0..job.n {
            let mut acc = [[_mm512_setzero_ps(); DEPTH]; M];
            unsafe {
                let w = job.w.row::<W::Stored>(j);
                for q in (0..whole).step_by(16 * DEPTH) {
                    for d in 0..DEPTH {
                        let w = W::load(w.add(q + 16 * d), 0xffff);
                        for (i, acc) in acc.iter_mut().enumerate() {
                            acc[d] = _mm512_fmadd_ps(_mm512_loadu_ps(job.x.add(i * k + q + 16 * d)), w, acc[d]);
                        }
                    }
                }
                for q in (whole..k).step_by(16) {
                    let mask = mask16(k - q);
                    let w = W::load(w.add(q), mask);
                    for (i, acc) in acc.iter_mut().enumerate() {
                        acc[0] = _mm512_fmadd_ps(_mm512_maskz_loadu_ps(mask, job.x.add(i * k + q)), w, acc[0]);
                    }
                }
                for (i, acc) in acc.iter().enumerate() {
                    let sum = _mm512_add_ps(_mm512_add_ps(acc[0], acc[1]), _mm512_add_ps(acc[2], acc[3]));
                    job.put(i, j, _mm512_reduce_add_ps(sum));
                }
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    pub unsafe fn sums<W: Weight, const M: usize>(job: &Job) {
        for j in (0..job.n).step_by(16 * DEPTH) {
            let masks: [u16; DEPTH] = std::array::from_fn(|d| mask16((job.n - j).saturating_sub(16 * d)));
            let mut acc = [[_mm512_setzero_ps(); DEPTH]; M];
            unsafe {
                for q in 0..job.k {
                    let w = job.w.row::<W::Stored>(q).add(j);
                    for d in 0..DEPTH {
                        let w = W::load(w.wrapping_add(16 * d), masks[d]);
                        for (i, acc) in acc.iter_mut().enumerate() {
                            acc[d] = _mm512_fmadd_ps(_mm512_set1_ps(*job.x.add(i * job.k + q)), w, acc[d]);
                        }
                    }
                }
                for (i, acc) in acc.iter().enumerate() {
                    for d in 0..DEPTH {
                        let c = job.c.add(i * job.ldc + j).wrapping_add(16 * d);
                        let sum = if job.accumulate {
                            _mm512_add_ps(_mm512_maskz_loadu_ps(masks[d], c), acc[d])
                        } else {
                            acc[d]
                        };
                        _mm512_mask_storeu_ps(c, masks[d], sum);
                    }
                }
            }
        }
    }
}
