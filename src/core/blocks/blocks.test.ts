import * as fs from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import {
  fromE4m3Bits,
  fromE8m0Bits,
  fromF16Bits,
  toE2m1Bits,
  toE4m3Bits,
  toE8m0BitsUp,
  toF16Bits,
  E2M1_VALUES,
} from "../float-formats.ts";
import { decodeFp4Rows, decodeFp8Rows, encodeFp8Rows } from "../fp8-blocks.ts";
import {
  BLOCK_TYPES,
  decodeBlocks,
  encodeBlocks,
  typeForRows,
  type BlockType,
  type WritableBlockType,
} from "./block-codec.ts";

const golden = readGolden(fileURLToPath(new URL("../../../test/golden/blocks.safetensors", import.meta.url)));

/** The tensors of a small safetensors file; core stands below the room that reads them. */
function readGolden(file: string): Map<string, Uint8Array> {
  const bytes = fs.readFileSync(file);
  const start = 8 + Number(bytes.readBigUInt64LE(0));
  const header = JSON.parse(bytes.toString("utf8", 8, start)) as Record<string, { data_offsets: [number, number] }>;
  return new Map(
    Object.entries(header).map(
      ([
        name,
        {
          data_offsets: [begin, end],
        },
      ]) => [name, Uint8Array.from(bytes.subarray(start + begin, start + end))],
    ),
  );
}

const bytesOf = (name: string): Uint8Array => golden.get(name)!;
const floatsOf = (name: string): Float32Array => new Float32Array(bytesOf(name).buffer);
const bitsOf = (values: Float32Array): Uint32Array => new Uint32Array(values.buffer, values.byteOffset, values.length);

function decode(type: BlockType, blocks: Uint8Array, elements: number): Float32Array {
  const out = new Float32Array(elements);
  decodeBlocks(type, blocks, out);
  return out;
}

function meanSquare(a: Float32Array, b: Float32Array): number {
  return a.reduce((sum, value, i) => sum + (value - b[i]!) ** 2, 0) / a.length;
}

describe("stored blocks", () => {
  test.each(BLOCK_TYPES.filter((type) => type !== "F32"))("%s has the values of gguf, bit for bit", (type) => {
    const values = floatsOf(`${type}.values`);
    expect(bitsOf(decode(type, bytesOf(`${type}.blocks`), values.length))).toEqual(bitsOf(values));
  });

  test("F32 is itself", () => {
    const values = floatsOf("rows");
    expect(bitsOf(decode("F32", bytesOf("rows"), values.length))).toEqual(bitsOf(values));
    expect(encodeBlocks("F32", values)).toEqual(bytesOf("rows"));
  });

  test.each<WritableBlockType>(["Q8_0", "Q5_0", "Q4_0"])("%s is written as gguf writes it, byte for byte", (type) => {
    expect(encodeBlocks(type, floatsOf("rows"))).toEqual(bytesOf(`${type}.quantised`));
  });

  test.each<WritableBlockType>(["Q4_K", "Q6_K"])(
    "%s is written with less error than ggml's in all, and at most 5 %% more on one row",
    (type) => {
      const rows = floatsOf("rows");
      const [ours, theirs] = [encodeBlocks(type, rows), bytesOf(`${type}.quantised`)];
      expect(ours.length).toBe(theirs.length);
      const errors = (blocks: Uint8Array): number[] => {
        const values = decode(type, blocks, rows.length);
        const row = (r: number): [Float32Array, Float32Array] => [
          values.subarray(r * 256, r * 256 + 256),
          rows.subarray(r * 256, r * 256 + 256),
        ];
        return Array.from({ length: rows.length / 256 }, (_, r) => meanSquare(...row(r)));
      };
      const [own, other] = [errors(ours), errors(theirs)];
      const relative = own.filter((_, r) => other[r]! > 0).map((error, r) => error / other.filter((e) => e > 0)[r]!);
      expect(relative.length).toBeGreaterThan(12);
      expect(relative.reduce((sum, ratio) => sum + ratio, 0) / relative.length).toBeLessThan(1);
      expect(Math.max(...relative)).toBeLessThan(1.05);
    },
  );

  test("finer types have smaller errors", () => {
    const rows = floatsOf("rows").slice(0, 6 * 256);
    const errors = (["Q4_0", "Q4_K", "Q5_0", "Q6_K", "Q8_0", "BF16", "F16"] as const).map((type) =>
      meanSquare(decode(type, encodeBlocks(type, rows), rows.length), rows),
    );
    expect(errors).toEqual(errors.toSorted((a, b) => b - a));
    expect(errors.at(-1)).toBeLessThan(1e-10);
  });

  test("a row of zeros, and one whose scale is too small to store, come back as zeros", () => {
    for (const value of [0, 1e-30]) {
      const row = new Float32Array(256).fill(value);
      for (const type of ["Q4_0", "Q5_0", "Q8_0", "Q4_K", "Q6_K"] as const) {
        expect(decode(type, encodeBlocks(type, row), 256).every((x) => x === 0)).toBe(true);
      }
    }
  });

  test("rows that are no whole blocks fall back as llama.cpp's do", () => {
    expect([512, 1408, 100].map((columns) => typeForRows("Q4_K", columns))).toEqual(["Q4_K", "Q5_0", "F16"]);
    expect([512, 1408, 100].map((columns) => typeForRows("Q6_K", columns))).toEqual(["Q6_K", "Q8_0", "F16"]);
    expect([64, 100].map((columns) => typeForRows("Q8_0", columns))).toEqual(["Q8_0", "F16"]);
    expect(typeForRows("F32", 3)).toBe("F32");
  });
});

