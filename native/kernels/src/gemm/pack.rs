//! Packing: copies a factor into panels that a microkernel reads in order, converting on the way.
//!
//! Both factors are seen as *lines* (rows of A, columns of B) of `k` values. A panel holds `width` lines, padded with
//! zeros. Its values are 4-byte *units*: one f32, or a pair of bf16 with neighbouring k (the lower k in the lower half).
//! Layout `Rows` is unit-major, `[units][width]`. Layout `Tiles` (AMX, left factor) is `[units / 16][width][16]`.

use super::{Dtype, MatIn};
use crate::Isa;

/// What a unit holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    F32,
    /// One f32 that was rounded to bf16.
    Rounded,
    /// Two bf16.
    Pair,
    /// Two bf16, which are one of the three parts of two f32; a value is the sum of its parts. Of 32 values come first the
    /// 16 units of their roundings to bf16, then those of what is left, then those of the rest. Panels are 16 lines wide.
    Split,
}

/// How the units of a panel lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    Rows,
    Tiles,
}

/// A factor as lines of k values.
#[derive(Clone, Copy)]
pub struct Lines<'a> {
    ptr: *const u8,
    dtype: Dtype,
    stride: usize,
    index: Option<&'a [i32]>,
    /// A stored row is a line; else it holds one k of all lines.
    k_contiguous: bool,
}

impl<'a> Lines<'a> {
    /// Rows of the left factor.
    pub fn of_a(a: &MatIn<'a>) -> Self {
        Self { ptr: a.ptr, dtype: a.dtype, stride: a.stride, index: a.index, k_contiguous: !a.trans }
    }

    /// Columns of the right factor.
    pub fn of_b(b: &MatIn<'a>) -> Self {
        Self { k_contiguous: b.trans, ..Self::of_a(b) }
    }

    /// A stored row is a line.
    pub fn k_contiguous(&self) -> bool {
        self.k_contiguous
    }

    /// First element of stored row `r`.
    #[inline(always)]
    pub unsafe fn row<T>(&self, r: usize) -> *const T {
        let r = match self.index {
            Some(index) => index[r] as usize,
            None => r,
        };
        unsafe { self.ptr.cast::<T>().add(r * self.stride) }
    }

    /// Value `p` of a line.
    #[inline(always)]
    pub unsafe fn at(&self, line: usize, p: usize) -> f32 {
        let (r, s) = if self.k_contiguous { (line, p) } else { (p, line) };
        unsafe {
            match self.dtype {
                Dtype::F32 => *self.row::<f32>(r).add(s),
                Dtype::Bf16 => from_bf16(*self.row::<u16>(r).add(s)),
            }
        }
    }
}

#[inline(always)]
pub fn from_bf16(bits: u16) -> f32 {
    f32::from_bits((bits as u32) << 16)
}

/// Rounds to bf16, ties to even; NaN stays NaN. The 16 bits stand in the upper half.
#[inline(always)]
fn rounded_bits(x: f32) -> u32 {
    let bits = x.to_bits();
    let even = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) & 0xffff_0000;
    if x.is_nan() { (bits & 0x8000_0000) | 0x7fc0_0000 } else { even }
}

#[inline(always)]
pub fn round_bf16(x: f32) -> f32 {
    f32::from_bits(rounded_bits(x))
}

/// Packs neighbouring panels.
///
/// # Safety
/// `to` has room for whole panels; lines `first..first + lines` of `k` values exist; `isa` is available.
pub unsafe fn panels(isa: Isa, p: &Panels) {
    #[cfg(target_arch = "x86_64")]
    if isa >= Isa::Avx512 {
        return unsafe { avx512::panels(p) };
    }
    let _ = isa;
    for panel in 0..p.lines.div_ceil(p.width) {
        unsafe { panel_plain(&p.only(panel)) };
    }
}

/// One panel in plain code, for every layout.
unsafe fn panel_plain(p: &Panels) {
    unsafe {
        if p.unit == Unit::F32 && p.layout == Layout::Rows && p.src.dtype == Dtype::F32 {
            return panel_plain_f32(p);
        }
        for line in 0..p.width {
            for u in 0..p.units {
                let value = |q: usize| {
                    if line < p.lines && q < p.k { p.src.at(p.first + line, q) } else { 0.0 }
                };
                let word = match p.unit {
                    Unit::F32 => value(u).to_bits(),
                    Unit::Rounded => rounded_bits(value(u)),
                    Unit::Pair => rounded_bits(value(2 * u)) >> 16 | rounded_bits(value(2 * u + 1)),
                    Unit::Split => unreachable!("split units are packed with AVX-512"),
                };
                let at = match p.layout {
                    Layout::Rows => u * p.width + line,
                    Layout::Tiles => (u / 16) * p.width * 16 + line * 16 + u % 16,
                };
                *p.to.add(at) = word;
            }
        }
    }
}

