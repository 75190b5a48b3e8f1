use super::{Format, Item, Products, Scale, Stored, products};
use crate::gemm::MatIn;
use crate::ops::simd::{from_bf16, from_f16, to_bf16};
use crate::ops::testing::{Rng, assert_close, on_every_isa, with_best};
use crate::stored::blocks::{self, from_e4m3};
use crate::stored::rounding::{Rounding, to_e4m3};
use crate::{Ctx, Isa};

/// Random blocks whose f16 scales are moderate numbers.
fn random_blocks(rng: &mut Rng, format: Format, elements: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..format.bytes(elements)).map(|_| rng.below(256) as u8).collect();
    for block in bytes.chunks_mut(format.block_bytes()) {
        let scales: &[usize] = match format {
            Format::Q8_0 | Format::Q4_0 | Format::Q5_0 | Format::Iq4Nl => &[0],
            Format::Q4_1 | Format::Q5_1 | Format::Q4K | Format::Q5K => &[0, 2],
            Format::Q6K => &[208],
            Format::F16 => &[0],
            _ => &[],
        };
        for &at in scales {
            block[at + 1] = 0x20 | block[at + 1] & 0x8f;
        }
        match format {
            Format::Mxfp4 => block[0] = 120 + block[0] % 8,
            Format::F8E4m3 => block[0] &= 0xbf,
            Format::F32 => block.copy_from_slice(&rng.uniform(1.0).to_le_bytes()),
            Format::Bf16 => block.copy_from_slice(&to_bf16(rng.uniform(1.0)).to_le_bytes()),
            _ => (),
        }
    }
    bytes
}

