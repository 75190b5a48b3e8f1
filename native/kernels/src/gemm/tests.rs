use super::pack::{from_bf16, round_bf16};
use super::*;
use Compute::{Bf16, F32};

/// Small numbers that are exact in bf16 when `exact`, so that all orders of summation agree.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((self.0 >> 40) as f32 / (1 << 24) as f32) * 2.0 - 1.0
    }

    fn below(&mut self, bound: usize) -> usize {
        ((self.next() * 0.5 + 0.5) * bound as f32) as usize % bound
    }

    fn fill(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| self.next()).collect()
    }
}

fn to_bf16(x: f32) -> u16 {
    (round_bf16(x).to_bits() >> 16) as u16
}

/// A stored matrix with room to spare in each row, in both dtypes.
struct Stored {
    f32: Vec<f32>,
    bf16: Vec<u16>,
    stride: usize,
    dtype: Dtype,
    trans: bool,
    index: Option<Vec<i32>>,
}

impl Stored {
    /// For a logical `rows` × `cols` matrix.
    fn new(numbers: &mut Numbers, rows: usize, cols: usize, dtype: Dtype, trans: bool, gather: bool) -> Self {
        let (r, s) = if trans { (cols, rows) } else { (rows, cols) };
        let stored_rows = r + 3;
        let index = gather.then(|| (0..r).map(|_| numbers.below(stored_rows) as i32).collect());
        let stride = s + numbers.below(5);
        let f32 = numbers.fill(stored_rows * stride);
        let bf16 = f32.iter().map(|&x| to_bf16(x)).collect();
        Self { f32, bf16, stride, dtype, trans, index }
    }

    fn mat(&self) -> MatIn<'_> {
        let mat = match self.dtype {
            Dtype::F32 => MatIn::f32(self.f32.as_ptr(), self.stride),
            Dtype::Bf16 => MatIn::bf16(self.bf16.as_ptr(), self.stride),
        };
        let mat = mat.gather(self.index.as_deref());
        if self.trans { mat.t() } else { mat }
    }

    fn at(&self, i: usize, j: usize, compute: Compute) -> f32 {
        let (r, s) = if self.trans { (j, i) } else { (i, j) };
        let r = self.index.as_ref().map_or(r, |index| index[r] as usize);
        let x = match self.dtype {
            Dtype::F32 => self.f32[r * self.stride + s],
            Dtype::Bf16 => from_bf16(self.bf16[r * self.stride + s]),
        };
        if compute == Bf16 { round_bf16(x) } else { x }
    }
}

/// The largest share of the bound k · 2^-22 · Σ|a·b| (for f32 sums) that an error takes.
#[allow(clippy::too_many_arguments)]
fn check(isa: Isa, m: usize, n: usize, k: usize, a: &Stored, b: &Stored, accumulate: bool, compute: Compute) {
    let ldc = n + 3;
    let before: Vec<f32> = (0..m * ldc).map(|i| (i % 7) as f32).collect();
    let mut c = before.clone();
    unsafe { serial(isa, m, n, k, a.mat(), b.mat(), c.as_mut_ptr(), ldc, accumulate, compute) };
    for i in 0..m {
        for j in 0..ldc {
            let got = c[i * ldc + j];
            if j >= n {
                assert_eq!(got, before[i * ldc + j], "{isa:?} wrote beyond row {i}");
                continue;
            }
            let terms = (0..k).map(|p| a.at(i, p, compute) as f64 * b.at(p, j, compute) as f64);
            let (sum, size) = terms.fold((0.0, 0.0), |(sum, size), t| (sum + t, size + t.abs()));
            let want = sum + if accumulate { before[i * ldc + j] as f64 } else { 0.0 };
            let bound = (k as f64 + 2.0) * (size + 7.0) * f32::EPSILON as f64;
            assert!(
                (got as f64 - want).abs() <= bound,
                "{isa:?} {compute:?} {m}x{n}x{k} {:?}{} {:?}{} at ({i}, {j}): {got} instead of {want}",
                a.dtype,
                a.trans,
                b.dtype,
                b.trans
            );
        }
    }
}

