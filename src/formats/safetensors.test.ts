import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import * as fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { FormatError, IoError } from "../core/errors.ts";
import { writeSafetensors, type FilePort, type SafetensorsDType, type TensorSource } from "./index.ts";
import { nodeFiles, openSafetensors } from "./node.ts";
import { tensorBytes } from "./safetensors-header.ts";

let folder: string;
beforeAll(() => {
  folder = fs.mkdtempSync(path.join(os.tmpdir(), "fathom-safetensors-"));
});
afterAll(() => {
  fs.rmSync(folder, { recursive: true });
});

const inFolder = (name: string): string => path.join(folder, name);

/** A tensor of counting bytes, handed over in chunks of at most `step` bytes. */
function source(name: string, dtype: SafetensorsDType, shape: number[], step = 7): TensorSource {
  const bytes = Uint8Array.from({ length: tensorBytes(dtype, shape)! }, (_, i) => (i * 31 + name.length) & 255);
  const chunks = function* (): Generator<Uint8Array> {
    for (let at = 0; at < bytes.length; at += step) yield bytes.subarray(at, at + step);
  };
  return { name, dtype, shape, chunks };
}

function bytesOf(tensor: TensorSource): Uint8Array {
  return Uint8Array.from([...(tensor.chunks() as Iterable<Uint8Array>)].flatMap((chunk) => [...chunk]));
}

/** A file with a given header text and `dataBytes` zeros behind it. */
function foreign(name: string, header: string | Uint8Array, dataBytes: number, headerBytes?: bigint): string {
  const text = typeof header === "string" ? new TextEncoder().encode(header) : header;
  const length = new Uint8Array(8);
  new DataView(length.buffer).setBigUint64(0, headerBytes ?? BigInt(text.length), true);
  fs.writeFileSync(inFolder(name), Buffer.concat([length, text, new Uint8Array(dataBytes)]));
  return inFolder(name);
}

async function failure(promise: Promise<unknown>): Promise<string> {
  const error = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(FormatError);
  return (error as Error).message.replaceAll(folder, "");
}

describe("round trips", () => {
  const tensor = fc.record({
    dtype: fc.constantFrom<SafetensorsDType[]>(
      "F64",
      "F32",
      "F16",
      "BF16",
      "I64",
      "I32",
      "U8",
      "I8",
      "F8_E4M3",
      "F8_E8M0",
    ),
    shape: fc.array(fc.nat(5), { maxLength: 4 }),
    step: fc.integer({ min: 1, max: 100 }),
  });
  const names = fc.uniqueArray(
    fc.string({ unit: "binary", minLength: 1 }).filter((name) => name !== "__metadata__"),
    { minLength: 0, maxLength: 8 },
  );

  test("what is written is read back, bytes, shapes and metadata", async () => {
    let run = 0;
    await fc.assert(
      fc.asyncProperty(
        names,
        fc.infiniteStream(tensor),
        fc.dictionary(fc.string(), fc.string()),
        async (ids, stream, metadata) => {
          const tensors = ids.map((name) => {
            const { dtype, shape, step } = stream.next().value;
            return source(name, dtype, shape, step);
          });
          const file = inFolder(`round-${run++}.safetensors`);
          await writeSafetensors(nodeFiles, file, tensors, metadata);
          const reader = await openSafetensors(file);
          expect(reader.metadata).toEqual({ ...metadata });
          expect([...reader.tensors.keys()].toSorted()).toEqual(ids.toSorted());
          for (const expected of tensors) {
            const found = reader.tensors.get(expected.name)!;
            expect([found.dtype, found.shape]).toEqual([expected.dtype, expected.shape]);
            expect(await reader.read(expected.name)).toEqual(bytesOf(expected));
          }
          await reader.close();
        },
      ),
      { numRuns: 60 },
    );
  });

  test("every tensor begins at a multiple of its element, those of whole cache lines at a multiple of 64", async () => {
    const file = inFolder("aligned.safetensors");
    const tensors = [
      source("odd", "BF16", [3]),
      source("byte", "U8", [5]),
      source("matrix", "BF16", [4, 32]),
      source("scalar", "F32", []),
      source("wide", "F32", [16, 3]),
      source("long", "I64", [3]),
    ];
    await writeSafetensors(nodeFiles, file, tensors);
    const reader = await openSafetensors(file);
    const offsets = Object.fromEntries([...reader.tensors].map(([name, { offset }]) => [name, offset % 64]));
    await reader.close();
    expect(offsets).toEqual({ matrix: 0, wide: 0, long: 0, scalar: 24, odd: 28, byte: 34 });
  });

  test("a range of a tensor is read alone", async () => {
    const file = inFolder("range.safetensors");
    const tensor = source("w", "F32", [10]);
    await writeSafetensors(nodeFiles, file, [tensor]);
    const reader = await openSafetensors(file);
    expect(await reader.read("w", 12, 8)).toEqual(bytesOf(tensor).subarray(12, 20));
    await reader.close();
  });
});