fn decoded(isa: Isa, format: Format, bytes: &[u8]) -> Vec<f32> {
    let mut out = vec![0.0; bytes.len() / format.block_bytes() * format.block_elements()];
    blocks::decode(isa, format, bytes, &mut out);
    out
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

#[test]
fn every_instruction_set_decodes_to_the_same_bits() {
    let mut rng = Rng(31);
    for format in Format::all() {
        let bytes = random_blocks(&mut rng, format, 3 * 256);
        let want = decoded(Isa::Portable, format, &bytes);
        for isa in Isa::available() {
            assert_eq!(bits(&decoded(isa, format, &bytes)), bits(&want), "{} on {}", format.name(), isa.name());
        }
    }
}

#[test]
fn every_narrow_float_is_the_same_number_on_every_instruction_set() {
    let halves: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
    let bytes: Vec<u8> = (0..=u8::MAX).collect();
    for (format, all) in [(Format::F16, &halves), (Format::Bf16, &halves), (Format::F8E4m3, &bytes)] {
        let want = decoded(Isa::Portable, format, all);
        for isa in Isa::available() {
            assert!(bits(&decoded(isa, format, all)) == bits(&want), "{} on {}", format.name(), isa.name());
        }
    }
}

#[test]
fn a_format_stands_in_the_table_under_its_own_number() {
    for (i, format) in Format::all().enumerate() {
        assert_eq!(format as usize, i, "{}", format.name());
    }
    for (id, format) in [(0.0, Format::F32), (6.0, Format::I8), (16.0, Format::Mxfp4)] {
        assert_eq!(Format::of_id(id), Some(format));
    }
    assert_eq!([2.0, 3.0, 17.0, -1.0, 0.5].map(Format::of_id), [None; 5]);
}

#[test]
fn small_blocks_have_the_values_that_their_layout_says() {
    let one = 0x3c00u16.to_le_bytes();
    let half = 0x3800u16.to_le_bytes();
    let block = |parts: &[&[u8]]| parts.concat();
    let codes: Vec<u8> = (0..16).map(|i| i | (15 - i) << 4).collect();
    let low = |i: usize| if i < 16 { i as f32 } else { 31.0 - i as f32 };
    let check = |format: Format, bytes: &[u8], value: &dyn Fn(usize) -> f32| {
        let want: Vec<f32> = (0..format.block_elements()).map(value).collect();
        assert_eq!(decoded(Isa::detect(), format, bytes), want, "{}", format.name());
    };
    let bytes: Vec<u8> = (0..32).map(|i: u8| i.wrapping_sub(16)).collect();
    check(Format::Q8_0, &block(&[&half, &bytes]), &|i| (i as f32 - 16.0) / 2.0);
    check(Format::Q4_0, &block(&[&one, &codes]), &|i| low(i) - 8.0);
    check(Format::Q4_1, &block(&[&one, &half, &codes]), &|i| low(i) + 0.5);
    let fifth = 0x8000_0001u32.to_le_bytes();
    let five = |i: usize| low(i) + if i == 0 || i == 31 { 16.0 } else { 0.0 };
    check(Format::Q5_0, &block(&[&one, &fifth, &codes]), &|i| five(i) - 16.0);
    check(Format::Q5_1, &block(&[&one, &half, &fifth, &codes]), &|i| five(i) + 0.5);
    check(Format::Iq4Nl, &block(&[&one, &[0xf8; 16]]), &|i| if i < 16 { 1.0 } else { 113.0 });
    check(Format::Mxfp4, &block(&[&[127], &[0x79; 16]]), &|i| if i < 16 { -0.5 } else { 6.0 });
    check(Format::Mxfp4, &block(&[&[0], &[0x11; 16]]), &|_| f32::from_bits(0x0020_0000));
}

#[test]
fn narrow_floats_have_their_values() {
    let f16s =
        [(0x0000, 0.0), (0x3c00, 1.0), (0xc000, -2.0), (0x0001, 2f32.powi(-24)), (0x83ff, -1023.0 * 2f32.powi(-24))];
    for (half, value) in f16s {
        assert_eq!(from_f16(half), value);
    }
    assert_eq!(from_f16(0xfc00), f32::NEG_INFINITY);
    assert!(from_f16(0x7e00).is_nan());
    for (byte, value) in [(0x38, 1.0), (0xb8, -1.0), (0x01, 2f32.powi(-9)), (0x7e, 448.0), (0x08, 2f32.powi(-6))] {
        assert_eq!(from_e4m3(byte), value);
    }
    assert!(from_e4m3(0x7f).is_nan() && from_e4m3(0xff).is_nan());
}

#[test]
fn e4m3_goes_to_the_nearest_number_and_halves_to_even_ones() {
    for byte in 0..=0xffu8 {
        let value = from_e4m3(byte);
        if value.is_nan() {
            continue;
        }
        assert_eq!(to_e4m3(value), byte);
        let magnitude = byte & 0x7f;
        if magnitude < 0x7e {
            let middle = (value + from_e4m3(byte + 1)) / 2.0;
            assert_eq!(to_e4m3(middle) & 1, 0, "{middle}");
            assert_eq!(to_e4m3(f32::from_bits(middle.to_bits() + 1)), byte + 1);
        }
    }
    assert_eq!(to_e4m3(1e9), 0x7e);
    assert!(from_e4m3(to_e4m3(f32::NAN)).is_nan());
}

struct Case {
    m: usize,
    n: usize,
    k: usize,
    trans: bool,
    compute: usize,
}

/// Sums in f64 of factors that are rounded as asked.
fn expected(case: &Case, x: &[f32], w: &[f32], format: Format) -> (Vec<f64>, Vec<f64>) {
    let Case { m, n, k, trans, compute } = *case;
    let rounding = Rounding::of(compute, format);
    let mut x = x.to_vec();
    x.chunks_mut(k).for_each(|row| rounding.apply(Isa::Portable, row));
    let weight = |j: usize, q: usize| {
        let value = if trans { w[j * k + q] } else { w[q * n + j] };
        f64::from(if rounding == Rounding::Bf16 { from_bf16(to_bf16(value)) } else { value })
    };
    let (mut sums, mut magnitudes) = (vec![0.0; m * n], vec![0.0; m * n]);
    for i in 0..m {
        for j in 0..n {
            for q in 0..k {
                let term = f64::from(x[i * k + q]) * weight(j, q);
                sums[i * n + j] += term;
                magnitudes[i * n + j] += term.abs();
            }
        }
    }
    (sums, magnitudes)
}

#[test]
fn products_agree_with_decoded_weights() {
    let mut rng = Rng(5);
    for format in Format::all() {
        for (m, rows, cols) in [(1, 5, 256), (3, 40, 512), (8, 3, 768), (19, 70, 256)] {
            for (trans, compute) in [(true, 0), (false, 0), (true, 1), (false, 1), (true, 2), (false, 2)] {
                let (n, k) = if trans { (rows, cols) } else { (cols, rows) };
                let case = Case { m, n, k, trans, compute };
                let bytes = random_blocks(&mut rng, format, rows * cols);
                let scales = rng.values(rows.div_ceil(16) * cols.div_ceil(128), 1.0);
                let needs_scale = matches!(format, Format::F8E4m3 | Format::I8);
                let scale = needs_scale.then_some(Scale { values: &scales, rows: 16, cols: 128 });
                let w = Stored { format, base: bytes.as_ptr(), offset: 0, stride: cols, scale };
                let mut values = decoded(Isa::Portable, format, &bytes);
                if needs_scale {
                    for (at, value) in values.iter_mut().enumerate() {
                        *value *= scales[at / cols / 16 * cols.div_ceil(128) + at % cols / 128];
                    }
                }
                let x = rng.values(m * k, 1.0);
                let (want, magnitudes) = expected(&case, &x, &values, format);
                let run = |ctx: Ctx| {
                    let mut c = vec![0.0f32; m * n];
                    let item = Item { m, a: MatIn::f32(x.as_ptr(), k), w, c: c.as_mut_ptr() };
                    let shared = Products { n, k, ldc: n, trans, accumulate: false, compute };
                    // SAFETY: all lies within the vectors.
                    unsafe { products(ctx, &[item], &shared) };
                    c
                };
                on_every_isa(run, |got| {
                    for ((got, want), magnitude) in got.iter().zip(&want).zip(&magnitudes) {
                        let error = (f64::from(*got) - want).abs();
                        assert!(error <= 1e-5 * magnitude, "{} {m}: {got}, want {want}", format.name());
                    }
                });
            }
        }
    }
}

#[test]
fn weights_beyond_one_slab_are_multiplied_slab_by_slab() {
    let (m, n, k) = (9, 300, 17_000);
    let bytes: Vec<u8> = (0..n * k).map(|i| (i % 7) as u8).collect();
    let x: Vec<f32> = (0..m * k).map(|i| (i % 3) as f32).collect();
    let w = Stored { format: Format::I8, base: bytes.as_ptr(), offset: 0, stride: k, scale: None };
    let mut c = vec![1.0f32; m * n];
    let shared = Products { n, k, ldc: n, trans: true, accumulate: true, compute: 0 };
    let item = Item { m, a: MatIn::f32(x.as_ptr(), k), w, c: c.as_mut_ptr() };
    // SAFETY: all lies within the vectors.
    with_best(|ctx| unsafe { products(ctx, &[item], &shared) });
    for (i, j) in [(0, 0), (8, 255), (3, 256), (8, 299)] {
        let sum: usize = (0..k).map(|q| ((i * k + q) % 3) * ((j * k + q) % 7)).sum();
        assert_eq!(c[i * n + j], 1.0 + sum as f32);
    }
}

#[test]
fn a_part_of_a_matrix_finds_its_blocks_and_scales() {
    let values: Vec<u8> = (0..6 * 10).map(|i| i as u8).collect();
    let scales: Vec<f32> = (1..=9).map(|i| i as f32).collect();
    let scale = Some(Scale { values: &scales, rows: 2, cols: 4 });
    let w = Stored { format: Format::I8, base: values.as_ptr(), offset: 23, stride: 10, scale };
    let mut out = [0.0; 6];
    with_best(|ctx| unsafe { w.read(ctx.isa, 1, 0, &mut out) });
    // Row 3, columns 3 to 8, of scales [[1, 2, 3], [4, 5, 6], [7, 8, 9]].
    let want = [33.0 * 4.0, 34.0 * 5.0, 35.0 * 5.0, 36.0 * 5.0, 37.0 * 5.0, 38.0 * 6.0];
    assert_close("part", &out, &want, 0.0);

    let mut rng = Rng(8);
    let bytes = random_blocks(&mut rng, Format::Q4_0, 64);
    let whole = decoded(Isa::Portable, Format::Q4_0, &bytes);
    let w = Stored { format: Format::Q4_0, base: bytes.as_ptr(), offset: 32, stride: 32, scale: None };
    let mut out = [0.0; 7];
    with_best(|ctx| unsafe { w.read(ctx.isa, 0, 0, &mut out) });
    assert_eq!(out, whole[32..39]);
}
