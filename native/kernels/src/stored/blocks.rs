//! Blocks to f32, one rounding after each operation as in `gguf.quants.dequantize`. Sixteen values at a time, for each
//! instruction set.
//!
//! A block of 32 has one f16 scale `d`, and an f16 minimum in the types that end with 1; the halves of a byte hold values
//! i and i + 16. A block of 256 has small whole scales of groups times one f16.
//!
//! Source: ggml-org/ggml ggml-common.h (layouts); PyPI gguf 0.19 quants.py (rounding); OCP 8-bit floating point 1.0.

use super::Format;
use crate::Isa;
use crate::ops::simd::{Bytes, Simd, WIDTH, from_bf16, from_f16, per_isa};

/// Decodes whole blocks; `out` has exactly their values.
pub fn decode(isa: Isa, format: Format, blocks: &[u8], out: &mut [f32]) {
    assert_eq!(blocks.len(), format.bytes(out.len()), "stored: whole blocks");
    let kernel: fn(Isa, &[u8], &mut [f32]) = match format {
        Format::F32 => f32s,
        Format::Bf16 => bf16s,
        Format::F16 => f16s,
        Format::F8E4m3 => f8s,
        Format::I8 => i8s,
        Format::Q8_0 => q8_0,
        Format::Q4_0 => q4_0,
        Format::Q4_1 => q4_1,
        Format::Q5_0 => q5_0,
        Format::Q5_1 => q5_1,
        Format::Q4K => q4_k,
        Format::Q5K => q5_k,
        Format::Q6K => q6_k,
        Format::Iq4Nl => iq4_nl,
        Format::Mxfp4 => mxfp4,
    };
    kernel(isa, blocks, out);
}

/// The value of an e4m3 number. Branch-free.
#[inline(always)]
pub fn from_e4m3(byte: u8) -> f32 {
    let magnitude = u32::from(byte & 0x7f);
    let normal = (magnitude << 20) + (120 << 23);
    let small = (magnitude as f32 * f32::from_bits((127 - 9) << 23)).to_bits();
    let bits = if magnitude < 8 { small } else { normal };
    let bits = if magnitude == 0x7f { f32::NAN.to_bits() } else { bits };
    f32::from_bits(bits | (u32::from(byte & 0x80) << 24))
}

/// The f16 at a byte.
#[inline(always)]
fn half(block: &[u8], at: usize) -> f32 {
    from_f16(u16::from_le_bytes([block[at], block[at + 1]]))
}

/// Defines a decoder from the body for one block of `$bytes` bytes with `$elements` values.
macro_rules! decoders {
    ($($name:ident, $bytes:literal bytes, $elements:literal values: |$block:ident, $out:ident| $body:block)*) => {
        $(per_isa! {
            fn $name(blocks: &[u8], out: &mut [f32]) {
                let (blocks, _) = blocks.as_chunks::<$bytes>();
                let (outs, _) = out.as_chunks_mut::<$elements>();
                for ($block, $out) in blocks.iter().zip(outs) $body
            }
        })*
    };
}

decoders! {
    f32s, 4 bytes, 1 values: |block, out| { out[0] = f32::from_le_bytes(*block); }

    bf16s, 2 bytes, 1 values: |block, out| { out[0] = from_bf16(u16::from_le_bytes(*block)); }

    f8s, 1 bytes, 1 values: |block, out| { out[0] = from_e4m3(block[0]); }

    i8s, 1 bytes, 1 values: |block, out| { out[0] = f32::from(block[0] as i8); }

    q8_0, 34 bytes, 32 values: |block, out| {
        let d = half(block, 0);
        for part in 0..2 {
            scaled::<S>(d, S::from_bytes(bytes(block, 2 + 16 * part)), &mut out[16 * part..]);
        }
    }

    q4_0, 18 bytes, 32 values: |block, out| {
        let (d, codes) = (half(block, 0), bytes(block, 2));
        for part in 0..2 {
            scaled::<S>(d, centred::<S>(nibbles(codes, part), 8.0), &mut out[16 * part..]);
        }
    }

    q4_1, 20 bytes, 32 values: |block, out| {
        let (d, min, codes) = (half(block, 0), half(block, 2), bytes(block, 4));
        for part in 0..2 {
            shifted::<S>(d, nibbles(codes, part), min, &mut out[16 * part..]);
        }
    }

    q5_0, 22 bytes, 32 values: |block, out| {
        let (d, codes) = (half(block, 0), bytes(block, 6));
        for part in 0..2 {
            let codes = join(nibbles(codes, part), fifth_bits(block[2 + 2 * part], block[3 + 2 * part]));
            scaled::<S>(d, centred::<S>(codes, 16.0), &mut out[16 * part..]);
        }
    }

    q5_1, 24 bytes, 32 values: |block, out| {
        let (d, min, codes) = (half(block, 0), half(block, 2), bytes(block, 8));
        for part in 0..2 {
            let codes = join(nibbles(codes, part), fifth_bits(block[4 + 2 * part], block[5 + 2 * part]));
            shifted::<S>(d, codes, min, &mut out[16 * part..]);
        }
    }

    // Groups 2p and 2p + 1 of 32 share the halves of 32 bytes.
    q4_k, 144 bytes, 256 values: |block, out| {
        for g in 0..8 {
            let (d, min) = group(block, g);
            for part in [0, 16] {
                let codes = nibbles(bytes(block, 16 + 32 * (g / 2) + part), g % 2);
                shifted::<S>(d, codes, -min, &mut out[32 * g + part..]);
            }
        }
    }

    q5_k, 176 bytes, 256 values: |block, out| {
        for g in 0..8 {
            let (d, min) = group(block, g);
            for part in [0, 16] {
                let codes = nibbles(bytes(block, 48 + 32 * (g / 2) + part), g % 2);
                let fifth = bytes(block, 16 + part).map(|x| (x >> g & EACH) << 4);
                shifted::<S>(d, join(codes, fifth), -min, &mut out[32 * g + part..]);
            }
        }
    }

    // Two halves of 128: four runs of 32 whose low bits share 64 bytes and whose high bits share 32.
    q6_k, 210 bytes, 256 values: |block, out| {
        let d = half(block, 208);
        for run in 0..16 {
            let (part, quarter, side) = (run / 8, run / 2 % 4, run % 2 * 16);
            let low = nibbles(bytes(block, 64 * part + 32 * (quarter % 2) + side), quarter / 2);
            let high = bytes(block, 128 + 32 * part + side).map(|x| (x >> (2 * quarter) & (3 * EACH)) << 4);
            let codes = centred::<S>(join(low, high), 32.0);
            scaled::<S>(d * f32::from(block[192 + run] as i8), codes, &mut out[16 * run..]);
        }
    }

    iq4_nl, 18 bytes, 32 values: |block, out| {
        look_up::<S>(half(block, 0), &IQ4_NL, bytes(block, 2), out);
    }

    mxfp4, 17 bytes, 32 values: |block, out| {
        look_up::<S>(power(block[0]), &MXFP4, bytes(block, 1), out);
    }
}

