//! How the factors of a product are rounded before they are multiplied.

use super::Format;
use super::blocks::from_e4m3;
use crate::gemm::Compute;
use crate::ops::simd::per_isa;

/// What is done to the values of the left factor; those of the right one are rounded to bf16 along with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    None,
    Bf16,
    /// Groups of 128 values to e4m3. Source: deepseek-ai/DeepSeek-V3 inference/kernel.py (act_quant).
    E4m3,
}

impl Rounding {
    /// The number `compute` of a call: 0 is f32, 1 bf16, and 2 fp8 where the weights are stored so.
    pub fn of(compute: usize, weights: Format) -> Self {
        match (compute, weights) {
            (0, _) => Rounding::None,
            (2, Format::F8E4m3) => Rounding::E4m3,
            _ => Rounding::Bf16,
        }
    }

    /// How rounded factors are multiplied.
    pub fn compute(self) -> Compute {
        if self == Rounding::Bf16 { Compute::Bf16 } else { Compute::F32 }
    }

    /// Rounds a row of the left factor.
    pub fn apply(self, isa: crate::Isa, row: &mut [f32]) {
        match self {
            Rounding::None => (),
            Rounding::Bf16 => round_bf16(isa, row),
            Rounding::E4m3 => row.chunks_mut(GROUP).for_each(round_group),
        }
    }
}

/// Values that share a scale.
const GROUP: usize = 128;
const E4M3_MAX: f32 = 448.0;

per_isa! {
    /// Rounds to bf16, ties to even; NaN stays as it is.
    pub fn round_bf16(values: &mut [f32]) {
        for value in values {
            let bits = value.to_bits();
            let even = (bits.wrapping_add(0x7fff + ((bits >> 16) & 1))) & 0xffff_0000;
            *value = if value.is_nan() { *value } else { f32::from_bits(even) };
        }
    }
}

/// Rounds to e4m3 times max|x| / 448. A group of zeros stays as it is; NaN does not count for the maximum.
fn round_group(group: &mut [f32]) {
    let largest = group.iter().fold(0.0f32, |most, value| if value.abs() > most { value.abs() } else { most });
    let scale = largest / E4M3_MAX;
    if scale != 0.0 {
        group.iter_mut().for_each(|value| *value = from_e4m3(to_e4m3(*value / scale)) * scale);
    }
}

/// The nearest e4m3 number, ties to even; what is too large becomes ±448, NaN stays NaN.
pub fn to_e4m3(value: f32) -> u8 {
    let sign = (value.to_bits() >> 24) as u8 & 0x80;
    let magnitude = value.abs();
    if magnitude.is_nan() {
        return sign | 0x7f;
    }
    // Below 2⁻⁶ numbers are 2⁻⁹ apart: adding 2¹⁴ leaves them as the last bits of the sum.
    if magnitude < f32::from_bits((127 - 6) << 23) {
        return sign | ((magnitude + 16384.0).to_bits() - 16384.0f32.to_bits()) as u8;
    }
    let bits = magnitude.min(2.0 * E4M3_MAX).to_bits();
    let rounded = (bits + 0x7_ffff + ((bits >> 20) & 1)) >> 20;
    sign | (rounded - (120 << 3)).min(0x7e) as u8
}