describe("shards", () => {
  async function shard(name: string): Promise<string> {
    const at = inFolder(name);
    fs.mkdirSync(at);
    await writeSafetensors(nodeFiles, `${at}/model-00001-of-00002.safetensors`, [source("a", "F32", [4])]);
    await writeSafetensors(nodeFiles, `${at}/model-00002-of-00002.safetensors`, [source("bb", "BF16", [4])]);
    return at;
  }
  function writeIndex(at: string, weightMap: unknown): void {
    fs.writeFileSync(`${at}/model.safetensors.index.json`, JSON.stringify({ weight_map: weightMap }));
  }

  test("a folder with an index is read as one", async () => {
    const at = await shard("sharded");
    writeIndex(at, { a: "model-00001-of-00002.safetensors", bb: "model-00002-of-00002.safetensors" });
    const reader = await openSafetensors(at);
    expect([...reader.tensors.keys()]).toEqual(["a", "bb"]);
    expect(await reader.read("bb")).toEqual(bytesOf(source("bb", "BF16", [4])));
    await reader.close();
  });

  test("an index that names an absent tensor, or a file elsewhere, is refused", async () => {
    const at = await shard("lying");
    writeIndex(at, { c: "model-00001-of-00002.safetensors" });
    expect(await failure(openSafetensors(at))).toMatchInlineSnapshot(
      `"/lying/model-00001-of-00002.safetensors: must hold c, as the index says; copy or download the shard again"`,
    );
    writeIndex(at, { a: "../secret.safetensors" });
    expect(await failure(openSafetensors(at))).toMatchInlineSnapshot(
      `"/lying/model.safetensors.index.json at byte 19: must name a file of the same folder for a, got "../secret.safetensors""`,
    );
    writeIndex(at, 7);
    expect(await failure(openSafetensors(at))).toMatchInlineSnapshot(
      `"/lying/model.safetensors.index.json at byte 14: must be JSON with { here"`,
    );
  });

  test("a folder without weights and an absent path are IoErrors", async () => {
    await expect(openSafetensors(folder)).rejects.toThrow(IoError);
    await expect(openSafetensors(inFolder("absent.safetensors"))).rejects.toThrow(IoError);
  });
});

