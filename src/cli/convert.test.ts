/** `fathom convert --verify --text`: a model whose weights stand in wrong places does not pass. */

import * as fs from "node:fs";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { ConversionFolder, modelOf, rawTensors, writeRaw } from "../../test/helpers/conversion.ts";
import { writeRandomFolder } from "../../test/helpers/random-checkpoint.ts";
import { convertCommand, conversionProgress } from "./convert.ts";
import { ProgressLine } from "./output.ts";

const at = new ConversionFolder();
/** The byte tokenizer has three special tokens before the 256 bytes. */
const FIRST_BYTE = 3;
const CYCLE = "abcdefgh";

/** Each letter's embedding is a direction of its own, and the head holds that of the letter before: it foretells the cycle. */
beforeAll(async () => {
  const settings = { vocabSize: 264, dtype: "f32", nMtpLayers: 0 };
  await writeRandomFolder(at.path("model"), modelOf("tiny", settings));
  const tensors = await rawTensors(at.path("model"));
  const embed = new Float32Array(264 * 32);
  const head = new Float32Array(264 * 32);
  for (let i = 0; i < CYCLE.length; i++) {
    embed[(CYCLE.charCodeAt(i) + FIRST_BYTE) * 32 + i] = 1000;
    head[(CYCLE.charCodeAt((i + 1) % CYCLE.length) + FIRST_BYTE) * 32 + i] = 8;
  }
  const put = (name: string, values: Float32Array): void => {
    const bytes = new Uint8Array(values.buffer as ArrayBuffer);
    tensors.set(name, { ...tensors.get(name)!, bytes });
  };
  put("model.embed_tokens.weight", embed);
  put("lm_head.weight", head);
  await writeRaw(at.path("model"), tensors);
  fs.writeFileSync(at.path("cycle.txt"), CYCLE.repeat(60));
  fs.writeFileSync(at.path("other.txt"), "hgfedcba".repeat(60));
});
afterAll(() => at[Symbol.dispose]());

async function convert(target: string, ...words: string[]): Promise<string> {
  let said = "";
  const print = vi.spyOn(process.stdout, "write").mockImplementation((text) => (said += String(text)) !== "");
  try {
    await convertCommand().parseAsync([at.path("model"), at.path(target), ...words], { from: "user" });
  } finally {
    print.mockRestore();
  }
  return said;
}

test.each([
  ["bf16", "bf16"],
  ["int8.gguf", "q8_0"],
])("%s: the loss of a text that the model knows is far under ln V", async (target, dtype) => {
  const words = ["--dtype", dtype, "--verify", "--text", at.path("cycle.txt")];
  const lines = (await convert(target, ...words)).trim().split("\n");
  expect(lines.at(-2)).toMatch(/^loss of 256 tokens: \d\.\d\d nats a token, by chance 5\.58$/);
  const json = JSON.parse(await convert(`json-${target}`, ...words, "--json")) as {
    verified: { files: number; loss: { tokens: number; nats: number; chance: number } };
  };
  const { tokens, nats, chance } = json.verified.loss;
  expect([tokens, chance]).toEqual([256, Math.log(264)]);
  expect(nats).toBeLessThan(2);
  expect(json.verified).not.toHaveProperty("path");
});

test("a text that the model does not foretell ends in an error with both numbers, and what was written has not got its name", async () => {
  const wrong = convert("wrong", "--dtype", "f32", "--verify", "--text", at.path("other.txt"));
  await expect(wrong).rejects.toThrow(
    /wrong\.partial: must foretell .*other\.txt far better than chance \(5\.58 nats a token\): at most 4\.18, got [\d.]+; the weights/,
  );
  expect(fs.existsSync(at.path("wrong"))).toBe(false);
  expect(fs.existsSync(at.path("wrong.partial", "model.safetensors"))).toBe(true);
});

test("the last line names a file that is there, of a split one too", async () => {
  const said = await convert("split.gguf", "--dtype", "f32", "--max-shard-size", "40KB", "--verify");
  const [, path = ""] = /^written: (.*)$/m.exec(said) ?? [];
  expect(path).toMatch(/split-00001-of-\d{5}\.gguf$/);
  expect(fs.existsSync(path)).toBe(true);
});

test("--config is refused beside a folder that is no demo's, and a source that is not there by its own rule", async () => {
  await expect(convert("y", "--dtype", "f32", "--config", "deepseek-v3")).rejects.toThrow("--config: acts only with");
  const absent = convertCommand().parseAsync([at.path("nosuch"), at.path("y"), "--dtype", "f32"], { from: "user" });
  await expect(absent).rejects.toThrow("source: must be the path of a checkpoint folder or a .gguf file");
});

test("a blank text is refused before anything is written", async () => {
  fs.writeFileSync(at.path("blank.txt"), " \n");
  const blank = convert("z", "--dtype", "f32", "--verify", "--text", at.path("blank.txt"));
  await expect(blank).rejects.toThrow("--text: must hold text to score");
  expect(fs.readdirSync(at.folder).filter((name) => name.startsWith("z"))).toEqual([]);
});

test("--text acts only with --verify, and is there before anything is written", async () => {
  await expect(convert("x", "--dtype", "f32", "--text", at.path("cycle.txt"))).rejects.toThrow(
    "--text: acts only with --verify",
  );
  const absent = convert("x", "--dtype", "f32", "--verify", "--text", at.path("absent.txt"));
  await expect(absent).rejects.toThrow("must match at least one file");
  expect(fs.readdirSync(at.folder).filter((name) => name.startsWith("x"))).toEqual([]);
});

describe("the line of a conversion", () => {
  /** What is written to a terminal, or to a file, at the given seconds. */
  function shown(isTTY: boolean, times: readonly (readonly [seconds: number, doneBytes: number])[]): string[] {
    const written: string[] = [];
    const write = (text: string): number => written.push(text);
    const stream = { isTTY, columns: 100, write } as unknown as NodeJS.WriteStream;
    let seconds = 0;
    const now = (): number => seconds * 1000;
    const show = conversionProgress(new ProgressLine(stream, now), now);
    for (const [time, doneBytes] of times) {
      seconds = time;
      show({ file: "model-00002-of-00003.safetensors", doneBytes, totalBytes: 2 ** 31 });
    }
    return written;
  }

  test("says the file, how much is written of how much, and the time to go at the pace so far", () => {
    expect(shown(false, [[20, 2 ** 29]])).toEqual([
      "model-00002-of-00003.safetensors: 512.0 MiB of 2.00 GiB  ETA 1m 00s\n",
    ]);
  });

  test("comes after a second, a plain one every five, and goes when all is written", () => {
    const lines = shown(false, [
      [0.9, 2 ** 20],
      [2, 2 ** 21],
      [3, 2 ** 22],
      [8, 2 ** 30],
    ]);
    expect(lines.map((line) => line.slice(line.indexOf("ETA")))).toEqual(["ETA 34m 06s\n", "ETA 8s\n"]);
    const live = shown(true, [
      [8, 2 ** 30],
      [16, 2 ** 31],
    ]);
    expect(live).toEqual(["\r\u001B[2Kmodel-00002-of-00003.safetensors: 1.00 GiB of 2.00 GiB  ETA 8s", "\r\u001B[2K"]);
  });
});
