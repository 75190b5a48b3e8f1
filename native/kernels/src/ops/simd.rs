//! One body, several instruction sets: plain loops that the compiler vectorises, and the arithmetic they need.
//!
//! `per_isa!` compiles a body under each `#[target_feature]`. What the body calls must be `#[inline(always)]`, so that
//! it is compiled under the same features.

/// What a body may use of the instruction set it is compiled for.
pub(crate) trait Simd {
    /// Whether a fused multiply-add is one instruction.
    const FMA: bool;
    /// Sixteen numbers.
    type Lanes: Copy;

    fn splat(x: f32) -> Self::Lanes;
    fn load(x: &[f32; WIDTH]) -> Self::Lanes;
    fn store(x: Self::Lanes) -> [f32; WIDTH];
    fn add(a: Self::Lanes, b: Self::Lanes) -> Self::Lanes;
    fn mul(a: Self::Lanes, b: Self::Lanes) -> Self::Lanes;
    /// Signed bytes as numbers.
    fn from_bytes(x: Bytes) -> Self::Lanes;
    /// Numbers from the bits of f16.
    fn from_halves(x: &[u16; WIDTH]) -> Self::Lanes;
    /// `a · b + c` in each lane.
    fn fused(a: Self::Lanes, b: Self::Lanes, c: Self::Lanes) -> Self::Lanes;
    /// The larger in each lane, b where a is NaN.
    fn larger(a: Self::Lanes, b: Self::Lanes) -> Self::Lanes;
    /// The table's number at each index, all of them below 16.
    fn pick(table: &[f32; WIDTH], indices: Bytes) -> Self::Lanes;

    /// The sum of the lanes.
    #[inline(always)]
    fn total(x: Self::Lanes) -> f32 {
        fold(Self::store(x), |a, b| a + b)
    }

    /// `a · b + c`, rounded once where the hardware can.
    #[inline(always)]
    fn mul_add(a: f32, b: f32, c: f32) -> f32 {
        if Self::FMA { a.mul_add(b, c) } else { a * b + c }
    }
}

/// Numbers that a reduction takes at a time.
pub(crate) const WIDTH: usize = 16;

/// Sixteen bytes, the first one lowest.
pub(crate) type Bytes = [u64; 2];

/// The value of an f16. Branch-free.
#[inline(always)]
pub(crate) fn from_f16(half: u16) -> f32 {
    let magnitude = u32::from(half & 0x7fff);
    let normal = (magnitude << 13) + (112 << 23);
    // NaN becomes quiet, as in hardware.
    let quiet = u32::from(magnitude > 0x7c00) << 22;
    let special = ((magnitude << 13) + (224 << 23)) | quiet;
    let small = (magnitude as f32 * f32::from_bits((127 - 24) << 23)).to_bits();
    let bits = if magnitude < 0x400 { small } else { normal };
    let bits = if magnitude >= 0x7c00 { special } else { bits };
    f32::from_bits(bits | (u32::from(half & 0x8000) << 16))
}

#[inline(always)]
fn byte(x: Bytes, i: usize) -> u8 {
    (x[i / 8] >> (8 * (i % 8))) as u8
}

/// Joins the upper half to the lower until one is left.
#[inline(always)]
fn fold(mut x: [f32; WIDTH], join: impl Fn(f32, f32) -> f32) -> f32 {
    let mut width = WIDTH / 2;
    while width > 0 {
        for i in 0..width {
            x[i] = join(x[i], x[i + width]);
        }
        width /= 2;
    }
    x[0]
}

#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

/// The compiler's baseline.
pub(crate) struct Baseline;

impl Simd for Baseline {
    const FMA: bool = false;
    type Lanes = [f32; WIDTH];

    #[inline(always)]
    fn splat(x: f32) -> Self::Lanes {
        [x; WIDTH]
    }

    #[inline(always)]
    fn load(x: &[f32; WIDTH]) -> Self::Lanes {
        *x
    }

    #[inline(always)]
    fn store(x: Self::Lanes) -> [f32; WIDTH] {
        x
    }

    #[inline(always)]
    fn add(mut a: Self::Lanes, b: Self::Lanes) -> Self::Lanes {
        for i in 0..WIDTH {
            a[i] += b[i];
        }
        a
    }

    #[inline(always)]
    fn mul(mut a: Self::Lanes, b: Self::Lanes) -> Self::Lanes {
        for i in 0..WIDTH {
            a[i] *= b[i];
        }
        a
    }

    #[inline(always)]
    fn from_bytes(x: Bytes) -> Self::Lanes {
        std::array::from_fn(|i| f32::from(byte(x, i) as i8))
    }

