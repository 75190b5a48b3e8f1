import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { fileURLToPath } from "node:url";
import * as fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { fullAfter } from "../../test/helpers/failing-files.ts";
import { decodeBlocks } from "../core/index.ts";
import { FormatError, IoError } from "../core/errors.ts";
import { GGUF_TYPES, ggufBytes, VALUE_BYTES, type GgufScalarType, type GgufType } from "./gguf-types.ts";
import { writeGguf, writeSplitGguf, type GgufEntry, type GgufTensorSource } from "./index.ts";
import { nodeFiles, openGguf } from "./node.ts";

let folder: string;
beforeAll(() => {
  folder = fs.mkdtempSync(path.join(os.tmpdir(), "fathom-gguf-"));
});
afterAll(() => {
  fs.rmSync(folder, { recursive: true });
});

const inFolder = (name: string): string => path.join(folder, name);

/** A tensor of counting bytes, handed over in chunks of at most `step` bytes. */
function source(name: string, dtype: GgufType, shape: number[], step = 7): GgufTensorSource {
  const bytes = Uint8Array.from({ length: ggufBytes(dtype, shape)! }, (_, i) => (i * 31 + name.length) & 255);
  const chunks = function* (): Generator<Uint8Array> {
    for (let at = 0; at < bytes.length; at += step) yield bytes.subarray(at, at + step);
  };
  return { name, dtype, shape, chunks };
}

function bytesOf(tensor: GgufTensorSource): Uint8Array {
  return Uint8Array.from([...(tensor.chunks() as Iterable<Uint8Array>)].flatMap((chunk) => [...chunk]));
}

async function failure(promise: Promise<unknown>): Promise<string> {
  const error = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(FormatError);
  return (error as Error).message.replaceAll(folder, "");
}

const text = (value: string): GgufEntry => ({ type: "text", value });

