//! Products with a few rows on the left: each weight is used a few times, so memory is the limit. The weights are read
//! where they lie and multiplied in f32; bf16 rounding of f32 weights happens on the way.

use super::pack::{Lines, from_bf16, round_bf16};
use super::{Compute, Dtype, Kernel, Product, each};
use crate::scratch::Scratch;
use crate::{Isa, Pool};
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

pub const MOST_ROWS: usize = 4;
/// Weights that one chunk reads, about: enough to be worth a claim, few enough to share a small matrix.
const CHUNK: usize = 1 << 15;

/// Columns of C that one chunk computes. Where they lie side by side, runs of some hundred keep memory streaming.
pub fn column_step(p: &Product) -> usize {
    let least = if p.b.trans { 16 } else { 512 };
    (CHUNK / p.k).max(least).next_multiple_of(16)
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
    unsafe fn load8(from: *const Self::Stored) -> __m256;
    #[cfg(target_arch = "x86_64")]
    unsafe fn load16(from: *const Self::Stored) -> __m512;
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
        #[cfg(target_arch = "x86_64")]
        unsafe {
            match (isa, self.w.k_contiguous()) {
                (Isa::Portable, _) => {}
                (Isa::Avx2, true) => return avx2::dots::<W, M>(self),
                (Isa::Avx2, false) => return avx2::sums::<W, M>(self),
                (_, true) => return avx512::dots::<W, M>(self),
                (_, false) => return avx512::sums::<W, M>(self),
            }
        }
        let _ = isa;
        unsafe { if self.w.k_contiguous() { self.dots::<W, M>() } else { self.sums::<W, M>() } }
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
    unsafe fn dots<W: Weight, const M: usize>(&self) {
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
                            *sum += *x.add(l) * W::value(*w.add(q + l));
                        }
                    }
                }
                for (i, acc) in acc.iter_mut().enumerate() {
                    for q in whole..self.k {
                        let l = q - whole;
                        acc[l] += *self.x.add(i * self.k + q) * W::value(*w.add(q));
                    }
                    self.put(i, j, acc.iter().sum());
                }
            }
        }
    }

    /// Weights stored `[k, n]`: rows of weights are added up, some columns at a time.
    #[inline(always)]
    unsafe fn sums<W: Weight, const M: usize>(&self) {
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
                            *sum += x * value;
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

/// What a value of C gets from the last few k, from `from` on.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn rest<W: Weight>(x: *const f32, w: *const W::Stored, from: usize, k: usize) -> f32 {
    (from..k).map(|q| unsafe { *x.add(q) * W::value(*w.add(q)) }).sum()
}

impl Weight for F32 {
    type Stored = f32;
    #[inline(always)]
    fn value(stored: f32) -> f32 {
        stored
    }
    #[cfg(target_arch = "x86_64")]
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn load8(from: *const f32) -> __m256 {
        unsafe { _mm256_loadu_ps(from) }
    }
    #[cfg(target_arch = "x86_64")]
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn load16(from: *const f32) -> __m512 {
        unsafe { _mm512_loadu_ps(from) }
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
    #[target_feature(enable = "avx2")]
    unsafe fn load8(from: *const f32) -> __m256 {
        let x = unsafe { _mm256_loadu_ps(from) };
        let bits = _mm256_castps_si256(x);
        let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
        let sum = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
        let even = _mm256_castsi256_ps(_mm256_and_si256(sum, _mm256_set1_epi32(0xffff_0000u32 as i32)));
        // NaN stays as it is.
        _mm256_blendv_ps(even, x, _mm256_cmp_ps::<_CMP_UNORD_Q>(x, x))
    }
    #[cfg(target_arch = "x86_64")]
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn load16(from: *const f32) -> __m512 {
        unsafe { _mm512_castsi512_ps(super::pack::avx512::round(_mm512_loadu_epi32(from.cast()))) }
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
    #[target_feature(enable = "avx2")]
    unsafe fn load8(from: *const u16) -> __m256 {
        let half = unsafe { _mm_loadu_si128(from.cast()) };
        _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(half)))
    }
    #[cfg(target_arch = "x86_64")]
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn load16(from: *const u16) -> __m512 {
        let half = unsafe { _mm256_loadu_si256(from.cast()) };
        _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(half)))
    }
}

