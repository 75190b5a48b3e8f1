/** Folders in types with scales: fp8, int8, and fused experts in fp8. */

import * as fs from "node:fs";
import { afterAll, describe, expect, test } from "vitest";
import { ConversionFolder, differences, modelOf, rawTensors, writeRaw } from "../../test/helpers/conversion.ts";
import type { RawTensor } from "../../test/helpers/conversion.ts";
import { plainValues, writeRandomFolder } from "../../test/helpers/random-checkpoint.ts";
import { blueprint, countElements, countHeaders, releasedTensors } from "../blueprint/index.ts";
import { openModel } from "../blueprint/node.ts";
import { encodeFp8Rows, encodeInt8Rows, fromBf16Bits, fromE4m3Bits, toBf16Bits } from "../core/index.ts";
import { verifyConversion } from "./node.ts";
import { fp8Tensor } from "./quantised-tensors.ts";

const at = new ConversionFolder();
afterAll(() => at[Symbol.dispose]());

/** Sizes that no block of 128 divides; two fused halves of 72 rows share a block. */
const ODD = { nLayers: 2, nDenseLayers: 1, vocabSize: 300, dim: 160, interDim: 200, moeInterDim: 72, dtype: "f32" };

let made: Promise<void> | undefined;
async function source(): Promise<string> {
  await (made ??= writeRandomFolder(at.path("source"), modelOf("tiny", ODD)));
  return at.path("source");
}

/** Names of matrices that released fp8 checkpoints hold in fp8. */
function quantised(): Set<string> {
  const released = [...releasedTensors(blueprint(modelOf("tiny", { ...ODD, dtype: "fp8" })))];
  return new Set(released.filter(({ dtype }) => dtype === "F8_E4M3").map(({ name }) => name));
}

/** MTP layer included. */
function countValues(): number {
  const { parameters } = blueprint(modelOf("tiny", ODD));
  return parameters.reduce((sum, { shape }) => sum + countElements(shape), 0);
}

function expectBytes(name: string, got: Uint8Array, due: Uint8Array): void {
  expect(Buffer.from(got).equals(due), name).toBe(true);
}

const floats = (values: Float64Array): Float32Array => Float32Array.from(values);
const toBytes = (values: Float32Array | Int8Array): Uint8Array => new Uint8Array(values.buffer as ArrayBuffer);
const inBf16 = (value: number): number => fromBf16Bits(toBf16Bits(value));

describe("an fp8 folder", () => {
  test("holds the matrices in blocks with their scales, all else in bf16, and reads as fp8", async () => {
    const from = await source();
    const { digests } = await at.convert(from, "fp8", "fp8");
    const { model } = await openModel(at.path("fp8"));
    expect([model.dtype, model.scaleFmt]).toEqual(["fp8", null]);
    const tensors = await rawTensors(at.path("fp8"));
    const matrices = quantised();
    for (const [name, values] of await plainValues(from)) {
      const { dtype, bytes, shape } = tensors.get(name)!;
      if (!matrices.has(name)) {
        const kind = name.endsWith("e_score_correction_bias") ? "F32" : "BF16";
        expect([name, dtype]).toEqual([name, kind]);
        continue;
      }
      const { weight, scales } = encodeFp8Rows(floats(values), shape[1]!, null);
      expect(dtype).toBe("F8_E4M3");
      expectBytes(name, bytes, weight);
      expectBytes(name, tensors.get(`${name}_scale_inv`)!.bytes, toBytes(scales));
    }
    expect((await verifyConversion(at.path("fp8"), digests)).values).toBe(countValues());
  });

  test("in shards and back in f32 has its own values", async () => {
    await at.convert(await source(), "fp8-shards", "fp8", { maxShardBytes: 100_000 });
    await at.convert(at.path("fp8-shards"), "fp8-back", "f32");
    expect(differences(await plainValues(at.path("fp8-back")), await plainValues(at.path("fp8-shards")))).toEqual([]);
  });

  test("is encoded in slabs as it would be as a whole", async () => {
    const [rows, columns] = [200, 2 ** 14];
    const value = (i: number): number => Math.sin(i * 1.7) * (1 + Math.floor(i / columns));
    const whole = Float32Array.from({ length: rows * columns }, (_, i) => value(i));
    const reads: number[] = [];
    const read = (first: number, count: number): Promise<Float32Array> => {
      reads.push(first);
      return Promise.resolve(whole.slice(first * columns, (first + count) * columns));
    };
    const due = encodeFp8Rows(whole, columns, null);
    for (const [dtype, expected] of [
      ["F8_E4M3", due.weight],
      ["F32", toBytes(due.scales)],
    ] as const) {
      const shape = dtype === "F32" ? [2, 128] : [rows, columns];
      const chunks: Uint8Array[] = [];
      const tensor = fp8Tensor({ name: "w", shape, dtype }, () => ({ rows, columns, read }), null);
      for await (const chunk of tensor.chunks()) chunks.push(chunk);
      expect(Buffer.concat(chunks).equals(expected), dtype).toBe(true);
      expect(tensor.bytes).toBe(expected.length);
    }
    expect(reads).toEqual([0, 128, 0, 128]);
  });
});