#[test]
fn every_size_around_the_tile_edges_agrees_with_float64() {
    let mut numbers = Numbers(1);
    for isa in Isa::available() {
        for compute in [F32, Bf16] {
            for size in 1..=70 {
                // The other two sizes run through the same range in another order.
                for (m, n, k) in [(size, 71 - size, size * 29 % 70 + 1), (size * 37 % 70 + 1, size, 71 - size)] {
                    let dtype = |bit: usize| {
                        if (size >> bit) & 1 == 0 { Dtype::F32 } else { Dtype::Bf16 }
                    };
                    let (ta, tb) = (size % 3 == 0, size % 4 < 2);
                    let a = Stored::new(&mut numbers, m, k, dtype(0), ta, size % 5 == 0);
                    let b = Stored::new(&mut numbers, k, n, dtype(1), tb, size % 7 == 0);
                    check(isa, m, n, k, &a, &b, size % 2 == 0, compute);
                }
            }
        }
    }
}

#[test]
fn every_layout_and_dtype_agrees_with_float64() {
    let mut numbers = Numbers(2);
    for isa in Isa::available() {
        for case in 0..128 {
            let bit = |i: usize| (case >> i) & 1 == 1;
            let dtype = |set: bool| if set { Dtype::Bf16 } else { Dtype::F32 };
            // A thin, a ragged and a large one; the last crosses the blocks of k.
            for (m, n, k) in [(3, 100, 75), (50, 45, 77), (65, 66, 600)] {
                let a = Stored::new(&mut numbers, m, k, dtype(bit(0)), bit(1), bit(2));
                let b = Stored::new(&mut numbers, k, n, dtype(bit(3)), bit(4), false);
                check(isa, m, n, k, &a, &b, bit(5), if bit(6) { Bf16 } else { F32 });
            }
        }
    }
}