/// The two loops for a vector type.
#[cfg(target_arch = "x86_64")]
macro_rules! vectors {
    ($isa:ident, $features:literal, lanes $lanes:literal, rows $rows:literal,
        $load_w:ident, $zero:ident, $set1:ident, $load:ident, $store:ident, $fma:ident, $reduce:path) => {
        mod $isa {
            use super::{Job, Weight, rest};
            use crate::scratch::Scratch;
            use std::arch::x86_64::*;

            const LANES: usize = $lanes;
            /// Rows of weights that share each load of x.
            const ROWS: usize = $rows;
            /// Rows of weights that share each load of a sum.
            const DEEP: usize = 8;

            /// Weights stored `[n, k]`: a dot product for each value of C.
            #[target_feature(enable = $features)]
            pub unsafe fn dots<W: Weight, const M: usize>(job: &Job) {
                let whole = job.n / ROWS * ROWS;
                unsafe {
                    (0..whole).step_by(ROWS).for_each(|j| rows::<W, M, ROWS>(job, j));
                    (whole..job.n).for_each(|j| rows::<W, M, 1>(job, j));
                }
            }

            #[inline]
            #[target_feature(enable = $features)]
            unsafe fn rows<W: Weight, const M: usize, const R: usize>(job: &Job, j: usize) {
                let mut acc = [[$zero(); R]; M];
                let whole = job.k / LANES * LANES;
                unsafe {
                    let w: [*const W::Stored; R] = std::array::from_fn(|r| job.w.row(j + r));
                    for q in (0..whole).step_by(LANES) {
                        let mut values = [$zero(); R];
                        for r in 0..R {
                            values[r] = W::$load_w(w[r].add(q));
                        }
                        for i in 0..M {
                            let x = $load(job.x.add(i * job.k + q));
                            for r in 0..R {
                                acc[i][r] = $fma(x, values[r], acc[i][r]);
                            }
                        }
                    }
                    for i in 0..M {
                        for r in 0..R {
                            let last = rest::<W>(job.x.add(i * job.k), w[r], whole, job.k);
                            job.put(i, j + r, $reduce(acc[i][r]) + last);
                        }
                    }
                }
            }

            /// Weights stored `[k, n]`: rows of weights are added up.
            #[target_feature(enable = $features)]
            pub unsafe fn sums<W: Weight, const M: usize>(job: &Job) {
                let mut sums = Scratch::<f32>::take(M * job.n);
                sums.fill(0.0);
                let to = sums.as_mut_ptr();
                let whole = job.k / DEEP * DEEP;
                unsafe {
                    (0..whole).step_by(DEEP).for_each(|q| deep::<W, M, DEEP>(job, q, to));
                    (whole..job.k).for_each(|q| deep::<W, M, 1>(job, q, to));
                    for i in 0..M {
                        for j in 0..job.n {
                            job.put(i, j, *to.add(i * job.n + j));
                        }
                    }
                }
            }

            #[inline]
            #[target_feature(enable = $features)]
            unsafe fn deep<W: Weight, const M: usize, const Q: usize>(job: &Job, q: usize, sums: *mut f32) {
                let whole = job.n / LANES * LANES;
                unsafe {
                    let w: [*const W::Stored; Q] = std::array::from_fn(|d| job.w.row(q + d));
                    let x: [*const f32; M] = std::array::from_fn(|i| job.x.add(i * job.k + q));
                    for j in (0..whole).step_by(LANES) {
                        let mut acc = [$zero(); M];
                        for i in 0..M {
                            acc[i] = $load(sums.add(i * job.n + j));
                        }
                        for d in 0..Q {
                            let value = W::$load_w(w[d].add(j));
                            for i in 0..M {
                                acc[i] = $fma($set1(*x[i].add(d)), value, acc[i]);
                            }
                        }
                        for i in 0..M {
                            $store(sums.add(i * job.n + j), acc[i]);
                        }
                    }
                    for j in whole..job.n {
                        for i in 0..M {
                            for d in 0..Q {
                                *sums.add(i * job.n + j) += *x[i].add(d) * W::value(*w[d].add(j));
                            }
                        }
                    }
                }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
vectors!(avx2, "avx2,fma", lanes 8, rows 2,
    load8, _mm256_setzero_ps, _mm256_set1_ps, _mm256_loadu_ps, _mm256_storeu_ps, _mm256_fmadd_ps, super::total8);
#[cfg(target_arch = "x86_64")]
vectors!(avx512, "avx512f,avx512bw,avx512vl,avx512dq", lanes 16, rows 4,
    load16, _mm512_setzero_ps, _mm512_set1_ps, _mm512_loadu_ps, _mm512_storeu_ps, _mm512_fmadd_ps, _mm512_reduce_add_ps);

#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx2")]
fn total8(x: __m256) -> f32 {
    let four = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
}