describe("a malformed file is refused with its place", () => {
  const header = (tensors: Record<string, unknown>): string => JSON.stringify(tensors);
  const f32 = (begin: number, end: number, shape = [(end - begin) / 4]): object => ({
    dtype: "F32",
    shape,
    data_offsets: [begin, end],
  });

  test("cut off, in the length, in the header and in the data", async () => {
    fs.writeFileSync(inFolder("short"), new Uint8Array(5));
    expect(await failure(openSafetensors(inFolder("short")))).toMatchInlineSnapshot(
      `"/short at byte 0: must be a safetensors file of at least 8 bytes, got 5"`,
    );
    const text = header({ a: f32(0, 16) });
    expect(await failure(openSafetensors(foreign("cut-header", text, 0, 4000n)))).toMatchInlineSnapshot(
      `"/cut-header at byte 63: must have 4008 bytes, got 63; the file is cut off; copy or download it again"`,
    );
    expect(await failure(openSafetensors(foreign("cut-data", text, 15)))).toMatchInlineSnapshot(
      `"/cut-data at byte 78: must have 79 bytes, got 78; the file is cut off; copy or download it again"`,
    );
  });

  test("a header larger than the limit", async () => {
    expect(await failure(openSafetensors(foreign("huge", "{}", 0, 2n ** 63n)))).toMatchInlineSnapshot(
      `"/huge at byte 0: must have a header of at most 100000000 bytes, got 9223372036854775808; this is not a safetensors file"`,
    );
  });

  test("not UTF-8, not JSON, not an object", async () => {
    const notUtf8 = Uint8Array.from([0x7b, 0x22, 0xff, 0x22, 0x7d]);
    expect(await failure(openSafetensors(foreign("latin", notUtf8, 0)))).toMatchInlineSnapshot(
      `"/latin at byte 8: must have a header in UTF-8"`,
    );
    expect(await failure(openSafetensors(foreign("text", "hello", 0)))).toMatchInlineSnapshot(
      `"/text at byte 8: must be JSON with { here"`,
    );
    expect(await failure(openSafetensors(foreign("list", "[]", 0)))).toMatchInlineSnapshot(
      `"/list at byte 8: must be JSON with { here"`,
    );
  });

  test("tensors that overlap, leave a hole, or leave bytes at the end", async () => {
    const overlap = header({ a: f32(0, 16), b: f32(8, 24) });
    expect(await failure(openSafetensors(foreign("overlap", overlap, 24)))).toMatchInlineSnapshot(
      `"/overlap at byte 125: must place b right after the tensor before it, at byte 133, got 125"`,
    );
    const hole = header({ a: f32(0, 16), b: f32(20, 24) });
    expect(await failure(openSafetensors(foreign("hole", hole, 24)))).toMatchInlineSnapshot(
      `"/hole at byte 134: must place b right after the tensor before it, at byte 134, got 138"`,
    );
    expect(await failure(openSafetensors(foreign("rest", header({ a: f32(0, 16) }), 20)))).toMatchInlineSnapshot(
      `"/rest at byte 79: must end with the last tensor, at byte 79, got 83"`,
    );
  });

  test("a name twice", async () => {
    const twice = `{"a":${JSON.stringify(f32(0, 16))},"a":${JSON.stringify(f32(0, 16))}}`;
    expect(await failure(openSafetensors(foreign("twice", twice, 16)))).toMatchInlineSnapshot(
      `"/twice at byte 67: must name a once"`,
    );
  });

  test("sizes that do not fit the shape, overflow, or are no numbers", async () => {
    const sized = (entry: object): string => foreign("sized", header({ a: entry }), 16);
    expect(await failure(openSafetensors(sized(f32(0, 16, [5]))))).toMatchInlineSnapshot(
      `"/sized at byte 13: must give a the bytes of F32 [5] (20), got 16"`,
    );
    expect(await failure(openSafetensors(sized(f32(0, 16, [2 ** 40, 2 ** 40]))))).toMatchInlineSnapshot(
      `"/sized at byte 13: must give a the bytes of F32 [1099511627776, 1099511627776] (no safe number), got 16"`,
    );
    expect(await failure(openSafetensors(sized(f32(16, 0, [4]))))).toMatchInlineSnapshot(
      `"/sized at byte 13: must give a the bytes of F32 [4] (16), got -16"`,
    );
    expect(await failure(openSafetensors(sized(f32(0, 16, [-4]))))).toMatchInlineSnapshot(
      `"/sized at byte 13: must give a a shape of whole numbers, got [-4]"`,
    );
    expect(
      await failure(openSafetensors(sized({ dtype: "F31", shape: [4], data_offsets: [0, 16] }))),
    ).toMatchInlineSnapshot(`"/sized at byte 13: must give a a known dtype, got "F31""`);
    expect(
      await failure(openSafetensors(sized({ dtype: "F4", shape: [3], data_offsets: [0, 1] }))),
    ).toMatchInlineSnapshot(`"/sized at byte 13: must give a the bytes of F4 [3] (no safe number), got 1"`);
    expect(
      await failure(openSafetensors(sized({ dtype: "F32", shape: [4], data_offsets: [0] }))),
    ).toMatchInlineSnapshot(`"/sized at byte 13: must give a data_offsets of two whole numbers, got [0]"`);
  });

  test("lists nested deeper than a stack, and names longer than any, are refused without reading them", async () => {
    const deep = "[".repeat(200_000) + "]".repeat(200_000);
    const entry = (shape: string): string => `{"a":{"dtype":"F32","shape":${shape},"data_offsets":[0,16]}}`;
    expect(await failure(openSafetensors(foreign("deep", entry(deep), 16)))).toMatchInlineSnapshot(
      `"/deep at byte 36: must have at most 1000 characters here"`,
    );
    expect(await failure(openSafetensors(foreign("deep", `{"__metadata__":${deep}}`, 0)))).toMatchInlineSnapshot(
      `"/deep at byte 24: must have a __metadata__ of texts"`,
    );
    expect(await failure(openSafetensors(foreign("deep", `{"a":${deep}}`, 0)))).toMatchInlineSnapshot(
      `"/deep at byte 13: must be JSON with { here"`,
    );
    expect(await failure(openSafetensors(foreign("long", `{"${"n".repeat(5000)}":1}`, 0)))).toMatchInlineSnapshot(
      `"/long at byte 9: must have names of at most 4096 characters"`,
    );
    const at = inFolder("deep-index");
    fs.mkdirSync(at);
    fs.writeFileSync(`${at}/model.safetensors.index.json`, `{"weight_map":{"a":${deep}}}`);
    expect(await failure(openSafetensors(at))).toMatchInlineSnapshot(
      `"/deep-index/model.safetensors.index.json at byte 19: must have at most 300 characters here"`,
    );
    fs.writeFileSync(`${at}/model.safetensors.index.json`, '{"weight_map":{"a":"x.safetensors","a":"x.safetensors"}}');
    expect(await failure(openSafetensors(at))).toMatchInlineSnapshot(
      `"/deep-index/model.safetensors.index.json at byte 39: must name a once"`,
    );
  });

  test("no file of random bytes is read", async () => {
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ minLength: 0, maxLength: 64 }), async (bytes) => {
        fs.writeFileSync(inFolder("random"), bytes);
        await failure(openSafetensors(inFolder("random")));
      }),
      { numRuns: 100 },
    );
  });
});