describe("an int8 folder", () => {
  test("holds the matrices as signed bytes with a scale for each row, and says so as compressed-tensors does", async () => {
    const from = await source();
    const { digests } = await at.convert(from, "int8", "int8");
    const config = JSON.parse(fs.readFileSync(at.path("int8", "config.json"), "utf8")) as Record<string, unknown>;
    expect(config).toMatchObject({
      torch_dtype: "bfloat16",
      quantization_config: {
        quant_method: "compressed-tensors",
        format: "int-quantized",
        config_groups: { group_0: { format: "int-quantized", weights: { num_bits: 8, strategy: "channel" } } },
      },
    });
    const tensors = await rawTensors(at.path("int8"));
    const matrices = quantised();
    for (const [name, values] of await plainValues(from)) {
      const { dtype, bytes, shape } = tensors.get(name)!;
      if (!matrices.has(name)) {
        expect([name, dtype]).toEqual([name, name.endsWith("e_score_correction_bias") ? "F32" : "BF16"]);
        continue;
      }
      const { weight, scales } = encodeInt8Rows(floats(values), shape[1]!);
      expect(dtype).toBe("I8");
      expectBytes(name, bytes, toBytes(weight));
      const scale = tensors.get(`${name}_scale`)!;
      expect([scale.dtype, scale.shape], name).toEqual(["F32", [shape[0], 1]]);
      expectBytes(name, scale.bytes, toBytes(scales));
    }
    const { values } = await verifyConversion(at.path("int8"), digests);
    expect(values).toBe(countValues());
  });

  test("takes a byte for each value of a matrix and four for each of its rows", async () => {
    await at.convert(await source(), "int8-size", "int8");
    const { model, source: opened } = await openModel(at.path("int8-size"));
    const tensors = "tensors" in opened ? opened.tensors : new Map<string, never>();
    const due = [...tensors].reduce((sum, [name, { shape, dtype }]) => {
      const count = shape.reduce((product, n) => product * n, 1);
      if (dtype === "I8") return sum + count + 4 * shape[0]!;
      return name.endsWith("_scale") ? sum : sum + count * (dtype === "F32" ? 4 : 2);
    }, 0);
    const { bytes, scales } = countHeaders(blueprint(model), tensors, "safetensors");
    expect(bytes).toBe(due);
    expect(scales).toBe([...tensors].reduce((sum, [, { shape, dtype }]) => sum + (dtype === "I8" ? shape[0]! : 0), 0));
    expect([model.dtype, quantised().size]).toEqual([
      "bf16",
      [...tensors.values()].filter(({ dtype }) => dtype === "I8").length,
    ]);
  });

  test("is a source like any other: to f32, and to a GGUF file", async () => {
    await at.convert(await source(), "int8-from", "int8");
    await at.convert(at.path("int8-from"), "int8-back", "f32");
    const values = await plainValues(at.path("int8-from"));
    expect(differences(await plainValues(at.path("int8-back")), values)).toEqual([]);
    await at.convert(at.path("int8-from"), "int8.gguf", "f32");
    await at.convert(at.path("int8.gguf"), "int8-gguf", "f32");
    const main = new Map([...values].filter(([name]) => !name.startsWith("model.layers.2.")));
    expect(differences(await plainValues(at.path("int8-gguf")), main)).toEqual([]);
  });

  test("of strategy group, a scale for each group of columns, is read too", async () => {
    await at.convert(await source(), "int8-group", "int8");
    const file = at.path("int8-group", "config.json");
    const text = fs
      .readFileSync(file, "utf8")
      .replace('"strategy": "channel"', '"strategy": "group",\n"group_size": 8');
    fs.writeFileSync(file, text);
    const tensors = await rawTensors(at.path("int8-group"));
    const values = await plainValues(await source());
    const due = new Map<string, Float64Array>();
    for (const name of quantised()) {
      const [rows = 0, columns = 0] = tensors.get(name)!.shape;
      const { weight, scales } = encodeInt8Rows(floats(values.get(name)!), 8);
      tensors.set(name, { dtype: "I8", shape: [rows, columns], bytes: toBytes(weight) });
      tensors.set(`${name}_scale`, { dtype: "F32", shape: [rows, columns / 8], bytes: toBytes(scales) });
      due.set(
        name,
        Float64Array.from(weight, (byte, i) => Math.fround(byte * scales[Math.floor(i / 8)]!)),
      );
    }
    await writeRaw(at.path("int8-group"), tensors);
    await at.convert(at.path("int8-group"), "int8-group-back", "f32");
    const back = await plainValues(at.path("int8-group-back"));
    const got = new Map([...due.keys()].map((name) => [name, back.get(name)!]));
    expect(differences(got, due)).toEqual([]);
  });

  test("with scales in bf16, as others write them, is read too", async () => {
    await at.convert(await source(), "int8-bf16", "int8");
    const tensors = await rawTensors(at.path("int8-bf16"));
    const name = "model.layers.0.self_attn.o_proj.weight";
    const { shape, bytes } = tensors.get(`${name}_scale`)!;
    const scales = Array.from(new Float32Array(bytes.buffer), inBf16);
    const halves = Uint16Array.from(scales, toBf16Bits);
    tensors.set(`${name}_scale`, { dtype: "BF16", shape, bytes: new Uint8Array(halves.buffer) });
    await writeRaw(at.path("int8-bf16"), tensors);
    await at.convert(at.path("int8-bf16"), "int8-bf16-back", "f32");
    const weight = new Int8Array(tensors.get(name)!.bytes.buffer);
    const columns = weight.length / scales.length;
    const due = Float64Array.from(weight, (byte, i) => Math.fround(byte * scales[Math.floor(i / columns)]!));
    expect((await plainValues(at.path("int8-bf16-back"))).get(name)).toEqual(due);
  });
});

