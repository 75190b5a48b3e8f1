//! Microkernels: one register tile of C from one panel of A and one of B, over `units` steps.

/// C tile (+)= A panel · B panel; writes `rows` × `cols` of C only.
pub struct Tile {
    pub units: usize,
    pub a: *const u32,
    pub b: *const u32,
    pub c: *mut f32,
    pub ldc: usize,
    pub rows: usize,
    pub cols: usize,
    pub accumulate: bool,
}

pub const PORTABLE_ROWS: usize = 4;
pub const PORTABLE_COLS: usize = 8;

/// # Safety
/// The panels hold `units` steps; the tile of C is live and nobody else's.
pub unsafe fn portable(t: &Tile) {
    let mut acc = [[0.0f32; PORTABLE_COLS]; PORTABLE_ROWS];
    unsafe {
        for u in 0..t.units {
            let a = *t.a.cast::<[f32; PORTABLE_ROWS]>().add(u);
            let b = *t.b.cast::<[f32; PORTABLE_COLS]>().add(u);
            for (row, x) in acc.iter_mut().zip(a) {
                for (sum, y) in row.iter_mut().zip(b) {
                    *sum += x * y;
                }
            }
        }
        write(t, &acc);
    }
}

/// Stores the part of a whole tile that exists.
unsafe fn write<const ROWS: usize, const COLS: usize>(t: &Tile, acc: &[[f32; COLS]; ROWS]) {
    for (i, row) in acc.iter().enumerate().take(t.rows) {
        for (j, &sum) in row.iter().enumerate().take(t.cols) {
            unsafe {
                let c = t.c.add(i * t.ldc + j);
                *c = if t.accumulate { *c + sum } else { sum };
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
pub mod avx2 {
    use super::Tile;
    use std::arch::x86_64::*;

    pub const ROWS: usize = 6;
    pub const COLS: usize = 16;

    /// # Safety
    /// As for [`super::portable`]; AVX2 and FMA are available.
    #[target_feature(enable = "avx2,fma")]
    pub unsafe fn tile(t: &Tile) {
        let mut acc = [[_mm256_setzero_ps(); 2]; ROWS];
        let (mut a, mut b) = (t.a.cast::<f32>(), t.b.cast::<f32>());
        unsafe {
            for _ in 0..t.units {
                let (b0, b1) = (_mm256_loadu_ps(b), _mm256_loadu_ps(b.add(8)));
                for (i, row) in acc.iter_mut().enumerate() {
                    let x = _mm256_broadcast_ss(&*a.add(i));
                    row[0] = _mm256_fmadd_ps(x, b0, row[0]);
                    row[1] = _mm256_fmadd_ps(x, b1, row[1]);
                }
                a = a.add(ROWS);
                b = b.add(COLS);
            }
            if t.rows < ROWS || t.cols < COLS {
                let mut part = [[0.0f32; COLS]; ROWS];
                for (to, row) in part.iter_mut().zip(acc) {
                    _mm256_storeu_ps(to.as_mut_ptr(), row[0]);
                    _mm256_storeu_ps(to.as_mut_ptr().add(8), row[1]);
                }
                return super::write(t, &part);
            }
            for (i, row) in acc.into_iter().enumerate() {
                for (j, sum) in row.into_iter().enumerate() {
                    let c = t.c.add(i * t.ldc + 8 * j);
                    _mm256_storeu_ps(c, if t.accumulate { _mm256_add_ps(_mm256_loadu_ps(c), sum) } else { sum });
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
pub mod avx512 {
    use super::Tile;
    use std::arch::asm;
    use std::arch::x86_64::*;

    pub const ROWS: usize = 12;
    pub const COLS: usize = 32;

    /// A kernel for each number of rows, so that a thin last panel costs no more than its rows.
    macro_rules! tiles {
        ($tile:ident, $body:ident, $features:literal, $step:ident) => {
            /// # Safety
            /// As for [`super::portable`]; the features are available.
            pub unsafe fn $tile(t: &Tile) {
                unsafe {
                    match t.rows {
                        1 => $body::<1>(t),
                        2 => $body::<2>(t),
                        3 => $body::<3>(t),
                        4 => $body::<4>(t),
                        5 => $body::<5>(t),
                        6 => $body::<6>(t),
                        7 => $body::<7>(t),
                        8 => $body::<8>(t),
                        9 => $body::<9>(t),
                        10 => $body::<10>(t),
                        11 => $body::<11>(t),
                        _ => $body::<12>(t),
                    }
                }
            }

            #[allow(clippy::pointers_in_nomem_asm_block)] // nothing is read through it there
            #[target_feature(enable = $features)]
            unsafe fn $body<const R: usize>(t: &Tile) {
                let mut acc = [[_mm512_setzero_ps(); 2]; R];
                let (mut a, mut b) = (t.a, t.b);
                let mut twin = a;
                unsafe {
                    for _ in 0..t.units {
                        // The compiler forgets that this is `a`, so each product broadcasts its factor itself, within one
                        // instruction: fewer than with a broadcast for both.
                        asm!("/* {0} */", inout(reg) twin, options(pure, nomem, nostack, preserves_flags));
                        let (b0, b1) = (_mm512_loadu_ps(b.cast()), _mm512_loadu_ps(b.add(16).cast()));
                        for (i, row) in acc.iter_mut().enumerate() {
                            row[0] = $step(row[0], broadcast(a.add(i)), b0);
                            row[1] = $step(row[1], broadcast(twin.add(i)), b1);
                        }
                        a = a.add(ROWS);
                        twin = twin.add(ROWS);
                        b = b.add(COLS);
                    }
                    let masks = [mask(t.cols), mask(t.cols.saturating_sub(16))];
                    for (i, row) in acc.into_iter().enumerate() {
                        for (j, sum) in row.into_iter().enumerate() {
                            let c = t.c.add(i * t.ldc).wrapping_add(16 * j);
                            let old =
                                if t.accumulate { _mm512_maskz_loadu_ps(masks[j], c) } else { _mm512_setzero_ps() };
                            _mm512_mask_storeu_ps(
                                c,
                                masks[j],
                                if t.accumulate { _mm512_add_ps(old, sum) } else { sum },
                            );
                        }
                    }
                }
            }
        };
    }

    tiles!(f32_tile, f32_rows, "avx512f", fma);
    tiles!(bf16_tile, bf16_rows, "avx512f,avx512bf16", dot);

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn broadcast(word: *const u32) -> __m512 {
        unsafe { _mm512_castsi512_ps(_mm512_set1_epi32(*word as i32)) }
    }

    #[inline]
    fn mask(count: usize) -> __mmask16 {
        if count >= 16 { 0xffff } else { (1u16 << count) - 1 }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn fma(sum: __m512, a: __m512, b: __m512) -> __m512 {
        _mm512_fmadd_ps(a, b, sum)
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bf16")]
    fn dot(sum: __m512, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the bits of 32 bf16.
        unsafe {
            _mm512_dpbf16_ps(
                sum,
                std::mem::transmute::<__m512, __m512bh>(a),
                std::mem::transmute::<__m512, __m512bh>(b),
            )
        }
    }
}