describe("round trips", () => {
  const scalar: Record<GgufScalarType, fc.Arbitrary<number | bigint | boolean | string>> = {
    u8: fc.integer({ min: 0, max: 255 }),
    i8: fc.integer({ min: -128, max: 127 }),
    u16: fc.integer({ min: 0, max: 65535 }),
    i16: fc.integer({ min: -32768, max: 32767 }),
    u32: fc.integer({ min: 0, max: 2 ** 32 - 1 }),
    i32: fc.integer(),
    f32: fc.float({ noNaN: true }),
    bool: fc.boolean(),
    text: fc.string({ unit: "binary" }),
    u64: fc.bigInt({ min: 2n ** 53n, max: 2n ** 64n - 1n }),
    i64: fc.maxSafeInteger(),
    f64: fc.double({ noNaN: true }),
  };
  const types = Object.keys(scalar) as GgufScalarType[];
  const entry = fc.constantFrom(...types).chain((type): fc.Arbitrary<GgufEntry> =>
    fc.oneof(
      scalar[type].map((value): GgufEntry => ({ type, value })),
      fc.array(scalar[type], { maxLength: 20 }).map((values): GgufEntry => ({ type: "list", of: type, values })),
    ),
  );
  const names = fc.uniqueArray(fc.string({ unit: "binary", minLength: 1, maxLength: 40 }), { maxLength: 8 });
  const tensor = fc.record({
    dtype: fc.constantFrom<GgufType[]>("F32", "F16", "BF16", "Q8_0", "Q4_K", "MXFP4", "I64"),
    axes: fc.array(fc.nat(4), { maxLength: 3 }),
    step: fc.integer({ min: 1, max: 100 }),
  });

  test("what is written is read back: values of every type, lists, tensors", async () => {
    let run = 0;
    await fc.assert(
      fc.asyncProperty(names, fc.infiniteStream(tensor), fc.array(entry), async (ids, stream, entries) => {
        const tensors = ids.map((name) => {
          const { dtype, axes, step } = stream.next().value as { dtype: GgufType; axes: number[]; step: number };
          return source(name, dtype, [...axes, GGUF_TYPES[dtype].blockElements], step);
        });
        const metadata = new Map(entries.map((value, i) => [`key.${i}`, value]));
        const file = inFolder(`round-${run++}.gguf`);
        await writeGguf(nodeFiles, file, { metadata, tensors });
        const reader = await openGguf(file);
        for (const [key, written] of metadata) {
          const found = reader.metadata.get(key)!;
          expect(found.type).toBe(written.type);
          if (written.type === "list") expect(await reader.readList(key)).toEqual(written.values);
          else expect(found).toEqual(written);
        }
        expect([...reader.tensors.keys()].toSorted()).toEqual(ids.toSorted());
        for (const expected of tensors) {
          const found = reader.tensors.get(expected.name)!;
          expect([found.dtype, found.shape, found.offset % 32]).toEqual([expected.dtype, expected.shape, 0]);
          expect(await reader.read(expected.name)).toEqual(bytesOf(expected));
        }
        await reader.close();
      }),
      { numRuns: 60 },
    );
  });

  test("long lists are left in the file and read when asked for", async () => {
    const tokens = Array.from({ length: 50_000 }, (_, i) => `token ${i} ${"é".repeat(i % 30)}`);
    const scores = Array.from({ length: 50_000 }, (_, i) => i / 4);
    const metadata = new Map<string, GgufEntry>([
      ["tokens", { type: "list", of: "text", values: tokens }],
      ["scores", { type: "list", of: "f32", values: scores }],
      ["after", text("the lists")],
    ]);
    await writeGguf(nodeFiles, inFolder("lists.gguf"), { metadata, tensors: [source("w", "F32", [2])] });
    const reader = await openGguf(inFolder("lists.gguf"));
    expect(reader.metadata.get("tokens")).toMatchObject({ count: 50_000, values: undefined });
    expect(reader.metadata.get("after")).toEqual(text("the lists"));
    expect(await reader.readList("tokens")).toEqual(tokens);
    expect(await reader.readList("scores")).toEqual(scores);
    await reader.close();
  });

  test("a split file is read as one from any of its parts", async () => {
    const tensors = ["a", "b", "c"].map((name) => source(name, "F32", [16]));
    const metadata = new Map([["general.architecture", text("deepseek2")]]);
    const paths = await writeSplitGguf(nodeFiles, inFolder("split"), { metadata, tensors }, 128);
    expect(paths.map((file) => path.basename(file))).toEqual([
      "split-00001-of-00002.gguf",
      "split-00002-of-00002.gguf",
    ]);
    for (const file of paths) {
      const reader = await openGguf(file);
      expect([...reader.tensors.keys()]).toEqual(["a", "b", "c"]);
      expect(reader.metadata.get("general.architecture")).toEqual(text("deepseek2"));
      expect(await reader.read("c", 4, 8)).toEqual(bytesOf(tensors[2]!).subarray(4, 12));
      await reader.close();
    }
  });

  test("parts that are missing, mixed up or renamed are refused", async () => {
    const tensors = ["a", "b"].map((name) => source(name, "F32", [16]));
    const [first, second] = (await writeSplitGguf(
      nodeFiles,
      inFolder("parts"),
      { metadata: new Map(), tensors },
      64,
    )) as [string, string];
    fs.copyFileSync(first, inFolder("renamed.gguf"));
    expect(await failure(openGguf(inFolder("renamed.gguf")))).toMatchInlineSnapshot(
      `"/renamed.gguf: must have a name that ends with -00001-of-2 or the like, got "/renamed.gguf"; give all parts the names that llama-gguf-split gave them"`,
    );
    fs.copyFileSync(first, second);
    expect(await failure(openGguf(first))).toMatchInlineSnapshot(
      `"/parts-00002-of-00002.gguf: must have split.no = 1, got 0; it is a part of another file"`,
    );
    fs.rmSync(second);
    await expect(openGguf(first)).rejects.toThrow("-00002-of-00002.gguf: must be there: it is a part of this split");
    await expect(openGguf(first)).rejects.toThrow(IoError);
  });
});