describe("fused experts in fp8", () => {
  /** Experts of a layer one below the other in a single tensor, quantised with blocks that begin anew at each. */
  function fuse(parts: readonly (readonly Float64Array[])[], columns: number): { weight: RawTensor; scale: RawTensor } {
    const encoded = parts.map((matrices) => {
      const values = Float32Array.from(matrices.flatMap((matrix) => [...matrix]));
      return encodeFp8Rows(values, columns, null);
    });
    const rows = encoded[0]!.weight.length / columns;
    const blocks = [Math.ceil(rows / 128), Math.ceil(columns / 128)];
    return {
      weight: {
        dtype: "F8_E4M3",
        shape: [parts.length, rows, columns],
        bytes: Buffer.concat(encoded.map(({ weight }) => weight)),
      },
      scale: {
        dtype: "F32",
        shape: [parts.length, ...blocks],
        bytes: Buffer.concat(encoded.map(({ scales }) => toBytes(scales))),
      },
    };
  }

  async function writeFused(name: string): Promise<Map<string, RawTensor>> {
    const from = await source();
    await at.convert(from, name, "fp8");
    const values = await plainValues(from);
    const tensors = await rawTensors(at.path(name));
    for (const layer of [1, 2]) {
      const experts = `model.layers.${layer}.mlp.experts`;
      const all = (kind: string): Float64Array[] =>
        Array.from({ length: 8 }, (_, e) => values.get(`${experts}.${e}.${kind}_proj.weight`)!);
      const [gate, up, down] = [all("gate"), all("up"), all("down")];
      for (const key of tensors.keys()) if (key.startsWith(`${experts}.`)) tensors.delete(key);
      for (const [key, parts, columns] of [
        ["gate_up_proj", gate.map((own, e) => [own, up[e]!]), 160],
        ["down_proj", down.map((own) => [own]), 72],
      ] as const) {
        const { weight, scale } = fuse(parts, columns);
        tensors.set(`${experts}.${key}`, weight).set(`${experts}.${key}_scale_inv`, scale);
      }
    }
    await writeRaw(at.path(name), tensors);
    return tensors;
  }

  test("are read, a block that spans gate and up among them", async () => {
    await writeFused("fused-fp8");
    await at.convert(at.path("fused-fp8"), "fused-fp8-back", "f32");
    const [before, after] = [await plainValues(await source()), await plainValues(at.path("fused-fp8-back"))];
    let worst = 0;
    for (const name of quantised()) {
      if (!name.includes(".experts.")) continue;
      const [due, got] = [before.get(name)!, after.get(name)!];
      const largest = Math.max(...due.map(Math.abs));
      due.forEach((value, i) => (worst = Math.max(worst, Math.abs(got[i]! - value) / largest)));
    }
    // Half a step of three mantissa bits, of the largest of the block.
    expect(worst).toBeGreaterThan(0);
    expect(worst).toBeLessThan(1 / 16);
    // Rows of up share a scale with those of gate.
    const gate = after.get("model.layers.1.mlp.experts.3.gate_proj.weight")!;
    const up = after.get("model.layers.1.mlp.experts.3.up_proj.weight")!;
    const tensors = await rawTensors(at.path("fused-fp8"));
    const scales = new Float32Array(
      tensors.get("model.layers.1.mlp.experts.gate_up_proj_scale_inv")!.bytes.slice().buffer,
    );
    const bytes = tensors.get("model.layers.1.mlp.experts.gate_up_proj")!.bytes;
    const code = (row: number, column: number): number => bytes[(3 * 144 + row) * 160 + column]!;
    expect(gate[5 * 160 + 7]).toBe(Math.fround(fromE4m3Bits(code(5, 7)) * scales[3 * 4]!));
    expect(up[5 * 160 + 130]).toBe(Math.fround(fromE4m3Bits(code(77, 130)) * scales[3 * 4 + 1]!));
    expect(up[70 * 160 + 2]).toBe(Math.fround(fromE4m3Bits(code(142, 2)) * scales[3 * 4 + 2]!));
  });

  test("without their scales, or with too few, are refused before anything is written", async () => {
    const tensors = await writeFused("fused-poor");
    const name = "model.layers.1.mlp.experts.down_proj_scale_inv";
    const { shape, ...scale } = tensors.get(name)!;
    await writeRaw(at.path("fused-poor"), tensors.set(name, { ...scale, shape: [shape[1]!, shape[0]!, shape[2]!] }));
    const few = await at.failure(at.convert(at.path("fused-poor"), "x", "f32"));
    tensors.delete(name);
    await writeRaw(at.path("fused-poor"), tensors);
    expect([few, await at.failure(at.convert(at.path("fused-poor"), "x", "f32"))]).toMatchInlineSnapshot(`
      [
        "FormatError: /fused-poor: must hold model.layers.1.mlp.experts.down_proj_scale_inv as [8, 2, 1], got [2, 8, 1]; fathom inspect lists all that is missing, unexpected or of another shape",
        "FormatError: /fused-poor: must hold model.layers.1.mlp.experts.down_proj_scale_inv (one of 1 that are missing); fathom inspect lists all that is missing, unexpected or of another shape",
      ]
    `);
    expect(fs.existsSync(at.path("x.partial"))).toBe(false);
  });

  test("are not written: a type with scales has experts one by one", async () => {
    expect(await at.failure(at.convert(await source(), "x", "int8", { fusedExperts: true }))).toMatchInlineSnapshot(
      `"ConfigError: --fused-experts: must not stand with a type that has scales, got "int8"; leave it out"`,
    );
  });
});

