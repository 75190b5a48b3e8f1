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

/// 4 · `rounds` products of zero tiles, to measure the peak.
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
pub const COLS: usize = 32;

/// One 32 × 32 tile of C from four AMX accumulators; 16 units a step.
///
/// # Safety
/// As for [`super::micro::portable`]; the tiles are configured.
pub unsafe fn tile(t: &Tile) {
    unsafe {
        if t.rows == ROWS && t.cols == COLS {
            return whole(t.units / 16, t.a, t.b, t.c, t.ldc, t.accumulate);
        }
        let mut part = Part([0.0; ROWS * COLS]);
        whole(t.units / 16, t.a, t.b, part.0.as_mut_ptr(), COLS, false);
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

unsafe fn whole(
    steps: usize,
    a: *const u32,
    b: *const u32,
    c: *mut f32,
    ldc: usize,
    accumulate: bool,
) {
    unsafe {
        asm!(
            "test {acc:e}, {acc:e}",
            "jz 3f",
            "tileloadd tmm0, [{c} + {ldc}]",
            "tileloadd tmm1, [{c} + {ldc} + 64]",
            "tileloadd tmm2, [{d} + {ldc}]",
            "tileloadd tmm3, [{d} + {ldc} + 64]",
            "jmp 2f",
            "3:",
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "2:",
            "tileloadd tmm4, [{a} + {s64}]",
            "tileloadd tmm6, [{b} + {s128}]",
            "tileloadd tmm7, [{b} + {s128} + 64]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm5, [{a} + {s64} + 1024]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {a}, 2048",
            "add {b}, 2048",
            "dec {steps}",
            "jnz 2b",
            "tilestored [{c} + {ldc}], tmm0",
            "tilestored [{c} + {ldc} + 64], tmm1",
            "tilestored [{d} + {ldc}], tmm2",
            "tilestored [{d} + {ldc} + 64], tmm3",
            a = inout(reg) a => _,
            b = inout(reg) b => _,
            c = in(reg) c,
            d = in(reg) c.add(16 * ldc),
            ldc = in(reg) 4 * ldc,
            s64 = in(reg) 64usize,
            s128 = in(reg) 128usize,
            steps = inout(reg) steps => _,
            acc = in(reg) accumulate as u32,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}