test("a write that fails on a full disk leaves the old file as it was and nothing beside it", async () => {
  const at = inFolder("full");
  fs.mkdirSync(at);
  const metadata = new Map([["general.architecture", text("llama")]]);
  const old = source("w", "F32", [8]);
  await writeGguf(nodeFiles, `${at}/model.gguf`, { metadata, tensors: [old] });
  for (const room of [0, 10, 100, 3000]) {
    const large = { metadata, tensors: [source("w", "F32", [1000])] };
    await expect(writeGguf(fullAfter(nodeFiles, room), `${at}/model.gguf`, large)).rejects.toThrow(IoError);
  }
  expect(fs.readdirSync(at)).toEqual(["model.gguf"]);
  const reader = await openGguf(`${at}/model.gguf`);
  expect(await reader.read("w")).toEqual(bytesOf(old));
  await reader.close();
});

test("a file of the Python package is read: values of every type, shapes, offsets", async () => {
  const reader = await openGguf(fileURLToPath(new URL("../../test/golden/python.gguf", import.meta.url)));
  const values = [...reader.metadata].map(([key, entry]) => [
    key,
    entry.type,
    "value" in entry ? entry.value : entry.of,
  ]);
  expect(values).toEqual([
    ["general.architecture", "text", "deepseek2"],
    ["t.u8", "u8", 250],
    ["t.i8", "i8", -5],
    ["t.u16", "u16", 65000],
    ["t.i16", "i16", -30000],
    ["t.u32", "u32", 4_000_000_000],
    ["t.i32", "i32", -2_000_000_000],
    ["t.f32", "f32", Math.fround(0.1)],
    ["t.bool", "bool", true],
    ["t.text", "text", "深度求索 \u{1F600}"],
    ["t.u64", "u64", 2n ** 63n + 1n],
    ["t.i64", "i64", -(2 ** 40)],
    ["t.f64", "f64", 0.1],
    ["t.texts", "list", "text"],
    ["t.numbers", "list", "i32"],
  ]);
  expect(await reader.readList("t.texts")).toEqual(["a", "", "ß"]);
  expect(await reader.readList("t.numbers")).toEqual([1, -2, 3]);
  const tensors = [...reader.tensors].map(([name, { dtype, shape, offset }]) => [name, dtype, shape, offset % 32]);
  expect(tensors).toEqual([
    ["w.f32", "F32", [2, 32], 0],
    ["w.f16", "F16", [2, 3], 0],
    ["w.q8_0", "Q8_0", [2, 32], 0],
  ]);
  const out = new Float32Array(64);
  decodeBlocks("F16", await reader.read("w.f16"), out);
  expect([...out.subarray(0, 6)]).toEqual([0, 1, 2, 32, 33, 34]);
  decodeBlocks("F32", await reader.read("w.f32"), out);
  expect(out).toEqual(Float32Array.from({ length: 64 }, (_, i) => i));
  await reader.close();
});