describe("narrow floats", () => {
  test("f16 rounds as numpy does", () => {
    const bits = new Uint16Array(bytesOf("f16.bits").buffer);
    expect(Uint16Array.from(floatsOf("f16.values"), toF16Bits)).toEqual(bits);
    expect(Number.isNaN(fromF16Bits(toF16Bits(NaN)))).toBe(true);
  });

  test("every f16 survives a round trip", () => {
    const halves = Array.from({ length: 65536 }, (_, half) => half).filter((half) => !Number.isNaN(fromF16Bits(half)));
    expect(halves.map((half) => toF16Bits(fromF16Bits(half)))).toEqual(halves);
  });

  test("e4m3 decodes and rounds as torch does, and saturates", () => {
    expect(Float32Array.from({ length: 256 }, (_, byte) => fromE4m3Bits(byte))).toEqual(floatsOf("e4m3.decoded"));
    expect(Uint8Array.from(floatsOf("e4m3.values"), toE4m3Bits)).toEqual(bytesOf("e4m3.bits"));
    expect([1e9, -1e9, Infinity].map((value) => fromE4m3Bits(toE4m3Bits(value)))).toEqual([448, -448, 448]);
  });

  test("e8m0 decodes as torch does, and rounds up to a power of two", () => {
    const decoded = Float32Array.from({ length: 255 }, (_, byte) => fromE8m0Bits(byte));
    expect(decoded).toEqual(floatsOf("e8m0.decoded"));
    expect([1, 1.5, 2, 0.26, 2 ** -126].map((value) => fromE8m0Bits(toE8m0BitsUp(value)))).toEqual([
      1,
      2,
      2,
      0.5,
      2 ** -126,
    ]);
    expect(fromE8m0Bits(255)).toBeNaN();
  });

  test("e2m1 takes the nearest of its values, ties to the even one", () => {
    expect(E2M1_VALUES.map(toE2m1Bits)).toEqual(Array.from({ length: 16 }, (_, code) => code));
    const ties = [0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5, 100].map((value) => E2M1_VALUES[toE2m1Bits(value)]);
    expect(ties).toEqual([0, 1, 1, 2, 2, 4, 4, 6]);
  });
});

describe("matrices of fp8 and fp4", () => {
  /** [130, 200]: a whole block, and partial ones to the right, below and in the corner. */
  const [rows, columns] = [130, 200];
  const values = Float32Array.from({ length: rows * columns }, (_, i) => Math.sin(i * 1.7) * 2 ** ((i % 7) - 8));

  test.each([null, "ue8m0"] as const)("blocks at the edges are partial, scales %s", (format) => {
    const { weight, scales } = encodeFp8Rows(values, columns, format);
    expect(scales.length).toBe(4);
    const out = new Float32Array(values.length);
    decodeFp8Rows(weight, scales, columns, 0, out);
    // e4m3 has four significant bits: half a unit is 1/16 of a value that is not subnormal under its scale.
    for (const [i, value] of values.entries()) {
      const scale = scales[Math.floor(i / columns / 128) * 2 + Math.floor((i % columns) / 128)]!;
      expect(Math.abs(out[i]! - value)).toBeLessThanOrEqual(Math.max(Math.abs(value) / 16, scale * 2 ** -10));
    }
    if (format === "ue8m0") expect([...scales].every((scale) => Number.isInteger(Math.log2(scale)))).toBe(true);
  });

  test("a slab of rows has the values that the whole matrix gives it", () => {
    const { weight, scales } = encodeFp8Rows(values, columns, null);
    const whole = new Float32Array(values.length);
    decodeFp8Rows(weight, scales, columns, 0, whole);
    const slab = new Float32Array(3 * columns);
    decodeFp8Rows(weight.subarray(127 * columns), scales, columns, 127, slab);
    expect(slab).toEqual(whole.subarray(127 * columns));
  });

  test("a block of zeros has scale 1", () => {
    expect(encodeFp8Rows(new Float32Array(4), 2, null)).toEqual({
      weight: new Uint8Array(4),
      scales: Float32Array.of(1),
    });
  });

  test("packed fp4 has the even column in the low half of a byte", () => {
    const packed = new Uint8Array(32).fill(0x2f);
    const out = new Float32Array(64);
    decodeFp4Rows(packed, Uint8Array.of(127, 129), out);
    expect([...out.subarray(0, 4)]).toEqual([-6, 1, -6, 1]);
    expect([...out.subarray(32, 36)]).toEqual([-24, 4, -24, 4]);
  });
});
