import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, expect, test, vi } from "vitest";
import { drawnGguf } from "../../test/helpers/drawn-gguf.ts";
import { drawWeights } from "../../test/helpers/drawn-weights.ts";
import { resolveConfig } from "../config/index.ts";
import { MemoryError } from "../core/errors.ts";
import { writeGguf, writeSplitGguf } from "../formats/index.ts";
import { nodeFiles } from "../formats/node.ts";
import { generateCommand } from "./generate.ts";

const TEMPLATE = "{{ bos_token }}{% for message in messages %}{{ message.content }}?{% endfor %}";

let folder: string;
let file: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "fathom-generate-"));
  file = join(folder, "model.gguf");
  const { model } = resolveConfig("tiny", { vocab_size: 264, n_mtp_layers: 0 });
  const { metadata, tensors } = drawnGguf(model, drawWeights(model, 3), { splitKvB: true, type: "F32" });
  const keys = new Map([...metadata, ["tokenizer.chat_template", { type: "text", value: TEMPLATE } as const]]);
  await writeGguf(nodeFiles, file, { metadata: keys, tensors });
  await writeSplitGguf(nodeFiles, join(folder, "part"), { metadata: keys, tensors }, 50_000);
});
afterAll(() => rm(folder, { recursive: true }));
afterEach(() => void vi.restoreAllMocks());

async function run(...words: string[]): Promise<Record<string, unknown>> {
  const print = vi.spyOn(process.stdout, "write").mockReturnValue(true);
  const fixed = ["--json", "--temperature", "0", "--max-tokens", "8"];
  await generateCommand().parseAsync([...fixed, ...words], { from: "user" });
  return JSON.parse(String(print.mock.lastCall?.[0])) as Record<string, unknown>;
}

test("a .gguf file and a split one continue a prompt with the same tokens", async () => {
  const { tokens_per_sec: _, ...whole } = await run("--model", file, "--prompt", "What is");
  expect(whole).toMatchObject({ tokens: 8, prompt_tokens: 8, finish_reason: "length" });
  const parts = (await nodeFiles.list(folder)).filter((name) => name.startsWith("part-"));
  const { tokens_per_sec: __, ...split } = await run("--model", join(folder, parts.at(-1)!), "--prompt", "What is");
  expect(split).toEqual(whole);
});

test("--chat-template checkpoint renders the template in the metadata of the file", async () => {
  const { text } = await run("--model", file, "--prompt", "What?");
  const chat = await run("--model", file, "--chat-template", "checkpoint", "--prompt", "What");
  expect(chat).toMatchObject({ text, chat_template: "checkpoint", prompt_tokens: 6 });
});

test("weights above --memory-limit are refused with both numbers", async () => {
  const refused = await run("--model", file, "--memory-limit", "100KiB").catch((error: unknown) => error);
  expect(refused).toBeInstanceOf(MemoryError);
  expect((refused as MemoryError).message).toMatch(
    /model\.gguf: needs \d{6} bytes \([\d.]+ MiB\) of 102400 bytes \(0\.1 MiB\) available; /,
  );
  expect(await run("--model", file, "--memory-limit", "1GiB")).toHaveProperty("tokens");
  await expect(run("--model", file, "--memory-limit", "8")).rejects.toThrow(
    "--memory-limit: must be a size above 0 with its unit",
  );
});