per_isa! {
    fn f16s(blocks: &[u8], out: &mut [f32]) {
        let (halves, _) = blocks.as_chunks::<2>();
        let (runs, rest) = halves.as_chunks::<WIDTH>();
        let (outs, out_rest) = out.as_chunks_mut::<WIDTH>();
        for (run, out) in runs.iter().zip(outs) {
            *out = S::store(S::from_halves(&run.map(u16::from_le_bytes)));
        }
        for (half, out) in rest.iter().zip(out_rest) {
            *out = from_f16(u16::from_le_bytes(*half));
        }
    }
}

/// A one in each byte.
const EACH: u64 = 0x0101_0101_0101_0101;

#[inline(always)]
fn bytes(block: &[u8], at: usize) -> Bytes {
    let (eights, _) = block[at..at + WIDTH].as_chunks::<8>();
    [u64::from_le_bytes(eights[0]), u64::from_le_bytes(eights[1])]
}

/// The lower (0) or upper (1) halves of bytes.
#[inline(always)]
fn nibbles(codes: Bytes, half: usize) -> Bytes {
    codes.map(|x| (x >> (4 * half)) & (15 * EACH))
}

#[inline(always)]
fn join(low: Bytes, high: Bytes) -> Bytes {
    [low[0] | high[0], low[1] | high[1]]
}

/// The bits of two bytes, each as the fifth bit of a code.
#[inline(always)]
fn fifth_bits(first: u8, second: u8) -> Bytes {
    [first, second].map(|bits| {
        // Byte i keeps bit i alone; adding 0x7f carries it into the highest bit.
        let own = (u64::from(bits) * EACH) & 0x8040_2010_0804_0201;
        ((own + 0x7f * EACH) & (0x80 * EACH)) >> 3
    })
}

/// Codes below 128 as numbers, with `middle` at 0.
#[inline(always)]
fn centred<S: Simd>(codes: Bytes, middle: f32) -> S::Lanes {
    S::add(S::from_bytes(codes), S::splat(-middle))
}

/// `d · code`.
#[inline(always)]
fn scaled<S: Simd>(d: f32, codes: S::Lanes, out: &mut [f32]) {
    out[..WIDTH].copy_from_slice(&S::store(S::mul(S::splat(d), codes)));
}

/// `d · code + shift`. The product is exact, as both have few bits: a fused operation rounds like two.
#[inline(always)]
fn shifted<S: Simd>(d: f32, codes: Bytes, shift: f32, out: &mut [f32]) {
    out[..WIDTH].copy_from_slice(&S::store(S::fused(S::splat(d), S::from_bytes(codes), S::splat(shift))));
}

/// Scale and minimum of group `g` of Q4_K and Q5_K: two f16 and eight pairs of six-bit numbers in twelve bytes.
#[inline(always)]
fn group(block: &[u8], g: usize) -> (f32, f32) {
    let codes = &block[4..16];
    let (scale, min) = if g < 4 {
        (codes[g] & 63, codes[4 + g] & 63)
    } else {
        let both = codes[4 + g];
        ((both & 15) | (codes[g - 4] >> 6 << 4), (both >> 4) | (codes[g] >> 6 << 4))
    };
    (half(block, 0) * f32::from(scale), half(block, 2) * f32::from(min))
}

const IQ4_NL: [f32; WIDTH] =
    [-127.0, -104.0, -83.0, -65.0, -49.0, -35.0, -22.0, -10.0, 1.0, 13.0, 25.0, 38.0, 53.0, 69.0, 89.0, 113.0];

/// e2m1 doubled, where ggml halves the scale instead. Zero has no sign there.
const MXFP4: [f32; WIDTH] = [0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 0.0, -1.0, -2.0, -3.0, -4.0, -6.0, -8.0, -12.0];

/// `2^(byte − 128)`, which is below the normal range for 0 and 1.
#[inline(always)]
fn power(byte: u8) -> f32 {
    f32::from_bits(if byte < 2 { 0x0020_0000 << byte } else { u32::from(byte - 1) << 23 })
}

/// `d · table[code]` for 32 four-bit codes.
#[inline(always)]
fn look_up<S: Simd>(d: f32, table: &[f32; WIDTH], codes: Bytes, out: &mut [f32; 32]) {
    for part in 0..2 {
        scaled::<S>(d, S::pick(table, nibbles(codes, part)), &mut out[16 * part..]);
    }
}