    #[inline(always)]
    fn from_halves(x: &[u16; WIDTH]) -> Self::Lanes {
        x.map(from_f16)
    }

    #[inline(always)]
    fn fused(a: Self::Lanes, b: Self::Lanes, mut c: Self::Lanes) -> Self::Lanes {
        for i in 0..WIDTH {
            c[i] += a[i] * b[i];
        }
        c
    }

    #[inline(always)]
    fn larger(mut a: Self::Lanes, b: Self::Lanes) -> Self::Lanes {
        for i in 0..WIDTH {
            a[i] = larger(a[i], b[i]);
        }
        a
    }

    #[inline(always)]
    fn pick(table: &[f32; WIDTH], indices: Bytes) -> Self::Lanes {
        std::array::from_fn(|i| table[usize::from(byte(indices, i) & 15)])
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Fused, Wide};

/// Every function here is inlined into one that is compiled for its instruction set: that is what makes the calls sound.
#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{Bytes, Simd, WIDTH, from_f16};

    /// AVX-512 F, BW, DQ, VL.
    pub struct Wide;

    impl Simd for Wide {
        const FMA: bool = true;
        type Lanes = __m512;

        #[inline(always)]
        fn splat(x: f32) -> __m512 {
            unsafe { _mm512_set1_ps(x) }
        }

        #[inline(always)]
        fn load(x: &[f32; WIDTH]) -> __m512 {
            unsafe { _mm512_loadu_ps(x.as_ptr()) }
        }

        #[inline(always)]
        fn store(x: __m512) -> [f32; WIDTH] {
            let mut out = [0.0; WIDTH];
            unsafe { _mm512_storeu_ps(out.as_mut_ptr(), x) };
            out
        }

        #[inline(always)]
        fn add(a: __m512, b: __m512) -> __m512 {
            unsafe { _mm512_add_ps(a, b) }
        }

        #[inline(always)]
        fn mul(a: __m512, b: __m512) -> __m512 {
            unsafe { _mm512_mul_ps(a, b) }
        }

        #[inline(always)]
        fn from_bytes(x: Bytes) -> __m512 {
            unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(x.as_ptr().cast()))) }
        }

        #[inline(always)]
        fn from_halves(x: &[u16; WIDTH]) -> __m512 {
            unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(x.as_ptr().cast())) }
        }

        #[inline(always)]
        fn fused(a: __m512, b: __m512, c: __m512) -> __m512 {
            unsafe { _mm512_fmadd_ps(a, b, c) }
        }

        #[inline(always)]
        fn larger(a: __m512, b: __m512) -> __m512 {
            unsafe { _mm512_max_ps(a, b) }
        }

        #[inline(always)]
        fn pick(table: &[f32; WIDTH], indices: Bytes) -> __m512 {
            unsafe {
                let indices = _mm512_cvtepu8_epi32(_mm_loadu_si128(indices.as_ptr().cast()));
                _mm512_permutexvar_ps(indices, _mm512_loadu_ps(table.as_ptr()))
            }
        }

        #[inline(always)]
        fn total(x: __m512) -> f32 {
            unsafe {
                let x = _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps::<1>(x));
                let x = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
                let x = _mm_add_ps(x, _mm_movehl_ps(x, x));
                _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)))
            }
        }
    }

    /// AVX2 and FMA.
    pub struct Fused;

    impl Simd for Fused {
        const FMA: bool = true;
        type Lanes = [__m256; 2];

        #[inline(always)]
        fn splat(x: f32) -> Self::Lanes {
            unsafe { [_mm256_set1_ps(x); 2] }
        }

        #[inline(always)]
        fn load(x: &[f32; WIDTH]) -> Self::Lanes {
            unsafe { [_mm256_loadu_ps(x.as_ptr()), _mm256_loadu_ps(x[8..].as_ptr())] }
        }

        #[inline(always)]
        fn store(x: Self::Lanes) -> [f32; WIDTH] {
            let mut out = [0.0; WIDTH];
            unsafe {
                _mm256_storeu_ps(out.as_mut_ptr(), x[0]);
                _mm256_storeu_ps(out[8..].as_mut_ptr(), x[1]);
            }
            out
        }

        #[inline(always)]
        fn add(a: Self::Lanes, b: Self::Lanes) -> Self::Lanes {
            unsafe { [_mm256_add_ps(a[0], b[0]), _mm256_add_ps(a[1], b[1])] }
        }

        #[inline(always)]
        fn mul(a: Self::Lanes, b: Self::Lanes) -> Self::Lanes {
            unsafe { [_mm256_mul_ps(a[0], b[0]), _mm256_mul_ps(a[1], b[1])] }
        }

        #[inline(always)]
        fn from_bytes(x: Bytes) -> Self::Lanes {
            x.map(|eight| unsafe { _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_cvtsi64_si128(eight as i64))) })
        }

        /// F16C is an instruction set of its own, which need not be there.
        #[inline(always)]
        fn from_halves(x: &[u16; WIDTH]) -> Self::Lanes {
            Self::load(&x.map(from_f16))
        }

        #[inline(always)]
        fn fused(a: Self::Lanes, b: Self::Lanes, c: Self::Lanes) -> Self::Lanes {
            unsafe { [_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])] }
        }

        #[inline(always)]
        fn larger(a: Self::Lanes, b: Self::Lanes) -> Self::Lanes {
            unsafe { [_mm256_max_ps(a[0], b[0]), _mm256_max_ps(a[1], b[1])] }
        }

        #[inline(always)]
        fn pick(table: &[f32; WIDTH], indices: Bytes) -> Self::Lanes {
            let [low, high] = Self::load(table);
            indices.map(|eight| unsafe {
                let eight = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(eight as i64));
                let (a, b) = (_mm256_permutevar8x32_ps(low, eight), _mm256_permutevar8x32_ps(high, eight));
                // Bit 3 of the index moves to the sign, which chooses.
                _mm256_blendv_ps(a, b, _mm256_castsi256_ps(_mm256_slli_epi32::<28>(eight)))
            })
        }
    }
}

