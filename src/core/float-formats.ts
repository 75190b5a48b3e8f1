/**
 * Narrow floating-point formats, value by value: f16, fp8 e4m3, fp4 e2m1, and the power-of-two scale e8m0. bf16 is in
 * `dtype.ts`. Decoding is exact; encoding rounds to nearest, ties to even.
 *
 * **Source:** IEEE 754 binary16; OCP 8-bit floating point 1.0 (e4m3) and microscaling formats 1.0 (e2m1, e8m0).
 */

const bits = new Uint32Array(1);
const float = new Float32Array(bits.buffer);

/** Bits of an f32 as its value. */
function fromF32Bits(value: number): number {
  bits[0] = value;
  return float[0]!;
}

/**
 * Bits of the nearest number with `mantissa` bits of mantissa and an exponent of bias `bias`, the sign left out, from an
 * f32's bits without sign. What is above the largest exponent comes out above it.
 */
function roundMagnitude(magnitude: number, mantissa: number, bias: number): number {
  const dropped = 23 - mantissa;
  const exponent = (magnitude >>> 23) - 127 + bias;
  if (exponent >= 1) {
    const rebased = magnitude - (127 - bias) * 2 ** 23;
    return roundBits(rebased, dropped);
  }
  // Subnormal: the leading 1 joins the mantissa, which moves right.
  const shift = dropped + 1 - exponent;
  if (shift > 25) return 0;
  return roundBits((magnitude & 0x7fffff) | 0x800000, shift);
}

/** `value / 2^count`, ties to even. */
function roundBits(value: number, count: number): number {
  const unit = 2 ** count;
  const floor = Math.floor(value / unit);
  const rest = value - floor * unit;
  const up = rest > unit / 2 || (rest === unit / 2 && floor % 2 === 1);
  return floor + (up ? 1 : 0);
}

const F16_INFINITY = 0x7c00;

/** The nearest f16 of an f32; what is too large becomes infinity, NaN stays NaN. Returns the 16 bits. */
export function toF16Bits(value: number): number {
  float[0] = value;
  const sign = (bits[0]! >>> 16) & 0x8000;
  const magnitude = bits[0]! & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7e00;
  return sign | Math.min(F16_INFINITY, roundMagnitude(magnitude, 10, 15));
}

export function fromF16Bits(half: number): number {
  const sign = (half & 0x8000) === 0 ? 1 : -1;
  const exponent = (half >>> 10) & 31;
  const mantissa = half & 1023;
  if (exponent === 31) return mantissa === 0 ? sign * Infinity : NaN;
  return exponent === 0 ? sign * mantissa * 2 ** -24 : sign * (1024 + mantissa) * 2 ** (exponent - 25);
}

let halves: Float32Array | undefined;

/** The values of all 65,536 f16 numbers, for loops. */
export function f16Table(): Float32Array {
  halves ??= Float32Array.from({ length: 65536 }, (_, half) => fromF16Bits(half));
  return halves;
}

/** The largest e4m3 number. */
export const E4M3_MAX = 448;

/** The nearest e4m3 of an f32; what is too large becomes ±448, NaN stays NaN. Returns the 8 bits. */
export function toE4m3Bits(value: number): number {
  float[0] = value;
  const sign = (bits[0]! >>> 24) & 0x80;
  const magnitude = bits[0]! & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7f;
  return sign | Math.min(0x7e, roundMagnitude(magnitude, 3, 7));
}

export function fromE4m3Bits(byte: number): number {
  const sign = (byte & 0x80) === 0 ? 1 : -1;
  const exponent = (byte >>> 3) & 15;
  const mantissa = byte & 7;
  if (exponent === 15 && mantissa === 7) return NaN;
  return exponent === 0 ? sign * mantissa * 2 ** -9 : sign * (8 + mantissa) * 2 ** (exponent - 10);
}

let e4m3Values: Float32Array | undefined;

/** The values of all 256 e4m3 numbers, for loops. */
export function e4m3Table(): Float32Array {
  e4m3Values ??= Float32Array.from({ length: 256 }, (_, byte) => fromE4m3Bits(byte));
  return e4m3Values;
}

/** `2^(byte − 127)`; 255 is NaN. */
export function fromE8m0Bits(byte: number): number {
  if (byte === 255) return NaN;
  return byte === 0 ? fromF32Bits(0x00400000) : fromF32Bits(byte * 2 ** 23);
}

/** The smallest power of two that is at least `value`, which must be above 0. Returns the 8 bits. */
export function toE8m0BitsUp(value: number): number {
  float[0] = value;
  const rounded = (bits[0]! >>> 23) + ((bits[0]! & 0x7fffff) === 0 ? 0 : 1);
  return Math.min(254, rounded);
}

/** The values of the 16 e2m1 numbers. */
export const E2M1_VALUES: readonly number[] = [0, 0.5, 1, 1.5, 2, 3, 4, 6, -0, -0.5, -1, -1.5, -2, -3, -4, -6];

/** The nearest e2m1 of a number; what is too large becomes ±6. Returns the 4 bits. */
export function toE2m1Bits(value: number): number {
  float[0] = value;
  const sign = (bits[0]! >>> 28) & 8;
  return sign | Math.min(7, roundMagnitude(bits[0]! & 0x7fffffff, 1, 1));
}