/** A header made by hand: every field can lie. */
class Bytes {
  readonly #parts: Uint8Array[] = [];
  u32(value: number): this {
    return this.#push(4, (view) => view.setUint32(0, value, true));
  }
  u64(value: number | bigint): this {
    return this.#push(8, (view) => view.setBigUint64(0, BigInt(value), true));
  }
  text(value: string | Uint8Array): this {
    const bytes = typeof value === "string" ? new TextEncoder().encode(value) : value;
    this.u64(bytes.length).#parts.push(bytes);
    return this;
  }
  zeros(count: number): this {
    this.#parts.push(new Uint8Array(count));
    return this;
  }
  pad(alignment: number): this {
    const length = this.#parts.reduce((sum, part) => sum + part.length, 0);
    return this.zeros((alignment - (length % alignment)) % alignment);
  }
  #push(size: number, write: (view: DataView) => void): this {
    const bytes = new Uint8Array(size);
    write(new DataView(bytes.buffer));
    this.#parts.push(bytes);
    return this;
  }
  save(name: string): string {
    fs.writeFileSync(inFolder(name), Buffer.concat(this.#parts));
    return inFolder(name);
  }
}

const GGUF = 0x46554747;
const header = (tensors: number | bigint, metadata: number | bigint, version = 3): Bytes =>
  new Bytes().u32(GGUF).u32(version).u64(tensors).u64(metadata);
const tensor = (bytes: Bytes, name: string, ne: (number | bigint)[], type: number, offset: number | bigint): Bytes => {
  bytes.text(name).u32(ne.length);
  for (const n of ne) bytes.u64(n);
  return bytes.u32(type).u64(offset);
};
const refuse = (bytes: Bytes): Promise<string> => failure(openGguf(bytes.save("hostile.gguf")));

test("a file of another alignment is read as it says", async () => {
  const bytes = header(2, 1).text("general.alignment").u32(4).u32(64);
  tensor(tensor(bytes, "a", [8], 0, 0), "b", [8], 0, 64)
    .pad(64)
    .zeros(32)
    .pad(64)
    .zeros(32);
  const reader = await openGguf(bytes.save("aligned.gguf"));
  expect([...reader.tensors.values()].map(({ offset }) => offset % 64)).toEqual([0, 0]);
  await reader.close();
});

describe("a malformed file is refused with its place", () => {
  test("not GGUF, of another version, big-endian, cut off", async () => {
    expect(await refuse(new Bytes().u32(7).zeros(40))).toMatchInlineSnapshot(
      `"/hostile.gguf at byte 0: must be a GGUF file, which begins with the letters GGUF; copy or download it again, or name another file"`,
    );
    expect(await refuse(new Bytes().u32(0x46554747).zeros(2))).toMatchInlineSnapshot(
      `"/hostile.gguf at byte 4: must have 4 bytes more here, got 2; the file is cut off or damaged; copy or download it again"`,
    );
    expect(await refuse(header(0, 0, 1))).toMatchInlineSnapshot(
      `"/hostile.gguf at byte 4: must be GGUF version 3, got 1; convert it again"`,
    );
    expect(await refuse(header(0, 0, 0x03000000))).toMatchInlineSnapshot(
      `"/hostile.gguf at byte 4: must be GGUF version 3, got 50331648; it is big-endian; convert it to little-endian"`,
    );
    expect(await refuse(header(0, 2).text("a").u32(4).u32(1).text("a key that ends the file"))).toMatchInlineSnapshot(
      `"/hostile.gguf at byte 73: must have 4 bytes more here, got 0; the file is cut off or damaged; copy or download it again"`,
    );
    expect(await refuse(tensor(header(1, 0), "w", [16], 0, 0).pad(32).zeros(63))).toMatchInlineSnapshot(
      `"/hostile.gguf at byte 127: must have 128 bytes, got 127; the file is cut off; copy or download it again"`,
    );
  });

  test("counts that the file cannot hold are refused before they are read", async () => {
    expect(await refuse(header(2n ** 63n, 0))).toMatchInlineSnapshot(
      `"/hostile.gguf at byte 8: must have at most 1048576 tensors, got 9223372036854775808"`,
    );
    expect(await refuse(header(1000, 0))).toMatchInlineSnapshot(
      `"/hostile.gguf at byte 8: must have at most the tensors that its 8 further bytes can hold, got 1000"`,
    );
    expect(await refuse(header(0, 50).zeros(100))).toMatchInlineSnapshot(
      `"/hostile.gguf at byte 16: must have at most the metadata values that its 100 further bytes can hold, got 50"`,
    );
    expect(
      await refuse(
        header(0, 1)
          .text("k")
          .u32(9)
          .u32(4)
          .u64(2n ** 40n),
      ),
    ).toMatchInlineSnapshot(
      `"/hostile.gguf at byte 41: must give k a list of at most 2 values, which is all that can follow, got 1099511627776"`,
    );
    expect(
      await refuse(
        header(0, 1)
          .text("k")
          .u32(9)
          .u32(8)
          .u64(1)
          .u64(2n ** 62n)
          .zeros(64),
      ),
    ).toMatchInlineSnapshot(
      `"/hostile.gguf at byte 57: must have 4611686018427388000 bytes more here, got 64; the file is cut off or damaged; copy or download it again"`,
    );
    expect(
      await refuse(
        header(0, 1)
          .u64(2n ** 40n)
          .zeros(40),
      ),
    ).toMatchInlineSnapshot(
      `"/hostile.gguf at byte 24: must have a metadata key of at most 65535 bytes, got 1099511627776"`,
    );
    expect(
      await refuse(
        header(0, 1)
          .text("k")
          .u32(8)
          .u64(2n ** 33n),
      ),
    ).toMatchInlineSnapshot(`"/hostile.gguf at byte 37: must have k of at most 16777216 bytes, got 8589934592"`);
  });

  test("a list that would lead through the whole file is held to the limit of headers", async () => {
    const file = header(0, 1)
      .text("k")
      .u32(9)
      .u32(8)
      .u64(2 ** 30)
      .save("long.gguf");
    fs.truncateSync(file, 2 ** 34);
    expect(await failure(openGguf(file))).toMatchInlineSnapshot(
      `"/long.gguf at byte 41: must give k a list of at most 33554426 values, which is all that can follow, got 1073741824"`,
    );
  });

  test("keys, types and texts", async () => {
    expect(await refuse(header(0, 2).text("k").u32(4).u32(1).text("k").u32(4).u32(1))).toMatchInlineSnapshot(
      `"/hostile.gguf at byte 41: must give k once"`,
    );
    expect(await refuse(header(0, 1).text("k").u32(13).zeros(8))).toMatchInlineSnapshot(
      `"/hostile.gguf at byte 33: must give k a known type of value, got 13"`,
    );
    expect(await refuse(header(0, 1).text("k").u32(9).u32(9).u64(0))).toMatchInlineSnapshot(
      `"/hostile.gguf at byte 37: must give k a list without lists in it"`,
    );
    expect(await refuse(header(0, 1).text(Uint8Array.of(0x61, 0xff)).u32(4).u32(0))).toMatchInlineSnapshot(
      `"/hostile.gguf at byte 32: must have a metadata key in UTF-8"`,
    );
    expect(await refuse(header(0, 1).text("k").u32(8).text(Uint8Array.of(0xc3)))).toMatchInlineSnapshot(
      `"/hostile.gguf at byte 45: must have k in UTF-8"`,
    );
    expect(await refuse(header(0, 1).text("general.alignment").u32(4).u32(48))).toMatchInlineSnapshot(
      `"/hostile.gguf at byte 57: must give general.alignment as u32, a power of two up to 65536, got 48"`,
    );
    expect(await refuse(header(0, 1).text("general.alignment").u32(8).text("32"))).toMatchInlineSnapshot(
      `"/hostile.gguf at byte 63: must give general.alignment as u32, a power of two up to 65536, got "32""`,
    );
  });

  test("tensors: names, axes, types, blocks, overflow", async () => {
    const two = (a: string, b: string): Bytes => tensor(tensor(header(2, 0), a, [8], 0, 0), b, [8], 0, 32);
    expect(await refuse(two("w", "w").pad(32).zeros(64))).toMatchInlineSnapshot(
      `"/hostile.gguf at byte 57: must name w once"`,
    );
    expect(await refuse(tensor(header(1, 0), "n".repeat(300), [8], 0, 0))).toMatchInlineSnapshot(
      `"/hostile.gguf at byte 24: must have a tensor's name of at most 255 bytes, got 300"`,
    );
    expect(await refuse(tensor(header(1, 0), "w", [1, 1, 1, 1, 1], 0, 0))).toMatchInlineSnapshot(
      `"/hostile.gguf at byte 33: must give w at most 4 axes, got 5"`,
    );
    expect(await refuse(tensor(header(1, 0), "w", [8], 4, 0))).toMatchInlineSnapshot(
      `"/hostile.gguf at byte 45: must give w a known type, got 4"`,
    );
    expect(await refuse(tensor(header(1, 0), "w", [48], 8, 0))).toMatchInlineSnapshot(
      `"/hostile.gguf at byte 24: must give w rows of whole Q8_0 blocks (32) and a safe number of bytes, got [48]"`,
    );
    expect(await refuse(tensor(header(1, 0), "w", [2 ** 40, 2 ** 40], 0, 0))).toMatchInlineSnapshot(
      `"/hostile.gguf at byte 24: must give w rows of whole F32 blocks (1) and a safe number of bytes, got [1099511627776, 1099511627776]"`,
    );
    expect(await refuse(tensor(header(1, 0), "w", [2n ** 64n - 1n], 0, 0))).toMatchInlineSnapshot(
      `"/hostile.gguf at byte 37: must give w axes of safe whole numbers, got 18446744073709551615"`,
    );
    expect(await refuse(tensor(header(1, 0), "w", [0, 2 ** 52, 2 ** 52], 0, 2n ** 60n))).toMatchInlineSnapshot(
      `"/hostile.gguf at byte 65: must place w within the file, got 1152921504606846976"`,
    );
  });

  test("tensors that overlap, leave a hole, are out of line or out of range, or leave bytes at the end", async () => {
    const at = (offset: number | bigint): Bytes =>
      tensor(tensor(header(2, 0), "a", [8], 0, 0), "b", [8], 0, offset)
        .pad(32)
        .zeros(64);
    expect(await refuse(at(0))).toMatchInlineSnapshot(
      `"/hostile.gguf at byte 57: must place b right after the tensor before it, at 32 of the data, got 0"`,
    );
    expect(await refuse(at(64))).toMatchInlineSnapshot(
      `"/hostile.gguf at byte 57: must place b right after the tensor before it, at 32 of the data, got 64"`,
    );
    expect(await refuse(at(33))).toMatchInlineSnapshot(
      `"/hostile.gguf at byte 82: must place b at a multiple of 32, got 33"`,
    );
    expect(await refuse(at(2n ** 64n - 32n))).toMatchInlineSnapshot(
      `"/hostile.gguf at byte 82: must place b within the file, got 18446744073709551584"`,
    );
    expect(await refuse(at(32).zeros(40))).toMatchInlineSnapshot(
      `"/hostile.gguf at byte 160: must end with the last tensor, at byte 160, got 200"`,
    );
  });

  test("a text of a list that is not UTF-8 is found when the list is read", async () => {
    const file = header(0, 1).text("tokens").u32(9).u32(8).u64(2).text("a").text(Uint8Array.of(0xff)).save("list.gguf");
    const reader = await openGguf(file);
    expect(await failure(reader.readList("tokens"))).toMatchInlineSnapshot(
      `"/list.gguf at byte 71: must have a text of tokens in UTF-8"`,
    );
    await reader.close();
  });
});

test("the size of every value type is that of its number", () => {
  expect(Object.keys(VALUE_BYTES)).toHaveLength(11);
  const sizes = Object.entries(VALUE_BYTES).filter(([type]) => type !== "bool");
  for (const [type, bytes] of sizes) expect([type, bytes * 8]).toEqual([type, Number(type.slice(1))]);
});