/// Defines `name(isa, args…)`. In the body, `S` is the instruction set it is compiled for.
macro_rules! per_isa {
    ($(#[$doc:meta])* $vis:vis fn $name:ident($($arg:ident: $type:ty),* $(,)?) $(-> $out:ty)? $body:block) => {
        $(#[$doc])*
        $vis fn $name(isa: $crate::Isa, $($arg: $type),*) $(-> $out)? {
            #[inline(always)]
            fn body<S: $crate::ops::simd::Simd>($($arg: $type),*) $(-> $out)? $body

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,bmi1,bmi2,lzcnt,popcnt,avx512f,avx512bw,avx512dq,avx512vl")]
            fn wide($($arg: $type),*) $(-> $out)? {
                body::<$crate::ops::simd::Wide>($($arg),*)
            }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,bmi1,bmi2,lzcnt,popcnt")]
            fn fused($($arg: $type),*) $(-> $out)? {
                body::<$crate::ops::simd::Fused>($($arg),*)
            }

            #[cfg(target_arch = "x86_64")]
            if isa >= $crate::Isa::Avx512 {
                // SAFETY: an `Isa` is only handed out on a machine that has it.
                return unsafe { wide($($arg),*) };
            } else if isa == $crate::Isa::Avx2 {
                // SAFETY: as above.
                return unsafe { fused($($arg),*) };
            }
            let _ = isa;
            body::<$crate::ops::simd::Baseline>($($arg),*)
        }
    };
}
pub(crate) use per_isa;

/// Independent accumulators of a reduction, which hide the latency of an addition.
const ACCUMULATORS: usize = 4;

/// Joins `step(x, y, accumulator)` over all elements in a fixed order. `blank` is what stands beyond the end of x and y.
#[inline(always)]
fn reduce<S: Simd>(
    x: &[f32],
    y: &[f32],
    zero: f32,
    blank: f32,
    step: impl Fn(S::Lanes, S::Lanes, S::Lanes) -> S::Lanes,
    join: impl Fn(f32, f32) -> f32,
) -> f32 {
    let mut sums = [S::splat(zero); ACCUMULATORS];
    let (xs, x_rest) = x.as_chunks::<WIDTH>();
    let (ys, y_rest) = y.as_chunks::<WIDTH>();
    let (x_blocks, x_last) = xs.as_chunks::<ACCUMULATORS>();
    let (y_blocks, y_last) = ys.as_chunks::<ACCUMULATORS>();
    for (x, y) in x_blocks.iter().zip(y_blocks) {
        for i in 0..ACCUMULATORS {
            sums[i] = step(S::load(&x[i]), S::load(&y[i]), sums[i]);
        }
    }
    for (x, y) in x_last.iter().zip(y_last) {
        sums[0] = step(S::load(x), S::load(y), sums[0]);
    }
    if !x_rest.is_empty() {
        let (mut x_tail, mut y_tail) = ([blank; WIDTH], [blank; WIDTH]);
        x_tail[..x_rest.len()].copy_from_slice(x_rest);
        y_tail[..y_rest.len()].copy_from_slice(y_rest);
        sums[1] = step(S::load(&x_tail), S::load(&y_tail), sums[1]);
    }
    let parts = sums.map(S::store);
    let mut total = [zero; WIDTH];
    for i in 0..WIDTH {
        total[i] = join(join(parts[0][i], parts[1][i]), join(parts[2][i], parts[3][i]));
    }
    fold(total, join)
}

/// `Σ x[i] · y[i]`.
#[inline(always)]
pub(crate) fn dot<S: Simd>(x: &[f32], y: &[f32]) -> f32 {
    assert_eq!(x.len(), y.len());
    reduce::<S>(x, y, 0.0, 0.0, S::fused, |a, b| a + b)
}

/// `Σ x[i]`.
#[inline(always)]
pub(super) fn sum<S: Simd>(x: &[f32]) -> f32 {
    reduce::<S>(x, x, 0.0, 0.0, |x, _, sum| S::add(x, sum), |a, b| a + b)
}

/// The largest value, passing over NaN; −∞ when there is none.
#[inline(always)]
pub(super) fn max<S: Simd>(x: &[f32]) -> f32 {
    reduce::<S>(x, x, f32::NEG_INFINITY, f32::NEG_INFINITY, |x, _, top| S::larger(x, top), larger)
}

/// `y[i] += a · x[i]`.
#[inline(always)]
pub(crate) fn add_scaled<S: Simd>(y: &mut [f32], a: f32, x: &[f32]) {
    for (y, &x) in y.iter_mut().zip(x) {
        *y = S::mul_add(a, x, *y);
    }
}

/// eˣ to 2 ulp: 0 below −104, ∞ above 88.73, NaN for NaN. Branch-free.
#[inline(always)]
pub(super) fn exp<S: Simd>(x: f32) -> f32 {
    let x = if x < -104.0 { -104.0 } else { x };
    let x = if x > 89.0 { 89.0 } else { x };
    let (mantissa, exponent) = exp_parts::<S>(x);
    // 2ⁿ in two factors, so that denormal results and the step to infinity are right.
    let half = exponent >> 1;
    mantissa * power_of_two(half) * power_of_two(exponent - half)
}

/// eˣ to 2 ulp for x ≤ 0, where results below 2⁻¹²⁶ become 0. NaN for NaN. Branch-free.
#[inline(always)]
pub(super) fn exp_of_negative<S: Simd>(x: f32) -> f32 {
    const LOWEST: f32 = -87.0;
    let (mantissa, exponent) = exp_parts::<S>(if x < LOWEST { LOWEST } else { x });
    let value = mantissa * power_of_two(exponent);
    if x < LOWEST { 0.0 } else { value }
}

/// eˣ = m · 2ⁿ with m in [0.7, 1.42]. Source: Cephes `expf`.
#[inline(always)]
fn exp_parts<S: Simd>(x: f32) -> (f32, i32) {
    /// 1.5 · 2²³: adding it rounds to an integer that then stands in the low bits.
    const ROUND: f32 = 12_582_912.0;
    const LN2_HIGH: f32 = 355.0 / 512.0;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let shifted = S::mul_add(x, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = S::mul_add(n, -LN2_LOW, S::mul_add(n, -LN2_HIGH, x));
    let mut p = 1.987_569_1e-4;
    p = S::mul_add(p, r, 1.398_2e-3);
    p = S::mul_add(p, r, 8.333_452e-3);
    p = S::mul_add(p, r, 4.166_579_6e-2);
    p = S::mul_add(p, r, 1.666_666_5e-1);
    p = S::mul_add(p, r, 0.5);
    let mantissa = S::mul_add(p, r * r, r) + 1.0;
    (mantissa, (shifted.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32))
}

/// 2ⁿ for n in [−126, 127]. The shift drops what a NaN left above the eight bits.
#[inline(always)]
fn power_of_two(n: i32) -> f32 {
    f32::from_bits((n.wrapping_add(127) as u32) << 23)
}

/// 1 / (1 + e⁻ˣ).
#[inline(always)]
pub(super) fn sigmoid<S: Simd>(x: f32) -> f32 {
    1.0 / (1.0 + exp::<S>(-x))
}

/// Rounded to bf16, ties to even; NaN stays NaN.
#[inline(always)]
pub(crate) fn to_bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
    let quiet = (bits >> 16) | 0x40;
    (if x.is_nan() { quiet } else { rounded }) as u16
}

#[inline(always)]
pub(crate) fn from_bf16(x: u16) -> f32 {
    f32::from_bits(u32::from(x) << 16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{LENGTHS, Rng, assert_close, on_every_isa, wide};

    per_isa! {
        fn exp_all(x: &[f32], y: &mut [f32]) {
            for (y, &x) in y.iter_mut().zip(x) {
                *y = exp::<S>(x);
            }
        }
    }

    per_isa! {
        fn exp_of_negative_all(x: &[f32], y: &mut [f32]) {
            for (y, &x) in y.iter_mut().zip(x) {
                *y = exp_of_negative::<S>(x);
            }
        }
    }

    per_isa! {
        fn reductions(x: &[f32]) -> [f32; 3] {
            [dot::<S>(x, x), sum::<S>(x), max::<S>(x)]
        }
    }

    /// Distance in units of the last place of the right answer.
    fn ulp_error(got: f32, x: f32) -> f64 {
        let want = f64::from(x).exp();
        let unit = f64::from((want as f32).next_up()) - f64::from(want as f32);
        (f64::from(got) - want).abs() / unit
    }

    #[test]
    fn exp_is_right_to_two_units_in_the_last_place() {
        let x: Vec<f32> = (0..400_000).map(|i| -103.9 + i as f32 * (192.6 / 400_000.0)).collect();
        on_every_isa(
            |ctx| {
                let mut y = vec![0.0; x.len()];
                exp_all(ctx.isa, &x, &mut y);
                y
            },
            |y| {
                let worst = x.iter().zip(y).map(|(&x, &y)| ulp_error(y, x)).fold(0.0, f64::max);
                assert!(worst <= 2.0, "worst error {worst} ulp");
            },
        );
    }

    #[test]
    fn exp_of_negative_is_right_to_two_units_and_flushes_denormals() {
        let x: Vec<f32> = (0..100_000).map(|i| -86.9 + i as f32 * (86.9 / 100_000.0)).chain([0.0, -0.0]).collect();
        on_every_isa(
            |ctx| {
                let mut y = vec![0.0; x.len()];
                exp_of_negative_all(ctx.isa, &x, &mut y);
                y
            },
            |y| assert!(x.iter().zip(y).all(|(&x, &y)| ulp_error(y, x) <= 2.0)),
        );
        let x = [-87.5, -1e30, f32::NEG_INFINITY, f32::NAN];
        on_every_isa(
            |ctx| {
                let mut y = vec![1.0; 4];
                exp_of_negative_all(ctx.isa, &x, &mut y);
                y
            },
            |y| assert!(y[..3] == [0.0; 3] && y[3].is_nan(), "{y:?}"),
        );
    }

    #[test]
    fn exp_keeps_infinities_and_nan() {
        let x = [f32::INFINITY, 89.0, f32::NEG_INFINITY, -200.0, f32::NAN, 0.0];
        on_every_isa(
            |ctx| {
                let mut y = vec![0.0; x.len()];
                exp_all(ctx.isa, &x, &mut y);
                y
            },
            |y| {
                assert_eq!(y[..4], [f32::INFINITY, f32::INFINITY, 0.0, 0.0]);
                assert!(y[4].is_nan() && y[5] == 1.0);
            },
        );
    }

    #[test]
    fn reductions_match_a_plain_loop_at_every_length() {
        let mut rng = Rng(1);
        for n in LENGTHS {
            let x = rng.values(n, 1.0);
            let wide = wide(&x);
            let top = wide.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let want = [wide.iter().map(|v| v * v).sum(), wide.iter().sum(), top];
            on_every_isa(|ctx| reductions(ctx.isa, &x).to_vec(), |got| assert_close("reduction", got, &want, 1e-6));
        }
    }

    #[test]
    fn the_largest_passes_over_nan() {
        for at in [0, 5, 63, 70, 129] {
            let mut x = vec![f32::NAN; 130];
            x[at] = -2.0;
            on_every_isa(|ctx| reductions(ctx.isa, &x).to_vec(), |got| assert_eq!(got[2], -2.0));
        }
    }

    #[test]
    fn bf16_rounds_to_even_and_keeps_nan() {
        let cases =
            [(1.0, 0x3f80), (1.003_906_3, 0x3f80), (1.011_718_8, 0x3f82), (f32::INFINITY, 0x7f80), (-0.0, 0x8000)];
        for (x, want) in cases {
            assert_eq!(to_bf16(x), want, "{x}");
        }
        assert!(from_bf16(to_bf16(f32::from_bits(0x7f80_0001))).is_nan());
        assert_eq!(to_bf16(f32::MAX), 0x7f80);
    }
}