/// The commonest plain case, without branches in the inner loop.
unsafe fn panel_plain_f32(p: &Panels) {
    unsafe {
        if p.src.k_contiguous {
            for line in 0..p.width {
                if line < p.lines {
                    let row = p.src.row::<u32>(p.first + line);
                    (0..p.k).for_each(|q| *p.to.add(q * p.width + line) = *row.add(q));
                } else {
                    (0..p.k).for_each(|q| *p.to.add(q * p.width + line) = 0);
                }
            }
        } else {
            for q in 0..p.k {
                let (to, from) = (p.to.add(q * p.width), p.src.row::<u32>(q).add(p.first));
                std::ptr::copy_nonoverlapping(from, to, p.lines);
                std::ptr::write_bytes(to.add(p.lines), 0, p.width - p.lines);
            }
        }
    }
}

/// Panels to be packed, one behind the other.
pub struct Panels<'a> {
    pub src: Lines<'a>,
    pub unit: Unit,
    pub layout: Layout,
    pub width: usize,
    /// First line and how many there are; the last panel may be short of lines.
    pub first: usize,
    pub lines: usize,
    pub k: usize,
    /// Units of a line; what goes beyond `k` is zero.
    pub units: usize,
    pub to: *mut u32,
}

impl Panels<'_> {
    /// Whether no first part of split values is an infinity, from an infinite value or one that bf16 cannot hold.
    #[cfg(target_arch = "x86_64")]
    pub unsafe fn parts_are_finite(&self) -> bool {
        let size = self.width * 16;
        let steps = self.lines.div_ceil(self.width) * self.units / 48;
        (0..steps).all(|step| unsafe { !avx512::has_infinity(self.to.add(3 * size * step), size) })
    }

    #[cfg(not(target_arch = "x86_64"))]
    pub unsafe fn parts_are_finite(&self) -> bool {
        true
    }

    /// One of them.
    #[inline(always)]
    fn only(&self, panel: usize) -> Self {
        let skip = panel * self.width;
        let to = self.to.wrapping_add(skip * self.units);
        Self { first: self.first + skip, lines: self.width.min(self.lines - skip), to, ..*self }
    }
}

/// Packing with AVX-512: 16 lines by 16 units at a time, in registers.
#[cfg(target_arch = "x86_64")]
pub mod avx512 {
    use super::{Layout, Lines, Panels, Unit};
    use crate::gemm::Dtype;
    use std::arch::x86_64::*;

    /// # Safety
    /// As for [`super::panels`]; AVX-512 is available, and its BF16 part for pairs.
    pub unsafe fn panels(p: &Panels) {
        unsafe {
            match (p.unit, p.src.dtype) {
                (Unit::F32, Dtype::F32) => f32_units::panels::<false>(p),
                (Unit::F32 | Unit::Rounded, Dtype::Bf16) => f32_units::panels::<true>(p),
                (Unit::Rounded, Dtype::F32) => rounded_units::panels::<false>(p),
                (Unit::Pair, Dtype::F32) => pair_units::panels::<false>(p),
                (Unit::Pair, Dtype::Bf16) => pair_units::panels::<true>(p),
                (Unit::Split, Dtype::F32) => split_units::panels::<false>(p),
                (Unit::Split, Dtype::Bf16) => split_units::panels::<true>(p),
            }
        }
    }

    #[inline]
    pub fn mask16(count: usize) -> __mmask16 {
        if count >= 16 { 0xffff } else { (1u16 << count) - 1 }
    }

    #[inline]
    fn mask32(count: usize) -> __mmask32 {
        if count >= 32 { !0 } else { (1u32 << count) - 1 }
    }