#[test]
fn nan_and_infinity_reach_exactly_the_values_that_depend_on_them() {
    for isa in Isa::available() {
        for compute in [F32, Bf16] {
            for m in [2, 40] {
                let (n, k) = (37, 45);
                let mut a = vec![1.0f32; m * k];
                let mut b = vec![0.0f32; k * n];
                a[k + 5] = f32::INFINITY;
                b[7 * n + 3] = f32::NAN;
                b[5 * n + 9] = 1.0;
                let mut c = vec![0.0f32; m * n];
                let (x, y) = (MatIn::f32(a.as_ptr(), k), MatIn::f32(b.as_ptr(), n));
                unsafe { serial(isa, m, n, k, x, y, c.as_mut_ptr(), n, false, compute) };
                for i in 0..m {
                    for j in 0..n {
                        let got = c[i * n + j];
                        let place = format!("{isa:?} {compute:?} m {m} at ({i}, {j}): {got}");
                        match (i, j) {
                            // infinity times zero
                            (1, 9) => assert_eq!(got, f32::INFINITY, "{place}"),
                            (1, _) | (_, 3) => assert!(got.is_nan(), "{place}"),
                            (_, 9) => assert_eq!(got, 1.0, "{place}"),
                            _ => assert_eq!(got, 0.0, "{place}"),
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn factors_are_rounded_to_bf16_with_ties_to_even() {
    let cases = [
        (0x3f80_8000u32, 0x3f80_0000u32),
        (0x3f81_8000, 0x3f82_0000),
        (0x3f80_8001, 0x3f81_0000),
        (0x7f7f_ffff, 0x7f80_0000),
        (0xbf80_ffff, 0xbf81_0000),
    ];
    for isa in Isa::available() {
        for (from, to) in cases {
            for m in [1, 20] {
                let (a, b) = (vec![f32::from_bits(from); m], [1.0f32; 20]);
                let mut c = vec![0.0f32; m * 20];
                let (x, y) = (MatIn::f32(a.as_ptr(), 1), MatIn::f32(b.as_ptr(), 20));
                unsafe { serial(isa, m, 20, 1, x, y, c.as_mut_ptr(), 20, false, Bf16) };
                assert!(c.iter().all(|v| v.to_bits() == to), "{isa:?}: {from:x} became {:x}", c[0].to_bits());
            }
        }
    }
}

#[test]
fn without_a_k_dimension_c_is_zero_or_stays() {
    for accumulate in [false, true] {
        let mut c = [3.0f32; 6];
        let nothing = MatIn::f32([].as_ptr(), 0);
        unsafe { serial(Isa::Portable, 2, 3, 0, nothing, nothing, c.as_mut_ptr(), 3, accumulate, F32) };
        assert_eq!(c, [if accumulate { 3.0 } else { 0.0 }; 6]);
    }
}

/// Runs on pools of one to three threads and wants the same bits.
fn same_bits(len: usize, run: impl Fn(Ctx, *mut f32)) -> Vec<f32> {
    let mut first: Option<Vec<f32>> = None;
    for threads in 1..=3 {
        let pool = Pool::new(threads);
        let mut c = vec![0.25f32; len];
        run(Ctx { isa: Isa::detect(), pool: &pool }, c.as_mut_ptr());
        let first = first.get_or_insert_with(|| c.clone());
        assert!(first.iter().zip(&c).all(|(a, b)| a.to_bits() == b.to_bits()), "{threads} threads");
    }
    first.expect("three runs")
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    let mut numbers = Numbers(3);
    for compute in [F32, Bf16] {
        for (m, n, k, batch) in [(300, 310, 320, 1), (3, 3000, 333, 1), (70, 60, 50, 9), (100, 200, 300, 3)] {
            let a = numbers.fill(batch * m * k);
            let b = numbers.fill(batch * k * n);
            let c = same_bits(batch * m * n, |ctx, c| {
                let (a, b) = (MatIn::f32(a.as_ptr(), k), MatIn::f32(b.as_ptr(), k).t());
                let first = Product { m, n, k, a, b, c, ldc: n, accumulate: true };
                let strides = (m * k, k * n, m * n);
                let p = Matmul { first, batch, stride_a: strides.0, stride_b: strides.1, stride_c: strides.2, compute };
                unsafe { matmul(ctx, &p) }
            });
            for item in 0..batch {
                let mut alone = vec![0.25f32; m * n];
                let (a, b) = (a[item * m * k..].as_ptr(), b[item * k * n..].as_ptr());
                let (a, b) = (MatIn::f32(a, k), MatIn::f32(b, k).t());
                unsafe { serial(Isa::detect(), m, n, k, a, b, alone.as_mut_ptr(), n, true, compute) };
                assert_eq!(alone, c[item * m * n..][..m * n]);
            }
        }
    }
}

/// Rows of experts: none, one, a few, many.
const OFFSETS: [i32; 7] = [0, 0, 1, 4, 104, 104, 150];

#[test]
fn grouped_products_are_products_of_each_expert() {
    let mut numbers = Numbers(4);
    let (experts, rows, tokens, out_dim, in_dim) = (6, 150, 40, 90, 70);
    let w = numbers.fill(experts * out_dim * in_dim);
    let index: Vec<i32> = (0..rows).map(|_| numbers.below(tokens) as i32).collect();
    for compute in [F32, Bf16] {
        for trans_w in [false, true] {
            let (n, k) = if trans_w { (in_dim, out_dim) } else { (out_dim, in_dim) };
            let x = numbers.fill(tokens * k);
            let x = MatIn::f32(x.as_ptr(), k).gather(Some(&index));
            let y = same_bits(rows * n, |ctx, y| {
                let w = MatIn::f32(w.as_ptr(), in_dim);
                let g =
                    GroupedMatmul { x, w, offsets: &OFFSETS, y, out_dim, in_dim, trans_w, accumulate: true, compute };
                unsafe { grouped_matmul(ctx, &g) }
            });
            for e in 0..experts {
                let (first, end) = (OFFSETS[e] as usize, OFFSETS[e + 1] as usize);
                let mut alone = vec![0.25f32; (end - first) * n];
                let w = MatIn::f32(w[e * out_dim * in_dim..].as_ptr(), in_dim);
                let (x, w) = (x.gather(Some(&index[first..])), if trans_w { w } else { w.t() });
                unsafe {
                    serial(Isa::detect(), end - first, n, k, x, w, alone.as_mut_ptr(), n, true, compute);
                }
                assert_eq!(alone, y[first * n..end * n]);
            }
        }
    }
}

#[test]
fn grouped_weight_gradients_are_products_of_each_expert() {
    let mut numbers = Numbers(5);
    let (experts, rows, tokens, out_dim, in_dim) = (6, 150, 40, 90, 70);
    let x = numbers.fill(tokens * in_dim);
    let dy = numbers.fill(rows * out_dim);
    let index: Vec<i32> = (0..rows).map(|_| numbers.below(tokens) as i32).collect();
    for compute in [F32, Bf16] {
        for accumulate in [false, true] {
            let x = MatIn::f32(x.as_ptr(), in_dim).gather(Some(&index));
            let dy = MatIn::f32(dy.as_ptr(), out_dim);
            let len = out_dim * in_dim;
            let dw = same_bits(experts * len, |ctx, dw| {
                let g = GroupedMatmulBackwardW { x, dy, offsets: &OFFSETS, dw, out_dim, in_dim, accumulate, compute };
                unsafe { grouped_matmul_backward_w(ctx, &g) }
            });
            for e in 0..experts {
                let (first, end) = (OFFSETS[e] as usize, OFFSETS[e + 1] as usize);
                let mut alone = vec![0.25f32; len];
                let (a, b) = (dy.skip(first, 0).t(), x.skip(first, 0));
                let (to, k) = (alone.as_mut_ptr(), end - first);
                unsafe { serial(Isa::detect(), out_dim, in_dim, k, a, b, to, in_dim, accumulate, compute) };
                assert_eq!(alone, dw[e * len..(e + 1) * len]);
                let untouched = if accumulate { 0.25 } else { 0.0 };
                assert!(k > 0 || alone.iter().all(|&v| v == untouched));
            }
        }
    }
}

/// Equal infinities and NaN in the same places; numbers within the error of f32 sums.
fn assert_alike(got: &[f32], want: &[f32], place: &str) {
    for (at, (got, want)) in got.iter().zip(want).enumerate() {
        let near = got == want || (got.is_nan() && want.is_nan()) || (got - want).abs() <= 1e-4 * want.abs().max(10.0);
        assert!(near, "{place} at {at}: {got} in place of {want}");
    }
}

#[test]
fn infinities_and_values_beyond_bf16_multiply_as_they_do_alone() {
    let mut numbers = Numbers(8);
    // Shared out in slabs, and packed by all threads.
    for (out_dim, in_dim) in [(20, 70), (20, 1100)] {
        let (experts, rows) = (2, 1400);
        let offsets = [0, 700, 1400];
        let mut w: Vec<f32> = numbers.fill(experts * out_dim * in_dim).iter().map(|v| v + 1.5).collect();
        let mut x: Vec<f32> = numbers.fill(rows * in_dim).iter().map(|v| v + 1.5).collect();
        let mut dy: Vec<f32> = numbers.fill(rows * out_dim).iter().map(|v| v + 1.5).collect();
        for (isa, special) in Isa::available().into_iter().flat_map(|isa| [(isa, f32::INFINITY), (isa, f32::MAX)]) {
            let place = format!("{} {out_dim} {in_dim} {special}", isa.name());
            x[3 * in_dim + 5] = special;
            w[out_dim * in_dim + 7] = special * 0.999;
            dy[900 * out_dim + 2] = special;
            let pool = Pool::new(2);
            let ctx = Ctx { isa, pool: &pool };
            let (mut y, mut dw) = (vec![0.0f32; rows * out_dim], vec![0.0f32; experts * out_dim * in_dim]);
            let mat = MatIn::f32;
            let forward = GroupedMatmul {
                x: mat(x.as_ptr(), in_dim),
                w: mat(w.as_ptr(), in_dim),
                offsets: &offsets,
                y: y.as_mut_ptr(),
                out_dim,
                in_dim,
                trans_w: false,
                accumulate: false,
                compute: F32,
            };
            let backward = GroupedMatmulBackwardW {
                x: mat(x.as_ptr(), in_dim),
                dy: mat(dy.as_ptr(), out_dim),
                offsets: &offsets,
                dw: dw.as_mut_ptr(),
                out_dim,
                in_dim,
                accumulate: false,
                compute: F32,
            };
            // SAFETY: the vectors have these sizes.
            unsafe {
                grouped_matmul(ctx, &forward);
                grouped_matmul_backward_w(ctx, &backward);
            }
            let expert = |r: usize| r / 700;
            let sum = |terms: &mut dyn Iterator<Item = f32>| terms.fold(0.0f64, |sum, v| sum + v as f64) as f32;
            let want: Vec<f32> = (0..rows * out_dim)
                .map(|at| {
                    let (r, o) = (at / out_dim, at % out_dim);
                    let row = &w[(expert(r) * out_dim + o) * in_dim..][..in_dim];
                    sum(&mut x[r * in_dim..][..in_dim].iter().zip(row).map(|(x, w)| x * w))
                })
                .collect();
            assert_alike(&y, &want, &format!("{place} y"));
            let want: Vec<f32> = (0..experts * out_dim * in_dim)
                .map(|at| {
                    let (e, o, i) = (at / (out_dim * in_dim), at / in_dim % out_dim, at % in_dim);
                    sum(&mut (700 * e..700 * (e + 1)).map(|r| dy[r * out_dim + o] * x[r * in_dim + i]))
                })
                .collect();
            assert_alike(&dw, &want, &format!("{place} dw"));
        }
    }
}

/// The root of the mean squared error of an f32 product against float64.
fn error_of(isa: Isa, k: usize, a: &[f32], b: &[f32]) -> f64 {
    let size = 32;
    let pool = Pool::new(1);
    let mut c = vec![0.0f32; size * size];
    let first = Product {
        m: size,
        n: size,
        k,
        a: MatIn::f32(a.as_ptr(), k),
        b: MatIn::f32(b.as_ptr(), k).t(),
        c: c.as_mut_ptr(),
        ldc: size,
        accumulate: false,
    };
    let all = Matmul { first, batch: 1, stride_a: 0, stride_b: 0, stride_c: 0, compute: F32 };
    // SAFETY: the matrices have these sizes.
    unsafe { matmul(Ctx { isa, pool: &pool }, &all) };
    let squared = |i: usize, j: usize| {
        let want: f64 = (0..k).map(|p| a[i * k + p] as f64 * b[j * k + p] as f64).sum();
        (c[i * size + j] as f64 - want).powi(2)
    };
    let sum: f64 = (0..size * size).map(|at| squared(at / size, at % size)).sum();
    (sum / (size * size) as f64).sqrt()
}

type Map = fn(f32) -> f32;

#[test]
fn split_factors_err_no_more_than_f32_multiply_adds() {
    if !Isa::Amx.is_available() {
        return;
    }
    let mut numbers = Numbers(7);
    for k in [16, 96, 192, 1000, 4096] {
        // Of one sign, of both, and over forty orders of two. There one product may be the sum: a multiply-add rounds it once,
        // by 2^-24; split factors do so too, and leave out up to 2^-23 of it.
        let kinds: [(Map, f64); 3] = [(f32::abs, 1.0), (|x| x, 1.0), (|x| x * (x * 20.0).exp2(), 3.0)];
        for (kind, (map, most)) in kinds.into_iter().enumerate() {
            let a: Vec<f32> = numbers.fill(32 * k).into_iter().map(map).collect();
            let b: Vec<f32> = numbers.fill(32 * k).into_iter().map(map).collect();
            let (split, plain) = (error_of(Isa::Amx, k, &a, &b), error_of(Isa::Avx512, k, &a, &b));
            assert!(split <= most * plain, "k {k}, kind {kind}: {split:e}, {:.2} times {plain:e}", split / plain);
        }
    }
}