describe("weights that cannot be read are named before anything is written", () => {
  const NAME = "model.layers.0.self_attn.o_proj.weight";
  const refusal = async (change: (tensors: Map<string, RawTensor>) => void): Promise<string> => {
    fs.rmSync(at.path("poor"), { recursive: true, force: true });
    await at.convert(await source(), "poor", "int8");
    const tensors = await rawTensors(at.path("poor"));
    change(tensors);
    await writeRaw(at.path("poor"), tensors);
    const message = await at.failure(at.convert(at.path("poor"), "x", "f32"));
    expect(fs.existsSync(at.path("x.partial"))).toBe(false);
    return message;
  };

  test("int8 without scales, or with scales of another shape; a type that holds no weights", async () => {
    const bytes = new Uint8Array(8 * 160 * 16);
    expect([
      await refusal((tensors) => tensors.delete(`${NAME}_scale`)),
      await refusal((tensors) => {
        const scale = tensors.get(`${NAME}_scale`)!;
        tensors.set(`${NAME}_scale`, { ...scale, shape: [160, 1, 1] });
      }),
      await refusal((tensors) => {
        tensors.delete(`${NAME}_scale`);
        tensors.set(NAME, { dtype: "F64", shape: [160, 16], bytes });
      }),
    ]).toMatchInlineSnapshot(`
      [
        "FormatError: /poor/model.safetensors: must hold the scales of model.layers.0.self_attn.o_proj.weight, which is I8; copy the file again",
        "FormatError: /poor/model.safetensors: must hold model.layers.0.self_attn.o_proj.weight_scale as [160, 1], got [160, 1, 1]",
        "UnsupportedError: /poor/model.safetensors model.layers.0.self_attn.o_proj.weight: must be of a type that can be read, got "F64"; available: F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, IQ4_NL, MXFP4, Q4_K, Q5_K, Q6_K, F8_E4M3, F8_E8M0, I32, I64",
      ]
    `);
  });
});
