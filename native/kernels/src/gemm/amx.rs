//! AMX tiles. Their intrinsics are not stable, so this is inline assembly.

use super::micro::Tile;
use std::arch::asm;
use std::arch::x86_64::*;

/// Tiles 0 to 7 as 16 rows of 64 bytes.
#[repr(C, align(64))]
struct Config([u8; 64]);

static CONFIG: Config = {
    let mut bytes = [0u8; 64];
    bytes[0] = 1; // palette
    let mut tile = 0;
    while tile < 8 {
        bytes[16 + 2 * tile] = 64; // bytes of a row
        bytes[48 + tile] = 16; // rows
        tile += 1;
    }
    Config(bytes)
};

pub unsafe fn configure() {
    unsafe { asm!("ldtilecfg [{0}]", in(reg) &CONFIG, options(nostack, preserves_flags)) }
}

pub unsafe fn release() {
    unsafe { asm!("tilerelease", options(nostack, preserves_flags)) }
}

/// 4 · `rounds` products of zero tiles without loads, to measure the peak.
///
/// # Safety
/// AMX is available.
pub unsafe fn products_of_zero(rounds: usize) {
    unsafe {
        configure();
        asm!(
            "tilezero tmm4",
            "tilezero tmm5",
            "tilezero tmm6",
            "tilezero tmm7",
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            options(nostack, preserves_flags, nomem)
        );
        asm!("2:",
             "tdpbf16ps tmm0, tmm4, tmm6",
             "tdpbf16ps tmm1, tmm4, tmm7",
             "tdpbf16ps tmm2, tmm5, tmm6",
             "tdpbf16ps tmm3, tmm5, tmm7",
             "dec {0}", "jnz 2b",
             inout(reg) rounds => _, options(nostack, nomem));
        release();
    }
}

pub const ROWS: usize = 32;
pub const SPLIT_ROWS: usize = 16;
pub const COLS: usize = 16;

/// A tile of C of up to 2 × 1 accumulators; 16 units a step. A is re-used from L1; B streams through.
///
/// Few registers on purpose: while the other hardware thread of a core is at work only those of the eight that hold nothing
/// can be renamed. With 2 × 2 accumulators and all eight in use, loads and products wait for each other, at half the speed.
///
/// # Safety
/// As for [`super::micro::portable`]; the tiles are configured.
pub unsafe fn tile(t: &Tile) {
    unsafe { on_whole_tiles(t, true, if t.rows > 16 { two } else { one }) }
}

/// A tile of C of one accumulator, from values that are split into three bf16 each; 48 units a step: the parts of 32
/// values, the largest first.
///
/// Of the nine products of parts the three below 2^-23 of the value are left out; the others follow each other so that most
/// need one load. An instruction sums the 16 products of even and those of odd k apart before it adds them to the
/// accumulator, which begins at zero, so a sum errs about as much as one of f32 multiply-adds. A sum near the largest f32 may
/// become infinite or NaN on the way, when its parts differ in sign.
///
/// **Source:** Intel, Instruction Set Extensions Programming Reference, TDPBF16PS.
///
/// # Safety
/// As for [`tile`].
pub unsafe fn split_tile(t: &Tile) {
    unsafe { on_whole_tiles(t, !t.accumulate, split) }
}

type Whole = unsafe fn(&Tile, *mut f32, usize, bool);

/// Runs a kernel that writes all rows and columns: on C itself where it has them, else beside it, to be added.
unsafe fn on_whole_tiles(t: &Tile, on_c: bool, kernel: Whole) {
    unsafe {
        if on_c && t.rows.is_multiple_of(16) && t.cols == COLS {
            return kernel(t, t.c, t.ldc, t.accumulate);
        }
        let mut part = Part([[0.0; COLS]; ROWS]);
        kernel(t, part.0.as_mut_ptr().cast(), COLS, false);
        add(t, &part);
    }
}

#[repr(C, align(64))]
struct Part([[f32; COLS]; ROWS]);