describe("a failed write", () => {
  /** The local disk, full after `room` bytes. */
  function fullDisk(room: number): FilePort {
    return {
      ...nodeFiles,
      openWrite: async (file) => {
        const real = await nodeFiles.openWrite(file);
        let left = room;
        return {
          ...real,
          write: async (bytes) => {
            await real.write(bytes.subarray(0, left));
            left -= bytes.length;
            if (left < 0) throw new IoError(file, "must be writable", { got: "ENOSPC", cure: "free some disk space" });
          },
        };
      },
    };
  }

  test("on a full disk leaves the old file as it was and nothing beside it", async () => {
    const at = inFolder("full");
    fs.mkdirSync(at);
    const file = `${at}/model.safetensors`;
    const old = source("w", "F32", [8]);
    await writeSafetensors(nodeFiles, file, [old]);
    const large = source("w", "F32", [1000]);
    for (const room of [0, 10, 200, 3000]) {
      await expect(writeSafetensors(fullDisk(room), file, [large])).rejects.toThrow(IoError);
    }
    expect(fs.readdirSync(at)).toEqual(["model.safetensors"]);
    const reader = await openSafetensors(file);
    expect(await reader.read("w")).toEqual(bytesOf(old));
    await reader.close();
  });

  test("a source with too few bytes is a bug, and no file appears", async () => {
    const tensor = { ...source("w", "F32", [8]), chunks: () => [new Uint8Array(31)] };
    const file = inFolder("few.safetensors");
    await expect(writeSafetensors(nodeFiles, file, [tensor])).rejects.toThrow("yields exactly its bytes, 1 left");
    expect(fs.existsSync(file)).toBe(false);
  });

  test("into a missing folder says so", async () => {
    const error = await writeSafetensors(nodeFiles, inFolder("no/where.safetensors"), []).catch((e: unknown) => e);
    expect((error as Error).message.replaceAll(folder, "")).toMatchInlineSnapshot(
      `"/no/where.safetensors.tmp: must be a writable file, got "ENOENT"; check the path"`,
    );
  });
});