    /// 16 values from memory as f32, zeros where the mask is clear.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn load_f32<const BF16: bool>(ptr: *const u8, at: usize, mask: __mmask16) -> __m512i {
        unsafe {
            if BF16 {
                let half = _mm256_maskz_loadu_epi16(mask, ptr.cast::<i16>().add(at));
                _mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(half))
            } else {
                _mm512_maskz_loadu_epi32(mask, ptr.cast::<i32>().add(at))
            }
        }
    }

    /// Ties to even as integers; NaN becomes the quiet one of its sign.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    pub fn round(x: __m512i) -> __m512i {
        let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(x), _mm512_set1_epi32(1));
        let sum = _mm512_add_epi32(_mm512_add_epi32(x, _mm512_set1_epi32(0x7fff)), odd);
        let even = _mm512_and_si512(sum, _mm512_set1_epi32(0xffff_0000u32 as i32));
        let values = _mm512_castsi512_ps(x);
        let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(values, values);
        let sign = _mm512_and_si512(x, _mm512_set1_epi32(i32::MIN));
        _mm512_mask_or_epi32(even, nan, sign, _mm512_set1_epi32(0x7fc0_0000))
    }

    /// Whether one of the bf16 in so many words, a multiple of 16, is an infinity.
    #[target_feature(enable = "avx512f,avx512bw")]
    pub unsafe fn has_infinity(words: *const u32, count: usize) -> bool {
        let (magnitude, infinity) = (_mm512_set1_epi16(0x7fff), _mm512_set1_epi16(0x7f80));
        let mut found = 0;
        for at in (0..count).step_by(16) {
            let pairs = unsafe { _mm512_loadu_si512(words.add(at).cast()) };
            found |= _mm512_cmpeq_epi16_mask(_mm512_and_si512(pairs, magnitude), infinity);
        }
        found != 0
    }

    /// In-register transpose of 16 × 16 words.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn transpose(v: &mut [__m512i; 16]) {
        let mut t = [_mm512_setzero_si512(); 16];
        for i in 0..8 {
            t[2 * i] = _mm512_unpacklo_epi32(v[2 * i], v[2 * i + 1]);
            t[2 * i + 1] = _mm512_unpackhi_epi32(v[2 * i], v[2 * i + 1]);
        }
        for i in 0..4 {
            v[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
            v[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
            v[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
            v[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
        }
        for i in 0..4 {
            t[i] = _mm512_shuffle_i32x4::<0x88>(v[i], v[i + 4]);
            t[i + 4] = _mm512_shuffle_i32x4::<0xdd>(v[i], v[i + 4]);
            t[i + 8] = _mm512_shuffle_i32x4::<0x88>(v[i + 8], v[i + 12]);
            t[i + 12] = _mm512_shuffle_i32x4::<0xdd>(v[i + 8], v[i + 12]);
        }
        for i in 0..8 {
            v[i] = _mm512_shuffle_i32x4::<0x88>(t[i], t[i + 8]);
            v[i + 8] = _mm512_shuffle_i32x4::<0xdd>(t[i], t[i + 8]);
        }
    }

    /// The loop over blocks, for one kind of unit. `along_k` loads 16 units of a line, `along_lines` one unit of 16 lines.
    macro_rules! packer {
        ($name:ident, $features:literal) => {
            #[target_feature(enable = $features)]
            pub unsafe fn panels<const BF16: bool>(p: &Panels) {
                let count = p.lines.div_ceil(p.width);
                let steps = p.units.div_ceil(16);
                // In the order in which the source lies.
                for i in 0..count * steps {
                    let (panel, step) =
                        if p.src.k_contiguous { (i / steps, i % steps) } else { (i % count, i / count) };
                    unsafe { block::<BF16>(&p.only(panel), 16 * step) };
                }
            }

            /// 16 units of all lines of a panel.
            #[inline]
            #[target_feature(enable = $features)]
            unsafe fn block<const BF16: bool>(p: &Panels, u: usize) {
                for group in (0..p.width).step_by(16) {
                    let lines = p.lines.saturating_sub(group).min(16);
                    let mut v = [_mm512_setzero_si512(); 16];
                    unsafe {
                        load::<BF16>(p, u, p.first + group, lines, &mut v);
                        if p.src.k_contiguous == (p.layout == Layout::Rows) {
                            transpose(&mut v);
                        }
                        store(p, u, group, &v);
                    }
                }
            }

            #[inline]
            #[target_feature(enable = $features)]
            unsafe fn load<const BF16: bool>(p: &Panels, u: usize, line: usize, lines: usize, v: &mut [__m512i; 16]) {
                let left = p.k - u * UNIT_VALUES;
                unsafe {
                    if p.src.k_contiguous {
                        for i in 0..16 {
                            if i < lines {
                                v[i] = along_k::<BF16>(&p.src, line + i, u, left);
                            }
                        }
                    } else {
                        for i in 0..16 {
                            if i * UNIT_VALUES < left {
                                v[i] = along_lines::<BF16>(&p.src, u + i, line, mask16(lines), p.k);
                            }
                        }
                    }
                }
            }

            #[inline]
            #[target_feature(enable = $features)]
            unsafe fn store(p: &Panels, u: usize, group: usize, v: &[__m512i; 16]) {
                unsafe {
                    if p.layout == Layout::Tiles {
                        let to = p.to.add(u * p.width + group * 16);
                        for i in 0..16 {
                            _mm512_storeu_si512(to.add(16 * i).cast(), v[i]);
                        }
                    } else if p.width - group >= 16 && u + 16 <= p.units {
                        let to = p.to.add(u * p.width + group);
                        for i in 0..16 {
                            _mm512_storeu_si512(to.add(p.width * i).cast(), v[i]);
                        }
                    } else {
                        let to = p.to.add(u * p.width + group);
                        let mask = mask16(p.width - group);
                        for i in 0..16.min(p.units - u) {
                            _mm512_mask_storeu_epi32(to.add(p.width * i).cast(), mask, v[i]);
                        }
                    }
                }
            }
        };
    }

    #[allow(clippy::needless_range_loop)] // registers, not slices
    mod f32_units {
        use super::*;
        const UNIT_VALUES: usize = 1;
        packer!(f32_units, "avx512f,avx512bw,avx512vl,avx512dq");

        #[inline]
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
        unsafe fn along_k<const BF16: bool>(src: &Lines, line: usize, u: usize, left: usize) -> __m512i {
            unsafe { load_f32::<BF16>(row::<BF16>(src, line), u, mask16(left)) }
        }

        #[inline]
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
        unsafe fn along_lines<const BF16: bool>(src: &Lines, u: usize, line: usize, mask: u16, _k: usize) -> __m512i {
            unsafe { load_f32::<BF16>(row::<BF16>(src, u), line, mask) }
        }
    }

    #[allow(clippy::needless_range_loop)]
    mod rounded_units {
        use super::*;
        const UNIT_VALUES: usize = 1;
        packer!(rounded_units, "avx512f,avx512bw,avx512vl,avx512dq");

        #[inline]
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
        unsafe fn along_k<const BF16: bool>(src: &Lines, line: usize, u: usize, left: usize) -> __m512i {
            unsafe { round(load_f32::<BF16>(row::<BF16>(src, line), u, mask16(left))) }
        }

        #[inline]
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
        unsafe fn along_lines<const BF16: bool>(src: &Lines, u: usize, line: usize, mask: u16, _k: usize) -> __m512i {
            unsafe { round(load_f32::<BF16>(row::<BF16>(src, u), line, mask)) }
        }
    }

    /// The conversion instruction rounds ties to even and flushes denormals to zero, as the dot product itself does.
    #[allow(clippy::needless_range_loop)]
    mod pair_units {
        use super::*;
        const UNIT_VALUES: usize = 2;
        packer!(pair_units, "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16");

        #[inline]
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")]
        unsafe fn along_k<const BF16: bool>(src: &Lines, line: usize, u: usize, left: usize) -> __m512i {
            unsafe {
                let from = row::<BF16>(src, line);
                if BF16 {
                    _mm512_maskz_loadu_epi16(mask32(left), from.cast::<i16>().add(2 * u))
                } else {
                    let low = load_f32::<false>(from, 2 * u, mask16(left));
                    let high = load_f32::<false>(from, 2 * u + 16, mask16(left.saturating_sub(16)));
                    narrow(low, high)
                }
            }
        }

        #[inline]
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")]
        unsafe fn along_lines<const BF16: bool>(src: &Lines, u: usize, line: usize, mask: u16, k: usize) -> __m512i {
            unsafe {
                let from = [row::<BF16>(src, 2 * u), if 2 * u + 1 < k { row::<BF16>(src, 2 * u + 1) } else { src.ptr }];
                let masks = [mask, if 2 * u + 1 < k { mask } else { 0 }];
                let halves = if BF16 {
                    let low = _mm256_maskz_loadu_epi16(masks[0], from[0].cast::<i16>().add(line));
                    let high = _mm256_maskz_loadu_epi16(masks[1], from[1].cast::<i16>().add(line));
                    _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high)
                } else {
                    narrow(load_f32::<false>(from[0], line, masks[0]), load_f32::<false>(from[1], line, masks[1]))
                };
                _mm512_permutexvar_epi16(interleave(), halves)
            }
        }
    }

    /// Panels of 16 lines. What a value exceeds a part by is exact, and three parts hold all bits of a value, unless they
    /// are denormal.
    #[allow(clippy::needless_range_loop)]
    mod split_units {
        use super::*;

        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")]
        pub unsafe fn panels<const BF16: bool>(p: &Panels) {
            let (count, steps) = (p.lines.div_ceil(16), p.units / 48);
            // In the order in which the source lies.
            for i in 0..count * steps {
                let (panel, step) = if p.src.k_contiguous { (i / steps, i % steps) } else { (i % count, i / count) };
                unsafe { block::<BF16>(&p.only(panel), 32 * step, p.to.add((panel * steps + step) * 768)) };
            }
        }

        /// Values `at..at + 32` of a panel's lines as three tiles of 16 × 16 units.
        #[inline]
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")]
        unsafe fn block<const BF16: bool>(p: &Panels, at: usize, to: *mut u32) {
            for i in 0..16 {
                let parts = unsafe {
                    if p.src.k_contiguous { along_k::<BF16>(p, i, at) } else { along_lines::<BF16>(p, at + 2 * i) }
                };
                for part in 0..3 {
                    unsafe { _mm512_storeu_si512(to.add(256 * part + 16 * i).cast(), parts[part]) };
                }
            }
            if p.src.k_contiguous == (p.layout == Layout::Rows) {
                for part in 0..3 {
                    unsafe { transpose_in_place(to.add(256 * part)) };
                }
            }
        }

        #[inline]
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")]
        unsafe fn transpose_in_place(tile: *mut u32) {
            let mut v = [_mm512_setzero_si512(); 16];
            for i in 0..16 {
                v[i] = unsafe { _mm512_loadu_si512(tile.add(16 * i).cast()) };
            }
            transpose(&mut v);
            for i in 0..16 {
                unsafe { _mm512_storeu_si512(tile.add(16 * i).cast(), v[i]) };
            }
        }

        /// 32 values of line `i` of the panel.
        #[inline]
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")]
        unsafe fn along_k<const BF16: bool>(p: &Panels, i: usize, at: usize) -> [__m512i; 3] {
            if i >= p.lines {
                return [_mm512_setzero_si512(); 3];
            }
            let left = p.k - at;
            unsafe {
                let from = row::<BF16>(&p.src, p.first + i);
                let low = load_f32::<BF16>(from, at, mask16(left));
                split(low, load_f32::<BF16>(from, at + 16, mask16(left.saturating_sub(16))))
            }
        }

        /// Two values of each line.
        #[inline]
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")]
        unsafe fn along_lines<const BF16: bool>(p: &Panels, at: usize) -> [__m512i; 3] {
            let mut values = [_mm512_setzero_si512(); 2];
            for i in 0..2 {
                if at + i < p.k {
                    values[i] = unsafe { load_f32::<BF16>(row::<BF16>(&p.src, at + i), p.first, mask16(p.lines)) };
                }
            }
            let [first, second, third] = split(values[0], values[1]);
            let order = interleave();
            [
                _mm512_permutexvar_epi16(order, first),
                _mm512_permutexvar_epi16(order, second),
                _mm512_permutexvar_epi16(order, third),
            ]
        }

        /// The three parts of 32 values.
        #[inline]
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")]
        fn split(low: __m512i, high: __m512i) -> [__m512i; 3] {
            let first = narrow(low, high);
            let (low, high) = less(low, high, first);
            let second = narrow(low, high);
            let (low, high) = less(low, high, second);
            [first, second, narrow(low, high)]
        }

        /// The values less a part of each.
        #[inline]
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")]
        fn less(low: __m512i, high: __m512i, part: __m512i) -> (__m512i, __m512i) {
            let halves = [_mm512_castsi512_si256(part), _mm512_extracti64x4_epi64::<1>(part)];
            let [a, b] = [widen(halves[0]), widen(halves[1])];
            let (low, high) = (_mm512_castsi512_ps(low), _mm512_castsi512_ps(high));
            (_mm512_castps_si512(_mm512_sub_ps(low, a)), _mm512_castps_si512(_mm512_sub_ps(high, b)))
        }

        /// 16 bf16 as f32.
        #[inline]
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")]
        fn widen(half: __m256i) -> __m512 {
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(half)))
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")]
    fn narrow(low: __m512i, high: __m512i) -> __m512i {
        let pairs = _mm512_cvtne2ps_pbh(_mm512_castsi512_ps(high), _mm512_castsi512_ps(low));
        // SAFETY: both are 512 plain bits.
        unsafe { std::mem::transmute::<__m512bh, __m512i>(pairs) }
    }

    /// Word i is value i of the low half, then value i of the high half.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn interleave() -> __m512i {
        let low = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
        let high = _mm512_slli_epi32::<16>(_mm512_add_epi32(low, _mm512_set1_epi32(16)));
        _mm512_or_si512(low, high)
    }

    #[inline(always)]
    unsafe fn row<const BF16: bool>(src: &Lines, r: usize) -> *const u8 {
        unsafe { if BF16 { src.row::<u16>(r).cast() } else { src.row::<f32>(r).cast() } }
    }
}