#[target_feature(enable = "avx512f")]
unsafe fn add(t: &Tile, part: &Part) {
    let mask = ((1u32 << t.cols) - 1) as __mmask16;
    for (i, row) in part.0.iter().enumerate().take(t.rows) {
        unsafe {
            let (c, mut sum) = (t.c.add(i * t.ldc), _mm512_load_ps(row.as_ptr()));
            if t.accumulate {
                sum = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, c), sum);
            }
            _mm512_mask_storeu_ps(c, mask, sum);
        }
    }
}

/// The loop for a number of accumulators, with the instructions for each.
macro_rules! kernel {
    ($name:ident, $rows:expr, $units:literal, zero $($zero:literal)*, load $($load:literal)*, step $($step:literal)*, store $($store:literal)*) => {
        unsafe fn $name(t: &Tile, c: *mut f32, ldc: usize, accumulate: bool) {
            unsafe {
                asm!(
                    "test {accumulate:e}, {accumulate:e}",
                    "jnz 3f",
                    $($zero,)*
                    "jmp 2f",
                    "3:",
                    $($load,)*
                    "2:",
                    $($step,)*
                    "add {a}, {next_a}",
                    "add {b}, {next_b}",
                    "dec {steps}",
                    "jnz 2b",
                    $($store,)*
                    "/* {d} */",
                    a = inout(reg) t.a => _,
                    b = inout(reg) t.b => _,
                    c = in(reg) c,
                    d = in(reg) c.wrapping_add(16 * ldc),
                    ldc = in(reg) 4 * ldc,
                    row = in(reg) 64usize,
                    next_a = const 4 * $units * $rows,
                    next_b = const 4 * $units * COLS,
                    steps = inout(reg) t.units / $units => _,
                    accumulate = in(reg) accumulate as u32,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    options(nostack),
                );
            }
        }
    };
}

kernel!(one, ROWS, 16,
    zero "tilezero tmm0",
    load "tileloadd tmm0, [{c} + {ldc}]",
    step "tileloaddt1 tmm3, [{b} + {row}]" "tileloadd tmm2, [{a} + {row}]" "tdpbf16ps tmm0, tmm2, tmm3",
    store "tilestored [{c} + {ldc}], tmm0");

kernel!(two, ROWS, 16,
    zero "tilezero tmm0" "tilezero tmm1",
    load "tileloadd tmm0, [{c} + {ldc}]" "tileloadd tmm1, [{d} + {ldc}]",
    step "tileloaddt1 tmm3, [{b} + {row}]"
        "tileloadd tmm2, [{a} + {row}]" "tdpbf16ps tmm0, tmm2, tmm3"
        "tileloadd tmm2, [{a} + {row} + 1024]" "tdpbf16ps tmm1, tmm2, tmm3",
    store "tilestored [{c} + {ldc}], tmm0" "tilestored [{d} + {ldc}], tmm1");

kernel!(split, SPLIT_ROWS, 48,
    zero "tilezero tmm0",
    load "tileloadd tmm0, [{c} + {ldc}]",
    step "tileloadd tmm2, [{a} + {row}]" "tileloaddt1 tmm3, [{b} + {row} + 2048]" "tdpbf16ps tmm0, tmm2, tmm3"
        "tileloaddt1 tmm3, [{b} + {row} + 1024]" "tdpbf16ps tmm0, tmm2, tmm3"
        "tileloadd tmm2, [{a} + {row} + 1024]" "tdpbf16ps tmm0, tmm2, tmm3"
        "tileloaddt1 tmm3, [{b} + {row}]" "tdpbf16ps tmm0, tmm2, tmm3"
        "tileloadd tmm2, [{a} + {row} + 2048]" "tdpbf16ps tmm0, tmm2, tmm3"
        "tileloadd tmm2, [{a} + {row}]" "tdpbf16ps tmm0, tmm2, tmm3",
    store "tilestored [{c} + {ldc}], tmm0");
