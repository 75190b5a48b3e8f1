//! AMX tiles. Their intrinsics are not stable, so this is inline assembly.

use super::micro::Tile;
use std::arch::asm;

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

pub const ROWS: usize = 48;
pub const COLS: usize = 16;

/// A tile of C of up to 3 × 1 AMX accumulators; 16 units a step.
///
/// Three accumulators, one register for A and one for B leave three of the eight tile registers free. While the other
/// hardware thread of a core is at work only those free ones can be renamed; with 2 × 2 accumulators and all eight in use,
/// loads and products then wait for each other, at half the speed.
///
/// # Safety
/// As for [`super::micro::portable`]; the tiles are configured.
pub unsafe fn tile(t: &Tile) {
    unsafe {
        if t.rows.is_multiple_of(16) && t.cols == COLS {
            return whole(t, t.c, t.ldc, t.accumulate);
        }
        let mut part = Part([0.0; ROWS * COLS]);
        whole(t, part.0.as_mut_ptr(), COLS, false);
        for i in 0..t.rows {
            for j in 0..t.cols {
                let c = t.c.add(i * t.ldc + j);
                let sum = part.0[i * COLS + j];
                *c = if t.accumulate { *c + sum } else { sum };
            }
        }
    }
}

#[repr(C, align(64))]
struct Part([f32; ROWS * COLS]);

unsafe fn whole(t: &Tile, c: *mut f32, ldc: usize, accumulate: bool) {
    unsafe {
        match t.rows.div_ceil(16) {
            1 => one(t, c, ldc, accumulate),
            2 => two(t, c, ldc, accumulate),
            _ => three(t, c, ldc, accumulate),
        }
    }
}

/// The loop for a number of accumulators, with the instructions for each. A is re-used from L1; B streams through.
macro_rules! tiles {
    ($name:ident, zero $($zero:literal)*, load $($load:literal)*, step $($step:literal)*, store $($store:literal)*) => {
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
                    "tileloaddt1 tmm4, [{b} + {row}]",
                    $($step,)*
                    "add {a}, 3072",
                    "add {b}, 1024",
                    "dec {steps}",
                    "jnz 2b",
                    $($store,)*
                    "/* {d} {e} */",
                    a = inout(reg) t.a => _,
                    b = inout(reg) t.b => _,
                    c = in(reg) c,
                    d = in(reg) c.wrapping_add(16 * ldc),
                    e = in(reg) c.wrapping_add(32 * ldc),
                    ldc = in(reg) 4 * ldc,
                    row = in(reg) 64usize,
                    steps = inout(reg) t.units / 16 => _,
                    accumulate = in(reg) accumulate as u32,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _, out("tmm4") _,
                    options(nostack),
                );
            }
        }
    };
}

tiles!(one,
    zero "tilezero tmm0",
    load "tileloadd tmm0, [{c} + {ldc}]",
    step "tileloadd tmm3, [{a} + {row}]" "tdpbf16ps tmm0, tmm3, tmm4",
    store "tilestored [{c} + {ldc}], tmm0");

tiles!(two,
    zero "tilezero tmm0" "tilezero tmm1",
    load "tileloadd tmm0, [{c} + {ldc}]" "tileloadd tmm1, [{d} + {ldc}]",
    step "tileloadd tmm3, [{a} + {row}]" "tdpbf16ps tmm0, tmm3, tmm4"
        "tileloadd tmm3, [{a} + {row} + 1024]" "tdpbf16ps tmm1, tmm3, tmm4",
    store "tilestored [{c} + {ldc}], tmm0" "tilestored [{d} + {ldc}], tmm1");

tiles!(three,
    zero "tilezero tmm0" "tilezero tmm1" "tilezero tmm2",
    load "tileloadd tmm0, [{c} + {ldc}]" "tileloadd tmm1, [{d} + {ldc}]" "tileloadd tmm2, [{e} + {ldc}]",
    step "tileloadd tmm3, [{a} + {row}]" "tdpbf16ps tmm0, tmm3, tmm4"
        "tileloadd tmm3, [{a} + {row} + 1024]" "tdpbf16ps tmm1, tmm3, tmm4"
        "tileloadd tmm3, [{a} + {row} + 2048]" "tdpbf16ps tmm2, tmm3, tmm4",
    store "tilestored [{c} + {ldc}], tmm0" "tilestored [{d} + {ldc}], tmm1" "tilestored [{e} + {ldc}], tmm2");
